/*
 * lua_limits: what the limits of a luahost cost a loop that never reaches them, beside the same loop in a bare lua_State
 * with the same allocator; and how long a reload takes that replaces 50 modules on 4 workers, and holds a worker at most.
 *
 * CPU time of the thread, medians of 7, by turns. usage: lua_limits      prints one JSON object
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
#include "common/luamem.h"

enum { SAMPLES = 7, WORKERS = 4, MODULES = 50, FUNCTIONS = 20 };

static const char work[] = "local function area(a) return a.w * a.h end\n"
			   "local function go()\n"
			   "  local sum, list = 0, {}\n"
			   "  for i = 1, 200 do list[i] = { w = i, h = i % 7, name = 'n' .. i } end\n"
			   "  for k = 1, 1500 do\n"
			   "    for i = 1, #list do sum = sum + area(list[i]) end\n"
			   "  end\n"
			   "  for i = 1, 3000 do if ('item-' .. i):sub(6) ~= '' then sum = sum + #tostring(i) end end\n"
			   "  return sum\n"
			   "end\n"
			   "return { go = go }\n";

static void need(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "lua_limits: %s\n", what);
	exit(2);
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, SAMPLES, sizeof *v, by_value);
	return v[SAMPLES / 2];
}

/* ---- the budget --------------------------------------------------------------------------------------------------- */

struct bench {
	struct env *env;
	struct loop *loop[WORKERS];
	struct luahost *host[WORKERS];
	double with_ms, without_ms;
	_Atomic int ended;
};

static int push_go(lua_State *L, struct luajob *job)
{
	(void)job;
	return luahost_push_hook(L, "go") ? 0 : ERR_NOT_FOUND;
}

static void done(struct luajob *job, const struct luaresult *r)
{
	(void)job;
	need(r->err == 0, r->message);
}

static double host_ms(struct luahost *h)
{
	struct luajob job = { .name = "bench", .push = push_go, .done = done };
	uint64_t from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	luatask_start(h, &job);
	return (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / 1e6;
}

static double bare_ms(lua_State *L)
{
	uint64_t from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	lua_getfield(L, 1, "go");
	need(lua_pcall(L, 0, 0, 0) == LUA_OK, "the bare loop failed");
	return (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - from) / 1e6;
}

static void budget(void *arg)
{
	struct bench *b = arg;
	struct luamem mem;
	double with[SAMPLES], without[SAMPLES];
	char why[300] = "";
	struct luasrc *src = luasrc_of((const char *const[]){ "init", work, NULL });

	luamem_init(&mem, SIZE_MAX);
	lua_State *L = lua_newstate(luamem_alloc, &mem);
	luaL_openlibs(L);
	need(luaL_dostring(L, work) == LUA_OK, "the loop does not load");
	need(luahost_load(b->host[0], src, why, sizeof why) == 0, why);
	for (int i = 0; i < SAMPLES; i++) {
		without[i] = bare_ms(L);
		with[i] = host_ms(b->host[0]);
	}
	b->without_ms = median(without);
	b->with_ms = median(with);
	lua_close(L);
	luamem_free(&mem);
	luasrc_unref(src);
	atomic_store(&b->ended, 1);
}

/* ---- a reload ------------------------------------------------------------------------------------------------------ */

static struct luasrc *modules(int version)
{
	static char text[MODULES + 1][FUNCTIONS * 400 + 4000], name[MODULES + 1][20];
	const char *list[2 * MODULES + 3] = { NULL };
	size_t n = 0;

	for (int i = 0; i < MODULES; i++) {
		n = (size_t)snprintf(text[i], sizeof text[i], "local M = { version = %d }\n", version);
		for (int f = 0; f < FUNCTIONS; f++)
			n += (size_t)snprintf(
				text[i] + n, sizeof text[i] - n,
				"function M.f%d(player, item, count)\n"
				"  local bag = player.bag or {}\n"
				"  for slot, held in pairs(bag) do\n"
				"    if held.item == item and held.count + count < 999 then held.count = held.count + count return slot end\n"
				"  end\n"
				"  return nil, \"denied\", (\"no room for %%d of %%s\"):format(count, item)\n"
				"end\n",
				f);
		snprintf(text[i] + n, sizeof text[i] - n, "return M\n");
		snprintf(name[i], sizeof name[i], "module%d", i);
		list[2 * i] = name[i];
		list[2 * i + 1] = text[i];
	}
	n = 0;
	for (int i = 0; i < MODULES; i++)
		n += (size_t)snprintf(text[MODULES] + n, sizeof text[MODULES] - n, "local m%d = require \"module%d\"\n",
				      i, i);
	snprintf(text[MODULES] + n, sizeof text[MODULES] - n, "return { version = m0.version }\n");
	list[2 * MODULES] = "init";
	list[2 * MODULES + 1] = text[MODULES];
	return luasrc_of(list);
}

struct part { /* one worker's */
	struct luahost *host;
	struct loop *loop;
	struct luasrc *src;
	bool begun;
	uint64_t held_ns; /* the longest piece */
	char why[300];
	_Atomic int done;
};

static void piece(struct part *p, int (*fn)(struct part *p), int *err)
{
	uint64_t from = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	*err = fn(p);
	uint64_t took = clock_ns(CLOCK_THREAD_CPUTIME_ID) - from;
	if (took > p->held_ns)
		p->held_ns = took;
	need(*err >= 0, p->why);
}

static int prepare(struct part *p)
{
	if (p->begun)
		return luahost_prepare_step(p->host, p->why, sizeof p->why);
	p->begun = true;
	int err = luahost_prepare_begin(p->host, p->src, p->why, sizeof p->why);
	return err < 0 ? err : 1;
}

static void on_prepare(void *arg)
{
	struct part *p = arg;
	int err;
	piece(p, prepare, &err);
	if (err == 1)
		loop_call(p->loop, on_prepare, p);
	else
		atomic_store(&p->done, 1);
}

static int change(struct part *p)
{
	return luahost_switch(p->host, p->why, sizeof p->why);
}

static void on_switch(void *arg)
{
	int err;
	piece(arg, change, &err);
	atomic_store(&((struct part *)arg)->done, 2);
}

static void wait_all(struct part *part, int done)
{
	for (int i = 0; i < WORKERS; i++)
		while (atomic_load(&part[i].done) < done)
			nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
}

struct trial {
	struct loop *loop;
	struct luasrc *src;
	_Atomic int done;
};

static void on_trial(void *arg) /* as the control thread does it */
{
	struct trial *t = arg;
	struct luahost_options o = { .loop = t->loop, .trial = true };
	struct luahost *h;
	char why[300] = "";
	need(luahost_new(&o, &h) == 0 && luahost_check(h, t->src, why, sizeof why) == 0, why);
	luahost_free(h);
	atomic_store(&t->done, 1);
}

static double reload_ms(struct bench *b, struct loop *control, int version, double *held_ms)
{
	struct part part[WORKERS] = { 0 };
	struct trial trial = { .loop = control, .src = modules(version) };
	uint64_t from = clock_ns(CLOCK_MONOTONIC);

	loop_call(control, on_trial, &trial);
	while (!atomic_load(&trial.done))
		nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
	for (int i = 0; i < WORKERS; i++) {
		part[i].host = b->host[i];
		part[i].loop = b->loop[i];
		part[i].src = trial.src;
		loop_call(b->loop[i], on_prepare, &part[i]);
	}
	wait_all(part, 1);
	for (int i = 0; i < WORKERS; i++)
		loop_call(b->loop[i], on_switch, &part[i]);
	wait_all(part, 2);
	double took = (double)(clock_ns(CLOCK_MONOTONIC) - from) / 1e6;
	for (int i = 0; i < WORKERS; i++)
		if ((double)part[i].held_ns / 1e6 > *held_ms)
			*held_ms = (double)part[i].held_ns / 1e6;
	luasrc_unref(trial.src);
	return took;
}

static void started(struct loop *loop, void *arg)
{
	struct luahost_options o = { .loop = loop };
	struct luahost **host = arg;
	if (host)
		need(luahost_new(&o, host) == 0, "a host cannot be made");
}

static void stopped(struct loop *loop, void *arg)
{
	struct luahost **host = arg;
	(void)loop;
	if (host)
		luahost_free(*host);
}

int main(void)
{
	struct bench b = { .env = env_new() };
	struct loop *control;
	double took[SAMPLES], held = 0, worst[SAMPLES];

	for (int i = 0; i < WORKERS; i++)
		need(loop_start(b.env, "worker", (unsigned)i, started, stopped, &b.host[i], &b.loop[i]) == 0,
		     "no loop");
	need(loop_start(b.env, "control", WORKERS, started, NULL, NULL, &control) == 0, "no loop");
	loop_call(b.loop[0], budget, &b);
	while (!atomic_load(&b.ended))
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	for (int i = 0; i < SAMPLES; i++) {
		held = 0;
		took[i] = reload_ms(&b, control, i, &held);
		worst[i] = held;
	}
	printf("{\"with_ms\":%.3f,\"without_ms\":%.3f,\"reload_ms\":%.3f,\"held_ms\":%.3f}\n", b.with_ms, b.without_ms,
	       median(took), median(worst));
	for (int i = 0; i < WORKERS; i++) {
		loop_stop(b.loop[i]);
		loop_join(b.loop[i]);
	}
	loop_stop(control);
	loop_join(control);
	env_free(b.env);
	return 0;
}
