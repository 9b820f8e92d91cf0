#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
/*
 * text: small pure helpers for text.
 *
 * Threads: any.
 */

/* Bytes of the well-formed UTF-8 character at p (RFC 3629: no surrogates, no overlong forms); 0: there is none. */
static inline unsigned text_utf8(const char *p, const char *end)
{
	const unsigned char *s = (const unsigned char *)p;
	size_t n = (size_t)(end - p);
	if (n && s[0] < 0x80)
		return 1;
	if (n < 2 || s[0] < 0xc2 || (s[1] & 0xc0) != 0x80)
		return 0;
	if (s[0] < 0xe0)
		return 2;
	if (n < 3 || (s[2] & 0xc0) != 0x80)
		return 0;
	if (s[0] < 0xf0)
		return (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ? 0 : 3;
	if (n < 4 || (s[3] & 0xc0) != 0x80 || s[0] > 0xf4)
		return 0;
	return (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f) ? 0 : 4;
}

/* Are all n bytes UTF-8? */
int text_is_utf8(const char *p, size_t n);
/* Writes code as UTF-8, returns the bytes (1 to 4). code is no surrogate and at most 0x10ffff. */
unsigned text_put_utf8(char out[4], uint32_t code);

/*
 * The shortest decimal text that reads back as the same number, always with '.' or 'e', so that it stays a float:
 * "1.0", "0.1", "1e+300". v is finite. Returns the length. As a float when single is set: "0.1" for 0.1f.
 */
#define TEXT_DOUBLE_MAX 32
size_t text_double(char out[TEXT_DOUBLE_MAX], double v, int single);

/* Standard base64 with padding. Decoding accepts missing padding; returns the bytes or a negative ERR_BAD_REQUEST. */
void text_base64(struct buf *out, const void *p, size_t n);
int64_t text_unbase64(char *out, const char *p, size_t n); /* out has room for n * 3 / 4 + 3 */

/* Edits that make b[0..b_n) of a; names over 48 bytes are not compared and come out as far apart. For "did you mean". */
size_t text_distance(const char *a, const char *b, size_t b_n);
