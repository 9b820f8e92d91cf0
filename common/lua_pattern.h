#pragma once
#include <lua.h>
/*
 * lua_pattern: find, match, gmatch and gsub of the string library, with a matcher that can be stopped.
 *
 * Lua's own runs inside one C call, where no hook fires: "(.-)*x" over a few hundred letters holds its thread for ever.
 * This one counts its steps and gives an account of them to luahost_spend, which raises when the budget is used up. In all
 * else it is what chapter 6.4.1 of Lua's reference manual says, the errors' words included; a test holds it to Lua's
 * own over random patterns.
 *
 * Threads: any state of a luahost, on its worker. Memory: the results are Lua's.
 */
#define LUA_PATTERN_CAPTURES 32
#define LUA_PATTERN_DEPTH    200 /* nested tries; more: "pattern too complex" */

void lua_pattern_open(lua_State *L); /* into the table on top of the stack: the string library */
