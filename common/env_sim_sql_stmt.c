#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "common/env_sim_sql.h"
/*
 * Statements of SQL.
 */

static void *make(struct parser *p, size_t n)
{
	return arena_alloc(p->arena, n);
}

/* [database.]table; the database's name makes no difference. */
static const char *table_name(struct parser *p)
{
	const char *name = parser_name(p);
	return parser_take(p, ".") ? parser_name(p) : name;
}

static bool at_end(const struct parser *p)
{
	return p->token == T_END || parser_is(p, ";");
}

static void skip_statement(struct parser *p)
{
	while (!at_end(p))
		parser_next(p);
}

/* From behind a '(' to behind its ')'. */
static void skip_parens(struct parser *p)
{
	for (unsigned depth = 1; depth; parser_next(p)) {
		if (at_end(p))
			parser_fail(p, NULL);
		depth += parser_is(p, "(");
		depth -= parser_is(p, ")");
	}
}

/* ---- CREATE TABLE ----------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	enum column_type type;
	int bits;   /* integers */
	size_t max; /* texts and blobs */
} types[] = {
	{ "TINYINT", COLUMN_INT, 8, 0 },
	{ "SMALLINT", COLUMN_INT, 16, 0 },
	{ "MEDIUMINT", COLUMN_INT, 24, 0 },
	{ "INT", COLUMN_INT, 32, 0 },
	{ "INTEGER", COLUMN_INT, 32, 0 },
	{ "BIGINT", COLUMN_INT, 64, 0 },
	{ "BOOL", COLUMN_INT, 8, 0 },
	{ "BOOLEAN", COLUMN_INT, 8, 0 },
	{ "DOUBLE", COLUMN_DOUBLE, 0, 0 },
	{ "FLOAT", COLUMN_DOUBLE, 0, 0 },
	{ "DECIMAL", COLUMN_DOUBLE, 0, 0 },
	{ "CHAR", COLUMN_TEXT, 0, 1 },
	{ "VARCHAR", COLUMN_TEXT, 0, 255 },
	{ "TINYTEXT", COLUMN_TEXT, 0, 255 },
	{ "TEXT", COLUMN_TEXT, 0, 65535 },
	{ "MEDIUMTEXT", COLUMN_TEXT, 0, 1 << 24 },
	{ "LONGTEXT", COLUMN_TEXT, 0, 1u << 31 },
	{ "JSON", COLUMN_TEXT, 0, 1u << 31 },
	{ "ENUM", COLUMN_TEXT, 0, 255 },
	{ "DATETIME", COLUMN_TEXT, 0, 32 },
	{ "TIMESTAMP", COLUMN_TEXT, 0, 32 },
	{ "DATE", COLUMN_TEXT, 0, 32 },
	{ "BINARY", COLUMN_BLOB, 0, 1 },
	{ "VARBINARY", COLUMN_BLOB, 0, 255 },
	{ "BLOB", COLUMN_BLOB, 0, 65535 },
	{ "MEDIUMBLOB", COLUMN_BLOB, 0, 1 << 24 },
	{ "LONGBLOB", COLUMN_BLOB, 0, 1u << 31 },
	{ "TINYBLOB", COLUMN_BLOB, 0, 255 },
};

static void column_type(struct parser *p, struct column *c)
{
	const char *name = parser_name(p);
	size_t i = 0, n = sizeof(types) / sizeof(*types);
	while (i < n && strcasecmp(types[i].name, name) != 0)
		i++;
	if (i == n)
		parser_fail(p, name);
	c->type = types[i].type;
	c->max_chars = types[i].max;
	if (c->type == COLUMN_INT) {
		c->max = (int64_t)((1ull << (types[i].bits - 1)) - 1);
		c->min = -c->max - 1;
	}
	if (parser_take(p, "(")) {
		if (p->token == T_NUMBER && strncasecmp(name, "VAR", 3) == 0)
			c->max_chars = (size_t)p->number.i;
		else if (p->token == T_NUMBER && (strcasecmp(name, "CHAR") == 0 || strcasecmp(name, "BINARY") == 0))
			c->max_chars = (size_t)p->number.i;
		skip_parens(p);
	}
	if (parser_take(p, "UNSIGNED")) { /* the upper half of BIGINT UNSIGNED is out of range here */
		c->max = types[i].bits == 64 ? INT64_MAX : (int64_t)(1ull << types[i].bits) - 1;
		c->min = 0;
	}
}

static struct key *key_columns(struct parser *p, struct table *t, const char *name)
{
	struct key *k = table_key_add(t, name);
	parser_need(p, "(");
	do {
		struct column *c = table_column(t, parser_name(p));
		if (!c || k->n == sizeof(k->columns) / sizeof(*k->columns))
			parser_fail(p, NULL);
		k->columns[k->n++] = c->index;
		if (parser_take(p, "("))
			skip_parens(p);
		if (!parser_take(p, "ASC"))
			parser_take(p, "DESC");
	} while (parser_take(p, ","));
	parser_need(p, ")");
	return k;
}

static void add_check(struct parser *p, struct table *t, const char *name)
{
	struct check *c = make(p, sizeof(*c));
	parser_need(p, "(");
	c->name = w_strdup(name);
	c->expr = parse_expr(p);
	c->next = t->checks;
	t->checks = c;
	parser_need(p, ")");
}

static void one_column_key(struct table *t, struct column *c, const char *name)
{
	struct key *k = table_key_add(t, name);
	k->columns[k->n++] = c->index;
}

static void column_options(struct parser *p, struct table *t, struct column *c)
{
	while (!at_end(p) && !parser_is(p, ",") && !parser_is(p, ")")) {
		if (parser_take(p, "NOT")) {
			parser_need(p, "NULL");
			c->not_null = true;
		} else if (parser_take(p, "DEFAULT")) {
			c->fallback = parse_expr(p);
		} else if (parser_take(p, "AUTO_INCREMENT")) {
			c->auto_increment = true;
		} else if (parser_take(p, "PRIMARY")) {
			parser_need(p, "KEY");
			c->not_null = true;
			one_column_key(t, c, "PRIMARY");
		} else if (parser_take(p, "UNIQUE")) {
			parser_take(p, "KEY");
			one_column_key(t, c, c->name);
		} else if (parser_take(p, "CHECK")) {
			add_check(p, t, c->name);
		} else if (parser_take(p, "GENERATED")) {
			parser_fail(p, "generated columns");
		} else if (parser_take(p, "(")) {
			skip_parens(p);
		} else {
			parser_next(p); /* NULL, COLLATE x, CHARACTER SET x, COMMENT 'x', ON UPDATE x */
		}
	}
}

static struct column *column_definition(struct parser *p, struct table *t)
{
	struct column *c = make(p, sizeof(*c));
	c->name = (char *)(uintptr_t)parser_name(p);
	c->index = t->columns_n++;
	column_type(p, c);
	*t->columns_last = c;
	t->columns_last = &c->next;
	column_options(p, t, c);
	return c;
}

static void table_part(struct parser *p, struct table *t)
{
	const char *name = "CONSTRAINT_1";
	if (parser_take(p, "CONSTRAINT") && !parser_is(p, "CHECK") && !parser_is(p, "UNIQUE") &&
	    !parser_is(p, "PRIMARY") && !parser_is(p, "FOREIGN"))
		name = parser_name(p);
	if (parser_take(p, "PRIMARY")) {
		parser_need(p, "KEY");
		struct key *k = key_columns(p, t, "PRIMARY");
		for (struct column *c = t->columns; c; c = c->next)
			for (unsigned i = 0; i < k->n; i++)
				c->not_null |= k->columns[i] == c->index;
	} else if (parser_take(p, "UNIQUE")) {
		if (!parser_take(p, "KEY"))
			parser_take(p, "INDEX");
		key_columns(p, t, parser_is(p, "(") ? "unique" : parser_name(p));
	} else if (parser_take(p, "CHECK")) {
		add_check(p, t, name);
	} else if (parser_take(p, "FOREIGN")) {
		parser_fail(p, "foreign keys");
	} else if (parser_take(p, "KEY") || parser_take(p, "INDEX")) {
		while (!at_end(p) && !parser_take(p, "("))
			parser_next(p);
		skip_parens(p);
	} else {
		column_definition(p, t);
	}
}

/* The table outlives the query: what belongs to it is made in its own arena. */
static void create_table(struct parser *p, struct statement *s)
{
	struct arena *of_query = p->arena;
	if (parser_take(p, "IF")) {
		parser_need(p, "NOT");
		parser_need(p, "EXISTS");
		s->if_exists = true;
	}
	s->made = table_new();
	p->arena = &s->made->arena;
	s->table = table_name(p);
	s->made->name = w_strdup(s->table);
	parser_need(p, "(");
	do
		table_part(p, s->made);
	while (parser_take(p, ","));
	parser_need(p, ")");
	skip_statement(p);
	p->arena = of_query;
	s->kind = SQL_CREATE;
}

static void create(struct parser *p, struct statement *s)
{
	parser_take(p, "TEMPORARY");
	if (parser_take(p, "TABLE"))
		create_table(p, s);
	else if (parser_is(p, "DATABASE") || parser_is(p, "USER") || parser_is(p, "INDEX") || parser_is(p, "SCHEMA"))
		skip_statement(p);
	else
		parser_fail(p, NULL);
}

static void if_exists(struct parser *p, struct statement *s)
{
	if (parser_take(p, "IF")) {
		parser_need(p, "EXISTS");
		s->if_exists = true;
	}
}

/* ---- the clauses ------------------------------------------------------------------------------------------------------- */

static struct assignment *assignments(struct parser *p)
{
	struct assignment *first = NULL, **last = &first, *a;
	do {
		*last = a = make(p, sizeof(*a));
		last = &a->next;
		a->column = parser_name(p);
		if (parser_take(p, "."))
			a->column = parser_name(p);
		parser_need(p, "=");
		a->value = parse_expr(p);
	} while (parser_take(p, ","));
	return first;
}

static void order_by(struct parser *p, struct statement *s)
{
	struct order **last = &s->order, *o;
	parser_need(p, "BY");
	do {
		*last = o = make(p, sizeof(*o));
		last = &o->next;
		o->by = parse_expr(p);
		o->down = parser_take(p, "DESC");
		if (!o->down)
			parser_take(p, "ASC");
	} while (parser_take(p, ","));
}

static int64_t count(struct parser *p)
{
	if (p->token != T_NUMBER || p->number.type != CELL_INT)
		parser_fail(p, NULL);
	int64_t n = p->number.i;
	parser_next(p);
	return n;
}

static void where_order_limit(struct parser *p, struct statement *s)
{
	s->limit = -1;
	if (parser_take(p, "WHERE"))
		s->where = parse_expr(p);
	if (parser_is(p, "GROUP") || parser_is(p, "HAVING"))
		parser_fail(p, "GROUP BY");
	if (parser_take(p, "ORDER"))
		order_by(p, s);
	if (!parser_take(p, "LIMIT"))
		return;
	s->limit = count(p);
	if (parser_take(p, ",")) {
		s->offset = s->limit;
		s->limit = count(p);
	} else if (parser_take(p, "OFFSET")) {
		s->offset = count(p);
	}
}

/* ---- INSERT, UPDATE, DELETE, SELECT -------------------------------------------------------------------------------------- */

static void column_list(struct parser *p, struct statement *s)
{
	const char *of[256];
	do {
		if (s->columns_n == 256)
			parser_fail(p, NULL);
		of[s->columns_n++] = parser_name(p);
	} while (parser_take(p, ","));
	parser_need(p, ")");
	s->columns = make(p, s->columns_n * sizeof(*of));
	memcpy(s->columns, of, s->columns_n * sizeof(*of));
}

static struct insert_row *insert_row(struct parser *p)
{
	struct insert_row *row = make(p, sizeof(*row));
	struct expr *of[256];
	parser_need(p, "(");
	do {
		if (row->n == 256)
			parser_fail(p, NULL);
		of[row->n++] = parser_take(p, "DEFAULT") ? NULL : parse_expr(p);
	} while (parser_take(p, ","));
	parser_need(p, ")");
	row->values = make(p, row->n * sizeof(*of));
	memcpy(row->values, of, row->n * sizeof(*of));
	return row;
}

static void insert(struct parser *p, struct statement *s)
{
	struct insert_row **last = &s->rows;
	s->kind = SQL_INSERT;
	s->ignore = parser_take(p, "IGNORE");
	parser_take(p, "INTO");
	s->table = table_name(p);
	if (parser_take(p, "("))
		column_list(p, s);
	if (parser_is(p, "SELECT") || parser_is(p, "SET"))
		parser_fail(p, "INSERT from anything but VALUES");
	if (!parser_take(p, "VALUE"))
		parser_need(p, "VALUES");
	do {
		*last = insert_row(p);
		last = &(*last)->next;
	} while (parser_take(p, ","));
	if (parser_take(p, "ON")) {
		parser_need(p, "DUPLICATE");
		parser_need(p, "KEY");
		parser_need(p, "UPDATE");
		s->set = assignments(p);
	}
}

static void update(struct parser *p, struct statement *s)
{
	s->kind = SQL_UPDATE;
	s->ignore = parser_take(p, "IGNORE");
	s->table = table_name(p);
	parser_need(p, "SET");
	s->set = assignments(p);
	where_order_limit(p, s);
}

static void delete (struct parser *p, struct statement *s)
{
	s->kind = SQL_DELETE;
	parser_need(p, "FROM");
	s->table = table_name(p);
	where_order_limit(p, s);
}

static void select_items(struct parser *p, struct statement *s)
{
	struct select_item **last = &s->items, *item;
	do {
		*last = item = make(p, sizeof(*item));
		last = &item->next;
		if (parser_take(p, "*")) {
			item->value = make(p, sizeof(*item->value));
			item->value->kind = EXPR_STAR;
			continue;
		}
		item->value = parse_expr(p);
		if (parser_take(p, "AS"))
			item->alias = parser_name(p);
	} while (parser_take(p, ","));
}

static void select_(struct parser *p, struct statement *s)
{
	s->kind = SQL_SELECT;
	s->limit = -1;
	if (parser_is(p, "DISTINCT"))
		parser_fail(p, "DISTINCT");
	select_items(p, s);
	if (parser_take(p, "FROM")) {
		s->table = table_name(p);
		if (parser_take(p, "AS"))
			parser_name(p);
		if (parser_is(p, ",") || parser_is(p, "JOIN") || parser_is(p, "LEFT") || parser_is(p, "INNER"))
			parser_fail(p, "joins");
	}
	where_order_limit(p, s);
	if (parser_take(p, "FOR")) {
		parser_need(p, "UPDATE");
		s->for_update = true;
		if (!parser_take(p, "NOWAIT"))
			parser_take(p, "SKIP");
	} else if (parser_take(p, "LOCK")) { /* IN SHARE MODE */
		s->for_update = true;
		skip_statement(p);
	}
}

static void alter(struct parser *p, struct statement *s)
{
	struct table scratch = { 0 };
	parser_need(p, "TABLE");
	s->table = table_name(p);
	parser_need(p, "ADD");
	if (parser_is(p, "INDEX") || parser_is(p, "KEY")) {
		skip_statement(p);
		return;
	}
	parser_take(p, "COLUMN");
	if (parser_take(p, "IF")) {
		parser_need(p, "NOT");
		parser_need(p, "EXISTS");
		s->if_exists = true;
	}
	/* Made in memory of its own: it outlives the query. */
	struct arena *of_query = p->arena, *own = w_alloc(sizeof(*own));
	p->arena = own;
	scratch.columns_last = &scratch.columns;
	scratch.keys_last = &scratch.keys;
	s->column = column_definition(p, &scratch);
	if (scratch.keys || scratch.checks)
		parser_fail(p, "keys and checks of an added column");
	p->arena = of_query;
	s->kind = SQL_ADD_COLUMN;
	if (parser_take(p, "AFTER"))
		parser_name(p);
	if (!at_end(p))
		parser_fail(p, NULL);
}

static void drop(struct parser *p, struct statement *s)
{
	if (!parser_take(p, "TABLE")) {
		skip_statement(p);
		return;
	}
	if_exists(p, s);
	s->table = table_name(p);
	s->kind = SQL_DROP;
}

static void statement(struct parser *p, struct statement *s)
{
	if (parser_take(p, "INSERT")) {
		insert(p, s);
	} else if (parser_take(p, "REPLACE")) {
		s->replace = true;
		insert(p, s);
	} else if (parser_take(p, "UPDATE")) {
		update(p, s);
	} else if (parser_take(p, "DELETE")) {
		delete (p, s);
	} else if (parser_take(p, "SELECT")) {
		select_(p, s);
	} else if (parser_take(p, "BEGIN")) {
		s->kind = SQL_BEGIN;
		parser_take(p, "WORK");
	} else if (parser_take(p, "START")) {
		s->kind = SQL_BEGIN;
		parser_need(p, "TRANSACTION");
		skip_statement(p);
	} else if (parser_take(p, "COMMIT")) {
		s->kind = SQL_COMMIT;
	} else if (parser_take(p, "ROLLBACK")) {
		s->kind = SQL_ROLLBACK;
	} else if (parser_take(p, "CREATE")) {
		create(p, s);
	} else if (parser_take(p, "DROP")) {
		drop(p, s);
	} else if (parser_take(p, "TRUNCATE")) {
		parser_take(p, "TABLE");
		s->kind = SQL_TRUNCATE;
		s->table = table_name(p);
	} else if (parser_take(p, "ALTER")) {
		alter(p, s);
	} else if (parser_is(p, "SET") || parser_is(p, "USE") || parser_is(p, "GRANT") || parser_is(p, "FLUSH") ||
		   parser_is(p, "DO")) {
		skip_statement(p);
	} else {
		parser_fail(p, NULL);
	}
	if (!at_end(p))
		parser_fail(p, NULL);
}

int parse_statement(struct parser *p, struct statement *out)
{
	if (setjmp(p->bad))
		return -1;
	do
		parser_next(p);
	while (parser_is(p, ";"));
	if (p->token == T_END)
		return 0;
	*out = (struct statement){ .limit = -1 };
	statement(p, out);
	return 1; /* the ';' is the current token: the next call goes on behind it */
}
