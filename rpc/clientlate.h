#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
/*
 * clientlate: what waits for a client that reads too slowly, in order. A push may name what it supersedes: an older one of
 * the same key that still waits is dropped when the newer comes, so a slow reader gets the latest of each thing.
 *
 * Threads: owner worker only. Memory: an item per packet, given back when it is taken; free drops all.
 */
struct clientlate;
struct clientlate *clientlate_new(void);
void clientlate_free(struct clientlate *l); /* NULL is fine */
/* Behind all others; key 0: it supersedes nothing. The parts are copied. Returns how many bytes were dropped for it. */
size_t clientlate_add(struct clientlate *l, uint64_t key, const struct iovec *part, size_t parts);
size_t clientlate_bytes(const struct clientlate *l); /* 0: nothing waits */
/* The oldest; false: nothing waits. Its bytes are valid until clientlate_take. */
bool clientlate_first(const struct clientlate *l, const char **bytes, size_t *n);
void clientlate_take(struct clientlate *l); /* drops the oldest */
/* All that waits, in its order, with the keys they came with. */
void clientlate_each(const struct clientlate *l, void (*one)(void *arg, uint64_t key, const char *bytes, size_t n),
		     void *arg);
/* The key of what is superseded by its name, for pushes of this route; never 0. */
uint64_t clientlate_key(const char *route, size_t route_n, const char *name, size_t n);
