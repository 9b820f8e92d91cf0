#pragma once
#include "common/env.h"
/*
 * schema: brings the tables up to date by the files NNN-name.sql of a folder: in order, each once, none skipped. Numbers
 * from SCHEMA_GAMES on are a game's, those below are Loquat's, and neither range has to wait for the other: an update of
 * Loquat's brings 006 after the game's 500 was applied.
 *
 * Table loquat_schema has a row for each that was applied, with the checksum of its bytes; it is written behind the
 * file's last statement, so a file that fails is not recorded and runs again from its beginning the next time: DDL
 * commits by itself, so its statements must bear that (IF NOT EXISTS). One runs at a time, under a lock of the server's.
 *
 * A game's file that was applied under another number, with the same name behind it and the same bytes, was renumbered:
 * its row is, too, and nothing is applied.
 *
 * Refused before anything is applied: a file without a number, a number twice or missing, a file that was changed after it
 * had been applied, one that stands before others of its range which were applied already.
 *
 * Threads: the loop of db, which is open and idle; it has chosen the database.
 */
struct schema;
/* on_done comes once, never from inside: why NULL: all is applied, `applied` files of it now; else one line. */
struct schema *schema_apply(struct env *env, struct env_db *db, const char *folder,
			    void (*on_done)(void *arg, const char *why, unsigned applied), void *arg);
void schema_steps_free(struct schema *s); /* also while it runs; NULL is fine */
