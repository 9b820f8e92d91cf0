#pragma once
#include "common/text.h"
#include "scene/view.h"
/*
 * What the parts of view share: view.c (things and where they are), view_tell.c (what is around, and what is told of it).
 * Private to them. Threads: owner worker only.
 */

/* What a watcher was last told of a thing. */
struct told {
	int64_t id;
	uint32_t moves, hps;
};

/* What makes a thing a watcher. */
struct watch {
	char connector[VIEW_CONNECTOR_MAX];
	uint64_t sid;
	unsigned place; /* in the view's list */
	bool thrown;
	uint32_t hps; /* of its own */
	struct told *told;
	unsigned told_n, told_cap;
};

#define MOVE_TEXT (32 + 20 + 2 * TEXT_DOUBLE_MAX)
struct thing {
	int64_t id;
	enum view_kind kind;
	struct buf name; /* as JSON */
	double x, y;
	int64_t hp, hp_max;
	uint32_t moves, hps; /* counted, so that a watcher can tell whether there is news */
	uint32_t cell, place;
	struct watch *watch; /* NULL: it is told nothing */
	/* {"id":…,"x":…,"y":…} of move number move_of: several watchers are told the same */
	uint32_t move_of;
	unsigned move_n;
	char move[MOVE_TEXT];
};

struct cell {
	struct thing **thing;
	uint32_t n, cap;
};

struct sight {
	struct thing *thing;
	double distance2;
};

struct view {
	struct view_options o;
	uint32_t columns, rows;
	struct cell *cell;
	struct thing **slot; /* by id, open addressing */
	uint32_t slots, things;
	struct thing **watcher;
	unsigned watchers, watcher_cap, next;
	/* of the update that is being made */
	struct sight *sight;
	unsigned sights, sight_cap;
	struct buf enter, leave, move, hp, text;
	int64_t *ids;
	unsigned ids_cap;
};

/* Room for wanted elements; what p holds stays. */
void *view_grown(void *p, unsigned *cap, unsigned wanted, size_t size);
struct thing *view_find(const struct view *v, int64_t id); /* NULL: there is none */
/* The column or row of a coordinate; what lies outside of the map counts as its edge's. */
uint32_t view_step(double at, double reach, uint32_t steps);
