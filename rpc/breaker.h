#pragma once
#include <stdbool.h>
#include <stdint.h>
/*
 * breaker: whether somebody who has failed is worth another call. Pure: the time goes in, decisions come out.
 *
 * Closed: all is well. BREAKER_FAILURES failures in a row open it: nobody who can go elsewhere goes there. When its wait is
 * over one call is let through as a probe (half-open): if it works the breaker closes, if it fails it is open anew, and
 * the wait doubles.
 *
 * Threads: the owner's. Memory: embed it, all zero. Times: milliseconds of the loop's clock.
 */
#define BREAKER_FAILURES    5
#define BREAKER_WAIT_MIN_MS 500
#define BREAKER_WAIT_MAX_MS 8000

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };
struct breaker {
	enum breaker_state state;
	uint32_t failures, wait_ms;
	uint64_t until_ms;
};

bool breaker_admits(const struct breaker *b, uint64_t now_ms); /* closed, or a probe is due */
void breaker_sent(struct breaker *b, uint64_t now_ms);         /* a call goes there: if it is not closed, the probe */
bool breaker_failed(struct breaker *b, uint64_t now_ms);       /* true: this opened it */
bool breaker_worked(struct breaker *b);                        /* true: this closed it */
