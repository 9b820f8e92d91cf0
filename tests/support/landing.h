#pragma once
#include <check.h>
#include "dbwriter/replay.h"
#include "tests/support/mariadb.h"
#include "tests/support/sql.h"
/*
 * landing: the fixture of tests that land SQL logs in a real MariaDB: a private server, two logs' folders, a replay on a
 * worker of its own, and waiting for what lands.
 *
 * Threads: the test's own. landing_server before the tests fork; landing_setup and landing_teardown are the checked fixture's.
 */
struct landing {
	struct mariadb server;
	struct env *env;
	struct loop *loop, *second_loop;
	struct log *log;
	struct sql *q; /* on database loquat */
	struct replay *replay, *second;
	struct replay_options options; /* of the next start */
	char *dir, folder[2][400];     /* DIR/role-1, DIR/role-2 */
};
/*
 * Starts the server and runs the tests; the exit status. setup, teardown: the checked fixture's, or NULL: landing_setup and
 * landing_tables of t, landing_teardown of t.
 */
#define landing_main(t, name, setup, teardown, ...) \
	landing_main_tests(t, name, setup, teardown, (const TTest *const[]){ __VA_ARGS__, NULL })
int landing_main_tests(struct landing *t, const char *name, void (*setup)(void), void (*teardown)(void),
		       const TTest *const *tests); /* they end with NULL */
void landing_setup(struct landing *t);             /* an empty database; no tables */
void landing_tables(struct landing *t); /* the reference game's, with roles 1 'a' and 2 'b' that have no gold */
void landing_teardown(struct landing *t);
void landing_start(struct landing *t);
void landing_start_second(struct landing *t); /* another replay of the same folder */
void landing_end(struct landing *t);

void landing_until(struct landing *t, bool (*fn)(void *arg), void *arg, const char *what); /* at most 20 s */
void landing_until_logged(struct landing *t, const char *words);
/* The log of role-NUMBER has landed up to lsn: in the database and, whole, in the replay's own figures. */
void landing_until_landed(struct landing *t, int number, int64_t lsn);
struct replay_figures landing_now(struct landing *t);

/* A file of records that each add their lsn to role 1's gold: what lands twice, or not at all, is seen in the sum. */
void landing_adding(const char *to, unsigned number, uint64_t first, uint64_t last, uint64_t epoch);
int64_t landing_sum_to(int64_t n);
int64_t landing_gold(struct landing *t); /* of role 1 */
