#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/dbread.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/sqllog.h"
#include "dbwriter/replay.h"
#include "tests/support/sim_main.h"
/*
 * The way of a change from memory to the database, with everything failing on it: processes killed at any moment and at
 * any failpoint, power cuts that tear what was not synced, disks that are full, that fail, that forget what they took,
 * a database that goes away or does not say whether it committed.
 *
 * A writer keeps one role's gold in memory. It reads it back at its start and whenever it was told ERR_UNKNOWN, and each
 * change says it twice in one record: gold = gold - 1, and exp = what the memory holds. So a change that lands twice or
 * never, out of order, or on a state that was read too early, leaves the two apart; and a row per change tells which
 * landed. What was acknowledged as durable is kept outside, where no power cut reaches it.
 */
#define GOLD    1000000
#define CHANGES 4000 /* of one run, at most */
#define HOST    "10.0.0.1"

static const char tables[] =
	"CREATE TABLE loquat_replay (instance VARCHAR(31) NOT NULL PRIMARY KEY, epoch BIGINT NOT NULL, lsn BIGINT NOT NULL,"
	" file VARCHAR(64) NOT NULL DEFAULT '', time_us BIGINT NOT NULL DEFAULT 0);"
	"CREATE TABLE role (id BIGINT NOT NULL PRIMARY KEY, gold BIGINT NOT NULL, exp BIGINT NOT NULL);"
	"CREATE TABLE done (id BIGINT NOT NULL PRIMARY KEY);"
	"INSERT INTO role (id, gold, exp) VALUES (1, 1000000, 1000000)";

struct book { /* outside: what the world was told */
	struct sim *w;
	uint64_t started; /* changes that were begun; their ids */
	bool acknowledged[CHANGES + 1];
	uint64_t lsn;       /* of the log, as its writer saw it last */
	unsigned standing;  /* which start of the writer has read back; 0: none */
	bool quiet;         /* no new changes */
	bool answers_early; /* planted: answers before the record is durable */
	bool reads_early;   /* planted: reads back without waiting for the replay */
};

/* ---- the writer -------------------------------------------------------------------------------------------------- */

struct writer {
	struct book *book;
	struct env *env;
	struct sqllog *log;
	struct log *lines;
	struct loop *loop;
	struct dbread *reader;
	struct timer timer;
	unsigned start;
	int64_t gold;
	bool known;
};
struct change {
	struct sqllog_waiter waiter; /* first */
	struct writer *writer;
	uint64_t id;
};

static void read_back(struct writer *w);

static void on_rows(void *arg, const struct env_db_result *r)
{
	struct writer *w = arg;
	w->known = !r->err && r->rows == 1;
	if (w->known)
		w->gold = strtoll(r->cells[0], NULL, 10);
	w->book->standing = w->known ? w->start : 0;
	if (!w->known)
		read_back(w);
}

static void read_back(struct writer *w)
{
	static const char sql[] = "SELECT gold FROM role WHERE id = 1";
	w->known = false;
	w->book->standing = 0;
	dbread_query(w->reader, sql, sizeof sql - 1, w->book->reads_early ? NULL : "role:1", 2000, on_rows, w);
}

static void on_durable(struct sqllog_waiter *x, int err)
{
	struct change *c = (struct change *)x;
	struct writer *w = c->writer;
	if (!err)
		w->book->acknowledged[c->id] = true;
	else if (w->known)
		read_back(w); /* it may land or not: what is in memory is worth nothing now */
	free(c);
}

static int append(struct writer *w, uint64_t id, uint64_t *lsn)
{
	struct sql_record r;
	char why[100];
	struct sql_value gold = { .type = SQL_INT, .i = w->gold - 1 }, key = { .type = SQL_INT, .i = (int64_t)id };
	sql_record_init(&r);
	sql_record_key(&r, "role:1");
	int err =
		sql_record_add(&r, "UPDATE role SET gold = gold - 1, exp = ? WHERE id = 1", &gold, 1, why, sizeof why);
	if (!err)
		err = sql_record_add(&r, "INSERT INTO done (id) VALUES (?)", &key, 1, why, sizeof why);
	if (!err)
		err = sqllog_append(w->log, &r, lsn);
	sql_record_release(&r);
	return err;
}

static void change(struct writer *w)
{
	struct book *b = w->book;
	uint64_t lsn;
	if (!w->known || b->quiet || b->started == CHANGES)
		return;
	uint64_t id = ++b->started;
	if (append(w, id, &lsn) < 0)
		return; /* nothing was taken, and nothing changed */
	w->gold--;
	struct change *c = calloc(1, sizeof *c);
	c->waiter.fn = on_durable;
	c->writer = w;
	c->id = id;
	if (b->answers_early)
		b->acknowledged[id] = true;
	sqllog_wait(w->log, w->loop, &c->waiter, lsn, true);
}

static void on_timer(struct timer *t, uint64_t now_ms)
{
	struct writer *w = (struct writer *)((char *)t - offsetof(struct writer, timer));
	unsigned char n;
	(void)now_ms;
	env_random(w->env, &n, 1);
	for (unsigned i = 0; i < n % 6u; i++)
		change(w);
	w->book->lsn = sqllog_lsn(w->log);
	loop_timer(w->loop, t, 1 + n % 4u);
}

static void writer_started(struct loop *loop, void *arg)
{
	struct writer *w = arg;
	struct dbread_options o = {
		.db = { .host = "db", .port = 3306, .user = "root", .password = "", .database = "loquat" },
		.instance = "role-1",
		.sqllog = w->log,
		.connections = 1,
		.queue_max = 10
	};
	w->loop = loop;
	sqllog_join(w->log, loop);
	w->reader = dbread_new(loop, w->lines, &o);
	w->timer.fire = on_timer;
	loop_timer(loop, &w->timer, 1);
	read_back(w);
}

static void writer_main(struct env *env, void *arg)
{
	struct writer *w = calloc(1, sizeof *w);
	struct sqllog_options o = {
		.folder = "var/sqllog/role-1", .file_bytes_max = 20000, .linger_us = 500, .workers = 1
	};
	char error[400] = "";
	struct loop *loop;
	w->book = arg;
	w->env = env;
	w->start = sim_starts(sim_find(w->book->w, "role-1"));
	if (log_open(env, "role-1", "role.log", LOG_INFO, &w->lines) < 0)
		return;
	int err = sqllog_open(env, w->lines, NULL, &o, error, sizeof error, &w->log);
	if (err == ERR_CORRUPT)
		sim_fail(w->book->w, "the log cannot be opened: %s", error);
	if (err < 0) {
		log_close(w->lines); /* the last thread: the process ends, and is started again */
		return;
	}
	loop_start(env, "worker", 0, writer_started, NULL, w, &loop);
}

/* ---- the dbwriter --------------------------------------------------------------------------------------------------- */

struct lander {
	struct log *lines;
	struct replay_options o;
};

static void lander_started(struct loop *loop, void *arg)
{
	struct lander *l = arg;
	replay_new(loop, l->lines, &l->o);
}

static void lander_main(struct env *env, void *arg)
{
	struct lander *l = calloc(1, sizeof *l);
	struct loop *loop;
	unsigned char few;
	(void)arg;
	env_random(env, &few, 1);
	l->o = (struct replay_options){
		.folder = "var/sqllog",
		.batch_records_max = 40,
		.array_rows_min = 1 + few % 9u,
		.poll_ms = 100,
		.keep_s = 1,
		.db = { .host = "db", .port = 3306, .user = "root", .password = "", .database = "loquat" }
	};
	if (!log_open(env, "dbwriter-1", "dbwriter.log", LOG_INFO, &l->lines))
		loop_start(env, "worker", 0, lander_started, NULL, l, &loop);
}

/* ---- disasters ---------------------------------------------------------------------------------------------------------- */

struct scene {
	struct sim *w;
	struct book *book;
	struct sim_process *role, *dbwriter;
};

static void start_again(struct scene *s)
{
	if (!sim_alive(s->role))
		sim_restart(s->role);
	if (!sim_alive(s->dbwriter))
		sim_restart(s->dbwriter);
}

static void disaster(struct scene *s)
{
	struct sim *w = s->w;
	switch (sim_random(w, 8)) {
	case 0: sim_kill(s->role); break;
	case 1: sim_kill(s->dbwriter); break;
	case 2:
		sim_crash_host(w, HOST);
		sim_run_ms(w, sim_between(w, 10, 200));
		start_again(s);
		break;
	case 3:
		sim_disk_full(w, HOST, true);
		sim_run_ms(w, sim_between(w, 10, 1500));
		sim_disk_full(w, HOST, false);
		break;
	case 4: sim_disk_fail(w, HOST, (unsigned)sim_random(w, 3), (unsigned)sim_random(w, 3)); break;
	case 5:
		sim_db_down(w, true);
		sim_run_ms(w, sim_between(w, 10, 1000));
		sim_db_down(w, false);
		break;
	case 6: sim_failpoint(w, NULL, NULL, 1 + (unsigned)sim_random(w, 20)); break;
	default: sim_clock_step(w, HOST, (int64_t)sim_between(w, 0, 7200000000u) - 3600000000); break;
	}
}

/* It has read back, so it goes on: where a power cut left the log behind the database, its next record comes on top. */
static bool stands(void *arg)
{
	struct scene *s = arg;
	return sim_alive(s->role) && s->book->standing == sim_starts(s->role);
}

static bool has_landed(void *arg)
{
	struct scene *s = arg;
	struct book *b = s->book;
	return stands(s) && b->lsn &&
	       sim_db_int(s->w, "SELECT lsn FROM loquat_replay WHERE instance = 'role-1'", -1) == (int64_t)b->lsn;
}

static void note_row(void *arg, unsigned columns, const char *const *cells)
{
	bool *landed = arg;
	(void)columns;
	landed[strtoul(cells[0], NULL, 10)] = true;
}

static void check(struct scene *s)
{
	struct sim *w = s->w;
	struct book *b = s->book;
	bool *landed = calloc(CHANGES + 1, sizeof *landed);
	int rows = sim_db_select(w, "SELECT id FROM done", note_row, landed);
	int64_t gold = sim_db_int(w, "SELECT gold FROM role WHERE id = 1", -1),
		exp = sim_db_int(w, "SELECT exp FROM role WHERE id = 1", -1);
	for (uint64_t id = 1; id <= b->started; id++)
		sim_check(w, landed[id] || !b->acknowledged[id], "change %llu was acknowledged and is lost",
			  (unsigned long long)id);
	sim_check(w, gold == GOLD - rows, "%d changes landed, but gold is %lld", rows, (long long)gold);
	sim_check(w, exp == gold, "the database has gold %lld, the memory had %lld", (long long)gold, (long long)exp);
	sim_check(w, sim_db_int(w, "SELECT COUNT(*) FROM role", -1) == 1, "a role more or less");
	char *text;
	if (sim_file_load(w, HOST, "var/sqllog/quarantine.sql", &text) >= 0)
		sim_fail(w, "a record was refused: %.300s", text);
	free(landed);
}

/* What the processes said last, and what is in the log: for whoever looks into a failing seed. */
static void tell(struct sim *w, const struct book *b)
{
	static const char *const logs[] = { "role.log", "dbwriter.log" };
	char *text, path[ENV_PATH_MAX], why[80];
	struct sqllog_record r;
	ssize_t n, got;
	if (b->answers_early || b->reads_early)
		return;
	for (int i = 0; i < 2; i++)
		if ((n = sim_file_load(w, HOST, logs[i], &text)) >= 0)
			printf("# %s: %s%s\n", logs[i], n > 3000 ? "…" : "", n > 3000 ? text + n - 3000 : text);
	for (uint32_t number = 1; number < 100; number++) {
		sqllog_path(path, "var/sqllog/role-1", number, "sql");
		if ((n = sim_file_load(w, HOST, path, &text)) < 0)
			continue;
		uint64_t first = 0, last = 0, epoch = 0;
		size_t at = 0;
		while ((got = sqllog_read(text + at, (size_t)n - at, &r, why, sizeof why)) > 0) {
			at += (size_t)got;
			first = first ? first : r.lsn;
			last = r.lsn;
			epoch = r.epoch;
		}
		printf("# %s: %llu to %llu, epoch %llu, %zu of %zd bytes sound\n", path, (unsigned long long)first,
		       (unsigned long long)last, (unsigned long long)epoch, at, n);
	}
}

static void play(struct sim *w, struct book *b)
{
	struct scene s = { .w = w, .book = b };
	b->w = w;
	if (sim_db_run(w, tables))
		sim_fail(w, "%s", sim_db_error(w));
	s.role = sim_process(w, "role-1", HOST, writer_main, b);
	s.dbwriter = sim_process(w, "dbwriter-1", HOST, lander_main, NULL);
	sim_supervise(s.role, 1, 100);
	sim_supervise(s.dbwriter, 1, 100);
	for (int i = 0; i < 8 && !sim_failure(w); i++) {
		sim_run_ms(w, sim_between(w, 1, 400));
		disaster(&s);
	}
	sim_calm(w);
	sim_failpoint(w, NULL, NULL, 0);
	start_again(&s);
	sim_until(w, 60000, stands, &s);
	sim_run_ms(w, 100);
	b->quiet = true;
	sim_run_ms(w, 100);
	bool landed = sim_until(w, 60000, has_landed, &s);
	if (!sim_failure(w))
		sim_check(w, landed, "not landed: position %lld of %llu, writer %s",
			  (long long)sim_db_int(w, "SELECT lsn FROM loquat_replay", -1), (unsigned long long)b->lsn,
			  stands(&s) ? "stands" : "waits");
	if (!sim_failure(w))
		check(&s);
	if (sim_failure(w))
		tell(w, b);
}

static void run(struct sim *w)
{
	struct book *b = calloc(1, sizeof *b);
	play(w, b);
	free(b);
}

static void run_answers_early(struct sim *w)
{
	struct book *b = calloc(1, sizeof *b);
	b->answers_early = true;
	play(w, b);
	free(b);
}

static void run_reads_early(struct sim *w)
{
	struct book *b = calloc(1, sizeof *b);
	b->reads_early = true;
	play(w, b);
	free(b);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "what_was_acknowledged_lands_once_and_memory_agrees", .run = run, .seeds = 400 },
		{ .name = "an_answer_before_the_record_is_durable_is_found",
		  .run = run_answers_early,
		  .seeds = 100,
		  .planted = "the answer goes out when the record is handed over" },
		{ .name = "reading_back_before_the_replay_has_passed_is_found",
		  .run = run_reads_early,
		  .seeds = 100,
		  .planted = "a role is read without waiting for its last change" },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
