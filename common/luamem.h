#pragma once
#include <stddef.h>
/*
 * luamem: the allocator of one Lua state: bounded, and by size classes.
 *
 * Small blocks come from chunks that are kept until the end, so that the collector's sweep never gives memory back to the
 * system in the middle of a request: with glibc's malloc that made pauses of 180 ms at 100 MB.
 *
 * Threads: the state's owner only. Memory: luamem_free after lua_close.
 */
#define LUAMEM_SMALL 512 /* bytes; larger blocks are malloc's */
#define LUAMEM_GRAIN 16
struct luamem {
	size_t used, peak, max;
	size_t allocated; /* ever, also what was given back since */
	void *free[LUAMEM_SMALL / LUAMEM_GRAIN + 1];
	struct luamem_chunk *chunks;
	char *next, *end; /* what is left of the newest chunk */
};
void luamem_init(struct luamem *m, size_t max);
void luamem_free(struct luamem *m);
/* A lua_Alloc; ud is the struct luamem. Above max only shrinking succeeds. */
void *luamem_alloc(void *ud, void *block, size_t old_bytes, size_t bytes);
