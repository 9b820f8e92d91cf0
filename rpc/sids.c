#include "rpc/sids.h"

#define TAG (1 << 3 | 2)

void sids_put(struct buf *out, struct span list)
{
	uint64_t n = list.n;

	if (!n)
		return;
	buf_addch(out, TAG);
	for (; n >= 0x80; n >>= 7)
		buf_addch(out, (char)(n | 0x80));
	buf_addch(out, (char)n);
	buf_add(out, list.p, list.n);
}

bool sids_read(struct span message, struct span *list)
{
	const uint8_t *p = (const uint8_t *)message.p, *end = p + message.n;
	uint64_t n = 0;
	bool more = true;

	*list = span_of("", 0);
	if (p == end)
		return true;
	if (*p++ != TAG)
		return false;
	for (int shift = 0; more && p < end && shift < 63; shift += 7) {
		n |= (uint64_t)(*p & 0x7f) << shift;
		more = *p++ & 0x80;
	}
	if (more || n != (uint64_t)(end - p) || n % 8)
		return false;
	*list = span_of((const char *)p, n);
	return true;
}
