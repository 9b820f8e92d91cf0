#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "deploy/loquat/supervisor.h"

/*
 * New Lua for all instances of a service, all or none: first every instance compiles and checks it beside the code
 * that runs; only when all could, all switch. One that refuses makes all drop it. An instance that dies meanwhile
 * comes back with the files as they are then.
 */
#define STEP_MS 15000

struct reload {
	struct supervisor *up;
	struct env_http_request *request;
	char service[32], error[1200];
	int err;
	unsigned left;
	bool switching;
	json_t *list; /* [{instance, version}] */
};
struct part {
	struct reload *whole;
	struct instance *instance;
};

static bool takes_part(const struct reload *l, const struct instance *i)
{
	return !strcmp(i->row->service, l->service) && i->child.state == CHILD_READY && i->row->http_port;
}

static void finish(struct reload *l)
{
	if (!l->up->http) { /* the request is gone with it */
	} else if (l->err < 0) {
		face_refuse(l->request, l->err, l->error);
	} else {
		face_json(l->request, 200, json_pack("{s:s, s:O}", "service", l->service, "instances", l->list));
	}
	l->up->reload = NULL;
	json_decref(l->list);
	free(l);
}

static void note_failure(struct part *p, const struct env_http_answer *a)
{
	struct reload *l = p->whole;
	json_t *answer = a->err == 0 ? json_loadb(a->body, a->n, 0, NULL) : NULL;
	const char *message = json_string_value(json_object_get(answer, "message"));
	const char *word = json_string_value(json_object_get(answer, "error"));
	int err = word ? err_from_word(word) : ERR_UNAVAILABLE;

	if (l->err == 0) {
		l->err = err ? err : ERR_FAILED;
		snprintf(l->error, sizeof l->error, "%s: %s", p->instance->row->id,
			 message ? message : "it does not answer");
	}
	json_decref(answer);
}

/* All instances must have read the same files. */
static void note_version(struct part *p, const struct env_http_answer *a)
{
	struct reload *l = p->whole;
	json_t *answer = json_loadb(a->body, a->n, 0, NULL);
	const char *version = json_string_value(json_object_get(answer, "version"));
	const char *first = json_string_value(json_object_get(json_array_get(l->list, 0), "version"));

	if (version && first && strcmp(version, first) && l->err == 0) {
		l->err = ERR_FAILED;
		snprintf(l->error, sizeof l->error, "%s: the files changed during the reload: try again",
			 p->instance->row->id);
	}
	json_array_append_new(l->list, json_pack("{s:s, s:s}", "instance", p->instance->row->id, "version",
						 version ? version : ""));
	json_decref(answer);
}

static void step(struct reload *l, const char *word);

static void part_done(struct reload *l)
{
	if (--l->left)
		return;
	if (l->switching) {
		finish(l);
		return;
	}
	l->switching = true;
	step(l, l->err < 0 ? "abort" : "switch");
}

static void on_step(void *arg, const struct env_http_answer *a)
{
	struct part *p = arg;
	struct reload *l = p->whole;

	if (!l->switching && (a->err < 0 || a->status != 200))
		note_failure(p, a);
	else if (!l->switching)
		note_version(p, a);
	free(p);
	part_done(l);
}

static void step(struct reload *l, const char *word)
{
	char path[64], bearer[KEY_HEX + 32];
	const char *const headers[] = { bearer, NULL };

	snprintf(path, sizeof path, "/admin/reload?step=%s", word);
	snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", l->up->c->key);
	l->left = 1;
	for (size_t i = 0; i < l->up->instances; i++) {
		struct instance *k = &l->up->instance[i];
		struct part *p;

		if (!takes_part(l, k))
			continue;
		p = malloc(sizeof *p);
		assert(p);
		*p = (struct part){ l, k };
		l->left++;
		if (env_http_call(l->up->loop->ev, k->row->host, k->row->http_port, "POST", path, headers, "", 0,
				  STEP_MS, on_step, p) < 0) {
			const struct env_http_answer none = { .err = ERR_UNAVAILABLE };

			on_step(p, &none);
		}
	}
	part_done(l);
}

void reload_begin(struct supervisor *up, const char *service, struct env_http_request *r)
{
	struct reload probe = { .up = up }, *l;
	char text[160];
	bool any = false;

	snprintf(probe.service, sizeof probe.service, "%s", service);
	for (size_t i = 0; i < up->instances; i++)
		any |= takes_part(&probe, &up->instance[i]);
	if (!any || up->reload) {
		snprintf(text, sizeof text,
			 any ? "another reload is under way" : "no instance of service \"%.40s\" is ready", service);
		face_refuse(r, any ? ERR_BUSY : ERR_NOT_FOUND, text);
		return;
	}
	l = malloc(sizeof *l);
	assert(l);
	*l = probe;
	l->request = r;
	l->list = json_array();
	up->reload = l;
	step(l, "prepare");
}
