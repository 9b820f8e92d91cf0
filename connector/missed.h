#pragma once
#include "connector/session.h"
#include "rpc/clientlate.h"
/*
 * missed: what is pushed to players whose connection is lost, kept as long as they may resume (session.grace_s) and fetched by
 * the connector where they do. A push that names what it supersedes takes the older one's place.
 *
 * Threads: owner worker only.
 * Bounds:  MISSED_BYTES for each player, MISSED_TOTAL for a worker: above it the client is told to reload. So it is when
 *          packets may have been lost with the connection itself: it fell silent, broke, or read too slowly.
 */
#define MISSED_BYTES (64u << 10)
#define MISSED_TOTAL (64u << 20)

/* The session's connection has ended: pushes to its number are kept from now on. */
void missed_keep(struct session *s);
/* false: nobody of that number is missed here. */
bool missed_push(struct edge *e, uint64_t sid, const struct clientconn_push *p);
/* connector.MissedAnswer as JSON: what was kept; it is forgotten here. */
void missed_take(struct edge *e, uint64_t sid, struct buf *json);
void missed_stop(struct edge *e);
/* For the hand-over: all who are missed here; list NULL: its client has to reload. And one who was missed at the process before. */
void missed_each(struct edge *e, void (*one)(void *arg, uint64_t sid, uint64_t left_ms, const struct clientlate *list),
		 void *arg);
void missed_came(struct edge *e, uint64_t sid, uint64_t left_ms, struct clientlate *list_take);

/* ---- a list of pushes */
/* How many bytes it holds more than before; perhaps less than 0. */
long missed_add(struct clientlate *l, const struct clientconn_push *p);
/* Sends them in their order; the list is empty then. */
void missed_deliver(struct clientlate *l, struct clientconn *c);
