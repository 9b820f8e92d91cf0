#pragma once
#include <pthread.h>
#include <stdbool.h>
/*
 * flag: a counter that one thread raises and another waits for, with a deadline: how tests wait for a condition.
 *
 * Threads: any. Memory: embed it; flag_init before use, no release needed.
 */
struct flag {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned long count;
};
void flag_init(struct flag *f);
void flag_raise(struct flag *f); /* count + 1 */
unsigned long flag_count(struct flag *f);
bool flag_wait(struct flag *f, unsigned long count); /* until count is reached; false: not within a minute */
bool flag_wait_s(struct flag *f, unsigned long count, unsigned seconds);
