#pragma once
#include <stdbool.h>
#include "common/buf.h"
#include "rpc/frame.h"
/*
 * sids: a list of sessions' numbers as protobuf: field 1, packed fixed64. In connectorRemote.gone and app.roomRemote.left.
 *
 * Threads: any; pure. A list in memory: 8 bytes each, as the machine keeps them.
 */
void sids_put(struct buf *out, struct span list);       /* an empty list is no bytes */
bool sids_read(struct span message, struct span *list); /* list points into message; false: it is something else */
