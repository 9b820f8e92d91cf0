#pragma once
#include <stddef.h>
#include <lua.h>
/*
 * luatable: a table of a script's that never changes and is kept once for all workers: configuration such as items,
 * monsters, levels. Scripts see it through userdata that look like tables: they index, count and walk it, and a write raises.
 *
 * Made from the text of a Lua file that returns a table of texts, numbers, booleans and such tables, by texts and integers;
 * the file may compute with math, string and table, but sees nothing else.
 *
 * Threads: made on one thread; after that it never changes and any thread may read.
 * Limits:  LUATABLE_DEPTH levels, LUATABLE_STEPS instructions of the file, no cycles.
 */
#define LUATABLE_DEPTH 32
#define LUATABLE_STEPS 100000000
struct luatable;
struct luasrc;

/* path names the file in errors, which name the place in the table: "role/lua/tables/items.lua: [3].price: …". ERR_FAILED */
int luatable_make(const char *path, const char *text, size_t n, char *error, size_t error_size, struct luatable **out);
void luatable_free(struct luatable *t); /* NULL is fine */

/* Pushes what scripts see. owner holds t, and is held by what is pushed. May raise a memory error. */
void luatable_push(lua_State *L, const struct luatable *t, struct luasrc *owner);
