#include "rpc/keys.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

/* The first writer wins, and nobody ever sees half a key. */
static int key_make(struct env *env, const char *path)
{
	unsigned char raw[KEY_HEX / 2];
	char text[KEY_HEX + 1];

	env_random(env, raw, sizeof raw);
	for (size_t i = 0; i < sizeof raw; i++)
		snprintf(text + 2 * i, 3, "%02x", raw[i]);
	return env_file_store(env, path, text, KEY_HEX, ENV_EXCLUSIVE | ENV_PRIVATE);
}

static int key_read(struct env *env, const char *path, char key[KEY_HEX + 1])
{
	char *text;
	size_t n;
	int err = env_file_load(env, path, 4096, &text, &n);

	if (err < 0)
		return err;
	if (n != KEY_HEX || strspn(text, "0123456789abcdef") != KEY_HEX)
		err = ERR_CONFIG;
	else
		memcpy(key, text, KEY_HEX + 1);
	free(text);
	return err;
}

int key_load(struct env *env, const char *folder, const char *name, char key[KEY_HEX + 1], char *error,
	     size_t error_size)
{
	char path[ENV_PATH_MAX];
	int err;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	err = key_read(env, path, key);
	if (err == ERR_NOT_FOUND) {
		err = env_dir_make(env, folder);
		if (err == 0)
			err = key_make(env, path);
		if (err == 0 || err == ERR_EXISTS) /* another process may have been faster */
			err = key_read(env, path, key);
	}
	if (err == ERR_CONFIG)
		snprintf(error, error_size, "%s: expected 64 lower-case hex digits; remove it and a new one is written",
			 path);
	else if (err < 0)
		snprintf(error, error_size, "%s: %s", path, err == ERR_IO ? env_last_error() : err_text(err));
	return err;
}
