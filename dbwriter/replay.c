#include "dbwriter/replay.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "dbwriter/replay_private.h"
/*
 * Whose turn it is on which connection, and what has to be known before anything lands:
 *
 *   ready → the tables, when they may have changed → ready
 *         → position of a stream, once             → ready
 *         → a transaction (replay_land.c)          → ready
 *   a lost connection: the position of the stream that was at work is read anew
 */

/* ---- positions ------------------------------------------------------------------------------------------------------ */

static void on_row_made(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!lane_answered(l, res))
		return;
	if (res->err < 0 && res->code != 1062) /* another dbwriter made it */
		land_again_later(l, res, "making the position");
	else {
		l->current = NULL;
		lane_step(l);
	}
}

static void make_row(struct lane *l, struct stream *s)
{
	struct sql_value values[] = { text_value(s->name), text_value("") };
	buf_clear(&l->sql);
	lane_format(l, "INSERT INTO loquat_replay (instance, epoch, lsn, file, time_us) VALUES (?, 0, 0, ?, 0)", values,
		    2);
	lane_ask(l, l->sql.data, l->sql.len, on_row_made);
}

static void on_position(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	struct stream *s = l->current;
	if (!lane_answered(l, res))
		return;
	if (res->err < 0) {
		land_again_later(l, res, "reading the position");
		return;
	}
	if (!res->rows) {
		make_row(l, s);
		return;
	}
	struct position landed = { strtoull(res->cells[0], NULL, 10), strtoull(res->cells[1], NULL, 10) };
	if (!stream_takes_over(s, landed)) {
		l->current = NULL;
		lane_step(l);
		return;
	}
	int err = stream_take_back(s, landed);
	if (err < 0) {
		log_error(l->replay->log, "dbwriter.quarantine", "instance=%s lsn=%llu why=%s", s->name,
			  (unsigned long long)landed.lsn, err == ERR_IO ? env_last_error() : err_text(err));
		l->current = NULL;
		lane_rest(l);
		return;
	}
	log_info(l->replay->log, "dbwriter.position", "instance=%s epoch=%llu lsn=%llu file=%s", s->name,
		 (unsigned long long)landed.epoch, (unsigned long long)landed.lsn, res->cells[2]);
	stream_begin(s, landed);
	l->current = NULL;
	lane_step(l);
}

static void ask_position(struct lane *l, struct stream *s)
{
	struct sql_value name = text_value(s->name);
	l->current = s;
	buf_clear(&l->sql);
	lane_format(l, "SELECT epoch, lsn, file FROM loquat_replay WHERE instance = ?", &name, 1);
	lane_ask(l, l->sql.data, l->sql.len, on_position);
}
/* ---- the tables ------------------------------------------------------------------------------------------------------- */

static void on_tables(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	struct replay *r = l->replay;
	if (!lane_answered(l, res))
		return;
	if (!res->err)
		tables_answer(&r->fresh, r->query, res);
	else if (!r->tables.version || r->query)
		log_warn(r->log, "dbwriter.tables", "error=%u message=%s next=%s", res->code, res->message,
			 "records land one by one");
	if (!res->err && ++r->query < TABLES_QUERIES) {
		lane_ask_text(l, tables_query(r->query), on_tables);
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
	lane_step(l);
}

static void on_schema_read(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	struct replay *r = l->replay;
	if (!lane_answered(l, res))
		return;
	r->schema_fresh = !res->err && res->rows && res->cells[0] ? strtoull(res->cells[0], NULL, 10) : 0;
	r->query = 0;
	tables_begin(&r->fresh);
	lane_ask_text(l, tables_query(0), on_tables);
}

static void read_tables(struct lane *l)
{
	l->replay->reader = l;
	l->replay->stale = false;
	lane_ask_text(l, "SELECT COUNT(*) FROM loquat_schema", on_schema_read);
}
/* ---- whose turn --------------------------------------------------------------------------------------------------- */

static struct stream *after(const struct lane *l, struct stream *s)
{
	struct stream *next = s ? s->next : NULL;
	return next ? next : l->replay->streams;
}

/* The stream whose turn it is, that has something to do, does it. False: none has. */
static bool take_turn(struct lane *l)
{
	struct replay *r = l->replay;
	struct stream *first = l->turn ? l->turn : r->streams, *s = first;
	while (s) {
		l->turn = after(l, s);
		if (s->lane == l && !s->known && stream_asks(s)) {
			ask_position(l, s);
			return true;
		}
		if (s->lane == l && s->known && stream_fill(s)) {
			land_begin(l, s);
			return true;
		}
		if (s->lane == l && s->known && r->o.standby_ms)
			stream_doubt(s); /* all of it has landed: from here on somebody else may */
		s = l->turn;
		if (s == first)
			return false;
	}
	return false;
}

void lane_step(struct lane *l)
{
	struct replay *r = l->replay;
	if (!l->ready || l->busy || l->resting)
		return;
	if (r->stale && !r->reader)
		read_tables(l);
	else if (!take_turn(l))
		forget_begin(l);
}

static void step_all(struct replay *r)
{
	for (unsigned i = 0; i < r->o.connections; i++)
		lane_step(&r->lane[i]);
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

static void count_kept(struct replay *r)
{
	char path[ENV_PATH_MAX];
	snprintf(path, sizeof path, "%s/quarantine.sql", r->o.folder);
	int64_t written_us = env_file_mtime_us(r->loop->env, path);
	if (written_us == r->kept_us)
		return;
	r->kept_us = written_us;
	atomic_store(&r->kept, quarantine_count(r->loop->env, path));
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
		lane_watch(&r->lane[i], now_ms);
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
	r->o.forget_each_ms = o->forget_each_ms ? o->forget_each_ms : 3600000;
	r->forget_ms = r->loop->now_ms + r->o.forget_each_ms;
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
	r->ahead.fire = land_read_ahead;
	(void)env_dir_make(loop->env, o->folder);
	if (env_watch(loop->ev, o->folder, on_folder, r, &r->watch) < 0)
		r->watch = NULL;
	streams_discover(r);
	loop_timer(loop, &r->poll, r->o.poll_ms);
	for (unsigned i = 0; i < r->o.connections; i++)
		lane_init(&r->lane[i], r);
	return r;
}

void replay_free(struct replay *r)
{
	if (!r)
		return;
	loop_timer_stop(r->loop, &r->poll);
	loop_timer_stop(r->loop, &r->ahead);
	for (unsigned i = 0; i < r->o.connections; i++)
		lane_release(&r->lane[i]);
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
