/*
 * echo_epoll: the limit of the connector: the least a process can do that speaks the pomelo protocol
 * and answers each request with its own body. One thread, bare epoll, no logic; reads all that is
 * ready, writes once per client and turn.
 *
 * usage: echo_epoll [PORT]     prints "port N pids P" when it listens
 */
#include "tests/bench/client.h"

#include <signal.h>
#include <sys/prctl.h>

static void echo(void *owner, struct client *c, const struct wire_message *m)
{
	(void)owner;
	uint8_t *p = queue_room(&c->out, WIRE_HEAD_BYTES + 6 + m->body_bytes);
	c->out.len += wire_put_response(p, m->id, m->body, m->body_bytes);
}

static void turn(struct clients *all)
{
	struct epoll_event events[1024];
	int count = epoll_wait(all->epoll, events, 1024, -1);
	for (int i = 0; i < count; i++) {
		struct client *c = events[i].data.ptr;
		if (!c)
			clients_accept(all);
		else if (client_read(all, c, echo, NULL))
			client_flush(all, c);
	}
}

int main(int argc, char **argv)
{
	int port = argc > 1 ? atoi(argv[1]) : 0;
	struct clients *all = calloc(1, sizeof *all);
	if (!all)
		die("no memory");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	net_raise_files();
	clients_open(all, &port);
	printf("port %d pids %d\n", port, (int)getpid());
	fflush(stdout);
	for (;;)
		turn(all);
}
