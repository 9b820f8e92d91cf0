#pragma once
#include "common/buf.h"
#include "common/cache.h"
#include "common/dbread.h"
#include "common/lua_json.h"
#include "common/token.h"
#include "rpc/app.h"
#include "rpc/keys.h"
#include "rpc/once.h"
#include "rpc/player.h"
#include "rpc/peer.h"
#include "rpc/rests.h"
#include "rpc/ring.h"
/*
 * What the parts of app share, private to rpc/: app.c (life, requests), app_job.c (a task's end: commit and answer),
 * app_once.c and app_once_read.c (once-methods), app_moves.c (keys that move), app_filter.c (before and after a request),
 * app_session.c (sessions and pushes), app_unreached.c (functions that nobody can call), app_console.c (what an operator
 * types). The libraries: app_lib.c (app), with app_rpc.c (its calls), app_task.c (its tasks), app_room.c and app_seat.c
 * (its rooms); app_db.c (db), app_cache.c (cache), app_metrics.c (metrics).
 *
 * Threads: owner worker only.
 */
#define APP_SESSION_WAITING_MAX 64 /* requests of one session that wait */
#define APP_SESSION_IDLE_MS     60000
#define APP_SESSION_UNLOGGED_MS 1000 /* without a uid: whoever connects may make these */
#define APP_SESSION_BUCKETS     4096
#define APP_CACHE_METRICS       9
#define APP_CALLING             1024
#define APP_CONFIG_KNOWN        256 /* keys that are absent, of which is known that they may be there */
#define APP_NESTED_MAX          64  /* calls of one method with one key inside each other */

enum app_job_kind { APP_HANDLER, APP_REMOTE, APP_HOOK, APP_TASK, APP_HTTP };

struct app_part { /* of a job's input */
	uint32_t at, n;
};

/* A once-method's job: who it is, and what became of it before its function ran. */
struct app_job_once {
	struct app_part key, client, owner;
	uint64_t fingerprint;
	struct once_entry *entry; /* its function runs: the end has to be told */
	struct once_waiters *waiters;
	struct once_waiter waiter;
	struct timer patience; /* until then it waits */
	uint64_t task;
	bool answered; /* out holds the first's answer */
	int err;       /* or it ended so, with why */
	enum effect effect;
};

struct app_job {
	struct luajob job;
	/* what a task's call to another service looks at: of all that wait, so it lies together */
	struct app *app;
	enum app_job_kind kind;
	unsigned n_changes;
	bool json, relaxed, sync, committed;
	bool called; /* others, by calls that may have changed something there */
	bool begun;  /* its turn has come */
	bool moved;  /* its key was given up since it came: it records nothing any more */
	bool recording;
	uint64_t trace, deadline_ms;
	struct app_wait *call;                        /* the call it waits for, or NULL */
	struct app_job *next_calling, **prev_calling; /* among those who wait for a call; prev NULL: it does not */

	struct app_job *next_free, *next_made;
	const struct msg_method *method;
	struct app_session *session;
	uint64_t handle;
	uint64_t ticket; /* of a notification among what runs, or 0 */
	uint64_t lsn;    /* of its record, while its changes are applied; 0: none */
	uint64_t sid;
	struct timer deadline; /* while it waits and the caller has set a time */
	int stopped;           /* why nobody waits for it any more, or 0 */
	char instance[32];     /* who calls */
	uint32_t instance_worker, once_attempt;
	uint64_t instance_epoch, once_seq, once_first;
	char why[LUA_WHY_MAX];   /* what is wrong with the request */
	struct buf in;           /* key, and the parts below */
	uint32_t key_n, keys_at; /* keys_at: of the record's keys, at its end */
	struct app_part body, uid;
	struct app_job_once once;
	/* what the task has collected */
	struct sql_record record; /* if recording */
	int changes;              /* registry reference of the list of n_changes staged ones, or LUA_NOREF */
	struct {
		char name[32], value[PLAYER_NAME_MAX + 1]; /* a role's name may be an attribute */
	} attr[FRAME_ATTRS_MAX];
	unsigned attrs;
	/* the end */
	struct buf out;
	struct sqllog_waiter waiter;
	int waiting_err; /* of a db.commit in the middle */
	/* APP_HOOK, APP_TASK, APP_HTTP */
	const char *hook;
	int function;                            /* registry reference of a table {function, arguments…} */
	void (*then)(struct worker *w, int err); /* of a hook that is waited for */
	bool flag;
	struct app_http http;
	int http_status;
	char http_method[8], http_path[256], http_signature[160];
};

/* What a task waits for elsewhere. app_close forgets those that are still open. */
struct app_wait {
	struct app_wait *next, **prev;
	struct app *app;
	uint64_t task;
	uint64_t call; /* handle for rpc_cancel, or 0 */
	bool pooled;   /* its block is one of APP_WAIT_BYTES */
};
#define APP_WAIT_BYTES 128 /* of nearly all: of each call */

struct app_room;
struct app_roster;
/* A session that is in a room of this worker. */
struct app_seat {
	struct app_seat *next, **prev; /* in its bucket */
	struct app_roster *roster;
	uint64_t sid, skipped; /* skipped: the number of the push that leaves it out */
	struct app_room **room;
	unsigned rooms;
	char uid[];
};
#define APP_SEAT_BUCKETS 4096
#define APP_SEAT_ROOMS   64 /* rooms of one session on one worker */
struct app_seats {
	struct app_seat *bucket[APP_SEAT_BUCKETS];
	struct app_roster *rosters; /* by connector and worker */
	struct loop_deferred ask;
	struct timer again;
	uint64_t pushes;
	int rooms; /* registry: name -> room, of all that are not empty */
	struct metric *rooms_there, *members_there, *left;
	bool closed;
};

struct app_once_read;
struct app_once {
	struct once_server *server;
	struct app_once_read *reads;
	struct timer tick;
	struct once_figures told;
	struct metric *running, *stored, *bytes, *repeats, *forgotten, *refused;
};

struct app_session {
	struct app_session *next, **prev; /* in its bucket */
	struct app_session *next_unlogged;
	bool unlogged;
	uint64_t sid, used_ms;
	char instance[32];
	uint64_t uid_hash;
	int table; /* registry reference of what scripts see */
	struct luaqueue queue;
};

#define APP_DETAINED_MAX 10000 /* requests that wait for their keys; more get busy */
#define APP_HOOK_MOVED   "on_moved"
/* app_moves.c: what is held, and who waits for what is coming. */
struct app_moves {
	bool on; /* else all keys are ours for ever */
	struct ring ring;
	uint64_t turn;                 /* of the ring */
	bool taking;                   /* init.lua is told, to take; else to give up */
	uint64_t told_turn;            /* of what it was told last */
	unsigned telling;              /* hooks under way */
	struct app_job *first, **last; /* jobs that wait for their key, by next_free */
	unsigned waiting;
	uint64_t until_ms; /* what runs for keys that are given up may end until then */
	struct timer quiet, overdue;
	struct metric *waits;
};

struct app {
	struct worker *worker;
	const struct schema *schema; /* the worker's; while files are prepared, the one they are prepared for */
	struct luahost *host;
	uint32_t budget_ms;
	struct app_job *free_jobs, *made_jobs;
	struct app_job *calling[APP_CALLING]; /* by trace: who waits for a call */
	struct app_wait *waits, *free_waits;
	bool closing, filters; /* init.lua has before or after */
	struct buf woken;      /* tasks, by app.wake, that go on at the end of this turn */
	size_t woken_at;
	struct loop_deferred wake;
	struct timer wake_more;
	struct app_session *bucket[APP_SESSION_BUCKETS];
	struct app_session *unlogged;
	size_t sessions;
	struct timer sweep, sweep_unlogged;
	struct rests rests;
	struct metric *rested;
	struct app_seats seats;
	struct dbread *dbread;         /* NULL: the service has no database */
	const struct msg_method *push; /* connector.connectorRemote.push, kick, attr */
	const struct msg_method *kick;
	const struct msg_method *attr;
	struct app_push_type *push_type; /* app_session.c: sorted by name */
	size_t push_types;
	struct app_once once;
	struct app_moves moves;
	struct buf scratch, text;
	struct cache *cache;     /* NULL until something is put in */
	uint64_t cache_lsn;      /* highest one put in, 0: nothing in it is dirty */
	struct timer cache_tick; /* writes its figures */
	struct metric *cache_metric[APP_CACHE_METRICS];
	uint32_t config_known; /* app_lib.c */
	int console;           /* registry: what an operator's lines see, or LUA_NOREF */
};

extern const char app_job_tag; /* luajob.tag of our jobs */

struct app *app_of(lua_State *L);
struct app_job *app_job_of(lua_State *L); /* the running task's job; NULL: not one of ours */

/* app_job.c */
struct app_job *app_job_new(struct app *a, enum app_job_kind kind);
struct app_job *app_job_http(struct app *a, const char *name,
			     const struct app_http *q); /* app.c; its push is not set yet */
void app_job_free(struct app_job *j);
void app_job_held(struct luajob *self, uint32_t ms);
void app_job_done(struct luajob *self, const struct luaresult *r);
/* The staged record goes out and the staged changes are applied; > 0: an lsn to wait for, 0: nothing to wait for, or ERR_*. */
int app_job_commit(struct app_job *j, uint64_t *lsn);
void app_job_record(struct app_job *j); /* the task collects a record from now on, if it does not yet */
void app_job_discard(struct app_job *j);
void app_job_watch(struct app_job *j, uint64_t handle); /* begins to look whether it is still waited for */
/*
 * Nobody waits for the answer any more (err: ERR_TIMEOUT, ERR_UNAVAILABLE). What has not begun does not begin, what has had no
 * effect is stopped where it waits; what may have had one runs on to its end, and so does a once-call: its caller asks
 * again. From the loop, not from inside the task. j may be gone after this.
 */
void app_job_stop(struct app_job *j, int err);
/* Appends the value at index to the job's answer, in the encoding its caller wants. */
int app_job_encode(struct app_job *j, lua_State *L, int index, char *why, size_t size);
/* Ends a job that has recorded nothing: its key is another instance's now, where its caller goes. */
void app_job_moved(struct app_job *j);
void app_job_refuse(struct app_job *j, int err, enum effect effect, const char *message);

/* app_unreached.c: logs what the code that begins to run has and nobody can call */
void app_unreached(struct app *a);

/* app_moves.c */
void app_moves_open(struct app *a);
void app_moves_close(struct app *a);
/* True: it is answered, or waits for its key and begins by itself. */
bool app_moves_detain(struct app *a, struct app_job *j);
bool app_moves_owns(const struct app *a, uint64_t key_hash);
bool app_moves_awaits(const struct app *a, uint64_t key_hash); /* it is coming here */
void app_job_begin(struct app_job *j);                         /* app.c: a request that may run */

/* app_rpc.c: n bytes that begin with a struct app_wait; app_wait_free when the end was told. Never NULL. */
void *app_wait_new(struct app *a, uint64_t task, size_t n);
void app_wait_free(struct app_wait *w);
const char *app_wait_name(const struct app_wait *w); /* of an app_job's call: the method that is called */
/* Whether j is one of a cycle of calls that would never end; then its why names the methods. */
bool app_cycle(struct app_job *j);
void app_calling_end(struct app_job *j);
void app_waits_close(struct app *a);          /* for good: the pool goes too */
void app_push_calls(lua_State *L, bool send); /* what app.rpc is, or app.send */

/* app_job.c: init.lua is told of each key of a record that did not become durable. */
void app_keys_lost(struct app *a, const char *keys);

/*
 * app_task.c. A script is about to wait: raises with changes collected (between check and change of a key nothing may wait),
 * and in on_moved, which others wait for.
 */
void app_check_may_wait(lua_State *L);
void app_check_runs(lua_State *L); /* raises at the top of a file: what is only tried must not reach anybody */
void app_wake_task(struct app *a, uint64_t task); /* one that waits goes on at the end of this turn */
void app_wakes_open(struct app *a);
int app_task(lua_State *L);       /* app.task(fn, …) */
int app_wait(lua_State *L);       /* app.wait(queue) */
int app_wake(lua_State *L);       /* app.wake(queue) */
void app_task_open(lua_State *L); /* prepares what stands in a queue */

/* app_once.c */
void app_once_open(struct app *a);
void app_once_close(struct app *a);
/* In the task of a once-method: the request's table is on top. ERR_BAD_REQUEST, and the job's why */
int app_once_begin(lua_State *L, struct app_job *j);
void app_once_push_key(lua_State *L, const struct app_job *j);
/* Called instead of the method's function, with it and its arguments. */
int app_once_gate(lua_State *L);
/* Adds its answer, which is in out, to the record of its changes. */
int app_once_record(struct app_job *j);
void app_once_refuse(struct app_job *j, int err, enum effect effect, const char *message); /* its caller is told */
enum app_once_end { APP_ONCE_DONE, APP_ONCE_GONE, APP_ONCE_LOST };
void app_once_end(struct app_job *j, enum app_once_end how); /* not a once-method, or it did not run: nothing happens */
int app_once_load(lua_State *L);                             /* db.load_once(key) */
void app_once_publish(struct app_once *o);                   /* its figures */
/* The key of the owner's records: its name, if it stands in the log as it is and is short. */
void app_once_record_key(struct span owner, char out[80]);

/* app_once_read.c: who waits is told when it has been read, or could not be within APP_ONCE_READ_MS. */
#define APP_ONCE_READ_MS 5000
void app_once_load_owner(struct app *a, struct once_owner *o, struct span name, uint64_t key_hash);
void app_once_read_answer(struct app *a, struct once_entry *e);
void app_once_reads_close(struct app *a);
static inline struct sql_value text_value(struct span s)
{
	return (struct sql_value){ .type = SQL_TEXT, .s = { s.p, s.n } };
}

static inline struct sql_value int_value(uint64_t v)
{
	return (struct sql_value){ .type = SQL_INT, .i = (int64_t)v };
}

/* app_session.c */
void app_session_held(struct app_job *j,
		      uint32_t ms); /* the job, a session's, has held the worker for so long: rests.h */
uint32_t app_session_budget_ms(const struct app_job *j);
bool app_session_rests(const struct app_job *j); /* it must not begin */
struct app_session *app_session_get(struct app *a, const char *instance, uint64_t sid, struct span uid);
void app_sessions_open(struct app *a);
void app_sessions_close(struct app *a);
int app_session_open(lua_State *L); /* prepares the sessions' metatable */
/* The session's connector and number; raises when it is not one. */
const char *app_session_at(lua_State *L, int index, uint64_t *sid);
struct app_push {
	struct span route, body, supersedes; /* supersedes: what it replaces, or empty */
};
void app_push_types_open(struct app *a); /* which message a push carries, by option push of the .proto */
void app_push_types_close(struct app *a);
/* Route, message, options from index on; body is in a->text. Raises if the message is not of its route's type, or has no JSON. */
struct app_push app_push_read(lua_State *L, int index);
/* sids: packed; of one worker of one connector. */
void app_push_send(struct app *a, const char *connector, uint32_t worker, struct span sids,
		   const struct app_push *push);
int app_push(lua_State *L); /* app.push(target, route, message) */
int app_kick(lua_State *L); /* app.kick(session, reason) */

/*
 * app_seat.c: sessions in rooms, and how this worker learns that they have ended: it asks their connectors
 * (connectorRemote.gone) at once, then every 10 s; in between they say so (app.roomRemote.left).
 */
struct app_roster {
	struct app_roster *next;
	struct app *app;
	char connector[32];
	uint32_t worker;
	uint64_t hash;
	unsigned seats, asking;
	bool all, failed; /* all its seats are asked about next; the last question was not answered */
	struct buf ask;   /* the sids to ask about next */
	struct buf out;   /* app_room.c: of a push */
};
void app_seats_open(struct app *a);
void app_seats_close(struct app *a);
/* sid of connector, whose player is uid. */
struct app_seat *app_seat_get(struct app *a, const char *connector, uint64_t sid, struct span uid);
struct app_seat *app_seat_find(struct app *a, const char *connector, uint64_t sid); /* NULL: in no room here */
int app_seat_join(struct app_seat *s, struct app_room *r);                          /* ERR_FULL: in too many */
void app_seat_leave(struct app *a, struct app_seat *s, struct app_room *r);         /* s may be gone after it */
void app_seats_peer(struct app *a, const char *instance);                           /* it came */

/* app_room.c: library app.room; a room's member has ended */
int app_room_new(lua_State *L);  /* app.room(name, options) */
int app_room_list(lua_State *L); /* app.rooms(session) */
void app_room_open(lua_State *L);
void app_room_left(struct app *a, struct app_room *r, struct app_seat *s);
void app_room_forget(struct app_room *r); /* the worker ends */

/* app_db.c */
void app_db_open(struct app *a);
void app_db_close(struct app *a);
/* Puts the three values at the stack's bottom on the job's list of changes; nothing else is on the stack afterwards. */
void app_stage(lua_State *L, struct app_job *j);

/* app_cache.c */
void app_cache_open(struct app *a);
void app_cache_close(struct app *a);
/* A staged change of the cache, as apply_changes finds it: lifetime at 1 below key and value; value nil: it goes. */
void app_cache_apply(lua_State *L, struct app_job *j, int lifetime);
void app_cache_lost(struct app *a); /* a record did not become durable: what waits for one goes */

/* the libraries: push one table */
int app_lib(lua_State *L);
int app_db_lib(lua_State *L);
int app_cache_lib(lua_State *L);
int app_metrics_lib(lua_State *L);
/* app_filter.c: called with a client's request's method and its arguments, when init.lua has before or after. */
int app_filter_gate(lua_State *L);
void app_raise(lua_State *L, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
/*
 * The options at index are a table, or nil or none (false); names, ended by NULL, are those there are. Raises at another one, and
 * says what takes these: "app.room".
 */
bool app_options(lua_State *L, int index, const char *what, const char *const *names);
/* Pushes nil, word, message, effect; returns 4. */
int app_push_error(lua_State *L, int err, struct span message, enum effect effect);
