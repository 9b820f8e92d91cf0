#include "common/luasrc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/luatable.h"

struct luasrc {
	_Atomic unsigned refs;
	struct luasrc_file *file;
	size_t files, cap;
	char version[9];
};
struct reading {
	struct env *env;
	struct luasrc *src;
	char *error;
	size_t error_size;
	bool tests;
};

static struct luasrc *new_src(void)
{
	struct luasrc *s = calloc(1, sizeof *s);
	if (!s)
		abort();
	atomic_store_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

static char *copy_of(const char *text)
{
	char *copy = strdup(text);
	if (!copy)
		abort();
	return copy;
}

/* Takes text; name and path are copied. */
static void add_file(struct luasrc *s, const char *name, const char *path, char *text, size_t bytes)
{
	if (s->files == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 16;
		s->file = realloc(s->file, s->cap * sizeof *s->file);
		if (!s->file)
			abort();
	}
	s->file[s->files++] = (struct luasrc_file){ copy_of(name), copy_of(path), text, bytes, NULL, 0, NULL };
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct luasrc_file *)a)->name, ((const struct luasrc_file *)b)->name);
}

static uint32_t mix(uint32_t h, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ (unsigned char)p[i]) * 16777619u;
	return h;
}

static void finish(struct luasrc *s)
{
	uint32_t h = 2166136261u; /* FNV-1a: tells versions apart, guards nothing */
	if (s->files)
		qsort(s->file, s->files, sizeof *s->file, by_name);
	for (size_t i = 0; i < s->files; i++) {
		h = mix(h, s->file[i].name, strlen(s->file[i].name) + 1);
		h = mix(h, s->file[i].text, s->file[i].bytes);
	}
	snprintf(s->version, sizeof s->version, "%08x", h);
}

static int read_file(struct reading *r, const char *name, const char *path)
{
	char *text;
	size_t n;
	for (size_t i = 0; i < r->src->files; i++)
		if (!strcmp(r->src->file[i].name, name))
			return 0; /* hidden by an earlier folder */
	if (r->src->files == LUASRC_FILES) {
		snprintf(r->error, r->error_size, "%s: more than %d Lua files", path, LUASRC_FILES);
		return ERR_FULL;
	}
	int err = env_file_load(r->env, path, LUASRC_BYTES, &text, &n);
	if (err == ERR_FULL) {
		snprintf(r->error, r->error_size, "%s: more than %u bytes", path, LUASRC_BYTES);
		return err;
	}
	if (err < 0) {
		snprintf(r->error, r->error_size, "%s: %s", path, err == ERR_IO ? env_last_error() : err_text(err));
		return err;
	}
	add_file(r->src, name, path, text, n);
	return 0;
}

static int make_tables(struct luasrc *s, char *error, size_t error_size)
{
	int err = 0;
	for (size_t i = 0; err == 0 && i < s->files; i++) {
		struct luasrc_file *f = &s->file[i];
		if (!strncmp(f->name, "tables.", 7))
			err = luatable_make(f->path, f->text, f->bytes, error, error_size, &f->table);
	}
	return err;
}

static void free_names(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* "grid.lua" is a file, what has no dot may be a folder. prefix: "" or "lib." */
static int read_folder(struct reading *r, const char *folder, const char *prefix)
{
	char **names, path[ENV_PATH_MAX + 256], name[256];
	size_t n;
	int err = env_dir_list(r->env, folder, &names, &n);
	if (err < 0)
		return err;
	for (size_t i = 0; err == 0 && i < n; i++) {
		size_t bytes = strlen(names[i]);
		bool file = bytes > 4 && !strcmp(names[i] + bytes - 4, ".lua");
		if (names[i][0] == '.' || bytes + strlen(prefix) >= sizeof name ||
		    (!file && (*prefix || strchr(names[i], '.') || (!r->tests && !strcmp(names[i], "tests")))))
			continue;
		snprintf(path, sizeof path, "%s/%s", folder, names[i]);
		snprintf(name, sizeof name, "%s%.*s%s", prefix, (int)(file ? bytes - 4 : bytes), names[i],
			 file ? "" : ".");
		if (file)
			err = read_file(r, name, path);
		else if ((err = read_folder(r, path, name)) == ERR_NOT_FOUND || err == ERR_IO)
			err = 0; /* no folder after all */
	}
	free_names(names, n);
	return err;
}

static int read_folders(struct env *env, const char *const *folders, bool tests, char *error, size_t error_size,
			struct luasrc **out)
{
	struct reading r = { env, new_src(), error, error_size, tests };
	int err = 0;
	for (; err == 0 && *folders; folders++) {
		*error = 0;
		err = read_folder(&r, *folders, "");
		if (err < 0 && !*error)
			snprintf(error, error_size, "%s: %s", *folders,
				 err == ERR_IO ? env_last_error() : err_text(err));
	}
	if (err == 0 && !r.src->files) { /* as in the middle of a copy: nothing would be found any more */
		snprintf(error, error_size, "%s: there is no Lua file", folders[-1]);
		err = ERR_NOT_FOUND;
	}
	if (err == 0)
		err = make_tables(r.src, error, error_size);
	if (err < 0) {
		luasrc_unref(r.src);
		return err;
	}
	finish(r.src);
	*out = r.src;
	return 0;
}

int luasrc_read(struct env *env, const char *const *folders, char *error, size_t error_size, struct luasrc **out)
{
	return read_folders(env, folders, false, error, error_size, out);
}

int luasrc_read_tests(struct env *env, const char *const *folders, char *error, size_t error_size, struct luasrc **out)
{
	return read_folders(env, folders, true, error, error_size, out);
}

struct luasrc *luasrc_of(const char *const *names_and_texts)
{
	struct luasrc *s = new_src();
	for (const char *const *p = names_and_texts; *p; p += 2) {
		char path[300];
		snprintf(path, sizeof path, "%s.lua", p[0]);
		add_file(s, p[0], path, copy_of(p[1]), strlen(p[1]));
	}
	finish(s);
	char error[256];
	if (make_tables(s, error, sizeof error) < 0)
		abort();
	return s;
}

struct luasrc *luasrc_ref(struct luasrc *s)
{
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void luasrc_unref(struct luasrc *s)
{
	/* acquire and release: what others read must be done before it is freed */
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (size_t i = 0; i < s->files; i++) {
		free((char *)s->file[i].name);
		free((char *)s->file[i].path);
		free((char *)s->file[i].text);
		luatable_free(s->file[i].table);
		free((char *)s->file[i].code);
	}
	free(s->file);
	free(s);
}

void luasrc_compiled_take(struct luasrc *s, size_t index, char *code, size_t bytes)
{
	free((char *)s->file[index].code);
	s->file[index].code = code;
	s->file[index].code_bytes = bytes;
}

size_t luasrc_files(const struct luasrc *s)
{
	return s->files;
}

const struct luasrc_file *luasrc_at(const struct luasrc *s, size_t index)
{
	return index < s->files ? &s->file[index] : NULL;
}

const struct luasrc_file *luasrc_find(const struct luasrc *s, const char *name)
{
	struct luasrc_file key = { .name = name };
	return s->files ? bsearch(&key, s->file, s->files, sizeof key, by_name) : NULL;
}

const char *luasrc_version(const struct luasrc *s)
{
	return s->version;
}
