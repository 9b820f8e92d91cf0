#include "tests/support/proxy.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS_MAX = 64, LOOK_MS = 50, CHUNK = 16384 };

struct pair {
	int side[2];  /* the client's, the server's */
	int64_t left; /* bytes until it is cut */
};

struct proxy {
	pthread_t thread;
	int listener;
	uint16_t target;
	uint64_t bytes_max, random;
	_Atomic unsigned cuts;
	_Atomic int ending;
	struct pair pair[PAIRS_MAX];
	unsigned pairs;
};

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static uint64_t draw(struct proxy *p)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 7;
	p->random ^= p->random << 17;
	return p->random;
}

static struct sockaddr_in local(uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons(port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* A reset, as a broken network gives it: what is under way is lost. */
static void reset(int fd)
{
	struct linger now = { 1, 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

static void pair_drop(struct proxy *p, unsigned i)
{
	reset(p->pair[i].side[0]);
	reset(p->pair[i].side[1]);
	p->pair[i] = p->pair[--p->pairs];
}

static void take(struct proxy *p)
{
	struct sockaddr_in address = local(p->target);
	int client = accept(p->listener, NULL, NULL), one = 1;
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (client < 0 || server < 0)
		die("proxy");
	if (p->pairs == PAIRS_MAX || connect(server, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(server); /* the server is away */
		close(client);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	struct pair *x = &p->pair[p->pairs++];

	*x = (struct pair){ .side = { client, server }, .left = INT64_MAX };
	if (p->bytes_max)
		x->left = (int64_t)(p->bytes_max / 8 + draw(p) % (p->bytes_max - p->bytes_max / 8));
}

/* One read from a side, written to the other. False: the pair is at its end. A peer that is stopped takes nothing: it waits. */
static int relay(struct proxy *p, struct pair *x, unsigned from)
{
	static _Thread_local char bytes[CHUNK];
	ssize_t n = recv(x->side[from], bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return 1;
	if (n <= 0)
		return 0;
	int is_cut = n >= x->left;

	if (is_cut)
		n = x->left;
	x->left -= n;
	for (ssize_t at = 0; at < n;) {
		ssize_t m = send(x->side[!from], bytes + at, (size_t)(n - at), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (m < 0 && errno == EAGAIN)
			poll(&(struct pollfd){ x->side[!from], POLLOUT, 0 }, 1, LOOK_MS);
		else if (m < 0)
			return 0;
		at += m > 0 ? m : 0;
		if (p->ending)
			return 0;
	}
	p->cuts += (unsigned)is_cut;
	return !is_cut;
}

static void *run(void *arg)
{
	struct proxy *p = arg;

	while (!p->ending) {
		struct pollfd look[1 + 2 * PAIRS_MAX] = { { p->listener, POLLIN, 0 } };
		unsigned pairs = p->pairs;

		for (unsigned i = 0; i < pairs; i++) {
			look[1 + 2 * i] = (struct pollfd){ p->pair[i].side[0], POLLIN, 0 };
			look[2 + 2 * i] = (struct pollfd){ p->pair[i].side[1], POLLIN, 0 };
		}
		if (poll(look, 1 + 2 * pairs, LOOK_MS) <= 0)
			continue;
		for (unsigned i = pairs; i-- > 0;) {
			int ok = !look[1 + 2 * i].revents || relay(p, &p->pair[i], 0);

			if (!ok || (look[2 + 2 * i].revents && !relay(p, &p->pair[i], 1)))
				pair_drop(p, i);
		}
		if (look[0].revents)
			take(p);
	}
	while (p->pairs)
		pair_drop(p, 0);
	return NULL;
}

struct proxy *proxy_new(uint16_t listen_port, uint16_t target, uint64_t bytes_max, uint64_t seed)
{
	struct proxy *p = calloc(1, sizeof(*p));
	struct sockaddr_in address = local(listen_port);
	int one = 1;

	if (!p)
		die("proxy");
	p->target = target;
	p->bytes_max = bytes_max;
	p->random = seed * 0x9e3779b97f4a7c15u + 1;
	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(p->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(p->listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(p->listener, 64) < 0)
		die("proxy: listen");
	if (pthread_create(&p->thread, NULL, run, p) != 0)
		die("proxy: thread");
	return p;
}

unsigned proxy_cuts(const struct proxy *p)
{
	return p->cuts;
}

void proxy_free(struct proxy *p)
{
	if (!p)
		return;
	p->ending = 1;
	pthread_join(p->thread, NULL);
	close(p->listener);
	free(p);
}
