#include <assert.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include "common/lua_json.h"
#include "common/lua_pb.h"
#include "rpc/app_private.h"
#include "rpc/http.h"

/*
 * The end of a task: its answer is encoded while its values are there, then its record is handed to the SQL log and its
 * staged changes are applied, in one go; the answer leaves when the record is durable.
 */
const char app_job_tag;

struct app_job *app_job_new(struct app *a, enum app_job_kind kind)
{
	struct app_job *j = a->free_jobs;

	if (j) {
		a->free_jobs = j->next_free;
	} else {
		j = calloc(1, sizeof *j);
		assert(j);
		j->app = a;
		j->next_made = a->made_jobs;
		a->made_jobs = j;
		sql_record_init(&j->record);
	}
	j->job = (struct luajob){ .tag = &app_job_tag, .done = app_job_done, .held = app_job_held };
	j->kind = kind;
	j->method = NULL;
	j->session = NULL;
	j->handle = j->trace = j->ticket = j->sid = 0;
	j->json = j->relaxed = j->sync = j->committed = j->called = j->recording = j->begun = j->moved = false;
	j->stopped = 0;
	j->call = NULL;
	j->prev_calling = NULL;
	j->then = NULL;
	j->changes = j->function = LUA_NOREF;
	j->why[0] = '\0';
	j->n_changes = j->attrs = 0;
	j->key_n = j->keys_at = j->body.at = j->body.n = 0;
	j->once = (struct app_job_once){ .entry = NULL };
	return j;
}

#define KEEP_BYTES 4096 /* a pooled job keeps no larger buffers */

static void keep_small(struct buf *b)
{
	if (b->cap > KEEP_BYTES)
		buf_release(b);
	else
		buf_clear(b);
}

void app_job_free(struct app_job *j)
{
	struct app *a = j->app;
	lua_State *L = luahost_state(a->host);

	app_job_discard(j);
	app_calling_end(j);
	loop_timer_stop(a->worker->loop, &j->deadline);
	app_once_end(j, APP_ONCE_GONE);
	luaL_unref(L, LUA_REGISTRYINDEX, j->function);
	rpc_ended(a->worker, j->ticket);
	keep_small(&j->in);
	keep_small(&j->out);
	j->next_free = a->free_jobs;
	a->free_jobs = j;
}

/* ---- all or nothing ------------------------------------------------------------------------------------------- */

/* What the record is called by in the log: the method; of what no call began the path or the hook, of a timer's task nothing. */
static const char *request_of(const struct app_job *j)
{
	if (j->method)
		return j->method->full;
	return j->kind == APP_HTTP ? j->http_path : j->kind == APP_HOOK ? j->hook : "";
}

void app_job_record(struct app_job *j)
{
	if (j->recording)
		return;
	sql_record_clear(&j->record);
	sql_record_request(&j->record, request_of(j));
	j->recording = true;
}

void app_job_discard(struct app_job *j)
{
	if (j->recording)
		sql_record_clear(&j->record);
	j->recording = false;
	luaL_unref(luahost_state(j->app->host), LUA_REGISTRYINDEX, j->changes);
	j->changes = LUA_NOREF;
	j->n_changes = 0;
}

/*
 * The list is {table, field, value, table, field, value, …}; a nil value is written as the list itself. What is the
 * cache's has its lifetime in place of the table.
 */
static int apply_changes(lua_State *L, void *arg)
{
	struct app_job *j = arg;

	lua_rawgeti(L, LUA_REGISTRYINDEX, j->changes);
	for (unsigned i = 0; i < j->n_changes; i++) {
		lua_rawgeti(L, -1, 3 * i + 1);
		lua_rawgeti(L, -2, 3 * i + 2);
		lua_rawgeti(L, -3, 3 * i + 3);
		if (lua_rawequal(L, -1, -4)) {
			lua_pop(L, 1);
			lua_pushnil(L);
		}
		if (lua_isinteger(L, -3)) {
			app_cache_apply(L, j, lua_gettop(L) - 2);
			lua_pop(L, 3);
			continue;
		}
		lua_rawset(L, -3);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return 0;
}

int app_job_commit(struct app_job *j, uint64_t *lsn)
{
	struct app *a = j->app;
	int err = 0;

	*lsn = 0;
	if (j->once.entry && app_once_record(j) < 0) {
		app_job_discard(j);
		return ERR_FULL;
	}
	if (j->recording && j->record.statements) {
		struct sqllog *log = a->worker->service->sqllog;

		j->record.trace = j->trace;
		if (!j->record.keys_bytes)
			err = ERR_FAILED; /* nobody could tell what it has to be replayed behind */
		else
			err = log ? sqllog_append(log, &j->record, lsn) : ERR_UNAVAILABLE;
	}
	j->lsn = *lsn;
	/* the record is on its way: from here on memory must follow, and table writes to existing tables only grow them */
	if (err == 0 && j->n_changes && luahost_reserved(a->host, apply_changes, j) < 0)
		env_abort(a->worker->loop->env, "a committed change could not be applied in memory");
	if (err == 0 && *lsn)
		j->committed = true;
	app_job_discard(j);
	return err;
}

/* ---- who waits for it --------------------------------------------------------------------------------------- */

#define STOP_AFTER_MS 20

static const char *stop_text(int err)
{
	return err == ERR_TIMEOUT ? "its time was over" : "the caller has gone";
}

static void answer_err(struct app_job *j, int err, enum effect effect, const char *message);

void app_job_stop(struct app_job *j, int err)
{
	struct app *a = j->app;

	if (!j->begun) {
		if (j->session && luaqueue_remove(&j->session->queue, &j->job))
			answer_err(j, err, EFFECT_NONE, stop_text(err));
		return;
	}
	if (!luajob_task(&j->job) || j->committed || j->called || j->method->kind == MSG_ONCE)
		return;
	j->stopped = err;
	if (j->call) {
		rpc_cancel(a->worker, j->call->call);
		app_wait_free(j->call);
		app_calling_end(j);
	}
	luatask_abort(a->host, luajob_task(&j->job));
}

static void on_gone(void *arg, int err)
{
	app_job_stop(arg, err);
}

static void on_deadline(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	app_job_stop((struct app_job *)((char *)t - offsetof(struct app_job, deadline)), ERR_TIMEOUT);
}

/*
 * Answered at once by most: j is looked at only if its request is still open. Its own calls and reads end at its deadline,
 * and tell it so; what waits for something else then is stopped a little later.
 */
void app_job_watch(struct app_job *j, uint64_t handle)
{
	struct loop *loop = j->app->worker->loop;
	uint64_t left = j->deadline_ms > loop->now_ms ? j->deadline_ms - loop->now_ms : 0;

	if (!rpc_on_gone(j->app->worker, handle, on_gone, j))
		return;
	j->deadline.fire = on_deadline;
	loop_timer(loop, &j->deadline, (uint32_t)left + STOP_AFTER_MS);
}

/* Its fate is the log's now. */
static void app_job_unwatch(struct app_job *j)
{
	loop_timer_stop(j->app->worker->loop, &j->deadline);
	if (j->handle)
		rpc_on_gone(j->app->worker, j->handle, NULL, NULL);
}

/* ---- the answer ------------------------------------------------------------------------------------------------ */

static void send_attrs(struct app_job *j, struct rpc_attr attrs[FRAME_ATTRS_MAX])
{
	for (unsigned i = 0; i < j->attrs; i++) {
		attrs[i].name = span_of(j->attr[i].name, strlen(j->attr[i].name));
		attrs[i].value = span_of(j->attr[i].value, strlen(j->attr[i].value));
	}
}

/* What a failure leaves behind, as far as it is known here. */
static enum effect effect_of(const struct app_job *j)
{
	if (j->committed)
		return EFFECT_DONE;
	return j->called ? EFFECT_UNKNOWN : EFFECT_NONE;
}

static void job_end(struct app_job *j, int err)
{
	struct worker *w = j->app->worker;
	void (*then)(struct worker *, int) = j->app->closing ? NULL : j->then;

	app_job_free(j);
	if (then)
		then(w, err);
}

static void answer_ok(struct app_job *j)
{
	struct rpc_attr attrs[FRAME_ATTRS_MAX];

	env_failpoint(j->app->worker->loop->env, "app.before_answer");
	app_once_end(j, APP_ONCE_DONE);
	if (j->kind == APP_HTTP) {
		j->http.on_answer(j->http.arg, j->http_status, j->out.data, j->out.len);
	} else if (j->handle) {
		send_attrs(j, attrs);
		rpc_answer_ok(j->app->worker, j->handle, span_of(j->out.data, j->out.len), attrs, j->attrs);
	}
	job_end(j, 0);
}

static void answer_err(struct app_job *j, int err, enum effect effect, const char *message)
{
	app_once_refuse(j, err, effect, message);
	if (j->kind == APP_HTTP) {
		buf_clear(&j->out);
		http_error_body(&j->out, err, effect, span_of(message, strlen(message)));
		j->http.on_answer(j->http.arg, err_http(err_public(err)), j->out.data, j->out.len);
	} else if (j->handle) {
		rpc_answer_err(j->app->worker, j->handle, err, effect, message);
	}
	job_end(j, err);
}

void app_job_refuse(struct app_job *j, int err, enum effect effect, const char *message)
{
	answer_err(j, err, effect, message);
}

static struct span part(const struct app_job *j, struct app_part p)
{
	return span_of(j->in.data + p.at, p.n);
}

void app_job_moved(struct app_job *j)
{
	struct frame_request again = { .key = span_of(j->in.data, j->key_n),
				       .uid = part(j, j->uid),
				       .body = part(j, j->body) };

	app_job_discard(j);
	rpc_answer_moved(j->app->worker, j->handle, &again);
	job_end(j, ERR_UNAVAILABLE);
}

/* It may be done once more, elsewhere: nothing of it is left here, nor, for who may not be repeated, anywhere. */
static bool may_move(const struct app_job *j)
{
	return j->moved && !j->committed && j->method && !(j->called && j->method->kind == MSG_PLAIN);
}

/* A key as the script named it: the log writes some bytes as %XX. */
static void key_plain(char *key)
{
	char *out = key;

	for (const char *at = key; *at; at++) {
		unsigned byte;

		if (*at == '%' && sscanf(at + 1, "%2x", &byte) == 1) {
			*out++ = (char)byte;
			at += 2;
		} else {
			*out++ = *at;
		}
	}
	*out = '\0';
}

void app_keys_lost(struct app *a, const char *keys)
{
	char list[SQLLOG_KEY_MAX], *at = list, *key;

	app_cache_lost(a);
	snprintf(list, sizeof list, "%s", keys);
	while ((key = strsep(&at, ","))) {
		key_plain(key);
		if (*key)
			app_hook(a, "on_lost", key, false);
	}
}

static void on_landed(struct sqllog_waiter *w, int err)
{
	struct app_job *j = (struct app_job *)((char *)w - offsetof(struct app_job, waiter));

	if (err < 0) {
		app_once_end(j, APP_ONCE_LOST);
		app_keys_lost(j->app, j->in.data + j->keys_at);
		answer_err(j, ERR_UNKNOWN, EFFECT_UNKNOWN, "the change could not be made durable: ask again");
		return;
	}
	answer_ok(j);
}

/* The keys of the record are kept behind the input: on_landed may need them when the record is long gone. */
static void keep_keys(struct app_job *j)
{
	j->keys_at = (uint32_t)j->in.len;
	if (j->recording)
		buf_addstr(&j->in, j->record.keys);
	buf_addch(&j->in, '\0');
}

/* What the method gave is wrong: its author is told where it stands, since there is no traceback any more. */
static void log_wrong(const struct app_job *j, const char *why)
{
	char place[160] = "";

	if (j->method)
		luahost_method_place(j->app->host, j->method, place, sizeof place);
	log_error(j->app->worker->service->log, "lua.answer", "method=%s trace=%llx at=%s why=%s", request_of(j),
		  (unsigned long long)j->trace, *place ? place : "-", why);
}

static const char *refusal(int err)
{
	if (err == ERR_FULL)
		return "the changes and the answer are too much for one record";
	if (err == ERR_FAILED)
		return "the change names no key (db.key)";
	return err == ERR_BUSY ? "the SQL log is behind: try again" : "the change cannot be recorded now";
}

static void finish(struct app_job *j)
{
	struct app *a = j->app;
	uint64_t lsn;

	if (j->moved && (j->once.entry || j->recording || j->n_changes)) { /* its next owner may have read already */
		if (may_move(j)) {
			app_job_moved(j);
		} else {
			app_job_discard(j);
			answer_err(j, ERR_UNAVAILABLE, effect_of(j), "its key moves to another instance");
		}
		return;
	}
	keep_keys(j);
	int err = app_job_commit(j, &lsn);

	if (err < 0) {
		if (err == ERR_FAILED || err == ERR_FULL)
			log_wrong(j, refusal(err));
		answer_err(j, err, effect_of(j), refusal(err));
		return;
	}
	if (!lsn && j->sync && a->worker->service->sqllog)
		lsn = sqllog_lsn(a->worker->service->sqllog);
	if (!lsn) {
		answer_ok(j);
		return;
	}
	app_job_unwatch(j);
	j->waiter.fn = on_landed;
	sqllog_wait(a->worker->service->sqllog, a->worker->loop, &j->waiter, lsn, j->sync || !j->relaxed);
}

/* A client's answer gets its code here: handlers return the fields only. An untyped answer is passed as it is. */
int app_job_encode(struct app_job *j, lua_State *L, int index, char *why, size_t size)
{
	const struct msg_type *type = j->method->out;
	size_t start = j->out.len;
	int err;

	if (!j->json)
		return lua_pb_encode(L, index, type, &j->out, why, size);
	if (!j->method->is_handler || type->any)
		return lua_json_encode(L, index, type, &j->out, why, size);
	buf_addstr(&j->out, "{\"code\":200");
	err = lua_json_encode(L, index, type, &j->out, why, size);
	if (err < 0) {
		j->out.len = start;
		return err;
	}
	size_t object = start + strlen("{\"code\":200");

	if (j->out.len - object > 2) {
		j->out.data[object] = ',';
	} else { /* "{}" */
		j->out.len = object;
		buf_addch(&j->out, '}');
	}
	return 0;
}

static const char *text_at(const struct luaresult *r, int i)
{
	return r->n > i && lua_type(r->L, r->first + i) == LUA_TSTRING ? lua_tostring(r->L, r->first + i) : NULL;
}

/* The fourth value, such as app.rpc gives it; a timeout in another service leaves it open. */
static enum effect effect_told(const struct app_job *j, int err, const char *word)
{
	if (err == ERR_UNKNOWN)
		return EFFECT_UNKNOWN;
	for (enum effect e = EFFECT_NONE; word && !j->committed && e <= EFFECT_UNKNOWN; e++)
		if (!strcmp(word, effect_word(e)))
			return e;
	if (j->committed)
		return EFFECT_DONE;
	return err == ERR_TIMEOUT && j->called ? EFFECT_UNKNOWN : EFFECT_NONE;
}

#define ERRORS "timeout unavailable busy not_found bad_request denied failed unknown"

/* The script meant one of the eight, and one of the three effects. */
static void check_refusal(const struct app_job *j, const struct luaresult *r)
{
	const char *word = text_at(r, 1), *effect = text_at(r, 3);
	char why[160];

	if (!word)
		snprintf(why, sizeof why, "after nil an error was expected, found %s: " ERRORS,
			 luaL_typename(r->L, r->first + 1));
	else if (!err_from_word(word))
		snprintf(why, sizeof why, "there is no error \"%.40s\": " ERRORS, word);
	else if (effect && strcmp(effect, "none") && strcmp(effect, "done") && strcmp(effect, "unknown"))
		snprintf(why, sizeof why, "there is no effect \"%.40s\": none done unknown", effect);
	else
		return;
	log_wrong(j, why);
}

/* nil, word, message, effect: the handler's own refusal. What it collected is dropped. */
static void refused(struct app_job *j, const struct luaresult *r)
{
	const char *word = text_at(r, 1), *text = text_at(r, 2);
	int err = word ? err_from_word(word) : ERR_FAILED;
	char message[256];

	snprintf(message, sizeof message, "%s", text ? text : err ? err_text(err) : word);
	check_refusal(j, r);
	err = err ? err_public(err) : ERR_FAILED;
	enum effect effect = effect_told(j, err, text_at(r, 3));

	if (may_move(j)) { /* its next owner knows better */
		app_job_moved(j);
		return;
	}
	app_job_discard(j);
	answer_err(j, err, effect, message);
}

static void http_result(struct app_job *j, const struct luaresult *r)
{
	size_t n = 0;
	const char *body = r->n > 1 ? lua_tolstring(r->L, r->first + 1, &n) : "";
	lua_Integer status = r->n > 0 ? lua_tointeger(r->L, r->first) : 0;

	if (status < 200 || status > 599) {
		log_error(j->app->worker->service->log, "lua.http", "path=%s why=%s", j->http_path,
			  "the hook's first value is no HTTP status");
		app_job_discard(j);
		answer_err(j, ERR_FAILED, effect_of(j), "the service's answer is wrong");
		return;
	}
	j->http_status = (int)status; /* kept until it is sent */
	if (status >= 400)
		app_job_discard(j);
	buf_add(&j->out, body ? body : "", n);
	finish(j);
}

static void method_result(struct app_job *j, const struct luaresult *r)
{
	char why[LUA_WHY_MAX];

	if (r->n > 1 && lua_isnil(r->L, r->first)) {
		refused(j, r);
		return;
	}
	if (r->n == 0)
		lua_pushnil(r->L);
	int index = r->n == 0 ? lua_gettop(r->L) : r->first;

	if ((j->handle || j->once.entry) && app_job_encode(j, r->L, index, why, sizeof why) < 0) {
		log_wrong(j, why);
		app_job_discard(j);
		answer_err(j, ERR_FAILED, effect_of(j), "the handler's answer is not of its type");
		return;
	}
	finish(j);
}

void app_job_held(struct luajob *self, uint32_t ms)
{
	struct app_job *j = (struct app_job *)self;

	if (!j->session)
		return;
	app_session_held(j, ms);
	j->job.budget_ms = app_session_budget_ms(j);
}

void app_job_done(struct luajob *self, const struct luaresult *r)
{
	struct app_job *j = (struct app_job *)self;

	if (r->err == 0 && j->once.answered) {
		answer_ok(j);
	} else if (r->err == 0 && j->once.err < 0) {
		char message[LUA_WHY_MAX];

		snprintf(message, sizeof message, "%s", j->why);
		answer_err(j, j->once.err, j->once.effect, message);
	} else if (r->err < 0 && !j->stopped && may_move(j)) {
		app_job_moved(j);
	} else if (r->err < 0) {
		int err = j->stopped && r->err == ERR_UNAVAILABLE ? j->stopped : r->err;
		char message[256];

		snprintf(message, sizeof message, "%s",
			 err == j->stopped ? stop_text(err)
			 : *j->why         ? j->why
			 : *r->message     ? r->message
					   : err_text(err));
		app_job_discard(j);
		answer_err(j, err, effect_of(j), message);
	} else if (j->kind == APP_HTTP) {
		http_result(j, r);
	} else if (j->method) {
		method_result(j, r);
	} else {
		finish(j);
	}
}
