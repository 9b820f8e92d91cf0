/* The promises of rpc/clientpb.h; byte strings marked "seen" were taken from pomelo-protobuf 0.4.0. */
#include <check.h>
#include <string.h>
#include "common/err.h"
#include "rpc/clientpb.h"
#include "tests/support/sample.h"
#include "tests/support/suite.h"

#define BYTES(s) (s), sizeof(s) - 1

static struct schema *schema;
static const struct msg_type *all;
static struct buf out;

static void setup(void)
{
	schema = sample_schema();
	all = schema_type(schema, "sample.All");
	buf_init(&out);
}

static void teardown(void)
{
	buf_release(&out);
	schema_free(schema);
}

static const char *text_of(enum clientpb_dialect d, const char *p, size_t n)
{
	buf_clear(&out);
	ck_assert_int_eq(clientpb_read(&out, all, d, p, n), 0);
	return buf_cstr(&out);
}

static void writes(enum clientpb_dialect d, const char *json, const char *p, size_t n)
{
	struct clientpb_write w = { .dialect = d };

	buf_clear(&out);
	ck_assert_int_eq(clientpb_write(&out, all, &w, json, strlen(json)), 0);
	ck_assert_uint_eq(out.len, n);
	ck_assert_mem_eq(out.data, p, n);
}

START_TEST(pomelos_numbers_are_zigzag_and_counted)
{
	ck_assert_str_eq(text_of(CLIENTPB_POMELO, BYTES("\x28\x01")), "{\"i32\":-1}");                     /* seen */
	ck_assert_str_eq(text_of(CLIENTPB_POMELO, BYTES("\x58\xac\x02")), "{\"u32\":300}");                /* seen */
	ck_assert_str_eq(text_of(CLIENTPB_POMELO, BYTES("\x15\0\0\xc0\x3f")), "{\"f\":1.5}");              /* seen */
	ck_assert_str_eq(text_of(CLIENTPB_POMELO, BYTES("\x98\x01\x02\x02\x01")), "{\"numbers\":[1,-1]}"); /* seen */
	ck_assert_str_eq(text_of(CLIENTPB_POMELO, BYTES("\x98\x01\0")), "{\"numbers\":[]}");
	ck_assert_str_eq(text_of(CLIENTPB_POMELO, BYTES("\x8a\x01\x04\x08\x04\x10\x06")),
			 "{\"one\":{\"item\":2,\"count\":3}}");
	writes(CLIENTPB_POMELO, "{\"i32\":-1}", BYTES("\x28\x01"));
	writes(CLIENTPB_POMELO, "{\"i32\":-2147483648}", BYTES("\x28\xff\xff\xff\xff\x0f")); /* seen */
	writes(CLIENTPB_POMELO, "{\"numbers\":[1,-1]}", BYTES("\x98\x01\x02\x02\x01"));
	writes(CLIENTPB_POMELO, "{\"s\":\"hi\"}", BYTES("\x4a\x02hi"));
	writes(CLIENTPB_POMELO, "{\"words\":[\"x\",\"yz\"]}",
	       BYTES("\xaa\x01\x01x\xaa\x01\x02yz")); /* seen, but for tags */
}
END_TEST

START_TEST(sixty_four_bits_reach_classic_clients_as_double)
{
	writes(CLIENTPB_POMELO, "{\"i64\":1}", BYTES("\x19\0\0\0\0\0\0\xf0\x3f"));
	writes(CLIENTPB_POMELO, "{\"b\":true}", BYTES("\x40\x01"));
	writes(CLIENTPB_POMELO, "{\"colour\":\"BLUE\"}",
	       BYTES("\x62\x04"
		     "BLUE"));
	/* from them they are varints: 2^40 */
	ck_assert_str_eq(text_of(CLIENTPB_POMELO, BYTES("\x18\x80\x80\x80\x80\x80\x40")), "{\"i64\":1099511627776}");
}
END_TEST

START_TEST(an_answers_outcome_goes_beside_its_fields)
{
	writes(CLIENTPB_POMELO, "{\"code\":200,\"s\":\"a\"}",
	       BYTES("\x4a\x01"
		     "a\xc8\x3e\xc8\x01"));
	writes(CLIENTPB_STANDARD, "{\"code\":200,\"s\":\"a\"}",
	       BYTES("\x4a\x01"
		     "a"));
	/* an error needs none of the fields that an answer must have */
	const struct msg_type *buy = schema_type(schema, "sample.Buy");
	struct clientpb_write w = { .dialect = CLIENTPB_POMELO };
	buf_clear(&out);
	ck_assert_int_eq(clientpb_write(&out, buy, &w, BYTES("{\"code\":404,\"error\":true}")), 0);
	ck_assert_mem_eq(out.data, "\xc8\x3e\x94\x03\xd2\x3e\x04true", 11);
	ck_assert_int_eq(clientpb_write(&out, buy, &w, BYTES("{\"code\":200}")), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(browsers_get_a_wide_character_as_two_surrogates)
{
	struct clientpb_write w = { .dialect = CLIENTPB_POMELO, .surrogates = true };

	ck_assert_int_eq(clientpb_write(&out, all, &w, BYTES("{\"s\":\"\xf0\x9f\x98\x80\xe4\xb8\xad\"}")), 0);
	ck_assert_uint_eq(out.len, 11);
	ck_assert_mem_eq(out.data, "\x4a\x09\xed\xa0\xbd\xed\xb8\x80\xe4\xb8\xad", 11); /* seen */
	ck_assert_str_eq(text_of(CLIENTPB_POMELO, BYTES("\x4a\x06\xed\xa0\xbd\xed\xb8\x80")),
			 "{\"s\":\"\\ud83d\\ude00\"}");
}
END_TEST

START_TEST(the_standard_is_what_everybody_else_reads)
{
	writes(CLIENTPB_STANDARD, "{\"i32\":-1}", BYTES("\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
	writes(CLIENTPB_STANDARD, "{\"packed\":[1,-1]}", BYTES("\xa2\x01\x02\x02\x01"));
	writes(CLIENTPB_STANDARD, "{\"numbers\":[1,300]}", BYTES("\x98\x01\x01\x98\x01\xac\x02"));
	writes(CLIENTPB_STANDARD, "{\"colour\":\"GREEN\",\"raw\":\"AAE=\"}", BYTES("\x52\x02\0\1\x60\x01"));
	writes(CLIENTPB_STANDARD, "{\"x32\":1,\"sx64\":-1}", BYTES("\x3d\1\0\0\0\x71\xff\xff\xff\xff\xff\xff\xff\xff"));
	/* packed or not, both are read */
	ck_assert_str_eq(text_of(CLIENTPB_STANDARD, BYTES("\x9a\x01\x03\x01\xac\x02")), "{\"numbers\":[1,300]}");
	ck_assert_str_eq(text_of(CLIENTPB_STANDARD, BYTES("\x98\x01\x01\x98\x01\x02")), "{\"numbers\":[1,2]}");
	ck_assert_str_eq(text_of(CLIENTPB_STANDARD, BYTES("\xf8\xff\xff\x01\x05\x28\x07")),
			 "{\"i32\":7}");                                                        /* unknown */
	ck_assert_str_eq(text_of(CLIENTPB_STANDARD, BYTES("\x28\x01\x28\x02")), "{\"i32\":2}"); /* the last */
	ck_assert_str_eq(text_of(CLIENTPB_STANDARD, NULL, 0), "{}");
}
END_TEST

START_TEST(maps_are_objects)
{
	static const char bytes[] = "\x0a\x05\x0a\x01"
				    "a\x10\x07\x22\x0b\x08\x01\x11\0\0\0\0\0\0\xf8\x3f";
	static const char json[] = "{\"by_name\":{\"a\":7},\"flags\":{\"true\":1.5}}";
	const struct msg_type *maps = schema_type(schema, "sample.Maps");
	struct clientpb_write w = { .dialect = CLIENTPB_STANDARD };

	ck_assert_int_eq(clientpb_read(&out, maps, CLIENTPB_STANDARD, BYTES(bytes)), 0);
	ck_assert_str_eq(buf_cstr(&out), json);
	buf_clear(&out);
	ck_assert_int_eq(clientpb_write(&out, maps, &w, BYTES(json)), 0);
	ck_assert_uint_eq(out.len, sizeof(bytes) - 1);
	ck_assert_mem_eq(out.data, bytes, out.len);
	ck_assert(!clientpb_pomelo_takes(maps, true));
}
END_TEST

START_TEST(what_is_no_message_is_refused_and_leaves_nothing)
{
	static const struct {
		enum clientpb_dialect d;
		const char *p;
		size_t n;
	} wrong[] = {
		{ CLIENTPB_STANDARD, BYTES("\x28") },                     /* no value */
		{ CLIENTPB_STANDARD, BYTES("\x4a\x05hi") },               /* longer than there is */
		{ CLIENTPB_STANDARD, BYTES("\x2d\0\0\0\0") },             /* another wire type */
		{ CLIENTPB_STANDARD, BYTES("\x2b") },                     /* a group */
		{ CLIENTPB_STANDARD, BYTES("\x28\x80\x80\x80\x80\x10") }, /* beyond 32 bits */
		{ CLIENTPB_STANDARD, BYTES("\x09\0\0\0\0\0\0\xf0\x7f") }, /* infinity */
		{ CLIENTPB_STANDARD, BYTES("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01") },
		{ CLIENTPB_POMELO, BYTES("\xf8\x07\x01") },                 /* unknown: cannot be skipped */
		{ CLIENTPB_POMELO, BYTES("\x98\x01\xff\xff\xff\x7f\x01") }, /* a count without its elements */
		{ CLIENTPB_POMELO, BYTES("\x4a\xff\xff\xff\xff\x0f") },
	};

	buf_addstr(&out, "before");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		ck_assert_msg(clientpb_read(&out, all, wrong[i].d, wrong[i].p, wrong[i].n) == ERR_BAD_REQUEST, "%zu",
			      i);
		ck_assert_uint_eq(out.len, 6);
	}
}
END_TEST

START_TEST(nesting_is_bounded)
{
	char deep[200];
	size_t n = 0;

	/* again = 24, each one around the last */
	for (int i = 0; i < 40; i++) {
		memmove(deep + 3, deep, n);
		memcpy(deep, "\xc2\x01", 2);
		deep[2] = (char)n;
		n += 3;
	}
	ck_assert_int_eq(clientpb_read(&out, all, CLIENTPB_STANDARD, deep, n), ERR_BAD_REQUEST);
	ck_assert_int_eq(clientpb_read(&out, all, CLIENTPB_STANDARD, deep + 3 * 30, n - 3 * 30), 0);
}
END_TEST

START_TEST(json_of_another_type_is_refused)
{
	static const char *const wrong[] = { "[]",
					     "{",
					     "{\"i32\":\"x\"}",
					     "{\"i32\":2147483648}",
					     "{\"u32\":-1}",
					     "{\"s\":1}",
					     "{\"one\":{}}",
					     "{\"numbers\":7}",
					     "{\"raw\":\"a\"}",
					     "{\"colour\":\"PINK\"}",
					     "{\"d\":true}" };
	struct clientpb_write w = { .dialect = CLIENTPB_STANDARD };

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		ck_assert_msg(clientpb_write(&out, all, &w, wrong[i], strlen(wrong[i])) == ERR_BAD_REQUEST, "%s",
			      wrong[i]);
	ck_assert_uint_eq(out.len, 0);
	writes(CLIENTPB_STANDARD, "{\"unknown\":1,\"s\":null}", "", 0);
}
END_TEST

START_TEST(requests_a_browsers_codec_would_spoil_stay_json)
{
	ck_assert(clientpb_pomelo_takes(schema_type(schema, "sample.Buy"), false));
	ck_assert(clientpb_pomelo_takes(all, true));
	ck_assert(!clientpb_pomelo_takes(all, false)); /* bool and double */
}
END_TEST

START_TEST(pitayas_error_is_its_message)
{
	clientpb_pitaya_error(&out, "PIT-404", "no", "not_found", "none");
	ck_assert_uint_eq(out.len, 9 + 4 + 20 + 16);
	ck_assert_mem_eq(out.data,
			 "\x0a\x07PIT-404\x12\x02no\x1a\x12\x0a\x05"
			 "error\x12\x09not_found\x1a\x0e\x0a\x06"
			 "effect\x12\x04none",
			 out.len);
}
END_TEST

/* docs/lua.md: "of a oneof there is one field at most (…; in protobuf the last one counts)" */
START_TEST(of_a_oneof_the_last_one_counts)
{
	buf_clear(&out);
	ck_assert_int_eq(clientpb_read(&out, schema_type(schema, "sample.Either"), CLIENTPB_STANDARD,
				       BYTES("\x0a\x01x\x10\x07")),
			 0);
	ck_assert_str_eq(buf_cstr(&out), "{\"id\":7}");
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("clientpb");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, of_a_oneof_the_last_one_counts);
	tcase_add_test(t, pomelos_numbers_are_zigzag_and_counted);
	tcase_add_test(t, sixty_four_bits_reach_classic_clients_as_double);
	tcase_add_test(t, an_answers_outcome_goes_beside_its_fields);
	tcase_add_test(t, browsers_get_a_wide_character_as_two_surrogates);
	tcase_add_test(t, the_standard_is_what_everybody_else_reads);
	tcase_add_test(t, maps_are_objects);
	tcase_add_test(t, what_is_no_message_is_refused_and_leaves_nothing);
	tcase_add_test(t, nesting_is_bounded);
	tcase_add_test(t, json_of_another_type_is_refused);
	tcase_add_test(t, requests_a_browsers_codec_would_spoil_stay_json);
	tcase_add_test(t, pitayas_error_is_its_message);
	return suite_run("clientpb", t);
}
