#include "dbwriter/tables.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void tables_release(struct tables *t)
{
	free(t->table);
	*t = (struct tables){ 0 };
}

static struct table *find(const struct tables *t, const char *name, size_t n)
{
	for (unsigned i = 0; i < t->n; i++)
		if (!strncmp(t->table[i].name, name, n) && !t->table[i].name[n])
			return &t->table[i];
	return NULL;
}

const struct table *tables_find(const struct tables *t, const char *name, size_t n)
{
	const struct table *found = find(t, name, n);
	return found && found->key_n && found->columns < TABLE_COLUMNS_MAX ? found : NULL;
}

static struct table_column *column_of(struct table *t, const char *name, size_t n)
{
	for (unsigned i = 0; i < t->columns; i++)
		if (!strncasecmp(t->column[i].name, name, n) && !t->column[i].name[n])
			return &t->column[i];
	return NULL;
}

const struct table_column *table_column_find(const struct table *t, const char *name, size_t n)
{
	return column_of((struct table *)(uintptr_t)t, name, n);
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

enum { COLUMNS, UNIQUE, CONSTRAINTS, TRIGGERS, REFERENCED };
static const char *const queries[TABLES_QUERIES] = {
	[COLUMNS] = "SELECT table_name, column_name, data_type, column_type, is_nullable, character_maximum_length,"
		    " collation_name, extra FROM information_schema.columns WHERE table_schema = DATABASE()",
	[UNIQUE] = "SELECT table_name, index_name, column_name FROM information_schema.statistics"
		   " WHERE table_schema = DATABASE() AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index",
	[CONSTRAINTS] = "SELECT table_name, constraint_type FROM information_schema.table_constraints"
			" WHERE table_schema = DATABASE() AND constraint_type IN ('CHECK', 'FOREIGN KEY')",
	[TRIGGERS] = "SELECT event_object_table FROM information_schema.triggers"
		     " WHERE event_object_schema = DATABASE()",
	/* Those of other databases, too; the server's own have none, and without their names it would open all their tables. */
	[REFERENCED] = "SELECT referenced_table_name FROM information_schema.referential_constraints"
		       " WHERE unique_constraint_schema = DATABASE() AND constraint_schema NOT IN"
		       " ('information_schema', 'mysql', 'performance_schema', 'sys')",
};

const char *tables_query(unsigned i)
{
	assert(i < TABLES_QUERIES);
	return queries[i];
}

void tables_begin(struct tables *t)
{
	t->n = 0;
}

void tables_end(struct tables *t)
{
	t->version++;
}

static struct table *made(struct tables *t, const char *name)
{
	struct table *found = find(t, name, strlen(name));
	if (found)
		return found;
	if (t->n == t->capacity) {
		t->capacity = t->capacity ? 2 * t->capacity : 16;
		t->table = realloc(t->table, t->capacity * sizeof *t->table);
		assert(t->table);
	}
	found = &t->table[t->n++];
	memset(found, 0, sizeof *found);
	snprintf(found->name, sizeof found->name, "%s", name);
	return found;
}

static const struct {
	const char *name;
	enum column_kind kind;
	unsigned bits;
} types[] = {
	{ "tinyint", COLUMN_INT, 8 },   { "smallint", COLUMN_INT, 16 },   { "mediumint", COLUMN_INT, 24 },
	{ "int", COLUMN_INT, 32 },      { "bigint", COLUMN_INT, 64 },     { "double", COLUMN_DOUBLE, 0 },
	{ "varchar", COLUMN_TEXT, 0 },  { "char", COLUMN_TEXT, 0 },       { "text", COLUMN_TEXT, 0 },
	{ "tinytext", COLUMN_TEXT, 0 }, { "mediumtext", COLUMN_TEXT, 0 }, { "longtext", COLUMN_TEXT, 0 },
};

static void set_type(struct table_column *c, const char *type, const char *declared)
{
	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		if (strcasecmp(types[i].name, type))
			continue;
		c->kind = types[i].kind;
		if (!types[i].bits)
			return;
		c->max = (int64_t)((1ull << (types[i].bits - 1)) - 1);
		c->min = -c->max - 1;
		if (strcasestr(declared, "unsigned")) {
			c->max = types[i].bits == 64 ? INT64_MAX : (int64_t)((1ull << types[i].bits) - 1);
			c->min = 0;
		}
	}
}

/* table, column, type, as declared, nullable, characters, collation, extra */
static void add_column(struct tables *t, const char *const *cell)
{
	static const char *const changing[] = { "on update", "generated", "virtual", "stored", "persistent" };
	struct table *table = made(t, cell[0]);
	if (table->columns == TABLE_COLUMNS_MAX)
		return;
	struct table_column *c = &table->column[table->columns++];
	const char *collation = cell[6] ? cell[6] : "", *extra = cell[7] ? cell[7] : "";
	size_t n = strlen(collation);
	snprintf(c->name, sizeof c->name, "%s", cell[1]);
	set_type(c, cell[2], cell[3]);
	c->not_null = !strcasecmp(cell[4], "NO");
	c->chars_max = cell[5] ? strtoull(cell[5], NULL, 10) : 0;
	if (c->kind == COLUMN_TEXT && strncmp(collation, "utf8mb4_", 8))
		c->kind = COLUMN_OTHER;
	c->bytes = strcasestr(cell[2], "blob") != NULL;
	c->counts_bytes = strcasestr(cell[2], "text") != NULL;
	c->exact_but_spaces = c->kind == COLUMN_TEXT && n > 4 && !strcmp(collation + n - 4, "_bin");
	c->exact = c->exact_but_spaces && strstr(collation, "_nopad_") && !strcasecmp(cell[2], "varchar");
	for (size_t i = 0; i < sizeof changing / sizeof *changing; i++)
		table->watched |= strcasestr(extra, changing[i]) != NULL;
}

/* table, index, column */
static void add_unique(struct tables *t, const char *const *cell)
{
	struct table *table = made(t, cell[0]);
	struct table_column *c = column_of(table, cell[2] ? cell[2] : "", cell[2] ? strlen(cell[2]) : 0);
	bool primary = !strcasecmp(cell[1], "PRIMARY");
	if (!c || !primary)
		table->other_keys = true;
	if (!c)
		return;
	c->unique = true;
	if (primary && table->key_n < TABLE_KEY_MAX)
		table->key[table->key_n++] = (unsigned)(c - table->column);
	else if (primary)
		table->entangled = true; /* longer than we keep */
}

void tables_answer(struct tables *t, unsigned i, const struct env_db_result *r)
{
	for (unsigned row = 0; row < r->rows; row++) {
		const char *const *cell = r->cells + (size_t)row * r->columns;
		if (i == COLUMNS)
			add_column(t, cell);
		else if (i == UNIQUE)
			add_unique(t, cell);
		else if (i == CONSTRAINTS && !strcasecmp(cell[1], "CHECK"))
			made(t, cell[0])->watched = true;
		else if (cell[0])
			made(t, cell[0])->entangled = true;
	}
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

bool column_takes_int(const struct table_column *c, int64_t v)
{
	return c->kind == COLUMN_DOUBLE || (c->kind == COLUMN_INT && v >= c->min && v <= c->max);
}

bool column_takes_text(const struct table_column *c, const char *text, size_t n)
{
	uint64_t chars = 0;
	if (c->kind != COLUMN_TEXT)
		return false;
	if (c->counts_bytes || n <= c->chars_max / 4)
		return n <= c->chars_max;
	for (size_t i = 0; i < n; i++)
		chars += (text[i] & 0xc0) != 0x80;
	return chars <= c->chars_max;
}
