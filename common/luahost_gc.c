/*
 * The collector's work is done at the ends of turns, when the requests of the turn have been answered, in pieces that are
 * bounded and measured; Lua's own collector, which works inside of requests, only comes in when those of one turn allocate
 * much. A cycle has to be quick: what is changed while it lasts is looked at again at its end, all of a piece.
 *
 * Two ways of working: incremental, whose pieces are short however large the heap is; generational, which does less in all as
 * long as the heap is small, and all of a piece. "auto" begins with the second and changes over for good as soon as a piece
 * has taken longer than it may.
 */
#include <lauxlib.h>

#include "common/luahost_private.h"

enum {
	LOOK_BYTES = 16 << 10,  /* allocated, before the end of a turn is looked at */
	STEP_BYTES = 2 << 10,   /* allocated, per step of the incremental collector: Lua's own pace */
	PIECE_NS = 1000000,     /* no further step after this */
	STEP_LOG2 = 11,         /* the size of a step, as LUA_GCINC wants it: some 20 µs */
	GROWTH_MIN = 256 << 10, /* a cycle begins when the heap has grown by this, or by … */
	GROWTH_PERCENT = 75,    /* … this part of what was live */
	OWN_PERCENT = 300,      /* Lua's own begins at this, if no turn ends before */
	CREDIT_KB = 512,        /* what a turn may allocate before Lua's own goes on with a cycle of ours */
	YOUNG_MIN = 1 << 20,    /* a young collection after so much, or … */
	YOUNG_PART = 10,        /* … this part of the heap */
	AUTO_NS = 2000000,      /* a longer piece ends the generational way, … */
	AUTO_BYTES = 8 << 20,   /* … and so does a heap whose whole collection would take longer */
};

static void go_incremental(struct luahost *h)
{
	lua_gc(h->L, LUA_GCINC, OWN_PERCENT, 0, STEP_LOG2);
	h->gc.generational = h->gc.running = false;
	h->gc.start_bytes = h->mem.used + GROWTH_MIN;
}

static void note_piece(struct luahost *h, uint64_t from_ns)
{
	uint64_t took_ns = env_mono_ns(h->o.loop->env) - from_ns;
	hist_add(&h->gc.pauses, took_ns);
	if (h->gc.metric)
		metric_observe_ns(h->gc.metric, took_ns);
	if (!h->gc.generational || h->o.gc != LUAHOST_GC_AUTO || (took_ns <= AUTO_NS && h->mem.used <= AUTO_BYTES))
		return;
	go_incremental(h);
	if (h->o.log)
		log_info(h->o.log, "lua.gc", "mode=incremental worker=%u pause_us=%llu memory_bytes=%zu",
			 h->o.loop->index, (unsigned long long)(took_ns / 1000), h->mem.used);
}

static void cycle_ended(struct luahost *h)
{
	size_t growth = h->mem.used / 100 * GROWTH_PERCENT;
	h->gc.running = false;
	h->gc.owed = 0;
	h->gc.start_bytes = h->mem.used + (growth > GROWTH_MIN ? growth : GROWTH_MIN);
}

/* At least one step, then as many as were allocated for, while there is time. */
static void step(struct luahost *h, size_t allocated)
{
	uint64_t from_ns = env_mono_ns(h->o.loop->env);
	h->gc.owed += allocated / STEP_BYTES + 1;
	bool ended = false;
	do {
		ended = lua_gc(h->L, LUA_GCSTEP, 0);
		h->gc.owed--;
	} while (!ended && h->gc.owed && env_mono_ns(h->o.loop->env) - from_ns < PIECE_NS);
	if (ended)
		cycle_ended(h);
	else
		lua_gc(h->L, LUA_GCSTEP, -CREDIT_KB);
	note_piece(h, from_ns);
}

static void collect_young(struct luahost *h)
{
	uint64_t from_ns = env_mono_ns(h->o.loop->env);
	lua_gc(h->L, LUA_GCSTEP, (int)(h->mem.used >> 10)); /* so much debt that it is due, whatever credit it has */
	note_piece(h, from_ns);
}

static void collect(struct luahost *h)
{
	size_t allocated = h->mem.allocated - h->gc.seen;
	if (allocated < LOOK_BYTES)
		return;
	if (h->gc.generational) {
		if (allocated < YOUNG_MIN || allocated < h->mem.used / YOUNG_PART)
			return;
		h->gc.seen = h->mem.allocated;
		collect_young(h);
		return;
	}
	h->gc.seen = h->mem.allocated;
	if (h->gc.running && h->stats.gc_cycles != h->gc.cycles)
		cycle_ended(h); /* inside of a request: another step would begin the next one */
	if (!h->gc.running && h->mem.used < h->gc.start_bytes)
		return;
	if (!h->gc.running)
		h->gc.cycles = h->stats.gc_cycles;
	h->gc.running = true;
	step(h, allocated);
}

/* The end of a turn in which Lua ran. */
static void on_turn_end(struct loop_deferred *d)
{
	struct luahost *h = (struct luahost *)((char *)d - offsetof(struct luahost, gc.turn_end));
	h->attention = 1; /* what runs in the next turn asks for its end */
	collect(h);
	if (h->metric[0] && h->o.loop->now_ms >= h->metrics_due_ms)
		luahost_metrics_write(h);
}

void luahost_gc_open(struct luahost *h)
{
	h->gc.turn_end.run = on_turn_end;
	go_incremental(h);
	if (h->o.gc == LUAHOST_GC_INCREMENTAL)
		return;
	lua_gc(h->L, LUA_GCGEN, 0, 0);
	h->gc.generational = true;
}

void luahost_turn_end(struct luahost *h)
{
	if (!h->closing && !h->gc.turn_end.queued)
		loop_defer(h->o.loop, &h->gc.turn_end);
}

/* ---- room for texts ------------------------------------------------------------------------------------------ */

/*
 * Lua keeps all short texts in one table, which doubles when it is full: all of a piece, 10 ms for 100,000 texts and more than
 * in proportion for more. Here it is made large while it is empty, by that many texts; a quarter of them is kept, in
 * tables that are short enough for the collector, because the table would be made smaller again without them.
 */
enum { KEPT = 1000 };

static int make_texts(lua_State *L, void *arg)
{
	uint32_t room = *(const uint32_t *)arg, kept = room / 4 + 1;
	lua_createtable(L, (int)(kept / KEPT + 1), 0);
	for (uint32_t i = 0; i <= room / 2; i++) {
		if (i < kept && i % KEPT == 0) {
			lua_settop(L, 1);
			lua_createtable(L, KEPT, 0);
			lua_pushvalue(L, -1);
			lua_rawseti(L, 1, i / KEPT + 1);
		}
		lua_pushlstring(L, (const char *)&i, sizeof i);
		if (i < kept)
			lua_rawseti(L, 2, i % KEPT + 1);
		else
			lua_pop(L, 1);
	}
	lua_settop(L, 1);
	luaL_ref(L, LUA_REGISTRYINDEX); /* for good */
	return 0;
}

int luahost_gc_room(struct luahost *h, uint32_t texts)
{
	uint32_t room = 1024;
	while (room < texts)
		room *= 2;
	lua_gc(h->L, LUA_GCSTOP); /* all of them have to be there at once */
	int err = luahost_protected(h, make_texts, &room);
	lua_gc(h->L, LUA_GCRESTART);
	return err;
}
