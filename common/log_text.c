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

static bool plain(const unsigned char *p, size_t n)
{
	if (n == 0)
		return false;
	for (size_t i = 0; i < n;) {
		unsigned bytes = p[i] < 0x80 ? 1 : utf8_bytes(p + i, n - i);
		if (bytes == 0 || p[i] <= ' ' || p[i] == '"' || p[i] == '\\' || p[i] == '=' || p[i] == 0x7f)
			return false;
		i += bytes;
	}
	return true;
}

static void add_escaped_byte(struct buf *out, unsigned char c)
{
	switch (c) {
	case '\n': buf_addstr(out, "\\n"); break;
	case '\r': buf_addstr(out, "\\r"); break;
	case '\t': buf_addstr(out, "\\t"); break;
	case '"': buf_addstr(out, "\\\""); break;
	case '\\': buf_addstr(out, "\\\\"); break;
	default: buf_addf(out, "\\x%02x", c);
	}
}

void log_add_value(struct buf *out, const char *text, size_t n)
{
	const unsigned char *p = (const unsigned char *)text;
	if (plain(p, n)) {
		buf_add(out, text, n);
		return;
	}
	buf_addch(out, '"');
	for (size_t i = 0; i < n;) {
		unsigned bytes = p[i] < 0x80 ? 1 : utf8_bytes(p + i, n - i);
		if (bytes == 0 || p[i] < ' ' || p[i] == '"' || p[i] == '\\' || p[i] == 0x7f) {
			add_escaped_byte(out, p[i++]);
			continue;
		}
		buf_add(out, text + i, bytes);
		i += bytes;
	}
	buf_addch(out, '"');
}

/* ---- formats --------------------------------------------------------------------------------------------- */

static int16_t read_number(const char **p)
{
	int n = 0;
	for (; **p >= '0' && **p <= '9'; (*p)++)
		n = n < 1000 ? n * 10 + (**p - '0') : n;
	return (int16_t)n;
}

/* length: 0, 'l', 'L' for ll, 'z' */
static enum log_type type_of(char conv, char length)
{
	bool is_signed = conv == 'd' || conv == 'i';
	switch (conv) {
	case '%': return LOG_NONE;
	case 's': return LOG_TEXT;
	case 'c': return LOG_INT;
	case 'f':
	case 'g': return LOG_DOUBLE;
	default: break;
	}
	switch (length) {
	case 'l': return is_signed ? LOG_LONG : LOG_ULONG;
	case 'L': return is_signed ? LOG_LLONG : LOG_ULLONG;
	case 'z': return is_signed ? LOG_SSIZE : LOG_SIZE;
	default: return is_signed ? LOG_INT : LOG_UNSIGNED;
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
	char length = 0;
	if (*p == 'l' && p[1] == 'l') {
		length = 'L';
		p += 2;
	} else if (*p == 'l' || *p == 'z') {
		length = *p++;
	}
	if (*p && strchr("sdiuxXcfg%", *p)) {
		s->conv = *p++;
		s->type = (uint8_t)type_of(s->conv, length);
	}
	return p;
}

void log_format_parse(struct log_format *f, const char *text)
{
	*f = (struct log_format){ .text = text, .text_n = (uint16_t)strnlen(text, LOG_FMT_MAX) };
	f->cut = text[f->text_n];
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

static inline void take(struct log_args *a, uint64_t word)
{
	if (a->bytes + 8 > LOG_ARGS_MAX) {
		a->cut = true;
		return;
	}
	a->arg[a->n].word = word;
	a->arg[a->n++].text = false;
	a->bytes += 8;
}

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

static void take_text(struct log_args *a, const char *text, int precision)
{
	if (!text)
		text = "(null)";
	size_t most = precision >= 0 && precision < LOG_LINE_MAX ? (size_t)precision : LOG_LINE_MAX;
	size_t n = strnlen(text, most);
	if (n == LOG_LINE_MAX)
		n = whole_characters(text, n);
	if (a->bytes + 2 + n > LOG_ARGS_MAX) {
		a->cut = true;
		return;
	}
	a->arg[a->n].word = (uintptr_t)text;
	a->arg[a->n].text_n = (uint32_t)n;
	a->arg[a->n++].text = true;
	a->bytes += 2 + n;
}

static void take_double(struct log_args *a, int precision, double v)
{
	uint64_t word;
	memcpy(&word, &v, sizeof word);
	take(a, (uint64_t)(int64_t)precision);
	take(a, word);
}

void log_args_take(struct log_args *to, const struct log_format *f, va_list *args)
{
	to->bytes = 0;
	to->n = 0;
	to->cut = false;
	for (unsigned i = 0; i < f->specs_n && !to->cut; i++) {
		const struct log_spec *s = &f->spec[i];
		int precision = s->star ? va_arg(*args, int) : s->precision;
		switch ((enum log_type)s->type) {
		case LOG_NONE: break;
		case LOG_INT: take(to, (uint64_t)va_arg(*args, int)); break;
		case LOG_UNSIGNED: take(to, va_arg(*args, unsigned)); break;
		case LOG_LONG: take(to, (uint64_t)va_arg(*args, long)); break;
		case LOG_ULONG: take(to, va_arg(*args, unsigned long)); break;
		case LOG_LLONG: take(to, (uint64_t)va_arg(*args, long long)); break;
		case LOG_ULLONG: take(to, va_arg(*args, unsigned long long)); break;
		case LOG_SIZE: take(to, va_arg(*args, size_t)); break;
		case LOG_SSIZE: take(to, (uint64_t)va_arg(*args, ssize_t)); break;
		case LOG_DOUBLE: take_double(to, precision, va_arg(*args, double)); break;
		case LOG_TEXT: take_text(to, va_arg(*args, const char *), precision); break;
		}
	}
}

char *log_args_put(const struct log_args *a, char *to)
{
	for (unsigned i = 0; i < a->n; i++) {
		if (!a->arg[i].text) {
			memcpy(to, &a->arg[i].word, 8);
			to += 8;
			continue;
		}
		memcpy(to, &(uint16_t){ (uint16_t)a->arg[i].text_n }, 2);
		to = log_copy(to + 2, (const char *)(uintptr_t)a->arg[i].word, a->arg[i].text_n);
	}
	return to;
}

/* ---- printing ------------------------------------------------------------------------------- */

struct unpack {
	const char *p, *end;
};

static bool unpack(struct unpack *a, void *word, size_t n)
{
	if ((size_t)(a->end - a->p) < n)
		return false;
	memcpy(word, a->p, n);
	a->p += n;
	return true;
}

/* Digits of v with a sign, filled up to the width. */
static void add_digits(struct buf *out, const struct log_spec *s, unsigned long long v, bool negative, unsigned base)
{
	char digits[24], *p = digits + sizeof digits;
	const char *alphabet = s->conv == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
	do
		*--p = alphabet[v % base];
	while (v /= base);
	int n = (int)(digits + sizeof digits - p) + negative;
	int fill = s->width < 64 && s->width > n ? s->width - n : 0;
	while (!s->zero && fill && fill--)
		buf_addch(out, ' ');
	if (negative)
		buf_addch(out, '-');
	while (fill-- > 0)
		buf_addch(out, '0');
	buf_add(out, p, (size_t)(digits + sizeof digits - p));
}

static void add_double(struct buf *out, const struct log_spec *s, int precision, double v)
{
	char text[64];
	precision = precision < 0 ? 6 : precision > 20 ? 20 : precision;
	bool fixed = s->conv == 'f' && v < 1e30 && v > -1e30; /* 300 digits help nobody */
	int n = fixed ? snprintf(text, sizeof text, "%.*f", precision, v)
		      : snprintf(text, sizeof text, "%.*g", precision, v);
	buf_add(out, text, (size_t)n);
}

static bool add_arg(struct buf *out, const struct log_spec *s, struct unpack *a)
{
	union {
		long long i;
		unsigned long long u;
		double d;
	} v;
	long long precision;
	uint16_t n;
	switch (s->conv) {
	case '%': buf_addch(out, '%'); return true;
	case 's':
		if (!unpack(a, &n, sizeof n) || a->end - a->p < n)
			return false;
		log_add_value(out, a->p, n);
		a->p += n;
		return true;
	case 'f':
	case 'g':
		if (!unpack(a, &precision, 8) || !unpack(a, &v, 8))
			return false;
		add_double(out, s, (int)precision, v.d);
		return true;
	default:
		if (!unpack(a, &v, 8))
			return false;
	}
	if (s->conv == 'c')
		log_add_value(out, &(char){ (char)v.i }, 1);
	else if (s->conv == 'd' || s->conv == 'i')
		add_digits(out, s, v.i < 0 ? -v.u : v.u, v.i < 0, 10);
	else
		add_digits(out, s, v.u, false, s->conv == 'u' ? 10 : 16);
	return true;
}

bool log_format_print(const struct log_format *f, const void *args, size_t args_n, struct buf *out)
{
	struct unpack a = { args, (const char *)args + args_n };
	size_t from = 0;
	for (unsigned i = 0; i < f->specs_n; i++) {
		const struct log_spec *s = &f->spec[i];
		buf_add(out, f->text + from, s->start - from);
		from = s->end;
		if (!add_arg(out, s, &a))
			return false;
	}
	buf_add(out, f->text + from, f->text_n - from);
	return !f->cut;
}
