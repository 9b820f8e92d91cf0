/* The life of a host, protected calls, the budget. */
#include "common/luahost.h"

#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/lua_msg.h"
#include "common/luahost_private.h"

enum {
	MEMORY_DEFAULT = 256 << 20,
	BUDGET_DEFAULT_MS = 1000,
	TASKS_DEFAULT = 100000,
	COUNT = 10000,               /* instructions between two looks, where they are counted */
	INSTRUCTIONS_PER_MS = 50000, /* about what this kind of machine does */
	LATE_NS = 5000000,           /* between two looks: the thread has not just been waiting for a processor */
};

struct luahost *luahost_of(lua_State *L)
{
	return luahost_ctx(L)->host;
}

/* ---- the budget ----------------------------------------------------------------------------------------- */

static void set_count_hook(struct luahost *h, lua_State *L);

uint32_t luahost_rare_ms(const struct luahost *h)
{
	return h->o.budget_ms > LUAHOST_RARE_MS ? h->o.budget_ms : LUAHOST_RARE_MS;
}

/* Of what runs: not more than that of who started it, and is waiting for it. Also in the signal handler. */
static uint32_t budget_ms(const struct luahost *h, const struct luarun *r)
{
	uint32_t least = UINT32_MAX;
	for (; r; r = r->outer) {
		if (!r->task)
			continue;
		uint32_t ms = r->task->job->budget_ms ? r->task->job->budget_ms : h->o.budget_ms;
		least = ms < least ? ms : least;
	}
	return least < UINT32_MAX ? least : luahost_rare_ms(h);
}

/*
 * In a task's own coroutine, where nothing of C's lies between: it is left where it stands, past every pcall, by a yield that
 * nobody resumes, so that its variables can still be closed. A hook may yield between two instructions only. False: not here.
 */
static bool leave_task(struct luahost *h, lua_State *L, const lua_Debug *ar)
{
	struct luatask *t = luahost_ctx(L)->task;
	if (!ar || !t || luahost_run(h) != &t->run || !lua_isyieldable(L))
		return false;
	if (ar->event != LUA_HOOKCOUNT)
		return true; /* the next instruction is near */
	h->stopped = L;      /* as elsewhere, should there be no memory to say where */
	luaL_where(L, 0);
	snprintf(h->stop_text, sizeof h->stop_text, "%s" LUAHOST_OVER_BUDGET " of %d ms", lua_tostring(L, -1),
		 (int)budget_ms(h, luahost_run(h)));
	t->unusual |= LUATASK_STOPPED;
	h->stopped = NULL; /* its hooks are on, or this would not be one */
	lua_yield(L, 0);
	return true;
}

/* Elsewhere it raises at every instruction until the task has ended, so that pcall cannot hold it up. */
static void on_over(lua_State *L, lua_Debug *ar)
{
	struct luahost *h = luahost_of(L);
	if (!h->over) {
		set_count_hook(h, L); /* a coroutine that outlived the task it was stopped in */
		return;
	}
	if (leave_task(h, L, ar))
		return;
	if (ar)
		h->stopped = L;
	luaL_where(L, 0); /* in a hook, level 0 is the function that runs; "" in a C function */
	if (!*lua_tostring(L, -1))
		luaL_where(L, 1);
	lua_pushfstring(L, LUAHOST_OVER_BUDGET " of %d ms", (int)budget_ms(h, luahost_run(h)));
	lua_concat(L, 2);
	lua_error(L);
}

/* Where instructions are counted. True: the budget is used up, just now. */
static bool count(struct luahost *h, lua_State *L, uint32_t n)
{
	uint64_t turn = atomic_load_explicit(&h->turn, memory_order_relaxed);
	h->instructions = h->instructions_turn == turn ? h->instructions + n : n;
	h->instructions_turn = turn;
	if (h->instructions < budget_ms(h, luahost_run(h)) * (uint64_t)INSTRUCTIONS_PER_MS)
		return false;
	h->over = h->attention = 1;
	lua_sethook(L, on_over, LUA_MASKCOUNT, 1);
	return true;
}

static void on_count(lua_State *L, lua_Debug *ar)
{
	if (count(luahost_of(L), L, COUNT))
		on_over(L, ar);
}

void luahost_spend(lua_State *L, uint32_t steps)
{
	struct luahost *h = luahost_of(L);
	if (h->over || (h->counting && count(h, L, steps)))
		on_over(L, NULL);
}

static void set_count_hook(struct luahost *h, lua_State *L)
{
	if (h->counting)
		lua_sethook(L, on_count, LUA_MASKCOUNT, COUNT);
	else
		lua_sethook(L, NULL, 0, 0);
}

static uint64_t held_ns(const struct luahost *h)
{
	return env_loop_cpu_ns(h->o.loop->ev) - atomic_load_explicit(&h->watch.since_ns, memory_order_relaxed);
}

/* In a signal handler on the worker's own thread; lua_sethook may be called there. */
static void on_interrupt(void *arg)
{
	struct luahost *h = arg;
	const struct luarun *r = luahost_run(h);
	uint64_t turn = atomic_load_explicit(&h->turn, memory_order_relaxed);
	if (!r || turn != atomic_load_explicit(&h->interrupted, memory_order_relaxed))
		return; /* it ended meanwhile */
	h->late = h->attention = 1;
	if (held_ns(h) < budget_ms(h, r) * UINT64_C(1000000))
		return;
	h->over = 1;
	lua_sethook(r->L, on_over, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

/* Whose budget it is only the worker knows: it is asked at each look from the second on, if it has computed in between. */
bool luahost_watch(struct luahost *h)
{
	if (h->counting)
		return false;
	uint64_t now = env_loop_cpu_ns(h->o.loop->ev), turn = 0;
	if (luahost_run(h))
		turn = atomic_load_explicit(&h->turn, memory_order_relaxed);
	if (!turn || turn != h->watch.turn) {
		h->watch.turn = turn;
		if (turn)
			atomic_store_explicit(&h->watch.since_ns, now, memory_order_relaxed);
		return true;
	}
	if (held_ns(h) < LATE_NS)
		return true;
	atomic_store_explicit(&h->interrupted, turn, memory_order_relaxed);
	env_loop_interrupt(h->o.loop->ev, on_interrupt, h); /* ERR_BUSY: the last one has not come through yet */
	return true;
}

/* Of processor time, since the watch saw it begin. Where steps are counted the budget stands for it. */
static uint32_t held_ms(const struct luahost *h, const struct luarun *r)
{
	return h->counting ? budget_ms(h, r) : (uint32_t)(held_ns(h) / 1000000) + 1;
}

static void end_over(struct luahost *h, const struct luarun *r)
{
	set_count_hook(h, r->L);
	if (r->outer)
		return;
	h->over = 0;
	h->stats.over_budget++;
}

void luahost_attend(struct luahost *h, const struct luarun *r)
{
	h->attention = 0; /* first: a signal that comes in between sets it again */
	if (h->sampling)
		luahost_profile_give_up(h, r->L);
	if (h->over || (h->late && !r->outer))
		h->held_ms = held_ms(h, r);
	if (!r->outer) {
		h->late = 0;
		luahost_turn_end(h);
	}
	if (h->over)
		end_over(h, r);
	if (h->over | h->late | h->sampling | !h->gc.turn_end.queued)
		h->attention = 1;
}

void luahost_spread(struct luahost *h, lua_State *L)
{
	if (h->over)
		lua_sethook(L, on_over, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

/* ---- life ----------------------------------------------------------------------------------------------- */

/* A part of the memory is kept for saying that the rest is used up. */
void luahost_raise_limit(struct luahost *h, bool raised)
{
	size_t max = h->o.memory_max;
	h->mem.max = raised ? max : max - max / 16;
}

/* Collected once per cycle: counts it and makes the next of its kind. */
static int on_cycle(lua_State *L)
{
	struct luahost *h = luahost_of(L);
	h->stats.gc_cycles++;
	lua_newuserdatauv(L, 0, 0);
	lua_getmetatable(L, 1);
	lua_setmetatable(L, -2);
	return 0;
}

static void count_cycles(lua_State *L)
{
	lua_newuserdatauv(L, 0, 0);
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, on_cycle);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	lua_pop(L, 1);
}

static int open_state(lua_State *L, void *arg)
{
	struct luahost *h = arg;
	lua_msg_open(L, h->o.schema, &h->root.msg);
	count_cycles(L);
	lua_newtable(L);
	luahost_open_libraries(L);
	h->base = luaL_ref(L, LUA_REGISTRYINDEX);
	return 0;
}

int luahost_new(const struct luahost_options *o, struct luahost **out)
{
	struct luahost *h = aligned_alloc(_Alignof(struct luahost), sizeof *h);
	if (!h)
		return ERR_NOMEM;
	memset(h, 0, sizeof *h);
	h->o = *o;
	if (!h->o.memory_max)
		h->o.memory_max = MEMORY_DEFAULT;
	if (!h->o.budget_ms)
		h->o.budget_ms = BUDGET_DEFAULT_MS;
	if (!h->o.tasks_max)
		h->o.tasks_max = TASKS_DEFAULT;
	luamem_init(&h->mem, 0);
	luahost_raise_limit(h, false);
	h->kept = h->made = LUA_NOREF;
	h->attention = 1;
	h->counting = o->trial || env_loop_interrupt(o->loop->ev, NULL, NULL) < 0;
	h->root.host = h;
	luahost_metrics_open(h);
	if (!(h->L = lua_newstate(luamem_alloc, &h->mem))) {
		luahost_free(h);
		return ERR_NOMEM;
	}
	struct luactx *root = &h->root;
	memcpy(lua_getextraspace(h->L), &root, sizeof root); /* new coroutines start with a copy */
	set_count_hook(h, h->L);
	int err = luahost_protected(h, open_state, h);
	if (err == 0 && o->texts)
		err = luahost_gc_room(h, o->texts);
	if (err == 0)
		luahost_gc_open(h);
	if (err < 0) {
		luahost_free(h);
		return err;
	}
	*out = h;
	return 0;
}

void luahost_free(struct luahost *h)
{
	if (!h)
		return;
	assert(!luahost_current(h));
	h->closing = true;
	h->o.tasks_max = 0;
	h->ready = h->pool = h->bare = NULL;
	loop_timer_stop(h->o.loop, &h->slow);
	loop_defer_not(h->o.loop, &h->gc.turn_end);
	if (h->L) {
		luahost_end_tasks(h);
		luahost_free_timers(h);
		luahost_drop_code(h, &h->next);
		luahost_drop_code(h, &h->previous);
		luahost_drop_code(h, &h->code);
		lua_close(h->L);
	}
	luahost_free_tasks(h);
	luamem_free(&h->mem);
	free(h);
}

lua_State *luahost_state(struct luahost *h)
{
	return h->L;
}

void *luahost_user(struct luahost *h)
{
	return h->o.user;
}

struct loop *luahost_loop(struct luahost *h)
{
	return h->o.loop;
}

/* ---- protected calls ------------------------------------------------------------------------------------- */

struct protected
{
	int (*fn)(lua_State * L, void *arg);
	void *arg;
};

static int run_protected(lua_State *L)
{
	struct protected *p = lua_touserdata(L, 1);
	lua_settop(L, 0);
	p->fn(L, p->arg);
	return 0;
}

static int tell_failure(struct luahost *h, int status, char *error, size_t error_size)
{
	char shown[LUAHOST_MESSAGE_MAX];
	const char *text = shown;
	if (lua_type(h->L, -1) == LUA_TSTRING)
		text = lua_tostring(h->L, -1);
	else
		luahost_error_text(h, h->L, shown, sizeof shown);
	if (status == LUA_ERRMEM)
		h->stats.out_of_memory++;
	if (error)
		snprintf(error, error_size, "%s", text);
	else if (h->o.log)
		log_error(h->o.log, "lua.error", "task=none error=%s", text);
	return status == LUA_ERRMEM ? ERR_NOMEM : ERR_FAILED;
}

int luahost_try(struct luahost *h, int (*fn)(lua_State *L, void *arg), void *arg, char *error, size_t error_size)
{
	struct protected p = { fn, arg };
	lua_State *L = h->L;
	if (!lua_checkstack(L, 3))
		return ERR_NOMEM;
	struct luarun r;
	luahost_enter(h, &r, L);
	lua_pushcfunction(L, run_protected);
	lua_pushlightuserdata(L, &p);
	int status = lua_pcall(L, 1, 0, 0), err = 0;
	luahost_leave(h, &r);
	h->held_ms = 0; /* nobody asks */
	if (status != LUA_OK) {
		err = tell_failure(h, status, error, error_size);
		lua_pop(L, 1);
	}
	return err;
}

int luahost_protected(struct luahost *h, int (*fn)(lua_State *L, void *arg), void *arg)
{
	return luahost_try(h, fn, arg, NULL, 0);
}

int luahost_reserved(struct luahost *h, int (*fn)(lua_State *L, void *arg), void *arg)
{
	luahost_raise_limit(h, true);
	int err = luahost_protected(h, fn, arg);
	luahost_raise_limit(h, false);
	return err;
}

struct library {
	const char *name;
	lua_CFunction open;
};

static int add_library(lua_State *L, void *arg)
{
	struct library *l = arg;
	lua_rawgeti(L, LUA_REGISTRYINDEX, luahost_of(L)->base);
	lua_pushstring(L, l->name);
	lua_pushcfunction(L, l->open);
	lua_call(L, 0, 1);
	lua_rawset(L, -3);
	return 0;
}

int luahost_library(struct luahost *h, const char *name, lua_CFunction open)
{
	struct library l = { name, open };
	return luahost_protected(h, add_library, &l);
}

void luahost_stats(struct luahost *h, struct luahost_stats *out)
{
	*out = h->stats;
	out->started = h->started;
	out->tasks = luahost_tasks(h);
	out->memory_bytes = h->mem.used;
	out->memory_peak_bytes = h->mem.peak;
	out->memory_max = h->o.memory_max;
	out->gc_pause_p99_us = hist_quantile_ns(&h->gc.pauses, 0.99) / 1000;
	out->gc_pause_max_us = h->gc.pauses.max_ns / 1000;
	out->gc_generational = h->gc.generational;
}
