#include "common/env_sim_db.h"
#include <string.h>
/*
 * Executing statements. Each either changes everything it should or nothing: what it did is undone when it fails or
 * has to wait for another's transaction, and then it is executed anew.
 */

static struct table *table_named(struct db *db, const char *name)
{
	struct table *t = db->tables;
	while (t && strcmp(t->name, name) != 0)
		t = t->next;
	return t;
}

struct scope db_scope(struct run *run, const struct cell *row, const char *clause)
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
	if (table_named(run->db, s->table)) {
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
	struct scope scope = db_scope(run, NULL, "field list");
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
	run->db->ends += run->txn->n > 0;
	txn_commit(run->txn);
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
	run->table = table_named(run->db, s->table);
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
	case SQL_INSERT: db_insert(run); break;
	case SQL_UPDATE: db_update(run); break;
	case SQL_DELETE: db_delete(run); break;
	case SQL_SELECT: db_select(run); break;
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
