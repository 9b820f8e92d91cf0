#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
/*
 * metrics: counters, gauges and latency histograms of one process.
 *
 * A family has a name, a help sentence, a type and label names ("service,method"); a series is one
 * combination of label values on one worker. Workers write their own series only, with relaxed atomic
 * stores; a reader sums the workers. So counting costs a load and a store and no lock.
 *
 * Threads: metric_* handles are made and written by one worker only; metrics_* readers from any thread.
 *          Families and series are never freed before metrics_free; making one takes a short lock-free
 *          list push.
 * Names:   a counter only grows and its name ends in _total, no other's does; docs/metrics.md lists all.
 * Labels:  instance and le are set here and are nobody else's. Values come from a bounded set (methods, kinds of
 *          error), never from players.
 * Units:   base units: seconds, bytes. Gauges named …_seconds are set in milliseconds; histograms take nanoseconds and
 *          are log-linear: 16 sub-buckets per power of two (error at most 6.25 %), 1 us to 64 s; Prometheus gets the
 *          fixed buckets of metrics.c.
 */
struct metrics;
enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
struct metric; /* one series of one worker */

struct metrics *metrics_new(const char *instance);
void metrics_free(struct metrics *m);

/*
 * Finds or makes the series of this worker. name as in Prometheus ("loquat_rpc_requests_total"), labels
 * such as "service,method" with values in the same order, or NULL, NULL. Never fails.
 */
struct metric *metric(struct metrics *m, unsigned worker, enum metric_type type, const char *name, const char *help,
		      const char *labels, const char *const *values);
void metric_add(struct metric *x, uint64_t n);
void metric_set(struct metric *x, int64_t v);
void metric_observe_ns(struct metric *x, uint64_t ns);
uint64_t metric_value(const struct metric *x); /* of a histogram its count */
/* Computed when it is read, for figures that live elsewhere; fn is called on the reader's thread. A counter's only grows. */
void metrics_gauge_fn(struct metrics *m, const char *name, const char *help, int64_t (*fn)(void *arg), void *arg);
void metrics_counter_fn(struct metrics *m, const char *name, const char *help, int64_t (*fn)(void *arg), void *arg);

/* Prometheus text format, families by name, all series summed over the workers. */
void metrics_prometheus(struct metrics *m, struct buf *out);

/* One series as a reader sees it. */
struct metric_row {
	const char *name, *labels; /* labels as given at its making, NULL: none */
	enum metric_type type;
	unsigned worker;
	unsigned values_n;
	const char *const *values; /* of the labels, in their order */
	const struct metric *metric;
};
/* Calls fn for each series of the family, or with name NULL of all families. No order is promised. */
void metrics_each(struct metrics *m, const char *name, void (*fn)(void *arg, const struct metric_row *row), void *arg);
/* The sum over workers and over all series whose labels have these values (values NULL: all; NULL among them: any). */
int64_t metrics_total(struct metrics *m, const char *name, const char *const *values);

/* Plain histogram, used by the series above, by /stats and by load generators. */
struct hist {
	uint64_t count, sum_ns, max_ns;
	uint64_t bucket[27 * 16];
};
void hist_add(struct hist *h, uint64_t ns);
void hist_merge(struct hist *into, const struct hist *from);
uint64_t hist_quantile_ns(const struct hist *h, double q);        /* upper edge of the bucket; 0 when empty */
void metric_hist_read(const struct metric *x, struct hist *into); /* adds the series into a plain one */

/* Events per second over the last 1, 10 and 60 s: a ring of per-second totals, advanced by its reader. */
struct rate {
	uint64_t at_s[61], second;
};
void rate_note(struct rate *r, uint64_t now_s, uint64_t total); /* call about once a second with a growing total */
double rate_per_s(const struct rate *r, unsigned seconds);      /* 1..60 */
