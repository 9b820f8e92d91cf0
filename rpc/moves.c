#include "rpc/moves.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/dbread.h"
#include "common/err.h"
#include "proto/dbwriter.pb-c.h"
#include "rpc/app_private.h"
#include "rpc/service_private.h"
/*
 *   all workers have reported → publish → rows → positions → each position, locked → the workers take
 *                                  ↑       └──────┴── not yet: in a while ──┘
 *                                  └ a new table: another turn
 */
#define DB_TIMEOUT_MS  5000
#define RETRY_MS       100
#define PATIENT_MS     1000 /* then it looks more rarely */
#define SAY_MS         5000
#define FENCE_AFTER_MS 300  /* who ends in order needs a moment to say so */
#define FENCE_READY_MS 2000 /* also one that the table says is ready: it may die at each start */
#define FENCE_MS       1000
#define ROWS_MAX       256

struct owner_row {
	char instance[32];
	uint64_t turn, ring, log_epoch, lsn;
};
struct moves {
	struct service *s;
	struct dbread *db;
	struct timer timer;
	uint64_t turn, ring; /* of the table; turn counts the rings */
	uint64_t said;       /* the turn that the row tells */
	uint64_t since_ms, said_ms, fence_ms;
	uint64_t asked;    /* the turn that the statement under way is of; 0: none is */
	unsigned reported; /* workers */
	bool inserted, taken, leaving, left;
	bool ever;                      /* it has taken */
	bool told;                      /* the row may tell a ring of this start */
	unsigned rows, locked;          /* positions of rows; the last one is our own */
	struct owner_row row[ROWS_MAX]; /* of others, as read last */
	char waits[80];                 /* for whom, and why */
	unsigned fences;                /* calls under way that are to prove its death: */
	char fence_of[32];
	struct buf sql;
	struct metric *moving, *moves, *fenced;
};

static void go(struct moves *m);

static uint64_t row_turn(const struct moves *m)
{
	return m->s->epoch << MOVES_TURN_BITS | m->turn;
}

static void later(struct moves *m, uint32_t ms)
{
	if (!m->left)
		loop_timer(m->s->control, &m->timer, ms);
}

static void on_timer(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	go((struct moves *)((char *)t - offsetof(struct moves, timer)));
}

/* ---- statements ------------------------------------------------------------------------------------------------- */

static void ask(struct moves *m, const char *sql, const struct sql_value *v, size_t n,
		void (*fn)(void *arg, const struct env_db_result *r))
{
	char why[160];

	buf_clear(&m->sql);
	buf_addstr(&m->sql,
		   "SET SESSION innodb_lock_wait_timeout = 1;"); /* who waits for a lock keeps others waiting */
	int err = sql_format(&m->sql, sql, v, n, why, sizeof why);

	assert(!err);
	(void)err;
	m->asked = m->turn;
	dbread_query(m->db, m->sql.data, m->sql.len, NULL, DB_TIMEOUT_MS, fn, m);
}

static void say_waiting(struct moves *m)
{
	uint64_t now = m->s->control->now_ms;

	if (now < m->said_ms + SAY_MS)
		return;
	m->said_ms = now;
	log_warn(m->s->log, "keys.waiting", "for=\"%s\" since_ms=%llu", m->waits,
		 (unsigned long long)(now - m->since_ms));
}

/* False: it was no answer, or to a question that is none any more; what comes next is under way. */
static bool answered(struct moves *m, const struct env_db_result *r)
{
	bool same = m->asked == m->turn;

	m->asked = 0;
	if (r->err < 0) {
		snprintf(m->waits, sizeof m->waits, "the database: %.50s", r->message ? r->message : err_text(r->err));
		m->inserted = false;
		say_waiting(m);
		later(m, RETRY_MS);
		return false;
	}
	if (!same)
		go(m);
	return same;
}

static uint64_t cell(const struct env_db_result *r, unsigned row, unsigned column)
{
	const char *text = r->cells[(size_t)row * r->columns + column];

	return text ? strtoull(text, NULL, 10) : 0;
}

static void on_said(void *arg, const struct env_db_result *r)
{
	struct moves *m = arg;

	if (!answered(m, r))
		return;
	if (!m->inserted) {
		m->inserted = true;
	} else {
		m->said = m->turn;
		m->left = m->leaving;
	}
	if (!m->left)
		go(m);
}

static void say(struct moves *m)
{
	const char *id = m->s->id, *service = m->s->def->name;
	uint64_t epoch, lsn;

	if (!m->inserted) {
		struct sql_value v[] = { text_value(span_of(id, strlen(id))),
					 text_value(span_of(service, strlen(service))) };

		ask(m,
		    "INSERT IGNORE INTO loquat_owner (instance, service, turn, ring, log_epoch, lsn) VALUES (?, ?, 0, 0, 0, 0)",
		    v, 2, on_said);
		return;
	}
	m->told = true;
	sqllog_position(m->s->sqllog, &epoch, &lsn);
	struct sql_value v[] = { int_value(row_turn(m)), int_value(m->leaving ? 0 : m->ring), int_value(epoch),
				 int_value(lsn),         text_value(span_of(id, strlen(id))), int_value(row_turn(m)) };

	ask(m, "UPDATE loquat_owner SET turn = ?, ring = ?, log_epoch = ?, lsn = ? WHERE instance = ? AND turn < ?", v,
	    6, on_said);
}

/* ---- who is dead --------------------------------------------------------------------------------------------------- */

static void on_written(void *arg, const struct env_db_result *r)
{
	(void)arg;
	(void)r; /* the next look will show */
}

static void fence_write(struct moves *m, const Dbwriter__FenceAnswer *a)
{
	const char *instance = m->fence_of;
	uint64_t turn = a->epoch << MOVES_TURN_BITS;
	struct sql_value v[] = { int_value(turn), int_value(a->log_epoch), int_value(a->lsn),
				 text_value(span_of(instance, strlen(instance))), int_value(turn) };
	struct buf sql = BUF_INIT;
	char why[160];

	if (!m->db)
		return; /* closed */
	int err = sql_format(
		&sql,
		"UPDATE loquat_owner SET turn = ?, ring = 0, log_epoch = ?, lsn = ? WHERE instance = ? AND turn < ?", v,
		5, why, sizeof why);

	assert(!err);
	(void)err;
	log_warn(m->s->log, "keys.fenced", "instance=%s epoch=%llu lsn=%llu", instance, (unsigned long long)a->epoch,
		 (unsigned long long)a->lsn);
	metric_add(m->fenced, 1);
	dbread_query(m->db, sql.data, sql.len, NULL, DB_TIMEOUT_MS, on_written, m);
	buf_release(&sql);
}

static void on_fenced(void *arg, const struct rpc_answer *a)
{
	struct moves *m = arg;
	Dbwriter__FenceAnswer *f =
		a->err ? NULL : dbwriter__fence_answer__unpack(NULL, a->body.n, (const uint8_t *)a->body.p);

	m->fences--;
	if (!f)
		return;
	fence_write(m, f);
	dbwriter__fence_answer__free_unpacked(f, NULL);
}

static void fence_ask(struct moves *m, const struct owner_row *row, const struct route_row *dbwriter)
{
	Dbwriter__FenceRequest q = DBWRITER__FENCE_REQUEST__INIT;
	uint8_t body[64];

	q.instance = m->fence_of;
	q.epoch = row->turn >> MOVES_TURN_BITS;
	const struct rpc_call c = { .method = schema_method(m->s->schema, "dbwriter.dbwriterRemote.fence", 29),
				    .to = { .instance = dbwriter->id },
				    .body = span_of((const char *)body, dbwriter__fence_request__pack(&q, body)),
				    .timeout_ms = FENCE_MS,
				    .on_answer = on_fenced,
				    .arg = m };

	m->fences++;
	rpc_call(&m->s->p->control_worker, &c);
}

/*
 * It is to answer for nothing any more, or does not follow, and has not said that it is gone: all who may have its log are
 * asked. The proof is the lock of the log's folder alone; what the table says of it only tells how soon to ask.
 */
static void fence(struct moves *m, const struct owner_row *row)
{
	const struct route_table *t = m->s->p->routes;
	const struct route_row *known = route_find(t, row->instance);
	bool ready = known && known->state == ROUTE_READY;
	uint64_t now = m->s->control->now_ms;

	if (m->fences || now < m->since_ms + (ready ? FENCE_READY_MS : FENCE_AFTER_MS) || now < m->fence_ms)
		return;
	m->fence_ms = now + FENCE_MS;
	memcpy(m->fence_of, row->instance, sizeof m->fence_of);
	for (size_t i = 0; i < t->rows; i++)
		if (!strcmp(t->row[i].service, "dbwriter"))
			fence_ask(m, row, &t->row[i]);
}

/* ---- looking --------------------------------------------------------------------------------------------------------- */

static void not_yet(struct moves *m, const char *instance, const char *why)
{
	uint64_t now = m->s->control->now_ms;

	snprintf(m->waits, sizeof m->waits, "%s %s", instance, why);
	say_waiting(m);
	later(m, now < m->since_ms + PATIENT_MS ? MOVES_LOOK_MS : MOVES_LOOK_MS * 10);
}

struct take {
	struct worker *w;
	uint64_t turn;
};

static void worker_take(void *arg)
{
	struct take *t = arg;

	app_moves_take(t->w->app, t->turn);
	free(t);
}

static void take(struct moves *m)
{
	struct service *s = m->s;

	m->taken = m->ever = true;
	m->waits[0] = '\0';
	metric_set(m->moving, 0);
	metric_add(m->moves, 1);
	log_info(s->log, "keys.taken", "ring=%llx instances=%u took_ms=%llu", (unsigned long long)m->ring, m->rows + 1,
		 (unsigned long long)(s->control->now_ms - m->since_ms));
	for (unsigned i = 0; i < s->workers; i++) {
		struct take *t = malloc(sizeof *t);

		assert(t);
		*t = (struct take){ s->worker[i], m->turn };
		loop_call(s->worker[i]->loop, worker_take, t);
	}
}

static bool has_landed(const struct owner_row *row, const struct env_db_result *r)
{
	if (!row->lsn)
		return true;
	for (unsigned i = 0; i < r->rows; i++) {
		uint64_t epoch = cell(r, i, 1), lsn = cell(r, i, 2);

		if (!strcmp(r->cells[(size_t)i * r->columns], row->instance))
			return epoch > row->log_epoch || (epoch == row->log_epoch && lsn >= row->lsn);
	}
	return false;
}

/*
 * The last look locks: a transaction of the replay that is under way may land what a power cut has taken from its log; it has
 * to be over before anything is read. One position at a time, so that no replay waits while we wait for another's.
 */
static void lock_next(struct moves *m);

static void on_locked(void *arg, const struct env_db_result *r)
{
	struct moves *m = arg;

	if (!answered(m, r))
		return;
	if (m->locked == m->rows) {
		take(m);
		return;
	}
	const struct owner_row *row = &m->row[m->locked++];

	if (has_landed(row, r))
		lock_next(m);
	else
		not_yet(m, row->instance, "has records that have not landed");
}

static void lock_next(struct moves *m)
{
	const char *id = m->locked < m->rows ? m->row[m->locked].instance : m->s->id;
	struct sql_value v = text_value(span_of(id, strlen(id)));

	ask(m, "SELECT instance, epoch, lsn FROM loquat_replay WHERE instance = ? FOR UPDATE", &v, 1, on_locked);
}

static void on_positions(void *arg, const struct env_db_result *r)
{
	struct moves *m = arg;

	if (!answered(m, r))
		return;
	for (unsigned i = 0; i < m->rows; i++)
		if (!has_landed(&m->row[i], r)) {
			not_yet(m, m->row[i].instance, "has records that have not landed");
			return;
		}
	for (unsigned i = 0; i < r->rows; i++) /* what its keys' former owners recorded comes before what we will */
		sqllog_later_than(m->s->sqllog, cell(r, i, 3));
	m->locked = 0;
	lock_next(m);
}

/* Ours among them. */
static uint64_t read_rows(struct moves *m, const struct env_db_result *r)
{
	uint64_t own = 0;

	m->rows = 0;
	for (unsigned i = 0; i < r->rows; i++) {
		struct owner_row *row = &m->row[m->rows];

		snprintf(row->instance, sizeof row->instance, "%s", r->cells[(size_t)i * r->columns]);
		row->turn = cell(r, i, 1);
		row->ring = cell(r, i, 2);
		row->log_epoch = cell(r, i, 3);
		row->lsn = cell(r, i, 4);
		if (!strcmp(row->instance, m->s->id))
			own = row->turn;
		else if (m->rows < ROWS_MAX - 1)
			m->rows++;
	}
	return own;
}

static void on_rows(void *arg, const struct env_db_result *r)
{
	struct moves *m = arg;

	if (!answered(m, r))
		return;
	if (r->rows >= ROWS_MAX) {
		not_yet(m, "loquat_owner", "has too many rows");
		return;
	}
	uint64_t own = read_rows(m, r);

	if (own != row_turn(m)) { /* it was restored, or another one writes our log's name */
		m->said = 0;
		m->inserted = false;
		not_yet(m, m->s->id, own > row_turn(m) ? "was fenced" : "has no row");
		return;
	}
	for (unsigned i = 0; i < m->rows; i++)
		if (m->row[i].ring && m->row[i].ring != m->ring) {
			fence(m, &m->row[i]);
			not_yet(m, m->row[i].instance, "keeps to another ring");
			return;
		}
	if (!m->rows)
		take(m);
	else
		ask(m, "SELECT instance, epoch, lsn, time_us FROM loquat_replay", NULL, 0, on_positions);
}

static void look_at_rows(struct moves *m)
{
	struct sql_value v = text_value(span_of(m->s->def->name, strlen(m->s->def->name)));

	ask(m, "SELECT instance, turn, ring, log_epoch, lsn FROM loquat_owner WHERE service = ?", &v, 1, on_rows);
}

/* ---- the next step ------------------------------------------------------------------------------------------------------ */

static void go(struct moves *m)
{
	if (m->asked || m->left || (m->taken && !m->leaving))
		return;
	if (m->reported < m->s->workers && !m->leaving)
		return;
	if (m->said != m->turn)
		say(m);
	else
		look_at_rows(m);
}

static void begin(struct moves *m)
{
	m->turn++;
	m->reported = 0;
	m->taken = false;
	m->since_ms = m->said_ms = m->s->control->now_ms;
	metric_set(m->moving, 1);
}

uint64_t moves_table(struct moves *m, const struct route_table *t)
{
	if (!m || m->leaving)
		return m ? m->turn : 0;
	uint64_t ring = route_ring(t, m->s->def->name);

	if (ring == m->ring)
		return m->turn;
	m->ring = ring;
	begin(m);
	log_info(m->s->log, "keys.moving", "ring=%llx version=%llu", (unsigned long long)ring,
		 (unsigned long long)t->version);
	return m->turn;
}

uint64_t moves_turn(const struct moves *m)
{
	return m ? m->turn : 0;
}

struct report {
	struct moves *m;
	uint64_t turn;
};

static void on_report(void *arg)
{
	struct report *r = arg;
	struct moves *m = r->m;

	if (r->turn == m->turn) {
		m->reported++;
		go(m);
	}
	free(r);
}

void moves_report(struct worker *w, uint64_t turn)
{
	struct report *r = malloc(sizeof *r);

	assert(r);
	*r = (struct report){ w->service->p->moves, turn };
	loop_call(w->service->control, on_report, r);
}

void moves_leave(struct moves *m)
{
	if (!m || m->leaving)
		return;
	m->leaving = true;
	begin(m);
	loop_timer_stop(m->s->control, &m->timer);
	go(m);
}

bool moves_left(const struct moves *m)
{
	return !m || m->left;
}

bool moves_told(const struct moves *m)
{
	return m && m->told;
}

const char *moves_not_ready(const struct moves *m)
{
	if (!m || m->ever)
		return NULL;
	return *m->waits ? m->waits : "its keys are not here yet";
}

/* ---- its life -------------------------------------------------------------------------------------------------------------- */

struct moves *moves_new(struct service *s)
{
	const char *service = s->def->name;

	if (!s->sqllog || !s->def->keys_move)
		return NULL;
	struct moves *m = calloc(1, sizeof *m);
	struct dbread_options o = { .instance = s->id, .connections = 1, .queue_max = 16 };

	assert(m);
	m->s = s;
	m->timer.fire = on_timer;
	service_database(s, &o.db);
	m->db = dbread_new(s->control, s->log, &o);
	m->moving = metric(s->metrics, SERVICE_CONTROL_WORKER, METRIC_GAUGE, "loquat_keys_moving",
			   "1 while keys that the route table gives to this instance may still be another's.",
			   "service", &service);
	m->moves = metric(s->metrics, SERVICE_CONTROL_WORKER, METRIC_COUNTER, "loquat_keys_moves_total",
			  "Changes of the instances that keys were moved for.", "service", &service);
	m->fenced = metric(s->metrics, SERVICE_CONTROL_WORKER, METRIC_COUNTER, "loquat_keys_fenced_total",
			   "Instances that were proved dead, so that their keys could be taken.", "service", &service);
	m->ring = route_ring(s->p->routes, service);
	begin(m);
	return m;
}

void moves_close(struct moves *m)
{
	if (!m)
		return;
	m->left = true;
	loop_timer_stop(m->s->control, &m->timer);
	dbread_free(m->db);
	m->db = NULL;
}

void moves_free(struct moves *m)
{
	if (!m)
		return;
	buf_release(&m->sql);
	free(m);
}
