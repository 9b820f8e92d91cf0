/* The promises of common/jsontext.h. */
#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"
#include "tests/support/suite.h"

static struct jsontext t;
static const char *why;

static int check_text(const char *s)
{
	return jsontext_object(s, strlen(s), &t, &why);
}

START_TEST(objects_are_accepted)
{
	static const char *const good[] = {
		"{}",
		" { } ",
		"{\"a\":1}",
		"{\"a\":[]}",
		"{\"a\":[1,2.5,-3e+7,0,-0.0,\"x\",true,false,null,{}]}",
		"{\"a\":{\"b\":{\"c\":[[],[[]]]}}}",
		"{\"\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\uDE00\"}",
		"\t{\"\xe4\xb8\xad\" :\n\"\xc3\xa9\"}\r\n",
		"{\"n\":123456789012345678901234567890}",
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(check_text(good[i]) == 0, "%s: %s", good[i], why);
	ck_assert(!t.wide);
}
END_TEST

START_TEST(everything_else_is_refused)
{
	static const char *const bad[] = {
		"",
		" ",
		"[]",
		"1",
		"null",
		"\"x\"",
		"{",
		"}",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\":1,}",
		"{,}",
		"{a:1}",
		"{\"a\":1 \"b\":2}",
		"{\"a\":01}",
		"{\"a\":1.}",
		"{\"a\":.5}",
		"{\"a\":+1}",
		"{\"a\":1e}",
		"{\"a\":-}",
		"{\"a\":tru}",
		"{\"a\":nul}",
		"{\"a\":\"\\x\"}",
		"{\"a\":\"\\u12\"}",
		"{\"a\":\"\\ud800\"}",
		"{\"a\":\"\\udc00\"}",
		"{\"a\":\"\\ud800\\u0041\"}",
		"{\"a\":\"",
		"{\"a\":\"\n\"}",
		"{} {}",
		"{}x",
		"{\"a\":[1,]}",
		"{\"a\":[1}",
		"{\"a\":{]}",
		"{\"a\":'x'}",
		"{\"a\":\"\xff\"}",
		"{\"a\":\"\xc0\x80\"}",
		"{\"a\":\"\xed\xa0\x80\"}",
		"{\"a\":\"\xed\xb0\x80\"}",
		"{\"a\":\"\xf4\x90\x80\x80\"}",
		"{\"a\":\"\xe4\xb8\"}",
		"{\"a\":\"\xed\xa0\xbd\xed\xa0\xbd\"}",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(check_text(bad[i]) == ERR_BAD_REQUEST, "%s was accepted", bad[i]);
}
END_TEST

START_TEST(nesting_is_bounded)
{
	char text[400];
	int n = 0;

	n += snprintf(text + n, sizeof(text) - (size_t)n, "{\"a\":");
	for (int i = 0; i < JSONTEXT_DEPTH_MAX - 1; i++)
		text[n++] = '[';
	for (int i = 0; i < JSONTEXT_DEPTH_MAX - 1; i++)
		text[n++] = ']';
	text[n++] = '}';
	ck_assert_int_eq(jsontext_object(text, (size_t)n, &t, &why), 0);
	n = 5;
	for (int i = 0; i < JSONTEXT_DEPTH_MAX; i++)
		text[n++] = '[';
	for (int i = 0; i < JSONTEXT_DEPTH_MAX; i++)
		text[n++] = ']';
	text[n++] = '}';
	ck_assert_int_eq(jsontext_object(text, (size_t)n, &t, &why), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(it_judges_random_text_as_jansson_does)
{
	static const char *const piece[] = { "{",           "}", "[",       "]",      ",",    ":", "\"a\"",
					     "\"\\u0041\"", "1", "-2.5e3",  "true",   "null", " ", "\"\xc3\xa9\"",
					     "0",           "x", "{\"k\":", "\"b\":", "{}",   "[]" };
	unsigned seed = 1;
	int accepted = 0;

	for (int round = 0; round < 200000; round++) {
		char text[256] = "{";
		int pieces = rand_r(&seed) % 8;
		for (int i = 0; i < pieces; i++)
			strcat(text, piece[(unsigned)rand_r(&seed) % (sizeof(piece) / sizeof(piece[0]))]);
		strcat(text, "}");
		json_t *j = json_loads(text, 0, NULL);
		bool ours = check_text(text) == 0;
		ck_assert_msg(ours == (j != NULL), "%s: %s", text, ours ? "accepted" : why);
		accepted += ours;
		json_decref(j);
	}
	ck_assert_int_gt(accepted, 1000);
}
END_TEST

START_TEST(characters_above_ffff_leave_as_escapes)
{
	struct buf out = BUF_INIT;
	const char *utf8 = "{\"m\":\"a\xf0\x9f\x98\x80\xe4\xb8\xad\"}";
	const char *cesu = "{\"m\":\"a\xed\xa0\xbd\xed\xb8\x80\xe4\xb8\xad\"}";

	ck_assert_int_eq(check_text(utf8), 0);
	ck_assert(t.wide);
	jsontext_narrow(&out, utf8, strlen(utf8));
	ck_assert_str_eq(buf_cstr(&out), "{\"m\":\"a\\ud83d\\ude00\xe4\xb8\xad\"}");
	buf_clear(&out);
	ck_assert_int_eq(check_text(cesu), 0);
	ck_assert(t.wide);
	jsontext_narrow(&out, cesu, strlen(cesu));
	ck_assert_str_eq(buf_cstr(&out), "{\"m\":\"a\\ud83d\\ude00\xe4\xb8\xad\"}");
	buf_release(&out);
}
END_TEST

START_TEST(any_bytes_can_be_quoted)
{
	struct buf out = BUF_INIT;

	jsontext_quote(&out, "a\"\\\n\x01\xff\xf0\x9f\x98\x80", 10);
	ck_assert_str_eq(buf_cstr(&out), "\"a\\\"\\\\\\n\\u0001\\ufffd\\ud83d\\ude00\"");
	buf_release(&out);
}
END_TEST

START_TEST(a_member_is_found_at_the_top_level_only)
{
	const char *text = "{\"x\":{\"token\":1}, \"token\" : \"abc\" ,\"to\":2,\"token\":3}", *v;
	size_t n;

	ck_assert(jsontext_member(text, strlen(text), "token", &v, &n));
	ck_assert_uint_eq(n, 5);
	ck_assert_mem_eq(v, "\"abc\"", 5);
	ck_assert(jsontext_member(text, strlen(text), "to", &v, &n));
	ck_assert_mem_eq(v, "2", 1);
	ck_assert(!jsontext_member(text, strlen(text), "t", &v, &n));
	ck_assert(!jsontext_member("{}", 2, "t", &v, &n));
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("jsontext");

	tcase_add_test(tc, objects_are_accepted);
	tcase_add_test(tc, everything_else_is_refused);
	tcase_add_test(tc, nesting_is_bounded);
	tcase_add_test(tc, it_judges_random_text_as_jansson_does);
	tcase_add_test(tc, characters_above_ffff_leave_as_escapes);
	tcase_add_test(tc, any_bytes_can_be_quoted);
	tcase_add_test(tc, a_member_is_found_at_the_top_level_only);
	return suite_run("jsontext", tc);
}
