#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "dbwriter/shape.h"
#include "dbwriter/shape_private.h"
/*
 * A statement cut into its text and its values.
 */

const unsigned char shape_class[256] = {
	['a' ... 'z'] = 2, ['A' ... 'Z'] = 2, ['_'] = 2, ['0' ... '9'] = 3, ['\''] = 4, [' '] = 1,
	['('] = 1,         [')'] = 1,         [','] = 1, ['='] = 1,         ['%'] = 1,  ['+'] = 1,
	['-'] = 1,         ['*'] = 1,         ['.'] = 1, ['<'] = 1,         ['>'] = 1,
};

struct cutter {
	struct split *s;
	const char *p, *end;
	char *out; /* has room for the whole statement and more */
	char last; /* the last byte that was no space; 0: none */
};

static void put(struct cutter *c, enum value_type type)
{
	*c->out++ = '?';
	*c->out++ = (char)type;
	c->last = '?';
}

static struct value *next_value(struct cutter *c)
{
	return c->s->n < SHAPE_VALUES_MAX ? &c->s->value[c->s->n++] : NULL;
}

static int nibble(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool begins_blob(const struct cutter *c)
{
	return c->end - c->p > 2 && c->p[0] == 'x' && c->p[1] == '\'';
}

/* x'…', as the builder writes it */
static bool cut_blob(struct cutter *c)
{
	const char *p = c->p + 2, *end = memchr(p, '\'', (size_t)(c->end - p));
	struct split *s = c->s;
	struct value *v = next_value(c);
	if (!v || !end || (end - p) % 2)
		return false;
	size_t at = s->unescaped.len, n = (size_t)(end - p) / 2;
	char *o = buf_reserve(&s->unescaped, n + 1);
	for (; p < end; p += 2) {
		int high = nibble(p[0]), low = nibble(p[1]);
		if (high < 0 || low < 0)
			return false;
		*o++ = (char)(high << 4 | low);
	}
	s->unescaped.len += n;
	s->escaped |= 1ull << (v - s->value);
	*v = (struct value){ .type = VALUE_BLOB, .s = { (const char *)at, n } }; /* an offset yet */
	put(c, VALUE_BLOB);
	c->p = end + 1;
	return true;
}

/* A word: a name, a keyword, NULL where a value stands. */
static bool cut_word(struct cutter *c)
{
	const char *from = c->p;
	if (begins_blob(c))
		return cut_blob(c);
	while (shape_in_word(c->p, c->end))
		c->p++;
	size_t n = (size_t)(c->p - from);
	if (c->p < c->end && *c->p == '\'')
		return false; /* _binary'…' and its kin */
	if (n == 4 && !strncasecmp(from, "NULL", 4) && (c->last == '=' || c->last == ',' || c->last == '(')) {
		struct value *v = next_value(c);
		if (!v)
			return false;
		*v = (struct value){ .type = VALUE_NULL };
		put(c, VALUE_NULL);
		return true;
	}
	memcpy(c->out, from, n);
	c->out += n;
	c->last = 'a';
	return true;
}

static const char *digits(const char *p, const char *end)
{
	while (p < end && isdigit((unsigned char)*p))
		p++;
	return p;
}

static bool read_whole(const char *p, const char *end, int64_t *out)
{
	bool minus = *p == '-';
	int64_t v = 0;
	for (p += minus; p < end; p++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, *p - '0', &v))
			return false;
	if (!minus && v == INT64_MIN)
		return false;
	*out = minus ? v : -v;
	return true;
}

static bool read_broken(const char *p, size_t n, double *out)
{
	char text[64], *stop;
	if (n >= sizeof text)
		return false;
	memcpy(text, p, n);
	text[n] = '\0';
	*out = strtod(text, &stop);
	if (*out == 0)
		*out = 0; /* a literal has no negative zero */
	return !*stop && isfinite(*out);
}

static bool cut_number(struct cutter *c)
{
	const char *from = c->p, *p = digits(from + (*from == '-'), c->end);
	bool whole = true;
	if (p < c->end && *p == '.') {
		whole = false;
		p = digits(p + 1, c->end);
	}
	if (p < c->end && (*p == 'e' || *p == 'E')) {
		whole = false;
		p++;
		p = digits(p + (p < c->end && (*p == '-' || *p == '+')), c->end);
	}
	struct value *v = next_value(c);
	if (!v || shape_in_word(p, c->end) || (p < c->end && *p == '\''))
		return false;
	*v = (struct value){ .type = whole ? VALUE_INT : VALUE_DOUBLE };
	if (!(whole ? read_whole(from, p, &v->i) : read_broken(from, (size_t)(p - from), &v->d)))
		return false;
	put(c, v->type);
	c->p = p;
	return true;
}

/* The text between two quotes; what the builder escapes is undone, and nothing else is taken for an escape. */
static bool unescape(struct split *s, const char *p, const char *end, struct value *v)
{
	static const unsigned char means[256] = {
		['0'] = 1, ['n'] = '\n', ['r'] = '\r', ['\\'] = '\\', ['\''] = '\'', ['"'] = '"', ['Z'] = 26
	};
	size_t at = s->unescaped.len;
	char *o = buf_reserve(&s->unescaped, (size_t)(end - p)), *start = o;
	for (; p < end; p++) {
		if (*p != '\\') {
			*o++ = *p;
			continue;
		}
		unsigned char means_what = means[(unsigned char)*++p];
		if (!means_what)
			return false;
		*o++ = *p == '0' ? '\0' : (char)means_what;
	}
	s->unescaped.len += (size_t)(o - start);
	s->escaped |= 1ull << (v - s->value);
	*v = (struct value){ .type = VALUE_TEXT, .s = { (const char *)at, (size_t)(o - start) } }; /* an offset yet */
	return true;
}

static bool cut_text(struct cutter *c)
{
	const char *from = ++c->p, *p = from;
	bool escaped = false;
	for (; p < c->end && *p != '\''; p++)
		if (*p == '\\') {
			escaped = true;
			if (++p == c->end)
				return false;
		}
	struct value *v = next_value(c);
	if (!v || p >= c->end)
		return false;
	if (escaped && !unescape(c->s, from, p, v))
		return false;
	if (!escaped)
		*v = (struct value){ .type = VALUE_TEXT, .s = { from, (size_t)(p - from) } };
	put(c, VALUE_TEXT);
	c->p = p + 1;
	return true;
}

/* A minus that belongs to the number behind it. */
static bool is_sign(const struct cutter *c)
{
	return *c->p == '-' && c->p + 1 < c->end && isdigit((unsigned char)c->p[1]) && c->last &&
	       strchr("=(,+-*%<>", c->last);
}

static bool cut(struct cutter *c)
{
	while (c->p < c->end) {
		unsigned char what = is_sign(c) ? 3 : shape_class[(unsigned char)*c->p];
		bool fine = true;
		switch (what) {
		case 0: return false;
		case 1:
			c->last = *c->p == ' ' ? c->last : *c->p;
			*c->out++ = *c->p++;
			break;
		case 2: fine = cut_word(c); break;
		case 3: fine = cut_number(c); break;
		default: fine = cut_text(c); break;
		}
		if (!fine)
			return false;
	}
	return true;
}

/* Values that were unescaped, from their offsets, now that the buffer does not move any more. */
static void settle(struct split *s)
{
	for (unsigned i = 0; s->escaped && i < s->n; i++)
		if (s->escaped & 1ull << i)
			s->value[i].s.p = s->unescaped.data + (size_t)s->value[i].s.p;
}

bool split_statement(struct split *s, const char *statement, size_t n)
{
	buf_clear(&s->text);
	buf_clear(&s->unescaped);
	s->n = 0;
	s->escaped = 0;
	struct cutter c = { .s = s, .p = statement, .end = statement + n, .out = buf_reserve(&s->text, 2 * n + 2) };
	if (!cut(&c))
		return false;
	s->text.len = (size_t)(c.out - s->text.data);
	settle(s);
	return true;
}

/*
 * The same bytes before each value, and values of the same types there: what split_statement would make of it, without
 * looking at each word again.
 */
bool split_like(struct split *s, const struct shape *like, const char *statement, size_t n)
{
	char unused[2 * SHAPE_VALUES_MAX];
	struct cutter c = { .s = s, .p = statement, .end = statement + n, .out = unused };
	buf_clear(&s->unescaped);
	s->n = 0;
	s->escaped = 0;
	if (!like->params || like->no_like)
		return false;
	for (unsigned i = 0;; i++) {
		size_t bytes = like->piece[i].bytes;
		if ((size_t)(c.end - c.p) < bytes || memcmp(c.p, like->text + like->piece[i].at, bytes) != 0)
			return false;
		c.p += bytes;
		if (i == like->params)
			break;
		c.last = like->piece[i].last;
		unsigned char what = c.p == c.end ? 0 : is_sign(&c) ? 3 : shape_class[(unsigned char)*c.p];
		bool fine = what == 3   ? cut_number(&c)
			    : what == 4 ? cut_text(&c)
					: what == 2 && begins_blob(&c) && cut_blob(&c);
		if (!fine || s->value[i].type != (enum value_type)like->type[i])
			return false;
	}
	settle(s);
	return c.p == c.end;
}

void split_release(struct split *s)
{
	buf_release(&s->text);
	buf_release(&s->unescaped);
}
