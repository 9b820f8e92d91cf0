#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/msg.h"
#include "rpc/pomelo.h"
/*
 * clientprotos: what clients can be told of our routes, made from the .proto files: the types of each handler's request
 * and answer and of each push (option push), as pomelo's JSON schema for the handshake; and the dictionary of routes.
 *
 * A route stands in the schema where pomelo's dialect has a form for its type (clientpb_pomelo_takes); the rest is JSON.
 *
 * Threads: made before start-up ends, then read by any. Memory: refers to the schema, which must live longer.
 */
struct clientproto {
	const char *route;
	const struct msg_type *in, *out; /* of a push: out alone */
	bool pomelo_in, pomelo_out;
};
struct clientprotos;
struct clientprotos *clientprotos_new(const struct schema *schema);
void clientprotos_free(struct clientprotos *p); /* NULL is fine */
const struct clientproto *clientprotos_find(const struct clientprotos *p, const char *route, size_t n); /* NULL: none */
/* {"client":{…},"server":{…},"version":…} for sys.protos. */
const char *clientprotos_json(const struct clientprotos *p, size_t *n);
const char *clientprotos_version(
	const struct clientprotos *p); /* of what the schema says: equal schemas, equal versions */
bool clientprotos_same(const struct clientprotos *a, const struct clientprotos *b); /* that version; NULL: none */
/*
 * The dictionary: first the routes given, in their order, then all handlers and pushes that are not among them, by name.
 * ERR_BAD_REQUEST as pomelo_dict_new.
 */
int clientprotos_dict(const struct clientprotos *p, const char *const *first, size_t n, struct pomelo_dict **out);
