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

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

struct encoder {
	lua_State *L;
	struct buf *out;
	unsigned depth;
	char *why;
	size_t why_size;
};

static int put_message(struct encoder *e, int index, const struct msg_type *t, const struct lua_path *at);

#define fail(e, at, ...) lua_path_fail(ERR_FAILED, (e)->why, (e)->why_size, at, __VA_ARGS__)

static int fail_type(struct encoder *e, int index, const char *expected, const struct lua_path *at)
{
	struct buf b = BUF_INIT;
	lua_msg_show(e->L, index, &b);
	fail(e, at, "expected %s, found %s", expected, buf_cstr(&b));
	buf_release(&b);
	return ERR_FAILED;
}

/* ---- the wire ------------------------------------------------------------------------------------------- */

static unsigned write_varint(char *out, uint64_t v)
{
	unsigned n = 0;
	for (; v >= 0x80; v >>= 7)
		out[n++] = (char)(v | 0x80);
	out[n++] = (char)v;
	return n;
}

static void put_varint(struct encoder *e, uint64_t v)
{
	e->out->len += write_varint(buf_reserve(e->out, 10), v);
}

static void put_fixed(struct encoder *e, uint64_t v, unsigned bytes)
{
	char *out = buf_reserve(e->out, bytes);
	for (unsigned i = 0; i < bytes; i++)
		out[i] = (char)(v >> (8 * i));
	e->out->len += bytes;
}

static void put_tag(struct encoder *e, const struct msg_field *f, unsigned wire)
{
	put_varint(e, (uint64_t)f->number << 3 | wire);
}

static void put_bytes(struct encoder *e, const char *p, size_t n)
{
	put_varint(e, n);
	buf_add(e->out, p, n);
}

/* A part whose length stands before it: one byte is left for it, which is enough for most; else the part moves. */
static size_t begin_part(struct encoder *e)
{
	buf_addch(e->out, 0);
	return e->out->len;
}

static void end_part(struct encoder *e, size_t start)
{
	char length[10];
	size_t bytes = e->out->len - start;
	unsigned n = write_varint(length, bytes);
	if (n > 1) {
		buf_reserve(e->out, n - 1);
		memmove(e->out->data + start + n - 1, e->out->data + start, bytes);
		e->out->len += n - 1;
	}
	memcpy(e->out->data + start - 1, length, n);
}

/* ---- one value ------------------------------------------------------------------------------------------ */

static int integer(struct encoder *e, int index, enum msg_field_type type, const struct lua_path *at, int64_t *out)
{
	int exact = 0;
	lua_Integer v = lua_type(e->L, index) == LUA_TNUMBER ? lua_tointegerx(e->L, index, &exact) : 0;
	if (!exact)
		return fail_type(e, index, "an integer", at);
	if (!lua_msg_fits(type, v))
		return fail(e, at, "%lld is out of range", (long long)v);
	*out = v;
	return 0;
}

static void put_integer(struct encoder *e, enum msg_field_type type, int64_t v)
{
	switch (type) {
	case MSG_FIXED64:
	case MSG_SFIXED64: put_fixed(e, (uint64_t)v, 8); break;
	case MSG_FIXED32:
	case MSG_SFIXED32: put_fixed(e, (uint64_t)v, 4); break;
	case MSG_SINT32:
	case MSG_SINT64: put_varint(e, (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0)); break;
	default: put_varint(e, (uint64_t)v); break;
	}
}

static void put_real(struct encoder *e, enum msg_field_type type, double v)
{
	uint64_t bits;
	uint32_t single;
	float f = (float)v;
	if (type == MSG_FLOAT) {
		memcpy(&single, &f, sizeof single);
		put_fixed(e, single, 4);
	} else {
		memcpy(&bits, &v, sizeof bits);
		put_fixed(e, bits, 8);
	}
}

static int put_text(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	size_t n;
	if (lua_type(e->L, index) != LUA_TSTRING)
		return fail_type(e, index, f->type == MSG_BYTES ? "bytes" : "text", at);
	const char *p = lua_tolstring(e->L, index, &n);
	if (f->type == MSG_STRING && !text_is_utf8(p, n))
		return fail(e, at, "text that is not UTF-8");
	put_bytes(e, p, n);
	return 0;
}

static int put_any(struct encoder *e, int index, const struct lua_path *at)
{
	char why[LUA_WHY_MAX];
	buf_addch(e->out, 1 << 3 | BYTES);
	size_t start = begin_part(e);
	if (lua_json_encode(e->L, index, NULL, e->out, why, sizeof why) < 0)
		return fail(e, at, "%s", why);
	end_part(e, start);
	return 0;
}

static int put_enum(struct encoder *e, int index, const struct msg_enum *values, const struct lua_path *at)
{
	size_t n = 0;
	const char *name = lua_type(e->L, index) == LUA_TSTRING ? lua_tolstring(e->L, index, &n) : NULL;
	const struct msg_enum_value *v = name ? msg_enum_name(values, name, n) : NULL;
	if (!v)
		return fail_type(e, index, "the name of a value", at);
	put_varint(e, (uint64_t)(int64_t)v->number);
	return 0;
}

/* The value without its tag. */
static int put_value(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	lua_State *L = e->L;
	int64_t v = 0;
	int err;
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FLOAT:
		if (lua_type(L, index) != LUA_TNUMBER)
			return fail_type(e, index, "a number", at);
		put_real(e, f->type, lua_tonumber(L, index));
		return 0;
	case MSG_BOOL:
		if (!lua_isboolean(L, index))
			return fail_type(e, index, "true or false", at);
		buf_addch(e->out, (char)lua_toboolean(L, index));
		return 0;
	case MSG_STRING:
	case MSG_BYTES: return put_text(e, index, f, at);
	case MSG_ENUM: return put_enum(e, index, f->enumeration, at);
	case MSG_MESSAGE: {
		size_t start = begin_part(e);
		err = f->message->any ? put_any(e, index, at) : put_message(e, index, f->message, at);
		end_part(e, start);
		return err;
	}
	default:
		if ((err = integer(e, index, f->type, at, &v)) < 0)
			return err;
		put_integer(e, f->type, v);
		return 0;
	}
}

static unsigned wire_of(enum msg_field_type type)
{
	switch (type) {
	case MSG_DOUBLE:
	case MSG_FIXED64:
	case MSG_SFIXED64: return FIXED64;
	case MSG_FLOAT:
	case MSG_FIXED32:
	case MSG_SFIXED32: return FIXED32;
	case MSG_STRING:
	case MSG_BYTES:
	case MSG_MESSAGE: return BYTES;
	default: return VARINT;
	}
}

/* ---- lists, maps, messages -------------------------------------------------------------------------------- */

static int put_list(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	size_t n = lua_rawlen(e->L, index), start = 0;
	int err = 0;
	if (lua_msg_entries(e->L, index, n) != n)
		return fail(e, at, "a sequence with holes or names");
	if (f->packed && n) {
		put_tag(e, f, BYTES);
		start = begin_part(e);
	}
	for (struct lua_path here = { at, NULL, 0, 1 }; err == 0 && here.index <= n; here.index++) {
		lua_rawgeti(e->L, index, (lua_Integer)here.index);
		if (!f->packed)
			put_tag(e, f, wire_of(f->type));
		err = put_value(e, lua_gettop(e->L), f, &here);
		lua_pop(e->L, 1);
	}
	if (start)
		end_part(e, start);
	return err;
}

static int put_entry(struct encoder *e, const struct msg_field *f, const struct lua_key *key, const struct lua_path *at)
{
	const struct msg_field *part = f->message->field;
	put_tag(e, f, BYTES);
	size_t start = begin_part(e);
	put_tag(e, &part[0], wire_of(part[0].type));
	int err = put_value(e, key->at + 1, &part[0], at);
	if (err == 0) {
		put_tag(e, &part[1], wire_of(part[1].type));
		err = put_value(e, key->at, &part[1], at);
	}
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
		err = put_entry(e, f, key, &here);
	}
	lua_keys_release(&keys);
	lua_settop(e->L, top);
	return err;
}

static int put_field(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	if (f->repeated && !lua_istable(e->L, index))
		return fail_type(e, index, "a table", at);
	if (f->map)
		return put_map(e, index, f, at);
	if (f->repeated)
		return put_list(e, index, f, at);
	put_tag(e, f, wire_of(f->type));
	return put_value(e, index, f, at);
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

static int put_message(struct encoder *e, int index, const struct msg_type *t, const struct lua_path *at)
{
	int value[MSG_FIELDS_MAX], top = lua_gettop(e->L), err;
	if (!lua_istable(e->L, index))
		return fail_type(e, index, "a table", at);
	if (++e->depth > LUA_PB_DEPTH)
		return fail(e, at, "a cycle, or more than %d levels", LUA_PB_DEPTH);
	if ((err = lua_msg_fields(e->L, index, t, value)) < 0)
		return fail_fields(e, err, t, at);
	for (unsigned i = 0; i < t->fields; i++) {
		const struct msg_field *f = &t->field[i];
		struct lua_path here = { at, f->name, f->name_bytes, 0 };
		if (value[i] && !lua_msg_is_null(e->L, value[i]))
			err = put_field(e, value[i], f, &here);
		else if (f->required)
			err = fail(e, &here, "required, but missing");
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
	struct encoder e = { .L = L, .out = out, .why = why, .why_size = why_size };
	index = lua_absindex(L, index);
	if (!lua_checkstack(L, 8))
		return fail(&e, NULL, "out of memory");
	if (lua_isnil(L, index) && !type->required)
		err = 0;
	else if (type->any && !lua_istable(L, index))
		err = fail_type(&e, index, "a table", NULL);
	else
		err = type->any ? put_any(&e, index, NULL) : put_message(&e, index, type, NULL);
	if (err == 0 && type->any && out->len > before && out->data[out->len - 1] != '}')
		err = fail(&e, NULL, "expected an object, found an array");
	if (err < 0)
		out->len = before;
	lua_settop(L, top);
	return err;
}
