/* The promises of rpc/breaker.h. */
#include <check.h>
#include "rpc/breaker.h"
#include "tests/support/suite.h"

static struct breaker b;

static void setup(void)
{
	b = (struct breaker){ 0 };
}

static void open_it(uint64_t now_ms)
{
	for (int i = 0; i < BREAKER_FAILURES - 1; i++)
		ck_assert(!breaker_failed(&b, now_ms));
	ck_assert(breaker_failed(&b, now_ms));
}

START_TEST(a_few_failures_change_nothing_and_one_success_forgets_them)
{
	for (int i = 0; i < BREAKER_FAILURES - 1; i++)
		breaker_failed(&b, 10);
	ck_assert(breaker_admits(&b, 10));
	ck_assert(!breaker_worked(&b));
	open_it(20);
}
END_TEST

START_TEST(failures_in_a_row_open_it_until_its_wait_is_over)
{
	open_it(1000);
	ck_assert(!breaker_admits(&b, 1000 + BREAKER_WAIT_MIN_MS - 1));
	ck_assert(breaker_admits(&b, 1000 + BREAKER_WAIT_MIN_MS));
}
END_TEST

START_TEST(one_probe_at_a_time_and_its_end_decides)
{
	open_it(0);
	breaker_sent(&b, 600);
	ck_assert(!breaker_admits(&b, 600));
	ck_assert(breaker_worked(&b));
	ck_assert(breaker_admits(&b, 600));
	ck_assert_uint_eq(b.failures, 0);
}
END_TEST

START_TEST(a_probe_that_fails_doubles_the_wait_up_to_its_bound)
{
	uint64_t now = 0, wait = BREAKER_WAIT_MIN_MS;

	open_it(now);
	for (int i = 0; i < 10; i++) {
		now += wait;
		ck_assert(breaker_admits(&b, now));
		breaker_sent(&b, now);
		ck_assert(!breaker_failed(&b, now)); /* it was open before */
		wait = wait * 2 < BREAKER_WAIT_MAX_MS ? wait * 2 : BREAKER_WAIT_MAX_MS;
		ck_assert(!breaker_admits(&b, now + wait - 1));
	}
}
END_TEST

START_TEST(calls_of_before_that_fail_late_do_not_prolong_it)
{
	open_it(0);
	breaker_failed(&b, 400);
	ck_assert(breaker_admits(&b, BREAKER_WAIT_MIN_MS));
}
END_TEST

START_TEST(a_probe_that_never_ends_is_followed_by_another)
{
	open_it(0);
	breaker_sent(&b, 600);
	ck_assert(!breaker_admits(&b, 600 + BREAKER_WAIT_MIN_MS - 1));
	ck_assert(breaker_admits(&b, 600 + BREAKER_WAIT_MIN_MS));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("breaker");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_test(t, a_few_failures_change_nothing_and_one_success_forgets_them);
	tcase_add_test(t, failures_in_a_row_open_it_until_its_wait_is_over);
	tcase_add_test(t, one_probe_at_a_time_and_its_end_decides);
	tcase_add_test(t, a_probe_that_fails_doubles_the_wait_up_to_its_bound);
	tcase_add_test(t, calls_of_before_that_fail_late_do_not_prolong_it);
	tcase_add_test(t, a_probe_that_never_ends_is_followed_by_another);
	return suite_run("breaker", t);
}
