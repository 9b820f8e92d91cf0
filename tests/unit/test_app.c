/* What docs/lua.md promises to scripts, on real instances: remotes, and calls to others. */
#include <check.h>
#include <string.h>
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

static void setup_hasty(void)
{
	setup_with(1, "rpc = { drain_s = 0 }, sqllog = { linger_us = 0 },");
}

/* ---- remotes ----------------------------------------------------------------------------------------------------- */

START_TEST(a_remote_answers_with_its_value)
{
	begin("function Remote.put(args, call) return { text = args.text .. call.key .. call.from } end");
	ck_put("{\"text\":\"hello \"}", "{\"text\":\"hello kcaller-1\"}");
	put("{\"text\":1}", &reply);
	ck_reply(&reply, ERR_BAD_REQUEST, EFFECT_NONE);
	ck_assert_ptr_nonnull(strstr(reply.message, "text"));
	put("{\"unknown\":1}", &reply);
	ck_reply(&reply, ERR_BAD_REQUEST, EFFECT_NONE);
	ck_assert_ptr_nonnull(strstr(reply.message, "unknown"));
	put("{\"text\":", &reply);
	ck_reply(&reply, ERR_BAD_REQUEST, EFFECT_NONE);
}
END_TEST

/* What a function does not name is not made, whoever counts its arguments. */
START_TEST(a_remote_is_told_of_its_call_if_it_takes_that)
{
	begin("function Remote.put(...) return { text = select('#', ...) .. (select(2, ...)).key } end "
	      "function Remote.get(args) return { text = type(args) } end");
	ck_put("{}", "{\"text\":\"2k\"}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"table\"}");
}
END_TEST

START_TEST(a_method_without_a_function_is_not_found)
{
	begin("function Remote.put() return {} end");
	get(&reply);
	ck_reply(&reply, ERR_NOT_FOUND, EFFECT_NONE);
}
END_TEST

START_TEST(an_answer_that_is_not_of_its_type_fails)
{
	begin("function Remote.put() return { text = {} } end");
	put("{}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
}
END_TEST

START_TEST(what_raises_fails_and_nothing_else)
{
	begin("function Remote.put(args) if args.flag then error('broken') end return { text = 'fine' } end");
	put("{\"flag\":true}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	ck_assert_ptr_nonnull(strstr(reply.message, "boxRemote.lua:3"));
	ck_put("{}", "{\"text\":\"fine\"}");
}
END_TEST

START_TEST(a_refusal_is_one_of_the_eight_words_with_a_message)
{
	begin("function Remote.put(args) return nil, args.text, 'because' end");
	put("{\"text\":\"denied\"}", &reply);
	ck_reply(&reply, ERR_DENIED, EFFECT_NONE);
	ck_assert_str_eq(reply.message, "because");
	put("{\"text\":\"unknown\"}", &reply);
	ck_reply(&reply, ERR_UNKNOWN, EFFECT_UNKNOWN);
	put("{\"text\":\"nonsense\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
}
END_TEST

/* Each of these was taken for a call without it. */
START_TEST(a_call_with_an_option_that_does_not_exist_or_does_not_fit_raises)
{
	begin("local box = app.rpc.calls.boxRemote\n"
	      "local function why(...) return ((select(2, pcall(...))):gsub('^.-:%d+: ', '')) end\n"
	      "function Remote.get() return {} end\n"
	      "function Remote.put()\n"
	      "  return { words = { why(box.get, 'k', {}, { timeout = 5 }), why(box.put, 'k', {}, { once = 'order-1' }),\n"
	      "    why(box.once, 'k', {}, { once = 5 }), why(app.send.calls.boxRemote.put, 'k', {}, { onec = 'x' }),\n"
	      "    why(box.get, 'k', {}, { 5 }), why(box.get, nil, {}), why(box.get, {}) } }\n"
	      "end");
	put("{}", &reply);
	ck_says(&reply,
		"{\"words\":["
		"\"calls.boxRemote.get: there is no option timeout (timeout_ms, once, instance, worker, anywhere)\","
		"\"option once: calls.boxRemote.put is no once-method (option (loquat.kind) = ONCE in its .proto)\","
		"\"option once: expected text, found a number\","
		"\"calls.boxRemote.put: there is no option onec (timeout_ms, once, instance, worker, anywhere)\","
		"\"calls.boxRemote.get: options are named, as {timeout_ms = 500}\","
		"\"calls.boxRemote.get: the key: expected text, found nil (key, request, options)\","
		"\"calls.boxRemote.get: the key: expected text, found table (key, request, options)\"]}");
}
END_TEST

START_TEST(a_refusal_may_say_what_is_known_of_the_effect)
{
	begin("function Remote.put(args) return nil, 'failed', 'because', args.text end");
	put("{\"text\":\"done\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_DONE);
	put("{\"text\":\"unknown\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_UNKNOWN);
	put("{\"text\":\"nonsense\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
}
END_TEST

START_TEST(what_raises_after_it_called_others_leaves_an_unknown_effect)
{
	begin("function Remote.get() return {} end\n"
	      "function Remote.once() return {} end\n"
	      "function Remote.put(args)\n"
	      "  app.rpc.calls.boxRemote[args.text]('k', {})\n"
	      "  error('too late')\n"
	      "end");
	put("{\"text\":\"get\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	put("{\"text\":\"once\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_UNKNOWN);
}
END_TEST

#ifndef __SANITIZE_THREAD__
START_TEST(an_endless_loop_is_stopped_and_fails_alone)
{
	begin("function Remote.put() while true do end end\nfunction Remote.get() return { text = 'alive' } end");
	put("{}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	get(&reply);
	ck_says(&reply, "{\"text\":\"alive\"}");
}
END_TEST
#endif

/* ---- calls ---------------------------------------------------------------------------------------------------------- */

START_TEST(a_script_calls_other_services_and_itself)
{
	calls_file(&c, "boxRemote.lua",
		   "local R = {}\n"
		   "function R.get(args, call) return { text = call.from .. call.key .. (args.text or '') } end\n"
		   "function R.put(args)\n"
		   "  local value, err = app.rpc.calls.boxRemote.get('key', { text = args.text })\n"
		   "  return value or { text = err }\n"
		   "end\n"
		   "return R\n");
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CALLER, &calls_caller);
	ck_put("{\"text\":\"!\"}", "{\"text\":\"calls-1key!\"}");
}
END_TEST

START_TEST(an_answer_may_come_to_a_function_while_the_caller_goes_on)
{
	begin("local said, queue = 'nothing yet', {}\n"
	      "local function on_answer(value, err)\n"
	      "  said = value and value.text or err\n"
	      "  app.wake(queue)\n"
	      "end\n"
	      "function Remote.get(args) return { text = 'got ' .. args.text } end\n"
	      "function Remote.put(args)\n"
	      "  if not args.flag then\n"
	      "    app.task(function() on_answer(app.rpc.calls.boxRemote.get('k', { text = args.text })) end)\n"
	      "  elseif said == 'nothing yet' then\n"
	      "    app.wait(queue)\n"
	      "  end\n"
	      "  return { text = said }\n"
	      "end");
	ck_put("{\"text\":\"a\"}", "{\"text\":\"nothing yet\"}");
	ck_put("{\"flag\":true}", "{\"text\":\"got a\"}");
}
END_TEST

START_TEST(a_call_that_fails_gives_nil_the_word_the_message_and_the_effect)
{
	begin("function Remote.get() return nil, 'denied', 'no' end\n"
	      "function Remote.put()\n"
	      "  local v, err, why, effect = app.rpc.calls.boxRemote.get('k', {})\n"
	      "  local v2, err2, _, effect2 = app.rpc.role.roleRemote.get('k', { uid = 'u' })\n"
	      "  return { words = { tostring(v), err, why, effect, tostring(v2), err2, effect2 } }\n"
	      "end");
	ck_put("{}", "{\"words\":[\"nil\",\"denied\",\"no\",\"none\",\"nil\",\"unavailable\",\"none\"]}");
}
END_TEST

START_TEST(calls_that_go_round_in_a_circle_are_an_error_that_names_it)
{
	begin("local function on(method, key)\n"
	      "  local answer, err, why = app.rpc.calls.boxRemote[method](key, {})\n"
	      "  if not answer then return nil, err, why end\n"
	      "  return answer\n"
	      "end\n"
	      "function Remote.put(args) state.t.n = (state.t.n or 0) + 1 return on('get', 'k') end\n"
	      "function Remote.get() return on('put', 'k') end\n"
	      "function Remote.late(args, call)\n"
	      "  if call.key == 'kkkkkkkkkkkkkkkkkkkk' then return { number = state.t.n } end\n"
	      "  return on('late', call.key .. 'k')\n"
	      "end");
	put("{}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	ck_assert_msg(strstr(reply.message,
			     "deadlock: calls.boxRemote.put calls calls.boxRemote.get, which leads back to "
			     "calls.boxRemote.put"),
		      "%s", reply.message);
	/* other keys are no circle, and the circle was cut early */
	calls_ask(c.s[CALLER], "calls.boxRemote.late", "k", "{}", &reply);
	ck_says(&reply, "{\"number\":64}");
}
END_TEST

START_TEST(a_misuse_of_a_call_raises_and_names_what_is_wrong)
{
	begin("local function why(...) local _, text = pcall(...) return text end\n"
	      "function Remote.put(args)\n"
	      "  local get, once = app.rpc.calls.boxRemote.get, app.rpc.calls.boxRemote.once\n"
	      "  return { words = {\n"
	      "    why(get), why(get, 'k', { nonsense = 1 }), why(get, 'k', {}, { timeout_ms = 0 }),\n"
	      "    why(get, 'k', {}, { timeout_ms = -5 }), why(get, 'k', {}, { timeout_ms = 1e30 }),\n"
	      "    why(get, 'k', {}, { worker = -1 }), why(once, 'k', {}, { once = ('x'):rep(257) }),\n"
	      "    why(once, 'k', {}, { once = '' }), why(function() return app.rpc.calls.boxRemote.nothing end) } }\n"
	      "end");
	put("{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	static const char *const parts[] = { "the key: expected text",
					     "nonsense",
					     "timeout_ms: a whole",
					     "timeout_ms: a whole",
					     "timeout_ms: a whole",
					     "worker: a whole",
					     "once: 1 to 256",
					     "once: 1 to 256",
					     "there is no method calls.boxRemote.nothing" };
	const char *at = reply.body;
	for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
		at = strstr(at, parts[i]);
		ck_assert_msg(at, "%s: %s", parts[i], reply.body);
		at++;
	}
}
END_TEST

START_TEST(a_call_s_time_is_bounded_by_what_is_left_of_the_caller_s)
{
	begin("function Remote.once() app.wait({}) end\n"
	      "function Remote.put()\n"
	      "  local t = clock.now_ms()\n"
	      "  local _, err = app.rpc.calls.boxRemote.once('k', {}, { timeout_ms = 60000 })\n"
	      "  state.t.err, state.t.ms = err, clock.now_ms() - t\n"
	      "  return {}\n"
	      "end\n"
	      "function Remote.get() return { text = state.t.err, flag = state.t.ms and state.t.ms < 30000 } end\n"
	      "function Remote.peek() return app.rpc.calls.boxRemote.get('k', {}) end");
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) }, .timeout_ms = 500 };

	calls_ask(c.s[CALLER], "calls.boxRemote.peek", "k", "{}", &second); /* the links stand: all is sent in time */
	ck_says(&second, "{}");
	do { /* a machine that has much else to do may not even have begun it in its time */
		calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
		reply_wait(&reply); /* in time with the inner error, or just too late for it */
		get(&second);
	} while (!strcmp(second.body, "{}"));
	ck_says(&second, "{\"text\":\"unknown\",\"flag\":true}");
	service_stop(c.s[CALLS]); /* with a task that nobody wakes */
}
END_TEST

START_TEST(what_is_sent_arrives_and_is_not_waited_for)
{
	begin("function Remote.once(args) state.t.n = (state.t.n or 0) + args.number return {} end\n"
	      "function Remote.put() app.send.calls.boxRemote.once('k', { number = 5 }) return { text = 'sent' } end\n"
	      "function Remote.get() return { number = state.t.n } end");
	ck_put("{}", "{\"text\":\"sent\"}");
	do
		get(&reply);
	while (!strcmp(reply.body, "{}"));
	ck_says(&reply, "{\"number\":5}");
}
END_TEST

int main(void)
{
	TCase *one = scripted_case("one worker", setup_calls);
	TCase *hasty = scripted_case("hasty", setup_hasty);
	TCase *brief = scripted_case("a budget of 40 ms", setup_short_budget);

	tcase_add_test(one, a_remote_answers_with_its_value);
	tcase_add_test(one, a_remote_is_told_of_its_call_if_it_takes_that);
	tcase_add_test(one, a_method_without_a_function_is_not_found);
	tcase_add_test(one, an_answer_that_is_not_of_its_type_fails);
	tcase_add_test(one, what_raises_fails_and_nothing_else);
	tcase_add_test(one, a_refusal_is_one_of_the_eight_words_with_a_message);
	tcase_add_test(one, a_call_with_an_option_that_does_not_exist_or_does_not_fit_raises);
	tcase_add_test(one, a_refusal_may_say_what_is_known_of_the_effect);
	tcase_add_test(one, what_raises_after_it_called_others_leaves_an_unknown_effect);
	tcase_add_test(one, a_script_calls_other_services_and_itself);
	tcase_add_test(one, an_answer_may_come_to_a_function_while_the_caller_goes_on);
	tcase_add_test(one, a_call_that_fails_gives_nil_the_word_the_message_and_the_effect);
	tcase_add_test(one, calls_that_go_round_in_a_circle_are_an_error_that_names_it);
	tcase_add_test(one, a_misuse_of_a_call_raises_and_names_what_is_wrong);
	tcase_add_test(hasty, a_call_s_time_is_bounded_by_what_is_left_of_the_caller_s);
	tcase_add_test(one, what_is_sent_arrives_and_is_not_waited_for);
#ifndef __SANITIZE_THREAD__ /* it holds back the signal that stops a loop */
	tcase_add_test(brief, an_endless_loop_is_stopped_and_fails_alone);
#endif
	return suite_run("app", one, hasty, brief);
}
