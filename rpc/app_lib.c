#include <lauxlib.h>
#include <string.h>
#include "rpc/app_private.h"

/* The library app, as scripts see it: its table, and what this instance is. Calls, tasks, rooms: in files of their own. */

/* ", " between the names. */
static void name_options(char *out, size_t size, const char *const *names)
{
	size_t n = 0;

	for (size_t i = 0; names[i] && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%s", i ? ", " : "", names[i]);
}

bool app_options(lua_State *L, int index, const char *what, const char *const *names)
{
	char known[80];

	if (lua_isnoneornil(L, index))
		return false;
	name_options(known, sizeof known, names);
	if (!lua_istable(L, index))
		app_raise(L, "%s: a table of options was expected (%s), found a %s", what, known,
			  luaL_typename(L, index));
	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
		size_t i = 0;

		while (names[i] && (lua_type(L, -2) != LUA_TSTRING || strcmp(names[i], lua_tostring(L, -2)) != 0))
			i++;
		if (!names[i])
			app_raise(L, "%s: there is no option %s (%s)", what, luaL_tolstring(L, -2, NULL), known);
	}
	return true;
}

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

/* Raises where no row knows the path, which is argument 1. Looked up once: the rows are many, and handlers ask for each request. */
static void config_check(lua_State *L, const struct config *c, const char *path)
{
	struct app *a = app_of(L);
	char error[300];

	if (a->config_known == APP_CONFIG_KNOWN) { /* as of a list's elements: anew */
		lua_pushnil(L);
		lua_setfield(L, LUA_REGISTRYINDEX, "loquat.config");
		a->config_known = 0;
	}
	luaL_getsubtable(L, LUA_REGISTRYINDEX, "loquat.config");
	lua_pushvalue(L, 1);
	if (lua_rawget(L, -2) == LUA_TNIL) {
		if (config_check_path(c, "app.config", path, error, sizeof error) < 0)
			app_raise(L, "%s", error);
		lua_pushvalue(L, 1);
		lua_pushboolean(L, true);
		lua_rawset(L, -4);
		a->config_known++;
	}
	lua_pop(L, 2);
}

static bool config_fits(lua_State *L, const struct config *c, const char *path)
{
	bool is_there = config_holds(c, path, LUA_TBOOLEAN, false) || config_holds(c, path, LUA_TNUMBER, false) ||
			config_holds(c, path, LUA_TSTRING, false);

	if (!is_there)
		config_check(L, c, path);
	return !is_there || config_holds(c, path, lua_type(L, 2), lua_isinteger(L, 2));
}

/* app.config(path, otherwise): a value of the cluster file, of the type of otherwise; a key that no row knows raises. */
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

int app_lib(lua_State *L)
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
	app_task_open(L);
	luaL_newlib(L, functions);
	app_push_calls(L, false);
	lua_setfield(L, -2, "rpc");
	app_push_calls(L, true);
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
