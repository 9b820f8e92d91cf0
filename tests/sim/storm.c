/*
 * A login storm under the virtual clock, with the real gates, connectors, role and chat: more players than the gates let in at
 * once. Who came first is let in first, what they are told comes true, and no gate's death costs anybody a place.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chat/chat.h"
#include "connector/connector.h"
#include "dbwriter/dbwriter.h"
#include "gate/gate.h"
#include "role/role.h"
#include "tests/support/crowd.h"
#include "tests/support/sim_main.h"
#include "tests/support/sim_schema.h"

#define HOST "10.0.0.1"
static const char config[] =
	"return { instances = {\n"
	"{ id = 'gate-1', service = 'gate', host = '" HOST "', client = 3014, rpc = 4014, http = 8014 },\n"
	"%s"
	"{ id = 'connector-1', service = 'connector', host = '" HOST "', client = 3050, rpc = 4050 },\n"
	"{ id = 'connector-2', service = 'connector', host = '" HOST "', client = 3051, rpc = 4051 },\n"
	"{ id = 'role-1', service = 'role', host = '" HOST "', rpc = 4200 },\n"
	"{ id = 'chat-1', service = 'chat', host = '" HOST "', rpc = 4400 },\n"
	"{ id = 'dbwriter-1', service = 'dbwriter', host = '" HOST "', rpc = 4600 },\n"
	"}, gate = { %s }, session = { grace_s = 2 }, log = { level = 'error' } }\n";
static const char second_gate[] =
	"{ id = 'gate-2', service = 'gate', host = '" HOST "', client = 3015, rpc = 4015, http = 8015 },\n";

struct seat {
	const struct service_def *def;
	const char *id;
};
static const struct seat seats[] = {
	{ &gate_service, "gate-1" }, { &connector_service, "connector-1" }, { &connector_service, "connector-2" },
	{ &role_service, "role-1" }, { &chat_service, "chat-1" },           { &dbwriter_service, "dbwriter-1" },
	{ &gate_service, "gate-2" },
};
#define SEATS (sizeof(seats) / sizeof(*seats))

static void seat_main(struct env *env, void *arg)
{
	const struct seat *seat = arg;
	struct service_options o = { .config_file = "deploy/storm.lua", .instance = seat->id };
	struct service *s;
	char error[512] = "";

	if (service_start(env, seat->def, &o, error, sizeof(error), &s) < 0)
		sim_fail(sim_current(), "%s: %s", seat->id, error);
}

static void start(struct sim *w, const char *limits, unsigned gates)
{
	char text[2000];

	sim_calm(w);
	sim_schema(w);
	sim_root(w, ".");
	int n = snprintf(text, sizeof(text), config, gates > 1 ? second_gate : "", limits);
	sim_file_store(w, HOST, "deploy/storm.lua", text, (size_t)n);
	for (size_t i = 0; i < SEATS + gates - 2; i++)
		sim_process(w, seats[i].id, HOST, seat_main, (void *)(uintptr_t)&seats[i]);
	sim_run_ms(w, 3000);
}

static void crowd_loop(struct loop *loop, void *arg)
{
	crowd_start(arg, loop);
}

static void crowd_main(struct env *env, void *arg)
{
	struct loop *loop;

	loop_start(env, "crowd", 0, crowd_loop, NULL, arg, &loop);
}

static bool is_done(void *arg)
{
	return crowd_done(arg);
}

static struct crowd *come(struct sim *w, unsigned members, uint32_t arrive_ms, uint32_t stay_ms, unsigned gates)
{
	struct crowd_options o = {
		.host = HOST,
		.gate = { 3014, 3015 },
		.gates = gates,
		.members = members,
		.arrive_ms = arrive_ms,
		.stay_ms = stay_ms,
		.back_ms = 400,
		.enters = true,
	};
	struct crowd *c = crowd_new(&o);

	sim_process(w, "crowd", HOST, crowd_main, c);
	return c;
}

static void gate_dies(struct sim *w, const char *id, uint32_t away_ms)
{
	struct sim_process *p = sim_find(w, id);

	sim_kill(p);
	sim_run_ms(w, away_ms);
	sim_restart(p);
}

static void nobody_is_lost(struct sim *w, struct crowd *c, uint64_t within_ms)
{
	sim_until(w, within_ms, is_done, c);
	sim_check(w, crowd_done(c), "%u of %u are through; %u came, %u waited", c->done, c->o.members, c->came,
		  c->queued);
	sim_check(w, c->places_lost == 0, "%u places were lost", c->places_lost);
}

static void told_the_truth(struct sim *w, const struct crowd *c, uint32_t from_ms, double eta_off)
{
	struct crowd_judgement j;

	crowd_judge(c, from_ms, &j);
	sim_trace(
		w,
		"positions off by %.3f (99 of 100 within %.3f), etas by %.3f (99 of 100 within %.3f), %.1f pushes each, %u judged",
		j.position_median, j.position_p99, j.eta_median, j.eta_p99, j.tells_mean, j.judged);
	sim_check(w, j.judged > c->o.members / 2, "only %u pushes", j.judged);
	sim_check(w, j.position_p99 <= 0.1, "positions are off by %.2f", j.position_p99);
	sim_check(w, j.eta_p99 <= eta_off, "etas are off by %.2f", j.eta_p99);
	sim_check(w, j.inversion_ms == 0, "somebody was let in %llu ms before one who came before",
		  (unsigned long long)j.inversion_ms);
	sim_check(w, j.tells_mean < 12, "%.1f pushes for each", j.tells_mean);
}

/* ---- the promises ---------------------------------------------------------------------------------------------------- */

static void at_a_fixed_rate_positions_and_times_come_true(struct sim *w)
{
	start(w, "admit_per_s = 20", 1);
	struct crowd *c = come(w, 400, 2000, 100, 1);
	nobody_is_lost(w, c, 60000);
	told_the_truth(w, c, 0, 0.1);
}

static void in_a_full_cluster_they_follow_who_leaves(struct sim *w)
{
	start(w, "players_max = 60", 1);
	struct crowd *c = come(w, 400, 1000, 3000, 1);
	nobody_is_lost(w, c, 120000);
	sim_check(w, c->in_most <= 60, "%u were in at once", c->in_most);
	told_the_truth(w, c, 8000, 0.2); /* the pace is known then; players leave in waves here */
}

static void a_gate_that_dies_costs_nobody_a_place(struct sim *w)
{
	start(w, "admit_per_s = 20", 1);
	struct crowd *c = come(w, 300, 2000, 100, 1);
	sim_run_ms(w, 3000 + sim_random(w, 5000));
	gate_dies(w, "gate-1", 500);
	nobody_is_lost(w, c, 60000);
	struct crowd_judgement j;
	crowd_judge(c, 0, &j);
	sim_check(w, c->lost_gates > 50, "only %u lost their gate", c->lost_gates);
	sim_check(w, j.inversion_ms == 0, "somebody was let in %llu ms before one who came before",
		  (unsigned long long)j.inversion_ms);
}

static void two_gates_together_keep_to_one_limit(struct sim *w)
{
	start(w, "players_max = 40, admit_per_s = 60", 2);
	struct crowd *c = come(w, 250, 1500, 1500, 2);
	nobody_is_lost(w, c, 120000);
	sim_check(w, c->in_most <= 40, "%u were in at once", c->in_most);
	sim_check(w, c->in_most >= 38, "only %u were in at once", c->in_most);
}

/* What a gate let in within its last 200 ms nobody else knows of. */
static void either_of_two_gates_may_die_and_all_get_in(struct sim *w)
{
	start(w, "players_max = 40, admit_per_s = 60", 2);
	struct crowd *c = come(w, 250, 1500, 1500, 2);
	for (int i = 0; i < 2; i++) {
		sim_run_ms(w, sim_between(w, 300, 4000));
		gate_dies(w, sim_chance(w, 500000) ? "gate-1" : "gate-2", (uint32_t)sim_between(w, 100, 1500));
	}
	nobody_is_lost(w, c, 120000);
	sim_check(w, c->in_most <= 40 + 2 * 60 / 5 + 7, "%u were in at once", c->in_most);
}

int main(int argc, char **argv)
{
#define TEST(f, n)                               \
	{                                        \
		.name = #f, .run = f, .seeds = n \
	}
	static const struct sim_scenario list[] = {
		TEST(at_a_fixed_rate_positions_and_times_come_true, 2),
		TEST(in_a_full_cluster_they_follow_who_leaves, 2),
		TEST(a_gate_that_dies_costs_nobody_a_place, 6),
		TEST(two_gates_together_keep_to_one_limit, 10),
		TEST(either_of_two_gates_may_die_and_all_get_in, 20),
		{ .name = NULL },
	};

	return sim_main(argc, argv, list);
}
