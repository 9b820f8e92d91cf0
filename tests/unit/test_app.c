/* What docs/lua.md promises to scripts, on real instances. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/token.h"
#include "rpc/app_private.h"
#include "tests/support/calls.h"
#include "tests/support/folder.h"

static struct calls c;
static struct reply reply, second, third;

static void setup(void)
{
	calls_setup(&c, &(struct calls_options){ .lua = "sqllog = { linger_us = 0 }, lua = { budget_ms = 100 }," });
}

static void setup_small(void)
{
	calls_setup(&c, &(struct calls_options){
				.lua = "sqllog = { linger_us = 0 }, lua = { memory_bytes_max = 32 << 20 }," });
}

static void setup_three(void)
{
	calls_setup(&c, &(struct calls_options){ .threads = 3, .lua = "sqllog = { linger_us = 0 }," });
}

static void setup_hasty(void)
{
	calls_setup(&c, &(struct calls_options){ .lua = "rpc = { drain_s = 0 }, sqllog = { linger_us = 0 }," });
}

static void teardown(void)
{
	calls_teardown(&c);
}

/* The remotes of the service: the body of put, and of get if a test calls that too. */
static void remotes(const char *text)
{
	char file[4000];

	snprintf(file, sizeof(file), "state.t = state.t or {}\nlocal Remote = {}\n%s\nreturn Remote\n", text);
	calls_file(&c, "boxRemote.lua", file);
}

static void begin(const char *text)
{
	remotes(text);
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CALLER, &calls_caller);
}

static void put(const char *json, struct reply *r)
{
	calls_ask(c.s[CALLER], "calls.boxRemote.put", "k", json, r);
}

static void get(struct reply *r)
{
	calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", r);
}

static void start_put(const char *json, struct reply *r)
{
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) }, .body = span_of(json, strlen(json)) };

	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, r);
}

static void ck_reply(const struct reply *r, int err, enum effect effect)
{
	ck_assert_msg(r->err == err && r->effect == effect, "%s, effect %s: %s", err_word(r->err),
		      effect_word(r->effect), r->message);
}

static void ck_says(const struct reply *r, const char *body)
{
	ck_reply(r, 0, EFFECT_NONE);
	ck_assert_str_eq(r->body, body);
}

/* put answers this text. */
static void ck_put(const char *json, const char *body)
{
	put(json, &reply);
	ck_says(&reply, body);
}

/* All that the SQL log holds. */
static const char *log_text(void)
{
	static char *text;
	char path[400];
	struct buf b = BUF_INIT;

	free(text);
	for (int i = 1; i < 9; i++) {
		snprintf(path, sizeof(path), "var/sqllog/calls-1/%08d.sql", i);
		if (folder_size(c.dir, path) < 0)
			continue;
		size_t n;
		char *part = folder_read(c.dir, path, &n);
		buf_add(&b, part, n);
		free(part);
	}
	text = strdup(buf_cstr(&b));
	buf_release(&b);
	return text;
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
	static const char *const parts[] = { "bad argument #1",
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
	      "function Remote.get() return { text = state.t.err, flag = state.t.ms and state.t.ms < 30000 } end");
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) }, .timeout_ms = 500 };

	get(&second); /* the link stands: the call is sent in time */
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
	reply_wait(&reply); /* in time with the inner error, or just too late for it */
	do
		calls_ask(c.s[CALLER], "calls.boxRemote.get", "k", "{}", &second);
	while (!strcmp(second.body, "{}"));
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

/* ---- tasks, waiting, waking -------------------------------------------------------------------------------------------- */

START_TEST(who_waits_goes_on_in_order_when_woken)
{
	begin("state.t.queue, state.t.order = {}, {}\n"
	      "function Remote.put(args)\n"
	      "  app.wait(state.t.queue)\n"
	      "  table.insert(state.t.order, args.text)\n"
	      "  return { words = state.t.order }\n"
	      "end\n"
	      "function Remote.get() local n = #state.t.queue app.wake(state.t.queue) return { number = n } end");
	start_put("{\"text\":\"a\"}", &reply);
	start_put("{\"text\":\"b\"}", &second);
	get(&third);
	ck_says(&third, "{\"number\":2}");
	reply_wait(&reply);
	reply_wait(&second);
	ck_says(&reply, "{\"words\":[\"a\"]}");
	ck_says(&second, "{\"words\":[\"a\",\"b\"]}");
	get(&third);
	ck_says(&third, "{\"number\":0}");
}
END_TEST

START_TEST(a_place_in_a_queue_wakes_once_whatever_scripts_do_with_it)
{
	begin("state.t.queue = {}\n"
	      "function Remote.put()\n"
	      "  app.wait(state.t.queue)\n"
	      "  app.wake(state.t.copy)\n"                          /* itself, while it runs */
	      "  local v = app.rpc.calls.boxRemote.once('k', {})\n" /* waits for something else now */
	      "  return v\n"
	      "end\n"
	      "function Remote.once() app.wake(state.t.copy) return { text = 'right' } end\n"
	      "function Remote.get()\n"
	      "  state.t.copy = { state.t.queue[1], 77, 'text', false }\n"
	      "  app.wake(state.t.queue) app.wake(state.t.copy)\n"
	      "  return {}\n"
	      "end");
	start_put("{}", &reply);
	get(&second);
	reply_wait(&reply);
	ck_says(&reply, "{\"text\":\"right\"}");
}
END_TEST

START_TEST(tasks_that_wake_each_other_for_ever_do_not_hold_up_the_worker)
{
	begin("local function turn(own, other) while true do app.wake(other) app.wait(own) end end\n"
	      "function Remote.put()\n"
	      "  local a, b = {}, {}\n"
	      "  app.task(turn, a, b) app.task(turn, b, a)\n"
	      "  return {}\n"
	      "end\n"
	      "function Remote.get() return { text = 'alive' } end");
	ck_put("{}", "{}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"alive\"}");
}
END_TEST

START_TEST(a_long_chain_of_wakes_is_no_recursion)
{
	begin("function Remote.put()\n"
	      "  local last = {}\n"
	      "  local queue = last\n"
	      "  for _ = 1, 600 do\n"
	      "    local own, next_one = {}, queue\n"
	      "    app.task(function() app.wait(own) app.wake(next_one) end)\n"
	      "    queue = own\n"
	      "  end\n"
	      "  app.wake(queue)\n"
	      "  app.wait(last)\n"
	      "  return { text = 'at the end' }\n"
	      "end");
	ck_put("{}", "{\"text\":\"at the end\"}");
}
END_TEST

START_TEST(a_task_has_its_arguments_and_changes_of_its_own)
{
	begin("function Remote.put()\n"
	      "  app.task(function(t, a, b)\n"
	      "    db.key('role:1') db.exec('UPDATE role SET gold = ? WHERE id = 1', 5)\n"
	      "    db.set(t, 'sum', a) db.set(t, 'missing', tostring(b))\n"
	      "  end, state.t, 7, nil)\n"
	      "  return { number = state.t.sum }\n"
	      "end\n"
	      "function Remote.get() return { number = state.t.sum } end");
	ck_put("{}", "{\"number\":7}");
	until(strstr(log_text(), "SET gold = 5"));
}
END_TEST

START_TEST(a_timer_s_changes_belong_to_a_task)
{
	begin("function Remote.put(args)\n"
	      "  local queue, why = {}, nil\n"
	      "  clock.after(1, function()\n"
	      "    why = select(2, pcall(db.exec, 'DELETE FROM bag'))\n"
	      "    app.wake(queue)\n"
	      "  end)\n"
	      "  app.wait(queue)\n"
	      "  return { text = why }\n"
	      "end");
	put("{}", &reply);
	ck_assert_ptr_nonnull(strstr(reply.body, "use app.task(fn) in a timer"));
}
END_TEST

/* ---- all or nothing ------------------------------------------------------------------------------------------------------- */

#define CHANGE                                                           \
	"local function change(n)\n"                                     \
	"  db.key('role:1')\n"                                           \
	"  db.exec('UPDATE role SET gold = gold + ? WHERE id = 1', n)\n" \
	"  db.set(state.t, 'gold', (state.t.gold or 0) + n)\n"           \
	"end\n"                                                          \
	"function Remote.get() return { number = state.t.gold or -1 } end\n"

START_TEST(a_change_is_in_memory_and_in_the_log_when_it_is_answered)
{
	begin(CHANGE "function Remote.put(args) change(args.number) return { number = state.t.gold or -1 } end");
	ck_put("{\"number\":10}", "{\"number\":-1}"); /* until it ends the table shows the old value */
	ck_assert_ptr_nonnull(strstr(log_text(), "BEGIN;\nUPDATE role SET gold = gold + 10 WHERE id = 1;\nCOMMIT;\n"));
	ck_assert_ptr_nonnull(strstr(log_text(), "key=role:1 "));
	get(&reply);
	ck_says(&reply, "{\"number\":10}");
	ck_put("{\"number\":5}", "{\"number\":10}");
	get(&reply);
	ck_says(&reply, "{\"number\":15}");
}
END_TEST

START_TEST(what_raises_or_refuses_changes_nothing)
{
	begin(CHANGE "function Remote.put(args)\n"
		     "  change(10)\n"
		     "  if args.text == 'raise' then error('broken') end\n"
		     "  if args.text == 'wrong' then return { text = {} } end\n"
		     "  return nil, 'denied'\n"
		     "end");
	put("{\"text\":\"raise\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	put("{\"text\":\"wrong\"}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	put("{}", &reply);
	ck_reply(&reply, ERR_DENIED, EFFECT_NONE);
	get(&reply);
	ck_says(&reply, "{\"number\":-1}");
	ck_assert_ptr_null(strstr(log_text(), "gold"));
}
END_TEST

START_TEST(a_record_without_a_key_is_refused)
{
	begin("function Remote.get() return { number = state.t.gold or -1 } end\n"
	      "function Remote.put(args)\n"
	      "  db.exec('DELETE FROM bag WHERE role_id = 1')\n"
	      "  db.set(state.t, 'gold', 1)\n"
	      "  if args.flag then db.commit() end\n"
	      "  return {}\n"
	      "end");
	put("{}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	put("{\"flag\":true}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	get(&reply);
	ck_says(&reply, "{\"number\":-1}");
	ck_assert_ptr_null(strstr(log_text(), "bag"));
}
END_TEST

START_TEST(commit_lands_what_was_collected_so_far)
{
	begin(CHANGE "function Remote.put(args)\n"
		     "  change(1)\n"
		     "  local ok = db.commit()\n"
		     "  local seen = state.t.gold\n"
		     "  change(10)\n"
		     "  if args.flag then error('broken') end\n"
		     "  return { number = seen, flag = ok }\n"
		     "end");
	ck_put("{}", "{\"number\":1,\"flag\":true}");
	put("{\"flag\":true}", &reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_DONE); /* what was committed stays */
	get(&reply);
	ck_says(&reply, "{\"number\":12}");
}
END_TEST

START_TEST(nothing_may_wait_while_changes_are_collected)
{
	begin("local function why(fn, ...) local _, text = pcall(fn, ...) return tostring(text):match('nothing may wait') end\n"
	      "function Remote.get() return {} end\n"
	      "function Remote.put(args)\n"
	      "  if args.flag then db.key('role:1') db.exec('DELETE FROM bag WHERE role_id = 1')\n"
	      "  else db.set(state.t, 'a', 1) end\n"
	      "  return { words = { why(app.rpc.calls.boxRemote.get, 'k', {}), why(app.wait, {}), why(clock.sleep, 1),\n"
	      "    why(db.query, 'SELECT 1'), why(db.load, 'role:1', 'SELECT 1') } }\n"
	      "end");
	static const char five[] = "{\"words\":[\"nothing may wait\",\"nothing may wait\",\"nothing may wait\","
				   "\"nothing may wait\",\"nothing may wait\"]}";
	ck_put("{}", five);
	ck_put("{\"flag\":true}", five);
}
END_TEST

START_TEST(a_bad_statement_a_bad_value_or_a_bad_field_raises)
{
	begin("local function fails(fn, ...) return not pcall(fn, ...) and 'raised' or 'passed' end\n"
	      "function Remote.put()\n"
	      "  return { words = { fails(db.exec, 'DROP TABLE role'), fails(db.exec, 'DELETE FROM bag WHERE a = ?'),\n"
	      "    fails(db.exec, 'DELETE FROM bag WHERE a = ?', {}), fails(db.set, {}, nil, 1), fails(db.set, {}, 0/0, 1),\n"
	      "    fails(db.set, 5, 'a', 1), fails(db.key, ''), fails(db.key, ('x'):rep(81)) } }\n"
	      "end");
	ck_put("{}",
	       "{\"words\":[\"raised\",\"raised\",\"raised\",\"raised\",\"raised\",\"raised\",\"raised\",\"raised\"]}");
}
END_TEST

START_TEST(a_nil_that_is_set_forgets_the_field)
{
	begin("function Remote.get() return { text = state.t.name or 'nobody' } end\n"
	      "function Remote.put(args) db.set(state.t, 'name', args.text) return {} end");
	ck_put("{\"text\":\"a\"}", "{}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"a\"}");
	ck_put("{}", "{}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"nobody\"}");
}
END_TEST

START_TEST(sync_waits_for_what_others_have_recorded)
{
	begin(CHANGE "function Remote.put() db.relaxed() change(3) return {} end\n"
		     "function Remote.once() db.sync() return { number = state.t.gold or -1 } end");
	put("{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	calls_ask(c.s[CALLER], "calls.boxRemote.once", "k", "{}", &reply);
	ck_says(&reply, "{\"number\":3}");
	ck_assert_uint_eq(sqllog_durable_lsn(c.s[CALLS]->sqllog), sqllog_lsn(c.s[CALLS]->sqllog));
}
END_TEST

/* ---- the cache --------------------------------------------------------------------------------------------------- */

START_TEST(the_cache_gives_back_what_was_put_as_a_copy)
{
	begin("function Remote.put(args)\n"
	      "  cache.put('text', 'a\\0b') cache.put('table', { n = { 1, 2.5, true }, o = json.array({}) })\n"
	      "  local t = cache.get('table')\n"
	      "  t.n[1] = 7\n"
	      "  return { words = { cache.get('text') == 'a\\0b' and 'same', json.encode(cache.get('table')),\n"
	      "    tostring(cache.get('nothing')) } }\n"
	      "end\n"
	      "function Remote.get() cache.delete('text') return { text = tostring(cache.get('text')) } end");
	ck_put("{}", "{\"words\":[\"same\",\"{\\\"n\\\":[1,2.5,true],\\\"o\\\":[]}\",\"nil\"]}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"nil\"}");
}
END_TEST

START_TEST(a_key_or_a_value_that_cannot_be_cached_raises_and_a_large_one_is_refused)
{
	begin("local function try(...) local _, err = pcall(cache.put, ...) return tostring(err) end\n"
	      "function Remote.put()\n"
	      "  local loop = {} loop.loop = loop\n"
	      "  local ok, err = cache.put('k', string.rep('x', 1 << 21))\n"
	      "  return { words = { try('', 1), try('k'), try(('k'):rep(128), 1), try('k', loop), try('k', 1, -1), err } }\n"
	      "end");
	put("{}", &reply);
	ck_reply(&reply, 0, EFFECT_NONE);
	const char *expected[] = { "1 to 127 bytes", "cache.delete", "1 to 127 bytes",
				   "levels",         "seconds",      "bad_request" };
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
		ck_assert_msg(strstr(reply.body, expected[i]), "no \"%s\" in %s", expected[i], reply.body);
}
END_TEST

START_TEST(a_cached_value_goes_when_its_seconds_are_over)
{
	begin("function Remote.put()\n"
	      "  cache.put('k', 1, 0.02)\n"
	      "  local there = cache.get('k')\n"
	      "  clock.sleep(60)\n"
	      "  return { words = { tostring(there), tostring(cache.get('k')) } }\n"
	      "end");
	ck_put("{}", "{\"words\":[\"1\",\"nil\"]}");
}
END_TEST

START_TEST(what_is_cached_beside_a_change_takes_effect_with_it_or_not_at_all)
{
	begin(CHANGE "function Remote.put(args)\n"
		     "  cache.put('gold', 1)\n"
		     "  change(2)\n"
		     "  cache.put('gold', 2)\n"
		     "  local before = cache.get('gold')\n"
		     "  if args.flag then return nil, 'denied', tostring(before) end\n"
		     "  return { number = before }\n"
		     "end\n"
		     "function Remote.get() return { number = cache.get('gold') } end");
	put("{\"flag\":true}", &reply);
	ck_reply(&reply, ERR_DENIED, EFFECT_NONE);
	get(&reply);
	ck_says(&reply, "{\"number\":1}");
	ck_put("{}", "{\"number\":1}");
	get(&reply);
	ck_says(&reply, "{\"number\":2}");
}
END_TEST

START_TEST(a_delete_beside_a_change_takes_effect_with_it)
{
	begin(CHANGE "function Remote.put()\n"
		     "  cache.put('gold', 1)\n"
		     "  change(2)\n"
		     "  cache.delete('gold')\n"
		     "  return { number = cache.get('gold') }\n"
		     "end\n"
		     "function Remote.get() return { text = tostring(cache.get('gold')) } end");
	ck_put("{}", "{\"number\":1}");
	get(&reply);
	ck_says(&reply, "{\"text\":\"nil\"}");
}
END_TEST

START_TEST(a_read_without_a_database_is_unavailable_in_time)
{
	begin("function Remote.put()\n"
	      "  local rows, err = db.query('SELECT 1')\n"
	      "  state.t.words = { tostring(rows), err }\n"
	      "  return { words = state.t.words }\n"
	      "end\n"
	      "function Remote.get() return { words = state.t.words } end");
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("k", 1) }, .timeout_ms = 500 };

	get(&second); /* the link stands: the call is sent in time */
	calls_call(c.s[CALLER], 0, "calls.boxRemote.put", call, &reply);
	reply_wait(&reply); /* in time, but on a busy machine */
	do
		get(&second);
	while (!strcmp(second.body, "{}"));
	ck_says(&second, "{\"words\":[\"nil\",\"unavailable\"]}");
}
END_TEST

/* ---- sessions ----------------------------------------------------------------------------------------------------------------- */

static void say(uint64_t sid, const char *json, uint32_t timeout_ms, struct reply *r)
{
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("u", 1) },
				 .body = span_of(json, strlen(json)),
				 .timeout_ms = timeout_ms,
				 .sid = sid,
				 .uid = span_of("ann", 3) };

	calls_call(c.s[CONNECTOR], 0, "calls.boxHandler.say", call, r);
}

static void begin_sessions(const char *text)
{
	char file[4000];

	snprintf(file, sizeof(file),
		 "state.t = state.t or { queue = {}, list = {} }\nlocal Handler = {}\n%s\nreturn Handler\n", text);
	calls_file(&c, "boxHandler.lua", file);
	calls_begin(&c, CALLS, &calls_lua);
	calls_begin(&c, CONNECTOR, &calls_connector);
}

/* What the connector was told, one line each. */
static bool told(const char *words)
{
	size_t n;
	bool found;

	if (folder_size(c.dir, "var/told") < 0)
		return false;
	char *text = folder_read(c.dir, "var/told", &n);
	found = memmem(text, n, words, strlen(words)) != NULL;
	free(text);
	return found;
}

START_TEST(a_handler_s_answer_has_its_code)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  return { text = session.uid .. session.sid .. session.connector .. (msg.text or '') }\n"
		       "end\n"
		       "function Handler.echo(session, msg) return msg end");
	say(5, "{\"text\":\"!\"}", 0, &reply);
	reply_wait(&reply);
	ck_says(&reply, "{\"code\":200,\"text\":\"ann5connector-1!\"}");
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
	say(2, "{\"text\":\"wake\"}", 0, &third);
	reply_wait(&third);
	ck_says(&third, "{\"code\":200,\"words\":[\"a\",\"wake\",\"wake\"]}");
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
		       "  if msg.text == 'wake' then clock.sleep(60) app.wake(state.t.queue) end\n"
		       "  table.insert(state.t.list, msg.text or '?')\n"
		       "  return { words = state.t.list }\n"
		       "end");
	say(3, "{\"text\":\"hello\"}", 0, &second); /* the link stands: what follows is sent in time */
	reply_wait(&second);
	say(1, "{\"text\":\"first\",\"flag\":true}", 0, &reply);
	say(1, "{\"text\":\"late\"}", 50, &second);
	reply_wait(&second);
	ck_reply(&second, ERR_TIMEOUT, EFFECT_UNKNOWN); /* the caller cannot know */
	say(2, "{\"text\":\"wake\"}", 0, &third); /* it comes after the late one, and rests for longer than that has */
	reply_wait(&third);
	reply_wait(&reply);
	say(1, "{\"text\":\"after\"}", 0, &third);
	reply_wait(&third);
	ck_says(&third, "{\"code\":200,\"words\":[\"hello\",\"wake\",\"first\",\"after\"]}");
}
END_TEST

START_TEST(an_attribute_leaves_with_the_answer_of_the_session_s_own_request)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  session:set('scene', '1') session:set('scene', '2') session:set('room', 'r')\n"
		       "  if msg.flag then return nil, 'denied' end\n"
		       "  return { text = session.scene }\n"
		       "end");
	say(1, "{}", 0, &reply);
	reply_wait(&reply);
	ck_says(&reply, "{\"code\":200,\"text\":\"2\"}");
	ck_assert_uint_eq(reply.attrs, 2);
	say(1, "{\"flag\":true}", 0, &reply);
	reply_wait(&reply);
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
	say(1, "{}", 0, &reply);
	reply_wait(&reply);
	say(2, "{}", 0, &reply);
	reply_wait(&reply);
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
		"    tostring(pcall(session.set, session, 'n', ('x'):rep(64))), tostring(pcall(session.set)), session.uid } }\n"
		"end");
	say(1, "{}", 0, &reply);
	reply_wait(&reply);
	ck_says(&reply, "{\"code\":200,\"words\":[\"false\",\"false\",\"false\",\"false\",\"ann\"]}");
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
	say(1, "{}", 0, &reply);
	reply_wait(&reply);
	ck_says(&reply, "{\"code\":200,\"words\":[\"false\",\"false\",\"false\"]}");
	until(told("kick"));
	ck_assert(told("\x12\x05onOne\x1a\x07{\"a\":1}"));
	ck_assert(told("\x12\x06onMany\x1a\x07{\"b\":2}"));
	ck_assert(told("push \x0a\x10\x01"));
	ck_assert(!told("onNobody"));
	ck_assert(told("enough"));
}
END_TEST

#ifndef __SANITIZE_THREAD__ /* it holds back the signal that stops a loop */
START_TEST(a_session_whose_requests_are_stopped_again_and_again_rests)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  while msg.text == 'loop' do end\n"
		       "  return {}\n"
		       "end");
	say(1, "{\"text\":\"loop\"}", 0, &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	say(1, "{}", 0, &reply); /* once is forgiven: the machine may have stood still */
	reply_wait(&reply);
	ck_says(&reply, "{\"code\":200}");
	say(1, "{\"text\":\"loop\"}", 0, &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	say(1, "{}", 0, &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_BUSY, EFFECT_NONE);
	ck_assert_ptr_nonnull(strstr(reply.message, "rests"));
	say(2, "{}", 0, &reply);
	reply_wait(&reply);
	ck_says(&reply, "{\"code\":200}");
}
END_TEST

START_TEST(a_request_that_waits_while_its_session_begins_to_rest_does_not_run)
{
	begin_sessions("function Handler.say(session, msg)\n"
		       "  if msg.text == 'wake' then app.wake(state.t.queue) return {} end\n"
		       "  if msg.text == 'later' then app.wait(state.t.queue) end\n"
		       "  while msg.text do end\n"
		       "  return {}\n"
		       "end");
	say(1, "{\"text\":\"loop\"}", 0, &reply);
	reply_wait(&reply);
	ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
	say(1, "{\"text\":\"later\"}", 0, &reply);
	say(1, "{}", 0, &second);
	say(2, "{\"text\":\"wake\"}", 0, &third);
	reply_wait(&third);
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
		       "  local text = ('x'):rep(4 << 20)\n"
		       "  while msg.text do text = text .. text end\n"
		       "  return {}\n"
		       "end");
	for (int i = 0; i < 2; i++) {
		say(1, "{\"text\":\"memory\"}", 0, &reply);
		reply_wait(&reply);
		ck_reply(&reply, ERR_FAILED, EFFECT_NONE);
		ck_assert_ptr_nonnull(strstr(reply.message, "memory"));
	}
	say(1, "{}", 0, &reply);
	reply_wait(&reply);
	ck_says(&reply, "{\"code\":200}");
}
END_TEST

START_TEST(a_session_without_a_uid_is_soon_forgotten)
{
	begin_sessions("function Handler.say() return {} end\nfunction Handler.echo(session, msg) return msg end");
	struct rpc_call call = { .to = { .worker = -1, .key = span_of("u", 1) }, .body = span_of("{}", 2), .sid = 5 };

	calls_call(c.s[CONNECTOR], 0, "calls.boxHandler.echo", call, &reply);
	reply_wait(&reply);
	say(6, "{}", 0, &second);
	reply_wait(&second);
	ck_says(&second, "{\"code\":200}");
	until(c.s[CALLS]->worker[0]->app->sessions == 1); /* the one with a uid */
}
END_TEST

/* ---- what this instance is --------------------------------------------------------------------------------------------------- */

START_TEST(a_script_knows_its_instance_and_the_others)
{
	begin("function Remote.put()\n"
	      "  return { words = { app.instance, tostring(app.worker), tostring(app.workers), tostring(app.epoch > 0),\n"
	      "    app.owner('caller', 'k'), tostring(app.owner('nothing', 'k')), app.instances('caller')[1].id,\n"
	      "    tostring(#app.instances('nothing')), app.config('rpc.timeout_ms', 1) .. '', app.config('none.such', 'otherwise'),\n"
	      "    tostring(pcall(app.config, 'x')) } }\n"
	      "end");
	ck_put("{}", "{\"words\":[\"calls-1\",\"0\",\"1\",\"true\",\"caller-1\",\"nil\",\"caller-1\",\"0\",\"5000\","
		     "\"otherwise\",\"false\"]}");
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
	TCase *one = tcase_create("one worker"), *three = tcase_create("three workers"), *hasty = tcase_create("hasty"),
	      *small = tcase_create("little memory");

	tcase_add_checked_fixture(one, setup, teardown);
	tcase_add_checked_fixture(three, setup_three, teardown);
	tcase_add_checked_fixture(hasty, setup_hasty, teardown);
	tcase_add_checked_fixture(small, setup_small, teardown);
	tcase_set_timeout(one, 60);
	tcase_set_timeout(small, 60);
	tcase_set_timeout(three, 60);
	tcase_set_timeout(hasty, 60);
	tcase_add_test(one, a_remote_answers_with_its_value);
	tcase_add_test(one, a_remote_is_told_of_its_call_if_it_takes_that);
	tcase_add_test(one, a_method_without_a_function_is_not_found);
	tcase_add_test(one, an_answer_that_is_not_of_its_type_fails);
	tcase_add_test(one, what_raises_fails_and_nothing_else);
	tcase_add_test(one, a_refusal_is_one_of_the_eight_words_with_a_message);
	tcase_add_test(one, a_refusal_may_say_what_is_known_of_the_effect);
	tcase_add_test(one, what_raises_after_it_called_others_leaves_an_unknown_effect);
#ifndef __SANITIZE_THREAD__ /* it holds back the signal that stops a loop */
	tcase_add_test(one, an_endless_loop_is_stopped_and_fails_alone);
	tcase_add_test(one, a_session_whose_requests_are_stopped_again_and_again_rests);
	tcase_add_test(one, a_request_that_waits_while_its_session_begins_to_rest_does_not_run);
#endif
	tcase_add_test(one, a_session_without_a_uid_is_soon_forgotten);
	tcase_add_test(small, a_session_that_finds_the_memory_used_up_does_not_rest);
	tcase_add_test(one, a_script_calls_other_services_and_itself);
	tcase_add_test(one, an_answer_may_come_to_a_function_while_the_caller_goes_on);
	tcase_add_test(one, a_call_that_fails_gives_nil_the_word_the_message_and_the_effect);
	tcase_add_test(one, calls_that_go_round_in_a_circle_are_an_error_that_names_it);
	tcase_add_test(one, a_misuse_of_a_call_raises_and_names_what_is_wrong);
	tcase_add_test(hasty, a_call_s_time_is_bounded_by_what_is_left_of_the_caller_s);
	tcase_add_test(one, what_is_sent_arrives_and_is_not_waited_for);
	tcase_add_test(one, who_waits_goes_on_in_order_when_woken);
	tcase_add_test(one, a_place_in_a_queue_wakes_once_whatever_scripts_do_with_it);
	tcase_add_test(one, tasks_that_wake_each_other_for_ever_do_not_hold_up_the_worker);
	tcase_add_test(one, a_long_chain_of_wakes_is_no_recursion);
	tcase_add_test(one, a_task_has_its_arguments_and_changes_of_its_own);
	tcase_add_test(one, a_timer_s_changes_belong_to_a_task);
	tcase_add_test(one, a_change_is_in_memory_and_in_the_log_when_it_is_answered);
	tcase_add_test(one, what_raises_or_refuses_changes_nothing);
	tcase_add_test(one, a_record_without_a_key_is_refused);
	tcase_add_test(one, commit_lands_what_was_collected_so_far);
	tcase_add_test(one, nothing_may_wait_while_changes_are_collected);
	tcase_add_test(one, a_bad_statement_a_bad_value_or_a_bad_field_raises);
	tcase_add_test(one, a_nil_that_is_set_forgets_the_field);
	tcase_add_test(one, sync_waits_for_what_others_have_recorded);
	tcase_add_test(one, the_cache_gives_back_what_was_put_as_a_copy);
	tcase_add_test(one, a_key_or_a_value_that_cannot_be_cached_raises_and_a_large_one_is_refused);
	tcase_add_test(one, a_cached_value_goes_when_its_seconds_are_over);
	tcase_add_test(one, what_is_cached_beside_a_change_takes_effect_with_it_or_not_at_all);
	tcase_add_test(one, a_delete_beside_a_change_takes_effect_with_it);
	tcase_add_test(one, a_read_without_a_database_is_unavailable_in_time);
	tcase_add_test(one, a_handler_s_answer_has_its_code);
	tcase_add_test(one, requests_of_one_session_run_one_at_a_time_and_others_do_not_wait);
	tcase_add_test(one, too_many_requests_of_one_session_are_busy);
	tcase_add_test(one, a_request_whose_time_was_over_while_it_waited_does_not_run);
	tcase_add_test(one, an_attribute_leaves_with_the_answer_of_the_session_s_own_request);
	tcase_add_test(one, an_attribute_of_another_session_goes_to_that_session);
	tcase_add_test(one, what_a_session_is_known_by_cannot_be_set);
	tcase_add_test(one, a_push_goes_to_one_session_or_to_many_in_one_frame);
	tcase_add_test(one, a_script_knows_its_instance_and_the_others);
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
	Suite *s = suite_create("app");
	suite_add_tcase(s, one);
	suite_add_tcase(s, three);
	suite_add_tcase(s, hasty);
	suite_add_tcase(s, small);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
