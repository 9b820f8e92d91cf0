#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/env.h"
#include "common/log.h"
#include "common/loop.h"
/*
 * dbread: reading back from the database on one worker: a few connections, made when they are needed, made again with
 * back-off when they break, and a bounded queue in front of them.
 *
 * Threads: owner worker only.
 * Ends:    every read ends once, at the latest at its deadline: with rows, with ERR_UNAVAILABLE (the database is away
 *          or late), ERR_FAILED (it refused; message says why) or ERR_BUSY. Reads lost with a connection are repeated.
 * After:   a read may name a position of this instance's log: it waits until the replay has passed it.
 * Memory:  sql is copied; rows are valid inside the callback only.
 */
struct dbread;
struct dbread_options {
	struct env_db_options db; /* the texts must outlive the pool */
	const char *instance;     /* whose position is waited for */
	unsigned connections;
	unsigned queue_max;
};
struct dbread *dbread_new(struct loop *loop, struct log *log, const struct dbread_options *o);
void dbread_free(struct dbread *d); /* what is under way is not told; NULL is fine */

/*
 * after_lsn 0: at once. on_done comes later, never inside. replayed is told each position seen, for sqllog_replayed.
 */
void dbread_query(struct dbread *d, const char *sql, size_t n, uint64_t after_lsn, uint32_t timeout_ms,
		  void (*on_done)(void *arg, const struct env_db_result *r), void *arg);
uint64_t dbread_replayed(const struct dbread *d); /* the newest position seen */
bool dbread_connected(const struct dbread *d);    /* at least one connection stands, or none was needed yet */
