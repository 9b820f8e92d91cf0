#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
/*
 * guests: whether one more player may enter without a gate's token.
 *
 * A gate tells each connector every GATE_POLL_MS up to how many players it may hold before guests are too many (limit),
 * so that all limits together are never more than the cluster bears, and how many still fit anywhere (room). A limit
 * that is reached while there is room elsewhere is no refusal: the next words share the room anew.
 *
 * Threads: any.
 */
#define GUESTS_WORD_MS   2000 /* a gate's word holds so long; without one a connector keeps the whole limit by itself */
#define GUESTS_WAIT_MS   2000 /* for a place of another connector's */
#define GUESTS_RETRY_MS  20
#define GUESTS_GATES_MAX 16
#define GUESTS_TOKEN_MS  30000 /* a token's life: what a gate said of them holds no longer */

struct connector;
struct guests {
	_Atomic int64_t room, limit;
	_Atomic uint64_t until_ms; /* wall clock: when that word is too old */
	_Atomic unsigned entering; /* logins under way, with token or without */
	/* worker 0's: what each start of a gate said last of its tokens for here that are not used yet */
	struct guests_expected {
		char gate[32];
		uint64_t epoch, until_ms; /* 0: free */
		unsigned n;
	} expected[GUESTS_GATES_MAX];
};
enum guests_answer { GUESTS_FIT, GUESTS_WAIT, GUESTS_FULL };

/* GUESTS_FIT: the guest is counted as entering; guests_entering(c, -1) when it is in or refused. */
enum guests_answer guests_enter(struct connector *c);
void guests_entering(struct connector *c, int change);
/* limit < 0: not said. */
void guests_told(struct connector *c, int64_t room, int64_t limit);
/* Worker 0: a gate's tokens that are not used yet, by its word; a token of it has been used. */
void guests_expect(struct connector *c, const char *gate, uint64_t epoch, unsigned n);
void guests_came(struct connector *c, const char *gate);
/* Players logged in here or on their way in. */
unsigned guests_held(struct connector *c);
