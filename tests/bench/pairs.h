#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * pairs: the keys and values that a cache and its peer are measured with: 16-byte keys at random, 100-byte values, asked
 * for in an order that has nothing to do with that of their coming. The keys asked with lie in that order: who asks has
 * just read his key out of a request, and to find it is not the cache's work.
 *
 * Units: CPU time of the thread, in ns, so that what other programs take does not count.
 */
enum { PAIRS = 1000000, KEY_BYTES = 16, VALUE_BYTES = 100 };

struct pairs {
	char key[PAIRS][KEY_BYTES];
	char asked[PAIRS][KEY_BYTES]; /* the same keys in another order */
	uint64_t seed;
};

static inline uint32_t chance(uint64_t *seed, uint32_t below)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return (uint32_t)((*seed >> 32) * below >> 32);
}

static inline struct pairs *pairs_new(void)
{
	struct pairs *p = malloc(sizeof *p);
	if (!p)
		abort();
	p->seed = 88172645463325252u;
	for (uint32_t i = 0; i < PAIRS; i++) {
		for (unsigned at = 0; at < KEY_BYTES; at++)
			p->key[i][at] = (char)chance(&p->seed, 256);
		uint32_t j = chance(&p->seed, i + 1);
		memcpy(p->asked[i], p->asked[j], KEY_BYTES);
		memcpy(p->asked[j], p->key[i], KEY_BYTES);
	}
	return p;
}

static inline double cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
