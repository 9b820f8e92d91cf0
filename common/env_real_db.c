#include "common/env_real_db.h"
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

static void advance(struct env_db *db, int ready);

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
		db_failed(db);
		return false;
	} else {
		db->affected = mysql_affected_rows(&db->mysql);
	}
	if (!mysql_more_results(&db->mysql))
		return false;
	db->index++;
	return true;
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
			db_failed(db);
		return false;
	case QUERY:
	case NEXT:
		if (db->step == QUERY ? db->query_ret : db->next_ret) {
			db_failed(db);
			return false;
		}
		db->step = STORE;
		return true;
	case PREPARE:
		if (db->statement_ret)
			db_prepare_failed(db);
		else if (db_bulk_bind(db))
			db->step = EXECUTE;
		return !db->err;
	case EXECUTE:
		if (db->statement_ret)
			db_failed(db);
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
	db_finish(db);
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
	event_assign(&db->done, loop->base, -1, 0, db_on_done, db);
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
	struct prepared *s = db_prepared_find(db, sql, n);
	bool known = s && s->stmt;
	if (!s || db_bulk_columns(db, column, columns, rows) < 0 ||
	    (!known && !(s->stmt = mysql_stmt_init(&db->mysql))))
		return ERR_NOMEM;
	db->bulk = s;
	db->on_result = on_result;
	db->arg = arg;
	if (!known || db_bulk_bind(db)) {
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
		db_prepared_drop(&db->statement[i]);
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
