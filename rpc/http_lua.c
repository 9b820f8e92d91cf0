#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app.h"
#include "rpc/http.h"
#include "rpc/http_private.h"

/* What the HTTP face hands to the workers' Lua, and what it gets from them. */

/* ---- a request that a worker's Lua answers ---------------------------------------------------------------------------------------------- */

/* The worker gets copies: the request itself belongs to the control thread. */
struct hooked {
	struct http_face *face;
	struct env_http_request *request;
	struct worker *worker;
	struct app_http q;
	void (*run)(struct hooked *k);
	char *path, *signature, *body;
	int status;
	struct buf content;
};

static void hooked_free(struct hooked *k)
{
	k->face->pending--;
	buf_release(&k->content);
	free(k->path);
	free(k->signature);
	free(k->body);
	free(k);
}

static void hooked_reply(void *arg)
{
	struct hooked *k = arg;

	http_json(k->request, k->status, &k->content);
	hooked_free(k);
}

static void hooked_answer(void *arg, int status, const char *content, size_t n)
{
	struct hooked *k = arg;

	k->status = status;
	buf_add(&k->content, content, n);
	loop_call(k->face->service->control, hooked_reply, k);
}

static void run_hook(struct hooked *k)
{
	static const char text[] = "there is no such page here";

	if (k->worker->app && app_has_http(k->worker->app)) {
		app_http(k->worker->app, &k->q);
		return;
	}
	k->status = err_http(ERR_NOT_FOUND);
	http_error_body(&k->content, ERR_NOT_FOUND, EFFECT_NONE, span_of(text, sizeof text - 1));
	loop_call(k->face->service->control, hooked_reply, k);
}

static char *copy(const void *p, size_t n)
{
	char *text = malloc(n + 1);

	assert(text);
	if (n)
		memcpy(text, p, n);
	text[n] = '\0';
	return text;
}

static void hooked_run(void *arg)
{
	struct hooked *k = arg;

	k->run(k);
}

static void to_worker(struct http_face *h, struct env_http_request *r, unsigned worker, void (*run)(struct hooked *k))
{
	struct hooked *k = calloc(1, sizeof *k);
	const char *signature = env_http_header(r, "X-Signature"), *path = env_http_path(r);
	size_t n;
	const void *body = env_http_body(r, &n);

	assert(k);
	*k = (struct hooked){ .face = h, .request = r, .worker = h->service->worker[worker], .run = run };
	k->path = copy(path, strlen(path));
	k->signature = signature ? copy(signature, strlen(signature)) : NULL;
	k->body = copy(body, n);
	k->q = (struct app_http){
		.method = env_http_method(r),
		.path = k->path,
		.signature = k->signature,
		.body = k->body,
		.body_n = n,
		.on_answer = hooked_answer,
		.arg = k,
	};
	h->pending++;
	loop_call(k->worker->loop, hooked_run, k);
}

void http_hook(struct http_face *h, struct env_http_request *r)
{
	to_worker(h, r, 0, run_hook);
}

/* ---- /admin/console?worker=N: a line of Lua --------------------------------------------------------------------------- */

#define CONSOLE_BYTES 65536

/* A number from min to max in the query; otherwise what is said, or -1: it is wrong. */
static int query_int(struct env_http_request *r, const char *name, int min, int max, int otherwise)
{
	const char *text = env_http_query(r, name);
	char *end;
	long v;

	if (!text)
		return otherwise;
	v = strtol(text, &end, 10);
	return *text && !*end && v >= min && v <= max ? (int)v : -1;
}

static void run_console(struct hooked *k)
{
	app_console(k->worker->app, &k->q);
}

void http_console(struct http_face *h, struct env_http_request *r)
{
	struct service *s = h->service;
	int worker = query_int(r, "worker", 0, (int)s->workers - 1, 0);
	size_t n;
	const char *code = env_http_body(r, &n);

	if (!s->lua_src) {
		http_refuse(r, ERR_NOT_FOUND, "this service has no Lua");
	} else if (worker < 0) {
		http_refuse(r, ERR_BAD_REQUEST, "worker: this instance has no such worker");
	} else if (n > CONSOLE_BYTES) {
		http_refuse(r, ERR_BAD_REQUEST, "a line of at most 65536 bytes");
	} else {
		log_warn(s->log, "lua.console", "worker=%d code=%.*s", worker, (int)(n < 500 ? n : 500), n ? code : "");
		to_worker(h, r, (unsigned)worker, run_console);
	}
}

/* ---- /admin/profile?seconds=S&hz=N: folded stacks of all workers ------------------------------------------------------- */

struct profiling {
	struct http_face *face;
	struct env_http_request *request;
	struct timer tick;
	uint64_t until_ms;
	uint32_t every_ms;
	unsigned left;
	bool begun;
	int err;
	struct profiled {
		struct profiling *whole;
		struct worker *worker;
		int err;
		struct buf text;
	} part[];
};

static void profiling_end(struct profiling *p)
{
	struct service *s = p->face->service;
	struct buf all = BUF_INIT;

	for (unsigned i = 0; i < s->workers; i++) {
		buf_add(&all, p->part[i].text.data, p->part[i].text.len);
		buf_release(&p->part[i].text);
	}
	if (p->err < 0)
		http_refuse(p->request, p->err, "no profile can be made here now");
	else
		env_http_reply(p->request, 200, "text/plain; charset=utf-8", NULL, all.data ? all.data : "", all.len);
	buf_release(&all);
	p->face->pending--;
	p->face->profiling = NULL;
	free(p);
}

static void profiling_run(struct profiling *p, void (*fn)(void *arg))
{
	struct service *s = p->face->service;

	p->left = s->workers;
	for (unsigned i = 0; i < s->workers; i++)
		loop_call(s->worker[i]->loop, fn, &p->part[i]);
}

static void profiling_part_done(void *arg);

static void part_end(void *arg)
{
	struct profiled *d = arg;

	if (d->err == 0)
		luahost_profile_end(app_host(d->worker->app), &d->text);
	loop_call(d->worker->service->control, profiling_part_done, d);
}

static void on_profile_tick(struct timer *t, uint64_t now_ms)
{
	struct profiling *p = (struct profiling *)((char *)t - offsetof(struct profiling, tick));
	struct service *s = p->face->service;

	if (now_ms >= p->until_ms || atomic_load(&s->state) != SERVICE_READY) {
		profiling_run(p, part_end);
		return;
	}
	for (unsigned i = 0; i < s->workers; i++)
		luahost_profile_tick(app_host(s->worker[i]->app));
	loop_timer(s->control, t, p->every_ms);
}

static void profiling_part_done(void *arg)
{
	struct profiled *d = arg;
	struct profiling *p = d->whole;

	p->err = p->err < 0 ? p->err : d->err;
	if (--p->left)
		return;
	if (p->begun) {
		profiling_end(p);
		return;
	}
	p->begun = true;
	if (p->err < 0) { /* of some it was begun, perhaps */
		profiling_run(p, part_end);
		return;
	}
	p->tick.fire = on_profile_tick;
	p->until_ms += p->face->service->control->now_ms;
	loop_timer(p->face->service->control, &p->tick, p->every_ms);
}

static void part_begin(void *arg)
{
	struct profiled *d = arg;

	d->err = luahost_profile_begin(app_host(d->worker->app));
	loop_call(d->worker->service->control, profiling_part_done, d);
}

void http_profile(struct http_face *h, struct env_http_request *r)
{
	struct service *s = h->service;
	int seconds = query_int(r, "seconds", 1, 40, 5), hz = query_int(r, "hz", 1, 1000, 100);
	struct profiling *p;

	if (!s->lua_src || seconds < 0 || hz < 0) {
		http_refuse(r, s->lua_src ? ERR_BAD_REQUEST : ERR_NOT_FOUND,
			    s->lua_src ? "seconds from 1 to 40, hz from 1 to 1000" : "this service has no Lua");
		return;
	}
	if (h->profiling) {
		http_refuse(r, ERR_BUSY, "a profile is being made here");
		return;
	}
	p = calloc(1, sizeof *p + s->workers * sizeof *p->part);
	assert(p);
	p->face = h;
	p->request = r;
	p->every_ms = (uint32_t)(1000 / hz);
	p->until_ms = (uint64_t)seconds * 1000;
	for (unsigned i = 0; i < s->workers; i++) {
		p->part[i].whole = p;
		p->part[i].worker = s->worker[i];
		buf_init(&p->part[i].text);
	}
	h->pending++;
	h->profiling = p;
	profiling_run(p, part_begin);
}

void http_profile_shut(struct http_face *h)
{
	struct profiling *p = h->profiling;

	if (!p || !timer_running(&p->tick))
		return;
	loop_timer_stop(h->service->control, &p->tick);
	profiling_run(p, part_end);
}
