#pragma once
#include "connector/session.h"
/*
 * announce: when an instance of role or chat has started anew, tells it which players are here.
 *
 * Threads: owner worker only. It sets the worker's on_peer.
 */
void announce_watch(struct edge *e);
/* One that enters: the instances of role have changed since its owner was asked (edge.rings). */
void announce_late(struct edge *e, const struct session *s);
/* The sessions of the process before this one are here: who has started anew since it looked last is told. */
void announce_taken(struct edge *e);
void announce_stop(struct edge *e);
