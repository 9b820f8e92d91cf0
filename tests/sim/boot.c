#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "chat/chat.h"
#include "connector/connector.h"
#include "gate/gate.h"
#include "platform/platform.h"
#include "role/role.h"
#include "rpc/service.h"
#include "scene/scene.h"
#include "team/team.h"
#include "tests/support/sim_main.h"
#include "tests/support/sim_schema.h"
/*
 * The services of deploy/cluster.lua, the objects of the real programs, each a simulated process: they start,
 * are ready, answer HTTP, come back after being killed, and end when they are told to.
 */
struct seat {
	const struct service_def *def;
	const char *id;
	uint16_t http;
	struct sim_process *process;
	int status; /* of main: -1 while it runs */
};

static const struct seat cluster[] = {
	{ .def = &gate_service, .id = "gate-1", .http = 8014 },
	{ .def = &connector_service, .id = "connector-1", .http = 8050 },
	{ .def = &connector_service, .id = "connector-2", .http = 8051 },
	{ .def = &scene_service, .id = "scene-1", .http = 8100 },
	{ .def = &role_service, .id = "role-1", .http = 8200 },
	{ .def = &team_service, .id = "team-1", .http = 8300 },
	{ .def = &chat_service, .id = "chat-1", .http = 8400 },
	{ .def = &platform_service, .id = "platform-1", .http = 8500 },
};
#define SEATS (sizeof(cluster) / sizeof(*cluster))

static void seat_main(struct env *env, void *arg)
{
	struct seat *seat = arg;
	struct service_options o = { .config_file = "deploy/cluster.lua", .instance = seat->id };
	struct service *s;
	char error[512] = "";
	seat->status = -1;
	if (service_start(env, seat->def, &o, error, sizeof(error), &s) < 0) {
		sim_fail(sim_current(), "%s: %s", seat->id, error);
		return;
	}
	loop_join(s->control);
	seat->status = 0;
	if (service_failure(s))
		sim_fail(sim_current(), "%s: %s", seat->id, service_failure(s));
	service_free(s);
}

static bool is_dead(void *arg)
{
	return !sim_alive(arg);
}

static struct seat seats[SEATS];

static void start_all(struct sim *w)
{
	sim_root(w, ".");
	sim_schema(w);
	for (size_t i = 0; i < SEATS; i++) {
		seats[i] = cluster[i];
		seats[i].process = sim_process(w, seats[i].id, "10.0.0.1", seat_main, &seats[i]);
	}
	for (size_t i = 0; i < SEATS; i++)
		sim_check(w, sim_until_ready(w, seats[i].id, seats[i].http), "%s does not get ready", seats[i].id);
}

static void services_start_answer_and_end(struct sim *w)
{
	start_all(w);
	if (sim_failure(w))
		return;
	for (size_t i = 0; i < SEATS; i++)
		sim_signal(seats[i].process, SIGTERM);
	for (size_t i = 0; i < SEATS; i++)
		sim_check(w, sim_until(w, 20000, is_dead, seats[i].process), "%s does not end", seats[i].id);
}

static void whoever_dies_is_ready_again(struct sim *w)
{
	for (int i = 0; i < 3; i++) {
		struct seat *seat = &seats[sim_random(w, SEATS)];
		if (sim_chance(w, 300000))
			sim_crash_host(w, "10.0.0.1");
		sim_restart(seat->process);
		for (size_t k = 0; k < SEATS; k++)
			sim_supervise(seats[k].process, 10, 200);
		sim_run_ms(w, sim_random(w, 100));
	}
	for (size_t i = 0; i < SEATS; i++)
		sim_check(w, sim_until_ready(w, seats[i].id, seats[i].http), "%s does not get ready again",
			  seats[i].id);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "services_start_answer_and_end", .run = services_start_answer_and_end, .seeds = 50 },
		{ .name = "whoever_dies_is_ready_again",
		  .prepare = start_all,
		  .run = whoever_dies_is_ready_again,
		  .seeds = 100 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
