#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include "common/env_sim_sql.h"
/*
 * Values of expressions, and what a column makes of a value.
 */

void sql_fail(struct sql_error *e, unsigned code, const char *fmt, ...)
{
	va_list ap;
	if (e->code)
		return; /* the first one counts */
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof(e->message), fmt, ap);
	va_end(ap);
}

/* ---- cells ---------------------------------------------------------------------------------------------------- */

static const struct cell null_cell = { .type = CELL_NULL };

static struct cell of_int(int64_t i)
{
	return (struct cell){ .type = CELL_INT, .i = i };
}
static struct cell of_double(double d)
{
	return (struct cell){ .type = CELL_DOUBLE, .d = d };
}

double cell_number(const struct cell *c)
{
	switch (c->type) {
	case CELL_INT: return (double)c->i;
	case CELL_DOUBLE: return c->d;
	case CELL_TEXT: return strtod(c->p, NULL);
	default: return 0;
	}
}

static int order(double a, double b)
{
	return (a > b) - (a < b);
}

int cell_compare(const struct cell *a, const struct cell *b)
{
	if (a->type == CELL_TEXT && b->type == CELL_TEXT) {
		int way = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
		return way ? way : (a->n > b->n) - (a->n < b->n);
	}
	if (a->type == CELL_INT && b->type == CELL_INT)
		return (a->i > b->i) - (a->i < b->i);
	return order(cell_number(a), cell_number(b));
}

bool cell_same(const struct cell *a, const struct cell *b)
{
	if (a->type != b->type)
		return false;
	return a->type == CELL_NULL || cell_compare(a, b) == 0;
}

/* The shortest text that is the same number again, as MariaDB shows doubles. */
static int double_text(double d, char *out, size_t size)
{
	int n = 0;
	for (int digits = 1; digits <= 17; digits++) {
		n = snprintf(out, size, "%.*g", digits, d);
		if (strtod(out, NULL) == d)
			break;
	}
	if (fabs(d) < 1e15 && fabs(d) >= 1 && strchr(out, 'e'))
		n = snprintf(out, size, "%.0f", d);
	return n;
}

void cell_text(struct arena *a, const struct cell *c, const char **p, size_t *n)
{
	char text[48];
	int len = 0;
	*p = NULL;
	*n = 0;
	if (c->type == CELL_NULL)
		return;
	if (c->type == CELL_INT)
		len = snprintf(text, sizeof(text), "%lld", (long long)c->i);
	else if (c->type == CELL_DOUBLE)
		len = double_text(c->d, text, sizeof(text));
	*n = c->type == CELL_TEXT ? c->n : (size_t)len;
	char *to = arena_alloc(a, *n + 1);
	memcpy(to, c->type == CELL_TEXT ? c->p : text, *n);
	*p = to;
}

/* ---- operators ---------------------------------------------------------------------------------------------------- */

static struct cell arithmetic(struct scope *s, char op, const struct cell *a, const struct cell *b)
{
	int64_t i;
	bool overflow;
	if (a->type != CELL_INT || b->type != CELL_INT || op == '/') {
		double x = cell_number(a), y = cell_number(b);
		if ((op == '/' || op == '%') && y == 0)
			return null_cell;
		return of_double(op == '+'   ? x + y
				 : op == '-' ? x - y
				 : op == '*' ? x * y
				 : op == '/' ? x / y
					     : fmod(x, y));
	}
	if (op == '%')
		return b->i == 0 ? null_cell : of_int(b->i == -1 ? 0 : a->i % b->i);
	overflow = op == '+'   ? __builtin_add_overflow(a->i, b->i, &i)
		   : op == '-' ? __builtin_sub_overflow(a->i, b->i, &i)
			       : __builtin_mul_overflow(a->i, b->i, &i);
	if (!overflow)
		return of_int(i);
	sql_fail(s->error, 1690, "BIGINT value is out of range in '%lld %c %lld'", (long long)a->i, op,
		 (long long)b->i);
	return null_cell;
}

static struct cell compared(const char *op, int way)
{
	bool less = op[0] == '<', equal = op[strlen(op) - 1] == '=', greater = op[0] == '>';
	if (strcmp(op, "<>") == 0)
		return of_int(way != 0);
	return of_int((way < 0 && less) || (way == 0 && equal) || (way > 0 && greater));
}

static struct cell logic(struct scope *s, const struct expr *e)
{
	bool is_and = strcmp(e->op, "AND") == 0;
	struct cell a = eval(s, e->args[0]);
	if (a.type != CELL_NULL && (cell_number(&a) != 0) != is_and)
		return of_int(!is_and);
	struct cell b = eval(s, e->args[1]);
	if (b.type != CELL_NULL && (cell_number(&b) != 0) != is_and)
		return of_int(!is_and);
	return a.type == CELL_NULL || b.type == CELL_NULL ? null_cell : of_int(is_and);
}

static struct cell binary(struct scope *s, const struct expr *e)
{
	if (strcmp(e->op, "AND") == 0 || strcmp(e->op, "OR") == 0)
		return logic(s, e);
	struct cell a = eval(s, e->args[0]), b = eval(s, e->args[1]);
	if (strcmp(e->op, "<=>") == 0)
		return of_int(a.type == CELL_NULL || b.type == CELL_NULL ? a.type == b.type
									 : cell_compare(&a, &b) == 0);
	if (a.type == CELL_NULL || b.type == CELL_NULL)
		return null_cell;
	if (strchr("<>=", e->op[0]))
		return compared(e->op, cell_compare(&a, &b));
	if (strcmp(e->op, "DIV") == 0) {
		struct cell q = arithmetic(s, '/', &a, &b);
		return q.type == CELL_NULL                        ? q
		       : a.type == CELL_INT && b.type == CELL_INT ? of_int(a.i / b.i)
								  : of_int((int64_t)q.d);
	}
	return arithmetic(s, e->op[0], &a, &b);
}

static struct cell unary(struct scope *s, const struct expr *e)
{
	struct cell a = eval(s, e->args[0]);
	if (a.type == CELL_NULL)
		return a;
	if (strcmp(e->op, "NOT") == 0)
		return of_int(cell_number(&a) == 0);
	if (a.type == CELL_INT)
		return of_int((int64_t)(0 - (uint64_t)a.i));
	return of_double(-cell_number(&a));
}

static bool like(const char *p, const char *pe, const char *t, const char *te)
{
	for (; p < pe; p++, t++) {
		if (*p == '%') {
			for (p++; t <= te; t++)
				if (like(p, pe, t, te))
					return true;
			return false;
		}
		if (t >= te)
			return false;
		if (*p == '\\' && p + 1 < pe)
			p++;
		else if (*p == '_')
			continue;
		if (*p != *t)
			return false;
	}
	return t == te;
}

static struct cell in(struct scope *s, const struct expr *e)
{
	struct cell a = eval(s, e->args[0]);
	bool unknown = false;
	if (a.type == CELL_NULL)
		return a;
	for (unsigned i = 1; i < e->n; i++) {
		struct cell b = eval(s, e->args[i]);
		unknown |= b.type == CELL_NULL;
		if (b.type != CELL_NULL && cell_compare(&a, &b) == 0)
			return of_int(!e->negated);
	}
	return unknown ? null_cell : of_int(e->negated);
}

static struct cell between(struct scope *s, const struct expr *e)
{
	struct cell a = eval(s, e->args[0]), low = eval(s, e->args[1]), high = eval(s, e->args[2]);
	if (a.type == CELL_NULL || low.type == CELL_NULL || high.type == CELL_NULL)
		return null_cell;
	return of_int((cell_compare(&a, &low) >= 0 && cell_compare(&a, &high) <= 0) != e->negated);
}

/* ---- functions ----------------------------------------------------------------------------------------------------------- */

static bool is_aggregate(const struct expr *e)
{
	static const char *const names[] = { "COUNT", "SUM", "MAX", "MIN", "AVG" };
	for (size_t i = 0; e->kind == EXPR_CALL && i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(e->op, names[i]) == 0)
			return true;
	return false;
}

bool expr_has_aggregate(const struct expr *e)
{
	if (is_aggregate(e))
		return true;
	for (unsigned i = 0; i < e->n; i++)
		if (expr_has_aggregate(e->args[i]))
			return true;
	return false;
}

static void gather(struct scope *s, const char *op, struct cell *sum, const struct cell *c)
{
	if (sum->type == CELL_NULL)
		*sum = *c;
	else if (strcmp(op, "MAX") == 0)
		*sum = cell_compare(c, sum) > 0 ? *c : *sum;
	else if (strcmp(op, "MIN") == 0)
		*sum = cell_compare(c, sum) < 0 ? *c : *sum;
	else
		*sum = arithmetic(s, '+', sum, c);
}

static struct cell aggregate(struct scope *s, const struct expr *e)
{
	struct scope one = *s;
	struct cell sum = null_cell;
	int64_t count = 0;
	one.group = NULL;
	for (size_t i = 0; i < s->group_n; i++) {
		one.row = row_seen(s->group[i], s->txn);
		struct cell c = e->n ? eval(&one, e->args[0]) : of_int(1);
		if (c.type == CELL_NULL)
			continue;
		count++;
		if (strcmp(e->op, "COUNT") != 0)
			gather(s, e->op, &sum, &c);
	}
	if (strcmp(e->op, "COUNT") == 0)
		return of_int(count);
	return strcmp(e->op, "AVG") == 0 && count ? of_double(cell_number(&sum) / (double)count) : sum;
}

static struct cell extreme(struct scope *s, const struct expr *e)
{
	struct cell best = null_cell;
	for (unsigned i = 0; i < e->n; i++) {
		struct cell c = eval(s, e->args[i]);
		if (c.type == CELL_NULL)
			return c;
		if (best.type == CELL_NULL || (cell_compare(&c, &best) > 0) == (e->op[0] == 'G'))
			best = c;
	}
	return best;
}

static struct cell now_text(struct scope *s)
{
	struct cell c = { .type = CELL_TEXT };
	uint64_t seconds = 1790000000 + s->db->w->now / 1000000000;
	time_t t = (time_t)seconds;
	struct tm tm;
	char text[32];
	gmtime_r(&t, &tm);
	c.n = strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	char *to = arena_alloc(s->arena, c.n + 1);
	memcpy(to, text, c.n);
	c.p = to;
	return c;
}

static struct cell joined(struct scope *s, const struct expr *e)
{
	struct cell c = { .type = CELL_TEXT };
	char *to = NULL;
	for (unsigned i = 0; i < e->n; i++) {
		struct cell part = eval(s, e->args[i]);
		const char *p;
		size_t n;
		if (part.type == CELL_NULL)
			return part;
		cell_text(s->arena, &part, &p, &n);
		char *longer = arena_alloc(s->arena, c.n + n + 1);
		memcpy(longer, to ? to : "", c.n);
		memcpy(longer + c.n, p, n);
		to = longer;
		c.n += n;
	}
	c.p = to ? to : "";
	return c;
}

static struct cell call(struct scope *s, const struct expr *e)
{
	struct cell a;
	if (is_aggregate(e)) {
		if (s->group)
			return aggregate(s, e);
		sql_fail(s->error, 1111, "Invalid use of group function");
		return null_cell;
	}
	if (strcmp(e->op, "GREATEST") == 0 || strcmp(e->op, "LEAST") == 0)
		return extreme(s, e);
	if (strcmp(e->op, "COALESCE") == 0 || strcmp(e->op, "IFNULL") == 0) {
		for (unsigned i = 0; i < e->n; i++)
			if ((a = eval(s, e->args[i])).type != CELL_NULL)
				return a;
		return null_cell;
	}
	if (strcmp(e->op, "IF") == 0 && e->n == 3)
		return eval(s, e->args[eval_true(s, e->args[0]) ? 1 : 2]);
	if (strcmp(e->op, "NOW") == 0)
		return now_text(s);
	if (strcmp(e->op, "UNIX") == 0 && e->n == 0)
		return of_int(1790000000 + (int64_t)(s->db->w->now / 1000000000));
	if (strcmp(e->op, "LAST_ID") == 0)
		return of_int(s->txn->last_id);
	if (strcmp(e->op, "CONCAT") == 0)
		return joined(s, e);
	if (strcmp(e->op, "VERSION") == 0 && e->n == 0)
		return (struct cell){ .type = CELL_TEXT, .p = "10.11-simulated", .n = 15 };
	if (strcmp(e->op, "DATABASE") == 0 && e->n == 0)
		return (struct cell){ .type = CELL_TEXT, .p = "loquat", .n = 6 };
	if (e->n == 1) {
		a = eval(s, e->args[0]);
		if (strcmp(e->op, "ABS") == 0)
			return a.type == CELL_INT    ? of_int(a.i < 0 ? -a.i : a.i)
			       : a.type == CELL_NULL ? a
						     : of_double(fabs(cell_number(&a)));
		if (strcmp(e->op, "LENGTH") == 0 && a.type == CELL_TEXT)
			return of_int((int64_t)a.n);
		if (strcmp(e->op, "FLOOR") == 0)
			return a.type == CELL_NULL || a.type == CELL_INT ? a : of_int((int64_t)floor(cell_number(&a)));
	}
	sql_fail(s->error, 1305, "FUNCTION %s does not exist", e->op);
	return null_cell;
}

/* ---- all of them ---------------------------------------------------------------------------------------------------------- */

static struct cell column(struct scope *s, const struct expr *e, const struct cell *cells)
{
	const struct column *c = s->table ? table_column(s->table, e->column) : NULL;
	if (c && cells)
		return cells[c->index];
	if (c && s->group_n)
		return row_seen(s->group[0], s->txn)[c->index];
	if (!c)
		sql_fail(s->error, 1054, "Unknown column '%s' in '%s'", e->column, s->clause);
	return null_cell;
}

static struct cell case_when(struct scope *s, const struct expr *e)
{
	unsigned i = 0;
	for (; i + 1 < e->n; i += 2)
		if (eval_true(s, e->args[i]))
			return eval(s, e->args[i + 1]);
	return i < e->n ? eval(s, e->args[i]) : null_cell;
}

struct cell eval(struct scope *s, const struct expr *e)
{
	struct cell a, b;
	if (s->error->code)
		return null_cell;
	switch (e->kind) {
	case EXPR_LITERAL: return e->literal;
	case EXPR_COLUMN: return column(s, e, s->row);
	case EXPR_VALUES: return column(s, e, s->values);
	case EXPR_UNARY: return unary(s, e);
	case EXPR_BINARY: return binary(s, e);
	case EXPR_IN: return in(s, e);
	case EXPR_BETWEEN: return between(s, e);
	case EXPR_IS_NULL: return of_int((eval(s, e->args[0]).type == CELL_NULL) != e->negated);
	case EXPR_CALL: return call(s, e);
	case EXPR_CASE: return case_when(s, e);
	case EXPR_LIKE:
		a = eval(s, e->args[0]);
		b = eval(s, e->args[1]);
		if (a.type != CELL_TEXT || b.type != CELL_TEXT)
			return null_cell;
		return of_int(like(b.p, b.p + b.n, a.p, a.p + a.n) != e->negated);
	default: return null_cell;
	}
}

bool eval_true(struct scope *s, const struct expr *e)
{
	struct cell c = eval(s, e);
	return c.type != CELL_NULL && cell_number(&c) != 0;
}

/* ---- storing ------------------------------------------------------------------------------------------------------------------- */

static size_t characters(const struct cell *c)
{
	size_t n = 0;
	for (size_t i = 0; i < c->n; i++)
		n += (c->p[i] & 0xC0) != 0x80;
	return n;
}

static unsigned store_int(struct scope *s, const struct column *c, struct cell *v)
{
	char *end;
	if (v->type == CELL_TEXT) {
		double d = strtod(v->p, &end);
		if (end == v->p || *end)
			sql_fail(s->error, 1366, "Incorrect integer value: '%.60s' for column '%s'", v->p, c->name);
		*v = strpbrk(v->p, ".eE") ? of_double(d) : of_int(strtoll(v->p, NULL, 10));
	}
	if (v->type == CELL_DOUBLE) {
		if (!(v->d > -9.3e18 && v->d < 9.2e18))
			sql_fail(s->error, 1264, "Out of range value for column '%s'", c->name);
		else
			*v = of_int((int64_t)llround(v->d));
	}
	if (!s->error->code && (v->i < c->min || v->i > c->max))
		sql_fail(s->error, 1264, "Out of range value for column '%s'", c->name);
	return s->error->code;
}

static unsigned store_text(struct scope *s, const struct column *c, struct cell *v)
{
	if (v->type != CELL_TEXT) {
		cell_text(s->arena, v, &v->p, &v->n);
		v->type = CELL_TEXT;
	}
	if ((c->type == COLUMN_TEXT ? characters(v) : v->n) > c->max_chars)
		sql_fail(s->error, 1406, "Data too long for column '%s'", c->name);
	return s->error->code;
}

unsigned column_store(struct scope *s, const struct column *c, struct cell *v)
{
	if (s->error->code)
		return s->error->code;
	if (v->type == CELL_NULL) {
		if (c->not_null)
			sql_fail(s->error, 1048, "Column '%s' cannot be null", c->name);
		return s->error->code;
	}
	switch (c->type) {
	case COLUMN_INT: return store_int(s, c, v);
	case COLUMN_DOUBLE: *v = of_double(cell_number(v)); return 0;
	default: return store_text(s, c, v);
	}
}
