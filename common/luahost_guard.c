/*
 * Functions of Lua's own libraries that could hold the thread for ever, or for many seconds, inside one C call, where no
 * hook fires: string patterns, a repetition of nothing, tables whose length is a lie, and the sorting of millions.
 */
#include <lauxlib.h>

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
