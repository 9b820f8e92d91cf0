#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include "rpc/app_private.h"

/* What once-calls need of the database: an owner's set, and answers that are not in memory. */
#define RETRY_MS 100

struct app_once_read {
	struct app_once_read *next, **prev;
	struct app *app;
	struct once_owner *owner; /* its set, or */
	struct once_entry *entry; /* this one's row */
	struct timer again;
};

static void read_free(struct app_once_read *r)
{
	loop_timer_stop(r->app->worker->loop, &r->again);
	if (r->next)
		r->next->prev = r->prev;
	*r->prev = r->next;
	free(r);
}

/* Who waits for it asks again, and then reads again if there is time left. */
static void on_again(struct timer *t, uint64_t now_ms)
{
	struct app_once_read *r = (struct app_once_read *)((char *)t - offsetof(struct app_once_read, again));
	struct once_server *s = r->app->once.server;

	(void)now_ms;
	if (r->owner)
		once_loaded(s, r->owner, false);
	else
		once_read_failed(s, r->entry, false);
	read_free(r);
}

static uint64_t number(const struct env_db_result *r, unsigned row, unsigned column)
{
	const char *text = r->cells[(size_t)row * r->columns + column];

	return text ? (uint64_t)strtoll(text, NULL, 10) : 0;
}

static struct span text_of(const struct env_db_result *r, unsigned row, unsigned column)
{
	size_t at = (size_t)row * r->columns + column;

	return span_of(r->cells[at] ? r->cells[at] : "", r->cells[at] ? r->cell_bytes[at] : 0);
}

static void on_rows(void *arg, const struct env_db_result *rows)
{
	struct app_once_read *r = arg;
	struct app *a = r->app;
	struct once_server *s = a->once.server;

	if (rows->err < 0) {
		loop_timer(a->worker->loop, &r->again, RETRY_MS);
		return;
	}
	for (unsigned i = 0; r->owner && i < rows->rows; i++)
		once_load_row(s, r->owner, number(rows, i, 0), text_of(rows, i, 1), number(rows, i, 2),
			      a->worker->loop->now_ms);
	if (r->owner)
		once_loaded(s, r->owner, true);
	else if (rows->rows)
		once_read(s, r->entry, number(rows, 0, 0), number(rows, 0, 1), text_of(rows, 0, 2));
	else
		once_read_failed(s, r->entry, true);
	app_once_publish(&a->once);
	read_free(r);
}

static void read_start(struct app *a, struct once_owner *owner, struct once_entry *entry, const char *sql,
		       const struct sql_value *values, size_t n, struct span name)
{
	struct app_once_read *r = calloc(1, sizeof *r);
	char key[80], why[128];

	assert(r);
	*r = (struct app_once_read){ .app = a, .owner = owner, .entry = entry, .again.fire = on_again };
	r->next = a->once.reads;
	r->prev = &a->once.reads;
	if (r->next)
		r->next->prev = &r->next;
	a->once.reads = r;
	app_once_record_key(name, key);
	buf_clear(&a->text);
	int err = sql_format(&a->text, sql, values, n, why, sizeof why);

	assert(err == 0); /* what stands in it was checked */
	dbread_query(a->dbread, a->text.data, a->text.len, key, APP_ONCE_READ_MS, on_rows, r);
}

void app_once_load_owner(struct app *a, struct once_owner *o, struct span name, uint64_t key_hash)
{
	struct sql_value value = text_value(name);

	once_owner_key(o, key_hash);
	read_start(a, o, NULL, "SELECT hash, client, seq FROM loquat_once WHERE owner = ?", &value, 1, name);
}

void app_once_read_answer(struct app *a, struct once_entry *e)
{
	struct once_row row;

	once_row(e, &row);
	if (row.key.n) {
		struct sql_value v[] = { text_value(row.owner), text_value(span_of("", 0)), text_value(row.method),
					 text_value(row.key) };

		read_start(a, NULL, e,
			   "SELECT body_fingerprint, json, answer FROM loquat_once WHERE owner = ? AND client = ? "
			   "AND method = ? AND once_key = ?",
			   v, 4, row.owner);
	} else {
		struct sql_value v[] = { text_value(row.owner), text_value(row.client), int_value(row.seq) };

		read_start(
			a, NULL, e,
			"SELECT body_fingerprint, json, answer FROM loquat_once WHERE owner = ? AND client = ? AND seq = ?",
			v, 3, row.owner);
	}
}

void app_once_reads_close(struct app *a)
{
	while (a->once.reads)
		read_free(a->once.reads);
}
