#include "rpc/clientset.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/clientprotos.h"

struct clienttold {
	struct clienttold *next;
	const struct schema *schema;
	struct clientprotos *protos;
	struct pomelo_dict *dict; /* NULL: none */
};

struct clientset {
	struct clienttold *told; /* at the beginning */
	const struct config *config;
	const char *dictionary; /* the key, or NULL */
	enum clientconn_protobuf protobuf;
	struct clientconn_least *least;
	size_t leasts;
	struct balancers *balancers;
	const char **origin;
	size_t origins;
	struct env_tls *tls; /* the service's */
	bool tls_required;
};

static int protobuf_read(struct clientset *c, struct service *s)
{
	static const char *const words[] = { "never", "asked", "always" };
	const char *word = config_string(s->config, "client.protobuf", "asked");

	for (unsigned i = 0; i < 3; i++)
		if (strcmp(word, words[i]) == 0) {
			c->protobuf = (enum clientconn_protobuf)i;
			return 0;
		}
	service_fail(s, "%s: client.protobuf: expected never, asked or always, found \"%s\"", s->id, word);
	return ERR_CONFIG;
}

/* A list of texts; the texts are the configuration's. */
static const char **list_read(const struct config *config, const char *key, size_t *n)
{
	const char **list = calloc((*n = config_count(config, key)) + 1, sizeof(*list));
	char path[96];

	assert(list);
	for (size_t i = 0; i < *n; i++) {
		snprintf(path, sizeof(path), "%s[%zu]", key, i + 1);
		list[i] = config_string(config, path, "");
	}
	return list;
}

void clienttold_free(struct clienttold *all)
{
	for (struct clienttold *t = all, *next; t; t = next) {
		next = t->next;
		clientprotos_free(t->protos);
		pomelo_dict_free(t->dict);
		free(t);
	}
}

static int told_new(const struct clientset *c, const struct schema *schema, struct clienttold **out)
{
	struct clienttold *t = calloc(1, sizeof(*t));
	int err = 0;
	size_t n;

	assert(t);
	t->schema = schema;
	t->protos = clientprotos_new(schema);
	if (c->dictionary && config_bool(c->config, "client.dictionary", true)) {
		const char **first = list_read(c->config, c->dictionary, &n);
		err = clientprotos_dict(t->protos, first, n, &t->dict);
		free(first);
	}
	if (err < 0)
		clienttold_free(t);
	else
		*out = t;
	return err;
}

static int told_read(struct clientset *c, struct service *s)
{
	int err = told_new(c, s->schema, &c->told);

	if (err < 0)
		service_fail(s, "%s: %s: a route is empty, too long or there twice", s->id, c->dictionary);
	return err;
}

static int balancers_read(struct clientset *c, struct service *s)
{
	size_t n, wrong = 0;
	const char **texts = list_read(s->config, "client.balancers", &n);
	int err = n ? balancers_new(texts, n, &c->balancers, &wrong) : 0;

	if (err < 0)
		service_fail(
			s, "%s: client.balancers[%zu]: expected an address or a subnet (\"10.1.0.0/16\"), found \"%s\"",
			s->id, wrong + 1, texts[wrong]);
	free(texts);
	return err;
}

static int tls_read(struct clientset *c, struct service *s)
{
	c->tls = s->client_tls;
	c->tls_required = config_bool(s->config, "client.tls.required", false);
	if (c->tls || !c->tls_required)
		return 0;
	service_fail(s, "%s: client.tls.required: without client.tls.cert nobody could connect", s->id);
	return ERR_CONFIG;
}

static void leasts_read(struct clientset *c, const struct config *config)
{
	char path[64];

	c->leasts = config_count(config, "client.least");
	c->least = calloc(c->leasts + 1, sizeof(*c->least));
	assert(c->least);
	for (size_t i = 0; i < c->leasts; i++) {
		snprintf(path, sizeof(path), "client.least[%zu].type", i + 1);
		c->least[i].type = config_string(config, path, "*");
		snprintf(path, sizeof(path), "client.least[%zu].version", i + 1);
		c->least[i].version = config_string(config, path, "");
	}
}

int clientset_new(struct service *s, const char *dictionary, struct clientset **out)
{
	struct clientset *c = calloc(1, sizeof(*c));
	int err;

	assert(c);
	c->config = s->config;
	c->dictionary = dictionary;
	leasts_read(c, s->config);
	c->origin = list_read(s->config, "client.origins", &c->origins);
	if ((err = protobuf_read(c, s)) < 0 || (err = told_read(c, s)) < 0 || (err = balancers_read(c, s)) < 0 ||
	    (err = tls_read(c, s)) < 0) {
		clientset_free(c);
		return ERR_CONFIG;
	}
	*out = c;
	return 0;
}

void clientset_free(struct clientset *c)
{
	if (!c)
		return;
	clienttold_free(c->told);
	balancers_free(c->balancers);
	free(c->origin);
	free(c->least);
	free(c);
}

void clientset_face(const struct clientset *c, struct clientlisten *const *listen, struct clientconn_face *f)
{
	f->dict = c->told->dict;
	f->protos = c->told->protos;
	f->protobuf = c->protobuf;
	f->least = c->least;
	f->leasts = c->leasts;
	f->rules = (struct websocket_rules){ c->origin, c->origins };
	f->balancers = c->balancers;
	f->listen = listen;
}

void clientset_listen(const struct clientset *c, struct clientlisten_options *o)
{
	o->tls = c->tls;
	o->tls_required = c->tls_required;
	o->balancers = c->balancers;
}

/* ---- other messages ------------------------------------------------------------------------------------------------ */

static const struct clienttold *told_find(const struct clientset *c, const struct schema *schema,
					  const struct clienttold *all)
{
	while (all && all->schema != schema)
		all = all->next;
	return all ? all : c->told->schema == schema ? c->told : NULL;
}

int clientset_prepare(const struct clientset *c, const struct schema *next, struct clienttold **all, char *error,
		      size_t size)
{
	struct clienttold *t;

	if (told_find(c, next, *all))
		return 0;
	if (told_new(c, next, &t) < 0) {
		snprintf(error, size, "a route of proto/ is too long for clients (%d bytes)", POMELO_ROUTE_MAX);
		return ERR_CONFIG;
	}
	t->next = *all;
	*all = t;
	return 0;
}

void clientset_take(const struct clientset *c, const struct schema *next, struct clienttold *all,
		    struct clientconn_face *f)
{
	const struct clienttold *t = told_find(c, next, all);

	assert(t);
	clientconn_face_tell(f, t->dict, t->protos);
}

void clientset_versions(const struct clientset *c, const struct schema *schema, char *out, size_t size)
{
	struct clienttold *t;

	if (told_new(c, schema, &t) < 0)
		abort(); /* it is in use */
	snprintf(out, size, "%s/%s", pomelo_dict_version(t->dict), clientprotos_version(t->protos));
	clienttold_free(t);
}
