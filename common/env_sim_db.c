#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/env_sim_sql.h"
/*
 * Executing statements. Each either changes everything it should or nothing: what it did is undone when it fails or
 * has to wait for another's transaction, and then it is executed anew.
 */

struct run { /* one statement under way */
	struct db *db;
	struct txn *txn;
	struct statement *s;
	struct result *r;
	struct table *table;
	struct arena arena;   /* of the statement */
	bool waits, numbered; /* numbered: an AUTO_INCREMENT value was given out */
};

struct picked {
	struct row **at;
	size_t n, cap;
};

struct table *db_table(struct db *db, const char *name)
{
	struct table *t = db->tables;
	while (t && strcmp(t->name, name) != 0)
		t = t->next;
	return t;
}

static struct scope scope_of(struct run *run, const struct cell *row, const char *clause)
{
	return (struct scope){ .db = run->db,
			       .txn = run->txn,
			       .arena = &run->arena,
			       .table = run->table,
			       .row = row,
			       .clause = clause,
			       .error = &run->r->error };
}

/* ---- names: unknown ones are refused even where there are no rows ---------------------------------------------- */

static void check_names(struct run *run, const struct expr *e, const char *clause)
{
	if (!e || run->r->error.code)
		return;
	if ((e->kind == EXPR_COLUMN || e->kind == EXPR_VALUES) && (!run->table || !table_column(run->table, e->column)))
		sql_fail(&run->r->error, 1054, "Unknown column '%s' in '%s'", e->column, clause);
	for (unsigned i = 0; i < e->n; i++)
		check_names(run, e->args[i], clause);
}

static bool names_known(struct run *run)
{
	struct statement *s = run->s;
	for (struct select_item *i = s->items; i; i = i->next)
		check_names(run, i->value, "field list");
	for (struct assignment *a = s->set; a; a = a->next) {
		check_names(run, a->value, "field list");
		if (!table_column(run->table, a->column))
			sql_fail(&run->r->error, 1054, "Unknown column '%s' in 'field list'", a->column);
	}
	check_names(run, s->where, "where clause");
	for (struct order *o = s->order; o; o = o->next)
		check_names(run, o->by, "order clause");
	return !run->r->error.code;
}

/* ---- which rows ------------------------------------------------------------------------------------------------ */

struct finder {
	struct run *run;
	struct scope scope;
	struct picked *to;
	bool writes;
};

static void pick(struct picked *p, struct arena *a, struct row *r)
{
	if (p->n == p->cap) {
		size_t cap = p->cap ? p->cap * 2 : 16;
		struct row **at = arena_alloc(a, cap * sizeof(*at));
		if (p->n)
			memcpy(at, p->at, p->n * sizeof(*at));
		p->at = at;
		p->cap = cap;
	}
	p->at[p->n++] = r;
}

static bool matches(struct finder *f, const struct cell *cells)
{
	f->scope.row = cells;
	return cells && (!f->run->s->where || eval_true(&f->scope, f->run->s->where));
}

static void consider(void *arg, struct row *r)
{
	struct finder *f = arg;
	struct txn *x = f->run->txn;
	if (f->scope.error->code || f->run->waits)
		return;
	if (f->writes && r->owner && r->owner != x) {
		if (matches(f, r->committed) || (r->changed && matches(f, r->pending))) {
			f->run->waits = true;
			x->waits_for = r->owner;
		}
	} else if (matches(f, row_seen(r, x))) {
		pick(f->to, &f->run->arena, r);
	}
}

/* The value that the conjunction e demands of a column, or NULL. */
static const struct expr *demanded(const struct table *t, const struct expr *e, const struct column *c)
{
	const struct expr *found;
	if (e->kind != EXPR_BINARY)
		return NULL;
	if (strcmp(e->op, "AND") == 0)
		return (found = demanded(t, e->args[0], c)) ? found : demanded(t, e->args[1], c);
	if (strcmp(e->op, "=") != 0 || e->args[0]->kind != EXPR_COLUMN || table_column(t, e->args[0]->column) != c)
		return NULL;
	e = e->args[1];
	if (e->kind != EXPR_LITERAL || e->literal.type != (c->type == COLUMN_INT ? CELL_INT : CELL_TEXT))
		return NULL;
	return e;
}

static const struct column *column_at(const struct table *t, unsigned index)
{
	const struct column *c = t->columns;
	while (c->index != index)
		c = c->next;
	return c;
}

/* Looks under a unique key if all its columns are demanded; false: none is. */
static bool find_by_key(struct finder *f, struct table *t)
{
	struct cell *values = arena_alloc(&f->run->arena, t->columns_n * sizeof(*values));
	for (struct key *k = t->keys; k; k = k->next) {
		unsigned i = 0;
		for (; i < k->n; i++) {
			const struct column *c = column_at(t, k->columns[i]);
			const struct expr *e = demanded(t, f->run->s->where, c);
			if (!e || (c->type != COLUMN_INT && c->type != COLUMN_TEXT && c->type != COLUMN_BLOB))
				break;
			values[c->index] = e->literal;
		}
		if (i == k->n) {
			key_each(k, values, consider, f);
			return true;
		}
	}
	return false;
}

static int by_key(const void *a, const void *b)
{
	const struct row *x = *(struct row *const *)a, *y = *(struct row *const *)b;
	const struct key *k = x->table->keys;
	const struct cell *p = x->pending ? x->pending : x->committed, *q = y->pending ? y->pending : y->committed;
	for (unsigned i = 0; k && p && q && i < k->n; i++) {
		const struct cell *u = &p[k->columns[i]], *v = &q[k->columns[i]];
		int way = u->type == CELL_NULL || v->type == CELL_NULL ? (u->type != CELL_NULL) - (v->type != CELL_NULL)
								       : cell_compare(u, v);
		if (way)
			return way;
	}
	return (x->serial > y->serial) - (x->serial < y->serial);
}

struct sorted {
	struct row *row;
	struct cell *by;
	size_t place;
	const struct statement *s;
};

static int by_order(const void *a, const void *b)
{
	const struct sorted *x = a, *y = b;
	unsigned i = 0;
	for (const struct order *o = x->s->order; o; o = o->next, i++) {
		const struct cell *p = &x->by[i], *q = &y->by[i];
		int way = p->type == CELL_NULL || q->type == CELL_NULL ? (p->type != CELL_NULL) - (q->type != CELL_NULL)
								       : cell_compare(p, q);
		if (way)
			return o->down ? -way : way;
	}
	return (x->place > y->place) - (x->place < y->place);
}

static void sort_by_order(struct run *run, struct picked *p)
{
	struct scope scope = scope_of(run, NULL, "order clause");
	struct sorted *all = arena_alloc(&run->arena, (p->n + 1) * sizeof(*all));
	unsigned n = 0;
	for (const struct order *o = run->s->order; o; o = o->next)
		n++;
	for (size_t i = 0; i < p->n; i++) {
		all[i] = (struct sorted){ p->at[i], arena_alloc(&run->arena, n * sizeof(struct cell)), i, run->s };
		scope.row = row_seen(p->at[i], run->txn);
		n = 0;
		for (const struct order *o = run->s->order; o; o = o->next)
			all[i].by[n++] = eval(&scope, o->by);
	}
	qsort(all, p->n, sizeof(*all), by_order);
	for (size_t i = 0; i < p->n; i++)
		p->at[i] = all[i].row;
}

static bool aggregated(const struct statement *s)
{
	for (struct select_item *i = s->items; i; i = i->next)
		if (expr_has_aggregate(i->value))
			return true;
	return false;
}

static void find_rows(struct run *run, struct picked *p, bool writes)
{
	struct statement *s = run->s;
	struct finder f = { run, scope_of(run, NULL, "where clause"), p, writes };
	if (!s->where || !find_by_key(&f, run->table))
		for (struct row *r = run->table->rows; r; r = r->next)
			consider(&f, r);
	if (run->waits || run->r->error.code)
		return;
	if (p->n && !aggregated(s))
		qsort(p->at, p->n, sizeof(*p->at), by_key);
	if (s->order && p->n)
		sort_by_order(run, p);
	if (s->limit < 0)
		return;
	size_t skip = (size_t)s->offset < p->n ? (size_t)s->offset : p->n;
	p->at += skip;
	p->n -= skip;
	if (p->n > (size_t)s->limit)
		p->n = (size_t)s->limit;
}

/* ---- SELECT ------------------------------------------------------------------------------------------------------- */

static unsigned width(const struct run *run)
{
	unsigned n = 0;
	for (struct select_item *i = run->s->items; i; i = i->next)
		n += i->value->kind == EXPR_STAR && run->table ? run->table->columns_n : 1;
	return n;
}

static enum env_db_type type_of_column(const struct column *c)
{
	switch (c->type) {
	case COLUMN_INT: return ENV_DB_INT;
	case COLUMN_DOUBLE: return ENV_DB_DOUBLE;
	default: return ENV_DB_TEXT;
	}
}

static const struct column *named_column(const struct run *run, const char *name)
{
	for (const struct column *c = run->table ? run->table->columns : NULL; c; c = c->next)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

/* What is counted, summed or computed is a number; texts come from columns and literals only. */
static struct env_db_column describe(const struct run *run, const struct select_item *i)
{
	const struct column *c = i->value->kind == EXPR_COLUMN ? named_column(run, i->value->column) : NULL;
	struct env_db_column out = { .name = i->alias ? i->alias : c ? c->name : "?", .type = ENV_DB_INT };
	if (c)
		out.type = type_of_column(c);
	else if (i->value->kind == EXPR_LITERAL && i->value->literal.type == CELL_TEXT)
		out.type = ENV_DB_TEXT;
	return out;
}

static void output_columns(struct run *run)
{
	struct result *r = run->r;
	unsigned n = 0;
	r->column = arena_alloc(&r->arena, (r->columns + 1) * sizeof(*r->column));
	for (struct select_item *i = run->s->items; i; i = i->next) {
		if (i->value->kind != EXPR_STAR) {
			r->column[n++] = describe(run, i);
			continue;
		}
		for (struct column *c = run->table ? run->table->columns : NULL; c; c = c->next)
			r->column[n++] = (struct env_db_column){ c->name, type_of_column(c) };
	}
}

static void output_row(struct run *run, struct scope *scope, size_t at)
{
	struct result *r = run->r;
	struct cell c;
	for (struct select_item *i = run->s->items; i; i = i->next) {
		if (i->value->kind != EXPR_STAR) {
			c = eval(scope, i->value);
			cell_text(&r->arena, &c, &r->cells[at], &r->cell_bytes[at]);
			at++;
			continue;
		}
		for (unsigned k = 0; run->table && k < run->table->columns_n; k++, at++)
			cell_text(&r->arena, &scope->row[k], &r->cells[at], &r->cell_bytes[at]);
	}
}

static void output(struct run *run, struct picked *p)
{
	struct result *r = run->r;
	struct scope scope = scope_of(run, NULL, "field list");
	bool sums = aggregated(run->s);
	struct row *none = NULL;
	r->columns = width(run);
	output_columns(run);
	r->rows = sums || !run->table ? 1 : (unsigned)p->n;
	r->cells = arena_alloc(&r->arena, ((size_t)r->rows * r->columns + 1) * sizeof(*r->cells));
	r->cell_bytes = arena_alloc(&r->arena, ((size_t)r->rows * r->columns + 1) * sizeof(*r->cell_bytes));
	if (sums) {
		scope.group = p->n ? p->at : &none;
		scope.group_n = p->n;
		output_row(run, &scope, 0);
		return;
	}
	for (unsigned i = 0; i < r->rows; i++) {
		scope.row = run->table ? row_seen(p->at[i], run->txn) : NULL;
		output_row(run, &scope, (size_t)i * r->columns);
	}
}

static void run_select(struct run *run)
{
	struct picked p = { 0 };
	if (run->table)
		find_rows(run, &p, run->s->for_update);
	if (run->waits || run->r->error.code)
		return;
	for (size_t i = 0; run->s->for_update && i < p.n; i++)
		row_lock(p.at[i], run->txn);
	output(run, &p);
	run->r->affected = 0;
}

/* ---- changing ------------------------------------------------------------------------------------------------------- */

static void check_row(struct run *run, const struct cell *cells)
{
	struct scope scope = scope_of(run, cells, "check");
	for (struct check *c = run->table->checks; c; c = c->next) {
		struct cell v = eval(&scope, c->expr);
		if (v.type != CELL_NULL && cell_number(&v) == 0)
			sql_fail(&run->r->error, 4025, "CONSTRAINT `%s` failed for `%s`", c->name, run->table->name);
	}
}

static void duplicate(struct run *run, const struct key *k, const struct cell *cells)
{
	char text[128] = "";
	for (unsigned i = 0; i < k->n; i++) {
		const char *p;
		size_t n, had = strlen(text);
		cell_text(&run->arena, &cells[k->columns[i]], &p, &n);
		snprintf(text + had, sizeof(text) - had, "%s%.*s", i ? "-" : "", (int)(n < 60 ? n : 60),
			 p ? p : "NULL");
	}
	sql_fail(&run->r->error, 1062, "Duplicate entry '%s' for key '%s'", text, k->name);
}

/* Sets columns of cells, left to right, each seeing what those before it made. */
static void assign(struct run *run, struct cell *cells, const struct cell *values)
{
	struct scope scope = scope_of(run, cells, "field list");
	scope.values = values;
	for (struct assignment *a = run->s->set; a; a = a->next) {
		struct column *c = table_column(run->table, a->column);
		struct cell v = eval(&scope, a->value);
		if (column_store(&scope, c, &v))
			return;
		cells[c->index] = v;
	}
	check_row(run, cells);
}

static bool all_same(struct run *run, const struct row *r, const struct cell *cells)
{
	const struct cell *seen = row_seen(r, run->txn);
	unsigned i = 0;
	while (i < run->table->columns_n && cell_same(&cells[i], &seen[i]))
		i++;
	return i == run->table->columns_n;
}

/* One row to new values: 1 changed, 0 as it was (or failed, or has to wait). */
static unsigned update_row(struct run *run, struct row *r, const struct cell *values)
{
	unsigned n = run->table->columns_n;
	struct cell *cells = arena_alloc(&run->arena, n * sizeof(*cells));
	struct row *other;
	struct key *key;
	memcpy(cells, row_seen(r, run->txn), n * sizeof(*cells));
	assign(run, cells, values);
	if (run->r->error.code)
		return 0;
	if (all_same(run, r, cells)) {
		row_lock(r, run->txn);
		return 0;
	}
	unsigned code = table_conflict(run->table, run->txn, cells, r, &other, &key);
	run->waits = code == SQL_WAIT;
	if (code == 1062)
		duplicate(run, key, cells);
	if (code)
		return 0;
	row_change(r, run->txn, cells);
	return 1;
}

static void run_update(struct run *run)
{
	struct picked p = { 0 };
	find_rows(run, &p, true);
	for (size_t i = 0; i < p.n && !run->waits && !run->r->error.code; i++)
		run->r->affected += update_row(run, p.at[i], NULL);
}

static void run_delete(struct run *run)
{
	struct picked p = { 0 };
	find_rows(run, &p, true);
	if (run->waits || run->r->error.code)
		return;
	for (size_t i = 0; i < p.n; i++)
		row_change(p.at[i], run->txn, NULL);
	run->r->affected = p.n;
}

/* ---- INSERT and its kin ------------------------------------------------------------------------------------------------ */

static void default_of(struct run *run, struct column *c, struct cell *v)
{
	struct scope scope = scope_of(run, NULL, "field list");
	*v = (struct cell){ .type = CELL_NULL };
	if (c->fallback)
		*v = eval(&scope, c->fallback);
	else if (c->not_null && !c->auto_increment)
		sql_fail(scope.error, 1364, "Field '%s' doesn't have a default value", c->name);
	if (v->type != CELL_NULL)
		column_store(&scope, c, v);
}

static void number_row(struct run *run, struct cell *v)
{
	struct table *t = run->table;
	if (v->type == CELL_NULL || (v->type == CELL_INT && v->i == 0)) {
		*v = (struct cell){ .type = CELL_INT, .i = t->auto_next };
		if (!run->numbered)
			run->txn->last_id = v->i;
		run->numbered = true;
	}
	if (v->type == CELL_INT && v->i >= t->auto_next)
		t->auto_next = v->i + 1;
}

/* The columns an INSERT names, as an array by place; NULL and an error if one is unknown. */
static struct column **named(struct run *run, unsigned *n)
{
	struct table *t = run->table;
	*n = run->s->columns ? run->s->columns_n : t->columns_n;
	struct column **of = arena_alloc(&run->arena, (*n + 1) * sizeof(*of)), *c = t->columns;
	for (unsigned i = 0; i < *n; i++, c = c ? c->next : NULL) {
		of[i] = run->s->columns ? table_column(t, run->s->columns[i]) : c;
		if (!of[i])
			sql_fail(&run->r->error, 1054, "Unknown column '%s' in 'field list'", run->s->columns[i]);
	}
	return of;
}

static struct cell *build_row(struct run *run, const struct insert_row *row)
{
	struct table *t = run->table;
	struct scope scope = scope_of(run, NULL, "field list");
	struct cell *cells = arena_alloc(&run->arena, (t->columns_n + 1) * sizeof(*cells));
	bool *given = arena_alloc(&run->arena, t->columns_n + 1);
	unsigned n;
	struct column **of = named(run, &n);
	if (n != row->n)
		sql_fail(scope.error, 1136, "Column count doesn't match value count at row 1");
	for (unsigned i = 0; i < n && !scope.error->code; i++) {
		struct cell *v = &cells[of[i]->index];
		given[of[i]->index] = row->values[i] != NULL;
		if (!row->values[i])
			continue;
		*v = eval(&scope, row->values[i]);
		if (of[i]->auto_increment)
			number_row(run, v);
		column_store(&scope, of[i], v);
	}
	for (struct column *c = t->columns; c && !scope.error->code; c = c->next)
		if (!given[c->index]) {
			default_of(run, c, &cells[c->index]);
			if (c->auto_increment)
				number_row(run, &cells[c->index]);
		}
	return cells;
}

static void insert_one(struct run *run, const struct insert_row *row)
{
	struct statement *s = run->s;
	struct result *r = run->r;
	struct cell *cells = build_row(run, row);
	struct row *other;
	struct key *key;
	unsigned code;
	if (r->error.code)
		return;
	check_row(run, cells);
	while (!r->error.code && (code = table_conflict(run->table, run->txn, cells, NULL, &other, &key))) {
		run->waits = code == SQL_WAIT;
		if (run->waits)
			return;
		if (s->replace && !key->next && all_same(run, other, cells)) {
			row_lock(other, run->txn); /* replacing a row by itself counts as one */
			r->affected++;
			return;
		}
		if (s->replace) {
			row_change(other, run->txn, NULL);
			r->affected++;
			continue;
		}
		if (s->set)
			r->affected += 2 * update_row(run, other, cells);
		else if (!s->ignore)
			duplicate(run, key, cells);
		return;
	}
	if (r->error.code)
		return;
	table_insert(run->table, run->txn, cells);
	r->affected++;
}

static void run_insert(struct run *run)
{
	for (struct insert_row *row = run->s->rows; row && !run->waits && !run->r->error.code; row = row->next)
		insert_one(run, row);
}

/* ---- tables -------------------------------------------------------------------------------------------------------------- */

/* A definition changes when nobody's transaction holds a row of it. */
static bool table_busy(struct run *run)
{
	for (struct row *r = run->table->rows; r; r = r->next)
		if (r->owner && r->owner != run->txn) {
			run->txn->waits_for = r->owner;
			run->waits = true;
		}
	return run->waits;
}

static void run_create(struct run *run)
{
	struct statement *s = run->s;
	if (db_table(run->db, s->table)) {
		if (!s->if_exists)
			sql_fail(&run->r->error, 1050, "Table '%s' already exists", s->table);
		return;
	}
	s->made->next = run->db->tables;
	run->db->tables = s->made;
}

static void run_drop(struct run *run)
{
	struct table **at = &run->db->tables;
	if (table_busy(run))
		return;
	while (*at != run->table)
		at = &(*at)->next;
	*at = run->table->next;
}

static void run_truncate(struct run *run)
{
	if (table_busy(run))
		return;
	for (struct row *r = run->table->rows, *next; r; r = next) {
		next = r->next;
		row_change(r, run->txn, NULL);
	}
	run->table->auto_next = 1;
}

static void run_add_column(struct run *run)
{
	struct table *t = run->table;
	struct column *c = run->s->column;
	if (table_column(t, c->name)) {
		if (!run->s->if_exists)
			sql_fail(&run->r->error, 1060, "Duplicate column name '%s'", c->name);
		return;
	}
	if (table_busy(run))
		return;
	struct cell v;
	struct scope scope = scope_of(run, NULL, "field list");
	bool strict = c->not_null && !c->fallback;
	c->index = t->columns_n++;
	*t->columns_last = c;
	t->columns_last = &c->next;
	c->next = NULL;
	for (struct row *r = t->rows; r; r = r->next) {
		v = strict ? (struct cell){ .type = CELL_INT } : (struct cell){ .type = CELL_NULL };
		if (c->fallback)
			v = eval(&scope, c->fallback);
		column_store(&scope, c, &v);
		if (v.type == CELL_TEXT)
			v.p = memcpy(w_alloc(v.n + 1), v.p, v.n);
		r->committed = w_realloc(r->committed, t->columns_n * sizeof(*r->committed));
		r->committed[c->index] = v;
	}
}

/* ---- one statement ---------------------------------------------------------------------------------------------------------- */

static void commit(struct run *run)
{
	struct txn *x = run->txn;
	size_t i = 0;
	while (i < x->n && !x->log[i].row->changed)
		i++;
	run->db->commits += i < x->n;
	run->db->ends += x->n > 0;
	txn_commit(x);
}

static void rollback(struct run *run)
{
	run->db->ends += run->txn->n > 0;
	txn_rollback(run->txn);
}

static bool find_table(struct run *run)
{
	struct statement *s = run->s;
	if (!s->table || s->kind == SQL_CREATE)
		return true;
	run->table = db_table(run->db, s->table);
	if (!run->table && s->kind == SQL_SELECT)
		run->table = schema_table(run->db, &run->r->arena, s->table);
	if (run->table)
		return true;
	if (s->kind == SQL_DROP) {
		if (!s->if_exists)
			sql_fail(&run->r->error, 1051, "Unknown table '%s'", s->table);
	} else {
		sql_fail(&run->r->error, 1146, "Table 'loquat.%s' doesn't exist", s->table);
	}
	return false;
}

static void dispatch(struct run *run)
{
	switch (run->s->kind) {
	case SQL_INSERT: run_insert(run); break;
	case SQL_UPDATE: run_update(run); break;
	case SQL_DELETE: run_delete(run); break;
	case SQL_SELECT: run_select(run); break;
	case SQL_CREATE: run_create(run); break;
	case SQL_DROP: run_drop(run); break;
	case SQL_TRUNCATE: run_truncate(run); break;
	case SQL_ADD_COLUMN: run_add_column(run); break;
	case SQL_ROLLBACK: rollback(run); break;
	case SQL_BEGIN:
	case SQL_COMMIT: commit(run); break;
	default: break;
	}
}

static bool writes(const struct statement *s)
{
	return s->kind == SQL_INSERT || s->kind == SQL_UPDATE || s->kind == SQL_DELETE;
}

static bool defines(const struct statement *s)
{
	return s->kind == SQL_CREATE || s->kind == SQL_DROP || s->kind == SQL_TRUNCATE || s->kind == SQL_ADD_COLUMN;
}

static unsigned run_statement(struct run *run)
{
	struct txn *x = run->txn;
	struct sql_error *e = &run->r->error;
	struct sim *w = run->db->w;
	if (defines(run->s))
		commit(run); /* as MariaDB does: a definition ends the transaction */
	size_t mark = x->n;
	run->r->affected = 0;
	if (writes(run->s) && x != &run->db->outside && rng_chance(&w->rng_db, w->chances.deadlock_ppm))
		sql_fail(e, 1213, "Deadlock found when trying to get lock; try restarting transaction");
	else if (find_table(run) && names_known(run))
		dispatch(run);
	if (run->waits || e->code) {
		txn_revert(x, mark < x->n ? mark : x->n);
		if (e->code == 1213)
			rollback(run);
		return run->waits ? SQL_WAIT : e->code;
	}
	if (run->s->kind == SQL_BEGIN)
		x->open = true;
	else if (!x->open)
		commit(run);
	return 0;
}

unsigned db_execute(struct db *db, struct txn *x, const char *sql, size_t n, size_t *at, struct result *r)
{
	for (;;) {
		struct statement s;
		struct parser p;
		struct run run = { .db = db, .txn = x, .s = &s, .r = r };
		parser_init(&p, &run.arena, sql + *at, n - *at, &r->error);
		int got = parse_statement(&p, &s);
		unsigned code = got > 0 ? run_statement(&run) : r->error.code;
		arena_release(&run.arena);
		if (got == 0 || code)
			return code;
		w_note(db->w, "statement", s.kind, r->affected);
		*at = (size_t)(p.at - sql);
		r->failed_at++; /* the one that comes next */
	}
}
