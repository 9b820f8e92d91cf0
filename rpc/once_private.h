#pragma once
#include <assert.h>
#include <string.h>
#include "rpc/once.h"
/*
 * What a once_server keeps, and what once_store.c does with each piece for once.c. Private to them. What each call needs is
 * inline here, without what it seldom needs.
 *
 * Threads: owner worker only.
 */

/* A ring of what was used, the longest ago first. */
struct once_ring {
	struct once_ring *next, *prev;
};
#define ONCE_FROM_RING(r, type, member) ((type *)((char *)(r)-offsetof(type, member)))
static inline void once_ring_init(struct once_ring *r)
{
	r->next = r->prev = r;
}
static inline bool once_ring_empty(const struct once_ring *r)
{
	return r->next == r;
}
static inline void once_ring_leave(struct once_ring *r) /* it is not looked at any more */
{
	r->next->prev = r->prev;
	r->prev->next = r->next;
}
static inline void once_ring_take(struct once_ring *r)
{
	once_ring_leave(r);
	once_ring_init(r);
}
static inline void once_ring_put(struct once_ring *head, struct once_ring *r)
{
	r->next = head;
	r->prev = head->prev;
	head->prev->next = r;
	head->prev = r;
}

/* What is seldom done is not inlined into what each call does: that would save and load registers for it. */
#define ONCE_SELDOM __attribute__((noinline, cold))

static inline uint64_t once_word(const char *p)
{
	uint64_t word;

	memcpy(&word, p, 8);
	return word;
}

/* Most are of 8 to 32 bytes, and the same: looked at in words that overlap, without a branch for each. */
static inline bool once_same(const char *p, size_t n, struct span s)
{
	if (n != s.n)
		return false;
	if (n < 8 || n > 32)
		return !n || !memcmp(p, s.p, n);
	uint64_t differ = (once_word(p) ^ once_word(s.p)) | (once_word(p + n - 8) ^ once_word(s.p + n - 8));

	if (n > 16)
		differ |= (once_word(p + 8) ^ once_word(s.p + 8)) | (once_word(p + n - 16) ^ once_word(s.p + n - 16));
	return !differ;
}

/* Of fingerprints and names: odd numbers without a pattern, wyhash's. */
static const uint64_t ONCE_ODD[4] = { 0xa0761d6478bd642f, 0xe7037ed1a0b428db, 0x8ebc6af09c88c6e3, 0x589965cc75374cc3 };

/* Both halves of the product, and what went in: a factor of 0 hides nothing of the other. */
static inline uint64_t once_fold(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64) ^ a ^ b;
}

/* Of this memory alone, and as quick as that needs. */
static inline uint64_t once_name_hash(struct span s)
{
	if (s.n < 8 || s.n > 16)
		return once_fingerprint(0, s.p, s.n);
	return once_fold(once_word(s.p) ^ ONCE_ODD[1], once_word(s.p + s.n - 8) ^ ONCE_ODD[0]);
}

struct once_node { /* first member of what stands in a table */
	struct once_node *next;
	uint64_t hash;
};
struct once_table {
	struct once_node **at;
	size_t size, n;
};
static inline struct once_node *once_table_first(const struct once_table *t, uint64_t hash)
{
	return t->size ? t->at[hash & (t->size - 1)] : NULL;
}

void once_table_grow(struct once_table *t) ONCE_SELDOM;
static inline void once_table_put(struct once_table *t, struct once_node *n, uint64_t hash)
{
	if (t->n >= t->size)
		once_table_grow(t);
	struct once_node **at = &t->at[hash & (t->size - 1)];

	n->hash = hash;
	n->next = *at;
	*at = n;
	t->n++;
}
static inline struct once_node **once_table_place(const struct once_table *t, const struct once_node *n)
{
	struct once_node **at = &t->at[n->hash & (t->size - 1)];

	while (*at != n)
		at = &(*at)->next;
	return at;
}
static inline void once_table_take(struct once_table *t, struct once_node **place)
{
	*place = (*place)->next;
	t->n--;
}

struct once_set {
	uint64_t *at;
	size_t size, n;
};

/* A client, while something of it is remembered. */
struct once_lease {
	struct once_lease *next;
	char *name;
	size_t name_n;
	uint64_t first, top, seen_ms; /* first incomplete; highest sequence that an entry had */
	struct once_table sequences;  /* by number: those that come one after the other lie so */
	unsigned debts, calls;        /* rows to be deleted; what runs for it under business keys */
};

/* Rows of a client at an owner that are acknowledged and still in the database. */
struct once_debt {
	struct once_debt *next;
	struct once_ring all;
	struct once_owner *owner;
	struct once_lease *lease;
	unsigned rows;
};

struct once_owner {
	struct once_node node;
	struct once_ring used;
	uint64_t used_ms;
	char *name;
	size_t name_n;
	bool loaded, loading;
	bool lost;         /* what ran here may have been recorded or not: nobody is new until it is loaded */
	bool stale;        /* that happened while it was being loaded */
	uint64_t key_hash; /* of the key calls are routed by; known of who was loaded */
	struct once_set set;
	size_t entries;
	struct once_debt *debts;
	struct once_waiters waiters; /* for the load */
};

enum once_state {
	ONCE_RUNNING,
	ONCE_STORED,
	ONCE_READING,
	ONCE_ABSENT, /* its hash is another key's */
	ONCE_ENDED,  /* this call was told an error */
};

/*
 * Line by line: what finds it and takes it out again; what is known of it, and its text, which goes on in the third. With many
 * calls under way each line is fetched from afar once when it comes and once when it goes.
 */
struct once_entry {
	struct once_node node; /* of its lease's sequences, or of the server's keys */
	struct once_ring used; /* while it holds an answer, or is absent */
	struct once_owner *owner;
	struct once_lease *lease; /* of a sequence call; of a business key while it runs, for whom, with seq, or NULL */
	uint64_t seq, fingerprint;

	char *answer; /* NULL: not in memory */
	struct once_waiters waiters;
	uint32_t answer_n, room;
	uint32_t used_ms; /* the clock's last bits */
	int16_t err;      /* ENDED */
	uint16_t method_n, key_n;
	uint8_t state, effect;        /* enum once_state; enum effect, when ENDED */
	bool json, unreadable, apart; /* apart: the answer has a block of its own */
	/*
	 * So many bytes of room: method and key, both empty for a sequence that came from the database; behind them the
	 * answer, if it fits.
	 */
	char text[];
};
#define ONCE_HEADER offsetof(struct once_entry, text)
_Static_assert(offsetof(struct once_entry, answer) == 64 && ONCE_HEADER < 112, "line by line");
#define ONCE_BLOCK 192 /* bytes of most entries, with their text and a short answer: three cache lines */
#define ONCE_ROOM  (ONCE_BLOCK - ONCE_HEADER)
#if defined(__SANITIZE_ADDRESS__)
#define ONCE_SPARE_MAX 0 /* so that the sanitizer sees each block */
#else
#define ONCE_SPARE_MAX 2048 /* of them kept for the next entries */
#endif

struct once_server {
	struct once_options o;
	struct once_table owners, keys;
	struct once_ring owners_used, answers_used, debts;
	struct once_lease *leases;
	struct once_figures figures;
	uint64_t now_ms;          /* of the last call that told it */
	struct once_entry *spare; /* blocks of ONCE_BLOCK bytes, by node.next */
	int spares;
	char forget_text[256];
	size_t forget_owner;
};

/* once_store.c */
void *once_make(size_t n); /* zeroed */
uint64_t once_key_hash(struct span method, struct span key);
uint64_t once_id_of_key(const struct once_owner *o, uint64_t hash);

/* ---- who waits */
void once_waiters_move(struct once_waiters *from, struct once_waiters *to);
void once_wake_all(struct once_waiters *list) ONCE_SELDOM;
static inline void once_wake(struct once_waiters *list) /* tells all, and forgets them */
{
	if (list->first)
		once_wake_all(list);
}

/* ---- the hashes of an owner's business keys */
bool once_set_has(const struct once_set *set, uint64_t hash);
void once_set_add(struct once_server *s, struct once_set *set, uint64_t hash);
void once_set_release(struct once_server *s, struct once_set *set);

/* ---- owners */
struct once_owner *once_owner_new(struct once_server *s, struct span name, uint64_t hash) ONCE_SELDOM;
static inline struct once_owner *once_owner_get(struct once_server *s, struct span name) /* made if need be */
{
	uint64_t hash = once_name_hash(name);
	struct once_owner *o = (struct once_owner *)once_table_first(&s->owners, hash);

	while (o && (o->node.hash != hash || !once_same(o->name, o->name_n, name)))
		o = (struct once_owner *)o->node.next;
	if (!o)
		return once_owner_new(s, name, hash);
	o->used_ms = s->now_ms;
	if (s->owners_used.prev != &o->used) { /* it was not already used last */
		once_ring_leave(&o->used);
		once_ring_put(&s->owners_used, &o->used);
	}
	return o;
}
void once_owner_drop(struct once_server *s, struct once_owner *o) ONCE_SELDOM;
/* Drops it if nothing is known of it and nothing is under way. */
static inline void once_owner_tidy(struct once_server *s, struct once_owner *o)
{
	if (o->entries || o->debts || o->loading || o->lost || o->waiters.first || (s->o.stored && o->loaded))
		return;
	once_owner_drop(s, o);
}

/* ---- leases */
struct once_lease *once_lease_to_front(struct once_server *s, struct span name, uint64_t now_ms) ONCE_SELDOM;
/* In front: the next call is often the same client's. */
static inline struct once_lease *once_lease_get(struct once_server *s, struct span name, uint64_t now_ms)
{
	struct once_lease *l = s->leases;

	return l && once_same(l->name, l->name_n, name) ? l : once_lease_to_front(s, name, now_ms);
}
void once_lease_free(struct once_lease *l);                                            /* it has no entries */
void once_debt_add(struct once_server *s, struct once_owner *o, struct once_lease *l); /* if answers are stored */
void once_debt_free(struct once_debt *d);

/* ---- entries: blocks, which are kept for the next ones */
struct once_entry *once_block_new(size_t room) ONCE_SELDOM;
void once_block_free(struct once_entry *e) ONCE_SELDOM;
void once_spares_free(struct once_server *s);
static inline struct once_entry *once_block_take(struct once_server *s, size_t text_n)
{
	size_t room = text_n <= ONCE_ROOM ? ONCE_ROOM : text_n;
	struct once_entry *e = s->spare;

	if (e && room == ONCE_ROOM) {
		s->spare = (struct once_entry *)e->node.next;
		s->spares--;
	} else {
		e = once_block_new(room);
	}
	memset(e, 0, ONCE_HEADER);
	e->room = (uint32_t)room;
	s->figures.bytes += ONCE_HEADER + room;
	return e;
}
static inline void once_block_give(struct once_server *s, struct once_entry *e)
{
	s->figures.bytes -= ONCE_HEADER + e->room;
	if (e->room == ONCE_ROOM && s->spares < ONCE_SPARE_MAX) {
		e->node.next = (struct once_node *)s->spare; /* or NULL */
		s->spare = e;
		s->spares++;
	} else {
		once_block_free(e);
	}
}

static inline struct once_entry *once_entry_new(struct once_server *s, struct once_owner *o, struct span method,
						struct span key)
{
	struct once_entry *e = once_block_take(s, method.n + key.n);
	char *end = span_copy(e->text, method);

	assert(method.n <= UINT16_MAX && key.n <= UINT16_MAX);
	if (key.n)
		span_copy(end, key);
	e->owner = o;
	e->method_n = (uint16_t)method.n;
	e->key_n = (uint16_t)key.n;
	o->entries++;
	once_ring_init(&e->used);
	return e;
}
struct once_entry *once_entry_of_key(struct once_server *s, struct once_owner *o, struct span method, struct span key,
				     uint64_t id);
/* method empty: it came from the database. */
static inline struct once_entry *once_entry_of_seq(struct once_server *s, struct once_owner *o, struct span method,
						   struct once_lease *l, uint64_t seq)
{
	struct once_entry *e = once_entry_new(s, o, method, span_of(NULL, 0));

	e->lease = l;
	e->seq = seq;
	if (seq > l->top)
		l->top = seq;
	once_table_put(&l->sequences, &e->node, seq);
	return e;
}
static inline struct once_entry *once_entry_at(const struct once_table *sequences, uint64_t seq) /* the first there */
{
	return (struct once_entry *)once_table_first(sequences, seq);
}
static inline struct once_entry *once_entry_find_seq(const struct once_owner *o, const struct once_lease *l,
						     uint64_t seq)
{
	if (seq > l->top)
		return NULL;
	for (struct once_entry *e = once_entry_at(&l->sequences, seq); e; e = (struct once_entry *)e->node.next)
		if (e->seq == seq && e->owner == o)
			return e;
	return NULL;
}
struct once_entry *once_entry_find_key(const struct once_server *s, const struct once_owner *o, struct span method,
				       struct span key, uint64_t id);
static inline void once_entry_called(struct once_entry *e) /* it does not run for its caller any more */
{
	if (!e->key_n || !e->lease)
		return;
	e->lease->calls--;
	e->lease = NULL;
}

/* ---- their answers */
void once_answer_apart(struct once_server *s, struct once_entry *e, struct span answer) ONCE_SELDOM;
void once_answer_free(struct once_server *s, struct once_entry *e) ONCE_SELDOM;
/* Of an entry without one: behind the text of its own block, if it fits there. */
static inline void once_entry_answer_set(struct once_server *s, struct once_entry *e, bool json, struct span answer)
{
	size_t text = (size_t)e->method_n + e->key_n;

	e->json = json;
	e->answer_n = (uint32_t)answer.n;
	e->used_ms = (uint32_t)s->now_ms;
	if (answer.n <= e->room - text) {
		e->answer = e->text + text;
		span_copy(e->answer, answer);
	} else {
		once_answer_apart(s, e, answer);
	}
	once_ring_put(&s->answers_used, &e->used);
}
void once_entry_answer_drop(struct once_server *s, struct once_entry *e);
void once_entry_used(struct once_server *s, struct once_entry *e);

/* What is in no table any more. Its owner stays, for once_owner_tidy. */
static inline void once_entry_release(struct once_server *s, struct once_entry *e)
{
	assert(!e->waiters.first);
	if (e->apart)
		once_answer_free(s, e);
	once_ring_leave(&e->used);
	e->owner->entries--;
	once_block_give(s, e);
}
void once_entry_free(struct once_server *s, struct once_entry *e) ONCE_SELDOM; /* the same of what is in its table */
