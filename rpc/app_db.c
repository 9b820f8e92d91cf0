#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/lua_msg.h"
#include "rpc/app_private.h"

/*
 * The library db: changes are collected in the running task and land together at its end (or at db.commit); reads come
 * from the database after the replay has passed the key's last change.
 */
#define DB_VALUES_MAX  256
#define DB_CONNECTIONS 2 /* opened at the first read, the first of a service with an SQL log at its start */
#define DB_QUEUE_MAX   10000
#define DB_TIMEOUT_MS  5000
#define ANSWER_MS      50 /* of a request's time is kept for its answer */

/* ---- changes ------------------------------------------------------------------------------------------------------------- */

static struct app_job *collecting(lua_State *L)
{
	struct app_job *j = app_job_of(L);

	if (!j)
		app_raise(L, "db: changes belong to a request or a task: use app.task(fn) in a timer");
	app_job_record(j);
	return j;
}

/* db.key(key): the record that is being collected changes this key ("role:42"). */
static int db_key(lua_State *L)
{
	struct app_job *j = collecting(L);
	size_t n;
	const char *key = luaL_checklstring(L, 1, &n);

	if (strlen(key) != n)
		return luaL_error(L, "db.key: a key holds no zero byte");
	int err = sql_record_key(&j->record, key);

	if (err == ERR_FULL)
		return luaL_error(L, "db.key: more keys than a record can name");
	if (err < 0)
		return luaL_error(L, "db.key: expected 1 to 80 bytes, found %d", (int)n);
	return 0;
}

static void read_value(lua_State *L, int index, int number, struct sql_value *v)
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
	default: app_raise(L, "db: value %d: a %s cannot be stored", number, luaL_typename(L, index));
	}
}

static size_t read_values(lua_State *L, int from, struct sql_value *values)
{
	int top = lua_gettop(L);
	size_t n = top >= from ? (size_t)(top - from + 1) : 0;

	if (n > DB_VALUES_MAX)
		app_raise(L, "db: at most %d values", DB_VALUES_MAX);
	for (size_t i = 0; i < n; i++)
		read_value(L, from + (int)i, (int)i + 1, &values[i]);
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

void app_stage(lua_State *L, struct app_job *j)
{
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
	lua_settop(L, 0);
}

/* db.set(table, field, value): applied with the record, or not at all. */
static int db_set(lua_State *L)
{
	struct app_job *j = collecting(L);

	luaL_checktype(L, 1, LUA_TTABLE);
	luahost_check_changes(L, 1, "db.set");
	luaL_argcheck(L, !lua_isnoneornil(L, 2) && lua_rawequal(L, 2, 2), 2, "a field");
	app_stage(L, j);
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
	struct app_wait wait;
	struct sqllog_waiter waiter;
	struct app_job *job; /* valid while the task lives */
	char keys[SQLLOG_KEY_MAX];
};

static void on_committed(struct sqllog_waiter *w, int err)
{
	struct commit_wait *c = (struct commit_wait *)((char *)w - offsetof(struct commit_wait, waiter));
	struct app *a = c->wait.app;

	if (err < 0)
		app_keys_lost(a, c->keys);
	if (luatask_alive(a->host, c->wait.task)) {
		c->job->waiting_err = err;
		luatask_resume(a->host, c->wait.task, push_commit, c->job);
	}
	app_wait_free(&c->wait);
}

/* db.commit() -> true | nil, error: yields until what was collected so far is durable. */
static int db_commit(lua_State *L)
{
	struct app *a = app_of(L);
	struct app_job *j = collecting(L);

	if (j->once.entry)
		return luaL_error(L, "db.commit: a once-method's changes land at its end, together with its answer");
	if (j->moved) {
		app_job_discard(j);
		return app_push_error(L, ERR_UNAVAILABLE, span_of("its key moves to another instance", 33),
				      EFFECT_NONE);
	}
	uint64_t task = luatask_wait(L), lsn;
	char keys[SQLLOG_KEY_MAX];

	memcpy(keys, j->record.keys, sizeof keys);
	int err = app_job_commit(j, &lsn);

	if (err == ERR_FAILED)
		return luaL_error(L, "db.commit: the change names no key (db.key)");
	if (err < 0)
		return app_push_error(L, err, span_of(err_text(err), strlen(err_text(err))), EFFECT_NONE);
	if (!lsn) {
		lua_pushboolean(L, 1);
		return 1;
	}
	struct commit_wait *c = app_wait_new(a, task, sizeof *c);

	c->waiter.fn = on_committed;
	c->job = j;
	memcpy(c->keys, keys, sizeof keys);
	sqllog_wait(a->worker->service->sqllog, a->worker->loop, &c->waiter, lsn, !j->relaxed);
	return luatask_yield(L);
}

/* ---- reads ------------------------------------------------------------------------------------------------------ */

struct db_wait {
	struct app_wait wait;
	const struct env_db_result *result;
};

static void push_cell(lua_State *L, const struct env_db_result *r, size_t at, enum env_db_type type)
{
	const char *text = r->cells[at];

	if (!text)
		lua_pushnil(L);
	else if (type == ENV_DB_INT)
		lua_pushinteger(L, (lua_Integer)strtoll(text, NULL, 10));
	else if (type == ENV_DB_DOUBLE)
		lua_pushnumber(L, strtod(text, NULL));
	else
		lua_pushlstring(L, text, r->cell_bytes[at]);
}

static int push_rows(lua_State *L, void *arg)
{
	const struct env_db_result *r = ((struct db_wait *)arg)->result;

	if (r->err < 0) {
		const char *message = r->message ? r->message : err_text(r->err);

		return app_push_error(L, r->err, span_of(message, strlen(message)), EFFECT_NONE);
	}
	lua_createtable(L, (int)r->rows, 0);
	for (unsigned row = 0; row < r->rows; row++) {
		lua_createtable(L, 0, (int)r->columns);
		for (unsigned i = 0; i < r->columns; i++) {
			push_cell(L, r, (size_t)row * r->columns + i, r->column[i].type);
			lua_setfield(L, -2, r->column[i].name);
		}
		lua_rawseti(L, -2, (lua_Integer)row + 1);
	}
	return 1;
}

static void on_rows(void *arg, const struct env_db_result *r)
{
	struct db_wait *w = arg;

	w->result = r;
	luatask_resume(w->wait.app->host, w->wait.task, push_rows, w);
	app_wait_free(&w->wait);
}

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789"
static bool is_word(const char *p, size_t n, const char *word)
{
	return n == strlen(word) && !strncasecmp(p, word, n);
}

/* Behind the bracket that closes the one at p, or the text's end. Quotes and comments stand in no statement: sql_format. */
static const char *behind_brackets(const char *p)
{
	unsigned depth = 0;

	do {
		depth += *p == '(';
		depth -= *p == ')';
		p++;
	} while (*p && depth);
	return p;
}

static const char *first_word(const char *p, size_t *n)
{
	p += strspn(p, " \t\r\n(");
	*n = strspn(p, LETTERS);
	return p;
}

/*
 * What a statement does: its first word; behind WITH the one after the named queries, for some databases take
 * "WITH … UPDATE". Where no such word is, the end.
 */
static const char *verb_of(const char *sql, size_t *n)
{
	const char *p = first_word(sql, n);
	bool ended = false; /* brackets just did, and with them perhaps the last of the queries */

	if (!is_word(p, *n, "WITH"))
		return p;
	for (p += *n; *p; p += *n ? *n : 1) {
		*n = strspn(p, LETTERS);
		if (*p == '(' && !ended) {
			p = behind_brackets(p) - 1;
			ended = true;
		} else if (*p == '(' || *n) {
			/* "name (columns) AS (…)", and of MariaDB "(…) CYCLE columns RESTRICT" */
			p = first_word(p, n);
			if (ended && !is_word(p, *n, "AS") && !is_word(p, *n, "CYCLE") && !is_word(p, *n, "WITH"))
				return p;
			ended = is_word(p, *n, "RESTRICT");
		} else if (*p == ',') {
			ended = false;
		}
	}
	*n = 0;
	return p;
}

/* A change that went past the log would be known to nobody: not to the replay, not to who keeps the row in memory. */
static void check_reads(lua_State *L, const char *sql)
{
	size_t n;
	const char *verb = verb_of(sql, &n);

	if (!is_word(verb, n, "SELECT") && !is_word(verb, n, "SHOW"))
		app_raise(L,
			  "db: only SELECT, WITH ... SELECT and SHOW read: changes go through db.exec, found \"%.*s\"",
			  (int)(n < 20 ? n : 20), verb);
}

static int read_rows(lua_State *L, int sql_index, const char *key)
{
	struct app *a = app_of(L);
	struct app_job *j = app_job_of(L);
	const char *sql = luaL_checkstring(L, sql_index);
	struct sql_value values[DB_VALUES_MAX];
	size_t n = read_values(L, sql_index + 1, values);
	uint64_t task, now = a->worker->loop->now_ms, left = DB_TIMEOUT_MS;
	char why[256];

	check_reads(L, sql);
	app_check_may_wait(L);
	task = luatask_wait(L);
	buf_clear(&a->text);
	if (sql_format(&a->text, sql, values, n, why, sizeof why) < 0)
		return luaL_error(L, "db: %s", why);
	if (j && j->deadline_ms != UINT64_MAX)
		left = j->deadline_ms > now + ANSWER_MS ? j->deadline_ms - now - ANSWER_MS : 1;
	struct db_wait *w = app_wait_new(a, task, sizeof *w);

	dbread_query(a->dbread, a->text.data, a->text.len, key, (uint32_t)left, on_rows, w);
	return luatask_yield(L);
}

/* db.query(sql, …) -> rows | nil, error, message. Yields. */
static int db_query(lua_State *L)
{
	return read_rows(L, 1, NULL);
}

/* db.load(key, sql, …): as query, once the replay has passed the last change of the key. Yields. */
static int db_load(lua_State *L)
{
	return read_rows(L, 2, luaL_checkstring(L, 1));
}

/* ---- the library -------------------------------------------------------------------------------------------------- */

int app_db_lib(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{ "key", db_key },
		{ "exec", db_exec },
		{ "set", db_set },
		{ "relaxed", db_relaxed },
		{ "sync", db_sync },
		{ "commit", db_commit },
		{ "query", db_query },
		{ "load", db_load },
		{ "load_once", app_once_load },
		{ NULL, NULL },
	};

	luaL_newlib(L, functions);
	return 1;
}

void app_db_open(struct app *a)
{
	struct service *s = a->worker->service;
	struct dbread_options o = {
		.instance = s->id,
		.sqllog = s->sqllog,
		.connections = DB_CONNECTIONS,
		.queue_max = DB_QUEUE_MAX,
		.at_once = s->sqllog, /* who keeps data will read them: told at the start if it cannot */
		.away = &s->databases_away,
	};

	service_database(s, &o.db);
	a->dbread = dbread_new(a->worker->loop, s->log, &o);
}

void app_db_close(struct app *a)
{
	dbread_free(a->dbread);
}
