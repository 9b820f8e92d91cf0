/* Lua values to JSON text, and the library json of scripts. Nothing here allocates in Lua: no memory errors. */
#include <lauxlib.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "common/text.h"

#define KEYS_HELD 16 /* keys sorted on the C stack; more take memory */

struct path {
	const struct path *up;
	const char *name; /* NULL: an element */
	size_t index;     /* from 1 */
};
struct encoder {
	lua_State *L;
	struct buf *out;
	int names;               /* where the table of names is on the Lua stack */
	const void *array, *big; /* the metatables that mean something */
	unsigned depth;
	char *why;
	size_t why_size;
};
struct key {
	const char *p;
	size_t n;
	int at; /* on the Lua stack */
};

static int put_value(struct encoder *e, int index, const struct path *at);
static int put_message(struct encoder *e, int index, const struct msg_type *t, const struct path *at);
static int put_field(struct encoder *e, int index, const struct msg_field *f, const struct path *at);

/* ---- what went wrong ------------------------------------------------------------------------------------ */

static void show_path(struct buf *b, const struct path *at)
{
	if (!at)
		return;
	show_path(b, at->up);
	if (at->name)
		buf_addf(b, "%s%.60s", b->len ? "." : "", at->name);
	else
		buf_addf(b, "[%zu]", at->index);
}

static int __attribute__((format(printf, 3, 4))) fail(struct encoder *e, const struct path *at, const char *fmt, ...)
{
	struct buf b = BUF_INIT;
	va_list ap;
	char text[160];
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	show_path(&b, at);
	snprintf(e->why, e->why_size, "%s%s%s", b.len ? buf_cstr(&b) : "", b.len ? ": " : "", text);
	buf_release(&b);
	return ERR_FAILED;
}

static int fail_type(struct encoder *e, int index, const char *expected, const struct path *at)
{
	lua_State *L = e->L;
	if (lua_type(L, index) == LUA_TSTRING)
		return fail(e, at, "expected %s, found \"%.40s\"", expected, lua_tostring(L, index));
	if (lua_isinteger(L, index))
		return fail(e, at, "expected %s, found %lld", expected, (long long)lua_tointeger(L, index));
	if (lua_type(L, index) == LUA_TNUMBER)
		return fail(e, at, "expected %s, found %.17g", expected, lua_tonumber(L, index));
	return fail(e, at, "expected %s, found a %s", expected, luaL_typename(L, index));
}

/* ---- text ----------------------------------------------------------------------------------------------- */

/* 0: goes out as it is; 1: not ASCII; 2: \uXXXX; else the letter behind the backslash */
static const unsigned char escape_of[256] = {
	[0 ... 7] = 2, ['\b'] = 'b', ['\t'] = 't',        ['\n'] = 'n',  [0x0b] = 2,          ['\f'] = 'f',
	['\r'] = 'r',  ['"'] = '"',  [0x0e ... 0x1f] = 2, ['\\'] = '\\', [0x80 ... 0xff] = 1,
};

static void put_surrogates(struct buf *out, const char *p)
{
	const unsigned char *s = (const unsigned char *)p;
	uint32_t code =
		(uint32_t)(s[0] & 7) << 18 | (uint32_t)(s[1] & 63) << 12 | (uint32_t)(s[2] & 63) << 6 | (s[3] & 63);
	code -= 0x10000;
	buf_addf(out, "\\u%04X\\u%04X", 0xd800 + (code >> 10), 0xdc00 + (code & 0x3ff));
}

int lua_json_quote(struct buf *out, const char *text, size_t n)
{
	size_t before = out->len;
	const char *p = text, *end = text + n, *done = text;
	buf_reserve(out, n + 2);
	buf_addch(out, '"');
	while (p < end) {
		unsigned char how = escape_of[(unsigned char)*p];
		unsigned bytes = 1;
		if (!how || (how == 1 && (bytes = text_utf8(p, end)) > 1 && bytes < 4)) {
			p += bytes;
			continue;
		}
		if (!bytes) {
			out->len = before;
			return ERR_FAILED;
		}
		buf_add(out, done, (size_t)(p - done));
		if (how == 1)
			put_surrogates(out, p);
		else if (how == 2)
			buf_addf(out, "\\u%04X", (unsigned char)*p);
		else
			buf_add(out, (char[]){ '\\', (char)how }, 2);
		p += bytes;
		done = p;
	}
	buf_add(out, done, (size_t)(p - done));
	buf_addch(out, '"');
	return 0;
}

static int put_string(struct encoder *e, int index, const struct path *at)
{
	size_t n;
	const char *p = lua_tolstring(e->L, index, &n);
	return lua_json_quote(e->out, p, n) < 0 ? fail(e, at, "text that is not UTF-8") : 0;
}

static int put_real(struct encoder *e, double v, bool single, const struct path *at)
{
	if (!isfinite(v))
		return fail(e, at, "%s is no number in JSON", isnan(v) ? "NaN" : "infinity");
	e->out->len += text_double(buf_reserve(e->out, TEXT_DOUBLE_MAX), v, single);
	return 0;
}

static void put_word(struct encoder *e, bool yes)
{
	buf_add(e->out, yes ? "true" : "false", yes ? 4 : 5);
}

/* ,"name": — names of fields are plain letters. first: without the comma. */
static void put_name(struct encoder *e, const char *name, size_t n, bool first)
{
	char *start = buf_reserve(e->out, n + 4), *o = start;
	if (!first)
		*o++ = ',';
	*o++ = '"';
	memcpy(o, name, n);
	o += n;
	*o++ = '"';
	*o++ = ':';
	e->out->len += (size_t)(o - start);
}

static int enter(struct encoder *e, const struct path *at)
{
	if (++e->depth > LUA_JSON_DEPTH)
		return fail(e, at, "a cycle, or more than %d levels", LUA_JSON_DEPTH);
	return lua_checkstack(e->L, 10) ? 0 : fail(e, at, "out of memory");
}

/* ---- tables: sequences, maps, objects ------------------------------------------------------------------------ */

static const void *mark_of(struct encoder *e, int index)
{
	if (!lua_getmetatable(e->L, index))
		return NULL;
	const void *mark = lua_topointer(e->L, -1);
	lua_pop(e->L, 1);
	return mark;
}

/* How many keys the table has, at most limit + 1. */
static size_t entries(struct encoder *e, int index, size_t limit)
{
	size_t n = 0;
	for (lua_pushnil(e->L); lua_next(e->L, index); lua_pop(e->L, 1))
		if (++n > limit) {
			lua_pop(e->L, 2);
			break;
		}
	return n;
}

/* f: the elements' field, or NULL for any values. holes: nil is written as null. */
static int put_elements(struct encoder *e, int index, const struct msg_field *f, bool holes, const struct path *at)
{
	int err = enter(e, at);
	if (err < 0)
		return err;
	size_t n = lua_rawlen(e->L, index);
	buf_addch(e->out, '[');
	for (struct path here = { at, NULL, 1 }; here.index <= n; here.index++) {
		if (here.index > 1)
			buf_addch(e->out, ',');
		int type = lua_rawgeti(e->L, index, (lua_Integer)here.index);
		if (type == LUA_TNIL && !holes)
			return fail(e, &here, "nil inside a sequence");
		err = f ? put_field(e, lua_gettop(e->L), f, &here) : put_value(e, lua_gettop(e->L), &here);
		if (err < 0)
			return err;
		lua_pop(e->L, 1);
	}
	buf_addch(e->out, ']');
	e->depth--;
	return 0;
}

static int by_bytes(const void *a, const void *b)
{
	const struct key *x = a, *y = b;
	int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
	return order ? order : (x->n > y->n) - (x->n < y->n);
}

static void sort_keys(struct key *key, size_t n)
{
	if (n > KEYS_HELD) {
		qsort(key, n, sizeof *key, by_bytes);
		return;
	}
	for (size_t i = 1; i < n; i++) {
		struct key k = key[i];
		size_t j = i;
		for (; j && by_bytes(&key[j - 1], &k) > 0; j--)
			key[j] = key[j - 1];
		key[j] = k;
	}
}

/* Collects the string keys of the table on the Lua stack, sorted. */
static int collect(struct encoder *e, int index, struct key *key, size_t n, const struct path *at)
{
	lua_State *L = e->L;
	size_t i = 0;
	if (!lua_checkstack(L, (int)n + 8))
		return fail(e, at, "an object of %zu members is too big", n);
	for (lua_pushnil(L); lua_next(L, index);) {
		lua_pop(L, 1);
		if (lua_type(L, -1) != LUA_TSTRING)
			return fail_type(e, -1, "a name as key (sequences have no holes; mark arrays by json.array)",
					 at);
		key[i].p = lua_tolstring(L, -1, &key[i].n);
		key[i++].at = lua_gettop(L);
		lua_pushvalue(L, -1);
	}
	sort_keys(key, n);
	return 0;
}

/* value: the type of each value, or NULL for any. */
static int put_members(struct encoder *e, int index, struct key *key, size_t n, const struct msg_field *value_field,
		       const struct path *at)
{
	lua_State *L = e->L;
	buf_addch(e->out, '{');
	for (size_t i = 0; i < n; i++) {
		struct path here = { at, key[i].p, 0 };
		if (i)
			buf_addch(e->out, ',');
		if (lua_json_quote(e->out, key[i].p, key[i].n) < 0)
			return fail(e, &here, "a name that is not UTF-8");
		buf_addch(e->out, ':');
		lua_pushvalue(L, key[i].at);
		lua_rawget(L, index);
		int err = value_field ? put_field(e, lua_gettop(L), value_field, &here)
				      : put_value(e, lua_gettop(L), &here);
		if (err < 0)
			return err;
		lua_pop(L, 1);
	}
	buf_addch(e->out, '}');
	return 0;
}

static int put_object(struct encoder *e, int index, size_t n, const struct msg_field *value_field,
		      const struct path *at)
{
	struct key held[KEYS_HELD], *key = n > KEYS_HELD ? malloc(n * sizeof *key) : held;
	int top = lua_gettop(e->L), err = key ? enter(e, at) : fail(e, at, "out of memory");
	if (err == 0)
		err = collect(e, index, key, n, at);
	if (err == 0)
		err = put_members(e, index, key, n, value_field, at);
	if (key != held)
		free(key);
	e->depth--;
	lua_settop(e->L, top);
	return err;
}

static int put_table(struct encoder *e, int index, const struct path *at)
{
	const void *mark = mark_of(e, index);
	if (mark && mark == e->array)
		return put_elements(e, index, NULL, true, at);
	if (mark && mark == e->big) {
		lua_rawgeti(e->L, index, 1);
		size_t n = 0;
		const char *p = lua_type(e->L, -1) == LUA_TSTRING ? lua_tolstring(e->L, -1, &n) : "0";
		buf_add(e->out, p, n ? n : 1);
		lua_pop(e->L, 1);
		return 0;
	}
	if (!lua_checkstack(e->L, 10))
		return fail(e, at, "out of memory");
	size_t length = lua_rawlen(e->L, index), n = entries(e, index, SIZE_MAX - 1);
	if (length && n == length)
		return put_elements(e, index, NULL, false, at);
	return put_object(e, index, n, NULL, at);
}

static int put_value(struct encoder *e, int index, const struct path *at)
{
	lua_State *L = e->L;
	switch (lua_type(L, index)) {
	case LUA_TNIL: buf_add(e->out, "null", 4); return 0;
	case LUA_TBOOLEAN: put_word(e, lua_toboolean(L, index)); return 0;
	case LUA_TSTRING: return put_string(e, index, at);
	case LUA_TTABLE: return put_table(e, index, at);
	case LUA_TNUMBER:
		if (!lua_isinteger(L, index))
			return put_real(e, lua_tonumber(L, index), false, at);
		buf_addi(e->out, lua_tointeger(L, index));
		return 0;
	case LUA_TLIGHTUSERDATA:
		if (lua_msg_is_null(L, index)) {
			buf_add(e->out, "null", 4);
			return 0;
		} /* fall through */
	default: return fail_type(e, index, "a value that JSON has", at);
	}
}

/* ---- typed ---------------------------------------------------------------------------------------------- */

static int put_integer(struct encoder *e, int index, enum msg_field_type type, const struct path *at)
{
	int exact = 0;
	lua_Integer v = lua_type(e->L, index) == LUA_TNUMBER ? lua_tointegerx(e->L, index, &exact) : 0;
	if (!exact)
		return fail_type(e, index, "an integer", at);
	bool fits = type == MSG_INT32 || type == MSG_SINT32 || type == MSG_SFIXED32 ? v >= INT32_MIN && v <= INT32_MAX
		    : type == MSG_UINT32 || type == MSG_FIXED32                     ? v >= 0 && v <= UINT32_MAX
		    : type == MSG_UINT64 || type == MSG_FIXED64                     ? v >= 0
										    : true;
	if (!fits)
		return fail(e, at, "%lld is out of range", (long long)v);
	buf_addi(e->out, v);
	return 0;
}

static int put_enum(struct encoder *e, int index, const struct msg_enum *values, const struct path *at)
{
	size_t n;
	if (lua_type(e->L, index) != LUA_TSTRING)
		return fail_type(e, index, "the name of a value", at);
	const char *name = lua_tolstring(e->L, index, &n);
	if (!msg_enum_name(values, name, n))
		return fail_type(e, index, "the name of a value", at);
	return put_string(e, index, at);
}

static int put_bytes(struct encoder *e, int index)
{
	size_t n;
	const char *p = lua_tolstring(e->L, index, &n);
	buf_addch(e->out, '"');
	text_base64(e->out, p, n);
	buf_addch(e->out, '"');
	return 0;
}

/* One value of the field's type (for repeated fields: one element). */
static int put_field(struct encoder *e, int index, const struct msg_field *f, const struct path *at)
{
	lua_State *L = e->L;
	int type = lua_type(L, index);
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FLOAT:
		if (type != LUA_TNUMBER)
			return fail_type(e, index, "a number", at);
		return put_real(e, lua_tonumber(L, index), f->type == MSG_FLOAT, at);
	case MSG_STRING: return type == LUA_TSTRING ? put_string(e, index, at) : fail_type(e, index, "text", at);
	case MSG_BYTES: return type == LUA_TSTRING ? put_bytes(e, index) : fail_type(e, index, "bytes", at);
	case MSG_BOOL:
		if (type != LUA_TBOOLEAN)
			return fail_type(e, index, "true or false", at);
		put_word(e, lua_toboolean(L, index));
		return 0;
	case MSG_ENUM: return put_enum(e, index, f->enumeration, at);
	case MSG_MESSAGE: return f->message->any ? put_value(e, index, at) : put_message(e, index, f->message, at);
	default: return put_integer(e, index, f->type, at);
	}
}

/* Keys that are not strings are written as strings: each becomes one first, in numeric order. */
struct number_key {
	lua_Integer v;
};

static int by_value(const void *a, const void *b)
{
	lua_Integer x = ((const struct number_key *)a)->v, y = ((const struct number_key *)b)->v;
	return (x > y) - (x < y);
}

static int put_number_map(struct encoder *e, int index, size_t n, const struct msg_type *entry, const struct path *at)
{
	lua_State *L = e->L;
	bool truth = entry->field[0].type == MSG_BOOL;
	struct number_key *key = malloc(n * sizeof *key + 1);
	size_t i = 0;
	int err = key ? enter(e, at) : fail(e, at, "out of memory");
	for (lua_pushnil(L); err == 0 && lua_next(L, index); lua_pop(L, 1)) {
		if (truth ? !lua_isboolean(L, -2) : !lua_isinteger(L, -2))
			err = fail_type(e, -2, truth ? "true or false as key" : "an integer as key", at);
		else
			key[i++].v = truth ? lua_toboolean(L, -2) : lua_tointeger(L, -2);
	}
	if (err == 0)
		qsort(key, n, sizeof *key, by_value);
	buf_addch(e->out, '{');
	for (i = 0; err == 0 && i < n; i++) {
		struct path here = { at, "[key]", 0 };
		buf_addf(e->out, i ? ",\"" : "\"");
		if (truth)
			put_word(e, key[i].v != 0), lua_pushboolean(L, key[i].v != 0);
		else
			buf_addi(e->out, key[i].v), lua_pushinteger(L, key[i].v);
		buf_add(e->out, "\":", 2);
		lua_rawget(L, index);
		err = put_field(e, lua_gettop(L), &entry->field[1], &here);
		lua_pop(L, 1);
	}
	buf_addch(e->out, '}');
	free(key);
	e->depth--;
	return err;
}

static int put_map(struct encoder *e, int index, const struct msg_type *entry, const struct path *at)
{
	size_t n = entries(e, index, SIZE_MAX - 1);
	if (entry->field[0].type == MSG_STRING)
		return put_object(e, index, n, &entry->field[1], at);
	return put_number_map(e, index, n, entry, at);
}

/* Every key of the table must be a field: a misspelt one would vanish silently. */
static int check_names(struct encoder *e, int index, const struct msg_type *t, size_t known, const struct path *at)
{
	lua_State *L = e->L;
	if (entries(e, index, known) == known)
		return 0;
	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
		size_t n = 0;
		const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &n) : NULL;
		if (!name)
			return fail_type(e, -2, "the name of a field", at);
		if (!msg_field_name(t, name, n)) {
			struct path here = { at, name, 0 };
			return fail(e, &here, "%s has no such field", t->name);
		}
	}
	return 0;
}

static int put_message(struct encoder *e, int index, const struct msg_type *t, const struct path *at)
{
	lua_State *L = e->L;
	size_t known = 0;
	if (!lua_istable(L, index))
		return fail_type(e, index, "a table", at);
	int err = enter(e, at);
	if (err < 0)
		return err;
	buf_addch(e->out, '{');
	for (unsigned i = 0; i < t->fields; i++) {
		const struct msg_field *f = &t->field[i];
		struct path here = { at, f->name, 0 };
		lua_rawgeti(L, e->names, f->id);
		int type = lua_rawget(L, index), value = lua_gettop(L);
		known += type != LUA_TNIL;
		if (type == LUA_TNIL || lua_msg_is_null(L, value)) {
			if (f->required)
				return fail(e, &here, "required, but missing");
		} else {
			put_name(e, f->name, f->name_bytes, e->out->data[e->out->len - 1] == '{');
			if (f->repeated && type != LUA_TTABLE)
				return fail_type(e, value, "a table", &here);
			err = f->map        ? put_map(e, value, f->message, &here)
			      : f->repeated ? put_elements(e, value, f, false, &here)
					    : put_field(e, value, f, &here);
			if (err < 0)
				return err;
		}
		lua_pop(L, 1);
	}
	buf_addch(e->out, '}');
	e->depth--;
	return check_names(e, index, t, known, at);
}

int lua_json_encode(lua_State *L, int index, const struct msg_type *type, struct buf *out, char *why, size_t why_size)
{
	int top = lua_gettop(L), err;
	size_t before = out->len;
	struct encoder e = { .L = L, .out = out, .names = top + 1, .why = why, .why_size = why_size };
	index = lua_absindex(L, index);
	if (!lua_checkstack(L, 8))
		return fail(&e, NULL, "out of memory");
	lua_msg_push_names(L);
	lua_msg_push_array(L);
	e.array = lua_topointer(L, -1);
	lua_msg_push_big(L);
	e.big = lua_topointer(L, -1);
	lua_settop(L, top + 1);
	if (type && lua_isnil(L, index) && !type->required)
		buf_add(out, "{}", 2), err = 0;
	else if (type && !type->any)
		err = put_message(&e, index, type, NULL);
	else if (type && !lua_istable(L, index))
		err = fail_type(&e, index, "a table", NULL);
	else
		err = put_value(&e, index, NULL);
	if (err == 0 && type && type->any && out->len > before && out->data[before] != '{')
		err = fail(&e, NULL, "expected an object, found an array");
	if (err < 0)
		out->len = before;
	lua_settop(L, top);
	return err;
}

/* ---- the library of scripts ------------------------------------------------------------------------------- */

/* json.encode(value): the text, or an error. */
static int l_encode(lua_State *L)
{
	struct buf *scratch = lua_touserdata(L, lua_upvalueindex(1));
	char why[LUA_WHY_MAX];
	luaL_checkany(L, 1);
	buf_clear(scratch);
	if (lua_json_encode(L, 1, NULL, scratch, why, sizeof why) < 0)
		return luaL_error(L, "json.encode: %s", why);
	lua_pushlstring(L, scratch->data, scratch->len);
	if (scratch->cap > 1 << 20)
		buf_release(scratch);
	return 1;
}

/* json.decode(text): the value, or nil and why not. */
static int l_decode(lua_State *L)
{
	size_t n;
	const char *text = luaL_checklstring(L, 1, &n);
	char why[LUA_WHY_MAX];
	if (lua_json_decode(L, NULL, text, n, why, sizeof why) < 0) {
		lua_pushnil(L);
		lua_pushstring(L, why);
		return 2;
	}
	return 1;
}

/* json.array(t): t, from now on an array in JSON even when it is empty. Without t a new one. */
static int l_array(lua_State *L)
{
	if (lua_isnoneornil(L, 1)) {
		lua_settop(L, 0);
		lua_newtable(L);
	}
	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	lua_msg_mark_array(L, 1);
	return 1;
}

static int release_scratch(lua_State *L)
{
	buf_release(lua_touserdata(L, 1));
	return 0;
}

int lua_json_lib(lua_State *L)
{
	static const luaL_Reg functions[] = { { "decode", l_decode }, { "array", l_array }, { NULL, NULL } };
	luaL_newlib(L, functions);
	buf_init(lua_newuserdatauv(L, sizeof(struct buf), 0));
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, release_scratch);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	lua_pushcclosure(L, l_encode, 1);
	lua_setfield(L, -2, "encode");
	lua_msg_push_null(L);
	lua_setfield(L, -2, "null");
	return 1;
}
