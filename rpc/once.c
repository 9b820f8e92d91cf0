#include "rpc/once.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/once_private.h"

#define BYTES_MAX (64u << 20)
#define SPARED_MS 100 /* what was just read stays until who waits for it has asked */

/* ---- forgetting ------------------------------------------------------------------------------------------------------- */

/* An answer whose entry was found at this place of its lease's sequences. */
static inline void acknowledged(struct once_server *s, struct once_node **at)
{
	struct once_entry *e = (struct once_entry *)*at;
	struct once_owner *o = e->owner;

	if (s->o.stored)
		once_debt_add(s, o, e->lease);
	once_table_take(&e->lease->sequences, at);
	s->figures.stored--;
	s->figures.forgotten++;
	once_entry_release(s, e);
	once_owner_tidy(s, o);
}

static ONCE_SELDOM void acknowledged_late(struct once_server *s, struct once_entry *e)
{
	acknowledged(s, once_table_place(&e->lease->sequences, &e->node));
}

/* Not inlined: who wakes nobody needs no list of his own. */
static ONCE_SELDOM void ended(struct once_server *s, struct once_entry *e)
{
	struct once_owner *o = e->owner;
	struct once_waiters waiters = { .first = NULL };

	once_waiters_move(&e->waiters, &waiters);
	once_entry_free(s, e);
	once_owner_tidy(s, o);
	once_wake(&waiters);
}

/* The next call acknowledges this one: its lines come while what lies in between is done. */
static inline void fetch(const struct once_node *n)
{
#pragma GCC unroll 4
	for (size_t at = 0; n && at < ONCE_BLOCK; at += 64)
		__builtin_prefetch((const char *)n + at, 1);
}

/* Those at one place of a lease's sequences that are below first. What runs or is being read is looked at again at its end. */
static inline void acknowledge(struct once_server *s, struct once_node **at, uint64_t first)
{
	for (struct once_entry *e; (e = (struct once_entry *)*at);) {
		if (e->seq < first && e->state == ONCE_STORED)
			acknowledged(s, at);
		else if (e->seq < first && e->state == ONCE_ENDED)
			ended(s, e);
		else
			at = &e->node.next;
	}
}

static inline void lease_advance(struct once_server *s, struct once_lease *l, uint64_t first)
{
	uint64_t seq = l->first, places = first - seq;
	struct once_table *t = &l->sequences;

	l->first = first;
	if (places > t->size)
		places = t->size;
	for (; places && t->n; places--, seq++) {
		fetch(t->at[(seq + 1) & (t->size - 1)]);
		acknowledge(s, &t->at[seq & (t->size - 1)], first);
	}
}

static void owner_unload(struct once_server *s, struct once_owner *o)
{
	once_set_release(s, &o->set);
	o->loaded = false;
	once_owner_tidy(s, o);
}

static bool may_go(const struct once_server *s, uint64_t used_ms)
{
	return s->figures.bytes > s->o.bytes_max && s->now_ms - used_ms >= SPARED_MS;
}

static void entry_evict(struct once_server *s, struct once_entry *e)
{
	struct once_owner *o = e->owner;

	if (e->key_n) {
		once_entry_free(s, e);
		once_owner_tidy(s, o);
	} else {
		once_entry_answer_drop(s, e);
		e->unreadable = !s->o.stored;
	}
}

/* Answers go before sets: who is asked for one again reads a row, who has no set reads them all. */
static void evict(struct once_server *s)
{
	if (s->figures.bytes <= s->o.bytes_max)
		return;
	while (!once_ring_empty(&s->answers_used)) {
		struct once_entry *e = ONCE_FROM_RING(s->answers_used.next, struct once_entry, used);

		if (!may_go(s, s->now_ms - ((uint32_t)s->now_ms - e->used_ms)))
			break;
		entry_evict(s, e);
	}
	for (struct once_ring *r = s->owners_used.next, *next; s->o.stored && r != &s->owners_used; r = next) {
		struct once_owner *o = ONCE_FROM_RING(r, struct once_owner, used);

		next = r->next;
		if (!may_go(s, o->used_ms))
			break;
		if (o->loaded)
			owner_unload(s, o);
	}
}

bool once_forget(struct once_server *s, const struct once_entry *of, unsigned at_least, struct once_forget *out)
{
	struct once_debt *d = of ? of->owner->debts : NULL;

	if (!of && !once_ring_empty(&s->debts))
		d = ONCE_FROM_RING(s->debts.next, struct once_debt, all);
	while (of && d && d->rows < at_least)
		d = d->next;
	if (!d || d->rows < at_least)
		return false;
	struct once_owner *o = d->owner;

	s->forget_owner = o->name_n < sizeof(s->forget_text) ? o->name_n : sizeof(s->forget_text);
	memcpy(s->forget_text, o->name, s->forget_owner);
	out->owner = span_of(s->forget_text, s->forget_owner);
	out->client = span_of(d->lease->name, d->lease->name_n);
	out->below = d->lease->first;
	once_debt_free(d);
	if (!of)
		once_owner_tidy(s, o);
	return true;
}

bool once_tick(struct once_server *s, uint64_t now_ms)
{
	for (struct once_lease **at = &s->leases, *l; (l = *at);) {
		if (now_ms - l->seen_ms >= s->o.lease_ms && l->top >= l->first)
			lease_advance(s, l, l->top + 1);
		if (now_ms - l->seen_ms < s->o.lease_ms || l->sequences.n || l->debts || l->calls) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		once_lease_free(l);
	}
	return s->leases != NULL;
}

/* ---- asking ------------------------------------------------------------------------------------------------------------ */

/* A business key runs for this call. */
static void entry_called(struct once_entry *e, struct once_lease *l, uint64_t seq)
{
	e->lease = l && seq ? l : NULL;
	e->seq = seq;
	if (e->lease)
		l->calls++;
}

static enum once_verdict known(struct once_server *s, struct once_entry *e, struct once_lease *l,
			       const struct once_call *c, struct once_result *out)
{
	out->entry = e;
	out->waiters = &e->waiters;
	if (e->state == ONCE_READING)
		return ONCE_WAIT;
	if (e->state == ONCE_ENDED) {
		out->err = e->err;
		out->effect = e->effect;
		out->answer = span_of(e->answer, e->answer_n);
		return ONCE_REFUSED;
	}
	if (e->state == ONCE_ABSENT) {
		once_ring_take(&e->used);
		e->state = ONCE_RUNNING;
		e->fingerprint = c->fingerprint;
		entry_called(e, l, c->seq);
		s->figures.running++;
		return ONCE_RUN;
	}
	if (e->state == ONCE_STORED && !e->answer) {
		if (e->unreadable) {
			s->figures.refused++;
			return ONCE_FORGOTTEN;
		}
		if (!e->key_n)
			s->figures.stored--;
		e->state = ONCE_READING;
		return ONCE_READ;
	}
	if (e->fingerprint != c->fingerprint && e->fingerprint) {
		s->figures.refused++;
		return ONCE_REUSED;
	}
	if (e->state == ONCE_RUNNING)
		return ONCE_WAIT;
	once_entry_used(s, e);
	s->figures.repeats++;
	out->answer = span_of(e->answer, e->answer_n);
	out->json = e->json;
	return ONCE_DONE;
}

static enum once_verdict owner_load(struct once_owner *o, struct once_result *out)
{
	out->owner = o;
	out->waiters = &o->waiters;
	if (o->loading)
		return ONCE_WAIT;
	o->loading = true;
	return ONCE_LOAD;
}

static enum once_verdict start(struct once_server *s, struct once_owner *o, struct once_lease *l,
			       const struct once_call *c, uint64_t hash, uint64_t id, struct once_result *out)
{
	bool was_answered = c->key.n && s->o.stored && once_set_has(&o->set, hash);
	struct once_entry *e = c->key.n ? once_entry_of_key(s, o, c->method, c->key, id)
					: once_entry_of_seq(s, o, c->method, l, c->seq);

	e->fingerprint = c->fingerprint;
	e->seq = c->seq;
	if (c->key.n && !was_answered)
		entry_called(e, l, c->seq);
	e->state = was_answered ? ONCE_READING : ONCE_RUNNING;
	s->figures.running += !was_answered;
	out->entry = e;
	out->waiters = &e->waiters;
	return was_answered ? ONCE_READ : ONCE_RUN;
}

enum once_verdict once_ask(struct once_server *s, const struct once_call *c, uint64_t now_ms, struct once_result *out)
{
	struct once_lease *l = c->client.n ? once_lease_get(s, c->client, now_ms) : NULL;
	bool sequence = !c->key.n;

	*out = (struct once_result){ .entry = NULL };
	assert(!sequence || (l && c->seq));
	s->now_ms = now_ms;
	if (l) {
		l->seen_ms = now_ms;
		if (c->first_incomplete > l->first)
			lease_advance(s, l, c->first_incomplete);
	}
	if (l && c->seq && c->seq < l->first) {
		s->figures.refused++;
		return ONCE_FORGOTTEN;
	}
	evict(s);
	struct once_owner *o = once_owner_get(s, c->owner);
	uint64_t hash = sequence ? 0 : once_key_hash(c->method, c->key);
	uint64_t id = 0;
	struct once_entry *e = l && c->seq ? once_entry_find_seq(o, l, c->seq) : NULL;

	if (!e && !sequence) {
		id = once_id_of_key(o, hash);
		e = once_entry_find_key(s, o, c->method, c->key, id);
	}
	if (e)
		return known(s, e, l, c, out);
	/* a number that was never sent before is new, whatever is known of the owner; unless it is this that was lost */
	if (!o->loaded && !(sequence && c->attempt == 0 && !o->lost))
		return owner_load(o, out);
	return start(s, o, l, c, hash, id, out);
}

enum once_verdict once_know(struct once_server *s, struct span owner, uint64_t now_ms, struct once_result *out)
{
	struct once_owner *o;

	s->now_ms = now_ms;
	evict(s);
	o = once_owner_get(s, owner);
	*out = (struct once_result){ .owner = o };
	return o->loaded ? ONCE_DONE : owner_load(o, out);
}

/* ---- the ends ------------------------------------------------------------------------------------------------------------ */

static void now_stored(struct once_server *s, struct once_entry *e)
{
	e->state = ONCE_STORED;
	once_wake(&e->waiters);
	if (e->key_n)
		return;
	s->figures.stored++;
	if (e->seq < e->lease->first)
		acknowledged_late(s, e);
}

void once_done(struct once_server *s, struct once_entry *e, bool json, struct span answer)
{
	assert(e->state == ONCE_RUNNING);
	s->figures.running--;
	once_entry_called(e);
	once_entry_answer_set(s, e, json, answer);
	if (e->key_n && s->o.stored)
		once_set_add(s, &e->owner->set,
			     once_key_hash(span_of(e->text, e->method_n), span_of(e->text + e->method_n, e->key_n)));
	now_stored(s, e);
}

void once_gone(struct once_server *s, struct once_entry *e)
{
	assert(e->state == ONCE_RUNNING);
	ended(s, e);
}

/* Stands for a call under a business key that was told an error: only the call is known by it, not the key. */
static struct once_entry *caller_entry(struct once_server *s, struct once_entry *e)
{
	struct once_lease *l = e->lease;

	if (!l || e->seq < l->first)
		return NULL;
	return once_entry_of_seq(s, e->owner, span_of("", 0), l, e->seq);
}

void once_refused(struct once_server *s, struct once_entry *e, int err, enum effect effect, struct span message)
{
	struct once_entry *told = e->key_n ? caller_entry(s, e) : e;

	assert(e->state == ONCE_RUNNING);
	if (told) {
		told->err = (int16_t)err;
		told->effect = effect;
		once_entry_answer_set(s, told, false, message);
	}
	if (told != e) {
		if (told)
			told->state = ONCE_ENDED;
		once_gone(s, e);
		return;
	}
	s->figures.running--;
	e->state = ONCE_ENDED;
	once_wake(&e->waiters);
	if (e->seq < e->lease->first)
		ended(s, e);
}

void once_lost(struct once_server *s, struct once_entry *e)
{
	struct once_owner *o = e->owner;

	assert(e->state == ONCE_RUNNING);
	o->stale = o->loading;
	o->lost = s->o.stored;
	if (s->o.stored && o->loaded) {
		once_set_release(s, &o->set);
		o->loaded = false;
	}
	ended(s, e);
}

void once_load_row(struct once_server *s, struct once_owner *o, uint64_t hash, struct span client, uint64_t seq,
		   uint64_t now_ms)
{
	if (!client.n) {
		once_set_add(s, &o->set, hash);
		return;
	}
	struct once_lease *l = once_lease_get(s, client, now_ms);

	if (once_entry_find_seq(o, l, seq))
		return;
	if (seq < l->first) {
		once_debt_add(s, o, l);
		return;
	}
	once_entry_of_seq(s, o, span_of("", 0), l, seq)->state = ONCE_STORED;
	s->figures.stored++;
}

void once_loaded(struct once_server *s, struct once_owner *o, bool ok)
{
	struct once_waiters waiters = { .first = NULL };

	assert(o->loading);
	o->loading = false;
	o->used_ms = s->now_ms;
	o->loaded = ok && !o->stale;
	o->stale = false;
	o->lost = o->lost && !o->loaded;
	if (!o->loaded)
		once_set_release(s, &o->set);
	once_waiters_move(&o->waiters, &waiters);
	once_owner_tidy(s, o);
	once_wake(&waiters);
}

void once_owner_key(struct once_owner *o, uint64_t key_hash)
{
	o->key_hash = key_hash;
}

void once_unload(struct once_server *s, bool (*kept)(const void *arg, uint64_t key_hash), const void *arg)
{
	for (struct once_ring *r = s->owners_used.next, *next; s->o.stored && r != &s->owners_used; r = next) {
		struct once_owner *o = ONCE_FROM_RING(r, struct once_owner, used);

		next = r->next;
		if ((!o->loaded && !o->loading) || kept(arg, o->key_hash))
			continue;
		o->stale = o->loading;
		if (o->loaded)
			owner_unload(s, o);
	}
}

void once_read(struct once_server *s, struct once_entry *e, uint64_t fingerprint, bool json, struct span answer)
{
	assert(e->state == ONCE_READING);
	e->fingerprint = fingerprint;
	once_entry_answer_set(s, e, json, answer);
	now_stored(s, e);
}

void once_read_failed(struct once_server *s, struct once_entry *e, bool absent)
{
	assert(e->state == ONCE_READING);
	if (e->key_n && !absent) {
		ended(s, e);
		return;
	}
	if (e->key_n) { /* two keys with one hash: this one is new */
		e->state = ONCE_ABSENT;
		once_entry_used(s, e);
		once_wake(&e->waiters);
		return;
	}
	e->unreadable = absent;
	now_stored(s, e);
}

void once_row(const struct once_entry *e, struct once_row *out)
{
	*out = (struct once_row){
		.owner = span_of(e->owner->name, e->owner->name_n),
		.method = span_of(e->text, e->method_n),
		.key = span_of(e->text + e->method_n, e->key_n),
		.seq = e->seq,
		.fingerprint = e->fingerprint,
	};
	if (e->key_n)
		out->hash = once_key_hash(out->method, out->key);
	else
		out->client = span_of(e->lease->name, e->lease->name_n);
}

/* ---- the server as a whole -------------------------------------------------------------------------------------------------- */

struct once_server *once_server_new(const struct once_options *o)
{
	struct once_server *s = once_make(sizeof(*s));

	s->o = *o;
	if (!s->o.bytes_max)
		s->o.bytes_max = BYTES_MAX;
	once_ring_init(&s->owners_used);
	once_ring_init(&s->answers_used);
	once_ring_init(&s->debts);
	return s;
}

static void table_empty(struct once_server *s, struct once_table *t)
{
	for (size_t i = 0; i < t->size; i++)
		while (t->at[i])
			once_entry_free(s, (struct once_entry *)t->at[i]);
}

void once_server_free(struct once_server *s)
{
	if (!s)
		return;
	table_empty(s, &s->keys);
	for (struct once_lease *l = s->leases; l; l = l->next)
		table_empty(s, &l->sequences);
	while (!once_ring_empty(&s->debts))
		once_debt_free(ONCE_FROM_RING(s->debts.next, struct once_debt, all));
	while (!once_ring_empty(&s->owners_used)) {
		struct once_owner *o = ONCE_FROM_RING(s->owners_used.next, struct once_owner, used);

		o->loading = o->lost = false;
		owner_unload(s, o);
	}
	for (struct once_lease *l = s->leases, *next; l; l = next) {
		next = l->next;
		once_lease_free(l);
	}
	once_spares_free(s);
	free(s->owners.at);
	free(s->keys.at);
	free(s);
}

const struct once_figures *once_figures(const struct once_server *s)
{
	return &s->figures;
}
