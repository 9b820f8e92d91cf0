/*
 * rpc_loquat: calls of rpc/ between two instances: a real service process on each side, with everything a call has there:
 * the table of calls, a deadline, the route by key, the proof of the cluster key, statistics per method.
 *
 * usage: rpc_loquat --flight N --seconds S [--poll] [--lua] [--once]
 *        --poll: both workers poll 50 us before they sleep    --lua: both sides are Lua
 *        --once: a once-method, whose answers the library keeps until they are acknowledged
 */
#include "tests/bench/rpc_pair.h"
#include <lauxlib.h>
#include "common/err.h"
#include "common/luahost.h"
#include "rpc/app_private.h"
#include "rpc/once.h"

#define KEY "player-7"

struct run {
	struct load load;
	struct pair pair;
	struct worker *worker; /* the client's */
	const struct msg_method *method;
	char body[LOAD_BODY];
	struct inbox_msg begin;
};

static struct run *run_of(struct worker *w)
{
	return w->service->user;
}

static const struct msg_method *method_of(struct worker *w, bool once)
{
	return pair_method(w, once ? "calls.boxRemote.once" : "calls.boxRemote.put");
}

/* ---- the server ------------------------------------------------------------------------------------------- */

static void on_request(void *arg, struct rpc_request *r)
{
	(void)arg;
	rpc_answer_ok(r->worker, r->handle, r->body, NULL, 0);
}

/* What rpc/app_once.c does around a method, but for the record in the log. */
static void on_once(void *arg, struct rpc_request *r)
{
	struct once_server *s = arg;
	struct once_call c = {
		.owner = r->key,
		.method = { r->method->local, r->method->local_n },
		.client = r->client,
		.seq = r->once_seq,
		.first_incomplete = r->once_first,
		.attempt = r->once_attempt,
		.fingerprint = once_fingerprint(0, r->body.p, r->body.n),
	};
	struct once_result result;
	if (once_ask(s, &c, r->worker->loop->now_ms, &result) != ONCE_RUN)
		exit(2);
	once_done(s, result.entry, false, r->body);
	rpc_answer_ok(r->worker, r->handle, r->body, NULL, 0);
}

static int server_start(struct worker *w)
{
	rpc_handle(w, method_of(w, false), on_request, NULL);
	rpc_handle(w, method_of(w, true), on_once, once_server_new(&(struct once_options){ .lease_ms = 60000 }));
	return 0;
}

static int lua_init(struct service *s)
{
	return service_lua(s, s->def->name);
}

static const struct service_def server_c = { .name = "calls", .worker_start = server_start };
static const struct service_def server_lua = { .name = "calls", .init_service = lua_init };

/* ---- the client in C --------------------------------------------------------------------------------------- */

static void finish(struct run *r)
{
	load_report(&r->load);
	pair_remove(&r->pair);
	_exit(0);
}

static void on_answer(void *arg, const struct rpc_answer *a);

static void call(struct run *r, uint64_t *sent_ns)
{
	struct rpc_call c = {
		.method = r->method,
		.to = { .worker = -1, .key = { KEY, sizeof KEY - 1 } },
		.body = { r->body, sizeof r->body },
		.on_answer = on_answer,
		.arg = sent_ns,
	};
	*sent_ns = load_sent(&r->load);
	rpc_call(r->worker, &c);
}

/* Each call's argument is its place in sent_ns; the run itself stands before the first. */
struct places {
	struct run *run;
	uint64_t sent_ns;
};

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct places *p = (struct places *)((char *)arg - offsetof(struct places, sent_ns));
	if (a->err < 0 || a->body.n != LOAD_BODY) {
		fprintf(stderr, "rpc_loquat: %s: %.*s\n", err_word(a->err), (int)a->message.n, a->message.p);
		exit(2);
	}
	if (!load_answered(&p->run->load, p->sent_ns))
		finish(p->run);
	call(p->run, &p->sent_ns);
}

static void begin(struct inbox_msg *m)
{
	struct run *r = (struct run *)((char *)m - offsetof(struct run, begin));
	struct places *p = calloc(r->load.flight, sizeof *p);
	for (unsigned i = 0; i < r->load.flight; i++) {
		p[i].run = r;
		call(r, &p[i].sent_ns);
	}
}

static int client_start(struct worker *w)
{
	struct run *r = run_of(w);
	r->worker = w;
	r->method = method_of(w, r->load.once);
	pair_body(r->body);
	r->begin.run = begin;
	loop_post(w->loop, &r->begin);
	return 0;
}

/* ---- the client in Lua --------------------------------------------------------------------------------------- */

static struct run *run_of_lua(lua_State *L)
{
	return lua_touserdata(L, lua_upvalueindex(1));
}

static int lua_sent(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)load_sent(&run_of_lua(L)->load));
	return 1;
}

static int lua_answered(lua_State *L)
{
	struct run *r = run_of_lua(L);
	if (!load_answered(&r->load, (uint64_t)lua_tointeger(L, 1)))
		finish(r);
	return 0;
}

static int lua_open_load(lua_State *L)
{
	static const luaL_Reg functions[] = { { "sent", lua_sent }, { "answered", lua_answered }, { NULL, NULL } };
	struct app *a = luahost_user(luahost_of(L));
	struct run *r = run_of(a->worker);
	luaL_newlibtable(L, functions);
	lua_pushlightuserdata(L, r);
	luaL_setfuncs(L, functions, 1);
	lua_pushinteger(L, r->load.flight);
	lua_setfield(L, -2, "flight");
	return 1;
}

static const struct service_library libraries[] = { { "load", lua_open_load }, { NULL, NULL } };
static const struct service_def client_c = { .name = "caller", .worker_start = client_start };
static const struct service_def client_lua = { .name = "caller", .init_service = lua_init, .libraries = libraries };

/* ---- both ------------------------------------------------------------------------------------------------------ */

static const char server_script[] = "local Remote = {}\n"
				    "function Remote.put(args) return { text = args.text } end\n"
				    "return Remote\n";
static const char client_script[] = "local load = load\n"
				    "local put = app.rpc.calls.boxRemote.put\n"
				    "local text = string.rep('x', 48)\n"
				    "local function again()\n"
				    "  while true do\n"
				    "    local sent = load.sent()\n"
				    "    local answer, why, message = put('" KEY "', { text = text })\n"
				    "    if not answer then error(why .. ': ' .. message) end\n"
				    "    load.answered(sent)\n"
				    "  end\n"
				    "end\n"
				    "return { init_service = function()\n"
				    "  for _ = 1, load.flight do app.task(again) end\n"
				    "end }\n";

static void serve(struct load *l, int told)
{
	struct run *r = (struct run *)((char *)l - offsetof(struct run, load));
	pair_serve(&r->pair, l->lua ? &server_lua : &server_c, r, told);
}

int main(int argc, char **argv)
{
	struct run r = { 0 };
	int told;
	load_options(&r.load, argc, argv);
	pair_make(&r.pair, r.load.poll ? "calls = { poll_us = 50 }, caller = { poll_us = 50 }" : "");
	if (r.load.lua) {
		pair_file(&r.pair, "calls/boxRemote.lua", server_script, sizeof server_script - 1);
		pair_file(&r.pair, "caller/init.lua", client_script, sizeof client_script - 1);
	}
	load_fork(&r.load, serve, &told);
	load_port(told);
	pair_start(&r.pair, r.load.lua ? &client_lua : &client_c, "caller-1", &r);
	for (;;)
		pause();
}
