/* JSON text to Lua values. The other direction is in lua_json_write.c. */
#include "common/lua_json.h"

#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/lua_msg.h"
#include "common/text.h"

#define HELD      24 /* members or elements kept on the Lua stack until their table's size is known */
#define SHORT_MAX 40 /* LUAI_MAXSHORTLEN: longer strings are not kept once */

struct decoder {
	lua_State *L;
	const char *text, *p, *end;
	int names, array; /* where the tables of lua_msg are on the Lua stack; names 0: untyped only */
	unsigned depth;
	char *why;
	size_t why_size;
};
struct number {
	bool is_integer, is_big; /* big: an integer beyond 64 bits */
	int64_t i;
	double d;
	const char *p;
	size_t n;
};

static int value(struct decoder *d, const struct lua_path *at);
static int field_value(struct decoder *d, const struct msg_field *f, const struct lua_path *at);
static int message(struct decoder *d, const struct msg_type *t, const struct lua_path *at);

/* ---- what went wrong ------------------------------------------------------------------------------------ */

#define fail(d, at, ...) lua_path_fail(ERR_BAD_REQUEST, (d)->why, (d)->why_size, at, __VA_ARGS__)

static int fail_syntax(struct decoder *d, const char *expected)
{
	if (d->p >= d->end)
		return fail(d, NULL, "not JSON: it ends where %s is expected", expected);
	return fail(d, NULL, "not JSON: byte %zu is not %s", (size_t)(d->p - d->text) + 1, expected);
}

static int fail_type(struct decoder *d, const struct lua_path *at, const char *expected)
{
	const char *p = d->p, *end = d->end;
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

static inline void skip_space(struct decoder *d)
{
	while (d->p < d->end && (*d->p == ' ' || *d->p == '\n' || *d->p == '\r' || *d->p == '\t'))
		d->p++;
}

static inline bool next_is(struct decoder *d, char c)
{
	skip_space(d);
	if (d->p >= d->end || *d->p != c)
		return false;
	d->p++;
	return true;
}

static inline char peek(struct decoder *d)
{
	skip_space(d);
	return d->p < d->end ? *d->p : 0;
}

static bool word(struct decoder *d, const char *w, size_t n)
{
	if ((size_t)(d->end - d->p) < n || memcmp(d->p, w, n) != 0)
		return false;
	d->p += n;
	return true;
}

static inline bool is_digit(const struct decoder *d, const char *p)
{
	return p < d->end && *p >= '0' && *p <= '9';
}

static int enter(struct decoder *d, const struct lua_path *at)
{
	if (++d->depth > LUA_JSON_DEPTH)
		return fail(d, at, "more than %d levels", LUA_JSON_DEPTH);
	luaL_checkstack(d->L, 2 * HELD + 8, "JSON");
	return 0;
}

/* ---- numbers -------------------------------------------------------------------------------------------- */

static const double tens[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
			       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };

/* A mantissa below 2^53 and a power up to 10^22 are exact, so one operation rounds right; strtod does the rest. */
static double to_double(const struct number *x, uint64_t mantissa, int digits, int exponent)
{
	bool negative = *x->p == '-';
	if (digits <= 19 && mantissa < UINT64_C(1) << 53 && exponent >= -22 && exponent <= 22) {
		double v = exponent < 0 ? (double)mantissa / tens[-exponent] : (double)mantissa * tens[exponent];
		return negative ? -v : v;
	}
	char copy[LUA_JSON_NUMBER + 1];
	memcpy(copy, x->p, x->n);
	copy[x->n] = 0;
	return strtod(copy, NULL);
}

static void to_integer(struct number *x, uint64_t magnitude, int digits)
{
	bool negative = *x->p == '-';
	uint64_t most = (uint64_t)INT64_MAX + negative;
	if (digits > 19 || magnitude > most) {
		x->is_big = true;
	} else if (negative && magnitude == 0) {
		x->d = -0.0; /* an integer has no sign of its own at zero */
	} else {
		x->is_integer = true;
		x->i = (int64_t)(negative ? 0 - magnitude : magnitude);
	}
}

/* Appends digits to the mantissa; count is the significant ones so far. */
static const char *run_of_digits(const struct decoder *d, const char *p, uint64_t *mantissa, int *count)
{
	for (; is_digit(d, p); p++) {
		*mantissa = *mantissa * 10 + (uint64_t)(*p - '0');
		*count += *mantissa != 0;
	}
	return p;
}

static int fail_digit(struct decoder *d, const char *p)
{
	d->p = p;
	return fail_syntax(d, "a digit");
}

/* [.digits][e[+-]digits]; sets *fraction if there was any of it. */
static int fraction_and_exponent(struct decoder *d, const char **at, uint64_t *mantissa, int *count, int *exponent,
				 bool *fraction)
{
	const char *p = *at;
	if (p < d->end && *p == '.') {
		const char *first = ++p;
		p = run_of_digits(d, p, mantissa, count);
		if (p == first)
			return fail_digit(d, p);
		*exponent = -(int)(p - first);
		*fraction = true;
	}
	if (p < d->end && (*p == 'e' || *p == 'E')) {
		int e = 0;
		bool minus = ++p < d->end && *p == '-';
		p += p < d->end && (*p == '-' || *p == '+');
		if (!is_digit(d, p))
			return fail_digit(d, p);
		for (; is_digit(d, p); p++)
			e = e < 10000 ? e * 10 + (*p - '0') : e;
		*exponent += minus ? -e : e;
		*fraction = true;
	}
	*at = p;
	return 0;
}

/* Reads -?digits[.digits][e[+-]digits]. */
static int number(struct decoder *d, const struct lua_path *at, struct number *x)
{
	const char *p = d->p;
	uint64_t mantissa = 0;
	int count = 0, exponent = 0;
	bool fraction = false;
	*x = (struct number){ .p = p };
	p += p < d->end && *p == '-';
	if (!is_digit(d, p))
		return fail_type(d, at, "a number");
	if (*p == '0' && is_digit(d, p + 1))
		return fail(d, at, "a number must not begin with 0");
	p = run_of_digits(d, p, &mantissa, &count);
	int err = fraction_and_exponent(d, &p, &mantissa, &count, &exponent, &fraction);
	if (err < 0)
		return err;
	x->n = (size_t)(p - x->p);
	if (x->n > LUA_JSON_NUMBER)
		return fail(d, at, "a number of more than %d characters", LUA_JSON_NUMBER);
	if (fraction)
		x->d = to_double(x, mantissa, count, exponent);
	else
		to_integer(x, mantissa, count);
	if (isinf(x->d))
		return fail(d, at, "the number is out of range");
	d->p = p;
	return 0;
}

/* Integers beyond 64 bits keep their digits in a table with a metatable of its own. */
static void push_big(lua_State *L, const struct number *x)
{
	lua_createtable(L, 1, 0);
	lua_pushlstring(L, x->p, x->n);
	lua_rawseti(L, -2, 1);
	lua_msg_push_big(L);
	lua_setmetatable(L, -2);
}

/* ---- strings -------------------------------------------------------------------------------------------- */

struct raw { /* a string as it stands between its quotes */
	const char *p;
	size_t n;
	bool plain; /* no escapes, no CESU-8: the bytes are the text */
};

static uint32_t cesu8(const char *p, const char *end) /* a pair of 3-byte surrogates; 0: none */
{
	const unsigned char *s = (const unsigned char *)p;
	if (end - p < 6 || s[0] != 0xed || (s[1] & 0xf0) != 0xa0 || (s[2] & 0xc0) != 0x80 || s[3] != 0xed ||
	    (s[4] & 0xf0) != 0xb0 || (s[5] & 0xc0) != 0x80)
		return 0;
	uint32_t high = (uint32_t)(s[1] & 0x0f) << 6 | (s[2] & 0x3f),
		 low = (uint32_t)(s[4] & 0x0f) << 6 | (s[5] & 0x3f);
	return 0x10000 + (high << 10) + low;
}

/* 1: goes on, 0: look closer (quote, backslash, control, not ASCII) */
static const unsigned char plain_byte[256] = { [0x20 ... 0x21] = 1, [0x23 ... 0x5b] = 1, [0x5d ... 0x7f] = 1 };

/* d->p is behind the opening quote; afterwards behind the closing one. Escapes are checked when they are written out. */
static int scan_string(struct decoder *d, const struct lua_path *at, struct raw *out)
{
	const char *p = d->p;
	out->p = p;
	out->plain = true;
	for (;;) {
		while (p < d->end && plain_byte[(unsigned char)*p])
			p++;
		if (p >= d->end)
			return fail(d, at, "a string without its closing quote");
		unsigned char c = (unsigned char)*p;
		unsigned bytes;
		if (c == '"')
			break;
		if (c == '\\') {
			out->plain = false;
			p += p + 1 < d->end ? 2 : 1;
		} else if (c < 0x20) {
			return fail(d, at, "a control character in a string");
		} else if ((bytes = text_utf8(p, d->end))) {
			p += bytes;
		} else if (cesu8(p, d->end)) {
			out->plain = false;
			p += 6;
		} else {
			return fail(d, at, "a string that is not UTF-8");
		}
	}
	out->n = (size_t)(p - out->p);
	d->p = p + 1;
	return 0;
}

static bool hex4(const char *p, const char *end, uint32_t *out)
{
	if (end - p < 4)
		return false;
	*out = 0;
	for (int i = 0; i < 4; i++) {
		int c = p[i] | 0x20;
		if (!((c >= '0' && c <= '9' && p[i] < 0x40) || (c >= 'a' && c <= 'f')))
			return false;
		*out = *out << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	return true;
}

/* The character of an escape; p stands behind the backslash. Bytes read, or 0. */
static unsigned escape(const char *p, const char *end, uint32_t *code)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	uint32_t low;
	const char *letter = p < end && *p ? strchr(from, *p) : NULL;
	if (letter) {
		*code = (uint32_t)to[letter - from];
		return 1;
	}
	if (p >= end || *p != 'u' || !hex4(p + 1, end, code))
		return 0;
	if (*code < 0xd800 || *code > 0xdfff)
		return 5;
	if (*code > 0xdbff || end - p < 7 || p[5] != '\\' || p[6] != 'u' || !hex4(p + 7, end, &low) || low < 0xdc00 ||
	    low > 0xdfff)
		return 0; /* half a character */
	*code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
	return 11;
}

/* Writes the text of s to out, which has room for s->n bytes; its length, or -1: a wrong escape. */
static ssize_t write_out(const struct raw *s, char *out)
{
	char *o = out;
	const char *end = s->p + s->n;
	for (const char *p = s->p; p < end;) {
		uint32_t code;
		unsigned used = 1;
		if (*p == '\\') {
			if (!(used = escape(p + 1, end, &code)))
				return -1;
			o += text_put_utf8(o, code);
			p += 1 + used;
		} else if ((unsigned char)*p == 0xed && (code = cesu8(p, end))) {
			o += text_put_utf8(o, code);
			p += 6;
		} else {
			*o++ = *p++;
		}
	}
	return o - out;
}

static int push_string(struct decoder *d, const struct lua_path *at, const struct raw *s)
{
	if (s->plain) {
		lua_pushlstring(d->L, s->p, s->n);
		return 0;
	}
	luaL_Buffer b;
	char *out = luaL_buffinitsize(d->L, &b, s->n + 4);
	ssize_t n = write_out(s, out);
	luaL_pushresultsize(&b, n < 0 ? 0 : (size_t)n);
	return n < 0 ? fail(d, at, "a wrong escape in a string") : 0;
}

static int string(struct decoder *d, const struct lua_path *at)
{
	struct raw s;
	if (peek(d) != '"')
		return fail_type(d, at, "a string");
	d->p++;
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

static int member_name(struct decoder *d, const struct lua_path *at, struct raw *name)
{
	if (!next_is(d, '"'))
		return fail_syntax(d, "a member's name in quotes");
	int err = scan_string(d, at, name);
	if (err < 0)
		return err;
	return next_is(d, ':') ? 0 : fail_syntax(d, "':'");
}

/* After a member or element: 1: another follows, 0: closed. */
static int more(struct decoder *d, char close)
{
	if (next_is(d, ','))
		return 1;
	if (next_is(d, close))
		return 0;
	return fail_syntax(d, close == '}' ? "',' or '}'" : "',' or ']'");
}

static int object(struct decoder *d, const struct lua_path *at)
{
	int err = enter(d, at), again = 0;
	if (err < 0)
		return err;
	struct held h = hold(d);
	d->p++;
	if (!next_is(d, '}'))
		again = 1;
	while (again) {
		struct raw name;
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
	d->p++;
	if (!next_is(d, ']'))
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
	struct number x;
	int err;
	switch (peek(d)) {
	case '{': return object(d, at);
	case '[': return array(d, NULL, at);
	case '"': return string(d, at);
	case 't':
	case 'f': {
		bool yes = word(d, "true", 4);
		if (!yes && !word(d, "false", 5))
			return fail_syntax(d, "a value");
		lua_pushboolean(d->L, yes);
		return 0;
	}
	case 'n':
		if (!word(d, "null", 4))
			return fail_syntax(d, "a value");
		lua_msg_push_null(d->L);
		return 0;
	default:
		if (d->p >= d->end || (*d->p != '-' && !is_digit(d, d->p)))
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
	struct number x;
	const char *start = d->p;
	if (d->p >= d->end || (*d->p != '-' && !is_digit(d, d->p)))
		return fail_type(d, at, "an integer");
	int err = number(d, at, &x);
	if (err < 0)
		return err;
	if (!x.is_integer && !x.is_big && x.d == floor(x.d) && fabs(x.d) < 0x1p53) {
		x.is_integer = true; /* 1.0 and 1e3 are integers too */
		x.i = (int64_t)x.d;
	}
	if (!x.is_integer && !x.is_big) {
		d->p = start;
		return fail_type(d, at, "an integer");
	}
	if (x.is_big || !lua_msg_fits(type, x.i))
		return fail(d, at, "%.*s is out of range", (int)x.n, x.p);
	*out = x.i;
	return 0;
}

static int real(struct decoder *d, enum msg_field_type type, const struct lua_path *at)
{
	struct number x;
	if (d->p >= d->end || (*d->p != '-' && !is_digit(d, d->p)))
		return fail_type(d, at, "a number");
	int err = number(d, at, &x);
	if (err < 0)
		return err;
	double v = x.is_integer ? (double)x.i : x.is_big ? to_double(&x, 0, 99, 0) : x.d;
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
	const char *start = d->p;
	int64_t i;
	int err;
	if (peek(d) == '"') {
		struct raw s;
		d->p++;
		if ((err = scan_string(d, at, &s)) < 0)
			return err;
		v = msg_enum_name(e, s.p, s.n);
	} else if ((err = integer(d, MSG_INT32, at, &i)) < 0) {
		d->p = start;
		return fail_type(d, at, "the name of a value");
	} else {
		v = msg_enum_number(e, (int32_t)i);
	}
	if (!v) {
		d->p = start;
		return fail_type(d, at, "the name of a value");
	}
	lua_rawgeti(d->L, d->names, v->id);
	return 0;
}

/* One value of the field's type (for repeated fields: one element). */
static int field_value(struct decoder *d, const struct msg_field *f, const struct lua_path *at)
{
	int64_t i;
	int err;
	skip_space(d);
	switch (f->type) {
	case MSG_DOUBLE:
	case MSG_FLOAT: return real(d, f->type, at);
	case MSG_STRING: return string(d, at);
	case MSG_BYTES: return bytes(d, at);
	case MSG_MESSAGE: return f->message->any ? value(d, at) : message(d, f->message, at);
	case MSG_ENUM: return enumeration(d, f->enumeration, at);
	case MSG_BOOL:
		if (word(d, "true", 4))
			lua_pushboolean(d->L, true);
		else if (word(d, "false", 5))
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
static int map_key(struct decoder *d, const struct msg_field *key, const struct raw *name, const struct lua_path *at)
{
	if (key->type == MSG_STRING)
		return push_string(d, at, name);
	struct decoder inner = *d;
	struct lua_path here = { at, name->p, name->n, 0 };
	inner.p = name->p;
	inner.end = name->p + name->n;
	int err = field_value(&inner, key, &here);
	return err < 0 || inner.p == inner.end ? err : fail(d, &here, "is no key of this map");
}

static int map(struct decoder *d, const struct msg_type *entry, const struct lua_path *at)
{
	int err = 0, again = 0;
	if (peek(d) != '{')
		return fail_type(d, at, "an object");
	if ((err = enter(d, at)) < 0)
		return err;
	struct held h = hold(d);
	d->p++;
	if (!next_is(d, '}'))
		again = 1;
	while (again) {
		struct raw name;
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
		lua_rawgeti(d->L, d->names, f->id);
		lua_msg_push_default(d->L, f);
		if (++h->n == HELD)
			flush_members(d, h, true, at);
	}
	return 0;
}

/* What pomelo's clients put into every request. */
static bool is_dropped(const struct decoder *d, const struct raw *name)
{
	return d->depth == 1 && ((name->n == 9 && !memcmp(name->p, "__route__", 9)) ||
				 (name->n == 10 && !memcmp(name->p, "__crypto__", 10)));
}

static int field_of(struct decoder *d, const struct msg_type *t, struct seen *seen, struct held *h,
		    const struct raw *name, const struct lua_path *at)
{
	char copy[128];
	struct raw plain = *name;
	if (!name->plain && name->n < sizeof copy) {
		ssize_t n = write_out(name, copy);
		plain = (struct raw){ copy, n < 0 ? 0 : (size_t)n, true };
	}
	const struct msg_field *f = seen->next < t->fields && t->field[seen->next].name_bytes == plain.n &&
						    !memcmp(t->field[seen->next].name, plain.p, plain.n)
					    ? &t->field[seen->next]
					    : msg_field_name(t, plain.p, plain.n);
	struct lua_path here = { at, name->p, name->n, 0 };
	if (!f)
		return fail(d, &here, "unknown field");
	if (was_seen(seen, f->index))
		return fail(d, &here, "given twice");
	skip_space(d);
	if (word(d, "null", 4))
		return 0; /* as if it were not there */
	seen->next = f->index + 1u;
	seen->bits[f->index / 64] |= UINT64_C(1) << (f->index % 64);
	lua_rawgeti(d->L, d->names, f->id);
	int err;
	if (f->map)
		err = map(d, f->message, &here);
	else if (!f->repeated)
		err = field_value(d, f, &here);
	else
		err = peek(d) == '[' ? array(d, f, &here) : fail_type(d, &here, "an array");
	if (err < 0)
		return err;
	return ++h->n == HELD ? flush_members(d, h, true, at) : 0;
}

static int message(struct decoder *d, const struct msg_type *t, const struct lua_path *at)
{
	struct seen seen = { { 0 }, 0 };
	int err, again = 0;
	if (peek(d) != '{')
		return fail_type(d, at, "an object");
	if ((err = enter(d, at)) < 0)
		return err;
	struct held h = hold(d);
	d->p++;
	if (!next_is(d, '}'))
		again = 1;
	while (again) {
		struct raw name;
		if ((err = member_name(d, at, &name)) < 0)
			return err;
		if (is_dropped(d, &name)) {
			if ((err = value(d, at)) < 0)
				return err;
			lua_pop(d->L, 1);
		} else if ((err = field_of(d, t, &seen, &h, &name, at)) < 0) {
			return err;
		}
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
	struct decoder d = { .L = L, .text = text, .p = text, .end = text + n, .why = why, .why_size = why_size };
	luaL_checkstack(L, 8, "JSON");
	lua_msg_push_names(L);
	lua_msg_push_array(L);
	d.names = top + 1;
	d.array = top + 2;
	if (!type)
		err = value(&d, NULL);
	else if (!type->any)
		err = message(&d, type, NULL);
	else
		err = peek(&d) == '{' ? object(&d, NULL) : fail_type(&d, NULL, "an object");
	skip_space(&d);
	if (err == 0 && d.p < d.end)
		err = fail_syntax(&d, "the end");
	if (err == 0)
		lua_replace(L, top + 1);
	lua_settop(L, err == 0 ? top + 1 : top);
	return err;
}
