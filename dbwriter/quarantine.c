#include "dbwriter/quarantine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

#define FILE_BYTES_MAX (256u << 20)

static void describe(const struct quarantine_note *note, const struct sqllog_record *r, struct buf *out)
{
	buf_addf(out, "-- quarantine instance=%s epoch=%llu lsn=%llu file=%08u.sql error=%u message=", note->instance,
		 (unsigned long long)r->epoch, (unsigned long long)r->lsn, note->file, note->code);
	for (const char *p = note->message; *p; p++)
		buf_addch(out, (unsigned char)*p < ' ' ? ' ' : *p);
	buf_addch(out, '\n');
	buf_add(out, r->body + r->body_bytes - r->bytes, r->bytes);
}

int quarantine_add(struct env *env, const char *path, const struct quarantine_note *note, const struct sqllog_record *r)
{
	struct env_file *f;
	struct buf text = BUF_INIT;
	int err = env_file_open(env, path, ENV_READ | ENV_WRITE | ENV_CREATE, &f);
	if (err < 0)
		return err;
	if (env_file_size(f) == 0)
		buf_addstr(&text, "SET NAMES utf8mb4;\n");
	describe(note, r, &text);
	err = env_file_append(f, text.data, text.len);
	if (!err)
		err = env_file_sync(f);
	env_file_close(f);
	buf_release(&text);
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

void held_load(struct held_keys *h, struct env *env, const char *path, const char *instance)
{
	char mark[120], why[80], *text;
	struct sqllog_record r;
	size_t n;
	buf_clear(&h->text);
	if (env_file_load(env, path, FILE_BYTES_MAX, &text, &n) < 0)
		return;
	snprintf(mark, sizeof mark, "-- quarantine instance=%s ", instance);
	for (const char *p = text; (p = strstr(p, mark)) && (p = strchr(p, '\n')); p++)
		if (sqllog_read(p + 1, n - (size_t)(p + 1 - text), &r, why, sizeof why) > 0 && r.lsn)
			held_add(h, &r);
	free(text);
}
