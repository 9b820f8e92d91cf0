#include "common/env_real.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

/* The HTTP server: evhttp parses, this decodes, bounds and keeps track of what is not answered yet. */
enum {
	HEADER_BYTES_MAX = 16 * 1024,
	BODY_BYTES_MAX = 1024 * 1024,
	IDLE_S = 30, /* a connection on which nothing moves is closed */
	REST_MS = 100,
};

struct param {
	char *name, *value;
};

struct env_http_request {
	struct env_http_request *next, **prev;
	struct evhttp_request *req; /* NULL: the server was closed meanwhile */
	char *path;
	struct param *params;
	size_t params_n;
};

struct env_http {
	struct env_http *next; /* of the loop's */
	struct env_loop *loop;
	struct evhttp *http;
	struct evconnlistener *listener;
	struct event rest;
	uint16_t port;
	void (*on_request)(void *arg, struct env_http_request *r);
	void *arg;
	struct env_http_request *open;
};

/* ---- decoding ---------------------------------------------------------------------------------------- */

/* NULL: a NUL inside (%00), which would let two parts of the program see two different texts; or no memory. */
static char *decoded(const char *text, size_t n, bool plus)
{
	char *copy = strndup(text, n), *plain = NULL;
	size_t bytes = 0;
	if (copy)
		plain = evhttp_uridecode(copy, plus, &bytes);
	free(copy);
	if (plain && strlen(plain) == bytes)
		return plain;
	free(plain);
	return NULL;
}

static int param_decode(struct param *p, const char *text, size_t n)
{
	const char *equals = memchr(text, '=', n);
	size_t name_bytes = equals ? (size_t)(equals - text) : n;
	p->name = decoded(text, name_bytes, true);
	p->value = equals ? decoded(equals + 1, n - name_bytes - 1, true) : strdup("");
	return p->name && p->value ? 0 : ERR_BAD_REQUEST;
}

/* "a=1&b&c=%20" */
static int params_decode(struct env_http_request *r, const char *query)
{
	size_t most = 1;
	for (const char *p = query; *p; p++)
		most += *p == '&';
	if (!(r->params = calloc(most, sizeof *r->params)))
		return ERR_NOMEM;
	while (*query) {
		size_t n = strcspn(query, "&");
		if (n && param_decode(&r->params[r->params_n++], query, n) < 0)
			return ERR_BAD_REQUEST;
		query += n + (query[n] == '&');
	}
	return 0;
}

static int request_decode(struct env_http_request *r)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(r->req);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL, *query = uri ? evhttp_uri_get_query(uri) : NULL;
	if (!path || !*path)
		path = "/";
	if (!(r->path = decoded(path, strlen(path), false)))
		return ERR_BAD_REQUEST;
	return query ? params_decode(r, query) : 0;
}

/* ---- a request's life ----------------------------------------------------------------------------------- */

static void unlink_request(struct env_http_request *r)
{
	*r->prev = r->next;
	if (r->next)
		r->next->prev = r->prev;
}

static void request_free(struct env_http_request *r)
{
	for (size_t i = 0; i < r->params_n; i++) {
		free(r->params[i].name);
		free(r->params[i].value);
	}
	free(r->params);
	free(r->path);
	free(r);
}

static void on_evhttp_request(struct evhttp_request *req, void *arg)
{
	struct env_http *h = arg;
	env_real_enter(h->loop);
	struct env_http_request *r = calloc(1, sizeof *r);
	if (!r) {
		evhttp_send_error(req, 503, NULL);
		return;
	}
	r->req = req;
	if (request_decode(r) < 0) {
		evhttp_send_error(req, 400, NULL);
		request_free(r);
		return;
	}
	r->next = h->open;
	r->prev = &h->open;
	if (h->open)
		h->open->prev = &r->next;
	h->open = r;
	h->on_request(h->arg, r);
}

static void add_header(struct evkeyvalq *headers, const char *line)
{
	char name[128];
	const char *colon = strchr(line, ':');
	assert(colon && (size_t)(colon - line) < sizeof name);
	snprintf(name, sizeof name, "%.*s", (int)(colon - line), line);
	evhttp_add_header(headers, name, colon + 1 + strspn(colon + 1, " ")); /* refuses line breaks */
}

void env_http_reply(struct env_http_request *r, int status, const char *content_type, const char *const *headers,
		    const void *body, size_t n)
{
	if (r->req) {
		struct evkeyvalq *out = evhttp_request_get_output_headers(r->req);
		unlink_request(r);
		if (content_type)
			evhttp_add_header(out, "Content-Type", content_type);
		for (; headers && *headers; headers++)
			add_header(out, *headers);
		if (n)
			evbuffer_add(evhttp_request_get_output_buffer(r->req), body, n);
		evhttp_send_reply(r->req, status, NULL, NULL); /* frees req, also if the client is gone */
	}
	request_free(r);
}

/* ---- what a request says ---------------------------------------------------------------------------------- */

const char *env_http_method(const struct env_http_request *r)
{
	static const struct {
		enum evhttp_cmd_type type;
		const char *name;
	} methods[] = {
		{ EVHTTP_REQ_GET, "GET" },     { EVHTTP_REQ_POST, "POST" },     { EVHTTP_REQ_HEAD, "HEAD" },
		{ EVHTTP_REQ_PUT, "PUT" },     { EVHTTP_REQ_DELETE, "DELETE" }, { EVHTTP_REQ_OPTIONS, "OPTIONS" },
		{ EVHTTP_REQ_PATCH, "PATCH" },
	};
	for (size_t i = 0; r->req && i < sizeof methods / sizeof methods[0]; i++)
		if (methods[i].type == evhttp_request_get_command(r->req))
			return methods[i].name;
	return "";
}

const char *env_http_path(const struct env_http_request *r)
{
	return r->path;
}

const char *env_http_query(const struct env_http_request *r, const char *name)
{
	for (size_t i = 0; i < r->params_n; i++)
		if (!strcmp(r->params[i].name, name))
			return r->params[i].value;
	return NULL;
}

void env_http_query_each(const struct env_http_request *r, void (*fn)(void *arg, const char *name, const char *value),
			 void *arg)
{
	for (size_t i = 0; i < r->params_n; i++)
		fn(arg, r->params[i].name, r->params[i].value);
}

const char *env_http_header(const struct env_http_request *r, const char *name)
{
	return r->req ? evhttp_find_header(evhttp_request_get_input_headers(r->req), name) : NULL;
}

const void *env_http_body(const struct env_http_request *r, size_t *n)
{
	struct evbuffer *in = r->req ? evhttp_request_get_input_buffer(r->req) : NULL;
	*n = in ? evbuffer_get_length(in) : 0;
	return *n ? evbuffer_pullup(in, -1) : (const void *)"";
}

/* ---- the server -------------------------------------------------------------------------------------------- */

/* Out of descriptors: the connection stays in the backlog, and asking again at once would spin. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
	(void)arg; /* evhttp's own */
	struct timeval rest = { .tv_usec = REST_MS * 1000 };
	struct env_http *h = env_real_current()->https;
	while (h->listener != listener)
		h = h->next;
	evconnlistener_disable(listener);
	event_add(&h->rest, &rest);
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_http *h = arg;
	evconnlistener_enable(h->listener);
}

static void bound(struct evhttp *http)
{
	evhttp_set_max_headers_size(http, HEADER_BYTES_MAX);
	evhttp_set_max_body_size(http, BODY_BYTES_MAX);
	evhttp_set_timeout(http, IDLE_S);
	evhttp_set_default_content_type(http, NULL);
	evhttp_set_allowed_methods(http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT |
						 EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
}

static int server_start(struct env_http *h, int fd)
{
	struct evhttp_bound_socket *handle;
	if (!(h->http = evhttp_new(h->loop->base)))
		return ERR_NOMEM;
	bound(h->http);
	evhttp_set_gencb(h->http, on_evhttp_request, h);
	if (!(handle = evhttp_accept_socket_with_handle(h->http, fd)))
		return ERR_NOMEM;
	h->listener = evhttp_bound_socket_get_listener(handle);
	evconnlistener_set_error_cb(h->listener, on_accept_error);
	evtimer_assign(&h->rest, h->loop->base, on_rested, h);
	return 0;
}

int env_http_listen(struct env_loop *loop, const char *host, uint16_t port,
		    void (*on_request)(void *arg, struct env_http_request *r), void *arg, struct env_http **out)
{
	assert(env_loop_is_current(loop));
	int err, fd = env_real_listen(host, port);
	if (fd < 0)
		return fd;
	struct env_http *h = calloc(1, sizeof *h);
	if (!h) {
		close(fd);
		return ERR_NOMEM;
	}
	*h = (struct env_http){ .loop = loop, .port = env_real_port(fd), .on_request = on_request, .arg = arg };
	if ((err = server_start(h, fd)) < 0) {
		if (h->http)
			evhttp_free(h->http);
		close(fd);
		free(h);
		return err;
	}
	h->next = loop->https;
	loop->https = h;
	*out = h;
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
	assert(env_loop_is_current(h->loop));
	for (struct env_http_request *r = h->open; r; r = r->next) {
		if (!evhttp_request_get_connection(r->req))
			evhttp_request_free(r->req); /* its client is gone: it belongs to nobody else */
		r->req = NULL;
	}
	struct env_http **at = &h->loop->https;
	while (*at != h)
		at = &(*at)->next;
	*at = h->next;
	event_del(&h->rest);
	evhttp_free(h->http);
	free(h);
}
