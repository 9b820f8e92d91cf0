/*
 * cache_glib: GLib's hash table as a cache of copies, at the figures of tests/bench/cache.c: the table owns key and value,
 * a put replaces both. Its hash is as good and as fast as the cache's own.
 */
#include <glib.h>
#include "tests/bench/pairs.h"

static guint hash(gconstpointer key)
{
	uint64_t a, b;
	memcpy(&a, key, 8);
	memcpy(&b, (const char *)key + 8, 8);
	unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xa0761d6478bd642fu);
	return (guint)((uint64_t)product ^ (uint64_t)(product >> 64));
}

static gboolean equal(gconstpointer a, gconstpointer b)
{
	return !memcmp(a, b, KEY_BYTES);
}

static void put(GHashTable *table, const char *key, const char *value)
{
	g_hash_table_replace(table, g_memdup2(key, KEY_BYTES), g_memdup2(value, VALUE_BYTES));
}

int main(void)
{
	struct pairs *p = pairs_new();
	GHashTable *table = g_hash_table_new_full(hash, equal, g_free, g_free);
	char value[VALUE_BYTES] = "a value";
	uint64_t sum = 0;
	for (uint32_t i = 0; i < PAIRS; i++)
		put(table, p->key[i], value);
	double from = cpu_ns();
	for (uint32_t i = 0; i < PAIRS; i++)
		sum += (unsigned char)*(const char *)g_hash_table_lookup(table, p->asked[i]);
	double get_ns = (cpu_ns() - from) / PAIRS;
	from = cpu_ns();
	for (uint32_t i = 0; i < PAIRS; i++)
		put(table, p->asked[i], value);
	double put_ns = (cpu_ns() - from) / PAIRS;
	printf("{\"get_ns\":%.1f,\"put_ns\":%.1f}\n", get_ns, put_ns);
	return sum != (uint64_t)'a' * PAIRS;
}
