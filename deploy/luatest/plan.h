#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
/*
 * plan: the tests that are to run, and their running: in as many processes as there are cores, each in a world of its own,
 * told in their order.
 *
 * Threads: one, in each process.
 */
struct tester;
struct item {
	const char *module; /* "tests.shop" */
	char *name;
	int index; /* in its file, from 1; 0: the file itself cannot be loaded */
};
struct plan {
	struct tester *tester;
	struct item *item;
	size_t items;
};
struct outcome {
	bool ok;
	struct buf why, log; /* what is wrong; what the scripts have logged */
	uint64_t took_us;
};

uint64_t now_us(void);
/* Whose process dies has failed, and says so; those after it run in another. */
void plan_run(struct plan *p, void (*on_result)(void *arg, const struct item *item, struct outcome *out), void *arg);
void plan_release(struct plan *p);
