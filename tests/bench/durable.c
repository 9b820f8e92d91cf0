/*
 * durable: how long a worker that hands over 40,000 records a second waits for one to be durable, beside one fdatasync of
 * one record. A turn of its loop each millisecond hands over 40 of them, each with a waiter; the log runs with its defaults.
 * Also beside a loop that does nothing but append the bytes of a turn each millisecond and sync them: what the log adds.
 * All three take turns, for a disk is not always as fast: the records come in parts, and between them the log rests.
 *
 * usage: durable --folder DIR [--seconds S]     DIR becomes the log's folder; prints one JSON object
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/env.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/sqllog.h"

enum { PER_MS = 40, RECORD_BYTES = 200, PARTS = 8, SYNCS = 64 };

struct record {
	struct sqllog_waiter waiter;
	struct bench *bench;
	uint64_t from_ns;
};
struct bench {
	struct env *env;
	struct loop *loop;
	struct sqllog *log;
	struct timer timer;
	struct sql_record record; /* used again and again, as services do */
	const char *folder;
	struct record *records;
	double *took_us;
	uint64_t n, made;
	uint64_t part, until; /* this part's first record, and the next part's */
	uint64_t from_ns;     /* the part's first turn's time: what is late is made up for */
	_Atomic uint64_t landed;
};

static void need(bool fine, const char *what, const char *why)
{
	if (fine)
		return;
	fprintf(stderr, "durable: %s: %s\n", what, why);
	exit(2);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double quantile(double *v, size_t n, double q)
{
	qsort(v, n, sizeof *v, by_value);
	return v[(size_t)((double)(n - 1) * q)];
}

/* ---- the log ------------------------------------------------------------------------------------------------------ */

static void on_landed(struct sqllog_waiter *w, int err)
{
	struct record *r = (struct record *)w;
	struct bench *b = r->bench;
	need(err == 0, "a record", err_word(err));
	b->took_us[b->landed] = (double)(env_mono_ns(b->env) - r->from_ns) / 1000;
	b->landed++;
}

static void hand_over(struct bench *b, struct record *r)
{
	const char *sql = "UPDATE role SET gold = gold + ?, exp = exp + ?, name = ? WHERE id = ?";
	const struct sql_value values[] = {
		{ .type = SQL_INT, .i = 25 },
		{ .type = SQL_INT, .i = (int64_t)(b->made % 1000) },
		{ .type = SQL_TEXT, .s = { "Grainne O'Malley", 16 } },
		{ .type = SQL_INT, .i = (int64_t)(b->made % 5000) },
	};
	char why[200] = "", key[32];
	uint64_t lsn;
	snprintf(key, sizeof key, "role:%u", (unsigned)(b->made % 5000));
	need(!sql_record_key(&b->record, key), "key", key);
	need(!sql_record_add(&b->record, sql, values, 4, why, sizeof why), "statement", why);
	r->from_ns = env_mono_ns(b->env);
	r->bench = b;
	r->waiter.fn = on_landed;
	need(!sqllog_append(b->log, &b->record, &lsn), "append", "the log does not keep up");
	sqllog_wait(b->log, b->loop, &r->waiter, lsn, true);
}

static void on_ms(struct timer *t, uint64_t now_ms)
{
	struct bench *b = (struct bench *)((char *)t - offsetof(struct bench, timer));
	uint64_t due = b->part + (env_mono_ns(b->env) - b->from_ns) / 1000000 * PER_MS;
	(void)now_ms;
	for (; b->made < due && b->made < b->until; b->made++)
		hand_over(b, &b->records[b->made]);
	if (b->made < b->until)
		loop_timer(b->loop, t, 0); /* at the next full millisecond: in one is at the one after it */
}

static void on_start(struct loop *loop, void *arg)
{
	struct bench *b = arg;
	b->timer.fire = on_ms;
	sqllog_join(b->log, loop);
}

static void on_part(void *arg)
{
	struct bench *b = arg;
	b->part = b->made;
	b->from_ns = env_mono_ns(b->env);
	loop_timer(b->loop, &b->timer, 1);
}

static void start_log(struct bench *b)
{
	const struct sqllog_options o = { .folder = b->folder, .linger_us = UINT32_MAX, .workers = 1 };
	char error[300] = "";
	sql_record_init(&b->record);
	need(!sqllog_open(b->env, NULL, NULL, &o, error, sizeof error, &b->log), b->folder, error);
	need(!loop_start(b->env, "worker", 0, on_start, NULL, b, &b->loop), "loop", "cannot start");
}

static void run_part(struct bench *b)
{
	loop_call(b->loop, on_part, b);
	while (b->landed < b->until)
		usleep(10000);
}

static void stop_log(struct bench *b)
{
	sqllog_stop(b->log);
	loop_stop(b->loop);
	loop_join(b->loop);
	sql_record_release(&b->record);
}

/* ---- one fdatasync ---------------------------------------------------------------------------------------------------- */

/* Some samples of each are taken before each part of the records, and behind the last. */
struct plain {
	double one[(PARTS + 1) * SYNCS], turn[(PARTS + 1) * SYNCS];
	unsigned n;
};

static double append_us(struct bench *b, int fd, const char *bytes, size_t n)
{
	uint64_t from = env_mono_ns(b->env);
	need(write(fd, bytes, n) == (ssize_t)n && !fdatasync(fd), "a plain file", "cannot be synced");
	return (double)(env_mono_ns(b->env) - from) / 1000;
}

static void sync_some(struct bench *b, struct plain *p)
{
	static char bytes[PER_MS * RECORD_BYTES];
	char path[4096];
	memset(bytes, 'r', sizeof bytes);
	snprintf(path, sizeof path, "%s/plain", b->folder);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640);
	need(fd >= 0, path, "cannot be made");
	for (unsigned i = 0; i < SYNCS; i++)
		p->one[p->n + i] = append_us(b, fd, bytes, RECORD_BYTES);
	for (unsigned i = 0; i < SYNCS; i++) {
		usleep(1000);
		p->turn[p->n + i] = append_us(b, fd, bytes, sizeof bytes);
	}
	p->n += SYNCS;
	close(fd);
	unlink(path);
}

int main(int argc, char **argv)
{
	struct bench b = { .n = 2 * 1000 * PER_MS };
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--folder"))
			b.folder = argv[i + 1];
		else if (!strcmp(argv[i], "--seconds"))
			b.n = strtoull(argv[i + 1], NULL, 10) * 1000 * PER_MS;
		else
			need(false, argv[i], "no such option");
	}
	need(argc % 2 && b.folder && b.n, "usage", "durable --folder DIR [--seconds S]");
	b.records = calloc(b.n, sizeof *b.records);
	b.took_us = calloc(b.n, sizeof *b.took_us);
	need(b.records && b.took_us, "--seconds", "no memory for so many");
	b.env = env_new();
	need(!env_dir_make(b.env, b.folder), b.folder, env_last_error());
	static struct plain p;
	start_log(&b);
	for (uint64_t i = 1; i <= PARTS; i++) {
		sync_some(&b, &p);
		b.until = b.n / PARTS * i;
		run_part(&b);
	}
	stop_log(&b);
	struct sqllog_figures f;
	sqllog_figures(b.log, &f);
	sqllog_close(b.log);
	sync_some(&b, &p);
	printf("{\"p50_us\":%.1f,\"p99_us\":%.1f,\"syncs\":%llu,\"sync_us\":%.1f,\"turn_sync_us\":%.1f}\n",
	       quantile(b.took_us, b.landed, 0.5), quantile(b.took_us, b.landed, 0.99), (unsigned long long)f.syncs,
	       quantile(p.one, p.n, 0.5), quantile(p.turn, p.n, 0.5));
	env_free(b.env);
	free(b.records);
	free(b.took_us);
	return 0;
}
