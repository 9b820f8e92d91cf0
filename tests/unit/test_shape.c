/* Statements and their values: dbwriter/shape.h, splitting. */
#include "dbwriter/shape.h"
#include "tests/support/suite.h"
#include <check.h>
#include <string.h>

static struct split once, anew;

static struct shape *shape_of(const char *statement)
{
	ck_assert_msg(split_statement(&once, statement, strlen(statement)), "%s", statement);
	return shape_new(&once);
}

static bool is_like(const char *statement, const char *other)
{
	struct shape *s = shape_of(other);
	bool like = split_like(&once, s, statement, strlen(statement));
	shape_free(s);
	return like;
}

START_TEST(a_statement_with_other_values_is_like_one_seen_before)
{
	static const char role[] = "UPDATE role SET gold = gold - 5, name = 'a' WHERE id = 7";
	ck_assert(is_like("UPDATE role SET gold = gold - 61, name = '' WHERE id = -8", role));
	ck_assert_uint_eq(once.n, 3);
	ck_assert_int_eq(once.value[0].i, 61);
	ck_assert_uint_eq(once.value[1].s.n, 0);
	ck_assert_int_eq(once.value[2].i, -8);
	ck_assert(is_like("UPDATE role SET gold = gold - 0, name = 'it\\'s\\n' WHERE id = 9223372036854775807", role));
	ck_assert_mem_eq(once.value[1].s.p, "it's\n", 5);
	ck_assert(is_like("DELETE FROM bag WHERE role_id = -9223372036854775808", "DELETE FROM bag WHERE role_id = 1"));
	ck_assert_int_eq(once.value[0].i, INT64_MIN);
}
END_TEST

START_TEST(a_statement_with_other_words_or_types_is_not)
{
	static const char role[] = "UPDATE role SET gold = gold - 5 WHERE id = 7";
	static const char *const others[] = {
		"UPDATE role SET gold = gold + 5 WHERE id = 7",
		"UPDATE role SET gold = gold - 5 WHERE id = '7'",
		"UPDATE role SET gold = gold - 5.5 WHERE id = 7",
		"UPDATE role SET gold = gold - NULL WHERE id = 7",
		"UPDATE role SET gold = gold - 5 WHERE id = 7 + 1",
		"UPDATE role SET gold = gold - 5 WHERE id = 7x",
		"UPDATE role SET gold = gold - 5 WHERE id = ",
		"UPDATE role SET gold = gold - 5 WHERE id = 0x7",
		"UPDATE role SET gold = gold - 5",
		"UPDATE role SET gold = gold - 9223372036854775808",
	};
	for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
		ck_assert_msg(!is_like(others[i], role), "%s", others[i]);
	ck_assert(!is_like("UPDATE a SET b = -5", "UPDATE a SET b = --5")); /* the sign is the number's, or is not */
}
END_TEST

static unsigned draw(unsigned *state, unsigned below)
{
	*state = *state * 1664525u + 1013904223u;
	return (*state >> 8) % below;
}

/* Words, values and what may be taken for them, in any order. */
static size_t random_statement(unsigned *chance, char out[400])
{
	static const char *const parts[] = {
		"UPDATE ", "a",    " = ",   "5",     "-5",     "- 5",   "'x'", "'it\\'s'",
		"NULL",    "null", "x'00'", "1.5e3", "(",      ")",     ", ",  " ",
		"--",      "-",    "gold",  "0x1F",  "5a",     "''",    "1.",  ".5",
		"-0",      "+",    "a1 ",   "\\'",   "= -'b'", "'\\0'", "-1e", "99999999999999999999",
		"NULLS",
	};
	size_t n = 0;
	for (unsigned i = 1 + draw(chance, 9); i--;) {
		const char *part = parts[draw(chance, sizeof parts / sizeof *parts)];
		memcpy(out + n, part, strlen(part));
		n += strlen(part);
	}
	out[n] = '\0';
	return n;
}

static bool same_value(const struct value *a, const struct value *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type) {
	case VALUE_INT: return a->i == b->i;
	case VALUE_DOUBLE: return !memcmp(&a->d, &b->d, sizeof a->d);
	case VALUE_TEXT: return a->s.n == b->s.n && !memcmp(a->s.p, b->s.p, a->s.n);
	default: return true;
	}
}

START_TEST(what_is_taken_for_alike_splits_the_same_anew)
{
	unsigned chance = 1, alike = 0;
	for (unsigned round = 0; round < 300000; round++) {
		char a[400], b[400];
		size_t n = random_statement(&chance, a), like_n;
		if (!split_statement(&once, a, n))
			continue;
		struct shape *s = shape_new(&once);
		unsigned seed = chance;
		like_n = random_statement(&chance, b);
		if (draw(&seed, 3)) { /* the same, with a piece of another in its place */
			size_t at = draw(&seed, (unsigned)n);
			memcpy(b, a, at);
			like_n = at + (size_t)(stpcpy(b + at, draw(&seed, 2) ? "7" : "-") - (b + at));
			strcpy(b + like_n, a + at);
			like_n = strlen(b);
		}
		if (split_like(&once, s, b, like_n)) {
			alike++;
			ck_assert_msg(split_statement(&anew, b, like_n), "%s: taken for like %s", b, a);
			ck_assert_msg(anew.text.len == s->text_bytes && !memcmp(anew.text.data, s->text, s->text_bytes),
				      "%s: taken for like %s", b, a);
			ck_assert_uint_eq(anew.n, once.n);
			for (unsigned i = 0; i < anew.n; i++)
				ck_assert_msg(same_value(&once.value[i], &anew.value[i]), "%s: like %s: value %u", b, a,
					      i);
		}
		shape_free(s);
	}
	ck_assert_uint_gt(alike, 1000);
}
END_TEST

static void teardown(void)
{
	split_release(&once);
	split_release(&anew);
	once = anew = (struct split){ 0 };
}

int main(void)
{
	TCase *t = tcase_create("shape");
	tcase_add_checked_fixture(t, NULL, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_statement_with_other_values_is_like_one_seen_before);
	tcase_add_test(t, a_statement_with_other_words_or_types_is_not);
	tcase_add_test(t, what_is_taken_for_alike_splits_the_same_anew);
	return suite_run("shape", t);
}
