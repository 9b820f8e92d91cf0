#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app.h"
#include "rpc/service_private.h"
#include "rpc/slow.h"

/*
 * The order of a service's life. Everything here is on the control thread unless its name begins with worker_.
 *
 *   life_start → init_service → workers start … all up → reg_service → ready
 *   stop wanted → draining … nothing under way → stop_service → what was recorded is durable and answered
 *   → links close … all closed → workers stop … all down → the control loop ends
 */
#define DRAIN_LOOK_MS 5
#define CLOSE_MS      1000 /* how long the last answers may take on their way out */
#define LUA_WATCH_MS  250  /* at most; four looks in a budget */

static void life_workers_up(void *arg);
static void life_worker_down(void *arg);

/* ---- workers --------------------------------------------------------------------------------------------------- */

/* The worker stands; with Lua, its init_service has ended. */
static void worker_opened(struct worker *w, int err)
{
	struct service *s = w->service;

	if (err < 0)
		service_fail(s, "%s: init_service of worker %u failed: see the log", s->id, w->index);
	loop_call(s->control, life_workers_up, s);
}

static void worker_begin(struct loop *loop, void *arg)
{
	struct worker *w = arg;
	struct service *s = w->service;

	char poll_us[48];

	assert(w->loop == loop); /* written by loop_start, before the thread began: the control thread reads it too */
	snprintf(poll_us, sizeof poll_us, "%s.poll_us", s->def->name);
	env_loop_poll(loop->ev, (uint32_t)config_int(s->config, poll_us, 0));
	w->client = rpc_client_new(w);
	w->server = rpc_server_new(w);
	w->slow = calloc(1, sizeof *w->slow);
	assert(w->slow);
	if (s->sqllog)
		sqllog_join(s->sqllog, loop);
	if (s->def->worker_start && s->def->worker_start(w) < 0)
		service_fail(s, "%s: worker %u did not start", s->id, w->index);
	else if (s->lua_src)
		app_open(w, worker_opened);
	else
		worker_opened(w, 0);
}

static void worker_end(struct loop *loop, void *arg)
{
	struct worker *w = arg;
	struct service *s = w->service;

	(void)loop;
	if (s->def->worker_stop)
		s->def->worker_stop(w);
	app_close(w->app);
	w->app = NULL;
	rpc_server_close(w->server);
	rpc_client_stop(w->client);
	loop_call(s->control, life_worker_down, s);
}

/* The last answers still go out. */
static void worker_close_links(struct worker *w, void *arg)
{
	(void)arg;
	rpc_server_stop(w->server);
}

static void worker_drain(struct worker *w, void *arg)
{
	(void)arg;
	rpc_server_drain(w->server);
	if (w->service->def->worker_drain)
		w->service->def->worker_drain(w);
}

static int workers_start(struct service *s)
{
	s->worker = calloc(s->workers, sizeof *s->worker);
	assert(s->worker);
	for (unsigned i = 0; i < s->workers; i++) {
		struct worker *w = s->worker[i] = calloc(1, sizeof *w);

		assert(w);
		w->service = s;
		w->index = i;
		w->routes = route_ref(s->p->routes);
		w->schema = s->schema;
		w->turn = moves_turn(s->p->moves);
	}
	for (unsigned i = 0; i < s->workers; i++) {
		char name[32];
		int err;

		snprintf(name, sizeof name, "worker-%u", i);
		err = loop_start(s->env, name, i, worker_begin, worker_end, s->worker[i], &s->worker[i]->loop);
		if (err < 0) {
			service_fail(s, "%s: thread %s did not start: %s", s->id, name, env_last_error());
			return err;
		}
	}
	return 0;
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

static void on_signal(void *arg, int signo)
{
	struct service *s = arg;

	log_info(s->log, "service.signal", "signal=%d", signo);
	life_stop_requested(s);
}

static int control_worker_start(struct service *s)
{
	struct worker *w = &s->p->control_worker;

	w->service = s;
	w->index = SERVICE_CONTROL_WORKER;
	w->loop = s->control;
	w->routes = route_ref(s->p->routes);
	w->schema = s->schema;
	w->client = rpc_client_new(w);
	if (s->p->replicated)
		s->p->standby = standby_new(s, config_string(s->config, "sqllog.standby", ""));
	s->p->moves = moves_new(s);
	tls_watch(s);
	return routes_watch(s);
}

/* As a reload does, before anything runs: what check() of init.lua refuses does not start. */
static int lua_check(struct service *s)
{
	char error[1024];
	int err = s->lua_src ? app_check(&s->p->control_worker, s->lua_src, s->schema, error, sizeof error) : 0;

	if (err < 0)
		service_fail(s, "%s: %s", s->id, error);
	return err;
}

void life_start(struct loop *control, void *arg)
{
	struct service *s = arg;

	assert(s->control == control); /* written by loop_start; service_stop reads it on any thread */
	env_signal(control->ev, SIGTERM, on_signal, s);
	env_signal(control->ev, SIGINT, on_signal, s);
	if (control_worker_start(s) < 0) {
		service_fail(s, "%s: %s cannot be watched: %s", s->id, s->var, env_last_error());
		return;
	}
	s->p->begun = true;
	if (s->def->init_service && s->def->init_service(s) < 0)
		service_fail(s, "%s: init_service failed", s->id);
	else if (lua_check(s) == 0 && (!s->p->options.take_over || handover_ask(s) == 0))
		workers_start(s);
}

static uint32_t lua_watch_ms(const struct service *s)
{
	uint32_t ms = (uint32_t)config_int(s->config, "lua.budget_ms", 1000) / 4;

	return ms < 1 ? 1 : ms < LUA_WATCH_MS ? ms : LUA_WATCH_MS;
}

/* A task over its budget is stopped at most one look later. */
static void on_lua_watch(struct timer *t, uint64_t now_ms)
{
	struct service_private *p = (struct service_private *)((char *)t - offsetof(struct service_private, lua_watch));
	struct service *s = p->control_worker.service;
	bool again = false;

	(void)now_ms;
	for (unsigned i = 0; i < s->workers; i++)
		again = (s->worker[i]->app && luahost_watch(app_host(s->worker[i]->app))) || again;
	if (again)
		loop_timer(s->control, t, lua_watch_ms(s));
}

static void life_workers_up(void *arg)
{
	struct service *s = arg;

	if (++s->p->workers_up < s->workers || s->p->stopping || service_failure(s))
		return;
	if (reg_service(s) < 0)
		return;
	atomic_store(&s->state, SERVICE_READY);
	route_source_enter(s->p->source);
	s->p->lua_watch.fire = on_lua_watch;
	on_lua_watch(&s->p->lua_watch, s->control->now_ms);
	if (s->p->options.take_over)
		handover_begin(s);
	else
		handover_open(s);
	log_info(s->log, "service.ready", "workers=%u epoch=%llu rpc=%u http=%u", s->workers,
		 (unsigned long long)s->epoch, s->row->rpc_port, s->row->http_port);
}

static const char *port_trouble(int err)
{
	return err == ERR_EXISTS ? "another process has the port" : env_last_error();
}

int reg_service(struct service *s)
{
	int err = acceptor_start(s, s->row->host, s->row->rpc_port, &s->p->acceptor);

	if (err < 0) {
		service_fail(s, "%s: rpc port %s:%u: %s", s->id, s->row->host, s->row->rpc_port, port_trouble(err));
		return err;
	}
	if (s->row->http_port && (err = http_face_start(s, &s->p->http)) < 0) {
		service_fail(s, "%s: http port %s:%u: %s", s->id, s->row->host, s->row->http_port, port_trouble(err));
		return err;
	}
	s->p->reg_done = true;
	return 0;
}

/* ---- stop ------------------------------------------------------------------------------------------------------- */

static bool is_quiet(struct service *s)
{
	for (unsigned i = 0; i < s->workers; i++)
		if (!rpc_server_quiet(s->worker[i]->server) || atomic_load(&s->worker[i]->busy))
			return false;
	return http_face_quiet(s->p->http);
}

static bool is_closed(struct service *s)
{
	if (!route_source_left(s->p->source) || !moves_left(s->p->moves))
		return false;
	for (unsigned i = 0; i < s->workers; i++)
		if (!rpc_server_alone(s->worker[i]->server))
			return false;
	return true;
}

static void life_stop_workers(struct service *s)
{
	handover_close(s);
	for (unsigned i = 0; i < s->workers; i++) {
		if (s->worker[i]->loop)
			loop_stop(s->worker[i]->loop);
		else /* its thread never started */
			loop_call(s->control, life_worker_down, s);
	}
}

static struct service *of_life_timer(struct timer *t)
{
	return ((struct service_private *)((char *)t - offsetof(struct service_private, life_timer)))
		->control_worker.service;
}

static void on_close_timer(struct timer *t, uint64_t now_ms)
{
	struct service *s = of_life_timer(t);

	if (is_closed(s) || now_ms >= s->p->until_ms)
		life_stop_workers(s);
	else
		loop_timer(s->control, t, DRAIN_LOOK_MS);
}

/* From here on nothing new is taken. */
static void life_shut(struct service *s)
{
	s->p->shut = true;
	acceptor_stop(s->p->acceptor);
	s->p->acceptor = NULL;
	http_face_shut(s->p->http);
	loop_timer_stop(s->control, &s->p->lua_watch);
	if (s->def->stop_service && s->p->reg_done)
		s->def->stop_service(s);
}

static void life_close_links(struct service *s)
{
	life_shut(s);
	if (s->sqllog)
		sqllog_stop(s->sqllog); /* who waits for it is told, and its answer leaves before the links close */
	moves_leave(s->p->moves);
	route_source_leave(s->p->source);
	service_each(s, worker_close_links, NULL);
	s->p->life_timer.fire = on_close_timer;
	s->p->until_ms = s->control->now_ms + CLOSE_MS;
	loop_timer(s->control, &s->p->life_timer, 1);
}

/* A worker's Lua has run its stop_service. */
static void life_said(void *arg)
{
	struct service *s = arg;

	if (++s->p->workers_said < s->workers || s->p->shut)
		return;
	loop_timer_stop(s->control, &s->p->life_timer);
	life_close_links(s);
}

static void worker_said(struct worker *w, int err)
{
	(void)err; /* logged; the rest stops all the same */
	loop_call(w->service->control, life_said, w->service);
}

static void worker_say(struct worker *w, void *arg)
{
	(void)arg;
	app_hook_then(w->app, "stop_service", "", false, worker_said);
}

static void on_drain_timer(struct timer *t, uint64_t now_ms)
{
	struct service *s = of_life_timer(t);
	bool quiet = is_quiet(s);

	if (now_ms >= s->p->until_ms || (quiet && !s->lua_src)) {
		life_close_links(s);
		return;
	}
	if (quiet && !s->p->asked) {
		s->p->asked = true;
		service_each(s, worker_say, NULL);
	}
	loop_timer(s->control, t, DRAIN_LOOK_MS);
}

void life_drain(struct service *s)
{
	struct service_private *p = s->p;

	if (p->stopping)
		return;
	p->stopping = true;
	atomic_store(&s->state, SERVICE_DRAINING);
	log_info(s->log, "service.draining", "after_s=%llu",
		 (unsigned long long)((env_mono_ns(s->env) - p->started_ns) / 1000000000u));
	p->life_timer.fire = on_drain_timer;
	p->until_ms = s->control->now_ms + (uint64_t)config_int(s->config, "rpc.drain_s", 5) * 1000;
	route_source_drain(s->p->source);
	service_each(s, worker_drain, NULL);
	loop_timer(s->control, &p->life_timer, 1);
}

static void on_leave_timer(struct timer *t, uint64_t now_ms)
{
	struct service *s = of_life_timer(t);

	if (moves_left(s->p->moves) || now_ms >= s->p->until_ms)
		life_stop_workers(s);
	else
		loop_timer(s->control, t, DRAIN_LOOK_MS);
}

/* Nobody was let in yet: there is nobody to be told, but who waits for what our row says. */
static void life_stop_early(struct service *s)
{
	life_shut(s);
	if (!moves_told(s->p->moves)) {
		life_stop_workers(s);
		return;
	}
	sqllog_stop(s->sqllog); /* the row says where it ends */
	moves_leave(s->p->moves);
	s->p->life_timer.fire = on_leave_timer;
	s->p->until_ms = s->control->now_ms + CLOSE_MS;
	loop_timer(s->control, &s->p->life_timer, 1);
}

/* A service that has not come up yet has nothing to drain. */
void life_stop_requested(void *arg)
{
	struct service *s = arg;

	if (s->p->stopping)
		return;
	if (atomic_load(&s->state) == SERVICE_READY) {
		life_drain(s);
		return;
	}
	s->p->stopping = true;
	if (s->worker) {
		life_stop_early(s);
	} else {
		s->p->workers_down = s->workers;
		loop_call(s->control, life_worker_down, s);
	}
}

/* The route table still names this instance, and means the new process. */
void life_leave(struct service *s)
{
	s->p->stopping = true;
	atomic_store(&s->state, SERVICE_DRAINING);
	life_close_links(s);
}

static void life_ended(struct service *s)
{
	struct service_private *p = s->p;

	http_face_stop(p->http);
	if (p->begun && s->def->free_service)
		s->def->free_service(s);
	standby_free(p->standby);
	p->standby = NULL;
	tls_unwatch(s);
	route_source_close(p->source);
	rpc_client_stop(p->control_worker.client); /* freed with the service, when its links' last callbacks have run */
	atomic_store(&s->state, SERVICE_STOPPED);
	log_info(s->log, "service.stopped", "uptime_s=%llu",
		 (unsigned long long)((env_mono_ns(s->env) - p->started_ns) / 1000000000u));
	if (p->options.on_stopped)
		p->options.on_stopped(p->options.arg, s);
	loop_stop(s->control);
}

static void life_worker_down(void *arg)
{
	struct service *s = arg;

	if (++s->p->workers_down < s->workers)
		return;
	if (s->sqllog)
		sqllog_stop(s->sqllog); /* it posts to the workers' loops, so before they are freed */
	moves_close(s->p->moves);
	for (unsigned i = 0; s->worker && i < s->workers; i++) {
		struct worker *w = s->worker[i];

		if (w->loop)
			loop_join(w->loop);
		rpc_client_free(w->client);
		rpc_server_free(w->server);
		free(w->slow);
		w->slow = NULL;
		route_unref(w->routes);
	}
	life_ended(s);
}
