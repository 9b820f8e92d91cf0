/* The promises of common/luahost.h: methods, reload and figures. Scripts run on a real worker. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/err.h"
#include "tests/support/script.h"
#include "tests/support/suite.h"

/* ---- methods and reload ---- */

static const struct msg_method *method(const char *full)
{
	const struct msg_method *m = schema_method(schema, full, strlen(full));
	ck_assert_ptr_nonnull(m);
	return m;
}

ON_LOOP(methods_are_found_in_their_files)
{
	load(SRC("shopHandler", "local H = {} function H.buy() return 'bought' end H.items = 5 return H",
		 "sampleRemote", "return {get = function() return 'got' end}"));
	ck_assert_msg(load_err == 0, "%s", why);
	ck_assert(luahost_has_method(host, method("sample.shopHandler.buy")));
	ck_assert(luahost_has_method(host, method("sample.sampleRemote.get")));
	ck_assert(!luahost_has_method(host, method("sample.shopHandler.items")));
	ck_assert(!luahost_has_method(host, method("sample.shopHandler.echo")));
	ck_assert(!luahost_has_hook(host, "init_service"));
	struct run x = { .method = method("sample.shopHandler.buy") };
	start(&x);
	ck_assert_str_eq(x.results, "\"bought\"");
}

ON_LOOP(a_reload_keeps_the_state_and_running_tasks_finish_on_the_old_code)
{
	struct run x = { .ended = 0 }, y = { .ended = 0 };
	struct luasrc *next = SRC("init", "return {go = function() state.n = state.n + 1 return 'new', state.n end}");
	add_wait(NULL);
	load_go("state.n = 1 wait() return 'old', state.n");
	start(&x);
	char before[20];
	snprintf(before, sizeof before, "%s", luahost_version(host));
	ck_assert_int_eq(luahost_prepare(host, next, why, sizeof why), 0);
	ck_assert_str_eq(luahost_version(host), before);
	luahost_switch(host, why, sizeof why);
	ck_assert_str_ne(luahost_version(host), before);
	ck_assert_str_eq(luahost_version(host), luasrc_version(next));
	start(&y);
	ck_assert_str_eq(y.results, "\"new\" 2");
	lua_gc(luahost_state(host), LUA_GCCOLLECT);
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(x.results, "\"old\" 2");
	luasrc_unref(next);
}

ON_LOOP(broken_code_changes_nothing_and_is_named)
{
	static const char *const broken[] = { "return {", "return {go = function() return nothing.x end",
					      "error('at the top')", "return {} + 1" };
	load_go("return 'good'");
	for (size_t i = 0; i < 4; i++) {
		struct luasrc *src = SRC("init", broken[i]);
		ck_assert_int_eq(luahost_prepare(host, src, why, sizeof why), ERR_FAILED);
		ck_assert_int_eq(strncmp(why, "init.lua:1: ", 12), 0);
		luasrc_unref(src);
		luahost_switch(host, why, sizeof why); /* nothing is prepared */
		struct run x = { .ended = 0 };
		start(&x);
		ck_assert_str_eq(x.results, "\"good\"");
	}
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.reloads_refused, 4);
	ck_assert_uint_eq(stats_.reloads, 0);
}

ON_LOOP(a_file_that_nobody_requires_yet_is_checked_too)
{
	load(SRC("init", "return {}", "later", "local x ="));
	ck_assert_int_eq(load_err, ERR_FAILED);
	ck_assert_int_eq(strncmp(why, "later.lua:1:", 12), 0);
	load(SRC("xHandler", "local t = {}"));
	ck_assert_str_eq(why, "xHandler.lua: the file must return its table of functions");
	load(SRC("init", "local Init = {} function Init.init_service() end"));
	ck_assert_str_eq(why, "init.lua: the file must return its table of functions");
}

ON_LOOP(what_is_known_is_compiled_where_it_is_required)
{
	struct luahost_options o = { .loop = luahost_loop(host), .known = true };
	struct luasrc *unasked = SRC("init", "return {}", "later", "local x =");
	struct luasrc *asked = SRC("init", "return require 'later'", "later", "local x =");
	struct luahost *other;

	ck_assert_int_eq(luahost_new(&o, &other), 0);
	ck_assert_int_eq(luahost_load(other, unasked, why, sizeof why), 0);
	ck_assert_int_eq(luahost_load(other, asked, why, sizeof why), ERR_FAILED);
	ck_assert_int_eq(strncmp(why, "later.lua:1:", 12), 0);
	luahost_free(other);
	luasrc_unref(unasked);
	luasrc_unref(asked);
}

ON_LOOP(what_was_prepared_can_be_dropped)
{
	struct luasrc *src = SRC("init", "return {go = function() return 'new' end}");
	load_go("return 'old'");
	luahost_prepare(host, src, why, sizeof why);
	luahost_abort(host);
	luahost_switch(host, why, sizeof why);
	luasrc_unref(src);
	struct run x = { .ended = 0 };
	start(&x);
	ck_assert_str_eq(x.results, "\"old\"");
}

START_TEST(an_endless_loop_at_the_top_of_a_file_is_stopped_too)
{
	short_budget();
	load_err = 1;
	loop_call(loop, load, SRC("init", "while true do end"));
	for (int k = 0; k < 12000 && __atomic_load_n(&load_err, __ATOMIC_ACQUIRE) == 1; k++) {
		luahost_watch(host);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	ck_assert_int_eq(load_err, ERR_FAILED);
	ck_has(why, "init.lua:1: stopped");
}
END_TEST

START_TEST(sources_are_read_from_folders)
{
	char dir[100], path[200], error[300];
	snprintf(dir, sizeof dir, "build/test_luahost-%d", (int)getpid());
	snprintf(path, sizeof path, "%s/lib", dir);
	ck_assert_int_eq(env_dir_make(env, path), 0);
	struct luasrc *src = NULL;
	ck_assert_int_eq(luasrc_read(env, (const char *const[]){ dir, NULL }, error, sizeof error, &src),
			 ERR_NOT_FOUND);
	ck_has(error, ": there is no Lua file");
	snprintf(path, sizeof path, "%s/aHandler.lua", dir);
	ck_assert_int_eq(env_file_store(env, path, "return {}", 9, ENV_CREATE), 0);
	snprintf(path, sizeof path, "%s/lib/grid.lua", dir);
	ck_assert_int_eq(env_file_store(env, path, "return 5", 8, ENV_CREATE), 0);
	ck_assert_int_eq(luasrc_read(env, (const char *const[]){ dir, NULL }, error, sizeof error, &src), 0);
	ck_assert_uint_eq(luasrc_files(src), 2);
	ck_assert_str_eq(luasrc_at(src, 0)->name, "aHandler");
	ck_assert_str_eq(luasrc_find(src, "lib.grid")->text, "return 5");
	ck_assert_uint_eq(strlen(luasrc_version(src)), 8);
	ck_assert_ptr_null(luasrc_find(src, "grid"));
	luasrc_unref(src);
	snprintf(path, sizeof path, "%s/tests", dir); /* the service's own tests: for their runner alone */
	ck_assert_int_eq(env_dir_make(env, path), 0);
	snprintf(path, sizeof path, "%s/tests/a.lua", dir);
	ck_assert_int_eq(env_file_store(env, path, "not even Lua", 12, ENV_CREATE), 0);
	ck_assert_int_eq(luasrc_read(env, (const char *const[]){ dir, NULL }, error, sizeof error, &src), 0);
	ck_assert_uint_eq(luasrc_files(src), 2);
	luasrc_unref(src);
	ck_assert_int_eq(luasrc_read_tests(env, (const char *const[]){ dir, NULL }, error, sizeof error, &src), 0);
	ck_assert_ptr_nonnull(luasrc_find(src, "tests.a"));
	luasrc_unref(src);
	ck_assert_int_eq(luasrc_read(env, (const char *const[]){ "build/no such folder", NULL }, error, sizeof error,
				     &src),
			 ERR_NOT_FOUND);
	ck_has(error, "build/no such folder");
	env_file_remove(env, path);
	char *large = calloc(1, LUASRC_BYTES + 1);
	ck_assert_ptr_nonnull(large);
	ck_assert_int_eq(env_file_store(env, path, large, LUASRC_BYTES + 1, ENV_CREATE), 0);
	free(large);
	ck_assert_int_eq(luasrc_read_tests(env, (const char *const[]){ dir, NULL }, error, sizeof error, &src),
			 ERR_FULL);
	ck_has(error, "tests/a.lua: more than 4194304 bytes");
	env_file_remove(env, path);
	snprintf(path, sizeof path, "%s/aHandler.lua", dir);
	env_file_remove(env, path);
	snprintf(path, sizeof path, "rm -r %s", dir);
	ck_assert_int_eq(system(path), 0);
}
END_TEST

START_TEST(figures_become_metrics)
{
	struct buf text = BUF_INIT;
	on_loop(loop, free_host, NULL);
	options.metrics = metrics_new("test");
	on_loop(loop, new_host, NULL);
	ck_gives("clock.sleep(1100) return 1", "1"); /* they are written once a second */
	metrics_prometheus(options.metrics, &text);
	ck_has(buf_cstr(&text), "loquat_lua_tasks_total");
	ck_has(buf_cstr(&text), "loquat_lua_gc_pause_seconds_bucket{");
	ck_has(buf_cstr(&text), "loquat_lua_memory_max_bytes{instance=\"test\"} 268435456");
	buf_release(&text);
	on_loop(loop, free_host, NULL);
	metrics_free(options.metrics);
	options.metrics = NULL;
	on_loop(loop, new_host, NULL);
}
END_TEST

START_TEST(collections_are_counted)
{
	uint64_t before = stats()->gc_cycles;
	gives("for i = 1, 300000 do local t = {i} end");
	ck_assert_uint_gt(stats()->gc_cycles, before);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("luahost_code");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, methods_are_found_in_their_files);
	tcase_add_test(c, a_reload_keeps_the_state_and_running_tasks_finish_on_the_old_code);
	tcase_add_test(c, broken_code_changes_nothing_and_is_named);
	tcase_add_test(c, a_file_that_nobody_requires_yet_is_checked_too);
	tcase_add_test(c, what_is_known_is_compiled_where_it_is_required);
	tcase_add_test(c, what_was_prepared_can_be_dropped);
	if (!SIGNALS_WAIT)
		tcase_add_test(c, an_endless_loop_at_the_top_of_a_file_is_stopped_too);
	tcase_add_test(c, sources_are_read_from_folders);
	tcase_add_test(c, figures_become_metrics);
	tcase_add_test(c, collections_are_counted);
	return suite_run("luahost_code", c);
}
