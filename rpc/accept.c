#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "proto/rpc.pb-c.h"
#include "rpc/auth.h"
#include "rpc/server.h"

/*
 * Takes inner connections on the control thread, only long enough to read their first frame: it names the worker
 * that shall own the link. The client sends nothing more before it has been welcomed, so no bytes are left over.
 */
#define GREETING_MAX  1024
#define GREETING_MS   3000
#define GREETINGS_MAX 1024

struct acceptor {
	struct service *service;
	struct env_listener *listener;
	struct greeting *greetings;
	unsigned count;
	struct log_bound said; /* who was sent away */
};

struct greeting {
	struct greeting *next, **prev;
	struct acceptor *acceptor;
	struct env_conn *conn;
	struct timer timer;
	size_t n;
	char bytes[GREETING_MAX];
};

static void greeting_free(struct greeting *g)
{
	loop_timer_stop(g->acceptor->service->control, &g->timer);
	if (g->next)
		g->next->prev = g->prev;
	*g->prev = g->next;
	g->acceptor->count--;
	free(g);
}

/* err: what it is counted as. */
static void greeting_drop(struct greeting *g, int err, const char *why)
{
	struct service *s = g->acceptor->service;
	char addr[ENV_ADDR_MAX];

	env_conn_peer(g->conn, addr);
	if (log_bound_fits(&g->acceptor->said, s->log, s->control->now_ms))
		log_info(s->log, "rpc.greeting", "addr=%s why=%s", addr, why);
	link_count_closed(s, SERVICE_CONTROL_WORKER, err);
	env_conn_close(g->conn);
	greeting_free(g);
}

static const char *hello_check(const struct service *s, const Loquat__Rpc__Hello *m)
{
	if (!m || m->version != FRAME_VERSION || !m->instance || !m->service || m->nonce.len != AUTH_NONCE)
		return "its hello is ill-formed";
	if (strlen(m->instance) > 31 || strlen(m->service) > 31)
		return "its name is too long";
	if (!m->target || strcmp(m->target, s->id))
		return "it means another instance";
	if (m->worker >= s->workers)
		return "it asks for a worker that is not there";
	return NULL;
}

static void greeting_done(struct greeting *g, struct span payload)
{
	struct service *s = g->acceptor->service;
	Loquat__Rpc__Hello *m = loquat__rpc__hello__unpack(NULL, payload.n, (const uint8_t *)payload.p);
	const char *why = hello_check(s, m);

	if (why) {
		greeting_drop(g, ERR_BAD_REQUEST, why);
	} else {
		struct server_hello *h = malloc(sizeof *h + payload.n);

		assert(h);
		h->msg.run = server_adopt;
		h->worker = s->worker[m->worker];
		h->conn = g->conn;
		h->n = payload.n;
		memcpy(h->bytes, payload.p, payload.n);
		env_conn_detach(g->conn);
		loop_post(h->worker->loop, &h->msg);
		greeting_free(g);
	}
	if (m)
		loquat__rpc__hello__free_unpacked(m, NULL);
}

static void greeting_on_readable(void *arg)
{
	struct greeting *g = arg;
	enum frame_type type;
	struct span payload;
	ssize_t n = env_conn_read(g->conn, g->bytes + g->n, sizeof g->bytes - g->n);

	if (n == ERR_AGAIN)
		return;
	if (n <= 0) {
		greeting_drop(g, n == ERR_DENIED ? ERR_DENIED : ERR_CLOSED,
			      n == ERR_DENIED ? env_last_error() : "it closed before its hello");
		return;
	}
	g->n += (size_t)n;
	ssize_t got = frame_split(g->bytes, g->n, &type, &payload);

	if (got == 0 && g->n < sizeof g->bytes)
		return;
	if (got <= 0 || type != FRAME_HELLO || (size_t)got != g->n)
		greeting_drop(g, ERR_CORRUPT, "its first frame is not a hello");
	else
		greeting_done(g, payload);
}

static void greeting_on_timer(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	greeting_drop((struct greeting *)((char *)t - offsetof(struct greeting, timer)), ERR_TIMEOUT,
		      "no hello in time");
}

static const struct env_conn_ops greeting_ops = { .on_readable = greeting_on_readable };

static void on_accept(void *arg, struct env_conn *conn)
{
	struct acceptor *a = arg;
	struct greeting *g = a->count < GREETINGS_MAX ? calloc(1, sizeof *g) : NULL;

	if (!g) {
		link_count_closed(a->service, SERVICE_CONTROL_WORKER, ERR_BUSY);
		env_conn_close(conn);
		return;
	}
	g->acceptor = a;
	g->conn = conn;
	g->timer.fire = greeting_on_timer;
	g->next = a->greetings;
	g->prev = &a->greetings;
	if (g->next)
		g->next->prev = &g->next;
	a->greetings = g;
	a->count++;
	loop_timer(a->service->control, &g->timer, GREETING_MS);
	if (env_conn_attach(conn, a->service->control->ev, &greeting_ops, g) < 0)
		greeting_drop(g, ERR_BUSY, "the loop took no more");
}

int acceptor_start(struct service *s, const char *host, uint16_t port, struct acceptor **out)
{
	struct acceptor *a = calloc(1, sizeof *a);
	int err;

	assert(a);
	a->service = s;
	err = env_listen(s->control->ev, host, port, on_accept, a, &a->listener);
	if (err < 0) {
		free(a);
		return err;
	}
	if (s->tls)
		env_listener_tls(a->listener, s->tls);
	*out = a;
	return 0;
}

void acceptor_stop(struct acceptor *a)
{
	if (!a)
		return;
	env_listener_close(a->listener);
	while (a->greetings)
		greeting_drop(a->greetings, 0, "the instance stops");
	free(a);
}
