#pragma once
#include <stdio.h>
#include "common/buf.h"
#include "common/env.h"
/*
 * history: every change of a key, from the logs that are kept, in order.
 *
 * Threads: one; blocking file calls. Prints a line "TIME INSTANCE lsn N epoch N key … trace …" per record and its
 * statements below. Returns how many, or a negative error with a line in why. Records that are missing are told in between.
 */
int history_print(struct env *env, const char *const *from, unsigned n, const char *key, FILE *to, char *why,
		  size_t why_size);
