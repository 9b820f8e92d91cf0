/* The promises of common/luahost.h for looking inside: tasks, timers, memory, slow requests, profiles. On a real worker. */
#include <check.h>
#include <lauxlib.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "common/err.h"
#include "tests/support/script.h"
#include "tests/support/suite.h"

static int open_see(lua_State *L)
{
	static const luaL_Reg functions[] = { { "tasks", luahost_l_tasks },
					      { "timers", luahost_l_timers },
					      { "memory", luahost_l_memory },
					      { NULL, NULL } };
	luaL_newlib(L, functions);
	return 1;
}

static void add_see(void *unused)
{
	(void)unused;
	ck_assert_int_eq(luahost_library(host, "see", open_see), 0);
}

static void see_setup(void)
{
	setup();
	on_loop(loop, add_see, NULL);
	on_loop(loop, add_wait, NULL);
}

ON_LOOP(a_task_that_waits_is_listed_with_the_place)
{
	struct run x = { .ended = 0 }, y = { .ended = 0 };
	load(SRC(
		"init",
		"local function deep() wait() end\n"
		"return {go = function() if state.second then local t = see.tasks() return #t, t[1].name, t[1].state, "
		"t[2].state, t[1].traceback:match('init.lua:1: in [^\\n]*') ~= nil end state.second = true deep() end}"));
	start(&x);
	start(&y);
	ck_assert_str_eq(y.results, "2 \"test.go\" \"waits\" \"runs\" true");
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_int_eq(x.ended, 1);
}

START_TEST(timers_are_listed_with_what_they_run_and_when)
{
	ck_gives("clock.every(60000, 'other.fn') clock.after(30000, function() end) local t = see.timers() "
		 "table.sort(t, function(a, b) return a.due_ms < b.due_ms end) "
		 "return #t, t[1].what, t[1].period_ms, t[1].due_ms <= 30001, t[2].what, t[2].period_ms",
		 "2 \"init.lua:1\" 0 true \"other.fn\" 60000");
}
END_TEST

START_TEST(memory_is_told_by_the_place_where_it_is_reached)
{
	ck_gives(
		"state.scenes = {} for s = 1, 40 do state.scenes[s] = {entities = {}, name = 'scene' .. s} for e = 1, 100 do "
		"state.scenes[s].entities[e] = {x = e, y = s} end end "
		"local of = {} for _, k in ipairs(see.memory()) do of[k.kind] = k end "
		"local e = of['state.scenes.*.entities.*'] "
		"return e.tables, e.bytes >= 4000 * 100, of['state.scenes.*'].tables, of['state.scenes.*'].texts >= 40, of['state'].tables",
		"4000 true 40 true 1");
}
END_TEST

START_TEST(memory_is_counted_once_and_cycles_end)
{
	ck_gives("state.a = {} state.a.a = state.a state.b = state.a local n = 0 "
		 "for _, k in ipairs(see.memory()) do if k.kind:match('^state') then n = n + k.tables end end return n",
		 "2");
}
END_TEST

START_TEST(who_looks_at_a_large_heap_lets_others_run)
{
	ck_gives(
		"state.list = {} for i = 1, 50000 do state.list[i] = {} end local n = 0 "
		"state.timer = clock.every(1, function() n = n + 1 end) local t = see.memory() state.timer:cancel() return n > 0",
		"true");
}
END_TEST

/* ---- slow requests ---- */

static void start_call(void *run)
{
	struct run *x = run;
	x->job = (struct luajob){ .name = "role.bagHandler.list", .push = push_run, .done = keep, .trace = 0xabc };
	x->task = luatask_start(host, &x->job);
}

static void slow_host(uint32_t ms)
{
	on_loop(loop, free_host, NULL);
	options.slow_ms = ms;
	on_loop(loop, new_host, NULL);
	on_loop(loop, add_see, NULL);
}

START_TEST(a_request_that_waits_too_long_is_logged_once_with_the_place)
{
	struct run x = { .ended = 0 };
	slow_host(20);
	on_loop(loop, load, SRC("init", "return {go = function()\n  clock.sleep(200)\n  return 1\nend}"));
	on_loop(loop, start_call, &x);
	wait_for(&x.ended);
	ck_logged("lua.slow task=role.bagHandler.list");
	ck_logged("trace=abc");
	ck_logged("init.lua:2: in function");
	ck_assert_uint_eq(stats()->slow, 1);
}
END_TEST

START_TEST(what_serves_no_call_may_wait_as_long_as_it_likes)
{
	slow_host(5);
	ck_gives("clock.sleep(60) return 1", "1");
	ck_assert_uint_eq(stats()->slow, 0);
}
END_TEST

/* ---- profiles ---- */

static int profile_err;
static struct buf folded;

static void profile_begin(void *unused)
{
	(void)unused;
	profile_err = luahost_profile_begin(host);
}

static void profile_end(void *unused)
{
	(void)unused;
	luahost_profile_end(host, &folded);
}

static void tick_until(const int *ended)
{
	for (int i = 0; i < 600000 && !__atomic_load_n(ended, __ATOMIC_ACQUIRE); i++) {
		luahost_profile_tick(host);
		nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
	}
}

START_TEST(a_profile_names_the_functions_that_run)
{
	static const char stack[] = "outer@init.lua:2;inner@init.lua:1 ";
	buf_init(&folded);
	on_loop(loop, load,
		SRC("init",
		    "local function inner() local n = 0 for i = 1, 5000 do n = n + i end return n end\n"
		    "local function outer() local n = inner() return n end\n"
		    "return {go = function() local t = os.clock() while os.clock() - t < 0.3 do outer() end return 1 end}"));
	for (int i = 0; i < 20 && !strstr(buf_cstr(&folded), stack);
	     i++) { /* it may be looked at while it has no core */
		struct run x = { .ended = 0 };
		on_loop(loop, profile_begin, NULL);
		ck_assert_int_eq(profile_err, 0);
		on_loop(loop, profile_begin, NULL);
		ck_assert_int_eq(profile_err, ERR_BUSY);
		loop_call(loop, start, &x);
		tick_until(&x.ended);
		on_loop(loop, profile_end, NULL);
		ck_assert_str_eq(x.results, "1");
	}
	ck_has(buf_cstr(&folded), "test.go;");
	ck_has(buf_cstr(&folded), stack);
	buf_release(&folded);
	ck_gives("return 2", "2"); /* and nothing is left behind */
}
END_TEST

START_TEST(a_budget_holds_while_a_profile_is_made)
{
	struct run x = { .ended = 0 };
	short_budget();
	buf_init(&folded);
	on_loop(loop, load, SRC("init", "return {go = function() while true do end end}"));
	on_loop(loop, profile_begin, NULL);
	loop_call(loop, start, &x);
	for (int i = 0; i < 60000 && !__atomic_load_n(&x.ended, __ATOMIC_ACQUIRE); i++) {
		luahost_profile_tick(host);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		luahost_watch(host);
	}
	ck_assert_int_eq(x.err, ERR_FAILED);
	on_loop(loop, profile_end, NULL);
	buf_release(&folded);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("luahost_see");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, see_setup, teardown);
	tcase_add_test(c, a_task_that_waits_is_listed_with_the_place);
	tcase_add_test(c, timers_are_listed_with_what_they_run_and_when);
	tcase_add_test(c, memory_is_told_by_the_place_where_it_is_reached);
	tcase_add_test(c, memory_is_counted_once_and_cycles_end);
	tcase_add_test(c, who_looks_at_a_large_heap_lets_others_run);
	tcase_add_test(c, a_request_that_waits_too_long_is_logged_once_with_the_place);
	tcase_add_test(c, what_serves_no_call_may_wait_as_long_as_it_likes);
	if (!SIGNALS_WAIT) {
		tcase_add_test(c, a_profile_names_the_functions_that_run);
		tcase_add_test(c, a_budget_holds_while_a_profile_is_made);
	}
	return suite_run("luahost_see", c);
}
