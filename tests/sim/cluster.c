#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chat/chat.h"
#include "connector/connector.h"
#include "dbwriter/dbwriter.h"
#include "gate/gate.h"
#include "role/role.h"
#include "tests/support/player.h"
#include "tests/support/sim_main.h"
#include "tests/support/sim_schema.h"
/*
 * The cluster's money: gate, two connectors, role, chat and dbwriter with the very objects and the Lua of the real programs,
 * and players who buy. Links are cut, processes die at any moment and at every failpoint, the database goes away and loses
 * the answers of its commits. Rivals are several connections of one player that throw each other out and ask for the same
 * orders at once, while the disk fails and the clock jumps. At the end every acknowledged purchase is in the database exactly once, and the
 * gold adds up.
 */
#define HOST        "10.0.0.1"
#define PLAYERS_MAX 50
#define GATE_PORT   3014

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
	unsigned players, rivals; /* connections per player */
	struct purchases record[PLAYERS_MAX];
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

static void players_loop(struct loop *loop, void *arg)
{
	struct world *x = arg;

	for (unsigned i = 0; i < x->players * x->rivals; i++) {
		struct player *p = calloc(1, sizeof *p);

		player_start(p, loop, HOST, GATE_PORT, 200, &x->record[i % x->players]);
	}
}

static void players_main(struct env *env, void *arg)
{
	struct loop *loop;

	loop_start(env, "players", 0, players_loop, NULL, arg, &loop);
}

static void start(struct sim *w, unsigned workers)
{
	struct world *x = calloc(1, sizeof *x);
	char text[4096];

	x->w = w;
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

/* names of one's own language: a log key has room for them */
static void invite_players(struct world *x, unsigned rivals)
{
	struct sim *w = x->w;

	x->rivals = rivals;
	x->players = (unsigned)sim_between(w, 20, PLAYERS_MAX) / rivals;
	for (unsigned i = 0; i < x->players; i++) {
		snprintf(x->record[i].uid, sizeof x->record[i].uid, i % 3 ? "p%u" : "一二三四五六七八九%u", i);
		x->record[i].wanted = (unsigned)sim_between(w, 3, 12);
	}
	sim_process(w, "players", "10.0.0.9", players_main, x);
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

static bool everybody_has_bought(void *arg)
{
	struct world *x = arg;

	for (unsigned i = 0; i < x->players; i++)
		if (x->record[i].answered < x->record[i].wanted && !*x->record[i].wrong)
			return false;
	return true;
}

/* ---- the checks --------------------------------------------------------------------------------------------------------- */

static int64_t ask(struct world *x, const char *what, const char *table, const char *where, int64_t id)
{
	char sql[256];

	snprintf(sql, sizeof sql, "SELECT %s FROM %s WHERE %s%lld", what, table, where, (long long)id);
	return sim_db_int(x->w, sql, 0);
}

static int64_t role_id(struct world *x, const char *uid)
{
	char sql[128];

	snprintf(sql, sizeof sql, "SELECT id FROM role WHERE uid = '%s'", uid);
	return sim_db_int(x->w, sql, 0);
}

static bool everything_landed(struct world *x)
{
	for (unsigned i = 0; i < x->players; i++)
		if (ask(x, "count", "bag", "item = 1 AND role_id = ", role_id(x, x->record[i].uid)) <
		    (int64_t)x->record[i].answered)
			return false;
	return true;
}

static void check_player(struct world *x, const struct purchases *r)
{
	int64_t id = role_id(x, r->uid), potions = ask(x, "count", "bag", "item = 1 AND role_id = ", id);
	int64_t gold = ask(x, "gold", "role", "id = ", id);
	char sql[200];

	snprintf(sql, sizeof sql, "SELECT COUNT(*) FROM loquat_once WHERE owner = 'role/%s'", r->uid);
	int64_t orders = sim_db_int(x->w, sql, -1);

	sim_check(x->w, !*r->wrong, "%s: %s", r->uid, r->wrong);
	sim_check(x->w, potions == r->wanted, "%s has %lld potions, bought %u", r->uid, (long long)potions, r->wanted);
	sim_check(x->w, gold == 1000 - 10 * (int64_t)r->wanted, "%s has %lld gold after %u purchases", r->uid,
		  (long long)gold, r->wanted);
	sim_check(x->w, orders == r->wanted, "%s has %lld stored orders, bought %u", r->uid, (long long)orders,
		  r->wanted);
	snprintf(sql, sizeof sql, "SELECT COUNT(*) FROM role_name WHERE uid = '%s'", r->uid);
	sim_check(x->w, sim_db_int(x->w, sql, -1) == 1, "%s has not one name", r->uid);
	for (unsigned i = 0; i < r->answered; i++)
		sim_check(x->w, r->gold[i] == 1000 - 10 * ((int64_t)i + 1), "%s: order %u was answered with %lld gold",
			  r->uid, i, (long long)r->gold[i]);
}

static void buy_in_trouble(struct sim *w, unsigned rivals, bool disk)
{
	struct world *x = sim_user(w);

	invite_players(x, rivals);
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
	/* a database learns late that a client's machine has died: until then it keeps that client's locks */
	if (!sim_until(w, 120000, everybody_has_bought, x))
		sim_fail(w, "two minutes after the last fault somebody has not bought everything");
	for (unsigned i = 0; i < 1200 && !everything_landed(x) && sim_run_ms(w, 100); i++)
		;
	sim_check(w, everything_landed(x), "two minutes after the last purchase something has not landed");
	sim_run_ms(w, 2000); /* whatever should not come would come now */
	for (unsigned i = 0; i < x->players; i++)
		check_player(x, &x->record[i]);
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
