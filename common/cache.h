#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/env.h"
#include "common/wheel.h"
/*
 * cache: keys and values of one worker in a fixed piece of memory.
 *
 * Threads:  owner worker only.
 * Memory:   all of it is one allocation of at most bytes_max, made in cache_new: index, entries and what is lost between
 *           them. So the bound holds whatever is put in, and no allocator adds to it. An entry takes 12 bytes beside its key
 *           and value, 8 more if it was put with an lsn and 48 more if it expires, rounded up to 16; the index takes 64
 *           bytes per 1,008 of entries. Entries below 96 bytes are limited by the index before they are by their bytes.
 * Eviction: SIEVE: a queue by age and a hand that goes from the oldest on; who was asked for since it last came by is
 *           spared. A hit sets one bit and moves nothing.
 * Dirty:    an entry put with an lsn is not evicted, nor does it expire, until cache_landed has told an lsn as high.
 * Expiry:   by the wheel: gone in [due, due + one tick].
 * Keys:     1 to CACHE_KEY_MAX bytes; values 0 to CACHE_VALUE_MAX, and at most an eighth of the memory.
 * Source:   Zhang and others, "SIEVE is simpler than LRU", NSDI 2024.
 */
#define CACHE_KEY_MAX   127u
#define CACHE_VALUE_MAX ((1u << 20) - 1)
#define CACHE_BYTES_MIN (64u << 10)

struct cache;
/* bytes_max: at least CACHE_BYTES_MIN. wheel: of the owner's loop, outlives the cache. NULL: no memory. */
struct cache *cache_new(struct env *env, size_t bytes_max, struct wheel *wheel);
void cache_free(struct cache *c); /* NULL is fine */

/* The value, *n its bytes; NULL: not there. It stays until the next call that changes the cache, or the wheel's next run. */
const void *cache_get(struct cache *c, const void *key, size_t key_n, size_t *n);

struct cache_terms {     /* of one entry; NULL or zeros: clean, for ever */
	uint64_t lsn;    /* dirty until this has landed */
	uint64_t due_ms; /* expires then, by the wheel's clock; 0: never */
};
/*
 * Puts the value in place of any other of that key; one that is dirty stays so if the new value has no later lsn. Neither
 * key nor value may point into the cache. ERR_BAD_REQUEST: a key or value out of bounds. ERR_FULL: what is dirty fills the
 * memory. After either the key has no value.
 */
int cache_put(struct cache *c, const void *key, size_t key_n, const void *value, size_t n, const struct cache_terms *t);
bool cache_delete(struct cache *c, const void *key, size_t key_n); /* dirty or not; false: it was not there */

/* All changes up to this lsn are safe elsewhere; going back does nothing. */
void cache_landed(struct cache *c, uint64_t lsn);
/* What is still dirty was lost: those entries go; returns how many. Looks at every entry: for a log that has failed. */
size_t cache_drop_dirty(struct cache *c);

struct cache_stats {
	uint64_t entries;
	uint64_t bytes, bytes_max; /* in use (index and entries), allocated */
	uint64_t hits, misses, puts;
	uint64_t evicted, expired;
	uint64_t spared;  /* times the hand passed over a dirty one */
	uint64_t refused; /* puts that ended with an error */
};
void cache_stats(const struct cache *c, struct cache_stats *out);
bool cache_check(const struct cache *c); /* invariants hold; for tests */
