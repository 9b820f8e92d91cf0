#pragma once
#include "connector/session.h"
/*
 * watch: workers of other services that have sessions of this worker in rooms are told which of them have ended.
 *
 * Threads: owner worker only.
 * Memory:  a watcher is forgotten a minute after it asked last.
 */
/* connectorRemote.gone: answers which of its sessions are not here, and tells r's worker of the others' ends from now on. */
void watch_asked(struct edge *e, struct rpc_request *r);
void watch_ended(struct edge *e, uint64_t sid); /* a session that others may know has ended */
void watch_stop(struct edge *e);
