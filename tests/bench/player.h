#pragma once
#include "tests/bench/net.h"
#include "tests/bench/peek.h"
#include "tests/bench/wire.h"

/*
 * player: one pomelo client from its first byte to the first request of a run: gate, handshake,
 * login, scene. Bytes are written into p->out; the owner reads, writes and watches the socket.
 *
 * Threads: one. Memory: the owner's array; player_close gives a player's buffers back to be used again.
 */
struct player_options {
	const char *host, *route, *body, *name, *rid;
	int port, gate; /* gate 0: straight to port */
	bool login, enter_scene;
	bool alone; /* each in a room of its own */
	bool web;   /* over WebSocket */
	int spread; /* so many from one loopback address, from 127.1.0.1 on; 0: all from the usual one */
};

enum player_stage {
	PLAYER_GATE_SHAKE, /* waits for the gate's handshake */
	PLAYER_GATE_QUERY, /* waits for queryEntry's answer, or in the queue for onAdmit */
	PLAYER_SHAKE,      /* waits for the connector's handshake */
	PLAYER_LOGIN,      /* waits for enter's answer */
	PLAYER_SCENE,      /* waits for scene.enter's answer */
	PLAYER_READY,
	PLAYER_FAILED
};

enum player_step {
	PLAYER_GOES_ON,
	PLAYER_IS_READY,
	PLAYER_MOVES, /* the gate has named a connector: close, then player_connect */
	PLAYER_FAILS  /* kicked, refused, or nonsense */
};

struct player {
	int fd; /* -1: none */
	uint32_t index;
	enum player_stage stage;
	bool waits_out;
	bool framed;   /* over WebSocket: what it writes goes in frames */
	bool upgraded; /* and the answer to its upgrade has come */
	int port;      /* of the connector that the gate named; 0: not asked yet */
	char host[64], token[1024];
	uint64_t heartbeat_ns, heartbeat_due_ns; /* 0: this server wants none */
	struct queue in, out;
};

static inline const char *player_stage_name(const struct player *p)
{
	static const char *const name[] = {
		[PLAYER_GATE_SHAKE] = "shaking hands with the gate",
		[PLAYER_GATE_QUERY] = "waiting for queryEntry",
		[PLAYER_SHAKE] = "shaking hands",
		[PLAYER_LOGIN] = "waiting for enter",
		[PLAYER_SCENE] = "waiting for scene.enter",
		[PLAYER_READY] = "playing",
		[PLAYER_FAILED] = "failed",
	};
	return name[p->stage];
}

static inline void player_close(struct player *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	p->waits_out = false;
	p->heartbeat_ns = 0;
	queue_free(&p->in);
	queue_free(&p->out);
}

/* A client's frames are masked; with zeros the payload stays as it is. */
static inline void player_frame(struct player *p, size_t bytes)
{
	uint8_t head[8] = { 0x82, 0x80 | (bytes < 126 ? (uint8_t)bytes : 126), (uint8_t)(bytes >> 8), (uint8_t)bytes };

	if (!p->framed)
		return;
	if (bytes < 126)
		memset(head + 2, 0, 2);
	queue_add(&p->out, head, bytes < 126 ? 6 : 8);
}

static inline void player_package(struct player *p, enum wire_package type, const char *body)
{
	player_frame(p, WIRE_HEAD_BYTES + strlen(body));
	uint8_t *out = queue_room(&p->out, WIRE_HEAD_BYTES + strlen(body));
	p->out.len += wire_head(out, type, strlen(body));
	queue_add(&p->out, body, strlen(body));
}

static inline void player_request(struct player *p, uint32_t id, const char *route, const char *body)
{
	size_t bytes = strlen(body);
	uint8_t whole[WIRE_HEAD_BYTES + WIRE_MESSAGE_HEAD_MAX + 2048];

	if (p->framed) { /* the frame's head says how long it is */
		size_t n = bytes < 2000 ? wire_put_request(whole, id, route, body, bytes) : 0;
		player_frame(p, n);
		queue_add(&p->out, whole, n);
		return;
	}
	uint8_t *out = queue_room(&p->out, WIRE_HEAD_BYTES + WIRE_MESSAGE_HEAD_MAX + bytes);
	p->out.len += wire_put_request(out, id, route, body, bytes);
}

/* Connects and says hello; a negative number: refused at once. */
static inline int player_connect(struct player *p, const struct player_options *o)
{
	bool gate = o->gate && !p->port;
	p->stage = gate ? PLAYER_GATE_SHAKE : PLAYER_SHAKE;
	p->fd = net_connect_from(o->spread ? 0x7f010001u + p->index / (uint32_t)o->spread : 0,
				 p->port ? p->host : o->host,
				 gate      ? o->gate
				 : p->port ? p->port
					   : o->port);
	if (p->fd < 0)
		return -1;
	/* The first write waits for the connection, so out is flushed when epoll says so. */
	p->waits_out = true;
	p->framed = p->upgraded = false;
	if (o->web) {
		static const char upgrade[] =
			"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
		queue_add(&p->out, upgrade, sizeof upgrade - 1);
		p->framed = true;
	}
	player_package(p, WIRE_HANDSHAKE, "{\"sys\":{\"type\":\"loadgen\",\"version\":\"1\"},\"user\":{}}");
	return 0;
}

static inline void player_ask_enter(struct player *p, const struct player_options *o)
{
	char body[1400], rid[80];
	if (o->alone)
		snprintf(rid, sizeof rid, "%s%u", o->rid, p->index);
	else
		snprintf(rid, sizeof rid, "%s", o->rid);
	if (p->token[0])
		snprintf(body, sizeof body, "{\"token\":\"%s\",\"rid\":\"%s\"}", p->token, rid);
	else
		snprintf(body, sizeof body, "{\"username\":\"%s%u\",\"rid\":\"%s\"}", o->name, p->index, rid);
	player_request(p, 1, "connector.entryHandler.enter", body);
	p->stage = PLAYER_LOGIN;
}

static inline enum player_step player_shaken(struct player *p, const struct player_options *o, const uint8_t *body,
					     size_t bytes, uint64_t now)
{
	char query[300];
	double code = 0, beat = 0;
	peek_number(body, bytes, "code", &code);
	peek_number(body, bytes, "heartbeat", &beat);
	if (code != 200)
		return PLAYER_FAILS;
	p->heartbeat_ns = (uint64_t)(beat * 1e9);
	p->heartbeat_due_ns = now + p->heartbeat_ns;
	player_package(p, WIRE_ACK, "");
	if (p->stage == PLAYER_GATE_SHAKE) {
		snprintf(query, sizeof query, "{\"uid\":\"%s%u\"}", o->name, p->index);
		player_request(p, 1, "gate.gateHandler.queryEntry", query);
		p->stage = PLAYER_GATE_QUERY;
		return PLAYER_GOES_ON;
	}
	if (o->login || p->token[0]) {
		player_ask_enter(p, o);
		return PLAYER_GOES_ON;
	}
	p->stage = PLAYER_READY;
	return PLAYER_IS_READY;
}

/* The gate names a connector, in queryEntry's answer or in onAdmit. */
static inline enum player_step player_admitted(struct player *p, const uint8_t *body, size_t bytes)
{
	double port = 0;
	bool whole = peek_string(body, bytes, "host", p->host, sizeof p->host) &&
		     peek_string(body, bytes, "token", p->token, sizeof p->token) &&
		     peek_number(body, bytes, "port", &port);
	p->port = (int)port;
	return whole ? PLAYER_MOVES : PLAYER_FAILS;
}

static inline enum player_step player_answered(struct player *p, const struct player_options *o,
					       const struct wire_message *m)
{
	double code = 0;
	peek_number(m->body, m->body_bytes, "code", &code);
	if (p->stage == PLAYER_GATE_QUERY && code == 202)
		return PLAYER_GOES_ON;
	if (code != 200)
		return PLAYER_FAILS;
	if (p->stage == PLAYER_GATE_QUERY)
		return player_admitted(p, m->body, m->body_bytes);
	if (p->stage == PLAYER_LOGIN && o->enter_scene) {
		player_request(p, 2, "scene.sceneHandler.enter", "{}");
		p->stage = PLAYER_SCENE;
		return PLAYER_GOES_ON;
	}
	p->stage = PLAYER_READY;
	return PLAYER_IS_READY;
}

/* One package from the server, m its message when it is one (responses only before READY). */
static inline enum player_step player_take(struct player *p, const struct player_options *o, enum wire_package type,
					   const struct wire_message *m, const uint8_t *body, size_t bytes,
					   uint64_t now)
{
	bool shaking = p->stage == PLAYER_GATE_SHAKE || p->stage == PLAYER_SHAKE;
	if (type == WIRE_HEARTBEAT)
		return PLAYER_GOES_ON;
	if (type == WIRE_HANDSHAKE && shaking)
		return player_shaken(p, o, body, bytes, now);
	if (type != WIRE_DATA || !m || shaking)
		return PLAYER_FAILS;
	if (m->type == WIRE_RESPONSE)
		return player_answered(p, o, m);
	if (p->stage == PLAYER_GATE_QUERY && m->route_bytes == 7 && !memcmp(m->route, "onAdmit", 7))
		return player_admitted(p, m->body, m->body_bytes);
	return PLAYER_GOES_ON;
}

/* Adds a heartbeat when one is due: each interval one, as libpomelo2 does. true: flush out. */
static inline bool player_heartbeat(struct player *p, uint64_t now)
{
	if (!p->heartbeat_ns || now < p->heartbeat_due_ns)
		return false;
	p->heartbeat_due_ns = now + p->heartbeat_ns;
	player_package(p, WIRE_HEARTBEAT, "");
	return true;
}
