#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/buf.h"
/*
 * websocket: RFC 6455 on the server's side, as bytes: the HTTP upgrade, frames in, frame heads out.
 *
 * Threads: a pool and what uses it belong to one worker.
 * Memory:  struct websocket is small and embedded per connection. A frame that is whole in the caller's bytes is
 *          unmasked in place; only an unfinished large one takes a context of libwslay from the pool, and gives it
 *          back with its last byte.
 * Input:   payloads of text and binary messages, fragmented or not, are one stream of bytes: whoever reads packages
 *          out of it does not see where messages begin. Frames of any length pass; nothing is kept of them here.
 * Refused: frames without mask, with reserved bits or opcodes, ill-formed lengths, continuations out of order.
 */

/*
 * Reads the HTTP request at the front of data. > 0: its bytes; reply got the 101 that accepts it. ERR_INCOMPLETE: no
 * blank line yet. ERR_BAD_REQUEST: reply got the refusal (426 to a request that asks for no upgrade, else 400 or
 * 405): send it and close. ERR_FULL: longer than WEBSOCKET_REQUEST_MAX, with its refusal.
 */
#define WEBSOCKET_REQUEST_MAX 4096
struct websocket_rules {
	const char *const *origin; /* pages that may connect, as browsers write them; others are refused with 403 */
	size_t origins;            /* 0: all. Who is no browser sends no Origin and is not asked for one */
};
/* Of the subprotocols a client offers the first is taken, for browsers close a connection that takes none. rules NULL: none. */
ssize_t websocket_upgrade(const char *data, size_t n, const struct websocket_rules *rules, struct buf *reply);
/* Adds the list that a header of that request is, of all its lines in their order. false: it has none. */
bool websocket_headers(const char *data, size_t n, const char *name, struct buf *list);
/* Whether a close frame's payload is as RFC 6455 wants it: nothing, or a code that may be sent and a reason in UTF-8. */
bool websocket_close_ok(const char *payload, size_t n);

enum websocket_opcode {
	WEBSOCKET_TEXT = 1,
	WEBSOCKET_BINARY = 2,
	WEBSOCKET_CLOSE = 8,
	WEBSOCKET_PING = 9,
	WEBSOCKET_PONG = 10,
};
enum {
	WEBSOCKET_NORMAL = 1000,
	WEBSOCKET_GOING_AWAY = 1001,
	WEBSOCKET_PROTOCOL = 1002,
	WEBSOCKET_POLICY = 1008,
	WEBSOCKET_TOO_LARGE = 1009,
};

struct websocket_pool;
struct websocket_pool *websocket_pool_new(void);
void websocket_pool_free(struct websocket_pool *pool);         /* all contexts must be back */
size_t websocket_pool_held(const struct websocket_pool *pool); /* contexts in use now */

struct websocket {                     /* zero it; the fields are the module's */
	struct websocket_frame *frame; /* an unfinished frame's context */
	bool in_message;               /* a fragmented message goes on */
	unsigned frames;               /* that have begun; the owner counts them and sets it back */
};
struct websocket_ops {
	/* Payload bytes of messages, unmasked; negative: stop with it. */
	int (*on_data)(void *arg, const char *p, size_t n);
	/* CLOSE, PING or PONG with its payload (at most 125 bytes); negative: stop with it. */
	int (*on_control)(void *arg, enum websocket_opcode opcode, const char *p, size_t n);
};
/*
 * Reads frames from data, which may be changed up to what is consumed. Returns the bytes consumed: the rest comes again
 * with more behind it. ERR_BAD_REQUEST: the peer broke the protocol, or what a callback returned.
 */
ssize_t websocket_read(struct websocket *ws, struct websocket_pool *pool, char *data, size_t n,
		       const struct websocket_ops *ops, void *arg);
/* Gives back what an unfinished frame holds; for a connection that ends. */
void websocket_release(struct websocket *ws, struct websocket_pool *pool);

/* Writes the head of an unmasked, whole frame for n bytes of payload; returns its length. */
#define WEBSOCKET_HEAD_MAX 10
size_t websocket_head(char out[WEBSOCKET_HEAD_MAX], enum websocket_opcode opcode, size_t n);
/* A whole close frame with a status code (2 bytes of payload). */
#define WEBSOCKET_CLOSE_BYTES 4
void websocket_close_frame(char out[WEBSOCKET_CLOSE_BYTES], unsigned code);
