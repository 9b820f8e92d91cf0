#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/route_source.h"
#include "rpc/service_config.h"
#include "tests/support/fake_etcd.h"
#include "tests/support/sim_main.h"
/*
 * The etcd source of the route table against an etcd that misbehaves: watches cut, leases lost, histories compacted, an etcd
 * that freezes, dies, or forgets everything, while instances come, go and die.
 *
 * Never: a row that is in somebody's table leaves it while its process lives and has not said that it goes.
 * In the end: everybody has the rows of all that run, and nothing else.
 */
#define NODES 6
static const char config_text[] =
	"return { instances = {}, discovery = { kind = 'etcd', endpoints = { 'http://10.0.1.1:2379' }, lease_s = 2,"
	" missing_s = 2%s } }";
static bool with_user; /* the configuration names one */

struct node {
	char id[16], host[16];
	struct sim_process *process;
	struct sim *w;
	bool running, leave, left;
	uint64_t epoch; /* of this life */
	/* what it sees in this life: whose row, and of which life; 0: none */
	uint64_t sees[NODES];
	uint64_t version;
	unsigned tables;
};
static struct node nodes[NODES];
static struct fake_etcd etcd;

/* ---- one instance ------------------------------------------------------------------------------------------------ */

struct life {
	struct node *node;
	struct loop *loop;
	struct log *log;
	struct config *config;
	struct route_row row;
	struct route_source *source;
	struct env_http *http;
	struct timer tick;
	bool draining;
	unsigned drained;
};

static int number_of(const char *id)
{
	return id[5] - '1';
}

static void on_table(void *arg, struct route_table *t)
{
	struct life *l = arg;
	struct node *n = l->node;
	uint64_t now[NODES] = { 0 };

	sim_check(n->w, t->version > n->version, "%s: version %llu after %llu", n->id, (unsigned long long)t->version,
		  (unsigned long long)n->version);
	n->version = t->version;
	n->tables++;
	for (size_t i = 0; i < t->rows; i++)
		now[number_of(t->row[i].id)] = t->row[i].epoch;
	for (size_t i = 0; i < NODES; i++) {
		bool lives = nodes[i].running && !nodes[i].leave && n->sees[i] == nodes[i].epoch;

		sim_check(n->w, now[i] || !n->sees[i] || !lives, "%s lost %s, which lives", n->id, nodes[i].id);
		n->sees[i] = now[i];
	}
	route_unref(t);
}

static void on_request(void *arg, struct env_http_request *r)
{
	(void)arg;
	env_http_reply(r, 200, "text/plain", NULL, "ok\n", 3);
}

static void on_tick(struct timer *t, uint64_t now_ms)
{
	struct life *l = (struct life *)((char *)t - offsetof(struct life, tick));

	(void)now_ms;
	if (l->node->leave && !l->draining) {
		l->draining = true;
		route_source_drain(l->source);
	} else if (l->draining && ++l->drained == 20) {
		route_source_leave(l->source);
	} else if (l->drained > 20 && route_source_left(l->source)) {
		l->node->left = true;
		route_source_close(l->source);
		env_http_close(l->http);
		loop_stop(l->loop);
		return;
	}
	loop_timer(l->loop, t, 20);
}

static void on_start(struct loop *loop, void *arg)
{
	struct life *l = arg;
	struct route_source_options o = {
		.loop = loop,
		.log = l->log,
		.config = l->config,
		.var = "var",
		.id = l->node->id,
		.own = &l->row,
		.epoch = env_wall_us(loop->env),
		.on_table = on_table,
		.arg = l,
	};

	l->loop = loop;
	l->node->epoch = o.epoch;
	l->tick.fire = on_tick;
	env_http_listen(loop->ev, "0.0.0.0", 80, on_request, l, &l->http);
	route_source_open(&o, &l->source);
	route_source_enter(l->source);
	loop_timer(loop, &l->tick, 20);
}

static void node_main(struct env *env, void *arg)
{
	struct life *l = calloc(1, sizeof *l);
	struct loop *loop;
	char error[200] = "", text[400];
	int n = snprintf(text, sizeof text, config_text, with_user ? ", user = 'u', password = 'p'" : "");

	l->node = arg;
	memset(l->node->sees, 0, sizeof l->node->sees);
	l->node->version = 0;
	if (config_parse("cluster.lua", text, (size_t)n, service_config_rows, error, sizeof error, &l->config) < 0 ||
	    log_open(env, l->node->id, NULL, LOG_WARN, &l->log) < 0) {
		sim_fail(l->node->w, "%s: %s", l->node->id, error);
		return;
	}
	l->row = (struct route_row){ .service = "node", .rpc_port = 1, .http_port = 80, .workers = 1 };
	snprintf(l->row.id, sizeof l->row.id, "%s", l->node->id);
	snprintf(l->row.host, sizeof l->row.host, "%s", l->node->host);
	if (loop_start(env, "control", 0, on_start, NULL, l, &loop) < 0)
		return;
	loop_join(loop);
	route_source_free(l->source);
	log_close(l->log);
	config_free(l->config);
	free(l);
}

/* ---- the world ---------------------------------------------------------------------------------------------------- */

static void node_start(struct node *n)
{
	n->running = true;
	n->epoch = 0; /* it has none before it is up */
	n->leave = n->left = false;
	if (n->process)
		sim_restart(n->process);
	else
		n->process = sim_process(n->w, n->id, n->host, node_main, n);
}

static void start_all(struct sim *w)
{
	fake_etcd_init(&etcd, 77);
	with_user = false;
	memset(nodes, 0, sizeof nodes);
	sim_process(w, "etcd", "10.0.1.1", fake_etcd_main, &etcd);
	for (int i = 0; i < NODES; i++) {
		snprintf(nodes[i].id, sizeof nodes[i].id, "node-%d", i + 1);
		snprintf(nodes[i].host, sizeof nodes[i].host, "10.0.0.%d", i + 1);
		nodes[i].w = w;
		if (i < NODES - 1)
			node_start(&nodes[i]);
	}
}

static bool all_agree(void *arg)
{
	(void)arg;
	for (int i = 0; i < NODES; i++)
		for (int k = 0; nodes[i].running && k < NODES; k++)
			if (nodes[i].sees[k] != (nodes[k].running ? nodes[k].epoch : 0))
				return false;
	return true;
}

static void node_kill(struct node *n)
{
	n->running = false;
	sim_kill(n->process);
}

static bool has_left(void *arg)
{
	return ((struct node *)arg)->left;
}

static void change_a_node(struct sim *w)
{
	struct node *n = &nodes[sim_random(w, NODES)];

	if (!n->running) {
		node_start(n);
	} else if (sim_chance(w, 500000)) {
		node_kill(n);
	} else {
		n->leave = true;
		if (sim_until(w, 15000, has_left, n))
			n->running = false;
		else
			sim_fail(w, "%s does not leave", n->id);
	}
}

static void trouble(struct sim *w)
{
	struct sim_process *p = sim_find(w, "etcd");

	switch (sim_random(w, 8)) {
	case 0: etcd.cut = true; break;
	case 1: etcd.expire = true; break;
	case 2: fake_etcd_compact(&etcd); break;
	case 3: sim_pause(p, (uint32_t)sim_between(w, 100, 8000)); break;
	case 4:
		sim_partition(w, "etcd", true);
		sim_run_ms(w, sim_random(w, 6000));
		sim_partition(w, "etcd", false);
		break;
	case 5:
		sim_kill(p);
		sim_run_ms(w, sim_random(w, 5000));
		if (sim_chance(w, 400000))
			fake_etcd_forget(&etcd);
		sim_restart(p);
		break;
	default: change_a_node(w);
	}
}

static void no_row_is_lost_and_all_agree_in_the_end(struct sim *w)
{
	start_all(w);
	sim_check(w, sim_until(w, 10000, all_agree, NULL), "they do not find each other");
	for (unsigned i = 0; i < 12 && !sim_failure(w); i++) {
		trouble(w);
		if (sim_chance(w, 300000))
			trouble(w);
		sim_run_ms(w, sim_random(w, 4000));
	}
	sim_heal(w);
	sim_calm(w);
	if (sim_until(w, 60000, all_agree, NULL))
		return;
	for (int i = 0; i < NODES; i++) {
		char row[NODES + 1] = "";

		for (int k = 0; k < NODES; k++)
			row[k] = nodes[i].sees[k] ? '1' : '0';
		sim_trace(w, "%s runs=%d sees=%s", nodes[i].id, nodes[i].running, row);
	}
	sim_fail(w, "they do not agree");
}

static struct node *added;

static bool added_is_seen(void *arg)
{
	(void)arg;
	for (int i = 0; i < NODES; i++)
		if (nodes[i].running && !nodes[i].sees[added - nodes])
			return false;
	return true;
}

static void one_that_is_added_is_seen_within_a_second(struct sim *w)
{
	start_all(w);
	sim_check(w, sim_until(w, 10000, all_agree, NULL), "they do not find each other");
	sim_calm(w);
	added = &nodes[NODES - 1];
	node_start(added);
	sim_check(w, sim_until(w, 1000, added_is_seen, NULL), "it is not seen within a second");
}

static void users_are_configured_before_etcd_asks(struct sim *w)
{
	start_all(w);
	with_user = true; /* no node has run yet */
	sim_check(w, sim_until(w, 10000, all_agree, NULL), "they do not find each other without users");
	etcd.asks = sim_chance(w, 500000) ? 400 : 403; /* the latter where its certificate has a common name */
	added = &nodes[NODES - 1];
	node_start(added);
	sim_check(w, sim_until(w, 10000, all_agree, NULL), "one that is added is not let in");
	etcd.cut = etcd.expire = true;
	sim_run_ms(w, sim_random(w, 3000));
	node_kill(added);
	sim_check(w, sim_until(w, 20000, all_agree, NULL), "who ran before does not log in");
	etcd.asks = 0;
	etcd.cut = etcd.expire = true;
	node_start(added);
	sim_check(w, sim_until(w, 20000, all_agree, NULL), "they do not find each other when it asks no more");
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "no_row_is_lost_and_all_agree_in_the_end",
		  .run = no_row_is_lost_and_all_agree_in_the_end,
		  .seeds = 400 },
		{ .name = "one_that_is_added_is_seen_within_a_second",
		  .run = one_that_is_added_is_seen_within_a_second,
		  .seeds = 100 },
		{ .name = "users_are_configured_before_etcd_asks",
		  .run = users_are_configured_before_etcd_asks,
		  .seeds = 50 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
