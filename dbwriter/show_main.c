#include "dbwriter/show_main.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "dbwriter/asker.h"
#include "dbwriter/merge.h"
#include "dbwriter/restore.h"
#include "dbwriter/show.h"
#include "rpc/service_config.h"

static int print(struct buf *out, int result)
{
	fwrite(out->data, 1, out->len, result < 0 ? stderr : stdout);
	buf_release(out);
	return result < 0 ? 2 : result;
}

/* ---- the cluster's configuration ------------------------------------------------------------------------------- */

struct place {
	struct config *config;
	char folder[ENV_PATH_MAX + 8], schema[ENV_PATH_MAX], socket[ENV_PATH_MAX + 32];
	struct env_db_options db;
};

/* Paths of the configuration start at the folder above its own. */
static void path_from(const char *config_file, const char *path, char *out, size_t size)
{
	const char *slash = strrchr(config_file, '/');
	if (*path == '/' || (slash && slash == strchr(config_file, '/') && slash != config_file && *config_file != '.'))
		snprintf(out, size, "%s", path); /* also above "deploy" */
	else if (slash)
		snprintf(out, size, "%.*s/../%s", (int)(slash - config_file), config_file, path);
	else
		snprintf(out, size, "../%s", path);
}

static int place_open(struct place *p, struct env *env, const char *config_file, const char *database, struct buf *out)
{
	char var[ENV_PATH_MAX], error[512];
	if (service_config_load(env, config_file, NULL, NULL, error, sizeof error, &p->config) < 0) {
		buf_addf(out, "dbwriter: %s\n", error);
		return ERR_CONFIG;
	}
	struct config *c = p->config;
	const char *home = env_getenv(env, "LOQUAT_HOME");
	path_from(config_file, config_string(c, "paths.var", "var"), var, sizeof var);
	path_from(config_file, "deploy/schema", p->schema, sizeof p->schema);
	if (env_file_mtime_us(env, p->schema) < 0 &&
	    home) /* a configuration elsewhere uses the installation's schema */
		snprintf(p->schema, sizeof p->schema, "%.490s/deploy/schema", home);
	snprintf(p->folder, sizeof p->folder, "%s/sqllog", var);
	snprintf(p->socket, sizeof p->socket, "%s/mariadb/mysqld.sock", var);
	const char *given = config_string(c, "database.socket", ""), *host = config_string(c, "database.host", "");
	p->db = (struct env_db_options){ .socket = *host    ? NULL
						   : *given ? given
							    : p->socket,
					 .host = *host ? host : NULL,
					 .port = (uint16_t)config_int(c, "database.port", 3306),
					 .user = config_string(c, "database.user", "root"),
					 .password = config_string(c, "database.password", ""),
					 .database =
						 database ? database : config_string(c, "database.name", "loquat") };
	return 0;
}

/* ---- --status ---------------------------------------------------------------------------------------------------- */

#define POSITIONS_MAX 256

struct asking {
	struct show_position found[POSITIONS_MAX];
	size_t n;
	bool answered;
};

static int ask_positions(void *arg, const struct env_db_result *r, struct buf *sql)
{
	struct asking *a = arg;
	if (!r) {
		buf_addstr(sql, "SELECT instance, epoch, lsn FROM loquat_replay");
		return 1;
	}
	for (unsigned i = 0; !r->err && i < r->rows && a->n < POSITIONS_MAX; i++) {
		struct show_position *p = &a->found[a->n++];
		snprintf(p->instance, sizeof p->instance, "%s", r->cells[3 * i]);
		p->epoch = strtoull(r->cells[3 * i + 1], NULL, 10);
		p->lsn = strtoull(r->cells[3 * i + 2], NULL, 10);
		p->known = true;
	}
	a->answered = !r->err;
	return 0;
}

static int status_of(struct env *env, struct place *p, struct buf *out)
{
	struct asking *a = calloc(1, sizeof *a);
	char why[300];
	if (!a)
		return ERR_NOMEM;
	(void)asker_run(env, &p->db, ask_positions, a, why, sizeof why);
	if (!a->answered)
		buf_addstr(out, "The database does not answer; positions as dbwriter noted them last.\n");
	int result = show_status(env, p->folder, a->answered ? a->found : NULL, a->n, out);
	free(a);
	return result;
}

/* ---- the command line ------------------------------------------------------------------------------------------------ */

static const char usage[] =
	"usage: dbwriter --dump FILE | --verify FILE     a log file for a person; --verify: exit 1 if it is not sound\n"
	"       dbwriter --status                        position and lag of every log; exit 1 while there is a lag, or a refused record\n"
	"       dbwriter --quarantine                    lands what was refused, after the cause was mended; exit 1 if some stays\n"
	"       dbwriter --replay FROM … [--until TIME] [--database NAME]\n"
	"                                                logs into an empty database, as of a moment: FROM is a log file, the\n"
	"                                                folder of an instance, or a folder of those (var/sqllog); TIME is\n"
	"                                                2026-11-22T23:00:00Z or microseconds since 1970; exit 1 if some were refused\n"
	"       --config FILE (deploy/cluster.lua)       for all but the first two\n\n";

#define FROM_MAX 64

struct line { /* of the command */
	const char *dump, *verify, *config, *until, *database;
	bool status, quarantine, replay, help;
	const char *from[FROM_MAX];
	unsigned from_n;
	const char *wrong, *why; /* the first word that does not fit */
};

static void wrong(struct line *l, const char *word, const char *why)
{
	if (!l->wrong) {
		l->wrong = word;
		l->why = why;
	}
}

static void line_read(struct line *l, int argc, char **argv)
{
	const struct {
		const char *name;
		const char **value;
	} valued[] = { { "--dump", &l->dump },
		       { "--verify", &l->verify },
		       { "--config", &l->config },
		       { "--until", &l->until },
		       { "--database", &l->database } };
	const struct {
		const char *name;
		bool *flag;
	} flags[] = { { "--status", &l->status },
		      { "--quarantine", &l->quarantine },
		      { "--replay", &l->replay },
		      { "--help", &l->help } };
	for (int i = 1; i < argc; i++) {
		bool known = l->replay && *argv[i] != '-';
		if (known && l->from_n == FROM_MAX)
			wrong(l, argv[i], "is one log too many: name the folder that they are in");
		else if (known)
			l->from[l->from_n++] = argv[i];
		for (size_t k = 0; !known && k < sizeof flags / sizeof *flags; k++)
			if ((known = !strcmp(argv[i], flags[k].name)))
				*flags[k].flag = true;
		for (size_t k = 0; !known && k < sizeof valued / sizeof *valued; k++) {
			if (!(known = !strcmp(argv[i], valued[k].name)))
				continue;
			if (i + 1 == argc)
				wrong(l, argv[i], "needs a value");
			else
				*valued[k].value = argv[++i];
		}
		if (!known)
			wrong(l, argv[i], "is not understood: see --help");
	}
	if (!!l->dump + !!l->verify + l->status + l->quarantine + l->replay > 1)
		wrong(l, "--dump, --verify, --status, --quarantine, --replay:", "one at a time");
}

static int replay_of(struct env *env, struct place *p, const struct line *l, struct buf *out)
{
	struct restore_options o = {
		.from = l->from, .from_n = l->from_n, .until_us = UINT64_MAX, .schema = p->schema, .db = p->db
	};
	if (!l->from_n) {
		buf_addstr(out, "dbwriter: --replay needs the logs: var/sqllog\n");
		return ERR_BAD_REQUEST;
	}
	if (l->until && !merge_time(l->until, &o.until_us)) {
		buf_addf(out, "dbwriter: --until %s: expected 2026-11-22T23:00:00Z or microseconds since 1970\n",
			 l->until);
		return ERR_BAD_REQUEST;
	}
	return restore_replay(env, &o, out);
}

static int with_cluster(struct env *env, const struct line *l, struct buf *out)
{
	struct place p = { 0 };
	int result = place_open(&p, env, l->config ? l->config : "deploy/cluster.lua", l->database, out);
	if (result < 0)
		return result;
	result = l->quarantine ? restore_quarantine(env, p.folder, &p.db, out)
		 : l->replay   ? replay_of(env, &p, l, out)
			       : status_of(env, &p, out);
	config_free(p.config);
	return result;
}

bool show_main(int argc, char **argv, int *status)
{
	struct line l = { 0 };
	line_read(&l, argc, argv);
	if (l.help) /* the frame tells the rest */
		fputs(usage, stdout);
	bool ours = l.dump || l.verify || l.status || l.quarantine || l.replay ||
		    (l.wrong && (!strcmp(l.wrong, "--dump") || !strcmp(l.wrong, "--verify")));
	if (l.help || !ours)
		return false;
	*status = 2;
	if (l.wrong) {
		fprintf(stderr, "dbwriter: %s %s\n", l.wrong, l.why);
		return true;
	}
	struct env *env = env_new();
	struct buf out = BUF_INIT;
	int result = l.dump     ? show_dump(env, l.dump, &out)
		     : l.verify ? show_verify(env, l.verify, &out)
				: with_cluster(env, &l, &out);
	*status = print(&out, result);
	env_free(env);
	return true;
}
