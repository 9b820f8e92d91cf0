#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/env.h"
/*
 * config: a Lua file that returns one table, checked against a schema.
 *
 * Threads: loading before start-up ends; reading from any thread, a loaded configuration never changes.
 * Memory:  config_free frees everything, texts included.
 * Schema:  one row per key: path, type, default, bounds, sentence. "instances[].id" is a key of each element of
 *          a list, "gate.players_max" of a nested table, "platforms.*.key" of each entry of a map. The same
 *          rows feed the check, --help and the documentation. An unknown key, a wrong type, a value out of
 *          bounds or a missing one is one line naming file, key path, what was expected and what was found.
 *          A row whose section is an optional CONFIG_TABLE that is left out neither applies nor must be given. A
 *          CONFIG_TABLE without rows below it may hold anything. Names hold no . [ ] and *.
 * The file runs in a small environment: math (without random), string, table, pairs, ipairs, tonumber, tostring,
 * type, select, error, assert, and env(name) for environment variables (nil in config_parse). It may compute, but
 * not read files; an endless loop or more than 64 MiB end it.
 */
enum config_type {
	CONFIG_INT,
	CONFIG_NUMBER,
	CONFIG_BOOL,
	CONFIG_STRING,
	CONFIG_TABLE,
	CONFIG_ANY /* a subtree that somebody else checks; readable like the rest; "*" matches any top-level key */
};
struct config_row {
	const char *path;
	enum config_type type;
	const char *fallback; /* text of the default ("10000", "true"), NULL: must be given, "" with optional: absent */
	bool optional;
	double min, max; /* for numbers; for strings the length; both 0: unbounded */
	const char *help;
};
struct config;

/* error gets the one line. rows ends with path NULL. ERR_CONFIG, ERR_NOT_FOUND */
int config_load(struct env *env, const char *file, const struct config_row *rows, char *error, size_t error_size,
		struct config **out);
int config_parse(const char *name, const char *text, size_t n, const struct config_row *rows, char *error,
		 size_t error_size, struct config **out);
void config_free(struct config *c);

/* Paths as in the schema with 1-based indexes: "instances[3].id". A path that is not there: the fallback given. */
int64_t config_int(const struct config *c, const char *path, int64_t otherwise);
double config_number(const struct config *c, const char *path, double otherwise);
bool config_bool(const struct config *c, const char *path, bool otherwise);
const char *config_string(const struct config *c, const char *path, const char *otherwise);
/*
 * Could a value stand there? ERR_NOT_FOUND: no row knows the path; error gets one line that begins with who, and names the
 * nearest key. For paths that others write: a misspelt one would give the fallback for ever.
 */
int config_check_path(const struct config *c, const char *who, const char *path, char *error, size_t error_size);
size_t config_count(const struct config *c, const char *path);           /* elements of a list; 0 if absent */
void config_help(const struct config_row *rows, char *out, size_t size); /* the table for --help */
