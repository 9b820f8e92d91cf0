/* The promises of common/buf.h. */
#include <check.h>
#include <string.h>
#include "common/buf.h"
#include "tests/support/suite.h"

static struct buf b;

static void setup(void)
{
	buf_init(&b);
}

static void teardown(void)
{
	buf_release(&b);
}

static void expect(const char *text)
{
	ck_assert_uint_eq(b.len, strlen(text));
	ck_assert_str_eq(buf_cstr(&b), text);
}

START_TEST(an_empty_buffer_owns_no_memory)
{
	ck_assert_ptr_null(b.data);
	buf_add(&b, NULL, 0);
	buf_consume(&b, 0);
	ck_assert_ptr_null(b.data);
	expect("");
}
END_TEST

START_TEST(what_is_added_comes_out_in_order)
{
	buf_addstr(&b, "a=");
	buf_addu(&b, UINT64_MAX);
	buf_addch(&b, ' ');
	buf_addi(&b, INT64_MIN);
	buf_addi(&b, 0);
	buf_addf(&b, " %s/%d", "x", 7);
	buf_add(&b, "!?", 1);
	expect("a=18446744073709551615 -92233720368547758080 x/7!");
}
END_TEST

START_TEST(it_grows_and_keeps_its_bytes)
{
	for (int i = 0; i < 100000; i++)
		buf_addch(&b, (char)i);
	ck_assert_uint_eq(b.len, 100000);
	for (int i = 0; i < 100000; i++)
		ck_assert_int_eq(b.data[i], (char)i);
}
END_TEST

START_TEST(formatted_text_longer_than_the_room_left_is_whole)
{
	char want[5001];
	memset(want, 'x', 5000);
	want[5000] = '\0';
	buf_addf(&b, "%s", want);
	expect(want);
}
END_TEST

START_TEST(reserved_room_can_be_written_in_place)
{
	memcpy(buf_reserve(&b, 1000), "abc", 3);
	ck_assert_uint_ge(b.cap, 1000);
	ck_assert_uint_eq(b.len, 0);
	b.len += 3;
	expect("abc");
}
END_TEST

START_TEST(consuming_drops_from_the_front)
{
	buf_addstr(&b, "0123456789");
	buf_consume(&b, 4);
	expect("456789");
	buf_consume(&b, 6);
	expect("");
}
END_TEST

START_TEST(clearing_keeps_the_memory)
{
	buf_addstr(&b, "0123456789");
	char *data = b.data;
	buf_clear(&b);
	expect("");
	ck_assert_ptr_eq(b.data, data);
}
END_TEST

START_TEST(consuming_more_than_there_is_ends_the_process)
{
	buf_addstr(&b, "abc");
	buf_consume(&b, 4);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("buf");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, an_empty_buffer_owns_no_memory);
	tcase_add_test(t, what_is_added_comes_out_in_order);
	tcase_add_test(t, it_grows_and_keeps_its_bytes);
	tcase_add_test(t, formatted_text_longer_than_the_room_left_is_whole);
	tcase_add_test(t, reserved_room_can_be_written_in_place);
	tcase_add_test(t, consuming_drops_from_the_front);
	tcase_add_test(t, clearing_keeps_the_memory);
	tcase_add_test_raise_signal(t, consuming_more_than_there_is_ends_the_process, 6);
	return suite_run("buf", t);
}
