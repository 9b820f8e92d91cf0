#pragma once
#include "common/env_sim_private.h"
/*
 * env_sim_net: what the simulation's sockets share with the pipes they are made of. Nobody else includes it.
 *
 * Threads: the simulation's one. Memory: the world's; a pipe goes when both its ends are closed.
 */

struct segment {
	uint64_t at, end; /* delivered at, up to this byte of the pipe */
	bool fin, reset;
};

struct pipe {
	struct obj obj;
	struct pipe *next, **prev; /* of the world */
	struct sim *w;
	uint64_t id;
	unsigned a, b;              /* the processes: from, to */
	struct env_conn *from, *to; /* NULL: closed */
	struct host *to_host, *from_host;
	char *ring;
	size_t cap;
	uint64_t written, delivered, read;
	struct segment *segs;
	size_t seg_first, seg_n, seg_cap; /* a ring too */
	uint64_t last_at;
	bool scheduled, fin_sent, fin_delivered, reset, writer_waits;
	bool drain; /* reset, but what was delivered before can still be read */
};

struct env_conn {
	struct owned owned;
	struct ready ready;
	struct obj obj;
	struct env *env;
	struct env_conn_ops ops;
	void *arg;
	struct pipe *in, *out;
	bool want_read, want_write, connecting;
	int connect_err;
	uint16_t port; /* connecting to */
	unsigned tries;
	struct host *peer_host;
	uint16_t peer_port;
};

struct env_listener {
	struct owned owned;
	struct ready ready;
	struct obj obj;
	struct env_listener *next;
	struct env *env;
	bool loopback;
	uint16_t port;
	void (*on_accept)(void *arg, struct env_conn *conn);
	void *arg;
	struct env_conn *queue[256];
	unsigned queue_first, queue_n;
};

#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

#define SYN_RETRY_NS 1000000000ull

struct pipe *pipe_new(struct sim *w, struct env_conn *from, struct env_conn *to);
/* Sends what was written up to end, by the link's chances; fin, reset: and then this. */
void pipe_segment(struct pipe *p, uint64_t end, bool fin, bool reset);
bool net_readable(const struct env_conn *c);
bool net_writable(const struct env_conn *c);
