/* The promises of common/text.h. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/text.h"
#include "tests/support/suite.h"

static char out[TEXT_DOUBLE_MAX + 1];

static const char *text_of(double v, int single)
{
	size_t n = text_double(out, v, single);

	ck_assert_uint_le(n, TEXT_DOUBLE_MAX);
	out[n] = '\0';
	return out;
}

static uint64_t seed = 88172645463325252u;

static uint64_t next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

/* Digits from the first that is not 0 to the last that is not 0. */
static size_t digits_of(const char *text)
{
	size_t n = 0, kept = 0;

	for (; *text && *text != 'e'; text++) {
		if (*text < '0' || *text > '9' || (!n && *text == '0'))
			continue;
		n++;
		if (*text != '0')
			kept = n;
	}
	return kept;
}

static size_t fewest_digits(double v)
{
	char text[40];
	int digits = 0;

	do
		snprintf(text, sizeof text, "%.*e", digits++, v);
	while (strtod(text, NULL) != v);
	return digits_of(text);
}

static void check(double v)
{
	const char *text = text_of(v, 0);

	ck_assert_msg(strtod(text, NULL) == v, "%s is not %.17g", text, v);
	ck_assert_msg(digits_of(text) == fewest_digits(v), "%s is longer than %.17g needs", text, v);
	ck_assert_msg(strpbrk(text, ".e") != NULL, "%s reads as an integer", text);
}

START_TEST(known_numbers_have_their_usual_text)
{
	ck_assert_str_eq(text_of(0.0, 0), "0.0");
	ck_assert_str_eq(text_of(-0.0, 0), "-0.0");
	ck_assert_str_eq(text_of(0.1, 0), "0.1");
	ck_assert_str_eq(text_of(-12.5, 0), "-12.5");
	ck_assert_str_eq(text_of(0.1 + 0.2, 0), "0.30000000000000004");
	ck_assert_str_eq(text_of(1.0 / 3, 0), "0.3333333333333333");
	ck_assert_str_eq(text_of(2757.954992342982, 0), "2757.954992342982");
	ck_assert_str_eq(text_of(1e300, 0), "1e+300");
	ck_assert_str_eq(text_of((double)0.1f, 1), "0.1");
}
END_TEST

START_TEST(places_on_a_map_read_back_with_the_fewest_digits)
{
	for (int i = 0; i < 10000; i++)
		check((double)(next_random() >> 11) / 9007199254740992.0 * 4000);
}
END_TEST

START_TEST(numbers_of_every_size_read_back_with_the_fewest_digits)
{
	for (int i = 0; i < 10000; i++) {
		uint64_t bits = next_random();
		double v;

		memcpy(&v, &bits, sizeof v);
		if (isnormal(v))
			check(v);
	}
}
END_TEST

START_TEST(numbers_at_powers_of_two_and_ten_read_back)
{
	for (int e = -40; e < 60; e++) {
		double two = ldexp(1, e), ten = pow(10, e);

		check(two);
		check(nextafter(two, 0));
		check(nextafter(two, INFINITY));
		check(-nextafter(two, INFINITY));
		check(ten);
		check(nextafter(ten, 0));
		check(nextafter(ten, INFINITY));
	}
}
END_TEST

START_TEST(base64_reads_back_what_was_written)
{
	char bytes[64], back[80];

	for (size_t n = 0; n < sizeof bytes; n++) {
		struct buf b = BUF_INIT;

		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)next_random();
		text_base64(&b, bytes, n);
		ck_assert_int_eq(text_unbase64(back, b.data, b.len), (int64_t)n);
		ck_assert_mem_eq(back, bytes, n);
		buf_release(&b);
	}
	ck_assert_int_lt(text_unbase64(back, "a*b=", 4), 0);
}
END_TEST

START_TEST(well_formed_characters_have_their_length)
{
	static const struct {
		const char *text;
		unsigned bytes;
	} row[] = { { "a", 1 },
		    { "\x7f", 1 },
		    { "\xc2\x80", 2 },
		    { "\xdf\xbf", 2 },
		    { "\xe0\xa0\x80", 3 },
		    { "\xed\x9f\xbf", 3 },
		    { "\xee\x80\x80", 3 },
		    { "\xef\xbf\xbf", 3 },
		    { "\xf0\x90\x80\x80", 4 },
		    { "\xf4\x8f\xbf\xbf", 4 } };
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		size_t n = strlen(row[i].text);
		ck_assert_uint_eq(text_utf8(row[i].text, row[i].text + n), row[i].bytes);
		ck_assert(text_is_utf8(row[i].text, n));
		if (n > 1)
			ck_assert_uint_eq(text_utf8(row[i].text, row[i].text + n - 1), 0);
	}
}
END_TEST

START_TEST(ill_formed_ones_have_none)
{
	static const char *const bad[] = { "\x80",
					   "\xc0\x80",
					   "\xc1\xbf",
					   "\xc2\x41",
					   "\xe0\x9f\xbf",
					   "\xed\xa0\x80",
					   "\xed\xbf\xbf",
					   "\xe1\x80\x41",
					   "\xf0\x8f\xbf\xbf",
					   "\xf4\x90\x80\x80",
					   "\xf5\x80\x80\x80",
					   "\xff" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char text[40] = "12345678901234567";
		strcat(text, bad[i]);
		ck_assert_uint_eq(text_utf8(bad[i], bad[i] + strlen(bad[i])), 0);
		ck_assert(!text_is_utf8(text, strlen(text)));
	}
	ck_assert(text_is_utf8("", 0));
}
END_TEST

/* Texts are looked at in pieces: wherever it stands, one bad byte is seen, and a good character is none. */
START_TEST(one_byte_is_seen_wherever_it_stands)
{
	for (size_t n = 1; n <= 50; n++)
		for (size_t at = 0; at < n; at++) {
			char *text = malloc(n); /* exactly so long, for the sanitizer */

			memset(text, 'x', n);
			text[at] = '\xff';
			if (text_is_utf8(text, n))
				ck_abort_msg("%zu of %zu", at, n);
			if (at + 1 < n) {
				memcpy(text + at, "\xc3\xa9", 2);
				if (!text_is_utf8(text, n))
					ck_abort_msg("a character at %zu of %zu", at, n);
			}
			free(text);
		}
}
END_TEST

START_TEST(every_character_written_is_read_as_one)
{
	for (uint32_t code = 0; code <= 0x10ffff; code++) {
		char bytes[4];
		if (code >= 0xd800 && code <= 0xdfff)
			continue;
		unsigned n = text_put_utf8(bytes, code);
		if (text_utf8(bytes, bytes + n) != n) /* each ck_assert costs a write: a million are a minute */
			ck_abort_msg("U+%04X", code);
	}
}
END_TEST

START_TEST(wrong_base64_is_refused)
{
	char bytes[20];
	static const char *const bad[] = { "Z", "Zm9vZ", "Zm9 ", "Z===", "====", "Zm=v", "Zh==", "Zm9=", "-_" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		ck_assert_msg(text_unbase64(bytes, bad[i], strlen(bad[i])) == ERR_BAD_REQUEST, "%s", bad[i]);
	ck_assert_int_eq(text_unbase64(bytes, "Zg", 2), 1);
}
END_TEST

int main(void)
{
	TCase *tc = tcase_create("text");

	tcase_add_test(tc, well_formed_characters_have_their_length);
	tcase_add_test(tc, ill_formed_ones_have_none);
	tcase_add_test(tc, one_byte_is_seen_wherever_it_stands);
	tcase_add_test(tc, every_character_written_is_read_as_one);
	tcase_add_test(tc, wrong_base64_is_refused);
	tcase_add_test(tc, known_numbers_have_their_usual_text);
	tcase_add_test(tc, places_on_a_map_read_back_with_the_fewest_digits);
	tcase_add_test(tc, numbers_of_every_size_read_back_with_the_fewest_digits);
	tcase_add_test(tc, numbers_at_powers_of_two_and_ten_read_back);
	tcase_add_test(tc, base64_reads_back_what_was_written);
	return suite_run("text", tc);
}
