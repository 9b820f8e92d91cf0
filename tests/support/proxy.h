#pragma once
#include <stdint.h>
/*
 * proxy: a TCP relay on 127.0.0.1 that breaks what goes through it: each connection is reset, on both sides, after a
 * number of bytes drawn from the seed, be it in the middle of a frame.
 *
 * Threads: one of its own; proxy_cuts from any. Memory: proxy_free ends it. Trouble ends the program.
 */
struct proxy;
/* bytes_max: a connection carries between an eighth of it and all of it; 0: it is never cut. */
struct proxy *proxy_new(uint16_t listen, uint16_t target, uint64_t bytes_max, uint64_t seed);
unsigned proxy_cuts(const struct proxy *p);
void proxy_free(struct proxy *p);
