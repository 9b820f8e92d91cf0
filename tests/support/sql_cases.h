#pragma once
#include "common/loop.h"
/*
 * sql_cases: what the SQL we use does, as one list of statements and results. MariaDB runs it (tests/system/sql.c)
 * and the simulation's table store runs it (tests/sim/sql.c): where they differ the store is wrong.
 *
 * Threads: the loop's. Memory: the caller embeds it.
 */
#define SQL_CASES_CONNECTIONS 3
struct sql_cases {
	struct loop *loop;
	struct env_db *db[SQL_CASES_CONNECTIONS];
	bool early[SQL_CASES_CONNECTIONS]; /* a result that came before it was due */
	struct env_db_options options;
	unsigned opened, step;
	struct timer later;
	unsigned failed;
	char first[1024];        /* words of the first difference */
	void (*done)(void *arg); /* all steps are through, or a connection failed */
	void *arg;
};
/* Starts on the loop; done comes when all is over. */
void sql_cases_start(struct sql_cases *c, struct loop *loop, const struct env_db_options *o, void (*done)(void *arg),
		     void *arg);
unsigned sql_cases_count(void);
