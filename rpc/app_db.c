#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include "common/lua_msg.h"
#include "rpc/app_private.h"

/*
 * The library db: changes are collected in the running task and land together at its end (or at db.commit); reads come
 * from the database after the replay has passed the key's last change.
 */
#define DB_VALUES_MAX 256

/* ---- changes ------------------------------------------------------------------------------------------------------------- */

static struct app_job *collecting(lua_State *L)
{
	struct app_job *j = app_job_of(L);

	if (!j)
		app_raise(L, "db: changes belong to a request or a task: use app.task(fn) in a timer");
	if (!j->recording) {
		sql_record_clear(&j->record);
		j->recording = true;
	}
	return j;
}

/* db.key(key): the record that is being collected changes this key ("role:42"). */
static int db_key(lua_State *L)
{
	struct app_job *j = collecting(L);

	if (sql_record_key(&j->record, luaL_checkstring(L, 1)) < 0)
		return luaL_error(L, "db.key: too long, or with a comma, a space or a control character");
	return 0;
}

static void read_value(lua_State *L, int index, struct sql_value *v)
{
	switch (lua_type(L, index)) {
	case LUA_TNIL: v->type = SQL_NULL; return;
	case LUA_TBOOLEAN:
		v->type = SQL_INT;
		v->i = lua_toboolean(L, index);
		return;
	case LUA_TNUMBER:
		if (lua_isinteger(L, index)) {
			v->type = SQL_INT;
			v->i = lua_tointeger(L, index);
		} else {
			v->type = SQL_DOUBLE;
			v->d = lua_tonumber(L, index);
		}
		return;
	case LUA_TSTRING:
		v->type = SQL_TEXT;
		v->s.p = lua_tolstring(L, index, &v->s.n);
		return;
	default: app_raise(L, "value %d: a %s cannot be stored", index, luaL_typename(L, index));
	}
}

static size_t read_values(lua_State *L, int from, struct sql_value *values)
{
	int top = lua_gettop(L);
	size_t n = top >= from ? (size_t)(top - from + 1) : 0;

	if (n > DB_VALUES_MAX)
		app_raise(L, "at most %d values", DB_VALUES_MAX);
	for (size_t i = 0; i < n; i++)
		read_value(L, from + (int)i, &values[i]);
	return n;
}

/* db.exec(sql, …): one statement with a value for each '?'. */
static int db_exec(lua_State *L)
{
	struct app_job *j = collecting(L);
	const char *sql = luaL_checkstring(L, 1);
	struct sql_value values[DB_VALUES_MAX];
	size_t n = read_values(L, 2, values);
	char why[256];

	if (sql_record_add(&j->record, sql, values, n, why, sizeof why) < 0)
		return luaL_error(L, "db.exec: %s", why);
	return 0;
}

/* db.set(table, field, value): applied with the record, or not at all. */
static int db_set(lua_State *L)
{
	struct app_job *j = collecting(L);

	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argcheck(L, !lua_isnil(L, 2), 2, "a field");
	lua_settop(L, 3);
	if (j->changes == LUA_NOREF) {
		lua_newtable(L);
		j->changes = luaL_ref(L, LUA_REGISTRYINDEX);
	}
	lua_rawgeti(L, LUA_REGISTRYINDEX, j->changes);
	for (int i = 1; i <= 3; i++) {
		lua_pushvalue(L, i == 3 && lua_isnil(L, 3) ? 4 : i); /* nil is written as the list itself */
		lua_rawseti(L, 4, (lua_Integer)j->n_changes * 3 + i);
	}
	j->n_changes++;
	return 0;
}

/* db.relaxed(): this task's answer need not wait until its record is synced, only until it is written. */
static int db_relaxed(lua_State *L)
{
	collecting(L)->relaxed = true;
	return 0;
}

/* db.sync(): this task's answer waits until everything recorded on this instance so far is durable, its own or not. */
static int db_sync(lua_State *L)
{
	collecting(L)->sync = true;
	return 0;
}

/* ---- db.commit: in the middle of a task -------------------------------------------------------------------------------------- */

static int push_commit(lua_State *L, void *arg)
{
	struct app_job *j = arg;

	if (j->waiting_err < 0)
		return app_push_error(L, ERR_UNKNOWN, span_of("the change could not be made durable", 36),
				      EFFECT_UNKNOWN);
	lua_pushboolean(L, 1);
	return 1;
}

struct commit_wait {
	struct sqllog_waiter waiter;
	struct app *app;
	struct app_job *job;
	uint64_t task;
};

static void on_committed(struct sqllog_waiter *w, int err)
{
	struct commit_wait *c = (struct commit_wait *)w;

	if (luatask_alive(c->app->host, c->task)) {
		c->job->waiting_err = err;
		luatask_resume(c->app->host, c->task, push_commit, c->job);
	}
	free(c);
}

/* db.commit() -> true | nil, error: yields until what was collected so far is durable. */
static int db_commit(lua_State *L)
{
	struct app *a = app_of(L);
	struct app_job *j = collecting(L);
	uint64_t task = luatask_wait(L), lsn;
	int err = app_job_commit(j, &lsn);

	if (err < 0)
		return app_push_error(L, err, span_of(err_text(err), strlen(err_text(err))), EFFECT_NONE);
	if (!lsn) {
		lua_pushboolean(L, 1);
		return 1;
	}
	struct commit_wait *c = calloc(1, sizeof *c);

	assert(c);
	c->waiter.fn = on_committed;
	c->app = a;
	c->job = j;
	c->task = task;
	sqllog_wait(a->worker->service->sqllog, a->worker->loop, &c->waiter, lsn, !j->relaxed);
	return luatask_yield(L);
}

/* ---- the library -------------------------------------------------------------------------------------------------------------- */

int app_db_lib(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "key", db_key },   { "exec", db_exec },     { "set", db_set }, { "relaxed", db_relaxed },
		{ "sync", db_sync }, { "commit", db_commit }, { NULL, NULL },
	};

	luaL_newlib(L, functions);
	return 1;
}

void app_db_open(struct app *a)
{
	(void)a;
}

void app_db_close(struct app *a)
{
	(void)a;
}
