#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "common/env.h"
/*
 * balancer: for whom a trusted balancer speaks: PROXY protocol v2 before a connection's first byte, X-Forwarded-For in
 * its HTTP request. Pure: bytes in, addresses out.
 *
 * Threads: made before start-up ends, then read by any.
 * Addresses are texts as env_conn_peer gives them: "10.0.0.1:4711", "[::1]:4711".
 */
struct balancers;
/* Texts are addresses or subnets: "10.0.0.1", "10.1.0.0/16", "fd00::/8". ERR_BAD_REQUEST: *wrong is the place of one that is none. */
int balancers_new(const char *const *texts, size_t n, struct balancers **out, size_t *wrong);
void balancers_free(struct balancers *b);                          /* NULL is fine */
bool balancers_trust(const struct balancers *b, const char *addr); /* NULL trusts nobody */

#define BALANCER_HEADER_MAX 536  /* longer ones are refused; the addresses need 52, the rest is for what we skip */
#define BALANCER_FIRST      '\r' /* the byte every header begins with, and no client */
/*
 * Reads a PROXY protocol v2 header at the front of data. > 0: its bytes; addr is the player's, or "" if it names none (the
 * balancer looks whether we live). ERR_INCOMPLETE; ERR_BAD_REQUEST: no such header.
 */
ssize_t balancer_header(const void *data, size_t n, char addr[ENV_ADDR_MAX]);
/*
 * The player's address from X-Forwarded-For: the last one that is no balancer of ours, for what stands before it anybody may
 * have written. false: none.
 */
bool balancer_forwarded(const struct balancers *b, const char *header, size_t n, char addr[ENV_ADDR_MAX]);
