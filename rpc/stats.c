#include "rpc/stats.h"
#include <assert.h>
#include "common/err.h"

void method_stats_init(struct method_stats *s, struct metrics *m, unsigned worker, const char *service,
		       const char *method)
{
	const char *labels[] = { service, method };

	*s = (struct method_stats){ .metrics = m, .worker = worker, .service = service, .method = method };
	s->requests = metric(m, worker, METRIC_COUNTER, "loquat_rpc_requests_total", "Requests answered.",
			     "service,method", labels);
	s->duration = metric(m, worker, METRIC_HISTOGRAM, "loquat_rpc_duration_seconds",
			     "Time from a request's arrival to its answer.", "service,method", labels);
}

void method_stats_note(struct method_stats *s, int err, uint64_t ns)
{
	metric_add(s->requests, 1);
	metric_observe_ns(s->duration, ns);
	if (err >= 0)
		return;
	int public = -err_public(err);

	assert(public >= 1 && public <= 8);
	err = -public; /* the label is one of the eight too */
	if (!s->errors[public]) {
		const char *labels[] = { s->service, s->method, err_word(err) };

		s->errors[public] = metric(s->metrics, s->worker, METRIC_COUNTER, "loquat_rpc_errors_total",
					   "Requests that ended with an error.", "service,method,error", labels);
	}
	metric_add(s->errors[public], 1);
}
