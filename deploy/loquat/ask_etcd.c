#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/loop.h"
#include "deploy/loquat/supervisor.h"

/* One question to an etcd, as the services ask it: with their TLS, and not with the cluster's key. */
struct question {
	const struct etcd_host *to;
	struct env_tls *tls;
	const char *path, *body;
	struct loop *loop;
	int status;
	char *answer;
	char why[160];
};

static void on_answer(void *arg, const struct env_http_answer *a)
{
	struct question *q = arg;

	q->status = a->err < 0 ? a->err : a->status;
	q->answer = a->err < 0 ? NULL : strdup(a->body);
	if (a->err == ERR_DENIED)
		snprintf(q->why, sizeof q->why, "%s", env_last_error());
	loop_stop(q->loop);
}

static void on_start(struct loop *loop, void *arg)
{
	static const char *const headers[] = { "Content-Type: application/json", NULL };
	struct question *q = arg;

	q->loop = loop;
	int err = env_https_call(loop->ev, q->to->tls ? q->tls : NULL, q->to->host, q->to->port, "POST", q->path,
				 headers, q->body, strlen(q->body), 5000, on_answer, q);

	if (err < 0)
		on_answer(q, &(struct env_http_answer){ .err = err });
}

int ask_etcd(struct cluster *c, struct env_tls *tls, const struct etcd_host *to, const char *path, const char *body,
	     char **answer, char why[160])
{
	struct question q = { .to = to, .tls = tls, .path = path, .body = body, .status = ERR_IO };
	struct loop *loop;

	if (loop_start(c->env, "etcd", 0, on_start, NULL, &q, &loop) < 0)
		return ERR_IO;
	loop_join(loop);
	*answer = q.answer;
	snprintf(why, 160, "%s", *q.why ? q.why : q.status < 0 ? err_text(q.status) : "");
	return q.status;
}
