#include "dbwriter/history.h"
#include <stdio.h>
#include <string.h>
#include "deploy/loquat/loquat.h"

static void print(void *arg, const char *text, size_t bytes)
{
	(void)arg;
	fwrite(text, 1, bytes, stdout);
}

/* loquat history --key role:42 [FROM…]: the logs of this host, unless others are named. Exit 1: nothing was found. */
int command_history(struct cluster *c, int argc, char **argv)
{
	const char *from[64], *key = NULL;
	char folder[ENV_PATH_MAX + 8], why[400] = "";
	unsigned n = 0;

	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--key"))
			key = i + 1 < argc ? argv[++i] : NULL;
		else if (*argv[i] == '-' || n == 64)
			return complain("history: %s is not understood (loquat history --help)", argv[i]);
		else
			from[n++] = argv[i];
	if (!key)
		return complain("history: which key? loquat history --key role:42");
	snprintf(folder, sizeof folder, "%s/sqllog", c->var);
	if (!n)
		from[n++] = folder;
	int found = history_each(c->env, from, n, key, print, NULL, why, sizeof why);

	if (found < 0)
		return complain("history: %s", why);
	if (!found)
		fprintf(stderr, "loquat: no change of %s in %s\n", key, from[0]);
	return !found;
}
