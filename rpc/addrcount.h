#pragma once
#include <stdatomic.h>
#include <stdint.h>
#include "common/env.h"
/*
 * addrcount: how many of something each address has, and each subnet: the first three numbers of an IPv4 address, the first
 * four groups of an IPv6 one.
 *
 * Threads: any.
 * Memory:  the owner embeds it, zeroed: half a megabyte.
 * Bounds:  counts are kept in ADDRCOUNT_PLACES counters by the address' hash: two addresses may share one, which makes a
 *          bound a little stricter for both. Which two is chance, and another one in each process: nobody can choose an
 *          address that takes up another's bound.
 */
#define ADDRCOUNT_PLACES 65536
struct addrcount {
	uint64_t seed;
	_Atomic unsigned address[ADDRCOUNT_PLACES], subnet[ADDRCOUNT_PLACES];
};
struct addrplace {
	uint16_t address, subnet;
	uint16_t host; /* of the address; of IPv6 the subnet's, in which one host takes as many addresses as it likes */
};
/* Before the first address is placed. */
void addrcount_init(struct addrcount *c, struct env *env);
/* "127.0.0.1:40312", "[::1]:40312", with a port or without */
struct addrplace addrcount_place(const struct addrcount *c, const char *addr);
struct addrcounted {
	unsigned address, subnet;
};
/* How many there were before. */
struct addrcounted addrcount_add(struct addrcount *c, struct addrplace at, int change);
