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
 * Two hosts, and the one with the money is lost for good, disk and all, in the middle of purchases and of other trouble:
 * links between the hosts are cut, processes die or stand still, the database is away. With sqllog.durable = "replicated"
 * every purchase that was acknowledged is in the database, once, for the other host has a copy of the log and lands it.
 */
#define MONEY       "10.0.0.1" /* role-1 and dbwriter-1 */
#define OTHER       "10.0.0.2" /* the rest, and dbwriter-2 with the copy */
#define PLAYERS_MAX 16
#define GATE_PORT   3014

static const char config[] =
	"return { instances = {\n"
	"{ id = 'gate-1', service = 'gate', host = '" OTHER "', client = 3014, rpc = 4014 },\n"
	"{ id = 'connector-1', service = 'connector', host = '" OTHER "', client = 3050, rpc = 4050 },\n"
	"{ id = 'role-1', service = 'role', host = '" MONEY "', rpc = 4200 },\n"
	"{ id = 'chat-1', service = 'chat', host = '" OTHER "', rpc = 4400 },\n"
	"{ id = 'dbwriter-1', service = 'dbwriter', host = '" MONEY "', rpc = 4600 },\n"
	"{ id = 'dbwriter-2', service = 'dbwriter', host = '" OTHER "', rpc = 4601 },\n"
	"}, session = { grace_s = 2 }, role = { threads = 1 }, connector = { threads = 1 }, chat = { threads = 1 },\n"
	"dbwriter = { standby_s = 2 }, sqllog = { durable = '%s', standby = 'dbwriter-1, dbwriter-2' },\n"
	"log = { level = 'error' } }\n";

struct instance {
	const char *id;
	const struct service_def *def;
	const char *host;
};
static const struct instance instances[] = {
	{ "gate-1", &gate_service, OTHER },         { "connector-1", &connector_service, OTHER },
	{ "role-1", &role_service, MONEY },         { "chat-1", &chat_service, OTHER },
	{ "dbwriter-1", &dbwriter_service, MONEY }, { "dbwriter-2", &dbwriter_service, OTHER },
};
#define INSTANCES (sizeof instances / sizeof *instances)

struct world {
	struct sim *w;
	struct sim_process *process[INSTANCES];
	bool lost; /* the host of the money */
	unsigned players;
	struct purchases record[PLAYERS_MAX];
};

/* ---- the processes ------------------------------------------------------------------------------------------------ */

static void instance_main(struct env *env, void *arg)
{
	const struct instance *it = arg;
	struct service_options o = { .config_file = "deploy/cluster.lua", .instance = it->id };
	struct service *s;
	char error[512];

	if (service_start(env, it->def, &o, error, sizeof error, &s) < 0 && getenv("SIM_SAY"))
		fprintf(stderr, "start %s: %s\n", it->id, error);
}

static void players_loop(struct loop *loop, void *arg)
{
	struct world *x = arg;

	for (unsigned i = 0; i < x->players; i++)
		player_start(calloc(1, sizeof(struct player)), loop, OTHER, GATE_PORT, 100, &x->record[i]);
}

static void players_main(struct env *env, void *arg)
{
	struct loop *loop;

	loop_start(env, "players", 0, players_loop, NULL, arg, &loop);
}

static void supervise(struct world *x)
{
	for (size_t i = 0; i < INSTANCES; i++)
		if (!x->lost || strcmp(instances[i].host, MONEY))
			sim_supervise(x->process[i], 50, 500);
}

static void start(struct sim *w, const char *durable)
{
	static const char key[] = "0707070707070707070707070707070707070707070707070707070707070707";
	struct world *x = calloc(1, sizeof *x);
	char text[4096];

	x->w = w;
	sim_user_set(w, x);
	sim_root(w, ".");
	sim_schema(w);
	int n = snprintf(text, sizeof text, config, durable);

	for (int i = 0; i < 2; i++) {
		const char *host = i ? OTHER : MONEY;

		sim_file_store(w, host, "deploy/cluster.lua", text, (size_t)n);
		sim_file_store(w, host, "var/keys/cluster.key", key, sizeof key - 1);
		sim_file_store(w, host, "var/keys/token.key", key, sizeof key - 1);
	}
	for (size_t i = 0; i < INSTANCES; i++)
		x->process[i] = sim_process(w, instances[i].id, instances[i].host, instance_main,
					    (void *)(uintptr_t)&instances[i]);
	supervise(x);
	sim_run_ms(w, 1000);
}

static void with_copies(struct sim *w)
{
	start(w, "replicated");
}

static void without_copies(struct sim *w)
{
	start(w, "synced");
}

/* ---- trouble ---------------------------------------------------------------------------------------------------------- */

static void trouble(struct world *x)
{
	struct sim *w = x->w;
	const char *one = instances[sim_random(w, INSTANCES)].id;

	switch (sim_random(w, 11)) {
	case 0: sim_kill(sim_find(w, "role-1")); break;
	case 1: sim_kill(sim_find(w, "dbwriter-2")); break;
	case 2: sim_kill(sim_find(w, one)); break;
	case 3: sim_link_reset(w, "role-1", "dbwriter-2"); break;
	case 4:
		sim_pause(sim_find(w, sim_chance(w, 500000) ? "dbwriter-1" : "dbwriter-2"),
			  (uint32_t)sim_random(w, 3000));
		break;
	case 5: sim_db_down(w, sim_chance(w, 400000)); break;
	case 6: sim_failpoint(w, NULL, NULL, 1 + (unsigned)sim_random(w, 20)); break;
	case 7: sim_disk_fail(w, OTHER, (unsigned)sim_random(w, 2), 1); break;
	case 8: sim_crash_host(w, OTHER); break;
	default: /* its end may be lost, and stand in the copy */
		if (!x->lost)
			sim_crash_host(w, MONEY);
	}
	supervise(x);
}

static void lose_the_host(struct world *x)
{
	struct sim *w = x->w;

	if (sim_chance(w, 700000)) /* with something that has not landed */
		sim_db_down(w, true);
	sim_run_ms(w, sim_between(w, 50, 1500));
	x->lost = true;
	for (size_t i = 0; i < INSTANCES; i++)
		if (!strcmp(instances[i].host, MONEY))
			sim_supervise(x->process[i], 0, 0);
	sim_run_ms(w, 500); /* whose start was already on its way */
	sim_crash_host(w, MONEY);
	supervise(x);
}

/* ---- the checks --------------------------------------------------------------------------------------------------------- */

/* The first cell of SELECT what … = 'text' */
static int64_t number_of(struct world *x, const char *what, const char *text)
{
	char sql[200];

	snprintf(sql, sizeof sql, "SELECT %s = '%s'", what, text);
	return sim_db_int(x->w, sql, 0);
}

static int64_t potions_of(struct world *x, const char *uid)
{
	char sql[120];
	int64_t id = number_of(x, "id FROM role WHERE uid", uid);

	snprintf(sql, sizeof sql, "SELECT count FROM bag WHERE item = 1 AND role_id = %lld", (long long)id);
	return sim_db_int(x->w, sql, 0);
}

static bool everything_landed(struct world *x)
{
	for (unsigned i = 0; i < x->players; i++)
		if (potions_of(x, x->record[i].uid) < (int64_t)x->record[i].answered)
			return false;
	return true;
}

static void check_player(struct world *x, const struct purchases *r)
{
	int64_t potions = potions_of(x, r->uid);
	int64_t gold = number_of(x, "gold FROM role WHERE uid", r->uid), orders;
	char owner[40];

	snprintf(owner, sizeof owner, "role/%s", r->uid);
	orders = number_of(x, "COUNT(*) FROM loquat_once WHERE owner", owner);

	sim_check(x->w, !*r->wrong, "%s: %s", r->uid, r->wrong);
	sim_check(x->w, potions >= r->answered && potions <= r->answered + 1,
		  "%s has %lld potions, %u were acknowledged", r->uid, (long long)potions, r->answered);
	sim_check(x->w, orders == potions, "%s has %lld orders and %lld potions", r->uid, (long long)orders,
		  (long long)potions);
	sim_check(x->w, !potions || gold == 1000 - 10 * potions, "%s has %lld potions and %lld gold", r->uid,
		  (long long)potions, (long long)gold);
}

static void lost_with_its_disk(struct sim *w)
{
	struct world *x = sim_user(w);

	x->players = (unsigned)sim_between(w, 4, PLAYERS_MAX);
	for (unsigned i = 0; i < x->players; i++) {
		snprintf(x->record[i].uid, sizeof x->record[i].uid, "p%u", i);
		x->record[i].wanted = 90;
	}
	sim_process(w, "players", "10.0.0.9", players_main, x);
	sim_run_ms(w, sim_between(w, 500, 3000));
	for (unsigned i = (unsigned)sim_random(w, 6); i && sim_run_ms(w, sim_between(w, 50, 1000)); i--)
		trouble(x);
	lose_the_host(x);
	for (unsigned i = (unsigned)sim_random(w, 3); i && sim_run_ms(w, sim_between(w, 50, 1000)); i--)
		trouble(x);
	sim_calm(w);
	sim_heal(w);
	sim_failpoint(w, NULL, NULL, 0);
	sim_db_down(w, false);
	sim_disk_fail(w, OTHER, 0, 0);
	sim_run_ms(w, 1000); /* answers that were on their way arrive all the same */
	for (unsigned i = 0; i < 600 && !everything_landed(x) && sim_run_ms(w, 100); i++)
		;
	sim_run_ms(w, 3000); /* whatever should not come would come now */
	for (unsigned i = 0; i < x->players && !sim_failure(w); i++)
		check_player(x, &x->record[i]);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ "a_host_lost_with_its_disk_loses_nothing_acknowledged", lost_with_its_disk, with_copies, 30, NULL },
		{ "a_host_lost_without_a_copy_is_found", lost_with_its_disk, without_copies, 20,
		  "the log is on its own host alone" },
		{ NULL, NULL, NULL, 0, NULL },
	};

	return sim_main(argc, argv, list);
}
