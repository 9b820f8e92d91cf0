#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app.h"
#include "rpc/http_private.h"
#include "rpc/service_private.h"

/*
 * POST /admin/reload?step=prepare|switch|abort|rollback, without step prepare and switch.
 *
 * prepare: the files are read and tried in a state of their own on this, the control thread; then each worker makes them ready
 * beside its running code, a file at a time. switch: each worker lets them run, between two of its tasks; if the on_reload
 * of one refuses, those that had switched go back. rollback&version=V: who runs V goes back to what ran before it.
 */
enum step { STEP_PREPARE = 1, STEP_SWITCH = 2, STEP_BOTH = 3, STEP_ABORT = 4, STEP_ROLLBACK = 8 };

struct reload {
	struct http_face *face;
	struct env_http_request *request;
	enum step step;
	struct luasrc *src; /* to be prepared */
	char version[9];    /* to go back from */
	unsigned left;
	bool switched;                     /* on a worker at least */
	bool refused[SERVICE_WORKERS_MAX]; /* by these workers' on_reload: they run what they ran */
	int err;
	char error[1024];
};

struct reload_part {
	struct reload *reload;
	struct worker *worker;
	enum step step;
	bool begun;
	int err;
	char error[1024];
};

void http_reload_open(struct http_face *h)
{
	struct service *s = h->service;

	if (s->lua_src)
		snprintf(h->lua.version, sizeof h->lua.version, "%s", luasrc_version(s->lua_src));
	h->lua.since_ms = env_wall_us(s->env) / 1000;
}

static void reload_answer(struct reload *l)
{
	struct service *s = l->face->service;
	struct buf b = BUF_INIT;

	if (l->err < 0) {
		log_warn(s->log, "lua.reload_refused", "why=%s", l->error);
		http_error(l->request, ERR_FAILED, EFFECT_NONE, span_of(l->error, strlen(l->error)));
	} else {
		buf_addf(&b, "{\"instance\":\"%s\",\"version\":\"%s\",\"running\":\"%s\",\"previous\":\"%s\"}\n", s->id,
			 l->src ? luasrc_version(l->src) : l->face->lua.version, l->face->lua.version,
			 l->face->lua.previous);
		http_json(l->request, 200, &b);
	}
	buf_release(&b);
	l->face->reloading--;
	luasrc_unref(l->src);
	free(l);
}

/* ---- on the workers ------------------------------------------------------------------------------------------------------ */

static void part_done(void *arg);

/* A file a turn, so that no request waits for all of them. */
static void part_prepare(struct reload_part *p)
{
	struct app *a = p->worker->app;

	if (!p->begun) {
		p->begun = true;
		p->err = app_prepare(a, p->reload->src, p->error, sizeof p->error);
		p->err = p->err < 0 ? p->err : 1;
	} else {
		p->err = app_prepare_step(a, p->error, sizeof p->error);
	}
}

static void part_run(void *arg)
{
	struct reload_part *p = arg;
	struct app *a = p->worker->app;

	if (p->step == STEP_PREPARE)
		part_prepare(p);
	else if (p->step == STEP_SWITCH)
		p->err = app_switch(a, p->error, sizeof p->error);
	else if (p->step == STEP_ROLLBACK)
		app_rollback(a, p->reload->version);
	else
		app_abort(a);
	if (p->err == 1)
		loop_call(p->worker->loop, part_run, p);
	else
		loop_call(p->worker->service->control, part_done, p);
}

static void all_workers(struct reload *l, enum step step)
{
	struct service *s = l->face->service;

	for (unsigned i = 0; i < s->workers; i++)
		l->left += !l->refused[i];
	for (unsigned i = 0; i < s->workers; i++) {
		struct reload_part *p = l->refused[i] ? NULL : calloc(1, sizeof *p);

		if (l->refused[i])
			continue;
		assert(p);
		p->reload = l;
		p->worker = s->worker[i];
		p->step = step;
		loop_call(s->worker[i]->loop, part_run, p);
	}
}

/* ---- on the control thread: what a step has come to, and which is next ----------------------------------------------------- */

static void note_running(struct http_face *h, const char *version, const char *previous)
{
	char old[9];

	snprintf(old, sizeof old, "%s", previous);
	snprintf(h->lua.version, sizeof h->lua.version, "%s", version);
	snprintf(h->lua.previous, sizeof h->lua.previous, "%s", old);
	h->lua.since_ms = env_wall_us(h->service->env) / 1000;
}

static void drop_prepared(struct http_face *h)
{
	luasrc_unref(h->lua.prepared);
	h->lua.prepared = NULL;
}

static void prepared(struct reload *l)
{
	struct http_face *h = l->face;

	drop_prepared(h);
	if (l->err < 0) {
		l->step = STEP_ABORT;
		all_workers(l, STEP_ABORT);
		return;
	}
	h->lua.prepared = luasrc_ref(l->src);
	if (l->step == STEP_BOTH)
		all_workers(l, STEP_SWITCH);
	else
		reload_answer(l);
}

static void switched(struct reload *l)
{
	struct http_face *h = l->face;
	const char *version = h->lua.prepared ? luasrc_version(h->lua.prepared) : "";

	if (l->err < 0 && l->switched) {
		snprintf(l->version, sizeof l->version, "%s", version);
		drop_prepared(h);
		l->step = STEP_ABORT; /* the versions stay as they were noted */
		all_workers(l, STEP_ROLLBACK);
		return;
	}
	if (l->err == 0 && h->lua.prepared) {
		log_info(h->service->log, "lua.reloaded", "version=%s previous=%s", version, h->lua.version);
		note_running(h, version, h->lua.version);
	}
	drop_prepared(h);
	reload_answer(l);
}

static void rolled_back(struct reload *l)
{
	struct http_face *h = l->face;

	if (l->step == STEP_ROLLBACK && !strcmp(h->lua.version, l->version) && *h->lua.previous) {
		log_warn(h->service->log, "lua.rolled_back", "version=%s previous=%s", h->lua.previous, l->version);
		note_running(h, h->lua.previous, "");
	}
	reload_answer(l);
}

static void part_done(void *arg)
{
	struct reload_part *p = arg;
	struct reload *l = p->reload;
	enum step step = p->step;

	if (p->err < 0 && l->err == 0) {
		l->err = p->err;
		memcpy(l->error, p->error, sizeof l->error);
	}
	l->switched |= p->err == 0 && step == STEP_SWITCH;
	l->refused[p->worker->index] |= p->err < 0 && step == STEP_SWITCH;
	free(p);
	if (--l->left)
		return;
	if (l->face->shut) { /* the workers may be gone: what is prepared goes with them */
		if (l->err == 0)
			snprintf(l->error, sizeof l->error, "this instance stops");
		l->err = l->err < 0 ? l->err : ERR_UNAVAILABLE;
		reload_answer(l);
	} else if (step == STEP_PREPARE) {
		prepared(l);
	} else if (step == STEP_SWITCH) {
		switched(l);
	} else if (step == STEP_ROLLBACK) {
		rolled_back(l);
	} else {
		drop_prepared(l->face);
		reload_answer(l);
	}
}

/* ---- the request ----------------------------------------------------------------------------------------------------------- */

static enum step step_of(const char *word)
{
	static const struct {
		const char *word;
		enum step step;
	} steps[] = {
		{ "prepare", STEP_PREPARE },
		{ "switch", STEP_SWITCH },
		{ "abort", STEP_ABORT },
		{ "rollback", STEP_ROLLBACK },
	};

	if (!word)
		return STEP_BOTH;
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		if (!strcmp(steps[i].word, word))
			return steps[i].step;
	return 0;
}

/* Nothing of it has reached a worker yet when it is refused here. */
static int read_and_try(struct reload *l)
{
	struct service *s = l->face->service;
	const char *folders[] = { s->p->lua_folder, NULL };
	int err = luasrc_read(s->env, folders, l->error, sizeof l->error, &l->src);

	return err < 0 ? err : app_check(s, l->src, l->error, sizeof l->error);
}

void http_reload(struct http_face *h, struct env_http_request *r)
{
	struct service *s = h->service;
	const char *version = env_http_query(r, "version");
	enum step step = step_of(env_http_query(r, "step"));
	struct reload *l;

	if (!s->lua_src) {
		http_refuse(r, ERR_NOT_FOUND, "this service has no Lua");
		return;
	}
	if (!step || (step == STEP_ROLLBACK && !version)) {
		http_refuse(r, ERR_BAD_REQUEST, "step: expected prepare, switch, abort or rollback with a version");
		return;
	}
	if (h->reloading) {
		http_refuse(r, ERR_BUSY, "a reload is under way here");
		return;
	}
	l = calloc(1, sizeof *l);
	assert(l);
	l->face = h;
	l->request = r;
	l->step = step;
	snprintf(l->version, sizeof l->version, "%s", version ? version : "");
	h->reloading++;
	if ((step & STEP_PREPARE) && (l->err = read_and_try(l)) < 0)
		reload_answer(l);
	else
		all_workers(l, step & STEP_PREPARE ? STEP_PREPARE : step);
}
