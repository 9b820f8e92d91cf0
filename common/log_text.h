#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "common/log.h"
/*
 * log_text: what a log line's format and values become. Private to log*.c.
 *
 * A format is parsed once; the caller's thread takes its arguments by it and puts them where the record is, the log
 * thread prints them by it. The two agree on nothing but the format.
 *
 * Threads: any; a parsed format does not change.
 */
enum { LOG_SPECS_MAX = 24, LOG_FMT_MAX = 1024, LOG_ARGS_MAX = 2 * LOG_LINE_MAX };

enum log_type { /* of the argument a conversion takes; what is as wide as a long is one */
		LOG_NONE,
		LOG_INT,
		LOG_UNSIGNED,
		LOG_WORD,
		LOG_DOUBLE,
		LOG_TEXT,
};
struct log_spec {
	uint16_t start, end;      /* of "%lld" in the text */
	int16_t width, precision; /* precision -1: none */
	bool zero, star;          /* %05d, %.*s */
	char conv;                /* 0: not known */
	uint8_t type;             /* enum log_type */
};
struct log_format {
	const char *text;
	uint16_t text_n, specs_n;
	bool cut;     /* it is longer, or goes on with what is not known */
	bool newline; /* there is one in it */
	struct log_spec spec[LOG_SPECS_MAX];
};
/*
 * Arguments on their way into a record. They are taken first, for only then their bytes are known, and put straight into
 * the ring: to pack them beside it and copy that would read back what the processor has not written yet.
 */
struct log_args {
	unsigned words, texts;
	size_t text_bytes; /* at most LOG_ARGS_MAX */
	bool cut;          /* not all had room */
	uint64_t
		word[2 *
		     LOG_SPECS_MAX]; /* of a text its length; a double with %.* is two: its precision comes before it */
	struct {
		const char *p;
		size_t n;
	} text[LOG_SPECS_MAX];
};

/*
 * Copies and returns the end. The compiler must not see that n is small: it would then write rep movs, whose start
 * costs more than all else on the caller's way.
 */
static inline char *log_copy(char *to, const void *from, size_t n)
{
	if (n - 8 <= 8) { /* 8 to 16 bytes, most names: two moves that overlap */
		uint64_t first, last;
		memcpy(&first, from, 8);
		memcpy(&last, (const char *)from + n - 8, 8);
		memcpy(to, &first, 8);
		memcpy(to + n - 8, &last, 8);
		return to + n;
	}
	__asm__("" : "+r"(n));
	return mempcpy(to, from, n);
}

void log_format_parse(struct log_format *f, const char *text); /* text must stay */
void log_args_take(struct log_args *to, const struct log_format *f, va_list *args);
static inline size_t log_args_bytes(const struct log_args *a)
{
	return a->words * sizeof *a->word + a->text_bytes;
}
/* log_args_bytes: all words, then all texts */
static inline void log_args_put(const struct log_args *a, char *to)
{
	for (const uint64_t *word = a->word, *end = word + a->words; word < end; word++, to += sizeof *word)
		memcpy(to, word, sizeof *word);
	for (unsigned i = 0; i < a->texts; i++)
		to = log_copy(to, a->text[i].p, a->text[i].n);
}

/* The two that follow write at `to` and return the end. */
#define LOG_VALUE_ROOM(n) (4 * (size_t)(n) + 2)
#define LOG_FORMAT_ROOM   (LOG_FMT_MAX + LOG_VALUE_ROOM(LOG_ARGS_MAX) + LOG_SPECS_MAX * 72)
/* As it is, or quoted and escaped if it holds anything that could be taken for more than one value: LOG_VALUE_ROOM(n). */
char *log_put_value(char *to, const char *text, size_t n);
/* What log_args_put has written: LOG_FORMAT_ROOM. *whole = false: the arguments or the format ended early. */
char *log_put_format(char *to, const struct log_format *f, const char *args, unsigned words, bool *whole);
