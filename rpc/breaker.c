#include "rpc/breaker.h"

bool breaker_admits(const struct breaker *b, uint64_t now_ms)
{
	return b->state == BREAKER_CLOSED || now_ms >= b->until_ms;
}

void breaker_sent(struct breaker *b, uint64_t now_ms)
{
	if (b->state == BREAKER_CLOSED)
		return;
	b->state = BREAKER_HALF_OPEN;
	b->until_ms = now_ms + b->wait_ms; /* a probe that is cancelled is never told of: then the next */
}

bool breaker_failed(struct breaker *b, uint64_t now_ms)
{
	bool was_closed = b->state == BREAKER_CLOSED;

	b->failures++;
	if (b->state == BREAKER_OPEN || (was_closed && b->failures < BREAKER_FAILURES))
		return false; /* open: calls of before that end late change nothing */
	b->wait_ms = b->wait_ms ? b->wait_ms * 2 : BREAKER_WAIT_MIN_MS;
	if (b->wait_ms > BREAKER_WAIT_MAX_MS)
		b->wait_ms = BREAKER_WAIT_MAX_MS;
	b->state = BREAKER_OPEN;
	b->until_ms = now_ms + b->wait_ms;
	return was_closed;
}

bool breaker_worked(struct breaker *b)
{
	bool was_closed = b->state == BREAKER_CLOSED;

	*b = (struct breaker){ .state = BREAKER_CLOSED };
	return !was_closed;
}
