#pragma once
#include "connector/session.h"
/*
 * forward: a client's requests on their way to the services, and the answers back.
 *
 * Threads: owner worker only.
 * Order:   requests leave in the order they came, at once; each service instance runs a session's one after the
 *          other. While enter, resume or the enter of a group that goes by an attribute is under way, requests it may
 *          concern wait, at most SESSION_HELD_MAX, then busy.
 */
/* clientconn_ops.on_message of the connector. */
void forward_message(struct clientconn *c, const struct pomelo_message *m);
/* Runs the requests that no longer have to wait. */
void forward_held(struct session *s);
/* The session has ended: calls under way go on, their answers go nowhere; what waited is dropped. */
/* Another process takes the session: what is still under way is answered here, its outcome unknown. */
void forward_give_up(struct session *s);
void forward_cut(struct session *s);
void forward_idle_free(struct edge *e);
/* One request of a client has been answered: for /stats. m NULL: a route that is none. */
void forward_note(struct edge *e, struct edge_method *m, int err, uint64_t start_ns);
