#include <stdio.h>
#include <string.h>
#include "rpc/service_private.h"

/*
 * Mutual TLS of the inner links, where rpc.tls names certificates. It comes beneath the proof of the cluster key, not in its
 * place. The files are read anew when their folder changes: links that stand stay, new ones show the new certificate.
 */
static const char *const names[] = { "rpc.tls.cert", "rpc.tls.key", "rpc.tls.ca" };

static const char *file_of(const struct service *s, size_t i, char path[ENV_PATH_MAX])
{
	const char *name = config_string(s->config, names[i], "");

	return *name ? service_path(s, name, path) : NULL;
}

int tls_open(struct service *s, char *error, size_t error_size)
{
	char path[3][ENV_PATH_MAX];
	const char *file[3];
	size_t given = 0;

	for (size_t i = 0; i < 3; i++)
		given += (file[i] = file_of(s, i, path[i])) != NULL;
	if (!given)
		return 0;
	for (size_t i = 0; i < 3; i++)
		if (!file[i]) {
			snprintf(error, error_size, "%s: %s: expected a file, for the others of rpc.tls are given",
				 s->p->config_file, names[i]);
			return ERR_CONFIG;
		}
	return env_tls_new(s->env, &(struct env_tls_options){ file[0], file[1], file[2] }, error, error_size, &s->tls);
}

static void on_change(void *arg)
{
	struct service *s = arg;
	char error[300];

	if (env_tls_reload(s->tls, error, sizeof error) < 0)
		log_warn(s->log, "tls.refused", "why=%s", error);
	else
		log_info(s->log, "tls.reloaded", "cert=%s", config_string(s->config, "rpc.tls.cert", ""));
}

void tls_watch(struct service *s)
{
	char folder[ENV_PATH_MAX];

	if (!s->tls || !file_of(s, 0, folder))
		return;
	char *slash = strrchr(folder, '/');

	if (slash)
		slash[slash == folder] = '\0';
	else
		memcpy(folder, ".", 2);
	if (env_watch(s->control->ev, folder, on_change, s, &s->p->tls_watch) < 0)
		log_warn(s->log, "tls.watch", "folder=%s why=%s", folder, env_last_error());
}
