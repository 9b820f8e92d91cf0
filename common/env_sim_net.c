#include "common/env_sim_net.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>
/*
 * Connections and listeners: who they belong to, how they begin and end.
 */
#define SYN_TRIES 120

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
	} else if (c->want_read && net_readable(c) && c->ops.on_readable) {
		c->ops.on_readable(c->arg);
	}
	if (!c->obj.dead && c->want_write && net_writable(c) && c->ops.on_writable)
		c->ops.on_writable(c->arg);
	/* level-triggered: what is still true comes again */
	if (!c->obj.dead && ((c->want_read && net_readable(c)) || (c->want_write && net_writable(c))))
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
	if (net_readable(c))
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
	if (on && net_writable(c))
		loop_ready(&c->ready);
	else if (on && c->out)
		c->out->writer_waits = true;
}

void env_conn_want_read(struct env_conn *c, bool on)
{
	assert(!c->connecting);
	c->want_read = on;
	if (on && net_readable(c))
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
