#include "tests/support/folder.h"
#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *folder_new(void)
{
	const char *tmp = getenv("TMPDIR");
	char *path = malloc(300);
	snprintf(path, 300, "%s/loquat-test-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(path));
	return path;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
	(void)st, (void)kind, (void)where;
	return remove(path);
}

void folder_free(char *path)
{
	if (!path)
		return;
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(path);
}

static FILE *open_in(const char *dir, const char *name, const char *mode)
{
	char path[600];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return fopen(path, mode);
}

char *folder_read(const char *dir, const char *name, size_t *n)
{
	long size = folder_size(dir, name);
	FILE *f = open_in(dir, name, "rb");
	ck_assert_msg(f && size >= 0, "%s/%s cannot be read", dir, name);
	char *bytes = malloc((size_t)size + 1);
	*n = fread(bytes, 1, (size_t)size, f);
	bytes[*n] = '\0';
	fclose(f);
	return bytes;
}

void folder_write(const char *dir, const char *name, const void *bytes, size_t n)
{
	FILE *f = open_in(dir, name, "wb");
	ck_assert_msg(f, "%s/%s cannot be written", dir, name);
	ck_assert_uint_eq(fwrite(bytes, 1, n, f), n);
	ck_assert_int_eq(fclose(f), 0);
}

long folder_size(const char *dir, const char *name)
{
	char path[600];
	struct stat st;
	snprintf(path, sizeof path, "%s/%s", dir, name);
	return stat(path, &st) < 0 ? -1 : (long)st.st_size;
}
