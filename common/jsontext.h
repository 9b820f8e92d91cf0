#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/buf.h"
/*
 * jsontext: JSON as text, for code that passes it on without building values.
 *
 * Threads: any thread; pure. Memory: only what out needs.
 * Text:    UTF-8, and CESU-8 as old browser clients send it (characters above U+FFFF as two surrogates of 3
 *          bytes each); a lone surrogate is refused.
 * Bounds:  nesting at most JSONTEXT_DEPTH_MAX.
 */
#define JSONTEXT_DEPTH_MAX 64

struct jsontext {
	bool wide; /* holds characters above U+FFFF in UTF-8 or CESU-8: see jsontext_narrow */
};
/* One JSON object with nothing but white space around it. 0 or ERR_BAD_REQUEST; why names the place. */
int jsontext_object(const char *p, size_t n, struct jsontext *out, const char **why);

/*
 * Appends valid JSON text with every character above U+FFFF as \uD83D\uDE00: the only form that every pomelo
 * client reads.
 */
void jsontext_narrow(struct buf *out, const char *p, size_t n);

bool jsontext_utf8(const char *p, size_t n); /* whether it is UTF-8, without surrogates */

/* Appends a quoted JSON string; what is not UTF-8 becomes U+FFFD, characters above U+FFFF are escaped. */
void jsontext_quote(struct buf *out, const char *p, size_t n);

/*
 * Finds member name of a valid object's top level: the value's text, strings with their quotes. The first of
 * several of the same name. false: absent. Names written with escapes are not recognised as equal.
 */
bool jsontext_member(const char *p, size_t n, const char *name, const char **value, size_t *value_n);
