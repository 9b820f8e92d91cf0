#include "rpc/clientlate.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 64

struct item {
	struct item *next, **prev;           /* in order */
	struct item *same_next, **same_prev; /* of the bucket; with a key only */
	uint64_t key;
	size_t n;
	char bytes[];
};
struct clientlate {
	struct item *first, **last;
	struct item *bucket[BUCKETS];
	size_t bytes;
};

struct clientlate *clientlate_new(void)
{
	struct clientlate *l = calloc(1, sizeof(*l));

	assert(l);
	l->last = &l->first;
	return l;
}

static void drop(struct clientlate *l, struct item *i)
{
	*i->prev = i->next;
	if (i->next)
		i->next->prev = i->prev;
	else
		l->last = i->prev;
	if (i->key) {
		*i->same_prev = i->same_next;
		if (i->same_next)
			i->same_next->same_prev = i->same_prev;
	}
	l->bytes -= i->n;
	free(i);
}

void clientlate_free(struct clientlate *l)
{
	while (l && l->first)
		drop(l, l->first);
	free(l);
}

static size_t drop_superseded(struct clientlate *l, uint64_t key)
{
	struct item *i = l->bucket[key % BUCKETS];

	while (i && i->key != key)
		i = i->same_next;
	size_t n = i ? i->n : 0;
	if (i)
		drop(l, i);
	return n;
}

static struct item *item_new(uint64_t key, const struct iovec *part, size_t parts)
{
	size_t n = 0;

	for (size_t i = 0; i < parts; i++)
		n += part[i].iov_len;
	struct item *it = malloc(sizeof(*it) + n);
	assert(it);
	*it = (struct item){ .key = key };
	for (size_t i = 0; i < parts; i++) {
		if (part[i].iov_len)
			memcpy(it->bytes + it->n, part[i].iov_base, part[i].iov_len);
		it->n += part[i].iov_len;
	}
	return it;
}

size_t clientlate_add(struct clientlate *l, uint64_t key, const struct iovec *part, size_t parts)
{
	size_t dropped = key ? drop_superseded(l, key) : 0;
	struct item *i = item_new(key, part, parts);

	i->prev = l->last;
	*l->last = i;
	l->last = &i->next;
	l->bytes += i->n;
	if (key) {
		struct item **bucket = &l->bucket[key % BUCKETS];
		i->same_next = *bucket;
		i->same_prev = bucket;
		if (i->same_next)
			i->same_next->same_prev = &i->same_next;
		*bucket = i;
	}
	return dropped;
}

size_t clientlate_bytes(const struct clientlate *l)
{
	return l->bytes;
}

bool clientlate_first(const struct clientlate *l, const char **bytes, size_t *n)
{
	if (!l->first)
		return false;
	*bytes = l->first->bytes;
	*n = l->first->n;
	return true;
}

void clientlate_take(struct clientlate *l)
{
	if (l->first)
		drop(l, l->first);
}

void clientlate_each(const struct clientlate *l, void (*one)(void *arg, uint64_t key, const char *bytes, size_t n),
		     void *arg)
{
	for (const struct item *i = l->first; i; i = i->next)
		one(arg, i->key, i->bytes, i->n);
}

static uint64_t mix(uint64_t h, const char *p, size_t n) /* FNV-1a */
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ (uint8_t)p[i]) * 1099511628211u;
	return (h ^ 0xff) * 1099511628211u;
}

uint64_t clientlate_key(const char *route, size_t route_n, const char *name, size_t n)
{
	uint64_t h = mix(mix(14695981039346656037u, route, route_n), name, n);

	return h ? h : 1;
}
