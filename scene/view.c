#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"
#include "scene/view_private.h"

void *view_grown(void *p, unsigned *cap, unsigned wanted, size_t size)
{
	unsigned more = *cap ? *cap : 16;

	if (wanted <= *cap)
		return p;
	while (more < wanted)
		more *= 2;
	p = realloc(p, more * size);
	assert(p);
	*cap = more;
	return p;
}

/* ---- by id ------------------------------------------------------------------------------------------------------ */

static uint32_t slot_of(const struct view *v, int64_t id)
{
	return (uint32_t)(((uint64_t)id * 0x9e3779b97f4a7c15u) >> 40) & (v->slots - 1);
}

struct thing *view_find(const struct view *v, int64_t id)
{
	for (uint32_t i = slot_of(v, id); v->slot[i]; i = (i + 1) & (v->slots - 1))
		if (v->slot[i]->id == id)
			return v->slot[i];
	return NULL;
}

static void slot_put(struct view *v, struct thing *t)
{
	uint32_t i = slot_of(v, t->id);

	while (v->slot[i])
		i = (i + 1) & (v->slots - 1);
	v->slot[i] = t;
}

static void slots_grow(struct view *v)
{
	struct thing **old = v->slot;
	uint32_t n = v->slots;

	if (v->things * 2 < n)
		return;
	v->slots = n ? n * 2 : 64;
	v->slot = calloc(v->slots, sizeof(struct thing *));
	assert(v->slot);
	for (uint32_t i = 0; i < n; i++)
		if (old[i])
			slot_put(v, old[i]);
	free(old);
}

/* Those behind it move up where their search passes the hole. */
static void slot_take(struct view *v, const struct thing *t)
{
	uint32_t hole = slot_of(v, t->id), mask = v->slots - 1;

	while (v->slot[hole] != t)
		hole = (hole + 1) & mask;
	for (uint32_t i = (hole + 1) & mask; v->slot[i]; i = (i + 1) & mask) {
		uint32_t home = slot_of(v, v->slot[i]->id);

		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		v->slot[hole] = v->slot[i];
		hole = i;
	}
	v->slot[hole] = NULL;
}

/* ---- by place --------------------------------------------------------------------------------------------------- */

uint32_t view_step(double at, double reach, uint32_t steps)
{
	if (!(at > 0))
		return 0;
	double step = at / reach;

	return step >= steps ? steps - 1 : (uint32_t)step;
}

static uint32_t cell_at(const struct view *v, double x, double y)
{
	return view_step(y, v->o.reach, v->rows) * v->columns + view_step(x, v->o.reach, v->columns);
}

static void cell_put(struct view *v, struct thing *t, uint32_t at)
{
	struct cell *c = &v->cell[at];

	c->thing = view_grown(c->thing, &c->cap, c->n + 1, sizeof(struct thing *));
	t->cell = at;
	t->place = c->n;
	c->thing[c->n++] = t;
}

static void cell_take(struct view *v, struct thing *t)
{
	struct cell *c = &v->cell[t->cell];
	struct thing *last = c->thing[--c->n];

	c->thing[t->place] = last;
	last->place = t->place;
}

static bool move(struct view *v, struct thing *t, double x, double y)
{
	if (!t)
		return false;
	uint32_t at = cell_at(v, x, y);

	t->x = x;
	t->y = y;
	t->moves++;
	if (at != t->cell) {
		cell_take(v, t);
		cell_put(v, t, at);
	}
	return true;
}

/* ---- things ------------------------------------------------------------------------------------------------------ */

static void unwatch(struct view *v, struct thing *t)
{
	struct watch *w = t->watch;

	if (!w)
		return;
	struct thing *last = v->watcher[--v->watchers];

	v->watcher[w->place] = last;
	last->watch->place = w->place;
	t->watch = NULL;
	free(w->told);
	free(w);
}

static void thing_free(struct thing *t)
{
	buf_release(&t->name);
	free(t);
}

int view_add(struct view *v, const struct view_thing *wish)
{
	if (wish->id < 1)
		return ERR_BAD_REQUEST;
	if (view_find(v, wish->id))
		return ERR_EXISTS;
	struct thing *t = calloc(1, sizeof *t);

	assert(t);
	t->id = wish->id;
	t->kind = wish->kind;
	jsontext_quote(&t->name, wish->name, wish->name_n);
	t->x = wish->x;
	t->y = wish->y;
	t->hp = wish->hp;
	t->hp_max = wish->hp_max;
	t->move_of = UINT32_MAX;
	v->things++;
	slots_grow(v);
	slot_put(v, t);
	cell_put(v, t, cell_at(v, t->x, t->y));
	return 0;
}

bool view_remove(struct view *v, int64_t id)
{
	struct thing *t = view_find(v, id);

	if (!t)
		return false;
	unwatch(v, t);
	slot_take(v, t);
	cell_take(v, t);
	v->things--;
	thing_free(t);
	return true;
}

bool view_move(struct view *v, int64_t id, double x, double y)
{
	return move(v, view_find(v, id), x, y);
}

bool view_throw(struct view *v, int64_t id, double x, double y)
{
	struct thing *t = view_find(v, id);

	if (t && t->watch)
		t->watch->thrown = true;
	return move(v, t, x, y);
}

bool view_hp(struct view *v, int64_t id, int64_t hp)
{
	struct thing *t = view_find(v, id);

	if (!t)
		return false;
	t->hp = hp;
	t->hps++;
	return true;
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

struct view *view_new(const struct view_options *o)
{
	struct view *v = calloc(1, sizeof *v);

	assert(v && o->reach > 0);
	v->o = *o;
	v->columns = (uint32_t)(o->width / o->reach) + 1;
	v->rows = (uint32_t)(o->height / o->reach) + 1;
	v->cell = calloc((size_t)v->columns * v->rows, sizeof *v->cell);
	assert(v->cell);
	slots_grow(v);
	return v;
}

void view_free(struct view *v)
{
	if (!v)
		return;
	for (uint32_t i = 0; i < v->slots; i++)
		if (v->slot[i]) {
			unwatch(v, v->slot[i]);
			thing_free(v->slot[i]);
		}
	for (uint32_t i = 0; i < v->columns * v->rows; i++)
		free(v->cell[i].thing);
	struct buf *const bufs[] = { &v->enter, &v->leave, &v->move, &v->hp, &v->text };

	for (size_t i = 0; i < sizeof bufs / sizeof *bufs; i++)
		buf_release(bufs[i]);
	free(v->cell);
	free(v->slot);
	free(v->watcher);
	free(v->sight);
	free(v->ids);
	free(v);
}
