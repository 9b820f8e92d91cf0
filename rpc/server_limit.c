#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/server.h"

/*
 * A method's limits (rpc.limits): so many of its requests run at once, and of each connection so many wait; more are busy
 * at once. Who waits is taken in turns by connection, so that one that floods delays itself.
 */
struct held {
	struct held *next;
	struct rpc_request r;
	const struct link *link; /* to tell connections apart, never followed: it may be gone */
	char bytes[];
};

static struct span keep(char **at, struct span part)
{
	struct span kept = span_of(*at, part.n);

	if (part.n)
		memcpy(*at, part.p, part.n);
	*at += part.n;
	return kept;
}

static struct held *held_new(const struct rpc_request *r, const struct link *link)
{
	struct held *h = malloc(sizeof *h + r->uid.n + r->key.n + r->once_key.n + r->body.n);
	char *at;

	assert(h);
	at = h->bytes;
	h->next = NULL;
	h->link = link;
	h->r = *r;
	h->r.uid = keep(&at, r->uid);
	h->r.key = keep(&at, r->key);
	h->r.once_key = keep(&at, r->once_key);
	h->r.body = keep(&at, r->body);
	return h;
}

static uint32_t held_of(const struct server_method *m, const struct link *link)
{
	uint32_t n = 0;

	for (const struct held *h = m->held; h; h = h->next)
		n += h->link == link;
	return n;
}

int limit_admit(const struct server_method *m, const struct link *link)
{
	if (!m->running_max || m->running < m->running_max)
		return LIMIT_RUNS;
	return held_of(m, link) < m->queued_max ? LIMIT_WAITS : ERR_BUSY;
}

void limit_hold(struct server_method *m, const struct rpc_request *r, const struct link *link)
{
	struct held **at = &m->held;

	while (*at)
		at = &(*at)->next;
	*at = held_new(r, link);
}

/* The first of another connection than the one before; else the first. */
static struct held *held_take(struct server_method *m)
{
	struct held **at = &m->held, *h;

	while (*at && (*at)->link == m->served)
		at = &(*at)->next;
	if (!*at)
		at = &m->held;
	h = *at;
	*at = h->next;
	m->served = h->link;
	return h;
}

/* Nobody waits for a notification, so its sender may have gone. */
static void note_run(struct rpc_server *s, struct server_method *m, struct rpc_request *r)
{
	if (s->worker->loop->now_ms > r->deadline_ms) {
		metric_add(s->refused, 1);
	} else {
		flight_runs(s, r->ticket);
		metric_add(m->stats.requests, 1);
		m->fn(m->arg, r);
	}
	rpc_ended(s->worker, r->ticket);
}

static void held_run(struct rpc_server *s, uint32_t index)
{
	struct server_method *m = &s->method[index];
	struct held *h = held_take(m);

	if (!h->r.handle)
		note_run(s, m, &h->r);
	else if (!flight_waited_for(s, h->r.handle))
		flight_drop(s, h->r.handle);
	else if (s->worker->loop->now_ms > h->r.deadline_ms)
		rpc_answer_err(s->worker, h->r.handle, ERR_TIMEOUT, EFFECT_NONE,
			       "its time was over before its turn came");
	else {
		flight_runs(s, h->r.handle);
		rpc_began(s->worker, h->r.handle);
		m->fn(m->arg, &h->r); /* m may have moved: a handler may bring methods */
	}
	free(h);
}

void limit_next(struct loop_deferred *d)
{
	struct rpc_server *s = (struct rpc_server *)((char *)d - offsetof(struct rpc_server, limited));

	for (uint32_t i = 0; i < s->methods; i++)
		while (s->method[i].held && s->method[i].running < s->method[i].running_max)
			held_run(s, i);
}

void limit_messages(struct server_method *m)
{
	for (struct held *h = m->held; h; h = h->next)
		h->r.method = m->method;
}

void limit_release(struct server_method *m)
{
	while (m->held) {
		struct held *h = m->held;

		m->held = h->next;
		free(h);
	}
}

static int64_t limit_int(const struct config *c, size_t i, const char *name)
{
	char path[64];

	snprintf(path, sizeof path, "rpc.limits[%zu].%s", i, name);
	return config_int(c, path, 0);
}

void limit_init(struct server_method *m, const struct config *c)
{
	char path[64];

	for (size_t i = 1; i <= config_count(c, "rpc.limits"); i++) {
		snprintf(path, sizeof path, "rpc.limits[%zu].method", i);
		if (strcmp(config_string(c, path, ""), m->method->full) != 0)
			continue;
		m->running_max = (uint32_t)limit_int(c, i, "running");
		m->queued_max = (uint32_t)limit_int(c, i, "queued");
	}
}
