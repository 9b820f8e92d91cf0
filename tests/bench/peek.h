#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * peek: one field of a server's JSON, without a parser: the first "name": at any depth. Good for
 * the flat answers of setting up; string values with escapes do not occur there.
 *
 * Memory: bytes need no terminator; results are copied out, untouched when the field is absent.
 */
static inline const char *peek(const uint8_t *json, size_t bytes, const char *name, size_t *left)
{
	char key[64];
	int n = snprintf(key, sizeof key, "\"%s\":", name);
	const char *found = memmem(json, bytes, key, (size_t)n);
	if (!found)
		return NULL;
	found += n;
	*left = bytes - (size_t)(found - (const char *)json);
	while (*left && *found == ' ') {
		found++;
		--*left;
	}
	return found;
}

static inline bool peek_number(const uint8_t *json, size_t bytes, const char *name, double *value)
{
	size_t left = 0;
	const char *found = peek(json, bytes, name, &left);
	char text[32], *end;
	if (!found)
		return false;
	snprintf(text, sizeof text, "%.*s", (int)(left < 31 ? left : 31), found);
	double v = strtod(text, &end);
	if (end == text)
		return false;
	*value = v;
	return true;
}

static inline bool peek_string(const uint8_t *json, size_t bytes, const char *name, char *value, size_t room)
{
	size_t left = 0;
	const char *found = peek(json, bytes, name, &left);
	if (!found || !left || *found != '"')
		return false;
	const char *end = memchr(found + 1, '"', left - 1);
	if (!end || (size_t)(end - found) > room)
		return false;
	memcpy(value, found + 1, (size_t)(end - found) - 1);
	value[end - found - 1] = 0;
	return true;
}
