#pragma once
#include <stdint.h>
#include "common/env_sim.h"
/*
 * simtest: a calm world for each test of the simulation itself. Trouble fails the test.
 */
extern struct sim *w;
void simtest_set_up(void);
void simtest_tear_down(void);
/* Runs fn as a process of its own, on 10.0.0.1, to its end; again, if that name has run before. */
void simtest_run(const char *name, void (*fn)(struct env *env, void *arg), void *arg);
/* of a loop that has nothing to do: */
void simtest_nothing(void *arg, struct env_loop *loop); /* on_start */
uint64_t simtest_never(void *arg);                      /* on_turn */
