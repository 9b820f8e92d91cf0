#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/err.h"
#include "common/sqllog_private.h"
/*
 * Opening after whatever happened: verify what dbwriter has not landed, cut a torn tail, refuse damage.
 */

struct scan {
	struct env *env;
	const char *folder;
	struct sqllog_keys *keys;
	struct sqllog_found *found;
	bool may_have_holes;
	uint32_t *numbers;
	size_t n;
	char *error;
	size_t error_size;
};

static int trouble(struct scan *s, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int trouble(struct scan *s, int err, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(s->error, s->error_size, fmt, ap);
	va_end(ap);
	return err;
}

static int open_number(struct scan *s, size_t i, struct sqllog_file *f)
{
	char path[ENV_PATH_MAX];
	sqllog_path(path, s->folder, s->numbers[i], "sql");
	int err = sqllog_file_open(f, s->env, path);
	/* dbwriter may just have removed what is landed and old */
	return err < 0 && err != ERR_NOT_FOUND ? trouble(s, err, "%s: cannot be read: %s", path, env_last_error())
					       : err;
}

/* The lsn of a file's first record; 0: it has none. Negative: trouble. */
static int first_lsn(struct scan *s, size_t i, uint64_t *lsn)
{
	struct sqllog_file f;
	struct sqllog_record r;
	char why[80];
	*lsn = 0;
	int err = open_number(s, i, &f);
	if (err < 0)
		return err == ERR_NOT_FOUND ? 0 : err;
	err = sqllog_file_next(&f, &r, why, sizeof why);
	if (err == 1)
		*lsn = r.lsn;
	sqllog_file_close(&f);
	return err == ERR_IO ? err : 0;
}

/*
 * Where reading has to begin: the last file that begins at or before the first record that is not landed holds that one,
 * or a copy of its batch that was cut short; so the last one that begins before that.
 */
static int starting_file(struct scan *s, size_t *start)
{
	uint64_t lsn, holder = 0;
	*start = 0;
	if (!s->found->replayed)
		return 0;
	for (size_t i = s->n; i-- > 1;) {
		int err = first_lsn(s, i, &lsn);
		if (err < 0)
			return err;
		if (holder && lsn && lsn < holder) {
			*start = i;
			break;
		}
		if (!holder && lsn && lsn <= s->found->replayed + 1)
			holder = lsn;
	}
	return 0;
}

/* The last batch is remembered, and in which files records of it stand: more than one after a failed write or sync. */
static void note_batch(struct sqllog_found *f, const struct sqllog_record *r, uint32_t number, uint64_t at)
{
	if (r->time_us != f->time_us) {
		buf_clear(&f->batch);
		f->holders = 0;
	}
	if ((!f->holders || f->holder[f->holders - 1].file != number) && f->holders < SQLLOG_HOLDERS_MAX)
		f->holder[f->holders++] = (struct sqllog_suspect){ number, at - r->bytes };
	if (r->lsn > f->lsn)
		buf_add(&f->batch, r->body + r->body_bytes - r->bytes, r->bytes);
}

static int take(struct scan *s, const struct sqllog_record *r, uint32_t number, uint64_t at)
{
	struct sqllog_found *f = s->found;
	if (f->lsn && r->lsn <= f->lsn) { /* written again after a failed sync */
		if (r->time_us == f->time_us)
			note_batch(f, r, number, at);
		return 0;
	}
	uint64_t known = f->lsn > f->replayed ? f->lsn : f->replayed;
	if (known && r->lsn > known + 1)
		return trouble(s, ERR_CORRUPT,
			       "%s/%08u.sql: lsn %llu follows lsn %llu before offset %llu: records are missing",
			       s->folder, number, (unsigned long long)r->lsn, (unsigned long long)known,
			       (unsigned long long)at);
	if (r->epoch < f->epoch)
		return trouble(s, ERR_CORRUPT, "%s/%08u.sql: epoch %llu follows epoch %llu before offset %llu",
			       s->folder, number, (unsigned long long)r->epoch, (unsigned long long)f->epoch,
			       (unsigned long long)at);
	note_batch(f, r, number, at);
	f->lsn = r->lsn;
	f->epoch = r->epoch;
	f->time_us = r->time_us;
	if (r->lsn > f->replayed)
		sqllog_keys_note(s->keys, r->keys, r->keys_bytes, r->lsn);
	return 0;
}

#define SECTOR 512

/* Whether bytes hold a run of zeroes as a sector leaves that was never written; our text holds none at all. */
static bool has_hole(const char *p, size_t n)
{
	size_t run = 0;
	for (const char *end = p + n; p < end && run < SECTOR; p++)
		run = *p ? 0 : run + 1;
	return run >= SECTOR;
}

/*
 * After a power cut any sector of the last batch may be missing, so whole records may stand behind a hole. A batch is
 * written only when the one before is synced, and its records carry one time: if all that verifies behind the hole has
 * the same time, it is that last batch, which was acknowledged to nobody.
 */
static int torn_batch(struct scan *s, size_t i, uint64_t from)
{
	char path[ENV_PATH_MAX], *bytes;
	size_t n;
	struct sqllog_record r;
	uint64_t time_us = 0;
	ssize_t at, first = -1;
	sqllog_path(path, s->folder, s->numbers[i], "sql");
	int err = env_file_load(s->env, path, SIZE_MAX / 4, &bytes, &n);
	if (err < 0)
		return err;
	bool one_time = n > from;
	for (size_t next = from; one_time && (at = sqllog_find(bytes, n, next)) >= 0; next = (size_t)at + r.bytes) {
		one_time =
			sqllog_read(bytes + at, n - (size_t)at, &r, NULL, 0) > 0 && (!time_us || r.time_us == time_us);
		if (!one_time)
			break;
		time_us = r.time_us;
		first = first < 0 ? at : first;
	}
	bool torn = one_time && first >= 0 && has_hole(bytes + from, (size_t)first - from);
	free(bytes);
	return torn;
}

/*
 * A bad spot is no damage when nothing that verifies comes behind it (a torn tail), or when a later file goes on
 * without a gap (it was written anew there). 1: torn, 0: goes on elsewhere.
 */
static int judge(struct scan *s, size_t i, struct sqllog_file *f, const char *why)
{
	uint64_t next = 0;
	for (size_t j = i + 1; j < s->n && !next; j++) {
		int err = first_lsn(s, j, &next);
		if (err < 0)
			return err;
	}
	uint64_t known = s->found->lsn > s->found->replayed ? s->found->lsn : s->found->replayed;
	if (next && next <= known + 1)
		return 0;
	int behind = sqllog_file_behind(f), torn = 0;
	if (!behind && sqllog_file_foreign(f, s->may_have_holes))
		return trouble(s, ERR_CORRUPT, "%s/%08u.sql: is no file of this log (%s): move it away", s->folder,
			       s->numbers[i], why);
	behind = next && !behind ? 1 : behind;
	if (behind == 1 && !next && s->may_have_holes)
		torn = torn_batch(s, i, sqllog_file_at(f));
	if (behind < 0 || torn < 0)
		return trouble(s, behind < 0 ? behind : torn, "%s/%08u.sql: cannot be read: %s", s->folder,
			       s->numbers[i], env_last_error());
	if (behind && !torn)
		return trouble(s, ERR_CORRUPT, "%s/%08u.sql: damaged at offset %llu, with whole records behind it: %s",
			       s->folder, s->numbers[i], (unsigned long long)sqllog_file_at(f), why);
	return 1;
}

static int scan_file(struct scan *s, size_t i)
{
	struct sqllog_file f;
	struct sqllog_record r;
	char why[80] = "the record is incomplete";
	int err = open_number(s, i, &f);
	if (err < 0)
		return err == ERR_NOT_FOUND ? 0 : err;
	while ((err = sqllog_file_next(&f, &r, why, sizeof why)) == 1)
		if ((err = take(s, &r, s->numbers[i], sqllog_file_at(&f))) < 0)
			break;
	uint64_t at = sqllog_file_at(&f);
	bool bad = err == ERR_INCOMPLETE || (err == ERR_CORRUPT && !*s->error);
	int torn = bad ? judge(s, i, &f, why) : 0;
	if (err == ERR_IO)
		trouble(s, err, "%s/%08u.sql: cannot be read: %s", s->folder, s->numbers[i], env_last_error());
	if (err == ERR_NEWER)
		trouble(s, err, "%s/%08u.sql: offset %llu: %s, this one would misread it: start that version again",
			s->folder, s->numbers[i], (unsigned long long)at, why);
	sqllog_file_close(&f);
	if (!bad)
		return err;
	if (torn <= 0)
		return torn;
	int64_t cut = sqllog_cut(s->env, s->folder, s->numbers[i], at);
	if (cut < 0)
		return trouble(s, (int)cut, "%s/%08u.sql: its torn tail cannot be cut: %s", s->folder, s->numbers[i],
			       env_last_error());
	s->found->cut_bytes += (uint64_t)cut;
	s->found->cut_file = s->numbers[i];
	return 0;
}

static int scan_files(struct scan *s)
{
	size_t start;
	int err = starting_file(s, &start);
	for (size_t i = start; !err && i < s->n; i++)
		err = scan_file(s, i);
	return err;
}

int sqllog_scan(struct env *env, const char *folder, bool may_have_holes, struct sqllog_keys *keys,
		struct sqllog_found *out, char *error, size_t error_size)
{
	struct scan s = { .env = env,
			  .folder = folder,
			  .keys = keys,
			  .found = out,
			  .may_have_holes = may_have_holes,
			  .error = error,
			  .error_size = error_size };
	*out = (struct sqllog_found){ 0 };
	sqllog_landed(env, folder, &out->replayed_epoch, &out->replayed);
	error[0] = '\0';
	int err = sqllog_list(env, folder, &s.numbers, &s.n);
	if (err < 0)
		return trouble(&s, err, "%s: cannot be read: %s", folder,
			       err == ERR_IO ? env_last_error() : err_text(err));
	err = scan_files(&s);
	out->file = s.n ? s.numbers[s.n - 1] : 0;
	free(s.numbers);
	return err;
}

/* ---- cutting -------------------------------------------------------------------------------------------------- */

/* Keeps the bytes that go for a person to look at: they may be half of somebody's last change. */
static int keep_cut(struct env *env, const char *folder, uint32_t number, struct env_file *f, uint64_t from, uint64_t n)
{
	char path[ENV_PATH_MAX];
	size_t want = n < 2 * SQLLOG_RECORD_MAX ? (size_t)n : 2 * SQLLOG_RECORD_MAX;
	char *bytes = malloc(want);
	if (!bytes)
		return ERR_NOMEM;
	sqllog_path(path, folder, number, "cut");
	ssize_t got = env_file_read(f, from, bytes, want);
	int err = got < 0 ? (int)got : env_file_store(env, path, bytes, (size_t)got, 0);
	free(bytes);
	return err;
}

int64_t sqllog_cut(struct env *env, const char *folder, uint32_t number, uint64_t keep)
{
	char path[ENV_PATH_MAX];
	struct env_file *f;
	sqllog_path(path, folder, number, "sql");
	int err = env_file_open(env, path, ENV_READ | ENV_WRITE, &f);
	if (err < 0)
		return err;
	int64_t size = env_file_size(f), cut = size < 0 ? size : size - (int64_t)keep;
	if (cut > 0) {
		/* the copy is for people only: a full disk must not keep us from cutting */
		(void)keep_cut(env, folder, number, f, keep, (uint64_t)cut);
		err = env_file_truncate(f, keep);
		if (!err)
			err = env_file_sync(f);
	}
	env_file_close(f);
	return err < 0 ? err : cut > 0 ? cut : cut < 0 && size < 0 ? size : 0;
}

void sqllog_shorten(struct env *env, const char *folder, uint32_t number, uint64_t bytes)
{
	char path[ENV_PATH_MAX];
	struct env_file *f;
	sqllog_path(path, folder, number, "sql");
	if (bytes <= sizeof "SET NAMES utf8mb4;") {
		(void)env_file_remove(env, path);
	} else if (!env_file_open(env, path, ENV_READ | ENV_WRITE, &f)) {
		if (env_file_size(f) > (int64_t)bytes)
			(void)env_file_truncate(f, bytes);
		env_file_close(f);
	}
}
