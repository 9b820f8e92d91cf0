/* What becomes of a request that nobody waits for any more: its caller cancelled it, went, or had no time left. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "rpc/server.h"
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

static void setup_draining(void)
{
	setup_with(1, "sqllog = { linger_us = 0 }, rpc = { drain_s = 1 },");
}

/*
 * put waits in the middle and notes what becomes of it; look answers the notes; wake lets those who wait go on. text is
 * what put does before it waits.
 */
static void begin_waiting(const char *text)
{
	char file[4000];

	snprintf(file, sizeof(file),
		 "state.notes = state.notes or {}\nstate.queue = state.queue or {}\nlocal Remote = {}\n"
		 "local function note(text) table.insert(state.notes, text) end\n"
		 "local function waits(text)\n"
		 "  note(text .. ' waits')\n"
		 "  local ok, why = pcall(app.wait, state.queue)\n"
		 "  note(text .. (ok and ' goes on' or ' is stopped'))\n"
		 "  if not ok then error(why, 0) end\n"
		 "end\n"
		 "function Remote.put(args)\n"
		 "  if args.text == 'wake' then app.wake(state.queue) return {} end\n"
		 "  if args.text == 'look' then return { words = state.notes } end\n"
		 "  %s\n"
		 "  waits('put')\n"
		 "  return {}\n"
		 "end\n"
		 "function Remote.get() waits('get') return {} end\n"
		 "function Remote.once(args) if args.flag then return {} end waits('once') return {} end\n"
		 "return Remote\n",
		 text);
	calls_file(&c, "boxRemote.lua", file);
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CALLER, &calls_caller);
}

static const char *tell(const char *what)
{
	char json[40];

	snprintf(json, sizeof(json), "{\"text\":\"%s\"}", what);
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", json, &third);
	ck_assert_int_eq(third.err, 0);
	return third.body;
}

static bool noted(const char *words)
{
	return !strcmp(tell("look"), words);
}

START_TEST(a_cancelled_request_is_stopped_where_it_waits)
{
	begin_waiting("");
	start_on(CALLER, "calls.boxRemote.put", "{}", 10000, &reply);
	until(noted("{\"words\":[\"put waits\"]}"));
	calls_cancel(c.s[CALLER], 0, reply.handle);
	until(noted("{\"words\":[\"put waits\",\"put is stopped\"]}"));
	ck_assert_int_eq(c.s[CALLS]->worker[0]->server->in_flight, 0);
	ck_assert_int_eq(calls_figure(c.s[CALLS], "loquat_rpc_cancelled_total"), 1);
}
END_TEST

START_TEST(a_request_whose_caller_has_gone_is_stopped)
{
	begin_waiting("");
	start_on(CALLER, "calls.boxRemote.put", "{}", 10000, &reply);
	until(noted("{\"words\":[\"put waits\"]}"));
	calls_cut(c.s[CALLS]);
	reply_wait(&reply);
	ck_assert_int_eq(reply.err, ERR_UNAVAILABLE);
	until(noted("{\"words\":[\"put waits\",\"put is stopped\"]}"));
}
END_TEST

START_TEST(a_request_whose_time_is_over_is_stopped_without_being_told)
{
	begin_waiting("");
	tell("look"); /* the link stands */
	do {          /* a machine that has much else to do may not even have begun it in its time */
		start_on(CALLER, "calls.boxRemote.put", "{}", 60, &reply);
		reply_wait(&reply);
		ck_assert_int_eq(reply.err, ERR_TIMEOUT);
	} while (noted("{}"));
	until(noted("{\"words\":[\"put waits\",\"put is stopped\"]}"));
}
END_TEST

START_TEST(what_a_stopped_request_asked_of_others_is_stopped_too)
{
	begin_waiting("app.rpc.calls.boxRemote.get('k', {}, { timeout_ms = 60000 })");
	start_on(CALLER, "calls.boxRemote.put", "{}", 10000, &reply);
	until(noted("{\"words\":[\"get waits\"]}"));
	calls_cancel(c.s[CALLER], 0, reply.handle);
	until(noted("{\"words\":[\"get waits\",\"get is stopped\"]}"));
	ck_assert_int_eq(calls_figure(c.s[CALLS], "loquat_rpc_calls_in_flight"), 0);
}
END_TEST

START_TEST(what_may_have_had_an_effect_elsewhere_runs_to_its_end)
{
	begin_waiting("app.rpc.calls.boxRemote.once('k', { flag = true })");
	start_on(CALLER, "calls.boxRemote.put", "{}", 10000, &reply);
	until(noted("{\"words\":[\"put waits\"]}"));
	calls_cancel(c.s[CALLER], 0, reply.handle);
	until(calls_figure(c.s[CALLS], "loquat_rpc_cancelled_total") == 1);
	tell("wake");
	ck_assert(noted("{\"words\":[\"put waits\",\"put goes on\"]}"));
}
END_TEST

START_TEST(what_has_committed_a_change_runs_to_its_end)
{
	begin_waiting("db.key('k') db.exec('UPDATE t SET a = ?', 1) db.commit()");
	start_on(CALLER, "calls.boxRemote.put", "{}", 10000, &reply);
	until(noted("{\"words\":[\"put waits\"]}"));
	calls_cut(c.s[CALLS]);
	reply_wait(&reply);
	tell("wake");
	ck_assert(noted("{\"words\":[\"put waits\",\"put goes on\"]}"));
}
END_TEST

START_TEST(a_once_call_that_has_begun_runs_to_its_end)
{
	begin_waiting("");
	start_on(CALLER, "calls.boxRemote.once", "{}", 10000, &reply);
	until(noted("{\"words\":[\"once waits\"]}"));
	calls_cancel(c.s[CALLER], 0, reply.handle);
	until(calls_figure(c.s[CALLS], "loquat_rpc_cancelled_total") == 1);
	tell("wake");
	ck_assert(noted("{\"words\":[\"once waits\",\"once goes on\"]}"));
}
END_TEST

START_TEST(a_request_that_waits_for_its_turn_does_not_begin)
{
	calls_file(&c, "boxHandler.lua",
		   "state.list, state.queue = state.list or {}, state.queue or {}\nlocal Handler = {}\n"
		   "function Handler.say(session, msg)\n"
		   "  table.insert(state.list, msg.text)\n"
		   "  if msg.flag then app.wait(state.queue) end\n"
		   "  return { words = state.list }\n"
		   "end\n"
		   "function Handler.echo() app.wake(state.queue) return {} end\n"
		   "return Handler\n");
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CONNECTOR, &calls_connector);
	say(1, "{\"text\":\"first\",\"flag\":true}", 10000, &reply);
	say(1, "{\"text\":\"cancelled\"}", 10000, &second);
	say(1, "{\"text\":\"last\"}", 10000, &third);
	until(c.s[CALLS]->worker[0]->server->in_flight == 3);
	calls_cancel(c.s[CONNECTOR], 0, second.handle);
	until(calls_figure(c.s[CALLS], "loquat_rpc_cancelled_total") == 1);
	struct rpc_call wake = { .to = { .worker = -1, .key = span_of("u", 1) },
				 .body = span_of("{}", 2),
				 .sid = 2,
				 .uid = span_of("bob", 3) };
	calls_call(c.s[CONNECTOR], 0, "calls.boxHandler.echo", wake, &second);
	reply_wait(&third);
	ck_assert_msg(!third.err, "%s: %s", err_word(third.err), third.message);
	ck_assert_str_eq(third.body, "{\"code\":200,\"words\":[\"first\",\"last\"]}");
	reply_wait(&reply);
	reply_wait(&second);
}
END_TEST

int main(void)
{
	TCase *t = scripted_case("stopped requests", setup_draining);

	tcase_add_test(t, a_cancelled_request_is_stopped_where_it_waits);
	tcase_add_test(t, a_request_whose_caller_has_gone_is_stopped);
	tcase_add_test(t, a_request_whose_time_is_over_is_stopped_without_being_told);
	tcase_add_test(t, what_a_stopped_request_asked_of_others_is_stopped_too);
	tcase_add_test(t, what_may_have_had_an_effect_elsewhere_runs_to_its_end);
	tcase_add_test(t, what_has_committed_a_change_runs_to_its_end);
	tcase_add_test(t, a_once_call_that_has_begun_runs_to_its_end);
	tcase_add_test(t, a_request_that_waits_for_its_turn_does_not_begin);
	return suite_run("app_stop", t);
}
