#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/env.h"
/*
 * luasrc: the Lua files of a service, read once, so that all workers run the same code.
 *
 * Threads: made on a thread that may read files (control); once it is shared it never changes and any thread may read.
 *          References are counted atomically.
 * Names:   a file is named by its path below its folder without ".lua", folders separated by dots, as require names
 *          it: "bagHandler", "lib.grid".
 * Limits:  LUASRC_FILES files of LUASRC_BYTES bytes.
 */
#define LUASRC_FILES 500
#define LUASRC_BYTES (4u << 20)
struct luasrc;
struct luatable;

struct luasrc_file {
	const char *name; /* "bagHandler" */
	const char *path; /* "role/lua/bagHandler.lua", as errors name it */
	const char *text;
	size_t bytes;
	const char *code; /* what it compiles to, or NULL */
	size_t code_bytes;
	struct luatable
		*table; /* of a file in the folder tables: what it returned, kept once for all workers; else NULL */
};

/*
 * Every *.lua of these folders (NULL-ended list) and the folders in them, one level deep, but those named tests; a name in
 * an earlier folder hides the same in a later one. Files in folders named tables are run here, once (common/luatable.h).
 * error gets one line. ERR_NOT_FOUND, ERR_IO, ERR_FULL, ERR_FAILED: a table's file is wrong
 */
int luasrc_read(struct env *env, const char *const *folders, char *error, size_t error_size, struct luasrc **out);
/* The same with the folders named tests ("tests.bag"): for the runner of scripts' tests. */
int luasrc_read_tests(struct env *env, const char *const *folders, char *error, size_t error_size, struct luasrc **out);
/* From memory, for tests: names and texts in turn, NULL-ended. */
struct luasrc *luasrc_of(const char *const *names_and_texts);
struct luasrc *luasrc_ref(struct luasrc *s);
void luasrc_unref(struct luasrc *s); /* NULL is fine */

/* Keeps what the file compiles to; code is malloc's and ours from here on. Before s is shared. */
void luasrc_compiled_take(struct luasrc *s, size_t index, char *code, size_t bytes);

size_t luasrc_files(const struct luasrc *s);
const struct luasrc_file *luasrc_at(const struct luasrc *s, size_t index);       /* sorted by name; NULL: none */
const struct luasrc_file *luasrc_find(const struct luasrc *s, const char *name); /* NULL: none */
const char *luasrc_version(const struct luasrc *s);                              /* 8 hex digits over names and texts */
