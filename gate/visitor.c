#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"
#include "gate/gate.h"

/* A question to another process that a queryEntry waits for. */
struct ask {
	struct ask *next, **prev; /* of the gate, so that stopping frees them */
	struct gate *gate;
	struct visitor *visitor; /* NULL: it has gone */
	uint32_t id;
	uint64_t start_ns;
	/* a ticket of another gate */
	char uid[PLAYER_UID_MAX + 1], origin[32], nonce[TOKEN_NONCE_MAX];
	bool guest;
	uint64_t since_ms;
};

static struct visitor *visitor_of(struct clientconn *c)
{
	return (struct visitor *)((char *)c - offsetof(struct visitor, conn));
}

/* ---- answers and pushes ------------------------------------------------------------------------------------------ */

static void note(struct gate *g, int err, uint64_t start_ns)
{
	uint64_t now = env_mono_ns(g->service->env);

	method_stats_note(&g->query, err, now > start_ns ? now - start_ns : 0);
}

static void text_add(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, ",\"%s\":", name);
	jsontext_quote(b, value, strlen(value));
}

/* "host":…,"port":…,"token":…,"uid":… behind what stands in b */
static void way_add(struct buf *b, const struct place *p)
{
	text_add(b, "host", p->load->host);
	buf_addf(b, ",\"port\":%u", p->load->port);
	text_add(b, "token", p->token);
	text_add(b, "uid", p->uid);
	buf_addch(b, '}');
}

static void push(struct visitor *v, const char *route, const struct buf *body)
{
	struct clientconn_push made;

	if (clientconn_push_make(&made, NULL, route, strlen(route), body->data, body->len) == 0)
		clientconn_push(&v->conn, &made);
}

void visitor_told(struct place *p, unsigned position)
{
	struct buf b = BUF_INIT;

	buf_addf(&b, "{\"position\":%u,\"eta\":%u}", position, queue_eta_s(p->gate, position));
	push(p->visitor, "onQueue", &b);
	buf_release(&b);
}

void visitor_admitted(struct place *p)
{
	struct buf b = BUF_INIT;

	if (!p->visitor || !p->position)
		return; /* its queryEntry is being answered */
	buf_addstr(&b, "{\"code\":200");
	way_add(&b, p);
	push(p->visitor, "onAdmit", &b);
	buf_release(&b);
}

/* Answers with the way to the connector, or with the place in the queue. */
static void answer(struct visitor *v, uint32_t id, struct place *p, uint64_t start_ns)
{
	struct buf b = BUF_INIT;
	char ticket[TOKEN_MAX] = "";

	if (p->state == PLACE_ADMITTED) {
		buf_addstr(&b, "{\"code\":200");
		way_add(&b, p);
	} else {
		p->position = place_position(p);
		place_ticket(p, ticket);
		buf_addstr(&b, "{\"code\":202");
		text_add(&b, "ticket", ticket);
		buf_addf(&b, ",\"position\":%u,\"eta\":%u}", p->position, queue_eta_s(p->gate, p->position));
	}
	note(v->gate, 0, start_ns);
	clientconn_login(&v->conn);
	clientconn_respond(&v->conn, id, b.data, b.len);
	buf_release(&b);
}

static void __attribute__((format(printf, 5, 6)))
refuse(struct visitor *v, uint32_t id, uint64_t start_ns, int err, const char *fmt, ...)
{
	char message[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	note(v->gate, err, start_ns);
	clientconn_error(&v->conn, id, err, EFFECT_NONE, *message ? message : NULL);
}

/* ---- the ways in -------------------------------------------------------------------------------------------------- */

/* A player whose name is proven, or a guest. */
static void come(struct visitor *v, uint32_t id, const char *uid, bool guest, uint64_t start_ns)
{
	struct gate *g = v->gate;
	struct place *p = NULL;

	if (v->place && v->place->state == PLACE_QUEUED && strcmp(v->place->uid, uid) == 0)
		p = v->place;
	else if (v->place)
		place_attach(v->place, NULL);
	if (!p && !queue_full(g) && !load_least(g)) {
		refuse(v, id, start_ns, ERR_UNAVAILABLE, "no connector takes players at the moment");
		return;
	}
	if (!p && !(p = place_new(g, uid, guest, NULL, NULL, 0))) {
		refuse(v, id, start_ns, ERR_BUSY, "the queue is full");
		return;
	}
	place_attach(p, v);
	p->position = 0;
	queue_pump(g);
	answer(v, id, p, start_ns);
}

static struct ask *ask_new(struct visitor *v, uint32_t id, uint64_t start_ns)
{
	struct ask *a = calloc(1, sizeof(*a));
	struct gate *g = v->gate;

	assert(a);
	a->gate = g;
	a->visitor = v;
	v->ask = a;
	a->id = id;
	a->start_ns = start_ns;
	a->next = g->asks;
	a->prev = &g->asks;
	if (a->next)
		a->next->prev = &a->next;
	g->asks = a;
	clientconn_login_wait(&v->conn, true);
	return a;
}

/* Its contents, the visitor among them if it is still there; a is freed. */
static struct ask ask_end(struct ask *a)
{
	struct ask was = *a;

	if (a->next)
		a->next->prev = a->prev;
	*a->prev = a->next;
	if (was.visitor) {
		was.visitor->ask = NULL;
		clientconn_login_wait(&was.visitor->conn, false);
	}
	free(a);
	return was;
}

static void ask_call(struct ask *a, const struct rpc_call *c)
{
	if (rpc_call(a->gate->worker, c))
		return;
	struct ask was = ask_end(a);
	refuse(was.visitor, was.id, was.start_ns, ERR_BUSY, "too many calls are under way");
}

static void on_verified(void *arg, const struct rpc_answer *r)
{
	struct ask a = ask_end(arg);
	json_t *o = r->err < 0 ? NULL : json_loadb(r->body.p, r->body.n, 0, NULL);
	const char *uid = json_string_value(json_object_get(o, "uid"));

	if (!a.visitor)
		note(a.gate, ERR_UNAVAILABLE, a.start_ns);
	else if (r->err < 0)
		refuse(a.visitor, a.id, a.start_ns, r->err, "%.*s", (int)r->message.n,
		       r->message.n ? r->message.p : "");
	else if (!uid || !player_uid_ok(uid))
		refuse(a.visitor, a.id, a.start_ns, ERR_FAILED, "the platform named no player");
	else
		come(a.visitor, a.id, uid, false, a.start_ns);
	json_decref(o);
}

static void ask_platform(struct visitor *v, uint32_t id, const json_t *o, uint64_t start_ns)
{
	const char *platform = json_string_value(json_object_get(o, "platform"));
	const char *account = json_string_value(json_object_get(o, "account"));
	const char *credential = json_string_value(json_object_get(o, "credential"));
	struct buf b = BUF_INIT;

	if (!platform || !account || !credential) {
		refuse(v, id, start_ns, ERR_BAD_REQUEST, "platform, account and credential are needed together");
		return;
	}
	buf_addstr(&b, "{\"platform\":");
	jsontext_quote(&b, platform, strlen(platform));
	text_add(&b, "account", account);
	text_add(&b, "credential", credential);
	buf_addch(&b, '}');
	struct ask *a = ask_new(v, id, start_ns);
	struct rpc_call c = {
		.method = v->gate->verify,
		.to = { .worker = -1, .key = span_of(account, strlen(account)) },
		.body = span_of(b.data, b.len),
		.json = true,
		.on_answer = on_verified,
		.arg = a,
	};
	ask_call(a, &c);
	buf_release(&b);
}

/* The other gate has given the place up: it goes on here. */
static void on_taken(void *arg, const struct rpc_answer *r)
{
	struct ask a = ask_end(arg);
	json_t *o = r->err < 0 ? NULL : json_loadb(r->body.p, r->body.n, 0, NULL);
	bool there = json_is_true(json_object_get(o, "there"));
	struct place *p;

	json_decref(o);
	if (!a.visitor) {
		note(a.gate, ERR_UNAVAILABLE, a.start_ns);
		return;
	}
	if (r->err < 0) {
		refuse(a.visitor, a.id, a.start_ns, r->err, "the gate that gave this ticket does not answer");
	} else if (!there) {
		refuse(a.visitor, a.id, a.start_ns, ERR_NOT_FOUND, "this ticket's place is given up: ask without it");
	} else if (!(p = place_new(a.gate, a.uid, a.guest, a.origin, a.nonce, a.since_ms))) {
		refuse(a.visitor, a.id, a.start_ns, ERR_BUSY, "the queue is full");
	} else {
		place_attach(p, a.visitor);
		load_ask(a.gate); /* the other gate knew the cluster to be full: this one looks before it admits */
		answer(a.visitor, a.id, p, a.start_ns);
	}
}

static void ask_origin(struct visitor *v, uint32_t id, const struct token *t, uint64_t start_ns)
{
	struct ask *a = ask_new(v, id, start_ns);
	char body[64];
	struct rpc_call c = {
		.method = v->gate->take,
		.to = { .instance = a->origin, .worker = 0 },
		.json = true,
		.on_answer = on_taken,
		.arg = a,
	};

	snprintf(a->uid, sizeof(a->uid), "%s", t->field[0]);
	a->guest = strcmp(t->field[1], "guest") == 0;
	snprintf(a->origin, sizeof(a->origin), "%s", t->field[2]);
	snprintf(a->nonce, sizeof(a->nonce), "%s", t->field[3]);
	a->since_ms = strtoull(t->field[4], NULL, 10);
	c.body = span_of(body, (size_t)snprintf(body, sizeof(body), "{\"nonce\":\"%s\"}", a->nonce));
	ask_call(a, &c);
}

static void come_again(struct visitor *v, uint32_t id, const char *text, uint64_t start_ns)
{
	struct gate *g = v->gate;
	struct token t;
	struct place *p;

	if (token_read(g->service->token_key, "ticket", env_wall_us(g->service->env) / 1000, text, strlen(text), 5,
		       &t) < 0) {
		refuse(v, id, start_ns, ERR_NOT_FOUND, "this is no ticket of ours");
		return;
	}
	if (!(p = place_find(g, t.field[3]))) {
		if (strcmp(t.field[2], g->service->id) != 0)
			ask_origin(v, id, &t, start_ns);
		else
			refuse(v, id, start_ns, ERR_NOT_FOUND, "this ticket's place is given up: ask without it");
		return;
	}
	if (v->place && v->place != p)
		place_attach(v->place, NULL);
	place_attach(p, v);
	answer(v, id, p, start_ns);
}

/* ---- the request ---------------------------------------------------------------------------------------------------- */

/* NULL: what is wrong has been answered. */
static json_t *object_read(struct visitor *v, const struct pomelo_message *m, uint64_t start_ns)
{
	static const char *const allowed[] = { "uid",    "platform",  "account",    "credential",
					       "ticket", "__route__", "__crypto__", NULL };
	struct jsontext kind;
	const char *why, *key;
	json_t *value;
	struct buf narrow = BUF_INIT;

	if (jsontext_object(m->body, m->n, &kind, &why) < 0) {
		refuse(v, m->id, start_ns, ERR_BAD_REQUEST, "the body is no JSON object: %s", why);
		return NULL;
	}
	jsontext_narrow(&narrow, m->body, m->n);
	json_error_t error;
	json_t *o = json_loadb(narrow.data, narrow.len, JSON_REJECT_DUPLICATES, &error);
	buf_release(&narrow);
	if (!o) {
		refuse(v, m->id, start_ns, ERR_BAD_REQUEST, "the body is no JSON object: %s", error.text);
		return NULL;
	}
	json_object_foreach(o, key, value)
	{
		const char *const *a = allowed;
		while (*a && strcmp(*a, key) != 0)
			a++;
		if (*a && (json_is_string(value) || json_is_null(value) || *key == '_'))
			continue;
		refuse(v, m->id, start_ns, ERR_BAD_REQUEST, *a ? "%s: expected a string" : "%s: there is no such field",
		       key);
		json_decref(o);
		return NULL;
	}
	return o;
}

static void query_entry(struct visitor *v, const struct pomelo_message *m)
{
	uint64_t start_ns = v->gate->worker->loop->now_ns;
	json_t *o = object_read(v, m, start_ns);
	const char *uid = json_string_value(json_object_get(o, "uid"));
	const char *ticket = json_string_value(json_object_get(o, "ticket"));

	if (!o)
		return;
	if (ticket)
		come_again(v, m->id, ticket, start_ns);
	else if (json_object_get(o, "platform") || json_object_get(o, "account") || json_object_get(o, "credential"))
		ask_platform(v, m->id, o, start_ns);
	else if (!uid)
		refuse(v, m->id, start_ns, ERR_BAD_REQUEST,
		       "uid, or platform with account and credential, or ticket: one is needed");
	else if (!player_uid_ok(uid) || strchr(uid, ':'))
		refuse(v, m->id, start_ns, ERR_BAD_REQUEST, "uid: 1 to 64 bytes without control characters, : and *");
	else
		come(v, m->id, uid, true, start_ns);
	json_decref(o);
}

static void on_message(struct clientconn *c, const struct pomelo_message *m)
{
	static const char route[] = "gate.gateHandler.queryEntry";
	struct visitor *v = visitor_of(c);

	if (m->route_n != sizeof(route) - 1 || memcmp(m->route, route, m->route_n) != 0)
		clientconn_strike(c, m->id, "a gate takes gate.gateHandler.queryEntry only");
	else if (v->ask)
		clientconn_error(c, m->id, ERR_BUSY, EFFECT_NONE, "the last queryEntry is under way");
	else
		query_entry(v, m);
}

/* ---- connections ------------------------------------------------------------------------------------------------------ */

static void on_end(struct clientconn *c)
{
	struct visitor *v = visitor_of(c);

	if (v->ask)
		v->ask->visitor = NULL;
	v->ask = NULL;
	if (v->place)
		place_attach(v->place, NULL);
	v->place = NULL;
}

static void on_free(struct clientconn *c)
{
	struct visitor *v = visitor_of(c);
	struct gate *g = v->gate;

	clientlisten_gone(g->listen, c->addr);
	free(v);
	if (g->stopping && !g->face.open)
		gate_free(g);
}

const struct clientconn_ops visitor_ops = { .on_message = on_message, .on_end = on_end, .on_free = on_free };

void visitor_accept(struct gate *g, struct env_conn *conn, const char *addr)
{
	struct visitor *v = g->stopping ? NULL : calloc(1, sizeof(*v));

	if (!v) {
		env_conn_close(conn);
		clientlisten_gone(g->listen, addr);
		return;
	}
	v->gate = g;
	v->conn.sid = ++g->visitors;
	clientconn_accept(&v->conn, &g->face, conn, addr);
}

void visitor_stop(struct gate *g)
{
	while (g->asks) {
		struct ask *a = g->asks;
		g->asks = a->next;
		if (a->next)
			a->next->prev = &g->asks;
		if (a->visitor)
			a->visitor->ask = NULL;
		free(a);
	}
}
