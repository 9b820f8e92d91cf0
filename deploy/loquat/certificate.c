#include <stdio.h>
#include "common/err.h"
#include "deploy/loquat/loquat.h"

int certificate_open(struct cluster *c, const char *section, char file[ENV_PATH_MAX], char *error, size_t error_size,
		     struct env_tls **out)
{
	static const char *const names[] = { "cert", "key", "ca" };
	char path[3][ENV_PATH_MAX], name[48];
	const char *given[3];

	*out = NULL;
	for (size_t i = 0; i < 3; i++) {
		snprintf(name, sizeof name, "%s.%s", section, names[i]);
		const char *text = config_string(c->config, name, "");

		given[i] = *text ? cluster_path(c, text, path[i]) : NULL;
	}
	if (!given[0])
		return 0;
	snprintf(file, ENV_PATH_MAX, "%s", given[0]);
	return env_tls_new(c->env, &(struct env_tls_options){ given[0], given[1], given[2] }, error, error_size, out);
}
