#pragma once
#include <stdint.h>
/*
 * blocks: blocks of any size inside one piece of memory, without a header per block.
 *
 * The caller knows the size of its blocks, and each block's third word holds two bits for this module: whether it is
 * free, and whether the one before it is. So neighbours that become free grow together at once, and a block costs
 * nothing but being rounded up to whole units. Alloc and free are O(1): a good fit from lists by size.
 *
 * Threads: owner only.
 * Memory:  the caller's; blocks are named by the number of their first unit, and never move. 0 is no block.
 * Source:  boundary tags as in D. Knuth, TAOCP 1, 2.5; bins and bitmaps as in M. Masmano and others, "TLSF", ECRTS 2004.
 */
#define BLOCKS_UNIT 16u
#define BLOCKS_BITS 0xc0000000u /* of bits: not the caller's to change */
#define BLOCKS_BINS 256

struct block { /* one unit; those of a larger block behind its first are the caller's altogether */
	uint32_t link[2];
	uint32_t bits;
	uint32_t size; /* the caller's as well while it has the block */
};
struct blocks {
	struct block *block;
	uint32_t units, free_units; /* all, and those in free blocks */
	uint32_t bin[BLOCKS_BINS];
	uint64_t bins_used[BLOCKS_BINS / 64];
};
void blocks_init(struct blocks *a, struct block *memory, uint32_t units); /* zeroed memory; at least 3 units */
uint32_t blocks_alloc(struct blocks *a, uint32_t units);                  /* 0: no free block is large enough */
void blocks_free(struct blocks *a, uint32_t at, uint32_t units);          /* units as at its alloc */
