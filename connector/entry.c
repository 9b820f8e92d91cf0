#include "connector/entry.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"
#include "connector/announce.h"
#include "connector/entry_private.h"
#include "connector/forward.h"
#include "connector/missed.h"

/* ---- ends ------------------------------------------------------------------------------------------------------ */

static void entry_free(struct entry *t)
{
	if (t->session)
		t->session->entry = NULL;
	if (t->next)
		t->next->prev = t->prev;
	*t->prev = t->next;
	loop_timer_stop(t->edge->face.loop, &t->place);
	if (t->counted)
		guests_entering(t->edge->connector, -1);
	buf_release(&t->role);
	clientlate_free(t->missed);
	clientlate_free(t->came);
	free(t);
}

static void refuse(struct entry *t, int err, enum effect effect, const char *message)
{
	struct session *s = t->session;

	forward_note(t->edge, t->method, err, t->start_ns);
	if (s)
		clientconn_error(&s->conn, t->id, err, effect, message);
	entry_free(t);
	if (s && s->conn.state == CLIENTCONN_WORKING)
		session_logout(s);
}

/* pomelo's chat example knows this answer. */
static void refuse_living(struct entry *t, const char *message, size_t n)
{
	struct session *s = t->session;
	struct buf b = BUF_INIT;

	forward_note(t->edge, t->method, ERR_DENIED, t->start_ns);
	if (s) {
		buf_addstr(&b, "{\"code\":500,\"error\":true,\"message\":");
		jsontext_quote(&b, message, n);
		buf_addch(&b, '}');
		clientconn_respond(&s->conn, t->id, b.data, b.len);
		buf_release(&b);
	}
	entry_free(t);
	if (s && s->conn.state == CLIENTCONN_WORKING)
		session_logout(s);
}

void entry_cut(struct session *s)
{
	if (s->entry)
		s->entry->session = NULL;
	s->entry = NULL;
}

void entry_stop(struct edge *e)
{
	while (e->entries)
		entry_free(e->entries);
}

static uint32_t left_ms(const struct entry *t)
{
	uint64_t now = t->edge->face.loop->now_ms;

	return t->due_ms > now ? (uint32_t)(t->due_ms - now) : 1;
}

static void call(struct edge *e, const struct msg_method *m, const char *uid, struct buf *body, uint32_t timeout_ms,
		 void (*on_answer)(void *arg, const struct rpc_answer *a), void *arg)
{
	struct rpc_call c = {
		.method = m,
		.to = { .worker = -1, .key = span_of(uid, strlen(uid)) },
		.body = span_of(body->data, body->len),
		.json = true,
		.timeout_ms = timeout_ms,
		.trace = edge_trace(e),
		.on_answer = on_answer,
		.arg = arg,
	};

	rpc_call(e->worker, &c);
	buf_release(body);
}

static void text_add(struct buf *b, const char *name, const char *value)
{
	buf_addf(b, "%s\"%s\":", b->data[b->len - 1] == '{' ? "" : ",", name);
	jsontext_quote(b, value, strlen(value));
}

/* "uid":…,"connector":…,"sid":… */
static void who_add(struct buf *b, struct edge *e, const char *uid, uint64_t sid)
{
	buf_addch(b, '{');
	text_add(b, "uid", uid);
	text_add(b, "connector", e->connector->service->id);
	buf_addf(b, ",\"sid\":%llu", (unsigned long long)sid);
}

static void leave(struct edge *e, const struct msg_method *m, const char *uid, uint64_t sid)
{
	struct buf b = BUF_INIT;

	who_add(&b, e, uid, sid);
	buf_addch(&b, '}');
	call(e, m, uid, &b, 0, NULL, NULL);
}

static void leave_kicked(struct session *s)
{
	struct buf b = BUF_INIT;

	who_add(&b, s->edge, s->uid, s->conn.sid);
	buf_addstr(&b, ",\"kicked\":true}");
	call(s->edge, s->edge->logout, s->uid, &b, 0, NULL, NULL);
}

void entry_leave(struct session *s)
{
	if (s->edge->stopping)
		return;
	leave(s->edge, s->edge->chat_remove, s->uid, s->conn.sid);
	if (s->conn.kicked && !s->comes_back)
		leave_kicked(s);
	else
		leave(s->edge, s->edge->logout, s->uid, s->conn.sid);
}

/* ---- last step: the answer ---------------------------------------------------------------------------------------- */

static int resume_token(struct entry *t, char out[TOKEN_MAX])
{
	struct service *service = t->edge->connector->service;
	const char *fields[] = { t->uid, t->create ? "guest" : "account", t->rid, t->resume };
	uint64_t now_ms = env_wall_us(service->env) / 1000;

	return token_make(service->token_key, "resume", now_ms + CONNECTOR_RESUME_MS, fields, 4, out, TOKEN_MAX);
}

static void finish(struct entry *t, struct span users, struct span count)
{
	struct session *s = t->session;
	struct buf b = BUF_INIT;
	char token[TOKEN_MAX] = "";

	forward_note(t->edge, t->method, 0, t->start_ns);
	snprintf(s->uid, sizeof(s->uid), "%s", t->uid);
	snprintf(s->rid, sizeof(s->rid), "%s", t->rid);
	snprintf(s->name, sizeof(s->name), "%s", t->name);
	snprintf(s->resume, sizeof(s->resume), "%s", t->resume);
	session_attr_set(s, span_of("scene", 5), span_of(t->scene, strlen(t->scene)));
	if (*t->resume)
		resume_token(t, token);
	buf_addstr(&b, "{\"code\":200");
	text_add(&b, "uid", t->uid);
	buf_addstr(&b, ",\"role\":");
	buf_add(&b, t->role.data, t->role.len);
	buf_addstr(&b, ",\"users\":");
	if (users.n) {
		buf_add(&b, users.p, users.n);
	} else { /* without a chat the newcomer is at least not alone with an empty list */
		buf_addch(&b, '[');
		jsontext_quote(&b, t->name, strlen(t->name));
		buf_addch(&b, ']');
	}
	if (count.n) {
		buf_addstr(&b, ",\"count\":");
		buf_add(&b, count.p, count.n);
	}
	text_add(&b, "resume", token);
	buf_addf(&b, ",\"resumed\":%s", t->resumed ? "true" : "false");
	if (t->resumed)
		buf_addf(&b, ",\"missed\":%u,\"reload\":%s", t->misses, t->reload ? "true" : "false");
	buf_addch(&b, '}');
	clientconn_respond(&s->conn, t->id, b.data, b.len);
	buf_release(&b);
	if (t->missed)
		missed_deliver(t->missed, &s->conn);
	if (t->came)
		missed_deliver(t->came, &s->conn);
	s->entry = NULL;
	t->session = NULL;
	if (s->conn.state == CLIENTCONN_WORKING) {
		if (t->rings != t->edge->rings) /* its owner may be another one now, and was not told: it was not in */
			announce_late(t->edge, s);
		session_login(s);
	} else {
		entry_leave(s);
	}
	entry_free(t); /* last: whoever enters is counted twice rather than not at all */
}

static struct span member(struct span body, const char *name)
{
	struct span v = { NULL, 0 };

	if (!body.n || !jsontext_member(body.p, body.n, name, &v.p, &v.n))
		return (struct span){ NULL, 0 };
	return v;
}

/* ---- third step: the chat room ------------------------------------------------------------------------------------- */

static void on_chat(void *arg, const struct rpc_answer *a)
{
	struct entry *t = arg;

	if (!t->session) { /* gone meanwhile: undo */
		leave(t->edge, t->edge->chat_remove, t->uid, t->sid);
		leave(t->edge, t->edge->logout, t->uid, t->sid);
		forward_note(t->edge, t->method, ERR_UNAVAILABLE, t->start_ns);
		entry_free(t);
		return;
	}
	if (a->err < 0) /* playing without a chat is better than not playing; it gets its members when it is back */
		log_warn(t->edge->face.log, "enter.chat", "sid=%llx uid=%s error=%s", (unsigned long long)t->sid,
			 t->uid, err_word(a->err));
	finish(t, a->err < 0 ? (struct span){ NULL, 0 } : member(a->body, "users"),
	       a->err < 0 ? (struct span){ NULL, 0 } : member(a->body, "count"));
}

#define CHAT_MS 2000

void entry_chat_body(struct buf *b, struct edge *e, const char *uid, uint64_t sid, const char *name, const char *rid)
{
	buf_addstr(b, "{\"member\":");
	who_add(b, e, uid, sid);
	text_add(b, "name", name);
	buf_addch(b, '}');
	text_add(b, "rid", rid);
	buf_addch(b, '}');
}

static void ask_chat(struct entry *t)
{
	struct buf b = BUF_INIT;
	uint32_t left = left_ms(t);

	entry_chat_body(&b, t->edge, t->uid, t->sid, t->name, t->rid);
	call(t->edge, t->edge->chat_add, t->uid, &b, left < CHAT_MS ? left : CHAT_MS, on_chat, t);
}

/* ---- after a resume: what was pushed since the connection was lost ----------------------------------------------------- */

#define MISSED_MS 1000

bool entry_holds(struct session *s, const struct clientconn_push *p)
{
	struct entry *t = s->entry;

	if (s->stage != SESSION_ENTERING || !t || !*t->take_over)
		return false;
	if (!t->came)
		t->came = clientlate_new();
	missed_add(t->came, p);
	while (clientlate_bytes(t->came) > MISSED_BYTES) {
		clientlate_take(t->came);
		t->reload = true;
	}
	return true;
}

static void missed_read(struct entry *t, const json_t *answer)
{
	json_t *pushes = json_object_get(answer, "pushes"), *one;
	size_t i;

	t->missed = clientlate_new();
	t->reload |= !answer || json_is_true(json_object_get(answer, "reload"));
	json_array_foreach(pushes, i, one)
	{
		struct clientconn_push p;
		const char *route = json_string_value(json_object_get(one, "route"));
		const char *body = json_string_value(json_object_get(one, "body"));
		if (!route || !body || clientconn_push_make(&p, NULL, route, strlen(route), body, strlen(body)) < 0)
			continue;
		missed_add(t->missed, &p);
		t->misses++;
	}
}

static void on_missed(void *arg, const struct rpc_answer *a)
{
	struct entry *t = arg;
	json_t *answer = a->err < 0 ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

	missed_read(t, answer);
	json_decref(answer);
	ask_chat(t);
}

static void ask_missed(struct entry *t)
{
	struct buf b = BUF_INIT;
	uint32_t left = left_ms(t);
	struct rpc_call c = {
		.method = t->edge->ask_missed,
		.to = { .instance = t->older, .worker = (int)(t->older_sid >> 48) },
		.json = true,
		.timeout_ms = left < MISSED_MS ? left : MISSED_MS,
		.trace = edge_trace(t->edge),
		.on_answer = on_missed,
		.arg = t,
	};

	buf_addf(&b, "{\"sid\":%llu}", (unsigned long long)t->older_sid);
	c.body = span_of(b.data, b.len);
	rpc_call(t->edge->worker, &c);
	buf_release(&b);
}

/* ---- second step: the uid's owner ------------------------------------------------------------------------------------ */

static void copy_text(char *out, size_t size, const json_t *v)
{
	if (json_is_string(v))
		snprintf(out, size, "%s", json_string_value(v));
}

/* Takes what the owner said of the player. */
static void owner_said(struct entry *t, struct span body, const json_t *answer)
{
	const json_t *role = json_object_get(answer, "role");
	struct span text = member(body, "role");

	snprintf(t->name, sizeof(t->name), "%s", t->uid);
	if (json_is_object(role))
		copy_text(t->name, sizeof(t->name), json_object_get(role, "name"));
	if (json_is_object(role) && text.n)
		buf_add(&t->role, text.p, text.n);
	else
		buf_addstr(&t->role, "null");
	copy_text(t->resume, sizeof(t->resume), json_object_get(answer, "resume"));
	copy_text(t->scene, sizeof(t->scene), json_object_get(answer, "scene"));
	t->resumed = json_is_true(json_object_get(answer, "resumed"));
	copy_text(t->older, sizeof(t->older), json_object_get(answer, "older_connector"));
	t->older_sid = (uint64_t)json_integer_value(json_object_get(answer, "older_sid"));
	t->reload = t->resumed && !*t->older;
	if (*t->take_over) /* a resume goes on in the room where it was */
		copy_text(t->rid, sizeof(t->rid), json_object_get(answer, "rid"));
}

static void ask_owner(struct entry *t);

/* The owner knows its session again: when its answer was lost, as by its death, it is asked once more. */
#define LOGIN_LOST_MAX 3

static void on_login(void *arg, const struct rpc_answer *a)
{
	struct entry *t = arg;
	char message[256];
	json_t *answer = a->err < 0 ? NULL : json_loadb(a->body.p, a->body.n, 0, NULL);

	if (a->err == ERR_UNAVAILABLE && a->effect == EFFECT_UNKNOWN && t->session && t->lost++ < LOGIN_LOST_MAX) {
		ask_owner(t);
	} else if (a->err < 0) {
		bool tells = a->err != ERR_FAILED || t->edge->connector->tell_failures;

		snprintf(message, sizeof(message), "%.*s", tells && a->message.n ? (int)a->message.n : 0,
			 a->message.n ? a->message.p : "");
		if (a->effect != EFFECT_NONE) /* it may hold us now for one who is in */
			leave(t->edge, t->edge->logout, t->uid, t->sid);
		refuse(t, a->err, a->effect, *message ? message : NULL);
	} else if (!json_is_object(answer)) {
		refuse(t, ERR_FAILED, EFFECT_UNKNOWN, "the player's owner answered nonsense");
	} else if (json_is_true(json_object_get(answer, "refused"))) {
		snprintf(message, sizeof(message), "%s is online already", t->uid);
		copy_text(message, sizeof(message), json_object_get(answer, "message"));
		refuse_living(t, message, strlen(message));
	} else if (!t->session) {
		leave(t->edge, t->edge->logout, t->uid, t->sid);
		forward_note(t->edge, t->method, ERR_UNAVAILABLE, t->start_ns);
		entry_free(t);
	} else {
		owner_said(t, a->body, answer);
		if (t->resumed && *t->older)
			ask_missed(t);
		else
			ask_chat(t);
	}
	json_decref(answer);
}

static void ask_owner(struct entry *t)
{
	struct buf b = BUF_INIT;

	who_add(&b, t->edge, t->uid, t->sid);
	buf_addf(&b, ",\"guest\":%s,\"create\":%s", t->guest ? "true" : "false", t->create ? "true" : "false");
	text_add(&b, "rid", t->rid);
	if (*t->take_over)
		text_add(&b, "resume", t->take_over);
	buf_addch(&b, '}');
	t->rings = t->edge->rings;
	call(t->edge, t->edge->login, t->uid, &b, left_ms(t), on_login, t);
}

/* ---- first step: a token is used once --------------------------------------------------------------------------------- */

struct once_ask {
	struct entry *entry; /* touched on its own worker only */
	struct edge *keeper;
	struct loop *home;
	uint64_t wall_ms;
	char nonce[TOKEN_NONCE_MAX], gate[32];
	int err;
};

/* The gate holds the token's place until it hears that the player is in. */
static void tell_gate(struct entry *t)
{
	struct buf b = BUF_INIT;
	struct rpc_call c = { .method = t->edge->entered, .to = { .instance = t->gate, .worker = 0 }, .json = true };

	buf_addch(&b, '{');
	text_add(&b, "nonce", t->nonce);
	buf_addch(&b, '}');
	c.body = span_of(b.data, b.len);
	rpc_call(t->edge->worker, &c);
	buf_release(&b);
}

static void once_known(void *arg)
{
	struct once_ask *ask = arg;
	struct entry *t = ask->entry;
	int err = ask->err;

	free(ask);
	if (err < 0) {
		refuse(t, err, EFFECT_NONE, err == ERR_DENIED ? "this token has been used" : NULL);
		return;
	}
	tell_gate(t);
	ask_owner(t);
}

static void once_use(void *arg)
{
	struct once_ask *ask = arg;

	ask->err = token_once_use(ask->keeper->once, ask->nonce, ask->wall_ms, ask->keeper->face.loop->now_ms);
	if (ask->err == 0)
		guests_came(ask->keeper->connector, ask->gate);
	loop_call(ask->home, once_known, ask);
}

static void ask_once(struct entry *t)
{
	struct worker *keeper = t->edge->worker->service->worker[0];
	struct once_ask *ask = calloc(1, sizeof(*ask));

	assert(ask);
	ask->entry = t;
	ask->keeper = keeper->user;
	ask->home = t->edge->face.loop;
	ask->wall_ms = env_wall_us(ask->home->env) / 1000;
	memcpy(ask->nonce, t->nonce, sizeof(ask->nonce));
	memcpy(ask->gate, t->gate, sizeof(ask->gate));
	loop_call(keeper->loop, once_use, ask);
}

/* ---- the request ---------------------------------------------------------------------------------------------------------- */

static void count(struct entry *t)
{
	guests_entering(t->edge->connector, 1);
	t->counted = true;
}

/* A guest without token takes a place; while only other connectors have some left, it waits for the gate's next words. */
static void ask_place(struct entry *t)
{
	enum guests_answer a = guests_enter(t->edge->connector);
	uint64_t waited_ms = (t->edge->face.loop->now_ns - t->start_ns) / 1000000;

	if (a == GUESTS_FIT) {
		t->counted = true;
		ask_owner(t);
	} else if (a == GUESTS_WAIT && waited_ms < GUESTS_WAIT_MS) {
		loop_timer(t->edge->face.loop, &t->place, GUESTS_RETRY_MS);
	} else {
		refuse(t, ERR_BUSY, EFFECT_NONE, "the cluster is full or a queue stands: ask the gate");
	}
}

static void on_place(struct timer *timer, uint64_t now_ms)
{
	struct entry *t = (struct entry *)((char *)timer - offsetof(struct entry, place));

	(void)now_ms;
	if (t->session)
		ask_place(t);
	else
		refuse(t, ERR_UNAVAILABLE, EFFECT_NONE, NULL);
}

static struct entry *entry_new(struct session *s, struct edge_method *m, uint32_t id)
{
	struct entry *t = calloc(1, sizeof(*t));
	struct edge *e = s->edge;

	assert(t);
	t->edge = e;
	t->method = m;
	t->place.fire = on_place;
	t->session = s;
	t->sid = s->conn.sid;
	t->id = id;
	t->start_ns = e->face.loop->now_ns;
	t->due_ms = e->face.loop->now_ms + e->connector->request_ms;
	t->next = e->entries;
	t->prev = &e->entries;
	if (t->next)
		t->next->prev = &t->next;
	e->entries = t;
	return t;
}

static void login_request(struct session *s, struct edge_method *m, uint32_t id, const char *body, size_t n)
{
	struct entry *t = entry_new(s, m, id);
	bool resume = strcmp(m->method->name, "resume") == 0;
	struct wrong w = { 0, "" };

	if (!entry_read(t, resume, body, n, &w)) {
		t->session = NULL; /* its stage has not changed */
		forward_note(s->edge, m, w.err, t->start_ns);
		entry_free(t);
		clientconn_error(&s->conn, id, w.err, EFFECT_NONE, w.message);
		return;
	}
	s->entry = t;
	s->stage = SESSION_ENTERING;
	clientconn_login_wait(&s->conn, true);
	if (t->guest) {
		ask_place(t);
		return;
	}
	count(t);
	if (*t->nonce)
		ask_once(t);
	else
		ask_owner(t);
}

/* The same object; its bytes are passed on when every client can read them as they are. */
static void echo(struct session *s, struct edge_method *m, uint32_t id, const char *body, size_t n)
{
	struct jsontext kind;
	const char *why;
	char message[120];

	if (jsontext_object(body, n, &kind, &why) < 0) {
		forward_note(s->edge, m, ERR_BAD_REQUEST, s->edge->face.loop->now_ns);
		snprintf(message, sizeof(message), "the body is no JSON object: %s", why);
		clientconn_error(&s->conn, id, ERR_BAD_REQUEST, EFFECT_NONE, message);
		return;
	}
	if (kind.wide) {
		struct buf narrow = BUF_INIT;
		jsontext_narrow(&narrow, body, n);
		clientconn_respond(&s->conn, id, narrow.data, narrow.len);
		buf_release(&narrow);
	} else {
		clientconn_respond(&s->conn, id, body, n);
	}
	forward_note(s->edge, m, 0, s->edge->face.loop->now_ns);
}

void entry_request(struct session *s, struct edge_method *m, uint32_t id, const char *body, size_t n)
{
	if (strcmp(m->method->name, "echo") == 0) {
		echo(s, m, id, body, n);
	} else if (s->stage != SESSION_OUT) {
		forward_note(s->edge, m, ERR_BAD_REQUEST, s->edge->face.loop->now_ns);
		clientconn_error(&s->conn, id, ERR_BAD_REQUEST, EFFECT_NONE, "this connection has a player already");
	} else {
		login_request(s, m, id, body, n);
	}
}
