#pragma once
#include <stdbool.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/jsontext.h"
#include "rpc/service.h"
/*
 * What the parts of the HTTP face share: http.c (paths), http_rpc.c (calls), http_reload.c, http_lua.c (what goes to the workers'
 * Lua), http_stats.c (/stats).
 *
 * Threads: control thread only.
 */
struct stats_method {
	struct stats_method *next;
	char name[96]; /* "scene.sceneHandler.echo" */
	struct rate rate;
	struct hist hist; /* filled while a report is made */
	uint64_t count, error[9];
};
/* Of a reload; it outlives the face, which a hand-over that comes to nothing opens anew. */
struct http_loaded {
	struct {
		struct luasrc *prepared; /* by all workers; NULL: nothing */
		char version[9], previous[9];
		uint64_t since_ms; /* wall clock: when version began to run */
	} lua;
	struct {
		const struct schema *prepared; /* by all workers; NULL: nothing */
		const struct schema *previous; /* what was used before service->schema; NULL: nothing */
		uint64_t since_ms;
	} messages;
	/* Whose reload is under way here: until then no step of another one is taken. by: "" is whoever gave no name. */
	struct {
		char by[20];
		uint64_t number, until_ms;
	} turn;
};
struct http_face {
	struct service *service;
	struct http_loaded *loaded; /* the service's */
	struct env_http *http;
	struct timer second;
	struct stats_method *methods;
	struct http_call *calls; /* that wait for their answer */
	unsigned pending;        /* calls, and requests that a worker is answering */
	unsigned reloading;
	struct profiling *profiling; /* http_lua.c; NULL: none */
	bool shut;
};

void http_not_allowed(struct env_http_request *r, const char *message); /* a message without quotes */
void http_json(struct env_http_request *r, int status, const struct buf *b);
void http_error(struct env_http_request *r, int err, enum effect effect, struct span message);
void http_refuse(struct env_http_request *r, int err, const char *message);
bool http_has_key(struct http_face *h, struct env_http_request *r);

void http_rpc(struct http_face *h, struct env_http_request *r);
void http_rpc_shut(struct http_face *h); /* ends the calls that wait */

void http_reload(struct http_face *h, struct env_http_request *r);
void http_reload_open(struct http_face *h);

/* http_lua.c: the service's own paths; an operator's line; a profile of all workers */
void http_hook(struct http_face *h, struct env_http_request *r);
void http_console(struct http_face *h, struct env_http_request *r);
void http_profile(struct http_face *h, struct env_http_request *r);
void http_profile_shut(struct http_face *h); /* the workers are about to go */

void http_slow(struct http_face *h, struct env_http_request *r);

void stats_start(struct http_face *h);
void stats_stop(struct http_face *h);
void stats_json(struct http_face *h, struct buf *out);
