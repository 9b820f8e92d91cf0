#pragma once
#include <lua.h>
/*
 * view_lua: the library `views` of the scene's scripts: views in C, pushes included (scene/view.h).
 *
 *   views.new(width, height, reach, players_max) -> view; it lives as long as scripts hold it
 *   view:add{ id, kind, name, x, y, hp, hp_max }   kind: player, monster, drop; other fields are not looked at
 *   view:remove(id)  view:move(id, x, y)  view:throw(id, x, y)  view:hp(id, hp)  view:watch(id, session)
 *   view:nearest_player(x, y, distance) -> id | nil
 *   view:look(id) -> list of ids          what a watcher sees; it knows it from now on
 *   view:tell(max, tick)                  pushes onSceneUpdate to the next watchers, in turn
 * An id that is not there raises, but for remove.
 *
 * Threads: owner worker only.
 */
int view_lua_open(lua_State *L);
