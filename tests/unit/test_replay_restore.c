/* What a person does with SQL logs and a real MariaDB: the quarantine, restoring, history. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/err.h"
#include "dbwriter/history.h"
#include "dbwriter/merge.h"
#include "dbwriter/quarantine.h"
#include "dbwriter/restore.h"
#include "tests/support/folder.h"
#include "tests/support/landing.h"
#include "tests/support/records.h"

static struct landing here;
static struct buf out;
static const char *from[1];

static void setup(void)
{
	landing_setup(&here);
	from[0] = here.dir;
	buf_init(&out);
}

static void teardown(void)
{
	landing_teardown(&here);
	buf_release(&out);
}

static void says(const char *words)
{
	ck_assert_msg(strstr(buf_cstr(&out), words), "said: %s", buf_cstr(&out));
}

static void land_until(uint64_t records)
{
	struct replay_figures f = { 0 };
	landing_start(&here);
	for (int i = 0; i < 60000 && f.records < records; i++) {
		usleep(1000);
		replay_figures(here.replay, &f);
	}
	ck_assert_uint_eq(f.records, records);
	landing_end(&here);
}

/* Records of two roles in turn; those of role 1 use a column. */
static void with_gems(void)
{
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 40; lsn++)
		records_add(&b,
			    (struct made){ .lsn = lsn,
					   .epoch = 1,
					   .keys = lsn % 2 ? "role:1" : "role:2",
					   .statements = lsn % 2 ? "UPDATE role SET gems = gems + 1 WHERE id = 1;\n"
								 : "UPDATE role SET gold = gold + 1 WHERE id = 2;\n" });
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
}

START_TEST(a_dropped_column_stops_no_other_key_and_what_was_refused_lands_after_repair)
{
	size_t n;
	landing_tables(&here);
	with_gems();
	sql_run(here.q, "ALTER TABLE role DROP COLUMN gems");
	here.options.hold_keys = true;
	land_until(40);
	ck_assert_int_eq(sql_int(here.q, "SELECT gold FROM role WHERE id = 2"), 20);
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 1);
	says("error=1054");
	says("0 records landed, 20 stay");
	sql_run(here.q, "ALTER TABLE role ADD COLUMN gems BIGINT NOT NULL DEFAULT 0");
	char *kept = folder_read(here.dir, "quarantine.sql", &n);
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 0);
	says("20 records landed, 0 stay");
	ck_assert_int_eq(sql_int(here.q, "SELECT gems FROM role WHERE id = 1"), 20);
	ck_assert_int_eq(folder_size(here.dir, "quarantine.sql"), -1);
	/* as if it had been killed before it wrote the file: nothing lands twice */
	folder_write(here.dir, "quarantine.sql", kept, n);
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 0);
	ck_assert_int_eq(sql_int(here.q, "SELECT gems FROM role WHERE id = 1"), 20);
	free(kept);
}
END_TEST

/* Role 1's records up to 40 are in the quarantine, the column is back, and dbwriter goes on. */
static void start_with_a_held_key(void)
{
	landing_tables(&here);
	with_gems();
	sql_run(here.q, "ALTER TABLE role DROP COLUMN gems");
	here.options.hold_keys = true;
	landing_start(&here);
	landing_until_landed(&here, 1, 40);
	ck_assert_uint_eq(landing_now(&here).quarantined, 20);
	sql_run(here.q, "ALTER TABLE role ADD COLUMN gems BIGINT NOT NULL DEFAULT 0");
}

static void one_more_gem(void)
{
	struct buf b = BUF_INIT;
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 41,
				       .epoch = 1,
				       .keys = "role:1",
				       .statements = "UPDATE role SET gems = gems + 1 WHERE id = 1;\n" });
	folder_write(here.folder[0], "00000002.sql", b.data, b.len);
	buf_release(&b);
}

START_TEST(a_key_is_let_go_when_its_records_have_left_the_quarantine)
{
	start_with_a_held_key();
	landing_end(&here);
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 0);
	landing_start(&here);
	one_more_gem();
	landing_until_landed(&here, 1, 41);
	ck_assert_int_eq(sql_int(here.q, "SELECT gems FROM role WHERE id = 1"), 21);
	ck_assert_uint_eq(landing_now(&here).quarantined, 0);
}
END_TEST

START_TEST(a_key_that_is_always_in_use_is_let_go_too)
{
	start_with_a_held_key();
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 0);
	one_more_gem(); /* at once: were it held, its key would be for ever */
	landing_until_landed(&here, 1, 41);
	ck_assert_int_eq(sql_int(here.q, "SELECT gems FROM role WHERE id = 1"), 21);
	ck_assert_uint_eq(landing_now(&here).quarantined, 20);
}
END_TEST

/* As another log's refused record does, that is longer than what the command has taken out. */
static void add_of_another_log(void)
{
	static char body[20000];
	struct buf b = BUF_INIT;
	struct sqllog_record r;
	char path[ENV_PATH_MAX], why[80];
	const struct quarantine_note note = {
		.instance = "role-2", .file = 1, .code = 1054, .message = "no such column"
	};
	int n = snprintf(body, sizeof body, "UPDATE role SET name = '");
	memset(body + n, 'x', 15000);
	snprintf(body + n + 15000, 40, "' WHERE id = 2;\n");
	records_add(&b, (struct made){ .lsn = 1, .epoch = 1, .keys = "role:2", .statements = body });
	ck_assert_int_gt(sqllog_read(b.data, b.len, &r, why, sizeof why), 0);
	snprintf(path, sizeof path, "%s/quarantine.sql", here.dir);
	ck_assert_int_eq(quarantine_add(here.env, path, &note, &r), 0);
	buf_release(&b);
}

START_TEST(a_key_in_use_is_let_go_also_when_another_log_adds_to_the_quarantine)
{
	start_with_a_held_key();
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 0);
	add_of_another_log();
	one_more_gem();
	landing_until_landed(&here, 1, 41);
	ck_assert_int_eq(sql_int(here.q, "SELECT gems FROM role WHERE id = 1"), 21);
}
END_TEST

START_TEST(what_comes_while_a_command_works_on_the_quarantine_is_judged_after_it)
{
	struct quarantine q;
	char path[ENV_PATH_MAX], why[300];
	start_with_a_held_key();
	snprintf(path, sizeof path, "%s/quarantine.sql", here.dir);
	ck_assert_int_eq(quarantine_open(&q, here.env, path, why, sizeof why), 0);
	one_more_gem();
	landing_until_logged(&here, "dbwriter.quarantine instance=role-1 lsn=41");
	for (size_t i = 0; i < q.n; i++)
		q.entry[i].landed = true;
	ck_assert_int_eq(quarantine_rewrite(&q), 0);
	quarantine_close(&q);
	landing_until_landed(&here, 1, 41);
	ck_assert_int_eq(sql_int(here.q, "SELECT gems FROM role WHERE id = 1"), 1);
	ck_assert_uint_eq(landing_now(&here).quarantined, 20);
}
END_TEST

/* Two records of role 1 in the quarantine: the first is refused with this statement, the second has waited for it. */
static void quarantine_with(const char *refused)
{
	struct buf b = BUF_INIT;
	landing_tables(&here);
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 1, .epoch = 1, .keys = "role:1", .statements = refused });
	records_add(&b, (struct made){ .lsn = 2,
				       .epoch = 1,
				       .keys = "role:1",
				       .statements = "UPDATE role SET gold = gold + 1 WHERE id = 1;\n" });
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
	here.options.hold_keys = true;
	land_until(2);
}

START_TEST(what_waits_for_a_record_that_stays_refused_stays_with_it)
{
	quarantine_with("UPDATE role SET nosuch = 1 WHERE id = 1;\n");
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 1);
	says("0 records landed, 2 stay");
	ck_assert_int_eq(landing_gold(&here), 0);
}
END_TEST

START_TEST(a_row_that_is_there_already_is_not_taken_for_a_record_that_landed)
{
	quarantine_with("INSERT INTO role (id, uid, name) VALUES (2, 'x', 'y');\n");
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 1);
	says("error=1062");
	says("0 records landed, 2 stay");
	sql_run(here.q, "DELETE FROM role WHERE id = 2");
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), 0);
	says("2 records landed, 0 stay");
	ck_assert_int_eq(landing_gold(&here), 1);
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM role WHERE uid = 'x'"), 1);
}
END_TEST

START_TEST(a_quarantine_that_was_edited_is_refused)
{
	size_t n;
	landing_tables(&here);
	with_gems();
	sql_run(here.q, "ALTER TABLE role DROP COLUMN gems");
	land_until(40);
	char *kept = folder_read(here.dir, "quarantine.sql", &n);
	memcpy(strstr(kept, "gems + 1"), "gems + 9", 8);
	folder_write(here.dir, "quarantine.sql", kept, n);
	ck_assert_int_eq(restore_quarantine(here.env, here.dir, &here.options.db, &out), ERR_CORRUPT);
	says("the checksum does not match");
	free(kept);
}
END_TEST

/* Each instance's records follow one another by a second, beginning at second 0; the two change one row in turn. */
static void two_logs(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct buf b = BUF_INIT;
		records_begin(&b);
		for (uint64_t lsn = 1; lsn <= 1500; lsn++) {
			char text[200];
			snprintf(text, sizeof text,
				 lsn == 1 && !i ? "INSERT INTO role (id, uid, name) VALUES (1, 'a', 'Anna');\n"
						: "UPDATE role SET gold = gold + 1, exp = %llu WHERE id = 1;\n",
				 (unsigned long long)(2 * lsn + i));
			records_add(&b, (struct made){ .lsn = lsn,
						       .epoch = 3,
						       .keys = "role:1",
						       .statements = text,
						       .time_us = 1700000000000000 + lsn * 1000000 + i * 500000 });
		}
		folder_write(here.folder[i], "00000001.sql", b.data, b.len);
		buf_release(&b);
	}
}

START_TEST(logs_are_restored_as_of_a_moment)
{
	struct restore_options o = {
		.from = from, .from_n = 1, .until_us = UINT64_MAX, .schema = "deploy/schema", .db = here.options.db
	};
	two_logs();
	ck_assert(merge_time("2023-11-14T22:30:00Z", &o.until_us)); /* 1,000 s on */
	ck_assert_int_eq(restore_replay(here.env, &o, &out), 0);
	says("1999 records of 2 logs landed, 0 refused");
	ck_assert_int_eq(sql_int(here.q, "SELECT gold FROM role WHERE id = 1"), 1998);
	ck_assert_int_eq(sql_int(here.q, "SELECT exp FROM role WHERE id = 1"), 2000);
	ck_assert_int_eq(sql_int(here.q, "SELECT lsn FROM loquat_replay WHERE instance = 'role-1'"), 1000);
	ck_assert_int_eq(sql_int(here.q, "SELECT lsn FROM loquat_replay WHERE instance = 'role-2'"), 999);
	land_until(1001); /* and a dbwriter goes on from there */
	ck_assert_int_eq(sql_int(here.q, "SELECT gold FROM role WHERE id = 1"), 2999);
	ck_assert_int_eq(restore_replay(here.env, &o, &out), ERR_EXISTS);
	says("the database is not empty");
}
END_TEST

/* Else `loquat up` would apply it once more on what was restored, and fail where a column is there already. */
START_TEST(the_schema_that_is_applied_is_noted_as_such)
{
	size_t n;
	static const char vip[] = "ALTER TABLE role ADD COLUMN vip INT NOT NULL DEFAULT 0;\n";
	char *dir = folder_new(), *base = folder_read("deploy/schema", "001-base.sql", &n);
	struct restore_options o = {
		.from = from, .from_n = 1, .until_us = UINT64_MAX, .schema = dir, .db = here.options.db
	};
	folder_write(dir, "001-base.sql", base, n);
	folder_write(dir, "500-vip.sql", vip, sizeof vip - 1);
	folder_write(dir, "README", "no SQL", 6);
	records_file(here.folder[0], 1, 1, 2, 1);
	ck_assert_msg(restore_replay(here.env, &o, &out) == 0, "%s", buf_cstr(&out));
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_schema WHERE (version = 1 AND name = "
					 "'001-base.sql') OR (version = 500 AND name = '500-vip.sql')"),
			 2);
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_schema WHERE CHAR_LENGTH(checksum) = 8"), 2);
	folder_free(dir);
	free(base);
}
END_TEST

START_TEST(a_log_with_records_missing_is_not_restored)
{
	struct restore_options o = {
		.from = from, .from_n = 1, .until_us = UINT64_MAX, .schema = "deploy/schema", .db = here.options.db
	};
	records_file(here.folder[0], 2, 11, 20, 1);
	ck_assert_int_eq(restore_replay(here.env, &o, &out), ERR_CORRUPT);
	says("records before lsn 11 are missing");
	o.from_n = 0;
	ck_assert_int_eq(restore_replay(here.env, &o, &out), ERR_NOT_FOUND);
}
END_TEST

START_TEST(a_damaged_log_is_not_restored_in_part)
{
	size_t n;
	struct restore_options o = {
		.from = from, .from_n = 1, .until_us = UINT64_MAX, .schema = "deploy/schema", .db = here.options.db
	};
	records_file(here.folder[0], 1, 1, 20, 1);
	char *bytes = folder_read(here.folder[0], "00000001.sql", &n);
	strstr(bytes, "gold = 7 ")[7] ^= 1;
	folder_write(here.folder[0], "00000001.sql", bytes, n);
	ck_assert_int_eq(restore_replay(here.env, &o, &out), ERR_CORRUPT);
	says("00000001.sql is damaged at offset");
	free(bytes);
}
END_TEST

/* Records 8 to 10 stand there twice, as after a sync that failed; each adds its number. */
START_TEST(what_stands_in_a_log_twice_is_restored_once_and_the_position_names_its_file)
{
	struct restore_options o = {
		.from = from, .from_n = 1, .until_us = UINT64_MAX, .schema = "deploy/schema", .db = here.options.db
	};
	landing_tables(&here);
	sql_run(here.q, "DELETE FROM role");
	landing_adding(here.folder[0], 1, 2, 10, 1);
	landing_adding(here.folder[0], 2, 8, 12, 1);
	char *rest = folder_read(here.folder[0], "00000001.sql", &(size_t){ 0 });
	struct buf b = BUF_INIT;
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 1,
				       .epoch = 1,
				       .keys = "role:1",
				       .statements = "INSERT INTO role (id, uid, name) VALUES (1, 'a', 'Anna');\n" });
	buf_addstr(&b, strchr(rest, '\n') + 1);
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	ck_assert_int_eq(restore_replay(here.env, &o, &out), 0);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(12) - 1);
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM loquat_replay WHERE lsn = 12 AND file = '00000002.sql'"),
			 1);
	buf_release(&b);
	free(rest);
}
END_TEST

START_TEST(records_are_refused_wherever_they_stand_and_all_others_restored)
{
	struct restore_options o = {
		.from = from, .from_n = 1, .until_us = UINT64_MAX, .schema = "deploy/schema", .db = here.options.db
	};
	struct buf b = BUF_INIT;
	char text[100];
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 2500; lsn++) { /* 1,000 go at a time */
		snprintf(text, sizeof text, "%s INTO bag (role_id, item, count) VALUES (1, %u, 2);\n",
			 lsn == 7 || lsn == 1500 ? "INSERT" : "REPLACE", lsn == 7 || lsn == 1500 ? 1 : (unsigned)lsn);
		records_add(&b, (struct made){ .lsn = lsn, .epoch = 1, .keys = "bag:1", .statements = text });
	}
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
	ck_assert_int_eq(restore_replay(here.env, &o, &out), 1);
	says("lsn=7 error=1062");
	says("lsn=1500 error=1062");
	says("2498 records of 1 log landed, 2 refused");
	ck_assert_int_eq(sql_int(here.q, "SELECT COUNT(*) FROM bag"), 2498);
}
END_TEST

/* Each record adds its number to what role 1 has of item 1. */
static void collecting(unsigned number, uint64_t first, uint64_t last)
{
	struct buf b = BUF_INIT;
	char text[160], name[32];
	records_begin(&b);
	for (uint64_t lsn = first; lsn <= last; lsn++) {
		snprintf(text, sizeof text,
			 "INSERT INTO bag (role_id, item, count) VALUES (1, 1, %u) ON DUPLICATE KEY UPDATE count = "
			 "count + %u;\n",
			 (unsigned)lsn, (unsigned)lsn);
		records_add(&b, (struct made){ .lsn = lsn, .epoch = number, .keys = "bag:1", .statements = text });
	}
	snprintf(name, sizeof name, "%08u.sql", number);
	folder_write(here.folder[0], name, b.data, b.len);
	buf_release(&b);
}

static int collected(const struct restore_options *o)
{
	buf_clear(&out);
	int result = restore_replay(here.env, o, &out);
	ck_assert_msg(result == 0, "%d: %s", result, buf_cstr(&out));
	int64_t count = sql_int(here.q, "SELECT count FROM bag");
	sql_run(here.q, "DELETE FROM bag");
	sql_run(here.q, "DELETE FROM loquat_replay");
	return (int)count;
}

START_TEST(a_log_that_is_named_twice_is_restored_once)
{
	char path[3][420];
	const char *twice[] = { here.dir, here.folder[0] };
	const char *files[] = { path[2], path[0], path[1], path[2] };
	struct restore_options o = {
		.from = twice, .from_n = 2, .until_us = UINT64_MAX, .schema = "deploy/schema", .db = here.options.db
	};
	landing_tables(&here);
	sql_run(here.q, "DELETE FROM role");
	collecting(1, 1, 10);
	collecting(2, 11, 12);
	collecting(3, 13, 15);
	for (int i = 0; i < 3; i++)
		snprintf(path[i], sizeof path[i], "%s/%08d.sql", here.folder[0], i + 1);
	ck_assert_int_eq(collected(&o), landing_sum_to(15));
	o.from = files;
	o.from_n = 4;
	ck_assert_int_eq(collected(&o), landing_sum_to(15));
	files[1] = path[2]; /* a file may begin anywhere */
	ck_assert_int_eq(collected(&o), landing_sum_to(15) - landing_sum_to(10));
	files[1] = files[2] = path[0]; /* but none is left out in between */
	ck_assert_int_eq(restore_replay(here.env, &o, &out), ERR_CORRUPT);
	says("role-1: records before lsn 13 are missing");
}
END_TEST

START_TEST(what_is_no_log_of_ours_is_refused_and_never_left_out)
{
	static const char *const wrong[] = { "role-1/.", "role-1/quarantine.sql", "role-1/1.sql" };
	static const char foreign[] = "-- MariaDB dump 10.19\nDROP TABLE role;\n";
	struct buf b = BUF_INIT;
	char path[420];
	const char *one[] = { path };
	struct restore_options o = {
		.from = from, .from_n = 1, .until_us = UINT64_MAX, .schema = "deploy/schema", .db = here.options.db
	};
	landing_adding(here.folder[0], 1, 1, 3, 1);
	records_begin(&b);
	records_add_newer(&b, (struct made){ 4, 1, "role:1", "DELETE FROM bag WHERE role_id = 1;\n", 0 });
	folder_write(here.folder[0], "00000002.sql", b.data, b.len);
	buf_release(&b);
	ck_assert_int_eq(restore_replay(here.env, &o, &out), ERR_NEWER);
	says("role-1/00000002.sql: offset 19: a newer version wrote it: this program is too old");
	folder_write(here.folder[0], "00000002.sql", foreign, sizeof foreign - 1);
	ck_assert_int_eq(restore_replay(here.env, &o, &out), ERR_CORRUPT);
	says("role-1/00000002.sql is no file of a log (");
	o.from = one;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		snprintf(path, sizeof path, "%s/%s", here.dir, wrong[i]);
		buf_clear(&out);
		ck_assert_int_eq(restore_replay(here.env, &o, &out), ERR_BAD_REQUEST);
		says(i ? "no name of a log's file: NNNNNNNN.sql" : "name it by the instance's own folder");
	}
}
END_TEST

START_TEST(what_was_refused_is_told_and_the_rest_is_restored)
{
	static const char file[] = "00000001.sql";
	char path[420];
	const char *one[] = { path };
	struct buf b = BUF_INIT;
	struct restore_options o = {
		.from = one, .from_n = 1, .until_us = UINT64_MAX, .schema = "deploy/schema", .db = here.options.db
	};
	snprintf(path, sizeof path, "%s/%s", here.folder[0], file);
	records_begin(&b);
	for (uint64_t lsn = 5; lsn <= 9; lsn++) /* a file alone may begin anywhere */
		records_add(&b,
			    (struct made){
				    .lsn = lsn,
				    .epoch = 1,
				    .keys = "word:1",
				    .statements =
					    lsn == 7 ? "UPDATE nothing SET a = 1;\n"
						     : "REPLACE INTO bag (role_id, item, count) VALUES (1, 1, 2);\n" });
	folder_write(here.folder[0], file, b.data, b.len);
	buf_release(&b);
	ck_assert_int_eq(restore_replay(here.env, &o, &out), 1);
	says("refused: instance=role-1 epoch=1 lsn=7 error=1146");
	says("4 records of 1 log landed, 1 refused");
}
END_TEST

static void add(void *arg, const char *text, size_t bytes)
{
	buf_add(arg, text, bytes);
}

START_TEST(the_history_of_a_key_is_every_change_of_it_in_order)
{
	char why[300];
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 6; lsn++)
		records_add(&b, (struct made){ .lsn = lsn,
					       .epoch = 1,
					       .keys = lsn % 2 ? "role:4,bag:4" : "role:42",
					       .statements = "-- request=role.shopHandler.buy\n"
							     "UPDATE role SET gold = 1 WHERE id = 4;\n" });
	folder_write(here.folder[0], "00000001.sql", b.data, b.len);
	buf_release(&b);
	ck_assert_int_eq(history_each(here.env, from, 1, "bag:4", add, &out, why, sizeof why), 3);
	const char *text = buf_cstr(&out);
	ck_assert_msg(
		strstr(text,
		       "2023-11-14T22:13:20.000003Z  role-1  lsn 3  epoch 1  key role:4,bag:4  trace 0  request role.shopHandler.buy\n    UPDATE role SET gold = 1 WHERE id = 4;\n"),
		"%s", text);
	ck_assert(strstr(text, "lsn 1 ") < strstr(text, "lsn 3 ") && strstr(text, "lsn 3 ") < strstr(text, "lsn 5 "));
	ck_assert(!strstr(text, "role:42"));
	ck_assert_int_eq(history_each(here.env, from, 1, "role:5", add, &out, why, sizeof why), 0);
	ck_assert_int_lt(history_each(here.env, from, 1, "", add, &out, why, sizeof why), 0);
	records_file(here.folder[1], 2, 11, 12, 1); /* of a log whose first file is too old to be there */
	buf_clear(&out);
	ck_assert_int_eq(history_each(here.env, from, 1, "role:1", add, &out, why, sizeof why), 2);
	says("-- role-2: records before lsn 11 are not kept any more\n");
}
END_TEST

START_TEST(moments_are_read_in_two_ways)
{
	uint64_t us = 0;
	ck_assert(merge_time("1970-01-01T00:00:01.25Z", &us));
	ck_assert_uint_eq(us, 1250000);
	ck_assert(merge_time("17", &us));
	ck_assert_uint_eq(us, 17);
	ck_assert(!merge_time("yesterday", &us));
	ck_assert(!merge_time("2023-11-14T22:30:00+01:00", &us));
	ck_assert(!merge_time("2023-02-29T00:00:00Z", &us));
	ck_assert(!merge_time("1969-12-31T23:59:59Z", &us));
	ck_assert(!merge_time("-5", &us));
	ck_assert(!merge_time(" 17", &us));
	ck_assert(!merge_time("99999999999999999999", &us));
	ck_assert_uint_eq(us, 17);
}
END_TEST

int main(void)
{
	return landing_main(&here, "replay_restore", setup, teardown,
			    a_dropped_column_stops_no_other_key_and_what_was_refused_lands_after_repair,
			    a_key_is_let_go_when_its_records_have_left_the_quarantine,
			    a_key_that_is_always_in_use_is_let_go_too,
			    a_key_in_use_is_let_go_also_when_another_log_adds_to_the_quarantine,
			    what_comes_while_a_command_works_on_the_quarantine_is_judged_after_it,
			    what_waits_for_a_record_that_stays_refused_stays_with_it,
			    a_row_that_is_there_already_is_not_taken_for_a_record_that_landed,
			    what_stands_in_a_log_twice_is_restored_once_and_the_position_names_its_file,
			    records_are_refused_wherever_they_stand_and_all_others_restored,
			    a_damaged_log_is_not_restored_in_part, a_quarantine_that_was_edited_is_refused,
			    logs_are_restored_as_of_a_moment, the_schema_that_is_applied_is_noted_as_such,
			    a_log_with_records_missing_is_not_restored, a_log_that_is_named_twice_is_restored_once,
			    what_is_no_log_of_ours_is_refused_and_never_left_out,
			    what_was_refused_is_told_and_the_rest_is_restored,
			    the_history_of_a_key_is_every_change_of_it_in_order, moments_are_read_in_two_ways);
}
