#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4; before the first system header */
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * net: what every benchmark program needs of sockets, clock and buffers, and nothing more.
 *
 * Threads: one; these programs have no others.
 * Errors:  what a benchmark cannot go on without ends it with one line, exit 2.
 */
__attribute__((format(printf, 1, 2), noreturn)) static inline void die(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	exit(2);
}

static inline uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Bytes on their way: off..len are not yet consumed. Grows, never shrinks: these runs are short. */
struct queue {
	uint8_t *p;
	size_t off, len, cap;
};

/* Room for `more` bytes at p + len. */
static inline uint8_t *queue_room(struct queue *b, size_t more)
{
	if (b->off == b->len)
		b->off = b->len = 0;
	if (b->len + more > b->cap) {
		size_t cap = b->cap ? b->cap : 512;
		while (cap < b->len + more)
			cap *= 2;
		if (!(b->p = realloc(b->p, cap)))
			die("no memory for a buffer of %zu bytes", cap);
		b->cap = cap;
	}
	return b->p + b->len;
}

static inline void queue_add(struct queue *b, const void *bytes, size_t count)
{
	memcpy(queue_room(b, count), bytes, count);
	b->len += count;
}

static inline size_t queue_bytes(const struct queue *b)
{
	return b->len - b->off;
}

static inline void queue_free(struct queue *b)
{
	free(b->p);
	*b = (struct queue){ 0 };
}

/* Writes what the socket takes; false: the connection is gone. Bytes left over stay in b. */
static inline bool queue_flush(struct queue *b, int fd)
{
	while (b->off < b->len) {
		ssize_t n = send(fd, b->p + b->off, b->len - b->off, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		b->off += (size_t)n;
	}
	return true;
}

static inline struct sockaddr_in net_address(const char *host, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die("%s: not an IPv4 address", host);
	return a;
}

static inline void net_nodelay(int fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Listens on 127.0.0.1; port 0 takes a free one. *port becomes the one taken. Non-blocking. */
static inline int net_listen(int *port)
{
	struct sockaddr_in a = net_address("127.0.0.1", *port);
	socklen_t size = sizeof a;
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 4096) < 0)
		die("cannot listen on 127.0.0.1:%d: %s", *port, strerror(errno));
	getsockname(fd, (struct sockaddr *)&a, &size);
	*port = ntohs(a.sin_port);
	return fd;
}

/* A connection on its way, non-blocking; -1: refused at once. */
/* from: the own address, 0: whichever. */
static inline int net_connect_from(uint32_t from, const char *host, int port)
{
	struct sockaddr_in a = net_address(host, port), own = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("no socket: %s", strerror(errno));
	net_nodelay(fd);
	own.sin_addr.s_addr = htonl(from);
	if (from && bind(fd, (struct sockaddr *)&own, sizeof own) < 0)
		die("no address for %x: %s", from, strerror(errno));
	if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline int net_connect(const char *host, int port)
{
	return net_connect_from(0, host, port);
}

/* As many open files as the system allows this user. */
static inline void net_raise_files(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}
