#pragma once
#include <stddef.h>
/*
 * folder: a folder of a test's own below the system's temporary one, and its files as bytes.
 *
 * Memory: folder_new gives the path, folder_free removes the folder with all in it. Trouble fails the test.
 */
char *folder_new(void);
void folder_free(char *path);
char *folder_read(const char *dir, const char *name, size_t *n); /* NUL-ended; free it */
void folder_write(const char *dir, const char *name, const void *bytes, size_t n);
long folder_size(const char *dir, const char *name); /* -1: no such file */
