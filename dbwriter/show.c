#include "dbwriter/show.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "dbwriter/follow.h"
#include "dbwriter/quarantine.h"

static void add_time(struct buf *out, uint64_t time_us)
{
	time_t s = (time_t)(time_us / 1000000);
	struct tm t;
	gmtime_r(&s, &t);
	buf_addf(out, "%04d-%02d-%02dT%02d:%02d:%02d.%06uZ", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour,
		 t.tm_min, t.tm_sec, (unsigned)(time_us % 1000000));
}

void show_record(struct buf *out, const char *instance, const struct sqllog_record *r)
{
	size_t bytes;
	unsigned count;
	if (instance) {
		add_time(out, r->time_us);
		buf_addf(out, "  %s  ", instance);
	}
	buf_addf(out, "lsn %llu  epoch %llu", (unsigned long long)r->lsn, (unsigned long long)r->epoch);
	if (!instance) {
		buf_addstr(out, "  ");
		add_time(out, r->time_us);
	}
	buf_addf(out, "  key %.*s  trace %llx", (int)r->keys_bytes, r->keys, (unsigned long long)r->trace);
	const char *request = sqllog_request(r, &bytes);
	if (bytes)
		buf_addf(out, "  request %.*s", (int)bytes, request);
	buf_addch(out, '\n');
	const char *p = sqllog_statements(r, &bytes, &count), *end = p + bytes;
	while (p < end) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		buf_addf(out, "    %.*s\n", (int)(newline - p), p);
		p = newline + 1;
	}
}

/* ---- a file --------------------------------------------------------------------------------------------------- */

static int cannot(struct buf *out, const char *file, int err)
{
	buf_addf(out, "dbwriter: %s cannot be read: %s\n", file,
		 err == ERR_IO          ? env_last_error()
		 : err == ERR_NOT_FOUND ? "there is no such file or folder"
					: err_text(err));
	return err;
}

/* How the file ended: 0 or 1. */
static int add_end(struct buf *out, const char *file, struct sqllog_file *f, int end, const char *why)
{
	unsigned long long at = sqllog_file_at(f);
	if (end == ERR_IO)
		return cannot(out, file, end);
	if (!end)
		return 0;
	if (end == ERR_NEWER) {
		buf_addf(out, "%s: not for this version at offset %llu: %s\n", file, at, why);
		return 1;
	}
	int behind = sqllog_file_behind(f);
	if (!behind && sqllog_file_foreign(f, true)) {
		buf_addf(out, "%s: no file of an SQL log at offset %llu (%s): move it away\n", file, at, why);
		return 1;
	}
	if (behind == 1)
		buf_addf(out, "%s: DAMAGED at offset %llu (%s), with whole records behind it\n", file, at,
			 end == ERR_INCOMPLETE ? "the record is cut off" : why);
	else
		buf_addf(
			out,
			"%s: torn at offset %llu (%s): a record that is being written, or a tail its writer will cut\n",
			file, at, end == ERR_INCOMPLETE ? "the record is cut off" : why);
	return 1;
}

static int walk(struct env *env, const char *file, struct buf *out, bool print, uint64_t *records,
		struct sqllog_file *f)
{
	struct sqllog_record r;
	char why[80] = "";
	uint64_t last = 0;
	int err = sqllog_file_open(f, env, file), missing = 0;
	if (err < 0)
		return cannot(out, file, err);
	while ((err = sqllog_file_next(f, &r, why, sizeof why)) == 1) {
		++*records;
		if (last && r.lsn > last + 1) {
			missing = 1;
			buf_addf(out, "%s: lsn %llu follows lsn %llu before offset %llu: records are missing\n", file,
				 (unsigned long long)r.lsn, (unsigned long long)last,
				 (unsigned long long)sqllog_file_at(f));
		}
		last = r.lsn;
		if (print)
			show_record(out, NULL, &r);
	}
	err = add_end(out, file, f, err, why);
	return err ? err : missing;
}

int show_dump(struct env *env, const char *file, struct buf *out)
{
	struct sqllog_file f = { 0 };
	uint64_t records = 0;
	int result = walk(env, file, out, true, &records, &f);
	sqllog_file_close(&f);
	return result;
}

int show_verify(struct env *env, const char *file, struct buf *out)
{
	struct sqllog_file f = { 0 };
	uint64_t records = 0;
	int result = walk(env, file, out, false, &records, &f);
	if (result >= 0 && records)
		buf_addf(out, "%s: %llu sound records, lsn %llu to %llu, %llu bytes\n", file,
			 (unsigned long long)records, (unsigned long long)f.first, (unsigned long long)f.last,
			 (unsigned long long)sqllog_file_at(&f));
	else if (!result)
		buf_addf(out, "%s: sound, no records\n", file);
	sqllog_file_close(&f);
	return result;
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

/* What dbwriter noted in the folder; 0: nothing. */
static struct position noted(struct env *env, const char *folder)
{
	char path[ENV_PATH_MAX], *text;
	unsigned long long lsn = 0, epoch = 0;
	size_t n;
	snprintf(path, sizeof path, "%s/replayed", folder);
	if (env_file_load(env, path, 4096, &text, &n) < 0)
		return (struct position){ 0 };
	bool known = sscanf(text, "lsn=%llu epoch=%llu", &lsn, &epoch) == 2;
	free(text);
	return known ? (struct position){ epoch, lsn } : (struct position){ 0 };
}

/* A later epoch at numbers that have landed uses them anew, after a power cut: then there is one at least. */
static uint64_t lag_of(struct position last, struct position landed)
{
	return last.lsn > landed.lsn ? last.lsn - landed.lsn : last.epoch > landed.epoch;
}

static int add_status(struct env *env, const char *folder, const char *name, const struct show_position *positions,
		      size_t n, struct buf *out)
{
	char path[ENV_PATH_MAX - 32];
	const struct show_position *p = NULL;
	if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
		return 0;
	struct position last = follow_last(env, path), landed = { 0 };
	for (size_t i = 0; positions && i < n; i++)
		if (!strcmp(positions[i].instance, name))
			p = &positions[i];
	if (!positions)
		landed = noted(env, path);
	else if (p)
		landed = (struct position){ p->epoch, p->lsn };
	uint64_t lag = lag_of(last, landed);
	buf_addf(out, "%-20s %12llu %12llu %10llu\n", name, (unsigned long long)last.lsn,
		 (unsigned long long)landed.lsn, (unsigned long long)lag);
	return lag > 0;
}

/* What was refused is behind its position: no lag tells of it. */
static int add_refused(struct env *env, const char *folder, struct buf *out)
{
	char path[ENV_PATH_MAX];
	int n = snprintf(path, sizeof path, "%s/quarantine.sql", folder);
	uint64_t refused = n < ENV_PATH_MAX ? quarantine_count(env, path) : 0;
	if (refused)
		buf_addf(
			out,
			"%llu records that the database refused are in %s: mend the cause, then dbwriter --quarantine\n",
			(unsigned long long)refused, path);
	return refused > 0;
}

int show_status(struct env *env, const char *folder, const struct show_position *positions, size_t n, struct buf *out)
{
	char **names;
	size_t count;
	int behind = 0, err = env_dir_list(env, folder, &names, &count);
	if (err < 0)
		return cannot(out, folder, err);
	buf_addf(out, "%-20s %12s %12s %10s\n", "instance", "in the log", positions ? "landed" : "landed about", "lag");
	for (size_t i = 0; i < count; i++) {
		if (!strchr(names[i], '.'))
			behind |= add_status(env, folder, names[i], positions, n, out);
		free(names[i]);
	}
	free(names);
	return behind | add_refused(env, folder, out);
}
