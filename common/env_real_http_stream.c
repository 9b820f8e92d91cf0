#include "common/env_real.h"
#include <assert.h>
#include <stdlib.h>
#include <event2/buffer.h>
#include <event2/http.h>

/*
 * The HTTP client's answers that come in pieces. evhttp only fills a buffer; what came is told from an event of our own, for
 * a connection cannot be freed from inside its own callback, and who hears a piece may close the stream.
 */
struct env_http_stream {
	struct env_http_stream *next, **prev;
	struct env_loop *loop;
	struct evhttp_connection *con;
	struct evbuffer *in;
	struct event idle, news;
	struct timeval idle_time;
	bool over, told;
	int err, status;
	const struct env_http_stream_ops *ops;
	void *arg;
};

void env_http_stream_close(struct env_http_stream *s)
{
	if (!s)
		return;
	assert(!env_real_current() || env_loop_is_current(s->loop));
	*s->prev = s->next;
	if (s->next)
		s->next->prev = s->prev;
	event_del(&s->idle);
	event_del(&s->news);
	if (s->con)
		evhttp_connection_free(s->con); /* with its request, without calling on_response */
	evbuffer_free(s->in);
	free(s);
}

void env_real_http_stream_stop(struct env_loop *l)
{
	while (l->streams)
		env_http_stream_close(l->streams);
}

static void stream_over(struct env_http_stream *s, int err)
{
	if (s->over)
		return;
	s->over = true;
	s->err = err;
	event_del(&s->idle);
	event_active(&s->news, EV_TIMEOUT, 1);
}

/* One piece per call, and on_end in one of its own: either may close the stream. */
static void on_news(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	struct env_http_stream *s = arg;
	size_t n = evbuffer_get_length(s->in);
	env_real_enter(s->loop);
	if (n) {
		char *bytes = malloc(n);
		if (!bytes) {
			stream_over(s, ERR_NOMEM);
			return;
		}
		evbuffer_remove(s->in, bytes, n);
		if (s->over)
			event_active(&s->news, EV_TIMEOUT, 1);
		s->ops->on_piece(s->arg, bytes, n);
		free(bytes);
	} else if (s->over && !s->told) {
		s->told = true;
		s->ops->on_end(s->arg, s->err, s->err ? 0 : s->status);
	}
}

static void on_idle(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	stream_over(arg, ERR_TIMEOUT);
}

static void on_chunk(struct evhttp_request *req, void *arg)
{
	struct env_http_stream *s = arg;
	s->status = evhttp_request_get_response_code(req);
	evbuffer_add_buffer(s->in, evhttp_request_get_input_buffer(req));
	if (!s->over)
		evtimer_add(&s->idle, &s->idle_time);
	event_active(&s->news, EV_TIMEOUT, 1);
}

static void on_response(struct evhttp_request *req, void *arg)
{
	struct env_http_stream *s = arg;
	if (req && evhttp_request_get_response_code(req)) {
		s->status = evhttp_request_get_response_code(req);
		evbuffer_add_buffer(s->in, evhttp_request_get_input_buffer(req));
		stream_over(s, 0);
	} else {
		stream_over(s, env_real_http_error(s->con));
	}
}

static struct env_http_stream *stream_new(struct env_loop *loop, struct env_tls *tls, const char *host, uint16_t port,
					  uint32_t idle_ms)
{
	struct env_http_stream *s = calloc(1, sizeof *s);
	if (!s || !(s->in = evbuffer_new())) {
		free(s);
		return NULL;
	}
	s->loop = loop;
	s->idle_time = (struct timeval){ .tv_sec = idle_ms / 1000, .tv_usec = idle_ms % 1000 * 1000 };
	s->next = loop->streams;
	s->prev = &loop->streams;
	if (s->next)
		s->next->prev = &s->next;
	loop->streams = s;
	evtimer_assign(&s->idle, loop->base, on_idle, s);
	event_assign(&s->news, loop->base, -1, 0, on_news, s);
	if (!(s->con = env_real_http_connect(loop, tls, host, port))) {
		env_http_stream_close(s);
		return NULL;
	}
	evtimer_add(&s->idle, &s->idle_time);
	struct timeval later = s->idle_time;
	later.tv_sec++; /* evhttp's must not come first: it looks like a lost connection */
	evhttp_connection_set_timeout_tv(s->con, &later);
	return s;
}

int env_http_stream(struct env_loop *loop, struct env_tls *tls, const char *host, uint16_t port, const char *method,
		    const char *path_and_query, const char *const *headers, const void *body, size_t n,
		    uint32_t idle_ms, const struct env_http_stream_ops *ops, void *arg, struct env_http_stream **out)
{
	assert(env_loop_is_current(loop));
	if (!env_real_http_can(host, method))
		return ERR_BAD_REQUEST;
	struct env_http_stream *s = stream_new(loop, tls, host, port, idle_ms);
	if (!s)
		return ERR_NOMEM;
	s->ops = ops;
	s->arg = arg;
	struct evhttp_request *req = evhttp_request_new(on_response, s);
	if (req)
		evhttp_request_set_chunked_cb(req, on_chunk);
	int err = !req ? ERR_NOMEM
		       : env_real_http_send(s->con, req, host, port, method, path_and_query, headers, body, n);
	if (err == ERR_UNAVAILABLE) {
		stream_over(s, err);
	} else if (err < 0) {
		if (req)
			evhttp_request_free(req);
		env_http_stream_close(s);
		return err;
	}
	*out = s;
	return 0;
}
