#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/*
 * report: what the runner of scripts' tests says: TAP (testanything.org, version 13), or words and marks for people.
 *
 * Threads: one.
 */
struct report {
	bool tap;
	unsigned passed, failed;
	const char *file; /* whose tests come now */
};
void report_begin(struct report *r, const char *service);
/* why: several lines; log: what the scripts logged meanwhile. Both are shown of a test that failed. */
void report_test(struct report *r, const char *file, const char *name, bool ok, const char *why, const char *log,
		 uint64_t took_us);
void report_cover(struct report *r, const char *path, unsigned ran, unsigned lines, const char *missing);
void report_end(struct report *r, uint64_t took_us);
