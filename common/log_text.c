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

/* Which words its value is. */
static void spec_words(struct log_format *f, const struct log_spec *s)
{
	if (s->type == LOG_NONE)
		return;
	f->words_n += 1u + s->star;
	if (s->type != LOG_TEXT)
		return;
	f->string[f->strings_n].word = f->words_n - 1u;
	f->string[f->strings_n].star = s->star;
	f->string[f->strings_n++].precision = s->precision;
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
		spec_words(f, s);
		p = end;
	}
}

/* ---- packing --------------------------------------------------------------------------------------------- */

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
static inline size_t string_length(const char **text, int precision)
{
	if (!*text)
		*text = "(null)";
	size_t most = (unsigned)precision < LOG_LINE_MAX ? (unsigned)precision : LOG_LINE_MAX; /* -1: none */
	size_t n = strnlen(*text, most);
	return n == LOG_LINE_MAX ? whole_characters(*text, n) : n;
}

/* What has no room is left out: before it the line is longer than a line may be. */
void log_strings_take(struct log_strings *to, const struct log_format *f, const uint64_t *words)
{
	to->bytes = 0;
	for (unsigned i = 0; i < f->strings_n; i++) {
		const uint64_t *word = &words[f->string[i].word];
		const char *text = (const char *)(uintptr_t)*word;
		size_t n = string_length(&text, f->string[i].star ? (int)word[-1] : f->string[i].precision);
		if (to->bytes + n > LOG_STRINGS_MAX)
			n = 0;
		to->bytes += n;
		to->at[i].p = text;
		to->at[i].n = n;
	}
}

/* ---- printing ------------------------------------------------------------------------------- */

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

/* Of the packed values what is not printed yet. */
struct unpack {
	const char *word, *string;
};

static inline uint64_t unpack(struct unpack *u)
{
	uint64_t word;
	memcpy(&word, u->word, sizeof word);
	u->word += sizeof word;
	return word;
}

static double as_double(uint64_t word)
{
	double d;
	memcpy(&d, &word, sizeof d);
	return d;
}

static char *put_signed(char *o, const struct log_spec *s, int64_t v)
{
	return put_digits(o, s, v < 0 ? -(uint64_t)v : (uint64_t)v, v < 0);
}

/* A word is as wide as a long whatever the argument was: a narrower conversion takes its low half. */
static char *put_value(char *o, const struct log_spec *s, struct unpack *u)
{
	int precision = s->star ? (int)unpack(u) : s->precision;
	uint64_t v = unpack(u);
	switch (s->conv) {
	case 's': u->string += v; return log_put_value(o, u->string - v, v);
	case 'f':
	case 'g': return put_double(o, s, precision, as_double(v));
	case 'c': return log_put_value(o, &(char){ (char)v }, 1);
	case 'd':
	case 'i': return put_signed(o, s, s->type == LOG_WORD ? (int64_t)v : (int)v);
	default: return put_digits(o, s, s->type == LOG_WORD ? v : (unsigned)v, false);
	}
}

char *log_put_format(char *o, const struct log_format *f, const char *packed)
{
	struct unpack u = { packed, packed + f->words_n * sizeof(uint64_t) };
	size_t from = 0;
	for (unsigned i = 0; i < f->specs_n; i++) {
		const struct log_spec *s = &f->spec[i];
		o = mempcpy(o, f->text + from, s->start - from);
		from = s->end;
		if (s->conv == '%')
			*o++ = '%';
		else
			o = put_value(o, s, &u);
	}
	return mempcpy(o, f->text + from, f->text_n - from);
}
