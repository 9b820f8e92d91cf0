#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "rpc/frame.h"
#include "rpc/service.h"
/*
 * handover: an instance is replaced by a new process of itself while its connections live.
 *
 *   new: connects to the door of the old one (paths.var/ID.door), and is checked     old: gives the rpc and http ports up
 *   new: starts its workers, listens at those ports, connects to the others          old: serves as ever
 *   new: "ready"                                                                     old: stop; waits for what is under way
 *                                                                                    old: tells its callers to wait (GOAWAY, moved)
 *   new: takes                                                                       old: packs, sends sockets and bytes
 *   new: "done", goes on                                                             old: forgets them, ends with 0
 *
 * Until "done" the old one keeps everything, so when the new one fails or is refused, it goes on as before.
 *
 * Threads: the service's hooks are on their worker; the rest on the control thread.
 * Bytes:   fields of a key, a length and so many bytes, unknown keys are passed over: the two need not be one version.
 */
struct handover_item {
	struct handover_item *next;
	struct buf bytes;
	const struct env_conn *conn; /* goes with it, or */
	const struct env_listener *listener;
	struct env_passed *passed; /* what came with it; the taker makes a socket of it and sets NULL */
};
struct handover_list {
	struct handover_item *first, **last;
};
#define HANDOVER_BEFORE "/and others before"
struct handover_def {
	/*
	 * What clients were told once and both must share, as a word; "" or NULL: nothing. It ends in HANDOVER_BEFORE where
	 * clients go by what they were told earlier. Control thread.
	 */
	const char *(*shared)(struct service *s, char *out, size_t size);
	/* The old process. Takes nothing more from outside; handover_quiet(w) once nothing is under way. */
	void (*stop)(struct worker *w);
	void (*pack)(struct worker *w, struct handover_list *out); /* all that goes over; nothing is written any more */
	void (*back)(struct worker *w);                            /* it came to nothing: go on */
	void (*gone)(struct worker *w);                            /* it is the new one's: forget it without a word */
	/* The new one. handover_joined(w) once the links that it needs stand. */
	void (*join)(struct worker *w);
	void (*take)(struct worker *w, struct handover_list *in);
};

void handover_quiet(struct worker *w);
void handover_joined(struct worker *w);
struct handover_item *handover_add(struct handover_list *l);
void handover_list_free(struct handover_list *l); /* what it holds; sockets that nobody took are closed */

void handover_put(struct buf *b, uint8_t key, const void *p, size_t n);
void handover_put_u(struct buf *b, uint8_t key, uint64_t v);
struct handover_field {
	uint8_t key;
	struct span bytes;
};
bool handover_next(struct span *in, struct handover_field *out); /* false: no more, or cut short */
uint64_t handover_u(const struct handover_field *f);
/* Into a text of size bytes with its NUL; cut. */
void handover_text(const struct handover_field *f, char *out, size_t size);

/* The frame's. */
struct handover;
void handover_open(struct service *s);  /* ready: others may knock from now on */
void handover_close(struct service *s); /* nobody may any more; twice is once */
void handover_free(struct service *s);  /* when all threads have ended */
int handover_ask(struct service *s);    /* the new one, first: may it? ERR_UNAVAILABLE, said by service_fail */
void handover_begin(struct service *s); /* the new one's ports and workers stand */
