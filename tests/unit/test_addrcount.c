/* The promises of rpc/addrcount.h. */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include "rpc/addrcount.h"
#include "tests/support/suite.h"

static struct env *env;
static struct addrcount *count;

static void setup(void)
{
	env = env_new();
	count = calloc(1, sizeof(*count));
	count->seed = 1; /* not by chance which share a counter */
}

static void teardown(void)
{
	free(count);
	env_free(env);
}

static bool together(const char *a, const char *b)
{
	return addrcount_place(count, a).address == addrcount_place(count, b).address;
}

static bool neighbours(const char *a, const char *b)
{
	return addrcount_place(count, a).subnet == addrcount_place(count, b).subnet;
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
	ck_assert_uint_ne(addrcount_place(count, "1.2.3.4:1").host, addrcount_place(count, "1.2.3.5:1").host);
	ck_assert_uint_eq(addrcount_place(count, "[2001:db8::1]:1").host,
			  addrcount_place(count, "[2001:db8::2]:1").host);
	ck_assert_uint_ne(addrcount_place(count, "[2001:db8::1]:1").host,
			  addrcount_place(count, "[2001:db8:1::1]:1").host);
}
END_TEST

START_TEST(each_is_told_how_many_there_were)
{
	struct addrcount *c = count;
	struct addrplace a = addrcount_place(count, "1.2.3.4:1"), b = addrcount_place(count, "1.2.3.5:1");

	ck_assert_uint_eq(addrcount_add(c, a, 1).address, 0);
	ck_assert_uint_eq(addrcount_add(c, a, 1).address, 1);
	ck_assert_uint_eq(addrcount_add(c, b, 1).address, 0);
	ck_assert_uint_eq(addrcount_add(c, b, -1).subnet, 3);
	ck_assert_uint_eq(addrcount_add(c, a, -1).address, 2);
	ck_assert_uint_eq(addrcount_add(c, a, -1).subnet, 1);
}
END_TEST

/* The first address of a subnet that shares its counter with another. */
static void share(char *addr, size_t size, const char *with)
{
	unsigned n = 0;

	do
		snprintf(addr, size, "[2001:db8::%x:%x]:1", n >> 16, n & 0xffff);
	while (++n && !together(addr, with));
}

START_TEST(who_shares_a_counter_in_one_process_does_not_in_another)
{
	struct addrcount *other = calloc(1, sizeof(*other));
	const char *victim = "1.2.3.4:1";
	char addr[ENV_ADDR_MAX];

	share(addr, sizeof(addr), victim);
	other->seed = 2;
	ck_assert_uint_ne(addrcount_place(other, addr).address, addrcount_place(other, victim).address);
	addrcount_init(count, env);
	addrcount_init(other, env);
	ck_assert_uint_ne(count->seed, other->seed);
	free(other);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("addrcount");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, the_port_is_no_part_of_an_address);
	tcase_add_test(t, a_subnet_is_three_numbers_or_four_groups);
	tcase_add_test(t, a_host_is_an_ipv4_address_or_an_ipv6_subnet);
	tcase_add_test(t, each_is_told_how_many_there_were);
	tcase_add_test(t, who_shares_a_counter_in_one_process_does_not_in_another);
	return suite_run("addrcount", t);
}
