/* The tables of a test: the simulation's store, and the records that change them. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "deploy/luatest/luatest.h"

/* What the store asks of the simulation's world. */
static struct sim outside;

/* All that the store of one test has taken: it goes as one. */
struct piece {
	struct piece *next, **prev;
};
static struct piece *pieces;

static void *join(struct piece *p)
{
	assert(p);
	p->next = pieces;
	p->prev = &pieces;
	if (p->next)
		p->next->prev = &p->next;
	pieces = p;
	return p + 1;
}

static void leave(struct piece *p)
{
	*p->prev = p->next;
	if (p->next)
		p->next->prev = p->prev;
}

void *w_alloc(size_t n)
{
	return join(calloc(1, sizeof(struct piece) + n));
}

void *w_realloc(void *p, size_t n)
{
	if (!p)
		return w_alloc(n);
	leave((struct piece *)p - 1);
	return join(realloc((struct piece *)p - 1, sizeof(struct piece) + n));
}

char *w_strdup(const char *s)
{
	return memcpy(w_alloc(strlen(s) + 1), s, strlen(s) + 1);
}

void w_free(void *p)
{
	if (!p)
		return;
	leave((struct piece *)p - 1);
	free((struct piece *)p - 1);
}

void w_note(struct sim *w, const char *kind, uint64_t a, uint64_t b)
{
	(void)w, (void)kind, (void)a, (void)b;
}

bool rng_chance(struct rng *r, uint32_t ppm)
{
	(void)r, (void)ppm;
	return false;
}

uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
	return route_hash(p, n) ^ h;
}

static unsigned run(struct world *x, const char *sql, size_t n, struct result *r)
{
	size_t at = 0;
	unsigned code = db_execute(&x->db, &x->db.outside, sql, n, &at, r);

	txn_rollback(&x->db.outside);
	return code;
}

static void store_open(struct world *x)
{
	struct tester *t = x->t;

	if (x->db_open)
		return;
	x->db_open = true;
	x->db.w = &outside;
	for (size_t i = 0; i < t->ddl_n; i++) {
		struct result r = { .rows = 0 };

		if (run(x, t->ddl[i], strlen(t->ddl[i]), &r))
			snprintf(x->fail, sizeof x->fail, "deploy/schema, file %zu: %.200s", i + 1, r.error.message);
		arena_release(&r.arena);
	}
}

unsigned store_run(struct world *x, const char *sql, size_t n, struct result *r)
{
	store_open(x);
	return run(x, sql, n, r);
}

/* As the SQL log and the replay behind it would; a statement that the database refuses fails the test. */
int store_append(struct world *x, struct sql_record *r, uint64_t *lsn)
{
	struct result result = { .rows = 0 };
	struct record *record;

	if (x->record_err && x->record_err != ERR_UNKNOWN)
		return x->record_err;
	record = calloc(1, sizeof *record);
	assert(record);
	memcpy(record->keys, r->keys, sizeof record->keys);
	record->sql = strndup(r->body.data, r->body.len);
	*x->records_last = record;
	x->records_last = &record->next;
	buf_addstr(&r->body, "COMMIT;\n");
	if (x->record_err != ERR_UNKNOWN && store_run(x, r->body.data, r->body.len, &result)) {
		x->ended = true;
		buf_clear(&x->why);
		buf_addf(&x->why, "the database would refuse this record: %s\n%s", result.error.message, record->sql);
	}
	arena_release(&result.arena);
	sql_record_clear(r);
	if (lsn)
		*lsn = x->lsn + 1;
	x->lsn++;
	return 0;
}

void store_close(struct world *x)
{
	while (pieces)
		w_free(pieces + 1);
	for (struct record *r = x->records, *next; r; r = next) {
		next = r->next;
		free(r->sql);
		free(r);
	}
}
