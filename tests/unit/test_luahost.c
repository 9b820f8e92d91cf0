/* The promises of common/luahost.h: what scripts may do, their limits and timers. Scripts run on a real worker. */
#include <check.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "common/err.h"
#include "tests/support/script.h"
#include "tests/support/suite.h"

/* ---- what scripts may and may not do ---- */

START_TEST(scripts_compute)
{
	ck_gives("return 1 + 1, ('x'):rep(3), {math.max(1, 2)}", "2 \"xxx\" [2]");
	ck_gives("", "");
}
END_TEST

START_TEST(there_is_no_way_out_of_the_state)
{
	static const char *const absent[] = { "io",        "debug",       "package",        "dofile",     "loadfile",
					      "print",     "_G",          "os.exit",        "os.execute", "os.getenv",
					      "os.remove", "string.dump", "math.randomseed" };
	for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
		char body[200];
		snprintf(body, sizeof body, "local ok, v = pcall(function() return %s end) return ok and v ~= nil",
			 absent[i]);
		ck_gives(body, "false");
	}
	ck_gives("return load('\\27Lua')", "null \"attempt to load a binary chunk (mode is 't')\"");
	ck_gives("return load('return json ~= nil')()", "true");
	ck_gives("return pcall(setmetatable, {}, {__gc = function() end})",
		 "false \"setmetatable: __gc is not for scripts\"");
	ck_gives("return getmetatable('')", "\"string\"");
	ck_gives("return pcall(collectgarbage, 'stop')", "false \"bad argument #1 to '?' (scripts may only count)\"");
	ck_gives("return collectgarbage() > 10", "true");
}
END_TEST

START_TEST(globals_by_accident_are_errors_with_file_and_line)
{
	ck_fails("local x = 1\nreturn nothing", "init.lua:2: the global 'nothing' is not defined");
	ck_fails("\n\nsomething = 1", "init.lua:3: assignment to the global 'something': use a local, or state");
	ck_fails("state = {}", "init.lua:1: state itself stays: set its fields, as state.players = {}");
	ck_fails("print(5)",
		 "init.lua:1: the global 'print' is not defined: log.info(event, {key = value}) writes a line");
	ck_refused("init", "\nhelper = 5", "init.lua:2: assignment to the global 'helper': use a local, or state");
	ck_refused("init", "return {x = helper}", "init.lua:1: the global 'helper' is not defined");
}
END_TEST

#define CANNOT_CHANGE ": a library cannot be changed, it is all files'; use a local, or a module of your own"

START_TEST(a_library_takes_no_new_names_and_no_other_functions)
{
	ck_fails("local x = 1\nstring.trim = function() end", "init.lua:2: string.trim" CANNOT_CHANGE);
	ck_fails("log[1] = 1", "init.lua:1: log.1" CANNOT_CHANGE);
	ck_fails("string.format = nil", "init.lua:1: string.format" CANNOT_CHANGE);
	ck_fails("table.insert(math, 6)", "init.lua:1: math.1" CANNOT_CHANGE);
	ck_fails("rawset(math, 'pi', 3)", "init.lua:1: rawset: a library cannot be changed, it is all files'");
	ck_refused("init", "\ntable.add = table.insert", "init.lua:2: table.add" CANNOT_CHANGE);
	ck_refused("init", "\nstring.format = string.rep return {}", "init.lua:2: string.format" CANNOT_CHANGE);
	ck_gives("return string.format('%d', 5), math.tau, os.time() > 0, pcall(setmetatable, string, nil)",
		 "\"5\" null true false \"cannot change a protected metatable\"");
	ck_gives("local n = 0 for name, fn in pairs(utf8) do n = n + (fn == utf8[name] and 1 or 100) end "
		 "return n, ('x'):rep(2), rawset({}, 'a', 5).a",
		 "6 \"xx\" 5");
	ck_gives("state.x = 1 return getmetatable(math), state.x", "\"library\" 1");
}
END_TEST

/* Whoever holds one could give all that is made later a finalizer, or call the one that C has. */
START_TEST(nobody_gets_the_metatable_of_what_c_has_made)
{
	ck_gives("return getmetatable(json.array {}), getmetatable(json.decode '[]'), "
		 "getmetatable(json.decode '123456789012345678901'), getmetatable(clock.after(1, function() end)), "
		 "getmetatable(random.new(1)), getmetatable(json.null)",
		 "false false false false false null");
	ck_gives("local m = {} local t = setmetatable(json.array {}, m) return getmetatable(t) == m, "
		 "getmetatable(setmetatable({}, nil)), getmetatable(setmetatable({}, {__metatable = 5}))",
		 "true null 5");
	ck_gives(
		"return json.encode(json.array(json.array {})), pcall(json.array, setmetatable({}, {__metatable = 5}))",
		"\"[]\" false \"json.array: the table's metatable is protected\"");
}
END_TEST

START_TEST(a_library_is_not_made_an_array)
{
	ck_fails("json.array(string)", "init.lua:1: json.array: the table's metatable is protected");
	ck_gives("return string.format('%d', 5)", "\"5\"");
}
END_TEST

START_TEST(values_are_shown_without_addresses)
{
	ck_gives("return tostring({}), tostring(nil), tostring(json.null), tostring(12), tostring(nil)",
		 "\"table\" \"nil\" \"null\" \"12\" \"nil\"");
}
END_TEST

START_TEST(time_comes_from_the_environment)
{
	ck_gives("return math.abs(os.time() * 1000 - clock.wall_ms()) < 2000, os.clock() > 0, clock.now_ms() > 0",
		 "true true true");
	ck_gives("return os.time{year = 2026, month = 11, day = 22, hour = 19}", "1795374000");
	ck_gives("return os.date('%Y-%m-%d %H:%M:%S %j %%', 1795374000)", "\"2026-11-22 19:00:00 326 %\"");
	ck_gives("return os.date('*t', 0)",
		 "{\"day\":1,\"hour\":0,\"min\":0,\"month\":1,\"sec\":0,\"wday\":5,\"yday\":1,\"year\":1970}");
	ck_gives("return pcall(os.date, '%A')", "false \"os.date: '%A' is not one of %Y %m %d %H %M %S %j %w\"");
}
END_TEST

START_TEST(require_finds_files_of_the_service_only_and_once)
{
	ck_gives("local o = require 'other' return o.n, o == require('other')", "7 true");
	ck_fails("require 'missing'",
		 "init.lua:1: require 'missing': there is no such file in the service's lua folder");
	ck_fails("require '../etc/passwd'",
		 "init.lua:1: require '../etc/passwd': there is no such file in the service's lua folder");
	on_loop(loop, load, SRC("init", "return require 'a'", "a", "return require 'b'", "b", "return require 'a'"));
	ck_assert_int_eq(load_err, ERR_FAILED);
	ck_assert_str_eq(why,
			 "b.lua:1: require 'a': it requires itself: init.lua requires a.lua requires b.lua requires a");
}
END_TEST

START_TEST(log_lines_have_sorted_pairs_and_cannot_be_forged)
{
	gives("log.info('shop.bought', {uid = 'x y\\nerror', item = 1, list = {1, 2}, ok = true}) log.warn('plain')\n"
	      "log.error('text', 'n=%d', 5)");
	ck_logged(" shop.bought item=1 list=[1,2] ok=true uid=\"x y\\nerror\"");
	ck_logged(" warn test plain");
	ck_logged(" error test text msg=\"n=5\"");
	ck_fails("log.info('text', '%d', 'x')",
		 "init.lua:1: log: bad argument #2 of the format (number expected, got string)");
}
END_TEST

/* ---- failures ---- */

START_TEST(an_error_is_logged_with_its_traceback_and_answered_short)
{
	ck_fails("local function deep() error('broken') end\ndeep()", "init.lua:1: broken");
	ck_logged("lua.error task=test.go error=\"init.lua:1: broken\"");
	ck_logged("init.lua:2: in function");
	ck_assert_uint_eq(stats()->failed, 1);
	ck_gives("return 'goes on'", "\"goes on\"");
}
END_TEST

START_TEST(errors_that_are_no_text_are_failures_too)
{
	ck_fails("error({code = 5})", "an error that is a table: {code = 5}");
	ck_logged("lua.error task=test.go error=\"an error that is a table: {code = 5}\"");
	ck_logged("init.lua:1: in function");
	ck_fails(
		"error({why = 'no \"gold\\n', ok = false, at = 1.5, big = math.maxinteger, 'first', [3] = true, f = error,\n"
		"  t = {}, [1.5] = 1})",
		"an error that is a table: {[1] = \"first\", [3] = true, at = 1.5, big = 9223372036854775807, ok = false, "
		"why = \"no ?gold?\", ...}");
	ck_fails("error({})", "an error that is a table: {}");
	ck_fails("error({error})", "an error that is a table: {...}");
	ck_fails(
		"local t = {} for i = 1, 100 do t[i] = i end error(t)",
		"an error that is a table: {[1] = 1, [2] = 2, [3] = 3, [4] = 4, [5] = 5, [6] = 6, [7] = 7, [8] = 8, ...}");
	ck_fails("error(setmetatable({code = 5}, {__tostring = function(e) return 'code ' .. e.code end}))", "code 5");
	ck_fails("error(setmetatable({code = 5}, {__tostring = function(e) return nil end}))",
		 "an error that is a table: {code = 5}");
	ck_fails("error(setmetatable({code = 5}, {__tostring = function(e) error(e) end}))",
		 "an error that is a table: {code = 5}");
	ck_fails("error(12)", "12");
	ck_fails("error()", "an error that is a nil");
	ck_fails("error('two\\nlines', 0)", "two");
	on_loop(loop, load, SRC("init", "error({code = 5})"));
	ck_assert_str_eq(why, "init.lua: an error that is a table: {code = 5}");
}
END_TEST

START_TEST(pcall_works_across_waiting)
{
	ck_gives("return pcall(function() clock.sleep(1) error('late', 0) end)", "false \"late\"");
	ck_gives("return xpcall(function(a) clock.sleep(1) return a end, function(e) return e end, 5)", "true 5");
	ck_gives("return xpcall(function() clock.sleep(1) error('x', 0) end, function(e) return 'seen ' .. e end)",
		 "false \"seen x\"");
}
END_TEST

START_TEST(memory_is_bounded_and_running_out_of_it_harms_one_task_only)
{
	on_loop(loop, free_host, NULL);
	options.memory_max = 8 << 20;
	on_loop(loop, new_host, NULL);
	ck_fails("local t = {} for i = 1, 1e9 do t[i] = {i} end", "not enough memory");
	ck_fails("local s = 'x' while true do s = s .. s end", "not enough memory");
	ck_fails("return ('x'):rep(1 << 30)", "not enough memory");
	ck_gives("return 'alive'", "\"alive\"");
	ck_assert_uint_ge(stats()->out_of_memory, 3);
	ck_assert_uint_le(stats()->memory_peak_bytes, 8 << 20);
	ck_logged("error=\"not enough memory\"");
}
END_TEST

/* ---- the budget ---- */

static const char *const stopped = "init.lua:1: stopped: it ran for more than its budget of 50 ms";

/* The watch looks meanwhile, as the control thread does. */
static void watch_until(const int *ended)
{
	for (int k = 0; k < 12000 && !__atomic_load_n(ended, __ATOMIC_ACQUIRE); k++) {
		luahost_watch(host);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	ck_assert(*ended);
}

START_TEST(an_endless_loop_is_stopped)
{
	short_budget();
	struct run *x = NULL;
	static const char *const loops[] = {
		"while true do end",
		"while true do pcall(function() while true do end end) end",
		"coroutine.wrap(function() while true do end end)()",
		"while true do coroutine.wrap(function() end)() end",
		"while true do local co = coroutine.create(function() while true do end end) coroutine.resume(co) end",
		"xpcall(function() while true do end end, function() while true do end end)",
		"local x <close> = setmetatable({}, {__close = function() while true do end end}) while true do end",
		"local co = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() while true do end end})"
		" coroutine.yield() end) coroutine.resume(co) coroutine.close(co)",
		"clock.sleep(1) while true do end",
		"local s = ('a'):rep(50) s:match(('a*'):rep(25) .. 'b')",
		"local s = ('a'):rep(50) while true do pcall(s.gsub, s, ('a-'):rep(25) .. 'b', '') end",
		"local s = ('x'):rep(1 << 20) while true do s = s:gsub('x', 'x') end",
		"local t = {} for i = 1, 300000 do t[i] = -i end while true do table.sort(t) end",
		"table.sort({1, 2, 3}, function() while true do end end)",
		"load('if a then ' .. ('elseif a then '):rep(70000) .. 'end')", /* each goes through the jumps of all before it */
	};
	for (size_t i = 0; i < sizeof loops / sizeof *loops; i++) {
		static struct run r;
		struct buf text = BUF_INIT;
		buf_addf(&text, "local M = {} function M.go() %s end return M", loops[i]);
		on_loop(loop, load, SRC("init", buf_cstr(&text)));
		buf_release(&text);
		memset(&r, 0, sizeof r);
		loop_call(loop, start, &r);
		watch_until(&r.ended);
		ck_assert_msg(r.err == ERR_FAILED, "%s", loops[i]);
		ck_has(r.message, "budget of 50 ms");
		ck_gives("return ('x'):rep(300):match('x-y') or 'goes on'", "\"goes on\""); /* nothing of it is left */
		x = &r;
	}
	ck_has(x->message, stopped);
	ck_assert_uint_ge(stats()->over_budget, 10);
	ck_gives("return 'goes on'", "\"goes on\"");
	ck_gives("local n = 0 for i = 1, 1000 do n = n + i end return n", "500500");
}
END_TEST

START_TEST(where_instructions_are_counted_an_endless_loop_is_stopped_too)
{
	on_loop(loop, free_host, NULL);
	options.trial = true;
	options.budget_ms = 50;
	on_loop(loop, new_host, NULL);
	for (int i = 0; i < 2; i++) {
		ck_fails("while true do end", stopped);
		ck_gives("return ('x'):rep(300):match('x-y') or 'goes on'", "\"goes on\"");
		ck_has(fails("coroutine.wrap(function() while true do end end)()"), "budget of 50 ms");
		ck_gives("return ('x'):rep(300):match('x-y') or 'goes on'", "\"goes on\"");
	}
	ck_assert_uint_eq(stats()->over_budget, 4);
	ck_has(fails("local source = ('x = 1 '):rep(170000) for _ = 1, 10 do load(source) end"), "budget of 50 ms");
	ck_has(fails("for _ = 1, 10 do pcall(load, ('x = 1 '):rep(170000)) end"), "budget of 50 ms");
}
END_TEST

static struct run starter, started;

static int l_begin(lua_State *L)
{
	(void)L;
	memset(&started, 0, sizeof started);
	start(&started);
	return 0;
}

static int open_begin(lua_State *L)
{
	lua_pushcfunction(L, l_begin);
	return 1;
}

static void start_short(void *unused)
{
	(void)unused;
	luahost_library(host, "begin", open_begin);
	load_go("if not state.begun then state.begun = true begin() return 'goes on' end while true do end");
	memset(&starter, 0, sizeof starter);
	starter.job = (struct luajob){ .name = "test.go", .push = push_run, .done = keep, .budget_ms = 60 };
	starter.task = luatask_start(host, &starter.job);
}

START_TEST(who_is_started_has_no_more_budget_than_who_started_it)
{
	loop_call(loop, start_short, NULL);
	watch_until(&starter.ended);
	ck_assert_int_eq(started.err, ERR_FAILED);
	ck_has(started.message, "budget of 60 ms");
}
END_TEST

static int loaded;

static void load_slowly(void *src)
{
	load(src);
	__atomic_store_n(&loaded, 1, __ATOMIC_RELEASE);
}

START_TEST(the_loading_of_files_has_a_second_however_small_the_budget_is)
{
	short_budget();
	loaded = 0;
	loop_call(loop, load_slowly, SRC("init", "local t = os.clock() while os.clock() - t < 0.2 do end return {}"));
	watch_until(&loaded);
	ck_assert_msg(load_err == 0, "%s", why);
}
END_TEST

START_TEST(what_would_never_end_inside_c_is_refused)
{
	ck_gives("return (''):rep(1 << 60)", "\"\"");
	ck_gives("return ('ab'):rep(3, '-')", "\"ab-ab-ab\"");
	ck_fails("table.insert(setmetatable({}, {__len = function() return 1 << 60 end}), 1, 1)",
		 "init.lua:1: the length of the table, 1152921504606846976, is over 16777216");
	ck_fails("table.remove(setmetatable({}, {__len = function() return 1 << 60 end}), 1)",
		 "init.lua:1: the length of the table, 1152921504606846976, is over 16777216");
	ck_fails("table.concat(setmetatable({}, {__index = table.concat}), '', 1, 1 << 60)",
		 "init.lua:1: table.concat: more than 16777216 elements");
	ck_fails("table.concat(setmetatable({}, {__index = table.concat, __len = function() return 1 << 60 end}))",
		 "init.lua:1: the length of the table, 1152921504606846976, is over 16777216");
	ck_gives("return table.concat({1, 2, 3}, '-', 2), table.concat({}), table.concat({1, 2}, ',', 1, 1)",
		 "\"2-3\" \"\" \"1\"");
	ck_fails("table.move({}, 1, 1 << 60, 2)", "init.lua:1: table.move: more than 16777216 elements");
	ck_fails("table.move({}, math.mininteger, math.maxinteger, 2)",
		 "init.lua:1: table.move: more than 16777216 elements");
	ck_gives(
		"local t = {3, 1, 2} table.insert(t, 1, 9) table.sort(t) table.remove(t) return table.move(t, 1, 3, 2)",
		"[1,1,2,3]");
}
END_TEST

START_TEST(waiting_does_not_count)
{
	short_budget();
	ck_gives("for i = 1, 20 do clock.sleep(5) end return 'ok'", "\"ok\"");
	ck_assert_uint_eq(stats()->over_budget, 0);
}
END_TEST

static int l_rest(lua_State *L)
{
	nanosleep(&(struct timespec){ .tv_nsec = (long)luaL_checkinteger(L, 1) * 1000000 }, NULL);
	return 0;
}

static int open_rest(lua_State *L)
{
	lua_pushcfunction(L, l_rest);
	return 1;
}

static void add_rest(void *unused)
{
	(void)unused;
	ck_assert_int_eq(luahost_library(host, "rest", open_rest), 0);
}

/* As on a machine that has other things to do, or is halted for a while: the thread rests in the middle of the script. */
START_TEST(time_without_a_processor_does_not_count)
{
	struct run x = { .ended = 0 };
	short_budget();
	on_loop(loop, add_rest, NULL);
	on_loop(loop, load, SRC("init", "return {go = function() rest(300) return 'ok' end}"));
	loop_call(loop, start, &x);
	for (int k = 0; k < 12000 && !__atomic_load_n(&x.ended, __ATOMIC_ACQUIRE); k++) {
		luahost_watch(host);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	ck_assert_str_eq(x.results, "\"ok\"");
	ck_assert_uint_eq(stats()->over_budget, 0);
}
END_TEST

/* ---- timers ---- */

START_TEST(after_runs_once_and_every_again_and_again)
{
	ck_gives("local n, once = 0, 0\n"
		 "local t = clock.every(2, function() n = n + 1 end)\n"
		 "clock.after(1, function() once = once + 1 end)\n"
		 "while n < 5 do clock.sleep(1) end\n"
		 "local was = t:cancel()\n"
		 "local then_ = n clock.sleep(10)\n"
		 "return once, was, t:cancel(), n == then_",
		 "1 true false true");
	ck_assert_uint_eq(stats()->timers, 0);
}
END_TEST

START_TEST(a_timer_is_not_early)
{
	ck_gives("local from = clock.now_ms() clock.sleep(20) return clock.now_ms() - from >= 20", "true");
}
END_TEST

START_TEST(a_function_that_waits_is_not_called_again_meanwhile)
{
	ck_gives("local inside, most, n = 0, 0, 0\n"
		 "local t = clock.every(1, function() inside = inside + 1 most = math.max(most, inside) n = n + 1\n"
		 "  clock.sleep(5) inside = inside - 1 end)\n"
		 "while n < 4 do clock.sleep(1) end t:cancel() return most",
		 "1");
}
END_TEST

START_TEST(a_timer_may_cancel_itself_and_may_fail)
{
	ck_gives("local n, t = 0 t = clock.every(1, function() n = n + 1 t:cancel() end)\n"
		 "clock.after(1, function() error('in a timer') end)\n"
		 "clock.sleep(20) return n",
		 "1");
	ck_logged("task=timer error=\"init.lua:2: in a timer\"");
	ck_assert_uint_eq(stats()->timers, 0);
}
END_TEST

START_TEST(a_timer_by_name_runs_the_code_of_now)
{
	ck_gives("clock.after(1, 'other.fn') require 'other' while not state.ran do clock.sleep(1) end return true",
		 "true");
	ck_gives("clock.after(1, 'other.gone') clock.sleep(10) return true", "true"); /* it might have come */
	ck_logged("timer: there is no function other.gone in the code of now");
	ck_fails("require 'other' clock.after(1, 'other.gone')",
		 "init.lua:1: bad argument #2 to 'after' (\"other.gone\": other has no such function)");
	ck_fails(
		"clock.every(1, 'others.fn')",
		"init.lua:1: bad argument #2 to 'every' (\"others.fn\": there is no others in the service's lua folder)");
	ck_fails("clock.every(1, 'fn')",
		 "init.lua:1: bad argument #2 to 'every' (expected a function or \"module.function\", found \"fn\")");
}
END_TEST

START_TEST(a_timer_s_function_gets_what_stands_behind_it)
{
	ck_gives("local got = {}\n"
		 "local function note(...) got[#got + 1] = table.pack(...) end\n"
		 "clock.after(1, note, 1, nil, 'x', nil)\n"
		 "clock.after(2, note)\n"
		 "clock.every(3, note, got):cancel()\n"
		 "clock.sleep(20)\n"
		 "return #got, got[1].n, got[1][1], got[1][2], got[1][3], got[2].n",
		 "2 4 1 null \"x\" 0");
	ck_gives("state.ran = nil clock.after(1, 'other.fn', 'x', {n = 2}) require 'other'\n"
		 "while not state.ran do clock.sleep(1) end return state.ran",
		 "\"x2\"");
}
END_TEST

START_TEST(a_timer_that_has_fired_holds_its_function_no_more)
{
	ck_gives("local weak = setmetatable({}, {__mode = 'k'})\n"
		 "local fn = function() weak.fired = true end\n"
		 "weak[fn] = true\n"
		 "clock.after(1, fn) fn = nil\n"
		 "while not weak.fired do clock.sleep(1) end\n"
		 "weak.fired = nil\n"
		 "for i = 1, 1000000 do\n"
		 "  if not next(weak) then return 'gone' end\n"
		 "  local garbage = {{}, {}, {}, {}}\n"
		 "end",
		 "\"gone\"");
}
END_TEST

START_TEST(a_timer_waits_for_a_task_rather_than_be_lost)
{
	few_tasks(3);
	ck_gives("local n, free, held = 0, false, 0\n"
		 "local function hold() held = held + 1 while not free do clock.sleep(1) end end\n"
		 "clock.after(0, hold) clock.after(0, hold)\n"
		 "while held < 2 do clock.sleep(1) end\n" /* all three run */
		 "clock.after(1, function() n = n + 1 end)\n"
		 "clock.sleep(100)\n"
		 "local before = n\n"
		 "free = true\n"
		 "while n == 0 do clock.sleep(10) end\n"
		 "clock.sleep(250)\n"
		 "return before, n",
		 "0 1");
}
END_TEST

START_TEST(a_collected_handle_does_not_stop_its_timer)
{
	ck_gives("local n = 0 clock.after(5, function() n = 1 end)\n"
		 "for i = 1, 20000 do local garbage = {{}} end clock.sleep(15) return n",
		 "1");
}
END_TEST

START_TEST(timers_are_checked)
{
	ck_fails("clock.after(-1, function() end)",
		 "init.lua:1: bad argument #1 to 'after' (milliseconds from 0 to a year)");
	ck_fails("clock.every(0, function() end)",
		 "init.lua:1: bad argument #1 to 'every' (milliseconds from 1 to a year)");
	ck_fails("clock.after(0/0, function() end)",
		 "init.lua:1: bad argument #1 to 'after' (milliseconds from 0 to a year)");
	ck_fails("clock.sleep(1e12)", "init.lua:1: bad argument #1 to 'sleep' (milliseconds from 0 to a year)");
	ck_has(fails("clock.after(1, 5)"), "function expected, got number");
	ck_refused("init", "clock.after(1, function() end)",
		   "init.lua:1: timers are started by what runs, such as init_service, not while a file is loaded");
}
END_TEST

START_TEST(waiting_is_refused_where_nobody_could_be_woken)
{
	ck_refused("init", "clock.sleep(1)",
		   "init.lua:1: cannot wait here: only what a request, a timer or init_service runs may wait");
	ck_fails("coroutine.wrap(function() clock.sleep(1) end)()",
		 "init.lua:1: init.lua:1: cannot wait inside a coroutine of one's own");
	ck_has(fails("table.sort({1, 2}, function(a, b) clock.sleep(1) return a < b end)"),
	       "cannot wait inside a function that is called by C");
	ck_fails("coroutine.yield(1)", "init.lua:1: coroutine.yield outside of a coroutine of one's own");
}
END_TEST

#define HELD "local held <close> = setmetatable({}, {__close = function(_, why) %s end}) "

START_TEST(what_a_failed_task_holds_is_closed)
{
	static const char *const fails_by[] = { "error('x', 0)", "local nothing = nil + 1",
						"local s = 'x' while true do s = s .. s end", "error({})" };
	for (size_t i = 0; i < sizeof fails_by / sizeof *fails_by; i++) {
		char body[300];
		snprintf(body, sizeof body, HELD "%s", "state.closed = type(why)", fails_by[i]);
		fails(body);
		ck_gives("local was = state.closed state.closed = nil return was ~= nil", "true");
	}
	char body[300];
	snprintf(body, sizeof body, HELD "error('x', 0)", "state.closed = select(2, pcall(clock.sleep, 1))");
	ck_fails(body, "x");
	ck_gives("return state.closed",
		 "\"cannot wait inside a function that is called by C (table.sort, string.gsub, a file's top)\"");
}
END_TEST

/* The watch looks; what it holds says so in state.closed. */
static const char *closed_after(const char *body)
{
	static struct run r;
	struct buf text = BUF_INIT;
	buf_addf(&text, "local M = {} function M.go() " HELD "%s end return M", "state.closed = 'yes'", body);
	on_loop(loop, load, SRC("init", buf_cstr(&text)));
	ck_assert_msg(load_err == 0, "%s", why);
	buf_release(&text);
	memset(&r, 0, sizeof r);
	loop_call(loop, start, &r);
	watch_until(&r.ended);
	ck_assert_int_eq(r.err, ERR_FAILED);
	ck_has(r.message, "init.lua:1: stopped: it ran for more than its budget of 50 ms");
	return gives("local was = state.closed state.closed = nil return was");
}

START_TEST(what_a_task_holds_that_is_stopped_for_its_budget_is_closed)
{
	static const char *const stopped_in[] = {
		"while true do end",
		"while true do pcall(function() while true do end end) end",
		"local function f() local t = setmetatable({}, {__index = function() while true do end end}) return t.x end f()",
		"pcall(clock.after) while true do end", /* after a misuse */
		"clock.sleep(1) while true do end",
		"pcall(clock.sleep) while true do math.abs(1) end",
		"while true do pcall(coroutine.wrap(function() while true do end end)) end",
		"while true do pcall(table.sort, {1, 2, 3}, function() while true do end end) end",
		"local s = ('a'):rep(50) while true do pcall(s.gsub, s, ('a-'):rep(25) .. 'b', '') end",
		"local s = ('a'):rep(50) s:match(('a*'):rep(25) .. 'b')",
	};
	short_budget();
	for (size_t i = 0; i < sizeof stopped_in / sizeof *stopped_in; i++)
		ck_assert_msg(!strcmp(closed_after(stopped_in[i]), "\"yes\""), "%s", stopped_in[i]);
	/* hooks are off behind what C calls, so nothing could stop what would be closed */
	ck_assert_str_eq(closed_after("table.sort({1, 2, 3}, function() while true do end end)"), "null");
	ck_logged("traceback=\"stack traceback:");
	ck_gives("return 'goes on'", "\"goes on\"");
}
END_TEST

#define HELD_YES "local held <close> = setmetatable({}, {__close = function() state.closed = 'yes' end}) "

/* It asks to wait, and does not. */
static int l_misuse(lua_State *L)
{
	luatask_wait(L);
	return luaL_error(L, "misused");
}

static int open_misuse(lua_State *L)
{
	lua_pushcfunction(L, l_misuse);
	return 1;
}

static void add_misuse(void *unused)
{
	(void)unused;
	luahost_library(host, "misuse", open_misuse);
}

START_TEST(where_instructions_are_counted_what_a_stopped_task_holds_is_closed_too)
{
	on_loop(loop, free_host, NULL);
	options.trial = true;
	options.budget_ms = 50;
	on_loop(loop, new_host, NULL);
	on_loop(loop, add_misuse, NULL);
	ck_fails(HELD_YES "while true do end", stopped);
	ck_gives("local was = state.closed state.closed = nil return was", "\"yes\"");
	ck_fails(HELD_YES "pcall(misuse) while true do end", stopped);
	ck_gives("return state.closed", "\"yes\"");
}
END_TEST

#define HELD_FOR_EVER "local held <close> = setmetatable({}, {__close = function() while true do end end}) "

START_TEST(what_closes_for_ever_is_stopped_too)
{
	static struct run r;
	short_budget();
	on_loop(loop, load, SRC("init", "local M = {} function M.go() " HELD_FOR_EVER "error('x', 0) end return M"));
	loop_call(loop, start, &r);
	watch_until(&r.ended);
	ck_assert_str_eq(r.message, "x");
	ck_gives("return 'goes on'", "\"goes on\"");
	ck_assert_uint_eq(stats()->over_budget, 1);
	on_loop(loop, load,
		SRC("init", "local M = {} function M.go() " HELD_FOR_EVER "while true do end end return M"));
	memset(&r, 0, sizeof r);
	loop_call(loop, start, &r);
	watch_until(&r.ended);
	ck_assert_str_eq(r.message, stopped);
	ck_gives("return 'goes on'", "\"goes on\"");
	ck_assert_uint_eq(stats()->over_budget, 3);
}
END_TEST

START_TEST(a_wrapped_coroutine_that_fails_is_closed_as_in_lua)
{
	ck_gives("local said\n"
		 "local ok, why = pcall(coroutine.wrap(function()\n"
		 "  local held <close> = setmetatable({}, {__close = function(_, e) said = e end})\n"
		 "  error('x', 0)\n"
		 "end))\n"
		 "return ok, why, said",
		 "false \"x\" \"x\"");
	ck_gives("local ok, why = pcall(coroutine.wrap(function()\n"
		 "  local held <close> = setmetatable({}, {__close = function() error('y', 0) end})\n"
		 "  error('x', 0)\n"
		 "end))\n"
		 "return ok, why",
		 "false \"y\"");
}
END_TEST

START_TEST(nobody_resumes_a_task_but_what_it_waits_for)
{
	ck_gives("state.co = coroutine.running()\n"
		 "local ok, why\n"
		 "clock.after(1, function() ok, why = coroutine.resume(state.co) end)\n"
		 "local from = clock.now_ms()\n"
		 "clock.sleep(40)\n"
		 "return ok, why, clock.now_ms() - from >= 40",
		 "false \"cannot resume a task: it goes on when what it waits for has come\" true");
}
END_TEST

START_TEST(scripts_have_coroutines_of_their_own)
{
	ck_gives("local co = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end)\n"
		 "return co(1), co(10)",
		 "2 20");
	ck_gives("local co = coroutine.create(function() error('x', 0) end)\n"
		 "local ok, e = coroutine.resume(co) return ok, e, coroutine.status(co), coroutine.close(co)",
		 "false \"x\" \"dead\" false \"x\"");
	ck_gives("local co = coroutine.create(function() coroutine.yield() end) coroutine.resume(co)\n"
		 "return coroutine.close(co), coroutine.status(co), coroutine.isyieldable()",
		 "true \"dead\" true");
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("luahost");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, scripts_compute);
	tcase_add_test(c, there_is_no_way_out_of_the_state);
	tcase_add_test(c, globals_by_accident_are_errors_with_file_and_line);
	tcase_add_test(c, a_library_takes_no_new_names_and_no_other_functions);
	tcase_add_test(c, nobody_gets_the_metatable_of_what_c_has_made);
	tcase_add_test(c, a_library_is_not_made_an_array);
	tcase_add_test(c, values_are_shown_without_addresses);
	tcase_add_test(c, time_comes_from_the_environment);
	tcase_add_test(c, require_finds_files_of_the_service_only_and_once);
	tcase_add_test(c, log_lines_have_sorted_pairs_and_cannot_be_forged);
	tcase_add_test(c, an_error_is_logged_with_its_traceback_and_answered_short);
	tcase_add_test(c, errors_that_are_no_text_are_failures_too);
	tcase_add_test(c, pcall_works_across_waiting);
	tcase_add_test(c, memory_is_bounded_and_running_out_of_it_harms_one_task_only);
	if (!SIGNALS_WAIT) {
		tcase_add_test(c, an_endless_loop_is_stopped);
		tcase_add_test(c, who_is_started_has_no_more_budget_than_who_started_it);
	}
	tcase_add_test(c, where_instructions_are_counted_an_endless_loop_is_stopped_too);
	tcase_add_test(c, the_loading_of_files_has_a_second_however_small_the_budget_is);
	tcase_add_test(c, what_would_never_end_inside_c_is_refused);
	tcase_add_test(c, waiting_does_not_count);
	tcase_add_test(c, time_without_a_processor_does_not_count);
	tcase_add_test(c, after_runs_once_and_every_again_and_again);
	tcase_add_test(c, a_timer_is_not_early);
	tcase_add_test(c, a_function_that_waits_is_not_called_again_meanwhile);
	tcase_add_test(c, a_timer_may_cancel_itself_and_may_fail);
	tcase_add_test(c, a_timer_by_name_runs_the_code_of_now);
	tcase_add_test(c, a_timer_s_function_gets_what_stands_behind_it);
	tcase_add_test(c, a_timer_waits_for_a_task_rather_than_be_lost);
	tcase_add_test(c, a_timer_that_has_fired_holds_its_function_no_more);
	tcase_add_test(c, a_collected_handle_does_not_stop_its_timer);
	tcase_add_test(c, timers_are_checked);
	tcase_add_test(c, waiting_is_refused_where_nobody_could_be_woken);
	tcase_add_test(c, scripts_have_coroutines_of_their_own);
	tcase_add_test(c, what_a_failed_task_holds_is_closed);
	tcase_add_test(c, where_instructions_are_counted_what_a_stopped_task_holds_is_closed_too);
	if (!SIGNALS_WAIT) {
		tcase_add_test(c, what_a_task_holds_that_is_stopped_for_its_budget_is_closed);
		tcase_add_test(c, what_closes_for_ever_is_stopped_too);
	}
	tcase_add_test(c, a_wrapped_coroutine_that_fails_is_closed_as_in_lua);
	tcase_add_test(c, nobody_resumes_a_task_but_what_it_waits_for);
	return suite_run("luahost", c);
}
