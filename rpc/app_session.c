#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include "common/lua_json.h"
#include "common/lua_msg.h"
#include "rpc/app_private.h"

#define SESSION_META "loquat.session"

/* ---- sessions as this worker knows them: a queue and a table ------------------------------------------------------ */

static struct app_session **bucket_of(struct app *a, const char *instance, uint64_t sid)
{
	uint64_t h = route_hash((const char *)&sid, sizeof sid) ^ route_hash(instance, strlen(instance));

	return &a->bucket[h % APP_SESSION_BUCKETS];
}

struct make {
	struct app_session *s;
	struct span uid;
};

static int make_table(lua_State *L, void *arg)
{
	struct make *m = arg;

	lua_createtable(L, 0, 4);
	if (m->uid.n) { /* else it has not logged in */
		lua_pushlstring(L, m->uid.p, m->uid.n);
		lua_setfield(L, -2, "uid");
	}
	lua_pushinteger(L, (lua_Integer)m->s->sid);
	lua_setfield(L, -2, "sid");
	lua_pushstring(L, m->s->instance);
	lua_setfield(L, -2, "connector");
	luaL_setmetatable(L, SESSION_META);
	m->s->table = luaL_ref(L, LUA_REGISTRYINDEX);
	return 0;
}

/* Nobody stands behind it yet: it is forgotten soon. */
static void add_unlogged(struct app *a, struct app_session *s)
{
	s->unlogged = true;
	s->next_unlogged = a->unlogged;
	a->unlogged = s;
	if (!timer_running(&a->sweep_unlogged))
		loop_timer(a->worker->loop, &a->sweep_unlogged, APP_SESSION_UNLOGGED_MS);
}

static struct app_session *session_new(struct app *a, const char *instance, uint64_t sid, struct span uid)
{
	struct app_session *s = calloc(1, sizeof *s), **at = bucket_of(a, instance, sid);
	struct make m = { s, uid };

	if (!s)
		return NULL;
	s->sid = sid;
	s->uid_hash = route_hash(uid.p, uid.n);
	snprintf(s->instance, sizeof s->instance, "%s", instance);
	if (luahost_protected(a->host, make_table, &m) < 0) {
		free(s);
		return NULL;
	}
	luaqueue_init(&s->queue, a->host, APP_SESSION_WAITING_MAX);
	s->next = *at;
	s->prev = at;
	if (s->next)
		s->next->prev = &s->next;
	*at = s;
	a->sessions++;
	if (!uid.n)
		add_unlogged(a, s);
	return s;
}

struct app_session *app_session_get(struct app *a, const char *instance, uint64_t sid, struct span uid)
{
	struct app_session *s = *bucket_of(a, instance, sid);
	uint64_t uid_hash = route_hash(uid.p, uid.n);

	while (s && (s->sid != sid || s->uid_hash != uid_hash || strcmp(s->instance, instance)))
		s = s->next;
	if (!s)
		s = session_new(a, instance, sid, uid);
	if (s)
		s->used_ms = a->worker->loop->now_ms;
	return s;
}

/* Whose rest it is: the player's, or of who has not logged in the connection's. own has room for that. */
static struct span rests_name(const struct app_job *j, char own[RESTS_NAME_MAX])
{
	if (j->uid.n && j->uid.n <= RESTS_NAME_MAX)
		return span_of(j->in.data + j->uid.at, j->uid.n);
	size_t n = (size_t)snprintf(own, RESTS_NAME_MAX, "\n%s/%llx", j->instance, (unsigned long long)j->sid);

	return span_of(own, n); /* no uid begins like this */
}

void app_session_held(struct app_job *j, uint32_t ms)
{
	struct app *a = j->app;
	char own[RESTS_NAME_MAX];
	struct span who = rests_name(j, own);
	uint64_t rest_ms = rests_held(&a->rests, who, ms, a->budget_ms, a->worker->loop->now_ms);

	if (!rest_ms)
		return;
	metric_add(a->rested, 1);
	log_warn(a->worker->service->log, "lua.rest", "uid=%.*s session=%s/%llx held_ms=%u rest_ms=%llu", (int)j->uid.n,
		 j->in.data + j->uid.at, j->instance, (unsigned long long)j->sid, ms, (unsigned long long)rest_ms);
}

uint32_t app_session_budget_ms(const struct app_job *j)
{
	const struct app *a = j->app;
	char own[RESTS_NAME_MAX];

	if (rests_none(&a->rests, a->worker->loop->now_ms))
		return a->budget_ms;
	return rests_budget_ms(&a->rests, rests_name(j, own), a->budget_ms, a->worker->loop->now_ms);
}

bool app_session_rests(const struct app_job *j)
{
	const struct app *a = j->app;
	char own[RESTS_NAME_MAX];

	if (rests_none(&a->rests, a->worker->loop->now_ms))
		return false;
	return rests_now(&a->rests, rests_name(j, own), a->worker->loop->now_ms);
}

static void session_free(struct app *a, struct app_session *s)
{
	luaqueue_close(&s->queue);
	luaL_unref(luahost_state(a->host), LUA_REGISTRYINDEX, s->table);
	if (s->next)
		s->next->prev = s->prev;
	*s->prev = s->next;
	a->sessions--;
	free(s);
}

/* The service keeps its players in its own tables; an idle queue can be made anew at the next request. */
static bool is_idle(const struct app_session *s, uint64_t now_ms, uint64_t idle_ms)
{
	return luaqueue_idle(&s->queue) && now_ms - s->used_ms > idle_ms;
}

static void on_sweep_unlogged(struct timer *t, uint64_t now_ms)
{
	struct app *a = (struct app *)((char *)t - offsetof(struct app, sweep_unlogged));
	struct app_session **at = &a->unlogged, *s;

	while ((s = *at)) {
		if (!is_idle(s, now_ms, APP_SESSION_UNLOGGED_MS)) {
			at = &s->next_unlogged;
			continue;
		}
		*at = s->next_unlogged;
		session_free(a, s);
	}
	if (a->unlogged)
		loop_timer(a->worker->loop, t, APP_SESSION_UNLOGGED_MS);
}

static void on_sweep(struct timer *t, uint64_t now_ms)
{
	struct app *a = (struct app *)((char *)t - offsetof(struct app, sweep));

	for (size_t i = 0; i < APP_SESSION_BUCKETS; i++)
		for (struct app_session *s = a->bucket[i], *next; s; s = next) {
			next = s->next;
			if (!s->unlogged && is_idle(s, now_ms, APP_SESSION_IDLE_MS))
				session_free(a, s);
		}
	loop_timer(a->worker->loop, t, APP_SESSION_IDLE_MS / 2);
}

void app_sessions_open(struct app *a)
{
	struct worker *w = a->worker;

	a->sweep.fire = on_sweep;
	a->sweep_unlogged.fire = on_sweep_unlogged;
	a->rested = metric(w->service->metrics, w->index, METRIC_COUNTER, "loquat_lua_rests_total",
			   "Times that a player, whose requests held the worker up, was made to rest.", "service",
			   &w->service->def->name);
	loop_timer(a->worker->loop, &a->sweep, APP_SESSION_IDLE_MS / 2);
}

void app_sessions_close(struct app *a)
{
	loop_timer_stop(a->worker->loop, &a->sweep);
	loop_timer_stop(a->worker->loop, &a->sweep_unlogged);
	for (size_t i = 0; i < APP_SESSION_BUCKETS; i++)
		while (a->bucket[i])
			session_free(a, a->bucket[i]);
}

/* ---- pushes: one notification per connector worker ---------------------------------------------------------------- */

#define PUSH_GROUPS_MAX 256

struct group {
	const char *connector; /* anchored by the session's table */
	uint32_t worker;
	struct buf sids;
};

static void put_varint(struct buf *b, uint64_t v)
{
	while (v >= 0x80) {
		buf_addch(b, (char)(v | 0x80));
		v >>= 7;
	}
	buf_addch(b, (char)v);
}

static void put_bytes(struct buf *b, unsigned field, const char *p, size_t n)
{
	put_varint(b, field << 3 | 2);
	put_varint(b, n);
	buf_add(b, p, n);
}

/* connector.PushRequest, by hand: it leaves ten times a second for every player. */
void app_push_send(struct app *a, const char *connector, uint32_t worker, struct span sids, const struct app_push *push)
{
	struct buf *b = &a->scratch;

	buf_clear(b);
	put_bytes(b, 1, sids.p, sids.n);
	put_bytes(b, 2, push->route.p, push->route.n);
	put_bytes(b, 3, push->body.p, push->body.n);
	if (push->supersedes.n)
		put_bytes(b, 4, push->supersedes.p, push->supersedes.n);
	struct rpc_call call = {
		.method = a->push,
		.to = { .instance = connector, .worker = (int)worker },
		.body = span_of(b->data, b->len),
	};

	rpc_call(a->worker, &call);
}

const char *app_session_at(lua_State *L, int index, uint64_t *sid)
{
	const char *connector;

	index = lua_absindex(L, index);
	if (!lua_istable(L, index))
		app_raise(L, "a session was expected, found a %s", luaL_typename(L, index));
	lua_getfield(L, index, "sid");
	lua_getfield(L, index, "connector");
	connector = lua_tostring(L, -1);
	if (!lua_isinteger(L, -2) || !connector)
		app_raise(L, "a session was expected (a table with sid and connector)");
	*sid = (uint64_t)lua_tointeger(L, -2);
	lua_pop(L, 2);
	return connector;
}

struct targets {
	struct app *app;
	const struct app_push *push;
	unsigned n;
	struct group group[PUSH_GROUPS_MAX];
};

static void targets_send(struct targets *t)
{
	for (unsigned i = 0; i < t->n; i++) {
		struct group *g = &t->group[i];

		app_push_send(t->app, g->connector, g->worker, span_of(g->sids.data, g->sids.len), t->push);
		buf_release(&g->sids);
	}
	t->n = 0;
}

static void add_target(lua_State *L, int index, struct targets *t)
{
	uint64_t sid;
	const char *connector = app_session_at(L, index, &sid);
	uint32_t worker = (uint32_t)(sid >> 48);
	unsigned i = 0;

	while (i < t->n && (t->group[i].worker != worker || strcmp(t->group[i].connector, connector)))
		i++;
	if (i == PUSH_GROUPS_MAX) {
		targets_send(t);
		i = 0;
	}
	if (i == t->n)
		t->group[t->n++] = (struct group){ .connector = connector, .worker = worker };
	buf_add(&t->group[i].sids, &sid, sizeof sid);
}

static void check_targets(lua_State *L, int index)
{
	uint64_t sid;

	lua_Integer n = luaL_len(L, index);

	for (lua_Integer i = 1; i <= n; i++) {
		lua_geti(L, index, i);
		app_session_at(L, -1, &sid);
		lua_pop(L, 1);
	}
}

static void push_to_list(lua_State *L, struct app *a, const struct app_push *push)
{
	struct targets t = { .app = a, .push = push };
	lua_Integer count;

	check_targets(L, 1); /* raises before anything is allocated */
	count = luaL_len(L, 1);
	if (count == 0 && (lua_pushnil(L), lua_next(L, 1)))
		app_raise(L, "push: a session (a table with sid and connector) or a list of them was expected");
	for (lua_Integer i = 1; i <= count; i++) {
		lua_geti(L, 1, i);
		add_target(L, -1, &t);
		lua_pop(L, 1);
	}
	targets_send(&t);
}

static void send_one(struct app *a, const char *connector, uint64_t sid, const struct app_push *push)
{
	app_push_send(a, connector, (uint32_t)(sid >> 48), span_of((char *)&sid, sizeof sid), push);
}

void app_push_text(struct app *a, const char *connector, uint64_t sid, struct span route, struct span body)
{
	struct app_push push = { .route = route, .body = body };

	send_one(a, connector, sid, &push);
}

static void push_to_one(lua_State *L, struct app *a, const struct app_push *push)
{
	uint64_t sid;
	const char *connector = app_session_at(L, 1, &sid);

	send_one(a, connector, sid, push);
}

/* {supersedes = "…"} */
static struct span supersedes_of(lua_State *L, int index)
{
	struct span s = { NULL, 0 };

	if (lua_isnoneornil(L, index))
		return s;
	if (lua_getfield(L, index, "supersedes") == LUA_TNIL) /* stays on the stack: it anchors the text */
		return s;
	if (!lua_isstring(L, -1))
		app_raise(L, "push: supersedes: expected text, found a %s", luaL_typename(L, -1));
	s.p = lua_tolstring(L, -1, &s.n);
	return s;
}

/* ---- what a push carries ------------------------------------------------------------------------------------------- */

struct app_push_type {
	struct span route; /* in the type's option */
	const struct msg_type *type;
};

static int by_route(const void *x, const void *y)
{
	const struct span *a = x, *b = y;

	if (a->n != b->n)
		return a->n < b->n ? -1 : 1;
	return memcmp(a->p, b->p, a->n);
}

static void add_push_types(struct app *a, const struct msg_type *t)
{
	for (const char *at = t->push; at && *(at += strspn(at, ", "));) {
		size_t n = strcspn(at, ", ");

		a->push_type = realloc(a->push_type, (a->push_types + 1) * sizeof *a->push_type);
		assert(a->push_type);
		a->push_type[a->push_types++] = (struct app_push_type){ span_of(at, n), t };
		at += n;
	}
}

void app_push_types_open(struct app *a)
{
	const struct schema *schema = a->worker->schema;

	a->push_types = 0;
	for (size_t i = 0; i < schema_types(schema); i++)
		add_push_types(a, schema_type_at(schema, i));
	if (a->push_types)
		qsort(a->push_type, a->push_types, sizeof *a->push_type, by_route);
}

void app_push_types_close(struct app *a)
{
	free(a->push_type);
}

/* NULL: any JSON. */
static const struct msg_type *push_type(const struct app *a, struct span route)
{
	const struct app_push_type *t =
		a->push_types ? bsearch(&route, a->push_type, a->push_types, sizeof *t, by_route) : NULL;

	return t ? t->type : NULL;
}

struct app_push app_push_read(lua_State *L, int index)
{
	struct app *a = app_of(L);
	struct app_push push;
	char why[LUA_WHY_MAX];

	push.route.p = luaL_checklstring(L, index, &push.route.n);
	push.supersedes = supersedes_of(L, index + 2);
	buf_clear(&a->text);
	if (lua_json_encode(L, index + 1, push_type(a, push.route), &a->text, why, sizeof why) < 0)
		app_raise(L, "push %s: %s", push.route.p, why);
	push.body = span_of(a->text.data, a->text.len);
	return push;
}

/*
 * app.push(session | {sessions…}, route, message, {supersedes = name}): forgets; a session that has gone gets nothing. Of
 * the pushes of a route that name the same a client that reads too slowly gets the latest.
 */
int app_push(lua_State *L)
{
	static const char *const options[] = { "supersedes", NULL };
	struct app *a = app_of(L);

	app_check_runs(L);
	luaL_checktype(L, 1, LUA_TTABLE);
	app_options(L, 4, "push", options);
	struct app_push push = app_push_read(L, 2);

	lua_getfield(L, 1, "sid");
	bool one = !lua_isnil(L, -1);

	lua_pop(L, 1);
	if (one)
		push_to_one(L, a, &push);
	else
		push_to_list(L, a, &push);
	return 0;
}

static void send_to_session(struct app *a, const struct msg_method *m, const char *connector, uint64_t sid)
{
	struct rpc_call call = {
		.method = m,
		.to = { .instance = connector, .worker = (int)(sid >> 48) },
		.body = span_of(a->scratch.data, a->scratch.len),
	};

	rpc_call(a->worker, &call);
}

/* app.kick(session, reason), also session:kick(reason). */
int app_kick(lua_State *L)
{
	struct app *a = app_of(L);
	uint64_t sid;
	app_check_runs(L);
	const char *connector = app_session_at(L, 1, &sid);
	size_t n;
	const char *reason = luaL_optlstring(L, 2, "kick", &n);

	buf_clear(&a->scratch);
	buf_addch(&a->scratch, 1 << 3 | 1);
	buf_add(&a->scratch, &sid, 8);
	put_bytes(&a->scratch, 2, reason, n);
	send_to_session(a, a->kick, connector, sid);
	return 0;
}

static void set_elsewhere(lua_State *L, struct app *a, const char *name, const char *value)
{
	uint64_t sid;
	const char *connector = app_session_at(L, 1, &sid);

	buf_clear(&a->scratch);
	buf_addch(&a->scratch, 1 << 3 | 1);
	buf_add(&a->scratch, &sid, 8);
	put_bytes(&a->scratch, 2, name, strlen(name));
	put_bytes(&a->scratch, 3, value, strlen(value));
	send_to_session(a, a->attr, connector, sid);
}

/* Whether the session is the one whose request runs: only its attributes can leave with the answer. */
static bool is_own(lua_State *L, const struct app_job *j)
{
	uint64_t sid;
	const char *connector = app_session_at(L, 1, &sid);

	return j && j->kind == APP_HANDLER && j->session && j->session->sid == sid &&
	       !strcmp(j->session->instance, connector);
}

static void set_own(struct app_job *j, const char *name, const char *value)
{
	unsigned i = 0;

	while (i < j->attrs && strcmp(j->attr[i].name, name) != 0)
		i++;
	snprintf(j->attr[i].name, sizeof j->attr[0].name, "%s", name);
	snprintf(j->attr[i].value, sizeof j->attr[0].value, "%s", value);
	if (i == j->attrs)
		j->attrs++;
}

/*
 * session:set(name, value): what the connector remembers with the session and routes by. It takes effect with the answer of
 * the session's own request, so that its next request finds it; elsewhere by a message of its own.
 */
static int session_set(lua_State *L)
{
	struct app *a = app_of(L);
	struct app_job *j = app_job_of(L);

	luaL_checktype(L, 1, LUA_TTABLE);
	const char *name = luaL_checkstring(L, 2), *value = luaL_optstring(L, 3, "");

	if (strlen(name) >= sizeof j->attr[0].name || strlen(value) >= sizeof j->attr[0].value)
		return luaL_error(L, "session:set: the name holds at most 31 bytes, the value %d", PLAYER_NAME_MAX);
	if (!strcmp(name, "uid") || !strcmp(name, "sid") || !strcmp(name, "connector"))
		return luaL_error(L, "session:set: %s is what the session is known by", name);
	bool own = is_own(L, j);

	lua_pushvalue(L, 3);
	lua_setfield(L, 1, name);
	if (own && j->attrs < FRAME_ATTRS_MAX)
		set_own(j, name, value);
	else
		set_elsewhere(L, a, name, value);
	return 0;
}

int app_session_open(lua_State *L)
{
	static const luaL_Reg methods[] = {
		{ "push", app_push }, { "kick", app_kick }, { "set", session_set }, { NULL, NULL }
	};

	luaL_newmetatable(L, SESSION_META);
	luaL_newlib(L, methods);
	lua_setfield(L, -2, "__index");
	lua_pushboolean(L, 0); /* it is all sessions' */
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
	return 0;
}
