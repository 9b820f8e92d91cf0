#include "tests/support/on_loop.h"
#include <check.h>

static void started(struct loop *loop, void *arg)
{
	(void)loop, (void)arg;
}

struct loop *on_loop_new(struct env *env, const char *name)
{
	struct loop *loop;
	ck_assert_int_eq(loop_start(env, name, 0, started, NULL, NULL, &loop), 0);
	return loop;
}

void on_loop_free(struct loop *loop)
{
	loop_stop(loop);
	loop_join(loop);
}

struct job {
	void (*fn)(void *arg);
	void *arg;
	struct flag done;
};

static void job_run(void *arg)
{
	struct job *j = arg;
	if (j->fn)
		j->fn(j->arg);
	flag_raise(&j->done);
}

void on_loop(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct job j = { .fn = fn, .arg = arg };
	flag_init(&j.done);
	loop_call(loop, job_run, &j);
	ck_assert(flag_wait(&j.done, 1));
}

void on_loop_turns(struct loop *loop)
{
	on_loop(loop, NULL, NULL); /* wakes up in some turn: what was deferred before it ran at that turn's end */
	on_loop(loop, NULL, NULL);
}

static void hold(void *arg)
{
	struct loop_hold *h = arg;
	flag_raise(&h->held);
	flag_wait(&h->go_on, 1);
}

void loop_hold(struct loop *loop, struct loop_hold *h)
{
	flag_init(&h->held);
	flag_init(&h->go_on);
	loop_call(loop, hold, h);
	ck_assert(flag_wait(&h->held, 1));
}

void loop_let_go(struct loop_hold *h)
{
	flag_raise(&h->go_on);
}
