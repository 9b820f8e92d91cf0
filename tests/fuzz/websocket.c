/* Bytes of a client as an HTTP upgrade, then as WebSocket frames: whole and byte by byte they read the same. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/websocket.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int on_data(void *arg, const char *p, size_t n)
{
	buf_add(arg, p, n);
	return 0;
}

static int on_control(void *arg, enum websocket_opcode opcode, const char *p, size_t n)
{
	assert(n <= 125);
	buf_addch(arg, (char)opcode);
	buf_add(arg, p, n);
	return 0;
}

static const struct websocket_ops ops = { on_data, on_control };

/* Gives the bytes in pieces of so many; returns 0 or the error. */
static int frames(const uint8_t *data, size_t n, size_t piece, struct buf *out)
{
	struct websocket_pool *pool = websocket_pool_new();
	struct websocket ws = { 0 };
	struct buf in = BUF_INIT;
	ssize_t took = 0;

	for (size_t at = 0; at < n && took >= 0; at += piece) {
		buf_add(&in, data + at, n - at < piece ? n - at : piece);
		took = websocket_read(&ws, pool, in.data, in.len, &ops, out);
		assert(took <= (ssize_t)in.len);
		if (took > 0)
			buf_consume(&in, (size_t)took);
	}
	websocket_release(&ws, pool);
	websocket_pool_free(pool);
	buf_release(&in);
	return took < 0 ? (int)took : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct buf reply = BUF_INIT, whole = BUF_INIT, pieces = BUF_INIT;

	if (!n)
		return 0;
	ssize_t took = websocket_upgrade((const char *)data, n, NULL, &reply);
	assert(took <= (ssize_t)n);
	assert((took == ERR_INCOMPLETE) == (reply.len == 0));
	size_t at = took > 0 ? (size_t)took : 0;
	int a = frames(data + at, n - at, n, &whole), b = frames(data + at, n - at, 7, &pieces);
	assert(a == b);
	/* a broken stream may show more of itself when it comes whole */
	assert(a < 0 || (whole.len == pieces.len && (!whole.len || !memcmp(whole.data, pieces.data, whole.len))));
	buf_release(&reply);
	buf_release(&whole);
	buf_release(&pieces);
	return 0;
}
