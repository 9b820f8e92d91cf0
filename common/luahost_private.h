#pragma once
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include "common/lua_msg.h"
#include "common/luahost.h"
#include "common/luamem.h"
/*
 * What the parts of luahost share: luahost.c (life, protected calls, budget), luahost_task.c (tasks and queues),
 * luahost_code.c (loading), luahost_reload.c (switching), luahost_lib.c (the libraries of scripts), luahost_guard.c, luahost_clock.c (timers),
 * luahost_see.c and luahost_profile.c (looking inside), luahost_gc.c, luahost_metrics.c. Private to them.
 *
 * Threads: owner worker only, but what luahost_watch touches.
 */
#define LUAHOST_POOL_MAX    1024 /* coroutines kept for reuse */
#define LUAHOST_OVER_BUDGET "stopped: it ran for more than its budget"
#define LUAHOST_METRICS     13

struct luatask;
struct luactx { /* in every lua_State's extra space: a pointer to one of these */
	struct lua_msg msg;
	struct luahost *host;
	struct luatask *task; /* NULL: the main state, or a coroutine of the script's own */
};

enum luatask_state { LUATASK_FREE, LUATASK_RUNNING, LUATASK_WAITING };
struct luatask { /* a slot; its coroutine stays with it */
	struct luactx ctx;
	lua_State *L;
	uint64_t handle; /* generation << 32 | place in the host's list + 1 */
	/* written together when it begins: one store */
	enum luatask_state state;
	bool asked_to_wait;  /* luatask_wait was called */
	bool aborted;        /* luatask_abort was called: no wait begins any more */
	bool failed_in_push; /* err holds what push answered */
	bool told;           /* luahost_see.c has logged that it waits too long */
	int err;
	int ref;           /* what keeps L alive */
	uint64_t since_ms; /* while it waits: when it began to */
	struct luajob *job;
	struct luatask *outer;                /* while it runs: who was running and has started or resumed it */
	int (*push)(lua_State *L, void *arg); /* for the resumption */
	void *push_arg;
	struct luatask *next_free;
	struct luaresult good; /* what done gets if all is well: only n differs from one time to the next */
};

/* While a queue's job ends or starts: who closes (and frees) the queue meanwhile clears it here. */
struct luaending {
	struct luaqueue *queue;
	struct luaending *up;
};

struct luamethod {
	int fn;          /* registry: the function, or LUA_NOREF */
	unsigned params; /* how many it names */
};
struct luacode { /* one generation of code: a userdata whose user value is the table of its modules */
	struct luasrc *src;
	struct luamethod *method; /* by msg_method.index; memory of Lua's */
	size_t methods;
	int modules; /* registry: table of modules by name */
	int hooks;   /* registry: init's table, or an empty one */
	int staged;  /* registry: what its files change in `state`: a list of key, old, new; itself stands for nil */
	size_t at;   /* the next file to look at, while it is prepared */
	int self;    /* registry: the userdata itself */
};

struct luatimer;
struct luatimer_call;
struct luatimer_chunk;
struct luahost {
	struct luahost_options o;
	struct luamem mem;
	lua_State *L;
	struct luactx root;
	int base;                    /* registry: the table of globals all files see */
	int environment;             /* registry: the metatable of the files' environments */
	struct luacode *code, *next; /* what runs, what is prepared */
	struct luacode *previous;    /* what ran before, for going back */
	int kept;                    /* registry: a copy of `state`'s fields, while new code is tried */
	struct luajob *switching;    /* on_reload or on_rollback, while it runs */
	int made; /* registry: handles of the timers that code's on_reload, or the last on_rollback, has started */

	struct luatask **task; /* all slots, at most tasks_max */
	uint32_t tasks, tasks_cap;
	struct luatask *free_tasks; /* with a coroutine first */
	uint64_t ended;             /* of stats.started */
	int64_t coroutines_usual;   /* with so many no end of a task looks whether too many are pooled; -1: closing */
	struct luatask *current;    /* whose code runs now */
	uint32_t held_ms;           /* for so long has what has just run held the thread, if the watch saw it; else 0 */
	struct luaending *ending;
	struct luatimer_chunk *timer_chunks; /* luahost_clock.c */
	struct luatimer *timer_free;
	struct luatimer_call *timer_calls; /* for reuse */
	bool closing;
	struct timer slow; /* looks for requests that wait too long */

	/* the budget: what the signal handler looks at */
	lua_State *_Atomic running;      /* innermost state that runs, NULL: none; read by the watch too */
	volatile sig_atomic_t attention; /* one of these three may be set */
	volatile sig_atomic_t over;      /* the hook is set and raises */
	lua_State *stopped;              /* it has raised in this one, whose hooks may be off since; NULL: looked at */
	volatile sig_atomic_t late;      /* the watch has come upon this turn again */
	volatile sig_atomic_t sampling;  /* the hook is set and takes a sample */
	struct luaprofile *_Atomic profile; /* NULL: none is made */
	_Atomic uint64_t turn;              /* number of the outermost run, or of the last one; read by the watch */
	_Atomic uint64_t interrupted;       /* the turn that the watch has come upon again */
	bool counting;                      /* no interrupts here: instructions are counted instead */
	uint64_t instructions, instructions_turn; /* in that turn */
	struct {                                  /* the watching thread's own, but since_ns */
		uint64_t turn;                    /* 0: nothing ran */
		_Atomic uint64_t since_ns;        /* its worker had run so long when the turn was first seen */
	} watch;

	struct { /* luahost_gc.c */
		struct loop_deferred turn_end;
		bool generational, running; /* running: a cycle of the incremental collector is under way */
		size_t seen;                /* mem.allocated at the last look */
		uint64_t cycles;            /* stats.gc_cycles when it began */
		size_t start_bytes, owed;   /* when the next cycle begins; steps that were put off */
		struct hist pauses;
		struct metric *metric;
	} gc;

	struct luahost_stats stats;
	struct metric *metric[LUAHOST_METRICS];
	uint64_t metrics_due_ms;
};

static inline struct luactx *luahost_ctx(lua_State *L)
{
	struct luactx *ctx;
	memcpy(&ctx, lua_getextraspace(L), sizeof ctx);
	return ctx;
}

/* luahost_gc.c: asks for the look at the end of the turn. */
void luahost_turn_end(struct luahost *h);
/* luahost.c: L has stopped running, was sampled, late or over its budget, and `outer` runs again. */
void luahost_attend(struct luahost *h, lua_State *L, lua_State *outer);

static inline lua_State *luahost_running(struct luahost *h)
{
	return atomic_load_explicit(&h->running, memory_order_relaxed);
}

/* Around everything that runs Lua: says which state runs, for the budget. */
struct luarun {
	lua_State *outer;
};

static inline struct luarun luahost_enter(struct luahost *h, lua_State *L)
{
	struct luarun r = { luahost_running(h) };
	if (__builtin_expect(!r.outer, 1))
		atomic_store_explicit(&h->turn, atomic_load_explicit(&h->turn, memory_order_relaxed) + 1,
				      memory_order_relaxed);
	atomic_store_explicit(&h->running, L, memory_order_relaxed);
	return r;
}

/*
 * L has ended or waits. What can wait for the end of the loop's turn is done there, once for all that ran in it. True: held_ms may
 * say something.
 */
static inline bool luahost_leave(struct luahost *h, lua_State *L, struct luarun r)
{
	atomic_store_explicit(&h->running, r.outer, memory_order_relaxed);
	if (__builtin_expect(!h->gc.turn_end.queued, 0) && !r.outer)
		luahost_turn_end(h);
	if (__builtin_expect(!h->attention, 1))
		return false;
	luahost_attend(h, L, r.outer);
	return true;
}
/* For C functions that may run long: steps, about as much work as instructions, are done. Raises: the budget is used up. */
void luahost_spend(lua_State *L, uint32_t steps);
/* A coroutine of the script's own has ended while the budget is used up: stop who resumed it too. */
void luahost_spread(struct luahost *h, lua_State *L);
void luahost_raise_limit(struct luahost *h, bool raised); /* for reporting after memory ran out */

/* luahost_protected, but the error's text goes to error, if it is not NULL, and not to the log. */
int luahost_try(struct luahost *h, int (*fn)(lua_State *L, void *arg), void *arg, char *error, size_t error_size);

int luahost_cancel_made(lua_State *L, void *unused); /* luahost_clock.c; protected */

/* luahost_task.c */
void luahost_end_tasks(struct luahost *h);
void luahost_free_tasks(struct luahost *h);

/* luahost_code.c: pushes an environment for a file. */
void luahost_push_env(lua_State *L, struct luahost *h);
void luahost_drop_code(struct luahost *h, struct luacode **code);
/* luahost_reload.c: protected; new code sees `state` as it would be, then its changes are kept apart, or forgotten. */
int luahost_state_enter(lua_State *L, void *code);
int luahost_state_stage(lua_State *L, void *code);
int luahost_state_restore(lua_State *L, void *unused);
bool luahost_push_module_function(lua_State *L, const char *name, size_t n); /* "module.function" of the running code */

/* luahost_lib.c: fills the table of globals on top of the stack. */
void luahost_open_libraries(lua_State *L);
/* luahost_guard.c: in the table of globals at base, what could run for ever inside one C call no longer can. */
void luahost_guard_libraries(lua_State *L, int base);
/* luahost_gc.c */
void luahost_gc_open(struct luahost *h);
int luahost_gc_room(struct luahost *h, uint32_t texts); /* ERR_NOMEM */
/* luahost_see.c: a request waits, and nobody looks yet. */
void luahost_slow_watch(struct luahost *h);
/* luahost_profile.c: a sample was asked for in a turn that has ended, on L. */
void luahost_profile_give_up(struct luahost *h, lua_State *L);
/* luahost_clock.c; the task, which waits, is resumed, if it still does then. */
void luahost_wake_after(struct luahost *h, uint64_t task, uint64_t ms);
int luahost_clock_lib(lua_State *L);
int luahost_random_lib(lua_State *L); /* luahost_random.c */
void luahost_free_timers(struct luahost *h);
/* luahost_metrics.c */
void luahost_metrics_open(struct luahost *h);
void luahost_metrics_write(struct luahost *h);
