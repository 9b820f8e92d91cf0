#include <assert.h>
#include <stdlib.h>
#include "rpc/once.h"

#define WORDS (ONCE_WINDOW / 64)

static uint64_t *word_of(const struct once_client *c, uint64_t seq)
{
	return &c->incomplete[seq / 64 % WORDS];
}

uint64_t once_client_first(const struct once_client *c)
{
	return c->first ? c->first : 1;
}

uint64_t once_client_begin(struct once_client *c)
{
	if (!c->incomplete) {
		c->incomplete = calloc(WORDS, sizeof(*c->incomplete));
		assert(c->incomplete);
		c->next = c->first = 1;
	}
	if (c->next - c->first >= ONCE_WINDOW)
		return 0;
	*word_of(c, c->next) |= 1ull << c->next % 64;
	return c->next++;
}

/* To the next bit that is set: those of numbers that were not given out yet are not. */
static void first_advance(struct once_client *c)
{
	uint64_t first = c->first;

	while (first < c->next) {
		uint64_t left = *word_of(c, first) >> first % 64;

		if (left) {
			first += (unsigned)__builtin_ctzll(left);
			break;
		}
		first += 64 - first % 64;
	}
	c->first = first < c->next ? first : c->next;
}

void once_client_end(struct once_client *c, uint64_t seq)
{
	assert(seq >= c->first && seq < c->next);
	*word_of(c, seq) &= ~(1ull << seq % 64);
	if (seq == c->first)
		first_advance(c);
}

void once_client_release(struct once_client *c)
{
	free(c->incomplete);
	*c = (struct once_client){ .next = 0 };
}
