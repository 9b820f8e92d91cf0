#include "common/loop.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/err.h"

/* Timers fired before sockets get their turn again, so that a flood of timers does not stall players. */
enum { TIMERS_PER_TURN = 4096 };

static void clock_read(struct loop *loop)
{
	loop->now_ns = env_mono_ns(loop->env);
	loop->now_ms = loop->now_ns / 1000000;
}

static void inbox_run(struct loop *loop)
{
	for (struct inbox_msg *m = inbox_take(&loop->inbox), *next; m; m = next) {
		next = m->next; /* run frees m */
		m->run(m);
	}
}

static void timers_run(struct loop *loop)
{
	if (wheel_next_ms(loop->wheel) <= loop->now_ms)
		wheel_run(loop->wheel, loop->now_ms, TIMERS_PER_TURN);
}

/* Until none is left: what deferred work defers (an answer to one's closing) belongs to the same turn. */
static void deferred_run(struct loop *loop)
{
	struct loop_deferred *d;
	while ((d = loop->deferred)) {
		loop->deferred = d->next;
		if (!d->next)
			loop->deferred_last = &loop->deferred;
		d->queued = 0; /* before run: it may free d, or defer it anew */
		d->run(d);
	}
}

/* ---- what the environment calls ------------------------------------------------------------------------ */

static void loop_on_start(void *arg, struct env_loop *ev)
{
	struct loop *loop = arg;
	assert(loop->ev == ev);
	clock_read(loop);
	loop->on_start(loop, loop->arg);
}

static void loop_on_wake(void *arg)
{
	clock_read(arg);
}

static uint64_t loop_on_turn(void *arg)
{
	struct loop *loop = arg;
	loop->turns++;
	clock_read(loop);
	inbox_run(loop);
	timers_run(loop);
	deferred_run(loop);
	uint64_t next_ms = wheel_next_ms(loop->wheel);
	if (next_ms == UINT64_MAX)
		return ENV_NEVER;
	return next_ms > loop->now_ms ? next_ms * 1000000 : 0;
}

static void loop_on_stop(void *arg)
{
	struct loop *loop = arg;
	inbox_run(loop); /* messages own memory: they run while their targets still live */
	deferred_run(loop);
	if (loop->on_stop)
		loop->on_stop(loop, loop->arg);
	deferred_run(loop);
}

static const struct env_loop_ops loop_ops = {
	.on_start = loop_on_start,
	.on_wake = loop_on_wake,
	.on_turn = loop_on_turn,
	.on_stop = loop_on_stop,
};

/* ---- public ---------------------------------------------------------------------------------------------- */

int loop_start(struct env *env, const char *name, unsigned index, void (*on_start)(struct loop *loop, void *arg),
	       void (*on_stop)(struct loop *loop, void *arg), void *arg, struct loop **out)
{
	struct loop *loop = calloc(1, sizeof *loop);
	if (!loop)
		return ERR_NOMEM;
	loop->env = env;
	loop->index = index;
	loop->on_start = on_start;
	loop->on_stop = on_stop;
	loop->arg = arg;
	loop->deferred_last = &loop->deferred;
	snprintf(loop->name, sizeof loop->name, "%s", name);
	inbox_init(&loop->inbox);
	clock_read(loop);
	int err = ERR_NOMEM;
	if (!(loop->wheel = wheel_new(loop->now_ms)))
		goto fail;
	*out = loop; /* on_start may look for itself there */
	if ((err = env_loop_start(env, name, &loop_ops, loop, &loop->ev)) < 0)
		goto fail;
	return 0;
fail:
	*out = NULL;
	wheel_free(loop->wheel);
	free(loop);
	return err;
}

void loop_stop(struct loop *loop)
{
	env_loop_stop(loop->ev);
}

struct call {
	struct inbox_msg msg;
	void (*fn)(void *arg);
	void *arg;
};

static void call_run(struct inbox_msg *m)
{
	struct call *c = (struct call *)m;
	c->fn(c->arg);
	free(c);
}

/* Calls that came after the end are forgotten, other late messages are their senders'. */
static void inbox_drop(struct loop *loop)
{
	for (struct inbox_msg *m = inbox_take(&loop->inbox), *next; m; m = next) {
		next = m->next;
		if (m->run == call_run)
			free(m);
	}
}

void loop_join(struct loop *loop)
{
	env_loop_join(loop->ev);
	inbox_drop(loop);
	while (loop->spares)
		buf_release(&loop->spare[--loop->spares]);
	wheel_free(loop->wheel);
	free(loop);
}

void loop_post(struct loop *loop, struct inbox_msg *m)
{
	if (inbox_push(&loop->inbox, m))
		env_loop_wake(loop->ev);
}

void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct call *c = calloc(1, sizeof *c);
	if (!c)
		abort();
	c->msg.run = call_run;
	c->fn = fn;
	c->arg = arg;
	loop_post(loop, &c->msg);
}

void loop_defer(struct loop *loop, struct loop_deferred *d)
{
	loop_assert_owner(loop);
	if (d->queued)
		return;
	d->queued = 1;
	d->next = NULL;
	*loop->deferred_last = d;
	loop->deferred_last = &d->next;
}

void loop_defer_not(struct loop *loop, struct loop_deferred *d)
{
	loop_assert_owner(loop);
	struct loop_deferred **at = &loop->deferred;
	if (!d->queued)
		return;
	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	if (!d->next)
		loop->deferred_last = at;
	d->queued = 0;
}

/* Rounded up: now_ms has lost up to a millisecond, and a timer never fires early. */
void loop_timer(struct loop *loop, struct timer *t, uint64_t in_ms)
{
	loop_assert_owner(loop);
	wheel_start(loop->wheel, t, (loop->now_ns + 999999) / 1000000 + in_ms);
}

void loop_timer_stop(struct loop *loop, struct timer *t)
{
	loop_assert_owner(loop);
	wheel_stop(loop->wheel, t);
}

uint64_t loop_clock_ms(struct loop *loop)
{
	clock_read(loop);
	return loop->now_ms;
}

void loop_assert_owner(const struct loop *loop)
{
	assert(env_loop_is_current(loop->ev));
}
