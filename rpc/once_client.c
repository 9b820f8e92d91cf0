#include <assert.h>
#include <stdlib.h>
#include "rpc/once.h"

#define WORDS (ONCE_WINDOW / 64)

static uint64_t *word_of(const struct once_client *c, uint64_t seq)
{
	return &c->incomplete[seq / 64 % WORDS];
}

uint64_t once_client_begin(struct once_client *c)
{
	if (!c->incomplete) {
		c->incomplete = calloc(WORDS, sizeof(*c->incomplete));
		assert(c->incomplete);
	}
	if (c->begun - c->ended >= ONCE_WINDOW)
		return 0;
	c->begun++;
	*word_of(c, c->begun) |= 1ull << c->begun % 64;
	return c->begun;
}

/* To before the next bit that is set: those of numbers that were not given out yet are not. */
static void ended_advance(struct once_client *c, uint64_t seq)
{
	uint64_t left;

	while (!(left = *word_of(c, seq) >> seq % 64)) {
		seq += 64 - seq % 64;
		if (seq > c->begun) {
			c->ended = c->begun;
			return;
		}
	}
	c->ended = seq + (unsigned)__builtin_ctzll(left) - 1;
}

void once_client_end(struct once_client *c, uint64_t seq)
{
	assert(seq > c->ended && seq <= c->begun);
	*word_of(c, seq) &= ~(1ull << seq % 64);
	if (seq == c->ended + 1)
		ended_advance(c, seq);
}

void once_client_release(struct once_client *c)
{
	free(c->incomplete);
	*c = (struct once_client){ .begun = 0 };
}
