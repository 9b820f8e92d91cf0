#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gate/gate.h"

#define TOKENS_MS  1000  /* since somebody came to the gate */
#define TOLD_MS    60000 /* between two lines of the log on the same connector's key, or clock */
#define DIFFERS_MS 2000  /* of two clocks: what a slow answer may seem to make is less */

static bool usable(const struct gate *g, const struct load *l)
{
	return l->listed && !l->draining && !l->foreign && l->heard_ms && gate_now_ms(g) - l->heard_ms < GATE_FRESH_MS;
}

/* Let in by other gates, and not in yet, as it told. */
static unsigned others_of(const struct load *l)
{
	unsigned n = 0;

	for (size_t i = 0; i < l->expecteds; i++)
		n += l->expected[i].n;
	return n;
}

static bool takes_one_more(const struct gate *g, const struct load *l)
{
	if (!usable(g, l) || (g->connector_admit_per_s && l->allowance < 1))
		return false;
	return !g->connector_players_max || l->sessions + l->admitted + others_of(l) < g->connector_players_max;
}

struct load *load_least(struct gate *g)
{
	struct load *best = NULL;

	for (size_t i = 0; i < g->loads; i++) {
		struct load *l = g->load[i];
		if (takes_one_more(g, l) && (!best || l->sessions + l->admitted < best->sessions + best->admitted))
			best = l;
	}
	return best;
}

static void usable_count(struct gate *g)
{
	unsigned foreign = 0;
	uint64_t differs_ms = 0;

	g->usable = 0;
	for (size_t i = 0; i < g->loads; i++) {
		g->usable += usable(g, g->load[i]);
		foreign += g->load[i]->listed && g->load[i]->foreign;
		if (g->load[i]->listed && g->load[i]->differs_ms > differs_ms)
			differs_ms = g->load[i]->differs_ms;
	}
	metric_set(g->usable_metric, g->usable);
	metric_set(g->foreign_metric, foreign);
	metric_set(g->differs_metric, differs_ms); /* a gauge of seconds is kept in milliseconds */
}

bool load_known(const struct gate *g)
{
	bool known = g->loads > 0;

	for (size_t i = 0; i < g->loads; i++)
		known &= !g->load[i]->listed || g->load[i]->heard_ms;
	return known;
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

/* Let in by gates that do not speak to us, or by an earlier start of one; and not in yet. */
static unsigned orphans(const struct gate *g)
{
	unsigned n = 0;

	for (size_t i = 0; i < g->loads; i++)
		for (size_t j = 0; j < g->load[i]->expecteds; j++) {
			const struct expected *x = &g->load[i]->expected[j];
			n += peers_known(g, x->gate, x->epoch) ? 0 : x->n;
		}
	return n;
}

static unsigned room_beside(const struct gate *g, unsigned in)
{
	unsigned taken = in + g->admitted + peers_held(g) + orphans(g) + g->reserved;

	return taken < g->players_max ? g->players_max - taken : 0;
}

unsigned load_room(const struct gate *g)
{
	return room_beside(g, g->sessions);
}

/* ---- guests without a token ----------------------------------------------------------------------------------- */

/* Players that a connector holds, or lets in before it hears of us again. */
static unsigned held(const struct load *l)
{
	unsigned most = l->limit > l->told ? l->limit : l->told;

	return most > l->sessions ? most : l->sessions;
}

unsigned load_free(const struct gate *g)
{
	unsigned n = 0;

	for (size_t i = 0; i < g->loads; i++)
		if (g->load[i]->listed)
			n += held(g->load[i]);
	return room_beside(g, n);
}

/* While players come to the gates, a part of the room is kept for them: what is promised to guests has to be asked back. */
static unsigned promised(const struct gate *g)
{
	unsigned room = load_room(g);
	bool asked = g->asked_ms && gate_now_ms(g) - g->asked_ms < TOKENS_MS;

	return asked || peers_listed(g) ? room - room / 4 : room;
}

/* Its part of it; what does not divide goes to another one each time. */
static unsigned share(const struct gate *g, const struct load *l)
{
	unsigned room = promised(g), n = 0, place = 0;

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
	unsigned beside = 0, wanted = l->sessions + share(g, l);

	if (line_count(&g->line) + peers_waiting(g))
		return 0;
	for (size_t i = 0; i < g->loads; i++)
		if (g->load[i] != l && g->load[i]->listed)
			beside += held(g->load[i]);
	unsigned most = room_beside(g, beside);
	if (g->connector_players_max && most > g->connector_players_max)
		most = g->connector_players_max;
	return wanted < most ? wanted : most;
}

/* ---- asking ------------------------------------------------------------------------------------------------ */

static void expected_read(struct load *l, const json_t *all)
{
	size_t i;
	json_t *one;

	l->expecteds = 0;
	json_array_foreach((json_t *)(uintptr_t)all, i, one)
	{
		struct expected *x = &l->expected[l->expecteds];
		const char *gate = json_string_value(json_object_get(one, "gate"));
		if (!gate || l->expecteds == GATE_PEERS_MAX)
			break;
		snprintf(x->gate, sizeof(x->gate), "%s", gate);
		x->epoch = (uint64_t)json_integer_value(json_object_get(one, "epoch"));
		x->n = (unsigned)json_integer_value(json_object_get(one, "n"));
		l->expecteds++;
	}
}

/* Where the clocks agree it is ours: so the tokens of all connectors end in the order of their admissions. */
uint64_t load_wall_ms(const struct load *l)
{
	if (l->differs_ms < DIFFERS_MS)
		return gate_wall_us(l->gate) / 1000;
	return l->wall_ms + (gate_now_ms(l->gate) - l->heard_ms);
}

/* Tokens do without, for they end by the connector's clock; the logs of the two hosts are hard to read together. */
static void clocks_compare(struct load *l)
{
	struct gate *g = l->gate;
	uint64_t now = gate_now_ms(g);
	int64_t ahead = l->wall_ms ? (int64_t)(l->wall_ms - gate_wall_us(g) / 1000) : 0;

	l->differs_ms = (uint64_t)(ahead < 0 ? -ahead : ahead);
	if (l->differs_ms < DIFFERS_MS || (l->differs_told_ms && now < l->differs_told_ms + TOLD_MS))
		return;
	l->differs_told_ms = now;
	log_warn(g->service->log, "clock.differs", "connector=%s ahead_ms=%lld", l->instance, (long long)ahead);
}

/* A connector of before says nothing of it. */
static void key_compare(struct load *l, const char *theirs)
{
	struct gate *g = l->gate;
	uint64_t now = gate_now_ms(g);

	l->foreign = theirs && strcmp(theirs, g->token_key) != 0;
	if (!l->foreign || (l->foreign_told_ms && now < l->foreign_told_ms + TOLD_MS))
		return;
	l->foreign_told_ms = now;
	log_warn(g->service->log, "token.foreign", "connector=%s why=%s", l->instance,
		 "its token.key is another one: no players are sent there");
}

static void ask(struct gate *g, struct load *l);

static bool all_answered(const struct gate *g)
{
	for (size_t i = 0; i < g->loads; i++)
		if (usable(g, g->load[i]) && g->load[i]->asking)
			return false;
	return true;
}

static void on_load(void *arg, const struct rpc_answer *a)
{
	struct load *l = arg;
	struct gate *g = l->gate;
	json_t *o = a->err < 0 ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);
	const char *start = json_string_value(json_object_get(o, "start"));

	l->asking = false;
	if (start) {
		snprintf(l->start, sizeof(l->start), "%s", start);
		l->sessions = (unsigned)json_integer_value(json_object_get(o, "sessions")) + l->entered;
		l->limit = l->told;
		l->draining = json_is_true(json_object_get(o, "draining"));
		l->heard_ms = gate_now_ms(g);
		l->wall_ms = (uint64_t)json_integer_value(json_object_get(o, "now_ms"));
		clocks_compare(l);
		key_compare(l, json_string_value(json_object_get(o, "token_key")));
		expected_read(l, json_object_get(o, "expected"));
		g->sessions = total(g);
	}
	json_decref(o);
	if (l->asked_again && l->listed && l->limit > l->sessions)
		ask(g, l);
	l->asked_again = false;
	if (all_answered(g))
		peers_counted(g);
	usable_count(g);
	queue_pump(g);
}

/* The keeper of the count alone says how many guests may enter. */
static void ask(struct gate *g, struct load *l)
{
	struct buf b = BUF_INIT;

	l->told = g->keeper ? 0 : guest_limit(g, l);
	buf_addf(&b, "{\"admitted\":%u,\"token_key\":\"%s\"", l->admitted, g->token_key);
	if (!g->keeper)
		buf_addf(&b, ",\"room\":%u,\"limit\":%u", queue_stands(g) ? 0 : load_room(g), l->told);
	buf_addch(&b, '}');
	struct rpc_call c = {
		.method = g->ask_load,
		.to = { .instance = l->instance, .worker = 0 },
		.body = span_of(b.data, b.len),
		.json = true,
		.timeout_ms = GATE_FRESH_MS,
		.on_answer = on_load,
		.arg = l,
	};

	l->entered = 0;
	l->asking = rpc_call(g->worker, &c) != 0;
	buf_release(&b);
}

bool load_recall(struct gate *g)
{
	bool any = false;

	for (size_t i = 0; i < g->loads; i++) {
		struct load *l = g->load[i];
		if (!l->listed || held(l) == l->sessions)
			continue;
		any = true;
		if (!l->asking)
			ask(g, l);
		else if (l->told > l->sessions)
			l->asked_again = true;
	}
	return any;
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
		snprintf(l->host, sizeof(l->host), "%s", route_client_host(row));
	}
	g->sessions = total(g);
}

static void on_poll(struct timer *t, uint64_t now)
{
	struct gate *g = (struct gate *)((char *)t - offsetof(struct gate, poll));

	(void)now;
	list(g);
	peers_poll(g);
	g->polls++;
	for (size_t i = 0; i < g->loads; i++)
		if (g->load[i]->listed && !g->load[i]->asking)
			ask(g, g->load[i]);
	usable_count(g);
	loop_timer(g->worker->loop, t, GATE_POLL_MS);
}

void load_init(struct gate *g)
{
	static const char *const keep[] = { "connector", "platform", "gate", NULL };

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
