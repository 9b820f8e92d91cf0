#include "tests/support/ping.h"
#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/loop.h"
#include "common/stream.h"

enum { BYTES_MAX = 65536, ANSWER_MS = 1000, HEADER_MAX = 40, RETRY_MS = 50 };

#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

static void payload(uint64_t seq, char *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = (char)(seq + i);
}

/* One frame at data: its bytes, ERR_INCOMPLETE or ERR_CORRUPT. */
static ssize_t frame(const char *word, const char *data, size_t n, uint64_t *seq, size_t *bytes)
{
	const char *end = memchr(data, '\n', n < HEADER_MAX ? n : HEADER_MAX);
	char header[HEADER_MAX + 1];
	unsigned long long number;
	if (!end)
		return n < HEADER_MAX ? ERR_INCOMPLETE : ERR_CORRUPT;
	memcpy(header, data, (size_t)(end - data));
	header[end - data] = '\0';
	if (strncmp(header, word, 4) != 0 || sscanf(header + 4, " %llu %zu", &number, bytes) != 2 || *bytes > BYTES_MAX)
		return ERR_CORRUPT;
	if (n < (size_t)(end + 1 - data) + *bytes)
		return ERR_INCOMPLETE;
	*seq = number;
	return (end + 1 - data) + (ssize_t)*bytes;
}

static int send_frame(struct stream *s, const char *word, uint64_t seq, const char *body, size_t n)
{
	char header[HEADER_MAX];
	int len = snprintf(header, sizeof(header), "%s %llu %zu\n", word, (unsigned long long)seq, n);
	int err = stream_write(s, header, (size_t)len);
	return err < 0 ? err : stream_write(s, body, n);
}

/* ---- server --------------------------------------------------------------------------------------------------- */

struct ping_server {
	struct loop *loop;
	struct env_listener *listener;
	char host[ENV_ADDR_MAX];
	uint16_t asked;
	_Atomic uint16_t port;
	struct guest *guests;
};
struct guest {
	struct stream stream;
	struct ping_server *server;
	struct guest *next, **prev;
};

static ssize_t guest_data(struct stream *s, const char *data, size_t n)
{
	size_t used = 0, bytes;
	uint64_t seq;
	ssize_t len = 0;
	while (used < n && (len = frame("ping", data + used, n - used, &seq, &bytes)) > 0) {
		used += (size_t)len;
		int err = send_frame(s, "pong", seq, data + used - bytes, bytes);
		if (err < 0)
			return err;
	}
	return len < 0 && len != ERR_INCOMPLETE ? len : (ssize_t)used;
}

static void guest_closed(struct stream *s, int err)
{
	struct guest *g = CONTAINER(s, struct guest, stream);
	(void)err;
	*g->prev = g->next;
	if (g->next)
		g->next->prev = g->prev;
	free(g);
}

static const struct stream_ops guest_ops = { .on_data = guest_data, .on_close = guest_closed };

static void on_accept(void *arg, struct env_conn *conn)
{
	struct ping_server *s = arg;
	struct guest *g = calloc(1, sizeof(*g));
	assert(g);
	g->server = s;
	g->next = s->guests;
	g->prev = &s->guests;
	if (g->next)
		g->next->prev = &g->next;
	s->guests = g;
	stream_accept(&g->stream, s->loop, conn, &guest_ops, 2 * BYTES_MAX, 4 * BYTES_MAX);
}

static void server_start(struct loop *loop, void *arg)
{
	struct ping_server *s = arg;
	int err = env_listen(loop->ev, s->host, s->asked, on_accept, s, &s->listener);
	atomic_store(&s->port, err < 0 ? UINT16_MAX : env_listener_port(s->listener));
}

static void server_stop(struct loop *loop, void *arg)
{
	struct ping_server *s = arg;
	(void)loop;
	env_listener_close(s->listener);
	for (struct guest *g = s->guests; g; g = g->next)
		stream_close(&g->stream, 0);
}

int ping_server_start(struct env *env, const char *host, uint16_t port, struct ping_server **out)
{
	struct ping_server *s = calloc(1, sizeof(*s));
	if (!s)
		return ERR_NOMEM;
	snprintf(s->host, sizeof(s->host), "%s", host);
	s->asked = port;
	int err = loop_start(env, "pong", 0, server_start, server_stop, s, &s->loop);
	if (err < 0)
		free(s);
	else
		*out = s;
	return err;
}

uint16_t ping_server_port(const struct ping_server *s)
{
	return atomic_load(&s->port);
}

void ping_server_stop(struct ping_server *s)
{
	loop_stop(s->loop);
	loop_join(s->loop);
	free(s);
}

/* ---- client ----------------------------------------------------------------------------------------------------- */

struct ping_client {
	struct loop *loop;
	struct stream stream;
	struct timer next, late;
	char host[ENV_ADDR_MAX];
	uint16_t port;
	uint32_t interval_ms, bytes_max;
	struct ping_counts *counts;
	uint64_t seq;
	size_t bytes;
	bool connected, waiting, stopping;
	char body[BYTES_MAX];
};

static void client_connect(struct ping_client *c);

static ssize_t client_data(struct stream *s, const char *data, size_t n)
{
	struct ping_client *c = CONTAINER(s, struct ping_client, stream);
	uint64_t seq;
	size_t bytes;
	ssize_t len = frame("pong", data, n, &seq, &bytes);
	if (len == ERR_INCOMPLETE)
		return 0;
	if (len < 0 || !c->waiting || seq != c->seq || bytes != c->bytes ||
	    memcmp(data + len - (ssize_t)bytes, c->body, bytes) != 0) {
		c->counts->wrong++;
		return ERR_CORRUPT;
	}
	c->waiting = false;
	c->counts->answered++;
	loop_timer_stop(c->loop, &c->late);
	loop_timer(c->loop, &c->next, c->interval_ms);
	return len;
}

static void send_ping(struct timer *t, uint64_t now_ms)
{
	struct ping_client *c = CONTAINER(t, struct ping_client, next);
	uint32_t chance;
	(void)now_ms;
	if (!c->connected) {
		client_connect(c);
		return;
	}
	env_random(c->loop->env, &chance, sizeof(chance));
	c->seq++;
	c->bytes = chance % (c->bytes_max + 1);
	payload(c->seq, c->body, c->bytes);
	c->waiting = true;
	c->counts->sent++;
	send_frame(&c->stream, "ping", c->seq, c->body, c->bytes);
	loop_timer(c->loop, &c->late, ANSWER_MS);
}

static void answer_late(struct timer *t, uint64_t now_ms)
{
	struct ping_client *c = CONTAINER(t, struct ping_client, late);
	(void)now_ms;
	stream_close(&c->stream, ERR_TIMEOUT);
}

static void client_open(struct stream *s)
{
	struct ping_client *c = CONTAINER(s, struct ping_client, stream);
	c->connected = true;
	loop_timer_stop(c->loop, &c->late);
	loop_timer(c->loop, &c->next, 0);
}

static void client_closed(struct stream *s, int err)
{
	struct ping_client *c = CONTAINER(s, struct ping_client, stream);
	(void)err;
	c->counts->lost += c->waiting;
	c->connected = c->waiting = false;
	loop_timer_stop(c->loop, &c->late);
	if (!c->stopping)
		loop_timer(c->loop, &c->next, RETRY_MS);
}

static const struct stream_ops client_ops = { .on_data = client_data,
					      .on_open = client_open,
					      .on_close = client_closed };

static void client_connect(struct ping_client *c)
{
	c->counts->connects++;
	if (stream_connect(&c->stream, c->loop, c->host, c->port, &client_ops, 2 * BYTES_MAX, 2 * BYTES_MAX) < 0)
		loop_timer(c->loop, &c->next, RETRY_MS);
	else
		loop_timer(c->loop, &c->late, ANSWER_MS);
}

static void client_start(struct loop *loop, void *arg)
{
	struct ping_client *c = arg;
	c->loop = loop;
	c->next.fire = send_ping;
	c->late.fire = answer_late;
	client_connect(c);
}

static void client_stop(struct loop *loop, void *arg)
{
	struct ping_client *c = arg;
	c->stopping = true;
	loop_timer_stop(loop, &c->next);
	stream_close(&c->stream, 0);
	loop_timer_stop(loop, &c->late);
}

int ping_client_start(struct env *env, const char *host, uint16_t port, uint32_t interval_ms, uint32_t bytes_max,
		      struct ping_counts *counts, struct ping_client **out)
{
	struct ping_client *c = calloc(1, sizeof(*c));
	assert(bytes_max < BYTES_MAX);
	if (!c)
		return ERR_NOMEM;
	snprintf(c->host, sizeof(c->host), "%s", host);
	c->port = port;
	c->interval_ms = interval_ms;
	c->bytes_max = bytes_max;
	c->counts = counts;
	int err = loop_start(env, "ping", 0, client_start, client_stop, c, &c->loop);
	if (err < 0)
		free(c);
	else
		*out = c;
	return err;
}

void ping_client_stop(struct ping_client *c)
{
	loop_stop(c->loop);
	loop_join(c->loop);
	free(c);
}
