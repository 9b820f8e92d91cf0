#include <stdio.h>
#include <string.h>
#include "deploy/loquat/database.h"
/*
 * loquat migrate: the new files of deploy/schema on a database that is in use. The replay goes on meanwhile.
 */

struct migrate {
	struct cluster *c;
	struct loop *loop;
	struct database *db;
	int status;
};

static void on_ready(void *arg, const char *why)
{
	struct migrate *m = arg;

	if (why) {
		complain("%s", why);
		m->status = 1;
	} else {
		unsigned n = database_applied(m->db);

		printf("loquat: the schema is up to date, %u migration%s applied\n", n, n == 1 ? "" : "s");
	}
	loop_stop(m->loop);
}

static void on_start(struct loop *loop, void *arg)
{
	struct migrate *m = arg;

	m->loop = loop;
	m->db = database_open(m->c, loop, on_ready, m);
}

static void on_stop(struct loop *loop, void *arg)
{
	(void)loop;
	database_close(((struct migrate *)arg)->db);
}

int command_migrate(struct cluster *c, int argc, char **argv)
{
	struct migrate m = { .c = c };
	struct loop *loop;

	if (argc > 1)
		return complain("migrate takes no \"%s\" (loquat migrate --help)", argv[1]);
	if (c->private_database && env_file_mtime_us(c->env, c->socket) < 0) {
		complain("the cluster's database does not run: %s up%s applies the schema itself", c->typed, c->option);
		return 1;
	}
	if (loop_start(c->env, "migrate", 0, on_start, on_stop, &m, &loop) < 0)
		return complain("no thread could be started");
	loop_join(loop);
	return m.status;
}
