/* Lua values to JSON text, and the library json of scripts. Nothing here allocates in Lua: no memory errors. */
#include <lauxlib.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "common/text.h"

struct encoder {
	lua_State *L;
	struct buf *out;
	/* where the table of names is on the Lua stack */
	const void *array, *big; /* the metatables that mean something */
	size_t len_max;          /* of out */
	unsigned depth;
	char *why;
	size_t why_size;
};
static int put_value(struct encoder *e, int index, const struct lua_path *at);
static int put_message(struct encoder *e, int index, const struct msg_type *t, const struct lua_path *at);
static int put_field(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at);

/* ---- what went wrong ------------------------------------------------------------------------------------ */

#define fail(e, at, ...) lua_path_fail(ERR_FAILED, (e)->why, (e)->why_size, at, __VA_ARGS__)

static bool has_room(const struct encoder *e, size_t n)
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

static int put_string(struct encoder *e, int index, const struct lua_path *at)
{
	size_t n;
	const char *p = lua_tolstring(e->L, index, &n);
	if (!has_room(e, n))
		return fail_room(e, at);
	return lua_json_quote(e->out, p, n) < 0 ? fail(e, at, "text that is not UTF-8") : 0;
}

static int put_real(struct encoder *e, double v, bool single, const struct lua_path *at)
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

static int enter(struct encoder *e, const struct lua_path *at)
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

/* What was written as an array of n has nothing else in it, which would be lost silently. holes: some of them may be nil. */
static int check_keys(struct encoder *e, int index, size_t n, bool holes, const struct lua_path *at)
{
	if (!holes && lua_msg_entries(e->L, index, n) == n)
		return 0;
	for (lua_pushnil(e->L); lua_next(e->L, index); lua_pop(e->L, 1)) {
		lua_Integer key = lua_isinteger(e->L, -2) ? lua_tointeger(e->L, -2) : 0;
		if (key >= 1 && (size_t)key <= n)
			continue;
		lua_pop(e->L, 1);
		return fail_type(e, -1, "a sequence without holes and names", at);
	}
	return 0;
}

/* f: the elements' field, or NULL for any values. holes: nil is written as null. */
static int put_elements(struct encoder *e, int index, const struct msg_field *f, bool holes, const struct lua_path *at)
{
	int err = enter(e, at);
	if (err < 0)
		return err;
	size_t n = lua_rawlen(e->L, index);
	buf_addch(e->out, '[');
	for (struct lua_path here = { at, NULL, 0, 1 }; here.index <= n; here.index++) {
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
	return f || holes ? check_keys(e, index, n, holes, at) : 0;
}

static int put_key(struct encoder *e, enum msg_field_type type, const struct lua_key *key, const struct lua_path *at)
{
	if (type == MSG_STRING) {
		struct lua_path here = { at, key->p, key->n, 0 };
		return lua_json_quote(e->out, key->p, key->n) < 0 ? fail(e, &here, "a name that is not UTF-8") : 0;
	}
	buf_addch(e->out, '"');
	if (type == MSG_BOOL)
		put_word(e, key->i != 0);
	else
		buf_addi(e->out, key->i);
	buf_addch(e->out, '"');
	return 0;
}

/* f: the type of each value, or NULL for any. */
static int put_members(struct encoder *e, enum msg_field_type type, const struct lua_key *key, size_t n,
		       const struct msg_field *f, const struct lua_path *at)
{
	int err = 0;
	buf_addch(e->out, '{');
	for (size_t i = 0; err == 0 && i < n; i++) {
		struct lua_path here = { at, key[i].p ? key[i].p : "[key]", key[i].p ? key[i].n : 5, 0 };
		if (i)
			buf_addch(e->out, ',');
		if ((err = put_key(e, type, &key[i], at)) < 0)
			return err;
		buf_addch(e->out, ':');
		err = f ? put_field(e, key[i].at, f, &here) : put_value(e, key[i].at, &here);
	}
	buf_addch(e->out, '}');
	return err;
}

static int fail_keys(struct encoder *e, int err, enum msg_field_type type, const struct lua_path *at)
{
	if (err == ERR_NOMEM)
		return fail(e, at, "an object with too many members");
	return fail_type(e, -1,
			 type == MSG_STRING ? "a name as key (sequences have no holes; mark arrays by json.array)"
			 : type == MSG_BOOL ? "true or false as key"
					    : "an integer as key",
			 at);
}

/* An object whose keys are of the type, sorted. */
static int put_object(struct encoder *e, int index, enum msg_field_type type, const struct msg_field *f,
		      const struct lua_path *at)
{
	struct lua_keys keys;
	int top = lua_gettop(e->L), err = enter(e, at);
	if (err < 0)
		return err;
	if ((err = lua_keys_collect(&keys, e->L, index, type)) < 0)
		err = fail_keys(e, err, type, at);
	else
		err = put_members(e, type, keys.key, keys.n, f, at);
	lua_keys_release(&keys);
	e->depth--;
	lua_settop(e->L, top);
	return err;
}

static int put_table(struct encoder *e, int index, const struct lua_path *at)
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
	size_t length = lua_rawlen(e->L, index);
	if (length && lua_msg_entries(e->L, index, length) == length)
		return put_elements(e, index, NULL, false, at);
	return put_object(e, index, MSG_STRING, NULL, at);
}

static int put_value(struct encoder *e, int index, const struct lua_path *at)
{
	lua_State *L = e->L;
	if (!has_room(e, 0))
		return fail_room(e, at);
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

static int put_integer(struct encoder *e, int index, enum msg_field_type type, const struct lua_path *at)
{
	int exact = 0;
	lua_Integer v = lua_type(e->L, index) == LUA_TNUMBER ? lua_tointegerx(e->L, index, &exact) : 0;
	if (!exact)
		return fail_type(e, index, "an integer", at);
	if (!lua_msg_fits(type, v))
		return fail(e, at, "%lld is out of range", (long long)v);
	buf_addi(e->out, v);
	return 0;
}

static int put_enum(struct encoder *e, int index, const struct msg_enum *values, const struct lua_path *at)
{
	char shown[LUA_VALUES_MAX];
	size_t n = 0;
	const char *name = lua_type(e->L, index) == LUA_TSTRING ? lua_tolstring(e->L, index, &n) : NULL;
	if (!name || !msg_enum_name(values, name, n))
		return fail_type(e, index, lua_msg_values(values, shown), at);
	return put_string(e, index, at);
}

static int put_bytes(struct encoder *e, int index, const struct lua_path *at)
{
	size_t n;
	const char *p = lua_tolstring(e->L, index, &n);
	if (!has_room(e, n))
		return fail_room(e, at);
	buf_addch(e->out, '"');
	text_base64(e->out, p, n);
	buf_addch(e->out, '"');
	return 0;
}

/* One value of the field's type (for repeated fields: one element). */
static int put_field(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	lua_State *L = e->L;
	int type = lua_type(L, index);
	if (!has_room(e, 0))
		return fail_room(e, at);
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FLOAT:
		if (type != LUA_TNUMBER)
			return fail_type(e, index, "a number", at);
		return put_real(e, lua_tonumber(L, index), f->type == MSG_FLOAT, at);
	case MSG_STRING: return type == LUA_TSTRING ? put_string(e, index, at) : fail_type(e, index, "text", at);
	case MSG_BYTES: return type == LUA_TSTRING ? put_bytes(e, index, at) : fail_type(e, index, "bytes", at);
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

static int put_map(struct encoder *e, int index, const struct msg_type *entry, const struct lua_path *at)
{
	return put_object(e, index, entry->field[0].type, &entry->field[1], at);
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

static int put_repeated(struct encoder *e, int index, const struct msg_field *f, const struct lua_path *at)
{
	if (!lua_istable(e->L, index))
		return fail_type(e, index, "a table", at);
	return f->map ? put_map(e, index, f->message, at) : put_elements(e, index, f, false, at);
}

static int check_oneofs(struct encoder *e, const struct msg_type *t, const struct lua_place *value,
			const struct lua_path *up)
{
	const struct msg_field *f = t->field, *both = lua_msg_both(t, value, &f);
	struct lua_path at = { up, f->name, f->name_bytes, 0 };
	return both ? fail(e, &at, LUA_MSG_BESIDE, both->name) : 0;
}

static int put_message(struct encoder *e, int index, const struct msg_type *t, const struct lua_path *at)
{
	struct lua_place value[MSG_FIELDS_MAX];
	int top = lua_gettop(e->L), err;
	bool first = true;
	if (!lua_istable(e->L, index))
		return fail_type(e, index, "a table", at);
	if ((err = enter(e, at)) < 0)
		return err;
	if ((err = lua_msg_fields(e->L, index, top, t, value)) < 0)
		return fail_fields(e, err, t, at);
	if (t->oneofs && (err = check_oneofs(e, t, value, at)) < 0)
		return err;
	buf_addch(e->out, '{');
	for (unsigned i = 0; i < t->fields; i++) {
		const struct msg_field *f = &t->field[i];
		struct lua_path here = { at, f->name, f->name_bytes, 0 };
		if (value[i].type != LUA_TNIL) {
			put_name(e, f->name, f->name_bytes, first);
			first = false;
			err = f->repeated ? put_repeated(e, value[i].at, f, &here)
					  : put_field(e, value[i].at, f, &here);
		} else if (f->required) {
			err = fail(e, &here, "required, but missing");
		}
		if (err < 0)
			return err;
	}
	buf_addch(e->out, '}');
	e->depth--;
	lua_settop(e->L, top);
	return 0;
}

int lua_json_encode(lua_State *L, int index, const struct msg_type *type, struct buf *out, char *why, size_t why_size)
{
	int top = lua_gettop(L), err;
	size_t before = out->len;
	struct encoder e = { .L = L, .out = out, .len_max = before + LUA_MSG_BYTES, .why = why, .why_size = why_size };
	index = lua_absindex(L, index);
	if (!lua_checkstack(L, 8))
		return fail(&e, NULL, "out of memory");
	lua_msg_push_array(L);
	e.array = lua_topointer(L, -1);
	lua_msg_push_big(L);
	e.big = lua_topointer(L, -1);
	lua_settop(L, top);
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
	if (!lua_msg_is_array(L, 1) && luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
		return luaL_error(L, "json.array: the table's metatable is protected");
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
