#include "rpc/addrcount.h"
#include <arpa/inet.h>
#include <string.h>
#include "rpc/route.h"

void addrcount_init(struct addrcount *c, struct env *env)
{
	env_random(env, &c->seed, sizeof(c->seed));
}

static uint16_t place(const struct addrcount *c, const void *p, size_t n)
{
	char key[sizeof(c->seed) + ENV_ADDR_MAX];

	memcpy(key, &c->seed, sizeof(c->seed));
	memcpy(key + sizeof(c->seed), p, n);
	return (uint16_t)(route_hash(key, sizeof(c->seed) + n) % ADDRCOUNT_PLACES);
}

/* The same subnet may be written in several ways (2001:db8::1 is in 2001:db8:0:0), so the numbers are compared. */
struct addrplace addrcount_place(const struct addrcount *c, const char *addr)
{
	char text[INET6_ADDRSTRLEN + 1];
	uint8_t ip[16];
	const char *begin = addr + (*addr == '['), *end = *addr == '[' ? strchr(addr, ']') : strrchr(addr, ':');
	size_t n = end ? (size_t)(end - begin) : strlen(begin);

	if (n < sizeof(text)) {
		memcpy(text, begin, n);
		text[n] = '\0';
		if (inet_pton(AF_INET, text, ip) == 1)
			return (struct addrplace){ place(c, ip, 4), place(c, ip, 3), place(c, ip, 4) };
		if (inet_pton(AF_INET6, text, ip) == 1)
			return (struct addrplace){ place(c, ip, 16), place(c, ip, 8), place(c, ip, 8) };
	}
	if (n > ENV_ADDR_MAX)
		n = ENV_ADDR_MAX;
	return (struct addrplace){ place(c, begin, n), place(c, begin, n), place(c, begin, n) };
}

struct addrcounted addrcount_add(struct addrcount *c, struct addrplace at, int change)
{
	unsigned address = atomic_fetch_add_explicit(&c->address[at.address], (unsigned)change, memory_order_relaxed);
	unsigned subnet = atomic_fetch_add_explicit(&c->subnet[at.subnet], (unsigned)change, memory_order_relaxed);

	return (struct addrcounted){ address, subnet };
}
