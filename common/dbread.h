#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/env.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/sqllog.h"
/*
 * dbread: reading back from the database on one worker: a few connections, made when they are needed, made again with
 * back-off when they break, and a bounded queue in front of them.
 *
 * Threads: owner worker only; *away is read by any.
 * Away:    when a connection breaks or cannot be made, until one stands again; it is tried for also when nobody reads.
 * Ends:    every read ends once, at the latest at its deadline: with rows, with ERR_UNAVAILABLE (the database is away
 *          or late), ERR_FAILED (it refused; message says why) or ERR_BUSY. Reads lost with a connection are repeated.
 * After:   a read may name a key of this instance's log: it waits until the replay has passed that key's last change, as
 *          the position in the database tells, which was committed together with the change. Who reads a key owns it, so
 *          nothing else changes it between the look at the position and the read. With each connection that is made the
 *          position is asked anew: the server behind it may be another, with a copy that the replay has to go over again.
 * Memory:  sql is copied; rows are valid inside the callback only.
 */
struct dbread;
struct dbread_options {
	struct env_db_options db; /* the texts must outlive the pool */
	const char *instance;     /* whose position is waited for */
	struct sqllog *sqllog;    /* its log; NULL: it changes nothing, so no read waits */
	unsigned connections;
	unsigned queue_max;     /* reads that have not ended; one more ends with ERR_BUSY */
	bool at_once;           /* the first connection is made now, not at the first read */
	_Atomic unsigned *away; /* counts the pools that miss the database; NULL: nobody wants to know */
};
struct dbread *dbread_new(struct loop *loop, struct log *log, const struct dbread_options *o);
void dbread_free(struct dbread *d); /* what is under way is not told; NULL is fine */

/* key NULL: at once. on_done comes later, never inside. */
void dbread_query(struct dbread *d, const char *sql, size_t n, const char *key, uint32_t timeout_ms,
		  void (*on_done)(void *arg, const struct env_db_result *r), void *arg);
