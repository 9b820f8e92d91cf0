/* What the code that runs has: the functions of methods, of hooks, of modules. */
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "common/luahost_private.h"

bool luahost_push_method(lua_State *L, const struct msg_method *m)
{
	struct luacode *code = luahost_of(L)->code;
	if (!code || code->method[m->index].fn == LUA_NOREF)
		return false;
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->method[m->index].fn);
	return true;
}

unsigned luahost_method_params(lua_State *L, const struct msg_method *m)
{
	return luahost_of(L)->code->method[m->index].params;
}

struct method_place {
	const struct msg_method *method;
	char *out;
	size_t size;
};

static int find_method(lua_State *L, void *arg)
{
	struct method_place *p = arg;
	lua_Debug ar;
	if (!luahost_push_method(L, p->method))
		return 0;
	lua_getinfo(L, ">S", &ar);
	snprintf(p->out, p->size, "%s:%d", ar.short_src, ar.linedefined);
	return 0;
}

void luahost_method_place(struct luahost *h, const struct msg_method *m, char *out, size_t size)
{
	struct method_place p = { m, out, size };
	*out = '\0';
	luahost_reserved(h, find_method, &p);
}

bool luahost_has_method(struct luahost *h, const struct msg_method *m)
{
	return h->code && h->code->method[m->index].fn != LUA_NOREF;
}

bool luahost_push_hook(lua_State *L, const char *name)
{
	struct luacode *code = luahost_of(L)->code;
	if (!code)
		return false;
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->hooks);
	lua_pushstring(L, name);
	bool there = lua_rawget(L, -2) == LUA_TFUNCTION;
	lua_remove(L, -2);
	if (!there)
		lua_pop(L, 1);
	return there;
}

struct hook {
	const char *name;
	bool there;
};

static int look_for_hook(lua_State *L, void *arg)
{
	struct hook *hook = arg;
	hook->there = luahost_push_hook(L, hook->name);
	return 0;
}

bool luahost_has_hook(struct luahost *h, const char *name)
{
	struct hook hook = { name, false };
	luahost_protected(h, look_for_hook, &hook);
	return hook.there;
}

const char *luahost_function_trouble(lua_State *L, const char *name)
{
	const struct luahost *h = luahost_of(L);
	const char *dot = strrchr(name, '.');
	if (!dot || dot == name || !dot[1])
		return lua_pushfstring(L, "expected a function or \"module.function\", found \"%s\"", name);
	if (h->switching || !h->code) /* whose functions will be there is not known yet */
		return NULL;
	const char *module = lua_pushlstring(L, name, (size_t)(dot - name));
	if (!luasrc_find(h->code->src, module))
		return lua_pushfstring(L, "\"%s\": there is no %s in the service's lua folder", name, module);
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->code->modules);
	lua_pushvalue(L, -2);
	int type = lua_rawget(L, -2);
	if (type == LUA_TNIL || type == LUA_TLIGHTUSERDATA) /* not loaded yet */
		return NULL;
	if (luahost_push_module_function(L, name, strlen(name)))
		return NULL;
	return lua_pushfstring(L, "\"%s\": %s has no such function", name, module);
}

bool luahost_push_module_function(lua_State *L, const char *name, size_t n)
{
	struct luacode *code = luahost_of(L)->code;
	const char *dot = memrchr(name, '.', n);
	int top = lua_gettop(L);
	if (!code || !dot)
		return false;
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->modules);
	lua_pushlstring(L, name, (size_t)(dot - name));
	if (lua_rawget(L, -2) == LUA_TTABLE) {
		lua_pushlstring(L, dot + 1, n - (size_t)(dot + 1 - name));
		if (lua_rawget(L, -2) == LUA_TFUNCTION) {
			lua_replace(L, top + 1);
			lua_settop(L, top + 1);
			return true;
		}
	}
	lua_settop(L, top);
	return false;
}
