#include "tests/support/stranger.h"
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "rpc/pomelo.h"
#include "tests/support/clock.h"

int stranger_dial(struct stranger *s)
{
	struct sockaddr_in from = { .sin_family = AF_INET }, to = { .sin_family = AF_INET };
	struct timeval wait = { .tv_sec = 2 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	from.sin_addr.s_addr = htonl(0x7f000100u + s->address);
	to.sin_addr.s_addr = s->host;
	to.sin_port = htons(s->port);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
	s->dials++;
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

void stranger_look(struct stranger *s, int ms)
{
	char bytes[65536];
	uint64_t until = clock_ms() + (uint64_t)ms;

	while (!s->over) {
		uint64_t now = clock_ms();
		struct pollfd p = { .fd = s->fd, .events = POLLIN };
		if (poll(&p, 1, now < until ? (int)(until - now) : 0) <= 0)
			return;
		ssize_t n = recv(s->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n > 0 && s->counting)
			s->said += (size_t)n;
		if (n > 0 && s->awaits)
			s->heard |= memmem(bytes, (size_t)n, s->awaits, strlen(s->awaits)) != NULL;
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			s->over = true;
	}
}

bool stranger_out(struct stranger *s, const void *bytes, size_t n)
{
	if (!s->over && send(s->fd, bytes, n, MSG_NOSIGNAL) < 0 && errno != EAGAIN)
		s->over = true;
	s->sends += !s->over;
	s->bytes += s->over ? 0 : n;
	return !s->over && clock_ms() < s->until;
}

void stranger_package(struct stranger *s, int type, const void *body, size_t n)
{
	char head[POMELO_HEAD];

	pomelo_package_head(head, (enum pomelo_type)type, n);
	stranger_out(s, head, sizeof(head));
	if (n)
		stranger_out(s, body, n);
}

void stranger_request(struct stranger *s, uint32_t id, const char *route, const char *body, size_t n)
{
	char whole[POMELO_MESSAGE_HEAD_MAX + 65536];
	size_t head = pomelo_request_head(whole, id, 0, route, strlen(route), n);

	memcpy(whole + head, body, n);
	stranger_out(s, whole, head + n);
}

void stranger_ask(struct stranger *s, const char *route, const char *body)
{
	stranger_request(s, 1, route, body, strlen(body));
}

void stranger_shake(struct stranger *s)
{
	static const char hello[] = "{\"sys\":{\"type\":\"attack\",\"version\":\"1\",\"libVersion\":\"1\"}}";

	stranger_package(s, POMELO_HANDSHAKE, hello, sizeof(hello) - 1);
	stranger_look(s, 300);
	stranger_package(s, POMELO_ACK, NULL, 0);
	stranger_look(s, 50);
	s->counting = true;
}

void stranger_upgrade(struct stranger *s)
{
	static const char text[] = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
				   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

	stranger_out(s, text, sizeof(text) - 1);
	stranger_look(s, 300);
	s->counting = true;
}

void stranger_repeat(struct stranger *s, const void *bytes, size_t n, unsigned times)
{
	for (unsigned i = 0; i < times && stranger_out(s, bytes, n); i++)
		if (i % 64 == 63)
			stranger_look(s, 0);
}

void stranger_frames(struct stranger *s, const void *bytes, size_t n, unsigned times)
{
	stranger_upgrade(s);
	stranger_repeat(s, bytes, n, times);
}
