#include <check.h>
#include <stdio.h>
#include "tests/support/flag.h"
#include "tests/support/mariadb.h"
#include "tests/support/on_loop.h"
#include "tests/support/sql_cases.h"
#include "tests/support/suite.h"
/*
 * What the simulation's database does was taken from MariaDB: this is MariaDB doing it.
 */
static struct mariadb server;
static struct sql_cases cases;
static struct flag over;
static struct loop *loop;

static void done(void *arg)
{
	flag_raise(arg);
}

static void start(void *arg)
{
	struct env_db_options o = { .socket = server.socket, .user = "root", .database = "" };
	sql_cases_start(&cases, arg, &o, done, &over);
}

START_TEST(the_cases_of_the_simulated_database_are_what_mariadb_does)
{
	struct env *env = env_new();
	mariadb_start(&server);
	loop = on_loop_new(env, "sql");
	flag_init(&over);
	on_loop(loop, start, loop);
	ck_assert(flag_wait(&over, 1));
	on_loop_free(loop);
	env_free(env);
	mariadb_end(&server);
	ck_assert_msg(!cases.failed, "%u differences, the first: %s", cases.failed, cases.first);
	ck_assert_uint_eq(cases.step, sql_cases_count());
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("mariadb");
	if (!mariadb_installed()) {
		puts("skip sql: MariaDB is not installed");
		return 0;
	}
	tcase_set_timeout(t, 60);
	tcase_add_test(t, the_cases_of_the_simulated_database_are_what_mariadb_does);
	return suite_run("sql", t);
}
