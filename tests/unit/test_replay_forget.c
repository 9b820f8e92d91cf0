/* What of loquat_once goes by its age: dbwriter/replay.h (once_keep_s). */
#include <check.h>
#include <stdio.h>
#include "tests/support/landing.h"

static struct landing here;

static void setup(void)
{
	landing_setup(&here);
	landing_tables(&here);
	sql_file(here.q, "deploy/schema/002-once.sql");
	here.options.once_keep_s = 3600;
	here.options.forget_each_ms = 20;
}

static void teardown(void)
{
	landing_teardown(&here);
}

/* n rows of a client, or with business keys if it is empty. */
static void rows(const char *client, unsigned from, unsigned n, unsigned age_s)
{
	for (unsigned i = from; i < from + n; i++) {
		char text[300];
		snprintf(
			text, sizeof text,
			"INSERT INTO loquat_once VALUES ('role/p%u', '%s', 'roleRemote.reward', '%u', %u, 1, 1, 0, 'x',"
			" UNIX_TIMESTAMP() * 1000000 - %u000000)",
			i % 7, client, i, *client ? i : 0, age_s);
		sql_run(here.q, text);
	}
}

static bool all_old_are_gone(void *arg)
{
	(void)arg;
	return sql_int(here.q, "SELECT COUNT(*) FROM loquat_once WHERE client <> '' AND seq < 1000") == 0 &&
	       landing_now(&here).forgotten == 450;
}

START_TEST(an_old_answer_that_nobody_acknowledged_goes_business_keys_and_young_ones_stay)
{
	rows("scene-1/0/1700000000", 1, 450, 7200); /* more than go at a time */
	rows("scene-1/0/1700000000", 1001, 3, 60);
	rows("", 1, 5, 999999);
	landing_start(&here);
	landing_until(&here, all_old_are_gone, NULL, "the old ones gone");
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once WHERE client = ''"), 5);
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once"), 8);
}
END_TEST

START_TEST(while_old_answers_go_everything_lands)
{
	rows("scene-1/0/1700000000", 1, 450, 7200);
	landing_adding(here.folder[0], 1, 1, 3000, 1);
	landing_start(&here);
	landing_until_landed(&here, 1, 3000);
	landing_until(&here, all_old_are_gone, NULL, "the old ones gone");
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(3000));
}
END_TEST

static void add(void *tcase)
{
	tcase_add_test((TCase *)tcase, an_old_answer_that_nobody_acknowledged_goes_business_keys_and_young_ones_stay);
	tcase_add_test((TCase *)tcase, while_old_answers_go_everything_lands);
}

int main(void)
{
	return landing_main(&here, "replay_forget", setup, teardown, add);
}
