#include "common/cron.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/err.h"

enum { DAYS_AHEAD = 8 * 366 + 1 }; /* 29 February may be eight years away */

static const struct field {
	const char *name;
	unsigned min, max;
} fields[] = { { "minute", 0, 59 }, { "hour", 0, 23 }, { "day", 1, 31 }, { "month", 1, 12 }, { "weekday", 0, 7 } };

static const char five_fields[] = "expected five fields: minute hour day month weekday";

struct reader {
	const char *at;
};

static bool number(struct reader *r, unsigned *out)
{
	unsigned n = 0, digits = 0;

	while (*r->at >= '0' && *r->at <= '9' && digits < 3) {
		n = n * 10 + (unsigned)(*r->at++ - '0');
		digits++;
	}
	*out = n;
	return digits > 0;
}

/* One of a list: "*", "5", "1-5", each perhaps with "/2". */
static bool part(struct reader *r, const struct field *f, uint64_t *bits)
{
	unsigned from = f->min, to = f->max, step = 1;

	if (*r->at == '*') {
		r->at++;
	} else {
		if (!number(r, &from))
			return false;
		to = from;
		if (*r->at == '-' && (r->at++, !number(r, &to)))
			return false;
	}
	if (*r->at == '/' && (r->at++, !number(r, &step)))
		return false;
	if (from < f->min || to > f->max || from > to || !step)
		return false;
	for (unsigned i = from; i <= to; i += step)
		*bits |= UINT64_C(1) << i;
	return true;
}

static bool field(struct reader *r, const struct field *f, uint64_t *bits)
{
	*bits = 0;
	r->at += strspn(r->at, " ");
	do {
		if (!part(r, f, bits))
			return false;
	} while (*r->at == ',' && r->at++);
	return *r->at == ' ' || !*r->at;
}

static bool day_fits(const struct cron *c, const struct tm *t)
{
	bool day = c->days >> t->tm_mday & 1, weekday = c->weekdays >> t->tm_wday & 1;

	if (!(c->months >> (t->tm_mon + 1) & 1))
		return false;
	return c->either ? day || weekday : day && weekday;
}

/* The first fitting minute of a day from this second of it on, or -1. */
static int64_t in_day(const struct cron *c, int64_t from_s)
{
	int64_t first = (from_s + 59) / 60;

	for (int64_t minute = first; minute < 24 * 60; minute++)
		if ((c->hours >> (minute / 60) & 1) && (c->minutes >> (minute % 60) & 1))
			return minute * 60;
	return -1;
}

int64_t cron_next(const struct cron *c, int64_t after_s)
{
	int64_t from = after_s + 1, day = from - from % 86400;

	for (int i = 0; i < DAYS_AHEAD; i++, day += 86400) {
		time_t at = (time_t)day;
		struct tm t;

		if (!gmtime_r(&at, &t) || !day_fits(c, &t))
			continue;
		int64_t in = in_day(c, i == 0 ? from - day : 0);

		if (in >= 0)
			return day + in;
	}
	return -1;
}

int cron_parse(const char *text, struct cron *out, char *why, size_t why_size)
{
	struct reader r = { text };
	uint64_t bits[5];

	for (size_t i = 0; i < 5; i++) {
		if (i && !r.at[strspn(r.at, " ")]) {
			snprintf(why, why_size, "%s, found %zu", five_fields, i);
			return ERR_BAD_REQUEST;
		}
		if (!field(&r, &fields[i], &bits[i])) {
			snprintf(why, why_size, "%s: expected *, or numbers from %u to %u as 5, 1-5, */2 or 1,3",
				 fields[i].name, fields[i].min, fields[i].max);
			return ERR_BAD_REQUEST;
		}
	}
	if (r.at[strspn(r.at, " ")]) {
		snprintf(why, why_size, "%s", five_fields);
		return ERR_BAD_REQUEST;
	}
	bits[4] |= bits[4] >> 7; /* 7 is Sunday, too */
	struct cron c = { bits[0], (uint32_t)bits[1], (uint32_t)bits[2], (uint32_t)bits[3], (uint32_t)bits[4], false };

	c.either = bits[2] != UINT64_C(0xfffffffe) && (bits[4] & 0x7f) != 0x7f;
	if (cron_next(&c, 0) < 0) {
		snprintf(why, why_size, "day: this day never comes");
		return ERR_BAD_REQUEST;
	}
	*out = c;
	return 0;
}
