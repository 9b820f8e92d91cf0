#include <lauxlib.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "rpc/app_private.h"

/*
 * The library cache: this worker's cache for scripts. A value is kept as bytes: a text as it is behind an 's', anything else
 * as its JSON behind a 'j'; so what is got is a copy, and its size is known.
 *
 * In a task that has collected changes a put or delete is one of them: it takes effect with the record, and the entry is
 * dirty until that is durable.
 */
enum { TEXT = 's', JSON = 'j' };
#define ACTIVE_MS 1000  /* figures are this old at most while the cache is used */
#define IDLE_MS   10000 /* and this old while entries only expire */

/* ---- figures ----------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *help;
	enum metric_type type;
	size_t offset;
} rows[APP_CACHE_METRICS] = {
	{ "loquat_cache_entries", "Entries in the cache.", METRIC_GAUGE, offsetof(struct cache_stats, entries) },
	{ "loquat_cache_bytes", "Bytes of it in use.", METRIC_GAUGE, offsetof(struct cache_stats, bytes) },
	{ "loquat_cache_bytes_max", "Its bound.", METRIC_GAUGE, offsetof(struct cache_stats, bytes_max) },
	{ "loquat_cache_hits_total", "Gets that found a value.", METRIC_COUNTER, offsetof(struct cache_stats, hits) },
	{ "loquat_cache_misses_total", "Gets that found none.", METRIC_COUNTER, offsetof(struct cache_stats, misses) },
	{ "loquat_cache_puts_total", "Values put in.", METRIC_COUNTER, offsetof(struct cache_stats, puts) },
	{ "loquat_cache_evictions_total", "Entries that made room for others.", METRIC_COUNTER,
	  offsetof(struct cache_stats, evicted) },
	{ "loquat_cache_expired_total", "Entries whose time was over.", METRIC_COUNTER,
	  offsetof(struct cache_stats, expired) },
	{ "loquat_cache_refused_total", "Puts too large, or without room beside what is dirty.", METRIC_COUNTER,
	  offsetof(struct cache_stats, refused) },
};

static void write_figures(struct app *a)
{
	struct cache_stats s;

	cache_stats(a->cache, &s);
	for (size_t i = 0; i < APP_CACHE_METRICS; i++)
		metric_set(a->cache_metric[i], *(const int64_t *)((const char *)&s + rows[i].offset));
}

/* What is durable may be evicted. */
static void tell_landed(struct app *a)
{
	if (a->cache_lsn)
		cache_landed(a->cache, sqllog_durable_lsn(a->worker->service->sqllog));
}

static void on_tick(struct timer *t, uint64_t now_ms)
{
	struct app *a = (struct app *)((char *)t - offsetof(struct app, cache_tick));
	struct cache_stats s;

	(void)now_ms;
	tell_landed(a);
	write_figures(a);
	cache_stats(a->cache, &s);
	if (s.entries)
		loop_timer(a->worker->loop, t, IDLE_MS);
}

static void used(struct app *a)
{
	uint64_t soon = a->worker->loop->now_ms + ACTIVE_MS;

	if (!timer_running(&a->cache_tick) || a->cache_tick.due_ms > soon + 1)
		loop_timer(a->worker->loop, &a->cache_tick, ACTIVE_MS);
}

/* ---- changes ------------------------------------------------------------------------------------------------------ */

/* Made when it is needed: most services put nothing in. */
static struct cache *cache_of(struct app *a)
{
	struct worker *w = a->worker;
	char path[64];

	if (a->cache)
		return a->cache;
	snprintf(path, sizeof path, "%s.cache_mb", w->service->def->name);
	a->cache = cache_new(w->loop->env, (size_t)config_int(w->service->config, path, 16) << 20, w->loop->wheel);
	return a->cache;
}

static int put(struct app *a, struct span key, struct span value, lua_Integer lifetime_ms, uint64_t lsn)
{
	struct loop *loop = a->worker->loop;
	struct cache_terms terms = { .lsn = lsn };

	if (!cache_of(a))
		return ERR_NOMEM;
	if (lifetime_ms) /* rounded up as loop_timer does: never early */
		terms.due_ms = (loop->now_ns + 999999) / 1000000 + (uint64_t)lifetime_ms;
	if (lsn > a->cache_lsn)
		a->cache_lsn = lsn;
	tell_landed(a);
	used(a);
	return cache_put(a->cache, key.p, key.n, value.p, value.n, &terms);
}

static void drop(struct app *a, struct span key)
{
	if (!a->cache)
		return;
	used(a);
	cache_delete(a->cache, key.p, key.n);
}

static struct span text_at(lua_State *L, int index)
{
	struct span s;

	s.p = lua_tolstring(L, index, &s.n);
	return s;
}

void app_cache_apply(lua_State *L, struct app_job *j, int lifetime)
{
	struct span key = text_at(L, lifetime + 1);

	if (lua_isnil(L, lifetime + 2))
		drop(j->app, key);
	else /* what finds no room is a miss from now on, and no older value is left */
		put(j->app, key, text_at(L, lifetime + 2), lua_tointeger(L, lifetime), j->lsn);
}

void app_cache_lost(struct app *a)
{
	if (!a->cache_lsn)
		return;
	tell_landed(a);
	size_t n = cache_drop_dirty(a->cache);

	a->cache_lsn = 0;
	log_warn(a->worker->service->log, "cache.lost", "entries=%zu why=%s", n,
		 "their changes could not be made durable");
}

/* ---- the library ----------------------------------------------------------------------------------------------------- */

static struct span check_key(lua_State *L)
{
	size_t n;

	luaL_checklstring(L, 1, &n);
	luaL_argcheck(L, n >= 1 && n <= CACHE_KEY_MAX, 1, "a key has 1 to 127 bytes");
	return text_at(L, 1);
}

/* The job whose changes this one joins, or NULL: it takes effect at once. */
static struct app_job *collecting(lua_State *L)
{
	struct app_job *j = app_job_of(L);

	return j && j->recording ? j : NULL;
}

/* cache.get(key) -> value | nil */
static int l_get(lua_State *L)
{
	struct app *a = app_of(L);
	struct span key = check_key(L);
	char why[LUA_WHY_MAX];
	const char *value;
	size_t n;

	if (a->cache)
		used(a);
	value = a->cache ? cache_get(a->cache, key.p, key.n, &n) : NULL;
	if (!value)
		lua_pushnil(L);
	else if (*value == TEXT)
		lua_pushlstring(L, value + 1, n - 1);
	else if (lua_json_decode(L, NULL, value + 1, n - 1, why, sizeof why) < 0)
		return luaL_error(L, "cache.get: %s", why);
	return 1;
}

/* The bytes that are kept of the value at index 2. */
static void pack(lua_State *L, struct buf *b)
{
	char why[LUA_WHY_MAX];
	bool text = lua_type(L, 2) == LUA_TSTRING;

	buf_clear(b);
	buf_addch(b, text ? TEXT : JSON);
	if (text)
		buf_add(b, text_at(L, 2).p, text_at(L, 2).n);
	else if (lua_json_encode(L, 2, NULL, b, why, sizeof why) < 0)
		app_raise(L, "cache.put: %s", why);
}

/* cache.put(key, value, seconds) -> true | nil, error, message, effect */
static int l_put(lua_State *L)
{
	app_check_runs(L);
	struct app *a = app_of(L);
	struct app_job *j = collecting(L);
	struct span key = check_key(L);
	lua_Number seconds = luaL_optnumber(L, 3, 0);
	lua_Integer lifetime_ms;

	luaL_argcheck(L, !lua_isnoneornil(L, 2), 2, "a value; cache.delete forgets one");
	luaL_argcheck(L, seconds >= 0 && seconds <= 1e9, 3, "seconds from 0, which is for ever, to a billion");
	lifetime_ms = seconds > 0 && seconds < 0.001 ? 1 : (lua_Integer)(seconds * 1000);
	pack(L, &a->text);
	if (j) {
		lua_settop(L, 1);
		lua_pushlstring(L, a->text.data, a->text.len);
		lua_pushinteger(L, lifetime_ms);
		lua_insert(L, 1);
		app_stage(L, j);
		lua_pushboolean(L, 1);
		return 1;
	}
	int err = put(a, key, span_of(a->text.data, a->text.len), lifetime_ms, 0);

	const char *why = err == ERR_BAD_REQUEST ? "the value is too large" : err_text(err);

	if (err < 0)
		return app_push_error(L, err, span_of(why, strlen(why)), EFFECT_NONE);
	lua_pushboolean(L, 1);
	return 1;
}

/* cache.delete(key) */
static int l_delete(lua_State *L)
{
	app_check_runs(L);
	struct app_job *j = collecting(L);
	struct span key = check_key(L);

	if (!j) {
		drop(app_of(L), key);
		return 0;
	}
	lua_settop(L, 1);
	lua_pushinteger(L, 0);
	lua_insert(L, 1);
	app_stage(L, j);
	return 0;
}

int app_cache_lib(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "get", l_get },
		{ "put", l_put },
		{ "delete", l_delete },
		{ NULL, NULL },
	};

	luaL_newlib(L, functions);
	return 1;
}

void app_cache_open(struct app *a)
{
	for (size_t i = 0; i < APP_CACHE_METRICS; i++)
		a->cache_metric[i] = metric(a->worker->service->metrics, a->worker->loop->index, rows[i].type,
					    rows[i].name, rows[i].help, NULL, NULL);
	a->cache_tick.fire = on_tick;
}

void app_cache_close(struct app *a)
{
	loop_timer_stop(a->worker->loop, &a->cache_tick);
	cache_free(a->cache);
}
