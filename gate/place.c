#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gate/gate.h"

static struct place **nonce_slot(struct gate *g, const char *nonce)
{
	return &g->place[route_hash(nonce, strlen(nonce)) % GATE_HASH];
}

static struct place **account_slot(struct gate *g, const char *uid)
{
	return &g->account[route_hash(uid, strlen(uid)) % GATE_HASH];
}

struct place *place_find(struct gate *g, const char *nonce)
{
	struct place *p = *nonce_slot(g, nonce);

	while (p && strcmp(p->nonce, nonce) != 0)
		p = p->hash_next;
	return p;
}

struct place *place_of_account(struct gate *g, const char *uid)
{
	struct place *p = *account_slot(g, uid);

	while (p && strcmp(p->uid, uid) != 0)
		p = p->account_next;
	return p;
}

struct place *place_first(const struct gate *g)
{
	struct line_node *n = line_first(&g->line);

	return n ? (struct place *)((char *)n - offsetof(struct place, node)) : NULL;
}

static void queued_note(struct gate *g)
{
	metric_set(g->queued_metric, line_count(&g->line));
}

static void forget(struct place *p)
{
	struct place **at = nonce_slot(p->gate, p->nonce);

	while (*at != p)
		at = &(*at)->hash_next;
	*at = p->hash_next;
	if (p->guest)
		return;
	at = account_slot(p->gate, p->uid);
	while (*at != p)
		at = &(*at)->account_next;
	*at = p->account_next;
}

void place_free(struct place *p)
{
	struct gate *g = p->gate;

	loop_timer_stop(g->worker->loop, &p->timer);
	if (p->state == PLACE_QUEUED) {
		line_remove(&g->line, &p->node);
		queued_note(g);
	} else {
		p->load->admitted--;
		g->admitted--;
	}
	if (p->visitor)
		p->visitor->place = NULL;
	forget(p);
	addrcount_add(&g->held, p->from, -1);
	g->places--;
	free(p);
}

static void on_timer(struct timer *t, uint64_t now)
{
	struct place *p = (struct place *)((char *)t - offsetof(struct place, timer));

	(void)now;
	if (p->state == PLACE_QUEUED && p->visitor)
		tell_look(p);
	else
		place_free(p);
}

static void hash(struct place *p)
{
	struct place **at = nonce_slot(p->gate, p->nonce);

	p->hash_next = *at;
	*at = p;
	if (p->guest)
		return;
	at = account_slot(p->gate, p->uid);
	p->account_next = *at;
	*at = p;
}

/* A class stands as if it had come so much earlier: who waits long enough is before every later one of any class. */
static uint64_t key_of(const struct place *p)
{
	uint64_t lead_us = p->rank * p->gate->rank_lead_s * 1000000ull;

	return p->since_us > lead_us ? p->since_us - lead_us : 0;
}

/* An admission that nobody uses keeps a player out as well: so an address has no more of them than connections. */
bool place_fits(struct gate *g, const char *addr)
{
	struct addrplace from = addrcount_place(&g->held, addr);
	struct addrcounted before = addrcount_add(&g->held, from, 1);

	addrcount_add(&g->held, from, -1);
	return g->places < GATE_PLACES_MAX &&
	       (balancers_trust(g->face.balancers, addr) ||
		(before.address < g->per_address_max && (!g->per_subnet_max || before.subnet < g->per_subnet_max)));
}

struct place *place_new(struct gate *g, const char *addr, const char *uid, bool guest, unsigned rank,
			const char *origin, const char *nonce, uint64_t since_us)
{
	uint8_t raw[8];

	if (!nonce && !place_fits(g, addr))
		return NULL;
	struct place *p = calloc(1, sizeof(*p));
	assert(p);
	p->from = addrcount_place(&g->held, addr);
	addrcount_add(&g->held, p->from, 1);
	env_random(g->service->env, raw, sizeof(raw));
	token_nonce(raw, p->nonce);
	if (nonce)
		snprintf(p->nonce, sizeof(p->nonce), "%s", nonce);
	snprintf(p->origin, sizeof(p->origin), "%s", origin ? origin : g->service->id);
	snprintf(p->uid, sizeof(p->uid), "%s", uid);
	p->gate = g;
	p->guest = guest;
	p->rank = (uint8_t)(rank < GATE_CLASS_MAX ? rank : GATE_CLASS_MAX);
	if (!since_us) { /* no two are the same, so that a ticket says its place in the line */
		since_us = gate_wall_us(g);
		since_us = g->since_us = since_us > g->since_us ? since_us : g->since_us + 1;
	}
	p->since_us = since_us;
	p->timer.fire = on_timer;
	hash(p);
	g->places++;
	line_add(&g->line, &p->node, key_of(p));
	queued_note(g);
	loop_timer(g->worker->loop, &p->timer, GATE_PLACE_MS);
	return p;
}

void place_attach(struct place *p, struct visitor *v)
{
	struct visitor *before = p->visitor;

	p->visitor = v;
	if (before && before != v) {
		before->place = NULL;
		if (v)
			clientconn_kick(&before->conn, "another connection has taken this place");
	}
	if (v)
		v->place = p;
	if (p->state == PLACE_ADMITTED)
		return; /* its end is fixed */
	loop_timer(p->gate->worker->loop, &p->timer, v ? TELL_LOOK_MS : GATE_PLACE_MS);
}

void place_admit(struct place *p, struct load *l)
{
	struct gate *g = p->gate;

	line_remove(&g->line, &p->node);
	queued_note(g);
	p->state = PLACE_ADMITTED;
	p->load = l;
	p->token_ends_ms = load_wall_ms(l) + GATE_ADMIT_MS;
	l->admitted++;
	g->admitted++;
	metric_add(g->admitted_metric, 1);
	loop_timer(g->worker->loop, &p->timer, GATE_ADMIT_MS);
}

unsigned place_position(const struct place *p)
{
	return p->state == PLACE_QUEUED ? line_position(&p->node) : 0;
}

int place_ticket(const struct place *p, char out[TOKEN_MAX])
{
	char since[24], rank[8];
	const char *fields[TICKET_FIELDS] = {
		p->uid, p->guest ? "guest" : "account", p->origin, p->nonce, since, rank
	};

	snprintf(since, sizeof(since), "%llu", (unsigned long long)p->since_us);
	snprintf(rank, sizeof(rank), "%u", p->rank);
	return token_make(p->gate->service->token_key, "ticket", p->since_us / 1000 + GATE_TICKET_MS, fields,
			  TICKET_FIELDS, out, TOKEN_MAX);
}

int place_token(const struct place *p, char out[TOKEN_MAX])
{
	const struct service *s = p->gate->service;
	const char *fields[] = { p->uid,  p->guest ? "guest" : "account", p->load->instance, p->load->start, s->id,
				 p->nonce };

	return token_make(s->token_key, "login", p->token_ends_ms, fields, 6, out, TOKEN_MAX);
}

void place_stop(struct gate *g)
{
	for (size_t i = 0; i < GATE_HASH; i++)
		while (g->place[i])
			place_free(g->place[i]);
}
