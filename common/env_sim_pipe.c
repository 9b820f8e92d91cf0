#include "common/env_sim_net.h"
#include <assert.h>
#include <string.h>
/*
 * What a connection is made of: links between processes, pipes on them, and the bytes in these. A pipe is a bounded ring
 * in the order of TCP: bytes are written, under way, delivered, read; it can be late, stalled, cut into pieces or reset,
 * but never loses a byte in silence.
 */

/* ---- links ---------------------------------------------------------------------------------------------------- */

/* Processes in the matrix of links: the database is 0, the outside 1. */
unsigned link_index(struct sim *w, const char *process)
{
	struct sim_process *p;
	if (strcmp(process, "db") == 0)
		return 0;
	p = sim_find(w, process);
	assert(p && "no simulated process has this name");
	return p->index;
}

struct link *link_between(struct sim *w, unsigned a, unsigned b)
{
	return &w->links[a < b ? a : b][a < b ? b : a];
}

uint64_t link_delay_ns(struct sim *w, unsigned a, unsigned b)
{
	const struct link *l = link_between(w, a, b);
	const struct sim_chances *c = &w->chances;
	uint64_t min = l->delay_us_max ? l->delay_us_min : c->delay_us_min;
	uint64_t max = l->delay_us_max ? l->delay_us_max : c->delay_us_max;
	uint64_t ns = rng_between(&w->rng_net, min * 1000, max * 1000);
	if (rng_chance(&w->rng_net, c->spike_ppm))
		ns += rng_below(&w->rng_net, c->spike_us_max * 1000ull);
	return ns;
}

/* ---- pipes -------------------------------------------------------------------------------------------------------- */

static void pipe_free(struct obj *o)
{
	struct pipe *p = CONTAINER(o, struct pipe, obj);
	*p->prev = p->next;
	if (p->next)
		p->next->prev = p->prev;
	w_free(p->ring);
	w_free(p->segs);
	w_free(p);
}

struct pipe *pipe_new(struct sim *w, struct env_conn *from, struct env_conn *to)
{
	const struct sim_chances *c = &w->chances;
	struct pipe *p = w_alloc(sizeof(*p));
	obj_init(&p->obj, pipe_free); /* the writer's reference; the reader takes its own */
	obj_ref(&p->obj);
	p->w = w;
	p->id = ++w->object_next;
	p->from = from;
	p->to = to;
	p->a = from->env->p->index;
	p->b = to->env->p->index;
	p->from_host = from->env->p->host;
	p->to_host = to->env->p->host;
	p->cap = rng_between(&w->rng_net, c->buffer_min, c->buffer_max);
	p->next = w->pipes;
	p->prev = &w->pipes;
	if (p->next)
		p->next->prev = &p->next;
	w->pipes = p;
	from->out = to->in = p;
	return p;
}

static void on_segment(struct sim *w, void *obj, uint64_t n);

static void pipe_schedule(struct pipe *p)
{
	if (p->scheduled || !p->seg_n)
		return;
	p->scheduled = true;
	w_push(p->w, p->segs[p->seg_first].at, on_segment, &p->obj, 0);
}

void pipe_segment(struct pipe *p, uint64_t end, bool fin, bool reset)
{
	if (p->seg_n == p->seg_cap) {
		size_t cap = p->seg_cap ? p->seg_cap * 2 : 8;
		struct segment *segs = w_alloc(cap * sizeof(*segs));
		for (size_t i = 0; i < p->seg_n; i++)
			segs[i] = p->segs[(p->seg_first + i) % p->seg_cap];
		w_free(p->segs);
		p->segs = segs;
		p->seg_cap = cap;
		p->seg_first = 0;
	}
	uint64_t at = w_now(p->w) + link_delay_ns(p->w, p->a, p->b);
	if (at <= p->last_at)
		at = p->last_at + 1;
	p->last_at = at;
	p->segs[(p->seg_first + p->seg_n++) % p->seg_cap] = (struct segment){ at, end, fin, reset };
	pipe_schedule(p);
}

/* Both directions are gone; whoever is still there hears of it. Bytes not read yet are lost. */
static void reset_side(struct pipe *p)
{
	if (p->reset)
		return;
	p->reset = true;
	p->drain = rng_below(&p->w->rng_net, 2);
	p->seg_n = 0;
	w_note(p->w, "reset", p->id, 0);
	if (p->from)
		loop_ready(&p->from->ready);
	if (p->to)
		loop_ready(&p->to->ready);
}

static void reset_conn(struct env_conn *c)
{
	if (c->in)
		reset_side(c->in);
	if (c->out)
		reset_side(c->out);
}

static void reset_pipe(struct pipe *p)
{
	reset_side(p);
	if (p->from)
		reset_conn(p->from);
	if (p->to)
		reset_conn(p->to);
}

static void on_writer_resumes(struct sim *w, void *obj, uint64_t n)
{
	struct pipe *p = obj;
	(void)w, (void)n;
	if (p->from)
		loop_ready(&p->from->ready);
}

/* Bytes came where nobody listens any more: the answer is a reset. */
static void on_refusal(struct sim *w, void *obj, uint64_t n)
{
	struct pipe *p = obj;
	(void)n;
	if (link_between(w, p->a, p->b)->stalled || p->to_host->down)
		w_push(w, w->now + SYN_RETRY_NS, on_refusal, &p->obj, 0);
	else if (p->from)
		reset_conn(p->from);
}

static void deliver(struct pipe *p, struct segment *s)
{
	struct sim *w = p->w;
	w_note(w, "deliver", p->id, s->end);
	w_say(w, "pipe %llu: delivered up to %llu%s%s", (unsigned long long)p->id, (unsigned long long)s->end,
	      s->fin ? ", end" : "", s->reset ? ", reset" : "");
	p->delivered = s->end;
	if (s->reset || rng_chance(&w->rng_net, w->chances.reset_ppm)) {
		reset_pipe(p);
		return;
	}
	p->fin_delivered |= s->fin;
	if (p->to)
		loop_ready(&p->to->ready);
	else if (!s->fin)
		w_push(w, w->now + link_delay_ns(w, p->a, p->b), on_refusal, &p->obj, 0);
}

static void on_segment(struct sim *w, void *obj, uint64_t n)
{
	struct pipe *p = obj;
	(void)n;
	p->scheduled = false;
	if (p->reset || link_between(w, p->a, p->b)->stalled)
		return; /* a stalled one is scheduled anew when the link is back */
	if (!p->seg_n)
		return;
	struct segment s = p->segs[p->seg_first];
	p->seg_first = (p->seg_first + 1) % p->seg_cap;
	p->seg_n--;
	deliver(p, &s);
	pipe_schedule(p);
}

/* ---- reading and writing --------------------------------------------------------------------------------------------- */

static void ring_copy_out(struct pipe *p, char *buf, size_t n)
{
	size_t at = p->read % p->cap, first = p->cap - at < n ? p->cap - at : n;
	memcpy(buf, p->ring + at, first);
	memcpy(buf + first, p->ring, n - first);
	p->read += n;
}

static void ring_copy_in(struct pipe *p, const char *buf, size_t n)
{
	size_t at = p->written % p->cap, first = p->cap - at < n ? p->cap - at : n;
	if (!p->ring)
		p->ring = w_alloc(p->cap);
	memcpy(p->ring + at, buf, first);
	memcpy(p->ring, buf + first, n - first);
	p->written += n;
}

static size_t maybe_fewer(struct sim *w, size_t n)
{
	return n > 1 && rng_chance(&w->rng_net, w->chances.short_ppm) ? 1 + rng_below(&w->rng_net, n) : n;
}

bool net_readable(const struct env_conn *c)
{
	const struct pipe *p = c->in;
	return p && (p->reset || p->fin_delivered || p->delivered > p->read);
}

bool net_writable(const struct env_conn *c)
{
	const struct pipe *p = c->out;
	return p && (p->reset || p->written - p->read < p->cap);
}

ssize_t env_conn_read(struct env_conn *c, void *buf, size_t n)
{
	struct sim *w = c->env->w;
	struct pipe *p = c->in;
	w_spend(w, 400);
	if (!p)
		return c->connecting ? ERR_AGAIN : ERR_CLOSED;
	size_t there = p->delivered - p->read;
	if (p->reset && !(p->drain && there))
		return ERR_CLOSED;
	if (there == 0)
		return p->fin_delivered ? 0 : ERR_AGAIN;
	n = maybe_fewer(w, n < there ? n : there);
	ring_copy_out(p, buf, n);
	w_note(w, "read", p->id, p->read); /* which bytes they are was noted when they were written */
	w_say(w, "read %zu bytes of pipe %llu", n, (unsigned long long)p->id);
	if (p->writer_waits) {
		p->writer_waits = false;
		w_push(w, w_now(w) + link_delay_ns(w, p->a, p->b), on_writer_resumes, &p->obj, 0);
	}
	return (ssize_t)n;
}

ssize_t env_conn_peek(struct env_conn *c, void *buf, size_t n)
{
	uint64_t read = c->in ? c->in->read : 0;
	if (!c->in || c->in->delivered == read)
		return c->in && c->in->fin_delivered ? 0 : ERR_AGAIN;
	n = n < c->in->delivered - read ? n : c->in->delivered - read;
	ring_copy_out(c->in, buf, n);
	c->in->read = read;
	return (ssize_t)n;
}

/* Announces what was written: in one piece, or cut somewhere. */
static void announce(struct pipe *p, uint64_t from)
{
	struct sim *w = p->w;
	uint64_t n = p->written - from;
	if (n > 1 && rng_chance(&w->rng_net, w->chances.split_ppm))
		pipe_segment(p, from + 1 + rng_below(&w->rng_net, n - 1), false, false);
	pipe_segment(p, p->written, false, false);
}

ssize_t env_conn_write(struct env_conn *c, const struct iovec *iov, int n)
{
	struct pipe *p = c->out;
	struct sim *w = c->env->w;
	w_spend(w, 500);
	if (c->connecting)
		return ERR_AGAIN;
	if (!p || p->reset || p->fin_sent)
		return ERR_CLOSED;
	uint64_t from = p->written, hash = 0;
	size_t room = p->cap - (p->written - p->read), total = 0;
	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	if (total == 0)
		return 0;
	p->writer_waits = room < total;
	if (room == 0)
		return ERR_AGAIN;
	room = maybe_fewer(w, room < total ? room : total);
	for (int i = 0; i < n && room; i++) {
		size_t part = iov[i].iov_len < room ? iov[i].iov_len : room;
		ring_copy_in(p, iov[i].iov_base, part);
		hash = hash_bytes(hash, iov[i].iov_base, part);
		room -= part;
	}
	w_note(w, "write", p->id, hash);
	w_say(w, "wrote %llu bytes to pipe %llu (to %llu)", (unsigned long long)(p->written - from),
	      (unsigned long long)p->id, (unsigned long long)p->written);
	announce(p, from);
	return (ssize_t)(p->written - from);
}

/* ---- the test's hands on the links ----------------------------------------------------------------------------------------------- */

static bool matches(struct sim *w, unsigned a, unsigned b, const char *x, const char *y)
{
	unsigned i = x ? link_index(w, x) : 0, j = y ? link_index(w, y) : 0;
	return ((!x || i == a) && (!y || j == b)) || ((!x || i == b) && (!y || j == a));
}

static void each_link(struct sim *w, const char *x, const char *y, void (*fn)(struct link *l, uint32_t p, uint32_t q),
		      uint32_t p, uint32_t q)
{
	for (unsigned a = 0; a < w->process_count; a++)
		for (unsigned b = a; b < w->process_count; b++)
			if (matches(w, a, b, x, y))
				fn(&w->links[a][b], p, q);
}

void sim_link_reset(struct sim *w, const char *a, const char *b)
{
	w_say(w, "links %s - %s reset", a ? a : "*", b ? b : "*");
	for (struct pipe *p = w->pipes, *next; p; p = next) {
		next = p->next;
		if (matches(w, p->a, p->b, a, b))
			reset_pipe(p);
	}
	db_links_reset(w, a, b);
}

static void set_refused(struct link *l, uint32_t on, uint32_t q)
{
	(void)q, l->refused = on;
}
static void set_stalled(struct link *l, uint32_t on, uint32_t q)
{
	(void)q, l->stalled = on;
}
static void set_delay(struct link *l, uint32_t min, uint32_t max)
{
	l->delay_us_min = min, l->delay_us_max = max;
}

void sim_link_refuse(struct sim *w, const char *a, const char *b, bool on)
{
	each_link(w, a, b, set_refused, on, 0);
	if (on)
		sim_link_reset(w, a, b);
}

static void unstall(struct sim *w)
{
	for (struct pipe *p = w->pipes; p; p = p->next)
		if (!p->reset && !link_between(w, p->a, p->b)->stalled)
			pipe_schedule(p);
}

void sim_link_stall(struct sim *w, const char *a, const char *b, bool on)
{
	w_say(w, "links %s - %s %s", a ? a : "*", b ? b : "*", on ? "stall" : "go on");
	each_link(w, a, b, set_stalled, on, 0);
	if (!on)
		unstall(w);
}

void sim_link_delay(struct sim *w, const char *a, const char *b, uint32_t min_us, uint32_t max_us)
{
	each_link(w, a, b, set_delay, min_us, max_us);
}

void sim_partition(struct sim *w, const char *a, bool on)
{
	sim_link_stall(w, a, NULL, on);
}

void sim_heal(struct sim *w)
{
	memset(w->links, 0, sizeof(w->links));
	unstall(w);
}
