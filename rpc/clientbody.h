#pragma once
#include "rpc/clientprotos.h"
/*
 * clientbody: the bodies of one connection, between what its client speaks and the JSON of everybody behind the edge; and
 * errors in the form that its family of clients expects.
 *
 *   classic clients   an error is an answer like others: {code, error, message, effect}
 *   pitaya's          flag bit 5, and {"code":"PIT-404","msg":…,"metadata":{"error":…,"effect":…}}, or protos.Error
 *
 * Threads: the connection's owner. Memory: a list of requests without an answer, for connections that speak protobuf: an
 * answer's type is known by its request.
 * Bounds:  CLIENTBODY_ASKED_MAX of them.
 */
#define CLIENTBODY_ASKED_MAX 4096
struct clientasked {
	uint32_t id;
	const struct clientproto *proto; /* NULL: no route of ours */
};
struct clientbody { /* zero it; the fields are the module's, payload and pitaya are set by the handshake */
	enum pomelo_payload payload;
	bool pitaya, surrogates;
	unsigned n, cap;
	struct clientasked *asked;
};
void clientbody_release(struct clientbody *b);

/* A request with this id and route has come and will be answered. ERR_FULL: too many without an answer. */
int clientbody_asked(struct clientbody *b, const struct clientprotos *p, uint32_t id, const char *route, size_t n);
/* Makes JSON of a request's body, in scratch if it is another. ERR_BAD_REQUEST: it is not what the route's type says. */
int clientbody_in(const struct clientbody *b, const struct clientprotos *p, struct pomelo_message *m,
		  struct buf *scratch);
/*
 * Makes a body for the client of the JSON answer to a request. *error: it is to be marked as one. May point into scratch.
 * ERR_BAD_REQUEST: the answer was not of its route's type; body is an error that says so.
 */
int clientbody_out(struct clientbody *b, uint32_t id, const char **body, size_t *n, bool *error, struct buf *scratch);
/* The same of a push; it does not depend on the connection but on payload and surrogates. */
int clientbody_push(enum pomelo_payload payload, bool surrogates, const struct clientprotos *p, const char *route,
		    size_t route_n, const char **body, size_t *n, struct buf *scratch);
