#include <string.h>
#include "rpc/clientconn_private.h"
#include "rpc/clientlisten.h"

/* Bytes of the socket become packages: raw TCP, or HTTP and then WebSocket, told apart by the first byte. */

/* Payload of WebSocket messages: most often whole packages, which are read where they stand. */
static int on_payload(void *arg, const char *p, size_t n)
{
	struct clientconn *c = arg;

	if (!c->carry.len) {
		size_t took = clientconn_packages(c, p, n);
		if (c->state != CLIENTCONN_ENDED && took < n)
			buf_add(&c->carry, p + took, n - took);
	} else {
		buf_add(&c->carry, p, n);
		/* on_end releases carry: read from memory that stays */
		struct buf whole = c->carry;
		c->carry = (struct buf)BUF_INIT;
		size_t took = clientconn_packages(c, whole.data, whole.len);
		buf_consume(&whole, took);
		if (c->state == CLIENTCONN_ENDED || !whole.len)
			buf_release(&whole);
		else
			c->carry = whole;
	}
	return c->state == CLIENTCONN_ENDED ? ERR_CLOSED : 0;
}

static int on_control(void *arg, enum websocket_opcode opcode, const char *p, size_t n)
{
	struct clientconn *c = arg;
	char frame[WEBSOCKET_HEAD_MAX + 125];

	c->last_in_ms = c->face->loop->now_ms;
	if (opcode == WEBSOCKET_PONG)
		return 0;
	if (opcode == WEBSOCKET_CLOSE && !websocket_close_ok(p, n))
		return ERR_BAD_REQUEST; /* closed with 1002 */
	size_t head_n = websocket_head(frame, opcode == WEBSOCKET_PING ? WEBSOCKET_PONG : WEBSOCKET_CLOSE, n);
	memcpy(frame + head_n, p, n);
	stream_write(&c->stream, frame, head_n + n);
	if (opcode == WEBSOCKET_PING)
		return 0;
	c->left = true;
	clientconn_ended(c, LOG_DEBUG, "the client closed");
	stream_close_flushed(&c->stream);
	return ERR_CLOSED;
}

static const struct websocket_ops web_ops = { .on_data = on_payload, .on_control = on_control };

static ssize_t web_data(struct clientconn *c, const char *data, size_t n)
{
	/* the bytes are the stream's and read by nobody else: they may be unmasked in place */
	ssize_t took = websocket_read(&c->ws, c->face->frames, (char *)(uintptr_t)data, n, &web_ops, c);

	if (c->state == CLIENTCONN_ENDED)
		return (ssize_t)n;
	unsigned frames = c->ws.frames;
	c->ws.frames = 0;
	if (took >= 0)
		return clientconn_pieces_ok(c, frames) ? took : (ssize_t)n;
	clientconn_web_end(c, WEBSOCKET_PROTOCOL);
	clientconn_close_flushed(c, "broken WebSocket frames");
	return (ssize_t)n;
}

/* A balancer of ours says whose connection this is. false: that one has too many, or opens them too fast. */
static bool forwarded(struct clientconn *c, const char *request, size_t n)
{
	struct clientconn_face *f = c->face;
	struct buf list = BUF_INIT;
	char addr[ENV_ADDR_MAX];

	bool says = balancers_trust(f->balancers, c->addr) && websocket_headers(request, n, "X-Forwarded-For", &list) &&
		    balancer_forwarded(f->balancers, list.data, list.len, addr);
	buf_release(&list);
	if (!says)
		return true;
	const char *why = clientlisten_moved(*f->listen, c->addr, addr);
	memcpy(c->addr, addr, sizeof(addr));
	c->host = clientlisten_host(*f->listen, addr);
	if (why)
		clientconn_drop(c, why);
	return !why;
}

static ssize_t http_data(struct clientconn *c, const char *data, size_t n)
{
	struct buf *reply = &c->face->scratch;

	buf_clear(reply);
	ssize_t took = websocket_upgrade(data, n, &c->face->rules, reply);
	if (took == ERR_INCOMPLETE)
		return 0;
	stream_write(&c->stream, reply->data, reply->len);
	if (took < 0) {
		clientconn_close_flushed(c, "an HTTP request that is no WebSocket upgrade, or of a wrong origin");
		return (ssize_t)n;
	}
	if (!forwarded(c, data, (size_t)took))
		return (ssize_t)n;
	c->web = true;
	c->state = CLIENTCONN_HANDSHAKE;
	return took;
}

/* A pomelo client's first byte is 1; everything else that may come starts differently. */
static bool first_byte(struct clientconn *c, uint8_t byte)
{
	if (byte == POMELO_HANDSHAKE)
		c->state = CLIENTCONN_HANDSHAKE;
	else if (byte >= 'A' && byte <= 'Z')
		c->state = CLIENTCONN_UPGRADE;
	else
		clientconn_drop(c, byte == 0x16 ? "TLS, but no certificate is configured" : "neither pomelo nor HTTP");
	return c->state != CLIENTCONN_ENDED;
}

/* How many of the bytes are done with. */
static ssize_t take(struct clientconn *c, const char *data, size_t n)
{
	size_t at = 0;

	if (c->state == CLIENTCONN_ENDED)
		return (ssize_t)n;
	if (c->state == CLIENTCONN_NEW && !first_byte(c, (uint8_t)data[0]))
		return (ssize_t)n;
	if (c->state == CLIENTCONN_UPGRADE) {
		ssize_t took = http_data(c, data, n);
		if (c->state == CLIENTCONN_UPGRADE || c->state == CLIENTCONN_ENDED)
			return took;
		at = (size_t)took;
	}
	if (c->web)
		return (ssize_t)at + web_data(c, data + at, n - at);
	at = clientconn_packages(c, data, n);
	return c->state == CLIENTCONN_ENDED ? (ssize_t)n : (ssize_t)at;
}

ssize_t clientconn_on_data(struct stream *s, const char *data, size_t n)
{
	struct clientconn *c = clientconn_of(s);
	unsigned wholes = c->wholes;
	ssize_t took = take(c, data, n);
	bool rest = took < (ssize_t)n || c->carry.len || c->ws.frame;

	if (!rest)
		c->part_ms = 0;
	else if (!c->part_ms || wholes != c->wholes)
		c->part_ms = s->loop->now_ms;
	metric_add(c->face->bytes_in, took > 0 ? (uint64_t)took : 0);
	return took;
}
