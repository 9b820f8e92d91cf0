#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env_sim_disk.h"
/*
 * Contents: what is written, synced, torn; and the calls of env.h on files. A call that reaches the disk
 * takes time: others run meanwhile, and whoever dies in it leaves a part of it done.
 */
#define SECTOR 512

/* ---- inodes ------------------------------------------------------------------------------------------------------ */

struct inode *inode_new(struct disk *d)
{
	struct inode *i = w_alloc(sizeof(*i));
	i->refs = 1;
	i->disk = d;
	return i;
}

void inode_ref(struct inode *i)
{
	i->refs++;
}

void inode_unref(struct inode *i)
{
	if (!i || --i->refs)
		return;
	w_free(i->data);
	w_free(i->undo);
	w_free(i);
}

static void touched(struct inode *i)
{
	struct sim *w = i->disk->w;
	i->mtime_us = (int64_t)(w_now(w) / 1000) + 2;
	disk_inode_changed(i->disk, i);
}

void inode_put(struct inode *i, const void *p, size_t n)
{
	if (i->size + n > i->cap) {
		i->cap = i->size + n > i->cap * 2 ? i->size + n : i->cap * 2;
		i->data = w_realloc(i->data, i->cap);
	}
	memcpy(i->data + i->size, p, n);
	i->size += n;
}

void inode_truncate(struct inode *i, uint64_t size)
{
	static const char zeros[4096];
	while (i->size < size)
		inode_put(i, zeros, size - i->size < sizeof(zeros) ? size - i->size : sizeof(zeros));
	if (size < i->synced) { /* until it is synced a power cut may bring the end back */
		uint64_t more = i->synced - size;
		char *undo = w_alloc(more + i->undo_n);
		memcpy(undo, i->data + size, more);
		if (i->undo_n)
			memcpy(undo + more, i->undo, i->undo_n);
		w_free(i->undo);
		i->undo = undo;
		i->undo_n += more;
		i->synced = size;
	}
	i->size = size;
}

static void undo_forget(struct inode *i)
{
	w_free(i->undo);
	i->undo = NULL;
	i->undo_n = 0;
}

/* What it held up to size when the sync began is on the disk. */
static void inode_sync(struct inode *i, uint64_t size)
{
	if (size > i->size)
		size = i->size;
	if (size > i->synced)
		i->synced = size;
	undo_forget(i);
}

/* What stays of the part that was not synced: all, some, pieces, or something else of that length. */
static void tear_tail(struct inode *i)
{
	struct rng *r = &i->disk->w->rng_disk;
	uint64_t n = i->size - i->synced;
	char *tail = i->data + i->synced;
	switch (rng_below(r, 5)) {
	case 0: break;
	case 1: i->size = i->synced; break;
	case 2: i->size = i->synced + rng_below(r, n + 1); break;
	case 3:
		for (uint64_t at = 0; at < n; at += SECTOR)
			if (rng_below(r, 2))
				memset(tail + at, 0, n - at < SECTOR ? n - at : SECTOR);
		break;
	default:
		for (uint64_t at = rng_below(r, n + 1); at < n; at++)
			tail[at] = (char)rng_next(r);
	}
}

bool inode_tear(struct inode *i)
{
	uint64_t had = i->size;
	bool tail = i->size > i->synced;
	if (i->undo && rng_below(&i->disk->w->rng_disk, 2)) {
		i->size = i->synced;
		inode_put(i, i->undo, i->undo_n);
	} else if (tail) {
		tear_tail(i);
	}
	undo_forget(i);
	if (i->lost_to > i->size)
		i->lost_to = i->size;
	if (i->lost_from < i->lost_to)
		memset(i->data + i->lost_from, 0, i->lost_to - i->lost_from);
	i->lost_from = i->lost_to = 0;
	i->synced = i->size;
	return tail || had != i->size;
}

/* ---- open files ---------------------------------------------------------------------------------------------------- */

struct env_file {
	struct owned owned;
	struct env *env;
	struct inode *inode; /* NULL: the process' error output */
	int flags;
};

static void file_gone(struct env_file *f)
{
	if (f->inode && f->inode->locked_by == f)
		f->inode->locked_by = NULL;
	inode_unref(f->inode);
	w_free(f);
}

static void file_died(struct owned *o, bool machine)
{
	(void)machine;
	file_gone((struct env_file *)o);
}

static struct disk *disk_of(struct env *env)
{
	return env->p->host->disk;
}

int env_file_open(struct env *env, const char *path, int flags, struct env_file **out)
{
	struct inode *i = NULL;
	int err = strcmp(path, "/dev/stderr") == 0 ? 0 : disk_open(disk_of(env), path, flags, &i);
	w_spend(env->w, 5000);
	if (err < 0)
		return err;
	struct env_file *f = w_alloc(sizeof(*f));
	if (i)
		inode_ref(i);
	f->env = env;
	f->inode = i;
	f->flags = flags;
	owned_add(env, &f->owned, file_died);
	w_say(env->w, "open %s", path);
	*out = f;
	return 0;
}

void env_file_close(struct env_file *f)
{
	if (!f)
		return;
	owned_drop(&f->owned);
	file_gone(f);
}

ssize_t env_file_read(struct env_file *f, uint64_t offset, void *buf, size_t n)
{
	struct sim *w = f->env->w;
	struct inode *i = f->inode;
	w_spend(w, 1000 + n / 16);
	if (!i || rng_chance(&w->rng_disk, w->chances.read_error_ppm))
		return ERR_IO;
	if (offset >= i->size)
		return 0;
	if (n > i->size - offset)
		n = i->size - offset;
	memcpy(buf, i->data + offset, n);
	return (ssize_t)n;
}

static void error_output(struct sim *w, const char *p, size_t n)
{
	while (w->verbose && n) {
		const char *end = memchr(p, '\n', n);
		size_t line = end ? (size_t)(end - p) : n;
		w_line(w, "| %.*s", (int)line, p);
		p += line + (end != NULL);
		n -= line + (end != NULL);
	}
}

static bool fails(struct sim *w, unsigned *planned, uint32_t ppm)
{
	if (*planned) {
		--*planned;
		return true;
	}
	return rng_chance(&w->rng_disk, ppm);
}

/* A part is there at once, the rest when the call ends: who reads or dies in between finds it cut. */
static int append(struct env_file *f, const char *p, size_t n)
{
	struct inode *i = f->inode;
	struct sim *w = f->env->w;
	struct disk *d = i->disk;
	struct rng *r = &w->rng_disk;
	int err = d->full ? ERR_FULL : fails(w, &d->fail_appends, w->chances.write_error_ppm) ? ERR_IO : 0;
	uint64_t part = err || rng_below(r, 4) == 0 ? rng_below(r, n + 1) : rng_below(r, 2) * n;
	inode_put(i, p, part);
	if (part)
		touched(i);
	fiber_block(w, 2000 + n / 2 + rng_below(r, w->chances.write_us_max * 1000ull + 1));
	if (err == 0 && part < n) {
		inode_put(i, p + part, n - part);
		touched(i);
	}
	return err;
}

int env_file_append(struct env_file *f, const void *buf, size_t n)
{
	struct sim *w = f->env->w;
	if (!f->inode) {
		error_output(w, buf, n);
		return 0;
	}
	assert(f->flags & ENV_WRITE);
	w_note(w, "append", n, hash_bytes(0, buf, n));
	int err = append(f, buf, n);
	w_say(w, "append %zu bytes, now %llu%s", n, (unsigned long long)f->inode->size, err ? ": failed" : "");
	return err;
}

int env_file_sync(struct env_file *f)
{
	struct inode *i = f->inode;
	struct sim *w = f->env->w;
	const struct sim_chances *c = &w->chances;
	if (!i)
		return 0;
	uint64_t size = i->size;
	bool fail = fails(w, &i->disk->fail_syncs, c->sync_error_ppm);
	fiber_block(w, rng_between(&w->rng_disk, c->sync_us_min * 1000ull, c->sync_us_max * 1000ull));
	w_note(w, "sync", size, fail);
	w_say(w, "sync of %llu bytes%s", (unsigned long long)size, fail ? " failed" : "");
	if (!fail) {
		inode_sync(i, size);
		return 0;
	}
	/* The system marks the pages clean: a later sync succeeds and does not write them. */
	if (size > i->synced && rng_below(&w->rng_disk, 2)) {
		if (i->lost_from == i->lost_to)
			i->lost_from = i->synced;
		i->lost_to = size;
	}
	return ERR_IO;
}

/* Its blocks are counted as they are written. */
void env_file_reserve(struct env_file *f, uint64_t bytes)
{
	(void)f, (void)bytes;
}

int env_file_truncate(struct env_file *f, uint64_t size)
{
	w_spend(f->env->w, 3000);
	inode_truncate(f->inode, size);
	touched(f->inode);
	return 0;
}

int64_t env_file_size(struct env_file *f)
{
	w_spend(f->env->w, 500);
	return f->inode ? (int64_t)f->inode->size : 0;
}

int env_file_lock(struct env_file *f)
{
	if (f->inode->locked_by && f->inode->locked_by != f)
		return ERR_BUSY;
	f->inode->locked_by = f;
	return 0;
}

/* ---- whole files, folders ---------------------------------------------------------------------------------------------- */

int env_file_load(struct env *env, const char *path, size_t max, char **text, size_t *n)
{
	struct inode *i = disk_find(disk_of(env), path);
	w_spend(env->w, 5000 + (i ? i->size / 16 : 0));
	if (!i)
		return ERR_NOT_FOUND;
	if (i->size > max)
		return ERR_FULL;
	char *p = malloc(i->size + 1);
	if (!p)
		return ERR_NOMEM;
	memcpy(p, i->data, i->size);
	p[i->size] = '\0';
	*text = p;
	*n = i->size;
	return 0;
}

static int write_temporary(struct env *env, const char *path, const void *text, size_t n)
{
	struct env_file *f;
	int err = env_file_open(env, path, ENV_WRITE | ENV_CREATE | ENV_TRUNCATE, &f);
	if (err < 0)
		return err;
	err = env_file_append(f, text, n);
	if (err == 0)
		err = env_file_sync(f);
	env_file_close(f);
	return err;
}

int env_file_store(struct env *env, const char *path, const void *text, size_t n, int flags)
{
	char temporary[ENV_PATH_MAX];
	struct disk *d = disk_of(env);
	snprintf(temporary, sizeof(temporary), "%.*s.%08x.tmp", ENV_PATH_MAX - 20, path,
		 (unsigned)rng_next(&env->w->rng_app));
	int err = write_temporary(env, temporary, text, n);
	if (err == 0)
		err = disk_rename(d, temporary, path, flags & ENV_EXCLUSIVE);
	else
		disk_remove(d, temporary);
	if (err < 0)
		return err;
	const char *slash = strrchr(path, '/');
	snprintf(temporary, sizeof(temporary), "%.*s", slash ? (int)(slash - path) : 0, path);
	return env_dir_sync(env, slash && slash == path ? "/" : temporary);
}

int env_file_remove(struct env *env, const char *path)
{
	w_spend(env->w, 5000);
	w_say(env->w, "remove %s", path);
	return disk_remove(disk_of(env), path);
}

int env_file_rename(struct env *env, const char *from, const char *to)
{
	w_spend(env->w, 5000);
	w_say(env->w, "rename %s to %s", from, to);
	return disk_rename(disk_of(env), from, to, false);
}

int64_t env_file_mtime_us(struct env *env, const char *path)
{
	struct inode *i = disk_find(disk_of(env), path);
	return i ? i->mtime_us : ERR_NOT_FOUND;
}

int env_dir_make(struct env *env, const char *path)
{
	w_spend(env->w, 5000);
	return disk_make(disk_of(env), env, path);
}

int env_dir_sync(struct env *env, const char *path)
{
	struct sim *w = env->w;
	fiber_block(w, rng_between(&w->rng_disk, w->chances.sync_us_min * 1000ull, w->chances.sync_us_max * 1000ull));
	return disk_sync_folder(disk_of(env), path);
}

int64_t env_disk_free(struct env *env, const char *path)
{
	(void)path;
	return disk_of(env)->full ? 0 : INT64_MAX;
}

int env_dir_list(struct env *env, const char *path, char ***names, size_t *n)
{
	w_spend(env->w, 10000);
	return disk_list(disk_of(env), path, names, n);
}

/* ---- the test's hands ------------------------------------------------------------------------------------------------------- */

void sim_disk_full(struct sim *w, const char *host, bool on)
{
	w_host(w, host)->disk->full = on;
	w_say(w, "disk of %s is %s", host, on ? "full" : "not full any more");
}

void sim_disk_fail(struct sim *w, const char *host, unsigned appends, unsigned syncs)
{
	struct disk *d = w_host(w, host)->disk;
	d->fail_appends = appends;
	d->fail_syncs = syncs;
}

ssize_t sim_file_load(struct sim *w, const char *host, const char *path, char **text)
{
	struct inode *i = disk_find(w_host(w, host)->disk, path);
	if (!i)
		return ERR_NOT_FOUND;
	*text = malloc(i->size + 1);
	memcpy(*text, i->data, i->size);
	(*text)[i->size] = '\0';
	return (ssize_t)i->size;
}

void sim_file_store(struct sim *w, const char *host, const char *path, const void *text, size_t n)
{
	struct disk *d = w_host(w, host)->disk;
	char folder[ENV_PATH_MAX];
	struct inode *i;
	const char *slash = strrchr(path, '/');
	snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) : 0, path);
	disk_make(d, NULL, folder);
	int err = disk_open(d, path, ENV_CREATE | ENV_TRUNCATE, &i);
	assert(err == 0);
	inode_put(i, text, n);
	inode_sync(i, n);
	touched(i);
	disk_sync_folder(d, folder);
}

void sim_file_remove(struct sim *w, const char *host, const char *path)
{
	disk_remove(w_host(w, host)->disk, path);
}
