#include "rpc/route.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"

struct route_table *route_table_new(size_t rows)
{
	struct route_table *t = calloc(1, sizeof *t);

	assert(t);
	t->row = calloc(rows ? rows : 1, sizeof *t->row);
	assert(t->row);
	atomic_init(&t->refs, 1);
	return t;
}

struct route_table *route_ref(struct route_table *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

void route_unref(struct route_table *t)
{
	/* release pairs with the acquire of whoever takes the count to zero: all reads came before the free */
	if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return;
	free(t->row);
	free(t);
}

/* ---- from the cluster file --------------------------------------------------------------------------------- */

static const char *row_string(const struct config *c, size_t i, const char *key, const char *otherwise)
{
	char path[64];

	snprintf(path, sizeof path, "instances[%zu].%s", i, key);
	return config_string(c, path, otherwise);
}

static int64_t row_int(const struct config *c, size_t i, const char *key)
{
	char path[64];

	snprintf(path, sizeof path, "instances[%zu].%s", i, key);
	return config_int(c, path, 0);
}

static bool row_starts(const struct config *c, size_t i)
{
	char path[64];

	snprintf(path, sizeof path, "instances[%zu].start", i);
	return config_bool(c, path, true);
}

/* Rows are written as Lua and as lines of a log: nothing in them ends a string. */
static int row_check_texts(const struct route_row *row, size_t i, char *error, size_t error_size)
{
	const struct {
		const char *name, *text;
	} texts[] = { { "id", row->id }, { "host", row->host }, { "client_host", row->client_host } };
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-_[]%";

	for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
		if (texts[k].text[strspn(texts[k].text, allowed)]) {
			snprintf(error, error_size,
				 "instances[%zu].%s: expected letters, digits and \".:-_[]%%\", found \"%s\"", i,
				 texts[k].name, texts[k].text);
			return ERR_CONFIG;
		}
	return 0;
}

static int row_read(const struct config *c, size_t i, struct route_row *row, char *error, size_t error_size)
{
	char path[64];

	snprintf(row->id, sizeof row->id, "%s", row_string(c, i, "id", ""));
	route_row_named(row);
	snprintf(row->service, sizeof row->service, "%s", row_string(c, i, "service", ""));
	snprintf(row->host, sizeof row->host, "%s", row_string(c, i, "host", "127.0.0.1"));
	snprintf(row->client_host, sizeof row->client_host, "%s", row_string(c, i, "client_host", ""));
	row->client_port = (uint16_t)row_int(c, i, "client");
	row->rpc_port = (uint16_t)row_int(c, i, "rpc");
	row->http_port = (uint16_t)row_int(c, i, "http");
	snprintf(path, sizeof path, "%s.threads", row->service);
	row->workers = (uint32_t)config_int(c, path, 1);
	size_t n = strlen(row->service);

	if (strncmp(row->id, row->service, n) != 0 || row->id[n] != '-') {
		snprintf(error, error_size, "instances[%zu].id: expected \"%s-NUMBER\", found \"%s\"", i, row->service,
			 row->id);
		return ERR_CONFIG;
	}
	return row_check_texts(row, i, error, error_size);
}

const char *route_client_host(const struct route_row *row)
{
	return *row->client_host ? row->client_host : row->host;
}

#define PORTS 3
static uint16_t row_port(const struct route_row *row, size_t k, const char **name)
{
	static const char *const names[PORTS] = { "client", "rpc", "http" };

	*name = names[k];
	return k == 0 ? row->client_port : k == 1 ? row->rpc_port : row->http_port;
}

/* Two listeners cannot share a port, of one instance or of two on one address. */
static int row_check_ports(const struct route_row *row, const struct route_row *other, size_t i, char *error,
			   size_t error_size)
{
	const char *name, *its;

	for (size_t k = 0; k < PORTS; k++)
		for (size_t m = 0; m < PORTS; m++) {
			uint16_t port = row_port(row, k, &name);

			if (!port || port != row_port(other, m, &its) || (row == other && m <= k))
				continue;
			snprintf(error, error_size, "instances[%zu].%s: %s has port %u already (%s)", i, name,
				 other->id, port, its);
			return ERR_CONFIG;
		}
	return 0;
}

static int row_check_twin(const struct route_table *t, const struct route_row *row, size_t i, char *error,
			  size_t error_size)
{
	int err = row_check_ports(row, row, i, error, error_size);

	for (size_t k = 0; k < t->rows && err == 0; k++) {
		const struct route_row *other = &t->row[k];

		if (!strcmp(other->id, row->id)) {
			snprintf(error, error_size, "instances[%zu].id: \"%s\" is there already", i, row->id);
			return ERR_CONFIG;
		}
		if (!strcmp(row->host, other->host))
			err = row_check_ports(row, other, i, error, error_size);
	}
	return err;
}

int route_from_config(const struct config *c, bool all, char *error, size_t error_size, struct route_table **out)
{
	size_t n = config_count(c, "instances");
	struct route_table *t = route_table_new(n);
	int err = 0;

	t->version = 1;
	for (size_t i = 1; i <= n && err == 0; i++) {
		struct route_row *row = &t->row[t->rows];

		err = row_read(c, i, row, error, error_size);
		if (err == 0)
			err = row_check_twin(t, row, i, error, error_size);
		if (err == 0 && (all || row_starts(c, i)))
			t->rows++;
	}
	if (err < 0) {
		route_unref(t);
		return err;
	}
	*out = t;
	return 0;
}

/* ---- the live file ------------------------------------------------------------------------------------------- */

static const struct config_row live_rows[] = {
	{ "version", CONFIG_INT, NULL, false, 1, 9e15, "Grows with each change." },
	{ "instances", CONFIG_TABLE, NULL, false, 0, 0, "The instances that run, in order." },
	{ "instances[].id", CONFIG_STRING, NULL, false, 1, 31, "Its name." },
	{ "instances[].service", CONFIG_STRING, NULL, false, 1, 31, "Its service." },
	{ "instances[].host", CONFIG_STRING, NULL, false, 1, 63, "Its address." },
	{ "instances[].client_host", CONFIG_STRING, "", false, 0, 63, "Address for players; empty: host." },
	{ "instances[].client", CONFIG_INT, "0", false, 0, 65535, "Port for players." },
	{ "instances[].rpc", CONFIG_INT, NULL, false, 1, 65535, "Port for calls." },
	{ "instances[].http", CONFIG_INT, "0", false, 0, 65535, "Port for HTTP." },
	{ "instances[].workers", CONFIG_INT, NULL, false, 1, 256, "Its threads." },
	{ "instances[].epoch", CONFIG_INT, "0", false, 0, 9e15, "Fences a former owner." },
	{ "instances[].draining", CONFIG_BOOL, "false", false, 0, 0, "No new keys." },
	{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
};

int route_from_text(const char *text, size_t n, char *error, size_t error_size, struct route_table **out)
{
	struct config *c;
	int err = config_parse("routes.lua", text, n, live_rows, error, error_size, &c);

	if (err < 0)
		return err;
	size_t rows = config_count(c, "instances");
	struct route_table *t = route_table_new(rows);

	t->version = (uint64_t)config_int(c, "version", 1);
	for (size_t i = 1; i <= rows && err == 0; i++) {
		struct route_row *row = &t->row[t->rows];
		char path[64];

		err = row_read(c, i, row, error, error_size);
		row->workers = (uint32_t)row_int(c, i, "workers");
		row->epoch = (uint64_t)row_int(c, i, "epoch");
		snprintf(path, sizeof path, "instances[%zu].draining", i);
		row->state = config_bool(c, path, false) ? ROUTE_DRAINING : ROUTE_READY;
		if (err == 0)
			err = row_check_twin(t, row, i, error, error_size);
		t->rows++;
	}
	config_free(c);
	if (err < 0) {
		route_unref(t);
		return err;
	}
	*out = t;
	return 0;
}

void route_to_text(const struct route_table *t, struct buf *out)
{
	buf_addf(out, "return {\n\tversion = %llu,\n\tinstances = {\n", (unsigned long long)t->version);
	for (size_t i = 0; i < t->rows; i++) {
		const struct route_row *r = &t->row[i];

		buf_addf(
			out,
			"\t\t{id = \"%s\", service = \"%s\", host = \"%s\", client = %u, rpc = %u, http = %u, workers = %u, ",
			r->id, r->service, r->host, r->client_port, r->rpc_port, r->http_port, r->workers);
		if (*r->client_host)
			buf_addf(out, "client_host = \"%s\", ", r->client_host);
		buf_addf(out, "epoch = %llu, draining = %s},\n", (unsigned long long)r->epoch,
			 r->state == ROUTE_DRAINING ? "true" : "false");
	}
	buf_addstr(out, "\t},\n}\n");
}

static void add_text(struct buf *out, const char *name, const char *text)
{
	buf_addf(out, "\"%s\":", name);
	jsontext_quote(out, text, strlen(text));
	buf_addch(out, ',');
}

void route_row_to_json(const struct route_row *r, struct buf *out)
{
	buf_addch(out, '{');
	add_text(out, "id", r->id);
	add_text(out, "service", r->service);
	add_text(out, "host", r->host);
	if (*r->client_host)
		add_text(out, "client_host", r->client_host);
	buf_addf(out, "\"client\":%u,\"rpc\":%u,\"http\":%u,\"workers\":%u,\"epoch\":%llu,\"state\":\"%s\"}",
		 r->client_port, r->rpc_port, r->http_port, r->workers, (unsigned long long)r->epoch,
		 r->state == ROUTE_DRAINING ? "draining" : "ready");
}

void route_to_json(const struct route_table *t, const char *source, struct buf *out)
{
	buf_addf(out, "{\"version\":%llu,\"source\":%s,\"instances\":[", (unsigned long long)t->version,
		 source ? source : "{\"kind\":\"file\"}");
	for (size_t i = 0; i < t->rows; i++) {
		if (i)
			buf_addch(out, ',');
		route_row_to_json(&t->row[i], out);
	}
	buf_addstr(out, "]}\n");
}

/* ---- owners ----------------------------------------------------------------------------------------------------- */

/* FNV-1a with a final mix (splitmix64's), so that short keys differ in all bits. */
static uint64_t mix(uint64_t h)
{
	h ^= h >> 30;
	h *= 0xbf58476d1ce4e5b9u;
	h ^= h >> 27;
	h *= 0x94d049bb133111ebu;
	return h ^ h >> 31;
}

uint64_t route_hash(const char *key, size_t n)
{
	uint64_t h = 0xcbf29ce484222325u;

	for (size_t i = 0; i < n; i++)
		h = (h ^ (uint8_t)key[i]) * 0x100000001b3u;
	return mix(h);
}

void route_row_named(struct route_row *row)
{
	row->hash = route_hash(row->id, strlen(row->id));
}

bool route_is_name(const char *text)
{
	return *text && strlen(text) < 32 &&
	       !text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "0123456789_-")];
}

const struct route_row *route_find(const struct route_table *t, const char *id)
{
	for (size_t i = 0; i < t->rows; i++)
		if (!strcmp(t->row[i].id, id))
			return &t->row[i];
	return NULL;
}

uint64_t route_score(uint64_t key_hash, uint64_t id_hash)
{
	return mix(key_hash ^ id_hash);
}

bool route_is_ready(const struct route_row *row, const char *service)
{
	return row->state == ROUTE_READY && !strcmp(row->service, service);
}

uint64_t route_ring(const struct route_table *t, const char *service)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < t->rows; i++)
		if (route_is_ready(&t->row[i], service))
			sum += mix(t->row[i].hash + 0x9e3779b97f4a7c15u);
	sum &= INT64_MAX; /* a BIGINT holds it */
	return sum ? sum : 1;
}

const struct route_row *route_owner(const struct route_table *t, const char *service, const char *key, size_t n)
{
	const struct route_row *best = NULL;
	uint64_t key_hash = route_hash(key, n), best_score = 0;

	for (size_t i = 0; i < t->rows; i++) {
		const struct route_row *r = &t->row[i];

		if (!route_is_ready(r, service))
			continue;
		uint64_t score = route_score(key_hash, r->hash);

		if (!best || score > best_score) {
			best = r;
			best_score = score;
		}
	}
	return best;
}

uint32_t route_worker(const struct route_row *row, const char *key, size_t n)
{
	/* other bits than the instance's choice, or the keys of one instance would crowd on few workers */
	return row->workers == 1 ? 0 : (uint32_t)(mix(route_hash(key, n) + 0x9e3779b97f4a7c15u) % row->workers);
}
