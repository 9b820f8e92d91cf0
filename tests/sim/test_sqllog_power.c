#include <check.h>
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

int main(void)
{
	TCase *t = tcase_create("power");

	tcase_add_checked_fixture(t, simtest_set_up, simtest_tear_down);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, no_epoch_is_given_out_twice_though_the_power_goes_right_after);
	return suite_run("sqllog_power", t);
}
