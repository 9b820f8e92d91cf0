#pragma once
#include "common/env_sim_private.h"
/*
 * The disk of a simulated machine: names lead to inodes; a file only grows, is cut, or is replaced.
 * Private to env_sim_disk.c (names) and env_sim_file.c (contents).
 *
 * Threads: the simulation's one. Memory: the world's: it outlives the processes, as a disk does.
 */
#define SIM_NAMES 256

struct inode {
	unsigned refs; /* names, open files, names that a power cut may bring back */
	struct disk *disk;
	char *data;
	uint64_t size, cap;
	uint64_t synced; /* this much survives the machine */
	char *undo;      /* what stood at [synced, synced + undo_n) before a cut that is not synced yet */
	uint64_t undo_n;
	uint64_t lost_from, lost_to; /* a sync failed: the system forgot these bytes though it still shows them */
	struct env_file *locked_by;
	int64_t mtime_us;
};
struct name {
	struct name *next;
	char *path;
	struct inode *inode; /* NULL: a folder */
	bool folder;
};
struct dirop {
	struct dirop *older;
	char *path;
	struct inode *was; /* NULL: there was none */
	bool folder;       /* it was made */
};
struct disk {
	struct sim *w;
	struct host *host;
	struct name *names[SIM_NAMES];
	struct dirop *ops; /* not synced, newest first */
	struct env_watch *watches;
	bool full;
	unsigned fail_appends, fail_syncs;
};

struct inode *inode_new(struct disk *d); /* one reference */
void inode_ref(struct inode *i);
void inode_unref(struct inode *i); /* NULL is fine */
void inode_put(struct inode *i, const void *p, size_t n);
void inode_truncate(struct inode *i, uint64_t size);
bool inode_tear(struct inode *i); /* the machine died: true if it lost something */

int disk_open(struct disk *d, const char *path, int flags, struct inode **out); /* borrowed */
struct inode *disk_find(struct disk *d, const char *path);                      /* borrowed, NULL: none */
int disk_rename(struct disk *d, const char *from, const char *to, bool exclusive);
int disk_remove(struct disk *d, const char *path);
int disk_make(struct disk *d, struct env *env, const char *path); /* env: who waits for the syncs; NULL: nobody */
int disk_sync_folder(struct disk *d, const char *path);
int disk_list(struct disk *d, const char *path, char ***names, size_t *n); /* malloc'ed */
void disk_changed(struct disk *d, const char *path);                       /* normalized */
void disk_inode_changed(struct disk *d, struct inode *i);
