/* Who has to be woken by the writer of common/sqllog.h, and when: each wait here ends by a wake-up, or by the test's deadline. */
#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "common/loop.h"
#include "common/sqllog.h"
#include "tests/support/flag.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

enum { DEADLINE_S = 20, LONG_US = 2000000000 };

static struct env *env;
static char *dir;
static struct sqllog *l;
static _Atomic bool disk_stands; /* no sync ends meanwhile */

int fdatasync(int fd)
{
	while (atomic_load(&disk_stands))
		usleep(500);
	return (int)syscall(SYS_fdatasync, fd);
}

static void setup(void)
{
	env = env_new();
	dir = folder_new();
	l = NULL;
	atomic_store(&disk_stands, false);
}

static void teardown(void)
{
	sqllog_close(l);
	folder_free(dir);
	env_free(env);
}

static void open_lingering(uint32_t linger_us)
{
	struct sqllog_options o = { .folder = dir, .workers = 1, .linger_us = linger_us, .ring_bytes = 1 };
	char error[300];
	ck_assert_int_eq(sqllog_open(env, NULL, NULL, &o, error, sizeof error, &l), 0);
}

/* ---- written ---- */

static struct flag called;
static struct sqllog_waiter waiter;
static int told = 1;

static void called_back(struct sqllog_waiter *x, int err)
{
	(void)x;
	told = err;
	flag_raise(&called);
}

static void append_and_wait(void *arg)
{
	struct loop *loop = arg;
	sqllog_join(l, loop);
	waiter.fn = called_back;
	sqllog_wait(l, loop, &waiter, records_append(l, "role:1", 1), false);
}

START_TEST(who_waits_for_written_does_not_wait_for_the_sync)
{
	struct loop *loop = on_loop_new(env, "worker");
	flag_init(&called);
	open_lingering(100);
	atomic_store(&disk_stands, true);
	on_loop(loop, append_and_wait, loop);
	bool in_time = flag_wait_s(&called, 1, DEADLINE_S);
	uint64_t durable = sqllog_durable_lsn(l);
	atomic_store(&disk_stands, false);
	sqllog_stop(l);
	on_loop_free(loop);
	ck_assert(in_time);
	ck_assert_int_eq(told, 0);
	ck_assert_uint_eq(durable, 0);
}
END_TEST

/* ---- the ring ---- */

static void append_bytes(size_t bytes)
{
	enum { EACH = 30000 };
	static char text[EACH];
	struct sql_value v = { .type = SQL_TEXT, .s = { text, EACH } };
	struct sql_record r;
	char why[80];
	memset(text, 'x', EACH);
	sql_record_init(&r);
	for (size_t at = 0; at < bytes; at += EACH) {
		ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), 0);
		ck_assert_int_eq(sqllog_append(l, &r, NULL), 0);
	}
	sql_record_release(&r);
}

START_TEST(a_ring_that_is_half_full_is_emptied_though_nobody_waits)
{
	open_lingering(LONG_US);
	append_bytes((2u << 20) - 60000); /* of four megabytes */
	ck_assert_uint_eq(sqllog_written_lsn(l), 0);
	append_bytes(120000);
	for (int i = 0; i < DEADLINE_S * 1000 && !sqllog_durable_lsn(l); i++)
		usleep(1000);
	ck_assert_uint_gt(sqllog_durable_lsn(l), 0);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("wake");
	tcase_set_timeout(t, 50);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, who_waits_for_written_does_not_wait_for_the_sync);
	tcase_add_test(t, a_ring_that_is_half_full_is_emptied_though_nobody_waits);
	return suite_run("sqllog_wake", t);
}
