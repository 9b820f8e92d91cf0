#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gate/gate.h"

/*
 * A ticket whose place is not here: every other gate is asked for it. Whoever has it gives it up. When nobody has it, but
 * one of the gates may have forgotten it, because it started anew or cannot be reached, the ticket alone is believed:
 * it says who, since when and in which class, and nobody else can have made it.
 */
#define ASK_MS 2000

struct search {
	struct search *next, **prev; /* of the gate */
	struct gate *gate;
	struct visitor *visitor; /* NULL: it has gone */
	uint32_t id;
	uint64_t start_ns;
	unsigned asked; /* and not heard of, and one while asking goes on */
	bool there, forgotten;
	char uid[PLAYER_UID_MAX + 1], origin[32], nonce[TOKEN_NONCE_MAX];
	unsigned rank;
	bool guest;
	uint64_t since_us;
};

bool gate_young(const struct gate *g, uint64_t since_us)
{
	return since_us < g->start_us && gate_now_ms(g) - g->start_ms < GATE_PLACE_MS;
}

static void search_free(struct search *s)
{
	if (s->next)
		s->next->prev = s->prev;
	*s->prev = s->next;
	if (s->visitor) {
		s->visitor->search = NULL;
		clientconn_login_wait(&s->visitor->conn, false);
	}
	free(s);
}

void search_cut(struct visitor *v)
{
	if (v->search)
		v->search->visitor = NULL;
	v->search = NULL;
}

void search_stop(struct gate *g)
{
	while (g->searches) {
		g->searches->visitor = NULL;
		search_free(g->searches);
	}
}

/* The same ticket may have been shown twice: then its place is there by now. */
static struct place *settle(struct search *s)
{
	struct gate *g = s->gate;
	struct place *p = place_find(g, s->nonce);

	if (p)
		return p;
	if (!s->there) {
		metric_add(g->believed_metric, 1);
		queue_settle(g);
	}
	return place_new(g, s->visitor->conn.addr, s->uid, s->guest, s->rank, s->origin, s->nonce, s->since_us);
}

static void heard(struct search *s)
{
	struct visitor *v = s->visitor;
	struct search was = *s;

	if (--s->asked)
		return;
	if (!v) {
		visitor_note(s->gate, ERR_UNAVAILABLE, s->start_ns);
		search_free(s);
		return;
	}
	struct place *p = was.there || was.forgotten ? settle(s) : NULL;
	search_free(s);
	if (p) {
		place_attach(p, v);
		visitor_answer(v, was.id, p, was.start_ns);
		queue_pump(was.gate);
	} else {
		visitor_refuse(v, was.id, was.start_ns, ERR_NOT_FOUND,
			       "this ticket's place is given up: ask without it");
	}
}

static void on_taken(void *arg, const struct rpc_answer *a)
{
	struct search *s = arg;
	json_t *o = a->err < 0 ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

	s->there |= json_is_true(json_object_get(o, "there"));
	s->forgotten |= !o || json_is_true(json_object_get(o, "forgotten"));
	json_decref(o);
	heard(s);
}

static void ask(struct search *s, const struct peer *p)
{
	struct gate *g = s->gate;
	char body[100];
	int n = snprintf(body, sizeof(body), "{\"nonce\":\"%s\",\"since\":%llu}", s->nonce,
			 (unsigned long long)s->since_us);
	struct rpc_call c = {
		.method = g->take,
		.to = { .instance = p->instance, .worker = 0 },
		.body = span_of(body, (size_t)n),
		.json = true,
		.timeout_ms = ASK_MS,
		.on_answer = on_taken,
		.arg = s,
	};

	bool up = rpc_connected(g->worker, p->instance);
	if (up && rpc_call(g->worker, &c))
		s->asked++;
	else if (up || !p->lost_ms || gate_now_ms(g) - p->lost_ms < GATE_PLACE_MS)
		s->forgotten = true;
}

void search_start(struct visitor *v, uint32_t id, const struct token *t, uint64_t start_ns)
{
	struct gate *g = v->gate;
	struct search *s;

	if (!place_fits(g, v->conn.addr)) { /* before the gate that has it gives it up */
		visitor_refuse(v, id, start_ns, ERR_BUSY, PLACES_FULL);
		return;
	}
	s = calloc(1, sizeof(*s));
	assert(s);
	*s = (struct search){ .gate = g, .visitor = v, .id = id, .start_ns = start_ns, .asked = 1 };
	s->next = g->searches;
	s->prev = &g->searches;
	if (s->next)
		s->next->prev = &s->next;
	g->searches = s;
	v->search = s;
	snprintf(s->uid, sizeof(s->uid), "%s", t->field[0]);
	s->guest = strcmp(t->field[1], "guest") == 0;
	snprintf(s->origin, sizeof(s->origin), "%s", t->field[2]);
	snprintf(s->nonce, sizeof(s->nonce), "%s", t->field[3]);
	s->since_us = strtoull(t->field[4], NULL, 10);
	s->rank = (unsigned)strtoul(t->field[5], NULL, 10);
	s->forgotten = gate_young(g, s->since_us);
	clientconn_login_wait(&v->conn, true);
	for (size_t i = 0; i < g->peers; i++)
		if (g->peer[i].listed)
			ask(s, &g->peer[i]);
	heard(s);
}
