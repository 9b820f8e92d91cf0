#include "common/env_real_db.h"
#include <stdlib.h>
#include <string.h>
/*
 * Statements with arrays: which the server knows prepared, and their columns as the library wants them.
 */

/* ---- statements with arrays -------------------------------------------------------------------------------------- */

void db_prepared_drop(struct prepared *s)
{
	if (s->stmt)
		mysql_stmt_close(s->stmt);
	free(s->sql);
	*s = (struct prepared){ .sql = NULL };
}

void db_prepare_failed(struct env_db *db)
{
	db_failed(db);
	if (db->err != ERR_UNAVAILABLE) /* else it goes with the connection */
		db_prepared_drop(db->bulk);
	db->bulk = NULL;
}

/* The statement's place; the one that was not used for longest makes room. stmt NULL: it is not prepared yet. */
struct prepared *db_prepared_find(struct env_db *db, const char *sql, size_t n)
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
	db_prepared_drop(oldest);
	oldest->sql = malloc(n + 1);
	if (!oldest->sql)
		return NULL;
	memcpy(oldest->sql, sql, n);
	oldest->sql[n] = '\0';
	oldest->sql_bytes = n;
	oldest->used = ++db->bulks;
	return oldest;
}

bool db_bulk_bind(struct env_db *db)
{
	MYSQL_STMT *stmt = db->bulk->stmt;
	if (mysql_stmt_param_count(stmt) == db->columns &&
	    !mysql_stmt_attr_set(stmt, STMT_ATTR_ARRAY_SIZE, &db->rows_bound) && !mysql_stmt_bind_param(stmt, db->bind))
		return true;
	db->step = EXECUTE; /* for db_failed() */
	db_failed(db);
	db->err = ERR_FAILED;
	return false;
}

int db_bulk_columns(struct env_db *db, const struct env_db_bind *column, unsigned columns, unsigned rows)
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
				      : c->type == ENV_BIND_BLOB ? MYSQL_TYPE_BLOB
								 : MYSQL_TYPE_LONGLONG;
		bind[i].buffer = (void *)(uintptr_t)c->i;
		bind[i].length = (unsigned long *)(uintptr_t)c->bytes;
		if (c->type == ENV_BIND_NULL)
			bind[i].u.indicator = nulls;
	}
	return 0;
}
