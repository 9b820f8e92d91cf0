#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chat/chat.h"
#include "connector/connector.h"
#include "dbwriter/dbwriter.h"
#include "gate/gate.h"
#include "role/role.h"
#include "tests/support/sim_buyers.h"
#include "tests/support/sim_main.h"
#include "tests/support/sim_schema.h"
/*
 * The cluster's money: gate, two connectors, role, chat and dbwriter with the very objects and the Lua of the real programs,
 * and players who buy. Links are cut, processes die at any moment and at every failpoint, the database goes away and loses
 * the answers of its commits. Rivals are several connections of one player that throw each other out and ask for the same
 * orders at once, while the disk fails and the clock jumps. At the end every acknowledged purchase is in the database exactly once, and the
 * gold adds up.
 */
#define HOST      "10.0.0.1"
#define GATE_PORT 3014

static const char config[] =
	"return { instances = {\n"
	"{ id = 'gate-1', service = 'gate', host = '" HOST "', client = 3014, rpc = 4014 },\n"
	"{ id = 'connector-1', service = 'connector', host = '" HOST "', client = 3050, rpc = 4050 },\n"
	"{ id = 'connector-2', service = 'connector', host = '" HOST "', client = 3051, rpc = 4051 },\n"
	"{ id = 'role-1', service = 'role', host = '" HOST "', rpc = 4200 },\n"
	"{ id = 'chat-1', service = 'chat', host = '" HOST "', rpc = 4400 },\n"
	"{ id = 'dbwriter-1', service = 'dbwriter', host = '" HOST "', rpc = 4600 },\n"
	"}, session = { grace_s = 2 }, role = { threads = %u }, connector = { threads = %u }, chat = { threads = %u }, log = { level = 'error' } }\n";

struct instance {
	const char *id;
	const struct service_def *def;
};
static const struct instance instances[] = {
	{ "gate-1", &gate_service }, { "connector-1", &connector_service }, { "connector-2", &connector_service },
	{ "role-1", &role_service }, { "chat-1", &chat_service },           { "dbwriter-1", &dbwriter_service },
};
#define INSTANCES (sizeof instances / sizeof *instances)

struct world {
	struct sim *w;
	struct sim_process *process[INSTANCES];
	struct sim_buyers buyers;
};

/* ---- the processes ------------------------------------------------------------------------------------------------ */

static void instance_main(struct env *env, void *arg)
{
	const struct instance *it = arg;
	struct service_options o = { .config_file = "deploy/cluster.lua", .instance = it->id };
	struct service *s;
	char error[512];

	/* a start that fails (its disk does, say) ends the process; the supervisor starts it again */
	if (service_start(env, it->def, &o, error, sizeof error, &s) < 0 && getenv("SIM_SAY"))
		fprintf(stderr, "start %s: %s\n", it->id, error);
}

static void start(struct sim *w, unsigned workers)
{
	struct world *x = calloc(1, sizeof *x);
	char text[4096];

	x->w = w;
	x->buyers = (struct sim_buyers){ .w = w, .gate_host = HOST, .gate_port = GATE_PORT, .think_ms = 200 };
	sim_user_set(w, x);
	sim_root(w, ".");
	sim_schema(w);
	int n = snprintf(text, sizeof text, config, workers, workers, workers);

	sim_file_store(w, HOST, "deploy/cluster.lua", text, (size_t)n);
	for (size_t i = 0; i < INSTANCES; i++) {
		x->process[i] = sim_process(w, instances[i].id, HOST, instance_main, (void *)(uintptr_t)&instances[i]);
		sim_supervise(x->process[i], 50, 500);
	}
	sim_run_ms(w, 1000);
}

static void with_one_worker(struct sim *w)
{
	start(w, 1);
}

static void with_three_workers(struct sim *w)
{
	start(w, 3);
}

/* ---- trouble ---------------------------------------------------------------------------------------------------------- */

static const char *any(struct world *x)
{
	return instances[sim_random(x->w, INSTANCES)].id;
}

static void trouble(struct world *x)
{
	static const char *const points[] = {
		"sqllog.before_write", "sqllog.after_write",     "sqllog.after_sync",
		"app.before_answer",   "dbwriter.before_commit", "dbwriter.after_commit",
	};
	struct sim *w = x->w;

	switch (sim_random(w, 10)) {
	case 0:
	case 1: sim_kill(sim_find(w, sim_chance(w, 500000) ? "role-1" : "dbwriter-1")); break;
	case 2: sim_kill(sim_find(w, any(x))); break;
	case 3:
	case 4:
		sim_failpoint(w, NULL, points[sim_random(w, sizeof points / sizeof *points)],
			      1 + (unsigned)sim_random(w, 5));
		break;
	case 5: sim_link_reset(w, any(x), any(x)); break;
	case 6: sim_link_reset(w, "players", any(x)); break;
	case 7: sim_db_down(w, sim_chance(w, 400000)); break;
	case 8: sim_pause(sim_find(w, any(x)), (uint32_t)sim_random(w, 4000)); break;
	default: sim_crash_host(w, HOST); break;
	}
	for (size_t i = 0; i < INSTANCES; i++)
		sim_supervise(x->process[i], 50, 500);
}

static void disk_trouble(struct world *x)
{
	struct sim *w = x->w;

	switch (sim_random(w, 4)) {
	case 0: sim_disk_full(w, HOST, sim_chance(w, 600000)); break;
	case 1: sim_disk_fail(w, HOST, 0, 1 + (unsigned)sim_random(w, 3)); break;
	case 2: sim_disk_fail(w, HOST, 1 + (unsigned)sim_random(w, 3), 0); break;
	default: sim_clock_step(w, HOST, (int64_t)sim_random(w, 7200000000u) - 3600000000); break;
	}
}

static void buy_in_trouble(struct sim *w, unsigned rivals, bool disk)
{
	struct world *x = sim_user(w);

	x->buyers.rivals = rivals;
	sim_buyers_come(&x->buyers, "10.0.0.9", 3, 12);
	for (unsigned i = 0; i < 12 && sim_run_ms(w, sim_between(w, 50, 1500)); i++)
		if (disk && sim_chance(w, 500000))
			disk_trouble(x);
		else
			trouble(x);
	sim_calm(w);
	sim_heal(w);
	sim_db_down(w, false);
	sim_disk_full(w, HOST, false);
	sim_disk_fail(w, HOST, 0, 0);
	sim_buyers_check(&x->buyers);
}

static void every_acknowledged_purchase_lands_exactly_once(struct sim *w)
{
	buy_in_trouble(w, 1, false);
}

static void rivals_for_one_player_buy_each_order_once(struct sim *w)
{
	buy_in_trouble(w, 2, true);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ "every_acknowledged_purchase_lands_exactly_once", every_acknowledged_purchase_lands_exactly_once,
		  with_one_worker, 120, NULL },
		{ "and_with_keys_that_cross_workers", every_acknowledged_purchase_lands_exactly_once,
		  with_three_workers, 80, NULL },
		{ "rivals_for_one_player_buy_each_order_once", rivals_for_one_player_buy_each_order_once,
		  with_three_workers, 60, NULL },
		{ NULL, NULL, NULL, 0, NULL },
	};

	return sim_main(argc, argv, list);
}
