/* The typed builder of common/sqllog.h: values become text once and right, or are refused. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "tests/support/suite.h"

static struct sql_record r;
static struct buf b;
static char why[200];

static void setup(void)
{
	sql_record_init(&r);
	buf_init(&b);
	why[0] = '\0';
}

static void teardown(void)
{
	sql_record_release(&r);
	buf_release(&b);
}

#define TEXT(literal) ((struct sql_value){ .type = SQL_TEXT, .s = { .p = literal, .n = sizeof(literal) - 1 } })
#define INT(v)        ((struct sql_value){ .type = SQL_INT, .i = v })

static const char *one(struct sql_value v)
{
	buf_clear(&b);
	ck_assert_int_eq(sql_format(&b, "SELECT ?", &v, 1, why, sizeof why), 0);
	return buf_cstr(&b);
}

static void refused(const char *sql, struct sql_value v, size_t n, const char *words)
{
	buf_clear(&b);
	ck_assert_int_eq(sql_format(&b, sql, &v, n, why, sizeof why), ERR_BAD_REQUEST);
	ck_assert_msg(strstr(why, words), "said: %s", why);
	ck_assert_uint_eq(b.len, 0);
}

START_TEST(values_stand_in_their_places_as_literals)
{
	struct sql_value v[] = {
		INT(-10), TEXT("Anna"), { .type = SQL_NULL }, { .type = SQL_BLOB, .s = { "\0\xff", 2 } }
	};
	ck_assert_int_eq(sql_record_add(&r, "UPDATE role SET gold = gold + ?, name = ?, x = ?, b = ? WHERE id = 7", v,
					4, why, sizeof why),
			 0);
	ck_assert_str_eq(
		buf_cstr(&r.body),
		"BEGIN;\nUPDATE role SET gold = gold + -10, name = 'Anna', x = NULL, b = x'00ff' WHERE id = 7;\n");
	ck_assert_uint_eq(r.statements, 1);
}
END_TEST

START_TEST(whole_numbers_keep_all_their_digits)
{
	ck_assert_str_eq(one(INT(0)), "SELECT 0");
	ck_assert_str_eq(one(INT(INT64_MAX)), "SELECT 9223372036854775807");
	ck_assert_str_eq(one(INT(INT64_MIN)), "SELECT -9223372036854775808");
}
END_TEST

START_TEST(doubles_come_back_as_they_were)
{
	static const double all[] = { 0.1, 1.0 / 3, -2.5e-300, DBL_MAX, DBL_MIN, 4.9e-324, 1e15 };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		const char *text = one((struct sql_value){ .type = SQL_DOUBLE, .d = all[i] }) + strlen("SELECT ");
		ck_assert_msg(strtod(text, NULL) == all[i], "%s", text);
	}
}
END_TEST

START_TEST(zero_has_no_sign)
{
	ck_assert_str_eq(one((struct sql_value){ .type = SQL_DOUBLE, .d = -0.0 }), "SELECT 0");
	ck_assert_str_eq(one((struct sql_value){ .type = SQL_DOUBLE, .d = 0.0 }), "SELECT 0");
	ck_assert_str_eq(one((struct sql_value){ .type = SQL_DOUBLE, .d = -4.9e-324 }),
			 "SELECT -4.9406564584124654e-324");
}
END_TEST

START_TEST(what_is_no_number_is_refused)
{
	refused("SELECT ?", (struct sql_value){ .type = SQL_DOUBLE, .d = NAN }, 1, "value 1 is not a finite number");
	refused("SELECT ?", (struct sql_value){ .type = SQL_DOUBLE, .d = INFINITY }, 1, "finite");
	refused("SELECT ?", (struct sql_value){ .type = SQL_DOUBLE, .d = -INFINITY }, 1, "finite");
}
END_TEST

START_TEST(text_is_escaped_once)
{
	ck_assert_str_eq(one(TEXT("a'b\"c\\d\ne\rf\0g\x1ah")), "SELECT 'a\\'b\\\"c\\\\d\\ne\\rf\\0g\\Zh'");
	ck_assert_str_eq(one(TEXT("\\'")), "SELECT '\\\\\\''");
	ck_assert_str_eq(one(TEXT("")), "SELECT ''");
	ck_assert_str_eq(one(TEXT("-- ; /* # ? \t%_")), "SELECT '-- ; /* # ? \t%_'");
	for (size_t n = 0; n <= 16; n++) { /* and nothing that stands behind it */
		char want[40];
		struct sql_value v = { .type = SQL_TEXT, .s = { "abcdefghijklmnopqrstuvwxyz", n } };
		snprintf(want, sizeof want, "SELECT '%.*s'", (int)n, v.s.p);
		ck_assert_str_eq(one(v), want);
	}
}
END_TEST

START_TEST(characters_of_two_three_and_four_bytes_pass_as_they_are)
{
	ck_assert_str_eq(one(TEXT("\xc2\x80 \xc3\xa9 \xe6\x9e\x87\xe6\x9d\xb7 \xf0\x9f\x8d\x8a \xf4\x8f\xbf\xbf")),
			 "SELECT '\xc2\x80 \xc3\xa9 \xe6\x9e\x87\xe6\x9d\xb7 \xf0\x9f\x8d\x8a \xf4\x8f\xbf\xbf'");
	ck_assert_str_eq(one(TEXT("\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80")),
			 "SELECT '\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80'");
}
END_TEST

START_TEST(bytes_that_are_not_utf8_are_refused_with_their_place)
{
	refused("SELECT ?", TEXT("ab\xff"), 1, "value 1 is not UTF-8 at its byte 2");
	refused("SELECT ?", TEXT("\x80"), 1, "byte 0");                    /* a tail alone */
	refused("SELECT ?", TEXT("\xc0\xaf"), 1, "UTF-8");                 /* overlong '/' */
	refused("SELECT ?", TEXT("\xc1\xbf"), 1, "UTF-8");                 /* overlong */
	refused("SELECT ?", TEXT("\xe0\x80\xa7"), 1, "UTF-8");             /* overlong quote */
	refused("SELECT ?", TEXT("\xf0\x80\x80\xa7"), 1, "UTF-8");         /* overlong quote */
	refused("SELECT ?", TEXT("\xed\xa0\xbd\xed\xb8\x80"), 1, "UTF-8"); /* CESU: surrogates */
	refused("SELECT ?", TEXT("\xf4\x90\x80\x80"), 1, "UTF-8");         /* above U+10FFFF */
	refused("SELECT ?", TEXT("\xf8\x88\x80\x80\x80"), 1, "UTF-8");
	refused("SELECT ?", TEXT("x\xe6\x9e"), 1, "byte 1");     /* cut short */
	refused("SELECT ?", TEXT("\xf0\x9f\x8d'"), 1, "byte 0"); /* it would take the quote along */
	refused("SELECT ?", TEXT("\xc3'"), 1, "UTF-8");          /* would swallow the quote */
}
END_TEST

START_TEST(every_broken_character_of_three_bytes_is_refused_and_every_sound_one_passes)
{
	for (unsigned c = 0x800; c < 0x10000; c++) {
		char text[3] = { (char)(0xe0 | c >> 12), (char)(0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63)) };
		struct sql_value v = { .type = SQL_TEXT, .s = { text, 3 } };
		bool surrogate = c >= 0xd800 && c < 0xe000;
		buf_clear(&b);
		ck_assert_int_eq(sql_format(&b, "SELECT ?", &v, 1, why, sizeof why), surrogate ? ERR_BAD_REQUEST : 0);
		text[2] = (char)(text[2] & 0x7f);
		ck_assert_int_eq(sql_format(&b, "SELECT ?", &v, 1, why, sizeof why), ERR_BAD_REQUEST);
	}
}
END_TEST

START_TEST(the_count_of_values_must_match)
{
	refused("SELECT ?, ?", INT(1), 1, "has 2 ? and 1 values");
	refused("SELECT 1", INT(1), 1, "has 0 ? and 1 values");
	refused("SELECT ?", INT(1), 0, "has 1 ? and 0 values");
	refused("?", INT(1), 1, "empty");
}
END_TEST

START_TEST(a_statement_holds_no_literal_text_no_comment_and_no_second_statement)
{
	static const char *const bad[] = { "SELECT 'x', ?",     "SELECT \"x\", ?",  "SELECT ?; SELECT 1",
					   "SELECT ? -- x",     "SELECT ? /* x */", "SELECT ? # x",
					   "SELECT `a`, ?",     "SELECT ?\x01",     "SELECT \\?",
					   "SELECT ? \xc3\xa9", "SELECT @a, ?" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		refused(bad[i], INT(1), 1, "may not stand in a statement");
	refused("", INT(1), 0, "empty");
}
END_TEST

/* [[…]] in scripts */
START_TEST(a_statement_of_several_lines_is_one_line_in_the_log)
{
	static const char *const forms[] = { "UPDATE role SET gold = ?\n   WHERE id = ?",
					     "UPDATE\trole SET gold = ? WHERE id = ?\n",
					     "\n  UPDATE role \r\n SET gold\n= ? WHERE id =\n?\n  " };
	struct sql_value v[] = { INT(5), INT(7) };
	struct sql_record record;

	sql_record_init(&record);
	for (int turn = 0; turn < 3; turn++) { /* the second time it is known */
		for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
			ck_assert_int_eq(sql_record_add(&record, forms[i], v, 2, why, sizeof why), 0);
		ck_assert_str_eq(buf_cstr(&record.body), "BEGIN;\n"
							 "UPDATE role SET gold = 5 WHERE id = 7;\n"
							 "UPDATE role SET gold = 5 WHERE id = 7;\n"
							 "UPDATE role SET gold = 5 WHERE id = 7;\n");
		sql_record_clear(&record);
	}
	sql_record_release(&record);
	refused("\n ", INT(1), 0, "empty");
	refused("SELECT ?,\n?", INT(1), 1, "2 ?");
}
END_TEST

START_TEST(a_negative_value_behind_a_minus_does_not_become_a_comment)
{
	struct sql_value v = INT(-5);
	ck_assert_int_eq(sql_format(&b, "SELECT a -?", &v, 1, why, sizeof why), 0);
	ck_assert_str_eq(buf_cstr(&b), "SELECT a - -5");
	refused("SELECT a --?", v, 1, "may not stand");
	refused("SELECT a = 'x' AND b = ?", v, 1, "' at byte 12 may not stand");
	refused("\n\t SELECT a = 'x'", v, 1, "' at byte 15 may not stand");
}
END_TEST

START_TEST(a_record_takes_changes_only)
{
	static const char *const bad[] = {
		"SELECT ?",      "COMMIT",       "BEGIN", "CREATE TABLE x (a INT)", "DROP TABLE role", "SET a = ?",
		"TRUNCATE role", "UPDATEX role", ""
	};
	struct sql_value v = INT(1);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		ck_assert_int_eq(sql_record_add(&r, bad[i], &v, 1, why, sizeof why), ERR_BAD_REQUEST);
	ck_assert_uint_eq(r.body.len, 0);
	static const char *const good[] = { "INSERT INTO a (b) VALUES (?)", "UPDATE a SET b = ?",
					    "DELETE FROM a WHERE b = ?", "REPLACE INTO a (b) VALUES (?)",
					    "insert into a (b) values (?)" };
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		ck_assert_int_eq(sql_record_add(&r, good[i], &v, 1, why, sizeof why), 0);
	ck_assert_uint_eq(r.statements, 5);
}
END_TEST

START_TEST(a_refused_statement_leaves_the_record_as_it_was)
{
	struct sql_value v[] = { TEXT("fine"), TEXT("\xff") };
	ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", v, 1, why, sizeof why), 0);
	size_t before = r.body.len;
	ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?, c = ?", v, 2, why, sizeof why), ERR_BAD_REQUEST);
	ck_assert_uint_eq(r.body.len, before);
	ck_assert_uint_eq(r.statements, 1);
}
END_TEST

START_TEST(a_record_has_an_upper_bound)
{
	size_t n = SQLLOG_RECORD_MAX - 200;
	char *big = malloc(n);
	memset(big, 'x', n);
	struct sql_value v = { .type = SQL_TEXT, .s = { big, n } };
	ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), 0);
	size_t before = r.body.len;
	ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), ERR_FULL);
	ck_assert_uint_eq(r.body.len, before);
	sql_record_clear(&r);
	memset(big, '\'', n); /* twice as long in the file */
	ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), ERR_FULL);
	free(big);
}
END_TEST

/* Its reader takes no larger one: it would be damage. */
START_TEST(a_record_is_as_long_as_may_be_and_not_a_byte_longer)
{
	size_t n = SQLLOG_RECORD_MAX - strlen("BEGIN;\nUPDATE a SET b = '';\nCOMMIT;\n");
	char *big = malloc(n + 1);
	memset(big, 'x', n + 1);
	for (unsigned i = 0; i < 3; i++) { /* at last by the form that is kept */
		struct sql_value v = { .type = SQL_TEXT, .s = { big, n + 1 } };
		ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), ERR_FULL);
		ck_assert_uint_eq(r.body.len, 0);
		v.s.n = n;
		ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), 0);
		ck_assert_uint_eq(r.body.len + strlen("COMMIT;\n"), SQLLOG_RECORD_MAX);
		sql_record_clear(&r);
	}
	free(big);
}
END_TEST

START_TEST(what_a_record_cannot_keep_is_written_the_same_each_time)
{
	struct sql_value v[25];
	char first[300];
	for (unsigned i = 0; i < 25; i++)
		v[i] = INT(i);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(sql_record_add(&r, " DELETE FROM a WHERE b = ?", v + 7, 1, why, sizeof why), 0);
		ck_assert_int_eq(sql_record_add(&r,
						"DELETE FROM a WHERE b IN (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
						"?,?,?)",
						v, 25, why, sizeof why),
				 0);
		if (!i)
			snprintf(first, sizeof first, "%s", buf_cstr(&r.body));
		ck_assert_str_eq(buf_cstr(&r.body), first);
		sql_record_clear(&r);
	}
	ck_assert_ptr_nonnull(strstr(first, "BEGIN;\nDELETE FROM a WHERE b = 7;\nDELETE"));
	ck_assert_ptr_nonnull(strstr(first, "IN (0,1,2,"));
	ck_assert_ptr_nonnull(strstr(first, ",23,24);\n"));
}
END_TEST

/* The second time the record knows the statement: what it writes and refuses is the same. */
START_TEST(a_statement_seen_before_is_written_and_refused_as_the_first_time)
{
	static const char sql[] = "UPDATE role SET gold = gold -?, name = ?, x = x - ? WHERE id = ?";
	char first[200] = "";
	for (unsigned i = 0; i < 3; i++) {
		struct sql_value v[] = { INT(-5), TEXT("O'Malley \xc3\xa9"), INT(-1), INT(42) };
		ck_assert_int_eq(sql_record_add(&r, sql, v, 4, why, sizeof why), 0);
		if (!i)
			snprintf(first, sizeof first, "%s", buf_cstr(&r.body));
		ck_assert_str_eq(buf_cstr(&r.body), first);
		v[1] = TEXT("\xff");
		ck_assert_int_eq(sql_record_add(&r, sql, v, 4, why, sizeof why), ERR_BAD_REQUEST);
		ck_assert_str_eq(why, "value 2 is not UTF-8 at its byte 0");
		v[1] = TEXT("fine");
		ck_assert_int_eq(sql_record_add(&r, sql, v, 3, why, sizeof why), ERR_BAD_REQUEST);
		ck_assert_str_eq(buf_cstr(&r.body), first);
		ck_assert_uint_eq(r.statements, 1);
		sql_record_clear(&r);
	}
	ck_assert_ptr_nonnull(strstr(first, "gold - -5, name = 'O\\'Malley \xc3\xa9', x = x - -1 WHERE id = 42;\n"));
}
END_TEST

START_TEST(another_statement_at_the_same_address_is_not_taken_for_the_one_before)
{
	char sql[80] = "";
	for (unsigned i = 0; i < 4; i++) {
		snprintf(sql, sizeof sql, "UPDATE role SET %s = ? WHERE id = ?", i % 2 ? "level" : "gold");
		struct sql_value v[] = { INT(i), INT(7) };
		ck_assert_int_eq(sql_record_add(&r, sql, v, 2, why, sizeof why), 0);
		ck_assert_ptr_nonnull(strstr(buf_cstr(&r.body), i % 2 ? "SET level = " : "SET gold = "));
		sql_record_clear(&r);
	}
	for (unsigned i = 0; i < 4; i++) { /* also if the other one goes on behind it */
		snprintf(sql, sizeof sql, "DELETE FROM bag WHERE role_id = ?%s", i % 2 ? " AND item = 3" : "");
		ck_assert_int_eq(sql_record_add(&r, sql, &INT(7), 1, why, sizeof why), 0);
		ck_assert_ptr_nonnull(strstr(buf_cstr(&r.body), i % 2 ? "= 7 AND item = 3;\n" : "= 7;\n"));
		sql_record_clear(&r);
	}
	snprintf(sql, sizeof sql, "COMMIT ?");
	ck_assert_int_eq(sql_record_add(&r, sql, &INT(1), 1, why, sizeof why), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(keys_are_kept_once_and_written_without_separators)
{
	ck_assert_int_eq(sql_record_key(&r, "role:42"), 0);
	ck_assert_int_eq(sql_record_key(&r, "bag:42"), 0);
	ck_assert_int_eq(sql_record_key(&r, "role:42"), 0);
	ck_assert_int_eq(sql_record_key(&r, "uid:a b,c%\t"), 0);
	ck_assert_str_eq(r.keys, "role:42,bag:42,uid:a%20b%2Cc%25%09");
}
END_TEST

START_TEST(keys_have_bounds)
{
	char key[90];
	memset(key, 'k', 80);
	key[80] = '\0';
	ck_assert_int_eq(sql_record_key(&r, ""), ERR_BAD_REQUEST);
	ck_assert_int_eq(sql_record_key(&r, key), 0);
	for (char c = 'a'; c < 'c'; c++) {
		key[0] = c;
		ck_assert_int_eq(sql_record_key(&r, key), 0);
	}
	key[0] = 'z';
	ck_assert_int_eq(sql_record_key(&r, key), ERR_FULL);
	ck_assert_uint_eq(r.keys_bytes, 242);
	ck_assert_int_eq(sql_record_key(&r, "thirteenbytes"), ERR_FULL);
	ck_assert_int_eq(sql_record_key(&r, "twelve-bytes"), 0);
	ck_assert_uint_eq(r.keys_bytes, SQLLOG_KEY_MAX - 1); /* its reader takes no more */
	strcpy(key + 80, "k");
	ck_assert_int_eq(sql_record_key(&r, key), ERR_BAD_REQUEST);
}
END_TEST

START_TEST(the_request_stands_behind_the_begin_as_a_comment_that_ends_nowhere_else)
{
	struct sql_value v = INT(1);
	sql_record_request(&r, "role.shop Handler\n;'\xc3.buy_2-/");
	ck_assert_uint_eq(r.statements, 0);
	ck_assert_int_lt(sql_record_add(&r, "SELECT ?", &v, 1, why, sizeof why), 0);
	ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), 0);
	sql_record_request(&r, "too.late");
	const char *body = "BEGIN;\n-- request=role.shopHandler.buy_2-/\nUPDATE a SET b = 1;\n";
	ck_assert_str_eq(buf_cstr(&r.body), body);
	for (unsigned i = 0; i < 2; i++) { /* at last by the form that is kept */
		sql_record_clear(&r);
		sql_record_request(&r, "role.shopHandler.buy_2-/");
		sql_record_request(&r, "another.one");
		ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), 0);
		ck_assert_str_eq(buf_cstr(&r.body), body);
	}
	sql_record_clear(&r);
	sql_record_request(&r, "");
	ck_assert_int_eq(sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why), 0);
	ck_assert_str_eq(buf_cstr(&r.body), "BEGIN;\nUPDATE a SET b = 1;\n");
	char longer[3 * SQLLOG_REQUEST_MAX];
	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	sql_record_clear(&r);
	sql_record_request(&r, longer);
	ck_assert_uint_eq(r.body.len, strlen("BEGIN;\n-- request=\n") + SQLLOG_REQUEST_MAX);
}
END_TEST

START_TEST(a_cleared_record_is_as_new_and_keeps_its_memory)
{
	struct sql_value v = INT(1);
	sql_record_key(&r, "role:1");
	sql_record_add(&r, "UPDATE a SET b = ?", &v, 1, why, sizeof why);
	r.trace = 9;
	sql_record_clear(&r);
	ck_assert_uint_eq(r.body.len + r.statements + r.trace + r.keys_bytes, 0);
	ck_assert_uint_gt(r.body.cap, 0);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("build");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, values_stand_in_their_places_as_literals);
	tcase_add_test(t, whole_numbers_keep_all_their_digits);
	tcase_add_test(t, doubles_come_back_as_they_were);
	tcase_add_test(t, zero_has_no_sign);
	tcase_add_test(t, what_is_no_number_is_refused);
	tcase_add_test(t, text_is_escaped_once);
	tcase_add_test(t, characters_of_two_three_and_four_bytes_pass_as_they_are);
	tcase_add_test(t, bytes_that_are_not_utf8_are_refused_with_their_place);
	tcase_add_test(t, every_broken_character_of_three_bytes_is_refused_and_every_sound_one_passes);
	tcase_add_test(t, the_count_of_values_must_match);
	tcase_add_test(t, a_statement_holds_no_literal_text_no_comment_and_no_second_statement);
	tcase_add_test(t, a_statement_of_several_lines_is_one_line_in_the_log);
	tcase_add_test(t, a_negative_value_behind_a_minus_does_not_become_a_comment);
	tcase_add_test(t, a_record_takes_changes_only);
	tcase_add_test(t, a_refused_statement_leaves_the_record_as_it_was);
	tcase_add_test(t, a_record_has_an_upper_bound);
	tcase_add_test(t, a_record_is_as_long_as_may_be_and_not_a_byte_longer);
	tcase_add_test(t, what_a_record_cannot_keep_is_written_the_same_each_time);
	tcase_add_test(t, a_statement_seen_before_is_written_and_refused_as_the_first_time);
	tcase_add_test(t, another_statement_at_the_same_address_is_not_taken_for_the_one_before);
	tcase_add_test(t, keys_are_kept_once_and_written_without_separators);
	tcase_add_test(t, keys_have_bounds);
	tcase_add_test(t, the_request_stands_behind_the_begin_as_a_comment_that_ends_nowhere_else);
	tcase_add_test(t, a_cleared_record_is_as_new_and_keeps_its_memory);
	return suite_run("sqllog_build", t);
}
