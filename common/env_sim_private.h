#pragma once
#include <setjmp.h>
#include <ucontext.h>
#include "common/env_sim.h"
#include "common/err.h"
/*
 * What the parts of env_sim*.c share. Nobody else includes it.
 *
 * All state of the world lives in region 0, a process' own memory in the region of its slot; regions have
 * fixed addresses and hand out the same ones for the same calls, so that a pointer's value repeats too.
 *
 * Threads: one: the processes' threads are fibers of it.
 */

/* ---- regions: env_sim_region.c ------------------------------------------------------------------------ */

#define SIM_SLOTS       128
#define SIM_WORLD_SLOT  0
#define SIM_STACKS      48 /* fibers of one process */
#define SIM_STACK_BYTES (1u << 20)
#define SIM_GUARD_BYTES (64u << 10) /* at its end; wider than any frame */

struct region;
struct region *region_get(unsigned slot); /* maps it at its first use */
void region_reset(struct region *r);      /* forgets all that is in it */
void *region_alloc(struct region *r, size_t n);
void *region_zalloc(struct region *r, size_t n);
void *region_realloc(struct region *r, void *p, size_t n);
void region_free(void *p);                         /* a block of any region */
char *region_stack(unsigned slot, unsigned index); /* its lowest usable byte */
/* Whose memory malloc gives out: NULL is the real heap. Returns what it was. */
struct region *region_enter(struct region *r);

void *w_alloc(size_t n); /* the world's own, zeroed; ends the program if there is none */
void *w_realloc(void *p, size_t n);
char *w_strdup(const char *s);
void w_free(void *p);

/* ---- chance --------------------------------------------------------------------------------------------- */

struct rng {
	uint64_t s[4];
};
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t below);
uint64_t rng_between(struct rng *r, uint64_t min, uint64_t max);
bool rng_chance(struct rng *r, uint32_t ppm);
uint64_t hash_bytes(uint64_t h, const void *p, size_t n);

/* ---- objects, events --------------------------------------------------------------------------------------- */

/*
 * What events point to. An event holds a reference; when the object is dead by then, nothing is called.
 * obj_kill drops the owner's reference; release frees it when the last is gone.
 */
struct obj {
	unsigned refs;
	bool dead;
	void (*release)(struct obj *o);
};
void obj_init(struct obj *o, void (*release)(struct obj *o)); /* one reference: the owner's */
void obj_ref(struct obj *o);
void obj_unref(struct obj *o);
void obj_kill(struct obj *o); /* dead from now on; drops the owner's reference */
void obj_free(struct obj *o); /* the plain release: the object is the block */

struct event {
	uint64_t at, seq;
	void (*fn)(struct sim *w, void *obj, uint64_t n);
	struct obj *obj;
	uint64_t n;
};

/* ---- fibers: every thread of a process has its own stack ------------------------------------------------------ */

struct fiber {
	struct obj obj;
	struct fiber *next; /* of its process */
	struct env *env;
	struct env_loop *loop; /* NULL: main, or a plain thread */
	void (*fn)(void *arg);
	void *arg;
	int stack;
	bool started, done;
	uint64_t burst_ns; /* what it computed since it was switched to */
	jmp_buf here;
};
struct fiber *fiber_new(struct env *env, void (*fn)(void *arg), void *arg);
void fiber_run(struct fiber *f); /* from the scheduler: until it yields */
void fiber_yield(struct sim *w); /* back to the scheduler; somebody must resume it */
void fiber_resume_in(struct fiber *f, uint64_t in_ns);
void fiber_block(struct sim *w, uint64_t ns); /* lets virtual time pass; outside of fibers a no-op */
_Noreturn void fiber_abandon(struct sim *w);  /* the running fiber's process is dead: never come back */

/* ---- what a loop has to do: a list of things that are ready ---------------------------------------------------- */

struct ready {
	struct ready *next, **prev; /* prev NULL: not listed */
	struct env_loop *loop;      /* NULL: detached */
	struct obj *obj;
	void (*run)(struct ready *r);
};
void loop_ready(struct ready *r); /* lists it once and lets the loop run soon; not attached: a no-op */
void ready_drop(struct ready *r);

/* ---- things a process owns in its system: given back when it dies ------------------------------------------------ */

struct owned {
	struct owned *next, **prev;
	void (*died)(struct owned *o, bool machine); /* machine: power off, nobody hears of it */
};
void owned_add(struct env *env, struct owned *o, void (*died)(struct owned *o, bool machine));
void owned_drop(struct owned *o);

/* ---- the world ------------------------------------------------------------------------------------------------------ */

struct text_pair {
	struct text_pair *next;
	char *name, *value;
};

struct link {
	bool stalled, refused;
	uint32_t delay_us_min, delay_us_max;
};

struct host {
	struct host *next;
	char name[ENV_ADDR_MAX];
	int64_t clock_us; /* its wall clock is off by this */
	uint16_t port_next;
	bool down; /* powered off until a process starts on it again */
	uint64_t mono_offset;
	struct disk *disk;
};

#define SIM_PROCESSES 160
struct sim_process {
	struct sim_process *next;
	struct sim *w;
	char name[64];
	struct host *host;
	void (*main_fn)(struct env *env, void *arg);
	void *arg;
	unsigned index; /* in the matrix of links; 0 is the database, 1 the outside */
	unsigned starts;
	struct env *env; /* NULL: not running */
	uint32_t supervise_ms_min, supervise_ms_max;
	uint64_t paused_until;
	struct obj life; /* of the identity: for events */
};

struct env {
	struct obj obj;
	struct sim *w;
	struct sim_process *p;
	struct region *region;
	unsigned slot;
	int pid;
	uint64_t mono_offset; /* its monotonic clock is the world's and this */
	uint64_t mono_last;
	uint64_t stacks; /* bitmap of those in use */
	struct fiber *fibers;
	struct owned *owned;
	struct env_loop *loops;
	unsigned fibers_alive;
};

struct env_loop {
	struct obj obj;
	struct env_loop *next;
	struct env *env;
	char name[32];
	struct env_loop_ops ops;
	void *arg;
	struct fiber *fiber;
	struct ready *ready, **ready_last; /* listed since the batch began */
	struct ready *batch;
	bool woken, stopping, ended, idle;
	uint64_t idle_from; /* the moment its last turn was over */
	uint64_t run_at;    /* when idle: the earliest moment it was told to run, ENV_NEVER: none */
	uint64_t run_gen;   /* of the event that counts */
	struct fiber *joiner;
	struct signal_handler *signals;
};

struct failplan {
	struct failplan *next;
	char process[64], name[64];
	unsigned left;
};
struct failcount {
	struct failcount *next;
	char name[64];
	uint64_t passes;
};

struct sim {
	uint64_t seed, now, hash, handled, seq;
	struct event *heap;
	size_t heap_n, heap_cap;
	struct rng rng_sched, rng_net, rng_disk, rng_db, rng_app, rng_test, rng_fail;
	struct sim_chances chances;
	struct fiber *fiber; /* running now; NULL: the scheduler or the test */
	bool fiber_gone;     /* it was abandoned: do not touch it */
	jmp_buf scheduler;
	struct host *hosts;
	struct sim_process *processes, **processes_last;
	unsigned process_count;
	uint64_t slots[SIM_SLOTS / 64];
	int pid_next;
	uint64_t object_next; /* numbers for the trace */
	struct link links[SIM_PROCESSES][SIM_PROCESSES];
	struct pipe *pipes;
	struct env_listener *listeners;
	struct env_http *https;
	struct text_pair *roots;
	struct db *db;
	struct failplan *failplans;
	struct failcount *failcounts;
	bool verbose;
	char *failure;
	void *user;
	char (*lines)[256]; /* ring of the trace */
	uint64_t lines_n;
};

uint64_t w_now(struct sim *w); /* with what the running fiber has computed */
void w_spend(struct sim *w, uint64_t ns);
void w_push(struct sim *w, uint64_t at, void (*fn)(struct sim *w, void *obj, uint64_t n), struct obj *obj, uint64_t n);
/* Everything that happens is noted: it goes into the hash, and into the trace when somebody listens. */
void w_note(struct sim *w, const char *kind, uint64_t a, uint64_t b);
void w_line(struct sim *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define w_say(w, ...) ((w)->verbose ? w_line(w, __VA_ARGS__) : (void)0)
struct host *w_host(struct sim *w, const char *name);
struct env *w_env(struct sim *w); /* of the running fiber, or NULL */

void process_maybe_ended(struct env *env);
void loop_signal(struct env_loop *l, int signo); /* delivers it to the loop's handlers */
bool loop_handles(const struct env_loop *l, int signo);

/* ---- parts ---------------------------------------------------------------------------------------------------------- */

unsigned link_index(struct sim *w, const char *process);
struct link *link_between(struct sim *w, unsigned a, unsigned b);
uint64_t link_delay_ns(struct sim *w, unsigned a, unsigned b);
bool net_is_own_host(const char *host);
bool net_listens(struct sim *w, const struct host *h, uint16_t port); /* sockets or HTTP */
uint16_t net_free_port(struct sim *w, struct host *h);
bool http_listens(struct sim *w, const struct host *h, uint16_t port);
struct disk *disk_new(struct sim *w, struct host *h);
void disk_machine_died(struct disk *d);
struct db *db_new(struct sim *w);
void db_links_reset(struct sim *w, const char *a, const char *b);
