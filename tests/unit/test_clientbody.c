/* The promises of rpc/clientbody.h and rpc/clientprotos.h, by the project's own .proto files. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/clientbody.h"
#include "tests/support/sample.h"
#include "tests/support/suite.h"

#define SEND "chat.chatHandler.send"
#define ECHO "connector.entryHandler.echo"
#define GET  "role.roleHandler.get"

static struct schema *schema;
static struct clientprotos *protos;
static struct clientbody body;
static struct buf scratch;

static void setup(void)
{
	char error[200];
	size_t n;
	char *set = sample_read("build/loquat.desc", &n);

	ck_assert_int_eq(schema_load(set, n, error, sizeof(error), &schema), 0);
	free(set);
	protos = clientprotos_new(schema);
	memset(&body, 0, sizeof(body));
	buf_init(&scratch);
}

static void teardown(void)
{
	clientbody_release(&body);
	buf_release(&scratch);
	clientprotos_free(protos);
	schema_free(schema);
}

/* ---- what clients are told */

static const char *type_in(const json_t *side, const char *route, const char *field)
{
	return json_string_value(json_object_get(json_object_get(json_object_get(side, route), field), "type"));
}

START_TEST(the_schema_has_requests_answers_and_pushes)
{
	size_t n;
	const char *text = clientprotos_json(protos, &n);
	json_t *o = json_loadb(text, n, 0, NULL), *client = json_object_get(o, "client"),
	       *server = json_object_get(o, "server");

	ck_assert_ptr_nonnull(o);
	ck_assert_str_eq(type_in(client, SEND, "content"), "string");
	ck_assert_str_eq(type_in(server, SEND, "code"), "uInt32");
	ck_assert_str_eq(type_in(server, "onChat", "time"), "double");
	ck_assert_str_eq(type_in(server, GET, "role"), "role.Role");
	ck_assert_str_eq(type_in(server, "message role.Role", "name"), "string");
	ck_assert_str_eq(type_in(server, "onAdd", "user"), "string");
	ck_assert_ptr_null(json_object_get(server, ECHO)); /* untyped: JSON */
	ck_assert_ptr_null(json_object_get(client, "scene.sceneHandler.move"));
	ck_assert_str_eq(json_string_value(json_object_get(o, "version")), clientprotos_version(protos));
	json_decref(o);
}
END_TEST

START_TEST(the_dictionary_has_all_routes_behind_those_given)
{
	static const char *const first[] = { "onSceneUpdate", "my.own.route" };
	struct pomelo_dict *d;

	ck_assert_int_eq(clientprotos_dict(protos, first, 2, &d), 0);
	ck_assert_uint_eq(pomelo_dict_code(d, "onSceneUpdate", 13), 1);
	ck_assert_uint_eq(pomelo_dict_code(d, "my.own.route", 12), 2);
	ck_assert_uint_gt(pomelo_dict_code(d, SEND, strlen(SEND)), 2);
	ck_assert_uint_gt(pomelo_dict_code(d, "onLeave", 7), 2);
	ck_assert_uint_eq(pomelo_dict_code(d, "chat.chatRemote.add", 19), 0); /* no client's business */
	pomelo_dict_free(d);
}
END_TEST

/* ---- bodies */

static struct pomelo_message request(const char *route, const char *p, size_t n)
{
	return (struct pomelo_message){
		.kind = POMELO_REQUEST, .id = 7, .route = route, .route_n = strlen(route), .body = p, .n = n
	};
}

static void ask(const char *route)
{
	ck_assert_int_eq(clientbody_asked(&body, protos, 7, route, strlen(route)), 0);
}

START_TEST(a_request_in_protobuf_is_json_behind_the_edge)
{
	struct pomelo_message m = request(SEND, "\x0a\x02hi", 4);

	body.payload = POMELO_PROTOBUF;
	ck_assert_int_eq(clientbody_in(&body, protos, &m, &scratch), 0);
	ck_assert_uint_eq(m.n, 16);
	ck_assert_mem_eq(m.body, "{\"content\":\"hi\"}", 16);
	m = request(SEND, "\x0a\x22hi", 4);
	ck_assert_int_eq(clientbody_in(&body, protos, &m, &scratch), ERR_BAD_REQUEST);
	/* pomelo's clients send JSON where the schema has no form */
	body.payload = POMELO_PROTOS;
	m = request(ECHO, "{}", 2);
	ck_assert_int_eq(clientbody_in(&body, protos, &m, &scratch), 0);
	ck_assert_mem_eq(m.body, "{}", 2);
}
END_TEST

static const char *answered(const char *json, size_t *n, bool *error)
{
	const char *p = json;

	*n = strlen(json);
	buf_clear(&scratch);
	ck_assert_int_eq(clientbody_out(&body, 7, &p, n, error, &scratch), 0);
	return p;
}

START_TEST(an_answers_type_is_known_by_its_request)
{
	bool error;
	size_t n;

	body.payload = POMELO_PROTOS;
	ask(SEND);
	ck_assert_mem_eq(answered("{\"code\":200}", &n, &error), "\xc8\x3e\xc8\x01", 4);
	ck_assert_uint_eq(n, 4);
	ck_assert(!error);
	ck_assert_uint_eq(body.n, 0);
	/* not asked, or by a route of nobody: JSON */
	ck_assert_str_eq(answered("{\"code\":404}", &n, &error), "{\"code\":404}");
	ask("no.such.route");
	ck_assert_str_eq(answered("{\"code\":404}", &n, &error), "{\"code\":404}");
}
END_TEST

START_TEST(pitayas_clients_get_errors_by_their_flag)
{
	static const char json[] = "{\"code\":404,\"error\":\"not_found\",\"message\":\"no\",\"effect\":\"none\"}";
	bool error;
	size_t n;

	body.pitaya = true;
	body.payload = POMELO_JSON;
	const char *p = answered(json, &n, &error);
	ck_assert(error);
	static const char shape[] =
		"{\"code\":\"PIT-404\",\"msg\":\"no\",\"metadata\":{\"error\":\"not_found\",\"effect\":\"none\"}}";
	ck_assert_uint_eq(n, sizeof(shape) - 1);
	ck_assert_mem_eq(p, shape, n);
	body.payload = POMELO_PROTOBUF;
	ask(SEND);
	ck_assert_mem_eq(answered(json, &n, &error), "\x0a\x07PIT-404", 9);
	ck_assert(error);
	ask(SEND);
	answered("{\"code\":200}", &n, &error);
	ck_assert(!error);
	ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(an_answer_of_another_type_becomes_an_error)
{
	const char *p = "{\"code\":200,\"role\":7}";
	size_t n = strlen(p);
	bool error;

	body.payload = POMELO_PROTOS;
	ask(GET);
	ck_assert_int_eq(clientbody_out(&body, 7, &p, &n, &error, &scratch), ERR_BAD_REQUEST);
	ck_assert_mem_eq(p, "\xc8\x3e\xf4\x03", 4); /* code 500 */
}
END_TEST

START_TEST(pushes_go_by_their_type)
{
	const char *p = "{\"user\":\"ann\"}";
	size_t n = strlen(p);

	ck_assert_int_eq(clientbody_push(POMELO_PROTOS, false, protos, "onAdd", 5, &p, &n, &scratch), 0);
	ck_assert_uint_eq(n, 5);
	ck_assert_mem_eq(p,
			 "\x0a\x03"
			 "ann",
			 5);
	p = "{\"x\":1}";
	n = strlen(p);
	ck_assert_int_eq(clientbody_push(POMELO_PROTOS, false, protos, "onOther", 7, &p, &n, &scratch), 0);
	ck_assert_str_eq(p, "{\"x\":1}");
}
END_TEST

START_TEST(requests_without_an_answer_are_bounded)
{
	body.payload = POMELO_PROTOBUF;
	for (unsigned i = 1; i <= CLIENTBODY_ASKED_MAX; i++)
		ck_assert_int_eq(clientbody_asked(&body, protos, i, SEND, strlen(SEND)), 0);
	ck_assert_int_eq(clientbody_asked(&body, protos, 1, SEND, strlen(SEND)), ERR_FULL);
	ck_assert_int_eq(clientbody_asked(&body, protos, 0, SEND, strlen(SEND)), 0); /* a notify */
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("clientbody");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_schema_has_requests_answers_and_pushes);
	tcase_add_test(t, the_dictionary_has_all_routes_behind_those_given);
	tcase_add_test(t, a_request_in_protobuf_is_json_behind_the_edge);
	tcase_add_test(t, an_answers_type_is_known_by_its_request);
	tcase_add_test(t, pitayas_clients_get_errors_by_their_flag);
	tcase_add_test(t, an_answer_of_another_type_becomes_an_error);
	tcase_add_test(t, pushes_go_by_their_type);
	tcase_add_test(t, requests_without_an_answer_are_bounded);
	return suite_run("clientbody", t);
}
