#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "common/env.h"
/*
 * log: an asynchronous logger. One line per event: time level instance event key=value …
 *   2026-11-22T19:20:01.123456Z info connector-1 session.open sid=17 addr=127.0.0.1:40312
 *
 * Threads: log_* from any thread; a log thread of its own writes. Levels may be changed by any thread.
 * Memory:  a bounded ring of 2 MiB; when it is full lines are dropped and counted, and the count is logged.
 * Values:  strings are quoted and escaped where they hold space, quotes, control or non-UTF-8 bytes,
 *          so nothing a client sends can forge a line. One line is at most LOG_LINE_MAX bytes, cut with "…".
 */
#define LOG_LINE_MAX 2048
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
struct log;

/* Writes to fd 2 (path NULL) or appends to a file. instance stands in every line. ERR_IO, ERR_NOMEM and env_file_open's */
int log_open(struct env *env, const char *instance, const char *path, enum log_level level, struct log **out);
void log_close(struct log *log); /* flushes; NULL is fine */
void log_level_set(struct log *log, enum log_level level);
enum log_level log_level_get(const struct log *log);
int log_level_parse(const char *word);       /* "debug" "info" "warn" "error"; ERR_BAD_REQUEST */
uint64_t log_dropped(const struct log *log); /* lines lost to a full ring or a failed write */

/*
 * log_info(log, event, fmt, …): fmt is key=value text with printf conversions: "sid=%llu addr=%s". A %s value is quoted and
 * escaped as needed; %.*s too. Only %s %.*s %d %i %u %ld %lu %lld %llu %zu %zd %x %llx %c %f %g %% are known, with a
 * width ("%02x") and for %f and %g a precision; at any other the line is cut. Everything is copied: event, fmt
 * and the strings may change after the call. It takes no lock and makes no system call but, when the log thread
 * sleeps, one to wake it.
 */
#define log_debug(log, event, ...) \
	((log_level_get(log) <= LOG_DEBUG) ? log_write(log, LOG_DEBUG, event, __VA_ARGS__) : (void)0)
#define log_info(log, event, ...)  log_write(log, LOG_INFO, event, __VA_ARGS__)
#define log_warn(log, event, ...)  log_write(log, LOG_WARN, event, __VA_ARGS__)
#define log_error(log, event, ...) log_write(log, LOG_ERROR, event, __VA_ARGS__)
/*
 * Values go as words of eight bytes, made where the compiler knows their types: a number (of a double its bits) or a
 * string's address. Where event and fmt are literals, a place in the program is known by their addresses, since what stands
 * there never changes: no text is compared.
 */
#define log_write(log, level, event, fmt, ...)                                                       \
	((void)(0 && log_check(fmt __VA_OPT__(, ) __VA_ARGS__)),                                     \
	 log_words(log, level, event, fmt, __builtin_constant_p(event) && __builtin_constant_p(fmt), \
		   (const uint64_t[]){ LOG_WORDS(__VA_ARGS__) }))
void log_words(struct log *log, enum log_level level, const char *event, const char *fmt, bool fixed,
	       const uint64_t *words);
static inline __attribute__((format(printf, 1, 2))) bool log_check(const char *fmt, ...)
{
	return fmt;
}
static inline uint64_t log_word_number(uint64_t v)
{
	return v;
}
static inline uint64_t log_word_text(const char *text)
{
	return (uintptr_t)text;
}
static inline uint64_t log_word_double(double v)
{
	uint64_t word;
	memcpy(&word, &v, sizeof word);
	return word;
}
#define LOG_WORD(v) \
	_Generic((v), float: log_word_double, double: log_word_double, char *: log_word_text,        \
		 const char *: log_word_text, default: log_word_number)(v)
/* LOG_WORD of each of up to 54 values: D. Mazieres, "Recursive macros with C++20 __VA_OPT__". */
#define LOG_WORDS(...)    __VA_OPT__(LOG_RESCAN(LOG_EACH(__VA_ARGS__)))
#define LOG_EACH(v, ...)  LOG_WORD(v), __VA_OPT__(LOG_AGAIN LOG_PARENS(__VA_ARGS__))
#define LOG_AGAIN()       LOG_EACH
#define LOG_PARENS        ()
#define LOG_RESCAN(...)   LOG_RESCAN_3(LOG_RESCAN_3(LOG_RESCAN_3(LOG_RESCAN_3(__VA_ARGS__))))
#define LOG_RESCAN_3(...) LOG_RESCAN_2(LOG_RESCAN_2(LOG_RESCAN_2(__VA_ARGS__)))
#define LOG_RESCAN_2(...) LOG_RESCAN_1(LOG_RESCAN_1(LOG_RESCAN_1(__VA_ARGS__)))
#define LOG_RESCAN_1(...) __VA_ARGS__
/*
 * For lines that strangers can cause: LOG_BOUND_LINES in a second, then none; the first of a later second comes behind one
 * that says how many were left out (log.left_out). Threads: one's own, zeroed.
 */
#define LOG_BOUND_LINES 100
struct log_bound {
	uint64_t second;
	uint32_t lines, left_out;
};
bool log_bound_fits(struct log_bound *b, struct log *log, uint64_t now_ms);
