/* The promises of common/lua_json.h and common/lua_msg.h. */
#include <check.h>
#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "tests/support/sample.h"
#include "tests/support/suite.h"

static struct schema *schema;
static lua_State *L;
static struct lua_msg msg;
static struct buf out;
static char why[LUA_WHY_MAX];

static void setup(void)
{
	schema = sample_schema();
	L = luaL_newstate();
	luaL_openlibs(L);
	lua_msg_open(L, schema, &msg);
	luaL_requiref(L, "json", lua_json_lib, 1);
	lua_settop(L, 0);
	buf_init(&out);
	why[0] = 0;
}

static void teardown(void)
{
	ck_assert_int_eq(lua_gettop(L), 0);
	buf_release(&out);
	lua_close(L);
	schema_free(schema);
}

static const struct msg_type *type(const char *name)
{
	return name ? schema_type(schema, name) : NULL;
}

static int decode_n(const char *name, const char *text, size_t n)
{
	/* a copy of exactly n bytes, so that a sanitizer sees a read behind them */
	char *copy = malloc(n ? n : 1);
	memcpy(copy, text, n);
	int err = lua_json_decode(L, type(name), copy, n, why, sizeof why);
	free(copy);
	return err;
}

/* Decodes and encodes again by the same type (NULL: untyped). */
static const char *again(const char *name, const char *text)
{
	int err = decode_n(name, text, strlen(text));
	ck_assert_msg(err == 0, "%s: %s", text, why);
	ck_assert_int_eq(lua_gettop(L), 1);
	buf_clear(&out);
	err = lua_json_encode(L, 1, type(name), &out, why, sizeof why);
	ck_assert_msg(err == 0, "%s: %s", text, why);
	ck_assert_int_eq(lua_gettop(L), 1);
	lua_settop(L, 0);
	return buf_cstr(&out);
}

static const char *refused(const char *name, const char *text)
{
	ck_assert_msg(decode_n(name, text, strlen(text)) == ERR_BAD_REQUEST, "%s", text);
	ck_assert_int_eq(lua_gettop(L), 0);
	return why;
}

/* Encodes what the Lua expression gives. */
static int encode(const char *name, const char *expression)
{
	lua_pushfstring(L, "return %s", expression);
	ck_assert_msg(luaL_dostring(L, lua_tostring(L, -1)) == LUA_OK, "%s", lua_tostring(L, -1));
	buf_clear(&out);
	int err = lua_json_encode(L, -1, type(name), &out, why, sizeof why);
	buf_cstr(&out);
	lua_settop(L, 0);
	return err;
}

#define ck_again(name, text)  ck_assert_str_eq(again(name, text), text)
#define ck_why(name, text, w) ck_assert_str_eq(refused(name, text), w)
#define ck_encoded(name, expression, text)                               \
	do {                                                             \
		ck_assert_msg(encode(name, expression) == 0, "%s", why); \
		ck_assert_str_eq(out.data, text);                        \
	} while (0)
#define ck_unwritable(name, expression, w)                              \
	do {                                                            \
		ck_assert_int_eq(encode(name, expression), ERR_FAILED); \
		ck_assert_str_eq(why, w);                               \
		ck_assert_uint_eq(out.len, 0);                          \
	} while (0)

/* ---- untyped ---- */

START_TEST(untyped_data_come_back_equal)
{
	ck_again(NULL, "{}");
	ck_again(NULL, "[]");
	ck_again(NULL, "null");
	ck_again(NULL, "true");
	ck_again(NULL, "\"x\"");
	ck_again(NULL, "[[],{},null,false,true,[null],{\"a\":null}]");
	ck_again(NULL, "{\"a\":{\"b\":{\"c\":[1,[2,[3]]]}},\"z\":\"\"}");
	ck_again("loquat.Any", "{\"array\":[],\"null\":null,\"object\":{}}");
}
END_TEST

START_TEST(integers_of_64_bits_are_exact)
{
	ck_again(NULL, "[0,1,-1,9007199254740993,9223372036854775807,-9223372036854775808]");
}
END_TEST

START_TEST(integers_beyond_64_bits_keep_their_digits)
{
	ck_again(NULL, "[18446744073709551615,-9223372036854775809,123456789012345678901234567890]");
	ck_again(NULL, "[18446744073709551616,-36893488147419103232,184467440737095516160]"); /* 0 modulo 2^64 */
	ck_assert_str_eq(again(NULL, "[18446744073709551616.0,1.8446744073709551616]"),
			 "[1.8446744073709552e+19,1.8446744073709551]");
	ck_assert_int_eq(decode_n(NULL, "9223372036854775808", 19), 0);
	ck_assert_str_eq(luaL_tolstring(L, -1, NULL), "9223372036854775808");
	lua_settop(L, 0);
}
END_TEST

START_TEST(floats_come_back_shortest)
{
	ck_again(NULL, "[0.1,-0.5,1.0,3.14159,123456.789,1e+300,1.7976931348623157e+308,-0.0]");
	ck_assert_str_eq(again(NULL, "[1e2,1E-3,0.10,-0,100000000000000000000.0]"), "[100.0,0.001,0.1,-0.0,1e+20]");
	ck_assert_str_eq(again(NULL, "0.30000000000000004"), "0.30000000000000004");
	ck_assert_str_eq(again(NULL, "2.2250738585072011e-308"), "2.225073858507201e-308");
}
END_TEST

START_TEST(random_doubles_read_back_as_themselves)
{
	srandom(7);
	for (int i = 0; i < 20000; i++) {
		union {
			uint64_t u;
			double d;
		} x = { .u = (uint64_t)random() << 42 ^ (uint64_t)random() << 21 ^ (uint64_t)random() };
		if (i % 2)
			x.d = (double)(random() % 20000000 - 10000000) / (i % 3 ? 100 : 4096);
		if (!isfinite(x.d))
			continue;
		buf_clear(&out);
		lua_pushnumber(L, x.d);
		ck_assert_int_eq(lua_json_encode(L, -1, NULL, &out, why, sizeof why), 0);
		ck_assert_int_eq(lua_json_decode(L, NULL, out.data, out.len, why, sizeof why), 0);
		ck_assert_msg(lua_tonumber(L, -1) == x.d && !lua_isinteger(L, -1), "%.17g", x.d);
		lua_settop(L, 0);
	}
}
END_TEST

START_TEST(an_array_given_to_scripts_stays_one_when_it_is_emptied)
{
	ck_assert_int_eq(decode_n(NULL, "[5]", 3), 0);
	lua_pushnil(L);
	lua_rawseti(L, 1, 1);
	ck_assert_int_eq(lua_json_encode(L, 1, NULL, &out, why, sizeof why), 0);
	ck_assert_str_eq(buf_cstr(&out), "[]");
	lua_settop(L, 0);
	ck_encoded(NULL, "json.array()", "[]");
	ck_encoded(NULL, "{list = json.array{}, map = {}}", "{\"list\":[],\"map\":{}}");
}
END_TEST

START_TEST(objects_are_written_sorted)
{
	ck_encoded(NULL, "{b=1, a=2, aa=3, [''] = 4, B=5}", "{\"\":4,\"B\":5,\"a\":2,\"aa\":3,\"b\":1}");
	ck_encoded(NULL, "(function() local t = {} for i = 100, 120 do t['k' .. i] = i end return t end)()",
		   "{\"k100\":100,\"k101\":101,\"k102\":102,\"k103\":103,\"k104\":104,\"k105\":105,\"k106\":106,"
		   "\"k107\":107,\"k108\":108,\"k109\":109,\"k110\":110,\"k111\":111,\"k112\":112,\"k113\":113,"
		   "\"k114\":114,\"k115\":115,\"k116\":116,\"k117\":117,\"k118\":118,\"k119\":119,\"k120\":120}");
}
END_TEST

START_TEST(large_arrays_and_objects_come_back)
{
	struct buf text = BUF_INIT;
	buf_addstr(&text, "{\"list\":[0");
	for (int i = 1; i < 1000; i++)
		buf_addf(&text, ",%d", i);
	buf_addstr(&text, "]");
	for (int i = 1000; i < 1500; i++)
		buf_addf(&text, ",\"m%d\":%d", i, i);
	buf_addstr(&text, "}");
	ck_again(NULL, buf_cstr(&text));
	buf_release(&text);
}
END_TEST

START_TEST(nesting_is_bounded_on_both_ways)
{
	char text[200] = "";
	memset(text, '[', 32);
	memset(text + 32, ']', 32);
	ck_again(NULL, text);
	memset(text, '[', 33);
	memset(text + 33, ']', 33);
	ck_assert_ptr_nonnull(strstr(refused(NULL, text), "more than 32 levels"));
	ck_assert_int_eq(encode(NULL, "(function() local t = {} t[1] = t return t end)()"), ERR_FAILED);
	ck_assert_ptr_nonnull(strstr(why, "a cycle, or more than 32 levels"));
	ck_assert_int_eq(encode(NULL, "(function() local t = {} t.x = t return t end)()"), ERR_FAILED);
}
END_TEST

START_TEST(a_name_given_twice_is_refused)
{
	ck_why(NULL, "{\"a\":1,\"b\":2,\"a\":3}", "a: given twice");
	ck_why(NULL, "{\"x\":{\"a\":1,\"\\u0061\":3}}", "x.a: given twice");
	ck_why("sample.Buy", "{\"item\":1,\"item\":2}", "item: given twice");
}
END_TEST

START_TEST(what_is_no_json_is_refused_with_the_place)
{
	ck_why(NULL, "", "not JSON: it ends where a value is expected");
	ck_why(NULL, "{", "not JSON: it ends where a member's name in quotes is expected");
	ck_why(NULL, "{\"a\"}", "not JSON: byte 5 is not ':'");
	ck_why(NULL, "[1 2]", "not JSON: byte 4 is not ',' or ']'");
	ck_why(NULL, "[1,]", "not JSON: byte 4 is not a value");
	ck_why(NULL, "{\"a\":1,}", "not JSON: byte 8 is not a member's name in quotes");
	ck_why(NULL, "[] x", "not JSON: byte 4 is not the end");
	ck_why(NULL, "tru", "not JSON: byte 1 is not a value");
	ck_why(NULL, "nul", "not JSON: byte 1 is not a value");
	ck_why(NULL, "1.", "not JSON: it ends where a digit is expected");
	ck_why(NULL, "[1.e5]", "not JSON: byte 4 is not a digit");
	ck_why(NULL, "[1e]", "not JSON: byte 4 is not a digit");
	ck_why(NULL, "[+1]", "not JSON: byte 2 is not a value");
	ck_why(NULL, "[NaN]", "not JSON: byte 2 is not a value");
	ck_why(NULL, "[01]", "[1]: a number must not begin with 0");
	ck_why(NULL, "[-]", "not JSON: byte 3 is not a digit");
	ck_why(NULL, "[1e999]", "[1]: the number is out of range");
	ck_why(NULL, "[1e99999999999999999999]", "[1]: the number is out of range");
	ck_why(NULL, "\"abc", "a string without its closing quote");
	ck_why(NULL, "\"abc\\", "a string without its closing quote");
	ck_why(NULL, "\"a\nb\"", "a control character in a string");
	ck_why("loquat.Any", "[]", "expected an object, found an array");
	ck_why("loquat.Any", "7", "expected an object, found 7");
}
END_TEST

START_TEST(long_numbers_are_refused)
{
	char text[100] = "[";
	memset(text + 1, '7', 64);
	strcpy(text + 65, "]");
	ck_again(NULL, text);
	strcpy(text + 65, "7]");
	ck_why(NULL, text, "[1]: a number of more than 64 characters");
}
END_TEST

/* ---- text ---- */

START_TEST(text_is_utf8_and_escapes_are_read)
{
	ck_assert_str_eq(again(NULL, "\"\\u00e9\\/\\b\\f\\n\\r\\t\\\"\\\\\\u0041\""),
			 "\"\u00e9/\\b\\f\\n\\r\\t\\\"\\\\A\"");
	ck_again(NULL, "\"\u00e9\u4e16\u754c\"");
	ck_assert_str_eq(again(NULL, "{\"\\u0061\\u754c\":1}"), "{\"a\u754c\":1}");
	ck_assert_str_eq(again(NULL, "\"\\u001f\x7f\""), "\"\\u001F\x7f\"");
}
END_TEST

START_TEST(a_nul_survives)
{
	ck_again(NULL, "\"a\\u0000b\"");
	ck_assert_int_eq(decode_n(NULL, "\"a\\u0000b\"", 10), 0);
	ck_assert_uint_eq(lua_rawlen(L, 1), 3);
	lua_settop(L, 0);
	ck_assert_int_eq(decode_n(NULL, "\"a\0b\"", 5), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(characters_above_the_plane_are_written_as_surrogates)
{
	ck_assert_str_eq(again(NULL, "\"x\xf0\x9f\x98\x80y\""), "\"x\\uD83D\\uDE00y\"");
	ck_assert_str_eq(again(NULL, "\"\\ud83d\\ude00\""), "\"\\uD83D\\uDE00\"");
	ck_assert_str_eq(again(NULL, "\"\xf4\x8f\xbf\xbf\""), "\"\\uDBFF\\uDFFF\"");
}
END_TEST

START_TEST(surrogates_of_old_clients_are_joined)
{
	ck_assert_str_eq(again(NULL, "\"x\xed\xa0\xbd\xed\xb8\x80y\""), "\"x\\uD83D\\uDE00y\"");
	ck_assert_int_eq(decode_n(NULL, "\"\xed\xa0\xbd\xed\xb8\x80\"", 8), 0);
	ck_assert_str_eq(lua_tostring(L, 1), "\xf0\x9f\x98\x80");
	lua_settop(L, 0);
}
END_TEST

START_TEST(what_is_no_utf8_is_refused)
{
	static const char *const bad[] = { "\xff",
					   "\xc0\x80",
					   "\xc3",
					   "\xe0\x80\x80",
					   "\xed\xa0\xbd",
					   "\xed\xb8\x80",
					   "\xed\xa0\xbd"
					   "x",
					   "\xf5\x80\x80\x80",
					   "\xf4\x90\x80\x80",
					   "\x80",
					   "\xed\xb8\x80\xed\xa0\xbd" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char text[32];
		snprintf(text, sizeof text, "[\"%s\"]", bad[i]);
		ck_why(NULL, text, "[1]: a string that is not UTF-8");
	}
	ck_unwritable(NULL, "{a = '\\xff'}", "a: text that is not UTF-8");
	ck_unwritable(NULL, "{['\\xff'] = 1}", "?: a name that is not UTF-8");
}
END_TEST

START_TEST(half_characters_and_wrong_escapes_are_refused)
{
	static const char *const bad[] = { "\\ud83d", "\\ude00",   "\\ud83dx", "\\ud83d\\u0041", "\\x41",   "\\u12g4",
					   "\\u123",  "\\ud83d\\", "\\",       "\\U0041",        "\\u-123", "\\u 123" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char text[40];
		snprintf(text, sizeof text, "[\"%s \"]", bad[i]);
		refused(NULL, text);
		ck_assert_str_eq(why, "[1]: a wrong escape in a string");
	}
}
END_TEST

/* ---- typed ---- */

START_TEST(a_typed_message_comes_back_in_the_order_of_its_numbers)
{
	ck_assert_str_eq(again("sample.Buy", " { \"order\" : \"o-1\" , \"count\" : 2 , \"item\" : 1 } "),
			 "{\"item\":1,\"count\":2,\"order\":\"o-1\"}");
	ck_again("sample.All",
		 "{\"d\":1.5,\"f\":0.1,\"i64\":-9223372036854775808,\"u64\":9223372036854775807,"
		 "\"i32\":-2147483648,\"x64\":1,\"x32\":4294967295,\"b\":true,\"s\":\"x\",\"raw\":\"AP8=\","
		 "\"u32\":0,\"colour\":\"BLUE\",\"sx32\":-1,\"sx64\":-2,\"s32\":-3,\"s64\":-4,"
		 "\"one\":{\"item\":1,\"count\":3},\"items\":[{\"item\":2,\"count\":1}],\"numbers\":[1,2],"
		 "\"packed\":[],\"words\":[\"a\",\"\"],\"points\":[0.5],\"colours\":[\"RED\",\"GREEN\"],"
		 "\"again\":{\"again\":{}},\"far\":false}");
}
END_TEST

START_TEST(what_is_wrong_is_named_by_its_path)
{
	ck_why("sample.Buy", "{\"item\":1,\"count\":\"x\",\"order\":\"o\"}", "count: expected an integer, found \"x\"");
	ck_why("sample.Buy", "{\"item\":1.5,\"count\":1,\"order\":\"o\"}", "item: expected an integer, found 1.5");
	ck_why("sample.Buy", "{\"item\":true}", "item: expected an integer, found true");
	ck_why("sample.Buy", "{\"item\":1,\"count\":1,\"order\":5}", "order: expected a string, found 5");
	ck_why("sample.Buy", "{\"item\":1,\"count\":1}", "order: required, but missing");
	ck_why("sample.Buy", "{\"item\":1,\"count\":1,\"order\":null}", "order: required, but missing");
	ck_why("sample.Buy", "{\"itm\":1}", "itm: unknown field");
	ck_why("sample.Buy", "[]", "expected an object, found an array");
	ck_why("sample.All", "{\"items\":[{\"item\":1},{\"item\":2,\"count\":{}}]}",
	       "items[2].count: expected an integer, found an object");
	ck_why("sample.All", "{\"items\":[{}]}", "items[1].item: required, but missing");
	ck_why("sample.All", "{\"items\":{}}", "items: expected an array, found an object");
	ck_why("sample.All", "{\"words\":[null]}", "words[1]: expected a string, found null");
	ck_why("sample.All", "{\"b\":1}", "b: expected true or false, found 1");
	ck_why("sample.All", "{\"d\":\"1\"}", "d: expected a number, found \"1\"");
	ck_why("sample.All", "{\"colour\":\"PINK\"}", "colour: expected RED, GREEN or BLUE, found \"PINK\"");
	ck_why("sample.All", "{\"colour\":7}", "colour: expected RED, GREEN or BLUE, found 7");
	ck_why("sample.Chosen", "{\"many\":\"X\"}",
	       "many: expected THE_FIRST_OF_MANY_LONG_NAMES, THE_SECOND_OF_MANY_LONG_NAMES, "
	       "THE_THIRD_OF_MANY_LONG_NAMES, THE_FOURTH_OF_MANY_LONG_NAMES, ..., found \"X\"");
	ck_why("sample.All", "{\"raw\":\"*\"}", "raw: expected base64");
	ck_why("sample.All", "{\"again\":{\"again\":{\"one\":{\"x\":1}}}}", "again.again.one.x: unknown field");
}
END_TEST

START_TEST(strangers_words_are_shown_harmlessly)
{
	ck_why("sample.Buy", "{\"a\u00e9\\n\":1}", "a??\\n: unknown field");
	ck_why("sample.Buy", "{\"0123456789012345678901234567890123456789xxx\":1}",
	       "0123456789012345678901234567890123456789...: unknown field");
}
END_TEST

START_TEST(numbers_out_of_their_types_range_are_refused)
{
	ck_why("sample.All", "{\"i32\":2147483648}", "i32: 2147483648 is out of range");
	ck_why("sample.All", "{\"i32\":-2147483649}", "i32: -2147483649 is out of range");
	ck_why("sample.All", "{\"u32\":-1}", "u32: -1 is out of range");
	ck_why("sample.All", "{\"u32\":4294967296}", "u32: 4294967296 is out of range");
	ck_why("sample.All", "{\"i64\":9223372036854775808}", "i64: 9223372036854775808 is out of range");
	ck_why("sample.All", "{\"u64\":9223372036854775808}", "u64: 9223372036854775808 is out of range");
	ck_why("sample.All", "{\"f\":1e39}", "f: 1e39 is out of range");
}
END_TEST

START_TEST(whole_floats_are_integers_and_integers_are_floats)
{
	ck_assert_str_eq(again("sample.All", "{\"i32\":1.0}"), "{\"i32\":1}");
	ck_assert_str_eq(again("sample.All", "{\"i64\":1e3}"), "{\"i64\":1000}");
	ck_assert_str_eq(again("sample.All", "{\"d\":2}"), "{\"d\":2.0}");
	ck_encoded("sample.All", "{i32 = 1.0, d = 2}", "{\"d\":2.0,\"i32\":1}");
	ck_assert_int_eq(decode_n("sample.All", "{\"d\":2,\"i32\":3.0}", 17), 0);
	lua_getfield(L, 1, "d");
	ck_assert(!lua_isinteger(L, -1));
	lua_getfield(L, 1, "i32");
	ck_assert(lua_isinteger(L, -1));
	lua_settop(L, 0);
}
END_TEST

START_TEST(null_is_as_if_the_field_were_absent)
{
	ck_assert_str_eq(again("sample.All", "{\"s\":null,\"items\":null,\"i32\":4}"), "{\"i32\":4}");
	ck_encoded("sample.All", "{s = json.null, i32 = 4}", "{\"i32\":4}");
}
END_TEST

START_TEST(what_pomelo_clients_add_is_dropped_at_the_top_only)
{
	ck_assert_str_eq(again("sample.Five", "{\"__route__\":\"a.b.c\",\"kind\":1,\"__crypto__\":{\"x\":[1]}}"),
			 "{\"kind\":1}");
	ck_why("sample.All", "{\"one\":{\"__route__\":1}}", "one.__route__: unknown field");
	ck_again("loquat.Any", "{\"__route__\":1}");
}
END_TEST

START_TEST(an_ignored_field_is_dropped_whatever_its_value)
{
	ck_assert_str_eq(again("sample.Ignoring", "{\"from\":\"x\",\"text\":\"t\"}"), "{\"text\":\"t\"}");
	ck_assert_str_eq(again("sample.Ignoring", "{\"text\":\"t\",\"from\":{\"a\":[1,null]},\"from\":5}"),
			 "{\"text\":\"t\"}");
	ck_why("sample.Ignoring", "{\"form\":5}", "form: unknown field");
	ck_assert_ptr_nonnull(strstr(refused("sample.Ignoring", "{\"from\":[1,}"), "not JSON"));
}
END_TEST

START_TEST(defaults_that_the_proto_writes_are_filled_in)
{
	ck_assert_str_eq(again("sample.Defaults", "{\"b\":false,\"inside\":{}}"),
			 "{\"text\":\"it's\",\"raw\":\"YQEK\",\"colour\":\"BLUE\",\"d\":-2.5,\"b\":false,"
			 "\"i\":-9007199254740993,\"inside\":{\"mode\":\"ON\"}}");
}
END_TEST

START_TEST(maps_have_keys_of_their_type)
{
	ck_again("sample.Maps",
		 "{\"by_name\":{\"\":3,\"a\":1,\"b\":2},\"by_number\":{\"-5\":\"x\",\"2\":\"y\",\"10\":\"z\"},"
		 "\"things\":{\"k\":{\"item\":1,\"count\":1}},\"flags\":{\"false\":0.5,\"true\":1.5}}");
	ck_assert_int_eq(decode_n("sample.Maps", "{\"by_number\":{\"7\":\"x\"}}", 23), 0);
	lua_getfield(L, 1, "by_number");
	ck_assert_int_eq(lua_rawgeti(L, -1, 7), LUA_TSTRING);
	lua_settop(L, 0);
	ck_assert_ptr_nonnull(strstr(refused("sample.Maps", "{\"by_number\":{\"x\":\"y\"}}"), "by_number.x"));
	ck_assert_ptr_nonnull(strstr(refused("sample.Maps", "{\"by_number\":{\"1\":\"y\",\"1.0\":\"z\"}}"), "twice"));
	ck_why("sample.Maps", "{\"by_number\":{\"1 \":\"y\"}}", "by_number.1 : is no key of this map");
	ck_why("sample.Maps", "{\"by_name\":[]}", "by_name: expected an object, found an array");
	ck_why("sample.Maps", "{\"by_name\":{\"a\":\"b\"}}", "by_name.a: expected an integer, found \"b\"");
}
END_TEST

START_TEST(untyped_parts_of_typed_messages_hold_any_value)
{
	ck_again("sample.Wrapped", "{\"name\":\"n\",\"data\":{\"a\":[],\"b\":{}}}");
	ck_again("sample.Wrapped", "{\"data\":[1,2.5,null]}");
}
END_TEST

START_TEST(a_value_that_is_not_of_the_type_is_not_written)
{
	ck_unwritable("sample.Buy", "{item = 1, count = 'x', order = 'o'}", "count: expected an integer, found \"x\"");
	ck_unwritable("sample.Buy", "{item = 1, count = 1}", "order: required, but missing");
	ck_unwritable("sample.Buy", "nil", "expected a table, found nil");
	ck_unwritable("sample.Five", "{contents = 'x'}", "contents: sample.Five has no such field");
	ck_unwritable("sample.Five", "{'x'}", "expected the name of a field, found 1");
	ck_unwritable("sample.Five", "5", "expected a table, found 5");
	ck_unwritable("sample.All", "{items = {{item = 1}, {item = 2.5}}}",
		      "items[2].item: expected an integer, found 2.5");
	ck_unwritable("sample.All", "{items = 7}", "items: expected a table, found 7");
	ck_unwritable("sample.All", "{colour = 'PINK'}", "colour: expected RED, GREEN or BLUE, found \"PINK\"");
	ck_unwritable("sample.All", "{i32 = 2^31}", "i32: 2147483648 is out of range");
	ck_unwritable("sample.All", "{u64 = -1}", "u64: -1 is out of range");
	ck_unwritable("sample.All", "{d = 0/0}", "d: NaN is no number in JSON");
	ck_unwritable("sample.All", "{s = 5}", "s: expected text, found 5");
	ck_unwritable("sample.All", "{b = 1}", "b: expected true or false, found 1");
	ck_unwritable("sample.Maps", "{by_number = {x = 'y'}}", "by_number: expected an integer as key, found \"x\"");
	ck_unwritable("loquat.Any", "{1, 2}", "expected an object, found an array");
	ck_unwritable(NULL, "{f = print}", "f: expected a value that JSON has, found a function");
	ck_unwritable(NULL, "{1, 2, x = 3}",
		      "expected a name as key (sequences have no holes; mark arrays by json.array), found 1");
	ck_unwritable(NULL, "{a = {math.huge}}", "a[1]: infinity is no number in JSON");
}
END_TEST

START_TEST(a_list_with_a_hole_or_a_name_is_not_sent_short)
{
	ck_unwritable("sample.All", "{numbers = {1, nil, 3}}", "numbers[2]: nil inside a sequence");
	ck_unwritable("sample.All", "{numbers = {1, nil, 3, x = 1}}", "numbers[2]: nil inside a sequence");
	ck_unwritable("sample.All", "{numbers = {1, 2, [5] = 5}}",
		      "numbers: expected a sequence without holes and names, found 5");
	ck_unwritable("sample.All", "{numbers = {1, x = 1}}",
		      "numbers: expected a sequence without holes and names, found \"x\"");
	ck_unwritable("sample.All", "{numbers = {x = 1}}",
		      "numbers: expected a sequence without holes and names, found \"x\"");
	ck_unwritable("sample.All", "{items = {[2] = {item = 1}}}",
		      "items: expected a sequence without holes and names, found 2");
	ck_unwritable("sample.All", "{items = {[1.5] = {item = 1}}}",
		      "items: expected a sequence without holes and names, found 1.5");
	ck_unwritable(NULL, "{a = json.array({1, x = 2})}",
		      "a: expected a sequence without holes and names, found \"x\"");
	ck_unwritable(NULL, "{a = json.array({1, nil, 3, x = 2})}",
		      "a: expected a sequence without holes and names, found \"x\"");
	ck_unwritable(NULL, "{a = json.array({1, [5] = 2})}",
		      "a: expected a sequence without holes and names, found 5");
	ck_unwritable(NULL, "{a = json.array({[0] = 1})}", "a: expected a sequence without holes and names, found 0");
	ck_unwritable("loquat.Any", "{a = {1, nil, 3, x = 1}}", "a[2]: nil inside a sequence");
	ck_encoded(NULL, "{a = json.array({1, nil, 3})}", "{\"a\":[1,null,3]}");
}
END_TEST

START_TEST(of_a_oneof_there_is_one_at_most)
{
	ck_again("sample.Either", "{\"id\":7,\"text\":\"t\",\"colour\":\"RED\"}");
	ck_again("sample.Either", "{\"item\":{\"item\":1,\"count\":2},\"b\":true}");
	ck_again("sample.Either", "{}"); /* none of them has a default: it would be beside the others */
	ck_assert_str_eq(again("sample.Either", "{\"uid\":null,\"id\":7}"), "{\"id\":7}");
	ck_why("sample.Either", "{\"uid\":\"a\",\"text\":\"t\",\"id\":7}",
	       "id: given beside uid: only one of the two may be");
	ck_why("sample.Either", "{\"item\":{\"item\":1},\"uid\":\"a\"}",
	       "uid: given beside item: only one of the two may be");
	ck_unwritable("sample.Either", "{b = false, colour = 'RED'}",
		      "b: given beside colour: only one of the two may be");
	ck_encoded("sample.Either", "{uid = json.null, id = 7}", "{\"id\":7}");
}
END_TEST

START_TEST(what_stands_in_a_value_many_times_does_not_make_it_endless)
{
	static const char *const values[] = {
		"loquat.Any", "{t = t}",
		"loquat.Any", "{words = many(x, 5000)}",
		"loquat.Any", "{[x .. x .. x .. x .. x] = 1, [x .. x .. x .. x] = 2}",
		"sample.All", "{words = many(x, 5000)}",
		"sample.All", "{raw = x:rep(9)}",
		"sample.All", "{numbers = many(1000000, 3000000)}",
		"sample.All", "{items = many({item = 1, count = 5}, 3000000)}",
	};
	for (size_t i = 0; i < sizeof values / sizeof *values; i += 2) {
		char made[400];
		snprintf(made, sizeof made,
			 "(function() local x = ('x'):rep(1 << 20) local t = {1} for _ = 1, 28 do t = {t, t} end\n"
			 "local function many(v, n) local l = {} for i = 1, n do l[i] = v end return l end\n"
			 "return %s end)()",
			 values[i + 1]);
		ck_assert_int_eq(encode(values[i], made), ERR_FAILED);
		ck_assert_msg(strstr(why, "the whole is of more than 8 MiB"), "%s: %s", values[i + 1], why);
	}
}
END_TEST

START_TEST(nil_is_an_empty_message_and_an_empty_sequence_an_array)
{
	ck_encoded("sample.Five", "nil", "{}");
	ck_encoded("sample.All", "{items = {}, numbers = {}}", "{\"items\":[],\"numbers\":[]}");
	ck_encoded("sample.Maps", "{by_name = {}, by_number = {}}", "{\"by_name\":{},\"by_number\":{}}");
	ck_encoded(NULL, "{{}, 'a'}", "[{},\"a\"]");
}
END_TEST

START_TEST(scripts_metamethods_do_not_run)
{
	ck_encoded("sample.Five", "setmetatable({kind = 1}, {__index = function() error('ran') end})", "{\"kind\":1}");
	ck_encoded(NULL, "setmetatable({kind = 1}, {__pairs = error, __len = error})", "{\"kind\":1}");
}
END_TEST

START_TEST(random_bytes_never_crash_the_decoder)
{
	static const char *const seeds[] = {
		"{\"item\":1,\"count\":2,\"order\":\"\\u00e9\\ud83d\\ude00\"}",
		"{\"d\":1.5e3,\"items\":[{\"item\":1}],\"numbers\":[1,2],\"again\":{\"s\":\"\xed\xa0\xbd\xed\xb8\x80\"}}",
		"{\"by_name\":{\"a\":1},\"by_number\":{\"1\":\"x\"},\"flags\":{\"true\":1}}",
	};
	static const char *const types[] = { NULL, "sample.Buy", "sample.All", "sample.Maps", "loquat.Any" };
	srandom(11);
	for (int i = 0; i < 30000; i++) {
		char text[200];
		const char *seed = seeds[i % 3];
		size_t n = strlen(seed);
		memcpy(text, seed, n);
		for (long k = random() % 4; k >= 0; k--)
			text[(size_t)random() % n] =
				(char)(random() % 3 ? "{}[]\",:\\e1-.tfn u0\xed"[random() % 19] : random());
		n = random() % 3 ? n : (size_t)random() % n;
		int err = decode_n(types[i % 5], text, n);
		if (err == 0) {
			buf_clear(&out);
			ck_assert_int_eq(lua_json_encode(L, 1, type(types[i % 5]), &out, why, sizeof why), 0);
		}
		lua_settop(L, 0);
	}
}
END_TEST

START_TEST(scripts_have_a_library)
{
	ck_assert_int_eq(luaL_dostring(L, "assert(json.encode({a = {1, json.null}}) == '{\"a\":[1,null]}')\n"
					  "local t = json.decode('{\"a\":[1,null]}')\n"
					  "assert(t.a[1] == 1 and t.a[2] == json.null)\n"
					  "local no, why = json.decode('{')\n"
					  "assert(no == nil and why:find('not JSON'))\n"
					  "local ok, err = pcall(json.encode, {f = print})\n"
					  "assert(not ok and err:find('json.encode: f: expected'), err)\n"),
			 LUA_OK);
	lua_settop(L, 0);
}
END_TEST

START_TEST(text_is_quoted_by_itself)
{
	ck_assert_int_eq(lua_json_quote(&out, "a\"\n\xf0\x9f\x98\x80", 7), 0);
	ck_assert_str_eq(buf_cstr(&out), "\"a\\\"\\n\\uD83D\\uDE00\"");
	ck_assert_int_eq(lua_json_quote(&out, "a\xff", 2), ERR_FAILED);
	ck_assert_str_eq(buf_cstr(&out), "\"a\\\"\\n\\uD83D\\uDE00\"");
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("lua_json");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, untyped_data_come_back_equal);
	tcase_add_test(c, integers_of_64_bits_are_exact);
	tcase_add_test(c, integers_beyond_64_bits_keep_their_digits);
	tcase_add_test(c, floats_come_back_shortest);
	tcase_add_test(c, random_doubles_read_back_as_themselves);
	tcase_add_test(c, an_array_given_to_scripts_stays_one_when_it_is_emptied);
	tcase_add_test(c, objects_are_written_sorted);
	tcase_add_test(c, large_arrays_and_objects_come_back);
	tcase_add_test(c, nesting_is_bounded_on_both_ways);
	tcase_add_test(c, a_name_given_twice_is_refused);
	tcase_add_test(c, what_is_no_json_is_refused_with_the_place);
	tcase_add_test(c, long_numbers_are_refused);
	tcase_add_test(c, text_is_utf8_and_escapes_are_read);
	tcase_add_test(c, a_nul_survives);
	tcase_add_test(c, characters_above_the_plane_are_written_as_surrogates);
	tcase_add_test(c, surrogates_of_old_clients_are_joined);
	tcase_add_test(c, what_is_no_utf8_is_refused);
	tcase_add_test(c, half_characters_and_wrong_escapes_are_refused);
	tcase_add_test(c, a_typed_message_comes_back_in_the_order_of_its_numbers);
	tcase_add_test(c, what_is_wrong_is_named_by_its_path);
	tcase_add_test(c, strangers_words_are_shown_harmlessly);
	tcase_add_test(c, numbers_out_of_their_types_range_are_refused);
	tcase_add_test(c, whole_floats_are_integers_and_integers_are_floats);
	tcase_add_test(c, null_is_as_if_the_field_were_absent);
	tcase_add_test(c, what_pomelo_clients_add_is_dropped_at_the_top_only);
	tcase_add_test(c, an_ignored_field_is_dropped_whatever_its_value);
	tcase_add_test(c, defaults_that_the_proto_writes_are_filled_in);
	tcase_add_test(c, maps_have_keys_of_their_type);
	tcase_add_test(c, untyped_parts_of_typed_messages_hold_any_value);
	tcase_add_test(c, a_value_that_is_not_of_the_type_is_not_written);
	tcase_add_test(c, what_stands_in_a_value_many_times_does_not_make_it_endless);
	tcase_add_test(c, of_a_oneof_there_is_one_at_most);
	tcase_add_test(c, a_list_with_a_hole_or_a_name_is_not_sent_short);
	tcase_add_test(c, nil_is_an_empty_message_and_an_empty_sequence_an_array);
	tcase_add_test(c, scripts_metamethods_do_not_run);
	tcase_add_test(c, random_bytes_never_crash_the_decoder);
	tcase_add_test(c, scripts_have_a_library);
	tcase_add_test(c, text_is_quoted_by_itself);
	return suite_run("lua_json", c);
}
