/*
 * rpc_overload: what rpc.limits do for a slow method that is asked for four times as often as it can be done. It has 16
 * places, and each call holds one for some 5 ms without using the processor; 64 calls may wait. Beside it, over the same
 * link, goes a method without a limit, every eighth call. Nobody waits for an answer before asking anew: so many calls a
 * second are due, and those of each millisecond are made together.
 *
 * First half of what can be done is asked for: its median says how long a place is held. Then four times as much.
 *
 * usage: rpc_overload     prints one JSON object; times from rpc_call to the answer, in microseconds
 */
#include "tests/bench/rpc_pair.h"
#include "common/err.h"

enum { PLACES = 16, QUEUE = 64, HOLD_MS = 5, OTHER_EACH = 8, TIMEOUT_MS = 5000 };
#define CAPACITY     (PLACES * 1000 / HOLD_MS) /* a second, if a place were held no longer */
#define OPTIONS_TEXT "rpc = { limits = { { method = 'calls.boxRemote.put', running = 16, queued = 64 } } }"
_Static_assert(PLACES == 16 && QUEUE == 64, "as OPTIONS_TEXT says");

/* ---- the server --------------------------------------------------------------------------------------------------- */

struct place {
	struct timer timer;
	struct worker *worker;
	uint64_t handle;
	bool taken;
};

struct server {
	struct pair pair;
	struct place place[PLACES];
	char body[LOAD_BODY];
};

static void on_held(struct timer *t, uint64_t now_ms)
{
	struct place *p = (struct place *)((char *)t - offsetof(struct place, timer));
	struct server *s = p->worker->service->user;
	(void)now_ms;
	p->taken = false;
	rpc_answer_ok(p->worker, p->handle, span_of(s->body, sizeof s->body), NULL, 0);
}

static void on_put(void *arg, struct rpc_request *r)
{
	struct server *s = arg;
	struct place *p = s->place;
	while (p < s->place + PLACES && p->taken)
		p++;
	if (p == s->place + PLACES)
		exit(2); /* more at once than rpc.limits says */
	*p = (struct place){ .timer.fire = on_held, .worker = r->worker, .handle = r->handle, .taken = true };
	loop_timer(r->worker->loop, &p->timer, HOLD_MS);
}

static void on_get(void *arg, struct rpc_request *r)
{
	(void)arg;
	rpc_answer_ok(r->worker, r->handle, r->body, NULL, 0);
}

static int server_start(struct worker *w)
{
	rpc_handle(w, pair_method(w, "calls.boxRemote.put"), on_put, w->service->user);
	rpc_handle(w, pair_method(w, "calls.boxRemote.get"), on_get, NULL);
	return 0;
}

/* ---- the client ----------------------------------------------------------------------------------------------------- */

enum kind { CALM, ACCEPTED, REFUSED, OTHER, KINDS };

struct times {
	uint32_t n, ns[1 << 16];
};

struct run {
	struct load load;
	struct server server;
	struct worker *worker;
	const struct msg_method *put, *get;
	struct timer tick;
	uint64_t begin_ns, made; /* of this phase */
	bool storm;
	struct times time[KINDS];
	struct inbox_msg begin;
};

struct call {
	struct run *run;
	uint64_t sent_ns;
	bool counted, storm, other;
};

static const double WARM_S = 0.5, PHASE_S = 2;

static double seconds_of(const struct run *r, uint64_t now_ns)
{
	return (double)(now_ns - r->begin_ns) / 1e9;
}

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct call *c = arg;
	struct run *r = c->run;
	enum kind kind = c->other ? OTHER : a->err == ERR_BUSY ? REFUSED : c->storm ? ACCEPTED : CALM;
	if (a->err < 0 && (a->err != ERR_BUSY || c->other)) {
		fprintf(stderr, "rpc_overload: %s: %.*s\n", err_word(a->err), (int)a->message.n, a->message.p);
		exit(2);
	}
	struct times *t = &r->time[kind];
	if (c->counted && (c->storm || kind == CALM) && t->n < sizeof t->ns / sizeof *t->ns)
		t->ns[t->n++] = (uint32_t)(load_now_ns() - c->sent_ns);
	free(c);
}

static void call(struct run *r, bool counted)
{
	struct call *c = malloc(sizeof *c);
	if (!c)
		load_die("memory");
	*c = (struct call){ r, load_now_ns(), counted, r->storm, r->made++ % OTHER_EACH == 0 };
	struct rpc_call call = {
		.method = c->other ? r->get : r->put,
		.to = { .worker = -1, .key = { "player-7", 8 } },
		.body = { r->server.body, LOAD_BODY },
		.timeout_ms = TIMEOUT_MS,
		.on_answer = on_answer,
		.arg = c,
	};
	rpc_call(r->worker, &call);
}

static double us(struct run *r, enum kind kind, unsigned percent)
{
	struct times *t = &r->time[kind];
	qsort(t->ns, t->n, sizeof *t->ns, load_compare);
	return t->n ? t->ns[(uint64_t)t->n * percent / 100] / 1e3 : 0;
}

static void finish(struct run *r)
{
	double hold_us = us(r, CALM, 50);
	printf("{\"hold_us\":%.0f,\"calm_p99_us\":%.0f,\"bound_us\":%.0f,\"accepted_p50_us\":%.0f,\"accepted_p99_us\":%.0f,"
	       "\"busy_p50_us\":%.0f,\"busy_p99_us\":%.0f,\"free_p50_us\":%.0f,\"free_p99_us\":%.0f,"
	       "\"accepted_per_s\":%.0f,\"can_per_s\":%.0f,\"busy_per_s\":%.0f,\"other_cores\":%.2f}\n",
	       hold_us, us(r, CALM, 99), hold_us * (1 + QUEUE / PLACES), us(r, ACCEPTED, 50), us(r, ACCEPTED, 99),
	       us(r, REFUSED, 50), us(r, REFUSED, 99), us(r, OTHER, 50), us(r, OTHER, 99),
	       (double)r->time[ACCEPTED].n / PHASE_S, PLACES / hold_us * 1e6, (double)r->time[REFUSED].n / PHASE_S,
	       (r->load.cpu.machine - r->load.cpu.own - r->load.cpu.server) / PHASE_S);
	fflush(stdout);
	kill(r->load.server, SIGKILL);
	waitpid(r->load.server, NULL, 0);
	pair_remove(&r->server.pair);
	_exit(0);
}

static void phase_begin(struct run *r, bool storm)
{
	r->storm = storm;
	r->begin_ns = load_now_ns();
	r->made = 0;
}

/* What is due is made; what was made in the warm-up and after the phase is not counted. */
static void on_tick(struct timer *t, uint64_t now_ms)
{
	struct run *r = (struct run *)((char *)t - offsetof(struct run, tick));
	double at = seconds_of(r, load_now_ns()),
	       rate = CAPACITY * (r->storm ? 4 : 0.5) * OTHER_EACH / (OTHER_EACH - 1);
	(void)now_ms;
	loop_timer(r->worker->loop, &r->tick, 1);
	if (at > WARM_S && r->load.begin_ns == 0 && r->storm) {
		load_mark(&r->load, -1);
		r->load.begin_ns = load_now_ns();
	}
	if (at > WARM_S + PHASE_S && r->storm && !r->load.end_ns) {
		load_mark(&r->load, 1);
		r->load.end_ns = load_now_ns();
	}
	while ((double)r->made < at * rate)
		call(r, at > WARM_S && at <= WARM_S + PHASE_S);
	if (at > PHASE_S + 2 * WARM_S && r->storm)
		finish(r);
	if (at > PHASE_S + 2 * WARM_S)
		phase_begin(r, true);
}

static void begin(struct inbox_msg *m)
{
	struct run *r = (struct run *)((char *)m - offsetof(struct run, begin));
	phase_begin(r, false);
	r->tick.fire = on_tick;
	loop_timer(r->worker->loop, &r->tick, 1);
}

static int client_start(struct worker *w)
{
	struct run *r = w->service->user;
	r->worker = w;
	r->put = pair_method(w, "calls.boxRemote.put");
	r->get = pair_method(w, "calls.boxRemote.get");
	r->begin.run = begin;
	loop_post(w->loop, &r->begin);
	return 0;
}

/* ---- both ------------------------------------------------------------------------------------------------------------- */

static const struct service_def server_def = { .name = "calls", .worker_start = server_start };
static const struct service_def client_def = { .name = "caller", .worker_start = client_start };

static void serve(struct load *l, int told)
{
	struct run *r = (struct run *)((char *)l - offsetof(struct run, load));
	pair_serve(&r->server.pair, &server_def, &r->server, told);
}

int main(int argc, char **argv)
{
	static struct run r;
	int told;
	load_options(&r.load, argc, argv);
	pair_body(r.server.body);
	pair_make(&r.server.pair, OPTIONS_TEXT);
	load_fork(&r.load, serve, &told);
	load_port(told);
	pair_start(&r.server.pair, &client_def, "caller-1", &r);
	for (;;)
		pause();
}
