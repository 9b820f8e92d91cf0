#pragma once
#include <stdint.h>

/*
 * hist: a histogram of values from 0 to 2^40 (nanoseconds: 18 minutes) that keeps each within 0.8%.
 *
 * 128 steps per power of two, as HdrHistogram does it; larger values count as the largest.
 * Threads: one owner. Memory: 36 KiB inside the owner; zero it to begin.
 */
enum { HIST_STEP_BITS = 7, HIST_STEPS = 1 << HIST_STEP_BITS, HIST_BITS = 40 };

struct hist {
	uint64_t count, max;
	uint64_t bucket[(HIST_BITS - HIST_STEP_BITS + 1) * HIST_STEPS];
};

static inline unsigned hist_index(uint64_t v)
{
	if (v >= (UINT64_C(1) << HIST_BITS))
		v = (UINT64_C(1) << HIST_BITS) - 1;
	if (v < HIST_STEPS)
		return (unsigned)v;
	unsigned shift = 63u - (unsigned)__builtin_clzll(v) - HIST_STEP_BITS;
	return (shift + 1) * HIST_STEPS + (unsigned)(v >> shift) - HIST_STEPS;
}

/* The middle of a bucket. */
static inline uint64_t hist_value(unsigned index)
{
	if (index < HIST_STEPS)
		return index;
	unsigned shift = index / HIST_STEPS - 1;
	return ((uint64_t)(index % HIST_STEPS + HIST_STEPS) << shift) + (UINT64_C(1) << shift) / 2;
}

static inline void hist_add(struct hist *h, uint64_t v)
{
	h->bucket[hist_index(v)]++;
	h->count++;
	if (v > h->max)
		h->max = v;
}

/* The value that the share `part` (0 to 1) of all values does not exceed; 0 when empty. */
static inline uint64_t hist_quantile(const struct hist *h, double part)
{
	uint64_t want = (uint64_t)(part * (double)h->count + 0.5), seen = 0;
	if (want < 1)
		want = 1;
	for (unsigned i = 0; i < sizeof h->bucket / sizeof *h->bucket; i++)
		if ((seen += h->bucket[i]) >= want)
			return hist_value(i) < h->max ? hist_value(i) : h->max;
	return h->max;
}
