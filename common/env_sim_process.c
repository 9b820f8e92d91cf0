#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env_sim_private.h"
/*
 * Simulated processes: their lives and deaths, failpoints, and what env.h says of a process.
 */
#define WALL_US  1790000000000000ull /* the world begins in September 2026 */
#define START_US 20                  /* from exec to main */

void __wrap___assert_fail(const char *what, const char *file, unsigned line, const char *function);
_Noreturn void __real___assert_fail(const char *what, const char *file, unsigned line, const char *function);

struct host *w_host(struct sim *w, const char *name)
{
	struct host **at = &w->hosts;
	uint64_t index = 0;
	for (; *at; at = &(*at)->next, index++)
		if (strcmp((*at)->name, name) == 0)
			return *at;
	struct host *h = *at = w_alloc(sizeof(*h));
	assert(strlen(name) < sizeof(h->name));
	strcpy(h->name, name);
	h->port_next = 32768;
	/* each machine counts from its own boot: comparing two machines' monotonic clocks must show as wrong */
	h->mono_offset = (1000 + 7777 * index) * 1000000000ull;
	h->disk = disk_new(w, h);
	return h;
}

/* ---- things a process owns ---------------------------------------------------------------------------------- */

void owned_add(struct env *env, struct owned *o, void (*died)(struct owned *o, bool machine))
{
	o->died = died;
	o->next = env->owned;
	o->prev = &env->owned;
	if (o->next)
		o->next->prev = &o->next;
	env->owned = o;
}

void owned_drop(struct owned *o)
{
	if (!o->prev)
		return;
	*o->prev = o->next;
	if (o->next)
		o->next->prev = o->prev;
	o->prev = NULL;
}

/* ---- starting ------------------------------------------------------------------------------------------------- */

static unsigned slot_take(struct sim *w)
{
	for (unsigned i = 0; i < SIM_SLOTS; i++)
		if (!(w->slots[i / 64] >> (i % 64) & 1)) {
			w->slots[i / 64] |= 1ull << (i % 64);
			return i;
		}
	assert(!"too many simulated processes at once");
	return 0;
}

static void run_main(void *arg)
{
	struct env *env = arg;
	env->p->main_fn(env, env->p->arg);
}

static void start(struct sim_process *p)
{
	struct sim *w = p->w;
	struct env *env = p->env = w_alloc(sizeof(*env));
	obj_init(&env->obj, obj_free);
	env->w = w;
	env->p = p;
	env->slot = slot_take(w);
	env->region = region_get(env->slot);
	region_reset(env->region);
	env->pid = w->pid_next++;
	env->mono_offset = p->host->mono_offset;
	env->stacks = ~0ull << SIM_STACKS;
	p->starts++;
	p->host->down = false;
	w_note(w, "start", p->index, (uint64_t)env->pid);
	w_say(w, "start %s", p->name);
	fiber_resume_in(fiber_new(env, run_main, env), START_US * 1000);
}

struct sim_process *sim_process(struct sim *w, const char *name, const char *host,
				void (*main_fn)(struct env *env, void *arg), void *arg)
{
	struct sim_process *p = w_alloc(sizeof(*p));
	assert(!sim_find(w, name) && strlen(name) < sizeof(p->name) && w->process_count < SIM_PROCESSES);
	strcpy(p->name, name);
	p->w = w;
	p->host = w_host(w, host);
	p->main_fn = main_fn;
	p->arg = arg;
	p->index = w->process_count++;
	obj_init(&p->life, NULL);
	*w->processes_last = p;
	w->processes_last = &p->next;
	start(p);
	return p;
}

struct sim_process *sim_find(struct sim *w, const char *name)
{
	struct sim_process *p = w->processes;
	while (p && strcmp(p->name, name) != 0)
		p = p->next;
	return p;
}

const char *sim_name(const struct sim_process *p)
{
	return p->name;
}
bool sim_alive(const struct sim_process *p)
{
	return p->env != NULL;
}
unsigned sim_starts(const struct sim_process *p)
{
	return p->starts;
}
/* ---- dying ------------------------------------------------------------------------------------------------------ */

static void on_restart(struct sim *w, void *obj, uint64_t n)
{
	struct sim_process *p = (struct sim_process *)((char *)obj - offsetof(struct sim_process, life));
	(void)w;
	if (!p->env && n == p->starts)
		start(p);
}

static void restart_later(struct sim_process *p)
{
	struct sim *w = p->w;
	if (!p->supervise_ms_max || p->env)
		return;
	uint64_t us = rng_between(&w->rng_sched, p->supervise_ms_min * 1000ull, p->supervise_ms_max * 1000ull);
	w_push(w, w->now + us * 1000, on_restart, &p->life, p->starts);
}

static void process_die(struct env *env, bool machine, const char *why)
{
	struct sim *w = env->w;
	struct sim_process *p = env->p;
	bool suicide = w->fiber && w->fiber->env == env; /* asked now: neither is there any more at the end */
	w_note(w, "die", p->index, machine);
	w_say(w, "end of %s: %s", p->name, why);
	p->env = NULL;
	p->paused_until = 0;
	for (struct owned *o; (o = env->owned);) {
		owned_drop(o);
		o->died(o, machine);
	}
	for (struct env_loop *l; (l = env->loops);) {
		env->loops = l->next;
		obj_kill(&l->obj);
	}
	for (struct fiber *f; (f = env->fibers);) {
		env->fibers = f->next;
		obj_kill(&f->obj);
	}
	w->slots[env->slot / 64] &= ~(1ull << (env->slot % 64));
	obj_kill(&env->obj);
	restart_later(p);
	if (suicide)
		fiber_abandon(w);
}

void process_maybe_ended(struct env *env)
{
	if (env->fibers_alive == 0 && env->p->env == env)
		process_die(env, false, "exit");
}

void sim_kill(struct sim_process *p)
{
	if (p->env)
		process_die(p->env, false, "killed");
}

void sim_restart(struct sim_process *p)
{
	sim_kill(p);
	start(p);
}

void sim_supervise(struct sim_process *p, uint32_t min_ms, uint32_t max_ms)
{
	p->supervise_ms_min = min_ms;
	p->supervise_ms_max = max_ms;
	restart_later(p);
}

void sim_crash_host(struct sim *w, const char *host)
{
	struct host *h = w_host(w, host);
	assert(!w->fiber && "a machine is crashed from outside");
	for (struct sim_process *p = w->processes; p; p = p->next)
		if (p->host == h && p->env)
			process_die(p->env, true, "power off");
	h->down = true;
	disk_machine_died(h->disk);
}

void sim_clock_step(struct sim *w, const char *host, int64_t us)
{
	w_host(w, host)->clock_us += us;
}

void sim_pause(struct sim_process *p, uint32_t ms)
{
	p->paused_until = p->w->now + ms * 1000000ull;
	w_say(p->w, "pause %s for %u ms", p->name, ms);
}

void sim_signal(struct sim_process *p, int signo)
{
	bool handled = false;
	if (!p->env)
		return;
	for (struct env_loop *l = p->env->loops; l; l = l->next)
		if (loop_handles(l, signo)) {
			handled = true;
			loop_signal(l, signo);
		}
	if (!handled)
		process_die(p->env, false, "signal without a handler");
}

struct thread {
	void (*fn)(struct env *env, void *arg);
	struct env *env;
	void *arg;
};

static void run_thread(void *arg)
{
	struct thread t = *(struct thread *)arg;
	w_free(arg);
	t.fn(t.env, t.arg);
}

void sim_thread(struct sim_process *p, void (*fn)(struct env *env, void *arg), void *arg)
{
	struct thread *t = w_alloc(sizeof(*t));
	assert(p->env);
	*t = (struct thread){ fn, p->env, arg };
	fiber_resume_in(fiber_new(p->env, run_thread, t), 1000);
}

/* ---- failpoints ------------------------------------------------------------------------------------------------------ */

void sim_failpoint(struct sim *w, const char *process, const char *name, unsigned nth)
{
	struct failplan *plan = w_alloc(sizeof(*plan));
	snprintf(plan->process, sizeof(plan->process), "%s", process ? process : "");
	snprintf(plan->name, sizeof(plan->name), "%s", name ? name : "");
	plan->left = nth;
	plan->next = w->failplans;
	w->failplans = plan;
}

static bool planned(struct sim *w, const char *process, const char *name)
{
	bool hit = false;
	for (struct failplan *plan = w->failplans; plan; plan = plan->next)
		if ((!*plan->process || strcmp(plan->process, process) == 0) &&
		    (!*plan->name || strcmp(plan->name, name) == 0) && plan->left && --plan->left == 0)
			hit = true;
	return hit;
}

static void count_pass(struct sim *w, const char *name)
{
	struct failcount *c = w->failcounts;
	while (c && strcmp(c->name, name) != 0)
		c = c->next;
	if (!c) {
		c = w_alloc(sizeof(*c));
		snprintf(c->name, sizeof(c->name), "%s", name);
		c->next = w->failcounts;
		w->failcounts = c;
	}
	c->passes++;
}

uint64_t sim_failpoint_passes(const struct sim *w, const char *name)
{
	for (const struct failcount *c = w->failcounts; c; c = c->next)
		if (strcmp(c->name, name) == 0)
			return c->passes;
	return 0;
}

void env_failpoint(struct env *env, const char *name)
{
	struct sim *w = env->w;
	if (w_env(w) != env)
		return;
	count_pass(w, name);
	if (planned(w, env->p->name, name) || rng_chance(&w->rng_fail, w->chances.failpoint_ppm)) {
		w_say(w, "failpoint %s", name);
		process_die(env, false, "failpoint");
	}
}

/* ---- what env.h says of a process ------------------------------------------------------------------------------------- */

uint64_t env_mono_ns(struct env *env)
{
	/* Reading the clock takes time, so that waiting for it to move ends; no two threads see it go back. */
	w_spend(env->w, 25);
	uint64_t t = w_now(env->w) + env->mono_offset;
	if (t <= env->mono_last)
		t = env->mono_last;
	return env->mono_last = t;
}

uint64_t env_ticks(struct env *env)
{
	w_spend(env->w, 10);
	return w_now(env->w);
}

uint64_t env_wall_us(struct env *env)
{
	w_spend(env->w, 25);
	return WALL_US + w_now(env->w) / 1000 + (uint64_t)env->p->host->clock_us;
}

unsigned env_files_max(struct env *env)
{
	(void)env;
	return 1u << 20;
}

void env_random(struct env *env, void *buf, size_t n)
{
	struct sim *w = env->w;
	for (size_t i = 0; i < n; i += 8) {
		uint64_t v = rng_next(&w->rng_app);
		memcpy((char *)buf + i, &v, n - i < 8 ? n - i : 8);
	}
	w_note(w, "random", n, 0);
}

int env_pid(struct env *env)
{
	return env->pid;
}

bool env_home(struct env *env, char out[ENV_PATH_MAX])
{
	(void)env;
	*out = '\0';
	return false;
}

const char *env_getenv(struct env *env, const char *name)
{
	return (void)env, (void)name, NULL;
}

const char *env_last_error(void)
{
	return "simulated input/output error";
}
uint64_t env_cpu_us(struct env *env)
{
	return (void)env, 0;
}
uint64_t env_rss_bytes(struct env *env)
{
	return (void)env, 0;
}
void *env_memory(struct env *env, size_t bytes)
{
	(void)env;
	return calloc(1, bytes);
}
void env_memory_free(struct env *env, void *p, size_t bytes)
{
	(void)env, (void)bytes;
	free(p);
}

void env_abort(struct env *env, const char *why)
{
	struct sim *w = env->w;
	sim_fail(w, "%s aborted: %s", env->p->name, why);
	assert(w_env(w) == env);
	process_die(env, false, why);
	abort(); /* not reached: the running fiber was abandoned */
}

/* A broken assertion of a simulated process is a finding with a seed, not the end of the test program. */
void __wrap___assert_fail(const char *what, const char *file, unsigned line, const char *function)
{
	struct sim *w = sim_current();
	struct env *env = w ? w_env(w) : NULL;
	if (env && env->p->env == env) {
		sim_fail(w, "%s: assertion failed: %s (%s:%u, %s)", env->p->name, what, file, line, function);
		process_die(env, false, "assertion failed");
	}
	__real___assert_fail(what, file, line, function);
}
