#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/log.h"
#include "common/metrics.h"
/*
 * sqllog: the SQL log of one process: ordinary SQL text in files, replayed by dbwriter.
 *
 * Record:  a comment line "-- loquat lsn=… epoch=… time=… key=… trace=… len=… crc=…\n" and len bytes of body
 *          "BEGIN; … COMMIT;\n"; crc is CRC-32C, 8 hex digits, over the line up to before " crc=" and then the body.
 * Files:   FOLDER/NNNNNNNN.sql, rotated by size, each starts with "SET NAMES utf8mb4;\n". FOLDER/lock holds the lock
 *          and the epoch. Never appended to after a torn tail: the tail is cut, a new file begins.
 * Threads: sqllog_append, _on_written, _on_durable: any worker; a SQL-log thread of its own writes and syncs in
 *          groups. Readers (sqllog_read) are pure: bytes in, records out.
 * Bounds:  one record at most SQLLOG_RECORD_MAX bytes; the ring holds ring_bytes of records not yet written; full:
 *          ERR_BUSY, nothing taken.
 * Failing: a write or sync that fails stops acknowledging: append answers ERR_UNAVAILABLE, waiters get ERR_UNKNOWN
 *          when bytes may have been written, and sqllog_failing() says so until the disk is back.
 */
#define SQLLOG_RECORD_MAX (1u << 20)
#define SQLLOG_KEY_MAX    256

/* ---- the typed builder: the only way values get into a statement ------------------------------------ */

/*
 * A record being built, one worker's. sql has one '?' per value; text and blobs are escaped here and nowhere else.
 * Canonical form: keywords as written, values as literals: integers in decimal, doubles %.17g, text '…' with
 * \0 \n \r \\ \' \" \Z escaped, blobs x'…', NULL.
 */
enum sql_type { SQL_NULL, SQL_INT, SQL_DOUBLE, SQL_TEXT, SQL_BLOB };
struct sql_value {
	enum sql_type type;
	union {
		int64_t i;
		double d;
		struct {
			const char *p;
			size_t n;
		} s;
	};
};
struct sql_record {
	struct buf body;           /* "BEGIN;\nUPDATE …;\n" so far */
	char keys[SQLLOG_KEY_MAX]; /* "role:42,bag:42" */
	uint64_t trace;
	unsigned statements;
};
void sql_record_init(struct sql_record *r);
void sql_record_release(struct sql_record *r);
void sql_record_clear(struct sql_record *r);
int sql_record_key(struct sql_record *r, const char *key); /* adds one; no comma, space or control; ERR_FULL */
/*
 * Appends one statement. ERR_BAD_REQUEST: wrong count of values, NaN or infinity, text that is not UTF-8, a ';' or
 * quote in sql itself; ERR_FULL: the record would be too long. r is unchanged then. why gets one line.
 */
int sql_record_add(struct sql_record *r, const char *sql, const struct sql_value *values, size_t n, char *why,
		   size_t why_size);
/* Only the statement's text with its literals, for reads (SELECT); the same escaping. */
int sql_format(struct buf *out, const char *sql, const struct sql_value *values, size_t n, char *why, size_t why_size);

/* ---- the writer --------------------------------------------------------------------------------------- */

struct sqllog;
struct sqllog_options {
	const char *folder;
	uint64_t file_bytes_max; /* rotation */
	size_t ring_bytes;
	uint32_t linger_us; /* waits this long for more before it syncs */
	unsigned workers;
};
/*
 * Locks the folder, reads the tail, cuts what is torn, and starts at the next lsn with epoch + 1. ERR_BUSY: another
 * process has the lock; ERR_CORRUPT: damage that is not a torn tail (error gets the line with file and offset).
 */
int sqllog_open(struct env *env, struct log *log, struct metrics *metrics, const struct sqllog_options *o, char *error,
		size_t error_size, struct sqllog **out);
/* Writes and syncs what was appended, then closes; NULL is fine. */
void sqllog_close(struct sqllog *l);
uint64_t sqllog_epoch(const struct sqllog *l);

/* Hands the record over; r is cleared. Returns ERR_BUSY, ERR_UNAVAILABLE, ERR_BAD_REQUEST (empty) or 0 and its lsn. */
int sqllog_append(struct sqllog *l, struct sql_record *r, uint64_t *lsn);
bool sqllog_failing(const struct sqllog *l);
uint64_t sqllog_lsn(const struct sqllog *l);         /* last given out */
uint64_t sqllog_written_lsn(const struct sqllog *l); /* handed to the operating system: survives the process */
uint64_t sqllog_durable_lsn(const struct sqllog *l); /* synced: survives the machine */

/*
 * A waiter, embedded in the caller's object. fn runs on the waiting worker's loop (posted to it), in lsn order, err 0
 * when lsn is durable (or written), ERR_UNKNOWN when the disk failed with bytes of it perhaps written.
 */
struct loop;
struct sqllog_waiter {
	struct sqllog_waiter *next;
	uint64_t lsn;
	bool durable;
	void (*fn)(struct sqllog_waiter *self, int err);
};
void sqllog_wait(struct sqllog *l, struct loop *loop, struct sqllog_waiter *w, uint64_t lsn, bool durable);
/* Each worker that waits registers once, before its first sqllog_wait. */
void sqllog_join(struct sqllog *l, struct loop *loop);

/*
 * The last lsn that changed a key since the position given, found in the files at opening and kept by append. 0: none
 * newer than what dbwriter is known to have replayed (sqllog_replayed prunes).
 */
uint64_t sqllog_key_lsn(struct sqllog *l, const char *key); /* any worker */
void sqllog_replayed(struct sqllog *l, uint64_t lsn);       /* everything up to it has landed in the database */

/* ---- the reader: pure ----------------------------------------------------------------------------------- */

struct sqllog_record {
	uint64_t lsn, epoch, time_us, trace;
	const char *keys;
	size_t keys_bytes;
	const char *body;
	size_t body_bytes; /* "BEGIN; … COMMIT;\n" */
	size_t bytes;      /* comment line and body */
};
/*
 * Reads one record at data. > 0: bytes it takes; 0 with skipped > 0 never: the file's first line "SET NAMES …" is
 * returned as a record with lsn 0 and its length. ERR_INCOMPLETE: more bytes are needed; ERR_CORRUPT: why names it.
 */
ssize_t sqllog_read(const char *data, size_t n, struct sqllog_record *out, char *why, size_t why_size);
uint32_t crc32c(uint32_t crc, const void *p, size_t n); /* 0 to start */
