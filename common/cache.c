#include "common/cache.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/blocks.h"
#include "common/err.h"

/*
 * A get that hits touches two places that are not in the processor's cache: the key's bucket, one line, and the entry.
 *
 * An entry is a block of them all: link[] its neighbours in the queue, bits its lengths and flags, then key and value
 * without gap, then what only some have, aligned to 8: the lsn, the timer.
 *
 * A bucket holds 12 entries: a byte of each one's hash and its number. What has no room in the bucket its hash names goes
 * into the next one, and each full bucket on the way counts that: so a search goes on exactly as long as it must, and no
 * marks of the deleted are left behind.
 */
enum { OLDER, NEWER };
#define KEY_BITS   7
#define VALUE_BITS 20
#define VISITED    (1u << 27)
#define HAS_LSN    (1u << 28)
#define HAS_TIMER  (1u << 29)
_Static_assert((VISITED | HAS_LSN | HAS_TIMER) < (BLOCKS_BITS & -BLOCKS_BITS), "the allocator's bits are above ours");

enum { HEAD = offsetof(struct block, size), PLACES = 12 };

struct bucket {              /* one cache line */
	uint8_t tag[PLACES]; /* of a place that is used */
	uint16_t used;       /* a bit for each place */
	uint16_t passed; /* entries further on that would be here if there had been room; MANY: not known how many */
	uint32_t at[PLACES];
};
#define MANY UINT16_MAX
_Static_assert(sizeof(struct bucket) == 64, "one cache line");

enum { ENTRY_BYTES = 96, BUCKET_SHARE = PLACES * ENTRY_BYTES * 7 / 8 }; /* so that it is at most 7/8 full */

struct expiry {
	struct timer timer;
	struct cache *cache;
	uint32_t at;
};

struct cache {
	struct env *env;
	struct wheel *wheel;
	struct bucket *bucket;
	uint32_t buckets, entries, entries_max;
	uint32_t oldest, newest, hand; /* the hand: who it looks at next; 0: the oldest */
	uint32_t value_max;
	bool stuck; /* all that is here is dirty, as far as is known */
	uint64_t seed[2], landed;
	struct cache_stats stats;
	struct blocks blocks;
};

/* ---- an entry --------------------------------------------------------------------------------------------- */

static struct block *entry(const struct cache *c, uint32_t at)
{
	return &c->blocks.block[at];
}

static size_t key_bytes(uint32_t bits)
{
	return bits >> VALUE_BITS & ((1u << KEY_BITS) - 1);
}

static size_t value_bytes(uint32_t bits)
{
	return bits & ((1u << VALUE_BITS) - 1);
}

static char *key_of(struct block *e)
{
	return (char *)e + HEAD;
}

/* Where the optional parts begin. */
static size_t tail_offset(uint32_t bits)
{
	return (HEAD + key_bytes(bits) + value_bytes(bits) + 7) & ~(size_t)7;
}

static uint32_t units_of(uint32_t bits)
{
	size_t n = HEAD + key_bytes(bits) + value_bytes(bits);
	if (bits & (HAS_LSN | HAS_TIMER))
		n = tail_offset(bits) + (bits & HAS_LSN ? sizeof(uint64_t) : 0) +
		    (bits & HAS_TIMER ? sizeof(struct expiry) : 0);
	return (uint32_t)((n + BLOCKS_UNIT - 1) / BLOCKS_UNIT);
}

static uint64_t *lsn_of(struct block *e)
{
	return (uint64_t *)((char *)e + tail_offset(e->bits));
}

static struct expiry *expiry_of(struct block *e)
{
	size_t lsn = e->bits & HAS_LSN ? sizeof(uint64_t) : 0;
	return (struct expiry *)((char *)e + tail_offset(e->bits) + lsn);
}

static bool dirty(const struct cache *c, struct block *e)
{
	return e->bits & HAS_LSN && *lsn_of(e) > c->landed;
}

/* ---- the index --------------------------------------------------------------------------------------------- */

static inline uint64_t word_at(const char *p)
{
	uint64_t v;
	memcpy(&v, p, 8);
	return v;
}

static inline uint64_t mix(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;
	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* A key of at most 16 bytes as two words: one look at either end of it, which overlap. */
struct words {
	uint64_t first, last;
};

static inline struct words words_of(const char *key, size_t n)
{
	if (n >= 8)
		return (struct words){ word_at(key), word_at(key + n - 8) };
	struct words w = { 0, 0 };
	if (n >= 4) {
		memcpy(&w.first, key, 4);
		memcpy(&w.last, key + n - 4, 4);
	} else if (n) {
		w.first = (uint64_t)(unsigned char)key[0] << 16 | (uint64_t)(unsigned char)key[n / 2] << 8 |
			  (unsigned char)key[n - 1];
	}
	return w;
}

static inline uint64_t hash_words(const struct cache *c, struct words w, uint64_t h)
{
	return mix(w.first ^ c->seed[1], w.last ^ h);
}

/* Multiply and fold, as in wyhash; the seed keeps players from choosing keys that meet in one bucket. */
static inline uint64_t hash_of(const struct cache *c, const char *key, size_t n)
{
	uint64_t h = c->seed[0] + n;
	for (; n > 16; n -= 16, key += 16)
		h = mix(word_at(key) ^ c->seed[0], word_at(key + 8) ^ h);
	return hash_words(c, words_of(key, n), h);
}

/* memcmp for what is short and nearly always equal: one branch for up to 16 bytes. */
static inline bool same(const char *a, const char *b, size_t n)
{
	for (; n > 16; n -= 16, a += 16, b += 16)
		if ((word_at(a) ^ word_at(b)) | (word_at(a + 8) ^ word_at(b + 8)))
			return false;
	struct words x = words_of(a, n), y = words_of(b, n);
	return !((x.first ^ y.first) | (x.last ^ y.last));
}

static uint32_t home_of(const struct cache *c, uint64_t hash)
{
	return (uint32_t)((hash >> 32) * c->buckets >> 32);
}

static uint8_t tag_of(uint64_t hash)
{
	return (uint8_t)hash;
}

static uint32_t next_bucket(const struct cache *c, uint32_t b)
{
	return b + 1 < c->buckets ? b + 1 : 0;
}

/* One bit per used place of the bucket whose tag this is. */
static inline uint32_t places_with(const struct bucket *b, uint8_t tag)
{
#ifdef __SSE2__
	typedef char bytes __attribute__((vector_size(16), may_alias));
	typedef int words __attribute__((vector_size(16)));
	const int four = (int)(tag * 0x01010101u);
	uint32_t used; /* and passed, which is above the 16 bits of the comparison */
	memcpy(&used, &b->used, sizeof used);
	bytes equal =
		*(const bytes *)b == (bytes)(words){ four, four, four, four }; /* and of four bytes that are no tags */
	return (uint32_t)__builtin_ia32_pmovmskb128(equal) & used;
#else
	uint32_t places = 0;
	for (unsigned i = 0; i < PLACES; i++)
		places |= (uint32_t)(b->tag[i] == tag) << i;
	return places & b->used;
#endif
}

/* The lowest bit that is set; one is. By tzcnt, which older processors take for bsf: that is slow where tzcnt is known. */
static inline size_t lowest(uint32_t places)
{
#ifdef __x86_64__
	size_t at;
	__asm__("rep bsfq %1, %0" : "=r"(at) : "r"((size_t)places) : "cc");
	return at;
#else
	return (size_t)__builtin_ctz(places);
#endif
}

struct found {
	uint32_t bucket, home;
	unsigned place;
};

/* The key's entry in this bucket; 0: it is not there. */
static inline uint32_t find_in(const struct cache *c, const struct bucket *b, const char *key, size_t n, uint8_t tag,
			       unsigned *place)
{
	for (uint32_t places = places_with(b, tag); places; places &= places - 1) {
		*place = (unsigned)lowest(places);
		struct block *e = entry(c, b->at[*place]);
		if (key_bytes(e->bits) == n && same(key_of(e), key, n))
			return b->at[*place];
	}
	return 0;
}

static uint32_t find(const struct cache *c, const char *key, size_t n, uint64_t hash, struct found *f)
{
	f->bucket = f->home = home_of(c, hash);
	do {
		const struct bucket *b = &c->bucket[f->bucket];
		uint32_t at = find_in(c, b, key, n, tag_of(hash), &f->place);
		if (at || !b->passed)
			return at;
		f->bucket = next_bucket(c, f->bucket);
	} while (f->bucket != f->home);
	return 0;
}

static void index_add(struct cache *c, uint64_t hash, uint32_t at)
{
	uint32_t i = home_of(c, hash), room;
	while (!(room = ~c->bucket[i].used & ((1u << PLACES) - 1))) {
		c->bucket[i].passed += c->bucket[i].passed < MANY;
		i = next_bucket(c, i);
	}
	size_t place = lowest(room);
	c->bucket[i].tag[place] = tag_of(hash);
	c->bucket[i].at[place] = at;
	c->bucket[i].used |= (uint16_t)(1u << place);
}

static void index_remove(struct cache *c, const struct found *f)
{
	for (uint32_t i = f->home; i != f->bucket; i = next_bucket(c, i))
		c->bucket[i].passed -= c->bucket[i].passed < MANY;
	c->bucket[f->bucket].used &= (uint16_t) ~(1u << f->place);
}

/* ---- the queue ----------------------------------------------------------------------------------------------- */

static void queue_add(struct cache *c, uint32_t at)
{
	struct block *e = entry(c, at);
	e->link[OLDER] = c->newest;
	e->link[NEWER] = 0;
	if (c->newest)
		entry(c, c->newest)->link[NEWER] = at;
	else
		c->oldest = at;
	c->newest = at;
}

static void queue_remove(struct cache *c, uint32_t at)
{
	uint32_t older = entry(c, at)->link[OLDER], newer = entry(c, at)->link[NEWER];
	if (older)
		entry(c, older)->link[NEWER] = newer;
	else
		c->oldest = newer;
	if (newer)
		entry(c, newer)->link[OLDER] = older;
	else
		c->newest = older;
	if (c->hand == at)
		c->hand = newer;
}

static void drop(struct cache *c, uint32_t at, const struct found *f)
{
	struct block *e = entry(c, at);
	if (e->bits & HAS_TIMER)
		wheel_stop(c->wheel, &expiry_of(e)->timer);
	index_remove(c, f);
	queue_remove(c, at);
	blocks_free(&c->blocks, at, units_of(e->bits));
	c->entries--;
	c->stuck = false;
}

static void drop_entry(struct cache *c, uint32_t at)
{
	struct block *e = entry(c, at);
	struct found f;
	uint32_t there = find(c, key_of(e), key_bytes(e->bits), hash_of(c, key_of(e), key_bytes(e->bits)), &f);
	assert(there == at);
	drop(c, at, &f);
}

/* Makes room by one entry; false: all are dirty. Two rounds of the hand: the first may only have cleared marks. */
static bool evict(struct cache *c)
{
	for (uint64_t steps = c->stuck ? 0 : 2 * (uint64_t)c->entries; steps; steps--) {
		uint32_t at = c->hand ? c->hand : c->oldest;
		struct block *e = entry(c, at);
		c->hand = e->link[NEWER];
		if (dirty(c, e)) {
			c->stats.spared++;
		} else if (e->bits & VISITED) {
			e->bits &= ~VISITED;
		} else {
			drop_entry(c, at);
			c->stats.evicted++;
			return true;
		}
	}
	c->stuck = true; /* or each put would look at all of them anew */
	return false;
}

/* ---- expiry --------------------------------------------------------------------------------------------------- */

enum { AGAIN_MS = 100 }; /* for one that is still dirty */

static void on_due(struct timer *t, uint64_t now_ms)
{
	struct expiry *x = (struct expiry *)t;
	struct cache *c = x->cache;
	if (dirty(c, entry(c, x->at))) {
		wheel_start(c->wheel, t, now_ms + AGAIN_MS);
		return;
	}
	drop_entry(c, x->at);
	c->stats.expired++;
}

/* ---- public ----------------------------------------------------------------------------------------------------- */

struct cache *cache_new(struct env *env, size_t bytes_max, struct wheel *wheel)
{
	assert(bytes_max >= CACHE_BYTES_MIN);
	if (bytes_max / BLOCKS_UNIT > UINT32_MAX)
		bytes_max = (size_t)UINT32_MAX * BLOCKS_UNIT;
	const size_t line = sizeof(struct bucket), first = (sizeof(struct cache) + line - 1) / line * line;
	size_t buckets = (bytes_max - first) / (line + BUCKET_SHARE), used = first + buckets * line;
	char *memory = env_memory(env, bytes_max);
	if (!memory)
		return NULL;
	struct cache *c = (struct cache *)memory;
	*c = (struct cache){
		.env = env,
		.wheel = wheel,
		.bucket = (struct bucket *)(memory + first),
		.buckets = (uint32_t)buckets,
		.entries_max = (uint32_t)(buckets * PLACES * 7 / 8),
		.value_max = bytes_max / 8 < CACHE_VALUE_MAX ? (uint32_t)(bytes_max / 8) : CACHE_VALUE_MAX,
		.stats.bytes_max = bytes_max,
	};
	env_random(env, c->seed, sizeof c->seed);
	blocks_init(&c->blocks, (struct block *)(memory + used), (uint32_t)((bytes_max - used) / BLOCKS_UNIT));
	return c;
}

void cache_free(struct cache *c)
{
	if (!c)
		return;
	for (uint32_t at = c->oldest; at; at = entry(c, at)->link[NEWER])
		if (entry(c, at)->bits & HAS_TIMER)
			wheel_stop(c->wheel, &expiry_of(entry(c, at))->timer);
	env_memory_free(c->env, c, c->stats.bytes_max);
}

static inline const void *hit(struct cache *c, struct block *e, size_t key_n, size_t *n)
{
	c->stats.hits++;
	if (!(e->bits & VISITED)) /* a line that is not written need not be written back */
		e->bits |= VISITED;
	*n = value_bytes(e->bits);
	return key_of(e) + key_n;
}

static __attribute__((noinline)) const void *get(struct cache *c, const char *key, size_t key_n, size_t *n)
{
	struct found f;
	uint32_t at = find(c, key, key_n, hash_of(c, key, key_n), &f);
	if (at)
		return hit(c, entry(c, at), key_n, n);
	c->stats.misses++;
	return NULL;
}

/*
 * Most keys have 8 to 16 bytes and are the first of their bucket that has their tag. The way there is kept short, without
 * a loop and in as few registers as need not be saved: the processor looks ahead some 250 instructions, so the fewer a get
 * has, the more of those that follow it wait for memory at the same time. What is not found so is looked for anew. (Of an
 * entry with a shorter key up to 28 bytes are looked at: behind the last one stands a unit that is never given out.)
 */
const void *cache_get(struct cache *c, const void *key, size_t key_n, size_t *n)
{
	if (__builtin_expect(key_n - 8 > 8, 0))
		return get(c, key, key_n, n);
	const struct words w = { word_at(key), word_at((const char *)key + key_n - 8) };
	const uint64_t hash = hash_words(c, w, c->seed[0] + key_n);
	const struct bucket *b = &c->bucket[home_of(c, hash)];
	uint32_t places = places_with(b, tag_of(hash));
	if (__builtin_expect(!places, 0))
		return get(c, key, key_n, n);
	struct block *e = entry(c, b->at[lowest(places)]);
	const char *k = key_of(e);
	if (__builtin_expect((key_bytes(e->bits) ^ key_n) | (word_at(k) ^ w.first) | (word_at(k + key_n - 8) ^ w.last),
			     0))
		return get(c, key, key_n, n);
	return hit(c, e, key_n, n);
}

/* Room for what bits describe, evicting as needed; 0: there is none. */
static uint32_t make_room(struct cache *c, uint32_t bits)
{
	uint32_t at;
	while (c->entries >= c->entries_max)
		if (!evict(c))
			return 0;
	while (!(at = blocks_alloc(&c->blocks, units_of(bits))))
		if (!evict(c))
			return 0;
	return at;
}

/* Fills the block, whose bits are those of the new entry. */
static void fill(struct cache *c, uint32_t at, const void *value, size_t n, const struct cache_terms *t)
{
	struct block *e = entry(c, at);
	memcpy(key_of(e) + key_bytes(e->bits), value, n);
	if (e->bits & HAS_LSN)
		*lsn_of(e) = t->lsn;
	if (e->bits & HAS_TIMER) {
		struct expiry *x = expiry_of(e);
		*x = (struct expiry){ .timer.fire = on_due, .cache = c, .at = at };
		wheel_start(c->wheel, &x->timer, t->due_ms);
	}
}

static int insert(struct cache *c, const char *key, uint64_t hash, uint32_t bits, const void *value,
		  const struct cache_terms *t)
{
	uint32_t at = make_room(c, bits);
	if (!at)
		return ERR_FULL;
	struct block *e = entry(c, at);
	e->bits |= bits;
	memcpy(key_of(e), key, key_bytes(bits));
	fill(c, at, value, value_bytes(bits), t);
	queue_add(c, at);
	index_add(c, hash, at);
	c->entries++;
	return 0;
}

static int put(struct cache *c, const char *key, size_t key_n, const void *value, size_t n, struct cache_terms t)
{
	uint64_t hash = hash_of(c, key, key_n);
	struct found f;
	uint32_t at = find(c, key, key_n, hash, &f), bits = (uint32_t)(key_n << VALUE_BITS | n);
	if (at && dirty(c, entry(c, at)) && *lsn_of(entry(c, at)) > t.lsn)
		t.lsn = *lsn_of(entry(c, at));
	bits |= (at ? VISITED : 0) | (t.lsn ? HAS_LSN : 0) |
		(t.due_ms ? HAS_TIMER : 0); /* to be written is to be used */
	if (at && units_of(entry(c, at)->bits) == units_of(bits)) {
		struct block *e = entry(c, at);
		if (e->bits & HAS_TIMER)
			wheel_stop(c->wheel, &expiry_of(e)->timer);
		e->bits = (e->bits & BLOCKS_BITS) | bits;
		fill(c, at, value, n, &t);
		return 0;
	}
	if (at)
		drop(c, at, &f);
	return insert(c, key, hash, bits, value, &t);
}

int cache_put(struct cache *c, const void *key, size_t key_n, const void *value, size_t n, const struct cache_terms *t)
{
	int err = ERR_BAD_REQUEST;
	if (key_n && key_n <= CACHE_KEY_MAX && n <= c->value_max)
		err = put(c, key, key_n, value, n, t ? *t : (struct cache_terms){ 0 });
	else
		cache_delete(c, key, key_n);
	c->stats.puts += err == 0;
	c->stats.refused += err < 0;
	return err;
}

bool cache_delete(struct cache *c, const void *key, size_t key_n)
{
	struct found f;
	uint32_t at = find(c, key, key_n, hash_of(c, key, key_n), &f);
	if (at)
		drop(c, at, &f);
	return at;
}

void cache_landed(struct cache *c, uint64_t lsn)
{
	if (lsn <= c->landed)
		return;
	c->landed = lsn;
	c->stuck = false;
}

size_t cache_drop_dirty(struct cache *c)
{
	size_t dropped = 0;
	for (uint32_t at = c->newest, older; at; at = older) {
		older = entry(c, at)->link[OLDER];
		if (dirty(c, entry(c, at))) {
			drop_entry(c, at);
			dropped++;
		}
	}
	return dropped;
}

void cache_stats(const struct cache *c, struct cache_stats *out)
{
	*out = c->stats;
	out->entries = c->entries;
	out->bytes = c->stats.bytes_max - (uint64_t)c->blocks.free_units * BLOCKS_UNIT;
}

bool cache_check(const struct cache *c)
{
	uint32_t n = 0, indexed = 0, before = 0, units = 0;
	uint64_t passed = 0;
	bool hand = !c->hand, ok = true;
	for (uint32_t at = c->oldest; at; before = at, at = entry(c, at)->link[NEWER], n++) {
		struct block *e = entry(c, at);
		struct found f = { 0 };
		uint64_t hash = hash_of(c, key_of(e), key_bytes(e->bits));
		ok = ok && e->link[OLDER] == before && find(c, key_of(e), key_bytes(e->bits), hash, &f) == at;
		passed += (f.bucket + c->buckets - f.home) % c->buckets;
		hand = hand || c->hand == at;
		units += units_of(e->bits);
		ok = ok && !(e->bits & HAS_TIMER && !timer_running(&expiry_of(e)->timer));
	}
	for (uint32_t b = 0; b < c->buckets; b++) {
		passed -= c->bucket[b].passed;
		indexed += (uint32_t)__builtin_popcount(c->bucket[b].used);
	}
	return ok && hand && before == c->newest && n == c->entries && indexed == n && passed == 0 &&
	       units + c->blocks.free_units + 2 == c->blocks.units;
}
