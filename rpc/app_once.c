#include <assert.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/lua_pb.h"
#include "common/text.h"
#include "rpc/app_private.h"

/*
 * Once-methods: the protocol of rpc/once.h between a task, the SQL log and the database. A task of a once-method asks before
 * its function runs; what it answers becomes a row of table loquat_once in the record of its changes; what was answered
 * before is read back when it is not in memory.
 */
#define LEASE_MS     7200000 /* twice what the longest call of a script lives */
#define TICK_MS      10000
#define ANSWER_MS    50  /* of a request's time is kept for its answer */
#define DELETE_ROWS  16  /* acknowledged rows of one client go together, with the next record of their owner */
#define DELETE_MAX   4   /* clients of whom one record deletes */
#define TICK_DELETES 200 /* records of a tick for owners that had none of their own */
#define OWNER_MAX    96  /* characters of the column */
#define KEY_PLAIN    64

/* ---- names ------------------------------------------------------------------------------------------------------- */

static struct span part(const struct app_job *j, struct app_part p)
{
	return span_of(j->in.data + p.at, p.n);
}

static struct app_part added(struct app_job *j, size_t from)
{
	return (struct app_part){ (uint32_t)from, (uint32_t)(j->in.len - from) };
}

/* service/key, of a client's request by attribute service/key/uid; what the column does not hold goes by its digest. */
static void owner_name(struct buf *out, const char *service, struct span key, struct span uid)
{
	size_t start = out->len;
	char hex[TOKEN_HMAC_HEX];

	buf_addf(out, "%s/", service);
	buf_add(out, key.p, key.n);
	if (uid.n)
		buf_addch(out, '/');
	buf_add(out, uid.p, uid.n);
	if (out->len - start <= OWNER_MAX && text_is_utf8(out->data + start, out->len - start))
		return;
	token_hmac_hex("loquat_once", out->data + start, out->len - start, hex);
	out->len = start;
	buf_addf(out, "%s/~%s", service, hex);
}

void app_once_record_key(struct span owner, char out[80])
{
	bool plain = owner.n <= KEY_PLAIN;

	for (size_t i = 0; i < owner.n && plain; i++)
		plain = (unsigned char)owner.p[i] > ' ' && owner.p[i] != ',' && owner.p[i] != '%' && owner.p[i] != 127;
	if (plain)
		snprintf(out, 80, "once:%.*s", (int)owner.n, owner.p);
	else
		snprintf(out, 80, "once:~%016llx", (unsigned long long)once_hash(0, owner.p, owner.n));
}

/* ---- what a task's call is -------------------------------------------------------------------------------------------- */

static int field_key(lua_State *L, struct app_job *j)
{
	const struct msg_field *f = j->method->once;
	size_t n = 0, from = j->in.len;
	const char *key;

	lua_pushlstring(L, f->name, f->name_bytes);
	lua_rawget(L, -2);
	key = lua_tolstring(L, -1, &n);
	if (key)
		buf_add(&j->in, key, n);
	lua_pop(L, 1);
	j->once.key = added(j, from);
	if (n >= 1 && n <= ONCE_KEY_MAX)
		return 0;
	snprintf(j->why, sizeof j->why, "%s: expected 1 to %d bytes", f->name, ONCE_KEY_MAX);
	return ERR_BAD_REQUEST;
}

static int fingerprint(lua_State *L, struct app_job *j)
{
	struct buf *scratch = &j->app->scratch;
	uint64_t hash = once_fingerprint(0, j->method->full, j->method->full_n);

	buf_clear(scratch);
	if (lua_pb_encode(L, -1, j->method->in, scratch, j->why, sizeof j->why) < 0)
		return ERR_BAD_REQUEST;
	hash = once_fingerprint(hash, scratch->data ? scratch->data : "", scratch->len);
	j->once.fingerprint = hash ? hash : 1; /* 0 stands for rows of which nothing else is known */
	return 0;
}

static void owner_text(struct app_job *j)
{
	bool by_attr = j->kind == APP_HANDLER && j->method->attr;

	buf_clear(&j->app->text);
	owner_name(&j->app->text, j->method->service, span_of(j->in.data, j->key_n),
		   by_attr ? part(j, j->uid) : span_of("", 0));
}

int app_once_begin(lua_State *L, struct app_job *j)
{
	size_t from;
	int err = j->method->once ? field_key(L, j) : 0;

	if (err < 0 || (err = fingerprint(L, j)) < 0)
		return err;
	if (!j->once.key.n && !j->once_seq) {
		snprintf(j->why, sizeof j->why, "a once-call needs its key");
		return ERR_BAD_REQUEST;
	}
	if (!text_is_utf8(j->in.data + j->once.key.at, j->once.key.n)) {
		snprintf(j->why, sizeof j->why, "once: the key is not UTF-8");
		return ERR_BAD_REQUEST;
	}
	from = j->in.len;
	buf_addf(&j->in, "%s/%u/%llu", j->instance, j->instance_worker, (unsigned long long)j->instance_epoch);
	j->once.client = added(j, from);
	owner_text(j);
	from = j->in.len;
	buf_add(&j->in, j->app->text.data, j->app->text.len);
	j->once.owner = added(j, from);
	return 0;
}

/* For scripts: the business key, or what stands for it. */
void app_once_push_key(lua_State *L, const struct app_job *j)
{
	if (j->once.key.n)
		lua_pushlstring(L, j->in.data + j->once.key.at, j->once.key.n);
	else
		lua_pushfstring(L, "%s/%d/%I/%I", j->instance, (int)j->instance_worker, (LUAI_UACINT)j->instance_epoch,
				(LUAI_UACINT)j->once_seq);
}

static struct once_call call_of(const struct app_job *j)
{
	return (struct once_call){
		.owner = part(j, j->once.owner),
		.method = span_of(j->method->local, j->method->local_n),
		.key = part(j, j->once.key),
		.client = part(j, j->once.client),
		.seq = j->once_seq,
		.first_incomplete = j->once_first,
		.attempt = j->once_attempt,
		.fingerprint = j->once.fingerprint,
	};
}

/* ---- figures ----------------------------------------------------------------------------------------------------------- */

void app_once_publish(struct app_once *o)
{
	const struct once_figures *f = once_figures(o->server);

	metric_set(o->running, (int64_t)f->running);
	metric_set(o->stored, (int64_t)f->stored);
	metric_set(o->bytes, (int64_t)f->bytes);
	metric_add(o->repeats, f->repeats - o->told.repeats);
	metric_add(o->forgotten, f->forgotten - o->told.forgotten);
	metric_add(o->refused, f->refused - o->told.refused);
	o->told = *f;
}

/* ---- the gate in front of a once-method --------------------------------------------------------------------------------- */

static void on_told(struct once_waiter *w)
{
	struct app_job *j = (struct app_job *)((char *)w - offsetof(struct app_job, once.waiter));

	loop_timer_stop(j->app->worker->loop, &j->once.patience);
	app_wake_task(j->app, j->once.task);
}

static void on_patience(struct timer *t, uint64_t now_ms)
{
	struct app_job *j = (struct app_job *)((char *)t - offsetof(struct app_job, once.patience));

	(void)now_ms;
	once_leave(&j->once.waiter);
	app_wake_task(j->app, j->once.task);
}

/* Waits for what the last verdict named, as long as it may. */
static int park(lua_State *L)
{
	struct app_job *j = app_job_of(L);

	j->once.task = luatask_wait(L);
	j->once.waiter.fn = on_told;
	once_wait(j->once.waiters, &j->once.waiter);
	uint64_t now = j->app->worker->loop->now_ms, until = (uint64_t)lua_tointeger(L, 1);

	j->once.patience.fire = on_patience;
	loop_timer(j->app->worker->loop, &j->once.patience, until > now ? until - now : 0);
	return luatask_yield(L);
}

static void end_with(struct app_job *j, int err, enum effect effect, const char *why)
{
	j->once.err = err;
	j->once.effect = effect;
	snprintf(j->why, sizeof j->why, "%s", why);
}

/* The stored answer in the encoding this caller wants. A client's JSON begins with its code, which is no field. */
static void answer_again(lua_State *L, struct app_job *j, const struct once_result *r)
{
	static const char code[] = "{\"code\":200";
	const struct msg_type *type = j->method->out;
	struct span text = r->answer;
	struct buf *b = &j->app->scratch; /* not one of our own: decoding raises when memory ends */
	int err;

	j->once.answered = true;
	if (r->json == j->json) {
		buf_add(&j->out, text.p, text.n);
		return;
	}
	if (r->json && j->method->is_handler && !type->any && text.n >= sizeof code) {
		buf_clear(b);
		buf_addch(b, '{');
		buf_add(b, text.p + sizeof code, text.n - sizeof code);
		if (text.p[sizeof code - 1] == '}')
			buf_addch(b, '}');
		text = span_of(b->data, b->len);
	}
	err = r->json ? lua_json_decode(L, type, text.p, text.n, j->why, sizeof j->why)
		      : lua_pb_decode(L, type, text.p, text.n, NULL, j->why, sizeof j->why);
	if (err == 0)
		err = app_job_encode(j, L, -1, j->why, sizeof j->why);
	if (err == 0)
		return;
	j->once.answered = false;
	j->once.err = ERR_FAILED;
	j->once.effect = EFFECT_DONE;
}

static uint64_t patience_ms(const struct app_job *j)
{
	return j->deadline_ms > ANSWER_MS ? j->deadline_ms - ANSWER_MS : 0;
}

static void refuse_reused(struct app_job *j)
{
	char why[LUA_WHY_MAX];

	snprintf(why, sizeof why, "%s: it was used for another request",
		 j->method->once ? j->method->once->name : "once");
	end_with(j, ERR_BAD_REQUEST, EFFECT_NONE, why);
}

/* Whose end j would wait for, when that one itself waits for j: it runs for the same request, and called j by way of others. */
static const struct app_job *own_caller(const struct app_job *j)
{
	struct span key = part(j, j->once.key);

	for (const struct app_job *o = j->app->made_jobs; o; o = o->next_made) {
		bool runs = o != j && luajob_task(&o->job) && o->once.entry && o->method == j->method &&
			    o->trace == j->trace;
		bool repeat = o->once_seq == j->once_seq && o->instance_epoch == j->instance_epoch &&
			      !strcmp(o->instance, j->instance);
		struct span other = runs ? part(o, o->once.key) : key;

		if (runs && !repeat && o->call && j->trace && other.n == key.n && !memcmp(other.p, key.p, key.n))
			return o;
	}
	return NULL;
}

/* A retry waits for the first attempt; who is called by the one he waits for would wait until both times are over. */
static bool refuse_cycle(struct app_job *j)
{
	const struct app_job *o = own_caller(j);
	char why[LUA_WHY_MAX];

	if (!o)
		return false;
	snprintf(why, sizeof why, "deadlock: %s calls %s, which leads back to %s with the same key", o->method->full,
		 app_wait_name(o->call), j->method->full);
	end_with(j, ERR_FAILED, EFFECT_NONE, why);
	return true;
}

/* True: the function is to run, or the task has its end; false: wait. */
static bool ask(lua_State *L, struct app_job *j)
{
	struct app *a = j->app;
	struct once_call call = call_of(j);
	struct once_result r;
	enum once_verdict verdict = once_ask(a->once.server, &call, a->worker->loop->now_ms, &r);

	j->once.waiters = r.waiters;
	switch (verdict) {
	case ONCE_RUN: j->once.entry = r.entry; break;
	case ONCE_DONE: answer_again(L, j, &r); break;
	case ONCE_REUSED: refuse_reused(j); break;
	case ONCE_FORGOTTEN:
		end_with(j, ERR_BAD_REQUEST, EFFECT_UNKNOWN,
			 "this call was answered before, and its answer is forgotten");
		break;
	case ONCE_REFUSED:
		snprintf(j->why, sizeof j->why, "%.*s", (int)r.answer.n, r.answer.n ? r.answer.p : "");
		j->once.err = r.err;
		j->once.effect = r.effect;
		break;
	case ONCE_LOAD: app_once_load_owner(a, r.owner, call.owner, route_hash(j->in.data, j->key_n)); break;
	case ONCE_READ: app_once_read_answer(a, r.entry); break;
	case ONCE_WAIT:
		if (refuse_cycle(j))
			verdict = ONCE_REFUSED;
		break;
	}
	app_once_publish(&a->once);
	if (!timer_running(&a->once.tick) && !a->closing)
		loop_timer(a->worker->loop, &a->once.tick, TICK_MS);
	return verdict != ONCE_LOAD && verdict != ONCE_READ && verdict != ONCE_WAIT;
}

static int called(lua_State *L, int status, lua_KContext ctx)
{
	(void)status, (void)ctx;
	return lua_gettop(L);
}

/* On the stack: the function and its arguments. */
static int gate(lua_State *L, int status, lua_KContext ctx)
{
	struct app_job *j = app_job_of(L);

	(void)status, (void)ctx;
	while (!ask(L, j)) {
		if (j->app->worker->loop->now_ms >= patience_ms(j)) {
			end_with(j, ERR_UNKNOWN, EFFECT_UNKNOWN,
				 "whether this was done before cannot be told now: ask again with the same key");
			return 0;
		}
		lua_pushcfunction(L, park);
		lua_pushinteger(L, (lua_Integer)patience_ms(j));
		lua_callk(L, 1, 0, 0, gate);
	}
	if (!j->once.entry)
		return 0;
	lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, called);
	return called(L, LUA_OK, 0);
}

int app_once_gate(lua_State *L)
{
	return gate(L, LUA_OK, 0);
}

/* ---- its record and its end ------------------------------------------------------------------------------------------- */

void app_once_refuse(struct app_job *j, int err, enum effect effect, const char *message)
{
	struct once_entry *e = j->once.entry;

	if (!e)
		return;
	j->once.entry = NULL;
	once_refused(j->app->once.server, e, err, effect, span_of(message, strlen(message)));
	app_once_publish(&j->app->once);
}

static int add_key(struct sql_record *record, struct span owner)
{
	char key[80];

	app_once_record_key(owner, key);
	return sql_record_key(record, key);
}

static int add_delete(struct sql_record *record, const struct once_forget *f)
{
	struct sql_value v[] = { text_value(f->owner), text_value(f->client), int_value(f->below) };
	char why[128];

	return sql_record_add(record, "DELETE FROM loquat_once WHERE owner = ? AND client = ? AND seq < ?", v, 3, why,
			      sizeof why);
}

static int add_row(struct app_job *j)
{
	struct once_row row;
	char seq[24], why[256];

	once_row(j->once.entry, &row);
	if (row.client.n)
		row.key = span_of(seq, (size_t)snprintf(seq, sizeof seq, "%llu", (unsigned long long)row.seq));
	struct sql_value v[] = {
		text_value(row.owner),
		text_value(row.client),
		text_value(row.method),
		text_value(row.key),
		int_value(row.seq),
		int_value(row.hash),
		int_value(j->json),
		{ .type = j->json ? SQL_TEXT : SQL_BLOB, .s = { j->out.data ? j->out.data : "", j->out.len } },
		int_value(env_wall_us(j->app->worker->loop->env)),
		int_value(row.fingerprint),
	};

	return sql_record_add(
		&j->record,
		"INSERT INTO loquat_once (owner, client, method, once_key, seq, hash, fingerprint, json, answer, "
		"created_us, body_fingerprint) VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
		v, sizeof v / sizeof *v, why, sizeof why);
}

int app_once_record(struct app_job *j)
{
	struct app *a = j->app;
	struct once_forget f;
	int err;

	if (!a->worker->service->sqllog)
		return 0;
	app_job_record(j);
	if ((err = add_key(&j->record, part(j, j->once.owner))) < 0 || (err = add_row(j)) < 0)
		return err;
	for (int n = 0; n < DELETE_MAX && once_forget(a->once.server, j->once.entry, DELETE_ROWS, &f); n++)
		add_delete(&j->record, &f); /* no room: they go when the owner is loaded again */
	return 0;
}

void app_once_end(struct app_job *j, enum app_once_end how)
{
	struct app_once *o = &j->app->once;
	struct once_entry *e = j->once.entry;

	once_leave(&j->once.waiter);
	loop_timer_stop(j->app->worker->loop, &j->once.patience);
	if (!e)
		return;
	j->once.entry = NULL;
	if (how == APP_ONCE_DONE)
		once_done(o->server, e, j->json, span_of(j->out.data, j->out.len));
	else if (how == APP_ONCE_LOST)
		once_lost(o->server, e);
	else
		once_gone(o->server, e);
	app_once_publish(o);
}

/* ---- db.load_once(key) -------------------------------------------------------------------------------------------------- */

static int load_go(lua_State *L, int status, lua_KContext until_ms)
{
	struct app_job *j = app_job_of(L);
	struct app *a = j->app;
	struct once_result r;
	struct span key = { NULL, 0 };

	(void)status;
	key.p = lua_tolstring(L, 1, &key.n);
	for (;;) {
		buf_clear(&a->scratch);
		owner_name(&a->scratch, a->worker->service->def->name, key, span_of("", 0));
		struct span owner = span_of(a->scratch.data, a->scratch.len);
		enum once_verdict verdict = once_know(a->once.server, owner, a->worker->loop->now_ms, &r);

		if (verdict == ONCE_LOAD)
			app_once_load_owner(a, r.owner, owner, route_hash(key.p, key.n));
		app_once_publish(&a->once);
		if (verdict == ONCE_DONE) {
			lua_pushboolean(L, 1);
			return 1;
		}
		if ((lua_KContext)a->worker->loop->now_ms >= until_ms)
			return app_push_error(L, ERR_UNAVAILABLE, span_of("the database is away", 20), EFFECT_NONE);
		j->once.waiters = r.waiters;
		lua_pushcfunction(L, park);
		lua_pushinteger(L, (lua_Integer)until_ms);
		lua_callk(L, 1, 0, until_ms, load_go);
	}
}

int app_once_load(lua_State *L)
{
	struct app_job *j = app_job_of(L);

	luaL_checkstring(L, 1);
	lua_settop(L, 1);
	if (!j)
		app_raise(L, "db.load_once: belongs to a request or a task: use app.task(fn) in a timer");
	app_check_may_wait(L);
	uint64_t until_ms = j->app->worker->loop->now_ms + APP_ONCE_READ_MS;

	if (patience_ms(j) < until_ms)
		until_ms = patience_ms(j);
	return load_go(L, LUA_OK, (lua_KContext)until_ms);
}

/* ---- life ----------------------------------------------------------------------------------------------------------------- */

/* Rows of owners that have no record of their own meanwhile. What is refused goes when its owner is loaded again. */
static void delete_some(struct app *a)
{
	struct sqllog *log = a->worker->service->sqllog;
	struct sql_record record;
	struct once_forget f;

	sql_record_init(&record);
	for (int n = 0; log && n < TICK_DELETES && once_forget(a->once.server, NULL, 1, &f); n++) {
		sql_record_clear(&record);
		if (add_key(&record, f.owner) < 0 || add_delete(&record, &f) < 0 ||
		    sqllog_append(log, &record, NULL) < 0)
			break;
	}
	sql_record_release(&record);
}

static void on_tick(struct timer *t, uint64_t now_ms)
{
	struct app *a = (struct app *)((char *)t - offsetof(struct app, once.tick));

	if (once_tick(a->once.server, now_ms))
		loop_timer(a->worker->loop, &a->once.tick, TICK_MS);
	delete_some(a);
	app_once_publish(&a->once);
}

void app_once_open(struct app *a)
{
	struct service *s = a->worker->service;
	struct app_once *o = &a->once;
	const char *service = s->def->name;
	unsigned w = a->worker->index;

	o->server = once_server_new(&(struct once_options){
		.stored = s->sqllog != NULL,
		.bytes_max = (size_t)config_int(s->config, "rpc.once_bytes_max", 64 << 20),
		.lease_ms = LEASE_MS,
	});
	o->tick.fire = on_tick;
	o->running =
		metric(s->metrics, w, METRIC_GAUGE, "loquat_once_running", "Once-calls that run.", "service", &service);
	o->stored = metric(s->metrics, w, METRIC_GAUGE, "loquat_once_stored",
			   "Once-calls in memory that were answered.", "service", &service);
	o->bytes = metric(s->metrics, w, METRIC_GAUGE, "loquat_once_bytes",
			  "Memory for the once-calls that were answered.", "service", &service);
	o->repeats = metric(s->metrics, w, METRIC_COUNTER, "loquat_once_repeats_total",
			    "Once-calls that got the answer of the first.", "service", &service);
	o->forgotten = metric(s->metrics, w, METRIC_COUNTER, "loquat_once_forgotten_total",
			      "Answers forgotten, acknowledged or with their client.", "service", &service);
	o->refused = metric(s->metrics, w, METRIC_COUNTER, "loquat_once_refused_total",
			    "Once-calls under a key of another request, or forgotten before.", "service", &service);
}

void app_once_close(struct app *a)
{
	loop_timer_stop(a->worker->loop, &a->once.tick);
	app_once_reads_close(a);
	once_server_free(a->once.server);
}
