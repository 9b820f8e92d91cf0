/*
 * replay: how many records a second dbwriter's replay lands in a private MariaDB, beside the database's own client on the
 * same records: as they stand in the log (a transaction each), and in transactions of 1000 as the replay makes them.
 *
 * The records are 30 % changes of a role, 40 % of an item in a bag, 30 % of a quest, over 2,000 roles. The tables must be
 * the same after each of the three. Positions are committed with the rows in the replay alone.
 *
 * usage: replay [--records N]     prints one JSON object
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "common/err.h"
#include "common/loop.h"
#include "common/sqllog.h"
#include "dbwriter/replay.h"
#include "tests/support/mariadb.h"

enum { ROLES = 2000, TRANSACTION = 1000 };

struct bench {
	struct mariadb db;
	struct env *env;
	unsigned records;
	char dir[64], folder[96];
	struct loop *loop;
	struct log *log;
	struct replay *replay;
};

static void need(bool fine, const char *what)
{
	if (fine)
		return;
	fprintf(stderr, "replay: %s\n", what);
	exit(2);
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the database's own client --------------------------------------------------------------------------------- */

/* Feeds a file to `mariadb`; answer, if wanted, gets what it prints. */
static void client(struct bench *b, const char *database, const char *file, const char *statement, char *answer,
		   size_t size)
{
	char socket[128];
	int out[2], status;
	snprintf(socket, sizeof socket, "--socket=%s", b->db.socket);
	need(pipe(out) == 0, "no pipe");
	pid_t pid = fork();
	if (pid == 0) {
		int in = open(file ? file : "/dev/null", O_RDONLY);
		dup2(in, 0);
		dup2(out[1], 1);
		execlp("mariadb", "mariadb", "--no-defaults", "--user=root", "--batch", "--skip-column-names", socket,
		       statement ? "-e" : database, statement ? statement : (char *)NULL, database, (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	size_t n = 0;
	for (ssize_t got; answer && n + 1 < size && (got = read(out[0], answer + n, size - 1 - n)) > 0;
	     n += (size_t)got)
		;
	if (answer)
		answer[n] = '\0';
	waitpid(pid, &status, 0);
	close(out[0]);
	need(status == 0, "the mariadb client failed");
}

static void fresh_tables(struct bench *b)
{
	char path[128];
	client(b, NULL, NULL, "DROP DATABASE IF EXISTS loquat; CREATE DATABASE loquat", NULL, 0);
	client(b, "loquat", "deploy/schema/001-base.sql", NULL, NULL, 0);
	snprintf(path, sizeof path, "%s/roles.sql", b->dir);
	client(b, "loquat", path, NULL, NULL, 0);
}

static void checksum(struct bench *b, char out[256])
{
	client(b, "loquat", NULL, "CHECKSUM TABLE role, bag, quest", out, 256);
}

/* ---- the log -------------------------------------------------------------------------------------------------------- */

static unsigned draw(unsigned *state, unsigned below)
{
	*state = *state * 1664525u + 1013904223u;
	return (*state >> 8) % below;
}

static void build(struct sql_record *r, unsigned *chance)
{
	unsigned role = 1 + draw(chance, ROLES), kind = draw(chance, 10);
	struct sql_value v[6] = { { .type = SQL_INT }, { .type = SQL_INT }, { .type = SQL_INT },
				  { .type = SQL_INT }, { .type = SQL_INT }, { .type = SQL_INT } };
	char why[100], key[20];
	v[0].i = (int64_t)draw(chance, 1000);
	v[1].i = (int64_t)draw(chance, 100000);
	v[2].i = (int64_t)role;
	int err;
	snprintf(key, sizeof key, "role:%u", role);
	sql_record_key(r, key);
	if (kind < 3) {
		err = sql_record_add(r, "UPDATE role SET gold = gold - ?, exp = ? WHERE id = ?", v, 3, why, sizeof why);
	} else if (kind < 7) {
		v[0].i = (int64_t)role;
		v[1].i = (int64_t)draw(chance, 50);
		v[2].i = (int64_t)draw(chance, 999);
		err = sql_record_add(r, "REPLACE INTO bag (role_id, item, count) VALUES (?, ?, ?)", v, 3, why,
				     sizeof why);
	} else {
		v[0].i = (int64_t)role;
		v[1].i = (int64_t)draw(chance, 20);
		v[2] = (struct sql_value){ .type = SQL_TEXT, .s = { "active", 6 } };
		v[3].i = v[4].i = (int64_t)draw(chance, 50);
		err = sql_record_add(r,
				     "INSERT INTO quest (role_id, quest, state, progress) VALUES (?, ?, ?, ?) "
				     "ON DUPLICATE KEY UPDATE progress = ?",
				     v, 5, why, sizeof why);
	}
	need(!err, why);
}

static void write_log(struct bench *b)
{
	struct sqllog_options o = {
		.folder = b->folder, .file_bytes_max = 1u << 30, .linger_us = UINT32_MAX, .workers = 1
	};
	struct sqllog *l;
	struct sql_record r;
	char error[300];
	unsigned chance = 1;
	int err;
	sql_record_init(&r);
	need(!sqllog_open(b->env, NULL, NULL, &o, error, sizeof error, &l), error);
	for (unsigned i = 0; i < b->records; i++) {
		build(&r, &chance);
		while ((err = sqllog_append(l, &r, NULL)) == ERR_BUSY)
			usleep(100);
		need(!err, "append");
	}
	sqllog_close(l);
	sql_record_release(&r);
}

/* The same records without their own transactions, in some of 1000. */
static void write_batched(struct bench *b, const char *path)
{
	char log[128], why[80];
	struct sqllog_file f;
	struct sqllog_record r;
	FILE *out = fopen(path, "w");
	unsigned n = 0, count;
	size_t bytes;
	snprintf(log, sizeof log, "%s/00000001.sql", b->folder);
	need(out && !sqllog_file_open(&f, b->env, log), log);
	fputs("SET NAMES utf8mb4;\n", out);
	while (sqllog_file_next(&f, &r, why, sizeof why) == 1) {
		const char *text = sqllog_statements(&r, &bytes, &count);
		fputs(n % TRANSACTION ? "" : n ? "COMMIT;\nBEGIN;\n" : "BEGIN;\n", out);
		fwrite(text, 1, bytes, out);
		n++;
	}
	fputs("COMMIT;\n", out);
	fclose(out);
	sqllog_file_close(&f);
}

static void write_roles(struct bench *b)
{
	char path[128];
	snprintf(path, sizeof path, "%s/roles.sql", b->dir);
	FILE *out = fopen(path, "w");
	need(out, path);
	for (unsigned id = 1; id <= ROLES; id++)
		fprintf(out, "INSERT INTO role (id, uid, name) VALUES (%u, 'u%u', 'n%u');\n", id, id, id);
	fclose(out);
}

/* ---- the three ways ----------------------------------------------------------------------------------------------------- */

static void on_start(struct loop *loop, void *arg)
{
	struct bench *b = arg;
	struct replay_options o = {
		.folder = b->dir,
		.keep_s = 1000000,
		.db = { .socket = b->db.socket, .user = "root", .password = "", .database = "loquat" }
	};
	b->replay = replay_new(loop, b->log, &o);
}

static void on_stop(struct loop *loop, void *arg)
{
	(void)loop;
	replay_free(((struct bench *)arg)->replay);
}

static double by_replay(struct bench *b)
{
	struct replay_figures f = { 0 };
	double from = now_s();
	need(!loop_start(b->env, "replay", 0, on_start, on_stop, b, &b->loop), "no loop");
	while (f.records < b->records) {
		usleep(500);
		need(now_s() - from < 100, "the replay does not come to its end");
		if (b->replay)
			replay_figures(b->replay, &f);
	}
	double took = now_s() - from;
	loop_stop(b->loop);
	loop_join(b->loop);
	return took;
}

static double by_client(struct bench *b, const char *path)
{
	double from = now_s();
	client(b, "loquat", path, NULL, NULL, 0);
	return now_s() - from;
}

static void prepare(struct bench *b)
{
	char path[128];
	need(mariadb_installed(), "mariadbd is not installed");
	mariadb_start(&b->db);
	snprintf(b->dir, sizeof b->dir, "/tmp/loquat-replay-XXXXXX");
	need(mkdtemp(b->dir), "no temporary folder");
	snprintf(b->folder, sizeof b->folder, "%s/role-1", b->dir);
	snprintf(path, sizeof path, "%s/log", b->dir);
	b->env = env_new();
	need(!log_open(b->env, "bench", path, LOG_WARN, &b->log), path);
	write_roles(b);
	write_log(b);
}

int main(int argc, char **argv)
{
	struct bench b = { .records = argc == 3 && !strcmp(argv[1], "--records") ? (unsigned)atoi(argv[2]) : 40000 };
	char path[128], batched[128], sums[3][256];
	need(b.records, "--records takes a number from 1");
	prepare(&b);
	snprintf(path, sizeof path, "%s/00000001.sql", b.folder);
	snprintf(batched, sizeof batched, "%s/batched.sql", b.dir);
	write_batched(&b, batched);
	fresh_tables(&b);
	double replay_s = by_replay(&b);
	checksum(&b, sums[0]);
	fresh_tables(&b);
	double batched_s = by_client(&b, batched);
	checksum(&b, sums[1]);
	fresh_tables(&b);
	double client_s = by_client(&b, path);
	checksum(&b, sums[2]);
	need(!strcmp(sums[0], sums[1]) && !strcmp(sums[0], sums[2]), "the tables differ");
	printf("{\"replay_per_s\":%.0f,\"client_1000_per_s\":%.0f,\"client_per_s\":%.0f,\"records\":%u}\n",
	       b.records / replay_s, b.records / batched_s, b.records / client_s, b.records);
	log_close(b.log);
	env_free(b.env);
	mariadb_end(&b.db);
	snprintf(path, sizeof path, "rm -rf %s", b.dir);
	return system(path) != 0;
}
