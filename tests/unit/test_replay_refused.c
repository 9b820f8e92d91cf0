/* Records the database refuses for good: dbwriter/replay.h. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "dbwriter/restore.h"
#include "tests/support/folder.h"
#include "tests/support/landing.h"
#include "tests/support/records.h"

static struct landing here; /* its server is started once, before the tests fork */

/* Records 1 to 9; some of them are such as no database takes. */
static void with_refusals(void)
{
	static const char *const bad[] = {
		[3] = "INSERT INTO role (id, uid, name) VALUES (2, 'x', 'y');\n",
		[4] = "UPDATE role SET level = 99999999999 WHERE id = 1;\n",
		[7] = "UPDATE nosuch SET a = 1;\n",
		[9] = "UPDATE role SET gold = gold + 500 WHERE id = 1;\nUPDATE role SET nosuch = 1 WHERE id = 1;\n"
	};
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 9; lsn++)
		records_add(&b, (struct made){ .lsn = lsn,
					       .epoch = 1,
					       .keys = "role:1",
					       .statements =
						       bad[lsn] ? bad[lsn]
								: "UPDATE role SET gold = gold + 1 WHERE id = 1;\n" });
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
}

static bool four_are_kept(void *arg)
{
	(void)arg;
	return landing_now(&here).kept == 4;
}

START_TEST(what_the_database_refuses_for_good_is_kept_aside_and_the_rest_lands)
{
	size_t n;
	with_refusals();
	landing_start(&here);
	landing_until_landed(&here, 1, 9);
	ck_assert_int_eq(landing_gold(&here), 5); /* and of the ninth nothing, though its first statement was fine */
	ck_assert_uint_eq(landing_now(&here).quarantined, 4);
	landing_until(&here, four_are_kept, NULL, "told that somebody has to look");
	char *text = folder_read(here.dir, "quarantine.sql", &n);
	ck_assert(!strncmp(
		text,
		"SET NAMES utf8mb4;\n-- quarantine instance=role-1 epoch=1 lsn=3 file=00000001.sql error=1062 message=Duplicate entry",
		110));
	ck_assert(strstr(text, "lsn=4 file=00000001.sql error=1264"));
	ck_assert(strstr(text, "lsn=7 file=00000001.sql error=1146"));
	ck_assert(strstr(text, "lsn=9 file=00000001.sql error=1054"));
	ck_assert(strstr(text, "\nBEGIN;\nUPDATE nosuch SET a = 1;\nCOMMIT;\n"));
	ck_assert(!strstr(text, "gold + 1 "));
	free(text);
	landing_until_logged(&here, "error dbwriter-1 dbwriter.quarantined");
	landing_end(&here);
	landing_start(&here);
	landing_adding(here.folder[0], 2, 10, 10, 1);
	landing_until_landed(&here, 1, 10);
	ck_assert_int_eq(landing_gold(&here), 15);
	ck_assert_uint_eq(landing_now(&here).quarantined, 0);
}
END_TEST

/* Or a dbwriter that was killed when it had kept a record and its transaction was not committed. */
START_TEST(what_a_copy_of_the_database_has_before_it_lands_once)
{
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 20; lsn++)
		records_add(&b, (struct made){ .lsn = lsn,
					       .epoch = 1,
					       .keys = "role:1",
					       .statements = "UPDATE role SET gems = gems + 1 WHERE id = 1;\n" });
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	buf_clear(&b);
	sql_run(here.q, "ALTER TABLE role DROP COLUMN gems");
	landing_start(&here);
	landing_until_landed(&here, 1, 20);
	landing_end(&here);
	sql_run(here.q, "ALTER TABLE role ADD COLUMN gems BIGINT NOT NULL DEFAULT 0");
	sql_run(here.q, "UPDATE loquat_replay SET lsn = 12");
	landing_start(&here);
	landing_until_landed(&here, 1, 20);
	ck_assert_int_eq(sql_int(here.q, "SELECT gems FROM role WHERE id = 1"), 8);
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &b), 0);
	ck_assert_msg(strstr(buf_cstr(&b), "12 records landed, 0 stay") != NULL, "%s", buf_cstr(&b));
	ck_assert_int_eq(sql_int(here.q, "SELECT gems FROM role WHERE id = 1"), 20);
	buf_release(&b);
}
END_TEST

static bool is_kept(void *arg)
{
	(void)arg;
	return folder_size(here.dir, "quarantine.sql") > 0;
}

/* Its transaction is cut off behind that: the position's UPDATE takes its time, and its connection ends. */
START_TEST(a_record_that_was_kept_and_not_passed_over_is_kept_again)
{
	char text[200];
	int64_t id = 0;
	with_refusals();
	sql_run(here.q, "CREATE TRIGGER slow BEFORE UPDATE ON loquat_replay FOR EACH ROW SET NEW.file = "
			"IF(NEW.lsn = 3, SLEEP(1), NEW.file)");
	landing_start(&here);
	landing_until(&here, is_kept, NULL, "kept");
	do {
		snprintf(text, sizeof text,
			 "SELECT IFNULL(MIN(id), 0) FROM information_schema.processlist WHERE db = 'loquat'"
			 " AND id != CONNECTION_ID() AND id > %lld",
			 (long long)id);
		id = sql_int(here.q, text);
		snprintf(text, sizeof text, "KILL %lld", (long long)id);
		if (id)
			sql_run(here.q, text);
	} while (id);
	sql_run(here.q, "DROP TRIGGER slow");
	landing_until_landed(&here, 1, 9);
	landing_until(&here, four_are_kept, NULL, "each refused record is in the file once");
}
END_TEST

START_TEST(where_keys_are_held_later_records_of_a_refused_one_wait_with_it)
{
	static const struct {
		const char *keys, *statement;
	} made[] = { { "role:1", "UPDATE role SET gold = gold + 1 WHERE id = 1;\n" },
		     { "role:1,bag:1", "UPDATE role SET nosuch = 1 WHERE id = 1;\n" },
		     { "role:2", "UPDATE role SET gold = gold + 1 WHERE id = 2;\n" },
		     { "bag:1", "UPDATE role SET gold = gold + 100 WHERE id = 1;\n" },
		     { "role:12", "UPDATE role SET gold = gold + 1 WHERE id = 2;\n" },
		     { "role:1", "UPDATE role SET gold = gold + 100 WHERE id = 1;\n" } };
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t i = 0; i < 6; i++)
		records_add(&b,
			    (struct made){
				    .lsn = i + 1, .epoch = 1, .keys = made[i].keys, .statements = made[i].statement });
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	here.options.hold_keys = true;
	landing_start(&here);
	landing_until_landed(&here, 1, 6);
	ck_assert_int_eq(landing_gold(&here), 1);
	ck_assert_int_eq(sql_int(here.q, "SELECT gold FROM role WHERE id = 2"), 2);
	ck_assert_uint_eq(landing_now(&here).quarantined, 3);
	landing_end(&here);
	buf_clear(&b);
	records_begin(&b);
	for (uint64_t lsn = 7; lsn <= 9; lsn++) /* the held one between others, which are read with it */
		records_add(&b, (struct made){ .lsn = lsn,
					       .epoch = 1,
					       .keys = lsn == 8 ? "role:1" : "role:2",
					       .statements = made[lsn == 8 ? 0 : 2].statement });
	folder_write(here.folder[0], "00000002.sql", b.data, b.len);
	landing_start(&here); /* and it is known after a restart */
	landing_until_landed(&here, 1, 9);
	ck_assert_int_eq(landing_gold(&here), 1);
	ck_assert_int_eq(sql_int(here.q, "SELECT gold FROM role WHERE id = 2"), 4);
	buf_release(&b);
}
END_TEST

/* It has moved: its former owner's record was refused. */
START_TEST(a_held_key_waits_in_the_log_of_its_next_owner_too)
{
	static const struct made first = { 1, 1, "role:1", "UPDATE role SET nosuch = 1 WHERE id = 1;\n", 0 };
	static const struct made then[] = {
		{ 1, 1, "role:1", "UPDATE role SET gold = gold + 7 WHERE id = 1;\n", 0 },
		{ 2, 1, "role:2", "UPDATE role SET gold = gold + 5 WHERE id = 2;\n", 0 },
		{ 3, 1, "role:1", "UPDATE role SET gold = gold + 7 WHERE id = 1;\n", 0 },
	};
	const char *names[] = { "00000001.sql", "00000002.sql", "00000003.sql" };
	struct buf b = BUF_INIT;
	records_begin(&b);
	records_add(&b, first);
	folder_write(here.folder[0], names[0], b.data, b.len);
	here.options.hold_keys = true;
	landing_start(&here);
	landing_until_landed(&here, 1, 1);
	for (unsigned i = 0; i < 3; i++) {
		buf_clear(&b);
		records_begin(&b);
		records_add(&b, then[i]);
		folder_write(here.folder[1], names[i], b.data, b.len);
		landing_until_landed(&here, 2, i + 1);
		if (i == 1) { /* and it is known after a restart */
			landing_end(&here);
			landing_start(&here);
		}
	}
	ck_assert_int_eq(landing_gold(&here), 0);
	ck_assert_int_eq(sql_int(here.q, "SELECT gold FROM role WHERE id = 2"), 5);
	buf_release(&b);
}
END_TEST

/* While a key is held the others land as fast as ever: what is written over is not written. */
START_TEST(a_held_key_slows_nobody_down)
{
	char text[100];
	struct buf b = BUF_INIT;
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 1,
				       .epoch = 1,
				       .keys = "role:2",
				       .statements = "UPDATE role SET nosuch = 1 WHERE id = 2;\n" });
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	here.options.hold_keys = true;
	landing_start(&here);
	landing_until_landed(&here, 1, 1);
	buf_clear(&b);
	records_begin(&b);
	for (uint64_t lsn = 2; lsn <= 1001; lsn++) {
		snprintf(text, sizeof text, "UPDATE role SET gold = %d WHERE id = 1;\n", (int)lsn);
		records_add(&b, (struct made){ .lsn = lsn, .epoch = 1, .keys = "role:1", .statements = text });
	}
	folder_write(here.folder[0], "00000002.sql", b.data, b.len);
	landing_until_landed(&here, 1, 1001);
	ck_assert_uint_gt(landing_now(&here).folded, 500);
	buf_clear(&b);
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 1002,
				       .epoch = 1,
				       .keys = "role:2",
				       .statements = "UPDATE role SET gold = 5 WHERE id = 2;\n" });
	folder_write(here.folder[0], "00000003.sql", b.data, b.len);
	buf_release(&b);
	landing_until_landed(&here, 1, 1002);
	ck_assert_int_eq(landing_gold(&here), 1001);
	ck_assert_int_eq(sql_int(here.q, "SELECT gold FROM role WHERE id = 2"), 0);
	ck_assert_uint_eq(landing_now(&here).quarantined, 2);
}
END_TEST

START_TEST(one_bad_record_among_thousands_costs_a_few_transactions)
{
	char name[32] = "00000001.sql", text[100];
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 3000; lsn++) {
		snprintf(text, sizeof text, "UPDATE role SET %s = gold + 1 WHERE id = 1;\n",
			 lsn == 1777 ? "silver" : "gold");
		records_add(&b, (struct made){ .lsn = lsn, .epoch = 1, .keys = "role:1", .statements = text });
	}
	folder_write(here.folder[0], name, b.data, b.len);
	buf_release(&b);
	landing_start(&here);
	landing_until_landed(&here, 1, 3000);
	ck_assert_int_eq(landing_gold(&here), 2999);
	ck_assert_uint_eq(landing_now(&here).quarantined, 1);
	ck_assert_uint_le(landing_now(&here).transactions, 6);
}
END_TEST

int main(void)
{
	return landing_main(&here, "replay_refused", NULL, NULL,
			    what_the_database_refuses_for_good_is_kept_aside_and_the_rest_lands,
			    where_keys_are_held_later_records_of_a_refused_one_wait_with_it,
			    what_a_copy_of_the_database_has_before_it_lands_once,
			    a_record_that_was_kept_and_not_passed_over_is_kept_again,
			    a_held_key_waits_in_the_log_of_its_next_owner_too, a_held_key_slows_nobody_down,
			    one_bad_record_among_thousands_costs_a_few_transactions);
}
