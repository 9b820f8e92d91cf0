#include "dbwriter/replay.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "dbwriter/replay_int.h"
/*
 * The connections and their transactions. Each has one query under way at a time:
 *
 *   connect → session → [schema] → tables → ready
 *   ready   → position of a stream, once            → ready
 *           → BEGIN; UPDATE position → its changes, shape by shape → COMMIT → ready
 *                         └ not our row any more ────────────→ ROLLBACK → ready
 *                                      └ refused ────────────→ ROLLBACK → ready (one by one, smaller, or given up)
 *   a lost connection: the position of the stream that was at work is read anew
 */

#define BACKOFF_MIN_MS       50
#define BACKOFF_MAX_MS       5000
#define PATIENCE_MS          60000 /* for one query; the server's own waits are shorter */
#define IDLE_MS              500   /* then the database is asked whether it is there */
#define SILENT_MS            2000  /* without an answer to that it counts as away */
#define SILENT_WORKING_MS    5000  /* … to anything else */
#define SLICE_ROWS           16384 /* of one shape in one query */
#define SLICE_BYTES          (2u << 20)
#define TEXT_BYTES           (256u << 10) /* of statements in one query, about */
#define CONTAINER(p, member) ((struct lane *)((char *)(p)-offsetof(struct lane, member)))

static void step(struct lane *l);
static void connect_now(struct lane *l);

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static void rest(struct lane *l)
{
	l->backoff_ms = l->backoff_ms ? l->backoff_ms * 2 : BACKOFF_MIN_MS;
	if (l->backoff_ms > BACKOFF_MAX_MS)
		l->backoff_ms = BACKOFF_MAX_MS;
	l->resting = true;
	loop_timer(l->replay->loop, &l->retry, l->backoff_ms);
}

static void disconnect(struct lane *l, const char *why)
{
	struct replay *r = l->replay;
	if (!l->away_told)
		log_error(r->log, "dbwriter.database_away", "connection=%u why=%s", (unsigned)(l - r->lane) + 1,
			  why && *why ? why : "connection lost");
	l->away_told = true;
	env_db_close(l->db);
	l->db = NULL;
	if (l->ready && !l->silent)
		atomic_fetch_sub(&r->connected, 1);
	l->ready = l->busy = l->silent = l->asks = false;
	if (l->current)
		stream_doubt(l->current); /* was it committed? the position will tell */
	l->current = NULL;
	if (r->reader == l)
		r->reader = NULL;
	loop_timer_stop(r->loop, &l->patience);
	rest(l);
}

static void on_retry(struct timer *t, uint64_t now_ms)
{
	struct lane *l = CONTAINER(t, retry);
	(void)now_ms;
	l->resting = false;
	if (l->db)
		step(l);
	else
		connect_now(l);
}

static void on_patience(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	disconnect(CONTAINER(t, patience), "no answer");
}

static void begin_asking(struct lane *l)
{
	assert(!l->busy);
	l->busy = true;
	l->asked_ms = l->replay->loop->now_ms;
	loop_timer(l->replay->loop, &l->patience, PATIENCE_MS);
}

static void ask(struct lane *l, const char *sql, size_t n, void (*fn)(void *arg, const struct env_db_result *res))
{
	begin_asking(l);
	if (env_db_query(l->db, sql, n, fn, l) < 0)
		disconnect(l, env_db_message(l->db));
}

static void ask_text(struct lane *l, const char *sql, void (*fn)(void *arg, const struct env_db_result *res))
{
	ask(l, sql, strlen(sql), fn);
}

/* Every answer passes here first. False: the connection is gone, and everything is settled. */
static bool answered(struct lane *l, const struct env_db_result *res)
{
	l->busy = l->asks = false;
	l->heard_ms = l->replay->loop->now_ms;
	loop_timer_stop(l->replay->loop, &l->patience);
	if (l->silent && l->ready && res->err != ERR_UNAVAILABLE) {
		l->silent = false;
		atomic_fetch_add(&l->replay->connected, 1);
		log_info(l->replay->log, "dbwriter.answers", "connection=%u", (unsigned)(l - l->replay->lane) + 1);
	}
	if (res->err != ERR_UNAVAILABLE)
		return true;
	disconnect(l, res->message);
	return false;
}

static void format(struct lane *l, const char *sql, const struct sql_value *values, size_t n)
{
	char why[160];
	int err = sql_format(&l->sql, sql, values, n, why, sizeof why);
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
	struct lane *l = arg;
	if (answered(l, res))
		step(l);
}

static void roll_back(struct lane *l)
{
	l->current = NULL;
	ask_text(l, "ROLLBACK", on_rolled_back);
}

/* Of this moment: the same again after a rest. */
static void again_later(struct lane *l, const struct env_db_result *res, const char *doing)
{
	struct stream *s = l->current;
	atomic_fetch_add_explicit(&s->counts.retries, 1, memory_order_relaxed);
	if (l->backoff_ms >= 1000 || res->code != 1213)
		log_warn(l->replay->log, "dbwriter.again", "instance=%s doing=%s error=%u message=%s", s->name, doing,
			 res->code, res->message);
	rest(l);
	roll_back(l);
}

/* ---- landing ------------------------------------------------------------------------------------------------------ */

/* Keeps the record that is passed over, once; false: it cannot be kept now. */
static bool keep_refused(struct replay *r, struct stream *s)
{
	const struct position at = batch_first(&s->load.batch)->at;
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

static void refused(struct lane *l, const struct env_db_result *res)
{
	struct stream *s = l->current;
	if (l->planned) { /* which of its records it was, and what becomes of the others, they show one by one */
		s->one_by_one = true;
		stream_unplan(s);
		s->load.batch.sent = 0;
		l->replay->stale = true;
	} else if (batch_refused(&s->load.batch, res->failed_at)) {
		s->given_up = true;
		s->load.batch.limit = 1;
		s->refusal_code = res->code;
		snprintf(s->refusal, sizeof s->refusal, "%s", res->message ? res->message : "");
	}
	roll_back(l);
}

static bool taken(struct lane *l, const struct env_db_result *res)
{
	if (!answered(l, res))
		return false;
	if (!res->err)
		return true;
	if (batch_fault(res->code) == BATCH_AGAIN)
		again_later(l, res, "landing");
	else
		refused(l, res);
	return false;
}

static void on_landed(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	struct stream *s = l->current;
	if (!taken(l, res))
		return;
	env_failpoint(l->replay->loop->env, "dbwriter.after_commit");
	if (s->given_up)
		atomic_fetch_add_explicit(&s->counts.quarantined, 1, memory_order_relaxed);
	s->given_up = false;
	l->backoff_ms = 0;
	l->current = NULL;
	stream_landed(s);
	step(l);
}

static void land_next(struct lane *l);

static void on_part(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (taken(l, res))
		land_next(l);
}

static bool goes_joined(const struct lane *l, const struct plan_group *g)
{
	return l->joins && g->shape && g->shape->join[0] && g->rows - l->row >= l->replay->o.array_rows_min;
}

static bool goes_as_array(const struct lane *l, const struct plan_group *g)
{
	const struct replay_options *o = &l->replay->o;
	return g->shape && !goes_joined(l, g) && g->shape->params && g->rows - l->row >= o->array_rows_min &&
	       !o->no_arrays && env_db_takes_arrays(l->db);
}

static void land_array(struct lane *l, const struct plan_group *g)
{
	struct env_db_bind column[SHAPE_VALUES_MAX];
	unsigned rows = plan_slice(g, l->row, SLICE_ROWS, SLICE_BYTES);
	plan_bind(g, l->row, column);
	l->row += rows;
	if (l->row == g->rows) {
		l->row = 0;
		l->group++;
	}
	begin_asking(l);
	if (env_db_bulk(l->db, g->shape->sql, g->shape->sql_bytes, column, g->shape->params, rows, on_part, l) < 0)
		disconnect(l, env_db_message(l->db));
}

/* Adds what is next as text. */
static void add_text(struct lane *l, const struct plan_group *g)
{
	if (goes_joined(l, g)) {
		unsigned rows = plan_slice(g, l->row, SLICE_ROWS, TEXT_BYTES);
		plan_join(g, l->row, rows, &l->sql);
		l->row += rows;
	} else if (g->shape) {
		unsigned rows = plan_slice(g, l->row, SLICE_ROWS, TEXT_BYTES / 4);
		plan_text(g, l->row, rows, &l->sql);
		l->row += rows;
	} else {
		buf_add(&l->sql, g->text.data, g->text.len);
		l->row = g->rows;
	}
	if (l->row == g->rows) {
		l->row = 0;
		l->group++;
	}
}

/* The next piece of the plan under way: an array, or texts, with COMMIT behind the last. */
static void land_next(struct lane *l)
{
	const struct plan *p = l->current->load.plan;
	buf_clear(&l->sql);
	while (l->group < plan_groups(p) && l->sql.len < TEXT_BYTES) {
		const struct plan_group *g = plan_group(p, l->group);
		if (!goes_as_array(l, g)) {
			add_text(l, g);
			continue;
		}
		if (l->sql.len)
			break;
		land_array(l, g);
		return;
	}
	bool last = l->group == plan_groups(p);
	if (last) {
		env_failpoint(l->replay->loop->env, "dbwriter.before_commit");
		buf_addstr(&l->sql, "COMMIT");
	}
	ask(l, l->sql.data, l->sql.len, last ? on_landed : on_part);
}

/* The database has work: meanwhile the next records are read, by pieces, so that no answer waits long for us. */
static void on_ahead(struct timer *t, uint64_t now_ms)
{
	struct replay *r = (struct replay *)((char *)t - offsetof(struct replay, ahead));
	bool more = false;
	(void)now_ms;
	for (unsigned i = 0; i < r->o.connections; i++) {
		struct lane *l = &r->lane[i];
		if (l->busy && l->planned && l->current && stream_read_ahead(l->current))
			more = true;
	}
	if (more)
		loop_timer(r->loop, t, 0);
}

static void overtaken(struct lane *l)
{
	struct stream *s = l->current;
	log_warn(l->replay->log, "dbwriter.overtaken", "instance=%s epoch=%llu lsn=%llu why=%s", s->name,
		 (unsigned long long)s->landed.epoch, (unsigned long long)s->landed.lsn,
		 "somebody else moved the position: is there a second dbwriter?");
	stream_doubt(s);
	rest(l);
	roll_back(l);
}

/* A migration ran since the tables were read: the plan was made for others. */
static bool migrated(const struct replay *r, const struct env_db_result *res)
{
	return r->schema && res->rows && res->cells[0] && strtoull(res->cells[0], NULL, 10) != r->schema;
}

static void on_moved(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	struct stream *s = l->current;
	if (!answered(l, res))
		return;
	if (res->err < 0) {
		again_later(l, res, "moving the position");
	} else if (res->affected != 1) {
		overtaken(l);
	} else if (l->planned && migrated(l->replay, res)) {
		l->replay->stale = true;
		s->load.batch.sent = 0;
		roll_back(l);
	} else if (l->planned) {
		land_next(l);
		loop_timer(l->replay->loop, &l->replay->ahead, 0);
	} else {
		env_failpoint(l->replay->loop->env, "dbwriter.before_commit");
		if (s->given_up)
			ask_text(l, "COMMIT", on_landed);
		else
			ask(l, s->load.batch.sql.data, s->load.batch.sql.len, on_landed);
	}
}

static void move_position(struct lane *l, struct stream *s)
{
	const struct batch_item *last = batch_last(&s->load.batch);
	char file[32];
	snprintf(file, sizeof file, "%08u.sql", last->file);
	struct sql_value values[] = { int_value(last->at.epoch), int_value(last->at.lsn), text_value(file),
				      int_value(last->time_us),  text_value(s->name),     int_value(s->landed.epoch),
				      int_value(s->landed.lsn) };
	buf_clear(&l->sql);
	if (l->planned && l->replay->schema)
		buf_addstr(&l->sql, "SELECT MAX(version) FROM loquat_schema;\n");
	buf_addstr(&l->sql, "BEGIN;\n");
	format(l,
	       "UPDATE loquat_replay SET epoch = ?, lsn = ?, file = ?, time_us = ? WHERE instance = ? AND epoch = ? AND lsn = ?",
	       values, 7);
	l->current = s;
	ask(l, l->sql.data, l->sql.len, on_moved);
}

static void begin(struct lane *l, struct stream *s)
{
	if (!s->given_up)
		stream_hold_back(s);
	l->planned = stream_plan(s);
	l->group = l->row = 0;
	s->began_ms = l->replay->loop->now_ms;
	if (l->planned)
		batch_sent(&s->load.batch, s->load.planned);
	else
		batch_sql(&s->load.batch);
	if (s->given_up && !keep_refused(l->replay, s))
		rest(l);
	else
		move_position(l, s);
}

/* ---- positions ------------------------------------------------------------------------------------------------------ */

static void on_row_made(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!answered(l, res))
		return;
	if (res->err < 0 && res->code != 1062) /* another dbwriter made it */
		again_later(l, res, "making the position");
	else {
		l->current = NULL;
		step(l);
	}
}

static void make_row(struct lane *l, struct stream *s)
{
	struct sql_value values[] = { text_value(s->name), text_value("") };
	buf_clear(&l->sql);
	format(l, "INSERT INTO loquat_replay (instance, epoch, lsn, file, time_us) VALUES (?, 0, 0, ?, 0)", values, 2);
	ask(l, l->sql.data, l->sql.len, on_row_made);
}

static void on_position(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	struct stream *s = l->current;
	if (!answered(l, res))
		return;
	if (res->err < 0) {
		again_later(l, res, "reading the position");
		return;
	}
	if (!res->rows) {
		make_row(l, s);
		return;
	}
	struct position landed = { strtoull(res->cells[0], NULL, 10), strtoull(res->cells[1], NULL, 10) };
	if (!stream_takes_over(s, landed)) {
		l->current = NULL;
		step(l);
		return;
	}
	log_info(l->replay->log, "dbwriter.position", "instance=%s epoch=%llu lsn=%llu file=%s", s->name,
		 (unsigned long long)landed.epoch, (unsigned long long)landed.lsn, res->cells[2]);
	stream_begin(s, landed);
	l->current = NULL;
	step(l);
}

static void ask_position(struct lane *l, struct stream *s)
{
	struct sql_value name = text_value(s->name);
	l->current = s;
	buf_clear(&l->sql);
	format(l, "SELECT epoch, lsn, file FROM loquat_replay WHERE instance = ?", &name, 1);
	ask(l, l->sql.data, l->sql.len, on_position);
}

/* ---- the tables ------------------------------------------------------------------------------------------------------- */

static void on_tables(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	struct replay *r = l->replay;
	if (!answered(l, res))
		return;
	if (!res->err)
		tables_answer(&r->fresh, r->query, res);
	else if (!r->tables.version || r->query)
		log_warn(r->log, "dbwriter.tables", "error=%u message=%s next=%s", res->code, res->message,
			 "records land one by one");
	if (!res->err && ++r->query < TABLES_QUERIES) {
		ask_text(l, tables_query(r->query), on_tables);
		return;
	}
	if (res->err) /* nothing is known of any */
		tables_begin(&r->fresh);
	struct tables old = r->tables;
	r->tables = r->fresh;
	r->tables.version = old.version;
	tables_end(&r->tables);
	r->fresh = old;
	r->schema = r->schema_fresh;
	r->reader = NULL;
	step(l);
}

static void on_schema_read(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	struct replay *r = l->replay;
	if (!answered(l, res))
		return;
	r->schema_fresh = !res->err && res->rows && res->cells[0] ? strtoull(res->cells[0], NULL, 10) : 0;
	r->query = 0;
	tables_begin(&r->fresh);
	ask_text(l, tables_query(0), on_tables);
}

static void read_tables(struct lane *l)
{
	l->replay->reader = l;
	l->replay->stale = false;
	ask_text(l, "SELECT MAX(version) FROM loquat_schema", on_schema_read);
}

/* ---- whose turn --------------------------------------------------------------------------------------------------- */

static struct stream *after(const struct lane *l, struct stream *s)
{
	struct stream *next = s ? s->next : NULL;
	return next ? next : l->replay->streams;
}

static void step(struct lane *l)
{
	struct replay *r = l->replay;
	if (!l->ready || l->busy || l->resting)
		return;
	if (r->stale && !r->reader) {
		read_tables(l);
		return;
	}
	struct stream *first = l->turn ? l->turn : r->streams, *s = first;
	while (s) {
		l->turn = after(l, s);
		if (s->lane == l && !s->known && stream_asks(s)) {
			ask_position(l, s);
			return;
		}
		if (s->lane == l && s->known && stream_fill(s)) {
			begin(l, s);
			return;
		}
		if (s->lane == l && s->known && r->o.standby_ms)
			stream_doubt(s); /* all of it has landed: from here on somebody else may */
		s = l->turn;
		if (s == first)
			return;
	}
}

static void step_all(struct replay *r)
{
	for (unsigned i = 0; i < r->o.connections; i++)
		step(&r->lane[i]);
}

static void on_work(struct loop_deferred *d)
{
	step_all((struct replay *)((char *)d - offsetof(struct replay, work)));
}

static void on_folder(void *arg)
{
	struct replay *r = arg;
	streams_discover(r);
	loop_defer(r->loop, &r->work);
}

static void on_there(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (answered(l, res))
		step(l);
}

/* A stopped server says nothing: who has nothing to do asks, and who waits for an answer minds how long. */
static void watch_lane(struct lane *l, uint64_t now_ms)
{
	if (!l->ready || l->silent)
		return;
	if (!l->busy && !l->resting && now_ms - l->heard_ms >= IDLE_MS) {
		l->asks = true;
		ask_text(l, "SELECT MAX(version) FROM loquat_schema", on_there);
	} else if (l->busy && now_ms - l->asked_ms >= (l->asks ? SILENT_MS : SILENT_WORKING_MS)) {
		l->silent = true;
		atomic_fetch_sub(&l->replay->connected, 1);
		log_error(l->replay->log, "dbwriter.database_silent", "connection=%u for_ms=%llu",
			  (unsigned)(l - l->replay->lane) + 1, (unsigned long long)(now_ms - l->asked_ms));
	}
}

static void count_kept(struct replay *r)
{
	char path[ENV_PATH_MAX];
	snprintf(path, sizeof path, "%s/quarantine.sql", r->o.folder);
	int64_t written_us = env_file_mtime_us(r->loop->env, path);
	if (written_us == r->kept_us)
		return;
	r->kept_us = written_us;
	atomic_store(&r->kept, written_us < 0 ? 0 : quarantine_count(r->loop->env, path));
}

static void on_poll(struct timer *t, uint64_t now_ms)
{
	struct replay *r = (struct replay *)((char *)t - offsetof(struct replay, poll));
	streams_discover(r);
	count_kept(r);
	for (struct stream *s = r->streams; s; s = s->next) {
		stream_look(s, now_ms);
		if (!s->lane->ready && s->known)
			stream_fill(s); /* the lag is told while the database is away */
	}
	loop_timer(r->loop, t, r->o.poll_ms);
	step_all(r);
	for (unsigned i = 0; i < r->o.connections; i++)
		watch_lane(&r->lane[i], now_ms);
}

/* ---- connecting ------------------------------------------------------------------------------------------------------ */

static void on_joins(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!answered(l, res))
		return;
	l->joins = !res->err && res->rows == 1 && !l->replay->o.no_arrays;
	step(l);
}

static void set_up(struct lane *l)
{
	static const char ask_joins[] =
		"SELECT v.a FROM JSON_TABLE('[[1,2]]', '$[*]' COLUMNS (a BIGINT PATH '$[0]', b DOUBLE PATH '$[1]')) AS v";
	struct replay *r = l->replay;
	l->ready = true;
	l->backoff_ms = 0;
	l->away_told = false;
	r->stale = true; /* another server may be there */
	atomic_fetch_add(&r->connected, 1);
	log_info(r->log, "dbwriter.connected", "connection=%u folder=%s", (unsigned)(l - r->lane) + 1, r->o.folder);
	ask_text(l, ask_joins, on_joins);
}

static void on_schema(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!answered(l, res))
		return;
	const char *version = !res->err && res->rows ? res->cells[0] : NULL;
	if (!version || strtoul(version, NULL, 10) >= l->replay->o.schema_version) {
		set_up(l); /* no such table: the position's table is what counts, and it is asked next */
		return;
	}
	char why[120];
	snprintf(why, sizeof why,
		 "its schema has version %s and this build needs %u: apply the migrations of deploy/schema", version,
		 l->replay->o.schema_version);
	disconnect(l, why);
}

static void on_session(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!answered(l, res))
		return;
	if (res->err < 0)
		disconnect(l, res->message);
	else if (l->replay->o.schema_version)
		ask_text(l, "SELECT MAX(version) FROM loquat_schema", on_schema);
	else
		set_up(l);
}

static void on_open(void *arg, int err)
{
	/* strict: nothing is cut to fit; backslashes escape; a lock that is held is given up after a while and asked anew */
	static const char sql[] =
		"SET SESSION sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',"
		" autocommit = 1, innodb_lock_wait_timeout = 2";
	struct lane *l = arg;
	l->busy = false;
	if (err < 0)
		disconnect(l, env_db_message(l->db));
	else
		ask_text(l, sql, on_session);
}

static void connect_now(struct lane *l)
{
	l->busy = true;
	if (env_db_open(l->replay->loop->ev, &l->replay->o.db, on_open, l, &l->db) < 0)
		disconnect(l, "no connection could be made");
}

/* ---- public ---------------------------------------------------------------------------------------------------------- */

static void options_set(struct replay *r, const struct replay_options *o)
{
	r->o = *o;
	r->o.folder = strdup(o->folder); /* the caller's may stand on its stack */
	assert(r->o.folder && o->connections <= REPLAY_CONNECTIONS_MAX);
	r->o.batch_records_max = o->batch_records_max ? o->batch_records_max : 40000;
	r->o.batch_bytes_max = o->batch_bytes_max ? o->batch_bytes_max : 10u << 20;
	r->o.connections = o->connections ? o->connections : 1;
	r->o.array_rows_min = o->array_rows_min ? o->array_rows_min : 8;
	r->o.poll_ms = o->poll_ms ? o->poll_ms : 500;
}

struct replay *replay_new(struct loop *loop, struct log *log, const struct replay_options *o)
{
	struct replay *r = calloc(1, sizeof *r);
	assert(r);
	loop_assert_owner(loop);
	r->loop = loop;
	r->log = log;
	options_set(r, o);
	r->work.run = on_work;
	r->poll.fire = on_poll;
	r->ahead.fire = on_ahead;
	(void)env_dir_make(loop->env, o->folder);
	if (env_watch(loop->ev, o->folder, on_folder, r, &r->watch) < 0)
		r->watch = NULL;
	streams_discover(r);
	loop_timer(loop, &r->poll, r->o.poll_ms);
	for (unsigned i = 0; i < r->o.connections; i++) {
		struct lane *l = &r->lane[i];
		l->replay = r;
		l->retry.fire = on_retry;
		l->patience.fire = on_patience;
		connect_now(l);
	}
	return r;
}

static void lane_end(struct lane *l)
{
	loop_timer_stop(l->replay->loop, &l->retry);
	loop_timer_stop(l->replay->loop, &l->patience);
	env_db_close(l->db);
	buf_release(&l->sql);
}

void replay_free(struct replay *r)
{
	if (!r)
		return;
	loop_timer_stop(r->loop, &r->poll);
	loop_timer_stop(r->loop, &r->ahead);
	for (unsigned i = 0; i < r->o.connections; i++)
		lane_end(&r->lane[i]);
	env_watch_close(r->watch);
	for (struct stream *s = r->streams, *next; s; s = next) {
		next = s->next;
		stream_hint(s);
		stream_release(s);
	}
	loop_defer_not(r->loop, &r->work);
	tables_release(&r->tables);
	tables_release(&r->fresh);
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
		.folded = atomic_load_explicit(&c->folded, memory_order_relaxed),
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
		f.connected = atomic_load(&r->connected) == r->o.connections;
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
	sum->folded += f->folded;
	sum->streams++;
	sum->stopped += f->stopped;
}

void replay_figures(const struct replay *r, struct replay_figures *out)
{
	*out = (struct replay_figures){ .kept = atomic_load(&r->kept),
					.connected = atomic_load(&r->connected) == r->o.connections };
	replay_each(r, add_up, out);
}
