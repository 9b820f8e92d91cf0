#include "tests/support/player.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/pomelo.h"

#define PATIENCE_MS 12000 /* for an answer; the server's own deadline is much shorter */

static void connect_to(struct player *p, const char *host, uint16_t port);

static uint32_t chance(struct player *p, uint32_t below)
{
	uint32_t r;

	env_random(p->loop->env, &r, sizeof r);
	return below ? r % below : 0;
}

static void later(struct player *p, uint32_t in_ms)
{
	loop_timer(p->loop, &p->timer, in_ms);
}

static void start_anew(struct player *p)
{
	p->in = false;
	p->stage = PLAYER_GATE;
	if (p->streaming)
		stream_close(&p->stream, 0);
	else
		later(p, 50 + chance(p, 300));
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

static void send_package(struct player *p, enum pomelo_type type, const char *body, size_t n)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, type, n);
	stream_write(&p->stream, head, sizeof head);
	stream_write(&p->stream, body, n);
}

static void request(struct player *p, const char *route, const char *body)
{
	char head[POMELO_MESSAGE_HEAD_MAX];
	size_t n = pomelo_request_head(head, ++p->id, 0, route, strlen(route), strlen(body));

	p->asked = p->id;
	p->asked_ms = p->loop->now_ms;
	stream_write(&p->stream, head, n);
	stream_write(&p->stream, body, strlen(body));
	loop_timer(p->loop, &p->patience, PATIENCE_MS);
}

static void buy(struct player *p)
{
	char body[128];

	if (p->record->answered == p->record->wanted)
		return;
	if (!p->began_ms)
		p->began_ms = p->loop->now_ms;
	p->order = p->record->answered;
	snprintf(body, sizeof body, "{\"item\":1,\"count\":1,\"order\":\"%s-%u\"}", p->record->uid, p->order);
	request(p, "role.shopHandler.buy", body);
}

static void greet(struct player *p)
{
	char body[1024];

	send_package(p, POMELO_ACK, "", 0);
	if (p->stage == PLAYER_GATE) {
		snprintf(body, sizeof body, "{\"uid\":\"%s\"}", p->record->uid);
		request(p, "gate.gateHandler.queryEntry", body);
	} else {
		snprintf(body, sizeof body, "{\"token\":\"%s\",\"rid\":\"sim\"}", p->token);
		request(p, "connector.entryHandler.enter", body);
	}
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

static void admitted(struct player *p, json_t *answer)
{
	const char *host = json_string_value(json_object_get(answer, "host"));
	const char *token = json_string_value(json_object_get(answer, "token"));

	snprintf(p->host, sizeof p->host, "%s", host ? host : "");
	snprintf(p->token, sizeof p->token, "%s", token ? token : "");
	p->port = (uint16_t)json_integer_value(json_object_get(answer, "port"));
	p->stage = PLAYER_CONNECTOR;
	stream_close(&p->stream, 0);
}

static void bought(struct player *p, json_t *answer)
{
	struct purchases *r = p->record;
	int64_t gold = json_integer_value(json_object_get(answer, "gold"));

	if (p->order == r->answered) /* else a rival has had the answer already: it must be the same */
		r->gold[r->answered++] = gold;
	else if (p->order > r->answered || r->gold[p->order] != gold)
		snprintf(r->wrong, sizeof r->wrong, "order %u was answered with %lld and with %lld gold", p->order,
			 (long long)r->gold[p->order], (long long)gold);
	if (p->bought)
		p->bought(p, r->answered - 1, p->loop->now_ms - p->began_ms);
	p->began_ms = 0;
	later(p, chance(p, p->think_ms));
}

static bool may_pass(int code)
{
	return code == 429 || code == 503 || code == 504;
}

static void refused(struct player *p, int code, const char *text)
{
	if (getenv("PLAYER_DEBUG"))
		fprintf(stderr, "%s refused at stage %d in %d: %s\n", p->record->uid, p->stage, p->in, text);
	p->record->refusals++;
	if (p->was_refused)
		p->was_refused(p, code, text, p->loop->now_ms - p->asked_ms);
	if (!p->in)
		start_anew(p);
	else if (may_pass(code))
		later(p, 20 + chance(p, 200));
	else
		snprintf(p->record->wrong, sizeof p->record->wrong, "order %u: %s", p->record->answered, text);
}

static void on_answer(struct player *p, const char *body, size_t n)
{
	json_t *answer = json_loadb(body, n, 0, NULL);
	int code = (int)json_integer_value(json_object_get(answer, "code"));
	char text[200];

	snprintf(text, sizeof text, "%.*s", (int)n, body);
	loop_timer_stop(p->loop, &p->patience);
	if (code != 200) {
		refused(p, code, text);
	} else if (p->stage == PLAYER_GATE) {
		admitted(p, answer);
	} else if (!p->in) {
		p->in = true;
		p->record->logins++;
		buy(p);
	} else {
		bought(p, answer);
	}
	json_decref(answer);
}

static void on_message(struct player *p, const struct pomelo_package *package)
{
	struct pomelo_message m;

	if (pomelo_message_read(package->body, package->n, &m) < 0)
		snprintf(p->record->wrong, sizeof p->record->wrong, "a message that cannot be read");
	else if (m.kind == POMELO_RESPONSE && m.id == p->asked)
		on_answer(p, m.body, m.n);
}

/* The codec reads what clients send; a kick comes only this way round. */
static ssize_t next_package(const char *data, size_t n, struct pomelo_package *out)
{
	if (n >= POMELO_HEAD && data[0] == POMELO_KICK) {
		size_t body = (size_t)(uint8_t)data[1] << 16 | (size_t)(uint8_t)data[2] << 8 | (uint8_t)data[3];

		*out = (struct pomelo_package){ POMELO_KICK, data + POMELO_HEAD, body };
		return n < POMELO_HEAD + body ? ERR_INCOMPLETE : (ssize_t)(POMELO_HEAD + body);
	}
	return pomelo_package_read(data, n, POMELO_BODY_MAX, out);
}

static ssize_t on_data(struct stream *s, const char *data, size_t n)
{
	struct player *p = (struct player *)((char *)s - offsetof(struct player, stream));
	size_t used = 0;

	while (used < n && !s->closing) {
		struct pomelo_package package;
		ssize_t got = next_package(data + used, n - used, &package);

		if (got == ERR_INCOMPLETE)
			break;
		if (got < 0)
			return got;
		used += (size_t)got;
		switch (package.type) {
		case POMELO_HANDSHAKE: greet(p); break;
		case POMELO_HEARTBEAT: send_package(p, POMELO_HEARTBEAT, "", 0); break;
		case POMELO_DATA: on_message(p, &package); break;
		case POMELO_KICK:
		case POMELO_ACK: break;
		}
	}
	return (ssize_t)used;
}

/* ---- the connection ----------------------------------------------------------------------------------------------- */

static void on_open(struct stream *s)
{
	static const char hello[] = "{\"sys\":{\"type\":\"sim\",\"version\":\"1\"}}";
	struct player *p = (struct player *)((char *)s - offsetof(struct player, stream));

	send_package(p, POMELO_HANDSHAKE, hello, strlen(hello));
	loop_timer(p->loop, &p->patience, PATIENCE_MS);
}

static void on_close(struct stream *s, int err)
{
	struct player *p = (struct player *)((char *)s - offsetof(struct player, stream));

	(void)err;
	p->streaming = false;
	loop_timer_stop(p->loop, &p->patience);
	if (p->stage == PLAYER_CONNECTOR && !p->in && *p->token) { /* the gate's word is in hand */
		char host[64];

		snprintf(host, sizeof host, "%s", p->host);
		if (p->port) {
			uint16_t port = p->port;

			p->port = 0; /* tried once: a second failure starts at the gate again */
			connect_to(p, host, port);
			return;
		}
	}
	p->record->closes++;
	p->token[0] = '\0';
	p->stage = PLAYER_GATE;
	p->in = false;
	later(p, 50 + chance(p, 300));
}

static const struct stream_ops ops = { .on_data = on_data, .on_open = on_open, .on_close = on_close };

static void connect_to(struct player *p, const char *host, uint16_t port)
{
	if (stream_connect(&p->stream, p->loop, host, port, &ops, 1 << 20, 1 << 20) < 0) {
		p->stage = PLAYER_GATE;
		later(p, 300);
		return;
	}
	p->streaming = true;
}

static void on_timer(struct timer *t, uint64_t now_ms)
{
	struct player *p = (struct player *)((char *)t - offsetof(struct player, timer));

	(void)now_ms;
	if (p->in) {
		p->record->repeats++;
		buy(p);
	} else if (!p->streaming) {
		connect_to(p, p->gate_host, p->gate_port);
	}
}

static void on_patience(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	start_anew((struct player *)((char *)t - offsetof(struct player, patience)));
}

void player_start(struct player *p, struct loop *loop, const char *gate_host, uint16_t gate_port, uint32_t think_ms,
		  struct purchases *record)
{
	p->loop = loop;
	p->gate_host = gate_host;
	p->gate_port = gate_port;
	p->think_ms = think_ms;
	p->record = record;
	p->timer.fire = on_timer;
	p->patience.fire = on_patience;
	later(p, chance(p, 500));
}
