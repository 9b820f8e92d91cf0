#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "rpc/once.h"
#include "tests/support/sim_main.h"
/*
 * once_world: what stands around once-calls in tests/sim/once.c: chance and time, a network that drops, doubles, delays and
 * reorders, a log whose tail may be lost, a replay that lags, and a table of rows.
 *
 * Threads: one. Memory: the caller's. Time: microseconds of the world, passed in events. A broken promise is sim_fail.
 */
#define OPS      24
#define OWNERS   3
#define CLIENTS  3
#define CALLS    8 /* of one client at once */
#define TASKS    128
#define RECORDS  192
#define EVENTS   1024
#define ROWS     64
#define LEASE_MS 4000
#define LIFE_MS  1000 /* of a call */
#define MS       1000u

enum event_kind {
	AT_SERVER,
	AT_CLIENT,
	ASK,
	RUN_END,
	SYNCED,
	LOADED,
	READ,
	FED,
	REPLAY,
	ISSUE,
	RETRY,
	OVER,
	CRASH_SERVER,
	CRASH_CLIENT,
	START_SERVER,
	TICK,
};

struct message {
	unsigned server, client, epoch; /* the ends of its connection: starts of the server and of the client */
	unsigned call, op, body, attempt;
	uint64_t seq, first;
	/* of the answer */
	enum once_verdict verdict;
	int err; /* RUN refused: 1; the disk failed: 2 */
	uint64_t answer;
};

struct event {
	uint64_t at, order;
	enum event_kind kind;
	unsigned a, b;
	void *p;
	struct message m;
};

struct op { /* what somebody wants done */
	bool business, settled;
	unsigned owner, body; /* body: the right one, that settles it */
	unsigned effects[2];
	uint64_t answer; /* of who was told first; 0: nobody yet */
	unsigned answered_body;
	bool refused;  /* a sequence call was told so */
	bool promised; /* a sequence call was told that it is done */
};

struct call {
	bool used;
	unsigned op, body, attempt, number;
	unsigned server; /* the connection it was sent on last: one that broke brings no answers any more */
	uint64_t seq, until;
	bool repeats; /* its body has been answered before it was asked */
};
struct client {
	unsigned epoch;
	struct once_client once;
	struct call call[CALLS];
};

struct task {                      /* a request at the server */
	struct once_waiter waiter; /* first */
	struct world *x;
	bool used;
	struct message m;
	struct once_entry *entry;
	uint64_t lsn, answer;
};

struct row {
	bool used;
	unsigned owner;
	bool business;
	unsigned op;
	char client[24];
	uint64_t seq, hash, fingerprint, answer;
};
struct record {
	unsigned op, body, owner, deletes;
	bool effect, completion, landed, gone;
	struct row row;
	struct {
		char client[24];
		uint64_t below;
	} delete[4];
};

struct plan { /* mistakes, planted one at a time */
	bool forgets_before_ack, answers_early, no_fingerprint, forgets_at_crash, reads_early, reuses_leases,
		two_records, always_first, deletes_too_much, short_lease;
};

struct world {
	struct sim *w;
	struct plan plan;
	uint64_t random, now, order;
	struct event *event; /* EVENTS of them */
	unsigned *heap, heap_n, *free, free_n;
	struct op op[OPS];
	unsigned ops;
	struct client client[CLIENTS];
	unsigned numbers; /* of calls */
	/* the server */
	bool alive;
	unsigned start;
	struct once_server *once;
	size_t bytes_max;
	struct task task[TASKS];
	uint64_t answers;
	/* the log and the database: lsn is the place in record, from 1 */
	struct record record[RECORDS + 1];
	uint64_t lsn, durable, landed;
	uint64_t last[OWNERS];
	struct row row[ROWS];
	bool calm;
	unsigned drops, doubles, late, disk, refusals; /* of 1,000 */
};

extern const char *const world_owners[OWNERS];

uint64_t world_chance(struct world *x, uint64_t below);
bool world_happens(struct world *x, unsigned of_1000);                         /* never when it is calm */
struct event *world_in_us(struct world *x, uint64_t us, enum event_kind kind); /* the rest is the caller's to fill */
struct event world_take(struct world *x);                                      /* the earliest; there is one */
/* Something of this start of the server, soon. */
void world_at_server(struct world *x, enum event_kind kind, void *p, unsigned owner);
void world_send(struct world *x, const struct message *m, enum event_kind where); /* lost, doubled, late */
const char *world_client_name(const struct world *x, char out[24], unsigned client, unsigned epoch);
struct record *world_append(struct world *x, unsigned owner); /* zeroed, at the end of the log */
/* It follows what is written, synced or not: a power cut may take from the log what has landed. */
void world_replay(struct world *x, unsigned most);
/* The process dies, or the machine: then what was not synced is torn off somewhere. */
void world_log_dies(struct world *x);
