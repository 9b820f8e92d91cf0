#include "tests/support/once_world.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

const char *const world_owners[OWNERS] = { "role/a", "role/b", "role/c" };

/* ---- chance and time --------------------------------------------------------------------------------------------- */

uint64_t world_chance(struct world *x, uint64_t below)
{
	x->random ^= x->random << 13;
	x->random ^= x->random >> 7;
	x->random ^= x->random << 17;
	return x->random % below;
}

bool world_happens(struct world *x, unsigned of_1000)
{
	return !x->calm && world_chance(x, 1000) < of_1000;
}

static bool earlier(const struct world *x, unsigned a, unsigned b)
{
	const struct event *e = &x->event[x->heap[a]], *f = &x->event[x->heap[b]];

	return e->at != f->at ? e->at < f->at : e->order < f->order;
}

static void swap(struct world *x, unsigned a, unsigned b)
{
	unsigned i = x->heap[a];

	x->heap[a] = x->heap[b];
	x->heap[b] = i;
}

struct event *world_in_us(struct world *x, uint64_t us, enum event_kind kind)
{
	unsigned i = x->free_n ? x->free[--x->free_n] : x->heap_n, at = x->heap_n++;
	struct event *e = &x->event[i];

	assert(at < EVENTS);
	*e = (struct event){ .at = x->now + us, .order = x->order++, .kind = kind };
	x->heap[at] = i;
	for (; at && earlier(x, at, (at - 1) / 2); at = (at - 1) / 2)
		swap(x, at, (at - 1) / 2);
	return e;
}

struct event world_take(struct world *x)
{
	unsigned i = x->heap[0], at = 0;

	x->heap[0] = x->heap[--x->heap_n];
	x->free[x->free_n++] = i;
	for (;;) {
		unsigned least = at;

		for (unsigned child = 2 * at + 1; child <= 2 * at + 2 && child < x->heap_n; child++)
			if (earlier(x, child, least))
				least = child;
		if (least == at)
			return x->event[i];
		swap(x, at, least);
		at = least;
	}
}

void world_at_server(struct world *x, enum event_kind kind, void *p, unsigned owner)
{
	struct event *e = world_in_us(x, 100 + world_chance(x, 20 * MS), kind);

	e->p = p;
	e->a = x->start;
	e->b = owner;
}

/* ---- the network --------------------------------------------------------------------------------------------------- */

static void send_once(struct world *x, const struct message *m, enum event_kind where)
{
	uint64_t us = 100 + world_chance(x, 10 * MS);

	if (world_happens(x, x->late))
		us += world_chance(x, 400 * MS);
	world_in_us(x, us, where)->m = *m;
}

void world_send(struct world *x, const struct message *m, enum event_kind where)
{
	if (world_happens(x, x->drops))
		return;
	send_once(x, m, where);
	if (world_happens(x, x->doubles))
		send_once(x, m, where);
}

/* ---- the log, the replay, the table ----------------------------------------------------------------------------------- */

const char *world_client_name(const struct world *x, char out[24], unsigned client, unsigned epoch)
{
	snprintf(out, 24, "c-%u/0/%u", client, x->plan.reuses_leases ? 0 : epoch);
	return out;
}

struct record *world_append(struct world *x, unsigned owner)
{
	assert(x->lsn < RECORDS);
	struct record *r = &x->record[++x->lsn];

	*r = (struct record){ .owner = owner };
	x->last[owner] = x->lsn;
	return r;
}

static bool same_row(const struct row *a, const struct row *b)
{
	return a->used && a->owner == b->owner && a->business == b->business && !strcmp(a->client, b->client) &&
	       (a->business ? a->op == b->op : a->seq == b->seq);
}

static void insert(struct world *x, const struct row *row)
{
	struct row *place = NULL;

	for (unsigned i = 0; i < ROWS; i++) {
		if (same_row(&x->row[i], row))
			sim_fail(x->w, "two rows for operation %u", row->op);
		if (!x->row[i].used && !place)
			place = &x->row[i];
	}
	assert(place);
	*place = *row;
	place->used = true;
}

static void land(struct world *x, struct record *r)
{
	r->landed = true;
	if (r->gone)
		return;
	if (r->effect)
		x->op[r->op].effects[r->body]++;
	if (r->completion)
		insert(x, &r->row);
	for (unsigned d = 0; d < r->deletes; d++)
		for (unsigned i = 0; i < ROWS; i++) {
			struct row *row = &x->row[i];

			if (row->used && !row->business && row->owner == r->owner &&
			    !strcmp(row->client, r->delete[d].client) &&
			    row->seq < r->delete[d].below + x->plan.deletes_too_much)
				row->used = false;
		}
}

void world_replay(struct world *x, unsigned most)
{
	while (x->landed < x->lsn && most--)
		land(x, &x->record[++x->landed]);
}

void world_log_dies(struct world *x)
{
	uint64_t keep = world_happens(x, 500)
				? x->lsn
				: x->durable + (x->lsn > x->durable ? world_chance(x, x->lsn - x->durable + 1) : 0);

	for (uint64_t i = keep + 1; i <= x->lsn; i++)
		x->record[i].gone = !x->record[i].landed;
	x->durable = x->lsn;
	for (unsigned o = 0; o < OWNERS; o++)
		for (x->last[o] = x->lsn;
		     x->last[o] && (x->record[x->last[o]].owner != o || x->record[x->last[o]].gone);)
			x->last[o]--;
}
