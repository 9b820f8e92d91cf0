#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "gate/gate.h"

/*
 * Gates side by side let in no more than players_max together, and no more than admit_per_s: one of them keeps the
 * count, the first by name of those that are connected, and the others ask it for admissions. What it has given counts until
 * the other says that the player is in, and then until the connectors' words, which may be older, say so too.
 */
#define HOLD_MS  300  /* after a change of the keeper: the others tell what they hold */
#define ALONE_MS 1000 /* who has not asked for so long is not waited for */
#define ASK_MS   1000

struct peer *peer_of(struct gate *g, const char *instance)
{
	for (size_t i = 0; i < g->peers; i++)
		if (strcmp(g->peer[i].instance, instance) == 0)
			return &g->peer[i];
	if (g->peers == GATE_PEERS_MAX)
		return NULL;
	struct peer *p = &g->peer[g->peers++];
	*p = (struct peer){ .lost_ms = g->start_ms ? g->start_ms : 1 };
	snprintf(p->instance, sizeof(p->instance), "%s", instance);
	return p;
}

unsigned peers_listed(const struct gate *g)
{
	unsigned n = 0;

	for (size_t i = 0; i < g->peers; i++)
		n += g->peer[i].listed;
	return n;
}

bool peers_met(const struct gate *g)
{
	for (size_t i = 0; i < g->peers; i++)
		if (g->peer[i].listed && !g->peer[i].met)
			return false;
	return true;
}

unsigned peers_waiting(const struct gate *g)
{
	unsigned n = 0;

	for (size_t i = 0; i < g->peers; i++)
		n += g->peer[i].waiting;
	return n;
}

static bool asks_us(const struct gate *g, const struct peer *p)
{
	return p->heard_ms && gate_now_ms(g) - p->heard_ms < ALONE_MS;
}

bool peers_known(const struct gate *g, const char *instance, uint64_t epoch)
{
	for (size_t i = 0; i < g->peers; i++)
		if (strcmp(g->peer[i].instance, instance) == 0 && g->peer[i].epoch == epoch)
			return asks_us(g, &g->peer[i]);
	return false;
}

/* Of one that is silent the connectors know what it let in (load.c). */
unsigned peers_held(const struct gate *g)
{
	unsigned n = 0;

	for (size_t i = 0; i < g->peers; i++) {
		const struct peer *p = &g->peer[i];
		if (asks_us(g, p))
			n += p->held + p->due + p->entered_now + p->entered_before;
	}
	return n;
}

/* ---- who keeps the count --------------------------------------------------------------------------------------- */

static void choose(struct gate *g)
{
	struct peer *first = NULL, *before = g->keeper;

	for (size_t i = 0; i < g->peers; i++) {
		struct peer *p = &g->peer[i];
		bool up = p->listed && rpc_connected(g->worker, p->instance);
		p->met |= up;
		if (up)
			p->lost_ms = 0;
		else if (!p->lost_ms)
			p->lost_ms = gate_now_ms(g);
		if (up && strcmp(p->instance, first ? first->instance : g->service->id) < 0)
			first = p;
	}
	if (first == before)
		return;
	g->keeper = first;
	g->grants = 0;
	if (g->hold_until_ms < gate_now_ms(g) + HOLD_MS)
		g->hold_until_ms = gate_now_ms(g) + HOLD_MS;
	log_info(g->service->log, "gate.keeper", "keeper=%s", first ? first->instance : g->service->id);
}

void peers_poll(struct gate *g)
{
	const struct route_table *t = g->worker->routes;

	for (size_t i = 0; i < g->peers; i++) {
		struct peer *p = &g->peer[i];
		p->listed = false;
		p->entered_before += p->entered_now;
		p->entered_now = 0;
		if (!asks_us(g, p))
			p->waiting = p->due = 0;
	}
	for (size_t i = 0; i < t->rows; i++) {
		const struct route_row *row = &t->row[i];
		struct peer *p = NULL;
		if (strcmp(row->service, "gate") == 0 && row->state == ROUTE_READY &&
		    strcmp(row->id, g->service->id) != 0)
			p = peer_of(g, row->id);
		if (p)
			p->listed = true;
	}
	choose(g);
	peers_ask(g, false);
}

/* ---- as keeper ---------------------------------------------------------------------------------------------------- */

struct peer *peers_turn(struct gate *g, unsigned waiting)
{
	struct peer *next = NULL;
	double least = g->pass;
	unsigned weight = waiting;

	for (size_t i = 0; i < g->peers; i++) {
		struct peer *p = &g->peer[i];
		if (p->waiting <= p->due)
			continue;
		if (!weight || p->pass < least) {
			next = p;
			least = p->pass;
			weight = p->waiting;
		}
	}
	if (!weight)
		return NULL;
	/* who had nobody waiting does not catch up on its turns */
	for (size_t i = 0; i < g->peers; i++)
		if (g->peer[i].pass < least)
			g->peer[i].pass = least;
	if (g->pass < least)
		g->pass = least;
	*(next ? &next->pass : &g->pass) += 1.0 / weight;
	return next;
}

/* p NULL: our own. */
void peers_parts(const struct gate *g, const struct peer *p, unsigned waiting, double *room, double *rate)
{
	unsigned all = waiting;

	for (size_t i = 0; i < g->peers; i++)
		all += g->peer[i].waiting;
	double part = all ? (double)(p ? p->waiting : waiting) / all : 1;
	*room = load_room(g) * part;
	*rate = g->admit_per_s * part;
}

void peers_counted(struct gate *g)
{
	for (size_t i = 0; i < g->peers; i++)
		g->peer[i].entered_before = 0;
}

unsigned peers_allow(struct gate *g, struct peer *p, unsigned waiting, unsigned held, uint64_t entered)
{
	if (asks_us(g, p) && entered > p->entered)
		p->entered_now += (unsigned)(entered - p->entered);
	p->entered = entered;
	p->heard_ms = gate_now_ms(g);
	p->waiting = waiting;
	p->held = held;
	if (waiting)
		g->asked_ms = gate_now_ms(g);
	queue_pump(g);
	unsigned n = p->due < waiting ? p->due : waiting;
	p->due = 0;
	p->held += n;
	p->waiting -= n;
	return n;
}

/* ---- as one of the others ------------------------------------------------------------------------------------------- */

static void on_allowed(void *arg, const struct rpc_answer *a)
{
	struct gate *g = arg;
	json_t *o = a->err < 0 ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

	g->allow_asking = false;
	if (o && g->keeper) {
		g->grants += (unsigned)json_integer_value(json_object_get(o, "n"));
		g->share_room = json_number_value(json_object_get(o, "room"));
		g->share_rate = json_number_value(json_object_get(o, "rate"));
	}
	json_decref(o);
	if (g->allow_again) {
		g->allow_again = false;
		peers_ask(g, false);
	}
	queue_pump(g);
}

void peers_ask(struct gate *g, bool again)
{
	unsigned waiting = line_count(&g->line);
	char body[120];

	if (!g->keeper)
		return;
	if (g->allow_asking) {
		g->allow_again |= again;
		return;
	}
	if (g->grants > waiting) /* they have left: it may have them back */
		g->grants = waiting;
	int n = snprintf(body, sizeof(body), "{\"waiting\":%u,\"held\":%u,\"entered\":%llu}", waiting - g->grants,
			 g->admitted + g->grants, (unsigned long long)g->entered);
	struct rpc_call c = {
		.method = g->allow,
		.to = { .instance = g->keeper->instance, .worker = 0 },
		.body = span_of(body, (size_t)n),
		.json = true,
		.timeout_ms = ASK_MS,
		.on_answer = on_allowed,
		.arg = g,
	};
	g->allow_asking = rpc_call(g->worker, &c) != 0;
}
