#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app.h"
#include "rpc/etcd_config.h"
#include "rpc/service_private.h"

/* The newest route table, and how each worker gets its reference. Where it comes from: rpc/route_source.h. */

struct handed {
	struct inbox_msg msg;
	struct worker *worker;
	struct route_table *table;
	uint64_t turn;
};

static void worker_routes(struct worker *w, struct route_table *table, uint64_t turn)
{
	struct route_table *old = w->routes;

	w->routes = table;
	w->turn = turn;
	app_moves_see(w->app);
	rpc_client_routes(w->client);
	if (w->on_routes)
		w->on_routes(w);
	route_unref(old);
}

static void handed_run(struct inbox_msg *m)
{
	struct handed *h = (struct handed *)((char *)m - offsetof(struct handed, msg));

	worker_routes(h->worker, h->table, h->turn);
	free(h);
}

static void hand_out(struct service *s, struct route_table *t)
{
	uint64_t turn = moves_table(s->p->moves, t);

	for (unsigned i = 0; s->worker && i < s->workers; i++) {
		struct handed *h = calloc(1, sizeof *h);

		assert(h);
		h->msg.run = handed_run;
		h->worker = s->worker[i];
		h->table = route_ref(t);
		h->turn = turn;
		loop_post(h->worker->loop, &h->msg);
	}
	worker_routes(&s->p->control_worker, route_ref(t), turn);
}

static void on_table(void *arg, struct route_table *t)
{
	struct service *s = arg;

	if (s->p->shut) {
		route_unref(t);
		return;
	}
	log_info(s->log, "routes.changed", "version=%llu instances=%zu", (unsigned long long)t->version, t->rows);
	route_unref(s->p->routes);
	s->p->routes = t;
	hand_out(s, t);
}

int routes_open(struct service *s, char *error, size_t error_size)
{
	int err = etcd_tls_open(s->env, s->config, s->root, error, error_size, &s->p->etcd_tls);

	if (err < 0)
		return err;
	return route_source_first(s->env, s->config, s->var, s->id, error, error_size, &s->p->routes);
}

int routes_watch(struct service *s)
{
	struct route_source_options o = {
		.loop = s->control,
		.log = s->log,
		.metrics = s->metrics,
		.worker = SERVICE_CONTROL_WORKER,
		.config = s->config,
		.var = s->var,
		.tls = s->p->etcd_tls,
		.id = s->id,
		.own = s->row,
		.epoch = s->epoch,
		.version = s->p->routes->version,
		.on_table = on_table,
		.arg = s,
	};

	return route_source_open(&o, &s->p->source);
}
