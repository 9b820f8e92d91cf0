#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/env.h"
#include "common/sqllog.h"
/*
 * follow: one instance's SQL log, read in order from a position on, while it is being written.
 *
 * Threads: owner only; blocking file calls.
 * Order:   (epoch, lsn). What was seen or landed is skipped. A record of an older epoch behind a newer one is a former
 *          owner's: refused, counted, skipped. Numbers that are missing stop the stream.
 * Ends:    a file is left when a later one exists and nothing more comes in it. A bad spot at the end of the log is a
 *          record under way or a torn tail, which its writer cuts when it starts: waited for. A bad spot with whole
 *          records behind it, and no later file that goes on without a gap, is damage: the stream stops there, and goes
 *          on by itself when the file has been mended.
 */
struct position {
	uint64_t epoch, lsn; /* both 0: before the first record */
};
int position_compare(struct position a, struct position b); /* -1, 0, 1 */

/* What to do with a record; pure. last: the record before it in the log, lsn 0: none was seen. */
enum follow_verdict {
	FOLLOW_APPLY,
	FOLLOW_FORK,   /* apply: the database is ahead of what the log kept; a new epoch uses these numbers anew */
	FOLLOW_SKIP,   /* landed already */
	FOLLOW_FENCED, /* of a former owner */
	FOLLOW_GAP     /* records before it are missing */
};
enum follow_verdict follow_judge(struct position record, struct position last, struct position landed);

enum follow_state {
	FOLLOW_END,     /* everything there is was read */
	FOLLOW_RECORD,  /* a record is to be applied */
	FOLLOW_WAITING, /* the log ends inside a record */
	FOLLOW_STOPPED, /* damage or missing records: why says where and what */
	FOLLOW_PASSED   /* `most` records were passed over: there may be more */
};
struct follow {
	struct env *env;
	char folder[ENV_PATH_MAX - 64];
	uint32_t number; /* of the file that is read; 0: none yet */
	struct sqllog_file file;
	bool leaving;          /* a later file was seen: read once more, then leave */
	struct position last;  /* record seen last, in the log's order */
	struct position taken; /* record returned last, or the position it began at */
	uint64_t fenced;       /* records refused so far */
	bool forked;           /* the record returned last was a FOLLOW_FORK */
	unsigned most;         /* the caller's: so many are passed over in one call; 0: any number */
	uint32_t bad; /* FOLLOW_STOPPED: the file that is damaged, or before which records are missing; 0: neither */
	char why[300];
};
/* Begins behind a position; opens nothing yet. */
void follow_init(struct follow *f, struct env *env, const char *folder, struct position landed);
void follow_release(struct follow *f);
/* The next record to apply, valid until the next call. ERR_IO: why has the words. Any other result may be asked again. */
int follow_next(struct follow *f, struct sqllog_record *out);
/* The number of the last file that begins at or before a position; 0: none, or it cannot be told now. */
uint32_t follow_file_of(struct env *env, const char *folder, struct position at);
/* The last record in the folder, by a look at its end; lsn 0: none found. */
struct position follow_last(struct env *env, const char *folder);
struct position follow_last_of(struct env *env, const char *path); /* of one file */
uint64_t follow_last_lsn(struct env *env, const char *folder);
