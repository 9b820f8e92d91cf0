#include "connector/session.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "connector/entry.h"
#include "connector/forward.h"
#include "connector/missed.h"
#include "connector/watch.h"

#define SLOT_BITS       20
#define GENERATION_BITS 28

/* ---- numbers ------------------------------------------------------------------------------------------------ */

static void slots_grow(struct edge *e)
{
	uint32_t more = e->slots ? e->slots * 2 : 256;

	e->slot = realloc(e->slot, more * sizeof(*e->slot));
	e->free_slot = realloc(e->free_slot, more * sizeof(*e->free_slot));
	assert(e->slot && e->free_slot);
	for (uint32_t i = more; i > e->slots; i--) {
		e->slot[i - 1] = NULL;
		e->free_slot[e->frees++] = i - 1;
	}
	e->slots = more;
}

/* false: the worker holds as many sessions as it can number. */
static bool number_take(struct edge *e, struct session *s)
{
	if (!e->frees && e->slots == 1u << SLOT_BITS)
		return false;
	if (!e->frees)
		slots_grow(e);
	uint32_t slot = e->free_slot[--e->frees];
	e->generation = (e->generation + 1) & ((1u << GENERATION_BITS) - 1);
	e->slot[slot] = s;
	s->conn.sid = (uint64_t)e->worker->index << 48 | (uint64_t)e->generation << SLOT_BITS | slot;
	return true;
}

struct session *session_take(struct edge *e, uint64_t sid)
{
	uint32_t slot = (uint32_t)(sid & ((1u << SLOT_BITS) - 1));
	struct session *s = calloc(1, sizeof(*s));

	assert(s);
	while (slot >= e->slots)
		slots_grow(e);
	assert(!e->slot[slot]); /* before it the process had no session */
	e->slot[slot] = s;
	s->edge = e;
	s->held_last = &s->held;
	return s;
}

void session_numbers_taken(struct edge *e)
{
	e->frees = 0;
	for (uint32_t i = e->slots; i > 0; i--)
		if (!e->slot[i - 1])
			e->free_slot[e->frees++] = i - 1;
}

static void number_give(struct edge *e, uint64_t sid)
{
	uint32_t slot = (uint32_t)(sid & ((1u << SLOT_BITS) - 1));

	e->slot[slot] = NULL;
	e->free_slot[e->frees++] = slot;
}

struct session *session_find(struct edge *e, uint64_t sid)
{
	uint32_t slot = (uint32_t)(sid & ((1u << SLOT_BITS) - 1));

	if (slot >= e->slots || !e->slot[slot] || e->slot[slot]->conn.sid != sid)
		return NULL;
	return e->slot[slot];
}

/* ---- attributes ----------------------------------------------------------------------------------------------- */

static struct session_attr **attr_find(struct session *s, const char *name, size_t n)
{
	for (int i = 0; i < SESSION_ATTRS_MAX; i++)
		if (s->attr[i] && s->attr[i]->name_n == n && memcmp(s->attr[i]->text, name, n) == 0)
			return &s->attr[i];
	return NULL;
}

static struct session_attr **attr_room(struct session *s)
{
	for (int i = 0; i < SESSION_ATTRS_MAX; i++)
		if (!s->attr[i])
			return &s->attr[i];
	return NULL;
}

const char *session_attr(const struct session *s, const char *name, size_t n)
{
	struct session_attr **a = n ? attr_find((struct session *)(uintptr_t)s, name, n) : NULL;

	return a ? (*a)->text + (*a)->name_n + 1 : "";
}

void session_attrs_free(struct session *s)
{
	for (int i = 0; i < SESSION_ATTRS_MAX; i++)
		free(s->attr[i]);
}

static struct session_attr *attr_new(struct span name, struct span value)
{
	struct session_attr *a = malloc(sizeof(*a) + name.n + 1 + value.n + 1);

	assert(a);
	a->name_n = (uint8_t)name.n;
	memcpy(a->text, name.p, name.n);
	a->text[name.n] = '\0';
	memcpy(a->text + name.n + 1, value.p, value.n);
	a->text[name.n + 1 + value.n] = '\0';
	return a;
}

int session_attr_set(struct session *s, struct span name, struct span value)
{
	struct session_attr **a;

	if (!name.n || name.n > SESSION_ATTR_NAME || value.n > PLAYER_NAME_MAX)
		return ERR_FULL;
	a = attr_find(s, name.p, name.n);
	if (!a && !value.n)
		return 0;
	if (!a && !(a = attr_room(s)))
		return ERR_FULL;
	free(*a);
	*a = value.n ? attr_new(name, value) : NULL;
	return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

struct session *session_of(struct clientconn *c)
{
	return (struct session *)((char *)c - offsetof(struct session, conn));
}

void session_accept(struct edge *e, struct env_conn *conn, const char *addr)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s || e->stopping || !number_take(e, s)) {
		env_conn_close(conn);
		clientlisten_gone(e->connector->listen, addr);
		free(s);
		return;
	}
	s->edge = e;
	s->held_last = &s->held;
	clientconn_accept(&s->conn, &e->face, conn, addr);
	clientconn_hold(&s->conn, e->handing);
}

/* worker->busy is what a draining connector waits for. */
static void count(struct edge *e, int change)
{
	uint32_t n = atomic_fetch_add_explicit(&e->worker->busy, (uint32_t)change, memory_order_relaxed);

	metric_set(e->sessions, (int64_t)(n + (uint32_t)change));
}

void session_counted(struct session *s)
{
	s->stage = SESSION_IN;
	count(s->edge, 1);
}

void session_forget(struct session *s)
{
	if (s->stage == SESSION_IN)
		count(s->edge, -1);
	s->stage = SESSION_OUT;
	number_give(s->edge, s->conn.sid);
	forward_cut(s);
	clientconn_forget(&s->conn);
}

void session_login(struct session *s)
{
	session_counted(s);
	clientconn_login(&s->conn);
	forward_held(s);
}

void session_send_on(struct session *s, const char *reason)
{
	s->comes_back = true;
	clientconn_kick(&s->conn, reason);
}

void session_logout(struct session *s)
{
	s->stage = SESSION_OUT;
	clientconn_login_wait(&s->conn, false);
	forward_held(s);
}

void session_end(struct clientconn *c)
{
	struct session *s = session_of(c);
	enum session_stage stage = s->stage;

	s->stage = SESSION_OUT;
	number_give(s->edge, c->sid);
	forward_cut(s);
	entry_cut(s);
	if (stage != SESSION_OUT)
		watch_ended(s->edge, c->sid);
	if (stage != SESSION_IN)
		return;
	count(s->edge, -1);
	if (!c->kicked && !s->edge->stopping)
		missed_keep(s);
	entry_leave(s);
}
