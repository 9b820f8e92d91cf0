#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "common/env_sim_sql.h"
/*
 * information_schema, as far as it is asked: tables made of what the tables are, for one query each.
 */

struct maker {
	struct table *t;
	struct arena *arena;
};

static char *text_of(struct arena *a, const char *text)
{
	size_t n = strlen(text);
	return memcpy(arena_alloc(a, n + 1), text, n + 1);
}

/* One that is named as in a SELECT; all values are texts. */
static void begin(struct maker *m, const char *const *columns)
{
	m->t = arena_alloc(m->arena, sizeof(*m->t));
	m->t->name = text_of(m->arena, "information_schema");
	m->t->columns_last = &m->t->columns;
	for (; *columns; columns++) {
		struct column *c = arena_alloc(m->arena, sizeof(*c));
		c->name = text_of(m->arena, *columns);
		c->type = COLUMN_TEXT;
		c->index = m->t->columns_n++;
		*m->t->columns_last = c;
		m->t->columns_last = &c->next;
	}
}

static void add(struct maker *m, const char *const *values)
{
	struct row *r = arena_alloc(m->arena, sizeof(*r));
	r->table = m->t;
	r->serial = m->t->serial_next++;
	r->committed = arena_alloc(m->arena, m->t->columns_n * sizeof(*r->committed));
	for (unsigned i = 0; i < m->t->columns_n; i++) {
		struct cell *c = &r->committed[i];
		if (!values[i])
			continue;
		*c = (struct cell){ .type = CELL_TEXT, .p = text_of(m->arena, values[i]), .n = strlen(values[i]) };
	}
	r->next = m->t->rows;
	m->t->rows = r;
}

static const char *int_type(const struct column *c)
{
	uint64_t span = (uint64_t)c->max - (uint64_t)c->min;
	return span == 0xff         ? "tinyint"
	       : span == 0xffff     ? "smallint"
	       : span == 0xffffff   ? "mediumint"
	       : span == 0xffffffff ? "int"
				    : "bigint";
}

/* Texts are compared byte by byte here. */
static void make_columns(struct maker *m, const struct db *db)
{
	static const char *const names[] = { "table_schema",
					     "table_name",
					     "column_name",
					     "data_type",
					     "column_type",
					     "is_nullable",
					     "character_maximum_length",
					     "collation_name",
					     "extra",
					     NULL };
	static const char *const others[] = {
		[COLUMN_DOUBLE] = "double", [COLUMN_TEXT] = "varchar", [COLUMN_BLOB] = "blob"
	};
	begin(m, names);
	for (const struct table *t = db->tables; t; t = t->next)
		for (const struct column *c = t->columns; c; c = c->next) {
			char chars[24], whole[40];
			bool is_int = c->type == COLUMN_INT, is_text = c->type == COLUMN_TEXT;
			const char *type = is_int ? int_type(c) : others[c->type];
			snprintf(chars, sizeof(chars), "%zu", c->max_chars);
			snprintf(whole, sizeof(whole), "%s%s", type, is_int && !c->min ? " unsigned" : "");
			const char *const row[] = { "loquat",
						    t->name,
						    c->name,
						    type,
						    whole,
						    c->not_null ? "NO" : "YES",
						    is_text ? chars : NULL,
						    is_text ? "utf8mb4_nopad_bin" : NULL,
						    "" };
			add(m, row);
		}
}

static void make_statistics(struct maker *m, const struct db *db)
{
	static const char *const names[] = { "table_schema", "table_name",   "index_name", "column_name",
					     "non_unique",   "seq_in_index", NULL };
	begin(m, names);
	for (const struct table *t = db->tables; t; t = t->next)
		for (const struct key *k = t->keys; k; k = k->next)
			for (unsigned i = 0; i < k->n; i++) {
				const struct column *c = t->columns;
				char place[12];
				while (c->index != k->columns[i])
					c = c->next;
				snprintf(place, sizeof(place), "%u", i + 1);
				const char *const row[] = { "loquat", t->name, k->name, c->name, "0", place };
				add(m, row);
			}
}

static void make_constraints(struct maker *m, const struct db *db)
{
	static const char *const names[] = { "table_schema", "table_name", "constraint_type", NULL };
	begin(m, names);
	for (const struct table *t = db->tables; t; t = t->next)
		for (const struct check *c = t->checks; c; c = c->next) {
			const char *const row[] = { "loquat", t->name, "CHECK" };
			add(m, row);
		}
}

static void make_triggers(struct maker *m, const struct db *db)
{
	static const char *const names[] = { "event_object_schema", "event_object_table", NULL };
	(void)db;
	begin(m, names);
}

static void make_references(struct maker *m, const struct db *db)
{
	static const char *const names[] = { "constraint_schema", "unique_constraint_schema", "referenced_table_name",
					     NULL };
	(void)db;
	begin(m, names);
}

struct table *schema_table(const struct db *db, struct arena *a, const char *name)
{
	static const struct {
		const char *name;
		void (*make)(struct maker *m, const struct db *db);
	} made[] = {
		{ "columns", make_columns },
		{ "statistics", make_statistics },
		{ "table_constraints", make_constraints },
		{ "triggers", make_triggers },
		{ "referential_constraints", make_references },
	};
	struct maker m = { .arena = a };
	for (size_t i = 0; i < sizeof(made) / sizeof(*made); i++)
		if (strcasecmp(made[i].name, name) == 0) {
			made[i].make(&m, db);
			return m.t;
		}
	return NULL;
}
