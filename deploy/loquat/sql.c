#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "deploy/loquat/loquat.h"

/* The mariadb client on the cluster's database. It takes this process' place, so its prompt and its status are ours. */
int command_sql(struct cluster *c, int argc, char **argv)
{
	const char *host = config_string(c->config, "database.host", ""), *args[16] = { "mariadb", "--no-defaults" };
	const char *password = config_string(c->config, "database.password", "");
	char user[128], where[ENV_PATH_MAX + 64], port[32];
	int n = 2;

	if (argc != 1 && (argc != 3 || strcmp(argv[1], "-e") != 0))
		return complain("sql: expected nothing, or -e STATEMENT (loquat sql --help)");
	snprintf(user, sizeof user, "--user=%s", config_string(c->config, "database.user", "root"));
	args[n++] = user;
	if (*host) {
		snprintf(where, sizeof where, "--host=%s", host);
		snprintf(port, sizeof port, "--port=%d", (int)config_int(c->config, "database.port", 3306));
		args[n++] = port;
	} else {
		if (access(c->socket, F_OK) < 0)
			return complain("the database does not run (%s: %s): %s up%s", c->socket, strerror(errno),
					c->typed, c->option),
			       1;
		snprintf(where, sizeof where, "--socket=%s", c->socket);
	}
	args[n++] = where;
	args[n++] = "--default-character-set=utf8mb4";
	if (argc == 3) {
		args[n++] = "-N";
		args[n++] = "-B";
		args[n++] = "-e";
		args[n++] = argv[2];
	}
	args[n++] = config_string(c->config, "database.name", "loquat");
	if (*password)
		setenv("MYSQL_PWD", password, 1); /* not an argument: those anybody can read */
	execvp("mariadb", (char *const *)(uintptr_t)args);
	return complain("the program mariadb cannot be run (%s): sudo apt-get install mariadb-client-core",
			strerror(errno));
}
