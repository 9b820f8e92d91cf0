#include "common/env_real.h"
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <mysql.h>

/*
 * One connection to MariaDB or MySQL through the client library's non-blocking calls: each X_start and X_cont
 * answers which readiness it waits for, 0 when it is done. An exchange is a row of steps:
 *
 *   PROBE -> CONNECT -> (done)        QUERY -> STORE -> NEXT -> STORE -> … -> (done)
 *   [PREPARE ->] EXECUTE -> (done)    a statement with arrays; the last 64 are kept prepared
 *
 * PROBE is ours: whether anybody listens there. The library (3.3) closes its socket twice when connect() fails, and by
 * then the number may be another thread's file or player; a server that is away for long is tried again and again.
 * STORE fetches the whole result of one statement, NEXT goes to the next statement's.
 */
enum { CONNECT_S = 5, KEEP_BYTES = 64 * 1024, STATEMENTS = 64 };
enum step { PROBE, CONNECT, QUERY, STORE, NEXT, PREPARE, EXECUTE };

struct prepared { /* a statement with '?' that the server knows */
	char *sql;
	size_t sql_bytes;
	MYSQL_STMT *stmt;
	uint64_t used;
};

struct env_db {
	struct env_loop *loop;
	MYSQL mysql;
	struct event ready, done;
	enum step step;
	int probe_fd; /* -1: none */
	bool connected, busy;
	bool inside; /* of env_db_open or env_db_query: what ends there is told by the done event */
	char *socket, *host, *user, *password, *database;
	uint16_t port;
	char *sql;
	size_t sql_bytes;
	struct prepared statement[STATEMENTS];
	struct prepared *bulk; /* of the running request; NULL: it is a query */
	MYSQL_BIND *bind;
	unsigned columns, rows_bound;
	char *nulls; /* an indicator of NULL for each row */
	uint64_t bulks;
	/* what the running step gave */
	MYSQL *connect_ret;
	int query_ret, next_ret, statement_ret;
	MYSQL_RES *store_ret;
	/* what the request has given so far */
	MYSQL_RES *rows;
	uint64_t affected;
	unsigned index;
	int err;
	void (*on_open)(void *arg, int err);
	void (*on_result)(void *arg, const struct env_db_result *r);
	void *arg;
	unsigned code;
	char message[512];
};

static void advance(struct env_db *db, int ready);

/* ---- errors --------------------------------------------------------------------------------------------- */

/* Numbers of the client library (2000 …), and those by which a server says that it hangs up. */
static bool connection_lost(unsigned code)
{
	switch (code) {
	case 1053: /* ER_SERVER_SHUTDOWN */
	case 1152: /* ER_ABORTING_CONNECTION */
	case 1158: /* ER_NET_READ_ERROR … ER_NET_WRITE_INTERRUPTED */
	case 1159:
	case 1160:
	case 1161:
	case 1927: /* ER_CONNECTION_KILLED */
	case 4031: /* ER_CLIENT_INTERACTION_TIMEOUT */ return true;
	default: return code >= 2000 && code < 3000;
	}
}

static void failed(struct env_db *db)
{
	bool bulk = db->step == PREPARE || db->step == EXECUTE;
	db->code = bulk ? mysql_stmt_errno(db->bulk->stmt) : mysql_errno(&db->mysql);
	snprintf(db->message, sizeof db->message, "%s",
		 bulk ? mysql_stmt_error(db->bulk->stmt) : mysql_error(&db->mysql));
	db->err = !db->connected || connection_lost(db->code) ? ERR_UNAVAILABLE : ERR_FAILED;
	if (db->err == ERR_UNAVAILABLE)
		db->connected = false;
}

/* ---- telling the caller ----------------------------------------------------------------------------------- */

struct cells {
	const char **text;
	size_t *bytes;
	struct env_db_column *column;
};

static enum env_db_type type_of(const MYSQL_FIELD *f)
{
	switch (f->type) {
	case MYSQL_TYPE_TINY:
	case MYSQL_TYPE_SHORT:
	case MYSQL_TYPE_INT24:
	case MYSQL_TYPE_LONG:
	case MYSQL_TYPE_LONGLONG:
	case MYSQL_TYPE_YEAR: return ENV_DB_INT;
	case MYSQL_TYPE_FLOAT:
	case MYSQL_TYPE_DOUBLE: return ENV_DB_DOUBLE;
	case MYSQL_TYPE_DECIMAL:
	case MYSQL_TYPE_NEWDECIMAL: return f->decimals ? ENV_DB_DOUBLE : ENV_DB_INT; /* SUM of integers is one */
	default: return ENV_DB_TEXT;
	}
}

/* Lives in c; the names are the result's. */
static const struct env_db_column *columns_read(MYSQL_RES *rows, struct cells *c, unsigned columns)
{
	const MYSQL_FIELD *f = mysql_fetch_fields(rows);
	c->column = calloc(columns, sizeof *c->column);
	if (!c->column)
		abort();
	for (unsigned i = 0; i < columns; i++)
		c->column[i] = (struct env_db_column){ .name = f[i].name, .type = type_of(&f[i]) };
	return c->column;
}

static int cells_read(MYSQL_RES *rows, struct cells *c, size_t count, unsigned columns)
{
	c->text = calloc(count, sizeof *c->text);
	c->bytes = calloc(count, sizeof *c->bytes);
	if (!c->text || !c->bytes)
		return ERR_NOMEM;
	MYSQL_ROW row;
	for (size_t at = 0; (row = mysql_fetch_row(rows)); at += columns) {
		const unsigned long *lengths = mysql_fetch_lengths(rows);
		for (unsigned i = 0; i < columns; i++) {
			c->text[at + i] = row[i];
			c->bytes[at + i] = lengths[i];
		}
	}
	return 0;
}

/* The callback may ask anew or close the handle, so everything it sees is taken out of db first. */
static void tell_result(struct env_db *db)
{
	struct cells cells = { 0 };
	MYSQL_RES *rows = db->rows;
	struct env_db_result r = { .err = db->err, .code = db->code, .message = db->message, .affected = db->affected };
	db->rows = NULL;
	db->busy = false;
	if (db->sql_bytes > KEEP_BYTES) {
		free(db->sql);
		db->sql = NULL;
		db->sql_bytes = 0;
	}
	if (r.err < 0)
		r.failed_at = db->index;
	if (rows && r.err == 0) {
		r.rows = (unsigned)mysql_num_rows(rows);
		r.columns = mysql_num_fields(rows);
		r.column = columns_read(rows, &cells, r.columns);
		if (r.rows && cells_read(rows, &cells, (size_t)r.rows * r.columns, r.columns) < 0)
			abort();
		r.cells = cells.text;
		r.cell_bytes = cells.bytes;
	}
	db->on_result(db->arg, &r);
	free(cells.column);
	free(cells.text);
	free(cells.bytes);
	mysql_free_result(rows);
}

static void tell(struct env_db *db)
{
	if (db->on_open) {
		void (*on_open)(void *arg, int err) = db->on_open;
		db->on_open = NULL;
		db->busy = false;
		on_open(db->arg, db->err);
	} else {
		tell_result(db);
	}
}

static void on_done(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_db *db = arg;
	env_real_enter(db->loop);
	tell(db);
}

static void finish(struct env_db *db)
{
	if (db->inside)
		event_active(&db->done, EV_TIMEOUT, 1);
	else
		tell(db);
}

/* ---- is anybody there ------------------------------------------------------------------------------------------ */

static int probe_unix(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	if (snprintf(a.sun_path, sizeof a.sun_path, "%s", path) >= (int)sizeof a.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) < 0) { /* EAGAIN too: its queue is full */
		int why = errno;
		close(fd);
		errno = why;
		return -1;
	}
	return fd;
}

/* A name is looked up here as the library would. */
static int probe_tcp(const char *host, uint16_t port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *list;
	char service[8];
	snprintf(service, sizeof service, "%u", port);
	if (getaddrinfo(host, service, &hints, &list) != 0) {
		errno = EHOSTUNREACH;
		return -1;
	}
	int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, list->ai_addr, list->ai_addrlen) < 0 && errno != EINPROGRESS) {
		int why = errno;
		close(fd);
		fd = -1;
		errno = why;
	}
	freeaddrinfo(list);
	return fd;
}

static void probe_end(struct env_db *db)
{
	if (db->probe_fd >= 0)
		close(db->probe_fd);
	db->probe_fd = -1;
}

static void probe_failed(struct env_db *db, int why)
{
	probe_end(db);
	db->err = ERR_UNAVAILABLE;
	db->code = 2002; /* CR_CONNECTION_ERROR */
	snprintf(db->message, sizeof db->message, "Can't connect to the server at %s (%d: %s)",
		 db->socket ? db->socket : db->host, why, strerror(why));
}

/* ---- steps -------------------------------------------------------------------------------------------------- */

static int step_start(struct env_db *db)
{
	switch (db->step) {
	case PROBE:
		db->probe_fd = db->socket ? probe_unix(db->socket) : probe_tcp(db->host, db->port);
		if (db->probe_fd < 0)
			probe_failed(db, errno);
		return db->probe_fd < 0 || db->socket ? 0 : MYSQL_WAIT_WRITE;
	case CONNECT:
		return mysql_real_connect_start(&db->connect_ret, &db->mysql, db->host, db->user, db->password,
						db->database, db->port, db->socket, CLIENT_MULTI_STATEMENTS);
	case QUERY: return mysql_real_query_start(&db->query_ret, &db->mysql, db->sql, db->sql_bytes);
	case STORE: return mysql_store_result_start(&db->store_ret, &db->mysql);
	case PREPARE:
		return mysql_stmt_prepare_start(&db->statement_ret, db->bulk->stmt, db->bulk->sql, db->bulk->sql_bytes);
	case EXECUTE: return mysql_stmt_execute_start(&db->statement_ret, db->bulk->stmt);
	case NEXT: break;
	}
	return mysql_next_result_start(&db->next_ret, &db->mysql);
}

static int step_cont(struct env_db *db, int ready)
{
	switch (db->step) {
	case PROBE: {
		int why = 0;
		socklen_t n = sizeof why;
		if (ready & MYSQL_WAIT_TIMEOUT)
			why = ETIMEDOUT;
		else
			getsockopt(db->probe_fd, SOL_SOCKET, SO_ERROR, &why, &n);
		if (why)
			probe_failed(db, why);
		return 0;
	}
	case CONNECT: return mysql_real_connect_cont(&db->connect_ret, &db->mysql, ready);
	case QUERY: return mysql_real_query_cont(&db->query_ret, &db->mysql, ready);
	case STORE: return mysql_store_result_cont(&db->store_ret, &db->mysql, ready);
	case PREPARE: return mysql_stmt_prepare_cont(&db->statement_ret, db->bulk->stmt, ready);
	case EXECUTE: return mysql_stmt_execute_cont(&db->statement_ret, db->bulk->stmt, ready);
	case NEXT: break;
	}
	return mysql_next_result_cont(&db->next_ret, &db->mysql, ready);
}

/* The result of one statement is here; true: another follows. */
static bool stored(struct env_db *db)
{
	if (db->store_ret) {
		mysql_free_result(db->rows);
		db->rows = db->store_ret;
		db->store_ret = NULL;
		db->affected = 0;
	} else if (mysql_errno(&db->mysql)) {
		failed(db);
		return false;
	} else {
		db->affected = mysql_affected_rows(&db->mysql);
	}
	if (!mysql_more_results(&db->mysql))
		return false;
	db->index++;
	return true;
}

/* ---- statements with arrays -------------------------------------------------------------------------------------- */

static void prepared_drop(struct prepared *s)
{
	if (s->stmt)
		mysql_stmt_close(s->stmt);
	free(s->sql);
	*s = (struct prepared){ .sql = NULL };
}

static void prepare_failed(struct env_db *db)
{
	failed(db);
	if (db->err != ERR_UNAVAILABLE) /* else it goes with the connection */
		prepared_drop(db->bulk);
	db->bulk = NULL;
}

/* The statement's place; the one that was not used for longest makes room. stmt NULL: it is not prepared yet. */
static struct prepared *prepared_find(struct env_db *db, const char *sql, size_t n)
{
	struct prepared *oldest = &db->statement[0];
	for (struct prepared *s = db->statement; s < db->statement + STATEMENTS; s++) {
		if (s->sql && s->sql_bytes == n && !memcmp(s->sql, sql, n)) {
			s->used = ++db->bulks;
			return s;
		}
		if (s->used < oldest->used)
			oldest = s;
	}
	prepared_drop(oldest);
	oldest->sql = malloc(n + 1);
	if (!oldest->sql)
		return NULL;
	memcpy(oldest->sql, sql, n);
	oldest->sql[n] = '\0';
	oldest->sql_bytes = n;
	oldest->used = ++db->bulks;
	return oldest;
}

static bool bulk_bind(struct env_db *db)
{
	MYSQL_STMT *stmt = db->bulk->stmt;
	if (mysql_stmt_param_count(stmt) == db->columns &&
	    !mysql_stmt_attr_set(stmt, STMT_ATTR_ARRAY_SIZE, &db->rows_bound) && !mysql_stmt_bind_param(stmt, db->bind))
		return true;
	db->step = EXECUTE; /* for failed() */
	failed(db);
	db->err = ERR_FAILED;
	return false;
}

static int bulk_columns(struct env_db *db, const struct env_db_bind *column, unsigned columns, unsigned rows)
{
	MYSQL_BIND *bind = realloc(db->bind, columns * sizeof *bind);
	char *nulls = realloc(db->nulls, rows);
	db->bind = bind ? bind : db->bind;
	db->nulls = nulls ? nulls : db->nulls;
	if (!bind || !nulls)
		return ERR_NOMEM;
	db->columns = columns;
	db->rows_bound = rows;
	memset(bind, 0, columns * sizeof *bind);
	memset(nulls, STMT_INDICATOR_NULL, rows);
	for (unsigned i = 0; i < columns; i++) {
		const struct env_db_bind *c = &column[i];
		bind[i].buffer_type = c->type == ENV_BIND_DOUBLE ? MYSQL_TYPE_DOUBLE
				      : c->type == ENV_BIND_TEXT ? MYSQL_TYPE_STRING
								 : MYSQL_TYPE_LONGLONG;
		bind[i].buffer = (void *)(uintptr_t)c->i;
		bind[i].length = (unsigned long *)(uintptr_t)c->bytes;
		if (c->type == ENV_BIND_NULL)
			bind[i].u.indicator = nulls;
	}
	return 0;
}

/* What follows the step that is done; false: nothing, the exchange is over. */
static bool step_next(struct env_db *db)
{
	switch (db->step) {
	case PROBE:
		if (db->err < 0)
			return false;
		probe_end(db);
		db->step = CONNECT;
		return true;
	case CONNECT:
		db->connected = db->connect_ret;
		if (!db->connected)
			failed(db);
		return false;
	case QUERY:
	case NEXT:
		if (db->step == QUERY ? db->query_ret : db->next_ret) {
			failed(db);
			return false;
		}
		db->step = STORE;
		return true;
	case PREPARE:
		if (db->statement_ret)
			prepare_failed(db);
		else if (bulk_bind(db))
			db->step = EXECUTE;
		return !db->err;
	case EXECUTE:
		if (db->statement_ret)
			failed(db);
		else
			db->affected = mysql_stmt_affected_rows(db->bulk->stmt);
		return false;
	case STORE: break;
	}
	db->step = NEXT;
	return stored(db);
}

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	struct env_db *db = arg;
	env_real_enter(db->loop);
	advance(db, (what & EV_READ ? MYSQL_WAIT_READ : 0) | (what & EV_WRITE ? MYSQL_WAIT_WRITE : 0) |
			    (what & EV_TIMEOUT ? MYSQL_WAIT_TIMEOUT : 0));
}

static void wait_for(struct env_db *db, int status)
{
	short what = (short)((status & MYSQL_WAIT_READ ? EV_READ : 0) | (status & MYSQL_WAIT_WRITE ? EV_WRITE : 0));
	struct timeval timeout = { .tv_sec = CONNECT_S };
	bool probes = db->step == PROBE;
	if (status & MYSQL_WAIT_TIMEOUT) {
		unsigned ms = mysql_get_timeout_value_ms(&db->mysql);
		timeout = (struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
	}
	event_assign(&db->ready, db->loop->base, probes ? db->probe_fd : mysql_get_socket(&db->mysql), what, on_ready,
		     db);
	event_add(&db->ready, probes || status & MYSQL_WAIT_TIMEOUT ? &timeout : NULL);
}

/* Goes on from ready (0: starts the step) until something has to be waited for or the exchange is over. */
static void advance(struct env_db *db, int ready)
{
	do {
		int waits = ready ? step_cont(db, ready) : step_start(db);
		if (waits) {
			wait_for(db, waits);
			return;
		}
		ready = 0;
	} while (step_next(db));
	finish(db);
}

static void begin(struct env_db *db, enum step step)
{
	db->busy = true;
	db->step = step;
	db->err = 0;
	db->code = 0;
	db->index = 0;
	db->affected = 0;
	db->message[0] = '\0';
	db->inside = true;
	advance(db, 0);
	db->inside = false;
}

/* ---- public ---------------------------------------------------------------------------------------------------- */

static void library_start(void)
{
	mysql_library_init(0, NULL, NULL);
}

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void options_set(MYSQL *mysql)
{
	const unsigned connect_s = CONNECT_S, off = 0;
	mysql_options(mysql, MYSQL_OPT_NONBLOCK, NULL);
	mysql_options(mysql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
	mysql_options(mysql, MYSQL_OPT_CONNECT_TIMEOUT, &connect_s);
	mysql_options(mysql, MYSQL_OPT_LOCAL_INFILE, &off);
}

int env_db_open(struct env_loop *loop, const struct env_db_options *o, void (*on_open)(void *arg, int err), void *arg,
		struct env_db **out)
{
	/* The library keeps a state of its own for the process; two loops must not start it at the same time. */
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	assert(env_loop_is_current(loop));
	pthread_once(&once, library_start);
	struct env_db *db = calloc(1, sizeof *db);
	if (!db || !mysql_init(&db->mysql)) {
		free(db);
		return ERR_NOMEM;
	}
	options_set(&db->mysql);
	db->probe_fd = -1;
	db->loop = loop;
	db->socket = copy(o->socket);
	db->host = o->socket ? NULL : copy(o->host);
	db->port = o->port;
	db->user = copy(o->user);
	db->password = copy(o->password);
	db->database = copy(o->database);
	db->on_open = on_open;
	db->arg = arg;
	event_assign(&db->ready, loop->base, -1, 0, on_ready, db);
	event_assign(&db->done, loop->base, -1, 0, on_done, db);
	*out = db;
	begin(db, PROBE);
	return 0;
}

int env_db_query(struct env_db *db, const char *sql, size_t n,
		 void (*on_result)(void *arg, const struct env_db_result *r), void *arg)
{
	assert(env_loop_is_current(db->loop));
	if (db->busy)
		return ERR_BUSY;
	if (!db->connected)
		return ERR_UNAVAILABLE;
	char *text = realloc(db->sql, n + 1);
	if (!text)
		return ERR_NOMEM;
	memcpy(text, sql, n);
	text[n] = '\0';
	db->sql = text;
	db->sql_bytes = n;
	db->on_result = on_result;
	db->arg = arg;
	begin(db, QUERY);
	return 0;
}

bool env_db_takes_arrays(const struct env_db *db)
{
	unsigned long more = 0;
	return db->connected &&
	       !mariadb_get_infov((MYSQL *)(uintptr_t)&db->mysql, MARIADB_CONNECTION_EXTENDED_SERVER_CAPABILITIES,
				  &more) &&
	       more & MARIADB_CLIENT_STMT_BULK_OPERATIONS >> 32;
}

int env_db_bulk(struct env_db *db, const char *sql, size_t n, const struct env_db_bind *column, unsigned columns,
		unsigned rows, void (*on_result)(void *arg, const struct env_db_result *r), void *arg)
{
	assert(env_loop_is_current(db->loop) && columns && rows);
	if (db->busy)
		return ERR_BUSY;
	if (!env_db_takes_arrays(db))
		return ERR_UNAVAILABLE;
	struct prepared *s = prepared_find(db, sql, n);
	bool known = s && s->stmt;
	if (!s || bulk_columns(db, column, columns, rows) < 0 || (!known && !(s->stmt = mysql_stmt_init(&db->mysql))))
		return ERR_NOMEM;
	db->bulk = s;
	db->on_result = on_result;
	db->arg = arg;
	if (!known || bulk_bind(db)) {
		begin(db, known ? EXECUTE : PREPARE);
		return 0;
	}
	return ERR_FAILED;
}

const char *env_db_message(const struct env_db *db)
{
	return db->message;
}

void env_db_close(struct env_db *db)
{
	if (!db)
		return;
	assert(env_loop_is_current(db->loop));
	event_del(&db->ready);
	event_del(&db->done);
	/* The library says goodbye with a blocking write, for which a frozen server with full buffers has no room. */
	if (db->busy && mysql_get_socket(&db->mysql) != MARIADB_INVALID_SOCKET)
		shutdown(mysql_get_socket(&db->mysql), SHUT_RDWR);
	probe_end(db);
	mysql_free_result(db->rows);
	mysql_close(&db->mysql);
	for (unsigned i = 0; i < STATEMENTS; i++) /* the connection has let go of them */
		prepared_drop(&db->statement[i]);
	free(db->bind);
	free(db->nulls);
	free(db->socket);
	free(db->host);
	free(db->user);
	free(db->password);
	free(db->database);
	free(db->sql);
	free(db);
}
