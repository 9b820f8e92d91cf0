#include <string.h>
#include "rpc/client_private.h"

/*
 * Calls whose key's owner has said that it is not, or not yet: they wait here until the route table is there that says who
 * it is, and ask again.
 */
#define MOVED_MS    10 /* until the route table is there that says where to; at each further attempt as much more */
#define MOVED_TIMES 20 /* up to so many times as much */
#define MOVED_KEYS  1024

static void look_at(struct rpc_client *c, uint64_t ms)
{
	uint64_t now_ms = c->worker->loop->now_ms;

	if (timer_running(&c->moved_look) && c->moved_ms <= ms)
		return;
	c->moved_ms = ms;
	loop_timer(c->worker->loop, &c->moved_look, ms > now_ms ? ms - now_ms : 0);
}

static void wait_more(struct rpc_client *c, struct pending *p)
{
	p->again_ms = c->worker->loop->now_ms + MOVED_MS * (p->moved < MOVED_TIMES ? p->moved : MOVED_TIMES);
}

/* Nothing was done there. What is not kept for repeating has come back with the answer. */
static int keep_it(struct pending *p, const struct frame_response *r)
{
	struct frame_request again;
	enum frame_type type;
	struct span payload;

	if (pending_is_repeatable(p))
		return 0;
	if (frame_split(r->body.p, r->body.n, &type, &payload) <= 0 || frame_get_request(payload, &again) < 0)
		return ERR_CORRUPT;
	struct rpc_call call = { .to.key = again.key, .uid = again.uid, .once = again.once.key, .body = again.body };

	pending_keep_bytes(p, &call);
	return 0;
}

void client_moved(struct rpc_client *c, struct pending *p, const struct frame_response *r)
{
	if (!p->by_key || keep_it(p, r) < 0) {
		pending_error(c, p, ERR_UNAVAILABLE, EFFECT_NONE, "its key moves to another instance");
		return;
	}
	p->moved++;
	p->sent = false;
	p->ever_sent = p->attempt > p->moved;
	pending_leave(p);
	list_append(&c->moved, p);
	wait_more(c, p);
	look_at(c, p->again_ms);
}

/* Bounded as new calls are. */
static void send_to(struct peer *peer, struct pending *p, const struct rpc_call *call)
{
	bool up = peer_is_up(peer) && !peer_is_held(peer, p);

	list_remove(p);
	if (peer->pendings > PEER_PENDING_MAX || ((!up || pending_is_repeatable(p)) && !peer_has_room(peer, call))) {
		pending_refuse(p, "too much is under way where its key has moved to");
		return;
	}
	pending_join(p, peer);
	if (up)
		pending_send(peer, p, call);
	else
		list_append(&peer->waiting, p);
}

/*
 * Who is due, or all, in their order: a key's later calls do not overtake one that stays (keys share MOVED_KEYS places: some
 * wait for another's a moment longer). Who owns the key still, as far as is known here, is asked again: it may know better.
 */
void client_moved_go(struct rpc_client *c, bool all)
{
	uint64_t now_ms = c->worker->loop->now_ms, next_ms = UINT64_MAX;
	bool stays[MOVED_KEYS] = { false };

	for (struct pending *p = c->moved.first, *next; p; p = next) {
		struct rpc_call call = pending_call(p);
		bool *place = &stays[route_hash(call.to.key.p, call.to.key.n) % MOVED_KEYS];
		struct peer *peer = NULL;

		next = p->next;
		if (*place)
			continue;
		call.to.worker = -1;
		if (all || p->again_ms <= now_ms) {
			peer = client_choose(c, &call);
			wait_more(c, p);
		}
		if (peer) {
			send_to(peer, p, &call);
			continue;
		}
		*place = true;
		if (p->again_ms < next_ms)
			next_ms = p->again_ms;
	}
	if (next_ms != UINT64_MAX) /* and not at every millisecond */
		look_at(c, next_ms > now_ms + MOVED_MS ? next_ms : now_ms + MOVED_MS);
}

void client_on_moved(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	client_moved_go((struct rpc_client *)((char *)t - offsetof(struct rpc_client, moved_look)), false);
}
