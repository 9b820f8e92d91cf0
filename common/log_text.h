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
 * A format is parsed once; the caller's thread packs its arguments by it, the log thread prints them by it. The
 * two agree on nothing but the format.
 *
 * Threads: any; a parsed format does not change.
 */
enum { LOG_SPECS_MAX = 24, LOG_FMT_MAX = 1024, LOG_ARGS_MAX = 2 * LOG_LINE_MAX };

struct log_spec {
	uint16_t start, end;      /* of "%lld" in the text */
	int16_t width, precision; /* precision -1: none */
	bool zero, star;          /* %05d, %.*s */
	char length;              /* 0, 'l', 'L' for ll, 'z' */
	char conv;                /* 0: not known */
};
struct log_format {
	const char *text;
	uint16_t text_n, specs_n;
	bool cut; /* it is longer, or goes on with what is not known */
	struct log_spec spec[LOG_SPECS_MAX];
};
struct log_pack {
	size_t n;
	bool cut; /* not all had room */
	char bytes[LOG_ARGS_MAX];
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
void log_format_pack(const struct log_format *f, struct log_pack *to, va_list *args);
/* Appends the text; false: the arguments or the format ended early. */
bool log_format_print(const struct log_format *f, const void *args, size_t args_n, struct buf *out);
/* As it is, or quoted and escaped if it holds anything that could be taken for more than one value. */
void log_add_value(struct buf *out, const char *text, size_t n);
