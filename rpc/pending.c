#include "rpc/pending.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/peer.h"

enum {
	CHUNK = 1 << PENDING_CHUNK_BITS,
	KEEP_BYTES = 512,   /* a larger buffer is given back when its call has ended */
	LINE = 64,          /* of the cache: a buffer has whole ones, most calls need one */
	LOOK_PER_MS = 4096, /* slots: some 20 us */
};

void pending_init(struct pending_table *t)
{
	*t = (struct pending_table){ .look_ms = UINT64_MAX };
}

/* ---- the table ------------------------------------------------------------------------------------------ */

void pending_grow(struct pending_table *t)
{
	uint32_t chunks = t->slots >> PENDING_CHUNK_BITS;

	assert(t->slots < PENDING_SLOTS_MAX);
	if ((chunks & (chunks - 1)) == 0) {
		t->chunk = realloc(t->chunk, sizeof *t->chunk * (chunks ? chunks * 2 : 1));
		assert(t->chunk);
	}
	struct pending *p = t->chunk[chunks] = aligned_alloc(64, sizeof *p * CHUNK);

	assert(p);
	memset(p, 0, sizeof *p * CHUNK);
	for (uint32_t i = CHUNK; i-- > 0;) { /* the first slot is taken first */
		p[i].id = PENDING_FREE | 1u << PENDING_SLOT_BITS | (t->slots + i);
		if (t->slots + i == 0)
			break; /* its id would be 0 one day */
		p[i].next = t->free_list;
		t->free_list = &p[i];
	}
	t->slots += CHUNK;
}

void pending_release(struct pending_table *t)
{
	for (uint32_t i = 0; i < t->slots; i++)
		free(pending_slot(t, i)->bytes);
	for (uint32_t i = 0; i < t->slots >> PENDING_CHUNK_BITS; i++)
		free(t->chunk[i]);
	free(t->chunk);
	pending_init(t);
}

/* ---- deadlines -------------------------------------------------------------------------------------------- */

bool pending_look_at(struct pending_table *t, uint64_t ms)
{
	if (ms < t->quiet_ms)
		ms = t->quiet_ms;
	if (ms >= t->look_ms)
		return false;
	t->look_ms = ms;
	return true;
}

void pending_look(struct pending_table *t, uint64_t now_ms, void (*overdue)(struct pending *p))
{
	uint64_t next = UINT64_MAX;

	t->look_ms = UINT64_MAX; /* overdue may make new calls */
	t->quiet_ms = now_ms + t->slots / LOOK_PER_MS;
	for (uint32_t i = 0; i < t->slots; i++) {
		struct pending *p = pending_at(t, i);

		if (p && p->due_ms < now_ms)
			overdue(p);
		else if (p && p->due_ms + 1 < next)
			next = p->due_ms + 1;
	}
	pending_look_at(t, next);
}

/* ---- what was sent --------------------------------------------------------------------------------------- */

static int by_order(const void *a, const void *b)
{
	const struct pending *p = *(struct pending *const *)a, *q = *(struct pending *const *)b;

	return p->order < q->order ? -1 : p->order > q->order;
}

struct pending **pending_sent_on(const struct pending_table *t, const struct peer *peer, size_t *n)
{
	struct pending **sent = malloc(sizeof(*sent) * (pending_calls(t) + 1));

	assert(sent);
	*n = 0;
	for (uint32_t i = 0; i < t->slots; i++) {
		struct pending *p = pending_at(t, i);

		if (p && p->sent && p->peer == peer)
			sent[(*n)++] = p;
	}
	qsort(sent, *n, sizeof(*sent), by_order);
	return sent;
}

/* ---- its peer -------------------------------------------------------------------------------------------- */

void pending_leave(struct pending *p)
{
	if (!p->peer)
		return;
	p->peer->pendings--;
	p->peer->kept_bytes -= p->kept;
	p->peer = NULL;
}

void pending_join(struct pending *p, struct peer *peer)
{
	p->peer = peer;
	peer->pendings++;
	peer->kept_bytes += p->kept;
}

/* ---- its bytes -------------------------------------------------------------------------------------------- */

size_t call_bytes(const struct rpc_call *call)
{
	return call->to.key.n + call->uid.n + call->once.n + call->body.n;
}

static void make_room(struct pending *p, size_t n)
{
	if (p->bytes_cap >= n)
		return;
	free(p->bytes);
	p->bytes_cap = (uint32_t)(n + LINE - 1) / LINE * LINE;
	p->bytes = aligned_alloc(LINE, p->bytes_cap);
	assert(p->bytes);
}

void pending_keep_bytes(struct pending *p, const struct rpc_call *call)
{
	size_t n = call_bytes(call);

	make_room(p, n);
	span_copy(span_copy(span_copy(span_copy(p->bytes, call->to.key), call->uid), call->once), call->body);
	p->kept = n + sizeof *p;
	p->peer->kept_bytes += p->kept;
	p->key_n = (uint32_t)call->to.key.n;
	p->uid_n = (uint32_t)call->uid.n;
	p->once_n = (uint32_t)call->once.n;
	p->body_n = (uint32_t)call->body.n;
}

void pending_drop_bytes(struct pending *p)
{
	if (p->peer)
		p->peer->kept_bytes -= p->kept;
	p->kept = 0;
	if (p->bytes_cap <= KEEP_BYTES)
		return;
	free(p->bytes);
	p->bytes = NULL;
	p->bytes_cap = 0;
}

struct rpc_call pending_call(const struct pending *p)
{
	const char *bytes = p->bytes;
	struct rpc_call call = { .method = p->method, .json = p->json, .sid = p->sid, .trace = p->trace };

	call.to.key = span_of(bytes, p->key_n);
	call.uid = span_of(bytes + p->key_n, p->uid_n);
	call.once = span_of(bytes + p->key_n + p->uid_n, p->once_n);
	call.body = span_of(bytes + p->key_n + p->uid_n + p->once_n, p->body_n);
	return call;
}

/* ---- lists -------------------------------------------------------------------------------------------------- */

void list_init(struct pending_list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

void list_append(struct pending_list *l, struct pending *p)
{
	assert(!p->list);
	p->list = l;
	p->next = NULL;
	p->prev = l->last;
	*l->last = p;
	l->last = &p->next;
}

void list_remove(struct pending *p)
{
	if (!p->list)
		return;
	if (p->next)
		p->next->prev = p->prev;
	else
		p->list->last = p->prev;
	*p->prev = p->next;
	p->list = NULL;
}
