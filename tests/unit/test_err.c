/* The promises of common/err.h. */
#include <check.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/suite.h"

START_TEST(every_error_has_its_own_number_and_its_own_word)
{
#define X(sym, num, word, http, shown, text)              \
	ck_assert_int_eq(ERR_##sym, -(num));              \
	ck_assert_str_eq(err_word(ERR_##sym), word);      \
	ck_assert_int_eq(err_from_word(word), ERR_##sym); \
	ck_assert_int_eq(err_http(ERR_##sym), http);      \
	ck_assert_str_eq(err_text(ERR_##sym), text);
	ERR_TABLE(X)
#undef X
}
END_TEST

START_TEST(callers_elsewhere_see_only_the_eight_public_errors)
{
#define X(sym, num, word, http, shown, text)                  \
	ck_assert_int_ge(err_public(ERR_##sym), ERR_UNKNOWN); \
	ck_assert_int_le(err_public(ERR_##sym), ERR_TIMEOUT); \
	if ((num) <= 8)                                       \
		ck_assert_int_eq(err_public(ERR_##sym), ERR_##sym);
	ERR_TABLE(X)
#undef X
}
END_TEST

START_TEST(success_is_no_error)
{
	ck_assert_str_eq(err_word(0), "ok");
	ck_assert_str_eq(err_word(17), "ok");
	ck_assert_int_eq(err_http(3), 200);
	ck_assert_int_eq(err_public(3), 0);
}
END_TEST

START_TEST(a_number_nobody_knows_is_a_failure_and_a_word_nobody_knows_is_none)
{
	ck_assert_str_eq(err_word(-999), "failed");
	ck_assert_int_eq(err_http(-999), 500);
	ck_assert_int_eq(err_public(-999), ERR_FAILED);
	ck_assert_int_eq(err_from_word("no such word"), 0);
}
END_TEST

START_TEST(what_is_known_of_an_effect_has_a_word)
{
	ck_assert_str_eq(effect_word(EFFECT_NONE), "none");
	ck_assert_str_eq(effect_word(EFFECT_DONE), "done");
	ck_assert_str_eq(effect_word(EFFECT_UNKNOWN), "unknown");
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("err");
	tcase_add_test(t, every_error_has_its_own_number_and_its_own_word);
	tcase_add_test(t, callers_elsewhere_see_only_the_eight_public_errors);
	tcase_add_test(t, success_is_no_error);
	tcase_add_test(t, a_number_nobody_knows_is_a_failure_and_a_word_nobody_knows_is_none);
	tcase_add_test(t, what_is_known_of_an_effect_has_a_word);
	return suite_run("err", t);
}
