#include <check.h>
#include <stdlib.h>
#include "common/wheel.h"
#include "tests/support/suite.h"

/* ck_assert tells the parent process of each pass, too slow for millions of them */
#define must(cond, ...)                            \
	do {                                       \
		if (!(cond))                       \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

struct probe {
	struct timer timer;
	struct wheel *w;
	struct probe *other; /* what fire acts on, if anything */
	uint64_t again_ms;   /* fire starts itself anew this much later; 0: not */
	uint64_t fired, fired_at;
	unsigned order, *orders;
};

static void count(struct timer *t, uint64_t now_ms)
{
	struct probe *p = (struct probe *)t;
	must(now_ms >= t->due_ms && !timer_running(t), "fired too early, or while it runs");
	p->fired++;
	p->fired_at = now_ms;
	if (p->orders)
		p->order = ++*p->orders;
}

static void again(struct timer *t, uint64_t now_ms)
{
	struct probe *p = (struct probe *)t;
	count(t, now_ms);
	wheel_start(p->w, t, now_ms + p->again_ms);
}

static void stop_other(struct timer *t, uint64_t now_ms)
{
	struct probe *p = (struct probe *)t;
	count(t, now_ms);
	ck_assert(wheel_stop(p->w, &p->other->timer));
}

static struct wheel *w;

static void setup(void)
{
	w = wheel_new(0);
}

static void teardown(void)
{
	ck_assert(wheel_check(w));
	wheel_free(w);
}

START_TEST(a_timer_never_fires_early)
{
	struct probe p = { .timer.fire = count };
	wheel_start(w, &p.timer, 100);
	ck_assert_uint_eq(wheel_run(w, 99, 10), 0);
	ck_assert_uint_eq(wheel_run(w, 100, 10), 1);
	ck_assert_uint_eq(p.fired, 1);
	ck_assert_uint_eq(wheel_run(w, 1000, 10), 0);
}
END_TEST

START_TEST(every_distance_fires_at_its_due_time)
{
	static const uint64_t dues[] = { 0,          1,          2,
					 255,        256,        257,
					 511,        512,        513,
					 65535,      65536,      65537,
					 131071,     131072,     16777215,
					 16777216,   33554432,   1u << 30,
					 1ull << 32, 1ull << 33, (1ull << 40) - 1,
					 1ull << 40, 1ull << 41, (1ull << 43) + 7 };
	for (size_t i = 0; i < sizeof dues / sizeof *dues; i++) {
		struct probe p = { .timer.fire = count };
		struct wheel *own = wheel_new(5);
		uint64_t next;
		unsigned wakes = 0;
		wheel_start(own, &p.timer, 5 + dues[i]);
		while ((next = wheel_next_ms(own)) != UINT64_MAX) {
			must(next <= 5 + dues[i], "would oversleep");
			wheel_run(own, next, 10);
			must(wheel_check(own) && ++wakes < 5000, "broken, or awake too often");
		}
		ck_assert_uint_eq(p.fired, 1);
		ck_assert_uint_eq(p.fired_at, 5 + dues[i]);
		if (dues[i] < UINT64_C(1) << 40)
			ck_assert_uint_le(wakes, 6); /* at most one per level and the firing: idle means idle */
		wheel_free(own);
	}
}
END_TEST

START_TEST(a_due_time_in_the_past_fires_at_the_next_run)
{
	struct probe p = { .timer.fire = count };
	wheel_run(w, 1000, 10);
	wheel_start(w, &p.timer, 10);
	ck_assert_uint_le(wheel_next_ms(w), 1000);
	ck_assert_uint_eq(wheel_run(w, 1000, 10), 1);
}
END_TEST

START_TEST(the_end_of_time_never_comes)
{
	struct probe p = { .timer.fire = count };
	wheel_start(w, &p.timer, UINT64_MAX);
	ck_assert_uint_eq(wheel_run(w, UINT64_C(1) << 50, 10), 0);
	ck_assert(wheel_check(w));
	ck_assert(wheel_stop(w, &p.timer));
}
END_TEST

START_TEST(a_stopped_timer_does_not_fire)
{
	struct probe p = { .timer.fire = count };
	wheel_start(w, &p.timer, 100);
	ck_assert(timer_running(&p.timer));
	ck_assert(wheel_stop(w, &p.timer));
	ck_assert(!timer_running(&p.timer));
	ck_assert_uint_eq(wheel_run(w, 200, 10), 0);
	ck_assert_uint_eq(wheel_next_ms(w), UINT64_MAX);
}
END_TEST

START_TEST(stopping_one_that_does_not_run_says_so)
{
	struct probe p = { .timer.fire = count };
	ck_assert(!wheel_stop(w, &p.timer));
	wheel_start(w, &p.timer, 1);
	wheel_run(w, 1, 1);
	ck_assert(!wheel_stop(w, &p.timer));
}
END_TEST

START_TEST(starting_again_moves_it)
{
	struct probe p = { .timer.fire = count };
	wheel_start(w, &p.timer, 100);
	wheel_start(w, &p.timer, 5000);
	ck_assert_uint_eq(wheel_count(w), 1);
	ck_assert_uint_eq(wheel_run(w, 4999, 10), 0);
	ck_assert_uint_eq(wheel_run(w, 5000, 10), 1);
}
END_TEST

START_TEST(moved_to_later_again_and_again_it_fires_once_at_the_last_time)
{
	struct probe p = { .timer.fire = count };
	for (uint64_t due = 10; due <= 5000; due += 10) {
		wheel_start(w, &p.timer, due);
		ck_assert_uint_eq(wheel_run(w, due - 5, 10), 0);
	}
	ck_assert_uint_eq(wheel_count(w), 1);
	ck_assert_uint_eq(wheel_run(w, 4999, 10), 0);
	ck_assert_uint_eq(wheel_run(w, 5000, 10), 1);
	ck_assert_uint_eq(p.fired, 1);
}
END_TEST

START_TEST(moved_to_later_and_then_to_earlier_it_fires_at_the_earlier)
{
	struct probe p = { .timer.fire = count };
	wheel_start(w, &p.timer, 100);
	wheel_start(w, &p.timer, 70000);
	wheel_start(w, &p.timer, 300);
	ck_assert_uint_eq(wheel_run(w, 299, 10), 0);
	ck_assert_uint_eq(wheel_run(w, 300, 10), 1);
}
END_TEST

START_TEST(those_moved_to_later_count_towards_max_so_that_a_million_of_them_stall_nobody)
{
	struct probe p[10] = { 0 };
	for (int i = 0; i < 10; i++) {
		p[i].timer.fire = count;
		wheel_start(w, &p[i].timer, 10);
		wheel_start(w, &p[i].timer, 20);
	}
	ck_assert_uint_eq(wheel_run(w, 10, 4), 0);
	ck_assert_uint_le(wheel_next_ms(w), 10); /* six have not been looked at */
	ck_assert_uint_eq(wheel_run(w, 10, 6), 0);
	ck_assert_uint_gt(wheel_next_ms(w), 10);
	ck_assert_uint_eq(wheel_run(w, 20, 20), 10);
}
END_TEST

START_TEST(timers_of_one_millisecond_fire_in_the_order_of_their_start)
{
	struct probe p[5] = { 0 };
	unsigned orders = 0;
	for (int i = 0; i < 5; i++) {
		p[i].timer.fire = count;
		p[i].orders = &orders;
		wheel_start(w, &p[i].timer, 70000);
	}
	wheel_run(w, 70000, 10);
	for (unsigned i = 0; i < 5; i++)
		ck_assert_uint_eq(p[i].order, i + 1);
}
END_TEST

START_TEST(run_fires_at_most_max_and_goes_on_next_time)
{
	struct probe p[5] = { 0 };
	for (int i = 0; i < 5; i++) {
		p[i].timer.fire = count;
		wheel_start(w, &p[i].timer, 10);
	}
	ck_assert_uint_eq(wheel_run(w, 10, 2), 2);
	ck_assert_uint_le(wheel_next_ms(w), 10);
	ck_assert(wheel_check(w));
	ck_assert(wheel_stop(w, &p[2].timer)); /* one that is due and waits for its turn */
	ck_assert_uint_eq(wheel_run(w, 10, 10), 2);
	ck_assert_uint_eq(p[2].fired, 0);
}
END_TEST

START_TEST(fire_may_start_itself_again)
{
	struct probe p = { .timer.fire = again, .w = w, .again_ms = 10 };
	wheel_start(w, &p.timer, 10);
	for (uint64_t now = 0; now <= 1000; now++)
		wheel_run(w, now, 10);
	ck_assert_uint_eq(p.fired, 100);
	wheel_stop(w, &p.timer);
}
END_TEST

START_TEST(fire_that_starts_itself_for_now_runs_a_tick_later_and_not_for_ever)
{
	struct probe p = { .timer.fire = again, .w = w, .again_ms = 0 };
	wheel_start(w, &p.timer, 10);
	ck_assert_uint_eq(wheel_run(w, 10, 1000), 1);
	ck_assert_uint_eq(wheel_next_ms(w), 11);
	ck_assert_uint_eq(wheel_run(w, 11, 1000), 1);
	wheel_stop(w, &p.timer);
}
END_TEST

START_TEST(fire_may_stop_another_that_is_due)
{
	struct probe q = { .timer.fire = count }, p = { .timer.fire = stop_other, .w = w, .other = &q };
	wheel_start(w, &p.timer, 10);
	wheel_start(w, &q.timer, 10);
	ck_assert_uint_eq(wheel_run(w, 20, 10), 1);
	ck_assert_uint_eq(q.fired, 0);
}
END_TEST

START_TEST(a_clock_that_goes_back_fires_nothing)
{
	struct probe p = { .timer.fire = count };
	wheel_run(w, 100, 1);
	wheel_start(w, &p.timer, 100);
	ck_assert_uint_eq(wheel_run(w, 99, 10), 0);
	ck_assert_uint_eq(wheel_run(w, 100, 10), 1);
}
END_TEST

/* A hundred years at once: as many steps as there are timers and levels, not as there are ticks. */
START_TEST(a_long_jump_is_cheap)
{
	struct probe p[3] = { 0 };
	for (int i = 0; i < 3; i++) {
		p[i].timer.fire = count;
		wheel_start(w, &p[i].timer, UINT64_C(1) << (12 * i + 8));
	}
	ck_assert_uint_eq(wheel_run(w, UINT64_C(3155760000000), 10), 3);
	ck_assert_uint_eq(wheel_run(w, UINT64_C(3155760000000) * 1000, 10), 0);
}
END_TEST

/* ---- against a naive model: for each timer whether it runs and when it is due ---- */

enum { MODEL = 300 };
struct model {
	struct probe p[MODEL];
	bool running[MODEL];
	uint64_t due[MODEL];
	uint64_t seed, now;
};
static struct model m;

static uint64_t chance(uint64_t below)
{
	m.seed ^= m.seed << 13;
	m.seed ^= m.seed >> 7;
	m.seed ^= m.seed << 17;
	return m.seed % below;
}

static uint64_t some_delay(void)
{
	return chance(UINT64_C(1) << chance(36)) + (chance(4) == 0 ? 0 : 1);
}

static void model_start(unsigned i, uint64_t due)
{
	wheel_start(w, &m.p[i].timer, due);
	m.running[i] = true;
	m.due[i] = due;
}

static void model_stop(unsigned i)
{
	must(wheel_stop(w, &m.p[i].timer) == m.running[i], "stop of %u", i);
	m.running[i] = false;
}

static void model_fire(struct timer *t, uint64_t now_ms)
{
	unsigned i = (unsigned)((struct probe *)t - m.p);
	must(m.running[i] && m.due[i] <= now_ms && now_ms == m.now, "timer %u fired at %llu, due %llu", i,
	     (unsigned long long)now_ms, (unsigned long long)m.due[i]);
	m.running[i] = false;
	switch (chance(4)) {
	case 0: model_start(i, now_ms + some_delay()); break;
	case 1: model_stop((unsigned)chance(MODEL)); break;
	case 2: model_start((unsigned)chance(MODEL), now_ms + some_delay()); break;
	default: break;
	}
}

static void model_compare(void)
{
	uint64_t running = 0, first = UINT64_MAX;
	must(wheel_check(w), "an invariant is broken");
	for (unsigned i = 0; i < MODEL; i++) {
		must(timer_running(&m.p[i].timer) == m.running[i], "timer %u runs or not", i);
		if (!m.running[i])
			continue;
		running++;
		first = m.due[i] < first ? m.due[i] : first;
		must(m.due[i] >= m.now, "timer %u should have fired at %llu, now %llu", i, (unsigned long long)m.due[i],
		     (unsigned long long)m.now);
	}
	must(wheel_count(w) == running, "wrong count");
	uint64_t next = wheel_next_ms(w);
	must(running ? next <= (first > m.now ? first : m.now + 1) : next == UINT64_MAX, "wheel_next_ms is too late");
}

static void model_step(void)
{
	for (uint64_t n = chance(20); n--;) {
		unsigned i = (unsigned)chance(MODEL);
		if (chance(3))
			model_start(i, m.now + some_delay());
		else
			model_stop(i);
	}
	uint64_t next = wheel_next_ms(w);
	if (chance(2) && next != UINT64_MAX)
		m.now = next > m.now ? next : m.now; /* as a loop that sleeps */
	else
		m.now += chance(10) ? chance(3) : some_delay();
	wheel_run(w, m.now, UINT32_MAX);
	model_compare();
}

START_TEST(random_operations_agree_with_a_naive_model)
{
	uint64_t seed = UINT64_C(88172645463325252) + (uint64_t)_i * 977;
	m = (struct model){ .seed = seed, .now = seed % 100000 };
	for (int i = 0; i < MODEL; i++)
		m.p[i].timer.fire = model_fire;
	wheel_run(w, m.now, 1);
	for (int step = 0; step < 2000; step++)
		model_step();
}
END_TEST

START_TEST(a_full_outer_slot_is_moved_in_small_parts_and_on_time)
{
	enum { MANY = 100000 };
	struct probe *p = calloc(MANY, sizeof *p);
	uint64_t fired = 0;
	for (unsigned i = 0; i < MANY; i++) {
		p[i].timer.fire = count;
		wheel_start(w, &p[i].timer, 70000 + i % 256); /* one slot of the second level */
	}
	for (uint64_t now = 0; now < 70256; now++) {
		fired += wheel_run(w, now, UINT32_MAX);
		if (now % 1000 == 0)
			must(wheel_check(w), "an invariant is broken");
	}
	ck_assert_uint_eq(fired, MANY);
	for (unsigned i = 0; i < MANY; i++)
		must(p[i].fired_at == 70000 + i % 256, "late");
	free(p);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("wheel");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, a_timer_never_fires_early);
	tcase_add_test(c, every_distance_fires_at_its_due_time);
	tcase_add_test(c, a_due_time_in_the_past_fires_at_the_next_run);
	tcase_add_test(c, the_end_of_time_never_comes);
	tcase_add_test(c, a_stopped_timer_does_not_fire);
	tcase_add_test(c, stopping_one_that_does_not_run_says_so);
	tcase_add_test(c, starting_again_moves_it);
	tcase_add_test(c, moved_to_later_again_and_again_it_fires_once_at_the_last_time);
	tcase_add_test(c, moved_to_later_and_then_to_earlier_it_fires_at_the_earlier);
	tcase_add_test(c, those_moved_to_later_count_towards_max_so_that_a_million_of_them_stall_nobody);
	tcase_add_test(c, timers_of_one_millisecond_fire_in_the_order_of_their_start);
	tcase_add_test(c, run_fires_at_most_max_and_goes_on_next_time);
	tcase_add_test(c, fire_may_start_itself_again);
	tcase_add_test(c, fire_that_starts_itself_for_now_runs_a_tick_later_and_not_for_ever);
	tcase_add_test(c, fire_may_stop_another_that_is_due);
	tcase_add_test(c, a_clock_that_goes_back_fires_nothing);
	tcase_add_test(c, a_long_jump_is_cheap);
	tcase_add_loop_test(c, random_operations_agree_with_a_naive_model, 0, 20);
	tcase_add_test(c, a_full_outer_slot_is_moved_in_small_parts_and_on_time);
	return suite_run("wheel", c);
}
