#include "rpc/clientprotos.h"
#include <assert.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/clientpb.h"

struct clientprotos {
	struct clientproto *route; /* sorted by name */
	size_t routes;
	char **name; /* of pushes, which are pieces of options */
	size_t names;
	struct buf json;
	char version[32];
};

/* ---- the routes -------------------------------------------------------------------------------------------------- */

static void route_add(struct clientprotos *p, const char *name, const struct msg_type *in, const struct msg_type *out)
{
	p->route = realloc(p->route, (p->routes + 1) * sizeof(*p->route));
	assert(p->route);
	p->route[p->routes++] = (struct clientproto){
		.route = name,
		.in = in,
		.out = out,
		.pomelo_in = in && clientpb_pomelo_takes(in, false),
		.pomelo_out = out && clientpb_pomelo_takes(out, true),
	};
}

static void pushes_add(struct clientprotos *p, const struct msg_type *t)
{
	for (const char *at = t->push; at && *at;) {
		at += strspn(at, ", ");
		size_t n = strcspn(at, ", ");
		if (!n)
			return;
		p->name = realloc(p->name, (p->names + 1) * sizeof(*p->name));
		assert(p->name);
		p->name[p->names] = strndup(at, n);
		route_add(p, p->name[p->names++], NULL, t);
		at += n;
	}
}

static int by_route(const void *a, const void *b)
{
	return strcmp(((const struct clientproto *)a)->route, ((const struct clientproto *)b)->route);
}

static void collect(struct clientprotos *p, const struct schema *s)
{
	for (size_t i = 0; i < schema_methods(s); i++) {
		const struct msg_method *m = schema_method_at(s, i);
		if (m->is_handler)
			route_add(p, m->full, m->in, m->out);
	}
	for (size_t i = 0; i < schema_types(s); i++)
		pushes_add(p, schema_type_at(s, i));
	if (p->routes)
		qsort(p->route, p->routes, sizeof(*p->route), by_route);
}

const struct clientproto *clientprotos_find(const struct clientprotos *p, const char *route, size_t n)
{
	size_t low = 0, high = p->routes;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = strncmp(p->route[mid].route, route, n);
		if (order == 0 && !p->route[mid].route[n])
			return &p->route[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid; /* the name looked for is at the front of this one, or before it */
	}
	return NULL;
}

/* ---- pomelo's schema, in the form its parser makes ---------------------------------------------------------------- */

static void field_json(struct buf *b, const char *name, const char *option, const char *type, uint32_t tag)
{
	buf_addf(b, "\"%s\":{\"option\":\"%s\",\"type\":\"%s\",\"tag\":%u},", name, option, type, tag);
}

/* answer: with the four members that an answer may have besides. Nested types stand once, at the top, by their names. */
static void type_json(struct buf *b, const struct msg_type *t, bool to_client, bool answer)
{
	const char *separator = "";

	buf_addch(b, '{');
	for (size_t i = 0; i < t->fields; i++) {
		const struct msg_field *f = &t->field[i];
		const char *type = clientpb_pomelo_type(f, to_client);
		/* an answer that is an error has none of its fields */
		const char *option = f->repeated ? "repeated" : f->required && !answer ? "required" : "optional";
		field_json(b, f->name, option, type ? type : f->message->name, f->number);
	}
	for (unsigned i = 0; answer && i < 4; i++)
		if (!msg_field_name(t, clientpb_answer_fields[i], strlen(clientpb_answer_fields[i])))
			field_json(b, clientpb_answer_fields[i], "optional", i ? "string" : "uInt32",
				   CLIENTPB_ANSWER_TAG + i);
	buf_addstr(b, "\"__messages\":{},\"__tags\":{");
	for (size_t i = 0; i < t->fields; i++, separator = ",")
		buf_addf(b, "%s\"%u\":\"%s\"", separator, t->field[i].number, t->field[i].name);
	for (unsigned i = 0; answer && i < 4; i++, separator = ",")
		if (!msg_field_name(t, clientpb_answer_fields[i], strlen(clientpb_answer_fields[i])))
			buf_addf(b, "%s\"%u\":\"%s\"", separator, CLIENTPB_ANSWER_TAG + i, clientpb_answer_fields[i]);
	buf_addstr(b, "}}");
}

#define NESTED_MAX 1024
struct nested {
	const struct msg_type *type[NESTED_MAX];
	size_t n;
};

static void nested_add(struct nested *all, const struct msg_type *t)
{
	for (size_t i = 0; i < t->fields; i++) {
		const struct msg_type *inner = t->field[i].message;
		bool known = !inner || all->n == NESTED_MAX;
		for (size_t k = 0; k < all->n && !known; k++)
			known = all->type[k] == inner;
		if (known)
			continue;
		all->type[all->n++] = inner;
		nested_add(all, inner);
	}
}

static void side_json(struct buf *b, const struct clientprotos *p, bool to_client)
{
	struct nested nested = { .n = 0 };
	const char *separator = "";

	buf_addf(b, "\"%s\":{", to_client ? "server" : "client");
	for (size_t i = 0; i < p->routes; i++) {
		const struct clientproto *r = &p->route[i];
		const struct msg_type *t = to_client ? r->out : r->in;
		if (!(to_client ? r->pomelo_out : r->pomelo_in))
			continue;
		buf_addf(b, "%s\"%s\":", separator, r->route);
		type_json(b, t, to_client, to_client && r->in);
		nested_add(&nested, t);
		separator = ",";
	}
	for (size_t i = 0; i < nested.n; i++, separator = ",") {
		buf_addf(b, "%s\"message %s\":", separator, nested.type[i]->name);
		type_json(b, nested.type[i], to_client, false);
	}
	buf_addch(b, '}');
}

static void render(struct clientprotos *p)
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	buf_addch(&p->json, '{');
	side_json(&p->json, p, false);
	buf_addch(&p->json, ',');
	side_json(&p->json, p, true);
	if (EVP_Digest(p->json.data, p->json.len, sum, &n, EVP_sha256(), NULL) != 1)
		abort();
	EVP_EncodeBlock((unsigned char *)p->version, sum, 16); /* 24 characters */
	buf_addf(&p->json, ",\"version\":\"%s\"}", p->version);
}

struct clientprotos *clientprotos_new(const struct schema *schema)
{
	struct clientprotos *p = calloc(1, sizeof(*p));

	assert(p);
	collect(p, schema);
	render(p);
	return p;
}

void clientprotos_free(struct clientprotos *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->names; i++)
		free(p->name[i]);
	free(p->name);
	free(p->route);
	buf_release(&p->json);
	free(p);
}

const char *clientprotos_json(const struct clientprotos *p, size_t *n)
{
	*n = p->json.len;
	return p->json.data;
}

const char *clientprotos_version(const struct clientprotos *p)
{
	return p->version;
}

bool clientprotos_same(const struct clientprotos *a, const struct clientprotos *b)
{
	return a == b || (a && b && strcmp(a->version, b->version) == 0);
}

/* ---- the dictionary --------------------------------------------------------------------------------------------------- */

int clientprotos_dict(const struct clientprotos *p, const char *const *first, size_t n, struct pomelo_dict **out)
{
	const char **all = calloc(n + p->routes + 1, sizeof(*all));
	size_t count = n;

	assert(all);
	for (size_t i = 0; i < n; i++)
		all[i] = first[i];
	for (size_t i = 0; i < p->routes; i++) {
		bool there = i && strcmp(p->route[i].route, p->route[i - 1].route) == 0; /* a push of two types */
		for (size_t k = 0; k < n && !there; k++)
			there = strcmp(first[k], p->route[i].route) == 0;
		if (!there)
			all[count++] = p->route[i].route;
	}
	int err = pomelo_dict_new(all, count, out);
	free(all);
	return err;
}
