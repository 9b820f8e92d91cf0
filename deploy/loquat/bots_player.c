#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "deploy/loquat/bots.h"
#include "rpc/pomelo.h"

/* ---- the end ------------------------------------------------------------------------------------------------ */

void bot_close(struct bot *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	p->waits_out = false;
	p->heartbeat_ns = 0;
	buf_release(&p->in);
	buf_release(&p->out);
}

void bot_fail(struct bots *b, struct bot *p, const char *fmt, ...)
{
	char text[sizeof b->reason->text];
	va_list args;
	unsigned i = 0;

	if (p->stage == BOT_FAILED)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	while (i < b->reasons && strcmp(b->reason[i].text, text))
		i++;
	if (i == BOTS_REASONS_MAX)
		i--; /* the last one stands for the rest */
	if (i == b->reasons)
		memcpy(b->reason[b->reasons++].text, text, sizeof text);
	b->reason[i].count++;
	b->failed++;
	b->login_failed += p->stage < BOT_PLAYS;
	p->stage = BOT_FAILED;
	bot_close(p);
}

/* ---- output -------------------------------------------------------------------------------------------------- */

static void watch(struct bots *b, struct bot *p, int how)
{
	struct epoll_event e = { .events = p->waits_out ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = p };

	epoll_ctl(b->epoll, how, p->fd, &e);
}

static void package(struct bot *p, enum pomelo_type type, const char *body)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, type, strlen(body));
	buf_add(&p->out, head, sizeof head);
	buf_addstr(&p->out, body);
}

void bot_request(struct bot *p, uint32_t id, const char *route, const char *body, size_t n)
{
	p->out.len +=
		pomelo_request_head(buf_reserve(&p->out, POMELO_MESSAGE_HEAD_MAX), id, 0, route, strlen(route), n);
	buf_add(&p->out, body, n);
}

void bot_flush(struct bots *b, struct bot *p)
{
	while (p->out.len) {
		ssize_t n = send(p->fd, p->out.data, p->out.len, MSG_NOSIGNAL);

		if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
			break;
		if (n < 0 && errno != EINTR) {
			bot_fail(b, p, "disconnected: %s", strerror(errno));
			return;
		}
		buf_consume(&p->out, n > 0 ? (size_t)n : 0);
	}
	if (p->waits_out != (p->out.len > 0)) {
		p->waits_out = p->out.len > 0;
		watch(b, p, EPOLL_CTL_MOD);
	}
}

void bot_heartbeat(struct bots *b, struct bot *p, uint64_t now)
{
	if (p->fd < 0 || !p->heartbeat_ns || now < p->heartbeat_due_ns)
		return;
	p->heartbeat_due_ns = now + p->heartbeat_ns;
	package(p, POMELO_HEARTBEAT, "");
	bot_flush(b, p);
}

void bot_connect(struct bots *b, struct bot *p)
{
	const char *host = p->port ? p->host : route_client_host(b->gate[p->index % b->gates]);
	uint16_t port = p->port ? p->port : b->gate[p->index % b->gates]->client_port;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int on = 1;

	p->stage = p->port ? BOT_SHAKE : BOT_GATE_SHAKE;
	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0 || inet_pton(AF_INET, host, &to.sin_addr) != 1) {
		bot_fail(b, p, p->fd < 0 ? "no socket: %s" : "%s is no address", p->fd < 0 ? strerror(errno) : host);
		return;
	}
	setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(p->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS) {
		bot_fail(b, p, "cannot connect to port %u: %s", port, strerror(errno));
		return;
	}
	p->waits_out = true; /* what is said now leaves when the connection stands */
	package(p, POMELO_HANDSHAKE, "{\"sys\":{\"type\":\"loquat-bots\",\"version\":\"1\"},\"user\":{}}");
	watch(b, p, EPOLL_CTL_ADD);
}

/* ---- login: each answer is followed by the next question --------------------------------------------------------- */

static void next_step(struct bot *p, enum bot_stage stage, const char *route, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
static void next_step(struct bot *p, enum bot_stage stage, const char *route, const char *fmt, ...)
{
	char body[2048];
	va_list args;

	va_start(args, fmt);
	int n = vsnprintf(body, sizeof body, fmt, args);
	va_end(args);
	p->stage = stage;
	bot_request(p, stage, route, body, (size_t)n);
}

static void shaken(struct bots *b, struct bot *p, const json_t *o)
{
	const json_t *sys = json_object_get(o, "sys");

	if (json_integer_value(json_object_get(o, "code")) != 200) {
		bot_fail(b, p, "handshake refused");
		return;
	}
	p->heartbeat_ns = (uint64_t)(json_number_value(json_object_get(sys, "heartbeat")) * 1e9);
	p->heartbeat_due_ns = bots_now_ns() + p->heartbeat_ns;
	package(p, POMELO_ACK, "");
	if (p->stage == BOT_GATE_SHAKE)
		next_step(p, BOT_GATE_QUERY, "gate.gateHandler.queryEntry", "{\"uid\":\"bot-%s-%u\"}", b->run,
			  p->index);
	else
		next_step(p, BOT_ENTER, "connector.entryHandler.enter", "{\"token\":\"%s\",\"rid\":\"bots-%s-%u\"}",
			  p->token, b->run, p->index / b->o.room);
}

/* The gate names a connector, in queryEntry's answer or in onAdmit. */
static void admitted(struct bots *b, struct bot *p, const json_t *o)
{
	const char *host = json_string_value(json_object_get(o, "host"));
	const char *token = json_string_value(json_object_get(o, "token"));

	p->port = (uint16_t)json_integer_value(json_object_get(o, "port"));
	if (!host || !token || !p->port) {
		bot_fail(b, p, "queryEntry: no host, port and token");
		return;
	}
	bot_close(p);
	snprintf(p->host, sizeof p->host, "%s", host);
	free(p->token);
	p->token = strdup(token);
	bot_connect(b, p);
}

static void plays(struct bots *b, struct bot *p, const char *body, size_t n)
{
	uint64_t took = bots_now_ns() - p->login_ns;

	if (!bots_placed(b, p, body, n)) {
		bot_fail(b, p, "scene.enter: no place in its answer");
		return;
	}
	p->stage = BOT_PLAYS;
	free(p->token);
	p->token = NULL;
	b->logged_in++;
	if (took > b->login_ns_max)
		b->login_ns_max = took;
}

static const char *stage_name(enum bot_stage stage)
{
	static const char *const name[] = {
		[BOT_GATE_SHAKE] = "the gate's handshake",
		[BOT_GATE_QUERY] = "queryEntry",
		[BOT_SHAKE] = "handshake",
		[BOT_ENTER] = "enter",
		[BOT_SCENE] = "scene.enter",
		[BOT_PLAYS] = "playing",
	};
	return name[stage] ? name[stage] : "nothing";
}

static void answered(struct bots *b, struct bot *p, const json_t *o, const char *body, size_t n)
{
	int code = (int)json_integer_value(json_object_get(o, "code"));
	const char *message = json_string_value(json_object_get(o, "message"));

	if (p->stage == BOT_GATE_QUERY && code == 202)
		return; /* in the queue: onAdmit comes */
	if (code != 200)
		bot_fail(b, p, "%s: %d %s", stage_name(p->stage), code, message ? message : "");
	else if (p->stage == BOT_GATE_QUERY)
		admitted(b, p, o);
	else if (p->stage == BOT_ENTER)
		next_step(p, BOT_SCENE, "scene.sceneHandler.enter", "{\"scene\":%u}", 1 + p->index % b->scenes);
	else
		plays(b, p, body, n);
}

static void login_message(struct bots *b, struct bot *p, const struct pomelo_message *m)
{
	json_t *o = json_loadb(m->body, m->n, 0, NULL);

	if (m->kind == POMELO_RESPONSE && m->id == (uint32_t)p->stage)
		answered(b, p, o, m->body, m->n);
	else if (m->kind == POMELO_RESPONSE)
		bot_fail(b, p, "%s: an answer to nothing", stage_name(p->stage));
	else if (m->route_n == 7 && !memcmp(m->route, "onAdmit", 7))
		admitted(b, p, o);
	else if (m->route_n == 7 && !memcmp(m->route, "onQueue", 7))
		p->login_due_ns = bots_now_ns() + BOTS_LOGIN_NS;
	json_decref(o);
}

/* ---- input --------------------------------------------------------------------------------------------------------- */

static void push(struct bots *b, struct bot *p, const struct pomelo_message *m)
{
	b->pushes++;
	b->push_bytes += m->n;
	if (m->route_n == 13 && !memcmp(m->route, "onSceneUpdate", 13)) {
		b->updates++;
		sight_update(&p->sight, m->body, m->n);
	}
}

static void data(struct bots *b, struct bot *p, const char *body, size_t n)
{
	struct pomelo_message m;

	if (pomelo_message_read(body, n, &m) < 0)
		bot_fail(b, p, "a message that is none");
	else if (p->stage != BOT_PLAYS)
		login_message(b, p, &m);
	else if (m.kind == POMELO_RESPONSE)
		bots_answer(b, p, m.id, m.body, m.n);
	else
		push(b, p, &m);
}

static void kicked(struct bots *b, struct bot *p, const char *body, size_t n)
{
	json_t *o = json_loadb(body, n, 0, NULL);
	const char *reason = json_string_value(json_object_get(o, "reason"));

	bot_fail(b, p, "kicked while %s: %s", stage_name(p->stage), reason ? reason : "no reason");
	json_decref(o);
}

static void take(struct bots *b, struct bot *p, int type, const char *body, size_t n)
{
	bool shaking = p->stage == BOT_GATE_SHAKE || p->stage == BOT_SHAKE;

	if (type == POMELO_DATA && !shaking) {
		data(b, p, body, n);
	} else if (type == POMELO_HANDSHAKE && shaking) {
		json_t *o = json_loadb(body, n, 0, NULL);
		shaken(b, p, o);
		json_decref(o);
	} else if (type == POMELO_KICK) {
		kicked(b, p, body, n);
	} else if (type != POMELO_HEARTBEAT) {
		bot_fail(b, p, "a package of type %d while %s", type, stage_name(p->stage));
	}
}

/* Takes the whole packages; how many bytes they had. Stops when the connection is another or none. */
static size_t packages(struct bots *b, struct bot *p, const char *bytes, size_t n)
{
	size_t at = 0;
	int fd = p->fd;

	while (n - at >= POMELO_HEAD && p->fd == fd) {
		const unsigned char *head = (const unsigned char *)bytes + at;
		size_t body = (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];

		if (POMELO_HEAD + body > BOTS_READ_BYTES / 2) {
			bot_fail(b, p, "a package of %zu bytes", body);
			break;
		}
		if (n - at < POMELO_HEAD + body)
			break;
		take(b, p, head[0], bytes + at + POMELO_HEAD, body);
		at += POMELO_HEAD + body;
	}
	return at;
}

static void received(struct bots *b, struct bot *p, size_t n)
{
	int fd = p->fd;

	if (p->in.len) {
		buf_add(&p->in, b->read, n);
		/* moved out: a package may end the connection, and its buffers with it */
		struct buf in = p->in;
		p->in = (struct buf){ 0 };
		size_t used = packages(b, p, in.data, in.len);
		if (p->fd == fd && p->fd >= 0 && used < in.len)
			buf_add(&p->in, in.data + used, in.len - used);
		buf_release(&in);
		return;
	}
	size_t used = packages(b, p, b->read, n);
	if (p->fd == fd && p->fd >= 0 && used < n)
		buf_add(&p->in, b->read + used, n - used);
}

void bot_ready(struct bots *b, struct bot *p, bool readable)
{
	if (p->fd < 0)
		return;
	if (readable) {
		ssize_t n = recv(p->fd, b->read, sizeof b->read, 0);

		if (n > 0)
			received(b, p, (size_t)n);
		else if (n == 0)
			bot_fail(b, p, "disconnected by the server while %s", stage_name(p->stage));
		else if (errno != EAGAIN && errno != EINTR)
			bot_fail(b, p, "disconnected while %s: %s", stage_name(p->stage), strerror(errno));
	}
	if (p->fd >= 0 && (p->out.len || p->waits_out))
		bot_flush(b, p);
}
