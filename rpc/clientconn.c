#include "rpc/clientconn.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"
#include "rpc/clientlate.h"
#include "rpc/clientlisten.h"
#include "rpc/inflate.h"

#define BEAT_GAP_MS  100 /* heartbeats of a client are answered at most this often */
#define PIECES_SPARE 64
#define PART_MS      10000 /* from a package's first byte to its last; looked at once a heartbeat */
#define SLACK_MS     500   /* over two intervals of silence: a busy client's timer is late too */
#define FLOOD_FACTOR 4     /* times packets_per_s within a second: kicked */

#define LATE_PART \
	16 /* a client that leaves this part of out_max lie reads too slowly: the rest waits where it can be dropped */

/* What a client that reads too slowly has to wait for. */
struct clientconn_late {
	struct clientconn *conn;
	struct clientlate *items;
	struct loop_deferred again;
};

static struct clientconn *of_stream(struct stream *s)
{
	return (struct clientconn *)((char *)s - offsetof(struct clientconn, stream));
}

static struct clientconn *of_beat(struct timer *t)
{
	return (struct clientconn *)((char *)t - offsetof(struct clientconn, beat));
}

static struct clientconn *of_deadline(struct timer *t)
{
	return (struct clientconn *)((char *)t - offsetof(struct clientconn, deadline));
}

/* ---- the end --------------------------------------------------------------------------------------------- */

static void late_free(struct clientconn *c)
{
	if (!c->late)
		return;
	loop_defer_not(c->face->loop, &c->late->again);
	clientlate_free(c->late->items);
	free(c->late);
	c->late = NULL;
}

static void ended(struct clientconn *c, enum log_level level, const char *why)
{
	struct clientconn_face *f = c->face;

	if (c->state == CLIENTCONN_ENDED)
		return;
	c->state = CLIENTCONN_ENDED;
	loop_timer_stop(f->loop, &c->beat);
	loop_timer_stop(f->loop, &c->deadline);
	c->lost |= c->late || !c->left;
	late_free(c);
	websocket_release(&c->ws, f->frames);
	clientbody_release(&c->body);
	buf_release(&c->carry);
	if (level > LOG_DEBUG)
		metric_add(f->refused, 1);
	if (log_level_get(f->log) <= level)
		log_write(f->log, level, "client.end", "sid=%llx addr=%s why=%s", (unsigned long long)c->sid, c->addr,
			  why);
	f->ops->on_end(c);
}

void clientconn_drop(struct clientconn *c, const char *why)
{
	if (c->state == CLIENTCONN_ENDED)
		return;
	ended(c, LOG_INFO, why);
	stream_close(&c->stream, 0);
}

/* The last words have been written: flush them and close. */
static void close_flushed(struct clientconn *c, const char *why)
{
	ended(c, LOG_INFO, why);
	stream_close_flushed(&c->stream);
}

static void on_close(struct stream *s, int err)
{
	struct clientconn *c = of_stream(s);
	struct clientconn_face *f = c->face;

	c->left |= err == 0; /* not by a reset, with which what it had not read is gone */
	ended(c, LOG_DEBUG, err == 0 || err == ERR_CLOSED ? "the client closed" : err_text(err));
	f->open--;
	if (c->next)
		c->next->prev = c->prev;
	*c->prev = c->next;
	metric_set(f->connections, (int64_t)f->open);
	f->ops->on_free(c);
}

/* ---- output ------------------------------------------------------------------------------------------------ */

static const char too_slow[] = "its output is full: it reads too slowly, or too much came at once";

static void wrote(struct clientconn *c, size_t n)
{
	c->last_out_ms = c->face->loop->now_ms;
	metric_add(c->face->packets_out, 1);
	metric_add(c->face->bytes_out, n);
}

static size_t late_from(const struct clientconn *c)
{
	return c->face->limits.out_max / LATE_PART;
}

/* Moves what waits to the stream, a little more than it takes at once; the rest may still be superseded. */
static void late_flush(struct clientconn *c)
{
	const char *p;
	size_t n;

	while (c->late && stream_pending(&c->stream) <= late_from(c) && clientlate_first(c->late->items, &p, &n)) {
		stream_write(&c->stream, p, n);
		clientlate_take(c->late->items);
	}
	if (c->late && clientlate_bytes(c->late->items))
		loop_defer(c->face->loop, &c->late->again); /* the socket may take all of it, then nobody tells */
	else
		late_free(c);
}

void clientconn_pour(struct clientconn *c)
{
	const char *p;
	size_t n;

	while (c->late && clientlate_first(c->late->items, &p, &n)) {
		stream_put(&c->stream, NULL, 0, p, n);
		clientlate_take(c->late->items);
	}
	late_free(c);
}

static void on_again(struct loop_deferred *d)
{
	struct clientconn *c = ((struct clientconn_late *)((char *)d - offsetof(struct clientconn_late, again)))->conn;

	if (!c->stream.want_write && !c->stream.closing)
		late_flush(c);
}

static void on_drained(struct stream *s)
{
	struct clientconn *c = of_stream(s);

	if (c->late)
		late_flush(c);
}

/* Whether enough waits for the socket already: it refuses more, or very much came in this turn. */
static bool is_slow(const struct clientconn *c)
{
	return c->late || stream_pending(&c->stream) > late_from(c);
}

static void late_begin(struct clientconn *c)
{
	c->late = calloc(1, sizeof(*c->late));
	assert(c->late);
	c->late->conn = c;
	c->late->items = clientlate_new();
	c->late->again.run = on_again;
	loop_defer(c->face->loop, &c->late->again);
	metric_add(c->face->slow, 1);
	log_debug(c->face->log, "client.slow", "sid=%llx addr=%s", (unsigned long long)c->sid, c->addr);
}

static int late_write(struct clientconn *c, uint64_t key, const struct iovec *part, size_t parts)
{
	size_t n = 0;

	for (size_t i = 0; i < parts; i++)
		n += part[i].iov_len;
	if (!c->late)
		late_begin(c);
	if (clientlate_add(c->late->items, key, part, parts))
		metric_add(c->face->superseded, 1);
	if (clientlate_bytes(c->late->items) + stream_pending(&c->stream) > c->face->limits.out_max) {
		clientconn_drop(c, too_slow);
		return ERR_FULL;
	}
	wrote(c, n);
	return 0;
}

/* key: what it supersedes, or 0. */
static int late_package(struct clientconn *c, uint64_t key, const char *head, size_t head_n, const char *body, size_t n)
{
	char web[WEBSOCKET_HEAD_MAX];
	struct iovec part[3] = { { .iov_base = web },
				 { .iov_base = (char *)(uintptr_t)head, .iov_len = head_n },
				 { .iov_base = (char *)(uintptr_t)body, .iov_len = n } };

	if (c->web)
		part[0].iov_len = websocket_head(web, WEBSOCKET_BINARY, head_n + n);
	return late_write(c, key, part, 3);
}

static int package_write(struct clientconn *c, const char *head, size_t head_n, const char *body, size_t n)
{
	size_t whole = head_n + n, web_n = 0;

	if (c->state == CLIENTCONN_ENDED || c->stream.closing) /* the peer has closed: on_close is on its way */
		return ERR_CLOSED;
	if (is_slow(c))
		return late_package(c, 0, head, head_n, body, n);
	char *p = stream_reserve(&c->stream, WEBSOCKET_HEAD_MAX + whole);
	if (!p) {
		clientconn_drop(c, too_slow);
		return ERR_FULL;
	}
	if (c->web)
		web_n = websocket_head(p, WEBSOCKET_BINARY, whole);
	memcpy(p + web_n, head, head_n);
	if (n)
		memcpy(p + web_n + head_n, body, n);
	stream_commit(&c->stream, web_n + whole);
	wrote(c, web_n + whole);
	return 0;
}

/* The same for bytes that are there for many. */
static int wire_share(struct clientconn *c, struct stream_shared *wire)
{
	int err = stream_share(&c->stream, wire);

	if (err == ERR_FULL)
		clientconn_drop(c, too_slow);
	if (err < 0)
		return err;
	wrote(c, wire->n);
	return 0;
}

void clientconn_respond(struct clientconn *c, uint32_t id, const char *body, size_t n)
{
	char head[POMELO_HEAD + 6];
	bool error = false;

	if (!id || c->state == CLIENTCONN_ENDED)
		return;
	if (!n) { /* clients throw on an empty body */
		body = "{}";
		n = 2;
	}
	if (c->body.payload > POMELO_JSON || c->body.pitaya) {
		buf_clear(&c->face->answer);
		if (clientbody_out(&c->body, id, &body, &n, &error, &c->face->answer) < 0)
			log_warn(c->face->log, "client.answer", "sid=%llx why=%s", (unsigned long long)c->sid,
				 "an answer is not of its type");
	}
	if (n > POMELO_BODY_MAX - 16) {
		clientconn_error(c, id, ERR_FAILED, EFFECT_UNKNOWN, "the answer is too large");
		return;
	}
	size_t head_n = pomelo_response_head(head, id, n);
	if (error)
		pomelo_response_is_error(head);
	package_write(c, head, head_n, body, n);
}

void clientconn_error(struct clientconn *c, uint32_t id, int err, enum effect effect, const char *message)
{
	struct buf b = BUF_INIT;

	if (!id)
		return;
	err = err_public(err);
	if (!message)
		message = err_text(err);
	buf_addf(&b, "{\"code\":%d,\"error\":\"%s\",\"message\":", err_http(err), err_word(err));
	jsontext_quote(&b, message, strlen(message));
	buf_addf(&b, ",\"effect\":\"%s\"}", effect_word(effect));
	clientconn_respond(c, id, b.data, b.len);
	buf_release(&b);
}

int clientconn_push_make(struct clientconn_push *p, const struct pomelo_dict *dict, const char *route, size_t route_n,
			 const char *body, size_t n)
{
	if (!route_n || route_n > POMELO_ROUTE_MAX || !n || n > POMELO_BODY_MAX - POMELO_MESSAGE_HEAD_MAX)
		return ERR_BAD_REQUEST;
	p->route = route;
	p->route_n = route_n;
	p->body = body;
	p->n = n;
	p->code = pomelo_dict_code(dict, route, route_n);
	p->head_n[0] = pomelo_push_head(p->head[0], 0, route, route_n, n);
	p->head_n[1] = p->code ? pomelo_push_head(p->head[1], p->code, NULL, 0, n) : 0;
	p->supersedes = 0;
	p->many = false;
	p->forms = NULL;
	return 0;
}

/* Of the payloads that are not JSON: standard; pomelo's with text in UTF-8; in surrogates. */
#define FORMS 3
struct clientconn_forms {
	struct buf text[FORMS];
	const char *body[FORMS]; /* NULL: not made yet */
	size_t n[FORMS];
};

/* The body as this client reads it. ERR_BAD_REQUEST: the push is not of its type, which is said once. */
static int push_form(struct clientconn *c, struct clientconn_push *p, const char **body, size_t *n)
{
	const struct clientbody *b = &c->body;
	unsigned i = b->payload == POMELO_PROTOBUF ? 0 : 1 + b->surrogates;

	if (!p->forms)
		p->forms = calloc(1, sizeof(*p->forms));
	assert(p->forms);
	struct clientconn_forms *f = p->forms;
	if (!f->body[i]) {
		f->body[i] = p->body;
		f->n[i] = p->n;
		if (clientbody_push(b->payload, b->surrogates, c->face->protos, p->route, p->route_n, &f->body[i],
				    &f->n[i], &f->text[i]) < 0) {
			f->n[i] = SIZE_MAX;
			log_warn(c->face->log, "client.push", "route=%.*s why=%s", (int)p->route_n, p->route,
				 "a push is not of its type");
		}
	}
	*body = f->body[i];
	*n = f->n[i];
	return f->n[i] == SIZE_MAX ? ERR_BAD_REQUEST : 0;
}

static int push_protobuf(struct clientconn *c, struct clientconn_push *p, bool coded)
{
	char head[POMELO_MESSAGE_HEAD_MAX];
	const char *body;
	size_t n;
	int err = push_form(c, p, &body, &n);

	if (err < 0)
		return err;
	size_t head_n = pomelo_push_head(head, coded ? p->code : 0, p->route, p->route_n, n);
	if (is_slow(c) && !c->stream.closing)
		return late_package(c, p->supersedes, head, head_n, body, n);
	return package_write(c, head, head_n, body, n);
}

void clientconn_push_many(struct clientconn_push *p)
{
	p->many = true;
	memset(p->wire, 0, sizeof(p->wire));
}

void clientconn_push_done(struct clientconn_push *p)
{
	for (int i = 0; p->many && i < 4; i++)
		stream_shared_unref(p->wire[i / 2][i % 2]);
	for (int i = 0; p->forms && i < FORMS; i++)
		buf_release(&p->forms->text[i]);
	free(p->forms);
	p->forms = NULL;
	p->many = false;
}

/* The push as this kind of client gets it; made when the first one wants it. */
static struct stream_shared *push_wire(struct clientconn_push *p, bool web, bool coded)
{
	struct stream_shared **wire = &p->wire[web][coded];
	char head[WEBSOCKET_HEAD_MAX];
	size_t web_n = web ? websocket_head(head, WEBSOCKET_BINARY, p->head_n[coded] + p->n) : 0;

	if (*wire)
		return *wire;
	*wire = stream_shared_new(web_n + p->head_n[coded] + p->n);
	memcpy((*wire)->data, head, web_n);
	memcpy((*wire)->data + web_n, p->head[coded], p->head_n[coded]);
	memcpy((*wire)->data + web_n + p->head_n[coded], p->body, p->n);
	return *wire;
}

int clientconn_push(struct clientconn *c, struct clientconn_push *p)
{
	int coded = c->codes && p->code;

	if (c->state != CLIENTCONN_WORKING)
		return ERR_CLOSED;
	if (c->body.payload > POMELO_JSON)
		return push_protobuf(c, p, coded);
	if (is_slow(c) && !c->stream.closing)
		return late_package(c, p->supersedes, p->head[coded], p->head_n[coded], p->body, p->n);
	if (p->many)
		return wire_share(c, push_wire(p, c->web, coded));
	return package_write(c, p->head[coded], p->head_n[coded], p->body, p->n);
}

static void heartbeat_send(struct clientconn *c)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, POMELO_HEARTBEAT, 0);
	c->last_beat_ms = c->face->loop->now_ms;
	package_write(c, head, sizeof(head), NULL, 0);
}

static void websocket_end(struct clientconn *c, unsigned code)
{
	char frame[WEBSOCKET_CLOSE_BYTES];

	if (!c->web || c->state == CLIENTCONN_ENDED)
		return;
	websocket_close_frame(frame, code);
	stream_write(&c->stream, frame, sizeof(frame));
}

/* As clientconn_drop, but a WebSocket client is told by which code. */
static void drop_with(struct clientconn *c, unsigned code, const char *why)
{
	if (c->state == CLIENTCONN_ENDED)
		return;
	if (!c->web) {
		clientconn_drop(c, why);
		return;
	}
	websocket_end(c, code);
	close_flushed(c, why);
}

void clientconn_kick(struct clientconn *c, const char *reason)
{
	struct buf b = BUF_INIT;
	char why[160];

	if (c->state == CLIENTCONN_ENDED)
		return;
	if (c->state == CLIENTCONN_NEW || c->state == CLIENTCONN_UPGRADE) {
		clientconn_drop(c, reason); /* no protocol is agreed that could carry the reason */
		return;
	}
	c->kicked = true;
	late_free(c); /* its last word is the reason */
	pomelo_kick(&b, reason);
	package_write(c, b.data, b.len, NULL, 0);
	buf_release(&b);
	websocket_end(c, WEBSOCKET_POLICY);
	snprintf(why, sizeof(why), "kicked: %s", reason);
	close_flushed(c, why);
}

/* ---- timers -------------------------------------------------------------------------------------------------- */

static uint64_t interval_ms(const struct clientconn *c)
{
	return c->face->limits.heartbeat_s * 1000ull;
}

/* Once per interval: is the client alive, and has it heard from us lately? */
static void on_beat(struct timer *t, uint64_t now_ms)
{
	struct clientconn *c = of_beat(t);
	uint64_t interval = interval_ms(c), silent = now_ms - c->last_in_ms;

	if (silent > 2 * interval + SLACK_MS) {
		clientconn_drop(c, "silent for two heartbeats");
		return;
	}
	if (c->part_ms && now_ms - c->part_ms > PART_MS) {
		clientconn_drop(c, "a package that does not end");
		return;
	}
	if (now_ms - c->last_out_ms >= interval)
		heartbeat_send(c);
	if (c->state == CLIENTCONN_ENDED)
		return;
	uint64_t left = 2 * interval + SLACK_MS - silent + 1;
	loop_timer(c->face->loop, t, left < interval ? left : interval);
}

static void on_deadline(struct timer *t, uint64_t now_ms)
{
	struct clientconn *c = of_deadline(t);

	(void)now_ms;
	clientconn_kick(c, c->state == CLIENTCONN_WORKING ? "no login in time" : "no handshake in time");
}

void clientconn_login(struct clientconn *c)
{
	c->in = true;
	loop_timer_stop(c->face->loop, &c->deadline);
}

void clientconn_login_wait(struct clientconn *c, bool wait)
{
	uint64_t now = c->face->loop->now_ms;

	if (c->in || c->state == CLIENTCONN_ENDED || wait != timer_running(&c->deadline))
		return;
	if (wait) {
		c->login_left_ms = c->deadline.due_ms > now ? c->deadline.due_ms - now : 0;
		loop_timer_stop(c->face->loop, &c->deadline);
	} else {
		loop_timer(c->face->loop, &c->deadline, c->login_left_ms);
	}
}

void clientconn_strike(struct clientconn *c, uint32_t id, const char *message)
{
	clientconn_error(c, id, ERR_DENIED, EFFECT_NONE, message);
	if (++c->strikes >= CLIENTCONN_STRIKES)
		clientconn_kick(c, "too many requests before login");
}

/* ---- input: packages -------------------------------------------------------------------------------------------- */

static void hello_refuse(struct clientconn *c, int code, const char *why)
{
	struct buf *reply = &c->face->scratch;

	pomelo_hello_refuse(reply, code);
	package_write(c, reply->data, reply->len, NULL, 0);
	websocket_end(c, code == 501 ? WEBSOCKET_POLICY : WEBSOCKET_PROTOCOL);
	close_flushed(c, why);
}

static bool too_old(const struct clientconn_face *f, const struct pomelo_hello *h)
{
	for (size_t i = 0; i < f->leasts; i++)
		if ((strcmp(f->least[i].type, "*") == 0 || strcmp(f->least[i].type, h->type) == 0) &&
		    pomelo_version_compare(h->version, f->least[i].version) < 0)
			return true;
	return false;
}

/* A classic client that keeps protos encodes by them already. */
static enum pomelo_payload payload_of(const struct clientconn_face *f, const struct pomelo_hello *h)
{
	bool always = f->protobuf == CLIENTCONN_PROTOBUF_ALWAYS;

	if (!f->protos || f->protobuf == CLIENTCONN_PROTOBUF_NEVER || h->asked == POMELO_JSON)
		return POMELO_JSON;
	if (h->client == POMELO_CLIENT_LP)
		return always || h->asked != POMELO_ANY ? POMELO_PROTOBUF : POMELO_JSON;
	if (h->asked != POMELO_ANY)
		return h->asked;
	return always || *h->proto_version ? POMELO_PROTOS : POMELO_JSON;
}

static void payload_choose(struct clientconn *c)
{
	c->body.payload = payload_of(c->face, &c->hello);
	c->body.pitaya = c->hello.client == POMELO_CLIENT_LP || c->body.payload == POMELO_PROTOBUF;
	c->body.surrogates = c->hello.browser;
}

static void on_hello(struct clientconn *c, const struct pomelo_package *p)
{
	struct clientconn_face *f = c->face;

	if (c->state != CLIENTCONN_HANDSHAKE)
		return; /* a second one is ignored, as pomelo does */
	buf_clear(&f->scratch);
	if (pomelo_hello_read(p->body, p->n, &c->hello) < 0) {
		hello_refuse(c, 500, "the handshake is no JSON object with sys");
		return;
	}
	if (too_old(f, &c->hello)) {
		hello_refuse(c, 501, "the client's version is too old");
		return;
	}
	payload_choose(c);
	c->state = CLIENTCONN_ACK;
	struct pomelo_welcome w = { .heartbeat_s = f->limits.heartbeat_s, .dict = f->dict, .payload = c->body.payload };
	if (f->protos) {
		w.protos = clientprotos_json(f->protos, &w.protos_n);
		w.proto_version = clientprotos_version(f->protos);
	}
	pomelo_hello_reply(&f->scratch, &c->hello, &w);
	package_write(c, f->scratch.data, f->scratch.len, NULL, 0);
}

static void on_ack(struct clientconn *c)
{
	if (c->state != CLIENTCONN_ACK)
		return;
	c->state = CLIENTCONN_WORKING;
	heartbeat_send(c); /* the JS client never starts by itself */
	if (c->state == CLIENTCONN_WORKING)
		loop_timer(c->face->loop, &c->beat, interval_ms(c));
}

static void second_turn(struct clientconn *c)
{
	uint64_t second = c->face->loop->now_ms / 1000;

	if (second == c->second)
		return;
	c->second = second;
	c->packets = c->pieces = 0;
}

/* Heartbeats, pings and empty fragments cost as well: so many more packages and frames of any kind end the connection. */
static bool pieces_ok(struct clientconn *c, unsigned n)
{
	second_turn(c);
	c->pieces += n;
	if (c->pieces <= FLOOD_FACTOR * c->face->limits.packets_per_s + PIECES_SPARE)
		return true;
	clientconn_kick(c, "too many packages or frames");
	return false;
}

/* Whether one more packet fits into this second. */
static bool rate_ok(struct clientconn *c, const struct pomelo_message *m)
{
	unsigned max = c->face->limits.packets_per_s;

	second_turn(c);
	if (++c->packets <= max)
		return true;
	metric_add(c->face->refused, 1);
	if (c->packets > FLOOD_FACTOR * max)
		clientconn_kick(c, "too many packets");
	else
		clientconn_error(c, m->id, ERR_BUSY, EFFECT_NONE, "too many packets in this second");
	return false;
}

/* A client that sends a code knows the dictionary: from now on it gets codes, too. */
static void route_resolve(struct clientconn *c, struct pomelo_message *m)
{
	const struct pomelo_dict *dict = c->face->dict;

	if (!m->code)
		return;
	m->route = pomelo_dict_route(dict, m->code, &m->route_n);
	c->codes |= m->route && pomelo_takes_codes(&c->hello, dict);
}

/* Makes JSON of a body in protobuf; it may lie in scratch, behind which the text is written. */
static bool typed(struct clientconn *c, struct pomelo_message *m)
{
	struct buf *scratch = &c->face->scratch;

	if (c->body.payload <= POMELO_JSON)
		return true;
	buf_clear(&c->face->typed);
	if (m->body == scratch->data)
		buf_add(&c->face->typed, m->body, m->n);
	if (m->body == scratch->data)
		m->body = c->face->typed.data;
	buf_clear(scratch);
	if (clientbody_in(&c->body, c->face->protos, m, scratch) == 0)
		return true;
	clientconn_error(c, m->id, ERR_BAD_REQUEST, EFFECT_NONE, "the body is no message of its route's type");
	return false;
}

/* Gives the body in plain, as JSON; false: answered with why not. */
static bool unpack(struct clientconn *c, struct pomelo_message *m)
{
	static const char no_route[] = "there is no such route code";
	struct clientconn_face *f = c->face;

	if (m->code && !m->route) {
		if (c->in)
			clientconn_error(c, m->id, ERR_NOT_FOUND, EFFECT_NONE, no_route);
		else
			clientconn_strike(c, m->id, no_route);
		return false;
	}
	buf_clear(&f->scratch);
	if (!m->compressed)
		return typed(c, m);
	if (inflate_body(&f->scratch, m->body, m->n, f->limits.body_max) < 0) {
		clientconn_error(c, m->id, ERR_BAD_REQUEST, EFFECT_NONE, "the compressed body is broken or too large");
		return false;
	}
	m->body = f->scratch.data;
	m->n = f->scratch.len;
	return typed(c, m);
}

/* A response or a push: nothing waits for it. A few are a client's mistake, many are none. */
static void ignore(struct clientconn *c)
{
	metric_add(c->face->refused, 1);
	if (!c->ignored++)
		log_info(c->face->log, "client.ignored", "sid=%llx addr=%s why=%s", (unsigned long long)c->sid, c->addr,
			 "a response or push from a client");
	if (c->ignored >= CLIENTCONN_STRIKES)
		clientconn_kick(c, "responses or pushes from a client");
}

static void on_packet(struct clientconn *c, const struct pomelo_package *p)
{
	struct pomelo_message m;

	metric_add(c->face->packets_in, 1);
	if (c->state != CLIENTCONN_WORKING) {
		drop_with(c, WEBSOCKET_POLICY, "data before the handshake's ack");
		return;
	}
	if (pomelo_message_read(p->body, p->n, &m) < 0) {
		clientconn_kick(c, "a message that cannot be read");
		return;
	}
	bool asks = m.kind == POMELO_REQUEST || m.kind == POMELO_NOTIFY;
	route_resolve(c, &m);
	if (asks && clientbody_asked(&c->body, c->face->protos, m.id, m.route, m.route_n) < 0) {
		clientconn_kick(c, "too many requests without an answer");
		return;
	}
	if (!rate_ok(c, &m))
		return;
	if (!asks)
		ignore(c);
	else if (unpack(c, &m))
		c->face->ops->on_message(c, &m);
}

static void on_package(struct clientconn *c, const struct pomelo_package *p)
{
	c->last_in_ms = c->face->loop->now_ms;
	c->wholes++;
	if (!pieces_ok(c, 1))
		return;
	switch (p->type) {
	case POMELO_HANDSHAKE: on_hello(c, p); break;
	case POMELO_ACK: on_ack(c); break;
	case POMELO_HEARTBEAT:
		if (c->last_in_ms - c->last_beat_ms >= BEAT_GAP_MS)
			heartbeat_send(c);
		break;
	default: on_packet(c, p); break;
	}
}

/* Reads packages off the stream of bytes; how many bytes it took. Stops when the connection ends. */
static size_t packages(struct clientconn *c, const char *data, size_t n)
{
	struct clientconn_limits *l = &c->face->limits;
	struct pomelo_package p;
	size_t at = 0;

	while (at < n && c->state != CLIENTCONN_ENDED) {
		size_t max = c->state < CLIENTCONN_ACK ? l->early_max : l->body_max;
		ssize_t took = pomelo_package_read(data + at, n - at, max, &p);
		if (took == ERR_INCOMPLETE)
			break;
		if (took < 0) {
			if (took == ERR_FULL)
				drop_with(c, WEBSOCKET_TOO_LARGE, "a package over the size limit");
			else
				drop_with(c, WEBSOCKET_PROTOCOL, "no pomelo package");
			break;
		}
		on_package(c, &p);
		at += (size_t)took;
	}
	return at;
}

/* ---- input: transports -------------------------------------------------------------------------------------------- */

/* Payload of WebSocket messages: most often whole packages, which are read where they stand. */
static int on_payload(void *arg, const char *p, size_t n)
{
	struct clientconn *c = arg;

	if (!c->carry.len) {
		size_t took = packages(c, p, n);
		if (c->state != CLIENTCONN_ENDED && took < n)
			buf_add(&c->carry, p + took, n - took);
	} else {
		buf_add(&c->carry, p, n);
		/* on_end releases carry: read from memory that stays */
		struct buf whole = c->carry;
		c->carry = (struct buf)BUF_INIT;
		size_t took = packages(c, whole.data, whole.len);
		buf_consume(&whole, took);
		if (c->state == CLIENTCONN_ENDED || !whole.len)
			buf_release(&whole);
		else
			c->carry = whole;
	}
	return c->state == CLIENTCONN_ENDED ? ERR_CLOSED : 0;
}

static int on_control(void *arg, enum websocket_opcode opcode, const char *p, size_t n)
{
	struct clientconn *c = arg;
	char frame[WEBSOCKET_HEAD_MAX + 125];

	c->last_in_ms = c->face->loop->now_ms;
	if (opcode == WEBSOCKET_PONG)
		return 0;
	if (opcode == WEBSOCKET_CLOSE && !websocket_close_ok(p, n))
		return ERR_BAD_REQUEST; /* closed with 1002 */
	size_t head_n = websocket_head(frame, opcode == WEBSOCKET_PING ? WEBSOCKET_PONG : WEBSOCKET_CLOSE, n);
	memcpy(frame + head_n, p, n);
	stream_write(&c->stream, frame, head_n + n);
	if (opcode == WEBSOCKET_PING)
		return 0;
	c->left = true;
	ended(c, LOG_DEBUG, "the client closed");
	stream_close_flushed(&c->stream);
	return ERR_CLOSED;
}

static const struct websocket_ops web_ops = { .on_data = on_payload, .on_control = on_control };

static ssize_t web_data(struct clientconn *c, const char *data, size_t n)
{
	/* the bytes are the stream's and read by nobody else: they may be unmasked in place */
	ssize_t took = websocket_read(&c->ws, c->face->frames, (char *)(uintptr_t)data, n, &web_ops, c);

	if (c->state == CLIENTCONN_ENDED)
		return (ssize_t)n;
	unsigned frames = c->ws.frames;
	c->ws.frames = 0;
	if (took >= 0)
		return pieces_ok(c, frames) ? took : (ssize_t)n;
	websocket_end(c, WEBSOCKET_PROTOCOL);
	close_flushed(c, "broken WebSocket frames");
	return (ssize_t)n;
}

/* A balancer of ours says whose connection this is. false: that one has too many. */
static bool forwarded(struct clientconn *c, const char *request, size_t n)
{
	struct clientconn_face *f = c->face;
	char addr[ENV_ADDR_MAX];
	const char *value;
	size_t value_n;

	if (!balancers_trust(f->balancers, c->addr) ||
	    !websocket_header(request, n, "X-Forwarded-For", &value, &value_n) ||
	    !balancer_forwarded(f->balancers, value, value_n, addr))
		return true;
	bool fits = clientlisten_moved(*f->listen, c->addr, addr);
	memcpy(c->addr, addr, sizeof(addr));
	if (!fits)
		clientconn_drop(c, "too many connections from this address");
	return fits;
}

static ssize_t http_data(struct clientconn *c, const char *data, size_t n)
{
	struct buf *reply = &c->face->scratch;

	buf_clear(reply);
	ssize_t took = websocket_upgrade(data, n, &c->face->rules, reply);
	if (took == ERR_INCOMPLETE)
		return 0;
	stream_write(&c->stream, reply->data, reply->len);
	if (took < 0) {
		close_flushed(c, "an HTTP request that is no WebSocket upgrade, or of a wrong origin");
		return (ssize_t)n;
	}
	if (!forwarded(c, data, (size_t)took))
		return (ssize_t)n;
	c->web = true;
	c->state = CLIENTCONN_HANDSHAKE;
	return took;
}

/* A pomelo client's first byte is 1; everything else that may come starts differently. */
static bool first_byte(struct clientconn *c, uint8_t byte)
{
	if (byte == POMELO_HANDSHAKE)
		c->state = CLIENTCONN_HANDSHAKE;
	else if (byte >= 'A' && byte <= 'Z')
		c->state = CLIENTCONN_UPGRADE;
	else
		clientconn_drop(c, byte == 0x16 ? "TLS, but no certificate is configured" : "neither pomelo nor HTTP");
	return c->state != CLIENTCONN_ENDED;
}

/* How many of the bytes are done with. */
static ssize_t take(struct clientconn *c, const char *data, size_t n)
{
	size_t at = 0;

	if (c->state == CLIENTCONN_ENDED)
		return (ssize_t)n;
	if (c->state == CLIENTCONN_NEW && !first_byte(c, (uint8_t)data[0]))
		return (ssize_t)n;
	if (c->state == CLIENTCONN_UPGRADE) {
		ssize_t took = http_data(c, data, n);
		if (c->state == CLIENTCONN_UPGRADE || c->state == CLIENTCONN_ENDED)
			return took;
		at = (size_t)took;
	}
	if (c->web)
		return (ssize_t)at + web_data(c, data + at, n - at);
	at = packages(c, data, n);
	return c->state == CLIENTCONN_ENDED ? (ssize_t)n : (ssize_t)at;
}

static ssize_t on_data(struct stream *s, const char *data, size_t n)
{
	struct clientconn *c = of_stream(s);
	unsigned wholes = c->wholes;
	ssize_t took = take(c, data, n);
	bool rest = took < (ssize_t)n || c->carry.len || c->ws.frame;

	if (!rest)
		c->part_ms = 0;
	else if (!c->part_ms || wholes != c->wholes)
		c->part_ms = s->loop->now_ms;
	metric_add(c->face->bytes_in, took > 0 ? (uint64_t)took : 0);
	return took;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static const struct stream_ops stream_ops = { .on_data = on_data, .on_close = on_close, .on_drained = on_drained };

void clientconn_accept(struct clientconn *c, struct clientconn_face *f, struct env_conn *conn, const char *addr)
{
	uint64_t now = f->loop->now_ms;

	c->face = f;
	c->state = CLIENTCONN_NEW;
	c->last_in_ms = c->last_out_ms = now;
	c->beat.fire = on_beat;
	c->deadline.fire = on_deadline;
	snprintf(c->addr, sizeof(c->addr), "%s", addr);
	metric_set(f->connections, (int64_t)++f->open);
	c->next = f->conns;
	c->prev = &f->conns;
	if (c->next)
		c->next->prev = &c->next;
	f->conns = c;
	stream_accept(&c->stream, f->loop, conn, &stream_ops, POMELO_HEAD + f->limits.body_max + WEBSOCKET_REQUEST_MAX,
		      f->limits.out_max);
	loop_timer(f->loop, &c->deadline, f->limits.login_ms);
}

/* What runs by its state: the heartbeat, and the deadline of who is not logged in. */
void clientconn_timers(struct clientconn *c)
{
	struct loop *l = c->face->loop;

	if (c->in || c->state == CLIENTCONN_ENDED)
		loop_timer_stop(l, &c->deadline);
	else
		loop_timer(l, &c->deadline, c->login_left_ms);
	if (c->state == CLIENTCONN_WORKING)
		loop_timer(l, &c->beat, BEAT_GAP_MS);
}

bool clientconn_alive(struct clientconn *c)
{
	if (c->state != CLIENTCONN_ENDED)
		stream_poll(&c->stream);
	return c->state != CLIENTCONN_ENDED && !c->stream.closing;
}

void clientconn_face_init(struct clientconn_face *f, struct metrics *m, unsigned worker)
{
	static const char *const in[] = { "in" }, *const out[] = { "out" };

	f->frames = websocket_pool_new();
	buf_init(&f->scratch);
	buf_init(&f->typed);
	buf_init(&f->answer);
	f->open = 0;
	f->connections =
		metric(m, worker, METRIC_GAUGE, "loquat_client_connections", "Client connections open.", NULL, NULL);
	f->packets_in = metric(m, worker, METRIC_COUNTER, "loquat_client_packets_total",
			       "Data packages from and to clients.", "direction", in);
	f->packets_out = metric(m, worker, METRIC_COUNTER, "loquat_client_packets_total",
				"Data packages from and to clients.", "direction", out);
	f->bytes_in = metric(m, worker, METRIC_COUNTER, "loquat_client_bytes_total", "Bytes from and to clients.",
			     "direction", in);
	f->bytes_out = metric(m, worker, METRIC_COUNTER, "loquat_client_bytes_total", "Bytes from and to clients.",
			      "direction", out);
	f->slow = metric(m, worker, METRIC_COUNTER, "loquat_client_slow_total",
			 "Times more came for a client than it took at once.", NULL, NULL);
	f->superseded = metric(m, worker, METRIC_COUNTER, "loquat_client_superseded_total",
			       "Pushes a slow client did not get because a newer one replaced them.", NULL, NULL);
	f->refused = metric(m, worker, METRIC_COUNTER, "loquat_client_refused_total",
			    "Connections ended and packets refused by us.", NULL, NULL);
}

void clientconn_face_close(struct clientconn_face *f)
{
	for (struct clientconn *c = f->conns; c; c = c->next) {
		drop_with(c, WEBSOCKET_GOING_AWAY, "this process ends");
		stream_close(&c->stream, 0); /* who was kicked before may linger */
	}
}

void clientconn_face_release(struct clientconn_face *f)
{
	assert(f->open == 0);
	websocket_pool_free(f->frames);
	buf_release(&f->scratch);
	buf_release(&f->typed);
	buf_release(&f->answer);
}
