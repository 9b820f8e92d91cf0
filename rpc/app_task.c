#include <lauxlib.h>
#include <string.h>
#include "rpc/app_private.h"

/* app.task, app.wait, app.wake: tasks that scripts start, and what wakes them. */

void app_check_may_wait(lua_State *L)
{
	struct app_job *j = app_job_of(L);

	if (j && (j->n_changes || (j->recording && j->record.statements)))
		app_raise(
			L,
			"changes are collected: nothing may wait between the check and the change (db.commit() first)");
	if (j && j->kind == APP_HOOK && !strcmp(j->hook, APP_HOOK_MOVED))
		app_raise(L, APP_HOOK_MOVED " must not wait");
}

void app_check_runs(lua_State *L)
{
	if (!luahost_job(L))
		luaL_error(L, "this is for what runs, such as a request, a timer or init_service, not while a file is "
			      "loaded or checked");
}

/* The table holds the function and its arguments, any of which may be nil, and at 0 how many they are. */
static int push_task(lua_State *L, struct luajob *self)
{
	struct app_job *j = (struct app_job *)self;
	int n;

	lua_rawgeti(L, LUA_REGISTRYINDEX, j->function);
	int list = lua_gettop(L);

	lua_rawgeti(L, list, 0);
	n = (int)lua_tointeger(L, -1);
	lua_pop(L, 1);
	luaL_checkstack(L, n + 1, "too many arguments");
	for (int i = 1; i <= n; i++)
		lua_rawgeti(L, list, i);
	lua_remove(L, list);
	return n - 1;
}

/* app.task(fn, …): runs fn in a task of its own, whose changes are committed at its end. */
int app_task(lua_State *L)
{
	struct app *a = app_of(L);
	const struct luajob *parent = luahost_job(L);
	uint64_t trace = parent ? parent->trace : 0; /* what it does is done for whom its starter worked */
	const struct app_job *asker = app_job_of(L);
	struct app_job *j;
	int n = lua_gettop(L);

	app_check_runs(L);
	luaL_checktype(L, 1, LUA_TFUNCTION);
	lua_createtable(L, n, 1);
	lua_pushinteger(L, n);
	lua_rawseti(L, -2, 0);
	for (int i = 1; i <= n; i++) {
		lua_pushvalue(L, i);
		lua_rawseti(L, -2, i);
	}
	int function = luaL_ref(L, LUA_REGISTRYINDEX);

	j = app_job_new(a, APP_TASK);
	j->function = function;
	buf_clear(&j->in);
	if (asker && asker->key_n) { /* what it records is its starter's key's */
		buf_add(&j->in, asker->in.data, asker->key_n);
		j->key_n = asker->key_n;
		j->moved = asker->moved;
	}
	j->trace = j->job.trace = trace;
	j->job.name = "app.task";
	j->job.push = push_task;
	j->deadline_ms = UINT64_MAX;
	luatask_start(a->host, &j->job);
	return 0;
}

/* What stands in a queue for a task that waits. Woken once, whatever scripts do with it. */
#define WAITING_META "loquat.waiting"
struct waiting {
	uint64_t task; /* 0: woken */
};

/* app.wait(queue): yields until somebody calls app.wake(queue). The queue is a table of the caller's. */
int app_wait(lua_State *L)
{
	uint64_t task;

	luaL_checktype(L, 1, LUA_TTABLE);
	luahost_check_changes(L, 1, "app.wait");
	app_check_may_wait(L);
	task = luatask_wait(L);
	struct waiting *w = lua_newuserdatauv(L, sizeof *w, 0);

	w->task = task;
	luaL_setmetatable(L, WAITING_META);
	lua_rawseti(L, 1, (lua_Integer)lua_rawlen(L, 1) + 1);
	return luatask_yield(L);
}

/* app.wake(queue): those who wait go on at the end of this turn, in the order they came; the queue is empty again. */
int app_wake(lua_State *L)
{
	struct app *a = app_of(L);
	lua_Integer n;

	luaL_checktype(L, 1, LUA_TTABLE);
	n = (lua_Integer)lua_rawlen(L, 1);
	for (lua_Integer i = 1; i <= n; i++) {
		lua_rawgeti(L, 1, i);
		struct waiting *w = luaL_testudata(L, -1, WAITING_META);

		if (w && w->task) {
			buf_add(&a->woken, &w->task, sizeof w->task);
			w->task = 0;
		}
		lua_pop(L, 1);
		lua_pushnil(L);
		lua_rawseti(L, 1, i);
	}
	if (a->woken.len && !a->closing)
		loop_defer(a->worker->loop, &a->wake);
	return 0;
}

void app_wake_task(struct app *a, uint64_t task)
{
	buf_add(&a->woken, &task, sizeof task);
	if (!a->closing)
		loop_defer(a->worker->loop, &a->wake);
}

#define WAKES_PER_TURN 1000 /* who wake each other for ever must not stop the others */

static void wakes_run(struct app *a)
{
	for (unsigned i = 0; i < WAKES_PER_TURN && a->woken_at < a->woken.len; i++) {
		uint64_t task;

		memcpy(&task, a->woken.data + a->woken_at, sizeof task);
		a->woken_at += sizeof task;
		luatask_resume(a->host, task, NULL, NULL);
	}
	if (a->woken_at < a->woken.len) {
		loop_timer(a->worker->loop, &a->wake_more, 0);
		return;
	}
	a->woken_at = 0;
	buf_clear(&a->woken);
}

static void on_wake(struct loop_deferred *d)
{
	struct app *a = (struct app *)((char *)d - offsetof(struct app, wake));

	if (!timer_running(&a->wake_more))
		wakes_run(a);
}

static void on_wake_more(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	wakes_run((struct app *)((char *)t - offsetof(struct app, wake_more)));
}

void app_wakes_open(struct app *a)
{
	a->wake.run = on_wake;
	a->wake_more.fire = on_wake_more;
}

void app_task_open(lua_State *L)
{
	luaL_newmetatable(L, WAITING_META);
	lua_pop(L, 1);
}
