#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <lua.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/luasrc.h"
#include "common/metrics.h"
#include "common/msg.h"
/*
 * luahost: one worker's Lua state: its code, its coroutines, its limits.
 *
 * Threads:  a host belongs to the worker that made it; every call is on its loop's thread, but luahost_watch.
 * Memory:   all of Lua's is bounded by memory_max; a script that reaches it gets "not enough memory" and fails alone.
 * Scripts:  see base, string, table, math, utf8, coroutine, os.time/clock/date, and json, log, clock, require, state.
 *           Not: io, files, processes, debug, binary chunks, __gc. Reading or setting a global that nobody defined is
 *           an error with file and line. Each file has an environment of its own.
 * Tasks:    whatever scripts do runs in a task: a pooled coroutine that may wait. Code at the top of a file runs
 *           at loading, may not wait and may not start timers (init_service may).
 * Failures: an error in a task is logged with its traceback, ends that task with ERR_FAILED, and nothing else.
 * Budget:   a task that computes longer than budget_ms without yielding is stopped with an error (luahost_watch arms it). What
 *           is no task, loading files above all, has LUAHOST_RARE_MS at least.
 *           It is the thread's own time on a processor: a busy or halted machine fails nobody's request.
 */
#define LUAHOST_RARE_MS 1000
struct luahost;

struct luahost_options {
	struct loop *loop;
	struct log *log;
	struct metrics *metrics;     /* loquat_lua_*; may be NULL */
	const struct schema *schema; /* for the codecs; may be NULL */
	size_t memory_max;           /* bytes; 0: 256 MiB */
	uint32_t budget_ms;          /* 0: 1,000 */
	uint32_t tasks_max;          /* tasks at once; 0: 100,000 */
	uint32_t slow_ms;            /* who serves a call and waits longer is logged with its traceback; 0: nobody */
	enum {
		LUAHOST_GC_INCREMENTAL,
		LUAHOST_GC_GENERATIONAL,
		LUAHOST_GC_AUTO
	} gc;           /* how it collects: luahost_gc.c */
	uint32_t texts; /* room for so many different short texts is made at once; 0: it grows as needed */
	bool trial;     /* a host for luahost_check: nobody watches it, so instructions are counted */
	bool known;     /* what is loaded has been loaded like this before: each file is compiled when it is required */
	void *user;     /* the embedder's own: luahost_user */
	void (*may_sleep)(lua_State *L); /* asked by clock.sleep: raises if the task must not wait now; may be NULL */
};
int luahost_new(const struct luahost_options *o, struct luahost **out); /* ERR_NOMEM */
/* Ends all tasks (their jobs end with ERR_UNAVAILABLE) and timers. NULL is fine. Not from inside a task. */
void luahost_free(struct luahost *h);
lua_State *luahost_state(struct luahost *h); /* the main state, for libraries and codecs */
struct luahost *luahost_of(lua_State *L);    /* the host of any state of it */
void *luahost_user(struct luahost *h);
uint32_t luahost_rare_ms(
	const struct luahost *h); /* for hooks and the like: the budget, but LUAHOST_RARE_MS at least */
struct loop *luahost_loop(struct luahost *h);

/*
 * Gives scripts a library: open(L) pushes one value, which becomes the global name in all files, also of later loads.
 * Before the first load. ERR_NOMEM, ERR_FAILED (open raised; logged).
 */
int luahost_library(struct luahost *h, const char *name, lua_CFunction open);
/* The metatable on top is of a table that belongs to a library too: scripts cannot change that one. name: "app.rpc". */
void luahost_guard_fields(lua_State *L, const char *name);
/* For who writes a script's table behind its metatable. Raises, in the name of who, if it is a library's. */
void luahost_check_changes(lua_State *L, int index, const char *who);

/* ---- code: loading and reloading, all or nothing -------------------------------------------------------- */

/*
 * On a trial host with an empty `state`: compiles all files, keeping the result in src for the hosts that load it later, runs
 * init, *Handler and *Remote and then init's check(), which may raise or return nil and why. Before src is shared.
 * error names file and line. ERR_FAILED
 */
int luahost_check(struct luahost *h, struct luasrc *src, char *error, size_t error_size);
/*
 * Compiles all files and runs init, *Handler and *Remote beside the code that is running. Nothing changes until
 * luahost_switch: what the files put into `state` is kept apart until then. error names file and line. ERR_FAILED; then
 * nothing is prepared. Preparing anew drops what was prepared before.
 */
int luahost_prepare(struct luahost *h, struct luasrc *src, char *error, size_t error_size);
/* The same in steps of one file, so that requests get their turn in between: begin, then step until it is not 1. */
int luahost_prepare_begin(struct luahost *h, struct luasrc *src, char *error, size_t error_size);
int luahost_prepare_step(struct luahost *h, char *error,
			 size_t error_size); /* 1: more to do; 0: prepared; ERR_FAILED */
/*
 * From here on new tasks run the prepared code; running ones finish on the old. First the new init's on_reload(old version)
 * runs, which may not wait. If it raises, or returns nil and why: ERR_FAILED, the old code stays, and so do the fields
 * of `state`. Nothing prepared: 0. Not from inside a task.
 */
int luahost_switch(struct luahost *h, char *error, size_t error_size);
/*
 * If version runs, and another ran before it, that one runs again, after version's own on_rollback(the other's version),
 * whose failure is only logged. Otherwise nothing. Not from inside a task.
 */
void luahost_rollback(struct luahost *h, const char *version);
void luahost_abort(struct luahost *h); /* drops what was prepared; nothing prepared is fine */
int luahost_load(struct luahost *h, struct luasrc *src, char *error, size_t error_size); /* prepare and switch */
/*
 * From here on the host serves this schema too, which was loaded after (schema_load_after) the one it has: its messages, and those
 * of its methods that the code has functions for, the code that runs as well as what is loaded later. Which of them may
 * be called is the embedder's. Drops what was prepared. error is one line. ERR_NOMEM; then it serves what it served.
 */
int luahost_messages(struct luahost *h, const struct schema *schema, char *error, size_t error_size);
const char *luahost_version(struct luahost *h); /* luasrc_version of the code that runs; "" before the first */

/* Pushes handlerName.method of the running code; false: there is none (nothing pushed). Does not allocate. */
bool luahost_push_method(lua_State *L, const struct msg_method *m);
/* How many arguments the method that was just pushed names: what it does not take need not be made. */
#define LUAHOST_PARAMS_ANY 255
unsigned luahost_method_params(lua_State *L, const struct msg_method *m);
/* Pushes a function of init.lua's table ("init_service", "stop_service"); false: none (nothing pushed). */
bool luahost_push_hook(lua_State *L, const char *name);
bool luahost_has_method(struct luahost *h, const struct msg_method *m);
/* Where its function begins, for messages: "role/lua/shopHandler.lua:12"; "": there is none. */
void luahost_method_place(struct luahost *h, const struct msg_method *m, char *out, size_t size);
/* Pushes the value of a file of the running code, which runs now if nobody has required it yet. Raises. */
void luahost_push_module(lua_State *L, const char *name);
bool luahost_has_hook(struct luahost *h, const char *name);

/* ---- tasks ------------------------------------------------------------------------------------------------ */

struct luaresult {
	int err;             /* 0, ERR_FAILED (raised), ERR_BUSY, ERR_UNAVAILABLE (cancelled), or what push answered */
	const char *message; /* for a person, when err: the error's first line, "" if push failed; valid in done only */
	lua_State *L;        /* when err is 0: n results from index first on */
	int first, n;
};
struct luaqueue;
struct luatask;
struct luajob {           /* zero it; embed it in what is to be done */
	const char *name; /* for logs: "role.bagHandler.list"; must outlive the job */
	/* The end, exactly once; it may free the job and start others. Never raises; the codecs' encoders are fine. */
	void (*done)(struct luajob *self, const struct luaresult *r);
	/*
	 * In the task: pushes the function and its arguments, returns how many arguments; or a negative error, with
	 * which the job ends without a call. May raise. NULL: fn is called without arguments.
	 */
	int (*push)(lua_State *L, struct luajob *self);
	int fn;             /* registry: a function, where there is no push */
	uint32_t budget_ms; /* 0: the host's. What it starts that runs at once has no more than it */
	/* It has computed without waiting for so long, about, that the watch came upon it: also when it is not stopped. May be NULL. */
	void (*held)(struct luajob *self, uint32_t ms);
	uint64_t trace;  /* of the call it serves, for its lines in the log; 0: none */
	const void *tag; /* whose kind of job this is, for luahost_job's callers; timers have NULL */
	/* private */
	struct luajob *next;
	struct luaqueue *queue;
	struct luatask *task; /* NULL: it neither runs nor waits */
};

/*
 * Runs the job at once, in a task, until it ends or waits first; done may come before this returns. Returns a handle
 * > 0 while it waits, 0 when it has ended (done was called).
 */
uint64_t luatask_start(struct luahost *h, struct luajob *job);
/*
 * Ends a waiting task: its coroutine is closed (to-be-closed variables run), done gets ERR_UNAVAILABLE. False: it
 * has ended already, or it is running.
 */
bool luatask_cancel(struct luahost *h, uint64_t task);
/*
 * Asks a waiting task to end, for nobody wants its result any more: what it waits for raises, and so does every wait it
 * begins after that, so that scripts put in order what they hold (pcall, to-be-closed variables). It ends before this
 * returns: by that error with ERR_UNAVAILABLE, not logged; or as it will. False: it has ended already, or it is running.
 */
bool luatask_abort(struct luahost *h, uint64_t task);
bool luatask_alive(struct luahost *h, uint64_t task);

/*
 * Waiting, for C functions that scripts call. luatask_wait raises when L cannot wait (at the top of a file, or in a
 * coroutine of the script's own), else returns the handle to resume; call it before anything is begun. Then
 *     return luatask_yield(L);
 * and the C function returns to its script what luatask_resume's push pushes.
 */
uint64_t luatask_wait(lua_State *L);
int luatask_yield(lua_State *L);
/*
 * Goes on with a waiting task: push(L, arg) runs inside it and returns how many values it pushed; a negative ERR_* gives
 * the script nil and the error's word. NULL pushes nothing. May raise. False: the task has ended; nothing is called.
 * From the loop, or from another task; not from inside the task itself.
 */
bool luatask_resume(struct luahost *h, uint64_t task, int (*push)(lua_State *L, void *arg), void *arg);
/* The job of the task that is running, for C functions called by it; NULL: none (the top of a file). */
struct luajob *luahost_job(lua_State *L);
uint64_t luahost_task(lua_State *L);            /* its handle, or 0 */
uint64_t luajob_task(const struct luajob *job); /* the handle of the task that runs it or waits for it; 0: none */

/* Runs a C function in protected mode outside of tasks (luaL_ref, decoding …). 0, ERR_FAILED or ERR_NOMEM, logged. */
int luahost_protected(struct luahost *h, int (*fn)(lua_State *L, void *arg), void *arg);

/* The same, with the memory kept for the end: for what must not fail once it is decided. */
int luahost_reserved(struct luahost *h, int (*fn)(lua_State *L, void *arg), void *arg);

/* ---- one after the other: a session's requests ------------------------------------------------------------ */

struct luaqueue { /* embed it; private */
	struct luahost *host;
	struct luajob *first, **last; /* what waits */
	struct luajob *job;           /* what runs */
	unsigned waiting, waiting_max;
	bool starting, closed;
};
void luaqueue_init(struct luaqueue *q, struct luahost *h, unsigned waiting_max);
/*
 * Runs the job when those before it have ended, at once if there are none. ERR_BUSY: waiting_max jobs wait; ERR_CLOSED.
 * The job is untouched then and done does not come.
 */
int luaqueue_push(struct luaqueue *q, struct luajob *job);
/* Cancels what runs and what waits (done gets ERR_UNAVAILABLE); q's memory may go afterwards, also from inside done. */
void luaqueue_close(struct luaqueue *q);
/* Takes a job out that waits in q; done does not come. False: it is not there any more. */
bool luaqueue_remove(struct luaqueue *q, struct luajob *job);
bool luaqueue_idle(const struct luaqueue *q);

/* ---- looking inside -------------------------------------------------------------------------------------- */

/*
 * C functions for an operator's library. Each returns a list of tables: tasks {name, state, ms, trace, traceback}; timers
 * {due_ms, period_ms, what}, 10,000 at most; memory {kind, tables, texts, bytes} of what `state` and the modules hold,
 * by where it is reached, which waits now and then.
 */
int luahost_l_tasks(lua_State *L);
int luahost_l_timers(lua_State *L);
int luahost_l_memory(lua_State *L);
/* The functions of init.lua, handlers and remotes, as the code that runs has them: module "bagHandler", name "use". */
void luahost_each_function(struct luahost *h, void (*fn)(void *arg, const char *module, const char *name), void *arg);
void luahost_push_open_env(lua_State *L); /* an environment that takes new globals, for text an operator types */
bool luahost_push_require(lua_State *L);  /* the running code's require; false: there is none (nothing pushed) */

/*
 * A sampling profile. begin and end on the worker; tick on one other thread, as often as samples are wanted, between the two.
 * end appends folded stacks, "task;outermost;…;innermost COUNT" a line. ERR_BUSY: one is being made; ERR_UNAVAILABLE: this
 * env cannot interrupt; ERR_NOMEM
 */
int luahost_profile_begin(struct luahost *h);
void luahost_profile_tick(struct luahost *h);
void luahost_profile_end(struct luahost *h, struct buf *out);

/* ---- limits and figures ------------------------------------------------------------------------------------ */

/*
 * Any thread, a few times a second (control): if the host's task computes longer than its budget, the thread is
 * interrupted and the task stopped. Where env cannot interrupt (simulation) a count of instructions does it: false, there
 * is no need to call this.
 */
bool luahost_watch(struct luahost *h);
/* The wall clock was set: cron's timers wait for their next time from now on. Else they find out within an hour. */
void luahost_clock_was_set(struct luahost *h);

struct luahost_stats {
	uint64_t memory_bytes, memory_peak_bytes, memory_max;
	uint64_t gc_cycles, gc_pause_p99_us, gc_pause_max_us; /* pauses: at ends of turns */
	bool gc_generational;
	uint64_t coroutines; /* made and kept: running, waiting or pooled */
	uint64_t tasks;      /* running or waiting */
	uint64_t started, failed, cancelled, over_budget, out_of_memory;
	uint64_t timers; /* set by scripts and running */
	uint64_t reloads, reloads_refused, rollbacks;
	uint64_t slow; /* waits of more than slow_ms */
};
void luahost_stats(struct luahost *h, struct luahost_stats *out);
