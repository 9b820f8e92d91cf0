#include "rpc/clientbody.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"
#include "rpc/clientpb.h"

void clientbody_release(struct clientbody *b)
{
	free(b->asked);
	b->asked = NULL;
	b->n = b->cap = 0;
}

int clientbody_asked(struct clientbody *b, const struct clientprotos *p, uint32_t id, const char *route, size_t n)
{
	if (b->payload <= POMELO_JSON || !id)
		return 0;
	if (b->n == CLIENTBODY_ASKED_MAX)
		return ERR_FULL;
	if (b->n == b->cap) {
		b->cap = b->cap ? b->cap * 2 : 8;
		b->asked = realloc(b->asked, b->cap * sizeof(*b->asked));
		assert(b->asked);
	}
	b->asked[b->n++] = (struct clientasked){ id, route ? clientprotos_find(p, route, n) : NULL };
	return 0;
}

/* What was asked, most often the oldest. */
static const struct clientproto *asked_take(struct clientbody *b, uint32_t id)
{
	for (unsigned i = 0; i < b->n; i++) {
		const struct clientproto *found = b->asked[i].proto;
		if (b->asked[i].id != id)
			continue;
		memmove(&b->asked[i], &b->asked[i + 1], (--b->n - i) * sizeof(*b->asked));
		return found;
	}
	return NULL;
}

static enum clientpb_dialect dialect(enum pomelo_payload payload)
{
	return payload == POMELO_PROTOS ? CLIENTPB_POMELO : CLIENTPB_STANDARD;
}

int clientbody_in(const struct clientbody *b, const struct clientprotos *p, struct pomelo_message *m,
		  struct buf *scratch)
{
	if (b->payload <= POMELO_JSON)
		return 0;
	const struct clientproto *r = clientprotos_find(p, m->route, m->route_n);
	if (!r || !r->in || (b->payload == POMELO_PROTOS && !r->pomelo_in))
		return 0;
	size_t start = scratch->len;
	int err = clientpb_read(scratch, r->in, dialect(b->payload), m->body, m->n);
	if (err < 0)
		return err;
	m->body = scratch->data + start;
	m->n = scratch->len - start;
	return 0;
}

/* ---- answers -------------------------------------------------------------------------------------------------------- */

/* Whether an answer says that the request was refused. */
static bool refused(const char *body, size_t n)
{
	const char *v;
	size_t v_n;

	return jsontext_member(body, n, "code", &v, &v_n) && v_n == 3 && v[0] >= '3' && v[0] <= '9';
}

static const char *text_of(const json_t *o, const char *name, const char *fallback)
{
	const char *v = json_string_value(json_object_get(o, name));

	return v ? v : fallback;
}

static void pitaya_error(struct buf *out, enum pomelo_payload payload, const char *body, size_t n)
{
	json_t *o = json_loadb(body, n, 0, NULL);
	const char *error = text_of(o, "error", "failed"), *effect = text_of(o, "effect", "none");
	const char *message = text_of(o, "message", err_text(ERR_FAILED));
	char code[24];

	snprintf(code, sizeof(code), "PIT-%03d", (int)json_integer_value(json_object_get(o, "code")) % 1000);
	if (payload == POMELO_PROTOBUF) {
		clientpb_pitaya_error(out, code, message, error, effect);
	} else {
		buf_addf(out, "{\"code\":\"%s\",\"msg\":", code);
		jsontext_quote(out, message, strlen(message));
		buf_addf(out, ",\"metadata\":{\"error\":\"%s\",\"effect\":\"%s\"}}", error, effect);
	}
	json_decref(o);
}

static int made(int err, struct buf *scratch, size_t start, const char **body, size_t *n)
{
	if (err < 0)
		return err;
	buf_reserve(scratch, 1); /* an empty message is a body, too */
	*body = scratch->data + start;
	*n = scratch->len - start;
	return 0;
}

static const char wrong[] =
	"{\"code\":500,\"error\":\"failed\",\"message\":\"the answer is not of its type\",\"effect\":\"unknown\"}";

int clientbody_out(struct clientbody *b, uint32_t id, const char **body, size_t *n, bool *error, struct buf *scratch)
{
	const struct clientproto *r = b->payload > POMELO_JSON ? asked_take(b, id) : NULL;
	size_t start = scratch->len;

	*error = b->pitaya && refused(*body, *n);
	if (*error) {
		pitaya_error(scratch, b->payload, *body, *n);
		return made(0, scratch, start, body, n);
	}
	if (!r || !r->out || (b->payload == POMELO_PROTOS && !r->pomelo_out))
		return 0;
	struct clientpb_write w = { dialect(b->payload), b->surrogates };
	if (made(clientpb_write(scratch, r->out, &w, *body, *n), scratch, start, body, n) == 0)
		return 0;
	*error = b->pitaya;
	if (b->pitaya)
		pitaya_error(scratch, b->payload, wrong, sizeof(wrong) - 1);
	else
		clientpb_write(scratch, r->out, &w, wrong, sizeof(wrong) - 1);
	made(0, scratch, start, body, n);
	return ERR_BAD_REQUEST;
}

int clientbody_push(enum pomelo_payload payload, bool surrogates, const struct clientprotos *p, const char *route,
		    size_t route_n, const char **body, size_t *n, struct buf *scratch)
{
	const struct clientproto *r = payload > POMELO_JSON ? clientprotos_find(p, route, route_n) : NULL;

	if (!r || !r->out || (payload == POMELO_PROTOS && !r->pomelo_out))
		return 0;
	struct clientpb_write w = { dialect(payload), surrogates };
	size_t start = scratch->len;
	return made(clientpb_write(scratch, r->out, &w, *body, *n), scratch, start, body, n);
}
