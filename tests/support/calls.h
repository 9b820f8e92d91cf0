#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "rpc/service.h"
#include "tests/support/flag.h"
#include "tests/support/ports.h"
/*
 * calls: real service instances in the test's process, on free ports, below a folder of their own, that call each other.
 *
 * Instances: caller-1, calls-1, calls-2, other-1 and connector-1 stand in the configuration; a test begins those it needs.
 * Box:       what "calls" (calls_box) answers in C goes by words in the request: "hold" keeps it until calls_release,
 *            "deny" is denied, "done" failed with effect done, "huge" an answer that no frame holds, "work" takes 60 ms of
 *            the thread, "release" answers what its worker keeps; else {"text": "INSTANCE/WORKER", "number": how many
 *            requests the instance has run}.
 * Threads:   the test's own. Memory: calls_teardown frees; calls_end ends one instance. Trouble fails the test.
 */
struct calls {
	struct env *env;
	char dir[320], config[360];
	uint16_t rpc[8], http[8];
	struct ports ports;
	struct service *s[8];
};
struct calls_options {
	unsigned threads;     /* of "calls"; 0: 1 */
	bool two;             /* calls-2 is in the route table */
	const char *lua;      /* more tables of the configuration: "rpc = {drain_s = 1}," */
	const char *messages; /* the descriptor set, from c->dir; NULL: build/tests.desc */
};
enum { CALLER, CALLS, CALLS_2, OTHER, CONNECTOR, CALLS_INSTANCES };

extern const struct service_def calls_box, calls_caller, calls_other, calls_lua, calls_connector;

void calls_setup(struct calls *c, const struct calls_options *o); /* o NULL: as all zero */
void calls_teardown(struct calls *c);
/* Starts the instance and waits until it is ready. */
struct service *calls_begin(struct calls *c, unsigned which, const struct service_def *def);
/* Starts it; the error's line, or why it ended before it was ready. NULL: it is ready. */
const char *calls_try(struct calls *c, unsigned which, const struct service_def *def);
void calls_end(struct calls *c, unsigned which);                           /* stops it and waits */
void calls_file(struct calls *c, const char *name, const char *text);      /* below the instances' lua folder */
void calls_routes(struct calls *c, unsigned version, const char *rows);    /* writes the live table */
const char *calls_row(struct calls *c, unsigned which, const char *extra); /* its row for that; good until the next */

/* What a call ended with. */
struct reply {
	struct flag done;
	int err;
	enum effect effect;
	uint64_t handle;
	unsigned attrs;
	char message[300], body[2000];
	size_t body_n;
};
/*
 * Makes the call on a worker of s (SERVICE_CONTROL_WORKER: the control's); JSON. wish: method, on_answer, arg are filled
 * in, and a minute if it names no time.
 */
void calls_call(struct service *s, unsigned worker, const char *method, struct rpc_call wish, struct reply *r);
void calls_notify(struct service *s, unsigned worker, const char *method, struct rpc_call wish);
void reply_wait(struct reply *r);
/* By key, with this JSON: waits for the answer. */
void calls_ask(struct service *s, const char *method, const char *key, const char *json, struct reply *r);
bool calls_cancel(struct service *s, unsigned worker, uint64_t handle);
void ck_reply(const struct reply *r, int err, enum effect effect);
/* A call of the key's owner with this JSON; within: of key "k", with so much time. */
struct rpc_call calls_by_key(const char *key, const char *json);
struct rpc_call calls_within(uint32_t ms, const char *json);
void calls_both(struct calls *c); /* calls-1 and caller-1 begin */
void calls_meet(
	struct calls *c); /* and the link between them stands, so that a call with little time is sent in time */

/* fn(arg) on a worker, waiting for it. */
void calls_on(struct service *s, unsigned worker, void (*fn)(struct worker *w, void *arg), void *arg);
void calls_cut(struct service *s);  /* resets all links of its server, as a broken network does */
unsigned calls_run(unsigned which); /* requests its box has run, by CALLS or CALLS_2 */
unsigned calls_held(unsigned which);
void calls_release(struct calls *c, unsigned which); /* of an instance that does not stop meanwhile */
uint64_t calls_routes_version(struct service *s, unsigned worker);
const char *calls_once_keys(unsigned which);                 /* of the once-calls its box has run, "key;key;" */
int64_t calls_figure(struct service *s, const char *family); /* the sum of its metrics */

/* Waits for the condition, at most a minute, then the test fails. */
struct calls_wait_ {
	int turns;
};
bool calls_pause_(struct calls_wait_ *w);
#define until(cond)                                                                        \
	do {                                                                               \
		struct calls_wait_ wait_ = { 0 };                                          \
		while (!(cond))                                                            \
			ck_assert_msg(calls_pause_(&wait_), "it never came true: " #cond); \
	} while (0)

/* calls_http.c: HTTP from the test's own thread: returns the status; body is NUL-ended, of at most 64 KB. key: with the cluster key. */
struct http_reply {
	int status;
	char head[2000], body[65536];
	size_t n;
};
int calls_http(struct calls *c, unsigned which, const char *method, const char *path, bool key, const char *body,
	       struct http_reply *out);
/* In two steps: what is sent, and its answer, which closes the connection. */
int calls_http_send(struct calls *c, unsigned which, const char *method, const char *path, bool key, const char *body);
int calls_http_take(int fd, struct http_reply *out);
/* Its body; json_decref it. A body that is no JSON fails the test. */
json_t *http_body_json(const struct http_reply *r);
const char *http_body_word(json_t *o, const char *name); /* a text in it; "" without it */
/* It is an error in the one shape of errors. */
void ck_http_error(const struct http_reply *r, int status, const char *error, const char *effect);
