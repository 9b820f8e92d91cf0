#include "tests/support/fake_etcd.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/buf.h"
#include "common/env_sim.h"
#include "common/loop.h"
#include "common/text.h"

/* The program that uses it is linked with env_sim; sim_http_piece is looked for only there. */
bool sim_http_piece(struct env_http_request *r, const void *bytes, size_t n) __attribute__((weak));

#define TICK_MS     50
#define WATCHES_MAX 64

struct watch {
	struct env_http_request *r;
	char prefix[160]; /* decoded */
	uint64_t next;
};
struct server {
	struct fake_etcd *e;
	struct loop *loop;
	struct env_http *http;
	struct timer tick;
	struct watch watch[WATCHES_MAX];
	unsigned watches;
};

void fake_etcd_init(struct fake_etcd *e, uint64_t cluster)
{
	*e = (struct fake_etcd){ .cluster = cluster, .revision = 1, .lease_next = (int64_t)cluster * 100000 };
}

void fake_etcd_forget(struct fake_etcd *e)
{
	fake_etcd_init(e, e->cluster + 1);
}

void fake_etcd_compact(struct fake_etcd *e)
{
	e->compacted = e->revision;
}

/* ---- keys ---------------------------------------------------------------------------------------------------- */

static void decode(const char *text, char out[160])
{
	int64_t n = text && strlen(text) < 200 ? text_unbase64(out, text, strlen(text)) : 0;

	out[n > 0 ? n : 0] = '\0';
}

static struct fake_key *key_find(struct fake_etcd *e, const char *key, bool make)
{
	struct fake_key *free_one = NULL;

	for (size_t i = 0; i < FAKE_KEYS; i++) {
		if (e->key[i].there && !strcmp(e->key[i].key, key))
			return &e->key[i];
		if (!e->key[i].there && !free_one)
			free_one = &e->key[i];
	}
	assert(!make || free_one);
	return make ? free_one : NULL;
}

static void note(struct fake_etcd *e, const struct fake_key *k, bool gone)
{
	struct fake_change *c = &e->change[e->changes++ % FAKE_CHANGES];

	c->revision = e->revision;
	c->gone = gone;
	snprintf(c->key, sizeof c->key, "%s", k->key);
	snprintf(c->value, sizeof c->value, "%s", gone ? "" : k->value);
}

static void put(struct fake_etcd *e, const char *key, const char *value, int64_t lease)
{
	struct fake_key *k = key_find(e, key, true);

	e->revision++;
	if (!k->there)
		k->create = e->revision;
	k->there = true;
	k->mod = e->revision;
	k->lease = lease;
	snprintf(k->key, sizeof k->key, "%s", key);
	snprintf(k->value, sizeof k->value, "%s", value);
	note(e, k, false);
}

static struct fake_lease *lease_find(struct fake_etcd *e, int64_t id)
{
	for (size_t i = 0; i < FAKE_LEASES; i++)
		if (e->lease[i].id == id)
			return &e->lease[i];
	return NULL;
}

static void lease_end(struct fake_etcd *e, struct fake_lease *l)
{
	e->revision++;
	for (size_t i = 0; i < FAKE_KEYS; i++)
		if (e->key[i].there && e->key[i].lease == l->id) {
			note(e, &e->key[i], true);
			e->key[i].there = false;
		}
	l->id = 0;
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

static void reply(struct env_http_request *r, int status, struct buf *b)
{
	env_http_reply(r, status, "application/json", NULL, b->data, b->len);
	buf_release(b);
}

static void refuse(struct env_http_request *r, int status, int code, const char *why)
{
	struct buf b = BUF_INIT;

	buf_addf(&b, "{\"error\":\"%s\",\"message\":\"%s\",\"code\":%d}", why, why, code);
	reply(r, status, &b);
}

static void add_header(struct buf *b, const struct fake_etcd *e)
{
	buf_addf(b, "\"header\":{\"cluster_id\":\"%llu\",\"revision\":\"%llu\"}", (unsigned long long)e->cluster,
		 (unsigned long long)e->revision);
}

static void add_key(struct buf *b, const struct fake_key *k)
{
	buf_addf(b, "{\"key\":\"%s\",\"create_revision\":\"%llu\",\"mod_revision\":\"%llu\",\"value\":\"%s\"}", k->key,
		 (unsigned long long)k->create, (unsigned long long)k->mod, k->value);
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *t = json_string_value(json_object_get(o, name));

	return t ? t : "";
}

static int64_t number_of(const json_t *o, const char *name)
{
	return strtoll(text_of(o, name), NULL, 10);
}

static void answer_range(struct fake_etcd *e, const json_t *in, struct buf *b)
{
	char prefix[160], key[160];
	const char *comma = "";

	decode(text_of(in, "key"), prefix);
	buf_addch(b, '{');
	add_header(b, e);
	buf_addstr(b, ",\"kvs\":[");
	for (size_t i = 0; i < FAKE_KEYS; i++) {
		if (!e->key[i].there)
			continue;
		decode(e->key[i].key, key);
		if (json_object_get(in, "range_end") ? strncmp(key, prefix, strlen(prefix)) : strcmp(key, prefix))
			continue;
		buf_addstr(b, comma);
		add_key(b, &e->key[i]);
		comma = ",";
	}
	buf_addstr(b, "]}");
}

static bool compare_holds(struct fake_etcd *e, const json_t *c)
{
	const struct fake_key *k = key_find(e, text_of(c, "key"), false);

	if (!strcmp(text_of(c, "target"), "CREATE"))
		return (k ? k->create : 0) == (uint64_t)number_of(c, "create_revision");
	return (k ? k->mod : 0) == (uint64_t)number_of(c, "mod_revision");
}

static void on_txn(struct server *s, struct env_http_request *r, const json_t *in)
{
	struct fake_etcd *e = s->e;
	bool holds = compare_holds(e, json_array_get(json_object_get(in, "compare"), 0));
	const json_t *op = json_array_get(json_object_get(in, holds ? "success" : "failure"), 0),
		     *p = json_object_get(op, "request_put");
	struct buf b = BUF_INIT;

	if (p && !lease_find(e, number_of(p, "lease"))) {
		refuse(r, 404, 5, "etcdserver: requested lease not found");
		return;
	}
	if (p)
		put(e, text_of(p, "key"), text_of(p, "value"), number_of(p, "lease"));
	buf_addch(&b, '{');
	add_header(&b, e);
	buf_addstr(&b, holds ? ",\"succeeded\":true,\"responses\":[{\"response_put\":{}}]}"
			     : ",\"responses\":[{\"response_range\":");
	if (!holds) {
		answer_range(e, json_object_get(op, "request_range"), &b);
		buf_addstr(&b, "}]}");
	}
	reply(r, 200, &b);
}

static void on_grant(struct server *s, struct env_http_request *r, const json_t *in)
{
	struct fake_lease *l = lease_find(s->e, 0);
	struct buf b = BUF_INIT;

	assert(l);
	*l = (struct fake_lease){ .id = s->e->lease_next++, .ttl_ns = (uint64_t)number_of(in, "TTL") * 1000000000u };
	l->until_ns = env_mono_ns(s->loop->env) + l->ttl_ns;
	buf_addf(&b, "{\"ID\":\"%lld\",\"TTL\":\"%lld\"}", (long long)l->id, (long long)number_of(in, "TTL"));
	reply(r, 200, &b);
}

static void on_keepalive(struct server *s, struct env_http_request *r, const json_t *in)
{
	int64_t id = number_of(in, "ID");
	struct fake_lease *l = id ? lease_find(s->e, id) : NULL;
	struct buf b = BUF_INIT;

	buf_addf(&b, "{\"result\":{\"ID\":\"%lld\"", (long long)id);
	if (l) {
		l->until_ns = env_mono_ns(s->loop->env) + l->ttl_ns;
		buf_addf(&b, ",\"TTL\":\"%llu\"", (unsigned long long)(l->ttl_ns / 1000000000u));
	}
	buf_addstr(&b, "}}\n");
	reply(r, 200, &b);
}

static void on_revoke(struct server *s, struct env_http_request *r, const json_t *in)
{
	struct fake_lease *l = number_of(in, "ID") ? lease_find(s->e, number_of(in, "ID")) : NULL;
	struct buf b = BUF_INIT;

	if (l)
		lease_end(s->e, l);
	buf_addstr(&b, "{}");
	reply(r, 200, &b);
}

/* ---- watches -------------------------------------------------------------------------------------------------- */

static void watch_end(struct server *s, unsigned i)
{
	env_http_reply(s->watch[i].r, 200, "application/json", NULL, "", 0);
	s->watch[i] = s->watch[--s->watches];
	s->e->watches = s->watches;
}

/* Cut anywhere, as a network does. */
static bool say(struct server *s, struct watch *w, struct buf *b)
{
	uint32_t chance;
	bool there = true;

	env_random(s->loop->env, &chance, sizeof chance);
	size_t first = chance % (b->len + 1);

	if (first)
		there = sim_http_piece(w->r, b->data, first);
	if (first < b->len)
		there = sim_http_piece(w->r, b->data + first, b->len - first);
	buf_release(b);
	return there;
}

static void add_change(struct buf *b, const struct fake_change *c)
{
	buf_addf(b, "{%s\"kv\":{\"key\":\"%s\",\"mod_revision\":\"%llu\"", c->gone ? "\"type\":\"DELETE\"," : "",
		 c->key, (unsigned long long)c->revision);
	if (!c->gone)
		buf_addf(b, ",\"value\":\"%s\"", c->value);
	buf_addstr(b, "}}");
}

/* All changes of one revision are one message. */
static bool watch_tell(struct server *s, struct watch *w)
{
	struct fake_etcd *e = s->e;
	struct buf b = BUF_INIT;
	unsigned from = e->changes > FAKE_CHANGES ? e->changes - FAKE_CHANGES : 0, n = 0;

	while (from < e->changes && e->change[from % FAKE_CHANGES].revision < w->next)
		from++;
	if (from == e->changes)
		return true;
	uint64_t revision = e->change[from % FAKE_CHANGES].revision;

	buf_addstr(&b, "{\"result\":{");
	add_header(&b, e);
	buf_addstr(&b, ",\"events\":[");
	for (; from < e->changes && e->change[from % FAKE_CHANGES].revision == revision; from++) {
		if (n++)
			buf_addch(&b, ',');
		add_change(&b, &e->change[from % FAKE_CHANGES]);
	}
	buf_addstr(&b, "]}}\n");
	w->next = revision + 1;
	return say(s, w, &b) && watch_tell(s, w);
}

static void tell_all(struct server *s)
{
	for (unsigned i = 0; i < s->watches;)
		if (watch_tell(s, &s->watch[i]))
			i++;
		else
			watch_end(s, i);
}

static void on_watch(struct server *s, struct env_http_request *r, const json_t *in)
{
	struct watch *w = &s->watch[s->watches];
	const json_t *c = json_object_get(in, "create_request");
	struct buf b = BUF_INIT;

	assert(s->watches < WATCHES_MAX);
	s->e->watches = ++s->watches;
	*w = (struct watch){ .r = r, .next = (uint64_t)number_of(c, "start_revision") };
	buf_addstr(&b, "{\"result\":{");
	add_header(&b, s->e);
	buf_addstr(&b, ",\"created\":true}}\n");
	say(s, w, &b);
	if (w->next > s->e->compacted) {
		tell_all(s);
		return;
	}
	buf_addstr(&b, "{\"result\":{");
	add_header(&b, s->e);
	buf_addf(&b, ",\"canceled\":true,\"compact_revision\":\"%llu\"}}\n", (unsigned long long)s->e->compacted);
	w->next = UINT64_MAX; /* it hangs open, as the real one's does */
	say(s, w, &b);
}

/* ---- who one is ------------------------------------------------------------------------------------------------- */

static void on_login(struct server *s, struct env_http_request *r, const json_t *in)
{
	struct buf b = BUF_INIT;

	(void)in;
	if (!s->e->asks) {
		refuse(r, 400, 9, "etcdserver: authentication is not enabled");
		return;
	}
	buf_addstr(&b, "{\"token\":\"fake.1\"}");
	reply(r, 200, &b);
}

static bool is_known(const struct server *s, const struct env_http_request *r, const char *path)
{
	const char *token = env_http_header(r, "Authorization");

	return !s->e->asks || !strcmp(path, "/v3/auth/authenticate") || (token && !strcmp(token, "fake.1"));
}

/* ---- its life --------------------------------------------------------------------------------------------------- */

static void on_request(void *arg, struct env_http_request *r)
{
	static const struct {
		const char *path;
		void (*fn)(struct server *s, struct env_http_request *r, const json_t *in);
	} rows[] = {
		{ "/v3/kv/txn", on_txn },
		{ "/v3/lease/grant", on_grant },
		{ "/v3/lease/keepalive", on_keepalive },
		{ "/v3/lease/revoke", on_revoke },
		{ "/v3/watch", on_watch },
		{ "/v3/auth/authenticate", on_login },
	};
	struct server *s = arg;
	struct buf b = BUF_INIT;
	size_t n;
	const char *body = env_http_body(r, &n), *path = env_http_path(r);
	if (!is_known(s, r, path)) {
		refuse(r, s->e->asks, 7, "etcdserver: who is this");
		return;
	}
	json_t *in = json_loadb(body, n, 0, NULL);

	assert(in);
	if (!strcmp(path, "/v3/kv/range")) {
		answer_range(s->e, in, &b);
		reply(r, 200, &b);
	}
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (!strcmp(rows[i].path, path))
			rows[i].fn(s, r, in);
	json_decref(in);
	tell_all(s);
}

static void on_tick(struct timer *t, uint64_t now_ms)
{
	struct server *s = (struct server *)((char *)t - offsetof(struct server, tick));
	uint64_t now = env_mono_ns(s->loop->env);

	(void)now_ms;
	for (size_t i = 0; i < FAKE_LEASES; i++) {
		struct fake_lease *l = &s->e->lease[i];

		if (l->id && (s->e->expire || now >= l->until_ns))
			lease_end(s->e, l);
	}
	while (s->e->cut && s->watches)
		watch_end(s, 0);
	s->e->cut = s->e->expire = false;
	tell_all(s);
	loop_timer(s->loop, t, TICK_MS);
}

static void on_start(struct loop *loop, void *arg)
{
	struct server *s = arg;

	s->loop = loop;
	s->tick.fire = on_tick;
	int err = env_http_listen(loop->ev, "0.0.0.0", FAKE_PORT, on_request, s, &s->http);

	assert(err == 0);
	/* a restart gives every lease its whole time again */
	for (size_t i = 0; i < FAKE_LEASES; i++)
		s->e->lease[i].until_ns = env_mono_ns(loop->env) + s->e->lease[i].ttl_ns;
	loop_timer(loop, &s->tick, TICK_MS);
}

void fake_etcd_main(struct env *env, void *arg)
{
	struct server *s = calloc(1, sizeof *s);
	struct loop *loop;

	assert(s);
	s->e = arg;
	s->e->watches = 0;
	if (loop_start(env, "etcd", 0, on_start, NULL, s, &loop) == 0)
		loop_join(loop);
}
