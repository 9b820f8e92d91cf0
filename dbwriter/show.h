#pragma once
#include "common/buf.h"
#include "common/env.h"
/*
 * show: SQL logs and the replay's position, as text for a person.
 *
 * Threads: any; blocking file calls. Each appends to out and returns 0, or 1 when what it shows is not sound, or a
 * negative error with a line in out.
 */
int show_dump(struct env *env, const char *file, struct buf *out);   /* every record, statements and all */
int show_verify(struct env *env, const char *file, struct buf *out); /* one line; 1: torn or damaged */

/* One record; instance NULL: it is known from elsewhere, else the time and the instance come first. */
struct sqllog_record;
void show_record(struct buf *out, const char *instance, const struct sqllog_record *r);

/* What the database says of one instance; known false: it did not say. */
struct show_position {
	char instance[64];
	uint64_t epoch, lsn;
	bool known;
};
/* A line per log below folder. positions may be NULL: then by what dbwriter noted last. 1: something has not landed. */
int show_status(struct env *env, const char *folder, const struct show_position *positions, size_t n, struct buf *out);
