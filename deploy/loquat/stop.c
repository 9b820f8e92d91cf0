#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/err.h"
#include "deploy/loquat/supervisor.h"

/*
 * The ordered end. Each stage begins when nothing of the one before runs; the replay's begins by waiting until it
 * has caught up with all logs, for nobody writes any more by then.
 */
enum { STAGE_GATE, STAGE_CONNECTOR, STAGE_GAME, STAGE_ROLE, STAGE_REPLAY, STAGE_DATABASE, STAGE_NONE };
#define STEP_MS        50
#define REPLAY_WAIT_MS 10000 /* the database may be away: then the logs keep what is left for the next start */
#define SPARE_MS       5000  /* beyond what an instance may take by its own configuration */

static int stage_of(const char *service)
{
	if (!strcmp(service, "gate"))
		return STAGE_GATE;
	if (!strcmp(service, "connector"))
		return STAGE_CONNECTOR;
	if (!strcmp(service, "role"))
		return STAGE_ROLE;
	return !strcmp(service, "dbwriter") ? STAGE_REPLAY : STAGE_GAME;
}

static struct child *child_at(struct supervisor *up, size_t i)
{
	return i < up->instances ? &up->instance[i].child : &up->db_child;
}

static int stage_at(struct supervisor *up, size_t i)
{
	return i < up->instances ? stage_of(up->instance[i].row->service) : STAGE_DATABASE;
}

static void each_of_stage(struct supervisor *up, void (*fn)(struct child *c))
{
	for (size_t i = 0; i <= up->instances; i++)
		if (stage_at(up, i) == up->stage)
			fn(child_at(up, i));
}

static int first_running(struct supervisor *up)
{
	int first = STAGE_NONE;

	for (size_t i = 0; i <= up->instances; i++) {
		struct child *c = child_at(up, i);

		if ((c->pid || c->state == CHILD_BACKOFF) && stage_at(up, i) < first)
			first = stage_at(up, i);
	}
	return first;
}

static void tell(struct child *c)
{
	if (c->pid || c->state == CHILD_BACKOFF)
		child_stop(c);
}

static void end(struct supervisor *up)
{
	char path[ENV_PATH_MAX + 16];

	/* a table that nobody tends would mislead an instance that is started by hand */
	snprintf(path, sizeof path, "%s/routes.lua", up->c->var);
	env_file_remove(up->c->env, path);
	collect_stop(up);
	face_stop(up);
	database_close(up->db);
	up->db = NULL;
	for (size_t i = 0; i <= up->instances; i++)
		child_release(child_at(up, i));
	loop_timer_stop(up->loop, &up->step);
	loop_stop(up->loop);
}

/* ---- the replay ---------------------------------------------------------------------------------------------- */

static bool replay_is_behind(struct supervisor *up)
{
	json_t *sum = collect_sum(up), *replay = json_object_get(sum, "replay");
	bool behind = json_integer_value(json_object_get(replay, "lag_records")) > 0;

	json_decref(sum);
	return behind;
}

static void on_collected(void *arg)
{
	struct supervisor *up = arg;

	if (up->stage != STAGE_REPLAY || up->asked)
		return;
	if (replay_is_behind(up) && up->loop->now_ms < up->stage_until_ms - SPARE_MS) {
		loop_timer(up->loop, &up->step, STEP_MS);
		return;
	}
	up->asked = true;
	each_of_stage(up, tell);
}

static void ask_stage(struct supervisor *up)
{
	if (up->stage == STAGE_REPLAY && up->status == 0) {
		collect(up, on_collected, up);
		return;
	}
	up->asked = true;
	each_of_stage(up, tell);
}

/* ---- step by step ---------------------------------------------------------------------------------------------- */

static void begin_stage(struct supervisor *up, int stage)
{
	uint64_t may_take = (uint64_t)config_int(up->c->config, "rpc.drain_s", 5) * 1000;

	if (stage == STAGE_REPLAY)
		may_take += REPLAY_WAIT_MS;
	if (stage == STAGE_DATABASE)
		may_take = 60000; /* writing its pages back */
	up->stage = stage;
	up->asked = false;
	up->stage_until_ms = up->loop->now_ms + may_take + SPARE_MS;
	ask_stage(up);
}

static void on_step(struct timer *t, uint64_t now_ms)
{
	struct supervisor *up = (struct supervisor *)((char *)t - offsetof(struct supervisor, step));

	if (now_ms >= up->stage_until_ms) {
		screen_say(up, "some did not end in time: killing them");
		each_of_stage(up, child_kill);
	} else if (!up->asked) {
		ask_stage(up);
	}
	stop_step(up);
}

void stop_step(struct supervisor *up)
{
	int stage = first_running(up);

	if (stage == STAGE_NONE) {
		if (up->stage != STAGE_NONE) {
			up->stage = STAGE_NONE;
			end(up);
		}
		return;
	}
	if (stage != up->stage)
		begin_stage(up, stage);
	loop_timer(up->loop, &up->step, up->asked ? 1000 : STEP_MS);
}

void stop_begin(struct supervisor *up)
{
	up->step.fire = on_step;
	up->stage = -1;
	if (up->status == 0)
		screen_say(up, "stopping");
	stop_step(up);
}
