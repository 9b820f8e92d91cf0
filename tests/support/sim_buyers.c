#include "tests/support/sim_buyers.h"
#include <stdio.h>
#include <stdlib.h>

struct buyer {
	struct player player;
	struct sim_buyers *x;
};

static void on_bought(struct player *p, unsigned order, uint64_t took_ms)
{
	struct sim_buyers *x = ((struct buyer *)p)->x;

	(void)order;
	if (took_ms > x->longest_ms)
		x->longest_ms = took_ms;
}

static void players_loop(struct loop *loop, void *arg)
{
	struct sim_buyers *x = arg;

	for (unsigned i = 0; i < x->players * x->rivals; i++) {
		struct buyer *b = calloc(1, sizeof *b);

		b->x = x;
		b->player.bought = on_bought;
		player_start(&b->player, loop, x->gate_host, x->gate_port, x->think_ms, &x->record[i % x->players]);
	}
}

static void players_main(struct env *env, void *arg)
{
	struct loop *loop;

	loop_start(env, "players", 0, players_loop, NULL, arg, &loop);
}

/* names of one's own language: a log key has room for them */
void sim_buyers_come(struct sim_buyers *x, const char *host, unsigned wanted_min, unsigned wanted_max)
{
	x->players = (unsigned)sim_between(x->w, 20, SIM_BUYERS_MAX) / x->rivals;
	for (unsigned i = 0; i < x->players; i++) {
		struct purchases *r = &x->record[i];

		snprintf(r->uid, sizeof r->uid, i % 3 ? "p%u" : "一二三四五六七八九%u", i);
		r->wanted = (unsigned)sim_between(x->w, wanted_min, wanted_max);
	}
	sim_process(x->w, "players", host, players_main, x);
}

static bool all_done(void *arg)
{
	struct sim_buyers *x = arg;

	for (unsigned i = 0; i < x->players; i++)
		if (x->record[i].answered < x->record[i].wanted && !*x->record[i].wrong)
			return false;
	return true;
}

/* ---- the checks --------------------------------------------------------------------------------------------------------- */

static int64_t ask(struct sim_buyers *x, const char *what, const char *table, const char *where, int64_t id)
{
	char sql[256];

	snprintf(sql, sizeof sql, "SELECT %s FROM %s WHERE %s%lld", what, table, where, (long long)id);
	return sim_db_int(x->w, sql, 0);
}

static int64_t role_id(struct sim_buyers *x, const char *uid)
{
	char sql[128];

	snprintf(sql, sizeof sql, "SELECT id FROM role WHERE uid = '%s'", uid);
	return sim_db_int(x->w, sql, 0);
}

static bool everything_landed(struct sim_buyers *x)
{
	for (unsigned i = 0; i < x->players; i++)
		if (ask(x, "count", "bag", "item = 1 AND role_id = ", role_id(x, x->record[i].uid)) <
		    (int64_t)x->record[i].answered)
			return false;
	return true;
}

static void check_player(struct sim_buyers *x, const struct purchases *r)
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

void sim_buyers_check(struct sim_buyers *x)
{
	struct sim *w = x->w;

	/* a database learns late that a client's machine has died: until then it keeps that client's locks */
	if (!sim_until(w, 120000, all_done, x))
		sim_fail(w, "two minutes after the last fault somebody has not bought everything");
	for (unsigned i = 0; i < 1200 && !everything_landed(x) && sim_run_ms(w, 100); i++)
		;
	sim_check(w, everything_landed(x), "two minutes after the last purchase something has not landed");
	sim_run_ms(w, 2000); /* whatever should not come would come now */
	for (unsigned i = 0; i < x->players; i++)
		check_player(x, &x->record[i]);
}
