#include "connector/watch.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/sids.h"

#define WATCH_MS 60000 /* six times as long as it takes to ask again: rpc/app_seat.c, ASK_MS */

struct watcher {
	struct watcher *next;
	char instance[32];
	uint32_t worker;
	uint64_t until_ms;
	struct buf sids; /* to be told at the end of this turn */
};

static void watcher_free(struct watcher *w)
{
	buf_release(&w->sids);
	free(w);
}

static void tell(struct edge *e, struct watcher *w)
{
	struct buf b = BUF_INIT;

	sids_put(&b, span_of(w->sids.data, w->sids.len));
	struct rpc_call call = {
		.method = e->left,
		.to = { .instance = w->instance, .worker = (int)w->worker },
		.body = span_of(b.data, b.len),
		.trace = edge_trace(e),
	};

	rpc_call(e->worker, &call);
	buf_release(&b);
	buf_clear(&w->sids);
}

static void on_tell(struct loop_deferred *d)
{
	struct edge *e = (struct edge *)((char *)d - offsetof(struct edge, tell));
	struct watcher **at = &e->watchers, *w;

	while ((w = *at)) {
		if (w->until_ms < e->face.loop->now_ms) {
			*at = w->next;
			watcher_free(w);
			continue;
		}
		if (w->sids.len)
			tell(e, w);
		at = &w->next;
	}
}

void watch_ended(struct edge *e, uint64_t sid)
{
	for (struct watcher *w = e->watchers; w; w = w->next)
		buf_add(&w->sids, &sid, sizeof(sid));
	if (e->watchers && !e->stopping)
		loop_defer(e->face.loop, &e->tell);
}

static void watcher_note(struct edge *e, const struct rpc_request *r)
{
	struct watcher *w = e->watchers;

	while (w && (w->worker != r->instance_worker || strcmp(w->instance, r->instance)))
		w = w->next;
	if (!w) {
		w = calloc(1, sizeof(*w));
		assert(w);
		snprintf(w->instance, sizeof(w->instance), "%s", r->instance);
		w->worker = r->instance_worker;
		w->next = e->watchers;
		e->watchers = w;
		e->tell.run = on_tell;
	}
	w->until_ms = e->face.loop->now_ms + WATCH_MS;
}

/* Where sessions are on their way from one process to the other nobody knows which of them are there. */
void watch_asked(struct edge *e, struct rpc_request *r)
{
	struct buf gone = BUF_INIT, out = BUF_INIT;
	struct span sids;

	if (r->json || !sids_read(r->body, &sids)) {
		rpc_answer_err(r->worker, r->handle, ERR_BAD_REQUEST, EFFECT_NONE,
			       "expected connector.GoneRequest as protobuf with one packed list");
		return;
	}
	if (e->taking || e->handing) {
		rpc_answer_err(r->worker, r->handle, ERR_UNAVAILABLE, EFFECT_NONE,
			       "another process takes over: ask again");
		return;
	}
	watcher_note(e, r);
	for (size_t i = 0; i < sids.n; i += 8) {
		uint64_t sid;

		memcpy(&sid, sids.p + i, 8);
		if (!session_find(e, sid))
			buf_add(&gone, &sid, sizeof(sid));
	}
	sids_put(&out, span_of(gone.data, gone.len));
	rpc_answer_ok(r->worker, r->handle, span_of(out.data, out.len), NULL, 0);
	buf_release(&gone);
	buf_release(&out);
}

void watch_stop(struct edge *e)
{
	loop_defer_not(e->face.loop, &e->tell);
	for (struct watcher *w = e->watchers, *next; w; w = next) {
		next = w->next;
		watcher_free(w);
	}
	e->watchers = NULL;
}
