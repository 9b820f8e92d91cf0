#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/buf.h"
#include "dbwriter/follow.h"
#include "dbwriter/plan.h"
/*
 * batch: the records of one log that are landed next, as one transaction, and what to make of the database's answer.
 * Pure: records in, SQL and positions out.
 *
 * Threads: owner only. Memory: copies what it takes; bytes_max and the longest record behind them, where records stay in
 *          their places until some are landed or all forgotten. Pages that were never written cost nothing.
 * Refused: a transaction the database refuses is tried again with the records before the one it named, then with that
 *          one alone; only what is refused alone is given up. Where the database names none, the half is tried.
 */
struct batch_item {
	struct position at;
	uint64_t time_us;
	uint32_t file;
	unsigned statements;
	size_t raw, raw_bytes;             /* comment line and body, in batch.raw */
	size_t statement, statement_bytes; /* without BEGIN and COMMIT, in batch.raw */
};
struct batch {
	struct buf raw, sql;
	struct batch_item *item;
	unsigned n, capacity;
	unsigned records_max; /* at most capacity; may be changed */
	size_t bytes_max;
	unsigned limit; /* of records in the next transaction; 0: none, but for bytes_max */
	unsigned sent;  /* records in the transaction under way */
};
void batch_init(struct batch *b, unsigned records_max, size_t bytes_max);
void batch_release(struct batch *b);
void batch_clear(struct batch *b);
bool batch_full(const struct batch *b);
void batch_add(struct batch *b, const struct sqllog_record *r, uint32_t file);

/* Makes b->sql the statements of the next transaction, with COMMIT behind them; sets sent. Not with an empty batch. */
void batch_sql(struct batch *b);
/* Adds the records from the given one on to a plan, which is good until some are landed; returns how many it has then: all,
 * unless it is full. And: so many are under way. */
unsigned batch_plan(const struct batch *b, unsigned from, struct plan *p);
void batch_sent(struct batch *b, unsigned n);
const struct batch_item *batch_last(const struct batch *b);  /* the last record of the transaction under way */
const struct batch_item *batch_first(const struct batch *b); /* NULL: empty */
/* The record of an item, whole again; it points into the batch. */
struct sqllog_record batch_record(const struct batch *b, const struct batch_item *i);
/* The transaction was committed: its records are forgotten. */
void batch_landed(struct batch *b);
/*
 * It was refused for good, at the statement failed_at of batch_sql's. True: the one record it held is to be given up
 * (batch_first); false: the next transaction is a smaller one.
 */
bool batch_refused(struct batch *b, unsigned failed_at);

/* What an error number of the database means for the transaction. */
enum batch_fault {
	BATCH_AGAIN,  /* of this moment: locks, limits, a server that is read only, full, or not set up */
	BATCH_REFUSED /* of the statement: it will be refused tomorrow too */
};
enum batch_fault batch_fault(unsigned code);
