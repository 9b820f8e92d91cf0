/* Opening an SQL log after whatever happened to it: common/sqllog.h. */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "tests/support/folder.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

static struct env *env;
static char *dir;
static struct sqllog *l;
static char error[400];

static void setup(void)
{
	env = env_new();
	dir = folder_new();
	l = NULL;
	error[0] = '\0';
}

static void teardown(void)
{
	sqllog_close(l);
	folder_free(dir);
	env_free(env);
}

static int open_log(void)
{
	struct sqllog_options o = { .folder = dir, .workers = 1 };
	strcpy(error, "what was said before");
	return sqllog_open(env, NULL, NULL, &o, error, sizeof error, &l);
}

static void refused(int err, const char *words)
{
	ck_assert_int_eq(open_log(), err);
	ck_assert_msg(strstr(error, words), "said: %s", error);
}

static void damaged(const char *words)
{
	refused(ERR_CORRUPT, words);
}

static void goes_on_behind(uint64_t lsn)
{
	ck_assert_msg(!open_log(), "said: %s", error);
	ck_assert_uint_eq(sqllog_lsn(l), lsn);
	ck_assert_uint_eq(sqllog_written_lsn(l), lsn);
	ck_assert_uint_eq(sqllog_durable_lsn(l), lsn);
	ck_assert_uint_eq(records_append(l, "role:9", 1), lsn + 1);
	sqllog_close(l);
	l = NULL;
}

static char *whole_file(uint64_t records, size_t *n)
{
	records_file(dir, 1, 1, records, 1);
	return folder_read(dir, "00000001.sql", n);
}

static void expect_files(const char *want)
{
	char *text = records_read(env, dir);
	ck_assert_str_eq(text, want);
	free(text);
}

static void forget(void)
{
	folder_free(dir);
	dir = folder_new();
}

START_TEST(a_last_record_torn_at_any_byte_is_cut_and_the_others_stay)
{
	size_t n, two;
	char *bytes = whole_file(2, &two);
	free(bytes);
	bytes = whole_file(3, &n);
	for (size_t cut = two; cut < n; cut++) {
		forget();
		folder_write(dir, "00000001.sql", bytes, cut);
		goes_on_behind(2);
		expect_files("1-1\n2-3\n");
		ck_assert_int_eq(folder_size(dir, "00000001.cut"), cut == two ? -1 : (long)(cut - two));
	}
	free(bytes);
}
END_TEST

START_TEST(a_file_torn_in_its_first_record_or_first_line_begins_anew)
{
	size_t n;
	char *bytes = whole_file(1, &n);
	for (size_t cut = 0; cut < n; cut++) {
		forget();
		folder_write(dir, "00000001.sql", bytes, cut);
		goes_on_behind(0);
		expect_files("\n1-1\n");
	}
	free(bytes);
}
END_TEST

START_TEST(a_tail_of_zeroes_or_of_garbage_is_cut)
{
	size_t n;
	char *bytes = whole_file(2, &n), tail[9000];
	for (int fill = 0; fill < 2; fill++) {
		struct buf b = BUF_INIT;
		memset(tail, fill ? 'x' : 0, sizeof tail);
		forget();
		buf_add(&b, bytes, n);
		buf_add(&b, tail, sizeof tail);
		folder_write(dir, "00000001.sql", b.data, b.len);
		buf_release(&b);
		goes_on_behind(2);
		expect_files("1-1\n2-3\n");
	}
	free(bytes);
}
END_TEST

START_TEST(a_flipped_bit_with_records_behind_it_is_damage_named_with_its_place)
{
	size_t n, two;
	char *bytes = whole_file(2, &two);
	free(bytes);
	bytes = whole_file(3, &n);
	for (size_t at = 0; at < two; at++) {
		bytes[at] ^= 0x10;
		folder_write(dir, "00000001.sql", bytes, n);
		damaged("/00000001.sql: damaged at offset ");
		bytes[at] ^= 0x10;
	}
	folder_write(dir, "00000001.sql", bytes, n);
	goes_on_behind(3);
	free(bytes);
}
END_TEST

START_TEST(damage_far_before_the_next_sound_record_is_still_damage)
{
	struct buf b = BUF_INIT;
	char *garbage = malloc(3 << 20);
	memset(garbage, 'x', 3 << 20);
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 1, .epoch = 1, .keys = "a", .statements = "DELETE FROM bag;\n" });
	buf_add(&b, garbage, 3 << 20);
	records_add(&b, (struct made){ .lsn = 2, .epoch = 1, .keys = "a", .statements = "DELETE FROM bag;\n" });
	folder_write(dir, "00000001.sql", b.data, b.len);
	damaged("whole records behind it");
	free(garbage);
	buf_release(&b);
}
END_TEST

/* Records 1 to 3, then a batch of 4 to 40 with one time, of which some bytes were never written. */
static void batch_with_a_hole(size_t skip, size_t hole, char fill)
{
	struct buf b = BUF_INIT;
	records_begin(&b);
	size_t batch = 0;
	for (uint64_t lsn = 1; lsn <= 40; lsn++) {
		if (lsn == 4)
			batch = b.len;
		records_add(&b, (struct made){ .lsn = lsn,
					       .epoch = 1,
					       .keys = "role:1",
					       .statements = "DELETE FROM bag;\n",
					       .time_us = 1700000000000000 + (lsn < 4 ? lsn : 4) });
	}
	memset(b.data + batch + skip, fill, hole);
	folder_write(dir, "00000001.sql", b.data, b.len);
	buf_release(&b);
}

START_TEST(after_a_power_cut_a_last_batch_with_holes_is_torn)
{
	for (size_t skip = 0; skip < 1200; skip += 100) {
		forget();
		batch_with_a_hole(skip, 512, 0);
		ck_assert_msg(!open_log(), "said: %s", error);
		ck_assert_uint_ge(sqllog_lsn(l), 3);
		ck_assert_uint_lt(sqllog_lsn(l), 3 + skip / 100 + 1);
		sqllog_close(l);
		l = NULL;
	}
}
END_TEST

START_TEST(a_hole_is_damage_when_the_machine_has_not_died_since)
{
	ck_assert_int_eq(open_log(), 0); /* notes which run of the machine this is */
	sqllog_close(l);
	l = NULL;
	batch_with_a_hole(700, 512, 0);
	damaged("whole records behind it");
}
END_TEST

START_TEST(a_hole_before_an_earlier_batch_or_bytes_that_are_none_are_damage)
{
	batch_with_a_hole(700, 511, 0);
	damaged("whole records behind it");
	batch_with_a_hole(700, 512, 'x');
	damaged("whole records behind it");
	records_file(dir, 1, 1, 40, 1);
	size_t n;
	char *bytes = folder_read(dir, "00000001.sql", &n);
	memset(bytes + 1000, 0, 600);
	folder_write(dir, "00000001.sql", bytes, n);
	damaged("whole records behind it");
	free(bytes);
}
END_TEST

static void forget_files(const char *name)
{
	char path[400];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	ck_assert_int_eq(remove(path), 0);
}

START_TEST(the_last_batch_of_a_log_that_was_not_stopped_in_order_is_written_anew_and_stands_once)
{
	records_file(dir, 1, 1, 3, 1);
	goes_on_behind(3);
	expect_files("1-2\n3-4\n");
	goes_on_behind(4); /* now it was */
	expect_files("1-2\n3-4\n5-5\n");
}
END_TEST

START_TEST(that_a_log_was_stopped_in_order_once_says_nothing_of_what_came_later)
{
	goes_on_behind(0);
	forget_files("00000001.sql"); /* so nothing is found, and the note of the stop stays */
	folder_write(dir, "replayed", "lsn=1 epoch=1\n", 14);
	ck_assert_int_eq(open_log(), 0);
	sqllog_close(l);
	l = NULL;
	ck_assert_int_gt(folder_size(dir, "clean"), 0);
	records_file(dir, 1, 2, 4, 1);
	goes_on_behind(4);
	expect_files("2-3\n4-5\n");
}
END_TEST

/* Records first to last, of which those from 3 on are one batch. */
static void file_of_the_batch(unsigned number, uint64_t first, uint64_t last)
{
	struct buf b = BUF_INIT;
	char name[32];
	records_begin(&b);
	for (uint64_t lsn = first; lsn <= last; lsn++)
		records_add(&b, (struct made){ .lsn = lsn,
					       .epoch = 1,
					       .keys = "role:1",
					       .statements = "DELETE FROM bag;\n",
					       .time_us = 1700000000000000 + (lsn < 3 ? lsn : 3) });
	snprintf(name, sizeof name, "%08u.sql", number);
	folder_write(dir, name, b.data, b.len);
	buf_release(&b);
}

START_TEST(a_batch_that_stands_in_several_files_after_failed_syncs_stands_in_one_in_the_end)
{
	file_of_the_batch(1, 1, 5);
	file_of_the_batch(2, 3, 4); /* was written in part */
	file_of_the_batch(3, 3, 5);
	goes_on_behind(5);
	expect_files("1-2\n3-6\n");
}
END_TEST

/* Its process died while it tried: what stands longest may have landed, and decides. */
START_TEST(of_a_batch_that_was_tried_often_the_longest_copy_counts_wherever_reading_begins)
{
	for (int landed = 0; landed < 3; landed++) {
		char hint[32];
		forget();
		file_of_the_batch(1, 1, 5);
		for (unsigned number = 2; number <= 12; number++)
			file_of_the_batch(number, 3, 3);
		snprintf(hint, sizeof hint, "lsn=%d epoch=1\n", landed);
		if (landed)
			folder_write(dir, "replayed", hint, strlen(hint));
		goes_on_behind(5);
		goes_on_behind(6);
	}
}
END_TEST

START_TEST(damage_in_an_earlier_file_is_damage)
{
	size_t n;
	records_file(dir, 2, 6, 9, 1);
	char *bytes = whole_file(5, &n);
	folder_write(dir, "00000001.sql", bytes, n - 3);
	damaged("/00000001.sql: damaged at offset ");
	free(bytes);
}
END_TEST

START_TEST(a_torn_file_that_was_written_anew_in_the_next_is_no_damage)
{
	size_t n;
	char *bytes = whole_file(5, &n);
	folder_write(dir, "00000001.sql", bytes, n - 3);
	records_file(dir, 2, 4, 9, 1); /* 4 and 5 again: their sync had failed */
	goes_on_behind(9);
	expect_files("1-4!\n4-8\n9-10\n");
	free(bytes);
}
END_TEST

START_TEST(a_torn_file_before_one_without_records_is_a_torn_tail)
{
	size_t n;
	char *bytes = whole_file(5, &n);
	folder_write(dir, "00000001.sql", bytes, n - 3);
	folder_write(dir, "00000002.sql", "SET NAM", 7);
	folder_write(dir, "00000003.sql", "", 0);
	goes_on_behind(4);
	expect_files("1-3\n\n\n4-5\n");
	free(bytes);
}
END_TEST

START_TEST(a_missing_number_is_damage)
{
	records_file(dir, 1, 1, 5, 1);
	records_file(dir, 2, 7, 9, 1);
	damaged("lsn 7 follows lsn 5");
}
END_TEST

START_TEST(an_older_epoch_behind_a_newer_one_is_damage)
{
	records_file(dir, 1, 1, 5, 4);
	records_file(dir, 2, 6, 9, 3);
	damaged("epoch 3 follows epoch 4");
}
END_TEST

START_TEST(the_epoch_follows_the_records_where_its_file_is_lost)
{
	records_file(dir, 1, 1, 5, 41);
	ck_assert_int_eq(open_log(), 0);
	ck_assert_uint_eq(sqllog_epoch(l), 42);
}
END_TEST

static uint64_t epoch_given(void)
{
	ck_assert_msg(!open_log(), "said: %s", error);
	uint64_t epoch = sqllog_epoch(l);
	sqllog_close(l);
	l = NULL;
	return epoch;
}

START_TEST(the_epoch_is_above_both_the_records_and_what_was_noted)
{
	records_file(dir, 1, 1, 5, 41);
	for (uint64_t i = 0; i < 3; i++) /* none of these starts writes a record */
		ck_assert_uint_eq(epoch_given(), 42 + i);
	folder_write(dir, "epoch", "epoch=3 lsn=0 boot=\n", 20);
	ck_assert_uint_eq(epoch_given(), 42);
}
END_TEST

START_TEST(an_epoch_that_cannot_be_noted_is_given_to_nobody)
{
	struct rlimit was, full;
	folder_write(dir, "epoch", "epoch=3 lsn=0 boot=\n", 20);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &was), 0);
	full = was;
	full.rlim_cur = 0;
	setrlimit(RLIMIT_FSIZE, &full);
	int err = open_log();
	setrlimit(RLIMIT_FSIZE, &was);
	ck_assert_int_lt(err, 0);
	ck_assert_msg(strstr(error, "/epoch: "), "said: %s", error);
	ck_assert_uint_eq(epoch_given(), 4);
}
END_TEST

START_TEST(an_epoch_that_cannot_be_read_is_not_taken_for_none)
{
	static char long_text[20000];
	memset(long_text, 'x', sizeof long_text);
	folder_write(dir, "epoch", long_text, sizeof long_text);
	ck_assert_int_lt(open_log(), 0);
	ck_assert_msg(strstr(error, "/epoch: "), "said: %s", error);
	ck_assert_int_eq(folder_size(dir, "epoch"), sizeof long_text);
}
END_TEST

START_TEST(of_the_starts_the_last_ones_are_remembered_however_many_there_were)
{
	struct buf b = BUF_INIT;
	for (unsigned i = 1; b.len < 12000; i++)
		buf_addf(&b, "epoch=%u lsn=0 boot=01234567-89ab-cdef-0123-456789abcdef\n", i);
	folder_write(dir, "epoch", b.data, b.len);
	uint64_t epoch = epoch_given();
	ck_assert_uint_gt(epoch, 190);
	for (uint64_t i = 1; i < 9; i++) {
		ck_assert_int_lt(folder_size(dir, "epoch"), 8192 + 100);
		ck_assert_uint_eq(epoch_given(), epoch + i);
	}
	ck_assert(sqllog_began(env, dir, epoch, 1));
	ck_assert(sqllog_began(env, dir, epoch - 90, 1));
	buf_release(&b);
}
END_TEST

START_TEST(records_that_are_gone_since_the_last_opening_are_noticed)
{
	records_file(dir, 1, 1, 5, 1);
	goes_on_behind(5);
	goes_on_behind(6);
	records_file(dir, 1, 1, 2, 1);
	remove(strcat(strcpy(error, dir), "/00000002.sql"));
	remove(strcat(strcpy(error, dir), "/00000003.sql"));
	damaged("reached lsn 6 before and ends at 2 now");
}
END_TEST

START_TEST(what_has_landed_is_not_read_again_and_may_be_gone)
{
	records_file(dir, 2, 3, 5, 1);
	records_file(dir, 3, 6, 9, 2);
	records_file(dir, 4, 10, 12, 3);
	folder_write(dir, "00000001.sql", "garbage nobody needs", 20);
	folder_write(dir, "replayed", "lsn=8 epoch=2\n", 14);
	ck_assert_msg(!open_log(), "said: %s", error);
	ck_assert_uint_eq(sqllog_lsn(l), 12);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:1"), 12);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:2"), 8); /* not known before the position was seen */
	sqllog_replayed(l, 3, 8);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:2"), 0);
	ck_assert_uint_eq(sqllog_key_lsn(l, "role:1"), 12);
}
END_TEST

START_TEST(a_log_that_has_landed_and_was_removed_goes_on_behind_it)
{
	uint64_t epoch, lsn;
	folder_write(dir, "replayed", "lsn=800 epoch=7\n", 16);
	ck_assert_int_eq(open_log(), 0);
	sqllog_position(l, &epoch, &lsn);
	ck_assert_uint_eq(epoch, 7);
	ck_assert_uint_eq(lsn, 800);
	sqllog_close(l);
	goes_on_behind(800);
	expect_files("801-801\n");
}
END_TEST

START_TEST(what_had_landed_and_was_lost_here_with_the_machine_is_not_missed)
{
	records_file(dir, 1, 1, 5, 1);
	folder_write(dir, "epoch", "epoch=1 lsn=0 boot=a\nepoch=2 lsn=9 boot=b\n", 42);
	damaged("reached lsn 9 before and ends at 5 now");
	folder_write(dir, "replayed", "lsn=12 epoch=2\n", 15);
	goes_on_behind(5);
}
END_TEST

START_TEST(records_missing_behind_what_has_landed_are_noticed)
{
	records_file(dir, 1, 12, 15, 1);
	folder_write(dir, "replayed", "lsn=8 epoch=1\n", 14);
	damaged("lsn 12 follows lsn 8");
}
END_TEST

START_TEST(a_file_of_a_newer_version_is_refused_and_not_cut)
{
	for (int whole_line = 0; whole_line < 2; whole_line++) {
		struct buf b = BUF_INIT;
		forget();
		records_file(dir, 1, 1, 2, 1);
		buf_addstr(&b, whole_line ? "SET NAMES utf8mb4; -- loquat format=2\n" : "SET NAMES utf8mb4;\n");
		records_add_newer(&b, (struct made){ 3, 1, "role:1", "DELETE FROM bag WHERE role_id = 1;\n", 0 });
		folder_write(dir, "00000002.sql", b.data, b.len);
		refused(ERR_NEWER, whole_line ? "00000002.sql: offset 0: a newer version wrote it"
					      : "00000002.sql: offset 19: a newer version wrote it");
		ck_assert_int_eq(folder_size(dir, "00000002.sql"), (long)b.len);
		buf_release(&b);
	}
}
END_TEST

START_TEST(a_torn_tail_before_a_newer_versions_record_is_damage)
{
	size_t n;
	char *bytes = whole_file(2, &n);
	struct buf b = BUF_INIT;
	buf_add(&b, bytes, n - 5);
	buf_addch(&b, '\n');
	records_add_newer(&b, (struct made){ 3, 1, "role:1", "DELETE FROM bag WHERE role_id = 1;\n", 0 });
	folder_write(dir, "00000001.sql", b.data, b.len);
	damaged("damaged at offset ");
	buf_release(&b);
	free(bytes);
}
END_TEST

START_TEST(a_foreign_file_with_a_number_of_ours_is_refused_by_name_and_not_cut)
{
	static const char dump[] = "-- MariaDB dump 10.19\nDROP TABLE IF EXISTS `role`;\n";
	records_file(dir, 1, 1, 2, 1);
	folder_write(dir, "00000002.sql", dump, sizeof dump - 1);
	damaged("00000002.sql: is no file of this log");
	ck_assert_int_eq(folder_size(dir, "00000002.sql"), sizeof dump - 1);
}
END_TEST

START_TEST(a_letter_that_a_power_cut_left_is_cut_and_no_foreign_file)
{
	records_file(dir, 1, 1, 2, 1);
	folder_write(dir, "00000002.sql", "x", 1);
	goes_on_behind(2);
	ck_assert_int_eq(folder_size(dir, "00000002.cut"), 1);
}
END_TEST

START_TEST(other_files_in_the_folder_are_nobodys_business)
{
	records_file(dir, 1, 1, 2, 1);
	folder_write(dir, "notes.txt", "x", 1);
	folder_write(dir, "dump.sql", "DROP TABLE role;\n", 17);
	folder_write(dir, "00000002.sql.bak", "x", 1);
	goes_on_behind(2);
	ck_assert_int_eq(folder_size(dir, "dump.sql"), 17);
}
END_TEST

START_TEST(a_folder_that_cannot_be_made_is_refused_by_name)
{
	folder_write(dir, "plain", "x", 1);
	char path[400];
	snprintf(path, sizeof path, "%s/plain/log", dir);
	struct sqllog_options o = { .folder = path };
	ck_assert_int_lt(sqllog_open(env, NULL, NULL, &o, error, sizeof error, &l), 0);
	ck_assert_msg(strstr(error, "/plain/log"), "said: %s", error);
}
END_TEST

static bool follows(uint64_t epoch, uint64_t lsn, uint64_t record_epoch, uint64_t record_lsn)
{
	const struct sqllog_record r = { .epoch = record_epoch, .lsn = record_lsn };
	return sqllog_follows(env, dir, epoch, lsn, &r);
}

START_TEST(what_follows_a_position_is_told_by_where_epochs_began_and_what_has_landed)
{
	static const char starts[] = "epoch=3 lsn=20 boot=a\nepoch=4 lsn=20 boot=b\nepoch=5 lsn=25 boot=b\n";
	static const char landed[] = "lsn=40 epoch=5\n";
	ck_assert(follows(0, 0, 2, 1) && !follows(0, 0, 2, 2));
	ck_assert(follows(2, 30, 2, 31) && !follows(2, 30, 2, 32));
	ck_assert(follows(2, 30, 3, 31) && !follows(2, 30, 3, 32) && !follows(2, 30, 3, 30)); /* not noted any more */
	folder_write(dir, "epoch", starts, sizeof starts - 1);
	ck_assert(follows(2, 30, 3, 21)); /* its machine lost ten, and uses the numbers anew */
	ck_assert(!follows(2, 30, 3, 22) && !follows(2, 30, 3, 31)); /* some of those are missing */
	ck_assert(follows(2, 20, 4, 21) && follows(4, 25, 5, 26));
	ck_assert(!follows(2, 30, 5, 26)); /* epoch 4 had five */
	folder_write(dir, "replayed", landed, sizeof landed - 1);
	ck_assert(follows(2, 30, 5, 26) && follows(0, 0, 5, 40) && follows(0, 0, 5, 41) && !follows(0, 0, 5, 42));
	ck_assert(follows(5, 43, 5, 44) && !follows(5, 43, 5, 45));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("open");
	tcase_set_timeout(t, 50);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_last_record_torn_at_any_byte_is_cut_and_the_others_stay);
	tcase_add_test(t, a_file_torn_in_its_first_record_or_first_line_begins_anew);
	tcase_add_test(t, a_tail_of_zeroes_or_of_garbage_is_cut);
	tcase_add_test(t, a_flipped_bit_with_records_behind_it_is_damage_named_with_its_place);
	tcase_add_test(t, damage_far_before_the_next_sound_record_is_still_damage);
	tcase_add_test(t, after_a_power_cut_a_last_batch_with_holes_is_torn);
	tcase_add_test(t, a_hole_is_damage_when_the_machine_has_not_died_since);
	tcase_add_test(t, a_hole_before_an_earlier_batch_or_bytes_that_are_none_are_damage);
	tcase_add_test(t, the_last_batch_of_a_log_that_was_not_stopped_in_order_is_written_anew_and_stands_once);
	tcase_add_test(t, a_batch_that_stands_in_several_files_after_failed_syncs_stands_in_one_in_the_end);
	tcase_add_test(t, that_a_log_was_stopped_in_order_once_says_nothing_of_what_came_later);
	tcase_add_test(t, the_epoch_is_above_both_the_records_and_what_was_noted);
	tcase_add_test(t, an_epoch_that_cannot_be_noted_is_given_to_nobody);
	tcase_add_test(t, an_epoch_that_cannot_be_read_is_not_taken_for_none);
	tcase_add_test(t, of_the_starts_the_last_ones_are_remembered_however_many_there_were);
	tcase_add_test(t, what_had_landed_and_was_lost_here_with_the_machine_is_not_missed);
	tcase_add_test(t, of_a_batch_that_was_tried_often_the_longest_copy_counts_wherever_reading_begins);
	tcase_add_test(t, damage_in_an_earlier_file_is_damage);
	tcase_add_test(t, a_torn_file_that_was_written_anew_in_the_next_is_no_damage);
	tcase_add_test(t, a_torn_file_before_one_without_records_is_a_torn_tail);
	tcase_add_test(t, a_missing_number_is_damage);
	tcase_add_test(t, an_older_epoch_behind_a_newer_one_is_damage);
	tcase_add_test(t, the_epoch_follows_the_records_where_its_file_is_lost);
	tcase_add_test(t, records_that_are_gone_since_the_last_opening_are_noticed);
	tcase_add_test(t, what_has_landed_is_not_read_again_and_may_be_gone);
	tcase_add_test(t, a_log_that_has_landed_and_was_removed_goes_on_behind_it);
	tcase_add_test(t, records_missing_behind_what_has_landed_are_noticed);
	tcase_add_test(t, a_file_of_a_newer_version_is_refused_and_not_cut);
	tcase_add_test(t, a_torn_tail_before_a_newer_versions_record_is_damage);
	tcase_add_test(t, a_foreign_file_with_a_number_of_ours_is_refused_by_name_and_not_cut);
	tcase_add_test(t, a_letter_that_a_power_cut_left_is_cut_and_no_foreign_file);
	tcase_add_test(t, other_files_in_the_folder_are_nobodys_business);
	tcase_add_test(t, a_folder_that_cannot_be_made_is_refused_by_name);
	tcase_add_test(t, what_follows_a_position_is_told_by_where_epochs_began_and_what_has_landed);
	return suite_run("sqllog_open", t);
}
