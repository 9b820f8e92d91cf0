#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/simtest.h"
#include "tests/support/suite.h"
/*
 * The simulated world keeps the promises of common/env.h and of common/env_sim.h: time, loops, processes. Sockets and HTTP:
 * test_env_sim_net.c; files: test_env_sim_disk.c.
 */

/* ---- time and loops ------------------------------------------------------------------------------------------- */

struct clocked {
	struct env *env;
	struct env_loop *loop;
	uint64_t asked[20], came[20];
	unsigned n;
};

static uint64_t ask_again(void *arg)
{
	struct clocked *c = arg;
	uint64_t now = env_mono_ns(c->env);
	if (c->n && now < c->asked[c->n - 1])
		return c->asked[c->n - 1];
	if (c->n)
		c->came[c->n - 1] = now;
	if (c->n == 20) {
		env_loop_stop(c->loop);
		return ENV_NEVER;
	}
	c->asked[c->n] = now + c->n * 1000000;
	return c->asked[c->n++];
}

static void clock_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = simtest_nothing, .on_turn = ask_again };
	struct clocked *c = arg;
	c->env = env;
	env_loop_start(env, "clock", &ops, c, &c->loop);
	env_loop_join(c->loop);
}

START_TEST(a_loop_is_called_when_it_asked_for_and_never_before)
{
	struct clocked c = { .n = 0 };
	simtest_run("clock", clock_main, &c);
	for (int i = 0; i < 19; i++) {
		ck_assert_uint_ge(c.came[i], c.asked[i]);
		ck_assert_uint_lt(c.came[i], c.asked[i] + 100000);
	}
}
END_TEST

struct two {
	struct env *env;
	struct env_loop *a, *b;
	unsigned turns_b;
	char order[64];
	unsigned n;
};

static uint64_t wakes_other(void *arg)
{
	struct two *t = arg;
	env_loop_wake(t->b);
	return ENV_NEVER;
}

static uint64_t counts(void *arg)
{
	struct two *t = arg;
	if (++t->turns_b == 2)
		env_loop_stop(t->b);
	return ENV_NEVER;
}

static void two_main(struct env *env, void *arg)
{
	static const struct env_loop_ops a = { .on_turn = wakes_other }, b = { .on_turn = counts };
	struct two *t = arg;
	env_loop_start(env, "b", &b, t, &t->b);
	env_dir_sync(env, ""); /* b sleeps by now */
	ck_assert_uint_eq(t->turns_b, 1);
	env_loop_start(env, "a", &a, t, &t->a);
	env_loop_join(t->b);
	env_loop_stop(t->a);
	env_loop_join(t->a);
}

START_TEST(waking_a_loop_brings_a_turn)
{
	struct two t = { .n = 0 };
	simtest_run("two", two_main, &t);
	ck_assert_uint_eq(t.turns_b, 2);
}
END_TEST

static void says(struct env *env, void *arg)
{
	struct two *t = arg;
	t->order[t->n++] = 'x';
	env_dir_sync(env, ""); /* blocks */
	t->order[t->n++] = 'y';
}

static void sayers_main(struct env *env, void *arg)
{
	sim_thread(sim_find(w, "sayers"), says, arg);
	sim_thread(sim_find(w, "sayers"), says, arg);
	env_dir_sync(env, "");
}

START_TEST(while_one_thread_blocks_the_others_run)
{
	struct two t = { .n = 0 };
	simtest_run("sayers", sayers_main, &t);
	ck_assert_str_eq(t.order, "xxyy");
}
END_TEST

static void sleeps(struct env *env, void *arg)
{
	uint64_t start = env_mono_ns(env);
	while (env_mono_ns(env) < start + 1000000)
		;
	*(uint64_t *)arg = env_mono_ns(env) - start;
}

START_TEST(waiting_for_the_clock_to_move_ends)
{
	uint64_t took = 0;
	simtest_run("sleeps", sleeps, &took);
	ck_assert_uint_ge(took, 1000000);
}
END_TEST

/* ---- processes -------------------------------------------------------------------------------------------------------- */

static void passes(struct env *env, void *arg)
{
	int *n = arg;
	for (int i = 0; i < 10; i++) {
		*n += 1;
		env_failpoint(env, "point");
	}
	*n += 100;
}

START_TEST(a_failpoint_kills_at_its_nth_pass)
{
	int n = 0;
	sim_failpoint(w, "passes", "point", 3);
	simtest_run("passes", passes, &n);
	ck_assert_int_eq(n, 3);
	simtest_run("passes", passes, &n);
	ck_assert_int_eq(n, 113);
	ck_assert_uint_eq(sim_failpoint_passes(w, "point"), 13);
}
END_TEST

static void breaks(struct env *env, void *arg)
{
	(void)env;
	extern void __assert_fail(const char *, const char *, unsigned, const char *) __attribute__((noreturn));
	*(int *)arg = 1;
	__assert_fail("the moon is cheese", "moon.c", 1, "breaks");
}

START_TEST(a_broken_assertion_is_a_failure_with_its_words)
{
	int ran = 0;
	struct sim_process *p = sim_process(w, "breaks", "10.0.0.1", breaks, &ran);
	ck_assert(!sim_run_ms(w, 10));
	ck_assert_int_eq(ran, 1);
	ck_assert(!sim_alive(p));
	ck_assert_ptr_nonnull(strstr(sim_failure(w), "the moon is cheese"));
}
END_TEST

static void wastes(struct env *env, void *arg)
{
	void **first = arg, *p = NULL;
	for (int i = 0; i < 1000; i++) {
		p = malloc(100000);
		memset(p, i, 100000);
		if (i == 0 && !*first)
			*first = p;
		else if (i == 0)
			ck_assert_ptr_eq(p, *first); /* the same calls get the same addresses */
	}
	struct env_file *f;
	env_file_open(env, "x", ENV_CREATE | ENV_WRITE, &f);
	for (;;)
		env_file_append(f, "x", 1);
}

START_TEST(the_memory_of_the_dead_is_forgotten)
{
	void *first = NULL;
	struct sim_process *p = sim_process(w, "wastes", "10.0.0.1", wastes, &first);
	for (int i = 0; i < 50; i++) { /* 5 GB if it were kept */
		sim_run_ms(w, 20);
		ck_assert(sim_alive(p));
		sim_restart(p);
	}
}
END_TEST

static void allocates(struct env *env, void *arg)
{
	(void)env, (void)arg;
	char *p = malloc(10), *q = calloc(3, 7), *r = strdup("text"), *s[3];
	for (int i = 0; i < 3; i++) {
		s[i] = aligned_alloc(64 << i, 1000);
		ck_assert_uint_eq((uintptr_t)s[i] % (64 << i), 0);
		memset(s[i], i, 1000);
	}
	s[1] = realloc(s[1], 5000);
	ck_assert_int_eq(s[1][999], 1);
	for (size_t n = 1; n < 3000000; n = n * 3 / 2 + 1) {
		p = realloc(p, n);
		ck_assert_uint_eq((uintptr_t)p % 16, 0);
		p[n - 1] = (char)n;
		if (n > 1)
			p[0] = 'a';
		ck_assert(n == 1 || p[0] == 'a');
	}
	for (int i = 0; i < 21; i++)
		ck_assert_int_eq(q[i], 0);
	ck_assert_str_eq(r, "text");
	free(p);
	free(q);
	free(r);
	for (int i = 0; i < 3; i++)
		free(s[i]);
}

START_TEST(a_process_has_malloc_and_its_family)
{
	simtest_run("allocates", allocates, NULL);
}
END_TEST

static void starts(struct env *env, void *arg)
{
	(void)env;
	*(unsigned *)arg += 1;
}

START_TEST(who_is_supervised_is_started_again)
{
	unsigned n = 0;
	struct sim_process *p = sim_process(w, "starts", "10.0.0.1", starts, &n);
	sim_supervise(p, 10, 10);
	sim_run_ms(w, 95);
	ck_assert_uint_eq(n, 10);
	ck_assert_uint_eq(sim_starts(p), 10);
}
END_TEST

static void on_term(void *arg, int signo)
{
	*(int *)arg = signo;
}

static void catches(void *arg, struct env_loop *loop)
{
	env_signal(loop, SIGTERM, on_term, arg);
}

static void catcher_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = catches, .on_turn = simtest_never };
	struct env_loop *loop;
	env_loop_start(env, "catcher", &ops, arg, &loop);
}

START_TEST(a_signal_goes_to_its_handler_or_kills)
{
	int got = 0;
	struct sim_process *p = sim_process(w, "catcher", "10.0.0.1", catcher_main, &got);
	sim_run_ms(w, 10);
	sim_signal(p, SIGTERM);
	sim_run_ms(w, 10);
	ck_assert_int_eq(got, SIGTERM);
	sim_signal(p, SIGHUP);
	ck_assert(!sim_alive(p));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("world");

	tcase_add_checked_fixture(t, simtest_set_up, simtest_tear_down);
	tcase_set_timeout(t, 60); /* some touch much memory, which a busy machine gives slowly */
	tcase_add_test(t, a_loop_is_called_when_it_asked_for_and_never_before);
	tcase_add_test(t, waking_a_loop_brings_a_turn);
	tcase_add_test(t, while_one_thread_blocks_the_others_run);
	tcase_add_test(t, waiting_for_the_clock_to_move_ends);
	tcase_add_test(t, a_failpoint_kills_at_its_nth_pass);
	tcase_add_test(t, a_broken_assertion_is_a_failure_with_its_words);
	tcase_add_test(t, the_memory_of_the_dead_is_forgotten);
	tcase_add_test(t, a_process_has_malloc_and_its_family);
	tcase_add_test(t, who_is_supervised_is_started_again);
	tcase_add_test(t, a_signal_goes_to_its_handler_or_kills);
	return suite_run("env_sim", t);
}
