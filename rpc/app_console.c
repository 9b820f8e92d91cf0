#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"
#include "common/lua_json.h"
#include "rpc/app_private.h"

/*
 * What an operator types, run in a task of this worker as any request is: it may wait and call, and what it changes by db
 * is committed at its end. Its globals are kept from one line to the next, apart from those of the service.
 */

/* console.sessions() -> list of {uid, sid, connector, waiting, busy, idle_ms} */
static int l_sessions(lua_State *L)
{
	struct app *a = app_of(L);
	int n = 0;

	lua_newtable(L);
	for (size_t i = 0; i < APP_SESSION_BUCKETS; i++)
		for (const struct app_session *s = a->bucket[i]; s; s = s->next) {
			lua_createtable(L, 0, 6);
			lua_rawgeti(L, LUA_REGISTRYINDEX, s->table);
			lua_pushliteral(L, "uid");
			lua_rawget(L, -2);
			lua_remove(L, -2);
			lua_setfield(L, -2, "uid");
			lua_pushinteger(L, (lua_Integer)s->sid);
			lua_setfield(L, -2, "sid");
			lua_pushstring(L, s->instance);
			lua_setfield(L, -2, "connector");
			lua_pushinteger(L, s->queue.waiting);
			lua_setfield(L, -2, "waiting");
			lua_pushstring(L, s->queue.job ? s->queue.job->name : "");
			lua_setfield(L, -2, "busy");
			lua_pushinteger(L, (lua_Integer)(a->worker->loop->now_ms - s->used_ms));
			lua_setfield(L, -2, "idle_ms");
			lua_rawseti(L, -2, ++n);
		}
	return 1;
}

static int l_version(lua_State *L)
{
	lua_pushstring(L, luahost_version(app_of(L)->host));
	return 1;
}

static int open_env(lua_State *L, void *arg)
{
	static const luaL_Reg functions[] = {
		{ "sessions", l_sessions },     { "version", l_version },       { "tasks", luahost_l_tasks },
		{ "timers", luahost_l_timers }, { "memory", luahost_l_memory }, { NULL, NULL },
	};
	struct app *a = arg;

	luahost_push_open_env(L);
	luaL_newlib(L, functions);
	lua_setfield(L, -2, "console");
	a->console = luaL_ref(L, LUA_REGISTRYINDEX);
	return 0;
}

/* What JSON has no word for by the name of its type, never by its address. */
static void add_value(lua_State *L, int index, struct buf *out)
{
	char why[LUA_WHY_MAX];

	if (lua_json_encode(L, index, NULL, out, why, sizeof why) == 0)
		return;
	const char *text = luaL_typename(L, index);

	jsontext_quote(out, text, strlen(text));
}

/* The results become the answer's body: a JSON list. */
static int run_end(lua_State *L, int status, lua_KContext context)
{
	struct app *a = app_of(L);
	int n = lua_gettop(L);

	(void)status, (void)context;
	luaL_checkstack(L, 8, "results");
	buf_clear(&a->text);
	buf_addch(&a->text, '[');
	for (int i = 1; i <= n; i++) {
		if (i > 1)
			buf_addch(&a->text, ',');
		add_value(L, i, &a->text);
	}
	buf_addstr(&a->text, "]");
	lua_pushinteger(L, 200);
	lua_pushlstring(L, a->text.data, a->text.len);
	return 2;
}

static bool loads(lua_State *L, const char *code, size_t n)
{
	return luaL_loadbufferx(L, code, n, "=console", "t") == LUA_OK;
}

/* The message on top says that more was expected. */
static bool ends_too_early(lua_State *L)
{
	static const char end[] = "near <eof>";
	size_t n;
	const char *why = lua_tolstring(L, -1, &n);

	return n >= sizeof end - 1 && !strcmp(why + n - (sizeof end - 1), end);
}

/*
 * Pushes the code as a function: an expression, or else statements. false: what is wrong is pushed in its place. What only lacks
 * its end as an expression ("1 +") is no statement, but that would say nothing.
 */
static bool compile(lua_State *L, const char *code, size_t n)
{
	size_t bytes;

	lua_pushliteral(L, "return ");
	lua_pushlstring(L, code, n);
	lua_concat(L, 2);
	int at = lua_gettop(L);
	const char *text = lua_tolstring(L, at, &bytes);
	bool good = loads(L, text, bytes), more = !good && ends_too_early(L);

	if (good || loads(L, code, n)) {
		lua_replace(L, at);
		lua_settop(L, at);
		return true;
	}
	if (more && !ends_too_early(L))
		lua_pop(L, 1);
	if (ends_too_early(L)) {
		lua_pushliteral(L, ": the code ends too early");
		lua_concat(L, 2);
	}
	return false;
}

static int run(lua_State *L)
{
	lua_callk(L, 0, LUA_MULTRET, 0, run_end);
	return run_end(L, LUA_OK, 0);
}

static int push_run(lua_State *L, struct luajob *self)
{
	struct app_job *j = (struct app_job *)self;

	lua_pushcfunction(L, run);
	if (!compile(L, j->in.data, j->body.n)) {
		snprintf(j->why, sizeof j->why, "%s", lua_tostring(L, -1));
		return ERR_BAD_REQUEST;
	}
	lua_rawgeti(L, LUA_REGISTRYINDEX, j->app->console);
	if (luahost_push_require(L))
		lua_setfield(L, -2, "require");
	lua_setupvalue(L, -2, 1);
	return 1;
}

void app_console(struct app *a, const struct app_http *q)
{
	struct app_job *j;

	if (a->console == LUA_NOREF && luahost_protected(a->host, open_env, a) < 0)
		a->console = LUA_NOREF; /* then it raises below, for lack of memory */
	j = app_job_http(a, "console", q);
	j->job.push = push_run;
	luatask_start(a->host, &j->job);
}
