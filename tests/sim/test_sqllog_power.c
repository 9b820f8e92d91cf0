#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/sqllog.h"
#include "tests/support/simtest.h"
#include "tests/support/suite.h"
/*
 * What the SQL log promises of its numbers over power cuts (common/sqllog.h): dbwriter may have landed records that the machine
 * then lost, so numbers of an epoch that comes again would be passed over as landed.
 */

static void starts(struct env *env, void *arg)
{
	struct sqllog_options o = { .folder = "var/sqllog/role-1", .workers = 1 };
	struct sqllog *l;
	char error[300];
	ck_assert_msg(!sqllog_open(env, NULL, NULL, &o, error, sizeof error, &l), "%s", error);
	*(uint64_t *)arg = sqllog_epoch(l);
	sqllog_close(l);
}

START_TEST(no_epoch_is_given_out_twice_though_the_power_goes_right_after)
{
	uint64_t last = 0, epoch;
	for (int i = 0; i < 100; i++) {
		simtest_run("role-1", starts, &epoch);
		ck_assert_uint_gt(epoch, last);
		last = epoch;
		sim_crash_host(w, "10.0.0.1");
	}
}
END_TEST

struct first {
	char folder[64];
	bool acknowledged;
};

static void records(struct env *env, void *arg)
{
	struct first *t = arg;
	struct sqllog_options o = { .folder = t->folder, .workers = 1 };
	struct sqllog *l;
	struct sql_record r;
	uint64_t lsn;
	char error[300];

	ck_assert_msg(!sqllog_open(env, NULL, NULL, &o, error, sizeof error, &l), "%s", error);
	sql_record_init(&r);
	sql_record_key(&r, "role:1");
	ck_assert_int_eq(sql_record_add(&r, "DELETE FROM t", NULL, 0, error, sizeof error), 0);
	ck_assert_int_eq(sqllog_append(l, &r, &lsn), 0);
	sqllog_stop(l);
	t->acknowledged = sqllog_durable_lsn(l) >= lsn;
	sql_record_release(&r);
	sqllog_close(l);
}

START_TEST(the_first_record_of_a_log_that_was_acknowledged_survives_with_its_folder)
{
	for (unsigned i = 0; i < 50; i++) {
		struct first t = { .acknowledged = false };
		char path[100], *text;

		snprintf(t.folder, sizeof t.folder, "var%u/sqllog/role-1", i);
		simtest_run("role-1", records, &t);
		ck_assert(t.acknowledged);
		sim_crash_host(w, "10.0.0.1");
		snprintf(path, sizeof path, "%s/00000001.sql", t.folder);
		ck_assert_msg(sim_file_load(w, "10.0.0.1", path, &text) > 0, "%s is gone", path);
		free(text);
	}
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("power");

	tcase_add_checked_fixture(t, simtest_set_up, simtest_tear_down);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, no_epoch_is_given_out_twice_though_the_power_goes_right_after);
	tcase_add_test(t, the_first_record_of_a_log_that_was_acknowledged_survives_with_its_folder);
	return suite_run("sqllog_power", t);
}
