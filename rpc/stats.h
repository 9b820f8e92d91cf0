#pragma once
#include <stdint.h>
#include "common/metrics.h"
/*
 * stats: requests, errors and latency per method, on one worker: the figures behind /stats and /metrics.
 *
 * Families: loquat_rpc_requests_total{service,method}, loquat_rpc_errors_total{service,method,error},
 *           loquat_rpc_duration_seconds{service,method}. A connector counts the client requests it answers in the same
 *           families, under the route's names.
 * Threads:  owner worker only.
 */
struct method_stats {
	struct metrics *metrics;
	unsigned worker;
	const char *service, *method; /* "scene", "sceneHandler.echo"; not copied */
	struct metric *requests, *duration;
	struct metric *errors[9]; /* by number of the public error, made at the first */
};
void method_stats_init(struct method_stats *s, struct metrics *m, unsigned worker, const char *service,
		       const char *method);
/* One request has been answered: err 0 or negative, after ns. */
void method_stats_note(struct method_stats *s, int err, uint64_t ns);
