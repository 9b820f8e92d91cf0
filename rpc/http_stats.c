#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/token.h"
#include "rpc/http_private.h"
#include "rpc/service_private.h"

/* ---- sampling once a second --------------------------------------------------------------------------------------- */

static struct stats_method *find(struct http_face *h, const char *service, const char *method)
{
	char name[96];
	struct stats_method *m, **at = &h->methods;

	snprintf(name, sizeof name, "%s.%s", service, method);
	while (*at && strcmp((*at)->name, name) < 0)
		at = &(*at)->next;
	if (*at && !strcmp((*at)->name, name))
		return *at;
	m = calloc(1, sizeof *m);
	assert(m);
	memcpy(m->name, name, sizeof name);
	m->next = *at;
	*at = m;
	return m;
}

static void add_requests(void *arg, const struct metric_row *row)
{
	find(arg, row->values[0], row->values[1])->count += metric_value(row->metric);
}

static void add_durations(void *arg, const struct metric_row *row)
{
	metric_hist_read(row->metric, &find(arg, row->values[0], row->values[1])->hist);
}

static void add_errors(void *arg, const struct metric_row *row)
{
	int err = -err_from_word(row->values[2]);

	if (err >= 1 && err <= 8)
		find(arg, row->values[0], row->values[1])->error[err] += metric_value(row->metric);
}

static void clear(struct http_face *h)
{
	for (struct stats_method *m = h->methods; m; m = m->next) {
		m->count = 0;
		memset(&m->hist, 0, sizeof m->hist);
		memset(m->error, 0, sizeof m->error);
	}
}

static void on_second(struct timer *t, uint64_t now_ms)
{
	struct http_face *h = (struct http_face *)((char *)t - offsetof(struct http_face, second));

	clear(h);
	metrics_each(h->service->metrics, "loquat_rpc_requests_total", add_requests, h);
	for (struct stats_method *m = h->methods; m; m = m->next)
		rate_note(&m->rate, now_ms / 1000, m->count);
	loop_timer(h->service->control, t, 1000);
}

static void add_hist(void *arg, const struct metric_row *row)
{
	metric_hist_read(row->metric, arg);
}

/* In all workers. */
static void gc_pauses(const struct service *s, struct hist *out)
{
	memset(out, 0, sizeof *out);
	metrics_each(s->metrics, "loquat_lua_gc_pause_seconds", add_hist, out);
}

static int64_t gc_p99_ms(void *arg)
{
	struct hist pauses;

	gc_pauses(arg, &pauses);
	return (int64_t)((hist_quantile_ns(&pauses, 0.99) + 999999) / 1000000);
}

void stats_start(struct http_face *h)
{
	h->second.fire = on_second;
	loop_timer(h->service->control, &h->second, 0);
	if (h->service->lua_src)
		metrics_gauge_fn(h->service->metrics, "loquat_lua_gc_pause_p99_seconds",
				 "Of 100 pieces of Lua's collector's work 99 were shorter, rounded up to milliseconds.",
				 gc_p99_ms, h->service);
}

void stats_stop(struct http_face *h)
{
	loop_timer_stop(h->service->control, &h->second);
	for (struct stats_method *m = h->methods, *next; m; m = next) {
		next = m->next;
		free(m);
	}
}

/* ---- the report ------------------------------------------------------------------------------------------------------- */

static void add_us(struct buf *out, const char *name, uint64_t ns)
{
	buf_addf(out, ",\"%s\":%llu", name, (unsigned long long)(ns / 1000));
}

static void add_method(struct buf *out, const struct stats_method *m)
{
	const char *comma = "";

	buf_addf(out, "\"%s\":{\"count\":%llu,\"rate_1s\":%.1f,\"rate_10s\":%.1f,\"rate_60s\":%.1f", m->name,
		 (unsigned long long)m->count, rate_per_s(&m->rate, 1), rate_per_s(&m->rate, 10),
		 rate_per_s(&m->rate, 60));
	add_us(out, "p50_us", hist_quantile_ns(&m->hist, 0.50));
	add_us(out, "p90_us", hist_quantile_ns(&m->hist, 0.90));
	add_us(out, "p99_us", hist_quantile_ns(&m->hist, 0.99));
	add_us(out, "max_us", m->hist.max_ns);
	buf_addstr(out, ",\"errors\":{");
	for (int i = 1; i <= 8; i++) {
		if (!m->error[i])
			continue;
		buf_addf(out, "%s\"%s\":%llu", comma, err_word(-i), (unsigned long long)m->error[i]);
		comma = ",";
	}
	buf_addstr(out, "}}");
}

static void add_sqllog(struct buf *out, struct service *s)
{
	struct sqllog_figures f;

	sqllog_figures(s->sqllog, &f);
	buf_addf(out, ",\"sqllog\":{\"records\":%llu,\"bytes\":%llu,\"unsynced\":%llu,\"lsn\":%llu,\"failing\":%s}",
		 (unsigned long long)f.records, (unsigned long long)f.bytes, (unsigned long long)f.unsynced,
		 (unsigned long long)sqllog_lsn(s->sqllog), sqllog_failing(s->sqllog) ? "true" : "false");
}

static void add_cache(struct buf *out, struct service *s)
{
	static const char *const figures[][2] = {
		{ "entries", "loquat_cache_entries" },         { "bytes", "loquat_cache_bytes" },
		{ "hits", "loquat_cache_hits_total" },         { "misses", "loquat_cache_misses_total" },
		{ "evicted", "loquat_cache_evictions_total" }, { "expired", "loquat_cache_expired_total" },
	};
	const char *comma = "";

	buf_addstr(out, ",\"cache\":{");
	for (size_t i = 0; i < sizeof figures / sizeof *figures; i++, comma = ",")
		buf_addf(out, "%s\"%s\":%lld", comma, figures[i][0],
			 (long long)metrics_total(s->metrics, figures[i][1], NULL));
	buf_addch(out, '}');
}

/* Figures a service exports as gauges or counters are worth a look in one place: sums by family. */
static void add_total(struct buf *out, struct service *s, const char *key, const char *family)
{
	buf_addf(out, ",\"%s\":%lld", key, (long long)metrics_total(s->metrics, family, NULL));
}

static void add_lua(struct buf *out, struct http_face *h)
{
	struct service *s = h->service;
	struct hist pauses;

	buf_addf(out, ",\"lua\":{\"version\":\"%s\",\"previous\":\"%s\",\"since_ms\":%llu", h->loaded->lua.version,
		 h->loaded->lua.previous, (unsigned long long)h->loaded->lua.since_ms);
	add_total(out, s, "tasks_total", "loquat_lua_tasks_total");
	add_total(out, s, "errors_total", "loquat_lua_errors_total");
	add_total(out, s, "memory_bytes", "loquat_lua_memory_bytes");
	gc_pauses(s, &pauses);
	add_us(out, "gc_pause_p99_us", hist_quantile_ns(&pauses, 0.99));
	add_us(out, "gc_pause_max_us", pauses.max_ns);
	buf_addch(out, '}');
}

static void add_messages(struct buf *out, struct http_face *h)
{
	const struct schema *previous = h->loaded->messages.previous;

	buf_addf(out, ",\"messages\":{\"version\":\"%s\",\"previous\":\"%s\",\"since_ms\":%llu}",
		 schema_version(h->service->schema), previous ? schema_version(previous) : "",
		 (unsigned long long)h->loaded->messages.since_ms);
}

void stats_json(struct http_face *h, struct buf *out)
{
	struct service *s = h->service;
	const char *comma = "";

	clear(h);
	metrics_each(s->metrics, "loquat_rpc_requests_total", add_requests, h);
	metrics_each(s->metrics, "loquat_rpc_duration_seconds", add_durations, h);
	metrics_each(s->metrics, "loquat_rpc_errors_total", add_errors, h);
	buf_addf(
		out,
		"{\"instance\":\"%s\",\"service\":\"%s\",\"uptime_s\":%.1f,\"epoch\":%llu,\"workers\":%u,\"methods\":{",
		s->id, s->def->name, (double)(env_mono_ns(s->env) - s->p->started_ns) / 1e9,
		(unsigned long long)s->epoch, s->workers);
	for (const struct stats_method *m = h->methods; m; m = m->next) {
		buf_addstr(out, comma);
		add_method(out, m);
		comma = ",";
	}
	buf_addch(out, '}');
	char print[TOKEN_PRINT_MAX];

	token_print(s->token_key, print);
	buf_addf(out, ",\"token_key\":\"%s\"", print);
	add_total(out, s, "sessions", "loquat_sessions");
	add_total(out, s, "calls_in_flight", "loquat_rpc_calls_in_flight");
	add_total(out, s, "avoided", "loquat_rpc_avoided");
	buf_addf(out, ",\"rss_bytes\":%llu,\"cpu_us\":%llu", (unsigned long long)env_rss_bytes(s->env),
		 (unsigned long long)env_cpu_us(s->env));
	if (s->sqllog)
		add_sqllog(out, s);
	add_messages(out, h);
	if (s->lua_src) {
		add_cache(out, s);
		add_lua(out, h);
	}
	if (s->def->stats) {
		buf_addch(out, ',');
		s->def->stats(s, out);
	}
	buf_addstr(out, "}\n");
}
