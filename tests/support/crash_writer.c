#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/dbread.h"
#include "common/err.h"
#include "common/loop.h"
#include "common/sqllog.h"
#include "tests/support/crash.h"

#define TURN_MS      5
#define BURST_MS     100 /* after a stop, no more than this is made good */
#define READS_MAX    8
#define READ_MS      3000
#define LOOK_AGAIN   5  /* turns, after a read that failed */
#define COMPARE_EACH 10 /* turns */
#define WAITS_EACH   20 /* turns */
#define CHAIN_PRIME  1000000007

const char crash_failpoint[] = "campaign.before_answer";

const char crash_schema[] =
	"CREATE TABLE account (id BIGINT NOT NULL PRIMARY KEY, gold BIGINT NOT NULL DEFAULT 0,"
	" chain BIGINT NOT NULL DEFAULT 0, changes BIGINT NOT NULL DEFAULT 0, level BIGINT NOT NULL DEFAULT 0)"
	" ENGINE=InnoDB; "
	"CREATE TABLE entry (n BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, account BIGINT NOT NULL, op BIGINT NOT NULL,"
	" amount BIGINT NOT NULL) ENGINE=InnoDB";

struct writer;
enum state { AWAY, LOADING, HELD, COMPARING };
struct account {
	struct writer *writer;
	int64_t id, gold, chain, changes, level;
	enum state state;
	bool reading;
	unsigned rest; /* turns until it is read again */
};
struct op {
	struct sqllog_waiter waiter; /* first */
	struct writer *writer;
	struct op *next;
	struct account *account[2];
	uint64_t number, began_ns;
};
struct writer {
	const struct crash_load *load;
	struct env *env;
	struct log *log;
	struct sqllog *sqllog;
	struct loop *loop;
	struct dbread *dbread;
	struct timer timer;
	struct loop_deferred flush;
	struct account account[CRASH_ACCOUNTS];
	struct op *free;
	struct sql_record record;
	uint64_t count, made_ms;
	double due;
	unsigned turn, reads;
	struct crash_random random;
	int ledger, waits_file;
	struct crash_waits waits;
	uint64_t acks[4096];
	unsigned n_acks;
};

/* ---- acknowledging ------------------------------------------------------------------------------------------- */

static void write_ledger(struct writer *w)
{
	size_t bytes = w->n_acks * sizeof *w->acks;
	if (bytes && write(w->ledger, w->acks, bytes) != (ssize_t)bytes) {
		perror("ledger");
		_exit(1);
	}
	w->n_acks = 0;
}

static void on_flush(struct loop_deferred *d)
{
	write_ledger((struct writer *)((char *)d - offsetof(struct writer, flush)));
}

/* Who is told "unknown" drops the key and reads it back. */
static void drop(struct account *a)
{
	if (a)
		a->state = AWAY;
}

static void count_wait(struct writer *w, const struct op *op)
{
	uint64_t us = (env_mono_ns(w->env) - op->began_ns) / 1000;
	unsigned i = us ? 64 - (unsigned)__builtin_clzll(us) : 0;
	w->waits.below[i < CRASH_WAITS ? i : CRASH_WAITS - 1]++;
}

static void on_landed(struct sqllog_waiter *waiter, int err)
{
	struct op *op = (struct op *)waiter;
	struct writer *w = op->writer;
	if (err < 0) {
		drop(op->account[0]);
		drop(op->account[1]);
	} else {
		env_failpoint(w->env, crash_failpoint);
		count_wait(w, op);
		w->acks[w->n_acks++] = op->number;
		if (w->n_acks == sizeof w->acks / sizeof *w->acks)
			write_ledger(w);
		loop_defer(w->loop, &w->flush);
	}
	op->next = w->free;
	w->free = op;
}

/* ---- changing --------------------------------------------------------------------------------------------------- */

static struct sql_value int_value(int64_t v)
{
	return (struct sql_value){ .type = SQL_INT, .i = v };
}

static void add(struct writer *w, const char *sql, const struct sql_value *values, size_t n)
{
	char why[160];
	if (sql_record_add(&w->record, sql, values, n, why, sizeof why) < 0) {
		fprintf(stderr, "%s\n", why);
		_exit(1);
	}
}

static void add_change(struct writer *w, const struct account *a, uint64_t op, int64_t amount)
{
	char key[40];
	struct sql_value up[] = { int_value(amount < 0 ? -amount : amount), int_value((int64_t)op), int_value(a->id) };
	struct sql_value entry[] = { int_value(a->id), int_value((int64_t)op), int_value(amount) };
	snprintf(key, sizeof key, "account:%lld", (long long)a->id);
	sql_record_key(&w->record, key);
	if (!amount) {
		up[0] = int_value((int64_t)op);
		add(w,
		    "UPDATE account SET level = ?, chain = (chain * 31 + ?) % 1000000007, changes = changes + 1 WHERE id = ?",
		    up, 3);
	} else if (amount < 0) {
		add(w,
		    "UPDATE account SET gold = gold - ?, chain = (chain * 31 + ?) % 1000000007, changes = changes + 1 WHERE id = ?",
		    up, 3);
	} else {
		add(w,
		    "UPDATE account SET gold = gold + ?, chain = (chain * 31 + ?) % 1000000007, changes = changes + 1 WHERE id = ?",
		    up, 3);
	}
	add(w, "INSERT INTO entry (account, op, amount) VALUES (?, ?, ?)", entry, 3);
}

static void apply(struct account *a, uint64_t op, int64_t amount)
{
	a->gold += amount;
	a->chain = (int64_t)(((uint64_t)a->chain * 31 + op) % CHAIN_PRIME);
	a->changes++;
	if (!amount)
		a->level = (int64_t)op;
}

static struct account *pick(struct writer *w, const struct account *other)
{
	for (unsigned i = 0; i < 20; i++) {
		struct account *a = &w->account[crash_draw(&w->random, CRASH_ACCOUNTS)];
		if (a->state == HELD && a != other)
			return a;
	}
	return NULL;
}

static void wait_for(struct writer *w, uint64_t number, struct account *a, struct account *b, uint64_t lsn)
{
	struct op *op = w->free;
	if (op)
		w->free = op->next;
	else
		op = calloc(1, sizeof *op);
	*op = (struct op){ .writer = w,
			   .account = { a, b },
			   .number = number,
			   .began_ns = env_mono_ns(w->env),
			   .waiter.fn = on_landed };
	sqllog_wait(w->sqllog, w->loop, &op->waiter, lsn, !w->load->written);
}

/* One change; false: none can be made now. */
static bool change(struct writer *w)
{
	unsigned chance = crash_draw(&w->random, 10);
	enum crash_kind kind = chance < 6 ? CRASH_BUY : chance < 7 ? CRASH_SET : CRASH_TRANSFER;
	struct account *a = pick(w, NULL), *b = a && kind == CRASH_TRANSFER ? pick(w, a) : NULL;
	if (!a || (kind == CRASH_TRANSFER && !b))
		return false;
	uint64_t number = sqllog_epoch(w->sqllog) << 26 | ++w->count << 5 | w->load->writer << 2 | kind, lsn;
	int64_t amount = kind == CRASH_BUY ? -10 : kind == CRASH_SET ? 0 : -7;
	sql_record_clear(&w->record);
	add_change(w, a, number, amount);
	if (b)
		add_change(w, b, number, -amount);
	if (sqllog_append(w->sqllog, &w->record, &lsn) < 0)
		return false;
	apply(a, number, amount);
	if (b)
		apply(b, number, -amount);
	wait_for(w, number, a, b, lsn);
	return true;
}

/* ---- reading back ---------------------------------------------------------------------------------------------- */

static void compare(struct account *a, const int64_t v[4])
{
	if (v[0] == a->gold && v[1] == a->chain && v[2] == a->changes && v[3] == a->level)
		return;
	fprintf(stderr,
		"account %lld reads gold=%lld chain=%lld changes=%lld level=%lld, should be gold=%lld chain=%lld changes=%lld level=%lld\n",
		(long long)a->id, (long long)v[0], (long long)v[1], (long long)v[2], (long long)v[3],
		(long long)a->gold, (long long)a->chain, (long long)a->changes, (long long)a->level);
	_exit(3);
}

static void on_read(void *arg, const struct env_db_result *r)
{
	struct account *a = arg;
	int64_t v[4];
	a->writer->reads--;
	a->reading = false;
	a->rest = r->err < 0 || !r->rows ? LOOK_AGAIN : 0;
	if (a->rest || a->state == AWAY) { /* AWAY: it was dropped meanwhile */
		a->state = a->state == COMPARING ? HELD : AWAY;
		return;
	}
	for (unsigned i = 0; i < 4; i++)
		v[i] = strtoll(r->cells[i], NULL, 10);
	if (a->state == COMPARING)
		compare(a, v);
	a->gold = v[0];
	a->chain = v[1];
	a->changes = v[2];
	a->level = v[3];
	a->state = HELD;
}

static void read_back(struct writer *w, struct account *a, enum state state)
{
	char key[40], sql[120];
	snprintf(key, sizeof key, "account:%lld", (long long)a->id);
	int n = snprintf(sql, sizeof sql, "SELECT gold, chain, changes, level FROM account WHERE id = %lld",
			 (long long)a->id);
	a->state = state;
	a->reading = true;
	w->reads++;
	dbread_query(w->dbread, sql, (size_t)n, key, READ_MS, on_read, a);
}

static void read_some(struct writer *w)
{
	for (unsigned i = 0; i < CRASH_ACCOUNTS && w->reads < READS_MAX; i++) {
		struct account *a = &w->account[i];
		if (a->rest)
			a->rest--;
		else if (a->state == AWAY && !a->reading)
			read_back(w, a, LOADING);
	}
	struct account *a = w->turn++ % COMPARE_EACH ? NULL : pick(w, NULL);
	if (a && !a->reading && w->reads < READS_MAX)
		read_back(w, a, COMPARING);
}

/* ---- its life -------------------------------------------------------------------------------------------------- */

static void on_timer(struct timer *t, uint64_t now_ms)
{
	struct writer *w = (struct writer *)((char *)t - offsetof(struct writer, timer));
	uint64_t passed = now_ms - w->made_ms;
	w->made_ms = now_ms;
	w->due += (double)(passed < BURST_MS ? passed : BURST_MS) * w->load->per_s / 1000;
	while (w->due >= 1 && change(w))
		w->due -= 1;
	if (w->due > 1)
		w->due = 1;
	if (w->turn % WAITS_EACH == 0 && pwrite(w->waits_file, &w->waits, sizeof w->waits, 0) < 0)
		perror("waits");
	read_some(w);
	loop_timer(w->loop, t, TURN_MS);
}

static void on_start(struct loop *loop, void *arg)
{
	struct writer *w = arg;
	const struct dbread_options o = { .db = { .socket = w->load->socket, .user = "root", .database = "loquat" },
					  .instance = w->load->instance,
					  .sqllog = w->sqllog,
					  .connections = 2,
					  .queue_max = 1000 };
	w->loop = loop;
	w->made_ms = loop->now_ms;
	w->timer.fire = on_timer;
	w->flush.run = on_flush;
	w->dbread = dbread_new(loop, w->log, &o);
	sqllog_join(w->sqllog, loop);
	loop_timer(loop, &w->timer, TURN_MS);
}

static void on_stop(struct loop *loop, void *arg)
{
	struct writer *w = arg;
	loop_timer_stop(loop, &w->timer);
	dbread_free(w->dbread);
	write_ledger(w);
}

/* A ledger that was cut in the middle of a number by our death ends before it. */
static int open_ledger(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	if (size < 0 || ftruncate(fd, size / 8 * 8) < 0) {
		perror(path);
		_exit(1);
	}
	return fd;
}

int crash_write(const struct crash_load *load)
{
	static struct writer w;
	char error[400], waits[300];
	sigset_t end;
	int signo;
	struct loop *loop;
	sigemptyset(&end);
	sigaddset(&end, SIGTERM);
	sigprocmask(SIG_BLOCK, &end, NULL);
	w.load = load;
	w.env = env_new();
	w.ledger = open_ledger(load->ledger);
	snprintf(waits, sizeof waits, "%s.waits", load->ledger);
	w.waits_file = open(waits, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	env_random(w.env, &w.random, sizeof w.random);
	sql_record_init(&w.record);
	for (unsigned i = 0; i < CRASH_ACCOUNTS; i++)
		w.account[i] = (struct account){ .writer = &w, .id = load->writer * 1000 + i };
	const struct sqllog_options o = {
		.folder = load->folder, .file_bytes_max = 1 << 20, .linger_us = UINT32_MAX, .workers = 1
	};
	if (log_open(w.env, load->instance, load->log, LOG_INFO, &w.log) < 0)
		return 1;
	if (sqllog_open(w.env, w.log, NULL, &o, error, sizeof error, &w.sqllog) < 0) {
		fprintf(stderr, "%s\n", error);
		return CRASH_NO_LOG;
	}
	loop_start(w.env, "load", 0, on_start, on_stop, &w, &loop);
	sigwait(&end, &signo);
	sqllog_stop(w.sqllog);
	loop_stop(loop);
	loop_join(loop);
	sqllog_close(w.sqllog);
	log_close(w.log);
	return 0;
}
