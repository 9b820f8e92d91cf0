#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/simtest.h"
#include "tests/support/suite.h"
/*
 * The disk of the simulated world keeps the promises of common/env.h and of common/env_sim.h.
 */

/* ---- files ---------------------------------------------------------------------------------------------------------- */

static void append_to(struct env *env, const char *path, const char *text, bool sync)
{
	struct env_file *f;
	ck_assert_int_eq(env_file_open(env, path, ENV_READ | ENV_WRITE | ENV_CREATE, &f), 0);
	ck_assert_int_eq(env_file_append(f, text, strlen(text)), 0);
	if (sync)
		ck_assert_int_eq(env_file_sync(f), 0);
	env_file_close(f);
}

static void writes_half_synced(struct env *env, void *arg)
{
	(void)arg;
	env_dir_make(env, "var/log");
	append_to(env, "var/log/1", "synced ", true);
	env_dir_sync(env, "var/log");
	append_to(env, "var/log/1", "and not synced", false);
	append_to(env, "var/log/2", "a new name", true);
}

static ssize_t file(const char *path, char **text)
{
	return sim_file_load(w, "10.0.0.1", path, text);
}

START_TEST(what_was_written_survives_a_kill)
{
	char *text;
	simtest_run("writer", writes_half_synced, NULL);
	ck_assert_int_eq(file("var/log/1", &text), 21);
	ck_assert_str_eq(text, "synced and not synced");
	free(text);
	ck_assert_int_eq(file("var/log/2", &text), 10);
	free(text);
}
END_TEST

START_TEST(power_off_takes_only_what_was_not_synced)
{
	unsigned lost = 0, nameless = 0;
	for (int i = 0; i < 100; i++) {
		char *text;
		simtest_run("writer", writes_half_synced, NULL);
		sim_crash_host(w, "10.0.0.1");
		ssize_t n = file("var/log/1", &text);
		ck_assert_int_ge(n, 7);
		ck_assert_mem_eq(text, "synced ", 7);
		lost += strcmp(text, "synced and not synced") != 0;
		free(text);
		n = file("var/log/2", &text);
		nameless += n < 0;
		ck_assert(n < 0 || n == 10);
		if (n >= 0)
			free(text);
		sim_file_remove(w, "10.0.0.1", "var/log/1");
		sim_file_remove(w, "10.0.0.1", "var/log/2");
	}
	ck_assert_uint_gt(lost, 20);
	ck_assert_uint_gt(nameless, 10);
	ck_assert_uint_lt(nameless, 90);
}
END_TEST

static void cuts(struct env *env, void *arg)
{
	struct env_file *f;
	(void)arg;
	append_to(env, "cut", "0123456789", true);
	env_dir_sync(env, "");
	env_file_open(env, "cut", ENV_READ | ENV_WRITE, &f);
	env_file_truncate(f, 5);
	ck_assert_int_eq(env_file_size(f), 5);
	env_file_close(f);
}

START_TEST(a_cut_that_is_not_synced_may_be_undone_by_power_off)
{
	unsigned undone = 0;
	for (int i = 0; i < 50; i++) {
		char *text;
		simtest_run("cutter", cuts, NULL);
		sim_crash_host(w, "10.0.0.1");
		ssize_t n = file("cut", &text);
		ck_assert(n == 5 || n == 10);
		ck_assert_mem_eq(text, "0123456789", (size_t)n);
		undone += n == 10;
		free(text);
		sim_file_remove(w, "10.0.0.1", "cut");
	}
	ck_assert_uint_gt(undone, 5);
	ck_assert_uint_lt(undone, 45);
}
END_TEST

static void stores(struct env *env, void *arg)
{
	ck_assert_int_eq(env_file_store(env, "state", arg, strlen(arg), 0), 0);
}

START_TEST(a_stored_file_is_whole_old_or_new_after_any_death)
{
	for (unsigned i = 0; i < 200; i++) {
		char *text;
		sim_file_store(w, "10.0.0.1", "state", "old", 3);
		struct sim_process *p = sim_find(w, "storer");
		if (p)
			sim_restart(p);
		else
			p = sim_process(w, "storer", "10.0.0.1", stores, "newer");
		for (uint64_t n = sim_random(w, 12); n > 0; n--)
			sim_step(w);
		sim_crash_host(w, "10.0.0.1");
		ck_assert_int_gt(file("state", &text), 0);
		ck_assert_msg(!strcmp(text, "old") || !strcmp(text, "newer"), "%s", text);
		free(text);
	}
}
END_TEST

static void fills(struct env *env, void *arg)
{
	struct env_file *f;
	(void)arg;
	env_file_open(env, "f", ENV_WRITE | ENV_CREATE, &f);
	sim_disk_full(w, "10.0.0.1", true);
	ck_assert_int_eq(env_file_append(f, "x", 1), ERR_FULL);
	sim_disk_full(w, "10.0.0.1", false);
	sim_disk_fail(w, "10.0.0.1", 1, 1);
	ck_assert_int_eq(env_file_append(f, "x", 1), ERR_IO);
	ck_assert_int_eq(env_file_append(f, "x", 1), 0);
	ck_assert_int_eq(env_file_sync(f), ERR_IO);
	ck_assert_int_eq(env_file_sync(f), 0);
}

START_TEST(a_full_or_failing_disk_says_so)
{
	simtest_run("filler", fills, NULL);
}
END_TEST

static void locks(struct env *env, void *arg)
{
	struct env_file *f, *g;
	env_file_open(env, "lock", ENV_WRITE | ENV_CREATE, &f);
	env_file_open(env, "lock", ENV_WRITE | ENV_CREATE, &g);
	ck_assert_int_eq(env_file_lock(f), 0);
	ck_assert_int_eq(env_file_lock(g), ERR_BUSY);
	*(int *)arg += 1;
}

START_TEST(a_lock_excludes_others_and_ends_with_its_holder)
{
	int passed = 0;
	simtest_run("locker", locks, &passed);
	simtest_run("locker", locks, &passed);
	ck_assert_int_eq(passed, 2);
}
END_TEST

static void reads_source(struct env *env, void *arg)
{
	char *text, **names;
	size_t n, found = 0;
	(void)arg;
	ck_assert_int_eq(env_file_load(env, "common/env.h", 1 << 20, &text, &n), 0);
	ck_assert_ptr_nonnull(strstr(text, "the one seam"));
	ck_assert_int_eq(env_file_load(env, "common/env.h", 10, &text, &n), ERR_FULL);
	ck_assert_int_eq(env_file_load(env, "common/nothing", 10, &text, &n), ERR_NOT_FOUND);
	append_to(env, "common/aaa", "ours", false);
	ck_assert_int_eq(env_dir_list(env, "./common/", &names, &n), 0);
	ck_assert_str_eq(names[0], "aaa");
	for (size_t i = 0; i < n; i++)
		found += strcmp(names[i], "env.h") == 0;
	ck_assert_uint_eq(found, 1);
	ck_assert_int_eq(env_dir_list(env, "nowhere", &names, &n), ERR_NOT_FOUND);
}

START_TEST(real_files_below_the_root_can_be_read_and_stay_unharmed)
{
	sim_root(w, ".");
	simtest_run("reader", reads_source, NULL);
	FILE *f = fopen("common/aaa", "r");
	ck_assert_ptr_null(f);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("files");

	tcase_add_checked_fixture(t, simtest_set_up, simtest_tear_down);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_was_written_survives_a_kill);
	tcase_add_test(t, power_off_takes_only_what_was_not_synced);
	tcase_add_test(t, a_cut_that_is_not_synced_may_be_undone_by_power_off);
	tcase_add_test(t, a_stored_file_is_whole_old_or_new_after_any_death);
	tcase_add_test(t, a_full_or_failing_disk_says_so);
	tcase_add_test(t, a_lock_excludes_others_and_ends_with_its_holder);
	tcase_add_test(t, real_files_below_the_root_can_be_read_and_stay_unharmed);
	return suite_run("env_sim_disk", t);
}
