#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
/*
 * jsonscan: the words of JSON: white space, numbers, strings. What they mean is their reader's business (lua_json).
 *
 * Threads: any; pure. Memory: none; what is found is pointed at in the text.
 */
#define JSONSCAN_NUMBER 64 /* bytes of a number */

struct jsonscan {
	const char *text, *p, *end; /* p: what comes next */
};
struct jsonscan_fault {
	const char *what;     /* what is wrong with the value, or NULL: */
	const char *expected; /* the text is no JSON: this was expected */
	const char *at;
};
struct jsonscan_number {
	bool is_integer, is_big; /* big: an integer beyond 64 bits; neither: a float */
	int64_t i;
	double d; /* of floats and big ones */
	const char *p;
	size_t n;
};
struct jsonscan_string { /* as it stands between its quotes */
	const char *p;
	size_t n;
	bool plain; /* no escapes, no CESU-8: the bytes are the text */
};

static inline void jsonscan_space(struct jsonscan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
		s->p++;
}

/* The next byte behind white space, 0 at the end. */
static inline char jsonscan_peek(struct jsonscan *s)
{
	jsonscan_space(s);
	return s->p < s->end ? *s->p : 0;
}

/* Takes c if it comes next. */
static inline bool jsonscan_next(struct jsonscan *s, char c)
{
	jsonscan_space(s);
	if (s->p >= s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

/* Takes the word ("null") if it stands right here. */
static inline bool jsonscan_word(struct jsonscan *s, const char *word)
{
	size_t n = strlen(word);
	if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
		return false;
	s->p += n;
	return true;
}

static inline bool jsonscan_at_number(const struct jsonscan *s)
{
	return s->p < s->end && (*s->p == '-' || (*s->p >= '0' && *s->p <= '9'));
}

/* The number that stands right here; it ends where a number can end. 0, or ERR_BAD_REQUEST with the fault. */
int jsonscan_number(struct jsonscan *s, struct jsonscan_number *x, struct jsonscan_fault *f);
/* The string whose opening quote was just taken; the closing one is taken too. Escapes are checked by write_out. */
int jsonscan_string(struct jsonscan *s, struct jsonscan_string *out, struct jsonscan_fault *f);
/* Writes its text to out, which has room for n bytes; returns the length, or -1: a wrong escape. */
ssize_t jsonscan_write_out(const struct jsonscan_string *s, char *out);
