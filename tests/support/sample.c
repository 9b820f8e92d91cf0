#include "tests/support/sample.h"

#include <stdio.h>
#include <stdlib.h>

char *sample_read(const char *path, size_t *n)
{
	FILE *f = fopen(path, "rb");
	if (!f) {
		fprintf(stderr, "%s: cannot be read; run make, and the test from the top folder\n", path);
		exit(2);
	}
	char *text = NULL;
	size_t cap = 0;
	*n = 0;
	do {
		text = realloc(text, cap += 64 * 1024);
		*n += fread(text + *n, 1, cap - *n - 1, f);
	} while (*n == cap - 1);
	text[*n] = 0;
	fclose(f);
	return text;
}

struct schema *sample_schema(void)
{
	size_t n;
	char *bytes = sample_read("build/tests.desc", &n), error[256];
	struct schema *s;
	if (schema_load(bytes, n, error, sizeof error, &s) < 0) {
		fprintf(stderr, "build/tests.desc: %s\n", error);
		exit(2);
	}
	free(bytes);
	return s;
}
