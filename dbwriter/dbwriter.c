#include "dbwriter/dbwriter.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "dbwriter/copies.h"
#include "dbwriter/fence.h"
#include "dbwriter/replay.h"
#include "rpc/version.h"

static const struct config_row config_rows[] = {
	{ "dbwriter.batch_records", CONFIG_INT, "40000", false, 1, 100000, "Records in one transaction, at most." },
	{ "dbwriter.batch_bytes", CONFIG_INT, "10485760", false, 1024, 64 << 20, "Bytes of records in one, about." },
	{ "dbwriter.connections", CONFIG_INT, "2", false, 1, REPLAY_CONNECTIONS_MAX,
	  "Connections to the database; each log lands over one of them." },
	{ "dbwriter.fold", CONFIG_BOOL, "true", false, 0, 0,
	  "Of several changes of one row in a transaction only the last is executed, where that is sure to be the same." },
	{ "dbwriter.hold_keys", CONFIG_BOOL, "false", false, 0, 0,
	  "After a record the database refuses, later ones of its keys wait in quarantine.sql; else the rest goes on." },
	{ "dbwriter.keep_s", CONFIG_INT, "604800", false, 0, 1e9, "How long log files are kept that have landed." },
	{ "dbwriter.low_bytes", CONFIG_INT, "67108864", false, 0, 1e15,
	  "With less room than this on the disk, files that have landed go at once." },
	{ "dbwriter.once_keep_days", CONFIG_INT, "7", false, 0, 36500,
	  "Answers of once-calls without a business key go from loquat_once after it, unless they went before; 0: never." },
	{ "dbwriter.poll_ms", CONFIG_INT, "500", false, 10, 60000,
	  "The folders are looked at so often, should their watch miss a change." },
	{ "dbwriter.standby_s", CONFIG_INT, "5", false, 1, 86400,
	  "Logs of other hosts that are kept here land when nobody has landed them for so long." },
	{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
};

/* s->user is the control thread's; NULL before and after. */
struct dbwriter {
	struct service *service;
	struct worker *worker;
	struct replay_options options;
	char folder[ENV_PATH_MAX + 16], copies_folder[ENV_PATH_MAX + 16];
	struct replay *replay;
	struct replay *_Atomic standby; /* of the copies; NULL: there are none */
	struct copies *copies;
};

/* ---- its life ----------------------------------------------------------------------------------------------- */

/* The newest NNN of deploy/schema/NNN-name.sql, Loquat's and the game's: older tables would refuse what the services write. */
static void newest_schema(struct service *s, unsigned newest[2])
{
	char folder[ENV_PATH_MAX], **names;
	size_t n;
	if (env_dir_list(s->env, service_part(s, "deploy/schema", folder), &names, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		unsigned number = (unsigned)strtoul(names[i], NULL, 10), *of = &newest[number >= SCHEMA_GAMES];
		*of = number > *of ? number : *of;
		free(names[i]);
	}
	if (n && newest[0] < LOQUAT_SCHEMA) /* the programs are newer than the folder beside them */
		newest[0] = LOQUAT_SCHEMA;
	free(names);
}

static void set_options(struct service *s, struct replay_options *o)
{
	*o = (struct replay_options){
		.batch_records_max = (unsigned)config_int(s->config, "dbwriter.batch_records", 0),
		.batch_bytes_max = (size_t)config_int(s->config, "dbwriter.batch_bytes", 0),
		.connections = (unsigned)config_int(s->config, "dbwriter.connections", 0),
		.no_fold = !config_bool(s->config, "dbwriter.fold", true),
		.poll_ms = (uint32_t)config_int(s->config, "dbwriter.poll_ms", 500),
		.keep_s = (uint64_t)config_int(s->config, "dbwriter.keep_s", 604800),
		.once_keep_s = (uint64_t)config_int(s->config, "dbwriter.once_keep_days", 7) * 86400,
		.low_bytes = (uint64_t)config_int(s->config, "dbwriter.low_bytes", 67108864),
		.hold_keys = config_bool(s->config, "dbwriter.hold_keys", false),
	};
	newest_schema(s, o->schema);
	service_database(s, &o->db);
}

static void on_damaged(void *arg, const char *instance, uint32_t file, struct position landed)
{
	copies_damaged(((struct dbwriter *)arg)->copies, instance, file, landed);
}

/* The first copy came, or one is there since before: from now on somebody looks whether it lands. */
static void on_first_copy(void *arg)
{
	struct dbwriter *d = arg;
	struct replay_options o = d->options;
	if (d->standby)
		return;
	o.folder = d->copies_folder;
	o.connections = 1;
	o.on_damaged = on_damaged;
	o.on_damaged_arg = d;
	o.standby_ms = (uint32_t)config_int(d->service->config, "dbwriter.standby_s", 5) * 1000;
	atomic_store(&d->standby, replay_new(d->worker->loop, d->service->log, &o));
}

static bool has_copies(struct dbwriter *d)
{
	char **names;
	size_t n;
	if (env_dir_list(d->service->env, d->copies_folder, &names, &n) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
	return n;
}

static int on_worker_start(struct worker *w)
{
	struct service *s = w->service;
	if (w->index)
		return 0;
	struct dbwriter *d = calloc(1, sizeof *d);
	assert(d);
	d->service = s;
	d->worker = w;
	set_options(s, &d->options);
	snprintf(d->folder, sizeof d->folder, "%s/sqllog", s->var);
	snprintf(d->copies_folder, sizeof d->copies_folder, "%s/standby", s->var);
	d->options.folder = d->folder;
	d->replay = replay_new(w->loop, s->log, &d->options);
	d->copies = copies_new(w, d->copies_folder, on_first_copy, d);
	fence_handle(w, d->folder);
	if (has_copies(d))
		on_first_copy(d);
	w->user = s->user = d;
	return 0;
}

static void on_worker_stop(struct worker *w)
{
	struct dbwriter *d = w->user;
	w->user = NULL;
	if (!d)
		return;
	copies_free(d->copies);
	replay_free(d->standby);
	replay_free(d->replay);
	free(d);
}

/* ---- its figures: control thread ------------------------------------------------------------------------------ */

static struct replay_figures figures(struct service *s)
{
	struct replay_figures f = { 0 };
	if (s->user)
		replay_figures(((struct dbwriter *)s->user)->replay, &f);
	return f;
}

/* Of the logs of other hosts that are kept here. */
static struct replay_figures copied(struct service *s)
{
	struct replay_figures f = { 0 };
	const struct dbwriter *d = s->user;
	const struct replay *standby = d ? atomic_load(&d->standby) : NULL;
	if (standby)
		replay_figures(standby, &f);
	return f;
}

static int64_t lag_records(void *arg)
{
	return (int64_t)figures(arg).lag_records;
}

static int64_t lag_ms(void *arg)
{
	return (int64_t)figures(arg).lag_ms;
}

static int64_t records(void *arg)
{
	return (int64_t)figures(arg).records;
}

static int64_t folded(void *arg)
{
	return (int64_t)figures(arg).folded;
}

static int64_t transactions(void *arg)
{
	return (int64_t)figures(arg).transactions;
}

static int64_t quarantined(void *arg)
{
	return (int64_t)figures(arg).quarantined;
}

static int64_t in_quarantine(void *arg)
{
	return (int64_t)(figures(arg).kept + copied(arg).kept);
}

static int64_t forgotten(void *arg)
{
	return (int64_t)figures(arg).forgotten;
}

static int64_t copies(void *arg)
{
	return copied(arg).streams;
}

static int64_t copies_landed(void *arg)
{
	return (int64_t)copied(arg).records;
}

static int64_t copies_damaged_now(void *arg)
{
	return copied(arg).stopped;
}

static int64_t connected(void *arg)
{
	return figures(arg).connected;
}

static int on_init(struct service *s)
{
	struct metrics *m = s->metrics;
	metrics_gauge_fn(m, "loquat_replay_lag_records", "Records in the SQL logs not yet in the database.",
			 lag_records, s);
	metrics_gauge_fn(m, "loquat_replay_lag_seconds", "Age of the oldest of them.", lag_ms, s);
	metrics_counter_fn(m, "loquat_replay_records_total", "Records landed since the start.", records, s);
	metrics_counter_fn(m, "loquat_replay_transactions_total", "Transactions of the replay since the start.",
			   transactions, s);
	metrics_counter_fn(m, "loquat_replay_folded_total",
			   "Statements that a later one of the same transaction took in.", folded, s);
	metrics_counter_fn(m, "loquat_replay_quarantined_total", "Records the database refused for good.", quarantined,
			   s);
	metrics_gauge_fn(m, "loquat_replay_in_quarantine", "Records in quarantine.sql: somebody has to look at them.",
			 in_quarantine, s);
	metrics_counter_fn(m, "loquat_once_rows_forgotten_total",
			   "Rows of loquat_once without a business key that went for their age.", forgotten, s);
	metrics_gauge_fn(m, "loquat_standby_logs", "Logs of other hosts that are kept here.", copies, s);
	metrics_counter_fn(m, "loquat_standby_records_total",
			   "Records of them landed here since the start, for nobody else did.", copies_landed, s);
	metrics_gauge_fn(m, "loquat_standby_damaged",
			 "Of these logs, those that could not be landed whole: damaged, or not whole again.",
			 copies_damaged_now, s);
	metrics_gauge_fn(m, "loquat_replay_database_connected", "1 while the database answers.", connected, s);
	return 0;
}

static void on_stop(struct service *s)
{
	s->user = NULL; /* freed by its worker, after this */
}

static void add_instance(void *arg, const char *instance, const struct replay_figures *f)
{
	struct buf *json = arg;
	if (json->data[json->len - 1] != '{')
		buf_addch(json, ',');
	buf_addf(json,
		 "\"%s\":{\"epoch\":%llu,\"lsn\":%llu,\"lag_records\":%llu,\"lag_ms\":%llu,\"records\":%llu,"
		 "\"quarantined\":%llu,\"fenced\":%llu,\"stopped\":%s}",
		 instance, (unsigned long long)f->epoch, (unsigned long long)f->lsn, (unsigned long long)f->lag_records,
		 (unsigned long long)f->lag_ms, (unsigned long long)f->records, (unsigned long long)f->quarantined,
		 (unsigned long long)f->fenced, f->stopped ? "true" : "false");
}

static void on_stats(struct service *s, struct buf *json)
{
	struct replay_figures f = figures(s);
	buf_addf(
		json,
		"\"replay\":{\"lag_records\":%llu,\"lag_ms\":%llu,\"records\":%llu,\"transactions\":%llu,"
		"\"folded\":%llu,\"quarantined\":%llu,\"in_quarantine\":%lld,\"retries\":%llu,\"connected\":%s,\"instances\":{",
		(unsigned long long)f.lag_records, (unsigned long long)f.lag_ms, (unsigned long long)f.records,
		(unsigned long long)f.transactions, (unsigned long long)f.folded, (unsigned long long)f.quarantined,
		(long long)in_quarantine(s), (unsigned long long)f.retries, f.connected ? "true" : "false");
	const struct dbwriter *d = s->user;
	const struct replay *standby = d ? atomic_load(&d->standby) : NULL;
	if (d)
		replay_each(d->replay, add_instance, json);
	buf_addstr(json, "}}");
	if (!standby)
		return;
	buf_addstr(json, ",\"standby\":{");
	replay_each(standby, add_instance, json);
	buf_addch(json, '}');
}

static const char *on_not_ready(struct service *s)
{
	struct replay_figures f = figures(s);

	if (!f.connected)
		return "the database is away";
	if (f.refused)
		return "the database takes nothing: dbwriter.again in the log says why";
	return copied(s).stopped ? "the copy of a log is damaged: dbwriter.copy_damaged in the log says which" : NULL;
}

const struct service_def dbwriter_service = {
	.name = "dbwriter",
	.config = config_rows,
	.init_service = on_init,
	.stop_service = on_stop,
	.worker_start = on_worker_start,
	.worker_stop = on_worker_stop,
	.stats = on_stats,
	.not_ready = on_not_ready,
};
