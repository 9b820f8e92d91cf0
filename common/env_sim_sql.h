#pragma once
#include <setjmp.h>
#include "common/env_sim_private.h"
/*
 * The table store that stands in for MariaDB: what its parts share.
 *
 *   env_sim_sql.c    words and expressions      env_sim_sql_stmt.c  statements
 *   env_sim_expr.c   values of expressions      env_sim_table.c     rows, keys, transactions
 *   env_sim_schema.c information_schema
 *   env_sim_db.c     executing statements       env_sim_dbconn.c    connections, env_db_*
 *
 * Errors are MariaDB's numbers. Reading sees what is committed and one's own changes; a row somebody else has changed
 * or locked makes a writer wait, until the other's transaction ends, a deadlock is found or the time is up.
 *
 * Threads: the simulation's one.
 */

/* ---- memory of one query ------------------------------------------------------------------------------------ */

struct arena {
	struct arena_chunk *chunks;
	char *at, *end;
};
void *arena_alloc(struct arena *a, size_t n); /* zeroed */
void arena_release(struct arena *a);

/* ---- values ---------------------------------------------------------------------------------------------------- */

enum cell_type { CELL_NULL, CELL_INT, CELL_DOUBLE, CELL_TEXT };
struct cell {
	enum cell_type type;
	int64_t i;
	double d;
	const char *p; /* NUL-ended as well */
	size_t n;
};
int cell_compare(const struct cell *a, const struct cell *b); /* neither NULL; as SQL compares */
bool cell_same(const struct cell *a, const struct cell *b);   /* same stored value, NULL included */
double cell_number(const struct cell *c);
void cell_text(struct arena *a, const struct cell *c, const char **p, size_t *n);

/* ---- expressions -------------------------------------------------------------------------------------------------- */

enum expr_kind {
	EXPR_LITERAL,
	EXPR_COLUMN,
	EXPR_VALUES, /* VALUES(col): what the INSERT would have stored */
	EXPR_UNARY,
	EXPR_BINARY,
	EXPR_IN,
	EXPR_BETWEEN,
	EXPR_IS_NULL,
	EXPR_LIKE,
	EXPR_CALL,
	EXPR_CASE,
	EXPR_STAR,
};
struct expr {
	enum expr_kind kind;
	char op[10];  /* "+" "AND" "<=" "NOT" …; a call's name in capitals */
	bool negated; /* NOT IN, IS NOT NULL … */
	struct cell literal;
	const char *column;
	struct expr **args;
	unsigned n;
};

struct sql_error {
	unsigned code;
	char message[256];
};

/* ---- statements ----------------------------------------------------------------------------------------------------- */

enum statement_kind {
	SQL_NOTHING,
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_CREATE,
	SQL_DROP,
	SQL_TRUNCATE,
	SQL_ADD_COLUMN,
	SQL_INSERT,
	SQL_UPDATE,
	SQL_DELETE,
	SQL_SELECT,
};
struct assignment {
	struct assignment *next;
	const char *column;
	struct expr *value;
};
struct order {
	struct order *next;
	struct expr *by;
	bool down;
};
struct select_item {
	struct select_item *next;
	struct expr *value; /* EXPR_STAR: all columns */
	const char *alias;
};
struct insert_row {
	struct insert_row *next;
	struct expr **values; /* NULL entry: DEFAULT */
	unsigned n;
};
struct statement {
	enum statement_kind kind;
	const char *table;
	bool if_exists, ignore, replace, for_update;
	struct table *made;    /* CREATE: lives on in the database */
	struct column *column; /* ADD COLUMN */
	const char **columns;  /* of an INSERT; NULL: all */
	unsigned columns_n;
	struct insert_row *rows;
	struct assignment *set; /* UPDATE, or ON DUPLICATE KEY UPDATE */
	struct select_item *items;
	struct expr *where;
	struct order *order;
	int64_t limit, offset; /* limit -1: none */
};

struct parser {
	struct arena *arena;
	const char *at, *end;
	int token;        /* the current one: see env_sim_sql.c */
	const char *word; /* identifier or string */
	size_t word_n;
	struct cell number;
	const char *token_at;
	struct sql_error *error;
	jmp_buf bad;
};
enum { T_END, T_WORD, T_QUOTED, T_STRING, T_NUMBER, T_OP };

void parser_init(struct parser *p, struct arena *a, const char *sql, size_t n, struct sql_error *error);
/* One statement, up to its ';'. 1: *out is filled, 0: the text is over, -1: error. */
int parse_statement(struct parser *p, struct statement *out);

void parser_next(struct parser *p);
bool parser_is(const struct parser *p, const char *word); /* keyword or operator */
bool parser_take(struct parser *p, const char *word);     /* and goes on */
void parser_need(struct parser *p, const char *word);
const char *parser_name(struct parser *p);
struct expr *parse_expr(struct parser *p);
__attribute__((noreturn)) void parser_fail(struct parser *p, const char *why); /* why NULL: the usual words */

/* ---- tables --------------------------------------------------------------------------------------------------------------- */

enum column_type { COLUMN_INT, COLUMN_DOUBLE, COLUMN_TEXT, COLUMN_BLOB };
struct column {
	struct column *next;
	char *name;
	enum column_type type;
	int64_t min, max; /* integers */
	size_t max_chars; /* text: characters; blobs: bytes */
	bool not_null, auto_increment;
	struct expr *fallback; /* DEFAULT; NULL: none */
	unsigned index;
};
struct key {
	struct key *next;
	char *name;
	unsigned columns[8], n;
	struct key_entry **buckets;
	size_t buckets_n, entries;
};
struct check {
	struct check *next;
	char *name;
	struct expr *expr;
};
struct row {
	struct row *next, **prev;
	struct table *table;
	uint64_t serial;
	struct cell *committed; /* NULL: does not exist for others */
	struct cell *pending;   /* valid if changed; NULL: deleted */
	bool changed;
	struct txn *owner; /* holds it locked */
};
struct table {
	struct table *next;
	char *name;
	struct column *columns, **columns_last;
	unsigned columns_n;
	struct key *keys,
		**keys_last; /* unique ones, the primary first; an index that is not unique makes no difference */
	struct check *checks;
	struct row *rows;
	uint64_t serial_next;
	int64_t auto_next;
	struct arena arena; /* of its definition */
};

struct undo {
	struct row *row;
	struct cell *pending; /* what it was before */
	bool changed, locked; /* locked: this entry took the lock */
};
struct txn {
	struct txn *next; /* open ones */
	bool open;        /* BEGIN was said */
	struct undo *log;
	size_t n, cap;
	struct txn *waits_for;
	int64_t last_id;
};

#define SQL_WAIT 1u /* no error number: the statement must be repeated when another's transaction has ended */

struct table *table_new(void);
struct column *table_column(const struct table *t, const char *name); /* NULL: none */
struct key *table_key_add(struct table *t, const char *name);
const struct cell *row_seen(const struct row *r, const struct txn *x); /* NULL: not there for x */
struct row *table_insert(struct table *t, struct txn *x, const struct cell *cells);
void row_change(struct row *r, struct txn *x, const struct cell *cells); /* NULL: deletes it */
void row_lock(struct row *r, struct txn *x);
/* A row that has the same key as cells for x, other than except: *found. SQL_WAIT if that depends on somebody else. */
unsigned table_conflict(struct table *t, struct txn *x, const struct cell *cells, const struct row *except,
			struct row **found, struct key **key);
/* The rows that may have these values in the key's columns: calls fn for each. */
void key_each(struct key *k, const struct cell *values, void (*fn)(void *arg, struct row *r), void *arg);
void txn_revert(struct txn *x, size_t to); /* undoes the log's entries above to */
void txn_commit(struct txn *x);
void txn_rollback(struct txn *x);

/* ---- evaluating -------------------------------------------------------------------------------------------------------------- */

struct scope {
	struct db *db;
	struct txn *txn;
	struct arena *arena;
	const struct table *table;
	const struct cell *row;    /* columns' values */
	const struct cell *values; /* for VALUES(col) */
	struct row **group;        /* aggregates look at these */
	size_t group_n;
	const char *clause;      /* for messages: "where clause" */
	struct sql_error *error; /* code 0: none yet */
};
struct cell eval(struct scope *s, const struct expr *e); /* NULL cell when s->error is set */
bool eval_true(struct scope *s, const struct expr *e);
bool expr_has_aggregate(const struct expr *e);
void sql_fail(struct sql_error *e, unsigned code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
unsigned column_store(struct scope *s, const struct column *c,
		      struct cell *value); /* converts and checks; 0 or the error */

/* ---- the database ------------------------------------------------------------------------------------------------------------- */

struct result {
	struct arena arena;
	struct sql_error error; /* code 0: none */
	unsigned failed_at;
	uint64_t affected;
	unsigned rows, columns;
	const char **cells;
	size_t *cell_bytes;
	struct env_db_column *column;
};
struct db {
	struct sim *w;
	struct table *tables;
	struct env_db *sessions;
	bool down, hold;
	uint64_t ends;      /* of transactions that held locks */
	struct txn outside; /* of sim_db_run */
	struct sql_error outside_error;
};
/* A table of information_schema, made for this query; NULL: none of that name. */
struct table *schema_table(const struct db *db, struct arena *a, const char *name);
/*
 * Executes statements from *at on (a position in sql, moved behind each that is done). Returns 0 when all are done,
 * the error number, or SQL_WAIT: call again later. Results of earlier statements are replaced by later ones.
 */
unsigned db_execute(struct db *db, struct txn *x, const char *sql, size_t n, size_t *at, struct result *r);
