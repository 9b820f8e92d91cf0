/* JSON text to Lua values. The other direction is in lua_json_write.c. */
#include "common/lua_json.h"

#include <lauxlib.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/jsonscan.h"
#include "common/lua_msg.h"
#include "common/text.h"

#define HELD      24 /* members or elements kept on the Lua stack until their table's size is known */
#define SHORT_MAX 40 /* LUAI_MAXSHORTLEN: longer strings are not kept once */

struct decoder {
	lua_State *L;
	struct jsonscan scan;
	const struct lua_names *names;
	int array; /* where the metatable of arrays is on the Lua stack */
	unsigned depth;
	char *why;
	size_t why_size;
};
static int value(struct decoder *d, const struct lua_path *at);
static int field_value(struct decoder *d, const struct msg_field *f, const struct lua_path *at);
static int message(struct decoder *d, const struct msg_type *t, const struct lua_path *at);

/* ---- what went wrong ------------------------------------------------------------------------------------ */

#define fail(d, at, ...) lua_path_fail(ERR_BAD_REQUEST, (d)->why, (d)->why_size, at, __VA_ARGS__)

static int fail_syntax(struct decoder *d, const char *expected)
{
	if (d->scan.p >= d->scan.end)
		return fail(d, NULL, "not JSON: it ends where %s is expected", expected);
	return fail(d, NULL, "not JSON: byte %zu is not %s", (size_t)(d->scan.p - d->scan.text) + 1, expected);
}

static int fail_type(struct decoder *d, const struct lua_path *at, const char *expected)
{
	const char *p = d->scan.p, *end = d->scan.end;
	struct buf b = BUF_INIT;
	size_t n = 0;
	if (p >= end) {
		return fail_syntax(d, expected);
	} else if (*p == '"') {
		while (p + 1 + n < end && p[1 + n] != '"')
			n++;
		buf_addch(&b, '"');
		lua_path_show(&b, p + 1, n);
		buf_addch(&b, '"');
	} else if (*p == '{') {
		buf_addstr(&b, "an object");
	} else if (*p == '[') {
		buf_addstr(&b, "an array");
	} else {
		while (p + n < end && !strchr(",]} \t\r\n", p[n]))
			n++;
		lua_path_show(&b, p, n);
	}
	int err = fail(d, at, "expected %s, found %s", expected, buf_cstr(&b));
	buf_release(&b);
	return err;
}

/* ---- the small parts ------------------------------------------------------------------------------------ */

static int enter(struct decoder *d, const struct lua_path *at)
{
	if (++d->depth > LUA_JSON_DEPTH)
		return fail(d, at, "more than %d levels", LUA_JSON_DEPTH);
	luaL_checkstack(d->L, 2 * HELD + 8, "JSON");
	return 0;
}

static int fail_scan(struct decoder *d, const struct lua_path *at, const struct jsonscan_fault *fault)
{
	d->scan.p = fault->at;
	if (fault->expected)
		return fail_syntax(d, fault->expected);
	return fail(d, at, "%s", fault->what);
}

static int number(struct decoder *d, const struct lua_path *at, struct jsonscan_number *x)
{
	struct jsonscan_fault fault;
	return jsonscan_number(&d->scan, x, &fault) < 0 ? fail_scan(d, at, &fault) : 0;
}

static int scan_string(struct decoder *d, const struct lua_path *at, struct jsonscan_string *out)
{
	struct jsonscan_fault fault;
	return jsonscan_string(&d->scan, out, &fault) < 0 ? fail_scan(d, at, &fault) : 0;
}

/* Integers beyond 64 bits keep their digits in a table with a metatable of its own. */
static void push_big(lua_State *L, const struct jsonscan_number *x)
{
	lua_createtable(L, 1, 0);
	lua_pushlstring(L, x->p, x->n);
	lua_rawseti(L, -2, 1);
	lua_msg_push_big(L);
	lua_setmetatable(L, -2);
}

static int push_string(struct decoder *d, const struct lua_path *at, const struct jsonscan_string *s)
{
	if (s->plain) {
		lua_pushlstring(d->L, s->p, s->n);
		return 0;
	}
	luaL_Buffer b;
	char *out = luaL_buffinitsize(d->L, &b, s->n + 4);
	ssize_t n = jsonscan_write_out(s, out);
	luaL_pushresultsize(&b, n < 0 ? 0 : (size_t)n);
	return n < 0 ? fail(d, at, "a wrong escape in a string") : 0;
}

static int string(struct decoder *d, const struct lua_path *at)
{
	struct jsonscan_string s;
	if (jsonscan_peek(&d->scan) != '"')
		return fail_type(d, at, "a string");
	d->scan.p++;
	int err = scan_string(d, at, &s);
	return err < 0 ? err : push_string(d, at, &s);
}

/* ---- tables of a size that shows at their end only --------------------------------------------------------- */

/* Members and elements are held on the Lua stack; a table is made when its size is known, or with the first HELD. */
struct held {
	int base; /* the table's place */
	unsigned n;
	size_t flushed;
	bool made;
};

static struct held hold(struct decoder *d)
{
	lua_pushnil(d->L);
	return (struct held){ .base = lua_gettop(d->L) };
}

static void make(struct decoder *d, struct held *h, unsigned elements, unsigned members)
{
	if (h->made)
		return;
	lua_createtable(d->L, (int)elements, (int)members);
	lua_replace(d->L, h->base);
	h->made = true;
}

static int fail_twice(struct decoder *d, const struct lua_path *at, const char *name, size_t n)
{
	struct lua_path here = { at, name, n, 0 };
	return fail(d, &here, "given twice");
}

/* Lua keeps equal short strings once: if all addresses differ, the names do. Else one has to look. */
static bool surely_differ(struct decoder *d, const struct held *h)
{
	const char *name[HELD];
	for (unsigned i = 0; i < h->n; i++) {
		int at = h->base + 1 + 2 * (int)i;
		size_t n = SHORT_MAX + 1;
		name[i] = lua_type(d->L, at) == LUA_TSTRING ? lua_tolstring(d->L, at, &n) : NULL;
		if (n > SHORT_MAX)
			return false;
		for (unsigned k = 0; k < i; k++)
			if (name[k] == name[i])
				return false;
	}
	return !h->made;
}

/* unique: the names are known to differ. */
static int flush_members(struct decoder *d, struct held *h, bool unique, const struct lua_path *at)
{
	lua_State *L = d->L;
	unique = unique || surely_differ(d, h);
	make(d, h, 0, h->n);
	for (; h->n; h->n--) {
		if (!unique) {
			lua_pushvalue(L, -2);
			bool twice = lua_rawget(L, h->base) != LUA_TNIL;
			lua_pop(L, 1);
			if (twice) {
				size_t n = 0;
				const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &n) : "key";
				return fail_twice(d, at, name, n ? n : strlen(name));
			}
		}
		lua_rawset(L, h->base);
	}
	return 0;
}

static void flush_elements(struct decoder *d, struct held *h)
{
	make(d, h, h->n, 0);
	for (unsigned i = h->n; i; i--)
		lua_rawseti(d->L, h->base, (lua_Integer)(h->flushed + i));
	h->flushed += h->n;
	h->n = 0;
}

/* ---- untyped -------------------------------------------------------------------------------------------- */

static int member_name(struct decoder *d, const struct lua_path *at, struct jsonscan_string *name)
{
	if (!jsonscan_next(&d->scan, '"'))
		return fail_syntax(d, "a member's name in quotes");
	int err = scan_string(d, at, name);
	if (err < 0)
		return err;
	return jsonscan_next(&d->scan, ':') ? 0 : fail_syntax(d, "':'");
}

/* After a member or element: 1: another follows, 0: closed. */
static int more(struct decoder *d, char close)
{
	if (jsonscan_next(&d->scan, ','))
		return 1;
	if (jsonscan_next(&d->scan, close))
		return 0;
	return fail_syntax(d, close == '}' ? "',' or '}'" : "',' or ']'");
}

static int object(struct decoder *d, const struct lua_path *at)
{
	int err = enter(d, at), again = 0;
	if (err < 0)
		return err;
	struct held h = hold(d);
	d->scan.p++;
	if (!jsonscan_next(&d->scan, '}'))
		again = 1;
	while (again) {
		struct jsonscan_string name;
		if ((err = member_name(d, at, &name)) < 0 || (err = push_string(d, at, &name)) < 0)
			return err;
		struct lua_path here = { at, name.p, name.n, 0 };
		if ((err = value(d, &here)) < 0)
			return err;
		if (++h.n == HELD && (err = flush_members(d, &h, false, at)) < 0)
			return err;
		if ((again = more(d, '}')) < 0)
			return again;
	}
	d->depth--;
	return flush_members(d, &h, false, at);
}

/* f: the elements' field, or NULL for any values. */
static int array(struct decoder *d, const struct msg_field *f, const struct lua_path *at)
{
	int err = enter(d, at), again = 0;
	if (err < 0)
		return err;
	struct held h = hold(d);
	d->scan.p++;
	if (!jsonscan_next(&d->scan, ']'))
		again = 1;
	for (struct lua_path here = { at, NULL, 0, 1 }; again; here.index++) {
		if ((err = f ? field_value(d, f, &here) : value(d, &here)) < 0)
			return err;
		if (++h.n == HELD)
			flush_elements(d, &h);
		if ((again = more(d, ']')) < 0)
			return again;
	}
	d->depth--;
	flush_elements(d, &h);
	lua_pushvalue(d->L, d->array);
	lua_setmetatable(d->L, h.base);
	return 0;
}

static int value(struct decoder *d, const struct lua_path *at)
{
	struct jsonscan_number x;
	int err;
	switch (jsonscan_peek(&d->scan)) {
	case '{': return object(d, at);
	case '[': return array(d, NULL, at);
	case '"': return string(d, at);
	case 't':
	case 'f': {
		bool yes = jsonscan_word(&d->scan, "true");
		if (!yes && !jsonscan_word(&d->scan, "false"))
			return fail_syntax(d, "a value");
		lua_pushboolean(d->L, yes);
		return 0;
	}
	case 'n':
		if (!jsonscan_word(&d->scan, "null"))
			return fail_syntax(d, "a value");
		lua_msg_push_null(d->L);
		return 0;
	default:
		if (!jsonscan_at_number(&d->scan))
			return fail_syntax(d, "a value");
		if ((err = number(d, at, &x)) < 0)
			return err;
		if (x.is_integer)
			lua_pushinteger(d->L, x.i);
		else if (x.is_big)
			push_big(d->L, &x);
		else
			lua_pushnumber(d->L, x.d);
		return 0;
	}
}

/* ---- typed ---------------------------------------------------------------------------------------------- */

static int integer(struct decoder *d, enum msg_field_type type, const struct lua_path *at, int64_t *out)
{
	struct jsonscan_number x;
	const char *start = d->scan.p;
	if (!jsonscan_at_number(&d->scan))
		return fail_type(d, at, "an integer");
	int err = number(d, at, &x);
	if (err < 0)
		return err;
	if (!x.is_integer && !x.is_big && x.d == floor(x.d) && fabs(x.d) < 0x1p53) {
		x.is_integer = true; /* 1.0 and 1e3 are integers too */
		x.i = (int64_t)x.d;
	}
	if (!x.is_integer && !x.is_big) {
		d->scan.p = start;
		return fail_type(d, at, "an integer");
	}
	if (x.is_big || !lua_msg_fits(type, x.i))
		return fail(d, at, "%.*s is out of range", (int)x.n, x.p);
	*out = x.i;
	return 0;
}

static int real(struct decoder *d, enum msg_field_type type, const struct lua_path *at)
{
	struct jsonscan_number x;
	if (!jsonscan_at_number(&d->scan))
		return fail_type(d, at, "a number");
	int err = number(d, at, &x);
	if (err < 0)
		return err;
	double v = x.is_integer ? (double)x.i : x.d;
	if (type == MSG_FLOAT && isinf((float)v))
		return fail(d, at, "%.*s is out of range", (int)x.n, x.p);
	lua_pushnumber(d->L, type == MSG_FLOAT ? (float)v : v);
	return 0;
}

static int bytes(struct decoder *d, const struct lua_path *at)
{
	int err = string(d, at);
	if (err < 0)
		return err;
	size_t n;
	const char *text = lua_tolstring(d->L, -1, &n);
	luaL_Buffer b;
	lua_State *L = d->L;
	char *out = luaL_buffinitsize(L, &b, n * 3 / 4 + 3);
	int64_t got = text_unbase64(out, text, n);
	luaL_pushresultsize(&b, got < 0 ? 0 : (size_t)got);
	lua_remove(L, -2);
	return got < 0 ? fail(d, at, "expected base64") : 0;
}

static int enumeration(struct decoder *d, const struct msg_enum *e, const struct lua_path *at)
{
	const struct msg_enum_value *v = NULL;
	const char *start = d->scan.p;
	char values[LUA_VALUES_MAX];
	int64_t i;
	int err;
	if (jsonscan_peek(&d->scan) == '"') {
		struct jsonscan_string s;
		d->scan.p++;
		if ((err = scan_string(d, at, &s)) < 0)
			return err;
		v = msg_enum_name(e, s.p, s.n);
	} else if (integer(d, MSG_INT32, at, &i) == 0) {
		v = msg_enum_number(e, (int32_t)i);
	}
	if (!v) {
		d->scan.p = start;
		return fail_type(d, at, lua_msg_values(e, values));
	}
	lua_msg_push_name(d->L, d->names, v->id);
	return 0;
}

/* One value of the field's type (for repeated fields: one element). */
static int field_value(struct decoder *d, const struct msg_field *f, const struct lua_path *at)
{
	int64_t i;
	int err;
	jsonscan_space(&d->scan);
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FLOAT: return real(d, f->type, at);
	case MSG_STRING: return string(d, at);
	case MSG_BYTES: return bytes(d, at);
	case MSG_MESSAGE: return f->message->any ? value(d, at) : message(d, f->message, at);
	case MSG_ENUM: return enumeration(d, f->enumeration, at);
	case MSG_BOOL:
		if (jsonscan_word(&d->scan, "true"))
			lua_pushboolean(d->L, true);
		else if (jsonscan_word(&d->scan, "false"))
			lua_pushboolean(d->L, false);
		else
			return fail_type(d, at, "true or false");
		return 0;
	default:
		if ((err = integer(d, f->type, at, &i)) < 0)
			return err;
		lua_pushinteger(d->L, i);
		return 0;
	}
}

/* A map's key stands as a string: "17" for 17, "true" for true. */
static int map_key(struct decoder *d, const struct msg_field *key, const struct jsonscan_string *name,
		   const struct lua_path *at)
{
	if (key->type == MSG_STRING)
		return push_string(d, at, name);
	struct decoder inner = *d;
	struct lua_path here = { at, name->p, name->n, 0 };
	inner.scan.p = name->p;
	inner.scan.end = name->p + name->n;
	int err = field_value(&inner, key, &here);
	return err < 0 || inner.scan.p == inner.scan.end ? err : fail(d, &here, "is no key of this map");
}

static int map(struct decoder *d, const struct msg_type *entry, const struct lua_path *at)
{
	int err = 0, again = 0;
	if (jsonscan_peek(&d->scan) != '{')
		return fail_type(d, at, "an object");
	if ((err = enter(d, at)) < 0)
		return err;
	struct held h = hold(d);
	d->scan.p++;
	if (!jsonscan_next(&d->scan, '}'))
		again = 1;
	while (again) {
		struct jsonscan_string name;
		if ((err = member_name(d, at, &name)) < 0 || (err = map_key(d, &entry->field[0], &name, at)) < 0)
			return err;
		struct lua_path here = { at, name.p, name.n, 0 };
		if ((err = field_value(d, &entry->field[1], &here)) < 0)
			return err;
		if (++h.n == HELD && (err = flush_members(d, &h, false, at)) < 0)
			return err;
		if ((again = more(d, '}')) < 0)
			return again;
	}
	d->depth--;
	return flush_members(d, &h, false, at);
}

struct seen { /* which fields came, by index */
	uint64_t bits[MSG_FIELDS_MAX / 64];
	unsigned next; /* most clients send fields in the order of the .proto */
};

static bool was_seen(const struct seen *s, unsigned index)
{
	return s->bits[index / 64] >> (index % 64) & 1;
}

/* It is one of a oneof: none of the others has come. */
static int check_oneof(struct decoder *d, const struct msg_type *t, const struct seen *seen, const struct msg_field *f,
		       const struct lua_path *at)
{
	for (unsigned i = 0; i < t->fields; i++)
		if (t->field[i].oneof == f->oneof && i != f->index && was_seen(seen, i))
			return fail(d, at, LUA_MSG_BESIDE, t->field[i].name);
	return 0;
}

/* Required fields that are missing fail, defaults are added. */
static int complete(struct decoder *d, const struct msg_type *t, const struct seen *seen, struct held *h,
		    const struct lua_path *at)
{
	for (unsigned i = 0; (t->required || t->defaults) && i < t->fields; i++) {
		const struct msg_field *f = &t->field[i];
		if (was_seen(seen, i) || !(f->required || f->has_default))
			continue;
		struct lua_path here = { at, f->name, f->name_bytes, 0 };
		if (f->required)
			return fail(d, &here, "required, but missing");
		lua_msg_push_name(d->L, d->names, f->id);
		lua_msg_push_default(d->L, f);
		if (++h->n == HELD)
			flush_members(d, h, true, at);
	}
	return 0;
}

/* What pomelo's clients put into every request. */
static bool is_dropped(const struct decoder *d, const struct jsonscan_string *name)
{
	return d->depth == 1 && ((name->n == 9 && !memcmp(name->p, "__route__", 9)) ||
				 (name->n == 10 && !memcmp(name->p, "__crypto__", 10)));
}

static int drop(struct decoder *d, const struct lua_path *at)
{
	int err = value(d, at);
	if (err == 0)
		lua_pop(d->L, 1);
	return err;
}

static int field_of(struct decoder *d, const struct msg_type *t, struct seen *seen, struct held *h,
		    const struct jsonscan_string *name, const struct lua_path *at)
{
	char copy[128];
	struct jsonscan_string plain = *name;
	if (!name->plain && name->n < sizeof copy) {
		ssize_t n = jsonscan_write_out(name, copy);
		plain = (struct jsonscan_string){ copy, n < 0 ? 0 : (size_t)n, true };
	}
	const struct msg_field *f = seen->next < t->fields && t->field[seen->next].name_bytes == plain.n &&
						    !memcmp(t->field[seen->next].name, plain.p, plain.n)
					    ? &t->field[seen->next]
					    : msg_field_name(t, plain.p, plain.n);
	struct lua_path here = { at, name->p, name->n, 0 };
	if (!f)
		return fail(d, &here, "unknown field");
	if (f->ignored)
		return drop(d, at);
	if (was_seen(seen, f->index))
		return fail(d, &here, "given twice");
	jsonscan_space(&d->scan);
	if (jsonscan_word(&d->scan, "null"))
		return 0; /* as if it were not there */
	int err = f->oneof ? check_oneof(d, t, seen, f, &here) : 0;
	if (err < 0)
		return err;
	seen->next = f->index + 1u;
	seen->bits[f->index / 64] |= UINT64_C(1) << (f->index % 64);
	lua_msg_push_name(d->L, d->names, f->id);
	if (f->map)
		err = map(d, f->message, &here);
	else if (!f->repeated)
		err = field_value(d, f, &here);
	else
		err = jsonscan_peek(&d->scan) == '[' ? array(d, f, &here) : fail_type(d, &here, "an array");
	if (err < 0)
		return err;
	return ++h->n == HELD ? flush_members(d, h, true, at) : 0;
}

static int message(struct decoder *d, const struct msg_type *t, const struct lua_path *at)
{
	struct seen seen = { { 0 }, 0 };
	int err, again = 0;
	if (jsonscan_peek(&d->scan) != '{')
		return fail_type(d, at, "an object");
	if ((err = enter(d, at)) < 0)
		return err;
	struct held h = hold(d);
	d->scan.p++;
	if (!jsonscan_next(&d->scan, '}'))
		again = 1;
	while (again) {
		struct jsonscan_string name;
		if ((err = member_name(d, at, &name)) < 0)
			return err;
		err = is_dropped(d, &name) ? drop(d, at) : field_of(d, t, &seen, &h, &name, at);
		if (err < 0)
			return err;
		if ((again = more(d, '}')) < 0)
			return again;
	}
	if ((err = complete(d, t, &seen, &h, at)) < 0)
		return err;
	d->depth--;
	return flush_members(d, &h, true, at);
}

int lua_json_decode(lua_State *L, const struct msg_type *type, const char *text, size_t n, char *why, size_t why_size)
{
	int top = lua_gettop(L), err;
	struct decoder d = { .L = L, .scan = { text, text, text + n }, .why = why, .why_size = why_size };
	luaL_checkstack(L, 8, "JSON");
	lua_msg_push_array(L);
	d.names = lua_msg_names(L);
	d.array = top + 1;
	if (!type)
		err = value(&d, NULL);
	else if (!type->any)
		err = message(&d, type, NULL);
	else
		err = jsonscan_peek(&d.scan) == '{' ? object(&d, NULL) : fail_type(&d, NULL, "an object");
	jsonscan_space(&d.scan);
	if (err == 0 && d.scan.p < d.scan.end)
		err = fail_syntax(&d, "the end");
	if (err == 0)
		lua_replace(L, top + 1);
	lua_settop(L, err == 0 ? top + 1 : top);
	return err;
}
