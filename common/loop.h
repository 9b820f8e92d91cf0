#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/inbox.h"
#include "common/wheel.h"
/*
 * loop: a worker: one thread with its event loop, timing wheel, inbox and end-of-turn work.
 *
 * Threads: owner worker only, except loop_post (any thread). loop_assert_owner stands at the top of calls
 *          that must be on the owner.
 * A turn:  (1) ready sockets, (2) the inbox, (3) due timers, (4) deferred work: each peer's output is
 *          flushed once; then the thread sleeps until the next timer or event.
 * Time:    loop->now_ms and now_ns are read after each sleep and before each timer run; monotonic.
 * Ending:  loop_stop ends after the running turn: messages that have arrived run, then on_stop, then what it deferred
 *          (closed streams report there). Messages posted later do not run.
 */
struct loop_deferred { /* zero it; embed it in what wants to be flushed */
	struct loop_deferred *next;
	void (*run)(struct loop_deferred *self);
	unsigned char queued;
};

struct loop {
	struct env *env;
	struct env_loop *ev;
	struct wheel *wheel;
	struct inbox inbox;
	struct loop_deferred *deferred, **deferred_last;
	uint64_t now_ns, now_ms; /* monotonic */
	uint64_t turns;
	unsigned index; /* worker number in its process, from 0 */
	void (*on_start)(struct loop *loop, void *arg);
	void (*on_stop)(struct loop *loop, void *arg);
	void *arg;
	char name[32];
	char read_buf[64 * 1024]; /* scratch for socket reads within one callback */
	/* output buffers that no stream holds now: most connections are silent at any moment */
#define LOOP_SPARES 1024
	struct buf spare[LOOP_SPARES];
	unsigned spares;
};

/* on_start and on_stop run on the new thread; on_stop may be NULL. */
int loop_start(struct env *env, const char *name, unsigned index, void (*on_start)(struct loop *loop, void *arg),
	       void (*on_stop)(struct loop *loop, void *arg), void *arg, struct loop **out);
void loop_stop(struct loop *loop); /* any thread */
void loop_join(struct loop *loop); /* waits for the thread and frees the loop */

void loop_post(struct loop *loop, struct inbox_msg *m); /* any thread */
/* fn(arg) on the loop's thread: allocates one message. */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg); /* any thread */
void loop_defer(struct loop *loop, struct loop_deferred *d); /* runs once at the end of this turn; twice is once */
void loop_defer_not(struct loop *loop,
		    struct loop_deferred *d); /* takes it back: its memory may go; not deferred is fine */
void loop_timer(struct loop *loop, struct timer *t, uint64_t in_ms); /* starts or moves it, from now */
void loop_timer_stop(struct loop *loop, struct timer *t);
uint64_t loop_clock_ms(struct loop *loop); /* reads the clock anew */
void loop_assert_owner(const struct loop *loop);
