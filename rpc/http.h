#pragma once
#include <stdbool.h>
#include "common/buf.h"
#include "common/err.h"
#include "rpc/frame.h"
/*
 * http: the HTTP face of every process, on the control thread: /healthz /readyz /metrics /stats /routes /rpc/… /admin/…
 * and a page for people at /.
 *
 * Calls by /rpc/SERVICE/REMOTE/METHOD need the cluster key (Authorization: Bearer …) unless the method says that it is not
 * inner, are made from this process to the key's owner and answered as JSON.
 *
 * Threads: control thread, but http_error_body.
 * Memory:  the face is http_face_stop's to free; what waits for a worker is answered or dropped by then.
 */
struct service;
struct http_face;
/* The one shape of errors, here and for clients: {"code", "error", "message", "effect"}, appended. Any thread. */
void http_error_body(struct buf *b, int err, enum effect effect, struct span message);
int http_face_start(struct service *s, struct http_face **out); /* ERR_EXISTS: the port is taken */
bool http_face_quiet(const struct http_face *h);                /* no request waits for a worker; NULL is fine */
/* The instance stops: calls that wait are answered unavailable, new ones refused; figures can still be read. NULL is fine. */
void http_face_shut(struct http_face *h);
void http_face_stop(struct http_face *h); /* NULL is fine; one that is started again knows what was reloaded */
void http_loaded_free(struct service *s); /* when no face will be started any more */
