#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app.h"
#include "rpc/http_private.h"
#include "rpc/service_private.h"

/* ---- /rpc/SERVICE/REMOTE/METHOD -------------------------------------------------------------------------------------- */

struct http_call {
	struct http_call *next, **prev; /* of the face */
	struct http_face *face;
	struct env_http_request *request;
	uint64_t handle;
};

static struct http_call *call_new(struct http_face *h, struct env_http_request *r)
{
	struct http_call *c = calloc(1, sizeof *c);

	assert(c);
	*c = (struct http_call){ .face = h, .request = r, .next = h->calls, .prev = &h->calls };
	if (c->next)
		c->next->prev = &c->next;
	h->calls = c;
	h->pending++;
	return c;
}

static void call_free(struct http_call *c)
{
	if (c->next)
		c->next->prev = c->prev;
	*c->prev = c->next;
	c->face->pending--;
	free(c);
}

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct http_call *c = arg;

	if (a->err < 0)
		http_error(c->request, a->err, a->effect, a->message);
	else
		env_http_reply(c->request, 200, "application/json", NULL, a->body.n ? a->body.p : "{}",
			       a->body.n ? a->body.n : 2);
	call_free(c);
}

void http_rpc_shut(struct http_face *h)
{
	static const char text[] = "this instance stops; the call may have been executed";

	while (h->calls) {
		struct http_call *c = h->calls;

		rpc_cancel(&h->service->p->control_worker, c->handle);
		http_error(c->request, ERR_UNAVAILABLE, EFFECT_UNKNOWN, span_of(text, sizeof text - 1));
		call_free(c);
	}
}

static const struct msg_method *method_of(struct http_face *h, const char *path)
{
	char full[128];
	int slashes = 0;

	if (snprintf(full, sizeof full, "%s", path + strlen("/rpc/")) >= (int)sizeof full)
		return NULL;
	for (char *p = full; *p; p++)
		if (*p == '/') {
			*p = '.';
			slashes++;
		}
	return slashes == 2 ? schema_method(h->service->schema, full, strlen(full)) : NULL;
}

/* Query parameters become the fields of the request; numbers where the type wants numbers. */
struct query {
	json_t *object;
	const struct msg_type *type;
	bool bad; /* a name or a value that is no text */
};

/* What is for the way, not for the method, unless it has a field of this name. */
static bool is_route(const char *name)
{
	return !strcmp(name, "key") || !strcmp(name, "instance");
}

static json_t *parameter_value(const struct msg_field *f, const char *value)
{
	json_t *v = NULL;

	if (f && f->type != MSG_STRING && f->type != MSG_BYTES)
		v = json_loads(value, JSON_DECODE_ANY, NULL);
	return v ? v : json_string(value);
}

/* A repeated field takes its parameter as often as it stands there. */
static int parameter_put(json_t *object, const struct msg_field *f, const char *name, json_t *v)
{
	json_t *list = json_object_get(object, name);

	if (!f || !f->repeated || f->map || json_is_array(v))
		return json_object_set_new(object, name, v);
	if (!list && json_object_set_new(object, name, list = json_array()) < 0) {
		json_decref(v);
		return -1;
	}
	return json_array_append_new(list, v);
}

static void add_parameter(void *arg, const char *name, const char *value)
{
	struct query *q = arg;
	const struct msg_field *f = msg_field_name(q->type, name, strlen(name));

	if (f || !is_route(name))
		q->bad |= parameter_put(q->object, f, name, parameter_value(f, value)) < 0;
}

/* NULL: it is not UTF-8. */
static char *body_of_query(struct env_http_request *r, const struct msg_method *m)
{
	struct query q = { json_object(), m->in, false };
	char *text = NULL;

	env_http_query_each(r, add_parameter, &q);
	if (!q.bad)
		text = json_dumps(q.object, JSON_COMPACT);
	json_decref(q.object);
	return text;
}

#define KEY_MAX 255

static int key_text(char out[KEY_MAX + 1], const char *text)
{
	return snprintf(out, KEY_MAX + 1, "%s", text) <= KEY_MAX ? 0 : ERR_BAD_REQUEST;
}

/* Routed by ?key=, without it by the request's uid, or name, or the number of its scene. ERR_BAD_REQUEST: it is too long. */
static int key_of(struct env_http_request *r, const char *body, size_t n, char out[KEY_MAX + 1])
{
	static const char *const names[] = { "uid", "name", "scene", "room" };
	const char *key = env_http_query(r, "key");
	json_t *object = key ? NULL : json_loadb(body, n, 0, NULL);
	int err = 0;

	out[0] = '\0';
	if (key)
		err = key_text(out, key);
	for (size_t i = 0; object && !*out && err == 0 && i < sizeof names / sizeof *names; i++) {
		json_t *v = json_object_get(object, names[i]);

		if (json_is_string(v))
			err = key_text(out, json_string_value(v));
		else if (json_is_integer(v))
			snprintf(out, KEY_MAX + 1, "%lld", (long long)json_integer_value(v));
	}
	json_decref(object);
	return err;
}

/* The caller's own trace, so that one id leads through everything: X-Trace, up to 16 hex digits. Else 0: a new one. */
static uint64_t trace_of(struct env_http_request *r)
{
	const char *text = env_http_header(r, "X-Trace");
	size_t n = text ? strspn(text, "0123456789abcdefABCDEF") : 0;

	return n && n <= 16 && !text[n] ? strtoull(text, NULL, 16) : 0;
}

static void start_call(struct http_face *h, struct env_http_request *r, const struct msg_method *m, const char *body,
		       size_t n)
{
	char key[KEY_MAX + 1];

	if (key_of(r, body, n, key) < 0) {
		http_refuse(r, ERR_BAD_REQUEST, "key: at most 255 bytes");
		return;
	}
	struct http_call *c = call_new(h, r);
	struct rpc_call call = {
		.method = m,
		.to = { .instance = env_http_query(r, "instance"), .worker = -1, .key = span_of(key, strlen(key)) },
		.json = true,
		.body = n ? span_of(body, n) : span_of("{}", 2),
		.on_answer = on_answer,
		.trace = trace_of(r),
		.arg = c,
	};

	c->handle = rpc_call(&h->service->p->control_worker, &call);
}

static void start_get(struct http_face *h, struct env_http_request *r, const struct msg_method *m)
{
	char *text = body_of_query(r, m);

	if (text)
		start_call(h, r, m, text, strlen(text));
	else
		http_refuse(r, ERR_BAD_REQUEST, "the query is not UTF-8");
	free(text);
}

void http_rpc(struct http_face *h, struct env_http_request *r)
{
	const struct msg_method *m = method_of(h, env_http_path(r));
	bool get = !strcmp(env_http_method(r), "GET");
	size_t n;
	const char *body = env_http_body(r, &n);

	if (!m || m->is_handler) {
		http_refuse(r, ERR_NOT_FOUND, "there is no such method: /rpc/SERVICE/REMOTE/METHOD");
	} else if (!get && strcmp(env_http_method(r), "POST")) {
		http_not_allowed(r, "GET or POST");
	} else if (get && m->kind != MSG_READ) {
		http_not_allowed(r, "this method changes something: POST it");
	} else if (m->inner && !http_has_key(h, r)) {
		http_refuse(
			r, ERR_DENIED,
			"the cluster key is needed: Authorization: Bearer KEY (the file paths.var/keys/cluster.key)");
	} else if (get) {
		start_get(h, r, m);
	} else {
		start_call(h, r, m, body, n);
	}
}
