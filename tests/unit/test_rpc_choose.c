/* Calls that go anywhere: which instance they are given to, and who is avoided. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "tests/support/calls.h"
#include "tests/support/suite.h"

static struct calls c;
static struct reply reply, second[3];

static void setup(void)
{
	calls_setup(&c, &(struct calls_options){ .two = true });
}

static void teardown(void)
{
	calls_teardown(&c);
}

/* The caller's links to both stand: neither is passed over because it has still to be made. */
static void all_meet(void)
{
	static const char *const names[] = { "calls-1", "calls-2" };

	calls_begin(&c, CALLS_2, &calls_box);
	calls_both(&c);
	for (int i = 0; i < 2; i++) {
		struct rpc_call call = { .to = { .instance = names[i], .worker = 0 }, .body = span_of("{}", 2) };

		calls_call(c.s[CALLER], 0, "calls.boxRemote.get", call, &reply);
		reply_wait(&reply);
		ck_assert_int_eq(reply.err, 0);
	}
}

static void ask_anybody(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		calls_ask(c.s[CALLER], "calls.boxRemote.anybody", "", "{}", &reply);
		ck_reply(&reply, 0, EFFECT_NONE);
	}
}

START_TEST(a_call_without_a_key_goes_to_any_instance)
{
	all_meet();
	ask_anybody(60);
	ck_assert_uint_gt(calls_run(CALLS), 10);
	ck_assert_uint_gt(calls_run(CALLS_2), 10);
}
END_TEST

START_TEST(a_call_without_a_key_goes_where_fewer_are_under_way)
{
	struct rpc_call hold = { .to = { .instance = "calls-2", .worker = 0 },
				 .body = span_of("hold", 4),
				 .timeout_ms = 20000 };

	all_meet();
	for (int i = 0; i < 3; i++)
		calls_call(c.s[CALLER], 0, "calls.boxRemote.put", hold, &second[i]);
	until(calls_held(CALLS_2) == 3);
	ask_anybody(20);
	ck_assert_uint_eq(calls_run(CALLS_2), 1 + 3);
	calls_release(&c, CALLS_2);
}
END_TEST

START_TEST(a_call_without_a_key_avoids_an_instance_that_is_not_there)
{
	calls_both(&c);
	ask_anybody(20);
	ck_assert_uint_eq(calls_run(CALLS), 20);
}
END_TEST

START_TEST(a_call_without_a_key_that_may_be_repeated_is_taken_elsewhere_when_its_link_breaks)
{
	struct rpc_call call = { .to.worker = -1, .body = span_of("hold", 4), .timeout_ms = 10000 };

	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.anybody", call, &reply);
	until(calls_held(CALLS) == 1);
	calls_begin(&c, CALLS_2, &calls_box);
	calls_end(&c, CALLS);
	until(calls_held(CALLS_2) == 1);
	calls_release(&c, CALLS_2);
	reply_wait(&reply);
	ck_reply(&reply, 0, EFFECT_NONE);
}
END_TEST

START_TEST(a_once_call_goes_to_its_owner_not_anywhere)
{
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) }, .body = span_of("{}", 2) };

	calls_both(&c);
	call.to.anywhere = true;
	calls_call(c.s[CALLER], 0, "calls.boxRemote.once", call, &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_BAD_REQUEST, EFFECT_NONE);
}
END_TEST

START_TEST(an_instance_that_fails_is_avoided_until_a_probe_works)
{
	static struct reply failed[5];
	static struct http_reply http;
	struct rpc_call hold = { .to = { .instance = "calls-2", .worker = 0 },
				 .body = span_of("hold", 4),
				 .timeout_ms = 30 };

	all_meet();
	for (int i = 0; i < 5; i++) {
		calls_call(c.s[CALLER], 0, "calls.boxRemote.put", hold, &failed[i]);
		reply_wait(&failed[i]);
		ck_reply(&failed[i], ERR_TIMEOUT, EFFECT_UNKNOWN);
	}
	ck_assert_int_eq(calls_figure(c.s[CALLER], "loquat_rpc_avoided"), 1);
	calls_http(&c, CALLER, "GET", "/stats", false, "", &http);
	ck_assert_msg(strstr(http.body, "\"avoided\":1,") != NULL, "%s", http.body);
	calls_http(&c, CALLER, "GET", "/metrics", false, "",
		   &http); /* one label a name, or no collector reads any of it */
	ck_assert_msg(strstr(http.body,
			     "\nloquat_rpc_avoided{instance=\"caller-1\",service=\"caller\",peer=\"calls-2\"} 1\n") !=
			      NULL,
		      "%s", http.body);
	until((ask_anybody(1), calls_figure(c.s[CALLER], "loquat_rpc_avoided") == 0));
	ck_assert_uint_eq(calls_run(CALLS_2), 1 + 5 + 1); /* of all those calls the probe alone */
	calls_release(&c, CALLS_2);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("two instances");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_call_without_a_key_goes_to_any_instance);
	tcase_add_test(t, a_call_without_a_key_goes_where_fewer_are_under_way);
	tcase_add_test(t, a_call_without_a_key_avoids_an_instance_that_is_not_there);
	tcase_add_test(t, a_call_without_a_key_that_may_be_repeated_is_taken_elsewhere_when_its_link_breaks);
	tcase_add_test(t, a_once_call_goes_to_its_owner_not_anywhere);
	tcase_add_test(t, an_instance_that_fails_is_avoided_until_a_probe_works);
	return suite_run("rpc_choose", t);
}
