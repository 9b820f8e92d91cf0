#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/env.h"
/*
 * env_sim: a whole cluster in one process and one thread, from one seed, repeatable to the last byte.
 *
 * It implements common/env.h over a virtual clock and one heap of events; this header is what a test
 * says to it. Services are the very objects of the real programs, only linked with another library.
 *
 * World:   one at a time per process. Everything random in it comes from its seed; two runs of the same
 *          seed give the same sim_hash, whatever ran before, whatever argv and environment are.
 * Process: main_fn runs as main() would, on a stack of its own; it may start loops and return, or join
 *          them. The process has ended when main_fn has returned and its loops have ended. Each start of
 *          it (incarnation) has its own memory; dying forgets that memory, no code of it runs any more.
 * Outside: a test's own code (what is not called by a simulated process) runs outside of virtual time
 *          and of the processes' memory. What main_fn and its callbacks do is inside: what they allocate dies with
 *          the process. To keep a record of what happened, bracket it with sim_outside / sim_inside.
 * Time:    a call that would block (files, joining) costs virtual time; the other loops go on
 *          meanwhile, and the process may be killed in the middle of it. Computing costs a little.
 * Threads: one, for everything.
 * Linking: tests/sim is linked without PIE and with malloc and its family, time, clock wrapped (Makefile: SIM_LDFLAGS).
 * Names:   of processes; NULL is any. "db" is the database.
 */
struct sim;
struct sim_process;

/* ---- the world -------------------------------------------------------------------------------------- */

struct sim *sim_new(uint64_t seed);
void sim_free(struct sim *w);  /* NULL is fine */
struct sim *sim_current(void); /* the one world, NULL if there is none */
/* From here on as another seed: chance and the faults it brings are drawn anew, everything that is there stays. */
void sim_reseed(struct sim *w, uint64_t seed);
uint64_t sim_seed(const struct sim *w);
uint64_t sim_now_ns(const struct sim *w);
uint64_t sim_events(const struct sim *w); /* handled so far */
uint64_t sim_hash(const struct sim *w);   /* rolling, over everything that happened */
/* A pointer of the test's own, kept for it. */
void sim_user_set(struct sim *w, void *user);
void *sim_user(const struct sim *w);
/* A folder of the real machine that every simulated one can read below its own files: sources, schema, configuration. */
void sim_root(struct sim *w, const char *dir);

/* The test's own chance: of the seed, but apart from what the world draws. */
uint64_t sim_random(struct sim *w, uint64_t below);              /* 0 .. below-1 */
uint64_t sim_between(struct sim *w, uint64_t min, uint64_t max); /* both included */
bool sim_chance(struct sim *w, uint32_t ppm);

/* A broken invariant; the first one is kept and ends sim_until and sim_run_ms. */
void sim_fail(struct sim *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *sim_failure(const struct sim *w); /* NULL: none */
#define sim_check(w, cond, ...) ((cond) ? (void)0 : sim_fail(w, __VA_ARGS__))

/* A line in the trace; with sim_verbose the last SIM_TRACE_LINES lines are kept, and printed by sim_trace_print. */
#define SIM_TRACE_LINES 200
void sim_trace(struct sim *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_verbose(struct sim *w, bool on);
void sim_trace_print(struct sim *w);

/* Between these, code of a simulated process is outside: what it allocates outlives the process. */
struct sim_scope {
	void *was;
};
struct sim_scope sim_outside(void);
void sim_inside(struct sim_scope scope);

/* ---- running ---------------------------------------------------------------------------------------- */

bool sim_step(struct sim *w);                /* one event; false: nothing will ever happen again */
bool sim_run_ms(struct sim *w, uint64_t ms); /* false: a failure was recorded */
/* Runs until done(arg), at most ms; false: time is up, nothing is left to happen, or a failure was recorded. */
bool sim_until(struct sim *w, uint64_t ms, bool (*done)(void *arg), void *arg);
/* fn(arg), outside, in so many microseconds. */
void sim_at(struct sim *w, uint64_t in_us, void (*fn)(void *arg), void *arg);

/* ---- processes --------------------------------------------------------------------------------------- */

/* host is an address ("10.0.0.1"); "127.0.0.1" and "localhost" lead to the own host. arg must outlive the world. */
struct sim_process *sim_process(struct sim *w, const char *name, const char *host,
				void (*main_fn)(struct env *env, void *arg), void *arg);
struct sim_process *sim_find(struct sim *w, const char *name);
const char *sim_name(const struct sim_process *p);
bool sim_alive(const struct sim_process *p);
unsigned sim_starts(const struct sim_process *p); /* incarnations so far */
void sim_kill(struct sim_process *p);             /* kill -9: written data stay, sockets are closed by the system */
void sim_restart(struct sim_process *p);          /* starts it again; alive: kills it first */
/* Whenever it dies or ends it is started again after min..max. max 0: off. */
void sim_supervise(struct sim_process *p, uint32_t min_ms, uint32_t max_ms);
void sim_signal(struct sim_process *p, int signo);
/* fn(env, arg) on a thread of its own in the process. */
void sim_thread(struct sim_process *p, void (*fn)(struct env *env, void *arg), void *arg);
/* Power off: all processes of the host die, what was not synced is lost or torn. Restart them one by one. */
void sim_crash_host(struct sim *w, const char *host);
void sim_clock_step(struct sim *w, const char *host, int64_t us); /* its wall clock jumps */
void sim_pause(struct sim_process *p, uint32_t ms);               /* SIGSTOP for a while */

/* The process dies at its nth pass of the failpoint from now on (name NULL: of any). */
void sim_failpoint(struct sim *w, const char *process, const char *name, unsigned nth);
uint64_t sim_failpoint_passes(const struct sim *w, const char *name); /* so far, of all processes */

/* ---- chances: drawn from the seed by sim_new, a test may set them --------------------------------------- */

struct sim_chances {
	/* scheduling: how late a loop runs, and how often very late */
	uint32_t wake_us_max, hiccup_ppm, hiccup_us_max;
	/* links */
	uint32_t delay_us_min, delay_us_max, spike_ppm, spike_us_max;
	uint32_t split_ppm;              /* a delivery comes in pieces */
	uint32_t short_ppm;              /* a read or write takes less than it could */
	uint32_t reset_ppm;              /* a delivery resets the connection instead */
	uint32_t buffer_min, buffer_max; /* bytes a connection holds per direction */
	/* disks */
	uint32_t write_us_max, sync_us_min, sync_us_max;
	uint32_t write_error_ppm, sync_error_ppm, read_error_ppm;
	/* database */
	uint32_t query_us_min, query_us_max;
	uint32_t db_cut_ppm;      /* a query's connection is lost before it is executed */
	uint32_t commit_lost_ppm; /* a COMMIT's answer is lost, executed or not */
	uint32_t deadlock_ppm;    /* a writing statement is refused with 1213 */
	uint32_t db_no_arrays;    /* the server is one that takes no arrays (env_db_bulk) */
	/* failpoints: a pass kills the process */
	uint32_t failpoint_ppm;
};
struct sim_chances *sim_chances(struct sim *w);
void sim_calm(struct sim *w); /* no faults from now on: small delays only (what is stalled, cut or full stays so) */

/* ---- links -------------------------------------------------------------------------------------------- */

void sim_link_reset(struct sim *w, const char *a, const char *b);           /* living connections, both sides */
void sim_link_refuse(struct sim *w, const char *a, const char *b, bool on); /* resets, then refuses new ones */
void sim_link_stall(struct sim *w, const char *a, const char *b, bool on);  /* nothing passes, nothing fails */
void sim_link_delay(struct sim *w, const char *a, const char *b, uint32_t min_us,
		    uint32_t max_us);                      /* max 0: as the world */
void sim_partition(struct sim *w, const char *a, bool on); /* stalls it towards everybody */
void sim_heal(struct sim *w);                              /* all links as at first */

/* ---- disks -------------------------------------------------------------------------------------------- */

void sim_disk_full(struct sim *w, const char *host, bool on);
/* The next n appends (or syncs) on the host fail with ERR_IO. */
void sim_disk_fail(struct sim *w, const char *host, unsigned appends, unsigned syncs);
/* Reads and writes a host's file from outside: no time passes. load: malloc'ed and NUL-ended, negative if absent. */
ssize_t sim_file_load(struct sim *w, const char *host, const char *path, char **text);
void sim_file_store(struct sim *w, const char *host, const char *path, const void *text, size_t n);
void sim_file_remove(struct sim *w, const char *host, const char *path);

/* ---- database ------------------------------------------------------------------------------------------ */

/* Runs statements at once, from outside, committed. 0, or the database's error number with its words in sim_db_error. */
unsigned sim_db_run(struct sim *w, const char *sql);
const char *sim_db_error(const struct sim *w);
/* The committed rows of one SELECT: fn per row. Returns rows, or minus the error number. */
int sim_db_select(struct sim *w, const char *sql, void (*fn)(void *arg, unsigned columns, const char *const *cells),
		  void *arg);
/* One integer: the first cell; otherwise if there is none. */
int64_t sim_db_int(struct sim *w, const char *sql, int64_t otherwise);
void sim_db_down(struct sim *w, bool on); /* connections are lost, new ones refused; committed data stay */
void sim_db_hold(struct sim *w, bool on); /* queries are taken but not answered meanwhile */

/* ---- HTTP ---------------------------------------------------------------------------------------------- */

struct sim_http_answer {
	bool done;
	int err; /* 0, or ERR_UNAVAILABLE */
	int status;
	char *body; /* NUL-ended, freed by sim_http_release */
	size_t n;
	char content_type[64];
};
/*
 * Sends a request to a process (by name) from outside and runs the world until the answer is there, at most ms. headers as in
 * env_http_reply. Returns the status or a negative error.
 */
int sim_http(struct sim *w, const char *process, uint16_t port, const char *method, const char *path_and_query,
	     const char *const *headers, const void *body, size_t n, uint32_t ms, struct sim_http_answer *a);
void sim_http_release(struct sim_http_answer *a);
/* For a simulated server: part of the answer to a request that was asked by env_http_stream; env_http_reply ends it. false:
 * nobody waits for it any more. */
bool sim_http_piece(struct env_http_request *r, const void *bytes, size_t n);
