/* The promises of rpc/balancer.h. */
#include <check.h>
#include <string.h>
#include "common/err.h"
#include "rpc/balancer.h"
#include "tests/support/suite.h"

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define BYTES(s)  (s), sizeof(s) - 1

static const char *const texts[] = { "10.1.0.0/16", "192.168.7.7", "fd00::/9", "::1" };
static struct balancers *b;
static char addr[ENV_ADDR_MAX];

static void setup(void)
{
	size_t wrong;

	ck_assert_int_eq(balancers_new(texts, 4, &b, &wrong), 0);
}

static void teardown(void)
{
	balancers_free(b);
}

START_TEST(addresses_and_subnets_are_trusted)
{
	ck_assert(balancers_trust(b, "10.1.255.3:80"));
	ck_assert(!balancers_trust(b, "10.2.0.1:80"));
	ck_assert(balancers_trust(b, "192.168.7.7:1"));
	ck_assert(!balancers_trust(b, "192.168.7.8:1"));
	ck_assert(balancers_trust(b, "[fd7f::1]:5"));
	ck_assert(!balancers_trust(b, "[fd80::1]:5"));
	ck_assert(balancers_trust(b, "[::1]:5"));
	ck_assert(balancers_trust(b, "[::ffff:10.1.2.3]:5")); /* an IPv4 peer of an IPv6 socket */
	ck_assert(!balancers_trust(NULL, "10.1.0.1:80"));
	ck_assert(!balancers_trust(b, "nonsense"));
}
END_TEST

START_TEST(what_is_no_subnet_is_named)
{
	static const char *const wrong[] = {
		"10.0.0.0/33", "10.0.0/8", "::/129", "host", "10.0.0.1/", "10.0.0.1/8x", ""
	};
	struct balancers *none = NULL;

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		const char *const two[] = { "10.0.0.1", wrong[i] };
		size_t at = 0;
		ck_assert_int_eq(balancers_new(two, 2, &none, &at), ERR_BAD_REQUEST);
		ck_assert_uint_eq(at, 1);
	}
	ck_assert_ptr_null(none);
}
END_TEST

START_TEST(a_header_names_the_player)
{
	static const char v4[] = SIGNATURE "\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\x10\xe1\0\x50rest";
	static const char v6[] = SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
					   "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x10\xe1\0\x50";

	ck_assert_int_eq(balancer_header(BYTES(v4), addr), 28);
	ck_assert_str_eq(addr, "1.2.3.4:4321");
	ck_assert_int_eq(balancer_header(BYTES(v6), addr), 52);
	ck_assert_str_eq(addr, "[2001:db8::1]:4321");
	for (size_t n = 0; n < 28; n++)
		ck_assert_int_eq(balancer_header(v4, n, addr), ERR_INCOMPLETE);
}
END_TEST

START_TEST(what_a_header_has_besides_is_skipped)
{
	static const char more[] = SIGNATURE "\x21\x11\0\x0f\1\2\3\4\5\6\7\x08\x10\xe1\0\x50\4\0\0";
	static const char local[] = SIGNATURE "\x20\0\0\0";
	static const char unix_[] = SIGNATURE "\x21\x31\0\2ab";

	ck_assert_int_eq(balancer_header(BYTES(more), addr), 31);
	ck_assert_str_eq(addr, "1.2.3.4:4321");
	ck_assert_int_eq(balancer_header(BYTES(local), addr), 16);
	ck_assert_str_eq(addr, "");
	ck_assert_int_eq(balancer_header(BYTES(unix_), addr), 18);
	ck_assert_str_eq(addr, "");
}
END_TEST

START_TEST(what_is_no_header_is_refused)
{
	ck_assert_int_eq(balancer_header(BYTES("\x01\0\0\x0a"), addr), ERR_BAD_REQUEST);
	ck_assert_int_eq(balancer_header(BYTES("\r\n\r\n\1"), addr), ERR_BAD_REQUEST);
	ck_assert_int_eq(balancer_header(BYTES(SIGNATURE "\x11\x11\0\x0c"), addr), ERR_BAD_REQUEST); /* version 1 */
	ck_assert_int_eq(balancer_header(BYTES(SIGNATURE "\x22\x11\0\x0c"), addr), ERR_BAD_REQUEST);
	ck_assert_int_eq(balancer_header(BYTES(SIGNATURE "\x21\x11\xff\xff"), addr), ERR_BAD_REQUEST); /* too long */
	ck_assert_int_eq(balancer_header(BYTES(SIGNATURE "\x21\x11\0\4\1\2\3\4"), addr), ERR_BAD_REQUEST);
}
END_TEST

static const char *forwarded(const char *header)
{
	return balancer_forwarded(b, header, strlen(header), addr) ? addr : NULL;
}

START_TEST(the_last_who_is_no_balancer_is_the_player)
{
	ck_assert_str_eq(forwarded("1.2.3.4"), "1.2.3.4:0");
	ck_assert_str_eq(forwarded("6.6.6.6, 1.2.3.4"), "1.2.3.4:0"); /* the first anybody may write */
	ck_assert_str_eq(forwarded("6.6.6.6,1.2.3.4 , 10.1.9.9"), "1.2.3.4:0");
	ck_assert_str_eq(forwarded("2001:db8::7"), "[2001:db8::7]:0");
	ck_assert_str_eq(forwarded("[2001:db8::7]:99"), "[2001:db8::7]:0");
	ck_assert_str_eq(forwarded("1.2.3.4:99"), "1.2.3.4:0");
	ck_assert_ptr_null(forwarded("10.1.9.9"));
	ck_assert_ptr_null(forwarded(""));
	ck_assert_ptr_null(forwarded("1.2.3.4, unknown"));
	ck_assert_ptr_null(forwarded("1.2.3.4,"));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("balancer");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, addresses_and_subnets_are_trusted);
	tcase_add_test(t, what_is_no_subnet_is_named);
	tcase_add_test(t, a_header_names_the_player);
	tcase_add_test(t, what_a_header_has_besides_is_skipped);
	tcase_add_test(t, what_is_no_header_is_refused);
	tcase_add_test(t, the_last_who_is_no_balancer_is_the_player);
	return suite_run("balancer", t);
}
