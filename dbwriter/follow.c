#include "dbwriter/follow.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

#define LOOK_BACK_BYTES (64u << 10) /* for the last record of a file */
#define LOOK_BACK_FAR \
	(2 * (SQLLOG_RECORD_MAX + SQLLOG_HEAD_MAX)) /* one of the largest, and another cut off behind it */

int position_compare(struct position a, struct position b)
{
	if (a.epoch != b.epoch)
		return a.epoch < b.epoch ? -1 : 1;
	return (a.lsn > b.lsn) - (a.lsn < b.lsn);
}

enum follow_verdict follow_judge(struct position record, struct position last, struct position landed)
{
	if (last.lsn && record.epoch < last.epoch)
		return FOLLOW_FENCED;
	if (last.lsn && record.epoch == last.epoch && record.lsn <= last.lsn)
		return FOLLOW_SKIP; /* written anew after a failed sync */
	if (record.epoch < landed.epoch)
		return record.lsn <= landed.lsn ? FOLLOW_SKIP : FOLLOW_FENCED;
	if (record.epoch == landed.epoch && record.lsn <= landed.lsn)
		return FOLLOW_SKIP;
	if (record.lsn == landed.lsn + 1)
		return FOLLOW_APPLY;
	if (record.lsn > landed.lsn + 1)
		return FOLLOW_GAP;
	/* A newer epoch at an older number: sound if it goes on where its own log ended, or begins one. */
	return record.lsn == 1 || (last.lsn && record.lsn == last.lsn + 1) ? FOLLOW_FORK : FOLLOW_GAP;
}

void follow_init(struct follow *f, struct env *env, const char *folder, struct position landed)
{
	*f = (struct follow){ .env = env, .taken = landed };
	snprintf(f->folder, sizeof f->folder, "%s", folder);
}

void follow_release(struct follow *f)
{
	sqllog_file_close(&f->file);
	f->number = 0;
}

static int say(struct follow *f, int result, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static int say(struct follow *f, int result, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(f->why, sizeof f->why, fmt, ap);
	va_end(ap);
	return result;
}

static int io_trouble(struct follow *f, uint32_t number, int err)
{
	return say(f, err, "%s/%08u.sql cannot be read: %s", f->folder, number,
		   err == ERR_IO ? env_last_error() : err_text(err));
}

/* ---- which file ------------------------------------------------------------------------------------------- */

/* The position of a file's first record, lsn 0: it has none. */
static int first_of(struct follow *f, uint32_t number, struct position *out)
{
	char path[ENV_PATH_MAX], why[80];
	struct sqllog_file file;
	struct sqllog_record r;
	*out = (struct position){ 0 };
	sqllog_path(path, f->folder, number, "sql");
	int err = sqllog_file_open(&file, f->env, path);
	if (err == ERR_NOT_FOUND)
		return 0;
	if (err < 0)
		return io_trouble(f, number, err);
	if ((err = sqllog_file_next(&file, &r, why, sizeof why)) == 1)
		*out = (struct position){ r.epoch, r.lsn };
	sqllog_file_close(&file);
	return err == ERR_IO ? io_trouble(f, number, err) : 0;
}

/* The last of the files that begins at or before a position; the first one if none does. 1: one does, 0: none */
static int file_of(struct follow *f, const uint32_t *numbers, size_t n, struct position at, uint32_t *out)
{
	struct position first;
	*out = n ? numbers[0] : 0;
	for (size_t i = n; i-- > 0;) {
		int err = first_of(f, numbers[i], &first);
		if (err < 0)
			return err;
		if (first.lsn && position_compare(first, at) <= 0) {
			*out = numbers[i];
			return 1;
		}
	}
	return 0;
}

uint32_t follow_file_of(struct env *env, const char *folder, struct position at)
{
	struct follow f;
	uint32_t *numbers, number = 0;
	size_t n;
	follow_init(&f, env, folder, at);
	if (sqllog_list(env, folder, &numbers, &n) < 0)
		return 0;
	int found = file_of(&f, numbers, n, at, &number);
	free(numbers);
	return found == 1 ? number : 0;
}

/* Whether a file holds nothing, or the first line alone. */
static bool is_empty(struct follow *f, uint32_t number)
{
	char path[ENV_PATH_MAX], why[80];
	struct sqllog_file file;
	struct sqllog_record r;
	sqllog_path(path, f->folder, number, "sql");
	if (sqllog_file_open(&file, f->env, path) < 0)
		return false;
	bool empty = sqllog_file_next(&file, &r, why, sizeof why) == 0;
	sqllog_file_close(&file);
	return empty;
}

/* The file to read after the present one; 0: none yet. An empty one may be nobody's, and the writer still in this one. */
static int next_file(struct follow *f, uint32_t *out)
{
	uint32_t *numbers;
	size_t n;
	*out = 0;
	int err = sqllog_list(f->env, f->folder, &numbers, &n);
	if (err == ERR_NOT_FOUND)
		return 0;
	if (err < 0)
		return say(f, err, "%s cannot be read: %s", f->folder, env_last_error());
	if (!f->number) /* so that the record behind what has landed is seen to follow it */
		err = file_of(f, numbers, n, f->taken, out);
	for (size_t i = 0; f->number && i < n && !*out; i++)
		if (numbers[i] > f->number && !is_empty(f, numbers[i]))
			*out = numbers[i];
	free(numbers);
	return err < 0 ? err : 0;
}

static int open_file(struct follow *f, uint32_t number)
{
	char path[ENV_PATH_MAX];
	sqllog_file_close(&f->file);
	f->number = number;
	f->leaving = false;
	sqllog_path(path, f->folder, number, "sql");
	int err = sqllog_file_open(&f->file, f->env, path);
	return err < 0 && err != ERR_NOT_FOUND ? io_trouble(f, number, err) : 0;
}

static int64_t size_by_path(struct follow *f)
{
	char path[ENV_PATH_MAX];
	struct env_file *file;
	sqllog_path(path, f->folder, f->number, "sql");
	int err = env_file_open(f->env, path, ENV_READ, &file);
	if (err < 0)
		return err;
	int64_t size = env_file_size(file);
	env_file_close(file);
	return size;
}

/*
 * A file that held no whole record may have been removed, and its number used anew, while we have the old one open. Its
 * size tells: that of one and the same file, looked at between two looks by the handle, lies between these.
 */
static bool was_replaced(struct follow *f)
{
	int64_t before = env_file_size(f->file.f), there = size_by_path(f), after = env_file_size(f->file.f);
	int64_t low = before < after ? before : after, high = before < after ? after : before;
	return there == ERR_NOT_FOUND || (there >= 0 && (there < low || there > high));
}

/* ---- the end of a file --------------------------------------------------------------------------------------- */

/* The file ends in a bad spot and a later one exists: does that go on without a gap? 1: yes, 0: not known yet */
static int goes_on(struct follow *f, uint32_t number)
{
	uint32_t *numbers;
	size_t n;
	struct position first = { 0 };
	int err = sqllog_list(f->env, f->folder, &numbers, &n);
	if (err < 0)
		return say(f, err, "%s cannot be read: %s", f->folder, env_last_error());
	for (size_t i = 0; i < n && !first.lsn && !err; i++)
		if (numbers[i] >= number)
			err = first_of(f, numbers[i], &first);
	free(numbers);
	if (err < 0 || !first.lsn)
		return err;
	uint64_t known = f->last.lsn > f->taken.lsn ? f->last.lsn : f->taken.lsn;
	return first.lsn <= known + 1 ? 1 : FOLLOW_STOPPED;
}

/* No record is here. Moves on to the next file and returns 1, or tells why not. */
static int at_end(struct follow *f, int end, const char *why)
{
	uint32_t later;
	int err = next_file(f, &later), behind = 0;
	if (err < 0)
		return err;
	if (later && f->file.f && !f->leaving) {
		f->leaving = true; /* something may have been written before the later file was made */
		return 1;
	}
	if (end == ERR_NEWER)
		return say(f, FOLLOW_STOPPED, "%s/%08u.sql: offset %llu: %s: this dbwriter is too old", f->folder,
			   f->number, (unsigned long long)sqllog_file_at(&f->file), why);
	if (!end)
		return later ? (err = open_file(f, later)) < 0 ? err : 1 : FOLLOW_END;
	if (later && (err = goes_on(f, later)) == 1)
		return (err = open_file(f, later)) < 0 ? err : 1;
	if (err < 0)
		return err;
	if (err != FOLLOW_STOPPED && (behind = sqllog_file_behind(&f->file)) < 0)
		return io_trouble(f, f->number, behind);
	if (!behind && sqllog_file_foreign(&f->file, true))
		return say(f, FOLLOW_STOPPED, "%s/%08u.sql is no file of this log (%s): move it away", f->folder,
			   f->number, why);
	if (err != FOLLOW_STOPPED && !behind)
		return say(f, FOLLOW_WAITING, "%s/%08u.sql ends inside a record at offset %llu", f->folder, f->number,
			   (unsigned long long)sqllog_file_at(&f->file));
	f->bad = f->number;
	return say(f, FOLLOW_STOPPED, "%s/%08u.sql is damaged at offset %llu: %s", f->folder, f->number,
		   (unsigned long long)sqllog_file_at(&f->file), end == ERR_INCOMPLETE ? "the record is cut off" : why);
}

/* ---- records ---------------------------------------------------------------------------------------------------- */

static int gap(struct follow *f, const struct sqllog_record *r)
{
	f->bad = f->number;
	return say(f, FOLLOW_STOPPED,
		   "%s/%08u.sql holds lsn %llu of epoch %llu, but lsn %llu of epoch %llu was the last: "
		   "records are missing",
		   f->folder, f->number, (unsigned long long)r->lsn, (unsigned long long)r->epoch,
		   (unsigned long long)f->taken.lsn, (unsigned long long)f->taken.epoch);
}

/* 1: it is to be applied; 0: it is not; FOLLOW_STOPPED */
static int take(struct follow *f, const struct sqllog_record *r)
{
	struct position here = { r->epoch, r->lsn };
	enum follow_verdict v = follow_judge(here, f->last, f->taken);
	if (v == FOLLOW_GAP && here.epoch > f->taken.epoch && here.lsn <= f->taken.lsn &&
	    sqllog_began(f->env, f->folder, here.epoch, here.lsn))
		v = FOLLOW_FORK; /* its writer says so, who read all there was */
	if (v == FOLLOW_APPLY && here.epoch > f->taken.epoch &&
	    !sqllog_follows(f->env, f->folder, f->taken.epoch, f->taken.lsn, r))
		v = FOLLOW_GAP; /* it uses numbers anew that had landed, and began before this one */
	if (v == FOLLOW_GAP)
		return gap(f, r);
	if (v == FOLLOW_FENCED)
		f->fenced++;
	else if (position_compare(here, f->last) > 0)
		f->last = here;
	if (v != FOLLOW_APPLY && v != FOLLOW_FORK)
		return 0;
	f->forked = v == FOLLOW_FORK;
	f->taken = here;
	return 1;
}

/* Where to read on is found anew from the position, at the next call: files may have gone, or been mended. */
static int find_again(struct follow *f, int result)
{
	follow_release(f);
	f->last = (struct position){ 0 };
	return result;
}

int follow_next(struct follow *f, struct sqllog_record *out)
{
	char why[80] = "";
	unsigned passed = 0;
	f->bad = 0;
	for (;;) {
		int err = !f->file.f && f->number ? open_file(f, f->number) : 0;
		if (err < 0)
			return err;
		int got = f->file.f ? sqllog_file_next(&f->file, out, why, sizeof why) : 0;
		if (got == ERR_IO)
			return io_trouble(f, f->number, got);
		if (got != 1 && f->file.f && was_replaced(f)) {
			sqllog_file_close(&f->file);
			continue;
		}
		int result = got == 1 ? take(f, out) : at_end(f, got, why);
		if (got == 1 && result == 1)
			return FOLLOW_RECORD;
		if (result == FOLLOW_STOPPED || (result == FOLLOW_END && got != 1 && !f->file.f))
			return find_again(f, result);
		if (got != 1 && result != 1)
			return result;
		if (got == 1 && ++passed == f->most)
			return FOLLOW_PASSED;
	}
}

/* The last record that begins in the last bytes of a file with its whole comment line; lsn 0: none. */
static struct position last_within(struct env_file *f, size_t most)
{
	static const char mark[] = "\n-- loquat lsn=";
	struct position last = { 0 };
	struct buf b = BUF_INIT;
	int64_t size = env_file_size(f);
	ssize_t got = env_file_read(f, size > (int64_t)most ? (uint64_t)size - most : 0, buf_reserve(&b, most), most);
	b.len = got > 0 ? (size_t)got : 0;
	const char *p = buf_cstr(&b), *end = p + b.len;
	while ((p = memmem(p, (size_t)(end - p), mark, sizeof mark - 1))) {
		unsigned long long lsn, epoch;
		p += sizeof mark - 1;
		if (memchr(p, '\n', (size_t)(end - p)) && sscanf(p, "%llu epoch=%llu ", &lsn, &epoch) == 2)
			last = (struct position){ epoch, lsn };
	}
	buf_release(&b);
	return last;
}

struct position follow_last_of(struct env *env, const char *path)
{
	struct env_file *f;
	struct position last = { 0 };
	if (env_file_open(env, path, ENV_READ, &f) < 0)
		return last;
	last = last_within(f, LOOK_BACK_BYTES);
	if (!last.lsn)
		last = last_within(f, LOOK_BACK_FAR);
	env_file_close(f);
	return last;
}

struct position follow_last(struct env *env, const char *folder)
{
	char path[ENV_PATH_MAX];
	uint32_t *numbers;
	size_t n;
	struct position last = { 0 };
	if (sqllog_list(env, folder, &numbers, &n) < 0)
		return last;
	while (n-- && !last.lsn) {
		sqllog_path(path, folder, numbers[n], "sql");
		last = follow_last_of(env, path);
	}
	free(numbers);
	return last;
}

uint64_t follow_last_lsn(struct env *env, const char *folder)
{
	return follow_last(env, folder).lsn;
}
