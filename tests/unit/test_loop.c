/* The promises of common/loop.h, on the real environment. */
#include "common/loop.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/flag.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"

static struct env *env;
static struct loop *loop, *other;
static struct flag flag;
static char order[64];

static void setup(void)
{
	env = env_new();
	loop = on_loop_new(env, "worker");
	other = on_loop_new(env, "other");
	flag_init(&flag);
	order[0] = '\0';
}

static void teardown(void)
{
	on_loop_free(other);
	on_loop_free(loop);
	env_free(env);
}

static void note(const char *what)
{
	strncat(order, what, sizeof order - strlen(order) - 1);
}

/* ---- posting ---- */

struct numbered {
	struct inbox_msg msg;
	unsigned long number;
};
static unsigned long expected;

static void numbered_run(struct inbox_msg *m)
{
	struct numbered *n = (struct numbered *)m;
	loop_assert_owner(loop);
	ck_assert_uint_eq(n->number, expected);
	expected++;
	free(n);
	flag_raise(&flag);
}

static void post_many(void *arg)
{
	unsigned long count = *(unsigned long *)arg;
	for (unsigned long i = 0; i < count; i++) {
		struct numbered *n = malloc(sizeof *n);
		*n = (struct numbered){ .msg.run = numbered_run, .number = i };
		loop_post(loop, &n->msg);
	}
}

START_TEST(messages_from_another_worker_arrive_in_order_on_the_owner)
{
	unsigned long count = 20000;
	on_loop(other, post_many, &count);
	ck_assert(flag_wait(&flag, count));
}
END_TEST

START_TEST(a_worker_may_post_to_itself)
{
	unsigned long count = 1000;
	on_loop(loop, post_many, &count);
	ck_assert(flag_wait(&flag, count));
}
END_TEST

static void ping(void *arg);

static void pong(void *arg)
{
	loop_call(loop, ping, arg);
}

static void ping(void *arg)
{
	unsigned long *left = arg;
	if (--*left)
		loop_call(other, pong, left);
	else
		flag_raise(&flag);
}

START_TEST(no_wake_up_is_lost_in_ten_thousand_round_trips_between_two_workers)
{
	unsigned long left = 10000;
	loop_call(loop, ping, &left);
	ck_assert(flag_wait(&flag, 1));
}
END_TEST

static void raise_flag(void *arg)
{
	flag_raise(arg);
}

static void crowd(void *arg)
{
	for (int i = 0; i < 10000; i++)
		loop_call(arg, raise_flag, &flag);
}

START_TEST(many_producers_lose_no_message)
{
	struct loop *more = on_loop_new(env, "more");
	loop_call(other, crowd, loop);
	loop_call(more, crowd, loop);
	crowd(loop);
	ck_assert(flag_wait(&flag, 30000));
	on_loop_free(more);
}
END_TEST

static void late(void *arg)
{
	note(arg);
}

static void stop_then_call(void *arg)
{
	loop_call(arg, late, "ran ");
	loop_stop(arg);
}

START_TEST(what_was_posted_before_the_stop_runs_what_comes_after_the_end_is_dropped)
{
	struct loop *ending = on_loop_new(env, "ending");
	loop_call(ending, stop_then_call, ending);
	loop_join(ending);
	ck_assert_str_eq(order, "ran ");
}
END_TEST

/* ---- timers ---- */

struct alarm {
	struct timer timer;
	uint64_t asked_ns, in_ms, fired_ns;
	unsigned fired;
};

static void alarm_fire(struct timer *t, uint64_t now_ms)
{
	struct alarm *a = (struct alarm *)t;
	(void)now_ms;
	a->fired_ns = env_mono_ns(env);
	a->fired++;
	flag_raise(&flag);
}

static void alarm_start(void *arg)
{
	struct alarm *a = arg;
	a->timer.fire = alarm_fire;
	a->asked_ns = env_mono_ns(env);
	loop_timer(loop, &a->timer, a->in_ms);
}

START_TEST(a_timer_fires_after_its_time_and_never_before)
{
	for (uint64_t in_ms = 0; in_ms < 30; in_ms += 3) {
		struct alarm a = { .in_ms = in_ms };
		on_loop(loop, alarm_start, &a);
		ck_assert(flag_wait(&flag, in_ms / 3 + 1));
		ck_assert_uint_ge(a.fired_ns - a.asked_ns, in_ms * 1000000);
		ck_assert_uint_lt(a.fired_ns - a.asked_ns, (in_ms + 30000) * 1000000);
	}
}
END_TEST

START_TEST(an_earlier_timer_is_not_held_up_by_a_later_one)
{
	struct alarm far = { .in_ms = 60000 }, near = { .in_ms = 5 };
	on_loop(loop, alarm_start, &far);
	on_loop(loop, alarm_start, &near);
	ck_assert(flag_wait(&flag, 1));
	ck_assert_uint_eq(near.fired, 1);
	ck_assert_uint_eq(far.fired, 0);
}
END_TEST

static void alarm_start_and_stop(void *arg)
{
	struct alarm *a = arg;
	alarm_start(a);
	loop_timer_stop(loop, &a->timer);
}

START_TEST(a_stopped_timer_does_not_fire)
{
	struct alarm stopped = { .in_ms = 20 }, after = { .in_ms = 40 };
	on_loop(loop, alarm_start_and_stop, &stopped);
	on_loop(loop, alarm_start, &after);
	ck_assert(flag_wait(&flag, 1));
	ck_assert_uint_eq(stopped.fired, 0);
	ck_assert_uint_eq(after.fired, 1);
}
END_TEST

static void clock_is_fresh(void *arg)
{
	(void)arg;
	ck_assert_uint_le(env_mono_ns(env) - loop->now_ns, UINT64_C(30000000000));
	ck_assert_uint_eq(loop->now_ms, loop->now_ns / 1000000);
	uint64_t now_ms = loop_clock_ms(loop);
	ck_assert_uint_eq(now_ms, loop->now_ms);
}

START_TEST(the_clock_is_read_anew_after_a_sleep)
{
	struct alarm a = { .in_ms = 30 };
	on_loop(loop, alarm_start, &a);
	ck_assert(flag_wait(&flag, 1));
	on_loop(loop, clock_is_fresh, NULL);
}
END_TEST

struct seen { /* of a folder's change */
	char *dir;
	struct env_watch *watch;
	uint64_t now_ns;
};

static void on_change(void *arg)
{
	struct seen *s = arg;
	s->now_ns = s->now_ns ? s->now_ns : loop->now_ns; /* of the first: more may come */
	flag_raise(&flag);
}

static void watch_it(void *arg)
{
	struct seen *s = arg;
	ck_assert_int_eq(env_watch(loop->ev, s->dir, on_change, s, &s->watch), 0);
}

static void watch_no_more(void *arg)
{
	env_watch_close(((struct seen *)arg)->watch);
}

START_TEST(what_wakes_the_worker_finds_the_clock_of_now)
{
	struct seen s = { .dir = folder_new() };
	on_loop(loop, watch_it, &s);
	uint64_t before = env_mono_ns(env);
	folder_write(s.dir, "file", "x", 1);
	ck_assert(flag_wait(&flag, 1));
	ck_assert_uint_ge(s.now_ns, before);
	on_loop(loop, watch_no_more, &s);
	folder_free(s.dir);
}
END_TEST

static void count_turns(void *arg)
{
	*(uint64_t *)arg = loop->turns;
}

START_TEST(an_idle_worker_sleeps)
{
	uint64_t before, after;
	struct alarm a = { .in_ms = 60000 }, pause = { .in_ms = 100 };
	on_loop(loop, alarm_start, &a);
	on_loop(loop, count_turns, &before);
	on_loop(loop, alarm_start, &pause);
	ck_assert(flag_wait(&flag, 1));
	on_loop(loop, count_turns, &after);
	ck_assert_uint_le(after - before, 20);
}
END_TEST

/* ---- polling ---- */

static void poll_long(void *arg)
{
	(void)arg;
	env_loop_poll(loop->ev, 10000);
}

static double cpu_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* A timer alone keeps no core busy. */
struct ticks {
	struct timer timer;
	int left;
};

static void on_tick(struct timer *t, uint64_t now_ms)
{
	struct ticks *ticks = (struct ticks *)t;
	(void)now_ms;
	if (--ticks->left > 0)
		loop_timer(loop, t, 5);
	else
		flag_raise(&flag);
}

static void ticks_start(void *arg)
{
	loop_timer(loop, &((struct ticks *)arg)->timer, 5);
}

START_TEST(a_worker_that_polls_takes_messages_and_timers_and_sleeps_when_idle)
{
	struct alarm a = { .in_ms = 3 };
	struct ticks ticks = { .timer.fire = on_tick, .left = 60 };
	on_loop(loop, poll_long, NULL);
	for (int i = 0; i < 200; i++)
		on_loop(loop, clock_is_fresh, NULL);
	on_loop(loop, alarm_start, &a); /* due while it polls */
	ck_assert(flag_wait(&flag, 1));
	on_loop(loop, ticks_start, &ticks);
	double before = cpu_ms();
	uint64_t from_ns = env_mono_ns(env);
	ck_assert(flag_wait(&flag, 2));
	double took_ms = (double)(env_mono_ns(env) - from_ns) / 1e6; /* 300 at least, and 10 of it polling */
	ck_assert_double_lt(cpu_ms() - before, took_ms / 2);
}
END_TEST

/* ---- deferring ---- */

struct later {
	struct loop_deferred d;
	struct later *then;
	const char *name;
};

static void later_run(struct loop_deferred *d)
{
	struct later *l = (struct later *)d;
	note(l->name);
	if (l->then)
		loop_defer(loop, &l->then->d);
	l->then = NULL;
}

static struct later first, second, third;

static void defer_them(void *arg)
{
	(void)arg;
	first = (struct later){ .d.run = later_run, .name = "1", .then = &third };
	second = (struct later){ .d.run = later_run, .name = "2" };
	third = (struct later){ .d.run = later_run, .name = "3" };
	loop_defer(loop, &first.d);
	loop_defer(loop, &second.d);
	loop_defer(loop, &first.d);
	note("turn ");
}

START_TEST(deferred_work_runs_once_in_order_at_the_end_of_the_turn_with_what_it_defers)
{
	on_loop(loop, defer_them, NULL);
	on_loop_turns(loop);
	ck_assert_str_eq(order, "turn 123");
}
END_TEST

struct again {
	struct loop_deferred d;
	unsigned left;
};

static void again_run(struct loop_deferred *d)
{
	struct again *a = (struct again *)d;
	note(".");
	if (--a->left)
		loop_defer(loop, d);
}

static void defer_again(void *arg)
{
	struct again *a = arg;
	a->left = 3;
	note("turn");
	loop_defer(loop, &a->d);
}

START_TEST(deferred_work_may_defer_itself_anew_in_its_turn_and_in_later_ones)
{
	static struct again a = { .d.run = again_run };
	for (unsigned i = 0; i < 2; i++) {
		on_loop(loop, defer_again, &a);
		on_loop_turns(loop);
	}
	ck_assert_str_eq(order, "turn...turn...");
}
END_TEST

static void take_back(void *arg)
{
	defer_them(arg);
	loop_defer_not(loop, &second.d);
	loop_defer_not(loop, &second.d);
	loop_defer(loop, &second.d);
	loop_defer_not(loop, &first.d);
	loop_defer_not(loop, &second.d);
	loop_defer(loop, &third.d);
}

START_TEST(deferred_work_may_be_taken_back)
{
	on_loop(loop, take_back, NULL);
	on_loop_turns(loop);
	ck_assert_str_eq(order, "turn 3");
	on_loop(loop, take_back, NULL); /* and what is deferred after one that was taken back, in another turn too */
	on_loop_turns(loop);
	ck_assert_str_eq(order, "turn 3turn 3");
}
END_TEST

/* ---- starting and ending ---- */

static void on_start(struct loop *self, void *arg)
{
	ck_assert_ptr_eq(*(struct loop **)arg, self);
	ck_assert_uint_eq(self->index, 7);
	ck_assert_str_eq(self->name, "seven");
	loop_assert_owner(self);
	note("start ");
}

static struct later at_end = { .d.run = later_run, .name = "deferred" };

static void on_stop(struct loop *self, void *arg)
{
	(void)arg;
	loop_assert_owner(self);
	note("stop ");
	loop_defer(self, &at_end.d);
}

START_TEST(a_worker_starts_and_stops_on_its_own_thread)
{
	struct loop *l = NULL;
	ck_assert_int_eq(loop_start(env, "seven", 7, on_start, on_stop, &l, &l), 0);
	on_loop(l, late, "between ");
	loop_stop(l);
	loop_join(l);
	ck_assert_str_eq(order, "start between stop deferred");
}
END_TEST

START_TEST(a_call_from_a_foreign_thread_is_our_bug_and_ends_the_process)
{
	struct loop_deferred d = { 0 };
	loop_defer(loop, &d);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("loop");
	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, messages_from_another_worker_arrive_in_order_on_the_owner);
	tcase_add_test(t, a_worker_may_post_to_itself);
	tcase_add_test(t, no_wake_up_is_lost_in_ten_thousand_round_trips_between_two_workers);
	tcase_add_test(t, many_producers_lose_no_message);
	tcase_add_test(t, what_was_posted_before_the_stop_runs_what_comes_after_the_end_is_dropped);
	tcase_add_test(t, a_timer_fires_after_its_time_and_never_before);
	tcase_add_test(t, an_earlier_timer_is_not_held_up_by_a_later_one);
	tcase_add_test(t, a_stopped_timer_does_not_fire);
	tcase_add_test(t, the_clock_is_read_anew_after_a_sleep);
	tcase_add_test(t, what_wakes_the_worker_finds_the_clock_of_now);
	tcase_add_test(t, an_idle_worker_sleeps);
	tcase_add_test(t, a_worker_that_polls_takes_messages_and_timers_and_sleeps_when_idle);
	tcase_add_test(t, deferred_work_may_be_taken_back);
	tcase_add_test(t, deferred_work_may_defer_itself_anew_in_its_turn_and_in_later_ones);
	tcase_add_test(t, deferred_work_runs_once_in_order_at_the_end_of_the_turn_with_what_it_defers);
	tcase_add_test(t, a_worker_starts_and_stops_on_its_own_thread);
	tcase_add_test_raise_signal(t, a_call_from_a_foreign_thread_is_our_bug_and_ends_the_process, 6);
	return suite_run("loop", t);
}
