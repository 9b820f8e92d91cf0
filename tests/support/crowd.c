#include "tests/support/crowd.h"
#include <jansson.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/token.h"
#include "gate/gate.h"
#include "rpc/pomelo.h"

#define QUERY "gate.gateHandler.queryEntry"
#define ENTER "connector.entryHandler.enter"

static struct crowd_member *of_stream(struct stream *s)
{
	return (struct crowd_member *)((char *)s - offsetof(struct crowd_member, stream));
}

static unsigned index_of(const struct crowd_member *m)
{
	return (unsigned)(m - m->crowd->member);
}

static uint32_t now_ms(const struct crowd *c)
{
	return (uint32_t)(c->loop->now_ms - c->start_ms);
}

static uint32_t lot(struct crowd *c, uint32_t below)
{
	c->lot = c->lot * 1664525u + 1013904223u;
	return below ? (uint32_t)((uint64_t)c->lot * below >> 32) : 0;
}

/* ---- what is said ------------------------------------------------------------------------------------------------ */

static void package(struct crowd_member *m, enum pomelo_type type, const char *body)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, type, strlen(body));
	stream_write(&m->stream, head, sizeof(head));
	stream_write(&m->stream, body, strlen(body));
}

static void request(struct crowd_member *m, const char *route, const char *name, const char *value)
{
	char head[POMELO_MESSAGE_HEAD_MAX], body[TOKEN_MAX + 40];
	int n = snprintf(body, sizeof(body), "{\"%s\":\"%s\"}", name, value);

	size_t head_n = pomelo_request_head(head, 1, 0, route, strlen(route), (size_t)n);
	stream_write(&m->stream, head, head_n);
	stream_write(&m->stream, body, (size_t)n);
}

static uint64_t wall_ms(const struct crowd *c)
{
	return env_wall_us(c->loop->env) / 1000;
}

static void speak(struct crowd_member *m)
{
	char uid[24];

	m->asked_ms = wall_ms(m->crowd);
	snprintf(uid, sizeof(uid), "p%u", index_of(m));
	if (m->state == CROWD_AT_CONNECTOR)
		request(m, ENTER, "token", m->token);
	else if (m->ticket)
		request(m, QUERY, "ticket", m->ticket);
	else
		request(m, QUERY, "uid", uid);
}

/* Leaves what it is at; its timer fires when it comes to what is next. */
static void leave(struct crowd_member *m, uint32_t pause_ms)
{
	if (m->streaming)
		stream_close(&m->stream, 0);
	loop_timer(m->crowd->loop, &m->timer, pause_ms);
}

static void come_back(struct crowd_member *m)
{
	m->state = CROWD_AWAY;
	m->gate = (m->gate + 1) % m->crowd->o.gates;
	leave(m, 50 + lot(m->crowd, m->crowd->o.back_ms));
}

static void finish(struct crowd_member *m)
{
	m->state = CROWD_DONE;
	if (m->streaming)
		stream_close(&m->stream, 0);
	__atomic_add_fetch(&m->crowd->done, 1, __ATOMIC_RELEASE);
}

/* ---- what is heard ------------------------------------------------------------------------------------------------- */

static void keep(char **at, const char *text)
{
	free(*at);
	*at = strdup(text);
}

/* A token's or ticket's n-th line, of which the first is its kind and the second its expiry. */
static uint64_t line_of(const char *token, unsigned n)
{
	char text[TOKEN_MAX];
	size_t len = 0;
	uint32_t bits = 0;
	int have = 0;

	for (const char *p = token; *p && *p != '.' && len + 1 < sizeof(text); p++) {
		static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
		bits = bits << 6 | (uint32_t)(strchr(digits, *p) - digits);
		if ((have += 6) >= 8)
			text[len++] = (char)(bits >> (have -= 8));
	}
	text[len] = '\0';
	const char *at = text;
	for (; n && at; n--)
		at = (at = strchr(at, '\n')) ? at + 1 : NULL;
	return at ? strtoull(at, NULL, 10) : 0;
}

static void admitted(struct crowd_member *m, const json_t *o)
{
	struct crowd *c = m->crowd;

	keep(&m->token, json_string_value(json_object_get(o, "token")));
	m->port = (uint16_t)json_integer_value(json_object_get(o, "port"));
	m->admitted_ms = line_of(m->token, 1) - GATE_ADMIT_MS;
	if (!m->admit_no)
		m->admit_no = ++c->admitted;
	c->admit_ms[index_of(m)] = now_ms(c);
	m->state = CROWD_AT_CONNECTOR;
	if (c->o.enters)
		leave(m, 0);
	else
		finish(m);
}

static void told(struct crowd_member *m, const json_t *o)
{
	struct crowd *c = m->crowd;

	m->tells++;
	if (c->tells == c->tells_max)
		return;
	c->tell[c->tells++] = (struct crowd_tell){
		.asked_ms = m->asked_ms,
		.heard_ms = wall_ms(c),
		.member = index_of(m),
		.ms = now_ms(c),
		.admitted = c->admitted,
		.position = (uint32_t)json_integer_value(json_object_get(o, "position")),
		.eta_s = (uint32_t)json_integer_value(json_object_get(o, "eta")),
	};
}

static void forget_ticket(struct crowd_member *m)
{
	free(m->ticket);
	m->ticket = NULL;
}

static void answered_at_gate(struct crowd_member *m, const json_t *o)
{
	struct crowd *c = m->crowd;
	json_int_t code = json_integer_value(json_object_get(o, "code"));

	if (code == 200) {
		admitted(m, o);
	} else if (code == 202) {
		keep(&m->ticket, json_string_value(json_object_get(o, "ticket")));
		c->queued += !m->since_us;
		m->since_us = line_of(m->ticket, 6);
	} else {
		c->places_lost += m->ticket && code == 404;
		if (code == 404)
			forget_ticket(m);
		come_back(m);
	}
}

static void answered_at_connector(struct crowd_member *m, const json_t *o)
{
	struct crowd *c = m->crowd;

	if (json_integer_value(json_object_get(o, "code")) != 200) {
		c->refused++;
		come_back(m);
		return;
	}
	m->in = true;
	c->entered++;
	c->in++;
	c->in_most = c->in > c->in_most ? c->in : c->in_most;
	loop_timer(c->loop, &m->timer, c->o.stay_ms / 2 + lot(c, c->o.stay_ms));
}

static void message(struct crowd_member *m, const struct pomelo_message *got)
{
	json_t *o = json_loadb(got->body, got->n, 0, NULL);

	if (got->kind == POMELO_PUSH && m->state == CROWD_AT_GATE && strncmp(got->route, "onAdmit", 7) == 0)
		admitted(m, o);
	else if (got->kind == POMELO_PUSH && m->state == CROWD_AT_GATE && strncmp(got->route, "onQueue", 7) == 0)
		told(m, o);
	else if (got->kind == POMELO_RESPONSE && m->state == CROWD_AT_GATE)
		answered_at_gate(m, o);
	else if (got->kind == POMELO_RESPONSE && m->state == CROWD_AT_CONNECTOR)
		answered_at_connector(m, o);
	json_decref(o);
}

static void on_package(struct crowd_member *m, enum pomelo_type type, const char *p, size_t n)
{
	struct pomelo_message got;

	if (type == POMELO_HANDSHAKE) {
		package(m, POMELO_ACK, "");
		speak(m);
	} else if (type == POMELO_HEARTBEAT) {
		package(m, POMELO_HEARTBEAT, "");
	} else if (type == POMELO_DATA && pomelo_message_read(p, n, &got) == 0) {
		message(m, &got);
	}
}

static ssize_t on_data(struct stream *s, const char *data, size_t n)
{
	size_t at = 0;

	while (n - at >= POMELO_HEAD && !s->closing) {
		const uint8_t *h = (const uint8_t *)data + at;
		size_t body_n = (size_t)h[1] << 16 | (size_t)h[2] << 8 | h[3];
		if (n - at < POMELO_HEAD + body_n)
			break;
		on_package(of_stream(s), (enum pomelo_type)h[0], data + at + POMELO_HEAD, body_n);
		at += POMELO_HEAD + body_n;
	}
	return (ssize_t)at;
}

/* ---- comings and goings ---------------------------------------------------------------------------------------------- */

static void on_open(struct stream *s)
{
	package(of_stream(s), POMELO_HANDSHAKE, "{\"sys\":{}}");
}

static void on_close(struct stream *s, int err)
{
	struct crowd_member *m = of_stream(s);

	(void)err;
	m->streaming = false;
	if (m->state == CROWD_AT_GATE) {
		m->crowd->lost_gates++;
		come_back(m);
	} else if (m->state == CROWD_AT_CONNECTOR && !timer_running(&m->timer)) {
		m->crowd->refused++;
		come_back(m);
	}
}

static const struct stream_ops ops = { .on_data = on_data, .on_open = on_open, .on_close = on_close };

static void on_timer(struct timer *t, uint64_t now)
{
	struct crowd_member *m = (struct crowd_member *)((char *)t - offsetof(struct crowd_member, timer));
	struct crowd *c = m->crowd;

	(void)now;
	if (m->in) {
		m->in = false;
		c->in--;
		finish(m);
		return;
	}
	if (m->streaming) { /* its close is on its way */
		loop_timer(c->loop, t, 1);
		return;
	}
	if (m->state == CROWD_AWAY) {
		m->state = CROWD_AT_GATE;
		c->came++;
	}
	uint16_t port = m->state == CROWD_AT_CONNECTOR ? m->port : c->o.gate[m->gate];
	if (stream_connect(&m->stream, c->loop, c->o.host, port, &ops, 100000, 100000) == 0)
		m->streaming = true;
	else
		come_back(m);
}

struct crowd *crowd_new(const struct crowd_options *o)
{
	struct crowd *c = calloc(1, sizeof(*c));

	c->o = *o;
	c->lot = 4711;
	c->member = calloc(o->members, sizeof(*c->member));
	c->admit_ms = calloc(o->members, sizeof(*c->admit_ms));
	c->tells_max = o->members * 40ul;
	c->tell = calloc(c->tells_max, sizeof(*c->tell));
	return c;
}

void crowd_free(struct crowd *c)
{
	for (unsigned i = 0; i < c->o.members; i++) {
		free(c->member[i].ticket);
		free(c->member[i].token);
	}
	free(c->member);
	free(c->admit_ms);
	free(c->tell);
	free(c);
}

#define TICK_MS 20
static void on_tick(struct timer *t, uint64_t now)
{
	struct crowd *c = (struct crowd *)((char *)t - offsetof(struct crowd, tick));

	if (now - c->tick_ms > c->stall_ms)
		c->stall_ms = now - c->tick_ms;
	c->tick_ms = now;
	if (!crowd_done(c))
		loop_timer(c->loop, t, TICK_MS);
}

void crowd_start(struct crowd *c, struct loop *loop)
{
	c->loop = loop;
	c->start_ms = c->tick_ms = loop->now_ms;
	c->tick.fire = on_tick;
	loop_timer(loop, &c->tick, TICK_MS);
	for (unsigned i = 0; i < c->o.members; i++) {
		struct crowd_member *m = &c->member[i];
		m->crowd = c;
		m->gate = i % c->o.gates;
		m->timer.fire = on_timer;
		loop_timer(loop, &m->timer, (uint64_t)c->o.arrive_ms * i / c->o.members);
	}
}

bool crowd_done(const struct crowd *c)
{
	return __atomic_load_n(&c->done, __ATOMIC_ACQUIRE) == c->o.members;
}

/* ---- judging ------------------------------------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void spread(double *v, size_t n, double *median, double *p99)
{
	qsort(v, n, sizeof(*v), by_value);
	*median = n ? v[n / 2] : 0;
	*p99 = n ? v[(n - 1) * 99 / 100] : 0;
}

static int by_since(const void *a, const void *b)
{
	const struct crowd_member *x = *(struct crowd_member *const *)a, *y = *(struct crowd_member *const *)b;

	return x->since_us < y->since_us ? -1 : x->since_us > y->since_us;
}

static uint64_t inversion(const struct crowd *c)
{
	struct crowd_member **line = calloc(c->o.members, sizeof(*line));
	uint64_t latest = 0, worst = 0;
	size_t n = 0;

	for (unsigned i = 0; i < c->o.members; i++)
		if (c->member[i].since_us && c->member[i].admitted_ms)
			line[n++] = &c->member[i];
	qsort(line, n, sizeof(*line), by_since);
	for (size_t i = 0; i < n; i++) {
		if (line[i]->admitted_ms > latest)
			latest = line[i]->admitted_ms;
		else if (latest - line[i]->admitted_ms > worst)
			worst = latest - line[i]->admitted_ms;
	}
	free(line);
	return worst;
}

static unsigned ahead_at(const struct crowd *c, const struct crowd_member *m, uint64_t ms)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->o.members; i++) {
		const struct crowd_member *o = &c->member[i];
		n += o->since_us && o->since_us < m->since_us && o->admitted_ms > ms;
	}
	return n;
}

unsigned crowd_false(const struct crowd *c, uint32_t until_ms, unsigned *judged)
{
	unsigned wrong = 0;

	*judged = 0;
	for (size_t i = 0; i < c->tells; i++) {
		const struct crowd_tell *t = &c->tell[i];
		const struct crowd_member *m = &c->member[t->member];
		if (t->ms > until_ms)
			continue;
		(*judged)++;
		wrong += t->position - 1 > ahead_at(c, m, t->asked_ms) || t->position - 1 < ahead_at(c, m, t->heard_ms);
	}
	return wrong;
}

void crowd_judge(const struct crowd *c, uint32_t from_ms, struct crowd_judgement *out)
{
	double *position = calloc(c->tells + 1, sizeof(double)), *eta = calloc(c->tells + 1, sizeof(double));
	size_t n = 0, pushes = 0;

	for (unsigned i = 0; i < c->o.members; i++)
		pushes += c->member[i].tells;
	for (size_t i = 0; i < c->tells; i++) {
		const struct crowd_tell *t = &c->tell[i];
		const struct crowd_member *m = &c->member[t->member];
		if (t->ms < from_ms || !m->admit_no || m->admit_no <= t->admitted)
			continue;
		double ahead = m->admit_no - t->admitted, took = (c->admit_ms[t->member] - t->ms) / 1000.0;
		double off = fabs(took - t->eta_s), moved = fabs(ahead - t->position);
		position[n] = moved < 3.5 ? 0 : (moved - 3) / ahead;
		eta[n] = off < 1 ? 0 : (off - 1) / (took > 0.1 ? took : 0.1);
		n++;
	}
	*out = (struct crowd_judgement){ .judged = (unsigned)n,
					 .tells_mean = (double)pushes / c->o.members,
					 .inversion_ms = inversion(c) };
	spread(position, n, &out->position_median, &out->position_p99);
	spread(eta, n, &out->eta_median, &out->eta_p99);
	free(position);
	free(eta);
}
