/* The HTTP face of every process: what interfaces.md says of it. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "rpc/server.h"
#include "rpc/slow.h"
#include "tests/support/calls.h"
#include "tests/support/suite.h"

static struct calls c;
static struct http_reply http;
static struct reply reply, second;

static void setup(void)
{
	calls_setup(&c, NULL);
}

static void setup_three(void)
{
	calls_setup(&c, &(struct calls_options){ .threads = 3 });
}

static void teardown(void)
{
	calls_teardown(&c);
}

static void box_begins(void)
{
	calls_begin(&c, CALLS, &calls_box);
}

static int get(const char *path)
{
	return calls_http(&c, CALLS, "GET", path, false, NULL, &http);
}

static int get_with_key(const char *path)
{
	return calls_http(&c, CALLS, "GET", path, true, NULL, &http);
}

static int post(const char *path, const char *body)
{
	return calls_http(&c, CALLS, "POST", path, true, body, &http);
}

/* ---- to look at ---------------------------------------------------------------------------------------------------- */

START_TEST(a_ready_instance_is_healthy_and_ready)
{
	box_begins();
	ck_assert_int_eq(get("/healthz"), 200);
	ck_assert_str_eq(http.body, "ok\n");
	ck_assert_int_eq(get("/readyz"), 200);
	ck_assert_str_eq(http.body, "ok\n");
	ck_assert_int_eq(calls_http(&c, CALLS, "HEAD", "/healthz", false, NULL, &http), 200);
}
END_TEST

START_TEST(a_draining_instance_is_healthy_and_not_ready)
{
	box_begins();
	calls_begin(&c, CALLER, &calls_caller);
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = 0 }, .body = span_of("hold", 4) };

	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
	until(calls_held(CALLS) == 1);
	ck_assert_int_eq(post("/admin/drain", ""), 200);
	ck_assert_int_eq(get("/readyz"), 503);
	ck_assert_str_eq(http.body, "draining\n");
	ck_assert_int_eq(get("/healthz"), 200);
	call.body = span_of("release", 7);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &second);
	reply_wait(&reply);
	ck_assert_int_eq(reply.err, 0);
	loop_join(c.s[CALLS]->control);
	service_free(c.s[CALLS]);
	c.s[CALLS] = NULL;
}
END_TEST

/* One line of the text format: a comment, or NAME{LABELS} VALUE. */
static void ck_metric_line(const char *line)
{
	char *end;

	if (!strncmp(line, "# HELP loquat_", 14) || !strncmp(line, "# TYPE loquat_", 14))
		return;
	ck_assert_msg(!strncmp(line, "loquat_", 7), "%s", line);
	const char *value = strrchr(line, ' ');
	ck_assert_msg(value && strstr(line, "instance=\"calls-1\""), "%s", line);
	strtod(value + 1, &end);
	ck_assert_msg(!*end && end != value + 1, "%s", line);
}

START_TEST(metrics_are_in_the_format_of_prometheus)
{
	box_begins();
	calls_ask(c.s[CALLS], "calls.boxRemote.put", "k", "{}", &reply);
	calls_ask(c.s[CALLS], "calls.boxRemote.put", "k", "deny", &reply);
	ck_assert_int_eq(get("/metrics"), 200);
	ck_assert_ptr_nonnull(strstr(http.head, "Content-Type: text/plain; version=0.0.4"));
	char *at = http.body, *line;
	ck_assert_ptr_nonnull(strstr(at, "loquat_rpc_requests_total{"));
	ck_assert_ptr_nonnull(strstr(at, "service=\"calls\""));
	ck_assert_ptr_nonnull(strstr(at, "method=\"boxRemote.put\""));
	ck_assert_ptr_nonnull(strstr(at, "error=\"denied\""));
	ck_assert_ptr_nonnull(strstr(at, "loquat_rpc_duration_seconds_bucket{"));
	ck_assert_ptr_nonnull(strstr(at, "loquat_rpc_calls_in_flight{"));
	while ((line = strsep(&at, "\n")))
		if (*line)
			ck_metric_line(line);
}
END_TEST

START_TEST(stats_tell_of_each_method)
{
	static const char *const numbers[] = { "count",  "rate_1s", "rate_10s", "rate_60s",
					       "p50_us", "p90_us",  "p99_us",   "max_us" };

	box_begins();
	for (int i = 0; i < 5; i++)
		calls_ask(c.s[CALLS], "calls.boxRemote.put", "k", i < 2 ? "deny" : "{}", &reply);
	ck_assert_int_eq(get("/stats"), 200);
	ck_assert_ptr_nonnull(strstr(http.head, "Content-Type: application/json"));
	json_t *o = http_body_json(&http), *m = json_object_get(json_object_get(o, "methods"), "calls.boxRemote.put");

	ck_assert_str_eq(http_body_word(o, "instance"), "calls-1");
	ck_assert(json_is_number(json_object_get(o, "uptime_s")));
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		ck_assert_msg(json_is_number(json_object_get(m, numbers[i])), "%s", numbers[i]);
	ck_assert_int_eq(json_integer_value(json_object_get(m, "count")), 5);
	ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(m, "errors"), "denied")), 2);
	ck_assert_uint_eq(json_object_size(json_object_get(m, "errors")), 1);
	ck_assert_int_gt(json_integer_value(json_object_get(m, "max_us")), 0);
	json_decref(o);
}
END_TEST

START_TEST(stats_tell_of_the_sql_log)
{
	calls_file(
		&c, "boxRemote.lua",
		"return { put = function() db.key('a') db.exec('DELETE FROM bag WHERE role_id = 1') return {} end }\n");
	calls_begin(&c, CALLS, &calls_lua);
	calls_ask(c.s[CALLS], "calls.boxRemote.put", "k", "{}", &reply);
	get("/stats");
	json_t *o = http_body_json(&http), *log = json_object_get(o, "sqllog");

	ck_assert_int_eq(json_integer_value(json_object_get(log, "records")), 1);
	ck_assert_int_eq(json_integer_value(json_object_get(log, "unsynced")), 0);
	ck_assert_int_gt(json_integer_value(json_object_get(log, "bytes")), 50);
	json_decref(o);
}
END_TEST

START_TEST(routes_are_those_this_process_sees)
{
	box_begins();
	char rows[800];

	get("/routes");
	json_t *o = http_body_json(&http);
	ck_assert_int_eq(json_integer_value(json_object_get(o, "version")), 1);
	json_decref(o);
	snprintf(rows, sizeof(rows), "%s", calls_row(&c, CALLS, ", draining = true"));
	calls_routes(&c, 17, rows);
	until(calls_routes_version(c.s[CALLS], 0) == 17);
	get("/routes");
	o = http_body_json(&http);
	ck_assert_int_eq(json_integer_value(json_object_get(o, "version")), 17);
	json_t *row = json_array_get(json_object_get(o, "instances"), 0);
	ck_assert_str_eq(http_body_word(row, "id"), "calls-1");
	ck_assert_str_eq(http_body_word(row, "state"), "draining");
	ck_assert_int_eq(json_integer_value(json_object_get(row, "rpc")), c.rpc[CALLS]);
	json_decref(o);
}
END_TEST

START_TEST(the_page_is_for_people)
{
	box_begins();
	ck_assert_int_eq(get("/"), 200);
	ck_assert_ptr_nonnull(strstr(http.head, "Content-Type: text/html"));
	ck_assert_ptr_nonnull(strstr(http.body, "calls-1"));
}
END_TEST

START_TEST(other_paths_and_other_methods_are_refused)
{
	box_begins();
	get("/nothing");
	ck_http_error(&http, 404, "not_found", "none");
	calls_http(&c, CALLS, "POST", "/stats", false, "{}", &http);
	ck_http_error(&http, 405, "bad_request", "none");
	calls_http(&c, CALLS, "GET", "/admin/drain", true, NULL, &http);
	ck_http_error(&http, 405, "bad_request", "none");
}
END_TEST

/* ---- admin ----------------------------------------------------------------------------------------------------------- */

START_TEST(admin_needs_the_cluster_key)
{
	static const char *const paths[] = { "/admin/drain", "/admin/reload", "/admin/console", "/admin/profile",
					     "/admin/loglevel?level=debug" };

	box_begins();
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		calls_http(&c, CALLS, "POST", paths[i], false, "", &http);
		ck_http_error(&http, 403, "denied", "none");
	}
	ck_assert_int_eq(get("/readyz"), 200);
}
END_TEST

START_TEST(the_log_level_can_be_changed)
{
	box_begins();
	ck_assert_int_eq(post("/admin/loglevel?level=warn", ""), 200);
	post("/admin/loglevel?level=loud", "");
	ck_http_error(&http, 400, "bad_request", "none");
	post("/admin/loglevel", "");
	ck_http_error(&http, 400, "bad_request", "none");
}
END_TEST

START_TEST(a_service_without_lua_has_its_messages_to_reload)
{
	box_begins();
	ck_assert_int_eq(post("/admin/reload", ""), 200);
	json_t *o = http_body_json(&http), *messages = json_object_get(o, "messages");
	ck_assert_str_eq(http_body_word(o, "version"), "");
	ck_assert_str_eq(http_body_word(messages, "version"), http_body_word(messages, "running"));
	ck_assert_str_eq(http_body_word(messages, "previous"), "");
	json_decref(o);
}
END_TEST

/* ---- calls ----------------------------------------------------------------------------------------------------------- */

START_TEST(a_method_is_called_by_its_path_and_routed_by_the_key)
{
	box_begins();
	for (int i = 0; i < 10; i++) {
		char path[100], key[16], expected[60];

		snprintf(key, sizeof(key), "key%d", i);
		snprintf(path, sizeof(path), "/rpc/calls/boxRemote/put?key=%s", key);
		ck_assert_int_eq(post(path, "{}"), 200);
		snprintf(expected, sizeof(expected), "{\"text\":\"calls-1/%u\"",
			 route_worker(c.s[CALLS]->row, key, strlen(key)));
		ck_assert_msg(!strncmp(http.body, expected, strlen(expected)), "%s: %s", expected, http.body);
	}
}
END_TEST

START_TEST(without_a_key_a_call_goes_by_the_request_s_uid)
{
	box_begins();
	for (int i = 0; i < 10; i++) {
		char body[60], path[100], key[16], expected[60];

		snprintf(key, sizeof(key), "u%d", i);
		snprintf(expected, sizeof(expected), "{\"text\":\"calls-1/%u\"",
			 route_worker(c.s[CALLS]->row, key, strlen(key)));
		snprintf(body, sizeof(body), "{\"uid\":\"%s\"}", key);
		post("/rpc/calls/boxRemote/put", body);
		ck_assert_msg(!strncmp(http.body, expected, strlen(expected)), "%s: %s", expected, http.body);
		snprintf(path, sizeof(path), "/rpc/calls/boxRemote/get?uid=%s", key);
		get_with_key(path);
		ck_assert_msg(!strncmp(http.body, expected, strlen(expected)), "%s: %s", expected, http.body);
	}
}
END_TEST

START_TEST(a_call_reaches_other_services_from_any_process)
{
	box_begins();
	calls_begin(&c, CALLER, &calls_caller);
	ck_assert_int_eq(calls_http(&c, CALLER, "POST", "/rpc/calls/boxRemote/put?key=k", true, "{}", &http), 200);
	ck_assert_int_eq(calls_http(&c, CALLER, "POST", "/rpc/calls/boxRemote/put?instance=calls-1", true, "{}", &http),
			 200);
	calls_http(&c, CALLER, "POST", "/rpc/role/roleRemote/get", true, "{\"uid\":\"u\"}", &http);
	ck_http_error(&http, 503, "unavailable", "none");
}
END_TEST

START_TEST(an_error_has_its_number_as_status)
{
	box_begins();
	post("/rpc/calls/boxRemote/put?key=k", "deny");
	ck_http_error(&http, 403, "denied", "none");
	post("/rpc/calls/boxRemote/put?key=k", "done");
	ck_http_error(&http, 500, "failed", "done");
	post("/rpc/calls/boxRemote/late?key=k", "{}");
	ck_http_error(&http, 404, "not_found", "none");
}
END_TEST

START_TEST(get_is_for_reads_only)
{
	box_begins();
	ck_assert_int_eq(get_with_key("/rpc/calls/boxRemote/get?key=k"), 200);
	get_with_key("/rpc/calls/boxRemote/put?key=k");
	ck_http_error(&http, 405, "bad_request", "none");
	get_with_key("/rpc/calls/boxRemote/once?key=k");
	ck_http_error(&http, 405, "bad_request", "none");
	calls_http(&c, CALLS, "PUT", "/rpc/calls/boxRemote/get?key=k", true, "{}", &http);
	ck_http_error(&http, 405, "bad_request", "none");
	ck_assert_uint_eq(calls_run(CALLS), 1);
}
END_TEST

START_TEST(a_call_needs_the_cluster_key)
{
	box_begins();
	calls_http(&c, CALLS, "POST", "/rpc/calls/boxRemote/put", false, "{}", &http);
	ck_http_error(&http, 403, "denied", "none");
	ck_assert_uint_eq(calls_run(CALLS), 0);
}
END_TEST

START_TEST(a_read_that_says_it_is_not_inner_needs_no_key)
{
	box_begins();
	ck_assert_int_eq(get("/rpc/calls/boxRemote/get?key=k"), 200);
	calls_http(&c, CALLS, "POST", "/rpc/calls/boxRemote/get?key=k", false, "{}", &http);
	ck_assert_int_eq(http.status, 200);
	get("/rpc/calls/boxRemote/peek?key=k"); /* a read as well, but it does not say so */
	ck_http_error(&http, 403, "denied", "none");
	get("/rpc/calls/boxRemote/put?key=k"); /* never by GET, whoever asks */
	ck_http_error(&http, 405, "bad_request", "none");
	ck_assert_uint_eq(calls_run(CALLS), 2);
}
END_TEST

START_TEST(the_slowest_calls_are_shown_and_no_more_than_fit)
{
	box_begins();
	for (int i = 0; i < 3 * SLOW_KEPT; i++)
		calls_ask(c.s[CALLS], "calls.boxRemote.put", "k", "{}", &reply);
	calls_ask(c.s[CALLS], "calls.boxRemote.put", "the key", "deny", &reply);
	ck_assert_int_eq(get("/stats/slow"), 200);
	json_t *o = http_body_json(&http), *list = json_object_get(o, "calls"), *call;
	size_t i;
	json_int_t before = INT64_MAX;

	ck_assert_uint_ge(json_array_size(list), 1);
	ck_assert_uint_le(json_array_size(list), SLOW_KEPT);
	json_array_foreach(list, i, call)
	{
		json_int_t us = json_integer_value(json_object_get(call, "us"));

		ck_assert_int_le(us, before);
		ck_assert_str_eq(http_body_word(call, "method"), "calls.boxRemote.put");
		ck_assert_uint_gt(strlen(http_body_word(call, "trace")), 8);
		ck_assert_int_eq(us, json_integer_value(json_object_get(call, "queue_us")) +
					     json_integer_value(json_object_get(call, "run_us")));
		before = us;
	}
	json_decref(o);
}
END_TEST

static struct slow_call took(uint64_t us, uint64_t at_s)
{
	return (struct slow_call){ .us = us, .at_ns = at_s * 1000000000u };
}

START_TEST(a_slow_call_is_forgotten_after_its_time)
{
	static struct slow s;
	struct slow_call call;

	for (unsigned i = 0; i < 2 * SLOW_KEPT; i++) {
		call = took(1000 + i, 10);
		slow_note(&s, &call);
	}
	ck_assert_uint_eq(s.n, SLOW_KEPT);
	ck_assert(!slow_wants(&s, (1000 + SLOW_KEPT) * 1000, 20 * 1000000000ull)); /* no slower than the least */
	ck_assert(slow_wants(&s, (1001 + SLOW_KEPT) * 1000, 20 * 1000000000ull));
	ck_assert(slow_wants(&s, 1, (10 + SLOW_S) * 1000000000ull));
	call = took(5, 10 + SLOW_S);
	slow_note(&s, &call);
	ck_assert_uint_eq(s.n, 1);
	ck_assert_uint_eq(s.call[0].us, 5);
}
END_TEST

START_TEST(what_is_no_method_is_not_found)
{
	static const char *const paths[] = { "/rpc/calls/boxRemote/nothing",
					     "/rpc/calls/boxRemote",
					     "/rpc/calls.boxRemote.put",
					     "/rpc/calls/boxRemote/put/more",
					     "/rpc/",
					     "/rpc/calls/boxHandler/say",
					     "/rpc//boxRemote/put" };
	char path[300] = "/rpc/calls/boxRemote/";

	box_begins();
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		post(paths[i], "{}");
		ck_http_error(&http, 404, "not_found", "none");
	}
	memset(path + strlen(path), 'x', 250);
	post(path, "{}");
	ck_http_error(&http, 404, "not_found", "none");
}
END_TEST

/* A service in Lua, so that requests are typed. It answers what it got. */
static void echo_begins(void)
{
	calls_file(&c, "boxRemote.lua",
		   "local function echo(args) return args end\nreturn { get = echo, put = echo }\n");
	calls_begin(&c, CALLS, &calls_lua);
}

START_TEST(query_parameters_are_the_request_s_fields)
{
	echo_begins();
	ck_assert_int_eq(get_with_key("/rpc/calls/boxRemote/get?key=k&text=a%20b%22c&number=-7&flag=true"), 200);
	ck_assert_str_eq(http.body, "{\"text\":\"a b\\\"c\",\"number\":-7,\"flag\":true}");
	get_with_key("/rpc/calls/boxRemote/get?text=12&words=a&words=1&numbers=1&numbers=2");
	ck_assert_str_eq(http.body, "{\"text\":\"12\",\"words\":[\"a\",\"1\"],\"numbers\":[1,2]}");
	get_with_key("/rpc/calls/boxRemote/get?numbers=[3,4]&instance=calls-1");
	ck_assert_str_eq(http.body, "{\"numbers\":[3,4]}");
	get_with_key("/rpc/calls/boxRemote/get");
	ck_assert_str_eq(http.body, "{}");
}
END_TEST

START_TEST(a_wrong_parameter_or_body_is_a_bad_request_that_names_it)
{
	static const struct {
		const char *path, *body, *named;
	} all[] = {
		{ "/rpc/calls/boxRemote/get?number=seven", NULL, "number" },
		{ "/rpc/calls/boxRemote/get?nothing=1", NULL, "nothing" },
		{ "/rpc/calls/boxRemote/get?text=%ff%fe", NULL, "UTF-8" },
		{ "/rpc/calls/boxRemote/get?%ff=1", NULL, "UTF-8" },
		{ "/rpc/calls/boxRemote/put?key=k", "{\"number\":\"x\"}", "number" },
		{ "/rpc/calls/boxRemote/put?key=k", "[1]", "" },
		{ "/rpc/calls/boxRemote/put?key=k", "{\"number\":", "" },
		{ "/rpc/calls/boxRemote/put?key=k", "{\"nothing\":1}", "nothing" },
	};
	char path[600] = "/rpc/calls/boxRemote/put?key=";

	echo_begins();
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		calls_http(&c, CALLS, all[i].body ? "POST" : "GET", all[i].path, true, all[i].body, &http);
		ck_http_error(&http, 400, "bad_request", "none");
		ck_assert_msg(strstr(http.body, all[i].named), "%s: %s", all[i].named, http.body);
	}
	memset(path + strlen(path), 'k', 256);
	post(path, "{}");
	ck_http_error(&http, 400, "bad_request", "none");
}
END_TEST

/* Random requests: whatever they are, the answer is JSON with its own status, and the instance goes on. */
START_TEST(random_requests_are_answered_in_json)
{
	static const char bytes[] = "{}[]\":,\\/0123456789.eE+-truefalsn \t&=?%ffx\xc3\xa4\x80";
	uint64_t rng = 88172645463325252u;

	echo_begins();
	for (int i = 0; i < 300; i++) {
		char body[80], path[200] = "/rpc/calls/boxRemote/";
		size_t n = 0, at = strlen(path);
		bool query = i % 2;

		for (unsigned k = 0; k < 60; k++) {
			rng ^= rng << 13;
			rng ^= rng >> 7;
			rng ^= rng << 17;
			if (rng % 40 == 0)
				break;
			body[n++] = bytes[(rng >> 20) % (sizeof(bytes) - 1)];
		}
		body[n] = '\0';
		at += (size_t)snprintf(path + at, sizeof(path) - at, query ? "get?text=" : "put?key=k");
		for (size_t k = 0; query && k < n && k < 40; k++)
			at += (size_t)snprintf(path + at, sizeof(path) - at,
					       body[k] == '&' || body[k] == '=' ? "%c" : "%%%02x",
					       (unsigned char)body[k]);
		int status = calls_http(&c, CALLS, query ? "GET" : "POST", path, true, query ? NULL : body, &http);
		ck_assert_msg(status == 200 || status == 400, "%d: %s %s", status, path, body);
		if (strncmp(http.body, "<", 1)) /* a query that cannot be decoded is refused below us */
			json_decref(http_body_json(&http));
	}
	ck_assert_int_eq(get("/healthz"), 200);
}
END_TEST

START_TEST(calls_under_way_when_the_instance_stops_are_answered)
{
	calls_teardown(&c);
	calls_setup(&c, &(struct calls_options){ .lua = "rpc = { drain_s = 0 }," });
	box_begins();
	calls_begin(&c, CALLER, &calls_caller);
	int fd = calls_http_send(&c, CALLER, "POST", "/rpc/calls/boxRemote/put?key=k", true, "hold");
	until(calls_held(CALLS) == 1);
	calls_end(&c, CALLER);
	ck_assert_int_eq(calls_http_take(fd, &http), 503);
	ck_http_error(&http, 503, "unavailable", "unknown");
}
END_TEST

/* ---- the service's own paths ------------------------------------------------------------------------------------------ */

START_TEST(other_paths_go_to_the_service_s_hook)
{
	calls_file(
		&c, "init.lua",
		"return { http = function(r)\n"
		"  if r.path == '/raise' then error('broken') end\n"
		"  if r.path == '/wrong' then return 'text' end\n"
		"  if r.path == '/none' then return end\n"
		"  if r.path == '/slow' then clock.sleep(20) end\n"
		"  if r.path == '/change' then db.key('a') db.exec('DELETE FROM bag WHERE role_id = 5') return tonumber(r.body), '{}' end\n"
		"  return 201, json.encode({ r.method, r.path, r.body, r.signature })\n"
		"end }\n");
	echo_begins();
	ck_assert_int_eq(post("/own/path", "the body"), 201);
	ck_assert_str_eq(http.body, "[\"POST\",\"/own/path\",\"the body\",\"\"]");
	ck_assert_int_eq(post("/slow", "x"), 201);
	post("/raise", "x");
	ck_http_error(&http, 500, "failed", "none");
	post("/wrong", "x");
	ck_http_error(&http, 500, "failed", "none");
	post("/none", "x");
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_uint_eq(sqllog_lsn(c.s[CALLS]->sqllog), 0);
	ck_assert_int_eq(post("/change", "409"), 409);
	ck_assert_uint_eq(sqllog_lsn(c.s[CALLS]->sqllog), 0);
	ck_assert_int_eq(post("/change", "200"), 200);
	ck_assert_uint_eq(sqllog_durable_lsn(c.s[CALLS]->sqllog), 1);
}
END_TEST

START_TEST(without_a_hook_other_paths_are_not_found)
{
	echo_begins();
	post("/own/path", "x");
	ck_http_error(&http, 404, "not_found", "none");
}
END_TEST

START_TEST(a_hook_under_way_is_answered_before_the_instance_ends)
{
	calls_file(
		&c, "init.lua",
		"return { http = function(r) state.waits = true clock.sleep(60) return 200, '{\"in\":\"time\"}' end }\n");
	calls_file(&c, "boxRemote.lua", "return { get = function() return { flag = state.waits } end }\n");
	calls_begin(&c, CALLS, &calls_lua);
	int fd = calls_http_send(&c, CALLS, "POST", "/slow", true, "x");
	do
		calls_ask(c.s[CALLS], "calls.boxRemote.get", "k", "{}", &reply);
	while (!strstr(reply.body, "true"));
	calls_end(&c, CALLS);
	ck_assert_int_eq(calls_http_take(fd, &http), 200);
	ck_assert_str_eq(http.body, "{\"in\":\"time\"}");
}
END_TEST

int main(void)
{
	TCase *one = tcase_create("one worker"), *three = tcase_create("three workers");

	tcase_add_checked_fixture(one, setup, teardown);
	tcase_add_checked_fixture(three, setup_three, teardown);
	tcase_set_timeout(one, 60);
	tcase_set_timeout(three, 60);
	tcase_add_test(one, a_ready_instance_is_healthy_and_ready);
	tcase_add_test(one, a_draining_instance_is_healthy_and_not_ready);
	tcase_add_test(one, metrics_are_in_the_format_of_prometheus);
	tcase_add_test(one, stats_tell_of_each_method);
	tcase_add_test(one, stats_tell_of_the_sql_log);
	tcase_add_test(one, routes_are_those_this_process_sees);
	tcase_add_test(one, the_page_is_for_people);
	tcase_add_test(one, other_paths_and_other_methods_are_refused);
	tcase_add_test(one, admin_needs_the_cluster_key);
	tcase_add_test(one, the_log_level_can_be_changed);
	tcase_add_test(one, a_service_without_lua_has_its_messages_to_reload);
	tcase_add_test(one, a_method_is_called_by_its_path_and_routed_by_the_key);
	tcase_add_test(one, without_a_key_a_call_goes_by_the_request_s_uid);
	tcase_add_test(one, a_call_reaches_other_services_from_any_process);
	tcase_add_test(one, an_error_has_its_number_as_status);
	tcase_add_test(one, get_is_for_reads_only);
	tcase_add_test(one, a_call_needs_the_cluster_key);
	tcase_add_test(one, a_read_that_says_it_is_not_inner_needs_no_key);
	tcase_add_test(one, the_slowest_calls_are_shown_and_no_more_than_fit);
	tcase_add_test(one, a_slow_call_is_forgotten_after_its_time);
	tcase_add_test(one, what_is_no_method_is_not_found);
	tcase_add_test(one, query_parameters_are_the_request_s_fields);
	tcase_add_test(one, a_wrong_parameter_or_body_is_a_bad_request_that_names_it);
	tcase_add_test(one, random_requests_are_answered_in_json);
	tcase_add_test(one, calls_under_way_when_the_instance_stops_are_answered);
	tcase_add_test(one, other_paths_go_to_the_service_s_hook);
	tcase_add_test(one, without_a_hook_other_paths_are_not_found);
	tcase_add_test(one, a_hook_under_way_is_answered_before_the_instance_ends);
	tcase_add_test(three, a_method_is_called_by_its_path_and_routed_by_the_key);
	tcase_add_test(three, without_a_key_a_call_goes_by_the_request_s_uid);
	return suite_run("service_http", one, three);
}
