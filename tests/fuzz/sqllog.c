/*
 * Any bytes as a file of the SQL log, and as values of a statement: what the reader takes is whole and inside its input;
 * a record made of any values reads back as it was, and its text cannot leave its quotes.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/sqllog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_file(const char *p, size_t n)
{
	struct sqllog_record r;
	char why[80];
	size_t at = 0, bytes, next = 0;
	unsigned count;
	const char *key;
	ssize_t got, found = sqllog_find(p, n, 0);
	while ((got = sqllog_read(p + at, n - at, &r, why, sizeof why)) > 0) {
		assert((size_t)got == r.bytes && at + r.bytes <= n);
		assert(!r.lsn || (found >= 0 && (size_t)found <= at));
		for (next = 0; r.lsn && sqllog_key_next(&r, &next, &key, &bytes);)
			assert(key >= p && key + bytes <= p + n);
		assert(!r.lsn || sqllog_statements(&r, &bytes, &count) + bytes <= p + n);
		at += r.bytes;
	}
	assert(got == ERR_CORRUPT || got == ERR_INCOMPLETE || got == ERR_NEWER);
}

/* The checksum is right wherever a comment line has room for one: so that what stands behind it is looked at, too. */
static void mend(char *p, size_t n)
{
	static const char mark[] = "-- loquat ";
	char *end = p + n, *line = p, *crc, *len, *newline;
	for (; (line = memmem(line, (size_t)(end - line), mark, sizeof mark - 1)); line++) {
		newline = memchr(line, '\n', (size_t)(end - line));
		if (!newline || newline - line < 13 || memcmp(crc = newline - 13, " crc=", 5))
			continue;
		*newline = '\0';
		len = strstr(line, " len=");
		size_t body = len ? strtoul(len + 5, NULL, 10) : 0;
		*newline = '\n';
		if (!len || body > (size_t)(end - newline - 1))
			continue;
		char digits[9];
		snprintf(digits, sizeof digits, "%08x",
			 crc32c(crc32c(0, line, (size_t)(crc - line)), newline + 1, body));
		memcpy(newline - 8, digits, 8);
	}
}

static void read_mended(const char *p, size_t n)
{
	char *copy = malloc(n + 1);
	memcpy(copy, p, n);
	copy[n] = '\0';
	mend(copy, n);
	read_file(copy, n);
	free(copy);
}

/* Reads a quoted literal back; returns its end. */
static const char *unquote(const char *p, struct buf *out)
{
	static const char from[] = "0nr\\'\"Z", to[] = "\0\n\r\\'\"\x1a";
	assert(*p++ == '\'');
	for (; *p != '\''; p++) {
		const char *code = *p == '\\' ? strchr(from, *++p) : NULL;
		assert(code || p[0] != '\\');
		buf_addch(out, code ? to[code - from] : *p);
	}
	return p + 1;
}

static void write_record(const char *p, size_t n)
{
	struct sql_record r;
	struct buf back = BUF_INIT, file = BUF_INIT;
	struct sql_value v[] = { { .type = SQL_TEXT, .s = { p, n } }, { .type = SQL_BLOB, .s = { p, n } } };
	char why[200], head[SQLLOG_HEAD_MAX];
	sql_record_init(&r);
	if (sql_record_add(&r, "UPDATE a SET b = ?, c = ?", v, 2, why, sizeof why) == 0) {
		const char *text = strchr(buf_cstr(&r.body), '\'');
		assert(!strncmp(unquote(text, &back), ", c = x'", 8));
		assert(back.len == n && (!n || !memcmp(back.data, p, n)));
		buf_addstr(&r.body, "COMMIT;\n");
		struct sqllog_record made = { .lsn = 1,
					      .epoch = 1,
					      .keys = "",
					      .body = r.body.data,
					      .body_bytes = r.body.len },
				     got;
		buf_add(&file, head, sqllog_head(head, &made));
		buf_add(&file, r.body.data, r.body.len);
		assert(sqllog_read(file.data, file.len, &got, why, sizeof why) == (ssize_t)file.len);
		assert(got.body_bytes == r.body.len);
	}
	sql_record_release(&r);
	buf_release(&back);
	buf_release(&file);
}

/* The input as a statement: refused, or a line without a quote of its own. */
static void write_statement(const char *p, size_t n)
{
	struct sql_record r;
	char why[200], *sql = strndup(p, n);
	sql_record_init(&r);
	if (sql_record_add(&r, sql, NULL, 0, why, sizeof why) == 0)
		assert(!memchr(r.body.data + 7, '\'', r.body.len - 7) && !strstr(sql, "--") && !strchr(sql, ';'));
	if (*sql)
		(void)sql_record_key(&r, sql);
	assert(!strchr(r.keys, ' ') && !strchr(r.keys, '\n') && strlen(r.keys) == r.keys_bytes);
	sql_record_release(&r);
	free(sql);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const char *p = n ? (const char *)data : "";
	read_file(p, n);
	read_mended(p, n);
	write_record(p, n);
	write_statement(p, n);
	return 0;
}
