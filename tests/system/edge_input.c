/*
 * What bad clients send: each gets a clear answer or the end, and nobody else notices.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/edgeplay.h"
#include "tests/support/suite.h"

static struct wireclient good[2]; /* raw and WebSocket: they play on whatever happens */

static void begin(int i, const char *lua)
{
	edge_begin(i, lua);
	for (int web = 0; web < 2; web++) {
		char body[60];
		snprintf(body, sizeof(body), "{\"username\":\"good%d\"}", web);
		wireclient_ready(&good[web], cluster.connector_port[0], web);
		expect(wireclient_ask(&good[web], ENTER, body), "\"code\":200");
	}
}

static void still_good(void)
{
	for (int web = 0; web < 2; web++) {
		ck_assert_str_eq(wireclient_ask(&good[web], ECHO, "{\"still\":1}"), "{\"still\":1}");
		ck_assert_str_eq(wireclient_ask(&good[web], "scene.sceneHandler.echo", "{\"here\":2}"), "{\"here\":2}");
	}
}

static void end(void)
{
	still_good();
	wireclient_close(&good[0]);
	wireclient_close(&good[1]);
	edge_end();
}

START_TEST(random_bytes_end_their_connection_only)
{
	unsigned seed = 7;
	begin(_i, NULL);
	for (int round = 0; round < 200; round++) {
		struct wireclient c;
		char bytes[300];
		size_t n = 1 + (size_t)rand_r(&seed) % sizeof(bytes);
		for (size_t k = 0; k < n; k++)
			bytes[k] = (char)rand_r(&seed);
		uint16_t port = round % 3 ? cluster.connector_port[0] : cluster.gate_port[0];
		/* at the first byte, after the upgrade, or after the handshake */
		if (round % 4 == 0) {
			wireclient_open(&c, port);
		} else if (round % 4 == 1) {
			wireclient_open(&c, port);
			wireclient_upgrade(&c);
		} else {
			wireclient_ready(&c, port, round % 4 == 2);
		}
		wireclient_raw(&c, bytes, n);
		wireclient_close(&c);
		if (round % 50 == 0)
			still_good();
	}
	end();
}
END_TEST

/* It looks like a known one to who compares texts, and has bytes behind its end. */
START_TEST(a_route_with_a_nul_is_kicked)
{
	static const char *const hello[] = { "{\"sys\":{}}", "{\"sys\":{\"serializer\":\"protobuf\"}}" };
	char message[3 + 255] = "\0\1\xff"
				"chat.chatHandler.send";
	begin(_i, NULL);
	for (int i = 0; i < 2; i++) {
		struct wireclient c;
		wireclient_open(&c, cluster.connector_port[0]);
		wireclient_package(&c, POMELO_HANDSHAKE, hello[i], strlen(hello[i]));
		ck_assert_int_eq(wireclient_next(&c, false).type, POMELO_HANDSHAKE);
		wireclient_package(&c, POMELO_ACK, NULL, 0);
		wireclient_package(&c, POMELO_DATA, message, sizeof(message));
		ck_assert_str_eq(wireclient_kick(&c), "a message that cannot be read");
		wireclient_close(&c);
	}
	end();
}
END_TEST

START_TEST(a_package_cut_anywhere_harms_nobody)
{
	static const char all[] = "\x01\0\0\x0a{\"sys\":{}}\x02\0\0\0\x04\0\0\x2a\0\x01\x1c"
				  "connector.entryHandler.enter{\"username\":";
	begin(_i, NULL);
	for (size_t n = 1; n < sizeof(all); n += 3) {
		struct wireclient c;
		wireclient_open(&c, cluster.connector_port[0]);
		wireclient_raw(&c, all, n);
		wireclient_close(&c);
	}
	end();
}
END_TEST

START_TEST(a_request_that_is_no_json_is_answered_by_the_connector_or_the_service)
{
	begin(_i, NULL);
	expect(wireclient_ask(&good[0], ECHO, "{\"a\":"), "\"error\":\"bad_request\"");
	expect(wireclient_ask(&good[0], ECHO, "[1]"), "\"error\":\"bad_request\"");
	expect(wireclient_ask(&good[1], ECHO, "{\"a\":\"\x01\"}"), "\"error\":\"bad_request\"");
	end();
}
END_TEST

START_TEST(notifies_are_never_answered)
{
	begin(_i, NULL);
	wireclient_notify(&good[0], ECHO, "{}");
	wireclient_notify(&good[0], "no.such.route", "{}");
	wireclient_notify(&good[0], "scene.sceneHandler.echo", "{}");
	wireclient_notify(&good[0], ENTER, "{}");
	uint32_t id = wireclient_send(&good[0], ECHO, "{\"n\":1}");
	struct wiregot got = wireclient_next(&good[0], false);
	ck_assert_int_eq(got.type, POMELO_DATA);
	ck_assert_uint_eq(got.m.id, id);
	end();
}
END_TEST

START_TEST(a_flood_ends_the_flooder)
{
	struct wireclient c;
	begin(_i, "connector = { packets_per_s = 200 },");
	wireclient_ready(&c, cluster.connector_port[0], false);
	expect(wireclient_ask(&c, ENTER, "{\"username\":\"flooder\"}"), "\"code\":200");
	for (int i = 0; i < 3000; i++)
		wireclient_send(&c, "scene.sceneHandler.echo", "{}");
	ck_assert_str_eq(wireclient_kick(&c), "too many packets");
	ck_assert(edgecluster_asked(&cluster, "logout flooder;"));
	wireclient_close(&c);
	end();
}
END_TEST

START_TEST(half_open_logins_do_not_pile_up)
{
	begin(_i, NULL);
	for (int i = 0; i < 30; i++) {
		struct wireclient c;
		char body[60];
		snprintf(body, sizeof(body), "{\"username\":\"gone%d\"}", i);
		wireclient_ready(&c, cluster.connector_port[0], false);
		wireclient_send(&c, ENTER, body);
		wireclient_close(&c);
	}
	/* whoever got in was logged out again */
	for (int i = 0; i < 30; i++) {
		char in[40], out[40];
		snprintf(in, sizeof(in), "add gone%d;", i);
		snprintf(out, sizeof(out), "logout gone%d;", i);
		ck_assert(!edgecluster_count(&cluster, in) || edgecluster_asked(&cluster, out));
	}
	end();
}
END_TEST

START_TEST(routes_of_the_dictionary_travel_as_codes)
{
	struct wireclient c;
	uint64_t sid;
	begin(_i,
	      "connector = { dictionary = { \"connector.entryHandler.enter\", \"scene.sceneHandler.enter\", \"onHello\" } },");
	wireclient_ready(&c, cluster.connector_port[0], true);
	wireclient_package(&c, POMELO_DATA, "\x01\x01\0\x01{\"username\":\"coded\"}", 24);
	expect(wireclient_answer(&c, 1), "\"uid\":\"coded\"");
	wireclient_package(&c, POMELO_DATA, "\x01\x02\0\x02{\"scene\":3}", 15);
	expect(wireclient_answer(&c, 2), "\"scene\":3");
	sid = cluster.sid;
	edgecluster_push(&cluster, "connector-1", &sid, 1, "onHello", "{\"n\":1}");
	struct wiregot got = wireclient_next(&c, false);
	ck_assert_uint_eq(got.m.code, 3);
	ck_assert_str_eq(got.m.body, "{\"n\":1}");
	wireclient_package(&c, POMELO_DATA, "\x01\x03\0\x09{}", 6);
	expect(wireclient_answer(&c, 3), "\"error\":\"not_found\"");
	wireclient_close(&c);
	end();
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("edge_input");

	tcase_set_timeout(t, 30);
#define BOTH(test) tcase_add_loop_test(t, test, 0, 2)
	BOTH(random_bytes_end_their_connection_only);
	BOTH(a_route_with_a_nul_is_kicked);
	BOTH(a_package_cut_anywhere_harms_nobody);
	BOTH(a_request_that_is_no_json_is_answered_by_the_connector_or_the_service);
	BOTH(notifies_are_never_answered);
	BOTH(a_flood_ends_the_flooder);
	BOTH(half_open_logins_do_not_pile_up);
	BOTH(routes_of_the_dictionary_travel_as_codes);
	return suite_run("edge_input", t);
}
