#include "common/jsontext.h"
#include <stdint.h>
#include <string.h>
#include "common/err.h"

struct scan {
	const uint8_t *p, *end;
	const char *why;
	bool wide;
};

static bool fail(struct scan *s, const char *why)
{
	s->why = why;
	return false;
}

static void space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
		s->p++;
}

static bool tail(const uint8_t *p, const uint8_t *end, int n)
{
	if (end - p <= n)
		return false;
	for (int i = 1; i <= n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return false;
	return true;
}

/*
 * Length of the character at p, 0 if it is none: 2 or 3 bytes of UTF-8, 4 bytes of UTF-8, or 6 bytes of a CESU-8
 * pair; the last two are wide.
 */
static int character(const uint8_t *p, const uint8_t *end, bool *wide)
{
	*wide = false;
	if (p[0] >= 0xc2 && p[0] <= 0xdf)
		return tail(p, end, 1) ? 2 : 0;
	if (p[0] >= 0xe0 && p[0] <= 0xef) {
		if (!tail(p, end, 2) || (p[0] == 0xe0 && p[1] < 0xa0))
			return 0;
		if (p[0] != 0xed || p[1] < 0xa0)
			return 3;
		*wide = true; /* a high surrogate, and the low one must follow */
		return p[1] < 0xb0 && end - p >= 6 && p[3] == 0xed && p[4] >= 0xb0 && tail(p + 3, end, 2) ? 6 : 0;
	}
	*wide = true;
	if (p[0] < 0xf0 || p[0] > 0xf4 || !tail(p, end, 3) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return 4;
}

static bool hex4(const uint8_t *p, unsigned *out)
{
	unsigned v = 0;

	for (int i = 0; i < 4; i++) {
		unsigned c = p[i], lower = c | 0x20;
		if (c >= '0' && c <= '9')
			v = v << 4 | (c - '0');
		else if (lower >= 'a' && lower <= 'f')
			v = v << 4 | (lower - 'a' + 10);
		else
			return false;
	}
	*out = v;
	return true;
}

static bool escape(struct scan *s)
{
	unsigned u, low;

	if (s->end - s->p < 2 || !strchr("\"\\/bfnrtu", s->p[1]) || !s->p[1])
		return fail(s, "a wrong escape in a string");
	if (s->p[1] != 'u') {
		s->p += 2;
		return true;
	}
	if (s->end - s->p < 6 || !hex4(s->p + 2, &u) || (u >= 0xdc00 && u <= 0xdfff))
		return fail(s, "a wrong \\u escape");
	s->p += 6;
	if (u < 0xd800 || u > 0xdbff)
		return true;
	if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u' || !hex4(s->p + 2, &low) || low < 0xdc00 ||
	    low > 0xdfff)
		return fail(s, "half a surrogate pair");
	s->p += 6;
	return true;
}

static bool string(struct scan *s)
{
	bool wide;

	for (s->p++; s->p < s->end;) {
		uint8_t c = *s->p;
		if (c == '"') {
			s->p++;
			return true;
		}
		if (c < 0x20)
			return fail(s, "a control character in a string");
		if (c == '\\') {
			if (!escape(s))
				return false;
		} else if (c < 0x80) {
			s->p++;
		} else {
			int n = character(s->p, s->end, &wide);
			if (!n)
				return fail(s, "bytes that are not UTF-8");
			s->wide |= wide;
			s->p += n;
		}
	}
	return fail(s, "a string without its end");
}

static bool digits(struct scan *s)
{
	const uint8_t *from = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p > from;
}

static bool number(struct scan *s)
{
	s->p += *s->p == '-';
	const uint8_t *first = s->p;
	if (!digits(s) || (*first == '0' && s->p - first > 1))
		return fail(s, "a wrong number");
	if (s->p < s->end && *s->p == '.') {
		s->p++;
		if (!digits(s))
			return fail(s, "a wrong number");
	}
	if (s->p < s->end && (*s->p | 0x20) == 'e') {
		s->p++;
		if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
			s->p++;
		if (!digits(s))
			return fail(s, "a wrong number");
	}
	return true;
}

static bool word(struct scan *s, const char *w)
{
	size_t n = strlen(w);

	if ((size_t)(s->end - s->p) < n || memcmp(s->p, w, n) != 0)
		return fail(s, "a word that is no value");
	s->p += n;
	return true;
}

static bool scalar(struct scan *s)
{
	switch (*s->p) {
	case '"': return string(s);
	case 't': return word(s, "true");
	case 'f': return word(s, "false");
	case 'n': return word(s, "null");
	default:
		if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9'))
			return number(s);
		return fail(s, "something that is no value");
	}
}

/* A member's name and colon. */
static bool name(struct scan *s)
{
	space(s);
	if (s->p == s->end || *s->p != '"' || !string(s))
		return s->why ? false : fail(s, "a member without a name");
	space(s);
	if (s->p == s->end || *s->p != ':')
		return fail(s, "a name without ':'");
	s->p++;
	return true;
}

/*
 * One value with all it holds. objects has a bit per level, the lowest the innermost: 1 an object, 0 an array, so
 * nesting costs no recursion.
 */
static bool value(struct scan *s)
{
	uint64_t objects = 0;
	int depth = 0;

	for (;;) {
		space(s);
		if (s->p == s->end)
			return fail(s, "an end where a value should be");
		if (*s->p == '{' || *s->p == '[') {
			bool object = *s->p++ == '{';
			if (++depth > JSONTEXT_DEPTH_MAX)
				return fail(s, "nesting too deep");
			objects = objects << 1 | object;
			space(s);
			if (s->p < s->end && *s->p == (object ? '}' : ']'))
				goto closed;
			if (object && !name(s))
				return false;
			continue;
		}
		if (!scalar(s))
			return false;
		for (;;) {
			if (!depth)
				return true;
			space(s);
			if (s->p == s->end)
				return fail(s, "an object or array without its end");
			if (*s->p == ',')
				break;
			if (*s->p != ((objects & 1) ? '}' : ']'))
				return fail(s, "something else than ',' between values");
closed:
			s->p++;
			objects >>= 1;
			depth--;
		}
		s->p++;
		if ((objects & 1) && !name(s))
			return false;
	}
}

int jsontext_object(const char *p, size_t n, struct jsontext *out, const char **why)
{
	struct scan s = { .p = (const uint8_t *)p, .end = (const uint8_t *)p + n };

	space(&s);
	if (s.p == s.end || *s.p != '{') {
		*why = "no object";
		return ERR_BAD_REQUEST;
	}
	if (!value(&s)) {
		*why = s.why;
		return ERR_BAD_REQUEST;
	}
	space(&s);
	if (s.p < s.end) {
		*why = "something behind the object";
		return ERR_BAD_REQUEST;
	}
	out->wide = s.wide;
	return 0;
}

/* ---- writing ---------------------------------------------------------------------------------------------- */

static uint32_t code_point(const uint8_t *p, int n)
{
	if (n == 4)
		return (p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
	return 0x10000 + ((p[1] & 0xfu) << 16 | (p[2] & 0x3fu) << 10 | (p[4] & 0xfu) << 6 | (p[5] & 0x3fu));
}

static void pair_add(struct buf *out, uint32_t c)
{
	c -= 0x10000;
	buf_addf(out, "\\u%04x\\u%04x", 0xd800 + (c >> 10), 0xdc00 + (c & 0x3ff));
}

void jsontext_narrow(struct buf *out, const char *text, size_t n)
{
	const uint8_t *p = (const uint8_t *)text, *end = p + n, *from = p;
	bool wide;

	while (p < end) {
		int len = *p < 0x80 ? 1 : character(p, end, &wide);
		if (len > 1 && wide) {
			buf_add(out, from, (size_t)(p - from));
			pair_add(out, code_point(p, len));
			from = p + len;
		}
		p += len ? len : 1;
	}
	buf_add(out, from, (size_t)(p - from));
}

static void quote_one(struct buf *out, uint8_t c)
{
	static const char short_form[] = "\"\"\\\\\bb\ff\nn\rr\tt";

	for (size_t i = 0; i + 1 < sizeof(short_form); i += 2)
		if ((uint8_t)short_form[i] == c) {
			buf_addch(out, '\\');
			buf_addch(out, short_form[i + 1]);
			return;
		}
	if (c < 0x20 || c == 0x7f)
		buf_addf(out, "\\u%04x", c);
	else
		buf_addch(out, (char)c);
}

void jsontext_quote(struct buf *out, const char *text, size_t n)
{
	const uint8_t *p = (const uint8_t *)text, *end = p + n;
	bool wide;

	buf_addch(out, '"');
	while (p < end) {
		int len = *p < 0x80 ? 1 : character(p, end, &wide);
		if (len == 1)
			quote_one(out, *p);
		else if (!len)
			buf_addstr(out, "\\ufffd");
		else if (wide)
			pair_add(out, code_point(p, len));
		else
			buf_add(out, p, (size_t)len);
		p += len ? len : 1;
	}
	buf_addch(out, '"');
}

bool jsontext_utf8(const char *text, size_t n)
{
	const uint8_t *p = (const uint8_t *)text, *end = p + n;
	bool wide;

	while (p < end) {
		int len = *p < 0x80 ? 1 : character(p, end, &wide);
		if (!len || len == 6)
			return false;
		p += len;
	}
	return true;
}

bool jsontext_member(const char *p, size_t n, const char *want, const char **out, size_t *out_n)
{
	struct scan s = { .p = (const uint8_t *)p, .end = (const uint8_t *)p + n };
	size_t want_n = strlen(want);

	space(&s);
	if (s.p == s.end || *s.p++ != '{')
		return false;
	for (;;) {
		space(&s);
		const uint8_t *quote = s.p;
		if (s.p == s.end || *s.p == '}' || !name(&s))
			return false;
		space(&s);
		const uint8_t *from = s.p;
		if (!value(&s))
			return false;
		if ((size_t)(s.end - quote) > want_n + 1 && memcmp(quote + 1, want, want_n) == 0 &&
		    quote[want_n + 1] == '"') {
			*out = (const char *)from;
			*out_n = (size_t)(s.p - from);
			return true;
		}
		space(&s);
		if (s.p == s.end || *s.p++ != ',')
			return false;
	}
}
