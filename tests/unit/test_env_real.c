/* The promises of common/env.h about the process, signals, files and watches, on the real environment. */
#include "common/env.h"
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

static struct env *env;
static struct loop *loop;
static struct flag flag;
static char dir[64], path[256];

static void setup(void)
{
	env = env_new();
	loop = NULL;
	flag_init(&flag);
	snprintf(dir, sizeof dir, "/tmp/loquat-test-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/file", dir);
}

static void teardown(void)
{
	char command[96];
	if (loop)
		on_loop_free(loop);
	env_free(env);
	snprintf(command, sizeof command, "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

/* ---- the process ---- */

START_TEST(clocks_go_on_and_random_bytes_differ)
{
	uint64_t a, b, before = env_mono_ns(env);
	env_random(env, &a, sizeof a);
	env_random(env, &b, sizeof b);
	ck_assert_uint_ne(a, b);
	ck_assert_uint_ge(env_mono_ns(env), before);
	ck_assert_uint_gt(env_wall_us(env), UINT64_C(1600000000000000));
}
END_TEST

START_TEST(the_process_knows_itself)
{
	ck_assert_int_eq(env_pid(env), getpid());
	ck_assert_uint_gt(env_rss_bytes(env), 100000);
	ck_assert_uint_lt(env_rss_bytes(env), UINT64_C(1) << 40);
	uint64_t before = env_cpu_us(env);
	while (env_cpu_us(env) < before + 1000)
		;
	setenv("LOQUAT_TEST", "x", 1);
	ck_assert_str_eq(env_getenv(env, "LOQUAT_TEST"), "x");
	ck_assert_ptr_null(env_getenv(env, "LOQUAT_TEST_NOT_SET"));
	char home[ENV_PATH_MAX], program[ENV_PATH_MAX] = "";
	ck_assert_int_gt(readlink("/proc/self/exe", program, sizeof program - 1), 0);
	ck_assert(env_home(env, home)); /* three names are below it */
	ck_assert_mem_eq(program, home, strlen(home));
	unsigned below = 0;
	for (const char *at = program + strlen(home); *at; at++)
		below += *at == '/';
	ck_assert_uint_eq(below, 3);
}
END_TEST

/* Runs the passes in a child; its wait status. */
static int status_after(const char *failpoints, int passes)
{
	pid_t pid = fork();
	if (pid == 0) {
		setenv("LOQUAT_FAILPOINT", failpoints, 1);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		struct env *e = env_new();
		for (int i = 0; i < passes; i++) {
			env_failpoint(e, "role.before_write");
			env_failpoint(e, "role.after_sync");
		}
		env_free(e);
		_exit(0);
	}
	int status;
	waitpid(pid, &status, 0);
	return status;
}

START_TEST(a_failpoint_kills_at_its_nth_pass_and_only_there)
{
	ck_assert_int_eq(status_after("role.after_sync:3", 2), 0);
	int status = status_after("other:1,role.after_sync:3", 3);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ck_assert_int_eq(status_after("", 3), 0);
}
END_TEST

START_TEST(a_failpoint_that_says_no_number_is_wrong_input)
{
	static const char *const wrong[] = { "name", "name:", "name:0", "name:x", ":1", "a:1,b", "a:1x" };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		int status = status_after(wrong[i], 0);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 2, "%s", wrong[i]);
	}
}
END_TEST

/* ---- signals and interrupts ---- */

static void on_signal(void *arg, int signo)
{
	loop_assert_owner(loop);
	ck_assert_int_eq(signo, *(int *)arg);
	flag_raise(&flag);
}

static void take_signal(void *arg)
{
	ck_assert_int_eq(env_signal(loop->ev, *(int *)arg, on_signal, arg), 0);
}

START_TEST(a_signal_to_the_process_runs_on_the_loop_that_asked_for_it)
{
	int term = SIGTERM, hup = SIGHUP;
	struct loop *other = on_loop_new(env, "other");
	loop = on_loop_new(env, "control");
	on_loop(loop, take_signal, &term);
	on_loop(loop, take_signal, &hup);
	for (unsigned i = 1; i <= 50; i++) {
		kill(getpid(), i % 2 ? SIGTERM : SIGHUP);
		ck_assert(flag_wait(&flag, i));
	}
	on_loop_free(other);
}
END_TEST

static void *join_loop(void *arg)
{
	(void)arg;
	ck_assert(flag_wait(&flag, 1)); /* while the main thread waits in the join */
	kill(getpid(), SIGTERM);
	return NULL;
}

static void stop_by_signal(void *arg, int signo)
{
	(void)signo;
	loop_stop(arg);
}

static void take_stop(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_signal(loop->ev, SIGTERM, stop_by_signal, loop), 0);
}

START_TEST(a_main_thread_that_joins_is_ended_by_the_loops_signal)
{
	pthread_t killer;
	loop = on_loop_new(env, "control");
	on_loop(loop, take_stop, NULL);
	pthread_create(&killer, NULL, join_loop, NULL);
	flag_raise(&flag);
	loop_join(loop);
	loop = NULL;
	pthread_join(killer, NULL);
}
END_TEST

static _Atomic bool spinning;

static void stop_spinning(void *arg)
{
	if (!env_loop_is_current(loop->ev))
		abort(); /* a failure cannot be reported from a signal handler */
	atomic_store((_Atomic bool *)arg, false);
}

static void spin(void *arg)
{
	(void)arg;
	atomic_store(&spinning, true);
	flag_raise(&flag);
	while (atomic_load(&spinning))
		;
	flag_raise(&flag);
}

START_TEST(an_interrupt_runs_amid_an_endless_loop_of_the_worker)
{
	loop = on_loop_new(env, "spinner");
	ck_assert_int_eq(env_loop_interrupt(loop->ev, NULL, NULL), 0);
	for (unsigned i = 0; i < 20; i++) {
		loop_call(loop, spin, NULL);
		ck_assert(flag_wait(&flag, i * 2 + 1));
		ck_assert_int_eq(env_loop_interrupt(loop->ev, stop_spinning, &spinning), 0);
		ck_assert(flag_wait(&flag, i * 2 + 2));
	}
}
END_TEST

static void break_pipe(void *arg)
{
	int pair[2];
	(void)arg;
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	close(pair[1]);
	ck_assert_int_lt(write(pair[0], "x", 1), 0);
	close(pair[0]);
}

START_TEST(a_broken_pipe_kills_nobody)
{
	loop = on_loop_new(env, "writer");
	on_loop(loop, break_pipe, NULL);
}
END_TEST

/* ---- files ---- */

START_TEST(a_file_takes_appends_and_gives_them_back_at_any_offset)
{
	struct env_file *f;
	char text[16] = "";
	ck_assert_int_eq(env_file_open(env, path, ENV_READ | ENV_WRITE | ENV_CREATE, &f), 0);
	ck_assert_int_eq(env_file_append(f, "hello ", 6), 0);
	ck_assert_int_eq(env_file_append(f, "world", 5), 0);
	ck_assert_int_eq(env_file_sync(f), 0);
	ck_assert_int_eq(env_file_size(f), 11);
	ck_assert_int_eq(env_file_read(f, 6, text, sizeof text), 5);
	ck_assert_str_eq(text, "world");
	ck_assert_int_eq(env_file_read(f, 11, text, sizeof text), 0);
	ck_assert_int_eq(env_file_truncate(f, 5), 0);
	ck_assert_int_eq(env_file_append(f, "!", 1), 0);
	memset(text, 0, sizeof text);
	ck_assert_int_eq(env_file_read(f, 0, text, sizeof text), 6);
	ck_assert_str_eq(text, "hello!");
	env_file_close(f);
	env_file_close(NULL);
}
END_TEST

/* So a reader sees no byte more, and a killed writer leaves no longer file. */
START_TEST(blocks_kept_for_a_file_are_no_part_of_it_and_free_again_at_its_close)
{
	enum { KEPT = 1 << 20 };
	struct env_file *f;
	struct stat st;
	ck_assert_int_eq(env_file_open(env, path, ENV_READ | ENV_WRITE | ENV_CREATE, &f), 0);
	ck_assert_int_eq(env_file_append(f, "hello ", 6), 0);
	env_file_reserve(f, KEPT);
	ck_assert_int_eq(env_file_size(f), 6);
	ck_assert_int_eq(env_file_append(f, "world", 5), 0);
	ck_assert_int_eq(env_file_size(f), 11);
	env_file_close(f);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_size, 11);
	ck_assert_int_lt(st.st_blocks * 512, KEPT / 2);
}
END_TEST

START_TEST(what_cannot_be_opened_says_why)
{
	struct env_file *f = (struct env_file *)path;
	ck_assert_int_eq(env_file_open(env, path, ENV_READ, &f), ERR_NOT_FOUND);
	ck_assert_int_eq(env_file_open(env, dir, ENV_WRITE, &f), ERR_IO);
	ck_assert_str_eq(env_last_error(), "Is a directory");
	ck_assert_int_eq(env_file_store(env, path, "x", 1, 0), 0);
	ck_assert_int_eq(env_file_open(env, path, ENV_WRITE | ENV_CREATE | ENV_EXCLUSIVE, &f), ERR_EXISTS);
	ck_assert_ptr_eq(f, path); /* untouched */
}
END_TEST

START_TEST(a_full_disk_is_told_apart)
{
	struct env_file *f;
	ck_assert_int_eq(env_file_open(env, "/dev/full", ENV_WRITE, &f), 0);
	ck_assert_int_eq(env_file_append(f, "x", 1), ERR_FULL);
	env_file_close(f);
}
END_TEST

START_TEST(a_locked_file_is_busy_until_it_is_closed)
{
	struct env_file *f, *g;
	ck_assert_int_eq(env_file_open(env, path, ENV_WRITE | ENV_CREATE, &f), 0);
	ck_assert_int_eq(env_file_open(env, path, ENV_WRITE, &g), 0);
	ck_assert_int_eq(env_file_lock(f), 0);
	ck_assert_int_eq(env_file_lock(g), ERR_BUSY);
	env_file_close(f);
	ck_assert_int_eq(env_file_lock(g), 0);
	env_file_close(g);
}
END_TEST

static void expect_file(const char *want)
{
	char *text;
	size_t n;
	ck_assert_int_eq(env_file_load(env, path, 1000, &text, &n), 0);
	ck_assert_str_eq(text, want);
	ck_assert_uint_eq(n, strlen(want));
	free(text);
}

START_TEST(a_stored_file_is_replaced_whole)
{
	ck_assert_int_eq(env_file_store(env, path, "first", 5, ENV_PRIVATE), 0);
	expect_file("first");
	struct stat st;
	stat(path, &st);
	ck_assert_int_eq(st.st_mode & 0777, 0600);
	ck_assert_int_eq(env_file_store(env, path, "", 0, 0), 0);
	expect_file("");
	char **names;
	size_t n;
	ck_assert_int_eq(env_dir_list(env, dir, &names, &n), 0);
	ck_assert_uint_eq(n, 1); /* no temporary file is left */
	free(names[0]);
	free(names);
}
END_TEST

START_TEST(of_two_exclusive_stores_the_first_wins)
{
	ck_assert_int_eq(env_file_store(env, path, "first", 5, ENV_EXCLUSIVE | ENV_PRIVATE), 0);
	ck_assert_int_eq(env_file_store(env, path, "second", 6, ENV_EXCLUSIVE | ENV_PRIVATE), ERR_EXISTS);
	expect_file("first");
}
END_TEST

START_TEST(a_file_larger_than_allowed_is_not_loaded)
{
	char *text = NULL;
	size_t n;
	ck_assert_int_eq(env_file_store(env, path, "12345", 5, 0), 0);
	ck_assert_int_eq(env_file_load(env, path, 4, &text, &n), ERR_FULL);
	ck_assert_ptr_null(text);
	ck_assert_int_eq(env_file_load(env, path, 5, &text, &n), 0);
	free(text);
}
END_TEST

START_TEST(removing_and_the_time_of_change)
{
	ck_assert_int_eq(env_file_mtime_us(env, path), ERR_NOT_FOUND);
	ck_assert_int_eq(env_file_store(env, path, "x", 1, 0), 0);
	int64_t age_us = (int64_t)env_wall_us(env) - env_file_mtime_us(env, path);
	ck_assert_int_lt(age_us, 3600000000);
	ck_assert_int_gt(age_us, -3600000000);
	ck_assert_int_eq(env_file_remove(env, path), 0);
	ck_assert_int_eq(env_file_remove(env, path), ERR_NOT_FOUND);
}
END_TEST

START_TEST(folders_are_made_with_their_parents_and_listed_in_byte_order)
{
	char deep[128], **names;
	size_t n;
	static const char *const want[] = { "B", "a", "b", "é" };
	snprintf(deep, sizeof deep, "%s/x/y/z", dir);
	ck_assert_int_eq(env_dir_list(env, deep, &names, &n), ERR_NOT_FOUND);
	ck_assert_int_eq(env_dir_make(env, deep), 0);
	ck_assert_int_eq(env_dir_make(env, deep), 0);
	ck_assert_int_eq(env_dir_sync(env, deep), 0);
	for (size_t i = 4; i-- > 0;) {
		snprintf(path, sizeof path, "%s/%s", deep, want[i]);
		ck_assert_int_eq(env_file_store(env, path, "", 0, 0), 0);
	}
	ck_assert_int_eq(env_dir_make(env, path), ERR_EXISTS); /* a file stands there */
	ck_assert_int_eq(env_dir_list(env, deep, &names, &n), 0);
	ck_assert_uint_eq(n, 4);
	for (size_t i = 0; i < n; i++) {
		ck_assert_str_eq(names[i], want[i]);
		free(names[i]);
	}
	free(names);
}
END_TEST

/* ---- watching ---- */

static struct env_watch *watch;

static void on_change(void *arg)
{
	loop_assert_owner(loop);
	flag_raise(arg);
}

static void watch_dir(void *arg)
{
	(void)arg;
	ck_assert_int_eq(env_watch(loop->ev, dir, on_change, &flag, &watch), 0);
	struct env_watch *none;
	ck_assert_int_eq(env_watch(loop->ev, "/no/such/folder", on_change, &flag, &none), ERR_NOT_FOUND);
}

static void unwatch(void *arg)
{
	(void)arg;
	env_watch_close(watch);
	env_watch_close(NULL);
}

START_TEST(a_watch_tells_of_writes_new_names_and_removals)
{
	struct env_file *f;
	loop = on_loop_new(env, "watcher");
	on_loop(loop, watch_dir, NULL);
	ck_assert_int_eq(env_file_open(env, path, ENV_WRITE | ENV_CREATE, &f), 0);
	ck_assert(flag_wait(&flag, 1));
	unsigned long seen = flag_count(&flag);
	ck_assert_int_eq(env_file_append(f, "x", 1), 0);
	ck_assert(flag_wait(&flag, seen + 1));
	env_file_close(f);
	on_loop_turns(loop);
	seen = flag_count(&flag);
	ck_assert_int_eq(env_file_remove(env, path), 0);
	ck_assert(flag_wait(&flag, seen + 1));
	on_loop(loop, unwatch, NULL);
	seen = flag_count(&flag);
	ck_assert_int_eq(env_file_store(env, path, "x", 1, 0), 0);
	on_loop_turns(loop);
	ck_assert_uint_eq(flag_count(&flag), seen);
}
END_TEST

static void add_tests(TCase *t)
{
	tcase_add_test(t, clocks_go_on_and_random_bytes_differ);
	tcase_add_test(t, the_process_knows_itself);
	tcase_add_test(t, a_failpoint_kills_at_its_nth_pass_and_only_there);
	tcase_add_test(t, a_failpoint_that_says_no_number_is_wrong_input);
	tcase_add_test(t, a_signal_to_the_process_runs_on_the_loop_that_asked_for_it);
	tcase_add_test(t, a_main_thread_that_joins_is_ended_by_the_loops_signal);
	tcase_add_test(t, an_interrupt_runs_amid_an_endless_loop_of_the_worker);
	tcase_add_test(t, a_broken_pipe_kills_nobody);
	tcase_add_test(t, a_file_takes_appends_and_gives_them_back_at_any_offset);
	tcase_add_test(t, blocks_kept_for_a_file_are_no_part_of_it_and_free_again_at_its_close);
	tcase_add_test(t, what_cannot_be_opened_says_why);
	tcase_add_test(t, a_full_disk_is_told_apart);
	tcase_add_test(t, a_locked_file_is_busy_until_it_is_closed);
	tcase_add_test(t, a_stored_file_is_replaced_whole);
	tcase_add_test(t, of_two_exclusive_stores_the_first_wins);
	tcase_add_test(t, a_file_larger_than_allowed_is_not_loaded);
	tcase_add_test(t, removing_and_the_time_of_change);
	tcase_add_test(t, folders_are_made_with_their_parents_and_listed_in_byte_order);
	tcase_add_test(t, a_watch_tells_of_writes_new_names_and_removals);
}

int main(void)
{
	TCase *t = tcase_create("env_real");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	add_tests(t);
	return suite_run("env_real", t);
}
