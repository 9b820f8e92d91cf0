/*
 * tls_load: a closed loop over TLS: each connection has one request under way. Every answer is looked at.
 *
 * usage: tls_load certs DIR                            writes DIR/players.pem and DIR/players.key
 *        tls_load PORT CONNECTIONS SECONDS ROUTE [login]   prints "answers_per_s N"
 */
#include "tests/bench/tls.h"
#include "tests/support/certs.h"

#include <signal.h>

enum { HELLO, LOGIN, ECHO };
static const char body[] = "{\"x\":1234,\"y\":5678}";

struct load {
	int epoll, connections, ready;
	const char *route;
	bool login;
	uint64_t answers;
};

static void ask(struct tls_end *e, const char *route, const char *text)
{
	uint8_t *p = queue_room(&e->out, WIRE_HEAD_BYTES + WIRE_MESSAGE_HEAD_MAX + strlen(text));
	e->out.len += wire_put_request(p, ++e->id, route, text, strlen(text));
}

static void enter(struct tls_end *e)
{
	char text[80];
	snprintf(text, sizeof text, "{\"username\":\"tls%d\",\"rid\":\"tls%d\"}", e->fd, e->fd);
	ask(e, "connector.entryHandler.enter", text);
}

static void answered(struct load *l, struct tls_end *e, const struct wire_message *m)
{
	if (m->type != WIRE_RESPONSE || m->id != e->id)
		return;
	if (e->stage == LOGIN && !memmem(m->body, m->body_bytes, "\"code\":200", 10))
		die("a login failed: %.*s", (int)m->body_bytes, (const char *)m->body);
	if (e->stage == ECHO && !memmem(m->body, m->body_bytes, "1234", 4))
		die("a wrong answer: %.*s", (int)m->body_bytes, (const char *)m->body);
	l->answers += e->stage == ECHO;
	l->ready += e->stage == LOGIN;
	e->stage = ECHO;
	ask(e, l->route, body);
}

static void take(struct load *l, struct tls_end *e, const uint8_t *p, size_t n)
{
	struct wire_message m;

	if (p[0] == WIRE_KICK)
		die("kicked: %.*s", (int)n, (const char *)p + WIRE_HEAD_BYTES);
	if (p[0] == WIRE_DATA && wire_read_message(p + WIRE_HEAD_BYTES, n, &m)) {
		answered(l, e, &m);
	} else if (p[0] == WIRE_HANDSHAKE) {
		tls_say(e, WIRE_ACK, "", 0);
		tls_say(e, WIRE_HEARTBEAT, "", 0);
		e->stage = l->login ? LOGIN : ECHO;
		l->ready += !l->login;
		if (l->login)
			enter(e);
		else
			ask(e, l->route, body);
	}
}

static void turn(struct load *l)
{
	struct epoll_event events[1024];
	int n = epoll_wait(l->epoll, events, 1024, 100);

	for (int i = 0; i < n; i++) {
		struct tls_end *e = events[i].data.ptr;
		const uint8_t *p;
		size_t bytes;
		if (!e->open && SSL_do_handshake(e->ssl) == 1) {
			e->open = true;
			tls_watch(l->epoll, e, EPOLL_CTL_MOD, EPOLLIN);
			tls_say(e, WIRE_HANDSHAKE, "{\"sys\":{}}", 10);
		}
		if (e->open && !tls_read(e))
			die("a connection was closed");
		while ((p = tls_package(e, &bytes)))
			take(l, e, p, bytes);
		if (e->in.off == e->in.len)
			e->in.off = e->in.len = 0;
		if (e->open && !tls_flush(e))
			die("a connection does not take what is sent");
	}
}

static void beat_all(struct tls_end **all, int n)
{
	for (int i = 0; i < n; i++)
		tls_say(all[i], WIRE_HEARTBEAT, "", 0);
}

int main(int argc, char **argv)
{
	if (argc == 3) {
		struct certs *ca = certs_new(argv[2], "authority");
		certs_sign(ca, argv[2], "players");
		certs_free(ca);
		return 0;
	}
	if (argc < 5)
		die("usage: tls_load PORT CONNECTIONS SECONDS ROUTE [login]");
	struct load l = { epoll_create1(EPOLL_CLOEXEC), atoi(argv[2]), 0, argv[4], argc > 5, 0 };
	struct tls_end **all = calloc((size_t)l.connections, sizeof *all);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	uint64_t give_up = now_ns() + 60000000000u;

	signal(SIGPIPE, SIG_IGN);
	net_raise_files();
	for (int i = 0; i < l.connections; i++) {
		int fd = net_connect("127.0.0.1", atoi(argv[1]));
		if (fd < 0)
			die("port %s refuses", argv[1]);
		all[i] = tls_end_new(ctx, fd, l.epoll, true);
		while (i - l.ready >= 32 && now_ns() < give_up) /* so many are on their way at once */
			turn(&l);
	}
	while (l.ready < l.connections && now_ns() < give_up)
		turn(&l);
	if (l.ready < l.connections)
		die("%d of %d connections are ready after 60 s", l.ready, l.connections);
	for (uint64_t warm = now_ns() + 1000000000u; now_ns() < warm;)
		turn(&l);
	beat_all(all, l.connections);
	l.answers = 0;
	uint64_t from = now_ns(), until = from + (uint64_t)(atof(argv[3]) * 1e9);
	while (now_ns() < until)
		turn(&l);
	printf("answers_per_s %.0f\n", (double)l.answers / ((double)(now_ns() - from) / 1e9));
	return 0;
}
