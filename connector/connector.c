#include "connector/connector.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "connector/announce.h"
#include "connector/entry.h"
#include "connector/forward.h"
#include "connector/handover.h"
#include "connector/missed.h"
#include "connector/remote.h"
#include "connector/session.h"
#include "connector/watch.h"

static const struct config_row rows[] = {
	{ "connector.guests", CONFIG_BOOL, "true", false, 0, 0, "Players may enter without a token." },
	{ "connector.tell_failures", CONFIG_BOOL, "true", false, 0, 0,
	  "Players are told why a request failed: the script's file and line, a statement; else only that it did." },
	{ "connector.heartbeat_s", CONFIG_INT, "10", false, 1, 3600,
	  "Seconds between heartbeats; two missed: closed." },
	{ "connector.request_s", CONFIG_INT, "5", false, 1, 600, "Every request is answered within so many seconds." },
	{ "connector.packets_per_s", CONFIG_INT, "2000", false, 1, 1000000,
	  "Per connection; above: busy, four times above: kicked." },
	{ "connector.bytes_per_s", CONFIG_INT, "0", false, 0, 1000000000,
	  "Of requests' bodies, per connection; above: busy, four times above: kicked; 0: no bound." },
	{ "connector.address_packets_per_s", CONFIG_INT, "0", false, 0, 100000000,
	  "Of all connections of one address (IPv6: /64); above: busy; 0: no bound." },
	{ "connector.per_address_max", CONFIG_INT, "20000", false, 1, 10000000, "Connections of one address." },
	{ "connector.per_subnet_max", CONFIG_INT, "0", false, 0, 10000000,
	  "Connections of one subnet (IPv4: /24, IPv6: /64); 0: no bound." },
	{ "connector.connects_per_s", CONFIG_INT, "0", false, 0, 1000000,
	  "New connections of one address (IPv6: /64) in a second; 0: no bound." },
	{ "connector.drain_s", CONFIG_INT, "0", false, 0, 3600,
	  "A draining connector kicks its players after so long." },
	{ "connector.dictionary", CONFIG_TABLE, NULL, true, 0, 0,
	  "Routes that stand first in the dictionary of codes, which has all: their codes stay." },
	{ "connector.dictionary[]", CONFIG_STRING, NULL, true, 1, 255, "A route." },
	{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
};

/* ---- the instance ---------------------------------------------------------------------------------------------- */

unsigned connector_elders(const struct service *s)
{
	unsigned n = 0;

	for (unsigned i = 0; s->worker && i < s->workers; i++) {
		struct edge *e = s->worker[i]->user;

		n += e ? atomic_load_explicit(&e->face.elders, memory_order_relaxed) : 0;
	}
	return n;
}

unsigned connector_sessions(const struct service *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->workers; i++)
		n += atomic_load_explicit(&s->worker[i]->busy, memory_order_relaxed);
	return n;
}

static bool heard_lately(const struct connector *c, const _Atomic uint64_t *ms)
{
	uint64_t at = atomic_load(ms), now = c->service->control->now_ms;

	return at && now < at + CONNECTOR_FOREIGN_MS;
}

static int64_t key_is_foreign(void *arg)
{
	const struct connector *c = arg;

	return heard_lately(c, &c->foreign_ms);
}

/* Red where nobody can be sent here: an odd host of several is so, and does not take the others out of a balancer. */
static const char *connector_not_ready(struct service *s)
{
	const struct connector *c = s->user;

	return heard_lately(c, &c->foreign_ms) && !heard_lately(c, &c->known_ms)
		       ? "no gate has this host's token.key: copy paths.var/keys/ from another host"
		       : NULL;
}

static int connector_init(struct service *s)
{
	struct connector *c = calloc(1, sizeof(*c));

	assert(c);
	s->user = c;
	c->service = s;
	c->guests = config_bool(s->config, "connector.guests", true);
	c->tell_failures = config_bool(s->config, "connector.tell_failures", true);
	c->request_ms = (unsigned)config_int(s->config, "connector.request_s", 5) * 1000 - CONNECTOR_SPARE_MS;
	c->grace_ms = (unsigned)config_int(s->config, "session.grace_s", 30) * 1000;
	c->drain_ms = (unsigned)config_int(s->config, "connector.drain_s", 0) * 1000;
	c->players_max = (unsigned)config_int(s->config, "gate.players_max", 10000);
	snprintf(c->start, sizeof(c->start), "%llx", (unsigned long long)s->epoch);
	token_print(s->token_key, c->token_key);
	metrics_gauge_fn(s->metrics, "loquat_token_key_foreign", "1: a gate has another token.key.", key_is_foreign, c);
	return clientset_new(s, "connector.dictionary", &c->set);
}

static void connector_free(struct service *s)
{
	struct connector *c = s->user;

	clientlisten_free(c->listen);
	clientset_free(c->set);
	free(c);
}

static void connector_stats(struct service *s, struct buf *json)
{
	buf_addf(json, "\"sessions\":%u,\"told_before\":%u", connector_sessions(s), connector_elders(s));
}

/* ---- a worker ------------------------------------------------------------------------------------------------------ */

uint64_t edge_trace(struct edge *e)
{
	uint64_t z = (e->trace += 0x9e3779b97f4a7c15u); /* splitmix64 */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (z ^ z >> 31) | 1;
}

static struct edge_method *method_slot(struct edge *e, const char *route, size_t n)
{
	for (uint64_t h = route_hash(route, n);; h++) {
		struct edge_method *m = &e->methods->slot[h & (e->methods->slots - 1)];
		if (!m->method || (strncmp(m->method->full, route, n) == 0 && !m->method->full[n]))
			return m;
	}
}

struct edge_method *edge_method(struct edge *e, const char *route, size_t n)
{
	struct edge_method *m = method_slot(e, route, n);

	return m->method ? m : NULL;
}

static struct edge_methods *methods_new(struct edge *e)
{
	size_t n = schema_methods(e->worker->schema);
	uint32_t slots = 16;

	while (slots < 2 * n)
		slots *= 2;
	struct edge_methods *m = calloc(1, sizeof(*m) + slots * sizeof(*m->slot));
	assert(m);
	*m = (struct edge_methods){ .next = e->all_methods, .schema = e->worker->schema, .slots = slots };
	return e->all_methods = m;
}

/* Messages that were taken since this program was built may name others: they are not there. */
static bool is_answered_here(const struct msg_method *m)
{
	static const char *const names[] = { "enter", "resume", "echo" };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(m->group, "entryHandler") == 0 && strcmp(m->name, names[i]) == 0)
			return true;
	return false;
}

/* What clients may ask for: the handlers of all services but the gate, which has its own port. */
static void methods_read(struct edge *e)
{
	struct service *s = e->worker->service;
	size_t n = schema_methods(e->worker->schema);

	for (e->methods = e->all_methods; e->methods; e->methods = e->methods->next)
		if (e->methods->schema == e->worker->schema)
			return;
	e->methods = methods_new(e);
	for (size_t i = 0; i < n; i++) {
		const struct msg_method *m = schema_method_at(e->worker->schema, i);
		bool local = strcmp(m->service, "connector") == 0;
		if (!m->is_handler || strcmp(m->service, "gate") == 0 || (local && !is_answered_here(m)))
			continue;
		struct edge_method *slot = method_slot(e, m->full, strlen(m->full));
		slot->method = m;
		slot->local = local;
		method_stats_init(&slot->stats, s->metrics, e->worker->index, m->service, m->local);
	}
}

static void methods_free(struct edge *e)
{
	while (e->all_methods) {
		struct edge_methods *m = e->all_methods;
		e->all_methods = m->next;
		free(m);
	}
}

static const struct msg_method *need(struct edge *e, const char *name)
{
	const struct msg_method *m = schema_method(e->worker->schema, name, strlen(name));

	assert(m); /* proto/ and this code are built together */
	return m;
}

static void edge_free(struct edge *e)
{
	clientconn_face_release(&e->face);
	token_once_free(e->once);
	forward_idle_free(e);
	free(e->slot);
	free(e->free_slot);
	methods_free(e);
	clienttold_free(e->told);
	free(e);
}

/* The connection's last callback. */
static void on_free(struct clientconn *c)
{
	struct session *s = session_of(c);
	struct edge *e = s->edge;

	clientlisten_gone(e->connector->listen, c->addr);
	session_attrs_free(s);
	free(s);
	if (e->stopping && !e->face.open)
		edge_free(e);
}

static const struct clientconn_ops conn_ops = { .on_message = forward_message,
						.on_end = session_end,
						.on_free = on_free };

static void face_open(struct edge *e)
{
	const struct config *config = e->worker->service->config;

	e->face = (struct clientconn_face){
		.loop = e->worker->loop,
		.log = e->worker->service->log,
		.ops = &conn_ops,
		.limits = {
			.heartbeat_s = (unsigned)config_int(config, "connector.heartbeat_s", 10),
			.packets_per_s = (unsigned)config_int(config, "connector.packets_per_s", 2000),
			.bytes_per_s = (unsigned)config_int(config, "connector.bytes_per_s", 0),
			.login_ms = CLIENTCONN_LOGIN_MS,
			.early_max = CLIENTCONN_EARLY_MAX,
			.body_max = CLIENTCONN_BODY_MAX,
			.out_max = CLIENTCONN_OUT_MAX,
		},
	};
	clientset_face(e->connector->set, &e->connector->listen, &e->face);
	clientconn_face_init(&e->face, e->worker->service->metrics, e->worker->index);
}

static void on_conn(void *user, struct env_conn *conn, const char *addr)
{
	session_accept(user, conn, addr);
}

static int listen_open(struct edge *e)
{
	struct connector *c = e->connector;
	struct service *s = c->service;
	struct clientlisten_options o = {
		.loop = e->worker->loop,
		.log = s->log,
		.metrics = s->metrics,
		.host = route_client_host(s->row),
		.port = s->row->client_port,
		.later = e->taking,
		.per_address_max = (unsigned)config_int(s->config, "connector.per_address_max", 20000),
		.per_subnet_max = (unsigned)config_int(s->config, "connector.per_subnet_max", 0),
		.connects_per_s = (unsigned)config_int(s->config, "connector.connects_per_s", 0),
		.packets_per_s = (unsigned)config_int(s->config, "connector.address_packets_per_s", 0),
		.on_conn = on_conn,
	};

	clientset_listen(c->set, &o);
	int err = clientlisten_new(&o, &c->listen);

	if (err < 0)
		service_fail(s, "%s: client port %s:%u: %s", s->id, o.host, o.port,
			     err == ERR_EXISTS ? "another process has the port" : env_last_error());
	return err;
}

static void on_join(void *arg)
{
	struct edge *e = arg;

	if (e->connector->listen)
		clientlisten_add(e->connector->listen, e->worker->loop, e);
}

static void kick_all(struct edge *e)
{
	for (uint32_t i = 0; i < e->slots; i++)
		if (e->slot[i])
			session_send_on(e->slot[i], "this connector is going away: resume at another");
}

static void on_drain(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	kick_all((struct edge *)((char *)t - offsetof(struct edge, drain)));
}

static int edge_start(struct worker *w)
{
	struct edge *e = calloc(1, sizeof(*e));

	assert(e);
	w->user = e;
	e->worker = w;
	e->connector = w->service->user;
	e->drain.fire = on_drain;
	env_random(w->service->env, &e->trace, sizeof(e->trace));
	env_random(w->service->env, &e->generation, sizeof(e->generation));
	e->login = need(e, "role.roleRemote.login");
	e->logout = need(e, "role.roleRemote.logout");
	e->announce = need(e, "role.roleRemote.announce");
	e->chat_add = need(e, "chat.chatRemote.add");
	e->chat_remove = need(e, "chat.chatRemote.remove");
	e->entered = need(e, "gate.gateRemote.entered");
	e->left = need(e, "app.roomRemote.left");
	e->ask_missed = need(e, "connector.connectorRemote.missed");
	if (w->index == 0)
		e->once = token_once_new(CONNECTOR_TOKEN_MS, CONNECTOR_ONCE_MAX);
	e->sessions = metric(w->service->metrics, w->index, METRIC_GAUGE, "loquat_sessions", "Players logged in here.",
			     NULL, NULL);
	methods_read(e);
	method_stats_init(&e->unknown, w->service->metrics, w->index, "unknown", "unknown");
	face_open(e);
	e->taking = service_takes_over(w->service);
	remote_register(e);
	announce_watch(e);
	if (w->index == 0 && listen_open(e) < 0)
		return ERR_CONFIG;
	loop_call(w->service->worker[0]->loop, on_join, e);
	return 0;
}

static void edge_drain(struct worker *w)
{
	struct edge *e = w->user;

	if (w->index == 0)
		clientlisten_close(e->connector->listen);
	loop_timer(w->loop, &e->drain, e->connector->drain_ms);
}

/* The last connection's end frees the edge, in this turn. */
static void edge_stop(struct worker *w)
{
	struct edge *e = w->user;

	if (!e)
		return;
	e->stopping = true;
	loop_timer_stop(w->loop, &e->drain);
	loop_timer_stop(w->loop, &e->hand);
	if (w->index == 0)
		clientlisten_close(e->connector->listen);
	announce_stop(e);
	missed_stop(e);
	entry_stop(e);
	watch_stop(e);
	bool none = !e->face.open;
	clientconn_face_close(&e->face);
	if (none)
		edge_free(e);
}

static int edge_messages_prepare(struct worker *w, const struct schema *next, char *error, size_t size)
{
	struct edge *e = w->user;

	return clientset_prepare(e->connector->set, next, &e->told, error, size);
}

static void edge_messages_taken(struct worker *w)
{
	struct edge *e = w->user;

	methods_read(e);
	clientset_take(e->connector->set, w->schema, e->told, &e->face);
}

const struct service_def connector_service = {
	.name = "connector",
	.config = rows,
	.init_service = connector_init,
	.free_service = connector_free,
	.worker_start = edge_start,
	.worker_drain = edge_drain,
	.worker_stop = edge_stop,
	.stats = connector_stats,
	.not_ready = connector_not_ready,
	.messages_prepare = edge_messages_prepare,
	.messages_taken = edge_messages_taken,
	.handover = &connector_handover,
};
