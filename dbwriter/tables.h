#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/env.h"
/*
 * tables: what the database says of its tables, as far as the order of changes depends on it: which columns make a row
 * what it is, what a column takes, and what else hangs on a change (other unique keys, triggers, foreign keys, checks).
 *
 * Threads: owner only. Memory: the object's own. Pure but for the names of the queries: the asking is the caller's.
 */
enum column_kind {
	COLUMN_OTHER, /* takes texts, by rules of its own (dates, decimals, JSON …) */
	COLUMN_INT,
	COLUMN_DOUBLE,
	COLUMN_TEXT /* in UTF-8, all of it */
};
struct table_column {
	char name[65];
	enum column_kind kind;
	int64_t min, max;      /* integers; those above the 64 signed bits are none of ours */
	uint64_t chars_max;    /* texts */
	bool counts_bytes;     /* chars_max is of bytes */
	bool bytes;            /* a blob: of any bytes */
	bool not_null, unique; /* unique: in any unique key, the primary one too */
	bool exact;            /* texts are equal when their bytes are, spaces at the end included */
	bool exact_but_spaces; /* … when they do not end in one */
};
#define TABLE_COLUMNS_MAX 64 /* a table with more is taken for unknown */
#define TABLE_KEY_MAX     4
struct table {
	char name[65];
	struct table_column column[TABLE_COLUMNS_MAX];
	unsigned columns;
	unsigned key[TABLE_KEY_MAX]; /* columns of the primary key */
	unsigned key_n;              /* 0: none, or a longer one */
	bool entangled;              /* triggers or foreign keys: a change may reach other tables */
	bool other_keys;             /* unique keys beside the primary one: a change may meet another row */
	bool watched; /* checks, or columns that change by themselves: each change counts, not only the last */
};
struct tables {
	struct table *table;
	unsigned n, capacity;
	unsigned version; /* grows with each reading; 0: never read */
};
void tables_release(struct tables *t);
const struct table *tables_find(const struct tables *t, const char *name,
				size_t n); /* NULL: unknown, or without a primary key */
const struct table_column *table_column_find(const struct table *t, const char *name, size_t n);

/* Reading: forget what was known, ask the queries 0 … TABLES_QUERIES - 1 and hand over each answer. */
#define TABLES_QUERIES 5
const char *tables_query(unsigned i);
void tables_begin(struct tables *t);
void tables_answer(struct tables *t, unsigned i, const struct env_db_result *r);
void tables_end(struct tables *t);

/* Whether a column is sure to take a value, whatever else is in its row. */
bool column_takes_int(const struct table_column *c, int64_t v);
bool column_takes_text(const struct table_column *c, const char *text, size_t n); /* valid UTF-8 */
