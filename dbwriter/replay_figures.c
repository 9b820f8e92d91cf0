#include "dbwriter/replay_private.h"
/*
 * What the replay counts, for whoever asks: any thread.
 */

/* The greater of what its time says and of how long it is known to wait. */
static uint64_t lag_ms(const struct replay_counts *c, uint64_t oldest_us, struct env *env)
{
	uint64_t waits_ns = atomic_load_explicit(&c->waits_ns, memory_order_relaxed);
	uint64_t now_us = env_wall_us(env), now_ns = env_mono_ns(env);
	uint64_t by_time = now_us > oldest_us ? (now_us - oldest_us) / 1000 : 0;
	uint64_t here = now_ns > waits_ns ? (now_ns - waits_ns) / 1000000 : 0;
	return !oldest_us ? 0 : by_time > here ? by_time : here;
}

static struct replay_figures figures_of(const struct stream *s)
{
	const struct replay_counts *c = &s->counts;
	uint64_t last = atomic_load_explicit(&c->log_lsn, memory_order_relaxed), oldest;
	struct replay_figures f = {
		.records = atomic_load_explicit(&c->records, memory_order_relaxed),
		.transactions = atomic_load_explicit(&c->transactions, memory_order_relaxed),
		.quarantined = atomic_load_explicit(&c->quarantined, memory_order_relaxed),
		.fenced = atomic_load_explicit(&c->fenced, memory_order_relaxed),
		.retries = atomic_load_explicit(&c->retries, memory_order_relaxed),
		.folded = atomic_load_explicit(&c->folded, memory_order_relaxed),
		.epoch = atomic_load_explicit(&c->epoch, memory_order_relaxed),
		.lsn = atomic_load_explicit(&c->lsn, memory_order_relaxed),
		.streams = 1,
		.stopped = atomic_load_explicit(&c->stopped, memory_order_relaxed),
		.refused = atomic_load_explicit(&c->refused, memory_order_relaxed),
	};
	oldest = atomic_load_explicit(&c->oldest_us, memory_order_acquire);
	f.lag_records = last > f.lsn ? last - f.lsn : oldest ? 1 : 0;
	f.lag_ms = lag_ms(c, oldest, s->replay->loop->env);
	return f;
}

void replay_each(const struct replay *r, void (*fn)(void *arg, const char *instance, const struct replay_figures *f),
		 void *arg)
{
	for (struct stream *s = atomic_load_explicit(&r->streams, memory_order_acquire); s;
	     s = atomic_load_explicit(&s->next, memory_order_acquire)) {
		struct replay_figures f = figures_of(s);
		f.connected = atomic_load(&r->connected) == r->o.connections;
		fn(arg, s->name, &f);
	}
}

static void add_up(void *arg, const char *instance, const struct replay_figures *f)
{
	struct replay_figures *sum = arg;
	(void)instance;
	sum->lag_records += f->lag_records;
	sum->lag_ms = f->lag_ms > sum->lag_ms ? f->lag_ms : sum->lag_ms;
	sum->records += f->records;
	sum->transactions += f->transactions;
	sum->quarantined += f->quarantined;
	sum->fenced += f->fenced;
	sum->retries += f->retries;
	sum->folded += f->folded;
	sum->streams++;
	sum->stopped += f->stopped;
	sum->refused += f->refused;
}

void replay_figures(const struct replay *r, struct replay_figures *out)
{
	*out = (struct replay_figures){ .kept = atomic_load(&r->kept),
					.forgotten = atomic_load(&r->forgotten),
					.connected = atomic_load(&r->connected) == r->o.connections };
	replay_each(r, add_up, out);
}
