#include "rpc/route_rows.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"

struct kept {
	struct kept *next; /* by id */
	struct route_row row;
	uint64_t missing_ms; /* since when; 0: it is there */
	bool seen;           /* in the reading under way */
};
struct route_rows {
	struct kept *first;
	size_t n;
};

struct route_rows *route_rows_new(void)
{
	struct route_rows *r = calloc(1, sizeof *r);

	assert(r);
	return r;
}

static void drop_at(struct route_rows *r, struct kept **at)
{
	struct kept *k = *at;

	*at = k->next;
	r->n--;
	free(k);
}

void route_rows_free(struct route_rows *r)
{
	while (r && r->first)
		drop_at(r, &r->first);
	free(r);
}

/* ---- the text of a row ------------------------------------------------------------------------------------------- */

static int refuse(char *error, size_t size, const char *member, const char *expected)
{
	snprintf(error, size, "%s: expected %s", member, expected);
	return ERR_CONFIG;
}

static int get_text(const json_t *o, const char *name, char *out, size_t size, char *error, size_t error_size)
{
	const char *text = json_string_value(json_object_get(o, name));

	if (!text || !*text || strlen(text) >= size || strpbrk(text, "\"\\\n"))
		return refuse(error, error_size, name, "a short text");
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int get_number(const json_t *o, const char *name, int64_t min, int64_t max, int64_t *out, char *error,
		      size_t error_size)
{
	const json_t *v = json_object_get(o, name);

	if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
		return refuse(error, error_size, name, "an integer in its bounds");
	*out = json_integer_value(v);
	return 0;
}

static int get_state(const json_t *o, struct route_row *row, char *error, size_t error_size)
{
	const char *word = json_string_value(json_object_get(o, "state"));

	if (!word || (strcmp(word, "ready") && strcmp(word, "draining")))
		return refuse(error, error_size, "state", "ready or draining");
	row->state = *word == 'd' ? ROUTE_DRAINING : ROUTE_READY;
	return 0;
}

static int get_row(const json_t *o, struct route_row *row, char *error, size_t size)
{
	int64_t client, rpc, http, workers, epoch;
	int err;

	if (!json_is_object(o))
		return refuse(error, size, "value", "a JSON object");
	if ((err = get_text(o, "id", row->id, sizeof row->id, error, size)) < 0 ||
	    (err = get_text(o, "service", row->service, sizeof row->service, error, size)) < 0 ||
	    (err = get_text(o, "host", row->host, sizeof row->host, error, size)) < 0 ||
	    (err = get_number(o, "client", 0, 65535, &client, error, size)) < 0 ||
	    (err = get_number(o, "rpc", 1, 65535, &rpc, error, size)) < 0 ||
	    (err = get_number(o, "http", 0, 65535, &http, error, size)) < 0 ||
	    (err = get_number(o, "workers", 1, 64, &workers, error, size)) < 0 ||
	    (err = get_number(o, "epoch", 0, INT64_MAX, &epoch, error, size)) < 0 ||
	    (err = get_state(o, row, error, size)) < 0)
		return err;
	if (json_object_get(o, "client_host") &&
	    (err = get_text(o, "client_host", row->client_host, sizeof row->client_host, error, size)) < 0)
		return err;
	route_row_named(row);
	row->client_port = (uint16_t)client;
	row->rpc_port = (uint16_t)rpc;
	row->http_port = (uint16_t)http;
	row->workers = (uint32_t)workers;
	row->epoch = (uint64_t)epoch;
	return 0;
}

int route_row_get(const char *text, size_t n, struct route_row *row, char *error, size_t error_size)
{
	json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
	struct route_row got = { .id = "" };
	int err = get_row(o, &got, error, error_size);
	size_t service = strlen(got.service);

	json_decref(o);
	if (err == 0 && (strncmp(got.id, got.service, service) != 0 || got.id[service] != '-'))
		err = refuse(error, error_size, "id", "SERVICE-NUMBER");
	if (err == 0)
		*row = got;
	return err;
}

/* ---- the set -------------------------------------------------------------------------------------------------------- */

static struct kept **place_of(struct route_rows *r, const char *id)
{
	struct kept **at = &r->first;

	while (*at && strcmp((*at)->row.id, id) < 0)
		at = &(*at)->next;
	return at;
}

static struct kept *find(const struct route_rows *r, const char *id)
{
	struct kept *k = r->first;

	while (k && strcmp(k->row.id, id))
		k = k->next;
	return k;
}

static bool same_place(const struct route_row *a, const struct route_row *b)
{
	const uint16_t left[] = { a->client_port, a->rpc_port, a->http_port },
		       right[] = { b->client_port, b->rpc_port, b->http_port };

	if (strcmp(a->host, b->host))
		return false;
	for (size_t i = 0; i < 3; i++)
		for (size_t k = 0; k < 3; k++)
			if (left[i] && left[i] == right[k])
				return true;
	return false;
}

/* Two live instances cannot share an address: the later is refused. A missing one that stood there gives way. */
static int check_twins(struct route_rows *r, const struct route_row *row, char *error, size_t size)
{
	for (struct kept **at = &r->first; *at;) {
		struct kept *k = *at;

		if (!strcmp(k->row.id, row->id) || !same_place(&k->row, row)) {
			at = &k->next;
		} else if (k->missing_ms) {
			drop_at(r, at);
		} else {
			snprintf(error, size, "%s has a port of it on %s already", k->row.id, row->host);
			return ERR_CONFIG;
		}
	}
	return 0;
}

static bool equal(const struct route_row *a, const struct route_row *b)
{
	return !strcmp(a->service, b->service) && !strcmp(a->host, b->host) &&
	       !strcmp(a->client_host, b->client_host) && a->client_port == b->client_port &&
	       a->rpc_port == b->rpc_port && a->http_port == b->http_port && a->workers == b->workers &&
	       a->epoch == b->epoch && a->state == b->state;
}

static int row_check(struct route_rows *r, const char *id, const char *text, size_t n, struct route_row *row,
		     char *error, size_t size)
{
	char why[160] = "";
	int err = route_row_get(text, n, row, why, sizeof why);

	if (err == 0 && strcmp(row->id, id))
		err = refuse(why, sizeof why, "id", "the name of its key");
	if (err == 0 && !find(r, id) && r->n >= ROUTE_ROWS_MAX)
		err = refuse(why, sizeof why, "the table", "no more rows than it has");
	if (err == 0)
		err = check_twins(r, row, why, sizeof why);
	if (err < 0)
		snprintf(error, size, "row %.60s: %s", id, why);
	return err;
}

int route_rows_set(struct route_rows *r, const char *id, const char *text, size_t n, char *error, size_t error_size)
{
	struct route_row row = { .id = "" };
	struct kept *k = find(r, id);
	int err;

	if (k)
		k->seen = true; /* the store has it, right or wrong: what is known of it stays */
	if ((err = row_check(r, id, text, n, &row, error, error_size)) < 0)
		return err;
	if (!k) {
		struct kept **at = place_of(r, id);

		k = calloc(1, sizeof *k);
		assert(k);
		k->next = *at;
		*at = k;
		r->n++;
	}
	bool same = equal(&k->row, &row);

	k->row = row;
	k->seen = true;
	k->missing_ms = 0;
	return !same;
}

int route_rows_unset(struct route_rows *r, const char *id, uint64_t now_ms)
{
	struct kept **at = place_of(r, id), *k = *at;

	if (!k || strcmp(k->row.id, id))
		return 0;
	if (k->row.state == ROUTE_DRAINING) {
		drop_at(r, at);
		return 1;
	}
	if (!k->missing_ms)
		k->missing_ms = now_ms ? now_ms : 1;
	return 0;
}

void route_rows_begin(struct route_rows *r)
{
	for (struct kept *k = r->first; k; k = k->next)
		k->seen = false;
}

int route_rows_end(struct route_rows *r, uint64_t now_ms)
{
	int changed = 0;

	for (struct kept *k = r->first, *next; k; k = next) {
		next = k->next;
		if (!k->seen)
			changed |= route_rows_unset(r, k->row.id, now_ms);
	}
	return changed;
}

const struct route_row *route_rows_overdue(const struct route_rows *r, uint64_t now_ms, uint64_t hold_ms)
{
	for (const struct kept *k = r->first; k; k = k->next)
		if (k->missing_ms && now_ms >= k->missing_ms + hold_ms)
			return &k->row;
	return NULL;
}

size_t route_rows_missing(const struct route_rows *r)
{
	size_t n = 0;

	for (const struct kept *k = r->first; k; k = k->next)
		n += k->missing_ms != 0;
	return n;
}

void route_rows_keep(struct route_rows *r, const char *id, uint64_t now_ms)
{
	struct kept *k = find(r, id);

	if (k && k->missing_ms)
		k->missing_ms = now_ms;
}

bool route_rows_drop_missing(struct route_rows *r, const char *id)
{
	struct kept **at = place_of(r, id);

	if (!*at || strcmp((*at)->row.id, id) || !(*at)->missing_ms)
		return false;
	drop_at(r, at);
	return true;
}

struct route_table *route_rows_table(const struct route_rows *r, uint64_t version)
{
	struct route_table *t = route_table_new(r->n);

	t->version = version;
	for (const struct kept *k = r->first; k; k = k->next)
		t->row[t->rows++] = k->row;
	return t;
}
