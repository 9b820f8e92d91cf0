#include "dbwriter/quarantine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

#define FILE_BYTES_MAX (SIZE_MAX / 4) /* a night of refusals is kept, and landed again */
#define READ_BYTES     (1u << 20)

static void describe(const struct quarantine_note *note, const struct sqllog_record *r, struct buf *out)
{
	buf_addf(out, "-- quarantine instance=%s epoch=%llu lsn=%llu file=%08u.sql error=%u message=", note->instance,
		 (unsigned long long)r->epoch, (unsigned long long)r->lsn, note->file, note->code);
	for (const char *p = note->message; *p; p++)
		buf_addch(out, (unsigned char)*p < ' ' ? ' ' : *p);
	buf_addch(out, '\n');
	buf_add(out, r->body + r->body_bytes - r->bytes, r->bytes);
}

/* Beside the file, which is written anew now and then: a byte longer each time. */
static void lock_name(char name[ENV_PATH_MAX], const char *path)
{
	snprintf(name, ENV_PATH_MAX, "%.500s.lock", path);
}

static int lock(struct env *env, const char *path, struct env_file **out)
{
	char name[ENV_PATH_MAX];
	lock_name(name, path);
	int err = env_file_open(env, name, ENV_WRITE | ENV_CREATE, out);
	if (err < 0)
		return err;
	if ((err = env_file_lock(*out)) < 0)
		env_file_close(*out);
	return err;
}

/* ---- what was taken out ---------------------------------------------------------------------------------------- */

static int64_t bytes_of(struct env *env, const char *path)
{
	struct env_file *f;
	if (env_file_open(env, path, ENV_READ, &f) < 0)
		return 0;
	int64_t bytes = env_file_size(f);
	env_file_close(f);
	return bytes;
}

void quarantine_see(struct env *env, const char *path, struct quarantine_seen *out)
{
	char name[ENV_PATH_MAX];
	lock_name(name, path);
	out->taken = bytes_of(env, name);
	out->bytes = bytes_of(env, path);
}

bool quarantine_was_taken(const struct quarantine_seen *before, const struct quarantine_seen *now)
{
	return now->taken != before->taken || now->bytes < before->bytes;
}

/* ---- a torn end ------------------------------------------------------------------------------------------------ */

static const char first_line[] = "SET NAMES utf8mb4;\n", entry_mark[] = "-- quarantine instance=";

static const char *last_line(const char *text, size_t n)
{
	const char *newline = n ? memrchr(text, '\n', n) : NULL;
	return newline ? newline + 1 : text;
}

/* The next one from p on; NULL: none. Zeroes in between do not end the text. */
static const char *find(const char *p, const char *end, const char *mark)
{
	return p < end ? memmem(p, (size_t)(end - p), mark, strlen(mark)) : NULL;
}

/* The line is the beginning of what, or goes on behind it. */
static bool begins_with(const char *line, const char *what)
{
	size_t has = strlen(line), n = strlen(what);
	return has && !strncmp(line, what, has < n ? has : n);
}

/*
 * Where the whole entries end. A record that is there, in whichever form, is whole; so is what a person wrote behind it. Zeroes
 * are in no text: a sector leaves them that was never written, so the last entry ends there; those before it stay.
 */
static size_t whole_bytes(const char *text, size_t n)
{
	const char *line, *entry = NULL, *newline;
	struct sqllog_record r;
	char why[80];
	for (const char *p = text; (p = find(p, text + n, entry_mark)); p++)
		entry = p;
	size_t before = entry ? (size_t)(entry - text) : 0;
	n = before + strnlen(text + before, n - before);
	line = last_line(text, n);
	newline = entry ? strchr(entry, '\n') : NULL;
	if (newline &&
	    sqllog_read(newline + 1, (size_t)(text + n - newline - 1), &r, why, sizeof why) == ERR_INCOMPLETE)
		return (size_t)(entry - text);
	if (begins_with(line, line == text ? first_line : entry_mark))
		return (size_t)(line - text);
	return n;
}

static int put_aside(struct env *env, const char *path, const char *text, size_t n)
{
	char name[ENV_PATH_MAX];
	struct env_file *f;
	snprintf(name, sizeof name, "%.500s.torn", path);
	int err = env_file_open(env, name, ENV_WRITE | ENV_CREATE, &f);
	if (err < 0)
		return err;
	err = env_file_append(f, text, n);
	if (!err)
		err = env_file_append(f, "\n", 1);
	if (!err)
		err = env_file_sync(f);
	env_file_close(f);
	return err;
}

/* A power cut or a full disk leaves an entry cut off; its record is refused anew, and nothing must be glued to it. */
static int mend_end(struct env *env, const char *path, struct env_file *f)
{
	char end[8], *text;
	size_t n, whole;
	int64_t size = env_file_size(f);
	if (size < 1 ||
	    (size >= 8 && env_file_read(f, (uint64_t)size - 8, end, 8) == 8 && !memcmp(end, "COMMIT;\n", 8)))
		return 0;
	int err = env_file_load(env, path, FILE_BYTES_MAX, &text, &n);
	if (err < 0)
		return err;
	whole = whole_bytes(text, n);
	if (whole < n)
		err = put_aside(env, path, text + whole, n - whole);
	if (!err && whole < n)
		err = env_file_truncate(f, whole);
	else if (!err && n && text[n - 1] != '\n')
		err = env_file_append(f, "\n", 1);
	free(text);
	return err;
}

/* A file that was just made has its name only in memory. */
static int sync_name(struct env *env, const char *path)
{
	char folder[ENV_PATH_MAX] = ".";
	const char *slash = strrchr(path, '/');
	if (slash)
		snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
	return env_dir_sync(env, folder);
}

/* ---- adding ---------------------------------------------------------------------------------------------------- */

static int add(struct env *env, const char *path, struct buf *text, const struct quarantine_note *note,
	       const struct sqllog_record *r)
{
	struct env_file *f;
	int err = env_file_open(env, path, ENV_READ | ENV_WRITE | ENV_CREATE, &f);
	if (err < 0)
		return err;
	err = mend_end(env, path, f);
	if (env_file_size(f) == 0) {
		buf_addstr(text, first_line);
		err = err < 0 ? err : sync_name(env, path);
	}
	describe(note, r, text);
	if (!err)
		err = env_file_append(f, text->data, text->len);
	if (!err)
		err = env_file_sync(f);
	env_file_close(f);
	return err;
}

int quarantine_add(struct env *env, const char *path, const struct quarantine_note *note, const struct sqllog_record *r)
{
	struct env_file *locked;
	struct quarantine_seen now;
	struct buf text = BUF_INIT;
	int err = lock(env, path, &locked);
	if (err < 0)
		return err;
	quarantine_see(env, path, &now);
	err = note->seen && quarantine_was_taken(note->seen, &now) ? ERR_BUSY : add(env, path, &text, note, r);
	env_file_close(locked);
	buf_release(&text);
	return err;
}

/* ---- the file as a whole ---------------------------------------------------------------------------------------- */

static int add_entry(struct quarantine *q, const char *text, size_t n, char *why, size_t why_size)
{
	struct quarantine_entry *all = realloc(q->entry, (q->n + 1) * sizeof *all), *e;
	const char *newline = memchr(text, '\n', n);
	char reason[80] = "it is cut off";
	if (!all)
		return ERR_NOMEM;
	q->entry = all;
	e = &q->entry[q->n];
	memset(e, 0, sizeof *e);
	size_t head = newline ? (size_t)(newline + 1 - text) : n;
	ssize_t got = sqllog_read(text + head, n - head, &e->record, reason, sizeof reason);
	if (got <= 0 || !e->record.lsn) {
		snprintf(why, why_size, "%s: the record behind byte %zu cannot be read: %s", q->path,
			 (size_t)(text - q->text), reason);
		return ERR_CORRUPT;
	}
	const char *name = text + sizeof entry_mark - 1;
	snprintf(e->instance, sizeof e->instance, "%.*s", (int)strcspn(name, " \n"), name);
	e->text = text;
	e->bytes = head + (size_t)got;
	q->n++;
	return 0;
}

int quarantine_open(struct quarantine *q, struct env *env, const char *path, char *why, size_t why_size)
{
	size_t n;
	*q = (struct quarantine){ .env = env };
	snprintf(q->path, sizeof q->path, "%s", path);
	int err = lock(env, path, &q->lock);
	if (err < 0) {
		q->lock = NULL;
		snprintf(why, why_size, "%s: %s", path, err == ERR_BUSY ? "another works on it" : env_last_error());
		return err;
	}
	err = env_file_load(env, path, FILE_BYTES_MAX, &q->text, &n);
	if (err == ERR_NOT_FOUND)
		return 0;
	if (err < 0)
		snprintf(why, why_size, "%s cannot be read: %s", path,
			 err == ERR_IO ? env_last_error() : err_text(err));
	if (!err && strlen(q->text) < n) {
		snprintf(why, why_size,
			 "%s: zeroes behind byte %zu, where text was lost: look what it was, and cut them out", path,
			 strlen(q->text));
		err = ERR_CORRUPT;
	}
	for (const char *p = q->text; !err && (p = strstr(p, entry_mark));) {
		err = add_entry(q, p, n - (size_t)(p - q->text), why, why_size);
		p += err ? 0 : q->entry[q->n - 1].bytes;
	}
	if (err < 0)
		quarantine_close(q);
	return err;
}

/* ---- a look at it, however large it has become -------------------------------------------------------------------- */

/* text: an entry from its mark on, n bytes of what follows it. False: more of that is wanted, if there is. */
typedef bool entry_fn(void *arg, const char *text, size_t n, bool begins_a_line);

static void each_entry(struct env *env, const char *path, entry_fn *fn, void *arg)
{
	const size_t part = sizeof entry_mark - 2; /* of a mark, whose rest is not read yet */
	struct env_file *f;
	struct buf b = BUF_INIT;
	uint64_t offset = 0; /* of b in the file */
	size_t from = 0;     /* in b: what is not looked at */
	ssize_t got;
	if (env_file_open(env, path, ENV_READ, &f) < 0)
		return;
	do {
		got = env_file_read(f, offset + b.len, buf_reserve(&b, READ_BYTES), READ_BYTES);
		b.len += got > 0 ? (size_t)got : 0;
		const char *p, *end = b.data + b.len;
		while ((p = find(b.data + from, end, entry_mark))) {
			from = (size_t)(p - b.data);
			if (!fn(arg, p, (size_t)(end - p), p == b.data || p[-1] == '\n') && got > 0)
				break;
			from++;
		}
		if (!p && b.len > from + part)
			from = b.len - part;
		size_t drop = from ? from - 1 : 0; /* the byte before it tells whether a line begins */
		buf_consume(&b, drop);
		offset += drop;
		from -= drop;
	} while (got > 0);
	env_file_close(f);
	buf_release(&b);
}

static bool count_one(void *arg, const char *text, size_t n, bool begins_a_line)
{
	(void)text;
	(void)n;
	*(uint64_t *)arg += begins_a_line;
	return true;
}

uint64_t quarantine_count(struct env *env, const char *path)
{
	uint64_t count = 0;
	each_entry(env, path, count_one, &count);
	return count;
}

int quarantine_rewrite(struct quarantine *q)
{
	struct buf text = BUF_INIT;
	int err;
	for (size_t i = 0; i < q->n; i++)
		if (!q->entry[i].landed) {
			if (!text.len)
				buf_addstr(&text, first_line);
			buf_add(&text, q->entry[i].text, q->entry[i].bytes);
		}
	if (text.len)
		err = env_file_store(q->env, q->path, text.data, text.len, 0);
	else
		err = env_file_remove(q->env, q->path);
	if (!err)
		(void)env_file_append(q->lock, ".", 1); /* last: who counts first and reads then misses nothing */
	buf_release(&text);
	return err;
}

void quarantine_close(struct quarantine *q)
{
	env_file_close(q->lock);
	free(q->text);
	free(q->entry);
	*q = (struct quarantine){ .n = 0 };
}

/* ---- what is read from the log again --------------------------------------------------------------------------- */

struct behind {
	const char *instance;
	uint64_t epoch, lsn;
	bool any;
};

static bool is_behind(const struct behind *b, const char *instance, uint64_t epoch, uint64_t lsn)
{
	return !strcmp(instance, b->instance) && (epoch > b->epoch || (epoch == b->epoch && lsn > b->lsn));
}

static bool look_behind(void *arg, const char *text, size_t n, bool begins_a_line)
{
	struct behind *b = arg;
	char line[200], instance[64];
	unsigned long long epoch, lsn;
	(void)begins_a_line;
	if (n < sizeof line && !memchr(text, '\n', n))
		return false;
	snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), text);
	if (sscanf(line, "-- quarantine instance=%63s epoch=%llu lsn=%llu ", instance, &epoch, &lsn) == 3)
		b->any |= is_behind(b, instance, epoch, lsn);
	return true;
}

int quarantine_take_behind(struct env *env, const char *path, const char *instance, uint64_t epoch, uint64_t lsn)
{
	struct behind b = { instance, epoch, lsn, false };
	struct quarantine q;
	char why[300];
	each_entry(env, path, look_behind, &b);
	int err = b.any ? quarantine_open(&q, env, path, why, sizeof why) : 0;
	if (!b.any || err < 0)
		return err;
	for (size_t i = 0; i < q.n && !err; i++) {
		struct quarantine_entry *e = &q.entry[i];
		e->landed = is_behind(&b, e->instance, e->record.epoch, e->record.lsn);
		err = e->landed ? put_aside(env, path, e->text, e->bytes) : 0;
	}
	err = err < 0 ? err : quarantine_rewrite(&q);
	quarantine_close(&q);
	return err;
}

/* ---- held keys ------------------------------------------------------------------------------------------------ */

void held_release(struct held_keys *h)
{
	buf_release(&h->text);
}

static bool holds(const struct held_keys *h, const char *key, size_t n)
{
	char line[SQLLOG_KEY_MAX + 2];
	if (!h->text.len)
		return false;
	line[0] = line[n + 1] = '\n';
	memcpy(line + 1, key, n);
	return memmem(h->text.data, h->text.len, line, n + 2);
}

void held_add(struct held_keys *h, const struct sqllog_record *r)
{
	const char *key;
	size_t at = 0, n;
	while (sqllog_key_next(r, &at, &key, &n)) {
		if (holds(h, key, n))
			continue;
		if (!h->text.len)
			buf_addch(&h->text, '\n');
		buf_add(&h->text, key, n);
		buf_addch(&h->text, '\n');
	}
}

bool held_any(const struct held_keys *h, const struct sqllog_record *r)
{
	const char *key;
	size_t at = 0, n;
	while (h->text.len && sqllog_key_next(r, &at, &key, &n))
		if (holds(h, key, n))
			return true;
	return false;
}

static bool hold_one(void *arg, const char *text, size_t n, bool begins_a_line)
{
	const char *newline = memchr(text, '\n', n);
	struct sqllog_record r;
	char why[80];
	(void)begins_a_line;
	if (!newline)
		return n > READ_BYTES; /* no line of ours is so long */
	ssize_t got = sqllog_read(newline + 1, n - (size_t)(newline + 1 - text), &r, why, sizeof why);
	if (got > 0 && r.lsn)
		held_add(arg, &r);
	return got != ERR_INCOMPLETE;
}

void held_load(struct held_keys *h, struct env *env, const char *path)
{
	buf_clear(&h->text);
	each_entry(env, path, hold_one, h);
}
