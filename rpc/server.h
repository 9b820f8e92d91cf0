#pragma once
#include "common/stream.h"
#include "rpc/service.h"
#include "rpc/stats.h"
/*
 * server: the answering side on one worker. Private to rpc/.
 *
 * rpc/accept.c takes connections on the control thread, reads their Hello, and hands them to the worker named there;
 * from then on the link belongs to that worker. No frame is dispatched before the other end has proved the cluster key.
 *
 * Threads: owner worker only; server_adopt is posted to it.
 */
#define SERVER_IN_FLIGHT_MAX 65536u /* requests being handled, per worker; more get busy */
#define LINK_IN_MAX          (FRAME_HEADER + (size_t)FRAME_PAYLOAD_MAX)
#define LINK_OUT_MAX         (8u << 20)
#define LINK_SILENT_MS       4000 /* the client pings each second */
#define LINK_PROOF_MS        3000 /* from the welcome to the client's proof */

struct server_method {
	const struct msg_method *method;
	rpc_handler *fn;
	void *arg;
	struct method_stats stats;
	/* rpc.limits, server_limit.c */
	uint32_t running_max, queued_max; /* running_max 0: no limit */
	uint32_t running;                 /* counted only where there is a limit */
	struct held *held;                /* those that wait, in order of arrival */
	const struct link *served;        /* whose was taken last; never followed */
};

struct link {
	struct link *next, **prev;
	struct worker *worker;
	struct stream stream;
	struct timer timer;
	char instance[32], service[32];
	char client[32 + 32]; /* "instance/worker/epoch": who it is for once-calls */
	size_t client_n;
	uint32_t from_worker;
	uint64_t epoch, heard_ms;
	unsigned char client_nonce[16], nonce[16];
	bool proved;
	bool admin; /* of a control worker: the operator's, may call everything */
	bool acked; /* the client knows that we are draining, and everything it sent before has been read */
	uint32_t in_flight;
	uint32_t oldest, newest; /* its requests under way, in their order: slot + 1, 0: none */
};

struct in_flight {
	struct link *link; /* NULL: the caller has gone */
	uint64_t id, handle, start_ns, run_ns, trace;
	uint32_t slot, generation;
	uint32_t next, prev; /* of its link's, slot + 1; or next of the free ones */
	uint32_t method;
	bool used;
	bool running; /* counted in its method's */
	uint8_t key_n;
	char key[30]; /* for /stats/slow, cut */
	rpc_gone *gone;
	void *gone_arg;
};

struct rpc_server {
	struct worker *worker;
	struct server_method *method; /* number - 1 */
	uint32_t methods;
	struct link *links;
	struct in_flight *flight;
	uint32_t flights, free_head; /* free_head: slot + 1, 0: none */
	/* the control thread reads these while draining: requests under way, links that have not acked, links */
	_Atomic uint32_t in_flight, unacked, links_n;
	_Atomic bool draining;
	uint64_t clock_ns; /* last read */
	struct loop_deferred limited;
	struct metric *refused, *moved, *cancelled, *connections;
};

/* server_life.c */
struct rpc_server *rpc_server_new(struct worker *w);
void rpc_server_stop(struct rpc_server *s);     /* on the worker: closes the links when their output is out */
void rpc_server_close(struct rpc_server *s);    /* on the worker: closes them now */
void rpc_server_free(struct rpc_server *s);     /* after the loop has ended */
void rpc_server_messages(struct rpc_server *s); /* worker->schema is another (rpc/messages.h) */
void rpc_server_drain(struct rpc_server *s);    /* tells the peers; what is under way goes on */
/* Any thread, while draining: nothing is under way, and no peer has a call by key on its way here. */
bool rpc_server_quiet(const struct rpc_server *s);
/*
 * on: tells the peers that another process takes this one's place; all their calls wait for it from then on, and
 * rpc_server_quiet says when. off: it came to nothing; they connect anew.
 */
void rpc_server_move(struct rpc_server *s, bool on);
bool rpc_server_alone(const struct rpc_server *s); /* any thread: no link is left */

/* A greeted connection, handed over with its Hello (packed bytes, freed by the call). */
struct server_hello {
	struct inbox_msg msg;
	struct worker *worker;
	struct env_conn *conn;
	size_t n;
	char bytes[];
};
void server_adopt(struct inbox_msg *m);

/* server_limit.c: LIMIT_*, or ERR_BUSY */
enum { LIMIT_RUNS, LIMIT_WAITS };
int limit_admit(const struct server_method *m, const struct link *link);
void limit_hold(struct server_method *m, const struct rpc_request *r, const struct link *link);
void limit_next(struct loop_deferred *d); /* server->limited: one has ended */
void limit_init(struct server_method *m, const struct config *c);
void limit_messages(struct server_method *m); /* m->method is the newer one now: for those that wait */
void limit_release(struct server_method *m);

/* server.c, for server_limit.c: by handle */
bool flight_waited_for(struct rpc_server *s, uint64_t handle); /* its caller is still there */
void flight_runs(struct rpc_server *s, uint64_t handle);
void flight_drop(struct rpc_server *s, uint64_t handle); /* without an answer */

/* server.c, for server_link.c */
ssize_t link_on_data(struct stream *s, const char *data, size_t n);
void link_ack(struct link *l);       /* it knows that we are draining, or is gone */
void link_leave_all(struct link *l); /* nobody waits for its requests any more */
/* server_link.c, for server.c; < 0 ends the link */
int link_prove(struct link *l, struct span payload);
/* server_link.c, for all who close inner connections: err is why, 0: no one's mistake. On that worker. */
void link_count_closed(struct service *s, unsigned worker, int err);

/* rpc/accept.c, control thread */
struct acceptor;
int acceptor_start(struct service *s, const char *host, uint16_t port, struct acceptor **out); /* ERR_EXISTS: taken */
void acceptor_stop(struct acceptor *a);
