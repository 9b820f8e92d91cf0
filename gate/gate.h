#pragma once
#include "common/token.h"
#include "rpc/clientconn.h"
#include "rpc/clientlisten.h"
#include "rpc/player.h"
#include "rpc/service.h"
#include "rpc/stats.h"
/*
 * gate: names a connector to each player and lets no more in than the cluster bears.
 *
 *   gate.c     the service: keys, listener, /stats
 *   visitor.c  a client's connection and its queryEntry
 *   queue.c    places: who waits, who is admitted, for how long
 *   load.c     how full the connectors are; asks each of them all the time
 *   remote.c   what connectors and other gates ask
 *
 * Threads: all of it belongs to worker 0: the queue is one thing. Other workers have nothing to do.
 */
extern const struct service_def gate_service;

#define GATE_POLL_MS    200   /* between questions to the connectors */
#define GATE_FRESH_MS   3000  /* a connector that has not answered for so long gets nobody */
#define GATE_PLACE_MS   60000 /* a place without a connection */
#define GATE_ADMIT_MS   30000 /* an admission, and its token */
#define GATE_TICKET_MS  86400000ull
#define GATE_PLACES_MAX 200000

struct gate;
/* A connector as this gate knows it. */
struct load {
	struct gate *gate;
	char instance[32], host[64], start[24];
	uint16_t port;
	unsigned sessions, admitted; /* logged in by its last word; let in by us and not heard of since */
	unsigned limit, told;        /* the limit for guests it is known to keep to; the one it was told last */
	uint64_t heard_ms;           /* 0: never */
	bool draining, asking, listed;
};

enum place_state { PLACE_QUEUED, PLACE_ADMITTED };
struct visitor;
/* A player between queryEntry and enter. */
struct place {
	struct place *next, **prev; /* queued: by since_ms */
	struct place *hash_next;
	enum place_state state;
	char nonce[TOKEN_NONCE_MAX], origin[32]; /* the gate that gave the ticket */
	char uid[PLAYER_UID_MAX + 1];
	bool guest;
	uint64_t since_ms;       /* wall clock: when it was taken */
	unsigned position;       /* as the visitor was told last */
	struct timer expiry;     /* runs without a connection, and for an admission */
	struct visitor *visitor; /* NULL: not connected */
	struct gate *gate;
	struct load *load; /* admitted: where to */
	char token[TOKEN_MAX];
};

struct visitor {
	struct clientconn conn;
	struct gate *gate;
	struct place *place;
	struct ask *ask; /* a question under way on its behalf */
};

#define GATE_HASH 65536
struct gate {
	struct worker *worker;
	struct service *service;
	struct clientconn_face face;
	struct clientlisten *listen;
	bool stopping;
	/* queue.c */
	struct place *queue, **queue_last, *place[GATE_HASH];
	unsigned queued, places, admitted; /* admitted: and not heard of since */
	unsigned players_max, admit_per_s;
	double allowance; /* admissions saved up, see queue_pump */
	uint64_t allowance_ms, told_ms;
	unsigned admissions;
	double pace; /* admissions per second of late */
	struct timer pump;
	/* load.c */
	struct load **load;
	size_t loads;
	struct timer poll;
	unsigned sessions, polls;
	const struct msg_method *ask_load, *verify, *take;
	/* visitor.c */
	struct method_stats query;
	struct ask *asks;
	uint64_t visitors; /* so far */
	struct metric *queued_metric, *usable_metric;
};

/* ---- queue.c */
void queue_init(struct gate *g);
void queue_stop(struct gate *g);
/* A new place at the end; NULL: too many. origin and nonce NULL: one of our own. */
struct place *place_new(struct gate *g, const char *uid, bool guest, const char *origin, const char *nonce,
			uint64_t since_ms);
struct place *place_find(struct gate *g, const char *nonce);
void place_free(struct place *p);
/* The visitor looks after the place from now on; NULL: it has gone. */
void place_attach(struct place *p, struct visitor *v);
unsigned place_position(const struct place *p); /* from 1; 0: admitted */
unsigned queue_eta_s(const struct gate *g, unsigned position);
int place_ticket(const struct place *p, char out[TOKEN_MAX]);
/* Admits who fits, from the front; tells them and those who moved up. */
void queue_pump(struct gate *g);
bool queue_full(const struct gate *g);
/* The player of this admission is in: its place is counted by its connector from now on. */
void queue_entered(struct gate *g, const char *nonce);

/* ---- load.c */
void load_init(struct gate *g);
void load_stop(struct gate *g);
void load_ask(struct gate *g);            /* asks all of them now; queue_pump comes with each answer */
struct load *load_least(struct gate *g);  /* NULL: no connector takes players */
unsigned load_room(const struct gate *g); /* players that still fit */

/* ---- visitor.c */
void visitor_accept(struct gate *g, struct env_conn *conn, const char *addr);
void visitor_told(struct place *p, unsigned position); /* push onQueue */
void visitor_admitted(struct place *p);                /* push onAdmit */
void visitor_stop(struct gate *g);
extern const struct clientconn_ops visitor_ops;

/* ---- remote.c */
void gate_remotes(struct gate *g);
/* ---- gate.c */
void gate_free(struct gate *g);
