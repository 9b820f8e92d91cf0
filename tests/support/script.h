#pragma once
#include <check.h>
#include <stdbool.h>
#include <string.h>
#include "common/luahost.h"
#include "tests/support/on_loop.h"
/*
 * script: a luahost on a real worker, and scripts run in it, for the tests of common/luahost.h.
 *
 * Threads: the test's own thread, but run_start, load and load_go: the worker's. Trouble fails the test.
 */
/* Under TSan a signal is delivered at the next system call only, which an endless loop does not make. */
#if defined(__SANITIZE_THREAD__)
enum { SIGNALS_WAIT = 1 };
#else
enum { SIGNALS_WAIT = 0 };
#endif

/* Files from memory: names and texts in turn. */
#define SRC(...) luasrc_of((const char *const[]){ __VA_ARGS__, NULL })

/* Made by setup; options may be changed before new_host. why: what the last load was refused for. */
extern struct env *env;
extern struct loop *loop;
extern struct log *log_;
extern struct schema *schema;
extern struct luahost *host;
extern struct luahost_options options;
extern char log_path[100], why[512];
extern int load_err; /* of the last load */
extern struct luahost_stats stats_;

void setup(void);
void teardown(void);
void new_host(void *arg);
void free_host(void *arg);
void load(void *src);           /* sets load_err and why */
void load_go(const char *body); /* init.lua with M.go = function() body end */

struct run { /* a job that keeps what it ended with */
	struct luajob job;
	const struct msg_method *method; /* else the hook "go" */
	int err, ended;
	uint64_t task;
	char message[400], results[2000];
	int (*push)(lua_State *L, struct run *self);
};

int push_run(lua_State *L, struct luajob *job);           /* the job's push */
void keep(struct luajob *job, const struct luaresult *r); /* the job's done */
void start(void *run);
void wait_for(const int *ended);
/* Loads init.lua with M.go = function() body end, runs it and waits for its end. */
struct run *script(const char *body);
const char *gives(const char *body); /* its results as JSON */
const char *fails(const char *body); /* its error */
const char *refused(const char *name, const char *text);
struct luahost_stats *stats(void);
void few_tasks(unsigned n); /* a new host that runs so many at once */
void short_budget(void);    /* a new host that stops tasks after 50 ms */
extern uint64_t waiting;    /* the task that waits by the scripts' wait(), which add_wait gives them */
void add_wait(void *unused);
bool is_logged(const char *part); /* within a minute: the log thread writes a little later */

#define ck_logged(part)           ck_assert_msg(is_logged(part), "not in the log: %s", part)
#define ck_gives(body, json)      ck_assert_str_eq(gives(body), json)
#define ck_fails(body, message)   ck_assert_str_eq(fails(body), message)
#define ck_refused(name, text, w) ck_assert_str_eq(refused(name, text), w)
#define ck_has(text, part)                                                                 \
	do {                                                                               \
		const char *whole = text;                                                  \
		ck_assert_msg(strstr(whole, part) != NULL, "no '%s' in: %s", part, whole); \
	} while (0)

/* A test whose body runs on the worker. */
#define ON_LOOP(name)                                \
	static void name##_on_loop(void *);          \
	START_TEST(name)                             \
	{                                            \
		on_loop(loop, name##_on_loop, NULL); \
	}                                            \
	END_TEST                                     \
	static void name##_on_loop(__attribute__((unused)) void *unused)
