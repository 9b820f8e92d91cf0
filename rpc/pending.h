#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/wheel.h"
#include "rpc/rpc.h"
/*
 * pending: the calls of one worker that have not ended: a table by id, and lists of those that wait. Private to rpc/.
 *
 * Threads: owner worker only.
 * Memory:  entries lie in chunks that are kept for the next calls, each with the small buffer it has once had: in the
 *          steady state a call allocates nothing.
 * Time:    milliseconds of the loop's clock, passed in. A deadline is a number of the entry, and one timer of the owner's
 *          serves all: a timer per call costs more than all else here, and nearly every call ends long before its time.
 * Ids:     generation << 24 | slot, never 0, so that a late answer to an ended call finds a newer generation. An entry that
 *          is free holds its next call's id, marked.
 */
#define PENDING_SLOT_BITS  24
#define PENDING_SLOTS_MAX  (1u << PENDING_SLOT_BITS)
#define PENDING_CHUNK_BITS 8
#define PENDING_FREE       (UINT64_C(1) << 63)

struct pending;
struct peer;
struct pending_list { /* in order of arrival */
	struct pending *first, **last;
};

/*
 * A call that has not ended. It is waiting (not sent on this link yet) or sent, or its end is still to be told. What the table
 * and the deadline need is the first cache line, what else each call needs the second; the rest is for those that wait, are
 * repeated or end early.
 */
struct pending {
	_Alignas(64) struct pending
		*next; /* in list, or in the free list; alone: the alignment is of each name beside it */
	struct pending **prev;
	struct pending_list *list;
	uint64_t id; /* what the wire and rpc_cancel use; with PENDING_FREE: it is free */
	uint64_t due_ms;
	uint64_t order; /* in which it was sent, among all */
	bool sent, ever_sent, json, by_key, anywhere;
	uint8_t effect;    /* enum effect; with err, below */
	struct peer *peer; /* NULL: nobody owns the key, or it has ended */

	void (*on_answer)(void *arg, const struct rpc_answer *a);
	void *arg;
	struct worker *worker;
	const struct msg_method *method;
	size_t kept; /* what its bytes count in the peer's kept_bytes */
	uint32_t attempt;
	int err;            /* ended early: told at the end of the turn */
	uint64_t once_seq;  /* of a once-call, else 0 */
	uint32_t bytes_cap; /* of bytes */
	uint32_t moved;     /* attempts that were answered so: they did nothing */

	char *bytes; /* key, uid, once key and body, kept while the call may have to be sent (again) */
	uint32_t key_n, uid_n, once_n, body_n;
	uint64_t sid, trace;
	uint64_t again_ms;   /* its key's owner is not asked anew before, unless a new table comes */
	const char *message; /* with err: constant text */
};

_Static_assert(offsetof(struct pending, on_answer) == 64 && offsetof(struct pending, bytes) <= 128, "in two lines");
/* Of three lines, a fourth of which would leave three quarters of the cache's places to the lines nobody looks at. */
_Static_assert(sizeof(struct pending) == 192, "an odd number of lines");

struct pending_table {
	struct pending **chunk;
	uint32_t slots;
	uint32_t begun, ended; /* calls, ever: two counts, each of which waits for itself alone */
	struct pending *free_list;
	uint64_t sent;     /* ever */
	uint64_t look_ms;  /* when pending_look is to be called; UINT64_MAX: never */
	uint64_t quiet_ms; /* not before: a large table is not looked through all the time */
};
void pending_init(struct pending_table *t);

void pending_grow(struct pending_table *t) __attribute__((cold));
bool pending_look_at(struct pending_table *t, uint64_t ms) __attribute__((cold));

/* That have not ended. */
static inline uint32_t pending_calls(const struct pending_table *t)
{
	return t->begun - t->ended;
}

static inline struct pending *pending_slot(const struct pending_table *t, uint32_t slot)
{
	return &t->chunk[slot >> PENDING_CHUNK_BITS][slot & ((1u << PENDING_CHUNK_BITS) - 1)];
}

/* slot < slots; NULL: it is free. */
static inline struct pending *pending_at(const struct pending_table *t, uint32_t slot)
{
	struct pending *p = pending_slot(t, slot);
	return p->id & PENDING_FREE ? NULL : p;
}

/* NULL: it has ended. */
static inline struct pending *pending_find(const struct pending_table *t, uint64_t id)
{
	uint32_t slot = (uint32_t)(id & (PENDING_SLOTS_MAX - 1));
	if (id & PENDING_FREE || slot >= t->slots)
		return NULL;
	struct pending *p = pending_slot(t, slot);
	return p->id == id ? p : NULL;
}

static inline struct pending *pending_new(struct pending_table *t)
{
	if (!t->free_list)
		pending_grow(t);
	struct pending *p = t->free_list;
	t->free_list = p->next;
	p->id &= ~PENDING_FREE;
	t->begun++;
	return p;
}

/* Its list and peer must have been left. */
static inline void pending_free(struct pending_table *t, struct pending *p)
{
	p->id = (p->id + (1u << PENDING_SLOT_BITS)) | PENDING_FREE;
	p->next = t->free_list;
	t->free_list = p;
	t->ended++;
}

/* Sets its deadline. True: the owner's timer has to be moved to look_ms, which has become earlier. */
static inline bool pending_due(struct pending_table *t, struct pending *p, uint64_t due_ms)
{
	p->due_ms = due_ms;
	/* a millisecond later than the clock's, which has lost part of one: no call ends early */
	return due_ms + 1 < t->look_ms && pending_look_at(t, due_ms + 1);
}

void pending_release(struct pending_table *t);

/*
 * Calls overdue for each whose deadline has passed, which ends it, and finds the next look_ms. It comes 1 ms after the
 * deadline, and later by 1 ms per 4096 slots of the table.
 */
void pending_look(struct pending_table *t, uint64_t now_ms, void (*overdue)(struct pending *p));

/*
 * Sent calls stand in no list: that would be two more entries to touch for each, and they are asked for only when a link
 * breaks. Then these are they, in the order of their sending; free the array.
 */
static inline void pending_mark_sent(struct pending_table *t, struct pending *p)
{
	p->sent = p->ever_sent = true;
	p->order = t->sent++;
}
struct pending **pending_sent_on(const struct pending_table *t, const struct peer *peer, size_t *n);

/* Counts it among a peer's, and no more. */
void pending_join(struct pending *p, struct peer *peer);
void pending_leave(struct pending *p);

/* Keeps a copy of what is needed to send the call (again); it has joined its peer. */
void pending_keep_bytes(struct pending *p, const struct rpc_call *call);
void pending_drop_bytes(struct pending *p);
struct rpc_call pending_call(const struct pending *p); /* of the kept bytes */
size_t call_bytes(const struct rpc_call *call);        /* how many they are */

void list_init(struct pending_list *l);
void list_append(struct pending_list *l, struct pending *p);
void list_remove(struct pending *p); /* of whichever it is in; none is fine */
