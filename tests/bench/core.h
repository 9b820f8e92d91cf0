#pragma once
#include <sched.h>

/* The thread, and those it starts from now on, run on this core; where there is no such core, on any. */
static inline void run_on(int core)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	(void)sched_setaffinity(0, sizeof set, &set);
}
