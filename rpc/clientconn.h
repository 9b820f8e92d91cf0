#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "common/stream.h"
#include "rpc/balancer.h"
#include "rpc/clientbody.h"
#include "rpc/frame.h"
#include "rpc/pomelo.h"
#include "rpc/websocket.h"
/*
 * clientconn: one client's connection: raw TCP or WebSocket told apart by its first byte, handshake, heartbeat,
 * limits, kick. Gate and connector build on it; what messages mean is theirs.
 *
 * Threads: owner worker only, both structs.
 * Memory:  the owner embeds struct clientconn; an idle connection holds no buffers and no WebSocket context. Messages point into the
 *          connection's input and are valid inside on_message only.
 * Life:    new → (upgrade) → handshake → ack → working → ended. on_end comes exactly once, when the connection is
 *          of no more use (kicked, closed, broken), perhaps from inside a call below; on_free later, when the
 *          memory may go: never from inside one.
 * Bounds:  a package of early_max bytes until the handshake is done, body_max after; out_max bytes not yet taken by
 *          the client: more ends the connection (of a client that reads too slowly, pushes that are superseded are
 *          dropped first: rpc/clientlate.h), and so does what is not taken within two heartbeats; packets_per_s and
 *          bytes_per_s: above them requests are answered busy, above four times the client is kicked; login_ms until
 *          clientconn_login, or kicked.
 * Logged:  why each connection ended (of very many in a second, how many), with its address; a peer's plain close only
 *          at debug. The first response or push a client sends, which is ignored (client.ignored); so many of them as
 *          strikes end it.
 */
struct clientconn;
struct clientlisten;
struct clientconn_ops {
	/*
	 * A request or notify in the working state. The route is text (codes are resolved) and the body is not
	 * compressed any more. Every request must be answered, now or later, by clientconn_respond or _error.
	 */
	void (*on_message)(struct clientconn *c, const struct pomelo_message *m);
	void (*on_end)(struct clientconn *c);
	void (*on_free)(struct clientconn *c);
};
struct clientconn_limits {
	unsigned heartbeat_s, packets_per_s;
	unsigned bytes_per_s; /* of requests' bodies; 0: no bound */
	unsigned login_ms;
	size_t early_max, body_max, out_max;
};
#define CLIENTCONN_EARLY_MAX 4096
#define CLIENTCONN_BODY_MAX  65536
#define CLIENTCONN_OUT_MAX   (1u << 20)
#define CLIENTCONN_LOGIN_MS  10000

/* When protobuf is spoken: never; with clients that ask for it in the handshake (serializer in sys or user); always. */
enum clientconn_protobuf { CLIENTCONN_PROTOBUF_NEVER, CLIENTCONN_PROTOBUF_ASKED, CLIENTCONN_PROTOBUF_ALWAYS };
/* The least version of a type of clients; older ones are refused with 501. */
struct clientconn_least {
	const char *type, *version; /* type: sys.type, or "*" */
};

/* What all connections of one worker share. */
struct clientconn_face {
	struct loop *loop;
	struct log *log;
	const struct pomelo_dict *dict;    /* may be NULL; both are what new clients are told: clientconn_face_tell */
	const struct clientprotos *protos; /* may be NULL: JSON only */
	enum clientconn_protobuf protobuf;
	const struct clientconn_least *least;
	size_t leasts;
	struct websocket_rules rules;
	const struct balancers *balancers;  /* whose X-Forwarded-For is believed; NULL: nobody's */
	struct clientlisten *const *listen; /* where addresses and their packets are counted */
	const struct clientconn_ops *ops;
	struct clientconn_limits limits;
	void *user; /* the owner's own */
	/* private */
	struct websocket_pool *frames;
	struct buf scratch, typed, answer; /* bodies made anew: inflated or of protobuf; a request's and an answer's */
	size_t open;
	_Atomic uint32_t elders; /* connections that depend on what was told before: any thread may look */
	struct log_bound said;   /* why connections ended */
	struct clientconn *conns;
	struct metric *connections, *packets_in, *packets_out, *bytes_in, *bytes_out, *refused, *slow, *superseded;
};
/* The caller sets the public fields first. Families: loquat_client_connections, _packets_total, _bytes_total … */
void clientconn_face_init(struct clientconn_face *f, struct metrics *m, unsigned worker);
/*
 * New clients are told these from now on. Who has been told others goes on with them, which must live as long as the face;
 * elders counts who depends on them: speaks by their protos, or by their codes.
 */
void clientconn_face_tell(struct clientconn_face *f, const struct pomelo_dict *dict, const struct clientprotos *protos);
/* Closes all connections; on_end and on_free of each come as always. */
void clientconn_face_close(struct clientconn_face *f);
void clientconn_face_release(struct clientconn_face *f); /* all connections must be freed */

enum clientconn_state {
	CLIENTCONN_NEW,       /* no byte has come */
	CLIENTCONN_UPGRADE,   /* HTTP: the request is not whole */
	CLIENTCONN_HANDSHAKE, /* waits for the handshake */
	CLIENTCONN_ACK,       /* handshake answered, waits for its ack */
	CLIENTCONN_WORKING,
	CLIENTCONN_ENDED,
};
struct clientconn { /* the fields are the module's, but sid; read state, kicked, lost, addr and hello freely */
	struct stream stream;
	struct clientconn_face *face;
	struct clientconn *next, **prev; /* of the face */
	uint64_t sid;                    /* the owner's number for it, in the log; 0: none */
	enum clientconn_state state;
	bool web, codes, in;
	bool left;         /* it closed by itself */
	bool kicked, lost; /* how it ended, for on_end: by us; so that what was sent last may not have arrived */
	struct clientconn_late *late; /* what waits for a client that reads too slowly; NULL: nothing */
	bool held;                    /* nothing is read from the client */
	unsigned strikes, ignored;
	struct websocket ws;
	struct buf carry; /* WebSocket: the begin of a package whose end has not come */
	struct timer beat, deadline;
	uint64_t last_in_ms, last_out_ms, last_beat_ms, second;
	uint64_t login_left_ms; /* while the deadline stands */
	unsigned packets;
	int host;               /* where its address' packets are counted (rpc/clientlisten.h) */
	uint64_t bytes;         /* of requests in this second, uncompressed */
	unsigned pieces;        /* of this second: packages and frames of any kind, the empty ones too */
	unsigned wholes;        /* packages that have come */
	uint64_t part_ms;       /* since when one is unfinished; 0: none is */
	uint64_t owed, owed_ms; /* what was to be read then: the stream's bytes up to here */
	struct pomelo_hello hello;
	const struct pomelo_dict *dict; /* as it was told in the handshake */
	const struct clientprotos *protos;
	struct clientbody body;
	char addr[ENV_ADDR_MAX]; /* the player's, as far as a balancer says it */
};

/* Takes an accepted connection. addr as env_conn_peer gave it. */
void clientconn_timers(struct clientconn *c); /* of its state; private */
void clientconn_pour(struct clientconn *c);   /* what waits for a slow reader becomes output; private */
void clientconn_accept(struct clientconn *c, struct clientconn_face *face, struct env_conn *conn, const char *addr);

/* Answers request id. body is a JSON object; empty becomes {}. id 0 (a notify): nothing is sent. */
void clientconn_respond(struct clientconn *c, uint32_t id, const char *body, size_t n);
/* Answers request id with {code, error, message, effect}. message NULL: the error's sentence. */
void clientconn_error(struct clientconn *c, uint32_t id, int err, enum effect effect, const char *message);

/* A push, made once and sent to many. */
struct clientconn_push {
	const char *route, *body;
	size_t route_n, n;
	const struct pomelo_dict *dict;
	uint16_t code;       /* the route's code there, or 0 */
	uint64_t supersedes; /* key of what it replaces (clientlate_key), or 0; set after clientconn_push_make */
	char head[2][POMELO_MESSAGE_HEAD_MAX];
	size_t head_n[2]; /* without and with the code */
	/*
	 * To many: as it goes over the wire, encoded once per kind of client (raw or WebSocket, without or with codes)
	 * and shared by their streams. Set by clientconn_push_many.
	 */
	bool many;
	struct stream_shared *wire[2][2];
	struct clientconn_forms *forms; /* its bodies in protobuf, made when the first client wants one */
};
/*
 * Points to route and body; clientconn_push_done when it has been sent. ERR_BAD_REQUEST: the route is too long or empty,
 * the body empty or too large.
 */
int clientconn_push_make(struct clientconn_push *p, const struct pomelo_dict *dict, const char *route, size_t route_n,
			 const char *body, size_t n);
/* From now on clientconn_push sends shared bytes. Worth it from a few clients on. */
void clientconn_push_many(struct clientconn_push *p);
void clientconn_push_done(struct clientconn_push *p);
/* ERR_CLOSED: not working any more. ERR_FULL: the client is too slow; it has been ended. */
int clientconn_push(struct clientconn *c, struct clientconn_push *p);

/* The client has logged in, or stands in a queue: the deadline stops. */
void clientconn_login(struct clientconn *c);
/* The deadline's clock stands while a login is under way; it goes on when the login failed. */
void clientconn_login_wait(struct clientconn *c, bool wait);
/*
 * A request that is not allowed before login: answered denied; the tenth such is answered and the client kicked.
 */
#define CLIENTCONN_STRIKES 10
void clientconn_strike(struct clientconn *c, uint32_t id, const char *message);

/* Sends {"reason": reason}, flushes, half-closes and closes within a second. why is for the log. */
void clientconn_kick(struct clientconn *c, const char *reason);
/* Closes without a word to the client. */
void clientconn_drop(struct clientconn *c, const char *why);
/*
 * Handing over to another process (clientconn_move.c): hold: no more is read from the client. pack: all that makes the
 * connection, without its socket; nothing is read or written afterwards. unpack: a connection of that. back: it goes on
 * here after all. forget: it is another's now: no word to the client, no on_end, on_free as always.
 */
bool clientconn_can_move(const struct clientconn *c);  /* false: TLS, or in the middle of a large WebSocket frame */
void clientconn_hold(struct clientconn *c, bool hold); /* a large frame that has begun is read to its end first */
void clientconn_pack(struct clientconn *c, struct buf *out);
void clientconn_unpack(struct clientconn *c, struct clientconn_face *face, struct env_conn *conn, struct span packed);
void clientconn_back(struct clientconn *c);
void clientconn_forget(struct clientconn *c);
/*
 * Whether the client is still there as far as this machine knows: reads what has arrived first, so a connection
 * whose end lies unread counts as gone. Not from inside any stream's on_data.
 */
bool clientconn_alive(struct clientconn *c);
