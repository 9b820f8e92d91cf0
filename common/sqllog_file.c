#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/err.h"
#include "common/sqllog_private.h"
/*
 * Files of records on disk: reading one in order, and finding which there are.
 */

#define CHUNK    (256u << 10)
#define NOTE_MAX (1u << 20)

int sqllog_file_open(struct sqllog_file *s, struct env *env, const char *path)
{
	struct env_file *f;
	int err = env_file_open(env, path, ENV_READ, &f);
	if (err < 0)
		return err;
	*s = (struct sqllog_file){ .f = f };
	return 0;
}

void sqllog_file_close(struct sqllog_file *s)
{
	env_file_close(s->f);
	buf_release(&s->buf);
	memset(s, 0, sizeof *s);
}

uint64_t sqllog_file_at(const struct sqllog_file *s)
{
	return s->offset + s->at;
}

/* Drops what was read and not taken: the file may have changed there when we look again. */
static int forget(struct sqllog_file *s, int result)
{
	s->offset += s->at;
	s->at = 0;
	buf_clear(&s->buf);
	return result;
}

static ssize_t refill(struct sqllog_file *s)
{
	buf_consume(&s->buf, s->at);
	s->offset += s->at;
	s->at = 0;
	ssize_t got = env_file_read(s->f, s->offset + s->buf.len, buf_reserve(&s->buf, CHUNK), CHUNK);
	if (got > 0)
		s->buf.len += (size_t)got;
	return got;
}

static bool accept(struct sqllog_file *s, const struct sqllog_record *r)
{
	if (!s->first)
		s->first = r->lsn;
	s->last = r->lsn;
	return true;
}

int sqllog_file_next(struct sqllog_file *s, struct sqllog_record *out, char *why, size_t why_size)
{
	for (;;) {
		struct sqllog_record r;
		size_t left = s->buf.len - s->at;
		ssize_t n = left ? sqllog_read(s->buf.data + s->at, left, &r, why, why_size) : ERR_INCOMPLETE;
		if (n > 0 && !r.lsn && sqllog_file_at(s)) {
			snprintf(why, why_size, "the first line of a file in the middle of one");
			n = ERR_CORRUPT;
		}
		if (n > 0) {
			s->at += (size_t)n;
			if (!r.lsn)
				continue;
			*out = r;
			return accept(s, &r);
		}
		if (n != ERR_INCOMPLETE)
			return forget(s, (int)n);
		ssize_t got = refill(s);
		if (got < 0)
			return forget(s, (int)got);
		if (!got)
			return forget(s, s->buf.len ? ERR_INCOMPLETE : 0);
	}
}

int sqllog_file_behind(struct sqllog_file *s)
{
	const size_t window = SQLLOG_RECORD_MAX + SQLLOG_HEAD_MAX;
	struct buf b = BUF_INIT;
	uint64_t offset = sqllog_file_at(s);
	ssize_t got, found = -1;
	while (found < 0) {
		got = env_file_read(s->f, offset + b.len, buf_reserve(&b, window), window);
		if (got <= 0)
			break;
		b.len += (size_t)got;
		found = sqllog_find(b.data, b.len, 0);
		/* A record that begins in what is dropped lies whole in what was just searched. */
		if (found < 0 && b.len > window) {
			offset += b.len - window;
			buf_consume(&b, b.len - window);
		}
	}
	buf_release(&b);
	return found >= 0 ? 1 : (int)got;
}

/* ---- names -------------------------------------------------------------------------------------------------- */

void sqllog_path(char out[ENV_PATH_MAX], const char *folder, uint32_t number, const char *suffix)
{
	int n = snprintf(out, ENV_PATH_MAX, "%s/%08u.%s", folder, number, suffix);
	assert(n > 0 && n < ENV_PATH_MAX);
}

bool sqllog_file_foreign(struct sqllog_file *s, bool may_have_holes)
{
	static const char line[] = "SET NAMES", record[] = "-- loquat";
	char first[64] = "";
	ssize_t n = sqllog_file_at(s) ? 0 : env_file_read(s->f, 0, first, sizeof first), known = sizeof line - 1;
	if (may_have_holes && n < known) /* a letter or two are no text yet */
		return false;
	known = n < known ? n : known;
	if (n <= 0 || !first[0] || !memcmp(first, line, (size_t)known) || !memcmp(first, record, (size_t)known))
		return false;
	for (ssize_t i = 0; may_have_holes && i < n; i++) /* a power cut leaves anything, but no text of others */
		if ((first[i] < ' ' && !strchr("\t\r\n", first[i])) || first[i] == 127 || !first[i])
			return false;
	return true;
}

/* The number of a name NNNNNNNN.sql; 0: another file */
static uint32_t file_number(const char *name)
{
	uint64_t v = 0;
	const char *p = name;
	for (; *p >= '0' && *p <= '9' && p - name < 10; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	return p - name >= 8 && v <= UINT32_MAX && !strcmp(p, ".sql") ? (uint32_t)v : 0;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

int sqllog_list(struct env *env, const char *folder, uint32_t **numbers, size_t *n)
{
	char **names;
	size_t count, found = 0;
	int err = env_dir_list(env, folder, &names, &count);
	if (err < 0)
		return err;
	uint32_t *list = calloc(count + 1, sizeof *list);
	for (size_t i = 0; i < count; i++) {
		uint32_t number = file_number(names[i]);
		if (list && number)
			list[found++] = number;
		free(names[i]);
	}
	free(names);
	if (!list)
		return ERR_NOMEM;
	qsort(list, found, sizeof *list, by_number);
	*numbers = list;
	*n = found;
	return 0;
}

uint64_t sqllog_note_get(const char *text, const char *name, uint64_t otherwise)
{
	size_t n = strlen(name);
	for (const char *p = text; (p = strstr(p, name)); p += n)
		if (p[n] == '=' && (p == text || p[-1] == ' ' || p[-1] == '\n'))
			return strtoull(p + n + 1, NULL, 10);
	return otherwise;
}

/* ---- what the notes tell ------------------------------------------------------------------------------------ */

static char *load_note(struct env *env, const char *folder, const char *name)
{
	char path[ENV_PATH_MAX], *text;
	size_t n;
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return env_file_load(env, path, NOTE_MAX, &text, &n) < 0 ? NULL : text;
}

void sqllog_landed(struct env *env, const char *folder, uint64_t *epoch, uint64_t *lsn)
{
	char *text = load_note(env, folder, "replayed");
	*lsn = text ? sqllog_note_get(text, "lsn", 0) : 0;
	*epoch = text ? sqllog_note_get(text, "epoch", 0) : 0;
	free(text);
}

bool sqllog_began(struct env *env, const char *folder, uint64_t epoch, uint64_t lsn)
{
	char line[80], *text = load_note(env, folder, "epoch");
	snprintf(line, sizeof line, "epoch=%llu lsn=%llu ", (unsigned long long)epoch, (unsigned long long)lsn - 1);
	const char *found = text ? strstr(text, line) : NULL;
	bool began = found && (found == text || found[-1] == '\n');
	free(text);
	return began;
}

static bool is_later(uint64_t epoch, uint64_t lsn, uint64_t than_epoch, uint64_t than_lsn)
{
	return epoch > than_epoch || (epoch == than_epoch && lsn > than_lsn);
}

bool sqllog_is_first(struct env *env, const char *folder, uint64_t epoch, const struct sqllog_record *r, bool unnoted)
{
	char *text = load_note(env, folder, "epoch");
	bool first = unnoted;
	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		uint64_t began = sqllog_note_get(p, "epoch", 0);
		if (began <= epoch || began > r->epoch)
			continue;
		first = sqllog_note_get(p, "lsn", 0) + 1 >= r->lsn;
		if (!first)
			break;
	}
	free(text);
	return first;
}

bool sqllog_follows(struct env *env, const char *folder, uint64_t epoch, uint64_t lsn, const struct sqllog_record *r)
{
	uint64_t landed, landed_epoch;
	sqllog_landed(env, folder, &landed_epoch, &landed);
	if (is_later(landed_epoch, landed, epoch, lsn)) {
		epoch = landed_epoch;
		lsn = landed;
	}
	if (!is_later(r->epoch, r->lsn, epoch, lsn))
		return true;
	if (r->epoch == epoch || r->lsn > lsn + 1)
		return r->lsn == lsn + 1;
	return sqllog_is_first(env, folder, epoch, r, r->lsn == lsn + 1);
}
