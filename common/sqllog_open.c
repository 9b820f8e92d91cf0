#include <stdio.h>
#include <stdlib.h>
#include "common/err.h"
#include "common/sqllog_private.h"
/*
 * Opening and closing the writer: lock, recovery, epoch, thread.
 */

#define FILE_BYTES_DEFAULT (64ull << 20)
#define RING_BYTES_DEFAULT (8u << 20)
#define LINGER_US_DEFAULT  1000
#define HISTORY_BYTES_MAX  8192 /* of FOLDER/epoch: about a hundred starts */
#define BOOT_ID_PATH       "/proc/sys/kernel/random/boot_id"

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

/* ---- the epoch, and what the start before this one noted -------------------------------------------------- */

struct note {
	uint64_t epoch, lsn;
	char boot[40]; /* which run of the machine that was; empty: not known */
};

static void boot_id(struct env *env, char out[40])
{
	struct env_file *f;
	ssize_t n = -1;
	if (!env_file_open(env, BOOT_ID_PATH, ENV_READ, &f)) {
		n = env_file_read(f, 0, out, 39);
		env_file_close(f);
	}
	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, " \n")] = '\0';
}

static int note_load(struct env *env, const char *folder, struct note *note, struct buf *history, char *error,
		     size_t size)
{
	char path[ENV_PATH_MAX], *text;
	size_t n;
	*note = (struct note){ 0 };
	snprintf(path, sizeof path, "%s/epoch", folder);
	int err = env_file_load(env, path, HISTORY_BYTES_MAX + 4096, &text, &n);
	if (err == ERR_NOT_FOUND)
		return 0;
	if (err < 0)
		return refuse(error, size, path, err);
	char *last = text + n;
	while (last > text && (last == text + n || last[-1] != '\n'))
		last--;
	note->epoch = sqllog_note_get(last, "epoch", 0);
	note->lsn = sqllog_note_get(last, "lsn", 0);
	const char *boot = strstr(last, " boot=");
	if (boot)
		snprintf(note->boot, sizeof note->boot, "%.*s", (int)strcspn(boot + 6, " \n"), boot + 6);
	/* a line is added to the others; the oldest go */
	char *from = n > HISTORY_BYTES_MAX ? strchr(text + n - HISTORY_BYTES_MAX, '\n') : NULL;
	buf_addstr(history, from ? from + 1 : text);
	free(text);
	return 0;
}

uint64_t sqllog_noted_epoch(struct env *env, const char *folder)
{
	struct note note;
	struct buf history = BUF_INIT;
	char error[ENV_PATH_MAX + 128];
	int err = note_load(env, folder, &note, &history, error, sizeof error);
	buf_release(&history);
	return err < 0 ? 0 : note.epoch;
}

/* Written and synced before the first record of the epoch. */
static int note_store(struct sqllog *l, const struct note *note, struct buf *history, char *error, size_t size)
{
	char path[ENV_PATH_MAX];
	snprintf(path, sizeof path, "%s/epoch", l->folder);
	buf_addf(history, "epoch=%llu lsn=%llu boot=%s\n", (unsigned long long)note->epoch,
		 (unsigned long long)note->lsn, note->boot);
	int err = env_file_store(l->env, path, history->data, history->len, 0);
	return err < 0 ? refuse(error, size, path, err) : 0;
}

/*
 * A folder that knows of no epoch may be new, or one whose predecessor was lost or lies on another host: the seconds
 * since 1970 are above any epoch that was counted up from such a beginning.
 */
static uint64_t epoch_after(struct sqllog *l, const struct note *before, const struct sqllog_found *found)
{
	uint64_t known = before->epoch > found->epoch ? before->epoch : found->epoch;
	return known ? known + 1 : env_wall_us(l->env) / 1000000;
}

/* ---- the end of the log ----------------------------------------------------------------------------------- */

static void clean_path(const struct sqllog *l, char out[ENV_PATH_MAX])
{
	snprintf(out, ENV_PATH_MAX, "%s/clean", l->folder);
}

void sqllog_clean_store(struct sqllog *l)
{
	char path[ENV_PATH_MAX], text[40];
	clean_path(l, path);
	int n = snprintf(text, sizeof text, "lsn=%llu\n", (unsigned long long)sqllog_lsn(l));
	(void)env_file_store(l->env, path, text, (size_t)n, 0);
}

/* Whether the log was stopped in order at that lsn. The note is good for one opening. */
static bool was_clean(struct sqllog *l, uint64_t lsn)
{
	char path[ENV_PATH_MAX], *text;
	size_t n;
	clean_path(l, path);
	if (env_file_load(l->env, path, 4096, &text, &n) < 0)
		return false;
	bool clean = sqllog_note_get(text, "lsn", 0) == lsn;
	free(text);
	return !env_file_remove(l->env, path) && !env_dir_sync(l->env, l->folder) && clean;
}

/*
 * The process before this one died. All but its last batch was synced; that one can be read, but maybe only from memory
 * of which the system believes that it is on the disk: a sync may have failed, and told so to the dead. So it is written
 * and synced once more, and then goes where it stood.
 */
static int rescue(struct sqllog *l, struct sqllog_found *found, char *error, size_t size)
{
	if (!found->batch.len || was_clean(l, found->lsn))
		return 0;
	struct buf batch = found->batch;
	found->batch = l->pending;
	l->pending = batch;
	l->pending_lsn = found->lsn;
	if (!sqllog_land(l))
		return refuse(error, size, l->folder, ERR_IO);
	for (unsigned i = 0; i < found->holders; i++)
		sqllog_shorten(l->env, l->folder, found->holder[i].file, found->holder[i].bytes);
	return 0;
}

/* ---- opening and closing -------------------------------------------------------------------------------------- */

static int take_over(struct sqllog *l, const struct sqllog_options *o, struct sqllog_found *found, char *error,
		     size_t size)
{
	/* What has landed and is lost here, or was removed, is of no concern: numbers go on from what can be read. */
	uint64_t lsn = found->lsn ? found->lsn : found->replayed;
	l->floor = found->replayed < lsn ? found->replayed : lsn;
	l->opened_lsn = lsn;
	l->opened_epoch = found->epoch > found->replayed_epoch ? found->epoch : found->replayed_epoch;
	l->time_us = found->time_us;
	atomic_store(&l->number, found->file);
	int err = sqllog_ring_init(&l->ring, l->env, o->ring_bytes ? o->ring_bytes : RING_BYTES_DEFAULT, lsn);
	if (!err)
		err = sqllog_waits_init(&l->waits, o->workers, lsn, o->replicated);
	return err < 0 ? refuse(error, size, l->folder, err) : rescue(l, found, error, size);
}

static void tell_cut(const struct sqllog *l, const struct sqllog_found *found)
{
	if (found->cut_bytes && l->log)
		log_warn(l->log, "sqllog.cut", "folder=%s file=%08u.sql bytes=%llu last_lsn=%llu", l->folder,
			 found->cut_file, (unsigned long long)found->cut_bytes, (unsigned long long)found->lsn);
}

/* Reads the log and takes it over as it is; then the new epoch may be written down. */
static int read_and_take_over(struct sqllog *l, const struct sqllog_options *o, const struct note *before,
			      struct note *now, char *error, size_t size)
{
	struct sqllog_found found = { 0 };
	boot_id(l->env, now->boot);
	bool same_boot = now->boot[0] && !strcmp(now->boot, before->boot);
	int err = sqllog_scan(l->env, l->folder, !same_boot, l->keys, &found, error, size);
	tell_cut(l, &found);
	if (!err)
		err = take_over(l, o, &found, error, size);
	if (!err && before->lsn > l->opened_lsn && before->lsn > found.replayed) {
		snprintf(error, size, "%s: the log reached lsn %llu before and ends at %llu now: files are missing",
			 l->folder, (unsigned long long)before->lsn, (unsigned long long)l->opened_lsn);
		err = ERR_CORRUPT;
	}
	now->lsn = l->opened_lsn;
	now->epoch = l->epoch = epoch_after(l, before, &found);
	buf_release(&found.batch);
	return err;
}

static int recover(struct sqllog *l, const struct sqllog_options *o, char *error, size_t size)
{
	struct note before, now;
	struct buf history = BUF_INIT;
	int err = note_load(l->env, l->folder, &before, &history, error, size);
	if (!err)
		err = read_and_take_over(l, o, &before, &now, error, size);
	if (!err)
		err = note_store(l, &now, &history, error, size);
	buf_release(&history);
	return err;
}

static void release(struct sqllog *l)
{
	env_file_close(l->lock);
	env_file_close(l->file);
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
	metrics_counter_fn(m, "loquat_sqllog_records_total", "Records handed to the SQL log since the start.",
			   figure_records, l);
	metrics_counter_fn(m, "loquat_sqllog_bytes_total", "Bytes synced to the SQL log since the start.", figure_bytes,
			   l);
	metrics_counter_fn(m, "loquat_sqllog_syncs_total", "Group syncs of the SQL log since the start.", figure_syncs,
			   l);
	metrics_gauge_fn(m, "loquat_sqllog_unsynced_records", "Records handed over and not yet durable.",
			 figure_unsynced, l);
	metrics_gauge_fn(m, "loquat_sqllog_failing", "1 while the SQL log cannot be written.", figure_failing, l);
}

static void on_start(void *arg, struct env_loop *loop)
{
	(void)arg;
	(void)loop;
}

int sqllog_open(struct env *env, struct log *log, struct metrics *metrics, const struct sqllog_options *o, char *error,
		size_t error_size, struct sqllog **out)
{
	static const struct env_loop_ops ops = { .on_start = on_start,
						 .on_turn = sqllog_turn,
						 .on_stop = sqllog_last_turn };
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
