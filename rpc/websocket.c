#include "rpc/websocket.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>
#include "common/err.h"

/* ---- heads --------------------------------------------------------------------------------------------------- */

#define SMALL_FRAME 4096 /* up to this an unfinished frame waits in the caller's buffer; above it is streamed */
#define CONTROL_MAX 125

struct head {
	bool fin;
	uint8_t opcode;
	size_t n; /* of the head itself, mask included */
	uint64_t payload;
	uint8_t mask[4];
};

static bool opcode_known(uint8_t op)
{
	return op <= WEBSOCKET_BINARY || (op >= WEBSOCKET_CLOSE && op <= WEBSOCKET_PONG);
}

static int length_read(const uint8_t *p, size_t bytes, struct head *h)
{
	h->payload = 0;
	for (size_t i = 0; i < bytes; i++)
		h->payload = h->payload << 8 | p[i];
	/* the shortest form is the only one allowed */
	if (h->payload >> 63 || h->payload < (bytes == 2 ? 126u : 65536u))
		return ERR_BAD_REQUEST;
	return 0;
}

/* 0, ERR_INCOMPLETE or ERR_BAD_REQUEST, the latter as soon as two bytes show it. */
static int head_read(const uint8_t *p, size_t n, struct head *h)
{
	if (n < 2)
		return ERR_INCOMPLETE;
	unsigned len = p[1] & 0x7f;
	h->fin = p[0] & 0x80;
	h->opcode = p[0] & 0x0f;
	if ((p[0] & 0x70) || !opcode_known(h->opcode) || !(p[1] & 0x80))
		return ERR_BAD_REQUEST;
	if (h->opcode >= WEBSOCKET_CLOSE && (!h->fin || len > CONTROL_MAX))
		return ERR_BAD_REQUEST;
	size_t more = len == 126 ? 2 : len == 127 ? 8 : 0;
	h->n = 2 + more + 4;
	if (n < h->n)
		return ERR_INCOMPLETE;
	h->payload = len;
	if (more && length_read(p + 2, more, h) < 0)
		return ERR_BAD_REQUEST;
	memcpy(h->mask, p + 2 + more, 4);
	return 0;
}

static void unmask(uint8_t *p, size_t n, const uint8_t mask[4])
{
	uint64_t wide, word;
	size_t i = 0;

	memcpy(&wide, mask, 4);
	memcpy((char *)&wide + 4, mask, 4);
	for (; i + 8 <= n; i += 8) {
		memcpy(&word, p + i, 8);
		word ^= wide;
		memcpy(p + i, &word, 8);
	}
	for (; i < n; i++)
		p[i] ^= mask[i & 3];
}

size_t websocket_head(char out[WEBSOCKET_HEAD_MAX], enum websocket_opcode opcode, size_t n)
{
	out[0] = (char)(0x80 | opcode);
	if (n < 126) {
		out[1] = (char)n;
		return 2;
	}
	size_t bytes = n < 65536 ? 2 : 8;
	out[1] = bytes == 2 ? 126 : 127;
	for (size_t i = 0; i < bytes; i++)
		out[2 + i] = (char)((uint64_t)n >> 8 * (bytes - 1 - i));
	return 2 + bytes;
}

void websocket_close_frame(char out[WEBSOCKET_CLOSE_BYTES], unsigned code)
{
	out[0] = (char)(0x80 | WEBSOCKET_CLOSE);
	out[1] = 2;
	out[2] = (char)(code >> 8);
	out[3] = (char)code;
}

/* ---- the pool of contexts ---------------------------------------------------------------------------------------- */

/*
 * A frame being streamed through libwslay. It is fed exactly the frame's bytes, so that at the frame's end nothing
 * of the next one is buffered inside and the context is as good as new.
 */
struct websocket_frame {
	struct websocket_frame *next;
	wslay_frame_context_ptr ctx;
	const uint8_t *in;
	size_t in_n;
	uint64_t left; /* bytes of the frame not yet fed, head included */
};

struct websocket_pool {
	struct websocket_frame *idle;
	size_t held;
};

static ssize_t feed(uint8_t *out, size_t n, int flags, void *user)
{
	struct websocket_frame *f = user;

	(void)flags;
	if (n > f->in_n)
		n = f->in_n;
	if (n > f->left)
		n = (size_t)f->left;
	if (!n)
		return -1; /* wslay reads this as "would block" */
	memcpy(out, f->in, n);
	f->in += n;
	f->in_n -= n;
	f->left -= n;
	return (ssize_t)n;
}

struct websocket_pool *websocket_pool_new(void)
{
	return calloc(1, sizeof(struct websocket_pool));
}

void websocket_pool_free(struct websocket_pool *pool)
{
	if (!pool)
		return;
	assert(!pool->held);
	while (pool->idle) {
		struct websocket_frame *f = pool->idle;
		pool->idle = f->next;
		wslay_frame_context_free(f->ctx);
		free(f);
	}
	free(pool);
}

size_t websocket_pool_held(const struct websocket_pool *pool)
{
	return pool->held;
}

static struct websocket_frame *frame_take(struct websocket_pool *pool)
{
	static const struct wslay_frame_callbacks callbacks = { .recv_callback = feed };
	struct websocket_frame *f = pool->idle;

	pool->held++;
	if (f) {
		pool->idle = f->next;
		return f;
	}
	f = calloc(1, sizeof(*f));
	if (!f || wslay_frame_context_init(&f->ctx, &callbacks, f) != 0)
		abort();
	return f;
}

void websocket_release(struct websocket *ws, struct websocket_pool *pool)
{
	struct websocket_frame *f = ws->frame;

	if (!f)
		return;
	ws->frame = NULL;
	pool->held--;
	if (f->left) { /* cut short: the context's state is of no more use */
		wslay_frame_context_free(f->ctx);
		free(f);
		return;
	}
	f->next = pool->idle;
	pool->idle = f;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

/* Whether a frame with this head may come now. */
static int order_check(struct websocket *ws, const struct head *h)
{
	if (h->opcode >= WEBSOCKET_CLOSE)
		return 0;
	if (ws->in_message != (h->opcode == 0))
		return ERR_BAD_REQUEST;
	ws->in_message = !h->fin;
	return 0;
}

/* Streams what is there of the frame that ws holds a context for. Returns the bytes consumed. */
static ssize_t frame_on(struct websocket *ws, struct websocket_pool *pool, const char *data, size_t n,
			const struct websocket_ops *ops, void *arg)
{
	struct websocket_frame *f = ws->frame;
	struct wslay_frame_iocb io;
	ssize_t got;

	f->in = (const uint8_t *)data;
	f->in_n = n;
	while ((got = wslay_frame_recv(f->ctx, &io)) > 0) {
		int err = ops->on_data(arg, (const char *)io.data, io.data_length);
		if (err < 0)
			return err;
	}
	if (got != WSLAY_ERR_WANT_READ)
		return ERR_BAD_REQUEST;
	if (!f->left)
		websocket_release(ws, pool);
	return (ssize_t)(n - f->in_n);
}

/* A frame that is whole in data. */
static ssize_t frame_whole(char *data, const struct head *h, const struct websocket_ops *ops, void *arg)
{
	size_t n = (size_t)h->payload;
	int err = 0;

	unmask((uint8_t *)data + h->n, n, h->mask);
	if (h->opcode >= WEBSOCKET_CLOSE)
		err = ops->on_control(arg, (enum websocket_opcode)h->opcode, data + h->n, n);
	else if (n)
		err = ops->on_data(arg, data + h->n, n);
	return err < 0 ? err : (ssize_t)(h->n + n);
}

/* One step: a frame or a part of one. 0: more bytes are needed. */
static ssize_t step(struct websocket *ws, struct websocket_pool *pool, char *data, size_t n,
		    const struct websocket_ops *ops, void *arg)
{
	struct head h;
	int err;

	if (ws->frame)
		return frame_on(ws, pool, data, n, ops, arg);
	if ((err = head_read((const uint8_t *)data, n, &h)) < 0)
		return err == ERR_INCOMPLETE ? 0 : err;
	bool whole = h.payload <= n - h.n;
	if (!whole && h.n + h.payload <= SMALL_FRAME)
		return 0;
	if ((err = order_check(ws, &h)) < 0)
		return err;
	ws->frames++;
	if (whole)
		return frame_whole(data, &h, ops, arg);
	ws->frame = frame_take(pool);
	ws->frame->left = h.n + h.payload;
	return frame_on(ws, pool, data, n, ops, arg);
}

ssize_t websocket_read(struct websocket *ws, struct websocket_pool *pool, char *data, size_t n,
		       const struct websocket_ops *ops, void *arg)
{
	size_t at = 0;

	while (at < n) {
		ssize_t took = step(ws, pool, data + at, n - at, ops, arg);
		if (took < 0)
			return took;
		if (took == 0)
			break;
		at += (size_t)took;
	}
	return (ssize_t)at;
}
