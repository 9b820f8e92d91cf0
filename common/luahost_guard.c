/*
 * Functions of Lua's own libraries that could hold the thread for ever, or for many seconds, inside one C call, where no
 * hook fires: string patterns, a repetition of nothing, tables whose length is a lie, and the sorting of millions.
 *
 * And the libraries' tables, which all files of a worker share: nothing changes them any more.
 */
#include <lauxlib.h>
#include <string.h>

#include "common/lua_pattern.h"
#include "common/luahost_private.h"

enum {
	ELEMENTS_MAX = 1 << 24, /* that one call may move */
	SORT_UNSEEN = 1 << 16,  /* more elements: each comparison is counted */
	COMPARISON_STEPS = 10,
};

/* The library's own function is the upvalue; it runs on this call's stack. */
static int original(lua_State *L)
{
	return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* ("").rep("", 2^60) would go round 2^60 times. */
static int l_rep(lua_State *L)
{
	size_t len, separator_len;
	luaL_checklstring(L, 1, &len);
	luaL_optlstring(L, 3, "", &separator_len);
	if (len + separator_len > 0)
		return original(L);
	luaL_checkinteger(L, 2);
	lua_pushliteral(L, "");
	return 1;
}

/* Only a metamethod can say more than there is memory for. */
static void check_length(lua_State *L)
{
	if (luaL_getmetafield(L, 1, "__len") == LUA_TNIL)
		return;
	lua_pop(L, 1);
	lua_Integer n = luaL_len(L, 1);
	if (n > ELEMENTS_MAX)
		luaL_error(L, "the length of the table, %I, is over %d", (LUAI_UACINT)n, ELEMENTS_MAX);
}

static int l_by_length(lua_State *L)
{
	check_length(L);
	return original(L);
}

static int l_move(lua_State *L)
{
	lua_Integer from = luaL_checkinteger(L, 2), to = luaL_checkinteger(L, 3);
	if (to >= from && (lua_Unsigned)to - (lua_Unsigned)from >= ELEMENTS_MAX)
		return luaL_error(L, "table.move: more than %d elements", ELEMENTS_MAX);
	return original(L);
}

static int l_concat(lua_State *L)
{
	lua_Integer from = luaL_optinteger(L, 3, 1), to = luaL_optinteger(L, 4, from);
	check_length(L);
	if (to >= from && (lua_Unsigned)to - (lua_Unsigned)from >= ELEMENTS_MAX)
		return luaL_error(L, "table.concat: more than %d elements", ELEMENTS_MAX);
	return original(L);
}

static int less_counted(lua_State *L)
{
	luahost_spend(L, COMPARISON_STEPS);
	lua_pushboolean(L, lua_compare(L, 1, 2, LUA_OPLT));
	return 1;
}

static int l_sort(lua_State *L)
{
	check_length(L);
	if (lua_isnoneornil(L, 2) && lua_istable(L, 1) && lua_rawlen(L, 1) > SORT_UNSEEN) {
		lua_settop(L, 1);
		lua_pushcfunction(L, less_counted);
	}
	return original(L);
}

static void guard(lua_State *L, int base, const char *library, const luaL_Reg *functions)
{
	lua_getfield(L, base, library);
	for (; functions->name; functions++) {
		lua_getfield(L, -1, functions->name);
		lua_pushcclosure(L, functions->func, 1);
		lua_setfield(L, -2, functions->name);
	}
	lua_pop(L, 1);
}

void luahost_guard_libraries(lua_State *L, int base)
{
	static const luaL_Reg string[] = { { "rep", l_rep }, { NULL, NULL } };
	static const luaL_Reg table[] = { { "insert", l_by_length }, { "remove", l_by_length }, { "move", l_move },
					  { "concat", l_concat },    { "sort", l_sort },        { NULL, NULL } };
	guard(L, base, "string", string);
	guard(L, base, "table", table);
	lua_getfield(L, base, "string");
	lua_pattern_open(L);
	lua_pop(L, 1);
}

/* ---- the libraries' tables ----------------------------------------------------------------------------------- */

/*
 * What scripts see is an empty table, whose functions are found behind it: so each assignment is one of a new name, which can be
 * refused where it stands. That costs a look-up some 10 ns (measured), and a function kept in a local nothing.
 */
static int refuse_change(lua_State *L)
{
	lua_settop(L, 2);
	const char *key = luaL_tolstring(L, 2, NULL);
	luaL_where(L, 1);
	if (!*lua_tostring(L, -1)) /* in table.insert */
		luaL_where(L, 2);
	lua_pushfstring(L,
			"%s%s.%s: a library cannot be changed, it is all files'; use a local, or a module of your own",
			lua_tostring(L, -1), lua_tostring(L, lua_upvalueindex(1)), key);
	return lua_error(L);
}

void luahost_check_changes(lua_State *L, int index, const char *who)
{
	int type = luaL_getmetafield(L, index, "__metatable");
	if (type == LUA_TSTRING && !strcmp(lua_tostring(L, -1), "library"))
		luaL_error(L, "%s: a library cannot be changed, it is all files'", who);
	if (type != LUA_TNIL)
		lua_pop(L, 1);
}

void luahost_guard_fields(lua_State *L, const char *name)
{
	lua_pushstring(L, name);
	lua_pushcclosure(L, refuse_change, 1);
	lua_setfield(L, -2, "__newindex");
	lua_pushliteral(L, "library");
	lua_setfield(L, -2, "__metatable");
}

static int l_rawset(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_checkany(L, 2);
	luaL_checkany(L, 3);
	luahost_check_changes(L, 1, "rawset");
	lua_settop(L, 3);
	lua_rawset(L, 1);
	return 1;
}

static int next_function(lua_State *L)
{
	lua_settop(L, 2);
	if (lua_next(L, lua_upvalueindex(1)))
		return 2;
	lua_pushnil(L);
	return 1;
}

static int l_pairs(lua_State *L)
{
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_pushcclosure(L, next_function, 1);
	return 1;
}

/* What the table at from holds is in the new one on top of the stack, and no longer there. */
static void move_fields(lua_State *L, int from)
{
	lua_newtable(L);
	int to = lua_gettop(L);
	for (lua_pushnil(L); lua_next(L, from);) {
		lua_pushvalue(L, -2);
		lua_insert(L, -2);
		lua_rawset(L, to);
		lua_pushvalue(L, -1);
		lua_pushnil(L);
		lua_rawset(L, from);
	}
}

/* Of the library on top, whose name is at name. One that has a metatable already looks after itself. */
static void guard_table(lua_State *L, int name)
{
	int library = lua_gettop(L);
	if (lua_getmetatable(L, library)) {
		lua_pop(L, 1);
		return;
	}
	move_fields(L, library);
	lua_createtable(L, 0, 4);
	lua_pushvalue(L, library + 1);
	lua_setfield(L, -2, "__index");
	lua_pushvalue(L, library + 1);
	lua_pushcclosure(L, l_pairs, 1);
	lua_setfield(L, -2, "__pairs");
	luahost_guard_fields(L, lua_tostring(L, name));
	lua_setmetatable(L, library);
	if (!strcmp(lua_tostring(L, name), "string")) { /* ("x"):rep() need not go through it */
		lua_pushliteral(L, "");
		lua_getmetatable(L, -1);
		lua_pushvalue(L, library + 1);
		lua_setfield(L, -2, "__index");
	}
	lua_settop(L, library);
}

void luahost_guard_tables(lua_State *L)
{
	struct luahost *h = luahost_of(L);
	if (h->guarded)
		return;
	h->guarded = true;
	int base = lua_gettop(L) + 1;
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->base);
	for (lua_pushnil(L); lua_next(L, base); lua_settop(L, base + 1))
		if (lua_istable(L, -1) && strcmp(lua_tostring(L, -2), "state") != 0)
			guard_table(L, base + 1);
	lua_pushcfunction(L, l_rawset);
	lua_setfield(L, base, "rawset");
	lua_settop(L, base - 1);
}
