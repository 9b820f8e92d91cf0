#include "tests/support/calls.h"
#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "rpc/server.h"
#include "tests/support/folder.h"

static const struct {
	const char *id, *service;
} names[CALLS_INSTANCES] = {
	[CALLER] = { "caller-1", "caller" },          [CALLS] = { "calls-1", "calls" },
	[CALLS_2] = { "calls-2", "calls" },           [OTHER] = { "other-1", "other" },
	[CONNECTOR] = { "connector-1", "connector" },
};

enum { PATIENCE_MS = 60000 }; /* for a machine that has much else to do */

bool calls_pause_(struct calls_wait_ *w)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
	return ++w->turns < 300000;
}

/* ---- the box -------------------------------------------------------------------------------------------------- */

#define HELD_MAX 64
struct box {
	pthread_mutex_t lock;
	unsigned run, helds;
	struct {
		struct worker *worker;
		uint64_t handle;
	} held[HELD_MAX];
	char once_keys[2000];
};
static struct box boxes[2] = { { .lock = PTHREAD_MUTEX_INITIALIZER }, { .lock = PTHREAD_MUTEX_INITIALIZER } };

static struct box *box_of(unsigned which)
{
	ck_assert(which == CALLS || which == CALLS_2);
	return &boxes[which == CALLS_2];
}

static bool says(const struct rpc_request *r, const char *word)
{
	return r->body.n && memmem(r->body.p, r->body.n, word, strlen(word));
}

static void box_hold(struct box *b, struct rpc_request *r)
{
	ck_assert_uint_lt(b->helds, HELD_MAX);
	b->held[b->helds].worker = r->worker;
	b->held[b->helds++].handle = r->handle;
}

static unsigned box_note(struct box *b, struct rpc_request *r)
{
	pthread_mutex_lock(&b->lock);
	unsigned run = ++b->run;
	if (says(r, "hold"))
		box_hold(b, r);
	if (r->has_once) {
		size_t n = strlen(b->once_keys);
		if (r->once_key.n)
			snprintf(b->once_keys + n, sizeof(b->once_keys) - n, "%.*s;", (int)r->once_key.n,
				 r->once_key.p);
		else
			snprintf(b->once_keys + n, sizeof(b->once_keys) - n, "#%llu;", (unsigned long long)r->once_seq);
	}
	pthread_mutex_unlock(&b->lock);
	return run;
}

static void work_ms(struct env *env, unsigned ms)
{
	uint64_t end = env_mono_ns(env) + ms * UINT64_C(1000000);

	while (env_mono_ns(env) < end) {
	}
}

static void answer_huge(struct rpc_request *r)
{
	size_t n = FRAME_PAYLOAD_MAX + 10;
	char *text = malloc(n);

	memset(text, 'x', n);
	rpc_answer_ok(r->worker, r->handle, span_of(text, n), NULL, 0);
	free(text);
}

static void release(struct worker *w, void *arg)
{
	struct box *b = arg;
	unsigned kept = 0;

	pthread_mutex_lock(&b->lock);
	for (unsigned i = 0; i < b->helds; i++)
		if (b->held[i].worker == w)
			rpc_answer_ok(w, b->held[i].handle, span_of("{\"text\":\"released\"}", 19), NULL, 0);
		else
			b->held[kept++] = b->held[i];
	b->helds = kept; /* an answer may let others in, which are held from the end of the turn on */
	pthread_mutex_unlock(&b->lock);
}

static void on_box(void *arg, struct rpc_request *r)
{
	struct worker *w = r->worker;
	unsigned run = box_note(arg, r);
	char text[100];

	if (says(r, "release"))
		release(w, arg);
	if (says(r, "work"))
		work_ms(w->service->env, 60);
	if (says(r, "hold") || !r->handle)
		return;
	if (says(r, "deny")) {
		rpc_answer_err(w, r->handle, ERR_DENIED, EFFECT_NONE, "not you");
	} else if (says(r, "done")) {
		rpc_answer_err(w, r->handle, ERR_FAILED, EFFECT_DONE, "half of it");
	} else if (says(r, "huge")) {
		answer_huge(r);
	} else {
		int n = snprintf(text, sizeof(text), "{\"text\":\"%s/%u\",\"number\":%u}", w->service->id, w->index,
				 run);
		rpc_answer_ok(w, r->handle, span_of(text, (size_t)n), NULL, 0);
	}
}

static int box_start(struct worker *w)
{
	static const char *const all[] = { "calls.boxRemote.get",  "calls.boxRemote.put",     "calls.boxRemote.once",
					   "calls.boxRemote.only", "calls.boxRemote.anybody", "calls.boxHandler.say" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		rpc_handle(w, schema_method(w->service->schema, all[i], strlen(all[i])), on_box,
			   &boxes[strcmp(w->service->id, "calls-2") == 0]);
	return 0;
}

static int lua_init(struct service *s)
{
	return service_lua(s, "lua");
}

const struct service_def calls_box = { .name = "calls", .worker_start = box_start };
const struct service_def calls_lua = { .name = "calls", .sqllog = true, .init_service = lua_init };
const struct service_def calls_caller = { .name = "caller" };
const struct service_def calls_other = { .name = "other" };

unsigned calls_run(unsigned which)
{
	struct box *b = box_of(which);

	pthread_mutex_lock(&b->lock);
	unsigned n = b->run;
	pthread_mutex_unlock(&b->lock);
	return n;
}

unsigned calls_held(unsigned which)
{
	struct box *b = box_of(which);

	pthread_mutex_lock(&b->lock);
	unsigned n = b->helds;
	pthread_mutex_unlock(&b->lock);
	return n;
}

const char *calls_once_keys(unsigned which)
{
	static char text[2000];
	struct box *b = box_of(which);

	pthread_mutex_lock(&b->lock);
	memcpy(text, b->once_keys, sizeof(text));
	pthread_mutex_unlock(&b->lock);
	return text;
}

void calls_release(struct calls *c, unsigned which)
{
	struct box *b = box_of(which);

	for (unsigned i = 0; i < c->s[which]->workers; i++)
		calls_on(c->s[which], i, release, b);
}

/* ---- a connector that keeps what it is told ------------------------------------------------------------------------ */

static void on_told(void *arg, struct rpc_request *r)
{
	struct service *s = r->worker->service;
	char path[600], *text;
	size_t n;
	struct buf b = BUF_INIT;

	(void)arg;
	snprintf(path, sizeof(path), "%s/told", s->var);
	if (env_file_load(s->env, path, 1 << 20, &text, &n) == 0) {
		buf_add(&b, text, n);
		free(text);
	}
	buf_addf(&b, "%s ", r->method->name);
	buf_add(&b, r->body.p, r->body.n);
	buf_addch(&b, '\n');
	ck_assert_int_eq(env_file_store(s->env, path, b.data, b.len, 0), 0);
	buf_release(&b);
	if (r->handle)
		rpc_answer_ok(r->worker, r->handle, span_of(NULL, 0), NULL, 0);
}

static int connector_start(struct worker *w)
{
	static const char *const all[] = { "connector.connectorRemote.push", "connector.connectorRemote.kick",
					   "connector.connectorRemote.attr" };

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		rpc_handle(w, schema_method(w->service->schema, all[i], strlen(all[i])), on_told, NULL);
	return 0;
}

const struct service_def calls_connector = { .name = "connector", .worker_start = connector_start };

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void config_write(struct calls *c, const struct calls_options *o)
{
	struct buf b = BUF_INIT;
	char root[512];

	ck_assert_ptr_nonnull(getcwd(root, sizeof(root)));
	buf_addstr(&b, "return { instances = {\n");
	for (unsigned i = 0; i < CALLS_INSTANCES; i++) {
		c->rpc[i] = ports_hold(&c->ports);
		c->http[i] = ports_hold(&c->ports);
		buf_addf(&b, "{ id = \"%s\", service = \"%s\", rpc = %u, http = %u, start = %s },\n", names[i].id,
			 names[i].service, c->rpc[i], c->http[i], i == CALLS_2 && !o->two ? "false" : "true");
	}
	buf_addf(&b, "},\npaths = { var = \"%s/var\", messages = \"%s/%s\" },\n", c->dir, o->messages ? c->dir : root,
		 o->messages ? o->messages : "build/tests.desc");
	buf_addf(&b, "log = { level = \"%s\" },\n", getenv("TEST_LOG") ? getenv("TEST_LOG") : "error");
	buf_addf(&b, "rpc = { timeout_ms = %u },\n", PATIENCE_MS); /* a test's own comes behind it, in its place */
	buf_addf(&b, "%s\ncalls = { threads = %u } }\n", o->lua ? o->lua : "", o->threads ? o->threads : 1);
	folder_write(c->dir, "deploy/cluster.lua", b.data, b.len);
	buf_release(&b);
}

static void folder_make(struct calls *c, const char *name)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/%s", c->dir, name);
	ck_assert_int_eq(mkdir(path, 0700), 0);
}

void calls_setup(struct calls *c, const struct calls_options *o)
{
	static const struct calls_options none;
	char *dir = folder_new();

	memset(c, 0, sizeof(*c));
	for (unsigned i = 0; i < 2; i++) {
		boxes[i].run = boxes[i].helds = 0;
		boxes[i].once_keys[0] = '\0';
	}
	snprintf(c->dir, sizeof(c->dir), "%s", dir);
	free(dir);
	folder_make(c, "deploy");
	folder_make(c, "var");
	folder_make(c, "lua");
	snprintf(c->config, sizeof(c->config), "%s/deploy/cluster.lua", c->dir);
	config_write(c, o ? o : &none);
	c->env = env_new();
}

void calls_teardown(struct calls *c)
{
	for (unsigned i = CALLS; i <= CALLS_2; i++)
		if (c->s[i] && calls_held(i))
			calls_release(c, i);
	for (unsigned i = 0; i < CALLS_INSTANCES; i++)
		calls_end(c, i);
	ports_release(&c->ports);
	env_free(c->env);
	folder_free(strdup(c->dir));
}

void calls_file(struct calls *c, const char *name, const char *text)
{
	char path[300];

	snprintf(path, sizeof(path), "lua/%s", name);
	folder_write(c->dir, path, text, strlen(text));
}

const char *calls_try(struct calls *c, unsigned which, const struct service_def *def)
{
	static char error[600];
	struct service_options o = { .config_file = c->config, .instance = names[which].id };

	ck_assert_ptr_null(c->s[which]);
	if (service_start(c->env, def, &o, error, sizeof(error), &c->s[which]) < 0) {
		c->s[which] = NULL;
		return error;
	}
	until(atomic_load(&c->s[which]->state) != SERVICE_STARTING);
	if (atomic_load(&c->s[which]->state) == SERVICE_READY)
		return NULL;
	loop_join(c->s[which]->control);
	snprintf(error, sizeof(error), "%s",
		 service_failure(c->s[which]) ? service_failure(c->s[which]) : "it ended without a reason");
	service_free(c->s[which]);
	c->s[which] = NULL;
	return error;
}

struct service *calls_begin(struct calls *c, unsigned which, const struct service_def *def)
{
	const char *error = calls_try(c, which, def);

	ck_assert_msg(!error, "%s: %s", names[which].id, error);
	return c->s[which];
}

void calls_end(struct calls *c, unsigned which)
{
	struct service *s = c->s[which];

	if (!s)
		return;
	service_stop(s);
	loop_join(s->control); /* its thread ends when all has ended; Check's limit bounds the wait */
	service_free(s);
	c->s[which] = NULL;
}

const char *calls_row(struct calls *c, unsigned which, const char *extra)
{
	static char text[4][300];
	static unsigned next;
	char *out = text[next++ % 4];
	unsigned workers = c->s[which] ? c->s[which]->workers : 1;

	snprintf(out, sizeof(*text),
		 "{ id = \"%s\", service = \"%s\", host = \"127.0.0.1\", rpc = %u, http = %u, workers = %u%s },",
		 names[which].id, names[which].service, c->rpc[which], c->http[which], workers, extra);
	return out;
}

/* Another name first: the reader must never see half a table. */
void calls_routes(struct calls *c, unsigned version, const char *rows)
{
	struct buf b = BUF_INIT;
	char path[400];

	buf_addf(&b, "return { version = %u, instances = { %s } }\n", version, rows);
	snprintf(path, sizeof(path), "%s/var/routes.lua", c->dir);
	ck_assert_int_eq(env_file_store(c->env, path, b.data, b.len, 0), 0);
	buf_release(&b);
}

/* ---- on a worker --------------------------------------------------------------------------------------------------- */

struct on {
	struct worker *w;
	void (*fn)(struct worker *w, void *arg);
	void *arg;
	struct flag done;
};

static void on_run(void *arg)
{
	struct on *x = arg;

	x->fn(x->w, x->arg);
	flag_raise(&x->done);
}

void calls_on(struct service *s, unsigned worker, void (*fn)(struct worker *w, void *arg), void *arg)
{
	struct on x = { .w = s->worker[worker], .fn = fn, .arg = arg };

	flag_init(&x.done);
	loop_call(x.w->loop, on_run, &x);
	ck_assert(flag_wait(&x.done, 1));
}

static void read_version(struct worker *w, void *arg)
{
	*(uint64_t *)arg = w->routes->version;
}

uint64_t calls_routes_version(struct service *s, unsigned worker)
{
	uint64_t version;

	calls_on(s, worker, read_version, &version);
	return version;
}

static void cut(struct worker *w, void *arg)
{
	(void)arg;
	rpc_server_close(w->server);
}

void calls_cut(struct service *s)
{
	for (unsigned i = 0; i < s->workers; i++)
		calls_on(s, i, cut, NULL);
}

int64_t calls_figure(struct service *s, const char *family)
{
	return metrics_total(s->metrics, family, NULL);
}

/* ---- calls ------------------------------------------------------------------------------------------------------------ */

static void reply_init(struct reply *r)
{
	memset(r, 0, sizeof(*r));
	flag_init(&r->done);
}

static void on_answer(void *arg, const struct rpc_answer *a)
{
	struct reply *r = arg;

	r->err = a->err;
	r->effect = a->effect;
	r->attrs = a->attrs;
	snprintf(r->message, sizeof(r->message), "%.*s", (int)a->message.n, a->message.n ? a->message.p : "");
	snprintf(r->body, sizeof(r->body), "%.*s", (int)a->body.n, a->body.n ? a->body.p : "");
	r->body_n = a->body.n;
	flag_raise(&r->done);
}

struct made {
	struct rpc_call call;
	struct reply *reply;
	const char *method;
};

static void make_call(struct worker *w, void *arg)
{
	struct made *m = arg;

	m->call.method = schema_method(w->schema, m->method, strlen(m->method));
	ck_assert_ptr_nonnull(m->call.method);
	m->call.json = true;
	if (!m->call.timeout_ms)
		m->call.timeout_ms = PATIENCE_MS;
	if (m->reply) {
		m->call.on_answer = on_answer;
		m->call.arg = m->reply;
	}
	uint64_t handle = rpc_call(w, &m->call);
	if (m->reply)
		m->reply->handle = handle;
}

void calls_call(struct service *s, unsigned worker, const char *method, struct rpc_call wish, struct reply *r)
{
	struct made m = { wish, r, method };

	reply_init(r);
	calls_on(s, worker, make_call, &m);
}

void calls_notify(struct service *s, unsigned worker, const char *method, struct rpc_call wish)
{
	struct made m = { wish, NULL, method };

	calls_on(s, worker, make_call, &m);
}

void reply_wait(struct reply *r)
{
	ck_assert_msg(flag_wait(&r->done, 1), "the call never ended");
}

void calls_ask(struct service *s, const char *method, const char *key, const char *json, struct reply *r)
{
	struct rpc_call wish = { .to = { .worker = -1, .key = span_of(key, strlen(key)) },
				 .body = span_of(json, strlen(json)) };

	calls_call(s, 0, method, wish, r);
	reply_wait(r);
}

struct cancelled {
	uint64_t handle;
	bool was;
};

static void cancel(struct worker *w, void *arg)
{
	struct cancelled *x = arg;

	x->was = rpc_cancel(w, x->handle);
}

bool calls_cancel(struct service *s, unsigned worker, uint64_t handle)
{
	struct cancelled x = { handle, false };

	calls_on(s, worker, cancel, &x);
	return x.was;
}

struct rpc_call calls_by_key(const char *key, const char *json)
{
	return (struct rpc_call){ .to = { .worker = -1, .key = span_of(key, strlen(key)) },
				  .body = span_of(json, strlen(json)) };
}

struct rpc_call calls_within(uint32_t ms, const char *json)
{
	struct rpc_call call = calls_by_key("k", json);

	call.timeout_ms = ms;
	return call;
}

void calls_both(struct calls *c)
{
	calls_begin(c, CALLS, &calls_box);
	calls_begin(c, CALLER, &calls_caller);
}

void calls_meet(struct calls *c)
{
	static struct reply r;

	calls_both(c);
	calls_ask(c->s[CALLER], "calls.boxRemote.get", "k", "{}", &r);
	ck_reply(&r, 0, EFFECT_NONE);
}

void ck_reply(const struct reply *r, int err, enum effect effect)
{
	ck_assert_msg(r->err == err && r->effect == effect, "%s, effect %s: %s", err_word(r->err),
		      effect_word(r->effect), r->message);
}
