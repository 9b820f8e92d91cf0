#include "dbwriter/plan_private.h"
/*
 * Of several statements for one row those become one that leave the row, and what the database refuses, the same.
 */

/* Whether the value in a slot may be dropped: its column would have taken it, whatever came behind. */
static bool may_drop(const struct plan_group *g, unsigned param, uint32_t slot)
{
	const struct table_column *c = g->shape->param[param].column;
	switch (g->column[param].type) {
	case VALUE_INT: return column_takes_int(c, g->column[param].i[slot]);
	case VALUE_TEXT: return column_takes_text(c, g->column[param].text[slot], g->column[param].bytes[slot]);
	case VALUE_BLOB: return false; /* nobody asked how long it may be */
	default: return true;          /* NULL and doubles: only where they suit */
	}
}

static bool may_drop_own(const struct plan *p, const struct shape *s, unsigned param)
{
	const struct value *v = &p->split.value[param];
	const struct table_column *c = s->param[param].column;
	switch (v->type) {
	case VALUE_INT: return column_takes_int(c, v->i);
	case VALUE_TEXT: return column_takes_text(c, v->s.p, v->s.n);
	case VALUE_BLOB: return false;
	default: return true;
	}
}

/* Steps of one sign: when the last of them fits, each did. */
static bool may_add(int64_t a, int64_t b)
{
	int64_t sum;
	return ((a >= 0) == (b >= 0) || !a || !b) && !__builtin_add_overflow(a, b, &sum);
}

static bool sums_up(const struct plan *p, const struct plan_group *g, const struct shape_set *set, uint32_t slot)
{
	int64_t first, step = p->split.value[set->param].i;
	if (set->change != CHANGE_ADD && set->change != CHANGE_SUB)
		return true;
	if (!may_add(g->column[set->param].i[slot], step))
		return false;
	if (g->shape->verb != SHAPE_UPSERT)
		return true;
	return set->change == CHANGE_ADD ? !__builtin_add_overflow(g->column[set->inserted].i[slot], step, &first)
					 : !__builtin_sub_overflow(g->column[set->inserted].i[slot], step, &first);
}

static bool can_fold(const struct plan *p, const struct plan_group *g, uint32_t slot)
{
	const struct shape *s = g->shape;
	for (unsigned i = 0; i < s->params; i++) {
		bool adds = s->param[i].change == CHANGE_ADD || s->param[i].change == CHANGE_SUB;
		if (!adds && (!may_drop(g, i, slot) || (s->verb == SHAPE_UPSERT && !may_drop_own(p, s, i))))
			return false;
	}
	for (unsigned i = 0; i < s->sets; i++)
		if (!sums_up(p, g, &s->set[i], slot))
			return false;
	return true;
}

/* A row that is not there yet is inserted as the first statement says, and changed as the second does. */
static void fold_inserted(struct plan *p, struct plan_group *g, const struct shape_set *set, uint32_t slot)
{
	struct plan_column *first = &g->column[set->inserted];
	int64_t step = p->split.value[set->param].i;
	switch (set->change) {
	case CHANGE_ADD: first->i[slot] += step; break;
	case CHANGE_SUB: first->i[slot] -= step; break;
	case CHANGE_SET: /* the value was stored beside it just now */
		if (first->type == VALUE_NULL)
			break;
		first->i[slot] = g->column[set->param].i[slot];
		if (first->type == VALUE_TEXT)
			first->bytes[slot] = g->column[set->param].bytes[slot];
		break;
	default: plan_store(p, g, set->inserted, slot); break;
	}
}

static void fold(struct plan *p, struct plan_group *g, uint32_t slot)
{
	const struct shape *s = g->shape;
	if (s->verb == SHAPE_REPLACE)
		for (unsigned i = 0; i < s->params; i++)
			plan_store(p, g, i, slot);
	for (unsigned i = 0; i < s->sets; i++) {
		const struct shape_set *set = &s->set[i];
		if (set->change == CHANGE_SET)
			plan_store(p, g, set->param, slot);
		else if (set->change != CHANGE_INSERT)
			g->column[set->param].i[slot] += p->split.value[set->param].i;
		if (s->verb == SHAPE_UPSERT)
			fold_inserted(p, g, set, slot);
	}
	p->figures.folded++;
}

/* Two statements for one row of which neither can tell which came first. */
static bool commute(const struct shape *a, const struct shape *b)
{
	return a->verb == SHAPE_UPDATE && b->verb == SHAPE_UPDATE && a->folds && b->folds && !(a->changes & b->changes);
}

bool plan_folded(struct plan *p, const struct shape *s, const struct row *r, uint32_t *least)
{
	const struct place *place = &p->place[s->table - p->tables->table];
	unsigned steps = 0;
	for (uint32_t at = r->op; at != PLAN_NONE; at = p->op[at].before) {
		const struct op *o = &p->op[at];
		struct plan_group *g = &p->group[o->group];
		if (g->shape == s && s->folds && p->fold && at >= place->ops_before && can_fold(p, g, o->slot)) {
			fold(p, g, o->slot);
			return true;
		}
		if (!commute(g->shape, s) || ++steps > PLAN_LOOK_BACK) {
			*least = *least > o->highest ? *least : o->highest;
			break;
		}
	}
	return false;
}
