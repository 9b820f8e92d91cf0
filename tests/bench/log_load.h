#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/bench/core.h"

/*
 * log_load: the load of a logger and of its peer: bursts of 200 lines of some 100 bytes, a millisecond apart, and then as
 * many as go. LINE(i) writes one line, FLUSH() returns when all are in the file.
 *
 * call: mean of a burst's lines, of all bursts the middle one: where somebody else has had the core meanwhile, a mean of all
 * tells of him. p99: of single calls, each between two looks at the clock, whose own cost is taken off. Where they are noted
 * is in the caches before a burst begins: or the call that follows waits until the note has its line of memory.
 * Cores: the caller has one and the logger's thread another, so that a wake-up is one from core to core, as it is between
 * a worker and the log. Left to itself the system puts both on one core at times, and the figures are of its choice.
 * Units: wall time in ns: a call that waits for a lock or a wake-up costs its caller just that.
 */
enum { CALLER, WRITER }; /* cores */
enum { BURST = 200, BURSTS = 500, FLOOD = 1000000 };

struct load_figures {
	double call_ns, p99_ns, flood_s;
};

static inline double wall_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static inline double middle(double *v, size_t n, double quantile)
{
	qsort(v, n, sizeof *v, by_value);
	return v[(size_t)((double)(n - 1) * quantile)];
}

/* What two looks at the clock take. */
static inline double clock_cost_ns(void)
{
	double took[1001];
	for (unsigned i = 0; i < 1001; i++) {
		double from = wall_ns();
		took[i] = wall_ns() - from;
	}
	return middle(took, 1001, 0.5);
}

#define LOAD(f)                                                                                         \
	do {                                                                                            \
		static double burst[BURSTS], single[BURSTS * BURST];                                    \
		struct timespec pause = { .tv_nsec = 1000000 };                                         \
		double clock_ns = clock_cost_ns(), from;                                                \
		for (unsigned b = 0; b < BURSTS; b++, nanosleep(&pause, NULL)) {                        \
			from = wall_ns();                                                               \
			for (unsigned i = 0; i < BURST; i++)                                            \
				LINE(b *BURST + i);                                                     \
			burst[b] = (wall_ns() - from) / BURST;                                          \
		}                                                                                       \
		for (unsigned b = 0; b < BURSTS; b++, nanosleep(&pause, NULL)) {                        \
			double *note = (double *)memset(single + b * BURST, 0, BURST * sizeof *single); \
			for (unsigned i = 0; i < BURST; i++) {                                          \
				from = wall_ns();                                                       \
				LINE(b *BURST + i);                                                     \
				note[i] = wall_ns() - from - clock_ns;                                  \
			}                                                                               \
		}                                                                                       \
		(f).call_ns = middle(burst, BURSTS, 0.5);                                               \
		(f).p99_ns = middle(single, sizeof single / sizeof *single, 0.99);                      \
		FLUSH();                                                                                \
		from = wall_ns();                                                                       \
		for (unsigned i = 0; i < FLOOD; i++)                                                    \
			LINE(i);                                                                        \
		FLUSH();                                                                                \
		(f).flood_s = (wall_ns() - from) / 1e9;                                                 \
	} while (0)
