#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gate/gate.h"

static uint64_t now_ms(const struct gate *g)
{
	return g->worker->loop->now_ms;
}

static bool usable(const struct gate *g, const struct load *l)
{
	return l->listed && !l->draining && l->heard_ms && now_ms(g) - l->heard_ms < GATE_FRESH_MS;
}

struct load *load_least(struct gate *g)
{
	struct load *best = NULL;

	for (size_t i = 0; i < g->loads; i++) {
		struct load *l = g->load[i];
		if (usable(g, l) && (!best || l->sessions + l->admitted < best->sessions + best->admitted))
			best = l;
	}
	return best;
}

static void usable_count(struct gate *g)
{
	int64_t n = 0;

	for (size_t i = 0; i < g->loads; i++)
		n += usable(g, g->load[i]);
	metric_set(g->usable_metric, n);
}

static unsigned total(const struct gate *g)
{
	unsigned n = 0;

	/* one that does not answer still holds its players, as far as anybody knows */
	for (size_t i = 0; i < g->loads; i++)
		if (g->load[i]->listed)
			n += g->load[i]->sessions;
	return n;
}

unsigned load_room(const struct gate *g)
{
	unsigned taken = g->sessions + g->admitted;

	return taken < g->players_max ? g->players_max - taken : 0;
}

/* ---- guests without a token ----------------------------------------------------------------------------------- */

/* Players that a connector holds, or lets in before it hears of us again. */
static unsigned held(const struct load *l)
{
	unsigned most = l->limit > l->told ? l->limit : l->told;

	return most > l->sessions ? most : l->sessions;
}

/* Its part of the room; what does not divide goes to another one each time. */
static unsigned share(const struct gate *g, const struct load *l)
{
	unsigned room = load_room(g), n = 0, place = 0;

	for (size_t i = 0; i < g->loads; i++) {
		if (g->load[i] == l)
			place = n;
		n += g->load[i]->listed;
	}
	return room / n + ((place + g->polls) % n < room % n);
}

/*
 * Up to how many players guests may enter at this connector. What was promised to one is taken from it first, and given
 * to another when the first has answered: so all limits together stay within players_max at any moment.
 */
static unsigned guest_limit(const struct gate *g, const struct load *l)
{
	unsigned others = g->admitted, wanted = l->sessions + share(g, l);

	if (g->queue)
		return 0;
	for (size_t i = 0; i < g->loads; i++)
		if (g->load[i] != l && g->load[i]->listed)
			others += held(g->load[i]);
	if (others >= g->players_max)
		return 0;
	return wanted < g->players_max - others ? wanted : g->players_max - others;
}

/* ---- asking ------------------------------------------------------------------------------------------------ */

static void on_load(void *arg, const struct rpc_answer *a)
{
	struct load *l = arg;
	struct gate *g = l->gate;
	json_t *o = a->err < 0 ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);
	const char *start = json_string_value(json_object_get(o, "start"));

	l->asking = false;
	if (start) {
		snprintf(l->start, sizeof(l->start), "%s", start);
		l->sessions = (unsigned)json_integer_value(json_object_get(o, "sessions"));
		l->limit = l->told;
		l->draining = json_is_true(json_object_get(o, "draining"));
		l->heard_ms = now_ms(g);
		g->sessions = total(g);
	}
	json_decref(o);
	usable_count(g);
	queue_pump(g);
}

static void ask(struct gate *g, struct load *l)
{
	char body[64];

	l->told = guest_limit(g, l);
	int n = snprintf(body, sizeof(body), "{\"room\":%u,\"limit\":%u}", g->queue ? 0 : load_room(g), l->told);
	struct rpc_call c = {
		.method = g->ask_load,
		.to = { .instance = l->instance, .worker = 0 },
		.body = span_of(body, (size_t)n),
		.json = true,
		.timeout_ms = GATE_FRESH_MS,
		.on_answer = on_load,
		.arg = l,
	};

	l->asking = rpc_call(g->worker, &c) != 0;
}

static struct load *load_of(struct gate *g, const char *instance)
{
	for (size_t i = 0; i < g->loads; i++)
		if (strcmp(g->load[i]->instance, instance) == 0)
			return g->load[i];
	g->load = realloc(g->load, (g->loads + 1) * sizeof(*g->load));
	struct load *l = calloc(1, sizeof(*l));
	assert(g->load && l);
	g->load[g->loads++] = l;
	l->gate = g;
	snprintf(l->instance, sizeof(l->instance), "%s", instance);
	return l;
}

/* The connectors of the route table of this moment. */
static void list(struct gate *g)
{
	const struct route_table *t = g->worker->routes;

	for (size_t i = 0; i < g->loads; i++)
		g->load[i]->listed = false;
	for (size_t i = 0; i < t->rows; i++) {
		const struct route_row *row = &t->row[i];
		if (strcmp(row->service, "connector") != 0 || row->state != ROUTE_READY)
			continue;
		struct load *l = load_of(g, row->id);
		l->listed = true;
		l->port = row->client_port;
		snprintf(l->host, sizeof(l->host), "%s", row->host);
	}
	g->sessions = total(g);
}

void load_ask(struct gate *g)
{
	list(g);
	g->polls++;
	for (size_t i = 0; i < g->loads; i++)
		if (g->load[i]->listed && !g->load[i]->asking)
			ask(g, g->load[i]);
}

static void on_poll(struct timer *t, uint64_t now)
{
	struct gate *g = (struct gate *)((char *)t - offsetof(struct gate, poll));

	(void)now;
	load_ask(g);
	usable_count(g);
	loop_timer(g->worker->loop, t, GATE_POLL_MS);
}

void load_init(struct gate *g)
{
	static const char *const keep[] = { "connector", "platform", NULL };

	rpc_keep(g->worker, keep);
	g->poll.fire = on_poll;
	loop_timer(g->worker->loop, &g->poll, 0);
}

void load_stop(struct gate *g)
{
	loop_timer_stop(g->worker->loop, &g->poll);
	for (size_t i = 0; i < g->loads; i++)
		free(g->load[i]);
	free(g->load);
	g->load = NULL;
	g->loads = 0;
}
