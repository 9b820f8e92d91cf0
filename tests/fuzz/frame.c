/*
 * Any bytes as what comes over a link: however they arrive, the same frames are split off; what is read of a request or a
 * response is written again, in the room that was said, and reads as the same.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool same(struct span a, struct span b)
{
	return a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n));
}

static bool same_once(const struct frame_request *a, const struct frame_request *b)
{
	return a->once.client == b->once.client && a->once.epoch == b->once.epoch && a->once.seq == b->once.seq &&
	       a->once.first_incomplete == b->once.first_incomplete && a->once.attempt == b->once.attempt &&
	       same(a->once.key, b->once.key);
}

static void request(struct span payload, enum frame_type type)
{
	struct frame_request a, b;
	enum frame_type again;
	struct span written;

	if (frame_get_request(payload, &a) < 0)
		return;
	size_t room = frame_request_bytes(&a);
	char *out = malloc(room);
	assert(out);
	size_t n = frame_put_request(out, &a, type);
	assert(n <= room && frame_split(out, n, &again, &written) == (ssize_t)n && again == type);
	assert(frame_get_request(written, &b) == 0);
	assert(a.id == b.id && a.method == b.method && a.time_left_ms == b.time_left_ms && a.trace == b.trace);
	assert(a.sid == b.sid && a.kind == b.kind && a.json == b.json && same_once(&a, &b));
	assert(same(a.service, b.service) && same(a.method_name, b.method_name) && same(a.key, b.key));
	assert(same(a.uid, b.uid) && same(a.body, b.body));
	free(out);
}

static bool short_attrs(const struct frame_response *r)
{
	bool all = true;
	for (unsigned i = 0; i < r->attrs; i++)
		all = all && r->attr[i].name.n < 128 && r->attr[i].value.n < 128;
	return all;
}

static void response(struct span payload)
{
	struct frame_response a, b;
	enum frame_type type;
	struct span written;

	if (frame_get_response(payload, &a) < 0)
		return;
	assert(a.attrs <= FRAME_ATTRS_MAX);
	if (!short_attrs(&a)) /* ours are: who writes longer ones is not one of us */
		return;
	size_t room = frame_response_bytes(&a);
	char *out = malloc(room);
	assert(out);
	size_t n = frame_put_response(out, &a);
	assert(n <= room && frame_split(out, n, &type, &written) == (ssize_t)n && type == FRAME_RESPONSE);
	assert(frame_get_response(written, &b) == 0 && a.attrs == b.attrs);
	for (unsigned i = 0; i < a.attrs; i++)
		assert(same(a.attr[i].name, b.attr[i].name) && same(a.attr[i].value, b.attr[i].value));
	assert(a.id == b.id && a.error == b.error && a.effect == b.effect && a.json == b.json);
	assert(same(a.message, b.message) && same(a.body, b.body));
	free(out);
}

static int on_frame(void *arg, enum frame_type type, struct span payload)
{
	size_t *frames = arg;

	++*frames;
	request(payload, type == FRAME_CANCEL ? FRAME_CANCEL : FRAME_REQUEST);
	response(payload);
	return 0;
}

static int count(void *arg, enum frame_type type, struct span payload)
{
	(void)type, (void)payload;
	++*(size_t *)arg;
	return 0;
}

/* Bytes that end exactly where they end, so that the sanitizer sees a read behind them. */
static ssize_t each(const uint8_t *data, size_t n, frame_fn *fn, size_t *frames)
{
	char *copy = malloc(n ? n : 1);

	assert(copy);
	memcpy(copy, data, n);
	ssize_t used = frame_each(copy, n, fn, frames);
	free(copy);
	return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	size_t whole = 0, first = 0, second = 0, cut;

	if (!n)
		return 0;
	cut = data[0] % n;
	ssize_t used = each(data, n, on_frame, &whole), part = each(data, cut, count, &first);
	assert(used <= (ssize_t)n && part <= (ssize_t)cut);
	if (used < 0 || part < 0)
		return 0;
	ssize_t rest = each(data + part, n - (size_t)part, count, &second);
	assert(part + rest == used && first + second == whole);
	return 0;
}
