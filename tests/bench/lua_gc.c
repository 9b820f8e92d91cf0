/*
 * lua_gc: how long Lua's collector holds up requests: a heap of small tables and texts that live, and requests at a fixed
 * rate that replace some of them and leave garbage. In a luahost, or with --plain in Lua as it comes: its own collector and
 * the C library's allocator.
 *
 * Printed is CPU time of the thread, so that what else the machine does does not count: the longest time from one request to
 * the next, which holds whatever the collector does in a request or between two.
 *
 * usage: lua_gc [--plain] [--mb N] [--rate N] [--seconds S] [--gc MODE] [--texts N]      prints one JSON object
 */
#include <lauxlib.h>
#include <lualib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/env.h"
#include "common/err.h"
#include "common/luahost.h"

static const char game[] =
	"local scenes, live = {}, 0\n"
	"local function fresh(i)\n"
	"  return { uid = 'player' .. i, name = 'the name of player ' .. i, level = 1, x = i, y = i, hp = 100,\n"
	"    bag = { { item = 1, count = i }, { item = 2, count = 3 } }, quests = { first = 1, second = 2 } }\n"
	"end\n"
	"local M = {}\n"
	"function M.buy()\n"
	"  for i = 1, 20 do\n"
	"    local scene = scenes[live // 1000] or {}\n"
	"    scenes[live // 1000], scene[live % 1000] = scene, fresh(live)\n"
	"    live = live + 1\n"
	"  end\n"
	"end\n"
	"local seed = 1\n"
	"function M.items()\n"
	"  seed = (seed * 1103515245 + 12345) & 0x7fffffff\n"
	"  local p = scenes[seed % live // 1000][seed % live % 1000]\n"
	"  p.bag[1] = { item = seed & 7, count = seed }\n"
	"  p.name = 'now called ' .. seed\n"
	"  local near = {}\n"
	"  for i = 1, 6 do near[i] = { id = i, x = p.x + i, y = p.y - i } end\n"
	"  return { near = near, name = p.name }\n"
	"end\n"
	"return M\n";

struct bench {
	struct env *env;
	struct loop *loop;
	struct luahost *host;
	struct schema *schema;
	const struct msg_method *request, *grow, *method;
	lua_State *L; /* of plain Lua */
	bool plain;
	size_t bytes;
	unsigned rate, seconds, texts, gc;
	uint64_t left, cpu_ns, begun_cpu_ns;
	struct timer turn;
	uint64_t longest_ns, over_1ms;
	double owed;
	uint64_t last_ms;
	uint64_t grow_longest_ns;
	_Atomic bool over;
};

static uint64_t cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "lua_gc: %s\n", what);
	exit(2);
}

/* ---- one request ------------------------------------------------------------------------------------------------ */

static int push(lua_State *L, struct luajob *job)
{
	(void)job;
	struct bench *b = luahost_user(luahost_of(L));
	return luahost_push_method(L, b->method) ? 0 : ERR_NOT_FOUND;
}

static void done(struct luajob *job, const struct luaresult *r)
{
	(void)job;
	need(r->err == 0, r->message);
}

static void request(struct bench *b)
{
	struct luajob job = { .name = "bench", .push = push, .done = done };
	if (!b->plain) {
		luatask_start(b->host, &job);
		return;
	}
	lua_getfield(b->L, 1, b->method == b->grow ? "buy" : "items");
	need(lua_pcall(b->L, 0, 0, 0) == LUA_OK, "the request failed");
}

static void note(struct bench *b)
{
	uint64_t now = cpu_ns(), took = now - b->cpu_ns;
	b->cpu_ns = now;
	b->over_1ms += took > 1000000;
	if (took > b->longest_ns)
		b->longest_ns = took;
}

static size_t live_bytes(struct bench *b)
{
	struct luahost_stats s;
	if (b->plain)
		return (size_t)lua_gc(b->L, LUA_GCCOUNT) * 1024;
	luahost_stats(b->host, &s);
	return s.memory_bytes;
}

static void finish(struct bench *b)
{
	printf("{\"longest_ms\":%.3f,\"over_1ms\":%llu,\"grow_longest_ms\":%.3f,\"heap_mb\":%.1f,\"cpu_us\":%.3f}\n",
	       (double)b->longest_ns / 1e6, (unsigned long long)b->over_1ms, (double)b->grow_longest_ns / 1e6,
	       (double)live_bytes(b) / 1e6, (double)(cpu_ns() - b->begun_cpu_ns) / 1e3 / b->rate / b->seconds);
	luahost_free(b->host);
	if (b->L)
		lua_close(b->L);
	atomic_store(&b->over, true);
}

enum { GROW_REQUESTS = 20 }; /* a turn */

static void grow(struct bench *b)
{
	for (int i = 0; i < GROW_REQUESTS; i++) {
		request(b);
		note(b);
	}
	if (live_bytes(b) < b->bytes)
		return;
	b->grow_longest_ns = b->longest_ns;
	b->longest_ns = b->over_1ms = 0;
	b->method = b->request;
	b->begun_cpu_ns = b->cpu_ns;
}

static void play(struct bench *b, uint64_t now_ms)
{
	b->owed += (double)(now_ms - b->last_ms) * b->rate / 1000;
	if (b->owed > b->rate / 20.0)
		b->owed = b->rate / 20.0; /* the machine is slow: no avalanche */
	for (; b->owed >= 1 && b->left; b->owed--, b->left--) {
		request(b);
		note(b);
	}
}

static void on_turn(struct timer *t, uint64_t now_ms)
{
	struct bench *b = (struct bench *)((char *)t - offsetof(struct bench, turn));
	note(b); /* what the last turn did at its end */
	if (b->method == b->grow)
		grow(b);
	else
		play(b, now_ms);
	b->last_ms = now_ms;
	if (b->left)
		loop_timer(b->loop, t, 0);
	else
		finish(b);
}

/* ---- from an empty heap to the end --------------------------------------------------------------------------------- */

static void open_plain(struct bench *b)
{
	b->L = luaL_newstate();
	luaL_openlibs(b->L);
	lua_settop(b->L, 0);
	need(luaL_dostring(b->L, game) == LUA_OK, "the game does not load");
}

static void open_host(struct bench *b)
{
	struct luahost_options o = { .loop = b->loop,
				     .schema = b->schema,
				     .user = b,
				     .memory_max = (size_t)4 << 30,
				     .texts = b->texts,
				     .gc = b->gc };
	struct luasrc *src = luasrc_of((const char *const[]){ "shopHandler", game, NULL });
	char why[300] = "";
	need(luahost_new(&o, &b->host) == 0, "the host cannot be made");
	need(luahost_load(b->host, src, why, sizeof why) == 0, why);
	luasrc_unref(src);
}

static void begin(void *arg)
{
	struct bench *b = arg;
	if (b->plain)
		open_plain(b);
	else
		open_host(b);
	b->method = b->grow;
	b->left = (uint64_t)b->rate * b->seconds;
	b->last_ms = loop_clock_ms(b->loop);
	b->begun_cpu_ns = b->cpu_ns = cpu_ns();
	b->turn.fire = on_turn;
	loop_timer(b->loop, &b->turn, 1);
}

static void started(struct loop *loop, void *arg)
{
	(void)loop, (void)arg;
}

static void read_schema(struct bench *b)
{
	char *bytes, error[256] = "";
	size_t n;
	need(env_file_load(b->env, "build/tests.desc", 1 << 24, &bytes, &n) == 0,
	     "build/tests.desc cannot be read; run make");
	need(schema_load(bytes, n, error, sizeof error, &b->schema) == 0, error);
	free(bytes);
	b->request = schema_method(b->schema, "sample.shopHandler.items", 24);
	b->grow = schema_method(b->schema, "sample.shopHandler.buy", 22);
	need(b->request && b->grow, "build/tests.desc has no sample.shopHandler");
}

static unsigned mode_of(const char *word)
{
	static const char *const words[] = { "incremental", "generational", "auto" };
	for (unsigned i = 0; i < 3; i++)
		if (!strcmp(words[i], word))
			return i;
	need(false, "--gc: incremental, generational or auto");
	return 0;
}

int main(int argc, char **argv)
{
	struct bench b = { .bytes = 100000000, .rate = 20000, .seconds = 10 };
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--plain"))
			b.plain = true;
		else if (!strcmp(argv[i], "--mb") && i + 1 < argc)
			b.bytes = strtoull(argv[++i], NULL, 10) * 1000000;
		else if (!strcmp(argv[i], "--rate") && i + 1 < argc)
			b.rate = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			b.seconds = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (!strcmp(argv[i], "--texts") && i + 1 < argc)
			b.texts = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (!strcmp(argv[i], "--gc") && i + 1 < argc)
			b.gc = mode_of(argv[++i]);
		else
			need(false,
			     "usage: lua_gc [--plain] [--mb N] [--rate N] [--seconds S] [--gc MODE] [--texts N]");
	}
	b.env = env_new();
	read_schema(&b);
	need(loop_start(b.env, "bench", 0, started, NULL, NULL, &b.loop) == 0, "the loop cannot be started");
	loop_call(b.loop, begin, &b);
	while (!atomic_load(&b.over))
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	loop_stop(b.loop);
	loop_join(b.loop);
	schema_free(b.schema);
	env_free(b.env);
	return 0;
}
