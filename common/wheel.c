#include "common/wheel.h"
#include <assert.h>
#include <stdlib.h>

/*
 * Level k has slots of 256^k ms. A level holds two windows of 256 slots: the one that contains `base` and the
 * next one. So while a window runs, the slot of the level above that becomes the next window is emptied into
 * this one a few timers per tick, ahead of its boundary, instead of all at once when the boundary comes: that
 * stall was 97 ms at a million timers. What is started for the next window goes there directly, so the slot
 * being emptied only shrinks.
 *
 * A running timer that is started anew for later, as each heartbeat does, stays where it is and gets its new time: three
 * cache misses less. When its slot's turn comes it goes where it belongs.
 *
 * A slot is a ring whose head is a struct timer too: unlinking has no special case, and a ring that has just
 * become empty is seen from its head pointing at itself. The head's due_ms counts what was put there since it
 * was last empty: an upper bound of its length (stop does not know the slot), which paces the emptying.
 */
enum { LEVELS = 5, BITS = 8, SLOTS = 2 << BITS, WORDS = SLOTS / 64, MOVES = 256 };

struct level {
	uint64_t used[WORDS]; /* one bit per slot that is not empty */
	struct timer slot[SLOTS];
};

struct wheel {
	uint64_t base; /* all that was due before it has fired or is in firing */
	uint64_t count;
	bool running;        /* inside fire(): the tick of base is over, what starts now is for the next one */
	struct timer firing; /* head of what is due */
	struct level level[LEVELS];
};

static void ring_init(struct timer *head)
{
	head->next = head;
	head->prev = &head->next;
	head->due_ms = 0;
}

static bool ring_empty(const struct timer *head)
{
	return head->next == head;
}

static void ring_append(struct timer *head, struct timer *t)
{
	t->next = head;
	t->prev = head->prev;
	*head->prev = t;
	head->prev = &t->next;
}

static void ring_remove(struct timer *t)
{
	*t->prev = t->next;
	t->next->prev = t->prev;
}

/* Moves the whole ring from into the empty ring to. */
static void ring_take(struct timer *to, struct timer *from)
{
	to->next = from->next;
	to->prev = from->prev;
	to->next->prev = &to->next;
	*to->prev = to;
	ring_init(from);
}

struct wheel *wheel_new(uint64_t now_ms)
{
	struct wheel *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	w->base = now_ms;
	ring_init(&w->firing);
	for (int k = 0; k < LEVELS; k++)
		for (int i = 0; i < SLOTS; i++)
			ring_init(&w->level[k].slot[i]);
	return w;
}

void wheel_free(struct wheel *w)
{
	free(w);
}

static void slot_mark(struct level *l, unsigned i)
{
	l->used[i / 64] |= UINT64_C(1) << (i % 64);
}

static void slot_clear(struct level *l, unsigned i)
{
	l->used[i / 64] &= ~(UINT64_C(1) << (i % 64));
	l->slot[i].due_ms = 0;
}

/* The first level whose two windows contain due; what lies beyond the last one waits in its farthest slot. */
static void place(struct wheel *w, struct timer *t)
{
	uint64_t floor = w->base + w->running, due = t->due_ms > floor ? t->due_ms : floor;
	int k = 0;
	while (k < LEVELS && (due >> (BITS * (k + 1))) - (w->base >> (BITS * (k + 1))) > 1)
		k++;
	if (k == LEVELS) {
		k--;
		due = (((w->base >> (BITS * LEVELS)) + 2) << (BITS * LEVELS)) - 1;
	}
	struct level *l = &w->level[k];
	unsigned i = (due >> (BITS * k)) % SLOTS;
	ring_append(&l->slot[i], t);
	l->slot[i].due_ms++;
	slot_mark(l, i);
}

bool timer_running(const struct timer *t)
{
	return t->prev != NULL;
}

static void emptied(struct wheel *w, struct timer *head)
{
	if (head == &w->firing)
		return;
	size_t at = (size_t)((char *)head - (char *)w->level);
	struct level *l = &w->level[at / sizeof *l];
	slot_clear(l, (unsigned)(head - l->slot));
}

bool wheel_stop(struct wheel *w, struct timer *t)
{
	if (!t->prev)
		return false;
	ring_remove(t);
	if (t->next->next == t->next) /* only a head points at itself */
		emptied(w, t->next);
	t->next = NULL;
	t->prev = NULL;
	w->count--;
	return true;
}

void wheel_start(struct wheel *w, struct timer *t, uint64_t due_ms)
{
	assert(t->fire);
	if (t->prev && due_ms >= t->due_ms) {
		t->due_ms = due_ms;
		return;
	}
	wheel_stop(w, t);
	t->due_ms = due_ms;
	place(w, t);
	w->count++;
}

/* The distance from slot `from` round the ring to the first used one; SLOTS: all are empty. */
static unsigned level_seek(const struct level *l, unsigned from)
{
	unsigned word = from / 64, shift = from % 64;
	uint64_t bits = l->used[word] >> shift;
	if (bits)
		return (unsigned)__builtin_ctzll(bits);
	for (unsigned i = 1; i < WORDS; i++) { /* what stands before from in its own word is behind us */
		bits = l->used[(word + i) % WORDS];
		if (bits)
			return (i * 64 + (unsigned)__builtin_ctzll(bits) - shift);
	}
	return SLOTS;
}

/*
 * The time at which the first used slot of level k must begin to be emptied so that MOVES per tick suffice.
 * It lies in the window before that slot's own, where its timers have places one level below.
 */
static uint64_t level_wake(const struct wheel *w, int k)
{
	uint64_t first = (w->base >> (BITS * k)) + 1;
	const struct level *l = &w->level[k];
	unsigned distance = level_seek(l, first % SLOTS);
	if (distance == SLOTS)
		return UINT64_MAX;
	uint64_t slot = first + distance, boundary = slot << (BITS * k), earliest = (slot - 1) << (BITS * k);
	uint64_t ticks = l->slot[slot % SLOTS].due_ms / MOVES + 1;
	return ticks < boundary - earliest ? boundary - ticks : earliest;
}

/* The next time after base at which anything is to be done. */
static uint64_t next_stop(const struct wheel *w)
{
	unsigned distance = level_seek(&w->level[0], (w->base + 1) % SLOTS);
	uint64_t stop = distance == SLOTS ? UINT64_MAX : w->base + 1 + distance;
	for (int k = 1; k < LEVELS; k++) {
		uint64_t wake = level_wake(w, k);
		if (wake < stop)
			stop = wake;
	}
	return stop > w->base ? stop : w->base + 1;
}

/* Empties the slot of level k that comes next: an equal share of it per tick that is left, so all that is there in the last. */
static void level_drain(struct wheel *w, int k)
{
	uint64_t slot = (w->base >> (BITS * k)) + 1, left = (slot << (BITS * k)) - w->base;
	struct level *l = &w->level[k];
	unsigned i = slot % SLOTS;
	struct timer *head = &l->slot[i];
	if (ring_empty(head))
		return;
	uint64_t quota = head->due_ms / left + 1;
	if (quota < MOVES)
		quota = MOVES;
	while (quota-- && !ring_empty(head)) {
		struct timer *t = head->next;
		__builtin_prefetch(t->next->next);
		ring_remove(t);
		head->due_ms--;
		place(w, t);
	}
	if (ring_empty(head))
		slot_clear(l, i);
}

static void fire_next(struct wheel *w, struct timer *t, uint64_t now_ms)
{
	t->next = NULL;
	t->prev = NULL;
	w->count--;
	w->running = true;
	t->fire(t, now_ms);
	w->running = false;
}

/* Empties w->firing, at most *budget timers of it; returns how many fired. */
static uint32_t fire_due(struct wheel *w, uint64_t now_ms, uint32_t *budget)
{
	uint32_t fired = 0;
	for (; *budget && !ring_empty(&w->firing); --*budget) {
		struct timer *t = w->firing.next;
		__builtin_prefetch(t->next->next);
		ring_remove(t);
		if (t->due_ms > w->base) { /* started anew since it came into its slot */
			place(w, t);
			continue;
		}
		fired++;
		fire_next(w, t, now_ms);
	}
	return fired;
}

uint32_t wheel_run(struct wheel *w, uint64_t now_ms, uint32_t max)
{
	uint32_t fired = 0;
	assert(!w->running);
	if (now_ms < w->base) /* a clock that went back fires nothing early */
		return 0;
	for (;;) {
		fired += fire_due(w, now_ms, &max);
		if (!max)
			return fired;
		unsigned i = w->base % SLOTS;
		if (!ring_empty(&w->level[0].slot[i])) {
			ring_take(&w->firing, &w->level[0].slot[i]);
			slot_clear(&w->level[0], i);
			continue;
		}
		if (w->base >= now_ms)
			return fired;
		uint64_t stop = next_stop(w);
		w->base = stop < now_ms ? stop : now_ms;
		for (int k = LEVELS - 1; k > 0; k--)
			level_drain(w, k);
	}
}

uint64_t wheel_next_ms(const struct wheel *w)
{
	if (!w->count)
		return UINT64_MAX;
	if (!ring_empty(&w->firing) || !ring_empty(&w->level[0].slot[w->base % SLOTS]))
		return w->base;
	return next_stop(w);
}

uint64_t wheel_count(const struct wheel *w)
{
	return w->count;
}

/* Counts a ring into *total; false when its links or, for slot `number` of level k, its timers are wrong. */
static bool ring_check(const struct wheel *w, const struct timer *head, int k, uint64_t number, uint64_t *total)
{
	uint64_t n = 0;
	struct timer *const *back = &head->next;
	for (const struct timer *t = head->next; t != head; back = &t->next, t = t->next, n++) {
		bool late = number == w->base + 1 || number == w->base; /* where what is due at once is put */
		if (t->prev != back)
			return false;
		if (k >= 0 && t->due_ms >> (BITS * k) < number && !(k == 0 && late))
			return false;
	}
	*total += n;
	return head->prev == back && (k < 0 || n <= head->due_ms);
}

bool wheel_check(const struct wheel *w)
{
	uint64_t total = 0;
	bool ok = ring_check(w, &w->firing, -1, 0, &total);
	for (int k = 0; k < LEVELS; k++) {
		const struct level *l = &w->level[k];
		for (unsigned i = 0; i < SLOTS; i++) {
			uint64_t now = w->base >> (BITS * k), number = now + (i - now) % SLOTS;
			bool used = l->used[i / 64] >> (i % 64) & 1;
			ok = ok && used == !ring_empty(&l->slot[i]) && (used || l->slot[i].due_ms == 0);
			ok = ok && !(k > 0 && used && number == now); /* the running slot was emptied before */
			ok = ok && ring_check(w, &l->slot[i], k, number, &total);
		}
	}
	return ok && total == w->count;
}
