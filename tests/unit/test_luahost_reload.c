/* The promises of common/luahost.h for reloads: tried first, all or nothing, with a way back. Scripts run on a real worker. */
#include <check.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/script.h"
#include "tests/support/suite.h"

static const char *go(void)
{
	static struct run x;
	x = (struct run){ .ended = 0 };
	start(&x);
	return x.err ? x.message : x.results;
}

static int prepare(struct luasrc *take)
{
	int err = luahost_prepare(host, take, why, sizeof why);
	luasrc_unref(take);
	return err;
}

static int reload(struct luasrc *take)
{
	int err = prepare(take);
	return err < 0 ? err : luahost_switch(host, why, sizeof why);
}

/* The code that runs answers state.n; reloads begin with n = 5. */
static void load_first(void)
{
	load(SRC("init", "state.n = state.n or 5 return {go = function() return 'one', state.n, state.extra end}"));
	ck_assert_msg(load_err == 0, "%s", why);
	ck_assert_str_eq(go(), "\"one\" 5 null");
}

/* ---- the trial ---- */

static int check(struct luasrc *src)
{
	struct luahost_options o = options;
	struct luahost *trial;
	o.trial = true;
	ck_assert_int_eq(luahost_new(&o, &trial), 0);
	int err = luahost_check(trial, src, why, sizeof why);
	luahost_free(trial);
	return err;
}

#define ck_check_fails(text, source)                      \
	do {                                              \
		struct luasrc *src = SRC("init", source); \
		ck_assert_int_eq(check(src), ERR_FAILED); \
		ck_has(why, text);                        \
		luasrc_unref(src);                        \
	} while (0)

ON_LOOP(what_running_code_did_to_a_library_is_not_blamed_on_the_next_files)
{
	load(SRC("init", "return {go = function()\n"
			 "  pcall(function() string.format = string.rep end)\n"
			 "  pcall(rawset, string, 'format', string.rep)\n"
			 "  return 1\n"
			 "end}"));
	ck_assert_msg(load_err == 0, "%s", why);
	ck_assert_str_eq(go(), "1");
	ck_assert_msg(reload(SRC("init", "return {go = function() return string.format('%d', 2) end}")) == 0, "%s",
		      why);
	ck_assert_str_eq(go(), "\"2\"");
}

ON_LOOP(code_that_does_not_compile_raises_or_fails_its_check_is_found_in_a_state_of_its_own)
{
	load_first();
	ck_check_fails("init.lua:2:", "local x = 1\nlocal = 2");
	ck_check_fails("init.lua:1: at the top", "error('at the top')");
	ck_check_fails("init.lua:1: too few", "return {check = function() error('too few') end}");
	ck_check_fails("check(): the table is empty",
		       "return {check = function() return nil, 'the table is empty' end}");
	ck_check_fails("init.lua:1: stopped: it ran for more than its budget", "while true do end");
	ck_check_fails("cannot wait", "return {check = function() clock.sleep(1) end}");
	ck_check_fails("init.lua: an error that is a table: {code = 5}", "error({code = 5})");
	ck_check_fails("init.lua: an error that is a nil", "return {check = function() error() end}");
	ck_check_fails("init.lua: attempt to load a binary chunk", "\x1bLua");
	struct luasrc *two =
		SRC("init", "pcall(require, 'other') require 'm'", "m", "error(false)", "other", "error()");
	ck_assert_int_eq(check(two), ERR_FAILED);
	ck_has(why, "m.lua: an error that is a boolean");
	luasrc_unref(two);
	ck_assert_int_eq(prepare(SRC("init", "local s = 'x' while true do s = s .. s end")), ERR_NOMEM);
	ck_has(why, "init.lua: not enough memory");
	ck_check_fails("timers are started by what runs", "clock.every(5, function() end)");
	ck_assert_str_eq(go(), "\"one\" 5 null");
}

ON_LOOP(a_check_may_pass_and_sees_an_empty_state)
{
	struct luasrc *src =
		SRC("init",
		    "local M = {} function M.check() assert(next(state) == nil) assert(require('m') == 7) end "
		    "return M",
		    "m", "return 7");
	load_first();
	ck_assert_msg(check(src) == 0, "%s", why);
	luasrc_unref(src);
}

ON_LOOP(what_was_checked_need_not_be_compiled_again_and_keeps_its_lines)
{
	struct luasrc *src =
		SRC("init", "local M = {}\nfunction M.go()\n  error('here')\nend\nreturn M", "other", "return 5");
	ck_assert_msg(check(src) == 0, "%s", why);
	for (size_t i = 0; i < luasrc_files(src); i++)
		ck_assert_uint_gt(luasrc_at(src, i)->code_bytes, 0);
	load_first();
	ck_assert_int_eq(reload(src), 0);
	ck_assert_str_eq(go(), "init.lua:3: here");
}

/* ---- preparing beside the code that runs ---- */

ON_LOOP(what_new_files_put_into_state_is_kept_apart_until_the_switch)
{
	load_first();
	ck_assert_int_eq(prepare(SRC("init", "state.n = 6 state.extra = 'x' state.list = nil "
					     "return {go = function() return 'two', state.n, state.extra end}")),
			 0);
	ck_assert_str_eq(go(), "\"one\" 5 null");
	ck_assert_int_eq(luahost_switch(host, why, sizeof why), 0);
	ck_assert_str_eq(go(), "\"two\" 6 \"x\"");
}

ON_LOOP(code_that_is_refused_or_dropped_leaves_no_trace_in_state)
{
	load_first();
	ck_assert_int_eq(prepare(SRC("init", "state.extra = 1 state.n = nil error('late')")), ERR_FAILED);
	ck_assert_str_eq(go(), "\"one\" 5 null");
	ck_assert_int_eq(prepare(SRC("init", "state.extra = 1 state.n = nil return {}")), 0);
	luahost_abort(host);
	ck_assert_str_eq(go(), "\"one\" 5 null");
	ck_assert_int_eq(luahost_switch(host, why, sizeof why), 0);
	ck_assert_str_eq(go(), "\"one\" 5 null");
}

ON_LOOP(code_that_is_refused_or_dropped_leaves_no_trace_in_the_libraries)
{
	load(SRC("init", "return {go = function() return ('x'):rep(3), string.rep('y', 2), math.tau end}"));
	ck_assert_msg(load_err == 0, "%s", why);
	ck_assert_int_eq(prepare(SRC("init", "pcall(rawset, math, 'tau', 6) error('late')")), ERR_FAILED);
	ck_assert_str_eq(why, "init.lua:1: late");
	ck_assert_str_eq(go(), "\"xxx\" \"yy\" null");
	ck_assert_int_eq(prepare(SRC("init", "return require('m')", "m", "string.rep = string.upper return {}")),
			 ERR_FAILED);
	ck_has(why, "m.lua:1: string.rep: a library cannot be changed");
	ck_assert_str_eq(go(), "\"xxx\" \"yy\" null");
	ck_check_fails("init.lua:1: math.pi: a library cannot be changed", "math.pi = 3 return {}");
}

ON_LOOP(what_new_files_take_out_of_state_is_gone_after_the_switch_only)
{
	load_first();
	ck_assert_int_eq(prepare(SRC("init", "state.n = nil return {go = function() return 'two', state.n end}")), 0);
	ck_assert_str_eq(go(), "\"one\" 5 null");
	ck_assert_int_eq(luahost_switch(host, why, sizeof why), 0);
	ck_assert_str_eq(go(), "\"two\" null");
}

ON_LOOP(later_files_see_what_earlier_ones_put_into_state)
{
	load_first();
	ck_assert_int_eq(reload(SRC("aHandler", "state.list = {1} return {}", "bHandler",
				    "state.list[2] = 2 state.extra = #state.list return {}", "init",
				    "return {go = function() return #state.list, state.extra end}")),
			 0);
	ck_assert_str_eq(go(), "2 2");
}

ON_LOOP(files_are_prepared_one_at_a_time_and_requests_run_in_between)
{
	struct luasrc *src =
		SRC("aHandler", "return {}", "bHandler", "return {}", "init", "return {go = function() return 2 end}");
	int steps = 0, err;
	load_first();
	ck_assert_int_eq(luahost_prepare_begin(host, src, why, sizeof why), 0);
	while ((err = luahost_prepare_step(host, why, sizeof why)) == 1) {
		steps++;
		ck_assert_str_eq(go(), "\"one\" 5 null");
	}
	ck_assert_int_eq(err, 0);
	ck_assert_int_eq(steps, 6); /* each is compiled, then run */
	luasrc_unref(src);
}

ON_LOOP(a_field_that_both_have_set_meanwhile_is_a_reason_to_refuse)
{
	load(SRC("init", "return {go = function() state.x = (state.x or 0) + 1 return state.x end}"));
	ck_assert_int_eq(prepare(SRC("init", "state.x = state.x or 100 return {go = function() return state.x end}")),
			 0);
	ck_assert_str_eq(go(), "1");
	ck_assert_int_eq(luahost_switch(host, why, sizeof why), ERR_FAILED);
	ck_has(why, "state.x was changed by the running code meanwhile");
	ck_assert_str_eq(go(), "2");
}

/* ---- on_reload ---- */

ON_LOOP(on_reload_migrates_the_state_before_anybody_sees_the_new_code)
{
	char before[20];
	load_first();
	snprintf(before, sizeof before, "%s", luahost_version(host));
	ck_assert_int_eq(
		reload(SRC(
			"init",
			"local M = {} function M.on_reload(old) state.count, state.n, state.extra = "
			"state.n * 2, nil, old end function M.go() return state.count, state.n, state.extra end return M")),
		0);
	char expected[60];
	snprintf(expected, sizeof expected, "10 null \"%s\"", before);
	ck_assert_str_eq(go(), expected);
}

ON_LOOP(on_reload_may_start_timers)
{
	load_first();
	ck_assert_int_eq(reload(SRC("init",
				    "return {on_reload = function() state.timer = clock.every(60000, 'init.go') end, "
				    "go = function() return state.timer:cancel() end}")),
			 0);
	ck_assert_str_eq(go(), "true");
}

/* Timers of this host, which has none but those that are asked about. */
static unsigned timers(void)
{
	luahost_stats(host, &stats_);
	return (unsigned)stats_.timers;
}

#define STARTS_TIMERS                                                                                             \
	"return {on_reload = function(old)\n"                                                                     \
	"  clock.every(60000, 'init.go') clock.after(60000, function() end) clock.cron('0 5 * * *', 'init.go')\n" \
	"  clock.after(60000, 'init.go'):cancel()\n"                                                              \
	"  if %s then return nil, 'no' end\n"                                                                     \
	"end, go = function() end, on_rollback = function() %s end}"

ON_LOOP(timers_of_an_on_reload_go_with_it_when_it_refuses_or_is_taken_back)
{
	char text[600], version[20];
	load_first();
	snprintf(text, sizeof text, STARTS_TIMERS, "true", "");
	ck_assert_int_eq(prepare(SRC("init", text)), 0);
	ck_assert_int_eq(luahost_switch(host, why, sizeof why), ERR_FAILED);
	ck_assert_uint_eq(timers(), 0);

	snprintf(text, sizeof text, STARTS_TIMERS, "false", "clock.every(60000, 'init.go')");
	ck_assert_int_eq(reload(SRC("init", text)), 0);
	ck_assert_uint_eq(timers(), 3);
	snprintf(version, sizeof version, "%s", luahost_version(host));
	snprintf(text, sizeof text, STARTS_TIMERS, "state.n > 0", "");
	ck_assert_int_eq(prepare(SRC("init", text)), 0);
	ck_assert_int_eq(luahost_switch(host, why, sizeof why), ERR_FAILED);
	ck_assert_uint_eq(timers(), 3); /* the others are of the code that goes on */
	luahost_rollback(host, version);
	ck_assert_uint_eq(timers(), 1); /* on_rollback has started it */
}

ON_LOOP(an_on_reload_that_fails_leaves_the_old_code_and_the_fields_of_state)
{
	static const char *const ends[] = { "error('no')", "return nil, 'no'", "clock.sleep(5)" };
	static const char *const whys[] = { "init.lua:1: no", "): no", "cannot wait in on_reload" };
	char before[20];
	load_first();
	snprintf(before, sizeof before, "%s", luahost_version(host));
	for (int i = 0; i < 3; i++) {
		char text[300];
		snprintf(text, sizeof text, "return {on_reload = function(old) state.n = 99 state.extra = {} %s end}",
			 ends[i]);
		ck_assert_int_eq(prepare(SRC("init", text)), 0);
		ck_assert_int_eq(luahost_switch(host, why, sizeof why), ERR_FAILED);
		ck_has(why, whys[i]);
		ck_assert_str_eq(go(), "\"one\" 5 null");
		ck_assert_str_eq(luahost_version(host), before);
	}
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.reloads, 0);
	ck_assert_uint_eq(stats_.reloads_refused, 3);
}

/* ---- the way back ---- */

ON_LOOP(a_rollback_brings_back_the_code_before_and_the_leaving_code_puts_the_state_in_order)
{
	char one[20], two[20];
	load_first();
	snprintf(one, sizeof one, "%s", luahost_version(host));
	ck_assert_int_eq(reload(SRC("init",
				    "local M = {} function M.on_reload() state.m, state.n = state.n, nil end "
				    "function M.on_rollback(to) state.n, state.extra = state.m, to end "
				    "function M.go() state.m = state.m + 1 return 'two', state.m end return M")),
			 0);
	ck_assert_str_eq(go(), "\"two\" 6");
	snprintf(two, sizeof two, "%s", luahost_version(host));
	luahost_rollback(host, one); /* that is not what runs */
	ck_assert_str_eq(luahost_version(host), two);
	luahost_rollback(host, two);
	ck_assert_str_eq(luahost_version(host), one);
	char expected[60];
	snprintf(expected, sizeof expected, "\"one\" 6 \"%s\"", one);
	ck_assert_str_eq(go(), expected);
	luahost_rollback(host, one); /* nothing ran before it any more */
	ck_assert_str_eq(luahost_version(host), one);
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.rollbacks, 1);
}

static void a_rollback_goes_through_on_loop(void *unused)
{
	char one[20];
	(void)unused;
	load_first();
	snprintf(one, sizeof one, "%s", luahost_version(host));
	ck_assert_int_eq(reload(SRC("init", "return {on_rollback = function() state.n = 7 error('no') end}")), 0);
	luahost_rollback(host, luahost_version(host));
	ck_assert_str_eq(luahost_version(host), one);
	ck_assert_str_eq(go(), "\"one\" 5 null");
}

START_TEST(a_rollback_goes_through_whatever_on_rollback_does)
{
	on_loop(loop, a_rollback_goes_through_on_loop, NULL);
	ck_logged("lua.rollback");
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("luahost_reload");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, what_running_code_did_to_a_library_is_not_blamed_on_the_next_files);
	tcase_add_test(c, code_that_does_not_compile_raises_or_fails_its_check_is_found_in_a_state_of_its_own);
	tcase_add_test(c, a_check_may_pass_and_sees_an_empty_state);
	tcase_add_test(c, what_was_checked_need_not_be_compiled_again_and_keeps_its_lines);
	tcase_add_test(c, what_new_files_put_into_state_is_kept_apart_until_the_switch);
	tcase_add_test(c, code_that_is_refused_or_dropped_leaves_no_trace_in_state);
	tcase_add_test(c, code_that_is_refused_or_dropped_leaves_no_trace_in_the_libraries);
	tcase_add_test(c, what_new_files_take_out_of_state_is_gone_after_the_switch_only);
	tcase_add_test(c, later_files_see_what_earlier_ones_put_into_state);
	tcase_add_test(c, files_are_prepared_one_at_a_time_and_requests_run_in_between);
	tcase_add_test(c, a_field_that_both_have_set_meanwhile_is_a_reason_to_refuse);
	tcase_add_test(c, on_reload_migrates_the_state_before_anybody_sees_the_new_code);
	tcase_add_test(c, on_reload_may_start_timers);
	tcase_add_test(c, timers_of_an_on_reload_go_with_it_when_it_refuses_or_is_taken_back);
	tcase_add_test(c, an_on_reload_that_fails_leaves_the_old_code_and_the_fields_of_state);
	tcase_add_test(c, a_rollback_brings_back_the_code_before_and_the_leaving_code_puts_the_state_in_order);
	tcase_add_test(c, a_rollback_goes_through_whatever_on_rollback_does);
	return suite_run("luahost_reload", c);
}
