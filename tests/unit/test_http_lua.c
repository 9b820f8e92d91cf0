/* A service's scripts through the HTTP face: reloads in steps, figures, the operator's console, profiles. */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "tests/support/scripted.h"
#include "tests/support/suite.h"

static struct http_reply http;

static void setup_one(void)
{
	setup_with(1, NULL);
}

static void setup_three(void)
{
	setup_with(3, NULL);
}

static int post(const char *path, const char *body)
{
	return calls_http(&c, CALLS, "POST", path, true, body, &http);
}

static void version_is(const char *text)
{
	char file[300];

	snprintf(file, sizeof(file),
		 "state.n = state.n or 0\nreturn { get = function() state.n = state.n + 1 return { text = %s, "
		 "number = state.n } end }\n",
		 text);
	calls_file(&c, "boxRemote.lua", file);
}

/* All workers answer this text; each for the nth time. */
static void ck_version(const char *text, int nth)
{
	for (unsigned i = 0; i < c.s[CALLS]->workers; i++) {
		struct rpc_call call = { .to = { .instance = "calls-1", .worker = (int)i } };
		char expected[100];

		calls_call(c.s[CALLS], 0, "calls.boxRemote.get", call, &reply);
		reply_wait(&reply);
		snprintf(expected, sizeof(expected), "{\"text\":\"%s\",\"number\":%d}", text, nth);
		ck_assert_str_eq(reply.body, expected);
	}
}

START_TEST(a_reload_switches_all_workers_and_keeps_their_state)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	ck_version("one", 1);
	version_is("'two'");
	ck_assert_int_eq(post("/admin/reload", ""), 200);
	json_t *o = http_body_json(&http);
	ck_assert_str_eq(http_body_word(o, "instance"), "calls-1");
	ck_assert_str_ne(http_body_word(o, "version"), "");
	json_decref(o);
	ck_version("two", 2);
}
END_TEST

START_TEST(broken_code_changes_nothing_and_the_error_names_file_and_line)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	version_is("(");
	post("/admin/reload", "");
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "boxRemote.lua:2:"));
	ck_version("one", 1);
	calls_file(&c, "boxRemote.lua", "error('at loading')\n");
	post("/admin/reload?step=prepare", "");
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "boxRemote.lua:1: at loading"));
	ck_assert_int_eq(post("/admin/reload?step=switch", ""), 200); /* nothing was prepared */
	ck_version("one", 2);
}
END_TEST

START_TEST(what_is_prepared_runs_after_the_switch_and_not_after_an_abort)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	version_is("'two'");
	ck_assert_int_eq(post("/admin/reload?step=prepare", ""), 200);
	ck_version("one", 1);
	ck_assert_int_eq(post("/admin/reload?step=switch", ""), 200);
	ck_version("two", 2);
	version_is("'three'");
	ck_assert_int_eq(post("/admin/reload?step=prepare", ""), 200);
	ck_assert_int_eq(post("/admin/reload?step=abort", ""), 200);
	ck_assert_int_eq(post("/admin/reload?step=switch", ""), 200);
	ck_version("two", 3);
	post("/admin/reload?step=nonsense", "");
	ck_http_error(&http, 400, "bad_request", "none");
}
END_TEST

START_TEST(an_on_reload_that_fails_on_one_worker_takes_all_back)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	version_is("'two'");
	calls_file(&c, "init.lua",
		   "return { on_reload = function() assert(app.worker ~= app.workers - 1, 'not here') end }\n");
	post("/admin/reload", "");
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "init.lua:1: not here"));
	ck_version("one", 1);
	calls_file(&c, "init.lua", "return { check = function() return nil, 'the price list is empty' end }\n");
	post("/admin/reload?step=prepare", "");
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "the price list is empty"));
	ck_version("one", 2);
}
END_TEST

/* Who refuses the files that it runs already runs on, and does not go back to what it ran before them. */
START_TEST(a_reload_of_the_same_files_that_one_worker_refuses_changes_nothing)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	version_is("'two'");
	calls_file(&c, "init.lua",
		   "return { on_reload = function()\n"
		   "  assert(not state.moved or app.worker < app.workers - 1, 'it has moved')\n"
		   "  state.moved = true\n"
		   "end }\n");
	ck_assert_int_eq(post("/admin/reload", ""), 200);
	ck_version("two", 1);
	post("/admin/reload", "");
	ck_http_error(&http, 500, "failed", "none");
	ck_version("two", 2);
}
END_TEST

/* Who catches up with the others may run what they run already: its on_reload has nothing to migrate. */
START_TEST(files_that_run_already_are_not_switched_to_if_only_changed_ones_are_wanted)
{
	version_is("tostring(state.moved)");
	calls_begin(&c, CALLS, &calls_lua);
	calls_file(&c, "init.lua", "return { on_reload = function() state.moved = (state.moved or 0) + 1 end }\n");
	ck_assert_int_eq(post("/admin/reload?what=changed", ""), 200);
	ck_version("1", 1);
	ck_assert_int_eq(post("/admin/reload?what=changed", ""), 200);
	ck_version("1", 2);
	ck_assert_int_eq(post("/admin/reload", ""), 200);
	ck_version("2", 3);
	post("/admin/reload?what=nonsense", "");
	ck_http_error(&http, 400, "bad_request", "none");
}
END_TEST

START_TEST(who_runs_a_version_can_be_sent_back_to_the_one_before)
{
	char version[16], path[100];

	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	version_is("'two'");
	ck_assert_int_eq(post("/admin/reload", ""), 200);
	json_t *o = http_body_json(&http);
	snprintf(version, sizeof version, "%s", http_body_word(o, "version"));
	json_decref(o);
	ck_assert_int_eq(post("/admin/reload?step=rollback&version=00000000", ""), 200); /* nobody runs that */
	ck_version("two", 1);
	snprintf(path, sizeof path, "/admin/reload?step=rollback&version=%s", version);
	ck_assert_int_eq(post(path, ""), 200);
	o = http_body_json(&http);
	ck_assert_str_ne(http_body_word(o, "running"), version);
	json_decref(o);
	ck_version("one", 2);
	post("/admin/reload?step=rollback", "");
	ck_http_error(&http, 400, "bad_request", "none");
}
END_TEST

static void ck_busy(const char *path)
{
	post(path, "");
	ck_http_error(&http, 429, "busy", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "another reload is under way"));
}

/* What is prepared, and what may have to be taken back after the switch, is one operator's until the abort that ends it. */
START_TEST(who_has_prepared_for_one_operator_refuses_the_steps_of_another)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	version_is("'two'");
	ck_assert_int_eq(post("/admin/reload?step=prepare&by=a&turn=1", ""), 200);
	version_is("'three'");
	ck_busy("/admin/reload?step=prepare&by=b&turn=9");
	ck_busy("/admin/reload?step=switch&by=b&turn=9");
	ck_busy("/admin/reload?step=abort&by=b&turn=9");
	ck_busy("/admin/reload");
	ck_assert_int_eq(post("/admin/reload?step=switch&by=a&turn=1", ""), 200);
	ck_version("two", 1);
	ck_busy("/admin/reload?step=prepare&by=b&turn=9");
	ck_assert_int_eq(post("/admin/reload?step=abort&by=a&turn=2", ""), 200);
	ck_assert_int_eq(post("/admin/reload?step=prepare&by=b&turn=9", ""), 200);
	ck_busy("/admin/reload?step=rollback&version=00000000&by=a&turn=3");
	ck_assert_int_eq(post("/admin/reload?step=switch&by=b&turn=9", ""), 200);
	ck_version("three", 2);
}
END_TEST

START_TEST(a_step_that_comes_after_a_later_one_of_its_operator_is_refused)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	version_is("'two'");
	ck_assert_int_eq(post("/admin/reload?step=prepare&by=a&turn=1", ""), 200);
	ck_assert_int_eq(post("/admin/reload?step=rollback&version=00000000&by=a&turn=2", ""), 200);
	post("/admin/reload?step=switch&by=a&turn=1", "");
	ck_http_error(&http, 429, "busy", "none");
	ck_version("one", 1);
	ck_assert_int_eq(post("/admin/reload?step=switch&by=a&turn=2", ""), 200); /* it was dropped on the way back */
	ck_version("one", 2);
	json_t *o = http_body_json(&http);
	ck_assert_str_eq(http_body_word(o, "running"), http_body_word(o, "version"));
	json_decref(o);
	ck_assert_int_eq(post("/admin/reload?step=prepare&by=a&turn=3", ""), 200);
	ck_assert_int_eq(post("/admin/reload?step=abort&by=a&turn=4", ""), 200);
	post("/admin/reload?step=prepare&by=a&turn=3", "");
	ck_http_error(&http, 429, "busy", "none");
	post("/admin/reload?step=prepare&by=12345678901234567890&turn=1", "");
	ck_http_error(&http, 400, "bad_request", "none");
}
END_TEST

/* Who catches up is given what the others have, not what was written since. */
START_TEST(files_of_another_version_than_is_wanted_are_not_taken)
{
	char path[100];

	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	version_is("'two'");
	ck_assert_int_eq(post("/admin/reload?step=prepare", ""), 200);
	json_t *o = http_body_json(&http);
	snprintf(path, sizeof path, "/admin/reload?what=changed&version=%s", http_body_word(o, "version"));
	json_decref(o);
	version_is("'three'");
	post(path, "");
	ck_http_error(&http, 503, "unavailable", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "have changed since"));
	ck_version("one", 1);
	version_is("'two'");
	ck_assert_int_eq(post(path, ""), 200);
	ck_version("two", 2);
	version_is("'three'");
	ck_assert_int_eq(post(path, ""), 200); /* it runs them */
	ck_version("two", 3);
}
END_TEST

static int price_list_is(const char *table)
{
	calls_file(&c, "tables/prices.lua", table);
	return post("/admin/reload", "");
}

START_TEST(shared_tables_are_reloaded_with_the_code_or_not_at_all)
{
	char folder[400];

	snprintf(folder, sizeof folder, "%s/lua/tables", c.dir);
	ck_assert_int_eq(mkdir(folder, 0700), 0);
	calls_file(&c, "tables/prices.lua", "return { potion = { name = 'one' } }\n");
	version_is("require('tables.prices').potion.name");
	calls_begin(&c, CALLS, &calls_lua);
	ck_version("one", 1);
	ck_assert_int_eq(price_list_is("return { potion = { name = 'two' } }\n"), 200);
	ck_version("two", 2);
	price_list_is("return {\n  potion = { name = = 'three' } }\n");
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "tables/prices.lua:2:"));
	price_list_is("return { potion = { name = function() end } }\n");
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "tables/prices.lua: potion.name: only texts"));
	ck_version("two", 3);
}
END_TEST

START_TEST(what_is_only_tried_reaches_nobody)
{
	static const char *const texts[] = { "app.push({sid = 1, connector = 'calls-1'}, 'r', {})",
					     "app.task(function() end)", "cache.put('a', 1)",
					     "app.send.calls.boxRemote.put('k', {})",
					     "app.kick({sid = 1, connector = 'calls-1'})" };

	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		calls_file(&c, "init.lua", texts[i]);
		post("/admin/reload", "");
		ck_http_error(&http, 500, "failed", "none");
		ck_assert_ptr_nonnull(strstr(http.body, "not while a file is loaded"));
	}
	ck_version("one", 1);
}
END_TEST

static bool metrics_say(const char *line)
{
	ck_assert_int_eq(calls_http(&c, CALLS, "GET", "/metrics", false, NULL, &http), 200);
	return strstr(http.body, line) != NULL;
}

START_TEST(figures_of_scripts_are_metrics_summed_over_the_workers)
{
	char line[100];
	unsigned workers;

	calls_file(&c, "boxRemote.lua",
		   "return { get = function()\n"
		   "  metrics.counter('kills_total', 'Monsters killed.', { kind = 'slime' }):add(2)\n"
		   "  metrics.histogram('wait_seconds', 'Waits.'):observe(0.25)\n"
		   "  return { text = 'one', number = 1 }\nend }\n");
	calls_begin(&c, CALLS, &calls_lua);
	workers = c.s[CALLS]->workers;
	ck_version("one", 1);
	snprintf(line, sizeof line, "loquat_calls_kills_total{instance=\"calls-1\",kind=\"slime\"} %u\n", 2 * workers);
	until(metrics_say(line));
	ck_assert(metrics_say(
		"# HELP loquat_calls_kills_total Monsters killed.\n# TYPE loquat_calls_kills_total counter\n"));
	snprintf(line, sizeof line, "loquat_calls_wait_seconds_count{instance=\"calls-1\"} %u\n", workers);
	until(metrics_say(line));
	ck_assert(metrics_say(
		"\nloquat_lua_gc_pause_p99_seconds{instance=\"calls-1\"} ")); /* the collector's, of all workers */
}
END_TEST

START_TEST(an_operator_s_line_runs_in_a_worker)
{
	char path[60];

	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	ck_version("one", 1);
	snprintf(path, sizeof path, "/admin/console?worker=%u", c.s[CALLS]->workers - 1);
	ck_assert_int_eq(post(path, "app.worker, state.n, require('boxRemote') ~= nil"), 200);
	snprintf(path, sizeof path, "[%u,1,true]", c.s[CALLS]->workers - 1);
	ck_assert_str_eq(http.body, path);
	post("/admin/console", "mine = 5 state.n = 7");
	ck_assert_str_eq(http.body, "[]");
	post("/admin/console", "clock.sleep(1) return mine, state.n, {1}, function() end");
	ck_assert_str_eq(http.body, "[5,7,[1],\"function\"]");
	post("/admin/console", "#console.tasks(), #console.timers(), #console.sessions(), #console.memory() > 0");
	ck_assert_str_eq(http.body, "[1,0,0,true]");
	post("/admin/console", "local x = )");
	ck_http_error(&http, 400, "bad_request", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "console:1: unexpected symbol near ')'"));
	post("/admin/console", "nowhere");
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_nonnull(strstr(http.body, "console:1: the global 'nowhere' is not defined"));
	post("/admin/console?worker=99", "1");
	ck_http_error(&http, 400, "bad_request", "none");
}
END_TEST

START_TEST(an_operator_s_line_that_ends_too_early_is_told_so)
{
	static const char *const lines[] = { "1 +", "f(", "for i = 1, 3 do", "x = {", "if x then", "return [[text" };

	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		post("/admin/console", lines[i]);
		ck_http_error(&http, 400, "bad_request", "none");
		ck_assert_ptr_nonnull(strstr(http.body, "near <eof>: the code ends too early"));
	}
	post("/admin/console", "error('near <eof>', 0)"); /* it ran */
	ck_http_error(&http, 500, "failed", "none");
	ck_assert_ptr_null(strstr(http.body, "too early"));
	ck_assert_int_eq(post("/admin/console", "for i = 1, 3 do\nn = i end"), 200);
	post("/admin/console", "n, 1 +\n2");
	ck_assert_str_eq(http.body, "[3,3]");
}
END_TEST

START_TEST(a_profile_of_all_workers_is_folded_stacks)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	ck_assert_int_eq(post("/admin/profile?seconds=1&hz=50", ""), 200);
	ck_assert_ptr_nonnull(strstr(http.body, "(not_in_Lua) "));
	post("/admin/profile?seconds=1000", "");
	ck_http_error(&http, 400, "bad_request", "none");
}
END_TEST

START_TEST(methods_come_and_go_with_a_reload)
{
	version_is("'one'");
	calls_begin(&c, CALLS, &calls_lua);
	calls_ask(c.s[CALLS], "calls.boxRemote.put", "k", "{}", &reply);
	ck_assert_int_eq(reply.err, ERR_NOT_FOUND);
	calls_file(&c, "boxRemote.lua", "return { put = function() return { text = 'new' } end }\n");
	ck_assert_int_eq(post("/admin/reload", ""), 200);
	calls_ask(c.s[CALLS], "calls.boxRemote.put", "k", "{}", &reply);
	ck_assert_str_eq(reply.body, "{\"text\":\"new\"}");
	calls_ask(c.s[CALLS], "calls.boxRemote.get", "k", "{}", &reply);
	ck_assert_int_eq(reply.err, ERR_NOT_FOUND);
}
END_TEST

START_TEST(what_runs_while_code_is_switched_ends_on_the_old)
{
	calls_file(&c, "boxRemote.lua",
		   "state.q = state.q or {}\nreturn { put = function() app.wait(state.q) return { text = 'old' } end,\n"
		   "  get = function() return { number = #state.q } end }\n");
	calls_begin(&c, CALLS, &calls_lua);
	struct rpc_call call = { .to = { .instance = "calls-1", .worker = 0 } };

	calls_call(c.s[CALLS], 0, "calls.boxRemote.put", call, &second);
	do
		calls_ask(c.s[CALLS], "calls.boxRemote.get", "k", "{}", &reply);
	while (!strstr(reply.body, "1"));
	calls_file(&c, "boxRemote.lua", "return { put = function() app.wake(state.q) return { text = 'new' } end }\n");
	ck_assert_int_eq(post("/admin/reload", ""), 200);
	calls_call(c.s[CALLS], 0, "calls.boxRemote.put", call, &reply);
	reply_wait(&reply);
	ck_assert_str_eq(reply.body, "{\"text\":\"new\"}");
	reply_wait(&second);
	ck_assert_str_eq(second.body, "{\"text\":\"old\"}");
}
END_TEST

int main(void)
{
	TCase *one = scripted_case("one worker", setup_one), *three = scripted_case("three workers", setup_three);

	tcase_add_test(one, a_reload_switches_all_workers_and_keeps_their_state);
	tcase_add_test(one, an_on_reload_that_fails_on_one_worker_takes_all_back);
	tcase_add_test(one, a_reload_of_the_same_files_that_one_worker_refuses_changes_nothing);
	tcase_add_test(one, files_that_run_already_are_not_switched_to_if_only_changed_ones_are_wanted);
	tcase_add_test(one, who_runs_a_version_can_be_sent_back_to_the_one_before);
	tcase_add_test(one, who_has_prepared_for_one_operator_refuses_the_steps_of_another);
	tcase_add_test(one, a_step_that_comes_after_a_later_one_of_its_operator_is_refused);
	tcase_add_test(one, files_of_another_version_than_is_wanted_are_not_taken);
	tcase_add_test(one, shared_tables_are_reloaded_with_the_code_or_not_at_all);
	tcase_add_test(one, figures_of_scripts_are_metrics_summed_over_the_workers);
	tcase_add_test(one, an_operator_s_line_runs_in_a_worker);
	tcase_add_test(one, an_operator_s_line_that_ends_too_early_is_told_so);
	tcase_add_test(one, a_profile_of_all_workers_is_folded_stacks);
	tcase_add_test(one, what_is_only_tried_reaches_nobody);
	tcase_add_test(one, broken_code_changes_nothing_and_the_error_names_file_and_line);
	tcase_add_test(one, what_is_prepared_runs_after_the_switch_and_not_after_an_abort);
	tcase_add_test(one, methods_come_and_go_with_a_reload);
	tcase_add_test(one, what_runs_while_code_is_switched_ends_on_the_old);
	tcase_add_test(three, a_reload_switches_all_workers_and_keeps_their_state);
	tcase_add_test(three, an_on_reload_that_fails_on_one_worker_takes_all_back);
	tcase_add_test(three, a_reload_of_the_same_files_that_one_worker_refuses_changes_nothing);
	tcase_add_test(three, files_that_run_already_are_not_switched_to_if_only_changed_ones_are_wanted);
	tcase_add_test(three, who_runs_a_version_can_be_sent_back_to_the_one_before);
	tcase_add_test(three, who_has_prepared_for_one_operator_refuses_the_steps_of_another);
	tcase_add_test(three, a_step_that_comes_after_a_later_one_of_its_operator_is_refused);
	tcase_add_test(three, files_of_another_version_than_is_wanted_are_not_taken);
	tcase_add_test(three, an_operator_s_line_runs_in_a_worker);
	tcase_add_test(three, a_profile_of_all_workers_is_folded_stacks);
	tcase_add_test(three, broken_code_changes_nothing_and_the_error_names_file_and_line);
	tcase_add_test(three, what_is_prepared_runs_after_the_switch_and_not_after_an_abort);
	return suite_run("http_lua", one, three);
}
