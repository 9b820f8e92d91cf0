#include "scene/view_lua.h"
#include <assert.h>
#include <lauxlib.h>
#include <math.h>
#include "common/luahost.h"
#include "rpc/app.h"
#include "scene/view.h"

#define META      "scene.view"
#define CELLS_MAX 1000000.0 /* a wrong map must not take all memory */

static struct view *view_at(lua_State *L, int index)
{
	return *(struct view **)luaL_checkudata(L, index, META);
}

static int new_view(lua_State *L)
{
	struct view_options o = {
		.width = luaL_checknumber(L, 1),
		.height = luaL_checknumber(L, 2),
		.reach = luaL_checknumber(L, 3),
		.players_max = (unsigned)luaL_checkinteger(L, 4),
	};
	luaL_argcheck(L, o.reach > 0, 3, "above 0");
	luaL_argcheck(L, o.width > 0 && o.height > 0 && (o.width / o.reach) * (o.height / o.reach) < CELLS_MAX, 1,
		      "a map of fewer views");
	struct view **v = lua_newuserdatauv(L, sizeof(struct view *), 0);

	*v = NULL;
	luaL_setmetatable(L, META);
	*v = view_new(&o);
	return 1;
}

static int collect(lua_State *L)
{
	struct view **v = luaL_checkudata(L, 1, META);

	view_free(*v);
	*v = NULL;
	return 0;
}

static lua_Number number_field(lua_State *L, const char *name)
{
	lua_getfield(L, 2, name);
	lua_Number x = luaL_checknumber(L, -1);

	luaL_argcheck(L, isfinite(x), 2, "finite coordinates");
	lua_pop(L, 1);
	return x;
}

static lua_Integer integer_field(lua_State *L, const char *name)
{
	lua_getfield(L, 2, name);
	lua_Integer x = luaL_checkinteger(L, -1);

	lua_pop(L, 1);
	return x;
}

static int add(lua_State *L)
{
	static const char *const kinds[] = { "player", "monster", "drop", NULL };
	struct view *v = view_at(L, 1);

	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	struct view_thing t = {
		.id = integer_field(L, "id"),
		.x = number_field(L, "x"),
		.y = number_field(L, "y"),
		.hp = integer_field(L, "hp"),
		.hp_max = integer_field(L, "hp_max"),
	};
	lua_getfield(L, 2, "kind");
	t.kind = (enum view_kind)luaL_checkoption(L, 3, NULL, kinds);
	lua_getfield(L, 2, "name"); /* stays on the stack until it is copied */
	t.name = luaL_checklstring(L, 4, &t.name_n);
	int err = view_add(v, &t);

	return err < 0 ? luaL_error(L, "view:add: id %I: %s", (LUAI_UACINT)t.id, err_text(err)) : 0;
}

static int must(lua_State *L, bool there)
{
	return there ? 0 : luaL_argerror(L, 2, "there is no such thing in this view");
}

static int remove_thing(lua_State *L)
{
	view_remove(view_at(L, 1), luaL_checkinteger(L, 2));
	return 0;
}

static double coordinate(lua_State *L, int index)
{
	double x = luaL_checknumber(L, index);

	luaL_argcheck(L, isfinite(x), index, "a finite number");
	return x;
}

static int move(lua_State *L)
{
	return must(L, view_move(view_at(L, 1), luaL_checkinteger(L, 2), coordinate(L, 3), coordinate(L, 4)));
}

static int throw_thing(lua_State *L)
{
	return must(L, view_throw(view_at(L, 1), luaL_checkinteger(L, 2), coordinate(L, 3), coordinate(L, 4)));
}

static int hp(lua_State *L)
{
	return must(L, view_hp(view_at(L, 1), luaL_checkinteger(L, 2), luaL_checkinteger(L, 3)));
}

static int watch(lua_State *L)
{
	struct view *v = view_at(L, 1);

	luaL_checktype(L, 3, LUA_TTABLE);
	lua_getfield(L, 3, "connector");
	lua_getfield(L, 3, "sid");
	return must(L, view_watch(v, luaL_checkinteger(L, 2), luaL_checkstring(L, -2),
				  (uint64_t)luaL_checkinteger(L, -1)));
}

static int nearest_player(lua_State *L)
{
	int64_t id = view_nearest_player(view_at(L, 1), luaL_checknumber(L, 2), luaL_checknumber(L, 3),
					 luaL_checknumber(L, 4));

	if (!id)
		return 0;
	lua_pushinteger(L, id);
	return 1;
}

static int look(lua_State *L)
{
	const int64_t *ids;
	int n = view_look(view_at(L, 1), luaL_checkinteger(L, 2), &ids);

	must(L, n >= 0);
	lua_createtable(L, n, 0);
	for (int i = 0; i < n; i++) {
		lua_pushinteger(L, ids[i]);
		lua_rawseti(L, -2, i + 1);
	}
	return 1;
}

static void push(void *arg, const char *connector, uint64_t sid, const char *text, size_t n)
{
	app_push_text(arg, connector, sid, span_of("onSceneUpdate", 13), span_of(text, n));
}

static int tell(lua_State *L)
{
	struct view *v = view_at(L, 1);
	lua_Integer max = luaL_checkinteger(L, 2), tick = luaL_checkinteger(L, 3);

	view_tell(v, max > 0 ? (unsigned)max : 0, tick, push, luahost_user(luahost_of(L)));
	return 0;
}

int view_lua_open(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "add", add },
		{ "remove", remove_thing },
		{ "move", move },
		{ "throw", throw_thing },
		{ "hp", hp },
		{ "watch", watch },
		{ "nearest_player", nearest_player },
		{ "look", look },
		{ "tell", tell },
		{ NULL, NULL },
	};
	static const luaL_Reg functions[] = { { "new", new_view }, { NULL, NULL } };

	luaL_newmetatable(L, META);
	lua_pushcfunction(L, collect);
	lua_setfield(L, -2, "__gc");
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
