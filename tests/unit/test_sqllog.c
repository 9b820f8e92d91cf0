/* The writer of common/sqllog.h on the real environment: numbers, marks, waiters, rotation, a disk that fails. */
#include "common/sqllog.h"
#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "common/err.h"
#include "common/loop.h"
#include "common/sqllog_private.h"
#include "tests/support/flag.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

static struct env *env;
static char *dir;
static struct sqllog *l;
static char error[300];

static void setup(void)
{
	env = env_new();
	dir = folder_new();
	l = NULL;
}

static void teardown(void)
{
	sqllog_close(l);
	folder_free(dir);
	env_free(env);
}

static int open_with(struct sqllog_options o, struct sqllog **out)
{
	o.folder = dir;
	o.workers = 4;
	return sqllog_open(env, NULL, NULL, &o, error, sizeof error, out);
}

static void until_durable(uint64_t lsn)
{
	for (int i = 0; i < 100000 && sqllog_durable_lsn(l) < lsn; i++)
		usleep(500);
	ck_assert_uint_ge(sqllog_durable_lsn(l), lsn);
}

static void expect_files(const char *want)
{
	char *text = records_read(env, dir);
	ck_assert_str_eq(text, want);
	free(text);
}

/* ---- numbers and files ---- */

START_TEST(numbers_count_from_one_and_go_on_after_a_restart_with_a_higher_epoch)
{
	l = records_open(env, dir);
	uint64_t epoch = sqllog_epoch(l);
	ck_assert_uint_eq(sqllog_lsn(l), 0);
	ck_assert_uint_eq(records_append(l, "role:1", 5), 1);
	ck_assert_uint_eq(records_append(l, "role:1", 6), 2);
	sqllog_close(l);
	l = records_open(env, dir);
	ck_assert_uint_eq(sqllog_epoch(l), epoch + 1);
	ck_assert_uint_eq(sqllog_lsn(l), 2);
	ck_assert_uint_eq(sqllog_durable_lsn(l), 2);
	ck_assert_uint_eq(records_append(l, "role:1", 7), 3);
	sqllog_close(l);
	l = records_open(env, dir);
	ck_assert_uint_eq(sqllog_epoch(l), epoch + 2);
	expect_files("1-2\n3-3\n");
}
END_TEST

START_TEST(the_epoch_grows_even_if_nothing_was_written)
{
	for (uint64_t i = 0, epoch = 0; i < 3; i++) {
		l = records_open(env, dir);
		ck_assert(i ? sqllog_epoch(l) == epoch + 1 : sqllog_epoch(l) > 1600000000);
		epoch = sqllog_epoch(l);
		sqllog_close(l);
	}
	l = NULL;
	expect_files("");
}
END_TEST

START_TEST(what_is_written_is_the_record_that_was_built)
{
	struct sqllog_record r;
	char why[80];
	size_t n, count_bytes;
	unsigned count;
	l = records_open(env, dir);
	records_append(l, "O'Neill", -9);
	sqllog_close(l);
	l = NULL;
	char *text = folder_read(dir, "00000001.sql", &n);
	ck_assert(!strncmp(text, "SET NAMES utf8mb4;\n-- loquat lsn=1 epoch=", 41));
	ck_assert_int_gt(sqllog_read(text + 19, n - 19, &r, why, sizeof why), 0);
	ck_assert(r.time_us > 1600000000000000);
	const char *statements = sqllog_statements(&r, &count_bytes, &count);
	const char *want = "UPDATE role SET gold = gold + -9 WHERE name = 'O\\'Neill';\n";
	ck_assert_uint_eq(count_bytes, strlen(want));
	ck_assert(!memcmp(statements, want, count_bytes));
	ck_assert_uint_eq(r.bytes, n - 19);
	free(text);
}
END_TEST

START_TEST(a_folder_has_one_writer)
{
	struct sqllog *second;
	l = records_open(env, dir);
	ck_assert_int_eq(open_with((struct sqllog_options){ 0 }, &second), ERR_BUSY);
	ck_assert_msg(strstr(error, "another process writes this SQL log"), "%s", error);
}
END_TEST

START_TEST(files_rotate_by_size_and_no_record_is_split)
{
	ck_assert_int_eq(open_with((struct sqllog_options){ .file_bytes_max = 1000 }, &l), 0);
	for (uint64_t i = 1; i <= 30; i++) {
		records_append(l, "role:1", 1);
		until_durable(i);
	}
	struct sqllog_figures f;
	sqllog_figures(l, &f);
	ck_assert_uint_eq(f.records, 30);
	ck_assert_uint_eq(f.unsynced, 0);
	ck_assert_uint_ge(f.file, 5);
	sqllog_close(l);
	l = NULL;
	char *text = records_read(env, dir), *p = text;
	for (unsigned long long next = 1, first, last; *p; p = strchr(p, '\n') + 1) {
		ck_assert_int_eq(sscanf(p, "%llu-%llu\n", &first, &last), 2);
		ck_assert_uint_eq(first, next);
		next = last + 1;
	}
	free(text);
	for (int i = 1; i < 5; i++) {
		char name[32];
		snprintf(name, sizeof name, "%08d.sql", i);
		ck_assert_int_le(folder_size(dir, name), 1000);
	}
}
END_TEST

START_TEST(an_empty_record_is_refused)
{
	struct sql_record r;
	sql_record_init(&r);
	l = records_open(env, dir);
	ck_assert_int_eq(sqllog_append(l, &r, NULL), ERR_BAD_REQUEST);
	ck_assert_uint_eq(sqllog_lsn(l), 0);
}
END_TEST

START_TEST(after_the_stop_nothing_is_taken)
{
	struct sql_record r;
	char why[80];
	sql_record_init(&r);
	l = records_open(env, dir);
	records_append(l, "role:1", 1);
	sqllog_stop(l);
	ck_assert_uint_eq(sqllog_durable_lsn(l), 1);
	ck_assert_int_eq(sql_record_add(&r, "DELETE FROM bag", NULL, 0, why, sizeof why), 0);
	ck_assert_int_eq(sqllog_append(l, &r, NULL), ERR_UNAVAILABLE);
	ck_assert_uint_eq(r.statements, 1);
	sql_record_release(&r);
}
END_TEST

/* ---- the ring ---- */

static int append_big(struct sql_record *r, size_t bytes)
{
	char *text = malloc(bytes), why[80];
	memset(text, 'x', bytes);
	struct sql_value v = { .type = SQL_TEXT, .s = { text, bytes } };
	sql_record_clear(r);
	ck_assert_int_eq(sql_record_add(r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), 0);
	free(text);
	return sqllog_append(l, r, NULL);
}

/* The ring alone: with a thread that empties it, whether it ever fills is up to the disk. */
START_TEST(a_full_ring_refuses_and_takes_nothing_until_there_is_room)
{
	struct sqllog_ring ring;
	struct sql_record r;
	char why[80];
	uint64_t lsn = 0, last = 0;
	uint32_t at = 0;
	sql_record_init(&r);
	sql_record_add(&r, "DELETE FROM bag WHERE item = 1", NULL, 0, why, sizeof why);
	ck_assert_int_eq(sqllog_ring_init(&ring, env, 1, UINT32_MAX - 5), 0);
	last = UINT32_MAX - 5;
	for (int round = 0; round < 3; round++) { /* the low half of the lsn overflows, the positions go around */
		while (!sqllog_ring_push(&ring, &r, &lsn))
			if (lsn != ++last)
				ck_abort_msg("lsn %llu after %llu", (unsigned long long)lsn, (unsigned long long)last);
		ck_assert_uint_gt(sqllog_ring_used(&ring), (4u << 20) - 128);
		ck_assert_int_eq(sqllog_ring_push(&ring, &r, &lsn), ERR_BUSY);
		ck_assert_uint_eq(sqllog_ring_last(&ring), last);
		uint32_t n = 0;
		for (struct sqllog_entry *e; n < 1000 && (e = sqllog_ring_next(&ring, &at)); n++)
			if (e->body_bytes != r.body.len + 8 || memcmp(e->data, r.body.data, r.body.len))
				ck_abort_msg("entry %u is not what was pushed", n);
		sqllog_ring_free_until(&ring, at, n);
	}
	sqllog_ring_release(&ring);
	sql_record_release(&r);
}
END_TEST

enum { PRODUCERS = 4, EACH = 20000 };
static _Atomic unsigned wrong; /* Check's own assertions are for one thread */

static void *produce(void *arg)
{
	struct sql_record r;
	char key[20], why[80];
	uint64_t before = 0, lsn;
	sql_record_init(&r);
	snprintf(key, sizeof key, "thread:%d", *(int *)arg);
	for (int i = 0; i < EACH; i++) {
		struct sql_value v = { .type = SQL_INT, .i = i };
		sql_record_key(&r, key);
		sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why);
		int err;
		while ((err = sqllog_append(l, &r, &lsn)) == ERR_BUSY)
			sched_yield();
		if (err || lsn <= before || sqllog_key_lsn(l, key) < lsn)
			atomic_fetch_add(&wrong, 1);
		before = lsn;
	}
	sql_record_release(&r);
	return NULL;
}

START_TEST(many_workers_append_at_once_and_every_record_is_there_in_its_order)
{
	pthread_t threads[PRODUCERS];
	int ids[PRODUCERS] = { 0, 1, 2, 3 }, next[PRODUCERS] = { 0 };
	l = records_open(env, dir);
	for (int i = 0; i < PRODUCERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, produce, &ids[i]), 0);
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_uint_eq(sqllog_lsn(l), PRODUCERS * EACH);
	sqllog_close(l);
	l = NULL;

	struct sqllog_file f;
	struct sqllog_record r;
	char path[ENV_PATH_MAX], why[80];
	uint64_t lsn = 0;
	sqllog_path(path, dir, 1, "sql");
	ck_assert_int_eq(sqllog_file_open(&f, env, path), 0);
	while (sqllog_file_next(&f, &r, why, sizeof why) == 1) {
		int thread = r.keys[7] - '0', value;
		ck_assert_uint_eq(r.lsn, ++lsn);
		ck_assert_int_eq(sscanf(r.body, "BEGIN;\nUPDATE a SET b = %d;", &value), 1);
		ck_assert_int_eq(value, next[thread]++);
	}
	ck_assert_uint_eq(lsn, PRODUCERS * EACH);
	sqllog_file_close(&f);
}
END_TEST

START_TEST(of_a_replicated_log_that_is_durable_which_both_hosts_have)
{
	ck_assert(!open_with((struct sqllog_options){ .replicated = true }, &l));
	records_append(l, "role:1", 1);
	records_append(l, "role:1", 2);
	for (int i = 0; i < 100000 && sqllog_written_lsn(l) < 2; i++)
		usleep(500);
	struct sqllog_figures f;
	do
		sqllog_figures(l, &f);
	while (!f.syncs);
	ck_assert_uint_eq(sqllog_durable_lsn(l), 0);
	sqllog_replicated(l, sqllog_epoch(l) - 1, 2); /* of another epoch: says nothing of these */
	ck_assert_uint_eq(sqllog_durable_lsn(l), 0);
	sqllog_replicated(l, sqllog_epoch(l), 1);
	ck_assert_uint_eq(sqllog_durable_lsn(l), 1);
	sqllog_replicated(l, sqllog_epoch(l), 2);
	until_durable(2);
	sqllog_close(l);

	/* what was there before the start is durable when the other host says that it has it */
	ck_assert(!open_with((struct sqllog_options){ .replicated = true }, &l));
	ck_assert_uint_eq(sqllog_durable_lsn(l), 0);
	sqllog_replicated(l, sqllog_epoch(l) - 1, 2);
	until_durable(2);
}
END_TEST

/* ---- waiters ---- */

struct waiter {
	struct sqllog_waiter w;
	int err;
	uint64_t durable_then;
};
static struct waiter waiters[40];
static struct flag called;
static uint64_t calls[40];

static void called_back(struct sqllog_waiter *w, int err)
{
	struct waiter *x = (struct waiter *)w;
	x->err = err;
	x->durable_then = w->durable ? sqllog_durable_lsn(l) : sqllog_written_lsn(l);
	calls[flag_count(&called)] = w->lsn;
	flag_raise(&called);
}

static void append_and_wait(void *arg)
{
	unsigned n = *(unsigned *)arg;
	for (unsigned i = 0; i < n; i++)
		waiters[i].w.lsn = records_append(l, "role:1", 1);
	/* registered in another order than they shall be called */
	for (unsigned i = 0; i < n; i++) {
		struct waiter *x = &waiters[i % 2 ? n - i - (n % 2) : i];
		x->err = 1;
		x->w.fn = called_back;
		sqllog_wait(l, *((struct loop **)arg + 1), &x->w, x->w.lsn, (x - waiters) % 3 != 0);
	}
}

static void join(void *arg)
{
	sqllog_join(l, arg);
}

struct job {
	unsigned n;
	struct loop *loop;
};

START_TEST(waiters_are_called_in_order_on_their_loop_once_it_is_true)
{
	struct loop *loop = on_loop_new(env, "worker");
	struct job job = { 40, loop };
	flag_init(&called);
	l = records_open(env, dir);
	on_loop(loop, join, loop);
	on_loop(loop, append_and_wait, &job);
	ck_assert(flag_wait(&called, 40));
	for (unsigned i = 0; i < 40; i++) {
		ck_assert_int_eq(waiters[i].err, 0);
		ck_assert_uint_ge(waiters[i].durable_then, waiters[i].w.lsn);
	}
	uint64_t before[2] = { 0, 0 };
	for (unsigned i = 0; i < 40; i++) { /* each kind in its order */
		bool durable = (calls[i] - 1) % 3 != 0;
		ck_assert_uint_gt(calls[i], before[durable]);
		before[durable] = calls[i];
	}
	sqllog_stop(l);
	on_loop_free(loop);
}
END_TEST

START_TEST(who_waits_for_what_is_already_durable_is_called_later_not_inside)
{
	struct loop *loop = on_loop_new(env, "worker");
	struct job job = { 1, loop };
	flag_init(&called);
	l = records_open(env, dir);
	records_append(l, "role:1", 1);
	until_durable(1);
	on_loop(loop, join, loop);
	on_loop(loop, append_and_wait, &job);
	ck_assert(flag_wait(&called, 1));
	sqllog_stop(l);
	on_loop_free(loop);
}
END_TEST

START_TEST(what_a_turn_waits_for_goes_when_the_turn_ends)
{
	struct loop *loop = on_loop_new(env, "worker");
	struct job job = { 40, loop };
	flag_init(&called);
	ck_assert_int_eq(open_with((struct sqllog_options){ .linger_us = 1000000000 }, &l), 0);
	on_loop(loop, join, loop);
	on_loop(loop, append_and_wait, &job);
	ck_assert(flag_wait(&called, 40)); /* not a quarter of an hour later */
	struct sqllog_figures f;
	sqllog_figures(l, &f);
	ck_assert_uint_le(f.syncs, 2); /* all of the turn together, but for what a batch under way took along */
	sqllog_stop(l);
	on_loop_free(loop);
}
END_TEST

START_TEST(a_stop_writes_everything_and_calls_everybody)
{
	struct loop *loop = on_loop_new(env, "worker");
	struct job job = { 40, loop };
	flag_init(&called);
	ck_assert_int_eq(open_with((struct sqllog_options){ .linger_us = 3000000 }, &l), 0);
	on_loop(loop, join, loop);
	on_loop(loop, append_and_wait, &job);
	sqllog_stop(l); /* not three seconds later */
	ck_assert(flag_wait(&called, 40));
	for (unsigned i = 0; i < 40; i++)
		ck_assert_int_eq(waiters[i].err, 0);
	on_loop_free(loop);
	expect_files("1-40\n");
}
END_TEST

/* ---- the disk fails ---- */

/* For every file of the process, Check's own included: so the log's begin with a record larger than all of those. */
enum { LARGE = 400000, MEDIUM = 30000, LARGE_WITH_SOME = LARGE + MEDIUM * 3 / 2 };

static void disk_limit(rlim_t bytes)
{
	struct rlimit r;
	getrlimit(RLIMIT_FSIZE, &r);
	r.rlim_cur = bytes;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void append_large(void)
{
	struct sql_record r;
	sql_record_init(&r);
	ck_assert_int_eq(append_big(&r, LARGE), 0);
	sql_record_release(&r);
}

/* A batch of 20 has no room in a new file either: the log goes on failing for as long as there is the limit. */
enum { LINGER_US = 1000000 /* so that they are one batch, also on a machine that has much else to do */ };
static void append_medium(unsigned n)
{
	struct sql_record r;
	sql_record_init(&r);
	for (unsigned i = 0; i < n; i++)
		ck_assert_int_eq(append_big(&r, MEDIUM), 0);
	sql_record_release(&r);
}

static void append_medium_and_wait(void *arg)
{
	const struct job *job = arg;
	append_medium(job->n);
	for (unsigned i = 0; i < job->n; i++) {
		waiters[i].w.fn = called_back;
		sqllog_wait(l, job->loop, &waiters[i].w, sqllog_lsn(l) - job->n + 1 + i, true);
	}
}

static void until_failing(bool failing)
{
	for (int i = 0; i < 100000 && sqllog_failing(l) != failing; i++)
		usleep(500);
	ck_assert(sqllog_failing(l) == failing);
}

static void until_failures(uint64_t n)
{
	struct sqllog_figures f = { 0 };
	for (int i = 0; i < 100000 && f.failures < n; i++) {
		sqllog_figures(l, &f);
		usleep(500);
	}
	ck_assert_uint_ge(f.failures, n);
}

START_TEST(a_disk_that_fails_is_told_and_nothing_is_acknowledged)
{
	struct loop *loop = on_loop_new(env, "worker");
	struct job job = { 20, loop };
	signal(SIGXFSZ, SIG_IGN);
	flag_init(&called);
	ck_assert_int_eq(open_with((struct sqllog_options){ .linger_us = LINGER_US }, &l), 0);
	on_loop(loop, join, loop);
	append_large();
	until_durable(1);
	disk_limit(LARGE_WITH_SOME); /* some records still go, and one in part */
	on_loop(loop, append_medium_and_wait, &job);
	ck_assert(flag_wait(&called, 20));
	for (unsigned i = 0; i < 20; i++)
		ck_assert_int_eq(waiters[i].err, ERR_UNKNOWN);
	ck_assert(sqllog_failing(l));
	struct sql_record r;
	char why[80];
	sql_record_init(&r);
	sql_record_add(&r, "DELETE FROM bag", NULL, 0, why, sizeof why);
	ck_assert_int_eq(sqllog_append(l, &r, NULL), ERR_UNAVAILABLE);
	ck_assert_uint_eq(r.statements, 1);

	/* and it comes back by itself, with every record that was taken, and no gap */
	disk_limit(RLIM_INFINITY);
	until_failing(false);
	until_durable(21);
	ck_assert_int_eq(sqllog_append(l, &r, NULL), 0);
	until_durable(22);
	sql_record_release(&r);
	sqllog_stop(l);
	on_loop_free(loop);
	char *text = records_read(env, dir);
	ck_assert_msg(!strcmp(text, "1-1\n2-22\n"), "%s", text);
	free(text);
	sqllog_close(l);
	l = records_open(env, dir);
	ck_assert_uint_eq(sqllog_lsn(l), 22);
}
END_TEST

START_TEST(no_whole_record_is_ever_taken_back_from_a_file)
{
	signal(SIGXFSZ, SIG_IGN);
	unsigned long long last = 0;
	ck_assert_int_eq(open_with((struct sqllog_options){ .linger_us = LINGER_US }, &l), 0);
	append_large();
	until_durable(1);
	disk_limit(LARGE_WITH_SOME);
	append_medium(20);
	until_failing(true);
	char *text = records_read(env, dir);
	ck_assert_msg(sscanf(text, "1-%llu\n", &last) == 1 && last > 1 && last < 21 && !strchr(text, '!'), "%s", text);
	free(text);
	until_failures(4); /* each leaves a file with some of the records */
	disk_limit(RLIM_INFINITY);
	until_durable(21);
	until_failing(false);
	expect_files("1-1\n2-21\n"); /* and none is there twice in the end */
}
END_TEST

START_TEST(a_disk_without_room_for_one_record_leaves_no_files_behind)
{
	signal(SIGXFSZ, SIG_IGN);
	l = records_open(env, dir);
	disk_limit(LARGE / 2);
	append_large();
	until_failing(true);
	expect_files("");
	disk_limit(RLIM_INFINITY);
	until_durable(1);
	char *text = records_read(env, dir);
	ck_assert_str_eq(text, "1-1\n");
	free(text);
}
END_TEST

START_TEST(records_taken_before_a_failure_go_first_when_it_is_stopped_after_recovery)
{
	signal(SIGXFSZ, SIG_IGN);
	l = records_open(env, dir);
	disk_limit(LARGE / 2);
	append_large();
	until_failing(true);
	disk_limit(RLIM_INFINITY);
	sqllog_close(l);
	l = records_open(env, dir);
	ck_assert_uint_eq(sqllog_lsn(l), 1);
}
END_TEST

/* ---- times ---- */

START_TEST(records_are_later_than_what_came_before_them_elsewhere)
{
	struct sqllog_record r;
	uint64_t ahead_us = env_wall_us(env) + 3600000000u;
	l = records_open(env, dir);
	sqllog_later_than(l, ahead_us);
	sqllog_later_than(l, ahead_us - 1000000); /* another one, that is no news */
	records_append(l, "role:1", 1);
	until_durable(1);
	sqllog_close(l);
	l = records_open(env, dir); /* and so it stays */
	records_append(l, "role:1", 2);
	until_durable(2);
	char path[ENV_PATH_MAX], why[80];
	uint64_t before_us = ahead_us;
	for (uint32_t number = 1; number <= 2; number++) {
		struct sqllog_file f = { .f = NULL };
		sqllog_path(path, dir, number, "sql");
		ck_assert_int_eq(sqllog_file_open(&f, env, path), 0);
		ck_assert_int_eq(sqllog_file_next(&f, &r, why, sizeof why), 1);
		ck_assert_uint_gt(r.time_us, before_us);
		ck_assert_uint_lt(r.time_us, before_us + 1000000);
		before_us = r.time_us;
		sqllog_file_close(&f);
	}
}
END_TEST

START_TEST(a_record_is_later_than_what_was_named_before_it_also_when_the_log_is_busy)
{
	enum { RECORDS = 20000 };
	struct sqllog_record r;
	struct sqllog_file f = { .f = NULL };
	uint64_t ahead_us = env_wall_us(env) + 3600000000u;
	char path[ENV_PATH_MAX], why[80];
	l = records_open(env, dir);
	for (unsigned i = 1; i <= RECORDS; i++) {
		sqllog_later_than(l, ahead_us + i * UINT64_C(1000000));
		records_append(l, "role:1", i);
	}
	until_durable(RECORDS);
	sqllog_path(path, dir, 1, "sql");
	ck_assert_int_eq(sqllog_file_open(&f, env, path), 0);
	for (unsigned i = 1; i <= RECORDS; i++) {
		ck_assert_int_eq(sqllog_file_next(&f, &r, why, sizeof why), 1);
		ck_assert_msg(r.time_us > ahead_us + i * UINT64_C(1000000), "record %u is %lld us too early", i,
			      (long long)(ahead_us + i * UINT64_C(1000000) - r.time_us));
	}
	sqllog_file_close(&f);
}
END_TEST

/* ---- last change of a key ---- */

START_TEST(the_last_change_of_a_key_is_known_at_once_and_forgotten_when_it_has_landed)
{
	l = records_open(env, dir);
	records_append(l, "role:1", 1);
	uint64_t lsn = records_append(l, "role:2", 1);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:2"), lsn);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:1"), lsn - 1);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:3"), 0);
	sqllog_replayed(l, sqllog_epoch(l), lsn - 1);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:1"), 0);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:2"), lsn);
	sqllog_replayed(l, sqllog_epoch(l), lsn);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:2"), 0);
}
END_TEST

START_TEST(a_position_covers_a_change_only_in_the_same_life_of_the_log)
{
	records_file(dir, 1, 1, 9, 5);
	l = records_open(env, dir);
	uint64_t lsn = records_append(l, "role:2", 1), epoch = sqllog_epoch(l);
	ck_assert_uint_eq(epoch, 6);
	ck_assert(!sqllog_key_landed(l, "role:1", 5, 8));
	ck_assert(sqllog_key_landed(l, "role:1", 5, 9));
	ck_assert(sqllog_key_landed(l, "role:1", 5, 20)); /* ahead of the log: lost with the machine */
	ck_assert(!sqllog_key_landed(l, "role:2", 5, 20));
	ck_assert(!sqllog_key_landed(l, "role:2", 4, 800));
	ck_assert(!sqllog_key_landed(l, "role:1", 4, 800));
	ck_assert(!sqllog_key_landed(l, "role:2", 7, 800)); /* a newer owner's */
	ck_assert(sqllog_key_landed(l, "role:1", epoch, lsn - 1));
	ck_assert(!sqllog_key_landed(l, "role:2", epoch, lsn - 1));
	ck_assert(sqllog_key_landed(l, "role:2", epoch, lsn));
	ck_assert(sqllog_key_landed(l, "role:3", 5, 1)); /* never changed */
}
END_TEST

START_TEST(keys_with_separators_in_them_are_found_again)
{
	l = records_open(env, dir);
	uint64_t lsn = records_append(l, "uid:a, b", 1);
	ck_assert_uint_eq(sqllog_key_lsn(l, "uid:a, b"), lsn);
	sqllog_close(l);
	l = records_open(env, dir);
	ck_assert_uint_eq(sqllog_key_lsn(l, "uid:a, b"), lsn);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("writer");
	tcase_set_timeout(t, 50);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, numbers_count_from_one_and_go_on_after_a_restart_with_a_higher_epoch);
	tcase_add_test(t, the_epoch_grows_even_if_nothing_was_written);
	tcase_add_test(t, what_is_written_is_the_record_that_was_built);
	tcase_add_test(t, a_folder_has_one_writer);
	tcase_add_test(t, files_rotate_by_size_and_no_record_is_split);
	tcase_add_test(t, an_empty_record_is_refused);
	tcase_add_test(t, after_the_stop_nothing_is_taken);
	tcase_add_test(t, a_full_ring_refuses_and_takes_nothing_until_there_is_room);
	tcase_add_test(t, many_workers_append_at_once_and_every_record_is_there_in_its_order);
	tcase_add_test(t, of_a_replicated_log_that_is_durable_which_both_hosts_have);
	tcase_add_test(t, waiters_are_called_in_order_on_their_loop_once_it_is_true);
	tcase_add_test(t, who_waits_for_what_is_already_durable_is_called_later_not_inside);
	tcase_add_test(t, what_a_turn_waits_for_goes_when_the_turn_ends);
	tcase_add_test(t, a_stop_writes_everything_and_calls_everybody);
	tcase_add_test(t, a_disk_that_fails_is_told_and_nothing_is_acknowledged);
	tcase_add_test(t, no_whole_record_is_ever_taken_back_from_a_file);
	tcase_add_test(t, a_disk_without_room_for_one_record_leaves_no_files_behind);
	tcase_add_test(t, records_taken_before_a_failure_go_first_when_it_is_stopped_after_recovery);
	tcase_add_test(t, records_are_later_than_what_came_before_them_elsewhere);
	tcase_add_test(t, a_record_is_later_than_what_was_named_before_it_also_when_the_log_is_busy);
	tcase_add_test(t, the_last_change_of_a_key_is_known_at_once_and_forgotten_when_it_has_landed);
	tcase_add_test(t, a_position_covers_a_change_only_in_the_same_life_of_the_log);
	tcase_add_test(t, keys_with_separators_in_them_are_found_again);
	return suite_run("sqllog", t);
}
