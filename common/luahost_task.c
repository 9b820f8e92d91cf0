/* Tasks: pooled coroutines that may wait; and queues of them. */
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/luahost_private.h"

#define MESSAGE_MAX   300
#define TRACEBACK_MAX 1200

/* ---- slots ---------------------------------------------------------------------------------------------- */

static struct luatask *find(struct luahost *h, uint64_t handle)
{
	uint32_t place = (uint32_t)handle;
	if (!place || place > h->tasks)
		return NULL;
	struct luatask *t = h->task[place - 1];
	return t->handle == handle && t->state != LUATASK_FREE ? t : NULL;
}

static struct luatask *new_slot(struct luahost *h)
{
	if (h->tasks == h->tasks_cap) {
		h->tasks_cap = h->tasks_cap ? h->tasks_cap * 2 : 64;
		h->task = realloc(h->task, h->tasks_cap * sizeof(struct luatask *));
		if (!h->task)
			abort();
	}
	struct luatask *t = calloc(1, sizeof *t);
	if (!t)
		abort();
	t->handle = h->tasks + 1;
	t->ref = LUA_NOREF;
	t->ctx = h->root;
	t->ctx.task = t;
	t->good = (struct luaresult){ .message = "", .first = 1 };
	h->task[h->tasks++] = t;
	return t;
}

static int make_coroutine(lua_State *L, void *arg)
{
	struct luatask *t = arg;
	struct luactx *ctx = &t->ctx;
	lua_State *co = lua_newthread(L);
	memcpy(lua_getextraspace(co), &ctx, sizeof ctx);
	t->ref = luaL_ref(L, LUA_REGISTRYINDEX);
	t->L = t->good.L = co;
	return 0;
}

static void drop_coroutine(struct luahost *h, struct luatask *t)
{
	if (!t->L)
		return;
	luaL_unref(h->L, LUA_REGISTRYINDEX, t->ref);
	t->L = NULL;
	t->ref = LUA_NOREF;
	h->stats.coroutines--;
}

static inline void put_back(struct luahost *h, struct luatask *t)
{
	t->next_free = h->free_tasks;
	h->free_tasks = t;
}

/* Too many coroutines are pooled? False: nobody takes the slot again. */
static __attribute__((noinline)) bool is_kept(struct luahost *h, struct luatask *t)
{
	if (h->stats.coroutines - (h->stats.started - h->ended) > LUAHOST_POOL_MAX)
		drop_coroutine(h, t);
	return !h->closing;
}

/* Every task has a coroutine; those beyond the tasks are pooled. */
static inline void free_slot(struct luahost *h, struct luatask *t)
{
	t->state = LUATASK_FREE;
	t->handle += UINT64_C(1) << 32;
	h->ended++;
	if ((int64_t)h->stats.coroutines <= h->coroutines_usual || is_kept(h, t))
		put_back(h, t);
}

static __attribute__((noinline)) struct luatask *take_new(struct luahost *h, struct luatask *t)
{
	if (!t && (h->tasks >= h->o.tasks_max))
		return NULL;
	if (!t)
		t = new_slot(h);
	if (luahost_protected(h, make_coroutine, t) < 0) {
		put_back(h, t);
		return NULL;
	}
	h->stats.coroutines++;
	return t;
}

/* NULL: too many, or no memory for another coroutine. */
static inline struct luatask *take_slot(struct luahost *h)
{
	struct luatask *t = h->free_tasks;
	if (t)
		h->free_tasks = t->next_free;
	return t && t->L ? t : take_new(h, t);
}

/* ---- what went wrong ------------------------------------------------------------------------------------ */

struct report {
	lua_State *co;
	char message[MESSAGE_MAX], traceback[TRACEBACK_MAX];
};

static int make_report(lua_State *L, void *arg)
{
	struct report *r = arg;
	luaL_traceback(L, r->co, NULL, 0);
	snprintf(r->traceback, sizeof r->traceback, "%s", lua_tostring(L, -1));
	return 0;
}

/* The error's own text without allocating; errors that are tables say so. */
static void message_of(lua_State *co, char out[MESSAGE_MAX])
{
	if (lua_type(co, -1) == LUA_TSTRING)
		snprintf(out, MESSAGE_MAX, "%s", lua_tostring(co, -1));
	else if (lua_isinteger(co, -1))
		snprintf(out, MESSAGE_MAX, "%lld", (long long)lua_tointeger(co, -1));
	else
		snprintf(out, MESSAGE_MAX, "an error that is a %s", luaL_typename(co, -1));
	char *line = strchr(out, '\n');
	if (line)
		*line = 0;
}

static void report_failure(struct luahost *h, struct luatask *t, int status, char message[MESSAGE_MAX])
{
	struct report r = { .co = t->L };
	const char *name = t->job->name ? t->job->name : "task";
	h->stats.failed++;
	h->stats.out_of_memory += status == LUA_ERRMEM;
	message_of(t->L, message);
	luahost_raise_limit(h, true);
	luahost_protected(h, make_report, &r);
	luahost_raise_limit(h, false);
	if (h->o.log)
		log_error(h->o.log, "lua.error", "task=%s error=%s trace=%llx traceback=%s", name, message,
			  (unsigned long long)t->job->trace, r.traceback);
}

/* ---- running -------------------------------------------------------------------------------------------- */

static int task_end(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	return lua_gettop(L);
}

/* The first function of each task: what follows is protected, so push may raise. */
static int task_main(lua_State *L)
{
	struct luatask *t = luahost_ctx(L)->task;
	int n = t->job->push(L, t->job);
	if (n < 0) {
		t->err = n;
		t->failed_in_push = true;
		return 0;
	}
	lua_callk(L, n, LUA_MULTRET, 0, task_end);
	return task_end(L, LUA_OK, 0);
}

static void luaqueue_next(struct luaqueue *q, struct luahost *h);

static __attribute__((noinline)) void end_queued(struct luahost *h, struct luajob *job, const struct luaresult *r)
{
	struct luaending e = { job->queue, h->ending };
	job->queue->job = NULL;
	job->queue = NULL;
	h->ending = &e;
	job->done(job, r);
	h->ending = e.up;
	if (e.queue)
		luaqueue_next(e.queue, h);
}

/* Tells the job, then lets the next of its queue run; done may start other tasks. */
static inline void end_job(struct luahost *h, struct luajob *job, const struct luaresult *r)
{
	job->task = 0;
	if (__builtin_expect(job->queue != NULL, 0))
		end_queued(h, job, r);
	else
		job->done(job, r);
}

static __attribute__((noinline)) void end_unpushed(struct luahost *h, struct luatask *t)
{
	end_job(h, t->job, &(struct luaresult){ .err = t->err, .message = "" });
}

static __attribute__((noinline)) void refuse(struct luahost *h, struct luajob *job)
{
	if (h->closing)
		end_job(h, job, &(struct luaresult){ .err = ERR_UNAVAILABLE, .message = "closing" });
	else
		end_job(h, job, &(struct luaresult){ .err = ERR_BUSY, .message = "too many tasks" });
}

/* The values of a finished task are read by done, so its coroutine is given back afterwards. Nothing else is on its stack. */
static inline void finish_ok(struct luahost *h, struct luatask *t)
{
	if (__builtin_expect(t->failed_in_push, 0))
		end_unpushed(h, t);
	else
		end_job(h, t->job, &t->good);
	lua_settop(t->L, 0);
	free_slot(h, t);
}

/* The script's to-be-closed variables are closed in the task's name and with a budget of their own; they may not wait. */
static int close_variables(struct luahost *h, struct luatask *t)
{
	bool aborted = t->aborted;
	t->outer = h->current;
	t->aborted = true;
	h->current = t;
	struct luarun r = luahost_enter(h, t->L);
	int status = lua_resetthread(t->L);
	luahost_leave(h, t->L, r);
	h->current = t->outer;
	h->held_ms = 0; /* its job ends here, whatever it did */
	t->aborted = aborted;
	return status;
}

/*
 * A coroutine that failed is not used again. Where the budget was used up it stays as it is: its hooks are off for ever, so nothing could
 * stop what would be closed.
 */
static void finish_failed(struct luahost *h, struct luatask *t, int status)
{
	struct luajob *job = t->job;
	bool hooks_off = h->stopped == t->L || h->over;
	char message[MESSAGE_MAX] = "cancelled";
	struct luaresult r = { .err = t->aborted ? ERR_UNAVAILABLE : ERR_FAILED, .message = message };
	if (t->aborted)
		h->stats.cancelled++;
	else
		report_failure(h, t, status, message);
	h->stopped = NULL;
	if (!hooks_off)
		close_variables(h, t);
	drop_coroutine(h, t);
	free_slot(h, t);
	end_job(h, job, &r);
}

static void waits(struct luahost *h, struct luatask *t)
{
	t->state = LUATASK_WAITING;
	t->since_ms = h->o.loop->now_ms;
	t->told = false;
	if (t->job->trace && h->o.slow_ms && !timer_running(&h->slow))
		luahost_slow_watch(h);
}

static __attribute__((noinline)) void tell_held(struct luahost *h, const struct luatask *t)
{
	uint32_t ms = h->held_ms;
	h->held_ms = 0;
	if (t->job->held)
		t->job->held(t->job, ms);
}

/* It has waited, or failed. */
static __attribute__((noinline)) bool run_other(struct luahost *h, struct luatask *t, int status)
{
	if (status == LUA_YIELD && t->asked_to_wait) {
		waits(h, t);
		return true;
	}
	finish_failed(h, t, status);
	return false;
}

/*
 * It is RUNNING until it ends or waits: true. coroutine.yield is refused in a task's own coroutine, so who yields has asked to wait. This is
 * all that a request pays for besides lua_resume: few steps, and what is rare is outside.
 */
static inline __attribute__((always_inline)) bool run(struct luahost *h, struct luatask *t)
{
	t->outer = h->current;
	h->current = t;
	struct luarun r = luahost_enter(h, t->L);
	int status = lua_resume(t->L, r.outer, 0, &t->good.n);
	bool attended = luahost_leave(h, t->L, r);
	h->current = t->outer;
	if (attended && h->held_ms)
		tell_held(h, t);
	if (__builtin_expect(status != LUA_OK, 0))
		return run_other(h, t, status);
	finish_ok(h, t);
	return false;
}

uint64_t luatask_start(struct luahost *h, struct luajob *job)
{
	struct luatask *t = take_slot(h);
	if (!t) {
		refuse(h, job);
		return 0;
	}
	t->state = LUATASK_RUNNING;
	t->asked_to_wait = t->aborted = t->failed_in_push = t->told = false;
	t->job = job;
	job->task = t->handle;
	h->stats.started++;
	if (job->push)
		lua_pushcfunction(t->L, task_main);
	else
		lua_rawgeti(t->L, LUA_REGISTRYINDEX, job->fn);
	return run(h, t) ? t->handle : 0;
}

bool luatask_alive(struct luahost *h, uint64_t task)
{
	return find(h, task) != NULL;
}

bool luatask_resume(struct luahost *h, uint64_t task, int (*push)(lua_State *L, void *arg), void *arg)
{
	struct luatask *t = find(h, task);
	if (!t)
		return false;
	assert(t->state == LUATASK_WAITING);
	t->push = push;
	t->push_arg = arg;
	t->asked_to_wait = false;
	t->state = LUATASK_RUNNING;
	run(h, t);
	return true;
}

bool luatask_cancel(struct luahost *h, uint64_t task)
{
	struct luatask *t = find(h, task);
	if (!t || t->state != LUATASK_WAITING)
		return false;
	struct luajob *job = t->job;
	t->state = LUATASK_RUNNING;
	if (close_variables(h, t) == LUA_OK)
		lua_settop(t->L, 0);
	else
		drop_coroutine(h, t);
	h->stats.cancelled++;
	free_slot(h, t);
	end_job(h, job, &(struct luaresult){ .err = ERR_UNAVAILABLE, .message = "cancelled" });
	return true;
}

#define ABORTED "cancelled: nobody waits for this any more"

static int raise_aborted(lua_State *L, void *arg)
{
	(void)arg;
	return luaL_error(L, ABORTED);
}

/* No wait can begin after this, so whoever would have resumed the task finds it ended. */
bool luatask_abort(struct luahost *h, uint64_t task)
{
	struct luatask *t = find(h, task);
	if (!t || t->state != LUATASK_WAITING)
		return false;
	t->aborted = true;
	return luatask_resume(h, task, raise_aborted, NULL);
}

/* The host is closing, so none starts or waits anew. */
void luahost_end_tasks(struct luahost *h)
{
	for (uint32_t i = 0; i < h->tasks; i++)
		if (h->task[i]->state == LUATASK_WAITING)
			luatask_cancel(h, h->task[i]->handle);
}

void luahost_free_tasks(struct luahost *h)
{
	for (uint32_t i = 0; i < h->tasks; i++)
		free(h->task[i]);
	free(h->task);
}

/* ---- waiting -------------------------------------------------------------------------------------------- */

uint64_t luatask_wait(lua_State *L)
{
	struct luatask *t = luahost_ctx(L)->task;
	if (!t && luahost_of(L)->current)
		luaL_error(L, "cannot wait inside a coroutine of one's own");
	if (!t)
		luaL_error(L, "cannot wait here: only what a request, a timer or init_service runs may wait");
	if (!lua_isyieldable(L))
		luaL_error(L,
			   "cannot wait inside a function that is called by C (table.sort, string.gsub, a file's top)");
	if (t->aborted)
		luaL_error(L, ABORTED);
	if (t->job == luahost_of(L)->switching)
		luaL_error(L, "cannot wait in %s: all requests stand still until it has ended", t->job->name);
	t->asked_to_wait = true;
	return t->handle;
}

static int on_resumed(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	struct luatask *t = luahost_ctx(L)->task;
	int (*push)(lua_State * L, void *arg) = t->push;
	t->push = NULL;
	int n = push ? push(L, t->push_arg) : 0;
	if (n >= 0)
		return n;
	lua_pushnil(L);
	lua_pushstring(L, err_word(err_public(n)));
	return 2;
}

int luatask_yield(lua_State *L)
{
	return lua_yieldk(L, 0, 0, on_resumed);
}

struct luajob *luahost_job(lua_State *L)
{
	struct luatask *t = luahost_of(L)->current;
	return t ? t->job : NULL;
}

uint64_t luahost_task(lua_State *L)
{
	struct luatask *t = luahost_of(L)->current;
	return t ? t->handle : 0;
}

/* ---- queues --------------------------------------------------------------------------------------------- */

void luaqueue_init(struct luaqueue *q, struct luahost *h, unsigned waiting_max)
{
	*q = (struct luaqueue){ .host = h, .waiting_max = waiting_max };
	q->last = &q->first;
}

/* A loop, not a recursion: jobs that end at once would pile up on the stack. */
static void luaqueue_next(struct luaqueue *q, struct luahost *h)
{
	struct luaending e = { q, h->ending };
	if (q->starting)
		return;
	h->ending = &e;
	q->starting = true;
	while (e.queue && q->first && !q->job) {
		struct luajob *job = q->job = q->first;
		if (!(q->first = job->next))
			q->last = &q->first;
		q->waiting--;
		job->queue = q;
		luatask_start(h, job);
	}
	h->ending = e.up;
	if (e.queue)
		q->starting = false;
}

int luaqueue_push(struct luaqueue *q, struct luajob *job)
{
	if (q->closed)
		return ERR_CLOSED;
	if ((q->job || q->starting) && q->waiting >= q->waiting_max)
		return ERR_BUSY;
	job->next = NULL;
	*q->last = job;
	q->last = &job->next;
	q->waiting++;
	if (!q->job)
		luaqueue_next(q, q->host);
	return 0;
}

void luaqueue_close(struct luaqueue *q)
{
	struct luahost *h = q->host;
	struct luajob *job = q->first, *running = q->job;
	for (struct luaending *e = h->ending; e; e = e->up)
		if (e->queue == q)
			e->queue = NULL;
	q->first = q->job = NULL;
	q->last = &q->first;
	q->waiting = 0;
	q->closed = true;
	if (running) {
		running->queue = NULL;
		luatask_cancel(h, running->task);
	}
	while (job) {
		struct luajob *next = job->next;
		job->queue = NULL;
		end_job(h, job, &(struct luaresult){ .err = ERR_UNAVAILABLE, .message = "the queue was closed" });
		job = next;
	}
}

bool luaqueue_remove(struct luaqueue *q, struct luajob *job)
{
	struct luajob **at = &q->first;
	while (*at && *at != job)
		at = &(*at)->next;
	if (!*at)
		return false;
	if (!(*at = job->next))
		q->last = at;
	q->waiting--;
	return true;
}

bool luaqueue_idle(const struct luaqueue *q)
{
	return !q->job && !q->first;
}
