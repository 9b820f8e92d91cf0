/* rpc/etcd.h and rpc/route_rows.h: the JSON gateway's shapes as etcd 3.4 sends them, and the rows made of them. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "rpc/etcd.h"
#include "rpc/etcd_config.h"
#include "rpc/route_rows.h"
#include "rpc/service_config.h"
#include "tests/support/folder.h"
#include "tests/support/suite.h"

static char seen[512];

static void see(void *arg, const struct etcd_key *k)
{
	size_t n = strlen(seen);

	(void)arg;
	snprintf(seen + n, sizeof seen - n, "[%s%s=%s@%llu]", k->gone ? "-" : "", k->key, k->value,
		 (unsigned long long)k->mod);
}
static const struct etcd_reader reader = { see, NULL };

static void setup(void)
{
	seen[0] = '\0';
}

START_TEST(requests_are_what_etcd_wants)
{
	struct buf b = BUF_INIT;

	etcd_put_range(&b, "/svc/");
	ck_assert_str_eq(buf_cstr(&b), "{\"key\":\"L3N2Yy8=\",\"range_end\":\"L3N2YzA=\"}"); /* /svc/ to /svc0 */
	buf_clear(&b);
	etcd_put_watch(&b, "a", 13);
	ck_assert_str_eq(buf_cstr(&b), "{\"create_request\":{\"key\":\"YQ==\",\"range_end\":\"Yg==\","
				       "\"start_revision\":\"13\",\"progress_notify\":true}}");
	buf_clear(&b);
	etcd_put_guarded(&b, "a", "v", 1, 7587848330145239559, 0);
	ck_assert_str_eq(
		buf_cstr(&b),
		"{\"compare\":[{\"key\":\"YQ==\",\"target\":\"CREATE\",\"result\":\"EQUAL\",\"create_revision\":\"0\"}],"
		"\"success\":[{\"request_put\":{\"key\":\"YQ==\",\"value\":\"dg==\",\"lease\":\"7587848330145239559\"}}],"
		"\"failure\":[{\"request_range\":{\"key\":\"YQ==\"}}]}");
	buf_release(&b);
}
END_TEST

START_TEST(a_reading_gives_keys_and_the_revision)
{
	static const char text[] =
		"{\"header\":{\"cluster_id\":\"14841639068965178418\",\"revision\":\"12\"},\"kvs\":[{\"key\":\"YQ==\","
		"\"create_revision\":\"2\",\"mod_revision\":\"9\",\"version\":\"1\",\"value\":\"djE=\"},{\"key\":\"Yg==\","
		"\"mod_revision\":\"11\"}],\"count\":\"2\"}";
	static const char empty[] = "{\"header\":{\"revision\":\"3\"}}";
	struct etcd_header h;

	ck_assert_int_eq(etcd_get_range(text, sizeof text - 1, &reader, &h), 0);
	ck_assert_str_eq(seen, "[a=v1@9][b=@11]");
	ck_assert_uint_eq(h.revision, 12);
	ck_assert_uint_eq(h.cluster, 14841639068965178418u);
	ck_assert_int_eq(etcd_get_range(empty, sizeof empty - 1, &reader, &h), 0);
	ck_assert_uint_eq(h.revision, 3);
}
END_TEST

START_TEST(a_watch_tells_puts_and_deletions_cancels_and_errors)
{
	static const char created
		[] = "{\"result\":{\"header\":{\"revision\":\"5\"},\"created\":true}}\n",
	 events[] =
		 "{\"result\":{\"header\":{\"revision\":\"6\"},\"events\":[{\"kv\":{\"key\":\"YQ==\",\"mod_revision\":\"6\","
		 "\"value\":\"djI=\"}},{\"type\":\"DELETE\",\"kv\":{\"key\":\"Yg==\",\"mod_revision\":\"6\"}}]}}\n",
	 gone[] = "{\"result\":{\"header\":{\"revision\":\"9\"},\"canceled\":true,\"compact_revision\":\"8\"}}\n",
	 error[] = "{\"error\":{\"grpc_code\":14,\"message\":\"transport is closing\"}}";
	struct etcd_news n;

	ck_assert_int_eq(etcd_get_news(created, sizeof created - 1, &reader, &n), 0);
	ck_assert(n.created && !n.canceled);
	ck_assert_int_eq(etcd_get_news(events, sizeof events - 1, &reader, &n), 0);
	ck_assert_str_eq(seen, "[a=v2@6][-b=@6]");
	ck_assert_uint_eq(n.header.revision, 6);
	ck_assert_int_eq(etcd_get_news(gone, sizeof gone - 1, &reader, &n), 0);
	ck_assert(n.canceled);
	ck_assert_int_eq(etcd_get_news(error, sizeof error - 1, &reader, &n), 0);
	ck_assert(n.canceled);
}
END_TEST

START_TEST(a_lease_that_is_dead_has_no_time_left)
{
	static const char granted[] = "{\"header\":{},\"ID\":\"7587848330145239559\",\"TTL\":\"5\"}",
			  dead[] = "{\"result\":{\"header\":{},\"ID\":\"7587848330145239559\"}}\n";
	int64_t lease, ttl;

	ck_assert_int_eq(etcd_get_lease(granted, sizeof granted - 1, &lease, &ttl), 0);
	ck_assert_int_eq(lease, 7587848330145239559);
	ck_assert_int_eq(ttl, 5);
	ck_assert_int_eq(etcd_get_lease(dead, sizeof dead - 1, &lease, &ttl), 0);
	ck_assert_int_eq(ttl, 0);
}
END_TEST

START_TEST(a_login_is_quoted_and_answered_with_a_token)
{
	static const char good[] = "{\"header\":{},\"token\":\"sssvIpwfnLAcWAQH.9\"}", bad[] = "{\"token\":\"\"}";
	char token[32] = "before", small[8] = "before";
	struct buf b = BUF_INIT;

	etcd_put_login(&b, "loquat", "a \"b\"");
	ck_assert_str_eq(buf_cstr(&b), "{\"name\":\"loquat\",\"password\":\"a \\\"b\\\"\"}");
	buf_release(&b);
	ck_assert_int_eq(etcd_get_token(good, sizeof good - 1, small, sizeof small), ERR_CORRUPT);
	ck_assert_int_eq(etcd_get_token(bad, sizeof bad - 1, small, sizeof small), ERR_CORRUPT);
	ck_assert_str_eq(small, "before");
	ck_assert_int_eq(etcd_get_token(good, sizeof good - 1, token, sizeof token), 0);
	ck_assert_str_eq(token, "sssvIpwfnLAcWAQH.9");
}
END_TEST

/* ---- where it is: discovery.* --------------------------------------------------------------------------------------- */

static int configured(const char *discovery, char error[512], struct etcd_config *out)
{
	struct env *env = env_new();
	struct config *c = NULL;
	char *dir = folder_new(), file[600], text[800];
	int n = snprintf(text, sizeof text,
			 "return { instances = { { id = 'a-1', service = 'a', rpc = 1 } }, discovery = { %s } }",
			 discovery);

	folder_write(dir, "cluster.lua", text, (size_t)n);
	snprintf(file, sizeof file, "%s/cluster.lua", dir);
	int err = service_config_load(env, file, NULL, NULL, error, 512, &c);

	if (err == 0)
		err = etcd_config_read(c, out, error, 512);
	config_free(c);
	folder_free(dir);
	env_free(env);
	return err;
}

START_TEST(endpoints_are_plain_or_https)
{
	char error[512] = "";
	struct etcd_config e;

	ck_assert_msg(configured("kind = 'etcd', endpoints = { '10.0.0.1:1', 'http://[::1]:2/' }", error, &e) == 0,
		      "%s", error);
	ck_assert_uint_eq(e.hosts, 2);
	ck_assert_str_eq(e.host[1].host, "::1");
	ck_assert_uint_eq(e.host[1].port, 2);
	ck_assert(!e.host[0].tls && !e.host[1].tls);
	ck_assert_msg(configured("kind = 'etcd', endpoints = { 'https://10.0.0.3:3', 'https://[::1]:2' }, "
				 "tls = { ca = 'ca.pem' }",
				 error, &e) == 0,
		      "%s", error);
	ck_assert(e.host[0].tls && e.host[1].tls);
}
END_TEST

START_TEST(a_password_is_exposed_without_tls_over_a_network)
{
	static const struct {
		struct etcd_config config;
		const char *host;
	} cases[] = {
		{ { .host = { { "127.0.0.2", 1, false }, { "10.0.0.1", 1, false } }, .hosts = 2, .password = "p" },
		  "10.0.0.1" },
		{ { .host = { { "::1", 1, false }, { "fe80::1", 1, false } }, .hosts = 2, .password = "p" },
		  "fe80::1" },
		{ { .host = { { "127.0.0.1", 1, false }, { "::1", 1, false } }, .hosts = 2, .password = "p" }, NULL },
		{ { .host = { { "10.0.0.1", 1, true } }, .hosts = 1, .password = "p" }, NULL },
		{ { .host = { { "10.0.0.1", 1, false } }, .hosts = 1, .password = "" }, NULL },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct etcd_host *h = etcd_config_exposed(&cases[i].config);

		ck_assert_msg(!h == !cases[i].host, "case %zu", i);
		if (h)
			ck_assert_str_eq(h->host, cases[i].host);
	}
}
END_TEST

START_TEST(a_login_or_tls_that_lacks_its_other_half_is_refused_by_name)
{
	static const struct {
		const char *discovery, *names;
	} wrong[] = {
		{ "endpoints = { 'https://10.0.0.1:1' }", "discovery.tls.ca: expected a file" },
		{ "endpoints = { 'http://10.0.0.1:1' }, tls = { ca = 'ca.pem' }",
		  "discovery.endpoints: expected https" },
		{ "endpoints = { 'https://10.0.0.1:1' }, tls = { ca = 'ca.pem', cert = 'a.pem' }",
		  "discovery.tls.key" },
		{ "endpoints = { 'https://10.0.0.1:1' }, tls = { ca = 'ca.pem', key = 'a.key' }",
		  "discovery.tls.cert" },
		{ "endpoints = { 'https://10.0.0.1:1', 'http://10.0.0.2:1' }, tls = { ca = 'ca.pem' }",
		  "discovery.endpoints: expected https in all of them, or in none" },
		{ "endpoints = { '10.0.0.1:1', 'https://10.0.0.2:1' }, tls = { ca = 'ca.pem' }",
		  "discovery.endpoints: expected https in all of them, or in none" },
		{ "endpoints = { '10.0.0.1:1' }, user = 'u'", "discovery.password" },
		{ "endpoints = { '10.0.0.1:1' }, password = 'p'", "discovery.user" },
		{ "endpoints = { 'https://etcd.example:1' }", "discovery.endpoints[1]: expected an address" },
		{ "endpoints = { 'ftp://10.0.0.1:1' }", "discovery.endpoints[1]: expected an address" },
	};
	struct etcd_config e;

	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		char error[512] = "", discovery[300];

		snprintf(discovery, sizeof discovery, "kind = 'etcd', %s", wrong[i].discovery);
		ck_assert_int_eq(configured(discovery, error, &e), ERR_CONFIG);
		ck_assert_msg(strstr(error, wrong[i].names) != NULL, "%s: %s", wrong[i].discovery, error);
	}
}
END_TEST

START_TEST(what_is_no_answer_is_refused)
{
	static const char *const texts[] = { "",
					     "[]",
					     "nonsense",
					     "{\"kvs\":[{\"key\":\"?\"}],\"header\":{\"revision\":\"1\"}}",
					     "{\"header\":{\"revision\":\"1\"},\"kvs\":[7]}",
					     "{\"result\":7}",
					     "{" };
	struct etcd_header h;
	struct etcd_news n;
	int64_t lease, ttl;
	bool written;

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		size_t len = strlen(texts[i]);

		ck_assert_int_eq(etcd_get_range(texts[i], len, &reader, &h), ERR_CORRUPT);
		ck_assert_int_eq(etcd_get_guarded(texts[i], len, &reader, &written, &h), ERR_CORRUPT);
		ck_assert_int_eq(etcd_get_lease(texts[i], len, &lease, &ttl), ERR_CORRUPT);
		if (i != 5)
			ck_assert_int_eq(etcd_get_news(texts[i], len, &reader, &n), ERR_CORRUPT);
	}
}
END_TEST

/* ---- rows ----------------------------------------------------------------------------------------------------- */

#define ROW(id, port, state)                                                                       \
	"{\"id\":\"" id "\",\"service\":\"role\",\"host\":\"10.0.0.1\",\"client\":0,\"rpc\":" port \
	",\"http\":0,\"workers\":2,\"epoch\":5,\"state\":\"" state "\"}"

static int set(struct route_rows *r, const char *id, const char *text, char error[256])
{
	return route_rows_set(r, id, text, strlen(text), error, 256);
}

static size_t rows_of(struct route_rows *r)
{
	struct route_table *t = route_rows_table(r, 1);
	size_t n = t->rows;

	route_unref(t);
	return n;
}

START_TEST(a_row_that_does_not_check_is_refused_and_the_old_one_stays)
{
	struct route_rows *r = route_rows_new();
	char error[256];
	static const char *const bad[] = {
		"",
		"7",
		"{}",
		ROW("role-2", "4200", "ready"),
		ROW("role-1", "0", "ready"),
		ROW("role-1", "99999", "ready"),
		ROW("role-1", "\"4200\"", "ready"),
		ROW("role-1", "4200", "dancing"),
		ROW("chat-1", "4200", "ready"),
	};

	ck_assert_int_eq(set(r, "role-1", ROW("role-1", "4200", "ready"), error), 1);
	ck_assert_int_eq(set(r, "role-1", ROW("role-1", "4200", "ready"), error), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		ck_assert_msg(set(r, "role-1", bad[i], error) == ERR_CONFIG, "taken: %s", bad[i]);
		ck_assert_msg(strstr(error, "role-1"), "not named: %s", error);
	}
	ck_assert_int_eq(set(r, "role-2", ROW("role-2", "4200", "ready"), error), ERR_CONFIG);
	ck_assert_msg(strstr(error, "role-1 has a port"), "%s", error);
	struct route_table *t = route_rows_table(r, 9);

	ck_assert_uint_eq(t->version, 9);
	ck_assert_uint_eq(t->rows, 1);
	ck_assert_uint_eq(t->row[0].rpc_port, 4200);
	ck_assert_uint_eq(t->row[0].workers, 2);
	route_unref(t);
	route_rows_free(r);
}
END_TEST

START_TEST(a_row_that_vanishes_is_missing_one_that_was_draining_is_gone)
{
	struct route_rows *r = route_rows_new();
	char error[256];

	set(r, "role-1", ROW("role-1", "4200", "ready"), error);
	set(r, "role-2", ROW("role-2", "4201", "draining"), error);
	ck_assert_int_eq(route_rows_unset(r, "role-2", 100), 1);
	ck_assert_int_eq(route_rows_unset(r, "role-1", 100), 0);
	ck_assert_uint_eq(rows_of(r), 1);
	ck_assert_uint_eq(route_rows_missing(r), 1);
	ck_assert_ptr_null(route_rows_overdue(r, 599, 500));
	ck_assert_str_eq(route_rows_overdue(r, 600, 500)->id, "role-1");
	route_rows_keep(r, "role-1", 600);
	ck_assert_ptr_null(route_rows_overdue(r, 601, 500));
	ck_assert_int_eq(set(r, "role-1", ROW("role-1", "4200", "ready"), error), 0); /* it is back */
	ck_assert(!route_rows_drop_missing(r, "role-1"));
	route_rows_unset(r, "role-1", 700);
	ck_assert(route_rows_drop_missing(r, "role-1"));
	ck_assert_uint_eq(rows_of(r), 0);
	route_rows_free(r);
}
END_TEST

START_TEST(a_missing_row_gives_way_to_who_has_its_address)
{
	struct route_rows *r = route_rows_new();
	char error[256];

	set(r, "role-1", ROW("role-1", "4200", "ready"), error);
	route_rows_begin(r);
	ck_assert_int_eq(route_rows_end(r, 100), 0);
	ck_assert_uint_eq(route_rows_missing(r), 1);
	ck_assert_int_eq(set(r, "role-2", ROW("role-2", "4200", "ready"), error), 1);
	ck_assert_uint_eq(rows_of(r), 1);
	route_rows_free(r);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("etcd");

	tcase_add_checked_fixture(c, setup, NULL);
	tcase_add_test(c, requests_are_what_etcd_wants);
	tcase_add_test(c, a_reading_gives_keys_and_the_revision);
	tcase_add_test(c, a_watch_tells_puts_and_deletions_cancels_and_errors);
	tcase_add_test(c, a_lease_that_is_dead_has_no_time_left);
	tcase_add_test(c, a_login_is_quoted_and_answered_with_a_token);
	tcase_add_test(c, endpoints_are_plain_or_https);
	tcase_add_test(c, a_password_is_exposed_without_tls_over_a_network);
	tcase_add_test(c, a_login_or_tls_that_lacks_its_other_half_is_refused_by_name);
	tcase_add_test(c, what_is_no_answer_is_refused);
	tcase_add_test(c, a_row_that_does_not_check_is_refused_and_the_old_one_stays);
	tcase_add_test(c, a_row_that_vanishes_is_missing_one_that_was_draining_is_gone);
	tcase_add_test(c, a_missing_row_gives_way_to_who_has_its_address);
	return suite_run("etcd", c);
}
