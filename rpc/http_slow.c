#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/http_private.h"
#include "rpc/slow.h"

/* ---- /stats/slow: what each worker kept, the slowest first ------------------------------------------------------ */

struct slow_report {
	struct http_face *face;
	struct env_http_request *request;
	unsigned left;
	struct slow_part {
		struct slow_report *report;
		struct worker *worker;
		struct slow slow;
	} part[];
};

static int by_us(const void *a, const void *b)
{
	uint64_t x = (*(const struct slow_call *const *)a)->us, y = (*(const struct slow_call *const *)b)->us;

	return (x < y) - (x > y);
}

static void add_call(struct buf *out, const struct slow_call *c)
{
	buf_addf(out, "{\"method\":\"%s.%s\",\"us\":%llu,\"queue_us\":%llu,\"run_us\":%llu,\"trace\":\"%llx\",\"key\":",
		 c->service, c->method, (unsigned long long)c->us, (unsigned long long)c->queue_us,
		 (unsigned long long)(c->us - c->queue_us), (unsigned long long)c->trace);
	jsontext_quote(out, c->key, strlen(c->key));
	buf_addf(out, ",\"error\":%s%s%s,\"time_ms\":%llu}", c->err < 0 ? "\"" : "",
		 c->err < 0 ? err_word(err_public(c->err)) : "null", c->err < 0 ? "\"" : "",
		 (unsigned long long)(c->at_wall_us / 1000));
}

static void slow_reply(struct slow_report *p)
{
	const struct slow_call *list[SLOW_KEPT * SERVICE_WORKERS_MAX];
	struct service *s = p->face->service;
	struct buf b = BUF_INIT;
	size_t n = 0;

	for (unsigned i = 0; i < s->workers; i++)
		for (unsigned k = 0; k < p->part[i].slow.n; k++)
			list[n++] = &p->part[i].slow.call[k];
	qsort(list, n, sizeof *list, by_us);
	buf_addf(&b, "{\"instance\":\"%s\",\"seconds\":%d,\"calls\":[", s->id, SLOW_S);
	for (size_t i = 0; i < n && i < SLOW_KEPT; i++) {
		if (i)
			buf_addch(&b, ',');
		add_call(&b, list[i]);
	}
	buf_addstr(&b, "]}\n");
	http_json(p->request, 200, &b);
	buf_release(&b);
	p->face->pending--;
	free(p);
}

static void part_done(void *arg)
{
	struct slow_report *p = arg;

	if (--p->left == 0)
		slow_reply(p);
}

static void part_take(void *arg)
{
	struct slow_part *part = arg;
	struct slow_report *p = part->report;
	uint64_t now = env_mono_ns(part->worker->loop->env);

	for (unsigned i = 0; i < part->worker->slow->n; i++) {
		const struct slow_call *c = &part->worker->slow->call[i];

		if (now - c->at_ns < SLOW_S * 1000000000ull) /* nobody came since to push it out */
			part->slow.call[part->slow.n++] = *c;
	}
	loop_call(p->face->service->control, part_done, p);
}

void http_slow(struct http_face *h, struct env_http_request *r)
{
	struct service *s = h->service;
	struct slow_report *p;

	if (h->shut) { /* the workers may be gone */
		http_refuse(r, ERR_UNAVAILABLE, "this instance stops");
		return;
	}
	p = calloc(1, sizeof *p + s->workers * sizeof *p->part);
	assert(p);
	p->face = h;
	p->request = r;
	p->left = s->workers;
	h->pending++;
	for (unsigned i = 0; i < s->workers; i++) {
		p->part[i].report = p;
		p->part[i].worker = s->worker[i];
		loop_call(s->worker[i]->loop, part_take, &p->part[i]);
	}
}
