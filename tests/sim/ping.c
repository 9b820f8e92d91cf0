#include <string.h>
#include "tests/support/ping.h"
#include "tests/support/sim_main.h"
/*
 * The ping service under cuts, stalls and crashes: answers are what was sent, and when the faults stop it
 * works again.
 */
#define CLIENTS 4
#define PORT    7000

struct world {
	struct sim *w;
	struct sim_process *server, *clients[CLIENTS];
	struct ping_counts counts[CLIENTS];
	uint64_t answered[CLIENTS]; /* when the faults stopped */
};

static void server_main(struct env *env, void *arg)
{
	struct ping_server *s;
	(void)arg;
	ping_server_start(env, "0.0.0.0", PORT, &s);
}

static void client_main(struct env *env, void *arg)
{
	struct ping_client *c;
	ping_client_start(env, "10.0.0.1", PORT, 20, 6000, arg, &c);
}

static void build(struct world *x)
{
	static const char *const names[CLIENTS] = { "ping-1", "ping-2", "ping-3", "ping-4" };
	x->server = sim_process(x->w, "pong", "10.0.0.1", server_main, NULL);
	for (int i = 0; i < CLIENTS; i++) {
		x->clients[i] =
			sim_process(x->w, names[i], i % 2 ? "10.0.0.1" : "10.0.0.2", client_main, &x->counts[i]);
		sim_supervise(x->clients[i], 10, 300);
	}
	sim_supervise(x->server, 10, 300);
}

static void fault(struct world *x)
{
	struct sim *w = x->w;
	struct sim_process *p = x->clients[sim_random(w, CLIENTS)];
	switch (sim_random(w, 7)) {
	case 0: sim_kill(x->server); break;
	case 1: sim_kill(p); break;
	case 2: sim_link_reset(w, "pong", sim_name(p)); break;
	case 3: sim_link_stall(w, "pong", sim_name(p), sim_chance(w, 500000)); break;
	case 4: sim_link_refuse(w, "pong", sim_name(p), sim_chance(w, 500000)); break;
	case 5: sim_pause(x->server, (uint32_t)sim_random(w, 500)); break;
	default: sim_crash_host(w, "10.0.0.2"); break;
	}
	for (int i = 0; i < CLIENTS; i++)
		sim_supervise(x->clients[i], 10, 300);
}

static bool all_answered(void *arg)
{
	struct world *x = arg;
	for (int i = 0; i < CLIENTS; i++)
		if (x->counts[i].answered < x->answered[i] + 3)
			return false;
	return true;
}

static void check(struct world *x)
{
	for (int i = 0; i < CLIENTS; i++)
		sim_check(x->w, !x->counts[i].wrong, "%s got %llu wrong answers", sim_name(x->clients[i]),
			  (unsigned long long)x->counts[i].wrong);
}

static void pings_are_answered_right_and_again_after_faults(struct sim *w)
{
	struct world x = { .w = w };
	build(&x);
	for (int i = 0; i < 10 && sim_run_ms(w, sim_between(w, 10, 400)); i++)
		fault(&x);
	sim_calm(w);
	sim_heal(w);
	for (int i = 0; i < CLIENTS; i++)
		x.answered[i] = x.counts[i].answered;
	if (!sim_until(w, 5000, all_answered, &x))
		sim_fail(w, "a client is not served within 5 s after the last fault");
	check(&x);
}

struct stopping {
	struct ping_counts counts;
	uint16_t port;
};

static void stopping_main(struct env *env, void *arg)
{
	struct stopping *x = arg;
	struct ping_server *s;
	struct ping_client *c;
	ping_server_start(env, "127.0.0.1", 0, &s);
	while (!ping_server_port(s)) /* a thread that looks again and again; the call lets time pass */
		env_dir_sync(env, "");
	ping_client_start(env, "127.0.0.1", ping_server_port(s), 1, 100, &x->counts, &c);
	uint64_t end = env_mono_ns(env) + 10000000000;
	while (x->counts.answered < 10 && env_mono_ns(env) < end)
		env_dir_sync(env, "");
	ping_client_stop(c);
	ping_server_stop(s);
	x->port = 1;
}

static bool ended(void *arg)
{
	return !sim_alive(arg);
}

static void a_service_that_stops_leaves_no_process(struct sim *w)
{
	struct stopping x = { .port = 0 };
	struct sim_process *p = sim_process(w, "both", "10.0.0.1", stopping_main, &x);
	sim_check(w, sim_until(w, 60000, ended, p), "it has not ended");
	sim_check(w, x.port == 1 && x.counts.answered >= 10 && !x.counts.wrong,
		  "too little was answered before the end");
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "pings_are_answered_right_and_again_after_faults",
		  .run = pings_are_answered_right_and_again_after_faults,
		  .seeds = 1000 },
		{ .name = "a_service_that_stops_leaves_no_process",
		  .run = a_service_that_stops_leaves_no_process,
		  .seeds = 200 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
