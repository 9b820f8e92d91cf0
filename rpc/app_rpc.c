#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include "common/lua_pb.h"
#include "rpc/app_private.h"

/* app.rpc.SERVICE.GROUP.METHOD(key, args, options), and app.send: calls of other instances. */

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
#define NO_METHOD      "app.rpc: there is no method %s in proto/, as `make` has built it last"

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

/* A function that scripts keep stays what it was made for, whatever messages have been taken since. */
static const struct msg_method *method_of(lua_State *L, const struct app *a)
{
	const struct msg_method *made_for = lua_touserdata(L, lua_upvalueindex(1));
	const struct msg_method *m = schema_method_now(a->worker->schema, made_for);

	if (!m)
		app_raise(L, NO_METHOD, made_for->full);
	return m;
}

static int invoke(lua_State *L)
{
	struct app *a = app_of(L);
	struct app_job *j = app_job_of(L);
	bool send = lua_toboolean(L, lua_upvalueindex(2));
	struct rpc_call call = { .method = method_of(L, a), .to.worker = -1 };
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
static int call_of_path(lua_State *L);

/* What scripts see is an empty table: what has been made is kept in one behind it, so that no assignment finds it there. */
static void push_path(lua_State *L, const char *prefix, bool send)
{
	char name[140];

	snprintf(name, sizeof name, "app.%s%s%s", send ? "send" : "rpc", *prefix ? "." : "", prefix);
	lua_newtable(L);
	lua_createtable(L, 0, 4);
	luahost_guard_fields(L, name);
	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_pushstring(L, prefix);
	lua_pushboolean(L, send);
	lua_pushcclosure(L, path_index, 2);
	lua_setfield(L, -2, "__index");
	lua_setmetatable(L, -2);
	lua_setfield(L, -2, "__index");
	lua_pushstring(L, prefix);
	lua_pushboolean(L, send);
	lua_pushcclosure(L, call_of_path, 2);
	lua_setfield(L, -2, "__call");
	lua_setmetatable(L, -2);
}

static int call_of_path(lua_State *L)
{
	return luaL_error(L, "app.%s.%s is no method: expected app.%s.SERVICE.REMOTE.METHOD(key, request, options)",
			  lua_toboolean(L, lua_upvalueindex(2)) ? "send" : "rpc", lua_tostring(L, lua_upvalueindex(1)),
			  lua_toboolean(L, lua_upvalueindex(2)) ? "send" : "rpc");
}

/* Whether a method's name begins so: a service's, or a remote's. */
static bool leads_somewhere(const struct schema *schema, const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < schema_methods(schema); i++) {
		const char *full = schema_method_at(schema, i)->full;

		if (!strncmp(full, path, n) && full[n] == '.')
			return true;
	}
	return false;
}

/*
 * Names become tables, the third a function; each that leads somewhere is made once, and set in the table that was asked, the one
 * behind.
 */
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
		if (!leads_somewhere(a->schema, full))
			return 1;
	} else {
		const struct msg_method *m = schema_method(a->schema, full, strlen(full));

		if (!m)
			return luaL_error(L, NO_METHOD, full);
		if (m->is_handler)
			return luaL_error(L, "app.rpc: %s is a client's request: services call remotes", full);
		lua_pushlightuserdata(L, (void *)m);
		lua_pushboolean(L, send);
		lua_pushcclosure(L, invoke, 2);
	}
	lua_pushvalue(L, 2);
	lua_pushvalue(L, -2);
	lua_rawset(L, 1);
	return 1;
}

void app_push_calls(lua_State *L, bool send)
{
	push_path(L, "", send);
}
