#include "rpc/rests.h"
#include <assert.h>
#include <string.h>
#include "rpc/route.h"

/* The first of the places that a name may take. */
static size_t ways_of(uint64_t hash)
{
	return hash % (RESTS_PLACES / RESTS_WAYS) * RESTS_WAYS;
}

static bool is(const struct rest *p, uint64_t hash, struct span who)
{
	return p->hash == hash && p->name_n == who.n && !memcmp(p->name, who.p, who.n);
}

/* NULL: they have done nothing, or it is forgotten. */
static const struct rest *find(const struct rests *r, struct span who, uint64_t now_ms)
{
	if (rests_none(r, now_ms))
		return NULL;
	uint64_t hash = route_hash(who.p, who.n);
	const struct rest *p = &r->place[ways_of(hash)];

	for (unsigned i = 0; i < RESTS_WAYS; i++)
		if (is(&p[i], hash, who))
			return p[i].forget_ms > now_ms ? &p[i] : NULL;
	return NULL;
}

/* Their place, so that nobody has two; a new one is taken from whom it was forgotten of, or would be first. */
static struct rest *take(struct rests *r, struct span who, uint64_t now_ms)
{
	uint64_t hash = route_hash(who.p, who.n);
	struct rest *p = &r->place[ways_of(hash)], *best = p;

	for (unsigned i = 0; i < RESTS_WAYS; i++) {
		if (is(&p[i], hash, who)) {
			best = &p[i];
			break;
		}
		if (p[i].forget_ms < best->forget_ms)
			best = &p[i];
	}
	if (is(best, hash, who) && best->forget_ms > now_ms)
		return best;
	*best = (struct rest){ .hash = hash, .name_n = (uint8_t)who.n };
	memcpy(best->name, who.p, who.n);
	return best;
}

static bool is_suspect(const struct rest *p, uint32_t budget_ms)
{
	return p->held_ms >= budget_ms;
}

uint64_t rests_held(struct rests *r, struct span who, uint32_t ms, uint32_t budget_ms, uint64_t now_ms)
{
	assert(who.n > 0 && who.n <= RESTS_NAME_MAX);
	uint64_t rest = (uint64_t)ms * RESTS_TIMES, forget_ms = now_ms + RESTS_MS_MAX;
	struct rest *p = take(r, who, now_ms);
	bool rests = is_suspect(p, budget_ms);

	p->held_ms = p->held_ms + ms < ms ? UINT32_MAX : p->held_ms + ms;
	if (rests) {
		uint64_t until_ms = now_ms + ms + (rest < RESTS_MS_MAX ? rest : RESTS_MS_MAX);
		if (until_ms > p->until_ms)
			p->until_ms = until_ms;
		forget_ms = p->until_ms > forget_ms ? p->until_ms : forget_ms;
	}
	p->forget_ms = forget_ms;
	r->forget_ms = forget_ms > r->forget_ms ? forget_ms : r->forget_ms;
	return rests ? p->until_ms - now_ms : 0;
}

uint32_t rests_budget_ms(const struct rests *r, struct span who, uint32_t budget_ms, uint64_t now_ms)
{
	const struct rest *p = find(r, who, now_ms);

	return p && is_suspect(p, budget_ms) ? (budget_ms + RESTS_PART - 1) / RESTS_PART : budget_ms;
}

bool rests_now(const struct rests *r, struct span who, uint64_t now_ms)
{
	const struct rest *p = find(r, who, now_ms);

	return p && p->until_ms > now_ms;
}
