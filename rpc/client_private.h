#pragma once
#include "rpc/peer.h"
/*
 * What client.c (calls, their ends, the client as a whole) and client_moved.c (calls whose key moves) share. Private to them.
 *
 * Threads: owner worker only.
 */
static inline bool pending_is_repeatable(const struct pending *p)
{
	return p->method->kind != MSG_PLAIN;
}

/* client.c: the end of a call; now, or at the end of the turn, since its caller may still be inside rpc_call */
void pending_error(struct rpc_client *c, struct pending *p, int err, enum effect effect, const char *message);
void pending_refuse(struct pending *p, const char *message);
void pending_send(struct peer *peer, struct pending *p, const struct rpc_call *call);
bool peer_has_room(const struct peer *peer, const struct rpc_call *call);
bool peer_is_held(const struct peer *peer, const struct pending *p);

/* client_moved.c */
void client_moved(struct rpc_client *c, struct pending *p, const struct frame_response *r); /* it was answered so */
void client_moved_go(struct rpc_client *c, bool all); /* who is due, or all, asks again */
void client_on_moved(struct timer *t, uint64_t now_ms);
