#include <assert.h>
#include <stdlib.h>
#include "common/err.h"
#include "common/sqllog_private.h"
/*
 * The ring between the workers and the SQL-log thread, and the table of last changes.
 */

static const char commit[] = "COMMIT;\n";
#define COMMIT_BYTES (sizeof commit - 1)

static uint64_t pack(uint32_t lsn, uint32_t at)
{
	return (uint64_t)lsn << 32 | at;
}

int sqllog_ring_init(struct sqllog_ring *r, struct env *env, size_t bytes, uint64_t last_lsn)
{
	size_t size = 4u << 20; /* holds a few records of the largest size */
	while (size < bytes && size < 1u << 30)
		size <<= 1;
	r->env = env;
	r->data = env_memory(env, size);
	r->units = (uint32_t)(size / SQLLOG_UNIT);
	atomic_init(&r->tail, pack((uint32_t)last_lsn, 0));
	atomic_init(&r->head, 0);
	atomic_init(&r->lsn, last_lsn);
	return r->data ? 0 : ERR_NOMEM;
}

void sqllog_ring_release(struct sqllog_ring *r)
{
	env_memory_free(r->env, r->data, (size_t)r->units * SQLLOG_UNIT);
	r->data = NULL;
}

static struct sqllog_entry *entry_at(struct sqllog_ring *r, uint32_t at)
{
	return (struct sqllog_entry *)(r->data + (size_t)(at & (r->units - 1)) * SQLLOG_UNIT);
}

/* Takes need units in one piece; the filler before them, if the ring's end is too near, is *pad. */
static int reserve(struct sqllog_ring *r, uint32_t need, uint32_t *at, uint32_t *pad, uint32_t *lsn)
{
	for (;;) {
		/* head first: it never passes a tail that is read later. Acquire: its bytes are zero again. */
		uint32_t head = (uint32_t)atomic_load_explicit(&r->head, memory_order_acquire);
		uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
		*at = (uint32_t)tail;
		uint32_t to_end = r->units - (*at & (r->units - 1));
		*pad = to_end < need ? to_end : 0;
		if (*at - head + *pad + need > r->units)
			return ERR_BUSY;
		*lsn = (uint32_t)(tail >> 32) + 1;
		if (atomic_compare_exchange_weak_explicit(&r->tail, &tail, pack(*lsn, *at + *pad + need),
							  memory_order_relaxed, memory_order_relaxed))
			return 0;
	}
}

/*
 * The SQL-log thread has zeroed these lines last, or the ring is larger than the processor's cache. What is asked for now
 * is here when one of the next records needs it; else that record's stores hold up the exchange in the reserve after it.
 */
static inline void ask_ahead(struct sqllog_ring *r, uint32_t at, uint32_t need)
{
	enum { LINE = 64 / SQLLOG_UNIT, AHEAD = 12 * LINE };
	for (uint32_t i = 0; i < need && i < AHEAD; i += LINE)
		__builtin_prefetch(entry_at(r, at + AHEAD + i), 1);
}

int sqllog_ring_push(struct sqllog_ring *r, const struct sql_record *rec, uint64_t *lsn)
{
	size_t body = rec->body.len + COMMIT_BYTES;
	size_t bytes = sizeof(struct sqllog_entry) + rec->keys_bytes + body;
	uint32_t need = (uint32_t)((bytes + SQLLOG_UNIT - 1) / SQLLOG_UNIT), at, pad, low;
	int err = reserve(r, need, &at, &pad, &low);
	if (err < 0)
		return err;
	ask_ahead(r, at + pad, need);
	if (pad) {
		entry_at(r, at)->body_bytes = SQLLOG_PAD;
		atomic_store_explicit(&entry_at(r, at)->units, pad, memory_order_release);
	}
	struct sqllog_entry *e = entry_at(r, at + pad);
	e->body_bytes = (uint32_t)body;
	e->keys_bytes = rec->keys_bytes;
	e->statements = rec->statements;
	e->trace = rec->trace;
	memcpy(e->data, rec->keys, rec->keys_bytes);
	memcpy(e->data + rec->keys_bytes, rec->body.data, rec->body.len);
	memcpy(e->data + rec->keys_bytes + rec->body.len, commit, COMMIT_BYTES);
	/* The consumer cannot pass us before we publish, so its lsn is below ours and within 2^32. */
	uint64_t behind = atomic_load_explicit(&r->lsn, memory_order_relaxed);
	*lsn = behind + (uint32_t)(low - (uint32_t)behind);
	/* pairs with the consumer's acquire in sqllog_ring_next */
	atomic_store_explicit(&e->units, need, memory_order_release);
	return 0;
}

uint64_t sqllog_ring_last(const struct sqllog_ring *r)
{
	uint64_t behind = atomic_load_explicit(&r->lsn, memory_order_acquire);
	uint32_t low = (uint32_t)(atomic_load_explicit(&r->tail, memory_order_acquire) >> 32);
	return behind + (uint32_t)(low - (uint32_t)behind);
}

size_t sqllog_ring_used(const struct sqllog_ring *r)
{
	uint32_t head = (uint32_t)atomic_load_explicit(&r->head, memory_order_relaxed);
	uint32_t tail = (uint32_t)atomic_load_explicit(&r->tail, memory_order_relaxed);
	return (size_t)(tail - head) * SQLLOG_UNIT;
}

struct sqllog_entry *sqllog_ring_next(struct sqllog_ring *r, uint32_t *at)
{
	for (;;) {
		uint32_t head = (uint32_t)atomic_load_explicit(&r->head, memory_order_relaxed);
		if (*at - head >= r->units)
			return NULL; /* once around: what stands there is ours already */
		struct sqllog_entry *e = entry_at(r, *at);
		uint32_t units = atomic_load_explicit(&e->units, memory_order_acquire);
		if (!units)
			return NULL;
		*at += units;
		if (e->body_bytes != SQLLOG_PAD)
			return e;
	}
}

static void zero(struct sqllog_ring *r, uint32_t from, uint32_t units)
{
	uint32_t first = from & (r->units - 1), to_end = r->units - first;
	uint32_t n = units < to_end ? units : to_end;
	memset(r->data + (size_t)first * SQLLOG_UNIT, 0, (size_t)n * SQLLOG_UNIT);
	memset(r->data, 0, (size_t)(units - n) * SQLLOG_UNIT);
}

void sqllog_ring_free_until(struct sqllog_ring *r, uint32_t at, uint32_t n)
{
	uint32_t head = (uint32_t)atomic_load_explicit(&r->head, memory_order_relaxed);
	zero(r, head, at - head);
	atomic_store_explicit(&r->lsn, atomic_load_explicit(&r->lsn, memory_order_relaxed) + n, memory_order_release);
	atomic_store_explicit(&r->head, at, memory_order_release);
}

/* ---- last changes ------------------------------------------------------------------------------------------------ */

static uint32_t place(const char *key, size_t n)
{
	/* The checksum is linear, keys that differ in one digit would lie side by side: the product spreads them. */
	return (uint32_t)((crc32c(0, key, n) * 0x9e3779b97f4a7c15u) >> 32) % SQLLOG_KEY_PLACES;
}

void sqllog_keys_note(struct sqllog_keys *k, const char *keys, size_t bytes, uint64_t lsn)
{
	const struct sqllog_record r = { .keys = keys, .keys_bytes = bytes };
	const char *key;
	size_t at = 0, n;
	while (sqllog_key_next(&r, &at, &key, &n)) {
		_Atomic uint64_t *p = &k->lsn[place(key, n)];
		uint64_t was = atomic_load_explicit(p, memory_order_relaxed);
		while (was < lsn &&
		       !atomic_compare_exchange_weak_explicit(p, &was, lsn, memory_order_relaxed, memory_order_relaxed))
			;
	}
}

uint64_t sqllog_keys_get(const struct sqllog_keys *k, const char *key, size_t bytes)
{
	return atomic_load_explicit(&k->lsn[place(key, bytes)], memory_order_relaxed);
}
