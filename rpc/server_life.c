#include <assert.h>
#include <stdlib.h>
#include "rpc/server.h"

/* The server as a whole: its beginning, its going, its end. */

struct rpc_server *rpc_server_new(struct worker *w)
{
	struct rpc_server *s = calloc(1, sizeof *s);
	struct metrics *m = w->service->metrics;
	const char *service = w->service->def->name;

	assert(s);
	s->worker = w;
	s->limited.run = limit_next;
	s->refused = metric(m, w->index, METRIC_COUNTER, "loquat_rpc_refused_total",
			    "Requests refused before a handler ran.", "service", &service);
	s->moved = metric(m, w->index, METRIC_COUNTER, "loquat_rpc_moved_total",
			  "Requests sent on to another instance, which has their key now.", "service", &service);
	s->cancelled = metric(m, w->index, METRIC_COUNTER, "loquat_rpc_cancelled_total",
			      "Requests whose caller cancelled them, or went, before the answer.", "service", &service);
	s->connections = metric(m, w->index, METRIC_GAUGE, "loquat_rpc_connections",
				"Inner connections accepted and open.", "service", &service);
	return s;
}

void rpc_server_drain(struct rpc_server *s)
{
	char out[FRAME_HEADER];
	size_t n = frame_put_empty(out, FRAME_GOAWAY);

	if (s->draining)
		return;
	for (struct link *l = s->links; l; l = l->next) {
		stream_write(&l->stream, out, n);
		atomic_fetch_add_explicit(&s->unacked, 1, memory_order_relaxed);
	}
	atomic_store_explicit(&s->draining, true, memory_order_release);
}

void rpc_server_move(struct rpc_server *s, bool on)
{
	char out[FRAME_HEADER + 1];

	frame_put_header(out, FRAME_GOAWAY, 1);
	out[FRAME_HEADER] = 1;
	for (struct link *l = s->links; l && on; l = l->next) {
		l->acked = false;
		stream_write(&l->stream, out, sizeof out);
		atomic_fetch_add_explicit(&s->unacked, 1, memory_order_relaxed);
	}
	atomic_store_explicit(&s->draining, on, memory_order_release);
	if (on)
		return;
	atomic_store_explicit(&s->unacked, 0, memory_order_relaxed);
	rpc_server_stop(s);
}

bool rpc_server_quiet(const struct rpc_server *s)
{
	/* acquire: pairs with link_ack's release, so that requests counted before it are seen */
	return atomic_load_explicit(&s->draining, memory_order_acquire) &&
	       atomic_load_explicit(&s->unacked, memory_order_acquire) == 0 &&
	       atomic_load_explicit(&s->in_flight, memory_order_acquire) == 0;
}

bool rpc_server_alone(const struct rpc_server *s)
{
	return atomic_load_explicit(&s->links_n, memory_order_acquire) == 0;
}

void rpc_server_stop(struct rpc_server *s)
{
	for (struct link *l = s->links; l; l = l->next)
		stream_close_flushed(&l->stream);
}

void rpc_server_close(struct rpc_server *s)
{
	for (uint32_t i = 0; i < s->methods; i++)
		limit_release(&s->method[i]); /* their handlers may be gone already */
	for (struct link *l = s->links; l; l = l->next)
		stream_close(&l->stream, 0);
}

void rpc_server_free(struct rpc_server *s)
{
	if (!s)
		return;
	assert(!s->links);
	free(s->method);
	free(s->flight);
	free(s);
}
