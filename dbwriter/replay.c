#include "dbwriter/replay.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "dbwriter/replay_int.h"
/*
 * The connection and its transactions. One query is under way at a time:
 *
 *   connect → session → [schema] → ready
 *   ready   → position of a stream, once            → ready
 *           → BEGIN; UPDATE position → its changes; COMMIT → ready
 *                         └ not our row any more ────────────→ ROLLBACK → ready
 *                                      └ refused ────────────→ ROLLBACK → ready (smaller, or given up)
 *   a lost connection: the position of the stream that was at work is read anew
 */

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 5000
#define PATIENCE_MS    60000 /* for one query; the server's own waits are shorter */

static void step(struct replay *r);
static void connect_now(struct replay *r);

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static void rest(struct replay *r)
{
	r->backoff_ms = r->backoff_ms ? r->backoff_ms * 2 : BACKOFF_MIN_MS;
	if (r->backoff_ms > BACKOFF_MAX_MS)
		r->backoff_ms = BACKOFF_MAX_MS;
	r->resting = true;
	loop_timer(r->loop, &r->retry, r->backoff_ms);
}

static void disconnect(struct replay *r, const char *why)
{
	if (!r->away_told)
		log_error(r->log, "dbwriter.database_away", "why=%s", why && *why ? why : "connection lost");
	r->away_told = true;
	env_db_close(r->db);
	r->db = NULL;
	r->ready = r->busy = false;
	if (r->current)
		stream_doubt(r->current); /* was it committed? the position will tell */
	r->current = NULL;
	atomic_store(&r->connected, false);
	loop_timer_stop(r->loop, &r->patience);
	rest(r);
}

static void on_retry(struct timer *t, uint64_t now_ms)
{
	struct replay *r = (struct replay *)((char *)t - offsetof(struct replay, retry));
	(void)now_ms;
	r->resting = false;
	if (r->db)
		step(r);
	else
		connect_now(r);
}

static void on_patience(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	disconnect((struct replay *)((char *)t - offsetof(struct replay, patience)), "no answer");
}

static void ask(struct replay *r, const char *sql, size_t n, void (*fn)(void *arg, const struct env_db_result *res))
{
	assert(!r->busy);
	r->busy = true;
	loop_timer(r->loop, &r->patience, PATIENCE_MS);
	if (env_db_query(r->db, sql, n, fn, r) < 0)
		disconnect(r, env_db_message(r->db));
}

/* Every answer passes here first. False: the connection is gone, and everything is settled. */
static bool answered(struct replay *r, const struct env_db_result *res)
{
	r->busy = false;
	loop_timer_stop(r->loop, &r->patience);
	if (res->err != ERR_UNAVAILABLE)
		return true;
	disconnect(r, res->message);
	return false;
}

static void format(struct replay *r, const char *sql, const struct sql_value *values, size_t n)
{
	char why[160];
	int err = sql_format(&r->sql, sql, values, n, why, sizeof why);
	assert(!err);
	(void)err;
}

static struct sql_value text_value(const char *text)
{
	return (struct sql_value){ .type = SQL_TEXT, .s = { text, strlen(text) } };
}

static struct sql_value int_value(uint64_t v)
{
	return (struct sql_value){ .type = SQL_INT, .i = (int64_t)v };
}

/* ---- giving a transaction back ---------------------------------------------------------------------------------- */

static void on_rolled_back(void *arg, const struct env_db_result *res)
{
	struct replay *r = arg;
	if (answered(r, res))
		step(r);
}

static void roll_back(struct replay *r)
{
	static const char sql[] = "ROLLBACK";
	r->current = NULL;
	ask(r, sql, sizeof sql - 1, on_rolled_back);
}

/* Of this moment: the same again after a rest. */
static void again_later(struct replay *r, const struct env_db_result *res, const char *doing)
{
	struct stream *s = r->current;
	atomic_fetch_add_explicit(&s->counts.retries, 1, memory_order_relaxed);
	if (r->backoff_ms >= 1000 || res->code != 1213)
		log_warn(r->log, "dbwriter.again", "instance=%s doing=%s error=%u message=%s", s->name, doing,
			 res->code, res->message);
	rest(r);
	roll_back(r);
}

/* ---- landing ------------------------------------------------------------------------------------------------------ */

/* Keeps the record that is passed over, once; false: it cannot be kept now. */
static bool keep_refused(struct replay *r, struct stream *s)
{
	const struct position at = batch_first(&s->batch)->at;
	if (!position_compare(s->kept, at))
		return true;
	int err = stream_quarantine(s);
	if (err < 0) {
		log_error(r->log, "dbwriter.quarantine", "instance=%s lsn=%llu why=%s", s->name,
			  (unsigned long long)at.lsn, err == ERR_IO ? env_last_error() : err_text(err));
		return false;
	}
	s->kept = at;
	log_error(r->log, "dbwriter.quarantined",
		  "instance=%s epoch=%llu lsn=%llu error=%u message=%s kept_in=%s/quarantine.sql", s->name,
		  (unsigned long long)at.epoch, (unsigned long long)at.lsn, s->refusal_code, s->refusal, r->o.folder);
	return true;
}

static void refused(struct replay *r, const struct env_db_result *res)
{
	struct stream *s = r->current;
	if (batch_refused(&s->batch, res->failed_at)) {
		s->given_up = true;
		s->batch.limit = 1;
		s->refusal_code = res->code;
		snprintf(s->refusal, sizeof s->refusal, "%s", res->message ? res->message : "");
	}
	roll_back(r);
}

static void on_landed(void *arg, const struct env_db_result *res)
{
	struct replay *r = arg;
	struct stream *s = r->current;
	if (!answered(r, res))
		return;
	if (res->err < 0) {
		if (batch_fault(res->code) == BATCH_AGAIN)
			again_later(r, res, "landing");
		else
			refused(r, res);
		return;
	}
	env_failpoint(r->loop->env, "dbwriter.after_commit");
	if (s->given_up)
		atomic_fetch_add_explicit(&s->counts.quarantined, 1, memory_order_relaxed);
	s->given_up = false;
	r->backoff_ms = 0;
	r->current = NULL;
	stream_landed(s);
	step(r);
}

static void on_moved(void *arg, const struct env_db_result *res)
{
	static const char commit[] = "COMMIT";
	struct replay *r = arg;
	struct stream *s = r->current;
	if (!answered(r, res))
		return;
	if (res->err < 0) {
		again_later(r, res, "moving the position");
		return;
	}
	if (res->affected != 1) {
		log_warn(r->log, "dbwriter.overtaken", "instance=%s epoch=%llu lsn=%llu why=%s", s->name,
			 (unsigned long long)s->landed.epoch, (unsigned long long)s->landed.lsn,
			 "somebody else moved the position: is there a second dbwriter?");
		stream_doubt(s);
		rest(r);
		roll_back(r);
		return;
	}
	env_failpoint(r->loop->env, "dbwriter.before_commit");
	if (s->given_up)
		ask(r, commit, sizeof commit - 1, on_landed);
	else
		ask(r, s->batch.sql.data, s->batch.sql.len, on_landed);
}

static void begin(struct replay *r, struct stream *s)
{
	if (!s->given_up)
		stream_hold_back(s);
	batch_sql(&s->batch);
	if (s->given_up && !keep_refused(r, s)) {
		rest(r);
		return;
	}
	const struct batch_item *last = batch_last(&s->batch);
	char file[32];
	snprintf(file, sizeof file, "%08u.sql", last->file);
	struct sql_value values[] = { int_value(last->at.epoch), int_value(last->at.lsn), text_value(file),
				      int_value(last->time_us),  text_value(s->name),     int_value(s->landed.epoch),
				      int_value(s->landed.lsn) };
	buf_clear(&r->sql);
	buf_addstr(&r->sql, "BEGIN;\n");
	format(r,
	       "UPDATE loquat_replay SET epoch = ?, lsn = ?, file = ?, time_us = ? WHERE instance = ? AND epoch = ? AND lsn = ?",
	       values, 7);
	r->current = s;
	ask(r, r->sql.data, r->sql.len, on_moved);
}

/* ---- positions ------------------------------------------------------------------------------------------------------ */

static void on_row_made(void *arg, const struct env_db_result *res)
{
	struct replay *r = arg;
	if (!answered(r, res))
		return;
	if (res->err < 0 && res->code != 1062) /* another dbwriter made it */
		again_later(r, res, "making the position");
	else {
		r->current = NULL;
		step(r);
	}
}

static void make_row(struct replay *r, struct stream *s)
{
	struct sql_value values[] = { text_value(s->name), text_value("") };
	buf_clear(&r->sql);
	format(r, "INSERT INTO loquat_replay (instance, epoch, lsn, file, time_us) VALUES (?, 0, 0, ?, 0)", values, 2);
	ask(r, r->sql.data, r->sql.len, on_row_made);
}

static void on_position(void *arg, const struct env_db_result *res)
{
	struct replay *r = arg;
	struct stream *s = r->current;
	if (!answered(r, res))
		return;
	if (res->err < 0) {
		again_later(r, res, "reading the position");
		return;
	}
	if (!res->rows) {
		make_row(r, s);
		return;
	}
	struct position landed = { strtoull(res->cells[0], NULL, 10), strtoull(res->cells[1], NULL, 10) };
	log_info(r->log, "dbwriter.position", "instance=%s epoch=%llu lsn=%llu file=%s", s->name,
		 (unsigned long long)landed.epoch, (unsigned long long)landed.lsn, res->cells[2]);
	stream_begin(s, landed);
	r->current = NULL;
	step(r);
}

static void ask_position(struct replay *r, struct stream *s)
{
	struct sql_value name = text_value(s->name);
	r->current = s;
	buf_clear(&r->sql);
	format(r, "SELECT epoch, lsn, file FROM loquat_replay WHERE instance = ?", &name, 1);
	ask(r, r->sql.data, r->sql.len, on_position);
}

/* ---- whose turn --------------------------------------------------------------------------------------------------- */

static struct stream *after(struct replay *r, struct stream *s)
{
	struct stream *next = s ? s->next : NULL;
	return next ? next : r->streams;
}

static void step(struct replay *r)
{
	if (!r->ready || r->busy || r->resting)
		return;
	struct stream *first = r->turn ? r->turn : r->streams, *s = first;
	while (s) {
		r->turn = after(r, s);
		if (!s->known) {
			ask_position(r, s);
			return;
		}
		if (stream_fill(s)) {
			begin(r, s);
			return;
		}
		s = r->turn;
		if (s == first)
			return;
	}
}

static void on_work(struct loop_deferred *d)
{
	step((struct replay *)((char *)d - offsetof(struct replay, work)));
}

static void on_folder(void *arg)
{
	struct replay *r = arg;
	streams_discover(r);
	loop_defer(r->loop, &r->work);
}

static void on_poll(struct timer *t, uint64_t now_ms)
{
	struct replay *r = (struct replay *)((char *)t - offsetof(struct replay, poll));
	streams_discover(r);
	for (struct stream *s = r->streams; s; s = s->next) {
		stream_look(s, now_ms);
		if (!r->ready && s->known)
			stream_fill(s); /* the lag is told while the database is away */
	}
	loop_timer(r->loop, t, r->o.poll_ms);
	step(r);
}

/* ---- connecting ------------------------------------------------------------------------------------------------------ */

static void set_up(struct replay *r)
{
	r->ready = true;
	r->backoff_ms = 0;
	r->away_told = false;
	atomic_store(&r->connected, true);
	log_info(r->log, "dbwriter.connected", "folder=%s", r->o.folder);
	step(r);
}

static void on_schema(void *arg, const struct env_db_result *res)
{
	struct replay *r = arg;
	if (!answered(r, res))
		return;
	const char *version = !res->err && res->rows ? res->cells[0] : NULL;
	if (!version || strtoul(version, NULL, 10) >= r->o.schema_version) {
		set_up(r); /* no such table: the position's table is what counts, and it is asked next */
		return;
	}
	char why[120];
	snprintf(why, sizeof why,
		 "its schema has version %s and this build needs %u: apply the migrations of deploy/schema", version,
		 r->o.schema_version);
	disconnect(r, why);
}

static void on_session(void *arg, const struct env_db_result *res)
{
	static const char sql[] = "SELECT MAX(version) FROM loquat_schema";
	struct replay *r = arg;
	if (!answered(r, res))
		return;
	if (res->err < 0)
		disconnect(r, res->message);
	else if (r->o.schema_version)
		ask(r, sql, sizeof sql - 1, on_schema);
	else
		set_up(r);
}

static void on_open(void *arg, int err)
{
	/* strict: nothing is cut to fit; backslashes escape; a lock that is held is given up after a while and asked anew */
	static const char sql[] =
		"SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',"
		" autocommit = 1, innodb_lock_wait_timeout = 2";
	struct replay *r = arg;
	r->busy = false;
	if (err < 0)
		disconnect(r, env_db_message(r->db));
	else
		ask(r, sql, sizeof sql - 1, on_session);
}

static void connect_now(struct replay *r)
{
	r->busy = true;
	if (env_db_open(r->loop->ev, &r->o.db, on_open, r, &r->db) < 0)
		disconnect(r, "no connection could be made");
}

/* ---- public ---------------------------------------------------------------------------------------------------------- */

struct replay *replay_new(struct loop *loop, struct log *log, const struct replay_options *o)
{
	struct replay *r = calloc(1, sizeof *r);
	assert(r);
	loop_assert_owner(loop);
	r->loop = loop;
	r->log = log;
	r->o = *o;
	r->o.folder = strdup(o->folder); /* the caller's may stand on its stack */
	assert(r->o.folder);
	r->o.batch_records_max = o->batch_records_max ? o->batch_records_max : 1000;
	r->o.batch_bytes_max = o->batch_bytes_max ? o->batch_bytes_max : 1u << 20;
	r->o.poll_ms = o->poll_ms ? o->poll_ms : 500;
	r->work.run = on_work;
	r->poll.fire = on_poll;
	r->retry.fire = on_retry;
	r->patience.fire = on_patience;
	(void)env_dir_make(loop->env, o->folder);
	if (env_watch(loop->ev, o->folder, on_folder, r, &r->watch) < 0)
		r->watch = NULL;
	streams_discover(r);
	loop_timer(loop, &r->poll, r->o.poll_ms);
	connect_now(r);
	return r;
}

void replay_free(struct replay *r)
{
	if (!r)
		return;
	loop_timer_stop(r->loop, &r->poll);
	loop_timer_stop(r->loop, &r->retry);
	loop_timer_stop(r->loop, &r->patience);
	env_db_close(r->db);
	env_watch_close(r->watch);
	for (struct stream *s = r->streams, *next; s; s = next) {
		next = s->next;
		stream_hint(s);
		stream_release(s);
	}
	buf_release(&r->sql);
	free((char *)(uintptr_t)r->o.folder);
	free(r);
}

/* ---- figures: any thread ------------------------------------------------------------------------------------------- */

static struct replay_figures figures_of(const struct stream *s, uint64_t now_us)
{
	const struct replay_counts *c = &s->counts;
	uint64_t last = atomic_load_explicit(&c->log_lsn, memory_order_relaxed), oldest;
	struct replay_figures f = {
		.records = atomic_load_explicit(&c->records, memory_order_relaxed),
		.transactions = atomic_load_explicit(&c->transactions, memory_order_relaxed),
		.quarantined = atomic_load_explicit(&c->quarantined, memory_order_relaxed),
		.fenced = atomic_load_explicit(&c->fenced, memory_order_relaxed),
		.retries = atomic_load_explicit(&c->retries, memory_order_relaxed),
		.epoch = atomic_load_explicit(&c->epoch, memory_order_relaxed),
		.lsn = atomic_load_explicit(&c->lsn, memory_order_relaxed),
		.streams = 1,
		.stopped = atomic_load_explicit(&c->stopped, memory_order_relaxed),
	};
	oldest = atomic_load_explicit(&c->oldest_us, memory_order_relaxed);
	f.lag_records = last > f.lsn ? last - f.lsn : oldest ? 1 : 0;
	f.lag_ms = oldest && now_us > oldest ? (now_us - oldest) / 1000 : 0;
	return f;
}

void replay_each(const struct replay *r, void (*fn)(void *arg, const char *instance, const struct replay_figures *f),
		 void *arg)
{
	uint64_t now_us = env_wall_us(r->loop->env);
	for (struct stream *s = atomic_load_explicit(&r->streams, memory_order_acquire); s;
	     s = atomic_load_explicit(&s->next, memory_order_acquire)) {
		struct replay_figures f = figures_of(s, now_us);
		f.connected = atomic_load(&r->connected);
		fn(arg, s->name, &f);
	}
}

static void add_up(void *arg, const char *instance, const struct replay_figures *f)
{
	struct replay_figures *sum = arg;
	(void)instance;
	sum->lag_records += f->lag_records;
	sum->lag_ms = f->lag_ms > sum->lag_ms ? f->lag_ms : sum->lag_ms;
	sum->records += f->records;
	sum->transactions += f->transactions;
	sum->quarantined += f->quarantined;
	sum->fenced += f->fenced;
	sum->retries += f->retries;
	sum->streams++;
	sum->stopped += f->stopped;
}

void replay_figures(const struct replay *r, struct replay_figures *out)
{
	*out = (struct replay_figures){ .connected = atomic_load(&r->connected) };
	replay_each(r, add_up, out);
}
