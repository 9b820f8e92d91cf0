#include "rpc/route_etcd.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

/* ---- the configuration -------------------------------------------------------------------------------------------- */

static void prefix_read(const struct config *c, char out[ETCD_PREFIX_MAX])
{
	const char *prefix = config_string(c, "discovery.prefix", "/loquat");
	size_t n = strlen(prefix);

	while (n && prefix[n - 1] == '/')
		n--;
	snprintf(out, ETCD_PREFIX_MAX, "%.*s/%s/instances/", (int)n, prefix, config_string(c, "cluster", "loquat"));
}

static void saved_path(const char *var, const char *id, char out[ENV_PATH_MAX + 64])
{
	snprintf(out, ENV_PATH_MAX + 64, "%s/routes/%s.lua", var, id);
}

static int check(const struct config *c, char *error, size_t error_size)
{
	struct etcd_config e;

	return etcd_config_read(c, &e, error, error_size);
}

/* One that is damaged is no reason not to start: the rows of the cluster's file do as well until etcd answers. */
static int first(struct env *env, const char *var, const char *id, char *error, size_t error_size,
		 struct route_table **out)
{
	char path[ENV_PATH_MAX + 64];

	saved_path(var, id, path);
	return route_file_load(env, path, error, error_size, out) < 0 ? ERR_NOT_FOUND : 0;
}

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

const struct etcd_host *etcd_host_now(const struct etcd_source *s)
{
	return &s->config.host[s->host_now % s->config.hosts];
}

struct env_tls *etcd_tls_now(const struct etcd_source *s)
{
	return etcd_host_now(s)->tls ? s->o.tls : NULL;
}

struct etcd_headers etcd_headers(const struct etcd_source *s)
{
	return (struct etcd_headers){ { "Content-Type: application/json", "Grpc-Metadata-hasleader: true",
					*s->authorization ? s->authorization : NULL } };
}

int etcd_ask(struct etcd_source *s, const char *path, const struct buf *body, uint32_t timeout_ms,
	     void (*on_answer)(void *arg, const struct env_http_answer *a))
{
	const struct etcd_host *h = etcd_host_now(s);
	struct etcd_headers headers = etcd_headers(s);

	return env_https_call(s->o.loop->ev, etcd_tls_now(s), h->host, h->port, "POST", path, headers.line, body->data,
			      body->len, timeout_ms, on_answer, s);
}

/* Of a failed handshake env says more than its number does. */
static const char *why_failed(const struct env_http_answer *a, char text[128])
{
	if (a && a->err == 0)
		etcd_get_error(a->body, a->n, text);
	else if (a && a->err == ERR_DENIED)
		snprintf(text, 128, "%s", env_last_error());
	return *text ? text : err_text(a && a->err < 0 ? a->err : ERR_UNAVAILABLE);
}

/* A certificate may have been renewed meanwhile. */
static void tls_anew(struct etcd_source *s)
{
	char error[300];

	if (s->o.tls && env_tls_reload(s->o.tls, error, sizeof error) < 0)
		log_warn(s->o.log, "tls.refused", "of=discovery.tls why=%s", error);
}

void etcd_failed(struct etcd_source *s, const struct env_http_answer *a)
{
	const struct etcd_host *h = etcd_host_now(s);
	char text[128] = "";

	/* etcd says 400 when its users have changed, and when no token came; 403 then, if it takes who asks for the user
	 * that its own certificate names, which its gateway shows it */
	if (a && a->err == 0 && (a->status == 400 || a->status == 401 || (a->status == 403 && s->open)))
		login_forget(s);
	s->host_now++;
	if (s->connected)
		metric_set(s->connected, 0);
	if (s->away)
		return;
	s->away = true;
	log_warn(s->o.log, "etcd.away", "endpoint=%s:%u why=%s status=%d", h->host, h->port, why_failed(a, text),
		 a ? a->status : 0);
	if (a && a->err == ERR_DENIED)
		tls_anew(s);
}

void etcd_well(struct etcd_source *s)
{
	const struct etcd_host *h = etcd_host_now(s);

	if (s->connected)
		metric_set(s->connected, 1);
	if (s->away)
		log_info(s->o.log, "etcd.back", "endpoint=%s:%u", h->host, h->port);
	s->away = false;
}

uint32_t etcd_backoff(struct etcd_source *s, uint32_t *ms)
{
	uint32_t jitter, now = *ms ? *ms : ETCD_BACKOFF_MIN;

	env_random(s->o.loop->env, &jitter, sizeof jitter);
	*ms = now * 2 > ETCD_BACKOFF_MAX ? ETCD_BACKOFF_MAX : now * 2;
	return now / 2 + jitter % (now / 2 + 1);
}

/* ---- its life ---------------------------------------------------------------------------------------------------------- */

static void make_metrics(struct etcd_source *s)
{
	struct metrics *m = s->o.metrics;

	if (!m)
		return;
	s->connected = metric(m, s->o.worker, METRIC_GAUGE, "loquat_etcd_connected",
			      "1: etcd answers and its watch stands.", NULL, NULL);
	s->refused = route_source_refused(&s->o);
	s->lost = metric(m, s->o.worker, METRIC_COUNTER, "loquat_etcd_leases_lost_total",
			 "Leases of the own row that ended although it lives.", NULL, NULL);
}

/* Was this instance known to the others when it ran last? Then they know it still. */
static bool was_known(struct etcd_source *s)
{
	char path[ENV_PATH_MAX + 64], error[256];
	struct route_table *t;
	bool known = false;

	saved_path(s->o.var, s->o.id, path);
	if (route_file_load(s->o.loop->env, path, error, sizeof error, &t) == 0) {
		known = route_find(t, s->o.id) != NULL;
		route_unref(t);
	}
	return known;
}

static void warn_exposed(const struct etcd_source *s)
{
	const struct etcd_host *h = etcd_config_exposed(&s->config);

	if (h)
		log_warn(s->o.log, "etcd.exposed", "endpoint=%s:%u why=%s", h->host, h->port,
			 "the password goes to it without TLS");
}

static int etcd_open(const struct route_source_options *o, struct route_source **out)
{
	struct etcd_source *s = calloc(1, sizeof *s);
	char error[256];

	assert(s);
	s->base.kind = &route_etcd;
	s->o = *o;
	s->version = o->version;
	s->rows = route_rows_new();
	s->lease_s = (unsigned)config_int(o->config, "discovery.lease_s", 5);
	s->missing_s = (unsigned)config_int(o->config, "discovery.missing_s", 5);
	prefix_read(o->config, s->prefix);
	int err = etcd_config_read(o->config, &s->config, error, sizeof error);

	assert(err == 0); /* route_source_check has read them */
	warn_exposed(s);
	make_metrics(s);
	s->known = !o->own || was_known(s);
	own_init(s);
	login_init(s);
	*out = &s->base;
	look_start(s);
	return 0;
}

static void etcd_close(struct route_source *base)
{
	struct etcd_source *s = (struct etcd_source *)base;

	s->closed = true;
	look_close(s);
	login_close(s);
	loop_timer_stop(s->o.loop, &s->own);
}

static void etcd_free(struct route_source *base)
{
	struct etcd_source *s = (struct etcd_source *)base;

	route_rows_free(s->rows);
	route_unref(s->last);
	buf_release(&s->line);
	free(s);
}

static void to_json(const struct route_source *base, struct buf *out)
{
	const struct etcd_source *s = (const struct etcd_source *)base;
	const struct etcd_host *h = etcd_host_now(s);

	buf_addf(
		out,
		"{\"kind\":\"etcd\",\"endpoint\":\"%s:%u\",\"connected\":%s,\"revision\":%llu,\"registered\":%s,\"missing\":%zu}",
		h->host, h->port, s->linked && !s->away ? "true" : "false", (unsigned long long)s->revision,
		s->registered ? "true" : "false", route_rows_missing(s->rows));
}

/* ---- the own row ---------------------------------------------------------------------------------------------------------- */

static void enter(struct route_source *base)
{
	struct etcd_source *s = (struct etcd_source *)base;

	if (!s->o.own)
		return;
	s->entered = s->dirty = true;
	own_soon(s);
}

static void drain(struct route_source *base)
{
	struct etcd_source *s = (struct etcd_source *)base;

	s->state = ROUTE_DRAINING;
	s->dirty = true;
	own_soon(s);
}

static void leave(struct route_source *base)
{
	struct etcd_source *s = (struct etcd_source *)base;

	s->leaving = true;
	s->left = !s->entered;
	own_soon(s);
}

static bool left(const struct route_source *base)
{
	const struct etcd_source *s = (const struct etcd_source *)base;

	return !s->leaving || s->left;
}

static const char *not_ready(const struct route_source *base)
{
	const struct etcd_source *s = (const struct etcd_source *)base;

	if (*s->taken)
		return s->taken;
	return s->known ? NULL : s->away ? "not registered: etcd does not answer" : "not registered in etcd yet";
}

const struct route_source_kind route_etcd = {
	.name = "etcd",
	.check = check,
	.first = first,
	.open = etcd_open,
	.enter = enter,
	.drain = drain,
	.leave = leave,
	.left = left,
	.not_ready = not_ready,
	.to_json = to_json,
	.close = etcd_close,
	.free = etcd_free,
};
