#pragma once
#include <stdarg.h>
#include "rpc/handover.h"
#include "rpc/http.h"
#include "rpc/moves.h"
#include "rpc/peer.h"
#include "rpc/route_source.h"
#include "rpc/server.h"
#include "rpc/service.h"
#include "rpc/standby.h"
/*
 * The frame's own part of a service: what service.c, service_life.c and http.c share. Private to rpc/.
 *
 * Threads: control thread, except what is marked atomic.
 */
#define SERVICE_TLS 2 /* inner links; the players' port */
struct service_private {
	struct config *config;     /* the owner of service.config */
	struct messages *messages; /* the owner of service.schema */
	struct service_options options;
	struct acceptor *acceptor;
	struct http_face *http;
	struct http_loaded *http_loaded; /* http_reload.c */
	struct handover *handover;       /* NULL: none was thought of */
	struct worker control_worker;    /* makes the calls that come by HTTP */
	struct route_source *source;     /* of the route table */
	struct env_tls *etcd_tls;        /* for it; NULL: none */
	struct moves *moves;             /* of keys; NULL: its keys do not move */
	struct standby *standby;         /* copies the SQL log to another host; NULL: it does not */
	bool replicated;                 /* it is to */
	struct timer life_timer;         /* looks whether draining, then closing, has come to its end */
	struct timer lua_watch;          /* looks whether a worker's Lua holds its thread too long */
	uint64_t until_ms;
	unsigned workers_up, workers_said, workers_down;
	bool stopping, reg_done;
	bool begun; /* init_service has been called */
	bool asked; /* the workers' Lua runs its stop_service */
	bool shut;  /* nothing new is taken any more */
	_Atomic bool failed;
	char failure[512];
	struct route_table *routes;               /* the newest */
	struct env_watch *tls_watch[SERVICE_TLS]; /* of the certificates' folders */
	struct timer tls_look;                    /* whether they end soon */
	uint64_t started_ns;
	char config_file[ENV_PATH_MAX];
	char database_socket[ENV_PATH_MAX + 32];
	char lua_folder[ENV_PATH_MAX]; /* where a reload reads */
};

/* service.c: the instance's row; NULL: error names what there is not */
const struct route_row *service_row(const struct service_def *def, const struct route_table *all,
				    const char *config_file, const char *instance, char *error, size_t size);
/* service_life.c: the order of start and stop, on the control thread */
void life_start(struct loop *control, void *arg);
void life_stop_requested(void *arg); /* by signal, admin or failure */
void life_drain(struct service *s);  /* begins draining; stops when done */
void life_leave(struct service *s);  /* what it held is another process': it ends, and nobody is told */
/* service_tls.c: the certificates of inner links and of the players' port, read anew when their folder changes */
int tls_open(struct service *s, char *error, size_t error_size);
void tls_watch(struct service *s);
void tls_unwatch(struct service *s);
/* service_routes.c */
int routes_open(struct service *s, char *error, size_t error_size);
int routes_watch(struct service *s);
