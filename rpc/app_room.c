#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app_private.h"

/*
 * The library's rooms: sessions that are pushed to together. A room lives on the worker that made it; one that is empty is
 * nothing but its name, so nobody has to clear up.
 */
#define ROOM_META     "loquat.room"
#define ROOM_MAX      100000  /* members, unless the script says otherwise */
#define ROOM_MAX_MOST 1000000 /* what it may say */
#define PUSH_BYTES    (256u << 10)

enum { LIST = 1, PLACE, NAME, ROOM_VALUES = NAME }; /* members in order; uid -> place in it; the name */
struct app_room {                                   /* a userdata with these values */
	struct app *app;
	struct app_seat **seat; /* as in the list */
	uint32_t n, cap, max;
	int ref; /* registry: itself, while it has members */
};

static struct app_room *room_check(lua_State *L, int index)
{
	return luaL_checkudata(L, index, ROOM_META);
}

static void push_rooms(lua_State *L, const struct app *a)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, a->seats.rooms);
}

/* The room of that name that is not empty is pushed; NULL: there is none (nothing pushed). */
static struct app_room *push_named(lua_State *L, const struct app *a, int name)
{
	name = lua_absindex(L, name);
	push_rooms(L, a);
	lua_pushvalue(L, name);
	lua_rawget(L, -2);
	lua_remove(L, -2);
	struct app_room *r = lua_touserdata(L, -1);

	if (!r)
		lua_pop(L, 1);
	return r;
}

/* Of several that were asked for while they were empty the one that has members is meant: it takes the argument's place. */
static struct app_room *room_at(lua_State *L)
{
	struct app_room *r = room_check(L, 1), *named = NULL;

	if (r->n)
		return r;
	lua_getiuservalue(L, 1, NAME);
	if ((named = push_named(L, r->app, -1)))
		lua_replace(L, 1);
	lua_pop(L, 1);
	if (named)
		named->max = r->max;
	return named ? named : r;
}

/* app.room(name, {max = members}) -> the room of this worker; it need not be made, nor ended. */
int app_room_new(lua_State *L)
{
	struct app *a = app_of(L);
	static const char *const options[] = { "max", NULL };
	lua_Integer max = ROOM_MAX;

	app_check_runs(L);
	luaL_checkstring(L, 1);
	lua_tostring(L, 1);
	if (app_options(L, 2, "app.room", options) && lua_getfield(L, 2, "max") != LUA_TNIL) {
		int is = 0;

		max = lua_tointegerx(L, -1, &is);
		if (!is || max < 1 || max > ROOM_MAX_MOST)
			app_raise(L, "app.room: max: 1 to %d members", ROOM_MAX_MOST);
	}
	struct app_room *r = push_named(L, a, 1);

	if (r) {
		if (max != ROOM_MAX)
			r->max = (uint32_t)max;
		return 1;
	}
	r = lua_newuserdatauv(L, sizeof *r, ROOM_VALUES);
	*r = (struct app_room){ .app = a, .max = (uint32_t)max, .ref = LUA_NOREF };
	luaL_setmetatable(L, ROOM_META);
	lua_newtable(L);
	lua_setiuservalue(L, -2, LIST);
	lua_newtable(L);
	lua_setiuservalue(L, -2, PLACE);
	lua_pushvalue(L, 1);
	lua_setiuservalue(L, -2, NAME);
	return 1;
}

/* ---- members ------------------------------------------------------------------------------------------------------ */

struct who {
	const char *connector;
	uint64_t sid;
	struct span uid; /* stays on the stack */
};

static struct who who_at(lua_State *L, int index)
{
	struct who w;

	index = lua_absindex(L, index);
	w.connector = app_session_at(L, index, &w.sid);
	if (lua_getfield(L, index, "uid") != LUA_TSTRING)
		app_raise(L, "a session with a uid was expected");
	w.uid.p = lua_tolstring(L, -1, &w.uid.n);
	if (memchr(w.uid.p, 0, w.uid.n))
		app_raise(L, "a uid without zero bytes was expected");
	return w;
}

/* The place of that uid, from 1, or 0. */
static uint32_t place_of(lua_State *L, int room, const char *uid, size_t n)
{
	const struct app_room *r = lua_touserdata(L, room);

	room = lua_absindex(L, room);
	lua_getiuservalue(L, room, PLACE);
	lua_pushlstring(L, uid, n);
	lua_rawget(L, -2);
	uint32_t place = (uint32_t)lua_tointeger(L, -1);

	lua_pop(L, 2);
	return place && place <= r->n && !strcmp(r->seat[place - 1]->uid, uid) ? place : 0; /* else a join raised */
}

static void set_place(lua_State *L, int room, const char *uid, uint32_t place)
{
	lua_getiuservalue(L, room, PLACE);
	lua_pushstring(L, uid);
	if (place)
		lua_pushinteger(L, place);
	else
		lua_pushnil(L);
	lua_rawset(L, -3);
	lua_pop(L, 1);
}

/* A room with members can be found by its name, and by its number; an empty one needs no memory. */
static void name_room(lua_State *L, int room)
{
	struct app_room *r = lua_touserdata(L, room);

	push_rooms(L, r->app);
	lua_getiuservalue(L, room, NAME);
	lua_pushvalue(L, room);
	r->ref = luaL_ref(L, LUA_REGISTRYINDEX);
	lua_pushvalue(L, room);
	lua_rawset(L, -3);
	lua_pop(L, 1);
	metric_add(r->app->seats.rooms_there, 1);
}

static void unname_room(lua_State *L, int room)
{
	struct app_room *r = lua_touserdata(L, room);

	push_rooms(L, r->app);
	lua_getiuservalue(L, room, NAME);
	lua_pushnil(L);
	lua_rawset(L, -3);
	lua_pop(L, 1);
	luaL_unref(L, LUA_REGISTRYINDEX, r->ref);
	r->ref = LUA_NOREF;
	metric_add(r->app->seats.rooms_there, (uint64_t)-1);
}

/* The table at member takes this place. Raises before anything is changed. */
static void set_member(lua_State *L, int room, uint32_t place, int member)
{
	lua_getiuservalue(L, room, LIST);
	lua_pushvalue(L, member);
	lua_rawseti(L, -2, place);
	lua_pop(L, 1);
}

static void seats_grow(struct app_room *r)
{
	if (r->n < r->cap)
		return;
	r->cap = r->cap ? 2 * r->cap : 4;
	r->seat = realloc(r->seat, sizeof(struct app_seat *) * r->cap);
	assert(r->seat);
}

/* The last one takes its place. What is popped from the tables needs no memory. */
static void take_out(lua_State *L, int room, uint32_t place)
{
	struct app_room *r = lua_touserdata(L, room);
	struct app_seat *s = r->seat[place - 1], *last = r->seat[r->n - 1];

	set_place(L, room, s->uid, 0);
	lua_getiuservalue(L, room, LIST);
	if (last != s) {
		lua_rawgeti(L, -1, r->n);
		lua_rawseti(L, -2, place);
		r->seat[place - 1] = last;
		set_place(L, room, last->uid, place);
	}
	lua_pushnil(L);
	lua_rawseti(L, -2, r->n);
	lua_pop(L, 1);
	r->n--;
	metric_add(r->app->seats.members_there, (uint64_t)-1);
	if (!r->n)
		unname_room(L, room);
	app_seat_leave(r->app, s, r);
}

/* The same player by another connection, or called otherwise: the place stays. */
static int join_again(lua_State *L, struct app_room *r, uint32_t place, struct who w)
{
	struct app_seat *before = r->seat[place - 1], *s = app_seat_get(r->app, w.connector, w.sid, w.uid);

	if (before != s) {
		if (app_seat_join(s, r) < 0)
			return ERR_FULL;
		r->seat[place - 1] = s;
		app_seat_leave(r->app, before, r);
	}
	set_member(L, 1, place, 2);
	return 0;
}

/* First what may raise for want of memory. */
static int join_new(lua_State *L, struct app_room *r, struct who w)
{
	struct app_seat *s;

	set_member(L, 1, r->n + 1, 2);
	set_place(L, 1, w.uid.p, r->n + 1);
	if (!r->n)
		name_room(L, 1);
	s = app_seat_get(r->app, w.connector, w.sid, w.uid);
	if (app_seat_join(s, r) < 0) {
		set_place(L, 1, w.uid.p, 0);
		if (!r->n)
			unname_room(L, 1);
		return ERR_FULL;
	}
	seats_grow(r);
	r->seat[r->n++] = s;
	metric_add(r->app->seats.members_there, 1);
	return 0;
}

static int refuse(lua_State *L, int err, const char *why)
{
	return app_push_error(L, err, span_of(why, strlen(why)), EFFECT_NONE);
}

/*
 * room:join(session) -> true: it came; false: that player was there already, now with this session; or nil, "busy", message.
 * session may be any table with uid, sid and connector: members() gives it back.
 */
static int room_join(lua_State *L)
{
	struct app_room *r = room_at(L);

	luaL_checktype(L, 2, LUA_TTABLE);
	lua_settop(L, 2);
	struct who w = who_at(L, 2);
	uint32_t place = place_of(L, 1, w.uid.p, w.uid.n);
	struct app_seat *s = app_seat_find(r->app, w.connector, w.sid);

	if (s && strcmp(s->uid, w.uid.p) != 0)
		app_raise(L, "this session is in rooms as %s: it cannot join one as %s", s->uid, w.uid.p);
	if (r->app->seats.closed)
		return refuse(L, ERR_UNAVAILABLE, "the service stops");
	if (!place && r->n >= r->max)
		return refuse(L, ERR_BUSY, "the room is full");
	if ((place ? join_again(L, r, place, w) : join_new(L, r, w)) < 0)
		return refuse(L, ERR_BUSY, "the session is in too many rooms");
	lua_pushboolean(L, !place);
	return 1;
}

/* The place of this very session, or 0. */
static uint32_t place_of_session(lua_State *L, struct app_room *r, int index)
{
	struct who w = who_at(L, index);
	uint32_t place = place_of(L, 1, w.uid.p, w.uid.n);
	struct app_seat *s = place ? r->seat[place - 1] : NULL;

	return s && s->sid == w.sid && !strcmp(s->roster->connector, w.connector) ? place : 0;
}

/* room:leave(session) -> whether this session, not another of the same player, was there. */
static int room_leave(lua_State *L)
{
	struct app_room *r = room_at(L);

	luaL_checktype(L, 2, LUA_TTABLE);
	uint32_t place = place_of_session(L, r, 2);

	if (place)
		take_out(L, 1, place);
	lua_pushboolean(L, place != 0);
	return 1;
}

/* room:member(uid) -> what joined, or nil. */
static int room_member(lua_State *L)
{
	size_t n;

	room_at(L);
	const char *uid = luaL_checklstring(L, 2, &n);
	uint32_t place = place_of(L, 1, uid, n);

	lua_getiuservalue(L, 1, LIST);
	if (place)
		lua_rawgeti(L, -1, place);
	else
		lua_pushnil(L);
	return 1;
}

/* room:members(max) -> a list of what joined, at most max; in no order, but the same in each run. */
static int room_members(lua_State *L)
{
	struct app_room *r = room_at(L);
	lua_Integer max = luaL_optinteger(L, 2, r->n);
	uint32_t n = max < 0 ? 0 : max < r->n ? (uint32_t)max : r->n;

	lua_getiuservalue(L, 1, LIST);
	lua_createtable(L, (int)n, 0);
	for (uint32_t i = 1; i <= n; i++) {
		lua_rawgeti(L, -2, i);
		lua_rawseti(L, -2, i);
	}
	return 1;
}

/* room:close(): everybody leaves, and nobody is told. */
static int room_close(lua_State *L)
{
	struct app_room *r = room_at(L);

	while (r->n)
		take_out(L, 1, r->n);
	return 0;
}

/* ---- pushes --------------------------------------------------------------------------------------------------------- */

static void skip(lua_State *L, struct app *a, int index)
{
	uint64_t sid;
	const char *connector = app_session_at(L, index, &sid);
	struct app_seat *s = app_seat_find(a, connector, sid);

	if (s)
		s->skipped = a->seats.pushes;
}

/* {but = session or list} */
static void skip_all(lua_State *L, struct app *a, int options)
{
	a->seats.pushes++;
	if (lua_isnoneornil(L, options) || lua_getfield(L, options, "but") == LUA_TNIL)
		return;
	if (!lua_istable(L, -1))
		app_raise(L, "room:push: but: a session, or a list of them, was expected, found a %s",
			  luaL_typename(L, -1));
	int but = lua_gettop(L);

	if (lua_getfield(L, but, "sid") != LUA_TNIL) {
		skip(L, a, but);
		return;
	}
	for (lua_Integer i = 1, n = luaL_len(L, but); i <= n; i++) {
		lua_geti(L, but, i);
		skip(L, a, -1);
		lua_pop(L, 1);
	}
}

static void roster_send(struct app *a, struct app_roster *to, const struct app_push *push)
{
	app_push_send(a, to->connector, to->worker, span_of(to->out.data, to->out.len), push);
	buf_clear(&to->out);
}

/*
 * room:push(route, message, {but = session or list, supersedes = name}): encoded once, one frame per worker of a connector.
 * Forgets.
 */
static int room_push(lua_State *L)
{
	static const char *const options[] = { "but", "supersedes", NULL };
	struct app_room *r = room_at(L);
	struct app *a = r->app;

	app_check_runs(L);
	lua_settop(L, 4);
	app_options(L, 4, "room:push", options);
	struct app_push push = app_push_read(L, 2);

	skip_all(L, a, 4);
	for (uint32_t i = 0; i < r->n; i++) {
		struct app_seat *s = r->seat[i];
		struct app_roster *to = s->roster;

		if (s->skipped == a->seats.pushes)
			continue;
		buf_add(&to->out, &s->sid, sizeof s->sid);
		if (to->out.len >= PUSH_BYTES)
			roster_send(a, to, &push);
	}
	for (struct app_roster *to = a->seats.rosters; to; to = to->next)
		if (to->out.len)
			roster_send(a, to, &push);
	return 0;
}

/* ---- a session that has ended --------------------------------------------------------------------------------------- */

struct leaving {
	struct app_room *room;
	struct app_seat *seat;
	bool wanted; /* init.lua has the hook */
	int told;    /* registry: {name, member}, for the hook */
};

/* It is there, if not where its uid says. */
static uint32_t place_of_seat(lua_State *L, const struct app_room *r, const struct app_seat *s)
{
	uint32_t place = place_of(L, 1, s->uid, strlen(s->uid));

	if (place && r->seat[place - 1] == s)
		return place;
	for (place = r->n; place && r->seat[place - 1] != s;)
		place--;
	return place;
}

static int leave_ended(lua_State *L, void *arg)
{
	struct leaving *x = arg;
	struct app_room *r = x->room;

	lua_rawgeti(L, LUA_REGISTRYINDEX, r->ref); /* 1 */
	uint32_t place = place_of_seat(L, r, x->seat);

	assert(place); /* a seat and its room name each other */
	if (x->wanted) {
		lua_createtable(L, 2, 0);
		lua_getiuservalue(L, 1, NAME);
		lua_rawseti(L, 2, 1);
		lua_getiuservalue(L, 1, LIST);
		lua_rawgeti(L, 3, place);
		lua_rawseti(L, 2, 2);
		lua_settop(L, 2);
		x->told = luaL_ref(L, LUA_REGISTRYINDEX);
	}
	take_out(L, 1, place);
	return 0;
}

static int push_on_leave(lua_State *L, struct luajob *self)
{
	struct app_job *j = (struct app_job *)self;

	if (!luahost_push_hook(L, "on_leave"))
		return ERR_NOT_FOUND;
	lua_rawgeti(L, LUA_REGISTRYINDEX, j->function);
	lua_rawgeti(L, -1, 1);
	lua_rawgeti(L, -2, 2);
	lua_remove(L, -3);
	return 2;
}

void app_room_left(struct app *a, struct app_room *r, struct app_seat *s)
{
	struct leaving x = { r, s, luahost_has_hook(a->host, "on_leave"), LUA_NOREF };

	if (luahost_reserved(a->host, leave_ended, &x) < 0)
		env_abort(a->worker->loop->env, "a session that has ended could not leave its room");
	if (x.told == LUA_NOREF)
		return;
	struct app_job *j = app_job_new(a, APP_TASK);

	j->function = x.told;
	j->job.name = "on_leave";
	j->job.push = push_on_leave;
	j->deadline_ms = UINT64_MAX;
	luatask_start(a->host, &j->job);
}

void app_room_forget(struct app_room *r)
{
	r->n = 0;
}

/* ---- the library's type ---------------------------------------------------------------------------------------------- */

/* room.name, room.count, and the functions, which are the upvalue. */
static int room_index(lua_State *L)
{
	const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

	if (!strcmp(key, "count")) {
		lua_pushinteger(L, room_at(L)->n);
	} else if (!strcmp(key, "name")) {
		room_check(L, 1);
		lua_getiuservalue(L, 1, NAME);
	} else {
		lua_pushvalue(L, 2);
		lua_rawget(L, lua_upvalueindex(1));
	}
	return 1;
}

static int room_free(lua_State *L)
{
	struct app_room *r = lua_touserdata(L, 1);

	free(r->seat);
	r->seat = NULL;
	r->n = 0;
	return 0;
}

/* app.rooms(session) -> the names of the rooms of this worker it is in, in the order it joined them. */
int app_room_list(lua_State *L)
{
	struct app *a = app_of(L);
	uint64_t sid;

	app_check_runs(L);
	const char *connector = app_session_at(L, 1, &sid);
	struct app_seat *s = app_seat_find(a, connector, sid);

	lua_newtable(L);
	for (unsigned i = 0; s && i < s->rooms; i++) {
		lua_rawgeti(L, LUA_REGISTRYINDEX, s->room[i]->ref);
		lua_getiuservalue(L, -1, NAME);
		lua_rawseti(L, -3, (lua_Integer)i + 1);
		lua_pop(L, 1);
	}
	return 1;
}

void app_room_open(lua_State *L)
{
	static const luaL_Reg methods[] = { { "join", room_join },
					    { "leave", room_leave },
					    { "member", room_member },
					    { "members", room_members },
					    { "push", room_push },
					    { "close", room_close },
					    { NULL, NULL } };

	luaL_newmetatable(L, ROOM_META);
	luaL_newlib(L, methods);
	lua_pushcclosure(L, room_index, 1);
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, room_free);
	lua_setfield(L, -2, "__gc");
	lua_pop(L, 1);
}
