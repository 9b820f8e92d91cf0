#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/jsontext.h"
#include "rpc/clientconn_private.h"
#include "rpc/clientlate.h"

/* What goes to the client: packages, at once or behind what a slow reader has not taken; answers; pushes. */

#define LATE_PART \
	16 /* a client that leaves this part of out_max lie reads too slowly: the rest waits where it can be dropped */

/* What a client that reads too slowly has to wait for. */
struct clientconn_late {
	struct clientconn *conn;
	struct clientlate *items;
	struct loop_deferred again;
};

void clientconn_late_free(struct clientconn *c)
{
	if (!c->late)
		return;
	loop_defer_not(c->face->loop, &c->late->again);
	clientlate_free(c->late->items);
	free(c->late);
	c->late = NULL;
}

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
		clientconn_late_free(c);
}

void clientconn_pour(struct clientconn *c)
{
	const char *p;
	size_t n;

	while (c->late && clientlate_first(c->late->items, &p, &n)) {
		stream_put(&c->stream, NULL, 0, p, n);
		clientlate_take(c->late->items);
	}
	clientconn_late_free(c);
}

static void on_again(struct loop_deferred *d)
{
	struct clientconn *c = ((struct clientconn_late *)((char *)d - offsetof(struct clientconn_late, again)))->conn;

	if (!c->stream.want_write && !c->stream.closing)
		late_flush(c);
}

void clientconn_drained(struct stream *s)
{
	struct clientconn *c = clientconn_of(s);

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

int clientconn_write(struct clientconn *c, const char *head, size_t head_n, const char *body, size_t n)
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
	clientconn_write(c, head, head_n, body, n);
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
	p->dict = dict;
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
	struct clientconn_forms *next;
	const struct clientprotos *protos; /* by which they are made */
	struct buf text[FORMS];
	const char *body[FORMS]; /* NULL: not made yet */
	size_t n[FORMS];
};

static struct clientconn_forms *push_forms(struct clientconn_push *p, const struct clientprotos *protos)
{
	struct clientconn_forms *f = p->forms;

	while (f && f->protos != protos)
		f = f->next;
	if (f)
		return f;
	f = calloc(1, sizeof(*f));
	assert(f);
	f->protos = protos;
	f->next = p->forms;
	return p->forms = f;
}

/* The body as this client reads it. ERR_BAD_REQUEST: the push is not of its type, which is said once. */
static int push_form(struct clientconn *c, struct clientconn_push *p, const char **body, size_t *n)
{
	const struct clientbody *b = &c->body;
	unsigned i = b->payload == POMELO_PROTOBUF ? 0 : 1 + b->surrogates;

	struct clientconn_forms *f = push_forms(p, c->protos);
	if (!f->body[i]) {
		f->body[i] = p->body;
		f->n[i] = p->n;
		if (clientbody_push(b->payload, b->surrogates, c->protos, p->route, p->route_n, &f->body[i], &f->n[i],
				    &f->text[i]) < 0) {
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
	return clientconn_write(c, head, head_n, body, n);
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
	for (struct clientconn_forms *f = p->forms, *next; f; f = next) {
		next = f->next;
		for (int i = 0; i < FORMS; i++)
			buf_release(&f->text[i]);
		free(f);
	}
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
	int coded = c->codes && p->code && pomelo_dict_same(c->dict, p->dict); /* another has another code for it */

	if (c->state != CLIENTCONN_WORKING)
		return ERR_CLOSED;
	if (c->body.payload > POMELO_JSON)
		return push_protobuf(c, p, coded);
	if (is_slow(c) && !c->stream.closing)
		return late_package(c, p->supersedes, p->head[coded], p->head_n[coded], p->body, p->n);
	if (p->many)
		return wire_share(c, push_wire(p, c->web, coded));
	return clientconn_write(c, p->head[coded], p->head_n[coded], p->body, p->n);
}

void clientconn_heartbeat(struct clientconn *c)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, POMELO_HEARTBEAT, 0);
	clientconn_write(c, head, sizeof(head), NULL, 0);
}
