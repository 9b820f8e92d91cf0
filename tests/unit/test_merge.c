/* Several logs in the order of their time: what comes, what comes once, and what is told to be missing. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include "dbwriter/merge.h"
#include "tests/support/folder.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

static struct env *env;
static char *dir, own[400], copy[400];

static void setup(void)
{
	env = env_new();
	dir = folder_new();
	snprintf(own, sizeof own, "%s/own/role-1", dir);
	snprintf(copy, sizeof copy, "%s/copy/role-1", dir);
	ck_assert_int_eq(env_dir_make(env, own), 0);
	ck_assert_int_eq(env_dir_make(env, copy), 0);
}

static void teardown(void)
{
	folder_free(dir);
	env_free(env);
}

/* "EPOCH.LSN", a "?" before one that is told to come behind missing ones; as text "1.1 1.2 ?2.9". */
static const char *merged(const char *a, const char *b)
{
	static char text[4000];
	const char *from[2] = { a, b };
	const struct merge_log *where;
	struct sqllog_record r;
	struct merge m;
	size_t n = 0;
	int got;

	ck_assert_msg(!merge_open(&m, env, from, b ? 2 : 1), "%s", m.why);
	while ((got = merge_next(&m, &r, &where)) == 1)
		n += (size_t)snprintf(text + n, sizeof text - n, "%s%s%llu.%llu", n ? " " : "",
				      where->missing ? "?" : "", (unsigned long long)r.epoch,
				      (unsigned long long)r.lsn);
	ck_assert_msg(!got, "%s", m.why);
	merge_release(&m);
	return n ? text : "";
}

START_TEST(a_log_is_read_through_and_what_is_missing_is_told)
{
	records_file(own, 1, 1, 3, 1);
	records_file(own, 2, 3, 4, 1);
	records_file(own, 3, 6, 6, 1);
	records_file(own, 4, 7, 7, 2);
	ck_assert_str_eq(merged(own, NULL), "1.1 1.2 1.3 1.4 ?1.6 2.7");
}
END_TEST

/* Epoch 2 uses 4 and 5 anew: the machine had lost them. */
START_TEST(of_numbers_that_an_epoch_uses_anew_the_missing_are_told)
{
	static const char note[] = "epoch=1 lsn=0 boot=a\nepoch=2 lsn=3 boot=b\n";

	folder_write(own, "epoch", note, sizeof note - 1);
	records_file(own, 1, 1, 5, 1);
	records_file(own, 2, 4, 7, 2);
	ck_assert_str_eq(merged(own, NULL), "1.1 1.2 1.3 1.4 1.5 2.4 2.5 2.6 2.7");
	records_file(own, 2, 6, 7, 2); /* the next number, and yet 4 and 5 of epoch 2 are not there */
	ck_assert_str_eq(merged(own, NULL), "1.1 1.2 1.3 1.4 1.5 ?2.6 2.7");
}
END_TEST

START_TEST(an_epoch_that_is_missing_whole_is_told)
{
	static const char note[] = "epoch=1 lsn=0 boot=a\nepoch=2 lsn=3 boot=b\nepoch=3 lsn=5 boot=b\n";

	folder_write(own, "epoch", note, sizeof note - 1);
	records_file(own, 1, 1, 5, 1);
	records_file(own, 2, 6, 6, 3);
	ck_assert_str_eq(merged(own, NULL), "1.1 1.2 1.3 1.4 1.5 ?3.6");
}
END_TEST

START_TEST(a_log_and_its_copy_come_once)
{
	records_file(own, 1, 1, 4, 1);
	records_file(copy, 1, 3, 6, 1); /* what was before has landed and gone there */
	records_file(copy, 2, 7, 7, 2);
	ck_assert_str_eq(merged(own, copy), "1.1 1.2 1.3 1.4 1.5 1.6 2.7");
	ck_assert_str_eq(merged(copy, own), "1.1 1.2 1.3 1.4 1.5 1.6 2.7");
}
END_TEST

START_TEST(what_neither_a_log_nor_its_copy_has_is_told)
{
	records_file(own, 1, 1, 2, 1);
	records_file(copy, 1, 4, 5, 1);
	ck_assert_str_eq(merged(own, copy), "1.1 1.2 ?1.4 1.5");
}
END_TEST

/* As after a sync that failed; and a file may begin anywhere. */
START_TEST(files_of_one_folder_are_one_log)
{
	char a[500], b[500];

	records_file(own, 1, 8, 9, 1);
	records_file(own, 2, 9, 11, 1);
	records_file(own, 4, 13, 13, 1);
	snprintf(a, sizeof a, "%s/00000001.sql", own);
	snprintf(b, sizeof b, "%s/00000002.sql", own);
	ck_assert_str_eq(merged(a, b), "1.8 1.9 1.10 1.11");
	ck_assert_str_eq(merged(b, a), "1.8 1.9 1.10 1.11");
	ck_assert_str_eq(merged(a, a), "1.8 1.9");
	snprintf(a, sizeof a, "%s/00000004.sql", own);
	ck_assert_str_eq(merged(a, b), "1.9 1.10 1.11 ?1.13");
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("merge");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_log_is_read_through_and_what_is_missing_is_told);
	tcase_add_test(t, of_numbers_that_an_epoch_uses_anew_the_missing_are_told);
	tcase_add_test(t, an_epoch_that_is_missing_whole_is_told);
	tcase_add_test(t, a_log_and_its_copy_come_once);
	tcase_add_test(t, what_neither_a_log_nor_its_copy_has_is_told);
	tcase_add_test(t, files_of_one_folder_are_one_log);
	return suite_run("merge", t);
}
