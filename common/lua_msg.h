#pragma once
#include <stdbool.h>
#include <lua.h>
#include "common/msg.h"
/*
 * lua_msg: what both codecs (lua_json, lua_pb) agree on: how a message looks as a Lua table.
 *
 *   message         table, keys are the fields' names; absent fields are nil, unless the .proto writes a default
 *   repeated        sequence, marked as an array (so that an empty one stays [] as untyped JSON too)
 *   map             table, keys are strings, integers or booleans
 *   integers        Lua integers; 64-bit unsigned ones hold at most 2^63 - 1, more is refused
 *   float, double   Lua floats
 *   enum            the value's name
 *   string          UTF-8; bytes: any bytes (base64 in JSON)
 *   JSON null       json.null in untyped data; in typed data an absent field
 *
 * Tables are read raw: metamethods of scripts never run inside a codec.
 *
 * Threads: the state's owner only.
 */
/* Prepares a state for both codecs, once; schema may be NULL (untyped JSON only). May raise a memory error. */
void lua_msg_open(lua_State *L, const struct schema *schema);

void lua_msg_push_null(lua_State *L); /* json.null: a light userdata */
bool lua_msg_is_null(lua_State *L, int index);
void lua_msg_mark_array(lua_State *L, int index); /* the table there is a JSON array, even when empty */
bool lua_msg_is_array(lua_State *L, int index);

/*
 * For the codecs. The table of interned names, by the schema's name ids; the metatable that marks arrays; the one that
 * marks integers beyond 64 bits: a table whose element 1 is the digits.
 */
void lua_msg_push_names(lua_State *L);
void lua_msg_push_array(lua_State *L);
void lua_msg_push_big(lua_State *L);
/* Pushes the value written as [default = …]. May raise a memory error. */
void lua_msg_push_default(lua_State *L, const struct msg_field *f);
