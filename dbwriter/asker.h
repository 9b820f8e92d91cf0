#pragma once
#include "common/buf.h"
#include "common/env.h"
/*
 * asker: a row of queries on a database, one after the other, for a command that waits for their end.
 *
 * Threads: the caller's waits; step runs on a loop of its own.
 */
/*
 * Called with NULL first, then with each answer (also one that was refused): puts the next query into sql and returns 1,
 * or 0 when it is done, or a negative error.
 */
typedef int asker_step(void *arg, const struct env_db_result *last, struct buf *sql);
/* What step returned last, or ERR_UNAVAILABLE with a line in why: no connection, or it was lost. */
int asker_run(struct env *env, const struct env_db_options *db, asker_step *step, void *arg, char *why,
	      size_t why_size);
