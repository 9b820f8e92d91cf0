#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env_sim.h"
#include "common/err.h"
#include "tests/support/suite.h"
/*
 * The simulated world keeps the promises of common/env.h and of common/env_sim.h.
 */
static struct sim *w;

static void set_up(void)
{
	w = sim_new(7);
	sim_calm(w);
}

static void tear_down(void)
{
	sim_free(w);
}

static void no_turns(void *arg, struct env_loop *loop)
{
	(void)arg, (void)loop;
}
static uint64_t never(void *arg)
{
	return (void)arg, ENV_NEVER;
}

static bool is_dead(void *arg)
{
	return !sim_alive(arg);
}

/* Runs fn as a process of its own to its end. */
static void run(const char *name, void (*fn)(struct env *env, void *arg), void *arg)
{
	struct sim_process *p = sim_find(w, name);
	if (p)
		sim_restart(p);
	else
		p = sim_process(w, name, "10.0.0.1", fn, arg);
	ck_assert(sim_until(w, 100000, is_dead, p));
}

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
	static const struct env_loop_ops ops = { .on_start = no_turns, .on_turn = ask_again };
	struct clocked *c = arg;
	c->env = env;
	env_loop_start(env, "clock", &ops, c, &c->loop);
	env_loop_join(c->loop);
}

START_TEST(a_loop_is_called_when_it_asked_for_and_never_before)
{
	struct clocked c = { .n = 0 };
	run("clock", clock_main, &c);
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
	run("two", two_main, &t);
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
	run("sayers", sayers_main, &t);
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
	run("sleeps", sleeps, &took);
	ck_assert_uint_ge(took, 1000000);
}
END_TEST

/* ---- sockets ---------------------------------------------------------------------------------------------------- */

struct side {
	struct env *env;
	struct env_loop *loop;
	struct env_listener *listener;
	struct env_conn *conn;
	int connect_err, ended; /* 1: nothing yet */
	bool hold, opened, close_after;
	uint64_t sent, got, sum, wrong, agains, to_send;
	bool shut_when_sent, shut;
};

static void push_bytes(struct side *s)
{
	char buf[3000];
	while (s->sent < s->to_send && !s->hold) {
		size_t n = s->to_send - s->sent < sizeof(buf) ? s->to_send - s->sent : sizeof(buf);
		for (size_t i = 0; i < n; i++)
			buf[i] = (char)((s->sent + i) * 131 >> 3);
		struct iovec iov[2] = { { buf, n / 2 }, { buf + n / 2, n - n / 2 } };
		ssize_t put = env_conn_write(s->conn, iov, 2);
		if (put == ERR_AGAIN) {
			s->agains++;
			env_conn_want_write(s->conn, true);
			return;
		}
		if (put < 0) {
			s->ended = (int)put;
			return;
		}
		s->sent += (uint64_t)put;
	}
	env_conn_want_write(s->conn, false);
	if (s->shut_when_sent && !s->shut) {
		env_conn_shutdown(s->conn);
		s->shut = true;
	}
}

static void pull_bytes(void *arg)
{
	struct side *s = arg;
	char buf[1000];
	ssize_t n = env_conn_read(s->conn, buf, sizeof(buf));
	if (n == ERR_AGAIN)
		return;
	if (n <= 0) {
		s->ended = (int)n;
		env_conn_close(s->conn);
		s->conn = NULL;
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		s->wrong += buf[i] != (char)((s->got + (uint64_t)i) * 131 >> 3);
	s->got += (uint64_t)n;
}

static void may_write(void *arg)
{
	push_bytes(arg);
}

static void was_connected(void *arg, int err)
{
	struct side *s = arg;
	s->connect_err = err;
	if (err < 0) {
		env_conn_close(s->conn);
		s->conn = NULL;
		return;
	}
	s->opened = true;
	push_bytes(s);
}

static const struct env_conn_ops conn_ops = { .on_readable = pull_bytes,
					      .on_writable = may_write,
					      .on_connected = was_connected };

static void was_accepted(void *arg, struct env_conn *conn)
{
	struct side *s = arg;
	s->conn = conn;
	s->opened = true;
	env_conn_attach(conn, s->loop, &conn_ops, s);
	push_bytes(s);
}

static void listens(void *arg, struct env_loop *loop)
{
	struct side *s = arg;
	env_listen(loop, "0.0.0.0", 99, was_accepted, s, &s->listener);
}

static void connects(void *arg, struct env_loop *loop)
{
	struct side *s = arg;
	env_connect(loop, "10.0.0.1", 99, &conn_ops, s, &s->conn);
}

static void server_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = listens, .on_turn = never };
	struct side *s = arg;
	s->env = env;
	env_loop_start(env, "server", &ops, s, &s->loop);
}

static void client_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = connects, .on_turn = never };
	struct side *s = arg;
	s->env = env;
	env_loop_start(env, "client", &ops, s, &s->loop);
}

static void sends_now(struct env *env, void *arg)
{
	(void)env;
	push_bytes(arg);
}

static struct side a, b; /* server, client */

static void set_up_pair(void)
{
	set_up();
	a = b = (struct side){ .connect_err = 1, .ended = 1 };
	sim_process(w, "a", "10.0.0.1", server_main, &a);
	sim_run_ms(w, 10);
}

static void start_client(void)
{
	sim_process(w, "b", "10.0.0.2", client_main, &b);
}

START_TEST(bytes_arrive_whole_and_in_order_whatever_the_cuts)
{
	*sim_chances(w) = (struct sim_chances){ .wake_us_max = 10,
						.delay_us_min = 1,
						.delay_us_max = 900,
						.split_ppm = 500000,
						.short_ppm = 500000,
						.buffer_min = 2000,
						.buffer_max = 2000 };
	a.to_send = 100000;
	b.to_send = 50000;
	start_client();
	sim_run_ms(w, 20000);
	ck_assert_uint_eq(b.got, 100000);
	ck_assert_uint_eq(a.got, 50000);
	ck_assert_uint_eq(a.wrong + b.wrong, 0);
	ck_assert_uint_gt(a.agains, 0);
}
END_TEST

START_TEST(connecting_where_nobody_listens_is_unavailable)
{
	sim_kill(sim_find(w, "a"));
	start_client();
	sim_run_ms(w, 100);
	ck_assert_int_eq(b.connect_err, ERR_UNAVAILABLE);
}
END_TEST

START_TEST(a_half_closed_connection_still_carries_the_other_way)
{
	b.to_send = 5000;
	b.shut_when_sent = true;
	start_client();
	sim_run_ms(w, 100);
	ck_assert_uint_eq(a.got, 5000);
	ck_assert_int_eq(a.ended, 0);
	ck_assert_int_eq(b.ended, 0); /* a closed when it saw the end */
}
END_TEST

START_TEST(a_reset_is_told_to_both_sides)
{
	start_client();
	sim_run_ms(w, 100);
	sim_link_reset(w, "b", NULL);
	sim_run_ms(w, 10);
	ck_assert_int_eq(a.ended, ERR_CLOSED);
	ck_assert_int_eq(b.ended, ERR_CLOSED);
}
END_TEST

START_TEST(a_stalled_link_fails_nothing_and_delivers_later)
{
	start_client();
	sim_run_ms(w, 100);
	sim_link_stall(w, "a", "b", true);
	a.to_send = 1000;
	sim_thread(sim_find(w, "a"), sends_now, &a);
	sim_run_ms(w, 60000);
	ck_assert_uint_eq(a.sent, 1000);
	ck_assert_uint_eq(b.got, 0);
	sim_link_stall(w, "a", "b", false);
	sim_run_ms(w, 10);
	ck_assert_uint_eq(b.got, 1000);
	ck_assert_int_eq(b.ended, 1);
}
END_TEST

START_TEST(a_stalled_process_connects_when_the_link_is_back)
{
	sim_process(w, "b", "10.0.0.2", client_main, &b);
	sim_partition(w, "b", true);
	sim_run_ms(w, 5000);
	ck_assert_int_eq(b.connect_err, 1);
	sim_partition(w, "b", false);
	sim_run_ms(w, 2000);
	ck_assert_int_eq(b.connect_err, 0);
}
END_TEST

START_TEST(a_killed_process_closes_its_connections)
{
	start_client();
	sim_run_ms(w, 100);
	ck_assert(b.opened);
	sim_kill(sim_find(w, "a"));
	sim_run_ms(w, 10);
	ck_assert_int_eq(b.ended, 0);
}
END_TEST

START_TEST(of_a_machine_without_power_nobody_hears)
{
	start_client();
	sim_run_ms(w, 100);
	sim_crash_host(w, "10.0.0.1");
	sim_run_ms(w, 60000);
	ck_assert_int_eq(b.ended, 1);
}
END_TEST

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
	run("writer", writes_half_synced, NULL);
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
		run("writer", writes_half_synced, NULL);
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
		run("cutter", cuts, NULL);
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
	run("filler", fills, NULL);
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
	run("locker", locks, &passed);
	run("locker", locks, &passed);
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
	run("reader", reads_source, NULL);
	FILE *f = fopen("common/aaa", "r");
	ck_assert_ptr_null(f);
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
	run("passes", passes, &n);
	ck_assert_int_eq(n, 3);
	run("passes", passes, &n);
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
	run("allocates", allocates, NULL);
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
	static const struct env_loop_ops ops = { .on_start = catches, .on_turn = never };
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

/* ---- HTTP --------------------------------------------------------------------------------------------------------------- */

struct web {
	struct env_loop *loop;
	struct env_http *http;
	struct env_http_request *kept;
	int status, err, again;
	char body[64];
};

static void on_request(void *arg, struct env_http_request *r)
{
	static const char *const headers[] = { "X-Test: 1", NULL };
	struct web *web = arg;
	char text[200];
	size_t n;
	const char *body = env_http_body(r, &n), *name = env_http_query(r, "name"), *key = env_http_header(r, "x-key");
	if (strcmp(env_http_path(r), "/slow") == 0) {
		web->kept = r;
		return;
	}
	snprintf(text, sizeof(text), "%s %s %s %s %.*s", env_http_method(r), env_http_path(r), name ? name : "-",
		 key ? key : "-", (int)n, body);
	env_http_reply(r, 201, "text/plain", headers, text, strlen(text));
}

static void serves(void *arg, struct env_loop *loop)
{
	struct web *web = arg;
	ck_assert_int_eq(env_http_listen(loop, "0.0.0.0", 8000, on_request, web, &web->http), 0);
	web->again = env_http_listen(loop, "0.0.0.0", 8000, on_request, web, &web->http);
}

static void web_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = serves, .on_turn = never };
	struct web *web = arg;
	env_loop_start(env, "web", &ops, web, &web->loop);
}

static void on_answer(void *arg, const struct env_http_answer *answer)
{
	struct web *web = arg;
	web->err = answer->err;
	web->status = answer->status;
	snprintf(web->body, sizeof(web->body), "%s", answer->body);
}

static void calls(void *arg, struct env_loop *loop)
{
	static const char *const headers[] = { "X-Key: k", NULL };
	ck_assert_int_eq(env_http_call(loop, "10.0.0.1", 8000, "POST", "/a%20b?name=x+%26y&z", headers, "body", 4, 1000,
				       on_answer, arg),
			 0);
}

static void calls_slow(void *arg, struct env_loop *loop)
{
	env_http_call(loop, "10.0.0.1", 8000, "GET", "/slow", NULL, NULL, 0, 1000, on_answer, arg);
}

static void caller_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = calls, .on_turn = never };
	struct env_loop *loop;
	env_loop_start(env, "caller", &ops, arg, &loop);
}

static void slow_caller_main(struct env *env, void *arg)
{
	static const struct env_loop_ops ops = { .on_start = calls_slow, .on_turn = never };
	struct env_loop *loop;
	env_loop_start(env, "caller", &ops, arg, &loop);
}

START_TEST(a_request_reaches_who_listens_and_its_answer_comes_back)
{
	struct web server = { .again = 0 }, client = { .err = 1 };
	struct sim_http_answer answer;
	sim_process(w, "web", "10.0.0.1", web_main, &server);
	sim_run_ms(w, 10);
	ck_assert_int_eq(server.again, ERR_EXISTS);
	sim_process(w, "caller", "10.0.0.2", caller_main, &client);
	sim_run_ms(w, 10);
	ck_assert_int_eq(client.err, 0);
	ck_assert_int_eq(client.status, 201);
	ck_assert_str_eq(client.body, "POST /a b x &y k body");
	ck_assert_int_eq(sim_http(w, "web", 8000, "GET", "/x", NULL, NULL, 0, 1000, &answer), 201);
	ck_assert_str_eq(answer.body, "GET /x - - ");
	ck_assert_str_eq(answer.content_type, "text/plain");
	sim_http_release(&answer);
}
END_TEST

START_TEST(a_request_without_an_answer_ends_in_an_error)
{
	struct web server = { .again = 0 }, client = { .err = 1 };
	struct sim_http_answer answer;
	sim_process(w, "web", "10.0.0.1", web_main, &server);
	struct sim_process *p = sim_process(w, "caller", "10.0.0.2", slow_caller_main, &client);
	sim_run_ms(w, 2000);
	ck_assert_int_eq(client.err, ERR_TIMEOUT);
	client.err = 1;
	sim_restart(p);
	sim_run_ms(w, 10);
	ck_assert_int_eq(sim_http(w, "web", 8000, "GET", "/slow", NULL, NULL, 0, 5, &answer), ERR_TIMEOUT);
	sim_kill(sim_find(w, "web"));
	sim_run_ms(w, 10);
	ck_assert_int_eq(client.err, ERR_UNAVAILABLE);
	ck_assert_int_eq(sim_http(w, "web", 8000, "GET", "/x", NULL, NULL, 0, 1000, &answer), ERR_UNAVAILABLE);
	sim_http_release(&answer);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("world"), *net = tcase_create("sockets");
	tcase_add_checked_fixture(t, set_up, tear_down);
	tcase_add_test(t, a_loop_is_called_when_it_asked_for_and_never_before);
	tcase_add_test(t, waking_a_loop_brings_a_turn);
	tcase_add_test(t, while_one_thread_blocks_the_others_run);
	tcase_add_test(t, waiting_for_the_clock_to_move_ends);
	tcase_add_test(t, what_was_written_survives_a_kill);
	tcase_add_test(t, power_off_takes_only_what_was_not_synced);
	tcase_add_test(t, a_cut_that_is_not_synced_may_be_undone_by_power_off);
	tcase_add_test(t, a_stored_file_is_whole_old_or_new_after_any_death);
	tcase_add_test(t, a_full_or_failing_disk_says_so);
	tcase_add_test(t, a_lock_excludes_others_and_ends_with_its_holder);
	tcase_add_test(t, real_files_below_the_root_can_be_read_and_stay_unharmed);
	tcase_add_test(t, a_failpoint_kills_at_its_nth_pass);
	tcase_add_test(t, a_broken_assertion_is_a_failure_with_its_words);
	tcase_add_test(t, the_memory_of_the_dead_is_forgotten);
	tcase_add_test(t, a_process_has_malloc_and_its_family);
	tcase_add_test(t, who_is_supervised_is_started_again);
	tcase_add_test(t, a_signal_goes_to_its_handler_or_kills);
	tcase_add_test(t, a_request_reaches_who_listens_and_its_answer_comes_back);
	tcase_add_test(t, a_request_without_an_answer_ends_in_an_error);
	tcase_add_checked_fixture(net, set_up_pair, tear_down);
	tcase_add_test(net, bytes_arrive_whole_and_in_order_whatever_the_cuts);
	tcase_add_test(net, connecting_where_nobody_listens_is_unavailable);
	tcase_add_test(net, a_half_closed_connection_still_carries_the_other_way);
	tcase_add_test(net, a_reset_is_told_to_both_sides);
	tcase_add_test(net, a_stalled_link_fails_nothing_and_delivers_later);
	tcase_add_test(net, a_stalled_process_connects_when_the_link_is_back);
	tcase_add_test(net, a_killed_process_closes_its_connections);
	tcase_add_test(net, of_a_machine_without_power_nobody_hears);
	tcase_set_timeout(t, 60); /* some touch much memory, which a busy machine gives slowly */
	tcase_set_timeout(net, 60);
	return suite_run("env_sim", t, net);
}
