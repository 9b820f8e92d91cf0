#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/env.h"
#include "common/sqllog.h"
#include "dbwriter/follow.h"
/*
 * merge: the records of several instances' logs in the order of their time, for people and for restoring.
 *
 * A source is a log file, the folder of an instance, or a folder of such folders; folders of one name, and files
 * in such, are one log and its copies. Records that stand in a log twice come once; those of a former owner behind its
 * successor's do not come. Records that are missing are told by `missing`, also those of an epoch that uses numbers anew, as
 * far as its start was noted. A file that is no log's, or a newer version's, is an error.
 *
 * Threads: one; blocking file calls.
 */
struct merge_log {
	char name[64]; /* the instance */
	char folder[ENV_PATH_MAX - 64];
	uint32_t *number; /* of the files that are left, at next */
	size_t n, next;
	bool plain; /* a file alone: it may begin anywhere */
	struct sqllog_file file;
	struct sqllog_record record;
	bool there;           /* record is one that was not taken yet */
	unsigned log;         /* the first of this name */
	struct position last; /* of that one: what came last */
	bool missing;         /* before record */
};
struct merge {
	struct env *env;
	struct merge_log *log;
	unsigned n;
	char why[ENV_PATH_MAX + 200];
};
/* 0, or an error with a line in why; release it in both cases. */
int merge_open(struct merge *m, struct env *env, const char *const *from, unsigned n);
void merge_release(struct merge *m);
/* 1: a record, valid until the next call, and where it stands; 0: no more; an error: why has the words. */
int merge_next(struct merge *m, struct sqllog_record *out, const struct merge_log **where);
/* "2026-11-22T23:00:00Z", with up to six decimals of the second, or microseconds since 1970. False: it is neither. */
bool merge_time(const char *text, uint64_t *us);
