#pragma once
#include "common/loop.h"
#include "tests/support/flag.h"
/*
 * on_loop: a worker for tests, and running code on it.
 *
 * Threads: the test's own thread. Each call waits for the worker, at most a minute, else the test fails.
 */
struct loop *on_loop_new(struct env *env, const char *name);
void on_loop_free(struct loop *loop);                              /* stops and joins */
void on_loop(struct loop *loop, void (*fn)(void *arg), void *arg); /* returns when fn has returned */
void on_loop_turns(struct loop *loop); /* returns when a whole turn, deferred work included, has gone by */

/* The worker is at something else from loop_hold's return until loop_let_go. */
struct loop_hold {
	struct flag held, go_on;
};
void loop_hold(struct loop *loop, struct loop_hold *h);
void loop_let_go(struct loop_hold *h);
