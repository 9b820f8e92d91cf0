#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "scene/view_private.h"

/* ---- what is around ------------------------------------------------------------------------------------------------ */

/* The block of cells around a place: from .. to, both included. */
struct block {
	uint32_t left, right, top, bottom;
};

static struct block block_around(const struct view *v, double x, double y)
{
	uint32_t column = view_step(x, v->o.reach, v->columns), row = view_step(y, v->o.reach, v->rows);

	return (struct block){
		.left = column ? column - 1 : 0,
		.right = column + 1 < v->columns ? column + 1 : column,
		.top = row ? row - 1 : 0,
		.bottom = row + 1 < v->rows ? row + 1 : row,
	};
}

static double distance2(const struct thing *t, double x, double y)
{
	return (t->x - x) * (t->x - x) + (t->y - y) * (t->y - y);
}

int64_t view_nearest_player(const struct view *v, double x, double y, double distance)
{
	struct block b = block_around(v, x, y);
	double best = distance * distance;
	int64_t id = 0;

	for (uint32_t row = b.top; row <= b.bottom; row++)
		for (uint32_t column = b.left; column <= b.right; column++) {
			const struct cell *c = &v->cell[row * v->columns + column];

			for (uint32_t i = 0; i < c->n; i++) {
				const struct thing *t = c->thing[i];
				double d = distance2(t, x, y);

				if (t->kind != VIEW_PLAYER || t->hp <= 0)
					continue;
				if (d < best || (d == best && id && t->id < id)) {
					best = d;
					id = t->id;
				}
			}
		}
	return id;
}

static int by_distance(const void *a, const void *b)
{
	const struct sight *x = a, *y = b;

	if (x->distance2 != y->distance2)
		return x->distance2 < y->distance2 ? -1 : 1;
	return x->thing->id < y->thing->id ? -1 : 1;
}

static int by_id(const void *a, const void *b)
{
	const struct sight *x = a, *y = b;

	return x->thing->id < y->thing->id ? -1 : x->thing->id > y->thing->id;
}

/* A view is short and changes little: insertion is quicker than qsort's calls, which a crowd gets. */
static void sort_by_id(struct sight *s, unsigned n)
{
	if (n > 48) {
		qsort(s, n, sizeof *s, by_id);
		return;
	}
	for (unsigned i = 1; i < n; i++) {
		struct sight one = s[i];
		unsigned k = i;

		for (; k && s[k - 1].thing->id > one.thing->id; k--)
			s[k] = s[k - 1];
		s[k] = one;
	}
}

/* Keeps the nearest players_max players, and everything else. */
static void thin(struct view *v)
{
	unsigned kept = 0, players;

	for (unsigned i = 0; i < v->sights; i++)
		if (v->sight[i].thing->kind != VIEW_PLAYER) {
			struct sight other = v->sight[i];

			v->sight[i] = v->sight[kept];
			v->sight[kept++] = other;
		}
	players = v->sights - kept;
	qsort(v->sight + kept, players, sizeof *v->sight, by_distance);
	v->sights = kept + (players < v->o.players_max ? players : v->o.players_max);
}

/* Fills v->sight with what t sees, by id. */
static void look_around(struct view *v, const struct thing *self)
{
	struct block b = block_around(v, self->x, self->y);
	double reach2 = v->o.reach * v->o.reach;
	unsigned players = 0;

	v->sights = 0;
	for (uint32_t row = b.top; row <= b.bottom; row++)
		for (uint32_t column = b.left; column <= b.right; column++) {
			const struct cell *c = &v->cell[row * v->columns + column];

			v->sight = view_grown(v->sight, &v->sight_cap, v->sights + c->n, sizeof *v->sight);
			for (uint32_t i = 0; i < c->n; i++) {
				struct thing *t = c->thing[i];
				double d = distance2(t, self->x, self->y);

				if (d > reach2 || t == self)
					continue;
				v->sight[v->sights++] = (struct sight){ t, d };
				players += t->kind == VIEW_PLAYER;
			}
		}
	if (players > v->o.players_max)
		thin(v);
	sort_by_id(v->sight, v->sights);
}

/* ---- what is told -------------------------------------------------------------------------------------------------- */

static void separate(struct buf *b)
{
	if (b->len)
		buf_addch(b, ',');
}

static void put_real(struct buf *b, double x)
{
	b->len += text_double(buf_reserve(b, TEXT_DOUBLE_MAX), x, 0);
}

static void tell_enter(struct view *v, const struct thing *t)
{
	static const char *const kind[] = { "player", "monster", "drop" };
	struct buf *b = &v->enter;

	separate(b);
	buf_addstr(b, "{\"hp\":");
	buf_addi(b, t->hp);
	buf_addstr(b, ",\"hp_max\":");
	buf_addi(b, t->hp_max);
	buf_addstr(b, ",\"id\":");
	buf_addi(b, t->id);
	buf_addstr(b, ",\"kind\":\"");
	buf_addstr(b, kind[t->kind]);
	buf_addstr(b, "\",\"name\":");
	buf_add(b, t->name.data, t->name.len);
	buf_addstr(b, ",\"x\":");
	put_real(b, t->x);
	buf_addstr(b, ",\"y\":");
	put_real(b, t->y);
	buf_addch(b, '}');
}

static void tell_leave(struct view *v, int64_t id)
{
	separate(&v->leave);
	buf_addi(&v->leave, id);
}

static void write_move(struct view *v, struct thing *t)
{
	struct buf *b = &v->text;

	buf_clear(b);
	buf_addstr(b, "{\"id\":");
	buf_addi(b, t->id);
	buf_addstr(b, ",\"x\":");
	put_real(b, t->x);
	buf_addstr(b, ",\"y\":");
	put_real(b, t->y);
	buf_addch(b, '}');
	assert(b->len <= sizeof t->move);
	memcpy(t->move, b->data, b->len);
	t->move_n = (unsigned)b->len;
	t->move_of = t->moves;
}

static void tell_move(struct view *v, struct thing *t)
{
	if (t->move_of != t->moves)
		write_move(v, t);
	separate(&v->move);
	buf_add(&v->move, t->move, t->move_n);
}

static void tell_hp(struct view *v, const struct thing *t)
{
	separate(&v->hp);
	buf_addstr(&v->hp, "{\"hp\":");
	buf_addi(&v->hp, t->hp);
	buf_addstr(&v->hp, ",\"id\":");
	buf_addi(&v->hp, t->id);
	buf_addch(&v->hp, '}');
}

static void tell_news(struct view *v, struct thing *t, const struct told *before)
{
	if (before->moves != t->moves)
		tell_move(v, t);
	if (before->hps != t->hps)
		tell_hp(v, t);
}

static void tell_own(struct view *v, struct thing *self)
{
	struct watch *w = self->watch;

	if (w->hps != self->hps)
		tell_hp(v, self);
	if (w->thrown)
		tell_move(v, self);
	w->hps = self->hps;
	w->thrown = false;
}

/* What the watcher knows is what it sees now. */
static void learn(struct view *v, struct watch *w)
{
	w->told = view_grown(w->told, &w->told_cap, v->sights, sizeof *w->told);
	w->told_n = v->sights;
	for (unsigned i = 0; i < v->sights; i++) {
		const struct thing *t = v->sight[i].thing;

		w->told[i] = (struct told){ t->id, t->moves, t->hps };
	}
}

/* Both lists are in the order of ids. */
static void compare(struct view *v, const struct watch *w)
{
	unsigned k = 0;

	for (unsigned i = 0; i < v->sights; i++) {
		struct thing *t = v->sight[i].thing;

		for (; k < w->told_n && w->told[k].id < t->id; k++)
			tell_leave(v, w->told[k].id);
		if (k < w->told_n && w->told[k].id == t->id)
			tell_news(v, t, &w->told[k++]);
		else
			tell_enter(v, t);
	}
	for (; k < w->told_n; k++)
		tell_leave(v, w->told[k].id);
}

static void put_list(struct buf *out, const char *name, const struct buf *list)
{
	if (!list->len)
		return;
	buf_addch(out, '"');
	buf_addstr(out, name);
	buf_addstr(out, "\":[");
	buf_add(out, list->data, list->len);
	buf_addstr(out, "],");
}

/* The update's text in v->text; false: there is no news. */
static bool update(struct view *v, struct thing *self, int64_t tick)
{
	buf_clear(&v->enter);
	buf_clear(&v->leave);
	buf_clear(&v->move);
	buf_clear(&v->hp);
	look_around(v, self);
	compare(v, self->watch);
	learn(v, self->watch);
	tell_own(v, self);
	if (!v->enter.len && !v->leave.len && !v->move.len && !v->hp.len)
		return false;
	buf_clear(&v->text);
	buf_addch(&v->text, '{');
	put_list(&v->text, "enter", &v->enter);
	put_list(&v->text, "hp", &v->hp);
	put_list(&v->text, "leave", &v->leave);
	put_list(&v->text, "move", &v->move);
	buf_addstr(&v->text, "\"tick\":");
	buf_addi(&v->text, tick);
	buf_addch(&v->text, '}');
	return true;
}

unsigned view_tell(struct view *v, unsigned max, int64_t tick,
		   void (*tell)(void *arg, const char *connector, uint64_t sid, const char *text, size_t n), void *arg)
{
	unsigned n = max < v->watchers ? max : v->watchers, told = 0;

	for (unsigned i = 0; i < n; i++) {
		v->next = v->next + 1 < v->watchers ? v->next + 1 : 0;
		struct thing *t = v->watcher[v->next];

		if (!update(v, t, tick))
			continue;
		tell(arg, t->watch->connector, t->watch->sid, v->text.data, v->text.len);
		told++;
	}
	return told;
}

/* ---- watchers ------------------------------------------------------------------------------------------------------- */

bool view_watch(struct view *v, int64_t id, const char *connector, uint64_t sid)
{
	struct thing *t = view_find(v, id);

	if (!t)
		return false;
	if (!t->watch) {
		t->watch = calloc(1, sizeof *t->watch);
		assert(t->watch);
		t->watch->place = v->watchers;
		v->watcher = view_grown(v->watcher, &v->watcher_cap, v->watchers + 1, sizeof(struct thing *));
		v->watcher[v->watchers++] = t;
	}
	snprintf(t->watch->connector, sizeof t->watch->connector, "%s", connector);
	t->watch->sid = sid;
	t->watch->told_n = 0;
	t->watch->hps = t->hps;
	return true;
}

int view_look(struct view *v, int64_t id, const int64_t **ids)
{
	struct thing *t = view_find(v, id);

	if (!t || !t->watch)
		return ERR_NOT_FOUND;
	look_around(v, t);
	learn(v, t->watch);
	t->watch->hps = t->hps;
	t->watch->thrown = false;
	v->ids = view_grown(v->ids, &v->ids_cap, v->sights, sizeof *v->ids);
	for (unsigned i = 0; i < v->sights; i++)
		v->ids[i] = v->sight[i].thing->id;
	*ids = v->ids;
	return (int)v->sights;
}

unsigned view_watchers(const struct view *v)
{
	return v->watchers;
}
