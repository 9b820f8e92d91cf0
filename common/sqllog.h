#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/buf.h"
#include "common/env.h"
#include "common/log.h"
#include "common/metrics.h"
/*
 * sqllog: the SQL log of one process: ordinary SQL text in files, replayed by dbwriter.
 *
 * Record:  a comment line "-- loquat lsn=… epoch=… time=… key=… trace=… len=… crc=…\n" and len bytes of body
 *          "BEGIN;\n…;\nCOMMIT;\n"; crc is CRC-32C, 8 hex digits, over the line up to before " crc=" and then the body.
 *          One statement per line: text never holds a raw newline, so "\n-- loquat " begins a record and nothing else.
 *          Behind BEGIN may stand which request made it: "-- request=role.shopHandler.buy\n", a comment to any client.
 * Files:   FOLDER/NNNNNNNN.sql, rotated by size, each starts with "SET NAMES utf8mb4;\n". Each start of the process
 *          begins a new file. Beside them: lock, locked by the writer; epoch, a line per start: its epoch and the lsn it
 *          began behind; clean, after a stop in order; replayed, what dbwriter has landed (a hint that shortens opening);
 *          NNNNNNNN.cut, the bytes of a tail that was cut.
 * Numbers: lsn grows by one per record, across files and starts; epoch grows with each start (in a folder that knows
 *          none it begins at the seconds since 1970, above any that counted from an earlier beginning). The order of
 *          changes is (epoch, lsn): after a power cut the log may end before what dbwriter has landed of it, and the
 *          next epoch uses those numbers anew. After a failed write or sync the batch is written again, byte for byte,
 *          into a new file: a reader skips an lsn it has seen in this epoch, and a bad spot behind which a next file
 *          goes on without a gap is no damage. All records of a batch carry one time, later than the batch before.
 * Threads: sqllog_append, _wait, _key_lsn: any worker; a SQL-log thread of its own writes and syncs in groups.
 *          The builder is the owner's; the reader is pure: bytes in, records out.
 * Bounds:  one body is at most SQLLOG_RECORD_MAX bytes; the ring holds ring_bytes of records not yet written; full:
 *          ERR_BUSY, nothing taken.
 * Failing: a write or sync that fails stops acknowledging: append answers ERR_UNAVAILABLE (nothing taken), every waiter
 *          gets ERR_UNKNOWN, and sqllog_failing() says so until the disk is back. A record that was accepted before
 *          stays in memory and is written first when the disk is back, so no lsn is ever left out: its effect comes
 *          later, or never if the process dies before. Who got ERR_UNKNOWN drops the key and reads it back.
 */
#define SQLLOG_RECORD_MAX (1u << 20)
#define SQLLOG_KEY_MAX    256
#define SQLLOG_HEAD_MAX   512 /* bytes of a comment line */

/* ---- the typed builder: the only way values get into a statement ------------------------------------ */

/*
 * A record being built, one worker's. sql has one '?' per value; text and blobs are escaped here and nowhere else. A record
 * that is cleared and used again costs less: it knows the statements it had.
 * Canonical form: keywords as written, values as literals: integers in decimal, doubles %.17g (-0.0 as 0), text '…' with
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
struct sql_form;
#define SQL_FORMS 8
struct sql_record {
	struct buf body;           /* "BEGIN;\nUPDATE …;\n" so far; statements 0: at most its beginning */
	char keys[SQLLOG_KEY_MAX]; /* "role:42,bag:42" */
	uint16_t keys_bytes;
	unsigned statements;
	uint64_t trace;
	bool cleared;                     /* it is used more than once: then it keeps the forms of its statements */
	struct sql_form *form[SQL_FORMS]; /* of those seen last */
};
void sql_record_init(struct sql_record *r);
void sql_record_release(struct sql_record *r);
void sql_record_clear(struct sql_record *r);
/*
 * Adds a key the record changes (once is enough). Any text of 1 to 80 bytes; in the file its space, comma, % and control
 * bytes stand as %XX. ERR_FULL: no room for more; ERR_BAD_REQUEST: empty or too long. r is unchanged then.
 */
int sql_record_key(struct sql_record *r, const char *key);
/*
 * Which request makes the record: before its first statement; letters, digits and "._-/", at most
 * SQLLOG_REQUEST_MAX of them, anything else is left out.
 */
#define SQLLOG_REQUEST_MAX 128
void sql_record_request(struct sql_record *r, const char *method);
/*
 * Appends one statement: INSERT, UPDATE, DELETE or REPLACE of plain ASCII. ERR_BAD_REQUEST: another verb, wrong count of
 * values, NaN or infinity, text that is not UTF-8, a ';', quote, backslash, comment or control byte in sql itself;
 * ERR_FULL: the record would be too long. r is unchanged then. why gets one line.
 */
int sql_record_add(struct sql_record *r, const char *sql, const struct sql_value *values, size_t n, char *why,
		   size_t why_size);
/* Only the statement's text with its literals, appended to out, for reads (SELECT); the same escaping and refusals. */
int sql_format(struct buf *out, const char *sql, const struct sql_value *values, size_t n, char *why, size_t why_size);

/* ---- the writer --------------------------------------------------------------------------------------- */

struct sqllog;
struct sqllog_options {
	const char *folder;
	uint64_t file_bytes_max; /* rotation; 0: 64 MiB */
	size_t ring_bytes;       /* 0: 8 MiB; rounded up to a power of two, at least 4 MiB */
	/*
	 * A batch waits so long for more before it is written and synced; UINT32_MAX: the default, 1000. It goes at once
	 * when a worker's turn ends in which somebody began to wait: all that the turn handed over is there then.
	 */
	uint32_t linger_us;
	unsigned workers; /* loops that may join: loop->index below it */
	bool replicated;  /* durable is what another host has, too: sqllog_replicated tells */
};
/*
 * Locks the folder, reads what dbwriter has not landed, cuts what is torn, and starts at the next lsn with epoch + 1.
 * log and metrics may be NULL. ERR_BUSY: another process has the lock; ERR_CORRUPT: damage that is not a torn tail,
 * or a file that is none of this log; ERR_NEWER: a newer version wrote it. error gets one line with file and offset.
 */
int sqllog_open(struct env *env, struct log *log, struct metrics *metrics, const struct sqllog_options *o, char *error,
		size_t error_size, struct sqllog **out);
/*
 * Writes and syncs what was appended, posts the waiters, ends the SQL-log thread; append answers ERR_UNAVAILABLE from
 * then on. Call it while the loops that joined still run; not from one of them.
 */
void sqllog_stop(struct sqllog *l);
/* Stops if it was not stopped, and frees; the loops that joined have ended. NULL is fine. */
void sqllog_close(struct sqllog *l);
uint64_t sqllog_epoch(const struct sqllog *l);
/* The position behind the last record given out: of this epoch, or what was found at opening. 0, 0: there is none. */
void sqllog_position(const struct sqllog *l, uint64_t *epoch, uint64_t *lsn);
/* The epoch that the folder's last writer noted at its start; 0: none did, or there is no such folder. Blocking. */
uint64_t sqllog_noted_epoch(struct env *env, const char *folder);

/*
 * Hands the record over: 0 and its lsn (lsn may be NULL), r is cleared. ERR_BUSY, ERR_UNAVAILABLE, ERR_BAD_REQUEST
 * (empty): nothing was taken, r is unchanged.
 */
int sqllog_append(struct sqllog *l, struct sql_record *r, uint64_t *lsn);
/*
 * Records handed over from now on bear a later time, whatever the clock says, as they do after the last record found at
 * opening. So the time orders a key's records over the logs of all its owners, though each host has a clock of its own.
 */
void sqllog_later_than(struct sqllog *l, uint64_t time_us);
bool sqllog_failing(const struct sqllog *l);
uint64_t sqllog_lsn(const struct sqllog *l);         /* last given out */
uint64_t sqllog_written_lsn(const struct sqllog *l); /* handed to the operating system: survives the process */
uint64_t sqllog_durable_lsn(const struct sqllog *l); /* synced: survives the machine; replicated: its loss, too */
/* Of a replicated log: what the other host has synced, as a position of this log. One thread. */
void sqllog_replicated(struct sqllog *l, uint64_t epoch, uint64_t lsn);

/*
 * A waiter, embedded in the caller's object. fn runs on the waiting worker's loop (posted to it, never inside
 * sqllog_wait), in lsn order, one wake-up per batch: err 0 when lsn is durable (or written), ERR_UNKNOWN when the disk
 * failed before. fn may append and wait anew.
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
 * Whether a position read from the database (loquat_replay: epoch, lsn) covers the key's last change, so that what is read
 * with it is that key's present state. The last changes are found in the files at opening and kept by append, in a table
 * of fixed size: keys that share a place make an answer only later than need be, never too early.
 * sqllog_key_lsn: that change's lsn; 0: none, or it has landed as far as sqllog_replayed was told.
 */
bool sqllog_key_landed(const struct sqllog *l, const char *key, uint64_t epoch, uint64_t lsn); /* any worker */
uint64_t sqllog_key_lsn(const struct sqllog *l, const char *key);                              /* any worker */
void sqllog_replayed(struct sqllog *l, uint64_t epoch, uint64_t lsn);                          /* any worker */

struct sqllog_figures {
	uint64_t records, bytes, syncs; /* since the start */
	uint64_t unsynced;              /* records given out and not yet durable */
	uint64_t failures;              /* writes or syncs that failed */
	uint32_t file;                  /* highest file number so far */
};
void sqllog_figures(const struct sqllog *l, struct sqllog_figures *out); /* any thread */

/* ---- the reader: pure ----------------------------------------------------------------------------------- */

struct sqllog_record {
	uint64_t lsn, epoch, time_us, trace;
	const char *keys;
	size_t keys_bytes;
	const char *body; /* "BEGIN;\n … COMMIT;\n" */
	size_t body_bytes;
	size_t bytes; /* comment line and body */
};
/*
 * Reads one record at data: > 0: the bytes it takes; the file's first line "SET NAMES …" is returned as a record with
 * lsn 0 and its length. ERR_INCOMPLETE: more bytes are needed (n 0 too); ERR_CORRUPT: why names it; ERR_NEWER: a first
 * line with more behind it, or a record that is sound but for its comment line, which has other fields than ours.
 */
ssize_t sqllog_read(const char *data, size_t n, struct sqllog_record *out, char *why, size_t why_size);
/* Offset of the first record that verifies at or behind from; -1: none. What stands before it is damage, not a torn tail. */
ssize_t sqllog_find(const char *data, size_t n, size_t from);
/* Takes the keys one by one, as written: *at from 0; false: no more. */
bool sqllog_key_next(const struct sqllog_record *r, size_t *at, const char **key, size_t *bytes);
/* The statements of a body without its BEGIN and COMMIT lines; *count: how many, one per line. */
const char *sqllog_statements(const struct sqllog_record *r, size_t *bytes, unsigned *count);
/* Which request made the record; "" with *bytes 0: it does not say. */
const char *sqllog_request(const struct sqllog_record *r, size_t *bytes);
/* Writes the comment line of a record with its crc; out has SQLLOG_HEAD_MAX bytes. Returns its length. */
size_t sqllog_head(char *out, const struct sqllog_record *r);
uint32_t crc32c(uint32_t crc, const void *p, size_t n); /* 0 to start */

/* ---- a file of records, read in order ---------------------------------------------------------------------- */

/* Blocking. Zero it before open; the record lives until the next call on the file. */
struct sqllog_file {
	struct env_file *f;
	struct buf buf;       /* bytes from offset on */
	size_t at;            /* of the next record in buf */
	uint64_t offset;      /* of buf.data[0] in the file */
	uint64_t first, last; /* lsn of the first and the last record returned; 0: none */
};
int sqllog_file_open(struct sqllog_file *s, struct env *env, const char *path);
void sqllog_file_close(struct sqllog_file *s);
/*
 * 1: a record (lsn above 0); 0: the file ends here, between two records; ERR_INCOMPLETE: it ends inside one; ERR_CORRUPT;
 * ERR_NEWER; ERR_IO. After anything but 1 the call may be repeated when the file has grown.
 */
int sqllog_file_next(struct sqllog_file *s, struct sqllog_record *out, char *why, size_t why_size);
uint64_t sqllog_file_at(const struct sqllog_file *s); /* offset of the next record, or of the bad spot */
/* After ERR_INCOMPLETE or ERR_CORRUPT: 1 if a record that verifies stands behind the bad spot, else 0, or ERR_IO. */
int sqllog_file_behind(struct sqllog_file *s);
/*
 * After these, with no such record behind: it begins neither with our first line, nor with a record, nor with zeroes that a
 * power cut may leave, so it was never ours and must not be cut. may_have_holes: nor with bytes that are no
 * text, or too few to tell.
 */
bool sqllog_file_foreign(struct sqllog_file *s, bool may_have_holes);
/* Whether an epoch of this log began with the lsn: its writer noted so before its first record. Blocking. */
bool sqllog_began(struct env *env, const char *folder, uint64_t epoch, uint64_t lsn);
/*
 * Whether of the epochs behind a given one, up to the record's, none began before the record, as their writers noted;
 * unnoted: what it is where none of them was noted. Blocking.
 */
bool sqllog_is_first(struct env *env, const char *folder, uint64_t epoch, const struct sqllog_record *r, bool unnoted);
/*
 * Whether nothing is missing between a position and the record that is read next behind it: it bears the next number, or
 * begins an epoch where that was noted to begin, and none in between has records; what has landed may be gone. Blocking.
 */
bool sqllog_follows(struct env *env, const char *folder, uint64_t epoch, uint64_t lsn, const struct sqllog_record *r);
/* Numbers of the folder's files NNNNNNNN.sql in order; free() them. ERR_NOT_FOUND, ERR_IO */
int sqllog_list(struct env *env, const char *folder, uint32_t **numbers, size_t *n);
void sqllog_path(char out[ENV_PATH_MAX], const char *folder, uint32_t number, const char *suffix); /* "sql" */
