#include "tests/support/script.h"
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/lua_json.h"
#include "tests/support/sample.h"

struct env *env;
struct loop *loop;
struct log *log_;
struct schema *schema;
struct luahost *host;
struct luahost_options options;
char log_path[100], why[512];

void keep(struct luajob *job, const struct luaresult *r)
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

int push_run(lua_State *L, struct luajob *job)
{
	struct run *x = (struct run *)job;
	if (x->push)
		return x->push(L, x);
	if (x->method ? !luahost_push_method(L, x->method) : !luahost_push_hook(L, "go"))
		return ERR_NOT_FOUND;
	return 0;
}

void start(void *arg)
{
	struct run *x = arg;
	x->job = (struct luajob){ .name = "test.go", .push = push_run, .done = keep };
	x->task = luatask_start(host, &x->job);
}

void wait_for(const int *ended)
{
	for (int i = 0; i < 600000; i++) {
		if (__atomic_load_n(ended, __ATOMIC_ACQUIRE))
			return;
		on_loop_turns(loop);
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		if (i % 20 == 0)
			luahost_watch(host);
	}
	ck_abort_msg("it did not end");
}

void new_host(void *arg)
{
	(void)arg;
	ck_assert_int_eq(luahost_new(&options, &host), 0);
}

void free_host(void *arg)
{
	(void)arg;
	luahost_free(host);
	host = NULL;
}

void setup(void)
{
	env = env_new();
	loop = on_loop_new(env, "lua");
	schema = sample_schema();
	snprintf(log_path, sizeof log_path, "build/test_luahost-%d.log", (int)getpid());
	ck_assert_int_eq(log_open(env, "test", log_path, LOG_DEBUG, &log_), 0);
	options = (struct luahost_options){ .loop = loop, .log = log_, .schema = schema };
	on_loop(loop, new_host, NULL);
}

void teardown(void)
{
	on_loop(loop, free_host, NULL);
	on_loop_free(loop);
	log_close(log_);
	unlink(log_path);
	schema_free(schema);
	env_free(env);
}

/* The log thread writes a little later. */
bool is_logged(const char *part)
{
	bool found = false;
	for (int i = 0; i < 60000 && !found; i++) {
		size_t n;
		char *text = sample_read(log_path, &n);
		found = strstr(text, part) != NULL;
		free(text);
		if (!found)
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return found;
}

int load_err;
void load(void *src)
{
	int err = luahost_load(host, src, why, sizeof why);
	luasrc_unref(src);
	__atomic_store_n(&load_err, err, __ATOMIC_RELEASE); /* pairs with the load of who waits for it */
}

/* Loads init.lua with M.go = function() body end, runs it and waits for its end. */
struct run *script(const char *body)
{
	static struct run x;
	struct buf text = BUF_INIT;
	buf_addf(&text, "local M = {} function M.go() %s end return M", body);
	on_loop(loop, load,
		SRC("init", buf_cstr(&text), "other",
		    "return {n = 7, fn = function(a, b) state.ran = a and a .. b.n or true end}"));
	buf_release(&text);
	ck_assert_msg(load_err == 0, "%s", why);
	memset(&x, 0, sizeof x);
	on_loop(loop, start, &x);
	wait_for(&x.ended);
	return &x;
}

const char *gives(const char *body)
{
	struct run *x = script(body);
	ck_assert_msg(x->err == 0, "%s", x->message);
	return x->results;
}

const char *fails(const char *body)
{
	struct run *x = script(body);
	ck_assert_int_eq(x->err, ERR_FAILED);
	return x->message;
}

const char *refused(const char *name, const char *text)
{
	on_loop(loop, load, SRC(name, text));
	ck_assert_int_eq(load_err, ERR_FAILED);
	return why;
}

struct luahost_stats stats_;
static void read_stats(void *arg)
{
	(void)arg;
	luahost_stats(host, &stats_);
}

struct luahost_stats *stats(void)
{
	on_loop(loop, read_stats, NULL);
	return &stats_;
}

void load_go(const char *body)
{
	struct buf text = BUF_INIT;
	buf_addf(&text, "local M = {} function M.go() %s end return M", body);
	load(SRC("init", buf_cstr(&text)));
	buf_release(&text);
	ck_assert_msg(load_err == 0, "%s", why);
}

uint64_t waiting;

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

void add_wait(void *arg)
{
	(void)arg;
	ck_assert_int_eq(luahost_library(host, "wait", open_wait), 0);
}

void few_tasks(unsigned n)
{
	on_loop(loop, free_host, NULL);
	options.tasks_max = n;
	on_loop(loop, new_host, NULL);
}

void short_budget(void)
{
	on_loop(loop, free_host, NULL);
	options.budget_ms = 50;
	on_loop(loop, new_host, NULL);
}
