#include "common/jsonscan.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/text.h"

static inline bool is_digit(const struct jsonscan *s, const char *p)
{
	return p < s->end && *p >= '0' && *p <= '9';
}

/* ---- numbers -------------------------------------------------------------------------------------------- */

static const double tens[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
			       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };

/* A mantissa below 2^53 and a power up to 10^22 are exact, so one operation rounds right; strtod does the rest. */
static double to_double(const struct jsonscan_number *x, uint64_t mantissa, int digits, int exponent)
{
	bool negative = *x->p == '-';
	if (digits <= 19 && mantissa < UINT64_C(1) << 53 && exponent >= -22 && exponent <= 22) {
		double v = exponent < 0 ? (double)mantissa / tens[-exponent] : (double)mantissa * tens[exponent];
		return negative ? -v : v;
	}
	char copy[JSONSCAN_NUMBER + 1];
	memcpy(copy, x->p, x->n);
	copy[x->n] = 0;
	return strtod(copy, NULL);
}

static void to_integer(struct jsonscan_number *x, uint64_t magnitude, int digits)
{
	bool negative = *x->p == '-';
	uint64_t most = (uint64_t)INT64_MAX + negative;
	if (digits > 19 || magnitude > most) {
		x->is_big = true;
		x->d = to_double(x, 0, INT_MAX, 0);
	} else if (negative && magnitude == 0) {
		x->d = -0.0; /* an integer has no sign of its own at zero */
	} else {
		x->is_integer = true;
		x->i = (int64_t)(negative ? 0 - magnitude : magnitude);
	}
}

/* Appends digits to the mantissa; count is the significant ones so far. */
static const char *run_of_digits(const struct jsonscan *s, const char *p, uint64_t *mantissa, int *count)
{
	for (; is_digit(s, p); p++) {
		*mantissa = *mantissa * 10 + (uint64_t)(*p - '0'); /* may wrap: then count is over 19 */
		*count += *count || *p != '0';
	}
	return p;
}

static int fail(struct jsonscan_fault *f, const char *at, const char *what, const char *expected)
{
	*f = (struct jsonscan_fault){ what, expected, at };
	return ERR_BAD_REQUEST;
}

/* [.digits][e[+-]digits]; sets *fraction if there was any of it. */
static int fraction_and_exponent(const struct jsonscan *s, struct jsonscan_fault *f, const char **at,
				 uint64_t *mantissa, int *count, int *exponent, bool *fraction)
{
	const char *p = *at;
	if (p < s->end && *p == '.') {
		const char *first = ++p;
		p = run_of_digits(s, p, mantissa, count);
		if (p == first)
			return fail(f, p, NULL, "a digit");
		*exponent = -(int)(p - first);
		*fraction = true;
	}
	if (p < s->end && (*p == 'e' || *p == 'E')) {
		int e = 0;
		bool minus = ++p < s->end && *p == '-';
		p += p < s->end && (*p == '-' || *p == '+');
		if (!is_digit(s, p))
			return fail(f, p, NULL, "a digit");
		for (; is_digit(s, p); p++)
			e = e < 10000 ? e * 10 + (*p - '0') : e;
		*exponent += minus ? -e : e;
		*fraction = true;
	}
	*at = p;
	return 0;
}

int jsonscan_number(struct jsonscan *s, struct jsonscan_number *x, struct jsonscan_fault *f)
{
	const char *p = s->p;
	uint64_t mantissa = 0;
	int count = 0, exponent = 0;
	bool fraction = false;
	*x = (struct jsonscan_number){ .p = p };
	p += p < s->end && *p == '-';
	if (!is_digit(s, p))
		return fail(f, p, NULL, "a digit");
	if (*p == '0' && is_digit(s, p + 1))
		return fail(f, p, "a number must not begin with 0", NULL);
	p = run_of_digits(s, p, &mantissa, &count);
	int err = fraction_and_exponent(s, f, &p, &mantissa, &count, &exponent, &fraction);
	if (err < 0)
		return err;
	x->n = (size_t)(p - x->p);
	if (x->n > JSONSCAN_NUMBER)
		return fail(f, p, "a number of more than 64 characters", NULL);
	if (fraction)
		x->d = to_double(x, mantissa, count, exponent);
	else
		to_integer(x, mantissa, count);
	if (isinf(x->d))
		return fail(f, p, "the number is out of range", NULL);
	s->p = p;
	return 0;
}

/* ---- strings -------------------------------------------------------------------------------------------- */

static uint32_t cesu8(const char *p, const char *end) /* a pair of 3-byte surrogates; 0: none */
{
	const unsigned char *s = (const unsigned char *)p;
	if (end - p < 6 || s[0] != 0xed || (s[1] & 0xf0) != 0xa0 || (s[2] & 0xc0) != 0x80 || s[3] != 0xed ||
	    (s[4] & 0xf0) != 0xb0 || (s[5] & 0xc0) != 0x80)
		return 0;
	uint32_t high = (uint32_t)(s[1] & 0x0f) << 6 | (s[2] & 0x3f),
		 low = (uint32_t)(s[4] & 0x0f) << 6 | (s[5] & 0x3f);
	return 0x10000 + (high << 10) + low;
}

/* 1: goes on, 0: look closer (quote, backslash, control, not ASCII) */
static const unsigned char plain_byte[256] = { [0x20 ... 0x21] = 1, [0x23 ... 0x5b] = 1, [0x5d ... 0x7f] = 1 };

int jsonscan_string(struct jsonscan *s, struct jsonscan_string *out, struct jsonscan_fault *f)
{
	const char *p = s->p;
	out->p = p;
	out->plain = true;
	for (;;) {
		while (p < s->end && plain_byte[(unsigned char)*p])
			p++;
		if (p >= s->end)
			return fail(f, p, "a string without its closing quote", NULL);
		unsigned char c = (unsigned char)*p;
		unsigned bytes;
		if (c == '"')
			break;
		if (c == '\\') {
			out->plain = false;
			p += p + 1 < s->end ? 2 : 1;
		} else if (c < 0x20) {
			return fail(f, p, "a control character in a string", NULL);
		} else if ((bytes = text_utf8(p, s->end))) {
			p += bytes;
		} else if (cesu8(p, s->end)) {
			out->plain = false;
			p += 6;
		} else {
			return fail(f, p, "a string that is not UTF-8", NULL);
		}
	}
	out->n = (size_t)(p - out->p);
	s->p = p + 1;
	return 0;
}

static bool hex4(const char *p, const char *end, uint32_t *out)
{
	if (end - p < 4)
		return false;
	*out = 0;
	for (int i = 0; i < 4; i++) {
		int c = p[i] | 0x20;
		if (!((c >= '0' && c <= '9' && p[i] < 0x40) || (c >= 'a' && c <= 'f')))
			return false;
		*out = *out << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
	}
	return true;
}

/* The character of an escape; p stands behind the backslash. Bytes read, or 0. */
static unsigned escape(const char *p, const char *end, uint32_t *code)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	uint32_t low;
	const char *letter = p < end && *p ? strchr(from, *p) : NULL;
	if (letter) {
		*code = (uint32_t)to[letter - from];
		return 1;
	}
	if (p >= end || *p != 'u' || !hex4(p + 1, end, code))
		return 0;
	if (*code < 0xd800 || *code > 0xdfff)
		return 5;
	if (*code > 0xdbff || end - p < 7 || p[5] != '\\' || p[6] != 'u' || !hex4(p + 7, end, &low) || low < 0xdc00 ||
	    low > 0xdfff)
		return 0; /* half a character */
	*code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
	return 11;
}

ssize_t jsonscan_write_out(const struct jsonscan_string *s, char *out)
{
	char *o = out;
	const char *end = s->p + s->n;
	for (const char *p = s->p; p < end;) {
		uint32_t code;
		unsigned used = 1;
		if (*p == '\\') {
			if (!(used = escape(p + 1, end, &code)))
				return -1;
			o += text_put_utf8(o, code);
			p += 1 + used;
		} else if ((unsigned char)*p == 0xed && (code = cesu8(p, end))) {
			o += text_put_utf8(o, code);
			p += 6;
		} else {
			*o++ = *p++;
		}
	}
	return o - out;
}
