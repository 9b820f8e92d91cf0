/* What docs/lua.md promises to scripts, on real instances: what an instance is, its begin and its end. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "common/token.h"
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

static void setup_three(void)
{
	setup_with(3, "sqllog = { linger_us = 0 },");
}

static void setup_hasty(void)
{
	setup_with(1, "rpc = { drain_s = 0 }, sqllog = { linger_us = 0 },");
}

/* ---- what this instance is --------------------------------------------------------------------------------------------------- */

START_TEST(a_script_knows_its_instance_and_the_others)
{
	begin("function Remote.put()\n"
	      "  return { words = { app.instance, tostring(app.worker), tostring(app.workers), tostring(app.epoch > 0),\n"
	      "    app.owner('caller', 'k'), tostring(app.owner('nothing', 'k')), app.instances('caller')[1].id,\n"
	      "    tostring(#app.instances('nothing')), app.config('rpc.timeout_ms', 1) .. '', app.config('caller.any', 'otherwise'),\n"
	      "    tostring(pcall(app.config, 'x')), (select(2, pcall(app.config, 'rpc.timeout_ms', 'text'))),\n"
	      "    (select(2, pcall(app.config, 'rpc.timeout', 1))), (select(2, pcall(app.config, 'calls.thread', 1))) } }\n"
	      "end");
	ck_put("{}",
	       "{\"words\":[\"calls-1\",\"0\",\"1\",\"true\",\"caller-1\",\"nil\",\"caller-1\",\"0\",\"60000\","
	       "\"otherwise\",\"false\",\"app.config: rpc.timeout_ms is of another type than the value to use when it is "
	       "absent, text\",\"app.config: rpc.timeout: unknown key; did you mean timeout_ms?\",\"app.config: calls.thread: "
	       "unknown key; did you mean threads?\"]}");
}
END_TEST

START_TEST(a_script_may_ask_for_the_same_key_of_the_file_again)
{
	begin("function Remote.put()\n"
	      "  local words = {}\n"
	      "  for i = 1, 2 do\n"
	      "    words[#words + 1] = app.config('caller.any', 'otherwise' .. i)\n"
	      "    words[#words + 1] = tostring(pcall(app.config, 'calls.thread', i))\n"
	      "  end\n"
	      "  return { words = words }\n"
	      "end");
	ck_put("{}", "{\"words\":[\"otherwise1\",\"false\",\"otherwise2\",\"false\"]}");
}
END_TEST

/* KiB grow by what is garbage, which is not more than is in use. */
START_TEST(keys_that_are_asked_for_once_take_no_room_for_good)
{
	begin("local asked, first = 0, nil\n"
	      "function Remote.put()\n"
	      "  for i = 1, 2000 do app.config('client.origins[' .. asked + i .. ']', '') end\n"
	      "  asked = asked + 2000\n"
	      "  first = first or collectgarbage()\n"
	      "  return { words = { collectgarbage() < 3 * first and 'bounded' or first .. ' ' .. collectgarbage() } }\n"
	      "end");
	for (int i = 0; i < 40; i++) /* the budget of each is for a slow processor, too */
		ck_put("{}", "{\"words\":[\"bounded\"]}");
}
END_TEST

START_TEST(services_and_remotes_that_are_not_there_take_no_room_for_good)
{
	begin("local asked, first = 0, nil\n"
	      "function Remote.put()\n"
	      "  for i = 1, 1000 do local _ = app.rpc['none' .. asked + i], app.send.calls['none' .. asked + i] end\n"
	      "  asked = asked + 1000\n"
	      "  first = first or collectgarbage()\n"
	      "  return { words = { collectgarbage() < 3 * first and 'bounded' or first .. ' ' .. collectgarbage() } }\n"
	      "end");
	for (int i = 0; i < 20; i++)
		ck_put("{}", "{\"words\":[\"bounded\"]}");
}
END_TEST

START_TEST(a_script_has_keys_and_signatures)
{
	char hex[TOKEN_HMAC_HEX], expected[200];

	begin("function Remote.put()\n"
	      "  local key = app.key('demo.key')\n"
	      "  return { words = { tostring(#key), tostring(key == app.key('demo.key')), app.hmac('secret', 'text'),\n"
	      "    tostring(app.same('a', 'a')), tostring(app.same('a', 'b')), tostring(#app.nonce()),\n"
	      "    tostring(app.nonce() ~= app.nonce()), tostring(pcall(app.key, '../cluster.key')) } }\n"
	      "end");
	token_hmac_hex("secret", "text", 4, hex);
	snprintf(expected, sizeof(expected),
		 "{\"words\":[\"64\",\"true\",\"%s\",\"true\",\"false\",\"16\",\"true\",\"false\"]}", hex);
	ck_put("{}", expected);
}
END_TEST

START_TEST(each_worker_has_a_state_of_its_own)
{
	unsigned seen = 0;

	begin("function Remote.put() state.t.n = (state.t.n or 0) + 1 return { number = state.t.n, text = app.worker .. '' } end");
	for (int i = 0; i < 3; i++) {
		struct rpc_call call = { .to = { .instance = "calls-1", .worker = i } };

		calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
		reply_wait(&reply);
		ck_assert_ptr_nonnull(strstr(reply.body, "\"number\":1"));
		seen |= 1u << (reply.body[9] - '0');
	}
	ck_assert_uint_eq(seen, 7);
}
END_TEST

/* ---- life ----------------------------------------------------------------------------------------------------------------------- */

START_TEST(code_that_does_not_compile_or_raises_ends_the_start_with_file_and_line)
{
	remotes("function Remote.put( return end");
	const char *why = calls_try(&c, CALLS, &calls_lua);
	ck_assert_msg(why && strstr(why, "boxRemote.lua:3:"), "%s", why);
	remotes("error('not today')");
	why = calls_try(&c, CALLS, &calls_lua);
	ck_assert_msg(why && strstr(why, "boxRemote.lua:3: not today"), "%s", why);
}
END_TEST

START_TEST(what_check_refuses_does_not_start_and_says_why)
{
	remotes("function Remote.put() return {} end");
	calls_file(&c, "init.lua",
		   "return { check = function() return nil, 'no weapons' end,\n"
		   "  init_service = function() log.info('began') end }\n");
	const char *why = calls_try(&c, CALLS, &calls_lua);
	ck_assert_msg(why && strstr(why, "calls-1: ") && strstr(why, "check(): no weapons"), "%s", why);
	calls_file(&c, "init.lua", "return {\n  check = function() assert(false, 'raised') end }\n");
	why = calls_try(&c, CALLS, &calls_lua);
	ck_assert_msg(why && strstr(why, "raised"), "%s", why);
	calls_file(&c, "init.lua", "return { check = function() assert(state.x == nil) state.x = 1 end }\n");
	begin("function Remote.put() return { text = tostring(state.x) } end");
	ck_put("{}", "{\"text\":\"nil\"}");
}
END_TEST

START_TEST(an_instance_is_ready_when_init_service_has_ended)
{
	calls_file(&c, "init.lua",
		   "return { init_service = function() clock.sleep(50) state.ready = app.worker end }\n");
	begin("function Remote.put() return { number = state.ready } end");
	for (int i = 0; i < 3; i++) {
		struct rpc_call call = { .to = { .instance = "calls-1", .worker = i } };
		char expected[40];

		calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
		reply_wait(&reply);
		snprintf(expected, sizeof(expected), "{\"number\":%d}", i);
		ck_says(&reply, expected);
	}
}
END_TEST

START_TEST(an_init_service_that_raises_ends_the_start)
{
	calls_file(&c, "init.lua", "return { init_service = function() clock.sleep(1) error('no') end }\n");
	remotes("");
	const char *why = calls_try(&c, CALLS, &calls_lua);
	ck_assert_msg(why && strstr(why, "init_service"), "%s", why);
}
END_TEST

START_TEST(an_instance_may_be_stopped_while_init_service_still_waits)
{
	calls_file(&c, "init.lua", "return { init_service = function() app.wait({}) end }\n");
	remotes("");
	struct service_options o = { .config_file = c.config, .instance = "calls-1" };
	char error[200];
	struct service *s;

	ck_assert_int_eq(service_start(c.env, &calls_lua, &o, error, sizeof(error), &s), 0);
	service_stop(s);
	loop_join(s->control);
	ck_assert_ptr_null(service_failure(s));
	service_free(s);
}
END_TEST

START_TEST(stop_service_runs_at_the_end_and_its_changes_land)
{
	calls_file(&c, "init.lua",
		   "return { stop_service = function()\n"
		   "  db.key('role:9') db.exec('UPDATE role SET gold = 0 WHERE id = 9')\n"
		   "end }\n");
	begin("function Remote.put() return {} end");
	ck_put("{}", "{}");
	ck_assert_ptr_null(strstr(log_text(), "id = 9"));
	calls_end(&c, CALLS);
	ck_assert_ptr_nonnull(strstr(log_text(), "id = 9"));
}
END_TEST

START_TEST(a_stop_ends_whatever_still_waits)
{
	begin("function Remote.put(args)\n"
	      "  app.task(function() app.rpc.calls.boxRemote.once('k', {}) end)\n"
	      "  app.task(function() db.query('SELECT 1') end)\n"
	      "  app.task(function() clock.sleep(100000) end)\n"
	      "  app.task(function() local t <close> = setmetatable({}, { __close = function() app.wake(state.t) end }) app.wait(state.t) end)\n"
	      "  clock.after(100000, error)\n"
	      "  app.wait({})\n"
	      "end\n"
	      "function Remote.get() return {} end\n"
	      "function Remote.once() app.wait({}) end");
	start_put("{}", &reply);
	get(&second);
	calls_end(&c, CALLS);
	reply_wait(&reply);
	ck_assert_int_eq(reply.err, ERR_UNAVAILABLE);
}
END_TEST

int main(void)
{
	TCase *one = scripted_case("one worker", setup_calls);
	TCase *three = scripted_case("three workers", setup_three);
	TCase *hasty = scripted_case("hasty", setup_hasty);

	tcase_add_test(one, a_script_knows_its_instance_and_the_others);
	tcase_add_test(one, a_script_may_ask_for_the_same_key_of_the_file_again);
	tcase_add_test(one, keys_that_are_asked_for_once_take_no_room_for_good);
	tcase_add_test(one, services_and_remotes_that_are_not_there_take_no_room_for_good);
	tcase_add_test(one, a_script_has_keys_and_signatures);
	tcase_add_test(three, each_worker_has_a_state_of_its_own);
	tcase_add_test(one, code_that_does_not_compile_or_raises_ends_the_start_with_file_and_line);
	tcase_add_test(three, code_that_does_not_compile_or_raises_ends_the_start_with_file_and_line);
	tcase_add_test(one, what_check_refuses_does_not_start_and_says_why);
	tcase_add_test(three, an_instance_is_ready_when_init_service_has_ended);
	tcase_add_test(three, an_init_service_that_raises_ends_the_start);
	tcase_add_test(three, an_instance_may_be_stopped_while_init_service_still_waits);
	tcase_add_test(three, stop_service_runs_at_the_end_and_its_changes_land);
	tcase_add_test(hasty, a_stop_ends_whatever_still_waits);
	return suite_run("app_life", one, three, hasty);
}
