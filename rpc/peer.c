#include "rpc/peer.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "proto/rpc.pb-c.h"
#include "rpc/auth.h"
#include "rpc/server.h"

#define PEER_GREETING_MS 3000
#define PEER_LOOK_MS     (PEER_HEARTBEAT_MS * 9 / 10)
#define PEER_IN_MAX      (FRAME_HEADER + (size_t)FRAME_PAYLOAD_MAX)

static struct peer *peer_of(struct stream *s)
{
	return (struct peer *)((char *)s - offsetof(struct peer, stream));
}

static struct peer *peer_of_timer(struct timer *t)
{
	return (struct peer *)((char *)t - offsetof(struct peer, timer));
}

static void peer_connect(struct peer *p);

bool peer_is_up(const struct peer *p)
{
	return p->state == PEER_READY && !p->stream.closing;
}

/* ---- what the service is told ---------------------------------------------------------------------------- */

/* Another link to the instance: one per remote worker. epoch 0: of any start of it. */
static bool has_twin(const struct peer *p, uint64_t epoch)
{
	for (const struct peer *q = p->worker->client->peers; q; q = q->next)
		if (q != p && q->state == PEER_READY && (!epoch || q->epoch == epoch) &&
		    !strcmp(q->instance, p->instance))
			return true;
	return false;
}

static void peer_tell_up(struct peer *p)
{
	if (p->worker->on_peer && !has_twin(p, p->epoch))
		p->worker->on_peer(p->worker, p->instance, p->epoch, true);
}

void peer_tell_down(struct peer *p)
{
	if (p->worker->on_peer && !has_twin(p, 0))
		p->worker->on_peer(p->worker, p->instance, p->epoch, false);
}

/* ---- the greeting ------------------------------------------------------------------------------------- */

static void peer_send(struct peer *p, enum frame_type type, const ProtobufCMessage *m)
{
	size_t n = m ? protobuf_c_message_get_packed_size(m) : 0;
	char *out = stream_reserve(&p->stream, FRAME_HEADER + n);

	if (!out)
		return; /* over the bound: the heartbeat's silence ends such a link */
	frame_put_header(out, type, n);
	if (m)
		protobuf_c_message_pack(m, (uint8_t *)out + FRAME_HEADER);
	stream_commit(&p->stream, FRAME_HEADER + n);
}

static void peer_hello(struct peer *p)
{
	struct service *s = p->worker->service;
	Loquat__Rpc__Hello m = LOQUAT__RPC__HELLO__INIT;

	env_random(s->env, p->nonce, sizeof p->nonce);
	m.has_version = m.has_epoch = m.has_worker = m.has_from_worker = m.has_nonce = true;
	m.version = FRAME_VERSION;
	m.instance = s->id;
	m.service = (char *)(p->worker->index == SERVICE_CONTROL_WORKER ? "admin" : s->def->name);
	m.epoch = s->epoch;
	m.worker = p->remote_worker;
	m.from_worker = p->worker->index;
	m.nonce = (ProtobufCBinaryData){ sizeof p->nonce, p->nonce };
	m.target = p->instance;
	peer_send(p, FRAME_HELLO, &m.base);
}

static void peer_learn_methods(struct peer *p, const Loquat__Rpc__Welcome *w)
{
	const struct schema *schema = p->worker->schema;

	memset(p->number, 0, sizeof *p->number * p->worker->client->numbers);
	for (size_t i = 0; i < w->n_method && i < UINT16_MAX; i++) {
		const struct msg_method *m = schema_method(schema, w->method[i], strlen(w->method[i]));

		if (m)
			p->number[m->index] = (uint16_t)(i + 1);
	}
}

static const char *peer_refuse(struct peer *p, const Loquat__Rpc__Welcome *w)
{
	struct service *s = p->worker->service;

	if (!w || w->version != FRAME_VERSION || !w->instance || w->nonce.len != AUTH_NONCE)
		return "its welcome is ill-formed";
	if (strcmp(w->instance, p->instance))
		return "another instance answers at this address";
	struct auth_names names = { s->id, p->instance, p->nonce, w->nonce.data };

	if (!auth_check(s->cluster_key, "server", &names, w->proof.data, w->proof.len))
		return "it does not know the cluster key";
	return NULL;
}

/* It is tried again and again, several times a second from each worker: the first word is enough. */
static void peer_log_refused(struct peer *p, const char *why)
{
	struct service *s = p->worker->service;

	if (p->worker->loop->now_ms < p->refused_ms)
		return;
	p->refused_ms = p->worker->loop->now_ms + PEER_REFUSED_MS;
	log_warn(s->log, "rpc.refused", "peer=%s why=%s", p->instance, why);
}

static int peer_welcome(struct peer *p, struct span payload)
{
	struct service *s = p->worker->service;
	Loquat__Rpc__Welcome *w = loquat__rpc__welcome__unpack(NULL, payload.n, (const uint8_t *)payload.p);
	const char *why = p->state == PEER_GREETING ? peer_refuse(p, w) : "it greets twice";

	if (why) {
		peer_log_refused(p, why);
		if (w)
			loquat__rpc__welcome__free_unpacked(w, NULL);
		return ERR_DENIED;
	}
	Loquat__Rpc__Prove prove = LOQUAT__RPC__PROVE__INIT;
	unsigned char proof[AUTH_PROOF];
	struct auth_names names = { s->id, p->instance, p->nonce, w->nonce.data };

	auth_prove(s->cluster_key, "client", &names, proof);
	prove.has_proof = true;
	prove.proof = (ProtobufCBinaryData){ sizeof proof, proof };
	peer_send(p, FRAME_PROVE, &prove.base);
	peer_learn_methods(p, w);
	p->epoch = w->epoch;
	p->draining = w->draining;
	p->state = PEER_READY;
	p->refused_ms = 0;
	loquat__rpc__welcome__free_unpacked(w, NULL);
	loop_timer(p->worker->loop, &p->timer, PEER_HEARTBEAT_MS);
	client_ready(p);
	peer_tell_up(p);
	return 0;
}

/* ---- the stream ----------------------------------------------------------------------------------------- */

void peer_cancel(struct peer *p, uint64_t id)
{
	struct frame_request r = { .id = id };
	char out[64];

	if (peer_is_up(p))
		stream_write(&p->stream, out, frame_put_request(out, &r, FRAME_CANCEL));
}

/* Says so back: then the other side knows that no call by key is still on its way. */
static int peer_goaway(struct peer *p, struct span payload)
{
	if (p->state != PEER_READY)
		return ERR_CORRUPT;
	if (payload.n)
		p->moving = true;
	else
		p->draining = true;
	peer_send(p, FRAME_GOAWAY, NULL);
	return 0;
}

static int peer_frame(void *arg, enum frame_type type, struct span payload)
{
	struct peer *p = arg;
	struct frame_response r;

	switch (type) {
	case FRAME_RESPONSE:
		if (p->state != PEER_READY || frame_get_response(payload, &r) < 0)
			return ERR_CORRUPT;
		client_response(p, &r);
		return 0;
	case FRAME_WELCOME: return peer_welcome(p, payload);
	case FRAME_PONG: return 0;
	case FRAME_GOAWAY: return peer_goaway(p, payload);
	default: return ERR_CORRUPT;
	}
}

static ssize_t peer_on_data(struct stream *s, const char *data, size_t n)
{
	struct peer *p = peer_of(s);

	p->heard_ms = p->worker->loop->now_ms;
	return frame_each(data, n, peer_frame, p);
}

static void peer_on_open(struct stream *s)
{
	struct peer *p = peer_of(s);

	p->state = PEER_GREETING;
	p->heard_ms = p->worker->loop->now_ms;
	peer_hello(p);
}

/* Who is killed has its links closed by its kernel, as one that ends well: only the farewell before tells them apart. */
static const char *peer_why_down(const struct peer *p, int err)
{
	if (err == ERR_TIMEOUT)
		return "it was silent for too long";
	if (err == ERR_CLOSED)
		return "the link was reset: it was killed, or something in between cut it";
	if (err < 0)
		return err_text(err);
	if (p->moving)
		return "another process takes its place";
	return p->draining ? "it has stopped" : "it closed the link without a farewell: it ended or was killed";
}

static void peer_on_close(struct stream *s, int err)
{
	struct peer *p = peer_of(s);
	struct service *service = p->worker->service;
	bool was_ready = p->state == PEER_READY;

	p->streaming = false;
	loop_timer_stop(p->worker->loop, &p->timer);
	if (p->state == PEER_GONE) {
		peer_remove(p);
		return;
	}
	if (p->state != PEER_CONNECTING)
		link_count_closed(service, p->worker->index, err);
	if (was_ready)
		log_info(service->log, "rpc.down", "peer=%s worker=%u why=%s", p->instance, p->remote_worker,
			 peer_why_down(p, err));
	else if (p->state == PEER_CONNECTING && err == ERR_DENIED)
		peer_log_refused(p, env_last_error());
	p->backoff_ms = p->moving ? PEER_MOVED_MS : p->backoff_ms ? p->backoff_ms * 2 : PEER_BACKOFF_MIN_MS;
	p->moving = false;
	if (p->backoff_ms > PEER_BACKOFF_MAX_MS)
		p->backoff_ms = PEER_BACKOFF_MAX_MS;
	uint32_t jitter;

	env_random(service->env, &jitter, sizeof jitter);
	p->state = PEER_BACKOFF;
	loop_timer(p->worker->loop, &p->timer, p->backoff_ms / 2 + jitter % (p->backoff_ms / 2 + 1));
	client_lost(p);
	if (was_ready)
		peer_tell_down(p);
}

static const struct stream_ops peer_stream_ops = {
	.on_data = peer_on_data,
	.on_open = peer_on_open,
	.on_close = peer_on_close,
};

static void peer_connect(struct peer *p)
{
	p->state = PEER_CONNECTING;
	int err = stream_connect(&p->stream, p->worker->loop, p->host, p->port, &peer_stream_ops, PEER_IN_MAX,
				 PEER_OUT_MAX);

	if (err < 0) {
		p->state = PEER_BACKOFF;
		loop_timer(p->worker->loop, &p->timer, PEER_BACKOFF_MAX_MS);
		return;
	}
	p->streaming = true;
	stream_busy(&p->stream);
	if (p->worker->service->tls && (err = env_conn_tls(p->stream.conn, p->worker->service->tls)) < 0)
		stream_close(&p->stream, err);
	loop_timer(p->worker->loop, &p->timer, PEER_GREETING_MS);
}

/* Connecting again only where somebody waits or the service wants the link kept: idle means idle. */
static void peer_backoff_over(struct peer *p)
{
	if (p->pendings || p->kept)
		peer_connect(p);
	else
		p->state = PEER_IDLE;
}

/*
 * Looks when the next ping is due, and when the silence has lasted: not up to a ping's time later. The time for which this
 * worker itself stood still is nobody's silence: what came meanwhile has not been read yet.
 */
static void peer_heartbeat(struct peer *p, uint64_t now_ms)
{
	uint64_t heard = p->heard_ms + (now_ms - p->timer.due_ms), silent = now_ms > heard ? now_ms - heard : 0;

	p->heard_ms = now_ms - silent;
	if (silent >= PEER_DEAD_MS) {
		stream_close(&p->stream, ERR_TIMEOUT);
		return;
	}
	p->backoff_ms = 0; /* not before: a request that kills its server must not be repeated at once for ever */
	uint64_t next = PEER_HEARTBEAT_MS - silent;

	if (silent >= PEER_HEARTBEAT_MS) {
		uint64_t left = PEER_DEAD_MS - silent;

		peer_send(p, FRAME_PING, NULL);
		next = left < PEER_LOOK_MS ? left : PEER_LOOK_MS;
	}
	loop_timer(p->worker->loop, &p->timer, next);
}

static void peer_on_timer(struct timer *t, uint64_t now_ms)
{
	struct peer *p = peer_of_timer(t);

	switch (p->state) {
	case PEER_BACKOFF: peer_backoff_over(p); return;
	case PEER_CONNECTING:
	case PEER_GREETING: stream_close(&p->stream, ERR_TIMEOUT); return;
	case PEER_READY: peer_heartbeat(p, now_ms); return;
	case PEER_IDLE:
	case PEER_GONE: return;
	}
}

/* ---- the set of peers --------------------------------------------------------------------------------- */

struct peer *peer_find(struct rpc_client *c, const char *instance, uint32_t remote_worker)
{
	for (struct peer *p = c->peers; p; p = p->next)
		if (p->remote_worker == remote_worker && p->state != PEER_GONE && !strcmp(p->instance, instance))
			return p;
	return NULL;
}

static struct peer *peer_new(struct rpc_client *c, const struct route_row *row, uint32_t remote_worker)
{
	struct peer *p = calloc(1, sizeof *p);

	assert(p);
	p->worker = c->worker;
	snprintf(p->instance, sizeof p->instance, "%s", row->id);
	snprintf(p->service, sizeof p->service, "%s", row->service);
	snprintf(p->host, sizeof p->host, "%s", row->host);
	p->port = row->rpc_port;
	p->remote_worker = remote_worker;
	p->timer.fire = peer_on_timer;
	list_init(&p->waiting);
	p->number = calloc(c->numbers, sizeof *p->number);
	assert(p->number);
	p->next = c->peers;
	c->peers = p;
	return p;
}

/* On links that stand new methods have no numbers; they are asked by their names. */
void rpc_client_messages(struct rpc_client *c)
{
	size_t n = schema_indexes(c->worker->schema);

	if (n <= c->numbers)
		return;
	for (struct peer *p = c->peers; p; p = p->next) {
		p->number = realloc(p->number, n * sizeof *p->number);
		assert(p->number);
		memset(p->number + c->numbers, 0, (n - c->numbers) * sizeof *p->number);
	}
	c->numbers = n;
}

struct peer *peer_get(struct rpc_client *c, const struct route_row *row, uint32_t remote_worker)
{
	struct peer *p = peer_find(c, row->id, remote_worker);

	if (!p)
		p = peer_new(c, row, remote_worker);
	if (p->state == PEER_IDLE)
		peer_connect(p);
	return p;
}

void peer_remove(struct peer *p)
{
	struct peer **at = &p->worker->client->peers;

	assert(!p->waiting.first && !p->pendings);
	loop_timer_stop(p->worker->loop, &p->timer);
	peer_forgotten(p);
	if (p->streaming) { /* on_close comes later and calls again */
		p->state = PEER_GONE;
		stream_close(&p->stream, 0);
		return;
	}
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	free(p->number);
	free(p);
}
