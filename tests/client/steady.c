/*
 * steady: a caller of its own that makes calls at a steady rate to all scenes, and what others notice when one is stopped.
 *
 * usage: steady CONFIG SECONDS [ROUNDS ID PID]
 *
 * It is the instance caller-1 of CONFIG and calls scene.sceneRemote.echo for 64 keys in turn, 2,000 times a second,
 * each at its intended time. Without ROUNDS for SECONDS, or until SIGUSR1. With: each round half of SECONDS in peace, half with process PID, the
 * instance ID, stopped (SIGSTOP; in the first round until it must have been noticed), and then until it answers again.
 *
 * A line per round: "round before_us=… during_us=… noticed_ms=…": how long the calls to the other instances took from their
 * intended time, and when the link to the stopped one was given up (0: not yet). The last line: "calls=… errors=…
 * others_errors=… before_us=… during_us=… ratio=…": the same of all rounds, and during / before in percent. Each time is the
 * median of the 99th percentiles of windows of 200 ms: what else the machine does falls into few of them. Exit 1 if a call of
 * another instance failed.
 */
#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/service.h"
#include "tests/support/clock.h"
#include "tests/support/flag.h"

enum {
	NOTICED_MS = 3500,
	PER_MS = 2,
	KEYS = 64,
	TIMEOUT_MS = 5000,
	ROUNDS_MAX = 100,
	WINDOW_MS = 200,
	SAMPLES_MAX = 100000,
	CALLS_MAX = 16384
};
enum phase { PEACE, BEFORE, DURING, AFTER };

struct call {
	struct call *next;
	uint64_t due_ns;
	enum phase phase;
	bool mine; /* to the instance that is stopped */
};

static struct {
	struct worker *worker;
	const struct msg_method *echo;
	struct timer tick;
	struct call call[CALLS_MAX], *free;
	uint64_t begun_ns, made, phase_until_ns, stopped_ns, noticed_ns, half_ns;
	enum phase phase;
	unsigned rounds, round, errors, others_errors;
	const char *id;
	pid_t pid;
	uint64_t sample[SAMPLES_MAX]; /* of this window */
	size_t samples;
	uint64_t window_ns;
	uint64_t p99[2][SAMPLES_MAX]; /* of each window, before and during */
	size_t windows[2], first[2];  /* first: of this round */
	bool back;
	struct flag finished;
} all;

static volatile sig_atomic_t enough;

static void on_enough(int signo)
{
	(void)signo;
	enough = 1;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void window_ends(uint64_t now)
{
	int which = all.phase == BEFORE ? 0 : 1;

	qsort(all.sample, all.samples, sizeof(uint64_t), by_size);
	if (all.samples > 50 && all.phase != AFTER && all.windows[which] < SAMPLES_MAX)
		all.p99[which][all.windows[which]++] = all.sample[all.samples * 99 / 100] / 1000;
	all.samples = 0;
	all.window_ns = now + WINDOW_MS * UINT64_C(1000000);
}

static uint64_t median(int which, size_t first)
{
	uint64_t list[SAMPLES_MAX / 10];
	size_t n = all.windows[which] - first;

	if (n == 0 || n > SAMPLES_MAX / 10)
		return 0;
	memcpy(list, all.p99[which] + first, n * sizeof(*list));
	qsort(list, n, sizeof(*list), by_size);
	return list[n / 2];
}

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct call *c = arg;
	if (a->err)
		c->mine ? all.errors++ : all.others_errors++;
	else if (!c->mine && c->phase == all.phase && all.samples < SAMPLES_MAX)
		all.sample[all.samples++] = clock_ns() - c->due_ns;
	if (!a->err && c->mine && c->phase == AFTER)
		all.back = true;
	c->next = all.free;
	all.free = c;
}

static void make_call(uint64_t due_ns)
{
	char key[16];
	int n = snprintf(key, sizeof(key), "%" PRIu64, all.made % KEYS + 1);
	const struct route_row *row = route_owner(all.worker->routes, "scene", key, (size_t)n);
	struct call *c = all.free;

	assert(c && row);
	all.free = c->next;
	*c = (struct call){ .due_ns = due_ns, .phase = all.phase, .mine = all.id && !strcmp(row->id, all.id) };
	struct rpc_call call = { .method = all.echo,
				 .to = { .worker = -1, .key = span_of(key, (size_t)n) },
				 .body = span_of("{\"a\":\"fifty bytes or so of an ordinary request\"}", 48),
				 .json = true,
				 .timeout_ms = TIMEOUT_MS,
				 .on_answer = on_answer,
				 .arg = c };
	rpc_call(all.worker, &call);
}

static void round_ends(void)
{
	printf("round before_us=%" PRIu64 " during_us=%" PRIu64 " noticed_ms=%" PRIu64 "\n", median(0, all.first[0]),
	       median(1, all.first[1]), all.noticed_ns ? (all.noticed_ns - all.stopped_ns) / 1000000 : 0);
	all.round++;
	all.first[0] = all.windows[0];
	all.first[1] = all.windows[1];
}

static void enter(enum phase phase, uint64_t now)
{
	window_ends(now);
	all.phase = phase;
	all.phase_until_ns = now + all.half_ns;
}

static void next_phase(uint64_t now)
{
	switch (all.phase) {
	case PEACE: flag_raise(&all.finished); return;
	case BEFORE:
		all.stopped_ns = now;
		all.noticed_ns = 0;
		kill(all.pid, SIGSTOP);
		enter(DURING, now);
		if (!all.round)
			all.phase_until_ns = now + NOTICED_MS * UINT64_C(1000000);
		return;
	case DURING:
		kill(all.pid, SIGCONT);
		all.back = false;
		enter(AFTER, now);
		all.phase_until_ns = now;
		return;
	case AFTER:
		if (!all.back)
			return;
		round_ends();
		enter(BEFORE, now);
		if (all.round == all.rounds)
			flag_raise(&all.finished);
	}
}

static void on_tick(struct timer *t, uint64_t now_ms)
{
	uint64_t now = clock_ns();

	(void)now_ms;
	if (flag_count(&all.finished))
		return;
	for (; all.made * 1000000 / PER_MS <= now - all.begun_ns; all.made++)
		make_call(all.begun_ns + all.made * 1000000 / PER_MS);
	if (now >= all.window_ns)
		window_ends(now);
	if (now >= all.phase_until_ns || (enough && all.phase == PEACE))
		next_phase(now);
	loop_timer(all.worker->loop, t, 1);
}

static void on_peer(struct worker *w, const char *instance, uint64_t epoch, bool up)
{
	(void)w;
	(void)epoch;
	if (!up && all.phase == DURING && !strcmp(instance, all.id))
		all.noticed_ns = clock_ns();
}

static int caller_start(struct worker *w)
{
	static const char name[] = "scene.sceneRemote.echo";
	static const char *const keep[] = { "scene", NULL };

	all.worker = w;
	w->on_peer = on_peer;
	all.echo = schema_method(w->service->schema, name, strlen(name));
	assert(all.echo);
	rpc_keep(w, keep);
	for (unsigned i = 0; i < CALLS_MAX; i++) {
		all.call[i].next = all.free;
		all.free = &all.call[i];
	}
	all.begun_ns = clock_ns();
	enter(all.rounds ? BEFORE : PEACE, all.begun_ns);
	all.tick.fire = on_tick;
	on_tick(&all.tick, 0);
	return 0;
}

static const struct service_def caller = { .name = "caller", .worker_start = caller_start };

static void on_stopped(void *arg, struct service *s)
{
	(void)s;
	flag_raise(arg);
}

int main(int argc, char **argv)
{
	struct flag stopped;
	char error[512];
	struct service *s;

	if (argc != 3 && argc != 6) {
		fprintf(stderr, "usage: steady CONFIG SECONDS [ROUNDS ID PID]\n");
		return 2;
	}
	all.half_ns = (uint64_t)(atof(argv[2]) * 1e9);
	if (argc == 6) {
		all.half_ns /= 2;
		all.rounds = (unsigned)strtoul(argv[3], NULL, 10) % ROUNDS_MAX;
		all.id = argv[4];
		all.pid = (pid_t)strtol(argv[5], NULL, 10);
	} else
		signal(SIGUSR1, on_enough);
	flag_init(&all.finished);
	flag_init(&stopped);
	struct service_options o = {
		.config_file = argv[1], .instance = "caller-1", .on_stopped = on_stopped, .arg = &stopped
	};

	if (service_start(env_new(), &caller, &o, error, sizeof(error), &s) < 0) {
		fprintf(stderr, "steady: %s\n", error);
		return 2;
	}
	while (!flag_wait_s(&all.finished, 1, 1) && !flag_count(&stopped)) {
	}
	if (!flag_count(&stopped))
		service_stop(s);
	while (!flag_wait_s(&stopped, 1, 10)) {
	}
	service_free(s);
	uint64_t before = median(0, 0), during = median(1, 0);

	printf("calls=%" PRIu64 " errors=%u others_errors=%u before_us=%" PRIu64 " during_us=%" PRIu64 " ratio=%" PRIu64
	       "\n",
	       all.made, all.errors, all.others_errors, before, during, before ? during * 100 / before : 0);
	return all.others_errors > 0;
}
