#pragma once
#include <stdint.h>
/*
 * ports: free ports of 127.0.0.1 that nobody else is given, neither to listen nor to connect from, while they are held.
 *
 * A port that was only looked for may be somebody else's before it is used: another program's on this machine, or the
 * next "any port" of this very test. So each stays bound here, without listening: who wants to listen there and sets
 * SO_REUSEADDR, as env_listen does, still may, as often as it likes; whoever connects meanwhile is refused.
 *
 * Threads: the test's own. Memory: embed it, all zero; ports_release closes. Trouble fails the test.
 */
#define PORTS_MAX 32
struct ports {
	int fd[PORTS_MAX];
	unsigned n;
};

uint16_t ports_hold(struct ports *p); /* one more */
void ports_release(struct ports *p);
