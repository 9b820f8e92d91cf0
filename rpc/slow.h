#pragma once
#include <stdint.h>
#include "rpc/frame.h"
/*
 * slow: the slowest calls that one worker answered lately: the figures behind /stats/slow.
 *
 * Threads: owner worker only.
 * Bounds:  SLOW_KEPT calls, each for SLOW_S seconds. A call that is none of them costs one comparison.
 */
#define SLOW_KEPT 32
#define SLOW_S    300

struct slow_call {
	const char *service, *method; /* "scene", "sceneHandler.move"; constant text */
	uint64_t us, queue_us;        /* from its arrival to its answer; of that, until its handler began */
	uint64_t at_ns, at_wall_us;   /* when it was answered */
	uint64_t trace;
	int err;
	char key[32]; /* what it was routed by, cut */
};
struct slow {
	uint64_t floor_ns;  /* what takes no longer is not kept */
	uint64_t expire_ns; /* when the oldest is forgotten */
	unsigned n;
	struct slow_call call[SLOW_KEPT];
};

static inline bool slow_wants(const struct slow *s, uint64_t took_ns, uint64_t now_ns)
{
	return took_ns > s->floor_ns || now_ns >= s->expire_ns;
}
/* c.at_ns is now. */
void slow_note(struct slow *s, const struct slow_call *c);
void slow_key(struct slow_call *c, struct span key); /* cut between characters */
