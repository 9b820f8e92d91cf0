#pragma once
#include "common/config.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "rpc/route.h"
/*
 * route_source: where the route table comes from while a process runs: one interface, two sources (discovery.kind).
 *
 *   file  the supervisor's live file, paths.var/routes.lua, re-read whenever its folder changes (route_file.c)
 *   etcd  one key per instance below discovery.prefix, put by the instance itself under a lease and watched (route_etcd.c);
 *         the last good table is kept in paths.var/routes/INSTANCE.lua for a start while etcd is away
 *
 * A table or a row that does not check is refused with a line that names it, and what was there stays; so it does while the
 * source is away.
 *
 * Threads: the loop's, but route_source_first (before it) and route_source_free (after its end).
 */
struct route_source;
struct route_source_options {
	struct loop *loop;
	struct log *log;
	struct metrics *metrics; /* NULL: none */
	unsigned worker;         /* of the metrics */
	const struct config *config;
	const char *var;             /* paths.var, made a path */
	struct env_tls *tls;         /* for an etcd that wants it (etcd_tls_open); NULL: none */
	const char *id;              /* who asks */
	const struct route_row *own; /* the row it registers; NULL: it only looks */
	uint64_t epoch;              /* of that row */
	uint64_t version;            /* of the table it has: new ones have a higher one */
	void (*on_table)(void *arg, struct route_table *take);
	void *arg;
};
int route_source_check(const struct config *c, char *error,
		       size_t error_size); /* discovery.*: 0, or ERR_CONFIG and one line */
/* What may be known before the source has answered; error gets one line. */
int route_source_first(struct env *env, const struct config *config, const char *var, const char *id, char *error,
		       size_t error_size, struct route_table **out);
int route_source_open(const struct route_source_options *o, struct route_source **out);
void route_source_enter(struct route_source *s); /* the own row: ready */
void route_source_drain(struct route_source *s); /* draining */
void route_source_leave(struct route_source *s); /* taken out */
bool route_source_left(const struct route_source *s);
const char *route_source_not_ready(
	const struct route_source *s); /* why the own row is not known to others; NULL: it is */
void route_source_to_json(const struct route_source *s, struct buf *out); /* for /routes */
void route_source_close(struct route_source *s);                          /* no callback comes after it; NULL is fine */
void route_source_free(struct route_source *s);                           /* when the loop has ended; NULL is fine */

/* ---- for the two kinds ------------------------------------------------------------------------------------------- */
struct route_source_kind {
	const char *name;
	int (*check)(const struct config *c, char *error, size_t error_size);
	int (*first)(struct env *env, const char *var, const char *id, char *error, size_t error_size,
		     struct route_table **out); /* ERR_NOT_FOUND: nothing is known */
	int (*open)(const struct route_source_options *o, struct route_source **out);
	void (*enter)(struct route_source *s); /* these: NULL where somebody else speaks for the instance */
	void (*drain)(struct route_source *s);
	void (*leave)(struct route_source *s);
	bool (*left)(const struct route_source *s);
	const char *(*not_ready)(const struct route_source *s);
	void (*to_json)(const struct route_source *s, struct buf *out);
	void (*close)(struct route_source *s);
	void (*free)(struct route_source *s);
};
struct route_source {
	const struct route_source_kind *kind;
};
extern const struct route_source_kind route_file, route_etcd;
/* Counts what did not check; NULL without metrics. */
struct metric *route_source_refused(const struct route_source_options *o);
/* A live file. ERR_NOT_FOUND, ERR_CONFIG, … with one line. */
int route_file_load(struct env *env, const char *path, char *error, size_t error_size, struct route_table **out);
