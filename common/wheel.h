#pragma once
#include <stdbool.h>
#include <stdint.h>
/*
 * wheel: very many cheap timers for one worker (hierarchical timing wheel).
 *
 * Threads:   a wheel belongs to the worker that made it; every call is on that thread.
 * Memory:    the caller embeds struct timer in its own object; the wheel allocates only in
 *            wheel_new. Stop a timer before its object is freed.
 * Time:      milliseconds of the loop's clock, passed in; the wheel reads no clock. A tick is 1 ms.
 * Precision: fires in [due, due + one tick], never early. Start and stop are O(1).
 * Cascade:   spread: a bounded number of timers is moved per tick, so no tick stalls.
 * Source:    Varghese and Lauck, "Hashed and hierarchical timing wheels", SOSP 1987.
 */
struct wheel;
struct timer { /* zero it; the fields are the wheel's, fire is yours */
	struct timer *next, **prev;
	uint64_t due_ms;
	void (*fire)(struct timer *self, uint64_t now_ms);
};

struct wheel *wheel_new(uint64_t now_ms); /* NULL: no memory */
void wheel_free(struct wheel *w);         /* NULL is fine */

/*
 * Starts t, or moves it if it runs; to move one to a later time costs next to nothing. fire() may start or stop any timer,
 * itself included.
 */
void wheel_start(struct wheel *w, struct timer *t, uint64_t due_ms);
bool wheel_stop(struct wheel *w, struct timer *t); /* false: it was not running */
bool timer_running(const struct timer *t);

/* Fires what is due, looking at max timers at most, so that the loop stays fair; returns how many fired. */
uint32_t wheel_run(struct wheel *w, uint64_t now_ms, uint32_t max);

/* A time at or before the earliest due timer, when wheel_run is worth calling; UINT64_MAX: none runs. */
uint64_t wheel_next_ms(const struct wheel *w);
uint64_t wheel_count(const struct wheel *w);
bool wheel_check(const struct wheel *w); /* invariants hold; for tests */
