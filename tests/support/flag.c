#include "tests/support/flag.h"
#include <time.h>

enum { DEADLINE_S = 60 }; /* for a machine that has much else to do */

void flag_init(struct flag *f)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* whatever is done to the machine's date */
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, &attr);
	pthread_condattr_destroy(&attr);
	f->count = 0;
}

void flag_raise(struct flag *f)
{
	pthread_mutex_lock(&f->lock);
	f->count++;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
}

unsigned long flag_count(struct flag *f)
{
	pthread_mutex_lock(&f->lock);
	unsigned long count = f->count;
	pthread_mutex_unlock(&f->lock);
	return count;
}

bool flag_wait_s(struct flag *f, unsigned long count, unsigned seconds)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&f->lock);
	int late = 0;
	while (f->count < count && !late)
		late = pthread_cond_timedwait(&f->changed, &f->lock, &until);
	bool reached = f->count >= count;
	pthread_mutex_unlock(&f->lock);
	return reached;
}

bool flag_wait(struct flag *f, unsigned long count)
{
	return flag_wait_s(f, count, DEADLINE_S);
}
