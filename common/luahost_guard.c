/*
 * Functions of Lua's own libraries that could hold the thread for ever, or for many seconds, inside one C call, where no
 * hook fires: string patterns, a repetition of nothing, tables whose length is a lie, and the sorting of millions.
 *
 * And the libraries' tables, which all files of a worker share: a new name in one is refused where it is given; what is
 * changed in another way while a file is loaded is put back, and the file refused, for it may never come to run.
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

static int refuse_name(lua_State *L)
{
	lua_settop(L, 2);
	return luaL_error(L, "%s.%s: a library is not for new names; use a local, or a module of your own",
			  lua_tostring(L, lua_upvalueindex(1)), luaL_tolstring(L, 2, NULL));
}

/* Of the library on top, whose name is at name. One that has a metatable already looks after itself. */
static void refuse_names(lua_State *L, int name)
{
	if (lua_getmetatable(L, -1)) {
		lua_pop(L, 1);
		return;
	}
	lua_createtable(L, 0, 2);
	lua_pushvalue(L, name);
	lua_pushcclosure(L, refuse_name, 1);
	lua_setfield(L, -2, "__newindex");
	lua_pushliteral(L, "library");
	lua_setfield(L, -2, "__metatable");
	lua_setmetatable(L, -2);
}

/* The table on top is taken for its copy. */
static void copy_table(lua_State *L)
{
	int from = lua_gettop(L);
	lua_newtable(L);
	for (lua_pushnil(L); lua_next(L, from); lua_pop(L, 1)) {
		lua_pushvalue(L, -2);
		lua_pushvalue(L, -2);
		lua_rawset(L, from + 1);
	}
	lua_replace(L, from);
}

void luahost_guard_tables(lua_State *L)
{
	struct luahost *h = luahost_of(L);
	if (h->libraries != LUA_NOREF)
		return;
	int top = lua_gettop(L);
	lua_newtable(L);
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->base);
	for (lua_pushnil(L); lua_next(L, top + 2); lua_settop(L, top + 3)) {
		if (!lua_istable(L, -1) || !strcmp(lua_tostring(L, -2), "state"))
			continue;
		refuse_names(L, top + 3);
		lua_pushvalue(L, top + 3);
		lua_pushvalue(L, top + 4);
		copy_table(L);
		lua_rawset(L, top + 1);
	}
	lua_settop(L, top + 1);
	h->libraries = luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Where the table at now differs from that at then, it becomes the same. The last such key is put at key. */
static void put_back(lua_State *L, int now, int then, int key)
{
	for (int walked = now;; walked = then) {
		lua_pushnil(L);
		while (lua_next(L, walked)) {
			int k = lua_gettop(L) - 1;
			lua_settop(L, k);
			lua_pushvalue(L, k);
			lua_rawget(L, now); /* k + 1 */
			lua_pushvalue(L, k);
			lua_rawget(L, then); /* k + 2 */
			if (!lua_rawequal(L, k + 1, k + 2)) {
				lua_pushvalue(L, k);
				lua_replace(L, key);
				lua_pushvalue(L, k);
				lua_insert(L, k + 2);
				lua_rawset(L, now);
			}
			lua_settop(L, k);
		}
		if (walked == then)
			return;
	}
}

bool luahost_guard_changed(lua_State *L)
{
	int top = lua_gettop(L);
	lua_rawgeti(L, LUA_REGISTRYINDEX, luahost_of(L)->base);
	lua_rawgeti(L, LUA_REGISTRYINDEX, luahost_of(L)->libraries);
	lua_pushnil(L); /* top + 3: "string.trim" */
	for (lua_pushnil(L); lua_next(L, top + 2); lua_settop(L, top + 4)) {
		lua_pushvalue(L, top + 4);
		lua_rawget(L, top + 1);
		lua_pushnil(L); /* top + 7: the key */
		put_back(L, top + 6, top + 5, top + 7);
		if (lua_isnil(L, top + 7))
			continue;
		lua_pushfstring(L, "%s.%s", lua_tostring(L, top + 4), luaL_tolstring(L, top + 7, NULL));
		lua_replace(L, top + 3);
	}
	bool changed = !lua_isnil(L, top + 3);
	lua_settop(L, top + 3);
	lua_replace(L, top + 1);
	lua_settop(L, top + changed);
	return changed;
}
