#pragma once
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include "common/lua_msg.h"
#include "common/luahost.h"
#include "common/luamem.h"
/*
 * What the parts of luahost share: luahost.c (life, protected calls, budget), luahost_task.c (tasks and queues),
 * luahost_code.c (loading), luahost_find.c (what is loaded), luahost_reload.c (switching), luahost_lib.c (the libraries of
 * scripts), luahost_guard.c, luahost_clock.c (timers), luahost_report.c (errors), luahost_see.c and luahost_profile.c (looking
 * inside), luahost_gc.c, luahost_metrics.c.
 * Private to them.
 *
 * Threads: owner worker only, but what luahost_watch touches.
 */
#define LUAHOST_POOL_MAX      1024 /* coroutines kept for reuse */
#define LUAHOST_OVER_BUDGET   "stopped: it ran for more than its budget"
#define LUAHOST_METRICS       13
#define LUAHOST_MESSAGE_MAX   300 /* of an error, for a person */
#define LUAHOST_TRACEBACK_MAX 1200

struct luatask;
struct luarun { /* something of Lua's that runs */
	lua_State *L;
	struct luatask *task; /* in whose name; NULL: none, a file is loaded */
	struct luarun *outer; /* who has started or resumed it; NULL: the loop */
};
struct luactx { /* in every lua_State's extra space: a pointer to one of these */
	struct lua_msg msg;
	struct luahost *host;
	struct luatask *task; /* NULL: the main state, or a coroutine of the script's own */
};

/* What most tasks never are: one look says so. */
enum {
	LUATASK_ASKED = 1,        /* luatask_wait was called */
	LUATASK_WAITS = 2,        /* it does */
	LUATASK_TOLD = 4,         /* luahost_see.c has logged that it waits too long */
	LUATASK_ABORTED = 8,      /* luatask_abort was called: no wait begins any more */
	LUATASK_PUSH_FAILED = 16, /* err holds what push answered */
	LUATASK_STOPPED = 32 /* its budget was used up: it was left where it stood, the host's stop_text says where */
};
struct luatask {           /* a slot; its coroutine stays with it */
	struct luarun run; /* L: its coroutine, NULL: none; outer: NULL unless it runs inside of another */
	struct luactx ctx;
	struct luajob *job;  /* NULL: the slot is free */
	unsigned unusual;    /* of the above; 0 in a free one */
	uint32_t generation; /* how many tasks the slot has had */
	struct luatask *next_free;
	struct luaresult good; /* what done gets if all is well: only n differs from one time to the next */
	uint32_t place;        /* in the host's list + 1 */
	int err;
	int ref;                              /* what keeps its coroutine alive */
	uint64_t since_ms;                    /* while it waits: when it began to */
	int (*push)(lua_State *L, void *arg); /* for the resumption */
	void *push_arg;
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
	/* the innermost whose top raised */
	const struct luasrc_file *failed;
};

struct luatimer;
struct luatimer_call;
struct luatimer_chunk;
struct luahost {
	/*
	 * What each start looks at and writes, in one line of the cache: a task that ends at once is some 50 instructions, and
	 * each further line makes it slower by as much as four of them.
	 */
	_Alignas(64) struct luarun *_Atomic run; /* the innermost; NULL: nothing runs, which the watch asks too */
	struct luatask *ready;           /* who gets the next job, unless it still has one; NULL: one of the pool */
	_Atomic uint64_t turn;           /* number of the outermost run, or of the last one; read by the watch */
	uint64_t started;                /* for the statistics */
	volatile sig_atomic_t attention; /* over, late or sampling may be set, or the turn's end is not asked for */

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
	struct luatask *pool; /* free ones with a coroutine, beside ready */
	struct luatask *bare; /* free ones without */
	uint64_t waiting;     /* how many wait */
	uint32_t held_ms;     /* for so long has what has just run held the thread, if the watch saw it; else 0 */
	struct luaending *ending;
	struct luatimer_chunk *timer_chunks; /* luahost_clock.c */
	struct luatimer *timer_free;
	struct luatimer_call *timer_calls; /* for reuse */
	bool closing;
	bool guarded;      /* luahost_guard_tables was called */
	struct timer slow; /* looks for requests that wait too long */

	/* the budget: what the signal handler looks at, beside run and turn */
	volatile sig_atomic_t over; /* the hook is set and raises */
	lua_State *stopped;         /* it has raised in this one, whose hooks may be off since; NULL: looked at */
	char stop_text[LUAHOST_MESSAGE_MAX];      /* of the task that was stopped last */
	volatile sig_atomic_t late;               /* the watch has come upon this turn again */
	volatile sig_atomic_t sampling;           /* the hook is set and takes a sample */
	struct luaprofile *_Atomic profile;       /* NULL: none is made */
	_Atomic uint64_t interrupted;             /* the turn that the watch has come upon again */
	bool counting;                            /* no interrupts here: instructions are counted instead */
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
/* luahost.c: r has ended or waits, and there is something to look at: for the budget, the profile, the end of the loop's turn. */
void luahost_attend(struct luahost *h, const struct luarun *r);

static inline struct luarun *luahost_run(const struct luahost *h)
{
	return atomic_load_explicit(&h->run, memory_order_relaxed);
}

/* Whose code runs now; NULL: none, or a file is loaded. */
static inline struct luatask *luahost_current(const struct luahost *h)
{
	const struct luarun *r = luahost_run(h);
	return r ? r->task : NULL;
}

static inline uint64_t luatask_handle(const struct luatask *t)
{
	return (uint64_t)t->generation << 32 | t->place;
}

/*
 * From here on r runs, inside of r->outer. Signals come at any time, and their handler walks what runs from the innermost on, for
 * the least of the budgets: so the compiler must not move what was written of it behind the store that shows it.
 */
static inline void luahost_begin(struct luahost *h, struct luarun *r, const struct luarun *outer)
{
	if (__builtin_expect(!outer, 1))
		atomic_store_explicit(&h->turn, atomic_load_explicit(&h->turn, memory_order_relaxed) + 1,
				      memory_order_relaxed);
	atomic_signal_fence(memory_order_release);
	atomic_store_explicit(&h->run, r, memory_order_relaxed);
}

/* What ran has ended or waits, and outer goes on. Only then what its signals have left is looked at, and its memory may go. */
static inline void luahost_end(struct luahost *h, struct luarun *outer)
{
	atomic_store_explicit(&h->run, outer, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
}

/* The same, with the look. What can wait for the end of the loop's turn is done there, once for all that ran in it. */
static inline void luahost_leave(struct luahost *h, const struct luarun *r)
{
	luahost_end(h, r->outer);
	if (__builtin_expect(h->attention, 0))
		luahost_attend(h, r);
}

/* Around everything that runs Lua and is no task: says which state runs, for the budget, in the name of who runs already. */
static inline void luahost_enter(struct luahost *h, struct luarun *r, lua_State *L)
{
	*r = (struct luarun){ L, luahost_current(h), luahost_run(h) };
	luahost_begin(h, r, r->outer);
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
uint64_t luahost_tasks(const struct luahost *h); /* how many run or wait */
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
/* Where an error says no place by itself, as a table or the end of the memory: that file. NULL: nowhere. */
void luahost_name_file(const struct luasrc_file *f, char *error, size_t size);
/* What is wrong with such a name, as far as can be known before it is called; NULL: nothing. Leaves values on the stack. */
const char *luahost_function_trouble(lua_State *L, const char *name);

/* luahost_lib.c: fills the table of globals on top of the stack. */
void luahost_open_libraries(lua_State *L);
/* luahost_guard.c: in the table of globals at base, what could run for ever inside one C call no longer can. */
void luahost_guard_libraries(lua_State *L, int base);
/* From now on scripts cannot change the libraries' tables. Called again it does nothing. */
void luahost_guard_tables(lua_State *L);
/* luahost_gc.c */
void luahost_gc_open(struct luahost *h);
int luahost_gc_room(struct luahost *h, uint32_t texts); /* ERR_NOMEM */
/* luahost_see.c: a request waits, and nobody looks yet. */
void luahost_slow_watch(struct luahost *h);
/* luahost_profile.c: a sample was asked for in a turn that has ended, on L. */
void luahost_profile_give_up(struct luahost *h, lua_State *L);
/*
 * luahost_report.c: the first line of the error on top of co: its text, what a task's __tostring says, or a table's plain
 * fields. What fails in that is passed over.
 */
void luahost_error_text(struct luahost *h, lua_State *co, char *out, size_t size);
/* Where co stands; "" if there is no memory to say it. */
void luahost_traceback(struct luahost *h, lua_State *co, char out[LUAHOST_TRACEBACK_MAX]);
/* Counts and logs the error on top of the task's coroutine, with its traceback. */
void luahost_report(struct luahost *h, struct luatask *t, int status, char message[LUAHOST_MESSAGE_MAX]);
/* luahost_clock.c; the task, which waits, is resumed, if it still does then. */
void luahost_wake_after(struct luahost *h, uint64_t task, uint64_t ms);
int luahost_clock_lib(lua_State *L);
int luahost_random_lib(lua_State *L); /* luahost_random.c */
void luahost_free_timers(struct luahost *h);
/* luahost_metrics.c */
void luahost_metrics_open(struct luahost *h);
void luahost_metrics_write(struct luahost *h);
