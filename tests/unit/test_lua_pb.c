/* The promises of common/lua_pb.h; protobuf-c is the reference over random messages. */
#include <check.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "common/lua_pb.h"
#include "tests/proto/sample.pb-c.h"
#include "tests/support/sample.h"
#include "tests/support/suite.h"

static struct schema *schema;
static lua_State *L;
static struct lua_msg msg;
static struct buf out, text;
static char why[LUA_WHY_MAX];
static unsigned unknown;

static void setup(void)
{
	schema = sample_schema();
	L = luaL_newstate();
	luaL_openlibs(L);
	lua_msg_open(L, schema, &msg);
	luaL_requiref(L, "json", lua_json_lib, 1);
	lua_settop(L, 0);
}

static void teardown(void)
{
	ck_assert_int_eq(lua_gettop(L), 0);
	buf_release(&out);
	buf_release(&text);
	lua_close(L);
	schema_free(schema);
}

static const struct msg_type *type(const char *name)
{
	return schema_type(schema, name);
}

static int decode(const char *name, const void *bytes, size_t n)
{
	/* exactly n bytes, so that a sanitizer sees a read behind them */
	char *copy = malloc(n ? n : 1);
	memcpy(copy, bytes, n);
	int err = lua_pb_decode(L, type(name), copy, n, &unknown, why, sizeof why);
	free(copy);
	return err;
}

/* What the bytes say, as JSON. */
static const char *shown(const char *name, const void *bytes, size_t n)
{
	int err = decode(name, bytes, n);
	ck_assert_msg(err == 0, "%s", why);
	ck_assert_int_eq(lua_gettop(L), 1);
	buf_clear(&text);
	ck_assert_msg(lua_json_encode(L, 1, type(name), &text, why, sizeof why) == 0, "%s", why);
	lua_settop(L, 0);
	return buf_cstr(&text);
}

/* Encodes what the Lua expression gives. */
static int encode(const char *name, const char *expression)
{
	lua_pushfstring(L, "return %s", expression);
	ck_assert_msg(luaL_dostring(L, lua_tostring(L, -1)) == LUA_OK, "%s", lua_tostring(L, -1));
	buf_clear(&out);
	int err = lua_pb_encode(L, -1, type(name), &out, why, sizeof why);
	lua_settop(L, 0);
	return err;
}

#define B(literal)                  literal, sizeof literal - 1
#define ck_shown(name, bytes, json) ck_assert_str_eq(shown(name, B(bytes)), json)
#define ck_encoded(name, expression, bytes)                              \
	do {                                                             \
		ck_assert_msg(encode(name, expression) == 0, "%s", why); \
		ck_assert_uint_eq(out.len, sizeof bytes - 1);            \
		ck_assert_mem_eq(out.data, bytes, sizeof bytes - 1);     \
	} while (0)
#define ck_unwritable(name, expression, w)                              \
	do {                                                            \
		ck_assert_int_eq(encode(name, expression), ERR_FAILED); \
		ck_assert_str_eq(why, w);                               \
		ck_assert_uint_eq(out.len, 0);                          \
	} while (0)
#define ck_refused(name, bytes, code, w)                        \
	do {                                                    \
		ck_assert_int_eq(decode(name, B(bytes)), code); \
		ck_assert_str_eq(why, w);                       \
		ck_assert_int_eq(lua_gettop(L), 0);             \
	} while (0)

START_TEST(bytes_become_tables_and_tables_bytes)
{
	ck_shown("sample.Buy", "\x08\x01\x10\x02\x1a\x03o-1", "{\"item\":1,\"count\":2,\"order\":\"o-1\"}");
	ck_encoded("sample.Buy", "{order = 'o-1', count = 2, item = 1}", "\x08\x01\x10\x02\x1a\x03o-1");
	ck_shown("sample.Five", "", "{}");
	ck_encoded("sample.Five", "{}", "");
	ck_encoded("sample.Five", "nil", "");
	ck_encoded("sample.Five", "{kind = json.null}", "");
	ck_shown("sample.Five", "\x28\5\x0a\1a\x20\4\x0a\1b", "{\"from\":\"b\",\"kind\":4,\"time\":5}");
}
END_TEST

START_TEST(each_scalar_has_its_encoding)
{
	ck_encoded("sample.All", "{d = 1, f = 0.5}", "\x09\0\0\0\0\0\0\xf0\x3f\x15\0\0\0\x3f");
	ck_encoded("sample.All", "{i64 = -1}", "\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
	ck_encoded("sample.All", "{i32 = -1}", "\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
	ck_encoded("sample.All", "{x64 = 1, x32 = 4294967295}", "\x31\1\0\0\0\0\0\0\0\x3d\xff\xff\xff\xff");
	ck_encoded("sample.All", "{b = true, s = 'x', raw = '\\xff\\0'}", "\x40\1\x4a\1x\x52\2\xff\0");
	ck_encoded("sample.All", "{colour = 'BLUE'}", "\x60\xfd\xff\xff\xff\xff\xff\xff\xff\xff\x01");
	ck_encoded("sample.All", "{s32 = -3, s64 = math.mininteger}",
		   "\x78\x05\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
	ck_encoded("sample.All", "{far = false}", "\x80\xea\x30\x00");
	ck_shown("sample.All", "\x28\xff\xff\xff\xff\x0f", "{\"i32\":-1}"); /* as old writers do */
	ck_shown("sample.All", "\x40\x80\x01", "{\"b\":true}");
}
END_TEST

START_TEST(lists_are_read_packed_or_not_whatever_the_proto_says)
{
	ck_shown("sample.All", "\x98\1\1\x98\1\2", "{\"numbers\":[1,2]}");
	ck_shown("sample.All", "\x9a\1\2\1\2", "{\"numbers\":[1,2]}");
	ck_shown("sample.All", "\xa2\1\2\1\2\xa0\1\3", "{\"packed\":[-1,1,-2]}");
	ck_shown("sample.All", "\x98\1\1\x4a\1x\x98\1\2", "{\"s\":\"x\",\"numbers\":[1,2]}");
	ck_encoded("sample.All", "{numbers = {1, 2}, packed = {-1, 1}}", "\x98\1\1\x98\1\2\xa2\1\2\1\2");
	ck_encoded("sample.All", "{packed = {}, items = {}}", "");
	ck_shown("sample.All", "\x92\1\2\x08\1\x92\1\4\x08\2\x10\3",
		 "{\"items\":[{\"item\":1,\"count\":1},{\"item\":2,\"count\":3}]}");
}
END_TEST

START_TEST(a_list_read_is_marked_as_an_array)
{
	ck_assert_int_eq(decode("sample.All", B("\x98\1\1")), 0);
	lua_getfield(L, 1, "numbers");
	ck_assert(lua_msg_is_array(L, -1));
	lua_settop(L, 0);
}
END_TEST

START_TEST(maps_are_written_by_key)
{
	ck_encoded("sample.Maps", "{by_name = {b = 2, a = 1}}", "\x0a\5\x0a\1a\x10\1\x0a\5\x0a\1b\x10\2");
	ck_encoded("sample.Maps", "{by_number = {[10] = 'x', [-1] = 'y'}}",
		   "\x12\x0e\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x12\1y\x12\5\x08\x0a\x12\1x");
	ck_shown("sample.Maps", "\x0a\5\x0a\1a\x10\1\x0a\5\x0a\1a\x10\2\x0a\3\x0a\1z\x12\2\x08\7",
		 "{\"by_name\":{\"a\":2,\"z\":0},\"by_number\":{\"7\":\"\"}}");
	ck_shown("sample.Maps", "\x22\0", "{\"flags\":{\"false\":0.0}}");
	ck_unwritable("sample.Maps", "{by_name = {[1] = 2}}", "by_name: expected a key of the map's type, found 1");
	ck_unwritable("sample.Maps", "{by_name = {a = 'x'}}", "by_name.a: expected an integer, found \"x\"");
}
END_TEST

START_TEST(what_is_not_known_is_skipped_and_counted)
{
	ck_shown("sample.Item", "\x08\1\x98\6\5\x9d\6\1\2\3\4\x99\6\1\2\3\4\5\6\7\x8\x9a\6\2xx",
		 "{\"item\":1,\"count\":1}");
	ck_assert_uint_eq(unknown, 4);
	ck_shown("sample.All", "\x60\x05\xb8\1\1\xb8\1\7", "{\"colours\":[\"GREEN\"]}");
	ck_assert_uint_eq(unknown, 2);
	ck_shown("sample.All", "", "{}");
	ck_assert_uint_eq(unknown, 0);
}
END_TEST

START_TEST(defaults_and_required_fields_are_those_of_the_proto)
{
	ck_shown("sample.Item", "\x08\5", "{\"item\":5,\"count\":1}");
	ck_shown(
		"sample.Defaults", "\x28\0",
		"{\"text\":\"it's\",\"raw\":\"YQEK\",\"colour\":\"BLUE\",\"d\":-2.5,\"b\":false,\"i\":-9007199254740993}");
	ck_refused("sample.Buy", "\x08\5\x10\1", ERR_BAD_REQUEST, "order: required, but missing");
	ck_refused("sample.All", "\x92\1\2\x10\1", ERR_BAD_REQUEST, "items[1].item: required, but missing");
	ck_unwritable("sample.Buy", "{item = 1, count = 1}", "order: required, but missing");
	ck_unwritable("sample.Buy", "nil", "expected a table, found nil");
}
END_TEST

START_TEST(bytes_that_are_no_message_are_refused)
{
	ck_refused("sample.Five", "\x0a", ERR_CORRUPT, "not protobuf");
	ck_refused("sample.Five", "\x0a\5abc", ERR_CORRUPT, "not protobuf");
	ck_refused("sample.Five", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", ERR_CORRUPT, "not protobuf");
	ck_refused("sample.Five", "\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ERR_CORRUPT, "not protobuf");
	ck_refused("sample.Five", "\x20\x80", ERR_CORRUPT, "not protobuf");
	ck_refused("sample.Five", "\x00\x01", ERR_CORRUPT, "not protobuf");
	ck_refused("sample.Five", "\x8a\x80\x80\x80\x10\1x", ERR_CORRUPT,
		   "not protobuf"); /* its low 32 bits are a tag */
	ck_refused("sample.Five", "\x0b\x0c", ERR_CORRUPT, "not protobuf");
	ck_refused("sample.All", "\x09\1\2\3", ERR_CORRUPT, "not protobuf");
	ck_refused("sample.Five", "\x08\1", ERR_CORRUPT, "from: the wrong wire type");
	ck_refused("sample.Five", "\x22\1x", ERR_CORRUPT, "kind: the wrong wire type");
	ck_refused("sample.All", "\xa2\1\1\x80", ERR_CORRUPT, "packed: a truncated number");
	ck_refused("sample.All", "\xb2\1\3\1\2\3", ERR_CORRUPT, "points: a truncated number");
	ck_refused("sample.Maps", "\x0a\2\x08\1", ERR_CORRUPT, "by_name: the wrong wire type");
}
END_TEST

START_TEST(values_that_lua_or_the_type_cannot_hold_are_refused)
{
	ck_refused("sample.Five", "\x0a\1\xff", ERR_BAD_REQUEST, "from: text that is not UTF-8");
	ck_refused("sample.All", "\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ERR_BAD_REQUEST,
		   "u64: 18446744073709551615 is out of range");
	ck_unwritable("sample.All", "{u64 = -1}", "u64: -1 is out of range");
	ck_unwritable("sample.All", "{i32 = 1 << 31}", "i32: 2147483648 is out of range");
	ck_unwritable("sample.All", "{u32 = -1}", "u32: -1 is out of range");
	ck_unwritable("sample.All", "{i32 = 1.5}", "i32: expected an integer, found 1.5");
	ck_unwritable("sample.All", "{i32 = '1'}", "i32: expected an integer, found \"1\"");
	ck_unwritable("sample.All", "{s = 1}", "s: expected text, found 1");
	ck_unwritable("sample.All", "{s = '\\xff'}", "s: text that is not UTF-8");
	ck_unwritable("sample.All", "{b = 0}", "b: expected true or false, found 0");
	ck_unwritable("sample.All", "{colour = 'PINK'}", "colour: expected RED, GREEN or BLUE, found \"PINK\"");
	ck_unwritable("sample.All", "{items = {{item = 1}, {item = 'x'}}}",
		      "items[2].item: expected an integer, found \"x\"");
	ck_unwritable("sample.All", "{numbers = {1, x = 1}}", "numbers: a sequence with holes or names");
	ck_unwritable("sample.All", "{numbers = {1, nil, 3, x = 1}}", "numbers[2]: expected an integer, found nil");
	ck_unwritable("sample.All", "{numbers = {1, nil, 3}}", "numbers: a sequence with holes or names");
	ck_unwritable("sample.All", "{numbers = {1, 2, [5] = 5}}", "numbers: a sequence with holes or names");
	ck_unwritable("sample.All", "{items = {[2] = {item = 1}}}", "items: a sequence with holes or names");
	ck_unwritable("sample.All", "{numbers = 1}", "numbers: expected a table, found 1");
	ck_unwritable("sample.All", "{typo = 1}", "typo: sample.All has no such field");
	ck_unwritable("sample.All", "{one = {item = 1, cont = 2}}", "one.cont: sample.Item has no such field");
	ck_unwritable("sample.All", "'x'", "expected a table, found \"x\"");
}
END_TEST

START_TEST(of_a_oneof_the_last_one_read_counts_and_one_at_most_is_written)
{
	ck_shown("sample.Either", "\x0a\1u\x10\7", "{\"id\":7}");
	ck_shown("sample.Either", "\x10\7\x22\1t\x0a\1u", "{\"uid\":\"u\",\"text\":\"t\"}");
	ck_shown("sample.Either", "\x10\7\x1a\2\x08\1\x28\1\x30\1\x10\1", "{\"id\":1,\"b\":true}");
	ck_shown("sample.Either", "", "{}");
	ck_encoded("sample.Either", "{id = 7, text = 't', colour = 'GREEN'}", "\x10\7\x22\1t\x28\1");
	ck_unwritable("sample.Either", "{uid = 'u', id = 7}", "id: given beside uid: only one of the two may be");
}
END_TEST

START_TEST(nesting_is_bounded)
{
	char bytes[200];
	size_t n = 0;
	for (int i = 0; i < 33; i++) { /* from the inside out: again { again { … } } */
		memmove(bytes + 3, bytes, n);
		memcpy(bytes, (char[]){ (char)0xc2, 1, (char)n }, 3);
		n += 3;
		if (i == 30)
			ck_assert_int_eq(decode("sample.All", bytes, n), 0);
		if (i == 31)
			ck_assert_int_eq(decode("sample.All", bytes, n), ERR_CORRUPT);
		lua_settop(L, 0);
	}
	ck_assert_int_eq(encode("sample.All", "(function() local t = {} t.again = t return t end)()"), ERR_FAILED);
	ck_assert_ptr_nonnull(strstr(why, "a cycle, or more than 32 levels"));
}
END_TEST

START_TEST(what_stands_in_a_value_many_times_does_not_make_it_endless)
{
	static const char *const values[] = {
		"loquat.Any", "{t = t}",
		"sample.All", "{words = many(x, 5000)}",
		"sample.All", "{raw = x:rep(9)}",
		"sample.All", "{s = x:rep(9)}",
		"sample.All", "{packed = many(1 << 60, 2000000)}",
		"sample.All", "{again = {items = many({item = 1, count = 5}, 3000000)}}",
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

START_TEST(long_parts_have_long_lengths)
{
	for (int n = 120; n < 20000; n += n < 140 ? 1 : 4001) {
		lua_newtable(L);
		lua_newtable(L);
		char *long_text = calloc(1, (size_t)n + 1);
		memset(long_text, 'x', (size_t)n);
		lua_pushstring(L, long_text);
		free(long_text);
		lua_setfield(L, -2, "s");
		lua_setfield(L, -2, "again");
		buf_clear(&out);
		ck_assert_int_eq(lua_pb_encode(L, 1, type("sample.All"), &out, why, sizeof why), 0);
		lua_settop(L, 0);
		Sample__All *m = sample__all__unpack(NULL, out.len, (uint8_t *)out.data);
		ck_assert_ptr_nonnull(m);
		ck_assert_uint_eq(strlen(m->again->s), (size_t)n);
		sample__all__free_unpacked(m, NULL);
		ck_assert_int_eq(decode("sample.All", out.data, out.len), 0);
		lua_settop(L, 0);
	}
}
END_TEST

START_TEST(untyped_messages_hold_json)
{
	ck_shown("loquat.Any", "\x0a\x0e{\"a\":[],\"b\":1}", "{\"a\":[],\"b\":1}");
	ck_encoded("loquat.Any", "{a = json.array()}", "\x0a\x08{\"a\":[]}");
	ck_shown("loquat.Any", "", "{}");
	ck_shown("sample.Wrapped", "\x12\x05\x0a\x03[1]", "{\"data\":[1]}");
	ck_encoded("sample.Wrapped", "{data = {1}}", "\x12\x05\x0a\x03[1]");
	ck_refused("loquat.Any", "\x0a\x03[1]", ERR_BAD_REQUEST, "expected an object, found an array");
	ck_refused("sample.Wrapped", "\x12\x05\x0a\x03[1}", ERR_BAD_REQUEST,
		   "data: not JSON: byte 3 is not ',' or ']'");
	ck_unwritable("loquat.Any", "{1}", "expected an object, found an array");
	ck_unwritable("loquat.Any", "5", "expected a table, found 5");
}
END_TEST

/* ---- the reference ---- */

static Sample__Item *random_item(void)
{
	Sample__Item *x = malloc(sizeof *x);
	sample__item__init(x);
	x->item = (int32_t)(random() - random());
	x->has_count = 1; /* ours fills the default in */
	x->count = (int32_t)random();
	return x;
}

static char *random_text(void)
{
	static const char *const some[] = { "", "x", "hello", "\u4e16\u754c",
					    "a longer text that does not fit forty bytes, so it is no short string" };
	return strdup(some[random() % 5]);
}

static int64_t random_64(void)
{
	return (int64_t)(((uint64_t)random() << 33 ^ (uint64_t)random() << 11 ^ (uint64_t)random()) >> (random() % 64));
}

static int64_t random_signed(void)
{
	return random() % 2 ? random_64() : -(random_64() & INT64_MAX);
}

#define SOME(field, value)                                    \
	do {                                                  \
		if (random() % 2)                             \
			x->has_##field = 1, x->field = value; \
	} while (0)
#define LIST(field, value)                                              \
	do {                                                            \
		x->n_##field = random() % 3 ? (size_t)random() % 5 : 0; \
		x->field = calloc(x->n_##field + 1, sizeof *x->field);  \
		for (size_t i = 0; i < x->n_##field; i++)               \
			x->field[i] = value;                            \
	} while (0)

static Sample__All *random_all(int depth)
{
	static const Sample__Colour colours[] = { SAMPLE__COLOUR__RED, SAMPLE__COLOUR__GREEN, SAMPLE__COLOUR__BLUE };
	Sample__All *x = malloc(sizeof *x);
	sample__all__init(x);
	SOME(d, (double)random_64() / 7);
	SOME(f, (float)random_64() / 3);
	SOME(i64, random_signed());
	SOME(u64, (uint64_t)random_64() & INT64_MAX);
	SOME(i32, (int32_t)random_64());
	SOME(x64, (uint64_t)random_64() & INT64_MAX);
	SOME(x32, (uint32_t)random_64());
	SOME(b, (int)random() % 2);
	SOME(u32, (uint32_t)random_64());
	SOME(colour, colours[random() % 3]);
	SOME(sx32, (int32_t)random_64());
	SOME(sx64, random_signed());
	SOME(s32, (int32_t)random_64());
	SOME(s64, random_signed());
	SOME(far, (int)random() % 2);
	if (random() % 2)
		x->s = random_text();
	if ((x->has_raw = (int)random() % 2))
		x->raw.len = 3, x->raw.data = memcpy(malloc(3), "\xff\0y", 3);
	if (random() % 2)
		x->one = random_item();
	LIST(items, random_item());
	LIST(numbers, (int32_t)random_64());
	LIST(packed, random_signed());
	LIST(words, random_text());
	LIST(points, (double)random_64());
	LIST(colours, colours[random() % 3]);
	if (depth && random() % 2)
		x->again = random_all(depth - 1);
	return x;
}

/* In, and out again. */
static void ck_text(const char *p, size_t n)
{
	char bytes[40] = { 0x0a, (char)n };
	size_t got_n;
	memcpy(bytes + 2, p, n);
	ck_assert_int_eq(decode("sample.Five", bytes, 2 + n), 0);
	lua_getfield(L, -1, "from");
	const char *got = lua_tolstring(L, -1, &got_n);
	ck_assert_uint_eq(got_n, n);
	ck_assert_mem_eq(got, p, n);
	lua_settop(L, 1);
	buf_clear(&out);
	ck_assert_int_eq(lua_pb_encode(L, 1, type("sample.Five"), &out, why, sizeof why), 0);
	ck_assert_uint_eq(out.len, 2 + n);
	ck_assert_mem_eq(out.data, bytes, 2 + n);
	lua_settop(L, 0);
}

/* Texts that come again are kept by the state: they stay what they are, and those that look alike stay apart. */
START_TEST(texts_that_come_again_stay_what_they_are)
{
	static const struct {
		const char *p;
		size_t n;
	} texts[] = { { B("") },
		      { B("a") },
		      { B("a\0") },
		      { B("a\0\0") },
		      { B("aba") },
		      { B("abb") },
		      { B("abcd") },
		      { B("hello") },
		      { B("abcdabc") },
		      { B("abcdabcd") },
		      { B("abcdabcde") },
		      { B("0123456789abcdef") },
		      { B("0123456789abcdeg") },
		      { B("1123456789abcdef") },
		      { B("0123456789abcdefg") },
		      { B("\xc3\xa4") } };
	for (int again = 0; again < 4; again++)
		for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
			for (int twice = 0; twice < 2; twice++)
				ck_text(texts[i].p, texts[i].n);
			lua_gc(L, LUA_GCCOLLECT);
		}
	for (int again = 0; again < 3; again++)
		ck_refused("sample.Five", "\x0a\2\xc3\xc3", ERR_BAD_REQUEST, "from: text that is not UTF-8");
}
END_TEST

/* More than there is room for, so that those that differ in one of their two words alone meet in one place. */
START_TEST(texts_that_are_kept_in_one_place_stay_apart)
{
	char digits[17], zeros[17] = { 0 };
	for (size_t n = 1; n <= 16; n++)
		ck_text(zeros, n);
	for (int first = 0; first < 2; first++)
		for (int i = 0; i < 3000; i++) {
			snprintf(digits, sizeof digits, first ? "%08d00000000" : "00000000%08d", i);
			for (int twice = 0; twice < 3; twice++)
				ck_text(digits, 16);
		}
}
END_TEST

/* Tables of a type that differ from the last one in what they have, how it was put in, and how large they are. */
START_TEST(tables_of_a_type_may_be_as_different_as_they_like)
{
	for (int again = 0; again < 3; again++) {
		ck_encoded("sample.Five", "{from = 'a', kind = 1}", "\x0a\1a\x20\1");
		ck_encoded("sample.Five", "{kind = 1, from = 'a'}", "\x0a\1a\x20\1");
		ck_encoded("sample.Five", "{time = 2, target = 'b'}", "\x12\1b\x28\2");
		ck_encoded("sample.Five",
			   "(function() local t = {} for i = 1, 40 do t['x' .. i] = i end"
			   " for i = 1, 40 do t['x' .. i] = nil end t.kind = 1 t.from = 'a' return t end)()",
			   "\x0a\1a\x20\1");
		ck_unwritable("sample.Five", "{from = 'a', kinds = 1}", "kinds: sample.Five has no such field");
		ck_unwritable("sample.Five", "{from = 'a', kind = 1, [1] = 2}",
			      "expected the name of a field, found 1");
		ck_unwritable("sample.Five", "{from = 'a', target = 'b', content = 'c', kind = 1, time = 2, times = 3}",
			      "times: sample.Five has no such field");
		ck_encoded("sample.Buy", "{order = 'o', count = 2, item = 1}", "\x08\1\x10\2\x1a\1o");
	}
}
END_TEST

START_TEST(random_messages_come_back_byte_for_byte_as_the_reference_writes_them)
{
	srandom(5);
	for (int i = 0; i < 3000; i++) {
		Sample__All *m = random_all(3);
		size_t n = sample__all__get_packed_size(m);
		uint8_t *bytes = malloc(n + 1);
		sample__all__pack(m, bytes);
		ck_assert_msg(decode("sample.All", bytes, n) == 0, "%d: %s", i, why);
		ck_assert_uint_eq(unknown, 0);
		buf_clear(&out);
		ck_assert_msg(lua_pb_encode(L, 1, type("sample.All"), &out, why, sizeof why) == 0, "%d: %s", i, why);
		ck_assert_uint_eq(out.len, n);
		if (n)
			ck_assert_mem_eq(out.data, bytes, n);
		/* and by way of JSON too */
		buf_clear(&text);
		ck_assert_msg(lua_json_encode(L, 1, type("sample.All"), &text, why, sizeof why) == 0, "%d: %s", i, why);
		lua_settop(L, 0);
		ck_assert_msg(lua_json_decode(L, type("sample.All"), text.data, text.len, why, sizeof why) == 0,
			      "%d: %s", i, why);
		buf_clear(&out);
		ck_assert_int_eq(lua_pb_encode(L, 1, type("sample.All"), &out, why, sizeof why), 0);
		/* empty lists, absent on the wire, are the only difference JSON could make, and there are none */
		ck_assert_uint_eq(out.len, n);
		if (n)
			ck_assert_mem_eq(out.data, bytes, n);
		lua_settop(L, 0);
		free(bytes);
		sample__all__free_unpacked(m, NULL);
	}
}
END_TEST

START_TEST(random_bytes_never_crash_the_decoder)
{
	static const char *const types[] = { "sample.All", "sample.Maps", "sample.Buy", "sample.Wrapped",
					     "loquat.Any" };
	srandom(9);
	for (int i = 0; i < 40000; i++) {
		Sample__All *m = random_all(1);
		uint8_t bytes[4096];
		size_t n = sample__all__get_packed_size(m);
		if (n <= sizeof bytes) {
			sample__all__pack(m, bytes);
			for (long k = random() % 4; n && k >= 0; k--)
				bytes[(size_t)random() % n] = (uint8_t)(random() % 2 ? random() % 200 : random());
			n = random() % 3 ? n : (size_t)random() % (n + 1);
			if (decode(types[i % 5], bytes, n) == 0) {
				buf_clear(&out);
				lua_pb_encode(L, 1, type(types[i % 5]), &out, why, sizeof why);
			}
			lua_settop(L, 0);
		}
		sample__all__free_unpacked(m, NULL);
	}
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("lua_pb");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, bytes_become_tables_and_tables_bytes);
	tcase_add_test(c, each_scalar_has_its_encoding);
	tcase_add_test(c, lists_are_read_packed_or_not_whatever_the_proto_says);
	tcase_add_test(c, a_list_read_is_marked_as_an_array);
	tcase_add_test(c, maps_are_written_by_key);
	tcase_add_test(c, what_is_not_known_is_skipped_and_counted);
	tcase_add_test(c, defaults_and_required_fields_are_those_of_the_proto);
	tcase_add_test(c, bytes_that_are_no_message_are_refused);
	tcase_add_test(c, values_that_lua_or_the_type_cannot_hold_are_refused);
	tcase_add_test(c, of_a_oneof_the_last_one_read_counts_and_one_at_most_is_written);
	tcase_add_test(c, nesting_is_bounded);
	tcase_add_test(c, what_stands_in_a_value_many_times_does_not_make_it_endless);
	tcase_add_test(c, long_parts_have_long_lengths);
	tcase_add_test(c, untyped_messages_hold_json);
	tcase_add_test(c, texts_that_come_again_stay_what_they_are);
	tcase_add_test(c, texts_that_are_kept_in_one_place_stay_apart);
	tcase_add_test(c, tables_of_a_type_may_be_as_different_as_they_like);
	tcase_add_test(c, random_messages_come_back_byte_for_byte_as_the_reference_writes_them);
	tcase_add_test(c, random_bytes_never_crash_the_decoder);
	return suite_run("lua_pb", c);
}
