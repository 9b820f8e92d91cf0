#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "deploy/loquat/reload.h"

/*
 * After a reload the share of failed requests of each method is compared with what it was before; so is that of all tasks,
 * for timers fail without a request. If one has jumped, everybody goes back to the version before.
 */
#define LOOK_MS    500
#define FAILED_MIN 5 /* fewer are chance */

enum watch_state { WATCH_NOTHING, WATCH_LOOKING, WATCH_LEAVING, WATCH_PASSED, WATCH_BACK };
static const char *const state_words[] = { "none", "watching", "watching", "passed", "rolled back" };

struct watch {
	struct watch *next;
	struct supervisor *up;
	char service[32], version[16], text[200];
	enum watch_state state;
	struct timer tick;
	uint64_t until_ms;
	json_t *before; /* {instance: its /stats} */
	bool asking;
	void (*then)(void *arg);
	void *arg;
};

static struct watch *find(struct supervisor *up, const char *service)
{
	struct watch *w = up->watches;

	while (w && strcmp(w->service, service))
		w = w->next;
	return w;
}

/* ---- the comparison ---------------------------------------------------------------------------------------------- */

struct share {
	double count, failed;
};

static void add(json_t *sums, const char *name, const struct share *before, const struct share *now)
{
	json_t *sum = json_object_get(sums, name);

	if (!sum) {
		sum = json_pack("[f, f, f, f]", 0.0, 0.0, 0.0, 0.0);
		json_object_set_new(sums, name, sum);
	}
	const double more[] = { before->count, before->failed, now->count, now->failed };

	for (size_t i = 0; i < 4; i++)
		json_real_set(json_array_get(sum, i), json_real_value(json_array_get(sum, i)) + more[i]);
}

static struct share of_method(const json_t *m)
{
	return (struct share){ json_number_value(json_object_get(m, "count")),
			       json_number_value(json_object_get(json_object_get(m, "errors"), "failed")) };
}

static struct share of_tasks(const json_t *stats)
{
	const json_t *lua = json_object_get(stats, "lua");

	return (struct share){ json_number_value(json_object_get(lua, "tasks_total")),
			       json_number_value(json_object_get(lua, "errors_total")) };
}

/* An instance that was started since counts from nought. */
static void add_instance(json_t *sums, const struct watch *w, const struct instance *i)
{
	json_t *before = json_object_get(w->before, i->row->id), *m;
	size_t prefix = strlen(w->service);
	const char *name;

	if (!json_equal(json_object_get(before, "epoch"), json_object_get(i->stats, "epoch")))
		before = NULL;
	json_object_foreach(json_object_get(i->stats, "methods"), name, m)
	{
		if (strncmp(name, w->service, prefix) || name[prefix] != '.')
			continue;
		struct share now = of_method(m),
			     old = of_method(json_object_get(json_object_get(before, "methods"), name));

		add(sums, name, &old, &now);
	}
	struct share now = of_tasks(i->stats), old = of_tasks(before);

	add(sums, "its tasks", &old, &now);
}

static bool has_jumped(struct watch *w, const char *name, const json_t *sum)
{
	double v[4], percent = (double)config_int(w->up->c->config, "supervisor.reload_errors_percent", 10);

	for (size_t i = 0; i < 4; i++)
		v[i] = json_real_value(json_array_get(sum, i));
	double count = v[2] - v[0], failed = v[3] - v[1], was = v[0] > 0 ? v[1] / v[0] : 0;

	if (failed < FAILED_MIN || count <= 0 || failed / count < was + percent / 100)
		return false;
	snprintf(w->text, sizeof w->text, "%s: %.0f of %.0f failed, before it %.1f %%", name, failed, count, was * 100);
	return true;
}

static bool any_has_jumped(struct watch *w)
{
	json_t *sums = json_object(), *sum;
	const char *name;
	bool jumped = false;

	for (size_t i = 0; i < w->up->instances; i++)
		if (reload_takes_part(w->service, &w->up->instance[i]))
			add_instance(sums, w, &w->up->instance[i]);
	json_object_foreach(sums, name, sum) jumped = jumped || has_jumped(w, name, sum);
	json_decref(sums);
	return jumped;
}

/* ---- its course -------------------------------------------------------------------------------------------------- */

static void went_back(void *arg)
{
	struct watch *w = arg;

	w->state = WATCH_BACK;
	reload_forget_passed(w->up, w->service);
	screen_say(w->up, "%s: version %s was rolled back: %s; its files are still there: mend them", w->service,
		   w->version, w->text);
}

static void on_back(void *arg, struct instance *i, const struct env_http_answer *a)
{
	reload_note_back(i, a, ((const struct watch *)arg)->version, "");
}

static void on_collected(void *arg)
{
	struct watch *w = arg;
	char step[64];

	w->asking = false;
	if (w->state != WATCH_LOOKING || !w->up->http)
		return;
	/* Who is being reloaded would stay behind on what all others leave. */
	if (w->up->reload || reload_catching_up(w->up, w->service)) {
		loop_timer(w->up->loop, &w->tick, LOOK_MS);
	} else if (any_has_jumped(w)) {
		snprintf(step, sizeof step, "rollback&version=%s", w->version);
		w->state = WATCH_LEAVING;
		reload_back_elsewhere(w->up, w->version, "");
		reload_step_all(
			&(struct reload_steps){
				.up = w->up, .service = w->service, .on_part = on_back, .done = went_back, .arg = w },
			step);
	} else if (w->up->loop->now_ms >= w->until_ms) {
		w->state = WATCH_PASSED;
	} else {
		loop_timer(w->up->loop, &w->tick, LOOK_MS);
	}
}

static void on_tick(struct timer *t, uint64_t now_ms)
{
	struct watch *w = (struct watch *)((char *)t - offsetof(struct watch, tick));

	(void)now_ms;
	if (!w->up->http)
		return;
	w->asking = true;
	collect(w->up, on_collected, w);
}

static void on_baseline(void *arg)
{
	struct watch *w = arg;

	for (size_t i = 0; i < w->up->instances; i++)
		if (reload_takes_part(w->service, &w->up->instance[i]) && w->up->instance[i].stats)
			json_object_set(w->before, w->up->instance[i].row->id, w->up->instance[i].stats);
	w->then(w->arg);
}

void watch_baseline(struct supervisor *up, const char *service, void (*done)(void *arg), void *arg)
{
	struct watch *w = find(up, service);

	if (!w) {
		w = calloc(1, sizeof *w);
		assert(w);
		w->up = up;
		snprintf(w->service, sizeof w->service, "%s", service);
		w->tick.fire = on_tick;
		w->next = up->watches;
		up->watches = w;
	}
	loop_timer_stop(up->loop, &w->tick);
	json_decref(w->before);
	w->before = json_object();
	w->state = WATCH_NOTHING;
	w->then = done;
	w->arg = arg;
	collect(up, on_baseline, w);
}

void watch_begin(struct supervisor *up, const char *service, const char *version)
{
	struct watch *w = find(up, service);
	int64_t seconds = config_int(up->c->config, "supervisor.reload_watch_s", 10);

	assert(w);
	snprintf(w->version, sizeof w->version, "%s", version);
	w->text[0] = '\0';
	if (!seconds)
		return;
	w->state = WATCH_LOOKING;
	w->until_ms = up->loop->now_ms + (uint64_t)seconds * 1000;
	if (!w->asking)
		loop_timer(up->loop, &w->tick, LOOK_MS);
}

bool watch_leaves(struct supervisor *up, const char *service)
{
	const struct watch *w = find(up, service);

	return w && w->state == WATCH_LEAVING;
}

json_t *watch_json(struct supervisor *up, const char *service)
{
	const struct watch *w = find(up, service);

	if (!w)
		return json_null();
	return json_pack("{s:s, s:s, s:s}", "version", w->version, "state", state_words[w->state], "text", w->text);
}

void watch_free(struct supervisor *up)
{
	while (up->watches) {
		struct watch *w = up->watches;

		up->watches = w->next;
		json_decref(w->before);
		free(w);
	}
}
