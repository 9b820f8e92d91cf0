/* Reading back from a real MariaDB once the replay has passed: common/dbread.h. */
#include "common/dbread.h"
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/folder.h"
#include "tests/support/mariadb.h"
#include "tests/support/on_loop.h"
#include "tests/support/records.h"
#include "tests/support/sql.h"
#include "tests/support/suite.h"

static struct mariadb server; /* started once, before the tests fork */
static struct env *env;
static struct loop *loop;
static struct log *lines;
static struct sql *q;
static struct sqllog *l;
static struct dbread *pool;
static char *dir;
static struct flag ended;

static struct answer {
	int err;
	char text[80];
	uint64_t after_ms;
} answers[300];
static unsigned n_answers;
static uint64_t asked_ms;
static _Atomic unsigned away; /* pools that miss the database */

static void new_pool(void *arg)
{
	struct dbread_options o = { .db = { .socket = arg, .user = "root", .password = "", .database = "loquat" },
				    .instance = "role-1",
				    .sqllog = l,
				    .connections = 2,
				    .queue_max = 100,
				    .away = &away };
	pool = dbread_new(loop, lines, &o);
}

static void free_pool(void *arg)
{
	(void)arg;
	dbread_free(pool);
	pool = NULL;
}

static void setup(void)
{
	char path[400], folder[400];
	mariadb_signal(&server, SIGCONT); /* a test that failed may have left it stopped: it had no teardown */
	env = env_new();
	dir = folder_new();
	loop = on_loop_new(env, "worker");
	flag_init(&ended);
	n_answers = 0;
	away = 0;
	snprintf(path, sizeof path, "%s/log", dir);
	snprintf(folder, sizeof folder, "%s/role-1", dir);
	ck_assert_int_eq(log_open(env, "role-1", path, LOG_DEBUG, &lines), 0);
	q = sql_open(server.socket, NULL);
	sql_run(q, "DROP DATABASE IF EXISTS loquat; CREATE DATABASE loquat; USE loquat");
	sql_file(q, "deploy/schema/001-base.sql");
	sql_run(q, "INSERT INTO role (id, uid, name, gold) VALUES (1, 'a', 'Anna', 70)");
	l = records_open(env, folder);
	on_loop(loop, new_pool, server.socket);
}

static void teardown(void)
{
	on_loop(loop, free_pool, NULL);
	sqllog_stop(l);
	on_loop_free(loop);
	sqllog_close(l);
	sql_close(q);
	log_close(lines);
	folder_free(dir);
	env_free(env);
}

static void on_done(void *arg, const struct env_db_result *r)
{
	struct answer *a = arg;
	a->err = r->err;
	a->after_ms = loop_clock_ms(loop) - asked_ms;
	snprintf(a->text, sizeof a->text, "%s", r->rows ? r->cells[0] : r->message ? r->message : "");
	flag_raise(&ended);
}

struct question {
	const char *sql, *key;
	uint32_t timeout_ms;
	unsigned times;
};

static void ask_now(void *arg)
{
	const struct question *x = arg;
	asked_ms = loop_clock_ms(loop);
	for (unsigned i = 0; i < x->times; i++)
		dbread_query(pool, x->sql, strlen(x->sql), x->key, x->timeout_ms, on_done, &answers[n_answers++]);
}

static void ask(const char *key, uint32_t timeout_ms)
{
	struct question x = { "SELECT gold FROM role WHERE id = 1", key, timeout_ms, 1 };
	on_loop(loop, ask_now, &x);
}

static void position(uint64_t epoch, uint64_t lsn)
{
	char text[200];
	snprintf(text, sizeof text, "REPLACE INTO loquat_replay (instance, epoch, lsn) VALUES ('role-1', %llu, %llu)",
		 (unsigned long long)epoch, (unsigned long long)lsn);
	sql_run(q, text);
}

START_TEST(a_read_without_a_key_comes_at_once)
{
	ask(NULL, 60000);
	ck_assert(flag_wait(&ended, 1));
	ck_assert_int_eq(answers[0].err, 0);
	ck_assert_str_eq(answers[0].text, "70");
}
END_TEST

START_TEST(a_key_that_was_never_changed_is_read_at_once)
{
	records_append(l, "role:2", 1);
	ask("role:1", 60000);
	ck_assert(flag_wait(&ended, 1));
	ck_assert_str_eq(answers[0].text, "70");
}
END_TEST

START_TEST(a_read_waits_until_the_replay_has_passed_the_keys_last_change)
{
	records_append(l, "role:2", 1);
	uint64_t lsn = records_append(l, "role:1", 1);
	position(sqllog_epoch(l), lsn - 1);
	ask("role:1", 60000);
	ask("role:2", 60000);
	ck_assert(flag_wait(&ended, 1)); /* role:2's has landed */
	usleep(60000);
	ck_assert_uint_eq(flag_count(&ended), 1);
	sql_run(q, "BEGIN; UPDATE role SET gold = 71 WHERE id = 1");
	position(sqllog_epoch(l), lsn);
	ck_assert_uint_eq(flag_count(&ended), 1); /* not what is not committed */
	sql_run(q, "COMMIT");
	ck_assert(flag_wait(&ended, 2));
	ck_assert_str_eq(answers[0].text, "71");
}
END_TEST

START_TEST(a_replay_that_stays_behind_ends_the_read_at_its_deadline)
{
	uint32_t ms = 150;
	unsigned n = 0;
	records_append(l, "role:1", 1);
	do { /* a machine that has much else to do may not have looked even once */
		ask("role:1", ms);
		ck_assert(flag_wait(&ended, n + 1));
		ck_assert_int_eq(answers[n].err, ERR_UNAVAILABLE);
		ck_assert_uint_ge(answers[n].after_ms, ms);
		ms *= 2;
	} while (!strcmp(answers[n++].text, "the database does not answer") && n < 6);
	ck_assert_str_eq(answers[n - 1].text, "the replay is behind");
}
END_TEST

START_TEST(the_position_of_an_earlier_life_of_the_log_does_not_count)
{
	records_append(l, "role:1", 1);
	position(1, 1000000);
	ask("role:1", 150);
	ck_assert(flag_wait(&ended, 1));
	ck_assert_int_eq(answers[0].err, ERR_UNAVAILABLE);
}
END_TEST

START_TEST(the_first_look_waits_behind_a_transaction_of_the_replay)
{
	position(sqllog_epoch(l), 5);
	sql_run(q, "BEGIN; UPDATE role SET gold = 72 WHERE id = 1; UPDATE loquat_replay SET lsn = 6");
	ask("role:1", 60000); /* nothing of it is in this log: but it may be what the log has lost */
	usleep(100000);
	ck_assert_uint_eq(flag_count(&ended), 0);
	sql_run(q, "COMMIT");
	ck_assert(flag_wait(&ended, 1));
	ck_assert_str_eq(answers[0].text, "72");
}
END_TEST

START_TEST(what_the_database_refuses_is_told_with_its_words)
{
	struct question x = { "SELECT nosuch FROM role", NULL, 60000, 1 };
	on_loop(loop, ask_now, &x);
	ck_assert(flag_wait(&ended, 1));
	ck_assert_int_eq(answers[0].err, ERR_FAILED);
	ck_assert_msg(strstr(answers[0].text, "nosuch"), "%s", answers[0].text);
}
END_TEST

START_TEST(more_reads_than_the_bound_are_refused_and_the_others_are_answered)
{
	struct question x = { "SELECT gold FROM role WHERE id = 1", NULL, 60000, 250 };
	unsigned fine = 0, busy = 0;
	on_loop(loop, ask_now, &x);
	ck_assert(flag_wait(&ended, 250));
	for (unsigned i = 0; i < 250; i++) {
		fine += answers[i].err == 0;
		busy += answers[i].err == ERR_BUSY;
	}
	ck_assert_uint_eq(fine, 100);
	ck_assert_uint_eq(busy, 150);
}
END_TEST

START_TEST(a_read_that_is_lost_with_its_connection_is_asked_again)
{
	struct question x = { "SELECT SLEEP(0.5) + gold FROM role WHERE id = 1", NULL, 60000, 1 };
	on_loop(loop, ask_now, &x);
	usleep(100000);
	sql_close(q);
	mariadb_signal(&server, SIGKILL);
	mariadb_again(&server);
	q = sql_open(server.socket, "loquat");
	ck_assert(flag_wait(&ended, 1));
	ck_assert_int_eq(answers[0].err, 0);
	ck_assert_str_eq(answers[0].text, "70");
}
END_TEST

/* Another server is in its place, with a copy of an earlier hour, and what came after is landed anew. */
START_TEST(a_database_that_comes_back_behind_is_waited_for)
{
	static const char others[] = "SELECT IFNULL(MAX(id), 0) FROM information_schema.processlist"
				     " WHERE db = 'loquat' AND id != CONNECTION_ID()";
	char kill[40];
	uint64_t lsn = records_append(l, "role:1", 1);
	position(sqllog_epoch(l), lsn);
	ask("role:1", 60000);
	ck_assert(flag_wait(&ended, 1));
	ck_assert_str_eq(answers[0].text, "70");
	position(sqllog_epoch(l), lsn - 1);
	sql_run(q, "UPDATE role SET gold = 7 WHERE id = 1");
	for (int64_t id; (id = sql_int(q, others));) {
		snprintf(kill, sizeof kill, "KILL %lld", (long long)id);
		sql_run(q, kill);
		while (sql_int(q, others) == id)
			usleep(1000);
	}
	ask("role:1", 60000);
	usleep(500000);
	ck_assert_uint_eq(flag_count(&ended), 1);
	sql_run(q, "UPDATE role SET gold = 70 WHERE id = 1");
	position(sqllog_epoch(l), lsn);
	ck_assert(flag_wait(&ended, 2));
	ck_assert_str_eq(answers[1].text, "70");
}
END_TEST

START_TEST(a_database_that_does_not_answer_ends_the_read_at_its_deadline)
{
	ask(NULL, 60000);
	ck_assert(flag_wait(&ended, 1));
	mariadb_signal(&server, SIGSTOP);
	ask(NULL, 200);
	bool told = flag_wait(&ended, 2);
	mariadb_signal(&server, SIGCONT);
	ck_assert(told);
	ck_assert_int_eq(answers[1].err, ERR_UNAVAILABLE);
	ask(NULL, 60000);
	ck_assert(flag_wait(&ended, 3));
	ck_assert_int_eq(answers[2].err, 0);
}
END_TEST

START_TEST(a_connection_that_did_not_answer_in_time_is_not_waited_for)
{
	struct question x = { "SELECT SLEEP(50)", NULL, 100, 2 }; /* on both connections */
	on_loop(loop, ask_now, &x);
	ck_assert(flag_wait(&ended, 2));
	ck_assert(answers[0].err == ERR_UNAVAILABLE && answers[1].err == ERR_UNAVAILABLE);
	ask(NULL, 60000);
	ck_assert(flag_wait(&ended, 3));
	ck_assert_int_eq(answers[2].err, 0);
	ck_assert_uint_lt(answers[2].after_ms, 40000);
}
END_TEST

static void until_away(unsigned expected)
{
	for (int i = 0; i < 60000 && away != expected; i++)
		usleep(1000);
	ck_assert_uint_eq(away, expected);
}

START_TEST(a_pool_counts_as_missing_the_database_until_it_is_there_or_the_pool_has_gone)
{
	char path[420];
	snprintf(path, sizeof path, "%s/socket", dir);
	on_loop(loop, free_pool, NULL);
	for (int i = 0; i < 2; i++) {
		on_loop(loop, new_pool, path);
		ask(NULL, 100);
		ck_assert(flag_wait(&ended, 1 + (unsigned)i));
		ck_assert_int_eq(answers[i].err, ERR_UNAVAILABLE);
		until_away(1);
		if (i)
			ck_assert_int_eq(symlink(server.socket, path), 0); /* it is tried for also when nobody reads */
		else
			on_loop(loop, free_pool, NULL);
		until_away(0);
	}
}
END_TEST

int main(void)
{
	if (!mariadb_installed()) {
		printf("skip dbread mariadbd is not installed\n");
		return EXIT_SUCCESS;
	}
	mariadb_start(&server);
	TCase *t = tcase_create("dbread");
	tcase_set_timeout(t, 40);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_read_without_a_key_comes_at_once);
	tcase_add_test(t, a_key_that_was_never_changed_is_read_at_once);
	tcase_add_test(t, a_read_waits_until_the_replay_has_passed_the_keys_last_change);
	tcase_add_test(t, a_replay_that_stays_behind_ends_the_read_at_its_deadline);
	tcase_add_test(t, the_position_of_an_earlier_life_of_the_log_does_not_count);
	tcase_add_test(t, the_first_look_waits_behind_a_transaction_of_the_replay);
	tcase_add_test(t, what_the_database_refuses_is_told_with_its_words);
	tcase_add_test(t, more_reads_than_the_bound_are_refused_and_the_others_are_answered);
	tcase_add_test(t, a_database_that_does_not_answer_ends_the_read_at_its_deadline);
	tcase_add_test(t, a_connection_that_did_not_answer_in_time_is_not_waited_for);
	tcase_add_test(t, a_pool_counts_as_missing_the_database_until_it_is_there_or_the_pool_has_gone);
	tcase_add_test(t, a_database_that_comes_back_behind_is_waited_for);
	tcase_add_test(t, a_read_that_is_lost_with_its_connection_is_asked_again); /* its server dies with it */
	int failed = suite_run("dbread", t);
	mariadb_end(&server);
	return failed;
}
