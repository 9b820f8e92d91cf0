#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "common/env_real.h"

/* Open sockets on their way to another process of this user: a Unix socket of whole messages, SCM_RIGHTS. */
struct env_pass {
	int fd;
};

struct env_pass_door {
	int fd;
	struct env_loop *loop;
	struct event ev;
	void (*on_peer)(void *arg, struct env_pass *pass);
	void *arg;
	char path[ENV_PATH_MAX];
};

struct env_passed {
	int fd;
};

/* A Unix socket's path has 107 bytes at most: it is named through its open folder. The caller closes *dir. */
static int door_address(const char *path, struct sockaddr_un *a, int *dir)
{
	const char *slash = strrchr(path, '/');
	char folder[ENV_PATH_MAX];

	snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
	*dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir < 0)
		return env_real_errno(errno);
	memset(a, 0, sizeof *a);
	a->sun_family = AF_UNIX;
	snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/%.60s", *dir, slash ? slash + 1 : path);
	return 0;
}

/* Only this user's processes: a folder's mode may be anything. */
static bool is_mine(int fd)
{
	struct ucred who;
	socklen_t n = sizeof who;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) == 0 && who.uid == geteuid();
}

static struct env_pass *pass_new(int fd)
{
	struct env_pass *p = malloc(sizeof *p);

	if (!p) {
		close(fd);
		return NULL;
	}
	p->fd = fd;
	return p;
}

static void on_knock(evutil_socket_t fd, short what, void *arg)
{
	struct env_pass_door *d = arg;
	int peer = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC);

	(void)what;
	env_real_enter(d->loop);
	if (peer < 0)
		return;
	if (!is_mine(peer)) {
		close(peer);
		return;
	}
	struct env_pass *p = pass_new(peer);
	if (p)
		d->on_peer(d->arg, p);
}

int env_pass_listen(struct env_loop *loop, const char *path, void (*on_peer)(void *arg, struct env_pass *pass),
		    void *arg, struct env_pass_door **out)
{
	struct sockaddr_un a;
	int dir, err = door_address(path, &a, &dir);

	if (err < 0)
		return err;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(path); /* of one that was killed; who hands over takes it with it */
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || chmod(path, 0600) < 0 || listen(fd, 1) < 0) {
		err = env_real_errno(errno);
		close(dir);
		if (fd >= 0)
			close(fd);
		return err;
	}
	close(dir);
	struct env_pass_door *d = calloc(1, sizeof *d);
	if (!d) {
		close(fd);
		return ERR_NOMEM;
	}
	*d = (struct env_pass_door){ .fd = fd, .loop = loop, .on_peer = on_peer, .arg = arg };
	snprintf(d->path, sizeof d->path, "%s", path);
	event_assign(&d->ev, loop->base, fd, EV_READ | EV_PERSIST, on_knock, d);
	event_add(&d->ev, NULL);
	*out = d;
	return 0;
}

void env_pass_door_close(struct env_pass_door *d, bool remove)
{
	if (!d)
		return;
	assert(env_loop_is_current(d->loop));
	event_del(&d->ev);
	close(d->fd);
	if (remove)
		unlink(d->path);
	free(d);
}

int env_pass_connect(struct env *env, const char *path, struct env_pass **out)
{
	struct sockaddr_un a;
	int dir, err = door_address(path, &a, &dir);

	(void)env;
	if (err < 0)
		return err;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	err = fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? ERR_UNAVAILABLE : 0;
	close(dir);
	if (err == 0 && is_mine(fd))
		return (*out = pass_new(fd)) ? 0 : ERR_NOMEM;
	if (fd >= 0)
		close(fd);
	return ERR_UNAVAILABLE;
}

void env_pass_close(struct env_pass *p)
{
	if (!p)
		return;
	close(p->fd);
	free(p);
}

int env_pass_send(struct env_pass *p, const void *bytes, size_t n, const struct env_conn *conn,
		  const struct env_listener *listener)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} room;
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = n };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fd = conn ? env_real_conn_fd(conn) : listener ? env_real_listener_fd(listener) : -1;
	struct pollfd ready = { .fd = p->fd, .events = POLLOUT };

	assert(n <= ENV_PASS_MAX);
	if (fd >= 0) {
		memset(&room, 0, sizeof room);
		m.msg_control = room.bytes;
		m.msg_controllen = sizeof room.bytes;
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	for (;;) {
		ssize_t put = sendmsg(p->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (put >= 0)
			return 0;
		if (errno == EINTR)
			continue;
		/* too many descriptors on their way (ETOOMANYREFS) is a full queue too: the other side takes them off */
		if (errno == ETOOMANYREFS)
			poll(NULL, 0, 1);
		else if (errno != EAGAIN)
			return env_real_errno(errno) == ERR_NOMEM ? ERR_NOMEM : ERR_CLOSED;
		else if (poll(&ready, 1, ENV_PASS_WAIT_MS) != 1)
			return ERR_TIMEOUT;
	}
}

ssize_t env_pass_receive(struct env_pass *p, void *bytes, size_t n, uint32_t wait_ms, struct env_passed **passed)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} room;
	struct iovec iov = { .iov_base = bytes, .iov_len = n };
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room.bytes, .msg_controllen = sizeof room.bytes
	};
	struct pollfd ready = { .fd = p->fd, .events = POLLIN };

	*passed = NULL;
	if (poll(&ready, 1, (int)wait_ms) != 1)
		return ERR_TIMEOUT;
	ssize_t got = recvmsg(p->fd, &m, MSG_CMSG_CLOEXEC);
	if (got <= 0)
		return ERR_CLOSED;
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		struct env_passed *t = malloc(sizeof *t);
		assert(t);
		memcpy(&t->fd, CMSG_DATA(c), sizeof t->fd);
		*passed = t;
	}
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) { /* larger than n, or no descriptor is left */
		env_passed_close(*passed);
		*passed = NULL;
		return ERR_FULL;
	}
	return got;
}

void env_passed_close(struct env_passed *t)
{
	if (!t)
		return;
	close(t->fd);
	free(t);
}

int env_passed_conn(struct env_passed *t, struct env_conn **out)
{
	int err = env_real_conn_of(t->fd, out);

	if (err == 0)
		free(t);
	return err;
}

int env_passed_listen(struct env_passed *t, struct env_loop *loop, void (*on_accept)(void *arg, struct env_conn *conn),
		      void *arg, struct env_listener **out)
{
	int err = env_real_listener_of(loop, t->fd, on_accept, arg, out);

	if (err == 0)
		free(t);
	return err;
}
