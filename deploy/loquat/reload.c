#include "deploy/loquat/reload.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

/*
 * New Lua for all instances of a service, all or none: first every instance tries and prepares it beside the code
 * that runs; only when all could, all switch. One that refuses makes all drop it, and one whose on_reload refuses the switch
 * makes those that had switched go back. An instance that dies meanwhile comes back with the files as they are then.
 */
#define STEP_MS 15000

struct reload {
	struct supervisor *up;
	struct env_http_request *request;
	char service[32], version[16], error[1200];
	int err;
	json_t *list;    /* [{instance, version, previous}] */
	json_t *refused; /* {instance: true}, by whose on_reload: these have gone back by themselves */
};

/* ---- one step of all instances ------------------------------------------------------------------------------------- */

struct whole {
	struct reload_steps s;
	unsigned left;
};
struct part {
	struct whole *whole;
	struct instance *instance;
};

bool reload_takes_part(const char *service, const struct instance *i)
{
	return !strcmp(i->row->service, service) && i->child.state == CHILD_READY && i->row->http_port;
}

static void whole_done(struct whole *w)
{
	if (--w->left)
		return;
	w->s.done(w->s.arg);
	free(w);
}

static void on_part(void *arg, const struct env_http_answer *a)
{
	struct part *p = arg;
	struct whole *w = p->whole;

	if (w->s.on_part)
		w->s.on_part(w->s.arg, p->instance, a);
	free(p);
	whole_done(w);
}

void reload_step_all(const struct reload_steps *s, const char *step)
{
	struct whole *w = malloc(sizeof *w);
	char path[96], bearer[KEY_HEX + 32];
	const char *const headers[] = { bearer, NULL };

	assert(w);
	*w = (struct whole){ *s, 1 };
	snprintf(path, sizeof path, "/admin/reload?step=%s", step);
	snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", s->up->c->key);
	for (size_t i = 0; i < s->up->instances; i++) {
		struct instance *k = &s->up->instance[i];
		struct part *p;

		if (!reload_takes_part(s->service, k) || json_object_get(s->but, k->row->id))
			continue;
		p = malloc(sizeof *p);
		assert(p);
		*p = (struct part){ w, k };
		w->left++;
		if (env_http_call(s->up->loop->ev, k->row->host, k->row->http_port, "POST", path, headers, "", 0,
				  STEP_MS, on_part, p) < 0) {
			const struct env_http_answer none = { .err = ERR_UNAVAILABLE };

			on_part(p, &none);
		}
	}
	whole_done(w);
}

/* ---- prepare, look at the figures, switch ---------------------------------------------------------------------------- */

static void finish(void *arg)
{
	struct reload *l = arg;

	if (!l->up->http) { /* the request is gone with it */
	} else if (l->err < 0) {
		face_refuse(l->request, l->err, l->error);
	} else {
		watch_begin(l->up, l->service, l->version);
		face_json(l->request, 200, json_pack("{s:s, s:O}", "service", l->service, "instances", l->list));
	}
	l->up->reload = NULL;
	json_decref(l->list);
	json_decref(l->refused);
	free(l);
}

static void step(struct reload *l, const char *word,
		 void (*part)(void *arg, struct instance *i, const struct env_http_answer *a), void (*done)(void *arg))
{
	reload_step_all(&(struct reload_steps){ l->up, l->service, part, done, l, l->refused }, word);
}

static void note_failure(struct reload *l, const struct instance *i, const struct env_http_answer *a)
{
	json_t *answer = a->err == 0 ? json_loadb(a->body, a->n, 0, NULL) : NULL;
	const char *message = json_string_value(json_object_get(answer, "message"));
	const char *word = json_string_value(json_object_get(answer, "error"));
	int err = word ? err_from_word(word) : ERR_UNAVAILABLE;

	if (l->err == 0) {
		l->err = err ? err : ERR_FAILED;
		snprintf(l->error, sizeof l->error, "%s: %s", i->row->id, message ? message : "it does not answer");
	}
	json_decref(answer);
}

/* All instances must have read the same files. */
static void on_prepared(void *arg, struct instance *i, const struct env_http_answer *a)
{
	struct reload *l = arg;

	if (a->err < 0 || a->status != 200) {
		note_failure(l, i, a);
		return;
	}
	json_t *answer = json_loadb(a->body, a->n, 0, NULL);
	const char *version = json_string_value(json_object_get(answer, "version"));

	if (version && !*l->version)
		snprintf(l->version, sizeof l->version, "%s", version);
	if ((!version || strcmp(version, l->version)) && l->err == 0) {
		l->err = ERR_FAILED;
		snprintf(l->error, sizeof l->error, "%s: the files changed during the reload: try again", i->row->id);
	}
	json_decref(answer);
}

/* One that died since has nothing prepared: it comes back with the files as they are. */
static void on_switched(void *arg, struct instance *i, const struct env_http_answer *a)
{
	struct reload *l = arg;
	json_t *answer;

	if (a->err == 0 && a->status != 200) {
		note_failure(l, i, a);
		json_object_set_new(l->refused, i->row->id, json_true());
		return;
	}
	if (a->err < 0)
		return;
	answer = json_loadb(a->body, a->n, 0, NULL);
	json_array_append_new(l->list, json_pack("{s:s, s:O, s:O}", "instance", i->row->id, "version",
						 json_object_get(answer, "running"), "previous",
						 json_object_get(answer, "previous")));
	json_decref(answer);
}

static void all_switched(void *arg)
{
	struct reload *l = arg;
	char back[64];

	if (l->err == 0) {
		finish(l);
		return;
	}
	snprintf(back, sizeof back, "rollback&version=%s", l->version);
	step(l, back, NULL, finish);
}

static void switch_all(void *arg)
{
	step(arg, "switch", on_switched, all_switched);
}

static void all_prepared(void *arg)
{
	struct reload *l = arg;

	if (l->err < 0)
		step(l, "abort", NULL, finish);
	else
		watch_baseline(l->up, l->service, switch_all, l);
}

void reload_begin(struct supervisor *up, const char *service, struct env_http_request *r)
{
	struct reload *l;
	char text[160];
	bool any = false;

	for (size_t i = 0; i < up->instances; i++)
		any |= reload_takes_part(service, &up->instance[i]);
	if (!any || up->reload) {
		snprintf(text, sizeof text,
			 any ? "another reload is under way" : "no instance of service \"%.40s\" is ready", service);
		face_refuse(r, any ? ERR_BUSY : ERR_NOT_FOUND, text);
		return;
	}
	l = calloc(1, sizeof *l);
	assert(l);
	l->up = up;
	snprintf(l->service, sizeof l->service, "%s", service);
	l->request = r;
	l->list = json_array();
	l->refused = json_object();
	up->reload = l;
	step(l, "prepare", on_prepared, all_prepared);
}

/* ---- who runs what ------------------------------------------------------------------------------------------------------ */

void reload_versions(struct supervisor *up, struct env_http_request *r)
{
	json_t *list = json_array();

	for (size_t k = 0; k < up->instances; k++) {
		const struct instance *i = &up->instance[k];
		json_t *lua = json_object_get(i->stats, "lua");

		if (i->child.state != CHILD_READY || !lua)
			continue;
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:O, s:O, s:O, s:o}", "instance", i->row->id, "service",
						i->row->service, "version", json_object_get(lua, "version"), "previous",
						json_object_get(lua, "previous"), "since_ms",
						json_object_get(lua, "since_ms"), "watch",
						watch_json(up, i->row->service)));
	}
	face_json(r, 200, json_pack("{s:o}", "instances", list));
}
