#pragma once
#include <stdint.h>
#include <time.h>
/*
 * clock: the monotonic clock, for programs of tests that live in real time.
 *
 * Threads: any.
 */
static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_ms(void)
{
	return clock_ns() / 1000000;
}
