/* The promises of common/luahost.h. Scripts run on a real worker. */
#include <check.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "common/err.h"
#include "common/lua_json.h"
#include "common/luahost.h"
#include "tests/support/on_loop.h"
#include "tests/support/sample.h"

/* Under TSan a signal is delivered at the next system call only, which an endless loop does not make. */
#if defined(__SANITIZE_THREAD__)
enum { SIGNALS_WAIT = 1 };
#else
enum { SIGNALS_WAIT = 0 };
#endif

/* Files from memory: names and texts in turn. */
#define SRC(...) luasrc_of((const char *const[]){ __VA_ARGS__, NULL })

static struct env *env;
static struct loop *loop;
static struct log *log_;
static struct schema *schema;
static struct luahost *host;
static struct luahost_options options;
static char log_path[100], why[512];

struct run { /* a job that keeps what it ended with */
	struct luajob job;
	const struct msg_method *method; /* else the hook "go" */
	int err, ended;
	uint64_t task;
	char message[400], results[2000];
	int (*push)(lua_State *L, struct run *self);
};

static void keep(struct luajob *job, const struct luaresult *r)
{
	struct run *x = (struct run *)job;
	struct buf out = BUF_INIT;
	char wrong[LUA_WHY_MAX];
	x->err = r->err;
	snprintf(x->message, sizeof x->message, "%s", r->err ? r->message : "");
	for (int i = 0; !r->err && i < r->n; i++) {
		if (i)
			buf_addch(&out, ' ');
		if (lua_json_encode(r->L, r->first + i, NULL, &out, wrong, sizeof wrong) < 0)
			buf_addf(&out, "<%s>", lua_typename(r->L, lua_type(r->L, r->first + i)));
	}
	snprintf(x->results, sizeof x->results, "%s", buf_cstr(&out));
	buf_release(&out);
	__atomic_fetch_add(&x->ended, 1, __ATOMIC_RELEASE); /* pairs with wait_for's load */
}

static int push_run(lua_State *L, struct luajob *job)
{
	struct run *x = (struct run *)job;
	if (x->push)
		return x->push(L, x);
	if (x->method ? !luahost_push_method(L, x->method) : !luahost_push_hook(L, "go"))
		return ERR_NOT_FOUND;
	return 0;
}

static void start(void *arg)
{
	struct run *x = arg;
	x->job = (struct luajob){ .name = "test.go", .push = push_run, .done = keep };
	x->task = luatask_start(host, &x->job);
}

static void wait_for(const int *ended)
{
	for (int i = 0; i < 100000; i++) {
		if (__atomic_load_n(ended, __ATOMIC_ACQUIRE))
			return;
		on_loop_turns(loop);
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		if (i % 20 == 0)
			luahost_watch(host);
	}
	ck_abort_msg("it did not end");
}

static void new_host(void *arg)
{
	(void)arg;
	ck_assert_int_eq(luahost_new(&options, &host), 0);
}

static void free_host(void *arg)
{
	(void)arg;
	luahost_free(host);
	host = NULL;
}

static void setup(void)
{
	env = env_new();
	loop = on_loop_new(env, "lua");
	schema = sample_schema();
	snprintf(log_path, sizeof log_path, "build/test_luahost-%d.log", (int)getpid());
	ck_assert_int_eq(log_open(env, "test", log_path, LOG_DEBUG, &log_), 0);
	options = (struct luahost_options){ .loop = loop, .log = log_, .schema = schema };
	on_loop(loop, new_host, NULL);
}

static void teardown(void)
{
	on_loop(loop, free_host, NULL);
	on_loop_free(loop);
	log_close(log_);
	unlink(log_path);
	schema_free(schema);
	env_free(env);
}

/* The log thread writes a little later. */
static bool is_logged(const char *part)
{
	bool found = false;
	for (int i = 0; i < 10000 && !found; i++) {
		size_t n;
		char *text = sample_read(log_path, &n);
		found = strstr(text, part) != NULL;
		free(text);
		if (!found)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return found;
}
#define ck_logged(part) ck_assert_msg(is_logged(part), "not in the log: %s", part)

static int load_err;
static void load(void *src)
{
	int err = luahost_load(host, src, why, sizeof why);
	luasrc_unref(src);
	__atomic_store_n(&load_err, err, __ATOMIC_RELEASE); /* pairs with the load of who waits for it */
}

/* Loads init.lua with M.go = function() body end, runs it and waits for its end. */
static struct run *script(const char *body)
{
	static struct run x;
	struct buf text = BUF_INIT;
	buf_addf(&text, "local M = {} function M.go() %s end return M", body);
	on_loop(loop, load,
		SRC("init", buf_cstr(&text), "other", "return {n = 7, fn = function() state.ran = true end}"));
	buf_release(&text);
	ck_assert_msg(load_err == 0, "%s", why);
	memset(&x, 0, sizeof x);
	on_loop(loop, start, &x);
	wait_for(&x.ended);
	return &x;
}

static const char *gives(const char *body)
{
	struct run *x = script(body);
	ck_assert_msg(x->err == 0, "%s", x->message);
	return x->results;
}

static const char *fails(const char *body)
{
	struct run *x = script(body);
	ck_assert_int_eq(x->err, ERR_FAILED);
	return x->message;
}

static const char *refused(const char *name, const char *text)
{
	on_loop(loop, load, SRC(name, text));
	ck_assert_int_eq(load_err, ERR_FAILED);
	return why;
}

#define ck_gives(body, json)      ck_assert_str_eq(gives(body), json)
#define ck_fails(body, message)   ck_assert_str_eq(fails(body), message)
#define ck_refused(name, text, w) ck_assert_str_eq(refused(name, text), w)
#define ck_has(text, part)                                                                 \
	do {                                                                               \
		const char *whole = text;                                                  \
		ck_assert_msg(strstr(whole, part) != NULL, "no '%s' in: %s", part, whole); \
	} while (0)

static struct luahost_stats stats_;
static void read_stats(void *arg)
{
	(void)arg;
	luahost_stats(host, &stats_);
}

static struct luahost_stats *stats(void)
{
	on_loop(loop, read_stats, NULL);
	return &stats_;
}

/* ---- what scripts may and may not do ---- */

START_TEST(scripts_compute)
{
	ck_gives("return 1 + 1, ('x'):rep(3), {math.max(1, 2)}", "2 \"xxx\" [2]");
	ck_gives("", "");
}
END_TEST

START_TEST(there_is_no_way_out_of_the_state)
{
	static const char *const absent[] = { "io",        "debug",       "package",        "dofile",     "loadfile",
					      "print",     "_G",          "os.exit",        "os.execute", "os.getenv",
					      "os.remove", "string.dump", "math.randomseed" };
	for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
		char body[200];
		snprintf(body, sizeof body, "local ok, v = pcall(function() return %s end) return ok and v ~= nil",
			 absent[i]);
		ck_gives(body, "false");
	}
	ck_gives("return load('\\27Lua')", "null \"attempt to load a binary chunk (mode is 't')\"");
	ck_gives("return load('return json ~= nil')()", "true");
	ck_gives("return pcall(setmetatable, {}, {__gc = function() end})",
		 "false \"setmetatable: __gc is not for scripts\"");
	ck_gives("return getmetatable('')", "\"string\"");
	ck_gives("return pcall(collectgarbage, 'stop')", "false \"bad argument #1 to '?' (scripts may only count)\"");
	ck_gives("return collectgarbage() > 10", "true");
}
END_TEST

START_TEST(globals_by_accident_are_errors_with_file_and_line)
{
	ck_fails("local x = 1\nreturn nothing", "init.lua:2: the global 'nothing' is not defined");
	ck_fails("\n\nsomething = 1", "init.lua:3: assignment to the global 'something': use a local, or state");
	ck_refused("init", "\nhelper = 5", "init.lua:2: assignment to the global 'helper': use a local, or state");
	ck_refused("init", "return {x = helper}", "init.lua:1: the global 'helper' is not defined");
}
END_TEST

START_TEST(values_are_shown_without_addresses)
{
	ck_gives("return tostring({}), tostring(nil), tostring(json.null), tostring(12), tostring(nil)",
		 "\"table\" \"nil\" \"null\" \"12\" \"nil\"");
}
END_TEST

START_TEST(time_comes_from_the_environment)
{
	ck_gives("return math.abs(os.time() * 1000 - clock.wall_ms()) < 2000, os.clock() > 0, clock.now_ms() > 0",
		 "true true true");
	ck_gives("return os.time{year = 2026, month = 11, day = 22, hour = 19}", "1795374000");
	ck_gives("return os.date('%Y-%m-%d %H:%M:%S %j %%', 1795374000)", "\"2026-11-22 19:00:00 326 %\"");
	ck_gives("return os.date('*t', 0)",
		 "{\"day\":1,\"hour\":0,\"min\":0,\"month\":1,\"sec\":0,\"wday\":5,\"yday\":1,\"year\":1970}");
	ck_gives("return pcall(os.date, '%A')", "false \"os.date: '%A' is not one of %Y %m %d %H %M %S %j %w\"");
}
END_TEST

START_TEST(require_finds_files_of_the_service_only_and_once)
{
	ck_gives("local o = require 'other' return o.n, o == require('other')", "7 true");
	ck_fails("require 'missing'",
		 "init.lua:1: require 'missing': there is no such file in the service's lua folder");
	ck_fails("require '../etc/passwd'",
		 "init.lua:1: require '../etc/passwd': there is no such file in the service's lua folder");
	on_loop(loop, load, SRC("init", "return require 'a'", "a", "return require 'b'", "b", "return require 'a'"));
	ck_assert_int_eq(load_err, ERR_FAILED);
	ck_assert_str_eq(why, "b.lua:1: require 'a': it requires itself, by way of others perhaps");
}
END_TEST

START_TEST(log_lines_have_sorted_pairs_and_cannot_be_forged)
{
	gives("log.info('shop.bought', {uid = 'x y\\nerror', item = 1, list = {1, 2}, ok = true}) log.warn('plain')\n"
	      "log.error('text', 'n=%d', 5)");
	ck_logged(" shop.bought item=1 list=[1,2] ok=true uid=\"x y\\nerror\"");
	ck_logged(" warn test plain");
	ck_logged(" error test text msg=\"n=5\"");
}
END_TEST

/* ---- failures ---- */

START_TEST(an_error_is_logged_with_its_traceback_and_answered_short)
{
	ck_fails("local function deep() error('broken') end\ndeep()", "init.lua:1: broken");
	ck_logged("lua.error task=test.go error=\"init.lua:1: broken\"");
	ck_logged("init.lua:2: in function");
	ck_assert_uint_eq(stats()->failed, 1);
	ck_gives("return 'goes on'", "\"goes on\"");
}
END_TEST

START_TEST(errors_that_are_no_text_are_failures_too)
{
	ck_fails("error({code = 5})", "an error that is a table");
	ck_fails("error()", "an error that is a nil");
	ck_fails("error('two\\nlines', 0)", "two");
}
END_TEST

START_TEST(pcall_works_across_waiting)
{
	ck_gives("return pcall(function() clock.sleep(1) error('late', 0) end)", "false \"late\"");
	ck_gives("return xpcall(function(a) clock.sleep(1) return a end, function(e) return e end, 5)", "true 5");
	ck_gives("return xpcall(function() clock.sleep(1) error('x', 0) end, function(e) return 'seen ' .. e end)",
		 "false \"seen x\"");
}
END_TEST

START_TEST(memory_is_bounded_and_running_out_of_it_harms_one_task_only)
{
	on_loop(loop, free_host, NULL);
	options.memory_max = 8 << 20;
	on_loop(loop, new_host, NULL);
	ck_fails("local t = {} for i = 1, 1e9 do t[i] = {i} end", "not enough memory");
	ck_fails("local s = 'x' while true do s = s .. s end", "not enough memory");
	ck_fails("return ('x'):rep(1 << 30)", "not enough memory");
	ck_gives("return 'alive'", "\"alive\"");
	ck_assert_uint_ge(stats()->out_of_memory, 3);
	ck_assert_uint_le(stats()->memory_peak_bytes, 8 << 20);
	ck_logged("error=\"not enough memory\"");
}
END_TEST

/* ---- the budget ---- */

static const char *const stopped = "init.lua:1: stopped: it ran for more than its budget of 50 ms";

static void short_budget(void)
{
	on_loop(loop, free_host, NULL);
	options.budget_ms = 50;
	on_loop(loop, new_host, NULL);
}

START_TEST(an_endless_loop_is_stopped)
{
	short_budget();
	struct run *x = NULL;
	static const char *const loops[] = {
		"while true do end",
		"while true do pcall(function() while true do end end) end",
		"coroutine.wrap(function() while true do end end)()",
		"while true do coroutine.wrap(function() end)() end",
		"while true do local co = coroutine.create(function() while true do end end) coroutine.resume(co) end",
		"xpcall(function() while true do end end, function() while true do end end)",
		"local x <close> = setmetatable({}, {__close = function() while true do end end}) while true do end",
		"local co = coroutine.create(function() local x <close> = setmetatable({}, {__close = function() while true do end end})"
		" coroutine.yield() end) coroutine.resume(co) coroutine.close(co)",
		"clock.sleep(1) while true do end",
		"local s = ('a'):rep(50) s:match(('a*'):rep(25) .. 'b')",
		"local s = ('a'):rep(50) while true do pcall(s.gsub, s, ('a-'):rep(25) .. 'b', '') end",
		"local s = ('x'):rep(1 << 20) while true do s = s:gsub('x', 'x') end",
		"local t = {} for i = 1, 300000 do t[i] = -i end while true do table.sort(t) end",
		"table.sort({1, 2, 3}, function() while true do end end)",
	};
	for (size_t i = 0; i < sizeof loops / sizeof *loops; i++) {
		/* luahost_watch is called by the waiting test thread, as the control thread does */
		static struct run r;
		struct buf text = BUF_INIT;
		buf_addf(&text, "local M = {} function M.go() %s end return M", loops[i]);
		on_loop(loop, load, SRC("init", buf_cstr(&text)));
		buf_release(&text);
		memset(&r, 0, sizeof r);
		loop_call(loop, start, &r);
		for (int k = 0; k < 2000 && !__atomic_load_n(&r.ended, __ATOMIC_ACQUIRE); k++) {
			luahost_watch(host);
			nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
		}
		ck_assert_msg(r.ended, "%s", loops[i]);
		ck_assert_int_eq(r.err, ERR_FAILED);
		ck_has(r.message, "budget of 50 ms");
		x = &r;
	}
	ck_has(x->message, stopped);
	ck_assert_uint_ge(stats()->over_budget, 10);
	ck_gives("return 'goes on'", "\"goes on\"");
	ck_gives("local n = 0 for i = 1, 1000 do n = n + i end return n", "500500");
}
END_TEST

START_TEST(what_would_never_end_inside_c_is_refused)
{
	ck_gives("return (''):rep(1 << 60)", "\"\"");
	ck_gives("return ('ab'):rep(3, '-')", "\"ab-ab-ab\"");
	ck_fails("table.insert(setmetatable({}, {__len = function() return 1 << 60 end}), 1, 1)",
		 "init.lua:1: the length of the table, 1152921504606846976, is over 16777216");
	ck_fails("table.remove(setmetatable({}, {__len = function() return 1 << 60 end}), 1)",
		 "init.lua:1: the length of the table, 1152921504606846976, is over 16777216");
	ck_fails("table.move({}, 1, 1 << 60, 2)", "init.lua:1: table.move: more than 16777216 elements");
	ck_fails("table.move({}, math.mininteger, math.maxinteger, 2)",
		 "init.lua:1: table.move: more than 16777216 elements");
	ck_gives(
		"local t = {3, 1, 2} table.insert(t, 1, 9) table.sort(t) table.remove(t) return table.move(t, 1, 3, 2)",
		"[1,1,2,3]");
}
END_TEST

START_TEST(waiting_does_not_count)
{
	short_budget();
	ck_gives("for i = 1, 20 do clock.sleep(5) end return 'ok'", "\"ok\"");
	ck_assert_uint_eq(stats()->over_budget, 0);
}
END_TEST

/* ---- timers ---- */

START_TEST(after_runs_once_and_every_again_and_again)
{
	ck_gives("local n, once = 0, 0\n"
		 "local t = clock.every(2, function() n = n + 1 end)\n"
		 "clock.after(1, function() once = once + 1 end)\n"
		 "while n < 5 do clock.sleep(1) end\n"
		 "local was = t:cancel()\n"
		 "local then_ = n clock.sleep(10)\n"
		 "return once, was, t:cancel(), n == then_",
		 "1 true false true");
	ck_assert_uint_eq(stats()->timers, 0);
}
END_TEST

START_TEST(a_timer_is_not_early)
{
	ck_gives("local from = clock.now_ms() clock.sleep(20) return clock.now_ms() - from >= 20", "true");
}
END_TEST

START_TEST(a_function_that_waits_is_not_called_again_meanwhile)
{
	ck_gives("local inside, most, n = 0, 0, 0\n"
		 "local t = clock.every(1, function() inside = inside + 1 most = math.max(most, inside) n = n + 1\n"
		 "  clock.sleep(5) inside = inside - 1 end)\n"
		 "while n < 4 do clock.sleep(1) end t:cancel() return most",
		 "1");
}
END_TEST

START_TEST(a_timer_may_cancel_itself_and_may_fail)
{
	ck_gives("local n, t = 0 t = clock.every(1, function() n = n + 1 t:cancel() end)\n"
		 "clock.after(1, function() error('in a timer') end)\n"
		 "clock.sleep(20) return n",
		 "1");
	ck_logged("task=timer error=\"init.lua:2: in a timer\"");
	ck_assert_uint_eq(stats()->timers, 0);
}
END_TEST

START_TEST(a_timer_by_name_runs_the_code_of_now)
{
	ck_gives("clock.after(1, 'other.fn') require 'other' while not state.ran do clock.sleep(1) end return true",
		 "true");
	ck_gives("clock.after(1, 'other.gone') clock.sleep(10) return true", "true");
	ck_logged("timer: there is no function other.gone in the code of now");
}
END_TEST

START_TEST(a_collected_handle_does_not_stop_its_timer)
{
	ck_gives("local n = 0 clock.after(5, function() n = 1 end)\n"
		 "for i = 1, 20000 do local garbage = {{}} end clock.sleep(15) return n",
		 "1");
}
END_TEST

START_TEST(timers_are_checked)
{
	ck_fails("clock.after(-1, function() end)", "init.lua:1: bad argument #1 to 'after' (milliseconds from 0)");
	ck_fails("clock.every(0, function() end)", "init.lua:1: bad argument #1 to 'every' (milliseconds from 1)");
	ck_fails("clock.after(0/0, function() end)", "init.lua:1: bad argument #1 to 'after' (milliseconds from 0)");
	ck_has(fails("clock.after(1, 5)"), "function expected, got number");
	ck_refused("init", "clock.after(1, function() end)",
		   "init.lua:1: timers are started by what runs, such as init_service, not while a file is loaded");
}
END_TEST

START_TEST(waiting_is_refused_where_nobody_could_be_woken)
{
	ck_refused("init", "clock.sleep(1)",
		   "init.lua:1: cannot wait here: only what a request, a timer or init_service runs may wait");
	ck_fails("coroutine.wrap(function() clock.sleep(1) end)()",
		 "init.lua:1: init.lua:1: cannot wait inside a coroutine of one's own");
	ck_has(fails("table.sort({1, 2}, function(a, b) clock.sleep(1) return a < b end)"),
	       "cannot wait inside a function that is called by C");
	ck_fails("coroutine.yield(1)", "init.lua:1: coroutine.yield outside of a coroutine of one's own");
}
END_TEST

START_TEST(scripts_have_coroutines_of_their_own)
{
	ck_gives("local co = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end)\n"
		 "return co(1), co(10)",
		 "2 20");
	ck_gives("local co = coroutine.create(function() error('x', 0) end)\n"
		 "local ok, e = coroutine.resume(co) return ok, e, coroutine.status(co), coroutine.close(co)",
		 "false \"x\" \"dead\" false \"x\"");
	ck_gives("local co = coroutine.create(function() coroutine.yield() end) coroutine.resume(co)\n"
		 "return coroutine.close(co), coroutine.status(co), coroutine.isyieldable()",
		 "true \"dead\" true");
}
END_TEST

/* ---- tasks from C ---- */

static uint64_t waiting;

static int l_wait(lua_State *L)
{
	waiting = luatask_wait(L);
	return luatask_yield(L);
}

static int open_wait(lua_State *L)
{
	lua_pushcfunction(L, l_wait);
	return 1;
}

static void add_wait(void *arg)
{
	(void)arg;
	ck_assert_int_eq(luahost_library(host, "wait", open_wait), 0);
}

static int push_values(lua_State *L, void *arg)
{
	lua_pushinteger(L, 42);
	lua_pushstring(L, arg);
	return 2;
}

static int push_nothing_but_an_error(lua_State *L, void *arg)
{
	(void)L, (void)arg;
	return ERR_TIMEOUT;
}

static int push_raise(lua_State *L, void *arg)
{
	(void)arg;
	return luaL_error(L, "while pushing");
}

static void load_go(const char *body)
{
	struct buf text = BUF_INIT;
	buf_addf(&text, "local M = {} function M.go() %s end return M", body);
	load(SRC("init", buf_cstr(&text)));
	buf_release(&text);
	ck_assert_msg(load_err == 0, "%s", why);
}

#define ON_LOOP(name)                                \
	static void name##_on_loop(void *);          \
	START_TEST(name)                             \
	{                                            \
		on_loop(loop, name##_on_loop, NULL); \
	}                                            \
	END_TEST                                     \
	static void name##_on_loop(__attribute__((unused)) void *unused)

ON_LOOP(a_waiting_task_gets_what_it_is_resumed_with)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("local a, b = wait('in') return a, b, wait()");
	start(&x);
	ck_assert(x.task && x.task == waiting && luatask_alive(host, x.task) && !x.ended);
	ck_assert_uint_eq(host ? (luahost_stats(host, &stats_), stats_.tasks) : 0, 1);
	ck_assert(luatask_resume(host, waiting, push_values, "text"));
	ck_assert(!x.ended);
	ck_assert(luatask_resume(host, waiting, NULL, NULL));
	ck_assert_int_eq(x.ended, 1);
	ck_assert_str_eq(x.results, "42 \"text\"");
	ck_assert(!luatask_alive(host, x.task));
	ck_assert(!luatask_resume(host, x.task, NULL, NULL));
	ck_assert(!luatask_cancel(host, x.task));
}

ON_LOOP(an_error_resumes_as_nil_and_its_word)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("return wait()");
	start(&x);
	luatask_resume(host, waiting, push_nothing_but_an_error, NULL);
	ck_assert_str_eq(x.results, "null \"timeout\"");
}

ON_LOOP(what_pushes_may_raise)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("return wait()");
	start(&x);
	luatask_resume(host, waiting, push_raise, NULL);
	ck_assert_int_eq(x.err, ERR_FAILED);
	ck_assert_str_eq(x.message, "init.lua:1: while pushing");
}

static int push_refusal(lua_State *L, struct run *x)
{
	(void)L, (void)x;
	return ERR_BAD_REQUEST;
}

ON_LOOP(a_job_whose_push_refuses_ends_with_its_error)
{
	struct run x = { .push = push_refusal };
	load_go("return 1");
	start(&x);
	ck_assert_int_eq(x.ended, 1);
	ck_assert_int_eq(x.err, ERR_BAD_REQUEST);
	ck_assert_uint_eq(x.task, 0);
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.failed, 0);
}

ON_LOOP(a_cancelled_task_closes_its_variables_and_ends_once)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("local c <close> = setmetatable({}, {__close = function() state.closed = true end}) wait()");
	start(&x);
	ck_assert(luatask_cancel(host, x.task));
	ck_assert_int_eq(x.ended, 1);
	ck_assert_int_eq(x.err, ERR_UNAVAILABLE);
	load_go("return state.closed");
	struct run y = { .ended = 0 };
	start(&y);
	ck_assert_str_eq(y.results, "true");
}

ON_LOOP(an_aborted_task_puts_in_order_what_it_holds_and_waits_no_more)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("local ok, why = pcall(wait)\n"
		"local again, the_same = pcall(wait)\n"
		"return ok, why, again, why == the_same");
	start(&x);
	ck_assert(luatask_abort(host, x.task));
	ck_assert_int_eq(x.ended, 1);
	ck_assert_int_eq(x.err, 0); /* it has caught it */
	ck_assert_str_eq(x.results, "false \"cancelled: nobody waits for this any more\" false true");
	ck_assert(!luatask_abort(host, x.task));
	ck_assert(!luatask_resume(host, waiting, NULL, NULL));
}

ON_LOOP(an_aborted_task_that_lets_it_pass_ends_unavailable_and_is_no_failure)
{
	struct run x = { .ended = 0 };
	add_wait(NULL);
	load_go("wait() return 1");
	start(&x);
	ck_assert(luatask_abort(host, x.task));
	ck_assert_int_eq(x.err, ERR_UNAVAILABLE);
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.failed, 0);
	ck_assert_uint_eq(stats_.cancelled, 1);
	struct run y = { .ended = 0 };
	load_go("wait() return 2");
	start(&y);
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(y.results, "2");
}

ON_LOOP(coroutines_are_pooled)
{
	struct run x[50] = { { .ended = 0 } };
	add_wait(NULL);
	load_go("wait()");
	for (int round = 0; round < 3; round++) {
		uint64_t first = 0;
		for (int i = 0; i < 50; i++) {
			memset(&x[i], 0, sizeof x[i]);
			start(&x[i]);
			if (!i)
				first = x[i].task;
		}
		for (int i = 0; i < 50; i++)
			luatask_resume(host, x[i].task, NULL, NULL);
		ck_assert(!luatask_alive(host, first));
	}
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.coroutines, 50);
	ck_assert_uint_eq(stats_.started, 150);
	ck_assert_uint_eq(stats_.tasks, 0);
}

ON_LOOP(more_tasks_than_allowed_are_refused)
{
	free_host(NULL);
	options.tasks_max = 2;
	new_host(NULL);
	struct run x[3] = { { .ended = 0 } };
	add_wait(NULL);
	load_go("wait()");
	for (int i = 0; i < 3; i++)
		start(&x[i]);
	ck_assert_int_eq(x[2].ended, 1);
	ck_assert_int_eq(x[2].err, ERR_BUSY);
	ck_assert(!x[0].ended && !x[1].ended);
	free_host(NULL);
	ck_assert(x[0].ended == 1 && x[0].err == ERR_UNAVAILABLE && x[1].ended == 1);
	new_host(NULL);
}

static struct run outer, inner;

static int l_nest(lua_State *L)
{
	ck_assert_ptr_eq(luahost_job(L), &outer.job);
	inner = (struct run){ .ended = 0 };
	start(&inner);
	ck_assert_ptr_eq(luahost_job(L), &outer.job);
	ck_assert_ptr_eq(luahost_user(luahost_of(L)), options.user);
	return 0;
}

static int open_nest(lua_State *L)
{
	lua_pushcfunction(L, l_nest);
	return 1;
}

ON_LOOP(a_task_may_start_another)
{
	ck_assert_ptr_null(luahost_job(luahost_state(host)));
	luahost_library(host, "nest", open_nest);
	load_go("if not state.once then state.once = true nest() return 'outer' end return 'inner'");
	outer = (struct run){ .ended = 0 };
	start(&outer);
	ck_assert_str_eq(outer.results, "\"outer\"");
	ck_assert_str_eq(inner.results, "\"inner\"");
}

/* ---- queues ---- */

static struct run seq[20];
static struct luaqueue queue;
static char order[200];

static int push_number(lua_State *L, struct run *x)
{
	luahost_push_hook(L, "go");
	lua_pushinteger(L, x - seq);
	return 1;
}

static void keep_order(struct luajob *job, const struct luaresult *r)
{
	struct run *x = (struct run *)job;
	keep(job, r);
	snprintf(order + strlen(order), sizeof order - strlen(order), "%d%s ", (int)(x - seq), x->err ? "!" : "");
	if (x->results[0] == '"')
		luaqueue_close(&queue), memset(&queue, 0xee, sizeof queue);
}

static int queued(int i)
{
	seq[i] = (struct run){ .push = push_number };
	seq[i].job = (struct luajob){ .name = "queued", .push = push_run, .done = keep_order };
	return luaqueue_push(&queue, &seq[i].job);
}

static void new_queue(const char *body)
{
	struct buf text = BUF_INIT;
	add_wait(NULL);
	buf_addf(&text, "return {go = function(i) %s end}", body);
	load(SRC("init", buf_cstr(&text)));
	buf_release(&text);
	luaqueue_init(&queue, host, 4);
	order[0] = 0;
}

ON_LOOP(a_queue_runs_one_after_the_other_in_order)
{
	new_queue("if i % 2 == 0 then wait() end return i");
	ck_assert(luaqueue_idle(&queue));
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(queued(i), 0);
	ck_assert_str_eq(order, "");
	ck_assert(!luaqueue_idle(&queue));
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(order, "0 1 ");
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(order, "0 1 2 3 ");
	ck_assert(luaqueue_idle(&queue));
	ck_assert_int_eq(queued(5), 0);
	ck_assert_str_eq(order, "0 1 2 3 5 ");
}

ON_LOOP(a_failed_job_does_not_stop_its_queue)
{
	new_queue("if i == 0 then wait() error('x') end if i == 1 then error('y') end return i");
	for (int i = 0; i < 3; i++)
		queued(i);
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(order, "0! 1! 2 ");
}

ON_LOOP(a_full_queue_refuses)
{
	new_queue("wait()");
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(queued(i), 0);
	ck_assert_int_eq(queued(6), ERR_BUSY);
	ck_assert_int_eq(seq[6].ended, 0);
	luaqueue_close(&queue);
	ck_assert_str_eq(order, "0! 1! 2! 3! 4! ");
	ck_assert_int_eq(queued(6), ERR_CLOSED);
}

ON_LOOP(a_queue_may_go_inside_a_jobs_end)
{
	new_queue("if i == 1 then wait() return 'close' end return i");
	for (int i = 0; i < 4; i++)
		queued(i);
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(order, "0 1 2! 3! ");
	new_queue("return 'close'");
	queued(0);
	ck_assert_str_eq(order, "0 ");
}

static void push_again(struct luajob *job, const struct luaresult *r)
{
	int i = (int)((struct run *)job - seq);
	keep(job, r);
	if (i < 18) {
		seq[i + 1] = (struct run){ .push = push_number };
		seq[i + 1].job = (struct luajob){ .name = "queued", .push = push_run, .done = push_again };
		ck_assert_int_eq(luaqueue_push(&queue, &seq[i + 1].job), 0);
	}
}

ON_LOOP(a_job_is_taken_out_of_its_queue)
{
	new_queue("wait() return i");
	queued(0);
	queued(1);
	queued(2);
	ck_assert(luaqueue_remove(&queue, &seq[2].job));
	ck_assert(luaqueue_remove(&queue, &seq[1].job));
	ck_assert(!luaqueue_remove(&queue, &seq[1].job));
	ck_assert(!luaqueue_remove(&queue, &seq[0].job));
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_int_eq(seq[0].ended + seq[1].ended + seq[2].ended, 1);
	ck_assert(luaqueue_idle(&queue));
}

ON_LOOP(a_jobs_end_may_push_the_next)
{
	new_queue("return i");
	seq[0] = (struct run){ .push = push_number };
	seq[0].job = (struct luajob){ .name = "queued", .push = push_run, .done = push_again };
	luaqueue_push(&queue, &seq[0].job);
	ck_assert_int_eq(seq[18].ended, 1);
}

/* ---- methods and reload ---- */

static const struct msg_method *method(const char *full)
{
	const struct msg_method *m = schema_method(schema, full, strlen(full));
	ck_assert_ptr_nonnull(m);
	return m;
}

ON_LOOP(methods_are_found_in_their_files)
{
	load(SRC("shopHandler", "local H = {} function H.buy() return 'bought' end H.items = 5 return H",
		 "sampleRemote", "return {get = function() return 'got' end}"));
	ck_assert_msg(load_err == 0, "%s", why);
	ck_assert(luahost_has_method(host, method("sample.shopHandler.buy")));
	ck_assert(luahost_has_method(host, method("sample.sampleRemote.get")));
	ck_assert(!luahost_has_method(host, method("sample.shopHandler.items")));
	ck_assert(!luahost_has_method(host, method("sample.shopHandler.echo")));
	ck_assert(!luahost_has_hook(host, "init_service"));
	struct run x = { .method = method("sample.shopHandler.buy") };
	start(&x);
	ck_assert_str_eq(x.results, "\"bought\"");
}

ON_LOOP(a_reload_keeps_the_state_and_running_tasks_finish_on_the_old_code)
{
	struct run x = { .ended = 0 }, y = { .ended = 0 };
	struct luasrc *next = SRC("init", "return {go = function() state.n = state.n + 1 return 'new', state.n end}");
	add_wait(NULL);
	load_go("state.n = 1 wait() return 'old', state.n");
	start(&x);
	char before[20];
	snprintf(before, sizeof before, "%s", luahost_version(host));
	ck_assert_int_eq(luahost_prepare(host, next, why, sizeof why), 0);
	ck_assert_str_eq(luahost_version(host), before);
	luahost_switch(host);
	ck_assert_str_ne(luahost_version(host), before);
	ck_assert_str_eq(luahost_version(host), luasrc_version(next));
	start(&y);
	ck_assert_str_eq(y.results, "\"new\" 2");
	lua_gc(luahost_state(host), LUA_GCCOLLECT);
	luatask_resume(host, waiting, NULL, NULL);
	ck_assert_str_eq(x.results, "\"old\" 2");
	luasrc_unref(next);
}

ON_LOOP(broken_code_changes_nothing_and_is_named)
{
	static const char *const broken[] = { "return {", "return {go = function() return nothing.x end",
					      "error('at the top')", "return {} + 1" };
	load_go("return 'good'");
	for (size_t i = 0; i < 4; i++) {
		struct luasrc *src = SRC("init", broken[i]);
		ck_assert_int_eq(luahost_prepare(host, src, why, sizeof why), ERR_FAILED);
		ck_assert_int_eq(strncmp(why, "init.lua:1: ", 12), 0);
		luasrc_unref(src);
		luahost_switch(host); /* nothing is prepared */
		struct run x = { .ended = 0 };
		start(&x);
		ck_assert_str_eq(x.results, "\"good\"");
	}
	luahost_stats(host, &stats_);
	ck_assert_uint_eq(stats_.reloads_refused, 4);
	ck_assert_uint_eq(stats_.reloads, 0);
}

ON_LOOP(a_file_that_nobody_requires_yet_is_checked_too)
{
	load(SRC("init", "return {}", "later", "local x ="));
	ck_assert_int_eq(load_err, ERR_FAILED);
	ck_assert_int_eq(strncmp(why, "later.lua:1:", 12), 0);
	load(SRC("xHandler", "local t = {}"));
	ck_assert_str_eq(why, "xHandler.lua: the file must return its table of functions");
}

ON_LOOP(what_was_prepared_can_be_dropped)
{
	struct luasrc *src = SRC("init", "return {go = function() return 'new' end}");
	load_go("return 'old'");
	luahost_prepare(host, src, why, sizeof why);
	luahost_abort(host);
	luahost_switch(host);
	luasrc_unref(src);
	struct run x = { .ended = 0 };
	start(&x);
	ck_assert_str_eq(x.results, "\"old\"");
}

START_TEST(an_endless_loop_at_the_top_of_a_file_is_stopped_too)
{
	short_budget();
	load_err = 1;
	loop_call(loop, load, SRC("init", "while true do end"));
	for (int k = 0; k < 2000 && __atomic_load_n(&load_err, __ATOMIC_ACQUIRE) == 1; k++) {
		luahost_watch(host);
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	ck_assert_int_eq(load_err, ERR_FAILED);
	ck_has(why, "init.lua:1: stopped");
}
END_TEST

START_TEST(sources_are_read_from_folders)
{
	char dir[100], path[200], error[300];
	snprintf(dir, sizeof dir, "build/test_luahost-%d", (int)getpid());
	snprintf(path, sizeof path, "%s/lib", dir);
	ck_assert_int_eq(env_dir_make(env, path), 0);
	snprintf(path, sizeof path, "%s/aHandler.lua", dir);
	ck_assert_int_eq(env_file_store(env, path, "return {}", 9, ENV_CREATE), 0);
	snprintf(path, sizeof path, "%s/lib/grid.lua", dir);
	ck_assert_int_eq(env_file_store(env, path, "return 5", 8, ENV_CREATE), 0);
	struct luasrc *src = NULL;
	ck_assert_int_eq(luasrc_read(env, (const char *const[]){ dir, NULL }, error, sizeof error, &src), 0);
	ck_assert_uint_eq(luasrc_files(src), 2);
	ck_assert_str_eq(luasrc_at(src, 0)->name, "aHandler");
	ck_assert_str_eq(luasrc_find(src, "lib.grid")->text, "return 5");
	ck_assert_uint_eq(strlen(luasrc_version(src)), 8);
	ck_assert_ptr_null(luasrc_find(src, "grid"));
	luasrc_unref(src);
	ck_assert_int_eq(luasrc_read(env, (const char *const[]){ "build/no such folder", NULL }, error, sizeof error,
				     &src),
			 ERR_NOT_FOUND);
	ck_has(error, "build/no such folder");
	env_file_remove(env, path);
	snprintf(path, sizeof path, "%s/aHandler.lua", dir);
	env_file_remove(env, path);
	snprintf(path, sizeof path, "rm -r %s", dir);
	ck_assert_int_eq(system(path), 0);
}
END_TEST

START_TEST(figures_become_metrics)
{
	struct buf text = BUF_INIT;
	on_loop(loop, free_host, NULL);
	options.metrics = metrics_new("test");
	on_loop(loop, new_host, NULL);
	ck_gives("clock.sleep(1100) return 1", "1"); /* they are written once a second */
	metrics_prometheus(options.metrics, &text);
	ck_has(buf_cstr(&text), "loquat_lua_tasks_total");
	ck_has(buf_cstr(&text), "loquat_lua_memory_max_bytes{instance=\"test\"} 268435456");
	buf_release(&text);
	on_loop(loop, free_host, NULL);
	metrics_free(options.metrics);
	options.metrics = NULL;
	on_loop(loop, new_host, NULL);
}
END_TEST

START_TEST(collections_are_counted)
{
	uint64_t before = stats()->gc_cycles;
	gives("for i = 1, 300000 do local t = {i} end");
	ck_assert_uint_gt(stats()->gc_cycles, before);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("luahost");
	TCase *c = tcase_create("luahost");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, scripts_compute);
	tcase_add_test(c, there_is_no_way_out_of_the_state);
	tcase_add_test(c, globals_by_accident_are_errors_with_file_and_line);
	tcase_add_test(c, values_are_shown_without_addresses);
	tcase_add_test(c, time_comes_from_the_environment);
	tcase_add_test(c, require_finds_files_of_the_service_only_and_once);
	tcase_add_test(c, log_lines_have_sorted_pairs_and_cannot_be_forged);
	tcase_add_test(c, an_error_is_logged_with_its_traceback_and_answered_short);
	tcase_add_test(c, errors_that_are_no_text_are_failures_too);
	tcase_add_test(c, pcall_works_across_waiting);
	tcase_add_test(c, memory_is_bounded_and_running_out_of_it_harms_one_task_only);
	if (!SIGNALS_WAIT)
		tcase_add_test(c, an_endless_loop_is_stopped);
	tcase_add_test(c, what_would_never_end_inside_c_is_refused);
	tcase_add_test(c, waiting_does_not_count);
	tcase_add_test(c, after_runs_once_and_every_again_and_again);
	tcase_add_test(c, a_timer_is_not_early);
	tcase_add_test(c, a_function_that_waits_is_not_called_again_meanwhile);
	tcase_add_test(c, a_timer_may_cancel_itself_and_may_fail);
	tcase_add_test(c, a_timer_by_name_runs_the_code_of_now);
	tcase_add_test(c, a_collected_handle_does_not_stop_its_timer);
	tcase_add_test(c, timers_are_checked);
	tcase_add_test(c, waiting_is_refused_where_nobody_could_be_woken);
	tcase_add_test(c, scripts_have_coroutines_of_their_own);
	tcase_add_test(c, a_waiting_task_gets_what_it_is_resumed_with);
	tcase_add_test(c, an_error_resumes_as_nil_and_its_word);
	tcase_add_test(c, what_pushes_may_raise);
	tcase_add_test(c, a_job_whose_push_refuses_ends_with_its_error);
	tcase_add_test(c, a_cancelled_task_closes_its_variables_and_ends_once);
	tcase_add_test(c, an_aborted_task_puts_in_order_what_it_holds_and_waits_no_more);
	tcase_add_test(c, an_aborted_task_that_lets_it_pass_ends_unavailable_and_is_no_failure);
	tcase_add_test(c, coroutines_are_pooled);
	tcase_add_test(c, more_tasks_than_allowed_are_refused);
	tcase_add_test(c, a_task_may_start_another);
	tcase_add_test(c, a_queue_runs_one_after_the_other_in_order);
	tcase_add_test(c, a_failed_job_does_not_stop_its_queue);
	tcase_add_test(c, a_full_queue_refuses);
	tcase_add_test(c, a_queue_may_go_inside_a_jobs_end);
	tcase_add_test(c, a_job_is_taken_out_of_its_queue);
	tcase_add_test(c, a_jobs_end_may_push_the_next);
	tcase_add_test(c, methods_are_found_in_their_files);
	tcase_add_test(c, a_reload_keeps_the_state_and_running_tasks_finish_on_the_old_code);
	tcase_add_test(c, broken_code_changes_nothing_and_is_named);
	tcase_add_test(c, a_file_that_nobody_requires_yet_is_checked_too);
	tcase_add_test(c, what_was_prepared_can_be_dropped);
	if (!SIGNALS_WAIT)
		tcase_add_test(c, an_endless_loop_at_the_top_of_a_file_is_stopped_too);
	tcase_add_test(c, sources_are_read_from_folders);
	tcase_add_test(c, figures_become_metrics);
	tcase_add_test(c, collections_are_counted);
	suite_add_tcase(s, c);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
