#include "dbwriter/show_main.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/loop.h"
#include "dbwriter/show.h"
#include "rpc/service_config.h"

static int print(struct buf *out, int result)
{
	fwrite(out->data, 1, out->len, result < 0 ? stderr : stdout);
	buf_release(out);
	return result < 0 ? 2 : result;
}

/* ---- the positions in the database ---------------------------------------------------------------------------- */

#define POSITIONS_MAX 256
#define WAIT_MS       3000

struct asking {
	struct env_db_options db;
	struct env_db *connection;
	struct timer late;
	struct loop *loop;
	struct show_position *found;
	size_t n;
	bool answered;
};

static void end(struct asking *a)
{
	loop_timer_stop(a->loop, &a->late);
	loop_stop(a->loop);
}

static void on_late(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	end((struct asking *)((char *)t - offsetof(struct asking, late)));
}

static void on_rows(void *arg, const struct env_db_result *r)
{
	struct asking *a = arg;
	for (unsigned i = 0; !r->err && i < r->rows && a->n < POSITIONS_MAX; i++) {
		struct show_position *p = &a->found[a->n++];
		snprintf(p->instance, sizeof p->instance, "%s", r->cells[3 * i]);
		p->epoch = strtoull(r->cells[3 * i + 1], NULL, 10);
		p->lsn = strtoull(r->cells[3 * i + 2], NULL, 10);
		p->known = true;
	}
	a->answered = !r->err;
	end(a);
}

static void on_open(void *arg, int err)
{
	static const char sql[] = "SELECT instance, epoch, lsn FROM loquat_replay";
	struct asking *a = arg;
	if (err < 0 || env_db_query(a->connection, sql, sizeof sql - 1, on_rows, a) < 0)
		end(a);
}

static void on_start(struct loop *loop, void *arg)
{
	struct asking *a = arg;
	a->loop = loop;
	a->late.fire = on_late;
	loop_timer(loop, &a->late, WAIT_MS);
	if (env_db_open(loop->ev, &a->db, on_open, a, &a->connection) < 0)
		end(a);
}

static void on_stop(struct loop *loop, void *arg)
{
	(void)loop;
	env_db_close(((struct asking *)arg)->connection);
}

static bool ask_positions(struct env *env, struct asking *a)
{
	struct loop *loop;
	a->found = calloc(POSITIONS_MAX, sizeof *a->found);
	if (!a->found || loop_start(env, "status", 0, on_start, on_stop, a, &loop) < 0)
		return false;
	loop_join(loop);
	return a->answered;
}

/* ---- --status ------------------------------------------------------------------------------------------------------ */

/* Paths of the configuration start at the folder above its own. */
static void path_from(const char *config_file, const char *path, char *out, size_t size)
{
	const char *slash = strrchr(config_file, '/');
	if (*path == '/')
		snprintf(out, size, "%s", path);
	else if (slash)
		snprintf(out, size, "%.*s/../%s", (int)(slash - config_file), config_file, path);
	else
		snprintf(out, size, "../%s", path);
}

static int status_of(struct env *env, const char *config_file, struct buf *out)
{
	char var[ENV_PATH_MAX], folder[ENV_PATH_MAX + 8], socket[ENV_PATH_MAX + 32], error[512];
	struct config *c;
	struct asking a = { 0 };
	if (service_config_load(env, config_file, NULL, NULL, error, sizeof error, &c) < 0) {
		buf_addf(out, "dbwriter: %s\n", error);
		return -1;
	}
	path_from(config_file, config_string(c, "paths.var", "var"), var, sizeof var);
	snprintf(folder, sizeof folder, "%s/sqllog", var);
	snprintf(socket, sizeof socket, "%s/mariadb/mysqld.sock", var);
	const char *given = config_string(c, "database.socket", ""), *host = config_string(c, "database.host", "");
	a.db = (struct env_db_options){ .socket = *host    ? NULL
						  : *given ? given
							   : socket,
					.host = *host ? host : NULL,
					.port = (uint16_t)config_int(c, "database.port", 3306),
					.user = config_string(c, "database.user", "root"),
					.password = config_string(c, "database.password", ""),
					.database = config_string(c, "database.name", "loquat") };
	bool answered = ask_positions(env, &a);
	if (!answered)
		buf_addstr(out, "The database does not answer; positions as dbwriter noted them last.\n");
	int result = show_status(env, folder, answered ? a.found : NULL, a.n, out);
	free(a.found);
	config_free(c);
	return result;
}

/* ---- the command line ------------------------------------------------------------------------------------------------ */

static const char *value_of(int argc, char **argv, const char *name, bool *there)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name)) {
			*there = true;
			return i + 1 < argc ? argv[i + 1] : NULL;
		}
	return NULL;
}

bool show_main(int argc, char **argv, int *status)
{
	bool dump = false, verify = false, all = false, config = false, help = false;
	(void)value_of(argc, argv, "--help", &help);
	if (help) /* the frame tells the rest */
		fputs("usage: dbwriter --dump FILE | --verify FILE     a log file for a person; --verify: exit 1 if it is not sound\n"
		      "       dbwriter --status [--config FILE]        position and lag of every log; exit 1 while there is a lag\n\n",
		      stdout);
	if (help)
		return false;
	const char *file = value_of(argc, argv, "--dump", &dump);
	if (!dump)
		file = value_of(argc, argv, "--verify", &verify);
	(void)value_of(argc, argv, "--status", &all);
	const char *config_file = value_of(argc, argv, "--config", &config);
	if (!dump && !verify && !all)
		return false;
	*status = 2;
	if ((!all && !file) || (config && !config_file)) {
		fprintf(stderr, "dbwriter: %s needs a file\n", dump ? "--dump" : verify ? "--verify" : "--config");
		return true;
	}
	struct env *env = env_new();
	struct buf out = BUF_INIT;
	int result = dump     ? show_dump(env, file, &out)
		     : verify ? show_verify(env, file, &out)
			      : status_of(env, config ? config_file : "deploy/cluster.lua", &out);
	*status = print(&out, result);
	env_free(env);
	return true;
}
