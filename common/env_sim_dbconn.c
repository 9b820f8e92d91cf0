#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/buf.h"
#include "common/env_sim_sql.h"
#include "common/sqllog.h"
/*
 * Connections to the simulated database. A handle is the client's end and the server's session in one; when the
 * client dies or the line is cut, the session may still finish what had reached it, as a real server does.
 */
#define LOOK_AGAIN_NS (20 * 1000000ull)
#define CONNECT_NS    (5 * 1000000000ull)
#define LOCK_WAIT_NS  (50 * 1000000000ull)
#define GONE          "Lost connection to server during query"

struct env_db {
	struct owned owned;
	struct ready ready;
	struct obj obj;
	struct env_db *next; /* of the database */
	struct db *db;
	struct env *env; /* NULL: the client is gone */
	unsigned process;
	/* client */
	bool opening, connected, busy, told;
	int err;
	void (*on_open)(void *arg, int err);
	void (*on_result)(void *arg, const struct env_db_result *r);
	void *arg;
	char message[256];
	/* server */
	struct txn txn;
	char *sql;
	size_t sql_n, at;
	struct result result;
	uint64_t request; /* number of the query; events of earlier ones are stale */
	uint64_t opened_at;
	bool arrived, waiting, answered, answer_lost;
	bool lingers; /* the client's machine died: the server does not know it yet */
};

#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

/* ---- ends ---------------------------------------------------------------------------------------------------------- */

static struct link *link_of(const struct env_db *s)
{
	return link_between(s->db->w, 0, s->process);
}

static uint64_t delay(const struct env_db *s)
{
	return link_delay_ns(s->db->w, 0, s->process);
}

static void on_execute(struct sim *w, void *obj, uint64_t request);

/* A transaction has ended: those who wait for locks look again. */
static void wake_waiters(struct db *db)
{
	for (struct env_db *s = db->sessions; s; s = s->next)
		if (s->waiting) {
			s->waiting = false;
			s->txn.waits_for = NULL;
			w_push(db->w, w_now(db->w) + 20000 + rng_below(&db->w->rng_db, 50000), on_execute, &s->obj,
			       s->request);
		}
}

static void session_free(struct obj *o)
{
	struct env_db *s = CONTAINER(o, struct env_db, obj);
	arena_release(&s->result.arena);
	w_free(s->sql);
	w_free(s->txn.log);
	w_free(s);
}

static void session_end(struct env_db *s)
{
	struct env_db **at = &s->db->sessions;
	struct db *db = s->db;
	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	txn_rollback(&s->txn);
	obj_kill(&s->obj);
	wake_waiters(db);
}

static void on_end(struct sim *w, void *obj, uint64_t n)
{
	(void)w, (void)n;
	session_end(CONTAINER(obj, struct env_db, obj));
}

static void on_told(struct sim *w, void *obj, uint64_t request)
{
	struct env_db *s = CONTAINER(obj, struct env_db, obj);
	if (request != s->request || !s->env)
		return;
	if (s->connected && link_of(s)->stalled) {
		w_push(w, w->now + LOOK_AGAIN_NS, on_told, obj, request);
		return;
	}
	s->told = true;
	loop_ready(&s->ready);
}

static void tell(struct env_db *s, int err, const char *message)
{
	s->err = err;
	s->answered = true;
	snprintf(s->message, sizeof(s->message), "%s", message);
	w_push(s->db->w, w_now(s->db->w) + delay(s), on_told, &s->obj, s->request);
}

/* The line is gone: the client hears of it, what is not committed is undone. */
static void lose(struct env_db *s)
{
	bool asked = s->busy || s->opening;
	w_say(s->db->w, "database connection of process %u is lost", s->process);
	s->connected = false;
	s->arrived = s->waiting = false;
	s->request++; /* what was under way for it is stale */
	txn_rollback(&s->txn);
	wake_waiters(s->db);
	if (!s->env)
		session_end(s);
	else if (asked && !s->told)
		tell(s, ERR_UNAVAILABLE, GONE);
}

/* ---- executing -------------------------------------------------------------------------------------------------------- */

static bool may_commit(const struct env_db *s)
{
	return !s->txn.open || memmem(s->sql, s->sql_n, "COMMIT", 6) || memmem(s->sql, s->sql_n, "commit", 6);
}

static void finish(struct env_db *s)
{
	s->arrived = false;
	wake_waiters(s->db);
	w_say(s->db->w, "database: %s%s", s->result.error.code ? "refused: " : "done", s->result.error.message);
	if (!s->env && s->lingers)
		return;
	if (!s->env)
		session_end(s);
	else if (s->answer_lost)
		lose(s);
	else if (s->result.error.code)
		tell(s, ERR_FAILED, s->result.error.message);
	else
		tell(s, 0, "");
}

static bool deadlocked(const struct txn *x)
{
	for (const struct txn *y = x->waits_for; y; y = y->waits_for)
		if (y == x)
			return true;
	return false;
}

static void on_lock_timeout(struct sim *w, void *obj, uint64_t request)
{
	struct env_db *s = CONTAINER(obj, struct env_db, obj);
	(void)w;
	if (!s->arrived || request != s->request || !s->txn.waits_for)
		return;
	s->waiting = false;
	s->txn.waits_for = NULL;
	sql_fail(&s->result.error, 1205, "Lock wait timeout exceeded; try restarting transaction");
	finish(s);
}

static void on_execute(struct sim *w, void *obj, uint64_t request)
{
	struct env_db *s = CONTAINER(obj, struct env_db, obj);
	if (request != s->request || !s->arrived)
		return;
	if (s->db->hold) {
		w_push(w, w->now + LOOK_AGAIN_NS, on_execute, obj, request);
		return;
	}
	uint64_t ends = s->db->ends;
	s->txn.waits_for = NULL;
	if (db_execute(s->db, &s->txn, s->sql, s->sql_n, &s->at, &s->result) != SQL_WAIT) {
		finish(s);
	} else if (deadlocked(&s->txn)) {
		txn_rollback(&s->txn);
		s->txn.waits_for = NULL;
		sql_fail(&s->result.error, 1213, "Deadlock found when trying to get lock; try restarting transaction");
		finish(s);
	} else {
		if (s->db->ends != ends)
			wake_waiters(s->db); /* a part of it has been committed */
		s->waiting = true;
	}
}

static void on_arrive(struct sim *w, void *obj, uint64_t request)
{
	struct env_db *s = CONTAINER(obj, struct env_db, obj);
	const struct sim_chances *c = &w->chances;
	if (request != s->request || !s->connected)
		return;
	if (link_of(s)->stalled) {
		w_push(w, w->now + LOOK_AGAIN_NS, on_arrive, obj, request);
		return;
	}
	w_note(w, "query", s->process, hash_bytes(0, s->sql, s->sql_n));
	w_say(w, "database: %.*s", (int)(s->sql_n < 180 ? s->sql_n : 180), s->sql);
	if (rng_chance(&w->rng_db, c->db_cut_ppm)) {
		lose(s);
		return;
	}
	s->answer_lost = may_commit(s) && rng_chance(&w->rng_db, c->commit_lost_ppm);
	if (s->answer_lost && rng_below(&w->rng_db, 2)) {
		lose(s); /* before it was executed: for the client the same */
		return;
	}
	s->arrived = true;
	w_push(w, w->now + rng_between(&w->rng_db, c->query_us_min * 1000ull, c->query_us_max * 1000ull), on_execute,
	       obj, request);
	w_push(w, w->now + LOCK_WAIT_NS, on_lock_timeout, obj, request);
}

static void on_connect(struct sim *w, void *obj, uint64_t request)
{
	struct env_db *s = CONTAINER(obj, struct env_db, obj);
	if (request != s->request)
		return;
	if (link_of(s)->stalled && w->now < s->opened_at + CONNECT_NS) {
		w_push(w, w->now + LOOK_AGAIN_NS, on_connect, obj, request);
		return;
	}
	s->connected = !s->db->down && !link_of(s)->refused && !link_of(s)->stalled;
	if (!s->env)
		session_end(s);
	else if (s->connected)
		tell(s, 0, "");
	else
		tell(s, ERR_UNAVAILABLE, "Can't connect to server");
}

/* ---- the client's end ------------------------------------------------------------------------------------------------------ */

static void tell_result(struct env_db *s)
{
	struct result result = s->result;
	struct env_db_result r = { .err = s->err, .message = s->message, .affected = result.affected };
	s->result = (struct result){ .rows = 0 };
	s->busy = false;
	if (r.err == ERR_FAILED)
		r.code = result.error.code;
	if (r.err < 0)
		r.failed_at = result.failed_at;
	if (r.err == 0) {
		r.rows = result.rows;
		r.columns = result.columns;
		r.cells = result.cells;
		r.cell_bytes = result.cell_bytes;
		r.column = result.column;
	}
	s->on_result(s->arg, &r); /* may ask anew, or close the handle */
	arena_release(&result.arena);
}

static void run_db(struct ready *ready)
{
	struct env_db *s = CONTAINER(ready, struct env_db, ready);
	if (!s->told)
		return;
	s->told = false;
	if (s->opening) {
		s->opening = false;
		s->on_open(s->arg, s->err);
	} else {
		tell_result(s);
	}
}

/* The client's process is dead or has closed the handle; a query that was sent still reaches the server. */
static void client_gone(struct env_db *s)
{
	s->env = NULL;
	ready_drop(&s->ready);
	s->ready.loop = NULL;
	if (!s->busy || !s->connected || s->answered)
		w_push(s->db->w, w_now(s->db->w) + delay(s), on_end, &s->obj, 0);
}

static void db_died(struct owned *o, bool machine)
{
	struct env_db *s = CONTAINER(o, struct env_db, owned);
	struct sim *w = s->db->w;
	if (machine) { /* a server learns of it late: until then the session keeps its locks */
		s->request += s->busy && !s->arrived && rng_below(&w->rng_db, 2); /* the query never left */
		s->lingers = true;
		s->env = NULL;
		ready_drop(&s->ready);
		s->ready.loop = NULL;
		w_push(w, w->now + rng_between(&w->rng_db, 5, 60) * 1000000000ull, on_end, &s->obj, 0);
	} else {
		client_gone(s);
	}
}

int env_db_open(struct env_loop *loop, const struct env_db_options *o, void (*on_open)(void *arg, int err), void *arg,
		struct env_db **out)
{
	struct sim *w = loop->env->w;
	struct env_db *s = w_alloc(sizeof(*s));
	(void)o; /* there is one database, and everybody may use it */
	assert(env_loop_is_current(loop));
	obj_init(&s->obj, session_free);
	s->ready = (struct ready){ .loop = loop, .obj = &s->obj, .run = run_db };
	s->db = w->db;
	s->env = loop->env;
	s->process = loop->env->p->index;
	s->opening = true;
	s->on_open = on_open;
	s->arg = arg;
	s->opened_at = w_now(w);
	s->next = w->db->sessions;
	w->db->sessions = s;
	owned_add(loop->env, &s->owned, db_died);
	w_push(w, w_now(w) + delay(s), on_connect, &s->obj, s->request);
	*out = s;
	return 0;
}

int env_db_query(struct env_db *s, const char *sql, size_t n,
		 void (*on_result)(void *arg, const struct env_db_result *r), void *arg)
{
	struct sim *w = s->db->w;
	if (s->busy || s->opening)
		return ERR_BUSY;
	s->busy = true;
	s->on_result = on_result;
	s->arg = arg;
	s->request++;
	s->at = 0;
	arena_release(&s->result.arena);
	s->result = (struct result){ .rows = 0 };
	w_free(s->sql);
	s->sql = memcpy(w_alloc(n + 1), sql, n);
	s->sql_n = n;
	s->err = 0;
	s->answered = s->answer_lost = false;
	w_spend(w, 2000 + n / 8);
	if (s->connected)
		w_push(w, w_now(w) + delay(s), on_arrive, &s->obj, s->request);
	else
		tell(s, ERR_UNAVAILABLE, "Server has gone away");
	return 0;
}

bool env_db_takes_arrays(const struct env_db *s)
{
	return s->connected && !s->db->w->chances.db_no_arrays;
}

static struct sql_value literal(const struct env_db_bind *column, unsigned row)
{
	switch (column->type) {
	case ENV_BIND_INT: return (struct sql_value){ .type = SQL_INT, .i = column->i[row] };
	case ENV_BIND_DOUBLE: return (struct sql_value){ .type = SQL_DOUBLE, .d = column->d[row] };
	case ENV_BIND_TEXT:
		return (struct sql_value){ .type = SQL_TEXT, .s = { column->text[row], column->bytes[row] } };
	case ENV_BIND_BLOB:
		return (struct sql_value){ .type = SQL_BLOB, .s = { column->text[row], column->bytes[row] } };
	case ENV_BIND_NULL: break;
	}
	return (struct sql_value){ .type = SQL_NULL };
}

int env_db_bulk(struct env_db *s, const char *sql, size_t n, const struct env_db_bind *column, unsigned columns,
		unsigned rows, void (*on_result)(void *arg, const struct env_db_result *r), void *arg)
{
	struct buf text = BUF_INIT;
	struct sql_value value[64];
	char why[160], *statement = memcpy(w_alloc(n + 1), sql, n);
	assert(columns <= 64 && rows);
	int err = env_db_takes_arrays(s) ? 0 : ERR_UNAVAILABLE;
	for (unsigned row = 0; !err && row < rows; row++) {
		for (unsigned i = 0; i < columns; i++)
			value[i] = literal(&column[i], row);
		err = sql_format(&text, statement, value, columns, why, sizeof(why));
		buf_addch(&text, ';');
	}
	if (!err)
		err = env_db_query(s, text.data, text.len, on_result, arg);
	buf_release(&text);
	w_free(statement);
	return err;
}

const char *env_db_message(const struct env_db *s)
{
	return s->message;
}

void env_db_close(struct env_db *s)
{
	if (!s)
		return;
	owned_drop(&s->owned);
	client_gone(s);
}

/* ---- the test's hands --------------------------------------------------------------------------------------------------------- */

struct db *db_new(struct sim *w)
{
	struct db *db = w_alloc(sizeof(*db));
	db->w = w;
	return db;
}

static bool named(struct sim *w, const struct env_db *s, const char *a, const char *b)
{
	const char *other = a && strcmp(a, "db") == 0 ? b : b && strcmp(b, "db") == 0 ? a : NULL;
	if (a && b && !other)
		return false; /* a link that does not end here */
	if (!other && a && strcmp(a, "db") != 0)
		other = a;
	if (!other && b && strcmp(b, "db") != 0)
		other = b;
	return !other || link_index(w, other) == s->process;
}

/* The line was reset while the server may have been at it: then it goes on, and the client never knows. */
void db_links_reset(struct sim *w, const char *a, const char *b)
{
	for (struct env_db *s = w->db->sessions, *next; s; s = next) {
		next = s->next;
		if (!s->connected || !s->env || !named(w, s, a, b))
			continue;
		if (s->arrived && rng_below(&w->rng_db, 2))
			s->answer_lost = true;
		else
			lose(s);
	}
}

void sim_db_down(struct sim *w, bool on)
{
	w->db->down = on;
	w_say(w, "database is %s", on ? "down" : "up");
	for (struct env_db *s = w->db->sessions, *next; on && s; s = next) {
		next = s->next;
		if (s->connected)
			lose(s);
	}
}

void sim_db_hold(struct sim *w, bool on)
{
	w->db->hold = on;
}
const char *sim_db_error(const struct sim *w)
{
	return w->db->outside_error.message;
}

static unsigned run_outside(struct sim *w, const char *sql, struct result *r)
{
	struct db *db = w->db;
	size_t at = 0;
	unsigned code = db_execute(db, &db->outside, sql, strlen(sql), &at, r);
	txn_rollback(&db->outside); /* what a forgotten COMMIT would keep locked */
	db->outside_error = r->error;
	if (code == SQL_WAIT) {
		sql_fail(&db->outside_error, 1205, "somebody's transaction holds a row of it");
		code = 1205;
	}
	wake_waiters(db);
	return code;
}

unsigned sim_db_run(struct sim *w, const char *sql)
{
	struct result r = { .rows = 0 };
	unsigned code = run_outside(w, sql, &r);
	arena_release(&r.arena);
	return code;
}

int sim_db_select(struct sim *w, const char *sql, void (*fn)(void *arg, unsigned columns, const char *const *cells),
		  void *arg)
{
	struct result r = { .rows = 0 };
	unsigned code = run_outside(w, sql, &r);
	for (unsigned i = 0; !code && fn && i < r.rows; i++)
		fn(arg, r.columns, r.cells + (size_t)i * r.columns);
	int rows = code ? -(int)code : (int)r.rows;
	arena_release(&r.arena);
	return rows;
}

struct first_cell {
	bool there;
	int64_t value;
};

static void take_first(void *arg, unsigned columns, const char *const *cells)
{
	struct first_cell *f = arg;
	if (f->there || !columns || !cells[0])
		return;
	f->there = true;
	f->value = strtoll(cells[0], NULL, 10);
}

int64_t sim_db_int(struct sim *w, const char *sql, int64_t otherwise)
{
	struct first_cell f = { false, 0 };
	sim_db_select(w, sql, take_first, &f);
	return f.there ? f.value : otherwise;
}
