#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/env.h"
#include "common/sqllog.h"
#include "tests/support/crash.h"

#define SECTOR 512

/* xorshift64*: the same course on every machine */
uint32_t crash_draw(struct crash_random *r, uint32_t below)
{
	uint64_t x = r->state ? r->state : 0x9e3779b97f4a7c15u;
	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	r->state = x;
	return (uint32_t)((x * 0x2545f4914f6cdd1du >> 32) % below);
}

static int64_t size_of(const char *path)
{
	struct stat st;
	return stat(path, &st) < 0 ? -1 : (int64_t)st.st_size;
}

static void put(const char *path, uint64_t at, const void *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (pwrite(fd, bytes, n, (off_t)at) != (ssize_t)n)
			perror(path);
		close(fd);
	}
}

/* ---- a power cut ---------------------------------------------------------------------------------------------- */

/* Some sectors of what was not synced never reached the disk. */
static uint64_t make_holes(const char *path, uint64_t from, uint64_t size, struct crash_random *r)
{
	static const char zeroes[SECTOR];
	uint64_t lost = 0;
	for (uint64_t at = (from + SECTOR - 1) / SECTOR * SECTOR; at + SECTOR <= size; at += SECTOR)
		if (!crash_draw(r, 4)) {
			put(path, at, zeroes, SECTOR);
			lost += SECTOR;
		}
	return lost;
}

static uint64_t lose(const char *path, uint64_t keep, bool named, struct crash_random *r)
{
	int64_t size = size_of(path);
	if (size <= (int64_t)keep)
		return 0;
	if (!named && !crash_draw(r, 3)) {
		unlink(path);
		return (uint64_t)size;
	}
	if (crash_draw(r, 2))
		return make_holes(path, keep, (uint64_t)size, r);
	uint64_t left = keep + crash_draw(r, (uint32_t)((uint64_t)size - keep) + 1);
	if (truncate(path, (off_t)left) < 0)
		perror(path);
	return (uint64_t)size - left;
}

/* So that the writer sees another run of the machine than the one it noted. */
static void forget_boot(const char *folder)
{
	char path[ENV_PATH_MAX], text[16384];
	snprintf(path, sizeof path, "%s/epoch", folder);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	char *last = NULL;
	for (char *p = text; (p = strstr(p, "boot=")); p++)
		last = p;
	if (last)
		put(path, (uint64_t)(last + 5 - text), "-", 1);
}

uint64_t crash_power_cut(const char *folder, const struct crash_synced *synced, struct crash_random *r)
{
	struct env *env = env_new();
	char path[ENV_PATH_MAX];
	uint32_t *numbers = NULL;
	size_t n = 0;
	uint64_t lost = 0;
	if (sqllog_list(env, folder, &numbers, &n) < 0)
		n = 0;
	for (size_t i = 0; i < n; i++) {
		if (numbers[i] < synced->number)
			continue;
		sqllog_path(path, folder, numbers[i], "sql");
		lost += lose(path, numbers[i] == synced->number ? synced->bytes : 0, numbers[i] <= synced->named, r);
	}
	free(numbers);
	forget_boot(folder);
	env_free(env);
	return lost;
}

/* ---- a torn tail ----------------------------------------------------------------------------------------------- */

/* The record that would have come next, and would do the greatest harm. */
static size_t next_record(const struct sqllog_record *last, char *out)
{
	static const char body[] = "BEGIN;\nUPDATE account SET gold = 0, chain = 0;\nCOMMIT;\n";
	const struct sqllog_record r = { .lsn = last->lsn + 1,
					 .epoch = last->epoch,
					 .time_us = last->time_us + 1,
					 .keys = "account:1",
					 .keys_bytes = 9,
					 .body = body,
					 .body_bytes = sizeof body - 1 };
	size_t n = sqllog_head(out, &r);
	memcpy(out + n, body, sizeof body - 1);
	return n + sizeof body - 1;
}

static bool last_record(struct env *env, const char *path, struct sqllog_record *out)
{
	struct sqllog_file f = { 0 };
	struct sqllog_record r;
	char why[80];
	*out = (struct sqllog_record){ 0 };
	if (sqllog_file_open(&f, env, path) < 0)
		return false;
	while (sqllog_file_next(&f, &r, why, sizeof why) == 1)
		*out = r;
	sqllog_file_close(&f);
	return out->lsn;
}

static void add_torn(const char *path, const struct sqllog_record *last, struct crash_random *r)
{
	char text[SQLLOG_HEAD_MAX + 200];
	size_t n = next_record(last, text);
	if (!crash_draw(r, 3))
		n = 1 + crash_draw(r, (uint32_t)n - 1);
	else /* in its second half, where the checksum alone notices */
		text[n - 1 - crash_draw(r, (uint32_t)n / 2)] ^= (char)(1 << crash_draw(r, 7));
	put(path, (uint64_t)size_of(path), text, n);
}

void crash_tear(const char *folder, struct crash_random *r)
{
	struct env *env = env_new();
	char path[ENV_PATH_MAX];
	uint32_t *numbers = NULL;
	size_t n = 0;
	struct sqllog_record last;
	if (sqllog_list(env, folder, &numbers, &n) >= 0 && n) {
		sqllog_path(path, folder, numbers[n - 1], "sql");
		if (last_record(env, path, &last))
			add_torn(path, &last, r);
	}
	free(numbers);
	env_free(env);
}
