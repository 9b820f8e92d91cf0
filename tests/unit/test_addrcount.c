/* The promises of rpc/addrcount.h. */
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include "rpc/addrcount.h"

static bool together(const char *a, const char *b)
{
	return addrcount_place(a).address == addrcount_place(b).address;
}

static bool neighbours(const char *a, const char *b)
{
	return addrcount_place(a).subnet == addrcount_place(b).subnet;
}

START_TEST(the_port_is_no_part_of_an_address)
{
	ck_assert(together("1.2.3.4:1", "1.2.3.4:65535"));
	ck_assert(together("[2001:db8::1]:1", "[2001:db8::1]:2"));
	ck_assert(!together("1.2.3.4:1", "1.2.3.5:1"));
	ck_assert(!together("[2001:db8::1]:1", "[2001:db8::2]:1"));
}
END_TEST

START_TEST(a_subnet_is_three_numbers_or_four_groups)
{
	ck_assert(neighbours("1.2.3.4:1", "1.2.3.250:2"));
	ck_assert(!neighbours("1.2.3.4:1", "1.2.4.4:1"));
	ck_assert(neighbours("[2001:db8:1:2:3:4:5:6]:1", "[2001:db8:1:2:ffff::1]:2"));
	ck_assert(!neighbours("[2001:db8:1:2::1]:1", "[2001:db8:1:3::1]:1"));
	/* however it is written */
	ck_assert(neighbours("[2001:db8::1]:1", "[2001:db8::ffff:2]:2"));
	ck_assert(neighbours("[2001:db8::1]:1", "[2001:db8:0:0:1:2:3:4]:2"));
	ck_assert(!neighbours("[2001:db8::1]:1", "[2001:db8:0:1::1]:2"));
}
END_TEST

START_TEST(a_host_is_an_ipv4_address_or_an_ipv6_subnet)
{
	ck_assert_uint_ne(addrcount_place("1.2.3.4:1").host, addrcount_place("1.2.3.5:1").host);
	ck_assert_uint_eq(addrcount_place("[2001:db8::1]:1").host, addrcount_place("[2001:db8::2]:1").host);
	ck_assert_uint_ne(addrcount_place("[2001:db8::1]:1").host, addrcount_place("[2001:db8:1::1]:1").host);
}
END_TEST

START_TEST(each_is_told_how_many_there_were)
{
	struct addrcount *c = calloc(1, sizeof(*c));
	struct addrplace a = addrcount_place("1.2.3.4:1"), b = addrcount_place("1.2.3.5:1");

	ck_assert_uint_eq(addrcount_add(c, a, 1).address, 0);
	ck_assert_uint_eq(addrcount_add(c, a, 1).address, 1);
	ck_assert_uint_eq(addrcount_add(c, b, 1).address, 0);
	ck_assert_uint_eq(addrcount_add(c, b, -1).subnet, 3);
	ck_assert_uint_eq(addrcount_add(c, a, -1).address, 2);
	ck_assert_uint_eq(addrcount_add(c, a, -1).subnet, 1);
	free(c);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("addrcount");

	tcase_add_test(t, the_port_is_no_part_of_an_address);
	tcase_add_test(t, a_subnet_is_three_numbers_or_four_groups);
	tcase_add_test(t, a_host_is_an_ipv4_address_or_an_ipv6_subnet);
	tcase_add_test(t, each_is_told_how_many_there_were);
	Suite *suite = suite_create("addrcount");
	suite_add_tcase(suite, t);
	SRunner *r = srunner_create(suite);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
