#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "proto/rpc.pb-c.h"
#include "rpc/auth.h"
#include "rpc/server.h"

/* A link's life on its worker: the welcome, the client's proof, silence, the end. What comes over it is server.c's. */
#define LINK_PROOF_IN 1024 /* who has not proved anything yet gets no more room than its proof needs */

static struct link *link_of(struct stream *s)
{
	return (struct link *)((char *)s - offsetof(struct link, stream));
}

/* Not its end by the network or by the other side's own will: these are no one's mistake. */
void link_count_closed(struct service *s, unsigned worker, int err)
{
	const char *values[] = { s->def->name, err_word(err) };

	if (err == 0 || err == ERR_CLOSED || err == ERR_IO)
		return;
	metric_add(metric(s->metrics, worker, METRIC_COUNTER, "loquat_rpc_closed_total",
			  "Inner connections closed for what came over them, or for silence, by reason.",
			  "service,reason", values),
		   1);
}

int link_prove(struct link *l, struct span payload)
{
	struct service *s = l->worker->service;
	Loquat__Rpc__Prove *m = loquat__rpc__prove__unpack(NULL, payload.n, (const uint8_t *)payload.p);
	struct auth_names names = { l->instance, s->id, l->client_nonce, l->nonce };
	bool ok = m && auth_check(s->cluster_key, "client", &names, m->proof.data, m->proof.len);

	if (m)
		loquat__rpc__prove__free_unpacked(m, NULL);
	if (!ok) {
		log_warn(s->log, "rpc.denied", "peer=%s why=%s", l->instance, "it does not know the cluster key");
		return ERR_DENIED;
	}
	l->proved = true;
	l->stream.in_max = LINK_IN_MAX;
	stream_busy(&l->stream);
	return 0;
}

static void link_on_close(struct stream *stream, int err)
{
	struct link *l = link_of(stream);
	struct rpc_server *s = l->worker->server;

	if (err < 0)
		log_info(l->worker->service->log, "rpc.closed", "peer=%s why=%s", l->instance, err_word(err));
	link_count_closed(l->worker->service, l->worker->index, err);
	link_leave_all(l);
	loop_timer_stop(l->worker->loop, &l->timer);
	link_ack(l);
	if (l->next)
		l->next->prev = l->prev;
	*l->prev = l->next;
	metric_add(s->connections, (uint64_t)-1);
	atomic_fetch_sub_explicit(&s->links_n, 1, memory_order_release);
	free(l);
}

static void link_on_timer(struct timer *t, uint64_t now_ms)
{
	struct link *l = (struct link *)((char *)t - offsetof(struct link, timer));

	l->heard_ms += now_ms - t->due_ms; /* for so long this worker itself stood still: what came is not read yet */
	if (!l->proved || now_ms >= l->heard_ms + LINK_SILENT_MS)
		stream_close(&l->stream, ERR_TIMEOUT);
	else
		loop_timer(l->worker->loop, &l->timer, LINK_SILENT_MS);
}

static const struct stream_ops link_ops = { .on_data = link_on_data, .on_close = link_on_close };

static void link_welcome(struct link *l)
{
	struct service *s = l->worker->service;
	struct rpc_server *server = l->worker->server;
	Loquat__Rpc__Welcome m = LOQUAT__RPC__WELCOME__INIT;
	unsigned char proof[AUTH_PROOF];
	struct auth_names names = { l->instance, s->id, l->client_nonce, l->nonce };
	char **method = calloc(server->methods + 1, sizeof *method);

	assert(method);
	auth_prove(s->cluster_key, "server", &names, proof);
	for (uint32_t i = 0; i < server->methods; i++)
		method[i] = (char *)server->method[i].method->full;
	m.has_version = m.has_epoch = m.has_workers = m.has_nonce = m.has_proof = m.has_draining = true;
	m.version = FRAME_VERSION;
	m.instance = s->id;
	m.epoch = s->epoch;
	m.workers = s->workers;
	m.nonce = (ProtobufCBinaryData){ sizeof l->nonce, l->nonce };
	m.proof = (ProtobufCBinaryData){ sizeof proof, proof };
	m.draining = server->draining;
	m.method = method;
	m.n_method = server->methods;
	size_t n = loquat__rpc__welcome__get_packed_size(&m);
	char *out = stream_reserve(&l->stream, FRAME_HEADER + n);

	if (out) { /* else it broke in between */
		frame_put_header(out, FRAME_WELCOME, n);
		loquat__rpc__welcome__pack(&m, (uint8_t *)out + FRAME_HEADER);
		stream_commit(&l->stream, FRAME_HEADER + n);
	}
	free(method);
}

static void link_start(struct worker *w, struct env_conn *conn, const Loquat__Rpc__Hello *hello)
{
	struct rpc_server *s = w->server;
	struct link *l = calloc(1, sizeof *l);

	assert(l);
	l->worker = w;
	snprintf(l->instance, sizeof l->instance, "%s", hello->instance);
	snprintf(l->service, sizeof l->service, "%s", hello->service);
	l->admin = !strcmp(l->service, "admin");
	l->from_worker = hello->from_worker;
	l->epoch = hello->epoch;
	l->client_n = (size_t)snprintf(l->client, sizeof l->client, "%s/%u/%llu", l->instance, l->from_worker,
				       (unsigned long long)l->epoch);
	memcpy(l->client_nonce, hello->nonce.data, AUTH_NONCE);
	env_random(w->loop->env, l->nonce, sizeof l->nonce);
	l->heard_ms = w->loop->now_ms;
	l->timer.fire = link_on_timer;
	l->next = s->links;
	l->prev = &s->links;
	if (l->next)
		l->next->prev = &l->next;
	s->links = l;
	l->acked = s->draining; /* the welcome says so */
	metric_add(s->connections, 1);
	atomic_fetch_add_explicit(&s->links_n, 1, memory_order_relaxed);
	stream_accept(&l->stream, w->loop, conn, &link_ops, LINK_PROOF_IN, LINK_OUT_MAX);
	loop_timer(w->loop, &l->timer, LINK_PROOF_MS);
	link_welcome(l);
}

void server_adopt(struct inbox_msg *m)
{
	struct server_hello *h = (struct server_hello *)((char *)m - offsetof(struct server_hello, msg));
	Loquat__Rpc__Hello *hello = loquat__rpc__hello__unpack(NULL, h->n, (const uint8_t *)h->bytes);

	assert(hello); /* the acceptor has checked it */
	if (h->worker->server)
		link_start(h->worker, h->conn, hello);
	else
		env_conn_close(h->conn);
	loquat__rpc__hello__free_unpacked(hello, NULL);
	free(h);
}
