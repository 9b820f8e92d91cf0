#include "connector/guests.h"
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
