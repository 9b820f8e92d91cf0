/* Landing SQL logs in a real MariaDB, exactly once and in order: dbwriter/replay.h. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "dbwriter/plan.h"
#include "tests/support/folder.h"
#include "tests/support/landing.h"
#include "tests/support/records.h"

static struct landing here; /* its server is started once, before the tests fork */

START_TEST(every_record_of_every_log_lands_once)
{
	landing_adding(here.folder[0], 1, 1, 1500, 1);
	landing_adding(here.folder[0], 2, 1501, 2500, 2);
	landing_adding(here.folder[1], 1, 1, 700, 1);
	landing_start(&here);
	landing_until_landed(&here, 1, 2500);
	landing_until_landed(&here, 2, 700);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(2500) + landing_sum_to(700));
	struct replay_figures f = landing_now(&here);
	ck_assert_uint_eq(f.records, 3200);
	ck_assert_uint_le(f.transactions, 6);
	ck_assert_uint_eq(f.streams, 2);
	ck_assert_uint_eq(f.lag_records, 0);
	ck_assert_uint_eq(f.lag_ms, 0);
	ck_assert(f.connected);
}
END_TEST

START_TEST(a_restart_goes_on_where_the_position_stands)
{
	landing_adding(here.folder[0], 1, 1, 1500, 1);
	landing_start(&here);
	landing_until_landed(&here, 1, 1500);
	landing_end(&here);
	landing_adding(here.folder[0], 2, 1501, 1600, 2);
	landing_start(&here);
	landing_until_landed(&here, 1, 1600);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(1600));
	ck_assert_int_eq(sql_int(here.q, "SELECT epoch FROM loquat_replay"), 2);
	char *file = sql_text(here.q, "SELECT file FROM loquat_replay");
	ck_assert_str_eq(file, "00000002.sql");
	free(file);
}
END_TEST

START_TEST(what_a_writer_appends_lands_while_it_writes)
{
	struct sqllog *l = records_open(here.env, here.folder[0]);
	sql_run(here.q, "UPDATE role SET name = 'role:1' WHERE id = 1");
	landing_start(&here);
	for (int i = 1; i <= 300; i++) {
		records_append(l, "role:1", 1);
		if (i % 100 == 0)
			landing_until_landed(&here, 1, i);
	}
	ck_assert_int_eq(landing_gold(&here), 300);
	sqllog_close(l);
}
END_TEST

START_TEST(a_folder_that_comes_later_is_found)
{
	char later[400];
	landing_start(&here);
	snprintf(later, sizeof later, "%s/role-3", here.dir);
	mkdir(later, 0755);
	landing_adding(later, 1, 1, 5, 1);
	landing_until_landed(&here, 3, 5);
}
END_TEST

START_TEST(any_text_is_the_same_in_the_database)
{
	static const char text[] = "O'Neill \"\\\0\n\r\x1a%_ -- /* ; \xe6\x9e\x87\xe6\x9d\xb7 \xf0\x9f\x8d\x8a";
	struct sqllog *l = records_open(here.env, here.folder[0]);
	struct sql_record r;
	struct sql_value v[] = { { .type = SQL_TEXT, .s = { text, sizeof text - 1 } },
				 { .type = SQL_INT, .i = INT64_MIN },
				 { .type = SQL_DOUBLE, .d = 0.1 },
				 { .type = SQL_DOUBLE, .d = -1e-300 } };
	char why[100], hex[200] = "", *got;
	sql_record_init(&r);
	ck_assert_int_eq(sql_record_add(&r, "UPDATE role SET name = ?, gold = ?, x = ?, y = ? WHERE id = 1", v, 4, why,
					sizeof why),
			 0);
	ck_assert_int_eq(sqllog_append(l, &r, NULL), 0);
	sql_record_release(&r);
	landing_start(&here);
	landing_until_landed(&here, 1, 1);
	for (size_t i = 0; i < sizeof text - 1; i++)
		sprintf(hex + 2 * i, "%02X", (unsigned char)text[i]);
	got = sql_text(here.q, "SELECT HEX(name) FROM role WHERE id = 1");
	ck_assert_str_eq(got, hex);
	free(got);
	ck_assert_int_eq(
		sql_int(here.q,
			"SELECT gold = -9223372036854775808 AND x = 0.1e0 AND y = -1e-300 FROM role WHERE id = 1"),
		1);
	sqllog_close(l);
}
END_TEST

START_TEST(two_dbwriters_land_nothing_twice)
{
	landing_adding(here.folder[0], 1, 1, 6000, 1);
	landing_adding(here.folder[1], 1, 1, 6000, 1);
	here.options.batch_records_max = 20;
	landing_start(&here);
	landing_start_second(&here);
	landing_until_landed(&here, 1, 6000);
	landing_until_landed(&here, 2, 6000);
	ck_assert_int_eq(landing_gold(&here), 2 * landing_sum_to(6000));
	landing_until_logged(&here, "dbwriter.overtaken");
}
END_TEST

START_TEST(statements_that_cannot_be_gathered_land_in_transactions_of_bounded_plans)
{
	struct buf b = BUF_INIT;
	sql_run(here.q, "CREATE TABLE told (n BIGINT NOT NULL PRIMARY KEY AUTO_INCREMENT, lsn BIGINT NOT NULL)");
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 5000; lsn++) {
		char text[160];
		snprintf(text, sizeof text,
			 "UPDATE role SET gold = (GREATEST(gold, 0) * 31 + %llu) %% 1000007 WHERE id = 1;\n"
			 "INSERT INTO told (lsn) VALUES (%llu);\n",
			 (unsigned long long)lsn, (unsigned long long)lsn);
		records_add(&b, (struct made){ .lsn = lsn, .epoch = 1, .keys = "role:1", .statements = text });
	}
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
	here.options.batch_records_max = 2000; /* so more is in the log than is read ahead */
	landing_start(&here);
	landing_until_landed(&here, 1, 5000);
	ck_assert_uint_ge(landing_now(&here).transactions, 5000 / (PLAN_GROUPS_MAX / 2));
	int64_t expected = 0;
	for (int64_t lsn = 1; lsn <= 5000; lsn++)
		expected = (expected * 31 + lsn) % 1000007;
	ck_assert_int_eq(landing_gold(&here), expected);
	ck_assert_int_eq(
		sql_int(here.q,
			"SELECT COUNT(*) FROM told AS a JOIN told AS b ON a.n < b.n AND a.lsn > b.lsn WHERE b.n < 50"),
		0);
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM told"), 5000);
}
END_TEST

/* Of what is folded a trigger would see but the last. */
START_TEST(after_a_migration_the_tables_are_read_anew)
{
	sql_run(here.q,
		"CREATE TABLE loquat_schema (version INT NOT NULL PRIMARY KEY); INSERT INTO loquat_schema VALUES (1)");
	landing_start(&here);
	for (unsigned round = 0; round < 3; round++) {
		landing_adding(here.folder[0], 1 + round, 1 + 100 * round, 100 + 100 * round, 1);
		landing_until_landed(&here, 1, 100 + 100 * round);
		if (!round)
			sql_run(here.q,
				"CREATE TABLE told (n INT NOT NULL AUTO_INCREMENT PRIMARY KEY, gold BIGINT NOT NULL);"
				"CREATE TRIGGER tell AFTER UPDATE ON role FOR EACH ROW"
				" INSERT INTO told (gold) VALUES (NEW.gold);"
				"INSERT INTO loquat_schema VALUES (2)");
		else if (round == 1)
			sql_run(here.q, "INSERT INTO loquat_schema VALUES (3)");
	}
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(300));
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM told"), 200);
}
END_TEST

static bool took_over_twice(void *arg)
{
	size_t n;
	char *text = folder_read(here.dir, "log", &n);
	const char *first = strstr(text, "dbwriter.takes_over");
	bool twice = first && strstr(first + 1, "dbwriter.takes_over");
	(void)arg;
	free(text);
	return twice;
}

START_TEST(a_log_that_others_have_stopped_landing_is_landed_each_time_it_stands_still)
{
	here.options.standby_ms = 200;
	landing_start(&here);
	for (unsigned round = 0; round < 2; round++) {
		landing_adding(here.folder[0], 1 + round, 1 + 10 * round, 10 + 10 * round, 1);
		landing_until_landed(&here, 1, 10 + 10 * round);
	}
	landing_until(&here, took_over_twice, NULL, "told that it took over twice");
}
END_TEST

int main(void)
{
	return landing_main(&here, "replay", NULL, NULL, after_a_migration_the_tables_are_read_anew,
			    a_log_that_others_have_stopped_landing_is_landed_each_time_it_stands_still,
			    every_record_of_every_log_lands_once, a_restart_goes_on_where_the_position_stands,
			    what_a_writer_appends_lands_while_it_writes, a_folder_that_comes_later_is_found,
			    any_text_is_the_same_in_the_database, two_dbwriters_land_nothing_twice,
			    statements_that_cannot_be_gathered_land_in_transactions_of_bounded_plans);
}
