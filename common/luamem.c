#include "common/luamem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK (64 * 1024)

struct luamem_chunk {
	struct luamem_chunk *next;
	_Alignas(16) char bytes[];
};

#if defined(__SANITIZE_ADDRESS__)
enum { POOLED = 0 }; /* so that the sanitizer sees each block */
#else
enum { POOLED = 1 };
#endif

void luamem_init(struct luamem *m, size_t max)
{
	memset(m, 0, sizeof *m);
	m->max = max;
}

void luamem_free(struct luamem *m)
{
	while (m->chunks) {
		struct luamem_chunk *next = m->chunks->next;
		free(m->chunks);
		m->chunks = next;
	}
}

static int is_small(size_t bytes)
{
	return POOLED && bytes <= LUAMEM_SMALL;
}

static size_t class_of(size_t bytes)
{
	return (bytes + LUAMEM_GRAIN - 1) / LUAMEM_GRAIN;
}

/* What is left of the old chunk is put into the lists, so that nothing is lost. */
static int new_chunk(struct luamem *m)
{
	struct luamem_chunk *c = malloc(sizeof *c + CHUNK);
	if (!c)
		return 0;
	while (m->next < m->end) {
		size_t left = (size_t)(m->end - m->next) / LUAMEM_GRAIN, class = left;
		if (class > LUAMEM_SMALL / LUAMEM_GRAIN)
			class = LUAMEM_SMALL / LUAMEM_GRAIN;
		*(void **)m->next = m->free[class];
		m->free[class] = m->next;
		m->next += class * LUAMEM_GRAIN;
	}
	c->next = m->chunks;
	m->chunks = c;
	m->next = c->bytes;
	m->end = c->bytes + CHUNK;
	return 1;
}

static __attribute__((noinline)) void *take_new(struct luamem *m, size_t class)
{
	if ((size_t)(m->end - m->next) < class * LUAMEM_GRAIN && !new_chunk(m))
		return NULL;
	void *block = m->next;
	m->next += class * LUAMEM_GRAIN;
	return block;
}

static inline void *take(struct luamem *m, size_t bytes)
{
	if (!is_small(bytes))
		return malloc(bytes);
	size_t class = class_of(bytes);
	void *block = m->free[class];
	if (!block)
		return take_new(m, class);
	m->free[class] = *(void **)block;
	__builtin_prefetch(m->free[class], 1); /* the next one's line comes while this one is filled */
	return block;
}

static inline void give(struct luamem *m, void *block, size_t bytes)
{
	if (!is_small(bytes)) {
		free(block);
		return;
	}
	size_t class = class_of(bytes);
	*(void **)block = m->free[class];
	m->free[class] = block;
}

static void *move(struct luamem *m, void *block, size_t old_bytes, size_t bytes)
{
	if (!is_small(old_bytes) && !is_small(bytes))
		return realloc(block, bytes);
	if (is_small(old_bytes) && is_small(bytes) && class_of(old_bytes) == class_of(bytes))
		return block;
	void *to = take(m, bytes);
	if (!to)
		return NULL;
	memcpy(to, block, old_bytes < bytes ? old_bytes : bytes);
	give(m, block, old_bytes);
	return to;
}

static inline int fits(const struct luamem *m, size_t old_bytes, size_t bytes)
{
	return bytes <= m->max && m->used - old_bytes <= m->max - bytes;
}

static inline void count(struct luamem *m, size_t old_bytes, size_t bytes)
{
	if (bytes > old_bytes)
		m->allocated += bytes - old_bytes;
	m->used += bytes - old_bytes;
	if (m->used > m->peak)
		m->peak = m->used;
}

/* New blocks and freed ones are the most, so they come first and call nothing. */
void *luamem_alloc(void *ud, void *block, size_t old_bytes, size_t bytes)
{
	struct luamem *m = ud;
	if (!block) { /* old_bytes: Lua tells the kind of object there */
		void *made = bytes && fits(m, 0, bytes) ? take(m, bytes) : NULL;
		if (made)
			count(m, 0, bytes);
		return made;
	}
	if (!bytes) {
		give(m, block, old_bytes);
		m->used -= old_bytes;
		return NULL;
	}
	if (bytes > old_bytes && !fits(m, old_bytes, bytes))
		return NULL;
	void *to = move(m, block, old_bytes, bytes);
	if (to)
		count(m, old_bytes, bytes);
	return to;
}
