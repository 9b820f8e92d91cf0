#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/err.h"
#include "common/sqllog_private.h"
/*
 * The typed builder: the one place where a value becomes SQL text.
 */

static const char begin[] = "BEGIN;\n";
#define COMMIT_BYTES 8 /* "COMMIT;\n", added when it is handed over */

static int refuse(char *why, size_t size, int err, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static int refuse(char *why, size_t size, int err, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	if (size)
		vsnprintf(why, size, fmt, ap);
	va_end(ap);
	return err;
}

/* ---- values ------------------------------------------------------------------------------------------- */

/*
 * What a byte of a text becomes: 0 itself, a letter: backslash and that letter, 1: the start of a multi-byte
 * character, 2: not allowed there.
 */
static const unsigned char text_class[256] = {
	[0] = '0',   ['\n'] = 'n', ['\r'] = 'r',        ['\\'] = '\\',       ['\''] = '\'',
	['"'] = '"', [26] = 'Z',   [0x80 ... 0xc1] = 2, [0xc2 ... 0xf4] = 1, [0xf5 ... 0xff] = 2,
};

static bool tail_byte(unsigned char c)
{
	return (c & 0xc0) == 0x80;
}

/* Length of the multi-byte character at p, 0 if it is none: no overlong forms, no surrogates, nothing above U+10FFFF. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
	unsigned char c = p[0];
	if (c < 0xe0)
		return n >= 2 && tail_byte(p[1]) ? 2 : 0;
	if (n < 3 || !tail_byte(p[1]) || !tail_byte(p[2]))
		return 0;
	if (c < 0xf0)
		return (c == 0xe0 && p[1] < 0xa0) || (c == 0xed && p[1] > 0x9f) ? 0 : 3;
	if (n < 4 || !tail_byte(p[3]))
		return 0;
	return (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f) ? 0 : 4;
}

/* Copies bytes of class 0, up to the first other one or the end, and moves both on. Most bytes are: eight at a time. */
static inline void copy_plain(char **o, const unsigned char **p, const unsigned char *end,
			      const unsigned char class[256])
{
	const unsigned char *c = *p;
	char *to = *o;
	for (; end - c >= 8; c += 8, to += 8) {
		if (class[c[0]] | class[c[1]] | class[c[2]] | class[c[3]] | class[c[4]] | class[c[5]] | class[c[6]] |
		    class[c[7]])
			break;
		memcpy(to, c, 8);
	}
	while (c < end && !class[*c])
		*to++ = (char)*c++;
	*p = c;
	*o = to;
}

/* Writes the quoted text; NULL and *bad when a byte is not UTF-8. */
static char *put_text(char *o, const char *text, size_t n, size_t *bad)
{
	const unsigned char *p = (const unsigned char *)text, *end = p + n;
	*o++ = '\'';
	for (;;) {
		copy_plain(&o, &p, end, text_class);
		if (p == end)
			break;
		unsigned char class = text_class[*p];
		if (class > 2) { /* a letter */
			*o++ = '\\';
			*o++ = (char)class;
			p++;
			continue;
		}
		size_t length = class == 1 ? utf8_length(p, (size_t)(end - p)) : 0;
		if (!length) {
			*bad = (size_t)(p - (const unsigned char *)text);
			return NULL;
		}
		memcpy(o, p, length);
		o += length;
		p += length;
	}
	*o++ = '\'';
	return o;
}

static char *put_blob(char *o, const char *p, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	*o++ = 'x';
	*o++ = '\'';
	for (; n; n--, p++) {
		*o++ = hex[(unsigned char)*p >> 4];
		*o++ = hex[(unsigned char)*p & 15];
	}
	*o++ = '\'';
	return o;
}

static char *put_int(char *o, int64_t v)
{
	if (v < 0)
		*o++ = '-';
	return sqllog_put_u64(o, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

#define LITERAL_MAX 32 /* of a number */

static size_t value_room(const struct sql_value *v)
{
	return v->type == SQL_TEXT || v->type == SQL_BLOB ? 2 * v->s.n + 3 : LITERAL_MAX;
}

static char *put_value(char *o, const struct sql_value *v, size_t index, char *why, size_t why_size)
{
	size_t bad = 0;
	char *end;
	switch (v->type) {
	case SQL_NULL: memcpy(o, "NULL", 4); return o + 4;
	case SQL_INT: return put_int(o, v->i);
	case SQL_DOUBLE:
		if (isfinite(v->d)) /* -0 is 0: a database reads the literal so, but would keep the sign of one bound */
			return o + snprintf(o, LITERAL_MAX, "%.17g", v->d == 0 ? 0.0 : v->d);
		refuse(why, why_size, 0, "value %zu is not a finite number", index + 1);
		return NULL;
	case SQL_TEXT:
		end = put_text(o, v->s.p, v->s.n, &bad);
		if (!end)
			refuse(why, why_size, 0, "value %zu is not UTF-8 at its byte %zu", index + 1, bad);
		return end;
	case SQL_BLOB: return put_blob(o, v->s.p, v->s.n);
	}
	refuse(why, why_size, 0, "value %zu has no type that is known", index + 1);
	return NULL;
}

/* ---- statements ------------------------------------------------------------------------------------------ */

/* 0: copied as it is; 1: '?'; 2: begins a comment when doubled; 3: '*' behind '/'; 4: never in a statement; 5: as a space */
#define SPACES " \t\n\r"
static const unsigned char sql_class[256] = {
	[0 ... 8] = 4, [11 ... 12] = 4, [14 ... 31] = 4, [127 ... 255] = 4, ['?'] = 1,  ['-'] = 2,
	['*'] = 3,     [';'] = 4,       ['\''] = 4,      ['"'] = 4,         ['\\'] = 4, ['`'] = 4,
	['#'] = 4,     ['@'] = 4,       ['\t'] = 5,      ['\n'] = 5,        ['\r'] = 5,
};

static bool begins_comment(const char *sql, const char *p)
{
	return p > sql && ((*p == '-' && p[-1] == '-') || (*p == '*' && p[-1] == '/'));
}

static size_t room_for(size_t sql_bytes, const struct sql_value *values, size_t n)
{
	size_t room = sql_bytes + 1;
	for (size_t i = 0; i < n; i++) {
		if ((values[i].type == SQL_TEXT || values[i].type == SQL_BLOB) && values[i].s.n > SQLLOG_RECORD_MAX)
			return SIZE_MAX;
		room += value_room(&values[i]) + 1;
		if (room > 4 * (size_t)SQLLOG_RECORD_MAX)
			return SIZE_MAX;
	}
	return room;
}

struct statement {
	const char *sql;
	size_t before; /* bytes of the text it stands in: spaces */
	size_t bytes;
	const struct sql_value *values;
	size_t n;
};

/* Writes the statement at o, which has room; NULL and why when it is refused. */
static char *put_statement(char *o, const struct statement *s, char *why, size_t why_size)
{
	const unsigned char *p = (const unsigned char *)s->sql, *end = p + s->bytes;
	size_t used = 0;
	for (;; p++) {
		copy_plain(&o, &p, end, sql_class);
		if (p == end)
			break;
		unsigned char class = sql_class[*p];
		if (class == 1) {
			if (used < s->n) {
				/* "gold -?" and -5 must not become a comment */
				if (o[-1] == '-')
					*o++ = ' ';
				o = put_value(o, &s->values[used], used, why, why_size);
				if (!o)
					return NULL;
			}
			used++;
			continue;
		}
		if (class ==
		    5) { /* a line's end and the next one's indentation are one space: a record's statement is a line */
			p += strspn((const char *)p, SPACES);
			if (p < end && o[-1] != ' ')
				*o++ = ' ';
			p--;
			continue;
		}
		if (class == 4 || begins_comment(s->sql, (const char *)p)) {
			char what[8];
			snprintf(what, sizeof what, *p > ' ' && *p < 0x7f ? "%c" : "0x%02x", *p);
			refuse(why, why_size, 0, "%s at byte %d may not stand in a statement; values go through ?",
			       what, (int)(s->before + (size_t)((const char *)p - s->sql)) + 1);
			return NULL;
		}
		*o++ = (char)*p;
	}
	if (used == s->n)
		return o;
	refuse(why, why_size, 0, "the statement has %zu ? and %zu values were given", used, s->n);
	return NULL;
}

int sql_format(struct buf *out, const char *sql, const struct sql_value *values, size_t n, char *why, size_t why_size)
{
	size_t before = strspn(sql, SPACES);
	sql += before;
	if (!*sql || *sql == '?')
		return refuse(why, why_size, ERR_BAD_REQUEST, "the statement is empty");
	struct statement s = { .sql = sql, .before = before, .bytes = strlen(sql), .values = values, .n = n };
	size_t room = room_for(s.bytes, values, n);
	if (room == SIZE_MAX)
		return refuse(why, why_size, ERR_FULL, "the statement would be over %u bytes", SQLLOG_RECORD_MAX);
	char *start = buf_reserve(out, room);
	char *end = put_statement(start, &s, why, why_size);
	if (!end)
		return ERR_BAD_REQUEST;
	out->len += (size_t)(end - start);
	return 0;
}

/* sql begins with the word, in letters of either case, and a space or a line's end */
static bool has_verb(const char *sql, const char *verb)
{
	for (; *verb; sql++, verb++)
		if ((*sql & ~0x20) != *verb)
			return false;
	return *sql && strchr(SPACES, *sql);
}

/* Only what changes rows and stays inside the record's transaction: a COMMIT or CREATE in it would end that. */
static bool is_change(const char *sql)
{
	sql += strspn(sql, SPACES);
	switch (*sql & ~0x20) {
	case 'U': return has_verb(sql, "UPDATE");
	case 'I': return has_verb(sql, "INSERT");
	case 'R': return has_verb(sql, "REPLACE");
	case 'D': return has_verb(sql, "DELETE");
	}
	return false;
}

/* ---- forms ------------------------------------------------------------------------------------------------ */

/*
 * A statement that was accepted before, and where its '?' stand: to look at each of its bytes again would be half of the
 * cost of a record. Whatever does not go this way goes the long one, which says why.
 */
enum { HOLES_MAX = 24, FORM_BYTES_MAX = 1024, CHUNK = 16 };
struct sql_form {
	unsigned bytes, holes;
	uint16_t hole[HOLES_MAX];
	char sql[]; /* and CHUNK bytes, for it is copied in pieces of that size */
};

/* By its address; that may have got another text since, so the text decides. */
static struct sql_form **form_place(struct sql_record *r, const char *sql)
{
	return &r->form[((uintptr_t)sql >> 4 ^ (uintptr_t)sql >> 10) % SQL_FORMS];
}

/* sql was accepted with n values. */
static void form_keep(struct sql_record *r, const char *sql, size_t n)
{
	struct sql_form **at = form_place(r, sql), *f;
	size_t bytes = strlen(sql);
	if (n > HOLES_MAX || bytes > FORM_BYTES_MAX || *sql == ' ' || strpbrk(sql, SPACES + 1) ||
	    !(f = calloc(1, sizeof *f + bytes + 1 + CHUNK)))
		return;
	memcpy(f->sql, sql, bytes);
	f->bytes = (unsigned)bytes;
	for (const char *p = f->sql; (p = strchr(p, '?')); p++)
		f->hole[f->holes++] = (uint16_t)(p - f->sql);
	assert(f->holes == n);
	free(*at);
	*at = f;
}

/* Writes up to CHUNK bytes more than n, which come to be written over. */
static inline char *put_chunks(char *o, const char *p, size_t n)
{
	for (size_t at = 0; at < n; at += CHUNK)
		memcpy(o + at, p + at, CHUNK);
	return o + n;
}

static char *put_form(char *o, const struct sql_form *f, const struct sql_value *values)
{
	size_t from = 0;
	for (unsigned i = 0; i < f->holes; i++) {
		o = put_chunks(o, f->sql + from, f->hole[i] - from);
		from = f->hole[i] + 1u;
		if (o[-1] == '-') /* as in put_statement */
			*o++ = ' ';
		o = put_value(o, &values[i], i, NULL, 0);
		if (!o)
			return NULL;
	}
	return put_chunks(o, f->sql + from, f->bytes - from);
}

static bool add_form(struct sql_record *r, const struct sql_form *f, const struct sql_value *values, size_t n)
{
	size_t room = n == f->holes ? room_for(f->bytes, values, n) : SIZE_MAX;
	if (room == SIZE_MAX)
		return false;
	char *start = buf_reserve(&r->body, sizeof begin + room + CHUNK + 2), *o = start;
	if (!r->body.len) {
		memcpy(o, begin, sizeof begin - 1);
		o += sizeof begin - 1;
	}
	o = put_form(o, f, values);
	if (!o)
		return false;
	memcpy(o, ";\n", 2);
	size_t len = r->body.len + (size_t)(o + 2 - start);
	if (len + COMMIT_BYTES > SQLLOG_RECORD_MAX)
		return false;
	r->body.len = len;
	r->statements++;
	return true;
}

int sql_record_add(struct sql_record *r, const char *sql, const struct sql_value *values, size_t n, char *why,
		   size_t why_size)
{
	const struct sql_form *form = *form_place(r, sql);
	if (form && !strcmp(form->sql, sql) && add_form(r, form, values, n))
		return 0;
	if (!is_change(sql))
		return refuse(why, why_size, ERR_BAD_REQUEST, "a record holds INSERT, UPDATE, DELETE and REPLACE only");
	size_t before = r->body.len;
	if (!before)
		buf_add(&r->body, begin, sizeof begin - 1);
	int err = sql_format(&r->body, sql, values, n, why, why_size);
	if (!err && r->body.len + 2 + COMMIT_BYTES > SQLLOG_RECORD_MAX)
		err = refuse(why, why_size, ERR_FULL, "the record would be over %u bytes", SQLLOG_RECORD_MAX);
	if (err) {
		r->body.len = before;
		return err;
	}
	buf_add(&r->body, ";\n", 2);
	r->statements++;
	if (r->cleared)
		form_keep(r, sql, n);
	return 0;
}

/* ---- records ------------------------------------------------------------------------------------------------ */

void sql_record_init(struct sql_record *r)
{
	memset(r, 0, sizeof *r);
}

void sql_record_release(struct sql_record *r)
{
	buf_release(&r->body);
	for (unsigned i = 0; i < SQL_FORMS; i++)
		free(r->form[i]);
	memset(r, 0, sizeof *r);
}

void sql_record_clear(struct sql_record *r)
{
	buf_clear(&r->body);
	r->keys[0] = '\0';
	r->keys_bytes = 0;
	r->statements = 0;
	r->trace = 0;
	r->cleared = true;
}

/* 1: stands as %XX, for it would end the key or the line */
static const unsigned char key_class[256] = { [0 ... ' '] = 1, [','] = 1, ['%'] = 1, [127] = 1 };

int sqllog_key_text(char out[SQLLOG_KEY_TEXT_MAX], const char *key)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t n = strlen(key);
	if (!n || n > SQLLOG_KEY_RAW_MAX)
		return ERR_BAD_REQUEST;
	char *o = out;
	const unsigned char *p = (const unsigned char *)key, *end = p + n;
	for (;; p++) {
		copy_plain(&o, &p, end, key_class);
		if (p == end)
			break;
		*o++ = '%';
		*o++ = hex[*p >> 4];
		*o++ = hex[*p & 15];
	}
	*o = '\0';
	return (int)(o - out);
}

static const bool request_class[256] = {
	['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['_'] = true,
	['.'] = true,         ['-'] = true,         ['/'] = true,
};

void sql_record_request(struct sql_record *r, const char *method)
{
	static const char mark[] = "-- request=";
	if (r->statements || r->body.len)
		return;
	char *start = buf_reserve(&r->body, sizeof begin + sizeof mark + SQLLOG_REQUEST_MAX + 1);
	char *o = mempcpy(mempcpy(start, begin, sizeof begin - 1), mark, sizeof mark - 1), *first = o;
	for (const char *p = method; *p && o < first + SQLLOG_REQUEST_MAX; p++)
		if (request_class[(unsigned char)*p])
			*o++ = *p;
	if (o == first)
		return;
	*o++ = '\n';
	r->body.len = (size_t)(o - start);
}

static bool has_key(const struct sql_record *r, const char *text, size_t n)
{
	const struct sqllog_record keys = { .keys = r->keys, .keys_bytes = r->keys_bytes };
	const char *key;
	size_t at = 0, bytes;
	while (sqllog_key_next(&keys, &at, &key, &bytes))
		if (bytes == n && !memcmp(key, text, n))
			return true;
	return false;
}

int sql_record_key(struct sql_record *r, const char *key)
{
	char text[SQLLOG_KEY_TEXT_MAX];
	int n = sqllog_key_text(text, key);
	if (n < 0)
		return n;
	if (has_key(r, text, (size_t)n))
		return 0;
	size_t comma = r->keys_bytes ? 1 : 0;
	if (r->keys_bytes + comma + (size_t)n >= SQLLOG_KEY_MAX)
		return ERR_FULL;
	char *end = r->keys + r->keys_bytes;
	if (comma)
		*end++ = ',';
	memcpy(end, text, (size_t)n + 1);
	r->keys_bytes = (uint16_t)(r->keys_bytes + comma + (size_t)n);
	return 0;
}
