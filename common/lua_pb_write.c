/* Lua tables to protobuf bytes. Nothing here allocates in Lua: no memory errors. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "common/lua_pb.h"
#include "common/text.h"

enum { HEAD_MAX = 5 + 10 }; /* bytes of a tag and a varint */

struct encoder {
	lua_State *L;
	struct buf *out;
	size_t len_max; /* of out */
	unsigned depth;
	char *why;
	size_t why_size;
};

/* Of the table there. */
static int put_message(struct encoder *e, int index, const struct msg_type *t, const struct lua_path *at);

#define fail(e, at, ...) lua_path_fail(ERR_FAILED, (e)->why, (e)->why_size, at, __VA_ARGS__)

static inline bool has_room(const struct encoder *e, size_t n)
{
	return e->out->len + n <= e->len_max;
}

static int fail_room(struct encoder *e, const struct lua_path *at)
{
	return fail(e, at, LUA_MSG_TOO_LONG, LUA_MSG_BYTES >> 20);
}

static int fail_type(struct encoder *e, int index, const char *expected, const struct lua_path *at)
{
	struct buf b = BUF_INIT;
	lua_msg_show(e->L, index, &b);
	fail(e, at, "expected %s, found %s", expected, buf_cstr(&b));
	buf_release(&b);
	return ERR_FAILED;
}

/* ---- the wire ------------------------------------------------------------------------------------------- */

static inline char *write_varint(char *out, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		*out++ = (char)(v | 0x80);
	*out++ = (char)v;
	return out;
}

/* Room for a tag, a varint and n bytes; the tag is written. 0: an element of a packed list has none. */
static inline char *begin(struct encoder *e, uint32_t tag, size_t n)
{
	if (e->out->cap - e->out->len < HEAD_MAX + n)
		buf_reserve(e->out, HEAD_MAX + n);
	char *out = e->out->data + e->out->len;
	return tag ? write_varint(out, tag) : out;
}

static inline void end(struct encoder *e, const char *out)
{
	e->out->len = (size_t)(out - e->out->data);
}

static inline void put_varint(struct encoder *e, uint32_t tag, uint64_t v)
{
	end(e, write_varint(begin(e, tag, 0), v));
}

static void put_fixed(struct encoder *e, uint32_t tag, uint64_t v, unsigned bytes)
{
	char *out = begin(e, tag, bytes);
	for (unsigned i = 0; i < bytes; i++)
		*out++ = (char)(v >> (8 * i));
	end(e, out);
}

/* Most texts are short: two words that may overlap, where memcpy would be called. */
static inline void copy(char *out, const char *p, size_t n)
{
	uint64_t first, last;
	uint32_t few, rest;
	if (n > 16) {
		memcpy(out, p, n);
	} else if (n >= 8) {
		memcpy(&first, p, 8);
		memcpy(&last, p + n - 8, 8);
		memcpy(out, &first, 8);
		memcpy(out + n - 8, &last, 8);
	} else if (n >= 4) {
		memcpy(&few, p, 4);
		memcpy(&rest, p + n - 4, 4);
		memcpy(out, &few, 4);
		memcpy(out + n - 4, &rest, 4);
	} else if (n) {
		out[0] = p[0];
		out[n / 2] = p[n / 2];
		out[n - 1] = p[n - 1];
	}
}

static inline void put_bytes(struct encoder *e, uint32_t tag, const char *p, size_t n)
{
	char *out = write_varint(begin(e, tag, n), n);
	copy(out, p, n);
	end(e, out + n);
}

/* A part whose length stands before it: one byte is left for it, which is enough for most; else the part moves. */
static size_t begin_part(struct encoder *e, uint32_t tag)
{
	put_varint(e, tag, 0);
	return e->out->len;
}

static void end_part(struct encoder *e, size_t start)
{
	char length[10];
	size_t bytes = e->out->len - start, n = (size_t)(write_varint(length, bytes) - length);
	if (n > 1) {
		buf_reserve(e->out, n - 1);
		memmove(e->out->data + start + n - 1, e->out->data + start, bytes);
		e->out->len += n - 1;
	}
	memcpy(e->out->data + start - 1, length, n);
}

/* ---- one value ------------------------------------------------------------------------------------------ */

static void put_integer(struct encoder *e, const struct msg_field *f, uint32_t tag, int64_t v)
{
	switch (f->type) {
	case MSG_FIXED64:
	case MSG_SFIXED64: put_fixed(e, tag, (uint64_t)v, 8); break;
	case MSG_FIXED32:
	case MSG_SFIXED32: put_fixed(e, tag, (uint64_t)v, 4); break;
	case MSG_SINT32:
	case MSG_SINT64: put_varint(e, tag, (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0)); break;
	default: put_varint(e, tag, (uint64_t)v); break;
	}
}

static void put_real(struct encoder *e, const struct msg_field *f, uint32_t tag, double v)
{
	uint64_t bits;
	uint32_t single;
	float narrow = (float)v;
	if (f->type == MSG_FLOAT) {
		memcpy(&single, &narrow, sizeof single);
		put_fixed(e, tag, single, 4);
	} else {
		memcpy(&bits, &v, sizeof bits);
		put_fixed(e, tag, bits, 8);
	}
}

/* An integer with a fraction, or out of range; or no number at all. */
static int fail_integer(struct encoder *e, int index, const struct lua_path *at)
{
	int exact;
	lua_Integer v = lua_type(e->L, index) == LUA_TNUMBER ? lua_tointegerx(e->L, index, &exact) : (exact = 0);
	return exact ? fail(e, at, "%lld is out of range", (long long)v) : fail_type(e, index, "an integer", at);
}

/* What put_plain has refused. */
static int fail_plain(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	if (lua_type(e->L, index) == LUA_TSTRING && !has_room(e, lua_rawlen(e->L, index)))
		return fail_room(e, at);
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FLOAT: return fail_type(e, index, "a number", at);
	case MSG_BOOL: return fail_type(e, index, "true or false", at);
	case MSG_BYTES: return fail_type(e, index, "bytes", at);
	case MSG_STRING:
		return lua_type(e->L, index) == LUA_TSTRING ? fail(e, at, "text that is not UTF-8")
							    : fail_type(e, index, "text", at);
	default: return fail_integer(e, index, at);
	}
}

/* A number, a text or a truth behind its tag; type: lua_type's. False: another kind of field, or no value for it. */
static bool put_plain(struct encoder *e, int index, int type, const struct msg_field *f, uint32_t tag)
{
	size_t n;
	int exact;
	const char *p;
	lua_Integer v;
	switch (f->type) {
	case MSG_MESSAGE:
	case MSG_ENUM: return false;
	case MSG_STRING:
	case MSG_BYTES:
		if (type != LUA_TSTRING)
			return false;
		p = lua_tolstring(e->L, index, &n);
		if (!has_room(e, n) || (f->type == MSG_STRING && !text_is_utf8(p, n)))
			return false;
		put_bytes(e, tag, p, n);
		return true;
	case MSG_DOUBLE:
	case MSG_FLOAT:
		if (type == LUA_TNUMBER)
			put_real(e, f, tag, lua_tonumber(e->L, index));
		return type == LUA_TNUMBER;
	case MSG_BOOL:
		if (type == LUA_TBOOLEAN)
			put_varint(e, tag, (uint64_t)lua_toboolean(e->L, index));
		return type == LUA_TBOOLEAN;
	default:
		if (type != LUA_TNUMBER)
			return false;
		v = lua_tointegerx(e->L, index, &exact);
		if (!exact || !lua_msg_fits(f->type, v))
			return false;
		put_integer(e, f, tag, v);
		return true;
	}
}

/* What most fields are, without a call or a table of places to jump to. False: another kind, or no value for it. */
static inline __attribute__((always_inline)) bool put_usual(struct encoder *e, const struct lua_place *value,
							    const struct msg_field *f)
{
	size_t n;
	int exact;
	if (f->repeated)
		return false;
	if (f->type == MSG_STRING) {
		if (value->type != LUA_TSTRING)
			return false;
		const char *p = lua_tolstring(e->L, value->at, &n);
		if (!has_room(e, n) || !text_is_utf8(p, n))
			return false;
		put_bytes(e, f->tag, p, n);
		return true;
	}
	if ((f->type != MSG_INT32 && f->type != MSG_INT64) || value->type != LUA_TNUMBER)
		return false;
	lua_Integer v = lua_tointegerx(e->L, value->at, &exact);
	if (!exact || (f->type == MSG_INT32 && v != (int32_t)v))
		return false;
	put_varint(e, f->tag, (uint64_t)v);
	return true;
}

static int put_any(struct encoder *e, int index, const struct lua_path *at)
{
	char why[LUA_WHY_MAX];
	size_t start = begin_part(e, 1 << 3 | MSG_WIRE_BYTES);
	if (lua_json_encode(e->L, index, NULL, e->out, why, sizeof why) < 0)
		return fail(e, at, "%s", why);
	end_part(e, start);
	return 0;
}

static int put_enum(struct encoder *e, int index, const struct msg_field *f, uint32_t tag, const struct lua_path *at)
{
	char values[LUA_VALUES_MAX];
	size_t n = 0;
	const char *name = lua_type(e->L, index) == LUA_TSTRING ? lua_tolstring(e->L, index, &n) : NULL;
	const struct msg_enum_value *v = name ? msg_enum_name(f->enumeration, name, n) : NULL;
	if (!v)
		return fail_type(e, index, lua_msg_values(f->enumeration, values), at);
	put_varint(e, tag, (uint64_t)(int64_t)v->number);
	return 0;
}

/* The value behind its tag. */
static __attribute__((noinline)) int put_value(struct encoder *e, int index, int type, const struct msg_field *f,
					       uint32_t tag, const struct lua_path *at)
{
	if (put_plain(e, index, type, f, tag))
		return 0;
	if (f->type == MSG_ENUM)
		return put_enum(e, index, f, tag, at);
	if (f->type != MSG_MESSAGE)
		return fail_plain(e, index, f, at);
	if (type != LUA_TTABLE && !f->message->any)
		return fail_type(e, index, "a table", at);
	size_t start = begin_part(e, tag);
	int err = f->message->any ? put_any(e, index, at) : put_message(e, index, f->message, at);
	end_part(e, start);
	return err;
}

/* ---- lists, maps, messages -------------------------------------------------------------------------------- */

static int put_list(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	size_t n = lua_rawlen(e->L, index), start = 0;
	int err = 0;
	if (lua_msg_entries(e->L, index, n) != n)
		return fail(e, at, "a sequence with holes or names");
	if (f->packed && n)
		start = begin_part(e, f->tag);
	int place = lua_gettop(e->L) + 1;
	for (struct lua_path here = { at, NULL, 0, 1 }; err == 0 && here.index <= n; here.index++) {
		int type = lua_rawgeti(e->L, index, (lua_Integer)here.index);
		err = has_room(e, 0) ? put_value(e, place, type, f, f->packed ? 0 : f->tag, &here)
				     : fail_room(e, &here);
		lua_pop(e->L, 1);
	}
	if (start)
		end_part(e, start);
	return err;
}

static int put_entry(struct encoder *e, const struct msg_field *f, const struct lua_key *key, const struct lua_path *at)
{
	const struct msg_field *part = f->message->field;
	size_t start = begin_part(e, f->tag);
	int err = put_value(e, key->at + 1, lua_type(e->L, key->at + 1), &part[0], part[0].tag, at);
	if (err == 0)
		err = put_value(e, key->at, lua_type(e->L, key->at), &part[1], part[1].tag, at);
	end_part(e, start);
	return err;
}

static int put_map(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	struct lua_keys keys;
	int top = lua_gettop(e->L), err = lua_keys_collect(&keys, e->L, index, f->message->field[0].type);
	if (err == ERR_NOMEM)
		err = fail(e, at, "out of memory");
	else if (err < 0)
		err = fail_type(e, -1, "a key of the map's type", at);
	for (size_t i = 0; err == 0 && i < keys.n; i++) {
		const struct lua_key *key = &keys.key[i];
		struct lua_path here = { at, key->p ? key->p : "[key]", key->p ? key->n : 5, 0 };
		err = has_room(e, 0) ? put_entry(e, f, key, &here) : fail_room(e, &here);
	}
	lua_keys_release(&keys);
	lua_settop(e->L, top);
	return err;
}

static __attribute__((noinline)) int put_other(struct encoder *e, const struct lua_place *value,
					       const struct msg_field *f, const struct lua_path *up)
{
	struct lua_path at = { up, f->name, f->name_bytes, 0 };
	if (!f->repeated)
		return put_value(e, value->at, value->type, f, f->tag, &at);
	if (value->type != LUA_TTABLE)
		return fail_type(e, value->at, "a table", &at);
	return f->map ? put_map(e, value->at, f, &at) : put_list(e, value->at, f, &at);
}

static int fail_missing(struct encoder *e, const struct msg_field *f, const struct lua_path *up)
{
	struct lua_path at = { up, f->name, f->name_bytes, 0 };
	return fail(e, &at, "required, but missing");
}

/* Every key of the table must be a field: a misspelt one would vanish silently. */
static int fail_fields(struct encoder *e, int err, const struct msg_type *t, const struct lua_path *at)
{
	struct lua_path here = { at, NULL, 0, 0 };
	if (err == ERR_NOMEM)
		return fail(e, at, "out of memory");
	if (lua_type(e->L, -1) != LUA_TSTRING)
		return fail_type(e, -1, "the name of a field", at);
	here.name = lua_tolstring(e->L, -1, &here.n);
	return fail(e, &here, "%s has no such field", t->name);
}

static __attribute__((noinline)) int check_oneofs(struct encoder *e, const struct msg_type *t,
						  const struct lua_place *value, const struct lua_path *up)
{
	const struct msg_field *f = t->field, *both = lua_msg_both(t, value, &f);
	struct lua_path at = { up, f->name, f->name_bytes, 0 };
	return both ? fail(e, &at, LUA_MSG_BESIDE, both->name) : 0;
}

static int put_message(struct encoder *e, int index, const struct msg_type *t, const struct lua_path *at)
{
	struct lua_place value[MSG_FIELDS_MAX];
	int top = lua_gettop(e->L), err;
	if (!has_room(e, 0))
		return fail_room(e, at);
	if (++e->depth > LUA_PB_DEPTH)
		return fail(e, at, "a cycle, or more than %d levels", LUA_PB_DEPTH);
	if ((err = lua_msg_fields(e->L, index, top, t, value)) < 0)
		return fail_fields(e, err, t, at);
	if (t->oneofs && (err = check_oneofs(e, t, value, at)) < 0)
		return err;
	for (unsigned i = 0; i < t->fields; i++) {
		const struct msg_field *f = &t->field[i];
		if (value[i].type == LUA_TNIL)
			err = f->required ? fail_missing(e, f, at) : 0;
		else if (!put_usual(e, &value[i], f))
			err = put_other(e, &value[i], f, at);
		if (err < 0)
			return err;
	}
	e->depth--;
	lua_settop(e->L, top);
	return 0;
}

int lua_pb_encode(lua_State *L, int index, const struct msg_type *type, struct buf *out, char *why, size_t why_size)
{
	int top = lua_gettop(L), err = 0;
	size_t before = out->len;
	struct encoder e = { .L = L, .out = out, .len_max = before + LUA_MSG_BYTES, .why = why, .why_size = why_size };
	if (index < 0)
		index = top + 1 + index;
	int kind = lua_type(L, index);
	if (kind == LUA_TNIL && !type->required)
		return 0;
	if (kind != LUA_TTABLE)
		err = fail_type(&e, index, "a table", NULL);
	else
		err = type->any ? put_any(&e, index, NULL) : put_message(&e, index, type, NULL);
	if (err == 0 && type->any && out->len > before && out->data[out->len - 1] != '}')
		err = fail(&e, NULL, "expected an object, found an array");
	if (err < 0) {
		out->len = before;
		lua_settop(L, top);
	}
	return err;
}
