/*
 * tls_echo: the limit of a connector behind TLS: bare epoll and OpenSSL as a server, the pomelo protocol, each request
 * answered with its own body. The same settings of OpenSSL as Loquat's.
 *
 * usage: tls_echo CERT KEY     prints "port N pids P" when it listens
 */
#include "tests/bench/tls.h"

#include <signal.h>
#include <sys/prctl.h>

static void take(struct tls_end *e, const uint8_t *p, size_t body)
{
	static const char hello[] = "{\"code\":200,\"sys\":{\"heartbeat\":10}}";
	struct wire_message m;

	if (p[0] == WIRE_HANDSHAKE)
		tls_say(e, WIRE_HANDSHAKE, hello, sizeof hello - 1);
	else if (p[0] == WIRE_ACK || p[0] == WIRE_HEARTBEAT)
		tls_say(e, WIRE_HEARTBEAT, "", 0);
	else if (p[0] == WIRE_DATA && wire_read_message(p + WIRE_HEAD_BYTES, body, &m) && m.id) {
		uint8_t *room = queue_room(&e->out, WIRE_HEAD_BYTES + 6 + m.body_bytes);
		e->out.len += wire_put_response(room, m.id, m.body, m.body_bytes);
	}
}

static void serve(int epoll, struct tls_end *e)
{
	const uint8_t *p;
	size_t body;
	bool alive = tls_read(e); /* shakes hands, too */

	while ((p = tls_package(e, &body)))
		take(e, p, body);
	if (e->in.off == e->in.len)
		e->in.off = e->in.len = 0;
	if (alive && tls_flush(e))
		return;
	epoll_ctl(epoll, EPOLL_CTL_DEL, e->fd, NULL);
	close(e->fd);
	SSL_free(e->ssl);
	queue_free(&e->in);
	queue_free(&e->out);
	free(e);
}

int main(int argc, char **argv)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	struct epoll_event events[1024], listening = { .events = EPOLLIN };
	int port = 0, fd;

	if (argc != 3 || SSL_CTX_use_certificate_chain_file(ctx, argv[1]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, argv[2], SSL_FILETYPE_PEM) != 1)
		die("usage: tls_echo CERT KEY");
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
	net_raise_files();
	int listener = net_listen(&port), epoll = epoll_create1(EPOLL_CLOEXEC);
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening);
	printf("port %d pids %d\n", port, (int)getpid());
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epoll, events, 1024, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr) {
				serve(epoll, events[i].data.ptr);
				continue;
			}
			while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
				net_nodelay(fd);
				tls_end_new(ctx, fd, epoll, false);
			}
		}
	}
}
