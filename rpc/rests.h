#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "rpc/frame.h"
#include "rpc/player.h"
/*
 * rests: who has held this worker up with requests, what that leaves of their budget, and until when they rest for it.
 *
 * Threads: owner worker only.
 * Memory:  the owner embeds it, zeroed: RESTS_PLACES places, 60 KB.
 * Who:     a name of at most RESTS_NAME_MAX bytes: the player's uid, so that a new login changes nothing. Names are kept
 *          as they are: nobody can be made to rest by a name that looks like theirs to a hash.
 * Time:    ms of the loop's clock, passed in. What somebody has done is forgotten RESTS_MS_MAX after the last time.
 * Bounds:  when there is no place for one more, whoever would be forgotten first is forgotten.
 */
#define RESTS_PLACES   512
#define RESTS_WAYS     8 /* places that a name may take */
#define RESTS_NAME_MAX PLAYER_NAME_MAX
#define RESTS_MS_MAX   300000
#define RESTS_TIMES    1000 /* so many times what it held the worker up it rests: others lose 0.1 % */
#define RESTS_PART     5    /* of the budget is left to who has held the worker up for one */

struct rests {
	uint64_t forget_ms; /* from then on nobody is remembered */
	struct rest {
		uint64_t hash, forget_ms, until_ms;
		uint32_t held_ms;
		uint8_t name_n; /* 0: nobody has the place yet */
		char name[RESTS_NAME_MAX];
	} place[RESTS_PLACES];
};

/*
 * One of their requests has held the worker for so long, now. When that is a budget in all, without RESTS_MS_MAX in between,
 * their budget becomes smaller; from then on they rest each time: returns for how long, 0: not yet.
 */
uint64_t rests_held(struct rests *r, struct span who, uint32_t ms, uint32_t budget_ms, uint64_t now_ms);
/* What their next request may take of budget_ms. */
uint32_t rests_budget_ms(const struct rests *r, struct span who, uint32_t budget_ms, uint64_t now_ms);
bool rests_now(const struct rests *r, struct span who, uint64_t now_ms);
/* Nobody is remembered, as nearly always: who asks this first need not know who asks. */
static inline bool rests_none(const struct rests *r, uint64_t now_ms)
{
	return r->forget_ms <= now_ms;
}
