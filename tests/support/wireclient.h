#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "rpc/pomelo.h"
/*
 * wireclient: a pomelo client for tests, over raw TCP or WebSocket, on blocking sockets with a deadline.
 *
 * Threads: the test's own. Memory: embed it; wireclient_close frees. Trouble that no test expects (no connection)
 * fails the test; what a server does is returned.
 */
#define WIRECLIENT_WAIT_MS 60000
struct wireclient {
	int fd;
	struct ssl_st *tls; /* NULL: plain */
	bool web;
	uint32_t id;
	char *last;             /* what the last wiregot points to */
	struct buf in, payload; /* bytes as read; and what WebSocket frames held */
};
void wireclient_open(struct wireclient *c, uint16_t port);
void wireclient_open_from(struct wireclient *c, uint16_t port, const char *address); /* one of 127.0.0.0/8 */
/* Connects, upgrades if web, and shakes hands up to the ack. */
void wireclient_ready(struct wireclient *c, uint16_t port, bool web);
/* The same over TLS and no WebSocket, whatever certificate it is shown. */
void wireclient_ready_tls(struct wireclient *c, uint16_t port);
void wireclient_close(struct wireclient *c);

/* As a WebSocket client: what is sent from now on goes in masked frames. */
void wireclient_upgrade(struct wireclient *c);
void wireclient_raw(struct wireclient *c, const void *bytes, size_t n); /* as they are, not framed */
void wireclient_package(struct wireclient *c, enum pomelo_type type, const void *body, size_t n);
uint32_t wireclient_send(struct wireclient *c, const char *route, const char *body); /* a request; its id */
void wireclient_notify(struct wireclient *c, const char *route, const char *body);

struct wiregot {
	enum pomelo_type type; /* 0: the server closed; then nothing else is set */
	char *body;            /* of the package, NUL-ended; valid until the next call */
	size_t n;
	struct pomelo_message m; /* POMELO_DATA: its body is NUL-ended too */
};
/* The next package; heartbeats are passed over unless beats. Fails the test after WIRECLIENT_WAIT_MS. */
struct wiregot wireclient_next(struct wireclient *c, bool beats);
/* The body of the answer to request id; pushes in between are passed over. NULL: closed or kicked before. */
const char *wireclient_answer(struct wireclient *c, uint32_t id);
/* Sends and waits for the answer. */
const char *wireclient_ask(struct wireclient *c, const char *route, const char *body);
/* The body of the next push of this route; other packages are passed over. NULL: closed before. */
const char *wireclient_push(struct wireclient *c, const char *route);
/* The reason of the kick that comes next but for answers and pushes; NULL: closed without one. */
const char *wireclient_kick(struct wireclient *c);
bool wireclient_closed(struct wireclient *c); /* waits for the server's close, passing over the rest */
