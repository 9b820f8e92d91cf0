#include "common/log_text.h"
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

/* ---- escaping --------------------------------------------------------------------------------------- */

/* Bytes of the well-formed UTF-8 character at p, without C1 controls and line separators; 0: there is none. */
static unsigned utf8_bytes(const unsigned char *p, size_t n)
{
	unsigned c = p[0], more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
	if (c < 0xc2 || c > 0xf4 || n <= more)
		return 0;
	unsigned low = 0x80, high = 0xbf; /* of the second byte: neither overlong, surrogate nor above U+10FFFF */
	switch (c) {
	case 0xc2: low = 0xa0; break;
	case 0xe0: low = 0xa0; break;
	case 0xed: high = 0x9f; break;
	case 0xf0: low = 0x90; break;
	case 0xf4: high = 0x8f; break;
	default: break;
	}
	if (p[1] < low || p[1] > high)
		return 0;
	for (unsigned i = 2; i <= more; i++)
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	return c == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9) ? 0 : more + 1;
}

/* Bytes that need quotes, or another look: what is not ASCII may be part of a character. */
static const bool special[256] = {
	[0 ... ' '] = true, ['"'] = true, ['='] = true, ['\\'] = true, [0x7f ... 0xff] = true,
};

static bool plain(const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n;) {
		unsigned bytes = !special[p[i]] ? 1 : p[i] < 0x80 ? 0 : utf8_bytes(p + i, n - i);
		if (bytes == 0)
			return false;
		i += bytes;
	}
	return n;
}

static char *put_escaped_byte(char *o, unsigned char c)
{
	static const char digits[] = "0123456789abcdef";
	*o++ = '\\';
	switch (c) {
	case '\n': *o++ = 'n'; break;
	case '\r': *o++ = 'r'; break;
	case '\t': *o++ = 't'; break;
	case '"':
	case '\\': *o++ = (char)c; break;
	default:
		*o++ = 'x';
		*o++ = digits[c >> 4];
		*o++ = digits[c & 15];
	}
	return o;
}

char *log_put_value(char *o, const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text;
	if (plain(p, n))
		return mempcpy(o, text, n);
	*o++ = '"';
	for (size_t i = 0; i < n;) {
		unsigned bytes = p[i] < 0x80 ? 1 : utf8_bytes(p + i, n - i);
		if (bytes == 0 || p[i] < ' ' || p[i] == '"' || p[i] == '\\' || p[i] == 0x7f) {
			o = put_escaped_byte(o, p[i++]);
			continue;
		}
		o = mempcpy(o, text + i, bytes);
		i += bytes;
	}
	*o++ = '"';
	return o;
}

/* ---- formats --------------------------------------------------------------------------------------------- */

static int16_t read_number(const char **p)
{
	int n = 0;
	for (; **p >= '0' && **p <= '9'; (*p)++)
		n = n < 1000 ? n * 10 + (**p - '0') : n;
	return (int16_t)n;
}

_Static_assert(sizeof(long) == 8 && sizeof(long long) == 8 && sizeof(size_t) == 8, "LOG_WORD is each of them");

static enum log_type type_of(char conv, bool word)
{
	switch (conv) {
	case '%': return LOG_NONE;
	case 's': return LOG_TEXT;
	case 'c': return LOG_INT;
	case 'f':
	case 'g': return LOG_DOUBLE;
	default: return word ? LOG_WORD : conv == 'd' || conv == 'i' ? LOG_INT : LOG_UNSIGNED;
	}
}

/* p is behind the '%'; returns what follows the conversion. */
static const char *spec_read(const char *p, struct log_spec *s)
{
	if (*p == '0') {
		s->zero = true;
		p++;
	}
	s->width = read_number(&p);
	if (*p == '.' && p[1] == '*') {
		s->star = true;
		p += 2;
	} else if (*p == '.') {
		p++;
		s->precision = read_number(&p);
	}
	const char *length = p;
	p += *p == 'z' ? 1 : *p != 'l' ? 0 : p[1] == 'l' ? 2 : 1;
	if (*p && strchr("sdiuxXcfg%", *p)) {
		s->conv = *p;
		s->type = (uint8_t)type_of(*p, p != length);
		p++;
	}
	return p;
}

void log_format_parse(struct log_format *f, const char *text)
{
	*f = (struct log_format){ .text = text, .text_n = (uint16_t)strnlen(text, LOG_FMT_MAX) };
	f->cut = text[f->text_n];
	f->newline = memchr(text, '\n', f->text_n);
	for (const char *p = text; (p = memchr(p, '%', f->text_n - (size_t)(p - text)));) {
		struct log_spec *s = &f->spec[f->specs_n];
		*s = (struct log_spec){ .precision = -1, .start = (uint16_t)(p - text) };
		const char *end = f->specs_n < LOG_SPECS_MAX - 1 ? spec_read(p + 1, s) : p;
		if (!s->conv || end > text + f->text_n) { /* what it takes is not known, so neither is what follows */
			f->text_n = s->start;
			f->cut = true;
			return;
		}
		s->end = (uint16_t)(end - text);
		f->specs_n++;
		p = end;
	}
}

/* ---- taking ---------------------------------------------------------------------------------------------- */

/* n without a character that breaks off at its end. */
static size_t whole_characters(const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text;
	for (size_t back = 1; back <= 3 && back < n; back++) {
		unsigned c = p[n - back];
		if (c >= 0xc0)
			return back < (c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2) ? n - back : n;
		if (c < 0x80)
			return n;
	}
	return n;
}

/* Of the text what fits a line, and its precision; NULL is a text, too. */
static inline size_t text_length(const char **text, int precision)
{
	if (!*text)
		*text = "(null)";
	size_t most = (unsigned)precision < LOG_LINE_MAX ? (unsigned)precision : LOG_LINE_MAX; /* -1: none */
	size_t n = strnlen(*text, most);
	return n == LOG_LINE_MAX ? whole_characters(*text, n) : n;
}

/* By comparisons and in registers: each instruction here is one that the caller waits for. */
void log_args_take(struct log_args *to, const struct log_format *f, va_list *args)
{
	uint64_t *word = to->word;
	size_t text_bytes = 0;
	unsigned texts = 0;
	to->cut = false;
	for (const struct log_spec *s = f->spec, *end = s + f->specs_n; s < end; s++) {
		if (s->type == LOG_WORD) {
			*word++ = va_arg(*args, unsigned long);
		} else if (s->type == LOG_TEXT) {
			int precision = s->star ? va_arg(*args, int) : s->precision;
			const char *text = va_arg(*args, const char *);
			size_t n = text_length(&text, precision);
			if (text_bytes + n > LOG_ARGS_MAX) {
				to->cut = true;
				break;
			}
			text_bytes += n;
			to->text[texts].p = text;
			to->text[texts++].n = n;
			*word++ = n; /* where a number would be */
		} else if (s->type == LOG_UNSIGNED) {
			*word++ = va_arg(*args, unsigned);
		} else if (s->type == LOG_INT) {
			*word++ = (uint64_t)va_arg(*args, int);
		} else if (s->type == LOG_DOUBLE) {
			if (s->star)
				*word++ = (uint64_t)va_arg(*args, int);
			double v = va_arg(*args, double);
			memcpy(word++, &v, sizeof v);
		}
	}
	to->texts = texts;
	to->text_bytes = text_bytes;
	to->words = (unsigned)(word - to->word);
}

/* ---- printing ------------------------------------------------------------------------------- */

struct unpack {
	const char *word, *word_end, *text;
};

static inline bool unpack(struct unpack *a, void *word)
{
	if (a->word == a->word_end)
		return false;
	memcpy(word, a->word, 8);
	a->word += 8;
	return true;
}

/* Digits of v with a sign, filled up to the width. */
static char *put_digits(char *o, const struct log_spec *s, unsigned long long v, bool negative)
{
	char digits[24], *end = digits + sizeof digits, *p = end;
	const char *alphabet = s->conv == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
	if (s->conv == 'x' || s->conv == 'X')
		do
			*--p = alphabet[v % 16];
		while (v /= 16);
	else
		do
			*--p = (char)('0' + v % 10);
		while (v /= 10);
	int n = (int)(end - p) + negative;
	int fill = s->width < 64 && s->width > n ? s->width - n : 0;
	for (; !s->zero && fill; fill--)
		*o++ = ' ';
	if (negative)
		*o++ = '-';
	for (; fill; fill--)
		*o++ = '0';
	return mempcpy(o, p, (size_t)(end - p));
}

static char *put_double(char *o, const struct log_spec *s, int precision, double v)
{
	enum { ROOM = 64 };
	precision = precision < 0 ? 6 : precision > 20 ? 20 : precision;
	bool fixed = s->conv == 'f' && v < 1e30 && v > -1e30; /* 300 digits help nobody */
	return o + (fixed ? snprintf(o, ROOM, "%.*f", precision, v) : snprintf(o, ROOM, "%.*g", precision, v));
}

/* The end of what it wrote; NULL: the argument was cut off. */
static char *put_arg(char *o, const struct log_spec *s, struct unpack *a)
{
	union {
		long long i;
		unsigned long long u;
		double d;
	} v, precision = { .i = s->precision };
	if (s->conv == '%') {
		*o++ = '%';
		return o;
	}
	if ((s->type == LOG_DOUBLE && s->star && !unpack(a, &precision)) || !unpack(a, &v))
		return NULL;
	switch (s->conv) {
	case 's': a->text += v.u; return log_put_value(o, a->text - v.u, v.u);
	case 'f':
	case 'g': return put_double(o, s, (int)precision.i, v.d);
	case 'c': return log_put_value(o, &(char){ (char)v.i }, 1);
	case 'd':
	case 'i': return put_digits(o, s, v.i < 0 ? -v.u : v.u, v.i < 0);
	default: return put_digits(o, s, v.u, false);
	}
}

char *log_put_format(char *o, const struct log_format *f, const char *args, unsigned words, bool *whole)
{
	struct unpack a = { args, args + 8 * words, args + 8 * words };
	size_t from = 0;
	for (unsigned i = 0; i < f->specs_n; i++) {
		const struct log_spec *s = &f->spec[i];
		o = mempcpy(o, f->text + from, s->start - from);
		from = s->end;
		char *end = put_arg(o, s, &a);
		if (!end) {
			*whole = false;
			return o;
		}
		o = end;
	}
	*whole = !f->cut;
	return mempcpy(o, f->text + from, f->text_n - from);
}
