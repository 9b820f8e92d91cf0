#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <lua.h>
#include "common/buf.h"
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

/* ---- what the codecs share ---------------------------------------------------------------------------------- */

/* Where in a message something is; kept on the C stack. Names may come from strangers: only plain bytes are shown. */
struct lua_path {
	const struct lua_path *up;
	const char *name; /* NULL: an element */
	size_t n;
	size_t index; /* from 1 */
};
void lua_path_show(struct buf *out, const char *p, size_t n);
/* Writes "items[3].count: " and the sentence; returns err. */
int lua_path_fail(int err, char *why, size_t why_size, const struct lua_path *at, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/* The value at index for a message: "x", 5 or "a table". */
void lua_msg_show(lua_State *L, int index, struct buf *out);

/* Is v in the range of the integer type? */
bool lua_msg_fits(enum msg_field_type type, int64_t v);
/* How many keys the table has, at most limit + 1. Needs 3 free places on the stack; neither allocates nor raises. */
size_t lua_msg_entries(lua_State *L, int index, size_t limit);
/*
 * Pushes the values of the table's fields of t, and says by the field's index where each is (0: absent, or null). ERR_NOMEM;
 * ERR_FAILED: a key that is no field of t, left on top of the stack. Never raises.
 */
int lua_msg_fields(lua_State *L, int index, const struct msg_type *t, int *at);

struct lua_key {
	const char *p; /* of strings */
	size_t n;
	int64_t i; /* of integers and booleans */
	int at;    /* where its value is on the Lua stack; the key is the next */
};
struct lua_keys { /* zero n; release it */
	struct lua_key *key;
	size_t n, cap;
	struct lua_key held[16];
};
/*
 * Pushes the values and keys of the table and sorts them by key; all keys are of the given type (MSG_STRING, MSG_BOOL or
 * an integer). ERR_NOMEM; ERR_FAILED: a key of another type, left on top of the stack. Never raises.
 */
int lua_keys_collect(struct lua_keys *k, lua_State *L, int index, enum msg_field_type type);
void lua_keys_release(struct lua_keys *k);
