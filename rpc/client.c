#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/peer.h"

/* ---- the table of calls that have not ended ------------------------------------------------------------ */

/* An id is generation << 20 | slot, never 0, so a late answer to an ended call finds a newer generation. */
#define SLOT_BITS 20
#define SLOTS_MAX (1u << SLOT_BITS)

static void list_remove(struct pending *p)
{
	if (p->peer && p->peer->waiting_last == &p->next)
		p->peer->waiting_last = p->prev;
	if (p->next)
		p->next->prev = p->prev;
	*p->prev = p->next;
	p->next = NULL;
	p->prev = NULL;
}

static void list_push(struct pending **head, struct pending *p)
{
	p->next = *head;
	if (p->next)
		p->next->prev = &p->next;
	p->prev = head;
	*head = p;
}

static void waiting_append(struct peer *peer, struct pending *p)
{
	p->next = NULL;
	p->prev = peer->waiting_last;
	*peer->waiting_last = p;
	peer->waiting_last = &p->next;
	p->sent = false;
}

static void waiting_remove(struct pending *p)
{
	list_remove(p);
}

static struct pending *pending_new(struct rpc_client *c)
{
	struct pending *p = c->free_list;

	if (p) {
		c->free_list = p->next;
	} else {
		if (c->slots == SLOTS_MAX)
			return NULL;
		if ((c->slots & (c->slots - 1)) == 0) {
			c->slot = realloc(c->slot, sizeof *c->slot * (c->slots ? c->slots * 2 : 1));
			assert(c->slot);
		}
		p = calloc(1, sizeof *p);
		assert(p);
		p->slot = c->slots;
		c->slot[c->slots++] = p;
	}
	p->generation++;
	p->id = (uint64_t)p->generation << SLOT_BITS | p->slot;
	p->worker = c->worker;
	p->next = NULL;
	p->prev = NULL;
	return p;
}

static struct pending *pending_find(struct rpc_client *c, uint64_t id)
{
	uint32_t slot = (uint32_t)(id & (SLOTS_MAX - 1));

	if (slot >= c->slots || c->slot[slot]->id != id)
		return NULL;
	return c->slot[slot];
}

/* Takes the call out of the table; its callback, if any, is the caller's to make afterwards. */
static void pending_end(struct rpc_client *c, struct pending *p)
{
	loop_timer_stop(c->worker->loop, &p->deadline);
	if (p->prev)
		list_remove(p);
	if (p->peer) {
		p->peer->pendings--;
		p->peer = NULL;
	}
	free(p->bytes);
	p->bytes = NULL;
	p->id = 0;
	p->next = c->free_list;
	c->free_list = p;
	metric_add(c->in_flight, (uint64_t)-1);
}

static void pending_answer(struct rpc_client *c, struct pending *p, const struct rpc_answer *a)
{
	void (*fn)(void *, const struct rpc_answer *) = p->on_answer;
	void *arg = p->arg;

	pending_end(c, p);
	if (fn)
		fn(arg, a);
}

static void pending_error(struct rpc_client *c, struct pending *p, int err, enum effect effect, const char *message)
{
	struct rpc_answer a = { .err = err, .effect = effect, .message = span_of(message, strlen(message)) };

	pending_answer(c, p, &a);
}

/* Ends a call whose caller is still inside rpc_call: told at the end of the turn. */
static void pending_error_later(struct rpc_client *c, struct pending *p, int err, enum effect effect,
				const char *message)
{
	p->err = err;
	p->effect = effect;
	p->message = message;
	list_push(&c->ended, p);
	loop_defer(c->worker->loop, &c->tell);
}

static void client_tell(struct loop_deferred *d)
{
	struct rpc_client *c = (struct rpc_client *)((char *)d - offsetof(struct rpc_client, tell));

	while (c->ended)
		pending_error(c, c->ended, c->ended->err, c->ended->effect, c->ended->message);
}

/* ---- sending ---------------------------------------------------------------------------------------------- */

static bool is_repeatable(const struct pending *p)
{
	return p->method->kind != MSG_PLAIN;
}

static void pending_keep_bytes(struct pending *p, const struct rpc_call *call)
{
	size_t n = call->to.key.n + call->uid.n + call->once.n + call->body.n;
	char *at = p->bytes = malloc(n + 1);

	assert(at);
	const struct span part[] = { call->to.key, call->uid, call->once, call->body };

	for (size_t i = 0; i < 4; i++) {
		if (part[i].n)
			memcpy(at, part[i].p, part[i].n);
		at += part[i].n;
	}
	p->key_n = (uint32_t)call->to.key.n;
	p->uid_n = (uint32_t)call->uid.n;
	p->once_n = (uint32_t)call->once.n;
	p->body_n = (uint32_t)call->body.n;
}

static struct rpc_call pending_call(const struct pending *p)
{
	const char *at = p->bytes;
	struct rpc_call call = { .method = p->method, .json = p->json, .sid = p->sid, .trace = p->trace };

	call.to.key = span_of(at, p->key_n);
	call.uid = span_of(at + p->key_n, p->uid_n);
	call.once = span_of(at + p->key_n + p->uid_n, p->once_n);
	call.body = span_of(at + p->key_n + p->uid_n + p->once_n, p->body_n);
	return call;
}

/* Encodes straight into the link's output. ERR_BUSY: its queue is full. */
static int peer_request(struct peer *peer, const struct rpc_call *call, uint64_t id, uint32_t left_ms, uint32_t attempt)
{
	struct frame_request r = {
		.id = id,
		.method = peer->number[call->method->index],
		.time_left_ms = left_ms,
		.trace = call->trace,
		.key = call->to.key,
		.sid = call->sid,
		.uid = call->uid,
		.kind = (uint32_t)call->method->kind,
		.json = call->json,
		.body = call->body,
	};

	if (!r.method) { /* not agreed at connect: a reload may have brought it since; by its names, then */
		const char *name = call->method->full + strlen(call->method->service) + 1;

		r.service = span_of(call->method->service, strlen(call->method->service));
		r.method_name = span_of(name, strlen(name));
	}
	if (call->once.n) {
		r.has_once = true;
		r.once.key = call->once;
		r.once.attempt = attempt;
	}
	char *out = stream_reserve(&peer->stream, frame_request_bytes(&r));

	if (!out)
		return ERR_BUSY;
	stream_commit(&peer->stream, frame_put_request(out, &r, FRAME_REQUEST));
	return 0;
}

static uint32_t time_left_ms(const struct pending *p)
{
	uint64_t now = p->worker->loop->now_ms;

	return p->due_ms > now ? (uint32_t)(p->due_ms - now) : 1;
}

static void pending_send(struct peer *peer, struct pending *p)
{
	struct rpc_client *c = peer->worker->client;
	struct rpc_call call = pending_call(p);
	int err = peer_request(peer, &call, p->id, time_left_ms(p), p->attempt++);

	waiting_remove(p);
	if (err < 0) {
		pending_error_later(c, p, err, EFFECT_NONE, "the connection's queue is full");
		return;
	}
	if (p->ever_sent)
		metric_add(c->retries, 1);
	list_push(&peer->sent, p);
	p->sent = p->ever_sent = true;
	if (!is_repeatable(p)) {
		free(p->bytes);
		p->bytes = NULL;
	}
}

void client_ready(struct peer *peer)
{
	while (peer->waiting)
		pending_send(peer, peer->waiting);
}

/* What a broken link means for a call: sent again where that is safe, else its outcome is not known. */
void client_lost(struct peer *peer)
{
	struct rpc_client *c = peer->worker->client;
	struct pending *p;

	while ((p = peer->sent)) {
		list_remove(p);
		if (is_repeatable(p))
			waiting_append(peer, p);
		else
			pending_error_later(c, p, ERR_UNAVAILABLE, EFFECT_UNKNOWN,
					    "the connection broke before the answer came");
	}
}

void client_response(struct peer *peer, const struct frame_response *r)
{
	struct rpc_client *c = peer->worker->client;
	struct pending *p = pending_find(c, r->id);

	if (!p || p->peer != peer || !p->sent)
		return; /* it ended before: deadline or cancel */
	/* a server that is going did not execute it: the call goes elsewhere, or waits for the next one */
	struct rpc_answer a = {
		.err = -(int)r->error,
		.effect = (enum effect)r->effect,
		.message = r->message,
		.body = r->body,
		.attrs = r->attrs,
		.raw = r,
	};

	if (a.err < 0)
		a.err = err_public(a.err);
	pending_answer(c, p, &a);
}

static void pending_on_deadline(struct timer *t, uint64_t now_ms)
{
	struct pending *p = (struct pending *)((char *)t - offsetof(struct pending, deadline));
	struct rpc_client *c = p->worker->client;

	(void)now_ms;
	if (p->sent && p->peer && p->peer->state == PEER_READY) {
		struct frame_request r = { .id = p->id };
		char out[64];

		stream_write(&p->peer->stream, out, frame_put_request(out, &r, FRAME_CANCEL));
	}
	if (!p->ever_sent)
		pending_error(c, p, ERR_UNAVAILABLE, EFFECT_NONE, "the service could not be reached in time");
	else if (p->method->kind == MSG_ONCE)
		pending_error(c, p, ERR_UNKNOWN, EFFECT_UNKNOWN, "no answer in time: ask again with the same key");
	else
		pending_error(c, p, ERR_TIMEOUT, p->method->kind == MSG_READ ? EFFECT_NONE : EFFECT_UNKNOWN,
			      "no answer in time");
}

/* ---- choosing ------------------------------------------------------------------------------------------------ */

static struct peer *client_choose(struct rpc_client *c, const struct rpc_call *call)
{
	const struct route_table *t = c->worker->routes;
	const struct route_row *row;

	if (call->to.instance)
		row = route_find(t, call->to.instance);
	else
		row = route_owner(t, call->method->service, call->to.key.p, call->to.key.n);
	if (!row)
		return NULL;
	uint32_t worker = call->to.worker >= 0 && call->to.instance ? (uint32_t)call->to.worker
								    : route_worker(row, call->to.key.p, call->to.key.n);

	return worker < row->workers ? peer_get(c, row, worker) : NULL;
}

/* Splitmix64: traces must differ, not be secret, and every push has one: no system call for each. */
static uint64_t new_trace(struct rpc_client *c)
{
	uint64_t z = c->trace += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (z ^ z >> 31) | 1;
}

/* Makes the entry of a call; peer may be NULL when nobody owns the key. */
static struct pending *pending_start(struct rpc_client *c, struct peer *peer, const struct rpc_call *call)
{
	struct pending *p = pending_new(c);
	uint32_t timeout = call->timeout_ms ? call->timeout_ms : c->timeout_ms;

	if (!p)
		return NULL;
	p->peer = peer;
	p->method = call->method;
	p->due_ms = c->worker->loop->now_ms + timeout;
	p->sent = p->ever_sent = false;
	p->json = call->json;
	p->by_key = !call->to.instance;
	p->sid = call->sid;
	p->trace = call->trace;
	p->attempt = 0;
	p->on_answer = call->on_answer;
	p->arg = call->arg;
	if (peer)
		peer->pendings++;
	metric_add(c->in_flight, 1);
	p->deadline.fire = pending_on_deadline;
	loop_timer(c->worker->loop, &p->deadline, timeout);
	return p;
}

/* The way of nearly every call: the link is up, the method known, nothing has to be kept. */
static void send_at_once(struct rpc_client *c, struct pending *p, const struct rpc_call *call)
{
	int err = peer_request(p->peer, call, p->id, time_left_ms(p), p->attempt++);

	if (err < 0) {
		pending_error_later(c, p, err, EFFECT_NONE, "the connection's queue is full");
		return;
	}
	p->sent = p->ever_sent = true;
	list_push(&p->peer->sent, p);
}

/* A once-call without a business key gets one of this client: instance, epoch and sequence. */
static void once_key(struct rpc_client *c, struct rpc_call *call, char *out, size_t size)
{
	struct service *s = c->worker->service;

	if (call->method->kind != MSG_ONCE || call->once.n || !call->on_answer)
		return;
	int n = snprintf(out, size, "%s/%llu/%u/%llu", s->id, (unsigned long long)s->epoch, c->worker->index,
			 (unsigned long long)++c->once_seq);

	call->once = span_of(out, (size_t)n);
}

uint64_t rpc_call(struct worker *w, const struct rpc_call *wish)
{
	struct rpc_client *c = w->client;
	struct rpc_call call = *wish;
	char once[96];

	loop_assert_owner(w->loop);
	if (!call.trace)
		call.trace = new_trace(c);
	once_key(c, &call, once, sizeof once);
	struct peer *peer = client_choose(c, &call);

	if (!call.on_answer && peer && peer->state == PEER_READY && !peer->waiting) {
		peer_request(peer, &call, 0, call.timeout_ms ? call.timeout_ms : c->timeout_ms, 0);
		return 0; /* nobody waits for it: it leaves no entry */
	}
	struct pending *p = pending_start(c, peer, &call);

	if (!p)
		return 0; /* a million calls are under way: the process is beyond help, and so is this call */
	uint64_t id = p->id;

	if (!peer) {
		pending_error_later(c, p, ERR_UNAVAILABLE, EFFECT_NONE,
				    "no instance of the service is in the route table");
	} else if (peer->pendings > PEER_PENDING_MAX) {
		pending_error_later(c, p, ERR_BUSY, EFFECT_NONE, "too many calls are under way there");
	} else if (peer->state == PEER_READY && !peer->waiting) {
		if (is_repeatable(p))
			pending_keep_bytes(p, &call);
		send_at_once(c, p, &call);
	} else {
		pending_keep_bytes(p, &call);
		waiting_append(peer, p);
	}
	return call.on_answer ? id : 0;
}

bool rpc_cancel(struct worker *w, uint64_t handle)
{
	struct rpc_client *c = w->client;
	struct pending *p = pending_find(c, handle);
	struct frame_request r = { .id = handle };
	char out[64];

	if (!p)
		return false;
	if (p->sent && p->peer && p->peer->state == PEER_READY)
		stream_write(&p->peer->stream, out, frame_put_request(out, &r, FRAME_CANCEL));
	pending_end(c, p);
	return true;
}

/* ---- the client as a whole --------------------------------------------------------------------------------- */

bool rpc_connected(struct worker *w, const char *instance)
{
	for (struct peer *p = w->client->peers; p; p = p->next)
		if (p->state == PEER_READY && !strcmp(p->instance, instance))
			return true;
	return false;
}

static bool is_kept(const struct rpc_client *c, const char *service)
{
	for (const char *const *k = c->keep; k && *k; k++)
		if (!strcmp(*k, service))
			return true;
	return false;
}

static void client_keep(struct rpc_client *c)
{
	const struct route_table *t = c->worker->routes;

	for (size_t i = 0; i < t->rows; i++)
		for (uint32_t k = 0; is_kept(c, t->row[i].service) && k < t->row[i].workers; k++)
			peer_get(c, &t->row[i], k)->kept = true;
}

void rpc_keep(struct worker *w, const char *const *services)
{
	w->client->keep = services;
	client_keep(w->client);
}

/* Moves what was never sent, and what may be sent again, to the key's owner of today. */
static void peer_rehome(struct rpc_client *c, struct peer *peer)
{
	struct pending *p = peer->waiting, *next;

	for (; p; p = next) {
		next = p->next;
		if (!p->by_key)
			continue;
		struct rpc_call call = pending_call(p);

		call.to.worker = -1;
		struct peer *other = client_choose(c, &call);

		if (!other || other == peer)
			continue;
		waiting_remove(p);
		peer->pendings--;
		p->peer = other;
		other->pendings++;
		waiting_append(other, p);
		if (other->state == PEER_READY)
			client_ready(other);
	}
}

static void peer_gone(struct rpc_client *c, struct peer *peer)
{
	client_lost(peer);
	peer_rehome(c, peer);
	while (peer->waiting) {
		struct pending *p = peer->waiting;

		waiting_remove(p);
		peer->pendings--;
		p->peer = NULL;
		pending_error_later(c, p, ERR_UNAVAILABLE, p->ever_sent ? EFFECT_UNKNOWN : EFFECT_NONE,
				    "the instance has left the route table");
	}
	peer_remove(peer);
}

static bool row_matches(const struct route_row *row, const struct peer *p)
{
	return row && row->rpc_port == p->port && !strcmp(row->host, p->host) && p->remote_worker < row->workers;
}

void rpc_client_routes(struct rpc_client *c)
{
	for (struct peer *p = c->peers, *next; p; p = next) {
		next = p->next;
		if (p->state == PEER_GONE)
			continue;
		if (!row_matches(route_find(c->worker->routes, p->instance), p))
			peer_gone(c, p);
		else
			peer_rehome(c, p);
	}
	client_keep(c);
}

struct rpc_client *rpc_client_new(struct worker *w)
{
	struct rpc_client *c = calloc(1, sizeof *c);
	struct metrics *m = w->service->metrics;
	const char *service = w->service->def->name;

	assert(c);
	c->worker = w;
	c->tell.run = client_tell;
	c->timeout_ms = (uint32_t)config_int(w->service->config, "rpc.timeout_ms", 5000);
	env_random(w->service->env, &c->trace, sizeof c->trace);
	c->retries = metric(m, w->index, METRIC_COUNTER, "loquat_rpc_retries_total",
			    "Requests sent again after a broken connection.", "service", &service);
	c->in_flight = metric(m, w->index, METRIC_GAUGE, "loquat_rpc_calls_in_flight",
			      "Calls made here without an answer yet.", "service", &service);
	return c;
}

void rpc_client_stop(struct rpc_client *c)
{
	for (struct peer *p = c->peers, *next; p; p = next) {
		next = p->next;
		while (p->waiting || p->sent)
			pending_end(c, p->waiting ? p->waiting : p->sent);
		if (p->state != PEER_GONE)
			peer_remove(p);
	}
	while (c->ended)
		pending_end(c, c->ended);
}

void rpc_client_free(struct rpc_client *c)
{
	if (!c)
		return;
	assert(!c->peers);
	for (uint32_t i = 0; i < c->slots; i++)
		free(c->slot[i]);
	free(c->slot);
	free(c);
}
