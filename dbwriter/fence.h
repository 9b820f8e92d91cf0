#pragma once
#include "rpc/service.h"
/*
 * fence: proves that an instance of this host is dead, for those who want its keys (rpc/moves.h).
 *
 * Who writes a log holds the lock of its folder for as long as its process lives, stopped or not. So the lock is taken: that
 * works only if nobody writes there, and nobody begins to while it is held. The log is opened as its writer would, which
 * cuts a torn tail and begins a new epoch, and closed: its end is known, and a record of an older epoch never lands behind it.
 *
 * Threads: the worker's; it blocks. Refuses: busy, it lives; not_found, its log is not here, or is one of an earlier life.
 */
void fence_handle(struct worker *w, const char *folder); /* of all logs; it outlives the worker */
