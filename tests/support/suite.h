#pragma once
#include <check.h>
/*
 * suite: how a program of Check's tests ends.
 *
 * Threads: main's. Memory: the cases are freed with their suite.
 */

/* Runs the cases, each test in a process of its own unless CK_FORK=no, and prints Check's summary. Returns what main does. */
#define suite_run(name, ...) suite_run_cases(name, (TCase *const[]){ __VA_ARGS__, NULL })
int suite_run_cases(const char *name, TCase *const *cases); /* they end with NULL */

/*
 * Runs one function of a program that is no test, but whose helpers (wireclient, edgecluster) check as in one: in this
 * process, for as long as it takes, silent unless a check fails. Returns what main does.
 */
int suite_run_tool(const char *name, const TTest *function);
