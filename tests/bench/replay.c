/*
 * replay: how many records a second dbwriter's replay lands in a private MariaDB: over one connection with every
 * statement executed, with superseded ones folded, and over two connections; beside the database's own client on the same
 * records in transactions of 1000, and LOAD DATA of the rows they make, over two connections.
 *
 * The records are 30 % changes of a role, 40 % of an item in a bag, 30 % of a quest, over 2,000 roles, in the logs of two
 * instances. The tables must be the same after each. The client, being slow, has the first eighth alone, LOAD DATA has
 * no position to keep.
 *
 * usage: replay [--records N]            prints one JSON object
 *        replay --way plain|folded|two N     one of the ways alone, and the processor time it costs on each side
 *        replay --lag SECONDS RATE       the replay beside a writer of RATE records/s: its lag, looked at every 10 ms
 *        replay --recover N              reads and verifies a log of N records, as a start without a position does
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
#include "dbwriter/follow.h"
#include "dbwriter/replay.h"
#include "tests/support/mariadb.h"

enum { ROLES = 2000, TRANSACTION = 1000, BAG = 50, QUESTS = 20, SHARE = 8 };

struct bench {
	struct mariadb db;
	struct env *env;
	unsigned records;
	char dir[64], folder[2][96];
	struct replay_options options;
	struct loop *loop;
	struct log *log;
	struct replay *replay;
	struct replay_figures last; /* of the replay that ended last */
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
		execlp("mariadb", "mariadb", "--no-defaults", "--user=root", "--batch", "--skip-column-names",
		       "--local-infile=1", socket, statement ? "-e" : database, statement ? statement : (char *)NULL,
		       database, (char *)NULL);
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

/* A record as numbers; what the rows become by it is kept beside. */
struct change {
	unsigned role, kind, which;
	int64_t a, b;
};
struct rows {
	int64_t gold[ROLES + 1], exp[ROLES + 1];
};

static struct change drawn(unsigned *chance)
{
	struct change c = { .role = 1 + draw(chance, ROLES), .kind = draw(chance, 10) };
	c.a = (int64_t)draw(chance, 1000);
	c.b = (int64_t)draw(chance, 100000);
	c.which = draw(chance, c.kind < 7 ? BAG : QUESTS);
	return c;
}

static struct sql_value number(int64_t v)
{
	return (struct sql_value){ .type = SQL_INT, .i = v };
}

static void build(struct sql_record *r, const struct change *c)
{
	char why[100], key[20];
	int err;
	snprintf(key, sizeof key, "role:%u", c->role);
	sql_record_key(r, key);
	if (c->kind < 3) {
		struct sql_value v[] = { number(c->a), number(c->b), number(c->role) };
		err = sql_record_add(r, "UPDATE role SET gold = gold - ?, exp = ? WHERE id = ?", v, 3, why, sizeof why);
	} else if (c->kind < 7) {
		struct sql_value v[] = { number(c->role), number(c->which), number(c->a) };
		err = sql_record_add(r, "REPLACE INTO bag (role_id, item, count) VALUES (?, ?, ?)", v, 3, why,
				     sizeof why);
	} else {
		struct sql_value v[] = { number(c->role),
					 number(c->which),
					 { .type = SQL_TEXT, .s = { "active", 6 } },
					 number(c->a),
					 number(c->a) };
		err = sql_record_add(r,
				     "INSERT INTO quest (role_id, quest, state, progress) VALUES (?, ?, ?, ?) "
				     "ON DUPLICATE KEY UPDATE progress = ?",
				     v, 5, why, sizeof why);
	}
	need(!err, why);
}

/* The row it makes, for LOAD DATA … REPLACE. */
static void add_row(FILE *out[3], struct rows *rows, const struct change *c)
{
	if (c->kind < 3) {
		rows->gold[c->role] -= c->a;
		rows->exp[c->role] = c->b;
		fprintf(out[0], "%u\tu%u\tn%u\t%lld\t%lld\n", c->role, c->role, c->role, (long long)c->b,
			(long long)rows->gold[c->role]);
	} else if (c->kind < 7) {
		fprintf(out[1], "%u\t%u\t%lld\n", c->role, c->which, (long long)c->a);
	} else {
		fprintf(out[2], "%u\t%u\tactive\t%lld\n", c->role, c->which, (long long)c->a);
	}
}

static struct sqllog *log_of(struct bench *b, unsigned i)
{
	struct sqllog_options o = {
		.folder = b->folder[i], .file_bytes_max = 1u << 30, .linger_us = UINT32_MAX, .workers = 1
	};
	struct sqllog *l;
	char error[300];
	need(!sqllog_open(b->env, NULL, NULL, &o, error, sizeof error, &l), error);
	return l;
}

static void append(struct sqllog *l, struct sql_record *r, const struct change *c)
{
	int err;
	build(r, c);
	while ((err = sqllog_append(l, r, NULL)) == ERR_BUSY)
		usleep(100);
	need(!err, "append");
}

/* Two logs, by the roles' numbers, and the rows of each as files for LOAD DATA. */
static void write_logs(struct bench *b)
{
	static const char *const tables[] = { "role", "bag", "quest" };
	struct sqllog *l[2] = { log_of(b, 0), log_of(b, 1) };
	struct rows *rows = calloc(1, sizeof *rows);
	struct sql_record r;
	FILE *out[2][3];
	unsigned chance = 1;
	sql_record_init(&r);
	for (int i = 0; i < 6; i++) {
		char path[128];
		snprintf(path, sizeof path, "%s/%s.%d", b->dir, tables[i % 3], i / 3);
		need((out[i / 3][i % 3] = fopen(path, "w")), path);
	}
	for (unsigned i = 0; i < b->records; i++) {
		struct change c = drawn(&chance);
		append(l[c.role % 2], &r, &c);
		add_row(out[c.role % 2], rows, &c);
	}
	for (int i = 0; i < 2; i++) {
		sqllog_close(l[i]);
		for (int k = 0; k < 3; k++)
			fclose(out[i][k]);
	}
	sql_record_release(&r);
	free(rows);
}

/* The first of the same records without their own transactions, in some of 1000. */
static void write_batched(struct bench *b, const char *path)
{
	char log[128], why[80];
	struct sqllog_file f;
	struct sqllog_record r;
	FILE *out = fopen(path, "w");
	unsigned n = 0, count;
	size_t bytes;
	snprintf(log, sizeof log, "%s/00000001.sql", b->folder[0]);
	need(out && !sqllog_file_open(&f, b->env, log), log);
	fputs("SET NAMES utf8mb4;\n", out);
	while (n < b->records / SHARE && sqllog_file_next(&f, &r, why, sizeof why) == 1) {
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

/* ---- the ways ------------------------------------------------------------------------------------------------------------ */

static void on_start(struct loop *loop, void *arg)
{
	struct bench *b = arg;
	b->options.folder = b->dir;
	b->options.keep_s = 1000000;
	b->options.db =
		(struct env_db_options){ .socket = b->db.socket, .user = "root", .password = "", .database = "loquat" };
	b->replay = replay_new(loop, b->log, &b->options);
}

static void on_stop(struct loop *loop, void *arg)
{
	(void)loop;
	replay_free(((struct bench *)arg)->replay);
}

static void replay_begin(struct bench *b, struct replay_options o)
{
	b->options = o;
	b->replay = NULL;
	need(!loop_start(b->env, "replay", 0, on_start, on_stop, b, &b->loop), "no loop");
}

static void replay_end(struct bench *b)
{
	loop_stop(b->loop);
	loop_join(b->loop);
}

static double by_replay(struct bench *b, struct replay_options o)
{
	struct replay_figures f = { 0 };
	double from = now_s();
	replay_begin(b, o);
	while (f.records < b->records) {
		usleep(500);
		need(now_s() - from < 100, "the replay does not come to its end");
		if (b->replay)
			replay_figures(b->replay, &f);
	}
	double took = now_s() - from;
	replay_end(b);
	b->last = f;
	need(!f.quarantined, "records were refused");
	return took;
}

/* Processor seconds so far: ours and the database's. */
static void cpu_s(const struct bench *b, double out[2])
{
	char path[40];
	unsigned long user = 0, system = 0;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)b->db.pid);
	FILE *f = fopen(path, "r");
	need(f && fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2,
	     path);
	fclose(f);
	out[0] = (double)clock() / CLOCKS_PER_SEC;
	out[1] = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double by_client(struct bench *b, const char *path)
{
	double from = now_s();
	client(b, "loquat", path, NULL, NULL, 0);
	return now_s() - from;
}

static void load_data(struct bench *b, int i)
{
	char sql[1000], roles[400];
	/* of the roles, whose second unique key deadlocks all the same, one has the rows of both */
	snprintf(roles, sizeof roles,
		 "LOAD DATA LOCAL INFILE '%s/role.0' REPLACE INTO TABLE role (id, uid, name, exp, gold);"
		 "LOAD DATA LOCAL INFILE '%s/role.1' REPLACE INTO TABLE role (id, uid, name, exp, gold)",
		 b->dir, b->dir);
	snprintf(sql, sizeof sql,
		 "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;" /* else their gaps deadlock */
		 "LOAD DATA LOCAL INFILE '%s/bag.%d' REPLACE INTO TABLE bag (role_id, item, count);"
		 "LOAD DATA LOCAL INFILE '%s/quest.%d' REPLACE INTO TABLE quest (role_id, quest, state, progress);%s",
		 b->dir, i, b->dir, i, i ? "" : roles);
	client(b, "loquat", NULL, sql, NULL, 0);
}

static double by_load_data(struct bench *b)
{
	double from = now_s();
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		load_data(b, 1);
		_exit(0);
	}
	load_data(b, 0);
	waitpid(pid, &status, 0);
	need(!status, "LOAD DATA failed");
	return now_s() - from;
}

static void prepare(struct bench *b)
{
	char path[128];
	need(mariadb_installed(), "mariadbd is not installed");
	b->db.large = true;
	mariadb_start(&b->db);
	snprintf(b->dir, sizeof b->dir, "/tmp/loquat-replay-XXXXXX");
	need(mkdtemp(b->dir), "no temporary folder");
	for (unsigned i = 0; i < 2; i++)
		snprintf(b->folder[i], sizeof b->folder[i], "%s/role-%u", b->dir, i + 1);
	snprintf(path, sizeof path, "%s/log", b->dir);
	b->env = env_new();
	need(!log_open(b->env, "bench", path, LOG_WARN, &b->log), path);
	write_roles(b);
}

static int finish(struct bench *b)
{
	char command[128];
	log_close(b->log);
	env_free(b->env);
	mariadb_end(&b->db);
	snprintf(command, sizeof command, "rm -rf %s", b->dir);
	return system(command) != 0;
}

/* One way alone, for a profile, and what it costs each side. */
static int one_way(struct bench *b, const char *name)
{
	double from[2], to[2];
	bool fold = strcmp(name, "plain") != 0;
	write_logs(b);
	fresh_tables(b);
	cpu_s(b, from);
	double took =
		by_replay(b, (struct replay_options){ .no_fold = !fold, .connections = strcmp(name, "two") ? 1 : 2 });
	cpu_s(b, to);
	printf("{\"way\":\"%s\",\"per_s\":%.0f,\"took_s\":%.3f,\"own_cpu_s\":%.3f,\"database_cpu_s\":%.3f,\"folded\":%llu,\"transactions\":%llu}\n",
	       name, b->records / took, took, to[0] - from[0], to[1] - from[1], (unsigned long long)b->last.folded,
	       (unsigned long long)b->last.transactions);
	return finish(b);
}

static int compare(struct bench *b)
{
	static const struct replay_options ways[] = { { .no_fold = true }, { .connections = 1 }, { .connections = 2 } };
	char batched[128], sums[4][256];
	double took[4];
	write_logs(b);
	snprintf(batched, sizeof batched, "%s/batched.sql", b->dir);
	write_batched(b, batched);
	for (unsigned i = 0; i < 4; i++) {
		fresh_tables(b);
		took[i] = i < 3 ? by_replay(b, ways[i]) : by_load_data(b);
		checksum(b, sums[i]);
		need(!strcmp(sums[0], sums[i]), "the tables differ");
	}
	fresh_tables(b);
	double client_s = by_client(b, batched);
	printf("{\"replay_per_s\":%.0f,\"folded_per_s\":%.0f,\"two_per_s\":%.0f,\"load_per_s\":%.0f,"
	       "\"client_1000_per_s\":%.0f,\"records\":%u}\n",
	       b->records / took[0], b->records / took[1], b->records / took[2], b->records / took[3],
	       b->records / SHARE / client_s, b->records);
	return finish(b);
}

/* A writer at a steady rate, a replay beside it, and how old the oldest record is that has not landed. */
static int lag(struct bench *b, double seconds, unsigned rate)
{
	struct replay_figures f = { 0 };
	struct sql_record r;
	unsigned chance = 1, sent = 0;
	uint64_t worst_ms = 0, looks = 0, sum_ms = 0;
	fresh_tables(b);
	struct sqllog *l = log_of(b, 0);
	sql_record_init(&r);
	replay_begin(b, (struct replay_options){ .connections = 1 });
	for (double from = now_s(), at; (at = now_s() - from) < seconds; usleep(1000)) {
		for (; sent < at * rate; sent++) {
			struct change c = drawn(&chance);
			append(l, &r, &c);
		}
		if (!b->replay || ++looks % 10)
			continue;
		replay_figures(b->replay, &f);
		worst_ms = f.lag_ms > worst_ms ? f.lag_ms : worst_ms;
		sum_ms += f.lag_ms;
	}
	sqllog_close(l);
	for (double from = now_s(); f.records < sent; usleep(1000)) {
		need(now_s() - from < 100, "the replay does not come to its end");
		replay_figures(b->replay, &f);
	}
	replay_end(b);
	sql_record_release(&r);
	printf("{\"lag_s\":%.3f,\"lag_mean_s\":%.4f,\"records\":%u,\"seconds\":%.0f}\n", (double)worst_ms / 1000,
	       (double)sum_ms / 1000 / (double)(looks / 10 ? looks / 10 : 1), sent, seconds);
	return finish(b);
}

/* Each file of the log from its beginning to its end. */
static double read_plainly(struct bench *b, const char *folder)
{
	static char bytes[1 << 20];
	uint32_t *numbers;
	size_t n;
	double from = now_s();
	need(!sqllog_list(b->env, folder, &numbers, &n), folder);
	for (size_t i = 0; i < n; i++) {
		char path[ENV_PATH_MAX];
		sqllog_path(path, folder, numbers[i], "sql");
		int fd = open(path, O_RDONLY);
		while (read(fd, bytes, sizeof bytes) > 0)
			;
		close(fd);
	}
	free(numbers);
	return now_s() - from;
}

static int recover(struct bench *b)
{
	struct follow f;
	struct sqllog_record rec;
	struct sql_record r;
	unsigned chance = 1, n = 0;
	struct sqllog *l = log_of(b, 0);
	sql_record_init(&r);
	for (unsigned i = 0; i < b->records; i++) {
		struct change c = drawn(&chance);
		append(l, &r, &c);
	}
	sqllog_close(l);
	sql_record_release(&r);
	double plain_s = read_plainly(b, b->folder[0]), from = now_s();
	follow_init(&f, b->env, b->folder[0], (struct position){ 0 });
	while (follow_next(&f, &rec) == FOLLOW_RECORD)
		n++;
	double took = now_s() - from;
	follow_release(&f);
	need(n == b->records, "not every record was read");
	printf("{\"recover_per_s\":%.0f,\"read_per_s\":%.0f,\"records\":%u}\n", n / took, n / plain_s, n);
	return finish(b);
}

int main(int argc, char **argv)
{
	struct bench b = { .records = argc == 3 ? (unsigned)atoi(argv[2]) : 200000 };
	need(b.records, "--records and --recover take a number from 1");
	prepare(&b);
	if (argc == 4 && !strcmp(argv[1], "--lag"))
		return lag(&b, atof(argv[2]), (unsigned)atoi(argv[3]));
	if (argc == 4 && !strcmp(argv[1], "--way")) {
		b.records = (unsigned)atoi(argv[3]);
		return one_way(&b, argv[2]);
	}
	return argc == 3 && !strcmp(argv[1], "--recover") ? recover(&b) : compare(&b);
}
