#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"
#include "gate/gate.h"

/* A platform is asked who this is; a queryEntry waits for it. */
struct ask {
	struct ask *next, **prev; /* of the gate, so that stopping frees them */
	struct gate *gate;
	struct visitor *visitor; /* NULL: it has gone */
	uint32_t id;
	uint64_t start_ns;
};

void query_cut(struct visitor *v)
{
	if (v->ask)
		v->ask->visitor = NULL;
	v->ask = NULL;
}

void query_stop(struct gate *g)
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

/* ---- the ways in -------------------------------------------------------------------------------------------------- */

/*
 * A player whose name is proven, or a guest. An account has one place, whoever asks for it; a guest's name proves nothing,
 * so it has one for each connection.
 */
static void come(struct visitor *v, uint32_t id, const char *uid, bool guest, unsigned rank, uint64_t start_ns)
{
	struct gate *g = v->gate;
	struct place *p = guest ? NULL : place_of_account(g, uid);

	if (!p && v->place && v->place->state == PLACE_QUEUED && v->place->guest == guest &&
	    strcmp(v->place->uid, uid) == 0)
		p = v->place;
	if (v->place && v->place != p)
		place_attach(v->place, NULL);
	if (!p && !(p = place_new(g, v->conn.addr, uid, guest, rank, NULL, NULL, 0))) {
		visitor_refuse(v, id, start_ns, ERR_BUSY, PLACES_FULL);
		return;
	}
	place_attach(p, v);
	p->position = 0; /* not told: its answer comes */
	g->asked_ms = gate_now_ms(g);
	visitor_wait(v, id, start_ns);
	if (!g->grants)
		peers_ask(g, true);
	queue_pump(g);
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
	visitor_refuse(was.visitor, was.id, was.start_ns, ERR_BUSY, "too many calls are under way");
}

static void on_verified(void *arg, const struct rpc_answer *r)
{
	struct ask a = ask_end(arg);
	json_t *o = r->err < 0 ? NULL : json_loadb(r->body.p, r->body.n, 0, NULL);
	const char *uid = json_string_value(json_object_get(o, "uid"));
	json_int_t rank = json_integer_value(json_object_get(o, "rank"));

	if (!a.visitor)
		visitor_note(a.gate, ERR_UNAVAILABLE, a.start_ns);
	else if (r->err < 0)
		visitor_refuse(a.visitor, a.id, a.start_ns, r->err, "%.*s", (int)r->message.n,
			       r->message.n ? r->message.p : "");
	else if (!uid || !player_uid_ok(uid))
		visitor_refuse(a.visitor, a.id, a.start_ns, ERR_FAILED, "the platform named no player");
	else
		come(a.visitor, a.id, uid, false, rank > 0 ? (unsigned)rank : 0, a.start_ns);
	json_decref(o);
}

static void text_add(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, ",\"%s\":", name);
	jsontext_quote(b, value, strlen(value));
}

static void ask_platform(struct visitor *v, uint32_t id, const json_t *o, uint64_t start_ns)
{
	const char *platform = json_string_value(json_object_get(o, "platform"));
	const char *account = json_string_value(json_object_get(o, "account"));
	const char *credential = json_string_value(json_object_get(o, "credential"));
	struct buf b = BUF_INIT;

	if (!platform || !account || !credential) {
		visitor_refuse(v, id, start_ns, ERR_BAD_REQUEST,
			       "platform, account and credential are needed together");
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

static void come_again(struct visitor *v, uint32_t id, const char *text, uint64_t start_ns)
{
	struct gate *g = v->gate;
	struct token t;
	struct place *p;

	if (token_read(g->service->token_key, "ticket", gate_wall_us(g) / 1000, text, strlen(text), TICKET_FIELDS, &t) <
	    0) {
		visitor_refuse(v, id, start_ns, ERR_NOT_FOUND, "this is no ticket of ours");
		return;
	}
	p = place_find(g, t.field[3]);
	if (v->place && v->place != p)
		place_attach(v->place, NULL);
	if (!p) {
		search_start(v, id, &t, start_ns);
		return;
	}
	place_attach(p, v);
	visitor_answer(v, id, p, start_ns);
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
		visitor_refuse(v, m->id, start_ns, ERR_BAD_REQUEST, "the body is no JSON object: %s", why);
		return NULL;
	}
	jsontext_narrow(&narrow, m->body, m->n);
	json_error_t error;
	json_t *o = json_loadb(narrow.data, narrow.len, JSON_REJECT_DUPLICATES, &error);
	buf_release(&narrow);
	if (!o) {
		visitor_refuse(v, m->id, start_ns, ERR_BAD_REQUEST, "the body is no JSON object: %s", error.text);
		return NULL;
	}
	json_object_foreach(o, key, value)
	{
		const char *const *a = allowed;
		while (*a && strcmp(*a, key) != 0)
			a++;
		if (*a && (json_is_string(value) || json_is_null(value) || *key == '_'))
			continue;
		visitor_refuse(v, m->id, start_ns, ERR_BAD_REQUEST,
			       *a ? "%s: expected a string" : "%s: there is no such field", key);
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
		visitor_refuse(v, m->id, start_ns, ERR_BAD_REQUEST,
			       "uid, or platform with account and credential, or ticket: one is needed");
	else if (!player_uid_ok(uid) || strchr(uid, ':'))
		visitor_refuse(v, m->id, start_ns, ERR_BAD_REQUEST,
			       "uid: 1 to 64 bytes without control characters, : and *");
	else if (!v->gate->guests)
		visitor_refuse(v, m->id, start_ns, ERR_DENIED,
			       "guests are not let in: platform, account and credential are needed");
	else
		come(v, m->id, uid, true, 0, start_ns);
	json_decref(o);
}

void query_message(struct clientconn *c, const struct pomelo_message *m)
{
	static const char route[] = "gate.gateHandler.queryEntry";
	struct visitor *v = visitor_of(c);

	if (m->route_n != sizeof(route) - 1 || memcmp(m->route, route, m->route_n) != 0)
		clientconn_strike(c, m->id, "a gate takes gate.gateHandler.queryEntry only");
	else if (v->ask || v->search || v->waits_prev)
		clientconn_error(c, m->id, ERR_BUSY, EFFECT_NONE, "the last queryEntry is under way");
	else
		query_entry(v, m);
}
