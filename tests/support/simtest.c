#include "tests/support/simtest.h"
#include <check.h>

struct sim *w;

void simtest_set_up(void)
{
	w = sim_new(7);
	sim_calm(w);
}

void simtest_tear_down(void)
{
	sim_free(w);
}

void simtest_nothing(void *arg, struct env_loop *loop)
{
	(void)arg, (void)loop;
}

uint64_t simtest_never(void *arg)
{
	return (void)arg, ENV_NEVER;
}

static bool is_dead(void *arg)
{
	return !sim_alive(arg);
}

void simtest_run(const char *name, void (*fn)(struct env *env, void *arg), void *arg)
{
	struct sim_process *p = sim_find(w, name);

	if (p)
		sim_restart(p);
	else
		p = sim_process(w, name, "10.0.0.1", fn, arg);
	ck_assert(sim_until(w, 100000, is_dead, p));
}
