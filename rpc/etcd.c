#include "rpc/etcd.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"
#include "common/text.h"

/* ---- requests -------------------------------------------------------------------------------------------------- */

static void put_bytes(struct buf *out, const char *name, const void *p, size_t n)
{
	buf_addf(out, "\"%s\":\"", name);
	text_base64(out, p, n);
	buf_addch(out, '"');
}

/* The first key that does not begin with the prefix: its last byte and one. A typo here would read a single key. */
static void put_prefix(struct buf *out, const char *prefix)
{
	size_t n = strlen(prefix);
	char end[256];

	assert(n && n < sizeof end && (unsigned char)prefix[n - 1] < 0xff);
	memcpy(end, prefix, n);
	end[n - 1]++;
	put_bytes(out, "key", prefix, n);
	buf_addch(out, ',');
	put_bytes(out, "range_end", end, n);
}

void etcd_put_range(struct buf *out, const char *prefix)
{
	buf_addch(out, '{');
	put_prefix(out, prefix);
	buf_addch(out, '}');
}

void etcd_put_watch(struct buf *out, const char *prefix, uint64_t from_revision)
{
	buf_addstr(out, "{\"create_request\":{");
	put_prefix(out, prefix);
	buf_addf(out, ",\"start_revision\":\"%llu\",\"progress_notify\":true}}", (unsigned long long)from_revision);
}

void etcd_put_grant(struct buf *out, unsigned ttl_s)
{
	buf_addf(out, "{\"TTL\":\"%u\"}", ttl_s);
}

void etcd_put_lease(struct buf *out, int64_t lease)
{
	buf_addf(out, "{\"ID\":\"%lld\"}", (long long)lease);
}

void etcd_put_guarded(struct buf *out, const char *key, const char *value, size_t n, int64_t lease, uint64_t mod)
{
	size_t key_n = strlen(key);

	buf_addstr(out, "{\"compare\":[{");
	put_bytes(out, "key", key, key_n);
	if (mod)
		buf_addf(out, ",\"target\":\"MOD\",\"result\":\"EQUAL\",\"mod_revision\":\"%llu\"",
			 (unsigned long long)mod);
	else
		buf_addstr(out, ",\"target\":\"CREATE\",\"result\":\"EQUAL\",\"create_revision\":\"0\"");
	buf_addstr(out, "}],\"success\":[{\"request_put\":{");
	put_bytes(out, "key", key, key_n);
	buf_addch(out, ',');
	put_bytes(out, "value", value, n);
	buf_addf(out, ",\"lease\":\"%lld\"}}],\"failure\":[{\"request_range\":{", (long long)lease);
	put_bytes(out, "key", key, key_n);
	buf_addstr(out, "}}]}");
}

void etcd_put_login(struct buf *out, const char *user, const char *password)
{
	buf_addstr(out, "{\"name\":");
	jsontext_quote(out, user, strlen(user));
	buf_addstr(out, ",\"password\":");
	jsontext_quote(out, password, strlen(password));
	buf_addch(out, '}');
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

/* 64-bit integers come as strings; a number is taken too. Absent: 0. */
static int64_t number(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	if (json_is_string(v))
		return strtoll(json_string_value(v), NULL, 10);
	return json_is_integer(v) ? (int64_t)json_integer_value(v) : 0;
}

/* Cluster ids use all 64 bits. */
static uint64_t number_u(const json_t *o, const char *name)
{
	const json_t *v = json_object_get(o, name);

	return json_is_string(v) ? strtoull(json_string_value(v), NULL, 10) : (uint64_t)number(o, name);
}

static void get_header(const json_t *o, struct etcd_header *out)
{
	const json_t *h = json_object_get(o, "header");

	out->cluster = number_u(h, "cluster_id");
	out->revision = number_u(h, "revision");
}

/* Malloc'ed and NUL-ended; absent is empty. NULL: it is no base64. */
static char *get_bytes(const json_t *o, const char *name, size_t *n)
{
	const json_t *v = json_object_get(o, name);
	size_t from_n = json_string_length(v);
	char *out = malloc(from_n * 3 / 4 + 4);
	int64_t got = 0;

	assert(out);
	if ((v && !json_is_string(v)) || (from_n && (got = text_unbase64(out, json_string_value(v), from_n)) < 0)) {
		free(out);
		return NULL;
	}
	out[got] = '\0';
	*n = (size_t)got;
	return out;
}

static int get_key(const json_t *kv, bool gone, const struct etcd_reader *r)
{
	struct etcd_key k = { .gone = gone, .mod = number_u(kv, "mod_revision") };
	char *key = get_bytes(kv, "key", &k.key_n), *value = get_bytes(kv, "value", &k.value_n);
	int err = key && value && k.key_n ? 0 : ERR_CORRUPT;

	k.key = key;
	k.value = value;
	if (err == 0)
		r->on_key(r->arg, &k);
	free(key);
	free(value);
	return err;
}

static int get_keys(const json_t *answer, const struct etcd_reader *r)
{
	const json_t *list = json_object_get(answer, "kvs");
	int err = 0;

	for (size_t i = 0; i < json_array_size(list) && err == 0; i++)
		err = get_key(json_array_get(list, i), false, r);
	return err;
}

static json_t *object_of(const char *text, size_t n)
{
	json_t *o = json_loadb(text, n, JSON_DISABLE_EOF_CHECK, NULL);

	if (json_is_object(o))
		return o;
	json_decref(o);
	return NULL;
}

int etcd_get_range(const char *text, size_t n, const struct etcd_reader *r, struct etcd_header *out)
{
	json_t *o = object_of(text, n);
	int err = ERR_CORRUPT;

	if (o) {
		get_header(o, out);
		err = out->revision ? get_keys(o, r) : ERR_CORRUPT;
	}
	json_decref(o);
	return err;
}

static int get_event(const json_t *event, const struct etcd_reader *r)
{
	const char *type = json_string_value(json_object_get(event, "type"));

	return get_key(json_object_get(event, "kv"), type && !strcmp(type, "DELETE"), r);
}

int etcd_get_news(const char *text, size_t n, const struct etcd_reader *r, struct etcd_news *out)
{
	json_t *o = object_of(text, n), *result = json_object_get(o, "result");
	const json_t *list = json_object_get(result, "events");
	int err = result ? 0 : ERR_CORRUPT;

	*out = (struct etcd_news){ .canceled = json_object_get(o, "error") != NULL };
	if (out->canceled)
		err = 0;
	if (result) {
		get_header(result, &out->header);
		out->created = json_is_true(json_object_get(result, "created"));
		out->canceled =
			json_is_true(json_object_get(result, "canceled")) || number(result, "compact_revision") > 0;
	}
	for (size_t i = 0; i < json_array_size(list) && err == 0; i++)
		err = get_event(json_array_get(list, i), r);
	json_decref(o);
	return err;
}

int etcd_get_lease(const char *text, size_t n, int64_t *lease, int64_t *ttl_s)
{
	json_t *o = object_of(text, n), *result = json_object_get(o, "result");

	if (!result)
		result = o;
	*lease = number(result, "ID");
	*ttl_s = number(result, "TTL");
	int err = *lease ? 0 : ERR_CORRUPT;

	json_decref(o);
	return err;
}

int etcd_get_guarded(const char *text, size_t n, const struct etcd_reader *r, bool *written, struct etcd_header *out)
{
	json_t *o = object_of(text, n);
	const json_t *list = json_object_get(o, "responses");
	int err = list ? 0 : ERR_CORRUPT;

	get_header(o, out);
	*written = json_is_true(json_object_get(o, "succeeded"));
	if (err == 0 && !*written)
		err = get_keys(json_object_get(json_array_get(list, 0), "response_range"), r);
	json_decref(o);
	return err;
}

int etcd_get_token(const char *text, size_t n, char *out, size_t size)
{
	json_t *o = object_of(text, n);
	const char *token = json_string_value(json_object_get(o, "token"));
	int err = token && *token && strlen(token) < size ? 0 : ERR_CORRUPT;

	if (err == 0)
		snprintf(out, size, "%s", token);
	json_decref(o);
	return err;
}

/* In JSON, in one of two shapes, or as it stands: its first line. */
void etcd_get_error(const char *text, size_t n, char out[128])
{
	json_t *o = object_of(text, n), *error = json_object_get(o, "error");
	const json_t *words = json_object_get(o, "message");

	if (!json_is_string(words))
		words = json_is_object(error) ? json_object_get(error, "message") : error;
	if (o)
		snprintf(out, 128, "%s", json_is_string(words) ? json_string_value(words) : "");
	else
		snprintf(out, 128, "%.*s", (int)strcspn(text, "\r\n"), text);
	json_decref(o);
}

bool etcd_is_open(const char *text, size_t n)
{
	char why[128];

	etcd_get_error(text, n, why);
	return strstr(why, "authentication is not enabled") != NULL;
}
