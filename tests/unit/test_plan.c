/* Which statements may change places or become one: dbwriter/plan.h. */
#include "dbwriter/plan.h"
#include "tests/support/suite.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static struct tables tables;
static struct plan *plan;
static struct buf text;

static void answer(unsigned query, const char *const *cells, unsigned rows, unsigned columns)
{
	struct env_db_result r = { .rows = rows, .columns = columns, .cells = cells };
	tables_answer(&tables, query, &r);
}

/* table, column, type, as declared, nullable, characters, collation, extra */
static const char *const columns[][8] = {
	{ "role", "id", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "role", "gold", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "role", "debt", "int", "int(10) unsigned", "NO", NULL, NULL, "" },
	{ "role", "default", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "role", "luck", "int", "int(11)", "YES", NULL, NULL, "" },
	{ "role", "name", "varchar", "varchar(4)", "YES", "4", "utf8mb4_nopad_bin", "" },
	{ "seat", "id", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "seat", "role", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "word", "word", "char", "char(9)", "NO", "9", "utf8mb4_bin", "" },
	{ "word", "n", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "rich", "id", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "rich", "gold", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "done", "id", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "done", "seq", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "done", "answer", "mediumblob", "mediumblob", "NO", NULL, NULL, "" },
	{ "purse", "id", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "purse", "low", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "pad", "word", "varchar", "varchar(9)", "NO", "9", "utf8mb4_bin", "" },
	{ "pad", "n", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "deep", "a", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "deep", "b", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "deep", "c", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "deep", "d", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "deep", "e", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "deep", "n", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "note", "id", "bigint", "bigint(20)", "NO", NULL, NULL, "" },
	{ "note", "n", "int", "int(11)", "NO", NULL, NULL, "" },
	{ "note", "changed", "timestamp", "timestamp", "NO", NULL, NULL, "on update current_timestamp()" },
};
/* table, index, column */
static const char *const unique[][3] = {
	{ "role", "PRIMARY", "id" },   { "seat", "PRIMARY", "id" }, { "seat", "by_role", "role" },
	{ "word", "PRIMARY", "word" }, { "rich", "PRIMARY", "id" }, { "done", "PRIMARY", "id" },
	{ "purse", "PRIMARY", "id" },  { "note", "PRIMARY", "id" }, { "wide", "PRIMARY", "id" },
	{ "pad", "PRIMARY", "word" },  { "deep", "PRIMARY", "a" },  { "deep", "PRIMARY", "b" },
	{ "deep", "PRIMARY", "c" },    { "deep", "PRIMARY", "d" },  { "deep", "PRIMARY", "e" },
};
static const char *const checks[][2] = { { "purse", "CHECK" } };

/* A table of an id and ten numbers, c0 to c9. */
static void add_wide(void)
{
	const char *cells[8] = { "wide", "id", "int", "int(11)", "NO", NULL, NULL, "" };
	char name[8];
	answer(0, cells, 1, 8);
	for (unsigned i = 0; i < 10; i++) {
		snprintf(name, sizeof name, "c%u", i);
		cells[1] = name;
		answer(0, cells, 1, 8);
	}
}

static void setup(void)
{
	static const char *const triggers[] = { "rich" };
	tables_begin(&tables);
	answer(0, columns[0], sizeof columns / sizeof *columns, 8);
	add_wide();
	answer(1, unique[0], sizeof unique / sizeof *unique, 3);
	answer(2, checks[0], sizeof checks / sizeof *checks, 2);
	answer(3, triggers, 1, 1);
	tables_end(&tables);
	plan = plan_new();
	plan_begin(plan, &tables, true);
	buf_init(&text);
}

static void teardown(void)
{
	plan_free(plan);
	tables_release(&tables);
	buf_release(&text);
}

/* The plan as texts, in its order. */
static void gives(const char *statements, const char *expected)
{
	plan_add(plan, statements, strlen(statements));
	buf_clear(&text);
	for (unsigned i = 0; i < plan_groups(plan); i++) {
		const struct plan_group *g = plan_group(plan, i);
		if (g->shape)
			plan_text(g, 0, g->rows, &text);
		else
			buf_add(&text, g->text.data, g->text.len);
	}
	ck_assert_str_eq(buf_cstr(&text), expected);
}

START_TEST(the_last_value_of_a_column_is_enough)
{
	gives("UPDATE role SET name = 'a' WHERE id = 1;\nUPDATE role SET name = 'it\\'s' WHERE id = 1;\n",
	      "UPDATE role SET name = 'it\\'s' WHERE id = 1;\n");
	ck_assert_uint_eq(plan_figures(plan).folded, 1);
}
END_TEST

START_TEST(a_value_the_column_would_have_refused_is_not_dropped)
{
	gives("UPDATE role SET name = 'abcde' WHERE id = 1;\nUPDATE role SET name = 'b' WHERE id = 1;\n",
	      "UPDATE role SET name = 'abcde' WHERE id = 1;\nUPDATE role SET name = 'b' WHERE id = 1;\n");
	plan_begin(plan, &tables, true);
	gives("UPDATE role SET debt = -1 WHERE id = 1;\nUPDATE role SET debt = 1 WHERE id = 1;\n",
	      "UPDATE role SET debt = -1 WHERE id = 1;\nUPDATE role SET debt = 1 WHERE id = 1;\n");
}
END_TEST

START_TEST(steps_of_one_sign_are_added_up)
{
	gives("UPDATE role SET gold = gold - 5 WHERE id = 1;\nUPDATE role SET gold = gold - 7 WHERE id = 1;\n",
	      "UPDATE role SET gold = gold - 12 WHERE id = 1;\n");
}
END_TEST

START_TEST(steps_that_turn_or_overflow_are_not)
{
	gives("UPDATE role SET debt = debt + -5 WHERE id = 1;\nUPDATE role SET debt = debt + 7 WHERE id = 1;\n",
	      "UPDATE role SET debt = debt + -5 WHERE id = 1;\nUPDATE role SET debt = debt + 7 WHERE id = 1;\n");
	plan_begin(plan, &tables, true);
	gives("UPDATE role SET gold = gold + 9223372036854775807 WHERE id = 1;\nUPDATE role SET gold = gold + 1 WHERE id = 1;\n",
	      "UPDATE role SET gold = gold + 9223372036854775807 WHERE id = 1;\nUPDATE role SET gold = gold + 1 WHERE id = 1;\n");
}
END_TEST

START_TEST(a_relative_change_is_not_taken_for_an_absolute_one)
{
	gives("UPDATE role SET gold = 5 WHERE id = 1;\nUPDATE role SET gold = gold + 1 WHERE id = 1;\n"
	      "UPDATE role SET gold = 7 WHERE id = 1;\n",
	      "UPDATE role SET gold = 5 WHERE id = 1;\nUPDATE role SET gold = gold + 1 WHERE id = 1;\n"
	      "UPDATE role SET gold = 7 WHERE id = 1;\n");
}
END_TEST

START_TEST(other_rows_and_other_columns_may_be_overtaken)
{
	gives("UPDATE role SET gold = 5 WHERE id = 1;\nUPDATE role SET name = 'a' WHERE id = 1;\n"
	      "UPDATE role SET gold = 6 WHERE id = 2;\nUPDATE role SET gold = 7 WHERE id = 1;\n",
	      "UPDATE role SET gold = 7 WHERE id = 1;\nUPDATE role SET gold = 6 WHERE id = 2;\n"
	      "UPDATE role SET name = 'a' WHERE id = 1;\n");
}
END_TEST

START_TEST(where_a_second_unique_key_may_be_met_the_order_stays)
{
	static const char sql[] = "INSERT INTO seat (id, role) VALUES (1, 5);\nDELETE FROM seat WHERE id = 1;\n"
				  "INSERT INTO seat (id, role) VALUES (2, 5);\n";
	gives(sql, sql);
}
END_TEST

START_TEST(what_a_trigger_sees_and_what_is_not_understood_stays_in_its_place)
{
	static const char sql[] =
		"UPDATE rich SET gold = 1 WHERE id = 1;\nUPDATE role SET gold = 1 WHERE id = 1;\n"
		"UPDATE role SET gold = GREATEST(gold, 2) WHERE id = 1;\nUPDATE role SET gold = 3 WHERE id = 1;\n"
		"UPDATE nothing SET a = 1 WHERE id = 1;\nUPDATE role SET gold = 4 WHERE id = 1;\n"
		"UPDATE forum.role SET gold = 1 WHERE id = 1;\nUPDATE role SET gold = 5 WHERE id = 1;\n"
		"DELETE FROM `forum`.`role` WHERE id = 1;\nUPDATE role SET gold = 6 WHERE id = 1;\n";
	gives(sql, sql);
}
END_TEST

START_TEST(a_text_that_ends_in_a_space_may_be_the_same_row)
{
	static const char sql[] =
		"INSERT INTO word (word, n) VALUES ('a', 1);\nUPDATE word SET n = 2 WHERE word = 'a ';\n"
		"DELETE FROM word WHERE word = 'a';\n";
	gives(sql, sql);
}
END_TEST

START_TEST(where_spaces_at_the_end_do_not_count_no_row_is_named_by_them)
{
	static const char sql[] = "UPDATE pad SET n = 1 WHERE word = 'b';\nINSERT INTO pad (word, n) VALUES ('a', 1);\n"
				  "UPDATE pad SET n = 2 WHERE word = 'a ';\n";
	gives(sql, sql);
}
END_TEST

START_TEST(a_row_stands_once_in_a_statement_for_many)
{
	plan_begin(plan, &tables, false);
	gives("UPDATE role SET gold = 1 WHERE id = 1;\nUPDATE role SET gold = 2 WHERE id = 1;\nUPDATE role SET gold = 3 WHERE id = 2;\n",
	      "UPDATE role SET gold = 1 WHERE id = 1;\nUPDATE role SET gold = 3 WHERE id = 2;\nUPDATE role SET gold = 2 WHERE id = 1;\n");
	buf_clear(&text);
	plan_join(plan_group(plan, 0), 0, 2, &text);
	ck_assert_str_eq(
		buf_cstr(&text),
		"UPDATE JSON_TABLE('[[1,1],[3,2]]', '$[*]' COLUMNS (p0 BIGINT PATH '$[0]', p1 BIGINT PATH '$[1]')) "
		"AS v STRAIGHT_JOIN role ON role.id = v.p1 SET role.gold = v.p0;\n");
}
END_TEST

START_TEST(what_is_worked_out_from_its_own_row_is_gathered_in_its_order_and_never_folded)
{
	static const char work[] = "UPDATE role SET gold = (gold * 31 + %d) %% 1009, debt = debt + 1 WHERE id = %d;\n";
	char given[1000], expected[1000];
	int n = snprintf(given, sizeof given, work, 5, 1);
	n += snprintf(given + n, sizeof given - (size_t)n, "UPDATE role SET gold = 3 WHERE id = 2;\n");
	n += snprintf(given + n, sizeof given - (size_t)n, work, 6, 2);
	n += snprintf(given + n, sizeof given - (size_t)n, "UPDATE role SET gold = 4 WHERE id = 2;\n");
	snprintf(given + n, sizeof given - (size_t)n, work, -7, 3);
	n = snprintf(expected, sizeof expected, work, 5, 1);
	n += snprintf(expected + n, sizeof expected - (size_t)n, work, -7, 3);
	n += snprintf(expected + n, sizeof expected - (size_t)n, "UPDATE role SET gold = 3 WHERE id = 2;\n");
	n += snprintf(expected + n, sizeof expected - (size_t)n, work, 6, 2);
	snprintf(expected + n, sizeof expected - (size_t)n, "UPDATE role SET gold = 4 WHERE id = 2;\n");
	gives(given, expected);
	ck_assert_uint_eq(plan_groups(plan), 4);
	plan_begin(plan, &tables, true);
	gives("UPDATE role SET gold = gold * 2 WHERE id = 1;\nUPDATE role SET gold = gold * 2 WHERE id = 1;\n",
	      "UPDATE role SET gold = gold * 2 WHERE id = 1;\nUPDATE role SET gold = gold * 2 WHERE id = 1;\n");
	ck_assert_uint_eq(plan_figures(plan).folded, 0);
}
END_TEST

START_TEST(what_is_worked_out_is_joined_by_the_names_of_its_table)
{
	plan_add(plan, "UPDATE role SET gold = 7 - (gold * 31 + debt) % 9 WHERE id = 4;\n", 64);
	plan_join(plan_group(plan, 0), 0, 1, &text);
	ck_assert_str_eq(
		buf_cstr(&text),
		"UPDATE JSON_TABLE('[[7,31,9,4]]', '$[*]' COLUMNS (p0 BIGINT PATH '$[0]', p1 BIGINT PATH '$[1]', "
		"p2 BIGINT PATH '$[2]', p3 BIGINT PATH '$[3]')) AS v STRAIGHT_JOIN role ON role.id = v.p3 "
		"SET role.gold = v.p0 - (role.gold * v.p1 + role.debt) % v.p2;\n");
}
END_TEST

/* Each stands as text, so that what is before and behind it stays there. */
START_TEST(what_another_assignment_a_null_or_a_zero_decides_is_not_worked_out)
{
	static const char *const left[] = {
		"UPDATE role SET debt = 2, gold = gold + debt * 2 WHERE id = 1",
		"UPDATE role SET gold = gold % 0 WHERE id = 1",
		"UPDATE role SET gold = gold % debt WHERE id = 1",
		"UPDATE role SET gold = default WHERE id = 1",
		"UPDATE role SET gold = gold + default * 2 WHERE id = 1",
		"UPDATE role SET gold = gold % (debt + 1) WHERE id = 1",
		"UPDATE role SET gold = gold * -9223372036854775808 WHERE id = 1",
		"UPDATE role SET gold = gold * 1.5 WHERE id = 1",
		"UPDATE role SET gold = gold * 2 / 2 WHERE id = 1",
		"UPDATE role SET gold = gold + name * 2 WHERE id = 1",
		"UPDATE role SET gold = gold * (SELECT 2) WHERE id = 1",
		"UPDATE role SET gold = gold * seat.id WHERE id = 1",
		"UPDATE role SET gold = gold * (2 WHERE id = 1",
		"UPDATE role SET gold = (((((((((gold))))))))) * 2 WHERE id = 1",
		"UPDATE role SET name = gold * 2 WHERE id = 1",
		"UPDATE role SET gold = gold + luck * 2 WHERE id = 1",
		"UPDATE role SET gold = 1, gold = gold + 1 WHERE id = 1",
		"UPDATE role SET gold = 9223372036854775808 WHERE id = 1",
		"UPDATE deep SET n = 1 WHERE a = 1 AND b = 1 AND c = 1 AND d = 1",
		"INSERT INTO word (word, n) VALUES ('a', 2) ON DUPLICATE KEY UPDATE n = n * 2",
	};
	for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
		plan_begin(plan, &tables, true);
		plan_add(plan, left[i], strlen(left[i]));
		ck_assert_msg(plan_groups(plan) == 1 && !plan_group(plan, 0)->shape, "%s", left[i]);
	}
}
END_TEST

START_TEST(an_upsert_takes_in_another_for_the_row_that_is_there_and_for_the_one_that_is_not)
{
	gives("INSERT INTO word (word, n) VALUES ('a', 2) ON DUPLICATE KEY UPDATE n = n + 2;\n"
	      "INSERT INTO word (word, n) VALUES ('a', 3) ON DUPLICATE KEY UPDATE n = n + 3;\n",
	      "INSERT INTO word (word, n) VALUES ('a', 5) ON DUPLICATE KEY UPDATE n = n + 5;\n");
}
END_TEST

START_TEST(answers_of_once_calls_are_gathered_and_what_deletes_them_stays_among_them_alone)
{
	gives("UPDATE role SET gold = 5 WHERE id = 1;\n"
	      "INSERT INTO done (id, seq, answer) VALUES (1, 1, x'00ff');\n"
	      "UPDATE role SET gold = 6 WHERE id = 2;\n"
	      "INSERT INTO done (id, seq, answer) VALUES (2, 2, x'');\n"
	      "DELETE FROM done WHERE seq < 2;\n"
	      "UPDATE role SET gold = 7 WHERE id = 1;\n"
	      "INSERT INTO done (id, seq, answer) VALUES (1, 3, x'0a');\n",
	      "UPDATE role SET gold = 7 WHERE id = 1;\nUPDATE role SET gold = 6 WHERE id = 2;\n"
	      "INSERT INTO done (id, seq, answer) VALUES (1, 1, x'00ff'),(2, 2, x'');\n"
	      "DELETE FROM done WHERE seq < 2;\n"
	      "INSERT INTO done (id, seq, answer) VALUES (1, 3, x'0a');\n");
}
END_TEST

START_TEST(bytes_that_are_no_blob_stay_in_their_place)
{
	static const char *const odd[] = { "x'0'", "x'0g'", "X'00'", "x'00''11'" };
	for (unsigned i = 0; i < sizeof odd / sizeof *odd; i++) {
		char statement[100];
		snprintf(statement, sizeof statement, "INSERT INTO done (id, seq, answer) VALUES (1, 1, %s);\n",
			 odd[i]);
		plan_begin(plan, &tables, true);
		gives(statement, statement);
		ck_assert(!plan_group(plan, 0)->shape);
	}
	plan_begin(plan, &tables, true); /* a number as bytes means something else to a column of numbers */
	gives("UPDATE role SET gold = x'01' WHERE id = 1;\n", "UPDATE role SET gold = x'01' WHERE id = 1;\n");
	ck_assert(!plan_group(plan, 0)->shape);
}
END_TEST

/* It neither leaves its place nor becomes one with another. */
static void stays(const char *sql)
{
	plan_begin(plan, &tables, true);
	gives(sql, sql);
	ck_assert_uint_eq(plan_figures(plan).folded, 0);
}

START_TEST(a_row_that_goes_or_gets_another_key_keeps_what_was_before_and_what_is_behind_it_apart)
{
	stays("UPDATE role SET gold = 1 WHERE id = 1;\nUPDATE role SET id = 2 WHERE id = 1;\n"
	      "UPDATE role SET gold = 3 WHERE id = 2;\nUPDATE role SET id = 1 WHERE id = 2;\n"
	      "UPDATE role SET gold = 4 WHERE id = 1;\n");
	stays("UPDATE role SET gold = 1 WHERE id = 1;\nDELETE FROM role WHERE id = 1;\n"
	      "INSERT INTO role (id, gold) VALUES (1, 5);\nUPDATE role SET gold = 2 WHERE id = 1;\n");
	stays("UPDATE role SET gold = 1 WHERE id = 1;\nDELETE FROM role WHERE debt < 5;\n"
	      "UPDATE role SET gold = 2 WHERE id = 1;\n");
}
END_TEST

START_TEST(a_text_as_long_as_its_column_in_characters_is_dropped_and_so_is_null_where_it_may_stand)
{
	gives("UPDATE role SET name = '\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f' WHERE id = 1;\n"
	      "UPDATE role SET name = 'a' WHERE id = 1;\n",
	      "UPDATE role SET name = 'a' WHERE id = 1;\n");
	plan_begin(plan, &tables, true);
	gives("UPDATE role SET luck = NULL WHERE id = 1;\nUPDATE role SET luck = NULL WHERE id = 1;\n",
	      "UPDATE role SET luck = NULL WHERE id = 1;\n");
	stays("UPDATE role SET gold = NULL WHERE id = 1;\nUPDATE role SET gold = NULL WHERE id = 1;\n");
}
END_TEST

START_TEST(a_zero_that_is_bound_has_no_sign)
{
	static const char sql[] = "UPDATE mark SET x = -0.0 WHERE id = 1;\n";
	const char *const cells[][8] = { { "mark", "id", "int", "int(11)", "NO", NULL, NULL, "" },
					 { "mark", "x", "double", "double", "NO", NULL, NULL, "" } };
	const char *const key[] = { "mark", "PRIMARY", "id" };
	struct env_db_bind column[SHAPE_VALUES_MAX];
	answer(0, cells[0], 2, 8);
	answer(1, key, 1, 3);
	tables_end(&tables);
	plan_begin(plan, &tables, true);
	plan_add(plan, sql, sizeof sql - 1);
	plan_bind(plan_group(plan, 0), 0, column);
	ck_assert_int_eq(column[0].type, ENV_BIND_DOUBLE);
	ck_assert(!signbit(column[0].d[0]));
}
END_TEST

START_TEST(each_change_counts_where_a_check_or_the_row_itself_sees_it)
{
	stays("UPDATE purse SET low = 1 WHERE id = 1;\nUPDATE purse SET low = 2 WHERE id = 1;\n");
	stays("UPDATE note SET n = 1 WHERE id = 1;\nUPDATE note SET n = 2 WHERE id = 1;\n");
	stays("UPDATE role SET gold = 1 WHERE id = 1 AND debt = 0;\nUPDATE role SET gold = 2 WHERE id = 1 AND debt = 0;\n");
}
END_TEST

START_TEST(what_an_upsert_would_lose_is_not_taken_in)
{
	/* bytes, for nobody knows how many the column takes */
	stays("UPDATE done SET answer = x'00' WHERE id = 1;\nUPDATE done SET answer = x'01' WHERE id = 1;\n");
	/* a value of the second that its column refuses */
	stays("INSERT INTO word (word, n) VALUES ('a', 2) ON DUPLICATE KEY UPDATE n = 2;\n"
	      "INSERT INTO word (word, n) VALUES ('a', 99999999999) ON DUPLICATE KEY UPDATE n = 3;\n");
	/* a column that only the row that is there gets */
	stays("INSERT INTO role (id, gold) VALUES (1, 1) ON DUPLICATE KEY UPDATE debt = 2;\n"
	      "INSERT INTO role (id, gold) VALUES (1, 1) ON DUPLICATE KEY UPDATE debt = 3;\n");
	/* a first value of another type than what takes its place */
	stays("INSERT INTO role (id, name) VALUES (1, NULL) ON DUPLICATE KEY UPDATE name = 'a';\n"
	      "INSERT INTO role (id, name) VALUES (1, NULL) ON DUPLICATE KEY UPDATE name = 'b';\n");
}
END_TEST

START_TEST(what_an_upsert_takes_in_is_right_for_the_row_that_is_not_there)
{
	gives("INSERT INTO word (word, n) VALUES ('a', 10) ON DUPLICATE KEY UPDATE n = n - 3;\n"
	      "INSERT INTO word (word, n) VALUES ('a', 20) ON DUPLICATE KEY UPDATE n = n - 4;\n",
	      "INSERT INTO word (word, n) VALUES ('a', 6) ON DUPLICATE KEY UPDATE n = n - 7;\n");
	plan_begin(plan, &tables, true);
	gives("INSERT INTO role (id, name) VALUES (1, 'a') ON DUPLICATE KEY UPDATE name = 'b';\n"
	      "INSERT INTO role (id, name) VALUES (1, 'c') ON DUPLICATE KEY UPDATE name = 'it\\'s';\n",
	      "INSERT INTO role (id, name) VALUES (1, 'it\\'s') ON DUPLICATE KEY UPDATE name = 'it\\'s';\n");
}
END_TEST

START_TEST(what_may_be_any_row_comes_behind_all_that_was_placed_however_far_in_front)
{
	gives("UPDATE word SET n = 1 WHERE word = 'a ';\nINSERT INTO word (word, n) VALUES ('b', 1);\n"
	      "UPDATE word SET n = 2 WHERE word = 'c';\nUPDATE word SET n = 3 WHERE word = 'b ';\n",
	      "UPDATE word SET n = 1 WHERE word = 'a ';\nUPDATE word SET n = 2 WHERE word = 'c';\n"
	      "INSERT INTO word (word, n) VALUES ('b', 1);\nUPDATE word SET n = 3 WHERE word = 'b ';\n");
}
END_TEST

START_TEST(what_meets_two_columns_comes_behind_both_of_their_changes)
{
	gives("UPDATE role SET gold = 1 WHERE id = 9;\nUPDATE role SET gold = 1, name = 'a' WHERE id = 8;\n"
	      "UPDATE role SET name = 'b' WHERE id = 7;\nUPDATE role SET name = 'c' WHERE id = 1;\n"
	      "UPDATE role SET gold = 5 WHERE id = 1;\nUPDATE role SET gold = 6, name = 'd' WHERE id = 1;\n",
	      "UPDATE role SET gold = 1 WHERE id = 9;\nUPDATE role SET gold = 5 WHERE id = 1;\n"
	      "UPDATE role SET gold = 1, name = 'a' WHERE id = 8;\nUPDATE role SET name = 'b' WHERE id = 7;\n"
	      "UPDATE role SET name = 'c' WHERE id = 1;\nUPDATE role SET gold = 6, name = 'd' WHERE id = 1;\n");
}
END_TEST

START_TEST(a_row_stands_once_in_a_statement_for_many_however_many_changes_lie_between)
{
	plan_begin(plan, &tables, false);
	for (unsigned i = 0; i < 20; i++) { /* row 9: c0 in the last group; row 1: c0 first, then those before it */
		char sql[80];
		int n = snprintf(sql, sizeof sql, "UPDATE wide SET c%u = 1 WHERE id = %u;\n",
				 i < 10 ? (i + 1) % 10 : i - 10, i < 10 ? 9 : 1);
		plan_add(plan, sql, (size_t)n);
	}
	unsigned groups = plan_groups(plan);
	static const char again[] = "UPDATE wide SET c0 = 2 WHERE id = 1;\n";
	plan_add(plan, again, sizeof again - 1);
	ck_assert_uint_eq(plan_groups(plan), groups + 1);
}
END_TEST

START_TEST(thousands_of_rows_are_found_again)
{
	enum { ROWS = 5000 };
	for (unsigned i = 0; i < 2 * ROWS; i++) {
		char sql[80];
		int n = snprintf(sql, sizeof sql, "UPDATE role SET gold = %u WHERE id = %u;\n", i, i % ROWS);
		plan_add(plan, sql, (size_t)n);
	}
	ck_assert_uint_eq(plan_figures(plan).folded, ROWS);
	ck_assert_uint_eq(plan_group(plan, 0)->rows, ROWS);
}
END_TEST

START_TEST(rows_stand_in_the_order_of_their_keys_and_those_of_one_row_in_their_own)
{
	static const int ids[] = { 7, -3, 300, 1, -400, 0, 65536, 2 };
	struct buf sql = BUF_INIT;
	for (unsigned i = 0; i < 16; i++)
		buf_addf(&sql, "UPDATE role SET name = '%c' WHERE id = %d;\n", 'a' + (int)i, ids[i % 8]);
	plan_begin(plan, &tables, false);
	plan_add(plan, sql.data, sql.len);
	plan_end(plan);
	ck_assert_uint_eq(plan_groups(plan), 1);
	gives("", "UPDATE role SET name = 'e' WHERE id = -400;\nUPDATE role SET name = 'm' WHERE id = -400;\n"
		  "UPDATE role SET name = 'b' WHERE id = -3;\nUPDATE role SET name = 'j' WHERE id = -3;\n"
		  "UPDATE role SET name = 'f' WHERE id = 0;\nUPDATE role SET name = 'n' WHERE id = 0;\n"
		  "UPDATE role SET name = 'd' WHERE id = 1;\nUPDATE role SET name = 'l' WHERE id = 1;\n"
		  "UPDATE role SET name = 'h' WHERE id = 2;\nUPDATE role SET name = 'p' WHERE id = 2;\n"
		  "UPDATE role SET name = 'a' WHERE id = 7;\nUPDATE role SET name = 'i' WHERE id = 7;\n"
		  "UPDATE role SET name = 'c' WHERE id = 300;\nUPDATE role SET name = 'k' WHERE id = 300;\n"
		  "UPDATE role SET name = 'g' WHERE id = 65536;\nUPDATE role SET name = 'o' WHERE id = 65536;\n");
	buf_release(&sql);
}
END_TEST

START_TEST(a_slice_has_a_row_at_least_and_is_bound_from_its_first_one)
{
	static const char sql[] =
		"UPDATE role SET name = 'a' WHERE id = 1;\nUPDATE role SET name = 'bcd' WHERE id = 2;\n"
		"UPDATE role SET name = 'ef' WHERE id = 3;\n";
	struct env_db_bind column[SHAPE_VALUES_MAX];
	plan_add(plan, sql, sizeof sql - 1);
	const struct plan_group *g = plan_group(plan, 0);
	ck_assert_uint_eq(plan_slice(g, 0, 10, 1), 1);
	ck_assert_uint_eq(plan_slice(g, 1, 10, 1), 1);
	ck_assert_uint_eq(plan_slice(g, 0, 10, 2 * 18 + 1 + 3), 2);
	ck_assert_uint_eq(plan_slice(g, 0, 2, 1000), 2);
	ck_assert_uint_eq(plan_slice(g, 1, 10, 1000), 2);
	plan_bind(g, 1, column);
	ck_assert_int_eq(column[0].type, ENV_BIND_TEXT);
	ck_assert_uint_eq(column[0].bytes[0], 3);
	ck_assert_mem_eq(column[0].text[0], "bcd", 3);
	ck_assert_int_eq(column[1].type, ENV_BIND_INT);
	ck_assert_int_eq(column[1].i[0], 2);
}
END_TEST

START_TEST(statements_that_cannot_be_gathered_fill_a_plan)
{
	static const char two[] =
		"UPDATE role SET gold = gold * 2 WHERE id = 1;\nUPDATE role SET gold = 5 WHERE id = 1;\n";
	static const char one[] = "UPDATE role SET gold = 5 WHERE id = 1;\n";
	for (unsigned i = 0; i < 10 * PLAN_GROUPS_MAX; i++)
		plan_add(plan, one, sizeof one - 1);
	ck_assert(!plan_full(plan)); /* however many: these are one */
	unsigned records = 0;
	for (; !plan_full(plan) && records <= PLAN_GROUPS_MAX; records++)
		plan_add(plan, two, sizeof two - 1);
	ck_assert_uint_ge(plan_groups(plan), PLAN_GROUPS_MAX);
	ck_assert_uint_le(plan_groups(plan), PLAN_GROUPS_MAX + 1);
	ck_assert_uint_ge(records, PLAN_GROUPS_MAX / 2 - 1);
	plan_begin(plan, &tables, true);
	ck_assert(!plan_full(plan));
}
END_TEST

START_TEST(one_record_makes_no_more_groups_than_a_plan_may_have)
{
	enum { STATEMENTS = 25000 };
	struct buf record = BUF_INIT;
	for (unsigned i = 0; i < STATEMENTS; i++)
		buf_addf(&record, "UPDATE role SET gold = gold * 3 + %u WHERE id = 7;\n", i);
	buf_addstr(&record, "UPDATE role SET gold = 1 WHERE id = 8;\nDELETE FROM word WHERE n < 2;\n");
	gives(buf_cstr(&record), buf_cstr(&record)); /* in its order, to the last */
	ck_assert(plan_full(plan));
	ck_assert_uint_eq(plan_groups(plan), PLAN_GROUPS_MAX + 1);
	ck_assert_ptr_null(plan_group(plan, PLAN_GROUPS_MAX)->shape);
	ck_assert_uint_eq(plan_figures(plan).statements, STATEMENTS + 2);
	plan_begin(plan, &tables, true);
	gives("UPDATE role SET gold = 2 WHERE id = 7;\nUPDATE role SET gold = 3 WHERE id = 7;\n",
	      "UPDATE role SET gold = 3 WHERE id = 7;\n");
	buf_release(&record);
}
END_TEST

START_TEST(what_has_its_group_is_gathered_when_a_plan_is_full)
{
	struct buf record = BUF_INIT;
	for (unsigned i = 0; i < PLAN_GROUPS_MAX; i++)
		buf_addstr(&record, "UPDATE role SET gold = gold * 3 WHERE id = 7;\n");
	plan_add(plan, record.data, record.len);
	ck_assert(plan_full(plan));
	unsigned groups = plan_groups(plan);
	const char more[] = "UPDATE role SET gold = gold * 3 WHERE id = 8;\n";
	plan_add(plan, more, sizeof more - 1);
	ck_assert_uint_eq(plan_groups(plan), groups);
	buf_release(&record);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("plan");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, answers_of_once_calls_are_gathered_and_what_deletes_them_stays_among_them_alone);
	tcase_add_test(t, bytes_that_are_no_blob_stay_in_their_place);
	tcase_add_test(t, statements_that_cannot_be_gathered_fill_a_plan);
	tcase_add_test(t, one_record_makes_no_more_groups_than_a_plan_may_have);
	tcase_add_test(t, what_has_its_group_is_gathered_when_a_plan_is_full);
	tcase_add_test(t, the_last_value_of_a_column_is_enough);
	tcase_add_test(t, a_value_the_column_would_have_refused_is_not_dropped);
	tcase_add_test(t, steps_of_one_sign_are_added_up);
	tcase_add_test(t, steps_that_turn_or_overflow_are_not);
	tcase_add_test(t, a_relative_change_is_not_taken_for_an_absolute_one);
	tcase_add_test(t, other_rows_and_other_columns_may_be_overtaken);
	tcase_add_test(t, where_a_second_unique_key_may_be_met_the_order_stays);
	tcase_add_test(t, what_a_trigger_sees_and_what_is_not_understood_stays_in_its_place);
	tcase_add_test(t, a_text_that_ends_in_a_space_may_be_the_same_row);
	tcase_add_test(t, a_row_stands_once_in_a_statement_for_many);
	tcase_add_test(t, what_is_worked_out_from_its_own_row_is_gathered_in_its_order_and_never_folded);
	tcase_add_test(t, what_is_worked_out_is_joined_by_the_names_of_its_table);
	tcase_add_test(t, what_another_assignment_a_null_or_a_zero_decides_is_not_worked_out);
	tcase_add_test(t, an_upsert_takes_in_another_for_the_row_that_is_there_and_for_the_one_that_is_not);
	tcase_add_test(t, a_row_that_goes_or_gets_another_key_keeps_what_was_before_and_what_is_behind_it_apart);
	tcase_add_test(t, each_change_counts_where_a_check_or_the_row_itself_sees_it);
	tcase_add_test(t, what_an_upsert_would_lose_is_not_taken_in);
	tcase_add_test(t, what_an_upsert_takes_in_is_right_for_the_row_that_is_not_there);
	tcase_add_test(t, what_may_be_any_row_comes_behind_all_that_was_placed_however_far_in_front);
	tcase_add_test(t, what_meets_two_columns_comes_behind_both_of_their_changes);
	tcase_add_test(t, a_row_stands_once_in_a_statement_for_many_however_many_changes_lie_between);
	tcase_add_test(t, thousands_of_rows_are_found_again);
	tcase_add_test(t, rows_stand_in_the_order_of_their_keys_and_those_of_one_row_in_their_own);
	tcase_add_test(t, a_slice_has_a_row_at_least_and_is_bound_from_its_first_one);
	tcase_add_test(t, a_text_as_long_as_its_column_in_characters_is_dropped_and_so_is_null_where_it_may_stand);
	tcase_add_test(t, a_zero_that_is_bound_has_no_sign);
	tcase_add_test(t, where_spaces_at_the_end_do_not_count_no_row_is_named_by_them);
	return suite_run("plan", t);
}
