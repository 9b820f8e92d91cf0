#include "common/blocks.h"
#include <assert.h>

/*
 * A free block: link is its place in the list of its bin (next, previous), size stands in its first unit and in its last
 * one, where the block behind it looks. The first and the last unit of the memory are never free, so no block lacks a
 * neighbour.
 */
enum { NEXT, PREVIOUS };
#define FREE        0x80000000u
#define BEFORE_FREE 0x40000000u /* the block before this one is free */

/* One bin per size below 32 units, then eight per power of two. */
enum { EXACT_BITS = 5, EXACT = 1 << EXACT_BITS, STEP_BITS = 3 };

static unsigned bin_of(uint32_t units)
{
	if (units < EXACT)
		return units;
	unsigned top = 31 - (unsigned)__builtin_clz(units);
	return EXACT + ((top - EXACT_BITS) << STEP_BITS) + (units >> (top - STEP_BITS)) % (1 << STEP_BITS);
}

static void link_free(struct blocks *a, uint32_t at, uint32_t units)
{
	unsigned bin = bin_of(units);
	uint32_t next = a->bin[bin];
	a->block[at] = (struct block){ .link = { next, 0 }, .bits = FREE, .size = units };
	a->block[at + units - 1].size = units;
	a->block[at + units].bits |= BEFORE_FREE;
	if (next)
		a->block[next].link[PREVIOUS] = at;
	a->bin[bin] = at;
	a->bins_used[bin / 64] |= UINT64_C(1) << bin % 64;
	a->free_units += units;
}

static void unlink_free(struct blocks *a, uint32_t at)
{
	struct block *b = &a->block[at];
	uint32_t next = b->link[NEXT], previous = b->link[PREVIOUS];
	unsigned bin = bin_of(b->size);
	if (next)
		a->block[next].link[PREVIOUS] = previous;
	if (previous)
		a->block[previous].link[NEXT] = next;
	else if (!(a->bin[bin] = next))
		a->bins_used[bin / 64] &= ~(UINT64_C(1) << bin % 64);
	a->free_units -= b->size;
	a->block[at + b->size].bits &= ~BEFORE_FREE;
}

void blocks_init(struct blocks *a, struct block *memory, uint32_t units)
{
	assert(units >= 3);
	*a = (struct blocks){ .block = memory, .units = units };
	link_free(a, 1, units - 2);
}

/* The first bin from `from` on that has a block; 0: none. */
static unsigned seek(const struct blocks *a, unsigned from)
{
	for (unsigned word = from / 64; word < BLOCKS_BINS / 64; word++) {
		uint64_t bits = a->bins_used[word];
		if (word == from / 64)
			bits &= UINT64_MAX << from % 64;
		if (bits)
			return word * 64 + (unsigned)__builtin_ctzll(bits);
	}
	return 0;
}

uint32_t blocks_alloc(struct blocks *a, uint32_t units)
{
	unsigned bin = bin_of(units);
	uint32_t at = a->bin[bin]; /* may be too small where a bin holds several sizes; a larger bin's never is */
	if (!at || a->block[at].size < units)
		at = a->bin[seek(a, bin + 1)];
	if (!at)
		return 0;
	uint32_t rest = a->block[at].size - units;
	unlink_free(a, at);
	a->block[at].bits = 0;
	if (rest)
		link_free(a, at + units, rest);
	return at;
}

void blocks_free(struct blocks *a, uint32_t at, uint32_t units)
{
	uint32_t behind = at + units;
	assert(at && behind < a->units && !(a->block[at].bits & FREE));
	if (a->block[behind].bits & FREE) {
		units += a->block[behind].size;
		unlink_free(a, behind);
	}
	if (a->block[at].bits & BEFORE_FREE) {
		uint32_t before = a->block[at - 1].size;
		at -= before;
		units += before;
		unlink_free(a, at);
	}
	link_free(a, at, units);
}
