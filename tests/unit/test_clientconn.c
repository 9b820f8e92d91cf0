/* The promises of rpc/clientconn.h and rpc/clientlisten.h, over real sockets. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#include "rpc/clientconn.h"
#include "rpc/clientlate.h"
#include "rpc/clientlisten.h"
#include "tests/support/clientserver.h"
#include "tests/support/folder.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"
#include "tests/support/wireclient.h"

/* A server that echoes and knows a few routes that make it do things. */
static struct clientserver s;
static struct pomelo_dict *dict;
static bool alive;

static bool route_is(const struct pomelo_message *m, const char *name)
{
	return m->route_n == strlen(name) && memcmp(m->route, name, m->route_n) == 0;
}

static void flood(struct clientconn *c)
{
	char body[1000] = "{\"x\":\"";
	struct clientconn_push p;

	memset(body + 6, 'x', sizeof(body) - 8);
	memcpy(body + sizeof(body) - 2, "\"}", 2);
	clientconn_push_make(&p, NULL, "onFlood", 7, body, sizeof(body));
	for (int i = 0; i < 20000 && clientconn_push(c, &p) == 0; i++)
		;
}

/* More than sockets take at once, if the client does not read. */
static void some(struct clientconn *c)
{
	static char body[60000] = "{\"x\":\"";
	struct clientconn_push p;

	memset(body + 6, 'x', sizeof(body) - 8);
	memcpy(body + sizeof(body) - 2, "\"}", 2);
	clientconn_push_make(&p, NULL, "onSome", 6, body, sizeof(body));
	for (int i = 0; i < 300; i++)
		clientconn_push(c, &p);
}

/* To all who are there, from one encoding. */
static void push_all(void)
{
	struct clientconn_push p;

	clientconn_push_make(&p, dict, "onPush", 6, "{\"a\":1}", 7);
	clientconn_push_many(&p);
	for (struct clientconn *c = s.face.conns; c; c = c->next) {
		clientconn_push(c, &p);
		clientconn_push(c, &p);
	}
	clientconn_push_done(&p);
}

/* Where something is, very often: only the latest matters. */
static void moves(struct clientconn *c)
{
	static unsigned n;
	char body[1000];
	struct clientconn_push p;

	for (int i = 0; i < 500; i++) {
		int len = snprintf(body, sizeof(body), "{\"n\":%u,\"x\":\"%0*d\"}", ++n, 900, 0);
		clientconn_push_make(&p, NULL, "onMove", 6, body, (size_t)len);
		p.supersedes = clientlate_key("onMove", 6, "role 7", 6);
		clientconn_push(c, &p);
	}
}

static void on_message(struct clientconn *c, const struct pomelo_message *m)
{
	struct clientconn_push p;

	if (route_is(m, "kick"))
		clientconn_kick(c, "because \"so\"");
	else if (route_is(m, "early"))
		clientconn_strike(c, m->id, "not yet");
	else if (route_is(m, "login"))
		clientconn_login(c);
	else if (route_is(m, "flood"))
		flood(c);
	else if (route_is(m, "some"))
		some(c);
	else if (route_is(m, "moves"))
		moves(c);
	else if (route_is(m, "push.me") && clientconn_push_make(&p, dict, "onPush", 6, "{\"a\":1}", 7) == 0)
		clientconn_push(c, &p);
	else if (route_is(m, "push.all"))
		push_all();
	else if (route_is(m, "fail"))
		clientconn_error(c, m->id, ERR_NOT_FOUND, EFFECT_NONE, "there is \"none\"");
	else
		clientconn_respond(c, m->id, m->body, m->n);
}

/* Tests that want other limits change s before they call it. */
static void serve(void)
{
	clientserver_open(&s);
}

static void setup(void)
{
	static const char *const routes[] = { "fail", "onPush" };

	clientserver_init(&s, on_message);
	pomelo_dict_new(routes, 2, &dict);
	s.face.dict = dict;
}

static void teardown(void)
{
	clientserver_release(&s);
	pomelo_dict_free(dict);
}

static const char hello[] = "\x01\0\0\x0a{\"sys\":{}}";
#define HELLO hello, sizeof(hello) - 1

/* ---- transports and greetings */

START_TEST(raw_and_websocket_clients_are_served_on_one_port)
{
	struct wireclient c;

	serve();
	for (int web = 0; web < 2; web++) {
		wireclient_ready(&c, s.port, web);
		ck_assert_str_eq(wireclient_ask(&c, "echo", "{\"x\":1}"), "{\"x\":1}");
		wireclient_close(&c);
	}
}
END_TEST

START_TEST(bytes_may_come_one_by_one)
{
	static const char all[] = "\x01\0\0\x0a{\"sys\":{}}\x02\0\0\0\x04\0\0\x09\0\x01\x04"
				  "echo{}";
	struct wireclient c;

	serve();
	wireclient_open(&c, s.port);
	for (size_t i = 0; i < sizeof(all) - 1; i++)
		wireclient_raw(&c, all + i, 1);
	ck_assert_int_eq(wireclient_next(&c, false).type, POMELO_HANDSHAKE);
	ck_assert_str_eq(wireclient_answer(&c, 1), "{}");
	wireclient_close(&c);
}
END_TEST

START_TEST(everything_may_come_in_one_piece)
{
	static const char all[] = "\x01\0\0\x0a{\"sys\":{}}\x02\0\0\0\x04\0\0\x09\0\x01\x04"
				  "echo{}\x04\0\0\x09\0\x02\x04"
				  "echo[]";
	struct wireclient c;

	serve();
	wireclient_open(&c, s.port);
	wireclient_raw(&c, all, sizeof(all) - 1);
	ck_assert_int_eq(wireclient_next(&c, false).type, POMELO_HANDSHAKE);
	ck_assert_str_eq(wireclient_answer(&c, 1), "{}");
	ck_assert_str_eq(wireclient_answer(&c, 2), "[]");
	wireclient_close(&c);
}
END_TEST

START_TEST(a_package_may_be_split_over_websocket_messages)
{
	static const char first[] = "\x82\x86\0\0\0\0\x04\0\0\x09\0\x01", second[] = "\x82\x87\0\0\0\0\x04"
										     "echo{}";
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, true);
	wireclient_raw(&c, first, sizeof(first) - 1);
	wireclient_raw(&c, second, sizeof(second) - 1);
	ck_assert_str_eq(wireclient_answer(&c, 1), "{}");
	wireclient_close(&c);
}
END_TEST

START_TEST(a_large_package_comes_whole_over_both)
{
	static char body[60001];
	struct wireclient c;

	serve();
	memset(body, 'b', sizeof(body) - 1);
	for (int web = 0; web < 2; web++) {
		wireclient_ready(&c, s.port, web);
		ck_assert_str_eq(wireclient_ask(&c, "echo", body), body);
		ck_assert_str_eq(wireclient_ask(&c, "echo", "{}"), "{}");
		wireclient_close(&c);
	}
}
END_TEST

START_TEST(a_first_byte_of_nobody_ends_the_connection)
{
	static const char *const first[] = { "\x16\x03\x01", "\x02", "\x04", "\xff", " ", "g" };
	struct wireclient c;

	serve();
	for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
		wireclient_open(&c, s.port);
		wireclient_raw(&c, first[i], 1);
		ck_assert(wireclient_closed(&c));
		wireclient_close(&c);
	}
	ck_assert(flag_wait(&s.freed, 6));
}
END_TEST

START_TEST(a_browser_is_told_what_this_port_is)
{
	struct wireclient c;

	serve();
	wireclient_open(&c, s.port);
	wireclient_raw(&c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
	while (!c.in.len || !memmem(c.in.data, c.in.len, "game clients", 12)) {
		char *room = buf_reserve(&c.in, 1024);
		ssize_t n = read(c.fd, room, 1024);
		ck_assert_int_gt(n, 0);
		c.in.len += (size_t)n;
	}
	ck_assert_mem_eq(c.in.data, "HTTP/1.1 426", 12);
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
}
END_TEST

START_TEST(the_first_heartbeat_follows_the_ack_and_each_is_answered)
{
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	ck_assert_int_eq(wireclient_next(&c, true).type, POMELO_HEARTBEAT);
	wireclient_package(&c, POMELO_HEARTBEAT, NULL, 0); /* also one that comes at once */
	ck_assert_int_eq(wireclient_next(&c, true).type, POMELO_HEARTBEAT);
	ck_assert_str_eq(wireclient_ask(&c, "echo", "{}"), "{}");
	/* in a storm one per 100 ms is answered, and the last one not ignored for ever */
	for (bool answered = false; !answered;) {
		wireclient_package(&c, POMELO_HEARTBEAT, NULL, 0);
		wireclient_send(&c, "echo", "{}");
		while (wireclient_next(&c, true).type == POMELO_HEARTBEAT)
			answered = true;
	}
	wireclient_close(&c);
}
END_TEST

START_TEST(a_websocket_ping_is_answered_and_a_close_returned)
{
	struct wireclient c;
	char in[4];

	serve();
	wireclient_open(&c, s.port);
	wireclient_upgrade(&c);
	wireclient_raw(&c, "\x89\x82\0\0\0\0hi", 8);
	ck_assert_int_eq(recv(c.fd, in, 4, MSG_WAITALL), 4);
	ck_assert_mem_eq(in, "\x8a\x02hi", 4);
	wireclient_raw(&c, "\x88\x82\0\0\0\0\x03\xe8", 8);
	ck_assert_int_eq(recv(c.fd, in, 4, MSG_WAITALL), 4);
	ck_assert_mem_eq(in, "\x88\x02\x03\xe8", 4);
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
}
END_TEST

/* ---- refusals */

START_TEST(a_wrong_handshake_gets_500_and_the_end)
{
	struct wireclient c;

	serve();
	wireclient_open(&c, s.port);
	wireclient_raw(&c, "\x01\0\0\x02{}", 6);
	struct wiregot got = wireclient_next(&c, false);
	ck_assert_int_eq(got.type, POMELO_HANDSHAKE);
	ck_assert_str_eq(got.body, "{\"code\":500}");
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
}
END_TEST

START_TEST(an_old_client_gets_501_and_the_end)
{
	static const struct clientconn_least least[] = { { "js-websocket", "0.1.0" } };
	static const char old[] = "{\"sys\":{\"type\":\"js-websocket\",\"version\":\"0.0.9\"}}";
	static const char fresh[] = "{\"sys\":{\"type\":\"js-websocket\",\"version\":\"0.10\"}}";
	struct wireclient c;

	s.face.least = least;
	s.face.leasts = 1;
	serve();
	wireclient_open(&c, s.port);
	wireclient_package(&c, POMELO_HANDSHAKE, old, sizeof(old) - 1);
	ck_assert_str_eq(wireclient_next(&c, false).body, "{\"code\":501}");
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
	wireclient_open(&c, s.port);
	wireclient_package(&c, POMELO_HANDSHAKE, fresh, sizeof(fresh) - 1);
	ck_assert_ptr_nonnull(strstr(wireclient_next(&c, false).body, "\"code\":200"));
	wireclient_close(&c);
}
END_TEST

START_TEST(before_the_handshake_four_kilobytes_are_the_most)
{
	struct wireclient c;

	serve();
	wireclient_open(&c, s.port);
	wireclient_raw(&c, "\x01\0\x10\x01", 4); /* 4097: its head is enough */
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
}
END_TEST

START_TEST(later_the_body_limit_holds)
{
	struct wireclient c;

	serve();
	for (int web = 0; web < 2; web++) {
		wireclient_ready(&c, s.port, web);
		wireclient_raw(&c, web ? "\x82\x84\0\0\0\0\x04\x01\0\x01" : "\x04\x01\0\x01", web ? 10 : 4);
		ck_assert(wireclient_closed(&c));
		wireclient_close(&c);
	}
}
END_TEST

START_TEST(data_before_the_ack_ends_the_connection)
{
	struct wireclient c;

	serve();
	wireclient_open(&c, s.port);
	wireclient_raw(&c, HELLO);
	ck_assert_int_eq(wireclient_next(&c, false).type, POMELO_HANDSHAKE);
	wireclient_send(&c, "echo", "{}");
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
}
END_TEST

START_TEST(an_unknown_route_code_is_answered)
{
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	wireclient_notify(&c, "login", "{}");
	wireclient_package(&c, POMELO_DATA, "\x01\x05\0\x09{}", 6);
	ck_assert_ptr_nonnull(strstr(wireclient_answer(&c, 5), "\"code\":404,\"error\":\"not_found\""));
	wireclient_package(&c, POMELO_DATA, "\x01\x06\0\x01{}", 6); /* "fail" */
	ck_assert_str_eq(wireclient_answer(&c, 6), "{\"code\":404,\"error\":\"not_found\",\"message\":\"there is "
						   "\\\"none\\\"\",\"effect\":\"none\"}");
	wireclient_close(&c);
}
END_TEST

START_TEST(an_unreadable_message_is_kicked)
{
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	wireclient_package(&c, POMELO_DATA, "\xe0", 1);
	ck_assert_str_eq(wireclient_kick(&c), "a message that cannot be read");
	wireclient_close(&c);
}
END_TEST

START_TEST(a_kick_carries_its_reason_and_then_the_end)
{
	struct wireclient c;

	serve();
	for (int web = 0; web < 2; web++) {
		wireclient_ready(&c, s.port, web);
		wireclient_notify(&c, "kick", "{}");
		ck_assert_str_eq(wireclient_kick(&c), "because \\\"so\\\"");
		ck_assert(wireclient_closed(&c));
		wireclient_close(&c);
	}
}
END_TEST

START_TEST(the_tenth_request_before_login_is_kicked)
{
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	for (int i = 1; i <= CLIENTCONN_STRIKES; i++)
		ck_assert_ptr_nonnull(strstr(wireclient_ask(&c, "early", "{}"), "\"error\":\"denied\""));
	ck_assert_ptr_nonnull(strstr(wireclient_kick(&c), "before login"));
	wireclient_close(&c);
}
END_TEST

START_TEST(before_login_an_unknown_code_counts_like_any_request)
{
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	for (int i = 1; i <= CLIENTCONN_STRIKES; i++) {
		wireclient_package(&c, POMELO_DATA, "\x01\x05\0\x09{}", 6);
		ck_assert_ptr_nonnull(strstr(wireclient_answer(&c, 5), "\"error\":\"denied\""));
	}
	ck_assert_ptr_nonnull(strstr(wireclient_kick(&c), "before login"));
	wireclient_close(&c);
}
END_TEST

/* The log's text when it holds the words; free it. */
static char *log_with(const char *folder, const char *words)
{
	char *text = NULL;
	size_t n;

	for (int i = 0; i < 6000 && (!text || !strstr(text, words)); i++) {
		free(text);
		text = folder_read(folder, "log", &n);
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	return text;
}

START_TEST(responses_and_pushes_of_a_client_are_ignored_logged_once_and_the_tenth_kicked)
{
	struct wireclient c;
	char *folder = folder_new(), path[300];

	snprintf(path, sizeof(path), "%s/log", folder);
	log_close(s.log);
	ck_assert_int_eq(log_open(s.env, "test", path, LOG_INFO, &s.log), 0);
	serve();
	wireclient_ready(&c, s.port, false);
	wireclient_notify(&c, "login", "{}");
	for (int i = 1; i < CLIENTCONN_STRIKES; i++)
		wireclient_package(&c, POMELO_DATA, i % 2 ? "\x04\x05{}" : "\x06\x01r{}", i % 2 ? 4 : 5);
	ck_assert_str_eq(wireclient_ask(&c, "echo", "{\"a\":1}"), "{\"a\":1}");
	wireclient_package(&c, POMELO_DATA, "\x04\x05{}", 4);
	ck_assert_str_eq(wireclient_kick(&c), "responses or pushes from a client");
	wireclient_close(&c);
	char *text = log_with(folder, "client.end"), *first = text ? strstr(text, "client.ignored") : NULL;
	ck_assert_msg(first && !strstr(first + 1, "client.ignored"), "%s", text ? text : "(no log)");
	free(text);
	folder_free(folder);
}
END_TEST

START_TEST(who_does_not_log_in_is_kicked)
{
	struct wireclient silent, waits, in;

	s.face.limits.login_ms = 1000;
	serve();
	wireclient_open(&silent, s.port);
	wireclient_ready(&waits, s.port, false);
	wireclient_ready(&in, s.port, false);
	wireclient_notify(&in, "login", "{}");
	ck_assert(wireclient_closed(&silent));
	ck_assert_str_eq(wireclient_kick(&waits), "no login in time");
	ck_assert_str_eq(wireclient_ask(&in, "echo", "{}"), "{}");
	wireclient_close(&silent);
	wireclient_close(&waits);
	wireclient_close(&in);
}
END_TEST

START_TEST(who_says_nothing_for_two_heartbeats_is_dropped)
{
	struct wireclient c;

	s.face.limits.heartbeat_s = 1;
	serve();
	wireclient_ready(&c, s.port, false);
	wireclient_notify(&c, "login", "{}");
	/* the ack's heartbeat, at least one of the server's own, and the end */
	ck_assert_int_eq(wireclient_next(&c, true).type, POMELO_HEARTBEAT);
	ck_assert_int_eq(wireclient_next(&c, true).type, POMELO_HEARTBEAT);
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
}
END_TEST

START_TEST(too_many_packets_are_busy_and_far_too_many_the_end)
{
	struct wireclient c;
	int busy = 0;

	s.face.limits.packets_per_s = 50;
	serve();
	wireclient_ready(&c, s.port, false);
	for (int i = 0; i < 1000; i++)
		wireclient_send(&c, "echo", "{}");
	for (;;) {
		struct wiregot got = wireclient_next(&c, false);
		if (got.type != POMELO_DATA) {
			ck_assert_int_eq(got.type, POMELO_KICK);
			break;
		}
		busy += strstr(got.m.body, "\"code\":429") != NULL;
	}
	ck_assert_int_ge(busy, 100);
	wireclient_close(&c);
}
END_TEST

START_TEST(who_reads_too_slowly_is_dropped)
{
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	wireclient_notify(&c, "flood", "{}");
	ck_assert(flag_wait(&s.ended, 1));
	wireclient_close(&c);
}
END_TEST

START_TEST(who_reads_too_slowly_gets_the_latest_of_what_is_superseded)
{
	enum { ROUNDS = 60 };
	struct wireclient c;
	unsigned got = 0, n = 0, last = 0;
	serve();
	wireclient_ready(&c, s.port, _i);
	wireclient_notify(&c, "login", "{}");
	for (int i = 0; i < ROUNDS; i++)
		wireclient_notify(&c, "moves", "{}");
	uint32_t id = wireclient_send(&c, "echo", "{\"end\":1}");
	for (;;) {
		struct wiregot g = wireclient_next(&c, false);
		ck_assert_uint_eq(g.type, POMELO_DATA);
		if (g.m.kind == POMELO_RESPONSE && g.m.id == id)
			break;
		ck_assert_int_eq(sscanf(g.m.body, "{\"n\":%u", &n), 1);
		ck_assert_uint_gt(n, last);
		last = n;
		got++;
	}
	ck_assert_uint_eq(last % (500 * ROUNDS), 0);
	ck_assert_msg(got < 500 * ROUNDS, "all %u came", got);
	wireclient_close(&c);
}
END_TEST

START_TEST(large_bodies_count_by_their_bytes_also_compressed_ones)
{
	static char body[30001];
	struct wireclient c;

	s.face.limits.bytes_per_s = 20000;
	serve();
	memset(body, 'b', sizeof(body) - 1);
	wireclient_ready(&c, s.port, false);
	wireclient_notify(&c, "login", "{}");
	ck_assert_ptr_nonnull(strstr(wireclient_ask(&c, "echo", body), "\"busy\""));
	/* four times as much within a second, from a few bytes */
	char *zeros = calloc(1, 60000), small[1000], head[64];
	uLongf n = sizeof(small);
	compress2((Bytef *)small, &n, (Bytef *)zeros, 60000, 9);
	size_t head_n = pomelo_request_head(head, 9, 0, "echo", 4, n);
	head[POMELO_HEAD] |= 0x10;
	for (int i = 0; i < 100 && !flag_count(&s.ended); i++) {
		send(c.fd, head, head_n, MSG_NOSIGNAL);
		send(c.fd, small, n, MSG_NOSIGNAL);
	}
	ck_assert_str_eq(wireclient_kick(&c), "too many bytes");
	free(zeros);
	wireclient_close(&c);
}
END_TEST

START_TEST(who_sends_heartbeats_but_does_not_read_is_closed)
{
	struct wireclient c;

	s.face.limits.heartbeat_s = 1;
	s.face.limits.out_max = 64 << 20;
	serve();
	wireclient_ready(&c, s.port, false);
	wireclient_notify(&c, "login", "{}");
	wireclient_notify(&c, "some", "{}");
	for (int i = 0; i < 600 && !flag_count(&s.ended); i++) {
		send(c.fd, "\x03\0\0\0", 4, MSG_NOSIGNAL);
		flag_wait_s(&s.ended, 1, 1);
	}
	ck_assert_uint_eq(flag_count(&s.ended), 1);
	wireclient_close(&c);
}
END_TEST

static void come_from(struct wireclient *c, const char *address)
{
	wireclient_open_from(c, s.port, address);
	wireclient_raw(c, HELLO);
}

static bool comes_in(struct wireclient *c, const char *address)
{
	come_from(c, address);
	return wireclient_next(c, false).type == POMELO_HANDSHAKE;
}

START_TEST(connections_in_all_are_bounded)
{
	struct wireclient c[3];

	s.o.all_max = 2;
	serve();
	for (int i = 0; i < 2; i++)
		wireclient_ready(&c[i], s.port, false);
	ck_assert(!comes_in(&c[2], "127.9.9.9"));
	wireclient_close(&c[2]);
	wireclient_close(&c[0]);
	ck_assert(flag_wait(&s.freed, 1));
	wireclient_ready(&c[0], s.port, false);
	wireclient_close(&c[0]);
	wireclient_close(&c[1]);
}
END_TEST

START_TEST(connections_of_one_address_are_bounded)
{
	struct wireclient c[4];

	s.o.per_address_max = 3;
	serve();
	for (int i = 0; i < 3; i++)
		wireclient_ready(&c[i], s.port, false);
	ck_assert(!comes_in(&c[3], "127.0.0.1"));
	wireclient_close(&c[3]);
	wireclient_close(&c[0]);
	ck_assert(flag_wait(&s.freed, 1));
	wireclient_ready(&c[0], s.port, false);
	for (int i = 0; i < 3; i++)
		wireclient_close(&c[i]);
}
END_TEST

START_TEST(connections_of_one_subnet_are_bounded)
{
	static const char *const same[] = { "127.9.8.1", "127.9.8.2", "127.9.8.254" };
	struct wireclient c[5];

	s.o.per_subnet_max = 3;
	serve();
	for (int i = 0; i < 3; i++)
		ck_assert(comes_in(&c[i], same[i]));
	ck_assert(!comes_in(&c[3], "127.9.8.77"));
	ck_assert(comes_in(&c[4], "127.9.9.77"));
	wireclient_close(&c[3]);
	wireclient_close(&c[0]);
	ck_assert(flag_wait(&s.freed, 1));
	ck_assert(comes_in(&c[0], "127.9.8.77"));
	wireclient_close(&c[0]);
	wireclient_close(&c[1]);
	wireclient_close(&c[2]);
	wireclient_close(&c[4]);
}
END_TEST

START_TEST(new_connections_of_one_address_are_bounded_in_each_second)
{
	enum { FEW = 3, MANY = 60 };
	struct wireclient c;
	int refused = 0, served = 0;

	s.o.connects_per_s = FEW;
	serve();
	for (int i = 0; i < MANY; i++) {
		refused += !comes_in(&c, "127.9.8.1");
		wireclient_close(&c);
	}
	ck_assert_int_gt(refused, 0);
	ck_assert_int_ge(MANY - refused, FEW);
	ck_assert(comes_in(&c, "127.9.8.2")); /* another one is not held for it */
	wireclient_close(&c);
	for (int i = 0; i < 1000 && !served; i++) { /* in a later second it is */
		served = comes_in(&c, "127.9.8.1");
		wireclient_close(&c);
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	ck_assert(served);
}
END_TEST

/* Sends so many requests at once; how many of them were refused for what their address has sent. */
static int refused_of(struct wireclient *c, int n)
{
	char head[POMELO_MESSAGE_HEAD_MAX];
	struct buf all = BUF_INIT;
	int refused = 0;

	for (int i = 0; i < n; i++) {
		buf_add(&all, head, pomelo_request_head(head, (uint32_t)i + 1, 0, "echo", 4, 2));
		buf_add(&all, "{}", 2);
	}
	wireclient_raw(c, all.data, all.len);
	for (int i = 0; i < n; i++) {
		struct wiregot got = wireclient_next(c, false);
		ck_assert_int_eq(got.type, POMELO_DATA);
		refused += strstr(got.m.body, "too many packets of this address") != NULL;
	}
	buf_release(&all);
	return refused;
}

START_TEST(packets_of_one_address_are_bounded_over_all_its_connections)
{
	enum { FEW = 20, TRIES = FEW / 2, LATER = 1000 }; /* so few tries of its own are never too many */
	struct wireclient c[3];
	int tries = 0;

	s.o.packets_per_s = FEW;
	serve();
	for (int i = 0; i < 3; i++) {
		ck_assert(comes_in(&c[i], i < 2 ? "127.9.8.1" : "127.9.8.2"));
		wireclient_package(&c[i], POMELO_ACK, NULL, 0);
	}
	ck_assert_int_ge(refused_of(&c[0], 3 * FEW), 2 * FEW); /* they are read at once, in one second */
	/* what one has sent the other cannot; a second may have begun in between */
	while (tries++ < TRIES && (refused_of(&c[0], 3 * FEW) < 2 * FEW || !refused_of(&c[1], 1))) {
	}
	ck_assert_int_lt(tries, TRIES);
	ck_assert_int_eq(refused_of(&c[2], 1), 0);                      /* another address */
	for (tries = 0; tries < LATER && refused_of(&c[1], 1); tries++) /* in a later second */
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	ck_assert_int_lt(tries, LATER);
	for (int i = 0; i < 3; i++)
		wireclient_close(&c[i]);
}
END_TEST

/* What is no request costs, too. */
static const struct flood_of {
	const char *bytes;
	size_t n;
	bool web;
} floods[] = {
	{ "\x03\0\0\0", 4, false },                       /* heartbeats */
	{ "\x01\0\0\x0a{\"sys\":{}}", 14, false },        /* handshakes */
	{ "\x02\0\0\0", 4, false },                       /* acks */
	{ "\x89\x80\0\0\0\0", 6, true },                  /* pings */
	{ "\x8a\x80\0\0\0\0", 6, true },                  /* pongs */
	{ "\x82\x80\0\0\0\0", 6, true },                  /* empty messages */
	{ "\x02\x80\0\0\0\0\x80\x80\0\0\0\0", 12, true }, /* empty messages in two pieces */
};
#define FLOODS (int)(sizeof(floods) / sizeof(floods[0]))

START_TEST(a_flood_of_what_is_no_request_is_kicked)
{
	const struct flood_of *f = &floods[_i];
	struct wireclient c;
	struct buf all = BUF_INIT;

	s.face.limits.packets_per_s = 10;
	serve();
	wireclient_ready(&c, s.port, f->web);
	for (int i = 0; i < 1000; i++)
		buf_add(&all, f->bytes, f->n);
	wireclient_raw(&c, all.data, all.len);
	ck_assert_str_eq(wireclient_kick(&c), "too many packages or frames");
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
	buf_release(&all);
}
END_TEST

START_TEST(what_a_client_sends_of_all_kinds_fits_into_its_seconds)
{
	struct wireclient c;

	s.face.limits.packets_per_s = 100;
	serve();
	wireclient_ready(&c, s.port, true);
	for (int i = 0; i < 50; i++) { /* a heartbeat, a ping and a request each */
		wireclient_package(&c, POMELO_HEARTBEAT, NULL, 0);
		wireclient_raw(&c, "\x89\x80\0\0\0\0", 6);
		ck_assert_str_eq(wireclient_ask(&c, "echo", "{}"), "{}");
	}
	wireclient_close(&c);
}
END_TEST

/* ---- bodies and pushes */

START_TEST(a_compressed_body_is_read_and_a_bomb_is_not)
{
	static char zeros[1 << 20];
	char body[4096];
	uLongf n = sizeof(body) - 12;
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	memcpy(body,
	       "\x10\x07\x04"
	       "echo",
	       7);
	compress((Bytef *)body + 7, &n, (const Bytef *)"{\"packed\":true}", 15);
	wireclient_package(&c, POMELO_DATA, body, 7 + n);
	ck_assert_str_eq(wireclient_answer(&c, 7), "{\"packed\":true}");
	n = sizeof(body) - 12;
	compress((Bytef *)body + 7, &n, (const Bytef *)zeros, sizeof(zeros));
	wireclient_package(&c, POMELO_DATA, body, 7 + n);
	ck_assert_ptr_nonnull(strstr(wireclient_answer(&c, 7), "\"code\":400"));
	wireclient_close(&c);
}
END_TEST

/* A request by code 1, as of a client that has read the dictionary. */
static void ask_by_code(struct wireclient *c)
{
	wireclient_package(c, POMELO_DATA, "\x01\x70\0\1{}", 6);
	ck_assert_ptr_nonnull(strstr(wireclient_answer(c, 0x70), "not_found"));
}

START_TEST(pushes_use_codes_only_with_clients_that_use_them)
{
	static const char pitaya[] = "{\"sys\":{\"libVersion\":\"1\"}}";
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	wireclient_notify(&c, "push.me", "{}");
	struct wiregot got = wireclient_next(&c, false);
	ck_assert_uint_eq(got.m.code, 0);
	ask_by_code(&c);
	wireclient_notify(&c, "push.me", "{}");
	got = wireclient_next(&c, false);
	ck_assert_uint_eq(got.m.code, 2);
	ck_assert_str_eq(got.m.body, "{\"a\":1}");
	wireclient_close(&c);
	wireclient_open(&c, s.port);
	wireclient_package(&c, POMELO_HANDSHAKE, pitaya, sizeof(pitaya) - 1);
	wireclient_next(&c, false);
	wireclient_package(&c, POMELO_ACK, NULL, 0);
	wireclient_notify(&c, "push.me", "{}");
	got = wireclient_next(&c, false);
	ck_assert_uint_eq(got.m.code, 0);
	ck_assert_uint_eq(got.m.route_n, 6);
	wireclient_close(&c);
}
END_TEST

START_TEST(a_push_to_many_reaches_each_kind_of_client_as_it_reads_it)
{
	static const char pitaya[] = "{\"sys\":{\"libVersion\":\"1\"}}";
	struct wireclient c[4];

	serve();
	for (int i = 0; i < 4; i++) {
		if (i < 2) {
			wireclient_ready(&c[i], s.port, i);
			ask_by_code(&c[i]);
			continue;
		}
		wireclient_open(&c[i], s.port);
		if (i == 3)
			wireclient_upgrade(&c[i]);
		wireclient_package(&c[i], POMELO_HANDSHAKE, pitaya, sizeof(pitaya) - 1);
		wireclient_next(&c[i], false);
		wireclient_package(&c[i], POMELO_ACK, NULL, 0);
		wireclient_ask(&c[i], "any", "{}");
	}
	wireclient_notify(&c[0], "push.all", "{}");
	for (int i = 0; i < 8; i++) {
		struct wiregot got = wireclient_next(&c[i / 2], false);
		ck_assert_uint_eq(got.m.kind, POMELO_PUSH);
		ck_assert_uint_eq(got.m.code, i < 4 ? 2 : 0);
		ck_assert_str_eq(got.m.body, "{\"a\":1}");
	}
	for (int i = 0; i < 4; i++)
		wireclient_close(&c[i]);
}
END_TEST

START_TEST(an_answer_is_never_empty)
{
	struct wireclient c;

	serve();
	wireclient_ready(&c, s.port, false);
	ck_assert_str_eq(wireclient_ask(&c, "echo", ""), "{}");
	wireclient_close(&c);
}
END_TEST

static void look(void *arg)
{
	(void)arg;
	alive = s.last && clientconn_alive(s.last);
}

START_TEST(a_closed_socket_is_not_alive_at_once)
{
	serve();
	for (int i = 0; i < 50; i++) {
		struct wireclient c;
		wireclient_ready(&c, s.port, false);
		ck_assert_str_eq(wireclient_ask(&c, "echo", "{}"), "{}");
		on_loop(s.loop, look, NULL);
		ck_assert(alive);
		wireclient_close(&c);
		on_loop(s.loop, look, NULL);
		ck_assert(!alive);
	}
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("clientconn");

	tcase_set_timeout(t, 20);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, raw_and_websocket_clients_are_served_on_one_port);
	tcase_add_test(t, bytes_may_come_one_by_one);
	tcase_add_test(t, everything_may_come_in_one_piece);
	tcase_add_test(t, a_package_may_be_split_over_websocket_messages);
	tcase_add_test(t, a_large_package_comes_whole_over_both);
	tcase_add_test(t, a_first_byte_of_nobody_ends_the_connection);
	tcase_add_test(t, a_browser_is_told_what_this_port_is);
	tcase_add_test(t, the_first_heartbeat_follows_the_ack_and_each_is_answered);
	tcase_add_test(t, a_websocket_ping_is_answered_and_a_close_returned);
	tcase_add_test(t, a_wrong_handshake_gets_500_and_the_end);
	tcase_add_test(t, an_old_client_gets_501_and_the_end);
	tcase_add_test(t, before_the_handshake_four_kilobytes_are_the_most);
	tcase_add_test(t, later_the_body_limit_holds);
	tcase_add_test(t, data_before_the_ack_ends_the_connection);
	tcase_add_test(t, an_unknown_route_code_is_answered);
	tcase_add_test(t, an_unreadable_message_is_kicked);
	tcase_add_test(t, a_kick_carries_its_reason_and_then_the_end);
	tcase_add_test(t, the_tenth_request_before_login_is_kicked);
	tcase_add_test(t, before_login_an_unknown_code_counts_like_any_request);
	tcase_add_test(t, responses_and_pushes_of_a_client_are_ignored_logged_once_and_the_tenth_kicked);
	tcase_add_test(t, who_does_not_log_in_is_kicked);
	tcase_add_test(t, who_says_nothing_for_two_heartbeats_is_dropped);
	tcase_add_test(t, too_many_packets_are_busy_and_far_too_many_the_end);
	tcase_add_test(t, who_reads_too_slowly_is_dropped);
	tcase_add_loop_test(t, who_reads_too_slowly_gets_the_latest_of_what_is_superseded, 0, 2);
	tcase_add_test(t, large_bodies_count_by_their_bytes_also_compressed_ones);
	tcase_add_test(t, who_sends_heartbeats_but_does_not_read_is_closed);
	tcase_add_test(t, connections_in_all_are_bounded);
	tcase_add_test(t, connections_of_one_address_are_bounded);
	tcase_add_test(t, connections_of_one_subnet_are_bounded);
	tcase_add_test(t, new_connections_of_one_address_are_bounded_in_each_second);
	tcase_add_test(t, packets_of_one_address_are_bounded_over_all_its_connections);
	tcase_add_loop_test(t, a_flood_of_what_is_no_request_is_kicked, 0, FLOODS);
	tcase_add_test(t, what_a_client_sends_of_all_kinds_fits_into_its_seconds);
	tcase_add_test(t, a_compressed_body_is_read_and_a_bomb_is_not);
	tcase_add_test(t, pushes_use_codes_only_with_clients_that_use_them);
	tcase_add_test(t, a_push_to_many_reaches_each_kind_of_client_as_it_reads_it);
	tcase_add_test(t, an_answer_is_never_empty);
	tcase_add_test(t, a_closed_socket_is_not_alive_at_once);
	return suite_run("clientconn", t);
}
