#include "common/inbox.h"
#include <stddef.h>

/*
 * Vyukov's queue exchanges its head and then links the node; here the producers stack messages on one word and
 * the owner takes the whole stack by one exchange and turns it round. A taken list is always complete (there is
 * no moment at which a producer has swapped but not yet linked), an empty word means that all was taken, so the
 * push that finds it empty is exactly the one that has to wake the owner: no sleeping flag is needed.
 */
void inbox_init(struct inbox *in)
{
	atomic_init(&in->head, NULL);
}

bool inbox_push(struct inbox *in, struct inbox_msg *m)
{
	struct inbox_msg *old = atomic_load_explicit(&in->head, memory_order_relaxed);
	do
		m->next = old;
	/* release: pairs with the acquire in inbox_take, so the owner sees the message's content */
	while (!atomic_compare_exchange_weak_explicit(&in->head, &old, m, memory_order_release, memory_order_relaxed));
	return old == NULL;
}

struct inbox_msg *inbox_take(struct inbox *in)
{
	struct inbox_msg *list = NULL;
	if (!atomic_load_explicit(&in->head, memory_order_relaxed)) /* spares the exchange on an idle turn */
		return NULL;
	/* acquire: pairs with the release of every push on the stack (each CAS continues its release sequence) */
	struct inbox_msg *m = atomic_exchange_explicit(&in->head, NULL, memory_order_acquire);
	while (m) {
		struct inbox_msg *next = m->next;
		m->next = list;
		list = m;
		m = next;
	}
	return list;
}
