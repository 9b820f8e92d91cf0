#include "rpc/balancer.h"
#include <arpa/inet.h>
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

/* All addresses as IPv6: those of IPv4 mapped, so that one comparison serves both. */
struct ip {
	uint8_t b[16];
};
struct subnet {
	struct ip ip;
	unsigned bits;
};
struct balancers {
	size_t n;
	struct subnet net[];
};

static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static bool ip_read(const char *text, size_t n, struct ip *out, bool *v4)
{
	char copy[64];
	struct in_addr four;

	if (n >= sizeof(copy))
		return false;
	memcpy(copy, text, n);
	copy[n] = '\0';
	*v4 = inet_pton(AF_INET, copy, &four) == 1;
	if (!*v4)
		return inet_pton(AF_INET6, copy, out->b) == 1;
	memcpy(out->b, mapped, 12);
	memcpy(out->b + 12, &four, 4);
	return true;
}

static void addr_text(const struct ip *ip, unsigned port, char addr[ENV_ADDR_MAX])
{
	char text[INET6_ADDRSTRLEN];
	bool v4 = memcmp(ip->b, mapped, 12) == 0;

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip->b + 12 : ip->b, text, sizeof(text));
	snprintf(addr, ENV_ADDR_MAX, v4 ? "%s:%u" : "[%s]:%u", text, port);
}

/* ---- who is trusted ------------------------------------------------------------------------------------------------ */

static bool subnet_read(const char *text, struct subnet *out)
{
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	bool v4;
	char *end;

	if (!ip_read(text, n, &out->ip, &v4))
		return false;
	out->bits = 128;
	if (!slash)
		return true;
	unsigned long bits = strtoul(slash + 1, &end, 10), max = v4 ? 32 : 128;
	out->bits = (unsigned)bits + (v4 ? 96 : 0);
	return slash[1] >= '0' && slash[1] <= '9' && !*end && bits <= max;
}

int balancers_new(const char *const *texts, size_t n, struct balancers **out, size_t *wrong)
{
	struct balancers *b = calloc(1, sizeof(*b) + n * sizeof(b->net[0]));

	assert(b);
	for (b->n = 0; b->n < n; b->n++)
		if (!subnet_read(texts[b->n], &b->net[b->n])) {
			*wrong = b->n;
			free(b);
			return ERR_BAD_REQUEST;
		}
	*out = b;
	return 0;
}

void balancers_free(struct balancers *b)
{
	free(b);
}

static bool inside(const struct subnet *s, const struct ip *ip)
{
	unsigned bytes = s->bits / 8, rest = s->bits % 8;

	if (memcmp(s->ip.b, ip->b, bytes) != 0)
		return false;
	return !rest || !((s->ip.b[bytes] ^ ip->b[bytes]) >> (8 - rest));
}

static bool trusted(const struct balancers *b, const struct ip *ip)
{
	for (size_t i = 0; i < b->n; i++)
		if (inside(&b->net[i], ip))
			return true;
	return false;
}

/* "1.2.3.4", "1.2.3.4:5", "::1", "[::1]" or "[::1]:5" */
static bool addr_read(const char *text, size_t n, struct ip *ip)
{
	const char *end;
	bool v4;

	if (n && *text == '[') {
		end = memchr(text, ']', n);
		return end && ip_read(text + 1, (size_t)(end - text) - 1, ip, &v4);
	}
	end = memchr(text, ':', n);
	if (end && !memchr(end + 1, ':', n - (size_t)(end - text) - 1)) /* one colon: a port */
		n = (size_t)(end - text);
	return ip_read(text, n, ip, &v4);
}

bool balancers_trust(const struct balancers *b, const char *addr)
{
	struct ip ip;

	return b && addr_read(addr, strlen(addr), &ip) && trusted(b, &ip);
}

/* ---- what they say -------------------------------------------------------------------------------------------------- */

static const uint8_t signature[12] = { '\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n' };

enum { HEAD = 16, LOCAL = 0x20, PROXY = 0x21, TCP4 = 0x11, TCP6 = 0x21 };

static unsigned port_at(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

ssize_t balancer_header(const void *data, size_t n, char addr[ENV_ADDR_MAX])
{
	const uint8_t *p = data;
	struct ip ip;

	if (memcmp(p, signature, n < 12 ? n : 12) != 0)
		return ERR_BAD_REQUEST;
	if (n < HEAD)
		return ERR_INCOMPLETE;
	size_t rest = port_at(p + 14);
	if ((p[12] != LOCAL && p[12] != PROXY) || HEAD + rest > BALANCER_HEADER_MAX)
		return ERR_BAD_REQUEST;
	if (n < HEAD + rest)
		return ERR_INCOMPLETE;
	addr[0] = '\0';
	if (p[12] == PROXY && p[13] == TCP4 && rest >= 12) {
		memcpy(ip.b, mapped, 12);
		memcpy(ip.b + 12, p + HEAD, 4);
		addr_text(&ip, port_at(p + HEAD + 8), addr);
	} else if (p[12] == PROXY && p[13] == TCP6 && rest >= 36) {
		memcpy(ip.b, p + HEAD, 16);
		addr_text(&ip, port_at(p + HEAD + 32), addr);
	} else if (p[12] == PROXY && (p[13] == TCP4 || p[13] == TCP6)) {
		return ERR_BAD_REQUEST; /* too short for its addresses */
	}
	return (ssize_t)(HEAD + rest);
}

bool balancer_forwarded(const struct balancers *b, const char *header, size_t n, char addr[ENV_ADDR_MAX])
{
	struct ip ip;

	while (n) {
		const char *comma = memrchr(header, ',', n);
		const char *item = comma ? comma + 1 : header;
		size_t item_n = n - (size_t)(item - header);
		while (item_n && (*item == ' ' || *item == '\t'))
			item++, item_n--;
		while (item_n && (item[item_n - 1] == ' ' || item[item_n - 1] == '\t'))
			item_n--;
		if (!addr_read(item, item_n, &ip))
			return false; /* what stands before it is not vouched for */
		if (!b || !trusted(b, &ip)) {
			addr_text(&ip, 0, addr);
			return true;
		}
		n = comma ? (size_t)(comma - header) : 0;
	}
	return false;
}
