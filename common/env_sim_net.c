#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "common/env_sim_int.h"
/*
 * Sockets: two pipes per connection. A pipe is a bounded ring in the order of TCP: bytes are written, under
 * way, delivered, read; it can be late, stalled, cut into pieces or reset, but never loses a byte in silence.
 */
#define SYN_RETRY_NS 1000000000ull
#define SYN_TRIES    120

struct segment {
	uint64_t at, end; /* delivered at, up to this byte of the pipe */
	bool fin, reset;
};

struct pipe {
	struct obj obj;
	struct pipe *next, **prev; /* of the world */
	struct sim *w;
	uint64_t id;
	unsigned a, b;              /* the processes: from, to */
	struct env_conn *from, *to; /* NULL: closed */
	struct host *to_host, *from_host;
	char *ring;
	size_t cap;
	uint64_t written, delivered, read;
	struct segment *segs;
	size_t seg_first, seg_n, seg_cap; /* a ring too */
	uint64_t last_at;
	bool scheduled, fin_sent, fin_delivered, reset, writer_waits;
	bool drain; /* reset, but what was delivered before can still be read */
};

struct env_conn {
	struct owned owned;
	struct ready ready;
	struct obj obj;
	struct env *env;
	struct env_conn_ops ops;
	void *arg;
	struct pipe *in, *out;
	bool want_read, want_write, connecting;
	int connect_err;
	uint16_t port; /* connecting to */
	unsigned tries;
	struct host *peer_host;
	uint16_t peer_port;
};

struct env_listener {
	struct owned owned;
	struct ready ready;
	struct obj obj;
	struct env_listener *next;
	struct env *env;
	bool loopback;
	uint16_t port;
	void (*on_accept)(void *arg, struct env_conn *conn);
	void *arg;
	struct env_conn *queue[256];
	unsigned queue_first, queue_n;
};

#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

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

static struct pipe *pipe_new(struct sim *w, struct env_conn *from, struct env_conn *to)
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

static void pipe_segment(struct pipe *p, uint64_t end, bool fin, bool reset)
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

static bool readable(const struct env_conn *c)
{
	const struct pipe *p = c->in;
	return p && (p->reset || p->fin_delivered || p->delivered > p->read);
}

static bool writable(const struct env_conn *c)
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

/* ---- connections --------------------------------------------------------------------------------------------------------- */

static void conn_free(struct obj *o)
{
	w_free(CONTAINER(o, struct env_conn, obj));
}

/* What the loop finds when it looks at the socket. */
static void run_conn(struct ready *r)
{
	struct env_conn *c = CONTAINER(r, struct env_conn, ready);
	if (c->connecting) {
		c->connecting = false;
		if (c->ops.on_connected)
			c->ops.on_connected(c->arg, c->connect_err);
	} else if (c->want_read && readable(c) && c->ops.on_readable) {
		c->ops.on_readable(c->arg);
	}
	if (!c->obj.dead && c->want_write && writable(c) && c->ops.on_writable)
		c->ops.on_writable(c->arg);
	/* level-triggered: what is still true comes again */
	if (!c->obj.dead && ((c->want_read && readable(c)) || (c->want_write && writable(c))))
		loop_ready(&c->ready);
}

static void pipe_leave(struct pipe *p)
{
	if (p)
		obj_unref(&p->obj);
}

static void detach(struct env_conn *c)
{
	ready_drop(&c->ready);
	c->ready.loop = NULL;
	if (c->in)
		c->in->to = NULL;
	if (c->out)
		c->out->from = NULL;
	pipe_leave(c->in);
	pipe_leave(c->out);
	c->in = c->out = NULL;
	obj_kill(&c->obj);
}

/* The system closes it: a reset if there was input nobody read, as TCP does, else an orderly end. */
static void hang_up(struct env_conn *c)
{
	struct pipe *out = c->out, *in = c->in;
	if (!out || out->reset)
		return;
	bool unread = in->delivered > in->read;
	if (unread || !out->fin_sent)
		pipe_segment(out, out->written, !unread, unread);
	out->fin_sent = true;
	/* what the peer has under way to us meets a closed door: see deliver() */
}

static void conn_died(struct owned *o, bool machine)
{
	struct env_conn *c = CONTAINER(o, struct env_conn, owned);
	if (!machine)
		hang_up(c);
	else if (c->out)
		c->out->seg_n = 0; /* the wire is dead; nobody hears of it before he speaks himself */
	detach(c);
}

static struct env_conn *conn_new(struct env *env)
{
	struct env_conn *c = w_alloc(sizeof(*c));
	obj_init(&c->obj, conn_free);
	c->env = env;
	c->want_read = true;
	c->ready.obj = &c->obj;
	c->ready.run = run_conn;
	owned_add(env, &c->owned, conn_died);
	return c;
}

void env_conn_close(struct env_conn *c)
{
	if (!c)
		return;
	w_spend(c->env->w, 300);
	w_say(c->env->w, "close of pipe %llu", (unsigned long long)(c->out ? c->out->id : 0));
	owned_drop(&c->owned);
	hang_up(c);
	detach(c);
}

void env_conn_shutdown(struct env_conn *c)
{
	struct pipe *p = c->out;
	if (!p || p->reset || p->fin_sent)
		return;
	pipe_segment(p, p->written, true, false);
	p->fin_sent = true;
}

int env_conn_attach(struct env_conn *c, struct env_loop *loop, const struct env_conn_ops *ops, void *arg)
{
	assert(env_loop_is_current(loop) && loop->env == c->env);
	ready_drop(&c->ready);
	c->ready.loop = loop;
	c->ops = *ops;
	c->arg = arg;
	if (readable(c))
		loop_ready(&c->ready);
	return 0;
}

void env_conn_detach(struct env_conn *c)
{
	assert(c->ready.loop && !c->connecting && env_loop_is_current(c->ready.loop));
	ready_drop(&c->ready);
	c->ready.loop = NULL;
	c->want_write = false;
	c->want_read = true;
}

void env_conn_want_write(struct env_conn *c, bool on)
{
	assert(!c->connecting);
	c->want_write = on;
	if (on && writable(c))
		loop_ready(&c->ready);
	else if (on && c->out)
		c->out->writer_waits = true;
}

void env_conn_want_read(struct env_conn *c, bool on)
{
	assert(!c->connecting);
	c->want_read = on;
	if (on && readable(c))
		loop_ready(&c->ready);
}

void env_conn_peer(const struct env_conn *c, char addr[ENV_ADDR_MAX])
{
	snprintf(addr, ENV_ADDR_MAX, "%.50s:%u", c->peer_host ? c->peer_host->name : "0.0.0.0", c->peer_port);
}

/* ---- listening and connecting ------------------------------------------------------------------------------------------------ */

bool net_is_own_host(const char *host)
{
	return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

static struct env_listener *find_listener(struct sim *w, const struct host *h, uint16_t port, bool from_same)
{
	struct env_listener *l = w->listeners;
	while (l && (l->env->p->host != h || l->port != port || (l->loopback && !from_same)))
		l = l->next;
	return l;
}

bool net_listens(struct sim *w, const struct host *h, uint16_t port)
{
	return find_listener(w, h, port, true) || http_listens(w, h, port);
}

uint16_t net_free_port(struct sim *w, struct host *h)
{
	do
		h->port_next = h->port_next == 60999 ? 32768 : (uint16_t)(h->port_next + 1);
	while (net_listens(w, h, h->port_next));
	return h->port_next;
}

static void listener_free(struct obj *o)
{
	w_free(CONTAINER(o, struct env_listener, obj));
}

static void listener_gone(struct env_listener *l)
{
	struct env_listener **at = &l->env->w->listeners;
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	ready_drop(&l->ready);
	obj_kill(&l->obj);
}

static void listener_died(struct owned *o, bool machine)
{
	(void)machine; /* connections in the queue are owned by the process and die with it */
	listener_gone(CONTAINER(o, struct env_listener, owned));
}

static void run_listener(struct ready *r)
{
	struct env_listener *l = CONTAINER(r, struct env_listener, ready);
	while (l->queue_n && !l->obj.dead) {
		struct env_conn *c = l->queue[l->queue_first];
		l->queue_first = (l->queue_first + 1) % 256;
		l->queue_n--;
		l->on_accept(l->arg, c);
	}
}

int env_listen(struct env_loop *loop, const char *host, uint16_t port,
	       void (*on_accept)(void *arg, struct env_conn *conn), void *arg, struct env_listener **out)
{
	struct env *env = loop->env;
	struct sim *w = env->w;
	struct env_listener *l;
	if (port == 0)
		port = net_free_port(w, env->p->host);
	else if (net_listens(w, env->p->host, port))
		return ERR_EXISTS;
	*out = l = w_alloc(sizeof(*l));
	obj_init(&l->obj, listener_free);
	l->env = env;
	l->loopback = net_is_own_host(host);
	l->port = port;
	l->on_accept = on_accept;
	l->arg = arg;
	l->ready = (struct ready){ .loop = loop, .obj = &l->obj, .run = run_listener };
	l->next = w->listeners;
	w->listeners = l;
	owned_add(env, &l->owned, listener_died);
	w_say(w, "listens on port %u", port);
	return 0;
}

uint16_t env_listener_port(const struct env_listener *l)
{
	return l->port;
}

void env_listener_close(struct env_listener *l)
{
	if (!l)
		return;
	for (; l->queue_n; l->queue_n--, l->queue_first = (l->queue_first + 1) % 256)
		env_conn_close(l->queue[l->queue_first]);
	owned_drop(&l->owned);
	listener_gone(l);
}

static void on_connect_done(struct sim *w, void *obj, uint64_t err)
{
	struct env_conn *c = CONTAINER(obj, struct env_conn, obj);
	(void)w;
	c->connect_err = -(int)err;
	loop_ready(&c->ready);
}

static void connect_ends(struct env_conn *c, uint64_t in_ns, int err)
{
	w_push(c->env->w, w_now(c->env->w) + in_ns, on_connect_done, &c->obj, (uint64_t)-err);
}

static void connect_to(struct env_conn *c, struct env_listener *l)
{
	struct sim *w = c->env->w;
	struct env_conn *d = conn_new(l->env);
	struct pipe *there = pipe_new(w, c, d);
	pipe_new(w, d, c);
	d->peer_host = c->env->p->host;
	d->peer_port = net_free_port(w, c->env->p->host);
	l->queue[(l->queue_first + l->queue_n++) % 256] = d;
	w_note(w, "accept", there->id, l->port);
	w_say(w, "connection %s -> %s port %u: pipes %llu, %llu", c->env->p->name, l->env->p->name, l->port,
	      (unsigned long long)there->id, (unsigned long long)there->id + 1);
	loop_ready(&l->ready);
	connect_ends(c, link_delay_ns(w, there->a, there->b), 0);
}

static bool refused_anyway(struct sim *w, struct env_conn *c)
{
	/* a process that is not there cannot be asked for its link; the listener's is */
	struct env_listener *l = find_listener(w, c->peer_host, c->port, c->env->p->host == c->peer_host);
	return !l || l->queue_n == 256 || link_between(w, c->env->p->index, l->env->p->index)->refused;
}

static void on_syn(struct sim *w, void *obj, uint64_t n)
{
	struct env_conn *c = CONTAINER(obj, struct env_conn, obj);
	struct env_listener *l = find_listener(w, c->peer_host, c->port, c->env->p->host == c->peer_host);
	unsigned self = c->env->p->index;
	(void)n;
	/* a stalled process reaches nobody, not even those who are not there: index 1 stands for all others */
	if (link_between(w, self, l ? l->env->p->index : 1)->stalled || c->peer_host->down) {
		if (++c->tries < SYN_TRIES)
			w_push(w, w->now + SYN_RETRY_NS, on_syn, obj, 0);
		else
			connect_ends(c, 0, ERR_TIMEOUT);
	} else if (refused_anyway(w, c)) {
		connect_ends(c, link_delay_ns(w, self, self), ERR_UNAVAILABLE);
	} else {
		connect_to(c, l);
	}
}

int env_connect(struct env_loop *loop, const char *host, uint16_t port, const struct env_conn_ops *ops, void *arg,
		struct env_conn **out)
{
	struct env *env = loop->env;
	struct sim *w = env->w;
	struct env_conn *c = conn_new(env);
	assert(env_loop_is_current(loop));
	w_spend(w, 3000);
	c->ready.loop = loop;
	c->ops = *ops;
	c->arg = arg;
	c->connecting = true;
	c->port = port;
	c->peer_port = port;
	c->peer_host = net_is_own_host(host) ? env->p->host : w_host(w, host);
	w_push(w, w_now(w) + link_delay_ns(w, env->p->index, env->p->index), on_syn, &c->obj, 0);
	*out = c;
	return 0;
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
