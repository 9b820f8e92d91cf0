/* The promises of rpc/websocket.h; libwslay's event layer is the reference for what comes out of frames. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>
#include "common/err.h"
#include "rpc/websocket.h"
#include "tests/support/suite.h"

/* ---- the upgrade */

#define HEADERS "Host: x\r\nConnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n"
#define KEY     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
static struct buf reply;

static ssize_t upgrade(const char *text)
{
	buf_clear(&reply);
	ssize_t got = websocket_upgrade(text, strlen(text), NULL, &reply);
	buf_cstr(&reply);
	return got;
}

START_TEST(an_upgrade_is_answered_as_in_the_rfc)
{
	const char *text = "GET /any?x=1 HTTP/1.1\r\n" HEADERS KEY "\r\n";

	ck_assert_int_eq(upgrade(text), (ssize_t)strlen(text));
	ck_assert_ptr_nonnull(strstr(reply.data, "HTTP/1.1 101 "));
	ck_assert_ptr_nonnull(strstr(reply.data, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
	ck_assert_ptr_null(strstr(reply.data, "Extensions"));
}
END_TEST

START_TEST(a_request_cut_anywhere_asks_for_more)
{
	const char *text = "GET / HTTP/1.1\r\n" HEADERS KEY "\r\n";

	for (size_t n = 0; n < strlen(text); n++)
		ck_assert_int_eq(websocket_upgrade(text, n, NULL, &reply), ERR_INCOMPLETE);
}
END_TEST

START_TEST(the_first_subprotocol_offered_is_taken)
{
	upgrade("GET / HTTP/1.1\r\n" HEADERS KEY "Sec-WebSocket-Protocol: pomelo, other\r\n\r\n");
	ck_assert_ptr_nonnull(strstr(reply.data, "\r\nSec-WebSocket-Protocol: pomelo\r\n\r\n"));
	upgrade("GET / HTTP/1.1\r\n" HEADERS KEY "Sec-WebSocket-Protocol: a\x01:b\r\n\r\n");
	ck_assert_ptr_null(strstr(reply.data, "Sec-WebSocket-Protocol"));
	upgrade("GET / HTTP/1.1\r\n" HEADERS KEY "\r\n");
	ck_assert_ptr_null(strstr(reply.data, "Sec-WebSocket-Protocol"));
}
END_TEST

START_TEST(pages_of_other_origins_are_refused)
{
	static const char *const origins[] = { "https://play.example.com", "http://localhost:8000" };
	static const struct websocket_rules rules = { origins, 2 };
	static const struct {
		const char *header;
		bool ok;
	} cases[] = { { "Origin: https://play.example.com\r\n", true },
		      { "origin: HTTP://LOCALHOST:8000\r\n", true },
		      { "", true },
		      { "Origin: https://evil.example.com\r\n", false },
		      { "Origin: https://play.example.com.evil.com\r\n", false },
		      { "Origin: null\r\n", false },
		      { "Origin:\r\n", false } };

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[600];
		int n = snprintf(text, sizeof(text), "GET / HTTP/1.1\r\n" HEADERS KEY "%s\r\n", cases[i].header);
		buf_clear(&reply);
		ck_assert_int_eq(websocket_upgrade(text, (size_t)n, &rules, &reply), cases[i].ok ? n : ERR_BAD_REQUEST);
		ck_assert_ptr_nonnull(strstr(buf_cstr(&reply), cases[i].ok ? " 101 " : " 403 "));
	}
}
END_TEST

START_TEST(close_frames_hold_nothing_or_a_code_that_travels)
{
	ck_assert(websocket_close_ok("", 0));
	ck_assert(websocket_close_ok("\x03\xe8", 2));
	ck_assert(websocket_close_ok("\x03\xe8gr\xc3\xbc\xc3\x9f", 8));
	ck_assert(websocket_close_ok("\x0f\xa0", 2)); /* 4000 */
	ck_assert(!websocket_close_ok("\x03", 1));
	ck_assert(!websocket_close_ok("\x03\xed", 2)); /* 1005 */
	ck_assert(!websocket_close_ok("\0\0", 2));
	ck_assert(!websocket_close_ok("\x13\x88", 2));     /* 5000 */
	ck_assert(!websocket_close_ok("\x03\xe8\xff", 3)); /* no UTF-8 */
}
END_TEST

START_TEST(a_plain_get_is_told_to_upgrade)
{
	ck_assert_int_eq(upgrade("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ERR_BAD_REQUEST);
	ck_assert_ptr_nonnull(strstr(reply.data, "HTTP/1.1 426 Upgrade Required\r\n"));
	ck_assert_ptr_nonnull(strstr(reply.data, "Connection: close\r\n"));
}
END_TEST

START_TEST(wrong_requests_are_refused_with_their_status)
{
	static const struct {
		const char *text, *status;
	} bad[] = {
		{ "POST / HTTP/1.1\r\n\r\n", " 405 " },
		{ "GET / HTTP/1.0\r\n\r\n", " 400 " },
		{ "G\r\n\r\n", " 400 " },
		{ "GET / HTTP/1.1\r\n" HEADERS "\r\n", " 400 " },
		{ "GET / HTTP/1.1\r\n" HEADERS "Sec-WebSocket-Key: short\r\n\r\n", " 400 " },
		{ "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n" KEY
		  "\r\n",
		  " 426 " },
		{ "GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" KEY "\r\n", " 426 " },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_int_eq(upgrade(bad[i].text), ERR_BAD_REQUEST);
		ck_assert_ptr_nonnull(strstr(reply.data, bad[i].status));
	}
}
END_TEST

START_TEST(an_endless_request_is_refused)
{
	char text[WEBSOCKET_REQUEST_MAX];

	memset(text, 'G', sizeof(text));
	ck_assert_int_eq(websocket_upgrade(text, sizeof(text) - 1, NULL, &reply), ERR_INCOMPLETE);
	ck_assert_int_eq(websocket_upgrade(text, sizeof(text), NULL, &reply), ERR_FULL);
}
END_TEST

/* ---- frames */

struct seen {
	struct buf data, control;
	int fail;
};

static int on_data(void *arg, const char *p, size_t n)
{
	struct seen *s = arg;

	buf_add(&s->data, p, n);
	return s->fail;
}

static int on_control(void *arg, enum websocket_opcode op, const char *p, size_t n)
{
	struct seen *s = arg;

	buf_addch(&s->control, (char)op);
	buf_add(&s->control, p, n);
	return 0;
}

static const struct websocket_ops ops = { on_data, on_control };
static struct websocket_pool *pool;

static void setup(void)
{
	pool = websocket_pool_new();
	buf_init(&reply);
}

static void teardown(void)
{
	websocket_pool_free(pool);
	buf_release(&reply);
}

static void frame_add(struct buf *b, uint8_t first, const char *payload, size_t n)
{
	static const uint8_t mask[4] = { 0x12, 0x34, 0xff, 0x01 };
	char head[WEBSOCKET_HEAD_MAX];
	size_t head_n = websocket_head(head, (enum websocket_opcode)(first & 15), n);

	head[0] = (char)first;
	head[1] = (char)(head[1] | 0x80);
	buf_add(b, head, head_n);
	buf_add(b, mask, 4);
	for (size_t i = 0; i < n; i++)
		buf_addch(b, (char)((uint8_t)payload[i] ^ mask[i & 3]));
}

/* Feeds bytes as a socket would: what is not consumed comes again with the next chunk behind it. */
static ssize_t feed_chunks(struct websocket *ws, struct seen *s, const struct buf *bytes, unsigned *seed,
			   size_t chunk_max)
{
	struct buf in = BUF_INIT;
	ssize_t took = 0;

	for (size_t at = 0; at < bytes->len && took >= 0;) {
		size_t n = 1 + (size_t)rand_r(seed) % chunk_max;
		if (n > bytes->len - at)
			n = bytes->len - at;
		buf_add(&in, bytes->data + at, n);
		at += n;
		if ((took = websocket_read(ws, pool, in.data, in.len, &ops, s)) > 0)
			buf_consume(&in, (size_t)took);
		ck_assert_uint_le(in.len, 4096);
	}
	ck_assert(took < 0 || in.len == 0);
	buf_release(&in);
	return took;
}

START_TEST(a_whole_frame_is_unmasked_in_place)
{
	struct websocket ws = { 0 };
	struct seen s = { 0 };
	struct buf b = BUF_INIT;

	frame_add(&b, 0x82, "hello websocket", 15);
	ck_assert_int_eq(websocket_read(&ws, pool, b.data, b.len, &ops, &s), (ssize_t)b.len);
	ck_assert_str_eq(buf_cstr(&s.data), "hello websocket");
	ck_assert_uint_eq(websocket_pool_held(pool), 0);
	buf_release(&b);
	buf_release(&s.data);
}
END_TEST

START_TEST(a_large_frame_holds_a_context_until_its_last_byte)
{
	struct websocket ws = { 0 };
	struct seen s = { 0 };
	struct buf b = BUF_INIT;
	char big[70000];

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 7);
	frame_add(&b, 0x82, big, sizeof(big));
	ck_assert_int_eq(websocket_read(&ws, pool, b.data, 100, &ops, &s), 100);
	ck_assert_uint_eq(websocket_pool_held(pool), 1);
	ck_assert_int_eq(websocket_read(&ws, pool, b.data + 100, b.len - 101, &ops, &s), (ssize_t)b.len - 101);
	ck_assert_uint_eq(websocket_pool_held(pool), 1);
	ck_assert_int_eq(websocket_read(&ws, pool, b.data + b.len - 1, 1, &ops, &s), 1);
	ck_assert_uint_eq(websocket_pool_held(pool), 0);
	ck_assert_uint_eq(s.data.len, sizeof(big));
	ck_assert_mem_eq(s.data.data, big, sizeof(big));
	buf_release(&b);
	buf_release(&s.data);
}
END_TEST

START_TEST(a_connection_that_ends_gives_its_context_back)
{
	struct websocket ws = { 0 };
	struct seen s = { 0 };
	struct buf b = BUF_INIT;
	char big[9000] = { 0 };

	frame_add(&b, 0x82, big, sizeof(big));
	websocket_read(&ws, pool, b.data, 5000, &ops, &s);
	ck_assert_uint_eq(websocket_pool_held(pool), 1);
	websocket_release(&ws, pool);
	ck_assert_uint_eq(websocket_pool_held(pool), 0);
	buf_release(&b);
	buf_release(&s.data);
}
END_TEST

static void expect_refused(const char *bytes, size_t n)
{
	struct websocket ws = { 0 };
	struct seen s = { 0 };
	char copy[64];

	memcpy(copy, bytes, n);
	ck_assert_int_eq(websocket_read(&ws, pool, copy, n, &ops, &s), ERR_BAD_REQUEST);
	buf_release(&s.data);
	buf_release(&s.control);
}
#define REFUSED(s) expect_refused(s, sizeof(s) - 1)

START_TEST(broken_frames_are_refused_by_their_head)
{
	REFUSED("\x82\x05"); /* no mask */
	REFUSED("\xc2\x85"); /* a reserved bit */
	REFUSED("\x83\x85"); /* an unknown opcode */
	REFUSED("\x8b\x80");
	REFUSED("\x09\x80");           /* a ping that is not whole */
	REFUSED("\x89\xfe");           /* a ping too long */
	REFUSED("\x82\xfe\0\x7dmask"); /* not the shortest length */
	REFUSED("\x82\xff\0\0\0\0\0\0\xff\xffmask");
	REFUSED("\x82\xff\x80\0\0\0\0\x01\0\0mask");
	REFUSED("\x80\x80mask");             /* a continuation of nothing */
	REFUSED("\x02\x80mask\x82\x80mask"); /* a message inside another */
}
END_TEST

START_TEST(what_a_callback_refuses_ends_the_reading)
{
	struct websocket ws = { 0 };
	struct seen s = { .fail = ERR_FULL };
	struct buf b = BUF_INIT;

	frame_add(&b, 0x82, "x", 1);
	ck_assert_int_eq(websocket_read(&ws, pool, b.data, b.len, &ops, &s), ERR_FULL);
	buf_release(&b);
	buf_release(&s.data);
}
END_TEST

/* ---- the reference */

struct reference {
	const struct buf *in;
	size_t at;
	struct seen seen;
};

static ssize_t ref_recv(wslay_event_context_ptr ctx, uint8_t *out, size_t n, int flags, void *user)
{
	struct reference *r = user;

	(void)flags;
	if (n > r->in->len - r->at)
		n = r->in->len - r->at;
	if (!n) {
		wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	memcpy(out, r->in->data + r->at, n);
	r->at += n;
	return (ssize_t)n;
}

static void ref_msg(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *a, void *user)
{
	struct reference *r = user;

	(void)ctx;
	if (wslay_is_ctrl_frame(a->opcode))
		on_control(&r->seen, (enum websocket_opcode)a->opcode, (const char *)a->msg, a->msg_length);
	else
		on_data(&r->seen, (const char *)a->msg, a->msg_length);
}

/* Random messages, some in fragments with pings between. */
static void random_frames(struct buf *b, unsigned *seed)
{
	static char payload[20000];

	for (int i = 0; i < 12; i++) {
		int fragments = rand_r(seed) % 3 ? 1 : 1 + rand_r(seed) % 4;
		for (int f = 0; f < fragments; f++) {
			static const size_t size[] = { 0, 1, 20, 125, 126, 300, 4090, 20000 };
			size_t n = (size_t)rand_r(seed) % (size[(unsigned)rand_r(seed) % 8] + 1);
			for (size_t k = 0; k < n; k++)
				payload[k] = (char)rand_r(seed);
			frame_add(b, (uint8_t)((f ? 0 : WEBSOCKET_BINARY) | (f == fragments - 1 ? 0x80 : 0)), payload,
				  n);
			if (rand_r(seed) % 4 == 0)
				frame_add(b, 0x80 | (rand_r(seed) % 2 ? WEBSOCKET_PING : WEBSOCKET_PONG), payload,
					  n > 125 ? 125 : n);
		}
	}
}

START_TEST(random_frames_in_random_pieces_read_as_wslay_reads_them)
{
	unsigned seed = (unsigned)_i + 1;
	struct wslay_event_callbacks callbacks = { .recv_callback = ref_recv, .on_msg_recv_callback = ref_msg };
	wslay_event_context_ptr ctx;

	for (int round = 0; round < 20; round++) {
		struct buf b = BUF_INIT;
		struct websocket ws = { 0 };
		struct seen s = { 0 };
		random_frames(&b, &seed);
		struct reference ref = { .in = &b };
		ck_assert_int_eq(wslay_event_context_server_init(&ctx, &callbacks, &ref), 0);
		ck_assert_int_eq(wslay_event_recv(ctx), 0);
		ck_assert_int_ge(feed_chunks(&ws, &s, &b, &seed, round % 2 ? 9000 : 60), 0);
		ck_assert_uint_eq(s.data.len, ref.seen.data.len);
		ck_assert_uint_eq(s.control.len, ref.seen.control.len);
		ck_assert(s.data.len == 0 || memcmp(s.data.data, ref.seen.data.data, s.data.len) == 0);
		ck_assert(s.control.len == 0 || memcmp(s.control.data, ref.seen.control.data, s.control.len) == 0);
		ck_assert_uint_eq(websocket_pool_held(pool), 0);
		wslay_event_context_free(ctx);
		buf_release(&b);
		buf_release(&s.data);
		buf_release(&s.control);
		buf_release(&ref.seen.data);
		buf_release(&ref.seen.control);
	}
}
END_TEST

START_TEST(heads_have_the_shortest_length)
{
	char head[WEBSOCKET_HEAD_MAX];

	ck_assert_uint_eq(websocket_head(head, WEBSOCKET_BINARY, 125), 2);
	ck_assert_mem_eq(head, "\x82\x7d", 2);
	ck_assert_uint_eq(websocket_head(head, WEBSOCKET_BINARY, 126), 4);
	ck_assert_mem_eq(head, "\x82\x7e\0\x7e", 4);
	ck_assert_uint_eq(websocket_head(head, WEBSOCKET_BINARY, 65536), 10);
	ck_assert_mem_eq(head, "\x82\x7f\0\0\0\0\0\x01\0\0", 10);
	websocket_close_frame(head, WEBSOCKET_PROTOCOL);
	ck_assert_mem_eq(head, "\x88\x02\x03\xea", 4);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("websocket");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, an_upgrade_is_answered_as_in_the_rfc);
	tcase_add_test(t, a_request_cut_anywhere_asks_for_more);
	tcase_add_test(t, the_first_subprotocol_offered_is_taken);
	tcase_add_test(t, pages_of_other_origins_are_refused);
	tcase_add_test(t, close_frames_hold_nothing_or_a_code_that_travels);
	tcase_add_test(t, a_plain_get_is_told_to_upgrade);
	tcase_add_test(t, wrong_requests_are_refused_with_their_status);
	tcase_add_test(t, an_endless_request_is_refused);
	tcase_add_test(t, a_whole_frame_is_unmasked_in_place);
	tcase_add_test(t, a_large_frame_holds_a_context_until_its_last_byte);
	tcase_add_test(t, a_connection_that_ends_gives_its_context_back);
	tcase_add_test(t, broken_frames_are_refused_by_their_head);
	tcase_add_test(t, what_a_callback_refuses_ends_the_reading);
	tcase_add_loop_test(t, random_frames_in_random_pieces_read_as_wslay_reads_them, 0, 20);
	tcase_add_test(t, heads_have_the_shortest_length);
	return suite_run("websocket", t);
}
