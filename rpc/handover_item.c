/* handover.h: what travels, and its fields. */
#include "rpc/handover.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void handover_put(struct buf *b, uint8_t key, const void *p, size_t n)
{
	uint32_t size = (uint32_t)n;

	buf_addch(b, (char)key);
	buf_add(b, &size, sizeof(size)); /* both are this machine's */
	buf_add(b, p, n);
}

void handover_put_u(struct buf *b, uint8_t key, uint64_t v)
{
	handover_put(b, key, &v, sizeof(v));
}

bool handover_next(struct span *in, struct handover_field *out)
{
	uint32_t size;

	if (in->n < 1 + sizeof(size))
		return false;
	memcpy(&size, in->p + 1, sizeof(size));
	if (size > in->n - 1 - sizeof(size))
		return false;
	out->key = (uint8_t)in->p[0];
	out->bytes = span_of(in->p + 1 + sizeof(size), size);
	*in = span_of(out->bytes.p + size, in->n - 1 - sizeof(size) - size);
	return true;
}

uint64_t handover_u(const struct handover_field *f)
{
	uint64_t v = 0;

	memcpy(&v, f->bytes.p, f->bytes.n < sizeof(v) ? f->bytes.n : sizeof(v));
	return v;
}

void handover_text(const struct handover_field *f, char *out, size_t size)
{
	snprintf(out, size, "%.*s", (int)f->bytes.n, f->bytes.n ? f->bytes.p : "");
}

struct handover_item *handover_add(struct handover_list *l)
{
	struct handover_item *item = calloc(1, sizeof(*item));

	assert(item);
	if (!l->last)
		l->last = &l->first;
	*l->last = item;
	l->last = &item->next;
	return item;
}

void handover_list_free(struct handover_list *l)
{
	for (struct handover_item *item = l->first, *next; item; item = next) {
		next = item->next;
		env_passed_close(item->passed);
		buf_release(&item->bytes);
		free(item);
	}
	*l = (struct handover_list){ NULL, NULL };
}
