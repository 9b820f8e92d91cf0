/* What dbwriter shows to a person: dbwriter/show.h. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "common/err.h"
#include "dbwriter/show.h"
#include "tests/support/folder.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

static struct env *env;
static char *dir, file[400];
static struct buf out;

static void setup(void)
{
	env = env_new();
	dir = folder_new();
	buf_init(&out);
	snprintf(file, sizeof file, "%s/00000001.sql", dir);
	records_file(dir, 1, 1, 3, 7);
}

static void teardown(void)
{
	buf_release(&out);
	folder_free(dir);
	env_free(env);
}

static void says(const char *words)
{
	ck_assert_msg(strstr(buf_cstr(&out), words), "said: %s", buf_cstr(&out));
}

START_TEST(a_dump_tells_who_changed_what_and_when)
{
	ck_assert_int_eq(show_dump(env, file, &out), 0);
	says("lsn 2  epoch 7  2023-11-14T22:13:20.000002Z  key role:1  trace 0\n    UPDATE role SET gold = 2 WHERE id = 1;\n");
}
END_TEST

START_TEST(a_sound_file_is_sound)
{
	ck_assert_int_eq(show_verify(env, file, &out), 0);
	says("3 sound records, lsn 1 to 3, ");
}
END_TEST

START_TEST(a_torn_or_damaged_file_is_not)
{
	size_t n;
	char *bytes = folder_read(dir, "00000001.sql", &n);
	folder_write(dir, "00000001.sql", bytes, n - 3);
	ck_assert_int_eq(show_verify(env, file, &out), 1);
	says("torn at offset ");
	says("2 sound records, lsn 1 to 2, ");
	buf_clear(&out);
	bytes[n / 2] ^= 1;
	folder_write(dir, "00000001.sql", bytes, n);
	ck_assert_int_eq(show_verify(env, file, &out), 1);
	says("DAMAGED at offset ");
	free(bytes);
}
END_TEST

/* Each record verifies, and dbwriter would stop there all the same. */
START_TEST(a_file_that_a_record_was_taken_out_of_is_not_sound)
{
	struct buf b = BUF_INIT;
	records_begin(&b);
	for (uint64_t lsn = 1; lsn <= 4; lsn++)
		if (lsn != 3)
			records_add(&b, (struct made){ lsn, 1, "role:1", "DELETE FROM bag WHERE role_id = 1;\n", 0 });
	folder_write(dir, "00000001.sql", b.data, b.len);
	buf_release(&b);
	ck_assert_int_eq(show_verify(env, file, &out), 1);
	says("00000001.sql: lsn 4 follows lsn 2 before offset ");
	says("records are missing");
}
END_TEST

START_TEST(a_foreign_file_is_no_torn_one)
{
	static const char text[] = "-- MariaDB dump 10.19\nDROP TABLE role;\n";
	folder_write(dir, "00000001.sql", text, sizeof text - 1);
	ck_assert_int_eq(show_verify(env, file, &out), 1);
	says("00000001.sql: no file of an SQL log at offset 0 (neither a record nor the first line of a file)");
	ck_assert_ptr_null(strstr(buf_cstr(&out), "torn"));
}
END_TEST

START_TEST(a_newer_versions_file_is_named_with_the_place)
{
	struct buf b = BUF_INIT;
	records_begin(&b);
	records_add_newer(&b, (struct made){ 1, 1, "role:1", "DELETE FROM bag WHERE role_id = 1;\n", 0 });
	folder_write(dir, "00000001.sql", b.data, b.len);
	buf_release(&b);
	ck_assert_int_eq(show_verify(env, file, &out), 1);
	says("00000001.sql: not for this version at offset 19: a newer version wrote it");
}
END_TEST

START_TEST(a_file_that_is_not_there_is_named)
{
	ck_assert_int_lt(show_verify(env, "/nosuch/00000001.sql", &out), 0);
	says("/nosuch/00000001.sql cannot be read");
}
END_TEST

START_TEST(the_status_tells_the_lag_of_every_log)
{
	char folder[300];
	struct show_position at[] = { { .instance = "role-1", .epoch = 7, .lsn = 2, .known = true } };
	snprintf(folder, sizeof folder, "%s/role-1", dir);
	mkdir(folder, 0755);
	records_file(folder, 1, 1, 30, 7);
	snprintf(folder, sizeof folder, "%s/role-2", dir);
	mkdir(folder, 0755);
	ck_assert_int_eq(show_status(env, dir, at, 1, &out), 1);
	says("role-1                         30            2         28\n");
	says("role-2                          0            0          0\n");
	buf_clear(&out);
	at[0].lsn = 30;
	ck_assert_int_eq(show_status(env, dir, at, 1, &out), 0);
	folder_write(dir, "quarantine.sql", "-- quarantine instance=role-1\n", 30);
	ck_assert_int_eq(show_status(env, dir, at, 1, &out), 1);
	says("1 records that the database refused are in ");
}
END_TEST

/* After a power cut a log uses numbers anew that had landed: what stands there then has not. */
START_TEST(a_log_in_a_later_epoch_than_what_has_landed_has_a_lag)
{
	char folder[300];
	struct show_position at[] = { { .instance = "role-1", .epoch = 7, .lsn = 30, .known = true } };
	snprintf(folder, sizeof folder, "%s/role-1", dir);
	mkdir(folder, 0755);
	records_file(folder, 1, 1, 20, 7);
	records_file(folder, 2, 21, 23, 8);
	ck_assert_int_eq(show_status(env, dir, at, 1, &out), 1);
	says("role-1                         23           30          1\n");
	folder_write(folder, "replayed", "lsn=30 epoch=7\n", 15);
	ck_assert_int_eq(show_status(env, dir, NULL, 0, &out), 1);
	at[0] = (struct show_position){ .instance = "role-1", .epoch = 8, .lsn = 23, .known = true };
	ck_assert_int_eq(show_status(env, dir, at, 1, &out), 0);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("show");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_dump_tells_who_changed_what_and_when);
	tcase_add_test(t, a_sound_file_is_sound);
	tcase_add_test(t, a_torn_or_damaged_file_is_not);
	tcase_add_test(t, a_file_that_a_record_was_taken_out_of_is_not_sound);
	tcase_add_test(t, a_foreign_file_is_no_torn_one);
	tcase_add_test(t, a_newer_versions_file_is_named_with_the_place);
	tcase_add_test(t, a_file_that_is_not_there_is_named);
	tcase_add_test(t, the_status_tells_the_lag_of_every_log);
	tcase_add_test(t, a_log_in_a_later_epoch_than_what_has_landed_has_a_lag);
	return suite_run("replay_show", t);
}
