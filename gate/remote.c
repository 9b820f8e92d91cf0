#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "gate/gate.h"
#include "proto/gate.pb-c.h"

/* What any of the requests here holds, in either form. */
struct wish {
	char nonce[TOKEN_NONCE_MAX];
	uint64_t since_us, entered;
	unsigned waiting, held;
};

static bool wish_json(const struct rpc_request *r, struct wish *out)
{
	json_t *o = json_loadb(r->body.n ? r->body.p : "{}", r->body.n ? r->body.n : 2, 0, NULL);
	const char *nonce = json_string_value(json_object_get(o, "nonce"));
	bool ok = json_is_object(o);

	snprintf(out->nonce, sizeof(out->nonce), "%s", nonce ? nonce : "");
	out->since_us = (uint64_t)json_integer_value(json_object_get(o, "since"));
	out->waiting = (unsigned)json_integer_value(json_object_get(o, "waiting"));
	out->held = (unsigned)json_integer_value(json_object_get(o, "held"));
	out->entered = (uint64_t)json_integer_value(json_object_get(o, "entered"));
	json_decref(o);
	return ok;
}

static bool nonce_read(const struct rpc_request *r, struct wish *out)
{
	if (r->json)
		return wish_json(r, out) && *out->nonce;
	Gate__NonceRequest *m = gate__nonce_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m)
		return false;
	snprintf(out->nonce, sizeof(out->nonce), "%s", m->nonce);
	gate__nonce_request__free_unpacked(m, NULL);
	return true;
}

static bool take_read(const struct rpc_request *r, struct wish *out)
{
	if (r->json)
		return wish_json(r, out) && *out->nonce;
	Gate__TakeRequest *m = gate__take_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m)
		return false;
	snprintf(out->nonce, sizeof(out->nonce), "%s", m->nonce);
	out->since_us = m->since;
	gate__take_request__free_unpacked(m, NULL);
	return true;
}

static bool allow_read(const struct rpc_request *r, struct wish *out)
{
	if (r->json)
		return wish_json(r, out);
	Gate__AllowRequest *m = gate__allow_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m)
		return false;
	out->waiting = m->waiting;
	out->held = m->held;
	out->entered = m->entered;
	gate__allow_request__free_unpacked(m, NULL);
	return true;
}

static void refuse(const struct rpc_request *r, const char *message)
{
	if (r->handle)
		rpc_answer_err(r->worker, r->handle, ERR_BAD_REQUEST, EFFECT_NONE, message);
}

static void answer(const struct rpc_request *r, const char *text, const void *bytes, size_t n)
{
	if (r->handle)
		rpc_answer_ok(r->worker, r->handle, r->json ? span_of(text, strlen(text)) : span_of(bytes, n), NULL, 0);
}

static void on_entered(void *arg, struct rpc_request *r)
{
	struct wish w = { .since_us = 0 };

	if (!nonce_read(r, &w)) {
		refuse(r, "expected gate.NonceRequest");
		return;
	}
	queue_entered(arg, w.nonce);
	answer(r, "{}", "", 0);
}

/* Another gate has the player now; its connection here has no place any more. */
static void on_take(void *arg, struct rpc_request *r)
{
	struct gate *g = arg;
	struct wish w = { .since_us = 0 };
	char text[96];

	if (!take_read(r, &w)) {
		refuse(r, "expected gate.TakeRequest");
		return;
	}
	struct place *p = place_find(g, w.nonce);
	bool admitted = p && p->state == PLACE_ADMITTED, forgotten = !p && gate_young(g, w.since_us);
	uint8_t bytes[] = { 1 << 3, p != NULL, 2 << 3, admitted, 3 << 3, forgotten };
	snprintf(text, sizeof(text), "{\"there\":%s,\"admitted\":%s,\"forgotten\":%s}", p ? "true" : "false",
		 admitted ? "true" : "false", forgotten ? "true" : "false");
	if (p && p->visitor)
		clientconn_kick(&p->visitor->conn, "this place has been taken at another gate");
	if (p)
		place_free(p);
	answer(r, text, bytes, sizeof(bytes));
}

static void on_allow(void *arg, struct rpc_request *r)
{
	struct gate *g = arg;
	struct peer *p = peer_of(g, r->instance);
	struct wish w = { .since_us = 0 };
	Gate__AllowAnswer m = GATE__ALLOW_ANSWER__INIT;
	uint8_t bytes[64];
	char text[96];

	if (!p || !allow_read(r, &w)) {
		refuse(r, p ? "expected gate.AllowRequest" : "there are too many gates");
		return;
	}
	p->epoch = r->instance_epoch;
	m.has_n = m.has_room = m.has_rate = true;
	m.n = peers_allow(g, p, w.waiting, w.held, w.entered);
	peers_parts(g, p, line_count(&g->line), &m.room, &m.rate);
	snprintf(text, sizeof(text), "{\"n\":%u,\"room\":%.3f,\"rate\":%.3f}", m.n, m.room, m.rate);
	assert(gate__allow_answer__get_packed_size(&m) <= sizeof(bytes));
	answer(r, text, bytes, gate__allow_answer__pack(&m, bytes));
}

void gate_remotes(struct gate *g)
{
	static const struct {
		const char *name;
		rpc_handler *fn;
	} remotes[] = { { "gate.gateRemote.entered", on_entered },
			{ "gate.gateRemote.take", on_take },
			{ "gate.gateRemote.allow", on_allow } };

	for (size_t i = 0; i < sizeof(remotes) / sizeof(remotes[0]); i++) {
		const char *name = remotes[i].name;
		const struct msg_method *m = schema_method(g->worker->schema, name, strlen(name));
		assert(m);
		rpc_handle(g->worker, m, remotes[i].fn, g);
	}
}
