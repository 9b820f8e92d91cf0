#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "dbwriter/tables.h"
/*
 * shape: a statement without its values. The writer's SQL is canonical, so equal statements differ in their literals
 * alone: "UPDATE role SET gold = gold - 5 WHERE id = 7" is the shape "UPDATE role SET gold = gold - ? WHERE id = ?" and
 * the values 5 and 7. What is not surely understood is no shape, and stays text.
 *
 * Threads: owner only. Memory: values point into the statement, or, where it was escaped, into the buffer given.
 */
enum value_type { VALUE_NULL = 'n', VALUE_INT = 'i', VALUE_DOUBLE = 'd', VALUE_TEXT = 't', VALUE_BLOB = 'b' };
struct value {
	enum value_type type;
	union {
		int64_t i;
		double d;
		struct {
			const char *p;
			size_t n;
		} s; /* of texts and blobs */
	};
};
static inline bool value_is_bytes(enum value_type type)
{
	return type == VALUE_TEXT || type == VALUE_BLOB;
}
#define SHAPE_VALUES_MAX 48
struct split {
	struct buf text; /* the statement, each literal a '?' and the letter of its type */
	struct buf unescaped;
	struct value value[SHAPE_VALUES_MAX];
	unsigned n;
	uint64_t escaped; /* a bit for each value that is in unescaped */
};
void split_release(struct split *s);
/* One statement without its ';'. False: it has something that is not understood. */
bool split_statement(struct split *s, const char *statement, size_t n);

/* The same for a statement that is like one split before, faster; false: it is not, and nothing is said about it. */
struct shape;
bool split_like(struct split *s, const struct shape *like, const char *statement, size_t n);

/* ---- what a shape does ----------------------------------------------------------------------------------------- */

enum shape_verb { SHAPE_UPDATE, SHAPE_REPLACE, SHAPE_INSERT, SHAPE_UPSERT, SHAPE_DELETE };
enum shape_reach {
	SHAPE_ANYTHING, /* not known: everything before it comes first, everything behind it later */
	SHAPE_TABLE,    /* any rows of its table */
	SHAPE_ROW       /* the one row its key values name */
};
enum shape_change {
	CHANGE_NONE,   /* a value of the row that is inserted, or of a condition */
	CHANGE_SET,    /* column = ? */
	CHANGE_ADD,    /* column = column + ? */
	CHANGE_SUB,    /* column = column - ? */
	CHANGE_INSERT, /* column = VALUES(column): no value of its own; of an upsert */
	CHANGE_WORK    /* column = what is worked out from whole numbers, of this row and given; of an UPDATE */
};
struct shape_param {
	const struct table_column *column;
	enum shape_change change;
};
struct shape_set { /* an assignment */
	const struct table_column *column;
	unsigned param;    /* of the assignment, the first one; CHANGE_INSERT: the inserted value */
	unsigned inserted; /* of an upsert: the inserted value of the same column; SHAPE_VALUES_MAX: none */
	enum shape_change change;
	const char *work; /* CHANGE_WORK: in sql, to work_end */
	const char *work_end;
	uint64_t reads; /* columns it is worked out from, a bit each */
};
struct shape_piece { /* of its text, up to a value or the end */
	uint32_t at, bytes;
	char last; /* the last of it that is no space, 'a' for a word's; 0: none */
};
struct shape {
	char *text; /* as split; the shape's name */
	size_t text_bytes;
	struct shape_piece piece[SHAPE_VALUES_MAX + 1];
	bool no_like; /* split_like is not for it */
	char *sql;    /* with plain '?' */
	size_t sql_bytes;
	char type[SHAPE_VALUES_MAX + 1];
	unsigned params;
	/* by the tables */
	enum shape_verb verb;
	enum shape_reach reach;
	const struct table *table;
	struct shape_param param[SHAPE_VALUES_MAX];
	unsigned key[TABLE_KEY_MAX]; /* the params that name the row, in the order of the table's key */
	struct shape_set set[SHAPE_VALUES_MAX];
	unsigned sets;
	uint64_t changes; /* columns it assigns, a bit each; of an UPDATE */
	/* params of a CHANGE_WORK, a bit each; of them those behind a '%', which must not be 0 */
	uint64_t worked, divisors;
	bool folds;    /* two of them for one row may become one, if their values allow */
	char *join[2]; /* of an UPDATE of rows by numbers: the same for many rows at once, before and behind them */
	const char *columns; /* of INSERT and REPLACE: where in sql the first "(?" of the values begins */
};
/* A shape of a split statement; its meaning is that of SHAPE_ANYTHING until shape_resolve. */
struct shape *shape_new(const struct split *s);
void shape_free(struct shape *s);
/* What it does, by what is known of the tables, which must not change while it is used. */
void shape_resolve(struct shape *s, const struct tables *t);
