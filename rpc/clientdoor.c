#include "rpc/clientdoor.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/handover.h"

#define TLS_FIRST 0x16

struct guest {
	struct guest *next, **prev;
	struct clientdoor *door;
	struct env_conn *conn;
	struct timer late;
	bool balancer; /* a header may come */
	char from[ENV_ADDR_MAX], addr[ENV_ADDR_MAX];
	size_t n; /* of a PROXY header that is not whole */
	char header[BALANCER_HEADER_MAX];
};

/* Keys of what is known of a guest; they keep their meaning from version to version. */
enum key { KEY_ADDR = 1, KEY_LEFT_MS, KEY_BALANCER, KEY_HEADER };

struct clientdoor {
	struct clientdoor_options o;
	struct guest *guests;
	struct log_bound said; /* who was refused */
	bool held;
};

static void guest_free(struct guest *g)
{
	loop_timer_stop(g->door->o.loop, &g->late);
	if (g->next)
		g->next->prev = g->prev;
	*g->prev = g->next;
	free(g);
}

static void refuse(struct guest *g, const char *why)
{
	struct clientdoor *d = g->door;
	char from[ENV_ADDR_MAX];

	memcpy(from, g->from, sizeof(from));
	if (log_bound_fits(&d->said, d->o.log, d->o.loop->now_ms))
		log_info(d->o.log, "client.refused", "addr=%s why=%s", g->addr, why);
	env_conn_close(g->conn);
	guest_free(g);
	d->o.on_refused(d->o.arg, from);
}

static void open_for(struct guest *g, bool tls)
{
	struct clientdoor *d = g->door;
	struct env_conn *conn = g->conn;
	char from[ENV_ADDR_MAX], addr[ENV_ADDR_MAX];

	env_conn_detach(conn);
	if (tls && env_conn_tls_accept(conn, d->o.tls) < 0) {
		refuse(g, "no memory for TLS");
		return;
	}
	memcpy(from, g->from, sizeof(from));
	memcpy(addr, g->addr, sizeof(addr));
	guest_free(g);
	d->o.on_open(d->o.arg, conn, from, addr);
}

/*
 * Reads a balancer's header: first what all have, then what that says. true: it has been taken.
 */
static bool header_read(struct guest *g)
{
	char addr[ENV_ADDR_MAX];
	ssize_t got;

	for (;;) {
		ssize_t whole = balancer_header(g->header, g->n, addr);
		if (whole > 0) {
			if (*addr)
				memcpy(g->addr, addr, sizeof(addr));
			g->n = 0;
			g->balancer = false; /* it has said it */
			return true;
		}
		size_t want = g->n < 16 ? 16 : 16 + ((size_t)(uint8_t)g->header[14] << 8 | (uint8_t)g->header[15]);
		if (whole != ERR_INCOMPLETE || want > sizeof(g->header)) {
			refuse(g, "a PROXY header that cannot be read");
			return false;
		}
		got = env_conn_read(g->conn, g->header + g->n, want - g->n);
		if (got == ERR_AGAIN)
			return false;
		if (got <= 0) {
			refuse(g, "the balancer closed");
			return false;
		}
		g->n += (size_t)got;
	}
}

static void on_readable(void *arg)
{
	struct guest *g = arg;
	char first;

	if (g->n && !header_read(g))
		return;
	ssize_t got = env_conn_peek(g->conn, &first, 1);
	if (got == 1 && first == BALANCER_FIRST && g->balancer) {
		if (!header_read(g))
			return;
		got = env_conn_peek(g->conn, &first, 1);
	}
	if (got == ERR_AGAIN)
		return;
	if (got <= 0)
		refuse(g, "it closed without a word");
	else if (first == TLS_FIRST && g->door->o.tls)
		open_for(g, true);
	else if (g->door->o.tls_required && !balancers_trust(g->door->o.balancers, g->from))
		refuse(g, "TLS is required here");
	else
		open_for(g, false);
}

static void on_writable(void *arg)
{
	(void)arg;
}

static const struct env_conn_ops conn_ops = { .on_readable = on_readable, .on_writable = on_writable };

static void on_late(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	refuse((struct guest *)((char *)t - offsetof(struct guest, late)), "no first byte in time");
}

static struct guest *guest_new(struct clientdoor *d, struct env_conn *conn, const char *addr)
{
	struct guest *g = calloc(1, sizeof(*g));

	assert(g);
	g->door = d;
	g->conn = conn;
	g->late.fire = on_late;
	snprintf(g->from, sizeof(g->from), "%s", addr);
	snprintf(g->addr, sizeof(g->addr), "%s", addr);
	g->balancer = balancers_trust(d->o.balancers, addr);
	g->next = d->guests;
	g->prev = &d->guests;
	if (g->next)
		g->next->prev = &g->next;
	d->guests = g;
	loop_timer(d->o.loop, &g->late, CLIENTDOOR_MS);
	return g;
}

static void guest_attach(struct guest *g)
{
	if (env_conn_attach(g->conn, g->door->o.loop->ev, &conn_ops, g) < 0)
		refuse(g, env_last_error());
	else if (g->door->held)
		env_conn_want_read(g->conn, false);
}

void clientdoor_take(struct clientdoor *d, struct env_conn *conn, const char *addr)
{
	guest_attach(guest_new(d, conn, addr));
}

void clientdoor_hold(struct clientdoor *d, bool hold)
{
	d->held = hold;
	for (struct guest *g = d->guests; g; g = g->next)
		env_conn_want_read(g->conn, !hold);
}

void clientdoor_each(struct clientdoor *d, void (*one)(void *arg, const struct env_conn *conn, struct span packed),
		     void *arg)
{
	uint64_t now = d->o.loop->now_ms;
	struct buf b = BUF_INIT;

	for (struct guest *g = d->guests; g; g = g->next) {
		buf_clear(&b);
		handover_put(&b, KEY_ADDR, g->addr, strlen(g->addr));
		handover_put_u(&b, KEY_LEFT_MS, g->late.due_ms > now ? g->late.due_ms - now : 0);
		handover_put_u(&b, KEY_BALANCER, g->balancer);
		handover_put(&b, KEY_HEADER, g->header, g->n);
		one(arg, g->conn, span_of(b.data, b.len));
	}
	buf_release(&b);
}

static void guest_field(struct guest *g, const struct handover_field *f)
{
	switch ((enum key)f->key) {
	case KEY_ADDR: handover_text(f, g->addr, sizeof(g->addr)); break;
	case KEY_LEFT_MS: loop_timer(g->door->o.loop, &g->late, handover_u(f)); break;
	case KEY_BALANCER: g->balancer = handover_u(f) && g->balancer; break;
	case KEY_HEADER:
		g->n = f->bytes.n < sizeof(g->header) ? f->bytes.n : sizeof(g->header);
		memcpy(g->header, f->bytes.p, g->n);
		break;
	}
}

void clientdoor_came(struct clientdoor *d, struct env_conn *conn, const char *addr, struct span packed)
{
	struct guest *g = guest_new(d, conn, addr);
	struct handover_field f;

	while (handover_next(&packed, &f))
		guest_field(g, &f);
	guest_attach(g);
}

struct clientdoor *clientdoor_new(const struct clientdoor_options *o)
{
	struct clientdoor *d = calloc(1, sizeof(*d));

	assert(d);
	d->o = *o;
	return d;
}

void clientdoor_free(struct clientdoor *d)
{
	if (!d)
		return;
	while (d->guests) {
		env_conn_close(d->guests->conn);
		guest_free(d->guests);
	}
	free(d);
}
