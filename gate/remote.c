#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "gate/gate.h"
#include "proto/gate.pb-c.h"

/* gate.NonceRequest in either form. */
static bool nonce_read(const struct rpc_request *r, char out[TOKEN_NONCE_MAX])
{
	const char *nonce;

	if (r->json) {
		json_t *o = json_loadb(r->body.n ? r->body.p : "{}", r->body.n ? r->body.n : 2, 0, NULL);
		nonce = json_string_value(json_object_get(o, "nonce"));
		snprintf(out, TOKEN_NONCE_MAX, "%s", nonce ? nonce : "");
		json_decref(o);
		return nonce;
	}
	Gate__NonceRequest *m = gate__nonce_request__unpack(NULL, r->body.n, (const uint8_t *)r->body.p);
	if (!m)
		return false;
	snprintf(out, TOKEN_NONCE_MAX, "%s", m->nonce);
	gate__nonce_request__free_unpacked(m, NULL);
	return true;
}

static void refuse(const struct rpc_request *r)
{
	if (r->handle)
		rpc_answer_err(r->worker, r->handle, ERR_BAD_REQUEST, EFFECT_NONE, "expected gate.NonceRequest");
}

static void on_entered(void *arg, struct rpc_request *r)
{
	char nonce[TOKEN_NONCE_MAX];

	if (!nonce_read(r, nonce)) {
		refuse(r);
		return;
	}
	queue_entered(arg, nonce);
	if (r->handle)
		rpc_answer_ok(r->worker, r->handle, r->json ? span_of("{}", 2) : span_of("", 0), NULL, 0);
}

/* Another gate has the player now. */
static void on_take(void *arg, struct rpc_request *r)
{
	char nonce[TOKEN_NONCE_MAX], text[64];
	struct place *p;

	if (!nonce_read(r, nonce)) {
		refuse(r);
		return;
	}
	p = place_find(arg, nonce);
	bool admitted = p && p->state == PLACE_ADMITTED;
	int n = snprintf(text, sizeof(text), "{\"there\":%s,\"admitted\":%s}", p ? "true" : "false",
			 admitted ? "true" : "false");
	uint8_t bytes[] = { 1 << 3, p != NULL, 2 << 3, admitted };
	if (p)
		place_free(p);
	if (r->handle)
		rpc_answer_ok(r->worker, r->handle,
			      r->json ? span_of(text, (size_t)n) : span_of((char *)bytes, sizeof(bytes)), NULL, 0);
}

void gate_remotes(struct gate *g)
{
	static const struct {
		const char *name;
		rpc_handler *fn;
	} remotes[] = { { "gate.gateRemote.entered", on_entered }, { "gate.gateRemote.take", on_take } };

	for (size_t i = 0; i < sizeof(remotes) / sizeof(remotes[0]); i++) {
		const char *name = remotes[i].name;
		const struct msg_method *m = schema_method(g->service->schema, name, strlen(name));
		assert(m);
		rpc_handle(g->worker, m, remotes[i].fn, g);
	}
}
