/* The library clock: timers that run functions in tasks, and sleeping. */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "common/cron.h"
#include "common/err.h"
#include "common/luahost_private.h"

#define CRON_LOOK_MS 3600000 /* the wall clock may be set: it is looked at so often */
#define FULL_WAIT_MS 100     /* when there are too many tasks to call a function that is called once */
#define TIMERS_MAX   4000000 /* of a worker's scripts: they are not in Lua's memory */
#define MS_MAX       (INT64_C(1000) * 3600 * 24 * 366) /* a year */

static const char handle_type[] = "loquat.timer";

struct luacron {
	struct cron times;
	int64_t next_s; /* the wall clock's second that is waited for */
};

/*
 * One timer, in one line of the cache, for there may be a million. It lives while it runs or while its function does; the
 * script's handle only points here. A sleeper is a timer that wakes a task instead.
 */
struct luatimer {
	struct timer timer; /* due_ms also when it has fired */
	struct luahost *host;
	struct luatimer **handle; /* the script's userdata; NULL: collected */
	union {
		uint64_t period_ms;   /* EVERY */
		struct luacron *cron; /* CRON */
		uint64_t task;        /* SLEEPER */
		struct luatimer *next_free;
	};
	int fn; /* registry: function, or its name; with arguments a list of it, them and, at 0, how many they are */
	enum { FREE, AFTER, EVERY, CRON, SLEEPER } kind : 8;
	bool busy : 1, named : 1, with : 1, cancelled : 1; /* with arguments */
};
_Static_assert(sizeof(struct luatimer) == 64, "a line of the cache");

/* Timers come in pieces, each twice as large as the one before, up to a large page of the system. */
enum { CHUNK_FIRST = 16 << 10, CHUNK_MAX = 2 << 20 };
struct luatimer_chunk {
	struct luatimer_chunk *next;
	size_t bytes, used, timers;
	_Alignas(64) struct luatimer timer[];
};

/* The call of a timer's function; few are under way at once. */
struct luatimer_call {
	struct luajob job;
	struct luatimer *timer;
	struct luatimer_call *next_free;
};

static struct luatimer_chunk *add_chunk(struct luahost *h)
{
	struct luatimer_chunk *last = h->timer_chunks, *c;
	size_t bytes = !last ? CHUNK_FIRST : last->bytes < CHUNK_MAX ? last->bytes * 2 : CHUNK_MAX;
	c = bytes < CHUNK_MAX ? aligned_alloc(64, bytes) : env_memory(h->o.loop->env, bytes);
	if (!c)
		abort();
	c->next = last;
	c->bytes = bytes;
	c->used = 0;
	c->timers = (bytes - sizeof *c) / sizeof *c->timer;
	return h->timer_chunks = c;
}

static struct luatimer *new_timer(struct luahost *h)
{
	struct luatimer_chunk *c = h->timer_chunks;
	struct luatimer *t = h->timer_free;
	if (t) {
		h->timer_free = t->next_free;
	} else {
		if (!c || c->used == c->timers)
			c = add_chunk(h);
		t = &c->timer[c->used++];
	}
	*t = (struct luatimer){ .host = h, .fn = LUA_NOREF };
	return t;
}

static void free_timer(struct luatimer *t)
{
	struct luahost *h = t->host;
	if (t->handle)
		*t->handle = NULL;
	h->stats.timers -= t->kind != SLEEPER;
	loop_timer_stop(h->o.loop, &t->timer);
	luaL_unref(h->L, LUA_REGISTRYINDEX, t->fn);
	if (t->kind == CRON)
		free(t->cron);
	t->kind = FREE;
	t->next_free = h->timer_free;
	h->timer_free = t;
}

void luahost_free_timers(struct luahost *h)
{
	for (struct luatimer_chunk *c; (c = h->timer_chunks);) {
		for (size_t i = 0; i < c->used; i++)
			if (c->timer[i].kind != FREE)
				free_timer(&c->timer[i]);
		h->timer_chunks = c->next;
		if (c->bytes < CHUNK_MAX)
			free(c);
		else
			env_memory_free(h->o.loop->env, c, c->bytes);
	}
	h->timer_free = NULL;
	for (struct luatimer_call *c; (c = h->timer_calls); free(c))
		h->timer_calls = c->next_free;
}

/* ---- firing --------------------------------------------------------------------------------------------- */

static void push_function(lua_State *L, const struct luatimer *t)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, t->fn);
	if (!t->with)
		return;
	lua_rawgeti(L, -1, 1);
	lua_remove(L, -2);
}

static int push_arguments(lua_State *L, const struct luatimer *t)
{
	if (!t->with)
		return 0;
	lua_rawgeti(L, LUA_REGISTRYINDEX, t->fn);
	int list = lua_gettop(L);
	lua_rawgeti(L, list, 0);
	int n = (int)lua_tointeger(L, -1);
	lua_pop(L, 1);
	luaL_checkstack(L, n, "timer");
	for (int i = 1; i <= n; i++)
		lua_rawgeti(L, list, 1 + i);
	lua_remove(L, list);
	return n;
}

static int push_call(lua_State *L, struct luajob *job)
{
	const struct luatimer *t = ((struct luatimer_call *)job)->timer;
	size_t n;
	push_function(L, t);
	if (t->named) {
		const char *name = lua_tolstring(L, -1, &n);
		if (!luahost_push_module_function(L, name, n))
			return luaL_error(L, "timer: there is no function %s in the code of now", name);
		lua_remove(L, -2);
	}
	return push_arguments(L, t);
}

static void on_done(struct luajob *job, const struct luaresult *r)
{
	struct luatimer_call *call = (struct luatimer_call *)job;
	struct luatimer *t = call->timer;
	call->next_free = t->host->timer_calls;
	t->host->timer_calls = call;
	t->busy = false;
	if (r->err == ERR_BUSY && t->kind == AFTER && !t->cancelled) {
		loop_timer(t->host->o.loop, &t->timer, FULL_WAIT_MS);
		return;
	}
	/* it would take the whole thread, call by call */
	if (r->err == ERR_FAILED && strstr(r->message, LUAHOST_OVER_BUDGET))
		t->cancelled = true;
	if (t->cancelled || t->kind == AFTER)
		free_timer(t); /* an error has been logged */
}

static void call_function(struct luatimer *t)
{
	struct luahost *h = t->host;
	struct luatimer_call *call = h->timer_calls;
	if (call)
		h->timer_calls = call->next_free;
	else if (!(call = malloc(sizeof *call)))
		abort();
	*call = (struct luatimer_call){ .job = { .name = "timer", .fn = t->fn, .done = on_done }, .timer = t };
	if (t->named || t->with)
		call->job.push = push_call;
	t->busy = true;
	luatask_start(h, &call->job);
}

/* Multiples of the period from the first due time on, so that it does not drift; missed ones are left out. */
static void arm_again(struct luatimer *t, uint64_t now_ms)
{
	uint64_t due_ms = t->timer.due_ms;
	do
		due_ms += t->period_ms;
	while (due_ms <= now_ms);
	wheel_start(t->host->o.loop->wheel, &t->timer, due_ms);
}

static int64_t wall_ms(const struct luatimer *t)
{
	return (int64_t)(env_wall_us(t->host->o.loop->env) / 1000);
}

static void arm_cron(struct luatimer *t)
{
	int64_t left = t->cron->next_s * 1000 - wall_ms(t);
	loop_timer(t->host->o.loop, &t->timer, left < 0 ? 0 : left > CRON_LOOK_MS ? CRON_LOOK_MS : (uint64_t)left);
}

/* False: its time has not come yet. What it missed while the clock was set on is left out. */
static bool cron_is_due(struct luatimer *t)
{
	struct luacron *c = t->cron;
	int64_t now_s = wall_ms(t) / 1000;
	bool due = now_s >= c->next_s;
	if (due || cron_next(&c->times, now_s) < c->next_s) /* the clock was set back */
		c->next_s = cron_next(&c->times, now_s);
	arm_cron(t);
	return due;
}

void luahost_clock_was_set(struct luahost *h)
{
	for (struct luatimer_chunk *c = h->timer_chunks; c; c = c->next)
		for (size_t i = 0; i < c->used; i++) {
			struct luatimer *t = &c->timer[i];
			if (t->kind != CRON || t->cancelled)
				continue;
			t->cron->next_s = cron_next(&t->cron->times, wall_ms(t) / 1000);
			arm_cron(t);
		}
}

static void on_fire(struct timer *timer, uint64_t now_ms)
{
	struct luatimer *t = (struct luatimer *)timer;
	if (t->kind == CRON && !cron_is_due(t))
		return;
	if (t->kind == EVERY)
		arm_again(t, now_ms);
	if (!t->busy) /* the last call may not be over: one is skipped */
		call_function(t);
}

static void on_wake(struct timer *timer, uint64_t now_ms)
{
	struct luatimer *t = (struct luatimer *)timer;
	struct luahost *h = t->host;
	uint64_t task = t->task;
	(void)now_ms;
	free_timer(t);
	luatask_resume(h, task, NULL, NULL);
}

/* ---- what scripts call ------------------------------------------------------------------------------------ */

static uint64_t check_ms(lua_State *L, int index, int64_t least)
{
	lua_Number ms = luaL_checknumber(L, index);
	if (!(ms >= (double)least && ms <= (double)MS_MAX))
		luaL_argerror(L, index, least ? "milliseconds from 1 to a year" : "milliseconds from 0 to a year");
	return (uint64_t)ms + ((double)(uint64_t)ms < ms);
}

/* The handle on top is on_reload's, which may have to give way again: luahost_cancel_made. */
static void note_made(lua_State *L, struct luahost *h)
{
	if (h->made == LUA_NOREF) {
		lua_newtable(L);
		h->made = luaL_ref(L, LUA_REGISTRYINDEX);
	}
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->made);
	lua_pushvalue(L, -2);
	lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
	lua_pop(L, 1);
}

/* What is to be called with what stands behind it: leaves the function, or its name, or the list of all on top. */
static bool gather(lua_State *L)
{
	int n = lua_gettop(L) - 2;
	if (n <= 0) {
		lua_settop(L, 2);
		lua_pushvalue(L, 2);
		return false;
	}
	lua_createtable(L, n + 1, 1);
	lua_pushinteger(L, n);
	lua_rawseti(L, -2, 0);
	for (int i = 0; i <= n; i++) {
		lua_pushvalue(L, 2 + i);
		lua_rawseti(L, -2, 1 + i);
	}
	return true;
}

/* Now, for later nobody knows any more who has asked for it. */
static void check_function(lua_State *L)
{
	int top = lua_gettop(L);
	const char *trouble;
	if (lua_type(L, 2) != LUA_TSTRING)
		luaL_checktype(L, 2, LUA_TFUNCTION);
	else if ((trouble = luahost_function_trouble(L, lua_tostring(L, 2))))
		luaL_argerror(L, 2, trouble);
	lua_settop(L, top);
}

/*
 * Of the function at index 2, or of "module.function", which is looked up anew each time, so that a reload takes effect.
 * Its handle is left on the stack.
 */
static struct luatimer *make(lua_State *L)
{
	struct luahost *h = luahost_of(L);
	check_function(L);
	if (h->stats.timers >= TIMERS_MAX)
		luaL_error(L, "more than %d timers", TIMERS_MAX);
	if (!luahost_current(h))
		luaL_error(L, "timers are started by what runs, such as init_service, not while a file is loaded");
	bool with = gather(L);
	struct luatimer **handle = lua_newuserdatauv(L, sizeof *handle, 0);
	*handle = NULL;
	luaL_setmetatable(L, handle_type);
	if (h->switching)
		note_made(L, h);
	lua_pushvalue(L, -2);
	int fn = luaL_ref(L, LUA_REGISTRYINDEX);
	struct luatimer *t = *handle = new_timer(h);
	t->handle = handle;
	t->fn = fn;
	t->named = lua_type(L, 2) == LUA_TSTRING;
	t->with = with;
	t->timer.fire = on_fire;
	h->stats.timers++;
	return t;
}

static int start(lua_State *L, bool again)
{
	uint64_t ms = check_ms(L, 1, again ? 1 : 0);
	struct luatimer *t = make(L);
	struct loop *loop = t->host->o.loop;
	t->kind = again ? EVERY : AFTER;
	t->period_ms = ms;
	loop_clock_ms(loop); /* the script may have computed for long in this turn */
	loop_timer(loop, &t->timer, ms);
	return 1;
}

/* clock.after(ms, fn, …): calls fn(…) once; clock.every(ms, fn, …): again and again. Both return a timer to cancel. */
static int l_after(lua_State *L)
{
	return start(L, false);
}

static int l_every(lua_State *L)
{
	return start(L, true);
}

/* clock.cron("0 5 * * *", fn, …): at these times of the wall clock, UTC. */
static int l_cron(lua_State *L)
{
	struct luacron c;
	char why[128];
	if (cron_parse(luaL_checkstring(L, 1), &c.times, why, sizeof why) < 0)
		luaL_argerror(L, 1, why);
	struct luatimer *t = make(L);
	struct luacron *cron = malloc(sizeof *cron);
	if (!cron)
		abort();
	c.next_s = cron_next(&c.times, wall_ms(t) / 1000);
	*cron = c;
	t->kind = CRON;
	t->cron = cron;
	arm_cron(t);
	return 1;
}

static void cancel(struct luatimer *t)
{
	if (!t)
		return;
	t->cancelled = true;
	loop_timer_stop(t->host->o.loop, &t->timer);
	if (!t->busy)
		free_timer(t);
}

/* timer:cancel(): true if it was running. A call of fn under way goes on. */
static int l_cancel(lua_State *L)
{
	struct luatimer **handle = luaL_checkudata(L, 1, handle_type), *t = *handle;
	lua_pushboolean(L, t && !t->cancelled && timer_running(&t->timer));
	cancel(t);
	return 1;
}

int luahost_cancel_made(lua_State *L, void *unused)
{
	struct luahost *h = luahost_of(L);
	(void)unused;
	if (h->made == LUA_NOREF)
		return 0;
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->made);
	for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, 1); i <= n; i++) {
		lua_rawgeti(L, 1, i);
		cancel(*(struct luatimer **)lua_touserdata(L, 2));
		lua_settop(L, 1);
	}
	return 0;
}

static int forget_handle(lua_State *L)
{
	struct luatimer **handle = lua_touserdata(L, 1);
	if (*handle)
		(*handle)->handle = NULL;
	*handle = NULL;
	return 0;
}

/* clock.sleep(ms). Yields. */
static int l_sleep(lua_State *L)
{
	struct luahost *h = luahost_of(L);
	if (h->o.may_sleep)
		h->o.may_sleep(L);
	uint64_t ms = check_ms(L, 1, 0);
	luahost_wake_after(h, luatask_wait(L), ms);
	return luatask_yield(L);
}

void luahost_wake_after(struct luahost *h, uint64_t task, uint64_t ms)
{
	struct luatimer *t = new_timer(h);
	t->kind = SLEEPER;
	t->task = task;
	t->timer.fire = on_wake;
	loop_clock_ms(h->o.loop);
	loop_timer(h->o.loop, &t->timer, ms);
}

/* ---- for operators ------------------------------------------------------------------------------------------ */

static void push_what(lua_State *L, const struct luatimer *t)
{
	lua_Debug ar;
	if (t->kind == SLEEPER) {
		lua_pushliteral(L, "a task that sleeps");
		return;
	}
	push_function(L, t);
	if (lua_type(L, -1) == LUA_TFUNCTION) {
		lua_getinfo(L, ">S", &ar);
		lua_pushfstring(L, "%s:%d", ar.short_src, ar.linedefined);
	}
}

static void push_timer(lua_State *L, const struct luatimer *t, uint64_t now_ms)
{
	lua_createtable(L, 0, 3);
	lua_pushinteger(L, t->timer.due_ms > now_ms ? (lua_Integer)(t->timer.due_ms - now_ms) : 0);
	lua_setfield(L, -2, "due_ms");
	lua_pushinteger(L, t->kind == EVERY ? (lua_Integer)t->period_ms : 0);
	lua_setfield(L, -2, "period_ms");
	push_what(L, t);
	lua_setfield(L, -2, "what");
}

enum { TIMERS_SHOWN = 10000 };

int luahost_l_timers(lua_State *L)
{
	const struct luahost *h = luahost_of(L);
	int n = 0;
	lua_newtable(L);
	for (const struct luatimer_chunk *c = h->timer_chunks; c && n < TIMERS_SHOWN; c = c->next)
		for (size_t i = 0; i < c->used && n < TIMERS_SHOWN; i++) {
			if (c->timer[i].kind == FREE || !timer_running(&c->timer[i].timer))
				continue;
			push_timer(L, &c->timer[i], h->o.loop->now_ms);
			lua_rawseti(L, -2, ++n);
		}
	return 1;
}

/* clock.now_ms(): a clock that never goes back; clock.wall_ms(): since 1970, UTC. */
static int l_now(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)(env_mono_ns(luahost_of(L)->o.loop->env) / 1000000));
	return 1;
}

static int l_wall(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)(env_wall_us(luahost_of(L)->o.loop->env) / 1000));
	return 1;
}

int luahost_clock_lib(lua_State *L)
{
	static const luaL_Reg functions[] = { { "after", l_after }, { "every", l_every }, { "sleep", l_sleep },
					      { "cron", l_cron },   { "now_ms", l_now },  { "wall_ms", l_wall },
					      { NULL, NULL } };
	static const luaL_Reg methods[] = { { "cancel", l_cancel }, { NULL, NULL } };
	luaL_newmetatable(L, handle_type);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, forget_handle);
	lua_setfield(L, -2, "__gc");
	lua_pop(L, 1);
	luaL_newlib(L, functions);
	return 1;
}
