/* Any bytes as what a balancer says: a PROXY header, X-Forwarded-For; addresses that come out are addresses. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/balancer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void is_address(const char *addr)
{
	const char *const all[] = { "0.0.0.0/0", "::/0" };
	struct balancers *everybody;
	size_t wrong;

	assert(strlen(addr) < ENV_ADDR_MAX && balancers_new(all, 2, &everybody, &wrong) == 0);
	assert(balancers_trust(everybody, addr));
	balancers_free(everybody);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const char *const some[] = { "10.0.0.0/8", "fd00::/8" };
	struct balancers *b;
	char addr[ENV_ADDR_MAX], text[64];
	size_t wrong, head = n < sizeof text - 1 ? n : sizeof text - 1;

	if (!n)
		return 0;
	ssize_t took = balancer_header(data, n, addr);
	assert(took <= (ssize_t)n && took <= BALANCER_HEADER_MAX);
	if (took > 0 && *addr)
		is_address(addr);
	for (size_t i = 0; took > 0 && i < (size_t)took; i++)
		assert(balancer_header(data, i, text) == ERR_INCOMPLETE);
	assert(balancers_new(some, 2, &b, &wrong) == 0);
	if (balancer_forwarded(b, (const char *)data, n, addr)) {
		is_address(addr);
		assert(!balancers_trust(b, addr));
	}
	balancers_free(b);
	memcpy(text, data, head);
	text[head] = '\0';
	const char *const one[] = { text };
	if (balancers_new(one, 1, &b, &wrong) == 0)
		balancers_free(b);
	return 0;
}
