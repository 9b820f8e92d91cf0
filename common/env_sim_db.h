#pragma once
#include "common/env_sim_sql.h"
/*
 * env_sim_db: what the files that execute statements share among themselves. Nobody else includes it.
 *
 * Threads: the simulation's one. Memory: a statement's arena, released with it; rows are their table's.
 */

struct run { /* one statement under way */
	struct db *db;
	struct txn *txn;
	struct statement *s;
	struct result *r;
	struct table *table;
	struct arena arena;   /* of the statement */
	bool waits, numbered; /* numbered: an AUTO_INCREMENT value was given out */
};

struct picked {
	struct row **at;
	size_t n, cap;
};

struct scope db_scope(struct run *run, const struct cell *row, const char *clause);
/* Those that WHERE, ORDER BY and LIMIT leave. writes: to change them, so run->waits if another's transaction has one. */
void db_find_rows(struct run *run, struct picked *p, bool writes);

/* One statement each: run->r is the result, or has the error; run->waits: it must be executed anew. */
void db_select(struct run *run);
void db_update(struct run *run);
void db_delete(struct run *run);
void db_insert(struct run *run);
