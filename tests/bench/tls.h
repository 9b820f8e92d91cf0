#pragma once
#include "tests/bench/net.h"
#include "tests/bench/wire.h"

#include <openssl/ssl.h>
#include <sys/epoll.h>

/*
 * tls: one end of a TLS connection in an epoll loop: bytes in as they come, what gathered out once a turn.
 *
 * Threads: one. Memory: a connection's struct lives until the end of the program.
 */
struct tls_end {
	SSL *ssl;
	int fd;
	bool open; /* hands are shaken */
	struct queue in, out;
	uint32_t id; /* of the request under way; the server's own use */
	int stage;
};

static inline void tls_watch(int epoll, struct tls_end *e, int how, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = e };
	if (epoll_ctl(epoll, how, e->fd, &ev) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

static inline struct tls_end *tls_end_new(SSL_CTX *ctx, int fd, int epoll, bool client)
{
	struct tls_end *e = calloc(1, sizeof *e);
	if (!e || !(e->ssl = SSL_new(ctx)) || SSL_set_fd(e->ssl, fd) != 1)
		die("no TLS connection");
	e->fd = fd;
	if (client)
		SSL_set_connect_state(e->ssl);
	else
		SSL_set_accept_state(e->ssl);
	tls_watch(epoll, e, EPOLL_CTL_ADD, EPOLLIN | (client ? EPOLLOUT : 0));
	return e;
}

/* Reads all that is ready behind what waits in `in`; false: the other side has gone. */
static inline bool tls_read(struct tls_end *e)
{
	for (;;) {
		uint8_t *room = queue_room(&e->in, 16384);
		int n = SSL_read(e->ssl, room, 16384);
		if (n <= 0)
			return SSL_get_error(e->ssl, n) == SSL_ERROR_WANT_READ;
		e->in.len += (size_t)n;
	}
}

static inline bool tls_flush(struct tls_end *e)
{
	while (queue_bytes(&e->out)) {
		int n = SSL_write(e->ssl, e->out.p + e->out.off, (int)queue_bytes(&e->out));
		if (n <= 0) /* a closed loop of small messages never fills a socket */
			return false;
		e->out.off += (size_t)n;
	}
	e->out.off = e->out.len = 0;
	return true;
}

/* The next whole package in `in`, taken; NULL: none. */
static inline const uint8_t *tls_package(struct tls_end *e, size_t *body)
{
	const uint8_t *p = e->in.p + e->in.off;
	size_t there = queue_bytes(&e->in);
	if (there < WIRE_HEAD_BYTES || there < WIRE_HEAD_BYTES + (*body = wire_body_bytes(p)))
		return NULL;
	e->in.off += WIRE_HEAD_BYTES + *body;
	return p;
}

static inline void tls_say(struct tls_end *e, enum wire_package type, const void *body, size_t n)
{
	uint8_t *p = queue_room(&e->out, WIRE_HEAD_BYTES);
	e->out.len += wire_head(p, type, n);
	queue_add(&e->out, body, n);
}
