#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/dbread.h"
#include "common/loop.h"
#include "common/sqllog.h"
#include "dbwriter/replay.h"
#include "tests/support/records.h"
#include "tests/support/simtest.h"
#include "tests/support/suite.h"
/*
 * Whoever waits for a disk or a database tries again at once when the trouble is new, ever less often while it lasts, and
 * never so seldom that its end is noticed late: by the virtual clock, to the millisecond.
 */
#define HOST "10.0.0.1"
enum { LONG_MS = 120000, TURN_MS = 20 /* what a try takes, about */ };

static uint64_t now_ms(void)
{
	return sim_now_ns(w) / 1000000;
}

/* How long it takes until done, at most LONG_MS. */
static uint64_t takes_ms(bool (*done)(void *arg), void *arg)
{
	uint64_t from_ms = now_ms();
	ck_assert_msg(sim_until(w, LONG_MS, done, arg), "never");
	return now_ms() - from_ms;
}

static const struct env_db_options database = {
	.host = "db", .port = 3306, .user = "root", .password = "", .database = "loquat"
};

/* ---- the writer of a log, and its disk ------------------------------------------------------------------------------- */

struct writer {
	struct sqllog *log;
	struct loop *loop;
	struct timer timer;
	struct sqllog_figures figures;
	bool failing;
	uint64_t durable;
};

static void on_timer(struct timer *t, uint64_t ms)
{
	struct writer *x = (struct writer *)((char *)t - offsetof(struct writer, timer));
	(void)ms;
	x->failing = sqllog_failing(x->log);
	sqllog_figures(x->log, &x->figures);
	x->durable = sqllog_durable_lsn(x->log);
	if (!x->failing)
		records_append(x->log, "role:1", 1);
	loop_timer(x->loop, t, 5);
}

static void writer_started(struct loop *loop, void *arg)
{
	struct writer *x = arg;
	x->loop = loop;
	x->timer.fire = on_timer;
	loop_timer(loop, &x->timer, 1);
}

static void writer_main(struct env *env, void *arg)
{
	struct writer *x = arg;
	struct loop *loop;
	struct sqllog_options o = { .folder = "var/sqllog/role-1", .linger_us = 100, .workers = 1 };
	char error[200];
	ck_assert_msg(!sqllog_open(env, NULL, NULL, &o, error, sizeof error, &x->log), "%s", error);
	loop_start(env, "worker", 0, writer_started, NULL, x, &loop);
}

static bool is_failing(void *arg)
{
	return ((struct writer *)arg)->failing;
}

static bool goes_on(void *arg)
{
	const struct writer *x = arg;
	return x->durable && !x->failing && !x->figures.unsynced;
}

START_TEST(a_log_tries_its_disk_again_soon_at_first_and_every_two_seconds_at_last)
{
	struct writer x = { 0 };
	sim_process(w, "role-1", HOST, writer_main, &x);
	takes_ms(goes_on, &x);
	sim_disk_full(w, HOST, true);
	takes_ms(is_failing, &x);
	sim_run_ms(w, 60000);
	ck_assert_uint_ge(x.figures.failures, 30);
	ck_assert_uint_le(x.figures.failures, 40);
	sim_disk_full(w, HOST, false);
	ck_assert_uint_le(takes_ms(goes_on, &x), 2000 + TURN_MS);

	uint64_t before = x.durable;
	sim_disk_full(w, HOST, true);
	takes_ms(is_failing, &x);
	sim_disk_full(w, HOST, false);
	ck_assert_uint_le(takes_ms(goes_on, &x), 100 + TURN_MS);
	ck_assert_uint_gt(x.durable, before);
}
END_TEST

/* ---- the replay, and its database --------------------------------------------------------------------------------------- */

static const char tables[] =
	"CREATE TABLE loquat_replay (instance VARCHAR(31) NOT NULL PRIMARY KEY, epoch BIGINT NOT NULL, lsn BIGINT NOT NULL,"
	" file VARCHAR(64) NOT NULL DEFAULT '', time_us BIGINT NOT NULL DEFAULT 0);"
	"CREATE TABLE role (id BIGINT NOT NULL PRIMARY KEY, gold BIGINT NOT NULL);"
	"INSERT INTO role (id, gold) VALUES (1, 0)";

static uint32_t poll_ms; /* the folders are looked at so often */

static void lander_started(struct loop *loop, void *arg)
{
	struct replay_options o = { .folder = "logs", .poll_ms = poll_ms, .keep_s = 1000000, .db = database };
	replay_new(loop, arg, &o);
}

static void lander_main(struct env *env, void *arg)
{
	struct log *lines;
	struct loop *loop;
	(void)arg;
	ck_assert_int_eq(log_open(env, "dbwriter-1", "dbwriter.log", LOG_INFO, &lines), 0);
	loop_start(env, "worker", 0, lander_started, NULL, lines, &loop);
}

/* So many more, in a file of their own. */
static void records(uint64_t first, uint64_t last)
{
	char name[60];
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = first; lsn <= last; lsn++)
		records_add(&b, (struct made){ .lsn = lsn,
					       .epoch = 1,
					       .keys = "role:1",
					       .statements = "UPDATE role SET gold = gold + 1 WHERE id = 1;\n" });
	snprintf(name, sizeof name, "logs/role-1/%08u.sql", (unsigned)first);
	sim_file_store(w, HOST, name, b.data, b.len);
	buf_release(&b);
}

static void record(uint64_t lsn)
{
	records(lsn, lsn);
}

static bool has_landed(void *arg)
{
	return sim_db_int(w, "SELECT lsn FROM loquat_replay", -1) == *(int *)arg;
}

static void lands_within(int lsn, uint64_t most_ms)
{
	ck_assert_uint_le(takes_ms(has_landed, &lsn), most_ms);
	ck_assert_int_eq(sim_db_int(w, "SELECT gold FROM role", -1), lsn);
}

static void lander_begins(uint32_t looks_each_ms)
{
	poll_ms = looks_each_ms;
	ck_assert_uint_eq(sim_db_run(w, tables), 0);
	record(1);
	sim_process(w, "dbwriter-1", HOST, lander_main, NULL);
	lands_within(1, 1000);
}

START_TEST(a_database_that_was_away_for_long_is_found_again_within_five_seconds)
{
	lander_begins(20);
	sim_db_down(w, true);
	record(2);
	sim_run_ms(w, LONG_MS);
	sim_db_down(w, false);
	lands_within(2, 5000 + 10 * TURN_MS);
	sim_db_down(w, true); /* and soon when that is new */
	record(3);
	sim_run_ms(w, TURN_MS);
	sim_db_down(w, false);
	lands_within(3, 50 + 10 * TURN_MS);
}
END_TEST

START_TEST(a_transaction_that_was_refused_for_long_is_tried_again_within_five_seconds)
{
	lander_begins(20);
	sim_chances(w)->deadlock_ppm = 1000000;
	record(2);
	sim_run_ms(w, LONG_MS);
	sim_chances(w)->deadlock_ppm = 0;
	lands_within(2, 5000 + 10 * TURN_MS);
	sim_chances(w)->deadlock_ppm = 1000000;
	record(3);
	sim_run_ms(w, 2 * TURN_MS);
	sim_chances(w)->deadlock_ppm = 0;
	lands_within(3, 100 + 10 * TURN_MS);
}
END_TEST

/* What is written wakes it up, and what it has begun to read it reads to the end; it looks for itself once in two minutes. */
START_TEST(nothing_that_was_written_waits_for_the_next_look)
{
	lander_begins(LONG_MS);
	for (int lsn = 2; lsn < 6; lsn++) {
		record((uint64_t)lsn);
		lands_within(lsn, 1000);
	}
	records(6, 9000); /* many batches */
	lands_within(9000, 20000);
}
END_TEST

/* ---- reading back ------------------------------------------------------------------------------------------------------- */

struct reader {
	struct log *lines;
	struct loop *loop;
	struct dbread *pool;
	struct timer timer;
	unsigned asked, answered;
};

static void on_answer(void *arg, const struct env_db_result *r)
{
	struct reader *x = arg;
	x->answered += !r->err;
}

/* Asks once for each time it is told to. */
static void on_ask(struct timer *t, uint64_t ms)
{
	struct reader *x = (struct reader *)((char *)t - offsetof(struct reader, timer));
	(void)ms;
	if (x->asked)
		dbread_query(x->pool, "SELECT 1", 8, NULL, 10 * LONG_MS, on_answer, x);
	x->asked -= x->asked > 0;
	loop_timer(x->loop, t, 5);
}

static void reader_started(struct loop *loop, void *arg)
{
	struct reader *x = arg;
	struct dbread_options o = { .db = database, .instance = "role-1", .connections = 1, .queue_max = 10 };
	x->loop = loop;
	x->pool = dbread_new(loop, x->lines, &o);
	x->timer.fire = on_ask;
	loop_timer(loop, &x->timer, 1);
}

static void reader_main(struct env *env, void *arg)
{
	struct reader *x = arg;
	struct loop *loop;
	ck_assert_int_eq(log_open(env, "role-1", "role.log", LOG_INFO, &x->lines), 0);
	loop_start(env, "worker", 0, reader_started, NULL, x, &loop);
}

static bool is_answered(void *arg)
{
	struct reader *x = arg;
	return x->answered == 1;
}

static void answered_within(struct reader *x, uint64_t most_ms)
{
	ck_assert_uint_le(takes_ms(is_answered, x), most_ms);
	x->answered = 0;
}

START_TEST(a_read_that_waits_for_a_database_is_answered_within_two_seconds_of_its_return)
{
	struct reader x = { .asked = 1 };
	sim_process(w, "role-1", HOST, reader_main, &x);
	answered_within(&x, 1000);
	sim_db_down(w, true);
	x.asked = 1;
	sim_run_ms(w, LONG_MS);
	sim_db_down(w, false);
	answered_within(&x, 2000 + 10 * TURN_MS);
	sim_db_down(w, true); /* and soon when that is new */
	x.asked = 1;
	sim_run_ms(w, TURN_MS);
	sim_db_down(w, false);
	answered_within(&x, 100 + 10 * TURN_MS);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("backoff");

	tcase_add_checked_fixture(t, simtest_set_up, simtest_tear_down);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_log_tries_its_disk_again_soon_at_first_and_every_two_seconds_at_last);
	tcase_add_test(t, a_database_that_was_away_for_long_is_found_again_within_five_seconds);
	tcase_add_test(t, a_transaction_that_was_refused_for_long_is_tried_again_within_five_seconds);
	tcase_add_test(t, nothing_that_was_written_waits_for_the_next_look);
	tcase_add_test(t, a_read_that_waits_for_a_database_is_answered_within_two_seconds_of_its_return);
	return suite_run("backoff", t);
}
