#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/env.h"
/*
 * ping: the smallest service there is, on common/loop.h and common/stream.h. The same objects run on the
 * real environment (tests/system/ping.c) and in the simulation (tests/sim/ping.c).
 *
 * The client sends "ping SEQ BYTES\n" and BYTES bytes made from SEQ; the server answers the same with "pong".
 * A client has one ping under way; when none comes back in time, or the connection is lost, it connects anew.
 * Threads: start and stop from any thread but a loop of the same process; the counters may be read by any.
 */
struct ping_counts { /* the caller's */
	_Atomic uint64_t sent, answered, lost, connects;
	_Atomic uint64_t wrong; /* answers that are not what was sent */
};
struct ping_server;
struct ping_client;

int ping_server_start(struct env *env, const char *host, uint16_t port, struct ping_server **out);
uint16_t ping_server_port(const struct ping_server *s); /* 0: it does not listen yet; UINT16_MAX: it cannot */
void ping_server_stop(struct ping_server *s);

/* Pings every interval_ms with up to bytes_max bytes. */
int ping_client_start(struct env *env, const char *host, uint16_t port, uint32_t interval_ms, uint32_t bytes_max,
		      struct ping_counts *counts, struct ping_client **out);
void ping_client_stop(struct ping_client *c);
