#include "connector/remote.h"
#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"
#include "connector/entry.h"
#include "connector/missed.h"
#include "connector/watch.h"
#include "proto/connector.pb-c.h"
#include "rpc/clientlate.h"

/* ---- requests and answers in both forms ----------------------------------------------------------------------- */

struct ask {
	uint64_t sid;
	char reason[128];
	char name[32], value[PLAYER_NAME_MAX + 1];
	int64_t room, limit, admitted; /* < 0: not said */
	char token_key[TOKEN_PRINT_MAX];
};

static void ask_text(char *out, size_t size, const char *text)
{
	if (text)
		snprintf(out, size, "%s", text);
}

/* Services speak protobuf, the HTTP face JSON; the small requests here are all made of the same fields. */
static bool ask_json(struct span body, struct ask *out)
{
	json_t *o = json_loadb(body.n ? body.p : "{}", body.n ? body.n : 2, 0, NULL);
	bool ok = json_is_object(o);

	out->sid = (uint64_t)json_integer_value(json_object_get(o, "sid"));
	if (json_is_integer(json_object_get(o, "room")))
		out->room = json_integer_value(json_object_get(o, "room"));
	if (json_is_integer(json_object_get(o, "limit")))
		out->limit = json_integer_value(json_object_get(o, "limit"));
	if (json_is_integer(json_object_get(o, "admitted")))
		out->admitted = json_integer_value(json_object_get(o, "admitted"));
	ask_text(out->reason, sizeof(out->reason), json_string_value(json_object_get(o, "reason")));
	ask_text(out->name, sizeof(out->name), json_string_value(json_object_get(o, "name")));
	ask_text(out->value, sizeof(out->value), json_string_value(json_object_get(o, "value")));
	ask_text(out->token_key, sizeof(out->token_key), json_string_value(json_object_get(o, "token_key")));
	json_decref(o);
	return ok;
}

static bool kick_read(const struct rpc_request *r, struct ask *out)
{
	if (r->json)
		return ask_json(r->body, out);
	Connector__KickRequest *m = connector__kick_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m)
		return false;
	out->sid = m->sid;
	ask_text(out->reason, sizeof(out->reason), m->reason);
	connector__kick_request__free_unpacked(m, NULL);
	return true;
}

static bool attr_read(const struct rpc_request *r, struct ask *out)
{
	if (r->json)
		return ask_json(r->body, out);
	Connector__AttrRequest *m = connector__attr_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m)
		return false;
	out->sid = m->sid;
	ask_text(out->name, sizeof(out->name), m->name);
	ask_text(out->value, sizeof(out->value), m->value);
	connector__attr_request__free_unpacked(m, NULL);
	return true;
}

static bool alive_read(const struct rpc_request *r, struct ask *out)
{
	if (r->json)
		return ask_json(r->body, out);
	Connector__SidRequest *m = connector__sid_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m)
		return false;
	out->sid = m->sid;
	connector__sid_request__free_unpacked(m, NULL);
	return true;
}

static bool load_read(const struct rpc_request *r, struct ask *out)
{
	if (r->json)
		return ask_json(r->body, out);
	Connector__LoadRequest *m = connector__load_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m)
		return false;
	out->room = m->has_room ? (int64_t)m->room : -1;
	out->limit = m->has_limit ? (int64_t)m->limit : -1;
	out->admitted = m->has_admitted ? (int64_t)m->admitted : -1;
	ask_text(out->token_key, sizeof(out->token_key), m->token_key);
	connector__load_request__free_unpacked(m, NULL);
	return true;
}

static void answer(struct worker *w, uint64_t handle, bool json, const char *text, const char *bytes, size_t n)
{
	if (handle)
		rpc_answer_ok(w, handle, json ? span_of(text, strlen(text)) : span_of(bytes, n), NULL, 0);
}

static void answer_nothing(const struct rpc_request *r)
{
	answer(r->worker, r->handle, r->json, "{}", "", 0);
}

static void refuse(const struct rpc_request *r, int err, const char *message)
{
	if (r->handle)
		rpc_answer_err(r->worker, r->handle, err, EFFECT_NONE, message);
}

/* ---- push: the hot one, read where it stands ---------------------------------------------------------------------- */

#define PUSH_SHARE_MIN 4 /* to fewer a copy each is cheaper */

struct push {
	const char *sids; /* packed, 8 bytes each, little-endian */
	size_t sids_n;
	struct span route, body, supersedes;
};

static bool varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
	uint64_t v = 0;

	for (int shift = 0; shift < 64 && *p < end; shift += 7) {
		uint8_t c = *(*p)++;
		v |= (uint64_t)(c & 0x7f) << shift;
		if (!(c & 0x80)) {
			*out = v;
			return true;
		}
	}
	return false;
}

/* connector.PushRequest with one packed list of sids, as app.push writes it. */
static bool push_read(struct span bytes, struct push *out)
{
	const uint8_t *p = (const uint8_t *)bytes.p, *end = p + bytes.n;
	uint64_t tag, n;

	while (p < end) {
		if (!varint(&p, end, &tag) || (tag & 7) != 2 || !varint(&p, end, &n) || n > (uint64_t)(end - p))
			return false;
		const char *at = (const char *)p;
		if (tag >> 3 == 1) {
			out->sids = at;
			out->sids_n = n;
		} else if (tag >> 3 == 2) {
			out->route = span_of(at, n);
		} else if (tag >> 3 == 3) {
			out->body = span_of(at, n);
		} else if (tag >> 3 == 4) {
			out->supersedes = span_of(at, n);
		}
		p += n;
	}
	return out->sids_n % 8 == 0;
}

static void on_push(void *arg, struct rpc_request *r)
{
	struct edge *e = arg;
	struct push p = { .sids = NULL };
	struct clientconn_push made;

	if (r->json || !push_read(r->body, &p) ||
	    clientconn_push_make(&made, e->face.dict, p.route.p, p.route.n, p.body.p, p.body.n) < 0) {
		refuse(r, ERR_BAD_REQUEST, "expected connector.PushRequest as protobuf with sids, route and body");
		return;
	}
	if (p.supersedes.n)
		made.supersedes = clientlate_key(p.route.p, p.route.n, p.supersedes.p, p.supersedes.n);
	if (p.sids_n >= 8 * PUSH_SHARE_MIN)
		clientconn_push_many(&made);
	for (size_t i = 0; i < p.sids_n; i += 8) {
		uint64_t sid;
		memcpy(&sid, p.sids + i, 8);
		struct session *s = session_find(e, sid);
		if (s && !entry_holds(s, &made))
			clientconn_push(&s->conn, &made);
		else if (!s)
			missed_push(e, sid, &made);
	}
	clientconn_push_done(&made);
	answer_nothing(r);
}

/* ---- the others ------------------------------------------------------------------------------------------------------ */

static void on_kick(void *arg, struct rpc_request *r)
{
	struct ask a = { .reason = "kick" };
	struct session *s = NULL;

	if (!kick_read(r, &a)) {
		refuse(r, ERR_BAD_REQUEST, "expected connector.KickRequest");
		return;
	}
	if ((s = session_find(arg, a.sid)))
		clientconn_kick(&s->conn, a.reason);
	answer_nothing(r);
}

static void on_gone(void *arg, struct rpc_request *r)
{
	watch_asked(arg, r);
}

/* Asked by another connector, where the player goes on. */
static void on_missed(void *arg, struct rpc_request *r)
{
	struct ask a = { .sid = 0 };
	struct buf b = BUF_INIT;

	if (!r->json || !ask_json(r->body, &a)) {
		refuse(r, ERR_BAD_REQUEST, "expected connector.SidRequest as JSON");
		return;
	}
	missed_take(arg, a.sid, &b);
	if (r->handle)
		rpc_answer_ok(r->worker, r->handle, span_of(b.data, b.len), NULL, 0);
	buf_release(&b);
}

static void on_attr(void *arg, struct rpc_request *r)
{
	struct ask a = { .sid = 0 };
	struct session *s = NULL;

	if (!attr_read(r, &a)) {
		refuse(r, ERR_BAD_REQUEST, "expected connector.AttrRequest");
		return;
	}
	if ((s = session_find(arg, a.sid)) && s->stage != SESSION_OUT)
		session_attr_set(s, span_of(a.name, strlen(a.name)), span_of(a.value, strlen(a.value)));
	answer_nothing(r);
}

/*
 * The client may have closed its end already without our having read it; then the connection is not alive, or a
 * player who comes back at once would be refused. Looked at in a turn of its own: reading needs the loop's buffer.
 */
struct alive {
	struct edge *edge;
	uint64_t sid, handle;
	bool json;
};

static void alive_look(void *arg)
{
	struct alive *a = arg;
	struct session *s = session_find(a->edge, a->sid);
	bool alive = s && s->stage != SESSION_OUT && clientconn_alive(&s->conn);

	answer(a->edge->worker, a->handle, a->json, alive ? "{\"alive\":true}" : "{\"alive\":false}",
	       alive ? "\x08\x01" : "\x08\0", 2);
	free(a);
}

static void on_alive(void *arg, struct rpc_request *r)
{
	struct ask ask = { .sid = 0 };
	struct alive *a = NULL;

	if (!alive_read(r, &ask)) {
		refuse(r, ERR_BAD_REQUEST, "expected connector.SidRequest");
		return;
	}
	a = calloc(1, sizeof(*a));
	assert(a);
	*a = (struct alive){ .edge = arg, .sid = ask.sid, .handle = r->handle, .json = r->json };
	loop_call(a->edge->face.loop, alive_look, a);
}

/* What others than this start of this gate said of their tokens. */
struct told {
	Connector__Expected one[GUESTS_GATES_MAX], *list[GUESTS_GATES_MAX];
	size_t n;
};

static void told_read(struct told *t, struct connector *c, const struct rpc_request *r)
{
	uint64_t now = env_wall_us(c->service->env) / 1000;

	for (int i = 0; i < GUESTS_GATES_MAX; i++) {
		struct guests_expected *x = &c->places.expected[i];
		bool own = x->epoch == r->instance_epoch && strcmp(x->gate, r->instance) == 0;
		if (own || x->until_ms <= now || !x->n)
			continue;
		Connector__Expected *m = t->list[t->n] = &t->one[t->n];
		connector__expected__init(m);
		m->gate = x->gate;
		m->has_epoch = m->has_n = true;
		m->epoch = x->epoch;
		m->n = x->n;
		t->n++;
	}
}

static void load_text(struct buf *b, const Connector__LoadAnswer *m)
{
	buf_addf(b, "{\"sessions\":%u,\"draining\":%s,\"start\":\"%s\",\"expected\":[", m->sessions,
		 m->draining ? "true" : "false", m->start);
	for (size_t i = 0; i < m->n_expected; i++)
		buf_addf(b, "%s{\"gate\":\"%s\",\"epoch\":%llu,\"n\":%u}", i ? "," : "", m->expected[i]->gate,
			 (unsigned long long)m->expected[i]->epoch, m->expected[i]->n);
	buf_addf(b, "],\"token_key\":\"%s\",\"now_ms\":%llu}", m->token_key, (unsigned long long)m->now_ms);
}

/* Whom a gate with another token.key sends here is refused: both say so, and the gate sends nobody. */
static void key_compare(struct edge *e, const struct rpc_request *r, const char *theirs)
{
	struct connector *c = e->connector;
	uint64_t now = e->worker->loop->now_ms;

	if (!*theirs)
		return;
	if (!strcmp(theirs, c->token_key)) {
		atomic_store(&c->known_ms, now);
		return;
	}
	atomic_store(&c->foreign_ms, now);
	if (atomic_load(&c->foreign_told_ms) && now < atomic_load(&c->foreign_told_ms) + CONNECTOR_FOREIGN_TOLD_MS)
		return;
	atomic_store(&c->foreign_told_ms, now);
	log_warn(c->service->log, "token.foreign", "gate=%s why=%s", r->instance,
		 "its token.key is another one: it sends no players here");
}

static void on_load(void *arg, struct rpc_request *r)
{
	struct edge *e = arg;
	struct connector *c = e->connector;
	struct ask a = { .room = -1, .limit = -1, .admitted = -1 };
	struct told told = { .n = 0 };
	struct buf b = BUF_INIT;
	Connector__LoadAnswer m = CONNECTOR__LOAD_ANSWER__INIT;

	if (!load_read(r, &a)) {
		refuse(r, ERR_BAD_REQUEST, "expected connector.LoadRequest");
		return;
	}
	key_compare(e, r, a.token_key);
	if (a.room >= 0)
		guests_told(c, a.room, a.limit);
	if (a.admitted >= 0 && e->worker->index == 0)
		guests_expect(c, r->instance, r->instance_epoch, (unsigned)a.admitted);
	if (e->worker->index == 0)
		told_read(&told, c, r);
	m.has_sessions = m.has_draining = true;
	m.sessions = guests_held(c);
	m.draining = atomic_load(&c->service->state) != SERVICE_READY;
	m.start = c->start;
	m.token_key = c->token_key;
	m.has_now_ms = true;
	m.now_ms = env_wall_us(c->service->env) / 1000;
	m.n_expected = told.n;
	m.expected = told.list;
	if (r->json)
		load_text(&b, &m);
	else
		b.len = connector__load_answer__pack(
			&m, (uint8_t *)buf_reserve(&b, connector__load_answer__get_packed_size(&m)));
	if (r->handle)
		rpc_answer_ok(r->worker, r->handle, span_of(b.data, b.len), NULL, 0);
	buf_release(&b);
}

void remote_register(struct edge *e)
{
	static const struct {
		const char *name;
		rpc_handler *fn;
	} remotes[] = {
		{ "connector.connectorRemote.push", on_push },   { "connector.connectorRemote.kick", on_kick },
		{ "connector.connectorRemote.alive", on_alive }, { "connector.connectorRemote.attr", on_attr },
		{ "connector.connectorRemote.load", on_load },   { "connector.connectorRemote.missed", on_missed },
		{ "connector.connectorRemote.gone", on_gone },
	};

	for (size_t i = 0; i < sizeof(remotes) / sizeof(remotes[0]); i++) {
		const char *name = remotes[i].name;
		const struct msg_method *m = schema_method(e->worker->schema, name, strlen(name));
		assert(m);
		rpc_handle(e->worker, m, remotes[i].fn, e);
	}
}
