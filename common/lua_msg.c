#include "common/lua_msg.h"

#include <lauxlib.h>

/* The registry's keys are the addresses of these; their values do not matter. */
static const char names_key = 'n', array_key = 'a', big_key = 'b';

static void names_table(lua_State *L, const struct schema *schema)
{
	uint32_t n = schema ? schema_names(schema) : 0;
	lua_createtable(L, (int)n, 0);
	for (uint32_t id = 1; id <= n; id++) {
		size_t bytes;
		const char *name = schema_name(schema, id, &bytes);
		lua_pushlstring(L, name, bytes);
		lua_rawseti(L, -2, id);
	}
}

static int big_text(lua_State *L)
{
	lua_rawgeti(L, 1, 1);
	return 1;
}

static void metatable(lua_State *L, const char *name, lua_CFunction tostring, const void *key)
{
	lua_createtable(L, 0, 2);
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__name");
	if (tostring) {
		lua_pushcfunction(L, tostring);
		lua_setfield(L, -2, "__tostring");
	}
	lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void lua_msg_open(lua_State *L, const struct schema *schema)
{
	names_table(L, schema);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &names_key);
	metatable(L, "array", NULL, &array_key);
	metatable(L, "integer", big_text, &big_key);
}

void lua_msg_push_null(lua_State *L)
{
	lua_pushlightuserdata(L, NULL);
}

bool lua_msg_is_null(lua_State *L, int index)
{
	return lua_islightuserdata(L, index) && !lua_touserdata(L, index);
}

void lua_msg_push_array(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key);
}

void lua_msg_push_big(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &big_key);
}

void lua_msg_mark_array(lua_State *L, int index)
{
	index = lua_absindex(L, index);
	lua_msg_push_array(L);
	lua_setmetatable(L, index);
}

bool lua_msg_is_array(lua_State *L, int index)
{
	if (!lua_istable(L, index) || !lua_getmetatable(L, index))
		return false;
	lua_msg_push_array(L);
	bool same = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return same;
}

void lua_msg_push_names(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key);
}

void lua_msg_push_default(lua_State *L, const struct msg_field *f)
{
	switch (f->type) {
	case MSG_STRING:
	case MSG_BYTES: lua_pushlstring(L, f->fallback.s.p, f->fallback.s.n); break;
	case MSG_DOUBLE:
	case MSG_FLOAT: lua_pushnumber(L, f->fallback.d); break;
	case MSG_BOOL: lua_pushboolean(L, f->fallback.i != 0); break;
	case MSG_ENUM: lua_pushstring(L, msg_enum_number(f->enumeration, (int32_t)f->fallback.i)->name); break;
	default: lua_pushinteger(L, f->fallback.i); break;
	}
}
