/*
 * luahost in the simulation: the budget by counted instructions, virtual time, and one course per seed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env_sim.h"
#include "common/err.h"
#include "common/lua_json.h"
#include "common/luahost.h"

/* Everything of a script that could differ between two runs of a seed ends up in its answer. */
static const char code[] = "local M = {}\n"
			   "function M.spin() while true do pcall(function() while true do end end) end end\n"
			   "function M.work() local n = 0 for i = 1, 2000000 do n = n + i end return n end\n"
			   "function M.order()\n"
			   "  local t, names = {}, {}\n"
			   "  for i = 1, 200 do t['key' .. i * 7919] = i t[{}] = i end\n"
			   "  for k, v in pairs(t) do names[#names + 1] = type(k) .. v end\n"
			   "  local from = clock.now_ms()\n"
			   "  clock.sleep(3000)\n"
			   "  return names, math.random(1 << 40), os.time(), clock.now_ms() - from, tostring({})\n"
			   "end\n"
			   "function M.backtrack() return ('a'):rep(50):match(('a*'):rep(25) .. 'b') end\n"
			   "return M\n";

struct result {
	int ended, err;
	char text[8000];
};
struct run {
	struct luajob job;
	struct luahost *host;
	struct loop *loop;
	const char *function;
	struct result *result;
};

static int push(lua_State *L, struct luajob *job)
{
	return luahost_push_hook(L, ((struct run *)job)->function) ? 0 : ERR_NOT_FOUND;
}

static void done(struct luajob *job, const struct luaresult *r)
{
	struct result *out = ((struct run *)job)->result;
	struct buf text = BUF_INIT;
	char why[LUA_WHY_MAX];
	buf_addstr(&text, r->err ? r->message : "");
	for (int i = 0; !r->err && i < r->n; i++)
		if (lua_json_encode(r->L, r->first + i, NULL, &text, why, sizeof why) < 0)
			buf_addstr(&text, why);
	out->err = r->err;
	snprintf(out->text, sizeof out->text, "%s", buf_cstr(&text));
	out->ended++;
	buf_release(&text);
}

static void on_start(struct loop *loop, void *arg)
{
	struct run *x = arg;
	struct luahost_options o = { .loop = loop, .budget_ms = 100 };
	struct luasrc *src = luasrc_of((const char *const[]){ "init", code, NULL });
	char why[300] = "";
	if (luahost_new(&o, &x->host) < 0 || luahost_load(x->host, src, why, sizeof why) < 0)
		env_abort(loop->env, why);
	luasrc_unref(src);
	if (luahost_watch(x->host))
		env_abort(loop->env, "a simulated host asks to be watched");
	x->job = (struct luajob){ .name = x->function, .push = push, .done = done };
	luatask_start(x->host, &x->job);
}

static void main_fn(struct env *env, void *arg)
{
	struct run *x = arg;
	if (loop_start(env, "lua", 0, on_start, NULL, x, &x->loop) < 0)
		env_abort(env, "no loop");
}

static bool ended(void *arg)
{
	return ((struct result *)arg)->ended > 0;
}

static void play(uint64_t seed, const char *function, struct result *out)
{
	struct run x = { .function = function, .result = out };
	struct sim *w = sim_new(seed);
	memset(out, 0, sizeof *out);
	sim_process(w, "lua", "10.0.0.1", main_fn, &x);
	sim_until(w, 20000, ended, out);
	if (sim_failure(w))
		printf("# %s\n", sim_failure(w));
	sim_free(w);
}

static int failed;

static void verdict(bool ok, const char *name, const struct result *r)
{
	printf("%s %s\n", ok ? "ok" : "not ok", name);
	if (!ok)
		printf("# ended=%d err=%d %s\n", r->ended, r->err, r->text);
	failed += !ok;
}

int main(void)
{
	static struct result a, b;
	play(1, "spin", &a);
	verdict(a.ended == 1 && a.err == ERR_FAILED && strstr(a.text, "init.lua:2: stopped"),
		"an_endless_loop_is_stopped", &a);
	play(1, "backtrack", &a);
	verdict(a.ended == 1 && a.err == ERR_FAILED && strstr(a.text, "init.lua:12: stopped"),
		"a_pattern_that_backtracks_for_ever_is_stopped", &a);
	play(1, "work", &a);
	verdict(a.ended == 1 && !strcmp(a.text, "2000001000000"), "honest_work_is_not_stopped", &a);
	play(3, "order", &a);
	play(4, "order", &b);
	bool differ = strcmp(a.text, b.text) != 0;
	play(3, "order", &b);
	verdict(a.ended == 1 && !a.err && !strcmp(a.text, b.text), "a_seed_gives_the_same_order_time_and_chance", &a);
	verdict(differ, "another_seed_gives_another", &b);
	return failed > 0;
}
