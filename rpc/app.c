#include "rpc/app.h"
#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include "common/lua_json.h"
#include "common/lua_pb.h"
#include "rpc/app_private.h"
#include "rpc/service_private.h"

struct app *app_of(lua_State *L)
{
	return luahost_user(luahost_of(L));
}

struct app_job *app_job_of(lua_State *L)
{
	struct luajob *job = luahost_job(L);

	return job && job->tag == &app_job_tag ? (struct app_job *)job : NULL;
}

struct luahost *app_host(struct app *a)
{
	return a->host;
}

void app_raise(lua_State *L, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	luaL_error(L, "%s", text);
	abort(); /* luaL_error does not return */
}

int app_push_error(lua_State *L, int err, struct span message, enum effect effect)
{
	lua_pushnil(L);
	lua_pushstring(L, err_word(err_public(err)));
	lua_pushlstring(L, message.p ? message.p : "", message.n);
	lua_pushstring(L, effect_word(effect));
	return 4;
}

/* ---- requests ----------------------------------------------------------------------------------------------------- */

#define RESTS "requests of this player held up the others: it rests for a while"

static void push_call_info(lua_State *L, const struct app_job *j)
{
	lua_createtable(L, 0, 3);
	lua_pushlstring(L, j->in.data, j->key_n);
	lua_setfield(L, -2, "key");
	lua_pushstring(L, j->instance);
	lua_setfield(L, -2, "from");
	if (j->method->kind == MSG_ONCE) {
		app_once_push_key(L, j);
		lua_setfield(L, -2, "once");
	}
}

static int push_request(lua_State *L, struct luajob *self)
{
	struct app_job *j = (struct app_job *)self;
	const char *body = j->in.data + j->body.at;
	size_t n = j->body.n;
	unsigned unknown = 0;
	int err;

	if (j->moved) { /* while it waited behind others of its session */
		snprintf(j->why, sizeof j->why, "its key moves to another instance");
		return ERR_UNAVAILABLE;
	}
	j->begun = true;
	if (j->session) {
		rpc_began(j->app->worker, j->handle);
		j->job.budget_ms = app_session_budget_ms(j);
	}
	if (j->app->worker->loop->now_ms > j->deadline_ms) { /* it waited behind others of its session */
		snprintf(j->why, sizeof j->why, "its time was over before its turn came");
		return ERR_TIMEOUT;
	}
	if (j->session && app_session_rests(j)) { /* since it came */
		snprintf(j->why, sizeof j->why, RESTS);
		return ERR_BUSY;
	}
	if (app_cycle(j))
		return ERR_FAILED;
	if (!luahost_push_method(L, j->method)) {
		snprintf(j->why, sizeof j->why, "%s is not there", j->method->full);
		return ERR_NOT_FOUND;
	}
	if (j->session)
		lua_rawgeti(L, LUA_REGISTRYINDEX, j->session->table);
	if (j->json)
		err = lua_json_decode(L, j->method->in, n ? body : "{}", n ? n : 2, j->why, sizeof j->why);
	else
		err = lua_pb_decode(L, j->method->in, body, n, &unknown, j->why, sizeof j->why);
	if (err == 0 && j->method->kind == MSG_ONCE)
		err = app_once_begin(L, j);
	if (err < 0)
		return err == ERR_CORRUPT ? ERR_BAD_REQUEST : err;
	if (j->method->kind != MSG_ONCE && !j->session && luahost_method_params(L, j->method) < 2)
		return 1; /* most functions do not ask about the call */
	if (!j->session)
		push_call_info(L, j);
	int arguments = 2;

	if (j->method->kind == MSG_ONCE) {
		lua_pushcfunction(L, app_once_gate);
		lua_insert(L, -4);
		arguments++;
	}
	if (j->session && j->app->filters) {
		lua_pushcfunction(L, app_filter_gate);
		lua_insert(L, -(arguments + 2));
		arguments++;
	}
	return arguments;
}

/* There is room for it. */
static struct app_part add_part(struct buf *in, struct span s)
{
	struct app_part p = { (uint32_t)in->len, (uint32_t)s.n };

	if (s.n)
		memcpy(in->data + in->len, s.p, s.n);
	in->len += s.n;
	return p;
}

static struct app_job *request_job(struct app *a, struct rpc_request *r)
{
	struct app_job *j = app_job_new(a, r->sid && r->method->is_handler ? APP_HANDLER : APP_REMOTE);

	j->job.name = r->method->full;
	j->job.push = push_request;
	j->method = r->method;
	j->handle = r->handle;
	j->sid = r->sid;
	j->ticket = r->ticket;
	r->ticket = 0;
	j->trace = j->job.trace = r->trace;
	j->deadline_ms = r->deadline_ms;
	j->json = r->json;
	memcpy(j->instance, r->instance, sizeof j->instance);
	buf_clear(&j->in);
	buf_reserve(&j->in, r->key.n + r->once_key.n + r->uid.n + r->body.n + 1);
	j->key_n = add_part(&j->in, r->key).n;
	j->once.key = add_part(&j->in, r->once_key);
	j->uid = add_part(&j->in, r->uid);
	j->body = add_part(&j->in, r->body);
	j->instance_worker = r->instance_worker;
	j->instance_epoch = r->instance_epoch;
	j->once_seq = r->once_seq;
	j->once_first = r->once_first;
	j->once_attempt = r->once_attempt;
	return j;
}

void app_job_begin(struct app_job *j)
{
	struct app *a = j->app;
	uint64_t handle = j->handle;

	if (j->kind == APP_REMOTE) {
		if (luatask_start(a->host, &j->job) && handle)
			app_job_watch(j, handle);
		return;
	}
	j->session = app_session_get(a, j->instance, j->sid, span_of(j->in.data + j->uid.at, j->uid.n));
	if (j->session && app_session_rests(j)) {
		rpc_answer_err(a->worker, handle, ERR_BUSY, EFFECT_NONE, RESTS);
		app_job_free(j);
		return;
	}
	if (!j->session || luaqueue_push(&j->session->queue, &j->job) < 0) {
		rpc_answer_err(a->worker, handle, ERR_BUSY, EFFECT_NONE, "too many requests of this session wait");
		app_job_free(j);
	} else if (handle) {
		app_job_watch(j, handle);
	}
}

static void on_request(void *arg, struct rpc_request *r)
{
	struct app *a = arg;
	struct app_job *j = request_job(a, r);

	if (!app_moves_detain(a, j))
		app_job_begin(j);
}

/* ---- hooks and tasks of the service's own ------------------------------------------------------------------------- */

static int push_hook(lua_State *L, struct luajob *self)
{
	struct app_job *j = (struct app_job *)self;

	if (!luahost_push_hook(L, j->hook))
		return ERR_NOT_FOUND;
	lua_pushlstring(L, j->in.data, j->body.n);
	lua_pushboolean(L, j->flag);
	return 2;
}

void app_hook_then(struct app *a, const char *name, const char *text, bool flag,
		   void (*then)(struct worker *w, int err))
{
	struct app_job *j;

	if (!a || !luahost_has_hook(a->host, name)) {
		if (a && then)
			then(a->worker, 0);
		return;
	}
	j = app_job_new(a, APP_HOOK);
	j->job.name = j->hook = name;
	j->job.push = push_hook;
	j->job.budget_ms = luahost_rare_ms(a->host);
	j->flag = flag;
	j->then = then;
	j->deadline_ms = UINT64_MAX;
	buf_clear(&j->in);
	buf_addstr(&j->in, text ? text : "");
	j->body.n = (uint32_t)j->in.len;
	luatask_start(a->host, &j->job);
}

void app_hook(struct app *a, const char *name, const char *text, bool flag)
{
	app_hook_then(a, name, text, flag, NULL);
}

bool app_has_http(struct app *a)
{
	return luahost_has_hook(a->host, "http");
}

static int push_http(lua_State *L, struct luajob *self)
{
	struct app_job *j = (struct app_job *)self;

	if (!luahost_push_hook(L, "http"))
		return ERR_NOT_FOUND;
	lua_createtable(L, 0, 4);
	lua_pushstring(L, j->http_method);
	lua_setfield(L, -2, "method");
	lua_pushstring(L, j->http_path);
	lua_setfield(L, -2, "path");
	lua_pushstring(L, j->http_signature);
	lua_setfield(L, -2, "signature");
	lua_pushlstring(L, j->in.data, j->body.n);
	lua_setfield(L, -2, "body");
	return 1;
}

struct app_job *app_job_http(struct app *a, const char *name, const struct app_http *q)
{
	struct app_job *j = app_job_new(a, APP_HTTP);

	j->job.name = name;
	j->trace = j->job.trace = rpc_trace(a->worker);
	j->http = *q;
	j->deadline_ms = a->worker->loop->now_ms + 10000;
	snprintf(j->http_method, sizeof j->http_method, "%s", q->method);
	snprintf(j->http_path, sizeof j->http_path, "%s", q->path);
	snprintf(j->http_signature, sizeof j->http_signature, "%s", q->signature ? q->signature : "");
	buf_clear(&j->in);
	buf_add(&j->in, q->body, q->body_n);
	j->body.n = (uint32_t)q->body_n;
	return j;
}

void app_http(struct app *a, const struct app_http *q)
{
	struct app_job *j = app_job_http(a, "http", q);

	j->job.push = push_http;
	luatask_start(a->host, &j->job);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

/* What is looked at for each code that begins to run. */
static void register_methods(struct app *a)
{
	struct worker *w = a->worker;
	const struct schema *schema = w->schema;

	a->filters = luahost_has_hook(a->host, "before") || luahost_has_hook(a->host, "after");
	for (size_t i = 0; i < schema_methods(schema); i++) {
		const struct msg_method *m = schema_method_at(schema, i);

		if (!strcmp(m->service, w->service->def->name) && luahost_has_method(a->host, m))
			rpc_handle(w, m, on_request, a);
	}
	app_unreached(a);
}

static int open_libraries(struct app *a)
{
	const struct service_library *own = a->worker->service->def->libraries;
	int err = luahost_library(a->host, "app", app_lib);

	if (err == 0)
		err = luahost_library(a->host, "db", app_db_lib);
	if (err == 0)
		err = luahost_library(a->host, "cache", app_cache_lib);
	if (err == 0)
		err = luahost_library(a->host, "metrics", app_metrics_lib);
	for (; err == 0 && own && own->name; own++)
		err = luahost_library(a->host, own->name, own->open);
	return err;
}

static int app_load(struct app *a)
{
	struct service *s = a->worker->service;
	char error[1024];
	int err = luahost_load(a->host, s->lua_src, error, sizeof error);

	if (err < 0)
		service_fail(s, "%s: %s", s->id, error);
	return err;
}

static unsigned gc_of(const char *word)
{
	if (!strcmp(word, "generational"))
		return LUAHOST_GC_GENERATIONAL;
	return !strcmp(word, "auto") ? LUAHOST_GC_AUTO : LUAHOST_GC_INCREMENTAL;
}

static struct luahost_options host_options(struct app *a, struct service *s, struct loop *loop)
{
	return (struct luahost_options){
		.loop = loop,
		.log = s->log,
		.metrics = s->metrics,
		.schema = a->schema,
		.user = a,
		.may_sleep = app_check_may_wait,
		.memory_max = (size_t)config_int(s->config, "lua.memory_bytes_max", 1 << 30),
		.budget_ms = (uint32_t)config_int(s->config, "lua.budget_ms", 1000),
		.gc = gc_of(config_string(s->config, "lua.gc", "incremental")),
		.texts = (uint32_t)config_int(s->config, "lua.texts", 0),
		.slow_ms = (uint32_t)config_int(s->config, "lua.slow_ms", 1000),
	};
}

static void on_peer(struct worker *w, const char *instance, uint64_t epoch, bool up)
{
	(void)epoch;
	if (up)
		app_seats_peer(w->app, instance);
	app_hook(w->app, "on_peer", instance, up);
}

void app_open(struct worker *w, void (*opened)(struct worker *w, int err))
{
	struct app *a = calloc(1, sizeof *a);
	struct service *s = w->service;
	struct luahost_options o;

	assert(a);
	a->worker = w;
	a->schema = w->schema;
	o = host_options(a, s, w->loop);
	a->budget_ms = o.budget_ms;
	a->console = LUA_NOREF;
	w->app = a;
	a->push = schema_method(a->schema, "connector.connectorRemote.push", 30);
	a->kick = schema_method(a->schema, "connector.connectorRemote.kick", 30);
	a->attr = schema_method(a->schema, "connector.connectorRemote.attr", 30);
	app_push_types_open(a);
	app_wakes_open(a);
	if (luahost_new(&o, &a->host) < 0 || open_libraries(a) < 0) {
		service_fail(s, "%s: the Lua state could not be made", s->id);
		return;
	}
	app_db_open(a);
	app_cache_open(a);
	app_once_open(a);
	app_seats_open(a);
	app_moves_open(a);
	if (app_load(a) < 0)
		return;
	register_methods(a);
	app_sessions_open(a);
	if (!w->on_peer)
		w->on_peer = on_peer;
	app_hook_then(a, "init_service", "", false, opened);
}

void app_close(struct app *a)
{
	if (!a)
		return;
	a->closing = true;
	loop_timer_stop(a->worker->loop, &a->wake_more);
	app_seats_close(a);
	if (a->host) {
		app_sessions_close(a);
		luahost_free(a->host);
	}
	app_db_close(a);
	app_cache_close(a);
	app_once_close(a);
	app_moves_close(a);
	app_waits_close(a);
	app_push_types_close(a);
	for (struct app_job *j = a->made_jobs, *next; j; j = next) {
		next = j->next_made;
		sql_record_release(&j->record);
		buf_release(&j->in);
		buf_release(&j->out);
		free(j);
	}
	buf_release(&a->woken);
	buf_release(&a->scratch);
	buf_release(&a->text);
	free(a);
}

/* ---- reload ---------------------------------------------------------------------------------------------------------- */

/* What the files and check() call at their top reaches nobody: app.send and the like refuse outside of tasks. */
int app_check(struct worker *w, struct luasrc *src, const struct schema *schema, char *error, size_t error_size)
{
	struct app *a = calloc(1, sizeof *a);
	struct luahost_options o;
	int err;

	assert(a);
	a->worker = w;
	a->schema = schema;
	o = host_options(a, w->service, w->loop);
	o.metrics = NULL;
	o.texts = 0;
	o.trial = true;
	err = luahost_new(&o, &a->host);
	if (err == 0)
		err = open_libraries(a);
	if (err < 0)
		snprintf(error, error_size, "the Lua state to try it in could not be made: %s", err_text(err));
	else
		err = luahost_check(a->host, src, error, error_size);
	luahost_free(a->host);
	buf_release(&a->scratch);
	buf_release(&a->text);
	free(a);
	return err;
}

int app_prepare(struct app *a, struct luasrc *src, char *error, size_t error_size)
{
	return luahost_prepare_begin(a->host, src, error, error_size);
}

int app_prepare_step(struct app *a, const struct schema *schema, char *error, size_t error_size)
{
	a->schema = schema; /* what the files name at their top */
	int err = luahost_prepare_step(a->host, error, error_size);

	a->schema = a->worker->schema;
	return err;
}

int app_messages_prepare(struct app *a, const struct schema *next, char *error, size_t error_size)
{
	return luahost_messages(a->host, next, error, error_size);
}

/*
 * A request that came before may be served by code that comes after, whose answer has fields the old message does not know:
 * what is under way goes by the new one.
 */
void app_messages_taken(struct app *a)
{
	a->schema = a->worker->schema;
	app_push_types_open(a);
	for (struct app_job *j = a->made_jobs; j; j = j->next_made) {
		const struct msg_method *now = j->method ? schema_method_now(a->schema, j->method) : NULL;

		if (now)
			j->method = now;
	}
	register_methods(a);
}

int app_switch(struct app *a, char *error, size_t error_size)
{
	int err = luahost_switch(a->host, error, error_size);

	if (err == 0)
		register_methods(a);
	return err;
}

void app_rollback(struct app *a, const char *version)
{
	luahost_rollback(a->host, version);
	register_methods(a);
}

void app_abort(struct app *a)
{
	luahost_abort(a->host);
}
