#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "dbwriter/plan_private.h"

#define CHUNK_BYTES (64u << 10)

static void *need(void *p)
{
	assert(p);
	return p;
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

static const char *keep(struct plan *p, const char *text, size_t n)
{
	struct chunk *c = p->chunks;
	if (!c || c->size - c->used < n) {
		size_t size = n > CHUNK_BYTES ? n : CHUNK_BYTES;
		c = need(malloc(sizeof *c + size));
		*c = (struct chunk){ .next = p->chunks, .size = size };
		p->chunks = c;
	}
	memcpy(c->data + c->used, text, n);
	c->used += n;
	return c->data + c->used - n;
}

static void columns_free(struct plan_group *g)
{
	if (!g->capacity) /* as most are that have one row */
		return;
	for (unsigned i = 0; i < SHAPE_VALUES_MAX; i++) {
		free(g->column[i].i);
		free(g->column[i].bytes);
	}
	memset(g->column, 0, sizeof g->column);
	g->capacity = 0;
}

static void shapes_forget(struct plan *p)
{
	for (unsigned i = 0; i < 2 * PLAN_SHAPES_MAX; i++)
		shape_free(p->known[i].shape);
	memset(p->known, 0, sizeof p->known);
	memset(p->recent, 0, sizeof p->recent);
	p->shapes = 0;
}

static void rows_clear(struct plan *p)
{
	if (!++p->epoch)
		memset(p->row, 0, p->rows_size * sizeof *p->row);
	p->epoch += !p->epoch;
	p->rows = 0;
}

struct plan *plan_new(void)
{
	struct plan *p = need(calloc(1, sizeof *p));
	p->rows_size = 1024;
	p->row = need(calloc(p->rows_size, sizeof *p->row));
	rows_clear(p);
	return p;
}

static void chunks_free(struct plan *p)
{
	for (struct chunk *c = p->chunks, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	p->chunks = NULL;
}

void plan_free(struct plan *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->groups_capacity; i++) {
		columns_free(&p->group[i]);
		buf_release(&p->group[i].text);
	}
	shapes_forget(p);
	chunks_free(p);
	split_release(&p->split);
	free(p->group);
	free(p->op);
	free(p->row);
	free(p->place);
	free(p);
}

void plan_begin(struct plan *p, const struct tables *t, bool fold)
{
	if (p->tables != t || p->version != t->version || p->shapes >= PLAN_SHAPES_MAX)
		shapes_forget(p);
	for (unsigned i = 0; i < 2 * PLAN_SHAPES_MAX; i++)
		p->known[i].groups = 0;
	p->tables = t;
	p->version = t->version;
	p->fold = fold;
	p->ended = false;
	p->groups = 0;
	p->floor = p->ops = 0;
	rows_clear(p);
	chunks_free(p);
	if (p->places < t->n) {
		p->place = need(realloc(p->place, t->n * sizeof *p->place));
		p->places = t->n;
	}
	for (unsigned i = 0; i < p->places; i++)
		p->place[i] = (struct place){ .whole = PLAN_NONE };
	p->figures = (struct plan_figures){ 0 };
}

/* ---- groups -------------------------------------------------------------------------------------------------------- */

static uint32_t group_new(struct plan *p, struct shape *shape)
{
	if (p->groups == p->groups_capacity) {
		unsigned capacity = p->groups_capacity ? 2 * p->groups_capacity : 16;
		p->group = need(realloc(p->group, capacity * sizeof *p->group));
		memset(p->group + p->groups_capacity, 0, (capacity - p->groups_capacity) * sizeof *p->group);
		p->groups_capacity = capacity;
	}
	struct plan_group *g = &p->group[p->groups];
	columns_free(g);
	buf_clear(&g->text);
	g->shape = shape;
	g->rows = 0;
	g->bytes = 0;
	for (unsigned i = 0; shape && i < shape->params; i++)
		g->column[i].type = shape->type[i];
	return p->groups++;
}

static void grow(struct plan_group *g)
{
	unsigned capacity = g->capacity ? 2 * g->capacity : 16;
	for (unsigned i = 0; i < g->shape->params; i++) {
		struct plan_column *c = &g->column[i];
		c->i = need(realloc(c->i, capacity * sizeof *c->i));
		if (value_is_bytes(c->type))
			c->bytes = need(realloc(c->bytes, capacity * sizeof *c->bytes));
	}
	g->capacity = capacity;
}

void plan_store(struct plan *p, struct plan_group *g, unsigned param, uint32_t slot)
{
	const struct value *v = &p->split.value[param];
	struct plan_column *c = &g->column[param];
	switch (v->type) {
	case VALUE_INT: c->i[slot] = v->i; break;
	case VALUE_DOUBLE: c->d[slot] = v->d; break;
	case VALUE_TEXT:
	case VALUE_BLOB:
		c->text[slot] = p->split.escaped & 1ull << param ? keep(p, v->s.p, v->s.n) : v->s.p;
		c->bytes[slot] = v->s.n;
		g->bytes += v->s.n;
		break;
	case VALUE_NULL: break;
	}
}

static uint32_t group_append(struct plan *p, uint32_t group)
{
	struct plan_group *g = &p->group[group];
	uint32_t slot = g->rows++;
	if (g->rows > g->capacity)
		grow(g);
	for (unsigned i = 0; i < g->shape->params; i++)
		plan_store(p, g, i, slot);
	g->bytes += 9 * g->shape->params;
	return slot;
}

/* What is not understood: everything before it comes before it, everything behind it behind it. */
static void add_text(struct plan *p, const char *statement, size_t n)
{
	bool goes_on = p->groups && !p->group[p->groups - 1].shape;
	uint32_t group = goes_on ? p->groups - 1 : group_new(p, NULL);
	struct plan_group *g = &p->group[group];
	buf_add(&g->text, statement, n);
	buf_add(&g->text, ";\n", 2);
	g->rows++;
	p->floor = p->groups;
	rows_clear(p);
}

/* ---- shapes -------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;
	uint64_t word;
	for (; n >= 8; p += 8, n -= 8) {
		memcpy(&word, p, 8);
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	word = n;
	memcpy((char *)&word + 1, p, n < 7 ? n : 7);
	h = (h ^ word) * 0xbf58476d1ce4e5b9u;
	return h ^ h >> 32;
}

/* NULL: too many are known, it stays text this time. */
static struct known *shape_of(struct plan *p)
{
	const struct buf *text = &p->split.text;
	uint64_t hash = mix(1, text->data, text->len);
	for (unsigned i = (unsigned)hash;; i++) {
		struct known *k = &p->known[i % (2 * PLAN_SHAPES_MAX)];
		if (k->shape && k->hash == hash && k->shape->text_bytes == text->len &&
		    !memcmp(k->shape->text, text->data, text->len))
			return k;
		if (k->shape)
			continue;
		if (p->shapes >= PLAN_SHAPES_MAX)
			return NULL;
		p->shapes++;
		*k = (struct known){ .shape = shape_new(&p->split), .hash = hash };
		shape_resolve(k->shape, p->tables);
		return k;
	}
}

/* ---- rows ------------------------------------------------------------------------------------------------------------- */

static uint64_t row_hash(const struct plan *p, const struct shape *s)
{
	uint64_t h = (uint64_t)(s->table - p->tables->table) + 1;
	for (unsigned k = 0; k < s->table->key_n; k++) {
		const struct value *v = &p->split.value[s->key[k]];
		h = v->type == VALUE_INT ? mix(h, &v->i, 8) : mix(h, v->s.p, v->s.n);
	}
	return h;
}

/* Whether the statement before us names the same row as one that has its place. */
static bool same_row(const struct plan *p, const struct shape *s, const struct op *o)
{
	const struct plan_group *g = &p->group[o->group];
	for (unsigned k = 0; k < s->table->key_n; k++) {
		const struct value *v = &p->split.value[s->key[k]];
		const struct plan_column *c = &g->column[g->shape->key[k]];
		if (v->type == VALUE_INT ? v->i != c->i[o->slot]
					 : v->s.n != c->bytes[o->slot] || memcmp(v->s.p, c->text[o->slot], v->s.n) != 0)
			return false;
	}
	return true;
}

static struct row *row_find(struct plan *p, const struct shape *s, uint64_t hash)
{
	for (uint32_t i = (uint32_t)hash & (p->rows_size - 1);; i = (i + 1) & (p->rows_size - 1)) {
		struct row *r = &p->row[i];
		if (r->epoch != p->epoch || (r->hash == hash && r->table == s->table && same_row(p, s, &p->op[r->op])))
			return r;
	}
}

static void rows_grow(struct plan *p)
{
	struct row *old = p->row;
	uint32_t size = p->rows_size;
	p->rows_size = 2 * size;
	p->row = need(calloc(p->rows_size, sizeof *p->row));
	for (uint32_t i = 0; i < size; i++) {
		uint32_t at = (uint32_t)old[i].hash & (p->rows_size - 1);
		if (old[i].epoch != p->epoch)
			continue;
		while (p->row[at].epoch == p->epoch)
			at = (at + 1) & (p->rows_size - 1);
		p->row[at] = old[i];
	}
	free(old);
}

/* ---- placing ---------------------------------------------------------------------------------------------------------- */

/* An open group of the shape that is not before least, else a new one; PLAN_NONE: there are as many as there may be. */
static uint32_t group_for(struct plan *p, struct known *k, uint32_t least)
{
	least = least > p->floor ? least : p->floor;
	for (unsigned i = k->groups; i-- > 0 && k->group[i] >= least;)
		if (!i || k->group[i - 1] < least)
			return k->group[i];
	if (plan_full(p))
		return PLAN_NONE;
	if (!k->shape->join[0] || k->groups == PLAN_WAVES)
		k->groups = 0;
	k->group[k->groups] = group_new(p, k->shape);
	return k->group[k->groups++];
}

/* Where rows are joined, each stands once in a group. */
static uint32_t behind_own(const struct plan *p, const struct shape *s, const struct row *r, uint32_t least)
{
	unsigned steps = 0;
	for (uint32_t at = r->op; s->join[0] && at != PLAN_NONE; at = p->op[at].before) {
		uint32_t group = p->op[at].group;
		if (p->group[group].shape == s)
			return group + 1 > least ? group + 1 : least;
		if (++steps > PLAN_LOOK_BACK)
			return p->op[at].highest + 1 > least ? p->op[at].highest + 1 : least;
	}
	return least;
}

/* False: it would need a group that there may not be. */
static bool place_row(struct plan *p, struct known *k)
{
	struct shape *s = k->shape;
	struct place *place = &p->place[s->table - p->tables->table];
	uint64_t hash = row_hash(p, s);
	uint32_t least = place->whole == PLAN_NONE ? 0 : place->whole;
	if (2 * p->rows >= p->rows_size)
		rows_grow(p);
	struct row *r = row_find(p, s, hash);
	bool fresh = r->epoch != p->epoch;
	if (!fresh && plan_folded(p, s, r, &least))
		return true;
	uint32_t group = group_for(p, k, fresh ? least : behind_own(p, s, r, least));
	if (group == PLAN_NONE)
		return false;
	if (p->ops == p->ops_capacity) {
		p->ops_capacity = p->ops_capacity ? 2 * p->ops_capacity : 1024;
		p->op = need(realloc(p->op, p->ops_capacity * sizeof *p->op));
	}
	uint32_t before = fresh ? PLAN_NONE : r->op, highest = fresh ? 0 : p->op[before].highest;
	p->op[p->ops] = (struct op){ group, group_append(p, group), before, highest > group ? highest : group };
	*r = (struct row){ hash, s->table, p->ops, p->epoch };
	p->ops++;
	p->rows += fresh;
	place->group_max = place->group_max > group ? place->group_max : group;
	return true;
}

static bool place_table(struct plan *p, struct known *k)
{
	struct place *place = &p->place[k->shape->table - p->tables->table];
	uint32_t group = group_for(p, k, place->group_max);
	if (group == PLAN_NONE)
		return false;
	group_append(p, group);
	place->group_max = place->whole = group;
	place->ops_before = p->ops;
	return true;
}

/* A text that ends in a space may be equal to one that does not. */
static bool names_one_row(const struct plan *p, const struct shape *s)
{
	for (unsigned k = 0; k < s->table->key_n; k++) {
		const struct value *v = &p->split.value[s->key[k]];
		if (v->type == VALUE_TEXT && v->s.n && v->s.p[v->s.n - 1] == ' ' && !s->param[s->key[k]].column->exact)
			return false;
	}
	return true;
}

/* What is divided by 0 or comes near the numbers' end is left to the database as it stands. */
static bool may_work(const struct plan *p, const struct shape *s)
{
	for (unsigned i = 0; s->worked && i < s->params; i++) {
		int64_t v = s->worked >> i & 1 ? p->split.value[i].i : 1;
		if (v == INT64_MIN || (!v && s->divisors >> i & 1))
			return false;
	}
	return true;
}

/* Most statements are like one of the last few. */
static struct known *split_and_find(struct plan *p, const char *statement, size_t n)
{
	for (unsigned i = 0; i < PLAN_RECENT && p->recent[i]; i++) {
		struct known *k = p->recent[i];
		if (!split_like(&p->split, k->shape, statement, n))
			continue;
		if (i) {
			p->recent[i] = p->recent[i - 1];
			p->recent[i - 1] = k;
		}
		return k;
	}
	struct known *k = split_statement(&p->split, statement, n) ? shape_of(p) : NULL;
	if (k) {
		memmove(p->recent + 1, p->recent, sizeof p->recent - sizeof *p->recent);
		p->recent[0] = k;
	}
	return k;
}

static bool gathered(struct plan *p, struct known *k)
{
	if (!k || k->shape->reach == SHAPE_ANYTHING || !may_work(p, k->shape))
		return false;
	if (k->shape->reach == SHAPE_TABLE || !names_one_row(p, k->shape))
		return place_table(p, k);
	return place_row(p, k);
}

static void add_statement(struct plan *p, const char *statement, size_t n)
{
	assert(!p->ended);
	p->figures.statements++;
	if (!gathered(p, split_and_find(p, statement, n)))
		add_text(p, statement, n);
}

void plan_add(struct plan *p, const char *statements, size_t n)
{
	const char *end = statements + n;
	while (statements < end) {
		const char *newline = memchr(statements, '\n', (size_t)(end - statements));
		const char *stop = newline ? newline : end;
		size_t bytes = (size_t)(stop - statements);
		if (bytes && statements[bytes - 1] == ';')
			bytes--;
		if (bytes)
			add_statement(p, statements, bytes);
		statements = stop + 1;
	}
}

bool plan_full(const struct plan *p)
{
	return p->groups >= PLAN_GROUPS_MAX;
}

void plan_end(struct plan *p)
{
	p->ended = true;
	for (unsigned i = 0; i < p->groups; i++)
		plan_group_sort(&p->group[i]);
}

/* ---- what it gave ------------------------------------------------------------------------------------------------------ */

unsigned plan_groups(const struct plan *p)
{
	return p->groups;
}

const struct plan_group *plan_group(const struct plan *p, unsigned i)
{
	assert(i < p->groups);
	return &p->group[i];
}

struct plan_figures plan_figures(const struct plan *p)
{
	struct plan_figures f = p->figures;
	f.groups = p->groups;
	return f;
}
