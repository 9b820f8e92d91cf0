#pragma once
#include <stdbool.h>
/*
 * standby: copies this instance's SQL log to a dbwriter on another host, while it is being written, and tells the log what
 * that one has synced (sqllog.durable = "replicated"): so a change is acknowledged when both hosts have it.
 *
 * Threads: the control thread; standby_away: any.
 * Reads:   the log's own files, as they grow, at most 256 KiB (or one record) at a time, so its memory is bounded however
 *          far behind the standby is. One call is under way at a time; what is written meanwhile goes with the next.
 * Away:    a standby that does not answer is asked again; nothing becomes durable until it has caught up.
 */
struct service;
struct standby;
/* names: dbwriters, comma-separated; the first one that runs on another host than ours is it. They must outlive it. */
struct standby *standby_new(struct service *s, const char *names);
void standby_free(struct standby *y);       /* NULL is fine */
bool standby_away(const struct standby *y); /* NULL: false */
