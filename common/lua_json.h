#pragma once
#include <stddef.h>
#include <lua.h>
#include "common/buf.h"
#include "common/msg.h"
/*
 * lua_json: JSON text to Lua values and back, in one pass over the bytes.
 *
 * Typed (a type is given): fields are checked; an unknown one, a wrong type, a number out of range, a missing required
 * field or a field given twice is ERR_BAD_REQUEST, and why gets a sentence that names it by its path:
 * `items[3].count: expected an integer, found "x"`. "__route__" and "__crypto__" are dropped at the top, and
 * fields with the option ignored wherever they stand, whatever their value is.
 * Untyped (NULL, or a type with the option any): what is decoded and encoded again is equal as JSON: empty arrays and
 * empty objects, null, 64-bit integers, floats. Integers beyond 64 bits come as an opaque table that encodes to the
 * same digits. Objects are written with sorted keys, so that equal tables give equal bytes.
 *
 * Text: UTF-8 in both directions. Invalid UTF-8 is refused, but for surrogate pairs written as 2 x 3 bytes (CESU-8, by
 * old clients), which are joined. Characters above U+FFFF are written as escaped surrogate pairs, which pomelo's
 * browser clients need. \u0000 is a NUL byte in the Lua string.
 * Limits: LUA_JSON_DEPTH nested objects and arrays, numbers of JSONSCAN_NUMBER bytes; LUA_MSG_BYTES are written, or an error.
 *
 * Threads: the state's owner only. lua_msg_open must have been called.
 */
#define LUA_JSON_DEPTH 32
#define LUA_WHY_MAX    256 /* a good size for why */

/*
 * Pushes the value. On failure nothing is pushed. ERR_BAD_REQUEST. Untyped text may be any value where type is NULL,
 * and must be an object where it is a type. Call it in protected mode: memory errors are raised.
 */
int lua_json_decode(lua_State *L, const struct msg_type *type, const char *text, size_t n, char *why, size_t why_size);

/*
 * Appends the text of the value at index; nil is an empty message where a type is given. On failure out is as before.
 * ERR_FAILED: not a value of the type, NaN or infinity, a table that is neither sequence nor object, text that is
 * not UTF-8, a cycle or more than LUA_JSON_DEPTH levels; a field the type does not have. Never raises.
 */
int lua_json_encode(lua_State *L, int index, const struct msg_type *type, struct buf *out, char *why, size_t why_size);

/* Appends text as a JSON string with its quotes; ERR_FAILED when it is not UTF-8 (out is as before). */
int lua_json_quote(struct buf *out, const char *text, size_t n);

/* Pushes the library scripts see as json: encode, decode, null, array. */
int lua_json_lib(lua_State *L);
