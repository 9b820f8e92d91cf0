#include "connector/missed.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"

struct missed {
	struct missed *next; /* of its bucket */
	struct edge *edge;
	uint64_t sid;
	struct clientlate *list; /* NULL: its client has to reload */
	struct timer end;
};

/* ---- a list of pushes: an item is the route's length, the route, the body --------------------------------------- */

long missed_add(struct clientlate *l, const struct clientconn_push *p)
{
	uint16_t route_n = (uint16_t)p->route_n;
	struct iovec part[3] = { { .iov_base = &route_n, .iov_len = sizeof(route_n) },
				 { .iov_base = (char *)(uintptr_t)p->route, .iov_len = p->route_n },
				 { .iov_base = (char *)(uintptr_t)p->body, .iov_len = p->n } };
	size_t dropped = clientlate_add(l, p->supersedes, part, 3);

	return (long)(sizeof(route_n) + p->route_n + p->n) - (long)dropped;
}

static void item_read(const char *bytes, size_t n, struct span *route, struct span *body)
{
	uint16_t route_n;

	memcpy(&route_n, bytes, sizeof(route_n));
	*route = span_of(bytes + sizeof(route_n), route_n);
	*body = span_of(bytes + sizeof(route_n) + route_n, n - sizeof(route_n) - route_n);
}

void missed_deliver(struct clientlate *l, struct clientconn *c)
{
	struct clientconn_push made;
	struct span route, body;
	const char *bytes;
	size_t n;

	for (; clientlate_first(l, &bytes, &n); clientlate_take(l)) {
		item_read(bytes, n, &route, &body);
		if (clientconn_push_make(&made, c->face->dict, route.p, route.n, body.p, body.n) < 0)
			continue;
		clientconn_push(c, &made);
		clientconn_push_done(&made);
	}
}

/* ---- those who are missed ------------------------------------------------------------------------------------------- */

static struct missed **slot(struct edge *e, uint64_t sid)
{
	struct missed **at = &e->missed[sid % EDGE_MISSED];

	while (*at && (*at)->sid != sid)
		at = &(*at)->next;
	return at;
}

static void list_drop(struct missed *m)
{
	if (m->list)
		m->edge->missed_bytes -= clientlate_bytes(m->list);
	clientlate_free(m->list);
	m->list = NULL;
}

static void forget(struct missed **at)
{
	struct missed *m = *at;

	*at = m->next;
	list_drop(m);
	loop_timer_stop(m->edge->face.loop, &m->end);
	free(m);
}

static void on_end(struct timer *t, uint64_t now_ms)
{
	struct missed *m = (struct missed *)((char *)t - offsetof(struct missed, end));

	(void)now_ms;
	forget(slot(m->edge, m->sid));
}

void missed_came(struct edge *e, uint64_t sid, uint64_t left_ms, struct clientlate *list)
{
	struct missed *m = calloc(1, sizeof(*m));

	assert(m);
	m->edge = e;
	m->sid = sid;
	m->list = list;
	e->missed_bytes += list ? clientlate_bytes(list) : 0;
	m->end.fire = on_end;
	*slot(e, sid) = m;
	loop_timer(e->face.loop, &m->end, left_ms);
}

void missed_keep(struct session *s)
{
	missed_came(s->edge, s->conn.sid, s->edge->connector->grace_ms, s->conn.lost ? NULL : clientlate_new());
}

void missed_each(struct edge *e, void (*one)(void *arg, uint64_t sid, uint64_t left_ms, const struct clientlate *list),
		 void *arg)
{
	uint64_t now = e->face.loop->now_ms;

	for (size_t i = 0; i < EDGE_MISSED; i++)
		for (const struct missed *m = e->missed[i]; m; m = m->next)
			one(arg, m->sid, m->end.due_ms > now ? m->end.due_ms - now : 0, m->list);
}

bool missed_push(struct edge *e, uint64_t sid, const struct clientconn_push *p)
{
	struct missed *m = *slot(e, sid);

	if (!m || !m->list)
		return m != NULL;
	e->missed_bytes += (size_t)missed_add(m->list, p);
	if (clientlate_bytes(m->list) > MISSED_BYTES || e->missed_bytes > MISSED_TOTAL)
		list_drop(m);
	return true;
}

void missed_take(struct edge *e, uint64_t sid, struct buf *json)
{
	struct missed **at = slot(e, sid), *m = *at;
	struct span route, body;
	const char *bytes;
	size_t n;

	buf_addf(json, "{\"reload\":%s,\"pushes\":[", m && m->list ? "false" : "true");
	while (m && m->list && clientlate_first(m->list, &bytes, &n)) {
		item_read(bytes, n, &route, &body);
		if (json->data[json->len - 1] != '[')
			buf_addch(json, ',');
		buf_addstr(json, "{\"route\":");
		jsontext_quote(json, route.p, route.n);
		buf_addstr(json, ",\"body\":"); /* as text: not a byte of it changes */
		jsontext_quote(json, body.p, body.n);
		buf_addch(json, '}');
		e->missed_bytes -= n;
		clientlate_take(m->list);
	}
	buf_addstr(json, "]}");
	if (m)
		forget(at);
}

void missed_stop(struct edge *e)
{
	for (size_t i = 0; i < EDGE_MISSED; i++)
		while (e->missed[i])
			forget(&e->missed[i]);
}
