#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>
#include "tests/support/crash.h"

void crash_waits_add(struct crash_waits *sum, const char *ledger)
{
	struct crash_waits one;
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s.waits", ledger);
	int fd = open(path, O_RDONLY);
	if (fd >= 0 && read(fd, &one, sizeof one) == sizeof one)
		for (unsigned k = 0; k < CRASH_WAITS; k++)
			sum->below[k] += one.below[k];
	close(fd);
}

struct crash_waited crash_waited(const struct crash_waits *from, const struct crash_waits *to)
{
	struct crash_waited r = { 0 };
	uint64_t total = 0, seen = 0;
	for (unsigned i = 0; i < CRASH_WAITS; i++)
		total += to->below[i] - from->below[i];
	for (unsigned i = 0; i < CRASH_WAITS; i++) {
		uint64_t n = to->below[i] - from->below[i];
		double ms = (double)(1ull << i) / 1000;
		r.p50_ms = seen * 2 < total ? ms : r.p50_ms;
		r.p99_ms = seen * 100 < total * 99 ? ms : r.p99_ms;
		r.max_ms = n ? ms : r.max_ms;
		seen += n;
	}
	return r;
}
