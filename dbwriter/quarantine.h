#pragma once
#include <stdbool.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/sqllog.h"
/*
 * quarantine: the records a database refuses for good, in one file for a person to mend and run by hand.
 *
 *     -- quarantine instance=role-1 epoch=7 lsn=12 file=00000003.sql error=1062 message=Duplicate entry …
 *     -- loquat lsn=12 …              the record as it stands in the log
 *     BEGIN;
 *     …
 *
 * An entry that a power cut or a full disk has cut off, or filled up with zeroes, is moved to quarantine.sql.torn when the
 * next one comes (its record is refused again); what a person has written stays.
 *
 * Threads: owner only; blocking file calls. Held keys: those of the refused records, whichever log they stood in, for a key
 * may have moved; where keys are held, what comes later for one of them is kept aside as well, so that it lands behind. A
 * key is let go when its records have left the file: `dbwriter --quarantine` lands them once what hindered them is mended.
 */
/* The file as it was seen. */
struct quarantine_seen {
	int64_t taken; /* how often a command has taken something out: the length of the file's lock */
	int64_t bytes; /* with less, a person has; 0: there was none */
};
void quarantine_see(struct env *env, const char *path, struct quarantine_seen *out);
bool quarantine_was_taken(const struct quarantine_seen *before, const struct quarantine_seen *now);
struct quarantine_note {
	const char *instance;
	uint32_t file;
	unsigned code; /* the database's, 0: ours */
	const char *message;
	const struct quarantine_seen
		*seen; /* nothing is added when something was taken out since then; NULL: no matter */
};
/*
 * Takes out an instance's records behind a position, and puts them aside: they are read from its log again, and land or are
 * refused from there. ERR_BUSY: a command works on the file, which may land them just now; ERR_CORRUPT, ERR_IO, ERR_FULL.
 */
int quarantine_take_behind(struct env *env, const char *path, const char *instance, uint64_t epoch, uint64_t lsn);
/*
 * Appends the record (raw: comment line and body) and syncs. ERR_IO, ERR_FULL; ERR_BUSY: a command works on the file, or has
 * taken something out of it.
 */
int quarantine_add(struct env *env, const char *path, const struct quarantine_note *note,
		   const struct sqllog_record *r);

/* The file, read and locked: nothing is added meanwhile. */
struct quarantine_entry {
	char instance[64];
	const char *text; /* its first line and the record as they stand */
	size_t bytes;
	struct sqllog_record record;
	bool landed; /* the caller's: left out by quarantine_rewrite */
};
struct quarantine {
	struct env *env;
	char path[ENV_PATH_MAX];
	struct env_file *lock;
	char *text;
	struct quarantine_entry *entry;
	size_t n;
};
/*
 * A file that is not there has no entries. ERR_CORRUPT: somebody has changed a record (its checksum tells), or there are zeroes
 * between entries. why: one line.
 */
int quarantine_open(struct quarantine *q, struct env *env, const char *path, char *why, size_t why_size);
/* How many records are in the file, as far as can be told without holding it up. */
uint64_t quarantine_count(struct env *env, const char *path);
int quarantine_rewrite(struct quarantine *q); /* takes out what has landed */
void quarantine_close(struct quarantine *q);

/* Keys as they are written in records. */
struct held_keys {
	struct buf text; /* "\nkey\nkey\n" */
};
void held_release(struct held_keys *h);
void held_add(struct held_keys *h, const struct sqllog_record *r);
bool held_any(const struct held_keys *h, const struct sqllog_record *r); /* one of the record's keys is held */
void held_load(struct held_keys *h, struct env *env, const char *path);  /* of all that is in the file */
