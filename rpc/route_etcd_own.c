#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "common/err.h"
#include "rpc/route_etcd.h"

/*
 * The own row: a lease is granted, the row is put under it, the lease is kept alive. Whatever goes wrong, the next step
 * follows from what is known: no lease → grant; the row differs from what was put → put; else → keep alive.
 */
static void own_go(struct etcd_source *s);

static struct etcd_source *of_timer(struct timer *t)
{
	return (struct etcd_source *)((char *)t - offsetof(struct etcd_source, own));
}

static void on_timer(struct timer *t, uint64_t now_ms)
{
	(void)now_ms;
	own_go(of_timer(t));
}

void own_init(struct etcd_source *s)
{
	s->own.fire = on_timer;
}

void own_soon(struct etcd_source *s)
{
	if (!s->closed && s->step == OWN_NONE)
		loop_timer(s->o.loop, &s->own, 0);
}

void own_spoilt(struct etcd_source *s, uint64_t mod)
{
	if (!s->registered || s->leaving)
		return;
	s->mod = mod;
	s->dirty = true;
	own_soon(s);
}

/* ---- who has the name ------------------------------------------------------------------------------------------------- */

struct holder {
	struct etcd_source *s;
	bool there, ours;
	uint64_t mod;
	char where[100];
};

/* A row with our address is of our former life, or ours under a lease that ended. */
static void on_holder(void *arg, const struct etcd_key *k)
{
	struct holder *h = arg;
	struct route_row row;
	char error[160];

	h->there = true;
	h->mod = k->mod;
	if (route_row_get(k->value, k->value_n, &row, error, sizeof error) < 0) {
		h->ours = true; /* nobody's: what stands there is no row */
		return;
	}
	h->ours = !strcmp(row.host, h->s->o.own->host) && row.rpc_port == h->s->o.own->rpc_port;
	snprintf(h->where, sizeof h->where, "%s:%u", row.host, row.rpc_port);
}

static void own_is_taken(struct etcd_source *s, const char *where)
{
	if (!*s->taken)
		log_error(s->o.log, "routes.taken", "row=%s by=%s", s->o.id, where);
	snprintf(s->taken, sizeof s->taken, "another instance is registered as %s (%s)", s->o.id, where);
	loop_timer(s->o.loop, &s->own, s->lease_s * 1000);
}

static void lease_is_dead(struct etcd_source *s)
{
	if (s->registered) {
		log_warn(s->o.log, "etcd.lease", "row=%s why=its lease has ended; it registers anew", s->o.id);
		if (s->lost)
			metric_add(s->lost, 1);
	}
	s->lease = 0;
	s->mod = 0;
	s->registered = false;
	s->dirty = true;
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

static int on_granted(struct etcd_source *s, const struct env_http_answer *a)
{
	int64_t ttl;

	return etcd_get_lease(a->body, a->n, &s->lease, &ttl);
}

static int on_put(struct etcd_source *s, const struct env_http_answer *a)
{
	struct holder h = { .s = s };
	struct etcd_header header;
	bool written;
	int err = etcd_get_guarded(a->body, a->n, &(struct etcd_reader){ on_holder, &h }, &written, &header);

	if (err < 0)
		return err;
	if (written) {
		s->mod = header.revision;
		s->registered = s->known = true;
		s->taken[0] = '\0';
	} else {
		s->dirty = true;
		s->mod = h.there ? h.mod : 0;
		if (h.there && !h.ours) {
			own_is_taken(s, h.where);
			return ERR_EXISTS;
		}
	}
	return 0;
}

static int on_kept(struct etcd_source *s, const struct env_http_answer *a)
{
	int64_t lease, ttl;
	int err = etcd_get_lease(a->body, a->n, &lease, &ttl);

	if (err == 0 && ttl <= 0)
		lease_is_dead(s);
	return err;
}

static int own_take(struct etcd_source *s, enum own_step step, const struct env_http_answer *a)
{
	switch (step) {
	case OWN_GRANT: return on_granted(s, a);
	case OWN_PUT: return on_put(s, a);
	case OWN_KEEP: return on_kept(s, a);
	default: return 0;
	}
}

static void own_failed(struct etcd_source *s, enum own_step step, const struct env_http_answer *a)
{
	if (step == OWN_PUT)
		s->dirty = true; /* whether it was written is not known: the guard will tell */
	if (a->err == 0 && a->status == 404 && step != OWN_REVOKE) {
		lease_is_dead(s);
		loop_timer(s->o.loop, &s->own, 0);
		return;
	}
	etcd_failed(s, a);
	loop_timer(s->o.loop, &s->own, etcd_backoff(s, &s->own_backoff_ms));
}

static void on_answer(void *arg, const struct env_http_answer *a)
{
	struct etcd_source *s = arg;
	enum own_step step = s->step;
	int err = 0;

	s->step = OWN_NONE;
	if (s->closed)
		return;
	if (step == OWN_REVOKE) { /* if it went wrong, the lease ends by itself */
		s->left = true;
		return;
	}
	if (a->err < 0 || a->status != 200 || ((err = own_take(s, step, a)) < 0 && err != ERR_EXISTS)) {
		own_failed(s, step, a);
		return;
	}
	s->own_backoff_ms = 0;
	if (err == ERR_EXISTS && !s->leaving)
		return; /* its timer runs */
	if (step == OWN_KEEP || (step == OWN_PUT && !s->dirty))
		etcd_well(s);
	loop_timer(s->o.loop, &s->own, s->leaving || s->dirty || !s->lease ? 0 : s->lease_s * 1000 / 3);
}

/* ---- steps ---------------------------------------------------------------------------------------------------------------- */

static void put_row(struct etcd_source *s, struct buf *body)
{
	struct route_row row = *s->o.own;
	struct buf text = BUF_INIT;
	char key[ETCD_PREFIX_MAX + 32];

	row.epoch = s->o.epoch;
	row.state = s->state;
	snprintf(key, sizeof key, "%s%s", s->prefix, row.id);
	route_row_to_json(&row, &text);
	etcd_put_guarded(body, key, text.data, text.len, s->lease, s->mod);
	s->dirty = false;
	buf_release(&text);
}

static const char *next_step(struct etcd_source *s, struct buf *body)
{
	if (s->leaving) {
		s->step = OWN_REVOKE;
		etcd_put_lease(body, s->lease);
		return ETCD_REVOKE;
	}
	if (!s->lease) {
		s->step = OWN_GRANT;
		etcd_put_grant(body, s->lease_s);
		return ETCD_GRANT;
	}
	if (s->dirty) {
		s->step = OWN_PUT;
		put_row(s, body);
		return ETCD_TXN;
	}
	s->step = OWN_KEEP;
	etcd_put_lease(body, s->lease);
	return ETCD_KEEPALIVE;
}

static void own_go(struct etcd_source *s)
{
	struct buf body = BUF_INIT;

	if (s->closed || s->step != OWN_NONE || !s->entered || s->left)
		return;
	if (s->leaving && !s->lease) {
		s->left = true;
		return;
	}
	if (!login_done(s))
		return;
	const char *path = next_step(s, &body);

	if (etcd_ask(s, path, &body, ETCD_CALL_MS, on_answer) < 0)
		on_answer(s, &(struct env_http_answer){ .err = ERR_UNAVAILABLE, .body = "" });
	buf_release(&body);
}
