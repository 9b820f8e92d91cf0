/* Tasks: pooled coroutines that may wait; and queues of them. */
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/luahost_private.h"

/* ---- slots ---------------------------------------------------------------------------------------------- */

/* A generation that has ended does not come again: who asks for it finds nothing. */
static struct luatask *find(struct luahost *h, uint64_t handle)
{
	uint32_t place = (uint32_t)handle;
	if (!place || place > h->tasks)
		return NULL;
	struct luatask *t = h->task[place - 1];
	return t->generation == handle >> 32 ? t : NULL;
}

static struct luatask *find_waiting(struct luahost *h, uint64_t handle)
{
	struct luatask *t = find(h, handle);
	return t && t->unusual & LUATASK_WAITS ? t : NULL;
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
	t->place = h->tasks + 1;
	t->ref = LUA_NOREF;
	t->ctx = h->root;
	t->ctx.task = t->run.task = t;
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
	t->run.L = t->good.L = co;
	return 0;
}

static void drop_coroutine(struct luahost *h, struct luatask *t)
{
	if (!t->run.L)
		return;
	luaL_unref(h->L, LUA_REGISTRYINDEX, t->ref);
	t->run.L = NULL;
	t->ref = LUA_NOREF;
	h->stats.coroutines--;
}

static inline void put(struct luatask **list, struct luatask *t)
{
	t->next_free = *list;
	*list = t;
}

static inline struct luatask *take(struct luatask **list)
{
	struct luatask *t = *list;
	if (t)
		*list = t->next_free;
	return t;
}

/* Every task has a coroutine; those beyond the tasks are pooled, unless there are too many. While the host ends none is taken again. */
static void free_slot(struct luahost *h, struct luatask *t)
{
	t->generation++;
	t->unusual = 0;
	t->job = NULL;
	if (h->stats.coroutines - h->waiting > LUAHOST_POOL_MAX)
		drop_coroutine(h, t);
	if (h->closing)
		return;
	if (t->run.L && !h->ready)
		h->ready = t;
	else
		put(t->run.L ? &h->pool : &h->bare, t);
}

/* One with a coroutine; NULL: none is free. */
static struct luatask *take_free(struct luahost *h)
{
	struct luatask *t = h->ready;
	if (!t || t->job)
		return take(&h->pool);
	h->ready = NULL;
	return t;
}

static struct luatask *take_new(struct luahost *h)
{
	struct luatask *t = take(&h->bare);
	if (!t && h->tasks >= h->o.tasks_max)
		return NULL;
	if (!t)
		t = new_slot(h);
	if (luahost_protected(h, make_coroutine, t) < 0) {
		put(&h->bare, t);
		return NULL;
	}
	h->stats.coroutines++;
	return t;
}

uint64_t luahost_tasks(const struct luahost *h)
{
	uint64_t n = h->waiting;
	for (const struct luarun *r = luahost_run(h); r; r = r->outer)
		n += r->task && r == &r->task->run;
	return n;
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
		t->unusual |= LUATASK_PUSH_FAILED;
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
	job->task = NULL;
	if (__builtin_expect(job->queue != NULL, 0))
		end_queued(h, job, r);
	else
		job->done(job, r);
}

static void refuse(struct luahost *h, struct luajob *job)
{
	if (h->closing)
		end_job(h, job, &(struct luaresult){ .err = ERR_UNAVAILABLE, .message = "closing" });
	else
		end_job(h, job, &(struct luaresult){ .err = ERR_BUSY, .message = "too many tasks" });
}

/* The values of a finished task are read by done, so its coroutine is given back afterwards. Nothing else is on its stack. */
static void finish_ok(struct luahost *h, struct luatask *t)
{
	if (t->unusual & LUATASK_PUSH_FAILED)
		end_job(h, t->job, &(struct luaresult){ .err = t->err, .message = "" });
	else
		end_job(h, t->job, &t->good);
	lua_settop(t->run.L, 0);
	free_slot(h, t);
}

/* The script's to-be-closed variables are closed in the task's name and with a budget of their own; they may not wait. */
static int close_variables(struct luahost *h, struct luatask *t)
{
	unsigned before = t->unusual;
	t->unusual |= LUATASK_ABORTED;
	t->run.outer = luahost_run(h);
	luahost_begin(h, &t->run, t->run.outer);
	int status = lua_resetthread(t->run.L);
	luahost_leave(h, &t->run);
	t->run.outer = NULL;
	t->unusual = before;
	h->held_ms = 0; /* its job ends here, whatever it did */
	return status;
}

/*
 * A coroutine that failed is not used again. Where the budget was used up behind a function of C's, it stays as it is: its hooks
 * are off for ever, so nothing could stop what would be closed. Nor could anything inside of another task that is over.
 */
static void finish_failed(struct luahost *h, struct luatask *t, int status)
{
	struct luajob *job = t->job;
	bool hooks_off = h->stopped == t->run.L || h->over;
	char message[LUAHOST_MESSAGE_MAX] = "cancelled";
	bool aborted = t->unusual & LUATASK_ABORTED;
	struct luaresult r = { .err = aborted ? ERR_UNAVAILABLE : ERR_FAILED, .message = message };
	if (aborted)
		h->stats.cancelled++;
	else
		luahost_report(h, t, status, message);
	if (!hooks_off)
		close_variables(h, t);
	h->stopped = NULL; /* what was closed may have been stopped, too; its address may be another coroutine's soon */
	drop_coroutine(h, t);
	free_slot(h, t);
	end_job(h, job, &r);
}

static void waits(struct luahost *h, struct luatask *t)
{
	t->unusual = (t->unusual & ~(unsigned)LUATASK_TOLD) | LUATASK_WAITS;
	t->since_ms = h->o.loop->now_ms;
	h->waiting++;
	if (t->job->trace && h->o.slow_ms && !timer_running(&h->slow))
		luahost_slow_watch(h);
}

static void goes_on(struct luahost *h, struct luatask *t)
{
	t->unusual &= ~(unsigned)(LUATASK_ASKED | LUATASK_WAITS);
	h->waiting--;
}

static void tell_held(struct luahost *h, const struct luatask *t)
{
	uint32_t ms = h->held_ms;
	h->held_ms = 0;
	if (ms && t->job->held)
		t->job->held(t->job, ms);
}

/*
 * t does not run any more: it waits, has failed, has ended with something to look at, or was not started alone. coroutine.yield is refused
 * in a task's own coroutine, so who yields has asked to wait, or was stopped: its handle.
 */
static __attribute__((noinline)) uint64_t after_run(struct luatask *t, int status)
{
	struct luahost *h = t->ctx.host;
	if (h->ready == t)
		h->ready = NULL;
	if (h->attention) {
		luahost_attend(h, &t->run);
		tell_held(h, t);
	}
	t->run.outer = NULL;
	if (status == LUA_YIELD && (t->unusual & (LUATASK_ASKED | LUATASK_STOPPED)) == LUATASK_ASKED) {
		waits(h, t);
		return luatask_handle(t);
	}
	if (status == LUA_OK)
		finish_ok(h, t);
	else
		finish_failed(h, t, status);
	return 0;
}

static inline void begin_job(struct luahost *h, struct luatask *t, struct luajob *job)
{
	t->job = job;
	job->task = t;
	h->started++;
}

static inline void push_job(lua_State *L, const struct luajob *job)
{
	if (job->push)
		lua_pushcfunction(L, task_main);
	else
		lua_rawgeti(L, LUA_REGISTRYINDEX, job->fn);
}

/* With its job, or on from where it waits: job is NULL. */
static uint64_t run(struct luahost *h, struct luatask *t, const struct luajob *job)
{
	struct luarun *outer = t->run.outer = luahost_run(h);
	luahost_begin(h, &t->run, outer);
	if (job)
		push_job(t->run.L, job);
	int status = lua_resume(t->run.L, outer ? outer->L : NULL, 0, &t->good.n);
	luahost_end(h, outer);
	return after_run(t, status);
}

/* No coroutine is ready, or something runs already. */
static __attribute__((noinline)) uint64_t start_otherwise(struct luahost *h, struct luajob *job)
{
	struct luatask *t = take_free(h);
	if (!t && !(t = take_new(h))) {
		refuse(h, job);
		return 0;
	}
	begin_job(h, t, job);
	return run(h, t, job);
}

/*
 * What most requests do: nothing else runs, a coroutine is ready, it ends without waiting. This is all they pay for besides
 * lua_resume, so the steps are few: one look at everything rare, and the host is read from the task again, which costs less than
 * keeping it. The coroutine stays where it is and has a job meanwhile, also while done reads its results.
 */
uint64_t luatask_start(struct luahost *h, struct luajob *job)
{
	struct luatask *t = h->ready;
	if (__builtin_expect(!t || t->job || luahost_run(h), 0))
		return start_otherwise(h, job);
	begin_job(h, t, job);
	luahost_begin(h, &t->run, NULL);
	push_job(t->run.L, job);
	int status = lua_resume(t->run.L, NULL, 0, &t->good.n);
	h = t->ctx.host;
	luahost_end(h, NULL);
	if (__builtin_expect((unsigned)status | (unsigned)h->attention | t->unusual, 0))
		return after_run(t, status);
	end_job(h, t->job, &t->good);
	lua_settop(t->run.L, 0);
	t->generation++;
	t->job = NULL;
	return 0;
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
	assert(t->unusual & LUATASK_WAITS);
	t->push = push;
	t->push_arg = arg;
	goes_on(h, t);
	run(h, t, NULL);
	return true;
}

bool luatask_cancel(struct luahost *h, uint64_t task)
{
	struct luatask *t = find_waiting(h, task);
	if (!t)
		return false;
	struct luajob *job = t->job;
	goes_on(h, t);
	if (close_variables(h, t) == LUA_OK)
		lua_settop(t->run.L, 0);
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
	struct luatask *t = find_waiting(h, task);
	if (!t)
		return false;
	t->unusual |= LUATASK_ABORTED;
	return luatask_resume(h, task, raise_aborted, NULL);
}

/* The host is closing, so none starts or waits anew. */
void luahost_end_tasks(struct luahost *h)
{
	for (uint32_t i = 0; i < h->tasks; i++)
		if (h->task[i]->unusual & LUATASK_WAITS)
			luatask_cancel(h, luatask_handle(h->task[i]));
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
	if (!t && luahost_current(luahost_of(L)))
		luaL_error(L, "cannot wait inside a coroutine of one's own");
	if (!t)
		luaL_error(L, "cannot wait here: only what a request, a timer or init_service runs may wait");
	if (!lua_isyieldable(L))
		luaL_error(L,
			   "cannot wait inside a function that is called by C (table.sort, string.gsub, a file's top)");
	if (t->unusual & LUATASK_ABORTED)
		luaL_error(L, ABORTED);
	if (t->job == luahost_of(L)->switching)
		luaL_error(L, "cannot wait in %s: all requests stand still until it has ended", t->job->name);
	t->unusual |= LUATASK_ASKED;
	return luatask_handle(t);
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
	const struct luatask *t = luahost_current(luahost_of(L));
	return t ? t->job : NULL;
}

uint64_t luahost_task(lua_State *L)
{
	const struct luatask *t = luahost_current(luahost_of(L));
	return t ? luatask_handle(t) : 0;
}

uint64_t luajob_task(const struct luajob *job)
{
	return job->task ? luatask_handle(job->task) : 0;
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
		luatask_cancel(h, luajob_task(running));
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
