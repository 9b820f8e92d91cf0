/* The file of refused records itself; what comes into it: test_replay_refused, what leaves it: test_replay_restore. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/err.h"
#include "dbwriter/quarantine.h"
#include "tests/support/folder.h"
#include "tests/support/records.h"
#include "tests/support/suite.h"

static struct env *env;
static char *dir, path[ENV_PATH_MAX];
static struct buf text;
static struct sqllog_record record[2];
static const struct quarantine_note note = { "role-1", 3, 1062, "Duplicate entry", NULL };

static void setup(void)
{
	char why[80];
	size_t at = 0;
	env = env_new();
	dir = folder_new();
	snprintf(path, sizeof path, "%s/quarantine.sql", dir);
	buf_init(&text);
	for (uint64_t lsn = 1; lsn <= 2; lsn++)
		records_add(&text, (struct made){ .lsn = lsn,
						  .epoch = 1,
						  .keys = "role:1",
						  .statements = "UPDATE role SET gold = 1 WHERE id = 1;\n" });
	for (int i = 0; i < 2; i++, at += record[i - 1].bytes)
		ck_assert_int_gt(sqllog_read(text.data + at, text.len - at, &record[i], why, sizeof why), 0);
}

static void teardown(void)
{
	buf_release(&text);
	folder_free(dir);
	env_free(env);
}

static char *kept(size_t *n)
{
	return folder_read(dir, "quarantine.sql", n);
}

static void lsns_are(uint64_t first, uint64_t second)
{
	struct quarantine q;
	char why[200] = "";
	ck_assert_msg(quarantine_open(&q, env, path, why, sizeof why) == 0, "%s", why);
	ck_assert_uint_eq(q.n, second ? 2 : 1);
	ck_assert_uint_eq(q.entry[0].record.lsn, first);
	ck_assert(!second || q.entry[1].record.lsn == second);
	ck_assert_uint_eq(quarantine_count(env, path), q.n);
	quarantine_close(&q);
}

START_TEST(wherever_an_entry_is_cut_off_those_before_and_behind_it_are_whole)
{
	size_t n, with_one;
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0);
	free(kept(&with_one));
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[1]), 0);
	char *whole = kept(&n);
	for (size_t cut = 0; cut <= n; cut++) {
		folder_write(dir, "quarantine.sql", whole, cut);
		ck_assert_int_eq(quarantine_add(env, path, &note, &record[1]), 0);
		if (cut == n) /* nothing is torn: it is there twice, as it was refused twice */
			ck_assert_uint_eq(quarantine_count(env, path), 3);
		else if (cut >= with_one)
			lsns_are(1, 2);
		else
			lsns_are(2, 0);
	}
	free(whole);
}
END_TEST

/* A sector that was never written: the file has its size already, and zeroes stand where the text would. */
START_TEST(an_entry_that_ends_in_zeroes_is_cut_off_as_well)
{
	size_t n, with_one;
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0);
	free(kept(&with_one));
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[1]), 0);
	char *whole = kept(&n), *torn = calloc(1, n + 1);
	ck_assert_ptr_nonnull(torn);
	for (size_t from = n % 7; from <= n; from += 7) {
		memset(torn, 0, n + 1);
		memcpy(torn, whole, from);
		folder_write(dir, "quarantine.sql", torn, n + (from == n));
		ck_assert_int_eq(quarantine_add(env, path, &note, &record[from == n]), 0);
		if (from == n) /* behind a whole entry */
			ck_assert_uint_eq(quarantine_count(env, path), 3);
		else if (from >= with_one)
			lsns_are(1, 1);
		else
			lsns_are(1, 0);
	}
	free(torn);
	free(whole);
}
END_TEST

START_TEST(zeroes_between_entries_hide_none_and_are_named)
{
	struct quarantine q;
	struct held_keys held = { .text = BUF_INIT };
	char why[200] = "";
	size_t n;
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(quarantine_add(env, path, &note, &record[i]), 0);
	char *whole = kept(&n), *first = strstr(whole, "-- quarantine");
	ck_assert_ptr_nonnull(first);
	memset(first, 0, 16);
	folder_write(dir, "quarantine.sql", whole, n);
	free(whole);
	ck_assert_uint_eq(quarantine_count(env, path), 1);
	held_load(&held, env, path);
	ck_assert(held_any(&held, &record[1]));
	held_release(&held);
	ck_assert_int_eq(quarantine_open(&q, env, path, why, sizeof why), ERR_CORRUPT);
	ck_assert_msg(strstr(why, "zeroes") != NULL, "%s", why);
}
END_TEST

START_TEST(a_whole_entry_behind_zeroes_is_not_put_aside_with_a_torn_end)
{
	size_t n, with_one;
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(quarantine_add(env, path, &note, &record[i]), 0);
		if (!i)
			free(kept(&with_one));
	}
	char *whole = kept(&n), *torn = malloc(n + 60);
	ck_assert_ptr_nonnull(torn);
	memcpy(torn, whole, with_one);
	memset(torn + with_one, 0, 30);
	torn[with_one + 30] = '\n';
	memcpy(torn + with_one + 31, whole + with_one, n - with_one);
	memcpy(torn + n + 31, "-- quarantine inst", 18);
	folder_write(dir, "quarantine.sql", torn, n + 49);
	free(whole);
	free(torn);
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0);
	ck_assert_uint_eq(quarantine_count(env, path), 3);
}
END_TEST

/* A database that refuses everything for a night. What lies between the two here are zeroes, which cost no room. */
START_TEST(a_file_of_any_size_is_counted_and_holds_its_keys)
{
	const off_t far = (257 << 20) + 5;
	struct held_keys held = { .text = BUF_INIT };
	struct quarantine q;
	char why[200] = "";
	size_t n;
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0);
	char *one = kept(&n), *entry = strchr(one, '\n') + 1;
	ck_assert_int_eq(truncate(path, far), 0);
	FILE *f = fopen(path, "a");
	ck_assert_ptr_nonnull(f);
	entry[strcspn(entry, "\n")] = '\0';
	fprintf(f, "\n%s\n", entry);
	buf_clear(&text);
	records_add(&text, (struct made){ .lsn = 3, .epoch = 1, .keys = "role:3", .statements = "SELECT 1;\n" });
	ck_assert_uint_eq(fwrite(text.data, 1, text.len, f), text.len);
	fclose(f);
	ck_assert_uint_eq(quarantine_count(env, path), 2);
	held_load(&held, env, path);
	ck_assert_int_gt(sqllog_read(text.data, text.len, &record[1], why, sizeof why), 0);
	ck_assert(held_any(&held, &record[1]));
	held_release(&held);
	ck_assert_int_eq(quarantine_open(&q, env, path, why, sizeof why), ERR_CORRUPT);
	ck_assert_msg(strstr(why, "zeroes") != NULL, "%s", why);
	free(one);
}
END_TEST

/* Wherever a read of the file ends: in the mark, in the line behind it, in the record. */
START_TEST(an_entry_is_found_wherever_it_stands)
{
	struct held_keys held = { .text = BUF_INIT };
	size_t n;
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0);
	char *whole = kept(&n), *filled = malloc((1 << 20) + n + 1);
	ck_assert_ptr_nonnull(filled);
	for (size_t before = (1 << 20) - n - 1; before <= (1 << 20) + 1; before++) {
		memset(filled, '-', before);
		filled[before - 1] = '\n';
		memcpy(filled + before, whole, n);
		folder_write(dir, "quarantine.sql", filled, before + n);
		ck_assert_uint_eq(quarantine_count(env, path), 1);
		held_load(&held, env, path);
		ck_assert_msg(held_any(&held, &record[0]), "%zu bytes before", before);
	}
	held_release(&held);
	free(filled);
	free(whole);
}
END_TEST

START_TEST(what_was_cut_off_is_put_aside)
{
	size_t n;
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0);
	char *whole = kept(&n), *aside;
	folder_write(dir, "quarantine.sql", whole, n - 9);
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[1]), 0);
	lsns_are(2, 0);
	aside = folder_read(dir, "quarantine.sql.torn", &n);
	ck_assert(!strncmp(aside, strstr(whole, "-- quarantine"), n - 1) && aside[n - 1] == '\n');
	free(aside);
	free(whole);
}
END_TEST

START_TEST(what_a_person_wrote_stays)
{
	size_t n;
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0);
	char *whole = kept(&n), *now;
	whole = realloc(whole, n + 32);
	memcpy(whole + n, "-- the column is back: ann", 26);
	folder_write(dir, "quarantine.sql", whole, n + 26);
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[1]), 0);
	lsns_are(1, 2);
	now = kept(&n);
	ck_assert_ptr_nonnull(strstr(now, "-- the column is back: ann\n-- quarantine instance=role-1"));
	free(now);
	free(whole);
	ck_assert_int_eq(folder_size(dir, "quarantine.sql.torn"), -1);
}
END_TEST

START_TEST(nothing_is_added_when_something_was_taken_out_meanwhile)
{
	struct quarantine_seen seen = { 0, 1 };
	struct quarantine q;
	char why[100];
	const struct quarantine_note waits = { "role-1", 3, 0, "its key waits", &seen };
	ck_assert_int_eq(quarantine_add(env, path, &waits, &record[1]), ERR_BUSY);
	ck_assert_int_eq(folder_size(dir, "quarantine.sql"), -1);
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0);
	seen.bytes = folder_size(dir, "quarantine.sql") + 1;
	ck_assert_int_eq(quarantine_add(env, path, &waits, &record[1]), ERR_BUSY);
	lsns_are(1, 0);
	seen.bytes--;
	ck_assert_int_eq(quarantine_add(env, path, &waits, &record[1]), 0);
	lsns_are(1, 2);
	quarantine_see(env, path, &seen);
	ck_assert_int_eq(quarantine_open(&q, env, path, why, sizeof why), 0);
	q.entry[0].landed = true;
	ck_assert_int_eq(quarantine_rewrite(&q), 0);
	quarantine_close(&q);
	ck_assert_int_eq(quarantine_add(env, path, &note, &record[0]), 0); /* as long as before */
	ck_assert_int_eq(quarantine_add(env, path, &waits, &record[1]), ERR_BUSY);
	quarantine_see(env, path, &seen);
	ck_assert_int_eq(quarantine_add(env, path, &waits, &record[1]), 0);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("the file");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60); /* each entry is synced to the disk */
	tcase_add_test(t, wherever_an_entry_is_cut_off_those_before_and_behind_it_are_whole);
	tcase_add_test(t, an_entry_that_ends_in_zeroes_is_cut_off_as_well);
	tcase_add_test(t, zeroes_between_entries_hide_none_and_are_named);
	tcase_add_test(t, a_whole_entry_behind_zeroes_is_not_put_aside_with_a_torn_end);
	tcase_add_test(t, a_file_of_any_size_is_counted_and_holds_its_keys);
	tcase_add_test(t, an_entry_is_found_wherever_it_stands);
	tcase_add_test(t, what_was_cut_off_is_put_aside);
	tcase_add_test(t, what_a_person_wrote_stays);
	tcase_add_test(t, nothing_is_added_when_something_was_taken_out_meanwhile);
	return suite_run("quarantine", t);
}
