#include "common/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

/* Of 1 to 8 bytes; four and more by two reads that may overlap. */
static inline bool few_are_ascii(const char *p, size_t n)
{
	uint32_t first, last;
	if (n < 4)
		return !((p[0] | p[n / 2] | p[n - 1]) & 0x80);
	memcpy(&first, p, 4);
	memcpy(&last, p + n - 4, 4);
	return !((first | last) & 0x80808080);
}

int text_is_utf8(const char *p, size_t n)
{
	const char *end = p + n;
	if (n - 1 < 8 && few_are_ascii(p, n))
		return 1;
	for (uint64_t a, b; end - p >= 16; p += 16) { /* nearly all texts are ASCII from end to end */
		memcpy(&a, p, 8);
		memcpy(&b, p + 8, 8);
		if ((a | b) & 0x8080808080808080)
			break;
	}
	while (p < end) {
		size_t few = end - p < 8 ? (size_t)(end - p) : 8;
		if (few_are_ascii(p, few)) {
			p += few;
			continue;
		}
		unsigned bytes = text_utf8(p, end);
		if (!bytes)
			return 0;
		p += bytes;
	}
	return 1;
}

unsigned text_put_utf8(char out[4], uint32_t code)
{
	if (code < 0x80) {
		out[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (char)(0xc0 | code >> 6);
		out[1] = (char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (char)(0xe0 | code >> 12);
		out[1] = (char)(0x80 | (code >> 6 & 0x3f));
		out[2] = (char)(0x80 | (code & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | code >> 18);
	out[1] = (char)(0x80 | (code >> 12 & 0x3f));
	out[2] = (char)(0x80 | (code >> 6 & 0x3f));
	out[3] = (char)(0x80 | (code & 0x3f));
	return 4;
}

static size_t put_digits(char *out, uint64_t v, unsigned at_least)
{
	char text[20];
	unsigned n = 0;
	while (v || n < at_least) {
		text[n++] = (char)('0' + v % 10);
		v /= 10;
	}
	for (unsigned i = 0; i < n; i++)
		out[i] = text[n - 1 - i];
	return n;
}

// clang-format off
static const uint64_t tens[20] = {
	1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000,
	1000000000000, 10000000000000, 100000000000000, 1000000000000000, 10000000000000000, 100000000000000000,
	1000000000000000000, 10000000000000000000u,
};
// clang-format on

/*
 * Most numbers of a game are few decimals: a whole number r below 10^15 and a power of ten are both exact, and their
 * quotient is rounded right, so if r / 10^k == v then the text of r with k decimals reads back as v.
 */
static size_t put_short(char *out, double v)
{
	size_t n = 0;
	unsigned k = 8;
	double a = fabs(v);
	while (k && a * (double)tens[k] >= 1e15)
		k--;
	if (a * (double)tens[k] >= 1e15)
		return 0;
	uint64_t r = (uint64_t)(a * (double)tens[k] + 0.5);
	if ((double)r / (double)tens[k] != a)
		return 0;
	for (; k && r % 10 == 0; k--)
		r /= 10;
	if (signbit(v))
		out[n++] = '-';
	n += put_digits(out + n, r / tens[k], 1);
	out[n++] = '.';
	return n + put_digits(out + n, r % tens[k], k ? k : 1);
}

/*
 * The other numbers from 0.001 to 10^15, with 128 bits: v lies between its neighbours' middles, and all three, times the
 * 10^k that gives v 17 digits, are exact as multiples of a power of two. Any decimal between the middles reads back as
 * v; as long as a multiple of ten is among them a digit less will do. printf would take ten times as long, thrice.
 */
static size_t put_near(char *out, double v)
{
	double a = fabs(v);
	uint64_t bits;
	memcpy(&bits, &v, sizeof bits);
	uint64_t m = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
	unsigned shift = 1076 - (unsigned)(bits >> 52 & 2047); /* v is 2m / 2^shift */
	unsigned k = 16, j = 0;
	if (!(a >= 0.001 && a < 1e15) || m == UINT64_C(1) << 52)
		return 0; /* a power of two has its lower neighbour nearer: printf does these */
	for (; a >= 10; a /= 10)
		k--;
	for (; a < 1; a *= 10)
		k++;
	unsigned __int128 middle = (unsigned __int128)(2 * m) * tens[k];
	uint64_t near = (uint64_t)(middle >> shift);
	uint64_t low = (uint64_t)((middle - tens[k]) >> shift) + 1, high = (uint64_t)((middle + tens[k] - 1) >> shift);
	for (; (low + 9) / 10 <= high / 10; j++) {
		low = (low + 9) / 10;
		high /= 10;
	}
	uint64_t d = j ? (near + tens[j] / 2) / tens[j] : near;
	d = d < low ? low : d > high ? high : d;
	size_t n = 0;
	if (signbit(v))
		out[n++] = '-';
	if (j > k)
		return 0;
	n += put_digits(out + n, d / tens[k - j], 1);
	out[n++] = '.';
	return n + put_digits(out + n, d % tens[k - j], k - j);
}

size_t text_double(char out[TEXT_DOUBLE_MAX], double v, int single)
{
	size_t n = single ? 0 : put_short(out, v);
	if (!n && !single)
		n = put_near(out, v);
	if (n)
		return n;
	for (int digits = single ? 6 : 15; digits <= (single ? 9 : 17); digits++) {
		n = (size_t)snprintf(out, TEXT_DOUBLE_MAX - 2, "%.*g", digits, v);
		if (single ? strtof(out, NULL) == (float)v : strtod(out, NULL) == v)
			break;
	}
	if (!memchr(out, '.', n) && !memchr(out, 'e', n)) {
		memcpy(out + n, ".0", 2);
		n += 2;
	}
	return n;
}

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void text_base64(struct buf *out, const void *p, size_t n)
{
	const unsigned char *s = p;
	char *o = buf_reserve(out, (n + 2) / 3 * 4 + 1);
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)s[i] << 16 | (uint32_t)(i + 1 < n ? s[i + 1] : 0) << 8 |
			     (uint32_t)(i + 2 < n ? s[i + 2] : 0);
		*o++ = letters[v >> 18];
		*o++ = letters[v >> 12 & 63];
		*o++ = i + 1 < n ? letters[v >> 6 & 63] : '=';
		*o++ = i + 2 < n ? letters[v & 63] : '=';
	}
	out->len += (n + 2) / 3 * 4;
}

int64_t text_unbase64(char *out, const char *p, size_t n)
{
	uint32_t v = 0;
	unsigned bits = 0;
	int64_t bytes = 0;
	if (n && n % 4 == 0)
		n -= p[n - 1] != '=' ? 0 : p[n - 2] != '=' ? 1 : 2;
	if (n % 4 == 1)
		return ERR_BAD_REQUEST;
	for (size_t i = 0; i < n; i++) {
		const char *letter = p[i] ? strchr(letters, p[i]) : NULL;
		if (!letter)
			return ERR_BAD_REQUEST;
		v = v << 6 | (uint32_t)(letter - letters);
		if ((bits += 6) >= 8)
			out[bytes++] = (char)(v >> (bits -= 8));
	}
	return v & ((1u << bits) - 1) ? ERR_BAD_REQUEST : bytes;
}

size_t text_distance(const char *a, const char *b, size_t b_n)
{
	enum { MOST = 48 };
	size_t line[MOST + 1], a_n = strlen(a);
	if (a_n > MOST || b_n > MOST)
		return MOST;
	for (size_t j = 0; j <= b_n; j++)
		line[j] = j;
	for (size_t i = 1; i <= a_n; i++) {
		size_t diagonal = line[0];
		line[0] = i;
		for (size_t j = 1; j <= b_n; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = line[j];
			best = line[j] + 1 < best ? line[j] + 1 : best;
			line[j] = line[j - 1] + 1 < best ? line[j - 1] + 1 : best;
		}
	}
	return line[b_n];
}
