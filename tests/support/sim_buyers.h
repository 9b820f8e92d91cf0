#pragma once
#include "common/env_sim.h"
#include "tests/support/player.h"
/*
 * sim_buyers: players of a simulated cluster who buy potions, and what must have come of it in the end: every purchase that
 * was answered is in the database once, the gold adds up, and each answer told the gold of its moment.
 *
 * Threads: the simulation's. Memory: the struct is the world's, and outlives the players' process.
 */
#define SIM_BUYERS_MAX 50
struct sim_buyers {
	struct sim *w;
	const char *gate_host;
	uint16_t gate_port;
	unsigned players, rivals; /* rivals: connections per player */
	uint32_t think_ms;
	uint64_t longest_ms; /* that an answer took, since somebody set it to 0; repeats of a refused order count in */
	struct purchases record[SIM_BUYERS_MAX];
};
/* A process "players" at host, with players who want wanted_min to wanted_max potions each. */
void sim_buyers_come(struct sim_buyers *x, const char *host, unsigned wanted_min, unsigned wanted_max);
/* Waits until each has bought what it wants, and until that has landed; then everything is checked. */
void sim_buyers_check(struct sim_buyers *x);
