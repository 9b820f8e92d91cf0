/* Reading one instance's log in order: dbwriter/follow.h, and the batches made of it: dbwriter/batch.h. */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "dbwriter/batch.h"
#include "dbwriter/follow.h"
#include "tests/support/folder.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

static struct env *env;
static char *dir;
static struct follow f;

static void setup(void)
{
	env = env_new();
	dir = folder_new();
	follow_init(&f, env, dir, (struct position){ 0 });
}

static void teardown(void)
{
	follow_release(&f);
	folder_free(dir);
	env_free(env);
}

static void begin_at(uint64_t epoch, uint64_t lsn)
{
	follow_release(&f);
	follow_init(&f, env, dir, (struct position){ epoch, lsn });
}

/* Expects records first..last, then the state. */
static void expect(uint64_t first, uint64_t last, int state)
{
	struct sqllog_record r;
	for (uint64_t lsn = first; lsn && lsn <= last; lsn++) {
		int got = follow_next(&f, &r);
		ck_assert_msg(got == FOLLOW_RECORD, "instead of lsn %d: %d %s", (int)lsn, got, f.why);
		ck_assert_uint_eq(r.lsn, lsn);
	}
	int got = follow_next(&f, &r);
	ck_assert_msg(got == state, "%d instead of %d: %s (lsn %d)", got, state, f.why, (int)f.taken.lsn);
}

static enum follow_verdict judge(uint64_t epoch, uint64_t lsn, uint64_t last_epoch, uint64_t last_lsn,
				 uint64_t landed_epoch, uint64_t landed_lsn)
{
	return follow_judge((struct position){ epoch, lsn }, (struct position){ last_epoch, last_lsn },
			    (struct position){ landed_epoch, landed_lsn });
}

START_TEST(what_to_do_with_a_record_follows_from_three_positions)
{
	ck_assert_int_eq(judge(1, 1, 0, 0, 0, 0), FOLLOW_APPLY);
	ck_assert_int_eq(judge(1, 5, 1, 4, 1, 4), FOLLOW_APPLY);
	ck_assert_int_eq(judge(2, 5, 1, 4, 1, 4), FOLLOW_APPLY); /* a restart */
	ck_assert_int_eq(judge(1, 4, 1, 3, 1, 4), FOLLOW_SKIP);
	ck_assert_int_eq(judge(1, 4, 1, 3, 2, 9), FOLLOW_SKIP);
	ck_assert_int_eq(judge(1, 4, 1, 5, 1, 2), FOLLOW_SKIP); /* written anew */
	ck_assert_int_eq(judge(1, 5, 1, 5, 1, 2), FOLLOW_SKIP);
	ck_assert_int_eq(judge(1, 9, 1, 8, 2, 9), FOLLOW_SKIP);
	ck_assert_int_eq(judge(1, 6, 1, 4, 1, 4), FOLLOW_GAP);
	ck_assert_int_eq(judge(2, 6, 1, 4, 1, 4), FOLLOW_GAP);
	ck_assert_int_eq(judge(1, 3, 0, 0, 0, 0), FOLLOW_GAP);    /* the log's beginning is missing */
	ck_assert_int_eq(judge(1, 9, 0, 0, 1, 8), FOLLOW_APPLY);  /* it was removed when it had landed */
	ck_assert_int_eq(judge(3, 4, 4, 3, 4, 3), FOLLOW_FENCED); /* a former owner's */
	ck_assert_int_eq(judge(3, 10, 0, 0, 4, 3), FOLLOW_FENCED);
	ck_assert_int_eq(judge(2, 8, 1, 7, 1, 20), FOLLOW_FORK); /* the log lost 8 to 20, which had landed */
	ck_assert_int_eq(judge(2, 8, 0, 0, 1, 20), FOLLOW_GAP);  /* or something else is missing */
	ck_assert_int_eq(judge(2, 8, 1, 6, 1, 20), FOLLOW_GAP);
	ck_assert_int_eq(judge(9, 1, 0, 0, 1, 20), FOLLOW_FORK); /* a folder that began anew */
}
END_TEST

static unsigned open_files(void)
{
	unsigned n = 0;
	DIR *d = opendir("/proc/self/fd");
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

START_TEST(a_log_is_read_through_all_its_files)
{
	unsigned before = open_files();
	records_file(dir, 1, 1, 5, 1);
	records_file(dir, 2, 6, 6, 2);
	records_file(dir, 5, 7, 20, 3);
	expect(1, 20, FOLLOW_END);
	ck_assert_uint_eq(f.number, 5);
	for (int i = 0; i < 9; i++)
		expect(0, 0, FOLLOW_END);
	ck_assert_uint_eq(open_files(), before + 1);
}
END_TEST

START_TEST(it_begins_behind_what_has_landed)
{
	records_file(dir, 1, 1, 5, 1);
	records_file(dir, 2, 6, 9, 2);
	records_file(dir, 3, 10, 20, 3);
	begin_at(2, 7);
	expect(8, 20, FOLLOW_END);
	begin_at(3, 20);
	expect(0, 0, FOLLOW_END);
	begin_at(2, 9);
	expect(10, 20, FOLLOW_END);
}
END_TEST

START_TEST(it_goes_on_while_the_log_is_written)
{
	expect(0, 0, FOLLOW_END);
	records_file(dir, 1, 1, 3, 1);
	expect(1, 3, FOLLOW_END);
	records_file(dir, 1, 1, 5, 1);
	expect(4, 5, FOLLOW_END);
	records_file(dir, 1, 1, 6, 1);
	records_file(dir, 2, 7, 7, 2);
	expect(6, 7, FOLLOW_END);
}
END_TEST

START_TEST(a_record_that_is_being_written_is_waited_for)
{
	size_t n;
	records_file(dir, 1, 1, 3, 1);
	char *bytes = folder_read(dir, "00000001.sql", &n);
	folder_write(dir, "00000001.sql", bytes, n - 10);
	expect(1, 2, FOLLOW_WAITING);
	expect(0, 0, FOLLOW_WAITING);
	folder_write(dir, "00000001.sql", bytes, n);
	expect(3, 3, FOLLOW_END);
	free(bytes);
}
END_TEST

START_TEST(a_torn_tail_is_waited_for_until_its_writer_has_cut_it)
{
	size_t n;
	records_file(dir, 1, 1, 3, 1);
	char *bytes = folder_read(dir, "00000001.sql", &n);
	bytes[n - 10] ^= 1;
	folder_write(dir, "00000001.sql", bytes, n);
	expect(1, 2, FOLLOW_WAITING);
	struct sqllog *l = records_open(env, dir);
	records_append(l, "role:1", 1);
	sqllog_close(l);
	expect(3, 3, FOLLOW_END);
	ck_assert_uint_eq(f.taken.epoch, 2);
	free(bytes);
}
END_TEST

/* A file without a whole record goes when its writer starts, and its number is used anew. */
START_TEST(a_file_that_was_replaced_by_a_shorter_or_a_longer_one_is_read_anew)
{
	char path[300], begun[3000] = "SET NAMES utf8mb4;\n-- loquat lsn=1 epoch=1 time=17";
	snprintf(path, sizeof path, "%s/00000001.sql", dir);
	for (int longer = 0; longer < 2; longer++) {
		begin_at(0, 0);
		folder_write(dir, "00000001.sql", begun, longer ? strlen(begun) : sizeof begun);
		expect(0, 0, FOLLOW_WAITING);
		ck_assert_int_eq(remove(path), 0);
		records_file(dir, 1, 1, 3, 1);
		expect(1, 3, FOLLOW_END);
	}
}
END_TEST

START_TEST(damage_stops_the_stream_until_it_is_mended)
{
	size_t n;
	records_file(dir, 1, 1, 9, 1);
	char *bytes = folder_read(dir, "00000001.sql", &n);
	bytes[n / 2] ^= 1;
	folder_write(dir, "00000001.sql", bytes, n);
	expect(1, 4, FOLLOW_STOPPED);
	ck_assert_msg(strstr(f.why, "/00000001.sql is damaged at offset "), "%s", f.why);
	expect(0, 0, FOLLOW_STOPPED);
	bytes[n / 2] ^= 1;
	folder_write(dir, "00000001.sql", bytes, n);
	expect(5, 9, FOLLOW_END);
	free(bytes);
}
END_TEST

START_TEST(what_a_newer_version_wrote_stops_the_stream_even_if_a_later_file_goes_on)
{
	struct buf b = BUF_INIT;
	records_begin(&b);
	records_add(&b, (struct made){ 1, 1, "role:1", "DELETE FROM bag WHERE role_id = 1;\n", 0 });
	records_add_newer(&b, (struct made){ 2, 1, "role:1", "DELETE FROM bag WHERE role_id = 1;\n", 0 });
	folder_write(dir, "00000001.sql", b.data, b.len);
	buf_release(&b);
	expect(1, 1, FOLLOW_STOPPED);
	records_file(dir, 2, 2, 9, 1);
	expect(0, 0, FOLLOW_STOPPED);
	ck_assert_msg(strstr(f.why, "a newer version wrote it"), "%s", f.why);
}
END_TEST

/* Else what its writer goes on writing, into a file of a lower number, would be waited for without an end. */
START_TEST(a_foreign_file_stops_the_stream_until_it_is_moved_away)
{
	char path[300];
	records_file(dir, 1, 1, 3, 1);
	folder_write(dir, "00000007.sql", "-- MariaDB dump\n", 16);
	expect(1, 3, FOLLOW_STOPPED);
	ck_assert_msg(strstr(f.why, "/00000007.sql is no file of this log"), "%s", f.why);
	records_file(dir, 1, 1, 5, 1);
	expect(4, 5, FOLLOW_STOPPED);
	snprintf(path, sizeof path, "%s/00000007.sql", dir);
	ck_assert_int_eq(remove(path), 0);
	records_file(dir, 1, 1, 6, 1);
	expect(6, 6, FOLLOW_END);
	folder_write(dir, "00000002.sql", "SET NA", 6);
	expect(0, 0, FOLLOW_WAITING);
}
END_TEST

START_TEST(an_empty_file_with_a_later_number_hides_nothing)
{
	records_file(dir, 1, 1, 3, 1);
	folder_write(dir, "00000007.sql", "", 0);
	expect(1, 3, FOLLOW_END);
	records_file(dir, 1, 1, 5, 1);
	expect(4, 5, FOLLOW_END);
	records_file(dir, 2, 6, 7, 1);
	folder_write(dir, "00000008.sql", "SET NAMES utf8mb4;\n", 19);
	expect(6, 7, FOLLOW_END);
	records_file(dir, 8, 8, 9, 1);
	expect(8, 9, FOLLOW_END);
}
END_TEST

START_TEST(a_missing_record_stops_the_stream_and_stays_so)
{
	records_file(dir, 1, 1, 3, 1);
	records_file(dir, 2, 5, 9, 2);
	records_file(dir, 3, 10, 12, 3);
	expect(1, 3, FOLLOW_STOPPED);
	ck_assert_msg(strstr(f.why, "/00000002.sql holds lsn 5 of epoch 2, but lsn 3"), "%s", f.why);
	expect(0, 0, FOLLOW_STOPPED);
	records_file(dir, 2, 4, 9, 2);
	expect(4, 12, FOLLOW_END);
}
END_TEST

START_TEST(what_landed_long_ago_is_no_former_owners_when_the_stream_begins_again)
{
	records_file(dir, 1, 1, 3, 1);
	records_file(dir, 2, 4, 6, 2);
	records_file(dir, 3, 8, 9, 2);
	expect(1, 6, FOLLOW_STOPPED);
	records_file(dir, 1, 1, 6, 1); /* its files are put back: one that begins earlier holds the position */
	char path[300];
	snprintf(path, sizeof path, "%s/00000002.sql", dir);
	ck_assert_int_eq(remove(path), 0);
	expect(0, 0, FOLLOW_STOPPED);
	ck_assert_uint_eq(f.fenced, 0);
}
END_TEST

START_TEST(a_damaged_file_is_left_only_for_one_that_goes_on_without_a_gap)
{
	size_t n;
	records_file(dir, 1, 1, 9, 1);
	char *bytes = folder_read(dir, "00000001.sql", &n);
	folder_write(dir, "00000001.sql", bytes, n - 5);
	records_file(dir, 2, 10, 12, 2);
	expect(1, 8, FOLLOW_STOPPED);
	records_file(dir, 2, 7, 12, 1); /* written anew after a failed sync */
	expect(9, 12, FOLLOW_END);
	free(bytes);
}
END_TEST

START_TEST(a_later_file_without_records_yet_decides_nothing)
{
	size_t n;
	records_file(dir, 1, 1, 9, 1);
	char *bytes = folder_read(dir, "00000001.sql", &n);
	folder_write(dir, "00000001.sql", bytes, n - 5);
	folder_write(dir, "00000002.sql", "SET NAMES utf8mb4;\n", 19);
	expect(1, 8, FOLLOW_WAITING);
	records_file(dir, 2, 9, 12, 1);
	expect(9, 12, FOLLOW_END);
	free(bytes);
}
END_TEST

START_TEST(a_former_owners_late_records_are_refused_and_counted)
{
	records_file(dir, 1, 1, 5, 3);
	records_file(dir, 2, 6, 8, 5);
	records_file(dir, 3, 6, 7, 4);
	records_file(dir, 4, 9, 9, 5);
	expect(1, 9, FOLLOW_END);
	ck_assert_uint_eq(f.fenced, 2);
}
END_TEST

START_TEST(a_log_that_lost_what_had_landed_goes_on_in_its_next_epoch)
{
	records_file(dir, 1, 1, 5, 3);
	records_file(dir, 2, 6, 8, 4);
	begin_at(3, 7); /* 6 and 7 of epoch 3 were lost with the machine */
	struct sqllog_record r;
	ck_assert_int_eq(follow_next(&f, &r), FOLLOW_RECORD);
	ck_assert_uint_eq(r.lsn, 6);
	ck_assert_uint_eq(r.epoch, 4);
	ck_assert(f.forked);
	expect(7, 8, FOLLOW_END);
	ck_assert(!f.forked);
}
END_TEST

/* All that landed before was removed, and the machine lost the end: what its writer noted at its start decides. */
START_TEST(an_epoch_begins_where_its_writer_says_but_never_behind_what_is_missing)
{
	records_file(dir, 2, 8, 9, 2);
	begin_at(1, 20);
	expect(0, 0, FOLLOW_STOPPED);
	folder_write(dir, "epoch", "epoch=1 lsn=0 boot=a\nepoch=2 lsn=7 boot=b\n", 42);
	expect(8, 9, FOLLOW_END);
	begin_at(1, 3); /* 4 to 7 have not landed */
	expect(0, 0, FOLLOW_STOPPED);
	ck_assert_msg(strstr(f.why, "records are missing"), "%s", f.why);
}
END_TEST

START_TEST(of_numbers_that_are_used_anew_none_is_passed_by)
{
	records_file(dir, 1, 1, 20, 1);
	records_file(dir, 2, 31, 35, 2); /* what it had before is missing */
	folder_write(dir, "epoch", "epoch=1 lsn=0 boot=a\nepoch=2 lsn=20 boot=b\n", 43);
	begin_at(1, 30); /* ten were lost with the machine */
	expect(0, 0, FOLLOW_STOPPED);
	ck_assert_msg(strstr(f.why, "records are missing"), "%s", f.why);
	records_file(dir, 2, 21, 35, 2);
	expect(21, 35, FOLLOW_END);
}
END_TEST

START_TEST(files_that_vanish_when_they_have_landed_do_no_harm)
{
	char path[400];
	records_file(dir, 1, 1, 5, 1);
	records_file(dir, 2, 6, 9, 1);
	expect(1, 9, FOLLOW_END);
	for (int i = 1; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%08d.sql", dir, i);
		remove(path);
	}
	records_file(dir, 3, 10, 12, 1);
	expect(10, 12, FOLLOW_END);
	begin_at(1, 11);
	expect(12, 12, FOLLOW_END);
}
END_TEST

START_TEST(the_last_number_of_a_log_is_found_from_its_end)
{
	ck_assert_uint_eq(follow_last_lsn(env, dir), 0);
	records_file(dir, 1, 1, 2000, 1);
	ck_assert_uint_eq(follow_last_lsn(env, dir), 2000);
	folder_write(dir, "00000002.sql", "SET NAMES utf8mb4;\n", 19);
	ck_assert_uint_eq(follow_last_lsn(env, dir), 2000);
}
END_TEST

START_TEST(the_last_number_is_found_before_a_long_text_and_before_a_line_that_is_cut_off)
{
	struct buf b = BUF_INIT, statements = BUF_INIT;
	records_begin(&b);
	records_add(&b, (struct made){ .lsn = 7, .epoch = 12, .keys = "mail:1", .statements = "" });
	size_t first = b.len;
	buf_addstr(&statements, "UPDATE mail SET text = '");
	while (statements.len < 1000000)
		buf_addstr(&statements, "a long letter. ");
	buf_addstr(&statements, "' WHERE id = 1;\n");
	records_add(&b, (struct made){ .lsn = 8, .epoch = 12, .keys = "mail:1", .statements = statements.data });
	folder_write(dir, "00000001.sql", b.data, b.len);
	ck_assert_uint_eq(follow_last(env, dir).epoch, 12);
	ck_assert_uint_eq(follow_last(env, dir).lsn, 8);
	size_t line = (size_t)((const char *)memchr(b.data + first, '\n', b.len - first) - b.data);
	for (size_t cut = first; cut <= line; cut++) {
		folder_write(dir, "00000001.sql", b.data, cut);
		ck_assert_uint_eq(follow_last(env, dir).epoch, 12);
		ck_assert_uint_eq(follow_last(env, dir).lsn, 7);
	}
	buf_release(&statements);
	buf_release(&b);
}
END_TEST

/* ---- batches ---- */

static struct batch b;

static void fill(unsigned n)
{
	struct sqllog_record r;
	batch_init(&b, 100, 1 << 20);
	records_file(dir, 1, 1, n, 1);
	while (follow_next(&f, &r) == FOLLOW_RECORD)
		batch_add(&b, &r, 1);
	ck_assert_uint_eq(b.n, n);
}

START_TEST(a_transaction_holds_the_statements_of_all_and_one_commit)
{
	fill(3);
	batch_sql(&b);
	ck_assert_str_eq(buf_cstr(&b.sql),
			 "UPDATE role SET gold = 1 WHERE id = 1;\nUPDATE role SET gold = 2 WHERE id = 1;\n"
			 "UPDATE role SET gold = 3 WHERE id = 1;\nCOMMIT");
	ck_assert_uint_eq(batch_last(&b)->at.lsn, 3);
	batch_landed(&b);
	ck_assert_ptr_null(batch_first(&b));
	batch_release(&b);
}
END_TEST

static void lands(unsigned n)
{
	batch_sql(&b);
	ck_assert_uint_eq(b.sent, n);
	batch_landed(&b);
}

START_TEST(the_record_that_is_refused_is_found_and_only_that_is_given_up)
{
	fill(100);
	batch_sql(&b);
	ck_assert(!batch_refused(&b, 40)); /* its 41st statement, so lsn 41 */
	lands(40);
	ck_assert_uint_eq(batch_first(&b)->at.lsn, 41);
	batch_sql(&b);
	ck_assert_uint_eq(b.sent, 1);
	ck_assert(batch_refused(&b, 0));
	ck_assert_uint_eq(batch_first(&b)->at.lsn, 41);
	lands(1);
	lands(59);
	batch_release(&b);
}
END_TEST

START_TEST(a_refused_commit_is_halved_down_to_one_record)
{
	fill(8);
	unsigned tries = 0;
	for (batch_sql(&b); !batch_refused(&b, b.sent); batch_sql(&b))
		ck_assert_uint_lt(++tries, 10);
	ck_assert_uint_eq(b.sent, 1);
	ck_assert_uint_eq(tries, 3);
	batch_release(&b);
}
END_TEST

START_TEST(a_batch_has_bounds)
{
	fill(99);
	ck_assert(!batch_full(&b));
	b.bytes_max = b.raw.len;
	ck_assert(batch_full(&b));
	b.bytes_max = SIZE_MAX;
	b.records_max = 99;
	ck_assert(batch_full(&b));
	batch_release(&b);
}
END_TEST

START_TEST(faults_of_the_moment_are_told_from_those_of_the_statement)
{
	static const unsigned again[] = { 1205, 1213, 1040, 1290, 1021, 1114, 9007, 3, 1026, 1030, 1598, 1878, 1877 };
	static const unsigned never[] = { 1062, 1064, 1264, 1406, 1452, 1146, 1054, 4025 };
	for (size_t i = 0; i < sizeof again / sizeof *again; i++)
		ck_assert_int_eq(batch_fault(again[i]), BATCH_AGAIN);
	for (size_t i = 0; i < sizeof never / sizeof *never; i++)
		ck_assert_int_eq(batch_fault(never[i]), BATCH_REFUSED);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("follow");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, what_to_do_with_a_record_follows_from_three_positions);
	tcase_add_test(t, a_log_is_read_through_all_its_files);
	tcase_add_test(t, it_begins_behind_what_has_landed);
	tcase_add_test(t, it_goes_on_while_the_log_is_written);
	tcase_add_test(t, a_record_that_is_being_written_is_waited_for);
	tcase_add_test(t, a_torn_tail_is_waited_for_until_its_writer_has_cut_it);
	tcase_add_test(t, a_file_that_was_replaced_by_a_shorter_or_a_longer_one_is_read_anew);
	tcase_add_test(t, what_landed_long_ago_is_no_former_owners_when_the_stream_begins_again);
	tcase_add_test(t, an_epoch_begins_where_its_writer_says_but_never_behind_what_is_missing);
	tcase_add_test(t, damage_stops_the_stream_until_it_is_mended);
	tcase_add_test(t, what_a_newer_version_wrote_stops_the_stream_even_if_a_later_file_goes_on);
	tcase_add_test(t, a_foreign_file_stops_the_stream_until_it_is_moved_away);
	tcase_add_test(t, an_empty_file_with_a_later_number_hides_nothing);
	tcase_add_test(t, a_missing_record_stops_the_stream_and_stays_so);
	tcase_add_test(t, a_damaged_file_is_left_only_for_one_that_goes_on_without_a_gap);
	tcase_add_test(t, a_later_file_without_records_yet_decides_nothing);
	tcase_add_test(t, a_former_owners_late_records_are_refused_and_counted);
	tcase_add_test(t, a_log_that_lost_what_had_landed_goes_on_in_its_next_epoch);
	tcase_add_test(t, of_numbers_that_are_used_anew_none_is_passed_by);
	tcase_add_test(t, files_that_vanish_when_they_have_landed_do_no_harm);
	tcase_add_test(t, the_last_number_of_a_log_is_found_from_its_end);
	tcase_add_test(t, the_last_number_is_found_before_a_long_text_and_before_a_line_that_is_cut_off);
	tcase_add_test(t, a_transaction_holds_the_statements_of_all_and_one_commit);
	tcase_add_test(t, the_record_that_is_refused_is_found_and_only_that_is_given_up);
	tcase_add_test(t, a_refused_commit_is_halved_down_to_one_record);
	tcase_add_test(t, a_batch_has_bounds);
	tcase_add_test(t, faults_of_the_moment_are_told_from_those_of_the_statement);
	return suite_run("replay_follow", t);
}
