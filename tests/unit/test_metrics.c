#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/metrics.h"
#include "tests/support/suite.h"

static struct metrics *m;
static struct buf out;

static void setup(void)
{
	m = metrics_new("chat-1");
	buf_init(&out);
}

static void teardown(void)
{
	metrics_free(m);
	buf_release(&out);
}

static const char *text(void)
{
	buf_clear(&out);
	metrics_prometheus(m, &out);
	return buf_cstr(&out);
}

static struct metric *calls(unsigned worker, const char *method)
{
	return metric(m, worker, METRIC_COUNTER, "loquat_calls_total", "Calls answered.", "service,method",
		      (const char *const[]){ "chat", method });
}

START_TEST(a_counter_is_written_with_its_labels_and_the_instance)
{
	metric_add(calls(0, "send"), 3);
	ck_assert_str_eq(text(), "# HELP loquat_calls_total Calls answered.\n"
				 "# TYPE loquat_calls_total counter\n"
				 "loquat_calls_total{instance=\"chat-1\",service=\"chat\",method=\"send\"} 3\n");
}
END_TEST

START_TEST(the_workers_are_summed)
{
	metric_add(calls(0, "send"), 3);
	metric_add(calls(1, "send"), 4);
	metric_add(calls(1, "add"), 5);
	ck_assert_ptr_nonnull(strstr(text(), "method=\"send\"} 7\n"));
	ck_assert_ptr_nonnull(strstr(text(), "method=\"add\"} 5\n"));
	ck_assert_int_eq(metrics_total(m, "loquat_calls_total", NULL), 12);
	ck_assert_int_eq(metrics_total(m, "loquat_calls_total", (const char *const[]){ NULL, "send" }), 7);
	ck_assert_int_eq(metrics_total(m, "loquat_calls_total", (const char *const[]){ "role", NULL }), 0);
	ck_assert_int_eq(metrics_total(m, "nothing", NULL), 0);
}
END_TEST

START_TEST(the_same_labels_on_the_same_worker_are_one_series)
{
	ck_assert_ptr_eq(calls(0, "send"), calls(0, "send"));
	ck_assert_ptr_ne(calls(0, "send"), calls(1, "send"));
	ck_assert_ptr_ne(calls(0, "send"), calls(0, "sendx"));
	ck_assert_uint_eq(metric_value(calls(0, "send")), 0);
}
END_TEST

START_TEST(a_family_is_introduced_once)
{
	calls(0, "a");
	metric(m, 0, METRIC_GAUGE, "loquat_between", "x", NULL, NULL);
	calls(0, "b");
	const char *first = strstr(text(), "# TYPE loquat_calls_total");
	ck_assert_ptr_nonnull(first);
	ck_assert_ptr_null(strstr(first + 1, "# TYPE loquat_calls_total"));
	ck_assert_ptr_null(strstr(first + 1, "loquat_between")); /* families by name, not mixed */
}
END_TEST

START_TEST(label_values_and_help_are_escaped)
{
	metric(m, 0, METRIC_COUNTER, "x", "a\nb\\c\"d", "l", (const char *const[]){ "q\"b\\n\n" });
	ck_assert_str_eq(text(), "# HELP x a\\nb\\\\c\"d\n# TYPE x counter\n"
				 "x{instance=\"chat-1\",l=\"q\\\"b\\\\n\\n\"} 0\n");
}
END_TEST

START_TEST(a_gauge_goes_up_and_down_and_below_zero)
{
	struct metric *g = metric(m, 0, METRIC_GAUGE, "g", "h", NULL, NULL);
	metric_set(g, -5);
	metric_set(metric(m, 1, METRIC_GAUGE, "g", "h", NULL, NULL), 2);
	ck_assert_ptr_nonnull(strstr(text(), "g{instance=\"chat-1\"} -3\n"));
}
END_TEST

static int64_t seven(void *arg)
{
	return *(int64_t *)arg;
}

START_TEST(a_gauge_can_be_computed_when_it_is_read)
{
	int64_t seven_now = 7;
	metrics_gauge_fn(m, "computed", "h", seven, &seven_now);
	ck_assert_str_eq(text(), "# HELP computed h\n# TYPE computed gauge\ncomputed{instance=\"chat-1\"} 7\n");
	seven_now = 8;
	ck_assert_ptr_nonnull(strstr(text(), "} 8\n"));
}
END_TEST

START_TEST(so_can_a_counter)
{
	int64_t seven_now = 7;
	metrics_counter_fn(m, "computed_total", "h", seven, &seven_now);
	ck_assert_str_eq(text(), "# HELP computed_total h\n# TYPE computed_total counter\n"
				 "computed_total{instance=\"chat-1\"} 7\n");
}
END_TEST

START_TEST(a_histogram_has_cumulative_buckets_in_seconds)
{
	static const struct {
		const char *le;
		unsigned n;
	} expected[] = { { "5e-05", 1 }, { "0.0001", 2 }, { "0.005", 3 }, { "0.01", 3 }, { "10.0", 4 }, { "+Inf", 5 } };
	struct metric *h = metric(m, 0, METRIC_HISTOGRAM, "t_seconds", "h", "method", (const char *const[]){ "send" });
	metric_observe_ns(h, 50000); /* an edge belongs to its bucket */
	metric_observe_ns(h, 50001);
	metric_observe_ns(h, 5000000);
	metric_observe_ns(h, 10000000000);
	metric_observe_ns(metric(m, 1, METRIC_HISTOGRAM, "t_seconds", "h", "method", (const char *const[]){ "send" }),
			  20000000000);
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		char line[128];
		snprintf(line, sizeof line, "t_seconds_bucket{instance=\"chat-1\",method=\"send\",le=\"%s\"} %u\n",
			 expected[i].le, expected[i].n);
		ck_assert_msg(strstr(text(), line) != NULL, "no %s in %s", line, text());
	}
	ck_assert_ptr_nonnull(strstr(text(), "# TYPE t_seconds histogram\n"));
	ck_assert_ptr_nonnull(strstr(text(), "t_seconds_sum{instance=\"chat-1\",method=\"send\"} 30.005100001\n"));
	ck_assert_ptr_nonnull(strstr(text(), "t_seconds_count{instance=\"chat-1\",method=\"send\"} 5\n"));
	ck_assert_uint_eq(metric_value(h), 4);
}
END_TEST

static void collect(void *arg, const struct metric_row *row)
{
	struct hist *h = arg;
	ck_assert_str_eq(row->name, "t");
	ck_assert_str_eq(row->labels, "method");
	ck_assert_uint_eq(row->values_n, 1);
	ck_assert_str_eq(row->values[0], "send");
	metric_hist_read(row->metric, h);
}

START_TEST(each_gives_a_reader_the_series_of_a_family)
{
	struct hist h = { 0 };
	for (unsigned worker = 0; worker < 3; worker++)
		metric_observe_ns(metric(m, worker, METRIC_HISTOGRAM, "t", "h", "method",
					 (const char *const[]){ "send" }),
				  1000000 * (worker + 1));
	calls(0, "other family");
	metrics_each(m, "t", collect, &h);
	ck_assert_uint_eq(h.count, 3);
	ck_assert_uint_eq(h.max_ns, 3000000);
	ck_assert_uint_eq(h.sum_ns, 6000000);
	ck_assert_uint_eq(hist_quantile_ns(&h, 1.0), 3000000);
}
END_TEST

/* ---- quantiles against exact ones ---- */

static uint64_t seed;
static uint64_t chance(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static int u64_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

START_TEST(quantiles_are_the_exact_ones_or_up_to_one_sixteenth_above)
{
	static const double qs[] = { 0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0 };
	enum { N = 20000 };
	uint64_t *v = malloc(N * sizeof *v);
	struct hist h = { 0 };
	seed = 88172645463325252u + (unsigned)_i;
	for (int i = 0; i < N; i++)
		hist_add(&h, v[i] = 1024 + (chance() >> (chance() % 36 + 28))); /* up to 68 s */
	qsort(v, N, sizeof *v, u64_compare);
	for (size_t i = 0; i < sizeof qs / sizeof *qs; i++) {
		size_t rank = (size_t)ceil(qs[i] * N);
		uint64_t exact = v[rank ? rank - 1 : 0], got = hist_quantile_ns(&h, qs[i]);
		ck_assert_msg(got >= exact && (double)got <= (double)exact * 1.0625, "q %g: %llu, exactly %llu", qs[i],
			      (unsigned long long)got, (unsigned long long)exact);
	}
	ck_assert_uint_eq(hist_quantile_ns(&h, 1.0), v[N - 1]);
	free(v);
}
END_TEST

START_TEST(quantiles_of_an_empty_histogram_are_0)
{
	struct hist h = { 0 };
	ck_assert_uint_eq(hist_quantile_ns(&h, 0.99), 0);
}
END_TEST

START_TEST(the_ends_of_a_histogram_hold_what_is_beyond)
{
	struct hist h = { 0 };
	hist_add(&h, 0);
	hist_add(&h, UINT64_MAX / 4);
	ck_assert_uint_le(hist_quantile_ns(&h, 0.5), 64);
	ck_assert_uint_eq(hist_quantile_ns(&h, 1.0), UINT64_MAX / 4);
}
END_TEST

START_TEST(merging_is_as_adding_to_one)
{
	struct hist a = { 0 }, b = { 0 }, both = { 0 };
	seed = 5;
	for (int i = 0; i < 1000; i++) {
		uint64_t v = chance() >> 30;
		hist_add(i % 2 ? &a : &b, v);
		hist_add(&both, v);
	}
	hist_merge(&a, &b);
	ck_assert_int_eq(memcmp(&a, &both, sizeof a), 0);
}
END_TEST

/* ---- rates ---- */

START_TEST(rates_are_per_second_over_the_last_1_10_and_60)
{
	struct rate r = { 0 };
	ck_assert(rate_per_s(&r, 1) == 0);
	for (uint64_t s = 0; s <= 200; s++)
		rate_note(&r, s, s < 190 ? s * 10 : 1890 + (s - 189) * 100); /* 10 per second, then 100 */
	ck_assert_double_eq_tol(rate_per_s(&r, 1), 100, 0.01);
	ck_assert_double_eq_tol(rate_per_s(&r, 10), 100, 0.01);
	ck_assert_double_eq_tol(rate_per_s(&r, 60), (11 * 100 + 49 * 10) / 60.0, 2);
}
END_TEST

START_TEST(what_was_there_at_the_first_look_is_no_rate)
{
	struct rate r = { 0 };
	rate_note(&r, 5, 1000000);
	ck_assert(rate_per_s(&r, 60) == 0);
	rate_note(&r, 6, 1000010);
	ck_assert_double_eq_tol(rate_per_s(&r, 1), 10, 0.01);
}
END_TEST

START_TEST(seconds_without_a_look_share_equally)
{
	struct rate r = { 0 };
	rate_note(&r, 100, 0);
	rate_note(&r, 110, 1000);
	ck_assert_double_eq_tol(rate_per_s(&r, 1), 100, 0.01);
	ck_assert_double_eq_tol(rate_per_s(&r, 10), 100, 0.01);
	rate_note(&r, 1110, 3000);
	ck_assert_double_eq_tol(rate_per_s(&r, 60), 2, 0.05);
	rate_note(&r, 1110, 3001); /* twice in one second */
	ck_assert_double_eq_tol(rate_per_s(&r, 1), 3, 0.1);
}
END_TEST

/* ---- workers write and make series while a reader reads ---- */

enum { WORKERS = 3, ROUNDS = 20000 };
static _Atomic unsigned ended;

static void *work(void *arg)
{
	unsigned worker = (unsigned)(size_t)arg;
	char method[16];
	for (unsigned i = 0; i < ROUNDS; i++) {
		snprintf(method, sizeof method, "m%u", i % 50);
		metric_add(calls(worker, method), 1);
		metric_observe_ns(metric(m, worker, METRIC_HISTOGRAM, "t", "h", NULL, NULL), i);
	}
	atomic_fetch_add(&ended, 1);
	return NULL;
}

START_TEST(a_reader_sees_growing_totals_while_workers_count)
{
	pthread_t threads[WORKERS];
	int64_t last = 0;
	for (size_t i = 0; i < WORKERS; i++)
		pthread_create(&threads[i], NULL, work, (void *)i);
	while (atomic_load(&ended) < WORKERS) {
		int64_t now = metrics_total(m, "loquat_calls_total", NULL);
		if (now < last)
			ck_abort_msg("a total fell");
		last = now;
		text();
	}
	for (int i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(metrics_total(m, "loquat_calls_total", NULL), WORKERS * ROUNDS);
	ck_assert_int_eq(metrics_total(m, "t", NULL), WORKERS * ROUNDS);
	const char *first = strstr(text(), "# TYPE loquat_calls_total"); /* made by all at once, yet one family */
	ck_assert_ptr_null(strstr(first + 1, "# TYPE loquat_calls_total"));
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("metrics");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, a_counter_is_written_with_its_labels_and_the_instance);
	tcase_add_test(c, the_workers_are_summed);
	tcase_add_test(c, the_same_labels_on_the_same_worker_are_one_series);
	tcase_add_test(c, a_family_is_introduced_once);
	tcase_add_test(c, label_values_and_help_are_escaped);
	tcase_add_test(c, a_gauge_goes_up_and_down_and_below_zero);
	tcase_add_test(c, a_gauge_can_be_computed_when_it_is_read);
	tcase_add_test(c, so_can_a_counter);
	tcase_add_test(c, a_histogram_has_cumulative_buckets_in_seconds);
	tcase_add_test(c, each_gives_a_reader_the_series_of_a_family);
	tcase_add_loop_test(c, quantiles_are_the_exact_ones_or_up_to_one_sixteenth_above, 0, 5);
	tcase_add_test(c, quantiles_of_an_empty_histogram_are_0);
	tcase_add_test(c, the_ends_of_a_histogram_hold_what_is_beyond);
	tcase_add_test(c, merging_is_as_adding_to_one);
	tcase_add_test(c, rates_are_per_second_over_the_last_1_10_and_60);
	tcase_add_test(c, what_was_there_at_the_first_look_is_no_rate);
	tcase_add_test(c, seconds_without_a_look_share_equally);
	tcase_add_test(c, a_reader_sees_growing_totals_while_workers_count);
	return suite_run("metrics", c);
}
