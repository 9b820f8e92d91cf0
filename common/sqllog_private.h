#pragma once
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include "common/sqllog.h"
/*
 * sqllog_private: what the files of the SQL log share among themselves. Nobody else includes it.
 *
 * Threads: any worker fills the ring, the SQL-log thread empties it; of the other parts each says whose it is.
 */

/* Decimal digits of v at o, two at a time; returns the end. */
static inline char *sqllog_put_u64(char *o, uint64_t v)
{
	static const char pairs[] = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940"
				    "4142434445464748495051525354555657585960616263646566676869707172737475767778798081"
				    "828384858687888990919293949596979899";
	char digits[20], *d = digits + sizeof digits;
	for (; v >= 100; v /= 100)
		memcpy(d -= 2, pairs + 2 * (v % 100), 2);
	memcpy(d -= 2, pairs + 2 * v, 2);
	d += v < 10;
	size_t n = (size_t)(digits + sizeof digits - d);
	memcpy(o, d, n);
	return o + n;
}

/* The key as it stands in the file, NUL-ended; its length, or ERR_BAD_REQUEST. */
#define SQLLOG_KEY_RAW_MAX  80
#define SQLLOG_KEY_TEXT_MAX (3 * SQLLOG_KEY_RAW_MAX + 1)
int sqllog_key_text(char out[SQLLOG_KEY_TEXT_MAX], const char *key);

/* ---- the ring: from any worker to the SQL-log thread ------------------------------------------------- */

/*
 * A bounded byte ring, many producers, one consumer, lock-free. One word holds the next position and the next lsn, so
 * lsn order is ring order. Free bytes are zero: an entry counts from the moment its length is stored (as in Aeron's
 * many-to-one buffer); what a slow producer has reserved and not yet published holds back those behind it.
 */
#define SQLLOG_UNIT 16u
struct sqllog_entry {
	_Atomic uint32_t units; /* 0: not there yet; stored last, with release */
	uint32_t body_bytes;    /* SQLLOG_PAD: filler up to the end of the ring */
	uint32_t keys_bytes;
	uint32_t statements;
	uint64_t trace;
	char data[]; /* keys, body */
};
#define SQLLOG_PAD UINT32_MAX
struct sqllog_ring {
	struct env *env;
	char *data;
	uint32_t units;                     /* a power of two */
	_Alignas(64) _Atomic uint64_t tail; /* lsn (low half) << 32 | position in units: producers */
	_Alignas(64) _Atomic uint64_t head; /* position: the consumer has given back what is before it */
	_Atomic uint64_t lsn;               /* of the last entry before head; stored before head */
};
/* ERR_NOMEM. env outlives the ring. */
int sqllog_ring_init(struct sqllog_ring *r, struct env *env, size_t bytes, uint64_t last_lsn);
void sqllog_ring_release(struct sqllog_ring *r);
/* Copies the parts in; body gets "COMMIT;\n" behind it. ERR_BUSY: no room. */
int sqllog_ring_push(struct sqllog_ring *r, const struct sql_record *rec, uint64_t *lsn);
uint64_t sqllog_ring_last(const struct sqllog_ring *r); /* lsn given out last; any thread */
size_t sqllog_ring_used(const struct sqllog_ring *r);   /* bytes; any thread, a moment's view */
/* Consumer: the entry at position *at (from the head on), or NULL; moves *at behind it. */
struct sqllog_entry *sqllog_ring_next(struct sqllog_ring *r, uint32_t *at);
/* Consumer: gives everything before at back, in which there were n records. */
void sqllog_ring_free_until(struct sqllog_ring *r, uint32_t at, uint32_t n);

/* ---- last change of each key ------------------------------------------------------------------------- */

/*
 * key hash → highest lsn, without locks and without growing: places are shared, which only makes an answer later than
 * need be.
 */
#define SQLLOG_KEY_PLACES 65536u
struct sqllog_keys {
	_Atomic uint64_t lsn[SQLLOG_KEY_PLACES];
};
void sqllog_keys_note(struct sqllog_keys *k, const char *keys, size_t bytes, uint64_t lsn); /* "a,b,c" as written */
uint64_t sqllog_keys_get(const struct sqllog_keys *k, const char *key, size_t bytes);

/* ---- opening ------------------------------------------------------------------------------------------- */

/* Where a file ends that can be trusted, since a write or sync of a batch behind it failed; file 0: none is suspect. */
struct sqllog_suspect {
	uint32_t file;
	uint64_t bytes;
};
#define SQLLOG_HOLDERS_MAX 8
struct sqllog_found {
	uint64_t lsn, epoch, time_us;      /* of the last record; 0: none */
	uint64_t replayed, replayed_epoch; /* dbwriter's hint: up to there it is in the database and was not read */
	uint32_t file;                     /* highest number there is; 0: none */
	uint64_t cut_bytes;                /* torn tail that was cut */
	uint32_t cut_file;
	struct buf batch; /* the records of the last batch (one time) as they stand; the caller releases it */
	struct sqllog_suspect holder[SQLLOG_HOLDERS_MAX]; /* the files that hold some of them, and up to where others */
	unsigned holders;
};
/*
 * Verifies the folder's files, cuts a torn tail, syncs them, fills keys. may_have_holes: the machine may have died since
 * the last write, so that of the last batch any piece may be missing. error gets the line.
 */
int sqllog_scan(struct env *env, const char *folder, bool may_have_holes, struct sqllog_keys *keys,
		struct sqllog_found *out, char *error, size_t error_size);
/* Cuts everything behind the last whole record of a file; what is cut is kept in NNNNNNNN.cut. Returns bytes cut. */
int64_t sqllog_cut(struct env *env, const char *folder, uint32_t number, uint64_t keep);
/* Shortens a file to a length, or removes it when no record fits in that; whether it succeeds does not matter. */
void sqllog_shorten(struct env *env, const char *folder, uint32_t number, uint64_t bytes);
/* dbwriter's note of what has landed; 0, 0: there is none. */
void sqllog_landed(struct env *env, const char *folder, uint64_t *epoch, uint64_t *lsn);
/* Reads "name=number" out of a small file; otherwise when it is not there. */
uint64_t sqllog_note_get(const char *text, const char *name, uint64_t otherwise);

/* ---- waiters --------------------------------------------------------------------------------------------- */

struct sqllog_joined;
struct sqllog_waits {
	struct sqllog_joined *_Atomic *joined; /* by loop->index */
	unsigned n;
	_Atomic uint64_t written, durable; /* lsn */
	_Atomic uint64_t synced,
		standby; /* here, and on the other host: durable is the lesser; standby UINT64_MAX: no other */
	_Atomic bool failing;
};
int sqllog_waits_init(struct sqllog_waits *w, unsigned workers, uint64_t lsn, bool replicated); /* ERR_NOMEM */
void sqllog_waits_release(struct sqllog_waits *w);
void sqllog_waits_join(struct sqllog_waits *w, struct loop *loop);
void sqllog_waits_add(struct sqllog_waits *w, struct loop *loop, struct sqllog_waiter *x);
/* After written, durable or failing changed: posts to each loop that has somebody to call. */
void sqllog_waits_wake(struct sqllog_waits *w);
/* which is w->synced or w->standby, each moved by one thread: makes durable what both have reached, and wakes. */
void sqllog_waits_reached(struct sqllog_waits *w, _Atomic uint64_t *which, uint64_t lsn);
/* A worker's turn is over in which somebody began to wait: what was handed over goes now. In sqllog.c. */
void sqllog_hurry(struct sqllog_waits *w);

/* ---- the writer ------------------------------------------------------------------------------------------- */

struct sqllog {
	struct env *env;
	struct log *log;
	char folder[ENV_PATH_MAX - 32];
	uint64_t file_bytes_max;
	uint64_t linger_ns;
	struct env_file *lock;
	struct env_loop *thread;
	uint64_t epoch;
	uint64_t opened_lsn, opened_epoch; /* of the last record found at opening */

	struct sqllog_keys *keys;
	_Atomic uint64_t replayed; /* known to be in the database, as an lsn of this log */
	uint64_t floor;            /* dbwriter's hint at opening: keys were not read up to here */
	struct sqllog_ring ring;
	struct sqllog_waits waits;
	_Alignas(64) _Atomic bool asleep; /* the thread waits for a wake-up */
	_Atomic bool hurried;             /* it was told not to linger */
	_Atomic bool stopped;
	_Atomic uint64_t bytes, syncs, failures;
	_Atomic uint32_t number; /* of the file written to, or last used */

	/* the SQL-log thread's own */
	struct env_file *file;
	uint64_t file_bytes, synced_bytes, reserved_bytes;
	bool new_file; /* its name is not synced yet */
	struct sqllog_suspect suspect;
	struct buf pending;
	uint64_t pending_lsn;           /* last one in it */
	uint64_t time_us;               /* of the last batch */
	_Atomic uint64_t later_than_us; /* any worker: sqllog_later_than */
	uint64_t due_ns;                /* end of the lingering, 0: nothing waits */
	uint64_t retry_ns, retry_at_ns, remind_at_ns;
};
/* The turn of the SQL-log thread and its last one. */
uint64_t sqllog_turn(void *arg);
void sqllog_last_turn(void *arg);
/* Writes and syncs what is pending, once; on failure the log is failing. Before the thread starts, or on it. */
bool sqllog_land(struct sqllog *l);
/* FOLDER/clean: the log was stopped when all of it had been synced; its last lsn. */
void sqllog_clean_store(struct sqllog *l);
