/* The promises of rpc/rests.h. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/rests.h"
#include "tests/support/suite.h"

enum { BUDGET = 100, NOW = 1000 };
static struct rests *r;

static void setup(void)
{
	r = calloc(1, sizeof *r);
}

static void teardown(void)
{
	free(r);
}

static struct span name(const char *text)
{
	return span_of(text, strlen(text));
}

static uint64_t held(const char *who, uint32_t ms, uint64_t now_ms)
{
	return rests_held(r, name(who), ms, BUDGET, now_ms);
}

static uint32_t budget(const char *who, uint64_t now_ms)
{
	return rests_budget_ms(r, name(who), BUDGET, now_ms);
}

static bool rests(const char *who, uint64_t now_ms)
{
	return rests_now(r, name(who), now_ms);
}

START_TEST(who_has_done_nothing_has_the_whole_budget)
{
	ck_assert(rests_none(r, 0));
	ck_assert_uint_eq(budget("ann", NOW), BUDGET);
	ck_assert(!rests("ann", NOW));
}
END_TEST

START_TEST(a_budget_in_all_makes_it_smaller_and_each_time_after_that_is_rested_for)
{
	ck_assert_uint_eq(held("ann", 60, NOW), 0);
	ck_assert_uint_eq(budget("ann", NOW), BUDGET);
	ck_assert_uint_eq(held("ann", 40, NOW), 0);
	ck_assert_uint_eq(budget("ann", NOW), BUDGET / RESTS_PART);
	ck_assert(!rests("ann", NOW));
	ck_assert_uint_eq(held("ann", 20, NOW), 20 + 20 * RESTS_TIMES);
	ck_assert(rests("ann", NOW + 20 + 20 * RESTS_TIMES - 1));
	ck_assert(!rests("ann", NOW + 20 + 20 * RESTS_TIMES));
	ck_assert(!rests("bob", NOW));
	ck_assert_uint_eq(budget("bob", NOW), BUDGET);
}
END_TEST

START_TEST(a_later_short_hold_makes_no_rest_shorter)
{
	held("ann", BUDGET, NOW);
	ck_assert_uint_eq(held("ann", 200, NOW), 200 + 200 * RESTS_TIMES);
	held("ann", 1, NOW + 10); /* the same request, when it has waited a moment */
	ck_assert(rests("ann", NOW + 100 * RESTS_TIMES));
}
END_TEST

START_TEST(a_rest_has_a_bound)
{
	held("ann", BUDGET, NOW);
	ck_assert_uint_eq(held("ann", 5000, NOW), 5000 + RESTS_MS_MAX);
	ck_assert(rests("ann", NOW + 5000 + RESTS_MS_MAX - 1)); /* longer than anything else is remembered */
	ck_assert(rests_none(r, NOW + 5000 + RESTS_MS_MAX));
}
END_TEST

START_TEST(what_somebody_did_is_forgotten_after_a_while_and_not_before)
{
	held("ann", BUDGET, NOW);
	ck_assert_uint_eq(budget("ann", NOW + RESTS_MS_MAX - 1), BUDGET / RESTS_PART);
	held("bob", 1, NOW + 1);
	ck_assert_uint_eq(budget("ann", NOW + RESTS_MS_MAX), BUDGET);
	ck_assert(!rests_none(r, NOW + RESTS_MS_MAX));
	ck_assert_uint_eq(held("ann", BUDGET - 1, NOW + RESTS_MS_MAX), 0); /* from the beginning */
	ck_assert_uint_eq(budget("ann", NOW + RESTS_MS_MAX), BUDGET);
}
END_TEST

START_TEST(who_does_it_again_after_it_was_forgotten_is_known_again)
{
	const uint64_t later = NOW + RESTS_MS_MAX;

	held("ann", BUDGET, NOW);
	held("ann", BUDGET, later);
	ck_assert_uint_eq(budget("ann", later), BUDGET / RESTS_PART);
	ck_assert_uint_gt(held("ann", 20, later), 0);
	ck_assert(rests("ann", later));
}
END_TEST

START_TEST(the_sum_does_not_wrap_round)
{
	held("ann", UINT32_MAX, NOW);
	held("ann", 2, NOW);
	ck_assert_uint_eq(budget("ann", NOW), BUDGET / RESTS_PART);
}
END_TEST

START_TEST(a_name_may_be_as_long_as_said_and_hold_any_byte)
{
	char a[RESTS_NAME_MAX] = { 0 }, b[RESTS_NAME_MAX] = { 0 };

	b[RESTS_NAME_MAX - 1] = 1;
	rests_held(r, span_of(a, sizeof a), BUDGET, BUDGET, NOW);
	ck_assert_uint_eq(rests_budget_ms(r, span_of(a, sizeof a), BUDGET, NOW), BUDGET / RESTS_PART);
	ck_assert_uint_eq(rests_budget_ms(r, span_of(b, sizeof b), BUDGET, NOW), BUDGET);
	ck_assert_uint_eq(rests_budget_ms(r, span_of(a, sizeof a - 1), BUDGET, NOW), BUDGET);
}
END_TEST

static unsigned remembered(unsigned from, unsigned to, uint64_t now_ms)
{
	char who[20];
	unsigned n = 0;

	for (unsigned i = from; i < to; i++) {
		snprintf(who, sizeof who, "p%u", i);
		n += budget(who, now_ms) < BUDGET;
	}
	return n;
}

START_TEST(when_there_is_no_place_the_oldest_gives_way)
{
	char who[20];

	held("first", BUDGET, NOW + 2);
	for (unsigned i = 0; i < 20 * RESTS_PLACES; i++) {
		snprintf(who, sizeof who, "p%u", i);
		held(who, BUDGET, NOW + (i >= 10 * RESTS_PLACES));
		ck_assert_uint_eq(budget(who, NOW + 2), BUDGET / RESTS_PART);
	}
	ck_assert_uint_eq(remembered(0, 10 * RESTS_PLACES, NOW + 2), 0);
	ck_assert_uint_eq(remembered(10 * RESTS_PLACES, 20 * RESTS_PLACES, NOW + 2), RESTS_PLACES - 1);
	ck_assert_uint_eq(budget("first", NOW + 2), BUDGET / RESTS_PART); /* the latest of all */
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("rests");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, who_has_done_nothing_has_the_whole_budget);
	tcase_add_test(t, a_budget_in_all_makes_it_smaller_and_each_time_after_that_is_rested_for);
	tcase_add_test(t, a_later_short_hold_makes_no_rest_shorter);
	tcase_add_test(t, a_rest_has_a_bound);
	tcase_add_test(t, what_somebody_did_is_forgotten_after_a_while_and_not_before);
	tcase_add_test(t, who_does_it_again_after_it_was_forgotten_is_known_again);
	tcase_add_test(t, the_sum_does_not_wrap_round);
	tcase_add_test(t, a_name_may_be_as_long_as_said_and_hold_any_byte);
	tcase_add_test(t, when_there_is_no_place_the_oldest_gives_way);
	return suite_run("rests", t);
}
