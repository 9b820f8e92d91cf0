#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "common/err.h"
#include "dbwriter/replay_private.h"
/*
 * A transaction: the position of a stream moves, then its changes go, shape by shape, or as they stand in the log.
 *
 *   BEGIN; UPDATE position → its changes, shape by shape → COMMIT → ready
 *                └ not our row any more ────────────→ ROLLBACK → ready
 *                             └ refused ────────────→ ROLLBACK → ready (one by one, smaller, or given up)
 */

#define SLICE_ROWS  16384 /* of one shape in one query */
#define SLICE_BYTES (2u << 20)
#define TEXT_BYTES  (256u << 10) /* of statements in one query, about */

/* ---- giving a transaction back ---------------------------------------------------------------------------------- */

static void on_rolled_back(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (lane_answered(l, res))
		lane_step(l);
}

static void roll_back(struct lane *l)
{
	l->current = NULL;
	lane_ask_text(l, "ROLLBACK", on_rolled_back);
}

/* Of this moment: the same again after a rest. */
void land_again_later(struct lane *l, const struct env_db_result *res, const char *doing)
{
	struct stream *s = l->current;
	atomic_fetch_add_explicit(&s->counts.retries, 1, memory_order_relaxed);
	if (l->backoff_ms >= 1000 || res->code != 1213)
		log_warn(l->replay->log, "dbwriter.again", "instance=%s doing=%s error=%u message=%s", s->name, doing,
			 res->code, res->message);
	if (l->backoff_ms >= 1000)
		atomic_store_explicit(&s->counts.refused, true, memory_order_relaxed);
	lane_rest(l);
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
	if (!lane_answered(l, res))
		return false;
	if (!res->err)
		return true;
	if (batch_fault(res->code) == BATCH_AGAIN)
		land_again_later(l, res, "landing");
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
	atomic_store_explicit(&s->counts.refused, false, memory_order_relaxed);
	l->backoff_ms = 0;
	l->current = NULL;
	stream_landed(s);
	lane_step(l);
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
	lane_begin_asking(l);
	if (env_db_bulk(l->db, g->shape->sql, g->shape->sql_bytes, column, g->shape->params, rows, on_part, l) < 0)
		lane_disconnect(l, env_db_message(l->db));
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
	lane_ask(l, l->sql.data, l->sql.len, last ? on_landed : on_part);
}

/* The database has work: meanwhile the next records are read, by pieces, so that no answer waits long for us. */
void land_read_ahead(struct timer *t, uint64_t now_ms)
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
	lane_rest(l);
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
	if (!lane_answered(l, res))
		return;
	if (res->err < 0) {
		land_again_later(l, res, "moving the position");
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
			lane_ask_text(l, "COMMIT", on_landed);
		else
			lane_ask(l, s->load.batch.sql.data, s->load.batch.sql.len, on_landed);
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
		buf_addstr(&l->sql, "SELECT COUNT(*) FROM loquat_schema;\n");
	buf_addstr(&l->sql, "BEGIN;\n");
	lane_format(
		l,
		"UPDATE loquat_replay SET epoch = ?, lsn = ?, file = ?, time_us = ? WHERE instance = ? AND epoch = ? AND lsn = ?",
		values, 7);
	l->current = s;
	lane_ask(l, l->sql.data, l->sql.len, on_moved);
}

void land_begin(struct lane *l, struct stream *s)
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
	if (s->given_up && !keep_refused(l->replay, s)) {
		s->given_up =
			s->refusal_code; /* what only waits for its key may not have to when a command has ended */
		lane_rest(l);
	} else {
		move_position(l, s);
	}
}
