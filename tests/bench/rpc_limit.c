/*
 * rpc_limit: the limit of calls between two processes: bare epoll, 8 bytes of header, 50 of body, no table, no deadline, no
 * routing. Each side reads all that is there, handles it, and writes once.
 *
 * usage: rpc_limit --flight N --seconds S [--poll]     --poll: neither side ever sleeps
 */
#include "tests/bench/net.h"
#include "tests/bench/rpc_load.h"

#include <sys/epoll.h>

struct message {
	uint32_t bytes, id;
	char body[LOAD_BODY];
} __attribute__((packed));

struct end {
	int fd, epoll, timeout_ms;
	struct queue in, out;
};

static void end_open(struct end *e, int fd, bool poll)
{
	struct epoll_event ev = { .events = EPOLLIN };
	*e = (struct end){ .fd = fd, .epoll = epoll_create1(EPOLL_CLOEXEC), .timeout_ms = poll ? 0 : -1 };
	net_nodelay(fd);
	if (epoll_ctl(e->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

/* One read; false: the other side has gone. */
static bool end_read(struct end *e)
{
	struct epoll_event ev;
	if (epoll_wait(e->epoll, &ev, 1, e->timeout_ms) < 1)
		return true;
	uint8_t *p = queue_room(&e->in, 65536);
	ssize_t n = recv(e->fd, p, 65536, 0);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		return false;
	e->in.len += n > 0 ? (size_t)n : 0;
	return true;
}

static struct message *end_next(struct end *e)
{
	if (queue_bytes(&e->in) < sizeof(struct message))
		return NULL;
	struct message *m = (struct message *)(e->in.p + e->in.off);
	e->in.off += m->bytes;
	return m;
}

/* What is left of a message goes to the front, so that there is room for a whole read. */
static void end_flush(struct end *e)
{
	size_t left = queue_bytes(&e->in);
	memmove(e->in.p, e->in.p + e->in.off, left);
	e->in.off = 0;
	e->in.len = left;
	if (queue_bytes(&e->out) && !queue_flush(&e->out, e->fd))
		exit(2);
}

static void serve(struct load *l, int told)
{
	int port = 0, fd, listening = net_listen(&port);
	struct end e;
	struct message *m;
	if (write(told, &port, sizeof port) < 0)
		exit(2);
	while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) < 0)
		usleep(1000);
	end_open(&e, fd, l->poll);
	while (end_read(&e)) {
		while ((m = end_next(&e)))
			queue_add(&e.out, m, sizeof *m);
		end_flush(&e);
	}
	exit(0);
}

static void call(struct load *l, struct end *e, uint32_t id, uint64_t *sent_ns)
{
	struct message m = { .bytes = sizeof m, .id = id };
	sent_ns[id] = load_sent(l);
	queue_add(&e->out, &m, sizeof m);
}

int main(int argc, char **argv)
{
	struct load l;
	struct end e;
	int told;
	load_options(&l, argc, argv);
	load_fork(&l, serve, &told);
	uint64_t *sent_ns = calloc(l.flight, sizeof *sent_ns);
	end_open(&e, net_connect("127.0.0.1", load_port(told)), l.poll);
	for (uint32_t id = 0; id < l.flight; id++)
		call(&l, &e, id, sent_ns);
	end_flush(&e);
	for (bool on = true; on && end_read(&e); end_flush(&e))
		for (struct message *m; on && (m = end_next(&e));)
			if ((on = load_answered(&l, sent_ns[m->id])))
				call(&l, &e, m->id, sent_ns);
	load_report(&l);
	return 0;
}
