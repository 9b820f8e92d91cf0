#include "gate/line.h"
#include <assert.h>
#include <stddef.h>

/* A treap: a search tree by key whose shape is drawn by lot (weight), with the size of each subtree kept. */

static uint32_t count_of(const struct line_node *n)
{
	return n ? n->count : 0;
}

static void recount(struct line_node *n)
{
	n->count = 1 + count_of(n->left) + count_of(n->right);
}

static bool before(const struct line_node *a, const struct line_node *b)
{
	return a->key != b->key ? a->key < b->key : a->seq < b->seq;
}

static struct line_node **link_of(struct line *l, struct line_node *n)
{
	if (!n->parent)
		return &l->root;
	return n->parent->left == n ? &n->parent->left : &n->parent->right;
}

/* n takes its parent's place, the parent goes below it. */
static void rotate_up(struct line *l, struct line_node *n)
{
	struct line_node *p = n->parent, *moved;

	*link_of(l, p) = n;
	n->parent = p->parent;
	if (p->left == n) {
		moved = p->left = n->right;
		n->right = p;
	} else {
		moved = p->right = n->left;
		n->left = p;
	}
	if (moved)
		moved->parent = p;
	p->parent = n;
	recount(p);
	recount(n);
}

void line_add(struct line *l, struct line_node *n, uint64_t key)
{
	struct line_node **at = &l->root, *parent = NULL;

	*n = (struct line_node){ .key = key, .seq = l->seq++, .count = 1 };
	n->weight = l->lot = l->lot * 1664525u + 1013904223u;
	while (*at) {
		parent = *at;
		parent->count++;
		at = before(n, parent) ? &parent->left : &parent->right;
	}
	*at = n;
	n->parent = parent;
	while (n->parent && n->parent->weight < n->weight)
		rotate_up(l, n);
}

void line_remove(struct line *l, struct line_node *n)
{
	assert(l->root && (n->parent || l->root == n));
	while (n->left || n->right) {
		struct line_node *up =
			!n->left || (n->right && n->right->weight > n->left->weight) ? n->right : n->left;
		rotate_up(l, up);
	}
	*link_of(l, n) = NULL;
	for (struct line_node *p = n->parent; p; p = p->parent)
		p->count--;
	n->parent = NULL;
	n->count = 0;
}

struct line_node *line_first(const struct line *l)
{
	struct line_node *n = l->root;

	while (n && n->left)
		n = n->left;
	return n;
}

unsigned line_count(const struct line *l)
{
	return count_of(l->root);
}

unsigned line_position(const struct line_node *n)
{
	unsigned position = count_of(n->left) + 1;

	for (const struct line_node *p = n->parent; p; n = p, p = p->parent)
		if (p->right == n)
			position += count_of(p->left) + 1;
	return position;
}

static bool check(const struct line_node *n)
{
	if (!n)
		return true;
	if (n->count != 1 + count_of(n->left) + count_of(n->right))
		return false;
	if (n->left && (n->left->parent != n || !before(n->left, n) || n->left->weight > n->weight))
		return false;
	if (n->right && (n->right->parent != n || !before(n, n->right) || n->right->weight > n->weight))
		return false;
	return check(n->left) && check(n->right);
}

bool line_check(const struct line *l)
{
	return check(l->root) && (!l->root || !l->root->parent);
}
