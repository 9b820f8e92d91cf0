#include "common/env_real.h"
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

struct env_conn {
	int fd;
	bool attached, connecting;
	bool shaking;         /* its handshake is under way: nobody above hears of it */
	bool denied;          /* it failed: the next read says so */
	bool reads, writes;   /* what is wanted */
	struct conn_tls *tls; /* NULL: plain */
	int connect_errno;    /* connect() refused at once: told later, as all others are */
	struct env_loop *loop;
	const struct env_conn_ops *ops;
	void *arg;
	struct event rd, wr; /* two, so that wanting to write is one epoll_ctl and no re-assignment */
	union address peer;
};

enum {
	ACCEPTS_PER_TURN = 64, /* so that a storm of connections does not starve those that are there */
	ACCEPT_REST_MS = 100,  /* after EMFILE: the pending connection would make the loop spin */
	LISTEN_BACKLOG = 4096, /* the kernel cuts it to net.core.somaxconn */
};

struct env_listener {
	int fd;
	uint16_t port;
	struct env_loop *loop;
	struct event ev, rest;
	void (*on_accept)(void *arg, struct env_conn *conn);
	void *arg;
	struct env_tls *tls;    /* NULL: plain */
	bool accepting, closed; /* on_accept may close the listener: then the memory waits for the accepting to end */
};

/* ---- addresses --------------------------------------------------------------------------------------- */

static int address_parse(const char *host, uint16_t port, union address *a, socklen_t *n)
{
	memset(a, 0, sizeof *a);
	if (inet_pton(AF_INET, host, &a->v4.sin_addr) == 1) {
		a->v4.sin_family = AF_INET;
		a->v4.sin_port = htons(port);
		*n = sizeof a->v4;
		return 0;
	}
	if (inet_pton(AF_INET6, host, &a->v6.sin6_addr) == 1) {
		a->v6.sin6_family = AF_INET6;
		a->v6.sin6_port = htons(port);
		*n = sizeof a->v6;
		return 0;
	}
	return ERR_BAD_REQUEST;
}

static void address_text(const union address *a, char text[ENV_ADDR_MAX])
{
	char host[INET6_ADDRSTRLEN] = "?";
	if (a->any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr)) { /* listening on both */
		inet_ntop(AF_INET, a->v6.sin6_addr.s6_addr + 12, host, sizeof host);
		snprintf(text, ENV_ADDR_MAX, "%s:%u", host, ntohs(a->v6.sin6_port));
	} else if (a->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host);
		snprintf(text, ENV_ADDR_MAX, "%s:%u", host, ntohs(a->v4.sin_port));
	} else {
		inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host);
		snprintf(text, ENV_ADDR_MAX, "[%s]:%u", host, ntohs(a->v6.sin6_port));
	}
}

static int socket_new(int family)
{
	int one = 1, fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0) /* accepted sockets inherit it from the listener */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

int env_real_listen(const char *host, uint16_t port)
{
	union address a;
	socklen_t n;
	int one = 1, err = address_parse(host, port, &a, &n);
	if (err < 0)
		return err;
	int fd = socket_new(a.any.sa_family);
	if (fd < 0)
		return env_real_errno(errno);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, &a.any, n) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
		err = env_real_errno(errno);
		close(fd);
		return err;
	}
	return fd;
}

uint16_t env_real_port(int fd)
{
	union address a = { 0 };
	socklen_t n = sizeof a;
	getsockname(fd, &a.any, &n);
	return ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
}

/* ---- listening --------------------------------------------------------------------------------------- */

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_listener *l = arg;
	event_add(&l->ev, NULL);
}

static void accept_failed(struct env_listener *l, int number)
{
	if (number != EMFILE && number != ENFILE && number != ENOBUFS && number != ENOMEM)
		return; /* nothing left to accept, or the peer of this one is gone already */
	struct timeval rest = { .tv_usec = ACCEPT_REST_MS * 1000 };
	event_del(&l->ev);
	event_add(&l->rest, &rest);
}

static void on_acceptable(evutil_socket_t listening, short what, void *arg)
{
	(void)what;
	struct env_listener *l = arg;
	env_real_enter(l->loop);
	l->accepting = true;
	for (int i = 0; i < ACCEPTS_PER_TURN && !l->closed; i++) {
		struct env_conn *c = NULL;
		union address peer = { 0 };
		socklen_t n = sizeof peer;
		int fd = accept4((int)listening, &peer.any, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 || !(c = malloc(sizeof *c))) {
			accept_failed(l, fd < 0 ? errno : ENOMEM);
			if (fd >= 0)
				close(fd);
			break;
		}
		*c = (struct env_conn){ .fd = fd, .peer = peer };
		if (l->tls && !(c->tls = env_real_tls_open(l->tls, fd, false))) {
			env_conn_close(c);
			continue;
		}
		c->shaking = c->tls != NULL;
		l->on_accept(l->arg, c);
	}
	l->accepting = false;
	if (l->closed)
		free(l);
}

int env_listen(struct env_loop *loop, const char *host, uint16_t port,
	       void (*on_accept)(void *arg, struct env_conn *conn), void *arg, struct env_listener **out)
{
	assert(env_loop_is_current(loop));
	int fd = env_real_listen(host, port);
	if (fd < 0)
		return fd;
	int err = env_real_listener_of(loop, fd, on_accept, arg, out);
	if (err < 0)
		close(fd);
	return err;
}

int env_real_listener_of(struct env_loop *loop, int fd, void (*on_accept)(void *arg, struct env_conn *conn), void *arg,
			 struct env_listener **out)
{
	struct env_listener *l = malloc(sizeof *l);
	if (!l)
		return ERR_NOMEM;
	*l = (struct env_listener){
		.fd = fd, .port = env_real_port(fd), .loop = loop, .on_accept = on_accept, .arg = arg
	};
	event_assign(&l->ev, loop->base, fd, EV_READ | EV_PERSIST, on_acceptable, l);
	evtimer_assign(&l->rest, loop->base, on_rested, l);
	event_add(&l->ev, NULL);
	*out = l;
	return 0;
}

int env_real_listener_fd(const struct env_listener *l)
{
	return l->fd;
}

void env_listener_rest(struct env_listener *l, bool rest)
{
	assert(env_loop_is_current(l->loop));
	event_del(&l->rest);
	if (rest)
		event_del(&l->ev);
	else
		event_add(&l->ev, NULL);
}

void env_listener_tls(struct env_listener *l, struct env_tls *t)
{
	l->tls = t;
}

uint16_t env_listener_port(const struct env_listener *l)
{
	return l->port;
}

void env_listener_close(struct env_listener *l)
{
	if (!l)
		return;
	assert(env_loop_is_current(l->loop));
	event_del(&l->ev);
	event_del(&l->rest);
	close(l->fd);
	l->closed = true;
	if (!l->accepting)
		free(l);
}

/* ---- connections --------------------------------------------------------------------------------------- */

static void want(struct event *ev, bool on)
{
	if (on)
		event_add(ev, NULL);
	else
		event_del(ev);
}

/* Bytes that TLS has read already would wait for the next ones otherwise. */
static void tell_pending(struct env_conn *c)
{
	if (c->reads && env_real_tls_pending(c->tls))
		event_active(&c->rd, EV_READ, 1);
}

/* One of the callbacks may close c: nothing after them. */
static void shake(struct env_conn *c)
{
	bool wants_write = false, client = c->connecting;
	int err = env_real_tls_step(c->tls, &wants_write);
	if (err == ERR_AGAIN) {
		want(&c->wr, wants_write);
		return;
	}
	c->shaking = c->connecting = false;
	c->denied = err < 0;
	want(&c->wr, c->writes);
	want(&c->rd, c->reads);
	if (client)
		c->ops->on_connected(c->arg, err);
	else if (c->denied)
		c->ops->on_readable(c->arg);
	else
		tell_pending(c);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_conn *c = arg;
	env_real_enter(c->loop);
	if (c->shaking)
		shake(c);
	else
		c->ops->on_readable(c->arg);
}

static int connect_error(int number)
{
	switch (number) {
	case 0: return 0;
	case ETIMEDOUT: return ERR_TIMEOUT;
	case ECONNREFUSED:
	case ECONNRESET:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EADDRNOTAVAIL: env_real_errno(number); return ERR_UNAVAILABLE;
	default: env_real_errno(number); return ERR_IO;
	}
}

static void connect_done(struct env_conn *c)
{
	int number = c->connect_errno;
	socklen_t n = sizeof number;
	if (!number)
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &number, &n);
	event_del(&c->wr);
	if (number == 0)
		event_add(&c->rd, NULL);
	if (number == 0 && c->tls) { /* on_connected comes when hands are shaken */
		c->shaking = true;
		shake(c);
		return;
	}
	c->connecting = false;
	c->ops->on_connected(c->arg, connect_error(number));
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_conn *c = arg;
	env_real_enter(c->loop);
	if (c->shaking)
		shake(c);
	else if (c->connecting)
		connect_done(c);
	else
		c->ops->on_writable(c->arg);
}

static void conn_assign(struct env_conn *c, struct env_loop *loop, const struct env_conn_ops *ops, void *arg)
{
	assert(env_loop_is_current(loop) && !c->attached);
	c->attached = c->reads = true;
	c->writes = false;
	c->loop = loop;
	c->ops = ops;
	c->arg = arg;
	event_assign(&c->rd, loop->base, c->fd, EV_READ | EV_PERSIST, on_readable, c);
	event_assign(&c->wr, loop->base, c->fd, EV_WRITE | EV_PERSIST, on_writable, c);
}

int env_conn_attach(struct env_conn *conn, struct env_loop *loop, const struct env_conn_ops *ops, void *arg)
{
	conn_assign(conn, loop, ops, arg);
	if (event_add(&conn->rd, NULL) < 0)
		return env_real_errno(errno);
	if (conn->tls)
		tell_pending(conn);
	return 0;
}

void env_conn_detach(struct env_conn *conn)
{
	assert(conn->attached && !conn->connecting && !conn->shaking && env_loop_is_current(conn->loop));
	event_del(&conn->rd);
	event_del(&conn->wr);
	conn->attached = false;
	conn->loop = NULL;
}

int env_connect(struct env_loop *loop, const char *host, uint16_t port, const struct env_conn_ops *ops, void *arg,
		struct env_conn **out)
{
	union address a;
	socklen_t n;
	int err = address_parse(host, port, &a, &n);
	if (err < 0)
		return err;
	struct env_conn *c = malloc(sizeof *c);
	if (!c)
		return ERR_NOMEM;
	*c = (struct env_conn){ .fd = socket_new(a.any.sa_family), .peer = a, .connecting = true };
	if (c->fd < 0) {
		err = env_real_errno(errno);
		free(c);
		return err;
	}
	conn_assign(c, loop, ops, arg);
	if ((connect(c->fd, &a.any, n) < 0 && errno != EINPROGRESS) || event_add(&c->wr, NULL) < 0) {
		c->connect_errno = errno;
		event_active(&c->wr, EV_WRITE, 1);
	}
	*out = c;
	return 0;
}

int env_conn_tls(struct env_conn *conn, struct env_tls *t)
{
	assert(conn->connecting && !conn->tls);
	conn->tls = env_real_tls_open(t, conn->fd, true);
	return conn->tls ? 0 : ERR_NOMEM;
}

int env_conn_tls_accept(struct env_conn *conn, struct env_tls *t)
{
	assert(!conn->attached && !conn->connecting && !conn->tls);
	conn->tls = env_real_tls_open(t, conn->fd, false);
	conn->shaking = conn->tls != NULL;
	return conn->tls ? 0 : ERR_NOMEM;
}

/* EAGAIN and the ways a peer can be gone; the rest is the system's trouble. */
static int transfer_error(int number)
{
	switch (number) {
	case EAGAIN:
	case EINTR: return ERR_AGAIN;
	case ECONNRESET:
	case EPIPE:
	case ETIMEDOUT:
	case ENOTCONN:
	case EHOSTUNREACH:
	case ENETUNREACH: return ERR_CLOSED;
	default: env_real_errno(number); return ERR_IO;
	}
}

ssize_t env_conn_read(struct env_conn *conn, void *buf, size_t n)
{
	if (conn->tls) {
		if (conn->shaking || conn->denied)
			return conn->denied ? ERR_DENIED : ERR_AGAIN;
		ssize_t part = env_real_tls_read(conn->tls, buf, n);
		if (part > 0)
			tell_pending(conn);
		return part;
	}
	ssize_t got = recv(conn->fd, buf, n, 0);
	return got >= 0 ? got : transfer_error(errno);
}

ssize_t env_conn_peek(struct env_conn *conn, void *buf, size_t n)
{
	assert(!conn->tls);
	ssize_t got = recv(conn->fd, buf, n, MSG_PEEK);
	return got >= 0 ? got : transfer_error(errno);
}

ssize_t env_conn_write(struct env_conn *conn, const struct iovec *iov, int n)
{
	if (conn->tls) {
		if (conn->shaking || conn->denied)
			return conn->denied ? ERR_CLOSED : ERR_AGAIN;
		return env_real_tls_write(conn->tls, iov, n);
	}
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n };
	ssize_t put = n == 1 ? send(conn->fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL)
			     : sendmsg(conn->fd, &m, MSG_NOSIGNAL);
	return put >= 0 ? put : transfer_error(errno);
}

void env_conn_want_write(struct env_conn *conn, bool on)
{
	assert(!conn->connecting);
	conn->writes = on;
	if (!conn->shaking)
		want(&conn->wr, on);
}

void env_conn_want_read(struct env_conn *conn, bool on)
{
	assert(!conn->connecting);
	conn->reads = on;
	if (conn->shaking)
		return;
	want(&conn->rd, on);
	if (conn->tls)
		tell_pending(conn);
}

void env_conn_shutdown(struct env_conn *conn)
{
	if (conn->tls && !conn->shaking)
		env_real_tls_shutdown(conn->tls);
	shutdown(conn->fd, SHUT_WR);
}

void env_conn_close(struct env_conn *conn)
{
	if (!conn)
		return;
	if (conn->attached) {
		assert(env_loop_is_current(conn->loop));
		event_del(&conn->rd);
		event_del(&conn->wr);
	}
	env_real_tls_close(conn->tls);
	close(conn->fd);
	free(conn);
}

bool env_conn_passable(const struct env_conn *conn)
{
	return !conn->tls && !conn->connecting;
}

int env_real_conn_fd(const struct env_conn *conn)
{
	assert(env_conn_passable(conn));
	return conn->fd;
}

int env_real_conn_of(int fd, struct env_conn **out)
{
	struct env_conn *c = malloc(sizeof *c);
	if (!c)
		return ERR_NOMEM;
	*c = (struct env_conn){ .fd = fd };
	socklen_t n = sizeof c->peer;
	getpeername(fd, &c->peer.any, &n);
	*out = c;
	return 0;
}

void env_conn_peer(const struct env_conn *conn, char addr[ENV_ADDR_MAX])
{
	address_text(&conn->peer, addr);
}
