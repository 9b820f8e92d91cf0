#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "rpc/route.h"
/*
 * ring: which keys this instance may answer for while instances come and go. Pure: tables go in, verdicts come out.
 *
 * A ring is the set of a service's ready instances; rendezvous hashing gives each key to one of them. What is held are the keys
 * that every ring since the last ring_clear gives us, so a key that was given up once is not answered for again, whatever
 * the table says meanwhile, until ring_clear: that is when rpc/moves.h knows that nobody else holds it, and that
 * what former owners wrote has landed. Nothing is held before the first.
 *
 * Threads: owner worker only. Bounds: RING_SEEN_MAX changes without a clear between them; one more, and nothing is held.
 */
#define RING_SEEN_MAX 8
struct ring_set {
	uint64_t id; /* route_ring of the table */
	size_t n;
	uint64_t *hash; /* of the members */
	bool member;    /* we are one */
};
struct ring {
	uint64_t self;                       /* hash of our name */
	struct ring_set seen[RING_SEEN_MAX]; /* since the last clear, that one's first */
	unsigned seens;                      /* 0: nothing is held */
	struct ring_set target;              /* the newest */
};
enum ring_verdict {
	RING_HELD,  /* answer */
	RING_WAIT,  /* it is coming here */
	RING_MOVED, /* it is somebody else's */
};
void ring_init(struct ring *r, const char *id, const char *service, const struct route_table *t);
void ring_release(struct ring *r); /* a zeroed one is fine */
/* A new table. False: its ring is the one of before, and nothing has changed. */
bool ring_see(struct ring *r, const char *service, const struct route_table *t);
void ring_clear(struct ring *r);                                     /* what the newest ring gives us is ours */
enum ring_verdict ring_ask(const struct ring *r, uint64_t key_hash); /* route_hash of the key */
