#include "common/lua_msg.h"

#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

#define SHOWN_MAX 40 /* bytes of a stranger's word, in a message */
#define FEW       16 /* keys that are sorted by insertion */

/* The registry's keys are the addresses of these; their values do not matter. */
static const char names_key = 'n', array_key = 'a', big_key = 'b';

static void names_table(lua_State *L, const struct schema *schema)
{
	uint32_t n = schema ? schema_names(schema) : 0;
	lua_createtable(L, (int)n, 0);
	for (uint32_t id = 1; id <= n; id++) {
		size_t bytes;
		const char *name = schema_name(schema, id, &bytes);
		lua_pushlstring(L, name, bytes);
		lua_rawseti(L, -2, id);
	}
}

static int big_text(lua_State *L)
{
	lua_rawgeti(L, 1, 1);
	return 1;
}

static void metatable(lua_State *L, const char *name, lua_CFunction tostring, const void *key)
{
	lua_createtable(L, 0, 2);
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__name");
	if (tostring) {
		lua_pushcfunction(L, tostring);
		lua_setfield(L, -2, "__tostring");
	}
	lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void lua_msg_open(lua_State *L, const struct schema *schema)
{
	names_table(L, schema);
	lua_rawsetp(L, LUA_REGISTRYINDEX, &names_key);
	metatable(L, "array", NULL, &array_key);
	metatable(L, "integer", big_text, &big_key);
}

void lua_msg_push_null(lua_State *L)
{
	lua_pushlightuserdata(L, NULL);
}

bool lua_msg_is_null(lua_State *L, int index)
{
	return lua_type(L, index) == LUA_TLIGHTUSERDATA && !lua_touserdata(L, index);
}

void lua_msg_push_array(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key);
}

void lua_msg_push_big(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &big_key);
}

void lua_msg_mark_array(lua_State *L, int index)
{
	index = lua_absindex(L, index);
	lua_msg_push_array(L);
	lua_setmetatable(L, index);
}

bool lua_msg_is_array(lua_State *L, int index)
{
	if (!lua_istable(L, index) || !lua_getmetatable(L, index))
		return false;
	lua_msg_push_array(L);
	bool same = lua_rawequal(L, -1, -2);
	lua_pop(L, 2);
	return same;
}

void lua_msg_push_names(lua_State *L)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key);
}

void lua_msg_push_default(lua_State *L, const struct msg_field *f)
{
	switch (f->type) {
	case MSG_STRING:
	case MSG_BYTES: lua_pushlstring(L, f->fallback.s.p, f->fallback.s.n); break;
	case MSG_DOUBLE:
	case MSG_FLOAT: lua_pushnumber(L, f->fallback.d); break;
	case MSG_BOOL: lua_pushboolean(L, f->fallback.i != 0); break;
	case MSG_ENUM: lua_pushstring(L, msg_enum_number(f->enumeration, (int32_t)f->fallback.i)->name); break;
	default: lua_pushinteger(L, f->fallback.i); break;
	}
}

/* ---- messages about messages -------------------------------------------------------------------------------- */

void lua_path_show(struct buf *out, const char *p, size_t n)
{
	for (size_t i = 0; i < n && i < SHOWN_MAX; i++)
		buf_addch(out, p[i] >= 0x20 && p[i] < 0x7f && p[i] != '"' ? p[i] : '?');
	if (n > SHOWN_MAX)
		buf_addstr(out, "...");
}

static void show_path(struct buf *out, const struct lua_path *at)
{
	if (!at)
		return;
	show_path(out, at->up);
	if (at->name) {
		if (out->len)
			buf_addch(out, '.');
		lua_path_show(out, at->name, at->n);
	} else {
		buf_addf(out, "[%zu]", at->index);
	}
}

int lua_path_fail(int err, char *why, size_t why_size, const struct lua_path *at, const char *fmt, ...)
{
	struct buf b = BUF_INIT;
	char text[200];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	show_path(&b, at);
	snprintf(why, why_size, "%s%s%s", b.len ? buf_cstr(&b) : "", b.len ? ": " : "", text);
	buf_release(&b);
	return err;
}

void lua_msg_show(lua_State *L, int index, struct buf *out)
{
	size_t n;
	if (lua_type(L, index) == LUA_TSTRING) {
		const char *p = lua_tolstring(L, index, &n);
		buf_addch(out, '"');
		lua_path_show(out, p, n);
		buf_addch(out, '"');
	} else if (lua_isinteger(L, index)) {
		buf_addi(out, lua_tointeger(L, index));
	} else if (lua_type(L, index) == LUA_TNUMBER) {
		buf_addf(out, "%.17g", lua_tonumber(L, index));
	} else if (lua_isnoneornil(L, index)) {
		buf_addstr(out, "nil");
	} else {
		buf_addf(out, "a %s", luaL_typename(L, index));
	}
}

/* ---- keys and numbers ---------------------------------------------------------------------------------------- */

bool lua_msg_fits(enum msg_field_type type, int64_t v)
{
	switch (type) {
	case MSG_INT32:
	case MSG_SINT32:
	case MSG_SFIXED32: return v >= INT32_MIN && v <= INT32_MAX;
	case MSG_UINT32:
	case MSG_FIXED32: return v >= 0 && v <= UINT32_MAX;
	case MSG_UINT64:
	case MSG_FIXED64: return v >= 0;
	default: return true;
	}
}

size_t lua_msg_entries(lua_State *L, int index, size_t limit)
{
	size_t n = 0;
	for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
		if (++n > limit) {
			lua_pop(L, 2);
			break;
		}
	return n;
}

int lua_msg_fields(lua_State *L, int index, const struct msg_type *t, int *at)
{
	int top = lua_gettop(L);
	memset(at, 0, t->fields * sizeof *at);
	if (!lua_checkstack(L, 2 * t->fields + 8))
		return ERR_NOMEM;
	lua_pushnil(L);
	while (lua_next(L, index)) {
		size_t n;
		const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &n) : NULL;
		const struct msg_field *f = name ? msg_field_name(t, name, n) : NULL;
		if (!f) {
			lua_pop(L, 1);
			return ERR_FAILED;
		}
		top += 2;
		at[f->index] = lua_msg_is_null(L, top) ? 0 : top;
		lua_pushvalue(L, -2); /* key and value stay; from a copy of the key it goes on */
	}
	return 0;
}

static int by_bytes(const void *a, const void *b)
{
	const struct lua_key *x = a, *y = b;
	int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
	return order ? order : (x->n > y->n) - (x->n < y->n);
}

static int by_value(const void *a, const void *b)
{
	const struct lua_key *x = a, *y = b;
	return (x->i > y->i) - (x->i < y->i);
}

static void sort_keys(struct lua_key *key, size_t n, int (*order)(const void *a, const void *b))
{
	if (n > FEW) {
		qsort(key, n, sizeof *key, order);
		return;
	}
	for (size_t i = 1; i < n; i++) {
		struct lua_key k = key[i];
		size_t j = i;
		for (; j && order(&key[j - 1], &k) > 0; j--)
			key[j] = key[j - 1];
		key[j] = k;
	}
}

static bool read_key(lua_State *L, enum msg_field_type type, struct lua_key *key)
{
	*key = (struct lua_key){ .at = lua_gettop(L) };
	if (type == MSG_STRING) {
		if (lua_type(L, -2) == LUA_TSTRING)
			key->p = lua_tolstring(L, -2, &key->n);
		return key->p != NULL;
	}
	key->i = type == MSG_BOOL ? lua_toboolean(L, -2) : lua_tointeger(L, -2);
	return type == MSG_BOOL ? lua_isboolean(L, -2) : lua_isinteger(L, -2) && lua_msg_fits(type, key->i);
}

static bool room_for_key(struct lua_keys *k, lua_State *L)
{
	if (!k->key) {
		k->key = k->held;
		k->cap = sizeof k->held / sizeof *k->held;
	} else {
		size_t cap = k->cap * 2;
		struct lua_key *key = realloc(k->key == k->held ? NULL : k->key, cap * sizeof *key);
		if (!key)
			return false;
		if (k->key == k->held)
			memcpy(key, k->held, sizeof k->held);
		k->key = key;
		k->cap = cap;
	}
	return k->cap < INT32_MAX / 4 && lua_checkstack(L, (int)k->cap * 2 + 8);
}

int lua_keys_collect(struct lua_keys *k, lua_State *L, int index, enum msg_field_type type)
{
	k->key = NULL;
	k->n = k->cap = 0;
	for (lua_pushnil(L); lua_next(L, index);) {
		if (k->n == k->cap && !room_for_key(k, L))
			return ERR_NOMEM;
		if (!read_key(L, type, &k->key[k->n++])) {
			lua_pop(L, 1);
			return ERR_FAILED;
		}
		lua_insert(L, -2); /* the value under its key */
		k->key[k->n - 1].at--;
		lua_pushvalue(L, -1); /* goes on from here */
	}
	sort_keys(k->key, k->n, type == MSG_STRING ? by_bytes : by_value);
	return 0;
}

void lua_keys_release(struct lua_keys *k)
{
	if (k->key != k->held)
		free(k->key);
}
