/* The promises of rpc/clientconn.h and rpc/clientlisten.h, over real sockets: who is refused, and each bound. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>
#include "tests/support/clientecho.h"
#include "tests/support/folder.h"
#include "tests/support/suite.h"
#include "tests/support/wireclient.h"

static const char hello[] = "\x01\0\0\x0a{\"sys\":{}}";
#define HELLO hello, sizeof(hello) - 1

START_TEST(a_wrong_handshake_gets_500_and_the_end)
{
	struct wireclient c;

	echo_open();
	wireclient_open(&c, server.port);
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

	server.face.least = least;
	server.face.leasts = 1;
	echo_open();
	wireclient_open(&c, server.port);
	wireclient_package(&c, POMELO_HANDSHAKE, old, sizeof(old) - 1);
	ck_assert_str_eq(wireclient_next(&c, false).body, "{\"code\":501}");
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
	wireclient_open(&c, server.port);
	wireclient_package(&c, POMELO_HANDSHAKE, fresh, sizeof(fresh) - 1);
	ck_assert_ptr_nonnull(strstr(wireclient_next(&c, false).body, "\"code\":200"));
	wireclient_close(&c);
}
END_TEST

START_TEST(before_the_handshake_four_kilobytes_are_the_most)
{
	struct wireclient c;

	echo_open();
	wireclient_open(&c, server.port);
	wireclient_raw(&c, "\x01\0\x10\x01", 4); /* 4097: its head is enough */
	ck_assert(wireclient_closed(&c));
	wireclient_close(&c);
}
END_TEST

START_TEST(later_the_body_limit_holds)
{
	struct wireclient c;

	echo_open();
	for (int web = 0; web < 2; web++) {
		wireclient_ready(&c, server.port, web);
		wireclient_raw(&c, web ? "\x82\x84\0\0\0\0\x04\x01\0\x01" : "\x04\x01\0\x01", web ? 10 : 4);
		ck_assert(wireclient_closed(&c));
		wireclient_close(&c);
	}
}
END_TEST

START_TEST(data_before_the_ack_ends_the_connection)
{
	struct wireclient c;

	echo_open();
	wireclient_open(&c, server.port);
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

	echo_open();
	wireclient_ready(&c, server.port, false);
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

	echo_open();
	wireclient_ready(&c, server.port, false);
	wireclient_package(&c, POMELO_DATA, "\xe0", 1);
	ck_assert_str_eq(wireclient_kick(&c), "a message that cannot be read");
	wireclient_close(&c);
}
END_TEST

START_TEST(a_kick_carries_its_reason_and_then_the_end)
{
	struct wireclient c;

	echo_open();
	for (int web = 0; web < 2; web++) {
		wireclient_ready(&c, server.port, web);
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

	echo_open();
	wireclient_ready(&c, server.port, false);
	for (int i = 1; i <= CLIENTCONN_STRIKES; i++)
		ck_assert_ptr_nonnull(strstr(wireclient_ask(&c, "early", "{}"), "\"error\":\"denied\""));
	ck_assert_ptr_nonnull(strstr(wireclient_kick(&c), "before login"));
	wireclient_close(&c);
}
END_TEST

START_TEST(before_login_an_unknown_code_counts_like_any_request)
{
	struct wireclient c;

	echo_open();
	wireclient_ready(&c, server.port, false);
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
	log_close(server.log);
	ck_assert_int_eq(log_open(server.env, "test", path, LOG_INFO, &server.log), 0);
	echo_open();
	wireclient_ready(&c, server.port, false);
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

	server.face.limits.login_ms = 3000;
	echo_open();
	wireclient_open(&silent, server.port);
	wireclient_ready(&waits, server.port, false);
	wireclient_ready(&in, server.port, false);
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
	bool beats = false;

	server.face.limits.heartbeat_s = 1;
	echo_open();
	for (int i = 0; i < 10 && !beats; i++) { /* who comes late to its beat, by a second, finds the end due */
		wireclient_ready(&c, server.port, false);
		wireclient_notify(&c, "login", "{}");
		/* the ack's heartbeat, at least one of the server's own, and the end */
		ck_assert_int_eq(wireclient_next(&c, true).type, POMELO_HEARTBEAT);
		beats = wireclient_next(&c, true).type == POMELO_HEARTBEAT;
		ck_assert(wireclient_closed(&c));
		wireclient_close(&c);
	}
	ck_assert(beats);
}
END_TEST

/* At once: they are read in one second, or in two, however slow the machine is. */
static void send_many(struct wireclient *c, int n)
{
	char head[POMELO_MESSAGE_HEAD_MAX];
	struct buf all = BUF_INIT;

	for (int i = 0; i < n; i++) {
		buf_add(&all, head, pomelo_request_head(head, (uint32_t)i + 1, 0, "echo", 4, 2));
		buf_add(&all, "{}", 2);
	}
	wireclient_raw(c, all.data, all.len);
	buf_release(&all);
}

START_TEST(too_many_packets_are_busy_and_far_too_many_the_end)
{
	struct wireclient c;
	int busy = 0;

	server.face.limits.packets_per_s = 50;
	echo_open();
	wireclient_ready(&c, server.port, false);
	send_many(&c, 1000);
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

	echo_open();
	wireclient_ready(&c, server.port, false);
	wireclient_notify(&c, "flood", "{}");
	ck_assert(flag_wait(&server.ended, 1));
	wireclient_close(&c);
}
END_TEST

START_TEST(who_reads_too_slowly_gets_the_latest_of_what_is_superseded)
{
	enum { ROUNDS = 60 };
	struct wireclient c;
	unsigned got = 0, n = 0, last = 0;
	echo_open();
	wireclient_ready(&c, server.port, _i);
	wireclient_notify(&c, "login", "{}");
	for (int i = 0; i < ROUNDS; i++)
		wireclient_notify(&c, "moves", "{}");
	uint32_t id = wireclient_send(&c, "echo", "{\"end\":1}");
	ck_assert(flag_wait(&echo_moved, ROUNDS)); /* all has been pushed before anything is read */
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

	server.face.limits.bytes_per_s = 20000;
	echo_open();
	memset(body, 'b', sizeof(body) - 1);
	wireclient_ready(&c, server.port, false);
	wireclient_notify(&c, "login", "{}");
	ck_assert_ptr_nonnull(strstr(wireclient_ask(&c, "echo", body), "\"busy\""));
	/* four times as much within a second, from a few bytes */
	char *zeros = calloc(1, 60000), small[1000], head[64];
	uLongf n = sizeof(small);
	compress2((Bytef *)small, &n, (Bytef *)zeros, 60000, 9);
	size_t head_n = pomelo_request_head(head, 9, 0, "echo", 4, n);
	head[POMELO_HEAD] |= 0x10;
	for (int i = 0; i < 100 && !flag_count(&server.ended); i++) {
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

	server.face.limits.heartbeat_s = 1;
	server.face.limits.out_max = 64 << 20;
	echo_open();
	wireclient_ready(&c, server.port, false);
	wireclient_notify(&c, "login", "{}");
	wireclient_notify(&c, "some", "{}");
	for (int i = 0; i < 600 && !flag_count(&server.ended); i++) {
		send(c.fd, "\x03\0\0\0", 4, MSG_NOSIGNAL);
		flag_wait_s(&server.ended, 1, 1);
	}
	ck_assert_uint_eq(flag_count(&server.ended), 1);
	wireclient_close(&c);
}
END_TEST

static void come_from(struct wireclient *c, const char *address)
{
	wireclient_open_from(c, server.port, address);
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

	server.o.all_max = 2;
	echo_open();
	for (int i = 0; i < 2; i++)
		wireclient_ready(&c[i], server.port, false);
	ck_assert(!comes_in(&c[2], "127.9.9.9"));
	wireclient_close(&c[2]);
	wireclient_close(&c[0]);
	ck_assert(flag_wait(&server.freed, 1));
	wireclient_ready(&c[0], server.port, false);
	wireclient_close(&c[0]);
	wireclient_close(&c[1]);
}
END_TEST

START_TEST(connections_of_one_address_are_bounded)
{
	struct wireclient c[4];

	server.o.per_address_max = 3;
	echo_open();
	for (int i = 0; i < 3; i++)
		wireclient_ready(&c[i], server.port, false);
	ck_assert(!comes_in(&c[3], "127.0.0.1"));
	wireclient_close(&c[3]);
	wireclient_close(&c[0]);
	ck_assert(flag_wait(&server.freed, 1));
	wireclient_ready(&c[0], server.port, false);
	for (int i = 0; i < 3; i++)
		wireclient_close(&c[i]);
}
END_TEST

START_TEST(connections_of_one_subnet_are_bounded)
{
	static const char *const same[] = { "127.9.8.1", "127.9.8.2", "127.9.8.254" };
	struct wireclient c[5];

	server.o.per_subnet_max = 3;
	echo_open();
	for (int i = 0; i < 3; i++)
		ck_assert(comes_in(&c[i], same[i]));
	ck_assert(!comes_in(&c[3], "127.9.8.77"));
	ck_assert(comes_in(&c[4], "127.9.9.77"));
	wireclient_close(&c[3]);
	wireclient_close(&c[0]);
	ck_assert(flag_wait(&server.freed, 1));
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
	struct wireclient c, many[MANY];
	int refused = 0, served = 0;

	server.o.connects_per_s = FEW;
	echo_open();
	for (int i = 0; i < MANY; i++) /* nobody is waited for: they come in few seconds, however slow the machine is */
		come_from(&many[i], "127.9.8.1");
	for (int i = 0; i < MANY; i++) {
		refused += wireclient_next(&many[i], false).type != POMELO_HANDSHAKE;
		wireclient_close(&many[i]);
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
	int refused = 0;

	send_many(c, n);
	for (int i = 0; i < n; i++) {
		struct wiregot got = wireclient_next(c, false);
		ck_assert_int_eq(got.type, POMELO_DATA);
		refused += strstr(got.m.body, "too many packets of this address") != NULL;
	}
	return refused;
}

START_TEST(packets_of_one_address_are_bounded_over_all_its_connections)
{
	enum { FEW = 20, TRIES = FEW / 2, LATER = 1000 }; /* so few tries of its own are never too many */
	struct wireclient c[3];
	int tries = 0;

	server.o.packets_per_s = FEW;
	echo_open();
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

	server.face.limits.packets_per_s = 10;
	echo_open();
	wireclient_ready(&c, server.port, f->web);
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

	server.face.limits.packets_per_s = 100;
	echo_open();
	wireclient_ready(&c, server.port, true);
	for (int i = 0; i < 50; i++) { /* a heartbeat, a ping and a request each */
		wireclient_package(&c, POMELO_HEARTBEAT, NULL, 0);
		wireclient_raw(&c, "\x89\x80\0\0\0\0", 6);
		ck_assert_str_eq(wireclient_ask(&c, "echo", "{}"), "{}");
	}
	wireclient_close(&c);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("clientconn_refused");

	tcase_set_timeout(t, 20);
	tcase_add_checked_fixture(t, echo_setup, echo_teardown);
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
	tcase_add_test(t, large_bodies_count_by_their_bytes_also_compressed_ones);
	tcase_add_test(t, who_sends_heartbeats_but_does_not_read_is_closed);
	tcase_add_test(t, connections_in_all_are_bounded);
	tcase_add_test(t, connections_of_one_address_are_bounded);
	tcase_add_test(t, connections_of_one_subnet_are_bounded);
	tcase_add_test(t, new_connections_of_one_address_are_bounded_in_each_second);
	tcase_add_test(t, packets_of_one_address_are_bounded_over_all_its_connections);
	tcase_add_test(t, what_a_client_sends_of_all_kinds_fits_into_its_seconds);
	tcase_add_loop_test(t, who_reads_too_slowly_gets_the_latest_of_what_is_superseded, 0, 2);
	tcase_add_loop_test(t, a_flood_of_what_is_no_request_is_kicked, 0, FLOODS);
	return suite_run("clientconn_refused", t);
}
