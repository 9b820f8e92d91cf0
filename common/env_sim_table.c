#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/env_sim_sql.h"
/*
 * Rows, unique keys, transactions. A row has what is committed and what its owner has changed; a key's entries
 * lead to every row that has these values in either.
 */

struct key_entry {
	struct key_entry *next;
	struct row *row;
	uint64_t hash;
};

/* ---- tables ------------------------------------------------------------------------------------------------------ */

struct table *table_new(void)
{
	struct table *t = w_alloc(sizeof(*t));
	t->columns_last = &t->columns;
	t->keys_last = &t->keys;
	t->auto_next = 1;
	return t;
}

struct column *table_column(const struct table *t, const char *name)
{
	struct column *c = t->columns;
	while (c && strcasecmp(c->name, name) != 0)
		c = c->next;
	return c;
}

struct key *table_key_add(struct table *t, const char *name)
{
	struct key *k = w_alloc(sizeof(*k));
	k->name = w_strdup(name);
	k->buckets_n = 64;
	k->buckets = w_alloc(k->buckets_n * sizeof(*k->buckets));
	if (strcmp(name, "PRIMARY") == 0) { /* first, so that rows are shown in its order */
		k->next = t->keys;
		t->keys = k;
		if (!k->next)
			t->keys_last = &k->next;
	} else {
		*t->keys_last = k;
		t->keys_last = &k->next;
	}
	return k;
}

/* ---- cells ----------------------------------------------------------------------------------------------------------- */

static struct cell *cells_copy(const struct cell *cells, unsigned n)
{
	struct cell *to = w_alloc((n ? n : 1) * sizeof(*to));
	for (unsigned i = 0; i < n; i++) {
		to[i] = cells[i];
		if (cells[i].type == CELL_TEXT) {
			char *text = w_alloc(cells[i].n + 1);
			memcpy(text, cells[i].p, cells[i].n);
			to[i].p = text;
		}
	}
	return to;
}

static void cells_free(struct cell *cells, unsigned n)
{
	for (unsigned i = 0; cells && i < n; i++)
		if (cells[i].type == CELL_TEXT)
			w_free((void *)(uintptr_t)cells[i].p);
	w_free(cells);
}

/* ---- keys -------------------------------------------------------------------------------------------------------------- */

/* 0: a NULL among them, which is never equal to anything. */
static uint64_t key_hash(const struct key *k, const struct cell *cells)
{
	uint64_t h = 1;
	for (unsigned i = 0; i < k->n; i++) {
		const struct cell *c = &cells[k->columns[i]];
		if (c->type == CELL_NULL)
			return 0;
		if (c->type == CELL_TEXT)
			h = hash_bytes(h, c->p, c->n);
		else
			h = hash_bytes(h, c->type == CELL_INT ? (const void *)&c->i : &c->d, 8);
	}
	return h | 1;
}

static bool key_equal(const struct key *k, const struct cell *a, const struct cell *b)
{
	for (unsigned i = 0; i < k->n; i++) {
		const struct cell *x = &a[k->columns[i]], *y = &b[k->columns[i]];
		if (x->type == CELL_NULL || !cell_same(x, y))
			return false;
	}
	return true;
}

static void key_grow(struct key *k)
{
	struct key_entry **old = k->buckets;
	size_t n = k->buckets_n;
	k->buckets_n = n * 4;
	k->buckets = w_alloc(k->buckets_n * sizeof(*k->buckets));
	for (size_t i = 0; i < n; i++)
		for (struct key_entry *e = old[i], *next; e; e = next) {
			next = e->next;
			e->next = k->buckets[e->hash % k->buckets_n];
			k->buckets[e->hash % k->buckets_n] = e;
		}
	w_free(old);
}

static void key_add(struct key *k, struct row *r, const struct cell *cells)
{
	uint64_t h = key_hash(k, cells);
	struct key_entry **at = &k->buckets[h % k->buckets_n], *e;
	if (!h)
		return;
	for (e = *at; e; e = e->next)
		if (e->row == r && e->hash == h)
			return;
	e = w_alloc(sizeof(*e));
	*e = (struct key_entry){ *at, r, h };
	*at = e;
	if (++k->entries > 2 * k->buckets_n)
		key_grow(k);
}

/* Drops the entry for cells unless the row still has these values. */
static void key_drop(struct key *k, struct row *r, const struct cell *cells)
{
	uint64_t h = key_hash(k, cells);
	if (!h || (r->committed && key_hash(k, r->committed) == h) ||
	    (r->changed && r->pending && key_hash(k, r->pending) == h))
		return;
	for (struct key_entry **at = &k->buckets[h % k->buckets_n], *e; (e = *at); at = &e->next)
		if (e->row == r && e->hash == h) {
			*at = e->next;
			w_free(e);
			k->entries--;
			return;
		}
}

static void keys_add(struct row *r, const struct cell *cells)
{
	for (struct key *k = r->table->keys; cells && k; k = k->next)
		key_add(k, r, cells);
}

static void keys_drop(struct row *r, const struct cell *cells)
{
	for (struct key *k = r->table->keys; cells && k; k = k->next)
		key_drop(k, r, cells);
}

void key_each(struct key *k, const struct cell *values, void (*fn)(void *arg, struct row *r), void *arg)
{
	uint64_t h = key_hash(k, values);
	for (struct key_entry *e = h ? k->buckets[h % k->buckets_n] : NULL, *next; e; e = next) {
		next = e->next;
		if (e->hash == h)
			fn(arg, e->row);
	}
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------- */

const struct cell *row_seen(const struct row *r, const struct txn *x)
{
	return r->changed && r->owner == x ? r->pending : r->committed;
}

static void row_forget(struct row *r)
{
	*r->prev = r->next;
	if (r->next)
		r->next->prev = r->prev;
	w_free(r);
}

/* Takes away a version that is neither committed nor pending any more. */
static void version_free(struct row *r, struct cell *cells)
{
	if (!cells)
		return;
	keys_drop(r, cells);
	cells_free(cells, r->table->columns_n);
}

static struct undo *log_add(struct txn *x, struct row *r)
{
	if (x->n == x->cap) {
		x->cap = x->cap ? x->cap * 2 : 16;
		x->log = w_realloc(x->log, x->cap * sizeof(*x->log));
	}
	struct undo *u = &x->log[x->n++];
	*u = (struct undo){ .row = r, .pending = r->pending, .changed = r->changed, .locked = !r->owner };
	r->owner = x;
	return u;
}

void row_lock(struct row *r, struct txn *x)
{
	assert(!r->owner || r->owner == x);
	if (!r->owner)
		log_add(x, r);
}

void row_change(struct row *r, struct txn *x, const struct cell *cells)
{
	assert(!r->owner || r->owner == x);
	log_add(x, r);
	r->pending = cells ? cells_copy(cells, r->table->columns_n) : NULL;
	r->changed = true;
	keys_add(r, r->pending);
}

struct row *table_insert(struct table *t, struct txn *x, const struct cell *cells)
{
	struct row *r = w_alloc(sizeof(*r));
	r->table = t;
	r->serial = t->serial_next++;
	r->next = t->rows;
	r->prev = &t->rows;
	if (r->next)
		r->next->prev = &r->next;
	t->rows = r;
	row_change(r, x, cells);
	return r;
}

struct search {
	struct txn *txn;
	const struct cell *cells;
	const struct row *except;
	struct key *key;
	struct row *found;
	bool waits;
};

static void look(void *arg, struct row *r)
{
	struct search *s = arg;
	const struct cell *seen = row_seen(r, s->txn);
	if (r == s->except)
		return;
	if (r->owner && r->owner != s->txn) { /* whether it stays as it is, is not decided */
		if ((r->committed && key_equal(s->key, r->committed, s->cells)) ||
		    (r->pending && key_equal(s->key, r->pending, s->cells))) {
			s->waits = true;
			s->txn->waits_for = r->owner;
		}
	} else if (seen && key_equal(s->key, seen, s->cells)) {
		s->found = r;
	}
}

unsigned table_conflict(struct table *t, struct txn *x, const struct cell *cells, const struct row *except,
			struct row **found, struct key **key)
{
	struct search s = { .txn = x, .cells = cells, .except = except };
	for (s.key = t->keys; s.key; s.key = s.key->next) {
		key_each(s.key, cells, look, &s);
		if (s.waits)
			return SQL_WAIT;
		if (s.found) {
			*found = s.found;
			*key = s.key;
			return 1062;
		}
	}
	return 0;
}

/* ---- transactions ---------------------------------------------------------------------------------------------------------- */

void txn_revert(struct txn *x, size_t to)
{
	while (x->n > to) {
		struct undo *u = &x->log[--x->n];
		struct row *r = u->row;
		struct cell *gone = r->changed && r->pending != u->pending ? r->pending : NULL;
		r->pending = u->pending;
		r->changed = u->changed;
		if (u->locked)
			r->owner = NULL;
		version_free(r, gone);
		if (!r->committed && !r->changed && !r->owner)
			row_forget(r);
	}
}

/* Of each row the newest version becomes the committed one; those it replaced on the way go. */
void txn_commit(struct txn *x)
{
	for (size_t i = 0; i < x->n; i++) {
		struct undo *u = &x->log[i];
		if (u->changed && u->pending != u->row->pending)
			version_free(u->row, u->pending);
	}
	for (size_t i = 0; i < x->n; i++) {
		struct row *r = x->log[i].row;
		if (!x->log[i].locked)
			continue; /* each row has one entry that took the lock */
		struct cell *old = r->changed ? r->committed : NULL;
		if (r->changed)
			r->committed = r->pending;
		r->changed = false;
		r->pending = NULL;
		r->owner = NULL;
		version_free(r, old);
		if (!r->committed)
			row_forget(r);
	}
	x->n = 0;
	x->open = false;
}

void txn_rollback(struct txn *x)
{
	txn_revert(x, 0);
	x->open = false;
}
