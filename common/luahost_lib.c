/* What scripts find: the safe part of Lua's libraries, json, log, os. */
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "common/luahost_private.h"

#define LOAD_MAX   (1 << 20)
#define LOAD_PIECE 1024
#define PAIRS_MAX  16 /* of a log line */

/* ---- base ------------------------------------------------------------------------------------------------- */

/* Finalizers run where no budget reaches them. */
static int l_setmetatable(lua_State *L)
{
	int type = lua_type(L, 2);
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
	if (!lua_msg_is_array(L, 1) && luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
		return luaL_error(L, "cannot change a protected metatable");
	if (type == LUA_TTABLE) {
		lua_pushliteral(L, "__gc");
		if (lua_rawget(L, 2) != LUA_TNIL)
			return luaL_error(L, "setmetatable: __gc is not for scripts");
	}
	lua_settop(L, 2);
	lua_setmetatable(L, 1);
	return 1;
}

/* That of a userdata is C's: who has it could give what is made later a finalizer, or call the one that is there. */
static int l_getmetatable(lua_State *L)
{
	luaL_checkany(L, 1);
	if (lua_type(L, 1) == LUA_TUSERDATA)
		lua_pushboolean(L, 0);
	else if (!lua_getmetatable(L, 1))
		lua_pushnil(L);
	else
		luaL_getmetafield(L, 1, "__metatable");
	return 1;
}

/* Never an address: they differ from run to run. */
static int l_tostring(lua_State *L)
{
	luaL_checkany(L, 1);
	int type = lua_type(L, 1);
	if (type >= LUA_TTABLE || type == LUA_TLIGHTUSERDATA) {
		if (luaL_getmetafield(L, 1, "__tostring") == LUA_TNIL) {
			lua_pushstring(L, lua_msg_is_null(L, 1) ? "null" : luaL_typename(L, 1));
			return 1;
		}
		lua_pop(L, 1);
	}
	luaL_tolstring(L, 1, NULL);
	return 1;
}

struct source {
	const char *at;
	size_t left;
};

/* In pieces: no hook reaches the compiler, and there are sources that keep it busy for minutes. */
static const char *read_source(lua_State *L, void *arg, size_t *size)
{
	struct source *s = arg;
	const char *piece = s->at;
	*size = s->left < LOAD_PIECE ? s->left : LOAD_PIECE;
	luahost_spend(L, (uint32_t)*size);
	s->at += *size;
	s->left -= *size;
	return piece;
}

/* load(text, name, "t", env): text only, since nobody verifies bytecode; without env a fresh one. */
static int l_load(lua_State *L)
{
	size_t n;
	const char *text = luaL_checklstring(L, 1, &n), *name = luaL_optstring(L, 2, "=load");
	bool has_env = !lua_isnoneornil(L, 4);
	if (n > LOAD_MAX)
		return luaL_error(L, "load: more than %d bytes", LOAD_MAX);
	if (lua_load(L, read_source, &(struct source){ text, n }, name, "t") != LUA_OK) {
		luahost_spend(L, 0); /* over the budget it goes no further */
		lua_pushnil(L);
		lua_insert(L, -2);
		return 2;
	}
	if (has_env)
		lua_pushvalue(L, 4);
	else
		luahost_push_env(L, luahost_of(L));
	if (!lua_setupvalue(L, -2, 1))
		lua_pop(L, 1);
	return 1;
}

static int l_collectgarbage(lua_State *L)
{
	if (strcmp(luaL_optstring(L, 1, "count"), "count") != 0)
		return luaL_argerror(L, 1, "scripts may only count");
	lua_pushnumber(L, (double)luahost_of(L)->mem.used / 1024);
	return 1;
}

/* A message handler runs inside the hook that stops a task, where no hook reaches it: skip it then. */
static int guarded_handler(lua_State *L)
{
	if (luahost_of(L)->over)
		return 1;
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, 1, 1);
	return 1;
}

static int finish_xpcall(lua_State *L, int status, lua_KContext extra)
{
	if (status != LUA_OK && status != LUA_YIELD) {
		lua_pushboolean(L, 0);
		lua_pushvalue(L, -2);
		return 2;
	}
	return lua_gettop(L) - (int)extra;
}

static int l_xpcall(lua_State *L)
{
	int n = lua_gettop(L);
	luaL_checktype(L, 2, LUA_TFUNCTION);
	lua_pushvalue(L, 2);
	lua_pushcclosure(L, guarded_handler, 1);
	lua_replace(L, 2);
	lua_pushboolean(L, 1);
	lua_pushvalue(L, 1);
	lua_rotate(L, 3, 2); /* under the arguments */
	return finish_xpcall(L, lua_pcallk(L, n - 2, LUA_MULTRET, 2, 2, finish_xpcall), 2);
}

static void add_base(lua_State *L, int base)
{
	static const char *const kept[] = { "assert", "error",  "ipairs", "next",   "pairs",    "pcall", "rawequal",
					    "rawget", "rawlen", "rawset", "select", "tonumber", "type",  "_VERSION" };
	static const luaL_Reg own[] = { { "getmetatable", l_getmetatable },
					{ "setmetatable", l_setmetatable },
					{ "tostring", l_tostring },
					{ "load", l_load },
					{ "collectgarbage", l_collectgarbage },
					{ "xpcall", l_xpcall },
					{ NULL, NULL } };
	lua_pushcfunction(L, luaopen_base);
	lua_call(L, 0, 1);
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
		lua_getfield(L, -1, kept[i]);
		lua_setfield(L, base, kept[i]);
	}
	lua_pop(L, 1);
	lua_pushvalue(L, base);
	luaL_setfuncs(L, own, 0);
	lua_pop(L, 1);
}

/* ---- coroutines of scripts: the budget must know which one runs ------------------------------------------------ */

static int resume(lua_State *L, lua_State *co, int n)
{
	struct luahost *h = luahost_of(L);
	int results = 0;
	if (luahost_ctx(co)->task) {
		lua_pushliteral(L, "cannot resume a task: it goes on when what it waits for has come");
		return -1;
	}
	if (!lua_checkstack(co, n)) {
		lua_pushliteral(L, "too many arguments to resume");
		return -1;
	}
	lua_xmove(L, co, n);
	struct luarun r;
	luahost_enter(h, &r, co);
	int status = lua_resume(co, L, n, &results);
	luahost_leave(h, &r);
	luahost_spread(h, L);
	if (status != LUA_OK && status != LUA_YIELD) {
		lua_xmove(co, L, 1);
		return -1;
	}
	if (!lua_checkstack(L, results + 1)) {
		lua_pop(co, results);
		lua_pushliteral(L, "too many results to resume");
		return -1;
	}
	lua_xmove(co, L, results);
	return results;
}

static int l_resume(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTHREAD);
	int n = resume(L, lua_tothread(L, 1), lua_gettop(L) - 1);
	lua_pushboolean(L, n >= 0);
	lua_insert(L, n >= 0 ? -(n + 1) : -2);
	return n >= 0 ? n + 1 : 2;
}

/* Its variables are closed as Lua does; the error on top may become another one. */
static void close_failed(lua_State *L, lua_State *co)
{
	struct luahost *h = luahost_of(L);
	int status = lua_status(co);
	if (status == LUA_OK || status == LUA_YIELD ||
	    h->over) /* it did not run; or nothing could stop what is closed */
		return;
	lua_xmove(L, co, 1);
	struct luarun r;
	luahost_enter(h, &r, co);
	lua_resetthread(co);
	luahost_leave(h, &r);
	luahost_spread(h, L);
	lua_xmove(co, L, 1);
}

static int call_wrapped(lua_State *L)
{
	lua_State *co = lua_tothread(L, lua_upvalueindex(1));
	int n = resume(L, co, lua_gettop(L));
	if (n >= 0)
		return n;
	close_failed(L, co);
	if (lua_type(L, -1) == LUA_TSTRING) { /* says where, as Lua does */
		luaL_where(L, 1);
		lua_insert(L, -2);
		lua_concat(L, 2);
	}
	return lua_error(L);
}

static int l_wrap(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_State *co = lua_newthread(L);
	lua_pushvalue(L, 1);
	lua_xmove(L, co, 1);
	lua_pushcclosure(L, call_wrapped, 1);
	return 1;
}

/* A task waits by what it calls; a bare yield of it would wait for nobody. */
static int l_yield(lua_State *L)
{
	if (luahost_ctx(L)->task)
		return luaL_error(L, "coroutine.yield outside of a coroutine of one's own");
	return lua_yield(L, lua_gettop(L));
}

static int l_close(lua_State *L)
{
	struct luahost *h = luahost_of(L);
	luaL_checktype(L, 1, LUA_TTHREAD);
	lua_State *co = lua_tothread(L, 1);
	lua_Debug ar;
	int status = lua_status(co);
	if (co == L || (status == LUA_OK && lua_getstack(co, 0, &ar)) || luahost_ctx(co)->task)
		return luaL_error(L, "cannot close a coroutine that runs");
	struct luarun r;
	luahost_enter(h, &r, co);
	status = lua_resetthread(co);
	luahost_leave(h, &r);
	luahost_spread(h, L);
	lua_pushboolean(L, status == LUA_OK);
	if (status == LUA_OK)
		return 1;
	lua_xmove(co, L, 1);
	return 2;
}

/* ---- os: the time of the environment ------------------------------------------------------------------------------ */

static uint64_t wall_us(lua_State *L)
{
	return env_wall_us(luahost_of(L)->o.loop->env);
}

static int tm_field(lua_State *L, const char *name, int otherwise)
{
	int exact;
	if (lua_getfield(L, 1, name) == LUA_TNIL && otherwise >= 0) {
		lua_pop(L, 1);
		return otherwise;
	}
	lua_Integer v = lua_tointegerx(L, -1, &exact);
	if (!exact || v < -100000 || v > 100000)
		luaL_error(L, "os.time: field '%s' is missing or wrong", name);
	lua_pop(L, 1);
	return (int)v;
}

/* os.time(): seconds since 1970; os.time{year=, month=, day=, hour=, min=, sec=}: of that time, UTC. */
static int l_time(lua_State *L)
{
	if (lua_isnoneornil(L, 1)) {
		lua_pushinteger(L, (lua_Integer)(wall_us(L) / 1000000));
		return 1;
	}
	luaL_checktype(L, 1, LUA_TTABLE);
	struct tm t = { .tm_year = tm_field(L, "year", -1) - 1900,
			.tm_mon = tm_field(L, "month", -1) - 1,
			.tm_mday = tm_field(L, "day", -1),
			.tm_hour = tm_field(L, "hour", 12),
			.tm_min = tm_field(L, "min", 0),
			.tm_sec = tm_field(L, "sec", 0) };
	lua_pushinteger(L, (lua_Integer)timegm(&t));
	return 1;
}

/* os.clock(): seconds of a clock that never goes back, for measuring. */
static int l_clock(lua_State *L)
{
	lua_pushnumber(L, (double)env_mono_ns(luahost_of(L)->o.loop->env) / 1e9);
	return 1;
}

static int push_tm(lua_State *L, const struct tm *t)
{
	const struct {
		const char *name;
		int v;
	} field[] = { { "year", t->tm_year + 1900 }, { "month", t->tm_mon + 1 }, { "day", t->tm_mday },
		      { "hour", t->tm_hour },        { "min", t->tm_min },       { "sec", t->tm_sec },
		      { "wday", t->tm_wday + 1 },    { "yday", t->tm_yday + 1 } };
	lua_createtable(L, 0, 8);
	for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
		lua_pushinteger(L, field[i].v);
		lua_setfield(L, -2, field[i].name);
	}
	return 1;
}

static void add_date(lua_State *L, luaL_Buffer *b, char letter, const struct tm *t)
{
	char text[40];
	switch (letter) {
	case 'Y': snprintf(text, sizeof text, "%04d", t->tm_year + 1900); break;
	case 'm': snprintf(text, sizeof text, "%02d", t->tm_mon + 1); break;
	case 'd': snprintf(text, sizeof text, "%02d", t->tm_mday); break;
	case 'H': snprintf(text, sizeof text, "%02d", t->tm_hour); break;
	case 'M': snprintf(text, sizeof text, "%02d", t->tm_min); break;
	case 'S': snprintf(text, sizeof text, "%02d", t->tm_sec); break;
	case 'j': snprintf(text, sizeof text, "%03d", t->tm_yday + 1); break;
	case 'w': snprintf(text, sizeof text, "%d", t->tm_wday); break;
	case '%': snprintf(text, sizeof text, "%%"); break;
	default: luaL_error(L, "os.date: '%%%c' is not one of %%Y %%m %%d %%H %%M %%S %%j %%w", letter);
	}
	luaL_addstring(b, text);
}

/* os.date(format, seconds): always UTC; "*t" gives a table. */
static int l_date(lua_State *L)
{
	const char *format = luaL_optstring(L, 1, "%Y-%m-%d %H:%M:%S");
	time_t seconds = (time_t)luaL_optinteger(L, 2, (lua_Integer)(wall_us(L) / 1000000));
	struct tm t;
	luaL_Buffer b;
	if (!gmtime_r(&seconds, &t))
		return luaL_argerror(L, 2, "a time out of range");
	format += *format == '!';
	if (!strncmp(format, "*t", 2))
		return push_tm(L, &t);
	luaL_buffinit(L, &b);
	for (; *format; format++)
		if (*format == '%' && format[1])
			add_date(L, &b, *++format, &t);
		else
			luaL_addchar(&b, *format);
	luaL_pushresult(&b);
	return 1;
}

/* ---- log ---------------------------------------------------------------------------------------------------- */

struct pair {
	const char *key, *value;
};

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct pair *)a)->key, ((const struct pair *)b)->key);
}

/* Texts stay on the Lua stack while they are used. */
static const char *text_of(lua_State *L, int index)
{
	char why[LUA_WHY_MAX];
	if (!lua_istable(L, index)) {
		lua_pushcfunction(L, l_tostring);
		lua_pushvalue(L, index);
		lua_call(L, 1, 1);
		return lua_tostring(L, -1);
	}
	struct buf *b = lua_newuserdatauv(L, sizeof *b, 0);
	buf_init(b);
	if (lua_json_encode(L, index, NULL, b, why, sizeof why) < 0)
		buf_addstr(b, "a table");
	if (b->len > LOG_LINE_MAX)
		b->len = LOG_LINE_MAX;
	lua_pushlstring(L, b->data, b->len);
	buf_release(b);
	return lua_tostring(L, -1);
}

/* Sorted, so that equal tables give equal lines. */
static unsigned collect_pairs(lua_State *L, struct pair *pair)
{
	unsigned n = 0;
	luaL_checkstack(L, 4 * PAIRS_MAX + 8, "log");
	int keys = lua_gettop(L) + 1;
	lua_newtable(L); /* anchors the texts */
	for (lua_pushnil(L); lua_next(L, 2) && n < PAIRS_MAX; n++) {
		int value = lua_gettop(L);
		pair[n].key = text_of(L, value - 1);
		lua_rawseti(L, keys, 2 * n + 1);
		pair[n].value = text_of(L, value);
		lua_rawseti(L, keys, 2 * n + 2);
		lua_settop(L, value - 1);
	}
	qsort(pair, n, sizeof *pair, by_key);
	return n;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* the tail of a literal, one conversion pair per pair */
static void write_pairs(struct log *log, enum log_level level, const char *event, const struct pair *p, unsigned n)
{
	static const char all[] = "%s=%s %s=%s %s=%s %s=%s %s=%s %s=%s %s=%s %s=%s "
				  "%s=%s %s=%s %s=%s %s=%s %s=%s %s=%s %s=%s %s=%s";
	const char *format = n ? all + (PAIRS_MAX - n) * 6 : "";
	log_write(log, level, event, format, p[0].key, p[0].value, p[1].key, p[1].value, p[2].key, p[2].value, p[3].key,
		  p[3].value, p[4].key, p[4].value, p[5].key, p[5].value, p[6].key, p[6].value, p[7].key, p[7].value,
		  p[8].key, p[8].value, p[9].key, p[9].value, p[10].key, p[10].value, p[11].key, p[11].value, p[12].key,
		  p[12].value, p[13].key, p[13].value, p[14].key, p[14].value, p[15].key, p[15].value);
}
#pragma GCC diagnostic pop

/* Whose request it is stands in the line, last. */
static unsigned add_trace(lua_State *L, struct pair *p, unsigned n, char text[20])
{
	const struct luatask *t = luahost_current(luahost_of(L));
	uint64_t trace = t && t->job ? t->job->trace : 0;
	if (!trace || n == PAIRS_MAX)
		return n;
	snprintf(text, 20, "%llx", (unsigned long long)trace);
	p[n] = (struct pair){ "trace", text };
	return n + 1;
}

/* log.info(event), log.info(event, {key = value}), log.info(event, format, ...) */
static int l_log(lua_State *L)
{
	struct log *log = luahost_of(L)->o.log;
	enum log_level level = (enum log_level)lua_tointeger(L, lua_upvalueindex(1));
	const char *event = luaL_checkstring(L, 1);
	struct pair pair[PAIRS_MAX] = { { NULL, NULL } };
	char trace[20];
	if (!log || log_level_get(log) > level)
		return 0;
	if (lua_istable(L, 2)) {
		unsigned n = collect_pairs(L, pair);
		write_pairs(log, level, event, pair, add_trace(L, pair, n, trace));
		return 0;
	}
	if (lua_isnoneornil(L, 2)) {
		write_pairs(log, level, event, pair, add_trace(L, pair, 0, trace));
		return 0;
	}
	luaL_checkstring(L, 2);
	lua_pushvalue(L, lua_upvalueindex(2));
	lua_replace(L, 1);
	if (lua_pcall(L, lua_gettop(L) - 1, 1, 0) != LUA_OK) /* of string.format alone, which names no place */
		return luaL_error(L, "log: %s", luaL_gsub(L, lua_tostring(L, -1), "to '?'", "of the format"));
	pair[0] = (struct pair){ "msg", lua_tostring(L, -1) };
	write_pairs(log, level, event, pair, add_trace(L, pair, 1, trace));
	return 0;
}

static void add_log(lua_State *L, int base)
{
	static const char *const names[] = { "debug", "info", "warn", "error" };
	lua_createtable(L, 0, 4);
	for (int i = 0; i < 4; i++) {
		lua_pushinteger(L, i); /* in the order of enum log_level */
		lua_getfield(L, base, "string");
		lua_getfield(L, -1, "format");
		lua_remove(L, -2);
		lua_pushcclosure(L, l_log, 2);
		lua_setfield(L, -2, names[i]);
	}
	lua_setfield(L, base, "log");
}

/* ---- all together ------------------------------------------------------------------------------------------ */

static void add_library(lua_State *L, int base, const char *name, lua_CFunction open)
{
	lua_pushcfunction(L, open);
	lua_call(L, 0, 1);
	lua_setfield(L, base, name);
}

static void remove_field(lua_State *L, int base, const char *library, const char *name)
{
	lua_getfield(L, base, library);
	lua_pushnil(L);
	lua_setfield(L, -2, name);
	lua_pop(L, 1);
}

static void seed_random(lua_State *L, int base)
{
	lua_Integer seed[2];
	env_random(luahost_of(L)->o.loop->env, seed, sizeof seed);
	lua_getfield(L, base, "math");
	lua_getfield(L, -1, "randomseed");
	lua_pushinteger(L, seed[0]);
	lua_pushinteger(L, seed[1]);
	lua_call(L, 2, 0);
	lua_pop(L, 1);
	remove_field(L, base, "math", "randomseed");
}

static void protect_strings(lua_State *L)
{
	lua_pushliteral(L, "");
	lua_getmetatable(L, -1);
	lua_pushliteral(L, "string");
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 2);
}

/* What Lua has and scripts do not find: what to do instead. */
static const char *instead_of(const char *name)
{
	static const char *const absent[][2] = {
		{ "print", ": log.info(event, {key = value}) writes a line" },
		{ "warn", ": log.warn(event, {key = value}) writes a line" },
		{ "dofile", ": require \"name\" takes a file of the service's lua folder" },
		{ "loadfile", ": require \"name\" takes a file of the service's lua folder" },
		{ "io", ": scripts have no files; see docs/lua.md" },
		{ "debug", ": not for scripts; see docs/lua.md" },
		{ "package", ": not for scripts; see docs/lua.md" },
		{ "unpack", ": it is table.unpack" },
	};
	for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
		if (!strcmp(absent[i][0], name))
			return absent[i][1];
	return "";
}

static int undefined(lua_State *L)
{
	const char *name = luaL_tolstring(L, 2, NULL);
	return luaL_error(L, "the global '%s' is not defined%s", name, instead_of(name));
}

static int assigned(lua_State *L)
{
	const char *name = luaL_tolstring(L, 2, NULL);
	if (!strcmp(name, "state"))
		return luaL_error(L, "state itself stays: set its fields, as state.players = {}");
	return luaL_error(L, "assignment to the global '%s': use a local, or state", name);
}

/* Files look up globals in their own table, then in the base, and then fail. */
static void make_environment(lua_State *L, int base)
{
	struct luahost *h = luahost_of(L);
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, undefined);
	lua_setfield(L, -2, "__index");
	lua_setmetatable(L, base);
	lua_createtable(L, 0, 3);
	lua_pushvalue(L, base);
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, assigned);
	lua_setfield(L, -2, "__newindex");
	lua_pushboolean(L, 0);
	lua_setfield(L, -2, "__metatable");
	h->environment = luaL_ref(L, LUA_REGISTRYINDEX);
}

void luahost_open_libraries(lua_State *L)
{
	static const luaL_Reg os[] = { { "time", l_time }, { "clock", l_clock }, { "date", l_date }, { NULL, NULL } };
	static const luaL_Reg own[] = {
		{ "resume", l_resume }, { "wrap", l_wrap }, { "yield", l_yield }, { "close", l_close }, { NULL, NULL }
	};
	int base = lua_gettop(L);
	add_base(L, base);
	add_library(L, base, "string", luaopen_string);
	add_library(L, base, "table", luaopen_table);
	add_library(L, base, "math", luaopen_math);
	add_library(L, base, "utf8", luaopen_utf8);
	add_library(L, base, "coroutine", luaopen_coroutine);
	lua_getfield(L, base, "coroutine");
	luaL_setfuncs(L, own, 0);
	luaL_newlib(L, os);
	lua_setfield(L, base, "os");
	remove_field(L, base, "string", "dump");
	seed_random(L, base);
	protect_strings(L);
	luahost_guard_libraries(L, base);
	add_library(L, base, "json", lua_json_lib);
	add_library(L, base, "clock", luahost_clock_lib);
	add_library(L, base, "random", luahost_random_lib);
	add_log(L, base);
	lua_newtable(L);
	lua_setfield(L, base, "state");
	make_environment(L, base);
	lua_settop(L, base);
}
