#include "gate/gate.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const struct config_row rows[] = {
	{ "gate.players_max", CONFIG_INT, "10000", false, 1, 100000000,
	  "Players in the cluster; more wait in the queue." },
	{ "gate.admit_per_s", CONFIG_INT, "0", false, 0, 1000000,
	  "Players let in per second by all gates; 0: no limit." },
	{ "gate.connector_players_max", CONFIG_INT, "0", false, 0, 100000000,
	  "Players at one connector; 0: no limit but the cluster's." },
	{ "gate.connector_admit_per_s", CONFIG_INT, "0", false, 0, 1000000,
	  "Players let in per second at one connector; 0: no limit." },
	{ "gate.reserved", CONFIG_INT, "0", false, 0, 100000000,
	  "Places of players_max that only those take who come back by resume." },
	{ "gate.rank_lead_s", CONFIG_INT, "60", false, 0, 86400,
	  "So many seconds earlier each priority class stands in the queue." },
	{ "gate.guests", CONFIG_BOOL, "true", false, 0, 0,
	  "Players may come by a name alone; false: with an account of a platform only." },
	{ "gate.heartbeat_s", CONFIG_INT, "10", false, 1, 3600, "Seconds between heartbeats; two missed: closed." },
	{ "gate.packets_per_s", CONFIG_INT, "100", false, 1, 1000000, "Per connection; above: busy." },
	{ "gate.address_packets_per_s", CONFIG_INT, "0", false, 0, 100000000,
	  "Of all connections of one address (IPv6: /64); above: busy; 0: no bound." },
	{ "gate.per_address_max", CONFIG_INT, "20000", false, 1, 10000000,
	  "Connections of one address, and places it holds." },
	{ "gate.per_subnet_max", CONFIG_INT, "0", false, 0, 10000000,
	  "Connections of one subnet (IPv4: /24, IPv6: /64), and places; 0: no bound." },
	{ "gate.connects_per_s", CONFIG_INT, "0", false, 0, 1000000,
	  "New connections of one address (IPv6: /64) in a second; 0: no bound." },
	{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
};

/* What the control thread may know of the gate is what it counts. */
static struct metric *queue_gauge(struct service *s)
{
	return metric(s->metrics, 0, METRIC_GAUGE, "loquat_gate_queue", "Players in the queue.", NULL, NULL);
}

static struct metric *connectors_gauge(struct service *s)
{
	return metric(s->metrics, 0, METRIC_GAUGE, "loquat_gate_connectors", "Connectors that take players.", NULL,
		      NULL);
}

static struct metric *foreign_gauge(struct service *s)
{
	return metric(s->metrics, 0, METRIC_GAUGE, "loquat_token_key_foreign",
		      "Connectors that have another token.key.", NULL, NULL);
}

static struct metric *counter(struct service *s, const char *name, const char *help)
{
	return metric(s->metrics, 0, METRIC_COUNTER, name, help, NULL, NULL);
}

static void gate_stats(struct service *s, struct buf *json)
{
	buf_addf(json, "\"queue\":%llu", (unsigned long long)metric_value(queue_gauge(s)));
}

static const char *gate_not_ready(struct service *s)
{
	if (metric_value(connectors_gauge(s)))
		return NULL;
	return metric_value(foreign_gauge(s))
		       ? "no connector has this host's token.key: copy paths.var/keys/ from another host"
		       : "no connector has answered";
}

void gate_free(struct gate *g)
{
	clientconn_face_release(&g->face);
	clientlisten_free(g->listen);
	clienttold_free(g->told);
	clientset_free(g->set);
	free(g);
}

static const struct msg_method *need(struct gate *g, const char *name)
{
	const struct msg_method *m = schema_method(g->worker->schema, name, strlen(name));

	assert(m); /* proto/ and this code are built together */
	return m;
}

static void face_open(struct gate *g)
{
	const struct config *config = g->service->config;

	g->face = (struct clientconn_face){
		.loop = g->worker->loop,
		.log = g->service->log,
		.ops = &visitor_ops,
		.limits = {
			.heartbeat_s = (unsigned)config_int(config, "gate.heartbeat_s", 10),
			.packets_per_s = (unsigned)config_int(config, "gate.packets_per_s", 100),
			.login_ms = CLIENTCONN_LOGIN_MS,
			.early_max = CLIENTCONN_EARLY_MAX,
			.body_max = CLIENTCONN_EARLY_MAX,
			.out_max = CLIENTCONN_BODY_MAX,
		},
	};
	clientset_face(g->set, &g->listen, &g->face);
	clientconn_face_init(&g->face, g->service->metrics, 0);
}

static void on_conn(void *user, struct env_conn *conn, const char *addr)
{
	visitor_accept(user, conn, addr);
}

static int listen_open(struct gate *g)
{
	struct service *s = g->service;
	struct clientlisten_options o = {
		.loop = g->worker->loop,
		.log = s->log,
		.metrics = s->metrics,
		.host = route_client_host(s->row),
		.port = s->row->client_port,
		.per_address_max = g->per_address_max,
		.per_subnet_max = g->per_subnet_max,
		.connects_per_s = (unsigned)config_int(s->config, "gate.connects_per_s", 0),
		.packets_per_s = (unsigned)config_int(s->config, "gate.address_packets_per_s", 0),
		.on_conn = on_conn,
	};

	clientset_listen(g->set, &o);
	int err = clientlisten_new(&o, &g->listen);

	if (err < 0)
		service_fail(s, "%s: client port %s:%u: %s", s->id, o.host, o.port,
			     err == ERR_EXISTS ? "another process has the port" : env_last_error());
	else
		clientlisten_add(g->listen, g->worker->loop, g);
	return err;
}

uint64_t gate_now_ms(const struct gate *g)
{
	return g->worker->loop->now_ms;
}

uint64_t gate_wall_us(const struct gate *g)
{
	return env_wall_us(g->service->env);
}

static void limits_read(struct gate *g)
{
	const struct config *config = g->service->config;

	g->players_max = (unsigned)config_int(config, "gate.players_max", 10000);
	g->admit_per_s = (unsigned)config_int(config, "gate.admit_per_s", 0);
	g->connector_players_max = (unsigned)config_int(config, "gate.connector_players_max", 0);
	g->connector_admit_per_s = (unsigned)config_int(config, "gate.connector_admit_per_s", 0);
	g->reserved = (unsigned)config_int(config, "gate.reserved", 0);
	g->per_address_max = (unsigned)config_int(config, "gate.per_address_max", 20000);
	g->per_subnet_max = (unsigned)config_int(config, "gate.per_subnet_max", 0);
	g->guests = config_bool(config, "gate.guests", true);
	g->rank_lead_s = (unsigned)config_int(config, "gate.rank_lead_s", 60);
}

static int gate_start(struct worker *w)
{
	if (w->index != 0)
		return 0;
	struct gate *g = calloc(1, sizeof(*g));
	assert(g);
	w->user = g;
	g->worker = w;
	g->service = w->service;
	g->start_ms = gate_now_ms(g);
	g->start_us = gate_wall_us(g);
	limits_read(g);
	addrcount_init(&g->held, g->service->env);
	g->ask_load = need(g, "connector.connectorRemote.load");
	g->verify = need(g, "platform.platformRemote.verify");
	g->take = need(g, "gate.gateRemote.take");
	g->allow = need(g, "gate.gateRemote.allow");
	g->queued_metric = queue_gauge(g->service);
	g->usable_metric = connectors_gauge(g->service);
	g->foreign_metric = foreign_gauge(g->service);
	g->differs_metric = metric(g->service->metrics, 0, METRIC_GAUGE, "loquat_clock_differs_seconds",
				   "Of this host's wall clock from a connector's, at most.", NULL, NULL);
	token_print(g->service->token_key, g->token_key);
	g->admitted_metric = counter(g->service, "loquat_gate_admitted_total", "Players let in.");
	g->told_metric = counter(g->service, "loquat_gate_told_total", "Positions told to players in the queue.");
	g->believed_metric = counter(g->service, "loquat_gate_believed_total",
				     "Places taken again by their ticket alone, after a gate was lost.");
	method_stats_init(&g->query, g->service->metrics, 0, "gate", "gateHandler.queryEntry");
	queue_init(g);
	tell_init(g);
	if (clientset_new(g->service, NULL, &g->set) < 0)
		return ERR_CONFIG;
	face_open(g);
	gate_remotes(g);
	if (listen_open(g) < 0)
		return ERR_CONFIG;
	load_init(g);
	return 0;
}

static void gate_drain(struct worker *w)
{
	struct gate *g = w->user;

	if (!g)
		return;
	clientlisten_close(g->listen);
	for (struct clientconn *c = g->face.conns, *next; c; c = next) {
		next = c->next;
		clientconn_kick(c, "this gate is going away: ask another");
	}
}

/* The last connection's end frees the gate, in this turn. */
static void gate_stop(struct worker *w)
{
	struct gate *g = w->user;

	if (!g)
		return;
	g->stopping = true;
	clientlisten_close(g->listen);
	query_stop(g);
	search_stop(g);
	queue_stop(g);
	load_stop(g);
	bool none = !g->face.open;
	clientconn_face_close(&g->face);
	if (none)
		gate_free(g);
}

static int gate_messages_prepare(struct worker *w, const struct schema *next, char *error, size_t size)
{
	struct gate *g = w->user;

	return g ? clientset_prepare(g->set, next, &g->told, error, size) : 0;
}

static void gate_messages_taken(struct worker *w)
{
	struct gate *g = w->user;

	if (g)
		clientset_take(g->set, w->schema, g->told, &g->face);
}

const struct service_def gate_service = {
	.name = "gate",
	.config = rows,
	.worker_start = gate_start,
	.worker_drain = gate_drain,
	.worker_stop = gate_stop,
	.stats = gate_stats,
	.not_ready = gate_not_ready,
	.messages_prepare = gate_messages_prepare,
	.messages_taken = gate_messages_taken,
};
