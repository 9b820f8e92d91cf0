/* One test's worker: made by hand, so that its time is the test's. */
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "deploy/luatest/luatest.h"

#define START_NS   (UINT64_C(1000) * 1000000000)
#define START_US   (UINT64_C(1767225600) * 1000000) /* 2026-01-01 00:00 UTC */
#define PATIENCE_S 600                              /* of the test's own time, for what never comes */
#define TIMERS     10000

struct world *luatest_world;

lua_State *world_state(struct world *x)
{
	return luahost_state(app_host(x->worker.app));
}

uint64_t world_random(struct world *x)
{
	uint64_t z = x->rng += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void set_time(struct world *x, uint64_t ns)
{
	x->wall_us += (ns - x->now_ns) / 1000;
	x->now_ns = ns;
	x->loop->now_ns = ns;
	x->loop->now_ms = ns / 1000000;
}

void world_event(struct world *x, void (*run)(struct world *x, void *arg), void *arg)
{
	struct world_event *e = malloc(sizeof *e);

	assert(e);
	*e = (struct world_event){ .run = run, .arg = arg };
	*x->events_last = e;
	x->events_last = &e->next;
}

void world_settled(struct world *x, struct call *c)
{
	c->next_settled = NULL;
	*x->settled_last = c;
	x->settled_last = &c->next_settled;
}

static bool run_settled(struct world *x)
{
	struct call *c = x->settled;

	if (!c)
		return false;
	if (!(x->settled = c->next_settled))
		x->settled_last = &x->settled;
	luatask_resume(app_host(x->worker.app), c->task, call_push_result, c);
	return true;
}

static bool run_event(struct world *x)
{
	struct world_event *e = x->events;

	if (!e)
		return false;
	if (!(x->events = e->next))
		x->events_last = &x->events;
	e->run(x, e->arg);
	free(e);
	return true;
}

/* As the loop does at the end of a turn. */
static bool run_deferred(struct loop *loop)
{
	struct loop_deferred *d = loop->deferred;

	if (!d)
		return false;
	loop->deferred = d->next;
	if (!d->next)
		loop->deferred_last = &loop->deferred;
	d->queued = 0;
	d->run(d);
	return true;
}

bool world_turn(struct world *x)
{
	if (run_event(x) || run_deferred(x->loop) || wheel_run(x->loop->wheel, x->loop->now_ms, TIMERS) ||
	    run_settled(x))
		return true;
	uint64_t next_ms = wheel_next_ms(x->loop->wheel);

	if (next_ms == UINT64_MAX || next_ms * 1000000 > x->limit_ns)
		return false;
	if (next_ms <= x->loop->now_ms)
		next_ms = x->loop->now_ms + 1;
	set_time(x, next_ms * 1000000);
	wheel_run(x->loop->wheel, x->loop->now_ms, TIMERS);
	return true;
}

static void on_opened(struct worker *w, int err)
{
	(void)w;
	luatest_world->opened = err < 0 ? err : 1;
}

static void make_loop(struct world *x)
{
	x->loop = calloc(1, sizeof *x->loop);
	assert(x->loop);
	x->loop->env = x->t->env;
	x->loop->deferred_last = &x->loop->deferred;
	x->now_ns = START_NS;
	x->wall_us = START_US;
	x->limit_ns = START_NS + PATIENCE_S * UINT64_C(1000000000);
	set_time(x, START_NS);
	x->loop->wheel = wheel_new(x->loop->now_ms);
	assert(x->loop->wheel);
}

static void make_service(struct world *x)
{
	struct tester *t = x->t;
	struct service *s = &x->service;

	*s = (struct service){
		.def = &t->def,
		.env = t->env,
		.config = t->config,
		.row = &t->row,
		.epoch = 1,
		.log = (struct log *)t, /* never looked at: outside.c has the functions */
		.metrics = t->metrics,
		.schema = t->schema,
		.sqllog = t->def.sqllog ? (struct sqllog *)t : NULL,
		.control = x->loop,
		.worker = x->workers,
		.workers = 1,
		.lua_src = t->src,
	};
	snprintf(s->id, sizeof s->id, "%.31s", t->id);
	snprintf(s->var, sizeof s->var, "var");
	snprintf(s->root, sizeof s->root, ".");
	x->workers[0] = &x->worker;
	x->client.timeout_ms = (uint32_t)config_int(t->config, "rpc.timeout_ms", 5000);
	x->worker = (struct worker){
		.service = s, .loop = x->loop, .client = &x->client, .routes = t->routes, .schema = t->schema
	};
}

/* What check() of init.lua refuses does not start. */
static int check(struct world *x)
{
	return app_check(&x->worker, x->t->src, x->t->schema, x->fail, sizeof x->fail);
}

int world_open(struct world *x, struct tester *t)
{
	size_t methods = schema_methods(t->schema);

	*x = (struct world){ .t = t, .rng = 1 };
	x->events_last = &x->events;
	x->settled_last = &x->settled;
	x->records_last = &x->records;
	x->handler = calloc(methods, sizeof *x->handler);
	x->fake = malloc(methods * sizeof *x->fake);
	assert(x->handler && x->fake);
	for (size_t i = 0; i < methods; i++)
		x->fake[i] = LUA_NOREF;
	luatest_world = x;
	make_loop(x);
	make_service(x);
	if (t->proven || check(x) == 0)
		app_open(&x->worker, on_opened);
	while (!x->opened && !*x->fail && world_turn(x))
		continue;
	if (!*x->fail && x->opened <= 0)
		snprintf(x->fail, sizeof x->fail, "init_service %s", x->opened ? "failed" : "never ends");
	t->proven = t->proven || !*x->fail;
	return *x->fail ? ERR_FAILED : 0;
}

void world_close(struct world *x)
{
	while (run_event(x))
		continue;
	app_close(x->worker.app);
	while (x->events) {
		struct world_event *e = x->events;

		x->events = e->next;
		free(e);
	}
	calls_free(x);
	store_close(x);
	wheel_free(x->loop->wheel);
	free(x->loop);
	free(x->handler);
	free(x->fake);
	buf_release(&x->log);
	buf_release(&x->why);
	luatest_world = NULL;
}
