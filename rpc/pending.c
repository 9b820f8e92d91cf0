#include "rpc/pending.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/peer.h"

enum {
	CHUNK_BITS = 8,
	CHUNK = 1 << CHUNK_BITS,
	KEEP_BYTES = 512, /* a larger buffer is given back when its call has ended */
	LOOK_PER_MS = 4096, /* slots: some 20 us */
};

void pending_init(struct pending_table *t)
{
	*t = (struct pending_table){ .look_ms = UINT64_MAX };
}

/* ---- the table ------------------------------------------------------------------------------------------ */

static struct pending *at(const struct pending_table *t, uint32_t slot)
{
	return &t->chunk[slot >> CHUNK_BITS][slot % CHUNK];
}

static void grow(struct pending_table *t)
{
	uint32_t chunks = t->slots >> CHUNK_BITS;

	assert(t->slots < PENDING_SLOTS_MAX);
	if ((chunks & (chunks - 1)) == 0) {
		t->chunk = realloc(t->chunk, sizeof *t->chunk * (chunks ? chunks * 2 : 1));
		assert(t->chunk);
	}
	struct pending *p = t->chunk[chunks] = aligned_alloc(64, sizeof *p * CHUNK);

	assert(p);
	memset(p, 0, sizeof *p * CHUNK);
	for (uint32_t i = CHUNK; i-- > 0;) { /* the first slot is taken first */
		p[i].slot = t->slots + i;
		p[i].next = t->free_list;
		t->free_list = &p[i];
	}
	t->slots += CHUNK;
}

struct pending *pending_new(struct pending_table *t)
{
	if (!t->free_list)
		grow(t);
	struct pending *p = t->free_list;

	t->free_list = p->next;
	p->generation = p->generation == UINT32_MAX ? 1 : p->generation + 1;
	p->id = (uint64_t)p->generation << PENDING_SLOT_BITS | p->slot;
	t->calls++;
	return p;
}

struct pending *pending_find(const struct pending_table *t, uint64_t id)
{
	uint32_t slot = (uint32_t)(id & (PENDING_SLOTS_MAX - 1));

	if (!id || slot >= t->slots || at(t, slot)->id != id)
		return NULL;
	return at(t, slot);
}

struct pending *pending_at(const struct pending_table *t, uint32_t slot)
{
	struct pending *p = at(t, slot);

	return p->id ? p : NULL;
}

void pending_free(struct pending_table *t, struct pending *p)
{
	p->id = 0;
	p->next = t->free_list;
	t->free_list = p;
	t->calls--;
}

void pending_release(struct pending_table *t)
{
	for (uint32_t i = 0; i < t->slots; i++)
		free(at(t, i)->bytes);
	for (uint32_t i = 0; i < t->slots >> CHUNK_BITS; i++)
		free(t->chunk[i]);
	free(t->chunk);
	pending_init(t);
}

/* ---- deadlines -------------------------------------------------------------------------------------------- */

static bool look_at(struct pending_table *t, uint64_t ms)
{
	if (ms < t->quiet_ms)
		ms = t->quiet_ms;
	if (ms >= t->look_ms)
		return false;
	t->look_ms = ms;
	return true;
}

/* A millisecond later than the clock's, which has lost part of one: no call ends early. */
bool pending_due(struct pending_table *t, struct pending *p, uint64_t due_ms)
{
	p->due_ms = due_ms;
	return due_ms + 1 < t->look_ms && look_at(t, due_ms + 1);
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
	look_at(t, next);
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
	p->bytes_cap = n < KEEP_BYTES / 4 ? KEEP_BYTES / 4 : (uint32_t)n;
	p->bytes = malloc(p->bytes_cap);
	assert(p->bytes);
}

void pending_keep_bytes(struct pending *p, const struct rpc_call *call)
{
	size_t n = call_bytes(call);
	const struct span part[] = { call->to.key, call->uid, call->once, call->body };

	make_room(p, n);
	char *out = p->bytes;

	for (size_t i = 0; i < 4; i++) {
		if (part[i].n)
			memcpy(out, part[i].p, part[i].n);
		out += part[i].n;
	}
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
