#pragma once
#include <stdbool.h>
#include <stdint.h>
/*
 * line: who waits, in order, so that any place in it is found quickly: add, remove and position take O(log n) steps.
 *
 * Order:   by key, the smallest first; equal keys in the order of line_add.
 * Threads: the owner's; no I/O, no clock.
 * Memory:  the caller embeds struct line_node; nothing is allocated.
 */
struct line_node { /* the fields are the line's, but key to read */
	struct line_node *left, *right, *parent;
	uint64_t key, seq;
	uint32_t count;  /* of this node and all below it */
	uint32_t weight; /* no node weighs more than the one above it: that keeps the tree flat */
};
struct line { /* zero it */
	struct line_node *root;
	uint64_t seq;
	uint32_t lot;
};

void line_add(struct line *l, struct line_node *n, uint64_t key);
void line_remove(struct line *l, struct line_node *n); /* it must stand there */
struct line_node *line_first(const struct line *l);    /* NULL: nobody waits */
unsigned line_count(const struct line *l);
unsigned line_position(const struct line_node *n); /* from 1 */
/* For tests: whether all of the above holds. */
bool line_check(const struct line *l);
