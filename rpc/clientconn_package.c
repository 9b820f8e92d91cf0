#include <string.h>
#include "rpc/clientconn_private.h"
#include "rpc/clientlisten.h"
#include "rpc/inflate.h"

/* What comes from the client, package by package: the handshake, heartbeats, requests; how many of them in a second. */

#define PIECES_SPARE 64
#define FLOOD_FACTOR 4 /* times packets_per_s within a second: kicked */

static void hello_refuse(struct clientconn *c, int code, const char *why)
{
	struct buf *reply = &c->face->scratch;

	pomelo_hello_refuse(reply, code);
	clientconn_write(c, reply->data, reply->len, NULL, 0);
	clientconn_web_end(c, code == 501 ? WEBSOCKET_POLICY : WEBSOCKET_PROTOCOL);
	clientconn_close_flushed(c, why);
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
	c->dict = f->dict;
	c->protos = f->protos;
	c->state = CLIENTCONN_ACK;
	struct pomelo_welcome w = { .heartbeat_s = f->limits.heartbeat_s, .dict = f->dict, .payload = c->body.payload };
	if (f->protos) {
		w.protos = clientprotos_json(f->protos, &w.protos_n);
		w.proto_version = clientprotos_version(f->protos);
	}
	pomelo_hello_reply(&f->scratch, &c->hello, &w);
	clientconn_write(c, f->scratch.data, f->scratch.len, NULL, 0);
}

static void on_ack(struct clientconn *c)
{
	if (c->state != CLIENTCONN_ACK)
		return;
	c->state = CLIENTCONN_WORKING;
	clientconn_heartbeat(c); /* the JS client never starts by itself */
	if (c->state == CLIENTCONN_WORKING)
		loop_timer(c->face->loop, &c->beat, clientconn_interval_ms(c));
}

static void second_turn(struct clientconn *c)
{
	uint64_t second = c->face->loop->now_ms / 1000;

	if (second == c->second)
		return;
	c->second = second;
	c->packets = c->pieces = 0;
	c->bytes = 0;
}

/* Heartbeats, pings and empty fragments cost as well: so many more packages and frames of any kind end the connection. */
bool clientconn_pieces_ok(struct clientconn *c, unsigned n)
{
	second_turn(c);
	c->pieces += n;
	if (c->pieces <= FLOOD_FACTOR * c->face->limits.packets_per_s + PIECES_SPARE)
		return true;
	clientconn_kick(c, "too many packages or frames");
	return false;
}

/* Neither many connections nor coming again, when kicked, give an address more. Nobody is kicked for its neighbours. */
static bool address_ok(struct clientconn *c, const struct pomelo_message *m)
{
	if (c->host == CLIENTLISTEN_NOWHERE || clientlisten_packet(*c->face->listen, c->host, c->face->loop->now_ms))
		return true;
	metric_add(c->face->refused, 1);
	clientconn_error(c, m->id, ERR_BUSY, EFFECT_NONE, "too many packets of this address in this second");
	return false;
}

/* Whether one more packet fits into this second. */
static bool rate_ok(struct clientconn *c, const struct pomelo_message *m)
{
	unsigned max = c->face->limits.packets_per_s;

	second_turn(c);
	if (++c->packets <= max)
		return address_ok(c, m);
	metric_add(c->face->refused, 1);
	if (c->packets > FLOOD_FACTOR * max)
		clientconn_kick(c, "too many packets");
	else
		clientconn_error(c, m->id, ERR_BUSY, EFFECT_NONE, "too many packets in this second");
	return false;
}

/* A large body costs its service as much as many small ones; what counts is what the service gets. */
static bool bytes_ok(struct clientconn *c, const struct pomelo_message *m)
{
	uint64_t max = c->face->limits.bytes_per_s;

	c->bytes += m->n;
	if (!max || c->bytes <= max)
		return true;
	metric_add(c->face->refused, 1);
	if (c->bytes > FLOOD_FACTOR * max)
		clientconn_kick(c, "too many bytes");
	else
		clientconn_error(c, m->id, ERR_BUSY, EFFECT_NONE, "too many bytes in this second");
	return false;
}

/* A client that sends a code knows the dictionary: from now on it gets codes, too. */
static void route_resolve(struct clientconn *c, struct pomelo_message *m)
{
	const struct pomelo_dict *dict = c->dict;

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
	if (clientbody_in(&c->body, c->protos, m, scratch) == 0)
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
		clientconn_drop_with(c, WEBSOCKET_POLICY, "data before the handshake's ack");
		return;
	}
	if (pomelo_message_read(p->body, p->n, &m) < 0) {
		clientconn_kick(c, "a message that cannot be read");
		return;
	}
	bool asks = m.kind == POMELO_REQUEST || m.kind == POMELO_NOTIFY;
	route_resolve(c, &m);
	if (asks && clientbody_asked(&c->body, c->protos, m.id, m.route, m.route_n) < 0) {
		clientconn_kick(c, "too many requests without an answer");
		return;
	}
	if (!rate_ok(c, &m))
		return;
	if (!asks)
		ignore(c);
	else if (unpack(c, &m) && bytes_ok(c, &m))
		c->face->ops->on_message(c, &m);
}

/* Each is answered, but of a storm's one in a while. What we send unasked does not count: a client waits for its answer. */
static void on_heartbeat(struct clientconn *c)
{
	if (c->last_in_ms - c->last_beat_ms < CLIENTCONN_BEAT_GAP_MS)
		return;
	c->last_beat_ms = c->last_in_ms;
	clientconn_heartbeat(c);
}

static void on_package(struct clientconn *c, const struct pomelo_package *p)
{
	c->last_in_ms = c->face->loop->now_ms;
	c->wholes++;
	if (!clientconn_pieces_ok(c, 1))
		return;
	switch (p->type) {
	case POMELO_HANDSHAKE: on_hello(c, p); break;
	case POMELO_ACK: on_ack(c); break;
	case POMELO_HEARTBEAT: on_heartbeat(c); break;
	default: on_packet(c, p); break;
	}
}

/* Reads packages off the stream of bytes; how many bytes it took. Stops when the connection ends. */
size_t clientconn_packages(struct clientconn *c, const char *data, size_t n)
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
				clientconn_drop_with(c, WEBSOCKET_TOO_LARGE, "a package over the size limit");
			else
				clientconn_drop_with(c, WEBSOCKET_PROTOCOL, "no pomelo package");
			break;
		}
		on_package(c, &p);
		at += (size_t)took;
	}
	return at;
}
