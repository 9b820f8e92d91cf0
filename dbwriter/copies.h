#pragma once
#include "dbwriter/follow.h"
#include "rpc/service.h"
/*
 * copies: the SQL logs of other hosts, kept here as they come (rpc/standby.h sends them), below FOLDER/INSTANCE as any log.
 * A record is answered for when it is synced. A replay with standby_ms lands them if nobody else does.
 *
 * Threads: the worker's it was made on; it blocks while records are written and synced.
 * Begins:  copyBegin tells the writer what is here, and starts a new file unless the last has no record yet; what an
 *          earlier session sends then is denied, and so is a writer of an older epoch than a record that is here: it is a
 *          former owner.
 * Damaged: files that cannot be landed are set aside as NNNNNNNN.sql.damaged when their writer begins anew, which sends
 *          again what has not landed, and removed when all that was in them is here again.
 */
struct copies;
/* Takes the calls of dbwriterRemote.copyBegin and .copy. on_first(arg): a log is there that was not before. */
struct copies *copies_new(struct worker *w, const char *folder, void (*on_first)(void *arg), void *arg);
void copies_free(struct copies *c); /* NULL is fine */
/* Of this copy a file, and so all behind it, is damaged: its session ends, if its writer can send it again. */
void copies_damaged(struct copies *c, const char *instance, uint32_t file, struct position landed);
/* How many files of a copy are set aside; *last: the last record in them. */
unsigned copies_aside(struct env *env, const char *folder, struct position *last);
