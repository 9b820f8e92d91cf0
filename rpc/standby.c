#include "rpc/standby.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/sqllog.h"
#include "proto/dbwriter.pb-c.h"
#include "rpc/service_private.h"
/*
 *   begin → the standby's position → records behind it, one call after the other → …
 *     └───────────── any error, after a rest ←────────────────┘
 */
#define CHUNK_BYTES  (256u << 10)
#define RECORDS_TURN 5000 /* read at a time where they are there already */
#define CALL_MS      5000
#define REST_MS      300
#define GAP_REST_MS  5000 /* at most: up to a gap a file is read whole, again and again */
#define STUCK_MS     2000 /* what was written and cannot be read for so long is damaged */
#define LOOK_MS      200  /* should the watch miss a change */
#define STARTS_MAX   (64u << 10)

struct standby {
	struct service *service;
	const char *names;
	char instance[32]; /* the one of them; empty: none runs */
	char folder[ENV_PATH_MAX + 48];
	const struct msg_method *begin, *copy;
	struct env_watch *watch;
	struct timer timer;
	uint64_t call; /* under way; 0: none */
	uint64_t session;
	uint64_t epoch, lsn; /* the last record read */
	uint32_t number;     /* of the file that is read; 0: none yet */
	bool leaving;        /* a later one is there: read once more, then leave */
	bool gap;            /* records are missing behind what was read */
	uint64_t stuck_ms;   /* since when what was written cannot be read; 0: it can */
	uint32_t gap_ms;     /* the next rest before one; 0: there was none */
	struct sqllog_file file;
	struct buf records, body;
	_Atomic bool away;
};

static void begin(struct standby *y);
static void pump(struct standby *y);

static void rest(struct standby *y, uint32_t ms, const char *why)
{
	if (!atomic_exchange(&y->away, true))
		log_error(y->service->log, "sqllog.standby_away", "standby=%s lsn=%llu why=%s next=%s", y->names,
			  (unsigned long long)sqllog_durable_lsn(y->service->sqllog), why,
			  "nothing is acknowledged until it answers");
	y->session = 0;
	sqllog_file_close(&y->file);
	loop_timer(y->service->control, &y->timer, ms);
}

/* Something was copied, or there is nothing left to copy. */
static void goes_well(struct standby *y)
{
	y->gap_ms = 0;
	y->stuck_ms = 0;
	atomic_store(&y->away, false);
}

static void rest_at_gap(struct standby *y)
{
	y->gap_ms = y->gap_ms ? y->gap_ms * 2 : REST_MS;
	if (y->gap_ms > GAP_REST_MS)
		y->gap_ms = GAP_REST_MS;
	rest(y, y->gap_ms, "its log is damaged, or a file is missing");
}

/* ---- calling -------------------------------------------------------------------------------------------------------- */

static void call(struct standby *y, const struct msg_method *m, void (*fn)(void *arg, const struct rpc_answer *a))
{
	const struct rpc_call c = { .method = m,
				    .to = { .instance = y->instance,
					    .key = span_of(y->service->id, strlen(y->service->id)) },
				    .body = span_of(y->body.data, y->body.len),
				    .timeout_ms = CALL_MS,
				    .on_answer = fn,
				    .arg = y };
	y->call = rpc_call(&y->service->p->control_worker, &c);
}

/* The answer, or NULL: we rest. */
static Dbwriter__CopyAnswer *answer_of(struct standby *y, const struct rpc_answer *a)
{
	char why[160];
	y->call = 0;
	Dbwriter__CopyAnswer *m =
		a->err ? NULL : dbwriter__copy_answer__unpack(NULL, a->body.n, (const uint8_t *)a->body.p);
	if (m)
		return m;
	snprintf(why, sizeof why, "%s: %.*s", a->err ? err_text(a->err) : "its answer cannot be read",
		 (int)a->message.n, a->message.n ? a->message.p : "");
	rest(y, REST_MS, why);
	return NULL;
}

static void on_copied(void *arg, const struct rpc_answer *a)
{
	struct standby *y = arg;
	Dbwriter__CopyAnswer *m = answer_of(y, a);
	if (!m)
		return;
	goes_well(y);
	sqllog_replicated(y->service->sqllog, m->epoch, m->lsn);
	dbwriter__copy_answer__free_unpacked(m, NULL);
	pump(y);
}

static void send(struct standby *y)
{
	Dbwriter__CopyRequest m = DBWRITER__COPY_REQUEST__INIT;
	m.instance = y->service->id;
	m.session = y->session;
	m.records = (ProtobufCBinaryData){ y->records.len, (uint8_t *)y->records.data };
	buf_clear(&y->body);
	y->body.len =
		dbwriter__copy_request__pack(&m, (uint8_t *)buf_reserve(&y->body,
									dbwriter__copy_request__get_packed_size(&m)));
	buf_clear(&y->records);
	call(y, y->copy, on_copied);
}

/* ---- reading the log -------------------------------------------------------------------------------------------------- */

static bool is_behind(const struct standby *y, const struct sqllog_record *r)
{
	return r->epoch > y->epoch || (r->epoch == y->epoch && r->lsn > y->lsn);
}

/* Whether a file begins at or before the position. */
static bool begins_before(struct standby *y, const char *path)
{
	char why[80];
	struct sqllog_record r;
	struct sqllog_file f = { 0 };
	bool before = !sqllog_file_open(&f, y->service->env, path) && sqllog_file_next(&f, &r, why, sizeof why) == 1 &&
		      !is_behind(y, &r);
	sqllog_file_close(&f);
	return before;
}

/* The file behind the present one; at first the last that begins before the position, or the first of all. 0: none */
static uint32_t next_file(struct standby *y)
{
	char path[ENV_PATH_MAX];
	uint32_t *numbers, found = 0;
	size_t n;
	if (sqllog_list(y->service->env, y->folder, &numbers, &n) < 0)
		return 0;
	for (size_t i = 0; y->number && i < n && !found; i++)
		if (numbers[i] > y->number)
			found = numbers[i];
	for (size_t i = n; !y->number && i-- > 0;) {
		sqllog_path(path, y->folder, numbers[i], "sql");
		found = numbers[i];
		if (begins_before(y, path))
			break;
	}
	free(numbers);
	return found;
}

/* Our own log, alive: a bad spot is a record under way, or one that a failed disk cut off and a later file has whole. */
static bool go_on(struct standby *y)
{
	char path[ENV_PATH_MAX];
	uint32_t later = next_file(y);
	if (!later)
		return false;
	if (y->file.f && !y->leaving)
		return y->leaving = true;
	sqllog_file_close(&y->file);
	y->leaving = false;
	sqllog_path(path, y->folder, later, "sql");
	if (sqllog_file_open(&y->file, y->service->env, path) < 0)
		return false;
	y->number = later;
	return true;
}

/* Behind a gap nothing is copied: it would be acknowledged, and what is missing with it. */
static bool follows(struct standby *y, const struct sqllog_record *r)
{
	y->gap = (r->epoch != y->epoch || r->lsn != y->lsn + 1) &&
		 !sqllog_follows(y->service->env, y->folder, y->epoch, y->lsn, r);
	return !y->gap;
}

/* Gathers what comes next. True: there is more to look at. */
static bool gather(struct standby *y)
{
	char why[80];
	struct sqllog_record r;
	for (unsigned i = 0; i < RECORDS_TURN && y->records.len < CHUNK_BYTES; i++) {
		if (y->file.f && sqllog_file_next(&y->file, &r, why, sizeof why) == 1) {
			if (!is_behind(y, &r))
				continue;
			if (!follows(y, &r))
				return false;
			buf_add(&y->records, r.body + r.body_bytes - r.bytes, r.bytes);
			y->epoch = r.epoch;
			y->lsn = r.lsn;
		} else if (!go_on(y)) {
			return false;
		}
	}
	return true;
}

/* Nothing more can be read, but more was written by then: in the last file a bad spot is no gap. */
static bool is_behind_written(const struct standby *y, uint64_t written)
{
	const struct sqllog *l = y->service->sqllog;
	struct sqllog_record next = { .lsn = 0 };
	sqllog_position(l, &next.epoch, &next.lsn);
	next.lsn = written + 1;
	return !sqllog_failing(l) && (next.epoch != y->epoch || written > y->lsn) &&
	       !sqllog_follows(y->service->env, y->folder, y->epoch, y->lsn, &next);
}

static void at_end(struct standby *y, uint64_t written)
{
	uint64_t now_ms = y->service->control->now_ms;
	if (!is_behind_written(y, written))
		goes_well(y);
	else if (!y->stuck_ms)
		y->stuck_ms = now_ms;
	if (y->stuck_ms && now_ms - y->stuck_ms >= STUCK_MS)
		rest_at_gap(y);
	else
		loop_timer(y->service->control, &y->timer, LOOK_MS);
}

static void pump(struct standby *y)
{
	if (y->call || !y->session)
		return;
	uint64_t written = sqllog_written_lsn(y->service->sqllog);
	bool more = !y->gap && gather(y);
	if (y->records.len) {
		send(y);
	} else if (y->gap) {
		rest_at_gap(y);
	} else if (more) {
		loop_timer(y->service->control, &y->timer, 0);
	} else {
		at_end(y, written);
	}
}

static void on_written(void *arg)
{
	pump(arg);
}

/* ---- beginning ---------------------------------------------------------------------------------------------------------- */

static void on_begun(void *arg, const struct rpc_answer *a)
{
	struct standby *y = arg;
	Dbwriter__CopyAnswer *m = answer_of(y, a);
	if (!m)
		return;
	y->session = m->session;
	y->epoch = m->epoch;
	y->lsn = m->lsn;
	y->number = 0;
	y->leaving = y->gap = false;
	sqllog_file_close(&y->file);
	log_info(y->service->log, "sqllog.standby", "standby=%s epoch=%llu lsn=%llu", y->instance,
		 (unsigned long long)m->epoch, (unsigned long long)m->lsn);
	sqllog_replicated(y->service->sqllog, m->epoch, m->lsn);
	dbwriter__copy_answer__free_unpacked(m, NULL);
	pump(y);
}

static bool choose(struct standby *y)
{
	char names[256];
	const struct service *s = y->service;
	snprintf(names, sizeof names, "%s", y->names);
	for (char *next = names, *name; (name = strsep(&next, ", "));) {
		const struct route_row *row = route_find(s->p->control_worker.routes, name);
		if (!row || strcmp(row->service, "dbwriter") || !strcmp(row->host, s->row->host))
			continue;
		snprintf(y->instance, sizeof y->instance, "%s", name);
		return true;
	}
	return false;
}

static void begin(struct standby *y)
{
	if (!choose(y)) {
		rest(y, REST_MS, "none of them runs on another host");
		return;
	}
	char path[ENV_PATH_MAX + 56], *starts = NULL;
	size_t n = 0;
	Dbwriter__CopyBeginRequest m = DBWRITER__COPY_BEGIN_REQUEST__INIT;
	snprintf(path, sizeof path, "%s/epoch", y->folder);
	m.has_starts = env_file_load(y->service->env, path, STARTS_MAX, &starts, &n) == 0;
	m.starts = (ProtobufCBinaryData){ n, (uint8_t *)starts };
	m.instance = y->service->id;
	m.epoch = sqllog_epoch(y->service->sqllog);
	buf_clear(&y->body);
	y->body.len = dbwriter__copy_begin_request__pack(
		&m, (uint8_t *)buf_reserve(&y->body, dbwriter__copy_begin_request__get_packed_size(&m)));
	free(starts);
	call(y, y->begin, on_begun);
}

static void on_timer(struct timer *t, uint64_t now_ms)
{
	struct standby *y = (struct standby *)((char *)t - offsetof(struct standby, timer));
	(void)now_ms;
	if (y->session)
		pump(y);
	else if (!y->call)
		begin(y);
}

static const struct msg_method *method(const struct service *s, const char *name)
{
	const struct msg_method *m = schema_method(s->schema, name, strlen(name));
	assert(m);
	return m;
}

struct standby *standby_new(struct service *s, const char *names)
{
	struct standby *y = calloc(1, sizeof *y);
	assert(y);
	y->service = s;
	y->names = names;
	snprintf(y->folder, sizeof y->folder, "%s/sqllog/%s", s->var, s->id);
	y->begin = method(s, "dbwriter.dbwriterRemote.copyBegin");
	y->copy = method(s, "dbwriter.dbwriterRemote.copy");
	y->timer.fire = on_timer;
	if (env_watch(s->control->ev, y->folder, on_written, y, &y->watch) < 0)
		y->watch = NULL; /* the timer finds what is new, later */
	begin(y);
	return y;
}

void standby_free(struct standby *y)
{
	if (!y)
		return;
	if (y->call)
		rpc_cancel(&y->service->p->control_worker, y->call);
	loop_timer_stop(y->service->control, &y->timer);
	env_watch_close(y->watch);
	sqllog_file_close(&y->file);
	buf_release(&y->records);
	buf_release(&y->body);
	free(y);
}

bool standby_away(const struct standby *y)
{
	return y && atomic_load(&y->away);
}
