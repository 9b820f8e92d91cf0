#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/sqllog.h"
#include "dbwriter/plan.h"
/*
 * The rows of a group: put in the order of their keys, and handed to the database as arrays, as text, or as one statement.
 */

#define SORT_ROWS_MIN 8 /* below it the sorting costs as much as it spares */

static void *need(void *p)
{
	assert(p);
	return p;
}

/* ---- in the order of their keys ---------------------------------------------------------------------------------- */

struct place_of { /* a row of a group, by its first two key values, their signs turned */
	uint64_t key[2];
	uint32_t slot;
};

/* By one byte of one key, which keeps what was in order before; bytes that are the same in all are passed over. */
static bool sort_by_byte(const struct place_of *from, struct place_of *to, unsigned n, unsigned key, unsigned shift)
{
	unsigned place[257] = { 0 };
	for (unsigned i = 0; i < n; i++)
		place[1 + (from[i].key[key] >> shift & 255)]++;
	if (place[1 + (from[0].key[key] >> shift & 255)] == n)
		return false;
	for (unsigned i = 1; i < 257; i++)
		place[i] += place[i - 1];
	for (unsigned i = 0; i < n; i++)
		to[place[from[i].key[key] >> shift & 255]++] = from[i];
	return true;
}

/* Sorts one of the two, using the other; returns which. */
static struct place_of *sort_places(struct place_of *a, struct place_of *b, unsigned n, unsigned keys)
{
	for (unsigned key = keys; key-- > 0;)
		for (unsigned shift = 0; shift < 64; shift += 8)
			if (sort_by_byte(a, b, n, key, shift)) {
				struct place_of *sorted = b;
				b = a;
				a = sorted;
			}
	return a;
}

static void permute(struct plan_group *g, const struct place_of *order, void *room)
{
	for (unsigned i = 0; i < g->shape->params; i++) {
		struct plan_column *c = &g->column[i];
		int64_t *values = room;
		size_t *bytes = room;
		for (unsigned row = 0; c->type != VALUE_NULL && row < g->rows; row++)
			values[row] = c->i[order[row].slot];
		if (c->type != VALUE_NULL)
			memcpy(c->i, values, g->rows * sizeof *values);
		for (unsigned row = 0; value_is_bytes(c->type) && row < g->rows; row++)
			bytes[row] = c->bytes[order[row].slot];
		if (value_is_bytes(c->type))
			memcpy(c->bytes, bytes, g->rows * sizeof *bytes);
	}
}

/* Neighbours in the tables one after the other: what of one row stays in its order. */
void plan_group_sort(struct plan_group *g)
{
	const struct shape *s = g->shape;
	if (!s || s->reach != SHAPE_ROW || g->rows < SORT_ROWS_MIN)
		return;
	unsigned keys = s->table->key_n < 2 ? s->table->key_n : 2;
	for (unsigned k = 0; k < keys; k++)
		if (s->type[s->key[k]] != VALUE_INT)
			return;
	struct place_of *order = need(malloc(2 * g->rows * sizeof *order));
	int64_t *room = need(malloc(g->rows * sizeof *room));
	for (unsigned row = 0; row < g->rows; row++) {
		order[row] = (struct place_of){ .slot = row };
		for (unsigned k = 0; k < keys; k++)
			order[row].key[k] = (uint64_t)g->column[s->key[k]].i[row] ^ 1ull << 63;
	}
	permute(g, sort_places(order, order + g->rows, g->rows, keys), room);
	free(order);
	free(room);
}

/* ---- for the database -------------------------------------------------------------------------------------------------- */

unsigned plan_slice(const struct plan_group *g, unsigned from, unsigned rows_max, size_t bytes_max)
{
	unsigned n = g->rows - from < rows_max ? g->rows - from : rows_max;
	if (g->bytes <= bytes_max)
		return n;
	size_t bytes = 0;
	for (unsigned row = from; row < from + n; row++) {
		for (unsigned i = 0; i < g->shape->params; i++)
			bytes += value_is_bytes(g->column[i].type) ? 9 + g->column[i].bytes[row] : 9;
		if (bytes > bytes_max && row > from)
			return row - from;
	}
	return n;
}

void plan_bind(const struct plan_group *g, unsigned from, struct env_db_bind *column)
{
	for (unsigned i = 0; i < g->shape->params; i++) {
		const struct plan_column *c = &g->column[i];
		column[i] = (struct env_db_bind){ .type = ENV_BIND_NULL };
		switch (c->type) {
		case VALUE_INT: column[i] = (struct env_db_bind){ .type = ENV_BIND_INT, .i = c->i + from }; break;
		case VALUE_DOUBLE: column[i] = (struct env_db_bind){ .type = ENV_BIND_DOUBLE, .d = c->d + from }; break;
		case VALUE_TEXT:
		case VALUE_BLOB:
			column[i] = (struct env_db_bind){ .type = c->type == VALUE_TEXT ? ENV_BIND_TEXT : ENV_BIND_BLOB,
							  .text = c->text + from,
							  .bytes = c->bytes + from };
			break;
		case VALUE_NULL: break;
		}
	}
}

static struct sql_value literal(const struct plan_group *g, unsigned param, unsigned row)
{
	const struct plan_column *c = &g->column[param];
	switch (c->type) {
	case VALUE_INT: return (struct sql_value){ .type = SQL_INT, .i = c->i[row] };
	case VALUE_DOUBLE: return (struct sql_value){ .type = SQL_DOUBLE, .d = c->d[row] };
	case VALUE_TEXT: return (struct sql_value){ .type = SQL_TEXT, .s = { c->text[row], c->bytes[row] } };
	case VALUE_BLOB: return (struct sql_value){ .type = SQL_BLOB, .s = { c->text[row], c->bytes[row] } };
	case VALUE_NULL: break;
	}
	return (struct sql_value){ .type = SQL_NULL };
}

void plan_text(const struct plan_group *g, unsigned from, unsigned rows, struct buf *out)
{
	const struct shape *s = g->shape;
	bool many = s->verb == SHAPE_REPLACE || s->verb == SHAPE_INSERT;
	char why[160];
	for (unsigned row = from; row < from + rows; row++) {
		struct sql_value value[SHAPE_VALUES_MAX];
		for (unsigned i = 0; i < s->params; i++)
			value[i] = literal(g, i, row);
		int err = sql_format(out, many && row > from ? s->columns : s->sql, value, s->params, why, sizeof why);
		assert(!err); /* the builder took it before */
		(void)err;
		if (!many || row + 1 == from + rows)
			buf_add(out, ";\n", 2);
		else
			buf_addch(out, ',');
	}
}

void plan_join(const struct plan_group *g, unsigned from, unsigned rows, struct buf *out)
{
	buf_addstr(out, g->shape->join[0]);
	for (unsigned row = from; row < from + rows; row++) {
		for (unsigned i = 0; i < g->shape->params; i++) {
			const struct plan_column *c = &g->column[i];
			buf_addch(out, i ? ',' : '[');
			if (c->type == VALUE_INT)
				buf_addi(out, c->i[row]);
			else
				buf_addf(out, "%.17g", c->d[row]);
		}
		buf_addstr(out, row + 1 < from + rows ? "]," : "]");
	}
	buf_addstr(out, g->shape->join[1]);
	buf_addstr(out, ";\n");
}
