#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "rpc/frame.h"
/*
 * once: calls that take effect once, after RIFL (Lee et al., SOSP 2015). Pure: calls and the time go in, verdicts come
 * out; no I/O, no clock, no chance. rpc/app_once.c joins it to the SQL log and the database.
 *
 * Identity: a business key, which with its owner and method names one effect for ever; or, where the caller gives none,
 *           the client (one worker of one start of an instance) and a sequence number.
 * Client:   numbers its calls and tells with each the first that is incomplete: what is below it has been answered.
 * Server:   an owner (the key a call is routed by) has a set of what was answered. A call that is new runs. Its repeat
 *           waits while it runs, and gets the first's answer when that is stored; another body under the same key is
 *           refused. An answer counts as stored when the record that holds it together with the effect is durable.
 *           An error is not remembered, but its caller is: an earlier attempt of the same call that comes late does not run.
 * Forgets:  a sequence the client has acknowledged; asked again it is refused, never run. All of a client that was silent
 *           for lease_ms, longer than any call lives. Business keys never.
 * Memory:   8 bytes a business key and the answers used last, up to bytes_max; owners unused for longest are unloaded and
 *           answers dropped, the database has them. Sequence calls stay until they are acknowledged: ONCE_WINDOW a client.
 * Threads:  owner worker only.
 */
#define ONCE_WINDOW  65536 /* calls of one client from the first incomplete one on */
#define ONCE_KEY_MAX 256   /* bytes of a business key */

/* ---- the client's half ------------------------------------------------------------------------------------------- */

/* Zero it. Numbers begin at 1; the window's bits are made with the first call. */
struct once_client {
	uint64_t begun, ended; /* the last number given out; the last below which, and with which, all have ended */
	uint64_t *incomplete;  /* a bit per call of the window */
};
uint64_t once_client_begin(struct once_client *c);         /* its number, or 0: the window is full */
void once_client_end(struct once_client *c, uint64_t seq); /* answered, or given up: it is not sent any more */
static inline uint64_t once_client_first(const struct once_client *c) /* incomplete; to be told with each call */
{
	return c->ended + 1;
}
void once_client_release(struct once_client *c);

/* ---- the server's half ------------------------------------------------------------------------------------------- */

struct once_call {
	struct span owner;  /* whose effect it is: "role/p1" */
	struct span method; /* "shopHandler.buy" */
	struct span key;    /* business key; empty: client and seq */
	struct span client; /* "scene-1/0/1700000000": instance, worker, epoch */
	uint64_t seq;       /* of this call, also with a business key; 0: the caller does not number them */
	uint64_t first_incomplete;
	uint32_t attempt;     /* 0: it was never sent before */
	uint64_t fingerprint; /* of what is asked for, not 0 */
};
/* Of texts, one after the other: 0 to start with. The database keeps these numbers: the function never changes. */
uint64_t once_hash(uint64_t hash, const void *p, size_t n);
/*
 * Tells two requests under one key apart: of texts, one after the other, 0 to start with. After wyhash (Wang Yi, public
 * domain): 64 by 64 bit products folded to 64, three of them at a time that do not wait for each other, words little-endian,
 * no seed. Against mistakes, not against who looks for two texts with one number. The database keeps these numbers: another
 * function needs another column (deploy/schema/005-once-fingerprint.sql).
 */
uint64_t once_fingerprint(uint64_t before, const void *p, size_t n);

struct once_options {
	bool stored;      /* answers are kept in a database; else they live as long as this memory */
	size_t bytes_max; /* 0: 64 MiB */
	uint64_t lease_ms;
};
struct once_server;
struct once_server *once_server_new(const struct once_options *o);
void once_server_free(struct once_server *s); /* nobody waits any more; NULL is fine */

/*
 * Waits for the end of what runs, or of a read, embedded in the waiter's object. fn comes once, from inside a call on the
 * server: it asks again later, not there.
 */
struct once_waiters {
	struct once_waiter *first, **last;
};
struct once_waiter {
	struct once_waiter *next, **prev;
	struct once_waiters *list;
	void (*fn)(struct once_waiter *self);
};
void once_wait(struct once_waiters *list, struct once_waiter *w);
void once_leave(struct once_waiter *w); /* waits no more; not waiting is fine */

enum once_verdict {
	ONCE_RUN,       /* it is new: run it, then once_done, once_gone or once_lost */
	ONCE_WAIT,      /* wait, then ask again */
	ONCE_DONE,      /* the answer is there */
	ONCE_LOAD,      /* nothing is known of the owner: once_load_row for each of its rows, once_loaded; ask again */
	ONCE_READ,      /* it was answered: once_read with its row; ask again */
	ONCE_REUSED,    /* its key was used for another body */
	ONCE_FORGOTTEN, /* it was acknowledged, so its answer is gone; it does not run */
	ONCE_REFUSED,   /* this call has ended with an error before: with this one */
};
struct once_entry;
struct once_owner;
struct once_result {
	struct once_entry *entry;     /* RUN, READ */
	struct once_owner *owner;     /* LOAD */
	struct once_waiters *waiters; /* WAIT */
	struct span answer;           /* DONE; REFUSED: the message. Until the next call on the server */
	bool json;
	int err; /* REFUSED */
	enum effect effect;
};
enum once_verdict once_ask(struct once_server *s, const struct once_call *c, uint64_t now_ms, struct once_result *out);

/* The ends of what ran. Each tells who waits. */
void once_done(struct once_server *s, struct once_entry *e, bool json,
	       struct span answer);                          /* durable, with its effect */
void once_gone(struct once_server *s, struct once_entry *e); /* it changed nothing, and nobody is told */
/* It changed nothing, and its caller is told this error. */
void once_refused(struct once_server *s, struct once_entry *e, int err, enum effect effect, struct span message);
void once_lost(struct once_server *s, struct once_entry *e); /* nobody knows: the owner has to be loaded anew */

/* After ONCE_LOAD. client empty: a business key's hash (method and key, once_row); else a sequence. */
void once_load_row(struct once_server *s, struct once_owner *o, uint64_t hash, struct span client, uint64_t seq,
		   uint64_t now_ms);
void once_loaded(struct once_server *s, struct once_owner *o, bool ok); /* false: it could not be read */
/* After ONCE_LOAD: what its key is known by, for once_unload. */
void once_owner_key(struct once_owner *o, uint64_t key_hash);
/* Others may have answered for the owners that are not kept: what is known of them is to be loaded anew when it is asked for. */
void once_unload(struct once_server *s, bool (*kept)(const void *arg, uint64_t key_hash), const void *arg);
/* Whether the owner's set is in memory; else, if nobody does it yet, it is to be loaded: ONCE_LOAD. */
enum once_verdict once_know(struct once_server *s, struct span owner, uint64_t now_ms, struct once_result *out);
/* After ONCE_READ. fingerprint 0: it is not known, the row is answered to any body. */
void once_read(struct once_server *s, struct once_entry *e, uint64_t fingerprint, bool json, struct span answer);
void once_read_failed(struct once_server *s, struct once_entry *e, bool absent); /* absent: there is no such row */

/* What is stored of an entry. The spans live as long as it. */
struct once_row {
	struct span owner, method, client, key; /* client empty: a business key; else key is empty */
	uint64_t seq, hash, fingerprint;
};
void once_row(const struct once_entry *e, struct once_row *out);

/*
 * Rows that nobody needs any more: those of client at owner below seq. True: *out is set, to be deleted with some record
 * of the owner, and counted as deleted. of NULL: of any owner; at_least: only if there are so many.
 */
struct once_forget {
	struct span owner, client; /* until the next call on the server */
	uint64_t below;
};
bool once_forget(struct once_server *s, const struct once_entry *of, unsigned at_least, struct once_forget *out);
/* Ends the leases that are over. True: call again in a while, there are leases. */
bool once_tick(struct once_server *s, uint64_t now_ms);

struct once_figures {
	uint64_t running; /* now */
	uint64_t stored;  /* keys and sequences known to be answered, now */
	uint64_t bytes;   /* of memory, now */
	uint64_t repeats, forgotten,
		refused; /* ever: answered again; acknowledged or expired; reused and forgotten ones */
};
const struct once_figures *once_figures(const struct once_server *s);
