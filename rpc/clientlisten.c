#include "rpc/clientlisten.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "rpc/addrcount.h"
#include "rpc/clientdoor.h"

#define FILES_OWN 512

struct target {
	_Atomic(struct loop *) loop; /* released by clientlisten_add, acquired by on_accept: user is there with it */
	void *user;
};

struct clientlisten {
	struct clientlisten_options o;
	struct env_listener *listener;
	struct clientdoor *door;                   /* NULL: nothing to find out before */
	struct target target[SERVICE_WORKERS_MAX]; /* by the loop's index */
	unsigned next;
	struct metric *accepted, *refused;
	struct log_bound said; /* who was refused */
	_Atomic unsigned all;
	struct addrcount open;
	_Atomic uint64_t rate[ADDRCOUNT_PLACES]; /* see one_more: connections of an address */
	_Atomic uint64_t *packets;               /* the same of its packets; NULL: no bound */
};

void clientlisten_gone(struct clientlisten *l, const char *addr)
{
	atomic_fetch_sub_explicit(&l->all, 1, memory_order_relaxed);
	addrcount_add(&l->open, addrcount_place(&l->open, addr), -1);
}

/*
 * A place has the second, and in its lower half how many came in it. Threads may be in different seconds for a moment: none
 * begins one anew that another has begun. false: more than max.
 */
static bool one_more(_Atomic uint64_t *place, uint32_t second, unsigned max)
{
	uint64_t was = atomic_load_explicit(place, memory_order_relaxed), is;

	do
		is = (int32_t)(second - (uint32_t)(was >> 32)) > 0 ? (uint64_t)second << 32 | 1 : was + 1;
	while (!atomic_compare_exchange_weak_explicit(place, &was, is, memory_order_relaxed, memory_order_relaxed));
	return (uint32_t)is <= max;
}

/* Whether the address has opened too many in this second. */
static bool too_fast(struct clientlisten *l, const char *addr)
{
	if (!l->o.connects_per_s || balancers_trust(l->o.balancers, addr))
		return false;
	return !one_more(&l->rate[addrcount_place(&l->open, addr).host],
			 (uint32_t)(env_mono_ns(l->o.loop->env) / 1000000000), l->o.connects_per_s);
}

int clientlisten_host(const struct clientlisten *l, const char *addr)
{
	bool counts = l->packets && !balancers_trust(l->o.balancers, addr);

	return counts ? addrcount_place(&l->open, addr).host : CLIENTLISTEN_NOWHERE;
}

bool clientlisten_packet(struct clientlisten *l, int host, uint64_t now_ms)
{
	return one_more(&l->packets[host], (uint32_t)(now_ms / 1000), l->o.packets_per_s);
}

/* NULL: it may come in. It is counted in any case. */
static const char *refusal(struct clientlisten *l, const char *addr)
{
	unsigned all = atomic_fetch_add_explicit(&l->all, 1, memory_order_relaxed);
	struct addrcounted before = addrcount_add(&l->open, addrcount_place(&l->open, addr), 1);

	if (all >= l->o.all_max)
		return "too many connections";
	if (balancers_trust(l->o.balancers, addr))
		return NULL;
	if (before.address >= l->o.per_address_max)
		return "too many connections from this address";
	if (l->o.per_subnet_max && before.subnet >= l->o.per_subnet_max)
		return "too many connections from this subnet";
	return too_fast(l, addr) ? "too many new connections from this address in a second" : NULL;
}

struct hand_over {
	struct inbox_msg msg;
	struct clientlisten *l;
	struct env_conn *conn;
	void *user;
	char addr[ENV_ADDR_MAX];
};

static void hand_over_run(struct inbox_msg *m)
{
	struct hand_over *h = (struct hand_over *)m;

	h->l->o.on_conn(h->user, h->conn, h->addr);
	free(h);
}

static void hand_over(struct clientlisten *l, struct loop *loop, void *user, struct env_conn *conn, const char *addr)
{
	struct hand_over *h = calloc(1, sizeof(*h));

	assert(h);
	h->msg.run = hand_over_run;
	h->l = l;
	h->conn = conn;
	h->user = user;
	memcpy(h->addr, addr, ENV_ADDR_MAX);
	loop_post(loop, &h->msg);
}

/* Round robin over the workers that have joined. */
static struct loop *choose(struct clientlisten *l, void **user)
{
	for (unsigned tried = 0; tried < SERVICE_WORKERS_MAX; tried++) {
		struct target *t = &l->target[l->next++ % SERVICE_WORKERS_MAX];
		struct loop *loop = atomic_load_explicit(&t->loop, memory_order_acquire);
		if (loop) {
			*user = t->user;
			return loop;
		}
	}
	return NULL;
}

const char *clientlisten_moved(struct clientlisten *l, const char *from, const char *addr)
{
	clientlisten_gone(l, from);
	return refusal(l, addr);
}

static void refuse(struct clientlisten *l, struct env_conn *conn, const char *addr, const char *why)
{
	clientlisten_gone(l, addr);
	metric_add(l->refused, 1);
	if (log_bound_fits(&l->said, l->o.log, l->o.loop->now_ms))
		log_info(l->o.log, "client.refused", "addr=%s why=%s", addr, why);
	env_conn_close(conn);
}

/* A connection that has been counted. */
static void pass(struct clientlisten *l, struct env_conn *conn, const char *addr)
{
	void *user;
	struct loop *loop = choose(l, &user);

	if (!loop) {
		refuse(l, conn, addr, "not ready yet");
		return;
	}
	metric_add(l->accepted, 1);
	if (loop == l->o.loop)
		l->o.on_conn(user, conn, addr);
	else
		hand_over(l, loop, user, conn, addr);
}

static void on_door_open(void *arg, struct env_conn *conn, const char *from, const char *addr)
{
	struct clientlisten *l = arg;
	const char *why = strcmp(from, addr) == 0 ? NULL : clientlisten_moved(l, from, addr);

	if (why)
		refuse(l, conn, addr, why);
	else
		pass(l, conn, addr);
}

static void on_door_refused(void *arg, const char *from)
{
	struct clientlisten *l = arg;

	clientlisten_gone(l, from);
	metric_add(l->refused, 1);
}

static void on_accept(void *arg, struct env_conn *conn)
{
	struct clientlisten *l = arg;
	char addr[ENV_ADDR_MAX];

	env_conn_peer(conn, addr);
	const char *why = refusal(l, addr);
	if (why)
		refuse(l, conn, addr, why);
	else if (l->door && (l->o.tls || balancers_trust(l->o.balancers, addr)))
		clientdoor_take(l->door, conn, addr);
	else
		pass(l, conn, addr);
}

static void door_open(struct clientlisten *l)
{
	if (l->o.tls || l->o.balancers)
		l->door = clientdoor_new(&(struct clientdoor_options){ .loop = l->o.loop,
								       .log = l->o.log,
								       .tls = l->o.tls,
								       .tls_required = l->o.tls_required,
								       .balancers = l->o.balancers,
								       .on_open = on_door_open,
								       .on_refused = on_door_refused,
								       .arg = l });
}

void clientlisten_add(struct clientlisten *l, struct loop *loop, void *user)
{
	struct target *t = &l->target[loop->index];

	assert(loop->index < SERVICE_WORKERS_MAX);
	t->user = user;
	atomic_store_explicit(&t->loop, loop, memory_order_release);
}

/* Without one to spare no link, file or admin's request could be opened any more. */
static unsigned files_left(struct env *env)
{
	unsigned all = env_files_max(env), own = all / 8 < FILES_OWN ? all / 8 : FILES_OWN;

	return all - own;
}

int clientlisten_new(const struct clientlisten_options *o, struct clientlisten **out)
{
	struct clientlisten *l = calloc(1, sizeof(*l));

	assert(l);
	l->o = *o;
	addrcount_init(&l->open, o->loop->env);
	if (!l->o.all_max)
		l->o.all_max = files_left(o->loop->env);
	l->accepted = metric(o->metrics, o->loop->index, METRIC_COUNTER, "loquat_client_accepted_total",
			     "Client connections accepted.", NULL, NULL);
	l->refused = metric(o->metrics, o->loop->index, METRIC_COUNTER, "loquat_client_accept_refused_total",
			    "Client connections closed at once: too many of one address or subnet.", NULL, NULL);
	int err = o->later ? 0 : env_listen(o->loop->ev, o->host, o->port, on_accept, l, &l->listener);
	if (err < 0) {
		free(l);
		return err;
	}
	if (o->packets_per_s) {
		l->packets = calloc(ADDRCOUNT_PLACES, sizeof(*l->packets));
		assert(l->packets);
	}
	door_open(l);
	*out = l;
	return 0;
}

int clientlisten_take(struct clientlisten *l, struct env_passed *passed)
{
	return env_passed_listen(passed, l->o.loop->ev, on_accept, l, &l->listener);
}

void clientlisten_rest(struct clientlisten *l, bool rest)
{
	if (l->listener)
		env_listener_rest(l->listener, rest);
	if (l->door)
		clientdoor_hold(l->door, rest);
}

void clientlisten_guests(struct clientlisten *l,
			 void (*one)(void *arg, const struct env_conn *conn, struct span packed), void *arg)
{
	if (l->door)
		clientdoor_each(l->door, one, arg);
}

void clientlisten_guest(struct clientlisten *l, struct env_conn *conn, struct span packed)
{
	char addr[ENV_ADDR_MAX];

	env_conn_peer(conn, addr);
	clientlisten_came(l, addr);
	if (l->door)
		clientdoor_came(l->door, conn, addr, packed);
	else
		refuse(l, conn, addr, "the hand-over has brought a configuration without TLS and balancers");
}

const struct env_listener *clientlisten_listener(const struct clientlisten *l)
{
	return l->listener;
}

void clientlisten_came(struct clientlisten *l, const char *addr)
{
	atomic_fetch_add_explicit(&l->all, 1, memory_order_relaxed);
	addrcount_add(&l->open, addrcount_place(&l->open, addr), 1);
}

uint16_t clientlisten_port(const struct clientlisten *l)
{
	return env_listener_port(l->listener);
}

void clientlisten_close(struct clientlisten *l)
{
	if (!l)
		return;
	if (l->listener)
		env_listener_close(l->listener);
	l->listener = NULL;
	clientdoor_free(l->door);
	l->door = NULL;
}

void clientlisten_free(struct clientlisten *l)
{
	if (!l)
		return;
	assert(!l->listener);
	free(l->packets);
	free(l);
}
