#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/env.h"
#include "common/log.h"
#include "common/loop.h"
#include "dbwriter/follow.h"
/*
 * replay: lands the SQL logs of this host in the database, exactly once.
 *
 * Every folder below `folder` is the log of one instance and a stream of its own, landed in the order (epoch, lsn), many
 * records per transaction, the streams in turn over one connection. A transaction moves the position of its stream first,
 *
 *     BEGIN; UPDATE loquat_replay SET epoch, lsn, … WHERE instance AND epoch = before AND lsn = before
 *
 * and goes on only if that changed the row: so position and rows change together or not at all, a lost answer to COMMIT
 * is settled by reading the position, and a second dbwriter finds the row moved (or locked) and lands nothing twice.
 *
 * Syncs:    none: a log is its writer's to sync, and where a failed sync is told only once, it must be told to the writer.
 *           So after a power cut the database may be ahead of a log by its last, unsynced batch, which nobody was answered
 *           for; the log's next epoch uses those numbers anew, and is landed on top (follow.h).
 * Away:     lost connections, locks, full disks are waited for, with back-off; the logs only grow.
 * Refused:  a record that the database refuses for good is found, appended to FOLDER/quarantine.sql with the reason,
 *           synced, counted and passed over, in a transaction that only moves the position. If dbwriter dies between the
 *           two it stands there twice, with the same lsn. An alarm is logged.
 * Damaged:  a log with damage or missing numbers stops there, alone, with an alarm, until it is mended.
 * Keeping:  files that have landed are removed when they are older than keep_s.
 *
 * Threads: replay_new, replay_free: the loop's; the figures: any thread. The loop's thread blocks while files are read,
 *          so it should do little else.
 */
struct replay;
#define SCHEMA_GAMES           500 /* deploy/schema/NNN-name.sql: from this NNN on a game's, below it Loquat's */
#define REPLAY_CONNECTIONS_MAX 16
struct replay_options {
	const char *folder;         /* var/sqllog; copied */
	struct env_db_options db;   /* the texts must outlive the replay */
	unsigned batch_records_max; /* 0: 40000 */
	size_t batch_bytes_max;     /* 0: 10 MiB */
	unsigned connections;       /* 0: 1; at most REPLAY_CONNECTIONS_MAX */
	unsigned array_rows_min;    /* statements of one shape that go as arrays rather than texts. 0: 8 */
	bool no_fold;               /* every statement is executed */
	bool no_arrays;             /* as with a database that takes none */
	bool one_by_one;            /* no plans: the records' own text */
	uint32_t poll_ms;           /* folders are watched; this often they are looked at all the same. 0: 500 */
	uint64_t keep_s;
	uint64_t low_bytes;  /* with less room than this on their disk, files that have landed go at once */
	bool hold_keys;      /* later records of a refused record's keys are kept aside too, not landed */
	uint32_t standby_ms; /* the logs are copies: a log's records land when its position has not moved for so
				  * long, that is when the dbwriter of its host does not land them; 0: at once */
	/* Of such a copy this file, and so all behind it, cannot be landed: it is asked for as long as it is so. NULL: nobody */
	void (*on_damaged)(void *arg, const char *instance, uint32_t file, struct position landed);
	void *on_damaged_arg;
	uint64_t once_keep_s;    /* answers of once-calls without a business key go from the database after it, by the
				  * time of the newest record that landed or our clock, whichever is less; 0: never */
	uint32_t forget_each_ms; /* how often they are looked for; the first time after as long. 0: an hour */
	unsigned schema[2];      /* waits until loquat_schema has these versions; 0: whatever is there */
};
struct replay *replay_new(struct loop *loop, struct log *log, const struct replay_options *o);
void replay_free(struct replay *r); /* a transaction under way is rolled back; NULL is fine */

struct replay_figures {
	uint64_t lag_records; /* in the logs and not landed */
	uint64_t lag_ms;      /* of the oldest, by its time or since it is known here; 0: none */
	uint64_t records, transactions, quarantined, fenced, retries; /* since the start */
	uint64_t folded;           /* statements that another took in, since the start */
	uint64_t epoch, lsn;       /* of one instance: its position */
	unsigned streams, stopped; /* stopped: by damage or a gap; of copies: damaged, or not whole again */
	unsigned refused; /* the database answers, and has taken nothing of it for a second: full, read only, locked */
	uint64_t kept;    /* records in quarantine.sql: somebody has to look at them; of all instances only */
	uint64_t forgotten; /* rows of loquat_once taken out for their age; of all instances only */
	bool connected;     /* the database answers */
};
/* Of all instances together: sums, and the highest lag_ms. */
void replay_figures(const struct replay *r, struct replay_figures *out);
void replay_each(const struct replay *r, void (*fn)(void *arg, const char *instance, const struct replay_figures *f),
		 void *arg);
