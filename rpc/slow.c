#include "rpc/slow.h"
#include <string.h>
#include "common/text.h"

#define WINDOW_NS (SLOW_S * 1000000000ull)

static void forget_old(struct slow *s, uint64_t now_ns)
{
	for (unsigned i = 0; i < s->n;)
		if (now_ns - s->call[i].at_ns >= WINDOW_NS)
			s->call[i] = s->call[--s->n];
		else
			i++;
}

static struct slow_call *least(struct slow *s)
{
	struct slow_call *c = &s->call[0];

	for (unsigned i = 1; i < s->n; i++)
		if (s->call[i].us < c->us)
			c = &s->call[i];
	return c;
}

void slow_note(struct slow *s, const struct slow_call *c)
{
	forget_old(s, c->at_ns);
	if (s->n < SLOW_KEPT)
		s->call[s->n++] = *c;
	else if (least(s)->us < c->us)
		*least(s) = *c;
	s->floor_ns = s->n < SLOW_KEPT ? 0 : least(s)->us * 1000;
	s->expire_ns = UINT64_MAX;
	for (unsigned i = 0; i < s->n; i++)
		if (s->call[i].at_ns + WINDOW_NS < s->expire_ns)
			s->expire_ns = s->call[i].at_ns + WINDOW_NS;
}

void slow_key(struct slow_call *c, struct span key)
{
	size_t n = 0;
	unsigned one;

	while (n < key.n && (one = text_utf8(key.p + n, key.p + key.n)) && n + one < sizeof c->key)
		n += one;
	if (n)
		memcpy(c->key, key.p, n);
	c->key[n] = '\0';
}
