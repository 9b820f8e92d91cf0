#pragma once
/*
 * http: the HTTP face of every process, on the control thread: /healthz /readyz /metrics /stats /routes /rpc/… /admin/…
 * and a page for people at /.
 *
 * Calls by /rpc/SERVICE/REMOTE/METHOD need the cluster key (Authorization: Bearer …), are made from this process to the
 * key's owner and answered as JSON.
 */
struct service;
struct http_face;
int http_face_start(struct service *s, struct http_face **out); /* ERR_EXISTS: the port is taken */
void http_face_stop(struct http_face *h);                       /* NULL is fine */
