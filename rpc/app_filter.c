#include <lauxlib.h>
#include "rpc/app_private.h"

/*
 * Filters: the hooks before and after of init.lua, around every client's request.
 *
 *   before(session, msg, route)            nil, error, message: refused, and neither the method nor after runs
 *   after(session, answer, route, error)   what it returns, if anything, is the answer
 */

static int after_done(lua_State *L, int status, lua_KContext first)
{
	(void)status;
	int results = (int)first; /* of the method, in front of what after has returned */

	if (lua_gettop(L) > results && !lua_isnil(L, results + 1))
		return lua_gettop(L) - results;
	lua_settop(L, results);
	return results - 2; /* below them: session and route */
}

/* On the stack: session, route, the method's results. */
static int method_done(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	int results = lua_gettop(L);

	if (!luahost_push_hook(L, "after"))
		return results - 2;
	lua_pushvalue(L, 1);
	if (results >= 3)
		lua_pushvalue(L, 3);
	else
		lua_pushnil(L);
	lua_pushvalue(L, 2);
	if (results >= 4)
		lua_pushvalue(L, 4);
	else
		lua_pushnil(L);
	lua_callk(L, 4, LUA_MULTRET, results, after_done);
	return after_done(L, LUA_OK, results);
}

/* On the stack: session, route, n values before has returned, then the method and its arguments. */
static int before_done(lua_State *L, int status, lua_KContext method)
{
	(void)status;
	int arguments = (int)method, returned = lua_gettop(L) - arguments;

	if (returned >= 2 && !lua_toboolean(L, arguments + 1))
		return returned;
	lua_settop(L, arguments);
	lua_callk(L, arguments - 3, LUA_MULTRET, 0, method_done);
	return method_done(L, LUA_OK, 0);
}

int app_filter_gate(lua_State *L)
{
	struct app_job *j = app_job_of(L);
	int n = lua_gettop(L); /* the method, perhaps more, session, msg */

	lua_pushvalue(L, n - 1);
	lua_pushstring(L, j->method->full);
	lua_rotate(L, 1, 2); /* session, route, method, …, session, msg */
	n += 2;
	if (!luahost_push_hook(L, "before"))
		return before_done(L, LUA_OK, n);
	lua_pushvalue(L, 1);
	lua_pushvalue(L, n);
	lua_pushvalue(L, 2);
	lua_callk(L, 3, LUA_MULTRET, n, before_done);
	return before_done(L, LUA_OK, n);
}
