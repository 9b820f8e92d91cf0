#include "deploy/loquat/supervisor.h"
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/env_real.h"
#include "deploy/loquat/reload.h"

#define LOOK_SOON_MS    100  /* until it is ready */
#define LOOK_LATER_MS   1000 /* afterwards */
#define LOOK_TIMEOUT_MS 2000
#define LOOKS_SILENT    3    /* after so many without an answer it hangs, rather than being slow */
#define SPARE_MS        5000 /* to end, beyond what an instance may wait for what is under way */
#define PATIENCE_MS     10000
#define DB_STOP_MS      60000 /* mariadbd writes its pages back */
#define DB_START_MS     5000  /* told to end in its first moment it never does; there is nothing to write back yet */
#define TOLD_MS         300   /* how long the others get to read that an instance leaves */

/* ---- the route table ------------------------------------------------------------------------------------- */

void supervisor_routes(const struct supervisor *up, struct route_table *out)
{
	out->rows = 0;
	for (size_t i = 0; i < up->instances; i++) {
		const struct instance *k = &up->instance[i];

		if (k->here && !k->routed)
			continue;
		out->row[out->rows] = *k->row;
		out->row[out->rows].epoch = k->epoch;
		out->row[out->rows++].state = k->leaving ? ROUTE_DRAINING : ROUTE_READY;
	}
}

static void routes_store(struct supervisor *up)
{
	struct route_table t = { .version = ++up->version, .row = calloc(up->instances + 1, sizeof *t.row) };
	char path[ENV_PATH_MAX + 16];
	struct buf text = BUF_INIT;

	assert(t.row);
	if (up->source) { /* they register themselves */
		free(t.row);
		return;
	}
	supervisor_routes(up, &t);
	route_to_text(&t, &text);
	snprintf(path, sizeof path, "%s/routes.lua", up->c->var);
	if (env_file_store(up->c->env, path, text.data, text.len, 0) < 0)
		screen_say(up, "%s: %s: the instances keep the table they have", path, env_last_error());
	buf_release(&text);
	free(t.row);
}

static void routes_version(struct supervisor *up)
{
	char path[ENV_PATH_MAX + 16], *text, error[256];
	struct route_table *old;
	size_t n;

	snprintf(path, sizeof path, "%s/routes.lua", up->c->var);
	if (env_file_load(up->c->env, path, 1 << 20, &text, &n) < 0)
		return;
	if (route_from_text(text, n, error, sizeof error, &old) == 0) { /* one that does not check is written anew */
		up->version = old->version;
		route_unref(old);
	}
	free(text);
}

/* ---- is it ready? ------------------------------------------------------------------------------------------ */

struct question {
	struct instance *instance;
	pid_t pid; /* an answer for a former life does not count */
};

static void look_again(struct instance *i)
{
	bool settled = i->child.state == CHILD_READY || !i->here;

	loop_timer(i->up->loop, &i->look, settled ? LOOK_LATER_MS : LOOK_SOON_MS);
}

static void note_why(struct instance *i, const struct env_http_answer *a)
{
	i->why[0] = '\0';
	if (a->err == 0 && a->status != 200)
		snprintf(i->why, sizeof i->why, "%.*s", (int)strcspn(a->body, "\n"), a->body);
	else if (a->err < 0 && (i->here ? i->child.ready_ms > 0 : i->starts))
		snprintf(i->why, sizeof i->why, "/readyz does not answer: %s", err_word(a->err));
}

/* One on another host is somebody else's to start; we only look. */
static void note_elsewhere(struct instance *i, const struct env_http_answer *a)
{
	if (a->err < 0) {
		i->child.state = CHILD_STOPPED;
		json_decref(i->stats);
		i->stats = NULL;
	} else if (a->status == 200)
		i->child.state = CHILD_READY;
	else
		i->child.state = strcmp(i->why, "draining") ? CHILD_STARTING : CHILD_DRAINING;
}

static void note_here(struct instance *i, const struct env_http_answer *a)
{
	if (i->next.pid)
		return; /* its port is the next one's already */
	if (a->err == 0 && !strcmp(i->why, "draining"))
		child_drains(&i->child);
	else if (a->err == 0 || !i->child.ready_ms || i->silent >= LOOKS_SILENT) /* one merely slow stays what it was */
		child_is_ready(&i->child, a->err == 0 && a->status == 200);
}

static void on_looked(void *arg, const struct env_http_answer *a)
{
	struct question *q = arg;
	struct instance *i = q->instance;
	bool same = i->child.pid == q->pid;

	free(q);
	if (!same || i->up->phase == PHASE_STOPPING)
		return;
	i->silent = a->err < 0 ? i->silent + 1 : 0;
	note_why(i, a);
	if (i->here)
		note_here(i, a);
	else
		note_elsewhere(i, a);
	reload_catch_up(i);
	look_again(i);
}

/* Nobody to ask: it takes calls when its port is open. */
static void look_at_port(struct instance *i)
{
	struct holder h;

	child_is_ready(&i->child, port_is_taken(i->row->host, i->row->rpc_port, &h));
	look_again(i);
}

static void on_look(struct timer *t, uint64_t now_ms)
{
	struct instance *i = (struct instance *)((char *)t - offsetof(struct instance, look));
	struct question *q;

	(void)now_ms;
	if (i->here && !i->child.pid)
		return;
	if (!i->row->http_port) {
		if (i->here)
			look_at_port(i);
		return;
	}
	q = malloc(sizeof *q);
	assert(q);
	*q = (struct question){ i, i->child.pid };
	if (env_http_call(i->up->loop->ev, i->row->host, i->row->http_port, "GET", "/readyz", NULL, NULL, 0,
			  LOOK_TIMEOUT_MS, on_looked, q) < 0) {
		free(q);
		look_again(i);
	}
}

/* ---- an instance's changes ------------------------------------------------------------------------------------ */

/* What a start still waits for; NULL: nothing. */
static const struct child *awaited(const struct supervisor *up)
{
	for (size_t i = 0; i < up->instances; i++) {
		const struct child *c = &up->instance[i].child;

		if (up->instance[i].here && c->wanted && c->state != CHILD_READY)
			return c;
	}
	return up->c->private_database && !up->db_ready ? &up->db_child : NULL;
}

static void on_patience(struct timer *t, uint64_t now_ms)
{
	struct supervisor *up = (struct supervisor *)((char *)t - offsetof(struct supervisor, patience));
	const struct child *c = awaited(up);
	bool database = !up->c->private_database && !up->db_ready;
	unsigned long long seconds = (now_ms - up->started_ms) / 1000;

	if (up->phase != PHASE_STARTING || !(c || database))
		return;
	const char *why = !c || c == &up->db_child ? "" : ((const struct instance *)c->owner)->why;

	if (database)
		screen_say(up, "after %llu s still waiting: %s", seconds, database_trouble(up->db));
	else
		screen_say(up, "after %llu s still waiting for %s (%s%s%s): %s logs %s%s", seconds, c->id,
			   child_state_word(c->state), *why ? ": " : "", why, up->c->typed, c->id, up->c->option);
	loop_timer(up->loop, t, PATIENCE_MS);
}

static void settle(struct supervisor *up)
{
	if (up->phase != PHASE_STARTING || awaited(up))
		return;
	up->phase = PHASE_READY;
	screen_first(up);
}

static void on_state(struct child *c, enum child_state before)
{
	struct instance *i = c->owner;
	struct supervisor *up = i->up;

	(void)before;
	if (c->state == CHILD_STARTING)
		look_again(i);
	if (!c->pid) {
		i->passed_by = RELOAD_PASSED_NOT; /* its next life reads the files as they are */
		json_decref(i->stats);
		i->stats = NULL;
		i->why[0] = '\0';
	}
	if (c->state == CHILD_FAILED)
		snprintf(i->why, sizeof i->why, "%.150s", c->last_line);
	if ((c->state == CHILD_STOPPED || c->state == CHILD_FAILED) && up->phase != PHASE_STOPPING) {
		i->routed = i->leaving = false;
		routes_store(up);
	}
	if (c->state == CHILD_FAILED && up->phase == PHASE_STARTING)
		supervisor_fail(up, "%s did not start: %s", c->id, c->last_line);
	if (up->phase == PHASE_STOPPING)
		stop_step(up);
	else
		settle(up);
}

static void on_line(struct child *c, const char *line)
{
	struct instance *i = c->owner;

	screen_line(i->up, c->id, (size_t)(i - i->up->instance), line);
}

static const struct child_ops instance_ops = { on_state, on_line };

struct instance *supervisor_find(struct supervisor *up, const char *id)
{
	for (size_t i = 0; id && i < up->instances; i++)
		if (!strcmp(up->instance[i].row->id, id))
			return &up->instance[i];
	return NULL;
}

/* ---- start, stop, drain ------------------------------------------------------------------------------------------ */

static bool ports_free(struct instance *i, char *why, size_t size)
{
	const struct {
		const char *what, *host;
		uint16_t port;
	} ports[] = { { "client", route_client_host(i->row), i->row->client_port },
		      { "rpc", i->row->host, i->row->rpc_port },
		      { "http", i->row->host, i->row->http_port } };
	struct holder h;

	for (size_t k = 0; k < 3; k++) {
		if (!ports[k].port || !port_is_taken(ports[k].host, ports[k].port, &h))
			continue;
		int n = snprintf(why, size, "%s: %s port %s:%u: ", i->row->id, ports[k].what, ports[k].host,
				 ports[k].port);

		if (h.pid)
			snprintf(why + n, size - (size_t)n, "taken by pid %d (%s)", h.pid, h.name);
		else
			snprintf(why + n, size - (size_t)n, "%s", strerror(errno));
		return false;
	}
	return true;
}

int instance_elsewhere(const struct instance *i, char *why, size_t size)
{
	snprintf(why, size, "%s belongs to another host (%s), whose supervisor has to be asked", i->row->id,
		 i->row->host);
	return ERR_DENIED;
}

int instance_start(struct instance *i, char *why, size_t size)
{
	if (i->child.wanted && (i->child.pid || i->child.state == CHILD_BACKOFF))
		return 0;
	if (i->child.pid) {
		snprintf(why, size, "%s is still ending (%s)", i->row->id, child_state_word(i->child.state));
		return ERR_BUSY;
	}
	if (!i->here)
		return instance_elsewhere(i, why, size);
	if (!ports_free(i, why, size))
		return ERR_DENIED;
	i->epoch = env_wall_us(i->up->c->env);
	i->routed = true;
	i->leaving = false;
	i->child.ever_ready = false;
	routes_store(i->up);
	return child_start(&i->child) < 0 ? ERR_IO : 0;
}

int instance_stop(struct instance *i)
{
	if (!i->child.pid && i->child.state != CHILD_BACKOFF)
		return ERR_NOT_FOUND;
	child_stop(&i->child);
	return 0;
}

struct leave {
	struct timer timer;
	struct instance *instance;
	pid_t pid;
};

static void on_told(struct timer *t, uint64_t now_ms)
{
	struct leave *l = (struct leave *)t;

	(void)now_ms;
	if (l->instance->child.pid == l->pid)
		child_stop(&l->instance->child); /* it waits itself for what is under way */
	free(l);
}

/* First everybody learns that new keys go elsewhere; then it is told to finish. */
int instance_drain(struct instance *i)
{
	struct leave *l;

	if (!i->child.pid)
		return instance_stop(i);
	i->leaving = true;
	routes_store(i->up);
	l = calloc(1, sizeof *l);
	assert(l);
	*l = (struct leave){ .timer.fire = on_told, .instance = i, .pid = i->child.pid };
	child_leaves(&i->child);
	loop_timer(i->up->loop, &l->timer, TOLD_MS);
	return 0;
}

/* ---- the database, then everybody ------------------------------------------------------------------------------------ */

static void start_all(struct supervisor *up)
{
	uint64_t epoch = env_wall_us(up->c->env);
	char path[48];

	for (size_t i = 0; i < up->instances; i++) {
		struct instance *k = &up->instance[i];

		snprintf(path, sizeof path, "instances[%zu].start", i + 1);
		k->routed = k->here && config_bool(up->c->config, path, true);
		k->epoch = epoch;
	}
	routes_store(up);
	for (size_t i = 0; i < up->instances; i++)
		if (up->instance[i].routed)
			child_start(&up->instance[i].child);
	for (size_t i = 0; i < up->instances; i++)
		if (!up->instance[i].here)
			look_again(&up->instance[i]);
	collect_start(up);
	settle(up); /* a configuration may start nothing here */
}

static void on_database(void *arg, const char *why)
{
	struct supervisor *up = arg;
	bool first = !up->db_ready;

	if (up->phase == PHASE_STOPPING)
		return;
	if (why && first) {
		supervisor_fail(up, "%s", why);
		return;
	}
	if (why) {
		screen_say(up, "%s", why);
		return;
	}
	up->db_ready = true;
	if (up->db_child.pid)
		child_is_ready(&up->db_child, true);
	if (first)
		start_all(up);
}

static void on_db_state(struct child *c, enum child_state before)
{
	struct supervisor *up = c->owner;

	(void)before;
	c->stop_ms = c->ready_ms ? DB_STOP_MS : DB_START_MS;
	if (up->phase == PHASE_STOPPING) {
		stop_step(up);
		return;
	}
	if (c->state == CHILD_STARTING) {
		database_close(up->db);
		up->db = database_open(up->c, up->loop, on_database, up);
	} else if ((c->state == CHILD_FAILED || c->state == CHILD_BACKOFF) && !up->db_ready) {
		supervisor_fail(up, "mariadbd ended at once: see %s/mariadb/error.log", up->c->var);
	}
}

static void on_db_line(struct child *c, const char *line)
{
	screen_line(c->owner, c->id, 7, line);
}

static const struct child_ops database_ops = { on_db_state, on_db_line };

/* ---- signals ------------------------------------------------------------------------------------------------------------ */

static void on_children(void *arg, int signo)
{
	struct supervisor *up = arg;
	int status;

	(void)signo;
	for (size_t i = 0; i < up->instances; i++) {
		struct child *c = &up->instance[i].child;

		if (c->pid && waitpid(c->pid, &status, WNOHANG) == c->pid &&
		    !upgrade_succeeds(&up->instance[i], c->pid, status))
			child_exited(c, status);
		c = &up->instance[i].next;
		if (c->pid && waitpid(c->pid, &status, WNOHANG) == c->pid)
			upgrade_exited(&up->instance[i], status);
	}
	if (up->db_child.pid && waitpid(up->db_child.pid, &status, WNOHANG) == up->db_child.pid)
		child_exited(&up->db_child, status);
}

static void on_end(void *arg, int signo)
{
	struct supervisor *up = arg;
	bool again = up->interrupted && up->loop->now_ms - up->interrupted_ms > 500;

	/* make and a terminal may both pass the first one on: only a later Ctrl-C is a second one */
	if (again && signo == SIGINT) {
		screen_say(up, "killing what still runs");
		for (size_t i = 0; i < up->instances; i++)
			child_kill(&up->instance[i].child);
		child_kill(&up->db_child);
		return;
	}
	if (!up->interrupted)
		up->interrupted_ms = up->loop->now_ms;
	up->interrupted = true;
	supervisor_stop(up);
}

void supervisor_stop(struct supervisor *up)
{
	if (up->phase == PHASE_STOPPING)
		return;
	up->phase = PHASE_STOPPING;
	for (size_t i = 0; i < up->instances; i++)
		child_kill(&up->instance[i].next); /* the players are still the old one's */
	stop_begin(up);
}

void supervisor_fail(struct supervisor *up, const char *fmt, ...)
{
	va_list args;
	char text[600];

	if (up->phase == PHASE_STOPPING)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	up->status = 2;
	supervisor_stop(up);
	complain("%s", text);
}

/* ---- start ------------------------------------------------------------------------------------------------------------------ */

static void describe(struct supervisor *up, struct instance *i)
{
	struct child *c = &i->child;

	snprintf(c->id, sizeof c->id, "%s", i->row->id);
	service_program(up->c, i->row->service, c->program);
	snprintf(c->log_path, sizeof c->log_path, "%s/log/%s.log", up->c->var, i->row->id);
	i->argv[0] = i->row->service;
	i->argv[1] = "--config";
	i->argv[2] = up->c->config_file;
	i->argv[3] = "--instance";
	i->argv[4] = i->row->id;
	c->argv = i->argv;
	c->loop = up->loop;
	c->base = up->loop->ev->base;
	c->ops = &instance_ops;
	c->stop_ms = (uint32_t)config_int(up->c->config, "rpc.drain_s", 5) * 1000 + SPARE_MS;
	c->owner = i;
	c->state = CHILD_STOPPED;
	i->look.fire = on_look;
}

static void describe_database(struct supervisor *up)
{
	struct child *c = &up->db_child;

	snprintf(c->id, sizeof c->id, "mariadb");
	c->loop = up->loop;
	c->base = up->loop->ev->base;
	c->ops = &database_ops;
	c->stop_ms = DB_START_MS;
	c->owner = up;
	c->state = CHILD_STOPPED;
	if (up->c->private_database)
		database_describe(up->c, c);
}

static void on_table(void *arg, struct route_table *take)
{
	struct supervisor *up = arg;

	route_unref(up->table);
	up->table = take;
}

static void watch_routes(struct supervisor *up)
{
	struct route_source_options o = {
		.loop = up->loop,
		.config = up->c->config,
		.var = up->c->var,
		.tls = up->etcd_tls,
		.id = "supervisor",
		.on_table = on_table,
		.arg = up,
	};

	if (!strcmp(config_string(up->c->config, "discovery.kind", "file"), "file"))
		return;
	if (log_open(up->c->env, "supervisor", NULL, LOG_INFO, &up->log) < 0)
		supervisor_fail(up, "its log could not be opened: %s", env_last_error());
	o.log = up->log;
	if (up->log && route_source_open(&o, &up->source) < 0)
		supervisor_fail(up, "discovery: %s", env_last_error());
}

void supervisor_start(struct supervisor *up)
{
	env_signal(up->loop->ev, SIGCHLD, on_children, up);
	env_signal(up->loop->ev, SIGTERM, on_end, up);
	env_signal(up->loop->ev, SIGINT, on_end, up);
	env_signal(up->loop->ev, SIGHUP, on_end, up);
	up->started_ms = up->loop->now_ms;
	up->patience.fire = on_patience;
	loop_timer(up->loop, &up->patience, PATIENCE_MS);
	routes_version(up);
	watch_routes(up);
	for (size_t i = 0; i < up->instances; i++)
		describe(up, &up->instance[i]);
	describe_database(up);
	if (face_start(up) < 0)
		return;
	if (up->c->private_database)
		child_start(&up->db_child);
	else
		up->db = database_open(up->c, up->loop, on_database, up);
}
