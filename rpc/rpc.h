#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "common/loop.h"
#include "common/msg.h"
#include "rpc/frame.h"
/*
 * rpc: calls between instances: one client for all services, one server in each.
 *
 * Threads: everything here belongs to one worker (struct worker in rpc/service.h): calls are made, answers come and
 *          requests are handled on its thread. The other side's worker is chosen by the key.
 * Ends:    every call ends exactly once: with an answer, or with one of the eight errors and what is known of its
 *          effect, at the latest when its deadline passes. Never inside rpc_call itself.
 * Kinds:   read and once calls are sent again until the deadline when a connection breaks; plain ones never after their
 *          bytes may have left (unavailable, effect unknown). A call that could not be sent yet waits, bounded, for
 *          the connection until its deadline. A once-call whose deadline passes ends with unknown.
 * Bounds:  pending calls and queued bytes per remote worker; what does not fit ends with busy, effect none. The server's
 *          limits per method (rpc.limits) hold for notifications too. One that is refused anywhere is counted, nobody is told:
 *          loquat_rpc_dropped_total here, loquat_rpc_refused_total there.
 * Memory:  arguments are copied or encoded before rpc_call returns; answers are valid inside the callback only.
 */
struct worker;

struct rpc_answer {
	int err;             /* 0, or one of the first eight of common/err.h */
	enum effect effect;  /* when err */
	struct span message; /* for a person; may be empty */
	struct span body;    /* JSON text or protobuf, as was asked */
	unsigned attrs;
	const struct frame_response *raw; /* NULL when the error was made here */
};

struct rpc_target {
	const char *instance; /* by name; NULL: the owner of key in method->service */
	int worker;           /* of that instance; < 0: by key */
	struct span key;
	bool anywhere; /* no key: any instance of method->service, the less loaded of two drawn by lot; not for once-calls */
};

struct rpc_call {
	const struct msg_method *method;
	struct rpc_target to;
	struct span body;
	bool json;
	uint32_t timeout_ms; /* 0: the configured default, rpc.timeout_ms; never more than the caller's time left */
	uint64_t sid;        /* the session that is forwarded, or 0 */
	struct span uid;
	uint64_t trace;   /* 0: a new one */
	struct span once; /* business key of a once-call; empty: client identity and sequence (rpc/once.h) */
	void (*on_answer)(void *arg, const struct rpc_answer *a); /* NULL: a notification, never answered */
	void *arg;
};
/* Returns a handle > 0 for rpc_cancel, or 0 for a notification. Errors too come by on_answer, later in this turn. */
uint64_t rpc_call(struct worker *w, const struct rpc_call *c);
uint64_t rpc_trace(struct worker *w); /* a new one, never 0 */
/* on_answer will not come any more; the other side is told. False: it has ended already. */
bool rpc_cancel(struct worker *w, uint64_t handle);
/* Instances of the route table this worker has an authenticated connection to; for status and least load. */
bool rpc_connected(struct worker *w, const char *instance);
/* Keeps connections to all instances of these services open, so that the first call finds them (NULL-ended list). */
void rpc_keep(struct worker *w, const char *const *services);

/* ---- the server's side ------------------------------------------------------------------------------ */

/* A request being handled. Its spans are valid until the handler function returns; copy what is needed later. */
struct rpc_request {
	struct worker *worker;
	const struct msg_method *method;
	char instance[32]; /* who calls: "connector-1" */
	uint32_t instance_worker;
	uint64_t deadline_ms; /* on this loop's clock */
	uint64_t trace;
	uint64_t sid;
	struct span uid, key, body;
	bool json;
	bool has_once;
	struct span once_key; /* business key; empty: this client's sequence alone */
	struct span client;   /* "connector-1/0/1700000000": instance, worker and epoch as one text */
	uint64_t instance_epoch, once_seq, once_first;
	uint32_t once_attempt;
	uint64_t handle; /* for rpc_answer_* later; 0: a notification */
	/* A notification's place among what runs of a method with limits, else 0. Who goes on with it after its handler has
	 * returned takes it, leaving 0, and gives it back by rpc_ended. */
	uint64_t ticket;
};
/* Handles one method; must end in rpc_answer_* exactly once, now or later, unless it is a notification. */
typedef void rpc_handler(void *arg, struct rpc_request *r);
/*
 * Registers fn for a method on this worker; method->service must be this service, or RPC_EVERY_SERVICE, whose methods are
 * reached by to.instance alone. Before the worker is ready.
 */
#define RPC_EVERY_SERVICE "app"
void rpc_handle(struct worker *w, const struct msg_method *method, rpc_handler *fn, void *arg);

/*
 * fn comes at most once, on this worker, when nobody waits for the answer any more: ERR_UNAVAILABLE: the caller has cancelled
 * it, or its link has broken. The request still ends in rpc_answer_*, inside fn or later; after that fn does not come.
 * For what has a handle; fn NULL: not any more. False: it has been answered.
 */
typedef void rpc_gone(void *arg, int err);
bool rpc_on_gone(struct worker *w, uint64_t handle, rpc_gone *fn, void *arg);

void rpc_ended(struct worker *w, uint64_t ticket); /* 0 is fine */

/* Its handler begins now: until here it waited for others. Not called: it began at once. */
void rpc_began(struct worker *w, uint64_t handle);

struct rpc_attr {
	struct span name, value;
};
/* Answers by handle. A caller that has gone meanwhile, or a handle used already, is no error. */
void rpc_answer_ok(struct worker *w, uint64_t handle, struct span body, const struct rpc_attr *attrs, unsigned n_attrs);
void rpc_answer_err(struct worker *w, uint64_t handle, int err, enum effect effect, const char *message);
/*
 * Nothing was done: the key is another instance's now. The caller goes there, within its time, and its script does not
 * notice. again: the request's key, uid, once key and body.
 */
void rpc_answer_moved(struct worker *w, uint64_t handle, const struct frame_request *again);
