#pragma once
#include "common/buf.h"
#include "common/config.h"
#include "common/env_sim_sql.h"
#include "common/luahost.h"
#include "rpc/app.h"
#include "rpc/peer.h"
#include "rpc/service.h"
/*
 * luatest: runs the tests of a service's Lua (SERVICE/lua/tests) in one process: `loquat test SERVICE`.
 *
 * The service's code and the library app are the real ones, with the service's own C; what lies outside of the worker is
 * the test's: the linker puts the functions of outside.c in place of the calls, the log, the database, the clock and
 * chance. So a test has a worker, a Lua state, tables and a time of its own, and takes half a millisecond.
 *
 *   main.c     the command line                             plan.c     which tests run, on all cores
 *   world.c    one test's worker; its time                  calls.c    calls, requests, fakes, sessions
 *   outside.c  what the linker puts in place                lib.c      what tests see as `test`, with test.lua
 *   store.c    tables and records                           report.c   TAP, and words for people
 *   cover.c    which lines ran
 *
 * Threads: one, in each of its processes.
 */

/* ---- what all tests of a service share ----------------------------------------------------------------------- */

struct cover;
struct tester {
	struct env *env;
	struct config *config;
	struct route_table *routes;
	struct schema *schema;
	struct metrics *metrics;
	struct luasrc *src;
	struct service_def def; /* with the library test */
	struct service_library libraries[17];
	struct route_row row;
	char id[32], home[ENV_PATH_MAX];
	char *prelude; /* deploy/luatest/test.lua */
	size_t prelude_n;
	char **ddl; /* deploy/schema/NNN-name.sql, in order */
	size_t ddl_n;
	struct cover *cover; /* NULL: lines are not counted */
	struct compiled {
		const char *text;
		struct buf code;
	} * compiled; /* of src's files and the prelude, by their text */
	size_t compiled_n;
	bool proven; /* a world with these files has been opened */
};
struct compiled *tester_compiled(struct tester *t, const char *text); /* NULL: none of its files */
/* The services that have Lua and C; NULL: none of that name. */
const struct service_def *luatest_service(const char *name);

/* ---- one test's world ---------------------------------------------------------------------------------------- */

struct world;
struct world_event {
	struct world_event *next;
	void (*run)(struct world *x, void *arg);
	void *arg;
};

/* A call or request under way, or over; all are kept until the test ends. */
struct call {
	const struct msg_method *method; /* NULL: an HTTP request */
	struct world *world;
	uint64_t handle, deadline_ms, sid, trace;
	struct buf key, uid, body, once;
	char from[32];
	bool json, send, done, outer; /* outer: asked by the test itself */
	void (*on_answer)(void *arg, const struct rpc_answer *a);
	void *arg;
	rpc_gone *gone;
	void *gone_arg;
	struct timer timeout;
	int err, status;
	enum effect effect;
	struct buf answer, message;
	uint64_t task; /* of the test, which waits for it; 0: nobody */
	struct call *next_settled;
};
struct record {
	struct record *next;
	char keys[SQLLOG_KEY_MAX];
	char *sql;
};

struct world {
	struct tester *t;
	struct service service;
	struct worker worker, *workers[1];
	struct rpc_client client;
	struct loop *loop;
	uint64_t now_ns, wall_us, limit_ns, rng;
	struct world_event *events, **events_last;
	struct call *settled,
		**settled_last; /* for whose ends the test waits: it goes on when all that is due has run */
	struct call **call;
	size_t calls, calls_cap;
	struct handler {
		rpc_handler *fn;
		void *arg;
	} * handler;    /* by the method's index */
	int *fake;      /* registry references, by the method's index */
	struct buf log; /* what the scripts logged */
	uint64_t lsn;   /* of the last record */
	int record_err; /* what the next records get instead of being taken; ERR_UNKNOWN: taken, and lost */
	bool db_away;   /* reads answer unavailable */
	struct record *records, **records_last;
	struct db db;
	bool db_open;
	int opened;     /* 1: init_service has ended; negative: it failed */
	char fail[512]; /* why the service does not start */
	/* the test */
	bool ended, ok;
	struct buf why;
	struct luajob job;
	int index;
};
/* The one that runs: the functions of outside.c have no other way to it. */
extern struct world *luatest_world;

/* A worker with the service's code, after its init_service. Negative: x->fail says why. */
int world_open(struct world *x, struct tester *t);
void world_close(struct world *x);
void world_event(struct world *x, void (*run)(struct world *x, void *arg), void *arg);
void world_settled(struct world *x, struct call *c);
/* Runs what is due, or goes on to the next time at which something is. False: nothing will ever happen any more. */
bool world_turn(struct world *x);
uint64_t world_random(struct world *x);
lua_State *world_state(struct world *x);

/* calls.c */
struct call *call_new(struct world *x, const struct msg_method *m);
void call_end(struct call *c, int err, enum effect effect, const char *message, struct span body);
void call_deliver(struct call *c); /* soon, not now */
void calls_free(struct world *x);
struct call *call_find(struct world *x, uint64_t handle); /* NULL: none that is open */
void calls_attrs(struct call *c, const struct rpc_attr *attrs, unsigned n);
bool call_is_own(const struct world *x, const struct msg_method *m); /* the service under test answers it */
int call_push_result(lua_State *L, void *call);
const struct call *call_of_fake(const struct luajob *job); /* the call a fake answers; NULL: it is no fake's */

/* store.c */
void store_close(struct world *x);
/* Runs sql; 0, or the error's number, whose words are in r. r is the caller's to release. */
unsigned store_run(struct world *x, const char *sql, size_t n, struct result *r);
int store_append(struct world *x, struct sql_record *r, uint64_t *lsn);

/* lib.c */
int test_library(lua_State *L);
int test_count(struct world *x, const char *module); /* loads a file of tests; negative: x->why */
const char *test_name(struct world *x, int index, struct buf *out);
void test_start(struct world *x, int index);

/* cover.c */
struct cover *cover_new(struct luasrc *src);
void cover_free(struct cover *c);
void cover_hook(struct cover *c, lua_State *L); /* before anything runs in it */
struct cover_line {
	const char *path;
	unsigned lines, ran;
	char missing[200]; /* "12-14 20" */
};
bool cover_file(struct cover *c, size_t index, struct cover_line *out); /* false: there are no more */
