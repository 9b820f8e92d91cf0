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

/* Of this memory alone, and as quick as that needs. */
static uint64_t name_hash(struct span s)
{
	uint64_t h = s.n, word = 0;
	size_t at = 0;

	for (; at + 8 <= s.n; at += 8) {
		memcpy(&word, s.p + at, 8);
		h = (h ^ word) * 0x9e3779b97f4a7c15u;
		h ^= h >> 32;
	}
	word = 0;
	if (at < s.n)
		memcpy(&word, s.p + at, s.n - at);
	h = (h ^ word) * 0x9e3779b97f4a7c15u;
	return h ^ h >> 32;
}

static uint64_t hash_of(uint64_t hash, struct span s)
{
	return once_hash(hash, s.p ? s.p : "", s.n);
}

static inline uint64_t word_at(const char *p)
{
	uint64_t word;

	memcpy(&word, p, 8);
	return word;
}

/* Most are of 8 to 32 bytes. */
static inline bool same(const char *p, size_t n, struct span s)
{
	if (n != s.n)
		return false;
	if (n < 8)
		return !n || !memcmp(p, s.p, n);
	for (size_t at = 0; at < n - 8; at += 8)
		if (word_at(p + at) != word_at(s.p + at))
			return false;
	return word_at(p + n - 8) == word_at(s.p + n - 8);
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

/* What is seldom done is not inlined into what each call does: that would save and load registers for it. */
#define SELDOM __attribute__((noinline, cold))

static SELDOM void table_grow(struct once_table *t)
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

static inline void table_put(struct once_table *t, struct once_node *n, uint64_t hash)
{
	if (t->n >= t->size)
		table_grow(t);
	n->hash = hash;
	n->next = t->at[hash & (t->size - 1)];
	t->at[hash & (t->size - 1)] = n;
	t->n++;
}

static void table_take(struct once_table *t, struct once_node *n)
{
	struct once_node **at = &t->at[n->hash & (t->size - 1)];

	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	t->n--;
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

void once_wake(struct once_waiters *list)
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

static struct once_owner *owner_of(struct once_node *n)
{
	return (struct once_owner *)n;
}

static void owner_used(struct once_server *s, struct once_owner *o)
{
	o->used_ms = s->now_ms;
	if (s->owners_used.prev == &o->used) /* it was already used last */
		return;
	once_ring_take(&o->used);
	once_ring_put(&s->owners_used, &o->used);
}

static SELDOM struct once_owner *owner_new(struct once_server *s, struct span name, uint64_t hash)
{
	struct once_owner *o = once_make(sizeof(*o));

	o->name = copy(name);
	o->name_n = name.n;
	o->loaded = !s->o.stored;
	once_ring_init(&o->used);
	once_ring_put(&s->owners_used, &o->used);
	o->used_ms = s->now_ms;
	table_put(&s->owners, &o->node, hash);
	s->figures.bytes += sizeof(*o) + name.n;
	return o;
}

struct once_owner *once_owner_get(struct once_server *s, struct span name)
{
	uint64_t hash = name_hash(name);

	for (struct once_node *n = once_table_first(&s->owners, hash); n; n = n->next)
		if (n->hash == hash && same(owner_of(n)->name, owner_of(n)->name_n, name)) {
			owner_used(s, owner_of(n));
			return owner_of(n);
		}
	return owner_new(s, name, hash);
}

/* An owner of whom nothing is known and nothing is under way needs no place. */
void once_owner_tidy(struct once_server *s, struct once_owner *o)
{
	if (o->entries || o->debts || o->loading || o->lost || o->waiters.first || (s->o.stored && o->loaded))
		return;
	table_take(&s->owners, &o->node);
	once_ring_take(&o->used);
	once_set_release(s, &o->set);
	s->figures.bytes -= sizeof(*o) + o->name_n;
	free(o->name);
	free(o);
}

/* ---- leases -------------------------------------------------------------------------- */

static SELDOM struct once_lease *lease_to_front(struct once_server *s, struct span name, uint64_t now_ms)
{
	struct once_lease *l = s->leases, **at = &s->leases;

	while (l && !same(l->name, l->name_n, name)) {
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

/* In front: the next call is often the same client's. */
struct once_lease *once_lease_get(struct once_server *s, struct span name, uint64_t now_ms)
{
	struct once_lease *l = s->leases;

	return l && same(l->name, l->name_n, name) ? l : lease_to_front(s, name, now_ms);
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

#if defined(__SANITIZE_ADDRESS__)
static const int SPARES = 0; /* so that the sanitizer sees each block */
#else
static const int SPARES = ONCE_SPARE_MAX;
#endif

static SELDOM struct once_entry *block_new(size_t room)
{
	struct once_entry *e = room == ONCE_ROOM ? aligned_alloc(64, ONCE_BLOCK) : malloc(ONCE_HEADER + room);

	assert(e);
	return e;
}

static inline struct once_entry *block_take(struct once_server *s, size_t text_n)
{
	size_t room = text_n <= ONCE_ROOM ? ONCE_ROOM : text_n;
	struct once_entry *e = room == ONCE_ROOM ? s->spare : NULL;

	if (e) {
		s->spare = entry_of(e->node.next);
		s->spares--;
	} else {
		e = block_new(room);
	}
	memset(e, 0, ONCE_HEADER);
	e->room = (uint32_t)room;
	s->figures.bytes += ONCE_HEADER + room;
	return e;
}

static void block_give(struct once_server *s, struct once_entry *e)
{
	s->figures.bytes -= ONCE_HEADER + e->room;
	if (e->room == ONCE_ROOM && s->spares < SPARES) {
		e->node.next = &s->spare->node;
		s->spare = e;
		s->spares++;
	} else {
		free(e);
	}
}

void once_spares_free(struct once_server *s)
{
	for (struct once_entry *e = s->spare, *next; e; e = next) {
		next = entry_of(e->node.next);
		free(e);
	}
}

static struct once_entry *entry_new(struct once_server *s, struct once_owner *o, struct span method, struct span key)
{
	struct once_entry *e = block_take(s, method.n + key.n);

	e->owner = o;
	span_copy(span_copy(e->text, method), key);
	assert(method.n <= UINT16_MAX && key.n <= UINT16_MAX);
	e->method_n = (uint16_t)method.n;
	e->key_n = (uint16_t)key.n;
	o->entries++;
	once_ring_init(&e->used);
	return e;
}

struct once_entry *once_entry_of_key(struct once_server *s, struct once_owner *o, struct span method, struct span key,
				     uint64_t id)
{
	struct once_entry *e = entry_new(s, o, method, key);

	table_put(&s->keys, &e->node, id);
	return e;
}

struct once_entry *once_entry_of_seq(struct once_server *s, struct once_owner *o, struct span method,
				     struct once_lease *l, uint64_t seq)
{
	struct once_entry *e = entry_new(s, o, method, span_of("", 0));

	e->lease = l;
	e->seq = seq;
	if (seq > l->top)
		l->top = seq;
	table_put(&l->sequences, &e->node, seq);
	return e;
}

/* Behind the text of its own block, or NULL: it does not fit there. */
static char *answer_place(struct once_entry *e, size_t n)
{
	return n <= e->room - e->method_n - e->key_n ? e->text + e->method_n + e->key_n : NULL;
}

void once_entry_answer_drop(struct once_server *s, struct once_entry *e)
{
	if (e->answer && !answer_place(e, e->answer_n)) {
		s->figures.bytes -= e->answer_n;
		free(e->answer);
	}
	e->answer = NULL;
	e->answer_n = 0;
	once_ring_take(&e->used);
}

/* Its owner stays, for owner_tidy. */
void once_entry_free(struct once_server *s, struct once_entry *e)
{
	assert(!e->waiters.first);
	once_entry_answer_drop(s, e);
	if (e->state == ONCE_STORED && !e->key_n)
		s->figures.stored--;
	s->figures.running -= e->state == ONCE_RUNNING;
	table_take(e->key_n ? &s->keys : &e->lease->sequences, &e->node);
	e->owner->entries--;
	once_entry_called(e);
	block_give(s, e);
}

void once_entry_used(struct once_server *s, struct once_entry *e)
{
	once_ring_take(&e->used);
	once_ring_put(&s->answers_used, &e->used);
	e->used_ms = (uint32_t)s->now_ms;
}

void once_entry_answer_set(struct once_server *s, struct once_entry *e, bool json, struct span answer)
{
	e->json = json;
	e->answer = answer_place(e, answer.n);
	e->answer_n = (uint32_t)answer.n;
	if (!e->answer) {
		e->answer = copy(answer);
		s->figures.bytes += answer.n;
	} else {
		span_copy(e->answer, answer);
	}
	once_entry_used(s, e);
}

struct once_entry *once_entry_find_key(const struct once_server *s, const struct once_owner *o, struct span method,
				       struct span key, uint64_t hash)
{
	for (struct once_node *n = once_table_first(&s->keys, hash); n; n = n->next) {
		struct once_entry *e = entry_of(n);

		if (n->hash == hash && e->owner == o && same(e->text, e->method_n, method) &&
		    same(e->text + e->method_n, e->key_n, key))
			return e;
	}
	return NULL;
}

struct once_entry *once_entry_find_seq(const struct once_owner *o, const struct once_lease *l, uint64_t seq)
{
	if (seq > l->top)
		return NULL;
	for (struct once_entry *e = once_entry_at(&l->sequences, seq); e; e = entry_of(e->node.next))
		if (e->seq == seq && e->owner == o)
			return e;
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
