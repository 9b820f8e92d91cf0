#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/service_private.h"

/*
 * The route table's source: the rows of the cluster file at first, then the live file paths.var/routes.lua that the
 * supervisor writes, re-read whenever its folder changes. A file that does not check changes nothing.
 */
#define LIVE_FILE      "routes.lua"
#define LIVE_BYTES_MAX (1 << 20)

static int live_load(struct service *s, char *error, size_t size, struct route_table **out)
{
	char path[ENV_PATH_MAX + 16], *text;
	size_t n;

	snprintf(path, sizeof path, "%s/" LIVE_FILE, s->var);
	int err = env_file_load(s->env, path, LIVE_BYTES_MAX, &text, &n);

	if (err < 0) {
		snprintf(error, size, "%s: %s", path, err_text(err));
		return err;
	}
	err = route_from_text(text, n, error, size, out);
	free(text);
	return err;
}

struct handed {
	struct inbox_msg msg;
	struct worker *worker;
	struct route_table *table;
};

static void worker_routes(struct worker *w, struct route_table *table)
{
	struct route_table *old = w->routes;

	w->routes = table;
	rpc_client_routes(w->client);
	if (w->on_routes)
		w->on_routes(w);
	route_unref(old);
}

static void handed_run(struct inbox_msg *m)
{
	struct handed *h = (struct handed *)((char *)m - offsetof(struct handed, msg));

	worker_routes(h->worker, h->table);
	free(h);
}

static void hand_out(struct service *s, struct route_table *t)
{
	for (unsigned i = 0; s->worker && i < s->workers; i++) {
		struct handed *h = calloc(1, sizeof *h);

		assert(h);
		h->msg.run = handed_run;
		h->worker = s->worker[i];
		h->table = route_ref(t);
		loop_post(h->worker->loop, &h->msg);
	}
	worker_routes(&s->p->control_worker, route_ref(t));
}

static void on_change(void *arg)
{
	struct service *s = arg;
	struct route_table *t;
	char error[256];
	int err = s->p->shut ? ERR_NOT_FOUND : live_load(s, error, sizeof error, &t);

	if (err == ERR_NOT_FOUND)
		return;
	if (err < 0) {
		log_warn(s->log, "routes.refused", "why=%s", error);
		return;
	}
	if (t->version <= s->p->routes->version) {
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
	int err = live_load(s, error, error_size, &s->p->routes);

	if (err == ERR_NOT_FOUND)
		err = route_from_config(s->config, false, error, error_size, &s->p->routes);
	return err;
}

int routes_watch(struct service *s)
{
	int err = env_watch(s->control->ev, s->var, on_change, s, &s->p->route_watch);

	if (err == 0)
		on_change(s); /* it may have changed between the reading and the watching */
	return err;
}
