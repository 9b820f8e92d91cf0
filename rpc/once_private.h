#pragma once
#include "rpc/once.h"
/*
 * What a once_server keeps, and what once_store.c does with each piece for once.c. Private to them.
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
static inline void once_ring_take(struct once_ring *r)
{
	r->next->prev = r->prev;
	r->prev->next = r->next;
	once_ring_init(r);
}
static inline void once_ring_put(struct once_ring *head, struct once_ring *r)
{
	r->next = head;
	r->prev = head->prev;
	head->prev->next = r;
	head->prev = r;
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
	uint8_t state, effect; /* enum once_state; enum effect, when ENDED */
	bool json, unreadable;
	/*
	 * So many bytes of room: method and key, both empty for a sequence that came from the database; behind them the
	 * answer, if it fits.
	 */
	char text[];
};
#define ONCE_HEADER offsetof(struct once_entry, text)
_Static_assert(offsetof(struct once_entry, answer) == 64 && ONCE_HEADER < 112, "line by line");
#define ONCE_BLOCK     192 /* bytes of most entries, with their text and a short answer: three cache lines */
#define ONCE_ROOM      (ONCE_BLOCK - ONCE_HEADER)
#define ONCE_SPARE_MAX 2048 /* of them kept for the next entries */

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
void once_waiters_move(struct once_waiters *from, struct once_waiters *to);
void once_wake(struct once_waiters *list); /* tells all, and forgets them */
bool once_set_has(const struct once_set *set, uint64_t hash);
void once_set_add(struct once_server *s, struct once_set *set, uint64_t hash);
void once_set_release(struct once_server *s, struct once_set *set);
struct once_owner *once_owner_get(struct once_server *s, struct span name); /* made if need be */
void once_owner_tidy(struct once_server *s, struct once_owner *o);          /* frees it if nothing is known of it */
struct once_lease *once_lease_get(struct once_server *s, struct span name, uint64_t now_ms);
void once_lease_free(struct once_lease *l);                                            /* it has no entries */
void once_debt_add(struct once_server *s, struct once_owner *o, struct once_lease *l); /* if answers are stored */
void once_debt_free(struct once_debt *d);
struct once_entry *once_entry_of_key(struct once_server *s, struct once_owner *o, struct span method, struct span key,
				     uint64_t id);
/* method empty: it came from the database. */
struct once_entry *once_entry_of_seq(struct once_server *s, struct once_owner *o, struct span method,
				     struct once_lease *l, uint64_t seq);
static inline struct once_entry *once_entry_at(const struct once_table *sequences, uint64_t seq) /* the first there */
{
	return (struct once_entry *)once_table_first(sequences, seq);
}
static inline void once_entry_called(struct once_entry *e) /* it does not run for its caller any more */
{
	if (!e->key_n || !e->lease)
		return;
	e->lease->calls--;
	e->lease = NULL;
}
void once_entry_free(struct once_server *s, struct once_entry *e); /* its owner stays, for once_owner_tidy */
void once_spares_free(struct once_server *s);
void once_entry_used(struct once_server *s, struct once_entry *e);
void once_entry_answer_set(struct once_server *s, struct once_entry *e, bool json, struct span answer);
void once_entry_answer_drop(struct once_server *s, struct once_entry *e);
struct once_entry *once_entry_find_key(const struct once_server *s, const struct once_owner *o, struct span method,
				       struct span key, uint64_t id);
struct once_entry *once_entry_find_seq(const struct once_owner *o, const struct once_lease *l, uint64_t seq);
uint64_t once_key_hash(struct span method, struct span key);
uint64_t once_id_of_key(const struct once_owner *o, uint64_t hash);
