#include <stdio.h>
#include <string.h>
#include "rpc/app_private.h"
#include "rpc/moves.h"
#include "rpc/server.h"

/*
 * Keys that move, on one worker: requests for a key that is another's are sent on, for one that is coming they wait; what runs
 * for a key that is given up may end, for a while. What is known of such keys is forgotten, here and by the hook on_moved.
 */
#define QUIET_LOOK_MS   2
#define OVERDUE_LOOK_MS 20
#define ANSWER_MS       50 /* of a request's time is kept for its answer */

static uint64_t key_hash(const struct app_job *j)
{
	return route_hash(j->in.data, j->key_n);
}

bool app_moves_owns(const struct app *a, uint64_t hash)
{
	return !a->moves.on || ring_ask(&a->moves.ring, hash) == RING_HELD;
}

bool app_moves_awaits(const struct app *a, uint64_t hash)
{
	return a->moves.on && ring_ask(&a->moves.ring, hash) == RING_WAIT;
}

static bool is_kept(const void *arg, uint64_t hash)
{
	return app_moves_owns(arg, hash);
}

/* ---- requests that wait for their key ------------------------------------------------------------------------------ */

static void on_gone(void *arg, int err);

/* A notification's caller is not told: it is counted. */
static void refuse(struct app_job *j, int err, const char *message)
{
	metric_add(j->app->worker->server->refused, 1);
	app_job_refuse(j, err, EFFECT_NONE, message);
}

static void detain(struct app *a, struct app_job *j)
{
	struct app_moves *m = &a->moves;

	j->next_free = NULL;
	*m->last = j;
	m->last = &j->next_free;
	m->waiting++;
	metric_set(m->waits, m->waiting);
	if (j->handle)
		rpc_on_gone(a->worker, j->handle, on_gone, j);
	if (!timer_running(&m->overdue))
		loop_timer(a->worker->loop, &m->overdue, OVERDUE_LOOK_MS);
}

static void let_go(struct app_job *j)
{
	struct app_moves *m = &j->app->moves;
	struct app_job **at = &m->first;

	while (*at != j)
		at = &(*at)->next_free;
	*at = j->next_free;
	if (m->last == &j->next_free)
		m->last = at;
	m->waiting--;
	metric_set(m->waits, m->waiting);
	if (j->handle)
		rpc_on_gone(j->app->worker, j->handle, NULL, NULL);
}

static void on_gone(void *arg, int err)
{
	(void)err;
	let_go(arg);
	app_job_refuse(arg, ERR_UNAVAILABLE, EFFECT_NONE, "the caller has gone");
}

static void on_overdue(struct timer *t, uint64_t now_ms)
{
	struct app *a = (struct app *)((char *)t - offsetof(struct app, moves.overdue));

	for (struct app_job *j = a->moves.first, *next; j; j = next) {
		next = j->next_free;
		if (now_ms + ANSWER_MS < j->deadline_ms)
			continue;
		let_go(j);
		refuse(j, ERR_UNAVAILABLE, "its key is not here yet: keys.waiting in the log says why");
	}
	if (a->moves.first)
		loop_timer(a->worker->loop, t, OVERDUE_LOOK_MS);
}

bool app_moves_detain(struct app *a, struct app_job *j)
{
	enum ring_verdict verdict = a->moves.on && j->key_n ? ring_ask(&a->moves.ring, key_hash(j)) : RING_HELD;

	if (verdict == RING_WAIT && a->moves.waiting >= APP_DETAINED_MAX)
		refuse(j, ERR_BUSY, "too many requests wait for keys that come here");
	else if (verdict == RING_WAIT)
		detain(a, j);
	else if (verdict == RING_MOVED)
		app_job_moved(j);
	return verdict != RING_HELD;
}

/* In their order; who begins may bring others. */
static void look_at_detained(struct app *a)
{
	struct app_job *first = a->moves.first;

	a->moves.first = NULL;
	a->moves.last = &a->moves.first;
	a->moves.waiting = 0;
	for (struct app_job *j = first, *next; j; j = next) {
		next = j->next_free;
		if (!app_moves_detain(a, j)) {
			if (j->handle)
				rpc_on_gone(a->worker, j->handle, NULL, NULL);
			j->moved = false; /* it has not begun: nothing of it was done before its key came */
			rpc_began(a->worker, j->handle);
			app_job_begin(j);
		}
	}
	metric_set(a->moves.waits, a->moves.waiting);
}

/* ---- giving up ---------------------------------------------------------------------------------------------------------- */

/* Marks what was begun for keys that are not ours without a break since; true: something of it runs. */
static bool mark(struct app *a)
{
	bool runs = false;

	for (struct app_job *j = a->made_jobs; j; j = j->next_made) {
		if (!j->moved && j->key_n && !app_moves_owns(a, key_hash(j)))
			j->moved = true;
		runs = runs || (j->moved && luajob_task(&j->job));
	}
	return runs;
}

static void told(struct worker *w, int err);

static void forget(struct app *a, bool taking)
{
	a->moves.taking = taking;
	a->moves.told_turn = a->moves.turn;
	a->moves.telling++;
	mark(a);
	once_unload(a->once.server, is_kept, a);
	app_once_publish(&a->once);
	app_hook_then(a, APP_HOOK_MOVED, "", false, told);
}

static void told(struct worker *w, int err)
{
	struct app *a = w->app;

	a->moves.telling--;
	if (err < 0) { /* memory may hold what is another's: nothing more is given up in order, or taken */
		service_fail(w->service, "%s: on_moved of worker %u failed: see the log", w->service->id, w->index);
		return;
	}
	if (a->moves.telling || a->moves.told_turn != a->moves.turn)
		return; /* another table came while it waited: its turn is to be told */
	if (!a->moves.taking) {
		moves_report(w, a->moves.turn);
		return;
	}
	ring_clear(&a->moves.ring);
	look_at_detained(a);
}

static void on_quiet(struct timer *t, uint64_t now_ms)
{
	struct app *a = (struct app *)((char *)t - offsetof(struct app, moves.quiet));

	if (mark(a) && now_ms < a->moves.until_ms)
		loop_timer(a->worker->loop, t, QUIET_LOOK_MS);
	else
		forget(a, false);
}

void app_moves_see(struct app *a)
{
	struct worker *w = a ? a->worker : NULL;

	if (!a || !a->moves.on)
		return;
	a->moves.turn = w->turn;
	if (!ring_see(&a->moves.ring, w->service->def->name, w->routes))
		return;
	mark(a);
	look_at_detained(a);
	a->moves.until_ms = w->loop->now_ms + MOVES_GRACE_MS;
	loop_timer(w->loop, &a->moves.quiet, 0);
}

void app_moves_take(struct app *a, uint64_t turn)
{
	if (a && turn == a->moves.turn)
		forget(a, true);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

void app_moves_open(struct app *a)
{
	struct worker *w = a->worker;
	struct app_moves *m = &a->moves;
	const char *service = w->service->def->name;

	m->last = &m->first;
	m->on = w->turn;
	if (!m->on)
		return;
	m->waits = metric(w->service->metrics, w->index, METRIC_GAUGE, "loquat_keys_waiting",
			  "Requests that wait until their key is here.", "service", &service);
	m->quiet.fire = on_quiet;
	m->overdue.fire = on_overdue;
	m->turn = w->turn;
	ring_init(&m->ring, w->service->id, service, w->routes);
	moves_report(w, m->turn); /* nothing was ever held */
}

void app_moves_close(struct app *a)
{
	loop_timer_stop(a->worker->loop, &a->moves.quiet);
	loop_timer_stop(a->worker->loop, &a->moves.overdue);
	for (struct app_job *j = a->moves.first; j; j = j->next_free) /* freed with the app, before their links close */
		if (j->handle)
			rpc_on_gone(a->worker, j->handle, NULL, NULL);
	ring_release(&a->moves.ring);
}
