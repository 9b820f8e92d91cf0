#include "common/env_sim_db.h"
#include <stdlib.h>
#include <string.h>
/*
 * Finding the rows that a statement means, and SELECT's answer from them.
 */

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
	struct scope scope = db_scope(run, NULL, "order clause");
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

void db_find_rows(struct run *run, struct picked *p, bool writes)
{
	struct statement *s = run->s;
	struct finder f = { run, db_scope(run, NULL, "where clause"), p, writes };
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
	struct scope scope = db_scope(run, NULL, "field list");
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

void db_select(struct run *run)
{
	struct picked p = { 0 };
	if (run->table)
		db_find_rows(run, &p, run->s->for_update);
	if (run->waits || run->r->error.code)
		return;
	for (size_t i = 0; run->s->for_update && i < p.n; i++)
		row_lock(p.at[i], run->txn);
	output(run, &p);
	run->r->affected = 0;
}
