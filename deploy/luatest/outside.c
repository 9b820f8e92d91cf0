/* What lies outside of the worker: the linker puts these in place of the functions of their names (the Makefile lists them). */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/dbread.h"
#include "common/err.h"
#include "common/log_text.h"
#include "deploy/luatest/luatest.h"
#include "rpc/keys.h"

/* ---- time, chance, threads --------------------------------------------------------------------------------- */

uint64_t __wrap_env_mono_ns(struct env *env);
uint64_t __real_env_mono_ns(struct env *env);
uint64_t __wrap_env_mono_ns(struct env *env)
{
	return luatest_world ? luatest_world->now_ns : __real_env_mono_ns(env);
}

uint64_t __wrap_env_wall_us(struct env *env);
uint64_t __real_env_wall_us(struct env *env);
uint64_t __wrap_env_wall_us(struct env *env)
{
	return luatest_world ? luatest_world->wall_us : __real_env_wall_us(env);
}

void __wrap_env_random(struct env *env, void *out, size_t n);
void __wrap_env_random(struct env *env, void *out, size_t n)
{
	struct world outside = { .rng = 1 };

	(void)env;
	for (size_t i = 0; i < n; i++)
		((uint8_t *)out)[i] = (uint8_t)(world_random(luatest_world ? luatest_world : &outside) >> 24);
}

bool __wrap_env_loop_is_current(struct env_loop *loop);
bool __wrap_env_loop_is_current(struct env_loop *loop)
{
	(void)loop;
	return true;
}

/* Instructions are counted then: an endless loop ends at the same place in each run. */
int __wrap_env_loop_interrupt(struct env_loop *loop, void (*fn)(void *arg), void *arg);
int __wrap_env_loop_interrupt(struct env_loop *loop, void (*fn)(void *arg), void *arg)
{
	(void)loop, (void)fn, (void)arg;
	return ERR_UNAVAILABLE;
}

int __wrap_luahost_new(const struct luahost_options *o, struct luahost **out);
int __real_luahost_new(const struct luahost_options *o, struct luahost **out);
int __wrap_luahost_new(const struct luahost_options *o, struct luahost **out)
{
	struct luahost_options mine = *o;

	mine.known = luatest_world && luatest_world->t->proven;
	int err = __real_luahost_new(&mine, out);

	if (err == 0 && luatest_world && luatest_world->t->cover)
		cover_hook(luatest_world->t->cover, luahost_state(*out));
	return err;
}

/* ---- files are compiled once, not for each test ------------------------------------------------------------ */

static int add_bytes(lua_State *L, const void *p, size_t n, void *arg)
{
	(void)L;
	buf_add(arg, p, n);
	return 0;
}

int __wrap_luaL_loadbufferx(lua_State *L, const char *text, size_t n, const char *name, const char *mode);
int __real_luaL_loadbufferx(lua_State *L, const char *text, size_t n, const char *name, const char *mode);
int __wrap_luaL_loadbufferx(lua_State *L, const char *text, size_t n, const char *name, const char *mode)
{
	struct compiled *c = luatest_world ? tester_compiled(luatest_world->t, text) : NULL;

	if (c && c->code.len)
		return __real_luaL_loadbufferx(L, c->code.data, c->code.len, name, "b");
	int status = __real_luaL_loadbufferx(L, text, n, name, mode);

	if (c && status == LUA_OK)
		lua_dump(L, add_bytes, &c->code, 0);
	return status;
}

void __wrap_service_fail(struct service *s, const char *fmt, ...);
void __wrap_service_fail(struct service *s, const char *fmt, ...)
{
	va_list args;

	(void)s;
	va_start(args, fmt);
	vsnprintf(luatest_world->fail, sizeof luatest_world->fail, fmt, args);
	va_end(args);
}

/* The same in each run, so that tests can sign with them. */
int __wrap_key_load(struct env *env, const char *folder, const char *name, char key[KEY_HEX + 1], char *error,
		    size_t error_size);
int __wrap_key_load(struct env *env, const char *folder, const char *name, char key[KEY_HEX + 1], char *error,
		    size_t error_size)
{
	(void)env, (void)folder, (void)error, (void)error_size;
	for (int i = 0; i < 4; i++)
		snprintf(key + 16 * i, 17, "%016llx",
			 (unsigned long long)(route_hash(name, strlen(name)) + (unsigned)i));
	return 0;
}

/* ---- the log: shown when the test fails -------------------------------------------------------------------- */

enum log_level __wrap_log_level_get(const struct log *log);
enum log_level __wrap_log_level_get(const struct log *log)
{
	(void)log;
	return LOG_DEBUG;
}

void __wrap_log_words(struct log *log, enum log_level level, const char *event, const char *fmt, bool fixed,
		      const uint64_t *values);
void __wrap_log_words(struct log *log, enum log_level level, const char *event, const char *fmt, bool fixed,
		      const uint64_t *values)
{
	static const char *const words[] = { "debug", "info", "warn", "error" };
	struct log_format format;
	struct log_strings strings;
	uint64_t packed[2 * LOG_SPECS_MAX + LOG_STRINGS_MAX / sizeof(uint64_t)];
	char text[LOG_FORMAT_ROOM];

	(void)log, (void)fixed;
	if (!luatest_world || luatest_world->log.len > 64 * 1024)
		return;
	log_format_parse(&format, fmt);
	log_strings_take(&strings, &format, values);
	log_pack((char *)packed, &format, values, &strings);
	*log_put_format(text, &format, (char *)packed) = 0;
	buf_addf(&luatest_world->log, "%s %s %.*s\n", words[level], event, LOG_LINE_MAX, text);
}

/* ---- calls ------------------------------------------------------------------------------------------------- */

uint64_t __wrap_rpc_trace(struct worker *w);
uint64_t __wrap_rpc_trace(struct worker *w)
{
	(void)w;
	return ++luatest_world->client.trace;
}

void __wrap_rpc_handle(struct worker *w, const struct msg_method *m, rpc_handler *fn, void *arg);
void __wrap_rpc_handle(struct worker *w, const struct msg_method *m, rpc_handler *fn, void *arg)
{
	(void)w;
	luatest_world->handler[m->index] = (struct handler){ fn, arg };
}

void __wrap_rpc_began(struct worker *w, uint64_t handle);
void __wrap_rpc_began(struct worker *w, uint64_t handle)
{
	(void)w, (void)handle;
}

uint64_t __wrap_rpc_call(struct worker *w, const struct rpc_call *o);
uint64_t __wrap_rpc_call(struct worker *w, const struct rpc_call *o)
{
	struct world *x = luatest_world;
	struct call *c = call_new(x, o->method);
	uint32_t timeout_ms = o->timeout_ms ? o->timeout_ms : w->client->timeout_ms;

	buf_add(&c->key, o->to.key.p, o->to.key.n);
	buf_add(&c->body, o->body.p, o->body.n);
	buf_add(&c->once, o->once.p, o->once.n);
	c->json = o->json;
	const struct luajob *job = luahost_job(world_state(x));

	c->trace = o->trace ? o->trace : job ? job->trace : 0;
	c->send = !o->on_answer;
	c->on_answer = o->on_answer;
	c->arg = o->arg;
	c->deadline_ms = x->loop->now_ms + timeout_ms;
	if (job && call_of_fake(job)) /* whose remote the fake stands for */
		snprintf(c->from, sizeof c->from, "%.29s-1", call_of_fake(job)->method->service);
	else
		snprintf(c->from, sizeof c->from, "%s", w->service->id);
	if (o->to.instance) /* whom it was for stands in the key's place */
		buf_addstr(&c->key, o->to.key.n ? "" : o->to.instance);
	call_deliver(c);
	return c->send ? 0 : c->handle;
}

bool __wrap_rpc_cancel(struct worker *w, uint64_t handle);
bool __wrap_rpc_cancel(struct worker *w, uint64_t handle)
{
	struct call *c = call_find(luatest_world, handle);

	if (!c)
		return false;
	c->done = true;
	loop_timer_stop(w->loop, &c->timeout);
	return true;
}

bool __wrap_rpc_on_gone(struct worker *w, uint64_t handle, rpc_gone *fn, void *arg);
bool __wrap_rpc_on_gone(struct worker *w, uint64_t handle, rpc_gone *fn, void *arg)
{
	struct call *c = call_find(luatest_world, handle);

	(void)w;
	if (!c)
		return false;
	c->gone = fn;
	c->gone_arg = arg;
	return true;
}

void __wrap_rpc_answer_ok(struct worker *w, uint64_t handle, struct span body, const struct rpc_attr *attrs,
			  unsigned n);
void __wrap_rpc_answer_ok(struct worker *w, uint64_t handle, struct span body, const struct rpc_attr *attrs, unsigned n)
{
	struct call *c = call_find(luatest_world, handle);

	(void)w;
	if (!c)
		return;
	calls_attrs(c, attrs, n);
	call_end(c, 0, EFFECT_DONE, "", body);
}

void __wrap_rpc_answer_err(struct worker *w, uint64_t handle, int err, enum effect effect, const char *message);
void __wrap_rpc_answer_err(struct worker *w, uint64_t handle, int err, enum effect effect, const char *message)
{
	struct call *c = call_find(luatest_world, handle);

	(void)w;
	if (c)
		call_end(c, err_public(err), effect, message, (struct span){ "", 0 });
}

/* ---- records and reads ------------------------------------------------------------------------------------- */

int __wrap_sqllog_append(struct sqllog *l, struct sql_record *r, uint64_t *lsn);
int __wrap_sqllog_append(struct sqllog *l, struct sql_record *r, uint64_t *lsn)
{
	(void)l;
	return store_append(luatest_world, r, lsn);
}

uint64_t __wrap_sqllog_lsn(const struct sqllog *l);
uint64_t __wrap_sqllog_lsn(const struct sqllog *l)
{
	(void)l;
	return luatest_world->lsn;
}

uint64_t __wrap_sqllog_durable_lsn(const struct sqllog *l);
uint64_t __wrap_sqllog_durable_lsn(const struct sqllog *l)
{
	(void)l;
	return luatest_world->lsn;
}

static void on_landed(struct world *x, void *arg)
{
	struct sqllog_waiter *w = arg;

	w->fn(w, x->record_err == ERR_UNKNOWN ? ERR_UNKNOWN : 0);
}

void __wrap_sqllog_wait(struct sqllog *l, struct loop *loop, struct sqllog_waiter *w, uint64_t lsn, bool durable);
void __wrap_sqllog_wait(struct sqllog *l, struct loop *loop, struct sqllog_waiter *w, uint64_t lsn, bool durable)
{
	(void)l, (void)loop, (void)lsn, (void)durable;
	world_event(luatest_world, on_landed, w);
}

struct dbread *__wrap_dbread_new(struct loop *loop, struct log *log, const struct dbread_options *o);
struct dbread *__wrap_dbread_new(struct loop *loop, struct log *log, const struct dbread_options *o)
{
	(void)log, (void)o;
	return (struct dbread *)loop; /* never looked at */
}

void __wrap_dbread_free(struct dbread *d);
void __wrap_dbread_free(struct dbread *d)
{
	(void)d;
}

void __wrap_service_database(struct service *s, struct env_db_options *out);
void __wrap_service_database(struct service *s, struct env_db_options *out)
{
	(void)s, (void)out;
}

struct reading {
	struct buf sql;
	void (*on_done)(void *arg, const struct env_db_result *r);
	void *arg;
};

static void on_read(struct world *x, void *arg)
{
	struct reading *q = arg;
	struct result r = { .rows = 0 };
	struct env_db_result answer = { .err = ERR_UNAVAILABLE, .message = "the database is away" };

	if (!x->db_away) {
		unsigned code = store_run(x, q->sql.data, q->sql.len, &r);

		answer = (struct env_db_result){
			.err = code ? ERR_FAILED : 0,
			.code = code,
			.message = code ? r.error.message : NULL,
			.rows = r.rows,
			.columns = r.columns,
			.cells = r.cells,
			.cell_bytes = r.cell_bytes,
			.column = r.column,
		};
	}
	q->on_done(q->arg, &answer);
	arena_release(&r.arena);
	buf_release(&q->sql);
	free(q);
}

void __wrap_dbread_query(struct dbread *d, const char *sql, size_t n, const char *key, uint32_t timeout_ms,
			 void (*on_done)(void *arg, const struct env_db_result *r), void *arg);
void __wrap_dbread_query(struct dbread *d, const char *sql, size_t n, const char *key, uint32_t timeout_ms,
			 void (*on_done)(void *arg, const struct env_db_result *r), void *arg)
{
	struct reading *q = calloc(1, sizeof *q);

	(void)d, (void)key, (void)timeout_ms;
	if (!q)
		abort();
	buf_add(&q->sql, sql, n);
	q->on_done = on_done;
	q->arg = arg;
	world_event(luatest_world, on_read, q);
}
