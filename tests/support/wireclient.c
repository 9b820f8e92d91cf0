#include "tests/support/clock.h"
#include "tests/support/wireclient.h"
#include <arpa/inet.h>
#include <check.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/err.h"

void wireclient_open(struct wireclient *c, uint16_t port)
{
	wireclient_open_from(c, port, "0.0.0.0");
}

void wireclient_open_from(struct wireclient *c, uint16_t port, const char *address)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) }, from = { .sin_family = AF_INET };
	int one = 1;

	memset(c, 0, sizeof(*c));
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(c->fd, 0);
	ck_assert_int_eq(inet_pton(AF_INET, address, &from.sin_addr), 1);
	if (from.sin_addr.s_addr)
		ck_assert_int_eq(bind(c->fd, (struct sockaddr *)&from, sizeof(from)), 0);
	ck_assert_msg(connect(c->fd, (struct sockaddr *)&a, sizeof(a)) == 0, "port %u refuses", port);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

void wireclient_close(struct wireclient *c)
{
	SSL_free(c->tls);
	close(c->fd);
	free(c->last);
	buf_release(&c->in);
	buf_release(&c->payload);
}

/* A server that has closed already is no error here: the next read shows it. */
void wireclient_raw(struct wireclient *c, const void *bytes, size_t n)
{
	for (size_t at = 0; at < n;) {
		const char *rest = (const char *)bytes + at;
		ssize_t put = c->tls ? SSL_write(c->tls, rest, (int)(n - at)) : send(c->fd, rest, n - at, MSG_NOSIGNAL);
		if (put <= 0)
			return;
		at += (size_t)put;
	}
}

static void framed(struct wireclient *c, const char *bytes, size_t n)
{
	static const uint8_t mask[4] = { 7, 99, 1, 250 };
	struct buf b = BUF_INIT;

	if (!c->web) {
		wireclient_raw(c, bytes, n);
		return;
	}
	buf_addch(&b, (char)0x82);
	if (n < 126) {
		buf_addch(&b, (char)(0x80 | n));
	} else if (n < 65536) {
		buf_addch(&b, (char)0xfe);
		buf_addch(&b, (char)(n >> 8));
		buf_addch(&b, (char)n);
	} else {
		buf_addch(&b, (char)0xff);
		for (int i = 7; i >= 0; i--)
			buf_addch(&b, (char)((uint64_t)n >> 8 * i));
	}
	buf_add(&b, mask, 4);
	for (size_t i = 0; i < n; i++)
		buf_addch(&b, (char)((uint8_t)bytes[i] ^ mask[i & 3]));
	wireclient_raw(c, b.data, b.len);
	buf_release(&b);
}

void wireclient_package(struct wireclient *c, enum pomelo_type type, const void *body, size_t n)
{
	struct buf b = BUF_INIT;

	pomelo_package_head(buf_reserve(&b, POMELO_HEAD), type, n);
	b.len += POMELO_HEAD;
	buf_add(&b, body, n);
	framed(c, b.data, b.len);
	buf_release(&b);
}

static void message(struct wireclient *c, uint32_t id, const char *route, const char *body)
{
	struct buf b = BUF_INIT;
	char *head = buf_reserve(&b, POMELO_MESSAGE_HEAD_MAX);

	b.len += pomelo_request_head(head, id, 0, route, strlen(route), strlen(body));
	buf_addstr(&b, body);
	framed(c, b.data, b.len);
	buf_release(&b);
}

uint32_t wireclient_send(struct wireclient *c, const char *route, const char *body)
{
	message(c, ++c->id, route, body);
	return c->id;
}

void wireclient_notify(struct wireclient *c, const char *route, const char *body)
{
	message(c, 0, route, body);
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* false: closed. */
static bool fill(struct wireclient *c, uint64_t until_ms)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	uint64_t now = clock_ms();

	bool there = c->tls && SSL_pending(c->tls);
	ck_assert_msg(there || (now < until_ms && poll(&p, 1, (int)(until_ms - now)) == 1),
		      "the server said nothing for %d ms", WIRECLIENT_WAIT_MS);
	char *room = buf_reserve(&c->in, 65536);
	ssize_t n = c->tls ? SSL_read(c->tls, room, 65536) : recv(c->fd, room, 65536, 0);
	if (n <= 0)
		return false;
	c->in.len += (size_t)n;
	return true;
}

/* Moves whole frames' payloads from in to payload. */
static void unframe(struct wireclient *c)
{
	for (;;) {
		const uint8_t *p = (const uint8_t *)c->in.data;
		size_t head = 2, n;
		if (c->in.len < 2)
			return;
		n = p[1] & 0x7f;
		if (n == 126) {
			if (c->in.len < (head = 4))
				return;
			n = (size_t)p[2] << 8 | p[3];
		} else if (n == 127) {
			if (c->in.len < (head = 10))
				return;
			n = 0;
			for (int i = 2; i < 10; i++)
				n = n << 8 | p[i];
		}
		ck_assert_msg(!(p[1] & 0x80), "a server must not mask");
		if (c->in.len < head + n)
			return;
		if ((p[0] & 0x0f) == 2)
			buf_add(&c->payload, c->in.data + head, n);
		buf_consume(&c->in, head + n);
	}
}

static size_t package_bytes(const struct buf *b)
{
	const uint8_t *p = (const uint8_t *)b->data;

	if (b->len < POMELO_HEAD)
		return 0;
	size_t n = POMELO_HEAD + ((size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
	return b->len < n ? 0 : n;
}

struct wiregot wireclient_next(struct wireclient *c, bool beats)
{
	struct buf *from = c->web ? &c->payload : &c->in;
	uint64_t until_ms = clock_ms() + WIRECLIENT_WAIT_MS;
	struct wiregot got = { 0 };
	size_t n;

	for (;;) {
		if (c->web)
			unframe(c);
		if (!(n = package_bytes(from))) {
			if (!fill(c, until_ms))
				return got;
			continue;
		}
		if (beats || from->data[0] != POMELO_HEARTBEAT)
			break;
		buf_consume(from, n);
	}
	got.type = (enum pomelo_type)from->data[0];
	got.n = n - POMELO_HEAD;
	free(c->last);
	got.body = c->last = malloc(got.n + 1);
	memcpy(got.body, from->data + POMELO_HEAD, got.n);
	got.body[got.n] = '\0';
	buf_consume(from, n);
	if (got.type == POMELO_DATA)
		ck_assert_int_eq(pomelo_message_read(got.body, got.n, &got.m), 0);
	return got;
}

const char *wireclient_answer(struct wireclient *c, uint32_t id)
{
	for (;;) {
		struct wiregot got = wireclient_next(c, false);
		if (!got.type || got.type == POMELO_KICK)
			return NULL;
		if (got.type == POMELO_DATA && got.m.kind == POMELO_RESPONSE && got.m.id == id)
			return got.m.body;
	}
}

const char *wireclient_ask(struct wireclient *c, const char *route, const char *body)
{
	return wireclient_answer(c, wireclient_send(c, route, body));
}

const char *wireclient_push(struct wireclient *c, const char *route)
{
	for (;;) {
		struct wiregot got = wireclient_next(c, false);
		if (!got.type)
			return NULL;
		if (got.type == POMELO_DATA && got.m.kind == POMELO_PUSH && got.m.route_n == strlen(route) &&
		    memcmp(got.m.route, route, got.m.route_n) == 0)
			return got.m.body;
	}
}

const char *wireclient_kick(struct wireclient *c)
{
	for (;;) {
		struct wiregot got = wireclient_next(c, false);
		if (!got.type)
			return NULL;
		if (got.type != POMELO_KICK)
			continue;
		char *end = strrchr(got.body, '"'), *from = strchr(got.body, ':');
		ck_assert(end && from && end > from + 1);
		*end = '\0';
		return from + 2;
	}
}

bool wireclient_closed(struct wireclient *c)
{
	uint64_t until_ms = clock_ms() + WIRECLIENT_WAIT_MS;

	while (fill(c, until_ms))
		buf_clear(&c->in);
	return true;
}

/* ---- greetings ------------------------------------------------------------------------------------------------- */

void wireclient_upgrade(struct wireclient *c)
{
	static const char request[] =
		"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
	uint64_t until_ms = clock_ms() + WIRECLIENT_WAIT_MS;
	const char *end;

	wireclient_raw(c, request, sizeof(request) - 1);
	while (!c->in.len || !(end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4)))
		ck_assert(fill(c, until_ms));
	ck_assert_mem_eq(c->in.data, "HTTP/1.1 101", 12);
	buf_consume(&c->in, (size_t)(end + 4 - c->in.data));
	c->web = true;
}

static void shake(struct wireclient *c)
{
	static const char hello[] = "{\"sys\":{\"type\":\"test\",\"version\":\"1\"},\"user\":{}}";

	wireclient_package(c, POMELO_HANDSHAKE, hello, sizeof(hello) - 1);
	ck_assert_int_eq(wireclient_next(c, false).type, POMELO_HANDSHAKE);
	wireclient_package(c, POMELO_ACK, NULL, 0);
}

void wireclient_ready(struct wireclient *c, uint16_t port, bool web)
{
	wireclient_open(c, port);
	if (web)
		wireclient_upgrade(c);
	shake(c);
}

void wireclient_ready_tls(struct wireclient *c, uint16_t port)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	wireclient_open(c, port);
	c->tls = SSL_new(ctx);
	SSL_set_fd(c->tls, c->fd);
	ck_assert_int_eq(SSL_connect(c->tls), 1);
	SSL_CTX_free(ctx);
	shake(c);
}
