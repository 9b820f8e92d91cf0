#pragma once
#include "rpc/route.h"
/*
 * route_rows: the rows of the route table as they come one by one from outside, and the tables made of them.
 *
 * A row that does not check is refused and what was there stays. One that vanishes though it was not draining is missing:
 * it stays in the table until somebody has looked whether its process lives, for the store of the rows may have lost it.
 *
 * Threads: owner only. No I/O; the time is passed in.
 * Memory:  rows are copied; a table made of them is the caller's.
 */
struct route_rows;
#define ROUTE_ROWS_MAX 4096

struct route_rows *route_rows_new(void);
void route_rows_free(struct route_rows *r); /* NULL is fine */

/* From the text of one row, as route_row_to_json writes it; error says which member is wrong. */
int route_row_get(const char *text, size_t n, struct route_row *row, char *error, size_t error_size);

/* id and text are of the store. 1: the table has changed; 0: it says what is known; ERR_CONFIG with one line that names the row. */
int route_rows_set(struct route_rows *r, const char *id, const char *text, size_t n, char *error, size_t error_size);
/* It is gone from the store. 1: the table has changed (it was draining); 0: it is missing from now on. */
int route_rows_unset(struct route_rows *r, const char *id, uint64_t now_ms);

/* A whole reading: what is not set between the two is unset by the second, which returns 1 if the table has changed. */
void route_rows_begin(struct route_rows *r);
int route_rows_end(struct route_rows *r, uint64_t now_ms);

/* A row that has been missing for hold_ms; NULL: none. */
const struct route_row *route_rows_overdue(const struct route_rows *r, uint64_t now_ms, uint64_t hold_ms);
size_t route_rows_missing(const struct route_rows *r);
void route_rows_keep(struct route_rows *r, const char *id, uint64_t now_ms); /* it lives: missing anew from now */
bool route_rows_drop_missing(struct route_rows *r, const char *id);          /* it does not; false: it came back */

struct route_table *route_rows_table(const struct route_rows *r, uint64_t version); /* sorted by id */
