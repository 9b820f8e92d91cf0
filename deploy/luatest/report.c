#include "deploy/luatest/report.h"
#include <stdio.h>
#include <string.h>

void report_begin(struct report *r, const char *service)
{
	if (r->tap)
		puts("TAP version 13");
	else
		printf("\n %s\n", service);
}

static void indented(const char *indent, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "\n");

		printf("%s%.*s\n", indent, (int)n, text);
		text += n + (text[n] == '\n');
	}
}

static void tap(struct report *r, const char *file, const char *name, bool ok, const char *why, const char *log)
{
	printf("%s %u - %s: %s\n", ok ? "ok" : "not ok", r->passed + r->failed, file, name);
	if (ok)
		return;
	puts("  ---\n  message: |");
	indented("    ", why);
	if (*log) {
		puts("  log: |");
		indented("    ", log);
	}
	puts("  ...");
}

void report_test(struct report *r, const char *file, const char *name, bool ok, const char *why, const char *log,
		 uint64_t took_us)
{
	if (ok)
		r->passed++;
	else
		r->failed++;
	if (r->tap) {
		tap(r, file, name, ok, why, log);
		return;
	}
	if (r->file != file)
		printf("  %s\n", file);
	r->file = file;
	printf("    %s %-72s %6.2f ms\n", ok ? "✓" : "✗", name, (double)took_us / 1000);
	if (ok)
		return;
	indented("        ", why);
	if (*log)
		puts("      log:");
	indented("        ", log);
}

void report_cover(struct report *r, const char *path, unsigned ran, unsigned lines, const char *missing)
{
	double share = lines ? 100.0 * ran / lines : 100.0;

	printf("%s %-34s %5.1f %%  %4u of %-4u%s%s\n", r->tap ? "# coverage" : "   ", path, share, ran, lines,
	       *missing ? "  not: " : "", missing);
}

void report_end(struct report *r, uint64_t took_us)
{
	unsigned all = r->passed + r->failed;
	double seconds = (double)(took_us ? took_us : 1) / 1e6;

	if (r->tap)
		printf("1..%u\n# ", all);
	else
		printf("\n ");
	printf("%u passed, %u failed in %.3f s (%.0f tests/s)\n", r->passed, r->failed, seconds, all / seconds);
}
