/* Calls of the service and of the test: whom they reach, how they end. */
#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/lua_json.h"
#include "common/lua_pb.h"
#include "deploy/luatest/luatest.h"

static struct span span(const struct buf *b)
{
	return (struct span){ b->len ? b->data : "", b->len };
}

/* ---- their life -------------------------------------------------------------------------------------------- */

struct call *call_new(struct world *x, const struct msg_method *m)
{
	struct call *c = calloc(1, sizeof *c);

	if (x->calls == x->calls_cap) {
		x->calls_cap = x->calls_cap ? 2 * x->calls_cap : 64;
		x->call = realloc(x->call, x->calls_cap * sizeof(struct call *));
	}
	assert(c && x->call);
	c->world = x;
	c->method = m;
	x->call[x->calls++] = c;
	c->handle = x->calls;
	return c;
}

void calls_free(struct world *x)
{
	for (size_t i = 0; i < x->calls; i++) {
		struct call *c = x->call[i];

		buf_release(&c->key);
		buf_release(&c->uid);
		buf_release(&c->body);
		buf_release(&c->once);
		buf_release(&c->answer);
		buf_release(&c->message);
		free(c);
	}
	free(x->call);
}

struct call *call_find(struct world *x, uint64_t handle)
{
	struct call *c = handle && handle <= x->calls ? x->call[handle - 1] : NULL;

	return c && !c->done ? c : NULL;
}

static void tell(struct world *x, void *arg)
{
	struct call *c = arg;
	struct rpc_answer a = {
		.err = c->err, .effect = c->effect, .message = span(&c->message), .body = span(&c->answer)
	};

	if (c->outer && c->task)
		world_settled(x, c);
	else if (c->on_answer)
		c->on_answer(c->arg, &a);
}

void call_end(struct call *c, int err, enum effect effect, const char *message, struct span body)
{
	if (c->done)
		return;
	c->done = true;
	c->err = err;
	c->effect = effect;
	buf_addstr(&c->message, message);
	buf_add(&c->answer, body.p, body.n);
	loop_timer_stop(c->world->loop, &c->timeout);
	world_event(c->world, tell, c);
}

static void end_with(struct call *c, int err, const char *message)
{
	call_end(c, err, EFFECT_NONE, message, (struct span){ "", 0 });
}

static void on_timeout(struct timer *t, uint64_t now_ms)
{
	struct call *c = (struct call *)((char *)t - offsetof(struct call, timeout));
	rpc_gone *gone = c->gone;

	(void)now_ms;
	call_end(c, ERR_TIMEOUT, EFFECT_UNKNOWN, "its time was over", (struct span){ "", 0 });
	if (gone)
		gone(c->gone_arg, ERR_TIMEOUT);
}

/* ---- fakes: functions of the test in place of remotes ------------------------------------------------------ */

struct fake {
	struct luajob job;
	struct call *call;
};

static int push_fake(lua_State *L, struct luajob *job)
{
	struct call *c = ((struct fake *)job)->call;
	char why[LUA_WHY_MAX];

	lua_rawgeti(L, LUA_REGISTRYINDEX, c->world->fake[c->method->index]);
	if (lua_pb_decode(L, c->method->in, span(&c->body).p, c->body.len, NULL, why, sizeof why) < 0)
		return luaL_error(L, "%s: %s", c->method->full, why);
	lua_createtable(L, 0, 4);
	lua_pushlstring(L, span(&c->key).p, c->key.len);
	lua_setfield(L, -2, "key");
	lua_pushstring(L, c->from);
	lua_setfield(L, -2, "from");
	lua_pushboolean(L, c->send);
	lua_setfield(L, -2, "send");
	if (c->once.len) {
		lua_pushlstring(L, c->once.data, c->once.len);
		lua_setfield(L, -2, "once");
	} else if (c->method->once) {
		lua_getfield(L, -2, c->method->once->name);
		lua_setfield(L, -2, "once");
	}
	return 2;
}

static const char *text_at(const struct luaresult *r, int i)
{
	return r->n > i && lua_type(r->L, r->first + i) == LUA_TSTRING ? lua_tostring(r->L, r->first + i) : NULL;
}

static enum effect effect_at(const struct luaresult *r, int i)
{
	const char *word = text_at(r, i);

	for (enum effect e = EFFECT_NONE; word && e <= EFFECT_UNKNOWN; e++)
		if (!strcmp(word, effect_word(e)))
			return e;
	return EFFECT_NONE;
}

static void fake_done(struct luajob *job, const struct luaresult *r)
{
	struct fake *f = (struct fake *)job;
	struct call *c = f->call;
	struct buf out = BUF_INIT;
	char why[LUA_WHY_MAX];

	if (r->err < 0) {
		end_with(c, err_public(r->err), r->message);
	} else if (r->n > 1 && lua_isnil(r->L, r->first)) {
		const char *word = text_at(r, 1), *message = text_at(r, 2);
		int err = word ? err_from_word(word) : 0;

		call_end(c, err ? err_public(err) : ERR_FAILED, effect_at(r, 3), message ? message : "",
			 (struct span){ "", 0 });
	} else {
		if (r->n == 0)
			lua_pushnil(r->L);
		if (lua_pb_encode(r->L, r->n ? r->first : lua_gettop(r->L), c->method->out, &out, why, sizeof why) < 0)
			end_with(c, ERR_FAILED, why);
		else
			call_end(c, 0, EFFECT_DONE, "", span(&out));
	}
	buf_release(&out);
	free(f);
}

const struct call *call_of_fake(const struct luajob *job)
{
	return job->push == push_fake ? ((const struct fake *)job)->call : NULL;
}

static void start_fake(struct call *c)
{
	struct fake *f = calloc(1, sizeof *f);

	assert(f);
	f->call = c;
	f->job = (struct luajob){ .name = c->method->full, .trace = c->trace, .push = push_fake, .done = fake_done };
	luatask_start(app_host(c->world->worker.app), &f->job);
}

/* ---- the connectors: sessions are tables of the test --------------------------------------------------------- */

/* The test library's table of sessions by number, kept by lib.c. */
extern const char test_sessions;

static bool push_session(lua_State *L, uint64_t sid)
{
	lua_rawgetp(L, LUA_REGISTRYINDEX, &test_sessions);
	return lua_rawgeti(L, -1, (lua_Integer)sid) == LUA_TTABLE;
}

static int give_push(lua_State *L, void *arg)
{
	struct call *c = arg;
	char why[LUA_WHY_MAX];
	size_t n;

	if (lua_pb_decode(L, c->method->in, span(&c->body).p, c->body.len, NULL, why, sizeof why) < 0)
		return luaL_error(L, "push: %s", why);
	int push = lua_gettop(L);

	lua_getfield(L, push, "body");
	const char *body = lua_tolstring(L, -1, &n);

	if (lua_json_decode(L, NULL, body, n, why, sizeof why) < 0) /* once: all get the same table */
		return luaL_error(L, "push: %s", why);
	int message = lua_gettop(L);

	lua_getfield(L, push, "sid");
	for (lua_Integer i = 1; lua_rawgeti(L, message + 1, i) != LUA_TNIL; i++) {
		uint64_t sid = (uint64_t)lua_tointeger(L, -1);

		if (push_session(L, sid)) {
			lua_getfield(L, -1, "pushes");
			lua_createtable(L, 0, 2);
			lua_getfield(L, push, "route");
			lua_setfield(L, -2, "route");
			lua_pushvalue(L, message);
			lua_setfield(L, -2, "message");
			lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
		}
		lua_settop(L, message + 1);
	}
	return 0;
}

/* connector.KickRequest and AttrRequest, into the session's table. */
static int give_word(lua_State *L, void *arg)
{
	struct call *c = arg;
	bool kick = !strcmp(c->method->name, "kick");
	char why[LUA_WHY_MAX];

	if (lua_pb_decode(L, c->method->in, span(&c->body).p, c->body.len, NULL, why, sizeof why) < 0)
		return luaL_error(L, "%s: %s", c->method->full, why);
	int request = lua_gettop(L);

	lua_getfield(L, request, "sid");
	if (!push_session(L, (uint64_t)lua_tointeger(L, -1)))
		return 0;
	int session = lua_gettop(L);

	lua_getfield(L, request, kick ? "reason" : "value");
	if (kick) {
		lua_setfield(L, session, "kicked");
		return 0;
	}
	lua_getfield(L, session, "attributes");
	lua_getfield(L, request, "name");
	lua_pushvalue(L, session + 1);
	lua_rawset(L, -3);
	return 0;
}

struct attrs {
	uint64_t sid;
	const struct rpc_attr *attr;
	unsigned n;
};

static int give_attrs(lua_State *L, void *arg)
{
	struct attrs *a = arg;

	if (!push_session(L, a->sid))
		return 0;
	lua_getfield(L, -1, "attributes");
	for (unsigned i = 0; i < a->n; i++) {
		lua_pushlstring(L, a->attr[i].name.p, a->attr[i].name.n);
		if (a->attr[i].value.n)
			lua_pushlstring(L, a->attr[i].value.p, a->attr[i].value.n);
		else
			lua_pushnil(L);
		lua_rawset(L, -3);
	}
	return 0;
}

void calls_attrs(struct call *c, const struct rpc_attr *attrs, unsigned n)
{
	struct attrs a = { c->sid, attrs, n };

	if (n && c->sid)
		luahost_protected(app_host(c->world->worker.app), give_attrs, &a);
}

static bool to_connector(struct call *c)
{
	struct luahost *h = app_host(c->world->worker.app);

	if (strcmp(c->method->service, "connector"))
		return false;
	if (!strcmp(c->method->name, "push"))
		luahost_protected(h, give_push, c);
	else if (!strcmp(c->method->name, "kick") || !strcmp(c->method->name, "attr"))
		luahost_protected(h, give_word, c);
	else if (strcmp(c->method->name, "gone") != 0) /* of those in rooms none has, until the test says so */
		return false;
	call_end(c, 0, EFFECT_DONE, "", (struct span){ "", 0 });
	return true;
}

/* ---- where a call goes ---------------------------------------------------------------------------------------- */

static void to_own(struct call *c)
{
	struct world *x = c->world;
	struct handler *handler = &x->handler[c->method->index];
	char client[96], caller[32];
	struct rpc_request r = {
		.worker = &x->worker,
		.method = c->method,
		.deadline_ms = c->deadline_ms,
		.trace = c->trace,
		.sid = c->sid,
		.uid = span(&c->uid),
		.key = span(&c->key),
		.body = span(&c->body),
		.json = c->json,
		.has_once = c->method->kind == MSG_ONCE,
		.once_key = span(&c->once),
		.instance_epoch = 1,
		.once_seq = c->handle,
		.once_first = c->handle,
		.once_attempt = 1,
		.handle = c->send ? 0 : c->handle,
	};

	snprintf(r.instance, sizeof r.instance, "%s", c->from);
	snprintf(client, sizeof client, "%s/0/1", c->from);
	r.client = (struct span){ client, strlen(client) };
	snprintf(caller, sizeof caller, "%.*s", (int)strcspn(c->from, "-"), c->from);
	if (!msg_method_admits(c->method, caller))
		end_with(c, ERR_DENIED, "this service may not call the method (option callers in its .proto)");
	else if (!handler->fn)
		end_with(c, ERR_NOT_FOUND, "the method is not there");
	else
		handler->fn(handler->arg, &r);
}

bool call_is_own(const struct world *x, const struct msg_method *m)
{
	return !strcmp(m->service, x->t->def.name) || !strcmp(m->service, RPC_EVERY_SERVICE);
}

static void deliver(struct world *x, void *arg)
{
	struct call *c = arg;

	if (c->done)
		return;
	if (!c->outer && x->fake[c->method->index] != LUA_NOREF) {
		start_fake(c);
	} else if (call_is_own(x, c->method)) {
		to_own(c);
	} else if (!to_connector(c)) {
		if (!c->send)
			buf_addf(&x->log, "test  app.rpc.%s: the test fakes none, so it is unavailable\n",
				 c->method->full);
		end_with(c, ERR_UNAVAILABLE, "the test fakes no such remote");
	}
}

void call_deliver(struct call *c)
{
	uint64_t now = c->world->loop->now_ms;

	c->timeout.fire = on_timeout;
	if (!c->send)
		loop_timer(c->world->loop, &c->timeout, c->deadline_ms > now ? c->deadline_ms - now : 0);
	world_event(c->world, deliver, c);
}

/* ---- what the test gets ----------------------------------------------------------------------------------------- */

static int push_http(lua_State *L, const struct call *c)
{
	lua_pushinteger(L, c->status);
	lua_pushlstring(L, span(&c->answer).p, c->answer.len);
	return 2;
}

/* As a client sees it: {code, …} or {code, error, message, effect}. */
static int push_client(lua_State *L, const struct call *c)
{
	char why[LUA_WHY_MAX];

	if (c->err == 0) {
		if (lua_json_decode(L, NULL, span(&c->answer).p, c->answer.len, why, sizeof why) < 0)
			return luaL_error(L, "%s: its answer is no JSON: %s", c->method->full, why);
		return 1;
	}
	lua_createtable(L, 0, 4);
	lua_pushinteger(L, err_http(c->err));
	lua_setfield(L, -2, "code");
	lua_pushstring(L, err_word(c->err));
	lua_setfield(L, -2, "error");
	lua_pushlstring(L, span(&c->message).p, c->message.len);
	lua_setfield(L, -2, "message");
	lua_pushstring(L, effect_word(c->effect));
	lua_setfield(L, -2, "effect");
	return 1;
}

int call_push_result(lua_State *L, void *call)
{
	struct call *c = call;
	char why[LUA_WHY_MAX];

	if (!c->method)
		return c->status ? push_http(L, c) : 0;
	if (c->json)
		return push_client(L, c);
	if (c->err) {
		lua_pushnil(L);
		lua_pushstring(L, err_word(c->err));
		lua_pushlstring(L, span(&c->message).p, c->message.len);
		lua_pushstring(L, effect_word(c->effect));
		return 4;
	}
	if (lua_pb_decode(L, c->method->out, span(&c->answer).p, c->answer.len, NULL, why, sizeof why) < 0)
		return luaL_error(L, "%s: %s", c->method->full, why);
	return 1;
}
