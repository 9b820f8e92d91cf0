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

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { FIELDS_HINT = 8 }; /* a table is made for so many at first */

struct decoder {
	lua_State *L;
	int names; /* where the table of lua_msg's names is on the Lua stack */
	unsigned depth, unknown;
	char *why;
	size_t why_size;
};
struct value { /* one field's value as it stands on the wire */
	unsigned wire;
	uint64_t number; /* VARINT, FIXED64, FIXED32 */
	const char *p;   /* BYTES */
	size_t n;
};
struct table {                          /* a message being filled */
	int base;                       /* its place; base + 1 is the list or map that came last */
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
static const char *read_value(const char *p, const char *end, unsigned wire, struct value *v)
{
	uint64_t n;
	v->wire = wire;
	switch (wire) {
	case VARINT: return varint(p, end, &v->number);
	case FIXED64:
	case FIXED32: {
		unsigned bytes = wire == FIXED64 ? 8 : 4;
		if ((size_t)(end - p) < bytes)
			return NULL;
		v->number = little_endian(p, bytes);
		return p + bytes;
	}
	case BYTES:
		if (!(p = varint(p, end, &n)) || n > (size_t)(end - p))
			return NULL;
		v->p = p;
		v->n = (size_t)n;
		return p + n;
	default: return NULL;
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

/* ---- one value ------------------------------------------------------------------------------------------ */

static int any(struct decoder *d, const struct msg_type *t, const struct value *v, const struct lua_path *at)
{
	const char *p = v->p, *end = v->p + v->n, *json = "{}";
	size_t n = 2;
	char why[LUA_WHY_MAX];
	while (p < end) {
		uint64_t tag;
		struct value inner;
		if (!(p = varint(p, end, &tag)) || !(p = read_value(p, end, tag & 7, &inner)))
			return corrupt(d, at, "not protobuf");
		if (tag >> 3 == 1 && inner.wire == BYTES)
			json = inner.p, n = inner.n;
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

/* Pushes the value: 1; 0: an enum's value that is not known, nothing is pushed. */
static int push(struct decoder *d, const struct msg_field *f, const struct value *v, const struct lua_path *at)
{
	lua_State *L = d->L;
	const struct msg_enum_value *name;
	int err;
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FLOAT: lua_pushnumber(L, to_double(f->type, v->number)); return 1;
	case MSG_BOOL: lua_pushboolean(L, v->number != 0); return 1;
	case MSG_STRING:
		if (!text_is_utf8(v->p, v->n))
			return refuse(d, at, "text that is not UTF-8");
		lua_pushlstring(L, v->p, v->n);
		return 1;
	case MSG_BYTES: lua_pushlstring(L, v->p, v->n); return 1;
	case MSG_MESSAGE:
		err = f->message->any ? any(d, f->message, v, at) : message(d, f->message, v->p, v->p + v->n, at);
		return err < 0 ? err : 1;
	case MSG_ENUM:
		if (!(name = msg_enum_number(f->enumeration, (int32_t)(uint32_t)v->number))) {
			d->unknown++;
			return 0;
		}
		lua_rawgeti(L, d->names, name->id);
		return 1;
	case MSG_UINT64:
	case MSG_FIXED64:
		if (v->number > INT64_MAX)
			return refuse(d, at, "%llu is out of range", (unsigned long long)v->number);
		/* fall through */
	default: lua_pushinteger(L, to_integer(f->type, v->number)); return 1;
	}
}

/* ---- lists and maps -------------------------------------------------------------------------------------- */

/* Brings the list (or map) of the field to base + 1; elements of one field mostly stand together. */
static void list_of(struct decoder *d, struct table *t, const struct msg_field *f, int hint)
{
	lua_State *L = d->L;
	if (t->listed == f)
		return;
	lua_rawgeti(L, d->names, f->id);
	if (lua_rawget(L, t->base) == LUA_TNIL) {
		lua_pop(L, 1);
		lua_createtable(L, f->map ? 0 : hint, 0);
		if (!f->map) {
			lua_msg_mark_array(L, -1);
		}
		lua_rawgeti(L, d->names, f->id);
		lua_pushvalue(L, -2);
		lua_rawset(L, t->base);
	}
	t->length = f->map ? 0 : (lua_Integer)lua_rawlen(L, -1);
	lua_replace(L, t->base + 1);
	t->listed = f;
}

static int element(struct decoder *d, struct table *t, const struct msg_field *f, const struct value *v,
		   const struct lua_path *at)
{
	struct lua_path here = { at, NULL, 0, (size_t)t->length + 1 };
	int got = push(d, f, v, &here);
	if (got > 0)
		lua_rawseti(d->L, t->base + 1, ++t->length);
	return got < 0 ? got : 0;
}

static int count_packed(unsigned wire, const struct value *v)
{
	if (wire != VARINT)
		return (int)(v->n / (wire == FIXED64 ? 8 : 4));
	int n = 0;
	for (size_t i = 0; i < v->n; i++)
		n += !(v->p[i] & 0x80);
	return n;
}

static int packed(struct decoder *d, struct table *t, const struct msg_field *f, const struct value *v,
		  const struct lua_path *at)
{
	unsigned wire = wire_of(f->type);
	list_of(d, t, f, count_packed(wire, v));
	for (const char *p = v->p, *end = v->p + v->n; p < end;) {
		struct value one;
		if (!(p = read_value(p, end, wire, &one)))
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
	struct value zero = { .wire = wire_of(f->type), .p = "", .n = 0 };
	if (f->type == MSG_ENUM && f->enumeration->values) {
		lua_rawgeti(d->L, d->names, f->enumeration->value[0].id);
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
	for (const char *p = v->p, *end = v->p + v->n; p < end;) {
		uint64_t tag;
		struct value one;
		if (!(p = varint(p, end, &tag)) || !(p = read_value(p, end, tag & 7, &one)))
			return corrupt(d, at, "not protobuf");
		if (tag >> 3 < 1 || tag >> 3 > 2) {
			d->unknown++;
			continue;
		}
		unsigned which = (unsigned)(tag >> 3) - 1;
		if (one.wire != wire_of(part[which].type))
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
		lua_rawset(d->L, t->base + 1);
	return 0;
}

/* ---- messages -------------------------------------------------------------------------------------------- */

static int field(struct decoder *d, struct table *t, const struct msg_field *f, const struct value *v,
		 const struct lua_path *at)
{
	struct lua_path here = { at, f->name, f->name_bytes, 0 };
	unsigned wire = wire_of(f->type);
	t->seen[f->index / 64] |= UINT64_C(1) << (f->index % 64);
	if (f->repeated && v->wire == BYTES && wire != BYTES)
		return packed(d, t, f, v, &here);
	if (v->wire != wire)
		return corrupt(d, &here, "the wrong wire type");
	if (f->map)
		return entry(d, t, f, v, &here);
	if (f->repeated) {
		list_of(d, t, f, 4);
		return element(d, t, f, v, &here);
	}
	lua_rawgeti(d->L, d->names, f->id);
	int got = push(d, f, v, &here);
	if (got <= 0) {
		lua_pop(d->L, 1);
		return got;
	}
	lua_rawset(d->L, t->base);
	return 0;
}

static int complete(struct decoder *d, const struct msg_type *type, const struct table *t, const struct lua_path *at)
{
	for (unsigned i = 0; (type->required || type->defaults) && i < type->fields; i++) {
		const struct msg_field *f = &type->field[i];
		if (t->seen[i / 64] >> (i % 64) & 1)
			continue;
		if (f->required) {
			struct lua_path here = { at, f->name, f->name_bytes, 0 };
			return refuse(d, &here, "required, but missing");
		}
		if (f->has_default) {
			lua_rawgeti(d->L, d->names, f->id);
			lua_msg_push_default(d->L, f);
			lua_rawset(d->L, t->base);
		}
	}
	return 0;
}

static int message(struct decoder *d, const struct msg_type *type, const char *p, const char *end,
		   const struct lua_path *at)
{
	lua_State *L = d->L;
	if (++d->depth > LUA_PB_DEPTH)
		return corrupt(d, at, "more than %d levels", LUA_PB_DEPTH);
	luaL_checkstack(L, 10, "protobuf");
	lua_createtable(L, 0, type->fields < FIELDS_HINT ? type->fields : FIELDS_HINT);
	struct table t = { .base = lua_gettop(L) };
	lua_pushnil(L); /* the place of lists */
	while (p < end) {
		uint64_t tag;
		struct value v;
		if (!(p = varint(p, end, &tag)) || tag >> 3 == 0 || tag >> 3 > (1u << 29) - 1 ||
		    !(p = read_value(p, end, tag & 7, &v)))
			return corrupt(d, at, "not protobuf");
		const struct msg_field *f = msg_field_number(type, (uint32_t)(tag >> 3));
		if (!f) {
			d->unknown++;
			continue;
		}
		int err = field(d, &t, f, &v, at);
		if (err < 0)
			return err;
	}
	int err = complete(d, type, &t, at);
	lua_settop(L, t.base);
	d->depth--;
	return err;
}

int lua_pb_decode(lua_State *L, const struct msg_type *type, const void *bytes, size_t n, unsigned *unknown, char *why,
		  size_t why_size)
{
	int top = lua_gettop(L);
	struct decoder d = { .L = L, .names = top + 1, .why = why, .why_size = why_size };
	const char *p = n ? bytes : "";
	luaL_checkstack(L, 8, "protobuf");
	lua_msg_push_names(L);
	int err =
		type->any ? any(&d, type, &(struct value){ .p = p, .n = n }, NULL) : message(&d, type, p, p + n, NULL);
	if (unknown)
		*unknown = d.unknown;
	if (err == 0)
		lua_replace(L, top + 1);
	lua_settop(L, err == 0 ? top + 1 : top);
	return err;
}
