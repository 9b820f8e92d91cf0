#include <mysql.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/crash.h"
/*
 * The check knows the ledgers and the tables alone. It recounts each account from the rows of `entry` in the order in
 * which they took effect.
 */
#define ACCOUNTS_MAX 8192
#define CHAIN_PRIME  1000000007

struct numbers {
	uint64_t *at;
	size_t n, capacity;
};
struct recount {
	int64_t gold, chain, changes, level;
	uint64_t last;
};
struct check {
	MYSQL *db;
	struct numbers acks, entries;
	struct recount account[ACCOUNTS_MAX];
	struct crash_report *report;
};

static void add(struct numbers *l, uint64_t v)
{
	if (l->n == l->capacity) {
		l->capacity = l->capacity ? 2 * l->capacity : 1 << 16;
		l->at = realloc(l->at, l->capacity * sizeof *l->at);
	}
	l->at[l->n++] = v;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void fault(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fault(struct check *c, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	if (!c->report->faults++)
		vsnprintf(c->report->first, sizeof c->report->first, fmt, ap);
	va_end(ap);
}

static void each_row(struct check *c, const char *sql, void (*fn)(struct check *c, char **cells))
{
	if (mysql_query(c->db, sql)) {
		fault(c, "%s", mysql_error(c->db));
		return;
	}
	MYSQL_RES *rows = mysql_use_result(c->db);
	MYSQL_ROW row;
	while (rows && (row = mysql_fetch_row(rows)))
		fn(c, row);
	if (mysql_errno(c->db))
		fault(c, "%s", mysql_error(c->db));
	mysql_free_result(rows);
}

/* ---- effects, in their order ------------------------------------------------------------------------------------ */

static void on_entry(struct check *c, char **cells)
{
	uint64_t id = strtoull(cells[0], NULL, 10), op = strtoull(cells[1], NULL, 10);
	int64_t amount = strtoll(cells[2], NULL, 10);
	if (id >= ACCOUNTS_MAX) {
		fault(c, "account %llu was never made", (unsigned long long)id);
		return;
	}
	struct recount *a = &c->account[id];
	if (op <= a->last)
		fault(c, "account %llu: change %llu took effect behind %llu", (unsigned long long)id,
		      (unsigned long long)op, (unsigned long long)a->last);
	a->last = op;
	a->gold += amount;
	a->chain = (int64_t)(((uint64_t)a->chain * 31 + op) % CHAIN_PRIME);
	a->changes++;
	if (!amount)
		a->level = (int64_t)op;
	add(&c->entries, op);
}

static void on_account(struct check *c, char **cells)
{
	int64_t id = strtoll(cells[0], NULL, 10);
	const struct recount *a = &c->account[id];
	const int64_t expected[] = { a->gold, a->chain, a->changes, a->level };
	static const char *const name[] = { "gold", "chain", "changes", "level" };
	for (unsigned i = 0; i < 4; i++)
		if (strtoll(cells[i + 1], NULL, 10) != expected[i])
			fault(c, "account %lld: its %s is %s, its changes make it %lld", (long long)id, name[i],
			      cells[i + 1], (long long)expected[i]);
}

/* ---- what was acknowledged -------------------------------------------------------------------------------------- */

static void read_ledger(struct check *c, const char *path)
{
	FILE *f = fopen(path, "r");
	uint64_t op;
	while (f && fread(&op, sizeof op, 1, f) == 1)
		add(&c->acks, op);
	if (f)
		fclose(f);
	else
		fault(c, "%s cannot be read", path);
}

static void match(struct check *c)
{
	struct numbers *acks = &c->acks, *entries = &c->entries;
	size_t e = 0;
	if (acks->n)
		qsort(acks->at, acks->n, sizeof *acks->at, by_value);
	if (entries->n)
		qsort(entries->at, entries->n, sizeof *entries->at, by_value);
	for (size_t a = 0; a < acks->n || e < entries->n;) {
		uint64_t ack = a < acks->n ? acks->at[a] : UINT64_MAX;
		uint64_t op = e < entries->n ? entries->at[e] : UINT64_MAX;
		if (ack < op) {
			fault(c, "change %llu was acknowledged and is not there", (unsigned long long)ack);
			a++;
			continue;
		}
		size_t n = 0, wanted = (op & 3) == CRASH_TRANSFER ? 2 : 1;
		for (; e < entries->n && entries->at[e] == op; e++)
			n++;
		if (n != wanted)
			fault(c, "change %llu has %zu effects instead of %zu", (unsigned long long)op, n, wanted);
		c->report->landed++;
		c->report->unacknowledged += ack != op;
		a += ack == op;
		if (ack == op && a < acks->n && acks->at[a] == op)
			fault(c, "change %llu was acknowledged twice", (unsigned long long)op);
	}
	c->report->acknowledged = acks->n;
}

void crash_check(const char *socket, const char *const *ledgers, unsigned n, struct crash_report *out)
{
	struct check *c = calloc(1, sizeof *c);
	*out = (struct crash_report){ 0 };
	c->report = out;
	c->db = mysql_init(NULL);
	for (unsigned i = 0; i < n; i++)
		read_ledger(c, ledgers[i]);
	if (!mysql_real_connect(c->db, NULL, "root", NULL, "loquat", 0, socket, 0)) {
		fault(c, "%s", mysql_error(c->db));
	} else {
		each_row(c, "SELECT account, op, amount FROM entry ORDER BY n", on_entry);
		each_row(c, "SELECT id, gold, chain, changes, level FROM account", on_account);
		match(c);
	}
	mysql_close(c->db);
	free(c->acks.at);
	free(c->entries.at);
	free(c);
}
