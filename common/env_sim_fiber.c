/* Fortified longjmp takes a jump to another stack for an attack. */
#undef _FORTIFY_SOURCE
#include <assert.h>
#include <string.h>
#include "common/env_sim_private.h"
/*
 * Fibers: each thread of a simulated process runs on a stack of its own at a fixed address, so a call that
 * blocks really stops there while others run, and dying is never being switched to again. The first entry
 * uses makecontext, all others _setjmp / _longjmp, which cost no system call.
 */

static void entry(void)
{
	struct fiber *f = sim_current()->fiber;
	f->fn(f->arg);
	f->done = true;
	fiber_yield(sim_current());
	assert(!"a fiber that is done was resumed");
}

static int stack_take(struct env *env)
{
	int i = __builtin_ffsll((long long)~env->stacks) - 1;
	assert(i >= 0 && i < SIM_STACKS && "a simulated process has too many threads");
	env->stacks |= 1ull << i;
	return i;
}

struct fiber *fiber_new(struct env *env, void (*fn)(void *arg), void *arg)
{
	struct fiber *f = w_alloc(sizeof(*f));
	obj_init(&f->obj, obj_free);
	f->env = env;
	f->fn = fn;
	f->arg = arg;
	f->stack = stack_take(env);
	f->next = env->fibers;
	env->fibers = f;
	env->fibers_alive++;
	return f;
}

static void forget(struct fiber *f)
{
	struct fiber **at = &f->env->fibers;
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	f->env->stacks &= ~(1ull << f->stack);
	f->env->fibers_alive--;
	obj_kill(&f->obj);
}

static void first_entry(struct fiber *f)
{
	ucontext_t there, unused;
	getcontext(&there);
	there.uc_stack.ss_sp = region_stack(f->env->slot, (unsigned)f->stack);
	there.uc_stack.ss_size = SIM_STACK_BYTES - SIM_GUARD_BYTES;
	there.uc_link = NULL;
	makecontext(&there, entry, 0);
	f->started = true;
	swapcontext(&unused, &there);
}

/* Runs the fiber until it yields; on the scheduler's side. */
static void enter(struct sim *w, struct fiber *f)
{
	assert(!w->fiber);
	w->fiber = f;
	w->fiber_gone = false;
	f->burst_ns = 0;
	region_enter(f->env->region);
	if (_setjmp(w->scheduler) == 0) {
		if (f->started)
			_longjmp(f->here, 1);
		first_entry(f);
	}
	region_enter(NULL);
	w->fiber = NULL;
}

void fiber_run(struct fiber *f)
{
	struct env *env = f->env;
	struct sim *w = env->w;
	enter(w, f);
	if (w->fiber_gone || !f->done)
		return;
	forget(f);
	process_maybe_ended(env);
}

static void on_resume(struct sim *w, void *obj, uint64_t n)
{
	struct fiber *f = obj;
	(void)n;
	if (f->env->p->paused_until > w->now)
		w_push(w, f->env->p->paused_until, on_resume, &f->obj, 0);
	else
		fiber_run(f);
}

void fiber_resume_in(struct fiber *f, uint64_t in_ns)
{
	struct sim *w = f->env->w;
	w_push(w, w_now(w) + in_ns, on_resume, &f->obj, 0);
}

void fiber_yield(struct sim *w)
{
	struct fiber *f = w->fiber;
	if (_setjmp(f->here) == 0)
		_longjmp(w->scheduler, 1);
}

void fiber_abandon(struct sim *w)
{
	w->fiber_gone = true;
	_longjmp(w->scheduler, 1);
}

void fiber_block(struct sim *w, uint64_t ns)
{
	if (!w->fiber)
		return;
	fiber_resume_in(w->fiber, ns);
	fiber_yield(w);
}
