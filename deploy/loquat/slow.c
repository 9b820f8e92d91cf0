#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "deploy/loquat/supervisor.h"

/* The slowest calls of all instances, the slowest first: each is asked for its /stats/slow. */
#define ANSWER_MS 1000
#define SHOWN     50

struct slow {
	struct supervisor *up;
	struct env_http_request *request;
	json_t *calls;
	unsigned left;
};
struct part {
	struct slow *whole;
	char instance[32];
};

static int by_us(const void *a, const void *b)
{
	json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "us")),
		   y = json_integer_value(json_object_get(*(json_t *const *)b, "us"));

	return (x < y) - (x > y);
}

static json_t *sorted(const json_t *calls)
{
	size_t n = json_array_size(calls);
	json_t **list = calloc(n + 1, sizeof *list), *out = json_array();

	assert(list);
	for (size_t i = 0; i < n; i++)
		list[i] = json_array_get(calls, i);
	qsort(list, n, sizeof *list, by_us);
	for (size_t i = 0; i < n && i < SHOWN; i++)
		json_array_append(out, list[i]);
	free(list);
	return out;
}

static void part_done(struct slow *s)
{
	if (--s->left)
		return;
	if (s->up->http)
		face_json(s->request, 200,
			  json_pack("{s:s, s:o}", "instance", "supervisor", "calls", sorted(s->calls)));
	json_decref(s->calls);
	free(s);
}

static void on_answer(void *arg, const struct env_http_answer *a)
{
	struct part *p = arg;
	json_t *o = a->err == 0 && a->status == 200 ? json_loadb(a->body, a->n, 0, NULL) : NULL, *call;
	size_t i;

	json_array_foreach(json_object_get(o, "calls"), i, call)
	{
		json_object_set_new(call, "instance", json_string(p->instance));
		json_array_append(p->whole->calls, call);
	}
	json_decref(o);
	part_done(p->whole);
	free(p);
}

static void ask_instance(struct slow *s, const struct route_row *row)
{
	struct part *p = calloc(1, sizeof *p);

	assert(p);
	p->whole = s;
	memcpy(p->instance, row->id, sizeof p->instance);
	s->left++;
	if (env_http_call(s->up->loop->ev, row->host, row->http_port, "GET", "/stats/slow", NULL, NULL, 0, ANSWER_MS,
			  on_answer, p) < 0) {
		s->left--;
		free(p);
	}
}

void slow_reply(struct supervisor *up, struct env_http_request *r)
{
	struct slow *s = calloc(1, sizeof *s);

	assert(s);
	*s = (struct slow){ .up = up, .request = r, .calls = json_array(), .left = 1 };
	for (size_t i = 0; i < up->instances; i++)
		if (up->instance[i].row->http_port && up->instance[i].child.state == CHILD_READY)
			ask_instance(s, up->instance[i].row);
	part_done(s);
}
