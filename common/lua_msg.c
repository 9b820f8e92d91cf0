#include "common/lua_msg.h"

#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/text.h"

#define SHOWN_MAX 40 /* bytes of a stranger's word, in a message */
#define FEW       16 /* keys that are sorted by insertion */

/* The registry's keys are the addresses of these; their values do not matter. */
static const char array_key = 'a', big_key = 'b';

static void refer_to_names(lua_State *L, struct lua_names *n, const struct schema *schema)
{
	for (; n->ids < schema_names(schema); n->ids++) {
		size_t bytes;
		const char *name = schema_name(schema, n->ids + 1, &bytes);
		lua_pushlstring(L, name, bytes);
		n->id[n->ids + 1] = luaL_ref(L, LUA_REGISTRYINDEX);
	}
}

/* Of names that stay where they are: refer_to_names has been there. */
static void make_shape(lua_State *L, const struct lua_names *n, const struct lua_shape *shape, const struct msg_type *t)
{
	for (unsigned i = 0; i <= t->fields; i++)
		shape->step[i].name = n; /* no script has it */
	for (unsigned i = 0; i < t->fields; i++) {
		lua_msg_push_name(L, n, t->field[i].id);
		shape->name[i] = lua_topointer(L, -1);
		lua_pop(L, 1);
	}
}

/* NULL: it is not among those of before. */
static const struct lua_shape *shape_before(const struct lua_names *before, const struct msg_type *t)
{
	return before && t->index < before->shapes && before->shape[t->index].step ? &before->shape[t->index] : NULL;
}

struct room { /* for the shapes that are made */
	const void **name;
	struct lua_step *step;
};

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

/*
 * One block: the shapes, the texts, the fields' names, the steps, the references by id. What stands in the block before
 * is referred to, so that each is for good.
 */
static struct lua_names *new_names(lua_State *L, const struct schema *schema, const struct lua_names *before,
				   struct room *room)
{
	size_t types = schema ? schema_types(schema) : 0, fields = 0, steps = 0,
	       shapes = larger(schema ? schema_shapes(schema) : 0, before ? before->shapes : 0),
	       ids = schema ? larger(schema_names(schema), before ? before->ids : 0) + 1 : 0;
	for (size_t i = 0; i < types; i++)
		if (!shape_before(before, schema_type_at(schema, i))) {
			fields += schema_type_at(schema, i)->fields;
			steps += schema_type_at(schema, i)->fields + 1u;
		}
	struct lua_names *n;
	size_t bytes = sizeof *n + shapes * sizeof n->shape[0] + (before ? 0 : sizeof *n->texts) +
		       fields * sizeof(void *) + steps * sizeof(struct lua_step) + ids * sizeof(int);
	n = memset(lua_newuserdatauv(L, bytes, 0), 0, bytes);
	luaL_ref(L, LUA_REGISTRYINDEX); /* for good */
	n->shapes = (uint32_t)shapes;
	n->texts = (struct lua_texts *)&n->shape[shapes];
	room->name = (const void **)(n->texts + !before);
	room->step = (struct lua_step *)(room->name + fields);
	n->id = (int *)(room->step + steps);
	if (!before)
		return n;
	n->texts = before->texts;
	n->ids = before->ids;
	if (before->ids)
		memcpy(n->id + 1, before->id + 1, before->ids * sizeof *n->id);
	memcpy(n->shape, before->shape, before->shapes * sizeof *n->shape);
	return n;
}

/* As of a set that was prepared, then dropped for another, which may be larger. */
static bool serves(const struct lua_names *n, const struct schema *schema)
{
	bool all = n->ids >= schema_names(schema);
	for (size_t i = 0; all && i < schema_types(schema); i++)
		all = shape_before(n, schema_type_at(schema, i)) != NULL;
	return all;
}

static const struct lua_names *make_names(lua_State *L, const struct schema *schema, const struct lua_names *before)
{
	struct room room;
	struct lua_names *n = new_names(L, schema, before, &room);
	if (schema)
		refer_to_names(L, n, schema);
	for (size_t i = 0; schema && i < schema_types(schema); i++) {
		const struct msg_type *t = schema_type_at(schema, i);
		if (n->shape[t->index].step)
			continue;
		n->shape[t->index] = (struct lua_shape){ room.name, room.step };
		make_shape(L, n, &n->shape[t->index], t);
		room.name += t->fields;
		room.step += t->fields + 1;
	}
	return n;
}

static int big_text(lua_State *L)
{
	lua_rawgeti(L, 1, 1);
	return 1;
}

static void metatable(lua_State *L, const char *name, lua_CFunction tostring, const void *key)
{
	lua_createtable(L, 0, 3);
	lua_pushstring(L, name);
	lua_setfield(L, -2, "__name");
	lua_pushboolean(L, 0); /* scripts do not get it: with a __gc it would give them finalizers */
	lua_setfield(L, -2, "__metatable");
	if (tostring) {
		lua_pushcfunction(L, tostring);
		lua_setfield(L, -2, "__tostring");
	}
	lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void lua_msg_open(lua_State *L, const struct schema *schema, struct lua_msg *m)
{
	memcpy(lua_getextraspace(L), &m, sizeof m);
	m->names = make_names(L, schema, NULL);
	metatable(L, "array", NULL, &array_key);
	metatable(L, "integer", big_text, &big_key);
}

void lua_msg_extend(lua_State *L, const struct schema *schema, struct lua_msg *m)
{
	if (!serves(m->names, schema))
		m->names = make_names(L, schema, m->names);
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

static inline uint64_t word_at(const char *p, size_t n)
{
	uint64_t v = 0;
	uint32_t part;
	if (n >= 8) {
		memcpy(&v, p, 8);
	} else if (n >= 4) {
		memcpy(&part, p + n - 4, 4);
		v = (uint64_t)part << 32;
		memcpy(&part, p, 4);
		v |= part;
	} else {
		v = (uint64_t)(uint8_t)p[0] | (uint64_t)(uint8_t)p[n / 2] << 8 | (uint64_t)(uint8_t)p[n - 1] << 16;
	}
	return v;
}

static __attribute__((noinline)) bool push_text(lua_State *L, const char *p, size_t n)
{
	bool good = text_is_utf8(p, n);
	if (good)
		lua_pushlstring(L, p, n);
	return good;
}

/* A text that comes the second time in a row is kept from then on, so that those that come once cost little more. */
static __attribute__((noinline)) bool push_new_text(lua_State *L, struct lua_text *slot, const char *p, size_t n,
						    uint32_t mark)
{
	if (!push_text(L, p, n))
		return false;
	if (slot->missed != mark) {
		slot->missed = mark;
		return true;
	}
	lua_pushvalue(L, -1);
	if (slot->ref)
		lua_rawseti(L, LUA_REGISTRYINDEX, slot->ref);
	else
		slot->ref = luaL_ref(L, LUA_REGISTRYINDEX);
	slot->first = word_at(p, n);
	slot->last = n > 8 ? word_at(p + n - 8, 8) : 0;
	slot->n = (uint32_t)n;
	return true;
}

bool lua_msg_push_text(lua_State *L, const struct lua_names *names, const char *p, size_t n)
{
	if (n - 1 >= 16)
		return push_text(L, p, n);
	uint64_t first = word_at(p, n), last = n > 8 ? word_at(p + n - 8, 8) : 0;
	uint64_t hash = (first + n) * UINT64_C(0x9e3779b97f4a7c15) ^ last * UINT64_C(0xc2b2ae3d27d4eb4f);
	struct lua_text *slot = &names->texts->slot[hash >> 56];
	if (slot->first != first || slot->last != last || slot->n != n)
		return push_new_text(L, slot, p, n, (uint32_t)(hash >> 24));
	return lua_rawgeti(L, LUA_REGISTRYINDEX, slot->ref) == LUA_TSTRING;
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

const char *lua_msg_values(const struct msg_enum *e, char out[LUA_VALUES_MAX])
{
	size_t n = 0;
	out[0] = 0;
	for (size_t i = 0; i < e->values; i++) {
		const char *between = i == 0 ? "" : i + 1 < e->values ? ", " : " or ";
		size_t left = LUA_VALUES_MAX - n;
		int need = snprintf(out + n, left, "%s%s", between, e->value[i].name);
		if ((size_t)need + (i + 1 < e->values ? sizeof ", ..." : 1) > left) {
			snprintf(out + n, left, "%s...", i ? ", " : "");
			break;
		}
		n += (size_t)need;
	}
	return out;
}

/* ---- keys and numbers ---------------------------------------------------------------------------------------- */

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

/* The key below the top is not the one that was at this step in the last table. False: it is no field. */
static __attribute__((noinline)) bool learn_step(lua_State *L, const struct msg_type *t, const struct lua_shape *shape,
						 struct lua_step *step)
{
	size_t n;
	const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &n) : NULL;
	const struct msg_field *f = name ? msg_field_name(t, name, n) : NULL;
	if (f)
		*step = (struct lua_step){ shape->name[f->index], f->index };
	return f != NULL;
}

/* Tables that were made alike are walked alike: most keys are those of the last table, at the same steps. */
int lua_msg_fields(lua_State *L, int index, int top, const struct msg_type *t, struct lua_place *place)
{
	if (!lua_checkstack(L, 2 * t->fields + 8))
		return ERR_NOMEM;
	const struct lua_shape *shape = &lua_msg_names(L)->shape[t->index];
	memset(place, 0, t->fields * sizeof *place);
	lua_pushnil(L);
	for (struct lua_step *step = shape->step; lua_next(L, index); step++) {
		if (lua_topointer(L, -2) != step->name && !learn_step(L, t, shape, step)) {
			lua_pop(L, 1);
			return ERR_FAILED;
		}
		struct lua_place *p = &place[step->field];
		p->at = top += 2;
		p->type = lua_type(L, top);
		if (p->type == LUA_TLIGHTUSERDATA && lua_msg_is_null(L, top))
			p->type = LUA_TNIL;
		lua_pushvalue(L, -2); /* key and value stay; from a copy of the key it goes on */
	}
	return 0;
}

const struct msg_field *lua_msg_both(const struct msg_type *t, const struct lua_place *place,
				     const struct msg_field **f)
{
	for (unsigned i = 0; i < t->fields; i++)
		for (unsigned k = 0; t->field[i].oneof && place[i].type != LUA_TNIL && k < i; k++)
			if (t->field[k].oneof == t->field[i].oneof && place[k].type != LUA_TNIL) {
				*f = &t->field[i];
				return &t->field[k];
			}
	return NULL;
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
