#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/app.h"
#include "rpc/http_private.h"
#include "rpc/messages.h"
#include "rpc/service_private.h"

/*
 * POST /admin/reload?step=prepare|messages|switch|abort|rollback, without step the first three.
 *
 * prepare: the messages and the files are read, the files tried in a state of their own on this, the control thread; then each
 * worker makes them ready beside what it uses, a file at a time. messages: each worker goes by the new messages, if they are
 * others. switch: each worker lets the files run, between two of its tasks; if the on_reload of one refuses, those that
 * had switched go back. rollback&version=V&messages=M: who runs V goes back to what ran before it, who goes by M to what it went by
 * before. what=messages: the files are left alone, as they are where there are none; what=changed: also when they are those that
 * run; what=lua: the messages are. prepare&version=V&messages=M: these; if others lie there by now, "unavailable".
 *
 * by=NAME&turn=N: the steps of one reload among those of all supervisors. What is prepared for one is neither taken nor given up
 * by another's step, until the abort that ends each reload, or HOLD_MS after the last step if none comes; and of a supervisor's own
 * steps one that was overtaken by a later turn is not taken any more.
 */
#define HOLD_MS 90000 /* longer than a supervisor needs from one step to the next (deploy/loquat/reload.c) */

enum step {
	STEP_PREPARE = 1,
	STEP_MESSAGES = 2,
	STEP_SWITCH = 4,
	STEP_ALL = 7,
	STEP_ABORT = 8,
	STEP_ROLLBACK = 16,
};

enum what { WHAT_ALL, WHAT_MESSAGES, WHAT_CHANGED, WHAT_LUA };

struct reload {
	struct http_face *face;
	struct env_http_request *request;
	enum step step;
	struct luasrc *src;            /* to be prepared; NULL: no files are */
	const struct schema *messages; /* to be prepared, used, or gone back to; NULL: they stay */
	char version[9];               /* to go back from; "": the files stay */
	unsigned left;
	bool taken;                        /* the messages, by this reload */
	bool switched;                     /* on a worker at least */
	bool refused[SERVICE_WORKERS_MAX]; /* by these workers' on_reload: they run what they ran */
	int err;
	char error[1024];
};

struct reload_part {
	struct reload *reload;
	struct worker *worker;
	enum step step;
	bool begun, learned;
	int err;
	char error[1024];
};

void http_reload_open(struct http_face *h)
{
	struct service *s = h->service;
	struct http_loaded *l = s->p->http_loaded;

	if (!l) {
		l = s->p->http_loaded = calloc(1, sizeof *l);
		assert(l);
		snprintf(l->lua.version, sizeof l->lua.version, "%s", s->lua_src ? luasrc_version(s->lua_src) : "");
		l->lua.since_ms = l->messages.since_ms = env_wall_us(s->env) / 1000;
	}
	h->loaded = l;
}

void http_loaded_free(struct service *s)
{
	if (s->p->http_loaded)
		luasrc_unref(s->p->http_loaded->lua.prepared);
	free(s->p->http_loaded);
	s->p->http_loaded = NULL;
}

static const char *version_of(const struct schema *messages)
{
	return messages ? schema_version(messages) : "";
}

static void reload_answer(struct reload *l)
{
	struct service *s = l->face->service;
	struct buf b = BUF_INIT;

	if (l->err < 0) {
		log_warn(s->log, "lua.reload_refused", "why=%s", l->error);
		http_error(l->request, l->err == ERR_UNAVAILABLE ? l->err : ERR_FAILED, EFFECT_NONE,
			   span_of(l->error, strlen(l->error)));
	} else {
		const struct schema *prepared = l->face->loaded->messages.prepared;

		buf_addf(&b, "{\"instance\":\"%s\",\"version\":\"%s\",\"running\":\"%s\",\"previous\":\"%s\"", s->id,
			 l->src ? luasrc_version(l->src) : l->face->loaded->lua.version, l->face->loaded->lua.version,
			 l->face->loaded->lua.previous);
		buf_addf(&b, ",\"messages\":{\"version\":\"%s\",\"running\":\"%s\",\"previous\":\"%s\"}}\n",
			 version_of(prepared ? prepared : s->schema), version_of(s->schema),
			 version_of(l->face->loaded->messages.previous));
		http_json(l->request, 200, &b);
	}
	buf_release(&b);
	l->face->reloading--;
	luasrc_unref(l->src);
	free(l);
}

/* ---- on the workers ------------------------------------------------------------------------------------------------------ */

static void part_done(void *arg);

/* The messages, then a file a turn, so that no request waits for all of them. */
static void part_prepare(struct reload_part *p)
{
	struct app *a = p->worker->app;
	const struct reload *l = p->reload;

	if (l->messages && !p->learned) {
		p->learned = true;
		p->err = worker_messages_prepare(p->worker, l->messages, p->error, sizeof p->error);
		p->err = p->err == 0 && l->src ? 1 : p->err;
	} else if (!p->begun) {
		p->begun = true;
		p->err = app_prepare(a, l->src, p->error, sizeof p->error);
		p->err = p->err < 0 ? p->err : 1;
	} else {
		p->err = app_prepare_step(a, l->messages ? l->messages : p->worker->schema, p->error, sizeof p->error);
	}
}

static void part_rollback(const struct reload_part *p)
{
	const struct reload *l = p->reload;

	if (p->worker->app)
		app_abort(p->worker->app);
	if (*l->version && p->worker->app && !l->refused[p->worker->index])
		app_rollback(p->worker->app, l->version);
	if (l->messages)
		worker_messages_take(p->worker, l->messages);
}

static void part_run(void *arg)
{
	struct reload_part *p = arg;
	struct app *a = p->worker->app;

	if (p->step == STEP_PREPARE)
		part_prepare(p);
	else if (p->step == STEP_MESSAGES)
		worker_messages_take(p->worker, p->reload->messages);
	else if (p->step == STEP_SWITCH)
		p->err = a ? app_switch(a, p->error, sizeof p->error) : 0;
	else if (p->step == STEP_ROLLBACK)
		part_rollback(p);
	else if (a)
		app_abort(a);
	if (p->err == 1)
		loop_call(p->worker->loop, part_run, p);
	else
		loop_call(p->worker->service->control, part_done, p);
}

static void all_workers(struct reload *l, enum step step)
{
	struct service *s = l->face->service;

	if (l->face->shut) { /* they may be gone, and what is prepared with them */
		if (l->err == 0)
			snprintf(l->error, sizeof l->error, "this instance stops");
		l->err = l->err < 0 ? l->err : ERR_UNAVAILABLE;
		reload_answer(l);
		return;
	}
	l->left = s->workers;
	for (unsigned i = 0; i < s->workers; i++) {
		struct reload_part *p = calloc(1, sizeof *p);

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
	snprintf(h->loaded->lua.version, sizeof h->loaded->lua.version, "%s", version);
	snprintf(h->loaded->lua.previous, sizeof h->loaded->lua.previous, "%s", old);
	h->loaded->lua.since_ms = env_wall_us(h->service->env) / 1000;
}

static bool has_prepared(const struct http_face *h)
{
	return h->loaded->lua.prepared || h->loaded->messages.prepared;
}

static void drop_prepared(struct http_face *h)
{
	luasrc_unref(h->loaded->lua.prepared);
	h->loaded->lua.prepared = NULL;
	h->loaded->messages.prepared = NULL;
}

/* The next of the steps that are wanted. */
static void go_on(struct reload *l)
{
	struct http_face *h = l->face;

	if (l->step & STEP_MESSAGES && h->loaded->messages.prepared) {
		l->messages = h->loaded->messages.prepared;
		all_workers(l, STEP_MESSAGES);
	} else if (l->step & STEP_SWITCH) {
		all_workers(l, STEP_SWITCH);
	} else {
		reload_answer(l);
	}
}

static void prepared(struct reload *l)
{
	struct http_face *h = l->face;

	drop_prepared(h);
	h->loaded->turn.until_ms = 0;
	if (l->err < 0) {
		l->step = STEP_ABORT;
		all_workers(l, STEP_ABORT);
		return;
	}
	h->loaded->lua.prepared = l->src ? luasrc_ref(l->src) : NULL;
	h->loaded->messages.prepared = l->messages;
	if (*h->loaded->turn.by && l->step == STEP_PREPARE)
		h->loaded->turn.until_ms = h->service->control->now_ms + HOLD_MS;
	l->step &= ~(unsigned)STEP_PREPARE;
	go_on(l);
}

static void note_messages(struct reload *l, const struct schema *next, const struct schema *previous)
{
	struct http_face *h = l->face;

	messages_taken(h->service, next);
	h->loaded->messages.previous = previous;
	h->loaded->messages.since_ms = env_wall_us(h->service->env) / 1000;
	metric_add(metric(h->service->metrics, SERVICE_CONTROL_WORKER, METRIC_COUNTER, "loquat_messages_taken_total",
			  "Times other messages were taken, or gone back to, while the process ran.", NULL, NULL),
		   1);
}

static void taken(struct reload *l)
{
	struct http_face *h = l->face;
	const struct schema *before = h->service->schema;

	h->loaded->messages.prepared = NULL;
	note_messages(l, l->messages, before);
	log_info(h->service->log, "messages.taken", "version=%s previous=%s", version_of(l->messages),
		 version_of(before));
	l->taken = true;
	l->step &= ~(unsigned)STEP_MESSAGES;
	go_on(l);
}

static void switched(struct reload *l)
{
	struct http_face *h = l->face;
	const char *version = h->loaded->lua.prepared ? luasrc_version(h->loaded->lua.prepared) : "";

	if (l->err < 0 && (l->switched || l->taken)) {
		snprintf(l->version, sizeof l->version, "%s", l->switched ? version : "");
		l->messages = l->taken ? h->loaded->messages.previous : NULL;
		drop_prepared(h);
		all_workers(l, STEP_ROLLBACK); /* the versions of the files stay as they were noted */
		return;
	}
	if (l->err == 0 && h->loaded->lua.prepared) {
		log_info(h->service->log, "lua.reloaded", "version=%s previous=%s", version, h->loaded->lua.version);
		note_running(h, version, h->loaded->lua.version);
	}
	drop_prepared(h);
	reload_answer(l);
}

static void rolled_back(struct reload *l)
{
	struct http_face *h = l->face;

	if (l->step == STEP_ROLLBACK && !strcmp(h->loaded->lua.version, l->version) && *h->loaded->lua.previous) {
		log_warn(h->service->log, "lua.rolled_back", "version=%s previous=%s", h->loaded->lua.previous,
			 l->version);
		note_running(h, h->loaded->lua.previous, "");
	}
	if (l->messages) {
		log_warn(h->service->log, "messages.rolled_back", "version=%s previous=%s", version_of(l->messages),
			 version_of(h->service->schema));
		note_messages(l, l->messages, NULL);
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
	if (step == STEP_PREPARE) {
		prepared(l);
	} else if (step == STEP_MESSAGES) {
		taken(l);
	} else if (step == STEP_SWITCH) {
		switched(l);
	} else if (step == STEP_ROLLBACK) {
		rolled_back(l);
	} else {
		l->face->loaded->turn.until_ms = 0;
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
		{ "prepare", STEP_PREPARE }, { "messages", STEP_MESSAGES }, { "switch", STEP_SWITCH },
		{ "abort", STEP_ABORT },     { "rollback", STEP_ROLLBACK },
	};

	if (!word)
		return STEP_ALL;
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		if (!strcmp(steps[i].word, word))
			return steps[i].step;
	return 0;
}

static int what_of(const char *word)
{
	static const char *const words[] = {
		[WHAT_ALL] = "", [WHAT_MESSAGES] = "messages", [WHAT_CHANGED] = "changed", [WHAT_LUA] = "lua"
	};

	for (int i = 0; i < (int)(sizeof words / sizeof *words); i++)
		if (!strcmp(words[i], word ? word : ""))
			return i;
	return -1;
}

static int read_messages(struct reload *l, const char *wanted, const struct schema **next)
{
	struct service *s = l->face->service;
	int err;

	if (wanted && !strcmp(wanted, version_of(s->schema)))
		return 0;
	err = messages_read(s, l->error, sizeof l->error, next);
	if (err == 0 && wanted && strcmp(wanted, version_of(*next)) != 0) {
		snprintf(l->error, sizeof l->error,
			 "build/loquat.desc is version %s, the others go by %s: it has changed since",
			 version_of(*next), wanted);
		err = ERR_UNAVAILABLE;
	}
	if (err == 0 && *next != s->schema)
		l->messages = *next;
	return err;
}

/* Nothing of it has reached a worker yet when it is refused here. */
static int read_and_try(struct reload *l, enum what what, const char *messages)
{
	struct service *s = l->face->service;
	const char *folders[] = { s->p->lua_folder, NULL }, *running = l->face->loaded->lua.version;
	const struct schema *next = s->schema;
	int err = what == WHAT_LUA ? 0 : read_messages(l, messages, &next);

	if (err < 0 || !s->lua_src || what == WHAT_MESSAGES || (what == WHAT_CHANGED && !strcmp(l->version, running)))
		return err;
	err = luasrc_read(s->env, folders, l->error, sizeof l->error, &l->src);
	if (err == 0 && *l->version && strcmp(luasrc_version(l->src), l->version) != 0) {
		snprintf(l->error, sizeof l->error,
			 "the files are version %s, the others run %s: they have changed since", luasrc_version(l->src),
			 l->version);
		return ERR_UNAVAILABLE;
	}
	if (err == 0 && what == WHAT_CHANGED && !strcmp(luasrc_version(l->src), running)) {
		luasrc_unref(l->src);
		l->src = NULL;
		return 0;
	}
	return err < 0 ? err : app_check(&s->p->control_worker, l->src, next, l->error, sizeof l->error);
}

static void begin_prepare(struct reload *l, enum what what, const char *messages)
{
	l->err = read_and_try(l, what, messages);
	if (l->err < 0) {
		reload_answer(l);
	} else if (l->messages || l->src) {
		all_workers(l, STEP_PREPARE);
	} else {
		drop_prepared(l->face);
		reload_answer(l);
	}
}

/* Who does not go by those messages, or went by none before, stays with what it has. */
static void begin_rollback(struct reload *l, const char *messages)
{
	struct http_face *h = l->face;

	drop_prepared(h);
	if (messages && !strcmp(messages, version_of(h->service->schema)))
		l->messages = h->loaded->messages.previous;
	all_workers(l, STEP_ROLLBACK);
}

/* ---- of several supervisors ------------------------------------------------------------------------------------------------ */

static const char *not_its_turn(const struct http_face *h, enum step step, const char *by, uint64_t number)
{
	bool takes = !(step & STEP_PREPARE) && step & (STEP_MESSAGES | STEP_SWITCH);

	if (h->reloading)
		return "another reload is under way here";
	if (!strcmp(by, h->loaded->turn.by))
		return number < h->loaded->turn.number ? "a later step of this supervisor was here before" : NULL;
	if (h->service->control->now_ms < h->loaded->turn.until_ms)
		return "another reload is under way here, of another supervisor";
	return takes && has_prepared(h) ? "another reload has prepared what is here" : NULL;
}

static void take_turn(struct http_face *h, enum step step, const char *by, uint64_t number)
{
	if (step == STEP_ABORT || strcmp(by, h->loaded->turn.by) != 0)
		h->loaded->turn.until_ms = 0;
	else if (h->loaded->turn.until_ms)
		h->loaded->turn.until_ms = h->service->control->now_ms + HOLD_MS;
	snprintf(h->loaded->turn.by, sizeof h->loaded->turn.by, "%s", by);
	h->loaded->turn.number = number;
}

void http_reload(struct http_face *h, struct env_http_request *r)
{
	const char *version = env_http_query(r, "version"), *messages = env_http_query(r, "messages");
	const char *by = env_http_query(r, "by"), *turn = env_http_query(r, "turn"), *why;
	uint64_t number = turn ? strtoull(turn, NULL, 10) : 0;
	int what = what_of(env_http_query(r, "what"));
	enum step step = step_of(env_http_query(r, "step"));
	struct reload *l;

	if (!step || (step == STEP_ROLLBACK && !version && !messages) || what < 0) {
		http_refuse(r, ERR_BAD_REQUEST,
			    "step: expected prepare, messages, switch, abort, or rollback with a version or messages; "
			    "what: messages, lua, changed or nothing");
		return;
	}
	by = by ? by : "";
	if (strlen(by) >= sizeof h->loaded->turn.by) {
		http_refuse(r, ERR_BAD_REQUEST, "by: expected at most 19 bytes");
		return;
	}
	why = not_its_turn(h, step, by, number);
	if (why) {
		http_refuse(r, ERR_BUSY, why);
		return;
	}
	take_turn(h, step, by, number);
	l = calloc(1, sizeof *l);
	assert(l);
	l->face = h;
	l->request = r;
	l->step = step;
	snprintf(l->version, sizeof l->version, "%s", version ? version : "");
	h->reloading++;
	if (step & STEP_PREPARE)
		begin_prepare(l, (enum what)what, messages);
	else if (step == STEP_ROLLBACK)
		begin_rollback(l, messages);
	else if (step == STEP_ABORT && !has_prepared(h))
		reload_answer(l); /* nor do the workers have anything: who was refused here is in nobody's way */
	else if (step == STEP_ABORT)
		all_workers(l, STEP_ABORT);
	else
		go_on(l);
}
