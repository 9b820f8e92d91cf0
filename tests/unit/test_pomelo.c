/* The promises of rpc/pomelo.h; byte strings marked "seen" were taken from pomelo-protocol 0.1.6. */
#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/pomelo.h"
#include "tests/support/suite.h"

#define BYTES(s) (s), sizeof(s) - 1

static struct pomelo_package pkg;
static struct pomelo_message msg;

/* ---- packages */

START_TEST(a_package_is_split_off_a_stream)
{
	static const char two[] = "\x04\0\0\x02hi\x03\0\0\0";

	ck_assert_int_eq(pomelo_package_read(BYTES(two), 100, &pkg), 6);
	ck_assert_int_eq(pkg.type, POMELO_DATA);
	ck_assert_uint_eq(pkg.n, 2);
	ck_assert_mem_eq(pkg.body, "hi", 2);
	ck_assert_int_eq(pomelo_package_read(two + 6, sizeof(two) - 7, 100, &pkg), 4);
	ck_assert_int_eq(pkg.type, POMELO_HEARTBEAT);
	ck_assert_uint_eq(pkg.n, 0);
}
END_TEST

START_TEST(a_package_cut_anywhere_asks_for_more)
{
	for (size_t n = 0; n < 6; n++)
		ck_assert_int_eq(pomelo_package_read("\x04\0\0\x02hi", n, 100, &pkg), ERR_INCOMPLETE);
}
END_TEST

START_TEST(an_oversize_package_is_refused_by_its_head_alone)
{
	ck_assert_int_eq(pomelo_package_read(BYTES("\x04\0\x10\x01"), 4096, &pkg), ERR_FULL);
	ck_assert_int_eq(pomelo_package_read(BYTES("\x01\xff\xff\xff"), 4096, &pkg), ERR_FULL);
	ck_assert_int_eq(pomelo_package_read(BYTES("\x04\0\x10\0"), 4096, &pkg), ERR_INCOMPLETE);
}
END_TEST

START_TEST(types_a_client_must_not_send_are_refused_by_their_first_byte)
{
	for (int type = 0; type < 256; type++) {
		char c = (char)type;
		ssize_t got = pomelo_package_read(&c, 1, 100, &pkg);
		ck_assert_int_eq(got, type >= 1 && type <= 4 ? ERR_INCOMPLETE : ERR_BAD_REQUEST);
	}
}
END_TEST

START_TEST(a_package_head_holds_24_bits_of_length)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, POMELO_DATA, 0x123456);
	ck_assert_mem_eq(head, "\x04\x12\x34\x56", 4);
}
END_TEST

/* ---- messages */

START_TEST(a_request_is_read_as_seen)
{
	ck_assert_int_eq(pomelo_message_read(BYTES("\0\x01\x05"
						   "a.b.c{}"),
					     &msg),
			 0);
	ck_assert_int_eq(msg.kind, POMELO_REQUEST);
	ck_assert_uint_eq(msg.id, 1);
	ck_assert_uint_eq(msg.route_n, 5);
	ck_assert_mem_eq(msg.route, "a.b.c", 5);
	ck_assert_uint_eq(msg.n, 2);
	ck_assert_mem_eq(msg.body, "{}", 2);
	ck_assert_int_eq(pomelo_message_read(BYTES("\x01\x80\x01\x01\x02{}"), &msg), 0);
	ck_assert_uint_eq(msg.id, 128);
	ck_assert_uint_eq(msg.code, 258);
	ck_assert_int_eq(pomelo_message_read(BYTES("\0\xff\xff\xff\xff\x07\x01r"), &msg), 0);
	ck_assert_uint_eq(msg.id, 2147483647u);
	ck_assert_uint_eq(msg.n, 0);
}
END_TEST

START_TEST(a_notify_has_no_id)
{
	ck_assert_int_eq(pomelo_message_read(BYTES("\x02\x05"
						   "a.b.c{\"x\":1}"),
					     &msg),
			 0);
	ck_assert_int_eq(msg.kind, POMELO_NOTIFY);
	ck_assert_uint_eq(msg.n, 7);
	ck_assert_int_eq(pomelo_message_read(BYTES("\x03\0\x01{}"), &msg), 0);
	ck_assert_uint_eq(msg.code, 1);
}
END_TEST

START_TEST(a_request_with_id_0_is_a_notify)
{
	ck_assert_int_eq(pomelo_message_read(BYTES("\0\0\x01r{}"), &msg), 0);
	ck_assert_int_eq(msg.kind, POMELO_NOTIFY);
}
END_TEST

START_TEST(an_id_over_32_bits_is_refused)
{
	ck_assert_int_eq(pomelo_message_read(BYTES("\0\xff\xff\xff\xff\x0f\x01r"), &msg), 0);
	ck_assert_uint_eq(msg.id, UINT32_MAX);
	ck_assert_int_eq(pomelo_message_read(BYTES("\0\xff\xff\xff\xff\x10\x01r"), &msg), ERR_BAD_REQUEST);
	ck_assert_int_eq(pomelo_message_read(BYTES("\0\x80\x80\x80\x80\x80\0\x01r"), &msg), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(a_route_with_a_nul_is_refused)
{
	ck_assert_int_eq(pomelo_message_read(BYTES("\0\x01\x05"
						   "a.b\0c{}"),
					     &msg),
			 ERR_BAD_REQUEST);
	ck_assert_int_eq(pomelo_message_read(BYTES("\x02\x01\0"), &msg), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(a_truncated_message_is_refused)
{
	static const char whole[] = "\0\x80\x01\x05"
				    "a.b.c";

	for (size_t n = 0; n < sizeof(whole) - 1; n++)
		ck_assert_int_eq(pomelo_message_read(whole, n, &msg), ERR_BAD_REQUEST);
	ck_assert_int_eq(pomelo_message_read(BYTES("\x03\0"), &msg), ERR_BAD_REQUEST);
	ck_assert_int_eq(pomelo_message_read(BYTES("\x03\0\0{}"), &msg), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(flag_bits_that_mean_nothing_are_refused)
{
	for (int flag = 0; flag < 256; flag++) {
		char data[] = { (char)flag, 1, 1, 'r', '{', '}' };
		bool fine = !(flag & 0xe0) && (flag >> 1 & 7) <= POMELO_PUSH;
		ck_assert_int_eq(pomelo_message_read(data, sizeof(data), &msg), fine ? 0 : ERR_BAD_REQUEST);
		if (fine)
			ck_assert(msg.compressed == !!(flag & 0x10));
	}
}
END_TEST

START_TEST(heads_are_written_as_seen)
{
	char head[POMELO_MESSAGE_HEAD_MAX];

	ck_assert_uint_eq(pomelo_response_head(head, 1, 12), 6);
	ck_assert_mem_eq(head, "\x04\0\0\x0e\x04\x01", 6);
	ck_assert_uint_eq(pomelo_push_head(head, 0, "onChat", 6, 7), 12);
	ck_assert_mem_eq(head, "\x04\0\0\x0f\x06\x06onChat", 12);
	ck_assert_uint_eq(pomelo_push_head(head, 7, NULL, 0, 2), 7);
	ck_assert_mem_eq(head, "\x04\0\0\x05\x07\0\x07", 7);
	ck_assert_uint_eq(pomelo_request_head(head, 1, 0, "a.b.c", 5, 2), 12);
	ck_assert_mem_eq(head,
			 "\x04\0\0\x0a\0\x01\x05"
			 "a.b.c",
			 12);
	ck_assert_uint_eq(pomelo_request_head(head, 0, 1, NULL, 0, 2), 7);
	ck_assert_mem_eq(head, "\x04\0\0\x05\x03\0\x01", 7);
}
END_TEST

START_TEST(what_a_client_writes_is_what_we_read)
{
	char data[POMELO_MESSAGE_HEAD_MAX + 2], route[POMELO_ROUTE_MAX];

	memset(route, 'r', sizeof(route));
	for (uint64_t id = 1; id <= UINT32_MAX; id = id * 3 + 1) {
		size_t n = pomelo_request_head(data, (uint32_t)id, 0, route, sizeof(route), 2);
		memcpy(data + n, "{}", 2);
		ck_assert_int_eq(pomelo_package_read(data, n + 2, 65536, &pkg), (ssize_t)n + 2);
		ck_assert_int_eq(pomelo_message_read(pkg.body, pkg.n, &msg), 0);
		ck_assert_uint_eq(msg.id, id);
		ck_assert_uint_eq(msg.route_n, sizeof(route));
		ck_assert_uint_eq(msg.n, 2);
	}
}
END_TEST

/* ---- handshake */

static struct pomelo_hello hello_of(const char *text)
{
	struct pomelo_hello h;

	ck_assert_int_eq(pomelo_hello_read(text, strlen(text), &h), 0);
	return h;
}

START_TEST(clients_are_told_apart_by_what_they_say)
{
	struct pomelo_hello h =
		hello_of("{\"sys\":{\"type\":\"js-websocket\",\"version\":\"0.0.1\",\"protoVersion\":0,\"rsa\":{}}}");

	ck_assert_int_eq(h.client, POMELO_CLIENT_JS);
	ck_assert_str_eq(h.version, "0.0.1");
	ck_assert_int_eq(hello_of("{\"sys\":{\"libVersion\":\"1\",\"platform\":\"mac\"},\"user\":{}}").client,
			 POMELO_CLIENT_LP);
	ck_assert_int_eq(hello_of("{\"sys\":{}}").client, POMELO_CLIENT_C);
	ck_assert_str_eq(hello_of("{\"sys\":{\"dictVersion\":\"v\"}}").dict_version, "v");
}
END_TEST

START_TEST(a_handshake_without_sys_is_refused)
{
	struct pomelo_hello h;

	ck_assert_int_eq(pomelo_hello_read(BYTES("{}"), &h), ERR_BAD_REQUEST);
	ck_assert_int_eq(pomelo_hello_read(BYTES("{\"sys\":1}"), &h), ERR_BAD_REQUEST);
	ck_assert_int_eq(pomelo_hello_read(BYTES("[]"), &h), ERR_BAD_REQUEST);
	ck_assert_int_eq(pomelo_hello_read(BYTES("garbage"), &h), ERR_BAD_REQUEST);
	ck_assert_int_eq(pomelo_hello_read(NULL, 0, &h), ERR_BAD_REQUEST);
}
END_TEST

static const char *const routes[] = { "chat.chatHandler.send", "scene.sceneHandler.move", "onChat" };

static json_t *reply_to(const char *hello, const struct pomelo_dict *d)
{
	struct pomelo_hello h = hello_of(hello);
	struct buf out = BUF_INIT;

	pomelo_hello_reply(&out, &h, &(struct pomelo_welcome){ .heartbeat_s = 10, .dict = d, .payload = POMELO_JSON });
	ck_assert_int_eq(out.data[0], POMELO_HANDSHAKE);
	ck_assert_uint_eq((size_t)(uint8_t)out.data[2] << 8 | (uint8_t)out.data[3], out.len - POMELO_HEAD);
	ck_assert_int_eq(out.data[out.len - 1], '}'); /* libpomelo2 reads the body as a C string */
	json_t *root = json_loadb(out.data + POMELO_HEAD, out.len - POMELO_HEAD, 0, NULL);
	ck_assert_ptr_nonnull(root);
	ck_assert_int_eq(json_integer_value(json_object_get(root, "code")), 200);
	json_t *sys = json_incref(json_object_get(root, "sys"));
	json_decref(root);
	ck_assert_int_eq(json_integer_value(json_object_get(sys, "heartbeat")), 10);
	buf_release(&out);
	return sys;
}

static int dict_fields(json_t *sys)
{
	static const char *const names[] = { "dict", "routeToCode", "codeToRoute", "dictVersion" };
	int n = 0;

	for (size_t i = 0; i < 4; i++)
		n += json_object_get(sys, names[i]) != NULL;
	return n;
}

START_TEST(the_dictionary_is_announced_with_all_its_fields_or_none)
{
	struct pomelo_dict *d;
	char known[200];
	json_t *sys;

	ck_assert_int_eq(pomelo_dict_new(routes, 3, &d), 0);
	sys = reply_to("{\"sys\":{}}", d);
	ck_assert_int_eq(dict_fields(sys), 4);
	ck_assert(json_is_true(json_object_get(sys, "useDict")));
	ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(sys, "dict"), "onChat")), 3);
	ck_assert_str_eq(json_string_value(json_object_get(json_object_get(sys, "codeToRoute"), "2")), routes[1]);
	json_decref(sys);
	/* who knows it already gets the announcement alone */
	snprintf(known, sizeof(known), "{\"sys\":{\"dictVersion\":\"%s\"}}", pomelo_dict_version(d));
	sys = reply_to(known, d);
	ck_assert_int_eq(dict_fields(sys), 0);
	ck_assert(json_is_true(json_object_get(sys, "useDict")));
	json_decref(sys);
	/* libpitaya dies of any */
	sys = reply_to("{\"sys\":{\"libVersion\":\"0.3\"}}", d);
	ck_assert_int_eq(dict_fields(sys), 0);
	ck_assert_ptr_null(json_object_get(sys, "useDict"));
	json_decref(sys);
	sys = reply_to("{\"sys\":{\"type\":\"js-websocket\"}}", NULL);
	ck_assert_ptr_null(json_object_get(sys, "useDict"));
	json_decref(sys);
	pomelo_dict_free(d);
}
END_TEST

START_TEST(a_serializer_is_asked_for_in_sys_or_user)
{
	ck_assert_int_eq(hello_of("{\"sys\":{}}").asked, POMELO_ANY);
	ck_assert_int_eq(hello_of("{\"sys\":{},\"user\":{\"serializer\":\"pomelo-protobuf\"}}").asked, POMELO_PROTOS);
	ck_assert_int_eq(hello_of("{\"sys\":{\"serializer\":\"protobuf\"}}").asked, POMELO_PROTOBUF);
	ck_assert_int_eq(hello_of("{\"sys\":{\"serializer\":\"json\"},\"user\":7}").asked, POMELO_JSON);
	ck_assert_int_eq(hello_of("{\"sys\":{},\"user\":{\"serializer\":5}}").asked, POMELO_ANY);
}
END_TEST

/* The reply's text; free it. */
static char *welcomed(const char *hello, enum pomelo_payload payload)
{
	static const char protos[] = "{\"client\":{},\"server\":{},\"version\":\"v2\"}";
	struct pomelo_hello h = hello_of(hello);
	struct pomelo_welcome w = { 10, NULL, payload, protos, sizeof(protos) - 1, "v2" };
	struct buf out = BUF_INIT;

	pomelo_hello_reply(&out, &h, &w);
	buf_cstr(&out);
	memmove(out.data, out.data + POMELO_HEAD, out.len - POMELO_HEAD + 1);
	return out.data;
}

START_TEST(protos_come_whole_to_who_does_not_keep_them)
{
	char *text = welcomed("{\"sys\":{\"protoVersion\":\"v1\"}}", POMELO_PROTOS);

	ck_assert_ptr_nonnull(
		strstr(text, "\"protos\":{\"client\":{},\"server\":{},\"version\":\"v2\"},\"useProto\":true"));
	free(text);
	text = welcomed("{\"sys\":{\"protoVersion\":\"v2\"}}", POMELO_PROTOS);
	ck_assert_ptr_null(strstr(text, "protos"));
	ck_assert_ptr_nonnull(strstr(text, "\"useProto\":true"));
	free(text);
	/* a client that encodes by protos of before must be told that they are out of use */
	text = welcomed("{\"sys\":{\"protoVersion\":\"v1\"}}", POMELO_JSON);
	ck_assert_ptr_nonnull(strstr(text, "\"protos\":{\"client\":{},\"server\":{},\"version\":\"0\"}"));
	free(text);
	text = welcomed("{\"sys\":{\"protoVersion\":0}}", POMELO_JSON);
	ck_assert_str_eq(text, "{\"code\":200,\"sys\":{\"heartbeat\":10}}");
	free(text);
	text = welcomed("{\"sys\":{\"libVersion\":\"1\"},\"user\":{\"serializer\":\"protobuf\"}}", POMELO_PROTOBUF);
	ck_assert_str_eq(text, "{\"code\":200,\"sys\":{\"heartbeat\":10,\"serializer\":\"protobuf\"},"
			       "\"user\":{\"serializer\":\"protobuf\"}}");
	free(text);
}
END_TEST

START_TEST(versions_are_compared_number_by_number)
{
	ck_assert_int_lt(pomelo_version_compare("0.9.9", "0.10"), 0);
	ck_assert_int_gt(pomelo_version_compare("1.0.1", "1"), 0);
	ck_assert_int_eq(pomelo_version_compare("2.0", "2.0.0-beta"), 0);
	ck_assert_int_lt(pomelo_version_compare("", "0.0.1"), 0);
}
END_TEST

START_TEST(codes_are_places_in_the_list)
{
	struct pomelo_dict *d;
	size_t n;

	ck_assert_int_eq(pomelo_dict_new(routes, 3, &d), 0);
	for (uint16_t i = 0; i < 3; i++) {
		ck_assert_uint_eq(pomelo_dict_code(d, routes[i], strlen(routes[i])), i + 1);
		ck_assert_str_eq(pomelo_dict_route(d, i + 1, &n), routes[i]);
	}
	ck_assert_uint_eq(pomelo_dict_code(d, "onCha", 5), 0);
	ck_assert_uint_eq(pomelo_dict_code(d, "onChats", 7), 0);
	ck_assert_ptr_null(pomelo_dict_route(d, 0, &n));
	ck_assert_ptr_null(pomelo_dict_route(d, 4, &n));
	pomelo_dict_free(d);
	ck_assert_uint_eq(pomelo_dict_code(NULL, "onChat", 6), 0);
}
END_TEST

START_TEST(a_route_twice_in_the_dictionary_is_refused)
{
	static const char *const twice[] = { "a.b.c", "d.e.f", "a.b.c" };
	struct pomelo_dict *d;

	ck_assert_int_eq(pomelo_dict_new(twice, 3, &d), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(a_kick_always_carries_its_reason)
{
	struct buf out = BUF_INIT;

	pomelo_kick(&out, "kick");
	ck_assert_uint_eq(out.len, 21);
	ck_assert_mem_eq(out.data, "\x05\0\0\x11{\"reason\":\"kick\"}", 21);
	buf_release(&out);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("pomelo");

	tcase_add_test(t, a_package_is_split_off_a_stream);
	tcase_add_test(t, a_package_cut_anywhere_asks_for_more);
	tcase_add_test(t, an_oversize_package_is_refused_by_its_head_alone);
	tcase_add_test(t, types_a_client_must_not_send_are_refused_by_their_first_byte);
	tcase_add_test(t, a_package_head_holds_24_bits_of_length);
	tcase_add_test(t, a_request_is_read_as_seen);
	tcase_add_test(t, a_notify_has_no_id);
	tcase_add_test(t, a_request_with_id_0_is_a_notify);
	tcase_add_test(t, an_id_over_32_bits_is_refused);
	tcase_add_test(t, a_route_with_a_nul_is_refused);
	tcase_add_test(t, a_truncated_message_is_refused);
	tcase_add_test(t, flag_bits_that_mean_nothing_are_refused);
	tcase_add_test(t, heads_are_written_as_seen);
	tcase_add_test(t, what_a_client_writes_is_what_we_read);
	tcase_add_test(t, clients_are_told_apart_by_what_they_say);
	tcase_add_test(t, a_handshake_without_sys_is_refused);
	tcase_add_test(t, the_dictionary_is_announced_with_all_its_fields_or_none);
	tcase_add_test(t, a_serializer_is_asked_for_in_sys_or_user);
	tcase_add_test(t, protos_come_whole_to_who_does_not_keep_them);
	tcase_add_test(t, versions_are_compared_number_by_number);
	tcase_add_test(t, codes_are_places_in_the_list);
	tcase_add_test(t, a_route_twice_in_the_dictionary_is_refused);
	tcase_add_test(t, a_kick_always_carries_its_reason);
	return suite_run("pomelo", t);
}
