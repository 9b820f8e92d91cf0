#include "common/env_sim_db.h"
#include <stdio.h>
#include <string.h>
/*
 * UPDATE, DELETE, and INSERT with its kin.
 */

/* ---- changing ------------------------------------------------------------------------------------------------------- */

static void check_row(struct run *run, const struct cell *cells)
{
	struct scope scope = db_scope(run, cells, "check");
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
	struct scope scope = db_scope(run, cells, "field list");
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

void db_update(struct run *run)
{
	struct picked p = { 0 };
	db_find_rows(run, &p, true);
	for (size_t i = 0; i < p.n && !run->waits && !run->r->error.code; i++)
		run->r->affected += update_row(run, p.at[i], NULL);
}

void db_delete(struct run *run)
{
	struct picked p = { 0 };
	db_find_rows(run, &p, true);
	if (run->waits || run->r->error.code)
		return;
	for (size_t i = 0; i < p.n; i++)
		row_change(p.at[i], run->txn, NULL);
	run->r->affected = p.n;
}

/* ---- INSERT and its kin ------------------------------------------------------------------------------------------------ */

static void default_of(struct run *run, struct column *c, struct cell *v)
{
	struct scope scope = db_scope(run, NULL, "field list");
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
	struct scope scope = db_scope(run, NULL, "field list");
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

void db_insert(struct run *run)
{
	for (struct insert_row *row = run->s->rows; row && !run->waits && !run->r->error.code; row = row->next)
		insert_one(run, row);
}
