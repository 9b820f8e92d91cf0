#pragma once
#include <stdbool.h>
#include <stddef.h>
/*
 * auth: the proof that the other end of an inner connection knows the cluster key: HMAC-SHA256 over the role, both
 * nonces and both names, so that a proof is good for one connection and one direction only.
 *
 * Threads: any.
 */
#define AUTH_NONCE 16
#define AUTH_PROOF 32
struct auth_names {
	const char *client, *server; /* instances */
	const unsigned char *client_nonce, *server_nonce;
};
/* role is "client" or "server". */
void auth_prove(const char *key, const char *role, const struct auth_names *n, unsigned char proof[AUTH_PROOF]);
bool auth_check(const char *key, const char *role, const struct auth_names *n, const void *proof,
		size_t size); /* constant time */
