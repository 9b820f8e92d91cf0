/* The handshake half of pomelo.h: JSON in, prepared JSON out. */
#include "rpc/pomelo.h"
#include <assert.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "common/jsontext.h"

static void text_take(char *out, size_t size, const json_t *v)
{
	if (json_is_string(v))
		snprintf(out, size, "%s", json_string_value(v));
}

static enum pomelo_payload payload_named(const json_t *v)
{
	const char *name = json_string_value(v);

	if (!name)
		return POMELO_ANY;
	if (strcmp(name, "protobuf") == 0)
		return POMELO_PROTOBUF;
	return strcmp(name, "pomelo-protobuf") == 0 ? POMELO_PROTOS : POMELO_JSON;
}

static void sys_read(struct pomelo_hello *h, const json_t *sys)
{
	text_take(h->type, sizeof(h->type), json_object_get(sys, "type"));
	text_take(h->version, sizeof(h->version), json_object_get(sys, "version"));
	text_take(h->dict_version, sizeof(h->dict_version), json_object_get(sys, "dictVersion"));
	text_take(h->proto_version, sizeof(h->proto_version), json_object_get(sys, "protoVersion"));
	if (strcmp(h->proto_version, "0") == 0)
		h->proto_version[0] = '\0';
	h->browser = json_is_object(json_object_get(sys, "rsa"));
	if (json_object_get(sys, "libVersion")) {
		h->client = POMELO_CLIENT_LP;
		text_take(h->version, sizeof(h->version), json_object_get(sys, "clientVersion"));
	} else if (strncmp(h->type, "js", 2) == 0) {
		h->client = POMELO_CLIENT_JS;
	}
}

int pomelo_hello_read(const char *body, size_t n, struct pomelo_hello *out)
{
	struct pomelo_hello h = { .client = POMELO_CLIENT_C };
	json_t *root = json_loadb(body, n, 0, NULL);
	json_t *sys = json_object_get(root, "sys");

	if (!json_is_object(sys)) {
		json_decref(root);
		return ERR_BAD_REQUEST;
	}
	sys_read(&h, sys);
	h.asked = payload_named(json_object_get(sys, "serializer"));
	if (h.asked == POMELO_ANY)
		h.asked = payload_named(json_object_get(json_object_get(root, "user"), "serializer"));
	json_decref(root);
	*out = h;
	return 0;
}

static unsigned long version_part(const char **p)
{
	unsigned long v = 0;

	for (; **p >= '0' && **p <= '9' && v < 100000000; (*p)++)
		v = v * 10 + (unsigned long)(**p - '0');
	while (**p && **p != '.')
		(*p)++;
	*p += **p == '.';
	return v;
}

int pomelo_version_compare(const char *a, const char *b)
{
	while (*a || *b) {
		unsigned long x = version_part(&a), y = version_part(&b);
		if (x != y)
			return x < y ? -1 : 1;
	}
	return 0;
}

/* ---- dictionary ------------------------------------------------------------------------------------------ */

struct pomelo_dict {
	size_t n, slots; /* slots: a power of two above 2 * n */
	char **route;
	uint16_t *slot; /* open addressing: code, 0 free */
	char version[32];
	struct buf fields; /* ,"dict":{…},"routeToCode":{…},"codeToRoute":{…} */
};

static size_t hash(const char *p, size_t n)
{
	uint64_t h = 1469598103934665603u; /* FNV-1a */

	for (size_t i = 0; i < n; i++)
		h = (h ^ (uint8_t)p[i]) * 1099511628211u;
	return (size_t)(h ^ h >> 32);
}

uint16_t pomelo_dict_code(const struct pomelo_dict *d, const char *route, size_t route_n)
{
	if (!d || !d->n)
		return 0;
	for (size_t at = hash(route, route_n);; at++) {
		uint16_t code = d->slot[at & (d->slots - 1)];
		if (!code)
			return 0;
		const char *r = d->route[code - 1];
		if (strncmp(r, route, route_n) == 0 && !r[route_n])
			return code;
	}
}

const char *pomelo_dict_route(const struct pomelo_dict *d, uint16_t code, size_t *n)
{
	if (!d || !code || code > d->n)
		return NULL;
	*n = strlen(d->route[code - 1]);
	return d->route[code - 1];
}

const char *pomelo_dict_version(const struct pomelo_dict *d)
{
	return d && d->n ? d->version : "";
}

bool pomelo_dict_same(const struct pomelo_dict *a, const struct pomelo_dict *b)
{
	return a == b || strcmp(pomelo_dict_version(a), pomelo_dict_version(b)) == 0;
}

static int dict_add(struct pomelo_dict *d, const char *route)
{
	size_t n = strlen(route);

	if (!n || n > POMELO_ROUTE_MAX || pomelo_dict_code(d, route, n))
		return ERR_BAD_REQUEST;
	size_t at = hash(route, n);
	while (d->slot[at & (d->slots - 1)])
		at++;
	d->route[d->n++] = strdup(route);
	d->slot[at & (d->slots - 1)] = (uint16_t)d->n;
	return 0;
}

static void dict_map(struct pomelo_dict *d, const char *name, bool by_code)
{
	buf_addf(&d->fields, ",\"%s\":{", name);
	for (size_t i = 0; i < d->n; i++) {
		if (i)
			buf_addch(&d->fields, ',');
		if (by_code)
			buf_addf(&d->fields, "\"%zu\":", i + 1);
		jsontext_quote(&d->fields, d->route[i], strlen(d->route[i]));
		if (!by_code)
			buf_addf(&d->fields, ":%zu", i + 1);
	}
	buf_addch(&d->fields, '}');
}

static void dict_render(struct pomelo_dict *d)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	dict_map(d, "dict", false);
	/* clients compare the version for inequality only */
	if (EVP_Digest(d->fields.data, d->fields.len, sum, &n, EVP_sha256(), NULL) != 1)
		abort();
	EVP_EncodeBlock((unsigned char *)d->version, sum, 16); /* 24 characters */
	dict_map(d, "routeToCode", false);
	dict_map(d, "codeToRoute", true);
}

int pomelo_dict_new(const char *const *routes, size_t n, struct pomelo_dict **out)
{
	if (n > UINT16_MAX)
		return ERR_BAD_REQUEST;
	struct pomelo_dict *d = calloc(1, sizeof(*d));
	for (d->slots = 4; d->slots < 2 * n + 2; d->slots *= 2)
		;
	d->slot = calloc(d->slots, sizeof(*d->slot));
	d->route = calloc(n + 1, sizeof(*d->route));
	for (size_t i = 0; i < n; i++) {
		int err = dict_add(d, routes[i]);
		if (err < 0) {
			pomelo_dict_free(d);
			return err;
		}
	}
	dict_render(d);
	*out = d;
	return 0;
}

void pomelo_dict_free(struct pomelo_dict *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n; i++)
		free(d->route[i]);
	free(d->route);
	free(d->slot);
	buf_release(&d->fields);
	free(d);
}

/* ---- replies --------------------------------------------------------------------------------------------- */

bool pomelo_takes_codes(const struct pomelo_hello *hello, const struct pomelo_dict *d)
{
	return d && d->n && hello->client != POMELO_CLIENT_LP;
}

/* Puts the package head before the body that stands at start of out. */
static void package_end(struct buf *out, size_t start, enum pomelo_type type)
{
	pomelo_package_head(out->data + start, type, out->len - start - POMELO_HEAD);
}

static size_t package_begin(struct buf *out)
{
	size_t start = out->len;

	buf_reserve(out, POMELO_HEAD);
	out->len += POMELO_HEAD;
	return start;
}

/*
 * libpomelo2 asserts on a dictionary with some of its five fields only, libpitaya on any; libpomelo2 and the JS
 * client keep what they have when it is announced without the maps, but JS never says so, so it gets them always.
 */
static void dict_add_reply(struct buf *out, const struct pomelo_hello *hello, const struct pomelo_dict *d)
{
	if (!pomelo_takes_codes(hello, d))
		return;
	if (hello->client == POMELO_CLIENT_JS || strcmp(hello->dict_version, d->version) != 0) {
		buf_add(out, d->fields.data, d->fields.len);
		buf_addf(out, ",\"dictVersion\":\"%s\"", d->version);
	}
	buf_addstr(out, ",\"useDict\":true");
}

/* The protos all three together or none, as libpomelo2 wants them; a client whose are out of use must forget them. */
static void protos_add_reply(struct buf *out, const struct pomelo_hello *hello, const struct pomelo_welcome *w)
{
	if (w->payload != POMELO_PROTOS) {
		if (*hello->proto_version)
			buf_addstr(out, ",\"protos\":{\"client\":{},\"server\":{},\"version\":\"0\"}");
		return;
	}
	if (strcmp(hello->proto_version, w->proto_version) != 0) {
		buf_addstr(out, ",\"protos\":");
		buf_add(out, w->protos, w->protos_n);
	}
	buf_addstr(out, ",\"useProto\":true");
}

static const char *payload_name(enum pomelo_payload payload)
{
	return payload == POMELO_PROTOBUF ? "protobuf" : payload == POMELO_PROTOS ? "pomelo-protobuf" : "json";
}

void pomelo_hello_reply(struct buf *out, const struct pomelo_hello *hello, const struct pomelo_welcome *w)
{
	size_t start = package_begin(out);

	buf_addf(out, "{\"code\":200,\"sys\":{\"heartbeat\":%u", w->heartbeat_s);
	dict_add_reply(out, hello, w->dict);
	protos_add_reply(out, hello, w);
	if (hello->client == POMELO_CLIENT_LP || w->payload == POMELO_PROTOBUF)
		buf_addf(out, ",\"serializer\":\"%s\"", payload_name(w->payload));
	buf_addch(out, '}');
	if (hello->asked != POMELO_ANY)
		buf_addf(out, ",\"user\":{\"serializer\":\"%s\"}", payload_name(w->payload));
	buf_addch(out, '}');
	package_end(out, start, POMELO_HANDSHAKE);
}

void pomelo_hello_refuse(struct buf *out, int code)
{
	size_t start = package_begin(out);

	buf_addf(out, "{\"code\":%d}", code);
	package_end(out, start, POMELO_HANDSHAKE);
}

void pomelo_kick(struct buf *out, const char *reason)
{
	size_t start = package_begin(out);

	buf_addstr(out, "{\"reason\":");
	jsontext_quote(out, reason, strlen(reason));
	buf_addch(out, '}');
	package_end(out, start, POMELO_KICK);
}
