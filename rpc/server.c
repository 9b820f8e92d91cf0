#include "rpc/server.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/slow.h"

/* ---- requests under way ---------------------------------------------------------------------------------- */

/* Only the owner writes it, so it needs no locked instruction; release: pairs with rpc_server_quiet's acquire. */
static void in_flight_add(struct rpc_server *s, int n)
{
	uint32_t now = atomic_load_explicit(&s->in_flight, memory_order_relaxed);

	atomic_store_explicit(&s->in_flight, now + (uint32_t)n, memory_order_release);
}

static struct in_flight *flight_new(struct rpc_server *s)
{
	if (!s->free_head) {
		uint32_t more = s->flights ? s->flights : 64;

		if (s->flights + more > SERVER_IN_FLIGHT_MAX)
			return NULL;
		s->flight = realloc(s->flight, sizeof *s->flight * (s->flights + more));
		assert(s->flight);
		memset(s->flight + s->flights, 0, sizeof *s->flight * more);
		for (uint32_t i = s->flights + more; i-- > s->flights;) {
			s->flight[i].slot = i;
			s->flight[i].next = s->free_head;
			s->free_head = i + 1;
		}
		s->flights += more;
	}
	struct in_flight *f = &s->flight[s->free_head - 1];

	s->free_head = f->next;
	f->generation++;
	f->handle = (uint64_t)f->generation << 32 | (f->slot + 1);
	f->used = true;
	in_flight_add(s, 1);
	return f;
}

static struct in_flight *flight_find(struct rpc_server *s, uint64_t handle)
{
	uint32_t slot = (uint32_t)handle - 1;

	if (!handle || slot >= s->flights || !s->flight[slot].used || s->flight[slot].handle != handle)
		return NULL;
	return &s->flight[slot];
}

static struct in_flight *flight_at(struct rpc_server *s, uint32_t place)
{
	return place ? &s->flight[place - 1] : NULL;
}

static void flight_join(struct rpc_server *s, struct in_flight *f, struct link *l)
{
	f->link = l;
	f->prev = l->newest;
	f->next = 0;
	if (l->newest)
		flight_at(s, l->newest)->next = f->slot + 1;
	else
		l->oldest = f->slot + 1;
	l->newest = f->slot + 1;
	l->in_flight++;
}

static void flight_leave(struct rpc_server *s, struct in_flight *f)
{
	struct link *l = f->link;

	if (!l)
		return;
	if (f->next)
		flight_at(s, f->next)->prev = f->prev;
	else
		l->newest = f->prev;
	if (f->prev)
		flight_at(s, f->prev)->next = f->next;
	else
		l->oldest = f->next;
	l->in_flight--;
	f->link = NULL;
}

/* Nobody waits for its answer any more. It may be gone after this. */
static void flight_gone(struct rpc_server *s, struct in_flight *f)
{
	rpc_gone *fn = f->gone;

	flight_leave(s, f);
	f->gone = NULL;
	metric_add(s->cancelled, f->id != 0);
	if (fn)
		fn(f->gone_arg, ERR_UNAVAILABLE);
}

void link_leave_all(struct link *l)
{
	struct rpc_server *s = l->worker->server;

	while (l->oldest)
		flight_gone(s, flight_at(s, l->oldest));
}

bool rpc_on_gone(struct worker *w, uint64_t handle, rpc_gone *fn, void *arg)
{
	struct in_flight *f = flight_find(w->server, handle);

	if (!f)
		return false;
	f->gone = fn;
	f->gone_arg = arg;
	return true;
}

static void flight_free(struct rpc_server *s, struct in_flight *f)
{
	flight_leave(s, f);
	f->gone = NULL;
	f->used = false;
	if (f->running) {
		f->running = false;
		s->method[f->method].running--;
		loop_defer(s->worker->loop, &s->limited); /* not here: those that wait would pile up on the stack */
	}
	f->next = s->free_head;
	s->free_head = f->slot + 1;
	in_flight_add(s, -1);
}

/* ---- answers ------------------------------------------------------------------------------------------------ */

static void link_respond(struct link *l, const struct frame_response *r)
{
	char *out = stream_reserve(&l->stream, frame_response_bytes(r));

	if (!out) { /* the caller does not read: it would wait for an answer that cannot be kept */
		stream_close(&l->stream, ERR_FULL);
		return;
	}
	stream_commit(&l->stream, frame_put_response(out, r));
}

/* An answer that no frame holds would break the link and all the calls on it. */
static void link_respond_too_large(struct link *l, uint64_t id, const struct msg_method *m)
{
	static const char text[] = "the answer is too large";
	struct frame_response r = {
		.id = id,
		.error = (uint32_t)-ERR_FAILED,
		.effect = m->kind == MSG_READ ? EFFECT_NONE : EFFECT_DONE,
		.message = span_of(text, sizeof text - 1),
	};

	log_error(l->worker->service->log, "rpc.answer", "method=%s why=%s", m->full, text);
	link_respond(l, &r);
}

void rpc_began(struct worker *w, uint64_t handle)
{
	struct in_flight *f = flight_find(w->server, handle);

	if (f)
		f->run_ns = env_mono_ns(w->loop->env);
}

static void flight_is_slow(struct rpc_server *s, const struct in_flight *f, int err, uint64_t now)
{
	const struct server_method *m = &s->method[f->method];
	struct slow_call c = {
		.service = m->stats.service,
		.method = m->stats.method,
		.us = (now - f->start_ns) / 1000,
		.queue_us = (f->run_ns - f->start_ns) / 1000,
		.at_ns = now,
		.at_wall_us = env_wall_us(s->worker->loop->env),
		.trace = f->trace,
		.err = err,
	};

	slow_key(&c, span_of(f->key, f->key_n));
	slow_note(s->worker->slow, &c);
}

static void flight_answer(struct rpc_server *s, struct in_flight *f, int err, const struct frame_response *r)
{
	uint64_t now = s->clock_ns = env_mono_ns(s->worker->loop->env);
	struct server_method *m = &s->method[f->method];
	bool fits = frame_response_bytes(r) <= LINK_IN_MAX;

	method_stats_note(&m->stats, fits ? err : ERR_FAILED, now - f->start_ns);
	if (slow_wants(s->worker->slow, now - f->start_ns, now))
		flight_is_slow(s, f, err, now);
	log_debug(s->worker->service->log, "rpc.answered", "method=%s trace=%llx us=%llu key=%.*s error=%s",
		  m->method->full, (unsigned long long)f->trace, (unsigned long long)(now - f->start_ns) / 1000,
		  (int)f->key_n, f->key, err_word(err));
	if (f->link && fits)
		link_respond(f->link, r);
	else if (f->link)
		link_respond_too_large(f->link, f->id, m->method);
	flight_free(s, f);
}

void rpc_answer_ok(struct worker *w, uint64_t handle, struct span body, const struct rpc_attr *attrs, unsigned n_attrs)
{
	struct in_flight *f = flight_find(w->server, handle);

	if (!f)
		return;
	struct frame_response r = { .id = f->id, .body = body };

	assert(n_attrs <= FRAME_ATTRS_MAX);
	for (unsigned i = 0; i < n_attrs; i++) {
		r.attr[i].name = attrs[i].name;
		r.attr[i].value = attrs[i].value;
	}
	r.attrs = n_attrs;
	flight_answer(w->server, f, 0, &r);
}

void rpc_answer_err(struct worker *w, uint64_t handle, int err, enum effect effect, const char *message)
{
	struct in_flight *f = flight_find(w->server, handle);

	if (!f)
		return;
	struct frame_response r = {
		.id = f->id,
		.error = (uint32_t)-err_public(err),
		.effect = (uint32_t)effect,
		.message = span_of(message, message ? strlen(message) : 0),
	};

	flight_answer(w->server, f, err, &r);
}

/* Room in a response for the request it sends back, and what stands around it. */
#define AGAIN_BYTES_MAX (FRAME_PAYLOAD_MAX - 1024)

void rpc_answer_moved(struct worker *w, uint64_t handle, const struct frame_request *again)
{
	struct in_flight *f = flight_find(w->server, handle);
	struct frame_response r = { .error = FRAME_MOVED };
	char *frame = NULL;

	if (!f)
		return;
	r.id = f->id;
	if (w->server->method[f->method].method->kind == MSG_PLAIN) {
		size_t n = frame_request_bytes(again);

		if (n > AGAIN_BYTES_MAX) {
			rpc_answer_err(w, handle, ERR_UNAVAILABLE, EFFECT_NONE, "its key moves to another instance");
			return;
		}
		frame = malloc(n);
		assert(frame);
		r.body = span_of(frame, frame_put_request(frame, again, FRAME_REQUEST));
	}
	metric_add(w->server->moved, 1);
	if (f->link)
		link_respond(f->link, &r);
	flight_free(w->server, f);
	free(frame);
}

static void link_refuse(struct link *l, uint64_t id, int err, const char *message)
{
	struct frame_response r = {
		.id = id,
		.error = (uint32_t)-err_public(err),
		.effect = EFFECT_NONE,
		.message = span_of(message, strlen(message)),
	};

	metric_add(l->worker->server->refused, 1);
	if (id)
		link_respond(l, &r);
}

/* ---- requests ----------------------------------------------------------------------------------------------- */

#define TIME_LEFT_MS 5000 /* of a request that says nothing of it */

/* Of the wake-up, or of the last answer, which is later: a batch's requests need no readings of their own. */
static uint64_t server_clock_ns(const struct rpc_server *s)
{
	return s->clock_ns > s->worker->loop->now_ns ? s->clock_ns : s->worker->loop->now_ns;
}

/* Its handle and ticket are for who has counted it. */
static struct rpc_request request_of(const struct link *l, const struct frame_request *q, const struct server_method *m)
{
	struct rpc_request r = {
		.worker = l->worker,
		.method = m->method,
		.instance_worker = l->from_worker,
		.deadline_ms = l->worker->loop->now_ms + (q->time_left_ms ? q->time_left_ms : TIME_LEFT_MS),
		.trace = q->trace,
		.sid = q->sid,
		.uid = q->uid,
		.key = q->key,
		.body = q->body,
		.json = q->json,
		.has_once = q->has_once,
		.once_key = q->once.key,
		.client = span_of(l->client, l->client_n),
		.instance_epoch = l->epoch,
		.once_seq = q->once.seq,
		.once_first = q->once.first_incomplete,
		.once_attempt = q->once.attempt,
	};

	memcpy(r.instance, l->instance, sizeof r.instance);
	return r;
}

/* Counts it among what is under way: true, it runs now; else it waits for its turn, or was refused. */
static bool link_admit(struct link *l, const struct frame_request *q, uint32_t index, uint64_t start_ns,
		       struct rpc_request *r)
{
	struct rpc_server *s = l->worker->server;
	struct server_method *m = &s->method[index];
	int admitted = limit_admit(m, l);
	struct in_flight *f = admitted < 0 ? NULL : flight_new(s);

	if (!f) {
		link_refuse(l, q->id, ERR_BUSY,
			    admitted < 0 ? "too many requests of this method wait (rpc.limits)"
					 : "too many requests are under way here");
		return false;
	}
	flight_join(s, f, l);
	f->id = q->id;
	f->method = index;
	f->start_ns = f->run_ns = start_ns;
	f->trace = q->trace;
	f->key_n = (uint8_t)(q->key.n < sizeof f->key ? q->key.n : sizeof f->key);
	if (f->key_n)
		memcpy(f->key, q->key.p, f->key_n);
	*(q->id ? &r->handle : &r->ticket) = f->handle;
	if (admitted == LIMIT_WAITS) {
		limit_hold(m, r, l);
		return false;
	}
	if (m->running_max)
		flight_runs(s, f->handle);
	return true;
}

static void link_dispatch(struct link *l, const struct frame_request *q, uint32_t index)
{
	struct worker *w = l->worker;
	struct server_method *m = &w->server->method[index];
	uint64_t start_ns = server_clock_ns(w->server);
	struct rpc_request r = request_of(l, q, m);

	if (start_ns / 1000000 > r.deadline_ms) {
		/* those before it in this batch took so long: nobody waits any more */
		link_refuse(l, q->id, ERR_TIMEOUT, "its time was over before its turn came");
		return;
	}
	if ((q->id || m->running_max) && /* how a notification ends only limits ask about */
	    !link_admit(l, q, index, start_ns, &r))
		return;
	if (!q->id)
		metric_add(m->stats.requests, 1);
	m->fn(m->arg, &r);
	rpc_ended(w, r.ticket);
}

void rpc_ended(struct worker *w, uint64_t ticket)
{
	flight_drop(w->server, ticket);
}

bool flight_waited_for(struct rpc_server *s, uint64_t handle)
{
	struct in_flight *f = flight_find(s, handle);

	return f && f->link;
}

void flight_runs(struct rpc_server *s, uint64_t handle)
{
	struct in_flight *f = flight_find(s, handle);

	f->running = true;
	s->method[f->method].running++;
}

void flight_drop(struct rpc_server *s, uint64_t handle)
{
	struct in_flight *f = flight_find(s, handle);

	if (f)
		flight_free(s, f);
}

static const char no_method[] = "there is no such method here";

/* For methods that came by a reload, after the names were agreed. */
static uint32_t method_by_name(const struct rpc_server *s, struct span service, struct span name)
{
	char full[128];
	int n = snprintf(full, sizeof full, "%.*s.%.*s", (int)service.n, service.p, (int)name.n, name.p);

	const struct msg_method *m = n < (int)sizeof full ? schema_method(s->worker->schema, full, (size_t)n) : NULL;

	for (uint32_t i = 0; m && i < s->methods; i++)
		if (s->method[i].method == m)
			return i + 1;
	return 0;
}

static void link_request(struct link *l, const struct frame_request *q)
{
	struct rpc_server *s = l->worker->server;

	uint32_t number = q->method ? q->method : method_by_name(s, q->service, q->method_name);

	if (!number || number > s->methods)
		link_refuse(l, q->id, ERR_NOT_FOUND, no_method);
	else if (!l->admin && !msg_method_admits(s->method[number - 1].method, l->service))
		link_refuse(l, q->id, ERR_DENIED,
			    "this service may not call the method (option callers in its .proto)");
	else
		link_dispatch(l, q, number - 1);
}

/* ---- the link -------------------------------------------------------------------------------------------------- */

static struct link *link_of(struct stream *s)
{
	return (struct link *)((char *)s - offsetof(struct link, stream));
}

/* Its calls by key that came before this have been read; what comes later is what we asked it for. */
void link_ack(struct link *l)
{
	if (!l->worker->server->draining || l->acked)
		return;
	l->acked = true;
	atomic_fetch_sub_explicit(&l->worker->server->unacked, 1, memory_order_release);
}

/* Nearly always one of the oldest: its time was over. An id that has been answered meanwhile is not there. */
static int link_cancel(struct link *l, struct span payload)
{
	struct rpc_server *s = l->worker->server;
	struct frame_request q;

	if (frame_get_request(payload, &q) < 0)
		return ERR_CORRUPT;
	for (struct in_flight *f = flight_at(s, l->oldest); f; f = flight_at(s, f->next))
		if (q.id && f->id == q.id) {
			flight_gone(s, f);
			break;
		}
	return 0;
}

static int link_frame(void *arg, enum frame_type type, struct span payload)
{
	struct link *l = arg;
	struct frame_request q;

	if (type == FRAME_PROVE && !l->proved)
		return link_prove(l, payload);
	if (!l->proved)
		return ERR_DENIED;
	switch (type) {
	case FRAME_REQUEST:
		if (frame_get_request(payload, &q) < 0)
			return ERR_CORRUPT;
		link_request(l, &q);
		return 0;
	case FRAME_PING: {
		char out[FRAME_HEADER];

		return stream_write(&l->stream, out, frame_put_empty(out, FRAME_PONG));
	}
	case FRAME_GOAWAY: link_ack(l); return 0;
	case FRAME_CANCEL: return link_cancel(l, payload);
	default: return ERR_CORRUPT;
	}
}

ssize_t link_on_data(struct stream *s, const char *data, size_t n)
{
	struct link *l = link_of(s);

	l->heard_ms = l->worker->loop->now_ms;
	return frame_each(data, n, link_frame, l);
}

/* ---- who handles what ----------------------------------------------------------------------------------------- */

void rpc_handle(struct worker *w, const struct msg_method *method, rpc_handler *fn, void *arg)
{
	struct rpc_server *s = w->server;

	assert(!strcmp(method->service, w->service->def->name) || !strcmp(method->service, RPC_EVERY_SERVICE));
	for (uint32_t i = 0; i < s->methods; i++)
		if (s->method[i].method->index == method->index) { /* a reload: the number stays */
			s->method[i].method = method;
			s->method[i].fn = fn;
			s->method[i].arg = arg;
			return;
		}
	s->method = realloc(s->method, sizeof *s->method * (s->methods + 1));
	assert(s->method);
	struct server_method *m = &s->method[s->methods++];

	*m = (struct server_method){ .method = method };
	limit_init(m, w->service->config);
	m->fn = fn;
	m->arg = arg;
	method_stats_init(&m->stats, w->service->metrics, w->index, method->service, method->local);
}

/* A method of messages that were taken back: its number is not given to another. */
static void on_none(void *arg, struct rpc_request *r)
{
	(void)arg;
	rpc_answer_err(r->worker, r->handle, ERR_NOT_FOUND, EFFECT_NONE, no_method);
}

void rpc_server_messages(struct rpc_server *s)
{
	for (uint32_t i = 0; i < s->methods; i++) {
		struct server_method *m = &s->method[i];
		const struct msg_method *now = schema_method_now(s->worker->schema, m->method);

		if (now)
			m->method = now;
		else
			m->fn = on_none;
		limit_messages(m);
	}
}
