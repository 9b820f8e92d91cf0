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
	int stage = up->stage; /* fn may end the last of it, and with that the stage */

	for (size_t i = 0; i <= up->instances; i++)
		if (stage_at(up, i) == stage)
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
	route_source_close(up->source);
	collect_stop(up);
	face_stop(up);
	database_close(up->db);
	up->db = NULL;
	for (size_t i = 0; i <= up->instances; i++)
		child_release(child_at(up, i));
	for (size_t i = 0; i < up->instances; i++)
		child_release(&up->instance[i].next);
	loop_timer_stop(up->loop, &up->step);
	loop_stop(up->loop);
}

/* ---- the replay ---------------------------------------------------------------------------------------------- */

/* Records of this host's logs: other hosts' dbwriters go on without us. */
static json_int_t replay_behind(struct supervisor *up)
{
	json_int_t records = 0;

	for (size_t i = 0; i < up->instances; i++) {
		struct instance *n = &up->instance[i];

		if (n->child.pid && stage_at(up, i) == STAGE_REPLAY)
			records +=
				json_integer_value(json_object_get(json_object_get(n->stats, "replay"), "lag_records"));
	}
	return records;
}

static void tell_of_replay(struct supervisor *up, json_int_t behind)
{
	if (!up->waits)
		screen_say(
			up,
			"the replay is %lld records behind: it has %d s to land them, what is left stays in the logs",
			(long long)behind, REPLAY_WAIT_MS / 1000);
	up->waits = true;
}

static void on_collected(void *arg)
{
	struct supervisor *up = arg;

	if (up->stage != STAGE_REPLAY || up->asked)
		return;
	json_int_t behind = replay_behind(up);

	if (behind > 0 && up->loop->now_ms < up->stage_until_ms) {
		tell_of_replay(up, behind);
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
	up->stage = stage;
	up->asked = false;
	up->stage_until_ms = up->loop->now_ms + REPLAY_WAIT_MS;
	ask_stage(up);
}

static void on_step(struct timer *t, uint64_t now_ms)
{
	struct supervisor *up = (struct supervisor *)((char *)t - offsetof(struct supervisor, step));

	(void)now_ms;
	if (!up->asked)
		ask_stage(up);
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
}

void stop_begin(struct supervisor *up)
{
	up->step.fire = on_step;
	up->stage = -1;
	if (up->status == 0)
		screen_say(up, "stopping");
	stop_step(up);
}
