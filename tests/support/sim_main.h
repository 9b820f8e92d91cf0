#pragma once
#include "common/env_sim.h"
/*
 * sim_main: runs scenarios over many seeds, on all cores, and says how to repeat what failed.
 *
 *   PROGRAM [--scenario NAME] [--seeds A..B] [--seed N] [--jobs J] [--seconds S] [--hash] [--list]
 *
 * A scenario gets a fresh world of one seed, builds its processes in it, runs it and records broken
 * invariants by sim_fail. One with prepare gets a world in which prepare has run (always as the same seed:
 * starting a cluster takes longer than most of what is tried with it); each seed goes on from there in a
 * process forked for it, so run may leave its memory as it is, and what prepare set with sim_user_set is there.
 *
 * It prints "ok NAME", or "not ok NAME" with the first failing seed, the command that repeats it, and the failure's
 * words. --seed runs one seed and prints the last events of it; --hash prints what came out of every seed; --seconds
 * goes on with fresh seeds for so long (SOAK_S in the environment does the same). A scenario with planted set holds a
 * known mistake: it passes only if a seed finds it.
 *
 * Memory: what a scenario allocates itself it frees itself; the world's and the processes' memory is forgotten.
 */
struct sim_scenario {
	const char *name; /* a sentence with underscores */
	void (*run)(struct sim *w);
	void (*prepare)(struct sim *w); /* may be NULL */
	unsigned seeds;                 /* how many a plain run takes */
	const char *planted;            /* the mistake that must be found, or NULL */
};

/* list ends with a NULL name. Returns the exit status. */
int sim_main(int argc, char **argv, const struct sim_scenario *list);
/* Lets the world go on until /readyz of the process says 200; false: not within ten seconds of the world and more. */
bool sim_until_ready(struct sim *w, const char *process, uint16_t port);
