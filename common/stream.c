#include "common/stream.h"
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

enum {
	SPARE_BYTES = 4096,     /* a larger output buffer does not become one of the loop's spare ones */
	BUSY_BYTES = 256 << 10, /* and a busy one, of which there are few */
	FRONT_BYTES = 32 << 10, /* a rest of so many bytes is put in front of what is read next */
	LINGER_MS = 1000,       /* how long stream_close_flushed waits */
	LINGER_BYTES = 1 << 18, /* and how much it reads meanwhile: who floods was kicked for it, and is read no more */
	POLL_READS = 64,        /* of read_buf: who sends more at once is certainly there */
};

static struct stream *of_deferred(struct loop_deferred *d)
{
	return (struct stream *)((char *)d - offsetof(struct stream, flush));
}

static struct stream *of_linger(struct timer *t)
{
	return (struct stream *)((char *)t - offsetof(struct stream, linger));
}

/* ---- the end ------------------------------------------------------------------------------------------ */

void stream_close(struct stream *s, int err)
{
	if (s->closing)
		return;
	s->closing = true;
	s->open = false;
	s->close_err = err;
	env_conn_close(s->conn);
	s->conn = NULL;
	loop_timer_stop(s->loop, &s->linger);
	loop_defer(s->loop, &s->flush);
}

/* Without its bytes, to the loop's spare ones. */
static void out_give(struct stream *s)
{
	struct loop *l = s->loop;

	s->out_start = 0;
	if (s->busy && s->out.cap <= BUSY_BYTES) {
		buf_clear(&s->out);
	} else if (s->out.cap <= SPARE_BYTES && s->out.data && l->spares < LOOP_SPARES) {
		buf_clear(&s->out);
		l->spare[l->spares++] = s->out;
		buf_init(&s->out);
	} else {
		buf_release(&s->out);
	}
}

/* Before bytes are put there. */
static void out_take(struct stream *s)
{
	if (!s->out.data && s->loop->spares)
		s->out = s->loop->spare[--s->loop->spares];
}

static void shared_drop(struct stream *s)
{
	stream_shared_unref(s->shared);
	s->shared = NULL;
	s->shared_start = 0;
}

static void out_release(struct stream *s)
{
	s->busy = false;
	out_give(s);
	shared_drop(s);
}

static void finish(struct stream *s)
{
	if (s->closed)
		return;
	s->closed = true;
	buf_release(&s->in);
	out_release(s);
	s->ops->on_close(s, s->close_err); /* last: the owner frees s here */
}

static void on_linger(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	stream_close(of_linger(t), 0);
}

void stream_close_flushed(struct stream *s)
{
	if (s->closing || s->close_when_flushed)
		return;
	if (!s->open) {
		stream_close(s, 0);
		return;
	}
	s->close_when_flushed = true;
	s->in_max = LINGER_BYTES;
	loop_timer(s->loop, &s->linger, LINGER_MS);
	loop_defer(s->loop, &s->flush);
}

/* ---- output --------------------------------------------------------------------------------------------- */

void stream_busy(struct stream *s)
{
	s->busy = true;
}

size_t stream_pending(const struct stream *s)
{
	return s->out.len - s->out_start + (s->shared ? s->shared->n - s->shared_start : 0);
}

struct stream_shared *stream_shared_new(size_t n)
{
	struct stream_shared *b = malloc(sizeof *b + n);
	if (!b)
		abort();
	b->refs = 1;
	b->n = n;
	return b;
}

void stream_shared_unref(struct stream_shared *b)
{
	if (b && --b->refs == 0)
		free(b);
}

static void want_write(struct stream *s, bool on)
{
	if (s->want_write == on)
		return;
	s->want_write = on;
	env_conn_want_write(s->conn, on);
}

static void out_emptied(struct stream *s)
{
	out_give(s);
	bool drained = s->want_write;
	want_write(s, false);
	if (s->close_when_flushed)
		env_conn_shutdown(s->conn); /* the peer reads to the end, then closes; linger bounds the wait */
	else if (drained && s->ops->on_drained)
		s->ops->on_drained(s);
}

/* Bytes written stay in front until they are the larger part: then moving the rest costs less than they do. */
static void out_compact(struct stream *s)
{
	if (s->out_start > s->out.len / 2) {
		buf_consume(&s->out, s->out_start);
		s->out_start = 0;
	}
}

/* The shared bytes, then the own; how many pieces. */
static int out_pieces(const struct stream *s, struct iovec iov[2])
{
	int n = 0;
	if (s->shared)
		iov[n++] = (struct iovec){ s->shared->data + s->shared_start, s->shared->n - s->shared_start };
	if (s->out.len > s->out_start)
		iov[n++] = (struct iovec){ s->out.data + s->out_start, s->out.len - s->out_start };
	return n;
}

/* The socket has taken n bytes. */
static void out_taken(struct stream *s, size_t n)
{
	s->bytes_out += n;
	if (s->shared) {
		size_t left = s->shared->n - s->shared_start, part = n < left ? n : left;
		s->shared_start += part;
		n -= part;
		if (part == left)
			shared_drop(s);
	}
	s->out_start += n;
}

static void out_write(struct stream *s)
{
	struct iovec iov[2];
	int pieces = out_pieces(s, iov);
	if (pieces) {
		ssize_t n = env_conn_write(s->conn, iov, pieces);
		if (n < 0 && n != ERR_AGAIN) {
			stream_close(s, (int)n);
			return;
		}
		if (n > 0)
			out_taken(s, (size_t)n);
	}
	if (stream_pending(s) == 0) {
		out_emptied(s);
		return;
	}
	out_compact(s);
	want_write(s, true);
}

static void on_deferred(struct loop_deferred *d)
{
	struct stream *s = of_deferred(d);
	if (s->closing)
		finish(s);
	else if (s->open && !s->want_write)
		out_write(s);
}

char *stream_reserve(struct stream *s, size_t n)
{
	if (s->closing || s->close_when_flushed || n > s->out_max - stream_pending(s))
		return NULL;
	out_take(s);
	return buf_reserve(&s->out, n);
}

void stream_commit(struct stream *s, size_t n)
{
	assert(n <= s->out.cap - s->out.len);
	s->out.len += n;
	loop_defer(s->loop, &s->flush);
}

int stream_write(struct stream *s, const void *p, size_t n)
{
	if (s->closing || s->close_when_flushed)
		return ERR_CLOSED;
	if (n > s->out_max - stream_pending(s))
		return ERR_FULL;
	out_take(s);
	buf_add(&s->out, p, n);
	loop_defer(s->loop, &s->flush);
	return 0;
}

int stream_share(struct stream *s, struct stream_shared *b)
{
	if (stream_pending(s) || !b->n)
		return stream_write(s, b->data, b->n);
	if (s->closing || s->close_when_flushed)
		return ERR_CLOSED;
	if (b->n > s->out_max)
		return ERR_FULL;
	b->refs++;
	s->shared = b;
	loop_defer(s->loop, &s->flush);
	return 0;
}

/* ---- input ---------------------------------------------------------------------------------------------- */

/* Hands data over; how many bytes of it are left, or negative: s is closing. */
static ssize_t deliver(struct stream *s, const char *data, size_t n)
{
	ssize_t used = s->ops->on_data(s, data, n);
	assert(used <= (ssize_t)n);
	if (used < 0)
		stream_close(s, (int)used);
	if (s->closing)
		return ERR_CLOSED;
	if (n - (size_t)used > s->in_max) {
		stream_close(s, ERR_FULL);
		return ERR_FULL;
	}
	return (ssize_t)(n - (size_t)used);
}

static void in_emptied(struct stream *s)
{
	if (s->busy && s->in.cap <= BUSY_BYTES)
		buf_clear(&s->in);
	else
		buf_release(&s->in);
}

/* More than FRONT_BYTES were left: a large message that comes in parts. */
static void take_behind(struct stream *s, const char *data, size_t n)
{
	buf_add(&s->in, data, n);
	ssize_t left = deliver(s, s->in.data, s->in.len);
	if (left < 0)
		return;
	buf_consume(&s->in, s->in.len - (size_t)left);
	if (!left)
		in_emptied(s);
}

static void take(struct stream *s, const char *data, size_t n)
{
	ssize_t left = deliver(s, data, n);
	if (left < 0)
		return;
	buf_clear(&s->in); /* it stood in front of data */
	if (left > 0)
		buf_add(&s->in, data + n - left, (size_t)left);
	else if (s->in.data)
		in_emptied(s);
}

/* Read only so that the close does not become a reset. From now on in_max is what is left of LINGER_BYTES. */
static void linger_over(struct stream *s, size_t n)
{
	s->in_max -= n < s->in_max ? n : s->in_max;
	if (!s->in_max)
		env_conn_want_read(s->conn, false);
}

/* One read; false: nothing more is there, or s is closing. */
static bool read_some(struct stream *s)
{
	char *data = s->loop->read_buf;
	size_t front = s->in.len <= FRONT_BYTES ? s->in.len : 0;
	if (front)
		memcpy(data, s->in.data, front);
	ssize_t n = env_conn_read(s->conn, data + front, sizeof s->loop->read_buf - front);
	if (n <= 0) {
		if (n != ERR_AGAIN)
			stream_close(s, (int)n);
		return false;
	}
	s->bytes_in += (uint64_t)n;
	if (s->close_when_flushed)
		linger_over(s, (size_t)n);
	else if (s->in.len > front)
		take_behind(s, data, (size_t)n);
	else
		take(s, data, front + (size_t)n);
	return !s->closing;
}

static void on_readable(void *arg)
{
	/* One read per turn: who sends more than this waits for the others, and level-triggering calls again. */
	read_some(arg);
}

void stream_poll(struct stream *s)
{
	for (int i = 0; i < POLL_READS && s->open && read_some(s); i++)
		;
}

static void on_writable(void *arg)
{
	out_write(arg);
}

static void on_connected(void *arg, int err)
{
	struct stream *s = arg;
	if (err < 0) {
		stream_close(s, err);
		return;
	}
	s->open = true;
	if (stream_pending(s))
		loop_defer(s->loop, &s->flush);
	if (s->ops->on_open)
		s->ops->on_open(s);
}

/* ---- the beginning ---------------------------------------------------------------------------------------- */

static const struct env_conn_ops conn_ops = {
	.on_readable = on_readable,
	.on_writable = on_writable,
	.on_connected = on_connected,
};

static void init(struct stream *s, struct loop *loop, const struct stream_ops *ops, size_t in_max, size_t out_max)
{
	loop_assert_owner(loop);
	*s = (struct stream){ .loop = loop, .ops = ops, .in_max = in_max, .out_max = out_max };
	s->flush.run = on_deferred;
	s->linger.fire = on_linger;
}

void stream_accept(struct stream *s, struct loop *loop, struct env_conn *conn, const struct stream_ops *ops,
		   size_t in_max, size_t out_max)
{
	init(s, loop, ops, in_max, out_max);
	s->conn = conn;
	s->open = true;
	int err = env_conn_attach(conn, loop->ev, &conn_ops, s);
	if (err < 0)
		stream_close(s, err);
}

int stream_connect(struct stream *s, struct loop *loop, const char *host, uint16_t port, const struct stream_ops *ops,
		   size_t in_max, size_t out_max)
{
	init(s, loop, ops, in_max, out_max);
	return env_connect(loop->ev, host, port, &conn_ops, s, &s->conn);
}

/* ---- handing over ------------------------------------------------------------------------------------------ */

void stream_hold(struct stream *s, bool hold)
{
	if (s->open)
		env_conn_want_read(s->conn, !hold);
}

void stream_freeze(struct stream *s)
{
	assert(s->open);
	env_conn_detach(s->conn);
	s->open = false;
	s->want_write = false;
}

void stream_thaw(struct stream *s)
{
	assert(!s->open && !s->closing);
	int err = env_conn_attach(s->conn, s->loop->ev, &conn_ops, s);
	if (err < 0) {
		stream_close(s, err);
		return;
	}
	s->open = true;
	if (stream_pending(s))
		loop_defer(s->loop, &s->flush);
}

void stream_out_bytes(const struct stream *s, struct buf *out)
{
	struct iovec iov[2];
	int pieces = out_pieces(s, iov);
	for (int i = 0; i < pieces; i++)
		buf_add(out, iov[i].iov_base, iov[i].iov_len);
}

void stream_put(struct stream *s, const char *in, size_t in_n, const char *out, size_t out_n)
{
	buf_add(&s->in, in, in_n);
	if (!out_n)
		return;
	out_take(s);
	buf_add(&s->out, out, out_n);
	loop_defer(s->loop, &s->flush);
}
