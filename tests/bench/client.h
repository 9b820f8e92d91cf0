#pragma once
#include "tests/bench/net.h"
#include "tests/bench/wire.h"

#include <sys/epoll.h>

/*
 * client: the clients of an echo server: accept, handshake, heartbeats, requests taken apart.
 *
 * Threads: one. Memory: a client's struct lives until the end and is used again, so an answer that
 * comes for a closed one finds it closed (its id has changed).
 * Turns:   client_read takes all that is ready; answers gather in `out` until client_flush, so each
 *          client gets one write per turn.
 */
enum { CLIENT_MAX = 1 << 16, CLIENT_READ_BYTES = 256 << 10, CLIENT_PACKAGE_MAX = 64 << 10 };

struct client {
	int fd;               /* -1: closed */
	uint32_t id;          /* slot, and in the upper half how often it was used */
	bool working;         /* the handshake's ack has come */
	bool dirty;           /* stands in the owner's list of those to flush */
	bool waits_out;       /* epoll tells when it takes bytes again */
	struct queue in, out; /* in: the start of a package, between turns */
	struct client *next_free;
};

struct clients {
	int epoll, listener;
	uint32_t count;
	struct client *slot[CLIENT_MAX], *free;
	uint8_t read[CLIENT_READ_BYTES];
};

/* A request has come; m points into bytes that are gone when this returns. */
typedef void client_request_fn(void *owner, struct client *c, const struct wire_message *m);

static inline void client_watch(struct clients *all, struct client *c, int how, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = c };
	if (epoll_ctl(all->epoll, how, c->fd, &e) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

static inline void client_close(struct clients *all, struct client *c)
{
	close(c->fd);
	c->fd = -1;
	c->id += CLIENT_MAX;
	c->working = c->waits_out = false;
	c->in.off = c->in.len = c->out.off = c->out.len = 0;
	c->next_free = all->free;
	all->free = c;
}

static inline struct client *client_slot(struct clients *all)
{
	struct client *c = all->free;
	if (c) {
		all->free = c->next_free;
		return c;
	}
	c = all->count < CLIENT_MAX ? calloc(1, sizeof *c) : NULL;
	if (!c)
		die("no room for another client");
	c->id = all->count;
	return all->slot[all->count++] = c;
}

/* NULL: that client has gone. */
static inline struct client *client_find(struct clients *all, uint32_t id)
{
	struct client *c = all->slot[id % CLIENT_MAX];
	return c && c->id == id && c->fd >= 0 ? c : NULL;
}

static inline void clients_accept(struct clients *all)
{
	for (;;) {
		int fd = accept4(all->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0)
			return;
		struct client *c = client_slot(all);
		c->fd = fd;
		net_nodelay(fd);
		client_watch(all, c, EPOLL_CTL_ADD, EPOLLIN);
	}
}

/* Listens on *port (0: a free one, which *port becomes); the listener's events carry NULL. */
static inline void clients_open(struct clients *all, int *port)
{
	struct epoll_event e = { .events = EPOLLIN };
	all->listener = net_listen(port);
	all->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_ctl(all->epoll, EPOLL_CTL_ADD, all->listener, &e) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

/* Writes what has gathered; closes a client that is gone. */
static inline void client_flush(struct clients *all, struct client *c)
{
	if (!queue_flush(&c->out, c->fd)) {
		client_close(all, c);
		return;
	}
	bool rest = queue_bytes(&c->out) > 0;
	if (rest != c->waits_out)
		client_watch(all, c, EPOLL_CTL_MOD, rest ? EPOLLIN | EPOLLOUT : EPOLLIN);
	c->waits_out = rest;
}

static inline void client_package(struct client *c, enum wire_package type)
{
	uint8_t *p = queue_room(&c->out, WIRE_HEAD_BYTES);
	c->out.len += wire_head(p, type, 0);
}

static inline void client_handshake(struct client *c)
{
	static const char hello[] = "{\"code\":200,\"sys\":{\"heartbeat\":10}}";
	uint8_t *p = queue_room(&c->out, WIRE_HEAD_BYTES + sizeof hello);
	c->out.len += wire_head(p, WIRE_HANDSHAKE, sizeof hello - 1);
	queue_add(&c->out, hello, sizeof hello - 1);
}

/* One package from a client; false: it breaks the protocol. */
static inline bool client_take(struct client *c, const uint8_t *p, size_t body_bytes, client_request_fn *request,
			       void *owner)
{
	struct wire_message m;
	switch (p[0]) {
	case WIRE_HANDSHAKE: client_handshake(c); return true;
	case WIRE_ACK:
		c->working = true;
		client_package(c, WIRE_HEARTBEAT);
		return true;
	case WIRE_HEARTBEAT: client_package(c, WIRE_HEARTBEAT); return true;
	case WIRE_DATA:
		if (!c->working || !wire_read_message(p + WIRE_HEAD_BYTES, body_bytes, &m))
			return false;
		if (m.type == WIRE_REQUEST && m.id)
			request(owner, c, &m);
		return true;
	default: return false;
	}
}

/* Takes the whole packages of p; *used says how far they reached. false: it breaks the protocol. */
static inline bool client_parse(struct client *c, const uint8_t *p, size_t bytes, size_t *used,
				client_request_fn *request, void *owner)
{
	size_t at = 0;
	while (bytes - at >= WIRE_HEAD_BYTES) {
		size_t body = wire_body_bytes(p + at);
		if (body > CLIENT_PACKAGE_MAX)
			return false;
		if (bytes - at < WIRE_HEAD_BYTES + body)
			break;
		if (!client_take(c, p + at, body, request, owner))
			return false;
		at += WIRE_HEAD_BYTES + body;
	}
	*used = at;
	return true;
}

/* Reads all that is ready and hands on the requests; false: the client is closed now. */
static inline bool client_read(struct clients *all, struct client *c, client_request_fn *request, void *owner)
{
	size_t kept = queue_bytes(&c->in), used = 0;
	memcpy(all->read, c->in.p + c->in.off, kept);
	ssize_t n = recv(c->fd, all->read + kept, sizeof all->read - kept, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0 || !client_parse(c, all->read, kept + (size_t)n, &used, request, owner)) {
		client_close(all, c);
		return false;
	}
	c->in.off = c->in.len = 0;
	if (used < kept + (size_t)n)
		queue_add(&c->in, all->read + used, kept + (size_t)n - used);
	return true;
}
