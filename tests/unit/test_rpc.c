/* The promises of rpc/rpc.h: calls between real instances, with 1 and with 3 workers. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "rpc/peer.h"
#include "rpc/server.h"
#include "tests/support/calls.h"
#include "tests/support/suite.h"

static struct calls c;
static struct reply reply, second, third;

static void setup_one(void)
{
	calls_setup(&c, NULL);
}

static void setup_two(void)
{
	calls_setup(&c, &(struct calls_options){ .threads = 3, .two = true });
}

static void teardown(void)
{
	calls_teardown(&c);
}

/* ---- where calls go ------------------------------------------------------------------------------------------- */

START_TEST(a_call_reaches_the_instance_and_the_worker_that_own_its_key)
{
	calls_begin(&c, CALLS_2, &calls_box);
	calls_both(&c);
	for (int i = 0; i < 40; i++) {
		char key[16], expected[120];

		snprintf(key, sizeof(key), "key%d", i);
		struct worker *w = c.s[CALLER]->worker[0];
		const struct route_row *row = route_owner(w->routes, "calls", key, strlen(key));
		snprintf(expected, sizeof(expected), "{\"text\":\"%s/%u\"", row->id,
			 route_worker(row, key, strlen(key)));
		calls_ask(c.s[CALLER], "calls.boxRemote.put", key, "{}", &reply);
		ck_reply(&reply, 0, EFFECT_NONE);
		ck_assert_msg(!strncmp(reply.body, expected, strlen(expected)), "%s: %s", expected, reply.body);
	}
	ck_assert_uint_gt(calls_run(CALLS), 5);
	ck_assert_uint_gt(calls_run(CALLS_2), 5);
}
END_TEST

START_TEST(a_call_reaches_the_instance_and_the_worker_it_names)
{
	calls_begin(&c, CALLS_2, &calls_box);
	calls_both(&c);
	for (int i = 0; i < 3; i++) {
		char expected[60];
		struct rpc_call call = { .to = { .instance = "calls-2", .worker = i } };

		calls_call(c.s[CALLER], 0, "calls.boxRemote.get", call, &reply);
		reply_wait(&reply);
		snprintf(expected, sizeof(expected), "{\"text\":\"calls-2/%d\",\"number\":%d}", i, i + 1);
		ck_assert_str_eq(reply.body, expected);
	}
}
END_TEST

START_TEST(a_call_to_a_worker_or_an_instance_that_is_not_there_is_unavailable_at_once)
{
	calls_both(&c);
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = 7 }, .timeout_ms = 60000 };

	calls_call(c.s[CALLER], 0, "calls.boxRemote.get", call, &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_UNAVAILABLE, EFFECT_NONE);
	call.to.instance = "calls-9";
	calls_call(c.s[CALLER], 0, "calls.boxRemote.get", call, &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_UNAVAILABLE, EFFECT_NONE);
}
END_TEST

START_TEST(an_instance_calls_itself_like_any_other)
{
	calls_begin(&c, CALLS, &calls_box);
	calls_ask(c.s[CALLS], "calls.boxRemote.put", "k", "{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
}
END_TEST

/* ---- how they end ------------------------------------------------------------------------------------------------ */

START_TEST(an_error_comes_with_its_word_its_effect_and_its_message)
{
	calls_both(&c);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "deny", &reply);
	ck_reply(&reply, ERR_DENIED, EFFECT_NONE);
	ck_assert_str_eq(reply.message, "not you");
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "done", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_DONE);
}
END_TEST

START_TEST(a_method_that_the_service_does_not_have_is_not_found)
{
	calls_both(&c);
	calls_ask(c.s[CALLER], "calls.boxRemote.late", "k", "{}", &reply);
	ck_reply(&reply, ERR_NOT_FOUND, EFFECT_NONE);
}
END_TEST

static void register_late(struct worker *w, void *arg)
{
	const struct msg_method *get = schema_method(w->service->schema, "calls.boxRemote.get", 19);

	(void)arg;
	for (uint32_t i = 0; i < w->server->methods; i++)
		if (w->server->method[i].method == get)
			rpc_handle(w, schema_method(w->service->schema, "calls.boxRemote.late", 20),
				   w->server->method[i].fn, w->server->method[i].arg);
}

START_TEST(a_method_that_came_after_the_connection_is_called_by_its_name)
{
	calls_both(&c);
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", &reply);
	calls_on(c.s[CALLS], 0, register_late, NULL);
	calls_ask(c.s[CALLER], "calls.boxRemote.late", "k", "{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	ck_assert_str_eq(reply.body, "{\"text\":\"calls-1/0\",\"number\":2}");
}
END_TEST

START_TEST(a_service_that_the_option_callers_does_not_name_is_denied)
{
	calls_both(&c);
	calls_begin(&c, OTHER, &calls_other);
	calls_ask(c.s[CALLER], "calls.boxRemote.only", "k", "{}", &reply);
	ck_reply(&reply, ERR_DENIED, EFFECT_NONE);
	ck_assert_uint_eq(calls_run(CALLS), 0);
	calls_ask(c.s[OTHER], "calls.boxRemote.only", "k", "{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
}
END_TEST

START_TEST(a_handler_is_only_for_connectors_and_gates)
{
	calls_both(&c);
	calls_begin(&c, CONNECTOR, &calls_connector);
	calls_ask(c.s[CALLER], "calls.boxHandler.say", "k", "{}", &reply);
	ck_reply(&reply, ERR_DENIED, EFFECT_NONE);
	calls_ask(c.s[CONNECTOR], "calls.boxHandler.say", "k", "{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
}
END_TEST

START_TEST(a_plain_call_without_an_answer_in_time_ends_with_timeout_and_an_unknown_effect)
{
	calls_meet(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(100, "hold"), &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_TIMEOUT, EFFECT_UNKNOWN);
	calls_release(&c, CALLS); /* the late answer finds nobody */
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
}
END_TEST

START_TEST(a_read_without_an_answer_in_time_ends_with_timeout_and_no_effect)
{
	calls_meet(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.get", calls_within(100, "hold"), &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_TIMEOUT, EFFECT_NONE);
}
END_TEST

START_TEST(a_once_call_without_an_answer_in_time_ends_with_unknown)
{
	calls_meet(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.once", calls_within(100, "hold"), &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_UNKNOWN, EFFECT_UNKNOWN);
}
END_TEST

START_TEST(a_call_that_could_not_be_sent_in_time_is_unavailable_and_had_no_effect)
{
	calls_begin(&c, CALLER, &calls_caller);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(100, "{}"), &reply);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.once", calls_within(100, "{}"), &second);
	reply_wait(&reply);
	reply_wait(&second);
	ck_reply(&reply, ERR_UNAVAILABLE, EFFECT_NONE);
	ck_reply(&second, ERR_UNAVAILABLE, EFFECT_NONE);
}
END_TEST

START_TEST(a_call_waits_for_an_instance_that_is_still_starting)
{
	calls_begin(&c, CALLER, &calls_caller);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_by_key("k", "{}"), &reply);
	calls_notify(c.s[CALLER], 0, "calls.boxRemote.put", calls_by_key("k", "{}"));
	calls_begin(&c, CALLS, &calls_box);
	reply_wait(&reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	until(calls_run(CALLS) == 2); /* the notification too */
	until(calls_figure(c.s[CALLER], "loquat_rpc_calls_in_flight") == 0);
}
END_TEST

START_TEST(a_cancelled_call_is_never_told_of_its_end)
{
	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &reply);
	until(calls_held(CALLS) == 1);
	ck_assert(calls_cancel(c.s[CALLER], 0, reply.handle));
	ck_assert(!calls_cancel(c.s[CALLER], 0, reply.handle));
	calls_release(&c, CALLS);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &second);
	ck_assert_uint_eq(flag_count(&reply.done), 0);
}
END_TEST

START_TEST(a_handle_of_zero_cancels_nothing)
{
	calls_both(&c);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	ck_assert(!calls_cancel(c.s[CALLER], 0, 0));
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "{}"), &reply);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "{}"), &second);
	reply_wait(&reply);
	reply_wait(&second);
}
END_TEST

START_TEST(a_notification_runs_and_leaves_nothing_behind)
{
	calls_both(&c);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "{}", &reply);
	for (int i = 0; i < 10; i++)
		calls_notify(c.s[CALLER], 0, "calls.boxRemote.once", calls_by_key("k", "{}"));
	until(calls_run(CALLS) == 11);
	until(calls_figure(c.s[CALLER], "loquat_rpc_calls_in_flight") == 0);
	until(c.s[CALLS]->worker[0]->server->in_flight == 0);
}
END_TEST

/* ---- bounds -------------------------------------------------------------------------------------------------------------- */

struct many {
	unsigned asked, ended, busy;
	_Atomic unsigned told;
	unsigned again;
	struct worker *w;
	struct rpc_call call;
};
static struct many many;

static void many_ended(void *arg, const struct rpc_answer *a)
{
	struct many *m = arg;

	m->ended++;
	m->busy += a->err == ERR_BUSY && a->effect == EFFECT_NONE;
	atomic_store(&m->told, m->ended);
}

static void many_calls(struct worker *w, void *arg)
{
	struct many *m = arg;
	struct rpc_call call = calls_within(1000, "{}");

	call.method = schema_method(w->service->schema, "calls.boxRemote.put", 19);
	call.on_answer = many_ended;
	call.arg = m;
	for (unsigned i = 0; i < m->asked; i++)
		ck_assert_uint_ne(rpc_call(w, &call), 0);
}

START_TEST(what_does_not_fit_among_the_calls_under_way_is_busy_and_had_no_effect)
{
	calls_begin(&c, CALLER, &calls_caller);
	many = (struct many){ .asked = PEER_PENDING_MAX + 5 };
	calls_on(c.s[CALLER], 0, many_calls, &many);
	until(many.told == many.asked);
	ck_assert_uint_ge(many.busy, 5);
	ck_assert_uint_lt(many.busy, PEER_PENDING_MAX / 2);
	until(calls_figure(c.s[CALLER], "loquat_rpc_calls_in_flight") == 0);
}
END_TEST

START_TEST(bytes_that_wait_for_a_link_are_bounded)
{
	calls_begin(&c, CALLER, &calls_caller);
	static char big[3 << 20];
	struct rpc_call call = calls_within(60000, "");

	call.body = span_of(big, sizeof(big));
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &second);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &third);
	reply_wait(&third);
	ck_reply(&third, ERR_BUSY, EFFECT_NONE);
	ck_assert(calls_cancel(c.s[CALLER], 0, reply.handle));
	ck_assert(calls_cancel(c.s[CALLER], 0, second.handle));
	call.timeout_ms = 100;
	for (int i = 0; i < 3; i++) { /* there is room again, also after those that nobody cancels */
		calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &third);
		reply_wait(&third);
		ck_reply(&third, ERR_UNAVAILABLE, EFFECT_NONE);
	}
}
END_TEST

START_TEST(a_request_too_large_for_a_frame_is_a_bad_request_and_breaks_nothing)
{
	calls_both(&c);
	static char big[FRAME_PAYLOAD_MAX];
	struct rpc_call call = calls_within(10000, "");

	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &second);
	until(calls_held(CALLS) == 1);
	call.body = span_of(big, sizeof(big));
	calls_call(c.s[CALLER], 0, "calls.boxRemote.get", call, &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_BAD_REQUEST, EFFECT_NONE);
	calls_release(&c, CALLS);
	reply_wait(&second);
	ck_reply(&second, 0, EFFECT_NONE);
}
END_TEST

START_TEST(an_answer_too_large_for_a_frame_fails_and_breaks_nothing)
{
	calls_both(&c);
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", calls_within(10000, "hold"), &second);
	until(calls_held(CALLS) == 1);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", "huge", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_DONE);
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "huge", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	calls_release(&c, CALLS);
	reply_wait(&second);
	ck_reply(&second, 0, EFFECT_NONE);
}
END_TEST

static void again_ended(void *arg, const struct rpc_answer *a)
{
	struct many *m = arg;

	(void)a;
	atomic_fetch_add(&m->told, 1);
	if (!m->again)
		rpc_call(m->w, &m->call);
}

static void again_start(struct worker *w, void *arg)
{
	struct many *m = arg;

	m->w = w;
	m->call = (struct rpc_call){ .method = schema_method(w->service->schema, "calls.boxRemote.put", 19),
				     .to = { .instance = "calls-9", .worker = -1 },
				     .on_answer = again_ended,
				     .arg = m };
	rpc_call(w, &m->call);
}

static void again_end(struct worker *w, void *arg)
{
	(void)w;
	((struct many *)arg)->again = 1;
}

START_TEST(who_asks_again_at_once_when_refused_does_not_hold_up_the_worker)
{
	calls_begin(&c, CALLER, &calls_caller);
	many = (struct many){ .again = 0 };
	calls_on(c.s[CALLER], 0, again_start, &many);
	until(many.told > 10);
	calls_on(c.s[CALLER], 0, again_end, &many); /* the worker still listens */
}
END_TEST

int main(void)
{
	TCase *one = tcase_create("one worker"), *two = tcase_create("two instances");

	tcase_add_checked_fixture(one, setup_one, teardown);
	tcase_set_timeout(one, 60);
	tcase_add_checked_fixture(two, setup_two, teardown);
	tcase_set_timeout(two, 60);
	tcase_add_test(two, a_call_reaches_the_instance_and_the_worker_that_own_its_key);
	tcase_add_test(two, a_call_reaches_the_instance_and_the_worker_it_names);
	tcase_add_test(one, a_call_to_a_worker_or_an_instance_that_is_not_there_is_unavailable_at_once);
	tcase_add_test(one, an_instance_calls_itself_like_any_other);
	tcase_add_test(one, an_error_comes_with_its_word_its_effect_and_its_message);
	tcase_add_test(one, a_method_that_the_service_does_not_have_is_not_found);
	tcase_add_test(one, a_method_that_came_after_the_connection_is_called_by_its_name);
	tcase_add_test(one, a_service_that_the_option_callers_does_not_name_is_denied);
	tcase_add_test(one, a_handler_is_only_for_connectors_and_gates);
	tcase_add_test(one, a_plain_call_without_an_answer_in_time_ends_with_timeout_and_an_unknown_effect);
	tcase_add_test(one, a_read_without_an_answer_in_time_ends_with_timeout_and_no_effect);
	tcase_add_test(one, a_once_call_without_an_answer_in_time_ends_with_unknown);
	tcase_add_test(one, a_call_that_could_not_be_sent_in_time_is_unavailable_and_had_no_effect);
	tcase_add_test(one, a_call_waits_for_an_instance_that_is_still_starting);
	tcase_add_test(one, a_cancelled_call_is_never_told_of_its_end);
	tcase_add_test(one, a_handle_of_zero_cancels_nothing);
	tcase_add_test(one, a_notification_runs_and_leaves_nothing_behind);
	tcase_add_test(one, what_does_not_fit_among_the_calls_under_way_is_busy_and_had_no_effect);
	tcase_add_test(one, bytes_that_wait_for_a_link_are_bounded);
	tcase_add_test(one, a_request_too_large_for_a_frame_is_a_bad_request_and_breaks_nothing);
	tcase_add_test(one, an_answer_too_large_for_a_frame_fails_and_breaks_nothing);
	tcase_add_test(one, who_asks_again_at_once_when_refused_does_not_hold_up_the_worker);
	return suite_run("rpc", one, two);
}
