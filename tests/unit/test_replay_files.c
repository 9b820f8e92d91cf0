/* What becomes of the files of a log that lands: damage, power cuts, removal: dbwriter/replay.h. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/support/folder.h"
#include "tests/support/landing.h"
#include "tests/support/records.h"

static struct landing here; /* its server is started once, before the tests fork */

START_TEST(a_damaged_log_stops_alone)
{
	size_t n;
	landing_adding(here.folder[0], 1, 1, 100, 1);
	landing_adding(here.folder[1], 1, 1, 100, 1);
	char *bytes = folder_read(here.folder[0], "00000001.sql", &n);
	bytes[n / 2] ^= 1;
	folder_write(here.folder[0], "00000001.sql", bytes, n);
	landing_start(&here);
	landing_until_landed(&here, 2, 100);
	landing_until_logged(&here, "dbwriter.stopped");
	ck_assert_uint_eq(landing_now(&here).stopped, 1);
	ck_assert_uint_gt(landing_now(&here).lag_records, 40);
	bytes[n / 2] ^= 1;
	folder_write(here.folder[0], "00000001.sql", bytes, n);
	landing_until_landed(&here, 1, 100);
	ck_assert_int_eq(landing_gold(&here), 2 * landing_sum_to(100));
	ck_assert_uint_eq(landing_now(&here).stopped, 0);
	free(bytes);
}
END_TEST

START_TEST(files_that_have_landed_and_are_old_enough_are_removed)
{
	landing_adding(here.folder[0], 1, 1, 10, 1);
	landing_adding(here.folder[0], 2, 11, 20, 1);
	landing_adding(here.folder[0], 3, 21, 25, 1);
	landing_adding(here.folder[0], 4, 26, 30, 1);
	here.options.keep_s = 0;
	landing_start(&here);
	landing_until_landed(&here, 1, 30);
	landing_until_logged(&here, "dbwriter.removed instance=role-1 file=00000002.sql why=old");
	ck_assert_int_eq(folder_size(here.folder[0], "00000001.sql"), -1);
	ck_assert_int_gt(folder_size(here.folder[0], "00000003.sql"), 0);
	ck_assert_int_gt(folder_size(here.folder[0], "00000004.sql"), 0);
	landing_end(&here);
	/* and the log goes on behind them */
	struct sqllog *l = records_open(here.env, here.folder[0]);
	ck_assert_uint_eq(records_append(l, "role:1", 1), 31);
	sqllog_close(l);
	landing_start(&here);
	landing_until_landed(&here, 1, 31);
}
END_TEST

START_TEST(on_a_disk_that_is_nearly_full_what_has_landed_is_removed_before_its_time)
{
	landing_adding(here.folder[0], 1, 1, 10, 1);
	landing_adding(here.folder[0], 2, 11, 20, 1);
	landing_adding(here.folder[0], 3, 21, 25, 1);
	landing_adding(here.folder[0], 4, 26, 30, 1);
	here.options.keep_s = 1000000;
	here.options.low_bytes = UINT64_MAX; /* any disk has less */
	landing_start(&here);
	landing_until_landed(&here, 1, 30);
	landing_until_logged(&here,
			     "dbwriter.removed instance=role-1 file=00000001.sql why=\"the disk is nearly full\"");
	ck_assert_int_gt(folder_size(here.folder[0], "00000003.sql"), 0);
	ck_assert_int_gt(folder_size(here.folder[0], "00000004.sql"), 0);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(30));
}
END_TEST

START_TEST(records_that_landed_and_were_lost_with_the_machine_are_no_hindrance)
{
	landing_adding(here.folder[0], 1, 1, 10, 7);
	landing_start(&here);
	landing_until_landed(&here, 1, 10);
	landing_end(&here);
	landing_adding(here.folder[0], 1, 1, 8, 7);
	landing_adding(here.folder[0], 2, 9, 12, 8);
	landing_start(&here);
	landing_until_landed(&here, 1, 12);
	ck_assert_int_eq(landing_gold(&here), landing_sum_to(10) + 9 + 10 + 11 + 12);
	landing_until_logged(&here, "dbwriter.forked");
}
END_TEST

static struct {
	_Atomic uint32_t file;
	_Atomic uint64_t landed;
} told;

static void on_damaged(void *arg, const char *instance, uint32_t file, struct position landed)
{
	ck_assert_ptr_eq(arg, &told);
	ck_assert_str_eq(instance, "role-1");
	told.landed = landed.lsn;
	told.file = file;
}

static bool stopped_is(void *arg)
{
	return landing_now(&here).stopped == *(unsigned *)arg;
}

/* Its host lands it: nobody reads the copy, and yet its keeper finds out. */
START_TEST(damage_in_a_copy_is_told_before_it_is_needed_and_its_end_too)
{
	size_t n;
	sql_run(here.q, "INSERT INTO loquat_replay VALUES ('role-1', 1, 3000, '00000001.sql', 0)");
	records_file(here.folder[0], 1, 1, 5000, 1);
	records_file(here.folder[0], 2, 5001, 6000, 1);
	records_file(here.folder[0], 3, 6001, 6100, 1);
	char *bytes = folder_read(here.folder[0], "00000002.sql", &n);
	strstr(bytes, "gold = 5500 ")[7] ^= 1;
	folder_write(here.folder[0], "00000002.sql", bytes, n);
	here.options.standby_ms = 3600000;
	here.options.on_damaged = on_damaged;
	here.options.on_damaged_arg = &told;
	landing_start(&here);
	landing_until_logged(&here, "dbwriter.copy_damaged");
	ck_assert_uint_eq(told.file, 2);
	ck_assert_uint_eq(told.landed, 3000);
	landing_until(&here, stopped_is, &(unsigned){ 1 }, "counted");
	records_file(here.folder[0], 2, 5001, 6000, 1);
	landing_until_logged(&here, "dbwriter.copy_whole");
	landing_until(&here, stopped_is, &(unsigned){ 0 }, "counted no more");
	ck_assert_int_eq(landing_gold(&here), 0); /* nothing of it landed here */
	free(bytes);
}
END_TEST

START_TEST(a_copy_is_not_whole_while_files_of_it_are_set_aside)
{
	char path[500];
	sql_run(here.q, "INSERT INTO loquat_replay VALUES ('role-1', 1, 3, '00000001.sql', 0)");
	records_file(here.folder[0], 1, 1, 5, 1);
	folder_write(here.folder[0], "00000009.sql.damaged", "x", 1);
	here.options.standby_ms = 3600000;
	landing_start(&here);
	landing_until_logged(&here, "set aside");
	landing_until(&here, stopped_is, &(unsigned){ 1 }, "counted");
	snprintf(path, sizeof path, "%s/00000009.sql.damaged", here.folder[0]);
	unlink(path);
	landing_until(&here, stopped_is, &(unsigned){ 0 }, "counted no more");
}
END_TEST

int main(void)
{
	return landing_main(&here, "replay_files", NULL, NULL, a_damaged_log_stops_alone,
			    files_that_have_landed_and_are_old_enough_are_removed,
			    on_a_disk_that_is_nearly_full_what_has_landed_is_removed_before_its_time,
			    records_that_landed_and_were_lost_with_the_machine_are_no_hindrance,
			    damage_in_a_copy_is_told_before_it_is_needed_and_its_end_too,
			    a_copy_is_not_whole_while_files_of_it_are_set_aside);
}
