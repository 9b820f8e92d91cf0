/* The promises of common/token.h. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "common/token.h"
#include "tests/support/suite.h"

#define KEY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static const char *const fields[] = { "alice", "connector-1", "" };
static struct token got;

static int read_token(const char *text, const char *kind, uint64_t now, size_t n)
{
	return token_read(KEY, kind, now, text, strlen(text), n, &got);
}

START_TEST(what_was_signed_comes_back)
{
	char text[TOKEN_MAX];

	ck_assert_int_eq(token_make(KEY, "login", 5000, fields, 3, text, sizeof(text)), 0);
	ck_assert_int_eq(read_token(text, "login", 4999, 3), 0);
	ck_assert_uint_eq(got.expires_ms, 5000);
	ck_assert_str_eq(got.field[0], "alice");
	ck_assert_str_eq(got.field[1], "connector-1");
	ck_assert_str_eq(got.field[2], "");
}
END_TEST

START_TEST(a_token_ends_at_its_time)
{
	char text[TOKEN_MAX];

	token_make(KEY, "login", 5000, fields, 3, text, sizeof(text));
	ck_assert_int_eq(read_token(text, "login", 5000, 3), ERR_DENIED);
}
END_TEST

START_TEST(a_token_of_another_kind_or_key_is_denied)
{
	char text[TOKEN_MAX];

	token_make(KEY, "login", 5000, fields, 3, text, sizeof(text));
	ck_assert_int_eq(read_token(text, "resume", 1, 3), ERR_DENIED);
	ck_assert_int_eq(read_token(text, "login", 1, 2), ERR_DENIED);
	ck_assert_int_eq(read_token(text, "login", 1, 4), ERR_DENIED);
	ck_assert_int_eq(token_read("another", "login", 1, text, strlen(text), 3, &got), ERR_DENIED);
}
END_TEST

START_TEST(no_single_changed_byte_passes)
{
	char text[TOKEN_MAX];

	token_make(KEY, "login", 5000, fields, 3, text, sizeof(text));
	size_t n = strlen(text);
	for (size_t i = 0; i + 1 < n; i++) { /* the very last character has 4 bits of no meaning */
		char kept = text[i];
		text[i] = kept == 'A' ? 'B' : 'A';
		ck_assert_int_eq(read_token(text, "login", 1, 3), ERR_DENIED);
		text[i] = kept;
	}
	for (size_t cut = 0; cut < n; cut++)
		ck_assert_int_eq(token_read(KEY, "login", 1, text, cut, 3, &got), ERR_DENIED);
}
END_TEST

START_TEST(garbage_is_denied)
{
	static const char *const bad[] = { "",
					   ".",
					   "a",
					   "a.b",
					   "....",
					   "\xff\xff",
					   "A.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
					   "AA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" };
	char lots[3000];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_int_eq(read_token(bad[i], "login", 1, 3), ERR_DENIED);
	memset(lots, 'A', sizeof(lots));
	ck_assert_int_eq(token_read(KEY, "login", 1, lots, sizeof(lots), 3, &got), ERR_DENIED);
}
END_TEST

START_TEST(a_field_with_a_newline_is_refused)
{
	static const char *const bad[] = { "a\nb" };
	char text[TOKEN_MAX];

	ck_assert_int_eq(token_make(KEY, "login", 5000, bad, 1, text, sizeof(text)), ERR_BAD_REQUEST);
	ck_assert_int_eq(token_make(KEY, "login", 5000, fields, 3, text, 20), ERR_FULL);
}
END_TEST

/* While both clocks go on together. */
static int use(struct token_once *o, const char *nonce, uint64_t now_ms)
{
	return token_once_use(o, nonce, now_ms, now_ms);
}

START_TEST(a_nonce_is_used_once)
{
	struct token_once *o = token_once_new(1000, 100000);
	char nonce[TOKEN_NONCE_MAX];

	for (uint32_t i = 0; i < 20000; i++) {
		uint8_t raw[8] = { (uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16), 1 };
		token_nonce(raw, nonce);
		ck_assert_int_eq(use(o, nonce, 5000 + i / 20), 0);
		ck_assert_int_eq(use(o, nonce, 5000 + i / 20), ERR_DENIED);
	}
	uint8_t first[8] = { 0, 0, 0, 1 };
	token_nonce(first, nonce);
	ck_assert_int_eq(use(o, nonce, 5999), ERR_DENIED);
	ck_assert_int_eq(use(o, "", 5999), ERR_DENIED);
	token_once_free(o);
}
END_TEST

START_TEST(what_was_used_is_forgotten_after_twice_the_time)
{
	struct token_once *o = token_once_new(1000, 100);

	ck_assert_int_eq(use(o, "a", 10000), 0);
	ck_assert_int_eq(use(o, "a", 10999), ERR_DENIED);
	ck_assert_int_eq(use(o, "b", 11000), 0);
	ck_assert_int_eq(use(o, "a", 11000), ERR_DENIED);
	ck_assert_int_eq(use(o, "a", 13000), 0);
	token_once_free(o);
}
END_TEST

/* Workers take the time before they ask the one that remembers: the later may be heard first. */
START_TEST(an_earlier_time_makes_nothing_forgotten)
{
	struct token_once *o = token_once_new(1000, 100);

	ck_assert_int_eq(use(o, "a", 10000), 0);
	ck_assert_int_eq(use(o, "b", 11000), 0);
	ck_assert_int_eq(token_once_use(o, "c", 10999, 11000), 0);
	ck_assert_int_eq(use(o, "a", 11000), ERR_DENIED);
	ck_assert_int_eq(use(o, "b", 11000), ERR_DENIED);
	token_once_free(o);
}
END_TEST

START_TEST(a_clock_set_ahead_for_a_moment_makes_nothing_forgotten)
{
	struct token_once *o = token_once_new(1000, 100);

	ck_assert_int_eq(token_once_use(o, "a", 10000, 500), 0);
	ck_assert_int_eq(token_once_use(o, "b", 3610000, 510), 0);
	ck_assert_int_eq(token_once_use(o, "a", 10020, 520), ERR_DENIED);
	token_once_free(o);
}
END_TEST

START_TEST(a_clock_set_back_makes_nothing_forgotten_until_it_is_there_again)
{
	struct token_once *o = token_once_new(1000, 100);

	ck_assert_int_eq(token_once_use(o, "a", 3600000, 10000), 0);
	for (uint64_t ms = 500; ms < 3600000; ms += 60000) { /* an hour is gone through once more */
		char nonce[TOKEN_NONCE_MAX];
		snprintf(nonce, sizeof(nonce), "%u", (unsigned)ms);
		ck_assert_int_eq(token_once_use(o, nonce, ms, 10500 + ms), 0);
		ck_assert_int_eq(token_once_use(o, "a", ms, 10500 + ms), ERR_DENIED);
	}
	ck_assert_int_eq(token_once_use(o, "a", 3600999, 3611000), ERR_DENIED);
	ck_assert_int_eq(token_once_use(o, "a", 3602000, 3613000), 0);
	token_once_free(o);
}
END_TEST

START_TEST(what_a_clock_set_back_keeps_goes_when_its_place_is_needed)
{
	struct token_once *o = token_once_new(1000, 2);

	ck_assert_int_eq(token_once_use(o, "a", 3600000, 10000), 0);
	ck_assert_int_eq(token_once_use(o, "b", 1000, 11000), 0);
	ck_assert_int_eq(token_once_use(o, "c", 1000, 12000), 0);
	ck_assert_int_eq(token_once_use(o, "d", 1000, 12000), 0);
	ck_assert_int_eq(token_once_use(o, "e", 1000, 12000), 0);
	ck_assert_int_eq(token_once_use(o, "f", 1000, 12999), ERR_BUSY);
	ck_assert_int_eq(token_once_use(o, "f", 1000, 13000), 0);
	ck_assert_int_eq(token_once_use(o, "e", 1000, 13000), ERR_DENIED);
	token_once_free(o);
}
END_TEST

START_TEST(memory_of_what_was_used_is_bounded)
{
	struct token_once *o = token_once_new(1000, 2);

	ck_assert_int_eq(use(o, "a", 10000), 0);
	ck_assert_int_eq(use(o, "b", 10000), 0);
	ck_assert_int_eq(use(o, "c", 10000), ERR_BUSY);
	ck_assert_int_eq(use(o, "a", 10000), ERR_DENIED);
	token_once_free(o);
}
END_TEST

START_TEST(a_print_tells_keys_apart_and_no_key)
{
	char one[TOKEN_PRINT_MAX], again[TOKEN_PRINT_MAX], other[TOKEN_PRINT_MAX];

	token_print(KEY, one);
	token_print(KEY, again);
	token_print("1" KEY, other);
	ck_assert_str_eq(one, again);
	ck_assert_str_ne(one, other);
	ck_assert_uint_eq(strlen(one), TOKEN_PRINT_MAX - 1);
	ck_assert_ptr_null(strstr(KEY, one));
}
END_TEST

START_TEST(hmac_is_the_one_of_rfc_4231)
{
	char hex[TOKEN_HMAC_HEX];

	token_hmac_hex("Jefe", "what do ya want for nothing?", 28, hex);
	ck_assert_str_eq(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	ck_assert(token_equal(hex, 64, hex, 64));
	ck_assert(!token_equal(hex, 64, hex, 63));
	ck_assert(!token_equal("a", 1, "b", 1));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("token");

	tcase_add_test(t, what_was_signed_comes_back);
	tcase_add_test(t, a_token_ends_at_its_time);
	tcase_add_test(t, a_token_of_another_kind_or_key_is_denied);
	tcase_add_test(t, no_single_changed_byte_passes);
	tcase_add_test(t, garbage_is_denied);
	tcase_add_test(t, a_field_with_a_newline_is_refused);
	tcase_add_test(t, a_nonce_is_used_once);
	tcase_add_test(t, what_was_used_is_forgotten_after_twice_the_time);
	tcase_add_test(t, an_earlier_time_makes_nothing_forgotten);
	tcase_add_test(t, a_clock_set_ahead_for_a_moment_makes_nothing_forgotten);
	tcase_add_test(t, a_clock_set_back_makes_nothing_forgotten_until_it_is_there_again);
	tcase_add_test(t, what_a_clock_set_back_keeps_goes_when_its_place_is_needed);
	tcase_add_test(t, memory_of_what_was_used_is_bounded);
	tcase_add_test(t, hmac_is_the_one_of_rfc_4231);
	tcase_add_test(t, a_print_tells_keys_apart_and_no_key);
	return suite_run("token", t);
}
