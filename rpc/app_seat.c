#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app_private.h"
#include "rpc/sids.h"

/* Sessions that are in rooms, and how this worker learns that they have ended. */

#define ASK_MS       10000 /* a connector is asked about all of them so often, should a word of it have been lost */
#define ASK_AGAIN_MS 1000  /* it did not answer */
#define ASK_TIME_MS  3000
#define ASK_SIDS     8192 /* in one question */

static struct app_seat **bucket_of(struct app *a, const struct app_roster *r, uint64_t sid)
{
	uint64_t h = route_hash((const char *)&sid, sizeof sid) ^ r->hash;

	return &a->seats.bucket[h % APP_SEAT_BUCKETS];
}

static struct app_roster *roster_find(struct app *a, const char *connector, uint32_t worker)
{
	struct app_roster *r = a->seats.rosters;

	while (r && (r->worker != worker || strcmp(r->connector, connector) != 0))
		r = r->next;
	return r;
}

static struct app_roster *roster_get(struct app *a, const char *connector, uint32_t worker)
{
	struct app_roster *r = roster_find(a, connector, worker);

	if (r)
		return r;
	r = calloc(1, sizeof *r);
	assert(r);
	r->app = a;
	snprintf(r->connector, sizeof r->connector, "%s", connector);
	r->worker = worker;
	r->hash = route_hash(connector, strlen(connector));
	r->next = a->seats.rosters;
	a->seats.rosters = r;
	return r;
}

static void roster_free(struct app_roster *r)
{
	buf_release(&r->ask);
	buf_release(&r->out);
	free(r);
}

static struct app_seat *seat_of(struct app *a, struct app_roster *r, uint64_t sid)
{
	struct app_seat *s = *bucket_of(a, r, sid);

	while (s && (s->sid != sid || s->roster != r))
		s = s->next;
	return s;
}

struct app_seat *app_seat_find(struct app *a, const char *connector, uint64_t sid)
{
	struct app_roster *r = roster_find(a, connector, (uint32_t)(sid >> 48));

	return r ? seat_of(a, r, sid) : NULL;
}

struct app_seat *app_seat_get(struct app *a, const char *connector, uint64_t sid, struct span uid)
{
	struct app_roster *r = roster_get(a, connector, (uint32_t)(sid >> 48));
	struct app_seat *s = seat_of(a, r, sid), **at = bucket_of(a, r, sid);

	if (s)
		return s;
	s = calloc(1, sizeof *s + uid.n + 1);
	assert(s);
	s->roster = r;
	s->sid = sid;
	memcpy(s->uid, uid.p, uid.n);
	s->next = *at;
	s->prev = at;
	if (s->next)
		s->next->prev = &s->next;
	*at = s;
	r->seats++;
	buf_add(&r->ask, &sid, sizeof sid); /* it may have ended before it got here */
	loop_defer(a->worker->loop, &a->seats.ask);
	return s;
}

static void seat_free(struct app_seat *s)
{
	if (s->next)
		s->next->prev = s->prev;
	*s->prev = s->next;
	s->roster->seats--;
	free(s->room);
	free(s);
}

int app_seat_join(struct app_seat *s, struct app_room *r)
{
	if (s->rooms == APP_SEAT_ROOMS)
		return ERR_FULL;
	if (!(s->rooms & (s->rooms - 1))) { /* a power of two, or none: full */
		s->room = realloc(s->room, sizeof(struct app_room *) * (s->rooms ? 2 * s->rooms : 1));
		assert(s->room);
	}
	s->room[s->rooms++] = r;
	return 0;
}

void app_seat_leave(struct app *a, struct app_seat *s, struct app_room *r)
{
	unsigned i = 0;

	(void)a;
	while (i < s->rooms && s->room[i] != r)
		i++;
	if (i < s->rooms) {
		memmove(s->room + i, s->room + i + 1, sizeof(struct app_room *) * (s->rooms - i - 1));
		s->rooms--;
	}
	if (!s->rooms)
		seat_free(s);
}

/* Its session has ended: it leaves all its rooms. The hook of each may leave, close and join others: the seat is found anew. */
static void seat_ended(struct app *a, struct app_roster *r, uint64_t sid)
{
	struct app_seat *s = seat_of(a, r, sid);

	if (!s)
		return;
	metric_add(a->seats.left, 1);
	for (unsigned n = s->rooms; s && n > 0; n--, s = seat_of(a, r, sid))
		app_room_left(a, s->room[0], s);
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

struct asking {
	struct app_wait wait;
	struct app_roster *roster;
};

static void all_ended(struct app *a, struct app_roster *r, struct span sids)
{
	for (size_t i = 0; i < sids.n; i += 8) {
		uint64_t sid;

		memcpy(&sid, sids.p + i, 8);
		seat_ended(a, r, sid);
	}
}

static void ask_again_later(struct app *a, uint32_t ms)
{
	if (!timer_running(&a->seats.again) || ms < ASK_MS)
		loop_timer(a->worker->loop, &a->seats.again, ms);
}

static void on_gone(void *arg, const struct rpc_answer *answer)
{
	struct asking *q = arg;
	struct app_roster *r = q->roster;
	struct app *a = r->app;
	struct span sids;

	app_wait_free(&q->wait);
	r->asking--;

	if (answer->err == 0 && sids_read(answer->body, &sids)) {
		all_ended(a, r, sids);
		return;
	}
	r->failed = true;
	ask_again_later(a, ASK_AGAIN_MS);
}

static void ask(struct app *a, struct app_roster *r, struct span sids)
{
	static const char name[] = "connector.connectorRemote.gone";
	struct buf *b = &a->scratch;
	struct asking *q = app_wait_new(a, 0, sizeof *q);

	q->roster = r;
	r->asking++;
	buf_clear(b);
	sids_put(b, sids);
	struct rpc_call call = {
		.method = schema_method(a->worker->schema, name, sizeof name - 1),
		.to = { .instance = r->connector, .worker = (int)r->worker },
		.body = span_of(b->data, b->len),
		.timeout_ms = ASK_TIME_MS,
		.on_answer = on_gone,
		.arg = q,
	};

	q->wait.call = rpc_call(a->worker, &call);
}

static void collect_all(struct app *a, struct app_roster *r)
{
	buf_clear(&r->ask);
	for (size_t i = 0; i < APP_SEAT_BUCKETS; i++)
		for (struct app_seat *s = a->seats.bucket[i]; s; s = s->next)
			if (s->roster == r)
				buf_add(&r->ask, &s->sid, sizeof s->sid);
}

static void roster_ask(struct app *a, struct app_roster *r)
{
	if (r->all)
		collect_all(a, r);
	r->all = r->failed = false;
	for (size_t at = 0; at < r->ask.len; at += ASK_SIDS * sizeof(uint64_t)) {
		size_t left = r->ask.len - at;

		ask(a, r, span_of(r->ask.data + at, left < ASK_SIDS * 8 ? left : ASK_SIDS * 8));
	}
	buf_clear(&r->ask);
}

static void on_ask(struct loop_deferred *d)
{
	struct app *a = (struct app *)((char *)d - offsetof(struct app, seats.ask));

	for (struct app_roster *r = a->seats.rosters; r; r = r->next)
		if (r->all || r->ask.len)
			roster_ask(a, r);
	if (a->seats.rosters)
		ask_again_later(a, ASK_MS);
}

/* The connector, or that worker of it, is not in the cluster any more: nobody will ever say that its sessions have ended. */
static bool has_gone(const struct app *a, const struct app_roster *r)
{
	const struct route_row *row = route_find(a->worker->routes, r->connector);

	return !row || r->worker >= row->workers;
}

/* What the hooks join meanwhile is asked about next. */
static void all_gone(struct app *a, struct app_roster *r)
{
	collect_all(a, r);
	struct buf gone = r->ask;

	r->ask = (struct buf){ .data = NULL };
	all_ended(a, r, span_of(gone.data, gone.len));
	buf_release(&gone);
}

static void free_empty(struct app *a)
{
	struct app_roster **at = &a->seats.rosters, *r;

	while ((r = *at)) {
		if (r->seats || r->asking) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		roster_free(r);
	}
}

static void on_again(struct timer *t, uint64_t now_ms)
{
	struct app *a = (struct app *)((char *)t - offsetof(struct app, seats.again));

	(void)now_ms;
	for (struct app_roster *r = a->seats.rosters; r; r = r->next)
		if (r->failed && has_gone(a, r))
			all_gone(a, r); /* its hooks may add to the list */
	free_empty(a);
	for (struct app_roster *r = a->seats.rosters; r; r = r->next)
		r->all = r->seats && !r->asking;
	if (a->seats.rosters)
		on_ask(&a->seats.ask);
}

void app_seats_peer(struct app *a, const char *instance)
{
	for (struct app_roster *r = a->seats.rosters; r; r = r->next)
		if (r->seats && !strcmp(r->connector, instance)) {
			r->all = true;
			loop_defer(a->worker->loop, &a->seats.ask);
		}
}

/* The connector says so itself. */
static void on_left(void *arg, struct rpc_request *q)
{
	struct app *a = arg;
	struct span sids;

	if (q->json || !sids_read(q->body, &sids)) {
		rpc_answer_err(a->worker, q->handle, ERR_BAD_REQUEST, EFFECT_NONE,
			       "expected app.LeftRequest as protobuf");
		return;
	}
	for (struct app_roster *r = a->seats.rosters; r; r = r->next)
		if (!strcmp(r->connector, q->instance))
			all_ended(a, r, sids);
	rpc_answer_ok(a->worker, q->handle, span_of("", 0), NULL, 0);
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static int make_table(lua_State *L, void *arg)
{
	struct app *a = arg;

	lua_newtable(L);
	a->seats.rooms = luaL_ref(L, LUA_REGISTRYINDEX);
	return 0;
}

void app_seats_open(struct app *a)
{
	struct worker *w = a->worker;
	struct metrics *m = w->service->metrics;
	const char *service = w->service->def->name;
	const struct msg_method *left = schema_method(w->schema, "app.roomRemote.left", 19);

	a->seats.ask.run = on_ask;
	a->seats.again.fire = on_again;
	a->seats.rooms_there = metric(m, w->index, METRIC_GAUGE, "loquat_rooms", "Rooms of app.room with members.",
				      "service", &service);
	a->seats.members_there = metric(m, w->index, METRIC_GAUGE, "loquat_room_members",
					"Members of all rooms; who is in two counts twice.", "service", &service);
	a->seats.left = metric(m, w->index, METRIC_COUNTER, "loquat_room_left_total",
			       "Sessions that ended while they were in rooms.", "service", &service);
	if (luahost_protected(a->host, make_table, a) < 0)
		abort(); /* the state has just been made */
	if (left)
		rpc_handle(w, left, on_left, a);
}

void app_seats_close(struct app *a)
{
	struct app_seats *x = &a->seats;

	x->closed = true;
	loop_timer_stop(a->worker->loop, &x->again);
	loop_defer_not(a->worker->loop, &x->ask);
	for (size_t i = 0; i < APP_SEAT_BUCKETS; i++)
		for (struct app_seat *s = x->bucket[i]; s; s = x->bucket[i]) {
			for (unsigned k = 0; k < s->rooms; k++)
				app_room_forget(s->room[k]);
			seat_free(s);
		}
	for (struct app_roster *r = x->rosters, *next; r; r = next) {
		next = r->next;
		roster_free(r);
	}
	x->rosters = NULL;
}
