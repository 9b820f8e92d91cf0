#pragma once
#include <stdint.h>
#include "common/buf.h"
#include "common/sqllog.h"
/*
 * records: SQL logs of a test's making, byte by byte, and what stands in one.
 */
struct made { /* what of a record matters to a test; body without BEGIN and COMMIT */
	uint64_t lsn, epoch;
	const char *keys, *statements;
	uint64_t time_us; /* 0: one that grows with lsn */
};
void records_add(struct buf *b, struct made r);
void records_begin(struct buf *b); /* the first line of a file */
/* A sound record whose comment line has a field more than ours: a version to come wrote it. */
void records_add_newer(struct buf *b, struct made r);
/* FOLDER/number.sql with records first..last of an epoch: "UPDATE role SET gold = LSN WHERE id = 1", key role:1. */
void records_file(const char *folder, unsigned number, uint64_t first, uint64_t last, uint64_t epoch);
/* Opens FOLDER's log, appends n such records, closes; fails the test on trouble. */
struct sqllog *records_open(struct env *env, const char *folder);
uint64_t records_append(struct sqllog *l, const char *key, int64_t gold);
/* lsns in FOLDER's files as text, a file per line: "1-5\n6-7,7-9\n"; a bad spot is "!". */
char *records_read(struct env *env, const char *folder);
