#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "common/buf.h"
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

enum log_type { /* of the argument a conversion takes */
		LOG_NONE,
		LOG_INT,
		LOG_UNSIGNED,
		LOG_LONG,
		LOG_ULONG,
		LOG_LLONG,
		LOG_ULLONG,
		LOG_SIZE,
		LOG_SSIZE,
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
	bool cut; /* it is longer, or goes on with what is not known */
	struct log_spec spec[LOG_SPECS_MAX];
};
/*
 * Arguments on their way into a record. They are taken first, for only then their bytes are known, and put straight into
 * the ring: to pack them beside it and copy that would read back what the processor has not written yet.
 */
struct log_args {
	size_t bytes; /* that log_args_put will write, at most LOG_ARGS_MAX */
	unsigned n;
	bool cut; /* not all had room */
	struct {
		uint64_t word; /* or where the text is */
		uint32_t text_n, text;
	} arg[2 * LOG_SPECS_MAX]; /* a double is two: its precision comes before it */
};

/*
 * Copies and returns the end. The compiler must not see that n is small: it would then write rep movs, whose start
 * costs more than all else on the caller's way.
 */
static inline char *log_copy(char *to, const void *from, size_t n)
{
	__asm__("" : "+r"(n));
	return mempcpy(to, from, n);
}

void log_format_parse(struct log_format *f, const char *text); /* text must stay */
void log_args_take(struct log_args *to, const struct log_format *f, va_list *args);
char *log_args_put(const struct log_args *a, char *to); /* returns the end */
/* Appends the text; false: the arguments or the format ended early. */
bool log_format_print(const struct log_format *f, const void *args, size_t args_n, struct buf *out);
/* As it is, or quoted and escaped if it holds anything that could be taken for more than one value. */
void log_add_value(struct buf *out, const char *text, size_t n);
