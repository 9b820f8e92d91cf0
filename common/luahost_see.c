/*
 * Looking inside a host that runs: its tasks with where they wait, and what its tables take. Requests that wait too long are
 * logged with the place.
 */
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "common/luahost_private.h"

/* ---- tasks ------------------------------------------------------------------------------------------------ */

static bool runs(const struct luahost *h, const struct luatask *t)
{
	const struct luarun *r = luahost_run(h);
	while (r && r->task != t)
		r = r->outer;
	return r != NULL;
}

static void push_task(lua_State *L, const struct luahost *h, const struct luatask *t)
{
	char trace[20];
	bool waits = t->unusual & LUATASK_WAITS;
	lua_createtable(L, 0, 5);
	lua_pushstring(L, t->job->name ? t->job->name : "task");
	lua_setfield(L, -2, "name");
	lua_pushstring(L, waits ? "waits" : "runs");
	lua_setfield(L, -2, "state");
	lua_pushinteger(L, waits ? (lua_Integer)(h->o.loop->now_ms - t->since_ms) : 0);
	lua_setfield(L, -2, "ms");
	snprintf(trace, sizeof trace, "%llx", (unsigned long long)t->job->trace);
	lua_pushstring(L, trace);
	lua_setfield(L, -2, "trace");
	luaL_traceback(L, t->run.L, NULL, 0);
	lua_setfield(L, -2, "traceback");
}

int luahost_l_tasks(lua_State *L)
{
	const struct luahost *h = luahost_of(L);
	int n = 0;
	lua_newtable(L);
	for (uint32_t i = 0; i < h->tasks; i++) {
		if (!(h->task[i]->unusual & LUATASK_WAITS) && !runs(h, h->task[i]))
			continue;
		push_task(L, h, h->task[i]);
		lua_rawseti(L, -2, ++n);
	}
	return 1;
}

/* ---- requests that wait too long ---------------------------------------------------------------------------- */

static void tell_slow(struct luahost *h, struct luatask *t, uint64_t waited_ms)
{
	char traceback[LUAHOST_TRACEBACK_MAX];
	t->unusual |= LUATASK_TOLD;
	h->stats.slow++;
	luahost_traceback(h, t->run.L, traceback);
	if (h->o.log)
		log_warn(h->o.log, "lua.slow", "task=%s waited_ms=%llu trace=%llx traceback=%s",
			 t->job->name ? t->job->name : "task", (unsigned long long)waited_ms,
			 (unsigned long long)t->job->trace, traceback);
}

/* Each wait is told once; the next look is when the oldest that was not told may have to be. */
static void on_slow(struct timer *timer, uint64_t now_ms)
{
	struct luahost *h = (struct luahost *)((char *)timer - offsetof(struct luahost, slow));
	uint64_t next_ms = UINT64_MAX;
	for (uint32_t i = 0; i < h->tasks; i++) {
		struct luatask *t = h->task[i];
		if ((t->unusual & (LUATASK_WAITS | LUATASK_TOLD)) != LUATASK_WAITS || !t->job->trace)
			continue;
		uint64_t due_ms = t->since_ms + h->o.slow_ms;
		if (due_ms <= now_ms)
			tell_slow(h, t, now_ms - t->since_ms);
		else if (due_ms < next_ms)
			next_ms = due_ms;
	}
	if (next_ms != UINT64_MAX)
		loop_timer(h->o.loop, timer, next_ms - now_ms);
}

void luahost_slow_watch(struct luahost *h)
{
	h->slow.fire = on_slow;
	loop_timer(h->o.loop, &h->slow, h->o.slow_ms);
}

/* ---- what the tables take ------------------------------------------------------------------------------------- */

/*
 * Each table is counted once, under the path by which it is reached first: fields with plain names keep their name, the
 * members of what looks like a list or a map become "*": state.scenes.*.entities.*. Sizes are computed, for Lua does not tell
 * them: what a table and its texts take at least. It waits now and then, so that requests go on.
 */
enum {
	FIELDS_MAX = 24, /* more: a map */
	DEPTH_MAX = 8,
	TABLE_BYTES = 56,
	SLOT_BYTES = 16,
	NODE_BYTES = 24,
	TEXT_BYTES = 25,
	SLICE_TABLES = 2000, /* between two waits */
};
/* the walk's stack: */
enum { SEEN = 1, QUEUE, KINDS };

static size_t power_of_two(size_t n)
{
	size_t p = 1;
	while (p < n)
		p *= 2;
	return n ? p : 0;
}

/* KINDS[path] = {tables, texts, bytes} */
static void count(lua_State *L, const char *path, int tables, int texts, size_t bytes)
{
	if (lua_getfield(L, KINDS, path) != LUA_TTABLE) {
		lua_pop(L, 1);
		lua_createtable(L, 3, 0);
		lua_pushvalue(L, -1);
		lua_setfield(L, KINDS, path);
	}
	const lua_Integer more[] = { tables, texts, (lua_Integer)bytes };
	for (int i = 0; i < 3; i++) {
		lua_rawgeti(L, -1, i + 1);
		lua_pushinteger(L, lua_tointeger(L, -1) + more[i]);
		lua_rawseti(L, -3, i + 1);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
}

/* The value on top has not been met before; from now on it has. */
static bool is_new(lua_State *L)
{
	lua_pushvalue(L, -1);
	bool seen = lua_rawget(L, SEEN) != LUA_TNIL;
	lua_pop(L, 1);
	if (seen)
		return false;
	lua_pushvalue(L, -1);
	lua_pushboolean(L, 1);
	lua_rawset(L, SEEN);
	return true;
}

static bool is_record(lua_State *L, int table)
{
	int n = 0;
	for (lua_pushnil(L); lua_next(L, table);) {
		lua_pop(L, 1);
		if (lua_type(L, -1) != LUA_TSTRING || ++n > FIELDS_MAX) {
			lua_pop(L, 1);
			return false;
		}
	}
	return true;
}

static void enqueue(lua_State *L, const char *path)
{
	int n = (int)lua_rawlen(L, QUEUE);
	lua_pushvalue(L, -1);
	lua_rawseti(L, QUEUE, n + 1);
	lua_pushstring(L, path);
	lua_rawseti(L, QUEUE, n + 2);
}

static void weigh_value(lua_State *L, const char *path, const char *name, int depth)
{
	char below[256];
	if (lua_type(L, -1) == LUA_TSTRING && is_new(L)) {
		count(L, path, 0, 1, TEXT_BYTES + lua_rawlen(L, -1));
	} else if (lua_type(L, -1) == LUA_TTABLE && is_new(L)) {
		snprintf(below, sizeof below, "%s%s%s", path, depth < DEPTH_MAX ? "." : "",
			 depth < DEPTH_MAX ? name : "");
		enqueue(L, below);
	}
}

static int depth_of(const char *path)
{
	int n = 0;
	for (; *path; path++)
		n += *path == '.';
	return n;
}

/* The table is on top. */
static void weigh(lua_State *L, const char *path)
{
	int table = lua_gettop(L), depth = depth_of(path);
	bool record = is_record(L, table);
	size_t fields = 0, items = lua_rawlen(L, table);
	for (lua_pushnil(L); lua_next(L, table); fields++) {
		char name[64] = "*";
		if (record)
			snprintf(name, sizeof name, "%s", lua_tostring(L, -2));
		weigh_value(L, path, name, depth);
		lua_pop(L, 1);
		if (lua_type(L, -1) == LUA_TSTRING && is_new(L))
			count(L, path, 0, 1, TEXT_BYTES + lua_rawlen(L, -1));
	}
	size_t nodes = fields > items ? power_of_two(fields - items) : 0;
	count(L, path, 1, 0, TABLE_BYTES + power_of_two(items) * SLOT_BYTES + nodes * NODE_BYTES);
}

static int list_kinds(lua_State *L)
{
	int n = 0;
	lua_newtable(L);
	for (lua_pushnil(L); lua_next(L, KINDS);) {
		lua_createtable(L, 0, 4);
		lua_pushvalue(L, -3);
		lua_setfield(L, -2, "kind");
		static const char *const names[] = { "tables", "texts", "bytes" };
		for (int i = 0; i < 3; i++) {
			lua_rawgeti(L, -2, i + 1);
			lua_setfield(L, -2, names[i]);
		}
		lua_rawseti(L, KINDS + 1, ++n);
		lua_pop(L, 1);
	}
	return 1;
}

static int walk(lua_State *L, int status, lua_KContext place)
{
	int n, done = 0;
	(void)status;
	while ((n = (int)lua_rawlen(L, QUEUE)) > 0) {
		if (++done > SLICE_TABLES) {
			luahost_wake_after(luahost_of(L), luatask_wait(L), 0);
			return lua_yieldk(L, 0, place, walk);
		}
		lua_settop(L, KINDS);
		lua_rawgeti(L, QUEUE, n);
		char path[160];
		snprintf(path, sizeof path, "%s", lua_tostring(L, -1));
		lua_rawgeti(L, QUEUE, n - 1);
		lua_remove(L, -2);
		lua_pushnil(L);
		lua_rawseti(L, QUEUE, n);
		lua_pushnil(L);
		lua_rawseti(L, QUEUE, n - 1);
		weigh(L, path);
	}
	lua_settop(L, KINDS);
	return list_kinds(L);
}

int luahost_l_memory(lua_State *L)
{
	struct luahost *h = luahost_of(L);
	lua_settop(L, 0);
	lua_newtable(L);
	lua_newtable(L);
	lua_newtable(L);
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->base);
	lua_getfield(L, -1, "state");
	lua_remove(L, -2);
	is_new(L);
	enqueue(L, "state");
	lua_settop(L, KINDS);
	if (h->code) {
		lua_rawgeti(L, LUA_REGISTRYINDEX, h->code->modules);
		is_new(L);
		enqueue(L, "modules");
		lua_settop(L, KINDS);
	}
	return walk(L, LUA_OK, 0);
}

void luahost_push_open_env(lua_State *L)
{
	lua_newtable(L);
	lua_createtable(L, 0, 1);
	lua_rawgeti(L, LUA_REGISTRYINDEX, luahost_of(L)->base);
	lua_setfield(L, -2, "__index");
	lua_setmetatable(L, -2);
}
