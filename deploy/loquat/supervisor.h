#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "deploy/loquat/child.h"
#include "deploy/loquat/usage.h"
#include "deploy/loquat/database.h"
#include "deploy/loquat/loquat.h"
#include "rpc/route_source.h"
/*
 * supervisor: the processes of this host, from the first to the last.
 *
 * Threads: everything is on its one loop.
 * Order:   the database, its schema, the route table, then all instances at once; when each is ready, the cluster is.
 *          Stopping goes the other way, stage by stage: gates, connectors, games, roles, the replay once it has
 *          caught up, the database.
 * Routes:  paths.var/routes.lua names the instances that run or are to run again; its version grows with each
 *          change. A draining instance is marked, a stopped or failed one is taken out. With discovery.kind = "etcd" the
 *          instances speak for themselves there, and we only look.
 */
enum phase { PHASE_STARTING, PHASE_READY, PHASE_STOPPING };
#define HISTORY 120 /* samples kept for the plots of the dashboard */

struct supervisor;
struct instance {
	struct child child;
	struct supervisor *up;
	const struct route_row *row;
	const char *argv[6];
	struct child next; /* upgrade.c: the process that takes this one's place; pid 0: none */
	const char *next_argv[7];
	char next_why[256]; /* why the last one did not */
	struct timer look;  /* the next question whether it is ready */
	unsigned silent;    /* questions in a row without an answer */
	bool starts;        /* its row does not say start = false */
	bool here;          /* on this host: supervised; else only a row of the route table */
	bool routed;        /* it stands in the route table */
	bool leaving;       /* drained there */
	uint64_t epoch;     /* of its start */
	char why[160];      /* why it is not ready, in its own words */
	/* reload.c: what passed it by, for it was not ready then; and what it is given now */
	enum {
		RELOAD_PASSED_NOT,
		RELOAD_PASSED_MESSAGES,
		RELOAD_PASSED_FILES,
		RELOAD_PASSED_BACK
	} passed_by,
		catching_up, then;      /* then: when it has gone BACK */
	char version[16], messages[16]; /* FILES, MESSAGES: that it is given, and no others; "": there are none */
	char back_version[16], back_messages[16]; /* BACK: from these */
	uint64_t later_ms;                        /* what it is to be given was not there: not before this */
	bool told;                                /* of that */
	json_t *stats;                            /* its last /stats; NULL: none yet */
	uint64_t heard_ms;                        /* when that came */
	bool unheard;                             /* it did not answer when it was asked last */
	uint64_t cpu_us;                          /* at the last sample, which was … */
	double sampled_s;                         /* … at this uptime of the instance */
	double cpu;                               /* cores, between the last two samples */
};
struct sample { /* of the whole cluster */
	double requests, errors, p99_us, lag, sessions;
};
struct supervisor {
	struct cluster *c;
	struct loop *loop;
	struct instance *instance;
	size_t instances;
	struct child db_child;
	struct database *db;
	bool db_ready;
	struct env_http *http;
	uint16_t http_port;
	int lock;
	enum phase phase;
	uint64_t version, started_ms;
	struct log *log;             /* of the route table's source */
	struct route_source *source; /* NULL: the table is the one we write */
	struct env_tls *etcd_tls;    /* of the source; NULL: none */
	struct route_table *table;   /* what it says: the rows of all hosts */
	/* stopping */
	int stage, status;
	bool asked, interrupted, waits; /* for the replay, as was said */
	uint64_t stage_until_ms, interrupted_ms;
	struct timer step, patience;
	/* screen */
	bool colour, shown;
	int width;
	struct buf held; /* lines that wait until the first screen is out */
	/* dashboard */
	struct usage db_usage;
	struct timer sampling;
	uint64_t watched_ms;
	struct sample history[HISTORY];
	unsigned samples;
	double errors; /* at the last sample */
	uint64_t sampled_ms;
	struct reload *reload;
	char name[17]; /* reload.c: what instances know us by; and our steps' order */
	uint64_t turn;
	struct watch *watches; /* of the services that were reloaded */
};

/* supervisor.c */
void supervisor_start(struct supervisor *up); /* on the loop, first */
void supervisor_stop(struct supervisor *up);  /* begins the ordered stop; again: nothing */
void supervisor_fail(struct supervisor *up, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The rows of the route table as it is now; out->row has room for up->instances. */
void supervisor_routes(const struct supervisor *up, struct route_table *out);
struct instance *supervisor_find(struct supervisor *up, const char *id);
int instance_start(struct instance *i, char *why,
		   size_t size); /* it runs: 0; ERR_BUSY: it still ends; ERR_DENIED: a port is taken */
/* Why one of another host is none of ours; ERR_DENIED */
int instance_elsewhere(const struct instance *i, char *why, size_t size);
int instance_stop(struct instance *i); /* ERR_NOT_FOUND: it does not run */
int instance_drain(struct instance *i);

/* upgrade.c: a new process with the old one's connections */
int instance_upgrade(struct instance *i, char *why, size_t size);
void upgrade_exited(struct instance *i, int status);              /* the new process has ended: it came to nothing */
bool upgrade_succeeds(struct instance *i, pid_t pid, int status); /* the old one has: the new one is the instance now */

/* stop.c: the ordered end */
void stop_begin(struct supervisor *up);
void stop_step(struct supervisor *up); /* after each change of a child */

/* screen.c */
void screen_line(struct supervisor *up, const char *id, size_t colour, const char *line);
void screen_first(struct supervisor *up);
void screen_say(struct supervisor *up, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* face.c: the supervisor's HTTP; collect.c: what the instances say */
int face_start(struct supervisor *up);
void face_stop(struct supervisor *up);
void face_json(struct env_http_request *r, int status, json_t *take);
void face_refuse(struct env_http_request *r, int err, const char *message);
/* Asks every ready instance for /stats; done(arg) when all have answered or a second has passed. */
void collect(struct supervisor *up, void (*done)(void *arg), void *arg);
/* How old its figures are, if it does not answer any more; 0: it does. Its rates, and how far it is behind, are not known then. */
double collect_silent_s(const struct instance *i);
/* All of them as one /stats; own_methods: each method as the service that it belongs to counts it. */
json_t *collect_sum(struct supervisor *up, bool own_methods);
void collect_start(struct supervisor *up);
void collect_watch(struct supervisor *up); /* somebody looks: sample each second for a while */
void collect_stop(struct supervisor *up);
/* slow.c: the slowest calls of all */
void slow_reply(struct supervisor *up, struct env_http_request *r);
/* face_rpc.c: /rpc/SERVICE/REMOTE/METHOD, as every process has it */
void face_rpc(struct supervisor *up, struct env_http_request *r);
/* loglevel.c */
void loglevel_post(struct supervisor *up, struct env_http_request *r);
/* reload.c */
void reload_begin(struct supervisor *up, const char *service, struct env_http_request *r);
void reload_versions(struct supervisor *up, struct env_http_request *r); /* who runs what, by the last /stats */
void watch_free(struct supervisor *up);                                  /* reload_watch.c; when the loop has ended */

/* ports.c */
struct holder {
	int pid; /* 0: not known */
	char name[64];
};
bool port_is_taken(const char *host, uint16_t port, struct holder *out); /* also when it may not be bound: errno */
bool host_is_here(const char *host);
