/*
 * inbox: what a message to another worker costs, beside a queue under a mutex with a condition variable, one producer and
 * one consumer that sleeps when it finds nothing. Both carry the same messages out of a pool the producer owns.
 *
 * The worker is a real loop; what is counted besides is how often it was woken, and its turns: one takes all there is.
 * Producer and consumer have a core each. Left to itself the system puts both on one at times: then nobody waits for a
 * mutex or for a line of the other's cache, and both figures are a third.
 *
 * usage: inbox [--messages N]      prints one JSON object
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/env.h"
#include "common/loop.h"
#include "tests/bench/core.h"

enum { PRODUCER, CONSUMER }; /* cores */
enum { POOL = 1 << 16 };

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* A message may be used again once the consumer is that far. */
struct message {
	struct inbox_msg msg;
	struct bench *bench;
};
struct bench {
	uint64_t messages, wakes;
	_Alignas(64) _Atomic uint64_t done;
	struct message *pool;
};

static struct message *message_take(struct bench *b, uint64_t i)
{
	while (i - atomic_load_explicit(&b->done, memory_order_acquire) >= POOL)
		sched_yield();
	return &b->pool[i % POOL];
}

static void wait_until_done(struct bench *b)
{
	struct timespec pause = { .tv_nsec = 100000 };
	while (atomic_load_explicit(&b->done, memory_order_acquire) < b->messages)
		nanosleep(&pause, NULL);
}

static void run(struct inbox_msg *m)
{
	struct bench *b = ((struct message *)m)->bench;
	atomic_store_explicit(&b->done, atomic_load_explicit(&b->done, memory_order_relaxed) + 1, memory_order_release);
}

/* ---- the inbox of a worker ----------------------------------------------------------------------------------- */

static void on_start(struct loop *loop, void *arg)
{
	(void)loop, (void)arg;
}

/* The turns the loop took are the batches it may have found, and one to start with. */
static double run_inbox(struct bench *b, uint64_t *turns)
{
	struct env *env = env_new();
	struct loop *loop;
	run_on(CONSUMER);
	if (loop_start(env, "worker", 0, on_start, NULL, NULL, &loop) < 0)
		exit(2);
	run_on(PRODUCER);
	double from = now_ns();
	for (uint64_t i = 0; i < b->messages; i++) {
		struct message *m = message_take(b, i);
		m->msg.run = run;
		m->bench = b;
		if (inbox_push(&loop->inbox, &m->msg)) { /* as loop_post does */
			b->wakes++;
			env_loop_wake(loop->ev);
		}
	}
	wait_until_done(b);
	double ns = (now_ns() - from) / (double)b->messages;
	*turns = loop->turns;
	loop_stop(loop);
	loop_join(loop);
	env_free(env);
	return ns;
}

/* ---- mutex and condition variable -------------------------------------------------------------------------------- */

struct queue {
	struct bench *bench;
	pthread_mutex_t lock;
	pthread_cond_t bell;
	struct inbox_msg *first, **last;
};

static void *consume(void *arg)
{
	struct queue *q = arg;
	for (uint64_t i = 0; i < q->bench->messages; i++) {
		pthread_mutex_lock(&q->lock);
		while (!q->first)
			pthread_cond_wait(&q->bell, &q->lock);
		struct inbox_msg *m = q->first;
		if (!(q->first = m->next))
			q->last = &q->first;
		pthread_mutex_unlock(&q->lock);
		m->run(m);
	}
	return NULL;
}

static double run_mutex(struct bench *b)
{
	struct queue q = { .bench = b, .lock = PTHREAD_MUTEX_INITIALIZER, .bell = PTHREAD_COND_INITIALIZER };
	pthread_t thread;
	q.last = &q.first;
	run_on(CONSUMER);
	if (pthread_create(&thread, NULL, consume, &q))
		exit(2);
	run_on(PRODUCER);
	double from = now_ns();
	for (uint64_t i = 0; i < b->messages; i++) {
		struct message *m = message_take(b, i);
		m->msg = (struct inbox_msg){ .run = run };
		m->bench = b;
		pthread_mutex_lock(&q.lock);
		*q.last = &m->msg;
		q.last = &m->msg.next;
		pthread_cond_signal(&q.bell);
		pthread_mutex_unlock(&q.lock);
	}
	pthread_join(thread, NULL);
	return (now_ns() - from) / (double)b->messages;
}

int main(int argc, char **argv)
{
	struct bench b = { .messages = 3000000, .pool = calloc(POOL, sizeof *b.pool) };
	if (argc == 3 && !strcmp(argv[1], "--messages"))
		b.messages = strtoull(argv[2], NULL, 10);
	else if (argc != 1 || !b.pool)
		return fprintf(stderr, "usage: inbox [--messages N]\n"), 2;
	uint64_t turns;
	double inbox_ns = run_inbox(&b, &turns);
	atomic_store(&b.done, 0);
	double mutex_ns = run_mutex(&b);
	printf("{\"inbox_ns\":%.1f,\"mutex_ns\":%.1f,\"wakes\":%llu,\"turns\":%llu}\n", inbox_ns, mutex_ns,
	       (unsigned long long)b.wakes, (unsigned long long)turns);
	free(b.pool);
	return 0;
}
