#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/err.h"
#include "common/sqllog_int.h"
/*
 * The writer: workers push into the ring, the SQL-log thread makes text of it, writes and syncs it in groups.
 *
 * What is written and not yet synced stays in `pending`. When a write or sync fails, that text goes once more, whole,
 * into a new file, until the disk takes it; a file a sync has failed on is never trusted again (the system may have
 * dropped the pages and forgotten the error). No whole record that reached a file is ever taken away: dbwriter may have
 * landed it. So the numbers of the log stay without gaps, and a record is at worst there twice, byte for byte the same.
 */

#define FILE_BYTES_DEFAULT (64ull << 20)
#define RING_BYTES_DEFAULT (8u << 20)
#define LINGER_US_DEFAULT  1000
#define BATCH_BYTES_MAX    (4u << 20)
#define RETRY_NS_MIN       (100 * 1000000ull)
#define RETRY_NS_MAX       (2000 * 1000000ull)
#define REMIND_NS          (10000 * 1000000ull)

static const char first_line[] = "SET NAMES utf8mb4;\n";

struct sqllog {
	struct env *env;
	struct log *log;
	char folder[ENV_PATH_MAX - 32];
	uint64_t file_bytes_max;
	uint64_t linger_ns;
	struct env_file *lock;
	struct env_loop *thread;
	uint64_t epoch, opened_lsn;

	struct sqllog_keys *keys;
	_Atomic uint64_t replayed; /* known to be in the database */
	uint64_t floor;            /* dbwriter's hint at opening: keys were not read up to here */
	struct sqllog_ring ring;
	struct sqllog_waits waits;
	_Alignas(64) _Atomic bool asleep; /* the thread waits for a wake-up */
	_Atomic bool hurried;             /* it was told not to linger */
	_Atomic bool stopped;
	_Atomic uint64_t bytes, syncs, failures;
	_Atomic uint32_t number; /* of the file written to, or last used */

	/* the SQL-log thread's own */
	struct env_file *file;
	uint64_t file_bytes;
	bool new_file; /* its name is not synced yet */
	struct buf pending;
	uint64_t pending_lsn; /* last one in it */
	uint64_t time_us;     /* of the last batch */
	uint64_t due_ns;      /* end of the lingering, 0: nothing waits */
	uint64_t retry_ns, retry_at_ns, remind_at_ns;
};

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
	l->file_bytes = 0;
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

static int write_pending(struct sqllog *l)
{
	if (l->file && l->file_bytes + l->pending.len > l->file_bytes_max)
		end_file(l);
	int err = l->file ? 0 : begin_file(l);
	if (!err)
		err = env_file_append(l->file, l->pending.data, l->pending.len);
	if (!err)
		l->file_bytes += l->pending.len;
	return err;
}

static int sync_pending(struct sqllog *l)
{
	int err = env_file_sync(l->file);
	if (!err && l->new_file)
		err = env_dir_sync(l->env, l->folder);
	if (!err)
		l->new_file = false;
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

static void remind(struct sqllog *l, uint64_t now_ns, const char *what, int err)
{
	if (now_ns < l->remind_at_ns)
		return;
	l->remind_at_ns = now_ns + REMIND_NS;
	if (l->log)
		log_error(l->log, "sqllog.failing", "folder=%s file=%08u.sql doing=%s why=%s unsynced=%llu", l->folder,
			  atomic_load(&l->number), what, err == ERR_IO ? env_last_error() : err_text(err),
			  (unsigned long long)(sqllog_lsn(l) - sqllog_durable_lsn(l)));
}

static void fail(struct sqllog *l, const char *what, int err, bool wrote)
{
	uint64_t now_ns = env_mono_ns(l->env);
	atomic_fetch_add(&l->failures, 1);
	remind(l, now_ns, what, err);
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
	l->retry_ns = 0;
	l->remind_at_ns = 0;
	atomic_store(&l->waits.failing, false);
	if (l->log)
		log_warn(l->log, "sqllog.recovered", "folder=%s file=%08u.sql lsn=%llu", l->folder,
			 atomic_load(&l->number), (unsigned long long)l->pending_lsn);
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

/* Makes text of what is in the ring. All records of a batch carry one time, later than the batch before. */
static bool gather(struct sqllog *l)
{
	uint32_t at = (uint32_t)atomic_load_explicit(&l->ring.head, memory_order_relaxed), n = 0;
	uint64_t lsn = atomic_load_explicit(&l->ring.lsn, memory_order_relaxed), now_us = env_wall_us(l->env);
	struct sqllog_entry *e;
	l->time_us = now_us > l->time_us ? now_us : l->time_us + 1;
	while (l->pending.len < BATCH_BYTES_MAX && (e = sqllog_ring_next(&l->ring, &at)))
		add_entry(l, e, lsn + ++n);
	if (n)
		sqllog_ring_free_until(&l->ring, at, n);
	return n;
}

/* Writes and syncs what is pending; on failure it stays pending. */
static bool land(struct sqllog *l)
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
	atomic_store_explicit(&l->waits.durable, l->pending_lsn, memory_order_release);
	sqllog_waits_wake(&l->waits);
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

static uint64_t on_turn(void *arg)
{
	struct sqllog *l = arg;
	uint64_t now_ns = env_mono_ns(l->env);
	atomic_store_explicit(&l->asleep, false, memory_order_relaxed);
	if (l->pending.len) { /* failed before */
		if (now_ns < l->retry_at_ns)
			return l->retry_at_ns;
		if (!land(l))
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
	if (gather(l) && !land(l))
		return l->retry_at_ns;
	return sleep_unless_work(l, env_mono_ns(l->env));
}

static void on_start(void *arg, struct env_loop *loop)
{
	(void)arg;
	(void)loop;
}

/* The last words: everything that was handed over. */
static void on_stop(void *arg)
{
	struct sqllog *l = arg;
	bool fine = !l->pending.len || land(l);
	while (fine && gather(l))
		fine = land(l);
	if (!fine && l->log)
		log_error(l->log, "sqllog.lost", "folder=%s first=%llu last=%llu", l->folder,
			  (unsigned long long)sqllog_durable_lsn(l) + 1, (unsigned long long)sqllog_lsn(l));
	end_file(l);
	atomic_store(&l->waits.failing, true); /* whoever still waits, or comes too late, is told so */
	sqllog_waits_wake(&l->waits);
}

/* ---- opening and closing --------------------------------------------------------------------------------------- */

static int refuse(char *error, size_t size, const char *path, int err)
{
	snprintf(error, size, "%s: %s", path, err == ERR_IO ? env_last_error() : err_text(err));
	return err;
}

static int lock_folder(struct sqllog *l, char *error, size_t size)
{
	char path[ENV_PATH_MAX];
	snprintf(path, sizeof path, "%s/lock", l->folder);
	int err = env_dir_make(l->env, l->folder);
	if (!err)
		err = env_file_open(l->env, path, ENV_READ | ENV_WRITE | ENV_CREATE, &l->lock);
	if (!err)
		err = env_file_lock(l->lock);
	if (err == ERR_BUSY) {
		snprintf(error, size, "%s: another process writes this SQL log", path);
		return err;
	}
	return err < 0 ? refuse(error, size, path, err) : 0;
}

/* Takes the next epoch and writes it down, with the lsn it begins behind, before the first record. */
static int next_epoch(struct sqllog *l, const struct sqllog_found *found, uint64_t lsn, char *error, size_t size)
{
	char path[ENV_PATH_MAX], note[80], *text;
	size_t n;
	uint64_t epoch = found->epoch, noted_lsn = 0;
	snprintf(path, sizeof path, "%s/epoch", l->folder);
	int err = env_file_load(l->env, path, 4096, &text, &n);
	if (!err) {
		uint64_t noted = sqllog_note_get(text, "epoch", 0);
		epoch = noted > epoch ? noted : epoch;
		noted_lsn = sqllog_note_get(text, "lsn", 0);
		free(text);
	} else if (err != ERR_NOT_FOUND)
		return refuse(error, size, path, err);
	if (noted_lsn > lsn) {
		snprintf(error, size, "%s: the log reached lsn %llu before and ends at %llu now: files are missing",
			 l->folder, (unsigned long long)noted_lsn, (unsigned long long)lsn);
		return ERR_CORRUPT;
	}
	l->epoch = epoch + 1;
	int length = snprintf(note, sizeof note, "epoch=%llu lsn=%llu\n", (unsigned long long)l->epoch,
			      (unsigned long long)lsn);
	err = env_file_store(l->env, path, note, (size_t)length, 0);
	if (!err)
		err = env_dir_sync(l->env, l->folder);
	return err < 0 ? refuse(error, size, path, err) : 0;
}

static int recover(struct sqllog *l, const struct sqllog_options *o, char *error, size_t size)
{
	struct sqllog_found found;
	int err = sqllog_scan(l->env, l->folder, l->keys, &found, error, size);
	if (err < 0)
		return err;
	if (found.cut_bytes && l->log)
		log_warn(l->log, "sqllog.cut", "folder=%s file=%08u.sql bytes=%llu last_lsn=%llu", l->folder,
			 found.cut_file, (unsigned long long)found.cut_bytes, (unsigned long long)found.lsn);
	uint64_t lsn = found.lsn > found.replayed ? found.lsn : found.replayed;
	l->floor = found.replayed;
	l->opened_lsn = lsn;
	atomic_store(&l->number, found.file);
	err = next_epoch(l, &found, lsn, error, size);
	if (!err)
		err = sqllog_ring_init(&l->ring, o->ring_bytes ? o->ring_bytes : RING_BYTES_DEFAULT, lsn);
	if (!err)
		err = sqllog_waits_init(&l->waits, o->workers, lsn);
	return err == ERR_NOMEM ? refuse(error, size, l->folder, err) : err;
}

static void release(struct sqllog *l)
{
	env_file_close(l->lock);
	sqllog_ring_release(&l->ring);
	sqllog_waits_release(&l->waits);
	buf_release(&l->pending);
	free(l->keys);
	free(l);
}

static int64_t figure_records(void *arg)
{
	return (int64_t)(sqllog_lsn(arg) - ((struct sqllog *)arg)->opened_lsn);
}
static int64_t figure_bytes(void *arg)
{
	return (int64_t)atomic_load(&((struct sqllog *)arg)->bytes);
}
static int64_t figure_syncs(void *arg)
{
	return (int64_t)atomic_load(&((struct sqllog *)arg)->syncs);
}
static int64_t figure_unsynced(void *arg)
{
	return (int64_t)(sqllog_lsn(arg) - sqllog_durable_lsn(arg));
}
static int64_t figure_failing(void *arg)
{
	return sqllog_failing(arg);
}

static void show(struct sqllog *l, struct metrics *m)
{
	metrics_gauge_fn(m, "loquat_sqllog_records", "Records handed to the SQL log since the start.", figure_records,
			 l);
	metrics_gauge_fn(m, "loquat_sqllog_bytes", "Bytes synced to the SQL log since the start.", figure_bytes, l);
	metrics_gauge_fn(m, "loquat_sqllog_syncs", "Group syncs of the SQL log since the start.", figure_syncs, l);
	metrics_gauge_fn(m, "loquat_sqllog_unsynced_records", "Records handed over and not yet durable.",
			 figure_unsynced, l);
	metrics_gauge_fn(m, "loquat_sqllog_failing", "1 while the SQL log cannot be written.", figure_failing, l);
}

int sqllog_open(struct env *env, struct log *log, struct metrics *metrics, const struct sqllog_options *o, char *error,
		size_t error_size, struct sqllog **out)
{
	static const struct env_loop_ops ops = { .on_start = on_start, .on_turn = on_turn, .on_stop = on_stop };
	struct sqllog *l = aligned_alloc(64, (sizeof *l + 63) / 64 * 64);
	if (!l)
		return ERR_NOMEM;
	memset(l, 0, sizeof *l);
	l->env = env;
	l->log = log;
	l->file_bytes_max = o->file_bytes_max ? o->file_bytes_max : FILE_BYTES_DEFAULT;
	l->linger_ns = 1000ull * (o->linger_us == UINT32_MAX ? LINGER_US_DEFAULT : o->linger_us);
	l->keys = calloc(1, sizeof *l->keys);
	int err = l->keys ? 0 : ERR_NOMEM;
	if (!err && (size_t)snprintf(l->folder, sizeof l->folder, "%s", o->folder) >= sizeof l->folder)
		err = ERR_BAD_REQUEST;
	if (err)
		refuse(error, error_size, o->folder, err);
	if (!err)
		err = lock_folder(l, error, error_size);
	if (!err)
		err = recover(l, o, error, error_size);
	if (!err && (err = env_loop_start(env, "sqllog", &ops, l, &l->thread)) < 0)
		refuse(error, error_size, "SQL-log thread", err);
	if (err < 0) {
		release(l);
		return err;
	}
	if (metrics)
		show(l, metrics);
	*out = l;
	return 0;
}

void sqllog_stop(struct sqllog *l)
{
	if (atomic_exchange(&l->stopped, true))
		return;
	env_loop_stop(l->thread);
	env_loop_join(l->thread);
}

void sqllog_close(struct sqllog *l)
{
	if (!l)
		return;
	sqllog_stop(l);
	release(l);
}

/* ---- any worker -------------------------------------------------------------------------------------------------- */

static void wake_thread(struct sqllog *l)
{
	/* pairs with sleep_unless_work: published first, then looked */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&l->asleep, memory_order_relaxed) && atomic_exchange(&l->asleep, false))
		env_loop_wake(l->thread);
	else if (sqllog_ring_used(&l->ring) > (size_t)l->ring.units * SQLLOG_UNIT / 2 &&
		 !atomic_load_explicit(&l->hurried, memory_order_relaxed) && !atomic_exchange(&l->hurried, true))
		env_loop_wake(l->thread);
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

uint64_t sqllog_key_lsn(const struct sqllog *l, const char *key)
{
	char text[SQLLOG_KEY_TEXT_MAX];
	int n = sqllog_key_text(text, key);
	uint64_t lsn = n > 0 ? sqllog_keys_get(l->keys, text, (size_t)n) : sqllog_lsn(l);
	if (lsn < l->floor)
		lsn = l->floor;
	return lsn > atomic_load_explicit(&l->replayed, memory_order_relaxed) ? lsn : 0;
}

void sqllog_replayed(struct sqllog *l, uint64_t lsn)
{
	uint64_t was = atomic_load_explicit(&l->replayed, memory_order_relaxed);
	while (was < lsn && !atomic_compare_exchange_weak_explicit(&l->replayed, &was, lsn, memory_order_relaxed,
								   memory_order_relaxed))
		;
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
