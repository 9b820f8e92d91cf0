/* What docs/lua.md promises to scripts, on real instances: players' requests, their order and their sessions. */
#include <check.h>
#include <string.h>
#include "rpc/app_private.h"
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

static void setup_small(void)
{
	setup_with(1, "sqllog = { linger_us = 0 }, lua = { memory_bytes_max = 4 << 20, budget_ms = 60000 },");
}

/* ---- sessions ----------------------------------------------------------------------------------------------------------------- */

START_TEST(a_handler_s_answer_has_its_code)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  return { text = session.uid .. session.sid .. session.connector .. (msg.text or '') }\n"
		       "end\n"
		       "function Handler.echo(session, msg) return msg end");
	ck_ask(5, "{\"text\":\"!\"}", "{\"code\":200,\"text\":\"ann5connector-1!\"}");
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("u", 1) },
				 .body = span_of("{\"a\":[],\"b\":null}", 17),
				 .sid = 5 };
	calls_call(c.s[CONNECTOR], 0, "calls.boxHandler.echo", call, &reply);
	reply_wait(&reply);
	ck_says(&reply, "{\"a\":[],\"b\":null}");
}
END_TEST

START_TEST(requests_of_one_session_run_one_at_a_time_and_others_do_not_wait)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  table.insert(state.t.list, msg.text)\n"
		       "  if msg.flag then app.wait(state.t.queue) end\n"
		       "  if msg.text == 'wake' then app.wake(state.t.queue) end\n"
		       "  table.insert(state.t.list, msg.text)\n"
		       "  return { words = state.t.list }\n"
		       "end");
	say(1, "{\"text\":\"a\",\"flag\":true}", 0, &reply);
	say(1, "{\"text\":\"b\"}", 0, &second);
	ck_ask(2, "{\"text\":\"wake\"}", "{\"code\":200,\"words\":[\"a\",\"wake\",\"wake\"]}");
	reply_wait(&second);
	ck_says(&second, "{\"code\":200,\"words\":[\"a\",\"wake\",\"wake\",\"a\",\"b\",\"b\"]}");
	reply_wait(&reply);
}
END_TEST

START_TEST(too_many_requests_of_one_session_are_busy)
{
	static struct reply all[70];
	unsigned busy = 0;

	begin_sessions(
		"function Handler.say(session, msg)\n"
		"  if msg.text == 'wake' then app.wake(state.t.queue) elseif not state.t.open then app.wait(state.t.queue) end\n"
		"  state.t.open = true\n"
		"  return {}\n"
		"end");
	for (int i = 0; i < 70; i++)
		say(1, "{}", 0, &all[i]);
	say(2, "{\"text\":\"wake\"}", 0, &reply);
	for (int i = 0; i < 70; i++) {
		reply_wait(&all[i]);
		busy += all[i].err == ERR_BUSY && all[i].effect == EFFECT_NONE;
	}
	ck_assert_uint_eq(busy, 5);
}
END_TEST

START_TEST(a_request_whose_time_was_over_while_it_waited_does_not_run)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  if msg.flag then app.wait(state.t.queue) end\n"
		       "  if msg.text == 'wake' then clock.sleep(660) app.wake(state.t.queue) end\n"
		       "  table.insert(state.t.list, msg.text or '?')\n"
		       "  return { words = state.t.list }\n"
		       "end");
	ask(3, "{\"text\":\"hello\"}", &second); /* the link stands: what follows is sent in time */
	say(1, "{\"text\":\"first\",\"flag\":true}", 0, &reply);
	say(1, "{\"text\":\"late\"}", 600, &second);
	reply_wait(&second);
	ck_assert_int_eq(second.err, ERR_TIMEOUT); /* the caller cannot know, or who was called has told it in time */
	ck_assert_int_ne(second.effect, EFFECT_DONE);
	ask(2, "{\"text\":\"wake\"}", &third); /* it comes after the late one, and rests for longer than that has */
	reply_wait(&reply);
	ck_ask(1, "{\"text\":\"after\"}", "{\"code\":200,\"words\":[\"hello\",\"wake\",\"first\",\"after\"]}");
}
END_TEST

START_TEST(an_attribute_leaves_with_the_answer_of_the_session_s_own_request)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  session:set('scene', '1') session:set('scene', '2') session:set('room', 'r')\n"
		       "  if msg.flag then return nil, 'denied' end\n"
		       "  return { text = session.scene }\n"
		       "end");
	ask(1, "{}", &reply);
	ck_says(&reply, "{\"code\":200,\"text\":\"2\"}");
	ck_assert_uint_eq(reply.attrs, 2);
	ask(1, "{\"flag\":true}", &reply);
	ck_assert_uint_eq(reply.attrs, 0);
	ck_assert(!told("attr"));
}
END_TEST

START_TEST(an_attribute_of_another_session_goes_to_that_session)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  if not state.t.first then state.t.first = session return {} end\n"
		       "  state.t.first:set('scene', 'other')\n"
		       "  return {}\n"
		       "end");
	ask(1, "{}", &reply);
	ask(2, "{}", &reply);
	ck_assert_uint_eq(reply.attrs, 0);
	until(told("attr \x09\x01"));
	ck_assert(told("scene"));
	ck_assert(told("other"));
}
END_TEST

START_TEST(what_a_session_is_known_by_cannot_be_set)
{
	begin_sessions(
		"function Handler.say(session, msg)\n"
		"  return { words = { tostring(pcall(session.set, session, 'uid', 'x')),\n"
		"    tostring(pcall(session.set, session, ('n'):rep(32), 'x')),\n"
		"    tostring(pcall(session.set, session, 'n', ('x'):rep(81))), tostring(pcall(session.set)), session.uid } }\n"
		"end");
	ck_ask(1, "{}", "{\"code\":200,\"words\":[\"false\",\"false\",\"false\",\"false\",\"ann\"]}");
}
END_TEST

START_TEST(a_push_of_a_route_that_has_a_type_is_checked)
{
	begin_sessions("function Handler.say(session)\n"
		       "  local function why(...) return ((select(2, pcall(...))):gsub('^/.-: ', '', 1)) end\n"
		       "  session:push('onTyped', { text = 'right' })\n"
		       "  return { words = { why(session.push, session, 'onTyped', { txet = 'a' }),\n"
		       "    why(app.push, { session }, 'onTypedToo', { number = 'five' }),\n"
		       "    why(app.room('r').push, app.room('r'), 'onTyped', { words = 'one' }),\n"
		       "    tostring(pcall(session.push, session, 'onType', { txet = 'a' })),\n"
		       "    why(app.push, { uid = 'ann' }, 'onAny', {}) } }\n"
		       "end");
	ask(1, "{}", &reply);
	ck_says(&reply, "{\"code\":200,\"words\":[\"push onTyped: txet: calls.News has no such field\","
			"\"push onTypedToo: number: expected an integer, found \\\"five\\\"\","
			"\"push onTyped: words: expected a table, found \\\"one\\\"\",\"true\","
			"\"push: a session (a table with sid and connector) or a list of them was expected\"]}");
	until(told("{\"text\":\"right\"}"));
}
END_TEST

START_TEST(a_push_goes_to_one_session_or_to_many_in_one_frame)
{
	begin_sessions(
		"function Handler.say(session, msg)\n"
		"  session:push('onOne', { a = 1 })\n"
		"  app.push({ session, { sid = 2, connector = 'connector-1' }, { sid = 3, connector = 'gone-1' } },\n"
		"    'onMany', { b = 2 })\n"
		"  app.push({}, 'onNobody', {})\n"
		"  app.kick(session, 'enough')\n"
		"  return { words = { tostring(pcall(app.push, 5, 'r', {})), tostring(pcall(app.push, { {} }, 'r', {})),\n"
		"    tostring(pcall(app.push, session, 'r', app.push)) } }\n"
		"end");
	ck_ask(1, "{}", "{\"code\":200,\"words\":[\"false\",\"false\",\"false\"]}");
	until(told("kick"));
	ck_assert(told("\x12\x05onOne\x1a\x07{\"a\":1}"));
	ck_assert(told("\x12\x06onMany\x1a\x07{\"b\":2}"));
	ck_assert(told("push \x0a\x10\x01"));
	ck_assert(!told("onNobody"));
	ck_assert(told("enough"));
}
END_TEST

#ifndef __SANITIZE_THREAD__ /* it holds back the signal that stops a loop */
static const char holds_up[] = "function Handler.say(session, msg)\n"
			       "  if msg.text == 'wake' then app.wake(state.t.queue) return {} end\n"
			       "  if msg.text == 'later' then app.wait(state.t.queue) end\n"
			       "  while msg.text do end\n"
			       "  return {}\n"
			       "end";

START_TEST(a_session_whose_requests_are_stopped_again_and_again_rests)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  while msg.text == 'loop' do end\n"
		       "  return {}\n"
		       "end");
	ask(1, "{\"text\":\"loop\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	ask(1, "{}", &reply); /* once is forgiven, but watched: what it has from now on is a fifth */
	ck_says(&reply, "{\"code\":200}");
	ask(1, "{\"text\":\"loop\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	ck_assert_msg(strstr(reply.message, "budget of 8 ms"), "%s", reply.message);
	ask(1, "{}", &reply);
	ck_reply(&reply, ERR_BUSY, EFFECT_NONE);
	ck_assert_ptr_nonnull(strstr(reply.message, "rests"));
	ask_as("bob", 2, "{}", &reply);
	ck_says(&reply, "{\"code\":200}");
}
END_TEST

START_TEST(a_player_who_logs_in_anew_has_no_new_budget)
{
	begin_sessions(holds_up);
	ask(1, "{\"text\":\"loop\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	ask(2, "{\"text\":\"loop\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	ck_assert_msg(strstr(reply.message, "budget of 8 ms"), "%s", reply.message);
	ask(3, "{}", &reply);
	ck_reply(&reply, ERR_BUSY, EFFECT_NONE);
	ck_assert_ptr_nonnull(strstr(reply.message, "rests"));
	ask_as("bob", 4, "{}", &reply);
	ck_says(&reply, "{\"code\":200}");
}
END_TEST

START_TEST(a_connection_without_a_login_rests_alone)
{
	begin_sessions(holds_up);
	for (int i = 0; i < 2; i++) {
		ask_as("", 1, "{\"text\":\"loop\"}", &reply);
		ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	}
	ask_as("", 1, "{}", &reply);
	ck_reply(&reply, ERR_BUSY, EFFECT_NONE);
	ask_as("", 2, "{}", &reply);
	ck_says(&reply, "{\"code\":200}");
}
END_TEST

START_TEST(a_session_that_holds_up_the_others_within_its_budget_rests_too)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  local from = os.clock()\n"
		       "  while msg.text and os.clock() - from < 0.03 do end\n"
		       "  return {}\n"
		       "end");
	do /* the watch comes upon most of them, if the worker has a core; Check's limit bounds the wait */
		ask(1, "{\"text\":\"long\"}", &reply);
	while (reply.err != ERR_BUSY);
	ck_assert_ptr_nonnull(strstr(reply.message, "rests"));
	ask_as("bob", 2, "{}", &reply);
	ck_says(&reply, "{\"code\":200}");
}
END_TEST

START_TEST(a_request_that_waited_while_its_session_was_stopped_has_the_smaller_budget)
{
	begin_sessions(holds_up);
	say(1, "{\"text\":\"later\"}", 0, &reply);
	say(1, "{\"text\":\"loop\"}", 0, &second);
	ask_as("bob", 2, "{\"text\":\"wake\"}", &third);
	reply_wait(&reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	ck_assert_msg(strstr(reply.message, "budget of 40 ms"), "%s", reply.message);
	reply_wait(&second);
	ck_reply(&second, ERR_FAILED, EFFECT_NONE);
	ck_assert_msg(strstr(second.message, "budget of 8 ms"), "%s", second.message);
}
END_TEST

START_TEST(a_request_that_waits_while_its_session_begins_to_rest_does_not_run)
{
	begin_sessions(holds_up);
	ask(1, "{\"text\":\"loop\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	say(1, "{\"text\":\"later\"}", 0, &reply);
	say(1, "{}", 0, &second);
	ask_as("bob", 2, "{\"text\":\"wake\"}", &third);
	reply_wait(&reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	reply_wait(&second);
	ck_reply(&second, ERR_BUSY, EFFECT_NONE);
	ck_assert_ptr_nonnull(strstr(second.message, "rests"));
}
END_TEST
#endif

START_TEST(a_session_that_finds_the_memory_used_up_does_not_rest)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  local text = ('x'):rep(1 << 18)\n"
		       "  while msg.text do text = text .. text end\n"
		       "  return {}\n"
		       "end");
	for (int i = 0; i < 2; i++) {
		ask(1, "{\"text\":\"memory\"}", &reply);
		ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
		ck_assert_ptr_nonnull(strstr(reply.message, "memory"));
	}
	ck_ask(1, "{}", "{\"code\":200}");
}
END_TEST

static void count_sessions(struct worker *w, void *arg)
{
	*(size_t *)arg = w->app->sessions;
}

static size_t sessions(void)
{
	size_t n;

	calls_on(c.s[CALLS], 0, count_sessions, &n);
	return n;
}

START_TEST(a_session_without_a_uid_is_soon_forgotten)
{
	begin_sessions("function Handler.say() return {} end\nfunction Handler.echo(session, msg) return msg end");
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("u", 1) }, .body = span_of("{}", 2), .sid = 5 };

	calls_call(c.s[CONNECTOR], 0, "calls.boxHandler.echo", call, &reply);
	reply_wait(&reply);
	ck_ask(6, "{}", "{\"code\":200}");
	until(sessions() == 1); /* the one with a uid */
}
END_TEST

int main(void)
{
	TCase *one = scripted_case("one worker", setup_calls);
	TCase *brief = scripted_case("a budget of 40 ms", setup_short_budget);
	TCase *small = scripted_case("little memory", setup_small);

	tcase_add_test(one, a_session_without_a_uid_is_soon_forgotten);
	tcase_add_test(small, a_session_that_finds_the_memory_used_up_does_not_rest);
	tcase_add_test(one, a_handler_s_answer_has_its_code);
	tcase_add_test(one, requests_of_one_session_run_one_at_a_time_and_others_do_not_wait);
	tcase_add_test(one, too_many_requests_of_one_session_are_busy);
	tcase_add_test(one, a_request_whose_time_was_over_while_it_waited_does_not_run);
	tcase_add_test(one, an_attribute_leaves_with_the_answer_of_the_session_s_own_request);
	tcase_add_test(one, an_attribute_of_another_session_goes_to_that_session);
	tcase_add_test(one, what_a_session_is_known_by_cannot_be_set);
	tcase_add_test(one, a_push_of_a_route_that_has_a_type_is_checked);
	tcase_add_test(one, a_push_goes_to_one_session_or_to_many_in_one_frame);
#ifndef __SANITIZE_THREAD__ /* it holds back the signal that stops a loop */
	tcase_add_test(brief, a_session_whose_requests_are_stopped_again_and_again_rests);
	tcase_add_test(brief, a_player_who_logs_in_anew_has_no_new_budget);
	tcase_add_test(brief, a_connection_without_a_login_rests_alone);
	tcase_add_test(brief, a_session_that_holds_up_the_others_within_its_budget_rests_too);
	tcase_add_test(brief, a_request_that_waited_while_its_session_was_stopped_has_the_smaller_budget);
	tcase_add_test(brief, a_request_that_waits_while_its_session_begins_to_rest_does_not_run);
#endif
	return suite_run("app_session", one, small, brief);
}
