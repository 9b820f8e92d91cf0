#pragma once
#include <stdbool.h>
#include "common/log.h"
#include "common/loop.h"
#include "rpc/balancer.h"
#include "rpc/frame.h"
/*
 * clientdoor: a connection's first bytes, on a port where TLS and plain come together or balancers speak for others: the
 * PROXY header is taken, TLS is begun where the next byte says so, and the connection goes on.
 *
 * Threads: the loop given; what is handed on is detached.
 * Bounds:  CLIENTDOOR_MS until the first byte, and for the whole header. Who opens many and says nothing is counted like
 *          any connection of its address.
 */
#define CLIENTDOOR_MS 5000
struct clientdoor;
struct clientdoor_options {
	struct loop *loop;
	struct log *log;
	struct env_tls *tls; /* NULL: none */
	bool tls_required;   /* but not of balancers */
	const struct balancers *balancers;
	/* It has come in; addr is whose it is, from the address it was given with. */
	void (*on_open)(void *arg, struct env_conn *conn, const char *from, const char *addr);
	void (*on_refused)(void *arg, const char *from); /* it has been closed; the reason is in the log */
	void *arg;
};
struct clientdoor *clientdoor_new(const struct clientdoor_options *o);
void clientdoor_free(struct clientdoor *d); /* closes who stands in it, without on_refused; NULL is fine */
/* Takes an accepted, detached connection; on_open or on_refused comes later. */
void clientdoor_take(struct clientdoor *d, struct env_conn *conn, const char *addr);
/*
 * Handing over to another process: hold: nothing is read from who stands in it. each: all of them, with what is known of
 * each. came: one who stood in the process before, whose connection is accepted and detached; addr is whose it was given for.
 */
void clientdoor_hold(struct clientdoor *d, bool hold);
void clientdoor_each(struct clientdoor *d, void (*one)(void *arg, const struct env_conn *conn, struct span packed),
		     void *arg);
void clientdoor_came(struct clientdoor *d, struct env_conn *conn, const char *addr, struct span packed);
