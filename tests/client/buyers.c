/*
 * buyers: players who log in through the gate and buy one potion after the other, each order until it is answered.
 *
 * usage: buyers GATE_PORT PLAYERS FIRST WANTED THINK_MS SECONDS [NAME]
 *
 * The players are NAME0, NAME1, … (NAME: buyer). Each asks for the orders UID-FIRST … UID-(WANTED - 1), with pauses of up
 * to THINK_MS. A line per answered purchase: UID ORDER GOLD TOOK_MS WALL_MS; one per refusal, of a purchase or before
 * they are in: "refused" UID CODE TOOK_MS ANSWER. The last line: "players=… answered=… logins=…
 * closes=… refusals=… longest_ms=…". Exit 1 when not all were answered in SECONDS or an answer came that must not.
 *
 * SIGTERM: no further order is begun; it ends when those under way are answered, as if no others had been wanted.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/loop.h"
#include "tests/support/flag.h"
#include "tests/support/player.h"

struct buyers {
	struct env *env;
	struct player *player;
	struct purchases *record;
	unsigned players, first, wanted, think_ms;
	uint16_t gate;
	unsigned answered, goal; /* the loop's */
	bool ending;
	uint64_t longest_ms;
	struct flag done;
	struct timer watch;
	struct loop *loop;
};
static struct buyers all;
static volatile sig_atomic_t enough;

static uint64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void on_bought(struct player *p, unsigned order, uint64_t took_ms)
{
	printf("%s %u %lld %llu %llu\n", p->record->uid, order, (long long)p->record->gold[order],
	       (unsigned long long)took_ms, (unsigned long long)wall_ms());
	if (took_ms > all.longest_ms)
		all.longest_ms = took_ms;
	if (++all.answered == all.goal)
		flag_raise(&all.done);
}

static void on_refused(struct player *p, int code, const char *answer, uint64_t took_ms)
{
	printf("refused %s %d %llu %s\n", p->record->uid, code, (unsigned long long)took_ms, answer);
}

static void on_term(int signo)
{
	(void)signo;
	enough = 1;
}

static void end(void)
{
	all.ending = true;
	all.goal = 0;
	for (unsigned i = 0; i < all.players; i++) {
		struct purchases *r = &all.record[i];

		r->wanted = r->answered + (all.player[i].began_ms > 0);
		all.goal += r->wanted - all.first;
	}
	if (all.answered == all.goal)
		flag_raise(&all.done);
}

/* An answer that must never come ends it at once. */
static void on_watch(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	fflush(stdout);
	if (enough && !all.ending)
		end();
	for (unsigned i = 0; i < all.players; i++)
		if (*all.record[i].wrong)
			flag_raise(&all.done);
	loop_timer(all.loop, t, 100);
}

static void on_start(struct loop *loop, void *arg)
{
	(void)arg;
	all.loop = loop;
	for (unsigned i = 0; i < all.players; i++) {
		all.player[i].bought = on_bought;
		all.player[i].was_refused = on_refused;
		player_start(&all.player[i], loop, "127.0.0.1", all.gate, all.think_ms, &all.record[i]);
	}
	all.watch.fire = on_watch;
	loop_timer(loop, &all.watch, 100);
}

static int report(void)
{
	unsigned logins = 0, closes = 0, refusals = 0, wrong = 0;

	for (unsigned i = 0; i < all.players; i++) {
		const struct purchases *r = &all.record[i];

		logins += r->logins;
		closes += r->closes;
		refusals += r->refusals;
		if (*r->wrong) {
			wrong++;
			fprintf(stderr, "buyers: %s: %s\n", r->uid, r->wrong);
		}
	}
	printf("players=%u answered=%u logins=%u closes=%u refusals=%u longest_ms=%llu\n", all.players, all.answered,
	       logins, closes, refusals, (unsigned long long)all.longest_ms);
	return wrong || all.answered < all.goal;
}

static void prepare(const char *name)
{
	all.env = env_new();
	all.player = calloc(all.players, sizeof *all.player);
	all.record = calloc(all.players, sizeof *all.record);
	flag_init(&all.done);
	for (unsigned i = 0; i < all.players; i++) {
		snprintf(all.record[i].uid, sizeof all.record[i].uid, "%s%u", name, i);
		all.record[i].answered = all.first;
		all.record[i].wanted = all.wanted;
	}
}

int main(int argc, char **argv)
{
	if (argc < 7 || strtoul(argv[4], NULL, 10) > PLAYER_ORDERS_MAX) {
		fprintf(stderr, "usage: buyers GATE_PORT PLAYERS FIRST WANTED(<=%d) THINK_MS SECONDS [NAME]\n",
			PLAYER_ORDERS_MAX);
		return 2;
	}
	all.gate = (uint16_t)strtoul(argv[1], NULL, 10);
	all.players = (unsigned)strtoul(argv[2], NULL, 10);
	all.first = (unsigned)strtoul(argv[3], NULL, 10);
	all.wanted = (unsigned)strtoul(argv[4], NULL, 10);
	all.think_ms = (unsigned)strtoul(argv[5], NULL, 10);
	all.goal = all.players * (all.wanted - all.first);
	signal(SIGTERM, on_term);
	uint64_t end = wall_ms() + strtoull(argv[6], NULL, 10) * 1000;
	struct loop *loop;

	prepare(argc > 7 ? argv[7] : "buyer");
	if (loop_start(all.env, "buyers", 0, on_start, NULL, NULL, &loop) < 0)
		return 2;
	while (wall_ms() < end && !flag_wait_s(&all.done, 1, 10)) {
	}
	loop_stop(loop);
	loop_join(loop);
	return report();
}
