/* What of loquat_once goes by its age: dbwriter/replay.h (once_keep_s). */
#include <check.h>
#include <stdio.h>
#include <unistd.h>
#include "tests/support/folder.h"
#include "tests/support/landing.h"
#include "tests/support/records.h"

static struct landing here;

static void setup(void)
{
	landing_setup(&here);
	landing_tables(&here);
	sql_file(here.q, "deploy/schema/002-once.sql");
	sql_file(here.q, "deploy/schema/004-once-age.sql");
	here.options.once_keep_s = 3600;
	here.options.forget_each_ms = 20;
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

/* A record of role-2's log, written so long ago: what is old is so by its time. */
static void record(uint64_t lsn, int age_s)
{
	char name[32];
	struct buf b = BUF_INIT;
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = lsn,
				       .epoch = 1,
				       .keys = "role:2",
				       .statements = "UPDATE role SET gold = 1 WHERE id = 2;\n",
				       .time_us = env_wall_us(here.env) - (uint64_t)(age_s * INT64_C(1000000)) });
	snprintf(name, sizeof name, "%08u.sql", (unsigned)lsn);
	folder_write(here.folder[1], name, b.data, b.len);
	buf_release(&b);
}

static bool all_old_are_gone(void *arg)
{
	(void)arg;
	return sql_int(here.q, "SELECT COUNT(*) FROM loquat_once WHERE client <> '' AND seq < 1000") == 0 &&
	       landing_now(&here).forgotten == 450;
}

static bool one_more_is_gone(void *arg)
{
	(void)arg;
	return landing_now(&here).forgotten == 451;
}

START_TEST(an_old_answer_that_nobody_acknowledged_goes_business_keys_and_young_ones_stay)
{
	rows("scene-1/0/1700000000", 1, 450, 7200); /* more than go at a time */
	rows("scene-1/0/1700000000", 1001, 3, 60);
	rows("", 1, 5, 999999);
	record(1, 0);
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
	record(1, 0);
	landing_start(&here);
	landing_until_landed(&here, 1, 3000);
	landing_until(&here, all_old_are_gone, NULL, "the old ones gone");
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(3000));
}
END_TEST

static bool ten_are_gone(void *arg)
{
	(void)arg;
	return landing_now(&here).forgotten == 10;
}

static bool one_is_gone(void *arg)
{
	(void)arg;
	return landing_now(&here).forgotten == 1;
}

static void row(const char *owner, const char *client, const char *method, const char *key, unsigned age_s)
{
	char text[300];
	snprintf(text, sizeof text,
		 "INSERT INTO loquat_once VALUES ('%s', '%s', '%s', '%s', 1, 1, 1, 0, 'x',"
		 " UNIX_TIMESTAMP() * 1000000 - %u000000)",
		 owner, client, method, key, age_s);
	sql_run(here.q, text);
}

START_TEST(an_old_answer_takes_no_live_one_along_that_differs_in_one_part_of_its_key)
{
	row("m", "m", "m", "m", 7200);
	for (const char *other = "az"; *other; other++) {
		const char name[] = { *other, '\0' };
		row(name, "m", "m", "m", 60);
		row("m", name, "m", "m", 60);
		row("m", "m", name, "m", 60);
		row("m", "m", "m", name, 60);
	}
	record(1, 0);
	landing_start(&here);
	landing_until(&here, one_is_gone, NULL, "the old one gone");
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once"), 8);
}
END_TEST

START_TEST(before_it_is_time_nothing_is_looked_for)
{
	rows("scene-1/0/1700000000", 1, 5, 7200);
	here.options.forget_each_ms = 3600000;
	landing_start(&here);
	for (uint64_t lsn = 1; lsn <= 5; lsn++) {
		record(lsn, 0);
		landing_until_landed(&here, 2, (int64_t)lsn);
	}
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once"), 5);
}
END_TEST

START_TEST(looking_for_old_answers_reads_no_business_keys)
{
	sql_run(here.q, "INSERT INTO loquat_once SELECT CONCAT('role/p', seq), '', 'm', seq, 0, 1, 1, 0, 'x', 0"
			" FROM seq_1_to_20000");
	rows("scene-1/0/1700000000", 1, 10, 7200);
	sql_run(here.q, "ANALYZE TABLE loquat_once; SET GLOBAL userstat = 1; FLUSH TABLE_STATISTICS");
	record(1, 0);
	landing_start(&here);
	landing_until(&here, ten_are_gone, NULL, "the old ones gone");
	int64_t read =
		sql_int(here.q,
			"SELECT rows_read FROM information_schema.table_statistics WHERE table_name = 'loquat_once'");
	sql_run(here.q, "SET GLOBAL userstat = 0");
	ck_assert_msg(read > 0 && read < 1000, "rows read: %lld of 20010", (long long)read);
}
END_TEST

START_TEST(answers_of_many_clients_are_found_one_after_another)
{
	char client[40];
	for (unsigned i = 0; i < 30; i++) { /* 15 old ones each, and a young one that stays */
		snprintf(client, sizeof client, "scene-%u/0/1700000000", i);
		rows(client, i * 15 + 1, 15, 7200);
		rows(client, i + 1001, 1, 60);
	}
	record(1, 0);
	landing_start(&here);
	landing_until(&here, all_old_are_gone, NULL, "the old ones gone");
	rows("scene-0/0/1700000000", 999, 1, 7200); /* the next look begins with the first again */
	landing_until(&here, one_more_is_gone, NULL, "one more gone");
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once"), 30);
}
END_TEST

static bool five_are_gone(void *arg)
{
	(void)arg;
	return landing_now(&here).forgotten >= 5;
}

START_TEST(a_clock_of_ours_that_is_ahead_takes_no_live_answer)
{
	rows("scene-1/0/1700000000", 1, 5, 3 * 7200);
	rows("scene-1/0/1700000000", 1001, 3, 7200); /* old by our clock alone */
	record(1, 7200);
	landing_start(&here);
	landing_until(&here, five_are_gone, NULL, "the old ones gone");
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once"), 3);
}
END_TEST

START_TEST(a_record_of_a_clock_that_is_ahead_takes_no_live_answer)
{
	rows("scene-1/0/1700000000", 1, 5, 7200);
	rows("scene-1/0/1700000000", 1001, 3, 60);
	record(1, -7200);
	landing_start(&here);
	landing_until(&here, five_are_gone, NULL, "the old ones gone");
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once"), 3);
}
END_TEST

START_TEST(before_a_record_has_landed_nothing_is_old)
{
	rows("scene-1/0/1700000000", 1, 5, 7200);
	landing_start(&here);
	landing_until_logged(&here, "dbwriter.connected");
	usleep(200000); /* ten looks */
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once"), 5);
	record(1, 0);
	landing_until(&here, five_are_gone, NULL, "the old ones gone");
}
END_TEST

START_TEST(to_keep_them_for_no_time_is_to_keep_them_for_ever)
{
	rows("scene-1/0/1700000000", 1, 5, 999999);
	record(1, 0);
	here.options.once_keep_s = 0;
	landing_start(&here);
	landing_until_landed(&here, 2, 1);
	usleep(200000); /* ten looks */
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_once"), 5);
}
END_TEST

int main(void)
{
	return landing_main(&here, "replay_forget", setup, NULL, a_clock_of_ours_that_is_ahead_takes_no_live_answer,
			    a_record_of_a_clock_that_is_ahead_takes_no_live_answer,
			    before_a_record_has_landed_nothing_is_old,
			    to_keep_them_for_no_time_is_to_keep_them_for_ever,
			    looking_for_old_answers_reads_no_business_keys,
			    answers_of_many_clients_are_found_one_after_another,
			    an_old_answer_that_nobody_acknowledged_goes_business_keys_and_young_ones_stay,
			    an_old_answer_takes_no_live_one_along_that_differs_in_one_part_of_its_key,
			    before_it_is_time_nothing_is_looked_for, while_old_answers_go_everything_lands);
}
