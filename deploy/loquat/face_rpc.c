#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "deploy/loquat/supervisor.h"

/*
 * Calls over HTTP at the supervisor's port. It has no part in rpc itself: a process of this cluster makes the call, one
 * of the service that is asked if there is any, and its answer is passed on as it is. That process looks at the key.
 */
#define CALL_MS 40000 /* over every deadline of a call */

static const struct instance *caller(const struct supervisor *up, const char *service)
{
	const struct instance *any = NULL;

	for (size_t k = 0; k < up->instances; k++) {
		const struct instance *i = &up->instance[k];
		size_t n = strlen(i->row->service);

		if (i->child.state != CHILD_READY || !i->row->http_port)
			continue;
		if (strncmp(service, i->row->service, n) == 0 && service[n] == '/')
			return i;
		any = any ? any : i;
	}
	return any;
}

struct passing {
	struct supervisor *up;
	struct env_http_request *request;
};

static void on_answer(void *arg, const struct env_http_answer *a)
{
	struct passing *p = arg;

	if (!p->up->http) { /* the request is gone with it */
	} else if (a->err < 0) {
		face_refuse(p->request, a->err, "the process that made this call does not answer");
	} else {
		env_http_reply(p->request, a->status, "application/json", NULL, a->body, a->n);
	}
	free(p);
}

static void query_add(void *arg, const char *name, const char *value)
{
	struct buf *b = arg;

	buf_addch(b, memchr(b->data, '?', b->len) ? '&' : '?');
	url_add(b, name);
	buf_addch(b, '=');
	url_add(b, value);
}

/* The request's path and query, escaped anew. */
static void url_of(const struct env_http_request *r, struct buf *out)
{
	const char *path = env_http_path(r);

	for (; *path; path++) {
		if (*path == '/')
			buf_addch(out, '/');
		else
			url_add(out, (char[]){ *path, '\0' });
	}
	env_http_query_each(r, query_add, out);
}

void face_rpc(struct supervisor *up, struct env_http_request *r)
{
	const struct instance *i = caller(up, env_http_path(r) + strlen("/rpc/"));
	const char *key = env_http_header(r, "Authorization"), *headers[] = { NULL, NULL };
	struct buf url = BUF_INIT, authorization = BUF_INIT;
	struct passing *p = i ? malloc(sizeof *p) : NULL;
	int err = ERR_UNAVAILABLE;
	size_t n;
	const void *body = env_http_body(r, &n);

	if (p) {
		*p = (struct passing){ up, r };
		url_of(r, &url);
		if (key) {
			buf_addf(&authorization, "Authorization: %s", key);
			headers[0] = buf_cstr(&authorization);
		}
		err = env_http_call(up->loop->ev, i->row->host, i->row->http_port, env_http_method(r), buf_cstr(&url),
				    headers, body, n, CALL_MS, on_answer, p);
	}
	if (err < 0) {
		free(p);
		face_refuse(r, ERR_UNAVAILABLE, "no process of this cluster is ready");
	}
	buf_release(&url);
	buf_release(&authorization);
}
