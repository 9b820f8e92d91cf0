#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/env.h"
#include "dbwriter/shape.h"
#include "dbwriter/tables.h"
/*
 * plan: the statements of one transaction, gathered by their shapes, so that each shape goes to the database once with
 * arrays of values. Pure.
 *
 * Order:   two statements change places only if neither can tell: they are of rows that differ by their primary keys, or of
 *          different tables, of which nothing hangs on the other (tables.h), or they assign other columns of one row by
 *          values of their own. Whatever is not understood stays where it is, as text. So a plan that the database takes
 *          leaves the rows as the statements one by one would; one it refuses is given up for those.
 * Folding: of several statements of one shape for one row the last alone is kept: assignments are superseded, inserted
 *          rows replaced, sums of one sign added up. Only where that is sure to be the same: each value that is dropped
 *          would have been taken by its column, the row's table has no checks, triggers or columns that note changes.
 *
 * Threads: owner only. Memory: values point into the statements, which must stay until plan_begin. A group takes about 2
 *          KiB; statements that cannot be gathered have one each, so there is a bound to their number: what would need one
 *          more stays text, in its place.
 */
struct plan;
struct plan *plan_new(void);
void plan_free(struct plan *p);
/* Forgets the last plan. t: must stay as it is until the next plan_begin. */
void plan_begin(struct plan *p, const struct tables *t, bool fold);
/* Statements as they stand in a record: one a line, "…;\n". */
void plan_add(struct plan *p, const char *statements, size_t n);

/* It has as many groups as it may: no further record is to be added. */
#define PLAN_GROUPS_MAX 2000 /* and one of the text behind them */
bool plan_full(const struct plan *p);

/* The last one was added: brings the rows of each statement into the order of their keys, which costs a database least. */
void plan_end(struct plan *p);

struct plan_column {
	enum value_type type;
	union { /* NULL for VALUE_NULL */
		int64_t *i;
		double *d;
		const char **text; /* and blobs */
	};
	size_t *bytes; /* texts and blobs */
};
struct plan_group {
	struct shape *shape; /* NULL: text */
	struct buf text;     /* statements with ";\n" behind each */
	unsigned rows, capacity;
	size_t bytes; /* of the values, about */
	struct plan_column column[SHAPE_VALUES_MAX];
};
void plan_group_sort(struct plan_group *g); /* of plan_end */

unsigned plan_groups(const struct plan *p);
const struct plan_group *plan_group(const struct plan *p, unsigned i);
/* Rows from on, at most rows_max and about bytes_max of values: how many; at least one. */
unsigned plan_slice(const struct plan_group *g, unsigned from, unsigned rows_max, size_t bytes_max);
/* The slice as arrays. column has SHAPE_VALUES_MAX places. */
void plan_bind(const struct plan_group *g, unsigned from, struct env_db_bind *column);
/* The slice as text, for a database that takes no arrays: rows of one INSERT or REPLACE in one statement. */
void plan_text(const struct plan_group *g, unsigned from, unsigned rows, struct buf *out);

/* … or, for a shape with joins, as one statement; no row of the group comes twice. */
void plan_join(const struct plan_group *g, unsigned from, unsigned rows, struct buf *out);

struct plan_figures {
	unsigned statements, folded, groups;
};
struct plan_figures plan_figures(const struct plan *p);
