#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include "common/lua_pb.h"
#include "rpc/app_private.h"

/* The library app: calls, pushes, tasks and what this instance is. */

void app_check_may_wait(lua_State *L)
{
	struct app_job *j = app_job_of(L);

	if (j && (j->n_changes || (j->recording && j->record.statements)))
		app_raise(
			L,
			"changes are collected: nothing may wait between the check and the change (db.commit() first)");
	if (j && j->kind == APP_HOOK && !strcmp(j->hook, APP_HOOK_MOVED))
		app_raise(L, APP_HOOK_MOVED " must not wait");
}

/* ---- app.rpc.SERVICE.GROUP.METHOD(key, args, options) ---------------------------------------------------------------- */

void app_check_runs(lua_State *L)
{
	if (!luahost_job(L))
		luaL_error(L, "this is for what runs, such as a request, a timer or init_service, not while a file is "
			      "loaded or checked");
}

/* As many blocks as waited at once are kept for the next ones: a call allocates nothing. */
static struct app_wait *wait_block(struct app *a, size_t n)
{
	struct app_wait *w = a->free_waits;
	bool pooled = n <= APP_WAIT_BYTES;

	if (w && pooled)
		a->free_waits = w->next;
	else
		w = malloc(pooled ? APP_WAIT_BYTES : n);
	assert(w);
	memset(w, 0, n);
	w->pooled = pooled;
	return w;
}

void *app_wait_new(struct app *a, uint64_t task, size_t n)
{
	struct app_wait *w = wait_block(a, n);

	w->app = a;
	w->task = task;
	w->next = a->waits;
	w->prev = &a->waits;
	if (w->next)
		w->next->prev = &w->next;
	a->waits = w;
	return w;
}

void app_wait_free(struct app_wait *w)
{
	if (w->next)
		w->next->prev = w->prev;
	*w->prev = w->next;
	if (!w->pooled) {
		free(w);
		return;
	}
	w->next = w->app->free_waits;
	w->app->free_waits = w;
}

void app_waits_close(struct app *a)
{
	while (a->waits) {
		rpc_cancel(a->worker, a->waits->call);
		app_wait_free(a->waits);
	}
	while (a->free_waits) {
		struct app_wait *w = a->free_waits;

		a->free_waits = w->next;
		free(w);
	}
}

struct waiting_call {
	struct app_wait wait;
	struct app_job *job; /* whose task waits; NULL: a timer's */
	const struct msg_method *method;
	const struct rpc_answer *answer;
};

const char *app_wait_name(const struct app_wait *w)
{
	return ((const struct waiting_call *)w)->method->full;
}

/* ---- calls that lead back to where they came from ------------------------------------------------------------------- */

static void calling_begin(struct app_job *j, struct app_wait *call)
{
	struct app_job **at = &j->app->calling[j->trace % APP_CALLING];

	j->call = call;
	if (!j->trace) /* it serves nobody's call, so none leads back to it */
		return;
	j->next_calling = *at;
	j->prev_calling = at;
	if (*at)
		(*at)->prev_calling = &j->next_calling;
	*at = j;
}

void app_calling_end(struct app_job *j)
{
	j->call = NULL;
	if (!j->prev_calling)
		return;
	*j->prev_calling = j->next_calling;
	if (j->next_calling)
		j->next_calling->prev_calling = j->prev_calling;
	j->prev_calling = NULL;
}

/* A call back is fine: each runs in a task of its own. What goes round and round in one request never ends. */
bool app_cycle(struct app_job *j)
{
	const struct app_job *outer = NULL;
	unsigned n = 0;

	for (const struct app_job *o = j->app->calling[j->trace % APP_CALLING]; o && j->trace; o = o->next_calling)
		if (o->trace == j->trace && o->method == j->method && o->key_n == j->key_n &&
		    !memcmp(o->in.data, j->in.data, j->key_n)) {
			outer = o;
			n++;
		}
	if (n < APP_NESTED_MAX)
		return false;
	snprintf(j->why, sizeof j->why, "deadlock: %s calls %s, which leads back to %s with the same key, %u times",
		 j->method->full, app_wait_name(outer->call), j->method->full, n);
	return true;
}

static int push_answer(lua_State *L, void *arg)
{
	struct waiting_call *c = arg;
	char why[256];

	if (c->answer->err < 0)
		return app_push_error(L, c->answer->err, c->answer->message, c->answer->effect);
	if (lua_pb_decode(L, c->method->out, c->answer->body.p, c->answer->body.n, NULL, why, sizeof why) < 0)
		return app_push_error(L, ERR_FAILED, span_of(why, strlen(why)), EFFECT_DONE);
	return 1;
}

static void on_answer(void *arg, const struct rpc_answer *answer)
{
	struct waiting_call *c = arg;

	c->answer = answer;
	if (c->job && luatask_alive(c->wait.app->host, c->wait.task))
		app_calling_end(c->job);
	luatask_resume(c->wait.app->host, c->wait.task, push_answer, c);
	app_wait_free(&c->wait);
}

#define TIMEOUT_MAX_MS 3600000

static lua_Integer option_int(lua_State *L, const char *name, lua_Integer min, lua_Integer max)
{
	int is = 0;
	lua_Integer v = lua_tointegerx(L, -1, &is);

	if (!is || v < min || v > max)
		app_raise(L, "option %s: a whole number from %lld to %lld was expected", name, (long long)min,
			  (long long)max);
	return v;
}

static struct span option_text(lua_State *L, const char *name)
{
	struct span s;

	if (lua_type(L, -1) != LUA_TSTRING)
		app_raise(L, "option %s: expected text, found a %s", name, luaL_typename(L, -1));
	s.p = lua_tolstring(L, -1, &s.n);
	return s;
}

/* A plain method given a once-key would run as often as it is asked: who gives one believes that it runs once. */
static struct span option_once(lua_State *L, const struct msg_method *m)
{
	struct span key = option_text(L, "once");

	if (m->kind != MSG_ONCE)
		app_raise(L, "option once: %s is no once-method (option (loquat.kind) = ONCE in its .proto)", m->full);
	if (!key.n || key.n > 256)
		app_raise(L, "once: 1 to 256 bytes");
	return key;
}

/* The option whose value is on the top of the stack. */
static void read_option(lua_State *L, const char *name, struct rpc_call *call)
{
	if (!strcmp(name, "timeout_ms"))
		call->timeout_ms = (uint32_t)option_int(L, name, 1, TIMEOUT_MAX_MS);
	else if (!strcmp(name, "once"))
		call->once = option_once(L, call->method);
	else if (!strcmp(name, "instance"))
		call->to.instance = option_text(L, name).p;
	else if (!strcmp(name, "worker"))
		call->to.worker = (int)option_int(L, name, 0, SERVICE_WORKERS_MAX - 1);
	else if (!strcmp(name, "anywhere"))
		call->to.anywhere = lua_toboolean(L, -1);
	else
		app_raise(L, "%s: there is no option %s (timeout_ms, once, instance, worker, anywhere)",
			  call->method->full, name);
}

static void read_options(lua_State *L, int index, struct rpc_call *call)
{
	if (lua_isnoneornil(L, index))
		return;
	luaL_checktype(L, index, LUA_TTABLE);
	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) { /* texts stay anchored in the options' table */
		if (lua_type(L, -2) != LUA_TSTRING)
			app_raise(L, "%s: options are named, as {timeout_ms = 500}", call->method->full);
		read_option(L, lua_tostring(L, -2), call);
	}
}

static struct span key_at(lua_State *L, int index, const struct msg_method *m)
{
	struct span key;

	if (lua_type(L, index) != LUA_TSTRING && lua_type(L, index) != LUA_TNUMBER)
		app_raise(L, "%s: the key: expected text, found %s (key, request, options)", m->full,
			  luaL_typename(L, index));
	key.p = lua_tolstring(L, index, &key.n);
	return key;
}

/* What is left of the caller's own time bounds every hop. */
static uint32_t bounded_timeout(const struct app *a, const struct app_job *j, uint32_t wanted)
{
	uint64_t now = a->worker->loop->now_ms, left;

	if (!j || j->deadline_ms == UINT64_MAX)
		return wanted;
	left = j->deadline_ms > now ? j->deadline_ms - now : 1;
	if (!wanted)
		wanted = a->worker->client->timeout_ms;
	return wanted < left ? wanted : (uint32_t)left;
}

static int invoke(lua_State *L)
{
	struct app *a = app_of(L);
	struct app_job *j = app_job_of(L);
	bool send = lua_toboolean(L, lua_upvalueindex(2));
	struct rpc_call call = { .method = lua_touserdata(L, lua_upvalueindex(1)), .to.worker = -1 };
	char why[256];
	uint64_t task = 0;

	if (send)
		app_check_runs(L);
	call.to.key = key_at(L, 1, call.method);
	read_options(L, 3, &call);
	if (!send) {
		app_check_may_wait(L);
		task = luatask_wait(L);
	}
	buf_clear(&a->scratch);
	if (lua_pb_encode(L, 2, call.method->in, &a->scratch, why, sizeof why) < 0)
		app_raise(L, "%s: %s", call.method->full, why);
	call.body = span_of(a->scratch.data, a->scratch.len);
	call.timeout_ms = bounded_timeout(a, j, call.timeout_ms);
	call.trace = j ? j->trace : 0;
	if (j && call.method->kind != MSG_READ)
		j->called = true;
	if (send) {
		rpc_call(a->worker, &call);
		return 0;
	}
	struct waiting_call *c = app_wait_new(a, task, sizeof *c);

	c->method = call.method;
	call.on_answer = on_answer;
	call.arg = c;
	c->job = j;
	c->wait.call = rpc_call(a->worker, &call);
	if (j)
		calling_begin(j, &c->wait);
	return luatask_yield(L);
}

static int path_index(lua_State *L);

static void push_path(lua_State *L, const char *prefix, bool send)
{
	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushstring(L, prefix);
	lua_pushboolean(L, send);
	lua_pushcclosure(L, path_index, 2);
	lua_setfield(L, -2, "__index");
	lua_setmetatable(L, -2);
}

/* Names become tables, the third a function; each is made once. */
static int path_index(lua_State *L)
{
	struct app *a = app_of(L);
	const char *prefix = lua_tostring(L, lua_upvalueindex(1)), *name = luaL_checkstring(L, 2);
	bool send = lua_toboolean(L, lua_upvalueindex(2));
	char full[128];
	const char *dot = strchr(prefix, '.');

	snprintf(full, sizeof full, "%s%s%s", prefix, *prefix ? "." : "", name);
	if (!dot) {
		push_path(L, full, send);
	} else {
		const struct msg_method *m = schema_method(a->worker->service->schema, full, strlen(full));

		if (!m)
			return luaL_error(L, "app.rpc: there is no method %s in proto/", full);
		lua_pushlightuserdata(L, (void *)m);
		lua_pushboolean(L, send);
		lua_pushcclosure(L, invoke, 2);
	}
	lua_pushvalue(L, 2);
	lua_pushvalue(L, -2);
	lua_rawset(L, 1);
	return 1;
}

/* ---- tasks ---------------------------------------------------------------------------------------------------------------- */

/* The table holds the function and its arguments, any of which may be nil, and at 0 how many they are. */
static int push_task(lua_State *L, struct luajob *self)
{
	struct app_job *j = (struct app_job *)self;
	int n;

	lua_rawgeti(L, LUA_REGISTRYINDEX, j->function);
	int list = lua_gettop(L);

	lua_rawgeti(L, list, 0);
	n = (int)lua_tointeger(L, -1);
	lua_pop(L, 1);
	luaL_checkstack(L, n + 1, "too many arguments");
	for (int i = 1; i <= n; i++)
		lua_rawgeti(L, list, i);
	lua_remove(L, list);
	return n - 1;
}

/* app.task(fn, …): runs fn in a task of its own, whose changes are committed at its end. */
static int app_task(lua_State *L)
{
	struct app *a = app_of(L);
	const struct luajob *parent = luahost_job(L);
	uint64_t trace = parent ? parent->trace : 0; /* what it does is done for whom its starter worked */
	const struct app_job *asker = app_job_of(L);
	struct app_job *j;
	int n = lua_gettop(L);

	app_check_runs(L);
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_createtable(L, n, 1);
	lua_pushinteger(L, n);
	lua_rawseti(L, -2, 0);
	for (int i = 1; i <= n; i++) {
		lua_pushvalue(L, i);
		lua_rawseti(L, -2, i);
	}
	int function = luaL_ref(L, LUA_REGISTRYINDEX);

	j = app_job_new(a, APP_TASK);
	j->function = function;
	buf_clear(&j->in);
	if (asker && asker->key_n) { /* what it records is its starter's key's */
		buf_add(&j->in, asker->in.data, asker->key_n);
		j->key_n = asker->key_n;
		j->moved = asker->moved;
	}
	j->trace = j->job.trace = trace;
	j->job.name = "app.task";
	j->job.push = push_task;
	j->deadline_ms = UINT64_MAX;
	luatask_start(a->host, &j->job);
	return 0;
}

/* What stands in a queue for a task that waits. Woken once, whatever scripts do with it. */
#define WAITING_META "loquat.waiting"
struct waiting {
	uint64_t task; /* 0: woken */
};

/* app.wait(queue): yields until somebody calls app.wake(queue). The queue is a table of the caller's. */
static int app_wait(lua_State *L)
{
	uint64_t task;

	luaL_checktype(L, 1, LUA_TTABLE);
	app_check_may_wait(L);
	task = luatask_wait(L);
	struct waiting *w = lua_newuserdatauv(L, sizeof *w, 0);

	w->task = task;
	luaL_setmetatable(L, WAITING_META);
	lua_rawseti(L, 1, (lua_Integer)lua_rawlen(L, 1) + 1);
	return luatask_yield(L);
}

/* app.wake(queue): those who wait go on at the end of this turn, in the order they came; the queue is empty again. */
static int app_wake(lua_State *L)
{
	struct app *a = app_of(L);
	lua_Integer n;

	luaL_checktype(L, 1, LUA_TTABLE);
	n = (lua_Integer)lua_rawlen(L, 1);
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, 1, i);
		struct waiting *w = luaL_testudata(L, -1, WAITING_META);

		if (w && w->task) {
			buf_add(&a->woken, &w->task, sizeof w->task);
			w->task = 0;
		}
		lua_pop(L, 1);
		lua_pushnil(L);
		lua_rawseti(L, 1, i);
	}
	if (a->woken.len && !a->closing)
		loop_defer(a->worker->loop, &a->wake);
	return 0;
}

void app_wake_task(struct app *a, uint64_t task)
{
	buf_add(&a->woken, &task, sizeof task);
	if (!a->closing)
		loop_defer(a->worker->loop, &a->wake);
}

#define WAKES_PER_TURN 1000 /* who wake each other for ever must not stop the others */

static void wakes_run(struct app *a)
{
	for (unsigned i = 0; i < WAKES_PER_TURN && a->woken_at < a->woken.len; i++) {
		uint64_t task;

		memcpy(&task, a->woken.data + a->woken_at, sizeof task);
		a->woken_at += sizeof task;
		luatask_resume(a->host, task, NULL, NULL);
	}
	if (a->woken_at < a->woken.len) {
		loop_timer(a->worker->loop, &a->wake_more, 0);
		return;
	}
	a->woken_at = 0;
	buf_clear(&a->woken);
}

static void on_wake(struct loop_deferred *d)
{
	struct app *a = (struct app *)((char *)d - offsetof(struct app, wake));

	if (!timer_running(&a->wake_more))
		wakes_run(a);
}

static void on_wake_more(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	wakes_run((struct app *)((char *)t - offsetof(struct app, wake_more)));
}

void app_wakes_open(struct app *a)
{
	a->wake.run = on_wake;
	a->wake_more.fire = on_wake_more;
}

/* ---- what this instance is ------------------------------------------------------------------------------------------------- */

/* Whether a value of this type stands there: the fallback is not taken, whatever it is. */
static bool config_holds(const struct config *c, const char *path, int type, bool whole)
{
	if (type == LUA_TBOOLEAN)
		return config_bool(c, path, false) == config_bool(c, path, true);
	if (type == LUA_TNUMBER)
		return whole ? config_int(c, path, 0) == config_int(c, path, 1)
			     : config_number(c, path, 0) == config_number(c, path, 1);
	return config_string(c, path, NULL) != NULL;
}

static bool config_fits(lua_State *L, const struct config *c, const char *path)
{
	bool is_there = config_holds(c, path, LUA_TBOOLEAN, false) || config_holds(c, path, LUA_TNUMBER, false) ||
			config_holds(c, path, LUA_TSTRING, false);

	return !is_there || config_holds(c, path, lua_type(L, 2), lua_isinteger(L, 2));
}

/* app.config(path, otherwise): a value of the cluster file, of the type of otherwise. */
static int app_config(lua_State *L)
{
	const struct config *c = app_of(L)->worker->service->config;
	const char *path = luaL_checkstring(L, 1);

	if (!lua_isnone(L, 2) && !config_fits(L, c, path))
		app_raise(L, "app.config: %s is of another type than the value to use when it is absent, %s", path,
			  luaL_tolstring(L, 2, NULL));
	switch (lua_type(L, 2)) {
	case LUA_TBOOLEAN: lua_pushboolean(L, config_bool(c, path, lua_toboolean(L, 2))); break;
	case LUA_TNUMBER:
		if (lua_isinteger(L, 2))
			lua_pushinteger(L, config_int(c, path, lua_tointeger(L, 2)));
		else
			lua_pushnumber(L, config_number(c, path, lua_tonumber(L, 2)));
		break;
	case LUA_TSTRING: lua_pushstring(L, config_string(c, path, lua_tostring(L, 2))); break;
	default: return luaL_argerror(L, 2, "the value to use when it is absent");
	}
	return 1;
}

/* app.owner(service, key) -> instance, or nil: who owns the key by the route table of now. */
static int app_owner(lua_State *L)
{
	struct worker *w = app_of(L)->worker;
	size_t n;
	const char *service = luaL_checkstring(L, 1), *key = luaL_checklstring(L, 2, &n);
	const struct route_row *row = route_owner(w->routes, service, key, n);

	lua_pushstring(L, row ? row->id : NULL); /* NULL pushes nil */
	return 1;
}

/* app.owns(key) -> owns, coming: whether this worker may answer for the key, and nobody else does; else whether it will soon. */
static int app_owns(lua_State *L)
{
	size_t n;
	const char *key = luaL_checklstring(L, 1, &n);

	lua_pushboolean(L, app_moves_owns(app_of(L), route_hash(key, n)));
	lua_pushboolean(L, app_moves_awaits(app_of(L), route_hash(key, n)));
	return 2;
}

/* app.instances(service) -> list of {id, workers} */
static int app_instances(lua_State *L)
{
	struct worker *w = app_of(L)->worker;
	const char *service = luaL_checkstring(L, 1);
	lua_Integer n = 0;

	lua_newtable(L);
	for (size_t i = 0; i < w->routes->rows; i++) {
		const struct route_row *row = &w->routes->row[i];

		if (strcmp(row->service, service))
			continue;
		lua_createtable(L, 0, 2);
		lua_pushstring(L, row->id);
		lua_setfield(L, -2, "id");
		lua_pushinteger(L, row->workers);
		lua_setfield(L, -2, "workers");
		lua_rawseti(L, -2, ++n);
	}
	return 1;
}

/* app.key(name) -> text: a secret of paths.var/keys for the service itself, such as a platform's. */
static int app_key(lua_State *L)
{
	struct service *s = app_of(L)->worker->service;
	const char *name = luaL_checkstring(L, 1);
	char folder[ENV_PATH_MAX + 8], key[KEY_HEX + 1], error[ENV_PATH_MAX + 128];

	if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != strlen(name) || strstr(name, ".."))
		return luaL_argerror(L, 1, "a plain file name");
	snprintf(folder, sizeof folder, "%s/keys", s->var);
	if (key_load(s->env, folder, name, key, error, sizeof error) < 0)
		return luaL_error(L, "%s", error);
	lua_pushstring(L, key);
	return 1;
}

/* app.hmac(key, text) -> hex HMAC-SHA256; app.same(a, b): compares in constant time. */
static int app_hmac(lua_State *L)
{
	size_t n;
	const char *key = luaL_checkstring(L, 1), *text = luaL_checklstring(L, 2, &n);
	char hex[TOKEN_HMAC_HEX];

	token_hmac_hex(key, text, n, hex);
	lua_pushstring(L, hex);
	return 1;
}

static int app_same(lua_State *L)
{
	size_t a_n, b_n;
	const char *a = luaL_checklstring(L, 1, &a_n), *b = luaL_checklstring(L, 2, &b_n);

	lua_pushboolean(L, token_equal(a, a_n, b, b_n));
	return 1;
}

/* app.nonce() -> 16 hex digits nobody can guess. */
static int app_nonce(lua_State *L)
{
	uint8_t random[8];
	char text[TOKEN_NONCE_MAX];

	env_random(app_of(L)->worker->loop->env, random, sizeof random);
	token_nonce(random, text);
	lua_pushstring(L, text);
	return 1;
}

int app_rpc_lib(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "push", app_push },   { "kick", app_kick },     { "task", app_task },
		{ "wait", app_wait },   { "wake", app_wake },     { "config", app_config },
		{ "owner", app_owner }, { "owns", app_owns },     { "instances", app_instances },
		{ "key", app_key },     { "hmac", app_hmac },     { "same", app_same },
		{ "nonce", app_nonce }, { "room", app_room_new }, { "rooms", app_room_list },
		{ NULL, NULL },
	};
	struct worker *w = app_of(L)->worker;

	app_session_open(L);
	app_room_open(L);
	luaL_newmetatable(L, WAITING_META);
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	push_path(L, "", false);
	lua_setfield(L, -2, "rpc");
	push_path(L, "", true);
	lua_setfield(L, -2, "send");
	lua_pushstring(L, w->service->id);
	lua_setfield(L, -2, "instance");
	lua_pushinteger(L, w->index);
	lua_setfield(L, -2, "worker");
	lua_pushinteger(L, w->service->workers);
	lua_setfield(L, -2, "workers");
	lua_pushinteger(L, (lua_Integer)w->service->epoch);
	lua_setfield(L, -2, "epoch");
	return 1;
}
