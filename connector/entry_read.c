#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "common/jsontext.h"
#include "connector/entry_private.h"

/* The requests of enter and resume: their fields, their tokens. */

static bool __attribute__((format(printf, 3, 4))) wrong(struct wrong *w, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	w->err = err;
	vsnprintf(w->message, sizeof(w->message), fmt, ap);
	va_end(ap);
	return false;
}

/* Only these fields, all of them text. */
static bool fields_ok(const json_t *o, const char *const *allowed, struct wrong *w)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)o, key, value)
	{
		bool known = false;
		for (const char *const *a = allowed; *a; a++)
			known |= strcmp(key, *a) == 0;
		if (!known && strcmp(key, "__route__") != 0 && strcmp(key, "__crypto__") != 0)
			return wrong(w, ERR_BAD_REQUEST, "%s: there is no such field", key);
		if (known && !json_is_string(value) && !json_is_null(value))
			return wrong(w, ERR_BAD_REQUEST, "%s: expected a string", key);
	}
	return true;
}

static const char *text_of(const json_t *o, const char *name)
{
	return json_string_value(json_object_get(o, name));
}

static bool rid_read(struct entry *t, const json_t *o, struct wrong *w)
{
	const char *rid = text_of(o, "rid");

	if (rid && !player_uid_ok(rid))
		return wrong(w, ERR_BAD_REQUEST, "rid: 1 to 64 bytes without control characters and *");
	snprintf(t->rid, sizeof(t->rid), "%s", rid ? rid : "world");
	return true;
}

static bool guest_read(struct entry *t, const char *name, struct wrong *w)
{
	struct connector *c = t->edge->connector;

	if (!name)
		return wrong(w, ERR_BAD_REQUEST, "token or username: one is needed");
	if (!player_uid_ok(name) || strchr(name, ':'))
		return wrong(w, ERR_BAD_REQUEST, "username: 1 to 64 bytes without control characters, : and *");
	if (!c->guests)
		return wrong(w, ERR_DENIED, "guests need a token of the gate");
	t->guest = t->create = true;
	snprintf(t->uid, sizeof(t->uid), "%s", name);
	return true;
}

static bool token_take(struct entry *t, const char *text, const char *name, struct wrong *w)
{
	struct connector *c = t->edge->connector;
	struct token token;
	uint64_t now_ms = env_wall_us(c->service->env) / 1000;

	if (token_read(c->service->token_key, "login", now_ms, text, strlen(text), 6, &token) < 0)
		return wrong(w, ERR_DENIED, "the token is forged or too old: ask the gate anew");
	if (token.expires_ms > now_ms + CONNECTOR_TOKEN_MS) /* it could be used again when that is forgotten */
		return wrong(w, ERR_DENIED, "the token is from before a clock was set: ask the gate anew");
	if (strcmp(token.field[2], c->service->id) != 0)
		return wrong(w, ERR_DENIED, "the token is for %s", token.field[2]);
	if (strcmp(token.field[3], c->start) != 0)
		return wrong(w, ERR_DENIED, "the token is from before a restart of %s", c->service->id);
	if (name && strcmp(name, token.field[0]) != 0)
		return wrong(w, ERR_BAD_REQUEST, "username: the token is another player's");
	snprintf(t->uid, sizeof(t->uid), "%s", token.field[0]);
	t->create = strcmp(token.field[1], "guest") == 0;
	snprintf(t->gate, sizeof(t->gate), "%s", token.field[4]);
	snprintf(t->nonce, sizeof(t->nonce), "%s", token.field[5]);
	return true;
}

static bool enter_read(struct entry *t, const json_t *o, struct wrong *w)
{
	static const char *const allowed[] = { "token", "username", "rid", NULL };
	const char *token = text_of(o, "token");

	if (!fields_ok(o, allowed, w) || !rid_read(t, o, w))
		return false;
	return token ? token_take(t, token, text_of(o, "username"), w) : guest_read(t, text_of(o, "username"), w);
}

static bool resume_read(struct entry *t, const json_t *o, struct wrong *w)
{
	static const char *const allowed[] = { "resume", NULL };
	struct service *service = t->edge->connector->service;
	const char *text = text_of(o, "resume");
	struct token token;

	if (!fields_ok(o, allowed, w))
		return false;
	if (!text)
		return wrong(w, ERR_BAD_REQUEST, "resume: missing");
	if (token_read(service->token_key, "resume", env_wall_us(service->env) / 1000, text, strlen(text), 4, &token) <
	    0)
		return wrong(w, ERR_DENIED, "the resume token is forged or too old");
	snprintf(t->uid, sizeof(t->uid), "%s", token.field[0]);
	t->create = strcmp(token.field[1], "guest") == 0;
	snprintf(t->rid, sizeof(t->rid), "%s", token.field[2]);
	snprintf(t->take_over, sizeof(t->take_over), "%s", token.field[3]);
	return true;
}

/* The request's object, with text of old clients made good; NULL: w says what is wrong. */
static json_t *object_read(const char *body, size_t n, struct wrong *w)
{
	struct buf narrow = BUF_INIT;
	struct jsontext kind;
	const char *why;

	if (jsontext_object(n ? body : "{}", n ? n : 2, &kind, &why) < 0) {
		wrong(w, ERR_BAD_REQUEST, "the body is no JSON object: %s", why);
		return NULL;
	}
	jsontext_narrow(&narrow, n ? body : "{}", n ? n : 2);
	json_error_t error;
	json_t *o = json_loadb(narrow.data, narrow.len, JSON_REJECT_DUPLICATES, &error);
	buf_release(&narrow);
	if (!o)
		wrong(w, ERR_BAD_REQUEST, "the body is no JSON object: %s", error.text);
	return o;
}

bool entry_read(struct entry *t, bool resume, const char *body, size_t n, struct wrong *w)
{
	json_t *o = object_read(body, n, w);
	bool ok = o && (resume ? resume_read(t, o, w) : enter_read(t, o, w));

	json_decref(o);
	return ok;
}
