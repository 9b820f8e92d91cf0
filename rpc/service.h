#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/config.h"
#include "common/env.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/luasrc.h"
#include "common/metrics.h"
#include "common/msg.h"
#include "common/sqllog.h"
#include "rpc/route.h"
#include "rpc/rpc.h"
/*
 * service: what every process of Loquat is: one instance of one service.
 *
 * A service is a struct service_def. main.c hands it to service_main; the simulation to service_start, ten of
 * them in one process. The order of a life: the configuration is checked, logger, metrics and SQL log start;
 * init_service on the control thread; worker_start on each worker, then its Lua is loaded; reg_service lets requests in
 * and the instance is ready. SIGTERM or an admin's drain: draining (readyz 503, peers are told, worker_drain, what is
 * under way finishes, bounded by rpc.drain_s), stop_service, worker_stop on each worker, free_service, the log is
 * flushed, the process ends with 0.
 *
 * Threads: init_service, stop_service, free_service: the control thread. worker_*: that worker's thread. struct service's fields
 *          are constant after start unless marked.
 */
struct service;
#define SERVICE_CONTROL_WORKER 255u /* index of the control thread's worker: it only makes calls */
#define SERVICE_WORKERS_MAX    64u
struct worker {
	struct service *service;
	struct loop *loop;
	unsigned index;
	struct rpc_client *client;
	struct rpc_server *server;
	struct app *app;             /* the Lua side, rpc/app.h; NULL in services without Lua */
	struct slow *slow;           /* the slowest calls it answered lately, rpc/slow.h */
	void *user;                  /* the service's own */
	_Atomic uint32_t busy;       /* the service's own: what has to end before a drained instance stops (sessions) */
	struct route_table *routes;  /* this worker's reference */
	const struct schema *schema; /* the messages it goes by (rpc/messages.h) */
	uint64_t turn;               /* of its ring: rpc/moves.h */
	void (*on_routes)(struct worker *w); /* the service's hook: the table changed; may be NULL */
	void (*on_peer)(struct worker *w, const char *instance, uint64_t epoch,
			bool up); /* a remote instance came or went; may be NULL */
};

/* A library of the service's own for its scripts; open pushes one value, as luahost_library wants it. */
struct lua_State;
struct handover_def;
struct service_library {
	const char *name;
	int (*open)(struct lua_State *L);
};

struct service_def {
	const char *name;
	const struct config_row *config; /* the service's own keys, under "NAME."; NULL: none */
	bool sqllog;                     /* it writes an SQL log */
	bool keys_move; /* and what is recorded belongs to keys, each of which one instance answers for: rpc/moves.h */
	int (*init_service)(struct service *s); /* negative: start-up fails; all may be NULL */
	void (*stop_service)(struct service *s);
	/* Frees what init_service made, also where that failed half-way; the workers' threads have ended. */
	void (*free_service)(struct service *s);
	int (*worker_start)(struct worker *w);
	void (*worker_drain)(struct worker *w);
	void (*worker_stop)(struct worker *w);
	/* Adds the service's own members to /stats ("\"replay\":{…}") and reasons to /readyz; control thread. */
	void (*stats)(struct service *s, struct buf *json);
	const char *(*not_ready)(struct service *s); /* NULL: ready; else the reason */
	const struct service_library *libraries;     /* ends with name NULL; NULL: none */
	const struct handover_def *handover; /* rpc/handover.h; NULL: it cannot be replaced with its connections */
	/* Other messages are about to be used (rpc/messages.h): makes what they need, beside what is used; may come again. error
	 * is one line. */
	int (*messages_prepare)(struct worker *w, const struct schema *next, char *error, size_t size);
	void (*messages_taken)(struct worker *w); /* and now are: worker->schema; prepared before */
};

enum service_state { SERVICE_STARTING, SERVICE_READY, SERVICE_DRAINING, SERVICE_STOPPED };
struct service {
	const struct service_def *def;
	struct env *env;
	const struct config *config;
	const struct route_row *row; /* its own */
	char id[32];
	char root[ENV_PATH_MAX]; /* relative paths of the configuration start here */
	char var[ENV_PATH_MAX];  /* paths.var, absolute or from the working folder */
	char cluster_key[65], token_key[65];
	uint64_t epoch;             /* of this start: from the SQL log, else wall-clock µs */
	struct env_tls *tls;        /* of inner links; NULL: plain */
	struct env_tls *client_tls; /* of the players' port; NULL: none */
	struct log *log;
	struct metrics *metrics;
	const struct schema *schema; /* the control thread's: the messages it goes by; a worker has its own */
	struct sqllog *sqllog;       /* NULL unless def->sqllog */
	struct loop *control;
	struct worker **worker;
	unsigned workers;
	struct luasrc *lua_src;          /* its logic, read once for all workers; NULL: none */
	_Atomic int state;               /* enum service_state */
	_Atomic unsigned databases_away; /* workers that want to read from the database and cannot */
	void *user;                      /* the service's own */
	struct service_private *p;
};

/* The command line of every service: --config FILE --instance ID --check --help --version. Returns the exit status. */
int service_main(int argc, char **argv, const struct service_def *def);

/*
 * Starts one instance in this process (the simulation and tests call it directly). error gets one line.
 * on_stopped(arg) comes on the control thread when everything has ended.
 */
struct service_options {
	const char *config_file, *instance;
	bool take_over; /* of the process that is this instance now */
	void (*on_stopped)(void *arg, struct service *s);
	void *arg;
	void *user; /* becomes the service's user */
};
int service_start(struct env *env, const struct service_def *def, const struct service_options *o, char *error,
		  size_t error_size, struct service **out);
bool service_takes_over(const struct service *s); /* it takes the place of a running process: rpc/handover.h */
void service_stop(struct service *s);             /* any thread: drains, then stops */
void service_free(struct service *s);             /* after on_stopped */

/* The service factory of the seed: joins the routing (requests are let in); called by the frame when all workers stand. */
int reg_service(struct service *s);
/* For init_service: the service's logic is Lua in this folder (below root); handlers and remotes are registered from it. */
int service_lua(struct service *s, const char *folder);
/* Start-up cannot go on: the reason is printed, everything stops, exit status 2. Any thread, before the instance is ready. */
void service_fail(struct service *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *service_failure(const struct service *s); /* NULL: none */
/* fn(arg) on every worker's thread. */
void service_each(struct service *s, void (*fn)(struct worker *w, void *arg), void *arg);

/* How to reach the database by the configuration; the texts live as long as the service. */
void service_database(struct service *s, struct env_db_options *out);
const char *service_path(const struct service *s, const char *relative, char out[ENV_PATH_MAX]);
/*
 * A part of the installation ("chat/lua"): below root; when it is not there, below the environment's LOQUAT_HOME, and
 * without that below the folder that holds this program's build/bin.
 */
const char *service_part(const struct service *s, const char *relative, char out[ENV_PATH_MAX]);
