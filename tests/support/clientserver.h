#pragma once
#include "rpc/clientconn.h"
#include "rpc/clientlisten.h"
#include "tests/support/flag.h"
/*
 * clientserver: a port for players (clientlisten) and the connections behind it (clientconn), on a worker of its own.
 *
 * Threads: the test's own; ops.on_message runs on the worker.
 * Memory:  embed it; between clientserver_init and _open the test changes face, o and ops as it wants them. What it put
 *          into them is its own, and may go after clientserver_release.
 */
struct clientserver {
	struct env *env;
	struct loop *loop;
	struct log *log; /* to nowhere */
	struct metrics *metrics;
	struct clientconn_ops ops; /* on_message is the test's */
	struct clientconn_face face;
	struct clientlisten_options o;
	struct clientlisten *listen;
	uint16_t port;
	struct clientconn *last;  /* that came, unless it has ended; the worker's */
	struct flag ended, freed; /* connections */
};
/* Generous limits, JSON alone, no TLS and no balancers. */
void clientserver_init(struct clientserver *s,
		       void (*on_message)(struct clientconn *c, const struct pomelo_message *m));
void clientserver_open(struct clientserver *s);
/* The port and all connections are closed; it may be opened anew. */
void clientserver_shut(struct clientserver *s);
void clientserver_release(struct clientserver *s); /* shut or not */
