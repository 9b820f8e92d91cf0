#pragma once
#include "dbwriter/plan.h"
/*
 * plan_private: what plan.c (where a statement goes) and plan_fold.c (which of a row's statements become one) share.
 */
#define PLAN_NONE       UINT32_MAX
#define PLAN_SHAPES_MAX 512 /* known at a time */
#define PLAN_RECENT     8   /* shapes a statement is compared with first */
#define PLAN_WAVES      24  /* groups of one shape that are open at a time */
#define PLAN_LOOK_BACK  8   /* statements of one row that a new one is compared with */

struct op { /* a statement's place, and the one before it on the same row */
	uint32_t group, slot, before;
	uint32_t highest; /* of its group and of those of all before it on the row */
};
struct row { /* of the table of rows by key */
	uint64_t hash;
	const struct table *table;
	uint32_t op;    /* the latest */
	uint32_t epoch; /* another than the plan's: free */
};
struct chunk {
	struct chunk *next;
	size_t used, size;
	char data[];
};
struct known {
	struct shape *shape;
	uint64_t hash;
	uint32_t group[PLAN_WAVES]; /* of this plan, in order; those of a shape without joins are but one */
	unsigned groups;
};
struct place {               /* of a table: what orders its statements */
	uint32_t group_max;  /* the last group that has one */
	uint32_t whole;      /* the last group with a statement on any of its rows; PLAN_NONE */
	uint32_t ops_before; /* ops that were there when that came */
};

struct plan {
	const struct tables *tables;
	unsigned version; /* of the tables the shapes were resolved by */
	bool fold;
	bool ended; /* rows are not where their ops say any more */
	struct split split;
	struct known known[2 * PLAN_SHAPES_MAX]; /* by hash */
	unsigned shapes;
	struct known *recent[PLAN_RECENT];
	struct plan_group *group;
	unsigned groups, groups_capacity;
	uint32_t floor; /* groups before this one take nothing more */
	struct op *op;
	uint32_t ops, ops_capacity;
	struct row *row;
	uint32_t rows, rows_size; /* a power of two */
	uint32_t epoch;           /* grows when the rows are forgotten */
	struct place *place;
	unsigned places;
	struct chunk *chunks;
	struct plan_figures figures;
};

/* Stores a value of the statement in a slot; what was unescaped is kept. */
void plan_store(struct plan *p, struct plan_group *g, unsigned param, uint32_t slot);
/*
 * Looks back along the row's statements for one to fold into, as far as ours may go. False: none; *least is then the
 * group before which it may not stand.
 */
bool plan_folded(struct plan *p, const struct shape *s, const struct row *r, uint32_t *least);
