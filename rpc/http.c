#include "rpc/http.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/token.h"
#include "rpc/app.h"
#include "rpc/http_private.h"
#include "rpc/service_private.h"
#include "rpc/version.h"

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static void reply_text(struct env_http_request *r, int status, const char *text)
{
	env_http_reply(r, status, "text/plain; charset=utf-8", NULL, text, strlen(text));
}

void http_json(struct env_http_request *r, int status, const struct buf *b)
{
	env_http_reply(r, status, "application/json", NULL, b->data, b->len);
}

void http_error_body(struct buf *b, int err, enum effect effect, struct span message)
{
	int shown = err_public(err);

	buf_addf(b, "{\"code\":%d,\"error\":\"%s\",\"message\":", err_http(shown), err_word(shown));
	jsontext_quote(b, message.p ? message.p : "", message.n);
	buf_addf(b, ",\"effect\":\"%s\"}\n", effect_word(effect));
}

void http_error(struct env_http_request *r, int err, enum effect effect, struct span message)
{
	struct buf b = BUF_INIT;

	http_error_body(&b, err, effect, message);
	http_json(r, err_http(err_public(err)), &b);
	buf_release(&b);
}

/* 405 is HTTP's own: of the errors there are it is a bad request. */
void http_not_allowed(struct env_http_request *r, const char *message)
{
	struct buf b = BUF_INIT;

	buf_addf(&b, "{\"code\":405,\"error\":\"bad_request\",\"message\":\"%s\",\"effect\":\"none\"}\n", message);
	http_json(r, 405, &b);
	buf_release(&b);
}

void http_refuse(struct env_http_request *r, int err, const char *message)
{
	http_error(r, err, EFFECT_NONE, span_of(message, strlen(message)));
}

bool http_has_key(struct http_face *h, struct env_http_request *r)
{
	const char *given = env_http_header(r, "Authorization"), *key = h->service->cluster_key;

	return given && !strncmp(given, "Bearer ", 7) && token_equal(given + 7, strlen(given + 7), key, strlen(key));
}

/* ---- what is there to look at --------------------------------------------------------------------------------------- */

static void get_healthz(struct http_face *h, struct env_http_request *r)
{
	(void)h;
	reply_text(r, 200, "ok\n");
}

static void get_readyz(struct http_face *h, struct env_http_request *r)
{
	struct service *s = h->service;
	int state = atomic_load(&s->state);
	const char *why = NULL;

	if (state == SERVICE_STARTING)
		why = "starting";
	else if (state != SERVICE_READY)
		why = "draining";
	else if (s->sqllog && sqllog_failing(s->sqllog))
		why = "the SQL log cannot be written";
	else if (standby_away(s->p->standby))
		why = "the standby is away";
	else if (atomic_load(&s->databases_away))
		why = "the database is away";
	else if (s->def->not_ready)
		why = s->def->not_ready(s);
	if (!why && state == SERVICE_READY)
		why = moves_not_ready(s->p->moves);
	if (!why && state == SERVICE_READY)
		why = route_source_not_ready(s->p->source);
	if (!why) {
		reply_text(r, 200, "ok\n");
		return;
	}
	struct buf b = BUF_INIT;

	buf_addf(&b, "%s\n", why);
	env_http_reply(r, 503, "text/plain; charset=utf-8", NULL, b.data, b.len);
	buf_release(&b);
}

static void get_metrics(struct http_face *h, struct env_http_request *r)
{
	struct buf b = BUF_INIT;

	metrics_prometheus(h->service->metrics, &b);
	env_http_reply(r, 200, "text/plain; version=0.0.4", NULL, b.data, b.len);
	buf_release(&b);
}

static void get_stats(struct http_face *h, struct env_http_request *r)
{
	struct buf b = BUF_INIT;

	stats_json(h, &b);
	http_json(r, 200, &b);
	buf_release(&b);
}

static void get_routes(struct http_face *h, struct env_http_request *r)
{
	struct buf b = BUF_INIT, source = BUF_INIT;

	route_source_to_json(h->service->p->source, &source);
	route_to_json(h->service->p->routes, buf_cstr(&source), &b);
	http_json(r, 200, &b);
	buf_release(&source);
	buf_release(&b);
}

static const char page[] =
	"<!doctype html><html lang=en><meta charset=utf-8><title>%s</title>"
	"<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
	"table{border-collapse:collapse;width:100%%}td,th{text-align:right;padding:.2em .6em;border-bottom:1px solid #ddd}"
	"td:first-child,th:first-child{text-align:left}h1{font-size:1.4em}a{color:#06c}</style>"
	"<h1>%s</h1><p>Loquat " LOQUAT_VERSION
	" · service %s · pid %d · up <span id=up></span> s · <span id=lua></span>"
	"<a href=/metrics>metrics</a> · <a href=/stats>stats</a> · <a href=/routes>routes</a> · <a href=/readyz>readyz</a></p>"
	"<table><thead><tr><th>method<th>requests<th>per s<th>p50 µs<th>p99 µs<th>errors</thead><tbody id=m></tbody></table>"
	"<script>async function f(){const s=await(await fetch('/stats')).json();up.textContent=Math.round(s.uptime_s);"
	"if(s.lua)lua.textContent='Lua '+s.lua.version+', '+(s.lua.memory_bytes/1048576).toFixed(1)+' MiB, collector p99 '"
	"+s.lua.gc_pause_p99_us+' µs · ';"
	"m.replaceChildren(...Object.entries(s.methods).map(([k,v])=>{const r=document.createElement('tr');"
	"const e=Object.values(v.errors).reduce((a,b)=>a+b,0);"
	"for(const c of [k,v.count,v.rate_1s.toFixed(1),v.p50_us,v.p99_us,e]){const d=document.createElement('td');"
	"d.textContent=c;r.append(d)}return r}))}f();setInterval(f,1000)</script>";

static void get_page(struct http_face *h, struct env_http_request *r)
{
	struct service *s = h->service;
	struct buf b = BUF_INIT;

	buf_addf(&b, page, s->id, s->id, s->def->name, env_pid(s->env));
	env_http_reply(r, 200, "text/html; charset=utf-8", NULL, b.data, b.len);
	buf_release(&b);
}

/* ---- admin ------------------------------------------------------------------------------------------------------------ */

static void post_drain(struct http_face *h, struct env_http_request *r)
{
	reply_text(r, 200, "draining\n");
	life_drain(h->service);
}

static void post_loglevel(struct http_face *h, struct env_http_request *r)
{
	const char *word = env_http_query(r, "level");
	int level = word ? log_level_parse(word) : ERR_BAD_REQUEST;

	if (level < 0) {
		http_refuse(r, ERR_BAD_REQUEST, "level: expected debug, info, warn or error");
		return;
	}
	log_level_set(h->service->log, (enum log_level)level);
	reply_text(r, 200, "ok\n");
}

/* ---- dispatch --------------------------------------------------------------------------------------------------------------- */

/* One row per path; admin ones need the cluster key. */
static const struct http_row {
	const char *method, *path;
	void (*fn)(struct http_face *h, struct env_http_request *r);
	bool admin;
} rows[] = {
	{ "GET", "/healthz", get_healthz, false },
	{ "GET", "/readyz", get_readyz, false },
	{ "GET", "/metrics", get_metrics, false },
	{ "GET", "/stats", get_stats, false },
	{ "GET", "/stats/slow", http_slow, false },
	{ "GET", "/routes", get_routes, false },
	{ "GET", "/", get_page, false },
	{ "POST", "/admin/reload", http_reload, true },
	{ "POST", "/admin/console", http_console, true },
	{ "POST", "/admin/profile", http_profile, true },
	{ "POST", "/admin/drain", post_drain, true },
	{ "POST", "/admin/loglevel", post_loglevel, true },
};

static void on_request(void *arg, struct env_http_request *r)
{
	struct http_face *h = arg;
	const char *path = env_http_path(r), *method = env_http_method(r);
	bool known = false;

	if (!strncmp(path, "/rpc/", 5)) {
		if (h->shut)
			http_refuse(r, ERR_UNAVAILABLE, "this instance stops");
		else
			http_rpc(h, r);
		return;
	}
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (strcmp(rows[i].path, path))
			continue;
		known = true;
		if (strcmp(rows[i].method, method) && !(rows[i].method[0] == 'G' && !strcmp(method, "HEAD")))
			continue;
		if (rows[i].admin && !http_has_key(h, r))
			http_refuse(r, ERR_DENIED, "the cluster key is needed: Authorization: Bearer KEY");
		else if (rows[i].admin && h->shut)
			http_refuse(r, ERR_UNAVAILABLE, "this instance stops");
		else
			rows[i].fn(h, r);
		return;
	}
	if (known)
		http_not_allowed(r, "this path takes another method");
	else if (h->shut)
		http_refuse(r, ERR_UNAVAILABLE, "this instance stops");
	else if (h->service->lua_src)
		http_hook(h, r);
	else
		http_refuse(r, ERR_NOT_FOUND, "there is no such page here");
}

int http_face_start(struct service *s, struct http_face **out)
{
	struct http_face *h = calloc(1, sizeof *h);
	int err;

	assert(h);
	h->service = s;
	err = env_http_listen(s->control->ev, s->row->host, s->row->http_port, on_request, h, &h->http);
	if (err < 0) {
		free(h);
		return err;
	}
	stats_start(h);
	http_reload_open(h);
	*out = h;
	return 0;
}

bool http_face_quiet(const struct http_face *h)
{
	return !h || (!h->pending && !h->reloading);
}

void http_face_shut(struct http_face *h)
{
	if (!h)
		return;
	h->shut = true;
	http_rpc_shut(h);
	http_profile_shut(h);
}

void http_face_stop(struct http_face *h)
{
	if (!h)
		return;
	env_http_close(h->http);
	stats_stop(h);
	free(h);
}
