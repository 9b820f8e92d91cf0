#include "common/luatable.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/luamem.h"
#include "common/luasrc.h"

enum { CHUNK = 64 * 1024, PATH_BYTES = 200, MEMORY_MAX = 1 << 30 };

enum type { INT, NUMBER, BOOLEAN, TEXT, TABLE };
struct value {
	enum type type;
	union {
		int64_t i;
		double d;
		struct {
			const char *p;
			size_t n;
		} s;
		const struct node *t;
	};
};
struct entry {
	struct value key, value; /* INT or TEXT */
};
/* 1 to list_n are in the list; the others in the entries, sorted, with a hash table of their places above them. */
struct node {
	uint32_t list_n, entries_n, mask;
	struct value *list;
	struct entry *entry;
	uint32_t *place; /* index + 1; 0: empty */
};

struct chunk {
	struct chunk *next;
};
struct luatable {
	struct chunk *chunks;
	char *at, *end;
	struct node *root;
};

/* ---- making ------------------------------------------------------------------------------------------------ */

static void *take(struct luatable *t, size_t n)
{
	n = (n + 15) & ~(size_t)15;
	if ((size_t)(t->end - t->at) < n) {
		size_t size = n > CHUNK ? n : CHUNK;
		struct chunk *c = malloc(16 + size);
		if (!c)
			abort();
		c->next = t->chunks;
		t->chunks = c;
		t->at = (char *)c + 16;
		t->end = t->at + size;
	}
	t->at += n;
	return memset(t->at - n, 0, n);
}

struct path { /* where in the table something is */
	const struct path *up;
	const char *name; /* NULL: [number] */
	lua_Integer number;
	int depth;
};

static size_t show_path(const struct path *p, char *out, size_t size)
{
	size_t n = p->up ? show_path(p->up, out, size) : 0;
	if (!p->up || n >= size)
		return n;
	if (p->name)
		n += (size_t)snprintf(out + n, size - n, "%s%s", n ? "." : "", p->name);
	else
		n += (size_t)snprintf(out + n, size - n, "[%lld]", (long long)p->number);
	return n < size ? n : size;
}

static void refuse(lua_State *L, const struct path *at, const char *why)
{
	char path[PATH_BYTES] = "";
	size_t n = show_path(at, path, sizeof path);
	luaL_error(L, "%s%s%s", path, n ? ": " : "", why);
}

static uint32_t hash_value(const struct value *v)
{
	if (v->type == INT) {
		uint64_t h = (uint64_t)v->i * UINT64_C(0x9e3779b97f4a7c15);
		return (uint32_t)(h >> 32);
	}
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < v->s.n; i++)
		h = (h ^ (unsigned char)v->s.p[i]) * 16777619u;
	return h;
}

static bool same(const struct value *a, const struct value *b)
{
	if (a->type != b->type)
		return false;
	return a->type == INT ? a->i == b->i : a->s.n == b->s.n && !memcmp(a->s.p, b->s.p, a->s.n);
}

static int by_key(const void *x, const void *y)
{
	const struct value *a = &((const struct entry *)x)->key, *b = &((const struct entry *)y)->key;
	if (a->type != b->type)
		return a->type < b->type ? -1 : 1;
	if (a->type == INT)
		return a->i < b->i ? -1 : a->i > b->i;
	int order = memcmp(a->s.p, b->s.p, a->s.n < b->s.n ? a->s.n : b->s.n);
	return order ? order : a->s.n < b->s.n ? -1 : a->s.n > b->s.n;
}

static const struct node *make_node(lua_State *L, struct luatable *t, const struct path *at);

static struct value make_value(lua_State *L, struct luatable *t, const struct path *at)
{
	struct value v = { .type = INT };
	switch (lua_type(L, -1)) {
	case LUA_TBOOLEAN:
		v.type = BOOLEAN;
		v.i = lua_toboolean(L, -1);
		break;
	case LUA_TNUMBER:
		if (lua_isinteger(L, -1)) {
			v.i = lua_tointeger(L, -1);
		} else {
			v.type = NUMBER;
			v.d = lua_tonumber(L, -1);
		}
		break;
	case LUA_TSTRING: {
		const char *p = lua_tolstring(L, -1, &v.s.n);
		v.type = TEXT;
		v.s.p = memcpy(take(t, v.s.n + 1), p, v.s.n);
		break;
	}
	case LUA_TTABLE:
		v.type = TABLE;
		v.t = make_node(L, t, at);
		break;
	default: refuse(L, at, "only texts, numbers, booleans and tables can be shared");
	}
	return v;
}

static void make_places(struct luatable *t, struct node *node)
{
	uint32_t size = 4;
	while (size < node->entries_n * 2)
		size *= 2;
	node->mask = size - 1;
	node->place = take(t, size * sizeof *node->place);
	for (uint32_t i = 0; i < node->entries_n; i++) {
		uint32_t at = hash_value(&node->entry[i].key) & node->mask;
		while (node->place[at])
			at = (at + 1) & node->mask;
		node->place[at] = i + 1;
	}
}

static bool in_list(lua_State *L, int key, uint32_t list_n)
{
	return lua_isinteger(L, key) && lua_tointeger(L, key) >= 1 && lua_tointeger(L, key) <= list_n;
}

static const struct node *make_node(lua_State *L, struct luatable *t, const struct path *at)
{
	struct node *node = take(t, sizeof *node);
	int table = lua_gettop(L);
	uint32_t others = 0;
	luaL_checkstack(L, 8, "a table");
	if (at->depth > LUATABLE_DEPTH)
		refuse(L, at, "too deep, or a cycle");
	node->list_n = (uint32_t)lua_rawlen(L, table);
	node->list = take(t, node->list_n * sizeof *node->list);
	for (uint32_t i = 0; i < node->list_n; i++, lua_pop(L, 1)) {
		struct path step = { at, NULL, i + 1, at->depth + 1 };
		lua_rawgeti(L, table, i + 1);
		node->list[i] = make_value(L, t, &step);
	}
	for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1))
		others += !in_list(L, -2, node->list_n);
	node->entry = take(t, others * sizeof *node->entry);
	for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
		if (in_list(L, -2, node->list_n))
			continue;
		struct entry *e = &node->entry[node->entries_n++];
		bool text = lua_type(L, -2) == LUA_TSTRING;
		if (!text && !lua_isinteger(L, -2))
			refuse(L, at, "keys are texts or integers");
		struct path step = { at, text ? lua_tostring(L, -2) : NULL, text ? 0 : lua_tointeger(L, -2),
				     at->depth + 1 };
		e->value = make_value(L, t, &step);
		lua_pushvalue(L, -2);
		e->key = make_value(L, t, at);
		lua_pop(L, 1);
	}
	qsort(node->entry, node->entries_n, sizeof *node->entry, by_key);
	make_places(t, node);
	return node;
}

static void too_long(lua_State *L, lua_Debug *ar)
{
	(void)ar;
	luaL_error(L, "the file runs for too long");
}

static void open_part(lua_State *L, const char *name, lua_CFunction open)
{
	luaL_requiref(L, name, open, 1);
	lua_pop(L, 1);
}

/* What a table's file may compute with. Nothing that reads a clock, a file or chance. */
static void open_little(lua_State *L)
{
	static const char *const gone[] = { "print",    "dofile",         "loadfile",     "load",
					    "require",  "collectgarbage", "warn",         "getmetatable",
					    "rawequal", "rawset",         "setmetatable", "coroutine" };
	open_part(L, "_G", luaopen_base);
	open_part(L, "math", luaopen_math);
	open_part(L, "string", luaopen_string);
	open_part(L, "table", luaopen_table);
	for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
		lua_pushnil(L);
		lua_setglobal(L, gone[i]);
	}
	lua_getglobal(L, "math");
	lua_pushnil(L);
	lua_setfield(L, -2, "random");
	lua_pushnil(L);
	lua_setfield(L, -2, "randomseed");
	lua_pop(L, 1);
}

struct making {
	struct luatable *t;
	const char *path, *text;
	size_t n;
};

static int make(lua_State *L)
{
	struct making *m = lua_touserdata(L, 1);
	struct path top = { NULL, NULL, 0, 0 };
	open_little(L);
	lua_pushfstring(L, "@%s", m->path);
	if (luaL_loadbufferx(L, m->text, m->n, lua_tostring(L, -1), "t") != LUA_OK)
		return lua_error(L);
	lua_sethook(L, too_long, LUA_MASKCOUNT, LUATABLE_STEPS);
	lua_call(L, 0, 1);
	lua_sethook(L, NULL, 0, 0);
	if (!lua_istable(L, -1))
		return luaL_error(L, "%s: the file must return a table", m->path);
	m->t->root = (struct node *)(uintptr_t)make_node(L, m->t, &top);
	return 0;
}

int luatable_make(const char *path, const char *text, size_t n, char *error, size_t error_size, struct luatable **out)
{
	struct luamem memory;
	luamem_init(&memory, MEMORY_MAX);
	lua_State *L = lua_newstate(luamem_alloc, &memory);
	struct making m = { calloc(1, sizeof *m.t), path, text, n };
	int err = 0;
	if (!L || !m.t)
		abort();
	lua_pushcfunction(L, make);
	lua_pushlightuserdata(L, &m);
	if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
		const char *why = luaL_tolstring(L, -1, NULL);
		bool named = !strncmp(why, path, strlen(path));
		snprintf(error, error_size, "%s%s%s", named ? "" : path, named ? "" : ": ", why);
		luatable_free(m.t);
		err = ERR_FAILED;
	} else {
		*out = m.t;
	}
	lua_close(L);
	luamem_free(&memory);
	return err;
}

void luatable_free(struct luatable *t)
{
	for (struct chunk *c = t ? t->chunks : NULL, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	free(t);
}

/* ---- what scripts see --------------------------------------------------------------------------------------- */

static const char proxy_type[] = "loquat.table";
static const char proxies; /* registry: by the node's address, weak */

struct proxy {
	const struct node *node;
	struct luasrc *owner;
};

static void push_node(lua_State *L, const struct node *node, struct luasrc *owner);

static void push_value(lua_State *L, const struct value *v, struct luasrc *owner)
{
	switch (v->type) {
	case INT: lua_pushinteger(L, (lua_Integer)v->i); break;
	case NUMBER: lua_pushnumber(L, v->d); break;
	case BOOLEAN: lua_pushboolean(L, (int)v->i); break;
	case TEXT: lua_pushlstring(L, v->s.p, v->s.n); break;
	case TABLE: push_node(L, v->t, owner); break;
	}
}

/* The place of a key among the entries, or -1. */
static int64_t find(const struct node *node, const struct value *key)
{
	for (uint32_t at = hash_value(key) & node->mask; node->place[at]; at = (at + 1) & node->mask)
		if (same(&node->entry[node->place[at] - 1].key, key))
			return node->place[at] - 1;
	return -1;
}

static bool read_key(lua_State *L, int index, struct value *key)
{
	int is;
	if (lua_type(L, index) == LUA_TSTRING) {
		key->type = TEXT;
		key->s.p = lua_tolstring(L, index, &key->s.n);
		return true;
	}
	key->type = INT;
	key->i = lua_type(L, index) == LUA_TNUMBER ? lua_tointegerx(L, index, &is) : (is = 0);
	return is;
}

static int l_index(lua_State *L)
{
	struct proxy *p = lua_touserdata(L, 1);
	struct value key;
	int64_t at;
	if (!read_key(L, 2, &key))
		lua_pushnil(L);
	else if (key.type == INT && key.i >= 1 && key.i <= p->node->list_n)
		push_value(L, &p->node->list[key.i - 1], p->owner);
	else if ((at = find(p->node, &key)) >= 0)
		push_value(L, &p->node->entry[at].value, p->owner);
	else
		lua_pushnil(L);
	return 1;
}

static int l_len(lua_State *L)
{
	struct proxy *p = lua_touserdata(L, 1);
	lua_pushinteger(L, p->node->list_n);
	return 1;
}

static int l_write(lua_State *L)
{
	return luaL_error(L, "a shared table cannot be changed (table() gives a copy)");
}

/* next(table, key), in order: the list, integers, texts. */
static int l_next(lua_State *L)
{
	struct proxy *p = luaL_checkudata(L, 1, proxy_type);
	const struct node *node = p->node;
	struct value key;
	int64_t place = 0; /* of the next: the list, then the entries */
	lua_settop(L, 2);
	if (!lua_isnil(L, 2)) {
		if (!read_key(L, 2, &key))
			return luaL_error(L, "this key is not in the table");
		if (key.type == INT && key.i >= 1 && key.i <= node->list_n)
			place = key.i;
		else if ((place = find(node, &key)) < 0)
			return luaL_error(L, "this key is not in the table");
		else
			place += node->list_n + 1;
	}
	if (place < node->list_n) {
		lua_pushinteger(L, place + 1);
		push_value(L, &node->list[place], p->owner);
		return 2;
	}
	place -= node->list_n;
	if (place >= node->entries_n) {
		lua_pushnil(L);
		return 1;
	}
	push_value(L, &node->entry[place].key, p->owner);
	push_value(L, &node->entry[place].value, p->owner);
	return 2;
}

static int l_pairs(lua_State *L)
{
	lua_pushcfunction(L, l_next);
	lua_pushvalue(L, 1);
	lua_pushnil(L);
	return 3;
}

static void push_copy(lua_State *L, const struct node *node);

static void push_copied(lua_State *L, const struct value *v)
{
	if (v->type == TABLE)
		push_copy(L, v->t);
	else
		push_value(L, v, NULL);
}

static void push_copy(lua_State *L, const struct node *node)
{
	luaL_checkstack(L, 4, "a table");
	lua_createtable(L, (int)node->list_n, (int)node->entries_n);
	for (uint32_t i = 0; i < node->list_n; i++) {
		push_copied(L, &node->list[i]);
		lua_rawseti(L, -2, (lua_Integer)i + 1);
	}
	for (uint32_t i = 0; i < node->entries_n; i++) {
		push_value(L, &node->entry[i].key, NULL);
		push_copied(L, &node->entry[i].value);
		lua_rawset(L, -3);
	}
}

static int l_copy(lua_State *L)
{
	push_copy(L, ((struct proxy *)luaL_checkudata(L, 1, proxy_type))->node);
	return 1;
}

static int l_release(lua_State *L)
{
	struct proxy *p = lua_touserdata(L, 1);
	luasrc_unref(p->owner);
	p->owner = NULL;
	return 0;
}

static void push_metatable(lua_State *L)
{
	static const luaL_Reg methods[] = { { "__index", l_index }, { "__len", l_len },   { "__newindex", l_write },
					    { "__pairs", l_pairs }, { "__call", l_copy }, { "__gc", l_release },
					    { NULL, NULL } };
	if (luaL_newmetatable(L, proxy_type)) {
		luaL_setfuncs(L, methods, 0);
	}
}

/* Each node has one userdata at a time, so that equal tables are equal. */
static void push_node(lua_State *L, const struct node *node, struct luasrc *owner)
{
	luaL_checkstack(L, 5, "a table");
	if (lua_rawgetp(L, LUA_REGISTRYINDEX, &proxies) == LUA_TNIL) {
		lua_pop(L, 1);
		lua_newtable(L);
		lua_createtable(L, 0, 1);
		lua_pushliteral(L, "v");
		lua_setfield(L, -2, "__mode");
		lua_setmetatable(L, -2);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, LUA_REGISTRYINDEX, &proxies);
	}
	if (lua_rawgetp(L, -1, node) == LUA_TNIL) {
		lua_pop(L, 1);
		struct proxy *p = lua_newuserdatauv(L, sizeof *p, 0);
		*p = (struct proxy){ node, NULL };
		push_metatable(L);
		lua_setmetatable(L, -2);
		p->owner = luasrc_ref(owner);
		lua_pushvalue(L, -1);
		lua_rawsetp(L, -3, node);
	}
	lua_remove(L, -2);
}

void luatable_push(lua_State *L, const struct luatable *t, struct luasrc *owner)
{
	push_node(L, t->root, owner);
}
