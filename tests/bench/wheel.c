/*
 * wheel: what a timer costs among very many live ones, beside libevent's min-heap in the same process.
 *
 * reset:  a random live timer is moved; its time is one to sixty seconds from now. The two take turns, median of 5 passes each.
 * expire: all of them fire. The wheel's are spread over a minute and its ticks are walked one by one, cascades included;
 *         libevent's are due within 20 ms and fire in one go, which spares it 60,000 looks at the clock.
 * tick:   the longest of the minute's ticks, in CPU time of the thread, so that what other programs take does not count.
 * live:   the timers in a worker's real loop, each starting itself again, for some seconds: CPU and lateness.
 *
 * usage: wheel [--timers N] [--live SECONDS] [--no-heap]       prints one JSON object
 */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/env.h"
#include "common/loop.h"
#include "common/wheel.h"

enum { SPREAD_MS = 60000, HEAP_SPREAD_MS = 20, PASSES = 5 };

static uint64_t seed = 88172645463325252u;

static uint32_t chance(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)((seed >> 32) * below >> 32);
}

static double clock_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct env *env;

/* Zeroed, and in large pages, as a million timers of scripts are (common/luahost_clock.c). libevent allocates its own. */
static void *get(size_t n, size_t size)
{
	void *p = env_memory(env, n * size);
	if (p)
		return p;
	fprintf(stderr, "wheel: no memory for so many timers\n");
	exit(2);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double v[PASSES])
{
	qsort(v, PASSES, sizeof *v, by_value);
	return v[PASSES / 2];
}

struct figures {
	double reset_ns, expire_ns, tick_ms, heap_reset_ns, heap_expire_ns;
};

/* ---- the wheel ------------------------------------------------------------------------------------------------- */

static void on_fire(struct timer *t, uint64_t now_ms)
{
	(void)t, (void)now_ms;
}

static void start_all(struct wheel *w, struct timer *t, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		t[i].fire = on_fire;
		wheel_start(w, &t[i], 1 + chance(SPREAD_MS));
	}
}

static double reset_all(struct wheel *w, struct timer *t, uint32_t n)
{
	double from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (uint32_t i = 0; i < n; i++)
		wheel_start(w, &t[chance(n)], 1 + chance(SPREAD_MS));
	return (clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / n;
}

static double expire_all(struct wheel *w, uint32_t n)
{
	double from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (uint64_t now = 1; now <= SPREAD_MS; now++)
		wheel_run(w, now, UINT32_MAX);
	if (wheel_count(w)) {
		fprintf(stderr, "wheel: not all timers have fired\n");
		exit(2);
	}
	return (clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / n;
}

static double worst_tick_ms(struct wheel *w)
{
	double worst = 0;
	for (uint64_t now = 1; now <= SPREAD_MS; now++) {
		double from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		wheel_run(w, now, UINT32_MAX);
		double took = clock_ns(CLOCK_THREAD_CPUTIME_ID) - from;
		worst = took > worst ? took : worst;
	}
	return worst / 1e6;
}

/* ---- libevent ---------------------------------------------------------------------------------------------------- */

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	++*(uint32_t *)arg;
}

static void heap_add(struct event *e, uint32_t ms)
{
	struct timeval t = { ms / 1000, ms % 1000 * 1000 };
	event_add(e, &t);
}

static double heap_expire(struct event_base *base, struct event **e, uint32_t n, const uint32_t *fired)
{
	struct timespec until_due = { .tv_nsec = (HEAP_SPREAD_MS + 5) * 1000000L };
	for (uint32_t i = 0; i < n; i++)
		heap_add(e[i], 1 + chance(HEAP_SPREAD_MS));
	nanosleep(&until_due, NULL);
	double from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	while (*fired < n)
		event_base_loop(base, EVLOOP_NONBLOCK);
	return (clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / n;
}

static double heap_reset(struct event **e, uint32_t n)
{
	double from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	for (uint32_t i = 0; i < n; i++)
		heap_add(e[chance(n)], 1 + SPREAD_MS + chance(SPREAD_MS));
	return (clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / n;
}

/* ---- side by side -------------------------------------------------------------------------------------------------- */

/* heap NULL: the wheel alone. */
static void run_resets(struct figures *f, struct wheel *w, struct timer *t, struct event **heap, uint32_t n)
{
	double own[PASSES], other[PASSES] = { 0 };
	for (int i = 0; i < PASSES; i++) {
		own[i] = reset_all(w, t, n);
		if (heap)
			other[i] = heap_reset(heap, n);
	}
	f->reset_ns = median(own);
	f->heap_reset_ns = median(other);
}

static struct figures run(uint32_t n, bool with_heap)
{
	struct figures f = { 0 };
	struct timer *t = get(n, sizeof *t);
	struct wheel *w = wheel_new(0);
	struct event_base *base = event_base_new();
	struct event **e = with_heap ? get(n, sizeof *e) : NULL;
	uint32_t fired = 0;
	start_all(w, t, n);
	for (uint32_t i = 0; e && i < n; i++) {
		e[i] = event_new(base, -1, 0, on_event, &fired);
		heap_add(e[i], 1 + SPREAD_MS + chance(SPREAD_MS));
	}
	run_resets(&f, w, t, e, n);
	f.expire_ns = expire_all(w, n);
	wheel_free(w);
	if (e)
		f.heap_expire_ns = heap_expire(base, e, n, &fired);
	for (uint32_t i = 0; e && i < n; i++)
		event_free(e[i]);
	event_base_free(base);
	env_memory_free(env, e, n * sizeof *e);
	w = wheel_new(0);
	start_all(w, t, n);
	f.tick_ms = worst_tick_ms(w);
	wheel_free(w);
	env_memory_free(env, t, n * sizeof *t);
	return f;
}

/* ---- live in a worker ---------------------------------------------------------------------------------------------- */

struct live {
	struct timer timer, end;
	struct loop *loop;
	struct repeating {
		struct timer timer;
		struct live *live;
	} * r;
	uint32_t n;
	uint64_t seconds, fired, late_ms_max, late[64];
	double cpu_from, cpu_ns;
	_Atomic bool over;
};

static void on_again(struct timer *t, uint64_t now_ms)
{
	struct repeating *r = (struct repeating *)t;
	struct live *l = r->live;
	uint64_t late_ms = now_ms - t->due_ms;
	l->fired++;
	l->late[late_ms < 63 ? late_ms : 63]++;
	l->late_ms_max = late_ms > l->late_ms_max ? late_ms : l->late_ms_max;
	wheel_start(l->loop->wheel, t, now_ms + 1000 + chance(SPREAD_MS - 1000));
}

static void on_end(struct timer *t, uint64_t now_ms)
{
	struct live *l = (struct live *)((char *)t - offsetof(struct live, end));
	(void)now_ms;
	l->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - l->cpu_from;
	l->over = true;
}

static void on_begin(struct timer *t, uint64_t now_ms)
{
	struct live *l = (struct live *)t;
	(void)now_ms;
	l->fired = l->late_ms_max = 0;
	memset(l->late, 0, sizeof l->late);
	l->cpu_from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	l->end.fire = on_end;
	loop_timer(l->loop, &l->end, l->seconds * 1000);
}

static void on_start(struct loop *loop, void *arg)
{
	struct live *l = arg;
	l->loop = loop;
	for (uint32_t i = 0; i < l->n; i++) {
		l->r[i] = (struct repeating){ .timer.fire = on_again, .live = l };
		loop_timer(loop, &l->r[i].timer, chance(SPREAD_MS));
	}
	l->timer.fire = on_begin;
	loop_timer(loop, &l->timer, 1000); /* what fell due while they were started is over then */
}

static uint64_t late_p99(const struct live *l)
{
	uint64_t seen = 0, ms = 0;
	while (ms < 63 && (seen += l->late[ms]) * 100 < l->fired * 99)
		ms++;
	return ms;
}

static void run_live(struct live *l)
{
	struct loop *loop;
	struct timespec pause = { .tv_nsec = 10000000 };
	l->r = get(l->n, sizeof *l->r);
	if (loop_start(env, "worker", 0, on_start, NULL, l, &loop) < 0)
		exit(2);
	while (!l->over)
		nanosleep(&pause, NULL);
	loop_stop(loop);
	loop_join(loop);
	env_memory_free(env, l->r, l->n * sizeof *l->r);
}

int main(int argc, char **argv)
{
	struct live live = { .n = 1000000 };
	bool heap = true;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--no-heap"))
			heap = false;
		else if (!strcmp(argv[i], "--timers") && i + 1 < argc)
			live.n = (uint32_t)strtoul(argv[++i], NULL, 10);
		else if (!strcmp(argv[i], "--live") && i + 1 < argc)
			live.seconds = strtoull(argv[++i], NULL, 10);
		else
			return fprintf(stderr, "wheel: no such option: %s\n", argv[i]), 2;
	}
	env = env_new();
	struct figures f = run(live.n, heap);
	if (live.seconds)
		run_live(&live);
	printf("{\"timers\":%u,\"reset_ns\":%.1f,\"expire_ns\":%.1f,\"tick_ms\":%.3f,\"heap_reset_ns\":%.1f,"
	       "\"heap_expire_ns\":%.1f",
	       live.n, f.reset_ns, f.expire_ns, f.tick_ms, f.heap_reset_ns, f.heap_expire_ns);
	if (live.seconds)
		printf(",\"live_cpu_percent\":%.2f,\"live_fired_per_s\":%llu,\"live_late_p99_ms\":%llu,"
		       "\"live_late_max_ms\":%llu",
		       live.cpu_ns / 1e7 / (double)live.seconds, (unsigned long long)(live.fired / live.seconds),
		       (unsigned long long)late_p99(&live), (unsigned long long)live.late_ms_max);
	printf("}\n");
	env_free(env);
	return 0;
}
