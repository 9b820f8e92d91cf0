#pragma once
#include <stddef.h>
#include "common/env.h"
/*
 * keys: the cluster's secrets: files of 64 lower-case hex digits, mode 0600, below paths.var/keys.
 *
 * Threads: any (blocking file calls).
 */
#define KEY_HEX 64
/* Reads the key, or writes a random one at the first start. error names the file. ERR_CONFIG, ERR_IO */
int key_load(struct env *env, const char *folder, const char *name, char key[KEY_HEX + 1], char *error,
	     size_t error_size);
