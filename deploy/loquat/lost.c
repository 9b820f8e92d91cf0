#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "dbwriter/asker.h"
#include "dbwriter/follow.h"
#include "deploy/loquat/control.h"
#include "rpc/moves.h"
/*
 * loquat lost ID: says of an instance, whose host is lost for good, that it answers for no keys any more (rpc/moves.h), so that
 * the others take them. That is a person's word, for nothing can prove it from here; so first everything is asked that could
 * prove the opposite, or could still land what its log holds.
 */
const char lost_help[] =
	"\n  It is refused while something answers at the instance's ports, the route table has it, its log is locked, or\n"
	"  a log or copy that can be seen has records of it that have not landed. Without --yes: what would be given up.\n"
	"  Exit 1: nothing was changed. See docs/operations.md, Adding and draining an instance.\n";

struct lost {
	struct cluster *c;
	const char *id;
	bool found; /* its row: */
	uint64_t turn, ring;
	struct position recorded; /* its log had come so far when the row was written */
	struct position landed;
	json_t *table; /* NULL: nobody could be asked */
	unsigned step;
	bool moved; /* the row did, meanwhile */
	struct buf known;
	char why[400];
};

static bool refuse(struct lost *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(struct lost *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->why, sizeof l->why, fmt, ap);
	va_end(ap);
	return false;
}

/* ---- what the database says ------------------------------------------------------------------------------------------ */

static uint64_t cell(const struct env_db_result *r, unsigned i)
{
	return r->cells[i] ? strtoull(r->cells[i], NULL, 10) : 0;
}

static int failed(struct lost *l, const struct env_db_result *r)
{
	refuse(l, "the database refuses: %s", r->message && *r->message ? r->message : err_text(r->err));
	return ERR_FAILED;
}

static int read_step(void *arg, const struct env_db_result *r, struct buf *sql)
{
	struct lost *l = arg;

	if (!r) {
		buf_addf(sql,
			 "SELECT o.turn, o.ring, o.log_epoch, o.lsn, p.epoch, p.lsn FROM loquat_owner AS o "
			 "LEFT JOIN loquat_replay AS p ON p.instance = o.instance WHERE o.instance = '%s'",
			 l->id);
		return 1;
	}
	if (r->err)
		return failed(l, r);
	if ((l->found = r->rows)) {
		l->turn = cell(r, 0);
		l->ring = cell(r, 1);
		l->recorded = (struct position){ cell(r, 2), cell(r, 3) };
		l->landed = (struct position){ cell(r, 4), cell(r, 5) };
	}
	return 0;
}

/*
 * Row and position go on to the epoch behind its last start's. So neither what it says nor what it has recorded counts any more,
 * should it be alive all the same, or its log come back.
 */
static int write_step(void *arg, const struct env_db_result *r, struct buf *sql)
{
	struct lost *l = arg;
	uint64_t epoch = (l->turn >> MOVES_TURN_BITS) + 1;

	if (r && r->err)
		return failed(l, r);
	switch (l->step++) {
	case 0:
		buf_addf(sql,
			 "BEGIN; UPDATE loquat_owner SET turn = %llu, ring = 0, log_epoch = 0, lsn = 0 "
			 "WHERE instance = '%s' AND turn = %llu",
			 (unsigned long long)epoch << MOVES_TURN_BITS, l->id, (unsigned long long)l->turn);
		return 1;
	case 1:
		if ((l->moved = r->affected != 1))
			return 0; /* the connection ends, and with it the transaction */
		buf_addf(sql,
			 "INSERT INTO loquat_replay (instance, epoch, lsn) VALUES ('%s', %llu, 0) "
			 "ON DUPLICATE KEY UPDATE epoch = GREATEST(epoch, %llu); COMMIT",
			 l->id, (unsigned long long)epoch, (unsigned long long)epoch);
		return 1;
	default: return 0;
	}
}

static bool ask_database(struct lost *l, asker_step *step)
{
	const struct config *config = l->c->config;
	const char *host = config_string(config, "database.host", "");
	const struct env_db_options o = { .socket = *host ? NULL : l->c->socket,
					  .host = *host ? host : NULL,
					  .port = (uint16_t)config_int(config, "database.port", 3306),
					  .user = config_string(config, "database.user", "root"),
					  .password = config_string(config, "database.password", ""),
					  .database = config_string(config, "database.name", "loquat") };

	return asker_run(l->c->env, &o, step, l, l->why, sizeof l->why) == 0;
}

/* ---- whether it lives -------------------------------------------------------------------------------------------------- */

static bool is_silent(struct lost *l)
{
	const struct route_row *row = route_find(l->c->routes, l->id);

	if (!row) {
		buf_addf(&l->known, "%s has no row in %s: its ports were not asked\n", l->id, l->c->config_file);
		return true;
	}
	const uint16_t ports[] = { row->rpc_port, row->http_port };

	for (size_t i = 0; i < 2; i++)
		if (ports[i] && reaches(row->host, ports[i]))
			return refuse(l, "%s is not lost: something listens at its %s:%u", l->id, row->host, ports[i]);
	buf_addf(&l->known, "nothing listens at %s's %s:%u and %u\n", l->id, row->host, ports[0], ports[1]);
	return true;
}

/* The route table, as the supervisor of this host has it: with an etcd, that of all hosts, kept there by leases. */
static void read_table(struct lost *l)
{
	char *text = NULL;
	int status = ask(l->c, l->c->http_host, supervisor_port(l->c), "GET", "/routes", NULL, &text);

	l->table = status == 200 ? json_loads(text, 0, NULL) : NULL;
	free(text);
	if (!l->table)
		buf_addstr(&l->known, "no supervisor runs on this host: the route table was not asked\n");
}

static const char *text_of(const json_t *row, const char *name)
{
	const char *text = json_string_value(json_object_get(row, name));

	return text ? text : "";
}

static bool is_out_of_the_table(struct lost *l)
{
	const json_t *row;
	size_t i;

	json_array_foreach(json_object_get(l->table, "instances"), i, row)
	{
		if (!strcmp(text_of(row, "id"), l->id))
			return refuse(l, "%s is not lost: it is in the route table, %s", l->id, text_of(row, "state"));
	}
	return true;
}

/* Who writes a log has its folder locked. */
static bool is_unlocked(struct lost *l, const char *folder)
{
	char path[ENV_PATH_MAX + 80];
	struct env_file *f;
	int err;

	snprintf(path, sizeof path, "%s/lock", folder);
	if (env_file_open(l->c->env, path, ENV_READ | ENV_WRITE, &f) < 0)
		return true;
	err = env_file_lock(f);
	env_file_close(f);
	return err == 0 ||
	       refuse(l, "%s is not lost: a process holds %s, stopped perhaps: end it, then keys move by themselves",
		      l->id, path);
}

/* ---- whether more can land ------------------------------------------------------------------------------------------- */

static bool has_landed(struct lost *l, const char *kind)
{
	char folder[ENV_PATH_MAX + 60];

	snprintf(folder, sizeof folder, "%s/%s/%s", l->c->var, kind, l->id);
	struct position last = follow_last(l->c->env, folder);

	if (!is_unlocked(l, folder))
		return false;
	return position_compare(last, l->landed) <= 0 ||
	       refuse(l,
		      "%s holds records up to %llu, and %llu have landed: let this host's dbwriter land them "
		      "(%s/dbwriter --status%s), or move the folder away",
		      folder, (unsigned long long)last.lsn, (unsigned long long)l->landed.lsn, l->c->programs,
		      l->c->option);
}

static json_int_t lag_of(const json_t *logs, const char *id)
{
	return json_integer_value(json_object_get(json_object_get(logs, id), "lag_records"));
}

static bool dbwriter_is_through(struct lost *l, const char *id, const char *host, uint16_t port)
{
	char *text = NULL;
	int status = reaches(host, port) ? ask(l->c, host, port, "GET", "/stats", NULL, &text) : ERR_UNAVAILABLE;
	json_t *stats = status == 200 ? json_loads(text, 0, NULL) : NULL;
	const json_t *own = json_object_get(json_object_get(stats, "replay"), "instances");
	json_int_t lag = lag_of(own, l->id) + lag_of(json_object_get(stats, "standby"), l->id);

	if (!stats)
		buf_addf(&l->known, "%s does not answer: what only its host has is given up, too\n", id);
	json_decref(stats);
	free(text);
	return !lag ||
	       refuse(l, "%s has %lld records of %s that have not landed: wait for them", id, (long long)lag, l->id);
}

/* Those that this file names, and those that the table knows besides. */
static bool replays_are_through(struct lost *l)
{
	const struct route_table *t = l->c->routes;
	const json_t *row;
	size_t i;

	for (i = 0; i < t->rows; i++)
		if (!strcmp(t->row[i].service, "dbwriter") && t->row[i].http_port &&
		    !dbwriter_is_through(l, t->row[i].id, t->row[i].host, t->row[i].http_port))
			return false;
	json_array_foreach(json_object_get(l->table, "instances"), i, row)
	{
		const char *id = text_of(row, "id");
		json_int_t port = json_integer_value(json_object_get(row, "http"));

		if (!strcmp(text_of(row, "service"), "dbwriter") && port && !route_find(t, id) &&
		    !dbwriter_is_through(l, id, text_of(row, "host"), (uint16_t)port))
			return false;
	}
	return has_landed(l, "sqllog") && has_landed(l, "standby");
}

/* ---- the command ---------------------------------------------------------------------------------------------------------- */

static bool is_waited_for(const struct lost *l)
{
	return l->ring || position_compare(l->recorded, l->landed) > 0;
}

static void tell_given_up(struct lost *l)
{
	uint64_t lost = position_compare(l->recorded, l->landed) > 0 ? l->recorded.lsn - l->landed.lsn : 0;

	buf_addf(&l->known, "of its log %llu records have landed", (unsigned long long)l->landed.lsn);
	if (lost && l->recorded.lsn > l->landed.lsn)
		buf_addf(&l->known, ", and %llu more are known of and given up", (unsigned long long)lost);
	buf_addstr(&l->known, "; what came after is given up\n");
}

static int give_up(struct lost *l, bool yes)
{
	read_table(l);
	if (!is_silent(l) || !is_out_of_the_table(l) || !replays_are_through(l))
		return complain("%s", l->why), 1;
	tell_given_up(l);
	fputs(buf_cstr(&l->known), stdout);
	if (!yes) {
		complain(
			"nothing was changed. If its process is dead and its host does not come back: %s lost %s --yes%s",
			l->c->typed, l->id, l->c->option);
		return 1;
	}
	if (!ask_database(l, write_step))
		return complain("%s", l->why), 1;
	if (l->moved)
		return complain("%s is not lost: it has just written its row", l->id), 1;
	printf("%s: lost; the others take its keys\n", l->id);
	return 0;
}

int command_lost(struct cluster *c, int argc, char **argv)
{
	bool yes = argc == 3 && !strcmp(argv[2], "--yes");
	struct lost l = { .c = c, .id = argv[1] };
	int status = 1;

	if (argc < 2 || argc > 3 || (argc == 3 && !yes) || !route_is_name(argv[1]))
		return complain("lost: expected one instance, and --yes: loquat lost ID [--yes]");
	if (!ask_database(&l, read_step))
		complain("%s", l.why);
	else if (!l.found)
		complain("%s has no row in table loquat_owner: it never answered for keys that move", l.id);
	else if (is_waited_for(&l))
		status = give_up(&l, yes);
	else
		status = printf("%s: nobody waits for it\n", l.id) < 0;
	json_decref(l.table);
	buf_release(&l.known);
	return status;
}
