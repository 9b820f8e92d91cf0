#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/err.h"
#include "common/sqllog_private.h"
/*
 * The writer: workers push into the ring, the SQL-log thread makes text of it, writes and syncs it in groups.
 *
 * What is written and not yet synced stays in `pending`: one batch, for the next is gathered only when this one is
 * synced. When a write or sync fails, that text goes once more, whole, into a new file, until the disk takes it; a file
 * a sync has failed on is never trusted again (the system may have dropped the pages and forgotten the error). Until
 * then no whole record is taken out of a file, for dbwriter may be landing it; afterwards the failed file is shortened
 * to what was synced before. So the numbers of the log stay without gaps, and a record is at worst there twice, byte
 * for byte the same.
 */

#define BATCH_BYTES_MAX (4u << 20)
enum { RESERVE_FROM_BYTES = 4096, RESERVE_BYTES = 16 << 20 };
#define RETRY_NS_MIN (100 * 1000000ull)
#define RETRY_NS_MAX (2000 * 1000000ull)
#define REMIND_NS    (10000 * 1000000ull)

static const char first_line[] = "SET NAMES utf8mb4;\n";

/* ---- files ------------------------------------------------------------------------------------------------ */

static void path_of(const struct sqllog *l, char out[ENV_PATH_MAX])
{
	sqllog_path(out, l->folder, atomic_load(&l->number), "sql");
}

static int begin_file(struct sqllog *l)
{
	char path[ENV_PATH_MAX];
	int err;
	do {
		atomic_fetch_add(&l->number, 1);
		path_of(l, path);
		err = env_file_open(l->env, path, ENV_WRITE | ENV_CREATE | ENV_EXCLUSIVE, &l->file);
	} while (err == ERR_EXISTS);
	if (err < 0)
		return err;
	l->new_file = true;
	l->file_bytes = l->synced_bytes = l->reserved_bytes = 0;
	err = env_file_append(l->file, first_line, sizeof first_line - 1);
	if (!err)
		l->file_bytes = sizeof first_line - 1;
	return err;
}

static void end_file(struct sqllog *l)
{
	env_file_close(l->file);
	l->file = NULL;
}

/*
 * Blocks for the batches to come: a sync that has new ones to note takes half as long again. Small batches fit the block
 * there is; and where few changes come, a full disk is to be told by the first of them.
 */
static void reserve(struct sqllog *l)
{
	if (l->pending.len < RESERVE_FROM_BYTES || l->file_bytes + l->pending.len <= l->reserved_bytes)
		return;
	env_file_reserve(l->file, RESERVE_BYTES);
	l->reserved_bytes = l->file_bytes + RESERVE_BYTES;
}

static int write_pending(struct sqllog *l)
{
	if (l->file && l->file_bytes + l->pending.len > l->file_bytes_max)
		end_file(l);
	int err = l->file ? 0 : begin_file(l);
	if (!err) {
		reserve(l);
		err = env_file_append(l->file, l->pending.data, l->pending.len);
	}
	if (!err)
		l->file_bytes += l->pending.len;
	return err;
}

static int sync_pending(struct sqllog *l)
{
	int err = env_file_sync(l->file);
	if (!err && l->new_file)
		err = env_dir_sync(l->env, l->folder);
	if (!err) {
		l->new_file = false;
		l->synced_bytes = l->file_bytes;
	}
	return err;
}

/*
 * After a failed write: the file may end inside a record. What is behind its last whole record is cut, so that a reader
 * need not guess; a file without one goes. Whether this succeeds does not matter: readers cope with either.
 */
static void tidy_file(struct sqllog *l)
{
	char path[ENV_PATH_MAX], why[80];
	struct sqllog_file f;
	struct sqllog_record r;
	struct env_file *cut;
	path_of(l, path);
	if (sqllog_file_open(&f, l->env, path) < 0)
		return;
	int err;
	while ((err = sqllog_file_next(&f, &r, why, sizeof why)) == 1)
		;
	uint64_t at = sqllog_file_at(&f);
	bool empty = !f.last;
	sqllog_file_close(&f);
	if (err == ERR_IO)
		return;
	if (empty)
		env_file_remove(l->env, path);
	else if (err < 0 && !env_file_open(l->env, path, ENV_READ | ENV_WRITE, &cut)) {
		(void)env_file_truncate(cut, at);
		env_file_close(cut);
	}
}

/* ---- failing and coming back ------------------------------------------------------------------------------------ */

static const char *reason(int err)
{
	if (err == ERR_FULL)
		return "no space left on the disk";
	return err == ERR_IO ? env_last_error() : err_text(err);
}

static void remind(struct sqllog *l, uint64_t now_ns, const char *what, int err)
{
	if (now_ns < l->remind_at_ns)
		return;
	l->remind_at_ns = now_ns + REMIND_NS;
	if (l->log)
		log_error(l->log, "sqllog.failing", "folder=%s file=%08u.sql doing=%s why=%s unsynced=%llu", l->folder,
			  atomic_load(&l->number), what, reason(err),
			  (unsigned long long)(sqllog_lsn(l) - sqllog_durable_lsn(l)));
}

static void fail(struct sqllog *l, const char *what, int err, bool wrote)
{
	uint64_t now_ns = env_mono_ns(l->env);
	atomic_fetch_add(&l->failures, 1);
	remind(l, now_ns, what, err);
	if (!l->suspect.file)
		l->suspect = (struct sqllog_suspect){ atomic_load(&l->number), l->file ? l->synced_bytes : 0 };
	end_file(l);
	if (wrote)
		tidy_file(l);
	l->retry_ns = l->retry_ns ? l->retry_ns * 2 : RETRY_NS_MIN;
	if (l->retry_ns > RETRY_NS_MAX)
		l->retry_ns = RETRY_NS_MAX;
	l->retry_at_ns = now_ns + l->retry_ns;
	atomic_store(&l->waits.failing, true);
	sqllog_waits_wake(&l->waits);
}

static void recovered(struct sqllog *l)
{
	uint32_t now = atomic_load(&l->number);
	/* what was tried in between holds the same batch or a part of it */
	for (uint32_t number = l->suspect.file + 1; number < now; number++)
		sqllog_shorten(l->env, l->folder, number, 0);
	sqllog_shorten(l->env, l->folder, l->suspect.file, l->suspect.bytes);
	l->suspect.file = 0;
	l->retry_ns = 0;
	l->remind_at_ns = 0;
	atomic_store(&l->waits.failing, false);
	if (l->log)
		log_warn(l->log, "sqllog.recovered", "folder=%s file=%08u.sql lsn=%llu", l->folder, now,
			 (unsigned long long)l->pending_lsn);
}

/* ---- a batch ------------------------------------------------------------------------------------------------------ */

static void add_entry(struct sqllog *l, const struct sqllog_entry *e, uint64_t lsn)
{
	struct sqllog_record r = {
		.lsn = lsn,
		.epoch = l->epoch,
		.time_us = l->time_us,
		.trace = e->trace,
		.keys = e->data,
		.keys_bytes = e->keys_bytes,
		.body = e->data + e->keys_bytes,
		.body_bytes = e->body_bytes,
	};
	char *o = buf_reserve(&l->pending, SQLLOG_HEAD_MAX + e->body_bytes);
	size_t n = sqllog_head(o, &r);
	memcpy(o + n, r.body, r.body_bytes);
	l->pending.len += n + r.body_bytes;
	l->pending_lsn = lsn;
}

void sqllog_later_than(struct sqllog *l, uint64_t time_us)
{
	uint64_t known = atomic_load(&l->later_than_us);

	while (known < time_us && !atomic_compare_exchange_weak(&l->later_than_us, &known, time_us)) {
	}
}

/* Makes text of what is in the ring, of so many records at most; *at is behind them then. */
static uint32_t take(struct sqllog *l, uint32_t most, uint32_t *at)
{
	uint64_t lsn = atomic_load_explicit(&l->ring.lsn, memory_order_relaxed);
	struct sqllog_entry *e;
	uint32_t n = 0;
	*at = (uint32_t)atomic_load_explicit(&l->ring.head, memory_order_relaxed);
	buf_clear(&l->pending);
	while (n < most && l->pending.len < BATCH_BYTES_MAX && (e = sqllog_ring_next(&l->ring, at)))
		add_entry(l, e, lsn + ++n);
	return n;
}

/*
 * All records of a batch carry one time, later than the batch before. Who names a time and then hands a record over may do so
 * while the batch is made, so it is looked at behind the last record, too: those that were taken are made once more then.
 */
static bool gather(struct sqllog *l)
{
	uint32_t at, n;
	uint64_t now_us = env_wall_us(l->env);
	uint64_t known_us = atomic_load_explicit(&l->later_than_us, memory_order_acquire);
	if (known_us < l->time_us)
		known_us = l->time_us;
	l->time_us = now_us > known_us ? now_us : known_us + 1;
	n = take(l, UINT32_MAX, &at);
	known_us = atomic_load_explicit(&l->later_than_us, memory_order_acquire);
	if (n && known_us >= l->time_us) {
		l->time_us = known_us + 1;
		n = take(l, n, &at);
	}
	if (n)
		sqllog_ring_free_until(&l->ring, at, n);
	return n;
}

/* Writes and syncs what is pending; on failure it stays pending. */
bool sqllog_land(struct sqllog *l)
{
	env_failpoint(l->env, "sqllog.before_write");
	int err = write_pending(l);
	if (err < 0) {
		fail(l, "write", err, true);
		return false;
	}
	env_failpoint(l->env, "sqllog.after_write");
	atomic_store_explicit(&l->waits.written, l->pending_lsn, memory_order_release);
	sqllog_waits_wake(&l->waits);
	err = sync_pending(l);
	if (err < 0) {
		fail(l, "sync", err, false);
		return false;
	}
	env_failpoint(l->env, "sqllog.after_sync");
	if (atomic_load_explicit(&l->waits.failing, memory_order_relaxed))
		recovered(l);
	atomic_fetch_add(&l->bytes, l->pending.len);
	atomic_fetch_add(&l->syncs, 1);
	sqllog_waits_reached(&l->waits, &l->waits.synced, l->pending_lsn);
	buf_clear(&l->pending);
	return true;
}

static bool waiting(struct sqllog *l)
{
	uint32_t at = (uint32_t)atomic_load_explicit(&l->ring.head, memory_order_relaxed);
	return sqllog_ring_next(&l->ring, &at) != NULL;
}

/* Nothing to do until somebody appends: he looks at asleep after publishing, we at the ring after setting it. */
static uint64_t sleep_unless_work(struct sqllog *l, uint64_t now_ns)
{
	atomic_store(&l->asleep, true);
	atomic_thread_fence(memory_order_seq_cst);
	if (!waiting(l))
		return ENV_NEVER;
	atomic_store(&l->asleep, false);
	return l->due_ns = now_ns + l->linger_ns;
}

uint64_t sqllog_turn(void *arg)
{
	struct sqllog *l = arg;
	uint64_t now_ns = env_mono_ns(l->env);
	atomic_store_explicit(&l->asleep, false, memory_order_relaxed);
	if (l->pending.len) { /* failed before */
		if (now_ns < l->retry_at_ns)
			return l->retry_at_ns;
		if (!sqllog_land(l))
			return l->retry_at_ns;
	}
	if (!l->due_ns) {
		if (!waiting(l))
			return sleep_unless_work(l, now_ns);
		l->due_ns = now_ns + l->linger_ns;
	}
	if (now_ns < l->due_ns && !atomic_load_explicit(&l->hurried, memory_order_relaxed))
		return l->due_ns;
	l->due_ns = 0;
	atomic_store(&l->hurried, false);
	if (gather(l) && !sqllog_land(l))
		return l->retry_at_ns;
	return sleep_unless_work(l, env_mono_ns(l->env));
}

/* The last words: everything that was handed over. */
void sqllog_last_turn(void *arg)
{
	struct sqllog *l = arg;
	bool fine = !l->pending.len || sqllog_land(l);
	while (fine && gather(l))
		fine = sqllog_land(l);
	if (!fine && l->log)
		log_error(l->log, "sqllog.lost", "folder=%s first=%llu last=%llu", l->folder,
			  (unsigned long long)sqllog_durable_lsn(l) + 1, (unsigned long long)sqllog_lsn(l));
	end_file(l);
	if (fine)
		sqllog_clean_store(l);
	atomic_store(&l->waits.failing, true); /* whoever still waits, or comes too late, is told so */
	sqllog_waits_wake(&l->waits);
}

/* ---- any worker -------------------------------------------------------------------------------------------------- */

static void hurry(struct sqllog *l)
{
	if (!atomic_load_explicit(&l->hurried, memory_order_relaxed) && !atomic_exchange(&l->hurried, true))
		env_loop_wake(l->thread);
}

void sqllog_hurry(struct sqllog_waits *w)
{
	struct sqllog *l = (struct sqllog *)((char *)w - offsetof(struct sqllog, waits));
	if (!atomic_load_explicit(&l->stopped, memory_order_relaxed))
		hurry(l);
}

static void wake_thread(struct sqllog *l)
{
	/* pairs with sleep_unless_work: published first, then looked */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&l->asleep, memory_order_relaxed) && atomic_exchange(&l->asleep, false))
		env_loop_wake(l->thread);
	else if (sqllog_ring_used(&l->ring) > (size_t)l->ring.units * SQLLOG_UNIT / 2)
		hurry(l);
}

int sqllog_append(struct sqllog *l, struct sql_record *r, uint64_t *lsn)
{
	uint64_t number;
	if (!r->statements)
		return ERR_BAD_REQUEST;
	if (sqllog_failing(l) || atomic_load_explicit(&l->stopped, memory_order_relaxed))
		return ERR_UNAVAILABLE;
	int err = sqllog_ring_push(&l->ring, r, &number);
	if (err < 0) {
		wake_thread(l);
		return err;
	}
	sqllog_keys_note(l->keys, r->keys, r->keys_bytes, number);
	wake_thread(l);
	sql_record_clear(r);
	if (lsn)
		*lsn = number;
	return 0;
}

uint64_t sqllog_epoch(const struct sqllog *l)
{
	return l->epoch;
}

void sqllog_position(const struct sqllog *l, uint64_t *epoch, uint64_t *lsn)
{
	*lsn = sqllog_lsn(l);
	*epoch = !*lsn ? 0 : *lsn > l->opened_lsn ? l->epoch : l->opened_epoch;
}

uint64_t sqllog_lsn(const struct sqllog *l)
{
	return sqllog_ring_last(&l->ring);
}

bool sqllog_failing(const struct sqllog *l)
{
	return atomic_load_explicit(&l->waits.failing, memory_order_acquire);
}

uint64_t sqllog_written_lsn(const struct sqllog *l)
{
	return atomic_load_explicit(&l->waits.written, memory_order_acquire);
}

uint64_t sqllog_durable_lsn(const struct sqllog *l)
{
	return atomic_load_explicit(&l->waits.durable, memory_order_acquire);
}

void sqllog_join(struct sqllog *l, struct loop *loop)
{
	sqllog_waits_join(&l->waits, loop);
}

void sqllog_wait(struct sqllog *l, struct loop *loop, struct sqllog_waiter *w, uint64_t lsn, bool durable)
{
	assert(lsn && lsn <= sqllog_lsn(l));
	w->lsn = lsn;
	w->durable = durable;
	sqllog_waits_add(&l->waits, loop, w);
}

/*
 * The last lsn of this log that a position in the database covers. One that is ahead of what was found at opening, or of
 * an epoch since then, covers all of that: what else it covers was lost with the machine, unsynced, and our own records
 * begin anew at those numbers. An older epoch's, or a newer one's than ours, says nothing of us: 0.
 */
static uint64_t covered(const struct sqllog *l, uint64_t epoch, uint64_t lsn)
{
	if (epoch == l->epoch)
		return lsn;
	if (epoch < l->opened_epoch || epoch > l->epoch)
		return 0;
	return epoch > l->opened_epoch || lsn > l->opened_lsn ? l->opened_lsn : lsn;
}

static uint64_t last_change(const struct sqllog *l, const char *key)
{
	char text[SQLLOG_KEY_TEXT_MAX];
	int n = sqllog_key_text(text, key);
	uint64_t lsn = n > 0 ? sqllog_keys_get(l->keys, text, (size_t)n) : sqllog_lsn(l);
	return lsn > l->floor ? lsn : l->floor;
}

uint64_t sqllog_key_lsn(const struct sqllog *l, const char *key)
{
	uint64_t lsn = last_change(l, key);
	return lsn > atomic_load_explicit(&l->replayed, memory_order_relaxed) ? lsn : 0;
}

bool sqllog_key_landed(const struct sqllog *l, const char *key, uint64_t epoch, uint64_t lsn)
{
	return last_change(l, key) <= covered(l, epoch, lsn);
}

void sqllog_replayed(struct sqllog *l, uint64_t epoch, uint64_t position)
{
	uint64_t lsn = covered(l, epoch, position);
	uint64_t was = atomic_load_explicit(&l->replayed, memory_order_relaxed);
	while (was < lsn && !atomic_compare_exchange_weak_explicit(&l->replayed, &was, lsn, memory_order_relaxed,
								   memory_order_relaxed))
		;
}

void sqllog_replicated(struct sqllog *l, uint64_t epoch, uint64_t position)
{
	uint64_t lsn = covered(l, epoch, position);
	if (lsn > atomic_load(&l->waits.standby))
		sqllog_waits_reached(&l->waits, &l->waits.standby, lsn);
}

void sqllog_figures(const struct sqllog *l, struct sqllog_figures *out)
{
	*out = (struct sqllog_figures){
		.records = sqllog_lsn(l) - l->opened_lsn,
		.bytes = atomic_load(&l->bytes),
		.syncs = atomic_load(&l->syncs),
		.unsynced = sqllog_lsn(l) - sqllog_durable_lsn(l),
		.failures = atomic_load(&l->failures),
		.file = atomic_load(&l->number),
	};
}
