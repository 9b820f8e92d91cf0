#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/client_private.h"
#include "rpc/server.h"

/* ---- how calls end -------------------------------------------------------------------------------------- */

/*
 * More than CALLS_MAX calls are refused; the table's slots above that are for the refused ones, which live until they have
 * been told so.
 */
#define CALLS_MAX (1u << 20)
/* What a frame holds, without the envelope's numbers and the names of method and service. */
#define CALL_BYTES_MAX (FRAME_PAYLOAD_MAX - 1024)

/* Takes the call out of the table; its callback, if any, is the caller's to make afterwards. */
static void pending_end(struct rpc_client *c, struct pending *p)
{
	if (p->list == &c->ended)
		c->ended_n--;
	list_remove(p);
	pending_drop_bytes(p);
	pending_leave(p);
	if (p->method->kind == MSG_ONCE && p->once_seq)
		once_client_end(&c->once, p->once_seq);
	pending_free(&c->calls, p);
	metric_add(c->in_flight, (uint64_t)-1);
}

static void pending_answer(struct rpc_client *c, struct pending *p, const struct rpc_answer *a)
{
	void (*fn)(void *, const struct rpc_answer *) = p->on_answer;
	void *arg = p->arg;

	pending_end(c, p);
	if (fn)
		fn(arg, a);
	else if (a->err < 0) /* a notification's caller is not told: it is counted */
		metric_add(c->dropped, 1);
}

void pending_error(struct rpc_client *c, struct pending *p, int err, enum effect effect, const char *message)
{
	struct rpc_answer a = { .err = err, .effect = effect, .message = span_of(message, strlen(message)) };

	pending_answer(c, p, &a);
}

/*
 * Ends a call whose caller may still be inside rpc_call: told at the end of the turn. It has left its peer, which may be
 * freed before.
 */
static void pending_error_later(struct rpc_client *c, struct pending *p, int err, enum effect effect,
				const char *message)
{
	list_remove(p);
	pending_leave(p);
	p->err = err;
	p->effect = effect;
	p->message = message;
	list_append(&c->ended, p);
	c->ended_n++;
	if (!c->telling)
		loop_defer(c->worker->loop, &c->tell);
}

/* Who calls again at once, and is refused again, is told in the next turn: others must run in between. */
static void client_tell(struct rpc_client *c)
{
	c->telling = true;
	for (unsigned n = c->ended_n; n && c->ended.first; n--) {
		struct pending *p = c->ended.first;

		pending_error(c, p, p->err, p->effect, p->message);
	}
	c->telling = false;
	if (!c->ended.first || c->again_posted)
		return;
	c->again_posted = true;
	loop_post(c->worker->loop, &c->again);
}

static void on_tell(struct loop_deferred *d)
{
	client_tell((struct rpc_client *)((char *)d - offsetof(struct rpc_client, tell)));
}

static void on_again(struct inbox_msg *m)
{
	struct rpc_client *c = (struct rpc_client *)((char *)m - offsetof(struct rpc_client, again));

	c->again_posted = false;
	client_tell(c);
}

/* ---- sending ---------------------------------------------------------------------------------------------- */

/* Who the client is, and its epoch, were told in the Hello. */
static void once_put(const struct worker *w, const struct rpc_call *call, uint64_t seq, uint32_t attempt,
		     struct frame_request *r)
{
	r->has_once = true;
	r->once.key = call->once;
	r->once.seq = seq;
	r->once.first_incomplete = once_client_first(&w->client->once);
	r->once.attempt = attempt;
}

/* Encodes straight into the link's output. ERR_BUSY: its queue is full. */
static int peer_request(struct peer *peer, const struct rpc_call *call, uint64_t id, uint32_t left_ms, uint64_t seq,
			uint32_t attempt)
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
		r.service = span_of(call->method->service, strlen(call->method->service));
		r.method_name = span_of(call->method->local, call->method->local_n);
	}
	if (seq)
		once_put(peer->worker, call, seq, attempt, &r);
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

/* A notification has ended when it is sent. */
static void pending_sent(struct pending *p)
{
	struct rpc_client *c = p->worker->client;

	if (!p->on_answer) {
		pending_end(c, p);
		return;
	}
	if (p->ever_sent)
		metric_add(c->retries, 1);
	list_remove(p);
	pending_mark_sent(&c->calls, p);
	if (p->peer->breaker.failures)
		breaker_sent(&p->peer->breaker, c->worker->loop->now_ms);
	if (!pending_is_repeatable(p))
		pending_drop_bytes(p);
}

void pending_refuse(struct pending *p, const char *message)
{
	struct rpc_client *c = p->worker->client;

	if (!p->ever_sent)
		pending_error_later(c, p, ERR_BUSY, EFFECT_NONE, message);
	else if (p->method->kind == MSG_ONCE)
		pending_error_later(c, p, ERR_UNKNOWN, EFFECT_UNKNOWN, message);
	else
		pending_error_later(c, p, ERR_BUSY, EFFECT_NONE, message); /* it only reads */
}

/* The call's bytes have to be kept while it waits, or while it may have to be repeated. */
bool peer_has_room(const struct peer *peer, const struct rpc_call *call)
{
	return peer->kept_bytes + call_bytes(call) <= PEER_KEPT_MAX;
}

void pending_send(struct peer *peer, struct pending *p, const struct rpc_call *call)
{
	if (peer_request(peer, call, p->on_answer ? p->id : 0, time_left_ms(p), p->once_seq, p->attempt++) < 0)
		pending_refuse(p, "the connection's queue is full");
	else
		pending_sent(p);
}

/* A worker that handles a request of the instance: the instance waits for it and must not wait for ever. */
static bool is_asked_by(const struct worker *w, const char *instance)
{
	for (const struct link *l = w->server ? w->server->links : NULL; l; l = l->next)
		if (l->in_flight && !strcmp(l->instance, instance))
			return true;
	return false;
}

/*
 * Calls by key to an instance that is going wait: for its next start, or until the route table gives the key to another.
 * What it needs itself to come to its end still goes there, as does what was meant for this very instance.
 */
bool peer_is_held(const struct peer *peer, const struct pending *p)
{
	const struct worker *w = peer->worker;

	if (peer->moving)
		return true;
	return peer->draining && p->by_key && strcmp(peer->instance, w->service->id) != 0 &&
	       !is_asked_by(w, peer->instance);
}

void client_ready(struct peer *peer)
{
	for (struct pending *p = peer->waiting.first, *next; p; p = next) {
		struct rpc_call call = pending_call(p);

		next = p->next;
		if (!peer_is_held(peer, p))
			pending_send(peer, p, &call);
	}
}

static void peer_rehome(struct rpc_client *c, struct peer *peer, bool by_key);

/* What a broken link means for a call: sent again where that is safe, else its outcome is not known. */
void client_lost(struct peer *peer)
{
	struct rpc_client *c = peer->worker->client;
	size_t n;
	struct pending **sent = pending_sent_on(&c->calls, peer, &n);

	peer_failed(peer, "its connection broke");
	for (size_t i = 0; i < n; i++) {
		sent[i]->sent = false;
		if (pending_is_repeatable(sent[i]))
			list_append(&peer->waiting, sent[i]);
		else
			pending_error_later(c, sent[i], ERR_UNAVAILABLE, EFFECT_UNKNOWN,
					    "the connection broke before the answer came");
	}
	free(sent);
	if (peer->state != PEER_GONE)
		peer_rehome(c, peer, false);
}

/* Numbers as they came from outside become ours: an error stays one, what is not known of the effect is unknown. */
static int error_of(const struct frame_response *r)
{
	if (!r->error)
		return 0;
	return r->error <= -ERR_UNKNOWN ? -(int)r->error : ERR_FAILED;
}

void client_response(struct peer *peer, const struct frame_response *r)
{
	struct rpc_client *c = peer->worker->client;
	struct pending *p = pending_find(&c->calls, r->id);

	if (!p || p->peer != peer || !p->sent)
		return; /* it ended before: deadline or cancel */
	if (r->error == FRAME_MOVED) {
		client_moved(c, p, r);
		return;
	}
	struct rpc_answer a = {
		.err = error_of(r),
		.effect = r->effect <= EFFECT_UNKNOWN ? (enum effect)r->effect : EFFECT_UNKNOWN,
		.message = r->message,
		.body = r->body,
		.attrs = r->attrs,
		.raw = r,
	};

	if (a.err == ERR_UNAVAILABLE)
		peer_failed(peer, "it answers unavailable");
	else if (peer->breaker.failures)
		peer_worked(peer);
	pending_answer(c, p, &a);
}

static void pending_overdue(struct pending *p)
{
	struct rpc_client *c = p->worker->client;

	if (p->sent && p->peer) {
		peer_failed(p->peer, "it does not answer in time");
		peer_cancel(p->peer, p->id);
	}
	if (p->list == &c->ended)
		pending_error(c, p, p->err, p->effect, p->message);
	else if (!p->ever_sent)
		pending_error(c, p, ERR_UNAVAILABLE, EFFECT_NONE, "the service could not be reached in time");
	else if (p->method->kind == MSG_ONCE)
		pending_error(c, p, ERR_UNKNOWN, EFFECT_UNKNOWN, "no answer in time: ask again with the same key");
	else
		pending_error(c, p, ERR_TIMEOUT, p->method->kind == MSG_READ ? EFFECT_NONE : EFFECT_UNKNOWN,
			      "no answer in time");
}

/* At look_ms; the timer counts from now. */
static void client_look_later(struct rpc_client *c)
{
	uint64_t now_ms = c->worker->loop->now_ms, at = c->calls.look_ms;

	if (at == UINT64_MAX)
		loop_timer_stop(c->worker->loop, &c->look);
	else
		loop_timer(c->worker->loop, &c->look, at > now_ms ? at - now_ms : 0);
}

static void on_look(struct timer *t, uint64_t now_ms)
{
	struct rpc_client *c = (struct rpc_client *)((char *)t - offsetof(struct rpc_client, look));

	pending_look(&c->calls, now_ms, pending_overdue);
	client_look_later(c);
}

/* ---- calling ---------------------------------------------------------------------------------------------- */

uint64_t rpc_trace(struct worker *w)
{
	return client_draw(w->client) | 1;
}

/* Makes the entry of a call; peer may be NULL when nobody owns the key. */
static struct pending *pending_start(struct rpc_client *c, struct peer *peer, const struct rpc_call *call)
{
	struct pending *p = pending_new(&c->calls);
	uint32_t timeout = call->timeout_ms ? call->timeout_ms : c->timeout_ms;

	p->worker = c->worker;
	p->method = call->method;
	p->sent = p->ever_sent = false;
	p->json = call->json;
	p->anywhere = call_is_anywhere(call);
	p->by_key = !call->to.instance && !p->anywhere;
	p->sid = call->sid;
	p->trace = call->trace;
	p->attempt = p->moved = 0;
	p->once_seq = 0;
	p->on_answer = call->on_answer;
	p->arg = call->arg;
	if (peer)
		pending_join(p, peer);
	metric_add(c->in_flight, 1);
	if (pending_due(&c->calls, p, c->worker->loop->now_ms + timeout))
		client_look_later(c);
	return p;
}

static void pending_go(struct rpc_client *c, struct pending *p, const struct rpc_call *call)
{
	struct peer *peer = p->peer;
	bool up = peer_is_up(peer) && !peer_is_held(peer, p);

	if ((!up || pending_is_repeatable(p)) && !peer_has_room(peer, call)) {
		pending_error_later(c, p, ERR_BUSY, EFFECT_NONE, "too many bytes wait for the connection");
		return;
	}
	if (!up || (pending_is_repeatable(p) && p->on_answer))
		pending_keep_bytes(p, call);
	if (up)
		pending_send(peer, p, call);
	else
		list_append(&peer->waiting, p);
}

/* Nobody waits for it and it can leave now: it needs no entry. A full queue drops it: it would be told to nobody. */
static bool is_plain_push(const struct peer *peer, const struct rpc_call *call)
{
	return !call->on_answer && call->method->kind != MSG_ONCE && peer && peer_is_up(peer) && !peer->moving &&
	       !(peer->draining && !call->to.instance) && call_bytes(call) <= CALL_BYTES_MAX;
}

uint64_t rpc_call(struct worker *w, const struct rpc_call *wish)
{
	struct rpc_client *c = w->client;
	struct rpc_call call = *wish;
	bool numbered = call.method->kind == MSG_ONCE;

	loop_assert_owner(w->loop);
	if (!call.trace)
		call.trace = rpc_trace(w);
	struct peer *peer = client_choose(c, &call);

	if (is_plain_push(peer, &call)) {
		if (peer_request(peer, &call, 0, call.timeout_ms ? call.timeout_ms : c->timeout_ms, 0, 0) < 0)
			metric_add(c->dropped, 1);
		return 0;
	}
	struct pending *p = pending_start(c, peer, &call);
	uint64_t id = p->id;

	p->once_seq = numbered ? once_client_begin(&c->once) : 0;
	if (call_bytes(&call) > CALL_BYTES_MAX)
		pending_error_later(c, p, ERR_BAD_REQUEST, EFFECT_NONE, "the request is too large");
	else if (!peer)
		pending_error_later(c, p, ERR_UNAVAILABLE, EFFECT_NONE,
				    "no instance of the service is in the route table");
	else if (p->anywhere && call.method->kind == MSG_ONCE)
		pending_error_later(c, p, ERR_BAD_REQUEST, EFFECT_NONE, "a once-call goes to the owner of its key");
	else if (numbered && !p->once_seq)
		pending_error_later(c, p, ERR_BUSY, EFFECT_NONE,
				    "too many once-calls since the oldest that is under way");
	else if (peer->pendings > PEER_PENDING_MAX || pending_calls(&c->calls) > CALLS_MAX)
		pending_error_later(c, p, ERR_BUSY, EFFECT_NONE, "too many calls are under way there");
	else
		pending_go(c, p, &call);
	return call.on_answer ? id : 0;
}

bool rpc_cancel(struct worker *w, uint64_t handle)
{
	struct rpc_client *c = w->client;
	struct pending *p = pending_find(&c->calls, handle);

	if (!p)
		return false;
	if (p->sent && p->peer)
		peer_cancel(p->peer, p->id);
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

/* Moves what was never sent, and what may be sent again: to the key's owner of today, or anywhere. */
static void peer_rehome(struct rpc_client *c, struct peer *peer, bool by_key)
{
	for (struct pending *p = peer->waiting.first, *next; p; p = next) {
		next = p->next;
		if (!p->anywhere && !(by_key && p->by_key))
			continue;
		struct rpc_call call = pending_call(p);

		call.to.worker = -1;
		call.to.anywhere = p->anywhere;
		struct peer *other = client_choose(c, &call);

		if (!other || other == peer)
			continue;
		list_remove(p);
		pending_leave(p);
		pending_join(p, other);
		list_append(&other->waiting, p);
		if (peer_is_up(other))
			client_ready(other);
	}
}

static void peer_gone(struct rpc_client *c, struct peer *peer)
{
	bool was_ready = peer->state == PEER_READY;

	client_lost(peer);
	peer_rehome(c, peer, true);
	while (peer->waiting.first) {
		struct pending *p = peer->waiting.first;
		bool unknown = p->ever_sent && p->method->kind == MSG_ONCE;

		pending_error_later(c, p, unknown ? ERR_UNKNOWN : ERR_UNAVAILABLE,
				    unknown ? EFFECT_UNKNOWN : EFFECT_NONE, "the instance has left the route table");
	}
	if (was_ready)
		peer_tell_down(peer);
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
			peer_rehome(c, p, true);
	}
	client_keep(c);
	client_moved_go(c, true);
}

struct rpc_client *rpc_client_new(struct worker *w)
{
	struct rpc_client *c = calloc(1, sizeof *c);
	struct metrics *m = w->service->metrics;
	const char *service = w->service->def->name;

	assert(c);
	c->worker = w;
	c->tell.run = on_tell;
	c->again.run = on_again;
	list_init(&c->ended);
	list_init(&c->moved);
	c->moved_look.fire = client_on_moved;
	pending_init(&c->calls);
	c->look.fire = on_look;
	env_random(w->service->env, &c->trace, sizeof c->trace);
	c->timeout_ms = (uint32_t)config_int(w->service->config, "rpc.timeout_ms", 5000);
	c->retries = metric(m, w->index, METRIC_COUNTER, "loquat_rpc_retries_total",
			    "Requests sent again after a broken connection.", "service", &service);
	c->in_flight = metric(m, w->index, METRIC_GAUGE, "loquat_rpc_calls_in_flight",
			      "Calls made here without an answer yet.", "service", &service);
	c->dropped = metric(m, w->index, METRIC_COUNTER, "loquat_rpc_dropped_total",
			    "Notifications that did not fit into a link's queue, or found no instance or link in time.",
			    "service", &service);
	rpc_client_messages(c);
	return c;
}

void rpc_client_stop(struct rpc_client *c)
{
	loop_timer_stop(c->worker->loop, &c->look);
	loop_timer_stop(c->worker->loop, &c->moved_look);
	for (uint32_t i = 0; i < c->calls.slots; i++) {
		struct pending *call = pending_at(&c->calls, i);

		if (call)
			pending_end(c, call);
	}
	for (struct peer *p = c->peers, *next; p; p = next) {
		next = p->next;
		if (p->state != PEER_GONE)
			peer_remove(p);
	}
}

void rpc_client_free(struct rpc_client *c)
{
	if (!c)
		return;
	assert(!c->peers);
	pending_release(&c->calls);
	once_client_release(&c->once);
	free(c);
}
