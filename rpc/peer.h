#pragma once
#include "common/stream.h"
#include "rpc/breaker.h"
#include "rpc/once.h"
#include "rpc/pending.h"
#include "rpc/service.h"
/*
 * peer: the client's side of the connections to the workers of remote instances. Private to rpc/.
 *
 * One struct peer per remote instance and remote worker, made at the first call and kept while the instance is in the
 * route table. It connects, proves itself by the cluster key, learns the methods' numbers, sends heartbeats, and
 * connects again with back-off and jitter when the link breaks.
 *
 * Threads: owner worker only.
 */
#define PEER_PENDING_MAX    32768       /* calls without an answer, per remote worker: over a second of a full load */
#define PEER_KEPT_MAX       (8u << 20)  /* their bytes that wait for the link or may be sent again */
#define PEER_OUT_MAX        (16u << 20) /* bytes the socket has not taken; all that was kept fits when the link is up */
#define PEER_HEARTBEAT_MS   1000        /* a ping when nothing came for so long */
#define PEER_DEAD_MS        2600        /* the link is given up when nothing came for so long */
#define PEER_BACKOFF_MIN_MS 50
#define PEER_BACKOFF_MAX_MS 1000
#define PEER_REFUSED_MS     60000 /* between two lines of the log that say that it refuses */
#define PEER_MOVED_MS       2     /* who takes its place listens already */

enum peer_state { PEER_IDLE, PEER_CONNECTING, PEER_GREETING, PEER_READY, PEER_BACKOFF, PEER_GONE };

struct peer {
	struct peer *next;
	struct worker *worker;
	char instance[32], service[32], host[64];
	uint16_t port;
	uint32_t remote_worker;
	enum peer_state state;
	struct stream stream;
	bool streaming;     /* the stream exists: its on_close is still to come */
	struct timer timer; /* back-off, greeting deadline or heartbeat, by state */
	uint32_t backoff_ms;
	uint64_t heard_ms, epoch;
	uint64_t refused_ms; /* until then nobody has to be told again that it refuses */
	unsigned char nonce[16];
	uint16_t *number;            /* by msg_method.index; 0: not agreed at connect, so it is asked by its name */
	struct pending_list waiting; /* for the link */
	unsigned pendings;
	size_t kept_bytes; /* of its pendings */
	bool moving;       /* another process takes its place: all calls to it wait for that one */
	bool draining;     /* it finishes what it has: calls by key wait for its next start or the key's next owner */
	bool kept;
	struct breaker breaker;
};

struct rpc_client {
	struct worker *worker;
	struct peer *peers;
	size_t numbers;             /* of methods each peer has room for */
	struct pending_table calls; /* not ended */
	struct timer look;          /* at the first deadline */
	struct pending_list ended;  /* to be told at the end of this turn, or in the next one */
	struct pending_list moved;  /* their key's owner is asked anew in a moment */
	struct timer moved_look;
	uint64_t moved_ms; /* when that is, while it runs */
	unsigned ended_n;
	bool telling, again_posted;
	struct loop_deferred tell;
	struct inbox_msg again;
	struct once_client once;
	uint64_t trace;
	const char *const *keep;
	struct metric *retries, *in_flight, *dropped;
	uint32_t timeout_ms;
};

struct rpc_client *rpc_client_new(struct worker *w);
/* On the worker: closes the links. Calls under way are not told: who has something to free for them cancels them before. */
void rpc_client_stop(struct rpc_client *c);
void rpc_client_messages(struct rpc_client *c); /* worker->schema is another (rpc/messages.h) */
void rpc_client_free(struct rpc_client *c);     /* after the loop has ended; NULL is fine */
void rpc_client_routes(struct rpc_client *c);   /* worker->routes has changed */

/* choose.c */
uint64_t client_draw(struct rpc_client *c);                                    /* a number by lot */
struct peer *client_choose(struct rpc_client *c, const struct rpc_call *call); /* NULL: nobody is there */
static inline bool call_is_anywhere(const struct rpc_call *call)
{
	return !call->to.instance && (call->to.anywhere || call->method->anywhere);
}
void peer_failed(struct peer *p, const char *why); /* a call there timed out, or ended unavailable, or its link broke */
void peer_worked(struct peer *p);                  /* it has answered */
void peer_forgotten(struct peer *p);               /* it is removed: nobody avoids it any more */

/* peer.c, used by client.c */
struct peer *peer_find(struct rpc_client *c, const char *instance, uint32_t remote_worker);
struct peer *peer_get(struct rpc_client *c, const struct route_row *row, uint32_t remote_worker); /* connects if idle */
void peer_remove(struct peer *p);      /* from the client; its pendings must be gone */
bool peer_is_up(const struct peer *p); /* frames can be sent; a broken link whose on_close is still to come is not up */
void peer_cancel(struct peer *p, uint64_t id); /* tells the other side, if it is up */
/* Tells the worker's on_peer that the instance is gone, unless another link to it stands. */
void peer_tell_down(struct peer *p);
/* client.c, used by peer.c */
void client_ready(struct peer *p); /* sends what waits */
void client_lost(struct peer *p);  /* the link broke: retries, or ends, what was under way */
void client_response(struct peer *p, const struct frame_response *r);
