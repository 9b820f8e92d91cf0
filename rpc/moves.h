#pragma once
#include "common/buf.h"
#include "rpc/service.h"
/*
 * moves: keys go from one instance of a service to another while callers call, and are answered for by one at a time.
 *
 * Each instance has a row in table loquat_owner: the ring it keeps to (rpc/ring.h), and its log's position when it began to.
 * A new route table with another ring goes like this, on every instance by itself:
 *
 *   give up   each worker refuses keys that the new ring gives to others (FRAME_MOVED: their callers go there), and lets what
 *             runs for them end; what has not after MOVES_GRACE_MS is not recorded any more, and its callers go there, too
 *   say so    the row tells the new ring and the log's position
 *   wait      until every row of the service tells the same ring, or 0, and all their positions have landed
 *   take      the workers answer for what the ring gives them; calls for it have waited meanwhile
 *
 * So who answers for a key has read everything its former owners ever recorded, and they had given it up before. Rows change
 * only forwards (turn), so a late statement does no harm: who has gone on to another ring takes nothing by an older one, and
 * who sees an older one's row waits. But reads have to see all that was committed before them, on whatever connection: a
 * row or a player that is read as it was before would be taken for what is. So one MariaDB, or Galera with
 * wsrep_sync_wait = 1; no replica that is read from.
 *
 * Gone:   an instance that ends says ring 0. Of one that did not, and is not in the route table any more or has not followed
 *         it for a while, a dbwriter must prove that it is dead (dbwriter/fence.h); one that is merely stopped (SIGSTOP), or
 *         whose host cannot be reached, keeps its keys: calls for them wait, and end as unavailable.
 * Bounds: one statement at a time; looks each MOVES_LOOK_MS, later ten times as rarely. None without a change.
 *
 * Threads: control thread, but moves_report.
 */
#define MOVES_GRACE_MS  500
#define MOVES_LOOK_MS   10
#define MOVES_TURN_BITS 20 /* of a row's turn; above them is the epoch of its instance's start */
struct moves;
struct moves *moves_new(struct service *s); /* NULL: the service's keys do not move (service_def.keys_move) */
void moves_free(struct moves *m);           /* NULL is fine, as in all of these */
/* A new table is there. Returns the turn that the workers are to report. */
uint64_t moves_table(struct moves *m, const struct route_table *t);
uint64_t moves_turn(const struct moves *m);
void moves_report(struct worker *w, uint64_t turn); /* any worker: what the turn took from it is given up */
void moves_leave(struct moves *m);                  /* nothing will be recorded any more: the row says so */
bool moves_left(const struct moves *m);             /* it does */
void moves_close(struct moves *m);                  /* before the loop ends; calls under way may still come back */
bool moves_told(const struct moves *m);             /* the row may tell a ring of this start */
const char *moves_not_ready(const struct moves *m); /* NULL: it has taken keys once; else whom it waits for */
