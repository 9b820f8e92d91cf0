/* What callers do for once-calls: numbers, acknowledgements, fingerprints. The server's half: test_once.c. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/once.h"
#include "tests/support/suite.h"

/* ---- numbers ------------------------------------------------------------------------------------------- */

START_TEST(numbers_begin_at_1_and_the_first_incomplete_one_waits_for_the_oldest)
{
	struct once_client c = { 0 };

	ck_assert_uint_eq(once_client_first(&c), 1);
	for (uint64_t i = 1; i <= 5; i++)
		ck_assert_uint_eq(once_client_begin(&c), i);
	once_client_end(&c, 2);
	once_client_end(&c, 3);
	ck_assert_uint_eq(once_client_first(&c), 1);
	once_client_end(&c, 1);
	ck_assert_uint_eq(once_client_first(&c), 4);
	once_client_release(&c);
}
END_TEST

START_TEST(a_client_whose_window_is_full_gets_no_number_until_the_oldest_has_ended)
{
	struct once_client c = { 0 };

	for (uint64_t i = 1; i <= ONCE_WINDOW; i++)
		ck_assert_uint_eq(once_client_begin(&c), i);
	once_client_end(&c, 2);
	ck_assert_uint_eq(once_client_begin(&c), 0);
	once_client_end(&c, 1);
	ck_assert_uint_eq(once_client_first(&c), 3);
	ck_assert_uint_eq(once_client_begin(&c), ONCE_WINDOW + 1);
	once_client_release(&c);
}
END_TEST

/* The one that is left is alone in its word, and was given out last. */
START_TEST(the_last_number_given_out_may_be_the_first_incomplete_one)
{
	struct once_client c = { 0 };

	for (uint64_t i = 1; i <= 128; i++)
		ck_assert_uint_eq(once_client_begin(&c), i);
	for (uint64_t i = 2; i < 128; i++)
		once_client_end(&c, i);
	once_client_end(&c, 1);
	ck_assert_uint_eq(once_client_first(&c), 128);
	once_client_end(&c, 128);
	ck_assert_uint_eq(once_client_first(&c), 129);
	once_client_release(&c);
}
END_TEST

/* Three times around the window, with up to the whole of it under way. */
START_TEST(the_first_incomplete_number_is_what_a_plain_list_says)
{
	static bool open[4 * ONCE_WINDOW];
	struct once_client c = { 0 };
	uint64_t first = 1, top = 0;

	srand(7);
	while (top < 3 * ONCE_WINDOW) {
		for (int n = rand() % 500; n > 0; n--) {
			uint64_t seq = once_client_begin(&c);

			ck_assert(seq == (top - first + 1 < ONCE_WINDOW ? top + 1 : 0));
			if (seq)
				open[top = seq] = true;
		}
		for (int n = rand() % 500; n > 0 && first <= top; n--) {
			uint64_t seq = rand() % 4 ? first : first + (uint64_t)rand() % (top - first + 1);

			if (open[seq])
				once_client_end(&c, seq);
			open[seq] = false;
			while (first <= top && !open[first])
				first++;
			ck_assert_uint_eq(once_client_first(&c), first);
		}
	}
	once_client_release(&c);
}
END_TEST

/* ---- fingerprints ---------------------------------------------------------------------------------------------------------- */

/* The database has such numbers: these are what it was when they were first written. */
START_TEST(a_fingerprint_is_the_same_on_every_machine_and_for_ever)
{
	static const struct {
		size_t n;
		uint64_t expected;
	} of[] = {
		{ 0, 0x13925a6f41f9e5aa },   { 1, 0x5092627e90b09e3d },  { 7, 0x3ba9d50e2352b458 },
		{ 8, 0xde53311bd0443e75 },   { 15, 0xf73e2513b0e0a077 }, { 16, 0xb428d57f8fcba0c0 },
		{ 17, 0xa3a81b20f9c7f607 },  { 33, 0x9752050ff25454d9 }, { 48, 0x3680a63ee2700262 },
		{ 49, 0xa8a61165bad88b1c },  { 50, 0x008152e4ea83840b }, { 97, 0x2e1037dc685b0b1d },
		{ 200, 0x0ad4bd6b31a8858c },
	};
	char bytes[200];

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (char)(i * 37 + 200);
	for (size_t i = 0; i < sizeof of / sizeof *of; i++)
		ck_assert_uint_eq(once_fingerprint(0, bytes, of[i].n), of[i].expected);
	ck_assert_uint_eq(once_fingerprint(once_fingerprint(0, "shop.buy", 8), bytes, 50), 0x00f5d5aba387b9f8);
}
END_TEST

/* Each length has a block of its own, so that the sanitizer sees who reads beyond it. */
START_TEST(each_bit_and_the_length_make_another_fingerprint)
{
	uint64_t of_shorter = 0;

	for (size_t n = 0; n <= 160; n++) {
		unsigned char *p = calloc(1, n ? n : 1);
		uint64_t of_zeroes = once_fingerprint(0, p, n);

		ck_assert_uint_ne(of_zeroes, of_shorter);
		ck_assert_uint_ne(of_zeroes, once_fingerprint(1, p, n));
		of_shorter = of_zeroes;
		for (size_t bit = 0; bit < n * 8; bit++) {
			p[bit / 8] ^= (unsigned char)(1u << bit % 8);
			ck_assert_uint_ne(once_fingerprint(0, p, n), of_zeroes);
			p[bit / 8] = 0;
		}
		free(p);
	}
}
END_TEST

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Requests that differ in a small number alone, wherever it stands. */
START_TEST(like_requests_have_different_fingerprints)
{
	enum { N = 20000 };
	static uint64_t of[N];

	for (size_t at = 0; at < 70; at += 7) {
		char bytes[74] = "";

		for (uint32_t i = 0; i < N; i++) {
			memcpy(bytes + at, &i, 4);
			of[i] = once_fingerprint(0, bytes, sizeof bytes);
		}
		qsort(of, N, sizeof *of, by_number);
		for (size_t i = 1; i < N; i++)
			ck_assert_uint_ne(of[i], of[i - 1]);
	}
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("client");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, numbers_begin_at_1_and_the_first_incomplete_one_waits_for_the_oldest);
	tcase_add_test(t, a_client_whose_window_is_full_gets_no_number_until_the_oldest_has_ended);
	tcase_add_test(t, the_last_number_given_out_may_be_the_first_incomplete_one);
	tcase_add_test(t, the_first_incomplete_number_is_what_a_plain_list_says);
	tcase_add_test(t, a_fingerprint_is_the_same_on_every_machine_and_for_ever);
	tcase_add_test(t, each_bit_and_the_length_make_another_fingerprint);
	tcase_add_test(t, like_requests_have_different_fingerprints);
	return suite_run("once_client", t);
}
