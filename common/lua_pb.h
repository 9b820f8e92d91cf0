#pragma once
#include <stddef.h>
#include <lua.h>
#include "common/buf.h"
#include "common/msg.h"
/*
 * lua_pb: protobuf bytes to Lua tables and back, in one pass by msg_type, without an unpacked copy between.
 *
 * All scalar types, packed and unpacked repeated fields (both are read whatever the .proto says), nested messages, maps,
 * enums. How they look in Lua is in lua_msg.h. Unknown field numbers and unknown enum values are skipped and counted.
 * Messages with the option any hold JSON text in their field json: the Lua value is what that text says.
 * Encoding writes fields by number and map entries by key, so that equal tables give equal bytes.
 *
 * Threads: the state's owner only. lua_msg_open must have been called. Limits: LUA_PB_DEPTH nested messages;
 * LUA_MSG_BYTES are written, or an error.
 */
#define LUA_PB_DEPTH 32

/*
 * Pushes the table. On failure nothing is pushed. ERR_CORRUPT: the bytes are no message of this type (truncated, wrong
 * wire type, too deep); ERR_BAD_REQUEST: well-formed but not allowed (required field missing, text not UTF-8, number out
 * of Lua's range). unknown counts skipped fields; may be NULL. Call it in protected mode: memory errors are raised.
 */
int lua_pb_decode(lua_State *L, const struct msg_type *type, const void *bytes, size_t n, unsigned *unknown, char *why,
		  size_t why_size);

/* Appends the bytes of the table at index; nil is an empty message. On failure out is as before. ERR_FAILED. Never raises. */
int lua_pb_encode(lua_State *L, int index, const struct msg_type *type, struct buf *out, char *why, size_t why_size);
