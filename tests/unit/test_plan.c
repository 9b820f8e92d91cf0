/* Which statements may change places or become one: dbwriter/plan.h. */
#include "dbwriter/plan.h"
#include "tests/support/suite.h"
#include <check.h>
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
};
/* table, index, column */
static const char *const unique[][3] = {
	{ "role", "PRIMARY", "id" },   { "seat", "PRIMARY", "id" }, { "seat", "by_role", "role" },
	{ "word", "PRIMARY", "word" }, { "rich", "PRIMARY", "id" }, { "done", "PRIMARY", "id" },
};

static void setup(void)
{
	static const char *const triggers[] = { "rich" };
	tables_begin(&tables);
	answer(0, columns[0], sizeof columns / sizeof *columns, 8);
	answer(1, unique[0], sizeof unique / sizeof *unique, 3);
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
	return suite_run("plan", t);
}
