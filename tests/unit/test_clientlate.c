#include <check.h>
#include <stdio.h>
#include <string.h>
#include "rpc/clientlate.h"
#include "tests/support/suite.h"

static struct clientlate *late;

static void setup(void)
{
	late = clientlate_new();
}

static void teardown(void)
{
	clientlate_free(late);
}

static uint64_t key(const char *name)
{
	return clientlate_key("onMove", 6, name, strlen(name));
}

static size_t add(uint64_t k, const char *text)
{
	struct iovec part[2] = { { .iov_base = (char *)(uintptr_t) "<", .iov_len = 1 },
				 { .iov_base = (char *)(uintptr_t)text, .iov_len = strlen(text) } };

	return clientlate_add(late, k, part, 2);
}

/* All that waits, as one text. */
static const char *all(void)
{
	static char text[400];
	const char *p;
	size_t n, len = 0;

	for (; clientlate_first(late, &p, &n); clientlate_take(late)) {
		memcpy(text + len, p, n);
		len += n;
	}
	text[len] = '\0';
	return text;
}

START_TEST(what_waits_keeps_its_order)
{
	add(0, "a");
	add(key("1"), "b");
	add(0, "c");
	ck_assert_uint_eq(clientlate_bytes(late), 6);
	ck_assert_str_eq(all(), "<a<b<c");
	ck_assert_uint_eq(clientlate_bytes(late), 0);
}
END_TEST

START_TEST(the_newer_of_a_key_stands_at_the_end_and_the_older_is_dropped)
{
	add(key("1"), "one");
	add(key("2"), "two");
	add(0, "x");
	ck_assert_uint_eq(add(key("1"), "ONE"), 4);
	ck_assert_uint_eq(add(key("3"), "three"), 0);
	ck_assert_uint_eq(add(key("2"), "TWO"), 4);
	ck_assert_str_eq(all(), "<x<ONE<three<TWO");
}
END_TEST

START_TEST(keys_differ_by_route_and_by_name)
{
	ck_assert(clientlate_key("a", 1, "bc", 2) != clientlate_key("ab", 2, "c", 1));
	ck_assert(key("1") != key("2"));
	ck_assert(key("") != 0);
}
END_TEST

START_TEST(many_keys_are_each_found)
{
	char name[20];
	for (int turn = 0; turn < 3; turn++)
		for (int i = 0; i < 1000; i++) {
			snprintf(name, sizeof(name), "%d", i);
			ck_assert_uint_eq(add(key(name), "12345"), turn ? 6 : 0);
		}
	ck_assert_uint_eq(clientlate_bytes(late), 6000);
	for (int i = 0; i < 500; i++)
		clientlate_take(late);
	ck_assert_uint_eq(clientlate_bytes(late), 3000);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("clientlate");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, what_waits_keeps_its_order);
	tcase_add_test(t, the_newer_of_a_key_stands_at_the_end_and_the_older_is_dropped);
	tcase_add_test(t, keys_differ_by_route_and_by_name);
	tcase_add_test(t, many_keys_are_each_found);
	return suite_run("clientlate", t);
}
