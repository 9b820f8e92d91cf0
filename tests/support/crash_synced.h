#pragma once
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "common/env.h"
#include "tests/support/crash.h"
/*
 * crash_synced: what a writer has on stable storage: written down as it syncs, for the power cut. A header of code, for the one
 * program that includes it: a library's member that defines fsync would be taken by every program.
 *
 * Threads: the SQL log's alone syncs. Files are the caller's.
 */

static int synced_fd = -1;
static struct crash_synced synced;

static uint32_t number_of(const char *path)
{
	const char *name = strrchr(path, '/');
	char *end;
	unsigned long v = strtoul(name ? name + 1 : path, &end, 10);
	return strcmp(end, ".sql") ? 0 : (uint32_t)v;
}

static uint32_t path_number(int fd, char path[ENV_PATH_MAX])
{
	char link[40];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, ENV_PATH_MAX - 1);
	path[n > 0 ? n : 0] = '\0';
	return number_of(path);
}

static void note_synced(void)
{
	if (pwrite(synced_fd, &synced, sizeof synced, 0) != sizeof synced)
		_exit(1);
}

/* Ours is found before the C library's. What was written when a sync began is safe when it ends. */
int fdatasync(int fd)
{
	char path[ENV_PATH_MAX];
	struct stat st;
	uint32_t number = synced_fd < 0 || fstat(fd, &st) < 0 ? 0 : path_number(fd, path);
	if (number) /* a slow disk: there is something to lose */
		nanosleep(&(struct timespec){ .tv_nsec = st.st_size % 8 * 1000000 }, NULL);
	int err = (int)syscall(SYS_fdatasync, fd);
	if (!err && number && number >= synced.number) {
		synced.number = number;
		synced.bytes = (uint64_t)st.st_size;
		note_synced();
	}
	return err;
}

/* A folder's sync makes the names in it safe. */
int fsync(int fd)
{
	char path[ENV_PATH_MAX];
	DIR *d = NULL;
	uint32_t highest = 0;
	if (synced_fd >= 0 && !path_number(fd, path))
		d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));)
		if (number_of(e->d_name) > highest)
			highest = number_of(e->d_name);
	if (d)
		closedir(d);
	int err = (int)syscall(SYS_fsync, fd);
	if (!err && highest > synced.named) {
		synced.named = highest;
		note_synced();
	}
	return err;
}

/*
 * From here on this process writes down in path what is safe, as it syncs; each sync takes some milliseconds, so that there
 * is something to lose.
 */
static inline void crash_synced_note(const char *path)
{
	synced_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (pread(synced_fd, &synced, sizeof synced, 0) != sizeof synced)
		synced = (struct crash_synced){ 0 };
}

/* What was written down there; no file: nothing is safe. */
static inline struct crash_synced crash_synced_read(const char *path)
{
	struct crash_synced s = { 0 };
	int fd = open(path, O_RDONLY);
	if (fd >= 0 && read(fd, &s, sizeof s) != sizeof s)
		s = (struct crash_synced){ 0 };
	close(fd);
	return s;
}
