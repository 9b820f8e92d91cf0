#include "common/cron.h"
#include "tests/support/suite.h"

#include <check.h>
#include <string.h>
#include <time.h>

static int64_t at(int year, int month, int day, int hour, int minute, int second)
{
	struct tm t = { .tm_year = year - 1900,
			.tm_mon = month - 1,
			.tm_mday = day,
			.tm_hour = hour,
			.tm_min = minute,
			.tm_sec = second };

	return (int64_t)timegm(&t);
}

static int64_t next(const char *text, int64_t after)
{
	struct cron c;
	char why[128];

	ck_assert_msg(cron_parse(text, &c, why, sizeof why) == 0, "%s: %s", text, why);
	return cron_next(&c, after);
}

static void refused(const char *text, const char *part)
{
	struct cron c;
	char why[128];

	ck_assert_int_lt(cron_parse(text, &c, why, sizeof why), 0);
	ck_assert_msg(strstr(why, part), "%s: %s", text, why);
}

START_TEST(every_day_at_five)
{
	ck_assert_int_eq(next("0 5 * * *", at(2026, 1, 1, 4, 59, 59)), at(2026, 1, 1, 5, 0, 0));
	ck_assert_int_eq(next("0 5 * * *", at(2026, 1, 1, 5, 0, 0)), at(2026, 1, 2, 5, 0, 0));
	ck_assert_int_eq(next("0 5 * * *", at(2026, 12, 31, 6, 0, 0)), at(2027, 1, 1, 5, 0, 0));
}
END_TEST

START_TEST(each_quarter_of_an_hour_by_day)
{
	ck_assert_int_eq(next("*/15 8-18/2 * * *", at(2026, 1, 1, 8, 1, 0)), at(2026, 1, 1, 8, 15, 0));
	ck_assert_int_eq(next("*/15 8-18/2 * * *", at(2026, 1, 1, 8, 45, 0)), at(2026, 1, 1, 10, 0, 0));
	ck_assert_int_eq(next("*/15 8-18/2 * * *", at(2026, 1, 1, 18, 45, 0)), at(2026, 1, 2, 8, 0, 0));
}
END_TEST

START_TEST(on_weekdays)
{
	/* 2026-01-01 is a Thursday */
	ck_assert_int_eq(next("30 9 * * 1-5", at(2026, 1, 2, 9, 30, 0)), at(2026, 1, 5, 9, 30, 0));
	ck_assert_int_eq(next("0 0 * * 0", at(2026, 1, 1, 0, 0, 0)), at(2026, 1, 4, 0, 0, 0));
	ck_assert_int_eq(next("0 0 * * 7", at(2026, 1, 1, 0, 0, 0)), at(2026, 1, 4, 0, 0, 0));
}
END_TEST

START_TEST(a_day_or_a_weekday_if_both_are_given)
{
	ck_assert_int_eq(next("0 0 13 * 5", at(2026, 1, 9, 0, 0, 0)), at(2026, 1, 13, 0, 0, 0));
	ck_assert_int_eq(next("0 0 13 * 5", at(2026, 1, 13, 0, 0, 0)), at(2026, 1, 16, 0, 0, 0));
}
END_TEST

START_TEST(the_last_of_february_comes_in_its_year)
{
	ck_assert_int_eq(next("0 0 29 2 *", at(2026, 1, 1, 0, 0, 0)), at(2028, 2, 29, 0, 0, 0));
	ck_assert_int_eq(next("0 0 31 1,3 *", at(2026, 1, 31, 0, 0, 0)), at(2026, 3, 31, 0, 0, 0));
}
END_TEST

START_TEST(what_is_wrong_is_named_by_its_field)
{
	refused("60 * * * *", "minute");
	refused("0 24 * * *", "hour");
	refused("0 0 0 * *", "day");
	refused("0 0 * 13 *", "month");
	refused("0 0 * * 8", "weekday");
	refused("0 0 * *", "five fields: minute hour day month weekday, found 4");
	refused("5", "found 1");
	refused("5-1 * * * *", "minute");
	refused("*/0 * * * *", "minute");
	refused("1, * * * *", "minute");
	refused("", "minute");
	refused("0 0 * * * *", "five fields");
	refused("0 0 30 2 *", "never");
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("all");

	tcase_add_test(t, every_day_at_five);
	tcase_add_test(t, each_quarter_of_an_hour_by_day);
	tcase_add_test(t, on_weekdays);
	tcase_add_test(t, a_day_or_a_weekday_if_both_are_given);
	tcase_add_test(t, the_last_of_february_comes_in_its_year);
	tcase_add_test(t, what_is_wrong_is_named_by_its_field);
	return suite_run("cron", t);
}
