#include "rpc/once_private.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- hashes ------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h)
{
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93u;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93u;
	return h ^ h >> 32;
}

uint64_t once_hash(uint64_t hash, const void *p, size_t n)
{
	const char *at = p;
	uint64_t h = (hash + n) * 0x9e3779b97f4a7c15u, word;

	size_t left = n;

#pragma GCC unroll 4
	for (; left >= 8; left -= 8, at += 8) {
		memcpy(&word, at, 8);
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 29;
	}
	word = 0;
	if (left && n >= 8) { /* the last bytes, in one piece: some before them are shifted out */
		memcpy(&word, at + left - 8, 8);
		word >>= 64 - 8 * left;
	} else if (left) {
		memcpy(&word, at, left);
	}
	return mix(h ^ word);
}

/* ---- fingerprints */

/* Of up to 7 bytes. */
static inline uint64_t word_of_some(const char *p, size_t n)
{
	uint64_t word = 0;

	for (size_t i = 0; i < n; i++)
		word |= (uint64_t)(unsigned char)p[i] << 8 * i;
	return word;
}

uint64_t once_fingerprint(uint64_t before, const void *bytes, size_t n)
{
	const char *p = bytes, *end = p + n;
	uint64_t h = before ^ ONCE_ODD[0], lane1 = h, lane2 = h, first, last;

	for (; end - p > 48; p += 48) {
		h = once_fold(once_word(p) ^ ONCE_ODD[1], once_word(p + 8) ^ h);
		lane1 = once_fold(once_word(p + 16) ^ ONCE_ODD[2], once_word(p + 24) ^ lane1);
		lane2 = once_fold(once_word(p + 32) ^ ONCE_ODD[3], once_word(p + 40) ^ lane2);
	}
	if (n > 48)
		h ^= lane1 ^ lane2;
	for (; end - p > 16; p += 16)
		h = once_fold(once_word(p) ^ ONCE_ODD[2], once_word(p + 8) ^ h);
	if (n >= 16) { /* the last bytes, some of them again */
		first = once_word(end - 16);
		last = once_word(end - 8);
	} else if (n >= 8) {
		first = once_word(p);
		last = once_word(end - 8);
	} else {
		first = word_of_some(p, n);
		last = 0;
	}
	return once_fold(once_fold(first ^ ONCE_ODD[1], last ^ h), ONCE_ODD[0] ^ n);
}

static uint64_t hash_of(uint64_t hash, struct span s)
{
	return once_hash(hash, s.p ? s.p : "", s.n);
}

void *once_make(size_t n)
{
	void *p = malloc(n); /* not calloc: that passes glibc's cache of freed blocks by */

	assert(p);
	return memset(p, 0, n);
}

static char *copy(struct span s)
{
	char *p = once_make(s.n + 1);

	if (s.n)
		memcpy(p, s.p, s.n);
	return p;
}

void once_table_grow(struct once_table *t)
{
	size_t size = t->size ? t->size * 2 : 64;
	struct once_node **at = once_make(size * sizeof(*at));

	for (size_t i = 0; i < t->size; i++)
		for (struct once_node *x = t->at[i], *next; x; x = next) {
			next = x->next;
			x->next = at[x->hash & (size - 1)];
			at[x->hash & (size - 1)] = x;
		}
	free(t->at);
	t->at = at;
	t->size = size;
}

/* ---- who waits ---------------------------------------------------------------------------------------------------- */

void once_wait(struct once_waiters *list, struct once_waiter *w)
{
	assert(!w->prev);
	if (!list->first)
		list->last = &list->first;
	w->next = NULL;
	w->prev = list->last;
	*list->last = w;
	list->last = &w->next;
	w->list = list;
}

void once_leave(struct once_waiter *w)
{
	if (!w->prev)
		return;
	*w->prev = w->next;
	if (w->next)
		w->next->prev = w->prev;
	else
		w->list->last = w->prev;
	w->prev = NULL;
	w->next = NULL;
}

void once_waiters_move(struct once_waiters *from, struct once_waiters *to)
{
	while (from->first) {
		struct once_waiter *w = from->first;

		once_leave(w);
		once_wait(to, w);
	}
}

void once_wake_all(struct once_waiters *list)
{
	while (list->first) {
		struct once_waiter *w = list->first;

		once_leave(w);
		w->fn(w);
	}
}

/* ---- the hashes of an owner's business keys: open addressing, 0 is empty ----------------------------------------------- */

bool once_set_has(const struct once_set *set, uint64_t hash)
{
	hash = hash ? hash : 1;
	for (size_t i = hash; set->size && set->at[i & (set->size - 1)]; i++)
		if (set->at[i & (set->size - 1)] == hash)
			return true;
	return false;
}

static void set_place(struct once_set *set, uint64_t hash)
{
	size_t i = hash;

	while (set->at[i & (set->size - 1)])
		i++;
	set->at[i & (set->size - 1)] = hash;
}

void once_set_add(struct once_server *s, struct once_set *set, uint64_t hash)
{
	if (once_set_has(set, hash))
		return;
	if (4 * (set->n + 1) > 3 * set->size) {
		struct once_set old = *set;

		set->size = old.size ? old.size * 2 : 8;
		set->at = once_make(set->size * sizeof(*set->at));
		for (size_t i = 0; i < old.size; i++)
			if (old.at[i])
				set_place(set, old.at[i]);
		s->figures.bytes += (set->size - old.size) * sizeof(*set->at);
		free(old.at);
	}
	set_place(set, hash ? hash : 1);
	set->n++;
	s->figures.stored++;
}

void once_set_release(struct once_server *s, struct once_set *set)
{
	s->figures.bytes -= set->size * sizeof(*set->at);
	s->figures.stored -= set->n;
	free(set->at);
	*set = (struct once_set){ .at = NULL };
}

/* ---- owners -------------------------------------------------------------------------------------------------------- */

struct once_owner *once_owner_new(struct once_server *s, struct span name, uint64_t hash)
{
	struct once_owner *o = once_make(sizeof(*o));

	o->name = copy(name);
	o->name_n = name.n;
	o->loaded = !s->o.stored;
	once_ring_init(&o->used);
	once_ring_put(&s->owners_used, &o->used);
	once_table_put(&s->owners, &o->node, hash);
	s->figures.bytes += sizeof(*o) + name.n;
	return o;
}

void once_owner_drop(struct once_server *s, struct once_owner *o)
{
	once_table_take(&s->owners, once_table_place(&s->owners, &o->node));
	once_ring_take(&o->used);
	once_set_release(s, &o->set);
	s->figures.bytes -= sizeof(*o) + o->name_n;
	free(o->name);
	free(o);
}

/* ---- leases -------------------------------------------------------------------------- */

struct once_lease *once_lease_to_front(struct once_server *s, struct span name, uint64_t now_ms)
{
	struct once_lease *l = s->leases, **at = &s->leases;

	while (l && !once_same(l->name, l->name_n, name)) {
		at = &l->next;
		l = l->next;
	}
	if (l) {
		*at = l->next;
	} else {
		l = once_make(sizeof(*l));
		l->name = copy(name);
		l->name_n = name.n;
		l->seen_ms = now_ms;
	}
	l->next = s->leases;
	s->leases = l;
	return l;
}

void once_lease_free(struct once_lease *l)
{
	free(l->sequences.at);
	free(l->name);
	free(l);
}

void once_debt_add(struct once_server *s, struct once_owner *o, struct once_lease *l)
{
	struct once_debt *d = o->debts;

	while (d && d->lease != l)
		d = d->next;
	if (!d) {
		d = once_make(sizeof(*d));
		d->lease = l;
		d->owner = o;
		d->next = o->debts;
		o->debts = d;
		l->debts++;
		once_ring_init(&d->all);
		once_ring_put(&s->debts, &d->all);
	}
	d->rows++;
}

void once_debt_free(struct once_debt *d)
{
	struct once_debt **at = &d->owner->debts;

	while (*at != d)
		at = &(*at)->next;
	*at = d->next;
	d->lease->debts--;
	once_ring_take(&d->all);
	free(d);
}

/* ---- entries -------------------------------------------------------------------------------------------------------- */

static struct once_entry *entry_of(struct once_node *n)
{
	return (struct once_entry *)n;
}

struct once_entry *once_block_new(size_t room)
{
	struct once_entry *e = room == ONCE_ROOM ? aligned_alloc(64, ONCE_BLOCK) : malloc(ONCE_HEADER + room);

	assert(e);
	return e;
}

void once_block_free(struct once_entry *e)
{
	free(e);
}

void once_spares_free(struct once_server *s)
{
	for (struct once_entry *e = s->spare, *next; e; e = next) {
		next = entry_of(e->node.next);
		free(e);
	}
}

struct once_entry *once_entry_of_key(struct once_server *s, struct once_owner *o, struct span method, struct span key,
				     uint64_t id)
{
	struct once_entry *e = once_entry_new(s, o, method, key);

	once_table_put(&s->keys, &e->node, id);
	return e;
}

void once_answer_apart(struct once_server *s, struct once_entry *e, struct span answer)
{
	e->answer = copy(answer);
	e->apart = true;
	s->figures.bytes += answer.n;
}

void once_answer_free(struct once_server *s, struct once_entry *e)
{
	s->figures.bytes -= e->answer_n;
	free(e->answer);
	e->apart = false;
}

void once_entry_answer_drop(struct once_server *s, struct once_entry *e)
{
	if (e->apart)
		once_answer_free(s, e);
	e->answer = NULL;
	e->answer_n = 0;
	once_ring_take(&e->used);
}

void once_entry_used(struct once_server *s, struct once_entry *e)
{
	once_ring_take(&e->used);
	once_ring_put(&s->answers_used, &e->used);
	e->used_ms = (uint32_t)s->now_ms;
}

void once_entry_free(struct once_server *s, struct once_entry *e)
{
	bool sequence = !e->key_n;
	struct once_table *t = sequence ? &e->lease->sequences : &s->keys;

	s->figures.stored -= sequence && e->state == ONCE_STORED;
	s->figures.running -= e->state == ONCE_RUNNING;
	once_table_take(t, once_table_place(t, &e->node));
	once_entry_called(e);
	once_entry_release(s, e);
}

struct once_entry *once_entry_find_key(const struct once_server *s, const struct once_owner *o, struct span method,
				       struct span key, uint64_t hash)
{
	for (struct once_node *n = once_table_first(&s->keys, hash); n; n = n->next) {
		struct once_entry *e = entry_of(n);

		if (n->hash == hash && e->owner == o && once_same(e->text, e->method_n, method) &&
		    once_same(e->text + e->method_n, e->key_n, key))
			return e;
	}
	return NULL;
}

uint64_t once_key_hash(struct span method, struct span key)
{
	return hash_of(hash_of(0, method), key);
}

uint64_t once_id_of_key(const struct once_owner *o, uint64_t hash)
{
	return mix(o->node.hash ^ hash);
}
