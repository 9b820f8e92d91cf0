#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/log.h"
#include "common/err.h"
#include "tests/support/suite.h"

static struct env *env;
static struct log *l;
static char path[64];
static char *text;       /* the file's content after done() */
static uint64_t dropped; /* until then */

static void setup(void)
{
	snprintf(path, sizeof path, "/tmp/loquat-test-log-%d", getpid());
	unlink(path);
	env = env_new();
	ck_assert_int_eq(log_open(env, "chat-1", path, LOG_INFO, &l), 0);
	text = NULL;
}

static void teardown(void)
{
	log_close(l);
	env_free(env);
	free(text);
	unlink(path);
}

/* Closes the log, which writes all, and reads the file. */
static const char *done(void)
{
	size_t n;
	dropped = log_dropped(l);
	log_close(l);
	l = NULL;
	ck_assert_int_eq(env_file_load(env, path, 1 << 27, &text, &n), 0);
	return text;
}

/* The only line without its time. */
static const char *line(void)
{
	const char *t = done(), *end = strchr(t, '\n');
	ck_assert_ptr_nonnull(end);
	ck_assert_msg(end[1] == 0, "more than one line: %s", t);
	ck_assert_uint_gt(end - t, 28);
	return t + 28;
}

START_TEST(a_line_has_time_level_instance_event_and_fields)
{
	int year, month, day, hour, minute, second, us, n = 0;
	log_info(l, "session.open", "sid=%llu addr=%s", 17ull, "127.0.0.1:40312");
	ck_assert_str_eq(line(), "info chat-1 session.open sid=17 addr=127.0.0.1:40312\n");
	ck_assert_int_eq(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%6dZ %n", &year, &month, &day, &hour, &minute, &second,
				&us, &n),
			 7);
	ck_assert_int_eq(n, 28);
}
END_TEST

/* Of the line that begins at p. */
static uint64_t time_of(const char *p)
{
	struct tm tm = { 0 };
	const char *us = strptime(p, "%Y-%m-%dT%H:%M:%S.", &tm);
	ck_assert_ptr_nonnull(us);
	return (uint64_t)timegm(&tm) * 1000000 + strtoull(us, NULL, 10);
}

/* The log thread works the times out of a counter: they are those of the calls, not of its own turns. */
START_TEST(a_line_has_the_time_at_which_it_was_said)
{
	enum { LINES = 50, SLACK_US = 1000 };
	uint64_t said[2][LINES];
	for (unsigned i = 0; i < LINES; i++) {
		said[0][i] = env_wall_us(env);
		log_info(l, "x", "a=%u", i);
		said[1][i] = env_wall_us(env);
		while (env_wall_us(env) < said[1][i] + 300)
			;
	}
	const char *p = done();
	for (unsigned i = 0; i < LINES; i++, p = strchr(p, '\n') + 1) {
		ck_assert_uint_ge(time_of(p) + SLACK_US, said[0][i]);
		ck_assert_uint_le(time_of(p), said[1][i] + SLACK_US);
	}
}
END_TEST

START_TEST(the_date_is_the_one_of_the_calendar)
{
	char expected[16];
	time_t now = (time_t)(env_wall_us(env) / 1000000);
	struct tm tm;
	gmtime_r(&now, &tm);
	strftime(expected, sizeof expected, "%Y-%m-%d", &tm);
	log_info(l, "x", "a=%d", 1);
	line();
	ck_assert_msg(!strncmp(text, expected, 10), "%.10s, not %s", text, expected);
}
END_TEST

START_TEST(all_conversions_print_as_printf_does)
{
	char expected[512];
#define ARGS                                                                                                     \
	"s", 2, "abc", -5, 6, 7u, -8l, 9ul, -10ll, 11ull, (size_t)12, (ssize_t)-13, 0xabcu, 0xdef0ull, 'c', 1.5, \
		0.001, 3, 255u, 2.345, 2.5, 1e9
#define FMT "%s %.*s %d %i %u %ld %lu %lld %llu %zu %zd %x %llx %c %f %g %03d %02X %.2f %.0f %g 100%%"
	snprintf(expected, sizeof expected, "info chat-1 x " FMT "\n", ARGS);
	log_info(l, "x", FMT, ARGS);
	ck_assert_str_eq(line(), expected);
}
END_TEST

START_TEST(the_extremes_of_numbers_are_printed)
{
	log_info(l, "x", "%lld %llu %d %g %f", (long long)INT64_MIN, (unsigned long long)UINT64_MAX, 0, 1.0 / 0.0,
		 1e300);
	ck_assert_str_eq(line(), "info chat-1 x -9223372036854775808 18446744073709551615 0 inf 1e+300\n");
}
END_TEST

/* Values travel eight bytes wide: a narrower conversion prints what printf would of the argument. */
START_TEST(a_conversion_takes_no_more_than_its_width)
{
	log_info(l, "x", "%u %x %d %llx", -1, -2, (int)0x80000000u, -1ll);
	ck_assert_str_eq(line(), "info chat-1 x 4294967295 fffffffe -2147483648 ffffffffffffffff\n");
}
END_TEST

START_TEST(a_client_cannot_forge_a_line)
{
	log_info(l, "chat.send", "name=%s", "x\n2026-01-01T00:00:00.000000Z error gate-1 hacked");
	ck_assert_str_eq(line(), "info chat-1 chat.send "
				 "name=\"x\\n2026-01-01T00:00:00.000000Z error gate-1 hacked\"\n");
}
END_TEST

START_TEST(values_are_quoted_and_escaped_where_they_need_it)
{
	static const struct {
		const char *value, *text;
	} table[] = {
		{ "plain", "plain" },
		{ "", "\"\"" },
		{ "two words", "\"two words\"" },
		{ "k=v", "\"k=v\"" },
		{ "a\"b\\c", "\"a\\\"b\\\\c\"" },
		{ "\r\t\x1b[31m\x7f", "\"\\r\\t\\x1b[31m\\x7f\"" },
		{ "\u6e20\u9053-\u00e9-\U0001f347", "\u6e20\u9053-\u00e9-\U0001f347" },
		{ "\xc3(", "\"\\xc3(\"" },                 /* a character that breaks off */
		{ "\xc0\xaf", "\"\\xc0\\xaf\"" },          /* overlong */
		{ "\xed\xa0\x80", "\"\\xed\\xa0\\x80\"" }, /* surrogate */
		{ "\xf4\x90\x80\x80", "\"\\xf4\\x90\\x80\\x80\"" },
		{ "\xe6\xb8", "\"\\xe6\\xb8\"" },
		{ "\xc2\x9b", "\"\\xc2\\x9b\"" },          /* C1: a terminal takes it for ESC [ */
		{ "\xe2\x80\xa8", "\"\\xe2\\x80\\xa8\"" }, /* line separator */
	};
	enum { N = sizeof table / sizeof *table };
	for (size_t i = 0; i < N; i++)
		log_info(l, "x", "v=%s", table[i].value);
	const char *t = done();
	for (size_t i = 0; i < N; i++) {
		char expected[128];
		const char *end = strchr(t, '\n');
		snprintf(expected, sizeof expected, "info chat-1 x v=%s\n", table[i].text);
		ck_assert_msg(!strncmp(t + 28, expected, strlen(expected)), "%.*s, not %s", (int)(end - t), t,
			      expected);
		t = end + 1;
	}
}
END_TEST

START_TEST(the_event_is_escaped_too)
{
	log_info(l, "a b\n", "x=%d", 1);
	ck_assert_str_eq(line(), "info chat-1 \"a b\\n\" x=1\n");
}
END_TEST

START_TEST(a_missing_string_prints_as_null)
{
	const char *volatile none = NULL;
	log_info(l, "x", "v=%s", none);
	ck_assert_str_eq(line(), "info chat-1 x v=(null)\n");
}
END_TEST

START_TEST(strings_may_change_after_the_call)
{
	char value[] = "before", event[] = "event", fmt[] = "v=%s";
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	log_info(l, event, fmt, value);
#pragma GCC diagnostic pop
	memset(value, 'x', sizeof value - 1);
	memset(event, 'x', sizeof event - 1);
	memset(fmt, 'x', sizeof fmt - 1);
	ck_assert_str_eq(line(), "info chat-1 event v=before\n");
}
END_TEST

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
/* Literals are known by their addresses, what callers build by its text. */
START_TEST(a_line_of_literals_and_one_that_was_built_are_told_apart)
{
	char event[] = "event", fmt[] = "a=%d";
	for (int i = 0; i < 2; i++) {
		log_info(l, "event", "a=%d", 1);
		log_info(l, event, fmt, 2);
		log_info(l, "other", "a=%d", 3);
		fmt[0] = 'b';
		log_info(l, event, fmt, 4);
		log_info(l, "event", fmt, 5);
		log_info(l, event, "a=%d", 6);
		fmt[0] = 'a';
		event[0] = 'E';
	}
	const char *t = done();
	static const char *const expected[] = {
		"event a=1", "event a=2", "other a=3", "event b=4", "event b=5", "event a=6",
		"event a=1", "Event a=2", "other a=3", "Event b=4", "event b=5", "Event a=6",
	};
	for (unsigned i = 0; i < sizeof expected / sizeof *expected; i++) {
		const char *end = strchr(t, '\n');
		ck_assert_ptr_nonnull(end);
		char got[40] = "";
		memcpy(got, t + 40, (size_t)(end - t - 40) < sizeof got ? (size_t)(end - t - 40) : sizeof got - 1);
		ck_assert_str_eq(got, expected[i]);
		t = end + 1;
	}
	ck_assert_str_eq(t, "");
}
END_TEST

/* So many of one format that some find their places taken by others. */
START_TEST(places_with_one_format_keep_their_events)
{
#define ONE(n)   log_info(l, "e" #n, "a=%d", 1);
#define EIGHT(n) ONE(n##0) ONE(n##1) ONE(n##2) ONE(n##3) ONE(n##4) ONE(n##5) ONE(n##6) ONE(n##7)
#define MANY(n)  EIGHT(n##0) EIGHT(n##1) EIGHT(n##2) EIGHT(n##3) EIGHT(n##4) EIGHT(n##5) EIGHT(n##6) EIGHT(n##7)
	for (int i = 0; i < 2; i++) {
		MANY(1) MANY(2) MANY(3) MANY(4) MANY(5) MANY(6) MANY(7)
	}
	const char *t = done();
	ck_assert_uint_eq(dropped, 0);
	for (int i = 0; i < 2; i++)
		for (unsigned n = 0100; n < 01000; n++, t = strchr(t, '\n') + 1) {
			char expected[40];
			snprintf(expected, sizeof expected, "info chat-1 e%o a=1\n", n);
			ck_assert_msg(!strncmp(t + 28, expected, strlen(expected)), "not %s: %.60s", expected, t);
		}
	ck_assert_str_eq(t, "");
}
END_TEST

/* There is room for so many places; lines from others are written all the same. */
START_TEST(lines_come_from_any_number_of_places)
{
	enum { FORMATS = 5000 };
	char(*fmt)[16] = calloc(FORMATS, sizeof *fmt);
	for (int i = 0; i < FORMATS; i++) {
		snprintf(fmt[i], sizeof *fmt, "f%d=%%d", i);
		log_info(l, "x", fmt[i], 1);
	}
	log_info(l, "last", "a=%d v=%s", 7, "of literals");
	const char *t = done();
	ck_assert_uint_eq(dropped, 0);
	for (int i = 0; i < FORMATS; i++, t = strchr(t, '\n') + 1) {
		char expected[60];
		snprintf(expected, sizeof expected, "info chat-1 x f%d=1\n", i);
		ck_assert_msg(!strncmp(t + 28, expected, strlen(expected)), "line %d: %.80s", i, t);
	}
	ck_assert_str_eq(t + 28, "info chat-1 last a=7 v=\"of literals\"\n");
	free(fmt);
}
END_TEST
#pragma GCC diagnostic pop

START_TEST(a_long_line_is_cut_at_a_character)
{
	char *value = malloc(9001);
	for (int i = 0; i < 9000; i += 3)
		memcpy(value + i, "\u6e20", 4);
	log_info(l, "x", "a=%d v=%s b=%d", 1, value, 2);
	free(value);
	const char *t = line();
	size_t n = strlen(text);
	ck_assert_uint_le(n, LOG_LINE_MAX);
	ck_assert_uint_ge(n, LOG_LINE_MAX - 8);
	ck_assert_str_eq(text + n - 4, "…\n");
	ck_assert_int_eq((int)(strstr(t, "…") - strstr(t, "v=") - 2) % 3, 0);
}
END_TEST

START_TEST(many_long_values_are_cut)
{
	char value[2000];
	memset(value, 'a', sizeof value - 1);
	value[sizeof value - 1] = 0;
	log_info(l, "x", "a=%s b=%s c=%s d=%s e=%d", value, value, value, value, 7);
	line();
	ck_assert_uint_le(strlen(text), LOG_LINE_MAX);
	ck_assert_str_eq(text + strlen(text) - 4, "…\n");
}
END_TEST

START_TEST(what_is_below_the_level_is_not_written)
{
	log_debug(l, "x", "a=%d", 1);
	log_write(l, LOG_DEBUG, "x", "a=%d", 1);
	log_level_set(l, LOG_ERROR);
	log_warn(l, "x", "a=%d", 2);
	log_error(l, "x", "a=%d", 3);
	ck_assert_str_eq(line(), "error chat-1 x a=3\n");
}
END_TEST

START_TEST(levels_have_their_words)
{
	ck_assert_int_eq(log_level_parse("debug"), LOG_DEBUG);
	ck_assert_int_eq(log_level_parse("error"), LOG_ERROR);
	ck_assert_int_eq(log_level_parse("loud"), ERR_BAD_REQUEST);
	log_level_set(l, LOG_WARN);
	ck_assert_int_eq(log_level_get(l), LOG_WARN);
}
END_TEST

START_TEST(a_file_that_cannot_be_opened_is_an_error)
{
	struct log *none = NULL;
	ck_assert_int_lt(log_open(env, "x", "/nowhere/at/all.log", LOG_INFO, &none), 0);
	ck_assert_ptr_null(none);
}
END_TEST

START_TEST(the_file_is_appended_to)
{
	log_info(l, "first", "a=%d", 1);
	log_close(l);
	ck_assert_int_eq(log_open(env, "chat-1", path, LOG_INFO, &l), 0);
	log_info(l, "second", "a=%d", 2);
	ck_assert_ptr_nonnull(strstr(done(), "first a=1\n"));
	ck_assert_ptr_nonnull(strstr(text, "second a=2\n"));
}
END_TEST

/* Until this stands in the file. */
static void wait_for(const char *words)
{
	uint64_t deadline = env_mono_ns(env) + 60000000000u;
	bool found = false;
	while (!found && env_mono_ns(env) < deadline) {
		char *now;
		size_t n;
		if (env_file_load(env, path, 1 << 27, &now, &n) == 0) {
			found = strstr(now, words);
			free(now);
		}
	}
	ck_assert(found);
}

START_TEST(a_line_is_written_without_closing)
{
	log_info(l, "x", "a=%d", 1);
	wait_for("x a=1\n");
}
END_TEST

/* ---- many lines: nothing is lost without being counted ---- */

enum { THREADS = 4 };
static unsigned lines_each;

static void *many(void *arg)
{
	unsigned thread = (unsigned)(size_t)arg;
	char filler[300];
	memset(filler, 'f', sizeof filler);
	for (unsigned i = 0; i < lines_each; i++)
		log_info(l, "many", "t=%u i=%u v=%.*s", thread, i, (int)(i * 7 % sizeof filler), filler);
	return NULL;
}

static void run_threads(void)
{
	pthread_t threads[THREADS];
	for (size_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, many, (void *)i);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

/* Each line is whole and each thread's are in order; returns how many there are. */
static uint64_t lines_checked(const char *t)
{
	uint64_t lines = 0;
	long last[THREADS] = { -1, -1, -1, -1 };
	for (const char *end; (end = strchr(t, '\n')); t = end + 1) {
		unsigned thread, i;
		int n = 0;
		if (memmem(t, (size_t)(end - t), "log.dropped", strlen("log.dropped")))
			continue;
		if (sscanf(t + 28, "info chat-1 many t=%u i=%u v=%n", &thread, &i, &n) != 2 || thread >= THREADS)
			ck_abort_msg("broken line: %.*s", (int)(end - t), t);
		size_t value = (size_t)(end - (t + 28 + n));
		if (value != (i * 7 % 300 ? i * 7 % 300 : 2) || (long)i <= last[thread])
			ck_abort_msg("wrong line: %.*s", (int)(end - t), t);
		last[thread] = i;
		lines++;
	}
	return lines;
}

START_TEST(a_burst_that_fits_the_ring_is_written_whole)
{
	lines_each = 400; /* 4 * 400 * at most 448 bytes */
	run_threads();
	ck_assert_uint_eq(log_dropped(l), 0);
	ck_assert_uint_eq(lines_checked(done()), THREADS * 400);
}
END_TEST

START_TEST(what_does_not_fit_is_counted_and_the_count_is_logged)
{
	lines_each = 30000;
	run_threads();
	const char *t = done();
	uint64_t told = 0, last = 0;
	ck_assert_uint_eq(lines_checked(t) + dropped, THREADS * 30000u);
	for (const char *p = t; (p = strstr(p, "log.dropped lines=")); p++) {
		unsigned long long lines, total;
		ck_assert_int_eq(sscanf(p, "log.dropped lines=%llu total=%llu", &lines, &total), 2);
		told += lines;
		last = total;
	}
	ck_assert_uint_eq(told, dropped);
	ck_assert_uint_eq(last, dropped);
}
END_TEST

/* Says it until it has room; how often it had none. */
#define SAY(...)                          \
	do {                              \
		was = log_dropped(l);     \
		log_info(l, __VA_ARGS__); \
	} while (log_dropped(l) != was)

/*
 * A round of the ring is filled with lines of two grains whose second one begins with what would be the mark of a record
 * there in the next round; then one short line brings the log thread to just these places.
 */
START_TEST(what_a_value_left_in_the_ring_is_not_taken_for_a_line)
{
	enum { GRAIN = 64, RING = 2 << 20 };
	unsigned long long was, like = 2 << 16 | 1;
	for (unsigned i = 0; i < RING / (2 * GRAIN); i++)
		SAY("x", "a=%llx %llx %llx %llx %llx %llx %llx", like, like, like, like, like, like, like);
	SAY("short", "a=%d", 1);
	wait_for("short a=1\n");
	for (unsigned i = 0; i < 3; i++)
		SAY("last", "a=%u", i);
	const char *t = done();
	unsigned lines = 0;
	for (; (t = strchr(t, '\n')); t++)
		lines++;
	for (t = text; (t = strstr(t, "log.dropped")); t++)
		lines--;
	ck_assert_uint_eq(lines, RING / (2 * GRAIN) + 4);
	ck_assert_ptr_nonnull(strstr(text, "last a=0\n"));
	ck_assert_ptr_nonnull(strstr(text, "last a=2\n"));
}
END_TEST

START_TEST(a_full_disk_loses_lines_but_nothing_else)
{
	struct log *full;
	ck_assert_int_eq(log_open(env, "x", "/dev/full", LOG_INFO, &full), 0);
	log_info(full, "x", "a=%d", 1);
	uint64_t deadline = env_mono_ns(env) + 60000000000u;
	while (!log_dropped(full) && env_mono_ns(env) < deadline)
		;
	ck_assert_uint_ge(log_dropped(full), 1);
	log_close(full);
}
END_TEST

START_TEST(lines_that_strangers_cause_are_bounded_in_each_second_and_their_number_is_told)
{
	struct log_bound b = { 0 };
	unsigned fit = 0;

	for (unsigned i = 0; i < LOG_BOUND_LINES + 7; i++)
		fit += log_bound_fits(&b, l, 5000 + i);
	ck_assert_uint_eq(fit, LOG_BOUND_LINES);
	ck_assert(log_bound_fits(&b, l, 6000));
	ck_assert_ptr_nonnull(strstr(line(), "info chat-1 log.left_out lines=7 "));
}
END_TEST

START_TEST(few_lines_a_second_all_fit)
{
	struct log_bound b = { 0 };

	for (unsigned i = 0; i < 10 * LOG_BOUND_LINES; i++)
		ck_assert(log_bound_fits(&b, l, i * 1000 / LOG_BOUND_LINES));
	ck_assert_str_eq(done(), "");
}
END_TEST

int main(void)
{
	TCase *c = tcase_create("log");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, a_line_has_time_level_instance_event_and_fields);
	tcase_add_test(c, a_line_has_the_time_at_which_it_was_said);
	tcase_add_test(c, the_date_is_the_one_of_the_calendar);
	tcase_add_test(c, all_conversions_print_as_printf_does);
	tcase_add_test(c, the_extremes_of_numbers_are_printed);
	tcase_add_test(c, a_conversion_takes_no_more_than_its_width);
	tcase_add_test(c, a_client_cannot_forge_a_line);
	tcase_add_test(c, values_are_quoted_and_escaped_where_they_need_it);
	tcase_add_test(c, the_event_is_escaped_too);
	tcase_add_test(c, a_missing_string_prints_as_null);
	tcase_add_test(c, strings_may_change_after_the_call);
	tcase_add_test(c, a_line_of_literals_and_one_that_was_built_are_told_apart);
	tcase_add_test(c, places_with_one_format_keep_their_events);
	tcase_add_test(c, lines_come_from_any_number_of_places);
	tcase_add_test(c, a_long_line_is_cut_at_a_character);
	tcase_add_test(c, many_long_values_are_cut);
	tcase_add_test(c, what_is_below_the_level_is_not_written);
	tcase_add_test(c, levels_have_their_words);
	tcase_add_test(c, a_file_that_cannot_be_opened_is_an_error);
	tcase_add_test(c, the_file_is_appended_to);
	tcase_add_test(c, a_line_is_written_without_closing);
	tcase_add_test(c, a_burst_that_fits_the_ring_is_written_whole);
	tcase_add_test(c, what_does_not_fit_is_counted_and_the_count_is_logged);
	tcase_add_test(c, what_a_value_left_in_the_ring_is_not_taken_for_a_line);
	tcase_add_test(c, a_full_disk_loses_lines_but_nothing_else);
	tcase_add_test(c, lines_that_strangers_cause_are_bounded_in_each_second_and_their_number_is_told);
	tcase_add_test(c, few_lines_a_second_all_fit);
	return suite_run("log", c);
}
