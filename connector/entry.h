#pragma once
#include "connector/session.h"
/*
 * entry: the routes connector.entryHandler.*, which the connector answers itself.
 *
 * Threads: owner worker only.
 */
/* enter, resume or echo; id 0 is a notify and gets no answer. */
void entry_request(struct session *s, struct edge_method *m, uint32_t id, const char *body, size_t n);
/* Takes a push to a session that is being resumed: it comes after those it has missed. false: it may be sent. */
bool entry_holds(struct session *s, const struct clientconn_push *p);
/* The session has ended while its login was under way. */
void entry_cut(struct session *s);
/* The worker ends: forgets all logins under way. */
void entry_stop(struct edge *e);
/* A session that was in has ended: tells the uid's owner and the chat. */
void entry_leave(struct session *s);
/* Appends chat.AddRequest as JSON. */
void entry_chat_body(struct buf *b, struct edge *e, const char *uid, uint64_t sid, const char *name, const char *rid);
