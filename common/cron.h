#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/*
 * cron: times of the wall clock that come again, as crontab(5) writes them: "minute hour day month weekday", UTC.
 *
 * A field is * or a list of numbers, ranges 1-5 and steps * /15, 8-18/2 (without the space). Weekdays are 0 to 7, Sunday
 * is 0 and 7. If both day and weekday are restricted, either will do.
 *
 * Threads: any; pure.
 */
struct cron {
	uint64_t minutes;
	uint32_t hours, days, months, weekdays; /* bits */
	bool either;                            /* day or weekday */
};
/* why gets one line that names the field. ERR_BAD_REQUEST: also when no day ever fits (30 February). */
int cron_parse(const char *text, struct cron *out, char *why, size_t why_size);
/* The first fitting minute after this second, both in seconds since 1970. */
int64_t cron_next(const struct cron *c, int64_t after_s);
