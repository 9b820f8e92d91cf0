#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include "common/err.h"
#include "common/loop.h"
#include "common/sqllog_private.h"
/*
 * Waiters: lists that only their worker touches; the SQL-log thread moves the marks and posts at most one message to a
 * worker that waits for one of them.
 *
 * The two sides meet in the way of Dekker: the worker stores what it wants and then reads the marks, the thread stores
 * the marks and then reads what is wanted, with a full fence between on both sides; so one of them sees the other.
 */

enum { WRITTEN, DURABLE };

struct sqllog_joined {
	struct inbox_msg msg;           /* first: run() gets it */
	struct loop_deferred turn_ends; /* of a turn in which somebody has begun to wait */
	struct sqllog_waits *waits;
	struct loop *loop;
	_Atomic bool posted;
	_Atomic uint64_t want[2]; /* lowest lsn in the list; UINT64_MAX: nobody */
	struct sqllog_waiter *first[2], *last[2];
};

int sqllog_waits_init(struct sqllog_waits *w, unsigned workers, uint64_t lsn, bool replicated)
{
	w->joined = calloc(workers ? workers : 1, sizeof *w->joined);
	w->n = workers;
	atomic_init(&w->written, lsn);
	atomic_init(&w->durable, replicated ? 0 : lsn);
	atomic_init(&w->synced, lsn);
	atomic_init(&w->standby, replicated ? 0 : UINT64_MAX);
	atomic_init(&w->failing, false);
	return w->joined ? 0 : ERR_NOMEM;
}

void sqllog_waits_release(struct sqllog_waits *w)
{
	for (unsigned i = 0; w->joined && i < w->n; i++)
		free(w->joined[i]);
	free((void *)w->joined);
	w->joined = NULL;
}

static uint64_t mark(const struct sqllog_waits *w, int kind)
{
	return atomic_load_explicit(kind == DURABLE ? &w->durable : &w->written, memory_order_acquire);
}

static bool somebody_ready(struct sqllog_joined *j)
{
	bool failing = atomic_load_explicit(&j->waits->failing, memory_order_acquire);
	for (int kind = WRITTEN; kind <= DURABLE; kind++) {
		uint64_t want = atomic_load_explicit(&j->want[kind], memory_order_relaxed);
		if (want != UINT64_MAX && (failing || want <= mark(j->waits, kind)))
			return true;
	}
	return false;
}

static void post_if_ready(struct sqllog_joined *j)
{
	if (somebody_ready(j) && !atomic_exchange(&j->posted, true))
		loop_post(j->loop, &j->msg);
}

static void say_wanted(struct sqllog_joined *j)
{
	for (int kind = WRITTEN; kind <= DURABLE; kind++)
		atomic_store_explicit(&j->want[kind], j->first[kind] ? j->first[kind]->lsn : UINT64_MAX,
				      memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

/* The next of both lists in lsn order whose time has come; *err is what it is told. */
static struct sqllog_waiter *take_ready(struct sqllog_joined *j, int *err)
{
	bool failing = atomic_load_explicit(&j->waits->failing, memory_order_acquire);
	int best = -1;
	for (int kind = WRITTEN; kind <= DURABLE; kind++) {
		struct sqllog_waiter *x = j->first[kind];
		if (!x || (best >= 0 && x->lsn >= j->first[best]->lsn))
			continue;
		bool reached = x->lsn <= mark(j->waits, kind);
		if (!reached && !failing)
			continue;
		*err = reached ? 0 : ERR_UNKNOWN;
		best = kind;
	}
	if (best < 0)
		return NULL;
	struct sqllog_waiter *x = j->first[best];
	j->first[best] = x->next;
	return x;
}

static void run(struct inbox_msg *m)
{
	struct sqllog_joined *j = (struct sqllog_joined *)m;
	struct sqllog_waiter *x;
	int err = 0;
	atomic_store(&j->posted, false);
	while ((x = take_ready(j, &err)))
		x->fn(x, err);
	say_wanted(j);
	post_if_ready(j);
}

static void on_turn_ends(struct loop_deferred *d)
{
	struct sqllog_joined *j = (struct sqllog_joined *)((char *)d - offsetof(struct sqllog_joined, turn_ends));
	for (int kind = WRITTEN; kind <= DURABLE; kind++)
		if (j->first[kind] && j->last[kind]->lsn > mark(j->waits, kind)) {
			sqllog_hurry(j->waits);
			return;
		}
}

void sqllog_waits_join(struct sqllog_waits *w, struct loop *loop)
{
	loop_assert_owner(loop);
	assert(loop->index < w->n && !w->joined[loop->index]);
	struct sqllog_joined *j = calloc(1, sizeof *j);
	assert(j);
	j->msg.run = run;
	j->turn_ends.run = on_turn_ends;
	j->waits = w;
	j->loop = loop;
	say_wanted(j);
	atomic_store_explicit(&w->joined[loop->index], j, memory_order_release);
}

static void insert(struct sqllog_joined *j, int kind, struct sqllog_waiter *x)
{
	if (!j->first[kind] || j->last[kind]->lsn <= x->lsn) {
		x->next = NULL;
		if (j->first[kind])
			j->last[kind]->next = x;
		else
			j->first[kind] = x;
		j->last[kind] = x;
		return;
	}
	struct sqllog_waiter **at = &j->first[kind];
	while ((*at)->lsn <= x->lsn)
		at = &(*at)->next;
	x->next = *at;
	*at = x;
}

void sqllog_waits_add(struct sqllog_waits *w, struct loop *loop, struct sqllog_waiter *x)
{
	loop_assert_owner(loop);
	struct sqllog_joined *j = loop->index < w->n ? w->joined[loop->index] : NULL;
	assert(j && j->loop == loop); /* sqllog_join comes first */
	insert(j, x->durable ? DURABLE : WRITTEN, x);
	say_wanted(j);
	post_if_ready(j);
	loop_defer(loop, &j->turn_ends);
}

void sqllog_waits_wake(struct sqllog_waits *w)
{
	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned i = 0; i < w->n; i++) {
		struct sqllog_joined *j = atomic_load_explicit(&w->joined[i], memory_order_acquire);
		if (j)
			post_if_ready(j);
	}
}

void sqllog_waits_reached(struct sqllog_waits *w, _Atomic uint64_t *which, uint64_t lsn)
{
	atomic_store(which, lsn); /* both sides store one and load the other, so the later of them sees both */
	uint64_t here = atomic_load(&w->synced), there = atomic_load(&w->standby);
	uint64_t both = here < there ? here : there, was = atomic_load(&w->durable);
	while (was < both && !atomic_compare_exchange_weak(&w->durable, &was, both))
		;
	sqllog_waits_wake(w);
}
