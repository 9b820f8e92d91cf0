#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "common/env_sim_disk.h"
/*
 * Names: folders, opening, renaming, watching, and the real files below the roots.
 */

/* ---- paths ---------------------------------------------------------------------------------------------------- */

/* Relative to the world's working folder, without ".", "..", double slashes; "" is that folder itself. */
static void normalize(struct sim *w, const char *path, char out[ENV_PATH_MAX])
{
	size_t n = 0;
	for (struct text_pair *root = w->roots; root; root = root->next) {
		size_t r = strlen(root->value);
		if (strncmp(path, root->value, r) == 0 && (path[r] == '/' || !path[r]))
			path += r + (path[r] == '/');
	}
	if (*path == '/')
		out[n++] = '/';
	while (*path) {
		size_t part = strcspn(path, "/");
		if (part == 2 && path[0] == '.' && path[1] == '.') {
			while (n && out[n - 1] != '/')
				n--;
			n -= n > 1;
		} else if (part && !(part == 1 && *path == '.')) {
			if (n && out[n - 1] != '/')
				out[n++] = '/';
			assert(n + part < ENV_PATH_MAX - 1);
			memcpy(out + n, path, part);
			n += part;
		}
		path += part + (path[part] == '/');
	}
	out[n] = '\0';
}

static void folder_of(const char *path, char out[ENV_PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	snprintf(out, ENV_PATH_MAX, "%.*s", slash ? (int)(slash == path ? 1 : slash - path) : 0, path);
}

/* ---- real files: read once per program, not once per seed ---------------------------------------------------------- */

struct real {
	struct real *next;
	char *path, *text;
	size_t n;
	bool there, folder;
};

static struct real *reals[256]; /* a cache of what never changes; the worlds' contents do not depend on it */

static void real_read(struct real *r)
{
	struct stat st;
	if (stat(r->path, &st) < 0)
		return;
	r->there = true;
	r->folder = S_ISDIR(st.st_mode);
	FILE *f = r->folder ? NULL : fopen(r->path, "rb");
	if (!f)
		return;
	r->text = malloc((size_t)st.st_size + 1);
	r->n = fread(r->text, 1, (size_t)st.st_size, f);
	r->text[r->n] = '\0';
	fclose(f);
}

static struct real *real_at(const char *path)
{
	struct real **at = &reals[hash_bytes(0, path, strlen(path)) % 256];
	for (; *at; at = &(*at)->next)
		if (strcmp((*at)->path, path) == 0)
			return *at;
	struct sim_scope scope = sim_outside();
	*at = calloc(1, sizeof(**at));
	(*at)->path = strdup(path);
	real_read(*at);
	sim_inside(scope);
	return *at;
}

static struct real *real_find(struct sim *w, const char *path)
{
	char full[2 * ENV_PATH_MAX];
	if (*path == '/')
		return NULL;
	for (struct text_pair *root = w->roots; root; root = root->next) {
		snprintf(full, sizeof(full), "%s/%s", root->value, path);
		struct real *r = real_at(full);
		if (r->there)
			return r;
	}
	return NULL;
}

/* ---- names ------------------------------------------------------------------------------------------------------------ */

static struct name **name_at(struct disk *d, const char *path)
{
	struct name **at = &d->names[hash_bytes(0, path, strlen(path)) % SIM_NAMES];
	while (*at && strcmp((*at)->path, path) != 0)
		at = &(*at)->next;
	return at;
}

static void name_set(struct disk *d, const char *path, struct inode *inode)
{
	struct name **at = name_at(d, path), *name = *at;
	if (inode)
		inode_ref(inode);
	if (name) {
		inode_unref(name->inode);
		name->inode = inode;
	} else {
		name = *at = w_alloc(sizeof(*name));
		name->path = w_strdup(path);
		name->inode = inode;
	}
	if (!inode && !name->folder) {
		*at = name->next;
		w_free(name->path);
		w_free(name);
	}
}

/* A change of a name that is about to be made; until its folder is synced a power cut may undo it. */
static struct dirop *note_op(struct disk *d, const char *path)
{
	struct dirop *op = w_alloc(sizeof(*op));
	struct name *name = *name_at(d, path);
	op->path = w_strdup(path);
	op->was = name ? name->inode : NULL;
	if (op->was)
		inode_ref(op->was);
	op->older = d->ops;
	d->ops = op;
	return op;
}

static void rename_op(struct disk *d, const char *path, struct inode *inode)
{
	note_op(d, path);
	name_set(d, path, inode);
	disk_changed(d, path);
}

static void dirop_free(struct dirop *op)
{
	inode_unref(op->was);
	w_free(op->path);
	w_free(op);
}

static bool is_folder(struct disk *d, const char *path)
{
	struct name *name = *name_at(d, path);
	struct real *r = *path ? real_find(d->w, path) : NULL;
	return !*path || strcmp(path, "/") == 0 || (name && name->folder) || (r && r->folder);
}

static struct inode *find(struct disk *d, const char *path)
{
	struct name *name = *name_at(d, path);
	struct real *r = name ? NULL : real_find(d->w, path);
	if (name)
		return name->inode;
	if (!r || r->folder)
		return NULL;
	/* its bytes are taken over; from then on it is a file of this disk, as old as the world */
	struct inode *i = inode_new(d);
	inode_put(i, r->text, r->n);
	i->synced = i->size;
	i->mtime_us = 1;
	name_set(d, path, i);
	inode_unref(i);
	return i;
}

int disk_open(struct disk *d, const char *raw, int flags, struct inode **out)
{
	char path[ENV_PATH_MAX], folder[ENV_PATH_MAX];
	normalize(d->w, raw, path);
	folder_of(path, folder);
	struct inode *i = find(d, path);
	if (i && flags & ENV_EXCLUSIVE)
		return ERR_EXISTS;
	if (is_folder(d, path))
		return ERR_IO;
	if (!i) {
		if (!(flags & (ENV_CREATE | ENV_EXCLUSIVE)) || !is_folder(d, folder))
			return ERR_NOT_FOUND;
		i = inode_new(d);
		rename_op(d, path, i);
		inode_unref(i);
	} else if (flags & ENV_TRUNCATE) {
		inode_truncate(i, 0);
		disk_changed(d, path);
	}
	*out = i;
	return 0;
}

int disk_rename(struct disk *d, const char *from, const char *to, bool exclusive)
{
	char a[ENV_PATH_MAX], b[ENV_PATH_MAX];
	normalize(d->w, from, a);
	normalize(d->w, to, b);
	struct inode *i = find(d, a);
	if (!i)
		return ERR_NOT_FOUND;
	bool lost = exclusive && find(d, b);
	inode_ref(i);
	if (!lost)
		rename_op(d, b, i);
	rename_op(d, a, NULL);
	inode_unref(i);
	return lost ? ERR_EXISTS : 0;
}

int disk_remove(struct disk *d, const char *raw)
{
	char path[ENV_PATH_MAX];
	normalize(d->w, raw, path);
	if (!find(d, path))
		return ERR_NOT_FOUND;
	rename_op(d, path, NULL);
	return 0;
}

struct inode *disk_find(struct disk *d, const char *raw)
{
	char path[ENV_PATH_MAX];
	normalize(d->w, raw, path);
	return find(d, path);
}

/* ---- folders ------------------------------------------------------------------------------------------------------------ */

static void make_folder(struct disk *d, const char *path)
{
	struct name **at = name_at(d, path);
	note_op(d, path)->folder = true;
	if (!*at) {
		*at = w_alloc(sizeof(**at));
		(*at)->path = w_strdup(path);
	}
	(*at)->folder = true;
}

/* One folder. 1: it was made, 0: it was there */
static int make_one(struct disk *d, const char *path)
{
	if (find(d, path))
		return ERR_IO;
	if (is_folder(d, path))
		return 0;
	make_folder(d, path);
	return 1;
}

int disk_make(struct disk *d, struct env *env, const char *raw)
{
	char path[ENV_PATH_MAX], folder[ENV_PATH_MAX];
	normalize(d->w, raw, path);
	for (size_t i = 1, n = strlen(path); i <= n; i++) {
		char was = path[i];
		if (was && was != '/')
			continue;
		path[i] = '\0';
		folder_of(path, folder);
		int made = make_one(d, path);
		path[i] = was;
		if (made < 0)
			return made;
		if (!made && was)
			continue;
		int err = env ? env_dir_sync(env, folder) : disk_sync_folder(d, folder);
		if (err < 0)
			return err;
	}
	return 0;
}

/* The names in a folder can no longer be undone. */
int disk_sync_folder(struct disk *d, const char *raw)
{
	char path[ENV_PATH_MAX], folder[ENV_PATH_MAX];
	normalize(d->w, raw, path);
	if (!is_folder(d, path))
		return ERR_NOT_FOUND;
	for (struct dirop **at = &d->ops, *op; (op = *at);) {
		folder_of(op->path, folder);
		if (strcmp(folder, path) == 0) {
			*at = op->older;
			dirop_free(op);
		} else {
			at = &op->older;
		}
	}
	return 0;
}

struct names {
	char **at;
	size_t n, cap;
};

static void names_add(struct names *l, const char *name, size_t bytes)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 16;
		l->at = realloc(l->at, l->cap * sizeof(*l->at));
	}
	l->at[l->n++] = strndup(name, bytes);
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(struct names *l)
{
	size_t kept = 0;
	if (l->n)
		qsort(l->at, l->n, sizeof(*l->at), by_bytes);
	for (size_t i = 0; i < l->n; i++)
		if (kept && strcmp(l->at[kept - 1], l->at[i]) == 0)
			free(l->at[i]);
		else
			l->at[kept++] = l->at[i];
	l->n = kept;
}

static void add_real(struct sim *w, struct names *l, const char *path)
{
	struct real *r = real_find(w, path);
	struct dirent *e;
	DIR *dir = r && r->folder ? opendir(r->path) : NULL;
	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			names_add(l, e->d_name, strlen(e->d_name));
	if (dir)
		closedir(dir);
}

int disk_list(struct disk *d, const char *raw, char ***names, size_t *n)
{
	char path[ENV_PATH_MAX];
	struct names l = { 0 };
	normalize(d->w, raw, path);
	if (!is_folder(d, path))
		return ERR_NOT_FOUND;
	size_t prefix = strlen(path);
	for (size_t i = 0; i < SIM_NAMES; i++)
		for (struct name *name = d->names[i]; name; name = name->next) {
			const char *rest = name->path + prefix + (prefix > 1 || (prefix && *path != '/'));
			if (strncmp(name->path, path, prefix) == 0 && strlen(name->path) > prefix &&
			    (!prefix || prefix == 1 || name->path[prefix] == '/') && !strchr(rest, '/'))
				names_add(&l, rest, strlen(rest));
		}
	add_real(d->w, &l, path);
	names_sort(&l);
	*names = l.at;
	*n = l.n;
	return 0;
}

/* ---- power off -------------------------------------------------------------------------------------------------------------- */

/* A folder with all that is in it. */
static void drop_folder(struct disk *d, const char *path)
{
	size_t n = strlen(path);
	for (size_t i = 0; i < SIM_NAMES; i++)
		for (struct name **at = &d->names[i], *name; (name = *at);) {
			if (strncmp(name->path, path, n) != 0 || (name->path[n] && name->path[n] != '/')) {
				at = &name->next;
				continue;
			}
			*at = name->next;
			inode_unref(name->inode);
			w_free(name->path);
			w_free(name);
		}
}

struct kept {
	struct kept *next;
	char folder[ENV_PATH_MAX];
};

/* Of what was done to the names of each folder and not synced, the later part may be undone. */
static void undo_names(struct disk *d)
{
	struct kept *kept = NULL, *k;
	char folder[ENV_PATH_MAX];
	for (struct dirop *op; (op = d->ops);) {
		d->ops = op->older;
		folder_of(op->path, folder);
		for (k = kept; k && strcmp(k->folder, folder) != 0; k = k->next)
			;
		if (!k && rng_below(&d->w->rng_disk, 2)) {
			k = w_alloc(sizeof(*k));
			strcpy(k->folder, folder);
			k->next = kept;
			kept = k;
		}
		if (!k) {
			w_say(d->w, "power off undoes a change of the name %s", op->path);
			if (op->folder)
				drop_folder(d, op->path);
			else
				name_set(d, op->path, op->was);
		}
		dirop_free(op);
	}
	while ((k = kept)) {
		kept = k->next;
		w_free(k);
	}
}

void disk_machine_died(struct disk *d)
{
	undo_names(d);
	for (size_t i = 0; i < SIM_NAMES; i++)
		for (struct name *name = d->names[i]; name; name = name->next)
			if (name->inode && inode_tear(name->inode))
				w_say(d->w, "power off tears %s to %llu bytes", name->path,
				      (unsigned long long)name->inode->size);
}

/* ---- watching ---------------------------------------------------------------------------------------------------------------- */

struct env_watch {
	struct owned owned;
	struct ready ready;
	struct obj obj;
	struct env_watch *next;
	struct disk *disk;
	char path[ENV_PATH_MAX];
	bool told;
	void (*fn)(void *arg);
	void *arg;
};

#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

static void on_told(struct sim *w, void *obj, uint64_t n)
{
	struct env_watch *watch = CONTAINER(obj, struct env_watch, obj);
	(void)w, (void)n;
	watch->told = false;
	loop_ready(&watch->ready);
}

void disk_changed(struct disk *d, const char *path)
{
	char folder[ENV_PATH_MAX];
	if (!d->watches)
		return;
	folder_of(path, folder);
	for (struct env_watch *watch = d->watches; watch; watch = watch->next)
		if (!watch->told && strcmp(watch->path, folder) == 0) {
			watch->told = true;
			w_push(d->w, w_now(d->w) + rng_between(&d->w->rng_disk, 5000, 500000), on_told, &watch->obj, 0);
		}
}

void disk_inode_changed(struct disk *d, struct inode *inode)
{
	if (!d->watches)
		return;
	for (size_t i = 0; i < SIM_NAMES; i++)
		for (struct name *name = d->names[i]; name; name = name->next)
			if (name->inode == inode)
				disk_changed(d, name->path);
}

static void run_watch(struct ready *r)
{
	struct env_watch *watch = CONTAINER(r, struct env_watch, ready);
	watch->fn(watch->arg);
}

static void watch_free(struct obj *o)
{
	w_free(CONTAINER(o, struct env_watch, obj));
}

static void watch_gone(struct env_watch *watch)
{
	struct env_watch **at = &watch->disk->watches;
	while (*at != watch)
		at = &(*at)->next;
	*at = watch->next;
	ready_drop(&watch->ready);
	obj_kill(&watch->obj);
}

static void watch_died(struct owned *o, bool machine)
{
	(void)machine;
	watch_gone(CONTAINER(o, struct env_watch, owned));
}

int env_watch(struct env_loop *loop, const char *dir, void (*fn)(void *arg), void *arg, struct env_watch **out)
{
	struct disk *d = loop->env->p->host->disk;
	struct env_watch *watch;
	char path[ENV_PATH_MAX];
	assert(env_loop_is_current(loop));
	normalize(d->w, dir, path);
	if (!is_folder(d, path))
		return ERR_NOT_FOUND;
	*out = watch = w_alloc(sizeof(*watch));
	obj_init(&watch->obj, watch_free);
	strcpy(watch->path, path);
	watch->ready = (struct ready){ .loop = loop, .obj = &watch->obj, .run = run_watch };
	watch->disk = d;
	watch->fn = fn;
	watch->arg = arg;
	watch->next = d->watches;
	d->watches = watch;
	owned_add(loop->env, &watch->owned, watch_died);
	return 0;
}

void env_watch_close(struct env_watch *watch)
{
	if (!watch)
		return;
	owned_drop(&watch->owned);
	watch_gone(watch);
}

struct disk *disk_new(struct sim *w, struct host *h)
{
	struct disk *d = w_alloc(sizeof(*d));
	d->w = w;
	d->host = h;
	return d;
}
