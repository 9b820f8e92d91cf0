#pragma once
#include <mysql.h>
#include "common/env_real.h"
/*
 * env_real_db: what the files of the database's connections share among themselves. Nobody else includes it.
 *
 * Threads: the loop's that opened the connection. Memory: all of it is the connection's, and goes with it.
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

/* ---- results: env_real_db_result.c */
void db_failed(struct env_db *db); /* the library has an error: notes it for the answer */
void db_finish(struct env_db *db); /* the exchange is over: tells who asked, from inside a call of his a moment later */
void db_on_done(evutil_socket_t fd, short what, void *arg);

/* ---- statements with arrays: env_real_db_bulk.c */
struct prepared *db_prepared_find(struct env_db *db, const char *sql,
				  size_t n); /* or the place for it; NULL: no memory */
void db_prepared_drop(struct prepared *s);
void db_prepare_failed(struct env_db *db);
int db_bulk_columns(struct env_db *db, const struct env_db_bind *column, unsigned columns,
		    unsigned rows);   /* ERR_NOMEM */
bool db_bulk_bind(struct env_db *db); /* false: refused */
