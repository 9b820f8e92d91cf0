/* A list of sessions' numbers on the wire, against protobuf-c. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "proto/connector.pb-c.h"
#include "rpc/sids.h"
#include "tests/support/suite.h"

static struct buf out;

static void setup(void)
{
	out = (struct buf)BUF_INIT;
}

static void teardown(void)
{
	buf_release(&out);
}

static void put(const uint64_t *sids, size_t n)
{
	sids_put(&out, span_of((const char *)sids, 8 * n));
}

START_TEST(a_list_is_what_protobuf_reads_and_comes_back)
{
	static const size_t sizes[] = { 1, 15, 16, 2047, 2048, 20000 };

	for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
		size_t n = sizes[k];
		uint64_t *sids = calloc(n, sizeof(*sids));
		struct span list;

		for (size_t i = 0; i < n; i++)
			sids[i] = i << 48 | i;
		buf_clear(&out);
		put(sids, n);
		Connector__GoneRequest *m = connector__gone_request__unpack(NULL, out.len, (const uint8_t *)out.data);
		ck_assert_ptr_nonnull(m);
		ck_assert_uint_eq(m->n_sid, n);
		ck_assert_mem_eq(m->sid, sids, 8 * n);
		ck_assert_uint_eq(connector__gone_request__get_packed_size(m), out.len);
		ck_assert(sids_read(span_of(out.data, out.len), &list));
		ck_assert_uint_eq(list.n, 8 * n);
		ck_assert_mem_eq(list.p, sids, 8 * n);
		connector__gone_request__free_unpacked(m, NULL);
		free(sids);
	}
}
END_TEST

START_TEST(an_empty_list_is_no_bytes)
{
	struct span list;

	put(NULL, 0);
	ck_assert_uint_eq(out.len, 0);
	ck_assert(sids_read(span_of("", 0), &list));
	ck_assert_uint_eq(list.n, 0);
}
END_TEST

START_TEST(what_is_cut_or_something_else_is_refused)
{
	static const uint64_t sids[] = { 1, 2, 3 };
	struct span list;

	put(sids, 3);
	for (size_t n = 1; n < out.len; n++)
		ck_assert_msg(!sids_read(span_of(out.data, n), &list), "%zu bytes", n);
	buf_addch(&out, 0);
	ck_assert(!sids_read(span_of(out.data, out.len), &list));
	ck_assert(!sids_read(span_of("\x12\0", 2), &list));
	ck_assert(!sids_read(span_of("\x0a\x04\1\2\3\4", 6), &list));
	ck_assert(!sids_read(span_of("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12), &list));
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("sids");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_list_is_what_protobuf_reads_and_comes_back);
	tcase_add_test(t, an_empty_list_is_no_bytes);
	tcase_add_test(t, what_is_cut_or_something_else_is_refused);
	return suite_run("sids", t);
}
