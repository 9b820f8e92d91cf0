#include "rpc/addrcount.h"
#include <arpa/inet.h>
#include <string.h>
#include "rpc/route.h"

static uint16_t place(const void *p, size_t n)
{
	return (uint16_t)(route_hash(p, n) % ADDRCOUNT_PLACES);
}

/* The same subnet may be written in several ways (2001:db8::1 is in 2001:db8:0:0), so the numbers are compared. */
struct addrplace addrcount_place(const char *addr)
{
	char text[INET6_ADDRSTRLEN + 1];
	uint8_t ip[16];
	const char *begin = addr + (*addr == '['), *end = *addr == '[' ? strchr(addr, ']') : strrchr(addr, ':');
	size_t n = end ? (size_t)(end - begin) : strlen(begin);

	if (n < sizeof(text)) {
		memcpy(text, begin, n);
		text[n] = '\0';
		if (inet_pton(AF_INET, text, ip) == 1)
			return (struct addrplace){ place(ip, 4), place(ip, 3), place(ip, 4) };
		if (inet_pton(AF_INET6, text, ip) == 1)
			return (struct addrplace){ place(ip, 16), place(ip, 8), place(ip, 8) };
	}
	return (struct addrplace){ place(begin, n), place(begin, n), place(begin, n) };
}

struct addrcounted addrcount_add(struct addrcount *c, struct addrplace at, int change)
{
	unsigned address = atomic_fetch_add_explicit(&c->address[at.address], (unsigned)change, memory_order_relaxed);
	unsigned subnet = atomic_fetch_add_explicit(&c->subnet[at.subnet], (unsigned)change, memory_order_relaxed);

	return (struct addrcounted){ address, subnet };
}
