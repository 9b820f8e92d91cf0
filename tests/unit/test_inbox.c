#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include "common/inbox.h"
#include "tests/support/suite.h"

struct note {
	struct inbox_msg msg;
	unsigned producer, number;
	unsigned *ran;
};

static void run(struct inbox_msg *self)
{
	++*((struct note *)self)->ran;
}

static struct inbox in;

static void setup(void)
{
	inbox_init(&in);
}

START_TEST(nothing_is_taken_from_an_empty_inbox)
{
	ck_assert_ptr_null(inbox_take(&in));
}
END_TEST

START_TEST(messages_come_in_the_order_of_their_pushes)
{
	struct note n[3] = { { .number = 0 }, { .number = 1 }, { .number = 2 } };
	for (int i = 0; i < 3; i++)
		inbox_push(&in, &n[i].msg);
	struct inbox_msg *m = inbox_take(&in);
	for (unsigned i = 0; i < 3; i++, m = m->next)
		ck_assert_uint_eq(((struct note *)m)->number, i);
	ck_assert_ptr_null(m);
	ck_assert_ptr_null(inbox_take(&in));
}
END_TEST

START_TEST(only_the_first_push_of_a_batch_asks_for_a_wake_up)
{
	struct note n[3] = { 0 };
	ck_assert(inbox_push(&in, &n[0].msg));
	ck_assert(!inbox_push(&in, &n[1].msg));
	inbox_take(&in);
	ck_assert(inbox_push(&in, &n[2].msg));
	inbox_take(&in);
}
END_TEST

START_TEST(a_message_is_run_by_its_receiver)
{
	unsigned ran = 0;
	struct note n = { .msg.run = run, .ran = &ran };
	inbox_push(&in, &n.msg);
	struct inbox_msg *m = inbox_take(&in);
	m->run(m);
	ck_assert_uint_eq(ran, 1);
}
END_TEST

/*
 * Several producers, an owner that sleeps whenever it finds nothing: it may wake only when a push said so. A lost
 * wake-up would leave it asleep for good (the test's time limit), a lost or doubled message breaks the numbering.
 */
enum { PRODUCERS = 4, MESSAGES = 50000 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static unsigned rung;

static void *produce(void *arg)
{
	unsigned producer = (unsigned)(size_t)arg;
	for (unsigned i = 0; i < MESSAGES; i++) {
		struct note *n = calloc(1, sizeof *n);
		n->producer = producer;
		n->number = i;
		if (inbox_push(&in, &n->msg)) {
			pthread_mutex_lock(&lock);
			rung++;
			pthread_cond_signal(&bell);
			pthread_mutex_unlock(&lock);
		}
		if (i % 64 == producer)
			sched_yield();
	}
	return NULL;
}

static void sleep_until_rung(void)
{
	pthread_mutex_lock(&lock);
	while (!rung)
		pthread_cond_wait(&bell, &lock);
	rung = 0;
	pthread_mutex_unlock(&lock);
}

START_TEST(several_producers_lose_neither_messages_nor_wake_ups)
{
	pthread_t threads[PRODUCERS];
	unsigned expected[PRODUCERS] = { 0 }, total = 0;
	for (size_t i = 0; i < PRODUCERS; i++)
		pthread_create(&threads[i], NULL, produce, (void *)i);
	while (total < PRODUCERS * MESSAGES) {
		sleep_until_rung();
		for (struct inbox_msg *m = inbox_take(&in), *next; m; m = next, total++) {
			struct note *n = (struct note *)m;
			next = m->next;
			ck_assert_uint_eq(n->number, expected[n->producer]++);
			free(n);
		}
	}
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_ptr_null(inbox_take(&in));
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("inbox");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, NULL);
	tcase_add_test(c, nothing_is_taken_from_an_empty_inbox);
	tcase_add_test(c, messages_come_in_the_order_of_their_pushes);
	tcase_add_test(c, only_the_first_push_of_a_batch_asks_for_a_wake_up);
	tcase_add_test(c, a_message_is_run_by_its_receiver);
	tcase_add_test(c, several_producers_lose_neither_messages_nor_wake_ups);
	return suite_run("inbox", c);
}
