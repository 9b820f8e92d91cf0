/* Protobuf bytes to Lua tables. The other direction is in lua_pb_write.c. */
#include "common/lua_pb.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "common/text.h"

enum { FIELDS_HINT = 8 }; /* a table is made for so many at first */

struct decoder {
	lua_State *L;
	const struct lua_names *names;
	unsigned depth, unknown;
	char *why;
	size_t why_size;
};
struct value { /* one field's value as it stands on the wire */
	enum msg_wire wire;
	uint64_t number; /* of MSG_WIRE_BYTES: how many */
	const char *p;   /* MSG_WIRE_BYTES */
};
struct table {                          /* a message being filled */
	int base, list;                 /* its place, and that of the list or map that came last; 0: none came */
	const struct msg_field *listed; /* the field of that list */
	lua_Integer length;
	uint64_t seen[4];
};

static int message(struct decoder *d, const struct msg_type *t, const char *p, const char *end,
		   const struct lua_path *at);

#define corrupt(d, at, ...) lua_path_fail(ERR_CORRUPT, (d)->why, (d)->why_size, at, __VA_ARGS__)
#define refuse(d, at, ...)  lua_path_fail(ERR_BAD_REQUEST, (d)->why, (d)->why_size, at, __VA_ARGS__)

/* ---- the wire ------------------------------------------------------------------------------------------- */

/* NULL: truncated or over 64 bits. */
static inline const char *varint(const char *p, const char *end, uint64_t *out)
{
	if (p < end && !(*p & 0x80)) {
		*out = (uint8_t)*p;
		return p + 1;
	}
	uint64_t v = 0;
	for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
		uint8_t b = (uint8_t)*p++;
		if (shift == 63 && b > 1)
			return NULL;
		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80)) {
			*out = v;
			return p;
		}
	}
	return NULL;
}

static uint64_t little_endian(const char *p, unsigned n)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)(uint8_t)p[i] << (8 * i);
	return v;
}

/* NULL: truncated, or a wire type that proto2 does not have (groups are refused). */
static inline const char *read_value(const char *p, const char *end, enum msg_wire wire, struct value *v)
{
	v->wire = wire;
	switch (wire) {
	case MSG_WIRE_VARINT: return varint(p, end, &v->number);
	case MSG_WIRE_BYTES:
		if (!(p = varint(p, end, &v->number)) || v->number > (size_t)(end - p))
			return NULL;
		v->p = p;
		return p + v->number;
	case MSG_WIRE_8:
	case MSG_WIRE_4: {
		unsigned bytes = wire == MSG_WIRE_8 ? 8 : 4;
		if ((size_t)(end - p) < bytes)
			return NULL;
		v->number = little_endian(p, bytes);
		return p + bytes;
	}
	default: return NULL;
	}
}

/* ---- one value ------------------------------------------------------------------------------------------ */

static int any(struct decoder *d, const struct msg_type *t, const struct value *v, const struct lua_path *at)
{
	const char *p = v->p, *end = v->p + v->number, *json = "{}";
	size_t n = 2;
	char why[LUA_WHY_MAX];
	while (p < end) {
		uint64_t tag;
		struct value inner;
		if (!(p = varint(p, end, &tag)) || !(p = read_value(p, end, tag & 7, &inner)))
			return corrupt(d, at, "not protobuf");
		if (tag >> 3 == 1 && inner.wire == MSG_WIRE_BYTES)
			json = inner.p, n = inner.number;
		else
			d->unknown++;
	}
	if (lua_json_decode(d->L, at ? NULL : t, json, n, why, sizeof why) < 0)
		return refuse(d, at, "%s", why);
	return 0;
}

static double to_double(enum msg_field_type type, uint64_t number)
{
	uint32_t bits = (uint32_t)number;
	float f;
	double v;
	if (type == MSG_FLOAT) {
		memcpy(&f, &bits, sizeof f);
		return (double)f;
	}
	memcpy(&v, &number, sizeof v);
	return v;
}

static int64_t to_integer(enum msg_field_type type, uint64_t number)
{
	switch (type) {
	case MSG_INT32:
	case MSG_SFIXED32: return (int32_t)(uint32_t)number;
	case MSG_UINT32:
	case MSG_FIXED32: return (uint32_t)number;
	case MSG_SINT32: return (int32_t)((uint32_t)number >> 1 ^ (0 - ((uint32_t)number & 1)));
	case MSG_SINT64: return (int64_t)(number >> 1 ^ (0 - (number & 1)));
	default: return (int64_t)number;
	}
}

/* Pushes what needs nothing else to be said of it. False: the value is of another kind, or is refused. */
static inline bool push_plain(lua_State *L, const struct msg_field *f, const struct value *v)
{
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FLOAT: lua_pushnumber(L, to_double(f->type, v->number)); return true;
	case MSG_BOOL: lua_pushboolean(L, v->number != 0); return true;
	case MSG_STRING:
		if (!text_is_utf8(v->p, v->number))
			return false;
		/* fall through */
	case MSG_BYTES: lua_pushlstring(L, v->p, v->number); return true;
	case MSG_MESSAGE:
	case MSG_ENUM: return false;
	case MSG_UINT64:
	case MSG_FIXED64:
		if (v->number > INT64_MAX)
			return false;
		/* fall through */
	default: lua_pushinteger(L, to_integer(f->type, v->number)); return true;
	}
}

static int push_other(struct decoder *d, const struct msg_field *f, const struct value *v, const struct lua_path *at)
{
	const struct msg_enum_value *name;
	int err;
	switch (f->type) {
	case MSG_STRING: return refuse(d, at, "text that is not UTF-8");
	case MSG_MESSAGE:
		luaL_checkstack(d->L, 10, "protobuf");
		err = f->message->any ? any(d, f->message, v, at) : message(d, f->message, v->p, v->p + v->number, at);
		return err < 0 ? err : 1;
	case MSG_ENUM:
		if (!(name = msg_enum_number(f->enumeration, (int32_t)(uint32_t)v->number))) {
			d->unknown++;
			return 0;
		}
		lua_msg_push_name(d->L, d->names, name->id);
		return 1;
	default: return refuse(d, at, "%llu is out of range", (unsigned long long)v->number);
	}
}

/* Pushes the value: 1; 0: an enum's value that is not known, nothing is pushed. */
static int push(struct decoder *d, const struct msg_field *f, const struct value *v, const struct lua_path *at)
{
	return push_plain(d->L, f, v) ? 1 : push_other(d, f, v, at);
}

/* ---- lists and maps -------------------------------------------------------------------------------------- */

/* Brings the list (or map) of the field to its place; elements of one field mostly stand together. */
static void list_of(struct decoder *d, struct table *t, const struct msg_field *f, int hint)
{
	lua_State *L = d->L;
	if (t->listed == f)
		return;
	if (!t->list) {
		lua_pushnil(L);
		t->list = t->base + 1;
	}
	lua_msg_push_name(L, d->names, f->id);
	if (lua_rawget(L, t->base) == LUA_TNIL) {
		lua_pop(L, 1);
		lua_createtable(L, f->map ? 0 : hint, 0);
		if (!f->map)
			lua_msg_mark_array(L, -1);
		lua_msg_push_name(L, d->names, f->id);
		lua_pushvalue(L, -2);
		lua_rawset(L, t->base);
	}
	t->length = f->map ? 0 : (lua_Integer)lua_rawlen(L, -1);
	lua_replace(L, t->list);
	t->listed = f;
}

static int element(struct decoder *d, struct table *t, const struct msg_field *f, const struct value *v,
		   const struct lua_path *at)
{
	struct lua_path here = { at, NULL, 0, (size_t)t->length + 1 };
	int got = push(d, f, v, &here);
	if (got > 0)
		lua_rawseti(d->L, t->list, ++t->length);
	return got < 0 ? got : 0;
}

static int count_packed(enum msg_wire wire, const struct value *v)
{
	if (wire != MSG_WIRE_VARINT)
		return (int)(v->number / (wire == MSG_WIRE_8 ? 8 : 4));
	int n = 0;
	for (size_t i = 0; i < v->number; i++)
		n += !(v->p[i] & 0x80);
	return n;
}

static int packed(struct decoder *d, struct table *t, const struct msg_field *f, const struct value *v,
		  const struct lua_path *at)
{
	list_of(d, t, f, count_packed(f->wire, v));
	for (const char *p = v->p, *end = v->p + v->number; p < end;) {
		struct value one;
		if (!(p = read_value(p, end, f->wire, &one)))
			return corrupt(d, at, "a truncated number");
		int err = element(d, t, f, &one, at);
		if (err < 0)
			return err;
	}
	return 0;
}

/* An absent key or value of an entry is the zero of its type. */
static int push_zero(struct decoder *d, const struct msg_field *f, const struct lua_path *at)
{
	struct value zero = { .wire = f->wire, .p = "" };
	if (f->type == MSG_ENUM && f->enumeration->values) {
		lua_msg_push_name(d->L, d->names, f->enumeration->value[0].id);
		return 1;
	}
	return push(d, f, &zero, at);
}

static int entry(struct decoder *d, struct table *t, const struct msg_field *f, const struct value *v,
		 const struct lua_path *at)
{
	const struct msg_field *part = f->message->field;
	struct value found[2];
	bool has[2] = { false, false };
	list_of(d, t, f, 0);
	for (const char *p = v->p, *end = v->p + v->number; p < end;) {
		uint64_t tag;
		struct value one;
		if (!(p = varint(p, end, &tag)) || !(p = read_value(p, end, tag & 7, &one)))
			return corrupt(d, at, "not protobuf");
		if (tag >> 3 < 1 || tag >> 3 > 2) {
			d->unknown++;
			continue;
		}
		unsigned which = (unsigned)(tag >> 3) - 1;
		if (one.wire != part[which].wire)
			return corrupt(d, at, "the wrong wire type");
		found[which] = one;
		has[which] = true;
	}
	int got = has[0] ? push(d, &part[0], &found[0], at) : push_zero(d, &part[0], at);
	if (got <= 0)
		return got;
	got = has[1] ? push(d, &part[1], &found[1], at) : push_zero(d, &part[1], at);
	if (got < 0)
		return got;
	if (got == 0)
		lua_pop(d->L, 1); /* the key of a value that is not known */
	else
		lua_rawset(d->L, t->list);
	return 0;
}

/* ---- messages -------------------------------------------------------------------------------------------- */

/* A list or a map, or a part of one; or what is none of this type. */
static int several(struct decoder *d, struct table *t, const struct msg_field *f, const struct value *v,
		   const struct lua_path *at)
{
	struct lua_path here = { at, f->name, f->name_bytes, 0 };
	if (f->repeated && v->wire == MSG_WIRE_BYTES && f->wire != MSG_WIRE_BYTES)
		return packed(d, t, f, v, &here);
	if (v->wire != f->wire)
		return corrupt(d, &here, "the wrong wire type");
	if (f->map)
		return entry(d, t, f, v, &here);
	list_of(d, t, f, 4);
	return element(d, t, f, v, &here);
}

static int field(struct decoder *d, struct table *t, const struct msg_field *f, const struct value *v,
		 const struct lua_path *at)
{
	if (f->repeated || v->wire != f->wire)
		return several(d, t, f, v, at);
	lua_msg_push_name(d->L, d->names, f->id);
	if (!push_plain(d->L, f, v)) {
		struct lua_path here = { at, f->name, f->name_bytes, 0 };
		int got = push_other(d, f, v, &here);
		if (got <= 0) {
			lua_pop(d->L, 1);
			return got;
		}
	}
	lua_rawset(d->L, t->base);
	return 0;
}

/*
 * What most fields are, behind a tag that is the field's own: a text or a varint, read and set without a step between.
 * NULL: it is another, or not as it should be, and nothing has happened.
 */
static inline const char *usual(const struct decoder *d, const struct table *t, const struct msg_field *f,
				const char *p, const char *end)
{
	lua_State *L = d->L;
	uint64_t v;
	if (f->repeated || !(p = varint(p, end, &v)))
		return NULL;
	if (f->type == MSG_STRING || f->type == MSG_BYTES) {
		if (v > (size_t)(end - p))
			return NULL;
		lua_msg_push_name(L, d->names, f->id);
		if (f->type == MSG_BYTES) {
			lua_pushlstring(L, p, v);
		} else if (!lua_msg_push_text(L, d->names, p, v)) {
			lua_pop(L, 1);
			return NULL;
		}
		lua_rawset(L, t->base);
		return p + v;
	}
	if (f->type == MSG_INT32)
		v = (uint64_t)(int32_t)(uint32_t)v;
	else if (f->type == MSG_UINT32)
		v = (uint32_t)v;
	else if (f->type != MSG_INT64 && f->type != MSG_BOOL)
		return NULL;
	lua_msg_push_name(L, d->names, f->id);
	if (f->type == MSG_BOOL)
		lua_pushboolean(L, v != 0);
	else
		lua_pushinteger(L, (lua_Integer)v);
	lua_rawset(L, t->base);
	return p;
}

static __attribute__((noinline)) int complete(struct decoder *d, const struct msg_type *type, const struct table *t,
					      const struct lua_path *at)
{
	for (unsigned i = 0; i < type->fields; i++) {
		const struct msg_field *f = &type->field[i];
		if (t->seen[i / 64] >> (i % 64) & 1)
			continue;
		if (f->required) {
			struct lua_path here = { at, f->name, f->name_bytes, 0 };
			return refuse(d, &here, "required, but missing");
		}
		if (f->has_default) {
			lua_msg_push_name(d->L, d->names, f->id);
			lua_msg_push_default(d->L, f);
			lua_rawset(d->L, t->base);
		}
	}
	return 0;
}

/* Any field. NULL: err says why. */
static __attribute__((noinline)) const char *unusual(struct decoder *d, const struct msg_type *type, struct table *t,
						     const char *p, const char *end, const struct msg_field **found,
						     int *err, const struct lua_path *at)
{
	uint64_t tag = 0;
	struct value v;
	const struct msg_field *f = NULL;
	if ((p = varint(p, end, &tag)) && tag <= UINT32_MAX)
		f = msg_field_number(type, (uint32_t)tag >> 3);
	if (!p || tag > UINT32_MAX || tag >> 3 == 0 || !(p = read_value(p, end, tag & 7, &v))) {
		*err = corrupt(d, at, "not protobuf");
		return NULL;
	}
	*found = f;
	if (!f)
		d->unknown++;
	else if ((*err = field(d, t, f, &v, at)) < 0)
		return NULL;
	return p;
}

/* Of a oneof the one that comes last counts, says protobuf. */
static __attribute__((noinline)) void forget_others(struct decoder *d, const struct msg_type *type, struct table *t,
						    const struct msg_field *f)
{
	for (unsigned i = 0; i < type->fields; i++) {
		if (type->field[i].oneof != f->oneof || i == f->index || !(t->seen[i / 64] >> (i % 64) & 1))
			continue;
		lua_msg_push_name(d->L, d->names, type->field[i].id);
		lua_pushnil(d->L);
		lua_rawset(d->L, t->base);
		t->seen[i / 64] &= ~(UINT64_C(1) << (i % 64));
	}
}

/* Most writers put the fields in order, with short tags. */
static int fields(struct decoder *d, const struct msg_type *type, struct table *t, const char *p, const char *end,
		  const struct lua_path *at)
{
	const struct msg_field *next = type->field, *last = next + type->fields;
	bool look = type->required || type->defaults || type->oneofs;
	int err;
	while (p < end) {
		const struct msg_field *f = next;
		const char *behind = NULL;
		if (f < last && (uint32_t)(signed char)*p == f->tag) /* one byte: a longer tag's first is negative */
			behind = usual(d, t, f, p + 1, end);
		if (!behind && !(behind = unusual(d, type, t, p, end, &f, &err, at)))
			return err;
		p = behind;
		if (!f)
			continue;
		next = f + !f->repeated;
		if (!look)
			continue;
		t->seen[f->index / 64] |= UINT64_C(1) << (f->index % 64);
		if (f->oneof)
			forget_others(d, type, t, f);
	}
	return look ? complete(d, type, t, at) : 0;
}

static int message(struct decoder *d, const struct msg_type *type, const char *p, const char *end,
		   const struct lua_path *at)
{
	lua_State *L = d->L;
	if (++d->depth > LUA_PB_DEPTH)
		return corrupt(d, at, "more than %d levels", LUA_PB_DEPTH);
	lua_createtable(L, 0, type->fields < FIELDS_HINT ? type->fields : FIELDS_HINT);
	struct table t = { .base = lua_gettop(L) };
	int err = fields(d, type, &t, p, end, at);
	if (t.list)
		lua_settop(L, t.base);
	d->depth--;
	return err;
}

int lua_pb_decode(lua_State *L, const struct msg_type *type, const void *bytes, size_t n, unsigned *unknown, char *why,
		  size_t why_size)
{
	struct decoder d = { .L = L, .names = lua_msg_names(L), .why = why, .why_size = why_size };
	const char *p = n ? bytes : "";
	int err, top = lua_gettop(L);
	if (!lua_checkstack(L, 10))
		luaL_error(L, "not enough memory");
	if (type->any)
		err = any(&d, type, &(struct value){ .p = p, .number = n }, NULL);
	else
		err = message(&d, type, p, p + n, NULL);
	if (unknown)
		*unknown = d.unknown;
	if (err < 0)
		lua_settop(L, top);
	return err;
}
