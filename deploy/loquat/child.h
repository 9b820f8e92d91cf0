#pragma once
#include <event2/event.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>
#include "common/loop.h"
/*
 * child: one process under the supervisor: started, its lines passed on, started again when it crashes.
 *
 * Threads: the supervisor's loop. A child dies with the supervisor, whatever kills that (PR_SET_PDEATHSIG).
 * Again:   within 0.5 s, then with back-off doubling to at most 5 s, reset after 10 s ready. Who was ever ready is never
 *          given up; one that exits with 2 before it was ever ready has failed.
 * Lines:   what it writes to stdout and stderr goes to on_line and to the file log_path, which is renamed to
 *          log_path.1 when it has 16 MiB.
 * Tests:   LOQUAT_LIVES="ID=POINT:N,POINT:N ID=…" in the supervisor's environment: the k-th life of the child ID dies at
 *          the N-th pass of the k-th POINT ("-": of none), see env_failpoint; later lives are whole.
 */
enum child_state { CHILD_STARTING, CHILD_READY, CHILD_DRAINING, CHILD_STOPPED, CHILD_BACKOFF, CHILD_FAILED };

struct child;
struct child_ops {
	void (*on_state)(struct child *c, enum child_state before); /* after each change */
	void (*on_line)(struct child *c, const char *line);
};
struct child {
	/* the owner fills these; argv is NULL-ended and lives as long as the child */
	char id[32], program[600], log_path[600];
	const char *const *argv;
	struct loop *loop;
	struct event_base *base;
	const struct child_ops *ops;
	void *owner;
	uint32_t stop_ms; /* it may take so long to end when told to; then it is killed */
	/* to be read by anybody */
	enum child_state state;
	pid_t pid; /* 0: none */
	unsigned restarts;
	bool wanted, ever_ready;
	uint64_t ready_ms;   /* when it became ready; 0: not yet in this life */
	char last_line[256]; /* what it said last, for a person who asks why it ended */
	/* private */
	uint64_t backoff_ms;
	struct timer timer;
	int pipe;
	struct event *readable;
	char line[4096];
	size_t line_n;
	FILE *log;
};
const char *child_state_word(enum child_state s);
int child_start(struct child *c);                 /* also from stopped or failed; negative: it could not be forked */
void child_stop(struct child *c);                 /* SIGTERM; stays down */
void child_leaves(struct child *c);               /* it will be told to end, and stays down */
void child_drains(struct child *c);               /* somebody else told it to end: it is started again */
void child_kill(struct child *c);                 /* SIGKILL */
void child_is_ready(struct child *c, bool ready); /* what its /readyz says */
void child_exited(struct child *c, int status);   /* from waitpid */
/* c's process has ended and next's takes its place: c is it from now on, next is empty. */
void child_succeed(struct child *c, struct child *next);
void child_release(struct child *c);
