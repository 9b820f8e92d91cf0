#pragma once
#include "common/buf.h"
#include "common/env.h"
/*
 * restore: the two ways by which a person lands records.
 *
 * Threads: one; they block. Each appends lines to out and returns 0, 1 (done, but records were refused), or a negative
 * error with its line in out.
 */
struct restore_options {
	const char *const *from; /* merge.h: files, instances' folders, folders of such */
	unsigned from_n;
	uint64_t until_us;  /* records up to this time; UINT64_MAX: all */
	const char *schema; /* deploy/schema: applied where the database has no table yet */
	struct env_db_options db;
};
/*
 * The logs into an empty database, as they were at a moment. Refused: a database in which any table has a row, a log from
 * which records are missing. The positions move along, so that a dbwriter goes on from there. A record the database refuses
 * is told and passed over, as dbwriter did.
 */
int restore_replay(struct env *env, const struct restore_options *o, struct buf *out);
/*
 * Lands the records of FOLDER/quarantine.sql, in their order, after what hindered them was mended. What is refused again
 * stays in the file, and so do later records of its keys. Each lands once, whenever this is killed: its identity goes into
 * loquat_quarantine_done in the same transaction. A dbwriter may run beside.
 */
int restore_quarantine(struct env *env, const char *folder, const struct env_db_options *db, struct buf *out);
