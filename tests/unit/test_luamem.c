/* The promises of common/luamem.h. */
#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "common/luamem.h"
#include "tests/support/suite.h"

static struct luamem m;

static void setup(void)
{
	luamem_init(&m, 1 << 20);
}

static void teardown(void)
{
	luamem_free(&m);
}

START_TEST(what_is_in_use_is_counted)
{
	char *a = luamem_alloc(&m, NULL, 5, 100); /* 5 is the kind of object, not a size */
	ck_assert_uint_eq(m.used, 100);
	a = luamem_alloc(&m, a, 100, 3000);
	ck_assert_uint_eq(m.used, 3000);
	a = luamem_alloc(&m, a, 3000, 10);
	ck_assert_uint_eq(m.used, 10);
	ck_assert_ptr_null(luamem_alloc(&m, a, 10, 0));
	ck_assert_uint_eq(m.used, 0);
	ck_assert_uint_eq(m.peak, 3000);
	ck_assert_ptr_null(luamem_alloc(&m, NULL, 0, 0));
}
END_TEST

START_TEST(above_the_bound_only_shrinking_succeeds)
{
	char *a = luamem_alloc(&m, NULL, 0, 1 << 19), *b = luamem_alloc(&m, NULL, 0, 1 << 19);
	ck_assert(a && b);
	ck_assert_ptr_null(luamem_alloc(&m, NULL, 0, 1));
	ck_assert_ptr_null(luamem_alloc(&m, a, 1 << 19, (1 << 19) + 1));
	ck_assert_ptr_null(luamem_alloc(&m, NULL, 0, SIZE_MAX - 5));
	m.max = 1000; /* lowered while more is in use */
	ck_assert_ptr_null(luamem_alloc(&m, NULL, 0, 1));
	ck_assert_ptr_nonnull(a = luamem_alloc(&m, a, 1 << 19, 100));
	luamem_alloc(&m, a, 100, 0);
	luamem_alloc(&m, b, 1 << 19, 0);
	ck_assert_uint_eq(m.used, 0);
}
END_TEST

START_TEST(blocks_are_aligned_and_keep_their_bytes_wherever_they_move)
{
	enum { N = 500 };
	static unsigned char *block[N];
	static size_t size[N];
	memset(block, 0, sizeof block);
	memset(size, 0, sizeof size);
	srandom(1);
	for (int i = 0; i < 100000; i++) {
		int k = (int)(random() % N);
		size_t n = random() % 5 ? (size_t)random() % 600 : 0;
		size_t wrong = 0;
		for (size_t j = 0; j < size[k]; j++)
			wrong += block[k][j] != (unsigned char)k;
		ck_assert_uint_eq(wrong, 0);
		unsigned char *p = luamem_alloc(&m, block[k], size[k], n);
		ck_assert(p || !n);
		ck_assert_uint_eq((uintptr_t)p % 16, 0);
		if (p)
			memset(p, k, n);
		block[k] = p;
		size[k] = n;
	}
	for (int k = 0; k < N; k++)
		luamem_alloc(&m, block[k], size[k], 0);
	ck_assert_uint_eq(m.used, 0);
}
END_TEST

START_TEST(freed_small_blocks_are_used_again)
{
	size_t chunks = 0, later = 0;
	for (int round = 0; round < 100; round++) {
		void *p[100];
		for (int i = 0; i < 100; i++)
			p[i] = luamem_alloc(&m, NULL, 0, 48);
		for (int i = 0; i < 100; i++)
			luamem_alloc(&m, p[i], 48, 0);
		size_t n = 0;
		for (void **c = (void **)m.chunks; c; c = *c) /* a chunk begins with the pointer to the next */
			n++;
		*(round ? &later : &chunks) = n;
	}
	ck_assert_uint_eq(chunks, later);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("luamem");
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, what_is_in_use_is_counted);
	tcase_add_test(c, above_the_bound_only_shrinking_succeeds);
	tcase_add_test(c, blocks_are_aligned_and_keep_their_bytes_wherever_they_move);
	tcase_add_test(c, freed_small_blocks_are_used_again);
	return suite_run("luamem", c);
}
