#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/config.h"
#include "common/err.h"
#include "tests/support/suite.h"

static const struct config_row rows[] = {
	{ "gate.players_max", CONFIG_INT, "10000", false, 1, 1000000, "Players at once." },
	{ "gate.rate", CONFIG_NUMBER, "0.5", false, 0, 1, "A part." },
	{ "gate.guests", CONFIG_BOOL, "true", false, 0, 0, "Whether guests may play." },
	{ "gate.title", CONFIG_STRING, "Loquat", false, 1, 10, "The name of it all." },
	{ "gate.note", CONFIG_STRING, "", true, 0, 0, "A word." },
	{ "instances[].id", CONFIG_STRING, NULL, false, 1, 64, "Who it is." },
	{ "instances[].threads", CONFIG_INT, "1", false, 1, 64, "Workers." },
	{ "instances[].ports[]", CONFIG_INT, "0", true, 1, 65535, "Where it listens." },
	{ "platforms.*.key", CONFIG_STRING, NULL, false, 0, 0, "Its key file." },
	{ "platforms.*.slow", CONFIG_BOOL, "false", false, 0, 0, "Whether it is slow." },
	{ "tls", CONFIG_TABLE, NULL, true, 0, 0, "Certificates." },
	{ "tls.cert", CONFIG_STRING, NULL, false, 0, 0, "The file." },
	{ "free", CONFIG_TABLE, "", true, 0, 0, "Anything." },
	{ "services", CONFIG_ANY, "", true, 0, 0, "Checked by others." },
	{ 0 },
};

static struct config *c;
static char error[256];

static int parse_rows(const char *text, const struct config_row *r)
{
	config_free(c);
	c = NULL;
	error[0] = 0;
	return config_parse("deploy/x.lua", text, strlen(text), r, error, sizeof error, &c);
}

static int parse(const char *text)
{
	return parse_rows(text, rows);
}

static void teardown(void)
{
	config_free(c);
	c = NULL;
}

static void refuses(const char *text, const char *expected)
{
	ck_assert_int_eq(parse(text), ERR_CONFIG);
	ck_assert_str_eq(error, expected);
	ck_assert_ptr_null(c);
}

START_TEST(values_are_read_by_their_paths)
{
	ck_assert_int_eq(parse("return { gate = { players_max = 5, rate = 0.25, guests = false, title = 'x' },\n"
			       "  instances = { { id = 'a' }, { id = 'b', threads = 3, ports = { 80, 443 } } } }"),
			 0);
	ck_assert_int_eq(config_int(c, "gate.players_max", 1), 5);
	ck_assert(config_number(c, "gate.rate", 1) == 0.25);
	ck_assert(!config_bool(c, "gate.guests", true));
	ck_assert_str_eq(config_string(c, "gate.title", ""), "x");
	ck_assert_uint_eq(config_count(c, "instances"), 2);
	ck_assert_str_eq(config_string(c, "instances[2].id", ""), "b");
	ck_assert_int_eq(config_int(c, "instances[2].threads", 0), 3);
	ck_assert_int_eq(config_int(c, "instances[2].ports[2]", 0), 443);
}
END_TEST

START_TEST(what_is_left_out_has_its_default)
{
	ck_assert_int_eq(parse("return { instances = { { id = 'a' } } }"), 0);
	ck_assert_int_eq(config_int(c, "gate.players_max", 1), 10000);
	ck_assert(config_number(c, "gate.rate", 0) == 0.5);
	ck_assert(config_bool(c, "gate.guests", false));
	ck_assert_str_eq(config_string(c, "gate.title", ""), "Loquat");
	ck_assert_int_eq(config_int(c, "instances[1].threads", 0), 1);
}
END_TEST

START_TEST(a_path_that_is_not_there_gives_the_fallback)
{
	ck_assert_int_eq(parse("return { instances = { { id = 'a' } } }"), 0);
	ck_assert_int_eq(config_int(c, "gate.nothing", 42), 42);
	ck_assert_int_eq(config_int(c, "instances[2].threads", 42), 42);
	ck_assert_int_eq(config_int(c, "instances[0].threads", 42), 42);
	ck_assert_int_eq(config_int(c, "instances[x", 42), 42);
	ck_assert_int_eq(config_int(c, "gate.title", 42), 42); /* not a number */
	ck_assert_int_eq(config_int(c, "gate.title.more", 42), 42);
	ck_assert_ptr_null(config_string(c, "gate.note", NULL));
	ck_assert_uint_eq(config_count(c, "nothing"), 0);
}
END_TEST

START_TEST(the_file_may_compute)
{
	ck_assert_int_eq(
		parse("local t = {}\n"
		      "for i = 1, 3 do t[i] = { id = string.format('scene-%d', i), threads = math.max(1, i) } end\n"
		      "return { instances = t, gate = { players_max = 1e4 } }"),
		0);
	ck_assert_str_eq(config_string(c, "instances[3].id", ""), "scene-3");
	ck_assert_int_eq(config_int(c, "gate.players_max", 1), 10000); /* a whole float is an integer */
}
END_TEST

START_TEST(a_wrong_type_is_one_clear_line)
{
	refuses("return { gate = { players_max = 'many' } }",
		"deploy/x.lua: gate.players_max: expected integer 1..1000000, found \"many\"");
	refuses("return { gate = { players_max = 1.5 } }",
		"deploy/x.lua: gate.players_max: expected integer 1..1000000, found 1.5");
	refuses("return { gate = { guests = 1 } }", "deploy/x.lua: gate.guests: expected true or false, found 1");
	refuses("return { gate = 7 }", "deploy/x.lua: gate: expected table, found 7");
	refuses("return { gate = { title = {} } }",
		"deploy/x.lua: gate.title: expected string of 1..10 bytes, found a table");
	refuses("return { instances = { { id = 'a' }, { id = print or pairs } } }",
		"deploy/x.lua: instances[2].id: expected string of 1..64 bytes, found a function");
	refuses("return { instances = { { id = 'a', ports = { 80, 'x' } } } }",
		"deploy/x.lua: instances[1].ports[2]: expected integer 1..65535, found \"x\"");
}
END_TEST

START_TEST(a_value_out_of_bounds_is_refused)
{
	refuses("return { gate = { players_max = 0 } }",
		"deploy/x.lua: gate.players_max: expected integer 1..1000000, found 0");
	refuses("return { gate = { rate = 1.01 } }", "deploy/x.lua: gate.rate: expected number 0..1, found 1.01");
	refuses("return { gate = { title = '' } }",
		"deploy/x.lua: gate.title: expected string of 1..10 bytes, found \"\"");
	refuses("return { gate = { title = 'a\\0b' } }",
		"deploy/x.lua: gate.title: expected string of 1..10 bytes, found \"a\"");
	refuses("return { gate = { title = ('x'):rep(99) .. '\\n' } }",
		"deploy/x.lua: gate.title: expected string of 1..10 bytes, found "
		"\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…\"");
}
END_TEST

START_TEST(a_missing_value_is_named)
{
	refuses("return { instances = { { id = 'a' }, {} } }",
		"deploy/x.lua: instances[2].id: expected string of 1..64 bytes, found nothing");
	refuses("return { platforms = { demo = {} } }",
		"deploy/x.lua: platforms.demo.key: expected string, found nothing");
}
END_TEST

START_TEST(an_unknown_key_is_named_with_the_nearest)
{
	refuses("return { gate = { playersmax = 5 } }",
		"deploy/x.lua: gate.playersmax: unknown key; did you mean players_max?");
	refuses("return { gaet = {} }", "deploy/x.lua: gaet: unknown key; did you mean gate?");
	refuses("return { instances = { { id = 'a', thread = 1 } } }",
		"deploy/x.lua: instances[1].thread: unknown key; did you mean threads?");
	refuses("return { players_max = 5 }", "deploy/x.lua: players_max: unknown key; did you mean gate.players_max?");
	refuses("return { gate = { colour = 'red' } }", "deploy/x.lua: gate.colour: unknown key");
	refuses("return { gate = { 5 } }", "deploy/x.lua: gate[1]: unknown key");
	refuses("return { instances = { id = 'a' } }",
		"deploy/x.lua: instances.id: unknown key; did you mean instances[].id?");
}
END_TEST

START_TEST(a_path_that_no_row_knows_is_named_with_the_nearest)
{
	static const char *const known[] = { "gate.players_max", "instances[7].id", "platforms.demo.key", "tls.cert" };
	static const char *const unknown[] = {
		"gate.playersmax",
		"who: gate.playersmax: unknown key; did you mean players_max?",
		"gaet.players_max",
		"who: gaet.players_max: unknown key; did you mean gate?",
		"players_max",
		"who: players_max: unknown key; did you mean gate.players_max?",
		"gate.players_max.more",
		"who: gate.players_max.more: unknown key",
		"instances[1].thread",
		"who: instances[1].thread: unknown key; did you mean threads?",
		"gate[1]",
		"who: gate[1]: unknown key",
		"gate",
		"who: gate: a table, no value",
		"instances[",
		"who: instances[: a table, no value",
		"",
		"who: a table, no value",
	};
	char why[200] = "", path[600];

	ck_assert_int_eq(parse("return {}"), 0);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		ck_assert_msg(config_check_path(c, "who", known[i], why, sizeof why) == 0, "%s", why);
	for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i += 2) {
		ck_assert_int_eq(config_check_path(c, "who", unknown[i], why, sizeof why), ERR_NOT_FOUND);
		ck_assert_str_eq(why, unknown[i + 1]);
	}
	memset(path, 'x', sizeof path - 1);
	path[sizeof path - 1] = 0;
	ck_assert_int_eq(config_check_path(c, "who", path, why, sizeof why), ERR_NOT_FOUND);
}
END_TEST

START_TEST(maps_have_entries_of_any_name)
{
	ck_assert_int_eq(parse("return { platforms = { wide = { key = 'w' }, demo = { key = 'd', slow = true } } }"),
			 0);
	ck_assert_str_eq(config_string(c, "platforms.demo.key", ""), "d");
	ck_assert(!config_bool(c, "platforms.wide.slow", true));
}
END_TEST

START_TEST(an_optional_section_binds_only_when_it_is_there)
{
	ck_assert_int_eq(parse("return {}"), 0);
	ck_assert_ptr_null(config_string(c, "tls.cert", NULL));
	refuses("return { tls = {} }", "deploy/x.lua: tls.cert: expected string, found nothing");
	ck_assert_int_eq(parse("return { tls = { cert = 'x' } }"), 0);
}
END_TEST

START_TEST(what_others_check_is_kept)
{
	ck_assert_int_eq(parse("return { free = { a = { 1, 2 } }, services = { scene = { view_max = 3 } } }"), 0);
	ck_assert_int_eq(config_int(c, "free.a[2]", 0), 2);
	ck_assert_int_eq(config_int(c, "services.scene.view_max", 0), 3);
	refuses("return { free = 3 }", "deploy/x.lua: free: expected table, found 3");
}
END_TEST

START_TEST(a_star_row_takes_any_key_at_the_top)
{
	static const struct config_row star[] = {
		{ "gate.players_max", CONFIG_INT, "10000", false, 1, 1000000, "" },
		{ "*", CONFIG_ANY, NULL, true, 0, 0, "" },
		{ 0 },
	};
	ck_assert_int_eq(parse_rows("return { scene = { a = 1 }, b = 2 }", star), 0);
	ck_assert_int_eq(config_int(c, "scene.a", 0), 1);
	ck_assert_int_eq(config_int(c, "gate.players_max", 0), 10000);
	ck_assert_int_eq(parse_rows("return { gate = { a = 1 } }", star), ERR_CONFIG);
}
END_TEST

START_TEST(errors_of_the_file_itself_name_the_line)
{
	refuses("return {\n  gate = {}\n", "deploy/x.lua:3: '}' expected (to close '{' at line 1) near <eof>");
	refuses("local a\nreturn { gate = a.b }", "deploy/x.lua:2: attempt to index a nil value (local 'a')");
	refuses("error('no such host')", "deploy/x.lua:1: no such host");
	refuses("error({})", "deploy/x.lua: it raised an error without a message");
	refuses("return 5", "deploy/x.lua: expected it to return a table, found number");
	refuses("", "deploy/x.lua: expected it to return a table, found nil");
	refuses("\x1bLua", "deploy/x.lua: attempt to load a binary chunk (mode is 't')");
}
END_TEST

START_TEST(the_file_cannot_reach_the_world)
{
	static const char *const names[] = { "io",           "os",    "require",     "load",       "loadfile",
					     "dofile",       "debug", "package",     "print",      "collectgarbage",
					     "setmetatable", "_G",    "math.random", "string.dump" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char text[128];
		snprintf(text, sizeof text, "assert(%s == nil) return {}", names[i]);
		ck_assert_msg(parse(text) == 0, "%s: %s", names[i], error);
	}
}
END_TEST

START_TEST(an_endless_loop_and_endless_memory_end)
{
	ck_assert_int_eq(parse("while true do end"), ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(error, "deploy/x.lua:1: still running"));
	refuses("local t = {} for i = 1, 1e9 do t[i] = i .. 'x' end", "deploy/x.lua: not enough memory");
	refuses("return { gate = { title = ('x'):rep(1e9) } }", "deploy/x.lua: not enough memory");
}
END_TEST

START_TEST(a_table_that_contains_itself_is_refused)
{
	ck_assert_int_eq(parse("local t = {} t.gate = t return t"), ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(error, "does a table contain itself?"));
}
END_TEST

START_TEST(keys_are_names_or_a_list_without_holes)
{
	refuses("return { gate = { [1.5] = 1 } }",
		"deploy/x.lua: gate: expected names without . [ ] * or 1, 2, 3 … as keys, found 1.5");
	refuses("return { platforms = { ['a.b'] = { key = 'x' } } }",
		"deploy/x.lua: platforms: expected names without . [ ] * or 1, 2, 3 … as keys, found a.b");
	refuses("return { instances = { { id = 'a' }, nil, { id = 'b' } } }",
		"deploy/x.lua: instances: element 2 of the list is missing");
}
END_TEST

START_TEST(help_lists_every_key)
{
	char help[4096];
	config_help(rows, help, sizeof help);
	ck_assert_ptr_nonnull(strstr(help, "gate.players_max"));
	ck_assert_ptr_nonnull(strstr(help, "integer 1..1000000, default 10000\n"));
	ck_assert_ptr_nonnull(strstr(help, "Players at once.\n"));
	ck_assert_ptr_nonnull(strstr(help, "string of 1..64 bytes, must be given\n"));
	config_help(rows, help, 10);
	ck_assert_uint_eq(strlen(help), 9);
}
END_TEST

START_TEST(a_file_is_loaded_and_may_ask_for_the_environment)
{
	char path[64];
	struct env *env = env_new();
	snprintf(path, sizeof path, "/tmp/loquat-test-config-%d.lua", getpid());
	setenv("LOQUAT_TEST_TITLE", "fig", 1);
	static const char text[] =
		"return { gate = { title = env('LOQUAT_TEST_TITLE'), note = env('LOQUAT_UNSET_') } }";
	ck_assert_int_eq(env_file_store(env, path, text, strlen(text), 0), 0);
	ck_assert_int_eq(config_load(env, path, rows, error, sizeof error, &c), 0);
	ck_assert_str_eq(config_string(c, "gate.title", ""), "fig");
	ck_assert_ptr_null(config_string(c, "gate.note", NULL));
	unlink(path);
	env_free(env);
}
END_TEST

START_TEST(a_missing_file_is_named)
{
	struct env *env = env_new();
	ck_assert_int_eq(config_load(env, "/tmp/loquat-none.lua", rows, error, sizeof error, &c), ERR_NOT_FOUND);
	ck_assert_str_eq(error, "/tmp/loquat-none.lua: there is no such file");
	env_free(env);
}
END_TEST

static void *read_much(void *arg)
{
	uintptr_t sum = 0;
	for (int i = 0; i < 10000; i++)
		sum += (uintptr_t)config_int(arg, "instances[2].threads", 0) + config_count(arg, "instances");
	return (void *)sum;
}

START_TEST(any_thread_may_read)
{
	pthread_t t[2];
	void *sum[2];
	ck_assert_int_eq(parse("return { instances = { { id = 'a' }, { id = 'b', threads = 3 } } }"), 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, read_much, c);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], &sum[i]);
	ck_assert_uint_eq((uintptr_t)sum[0], 50000);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("config");
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, NULL, teardown);
	tcase_add_test(t, values_are_read_by_their_paths);
	tcase_add_test(t, what_is_left_out_has_its_default);
	tcase_add_test(t, a_path_that_is_not_there_gives_the_fallback);
	tcase_add_test(t, the_file_may_compute);
	tcase_add_test(t, a_wrong_type_is_one_clear_line);
	tcase_add_test(t, a_value_out_of_bounds_is_refused);
	tcase_add_test(t, a_missing_value_is_named);
	tcase_add_test(t, an_unknown_key_is_named_with_the_nearest);
	tcase_add_test(t, a_path_that_no_row_knows_is_named_with_the_nearest);
	tcase_add_test(t, maps_have_entries_of_any_name);
	tcase_add_test(t, an_optional_section_binds_only_when_it_is_there);
	tcase_add_test(t, what_others_check_is_kept);
	tcase_add_test(t, a_star_row_takes_any_key_at_the_top);
	tcase_add_test(t, errors_of_the_file_itself_name_the_line);
	tcase_add_test(t, the_file_cannot_reach_the_world);
	tcase_add_test(t, an_endless_loop_and_endless_memory_end);
	tcase_add_test(t, a_table_that_contains_itself_is_refused);
	tcase_add_test(t, keys_are_names_or_a_list_without_holes);
	tcase_add_test(t, help_lists_every_key);
	tcase_add_test(t, a_file_is_loaded_and_may_ask_for_the_environment);
	tcase_add_test(t, a_missing_file_is_named);
	tcase_add_test(t, any_thread_may_read);
	return suite_run("config", t);
}
