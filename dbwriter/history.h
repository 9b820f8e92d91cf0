#pragma once
#include <stddef.h>
#include "common/buf.h"
#include "common/env.h"
/*
 * history: every change of a key, from the logs that are kept, in order.
 *
 * Threads: one; blocking file calls. Hands over a line "TIME INSTANCE lsn N epoch N key … trace …" per record and its
 * statements below. Returns how many, or a negative error with a line in why. Records that are missing are told in between.
 */
int history_each(struct env *env, const char *const *from, unsigned n, const char *key,
		 void (*fn)(void *arg, const char *text, size_t bytes), void *arg, char *why, size_t why_size);
