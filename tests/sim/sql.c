#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/sim_main.h"
#include "tests/support/sql_cases.h"
/*
 * The simulated database: it does what MariaDB does (the same cases run there, tests/system/sql.c), keeps what is
 * committed and nothing else, whoever dies and whatever line is cut.
 */
static void finished(void *arg)
{
	*(bool *)arg = true;
}

struct asked {
	struct sql_cases cases;
	bool over;
};

static void ask(struct loop *loop, void *arg)
{
	struct asked *a = arg;
	struct env_db_options o = { .host = "db", .database = "cases" };
	sql_cases_start(&a->cases, loop, &o, finished, &a->over);
}

static void ask_main(struct env *env, void *arg)
{
	struct loop *loop;
	loop_start(env, "sql", 0, ask, NULL, arg, &loop);
}

static bool is_over(void *arg)
{
	return *(bool *)arg;
}

static void statements_do_what_mariadb_does(struct sim *w)
{
	struct asked a = { .over = false };
	uint32_t max = sim_chances(w)->query_us_max;
	sim_calm(w);
	sim_chances(w)->query_us_max = max;
	sim_process(w, "asker", "10.0.0.1", ask_main, &a);
	sim_until(w, 600000, is_over, &a.over);
	sim_check(w, a.over, "it did not come to an end: step %u", a.cases.step);
	sim_check(w, !a.cases.failed, "%u differences, the first: %s", a.cases.failed, a.cases.first);
}

/* ---- the schema ------------------------------------------------------------------------------------------------ */

static void the_schema_files_can_be_loaded(struct sim *w)
{
	glob_t files;
	char *text;
	if (glob("deploy/schema/*.sql", 0, NULL, &files) != 0)
		sim_fail(w, "there are no schema files");
	sim_root(w, ".");
	for (size_t i = 0; !sim_failure(w) && i < files.gl_pathc; i++) {
		sim_check(w, sim_file_load(w, "10.0.0.1", files.gl_pathv[i], &text) > 0, "%s is empty",
			  files.gl_pathv[i]);
		sim_check(w, sim_db_run(w, text) == 0, "%s: %s", files.gl_pathv[i], sim_db_error(w));
		free(text);
	}
	globfree(&files);
	sim_check(w, sim_db_int(w, "SELECT COUNT(*) FROM role", -1) == 0, "table role: %s", sim_db_error(w));
}

/* ---- transfers: several clients move gold between accounts; the sum stays, acknowledged moves are there -------- */

#define CLIENTS  4
#define ACCOUNTS 5
#define GOLD     1000

struct mover {
	struct sim *w;
	unsigned index;
	uint64_t moves, known, unknown; /* begun; whose outcome is known; is not */
	bool careless;                  /* without a transaction around them */
};

struct hand { /* in the process */
	struct mover *mover;
	struct loop *loop;
	struct env_db *db;
	struct timer next;
	char sql[600];
};

static void hand_open(struct hand *h);

static void again(struct hand *h, uint64_t ms)
{
	loop_timer(h->loop, &h->next, ms);
}

static void lost(struct hand *h)
{
	env_db_close(h->db);
	h->db = NULL;
	again(h, 20);
}

static void on_rolled_back(void *arg, const struct env_db_result *r)
{
	struct hand *h = arg;
	if (r->err == ERR_UNAVAILABLE)
		lost(h);
	else
		again(h, 1);
}

static void on_moved(void *arg, const struct env_db_result *r)
{
	struct hand *h = arg;
	h->mover->known += r->err == 0;
	h->mover->unknown += r->err == ERR_UNAVAILABLE;
	if (r->err == ERR_FAILED)
		env_db_query(h->db, "ROLLBACK", 8, on_rolled_back, h);
	else if (r->err < 0)
		lost(h);
	else
		again(h, 1);
}

static void move(struct timer *t, uint64_t now_ms)
{
	struct hand *h = (struct hand *)((char *)t - offsetof(struct hand, next));
	uint64_t chance;
	(void)now_ms;
	if (!h->db) {
		hand_open(h);
		return;
	}
	env_random(h->loop->env, &chance, sizeof(chance));
	unsigned a = chance % ACCOUNTS, b = (a + 1 + (chance >> 8) % (ACCOUNTS - 1)) % ACCOUNTS;
	unsigned amount = 1 + (chance >> 16) % 100;
	int n = snprintf(h->sql, sizeof(h->sql),
			 "%s;\nUPDATE account SET gold = gold - %u WHERE id = %u;\n"
			 "UPDATE account SET gold = gold + %u WHERE id = %u;\n"
			 "INSERT INTO journal (mover, n) VALUES (%u, %llu);\nCOMMIT;\n",
			 h->mover->careless ? "DO 1" : "BEGIN", amount, a, amount, b, h->mover->index,
			 (unsigned long long)++h->mover->moves);
	env_db_query(h->db, h->sql, (size_t)n, on_moved, h);
}

static void on_open(void *arg, int err)
{
	struct hand *h = arg;
	if (err < 0)
		lost(h);
	else
		again(h, 1);
}

static void hand_open(struct hand *h)
{
	struct env_db_options o = { .host = "db" };
	env_db_open(h->loop->ev, &o, on_open, h, &h->db);
}

static void hand_start(struct loop *loop, void *arg)
{
	struct hand *h = calloc(1, sizeof(*h));
	h->mover = arg;
	h->loop = loop;
	h->next.fire = move;
	hand_open(h);
}

static void mover_main(struct env *env, void *arg)
{
	struct loop *loop;
	loop_start(env, "mover", 0, hand_start, NULL, arg, &loop);
}

static void make_tables(struct sim *w)
{
	char sql[100];
	sim_db_run(w, "CREATE TABLE account (id INT NOT NULL PRIMARY KEY, gold BIGINT NOT NULL);"
		      "CREATE TABLE journal (mover INT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (mover, n))");
	for (int i = 0; i < ACCOUNTS; i++) {
		snprintf(sql, sizeof(sql), "INSERT INTO account VALUES (%d, %d)", i, GOLD);
		sim_check(w, sim_db_run(w, sql) == 0, "%s: %s", sql, sim_db_error(w));
	}
}

static void disturb(struct sim *w)
{
	char name[16];
	snprintf(name, sizeof(name), "mover-%d", (int)sim_random(w, CLIENTS));
	switch (sim_random(w, 6)) {
	case 0: sim_kill(sim_find(w, name)); break;
	case 1: sim_link_reset(w, "db", name); break;
	case 2: sim_link_stall(w, "db", name, sim_chance(w, 500000)); break;
	case 3: sim_db_down(w, sim_chance(w, 500000)); break;
	case 4: sim_db_hold(w, sim_chance(w, 500000)); break;
	default: sim_crash_host(w, "10.0.0.1"); break;
	}
}

static void check_books(struct sim *w, const struct mover *movers)
{
	char sql[100];
	sim_check(w, sim_db_int(w, "SELECT SUM(gold) FROM account", 0) == ACCOUNTS * GOLD,
		  "gold was lost or made: %lld", (long long)sim_db_int(w, "SELECT SUM(gold) FROM account", 0));
	for (int i = 0; i < CLIENTS; i++) {
		snprintf(sql, sizeof(sql), "SELECT COUNT(*) FROM journal WHERE mover = %d", i);
		uint64_t there = (uint64_t)sim_db_int(w, sql, -1);
		const struct mover *m = &movers[i];
		sim_check(w, there >= m->known && there <= m->moves,
			  "mover %d knows of %llu moves of %llu, %llu are there", i, (unsigned long long)m->known,
			  (unsigned long long)m->moves, (unsigned long long)there);
	}
}

struct progress {
	const struct mover *movers;
	uint64_t known[CLIENTS];
};

static bool all_move_again(void *arg)
{
	struct progress *p = arg;
	for (int i = 0; i < CLIENTS; i++)
		if (p->movers[i].known < p->known[i] + 3)
			return false;
	return true;
}

static void move_gold(struct sim *w, bool careless)
{
	struct mover movers[CLIENTS];
	struct progress progress = { .movers = movers };
	make_tables(w);
	for (unsigned i = 0; i < CLIENTS; i++) {
		char name[16];
		snprintf(name, sizeof(name), "mover-%u", i);
		movers[i] = (struct mover){ .w = w, .index = i, .careless = careless };
		sim_supervise(sim_process(w, name, i ? "10.0.0.1" : "10.0.0.2", mover_main, &movers[i]), 10, 100);
	}
	for (int i = 0; i < 10 && sim_run_ms(w, sim_between(w, 1, 500)); i++) {
		disturb(w);
		check_books(w, movers);
	}
	sim_calm(w);
	sim_heal(w);
	sim_db_down(w, false);
	sim_db_hold(w, false);
	for (int i = 0; i < CLIENTS; i++)
		progress.known[i] = movers[i].known;
	/* a machine that died without a word keeps its locks for up to a minute, and a waiter gives up after 50 s */
	sim_check(w, sim_until(w, 130000, all_move_again, &progress), "somebody cannot move gold any more");
	check_books(w, movers);
}

static void transactions_happen_whole_or_not_at_all(struct sim *w)
{
	move_gold(w, false);
}
static void moves_without_transactions_are_found_out(struct sim *w)
{
	move_gold(w, true);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "statements_do_what_mariadb_does", .run = statements_do_what_mariadb_does, .seeds = 20 },
		{ .name = "the_schema_files_can_be_loaded", .run = the_schema_files_can_be_loaded, .seeds = 1 },
		{ .name = "transactions_happen_whole_or_not_at_all",
		  .run = transactions_happen_whole_or_not_at_all,
		  .seeds = 300 },
		{ .name = "moves_without_transactions_are_found_out",
		  .run = moves_without_transactions_are_found_out,
		  .seeds = 100,
		  .planted = "no BEGIN" },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
