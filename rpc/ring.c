#include "rpc/ring.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void set_release(struct ring_set *s)
{
	free(s->hash);
	*s = (struct ring_set){ .n = 0 };
}

static struct ring_set set_of(const char *service, const struct route_table *t, uint64_t self)
{
	struct ring_set s = { .id = route_ring(t, service), .hash = malloc(sizeof *s.hash * (t->rows + 1)) };

	assert(s.hash);
	for (size_t i = 0; i < t->rows; i++) {
		if (!route_is_ready(&t->row[i], service))
			continue;
		s.hash[s.n++] = t->row[i].hash;
		s.member |= t->row[i].hash == self;
	}
	return s;
}

static struct ring_set set_copy(const struct ring_set *from)
{
	struct ring_set s = *from;

	s.hash = malloc(sizeof *s.hash * (s.n + 1));
	assert(s.hash);
	memcpy(s.hash, from->hash, sizeof *s.hash * s.n);
	return s;
}

static bool gives(const struct ring_set *s, uint64_t self, uint64_t key_hash)
{
	uint64_t own = route_score(key_hash, self);

	for (size_t i = 0; s->member && i < s->n; i++)
		if (s->hash[i] != self && route_score(key_hash, s->hash[i]) > own)
			return false;
	return s->member;
}

static void forget_seen(struct ring *r)
{
	while (r->seens)
		set_release(&r->seen[--r->seens]);
}

void ring_init(struct ring *r, const char *id, const char *service, const struct route_table *t)
{
	*r = (struct ring){ .self = route_hash(id, strlen(id)) };
	r->target = set_of(service, t, r->self);
}

void ring_release(struct ring *r)
{
	forget_seen(r);
	set_release(&r->target);
}

bool ring_see(struct ring *r, const char *service, const struct route_table *t)
{
	if (route_ring(t, service) == r->target.id)
		return false;
	set_release(&r->target);
	r->target = set_of(service, t, r->self);
	if (r->seens == RING_SEEN_MAX)
		forget_seen(r);
	else if (r->seens)
		r->seen[r->seens++] = set_copy(&r->target);
	return true;
}

void ring_clear(struct ring *r)
{
	forget_seen(r);
	r->seen[r->seens++] = set_copy(&r->target);
}

enum ring_verdict ring_ask(const struct ring *r, uint64_t key_hash)
{
	bool held = r->seens;

	for (unsigned i = 0; held && i < r->seens; i++)
		held = gives(&r->seen[i], r->self, key_hash);
	if (held)
		return RING_HELD;
	return gives(&r->target, r->self, key_hash) ? RING_WAIT : RING_MOVED;
}
