#include "connector/forward.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "connector/entry.h"
#include "rpc/slow.h"

/* A client's request at a service. */
struct forward {
	struct forward *next, **prev; /* of its session's, or the idle ones */
	struct edge *edge;
	struct session *session; /* NULL: it has ended */
	struct edge_method *method;
	uint32_t id;
	bool decides;
	bool before; /* it came before the login: it cannot change what the session is routed by */
	uint64_t start_ns, trace;
};

static void request(struct session *s, struct edge_method *m, uint32_t id, const char *body, size_t n);

/* ---- the list of calls under way ------------------------------------------------------------------------------ */

static struct forward *forward_take(struct session *s)
{
	struct edge *e = s->edge;
	struct forward *f = e->idle_forwards;

	if (f)
		e->idle_forwards = f->next;
	else if (!(f = calloc(1, sizeof(*f))))
		return NULL;
	f->edge = e;
	f->session = s;
	f->next = s->forwards;
	f->prev = &s->forwards;
	if (f->next)
		f->next->prev = &f->next;
	s->forwards = f;
	s->flights++;
	return f;
}

static void forward_unlink(struct forward *f)
{
	if (!f->session)
		return;
	if (f->next)
		f->next->prev = f->prev;
	*f->prev = f->next;
	f->session->flights--;
	f->session = NULL;
}

static void forward_give(struct forward *f)
{
	forward_unlink(f);
	f->next = f->edge->idle_forwards;
	f->edge->idle_forwards = f;
}

void forward_idle_free(struct edge *e)
{
	while (e->idle_forwards) {
		struct forward *f = e->idle_forwards;
		e->idle_forwards = f->next;
		free(f);
	}
}

/* ---- requests that wait ---------------------------------------------------------------------------------------- */

static void hold(struct session *s, struct edge_method *m, uint32_t id, const char *body, size_t n)
{
	struct held *h;

	if (s->helds >= SESSION_HELD_MAX || !(h = malloc(sizeof(*h) + n))) {
		forward_note(s->edge, m, ERR_BUSY, s->edge->face.loop->now_ns);
		clientconn_error(&s->conn, id, ERR_BUSY, EFFECT_NONE, "too many requests wait for the one before them");
		return;
	}
	*h = (struct held){ .method = m, .id = id, .n = n };
	if (n)
		memcpy(h->body, body, n);
	*s->held_last = h;
	s->held_last = &h->next;
	s->helds++;
}

static struct held *held_detach(struct session *s)
{
	struct held *h = s->held;

	s->held = NULL;
	s->held_last = &s->held;
	s->helds = 0;
	return h;
}

/* One of them may make the rest wait again, or end the session. */
void forward_held(struct session *s)
{
	for (struct held *h = held_detach(s), *next; h; h = next) {
		next = h->next;
		if (s->conn.state == CLIENTCONN_WORKING)
			request(s, h->method, h->id, h->body, h->n);
		free(h);
	}
}

void forward_give_up(struct session *s)
{
	while (s->forwards) {
		struct forward *f = s->forwards;
		forward_unlink(f);
		clientconn_error(&s->conn, f->id, ERR_TIMEOUT, EFFECT_UNKNOWN,
				 "no answer before the connector changed");
	}
}

void forward_cut(struct session *s)
{
	for (struct held *h = held_detach(s), *next; h; h = next) {
		next = h->next;
		free(h);
	}
	while (s->forwards)
		forward_unlink(s->forwards);
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

void forward_note(struct edge *e, struct edge_method *m, int err, uint64_t start_ns)
{
	uint64_t now = env_mono_ns(e->face.loop->env);

	method_stats_note(m ? &m->stats : &e->unknown, err, now > start_ns ? now - start_ns : 0);
}

/* As the player waited for it. */
static void note_slow(const struct forward *f, int err)
{
	struct worker *w = f->edge->worker;
	uint64_t now = env_mono_ns(w->loop->env);
	const struct method_stats *m = &f->method->stats;
	struct slow_call c = { .service = m->service, .method = m->method, .us = (now - f->start_ns) / 1000 };

	if (!slow_wants(w->slow, now - f->start_ns, now))
		return;
	c.at_ns = now;
	c.at_wall_us = env_wall_us(w->loop->env);
	c.trace = f->trace;
	c.err = err;
	if (f->session)
		slow_key(&c, span_of(f->session->uid, strlen(f->session->uid)));
	slow_note(w->slow, &c);
}

static void attrs_take(struct session *s, const struct rpc_answer *a)
{
	for (unsigned i = 0; i < a->attrs; i++)
		if (session_attr_set(s, a->raw->attr[i].name, a->raw->attr[i].value) < 0)
			log_warn(s->edge->face.log, "session.attr", "sid=%llx name=%.*s why=%s",
				 (unsigned long long)s->conn.sid, (int)a->raw->attr[i].name.n, a->raw->attr[i].name.p,
				 "too many or too long");
}

static void error_pass(struct session *s, uint32_t id, const struct rpc_answer *a)
{
	bool tells = a->err != ERR_FAILED || s->edge->connector->tell_failures;
	char message[512];

	snprintf(message, sizeof(message), "%.*s", tells && a->message.n ? (int)a->message.n : 0,
		 a->message.n ? a->message.p : "");
	clientconn_error(&s->conn, id, a->err, a->effect, *message ? message : NULL);
}

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct forward *f = arg;
	struct session *s = f->session;
	uint32_t id = f->id;
	bool decides = f->decides, before = f->before;

	forward_note(f->edge, f->method, a->err, f->start_ns);
	note_slow(f, a->err);
	forward_give(f);
	if (!s)
		return;
	if (!before)
		attrs_take(s, a);
	if (a->err < 0)
		error_pass(s, id, a);
	else if (a->body.n)
		clientconn_respond(&s->conn, id, a->body.p, a->body.n);
	else
		clientconn_respond(&s->conn, id, "{\"code\":200}", 12);
	if (!decides)
		return;
	s->deciding = NULL;
	forward_held(s);
}

/* ---- the way out --------------------------------------------------------------------------------------------------- */

/* The enter of a group that goes by an attribute may change it: what comes after it goes where it decides. */
static bool method_decides(const struct msg_method *m)
{
	return m->attr && strcmp(m->name, "enter") == 0;
}

static struct span key_of(const struct session *s, const struct msg_method *m)
{
	const char *value = m->attr ? session_attr(s, m->attr, strlen(m->attr)) : "";

	if (!*value)
		value = s->uid;
	return span_of(value, strlen(value));
}

/* Before the login nobody's name is known: the connection's own number spreads them, and keeps their order. */
static struct span key_before(const struct session *s, char text[24])
{
	return span_of(text, (size_t)snprintf(text, 24, "%llu", (unsigned long long)s->conn.sid));
}

static void forward(struct session *s, struct edge_method *m, uint32_t id, const char *body, size_t n)
{
	struct edge *e = s->edge;
	struct forward *f;
	bool before = s->stage == SESSION_OUT;
	char number[24];
	struct rpc_call call = {
		.method = m->method,
		.to = { .worker = -1, .key = before ? key_before(s, number) : key_of(s, m->method) },
		.body = span_of(n ? body : "{}", n ? n : 2),
		.json = true,
		.timeout_ms = e->connector->request_ms,
		.sid = s->conn.sid,
		.uid = span_of(s->uid, strlen(s->uid)),
		.trace = edge_trace(e),
	};

	if (s->flights >= (before ? SESSION_PUBLIC_MAX : SESSION_FLIGHT_MAX) || !(f = forward_take(s))) {
		forward_note(e, m, ERR_BUSY, e->face.loop->now_ns);
		clientconn_error(&s->conn, id, ERR_BUSY, EFFECT_NONE, "too many requests are under way");
		return;
	}
	f->method = m;
	f->id = id;
	f->start_ns = e->face.loop->now_ns;
	f->trace = call.trace;
	log_debug(e->worker->service->log, "client.request", "method=%s trace=%llx sid=%llu uid=%s", m->method->full,
		  (unsigned long long)call.trace, (unsigned long long)s->conn.sid, s->uid);
	f->before = before;
	f->decides = !before && method_decides(m->method);
	if (f->decides)
		s->deciding = m->method->attr;
	call.on_answer = on_answer;
	call.arg = f;
	if (!rpc_call(e->worker, &call)) {
		s->deciding = f->decides ? NULL : s->deciding;
		forward_give(f);
		clientconn_error(&s->conn, id, ERR_BUSY, EFFECT_NONE, "too many calls are under way");
	}
}

static bool has_to_wait(const struct session *s, const struct msg_method *m)
{
	if (s->stage == SESSION_ENTERING)
		return true;
	return s->deciding && m->attr && strcmp(m->attr, s->deciding) == 0;
}

static void request(struct session *s, struct edge_method *m, uint32_t id, const char *body, size_t n)
{
	if (has_to_wait(s, m->method)) {
		hold(s, m, id, body, n);
	} else if (s->stage == SESSION_OUT && !m->method->is_public) {
		forward_note(s->edge, m, ERR_DENIED, s->edge->face.loop->now_ns);
		clientconn_strike(&s->conn, id, "log in first: connector.entryHandler.enter or resume");
	} else if (m->local) {
		entry_request(s, m, id, body, n);
	} else {
		forward(s, m, id, body, n);
	}
}

void forward_message(struct clientconn *c, const struct pomelo_message *m)
{
	struct session *s = session_of(c);
	struct edge_method *method = edge_method(s->edge, m->route, m->route_n);
	char why[POMELO_ROUTE_MAX + 40];

	if (method) {
		request(s, method, m->id, m->body, m->n);
		return;
	}
	if (s->stage != SESSION_IN) {
		forward_note(s->edge, NULL, ERR_DENIED, s->edge->face.loop->now_ns);
		clientconn_strike(c, m->id, "log in first: connector.entryHandler.enter or resume");
		return;
	}
	forward_note(s->edge, NULL, ERR_NOT_FOUND, s->edge->face.loop->now_ns);
	snprintf(why, sizeof(why), "there is no route %.*s", (int)m->route_n, m->route);
	clientconn_error(c, m->id, ERR_NOT_FOUND, EFFECT_NONE, why);
}
