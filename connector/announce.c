#include "connector/announce.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"
#include "connector/entry.h"

#define ANNOUNCE_BYTES (256u << 10) /* of one call */

static void text_add(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, ",\"%s\":", name);
	jsontext_quote(b, value, strlen(value));
}

static void announce_begin(struct buf *b, struct edge *e)
{
	buf_clear(b);
	buf_addf(b, "{\"worker\":%u", e->worker->index);
	text_add(b, "connector", e->connector->service->id);
	buf_addstr(b, ",\"online\":[");
}

static void announce_one(struct buf *b, const struct session *s)
{
	if (b->data[b->len - 1] != '[')
		buf_addch(b, ',');
	buf_addf(b, "{\"sid\":%llu", (unsigned long long)s->conn.sid);
	text_add(b, "uid", s->uid);
	text_add(b, "rid", s->rid);
	text_add(b, "resume", s->resume);
	text_add(b, "scene", session_attr(s, "scene", 5));
	buf_addch(b, '}');
}

static void announce_send(struct buf *b, struct edge *e, const struct route_row *row, uint32_t worker, bool last)
{
	struct rpc_call c = {
		.method = e->announce,
		.to = { .instance = row->id, .worker = (int)worker },
		.json = true,
		.trace = edge_trace(e),
	};

	buf_addf(b, "],\"last\":%s}", last ? "true" : "false");
	c.body = span_of(b->data, b->len);
	rpc_call(e->worker, &c);
}

static bool owned_by(const struct session *s, const struct route_table *t, const char *service,
		     const struct route_row *row)
{
	size_t n = strlen(s->uid);
	const struct route_row *owner;

	if (s->stage != SESSION_IN)
		return false;
	owner = route_owner(t, service, s->uid, n);
	return owner && strcmp(owner->id, row->id) == 0;
}

/* All players whose owner is this worker of the instance; an empty list says so too: it may be waited for. */
static void announce_to(struct edge *e, const struct route_row *row, uint32_t worker)
{
	struct buf b = BUF_INIT;

	announce_begin(&b, e);
	for (uint32_t i = 0; i < e->slots; i++) {
		struct session *s = e->slot[i];
		if (!s || !owned_by(s, e->worker->routes, "role", row) ||
		    route_worker(row, s->uid, strlen(s->uid)) != worker)
			continue;
		announce_one(&b, s);
		if (b.len < ANNOUNCE_BYTES)
			continue;
		announce_send(&b, e, row, worker, false);
		announce_begin(&b, e);
	}
	announce_send(&b, e, row, worker, true);
	buf_release(&b);
}

void announce_late(struct edge *e, const struct session *s)
{
	const struct route_row *owner = route_owner(e->worker->routes, "role", s->uid, strlen(s->uid));
	struct buf b = BUF_INIT;

	if (!owner)
		return; /* who comes is told of all */
	announce_begin(&b, e);
	announce_one(&b, s);
	announce_send(&b, e, owner, route_worker(owner, s->uid, strlen(s->uid)), false);
	buf_release(&b);
}

/* The chat forgets its rooms when it ends; its members come back from here. */
static void rejoin(struct edge *e, struct session *s)
{
	struct buf b = BUF_INIT;
	struct rpc_call c = {
		.method = e->chat_add,
		.to = { .worker = -1, .key = span_of(s->uid, strlen(s->uid)) },
		.json = true,
		.trace = edge_trace(e),
	};

	const char *renamed = session_attr(s, "name", 4);

	entry_chat_body(&b, e, s->uid, s->conn.sid, *renamed ? renamed : s->name, s->rid);
	c.body = span_of(b.data, b.len);
	rpc_call(e->worker, &c);
	buf_release(&b);
}

static void rejoin_all(struct edge *e, const struct route_row *row)
{
	for (uint32_t i = 0; i < e->slots; i++)
		if (e->slot[i] && owned_by(e->slot[i], e->worker->routes, "chat", row))
			rejoin(e, e->slot[i]);
}

static void announce_row(struct edge *e, const struct route_row *row)
{
	if (strcmp(row->service, "role") == 0)
		for (uint32_t worker = 0; worker < row->workers; worker++)
			announce_to(e, row, worker);
	else if (strcmp(row->service, "chat") == 0)
		rejoin_all(e, row);
}

/* ---- when ------------------------------------------------------------------------------------------------------ */

static struct known *known_of(struct edge *e, const char *instance)
{
	for (size_t i = 0; i < e->knowns; i++)
		if (strcmp(e->known[i].instance, instance) == 0)
			return &e->known[i];
	e->known = realloc(e->known, (e->knowns + 1) * sizeof(*e->known));
	assert(e->known);
	struct known *k = &e->known[e->knowns++];
	*k = (struct known){ .epoch = 0 };
	snprintf(k->instance, sizeof(k->instance), "%s", instance);
	return k;
}

/*
 * A new start has forgotten all; and a player's owner that was away may have taken our sessions for lost, or let their
 * players in elsewhere.
 */
static void on_peer(struct worker *w, const char *instance, uint64_t epoch, bool up)
{
	struct edge *e = w->user;
	const struct route_row *row = route_find(w->routes, instance);
	struct known *k;

	if (!row || e->stopping)
		return;
	k = known_of(e, instance);
	if (!up && strcmp(row->service, "role") == 0)
		k->epoch = 0;
	if (!up)
		return;
	if (k->epoch == epoch)
		return;
	k->epoch = epoch;
	if (!e->taking) /* else it would be told that nobody is here */
		announce_row(e, row);
}

void announce_taken(struct edge *e)
{
	e->taking = false;
	for (size_t i = 0; i < e->knowns; i++) {
		const struct route_row *row = route_find(e->worker->routes, e->known[i].instance);
		bool same = false;
		for (size_t k = 0; k < e->formers; k++)
			same |= !strcmp(e->former[k].instance, e->known[i].instance) &&
				e->former[k].epoch == e->known[i].epoch;
		if (row && e->known[i].epoch && !same)
			announce_row(e, row);
	}
	free(e->former);
	e->former = NULL;
	e->formers = 0;
}

/* Instances came or went: keys have moved to owners that know nothing of them. */
static void on_routes(struct worker *w)
{
	struct edge *e = w->user;
	bool players_move = route_ring(w->routes, "role") != route_ring(e->routes, "role");

	e->rings += players_move;
	for (size_t i = 0; i < w->routes->rows && !e->stopping && !e->taking; i++) {
		const struct route_row *row = &w->routes->row[i];
		const struct route_row *old = route_find(e->routes, row->id);
		bool same = old && old->state == row->state;
		bool gains = players_move && !strcmp(row->service, "role");
		if (same && !gains && w->routes->rows == e->routes->rows)
			continue;
		if (row->state == ROUTE_READY && rpc_connected(w, row->id))
			announce_row(e, row);
	}
	route_unref(e->routes);
	e->routes = route_ref(w->routes);
}

void announce_watch(struct edge *e)
{
	static const char *const keep[] = { "role", "chat", "scene", "team", "gate", NULL };

	e->routes = route_ref(e->worker->routes);
	e->worker->on_peer = on_peer;
	e->worker->on_routes = on_routes;
	rpc_keep(e->worker, keep);
}

void announce_stop(struct edge *e)
{
	e->worker->on_peer = NULL;
	e->worker->on_routes = NULL;
	route_unref(e->routes);
	free(e->known);
	free(e->former);
}
