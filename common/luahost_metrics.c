/* A host's figures as metrics: written by its worker, at most once a second and only when it has run something. */
#include <stddef.h>

#include "common/luahost_private.h"

enum { EVERY_MS = 1000 };

static const struct row {
	const char *name, *help;
	enum metric_type type;
	size_t offset; /* in struct luahost_stats */
} rows[] = {
	{ "loquat_lua_memory_bytes", "Memory of the Lua states.", METRIC_GAUGE,
	  offsetof(struct luahost_stats, memory_bytes) },
	{ "loquat_lua_memory_max_bytes", "Bound of the Lua states' memory.", METRIC_GAUGE,
	  offsetof(struct luahost_stats, memory_max) },
	{ "loquat_lua_gc_cycles_total", "Cycles of Lua's collector.", METRIC_COUNTER,
	  offsetof(struct luahost_stats, gc_cycles) },
	{ "loquat_lua_coroutines", "Coroutines kept: running, waiting or pooled.", METRIC_GAUGE,
	  offsetof(struct luahost_stats, coroutines) },
	{ "loquat_lua_tasks", "Tasks running or waiting.", METRIC_GAUGE, offsetof(struct luahost_stats, tasks) },
	{ "loquat_lua_timers", "Timers set by scripts.", METRIC_GAUGE, offsetof(struct luahost_stats, timers) },
	{ "loquat_lua_tasks_total", "Tasks started.", METRIC_COUNTER, offsetof(struct luahost_stats, started) },
	{ "loquat_lua_errors_total", "Tasks that ended with an error.", METRIC_COUNTER,
	  offsetof(struct luahost_stats, failed) },
	{ "loquat_lua_over_budget_total", "Tasks stopped because they held their thread too long.", METRIC_COUNTER,
	  offsetof(struct luahost_stats, over_budget) },
	{ "loquat_lua_out_of_memory_total", "Tasks that reached the memory bound.", METRIC_COUNTER,
	  offsetof(struct luahost_stats, out_of_memory) },
	{ "loquat_lua_slow_total", "Waits of requests that took longer than lua.slow_ms.", METRIC_COUNTER,
	  offsetof(struct luahost_stats, slow) },
	{ "loquat_lua_rollbacks_total", "Code that gave way again to the code before it.", METRIC_COUNTER,
	  offsetof(struct luahost_stats, rollbacks) },
	{ "loquat_lua_reloads_total", "Code switched while it ran.", METRIC_COUNTER,
	  offsetof(struct luahost_stats, reloads) },
};
_Static_assert(sizeof rows / sizeof *rows == LUAHOST_METRICS, "as many as the host has room for");

void luahost_metrics_open(struct luahost *h)
{
	for (size_t i = 0; h->o.metrics && i < LUAHOST_METRICS; i++)
		h->metric[i] =
			metric(h->o.metrics, h->o.loop->index, rows[i].type, rows[i].name, rows[i].help, NULL, NULL);
	if (h->o.metrics)
		h->gc.metric = metric(h->o.metrics, h->o.loop->index, METRIC_HISTOGRAM, "loquat_lua_gc_pause_seconds",
				      "Pieces of the collector's work, done at ends of turns.", NULL, NULL);
}

void luahost_metrics_write(struct luahost *h)
{
	struct luahost_stats s;
	luahost_stats(h, &s);
	for (size_t i = 0; i < LUAHOST_METRICS; i++)
		metric_set(h->metric[i], *(const int64_t *)((const char *)&s + rows[i].offset));
	h->metrics_due_ms = h->o.loop->now_ms + EVERY_MS;
}
