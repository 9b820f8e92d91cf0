#include <check.h>
#include <malloc.h>
#include <string.h>
#include "common/blocks.h"
#include "common/cache.h"
#include "common/err.h"
#include "tests/support/suite.h"

/* ck_assert tells the parent process of each pass, too slow for millions of them */
#define must(cond, ...)                            \
	do {                                       \
		if (!(cond))                       \
			ck_abort_msg(__VA_ARGS__); \
	} while (0)

enum { BYTES = 256 << 10 };
static struct env *env;
static struct wheel *w;
static struct cache *c;

static void setup(void)
{
	env = env_new();
	w = wheel_new(0);
	c = cache_new(env, BYTES, w);
}

static void teardown(void)
{
	ck_assert(cache_check(c));
	cache_free(c);
	ck_assert(wheel_check(w));
	ck_assert_uint_eq(wheel_count(w), 0);
	wheel_free(w);
	env_free(env);
}

static int put(const char *key, const char *value)
{
	return cache_put(c, key, strlen(key), value, strlen(value), NULL);
}

static int put_on(const char *key, const char *value, uint64_t lsn, uint64_t due_ms)
{
	return cache_put(c, key, strlen(key), value, strlen(value), &(struct cache_terms){ lsn, due_ms });
}

static bool has(const char *key, const char *value)
{
	size_t n;
	const void *there = cache_get(c, key, strlen(key), &n);
	return value ? there && n == strlen(value) && !memcmp(there, value, n) : !there;
}

static struct cache_stats stats(void)
{
	struct cache_stats s;
	cache_stats(c, &s);
	return s;
}

/* n entries "NAME0", "NAME1", … of 100 bytes. */
static void put_many(const char *name, unsigned n, uint64_t lsn)
{
	char key[32], value[100];
	memset(value, 'v', sizeof value);
	for (unsigned i = 0; i < n; i++) {
		snprintf(key, sizeof key, "%s%u", name, i);
		cache_put(c, key, strlen(key), value, sizeof value, &(struct cache_terms){ .lsn = lsn });
	}
}

static unsigned count_many(const char *name, unsigned n)
{
	char key[32];
	unsigned there = 0;
	size_t bytes;
	for (unsigned i = 0; i < n; i++) {
		snprintf(key, sizeof key, "%s%u", name, i);
		there += cache_get(c, key, strlen(key), &bytes) != NULL;
	}
	return there;
}

/* ---- keys and values --------------------------------------------------------------------------------------- */

START_TEST(what_is_put_is_got)
{
	ck_assert_int_eq(put("role:42", "gold"), 0);
	ck_assert(has("role:42", "gold"));
	ck_assert(has("role:43", NULL));
	ck_assert_int_eq(put("empty", ""), 0);
	ck_assert(has("empty", ""));
}
END_TEST

START_TEST(a_second_put_takes_the_place_of_the_first_whatever_its_length)
{
	ck_assert_int_eq(put("k", "one"), 0);
	ck_assert_int_eq(put("k", "two"), 0);
	ck_assert(has("k", "two"));
	ck_assert_int_eq(put("k", "a value that needs more room than the one before it had"), 0);
	ck_assert(has("k", "a value that needs more room than the one before it had"));
	ck_assert_int_eq(put("k", "3"), 0);
	ck_assert(has("k", "3"));
	ck_assert_uint_eq(stats().entries, 1);
}
END_TEST

START_TEST(what_is_deleted_is_gone_and_deleting_what_is_not_there_says_so)
{
	put("k", "v");
	ck_assert(cache_delete(c, "k", 1));
	ck_assert(has("k", NULL));
	ck_assert(!cache_delete(c, "k", 1));
}
END_TEST

START_TEST(keys_are_bytes_and_compared_to_the_last_one)
{
	size_t n;
	ck_assert_int_eq(cache_put(c, "a\0b", 3, "x", 1, NULL), 0);
	ck_assert_ptr_null(cache_get(c, "a\0c", 3, &n));
	ck_assert_ptr_null(cache_get(c, "a", 1, &n));
	ck_assert_ptr_nonnull(cache_get(c, "a\0b", 3, &n));
}
END_TEST

/* Two of each: they differ in their first or last bytes alone, and so many that some have one bucket and tag. */
START_TEST(keys_that_differ_at_one_end_are_not_taken_for_each_other)
{
	char key[2][20];
	unsigned there = 0;
	size_t n;
	for (unsigned i = 0; i < 2000; i++) {
		snprintf(key[0], sizeof key[0], "role/bag%06u", 2 * i);
		snprintf(key[1], sizeof key[1], "%06urole/bag", 2 * i);
		put(key[0], "v");
		put(key[1], "v");
	}
	for (unsigned i = 0; i < 60000; i++) {
		snprintf(key[0], sizeof key[0], "role/bag%06u", 2 * i + 1);
		snprintf(key[1], sizeof key[1], "%06urole/bag", 2 * i + 1);
		there += cache_get(c, key[0], 14, &n) || cache_get(c, key[1], 14, &n);
	}
	ck_assert_uint_eq(there, 0);
	ck_assert_uint_gt(stats().entries, 1000);
}
END_TEST

START_TEST(a_key_or_value_out_of_bounds_is_refused_and_leaves_no_older_value_behind)
{
	static char big[BYTES];
	ck_assert_int_eq(cache_put(c, "", 0, "v", 1, NULL), ERR_BAD_REQUEST);
	ck_assert_int_eq(cache_put(c, big, CACHE_KEY_MAX + 1, "v", 1, NULL), ERR_BAD_REQUEST);
	ck_assert_int_eq(cache_put(c, big, CACHE_KEY_MAX, "v", 1, NULL), 0);
	ck_assert_int_eq(put("k", "older"), 0);
	ck_assert_int_eq(cache_put(c, "k", 1, big, BYTES / 8 + 1, NULL), ERR_BAD_REQUEST);
	ck_assert(has("k", NULL));
	ck_assert_int_eq(cache_put(c, "k", 1, big, BYTES / 8, NULL), 0);
	ck_assert_uint_eq(stats().refused, 3);
}
END_TEST

/* ---- the bound ----------------------------------------------------------------------------------------------- */

START_TEST(the_bound_holds_for_all_the_memory_it_takes)
{
	enum { MANY = 32 << 20, ALLOWANCE = 1 << 20 };
	uint64_t resident = env_rss_bytes(env), heap = mallinfo2().uordblks;
	struct cache *own = cache_new(env, MANY, w);
	char value[200] = "", key[16];
	struct cache_stats s;
	for (unsigned i = 0; i < 1000000; i++) {
		int n = snprintf(key, sizeof key, "%u", i);
		cache_put(own, key, (size_t)n, value, 100 + i % 100, NULL);
	}
	cache_stats(own, &s);
	ck_assert_uint_gt(s.evicted, 0);
	ck_assert_uint_gt(s.bytes, MANY / 10 * 9);
	ck_assert_uint_le(s.bytes, MANY);
	ck_assert_uint_eq(s.bytes_max, MANY);
	ck_assert_uint_le(mallinfo2().uordblks, heap + 4096);
#if !defined __SANITIZE_ADDRESS__ && \
	!defined __SANITIZE_THREAD__ /* they keep notes of each byte, in memory of their own */
	ck_assert_uint_le(env_rss_bytes(env), resident + MANY + ALLOWANCE);
#else
	(void)resident;
#endif
	cache_free(own);
}
END_TEST

START_TEST(an_entry_costs_at_most_32_bytes_beside_key_and_value)
{
	struct cache *own = cache_new(env, 4 << 20, w);
	char value[116] = "", key[17];
	uint64_t payload = 0;
	struct cache_stats s;
	for (unsigned i = 0;; i++) {
		size_t n = 84 + i * 7 % 33; /* 100 on average */
		snprintf(key, sizeof key, "%016u", i);
		cache_put(own, key, 16, value, n, NULL);
		cache_stats(own, &s);
		if (s.evicted)
			break;
		payload += 16 + n;
	}
	ck_assert_uint_le((s.bytes_max - payload) / (s.entries + 1), 32);
	cache_free(own);
}
END_TEST

START_TEST(small_entries_fill_the_index_first_and_then_evict_too)
{
	char key[16];
	for (unsigned i = 0; i < 20000; i++) {
		int n = snprintf(key, sizeof key, "%u", i);
		ck_assert_int_eq(cache_put(c, key, (size_t)n, "", 0, NULL), 0);
	}
	ck_assert_uint_gt(stats().evicted, 0);
	ck_assert_uint_gt(stats().entries, BYTES / 120);
}
END_TEST

/* ---- eviction ------------------------------------------------------------------------------------------------- */

START_TEST(who_was_asked_for_stays_and_who_was_not_goes)
{
	put_many("hot", 100, 0);
	for (unsigned round = 0; round < 40; round++) {
		char cold[16];
		snprintf(cold, sizeof cold, "cold%u.", round);
		ck_assert_uint_eq(count_many("hot", 100), 100);
		put_many(cold, 500, 0); /* 20,000 in all, ten times what there is room for */
	}
	ck_assert_uint_eq(count_many("hot", 100), 100);
	ck_assert_uint_gt(stats().evicted, 0);
}
END_TEST

START_TEST(what_is_put_again_counts_as_asked_for)
{
	put_many("hot", 100, 0);
	for (unsigned round = 0; round < 40; round++) {
		char cold[16];
		snprintf(cold, sizeof cold, "cold%u.", round);
		put_many("hot", 100, 0);
		uint64_t entries = stats().entries;
		put_many("hot", 100, 0);
		ck_assert_uint_eq(stats().entries, entries); /* all were there */
		put_many(cold, 500, 0);
	}
	ck_assert_uint_eq(count_many("hot", 100), 100);
}
END_TEST

START_TEST(one_goes_for_a_new_one_also_where_all_were_asked_for)
{
	put_many("old", 5000, 0);
	uint64_t evicted = stats().evicted;
	ck_assert_uint_gt(count_many("old", 5000), 1000);
	put_many("new", 1, 0);
	ck_assert_uint_eq(count_many("new", 1), 1);
	ck_assert_uint_eq(stats().evicted, evicted + 1);
	ck_assert_uint_eq(stats().refused, 0);
}
END_TEST

START_TEST(a_dirty_entry_is_not_evicted_until_it_has_landed)
{
	put_many("dirty", 500, 7);
	put_many("clean", 5000, 0);
	ck_assert_uint_eq(count_many("dirty", 500), 500);
	cache_landed(c, 6);
	put_many("clean", 5000, 0);
	ck_assert_uint_eq(count_many("dirty", 500), 500);
	ck_assert_uint_gt(stats().spared, 0);
	cache_landed(c, 7);
	for (unsigned round = 0; round < 20; round++) {
		char other[16];
		snprintf(other, sizeof other, "other%u.", round);
		put_many(other, 1000, 0);
		count_many(other, 1000); /* as they are used the hand moves on to the oldest */
	}
	ck_assert_uint_lt(count_many("dirty", 500), 500);
}
END_TEST

START_TEST(a_cache_full_of_dirty_entries_refuses_and_goes_on_when_they_have_landed)
{
	put_many("dirty", 5000, 9);
	uint64_t entries = stats().entries;
	ck_assert_uint_gt(stats().refused, 0);
	ck_assert_uint_eq(stats().evicted, 0);
	ck_assert_int_eq(put("k", "a value of some length that has no room any more: the memory is full of dirt....."),
			 ERR_FULL);
	ck_assert(has("k", NULL));
	ck_assert_uint_eq(stats().entries, entries);
	cache_landed(c, 9);
	ck_assert_int_eq(put("k", "a value of some length that has no room any more: the memory is full of dirt....."),
			 0);
}
END_TEST

START_TEST(in_the_place_of_a_deleted_dirty_entry_clean_ones_take_turns)
{
	put_many("dirty", 5000, 9);
	ck_assert_uint_gt(stats().refused, 0);
	ck_assert(cache_delete(c, "dirty0", 6));
	uint64_t refused = stats().refused;
	put_many("clean", 3, 0);
	ck_assert_uint_eq(stats().refused, refused);
	ck_assert_uint_eq(stats().evicted, 2);
	ck_assert_uint_eq(count_many("clean", 3), 1);
}
END_TEST

START_TEST(what_has_landed_stays_so_when_an_older_position_is_told)
{
	cache_landed(c, 7);
	cache_landed(c, 5);
	put_on("k", "v", 6, 0);
	ck_assert_uint_eq(cache_drop_dirty(c), 0);
	ck_assert(has("k", "v"));
}
END_TEST

START_TEST(a_clean_value_put_over_a_dirty_one_does_not_make_it_clean)
{
	put_on("k", "changed", 5, 0);
	put("k", "changed"); /* read back by somebody meanwhile */
	put_many("clean", 5000, 0);
	ck_assert(has("k", "changed"));
}
END_TEST

START_TEST(what_is_dirty_goes_when_its_log_has_failed_and_the_rest_stays)
{
	put("clean", "v");
	put_on("landed", "v", 3, 0);
	put_on("lost", "v", 4, 0);
	cache_landed(c, 3);
	ck_assert_uint_eq(cache_drop_dirty(c), 1);
	ck_assert(has("clean", "v") && has("landed", "v") && has("lost", NULL));
}
END_TEST

/* ---- expiry ------------------------------------------------------------------------------------------------------ */

START_TEST(an_entry_is_there_until_it_is_due_and_then_gone)
{
	put_on("k", "v", 0, 100);
	put("other", "v");
	wheel_run(w, 99, 10);
	ck_assert(has("k", "v"));
	wheel_run(w, 100, 10);
	ck_assert(has("k", NULL) && has("other", "v"));
	ck_assert_uint_eq(stats().expired, 1);
	ck_assert_uint_eq(stats().entries, 1);
}
END_TEST

START_TEST(a_new_value_has_its_own_time_or_none)
{
	put_on("k", "v", 0, 100);
	put_on("k", "w", 0, 200);
	wheel_run(w, 100, 10);
	ck_assert(has("k", "w"));
	put("k", "x");
	wheel_run(w, 1000, 10);
	ck_assert(has("k", "x"));
	ck_assert_uint_eq(wheel_count(w), 0);
}
END_TEST

START_TEST(a_dirty_entry_expires_only_when_it_has_landed)
{
	put_on("k", "v", 5, 100);
	wheel_run(w, 150, 10);
	ck_assert(has("k", "v"));
	cache_landed(c, 5);
	wheel_run(w, 1000, 10);
	ck_assert(has("k", NULL));
}
END_TEST

/* ---- against a model: what is got is what was put last; what may not go is there -------------------------------- */

enum { KEYS = 3000 };
static struct {
	bool put, dirty;
	uint64_t lsn, due, version;
	unsigned bytes;
} m[KEYS];
static uint64_t seed, now, landed;

static unsigned chance(unsigned below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 32) * below >> 32);
}

static size_t key_of(unsigned i, char key[64])
{
	return (size_t)snprintf(key, 64, "%u:%.*s", i, (int)(i % 40), "a key that is long or short, as it comes");
}

static const char *value_of(unsigned i, uint64_t version, unsigned bytes)
{
	static char value[4096];
	for (unsigned at = 0; at < bytes; at++)
		value[at] = (char)(i * 31 + version * 7 + at);
	return value;
}

static bool may_be_gone(unsigned i)
{
	return !m[i].put || !(m[i].lsn > landed);
}

static void model_get(unsigned i)
{
	char key[64];
	size_t n;
	const void *v = cache_get(c, key, key_of(i, key), &n);
	must(v || may_be_gone(i), "key %u is dirty and gone", i);
	must(!v || m[i].put, "key %u was never put or is deleted", i);
	must(!v || m[i].due == 0 || m[i].due > now || m[i].lsn > 0, "key %u should have expired", i);
	must(!v || (n == m[i].bytes && !memcmp(v, value_of(i, m[i].version, m[i].bytes), n)),
	     "key %u has an older value", i);
}

static void model_put(unsigned i)
{
	char key[64];
	struct cache_terms t = { .lsn = chance(8) ? 0 : landed + chance(3),
				 .due_ms = chance(5) ? 0 : now + 1 + chance(1000) };
	unsigned bytes = chance(20) ? chance(200) : chance(4000);
	int err = cache_put(c, key, key_of(i, key), value_of(i, ++m[i].version, bytes), bytes, &t);
	must(err == 0 || err == ERR_FULL, "put answers %d", err);
	m[i].put = err == 0;
	m[i].lsn = m[i].lsn > landed && m[i].lsn > t.lsn ? m[i].lsn : t.lsn;
	m[i].due = t.due_ms;
	m[i].bytes = bytes;
}

static void model_step(void)
{
	char key[64];
	unsigned i = chance(2) ? chance(KEYS) : chance(KEYS / 20), what = chance(100);
	if (what < 55) {
		model_get(i);
	} else if (what < 90) {
		model_put(i);
	} else if (what < 95) {
		bool there = cache_delete(c, key, key_of(i, key));
		must(there || may_be_gone(i), "key %u is dirty and gone", i);
		m[i].put = false;
		m[i].lsn = 0;
	} else if (what < 98) {
		wheel_run(w, now += chance(30), UINT32_MAX);
	} else {
		cache_landed(c, landed += chance(3));
	}
}

START_TEST(random_operations_agree_with_a_model)
{
	memset(m, 0, sizeof m);
	seed = UINT64_C(88172645463325252) + (uint64_t)_i * 977;
	now = landed = 0;
	for (int step = 0; step < 100000; step++) {
		model_step();
		must(step % 1000 || cache_check(c), "an invariant is broken at step %d", step);
	}
	for (unsigned i = 0; i < KEYS; i++)
		model_get(i);
	ck_assert_uint_gt(stats().evicted, 0);
	ck_assert_uint_gt(stats().expired, 0);
}
END_TEST

/* ---- blocks: they never overlap, and what is freed becomes one piece again --------------------------------- */

START_TEST(blocks_do_not_overlap_and_freed_ones_grow_together)
{
	enum { UNITS = 5000, BLOCKS = 400 };
	static struct block memory[UNITS];
	static unsigned char owner[UNITS];
	uint32_t at[BLOCKS] = { 0 }, units[BLOCKS];
	struct blocks a;
	memset(memory, 0, sizeof memory);
	memset(owner, 0, sizeof owner);
	seed = UINT64_C(123456789) + (uint64_t)_i;
	blocks_init(&a, memory, UNITS);
	for (int step = 0; step < 20000; step++) {
		unsigned i = chance(BLOCKS);
		if (at[i]) {
			memset(owner + at[i], 0, units[i]);
			blocks_free(&a, at[i], units[i]);
			at[i] = 0;
			continue;
		}
		units[i] = 1 + chance(chance(10) ? 20 : 400);
		at[i] = blocks_alloc(&a, units[i]);
		for (uint32_t u = 0; at[i] && u < units[i]; u++) {
			must(at[i] + u < UNITS - 1 && !owner[at[i] + u], "unit %u has two owners", at[i] + u);
			owner[at[i] + u] = 1;
		}
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		if (at[i])
			blocks_free(&a, at[i], units[i]);
	ck_assert_uint_eq(a.free_units, UNITS - 2);
	ck_assert_uint_ne(blocks_alloc(&a, UNITS - 2), 0);
	ck_assert_uint_eq(blocks_alloc(&a, 1), 0);
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("cache");
	tcase_set_timeout(t, 60);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, what_is_put_is_got);
	tcase_add_test(t, a_second_put_takes_the_place_of_the_first_whatever_its_length);
	tcase_add_test(t, what_is_deleted_is_gone_and_deleting_what_is_not_there_says_so);
	tcase_add_test(t, keys_are_bytes_and_compared_to_the_last_one);
	tcase_add_test(t, keys_that_differ_at_one_end_are_not_taken_for_each_other);
	tcase_add_test(t, a_key_or_value_out_of_bounds_is_refused_and_leaves_no_older_value_behind);
	tcase_add_test(t, the_bound_holds_for_all_the_memory_it_takes);
	tcase_add_test(t, an_entry_costs_at_most_32_bytes_beside_key_and_value);
	tcase_add_test(t, small_entries_fill_the_index_first_and_then_evict_too);
	tcase_add_test(t, who_was_asked_for_stays_and_who_was_not_goes);
	tcase_add_test(t, what_is_put_again_counts_as_asked_for);
	tcase_add_test(t, one_goes_for_a_new_one_also_where_all_were_asked_for);
	tcase_add_test(t, a_dirty_entry_is_not_evicted_until_it_has_landed);
	tcase_add_test(t, a_cache_full_of_dirty_entries_refuses_and_goes_on_when_they_have_landed);
	tcase_add_test(t, in_the_place_of_a_deleted_dirty_entry_clean_ones_take_turns);
	tcase_add_test(t, what_has_landed_stays_so_when_an_older_position_is_told);
	tcase_add_test(t, a_clean_value_put_over_a_dirty_one_does_not_make_it_clean);
	tcase_add_test(t, what_is_dirty_goes_when_its_log_has_failed_and_the_rest_stays);
	tcase_add_test(t, an_entry_is_there_until_it_is_due_and_then_gone);
	tcase_add_test(t, a_new_value_has_its_own_time_or_none);
	tcase_add_test(t, a_dirty_entry_expires_only_when_it_has_landed);
	tcase_add_loop_test(t, random_operations_agree_with_a_model, 0, 5);
	tcase_add_loop_test(t, blocks_do_not_overlap_and_freed_ones_grow_together, 0, 5);
	return suite_run("cache", t);
}
