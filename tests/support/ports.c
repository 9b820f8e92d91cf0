#include "tests/support/ports.h"
#include <arpa/inet.h>
#include <check.h>
#include <sys/socket.h>
#include <unistd.h>

uint16_t ports_hold(struct ports *p)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t n = sizeof a;
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_uint_lt(p->n, PORTS_MAX);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &n), 0);
	p->fd[p->n++] = fd;
	return ntohs(a.sin_port);
}

void ports_release(struct ports *p)
{
	while (p->n)
		close(p->fd[--p->n]);
}
