#include <check.h>
#include <stdio.h>
#include <string.h>
#include "rpc/ring.h"
#include "tests/support/suite.h"

/* A table with the role instances named by the digits, in that order; a '-' behind one: it drains. */
static struct route_table *table(const char *digits)
{
	struct route_table *t = route_table_new(strlen(digits));

	for (const char *at = digits; *at; at++) {
		struct route_row *row = &t->row[t->rows];

		if (*at == '-') {
			t->row[t->rows - 1].state = ROUTE_DRAINING;
			continue;
		}
		snprintf(row->id, sizeof row->id, "role-%c", *at);
		snprintf(row->service, sizeof row->service, "role");
		row->workers = 1;
		route_row_named(row);
		t->rows++;
	}
	return t;
}

static struct ring ring;

static void begin(const char *digits)
{
	struct route_table *t = table(digits);

	ring_init(&ring, "role-1", "role", t);
	route_unref(t);
}

static bool see(const char *digits)
{
	struct route_table *t = table(digits);
	bool changed = ring_see(&ring, "role", t);

	route_unref(t);
	return changed;
}

static enum ring_verdict ask(unsigned key)
{
	char text[16];

	snprintf(text, sizeof text, "p%u", key);
	return ring_ask(&ring, route_hash(text, strlen(text)));
}

static unsigned held(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 3000; i++)
		n += ask(i) == RING_HELD;
	return n;
}

static void end(void)
{
	ring_release(&ring);
}

START_TEST(nothing_is_held_before_the_first_clear)
{
	begin("1");
	ck_assert_int_eq(ask(7), RING_WAIT);
	ring_clear(&ring);
	ck_assert_int_eq(ask(7), RING_HELD);
	end();
}
END_TEST

START_TEST(what_is_held_is_what_the_route_table_says)
{
	struct route_table *t = table("213");

	begin("213");
	ring_clear(&ring);
	for (unsigned i = 0; i < 3000; i++) {
		char key[16];
		bool own;

		snprintf(key, sizeof key, "p%u", i);
		own = !strcmp(route_owner(t, "role", key, strlen(key))->id, "role-1");
		ck_assert_int_eq(ask(i), own ? RING_HELD : RING_MOVED);
	}
	route_unref(t);
	end();
}
END_TEST

START_TEST(the_order_of_the_rows_and_other_services_are_no_change)
{
	begin("123");
	ck_assert(!see("321"));
	ck_assert(!see("3214-"));
	ck_assert(see("32"));
	end();
}
END_TEST

START_TEST(an_instance_that_comes_takes_only_its_own_keys_and_they_are_given_up_at_once)
{
	begin("1");
	ring_clear(&ring);
	see("12");
	unsigned n = held();

	ck_assert_uint_gt(n, 1200); /* those that stay are answered for all the time */
	ck_assert_uint_lt(n, 1800);
	ring_clear(&ring);
	ck_assert_uint_eq(held(), n);
	end();
}
END_TEST

START_TEST(what_comes_is_waited_for_until_it_is_clear)
{
	begin("12");
	ring_clear(&ring);
	unsigned n = held(), waits = 0;

	see("1");
	ck_assert_uint_eq(held(), n);
	for (unsigned i = 0; i < 3000; i++)
		waits += ask(i) == RING_WAIT;
	ck_assert_uint_eq(waits, 3000 - n);
	ring_clear(&ring);
	ck_assert_uint_eq(held(), 3000);
	end();
}
END_TEST

START_TEST(what_was_given_up_is_not_held_again_before_a_clear_though_the_table_gives_it_back)
{
	begin("1");
	ring_clear(&ring);
	see("12");
	unsigned n = held();

	see("1");
	ck_assert_uint_eq(held(), n);
	see("12");
	ck_assert_uint_eq(held(), n);
	ring_clear(&ring);
	see("1");
	ring_clear(&ring);
	ck_assert_uint_eq(held(), 3000);
	end();
}
END_TEST

START_TEST(who_drains_holds_nothing)
{
	begin("12");
	ring_clear(&ring);
	see("1-2");
	ck_assert_uint_eq(held(), 0);
	ck_assert_int_eq(ask(1), RING_MOVED);
	ring_clear(&ring);
	ck_assert_uint_eq(held(), 0);
	end();
}
END_TEST

START_TEST(too_many_changes_without_a_clear_hold_nothing)
{
	begin("12");
	ring_clear(&ring);
	for (int i = 0; i < RING_SEEN_MAX; i++)
		see(i % 2 ? "12" : "123");
	ck_assert_uint_eq(held(), 0);
	ring_clear(&ring);
	ck_assert_uint_gt(held(), 0);
	end();
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("ring");

	tcase_add_test(t, nothing_is_held_before_the_first_clear);
	tcase_add_test(t, what_is_held_is_what_the_route_table_says);
	tcase_add_test(t, the_order_of_the_rows_and_other_services_are_no_change);
	tcase_add_test(t, an_instance_that_comes_takes_only_its_own_keys_and_they_are_given_up_at_once);
	tcase_add_test(t, what_comes_is_waited_for_until_it_is_clear);
	tcase_add_test(t, what_was_given_up_is_not_held_again_before_a_clear_though_the_table_gives_it_back);
	tcase_add_test(t, who_drains_holds_nothing);
	tcase_add_test(t, too_many_changes_without_a_clear_hold_nothing);
	return suite_run("ring", t);
}
