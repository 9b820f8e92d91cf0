#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/loop.h"
#include "dbwriter/replay.h"
#include "tests/support/random_log.h"
#include "tests/support/records.h"
#include "tests/support/sim_main.h"
/*
 * Random logs on the simulated store, while connections break, answers of commits are lost, statements meet deadlocks and
 * dbwriter dies: gathered, folded and sent in any way they leave the rows, and the refused records, that they leave one by
 * one on a quiet machine.
 */
#define HOST "10.0.0.1"

struct way {
	const char *folder;
	struct replay_options o;
	struct log *lines;
};

static void lander_started(struct loop *loop, void *arg)
{
	struct way *way = arg;
	replay_new(loop, way->lines, &way->o);
}

static void lander_main(struct env *env, void *arg)
{
	struct way *way = arg;
	struct loop *loop;
	way->o.folder = way->folder;
	way->o.poll_ms = 100;
	way->o.keep_s = 1000000;
	way->o.db = (struct env_db_options){
		.host = "db", .port = 3306, .user = "root", .password = "", .database = "loquat"
	};
	if (!log_open(env, way->folder, "dbwriter.log", LOG_INFO, &way->lines))
		loop_start(env, "worker", 0, lander_started, NULL, way, &loop);
}

static void tables(struct sim *w)
{
	static const char positions[] =
		"DROP TABLE IF EXISTS loquat_replay; DROP TABLE IF EXISTS hero; DROP TABLE IF EXISTS item;"
		"DROP TABLE IF EXISTS quest; DROP TABLE IF EXISTS seat; DROP TABLE IF EXISTS purse; DROP TABLE IF EXISTS word;"
		"CREATE TABLE loquat_replay (instance VARCHAR(31) NOT NULL PRIMARY KEY, epoch BIGINT NOT NULL, lsn BIGINT NOT NULL,"
		" file VARCHAR(64) NOT NULL DEFAULT '', time_us BIGINT NOT NULL DEFAULT 0)";
	if (sim_db_run(w, positions) || sim_db_run(w, random_log_tables))
		sim_fail(w, "the tables: %s", sim_db_error(w));
}

static void add_row(void *arg, unsigned columns, const char *const *cells)
{
	for (unsigned i = 0; i < columns; i++)
		buf_addf(arg, "%s,", cells[i] ? cells[i] : "NULL");
	buf_addch(arg, '|');
}

static void outcome(struct sim *w, const char *folder, struct buf *out)
{
	static const char *const names[] = { "hero", "item", "quest", "seat", "purse", "word" };
	char sql[80], path[80], *text;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(sql, sizeof sql, "SELECT * FROM %s", names[i]);
		buf_addf(out, "%s: ", names[i]);
		sim_db_select(w, sql, add_row, out);
	}
	snprintf(path, sizeof path, "%s/quarantine.sql", folder);
	if (sim_file_load(w, HOST, path, &text) < 0)
		return;
	char last[200] = "", line[200];
	for (char *p = text; (p = strstr(p, "-- quarantine ")); p++) {
		snprintf(line, sizeof line, "%.*s\n", (int)(strstr(p, " message=") - p), p);
		if (strcmp(line, last)) /* one that died before it moved the position keeps the record again */
			buf_addstr(out, line);
		memcpy(last, line, sizeof last);
	}
}

struct until {
	struct sim *w;
	int64_t lsn;
};

static bool has_landed(void *arg)
{
	const struct until *u = arg;
	return sim_db_int(u->w, "SELECT lsn FROM loquat_replay", -1) == u->lsn;
}

static bool troubled(struct sim *w, struct sim_process *p, const char *name)
{
	static const char *const points[] = { "dbwriter.before_commit", "dbwriter.after_commit" };
	switch (sim_random(w, 4)) {
	case 0: sim_kill(p); break;
	case 1: sim_failpoint(w, NULL, points[sim_random(w, 2)], 1 + (unsigned)sim_random(w, 4)); break;
	case 2: sim_link_reset(w, name, "db"); break;
	default: break;
	}
	return sim_run_ms(w, sim_between(w, 20, 600));
}

static void land(struct sim *w, struct way *way, const struct buf *log, unsigned records, bool quiet, struct buf *out)
{
	char path[80];
	struct until u = { w, records };
	struct sim_chances chances = *sim_chances(w);
	tables(w);
	snprintf(path, sizeof path, "%s/role-1/00000001.sql", way->folder);
	sim_file_store(w, HOST, path, log->data, log->len);
	if (quiet)
		sim_calm(w);
	struct sim_process *p = sim_process(w, way->folder, HOST, lander_main, way);
	sim_supervise(p, 1, 50);
	for (int i = 0; i < 4 && !quiet && troubled(w, p, way->folder); i++)
		;
	sim_failpoint(w, NULL, NULL, 0);
	sim_check(w, sim_until(w, 120000, has_landed, &u) || sim_failure(w), "%s: not landed: %lld of %u", way->folder,
		  (long long)sim_db_int(w, "SELECT lsn FROM loquat_replay", -1), records);
	sim_supervise(p, 0, 0);
	sim_kill(p);
	*sim_chances(w) = chances;
	sim_run_ms(w, 1000);
	outcome(w, way->folder, out);
}

/* From the line before the first difference on. */
static const char *differs(const struct buf *b, const struct buf *from)
{
	size_t i = 0;
	while (i < b->len && i < from->len && b->data[i] == from->data[i])
		i++;
	return b->data + (i > 60 ? i - 60 : 0);
}

static void any_way_leaves_the_same_rows(struct sim *w)
{
	bool risky = sim_chance(w, 500000);
	unsigned records = risky ? 60 : 120,
		 batch = risky ? (unsigned)sim_between(w, 2, 9) : (unsigned)sim_between(w, 5, 60);
	struct way ways[] = {
		{ "var/one", { .batch_records_max = batch, .one_by_one = true }, NULL },
		{ "var/gathered", { .batch_records_max = batch, .no_fold = true, .array_rows_min = 1 }, NULL },
		{ "var/folded",
		  { .batch_records_max = batch, .array_rows_min = 1 + (unsigned)sim_random(w, 4) },
		  NULL },
	};
	struct buf log = BUF_INIT, expected = BUF_INIT, got = BUF_INIT;
	random_log(&log, sim_random(w, 1000000000), 1, records, risky ? RANDOM_LOG_RISKY : 0);
	for (size_t i = 0; i < 3 && !sim_failure(w); i++) {
		buf_clear(&got);
		land(w, &ways[i], &log, records, !i, i ? &got : &expected);
		sim_check(w,
			  !i || sim_failure(w) ||
				  (got.len == expected.len && !memcmp(got.data, expected.data, got.len)),
			  "%s: …%.150s\nexpected: …%.150s", ways[i].folder, differs(&got, &expected),
			  differs(&expected, &got));
	}
	buf_release(&log);
	buf_release(&expected);
	buf_release(&got);
}

/* Its position has moved over it: it stands nowhere else. */
static void a_power_cut_takes_no_refused_record(struct sim *w)
{
	struct way way = { "var/cut", { .batch_records_max = 10 }, NULL };
	struct until u = { w, 3 };
	struct buf log = BUF_INIT;
	char *text = NULL;
	tables(w);
	records_begin(&log);
	for (uint64_t lsn = 1; lsn <= 3; lsn++)
		records_add(&log, (struct made){ .lsn = lsn,
						 .epoch = 1,
						 .keys = "hero:1",
						 .statements = lsn == 2 ? "UPDATE nothing SET n = 1 WHERE id = 1;\n"
									: "UPDATE hero SET gold = 1 WHERE id = 1;\n" });
	sim_file_store(w, HOST, "var/cut/role-1/00000001.sql", log.data, log.len);
	sim_supervise(sim_process(w, "cut", HOST, lander_main, &way), 1, 50);
	sim_check(w, sim_until(w, 120000, has_landed, &u) || sim_failure(w), "not landed");
	sim_crash_host(w, HOST);
	ssize_t n = sim_file_load(w, HOST, "var/cut/quarantine.sql", &text);
	sim_check(w, n > 0 && strstr(text, "-- quarantine instance=role-1 epoch=1 lsn=2 ") && strstr(text, "COMMIT;\n"),
		  "record 2 is nowhere");
	free(text);
	buf_release(&log);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "any_way_leaves_the_same_rows", .run = any_way_leaves_the_same_rows, .seeds = 120 },
		{ .name = "a_power_cut_takes_no_refused_record",
		  .run = a_power_cut_takes_no_refused_record,
		  .seeds = 20 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
