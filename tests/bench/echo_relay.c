/*
 * echo_relay: the limit of connector and scene: two processes in bare C and epoll, without logic. The
 * front speaks the pomelo protocol and hands each request over one inner TCP connection to the back,
 * which sends it back; the front answers the client.
 *
 * Both read all that is ready and write once per peer and turn: in one turn of the front the
 * requests of all clients leave in one write, and each client's answers in one write.
 *
 * inner frame: u32 client, u32 request id, u32 bytes of the body, body; the machine's byte order,
 * since both ends are one program
 *
 * usage: echo_relay [PORT]     prints "port N pids FRONT,BACK" when it listens
 */
#include "tests/bench/client.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>

enum { INNER_BYTES = 1 << 20 }; /* read at once from the inner connection */

struct inner {
	uint32_t client, id, bytes;
};

struct front {
	struct clients all;
	int fd; /* the inner connection */
	bool waits_out;
	struct queue in, out;
	struct client *dirty[CLIENT_MAX];
	uint32_t dirty_count;
};

static void watch(int epoll, int fd, int how, uint32_t events, void *mark)
{
	struct epoll_event e = { .events = events, .data.ptr = mark };
	if (epoll_ctl(epoll, how, fd, &e) < 0)
		die("epoll_ctl: %s", strerror(errno));
}

/* Reads all that is ready behind what `in` still holds; false: the other end is gone. */
static bool fill(struct queue *in, int fd)
{
	size_t kept = queue_bytes(in);
	if (in->off) {
		memmove(in->p, in->p + in->off, kept);
		in->off = 0;
		in->len = kept;
	}
	ssize_t n = recv(fd, queue_room(in, INNER_BYTES), INNER_BYTES, 0);
	if (n > 0)
		in->len += (size_t)n;
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void forward(void *owner, struct client *c, const struct wire_message *m)
{
	struct front *f = owner;
	struct inner head = { c->id, m->id, (uint32_t)m->body_bytes };
	uint8_t *p = queue_room(&f->out, sizeof head + m->body_bytes);
	memcpy(p, &head, sizeof head);
	memcpy(p + sizeof head, m->body, m->body_bytes);
	f->out.len += sizeof head + m->body_bytes;
}

static void mark_dirty(struct front *f, struct client *c)
{
	if (!c->dirty)
		f->dirty[f->dirty_count++] = c;
	c->dirty = true;
}

static void answer(struct front *f, const struct inner *head, const uint8_t *body)
{
	struct client *c = client_find(&f->all, head->client);
	if (!c)
		return;
	uint8_t *p = queue_room(&c->out, WIRE_HEAD_BYTES + 6 + head->bytes);
	c->out.len += wire_put_response(p, head->id, body, head->bytes);
	mark_dirty(f, c);
}

static void take_answers(struct front *f)
{
	struct inner head;
	if (!fill(&f->in, f->fd))
		die("echo_relay: the back process is gone");
	while (queue_bytes(&f->in) >= sizeof head) {
		memcpy(&head, f->in.p + f->in.off, sizeof head);
		if (queue_bytes(&f->in) < sizeof head + head.bytes)
			break;
		answer(f, &head, f->in.p + f->in.off + sizeof head);
		f->in.off += sizeof head + head.bytes;
	}
}

static void flush_inner(struct front *f)
{
	if (!queue_flush(&f->out, f->fd))
		die("echo_relay: the back process is gone");
	bool rest = queue_bytes(&f->out) > 0;
	if (rest != f->waits_out)
		watch(f->all.epoll, f->fd, EPOLL_CTL_MOD, rest ? EPOLLIN | EPOLLOUT : EPOLLIN, f);
	f->waits_out = rest;
}

/* The inner connection first: the back works while the clients are written to. */
static void flush(struct front *f)
{
	flush_inner(f);
	for (uint32_t i = 0; i < f->dirty_count; i++) {
		f->dirty[i]->dirty = false;
		if (f->dirty[i]->fd >= 0)
			client_flush(&f->all, f->dirty[i]);
	}
	f->dirty_count = 0;
}

static void front_turn(struct front *f)
{
	struct epoll_event events[1024];
	int count = epoll_wait(f->all.epoll, events, 1024, -1);
	for (int i = 0; i < count; i++) {
		struct client *c = events[i].data.ptr;
		if (!c)
			clients_accept(&f->all);
		else if ((void *)c == (void *)f)
			take_answers(f);
		else if (client_read(&f->all, c, forward, f) && (queue_bytes(&c->out) || c->waits_out))
			mark_dirty(f, c);
	}
	flush(f);
}

/* Sends each whole frame of `in` back. */
static void back_turn(struct queue *in, struct queue *out)
{
	struct inner head;
	while (queue_bytes(in) >= sizeof head) {
		memcpy(&head, in->p + in->off, sizeof head);
		if (queue_bytes(in) < sizeof head + head.bytes)
			return;
		queue_add(out, in->p + in->off, sizeof head + head.bytes);
		in->off += sizeof head + head.bytes;
	}
}

static void back(int fd)
{
	struct queue in = { 0 }, out = { 0 };
	struct epoll_event e;
	bool waits_out = false;
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	watch(epoll, fd, EPOLL_CTL_ADD, EPOLLIN, NULL);
	for (;;) {
		epoll_wait(epoll, &e, 1, -1);
		if (!fill(&in, fd))
			exit(0);
		back_turn(&in, &out);
		if (!queue_flush(&out, fd))
			exit(0);
		bool rest = queue_bytes(&out) > 0;
		if (rest != waits_out)
			watch(epoll, fd, EPOLL_CTL_MOD, rest ? EPOLLIN | EPOLLOUT : EPOLLIN, NULL);
		waits_out = rest;
	}
}

/* Starts the back and connects to it over TCP, as a connector does to a scene; returns its pid. */
static pid_t start_back(struct front *f)
{
	int port = 0, listener = net_listen(&port);
	struct pollfd ready = { .fd = listener, .events = POLLIN };
	f->fd = net_connect("127.0.0.1", port);
	poll(&ready, 1, 1000);
	int other = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (f->fd < 0 || other < 0)
		die("echo_relay: no inner connection: %s", strerror(errno));
	net_nodelay(other);
	close(listener);
	pid_t pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		close(f->fd);
		back(other);
	}
	close(other);
	return pid;
}

int main(int argc, char **argv)
{
	int port = argc > 1 ? atoi(argv[1]) : 0;
	struct front *f = calloc(1, sizeof *f);
	if (!f)
		die("no memory");
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	net_raise_files();
	pid_t pid = start_back(f);
	clients_open(&f->all, &port);
	watch(f->all.epoll, f->fd, EPOLL_CTL_ADD, EPOLLIN, f);
	printf("port %d pids %d,%d\n", port, (int)getpid(), (int)pid);
	fflush(stdout);
	for (;;)
		front_turn(f);
}
