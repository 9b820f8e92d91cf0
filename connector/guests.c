#include "connector/guests.h"
#include <stdio.h>
#include <string.h>
#include "connector/connector.h"

static uint64_t now_ms(const struct connector *c)
{
	return env_wall_us(c->service->env) / 1000;
}

void guests_entering(struct connector *c, int change)
{
	atomic_fetch_add_explicit(&c->places.entering, (unsigned)change, memory_order_relaxed);
}

unsigned guests_held(struct connector *c)
{
	return connector_sessions(c->service) + atomic_load_explicit(&c->places.entering, memory_order_relaxed);
}

void guests_told(struct connector *c, int64_t room, int64_t limit)
{
	struct guests *g = &c->places;

	if (limit < 0)
		limit = room ? guests_held(c) + room : 0;
	atomic_store_explicit(&g->room, room, memory_order_relaxed);
	atomic_store_explicit(&g->limit, limit, memory_order_relaxed);
	atomic_store_explicit(&g->until_ms, now_ms(c) + GUESTS_WORD_MS, memory_order_relaxed);
}

/* Counted first and looked at then: of two workers at the last place one may wait a moment, but never do both enter. */
enum guests_answer guests_enter(struct connector *c)
{
	struct guests *g = &c->places;
	bool told = atomic_load_explicit(&g->until_ms, memory_order_relaxed) > now_ms(c);
	int64_t limit = told ? atomic_load_explicit(&g->limit, memory_order_relaxed) : c->players_max;

	guests_entering(c, 1);
	if (guests_held(c) <= limit)
		return GUESTS_FIT;
	guests_entering(c, -1);
	return told && atomic_load_explicit(&g->room, memory_order_relaxed) > 0 ? GUESTS_WAIT : GUESTS_FULL;
}

void guests_expect(struct connector *c, const char *gate, uint64_t epoch, unsigned n)
{
	struct guests_expected *at = NULL;
	uint64_t now = now_ms(c);

	for (int i = 0; i < GUESTS_GATES_MAX; i++) {
		struct guests_expected *x = &c->places.expected[i];
		bool is = x->until_ms > now && x->epoch == epoch && strcmp(x->gate, gate) == 0;
		if (is || (!at && x->until_ms <= now))
			at = x;
		if (is)
			break;
	}
	if (!at)
		return; /* so many starts of gates within a token's life: the oldest words count longer than they should */
	snprintf(at->gate, sizeof(at->gate), "%s", gate);
	at->epoch = epoch;
	at->n = n;
	at->until_ms = n ? now + GUESTS_TOKEN_MS : 0;
}

/* Of its oldest start that still waits for somebody: of the others a later word tells better. */
void guests_came(struct connector *c, const char *gate)
{
	struct guests_expected *at = NULL;

	for (int i = 0; i < GUESTS_GATES_MAX; i++) {
		struct guests_expected *x = &c->places.expected[i];
		if (x->until_ms && x->n && strcmp(x->gate, gate) == 0 && (!at || x->epoch < at->epoch))
			at = x;
	}
	if (at)
		at->n--;
}
