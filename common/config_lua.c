#include "common/config_tree.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <lauxlib.h>
#include <lualib.h>
#include "common/err.h"

enum { LUA_BYTES_MAX = 64 << 20, LUA_STEPS_MAX = 50 * 1000 * 1000, DEPTH_MAX = 16, NODES_MAX = 100000 };

/* ---- the state: small, bounded ------------------------------------------------------------------------ */

static void *lua_bounded(void *arg, void *p, size_t old, size_t n)
{
	struct load *l = arg;
	old = p ? old : 0; /* without a block Lua passes its type there */
	if (n > old && l->lua_bytes + (n - old) > LUA_BYTES_MAX)
		return NULL;
	l->lua_bytes += n - old;
	if (n)
		return realloc(p, n);
	free(p);
	return NULL;
}

static void lua_too_long(lua_State *L, lua_Debug *ar)
{
	(void)ar;
	luaL_where(L, 0); /* a hook has no level of its own, luaL_error would look one too high */
	lua_pushfstring(L, "still running after %d steps: an endless loop?", LUA_STEPS_MAX);
	lua_concat(L, 2);
	lua_error(L);
}

static int lua_env(lua_State *L)
{
	struct load *l = lua_touserdata(L, lua_upvalueindex(1));
	const char *value = l->env ? env_getenv(l->env, luaL_checkstring(L, 1)) : NULL;
	lua_pushstring(L, value); /* NULL: nil */
	return 1;
}

static void lua_drop(lua_State *L, const char *table, const char *name)
{
	lua_getglobal(L, table);
	lua_pushnil(L);
	lua_setfield(L, -2, name);
	lua_pop(L, 1);
}

static void lua_open(lua_State *L, struct load *l)
{
	static const char *const base[] = { "pairs", "ipairs", "tonumber", "tostring",
					    "type",  "error",  "assert",   "select" };
	luaL_requiref(L, "_G", luaopen_base, 0);
	lua_newtable(L); /* the globals: only these */
	for (size_t i = 0; i < sizeof base / sizeof *base; i++) {
		lua_getfield(L, -2, base[i]);
		lua_setfield(L, -2, base[i]);
	}
	lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
	lua_pop(L, 1);
	luaL_requiref(L, "math", luaopen_math, 1);
	luaL_requiref(L, "string", luaopen_string, 1);
	luaL_requiref(L, "table", luaopen_table, 1);
	lua_settop(L, 0);
	lua_drop(L, "math", "random"); /* two loads of a file give the same */
	lua_drop(L, "math", "randomseed");
	lua_drop(L, "string", "dump");
	lua_pushlightuserdata(L, l);
	lua_pushcclosure(L, lua_env, 1);
	lua_setglobal(L, "env");
	lua_sethook(L, lua_too_long, LUA_MASKCOUNT, LUA_STEPS_MAX);
}

/* ---- its values ---------------------------------------------------------------------------------------- */

static int node_from_lua(struct load *l, lua_State *L, const char *path, const char *key, struct node **out);

/* One entry of the table at the top of the stack: the value is above it. */
static int entry_from_lua(struct load *l, lua_State *L, const char *path, const char *key, lua_Integer index,
			  struct node *table)
{
	char joined[CONFIG_PATH_MAX];
	struct node *child;
	int err = config_path_join(l, joined, path, key, index);
	if (err == 0)
		err = node_from_lua(l, L, joined, key, &child);
	if (err == 0)
		config_node_insert_take(table, child);
	return err;
}

static bool is_index(lua_State *L, int at, lua_Integer n)
{
	return lua_isinteger(L, at) && lua_tointeger(L, at) >= 1 && lua_tointeger(L, at) <= n;
}

/* What a path can name. */
static bool is_name(lua_State *L, int at)
{
	size_t n;
	const char *name = lua_type(L, at) == LUA_TSTRING ? lua_tolstring(L, at, &n) : NULL;
	return name && n && strcspn(name, ".[]*") == n;
}

static int table_from_lua(struct load *l, lua_State *L, const char *path, struct node *table)
{
	lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
	int err = 0;
	for (lua_Integer i = 1; err == 0 && i <= n; i++) {
		lua_rawgeti(L, -1, i);
		err = lua_isnil(L, -1) ? config_fail(l, path, "element %lld of the list is missing", (long long)i)
				       : entry_from_lua(l, L, path, NULL, i, table);
		lua_pop(L, 1);
	}
	for (lua_pushnil(L); err == 0 && lua_next(L, -2); lua_pop(L, 1)) {
		if (is_name(L, -2))
			err = entry_from_lua(l, L, path, lua_tostring(L, -2), 0, table);
		else if (!is_index(L, -2, n))
			err = config_fail(l, path, "expected names without . [ ] * or 1, 2, 3 … as keys, found %s",
					  luaL_tolstring(L, -2, NULL));
	}
	return err;
}

static int node_from_lua(struct load *l, lua_State *L, const char *path, const char *key, struct node **out)
{
	int depth = 0, err = 0;
	for (const char *p = path; *p; p++)
		depth += *p == '.' || *p == '[';
	if (depth > DEPTH_MAX || ++l->nodes > NODES_MAX || !lua_checkstack(L, 8))
		return config_fail(l, path, "too deep or too many values; does a table contain itself?");
	struct node *n = config_node_new(NODE_OTHER, key);
	const char *text;
	switch (lua_type(L, -1)) {
	case LUA_TNUMBER:
		n->number = lua_tonumber(L, -1);
		n->kind = lua_isinteger(L, -1) ? NODE_INT : NODE_NUMBER;
		n->integer = lua_tointeger(L, -1);
		break;
	case LUA_TBOOLEAN:
		n->kind = NODE_BOOL;
		n->integer = lua_toboolean(L, -1);
		break;
	case LUA_TSTRING:
		n->kind = NODE_STRING;
		text = lua_tolstring(L, -1, &n->text_n);
		n->text = memcpy(config_must(malloc(n->text_n + 1)), text, n->text_n + 1);
		break;
	case LUA_TTABLE:
		n->kind = NODE_TABLE;
		err = table_from_lua(l, L, path, n);
		break;
	default: n->text = config_must(strdup(luaL_typename(L, -1)));
	}
	if (err == 0)
		*out = n;
	else
		config_node_free(n);
	return err;
}

/* ---- the file --------------------------------------------------------------------------------------------- */

struct chunk {
	struct load *load;
	const char *text;
	size_t n;
};

static const char chunk_name[] = "=file"; /* Lua shortens long names, so ours comes in later */

static int lua_chunk(lua_State *L)
{
	struct chunk *c = lua_touserdata(L, 1);
	lua_open(L, c->load);
	if (luaL_loadbufferx(L, c->text, c->n, chunk_name, "t") != LUA_OK)
		return lua_error(L);
	lua_call(L, 0, 1);
	return 1;
}

static int run_failed(struct load *l, const char *what)
{
	static const char start[] = "file:";
	if (!what || strncmp(what, start, sizeof start - 1))
		return config_fail(l, "", "%s", what ? what : "it raised an error without a message");
	const char *rest = what + sizeof start - 1;
	int line = (int)strtol(rest, (char **)&rest, 10);
	struct load at_line = *l;
	char name[CONFIG_PATH_MAX];
	snprintf(name, sizeof name, "%s:%d", l->name, line);
	at_line.name = name;
	return config_fail(&at_line, "", "%s", rest + strspn(rest, ": "));
}

static int run(struct load *l, lua_State *L, const char *text, size_t n, struct node **root)
{
	struct chunk c = { l, text, n };
	lua_pushcfunction(L, lua_chunk);
	lua_pushlightuserdata(L, &c);
	if (lua_pcall(L, 1, 1, 0) != LUA_OK)
		return run_failed(l, lua_tostring(L, -1));
	if (!lua_istable(L, -1))
		return config_fail(l, "", "expected it to return a table, found %s", luaL_typename(L, -1));
	l->lua_bytes = 0; /* reading it must not run into the bound: nothing would catch that */
	return node_from_lua(l, L, "", NULL, root);
}

int config_lua(struct load *l, const char *text, size_t n, struct node **root)
{
	lua_State *L = lua_newstate(lua_bounded, l);
	if (!L)
		return ERR_NOMEM;
	int err = run(l, L, text, n, root);
	lua_close(L);
	return err;
}
