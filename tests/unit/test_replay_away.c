/* A database that is away, killed, stopped, locked or not set up yet is waited for: dbwriter/replay.h. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include "tests/support/folder.h"
#include "tests/support/landing.h"
#include "tests/support/records.h"

static struct landing here; /* its server is started once, before the tests fork */

static bool lag_is(void *arg)
{
	return landing_now(&here).lag_records == *(uint64_t *)arg;
}

static bool lags(void *arg)
{
	(void)arg;
	return landing_now(&here).lag_ms > 0;
}

static bool is_connected(void *arg)
{
	struct replay_figures f;
	replay_figures(here.replay, &f);
	return f.connected == *(bool *)arg;
}

static bool refused_is(void *arg)
{
	return landing_now(&here).refused == *(unsigned *)arg;
}

START_TEST(a_database_that_is_away_at_first_is_waited_for_and_the_lag_is_told)
{
	char *real = here.server.socket, away[400];
	snprintf(away, sizeof away, "%s/nobody.sock", here.dir);
	landing_adding(here.folder[0], 1, 1, 30, 1);
	here.options.db.socket = away;
	landing_start(&here);
	landing_until(&here, lag_is, &(uint64_t){ 30 }, "a lag of 30 records");
	landing_until(&here, lags, NULL, "a lag in time");
	ck_assert(!landing_now(&here).connected);
	ck_assert_int_eq(symlink(real, away), 0);
	landing_until_landed(&here, 1, 30);
	ck_assert_uint_eq(landing_now(&here).lag_records, 0);
	ck_assert(landing_now(&here).connected);
}
END_TEST

START_TEST(a_database_that_is_stopped_counts_as_away_also_when_nothing_is_to_be_done)
{
	bool yes = true, no = false;
	landing_start(&here);
	landing_until(&here, is_connected, &yes, "connected");
	mariadb_signal(&here.server, SIGSTOP);
	landing_until(&here, is_connected, &no, "noticed");
	landing_until_logged(&here, "dbwriter.database_silent");
	mariadb_signal(&here.server, SIGCONT);
	landing_until(&here, is_connected, &yes, "answers again");
	landing_adding(here.folder[0], 1, 1, 10, 1);
	landing_until_landed(&here, 1, 10);
}
END_TEST

START_TEST(a_row_that_somebody_holds_is_waited_for)
{
	struct sql *other = sql_open(here.server.socket, "loquat");
	landing_adding(here.folder[0], 1, 1, 10, 1);
	sql_run(other, "BEGIN; UPDATE role SET gold = gold + 1000 WHERE id = 1");
	landing_start(&here);
	landing_until_logged(&here, "dbwriter.again");
	ck_assert_int_eq(sql_int(here.q, "SELECT lsn FROM loquat_replay"), 0);
	sql_run(other, "COMMIT");
	landing_until_landed(&here, 1, 10);
	ck_assert_int_eq(landing_gold(&here), 1000 + landing_sum_to(10));
	sql_close(other);
}
END_TEST

/* A record in a file of its own: each role from last down to first gets so much gold more than its number. */
static void assign(unsigned lsn, unsigned last, unsigned first, unsigned more)
{
	char name[32];
	struct buf b = BUF_INIT, statements = BUF_INIT;
	for (unsigned id = last; id >= first; id--)
		buf_addf(&statements, "UPDATE role SET gold = %u WHERE id = %u;\n", id + more, id);
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = lsn, .epoch = 1, .keys = "role:1", .statements = buf_cstr(&statements) });
	snprintf(name, sizeof name, "%08u.sql", lsn);
	folder_write(here.folder[0], name, b.data, b.len);
	buf_release(&b);
	buf_release(&statements);
}

static bool tried_more_than(void *arg)
{
	return landing_now(&here).retries > *(uint64_t *)arg;
}

/* Its rows are in the order of their keys by then: what changes one of them once more would find another in its place. */
START_TEST(a_transaction_that_is_tried_again_takes_no_more_records_in)
{
	struct sql *other = sql_open(here.server.socket, "loquat");
	uint64_t tries = 0;
	sql_run(here.q, "INSERT INTO role (id, uid, name) SELECT seq, seq, seq FROM seq_3_to_500");
	assign(1, 500, 1, 1000);
	sql_run(other, "BEGIN; UPDATE role SET name = 'C' WHERE id = 1");
	landing_start(&here);
	landing_until(&here, tried_more_than, &tries, "tried");
	assign(2, 3, 3, 7000);
	tries = landing_now(&here).retries + 1;
	landing_until(&here, tried_more_than, &tries, "tried again and again");
	sql_run(other, "COMMIT");
	landing_until_landed(&here, 1, 2);
	ck_assert_int_eq(sql_int(here.q, "SELECT gold FROM role WHERE id = 3"), 7003);
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM role WHERE gold = id + 1000"), 499);
	sql_close(other);
}
END_TEST

/* Its writer's clock was ahead for a while, and is no more. */
START_TEST(the_lag_grows_also_behind_a_record_that_says_it_is_of_tomorrow)
{
	struct sql *other = sql_open(here.server.socket, "loquat");
	struct buf b = BUF_INIT;
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 1,
				       .epoch = 1,
				       .keys = "role:1",
				       .statements = "UPDATE role SET gold = 7 WHERE id = 1;\n",
				       .time_us = env_wall_us(here.env) + UINT64_C(86400000000) });
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
	sql_run(other, "BEGIN; UPDATE role SET gold = gold + 1000 WHERE id = 1");
	landing_start(&here);
	landing_until_logged(&here, "dbwriter.again");
	landing_until(&here, lags, NULL, "a lag in time");
	ck_assert_uint_lt(landing_now(&here).lag_ms, 60000);
	sql_run(other, "COMMIT");
	landing_until_landed(&here, 1, 1);
	ck_assert_uint_eq(landing_now(&here).lag_ms, 0);
	sql_close(other);
}
END_TEST

START_TEST(without_the_positions_table_nothing_lands_until_it_is_there)
{
	landing_adding(here.folder[0], 1, 1, 10, 1);
	sql_run(here.q, "DROP TABLE loquat_replay");
	landing_start(&here);
	landing_until_logged(&here, "error=1146");
	landing_until(&here, refused_is, &(unsigned){ 1 }, "told that it takes nothing");
	ck_assert_int_eq(landing_gold(&here), 0);
	sql_file(here.q, "deploy/schema/001-base.sql");
	landing_until_landed(&here, 1, 10);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(10));
	landing_until(&here, refused_is, &(unsigned){ 0 }, "and that it does again");
}
END_TEST

/* As two dbwriters do that a full disk had refused, the one and the host's standby. */
START_TEST(what_somebody_else_has_landed_meanwhile_is_refused_no_more)
{
	landing_adding(here.folder[0], 1, 1, 10, 1);
	sql_run(here.q, "CREATE TABLE another LIKE loquat_replay; DROP TABLE loquat_replay");
	landing_start(&here);
	landing_until(&here, refused_is, &(unsigned){ 1 }, "told that it takes nothing");
	sql_run(here.q,
		"INSERT INTO another VALUES ('role-1', 1, 10, '00000001.sql', 0); RENAME TABLE another TO loquat_replay");
	landing_until(&here, lag_is, &(uint64_t){ 0 }, "it has landed");
	landing_until(&here, refused_is, &(unsigned){ 0 }, "and is refused no more");
	ck_assert_int_eq(landing_gold(&here), 0);
}
END_TEST

/* Its engine has no file of the table any more: the record is sound, and so are all that come behind it. */
static void start_with_a_broken_table(void)
{
	struct buf b = BUF_INIT;
	sql_run(here.q, "CREATE TABLE extra (id INT PRIMARY KEY); ALTER TABLE extra DISCARD TABLESPACE");
	landing_adding(here.folder[0], 1, 1, 10, 1);
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 11,
				       .epoch = 1,
				       .keys = "extra:1",
				       .statements = "INSERT INTO extra (id) VALUES (1);\n" });
	folder_write(here.folder[0], "00000002.sql", b.data, b.len);
	landing_adding(here.folder[0], 3, 12, 20, 1);
	buf_release(&b);
	landing_start(&here);
	landing_until_logged(&here, "error=1814");
	landing_until(&here, refused_is, &(unsigned){ 1 }, "told that it takes nothing");
	ck_assert_uint_eq(landing_now(&here).quarantined, 0);
	sql_run(here.q, "DROP TABLE extra");
}

START_TEST(a_broken_table_is_waited_for)
{
	start_with_a_broken_table();
	landing_end(&here); /* so that nothing comes between dropping and making it */
	sql_run(here.q, "CREATE TABLE extra (id INT PRIMARY KEY)");
	landing_start(&here);
	landing_until_landed(&here, 1, 20);
	ck_assert_uint_eq(landing_now(&here).quarantined, 0);
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM extra"), 1);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(20) - 11);
}
END_TEST

START_TEST(who_drops_a_broken_table_lets_the_rest_land)
{
	start_with_a_broken_table();
	landing_until_landed(&here, 1, 20);
	ck_assert_uint_eq(landing_now(&here).quarantined, 1);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(20) - 11);
	landing_until(&here, refused_is, &(unsigned){ 0 }, "it takes all again");
}
END_TEST

START_TEST(an_older_schema_than_the_builds_is_waited_out)
{
	sql_run(here.q,
		"CREATE TABLE loquat_schema (version INT PRIMARY KEY, name VARCHAR(200)); INSERT INTO loquat_schema VALUES (1, 'a'), (500, 'b')");
	here.options.schema[0] = 2;
	here.options.schema[1] = 500;
	landing_adding(here.folder[0], 1, 1, 10, 1);
	landing_start(&here);
	landing_until_logged(&here, "its schema has no 002, which this build needs");
	sql_run(here.q, "INSERT INTO loquat_schema VALUES (2, 'c')");
	landing_until_landed(&here, 1, 10);
}
END_TEST

START_TEST(an_older_schema_of_the_games_is_waited_out)
{
	sql_run(here.q,
		"CREATE TABLE loquat_schema (version INT PRIMARY KEY, name VARCHAR(200)); INSERT INTO loquat_schema VALUES (2, 'a')");
	here.options.schema[0] = 2;
	here.options.schema[1] = 500;
	landing_adding(here.folder[0], 1, 1, 10, 1);
	landing_start(&here);
	landing_until_logged(&here, "its schema has no 500, which this build needs");
	sql_run(here.q, "INSERT INTO loquat_schema VALUES (500, 'b')");
	landing_until_landed(&here, 1, 10);
}
END_TEST

START_TEST(a_killed_database_loses_nothing_and_lands_nothing_twice)
{
	landing_adding(here.folder[0], 1, 1, 8000, 1);
	here.options.batch_records_max = 50;
	landing_start(&here);
	for (int i = 0; i < 3; i++) {
		int64_t before = -1;
		for (int wait = 0;
		     wait < 400 && (before = sql_int(here.q, "SELECT lsn FROM loquat_replay")) < 2000 * (i + 1); wait++)
			usleep(2000);
		sql_close(here.q);
		mariadb_signal(&here.server, SIGKILL);
		mariadb_again(&here.server);
		here.q = sql_open(here.server.socket, "loquat");
	}
	landing_until_landed(&here, 1, 8000);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(8000));
	landing_until_logged(&here, "dbwriter.database_away");
	sql_run(here.q, "SELECT 1");
}
END_TEST

int main(void)
{
	return landing_main(&here, "replay_away", NULL, NULL,
			    a_database_that_is_away_at_first_is_waited_for_and_the_lag_is_told,
			    a_database_that_is_stopped_counts_as_away_also_when_nothing_is_to_be_done,
			    a_row_that_somebody_holds_is_waited_for,
			    a_transaction_that_is_tried_again_takes_no_more_records_in,
			    the_lag_grows_also_behind_a_record_that_says_it_is_of_tomorrow,
			    without_the_positions_table_nothing_lands_until_it_is_there,
			    what_somebody_else_has_landed_meanwhile_is_refused_no_more, a_broken_table_is_waited_for,
			    who_drops_a_broken_table_lets_the_rest_land, an_older_schema_than_the_builds_is_waited_out,
			    an_older_schema_of_the_games_is_waited_out,
			    a_killed_database_loses_nothing_and_lands_nothing_twice);
}
