#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
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
struct lua_names;
struct lua_msg {
	const struct lua_names *names; /* the state's memory */
};
/*
 * Prepares a state for both codecs, once; schema may be NULL (untyped JSON only). m outlives the state, whose extra space is
 * a pointer to it from here on; other structs may begin with such a part and stand there in its place. May raise a memory error.
 */
void lua_msg_open(lua_State *L, const struct schema *schema, struct lua_msg *m);
/*
 * From here on m serves the schema too, which was loaded after (schema_load_after) the one it has; what others have copied from
 * m goes on serving that one. May raise a memory error: m is as it was then.
 */
void lua_msg_extend(lua_State *L, const struct schema *schema, struct lua_msg *m);

void lua_msg_push_null(lua_State *L); /* json.null: a light userdata */
bool lua_msg_is_null(lua_State *L, int index);
void lua_msg_mark_array(lua_State *L, int index); /* the table there is a JSON array, even when empty */
bool lua_msg_is_array(lua_State *L, int index);

/*
 * For the codecs. The metatable that marks arrays; the one that marks integers beyond 64 bits: a table whose element 1
 * is the digits.
 */
void lua_msg_push_array(lua_State *L);
void lua_msg_push_big(lua_State *L);
/* Pushes the value written as [default = …]. May raise a memory error. */
void lua_msg_push_default(lua_State *L, const struct msg_field *f);

/* ---- what the codecs share ---------------------------------------------------------------------------------- */

/* Short texts that came again: Lua would hash and look up each anew. Two words hold 16 bytes. */
struct lua_texts {
	struct lua_text {
		uint64_t first, last;
		uint32_t n, missed; /* n: 0, empty; missed: what was looked for here in vain last */
		int ref;            /* registry */
	} slot[256];
};

struct lua_names { /* of the schema, in one state; read it only */
	int *id;   /* registry: the interned names, by the schema's name ids */
	struct lua_texts *texts;
	uint32_t ids, shapes; /* how many there are */
	struct lua_shape {
		const void **name;        /* by the field's index: lua_topointer of its interned name */
		struct lua_step {         /* what lua_next came upon at this step when the last table was read */
			const void *name; /* never NULL, which is what lua_topointer has for numbers */
			size_t field;
		} * step; /* one more than fields: no key is a field there */
	} shape[];        /* by msg_type.index */
};

/* Any state of it. One load after another, where the registry would be asked for a pointer: 150 instructions. */
static inline const struct lua_names *lua_msg_names(lua_State *L)
{
	const struct lua_msg *m;
	memcpy(&m, lua_getextraspace(L), sizeof m);
	return m->names;
}

static inline void lua_msg_push_name(lua_State *L, const struct lua_names *names, uint32_t id)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, names->id[id]);
}

/* Pushes the text; false: it is not UTF-8, nothing is pushed. May raise a memory error. */
bool lua_msg_push_text(lua_State *L, const struct lua_names *names, const char *p, size_t n);

/*
 * What one value is encoded to at most: more than any frame takes. Tables and texts that stand in a value many times make much of
 * little, outside of Lua's bounds.
 */
#define LUA_MSG_BYTES    (8u << 20)
#define LUA_MSG_TOO_LONG "the whole is of more than %u MiB"

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

/* What an enum's value may be called, for fail_type: "RED, GREEN or BLUE"; when they are many, the first of them. */
#define LUA_VALUES_MAX 128
const char *lua_msg_values(const struct msg_enum *e, char out[LUA_VALUES_MAX]);
/* Of two fields of a oneof, for lua_path_fail; the path is that of one of them. */
#define LUA_MSG_BESIDE "given beside %s: only one of the two may be"

/* Is v in the range of the integer type? */
static inline bool lua_msg_fits(enum msg_field_type type, int64_t v)
{
	switch (type) {
	case MSG_INT32:
	case MSG_SINT32:
	case MSG_SFIXED32: return v == (int32_t)v;
	case MSG_UINT32:
	case MSG_FIXED32: return v == (uint32_t)v;
	case MSG_UINT64:
	case MSG_FIXED64: return v >= 0;
	default: return true;
	}
}
/* How many keys the table has, at most limit + 1. Needs 3 free places on the stack; neither allocates nor raises. */
size_t lua_msg_entries(lua_State *L, int index, size_t limit);
struct lua_place {    /* of a value on the stack */
	int at, type; /* type: as lua_type has it; LUA_TNIL: there is none */
};
/*
 * Pushes the values of the table's fields of t onto the stack, which is at top, and says by the field's index where each is (nil:
 * absent, or null). ERR_NOMEM; ERR_FAILED: a key that is no field of t, left on top of the stack. Never raises.
 */
int lua_msg_fields(lua_State *L, int index, int top, const struct msg_type *t, struct lua_place *place);

/* Two fields of one oneof that both have a value: the first is returned, the second is *f. NULL: there are none. */
const struct msg_field *lua_msg_both(const struct msg_type *t, const struct lua_place *place,
				     const struct msg_field **f);

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
