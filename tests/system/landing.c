/*
 * landing: real processes, a real MariaDB, kill -9. A writer appends records and tells which were acknowledged as
 * durable; a dbwriter lands them; both are killed at numbered failpoints and at random moments and started again.
 * In the end every acknowledged record is in the database, and each that is there has had its effect once.
 *
 * usage: landing [SEED [ROUNDS]]
 */
#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "common/err.h"
#include "common/loop.h"
#include "common/sqllog.h"
#include "dbwriter/replay.h"
#include "tests/support/folder.h"
#include "tests/support/mariadb.h"
#include "tests/support/sql.h"

static const char *const failpoints[] = { "sqllog.before_write", "sqllog.after_write", "sqllog.after_sync",
					  "dbwriter.before_commit", "dbwriter.after_commit" };
enum { FAILPOINTS = 5, WRITERS_POINTS = 3 };

/* ---- the writer: `landing write DIR ACKS` ------------------------------------------------------------------ */

struct writer {
	struct env *env;
	struct sqllog *log;
	struct loop *loop;
	struct timer timer;
	uint64_t next;
	FILE *acks;
};
struct op {
	struct sqllog_waiter waiter; /* first */
	struct writer *writer;
	char id[40];
};

static void on_durable(struct sqllog_waiter *w, int err)
{
	struct op *op = (struct op *)w;
	if (!err) {
		fprintf(op->writer->acks, "%s\n", op->id);
		fflush(op->writer->acks); /* one write(): it survives our death */
	}
	free(op);
}

static void append_op(struct writer *w)
{
	struct op *op = calloc(1, sizeof *op);
	struct sql_record r;
	char why[100];
	uint64_t lsn;
	op->writer = w;
	op->waiter.fn = on_durable;
	snprintf(op->id, sizeof op->id, "%llu-%llu", (unsigned long long)sqllog_epoch(w->log),
		 (unsigned long long)++w->next);
	struct sql_value none = { .type = SQL_TEXT, .s = { "", 0 } };
	struct sql_value values[] = { none, { .type = SQL_TEXT, .s = { op->id, strlen(op->id) } }, none, none };
	sql_record_init(&r);
	sql_record_key(&r, "role:1");
	if (sql_record_add(&r, "UPDATE role SET gold = gold + 1 WHERE id = 1", NULL, 0, why, sizeof why) < 0 ||
	    sql_record_add(
		    &r,
		    "INSERT INTO once_done (owner, once_key, fingerprint, answer, created_us) VALUES (?, ?, ?, ?, 0)",
		    values, 4, why, sizeof why) < 0) {
		fprintf(stderr, "landing: %s\n", why);
		exit(1);
	}
	if (sqllog_append(w->log, &r, &lsn) == 0)
		sqllog_wait(w->log, w->loop, &op->waiter, lsn, true);
	else
		free(op);
	sql_record_release(&r);
}

static void on_timer(struct timer *t, uint64_t now_ms)
{
	struct writer *w = (struct writer *)((char *)t - offsetof(struct writer, timer));
	unsigned char burst;
	(void)now_ms;
	env_random(w->env, &burst, 1);
	for (unsigned i = 0; i < burst % 8u; i++)
		append_op(w);
	loop_timer(w->loop, t, 1);
}

static void writer_started(struct loop *loop, void *arg)
{
	struct writer *w = arg;
	w->loop = loop;
	sqllog_join(w->log, loop);
	w->timer.fire = on_timer;
	loop_timer(loop, &w->timer, 1);
}

static int run_writer(const char *dir, const char *acks)
{
	char folder[400], error[400];
	struct writer w = { .env = env_new(), .acks = fopen(acks, "a") };
	snprintf(folder, sizeof folder, "%s/role-1", dir);
	struct sqllog_options o = { .folder = folder, .file_bytes_max = 200000, .linger_us = 200, .workers = 1 };
	if (sqllog_open(w.env, NULL, NULL, &o, error, sizeof error, &w.log) < 0) {
		fprintf(stderr, "landing: the log cannot be opened: %s\n", error);
		return 1;
	}
	struct loop *loop;
	loop_start(w.env, "writer", 0, writer_started, NULL, &w, &loop);
	loop_join(loop); /* until it is killed */
	return 0;
}

/* ---- the dbwriter: `landing land DIR SOCKET` --------------------------------------------------------------------- */

struct lander {
	struct replay_options o;
	struct log *log;
};

static void lander_started(struct loop *loop, void *arg)
{
	struct lander *l = arg;
	replay_new(loop, l->log, &l->o);
}

static int run_lander(const char *dir, const char *socket)
{
	struct env *env = env_new();
	struct loop *loop;
	char path[400];
	struct lander l = { .o = { .folder = dir,
				   .keep_s = 1000,
				   .batch_records_max = 200,
				   .poll_ms = 50,
				   .db = { .socket = socket, .user = "root", .password = "", .database = "loquat" } } };
	snprintf(path, sizeof path, "%s/log", dir);
	if (log_open(env, "dbwriter-1", path, LOG_INFO, &l.log) < 0)
		return 1;
	loop_start(env, "lander", 0, lander_started, NULL, &l, &loop);
	loop_join(loop);
	return 0;
}

/* ---- the test ------------------------------------------------------------------------------------------------------ */

static pid_t start(char *const argv[], const char *failpoint)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (failpoint)
		setenv("LOQUAT_FAILPOINT", failpoint, 1);
	execv("/proc/self/exe", argv);
	_exit(127);
}

static void rest_ms(unsigned ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };
	nanosleep(&t, NULL);
}

struct world {
	struct mariadb db;
	struct sql *q;
	char *dir, acks[400];
	pid_t writer, lander;
	unsigned seed, deaths, random;
};

static unsigned draw(struct world *w, unsigned below)
{
	w->random = w->random * 1664525u + 1013904223u;
	return (w->random >> 8) % below;
}

static void start_writer(struct world *w, const char *failpoint)
{
	w->writer = start((char *[]){ "landing", "write", w->dir, w->acks, NULL }, failpoint);
}

static void start_lander(struct world *w, const char *failpoint)
{
	w->lander = start((char *[]){ "landing", "land", w->dir, w->db.socket, NULL }, failpoint);
}

/* Dies by itself at the failpoint, or by us; true: it was a kill, not a refusal to start. */
static bool end(pid_t *pid, unsigned patience_ms)
{
	int status;
	for (unsigned ms = 0; ms < patience_ms && waitpid(*pid, &status, WNOHANG) == 0; ms += 2) {
		rest_ms(2);
		if (ms + 2 >= patience_ms) {
			kill(*pid, SIGKILL);
			waitpid(*pid, &status, 0);
		}
	}
	*pid = 0;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* One of the two is killed, at a failpoint or at a random moment, and started again. */
static bool one_round(struct world *w, unsigned round)
{
	char text[60];
	unsigned kind = round % (FAILPOINTS + 2);
	const char *point = kind < FAILPOINTS ? failpoints[kind] : NULL;
	bool writers = point ? kind < WRITERS_POINTS : kind == FAILPOINTS;
	pid_t *victim = writers ? &w->writer : &w->lander;
	if (point)
		snprintf(text, sizeof text, "%s:%u", point, 1 + draw(w, 12));
	if (*victim && !end(victim, point ? 1 : 5 + draw(w, 40)))
		return false;
	if (writers)
		start_writer(w, point ? text : NULL);
	else
		start_lander(w, point ? text : NULL);
	if (point && !end(victim, 400))
		return false;
	w->deaths++;
	if (!*victim)
		writers ? start_writer(w, NULL) : start_lander(w, NULL);
	return true;
}

static bool all_acks_landed(struct world *w, unsigned *acks)
{
	FILE *f = fopen(w->acks, "r");
	char id[60], select[140];
	bool all = true;
	*acks = 0;
	while (f && all && fgets(id, sizeof id, f)) {
		if (!strchr(id, '\n'))
			break; /* the writer died while it told us */
		id[strcspn(id, "\n")] = '\0';
		snprintf(select, sizeof select, "SELECT COUNT(*) FROM once_done WHERE once_key = '%s'", id);
		all = sql_int(w->q, select) == 1;
		++*acks;
		if (!all)
			printf("   acknowledged and not there: %s\n", id);
	}
	if (f)
		fclose(f);
	return all;
}

/* What the log holds has landed: the writer is dead, so its end stands still. */
static bool until_landed(struct world *w)
{
	struct env *env = env_new();
	char folder[400], error[400];
	snprintf(folder, sizeof folder, "%s/role-1", w->dir);
	struct sqllog_options o = { .folder = folder, .workers = 1 };
	struct sqllog *log;
	int err = sqllog_open(env, NULL, NULL, &o, error, sizeof error, &log);
	if (err < 0)
		printf("   %s\n", error);
	int64_t last = err < 0 ? -1 : (int64_t)sqllog_lsn(log), landed = 0;
	for (int i = 0; !err && i < 4000 && (landed = sql_int(w->q, "SELECT lsn FROM loquat_replay")) != last; i++)
		rest_ms(5);
	if (!err)
		sqllog_close(log);
	env_free(env);
	return landed == last;
}

static const char *run(struct world *w, unsigned rounds)
{
	unsigned acks;
	start_writer(w, NULL);
	start_lander(w, NULL);
	for (unsigned i = 0; i < rounds; i++)
		if (!one_round(w, i))
			return "a process ended by itself";
	rest_ms(50);
	end(&w->writer, 1);
	if (!until_landed(w))
		return "the log did not land to its end";
	if (!all_acks_landed(w, &acks))
		return "an acknowledged record is lost";
	int64_t gold = sql_int(w->q, "SELECT gold FROM role"), rows = sql_int(w->q, "SELECT COUNT(*) FROM once_done");
	if (gold != rows)
		return "effects and their keys do not agree";
	if (folder_size(w->dir, "quarantine.sql") != -1)
		return "a record was refused: it was landed twice";
	printf("   %u kills, %u acknowledged, %lld landed, each once (seed %u)\n", w->deaths, acks, (long long)rows,
	       w->seed);
	return acks < rounds ? "too little was acknowledged to show anything" : NULL;
}

static void prepare(struct world *w)
{
	char path[400];
	mariadb_start(&w->db);
	w->dir = folder_new();
	snprintf(w->acks, sizeof w->acks, "%s/acks.txt", w->dir);
	snprintf(path, sizeof path, "%s/role-1", w->dir);
	mkdir(path, 0755);
	w->q = sql_open(w->db.socket, NULL);
	sql_run(w->q, "CREATE DATABASE loquat; USE loquat");
	sql_file(w->q, "deploy/schema/001-base.sql");
	sql_run(w->q, "INSERT INTO role (id, uid, name) VALUES (1, 'a', 'a')");
}

static void tidy(struct world *w)
{
	if (w->writer)
		end(&w->writer, 1);
	if (w->lander)
		end(&w->lander, 1);
	sql_close(w->q);
	mariadb_end(&w->db);
	folder_free(w->dir);
}

static struct world world;
static unsigned rounds_wanted = 42;

START_TEST(killed_at_any_point_what_was_acknowledged_lands_once_and_nothing_lands_twice)
{
	world.random = world.seed;
	prepare(&world);
	const char *wrong = run(&world, rounds_wanted);
	tidy(&world);
	ck_assert_msg(!wrong, "%s; once more: build/tests/system/landing %u", wrong, world.seed);
}
END_TEST

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "write"))
		return run_writer(argv[2], argv[3]);
	if (argc == 4 && !strcmp(argv[1], "land"))
		return run_lander(argv[2], argv[3]);
	if (!mariadb_installed()) {
		printf("skip landing mariadbd is not installed\n");
		return 0;
	}
	world.seed = argc > 1 ? (unsigned)atoi(argv[1]) : (unsigned)time(NULL) % 100000;
	if (argc > 2)
		rounds_wanted = (unsigned)atoi(argv[2]);
	TCase *t = tcase_create("landing");
	tcase_set_timeout(t, 180);
	tcase_add_test(t, killed_at_any_point_what_was_acknowledged_lands_once_and_nothing_lands_twice);
	Suite *s = suite_create("landing");
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
