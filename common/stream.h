#pragma once
#include <stdbool.h>
#include "common/buf.h"
#include "common/loop.h"
/*
 * stream: a buffered connection on a worker: whole reads in, one write per turn out.
 *
 * Threads: owner worker only.
 * Input:   on_data gets all bytes that are there (leftover first) and returns how many it consumed, or a
 *          negative error, which closes the stream with it. Bytes not consumed come again with more behind.
 *          They may be changed in place up to what is consumed.
 *          When more than in_max bytes would have to be kept the stream is closed with ERR_FULL.
 * Output:  stream_write appends; the end of the turn writes once. Its buffer comes from the loop's spare ones and goes
 *          back when the socket has taken all: an idle stream holds none. What goes to many is encoded once and shared
 *          (stream_share): each holds a reference, the socket reads from the one copy. What the socket does not take waits up to
 *          out_max bytes; above that stream_write answers ERR_FULL and takes nothing; once closing it answers
 *          ERR_CLOSED. Before a stream_connect has succeeded output waits too.
 * Closing: on_close comes exactly once, never from inside stream_write or stream_close's caller: it is
 *          deferred to the end of the turn. The owner frees the embedding object there. err: 0 the peer closed
 *          or stream_close was called, else why.
 */
struct stream;
/* Bytes that many streams of one worker send; freed with the last reference. */
struct stream_shared {
	unsigned refs;
	size_t n;
	char data[];
};
struct stream_shared *stream_shared_new(size_t n); /* with one reference, the caller's; data is to be filled */
void stream_shared_unref(struct stream_shared *b); /* NULL is fine */

struct stream_ops {
	ssize_t (*on_data)(struct stream *s, const char *data, size_t n);
	void (*on_open)(struct stream *s); /* a stream_connect succeeded; may be NULL for accepted ones */
	void (*on_close)(struct stream *s, int err);
	void (*on_drained)(struct stream *s); /* the socket took the rest of what it had refused; may be NULL */
};
struct stream { /* embed it; all fields are the stream's */
	struct loop *loop;
	struct env_conn *conn;
	const struct stream_ops *ops;
	struct buf in, out;
	size_t out_start;             /* bytes of out already written */
	struct stream_shared *shared; /* goes out before out; NULL: none */
	size_t shared_start;          /* bytes of it already written */
	size_t in_max, out_max;
	uint64_t bytes_in, bytes_out;
	struct loop_deferred flush;
	struct timer linger;
	int close_err;
	bool open, closing, closed, want_write, close_when_flushed, busy;
};
void stream_accept(struct stream *s, struct loop *loop, struct env_conn *conn, const struct stream_ops *ops,
		   size_t in_max, size_t out_max);
/* An error returned: s was not started and no callback comes. Else on_open, or on_close with the reason. */
int stream_connect(struct stream *s, struct loop *loop, const char *host, uint16_t port, const struct stream_ops *ops,
		   size_t in_max, size_t out_max);
int stream_write(struct stream *s, const void *p, size_t n);
/* As stream_write of all of b, which is referenced, or copied where other bytes wait already. */
int stream_share(struct stream *s, struct stream_shared *b);
/* Room for n bytes at the end of the output, to be written in place; NULL: over out_max. Then stream_commit(s, used). */
char *stream_reserve(struct stream *s, size_t n);
void stream_commit(struct stream *s, size_t n);
/*
 * Reads and delivers what has arrived by now without waiting for the loop: a peer's close shows in s->closing. Not from
 * inside any stream's on_data: they share the loop's read_buf.
 */
void stream_poll(struct stream *s);
/* There are few such streams and they always have something: it keeps its buffers, up to 256 KiB each. */
void stream_busy(struct stream *s);
size_t stream_pending(const struct stream *s); /* bytes not yet taken by the socket */
/*
 * Handing a connection over (rpc/handover.h). hold: no more is read. freeze: nothing is read or written any more, so that
 * its bytes can be taken; thaw: as before. put: bytes that another process had read, or had to write.
 */
void stream_hold(struct stream *s, bool hold);
void stream_freeze(struct stream *s);
void stream_thaw(struct stream *s);
void stream_out_bytes(const struct stream *s, struct buf *out);
void stream_put(struct stream *s, const char *in, size_t in_n, const char *out, size_t out_n);
void stream_close(struct stream *s, int err); /* output not yet written is dropped */
/*
 * Writes what is pending, half-closes, and closes with the peer or after 1 s. Input is dropped until then; of a peer that goes on sending
 * not more than about 256 KiB are read.
 */
void stream_close_flushed(struct stream *s);
