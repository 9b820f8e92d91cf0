#include <signal.h>
#include <stdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/peer.h"
#include "rpc/server.h"
#include "tests/support/sim_main.h"
/*
 * Calls between services under cut, stalled and slow links and dying processes: every call ends exactly once, in its
 * time, with what is true; and when all is calm again, everything works and nothing is left of what was.
 */
#define CALLS_MAX  20000
#define LATE_MS    150 /* 100, and the longest a loop sleeps over in this world */
#define CALLERS    2
#define BOXES      2
#define INSTANCES  (CALLERS + BOXES)
#define WORKERS    2
#define STARTS_MAX 64

static const char config[] = "return { instances = {\n"
			     "{ id = 'caller-1', service = 'caller', host = '10.0.0.1', rpc = 4001 },\n"
			     "{ id = 'caller-2', service = 'caller', host = '10.0.0.2', rpc = 4002 },\n"
			     "{ id = 'calls-1', service = 'calls', host = '10.0.0.3', rpc = 4003 },\n"
			     "{ id = 'calls-2', service = 'calls', host = '10.0.0.4', rpc = 4004 },\n"
			     "}, caller = { threads = 2 }, calls = { threads = 2 }, rpc = { drain_s = 5 },\n"
			     "paths = { messages = 'build/tests.desc' }, log = { level = 'error' } }\n";

static const char cluster_key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char *const ids[INSTANCES] = { "caller-1", "caller-2", "calls-1", "calls-2" };

/* What became of one call. Kept outside of the processes. */
struct record {
	unsigned caller, start; /* which process, and which life of it, waits for it */
	int kind;
	uint64_t made_ns, deadline_ns;
	unsigned ended, run, effects[BOXES]; /* effects: of once-calls, in the box's present life */
	unsigned life[BOXES];
	bool notification, cancelled;
	int err;
	enum effect effect;
};

struct world {
	struct sim *w;
	struct sim_process *process[INSTANCES];
	struct service *service[INSTANCES]; /* of the present life, in its memory */
	struct record record[CALLS_MAX];
	unsigned calls, ok;
	bool quiet;  /* no new calls */
	bool gentle; /* nothing may fail: long deadlines, no cancelling */
};

static struct world *world(void)
{
	return sim_user(sim_current());
}

static unsigned index_of(const char *id)
{
	unsigned i = 0;

	while (strcmp(ids[i], id) != 0)
		i++;
	return i;
}

/* ---- the box: runs requests, once per key and life, and answers sooner or later --------------------------------------- */

struct done {
	struct done *next;
	char key[96];
};
struct box {
	struct done *done[256];
};
struct answer {
	struct timer timer;
	struct worker *worker;
	uint64_t handle;
	unsigned number;
	int err;
};

static bool is_new(struct box *b, struct span key)
{
	struct done **at = &b->done[route_hash(key.p, key.n) % 256];

	while (*at && (strlen((*at)->key) != key.n || memcmp((*at)->key, key.p, key.n) != 0))
		at = &(*at)->next;
	if (*at)
		return false;
	*at = calloc(1, sizeof(**at));
	snprintf((*at)->key, sizeof((*at)->key), "%.*s", (int)key.n, key.p);
	return true;
}

static void box_effect(struct rpc_request *r, struct record *c, unsigned which)
{
	unsigned life = sim_starts(world()->process[CALLERS + which]);
	char number[96];
	struct span key = r->once_key;

	if (!key.n) /* its client and its number there are its identity */
		key = span_of(number,
			      (size_t)snprintf(number, sizeof(number), "%s/%" PRIu64 "/%u/%" PRIu64, r->instance,
					       r->instance_epoch, r->instance_worker, r->once_seq));
	if (!r->has_once || (!r->once_key.n && !r->once_seq))
		sim_fail(sim_current(), "a once-call came without its key");
	else if (is_new(r->worker->user, key)) {
		if (c->life[which] != life)
			c->effects[which] = 0;
		c->life[which] = life;
		sim_check(sim_current(), ++c->effects[which] == 1, "call %zu took effect twice in one life",
			  (size_t)(c - world()->record));
	}
}

static void answer_now(struct answer *a)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "{\"number\":%u}", a->number);

	if (a->err)
		rpc_answer_err(a->worker, a->handle, a->err, EFFECT_DONE, "as it was told");
	else
		rpc_answer_ok(a->worker, a->handle, span_of(text, (size_t)n), NULL, 0);
	free(a);
}

static void on_answer_timer(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	answer_now((struct answer *)((char *)t - offsetof(struct answer, timer)));
}

static void check_owner(struct rpc_request *r)
{
	struct worker *w = r->worker;
	const struct route_row *row = route_owner(w->routes, "calls", r->key.p, r->key.n);

	sim_check(sim_current(),
		  row && !strcmp(row->id, w->service->id) && route_worker(row, r->key.p, r->key.n) == w->index,
		  "%s/%u got a call for another's key", w->service->id, w->index);
}

static void on_box(void *arg, struct rpc_request *r)
{
	struct world *x = world();
	struct sim *w = x->w;
	char text[64];
	unsigned number = CALLS_MAX;

	(void)arg;
	snprintf(text, sizeof(text), "%.*s", (int)r->body.n, r->body.p);
	if (sscanf(text, "{\"number\":%u}", &number) != 1 || number >= x->calls) {
		sim_fail(w, "a request nobody made: %s", text);
		return;
	}
	struct record *c = &x->record[number];

	check_owner(r);
	c->run++;
	if (r->method->kind == MSG_ONCE)
		box_effect(r, c, index_of(r->worker->service->id) - CALLERS);
	if (!r->handle)
		return;
	struct answer *a = calloc(1, sizeof(*a));
	*a = (struct answer){
		.worker = r->worker, .handle = r->handle, .number = number, .timer.fire = on_answer_timer
	};
	if (!x->gentle && sim_chance(w, 50000))
		a->err = ERR_FAILED;
	if (!x->gentle && sim_chance(w, 20000))
		free(a); /* never */
	else if (sim_chance(w, 500000))
		answer_now(a);
	else
		loop_timer(r->worker->loop, &a->timer, sim_random(w, 60));
}

static int box_start(struct worker *w)
{
	static const char *const all[] = { "calls.boxRemote.get", "calls.boxRemote.put", "calls.boxRemote.once" };

	w->user = calloc(1, sizeof(struct box));
	for (size_t i = 0; i < 3; i++)
		rpc_handle(w, schema_method(w->service->schema, all[i], strlen(all[i])), on_box, NULL);
	return 0;
}

/* ---- the callers -------------------------------------------------------------------------------------------------------- */

struct caller {
	struct timer next;
	struct worker *worker;
	struct {
		uint64_t handle;
		unsigned number;
	} last;
};

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct record *c = arg;
	struct world *x = world();
	size_t number = (size_t)(c - x->record);
	char expected[64];
	int n = snprintf(expected, sizeof(expected), "{\"number\":%zu}", number);

	c->ended++;
	c->err = a->err;
	c->effect = a->effect;
	x->ok += !a->err;
	sim_check(x->w, c->ended == 1, "call %zu ended twice", number);
	sim_check(x->w, !c->cancelled, "call %zu ended after it was cancelled", number);
	sim_check(x->w, sim_now_ns(x->w) <= c->deadline_ns + LATE_MS * 1000000u, "call %zu ended %llu ms late", number,
		  (unsigned long long)((sim_now_ns(x->w) - c->deadline_ns) / 1000000));
	if (!a->err)
		sim_check(x->w, a->body.n == (size_t)n && !memcmp(a->body.p, expected, a->body.n),
			  "call %zu got another's answer: %.*s", number, (int)a->body.n, a->body.p);
}

static uint32_t a_timeout(struct world *x)
{
	return x->gentle ? 20000 : (uint32_t)sim_between(x->w, 1, sim_chance(x->w, 500000) ? 200 : 4000);
}

static void make_call(struct caller *k)
{
	static const char *const methods[] = { "calls.boxRemote.put", "calls.boxRemote.get", "calls.boxRemote.once" };
	struct world *x = world();
	struct worker *w = k->worker;

	if (x->calls == CALLS_MAX)
		return;
	unsigned number = x->calls++;
	struct record *c = &x->record[number];
	const struct msg_method *m = schema_method_at(w->service->schema, 0);
	const char *name = methods[sim_random(x->w, 3)];
	char key[16], body[40], once[24];
	int key_n = snprintf(key, sizeof(key), "k%u", (unsigned)sim_random(x->w, 30));
	int body_n = snprintf(body, sizeof(body), "{\"number\":%u}", number);

	m = schema_method(w->service->schema, name, strlen(name));
	uint32_t timeout = a_timeout(x);
	*c = (struct record){ .caller = index_of(w->service->id),
			      .kind = (int)m->kind,
			      .made_ns = sim_now_ns(x->w),
			      .deadline_ns = sim_now_ns(x->w) + timeout * UINT64_C(1000000),
			      .notification = sim_chance(x->w, 50000) };
	c->start = sim_starts(x->process[c->caller]);
	struct rpc_call call = { .method = m,
				 .to = { .worker = -1, .key = span_of(key, (size_t)key_n) },
				 .body = span_of(body, (size_t)body_n),
				 .json = true,
				 .timeout_ms = timeout,
				 .on_answer = c->notification ? NULL : on_answer,
				 .arg = c };
	if (sim_chance(x->w, 500000))
		call.once = span_of(once, (size_t)snprintf(once, sizeof(once), "order-%u", number));
	uint64_t handle = rpc_call(w, &call);

	if (c->ended)
		sim_fail(x->w, "call %u ended inside rpc_call", number);
	if (!x->gentle && handle && k->last.handle && sim_chance(x->w, 100000) && rpc_cancel(w, k->last.handle)) {
		sim_check(x->w, !x->record[k->last.number].ended, "call %u was cancelled after its end",
			  k->last.number);
		x->record[k->last.number].cancelled = true;
	}
	k->last.handle = handle;
	k->last.number = number;
}

static void on_next(struct timer *t, uint64_t now_ms)
{
	struct caller *k = (struct caller *)((char *)t - offsetof(struct caller, next));
	struct world *x = world();

	(void)now_ms;
	for (uint64_t n = sim_random(x->w, 5); n && !x->quiet; n--)
		make_call(k);
	loop_timer(k->worker->loop, t, sim_between(x->w, 1, 15));
}

static int caller_start(struct worker *w)
{
	struct caller *k = w->user = calloc(1, sizeof(*k));

	k->worker = w;
	k->next.fire = on_next;
	loop_timer(w->loop, &k->next, 1);
	return 0;
}

static const struct service_def box_service = { .name = "calls", .worker_start = box_start };
static const struct service_def caller_service = { .name = "caller", .worker_start = caller_start };

/* ---- the world -------------------------------------------------------------------------------------------------------------- */

static void instance_main(struct env *env, void *arg)
{
	const char *const *id = arg;
	size_t i = (size_t)(id - ids);
	struct service_options o = { .config_file = "deploy/cluster.lua", .instance = *id };
	char error[512] = "";

	struct service *service;

	if (service_start(env, i < CALLERS ? &caller_service : &box_service, &o, error, sizeof(error), &service) < 0) {
		sim_fail(sim_current(), "%s: %s", *id, error);
		return;
	}
	world()->service[i] = service;
	loop_join(service->control);
	service_free(service);
}

static void start_as(struct sim *w, bool gentle)
{
	struct world *x = calloc(1, sizeof(*x));

	x->w = w;
	x->gentle = gentle;
	sim_user_set(w, x);
	sim_root(w, ".");
	for (size_t i = 0; i < INSTANCES; i++) {
		char host[16];

		snprintf(host, sizeof(host), "10.0.0.%zu", i + 1);
		sim_file_store(w, host, "deploy/cluster.lua", config, strlen(config));
		sim_file_store(w, host, "var/keys/cluster.key", cluster_key, strlen(cluster_key));
		x->process[i] = sim_process(w, ids[i], host, instance_main, (void *)(uintptr_t)&ids[i]);
		sim_supervise(x->process[i], 20, 400);
	}
	sim_run_ms(w, 500);
}

static void start(struct sim *w)
{
	start_as(w, false);
}

static void start_gentle(struct sim *w)
{
	sim_calm(w);
	start_as(w, true);
}

static void supervise(struct world *x)
{
	for (size_t i = 0; i < INSTANCES; i++)
		sim_supervise(x->process[i], 20, 400);
}

static void fault(struct world *x)
{
	struct sim *w = x->w;
	const char *a = ids[sim_random(w, INSTANCES)], *b = ids[sim_random(w, INSTANCES)];

	switch (sim_random(w, 8)) {
	case 0: sim_kill(x->process[sim_random(w, INSTANCES)]); break;
	case 1: sim_kill(x->process[CALLERS + sim_random(w, BOXES)]); break;
	case 2: sim_link_reset(w, a, b); break;
	case 3: sim_link_stall(w, a, b, sim_chance(w, 500000)); break;
	case 4: sim_link_refuse(w, a, b, sim_chance(w, 500000)); break;
	case 5: sim_link_delay(w, a, b, 1000, (uint32_t)sim_between(w, 2000, 100000)); break;
	case 6: sim_signal(x->process[CALLERS + sim_random(w, BOXES)], SIGTERM); break;
	default: sim_heal(w); break;
	}
	supervise(x);
}

/* ---- what must be true ---------------------------------------------------------------------------------------------------------- */

static bool its_caller_lives(const struct world *x, const struct record *c)
{
	return sim_alive(x->process[c->caller]) && sim_starts(x->process[c->caller]) == c->start;
}

static void check_record(struct world *x, unsigned number)
{
	const struct record *c = &x->record[number];

	if (!c->notification && !c->cancelled && its_caller_lives(x, c))
		sim_check(x->w, c->ended == 1, "call %u never ended", number);
	if (c->kind == MSG_PLAIN || c->notification)
		sim_check(x->w, c->run <= 1, "call %u ran %u times", number, c->run);
	if (!c->ended)
		return;
	if (!c->err)
		sim_check(x->w, c->run, "call %u was answered and never ran", number);
	else if (c->effect == EFFECT_NONE && c->kind != MSG_READ)
		sim_check(x->w, !c->run, "call %u ended with %s, effect none, and ran", number, err_word(c->err));
	if (x->gentle)
		sim_check(x->w, !c->err, "call %u failed: %s", number, err_word(c->err));
}

static void check_client(struct world *x, size_t i, const struct worker *w)
{
	sim_check(x->w, !pending_calls(&w->client->calls) && !w->client->ended.first, "%s/%u has %u calls left", ids[i],
		  w->index, pending_calls(&w->client->calls));
	for (const struct peer *p = w->client->peers; p; p = p->next)
		sim_check(x->w, !p->pendings && !p->kept_bytes && !p->waiting.first, "%s/%u has %u calls left at %s/%u",
			  ids[i], w->index, p->pendings, p->instance, p->remote_worker);
}

static bool calls_succeed(void *arg)
{
	struct world *x = arg;

	return x->ok >= 200;
}

static void check_end(struct world *x)
{
	x->ok = 0;
	if (!sim_until(x->w, 8000, calls_succeed, x))
		sim_fail(x->w, "too few calls succeed after the last fault");
	x->quiet = true;
	sim_run_ms(x->w, x->gentle ? 21000 : 5000);
	for (unsigned i = 0; i < x->calls && !sim_failure(x->w); i++)
		check_record(x, i);
	for (size_t i = 0; i < CALLERS && !sim_failure(x->w); i++)
		for (unsigned k = 0; k < WORKERS; k++)
			check_client(x, i, x->service[i]->worker[k]);
}

static void every_call_ends_once_in_time_with_what_is_true(struct sim *w)
{
	struct world *x = sim_user(w);

	for (int i = 0; i < 12 && sim_run_ms(w, sim_between(w, 5, 500)); i++)
		fault(x);
	sim_calm(w);
	sim_heal(w);
	check_end(x);
}

/* Ended by SIGTERM and started again, as at a new version: whoever calls notices nothing but time. */
static void no_call_fails_while_instances_are_replaced_one_by_one(struct sim *w)
{
	struct world *x = sim_user(w);

	sim_calm(w);
	sim_link_delay(w, NULL, NULL, 100,
		       (uint32_t)sim_between(w, 200, 40000)); /* calls are on their way when it goes */
	for (int i = 0; i < 4 && sim_run_ms(w, sim_between(w, 100, 600)); i++) {
		sim_signal(x->process[CALLERS + i % BOXES], SIGTERM);
		supervise(x);
	}
	sim_run_ms(w, 2000);
	check_end(x);
}

/* A script's endless loop holds its worker for a second, and longer on a busy machine: only its own caller may notice. */
static void no_call_fails_while_a_process_stands_still_for_a_budget_and_half(struct sim *w)
{
	struct world *x = sim_user(w);

	sim_calm(w);
	for (int i = 0; i < 8; i++) {
		x->quiet = true; /* links that say nothing but their heartbeats */
		sim_run_ms(w, sim_between(w, 500, 4000));
		x->quiet = false;
		sim_pause(x->process[sim_random(w, INSTANCES)], 1500);
		sim_run_ms(w, 2000);
	}
	check_end(x);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "every_call_ends_once_in_time_with_what_is_true",
		  .prepare = start,
		  .run = every_call_ends_once_in_time_with_what_is_true,
		  .seeds = 150 },
		{ .name = "no_call_fails_while_instances_are_replaced_one_by_one",
		  .prepare = start_gentle,
		  .run = no_call_fails_while_instances_are_replaced_one_by_one,
		  .seeds = 40 },
		{ .name = "no_call_fails_while_a_process_stands_still_for_a_budget_and_half",
		  .prepare = start_gentle,
		  .run = no_call_fails_while_a_process_stands_still_for_a_budget_and_half,
		  .seeds = 20 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
