/*
 * append: what it costs a worker to hand one record to the SQL log: values to literals (one text has
 * a quote to escape), keys, checksum, ring; beside it a plain write() of the very same bytes: key and body.
 *
 * The SQL-log thread writes and syncs at its side meanwhile, as in a service. The ring holds a whole
 * round; should it fill up all the same, the wait is not counted but reported.
 *
 * First rounds, not counted, go once around the ring, as a running service has long done: new pages are not its cost.
 *
 * Both are timed in batches, and the middle batch counts: one that lost its core to another process
 * says nothing about the work.
 *
 * usage: append --folder DIR [--records N]     DIR becomes the log's folder; prints one JSON object
 */
#include "common/env.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/sqllog.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 100, RECORD_BYTES_MAX = 1024, ROLES = 5000, FILE_BYTES_MAX = 1 << 30 };
enum { RING_RECORD_BYTES = 256, WARM_ROUNDS = 3 }; /* a record takes 144 there, so that many rounds go around it */

struct bench {
	struct env *env;
	struct log *log;
	struct metrics *metrics;
	struct sqllog *sqllog;
	char folder[ENV_PATH_MAX];
	uint64_t records, busy;
	double *batch_ns; /* per record, of each batch */
	char key[ROLES][16];
	char record[RECORD_BYTES_MAX]; /* one as it is handed over */
	size_t record_bytes;
};

static void need(int err, const char *what, const char *why)
{
	if (err >= 0)
		return;
	fprintf(stderr, "append: %s: %s\n", what, why);
	exit(2);
}

/* What a purchase leaves behind, 120 bytes of it; the key's text is at hand, as a script's is. */
static void build(struct bench *b, struct sql_record *r, uint64_t n)
{
	const char *sql = "UPDATE role SET gold = gold + ?, level = ?, name = ? WHERE id = ?";
	const struct sql_value values[] = {
		{ .type = SQL_INT, .i = -(int64_t)(1000 + n % 1000) },
		{ .type = SQL_INT, .i = (int64_t)(10 + n % 90) },
		{ .type = SQL_TEXT, .s = { "Grainne O'Malley II", 19 } },
		{ .type = SQL_INT, .i = (int64_t)(1000 + n % ROLES) },
	};
	char why[200] = "";
	need(sql_record_key(r, b->key[n % ROLES]), "key", b->key[n % ROLES]);
	need(sql_record_add(r, sql, values, 4, why, sizeof why), "statement", why);
}

static void append_one(struct bench *b, struct sql_record *r, uint64_t n, uint64_t *waited_ns)
{
	uint64_t lsn, from;
	build(b, r, n);
	int err = sqllog_append(b->sqllog, r, &lsn);
	if (err == 0)
		return;
	b->busy++;
	for (from = env_mono_ns(b->env); err == ERR_BUSY; err = sqllog_append(b->sqllog, r, &lsn))
		sched_yield();
	need(err, "append", err_word(err));
	*waited_ns += env_mono_ns(b->env) - from;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double middle(struct bench *b)
{
	size_t n = b->records / BATCH;
	qsort(b->batch_ns, n, sizeof *b->batch_ns, by_value);
	return b->batch_ns[n / 2];
}

/* ns per record. */
static double append_all(struct bench *b)
{
	struct sql_record r;
	sql_record_init(&r);
	for (uint64_t n = 0; n < b->records; n += BATCH) {
		uint64_t waited_ns = 0, from = env_mono_ns(b->env);
		for (unsigned i = 0; i < BATCH; i++)
			append_one(b, &r, n + i, &waited_ns);
		b->batch_ns[n / BATCH] = (double)(env_mono_ns(b->env) - from - waited_ns) / BATCH;
	}
	sql_record_release(&r);
	return middle(b);
}

/* What a worker hands over: the key and the body. */
static void take_record(struct bench *b)
{
	struct sql_record r;
	sql_record_init(&r);
	build(b, &r, 0);
	int n = snprintf(b->record, sizeof b->record, "%.*s%.*sCOMMIT;\n", (int)r.keys_bytes, r.keys, (int)r.body.len,
			 r.body.data);
	b->record_bytes = (size_t)n;
	sql_record_release(&r);
}

/* ns per write() of the record to a file beside the log. */
static double write_all(struct bench *b)
{
	char path[ENV_PATH_MAX * 2];
	snprintf(path, sizeof path, "%s/plain", b->folder);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640);
	need(fd, path, strerror(errno));
	for (uint64_t n = 0; n < b->records; n += BATCH) {
		uint64_t from = env_mono_ns(b->env);
		for (unsigned i = 0; i < BATCH; i++)
			if (write(fd, b->record, b->record_bytes) != (ssize_t)b->record_bytes)
				need(-1, path, strerror(errno));
		b->batch_ns[n / BATCH] = (double)(env_mono_ns(b->env) - from) / BATCH;
	}
	close(fd);
	return middle(b);
}

static void open_log(struct bench *b)
{
	struct sqllog_options o = {
		.folder = b->folder,
		.file_bytes_max = FILE_BYTES_MAX,
		.ring_bytes = (b->records + 1) * RING_RECORD_BYTES,
		.linger_us = 1000,
		.workers = 1,
	};
	char error[300] = "";
	need(env_dir_make(b->env, b->folder), b->folder, env_last_error());
	need(log_open(b->env, "bench", NULL, LOG_WARN, &b->log), "log", env_last_error());
	b->metrics = metrics_new("bench");
	need(sqllog_open(b->env, b->log, b->metrics, &o, error, sizeof error, &b->sqllog), b->folder, error);
}

static void take_options(struct bench *b, int argc, char **argv)
{
	b->records = 100000;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--records"))
			b->records = strtoull(argv[i + 1], NULL, 10);
		else if (!strcmp(argv[i], "--folder"))
			snprintf(b->folder, sizeof b->folder, "%s", argv[i + 1]);
		else
			need(-1, argv[i], "no such option");
	}
	need(argc % 2 ? 0 : -1, argv[argc - 1], "needs a value");
	b->records -= b->records % BATCH;
	need(b->records ? 0 : -1, "--records", "a number from 100");
	b->batch_ns = calloc(b->records / BATCH, sizeof *b->batch_ns);
	need(b->batch_ns ? 0 : -1, "--records", "no memory for so many");
	need(b->folder[0] ? 0 : -1, "--folder", "is needed");
}

int main(int argc, char **argv)
{
	static struct bench b;
	take_options(&b, argc, argv);
	for (unsigned i = 0; i < ROLES; i++)
		snprintf(b.key[i], sizeof b.key[i], "role:%u", 1000 + i);
	b.env = env_new();
	open_log(&b);
	for (unsigned round = 0; round < WARM_ROUNDS; round++) {
		append_all(&b);
		while (sqllog_durable_lsn(b.sqllog) < sqllog_lsn(b.sqllog) && !sqllog_failing(b.sqllog))
			usleep(1000);
	}
	double append_ns = append_all(&b);
	sqllog_close(b.sqllog); /* writes and syncs all of it, so that it does not disturb what follows */
	take_record(&b);
	double write_ns = write_all(&b);
	printf("{\"append_ns\":%.1f,\"write_ns\":%.1f,\"record_bytes\":%zu,\"records\":%llu,\"busy\":%llu}\n",
	       append_ns, write_ns, b.record_bytes, (unsigned long long)b.records, (unsigned long long)b.busy);
	metrics_free(b.metrics);
	log_close(b.log);
	env_free(b.env);
	free(b.batch_ns);
	return 0;
}
