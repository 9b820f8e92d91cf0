#pragma once
#include "common/env.h"
/*
 * schema: brings the tables up to date by the files NNN-name.sql of a folder: in order, each once, none skipped.
 *
 * Table loquat_schema has a row for each that was applied, with the checksum of its bytes; it is written behind the
 * file's last statement, so a file that fails is not recorded and runs again from its beginning the next time: DDL
 * commits by itself, so its statements must bear that (IF NOT EXISTS). One runs at a time, under a lock of the server's.
 *
 * Refused before anything is applied: a file without a number, a number twice or missing, a file that was changed after it
 * had been applied, one that stands before others which were applied already.
 *
 * Threads: the loop of db, which is open and idle; it has chosen the database.
 */
struct schema;
/* on_done comes once, never from inside: why NULL: all is applied, `applied` files of it now; else one line. */
struct schema *schema_apply(struct env *env, struct env_db *db, const char *folder,
			    void (*on_done)(void *arg, const char *why, unsigned applied), void *arg);
void schema_steps_free(struct schema *s); /* also while it runs; NULL is fine */
