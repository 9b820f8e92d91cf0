/* What tests see as `test`: the part that is C. The rest is test.lua. */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_pb.h"
#include "common/luahost_private.h"
#include "deploy/luatest/luatest.h"

const char test_sessions;       /* registry: the sessions' tables by their number */
static const char test_control; /* registry: {names, run} of test.lua */

static const struct msg_method *check_method(lua_State *L, int index)
{
	size_t n;
	const char *full = luaL_checklstring(L, index, &n);
	const struct msg_method *m = schema_method(luatest_world->t->schema, full, n);

	if (!m)
		luaL_error(L, "there is no method %s in proto/", full);
	return m;
}

static const struct msg_method *check_own(lua_State *L, int index)
{
	const struct msg_method *m = check_method(L, index);

	if (!call_is_own(luatest_world, m))
		luaL_error(L, "%s is not this service's: test.fake puts a function in its place", m->full);
	return m;
}

static uint64_t push_begun(lua_State *L, struct call *c, lua_Integer timeout_ms)
{
	c->outer = true;
	c->trace = ++luatest_world->client.trace;
	c->deadline_ms = luatest_world->loop->now_ms + (uint64_t)timeout_ms;
	lua_pushinteger(L, (lua_Integer)c->handle);
	return c->handle;
}

/* request(sid, connector, uid, route, message, timeout_ms) -> handle */
static int l_request(lua_State *L)
{
	struct call *c = call_new(luatest_world, check_own(L, 4));
	char why[LUA_WHY_MAX];
	size_t n;

	c->sid = (uint64_t)luaL_checkinteger(L, 1);
	snprintf(c->from, sizeof c->from, "%s", luaL_checkstring(L, 2));
	buf_addstr(&c->uid, luaL_checklstring(L, 3, &n));
	buf_addstr(&c->key, luaL_checkstring(L, 3));
	c->json = true;
	if (lua_json_encode(L, 5, NULL, &c->body, why, sizeof why) < 0)
		return luaL_error(L, "%s: %s", c->method->full, why);
	push_begun(L, c, luaL_checkinteger(L, 6));
	call_deliver(c);
	return 1;
}

/* call(method, key, args, from, once, timeout_ms) -> handle */
static int l_call(lua_State *L)
{
	struct call *c = call_new(luatest_world, check_own(L, 1));
	char why[LUA_WHY_MAX];

	buf_addstr(&c->key, luaL_checkstring(L, 2));
	if (lua_pb_encode(L, 3, c->method->in, &c->body, why, sizeof why) < 0)
		return luaL_error(L, "%s: %s", c->method->full, why);
	const char *callers = c->method->callers;

	if (callers)
		snprintf(c->from, sizeof c->from, "%.*s-1", (int)strcspn(callers, ","), callers);
	else
		snprintf(c->from, sizeof c->from, "test-1");
	if (!lua_isnoneornil(L, 4))
		snprintf(c->from, sizeof c->from, "%s", luaL_checkstring(L, 4));
	buf_addstr(&c->once, luaL_optstring(L, 5, ""));
	push_begun(L, c, luaL_checkinteger(L, 6));
	call_deliver(c);
	return 1;
}

static void on_http(void *arg, int status, const char *content, size_t n)
{
	struct call *c = arg;

	c->status = status;
	call_end(c, 0, EFFECT_DONE, "", (struct span){ content, n });
}

/* http(method, path, body, signature) -> handle */
static int l_http(lua_State *L)
{
	struct app *a = luatest_world->worker.app;
	struct call *c = call_new(luatest_world, NULL);
	struct app_http q = { .method = luaL_checkstring(L, 1),
			      .path = luaL_checkstring(L, 2),
			      .signature = luaL_optstring(L, 4, NULL),
			      .on_answer = on_http,
			      .arg = c };

	q.body = luaL_optlstring(L, 3, "", &q.body_n);
	if (!app_has_http(a))
		return luaL_error(L, "init.lua has no function http");
	push_begun(L, c, 60000);
	app_http(a, &q);
	return 1;
}

static struct call *check_call(lua_State *L)
{
	lua_Integer handle = luaL_checkinteger(L, 1);

	luaL_argcheck(L, handle >= 1 && (size_t)handle <= luatest_world->calls, 1, "a call");
	return luatest_world->call[handle - 1];
}

/* wait(handle): yields until it has ended; its results. */
static int l_wait(lua_State *L)
{
	struct call *c = check_call(L);

	if (c->done)
		return call_push_result(L, c);
	c->task = luatask_wait(L);
	return luatask_yield(L);
}

/* settle(): yields until all that is due now has run. */
static int l_settle(lua_State *L)
{
	struct call *c = call_new(luatest_world, NULL);

	c->outer = true;
	c->task = luatask_wait(L);
	call_end(c, 0, EFFECT_NONE, "", (struct span){ "", 0 });
	return luatask_yield(L);
}

static int l_done(lua_State *L)
{
	lua_pushboolean(L, check_call(L)->done);
	return 1;
}

/* cancel(handle): nobody waits for it any more. */
static int l_cancel(lua_State *L)
{
	struct call *c = check_call(L);
	rpc_gone *gone = c->done ? NULL : c->gone;

	call_end(c, ERR_UNAVAILABLE, EFFECT_UNKNOWN, "cancelled", (struct span){ "", 0 });
	if (gone)
		gone(c->gone_arg, ERR_UNAVAILABLE);
	return 0;
}

/* fake(method, fn): fn nil: no more. */
static int l_fake(lua_State *L)
{
	int *ref = &luatest_world->fake[check_method(L, 1)->index];

	luaL_unref(L, LUA_REGISTRYINDEX, *ref);
	*ref = LUA_NOREF;
	if (!lua_isnoneornil(L, 2)) {
		luaL_checktype(L, 2, LUA_TFUNCTION);
		lua_settop(L, 2);
		*ref = luaL_ref(L, LUA_REGISTRYINDEX);
	}
	return 0;
}

static void push_made(lua_State *L, const struct call *c)
{
	char why[LUA_WHY_MAX];

	lua_createtable(L, 0, 4);
	if (lua_pb_decode(L, c->method->in, c->body.len ? c->body.data : "", c->body.len, NULL, why, sizeof why) < 0)
		luaL_error(L, "%s: %s", c->method->full, why);
	lua_setfield(L, -2, "args");
	lua_pushlstring(L, c->key.len ? c->key.data : "", c->key.len);
	lua_setfield(L, -2, "key");
	lua_pushboolean(L, c->send);
	lua_setfield(L, -2, "send");
	if (c->once.len) {
		lua_pushlstring(L, c->once.data, c->once.len);
		lua_setfield(L, -2, "once");
	}
}

/* calls(method): what the service has called so far: a list of {key, args, send, once}. */
static int l_calls(lua_State *L)
{
	const struct msg_method *m = check_method(L, 1);
	lua_Integer n = 0;

	lua_newtable(L);
	for (size_t i = 0; i < luatest_world->calls; i++) {
		const struct call *c = luatest_world->call[i];

		if (c->outer || c->method != m)
			continue;
		push_made(L, c);
		lua_rawseti(L, -2, ++n);
	}
	return 1;
}

/* ---- the database ------------------------------------------------------------------------------------------- */

static void add_values(lua_State *L, struct buf *out, const char *sql)
{
	struct sql_value value[64];
	int n = lua_gettop(L) - 1;
	char why[256];

	luaL_argcheck(L, n <= 64, 66, "at most 64 values");
	for (int i = 0; i < n; i++) {
		struct sql_value *v = &value[i];

		if (lua_isnil(L, i + 2)) {
			v->type = SQL_NULL;
		} else if (lua_isinteger(L, i + 2)) {
			v->type = SQL_INT;
			v->i = lua_tointeger(L, i + 2);
		} else if (lua_type(L, i + 2) == LUA_TNUMBER) {
			v->type = SQL_DOUBLE;
			v->d = lua_tonumber(L, i + 2);
		} else {
			v->type = SQL_TEXT;
			v->s.p = luaL_checklstring(L, i + 2, &v->s.n);
		}
	}
	if (sql_format(out, sql, value, (size_t)n, why, sizeof why) < 0) {
		buf_release(out);
		luaL_error(L, "%s", why);
	}
}

static void push_row(lua_State *L, const struct result *r, unsigned row)
{
	lua_createtable(L, 0, (int)r->columns);
	for (unsigned i = 0; i < r->columns; i++) {
		size_t at = (size_t)row * r->columns + i;

		if (!r->cells[at])
			continue;
		lua_pushlstring(L, r->cells[at], r->cell_bytes[at]);
		if (r->column[i].type != ENV_DB_TEXT && lua_stringtonumber(L, lua_tostring(L, -1)))
			lua_remove(L, -2);
		lua_setfield(L, -2, r->column[i].name);
	}
}

/* rows(sql, …): runs it on the tables of this test; a list of rows. */
static int l_rows(lua_State *L)
{
	struct buf sql = BUF_INIT;
	struct result r = { .rows = 0 };

	add_values(L, &sql, luaL_checkstring(L, 1));
	unsigned code = store_run(luatest_world, sql.data, sql.len, &r);

	buf_release(&sql);
	if (code) {
		lua_pushfstring(L, "%s", r.error.message);
		arena_release(&r.arena);
		return luaL_error(L, "%s", lua_tostring(L, -1));
	}
	lua_createtable(L, (int)r.rows, 0);
	for (unsigned i = 0; i < r.rows; i++) {
		push_row(L, &r, i);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	arena_release(&r.arena);
	return 1;
}

/* records(): what was written to the SQL log: a list of {keys, sql}. */
static int l_records(lua_State *L)
{
	lua_Integer n = 0;

	lua_newtable(L);
	for (struct record *r = luatest_world->records; r; r = r->next) {
		lua_createtable(L, 0, 2);
		lua_pushstring(L, r->keys);
		lua_setfield(L, -2, "keys");
		lua_pushstring(L, r->sql);
		lua_setfield(L, -2, "sql");
		lua_rawseti(L, -2, ++n);
	}
	return 1;
}

/* sqllog(word): records are answered so from now on; "unknown": taken and lost; nil: they work. */
static int l_sqllog(lua_State *L)
{
	const char *word = luaL_optstring(L, 1, NULL);
	int err = word ? err_from_word(word) : 0;

	luaL_argcheck(L, !word || err < 0, 1, "busy, unavailable, unknown or nil");
	luatest_world->record_err = err;
	return 0;
}

static int l_database(lua_State *L)
{
	luatest_world->db_away = lua_toboolean(L, 1);
	return 0;
}

/* ---- time, hooks, the log ------------------------------------------------------------------------------------- */

/* allow(ms): the test means to wait so long. */
static int l_allow(lua_State *L)
{
	lua_Integer ms = luaL_checkinteger(L, 1);

	luaL_argcheck(L, ms >= 0 && ms <= INT64_C(400) * 86400 * 1000, 1, "milliseconds from 0");
	luatest_world->limit_ns += (uint64_t)ms * 1000000;
	return 0;
}

/* at(seconds since 1970): the wall clock stands there now. */
static int l_at(lua_State *L)
{
	luatest_world->wall_us = (uint64_t)(luaL_checknumber(L, 1) * 1e6);
	luahost_clock_was_set(luahost_of(L));
	return 0;
}

/* hook(name, text, flag): on_peer, on_lost */
static int l_hook(lua_State *L)
{
	struct worker *w = &luatest_world->worker;
	const char *name = luaL_checkstring(L, 1), *text = luaL_optstring(L, 2, "");

	if (!strcmp(name, "on_peer"))
		w->on_peer(w, text, 1, lua_toboolean(L, 3));
	else
		app_hook(w->app, name, text, lua_toboolean(L, 3));
	return 0;
}

static int l_log(lua_State *L)
{
	lua_pushlstring(L, luatest_world->log.len ? luatest_world->log.data : "", luatest_world->log.len);
	return 1;
}

static int l_traceback(lua_State *L)
{
	if (lua_type(L, 1) != LUA_TSTRING)
		return 1;
	luaL_traceback(L, L, lua_tostring(L, 1), 2);
	return 1;
}

/* finish(ok, why) */
static int l_finish(lua_State *L)
{
	struct world *x = luatest_world;
	size_t n;
	const char *why = luaL_tolstring(L, 2, &n);

	if (x->ended)
		return 0;
	x->ended = true;
	x->ok = lua_toboolean(L, 1);
	buf_clear(&x->why);
	if (!x->ok)
		buf_add(&x->why, why, n);
	return 0;
}

int test_library(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "request", l_request },     { "call", l_call },       { "http", l_http },
		{ "wait", l_wait },           { "done", l_done },       { "settle", l_settle },
		{ "cancel", l_cancel },       { "fake", l_fake },       { "calls", l_calls },
		{ "rows", l_rows },           { "records", l_records }, { "sqllog", l_sqllog },
		{ "database", l_database },   { "allow", l_allow },     { "at", l_at },
		{ "hook", l_hook },           { "log", l_log },         { "finish", l_finish },
		{ "traceback", l_traceback }, { NULL, NULL },
	};
	struct tester *t = luatest_world->t;

	if (luaL_loadbufferx(L, t->prelude, t->prelude_n, "@deploy/luatest/test.lua", "t") != LUA_OK)
		return lua_error(L);
	luahost_push_env(L, luahost_of(L));
	lua_setupvalue(L, -2, 1);
	luaL_newlib(L, functions);
	lua_newtable(L);
	lua_pushvalue(L, -1);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &test_sessions);
	lua_setfield(L, -2, "sessions");
	lua_call(L, 1, 2); /* test, control */
	lua_rawsetp(L, LUA_REGISTRYINDEX, &test_control);
	return 1;
}

/* ---- for the runner --------------------------------------------------------------------------------------------- */

static void push_control(lua_State *L, const char *name)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &test_control);
	lua_getfield(L, -1, name);
	lua_remove(L, -2);
}

struct loading {
	const char *module;
	int tests;
};

static int load_file(lua_State *L, void *arg)
{
	struct loading *l = arg;

	luahost_push_module(L, l->module);
	push_control(L, "count");
	lua_call(L, 0, 1);
	l->tests = (int)lua_tointeger(L, -1);
	return 0;
}

int test_count(struct world *x, const char *module)
{
	struct loading l = { module, 0 };
	char why[1024];

	if (luahost_try(app_host(x->worker.app), load_file, &l, why, sizeof why) == 0)
		return l.tests;
	buf_addstr(&x->why, why);
	return ERR_FAILED;
}

static int read_name(lua_State *L, void *arg)
{
	struct buf *out = arg;

	push_control(L, "name");
	lua_pushinteger(L, luatest_world->index);
	lua_call(L, 1, 1);
	buf_addstr(out, lua_tostring(L, -1));
	return 0;
}

const char *test_name(struct world *x, int index, struct buf *out)
{
	buf_clear(out);
	x->index = index;
	luahost_protected(app_host(x->worker.app), read_name, out);
	return buf_cstr(out);
}

static int push_test(lua_State *L, struct luajob *job)
{
	(void)job;
	push_control(L, "run");
	lua_pushinteger(L, luatest_world->index);
	return 1;
}

static void test_done(struct luajob *job, const struct luaresult *r)
{
	struct world *x = luatest_world;

	(void)job;
	if (x->ended)
		return;
	x->ended = true;
	buf_addstr(&x->why, r->err < 0 ? r->message : "the test ended in the middle");
}

void test_start(struct world *x, int index)
{
	x->index = index;
	x->job = (struct luajob){ .name = "test", .push = push_test, .done = test_done };
	luatask_start(app_host(x->worker.app), &x->job);
}
