#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "common/err.h"
#include "common/token.h"
#include "deploy/loquat/reload.h"
#include "deploy/loquat/supervisor.h"
#include "rpc/version.h"

/* The supervisor's HTTP: the dashboard and the demo, what runs, the sum of all figures, and the control of it. */
#define FILE_BYTES_MAX (4 << 20)

/* ---- answers ------------------------------------------------------------------------------------------------- */

static void reply_text(struct env_http_request *r, int status, const char *text)
{
	env_http_reply(r, status, "text/plain; charset=utf-8", NULL, text, strlen(text));
}

void face_json(struct env_http_request *r, int status, json_t *take)
{
	char *text = json_dumps(take, JSON_COMPACT | JSON_REAL_PRECISION(6));

	assert(text);
	env_http_reply(r, status, "application/json", NULL, text, strlen(text));
	free(text);
	json_decref(take);
}

void face_refuse(struct env_http_request *r, int err, const char *message)
{
	int shown = err_public(err);

	face_json(r, err_http(shown),
		  json_pack("{s:i, s:s, s:s, s:s}", "code", err_http(shown), "error", err_word(shown), "message",
			    message, "effect", "none"));
}

static void refuse_method(struct env_http_request *r)
{
	face_json(r, 405,
		  json_pack("{s:i, s:s, s:s, s:s}", "code", 405, "error", "bad_request", "message",
			    "this path takes another method", "effect", "none"));
}

static bool has_key(struct supervisor *up, struct env_http_request *r)
{
	const char *given = env_http_header(r, "Authorization"), *key = up->c->key;

	return given && !strncmp(given, "Bearer ", 7) && token_equal(given + 7, strlen(given + 7), key, strlen(key));
}

/* ---- what runs -------------------------------------------------------------------------------------------------- */

static json_t *address(const char *host, uint16_t port)
{
	char text[96];

	if (!port)
		return json_null();
	snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
	return json_string(text);
}

/* Of another host's it is known what the file says. */
static int is_wanted(const struct instance *i)
{
	return i->here ? i->child.wanted : i->starts;
}

static json_t *instance_json(const struct instance *i)
{
	const struct child *c = &i->child;
	json_t *o = json_pack("{s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:i}", "id", i->row->id, "service", i->row->service,
			      "pid", c->pid ? json_integer(c->pid) : json_null(), "state", child_state_word(c->state),
			      "client", address(route_client_host(i->row), i->row->client_port), "rpc",
			      address(i->row->host, i->row->rpc_port), "http", address(i->row->host, i->row->http_port),
			      "restarts", (int)c->restarts);

	assert(o);
	json_object_set_new(o, "here", json_boolean(i->here));
	json_object_set_new(o, "why", json_string(i->why));
	if (i->next.pid)
		json_object_set_new(o, "upgrading", json_integer(i->next.pid));
	if (*i->next_why)
		json_object_set_new(o, "not_upgraded", json_string(i->next_why));
	json_object_set_new(o, "workers", json_integer(i->row->workers));
	json_object_set_new(o, "wanted", json_boolean(is_wanted(i)));
	if (i->here)
		json_object_set_new(o, "rss_bytes", json_integer((json_int_t)usage_rss(c->pid)));
	else
		json_object_set(o, "rss_bytes", json_object_get(i->stats, "rss_bytes"));
	if (collect_silent_s(i) > 0)
		json_object_set_new(o, "silent_s", json_real(collect_silent_s(i)));
	json_object_set_new(o, "cpu", json_real(i->stats ? i->cpu : 0));
	json_object_set(o, "sessions", json_object_get(i->stats, "sessions"));
	json_object_set(o, "code", json_object_get(json_object_get(i->stats, "lua"), "version"));
	json_object_set(o, "uptime_s", json_object_get(i->stats, "uptime_s"));
	return o;
}

static const char *phase_word(enum phase p)
{
	static const char *const words[] = { "starting", "ready", "stopping" };

	return words[p];
}

static json_t *database_json(struct supervisor *up)
{
	if (!up->c->private_database)
		return json_pack("{s:b, s:s, s:n}", "private", 0, "state", up->db_ready ? "ready" : "starting", "pid");
	const struct child *c = &up->db_child;
	bool ready = c->state == CHILD_READY;

	return json_pack("{s:b, s:s, s:o, s:i, s:I, s:f, s:o}", "private", 1, "state", child_state_word(c->state),
			 "pid", c->pid ? json_integer(c->pid) : json_null(), "restarts", (int)c->restarts, "rss_bytes",
			 (json_int_t)usage_rss(c->pid), "cpu", up->db_usage.cpu, "uptime_s",
			 ready ? json_real((double)(up->loop->now_ms - c->ready_ms) / 1000) : json_null());
}

static void get_status(struct supervisor *up, struct env_http_request *r)
{
	json_t *list = json_array();

	for (size_t i = 0; i < up->instances; i++)
		json_array_append_new(list, instance_json(&up->instance[i]));
	face_json(r, 200,
		  json_pack("{s:s, s:s, s:i, s:s, s:f, s:I, s:o, s:o}", "cluster",
			    config_string(up->c->config, "cluster", "loquat"), "version", LOQUAT_VERSION, "pid",
			    (int)getpid(), "phase", phase_word(up->phase), "uptime_s",
			    (double)(up->loop->now_ms - up->started_ms) / 1000, "routes", (json_int_t)up->version,
			    "database", database_json(up), "instances", list));
}

/* ---- figures ----------------------------------------------------------------------------------------------------- */

struct waiting {
	struct supervisor *up;
	struct env_http_request *request;
	void (*answer)(struct supervisor *up, struct env_http_request *r);
};

static void on_collected(void *arg)
{
	struct waiting *w = arg;

	if (w->up->http)
		w->answer(w->up, w->request);
	free(w);
}

static void collect_then(struct supervisor *up, struct env_http_request *r,
			 void (*answer)(struct supervisor *up, struct env_http_request *r))
{
	struct waiting *w = malloc(sizeof *w);

	assert(w);
	*w = (struct waiting){ up, r, answer };
	collect(up, on_collected, w);
}

static void answer_stats(struct supervisor *up, struct env_http_request *r)
{
	face_json(r, 200, collect_sum(up, false));
}

static void get_stats(struct supervisor *up, struct env_http_request *r)
{
	collect_then(up, r, answer_stats);
}

static json_t *history_json(struct supervisor *up)
{
	json_t *h = json_pack("{s:[], s:[], s:[], s:[], s:[]}", "requests", "errors", "p99_us", "lag", "sessions");
	unsigned n = up->samples < HISTORY ? up->samples : HISTORY;

	for (unsigned k = up->samples - n; k < up->samples; k++) {
		const struct sample *s = &up->history[k % HISTORY];

		json_array_append_new(json_object_get(h, "requests"), json_real(s->requests));
		json_array_append_new(json_object_get(h, "errors"), json_real(s->errors));
		json_array_append_new(json_object_get(h, "p99_us"), json_real(s->p99_us));
		json_array_append_new(json_object_get(h, "lag"), json_real(s->lag));
		json_array_append_new(json_object_get(h, "sessions"), json_real(s->sessions));
	}
	return h;
}

/* For the dashboard: the last sample and the plots; asks nobody, for the sampling does. */
static void get_live(struct supervisor *up, struct env_http_request *r)
{
	collect_watch(up);
	face_json(r, 200, json_pack("{s:o, s:o}", "stats", collect_sum(up, true), "history", history_json(up)));
}

static int is_up(const struct instance *i)
{
	return i->child.state == CHILD_READY;
}

static int restarts(const struct instance *i)
{
	return (int)i->child.restarts;
}

static void get_metrics(struct supervisor *up, struct env_http_request *r)
{
	static const struct {
		const char *head, *name;
		int (*of)(const struct instance *i);
	} figures[] = {
		{ "# HELP loquat_instance_up Whether the instance is ready.\n# TYPE loquat_instance_up gauge\n",
		  "loquat_instance_up", is_up },
		{ "# HELP loquat_instance_wanted Whether it is meant to run.\n# TYPE loquat_instance_wanted gauge\n",
		  "loquat_instance_wanted", is_wanted },
		{ "# HELP loquat_instance_restarts_total How often it was started again.\n"
		  "# TYPE loquat_instance_restarts_total counter\n",
		  "loquat_instance_restarts_total", restarts },
	};
	struct buf b = BUF_INIT;

	for (size_t f = 0; f < sizeof figures / sizeof *figures; f++) {
		buf_addstr(&b, figures[f].head);
		for (size_t i = 0; i < up->instances; i++)
			buf_addf(&b, "%s{instance=\"%s\",service=\"%s\"} %d\n", figures[f].name,
				 up->instance[i].row->id, up->instance[i].row->service,
				 figures[f].of(&up->instance[i]));
	}
	buf_addf(
		&b,
		"# HELP loquat_routes_version Version of the route table.\n# TYPE loquat_routes_version gauge\n"
		"loquat_routes_version{instance=\"supervisor\"} %llu\n# HELP loquat_build_info The version.\n# TYPE loquat_build_info gauge\n"
		"loquat_build_info{instance=\"supervisor\",version=\"" LOQUAT_VERSION "\"} 1\n",
		(unsigned long long)up->version);
	env_http_reply(r, 200, "text/plain; version=0.0.4", NULL, b.data, b.len);
	buf_release(&b);
}

static void get_healthz(struct supervisor *up, struct env_http_request *r)
{
	(void)up;
	reply_text(r, 200, "ok\n");
}

static void get_readyz(struct supervisor *up, struct env_http_request *r)
{
	if (up->phase == PHASE_READY)
		reply_text(r, 200, "ok\n");
	else
		reply_text(r, 503, up->phase == PHASE_STARTING ? "starting\n" : "draining\n");
}

/* Of all hosts, as etcd knows them. */
static void reply_table(struct supervisor *up, struct env_http_request *r)
{
	struct buf b = BUF_INIT, source = BUF_INIT;

	route_source_to_json(up->source, &source);
	route_to_json(up->table, buf_cstr(&source), &b);
	env_http_reply(r, 200, "application/json", NULL, b.data, b.len);
	buf_release(&source);
	buf_release(&b);
}

static void get_routes(struct supervisor *up, struct env_http_request *r)
{
	if (up->table) {
		reply_table(up, r);
		return;
	}
	struct route_table t = { .version = up->version, .row = calloc(up->instances + 1, sizeof *t.row) };
	struct buf b = BUF_INIT;

	assert(t.row);
	supervisor_routes(up, &t);
	route_to_json(&t, NULL, &b);
	env_http_reply(r, 200, "application/json", NULL, b.data, b.len);
	buf_release(&b);
	free(t.row);
}

static void get_lua(struct supervisor *up, struct env_http_request *r)
{
	collect_then(up, r, reload_versions);
}

/* ---- control -------------------------------------------------------------------------------------------------------- */

static struct instance *instance_of(struct supervisor *up, struct env_http_request *r)
{
	const char *id = env_http_query(r, "id");
	struct instance *i = supervisor_find(up, id);
	char text[3 * ENV_PATH_MAX];

	if (i)
		return i;
	snprintf(text, sizeof text, "the cluster's file has no instance \"%.60s\": %s status%s lists them",
		 id ? id : "", up->c->typed, up->c->option);
	face_refuse(r, ERR_NOT_FOUND, text);
	return NULL;
}

static void post_start(struct supervisor *up, struct env_http_request *r)
{
	struct instance *i = instance_of(up, r);
	char why[300] = "it could not be started";

	if (!i)
		return;
	if (instance_start(i, why, sizeof why) < 0)
		face_refuse(r, ERR_DENIED, why);
	else
		face_json(r, 200, instance_json(i));
}

static void post_upgrade(struct supervisor *up, struct env_http_request *r)
{
	struct instance *i = instance_of(up, r);
	char why[300];

	if (!i)
		return;
	if (instance_upgrade(i, why, sizeof why) < 0)
		face_refuse(r, ERR_DENIED, why);
	else
		face_json(r, 200, instance_json(i));
}

static void leave(struct supervisor *up, struct env_http_request *r, int (*fn)(struct instance *i))
{
	struct instance *i = instance_of(up, r);
	char text[160];

	if (!i)
		return;
	if (!i->here) {
		instance_elsewhere(i, text, sizeof text);
		face_refuse(r, ERR_DENIED, text);
		return;
	}
	if (fn(i) < 0) {
		snprintf(text, sizeof text, "%s does not run (%s)", i->row->id, child_state_word(i->child.state));
		face_refuse(r, ERR_DENIED, text);
		return;
	}
	face_json(r, 200, instance_json(i));
}

static void post_stop(struct supervisor *up, struct env_http_request *r)
{
	leave(up, r, instance_stop);
}

static void post_drain(struct supervisor *up, struct env_http_request *r)
{
	leave(up, r, instance_drain);
}

static void post_reload(struct supervisor *up, struct env_http_request *r)
{
	const char *service = env_http_query(r, "id");

	reload_begin(up, service ? service : "", r);
}

/* ---- files ------------------------------------------------------------------------------------------------------------ */

static const char *type_of(const char *path)
{
	static const struct {
		const char *end, *type;
	} types[] = {
		{ ".html", "text/html; charset=utf-8" },
		{ ".js", "text/javascript; charset=utf-8" },
		{ ".css", "text/css; charset=utf-8" },
		{ ".svg", "image/svg+xml" },
		{ ".png", "image/png" },
		{ ".json", "application/json" },
	};
	size_t n = strlen(path);

	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		size_t k = strlen(types[i].end);

		if (n > k && !strcasecmp(path + n - k, types[i].end))
			return types[i].type;
	}
	return "application/octet-stream";
}

static void get_file(struct supervisor *up, struct env_http_request *r)
{
	static const char *const headers[] = { "Cache-Control: no-cache", NULL }, *const to_demo[] = {
		"Location: /demo/", NULL
	};
	const char *path = env_http_path(r), *end = path + strlen(path);
	char file[2 * ENV_PATH_MAX], *text;
	size_t n;

	if (!strcmp(path, "/demo")) {
		env_http_reply(r, 301, "text/plain", to_demo, "", 0);
		return;
	}
	if (strstr(path, "..") || strstr(path, "//") || strlen(path) > 200) {
		face_refuse(r, ERR_NOT_FOUND, "there is no such page here");
		return;
	}
	snprintf(file, sizeof file, "%s/deploy/www%s%s", up->c->home, path, end[-1] == '/' ? "index.html" : "");
	if (env_file_load(up->c->env, file, FILE_BYTES_MAX, &text, &n) < 0) {
		face_refuse(r, ERR_NOT_FOUND, "there is no such page here");
		return;
	}
	env_http_reply(r, 200, type_of(file), headers, text, n);
	free(text);
}

/* ---- dispatch ------------------------------------------------------------------------------------------------------------ */

static const struct face_row {
	const char *method, *path;
	void (*fn)(struct supervisor *up, struct env_http_request *r);
} rows[] = {
	{ "GET", "/healthz", get_healthz },
	{ "GET", "/readyz", get_readyz },
	{ "GET", "/status", get_status },
	{ "GET", "/stats", get_stats },
	{ "GET", "/stats/slow", slow_reply },
	{ "GET", "/live", get_live },
	{ "GET", "/lua", get_lua },
	{ "GET", "/metrics", get_metrics },
	{ "GET", "/routes", get_routes },
	{ "POST", "/admin/start", post_start },
	{ "POST", "/admin/stop", post_stop },
	{ "POST", "/admin/drain", post_drain },
	{ "POST", "/admin/reload", post_reload },
	{ "POST", "/admin/upgrade", post_upgrade },
	{ "POST", "/admin/loglevel", loglevel_post },
};

static void on_request(void *arg, struct env_http_request *r)
{
	struct supervisor *up = arg;
	const char *path = env_http_path(r), *method = env_http_method(r);
	bool get = !strcmp(method, "GET") || !strcmp(method, "HEAD");

	if (strncmp(path, "/rpc/", 5) == 0) {
		face_rpc(up, r);
		return;
	}
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		if (strcmp(rows[i].path, path))
			continue;
		if (get != !strcmp(rows[i].method, "GET"))
			refuse_method(r);
		else if (!get && !has_key(up, r))
			face_refuse(r, ERR_DENIED, "the cluster key is needed: Authorization: Bearer KEY");
		else if (!get && up->phase == PHASE_STOPPING)
			face_refuse(r, ERR_UNAVAILABLE, "the cluster is stopping");
		else
			rows[i].fn(up, r);
		return;
	}
	if (get)
		get_file(up, r);
	else
		refuse_method(r);
}

int face_start(struct supervisor *up)
{
	int err = env_http_listen(up->loop->ev, up->c->http_host, up->c->http_port, on_request, up, &up->http);

	if (err < 0) {
		supervisor_fail(up, "the dashboard: %s:%u (supervisor.http): %s", up->c->http_host, up->c->http_port,
				err == ERR_EXISTS ? "another process has the port" : env_last_error());
		return err;
	}
	up->http_port = env_http_port(up->http);
	return 0;
}

void face_stop(struct supervisor *up)
{
	if (up->http)
		env_http_close(up->http);
	up->http = NULL;
}
