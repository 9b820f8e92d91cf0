#include "common/env_real.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct env_file {
	int fd;
	bool reserved; /* blocks behind its end */
};

/* ---- one file ------------------------------------------------------------------------------------------ */

static int open_flags(int flags)
{
	int how = O_CLOEXEC;
	if (flags & ENV_WRITE)
		how |= O_APPEND | (flags & ENV_READ ? O_RDWR : O_WRONLY);
	if (flags & ENV_CREATE)
		how |= O_CREAT;
	if (flags & ENV_EXCLUSIVE)
		how |= O_CREAT | O_EXCL;
	if (flags & ENV_TRUNCATE)
		how |= O_TRUNC;
	return how;
}

static int file_fd(const char *path, int flags)
{
	/* Opening /dev/stderr anew fails for a socket and starts a file at its own offset: share the descriptor. */
	if (!strcmp(path, "/dev/stderr"))
		return fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0);
	return open(path, open_flags(flags), flags & ENV_PRIVATE ? 0600 : 0644);
}

int env_file_open(struct env *env, const char *path, int flags, struct env_file **out)
{
	(void)env;
	struct env_file *f = malloc(sizeof *f);
	if (!f)
		return ERR_NOMEM;
	*f = (struct env_file){ .fd = file_fd(path, flags) };
	if (f->fd < 0) {
		free(f);
		return env_real_errno(errno);
	}
	*out = f;
	return 0;
}

ssize_t env_file_read(struct env_file *f, uint64_t offset, void *buf, size_t n)
{
	ssize_t got;
	do
		got = pread(f->fd, buf, n, (off_t)offset);
	while (got < 0 && errno == EINTR);
	return got < 0 ? env_real_errno(errno) : got;
}

/* fd 2 may be somebody's non-blocking pipe: then wait for room. */
static bool write_later(int fd)
{
	if (errno == EINTR)
		return true;
	if (errno != EAGAIN)
		return false;
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	return poll(&p, 1, -1) >= 0 || errno == EINTR;
}

static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t put = write(fd, p, n);
		if (put < 0 && !write_later(fd))
			return env_real_errno(errno);
		if (put > 0) {
			p += put;
			n -= (size_t)put;
		}
	}
	return 0;
}

int env_file_append(struct env_file *f, const void *buf, size_t n)
{
	return write_all(f->fd, buf, n);
}

int env_file_sync(struct env_file *f)
{
	return fdatasync(f->fd) < 0 ? env_real_errno(errno) : 0;
}

void env_file_reserve(struct env_file *f, uint64_t bytes)
{
	struct statvfs disk;
	int64_t size = env_file_size(f);
	if (size < 0 || fstatvfs(f->fd, &disk) < 0)
		return;
	uint64_t most = (uint64_t)disk.f_bavail * disk.f_frsize / 64;
	f->reserved = true; /* a call that fails may have found some */
	(void)!fallocate(f->fd, FALLOC_FL_KEEP_SIZE, size, (off_t)(bytes < most ? bytes : most));
}

int env_file_truncate(struct env_file *f, uint64_t size)
{
	return ftruncate(f->fd, (off_t)size) < 0 ? env_real_errno(errno) : 0;
}

int64_t env_file_size(struct env_file *f)
{
	struct stat st;
	return fstat(f->fd, &st) < 0 ? env_real_errno(errno) : (int64_t)st.st_size;
}

int env_file_lock(struct env_file *f)
{
	if (flock(f->fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? ERR_BUSY : env_real_errno(errno);
}

void env_file_close(struct env_file *f)
{
	if (!f)
		return;
	int64_t size = f->reserved ? env_file_size(f) : -1;
	if (size >= 0)
		(void)!ftruncate(f->fd, size); /* to where it ends: what is behind is free again */
	close(f->fd);
	free(f);
}

/* ---- whole files ----------------------------------------------------------------------------------------- */

static int read_all(struct env_file *f, char *text, size_t max, size_t *n)
{
	ssize_t got;
	*n = 0;
	while ((got = env_file_read(f, *n, text + *n, max - *n)) > 0)
		*n += (size_t)got;
	return (int)got;
}

static int load(struct env_file *f, size_t size, char **text, size_t *n)
{
	size_t got = 0;
	char *bytes = malloc(size + 1);
	if (!bytes)
		return ERR_NOMEM;
	int err = read_all(f, bytes, size, &got);
	if (err < 0) {
		free(bytes);
		return err;
	}
	bytes[got] = '\0';
	*text = bytes;
	*n = got;
	return 0;
}

int env_file_load(struct env *env, const char *path, size_t max, char **text, size_t *n)
{
	struct env_file *f;
	int err = env_file_open(env, path, ENV_READ, &f);
	if (err < 0)
		return err;
	int64_t size = env_file_size(f);
	if (size > 0 && (uint64_t)size > max)
		err = ERR_FULL;
	else
		err = size < 0 ? (int)size : load(f, (size_t)size, text, n);
	env_file_close(f);
	return err;
}

static int write_temporary(const char *path, const void *text, size_t n, int flags)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, flags & ENV_PRIVATE ? 0600 : 0644);
	if (fd < 0)
		return env_real_errno(errno);
	int err = write_all(fd, text, n);
	if (err == 0 && fsync(fd) < 0)
		err = env_real_errno(errno);
	close(fd);
	return err;
}

/* link, not rename, where the first one must win: rename would replace the other's file. */
static int put_in_place(const char *temporary, const char *path, int flags)
{
	if (!(flags & ENV_EXCLUSIVE))
		return rename(temporary, path) < 0 ? env_real_errno(errno) : 0;
	int err = link(temporary, path) < 0 ? env_real_errno(errno) : 0;
	unlink(temporary);
	return err;
}

static int parent_sync(struct env *env, const char *path)
{
	char dir[ENV_PATH_MAX];
	const char *slash = strrchr(path, '/');
	if (!slash)
		return env_dir_sync(env, ".");
	snprintf(dir, sizeof dir, "%.*s", (int)(slash == path ? 1 : slash - path), path);
	return env_dir_sync(env, dir);
}

int env_file_store(struct env *env, const char *path, const void *text, size_t n, int flags)
{
	char temporary[ENV_PATH_MAX];
	uint32_t chance; /* two threads may store the same file */
	env_random(env, &chance, sizeof chance);
	int len = snprintf(temporary, sizeof temporary, "%s.%08x.tmp", path, chance);
	if (len < 0 || (size_t)len >= sizeof temporary)
		return env_real_errno(ENAMETOOLONG);
	int err = write_temporary(temporary, text, n, flags);
	if (err == 0)
		err = put_in_place(temporary, path, flags);
	if (err < 0) {
		unlink(temporary);
		return err;
	}
	return parent_sync(env, path);
}

int env_file_remove(struct env *env, const char *path)
{
	(void)env;
	return unlink(path) < 0 ? env_real_errno(errno) : 0;
}

int env_file_rename(struct env *env, const char *from, const char *to)
{
	(void)env;
	return rename(from, to) < 0 ? env_real_errno(errno) : 0;
}

int64_t env_file_mtime_us(struct env *env, const char *path)
{
	(void)env;
	struct stat st;
	if (stat(path, &st) < 0)
		return env_real_errno(errno);
	return (int64_t)st.st_mtim.tv_sec * 1000000 + st.st_mtim.tv_nsec / 1000;
}

/* ---- folders ----------------------------------------------------------------------------------------------- */

/* 1: it was made, 0: it was there */
static int make_one(const char *path)
{
	struct stat st;
	if (mkdir(path, 0755) == 0)
		return 1;
	int number = errno;
	if (number == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return 0;
	return env_real_errno(number);
}

/* Who made one that is there already may have died before its name was synced; not every such parent can be. */
int env_dir_make(struct env *env, const char *path)
{
	char part[ENV_PATH_MAX];
	int n = snprintf(part, sizeof part, "%s", path), made = 0;
	if (n < 0 || (size_t)n >= sizeof part)
		return env_real_errno(ENAMETOOLONG);
	for (char *p = part + 1; n > 0; p++) {
		char was = *p;
		if (was && was != '/')
			continue;
		*p = '\0';
		if ((made = make_one(part)) < 0)
			return made;
		int err = made || !was ? parent_sync(env, part) : 0;
		if (made && err < 0)
			return err;
		*p = was;
		if (!was)
			break;
	}
	return n > 0 ? 0 : env_real_errno(ENOENT);
}

int env_dir_sync(struct env *env, const char *path)
{
	(void)env;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return env_real_errno(errno);
	int err = fsync(fd) < 0 ? env_real_errno(errno) : 0;
	close(fd);
	return err;
}

int64_t env_disk_free(struct env *env, const char *path)
{
	struct statvfs s;
	(void)env;
	if (statvfs(path, &s) < 0)
		return env_real_errno(errno);
	return (int64_t)((uint64_t)s.f_bavail * s.f_frsize);
}

struct names {
	char **at;
	size_t n, cap;
};

static void names_free(struct names *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->at[i]);
	free(l->at);
}

static int names_add(struct names *l, const char *name)
{
	if (l->n == l->cap) {
		size_t cap = l->cap ? l->cap * 2 : 16;
		char **at = realloc(l->at, cap * sizeof *at);
		if (!at)
			return ERR_NOMEM;
		l->at = at;
		l->cap = cap;
	}
	if (!(l->at[l->n] = strdup(name)))
		return ERR_NOMEM;
	l->n++;
	return 0;
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_read(DIR *d, struct names *l)
{
	struct dirent *e;
	int err = 0;
	while (err == 0 && (errno = 0, e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			err = names_add(l, e->d_name);
	return err < 0 ? err : errno ? env_real_errno(errno) : 0;
}

int env_dir_list(struct env *env, const char *path, char ***names, size_t *n)
{
	(void)env;
	struct names l = { 0 };
	DIR *d = opendir(path);
	if (!d)
		return env_real_errno(errno);
	int err = names_read(d, &l);
	closedir(d);
	if (err < 0) {
		names_free(&l);
		return err;
	}
	if (l.n)
		qsort(l.at, l.n, sizeof *l.at, by_bytes);
	*names = l.at;
	*n = l.n;
	return 0;
}

/* ---- watching ------------------------------------------------------------------------------------------------ */

struct env_watch {
	int fd;
	struct env_loop *loop;
	struct event ev;
	void (*fn)(void *arg);
	void *arg;
};

static void on_change(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	struct env_watch *w = arg;
	char events[4096];
	env_real_enter(w->loop);
	while (read((int)fd, events, sizeof events) > 0)
		;      /* what changed is the caller's to look up: events may have been lost or merged */
	w->fn(w->arg); /* may close the watch */
}

int env_watch(struct env_loop *loop, const char *dir, void (*fn)(void *arg), void *arg, struct env_watch **out)
{
	assert(env_loop_is_current(loop));
	const uint32_t what =
		IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_ONLYDIR;
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (fd < 0)
		return env_real_errno(errno);
	struct env_watch *w = malloc(sizeof *w);
	if (!w || inotify_add_watch(fd, dir, what) < 0) {
		int err = w ? env_real_errno(errno) : ERR_NOMEM;
		free(w);
		close(fd);
		return err;
	}
	*w = (struct env_watch){ .fd = fd, .loop = loop, .fn = fn, .arg = arg };
	event_assign(&w->ev, loop->base, fd, EV_READ | EV_PERSIST, on_change, w);
	event_add(&w->ev, NULL);
	*out = w;
	return 0;
}

void env_watch_close(struct env_watch *w)
{
	if (!w)
		return;
	event_del(&w->ev);
	close(w->fd);
	free(w);
}
