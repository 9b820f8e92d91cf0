#include "rpc/service.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app.h"
#include "rpc/keys.h"
#include "rpc/http.h"
#include "rpc/messages.h"
#include "rpc/service_config.h"
#include "rpc/service_private.h"
#include "rpc/version.h"

/* ---- from the configuration to a struct service, before any thread ------------------------------------------- */

/* Relative paths start above the cluster file's folder: "deploy/cluster.lua" -> ".". */
static void root_of(const char *config_file, char out[ENV_PATH_MAX])
{
	const char *slash = strrchr(config_file, '/');

	if (!slash)
		snprintf(out, ENV_PATH_MAX, "..");
	else if (!memchr(config_file, '/', (size_t)(slash - config_file)))
		snprintf(out, ENV_PATH_MAX, ".");
	else
		snprintf(out, ENV_PATH_MAX, "%.*s/..", (int)(slash - config_file), config_file);
}

const char *service_path(const struct service *s, const char *relative, char out[ENV_PATH_MAX])
{
	int n;

	if (*relative == '/' || !strcmp(s->root, "."))
		n = snprintf(out, ENV_PATH_MAX, "%s", relative);
	else
		n = snprintf(out, ENV_PATH_MAX, "%s/%s", s->root, relative);
	assert(n < ENV_PATH_MAX); /* the schema bounds the parts */
	return out;
}

/* A configuration may stand anywhere; what it does not bring along is the installation's, which `loquat up` names. */
const char *service_part(const struct service *s, const char *relative, char out[ENV_PATH_MAX])
{
	const char *told = env_getenv(s->env, "LOQUAT_HOME");
	char home[ENV_PATH_MAX];

	service_path(s, relative, out);
	if (*relative == '/' || env_file_mtime_us(s->env, out) >= 0)
		return out;
	if (!told && !env_home(s->env, home))
		return out;
	int n = snprintf(out, ENV_PATH_MAX, "%s/%s", told ? told : home, relative);
	assert(n < ENV_PATH_MAX);
	return out;
}

const struct route_row *service_row(const struct service_def *def, const struct route_table *all,
				    const char *config_file, const char *instance, char *error, size_t size)
{
	const struct route_row *row = route_find(all, instance);

	if (row && !strcmp(row->service, def->name))
		return row;
	snprintf(error, size, "--instance %s: %s has no such instance of service %s", instance, config_file, def->name);
	return NULL;
}

static int find_row(struct service *s, const struct route_table *all, const char *instance, char *error, size_t size)
{
	const struct route_row *row = service_row(s->def, all, s->p->config_file, instance, error, size);
	struct route_row *own;

	if (!row)
		return ERR_CONFIG;
	own = malloc(sizeof *own);
	assert(own);
	*own = *row;
	s->row = own;
	s->workers = row->workers;
	snprintf(s->id, sizeof s->id, "%s", row->id);
	return 0;
}

static void find_database(struct service *s)
{
	const char *name = config_string(s->config, "database.socket", "");

	if (*name)
		service_path(s, name, s->p->database_socket);
	else
		snprintf(s->p->database_socket, sizeof s->p->database_socket, "%s/mariadb/mysqld.sock", s->var);
}

static int open_row(struct service *s, const char *instance, char *error, size_t size)
{
	struct route_table *all;
	int err = route_from_config(s->config, true, error, size, &all);

	if (err < 0)
		return err;
	err = find_row(s, all, instance, error, size);
	route_unref(all);
	return err;
}

static int open_keys(struct service *s, char *error, size_t size)
{
	char folder[ENV_PATH_MAX + 8];
	int err;

	snprintf(folder, sizeof folder, "%s/keys", s->var);
	err = key_load(s->env, folder, "cluster.key", s->cluster_key, error, size);
	if (err == 0)
		err = key_load(s->env, folder, "token.key", s->token_key, error, size);
	return err;
}

static int open_log(struct service *s, char *error, size_t size)
{
	const char *word = config_string(s->config, "log.level", "info");
	int level = log_level_parse(word);

	if (level < 0) {
		snprintf(error, size, "%s: log.level: expected debug, info, warn or error, found \"%s\"",
			 s->p->config_file, word);
		return ERR_CONFIG;
	}
	return log_open(s->env, s->id, NULL, (enum log_level)level, &s->log);
}

/* Whether changes wait for a copy on another host. */
static int wants_standby(const struct service *s, char *error, size_t size)
{
	const char *durable = config_string(s->config, "sqllog.durable", "synced");

	if (!strcmp(durable, "synced"))
		return 0;
	if (strcmp(durable, "replicated")) {
		snprintf(error, size, "%s: sqllog.durable: expected synced or replicated, found \"%s\"",
			 s->p->config_file, durable);
		return ERR_CONFIG;
	}
	if (*config_string(s->config, "sqllog.standby", ""))
		return 1;
	snprintf(error, size, "%s: sqllog.standby: expected a dbwriter on another host, found nothing",
		 s->p->config_file);
	return ERR_CONFIG;
}

static int open_sqllog(struct service *s, char *error, size_t size)
{
	char folder[ENV_PATH_MAX + 64];
	struct sqllog_options o = {
		.folder = folder,
		.file_bytes_max = (uint64_t)config_int(s->config, "sqllog.file_bytes_max", 64 << 20),
		.ring_bytes = (size_t)config_int(s->config, "sqllog.ring_bytes", 16 << 20),
		.linger_us = (uint32_t)config_int(s->config, "sqllog.linger_us", 1000),
		.workers = s->workers,
	};

	s->epoch = env_wall_us(s->env);
	if (!s->def->sqllog)
		return 0;
	snprintf(folder, sizeof folder, "%s/sqllog/%s", s->var, s->id);
	int err = wants_standby(s, error, size);

	if (err < 0)
		return err;
	o.replicated = s->p->replicated = err;
	err = sqllog_open(s->env, s->log, s->metrics, &o, error, size, &s->sqllog);

	if (err == 0)
		s->epoch = sqllog_epoch(s->sqllog);
	return err;
}

static int service_open(struct service *s, const struct service_options *o, char *error, size_t size)
{
	int err = service_config_load(s->env, o->config_file, s->def->name, s->def->config, error, size, &s->p->config);

	if (err < 0)
		return err;
	s->config = s->p->config;
	root_of(o->config_file, s->root);
	service_path(s, config_string(s->config, "paths.var", "var"), s->var);
	find_database(s);
	if ((err = open_row(s, o->instance, error, size)) < 0 || (err = open_keys(s, error, size)) < 0 ||
	    (err = tls_open(s, error, size)) < 0 || (err = messages_open(s, error, size)) < 0 ||
	    (err = open_log(s, error, size)) < 0)
		return err;
	s->metrics = metrics_new(s->id);
	metric_set(metric(s->metrics, SERVICE_CONTROL_WORKER, METRIC_GAUGE, "loquat_build_info", "The version.",
			  "service,version", (const char *const[]){ s->def->name, LOQUAT_VERSION }),
		   1);
	if ((err = open_sqllog(s, error, size)) < 0)
		return err;
	return routes_open(s, error, size);
}

/* ---- the public life -------------------------------------------------------------------------------------------- */

int service_start(struct env *env, const struct service_def *def, const struct service_options *o, char *error,
		  size_t error_size, struct service **out)
{
	struct service *s = calloc(1, sizeof *s);
	int err;

	assert(s);
	s->p = calloc(1, sizeof *s->p);
	assert(s->p);
	s->env = env;
	s->def = def;
	s->user = o->user;
	s->p->options = *o;
	s->p->started_ns = env_mono_ns(env);
	snprintf(s->p->config_file, sizeof s->p->config_file, "%s", o->config_file);
	err = service_open(s, o, error, error_size);
	if (err == 0)
		err = loop_start(env, "control", SERVICE_CONTROL_WORKER, life_start, NULL, s, &s->control);
	if (err < 0) {
		service_free(s);
		return err;
	}
	*out = s;
	return 0;
}

bool service_takes_over(const struct service *s)
{
	return s->p->options.take_over;
}

void service_stop(struct service *s)
{
	loop_call(s->control, life_stop_requested, s);
}

void service_free(struct service *s)
{
	if (!s)
		return;
	for (unsigned i = 0; s->worker && i < s->workers; i++)
		free(s->worker[i]);
	free(s->worker);
	sqllog_close(s->sqllog);
	rpc_client_free(s->p->control_worker.client);
	route_unref(s->p->control_worker.routes);
	route_source_free(s->p->source);
	moves_free(s->p->moves);
	route_unref(s->p->routes);
	luasrc_unref(s->lua_src);
	http_loaded_free(s);
	messages_close(s);
	env_tls_free(s->tls);
	env_tls_free(s->client_tls);
	env_tls_free(s->p->etcd_tls);
	log_close(s->log);
	metrics_free(s->metrics);
	config_free(s->p->config);
	free((void *)s->row);
	handover_free(s);
	free(s->p);
	free(s);
}

int service_lua(struct service *s, const char *folder)
{
	char error[512];
	const char *folders[] = { service_part(s, folder, s->p->lua_folder), NULL };
	int err = luasrc_read(s->env, folders, error, sizeof error, &s->lua_src);

	if (err < 0)
		service_fail(s, "%s", error);
	return err;
}

void service_fail(struct service *s, const char *fmt, ...)
{
	va_list args;

	if (atomic_exchange(&s->p->failed, true))
		return; /* the first reason is the one that counts */
	va_start(args, fmt);
	vsnprintf(s->p->failure, sizeof s->p->failure, fmt, args);
	va_end(args);
	loop_call(s->control, life_stop_requested, s);
}

const char *service_failure(const struct service *s)
{
	return atomic_load(&s->p->failed) ? s->p->failure : NULL;
}

struct each {
	void (*fn)(struct worker *w, void *arg);
	void *arg;
	struct worker *w;
};

static void each_run(void *arg)
{
	struct each *e = arg;

	e->fn(e->w, e->arg);
	free(e);
}

void service_each(struct service *s, void (*fn)(struct worker *w, void *arg), void *arg)
{
	for (unsigned i = 0; i < s->workers; i++) {
		if (!s->worker[i]->loop)
			continue; /* its thread did not start */
		struct each *e = malloc(sizeof *e);

		assert(e);
		*e = (struct each){ fn, arg, s->worker[i] };
		loop_call(s->worker[i]->loop, each_run, e);
	}
}

void service_database(struct service *s, struct env_db_options *out)
{
	const struct config *c = s->config;
	const char *host = config_string(c, "database.host", "");

	*out = (struct env_db_options){
		.socket = *host ? NULL : s->p->database_socket,
		.host = *host ? host : NULL,
		.port = (uint16_t)config_int(c, "database.port", 3306),
		.user = config_string(c, "database.user", "root"),
		.password = config_string(c, "database.password", ""),
		.database = config_string(c, "database.name", "loquat"),
	};
}
