#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/env_sim_http_text.h"
#include "common/env_sim_private.h"
/*
 * HTTP without its bytes: a request goes to who listens, its answer comes back, each as late as the link is.
 * One object is both ends: the server's until it has replied, the client's until it has its answer.
 */
#define LOOK_AGAIN_NS (20 * 1000000ull)

struct env_http {
	struct owned owned;
	struct obj obj;
	struct env_http *next; /* of the world */
	struct env_loop *loop;
	uint16_t port;
	void (*on_request)(void *arg, struct env_http_request *r);
	void *arg;
	struct env_http_request *requests;
};

/* A part of an answer that comes in pieces, on its way; they arrive in order. */
struct piece {
	struct piece *next;
	uint64_t at;
	size_t n;
	char bytes[];
};

struct env_http_request {
	struct obj obj;
	struct sim *w;
	unsigned from, to; /* for the link; to: known when it has arrived */
	struct host *to_host;
	uint16_t to_port;
	char *method, *path;
	struct text_pair *query, *headers;
	char *body;
	size_t n;
	bool flying;
	/* server */
	struct ready at_server;
	struct env_http *http; /* NULL: not there, or replied */
	struct env_http_request *next, **prev;
	/* client: a process, or the test */
	struct owned owned;
	struct ready at_client;
	struct env *env;
	struct sim_http_answer *outside;
	void (*on_answer)(void *arg, const struct env_http_answer *a);
	void *arg;
	bool waited_for;
	const struct env_http_stream_ops *ops; /* NULL: the answer comes whole */
	struct piece *pieces, **pieces_last;
	uint64_t idle_ns, heard, last_at; /* last_at: when the last piece arrives */
	char *in;                         /* what has arrived and is not told yet */
	size_t in_n;
	bool over, told;
	/* answer */
	int err, status;
	char *reply, content_type[64];
	size_t reply_n;
};

#define CONTAINER(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))

/* ---- a request's life ------------------------------------------------------------------------------------------- */

static void request_free(struct obj *o)
{
	struct env_http_request *r = CONTAINER(o, struct env_http_request, obj);
	http_pairs_free(r->query);
	http_pairs_free(r->headers);
	w_free(r->method);
	w_free(r->path);
	w_free(r->body);
	w_free(r->reply);
	w_free(r->in);
	for (struct piece *p = r->pieces, *next; p; p = next) {
		next = p->next;
		w_free(p);
	}
	w_free(r);
}

static void maybe_over(struct env_http_request *r)
{
	if (!r->flying && !r->http && !r->waited_for && !r->obj.dead)
		obj_kill(&r->obj);
}

static void leave_server(struct env_http_request *r)
{
	if (!r->http)
		return;
	*r->prev = r->next;
	if (r->next)
		r->next->prev = r->prev;
	ready_drop(&r->at_server);
	r->http = NULL;
}

static void leave_client(struct env_http_request *r)
{
	r->waited_for = false;
	ready_drop(&r->at_client);
	r->at_client.loop = NULL;
	if (r->env)
		owned_drop(&r->owned);
	r->env = NULL;
	maybe_over(r);
}

static void answer_outside(struct env_http_request *r)
{
	struct sim_http_answer *a = r->outside;
	a->err = r->err;
	a->status = r->status;
	a->n = r->reply_n;
	a->body = malloc(r->reply_n + 1);
	memcpy(a->body, r->reply ? r->reply : "", r->reply_n);
	a->body[r->reply_n] = '\0';
	snprintf(a->content_type, sizeof(a->content_type), "%s", r->content_type);
	a->done = true;
	leave_client(r);
}

static void run_answer(struct ready *ready)
{
	struct env_http_request *r = CONTAINER(ready, struct env_http_request, at_client);
	struct env_http_answer a = {
		.err = r->err, .status = r->status, .body = r->reply ? r->reply : "", .n = r->reply_n
	};
	obj_ref(&r->obj);
	leave_client(r);
	r->on_answer(r->arg, &a);
	obj_unref(&r->obj);
}

static void on_answered(struct sim *w, void *obj, uint64_t n)
{
	struct env_http_request *r = CONTAINER(obj, struct env_http_request, obj);
	(void)n;
	if (!r->waited_for)
		return;
	if (r->err != ERR_TIMEOUT && (r->pieces || link_between(w, r->from, r->to)->stalled)) {
		w_push(w, w->now + LOOK_AGAIN_NS, on_answered, obj, 0);
		return;
	}
	r->over = true;
	w_note(w, "http answer", (uint64_t)r->status, hash_bytes(0, r->reply ? r->reply : "", r->reply_n));
	w_say(w, "HTTP answer %d (%d) of %zu bytes for %s", r->status, r->err, r->reply_n, r->path);
	if (r->outside)
		answer_outside(r);
	else
		loop_ready(&r->at_client);
}

static void send_answer(struct env_http_request *r, int err)
{
	uint64_t at = w_now(r->w) + link_delay_ns(r->w, r->from, r->to);
	r->err = err;
	w_push(r->w, at > r->last_at ? at : r->last_at, on_answered, &r->obj, 0);
}

/* ---- an answer in pieces ------------------------------------------------------------------------------------------ */

static void take_in(struct env_http_request *r, const void *p, size_t n)
{
	if (!n)
		return;
	r->in = w_realloc(r->in, r->in_n + n);
	memcpy(r->in + r->in_n, p, n);
	r->in_n += n;
	r->heard = r->w->now;
}

static void on_pieces(struct sim *w, void *obj, uint64_t n)
{
	struct env_http_request *r = CONTAINER(obj, struct env_http_request, obj);
	struct piece *p;
	(void)n;
	if (!r->waited_for)
		return;
	if (link_between(w, r->from, r->to)->stalled) {
		w_push(w, w->now + LOOK_AGAIN_NS, on_pieces, obj, 0);
		return;
	}
	while ((p = r->pieces) && p->at <= w->now) {
		w_note(w, "http piece", p->n, hash_bytes(0, p->bytes, p->n));
		take_in(r, p->bytes, p->n);
		r->pieces = p->next;
		if (!r->pieces)
			r->pieces_last = &r->pieces;
		w_free(p);
	}
	loop_ready(&r->at_client);
}

bool sim_http_piece(struct env_http_request *r, const void *bytes, size_t n)
{
	struct piece *p = w_alloc(sizeof(*p) + n);
	uint64_t at = w_now(r->w) + link_delay_ns(r->w, r->from, r->to);
	assert(r->http && r->ops);
	r->last_at = at > r->last_at ? at : r->last_at;
	p->at = r->last_at;
	p->n = n;
	memcpy(p->bytes, bytes, n);
	*r->pieces_last = p;
	r->pieces_last = &p->next;
	w_push(r->w, p->at, on_pieces, &r->obj, 0);
	return r->waited_for;
}

static void on_idle(struct sim *w, void *obj, uint64_t n)
{
	struct env_http_request *r = CONTAINER(obj, struct env_http_request, obj);
	(void)n;
	if (!r->waited_for || r->over)
		return;
	if (w->now < r->heard + r->idle_ns) {
		w_push(w, r->heard + r->idle_ns, on_idle, obj, 0);
		return;
	}
	r->err = ERR_TIMEOUT;
	on_answered(w, obj, 0);
}

static void run_stream(struct ready *ready)
{
	struct env_http_request *r = CONTAINER(ready, struct env_http_request, at_client);
	char *bytes = r->in;
	size_t n = r->in_n;
	obj_ref(&r->obj);
	r->in = NULL;
	r->in_n = 0;
	if (n)
		r->ops->on_piece(r->arg, bytes, n);
	w_free(bytes);
	if (r->waited_for && r->over && !r->in && !r->told) {
		r->told = true;
		r->ops->on_end(r->arg, r->err, r->err ? 0 : r->status);
	}
	obj_unref(&r->obj);
}

static void on_timeout(struct sim *w, void *obj, uint64_t n)
{
	struct env_http_request *r = CONTAINER(obj, struct env_http_request, obj);
	(void)n;
	if (!r->waited_for || r->status || r->err)
		return;
	r->err = ERR_TIMEOUT;
	on_answered(w, obj, 0);
}

/* The server is gone with the request: the client sees its connection end. */
static void unanswered(struct env_http_request *r)
{
	leave_server(r);
	if (r->waited_for && !r->err && !r->status)
		send_answer(r, ERR_UNAVAILABLE);
	maybe_over(r);
}

static void run_request(struct ready *ready)
{
	struct env_http_request *r = CONTAINER(ready, struct env_http_request, at_server);
	r->http->on_request(r->http->arg, r);
}

static struct env_http *find_http(struct sim *w, const struct host *h, uint16_t port)
{
	struct env_http *http = w->https;
	while (http && (http->loop->env->p->host != h || http->port != port))
		http = http->next;
	return http;
}

bool http_listens(struct sim *w, const struct host *h, uint16_t port)
{
	return find_http(w, h, port) != NULL;
}

static void on_arrived(struct sim *w, void *obj, uint64_t n)
{
	struct env_http_request *r = CONTAINER(obj, struct env_http_request, obj);
	struct env_http *http = find_http(w, r->to_host, r->to_port);
	(void)n;
	r->to = http ? http->loop->env->p->index : r->from;
	if (link_between(w, r->from, r->to)->stalled || r->to_host->down) {
		r->flying = r->waited_for;
		if (r->flying)
			w_push(w, w->now + LOOK_AGAIN_NS, on_arrived, obj, 0);
		maybe_over(r);
		return;
	}
	r->flying = false;
	if (!http || link_between(w, r->from, r->to)->refused) {
		unanswered(r);
		return;
	}
	w_note(w, "http", r->to_port, hash_bytes(0, r->body, r->n));
	r->http = http;
	r->next = http->requests;
	r->prev = &http->requests;
	if (r->next)
		r->next->prev = &r->next;
	http->requests = r;
	r->at_server = (struct ready){ .loop = http->loop, .obj = &r->obj, .run = run_request };
	loop_ready(&r->at_server);
}

static struct env_http_request *request_new(struct sim *w, unsigned from, struct host *h, uint16_t port,
					    const char *method, const char *path_and_query, const char *const *headers,
					    const void *body, size_t n)
{
	struct env_http_request *r = w_alloc(sizeof(*r));
	size_t path = strcspn(path_and_query, "?");
	obj_init(&r->obj, request_free);
	r->w = w;
	r->from = r->to = from;
	r->to_host = h;
	r->to_port = port;
	r->method = w_strdup(method);
	r->path = http_decoded(path_and_query, path, false);
	http_query_parse(&r->query, path_and_query + path + (path_and_query[path] == '?'));
	http_headers_parse(&r->headers, headers);
	r->body = http_copy(body, n);
	r->n = n;
	r->flying = r->waited_for = true;
	w_say(w, "HTTP %s %s to %s:%u", method, path_and_query, h->name, port);
	w_push(w, w_now(w) + link_delay_ns(w, from, from), on_arrived, &r->obj, 0);
	return r;
}

/* ---- serving ------------------------------------------------------------------------------------------------------- */

static void http_free(struct obj *o)
{
	w_free(CONTAINER(o, struct env_http, obj));
}

static void http_gone(struct env_http *http)
{
	struct env_http **at = &http->loop->env->w->https;
	while (*at != http)
		at = &(*at)->next;
	*at = http->next;
	for (struct env_http_request *r; (r = http->requests);)
		unanswered(r);
	obj_kill(&http->obj);
}

static void http_died(struct owned *o, bool machine)
{
	(void)machine;
	http_gone(CONTAINER(o, struct env_http, owned));
}

int env_http_listen(struct env_loop *loop, const char *host, uint16_t port,
		    void (*on_request)(void *arg, struct env_http_request *r), void *arg, struct env_http **out)
{
	struct sim *w = loop->env->w;
	struct host *h = loop->env->p->host;
	struct env_http *http;
	(void)host;
	assert(env_loop_is_current(loop));
	if (port == 0)
		port = net_free_port(w, h);
	else if (net_listens(w, h, port))
		return ERR_EXISTS;
	*out = http = w_alloc(sizeof(*http));
	obj_init(&http->obj, http_free);
	http->loop = loop;
	http->port = port;
	http->on_request = on_request;
	http->arg = arg;
	http->next = w->https;
	w->https = http;
	owned_add(loop->env, &http->owned, http_died);
	return 0;
}

uint16_t env_http_port(const struct env_http *h)
{
	return h->port;
}

void env_http_close(struct env_http *h)
{
	if (!h)
		return;
	owned_drop(&h->owned);
	http_gone(h);
}

const char *env_http_method(const struct env_http_request *r)
{
	return r->method;
}
const char *env_http_path(const struct env_http_request *r)
{
	return r->path;
}
const char *env_http_query(const struct env_http_request *r, const char *name)
{
	return http_pairs_find(r->query, name, false);
}
const char *env_http_header(const struct env_http_request *r, const char *name)
{
	return http_pairs_find(r->headers, name, true);
}

void env_http_query_each(const struct env_http_request *r, void (*fn)(void *arg, const char *name, const char *value),
			 void *arg)
{
	for (const struct text_pair *p = r->query; p; p = p->next)
		fn(arg, p->name, p->value);
}

const void *env_http_body(const struct env_http_request *r, size_t *n)
{
	*n = r->n;
	return r->body;
}

void env_http_reply(struct env_http_request *r, int status, const char *content_type, const char *const *headers,
		    const void *body, size_t n)
{
	(void)headers; /* nobody in the simulation asks for them */
	assert(r->http && env_loop_is_current(r->http->loop));
	w_spend(r->w, 3000);
	if (r->waited_for && !r->err) {
		r->status = status;
		r->reply = http_copy(body, n);
		r->reply_n = n;
		if (r->ops && n)
			sim_http_piece(r, body, n);
		snprintf(r->content_type, sizeof(r->content_type), "%s", content_type ? content_type : "");
		send_answer(r, 0);
	}
	leave_server(r);
	maybe_over(r);
}

/* ---- calling ---------------------------------------------------------------------------------------------------------- */

static void caller_died(struct owned *o, bool machine)
{
	struct env_http_request *r = CONTAINER(o, struct env_http_request, owned);
	(void)machine;
	r->env = NULL; /* the list drops it itself */
	leave_client(r);
}

/* There is no TLS here: env_tls_new makes none. */
static struct env_http_request *request_of(struct env_loop *loop, const char *host, uint16_t port, const char *method,
					   const char *path_and_query, const char *const *headers, const void *body,
					   size_t n)
{
	struct env *env = loop->env;
	struct host *h = net_is_own_host(host) ? env->p->host : w_host(env->w, host);
	assert(env_loop_is_current(loop));
	w_spend(env->w, 5000);
	struct env_http_request *r =
		request_new(env->w, env->p->index, h, port, method, path_and_query, headers, body, n);
	r->env = env;
	return r;
}

int env_https_call(struct env_loop *loop, struct env_tls *tls, const char *host, uint16_t port, const char *method,
		   const char *path_and_query, const char *const *headers, const void *body, size_t n,
		   uint32_t timeout_ms, void (*on_answer)(void *arg, const struct env_http_answer *a), void *arg)
{
	assert(!tls);
	struct env_http_request *r = request_of(loop, host, port, method, path_and_query, headers, body, n);
	r->on_answer = on_answer;
	r->arg = arg;
	r->at_client = (struct ready){ .loop = loop, .obj = &r->obj, .run = run_answer };
	owned_add(r->env, &r->owned, caller_died);
	w_push(r->w, w_now(r->w) + timeout_ms * 1000000ull, on_timeout, &r->obj, 0);
	return 0;
}

int env_http_stream(struct env_loop *loop, struct env_tls *tls, const char *host, uint16_t port, const char *method,
		    const char *path_and_query, const char *const *headers, const void *body, size_t n,
		    uint32_t idle_ms, const struct env_http_stream_ops *ops, void *arg, struct env_http_stream **out)
{
	assert(!tls);
	struct env_http_request *r = request_of(loop, host, port, method, path_and_query, headers, body, n);
	r->ops = ops;
	r->arg = arg;
	r->pieces_last = &r->pieces;
	r->heard = w_now(r->w);
	r->idle_ns = idle_ms * 1000000ull;
	r->at_client = (struct ready){ .loop = loop, .obj = &r->obj, .run = run_stream };
	owned_add(r->env, &r->owned, caller_died);
	w_push(r->w, r->heard + r->idle_ns, on_idle, &r->obj, 0);
	*out = (struct env_http_stream *)r;
	return 0;
}

void env_http_stream_close(struct env_http_stream *s)
{
	if (s)
		leave_client((struct env_http_request *)s);
}

/* ---- from outside --------------------------------------------------------------------------------------------------------- */

static bool is_done(void *arg)
{
	return ((struct sim_http_answer *)arg)->done;
}

int sim_http(struct sim *w, const char *process, uint16_t port, const char *method, const char *path_and_query,
	     const char *const *headers, const void *body, size_t n, uint32_t ms, struct sim_http_answer *a)
{
	struct sim_process *p = sim_find(w, process);
	assert(p && "no simulated process has this name");
	*a = (struct sim_http_answer){ .done = false };
	struct env_http_request *r = request_new(w, 1, p->host, port, method, path_and_query, headers, body, n);
	r->outside = a;
	obj_ref(&r->obj);
	if (!sim_until(w, ms, is_done, a)) {
		a->err = ERR_TIMEOUT;
		leave_client(r); /* an answer that still comes must not touch the caller's memory */
	}
	obj_unref(&r->obj);
	return a->err < 0 ? a->err : a->status;
}

void sim_http_release(struct sim_http_answer *a)
{
	free(a->body);
	a->body = NULL;
}
