/* The promises of rpc/clientconn.h and rpc/clientlisten.h, over real sockets: how clients are served. */
#include <check.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>
#include "tests/support/clientecho.h"
#include "tests/support/on_loop.h"
#include "tests/support/suite.h"
#include "tests/support/wireclient.h"

/* ---- transports and greetings */

START_TEST(raw_and_websocket_clients_are_served_on_one_port)
{
	struct wireclient c;

	echo_open();
	for (int web = 0; web < 2; web++) {
		wireclient_ready(&c, server.port, web);
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

	echo_open();
	wireclient_open(&c, server.port);
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

	echo_open();
	wireclient_open(&c, server.port);
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

	echo_open();
	wireclient_ready(&c, server.port, true);
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

	echo_open();
	memset(body, 'b', sizeof(body) - 1);
	for (int web = 0; web < 2; web++) {
		wireclient_ready(&c, server.port, web);
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

	echo_open();
	for (size_t i = 0; i < sizeof(first) / sizeof(first[0]); i++) {
		wireclient_open(&c, server.port);
		wireclient_raw(&c, first[i], 1);
		ck_assert(wireclient_closed(&c));
		wireclient_close(&c);
	}
	ck_assert(flag_wait(&server.freed, 6));
}
END_TEST

START_TEST(a_browser_is_told_what_this_port_is)
{
	struct wireclient c;

	echo_open();
	wireclient_open(&c, server.port);
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

	echo_open();
	wireclient_ready(&c, server.port, false);
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

	echo_open();
	wireclient_open(&c, server.port);
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

/* ---- bodies and pushes */

START_TEST(a_compressed_body_is_read_and_a_bomb_is_not)
{
	static char zeros[1 << 20];
	char body[4096];
	uLongf n = sizeof(body) - 12;
	struct wireclient c;

	echo_open();
	wireclient_ready(&c, server.port, false);
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

static struct pomelo_dict *same_dict;

static void tell_the_same(void *arg)
{
	(void)arg;
	clientconn_face_tell(&server.face, same_dict, server.face.protos);
}

/* As after a reload of messages that adds no route: `loquat upgrade` is refused as long as there are elders. */
START_TEST(who_was_told_the_same_dictionary_is_no_elder)
{
	static const char *const routes[] = { "fail", "onPush" };
	struct wireclient c;

	echo_open();
	ck_assert_int_eq(pomelo_dict_new(routes, 2, &same_dict), 0);
	ck_assert_str_eq(pomelo_dict_version(same_dict), pomelo_dict_version(server.face.dict));
	wireclient_ready(&c, server.port, false);
	ask_by_code(&c);
	on_loop(server.loop, tell_the_same, NULL);
	ck_assert_uint_eq(server.face.elders, 0);
	wireclient_notify(&c, "push.me", "{}");
	ck_assert_uint_eq(wireclient_next(&c, false).m.code, 2);
	wireclient_close(&c);
}
END_TEST

START_TEST(pushes_use_codes_only_with_clients_that_use_them)
{
	static const char pitaya[] = "{\"sys\":{\"libVersion\":\"1\"}}";
	struct wireclient c;

	echo_open();
	wireclient_ready(&c, server.port, false);
	wireclient_notify(&c, "push.me", "{}");
	struct wiregot got = wireclient_next(&c, false);
	ck_assert_uint_eq(got.m.code, 0);
	ask_by_code(&c);
	wireclient_notify(&c, "push.me", "{}");
	got = wireclient_next(&c, false);
	ck_assert_uint_eq(got.m.code, 2);
	ck_assert_str_eq(got.m.body, "{\"a\":1}");
	wireclient_close(&c);
	wireclient_open(&c, server.port);
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

	echo_open();
	for (int i = 0; i < 4; i++) {
		if (i < 2) {
			wireclient_ready(&c[i], server.port, i);
			ask_by_code(&c[i]);
			continue;
		}
		wireclient_open(&c[i], server.port);
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

	echo_open();
	wireclient_ready(&c, server.port, false);
	ck_assert_str_eq(wireclient_ask(&c, "echo", ""), "{}");
	wireclient_close(&c);
}
END_TEST

static bool alive;

static void look(void *arg)
{
	(void)arg;
	alive = server.last && clientconn_alive(server.last);
}

/* Until it has come to the server's socket, which a busy kernel does a little later. */
static void say_goodbye(struct wireclient *c)
{
	struct tcp_info info;
	socklen_t n;

	shutdown(c->fd, SHUT_WR);
	do {
		n = sizeof info;
		ck_assert_int_eq(getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &n), 0);
	} while (info.tcpi_state == TCP_FIN_WAIT1);
}

START_TEST(a_closed_socket_is_not_alive_at_once)
{
	echo_open();
	for (int i = 0; i < 50; i++) {
		struct wireclient c;
		wireclient_ready(&c, server.port, false);
		ck_assert_str_eq(wireclient_ask(&c, "echo", "{}"), "{}");
		on_loop(server.loop, look, NULL);
		ck_assert(alive);
		say_goodbye(&c);
		on_loop(server.loop, look, NULL);
		ck_assert(!alive);
		wireclient_close(&c);
	}
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("clientconn");

	tcase_set_timeout(t, 20);
	tcase_add_checked_fixture(t, echo_setup, echo_teardown);
	tcase_add_test(t, raw_and_websocket_clients_are_served_on_one_port);
	tcase_add_test(t, bytes_may_come_one_by_one);
	tcase_add_test(t, everything_may_come_in_one_piece);
	tcase_add_test(t, a_package_may_be_split_over_websocket_messages);
	tcase_add_test(t, a_large_package_comes_whole_over_both);
	tcase_add_test(t, a_first_byte_of_nobody_ends_the_connection);
	tcase_add_test(t, a_browser_is_told_what_this_port_is);
	tcase_add_test(t, the_first_heartbeat_follows_the_ack_and_each_is_answered);
	tcase_add_test(t, a_websocket_ping_is_answered_and_a_close_returned);
	tcase_add_test(t, a_compressed_body_is_read_and_a_bomb_is_not);
	tcase_add_test(t, who_was_told_the_same_dictionary_is_no_elder);
	tcase_add_test(t, pushes_use_codes_only_with_clients_that_use_them);
	tcase_add_test(t, a_push_to_many_reaches_each_kind_of_client_as_it_reads_it);
	tcase_add_test(t, an_answer_is_never_empty);
	tcase_add_test(t, a_closed_socket_is_not_alive_at_once);
	return suite_run("clientconn", t);
}
