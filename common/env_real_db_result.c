#include "common/env_real_db.h"
#include <stdio.h>
#include <stdlib.h>
/*
 * What a request has given, told to who asked.
 */

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

void db_failed(struct env_db *db)
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

void db_on_done(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_db *db = arg;
	env_real_enter(db->loop);
	tell(db);
}

void db_finish(struct env_db *db)
{
	if (db->inside)
		event_active(&db->done, EV_TIMEOUT, 1);
	else
		tell(db);
}
