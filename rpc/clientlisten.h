#pragma once
#include <stdint.h>
#include "common/loop.h"
#include "rpc/balancer.h"
#include "rpc/frame.h"
#include "rpc/service.h"
/*
 * clientlisten: the port for players: accepts, counts per address, spreads connections over the workers.
 *
 * Threads: made and closed on the loop given, where it also accepts; clientlisten_add and _gone from any thread.
 * Memory:  close stops it; free when no thread can call it any more.
 * Bounds:  all_max open connections, per_address_max of one address, per_subnet_max of one subnet, connects_per_s new ones
 *          of an address in a second; more are closed at once, counted and logged. packets_per_s of all connections of an
 *          address together: clientlisten_packet. Counted as rpc/addrcount.h says.
 */
struct clientlisten;
struct clientlisten_options {
	struct loop *loop;
	struct log *log;
	struct metrics *metrics;
	const char *host;
	uint16_t port;    /* 0 takes a free one */
	bool later;       /* it does not listen yet: clientlisten_take brings the port of the process before it */
	unsigned all_max; /* 0: as many as descriptors allow, but for some that the process itself needs */
	unsigned per_address_max; /* this and the next two: but of balancers */
	unsigned
		per_subnet_max; /* of an IPv4 address' first three numbers, an IPv6 one's first four groups; 0: no bound */
	unsigned connects_per_s; /* of one address (IPv6: of one subnet); 0: no bound */
	unsigned packets_per_s;  /* of all connections of one address (IPv6: of one subnet); 0: no bound */
	struct env_tls *tls;     /* beside plain connections, told apart by the first byte; NULL: none */
	bool tls_required;
	const struct balancers *balancers; /* NULL: none */
	/* A connection for this worker, on its loop; it belongs to the callee. */
	void (*on_conn)(void *user, struct env_conn *conn, const char *addr);
};
/* ERR_EXISTS: another process has the port; ERR_IO */
int clientlisten_new(const struct clientlisten_options *o, struct clientlisten **out);
uint16_t clientlisten_port(const struct clientlisten *l);
/* From now on connections go to this worker's loop too; as long as there is none they are closed. */
void clientlisten_add(struct clientlisten *l, struct loop *loop, void *user);
/* The connection turns out to be another's (a balancer has said so). NULL, or why that one may not. It counts for addr either way. */
const char *clientlisten_moved(struct clientlisten *l, const char *from, const char *addr);
/* Handing over (rpc/handover.h): who connects waits in the kernel's queue; the port itself; a connection from before. */
void clientlisten_rest(struct clientlisten *l, bool rest);
const struct env_listener *clientlisten_listener(const struct clientlisten *l);
int clientlisten_take(struct clientlisten *l, struct env_passed *passed); /* swallows it on success */
void clientlisten_came(struct clientlisten *l, const char *addr);
/* Who has been accepted and is not with a worker yet, because TLS or a balancer's header may come first: rest holds them too. */
void clientlisten_guests(struct clientlisten *l,
			 void (*one)(void *arg, const struct env_conn *conn, struct span packed), void *arg);
void clientlisten_guest(struct clientlisten *l, struct env_conn *conn, struct span packed);
/* Where the packets of this address are counted; CLIENTLISTEN_NOWHERE: there is no bound, or it is a balancer's. */
#define CLIENTLISTEN_NOWHERE (-1)
int clientlisten_host(const struct clientlisten *l, const char *addr);
/* One more packet; host is not CLIENTLISTEN_NOWHERE. false: too many in this second. From any thread. */
bool clientlisten_packet(struct clientlisten *l, int host, uint64_t now_ms);
/* The connection with this address has been closed. */
void clientlisten_gone(struct clientlisten *l, const char *addr);
void clientlisten_close(struct clientlisten *l); /* accepts no more; twice is once; NULL is fine */
void clientlisten_free(struct clientlisten *l);  /* NULL is fine */
