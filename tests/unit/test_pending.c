/* The promises of rpc/pending.h: the table of calls that have not ended. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/peer.h"
#include "tests/support/suite.h"

static struct pending_table t;
static struct peer peer;

static void setup(void)
{
	pending_init(&t);
	peer = (struct peer){ 0 };
}

static void teardown(void)
{
	pending_release(&t);
}

START_TEST(a_call_is_found_by_its_id_until_it_has_ended)
{
	struct pending *p = pending_new(&t);
	uint64_t id = p->id;

	ck_assert_uint_ne(id, 0);
	ck_assert_ptr_eq(pending_find(&t, id), p);
	pending_free(&t, p);
	ck_assert_ptr_null(pending_find(&t, id));
	ck_assert_ptr_null(pending_find(&t, 0));
	ck_assert_ptr_null(pending_find(&t, UINT64_MAX));
}
END_TEST

START_TEST(a_late_answer_does_not_find_the_slots_next_call)
{
	struct pending *p = pending_new(&t);
	uint64_t id = p->id;

	pending_free(&t, p);
	ck_assert_ptr_eq(pending_new(&t), p);
	ck_assert_ptr_null(pending_find(&t, id));
	ck_assert_ptr_eq(pending_find(&t, p->id), p);
}
END_TEST

/* A free entry holds the id of its slot's next call: who guesses it must not find what is not there. */
START_TEST(an_id_that_no_call_has_yet_finds_nothing)
{
	struct pending *p = pending_new(&t);

	pending_free(&t, p);
	ck_assert_ptr_null(pending_find(&t, p->id));
	ck_assert_ptr_null(pending_find(&t, p->id & ~PENDING_FREE));
	ck_assert_uint_ne(p->id & ~PENDING_FREE, 0);
}
END_TEST

START_TEST(entries_stay_where_they_are_while_the_table_grows)
{
	enum { N = 5000 };
	static struct pending *p[N];

	for (int i = 0; i < N; i++)
		p[i] = pending_new(&t);
	ck_assert_uint_eq(pending_calls(&t), N);
	for (int i = 0; i < N; i++)
		ck_assert_ptr_eq(pending_find(&t, p[i]->id), p[i]);
	for (int i = 0; i < N; i++)
		pending_free(&t, p[i]);
	ck_assert_uint_eq(pending_calls(&t), 0);
	uint32_t slots = t.slots;
	for (int i = 0; i < N; i++)
		pending_new(&t);
	ck_assert_uint_eq(t.slots, slots);
}
END_TEST

START_TEST(a_kept_call_comes_back_byte_for_byte_and_counts_at_its_peer)
{
	char body[3000];

	memset(body, 'b', sizeof(body));
	for (size_t n = 0; n <= sizeof(body); n += 500) {
		struct rpc_call call = { .to.key = span_of("key", 3),
					 .uid = span_of("ann", 3),
					 .once = span_of("o", 1),
					 .body = span_of(body, n) };
		struct pending *p = pending_new(&t);

		pending_join(p, &peer);
		pending_keep_bytes(p, &call);
		ck_assert_uint_gt(peer.kept_bytes, n);
		struct rpc_call back = pending_call(p);
		ck_assert_mem_eq(back.to.key.p, "key", 3);
		ck_assert_mem_eq(back.uid.p, "ann", 3);
		ck_assert_mem_eq(back.once.p, "o", 1);
		ck_assert_uint_eq(back.body.n, n);
		ck_assert(n == 0 || !memcmp(back.body.p, body, n));
		pending_drop_bytes(p);
		ck_assert_uint_eq(peer.kept_bytes, 0);
		pending_leave(p);
		pending_free(&t, p);
	}
	ck_assert_uint_eq(peer.pendings, 0);
}
END_TEST

START_TEST(a_list_keeps_the_order_of_arrival)
{
	struct pending_list list;
	struct pending *p[3];

	list_init(&list);
	for (int i = 0; i < 3; i++)
		list_append(&list, p[i] = pending_new(&t));
	list_remove(p[1]);
	list_remove(p[1]); /* twice is fine */
	ck_assert_ptr_eq(list.first, p[0]);
	ck_assert_ptr_eq(p[0]->next, p[2]);
	list_remove(p[2]);
	list_append(&list, p[1]);
	ck_assert_ptr_eq(p[0]->next, p[1]);
}
END_TEST

static unsigned overdue_n;
static void overdue(struct pending *p)
{
	overdue_n++;
	pending_free(&t, p);
}

START_TEST(a_deadline_passes_once_in_time_and_never_early)
{
	overdue_n = 0;
	for (uint64_t i = 0; i < 100; i++)
		pending_due(&t, pending_new(&t), 1000 + i * 10);
	pending_look(&t, 1000, overdue);
	ck_assert_uint_eq(overdue_n, 0);
	for (uint64_t now = 1001; now < 2100; now++) {
		if (now >= t.look_ms)
			pending_look(&t, now, overdue);
		ck_assert_uint_eq(overdue_n, now > 1990 ? 100 : (now - 1001) / 10 + 1);
	}
	ck_assert_uint_eq(t.look_ms, UINT64_MAX);
}
END_TEST

START_TEST(only_an_earlier_deadline_moves_the_timer)
{
	ck_assert(pending_due(&t, pending_new(&t), 500));
	ck_assert_uint_eq(t.look_ms, 501);
	ck_assert(!pending_due(&t, pending_new(&t), 500));
	ck_assert(!pending_due(&t, pending_new(&t), 900));
	ck_assert(pending_due(&t, pending_new(&t), 100));
	ck_assert_uint_eq(t.look_ms, 101);
}
END_TEST

START_TEST(a_large_table_is_not_looked_through_all_the_time)
{
	for (int i = 0; i < 40960; i++)
		pending_due(&t, pending_new(&t), 5000);
	pending_look(&t, 100, overdue);
	pending_due(&t, pending_new(&t), 101);
	ck_assert_uint_eq(t.look_ms, 110);
}
END_TEST

START_TEST(what_a_broken_link_has_sent_comes_in_the_order_of_sending)
{
	struct peer other = { .pendings = 0 };
	struct pending *p[6];
	size_t n;

	for (int i = 0; i < 6; i++)
		pending_join(p[i] = pending_new(&t), i == 2 ? &other : &peer);
	for (int i = 5; i > 0; i--) /* the first is not sent */
		pending_mark_sent(&t, p[i]);
	struct pending **sent = pending_sent_on(&t, &peer, &n);
	ck_assert_uint_eq(n, 4);
	ck_assert_ptr_eq(sent[0], p[5]);
	ck_assert_ptr_eq(sent[1], p[4]);
	ck_assert_ptr_eq(sent[2], p[3]);
	ck_assert_ptr_eq(sent[3], p[1]);
	free(sent);
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("pending");
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, a_call_is_found_by_its_id_until_it_has_ended);
	tcase_add_test(c, a_late_answer_does_not_find_the_slots_next_call);
	tcase_add_test(c, an_id_that_no_call_has_yet_finds_nothing);
	tcase_add_test(c, entries_stay_where_they_are_while_the_table_grows);
	tcase_add_test(c, a_kept_call_comes_back_byte_for_byte_and_counts_at_its_peer);
	tcase_add_test(c, a_list_keeps_the_order_of_arrival);
	tcase_add_test(c, a_deadline_passes_once_in_time_and_never_early);
	tcase_add_test(c, only_an_earlier_deadline_moves_the_timer);
	tcase_add_test(c, a_large_table_is_not_looked_through_all_the_time);
	tcase_add_test(c, what_a_broken_link_has_sent_comes_in_the_order_of_sending);
	return suite_run("pending", c);
}
