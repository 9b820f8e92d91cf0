#pragma once
#include <stdatomic.h>
#include <stdbool.h>
/*
 * inbox: a queue from any thread to one worker: lock-free, many producers, one consumer.
 *
 * Threads: push from any thread; take only from the owner.
 * Memory:  the message is the caller's, with struct inbox_msg embedded; pushing hands it over, the
 *          receiver frees it. Nothing is allocated here.
 * Order:   messages of one producer arrive in the order of their pushes.
 * Waking:  push returns true when the owner may be asleep and must be woken (env_loop_wake), so a
 *          batch costs one wake-up.
 * Source:  R. K. Treiber's stack; since it is only ever taken whole, by one exchange, it has no ABA problem.
 */
struct inbox_msg {
	struct inbox_msg *next;
	void (*run)(struct inbox_msg *self); /* on the receiver's thread; frees itself */
};
struct inbox {
	_Atomic(struct inbox_msg *) head;
};
void inbox_init(struct inbox *in);
bool inbox_push(struct inbox *in, struct inbox_msg *m);
struct inbox_msg *inbox_take(struct inbox *in); /* all that is there, oldest first, linked by next; NULL: none */
