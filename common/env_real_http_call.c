#include "common/env_real.h"
#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <openssl/ssl.h>

/* The HTTP client: one connection per call, and a deadline over all of it (evhttp's own is per read). */
enum { HEADER_BYTES_MAX = 64 * 1024, BODY_BYTES_MAX = 64 * 1024 * 1024 };

struct http_call {
	struct http_call *next, **prev;
	struct env_loop *loop;
	struct evhttp_connection *con;
	struct event deadline, done;
	struct env_http_answer answer;
	char *body;
	void (*on_answer)(void *arg, const struct env_http_answer *a);
	void *arg;
};

static void call_free(struct http_call *c)
{
	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	event_del(&c->deadline);
	event_del(&c->done);
	if (c->con)
		evhttp_connection_free(c->con); /* with its request, without calling on_response */
	free(c->body);
	free(c);
}

void env_real_http_stop(struct env_loop *l)
{
	while (l->calls)
		call_free(l->calls);
}

static void finish(struct http_call *c)
{
	void (*on_answer)(void *arg, const struct env_http_answer *a) = c->on_answer;
	on_answer(c->arg, &c->answer);
	call_free(c);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct http_call *c = arg;
	env_real_enter(c->loop);
	c->answer = (struct env_http_answer){ .err = ERR_TIMEOUT, .body = "" };
	finish(c);
}

static void on_done(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct http_call *c = arg;
	env_real_enter(c->loop);
	finish(c);
}

/* Only keeps the answer: the connection cannot be freed from inside its own callback. */
static void on_response(struct evhttp_request *req, void *arg)
{
	struct http_call *c = arg;
	int status = req ? evhttp_request_get_response_code(req) : 0;
	if (status) {
		struct evbuffer *in = evhttp_request_get_input_buffer(req);
		size_t n = evbuffer_get_length(in);
		if ((c->body = malloc(n + 1))) {
			evbuffer_copyout(in, c->body, n);
			c->body[n] = '\0';
			c->answer = (struct env_http_answer){ .status = status, .body = c->body, .n = n };
		}
	} else {
		c->answer.err = env_real_http_error(c->con);
	}
	event_active(&c->done, EV_TIMEOUT, 1);
}

static int command(const char *method, enum evhttp_cmd_type *out)
{
	static const struct {
		const char *name;
		enum evhttp_cmd_type type;
	} methods[] = {
		{ "GET", EVHTTP_REQ_GET }, { "POST", EVHTTP_REQ_POST },     { "HEAD", EVHTTP_REQ_HEAD },
		{ "PUT", EVHTTP_REQ_PUT }, { "DELETE", EVHTTP_REQ_DELETE },
	};
	for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
		if (!strcmp(methods[i].name, method)) {
			*out = methods[i].type;
			return 0;
		}
	}
	return ERR_BAD_REQUEST;
}

static bool is_address(const char *host)
{
	unsigned char bytes[sizeof(struct in6_addr)];
	return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

static int add_headers(struct evkeyvalq *out, const char *host, uint16_t port, const char *const *headers)
{
	char text[ENV_ADDR_MAX];
	snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
	evhttp_add_header(out, "Host", text);
	evhttp_add_header(out, "Connection", "close");
	for (; headers && *headers; headers++) {
		char name[128];
		const char *colon = strchr(*headers, ':');
		if (!colon || (size_t)(colon - *headers) >= sizeof name)
			return ERR_BAD_REQUEST;
		snprintf(name, sizeof name, "%.*s", (int)(colon - *headers), *headers);
		if (evhttp_add_header(out, name, colon + 1 + strspn(colon + 1, " ")) < 0)
			return ERR_BAD_REQUEST; /* a line break in it */
	}
	return 0;
}

bool env_real_http_can(const char *host, const char *method)
{
	enum evhttp_cmd_type type;
	return is_address(host) && command(method, &type) == 0;
}

static struct bufferevent *tls_bufferevent(struct env_loop *l, struct env_tls *tls, const char *host)
{
	SSL *ssl = env_real_tls_client(tls, host);
	if (!ssl)
		return NULL;
	struct bufferevent *b =
		bufferevent_openssl_socket_new(l->base, -1, ssl, BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE);
	if (b)
		bufferevent_openssl_set_allow_dirty_shutdown(b, 1); /* whether an answer is whole HTTP says */
	else
		SSL_free(ssl);
	return b;
}

int env_real_http_error(struct evhttp_connection *con)
{
	struct bufferevent *b = evhttp_connection_get_bufferevent(con);
	SSL *ssl = bufferevent_openssl_get_ssl(b);
	return ssl && env_real_tls_failed(ssl, bufferevent_get_openssl_error(b)) ? ERR_DENIED : ERR_UNAVAILABLE;
}

struct evhttp_connection *env_real_http_connect(struct env_loop *l, struct env_tls *tls, const char *host,
						uint16_t port)
{
	struct bufferevent *b = tls ? tls_bufferevent(l, tls, host) : NULL;
	if (tls && !b)
		return NULL;
	struct evhttp_connection *con = evhttp_connection_base_bufferevent_new(l->base, NULL, b, host, port);
	if (b && !con)
		bufferevent_free(b);
	if (con) {
		evhttp_connection_set_max_headers_size(con, HEADER_BYTES_MAX);
		evhttp_connection_set_max_body_size(con, BODY_BYTES_MAX);
	}
	return con;
}

/* 0: req is evhttp's now; ERR_UNAVAILABLE: it could not be sent, and is freed; else it is the caller's still. */
int env_real_http_send(struct evhttp_connection *con, struct evhttp_request *req, const char *host, uint16_t port,
		       const char *method, const char *path_and_query, const char *const *headers, const void *body,
		       size_t n)
{
	enum evhttp_cmd_type type;
	int err = command(method, &type);
	if (err == 0)
		err = add_headers(evhttp_request_get_output_headers(req), host, port, headers);
	if (err < 0)
		return err;
	if (n)
		evbuffer_add(evhttp_request_get_output_buffer(req), body, n);
	return evhttp_make_request(con, req, type, path_and_query) < 0 ? ERR_UNAVAILABLE : 0;
}

static struct http_call *call_new(struct env_loop *loop, struct env_tls *tls, const char *host, uint16_t port,
				  uint32_t timeout_ms)
{
	struct http_call *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	struct timeval timeout = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
	*c = (struct http_call){ .next = loop->calls, .prev = &loop->calls, .loop = loop };
	c->answer = (struct env_http_answer){ .err = ERR_UNAVAILABLE, .body = "" };
	if (c->next)
		c->next->prev = &c->next;
	loop->calls = c;
	evtimer_assign(&c->deadline, loop->base, on_deadline, c);
	event_assign(&c->done, loop->base, -1, 0, on_done, c);
	if (!(c->con = env_real_http_connect(loop, tls, host, port))) {
		call_free(c);
		return NULL;
	}
	evtimer_add(&c->deadline, &timeout);
	timeout.tv_sec++; /* evhttp's must not come first: it looks like a lost connection */
	evhttp_connection_set_timeout_tv(c->con, &timeout);
	return c;
}

int env_https_call(struct env_loop *loop, struct env_tls *tls, const char *host, uint16_t port, const char *method,
		   const char *path_and_query, const char *const *headers, const void *body, size_t n,
		   uint32_t timeout_ms, void (*on_answer)(void *arg, const struct env_http_answer *a), void *arg)
{
	assert(env_loop_is_current(loop));
	if (!env_real_http_can(host, method))
		return ERR_BAD_REQUEST;
	struct http_call *c = call_new(loop, tls, host, port, timeout_ms);
	if (!c)
		return ERR_NOMEM;
	c->on_answer = on_answer;
	c->arg = arg;
	struct evhttp_request *req = evhttp_request_new(on_response, c);
	int err = !req ? ERR_NOMEM
		       : env_real_http_send(c->con, req, host, port, method, path_and_query, headers, body, n);
	if (err == ERR_UNAVAILABLE) {
		event_active(&c->done, EV_TIMEOUT, 1); /* the answer stays "unavailable" and comes as all others do */
	} else if (err < 0) {
		if (req)
			evhttp_request_free(req);
		call_free(c);
		return err;
	}
	return 0;
}
