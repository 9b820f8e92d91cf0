/*
 * A login storm on real sockets: more players than the gate lets in at once, all within a few seconds, and the gate killed in
 * the middle. They come back with their tickets; nobody is lost, the order is kept, what they were told came true.
 *
 * A short form here; STORM_MEMBERS, STORM_ARRIVE_MS and STORM_RATE in the environment make a long one (`make soak`).
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "tests/support/crowd.h"
#include "tests/support/edgecluster.h"
#include "tests/support/suite.h"

/* Players who stood still for longer, on a machine with too much to do, may come back when others have been let in. */
#define STALL_MS 200

static struct edgecluster cluster;

static unsigned given(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)atoi(text) : otherwise;
}

struct cost {
	double cpu_s;
	unsigned kib; /* the most it ever had */
};

/* What the gate's process has cost so far; it is added up over its lives. */
static void cost_add(struct cost *c, pid_t pid)
{
	char path[64], line[512];
	unsigned long user = 0, system = 0;
	unsigned kib = 0;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), f));
	fclose(f);
	ck_assert_int_eq(sscanf(line, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
				&system),
			 2);
	c->cpu_s += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmHWM: %u", &kib);
	fclose(f);
	c->kib = kib > c->kib ? kib : c->kib;
}

static void wait_for(const struct crowd *c, unsigned admitted, unsigned seconds)
{
	for (unsigned i = 0; i < seconds * 100; i++) {
		if (crowd_done(c) || (admitted && __atomic_load_n(&c->admitted, __ATOMIC_RELAXED) >= admitted))
			return;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
}

static void on_start(struct loop *loop, void *crowd)
{
	crowd_start(crowd, loop);
}

static void report(const struct crowd *c, const struct crowd_judgement *j, const struct cost *cost)
{
	printf("# %u players, %u waited, %u lost their gate, %u places and %u tokens were refused\n", c->o.members,
	       c->queued, c->lost_gates, c->places_lost, c->refused);
	printf("# positions off by %.3f (99 of 100 within %.3f), etas by %.3f (%.3f), %u pushes judged, %.1f for each\n",
	       j->position_median, j->position_p99, j->eta_median, j->eta_p99, j->judged, j->tells_mean);
	printf("# let in before one who stood before: by at most %llu ms\n", (unsigned long long)j->inversion_ms);
	printf("# the gate: %.2f s of CPU, %.0f us for each player, %u KiB at most\n", cost->cpu_s,
	       cost->cpu_s * 1e6 / c->o.members, cost->kib);
}

START_TEST(a_storm_is_let_in_in_its_order_though_the_gate_is_killed)
{
	unsigned members = given("STORM_MEMBERS", 2000), rate = given("STORM_RATE", 350);
	struct crowd_options o = {
		.host = "127.0.0.1",
		.gates = 1,
		.members = members,
		.arrive_ms = given("STORM_ARRIVE_MS", 1000),
		.stay_ms = 100,
		.back_ms = 800,
		.enters = true,
	};
	struct crowd_judgement j;
	struct cost cost = { 0 };
	struct loop *loop;
	unsigned judged;
	char lua[200];

	snprintf(lua, sizeof(lua), "gate = { admit_per_s = %u, players_max = 100000 },", rate);
	edgecluster_start(&cluster, &(struct edgecluster_options){ .lua = lua, .gate_process = true });
	o.gate[0] = cluster.gate_port[0];
	struct crowd *c = crowd_new(&o);
	ck_assert_int_eq(loop_start(cluster.env, "crowd", 0, on_start, NULL, c, &loop), 0);
	wait_for(c, members * 2 / 3, 60 + members / rate);
	cost_add(&cost, cluster.gate_pid);
	uint32_t kill_ms = (uint32_t)(env_mono_ns(cluster.env) / 1000000 - c->start_ms);
	edgecluster_gate_kill(&cluster);
	edgecluster_gate_spawn(&cluster);
	/* what was promised before could not know of this */
	uint32_t from_ms = (uint32_t)(env_mono_ns(cluster.env) / 1000000 - c->start_ms);
	wait_for(c, 0, 60 + members / rate);
	cost_add(&cost, cluster.gate_pid);
	loop_stop(loop);
	loop_join(loop);
	crowd_judge(c, from_ms, &j);
	report(c, &j, &cost);
	ck_assert_msg(crowd_done(c), "%u of %u are through", c->done, members);
	ck_assert_uint_eq(c->places_lost, 0);
	ck_assert_uint_eq(c->entered, members);
	ck_assert_uint_gt(c->lost_gates, members / 10);
	unsigned wrong = crowd_false(c, kill_ms, &judged);
	printf("# %u of %u positions told before the gate was killed were false; the players stood still for %u ms at most\n",
	       wrong, judged, (unsigned)c->stall_ms);
	ck_assert_uint_eq(wrong, 0);
	ck_assert_double_lt(j.tells_mean, 12);
	if (c->stall_ms < STALL_MS)
		ck_assert_uint_eq(j.inversion_ms, 0);
	crowd_free(c);
	edgecluster_stop(&cluster);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("storm");

	tcase_set_timeout(t, 30);
	tcase_add_test(t, a_storm_is_let_in_in_its_order_though_the_gate_is_killed);
	return suite_run("storm", t);
}
