#include "dbwriter/shape.h"
#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "dbwriter/shape_private.h"

/* ---- reading a shape ------------------------------------------------------------------------------------------------ */

struct reader {
	const char *p;
	unsigned param; /* the next one */
	struct shape *s;
	uint64_t key_seen, cond_extra; /* columns of the primary key that were named; conditions beside them */
};

static void skip_spaces(struct reader *r)
{
	while (*r->p == ' ')
		r->p++;
}

static bool take(struct reader *r, const char *what)
{
	size_t n = strlen(what);
	skip_spaces(r);
	if (strncasecmp(r->p, what, n) || (isalpha((unsigned char)*what) && shape_class[(unsigned char)r->p[n]] >= 2))
		return false;
	r->p += n;
	return true;
}

static bool take_words(struct reader *r, const char *const *words)
{
	for (; *words; words++)
		if (!take(r, *words))
			return false;
	return true;
}

static bool take_name(struct reader *r, const char **name, size_t *n)
{
	skip_spaces(r);
	*name = r->p;
	while (shape_in_word(r->p, r->p + 1))
		r->p++;
	*n = (size_t)(r->p - *name);
	return *n && !isdigit((unsigned char)**name);
}

static bool take_table(struct reader *r, const struct tables *t)
{
	const char *name;
	size_t n;
	if (!take_name(r, &name, &n))
		return false;
	r->s->table = tables_find(t, name, n);
	return r->s->table;
}

static const struct table_column *take_column(struct reader *r)
{
	const char *name;
	size_t n;
	return take_name(r, &name, &n) ? table_column_find(r->s->table, name, n) : NULL;
}

static uint64_t bit(const struct shape *s, const struct table_column *c)
{
	return 1ull << (c - s->table->column);
}

/* Whether a value of the type, bound, does to the column what the literal would. */
static bool suits(const struct table_column *c, char type)
{
	switch (type) {
	case VALUE_NULL: return !c->not_null;
	case VALUE_INT: return c->kind == COLUMN_INT || c->kind == COLUMN_DOUBLE;
	case VALUE_DOUBLE: return c->kind == COLUMN_DOUBLE;
	case VALUE_BLOB: return c->bytes;
	default: return c->kind == COLUMN_TEXT || c->kind == COLUMN_OTHER;
	}
}

/* '?' for a column */
static bool take_param(struct reader *r, const struct table_column *c, enum shape_change change, unsigned *out)
{
	struct shape *s = r->s;
	if (!take(r, "?"))
		return false;
	*out = r->param++;
	s->param[*out] = (struct shape_param){ c, change };
	if (change == CHANGE_ADD || change == CHANGE_SUB)
		return (c->kind == COLUMN_INT && s->type[*out] == VALUE_INT) ||
		       (c->kind == COLUMN_DOUBLE && (s->type[*out] == VALUE_INT || s->type[*out] == VALUE_DOUBLE));
	return suits(c, s->type[*out]);
}

/* Of an upsert: where the column's inserted value stands. */
static unsigned inserted(const struct shape *s, const struct table_column *c)
{
	for (unsigned i = 0; i < s->params; i++)
		if (s->param[i].column == c && s->param[i].change == CHANGE_NONE)
			return i;
	return SHAPE_VALUES_MAX;
}

static bool take_term(struct reader *r, struct shape_set *set, unsigned depth, bool divides);

/*
 * Whole numbers that the row has or that are given, by + - * and %: nothing else than this row decides what it gives, and
 * to a database a value that is bound is what the literal is. No column that may be NULL: whether that is refused is no
 * matter of rows. By columns nothing is divided, for they may be 0.
 */
static bool take_work(struct reader *r, struct shape_set *set, unsigned depth)
{
	bool divides = false;
	for (;;) {
		if (!take_term(r, set, depth, divides))
			return false;
		divides = take(r, "%");
		if (!divides && !take(r, "+") && !take(r, "-") && !take(r, "*"))
			return true;
	}
}

/* What stands for itself by its bare name, and for a column of that name behind its table's, as a joined statement has it. */
static bool is_constant(const char *name)
{
	static const char *const words[] = { "default",           "true",           "false",
					     "localtime",         "localtimestamp", "current_date",
					     "utc_date",          "current_time",   "utc_time",
					     "current_timestamp", "utc_timestamp",  "current_user",
					     "current_role",      "rownum",         NULL };
	for (const char *const *word = words; *word; word++)
		if (!strcasecmp(name, *word))
			return true;
	return false;
}

static bool take_term(struct reader *r, struct shape_set *set, unsigned depth, bool divides)
{
	enum { DEPTH_MAX = 8 };
	struct shape *s = r->s;
	if (take(r, "?")) {
		unsigned param = r->param++;
		s->param[param] = (struct shape_param){ set->column, CHANGE_WORK };
		s->worked |= 1ull << param;
		s->divisors |= (uint64_t)divides << param;
		return s->type[param] == VALUE_INT;
	}
	if (divides)
		return false;
	if (take(r, "("))
		return depth < DEPTH_MAX && take_work(r, set, depth + 1) && take(r, ")");
	const struct table_column *c = take_column(r);
	if (!c || c->kind != COLUMN_INT || !c->not_null || is_constant(c->name))
		return false;
	set->reads |= bit(s, c);
	return true;
}

/* ?, column + ?, column - ? */
static bool take_simple(struct reader *r, struct shape_set *set)
{
	skip_spaces(r);
	if (*r->p != '?') {
		const struct table_column *again = take_column(r);
		set->change = take(r, "+") ? CHANGE_ADD : take(r, "-") ? CHANGE_SUB : CHANGE_NONE;
		if (again != set->column || set->change == CHANGE_NONE)
			return false;
	}
	return take_param(r, set->column, set->change, &set->param);
}

static bool goes_on(struct reader *r)
{
	skip_spaces(r);
	return *r->p && strchr("+-*%", *r->p);
}

static bool take_new_value(struct reader *r, struct shape_set *set)
{
	const struct reader before = *r;
	bool fine = take_simple(r, set);
	if (r->s->verb != SHAPE_UPDATE || (fine && !goes_on(r)))
		return fine;
	r->p = before.p;
	r->param = set->param = before.param;
	set->change = CHANGE_WORK;
	skip_spaces(r);
	set->work = r->p;
	fine = set->column->kind == COLUMN_INT && take_work(r, set, 0);
	set->work_end = r->p;
	while (set->work_end > set->work && set->work_end[-1] == ' ')
		set->work_end--;
	return fine;
}

/* column = ?, column = column + ?, column = VALUES(column), column = (column * ? + other) % ? */
static bool take_assignment(struct reader *r)
{
	struct shape *s = r->s;
	const struct table_column *c = take_column(r), *again;
	struct shape_set set = { .change = CHANGE_SET, .column = c };
	if (!c || !take(r, "=") || s->changes & bit(s, c))
		return false;
	s->changes |= bit(s, c);
	if (s->verb == SHAPE_UPSERT) {
		set.inserted = inserted(s, c);
		if (take(r, "VALUES")) {
			set.change = CHANGE_INSERT;
			set.param = set.inserted;
			again = take(r, "(") ? take_column(r) : NULL;
			s->set[s->sets++] = set;
			return again == c && set.inserted < SHAPE_VALUES_MAX && take(r, ")");
		}
	}
	bool fine = take_new_value(r, &set);
	s->set[s->sets++] = set;
	return fine;
}

static bool take_assignments(struct reader *r)
{
	do
		if (!take_assignment(r))
			return false;
	while (take(r, ","));
	return true;
}

/* What reads a column that is assigned beside it would see its old or its new value, as a database likes. */
static bool reads_apart(const struct shape *s)
{
	for (unsigned i = 0; i < s->sets; i++)
		if (s->set[i].reads & s->changes & ~bit(s, s->set[i].column))
			return false;
	return true;
}

/* Whole numbers may also be more or less than a value. */
static bool take_comparison(struct reader *r, const struct table_column *c, bool *equal)
{
	*equal = take(r, "=");
	return *equal || (c->kind == COLUMN_INT && (take(r, "<=") || take(r, ">=") || take(r, "<") || take(r, ">")));
}

/* column = ? AND … up to the end */
static bool take_conditions(struct reader *r)
{
	struct shape *s = r->s;
	do {
		const struct table_column *c = take_column(r);
		unsigned param;
		bool equal;
		if (!c || !take_comparison(r, c, &equal) || !take_param(r, c, CHANGE_NONE, &param) ||
		    s->type[param] == VALUE_NULL || s->type[param] == VALUE_DOUBLE || c->kind == COLUMN_DOUBLE ||
		    c->kind == COLUMN_OTHER)
			return false;
		unsigned k = 0;
		while (k < s->table->key_n && &s->table->column[s->table->key[k]] != c)
			k++;
		if (equal && k < s->table->key_n && !(r->key_seen & 1u << k)) {
			s->key[k] = param;
			r->key_seen |= 1u << k;
		} else {
			r->cond_extra++;
		}
	} while (take(r, "AND"));
	skip_spaces(r);
	return !*r->p;
}

/* (column, …) VALUES (?, …) */
static bool take_row(struct reader *r)
{
	struct shape *s = r->s;
	const struct table_column *c[SHAPE_VALUES_MAX];
	unsigned n = 0, param;
	if (!take(r, "("))
		return false;
	do
		if (n == SHAPE_VALUES_MAX || !(c[n++] = take_column(r)))
			return false;
	while (take(r, ","));
	if (!take(r, ")") || !take(r, "VALUES"))
		return false;
	skip_spaces(r);
	s->columns = r->p;
	for (unsigned i = 0; i < n; i++) {
		if (!take(r, i ? "," : "(") || !take_param(r, c[i], CHANGE_NONE, &param))
			return false;
		for (unsigned k = 0; k < s->table->key_n; k++)
			if (&s->table->column[s->table->key[k]] == c[i]) {
				s->key[k] = param;
				r->key_seen |= 1u << k;
			}
	}
	return take(r, ")");
}

static bool take_upsert(struct reader *r)
{
	static const char *const words[] = { "ON", "DUPLICATE", "KEY", "UPDATE", NULL };
	skip_spaces(r);
	if (!*r->p)
		return true;
	if (r->s->verb != SHAPE_INSERT || !take_words(r, words))
		return false;
	r->s->verb = SHAPE_UPSERT;
	if (!take_assignments(r))
		return false;
	skip_spaces(r);
	return !*r->p;
}

static bool read_shape(struct reader *r, const struct tables *t)
{
	struct shape *s = r->s;
	if (take(r, "UPDATE")) {
		s->verb = SHAPE_UPDATE;
		return take_table(r, t) && take(r, "SET") && take_assignments(r) && reads_apart(s) &&
		       take(r, "WHERE") && take_conditions(r);
	}
	if (take(r, "DELETE")) {
		s->verb = SHAPE_DELETE;
		return take(r, "FROM") && take_table(r, t) && take(r, "WHERE") && take_conditions(r);
	}
	s->verb = take(r, "REPLACE") ? SHAPE_REPLACE : SHAPE_INSERT;
	return (s->verb == SHAPE_REPLACE || take(r, "INSERT")) && take(r, "INTO") && take_table(r, t) && take_row(r) &&
	       take_upsert(r);
}

/* ---- what it does ------------------------------------------------------------------------------------------------ */

static uint64_t unique_columns(const struct table *t)
{
	uint64_t bits = 0;
	for (unsigned i = 0; i < t->columns; i++)
		bits |= (uint64_t)t->column[i].unique << i;
	return bits;
}

/* Every column of the key was named, by values that are equal exactly when their rows are. */
static bool names_row(const struct shape *s, const struct reader *r)
{
	if (r->key_seen != (1u << s->table->key_n) - 1)
		return false;
	for (unsigned k = 0; k < s->table->key_n; k++) {
		const struct table_column *c = s->param[s->key[k]].column;
		char type = s->type[s->key[k]];
		if (!(c->kind == COLUMN_INT && type == VALUE_INT) &&
		    !(c->kind == COLUMN_TEXT && c->exact_but_spaces && type == VALUE_TEXT))
			return false;
	}
	return true;
}

/* Sums can be put together where that is exact. */
static bool sums_whole(const struct shape *s)
{
	for (unsigned i = 0; i < s->sets; i++) {
		const struct shape_set *set = &s->set[i];
		bool adds = set->change == CHANGE_ADD || set->change == CHANGE_SUB;
		if (set->change == CHANGE_WORK)
			return false;
		if (adds && s->param[set->param].column->kind != COLUMN_INT)
			return false;
		if (adds && s->verb == SHAPE_UPSERT &&
		    (set->inserted == SHAPE_VALUES_MAX || s->type[set->inserted] != VALUE_INT))
			return false;
		if (set->change == CHANGE_SET && s->verb == SHAPE_UPSERT && set->inserted < SHAPE_VALUES_MAX &&
		    s->type[set->inserted] != s->type[set->param])
			return false; /* one cannot take the other's place */
		if (s->verb == SHAPE_UPSERT && set->inserted == SHAPE_VALUES_MAX)
			return false; /* of a row that is not there yet it would be lost */
	}
	return true;
}

static void joins_forget(struct shape *s)
{
	free(s->join[0]);
	free(s->join[1]);
	s->join[0] = s->join[1] = NULL;
}

/* What is worked out, by the columns of the table and of the values' rows. */
static void add_work(struct buf *b, const struct shape *s, const struct shape_set *set)
{
	unsigned param = set->param;
	for (const char *p = set->work; p < set->work_end; p++) {
		if (*p == '?') {
			buf_addf(b, "v.p%u", param++);
			continue;
		}
		if (shape_in_word(p, set->work_end) && (p == set->work || !shape_in_word(p - 1, p)))
			buf_addf(b, "%s.", s->table->name);
		buf_addch(b, *p);
	}
}

/*
 * An UPDATE costs a database much more than its row does, and arrays do not spare it that (MariaDB opens, plans and closes
 * for each). So rows of numbers are joined to the table: UPDATE JSON_TABLE('[[5,7],…]' …) AS v STRAIGHT_JOIN role ON …
 */
static void make_join(struct shape *s)
{
	struct buf b = BUF_INIT;
	const char *table = s->table->name;
	for (unsigned i = 0; i < s->params; i++)
		if (s->type[i] != VALUE_INT && s->type[i] != VALUE_DOUBLE)
			return;
	buf_addstr(&b, "]', '$[*]' COLUMNS (");
	for (unsigned i = 0; i < s->params; i++)
		buf_addf(&b, "%sp%u %s PATH '$[%u]'", i ? ", " : "", i, s->type[i] == VALUE_INT ? "BIGINT" : "DOUBLE",
			 i);
	buf_addf(&b, ")) AS v STRAIGHT_JOIN %s ON ", table);
	for (unsigned k = 0; k < s->table->key_n; k++)
		buf_addf(&b, "%s%s.%s = v.p%u", k ? " AND " : "", table, s->param[s->key[k]].column->name, s->key[k]);
	buf_addstr(&b, " SET ");
	for (unsigned i = 0; i < s->sets; i++) {
		const struct shape_set *set = &s->set[i];
		const char *name = set->column->name;
		buf_addf(&b, "%s%s.%s = ", i ? ", " : "", table, name);
		if (set->change == CHANGE_WORK) {
			add_work(&b, s, set);
			continue;
		}
		if (set->change != CHANGE_SET)
			buf_addf(&b, "%s.%s %c ", table, name, set->change == CHANGE_ADD ? '+' : '-');
		buf_addf(&b, "v.p%u", set->param);
	}
	s->join[0] = strdup("UPDATE JSON_TABLE('[");
	s->join[1] = strdup(buf_cstr(&b));
	assert(s->join[0] && s->join[1]);
	buf_release(&b);
}

void shape_resolve(struct shape *s, const struct tables *t)
{
	joins_forget(s);
	struct reader r = { .p = s->sql, .s = s };
	s->reach = SHAPE_ANYTHING;
	s->table = NULL;
	s->folds = false;
	s->sets = 0;
	s->changes = s->worked = s->divisors = 0;
	s->columns = NULL;
	if (!read_shape(&r, t) || r.param != s->params || s->table->entangled)
		return;
	bool makes_rows = s->verb != SHAPE_UPDATE && s->verb != SHAPE_DELETE;
	bool meets_others = (makes_rows && s->table->other_keys) || s->changes & unique_columns(s->table);
	s->reach = names_row(s, &r) && !meets_others ? SHAPE_ROW : SHAPE_TABLE;
	s->folds = s->reach == SHAPE_ROW && !s->table->watched && !r.cond_extra && s->verb != SHAPE_INSERT &&
		   sums_whole(s);
	if (s->verb == SHAPE_UPDATE && s->reach == SHAPE_ROW && !r.cond_extra)
		make_join(s);
}

/* The words before, between and behind the values. */
static void find_pieces(struct shape *s)
{
	size_t from = 0;
	unsigned n = 0;
	char last = 0;
	for (size_t i = 0; i < s->text_bytes; i++) {
		char c = s->text[i];
		if (c != '?') {
			last = c == ' ' ? last : shape_class[(unsigned char)c] > 1 ? 'a' : c;
			continue;
		}
		/* what may be a sign belongs to neither side for sure */
		s->no_like |= s->text[i + 1] == VALUE_NULL || (i > from && s->text[i - 1] == '-');
		s->piece[n++] = (struct shape_piece){ (uint32_t)from, (uint32_t)(i - from), last };
		last = '?';
		from = ++i + 1;
	}
	s->piece[n] = (struct shape_piece){ (uint32_t)from, (uint32_t)(s->text_bytes - from), last };
}

struct shape *shape_new(const struct split *split)
{
	struct shape *s = calloc(1, sizeof *s);
	assert(s);
	s->text_bytes = split->text.len;
	s->text = malloc(s->text_bytes + 1);
	s->sql = malloc(s->text_bytes + 1);
	assert(s->text && s->sql);
	memcpy(s->text, split->text.data, s->text_bytes);
	char *o = s->sql;
	for (size_t i = 0; i < s->text_bytes; i++) {
		*o++ = s->text[i];
		if (s->text[i] == '?')
			s->type[s->params++] = s->text[++i];
	}
	*o = '\0';
	s->sql_bytes = (size_t)(o - s->sql);
	find_pieces(s);
	return s;
}

void shape_free(struct shape *s)
{
	if (!s)
		return;
	joins_forget(s);
	free(s->text);
	free(s->sql);
	free(s);
}
