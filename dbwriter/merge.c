#include "dbwriter/merge.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/err.h"

static int cannot(struct merge *m, const char *path, int err)
{
	snprintf(m->why, sizeof m->why, "%s cannot be read: %s", path,
		 err == ERR_IO          ? env_last_error()
		 : err == ERR_NOT_FOUND ? "there is no such file or folder"
					: err_text(err));
	return err;
}

static int wrong(struct merge *m, const char *path, const char *why)
{
	snprintf(m->why, sizeof m->why, "%s: %s", path, why);
	return ERR_BAD_REQUEST;
}

/* ---- sources ------------------------------------------------------------------------------------------------------ */

static struct merge_log *add(struct merge *m, const char *folder)
{
	struct merge_log *all = realloc(m->log, (m->n + 1) * sizeof *all);
	if (!all)
		return NULL;
	m->log = all;
	struct merge_log *l = &m->log[m->n++];
	size_t n = strlen(folder);
	while (n > 1 && folder[n - 1] == '/')
		n--;
	const char *slash = memrchr(folder, '/', n), *name = slash ? slash + 1 : folder;
	memset(l, 0, sizeof *l);
	snprintf(l->folder, sizeof l->folder, "%.*s", (int)n, folder);
	snprintf(l->name, sizeof l->name, "%.*s", (int)(n - (size_t)(name - folder)), name);
	while (l->log < m->n - 1 && strcmp(m->log[l->log].name, l->name))
		l->log++;
	return l;
}

/* Whose positions would these be? */
static int has_name(struct merge *m, const struct merge_log *l, const char *path)
{
	return strcmp(l->name, ".") && strcmp(l->name, "..")
		       ? 0
		       : wrong(m, path, "name it by the instance's own folder: var/sqllog/role-1");
}

static int add_file(struct merge *m, const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char folder[ENV_PATH_MAX] = ".", ours[32];
	if (slash)
		snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
	uint32_t number = (uint32_t)strtoul(name, NULL, 10);
	snprintf(ours, sizeof ours, "%08u.sql", number);
	if (!number || strcmp(name, ours))
		return wrong(m, path, "no name of a log's file: NNNNNNNN.sql");
	struct merge_log *l = add(m, folder);
	if (!l || !(l->number = malloc(sizeof *l->number)))
		return ERR_NOMEM;
	l->number[0] = number;
	l->n = 1;
	l->plain = true;
	return has_name(m, l, path);
}

/* 1: it is the folder of an instance */
static int add_instance(struct merge *m, const char *folder)
{
	uint32_t *numbers;
	size_t n;
	int err = sqllog_list(m->env, folder, &numbers, &n);
	if (err < 0)
		return err;
	struct merge_log *l = n ? add(m, folder) : NULL;
	if (!l) {
		free(numbers);
		return n ? ERR_NOMEM : 0;
	}
	l->number = numbers;
	l->n = n;
	return (err = has_name(m, l, folder)) < 0 ? err : 1;
}

static int add_source(struct merge *m, const char *path)
{
	size_t n = strlen(path), count;
	char **names;
	if (n > 4 && !strcmp(path + n - 4, ".sql"))
		return add_file(m, path);
	int err = add_instance(m, path);
	if (err)
		return err == ERR_BAD_REQUEST ? err : err < 0 ? cannot(m, path, err) : 0;
	if ((err = env_dir_list(m->env, path, &names, &count)) < 0)
		return cannot(m, path, err);
	for (size_t i = 0; i < count; i++) {
		char folder[ENV_PATH_MAX];
		if (!strchr(names[i], '.') &&
		    (size_t)snprintf(folder, sizeof folder, "%s/%s", path, names[i]) < sizeof folder - 80)
			(void)add_instance(m, folder);
		free(names[i]);
	}
	free(names);
	return 0;
}

int merge_open(struct merge *m, struct env *env, const char *const *from, unsigned n)
{
	*m = (struct merge){ .env = env };
	for (unsigned i = 0; i < n; i++) {
		int err = add_source(m, from[i]);
		if (err < 0)
			return err;
	}
	if (m->n)
		return 0;
	snprintf(m->why, sizeof m->why, "%s holds no SQL log", n ? from[0] : "nothing");
	return ERR_NOT_FOUND;
}

void merge_release(struct merge *m)
{
	for (unsigned i = 0; i < m->n; i++) {
		sqllog_file_close(&m->log[i].file);
		free(m->log[i].number);
	}
	free(m->log);
	m->log = NULL;
	m->n = 0;
}

/* ---- records --------------------------------------------------------------------------------------------------------- */

/* A bad spot ends a file; whether something is missing then, the next record's number tells. */
static int ended(struct merge *m, struct merge_log *l, int end, const char *why)
{
	int behind = end ? sqllog_file_behind(&l->file) : 0;
	bool foreign = end && !behind && sqllog_file_foreign(&l->file, true);
	unsigned long long at = sqllog_file_at(&l->file);
	uint32_t number = l->number[l->next];
	sqllog_file_close(&l->file);
	l->next++;
	if (end == ERR_NEWER)
		snprintf(m->why, sizeof m->why, "%s/%08u.sql: offset %llu: %s: this program is too old", l->folder,
			 number, at, why);
	else if (foreign)
		snprintf(m->why, sizeof m->why, "%s/%08u.sql is no file of a log (%s): move it away", l->folder, number,
			 why);
	else if (behind > 0 && l->next == l->n)
		snprintf(m->why, sizeof m->why, "%s/%08u.sql is damaged at offset %llu: %s", l->folder, number, at,
			 end == ERR_INCOMPLETE ? "the record is cut off" : why);
	else
		return 0;
	return end == ERR_NEWER ? end : ERR_CORRUPT;
}

/* Whether it comes behind what came of its log; of a file alone the first is no matter where it stands. */
static bool is_new(struct merge *m, struct merge_log *l)
{
	const struct sqllog_record *r = &l->record;
	struct position at = { r->epoch, r->lsn }, *last = &m->log[l->log].last;
	if (last->lsn && position_compare(at, *last) <= 0)
		return false;
	l->missing = r->lsn > last->lsn + 1 || (last->lsn && r->epoch != last->epoch &&
						!sqllog_is_first(m->env, l->folder, last->epoch, r, true));
	if (l->plain && !last->lsn)
		l->missing = false;
	*last = at;
	return true;
}

static int advance(struct merge *m, struct merge_log *l)
{
	char path[ENV_PATH_MAX], why[80] = "";
	int got;
	while (!l->there && l->next < l->n) {
		sqllog_path(path, l->folder, l->number[l->next], "sql");
		if (!l->file.f && (got = sqllog_file_open(&l->file, m->env, path)) < 0) {
			if (got != ERR_NOT_FOUND || l->plain)
				return cannot(m, path, got);
			l->next++; /* it was removed, being old */
			continue;
		}
		if ((got = sqllog_file_next(&l->file, &l->record, why, sizeof why)) == 1)
			l->there = true;
		else if (got == ERR_IO)
			return cannot(m, path, got);
		else if ((got = ended(m, l, got, why)) < 0)
			return got;
	}
	return 0;
}

/* Of one time, a log's and its copies' in their order. */
static bool is_earlier(const struct merge_log *l, const struct merge_log *than)
{
	const struct sqllog_record *a = &l->record, *b = &than->record;
	return a->time_us < b->time_us || (a->time_us == b->time_us && l->log == than->log && a->lsn < b->lsn);
}

/* 1: the log whose record is the next in time; 0: no more */
static int earliest(struct merge *m, struct merge_log **out)
{
	struct merge_log *first = NULL;
	for (unsigned i = 0; i < m->n; i++) {
		struct merge_log *l = &m->log[i];
		int err = advance(m, l);
		if (err < 0)
			return err;
		if (l->there && (!first || is_earlier(l, first)))
			first = l;
	}
	*out = first;
	return first != NULL;
}

int merge_next(struct merge *m, struct sqllog_record *out, const struct merge_log **where)
{
	struct merge_log *l;
	int got;
	while ((got = earliest(m, &l)) == 1) {
		l->there = false;
		if (!is_new(m, l))
			continue;
		*out = l->record;
		*where = l;
		return 1;
	}
	return got;
}

bool merge_time(const char *text, uint64_t *us)
{
	struct tm t = { 0 };
	char *end;
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	unsigned long long plain = strtoull(text, &end, 10);
	if (!*end) {
		*us = errno ? *us : plain;
		return !errno;
	}
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &t);
	if (!rest)
		return false;
	uint64_t part = 0, unit = 100000;
	if (*rest == '.')
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
			part += (uint64_t)(*rest - '0') * unit;
	const int day = t.tm_mday;
	time_t s = timegm(&t);
	if ((*rest && strcmp(rest, "Z")) || s < 0 || t.tm_mday != day) /* there is no February 30 */
		return false;
	*us = (uint64_t)s * 1000000 + part;
	return true;
}
