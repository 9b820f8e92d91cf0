#pragma once
#include <stdint.h>
#include "common/buf.h"
/*
 * random_log: SQL logs of canonical statements drawn from a seed, over tables made to catch whoever lets two statements
 * change places, or drops one, that should not: few rows, so that most meet; relative and absolute changes of one column;
 * unique keys beside the primary one; unsigned columns and checks that refuse a state on the way; texts that are equal
 * without being the same; statements that no shape fits.
 */
extern const char random_log_tables[]; /* CREATE TABLE … for MariaDB and the simulated store */
extern const char random_log_extra[];  /* triggers, foreign keys, collations: MariaDB alone */
#define RANDOM_LOG_NAMES "hero, item, quest, seat, purse, word"
enum {
	RANDOM_LOG_RISKY = 1, /* with statements the database refuses */
	RANDOM_LOG_EXTRA = 2  /* with statements on the extra tables */
};
/* A file of records first .. first + n - 1 of epoch 1. */
void random_log(struct buf *out, uint64_t seed, uint64_t first, unsigned n, unsigned kinds);
