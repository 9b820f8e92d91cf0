#pragma once
#include <stdbool.h>
#include <stdint.h>
/*
 * crash: what a crash campaign is made of: a load of changes on accounts, the damage a dying machine does to a log, and
 * a check of the database against what was acknowledged.
 *
 * A change is one record and has a number, `op`, that only grows: epoch, count, writer, kind. Its statements change
 * an account relatively (gold, and chain, which tells any order, omission or repetition apart), and insert a row per
 * account into `entry`, whose own number tells in which order changes took effect. The ledger of a writer holds the ops
 * that were acknowledged, 8 bytes each; nobody but the writer writes it, nothing but the checker reads it.
 */
enum crash_kind { CRASH_BUY, CRASH_SET, CRASH_TRANSFER }; /* one account, one, two */

extern const char crash_schema[];    /* the tables, for sql_run */
extern const char crash_failpoint[]; /* passed before an acknowledgement is written down */

/* ---- the load: a process of its own ------------------------------------------------------------------------- */

struct crash_load {
	const char *instance, *folder; /* of the log */
	const char *ledger, *log;      /* files */
	const char *socket;            /* of the database, to read accounts back */
	unsigned writer;               /* 1 to 7: its accounts are CRASH_ACCOUNTS from 1000 * writer on */
	unsigned per_s;
	bool written; /* acknowledges what is written, else what is durable */
};
#define CRASH_ACCOUNTS 100
/* Beside the ledger, LEDGER.waits: how many changes so far were acknowledged in less than 2^i us, written each 100 ms. */
#define CRASH_WAITS 40
struct crash_waits {
	uint64_t below[CRASH_WAITS];
};
void crash_waits_add(struct crash_waits *sum, const char *ledger); /* one that is not there adds nothing */
struct crash_waited {
	double p50_ms, p99_ms, max_ms; /* at most: to the next power of two */
};
struct crash_waited crash_waited(const struct crash_waits *from, const struct crash_waits *to); /* between the two */
/*
 * Reads each account back before its first change and, now and then, compares what is read with what it remembers. Runs
 * until SIGTERM, then returns 0. Exits with 3 and a line on stderr when an account reads other than it should. Returns
 * CRASH_NO_LOG, with the reason on stderr, when it cannot open its log.
 */
#define CRASH_NO_LOG 4
int crash_write(const struct crash_load *load);

/* ---- damage -------------------------------------------------------------------------------------------------- */

/* What is on stable storage of the log's files: those before `number` whole, `bytes` of that one, names up to `named`. */
struct crash_synced {
	uint32_t number, named;
	uint64_t bytes;
};
struct crash_random {
	uint64_t state;
};
uint32_t crash_draw(struct crash_random *r, uint32_t below); /* 0 ... below - 1 */
/* The machine lost its power: any part of what was not synced is gone. Returns the bytes that are. */
uint64_t crash_power_cut(const char *folder, const struct crash_synced *synced, struct crash_random *r);
/* The process died while it wrote: the first bytes of a record, or a whole one with a flipped bit, stand at the end. */
void crash_tear(const char *folder, struct crash_random *r);

/* ---- the check ------------------------------------------------------------------------------------------------- */

struct crash_report {
	uint64_t acknowledged, landed, unacknowledged, faults; /* changes; faults: promises broken */
	char first[200];                                       /* of them, in words */
};
/* ledgers: one file per writer. Reads the database with a connection of its own. */
void crash_check(const char *socket, const char *const *ledgers, unsigned n, struct crash_report *out);
