#include "common/dbread.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 2000
#define LOOK_AGAIN_MS  10 /* between two looks at the replay's position */

struct read {
	struct read *next, **prev; /* in the queue; NULL while a connection works on it */
	struct read *all_next, **all_prev;
	struct dbread *pool;
	struct connection *connection;
	struct timer deadline, again;
	char *key; /* NULL: needs no position */
	char *sql;
	size_t n;
	void (*on_done)(void *arg, const struct env_db_result *r);
	void *arg;
	bool behind;  /* the last look said so: it waits for the position to move */
	bool refused; /* there are too many already */
};

struct connection {
	struct dbread *pool;
	struct env_db *db;
	struct timer retry;
	struct read *read;
	bool open, asks_position, waiting;
	bool busy; /* a query is under way, also when its read has ended */
};

struct dbread {
	struct loop *loop;
	struct log *log;
	struct dbread_options options;
	struct connection *connection;
	struct read *first, **last;
	struct read *all;
	unsigned reads; /* that have not ended */
	uint32_t backoff_ms;
	uint64_t looked_ms;  /* when somebody who waits looked at the position last */
	uint64_t epoch, lsn; /* the newest position seen */
	bool looked;         /* the position was read once behind all transactions that were under way */
	struct loop_deferred work;
	bool away;
	char position_sql[180];
	size_t position_bytes; /* of it without FOR UPDATE */
};

static void pool_work(struct dbread *d);
static void connection_retry(struct connection *c);

/* ---- the queue --------------------------------------------------------------------------------------------- */

static void enqueue(struct dbread *d, struct read *r)
{
	r->next = NULL;
	r->prev = d->last;
	*d->last = r;
	d->last = &r->next;
}

static void unqueue(struct read *r)
{
	struct dbread *d = r->pool;

	if (!r->prev)
		return;
	*r->prev = r->next;
	if (r->next)
		r->next->prev = r->prev;
	else
		d->last = r->prev;
	r->prev = NULL;
	r->next = NULL;
}

static void read_drop(struct read *r)
{
	struct dbread *d = r->pool;

	unqueue(r);
	d->reads--;
	*r->all_prev = r->all_next;
	if (r->all_next)
		r->all_next->all_prev = r->all_prev;
	loop_timer_stop(d->loop, &r->deadline);
	loop_timer_stop(d->loop, &r->again);
	free(r->sql);
	free(r->key);
	free(r);
}

static void read_end(struct read *r, const struct env_db_result *result)
{
	if (r->connection)
		r->connection->read = NULL; /* its answer, when it comes, finds nobody */
	void (*on_done)(void *, const struct env_db_result *) = r->on_done;
	void *arg = r->arg;

	read_drop(r);
	on_done(arg, result);
}

static void read_error(struct read *r, int err, const char *message)
{
	struct env_db_result result = { .err = err, .message = message };

	read_end(r, &result);
}

static void on_deadline(struct timer *t, uint64_t now_ms)
{
	struct read *r = (struct read *)((char *)t - offsetof(struct read, deadline));
	struct connection *c = r->connection;

	(void)now_ms;
	/* Nobody knows whether this connection will ever answer: the next read gets another. */
	if (c) {
		c->read = NULL;
		r->connection = NULL;
		connection_retry(c);
	}
	if (r->refused)
		read_error(r, ERR_BUSY, "too many reads wait for the database");
	else
		read_error(r, ERR_UNAVAILABLE, r->behind ? "the replay is behind" : "the database does not answer");
}

/*
 * The first look at the position locks its row, so it waits for a transaction of the replay that is under way: one that
 * lands what this log has lost with the machine (sqllog.h, Numbers) must be over before anything is read.
 */
static bool may_read(const struct read *r)
{
	const struct dbread *d = r->pool;

	return !r->key || (d->looked && sqllog_key_landed(d->options.sqllog, r->key, d->epoch, d->lsn));
}

static void on_again(struct timer *t, uint64_t now_ms)
{
	struct read *r = (struct read *)((char *)t - offsetof(struct read, again));

	struct dbread *d = r->pool;

	/* many may wait: one look is for all of them */
	if (!may_read(r) && now_ms - d->looked_ms < LOOK_AGAIN_MS) {
		loop_timer(d->loop, &r->again, LOOK_AGAIN_MS);
		return;
	}
	d->looked_ms = now_ms;
	enqueue(d, r);
	loop_defer(d->loop, &d->work);
}

/* ---- connections ----------------------------------------------------------------------------------------------- */

static void connection_retry(struct connection *c)
{
	struct dbread *d = c->pool;

	env_db_close(c->db);
	c->db = NULL;
	c->open = c->busy = false;
	c->waiting = true;
	d->backoff_ms = d->backoff_ms ? d->backoff_ms * 2 : BACKOFF_MIN_MS;
	if (d->backoff_ms > BACKOFF_MAX_MS)
		d->backoff_ms = BACKOFF_MAX_MS;
	loop_timer(d->loop, &c->retry, d->backoff_ms);
}

static void on_retry(struct timer *t, uint64_t now_ms)
{
	struct connection *c = (struct connection *)((char *)t - offsetof(struct connection, retry));

	(void)now_ms;
	c->waiting = false;
	pool_work(c->pool);
}

static void set_away(struct dbread *d, bool away, const char *why)
{
	if (d->away == away)
		return;
	d->away = away;
	if (d->options.away)
		atomic_fetch_add(d->options.away, away ? 1u : -1u);
	if (away)
		log_warn(d->log, "database.away", "why=%s", why ? why : "connection lost");
	else
		log_info(d->log, "database.back", "instance=%s", d->options.instance);
}

/* A connection broke under a read: the read changed nothing, so it is simply asked again. */
static void connection_lost(struct connection *c, const char *message)
{
	struct dbread *d = c->pool;
	struct read *r = c->read;

	set_away(d, true, message);
	c->read = NULL;
	if (r) {
		r->connection = NULL;
		r->behind = false;
		enqueue(d, r);
	}
	connection_retry(c);
}

static void on_open(void *arg, int err)
{
	struct connection *c = arg;
	struct dbread *d = c->pool;

	if (err < 0) {
		connection_lost(c, env_db_message(c->db));
		return;
	}
	c->open = true;
	d->looked = false; /* another server may be there, with a copy of an earlier hour */
	d->epoch = d->lsn = 0;
	d->backoff_ms = 0;
	set_away(d, false, NULL);
	pool_work(d);
}

static void connection_open(struct connection *c)
{
	if (env_db_open(c->pool->loop->ev, &c->pool->options.db, on_open, c, &c->db) < 0)
		connection_lost(c, NULL);
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static void on_result(void *arg, const struct env_db_result *result);

static void connection_ask(struct connection *c)
{
	struct read *r = c->read;
	struct dbread *d = c->pool;

	c->asks_position = !may_read(r);
	const char *sql = c->asks_position ? d->position_sql : r->sql;
	size_t n = !c->asks_position ? r->n : d->looked ? d->position_bytes : strlen(sql);

	c->busy = true;
	if (env_db_query(c->db, sql, n, on_result, c) < 0)
		connection_lost(c, env_db_message(c->db));
}

static void position_seen(struct connection *c, const struct env_db_result *result)
{
	struct read *r = c->read;
	struct dbread *d = c->pool;

	d->looked |= !result->err;
	if (!result->err && result->rows && result->cells[0] && result->cells[1]) {
		d->epoch = strtoull(result->cells[0], NULL, 10);
		d->lsn = strtoull(result->cells[1], NULL, 10);
		sqllog_replayed(d->options.sqllog, d->epoch, d->lsn);
	}
	if (may_read(r)) {
		connection_ask(c);
		return;
	}
	c->read = NULL;
	r->connection = NULL;
	r->behind = true;
	loop_timer(d->loop, &r->again, LOOK_AGAIN_MS);
	pool_work(d);
}

static void on_result(void *arg, const struct env_db_result *result)
{
	struct connection *c = arg;

	c->busy = false;
	if (result->err == ERR_UNAVAILABLE) {
		connection_lost(c, result->message);
	} else if (!c->read) { /* its deadline came first */
		pool_work(c->pool);
	} else if (c->asks_position) {
		position_seen(c, result); /* refused: somebody holds the row, or the table is not there yet */
	} else {
		struct dbread *d = c->pool;

		read_end(c->read, result);
		pool_work(d);
	}
}

static void pool_work(struct dbread *d)
{
	for (unsigned i = 0; i < d->options.connections && (d->first || (d->away && i == 0)); i++) {
		struct connection *c = &d->connection[i];

		if (!c->db) {
			if (!c->waiting)
				connection_open(c);
			continue;
		}
		if (!c->open || c->read || c->busy || !d->first)
			continue;
		c->read = d->first;
		unqueue(c->read);
		c->read->connection = c;
		connection_ask(c);
	}
}

static void on_work(struct loop_deferred *w)
{
	pool_work((struct dbread *)((char *)w - offsetof(struct dbread, work)));
}

/* ---- public -------------------------------------------------------------------------------------------------------- */

struct dbread *dbread_new(struct loop *loop, struct log *log, const struct dbread_options *o)
{
	struct dbread *d = calloc(1, sizeof *d);

	assert(d);
	d->loop = loop;
	d->log = log;
	d->options = *o;
	d->last = &d->first;
	d->work.run = on_work;
	d->connection = calloc(o->connections, sizeof *d->connection);
	assert(d->connection);
	for (unsigned i = 0; i < o->connections; i++) {
		d->connection[i].pool = d;
		d->connection[i].retry.fire = on_retry;
	}
	d->position_bytes = (size_t)snprintf(d->position_sql, sizeof d->position_sql,
					     "SELECT epoch, lsn FROM loquat_replay WHERE instance = '%s'", o->instance);
	strcat(d->position_sql, " FOR UPDATE");
	if (o->at_once)
		connection_open(&d->connection[0]);
	return d;
}

void dbread_free(struct dbread *d)
{
	if (!d)
		return;
	if (d->away && d->options.away)
		atomic_fetch_sub(d->options.away, 1);
	for (unsigned i = 0; i < d->options.connections; i++) {
		struct connection *c = &d->connection[i];

		loop_timer_stop(d->loop, &c->retry);
		env_db_close(c->db);
	}
	while (d->all)
		read_drop(d->all);
	loop_defer_not(d->loop, &d->work);
	free(d->connection);
	free(d);
}

void dbread_query(struct dbread *d, const char *sql, size_t n, const char *key, uint32_t timeout_ms,
		  void (*on_done)(void *arg, const struct env_db_result *r), void *arg)
{
	struct read *r = calloc(1, sizeof *r);

	assert(r);
	r->pool = d;
	if (key && d->options.sqllog) {
		r->key = strdup(key);
		assert(r->key);
	}
	r->sql = malloc(n + 1);
	assert(r->sql);
	memcpy(r->sql, sql, n);
	r->sql[n] = '\0';
	r->n = n;
	r->on_done = on_done;
	r->arg = arg;
	r->deadline.fire = on_deadline;
	r->again.fire = on_again;
	r->all_next = d->all;
	r->all_prev = &d->all;
	if (r->all_next)
		r->all_next->all_prev = &r->all_next;
	d->all = r;
	r->refused = ++d->reads > d->options.queue_max;
	loop_timer(d->loop, &r->deadline, r->refused ? 0 : timeout_ms);
	if (r->refused)
		return;
	enqueue(d, r);
	loop_defer(d->loop, &d->work);
}
