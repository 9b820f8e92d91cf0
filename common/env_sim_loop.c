#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "common/env_sim_private.h"
/*
 * Loops: run queues of ready things, each on its own fiber. When an idle loop gets something to do it runs
 * a little later; how much is drawn, so the seed decides who of the runnable goes first.
 */

struct signal_handler {
	struct ready ready;
	struct signal_handler *next;
	struct env_loop *loop;
	int signo;
	unsigned pending;
	void (*fn)(void *arg, int signo);
	void *arg;
};

static uint64_t lateness_ns(struct sim *w)
{
	const struct sim_chances *c = &w->chances;
	uint64_t ns = 300 + rng_below(&w->rng_sched, c->wake_us_max * 1000ull);
	if (rng_chance(&w->rng_sched, c->hiccup_ppm))
		ns += rng_below(&w->rng_sched, c->hiccup_us_max * 1000ull);
	return ns;
}

/* ---- the list of what is ready ------------------------------------------------------------------------------ */

static void run_at(struct env_loop *l, uint64_t at);

static void run_soon(struct env_loop *l)
{
	struct sim *w = l->env->w;
	uint64_t now = w_now(w);
	if (l->idle)
		run_at(l, (now > l->idle_from ? now : l->idle_from) + lateness_ns(w));
}

void loop_ready(struct ready *r)
{
	struct env_loop *l = r->loop;
	if (r->prev || !l || l->ended)
		return;
	if (rng_below(&l->env->w->rng_sched, 4) == 0) { /* what the system reports first is anybody's guess */
		r->next = l->ready;
		r->prev = &l->ready;
		if (r->next)
			r->next->prev = &r->next;
		else
			l->ready_last = &r->next;
		l->ready = r;
	} else {
		r->next = NULL;
		r->prev = l->ready_last;
		*l->ready_last = r;
		l->ready_last = &r->next;
	}
	run_soon(l);
}

void ready_drop(struct ready *r)
{
	struct env_loop *l = r->loop;
	if (!r->prev)
		return;
	*r->prev = r->next;
	if (r->next)
		r->next->prev = r->prev;
	if (l->ready_last == &r->next)
		l->ready_last = r->prev;
	r->prev = NULL;
}

static void run_batch(struct env_loop *l)
{
	struct sim *w = l->env->w;
	l->batch = l->ready;
	if (l->batch)
		l->batch->prev = &l->batch;
	l->ready = NULL;
	l->ready_last = &l->ready;
	if (l->batch && l->ops.on_wake)
		l->ops.on_wake(l->arg);
	for (struct ready *r; (r = l->batch);) {
		struct obj *obj = r->obj;
		ready_drop(r);
		obj_ref(obj);
		w_spend(w, 300 + rng_below(&w->rng_sched, 1500));
		r->run(r);
		obj_unref(obj);
	}
}

/* ---- the fiber of a loop ---------------------------------------------------------------------------------------- */

static void on_run(struct sim *w, void *obj, uint64_t gen)
{
	struct env_loop *l = obj;
	if (gen != l->run_gen || !l->idle)
		return;
	if (l->env->p->paused_until > w->now) {
		w_push(w, l->env->p->paused_until, on_run, &l->obj, gen);
		return;
	}
	l->idle = false;
	fiber_run(l->fiber);
}

static void run_at(struct env_loop *l, uint64_t at)
{
	if (at >= l->run_at)
		return;
	l->run_at = at;
	w_push(l->env->w, at, on_run, &l->obj, ++l->run_gen);
}

static void wait_for_work(struct env_loop *l, uint64_t due_mono)
{
	struct sim *w = l->env->w;
	w_spend(w, 700);
	l->run_at = ENV_NEVER;
	l->run_gen++;
	l->idle_from = w_now(w);
	l->idle = true;
	if (l->ready || l->woken)
		run_soon(l);
	if (due_mono != ENV_NEVER) {
		uint64_t due = due_mono > l->env->mono_offset ? due_mono - l->env->mono_offset : 0;
		run_at(l, (due > l->idle_from ? due : l->idle_from) + lateness_ns(w));
	}
	fiber_yield(w);
}

static void loop_main(void *arg)
{
	struct env_loop *l = arg;
	struct sim *w = l->env->w;
	if (l->ops.on_start)
		l->ops.on_start(l->arg, l);
	while (!l->stopping) {
		l->woken = false;
		run_batch(l);
		w_note(w, "turn", l->env->p->index, hash_bytes(0, l->name, strlen(l->name)));
		uint64_t due = l->ops.on_turn(l->arg);
		if (!l->stopping)
			wait_for_work(l, due);
	}
	if (l->ops.on_stop)
		l->ops.on_stop(l->arg);
	l->ended = true;
	if (l->joiner)
		fiber_resume_in(l->joiner, 1000);
}

int env_loop_start(struct env *env, const char *name, const struct env_loop_ops *ops, void *arg, struct env_loop **out)
{
	struct env_loop *l = w_alloc(sizeof(*l)), **at = &env->loops;
	obj_init(&l->obj, obj_free);
	l->env = env;
	l->ops = *ops;
	l->arg = arg;
	l->ready_last = &l->ready;
	snprintf(l->name, sizeof(l->name), "%s", name);
	while (*at)
		at = &(*at)->next;
	*at = l;
	l->fiber = fiber_new(env, loop_main, l);
	l->fiber->loop = l;
	*out = l; /* before it runs: on_start may look at where its owner keeps it */
	fiber_resume_in(l->fiber, 5000 + rng_below(&env->w->rng_sched, 50000));
	return 0;
}

void env_loop_wake(struct env_loop *l)
{
	if (l->ended || l->woken)
		return;
	w_spend(l->env->w, 100);
	l->woken = true;
	run_soon(l);
}

void env_loop_stop(struct env_loop *l)
{
	l->stopping = true;
	if (!l->ended)
		run_soon(l);
}

void env_loop_join(struct env_loop *l)
{
	struct sim *w = l->env->w;
	struct env_loop **at = &l->env->loops;
	assert(w->fiber && w->fiber->env == l->env && w->fiber->loop != l && !l->joiner);
	while (!l->ended) {
		l->joiner = w->fiber;
		fiber_yield(w);
	}
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	for (struct signal_handler *h; (h = l->signals);) {
		l->signals = h->next;
		w_free(h);
	}
	obj_kill(&l->obj);
}

bool env_loop_is_current(struct env_loop *l)
{
	struct fiber *f = l->env->w->fiber;
	return f && f->loop == l;
}

void env_loop_poll(struct env_loop *l, uint32_t us)
{
	assert(env_loop_is_current(l));
	(void)us;
}

uint64_t env_loop_cpu_ns(struct env_loop *l)
{
	return env_mono_ns(l->env);
}

int env_loop_interrupt(struct env_loop *l, void (*fn)(void *arg), void *arg)
{
	(void)l, (void)fn, (void)arg;
	return ERR_UNAVAILABLE; /* no moment of a seed is in the middle of a computation */
}

/* ---- signals --------------------------------------------------------------------------------------------------------- */

static void run_signal(struct ready *r)
{
	struct signal_handler *h = (struct signal_handler *)r;
	for (; h->pending; h->pending--)
		h->fn(h->arg, h->signo);
}

int env_signal(struct env_loop *l, int signo, void (*fn)(void *arg, int signo), void *arg)
{
	struct signal_handler *h = w_alloc(sizeof(*h));
	assert(env_loop_is_current(l));
	*h = (struct signal_handler){ .ready = { .loop = l, .obj = &l->obj, .run = run_signal },
				      .next = l->signals,
				      .loop = l,
				      .signo = signo,
				      .fn = fn,
				      .arg = arg };
	l->signals = h;
	return 0;
}

bool loop_handles(const struct env_loop *l, int signo)
{
	for (struct signal_handler *h = l->signals; h; h = h->next)
		if (h->signo == signo && !l->ended)
			return true;
	return false;
}

void loop_signal(struct env_loop *l, int signo)
{
	for (struct signal_handler *h = l->signals; h; h = h->next)
		if (h->signo == signo) {
			h->pending++;
			loop_ready(&h->ready);
		}
}
