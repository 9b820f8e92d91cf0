/*
 * A new generation of code takes the place of the old, at one point, and may have to give it back. Until then what its files
 * put into `state` is kept apart: while one of them runs `state` is as it would be, afterwards as it was.
 */
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/luahost_private.h"

/* ---- state: its fields, not what is in them -------------------------------------------------------------- */

static void push_state(lua_State *L)
{
	lua_rawgeti(L, LUA_REGISTRYINDEX, luahost_of(L)->base);
	lua_pushliteral(L, "state");
	lua_rawget(L, -2);
	lua_remove(L, -2);
}

/* A copy of the table on top takes its place. */
static void copy_top(lua_State *L)
{
	int from = lua_gettop(L);
	lua_newtable(L);
	for (lua_pushnil(L); lua_next(L, from);) {
		lua_pushvalue(L, -2);
		lua_insert(L, -2);
		lua_rawset(L, from + 1);
	}
	lua_remove(L, from);
}

static void set_staged(lua_State *L, int state, int list, int i)
{
	lua_rawgeti(L, list, i);     /* key */
	lua_rawgeti(L, list, i + 1); /* as it was */
	lua_pushvalue(L, -2);
	if (lua_rawget(L, state) == LUA_TNIL) {
		lua_pop(L, 1);
		lua_pushvalue(L, list);
	}
	if (!lua_rawequal(L, -1, -2))
		luaL_error(L, "state.%s was changed by the running code meanwhile: try again",
			   luaL_tolstring(L, -3, NULL));
	lua_pop(L, 2);
	if (lua_rawgeti(L, list, i + 2) == LUA_TTABLE && lua_rawequal(L, -1, list)) {
		lua_pop(L, 1);
		lua_pushnil(L);
	}
	lua_rawset(L, state);
}

int luahost_state_enter(lua_State *L, void *arg)
{
	struct luahost *h = luahost_of(L);
	const struct luacode *code = arg;
	push_state(L);
	copy_top(L);
	h->kept = luaL_ref(L, LUA_REGISTRYINDEX);
	if (code->staged == LUA_NOREF)
		return 0;
	push_state(L);
	lua_rawgeti(L, LUA_REGISTRYINDEX, code->staged);
	for (int i = 1, n = (int)lua_rawlen(L, 2); i <= n; i += 3)
		set_staged(L, 1, 2, i);
	return 0;
}

/* Key and value are on top, the value is popped: {…, key, kept[key], value}; nil is written as the list itself. */
static void add_staged(lua_State *L, int kept, int list)
{
	int value = lua_gettop(L), n = (int)lua_rawlen(L, list);
	lua_pushvalue(L, value - 1);
	lua_rawseti(L, list, n + 1);
	lua_pushvalue(L, value - 1);
	if (lua_rawget(L, kept) == LUA_TNIL) {
		lua_pop(L, 1);
		lua_pushvalue(L, list);
	}
	lua_rawseti(L, list, n + 2);
	lua_pushvalue(L, value);
	lua_rawseti(L, list, n + 3);
	lua_pop(L, 1);
}

/* Is a[key] something else than the value on top? The key lies below it. */
static bool differs(lua_State *L, int a)
{
	lua_pushvalue(L, -2);
	lua_rawget(L, a);
	bool same = lua_rawequal(L, -1, -2);
	lua_pop(L, 1);
	return !same;
}

int luahost_state_stage(lua_State *L, void *arg)
{
	struct luahost *h = luahost_of(L);
	struct luacode *code = arg;
	push_state(L);                              /* 1 */
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->kept); /* 2 */
	lua_newtable(L);                            /* 3 */
	for (lua_pushnil(L); lua_next(L, 1);) {
		if (differs(L, 2))
			add_staged(L, 2, 3);
		else
			lua_pop(L, 1);
	}
	for (lua_pushnil(L); lua_next(L, 2);) {
		lua_pop(L, 1);
		lua_pushvalue(L, -1);
		bool gone = lua_rawget(L, 1) == LUA_TNIL;
		lua_pop(L, 1);
		lua_pushvalue(L, 3);
		if (gone)
			add_staged(L, 2, 3);
		else
			lua_pop(L, 1);
	}
	luaL_unref(L, LUA_REGISTRYINDEX, code->staged);
	code->staged = luaL_ref(L, LUA_REGISTRYINDEX);
	return 0;
}

static void forget_kept(struct luahost *h)
{
	luaL_unref(h->L, LUA_REGISTRYINDEX, h->kept);
	h->kept = LUA_NOREF;
}

int luahost_state_restore(lua_State *L, void *unused)
{
	struct luahost *h = luahost_of(L);
	(void)unused;
	if (h->kept == LUA_NOREF)
		return 0;
	push_state(L);
	lua_rawgeti(L, LUA_REGISTRYINDEX, h->kept);
	for (lua_pushnil(L); lua_next(L, 1);) {
		if (differs(L, 2)) {
			lua_pushvalue(L, -2);
			lua_pushvalue(L, -1);
			lua_rawget(L, 2);
			lua_rawset(L, 1);
		}
		lua_pop(L, 1);
	}
	for (lua_pushnil(L); lua_next(L, 2);) { /* what was taken out */
		lua_pushvalue(L, -2);
		lua_insert(L, -2);
		lua_rawset(L, 1);
	}
	forget_kept(h);
	return 0;
}

/* ---- the hooks of both ways -------------------------------------------------------------------------------- */

struct hook_job {
	struct luajob job;
	struct luacode *code; /* whose hook */
	const char *version;  /* its argument */
	int err;
	char *error;
	size_t error_size;
};

static int push_hook(lua_State *L, struct luajob *self)
{
	struct hook_job *j = (struct hook_job *)self;
	lua_rawgeti(L, LUA_REGISTRYINDEX, j->code->hooks);
	lua_pushstring(L, j->job.name);
	if (lua_rawget(L, -2) != LUA_TFUNCTION)
		return ERR_NOT_FOUND;
	lua_remove(L, -2);
	lua_pushstring(L, j->version);
	return 1;
}

static void hook_done(struct luajob *self, const struct luaresult *r)
{
	struct hook_job *j = (struct hook_job *)self;
	const char *why = r->message;
	j->err = r->err == ERR_NOT_FOUND ? 0 : r->err;
	if (r->err == 0 && r->n > 1 && lua_isnil(r->L, r->first) && !lua_isnil(r->L, r->first + 1)) {
		why = lua_type(r->L, r->first + 1) == LUA_TSTRING ? lua_tostring(r->L, r->first + 1) : "refused";
		j->err = ERR_FAILED;
	}
	if (j->err < 0)
		snprintf(j->error, j->error_size, "%s(\"%s\"): %s", j->job.name, j->version, why);
}

/* It may not wait, so it has ended when this returns. */
static int run_hook(struct luahost *h, struct luacode *code, const char *name, const char *version, char *error,
		    size_t error_size)
{
	struct hook_job j = {
		.job = { .name = name, .push = push_hook, .done = hook_done, .budget_ms = luahost_rare_ms(h) },
		.code = code,
		.version = version,
		.error = error,
		.error_size = error_size
	};
	h->switching = &j.job;
	luatask_start(h, &j.job);
	h->switching = NULL;
	return j.err;
}

/* ---- the switch, and the way back -------------------------------------------------------------------------- */

static void forget_made(struct luahost *h)
{
	luaL_unref(h->L, LUA_REGISTRYINDEX, h->made);
	h->made = LUA_NOREF;
}

static int take_over(struct luahost *h, char *error, size_t error_size)
{
	int before = h->made; /* by the code that still runs */
	h->made = LUA_NOREF;
	int err = luahost_try(h, luahost_state_enter, h->next, error, error_size);
	if (err == 0)
		err = run_hook(h, h->next, "on_reload", luahost_version(h), error, error_size);
	if (err < 0) {
		luahost_reserved(h, luahost_state_restore, NULL);
		luahost_reserved(h, luahost_cancel_made, NULL);
		forget_made(h);
		h->made = before;
	} else {
		luaL_unref(h->L, LUA_REGISTRYINDEX, before);
	}
	forget_kept(h);
	return err;
}

int luahost_switch(struct luahost *h, char *error, size_t error_size)
{
	assert(!luahost_current(h));
	if (!h->next)
		return 0;
	int err = h->code ? take_over(h, error, error_size) : 0;
	if (err < 0) {
		h->stats.reloads_refused++;
		luahost_drop_code(h, &h->next);
		return err;
	}
	h->stats.reloads += h->code != NULL;
	luaL_unref(h->L, LUA_REGISTRYINDEX, h->next->staged); /* they are in `state` now */
	h->next->staged = LUA_NOREF;
	luahost_drop_code(h, &h->previous);
	h->previous = h->code;
	h->code = h->next;
	h->next = NULL;
	return 0;
}

void luahost_rollback(struct luahost *h, const char *version)
{
	struct luacode *leaving = h->code;
	char error[256];
	assert(!luahost_current(h));
	luahost_abort(h);
	if (!h->previous || strcmp(luahost_version(h), version))
		return;
	luahost_reserved(h, luahost_cancel_made, NULL);
	forget_made(h);
	/* `state` is kept as it was if going back fails half-way */
	int err = luahost_try(h, luahost_state_enter, h->previous, error, sizeof error);
	if (err == 0)
		err = run_hook(h, leaving, "on_rollback", luasrc_version(h->previous->src), error, sizeof error);
	if (err < 0) {
		luahost_reserved(h, luahost_state_restore, NULL);
		if (h->o.log)
			log_error(h->o.log, "lua.rollback", "version=%s why=%s", version, error);
	}
	forget_kept(h);
	forget_made(h); /* by on_rollback, for the code before */
	h->code = h->previous;
	h->previous = NULL;
	h->stats.rollbacks++;
	luahost_drop_code(h, &leaving);
}
