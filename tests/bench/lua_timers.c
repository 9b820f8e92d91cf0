/*
 * lua_timers: a million live timers of scripts in one worker, with periods as monsters' thinking has them (0.5 to 1.5 s),
 * beside the same function called by a million of libevent's timers.
 *
 * turned: the wheel is turned by hand, tick by tick, so that CPU is all there is; each firing runs a Lua function in a
 *         task. libevent's are due within 20 ms, call the same function by lua_pcall and are added again.
 * live:   the same in the worker's real loop for some seconds: CPU, memory, and how late they fire. None fires early.
 *
 * usage: lua_timers [--timers N] [--live SECONDS]        prints one JSON object; CPU time of the thread
 */
#include <event2/event.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/luahost.h"

enum { HEAP_SPREAD_MS = 20, TURNED_MS = 3000 };

struct bench {
	struct env *env;
	struct loop *loop;
	struct luahost *host;
	unsigned timers, live_s;
	double turned_ns, live_percent;
	struct luahost_stats stats;
	_Atomic bool over;
};

static const char script[] =
	"local M, state = {}, state\n"
	"local function think() state.fired = state.fired + 1 end\n"
	"function M.go(n)\n"
	"  state.fired, state.late, state.early = 0, {}, 0\n"
	"  for i = 1, n do clock.every(500 + (i * 7919) % 1001, think) end\n"
	"  for i = 1, 1000 do\n" /* some look at the clock */
	"    local period, from, n = 500 + (i * 7919) % 1001, clock.now_ms(), 0\n"
	"    clock.every(period, function()\n"
	"      local passed = clock.now_ms() - from\n"
	"      n = n + 1\n"
	"      if passed < n * period then state.early = state.early + 1 end\n"
	"      state.late[#state.late + 1] = passed % period\n"
	"    end)\n"
	"  end\n"
	"end\n"
	"function M.told() table.sort(state.late) return state.fired, state.early, state.late[#state.late * 99 // 100] end\n"
	"function M.begin() state.fired, state.late = 0, {} end\n"
	"return M\n";

static void need(bool fine, const char *what)
{
	if (fine)
		return;
	fprintf(stderr, "lua_timers: %s\n", what);
	exit(2);
}

static double cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

struct asked {
	struct luajob job;
	const char *hook;
	lua_Integer argument, result[3];
};

static int push_hook(lua_State *L, struct luajob *job)
{
	struct asked *a = (struct asked *)job;

	need(luahost_push_hook(L, a->hook), "no hook");
	lua_pushinteger(L, a->argument);
	return 1;
}

static void keep(struct luajob *job, const struct luaresult *r)
{
	struct asked *a = (struct asked *)job;

	need(r->err == 0, r->message);
	for (int i = 0; i < r->n && i < 3; i++)
		a->result[i] = lua_tointeger(r->L, r->first + i);
}

static struct asked ask(struct bench *b, const char *hook, lua_Integer argument)
{
	struct asked a = { .job = { .name = "bench", .push = push_hook, .done = keep }, .hook = hook };

	a.argument = argument;
	luatask_start(b->host, &a.job);
	return a;
}

/* As the loop does, tick by tick, with a time of its own. */
static void turn(struct bench *b)
{
	uint64_t ms = b->loop->now_ms;

	ask(b, "begin", 0);
	double from = cpu_ns();

	for (uint64_t until = ms + TURNED_MS; ms < until; ms++) {
		b->loop->now_ms = ms;
		b->loop->now_ns = ms * 1000000;
		wheel_run(b->loop->wheel, ms, UINT32_MAX);
	}
	b->turned_ns = (cpu_ns() - from) / (double)ask(b, "told", 0).result[0];
}

static void make_timers(void *arg)
{
	struct bench *b = arg;
	struct luahost_options o = { .loop = b->loop, .memory_max = (size_t)2 << 30, .budget_ms = 60000 };
	struct luasrc *src = luasrc_of((const char *const[]){ "init", script, NULL });
	char why[300];

	need(luahost_new(&o, &b->host) == 0, "no host");
	need(luahost_load(b->host, src, why, sizeof why) == 0, why);
	luasrc_unref(src);
	ask(b, "go", b->timers);
	atomic_store(&b->over, true);
}

static void begin_live(void *arg)
{
	struct bench *b = arg;

	ask(b, "begin", 0);
	b->live_percent = cpu_ns();
	atomic_store(&b->over, true);
}

static struct asked told;
static void end_live(void *arg)
{
	struct bench *b = arg;

	b->live_percent = (cpu_ns() - b->live_percent) / (b->live_s * 1e7);
	told = ask(b, "told", 0);
	luahost_stats(b->host, &b->stats);
	turn(b); /* last: the loop's own time goes wrong by it */
	luahost_free(b->host);
	atomic_store(&b->over, true);
}

static void wait_over(struct bench *b)
{
	while (!atomic_load(&b->over))
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	atomic_store(&b->over, false);
}

/* ---- libevent --------------------------------------------------------------------------------------------- */

struct heap {
	lua_State *L;
	struct event **e;
	unsigned fired;
};
struct heap_timer {
	struct heap *h;
	struct event *e;
};

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct heap_timer *t = arg;
	struct timeval far = { 60, 0 };

	(void)fd, (void)what;
	lua_pushvalue(t->h->L, 1);
	need(lua_pcall(t->h->L, 0, 0, 0) == LUA_OK, "think");
	t->h->fired++;
	event_add(t->e, &far);
}

static double heap_ns(unsigned n)
{
	struct heap h = { luaL_newstate(), NULL, 0 };
	struct event_base *base = event_base_new();
	struct heap_timer *t = calloc(n, sizeof *t);
	uint64_t seed = 88172645463325252u;

	need(h.L && base && t, "no memory");
	need(luaL_dostring(h.L, "local s = {fired = 0} return function() s.fired = s.fired + 1 end") == LUA_OK,
	     "think");
	for (unsigned i = 0; i < n; i++) {
		struct timeval in = { 0, 0 };

		seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
		in.tv_usec = (long)(1000 + (seed >> 32) % (HEAP_SPREAD_MS * 1000));
		t[i] = (struct heap_timer){ &h, NULL };
		t[i].e = event_new(base, -1, 0, on_event, &t[i]);
		event_add(t[i].e, &in);
	}
	nanosleep(&(struct timespec){ .tv_nsec = (HEAP_SPREAD_MS + 5) * 1000000L }, NULL);
	double from = cpu_ns();

	while (h.fired < n)
		event_base_loop(base, EVLOOP_NONBLOCK);
	from = (cpu_ns() - from) / n;
	for (unsigned i = 0; i < n; i++)
		event_free(t[i].e);
	event_base_free(base);
	lua_close(h.L);
	free(t);
	return from;
}

static void started(struct loop *loop, void *arg)
{
	(void)loop, (void)arg;
}

int main(int argc, char **argv)
{
	struct bench b = { .timers = 1000000, .live_s = 5 };

	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--timers"))
			b.timers = (unsigned)strtoul(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--live"))
			b.live_s = (unsigned)strtoul(argv[i + 1], NULL, 10);
		else
			need(false, "usage: lua_timers [--timers N] [--live SECONDS]");
	}
	b.env = env_new();
	need(loop_start(b.env, "bench", 0, started, NULL, NULL, &b.loop) == 0, "no loop");
	loop_call(b.loop, make_timers, &b);
	wait_over(&b);
	nanosleep(&(struct timespec){ .tv_sec = 2 }, NULL); /* each has fired once, and they are spread */
	loop_call(b.loop, begin_live, &b);
	wait_over(&b);
	nanosleep(&(struct timespec){ .tv_sec = b.live_s }, NULL);
	loop_call(b.loop, end_live, &b);
	wait_over(&b);
	loop_stop(b.loop);
	loop_join(b.loop);
	env_free(b.env);
	printf("{\"timers\":%u,\"turned_ns\":%.1f,\"heap_ns\":%.1f,\"lua_mb\":%.0f,\"live_cpu_percent\":%.1f,\"live_fired\":%lld,"
	       "\"live_early\":%lld,\"live_late_p99_ms\":%lld}\n",
	       b.timers, b.turned_ns, heap_ns(b.timers), (double)b.stats.memory_bytes / 1e6, b.live_percent,
	       (long long)told.result[0], (long long)told.result[1], (long long)told.result[2]);
	return 0;
}
