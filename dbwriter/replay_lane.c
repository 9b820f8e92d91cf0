#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "dbwriter/replay_private.h"
/*
 * A connection to the database: asked, waited for, lost and made anew.
 *
 *   connect → session → [schema] → ready
 */

#define BACKOFF_MIN_MS       50
#define BACKOFF_MAX_MS       5000
#define PATIENCE_MS          60000 /* for one query; the server's own waits are shorter */
#define IDLE_MS              500   /* then the database is asked whether it is there */
#define SILENT_MS            2000  /* without an answer to that it counts as away */
#define SILENT_WORKING_MS    5000  /* … to anything else */
#define CONTAINER(p, member) ((struct lane *)((char *)(p)-offsetof(struct lane, member)))

static void connect_now(struct lane *l);

/* ---- asking ---------------------------------------------------------------------------------------------------- */

void lane_rest(struct lane *l)
{
	l->backoff_ms = l->backoff_ms ? l->backoff_ms * 2 : BACKOFF_MIN_MS;
	if (l->backoff_ms > BACKOFF_MAX_MS)
		l->backoff_ms = BACKOFF_MAX_MS;
	l->resting = true;
	loop_timer(l->replay->loop, &l->retry, l->backoff_ms);
}

void lane_disconnect(struct lane *l, const char *why)
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
	lane_rest(l);
}

static void on_retry(struct timer *t, uint64_t now_ms)
{
	struct lane *l = CONTAINER(t, retry);
	(void)now_ms;
	l->resting = false;
	if (l->db)
		lane_step(l);
	else
		connect_now(l);
}

static void on_patience(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	lane_disconnect(CONTAINER(t, patience), "no answer");
}

void lane_begin_asking(struct lane *l)
{
	assert(!l->busy);
	l->busy = true;
	l->asked_ms = l->replay->loop->now_ms;
	loop_timer(l->replay->loop, &l->patience, PATIENCE_MS);
}

void lane_ask(struct lane *l, const char *sql, size_t n, void (*fn)(void *arg, const struct env_db_result *res))
{
	lane_begin_asking(l);
	if (env_db_query(l->db, sql, n, fn, l) < 0)
		lane_disconnect(l, env_db_message(l->db));
}

void lane_ask_text(struct lane *l, const char *sql, void (*fn)(void *arg, const struct env_db_result *res))
{
	lane_ask(l, sql, strlen(sql), fn);
}

/* Every answer passes here first. False: the connection is gone, and everything is settled. */
bool lane_answered(struct lane *l, const struct env_db_result *res)
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
	lane_disconnect(l, res->message);
	return false;
}

void lane_format(struct lane *l, const char *sql, const struct sql_value *values, size_t n)
{
	char why[160];
	int err = sql_format(&l->sql, sql, values, n, why, sizeof why);
	assert(!err);
	(void)err;
}

static void on_there(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (lane_answered(l, res))
		lane_step(l);
}

/* A stopped server says nothing: who has nothing to do asks, and who waits for an answer minds how long. */
void lane_watch(struct lane *l, uint64_t now_ms)
{
	if (!l->ready || l->silent)
		return;
	if (!l->busy && !l->resting && now_ms - l->heard_ms >= IDLE_MS) {
		l->asks = true;
		lane_ask_text(l, "SELECT COUNT(*) FROM loquat_schema", on_there);
	} else if (l->busy && now_ms - l->asked_ms >= (l->asks ? SILENT_MS : SILENT_WORKING_MS)) {
		l->silent = true;
		atomic_fetch_sub(&l->replay->connected, 1);
		log_error(l->replay->log, "dbwriter.database_silent", "connection=%u for_ms=%llu",
			  (unsigned)(l - l->replay->lane) + 1, (unsigned long long)(now_ms - l->asked_ms));
	}
}

/* ---- connecting ------------------------------------------------------------------------------------------------------ */

static void on_joins(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!lane_answered(l, res))
		return;
	l->joins = !res->err && res->rows == 1 && !l->replay->o.no_arrays;
	lane_step(l);
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
	lane_ask_text(l, ask_joins, on_joins);
}

static bool has_version(const struct env_db_result *res, unsigned version)
{
	for (unsigned i = 0; i < res->rows; i++)
		if (strtoul(res->cells[i], NULL, 10) == version)
			return true;
	return !version;
}

static void on_schema(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!lane_answered(l, res))
		return;
	const unsigned *needed = l->replay->o.schema;
	bool has = has_version(res, needed[0]);
	if (res->err || (has && has_version(res, needed[1]))) {
		set_up(l); /* no such table: the position's table is what counts, and it is asked next */
		return;
	}
	char why[120];
	snprintf(why, sizeof why,
		 "its schema has no %03u, which this build needs: apply the migrations of deploy/schema", needed[has]);
	lane_disconnect(l, why);
}

static void on_session(void *arg, const struct env_db_result *res)
{
	struct lane *l = arg;
	if (!lane_answered(l, res))
		return;
	const unsigned *needed = l->replay->o.schema;
	if (res->err < 0) {
		lane_disconnect(l, res->message);
	} else if (needed[0] || needed[1]) {
		buf_clear(&l->sql);
		buf_addf(&l->sql, "SELECT version FROM loquat_schema WHERE version IN (%u, %u)", needed[0], needed[1]);
		lane_ask(l, l->sql.data, l->sql.len, on_schema);
	} else {
		set_up(l);
	}
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
		lane_disconnect(l, env_db_message(l->db));
	else
		lane_ask_text(l, sql, on_session);
}

static void connect_now(struct lane *l)
{
	l->busy = true;
	if (env_db_open(l->replay->loop->ev, &l->replay->o.db, on_open, l, &l->db) < 0)
		lane_disconnect(l, "no connection could be made");
}

void lane_init(struct lane *l, struct replay *r)
{
	l->replay = r;
	l->retry.fire = on_retry;
	l->patience.fire = on_patience;
	connect_now(l);
}

void lane_release(struct lane *l)
{
	loop_timer_stop(l->replay->loop, &l->retry);
	loop_timer_stop(l->replay->loop, &l->patience);
	env_db_close(l->db);
	buf_release(&l->sql);
}
