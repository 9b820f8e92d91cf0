#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
/*
 * view: who sees what in one scene, and what each player has to be told of it.
 *
 * Things stand on a map; each watching player is told what came into its view, left it, moved or changed its hp since it
 * was told last. A crowd makes this the larger part of a scene's work, so it is C; what things do is Lua's.
 *
 * Threads: owner worker only. No clock, no I/O.
 * Memory:  view_free frees everything; a thing costs about 300 bytes, a watcher besides 16 per thing it knows.
 * Units:   the map's own; a place outside of the map counts as its edge's.
 * Seen:    what is at most `reach` away, oneself not counted; of players only the nearest players_max.
 * Costs:   a move is O(1), an update goes by the things around (cells as wide as reach).
 */
enum view_kind { VIEW_PLAYER, VIEW_MONSTER, VIEW_DROP };
#define VIEW_CONNECTOR_MAX 32

struct view_options {
	double width, height, reach;
	unsigned players_max;
};
struct view_thing {
	int64_t id; /* from 1, the caller's: its order is the order of updates */
	enum view_kind kind;
	const char *name; /* UTF-8; copied */
	size_t name_n;
	double x, y;
	int64_t hp, hp_max;
};
struct view;
struct view *view_new(const struct view_options *o);
void view_free(struct view *v); /* NULL is fine */

int view_add(struct view *v, const struct view_thing *t); /* ERR_EXISTS: the id is taken; ERR_BAD_REQUEST: below 1 */
/* These answer false when there is no such thing. */
bool view_remove(struct view *v, int64_t id);
bool view_move(struct view *v, int64_t id, double x, double y);
bool view_throw(struct view *v, int64_t id, double x, double y); /* a move its own player has to be told too */
bool view_hp(struct view *v, int64_t id, int64_t hp);
/* A player with hp left that is nearer than distance, which is at most reach; of equals the lower id; 0: none. */
int64_t view_nearest_player(const struct view *v, double x, double y, double distance);

/* The player is told from now on, at this connection, as one that knows nothing; again: at another connection. */
bool view_watch(struct view *v, int64_t id, const char *connector, uint64_t sid);
/* What the player sees, ids in order, now known to it; valid until the next call. Negative: no such watcher. */
int view_look(struct view *v, int64_t id, const int64_t **ids);

/*
 * Tells the next watchers, at most max of them, in turn: text is the update's JSON
 * {"enter":[…],"hp":[{id,hp}],"leave":[id],"move":[{id,x,y}],"tick":tick} with only the lists that hold something; who
 * has nothing to be told is passed over. tell() may not change the view. Returns how many were told.
 */
unsigned view_tell(struct view *v, unsigned max, int64_t tick,
		   void (*tell)(void *arg, const char *connector, uint64_t sid, const char *text, size_t n), void *arg);
unsigned view_watchers(const struct view *v);
