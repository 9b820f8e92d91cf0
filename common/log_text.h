#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "common/log.h"
/*
 * log_text: what a log line's format and values become. Private to log*.c and to tests that stand in for them.
 *
 * A format is parsed once; the caller's thread packs the words of its values (log.h) by it into the record, the log thread
 * prints them by it. The two agree on nothing but the format.
 *
 * Packed values are all words, a string's length in place of its pointer, and behind them the strings.
 *
 * Threads: any; a parsed format does not change.
 */
enum { LOG_SPECS_MAX = 24, LOG_FMT_MAX = 1024, LOG_STRINGS_MAX = 2 * LOG_LINE_MAX };

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
	uint8_t words_n, strings_n;
	struct {
		uint8_t word; /* of a string; with %.* the one before it is its precision */
		bool star;
		int16_t precision; /* -1: none */
	} string[LOG_SPECS_MAX];
	bool cut;     /* it is longer, or goes on with what is not known */
	bool newline; /* there is one in it */
	struct log_spec spec[LOG_SPECS_MAX];
};
/*
 * Strings on their way into a record. They are measured first, for only then their bytes are known, and copied straight into
 * the ring: to pack them beside it and copy that would read back what the processor has not written yet.
 */
struct log_strings {
	size_t bytes; /* at most LOG_STRINGS_MAX */
	struct {
		const char *p;
		size_t n;
	} at[LOG_SPECS_MAX];
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
void log_strings_take(struct log_strings *to, const struct log_format *f, const uint64_t *words);
static inline size_t log_packed_bytes(const struct log_format *f, const struct log_strings *s)
{
	return f->words_n * sizeof(uint64_t) + s->bytes;
}
/* log_packed_bytes. Word by word: their caller has just written them so, and a wider load would wait for that. */
static inline void log_pack(char *to, const struct log_format *f, const uint64_t *words, const struct log_strings *s)
{
	char *p = to;
	for (const uint64_t *end = words + f->words_n; words < end; words++, p += sizeof *words)
		memcpy(p, words, sizeof *words);
	for (unsigned i = 0; i < f->strings_n; i++) {
		memcpy(to + f->string[i].word * sizeof *words, &s->at[i].n, sizeof *words);
		p = log_copy(p, s->at[i].p, s->at[i].n);
	}
}

/* The two that follow write at `to` and return the end. */
#define LOG_VALUE_ROOM(n) (4 * (size_t)(n) + 2)
#define LOG_FORMAT_ROOM   (LOG_FMT_MAX + LOG_VALUE_ROOM(LOG_STRINGS_MAX) + LOG_SPECS_MAX * 72)
/* As it is, or quoted and escaped if it holds anything that could be taken for more than one value: LOG_VALUE_ROOM(n). */
char *log_put_value(char *to, const char *text, size_t n);
/* What log_pack has written: LOG_FORMAT_ROOM. */
char *log_put_format(char *to, const struct log_format *f, const char *packed);
