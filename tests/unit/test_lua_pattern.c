/* The promises of common/lua_pattern.h: Lua's own answers, and steps that are accounted for. */
#include <check.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/lua_pattern.h"
#include "common/luahost_private.h"
#include "tests/support/suite.h"

#ifdef __SANITIZE_THREAD__
enum { ROUNDS = 5000 }; /* it counts calls that errors have jumped out of as never ended, and holds so many */
#else
enum { ROUNDS = 200000 };
#endif
enum { TEXT_MAX = 14, PATTERN_MAX = 80 };

static lua_State *ours, *luas;
static uint64_t spent, allowed;

/* Stands for the host's. */
void luahost_spend(lua_State *L, uint32_t steps)
{
	if ((spent += steps) > allowed)
		luaL_error(L, "stopped");
}

static void setup(void)
{
	ours = luaL_newstate();
	luas = luaL_newstate();
	luaL_openlibs(ours);
	luaL_openlibs(luas);
	lua_getglobal(ours, "string");
	lua_pattern_open(ours);
	lua_pop(ours, 1);
	spent = 0;
	allowed = UINT64_MAX;
}

static void teardown(void)
{
	lua_close(ours);
	lua_close(luas);
}

/* What the code returns, as text. */
static const char *run(lua_State *L, const char *code)
{
	static char out[2][2000];
	char *text = out[L == ours];
	size_t len = 0;
	lua_settop(L, 0);
	ck_assert_msg(luaL_loadstring(L, code) == LUA_OK, "%s", lua_tostring(L, -1));
	lua_pcall(L, 0, LUA_MULTRET, 0);
	text[0] = '\0';
	for (int i = 1, n = lua_gettop(L); i <= n; i++) {
		len += (size_t)snprintf(text + len, 2000 - len, "%s|", luaL_tolstring(L, i, NULL));
		lua_pop(L, 1);
		if (len >= 2000)
			break;
	}
	return text;
}

static void same(const char *code)
{
	const char *expected = run(luas, code), *got = run(ours, code);
	ck_assert_msg(!strcmp(expected, got), "%s\nLua: %s\nwe:  %s", code, expected, got);
}

START_TEST(the_answers_and_errors_are_those_of_lua)
{
	static const char *const calls[] = {
		"('hello world'):find('o w')",
		"('hello'):find('l+', 3)",
		"('hello'):find('l', -2)",
		"('hello'):find('', 6)",
		"('hello'):find('', 7)",
		"('a+b'):find('+', 1, true)",
		"('a\\0b'):find('\\0')",
		"('a\\0b'):match('%z')",
		"('key = value'):match('^(%w+)%s*=%s*(%w+)$')",
		"('abc'):match('()b()')",
		"('(a(b)c)d'):match('%b()')",
		"('THE (quick) fox'):find('%f[%a]%a+%f[%A]', 5)",
		"('x]y'):match('[]]')",
		"('x-y'):match('[a%-]')",
		"('x'):match('[^%s]')",
		"('aa bb'):gsub('%w+', '%0 %0', 1)",
		"('abc'):gsub('', '-')",
		"('abc'):gsub('b*', '-')",
		"('hello world'):gsub('(%w+) (%w+)', '%2 %1')",
		"('$name'):gsub('%$(%w+)', {name = 'x'})",
		"('abc'):gsub('%w', function(c) if c == 'b' then return 'B' end end)",
		"('abc'):gsub('()', '%1')",
		"('abc'):gsub('^a', 'x')",
		"('a'):gsub('a', '%%')",
		"('abab'):match('^(ab)%1$')",
		"('x'):rep(3):gsub('x', 7)",
		"('a'):match('(')",
		"('a'):match(')')",
		"('a'):match('%')",
		"('a'):match('[a')",
		"('a'):match('[a%')",
		"('a'):match('%b')",
		"('a'):match('%bx')",
		"('a'):match('%f')",
		"('a'):match('%1')",
		"('a'):match('(%1)')",
		"('a'):match('(a)%2')",
		"('a'):match('%0')",
		"('a'):gsub('a', '%2')",
		"('a'):gsub('a', '%x')",
		"('a'):gsub('a', 'x%')",
		"('a'):gsub('a', {a = {}})",
		"('a'):gsub('a')",
		"('a'):gsub('a', true)",
		"('a'):find()",
		"string.match({}, 'x')",
		"('a'):rep(300):match(('a?'):rep(300))",
		"('a'):rep(40):match(('(a)'):rep(33))",
		"('abc'):find('b', math.mininteger)",
		"('abc'):find('b', 0)",
		"('abc'):match('.-c')",
		"('aaa'):match('^(a-)$')",
		"('1.5e3'):match('^[+-]?%d+%.?%d*[eE]?%d*$')",
		"('a,b,,c'):gsub('[^,]*', function(w) return #w end)",
		"('a$'):match('a$$')",
		"('$'):match('^$')",
	};
	static const char *const loops[] = {
		"local t = {} for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do t[#t+1] = k .. v end return table.concat(t, ';')",
		"local t = {} for w in ('abc'):gmatch('b*') do t[#t+1] = '<' .. w .. '>' end return table.concat(t)",
		"local t = {} for w in ('abc'):gmatch('', 3) do t[#t+1] = '<' .. w .. '>' end return table.concat(t)",
		"local t = {} for p in ('abc'):gmatch('()', -2) do t[#t+1] = p end return table.concat(t, ' ')",
		"local t = {} for w in ('^a^b'):gmatch('^.') do t[#t+1] = w end return table.concat(t, ' ')",
	};
	char code[500];
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
		snprintf(code, sizeof code, "return pcall(function() return %s end)", calls[i]);
		same(code);
	}
	for (size_t i = 0; i < sizeof loops / sizeof *loops; i++)
		same(loops[i]);
}
END_TEST

static const char *any(const char *const *list, unsigned n)
{
	return list[(unsigned)rand() % n];
}

static void random_pattern(char *out)
{
	static const char *const piece[] = { "a",    "b",    ".",     "%a",     "%d",   "%D",   "%s",     "%w",
					     "[ab]", "[^a]", "[%d-]", "[a-b1]", "]",    "1",    " ",      "(",
					     ")",    "()",   "%1",    "%2",     "%b()", "%bab", "%f[%w]", "%f[^a]",
					     "$",    "^",    "%.",    "-",      "[]a]", "%",    "[",      "%b",
					     "%f",   "(a)",  "(.-)",  "(b*)" };
	static const char *const suffix[] = { "", "", "", "", "*", "+", "-", "?" };
	out[0] = '\0';
	if (rand() % 6 == 0)
		strcat(out, "^");
	for (int n = rand() % 5; n >= 0; n--) {
		strcat(out, any(piece, sizeof piece / sizeof *piece));
		strcat(out, any(suffix, sizeof suffix / sizeof *suffix));
	}
	if (rand() % 6 == 0)
		strcat(out, "$");
}

static void random_text(char *out)
{
	static const char letters[] = "aaabbb11 ().-]A$";
	int n = rand() % TEXT_MAX;
	for (int i = 0; i < n; i++)
		out[i] = letters[(unsigned)rand() % (sizeof letters - 1)];
	out[n] = '\0';
}

static void call(lua_State *L, const char *function, const char *text, const char *pattern, const char *replacement)
{
	lua_settop(L, 0);
	lua_getglobal(L, "string");
	lua_getfield(L, -1, function);
	lua_remove(L, 1);
	lua_pushstring(L, text);
	lua_pushstring(L, pattern);
	if (replacement)
		lua_pushstring(L, replacement);
	lua_pcall(L, replacement ? 3 : 2, LUA_MULTRET, 0);
}

static void compare_results(const char *function, const char *text, const char *pattern)
{
	bool equal = lua_gettop(ours) == lua_gettop(luas);
	for (int i = 1; equal && i <= lua_gettop(ours); i++)
		equal = !strcmp(luaL_tolstring(ours, i, NULL), luaL_tolstring(luas, i, NULL)) &&
			(lua_pop(ours, 1), lua_pop(luas, 1), true);
	if (!equal)
		ck_abort_msg("%s of \"%s\" by \"%s\": %d results, Lua has %d; the first: %s, %s", function, text,
			     pattern, lua_gettop(ours), lua_gettop(luas), luaL_tolstring(ours, 1, NULL),
			     luaL_tolstring(luas, 1, NULL));
}

START_TEST(random_patterns_give_what_lua_gives)
{
	static const char *const replacement[] = { "", "x", "<%0>", "%1", "%2%1", "%%", "%x" };
	srand(7);
	for (int i = 0; i < ROUNDS; i++) {
		char pattern[PATTERN_MAX], text[TEXT_MAX + 1];
		const char *with = any(replacement, 7);
		random_pattern(pattern);
		random_text(text);
		const char *function = i % 3 == 0 ? "find" : i % 3 == 1 ? "match" : "gsub";
		call(ours, function, text, pattern, i % 3 == 2 ? with : NULL);
		call(luas, function, text, pattern, i % 3 == 2 ? with : NULL);
		compare_results(function, text, pattern);
	}
}
END_TEST

START_TEST(a_pattern_that_would_run_for_ever_is_stopped)
{
	static const char *const hostile[] = {
		"return ('a'):rep(40):match(('a*'):rep(20) .. 'b')",
		"return ('a'):rep(40):find('(.-)(.-)(.-)(.-)(.-)(.-)(.-)(.-)(.-)(.-)(.-)b')",
		"return ('a'):rep(40):gsub(('a-'):rep(20) .. 'b', 'x')",
		"for w in ('a'):rep(40):gmatch(('a?'):rep(30) .. ('a'):rep(41)) do return w end",
		"return ('('):rep(100000):find('%b()')",
		"return ('a'):rep(50000):match('.-b')",
		"return ('a'):rep(30000):match('(a*)%1%1b')",
	};
	for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
		spent = 0;
		allowed = 10000000;
		ck_assert_msg(strstr(run(ours, hostile[i]), "stopped"), "%s: %s", hostile[i], run(ours, hostile[i]));
	}
}
END_TEST

START_TEST(steps_are_about_the_work_done)
{
	run(ours, "return ('x'):rep(100000):match('^x*$')");
	ck_assert(spent >= 100000 - 1000 && spent <= 110000);
	spent = 0;
	run(ours, "return ('x'):rep(100000):find('xy', 1, true)");
	ck_assert_int_eq(spent, 0);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("lua_pattern");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, the_answers_and_errors_are_those_of_lua);
	tcase_add_test(c, random_patterns_give_what_lua_gives);
	tcase_add_test(c, a_pattern_that_would_run_for_ever_is_stopped);
	tcase_add_test(c, steps_are_about_the_work_done);
	return suite_run("lua_pattern", c);
}
