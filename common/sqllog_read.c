#include <stdio.h>
#include "common/err.h"
#include "common/sqllog_private.h"
/*
 * The reader: bytes in, records out. It believes nothing that does not verify.
 */

static const char first_line[] = "SET NAMES utf8mb4;\n";
static const char mark[] = "-- loquat lsn=";
static const char comment[] = "-- loquat ";
static const char begin[] = "BEGIN;\n";
static const char commit[] = "COMMIT;\n";
static const char request[] = "-- request=";
#define LENGTH(text) (sizeof(text) - 1)

static ssize_t corrupt(char *why, size_t size, const char *what)
{
	if (size)
		snprintf(why, size, "%s", what);
	return ERR_CORRUPT;
}

/* Whether data, which is shorter than the text, could still become it. */
static bool begins(const char *data, size_t n, const char *text, size_t length)
{
	return !memcmp(data, text, n < length ? n : length);
}

/* ---- the comment line ---------------------------------------------------------------------------------- */

struct cursor {
	const char *p, *end;
};

static bool take_text(struct cursor *c, const char *text)
{
	size_t n = strlen(text);
	if ((size_t)(c->end - c->p) < n || memcmp(c->p, text, n))
		return false;
	c->p += n;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_number(struct cursor *c, unsigned base, uint64_t *out)
{
	const char *start = c->p;
	uint64_t v = 0;
	for (; c->p < c->end; c->p++) {
		unsigned digit = (unsigned)(unsigned char)*c->p - '0';
		if (digit > 9)
			digit = (unsigned)hex_digit(*c->p);
		if (digit >= base)
			break;
		if (__builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, digit, &v))
			return false;
	}
	*out = v;
	return c->p > start;
}

static bool take_keys(struct cursor *c, struct sqllog_record *r)
{
	r->keys = c->p;
	while (c->p < c->end && *c->p != ' ')
		c->p++;
	r->keys_bytes = (size_t)(c->p - r->keys);
	return r->keys_bytes < SQLLOG_KEY_MAX;
}

/* line without its newline; *covered: its bytes that the crc covers */
static bool parse_head(const char *line, size_t n, struct sqllog_record *r, uint64_t *body, uint64_t *crc,
		       size_t *covered)
{
	struct cursor c = { line, line + n };
	if (!take_text(&c, mark) || !take_number(&c, 10, &r->lsn) || !take_text(&c, " epoch=") ||
	    !take_number(&c, 10, &r->epoch) || !take_text(&c, " time=") || !take_number(&c, 10, &r->time_us) ||
	    !take_text(&c, " key=") || !take_keys(&c, r) || !take_text(&c, " trace=") ||
	    !take_number(&c, 16, &r->trace) || !take_text(&c, " len=") || !take_number(&c, 10, body))
		return false;
	*covered = (size_t)(c.p - line);
	return take_text(&c, " crc=") && c.end - c.p == 8 && take_number(&c, 16, crc) && c.p == c.end;
}

static bool well_formed(const char *body, size_t n)
{
	return n >= LENGTH(begin) + LENGTH(commit) && !memcmp(body, begin, LENGTH(begin)) &&
	       !memcmp(body + n - LENGTH(commit), commit, LENGTH(commit)) && body[n - LENGTH(commit) - 1] == '\n';
}

static ssize_t newer(char *why, size_t size)
{
	if (size)
		snprintf(why, size, "a newer version wrote it");
	return ERR_NEWER;
}

/*
 * A comment line that is not ours, but sound: it ends in a checksum that fits, over itself and the length it names. So
 * whatever a newer format adds, it is told from a torn record, which may be cut.
 */
static ssize_t read_newer(const char *line, size_t n, const char *end, char *why, size_t why_size)
{
	static const char length[] = " len=", sum[] = " crc=", unreadable[] = "a comment line that cannot be read";
	const char *at = memmem(line, n, length, LENGTH(length));
	size_t covered = n - LENGTH(sum) - 8; /* a line that is shorter holds no length before it */
	uint64_t bytes, crc;
	if (!at || at + LENGTH(length) + LENGTH(sum) + 8 >= line + n)
		return corrupt(why, why_size, unreadable);
	struct cursor c = { line + covered, line + n };
	if (!take_text(&c, sum) || !take_number(&c, 16, &crc) || c.p != c.end)
		return corrupt(why, why_size, unreadable);
	c = (struct cursor){ at + LENGTH(length), line + n };
	if (!take_number(&c, 10, &bytes) || bytes > (size_t)(end - line) - n - 1 ||
	    crc32c(crc32c(0, line, covered), line + n + 1, (size_t)bytes) != crc)
		return corrupt(why, why_size, unreadable);
	return newer(why, why_size);
}

static ssize_t read_record(const char *data, size_t n, struct sqllog_record *out, char *why, size_t why_size)
{
	size_t line_max = n < SQLLOG_HEAD_MAX ? n : SQLLOG_HEAD_MAX, covered;
	const char *newline = memchr(data, '\n', line_max);
	if (!newline)
		return n < SQLLOG_HEAD_MAX ? ERR_INCOMPLETE : corrupt(why, why_size, "a comment line without an end");
	struct sqllog_record r = { 0 };
	uint64_t body_bytes, crc;
	if (!parse_head(data, (size_t)(newline - data), &r, &body_bytes, &crc, &covered))
		return read_newer(data, (size_t)(newline - data), data + n, why, why_size);
	if (body_bytes > SQLLOG_RECORD_MAX || !r.lsn)
		return corrupt(why, why_size, "a comment line with a number out of bounds");
	r.body = newline + 1;
	r.body_bytes = (size_t)body_bytes;
	r.bytes = (size_t)(r.body - data) + r.body_bytes;
	if (r.bytes > n)
		return ERR_INCOMPLETE;
	if (crc32c(crc32c(0, data, covered), r.body, r.body_bytes) != crc)
		return corrupt(why, why_size, "the checksum does not match");
	if (!well_formed(r.body, r.body_bytes))
		return corrupt(why, why_size, "the body is not BEGIN; to COMMIT;");
	*out = r;
	return (ssize_t)r.bytes;
}

ssize_t sqllog_read(const char *data, size_t n, struct sqllog_record *out, char *why, size_t why_size)
{
	if (!n)
		return ERR_INCOMPLETE;
	if (begins(data, n, first_line, LENGTH(first_line))) {
		if (n < LENGTH(first_line))
			return ERR_INCOMPLETE;
		*out = (struct sqllog_record){ .bytes = LENGTH(first_line) };
		return (ssize_t)out->bytes;
	}
	/* the first line up to its newline, and more: what that says, only its writer knows */
	if (n > LENGTH(first_line) && !memcmp(data, first_line, LENGTH(first_line) - 1) &&
	    data[LENGTH(first_line) - 1] == ' ')
		return newer(why, why_size);
	if (!begins(data, n, comment, LENGTH(comment)))
		return corrupt(why, why_size, "neither a record nor the first line of a file");
	return n < LENGTH(comment) ? ERR_INCOMPLETE : read_record(data, n, out, why, why_size);
}

ssize_t sqllog_find(const char *data, size_t n, size_t from)
{
	struct sqllog_record r;
	while (from < n) {
		const char *p = memmem(data + from, n - from, comment, LENGTH(comment));
		if (!p)
			return -1;
		from = (size_t)(p - data);
		ssize_t got = read_record(p, n - from, &r, NULL, 0);
		if (got > 0 || got == ERR_NEWER)
			return (ssize_t)from;
		from++;
	}
	return -1;
}

/* ---- what is in a record ------------------------------------------------------------------------------------ */

bool sqllog_key_next(const struct sqllog_record *r, size_t *at, const char **key, size_t *bytes)
{
	if (*at >= r->keys_bytes)
		return false;
	*key = r->keys + *at;
	const char *comma = memchr(*key, ',', r->keys_bytes - *at);
	*bytes = comma ? (size_t)(comma - *key) : r->keys_bytes - *at;
	*at += *bytes + 1;
	return true;
}

const char *sqllog_request(const struct sqllog_record *r, size_t *bytes)
{
	size_t n = r->body_bytes - LENGTH(begin) - LENGTH(commit);
	const char *line = r->body + LENGTH(begin);
	*bytes = 0;
	if (n <= LENGTH(request) || memcmp(line, request, LENGTH(request)))
		return "";
	const char *from = line + LENGTH(request);
	*bytes = (size_t)((const char *)memchr(from, '\n', n - LENGTH(request)) -
			  from); /* well_formed saw the last one */
	return from;
}

const char *sqllog_statements(const struct sqllog_record *r, size_t *bytes, unsigned *count)
{
	const char *first = r->body + LENGTH(begin), *method = sqllog_request(r, bytes);
	if (*bytes)
		first = method + *bytes + 1;
	*bytes = (size_t)(r->body + r->body_bytes - LENGTH(commit) - first);
	*count = 0;
	for (const char *p = first, *end = first + *bytes; p < end; p++, ++*count)
		p = memchr(p, '\n', (size_t)(end - p)); /* well_formed saw the last one */
	return first;
}

static char *put(char *o, const char *text)
{
	size_t n = strlen(text);
	memcpy(o, text, n);
	return o + n;
}

static char *put_hex(char *o, uint64_t v, unsigned digits)
{
	while (digits--)
		*o++ = "0123456789abcdef"[v >> (4 * digits) & 15];
	return o;
}

static unsigned hex_digits(uint64_t v)
{
	return v ? (67u - (unsigned)__builtin_clzll(v)) / 4 : 1;
}

size_t sqllog_head(char *out, const struct sqllog_record *r)
{
	char *o = sqllog_put_u64(put(out, mark), r->lsn);
	o = sqllog_put_u64(put(o, " epoch="), r->epoch);
	o = sqllog_put_u64(put(o, " time="), r->time_us);
	o = put(o, " key=");
	memcpy(o, r->keys, r->keys_bytes);
	o = put(o + r->keys_bytes, " trace=");
	o = put_hex(o, r->trace, hex_digits(r->trace));
	o = sqllog_put_u64(put(o, " len="), r->body_bytes);
	uint32_t crc = crc32c(crc32c(0, out, (size_t)(o - out)), r->body, r->body_bytes);
	o = put_hex(put(o, " crc="), crc, 8);
	*o++ = '\n';
	return (size_t)(o - out);
}
