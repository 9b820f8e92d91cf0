#include <stdio.h>
#include <string.h>
#include "rpc/peer.h"

/*
 * Where a call goes: to the instance it names; to the owner of its key; or anywhere, which is the less loaded of two
 * instances drawn by lot, without those that fail as long as there are others.
 * Source: Mitzenmacher, "The power of two choices in randomized load balancing", 1996.
 */

/* Splitmix64: traces and draws must differ, not be secret, and every push has one: no system call for each. */
uint64_t client_draw(struct rpc_client *c)
{
	uint64_t z = c->trace += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

/* The n-th of the service's ready instances, and any worker of it. */
static struct peer *candidate(struct rpc_client *c, const char *service, uint64_t n)
{
	const struct route_table *t = c->worker->routes;

	for (size_t i = 0; i < t->rows; i++)
		if (route_is_ready(&t->row[i], service) && n-- == 0)
			return peer_get(c, &t->row[i], (uint32_t)(client_draw(c) % t->row[i].workers));
	return NULL;
}

static bool is_sound(const struct peer *p)
{
	return p->state != PEER_BACKOFF && !p->draining && breaker_admits(&p->breaker, p->worker->loop->now_ms);
}

static struct peer *better(struct peer *a, struct peer *b)
{
	if (is_sound(a) != is_sound(b))
		return is_sound(a) ? a : b;
	return b->pendings < a->pendings ? b : a;
}

static struct peer *choose_anywhere(struct rpc_client *c, const char *service)
{
	const struct route_table *t = c->worker->routes;
	uint64_t n = 0;

	for (size_t i = 0; i < t->rows; i++)
		n += route_is_ready(&t->row[i], service);
	if (n == 0)
		return NULL;
	uint64_t first = client_draw(c) % n, step = n > 1 ? 1 + client_draw(c) % (n - 1) : 0;
	struct peer *best = candidate(c, service, first);

	if (step)
		best = better(best, candidate(c, service, (first + step) % n));
	for (uint64_t i = 1; i < n && !is_sound(best); i++) /* both fail: is there any that does not? */
		best = better(best, candidate(c, service, (first + i) % n));
	return best;
}

struct peer *client_choose(struct rpc_client *c, const struct rpc_call *call)
{
	const struct route_table *t = c->worker->routes;
	const struct route_row *row;

	if (call_is_anywhere(call))
		return choose_anywhere(c, call->method->service);
	if (call->to.instance)
		row = route_find(t, call->to.instance);
	else
		row = route_owner(t, call->method->service, call->to.key.p, call->to.key.n);
	if (!row)
		return NULL;
	uint32_t worker = call->to.worker >= 0 && call->to.instance ? (uint32_t)call->to.worker
								    : route_worker(row, call->to.key.p, call->to.key.n);

	return worker < row->workers ? peer_get(c, row, worker) : NULL;
}

/* ---- who fails ------------------------------------------------------------------------------------------------ */

static void count(struct peer *p, uint64_t by)
{
	struct service *s = p->worker->service;
	const char *values[] = { s->def->name, p->instance };

	metric_add(metric(s->metrics, p->worker->index, METRIC_GAUGE, "loquat_rpc_avoided",
			  "Links to an instance that fails: calls that may go elsewhere avoid it.", "service,peer",
			  values),
		   by);
}

void peer_failed(struct peer *p, const char *why)
{
	if (!breaker_failed(&p->breaker, p->worker->loop->now_ms))
		return;
	log_warn(p->worker->service->log, "rpc.avoided", "peer=%s worker=%u failures=%u why=%s", p->instance,
		 p->remote_worker, p->breaker.failures, why);
	count(p, 1);
}

void peer_forgotten(struct peer *p)
{
	if (breaker_worked(&p->breaker))
		count(p, (uint64_t)-1);
}

void peer_worked(struct peer *p)
{
	if (!breaker_worked(&p->breaker))
		return;
	log_info(p->worker->service->log, "rpc.trusted", "peer=%s worker=%u", p->instance, p->remote_worker);
	count(p, (uint64_t)-1);
}
