#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "gate/gate.h"

#define PUMP_MS 50   /* between looks at a queue that stands */
#define TELL_MS 1000 /* between two rounds of onQueue */

static uint64_t now_ms(const struct gate *g)
{
	return g->worker->loop->now_ms;
}

static uint64_t wall_ms(const struct gate *g)
{
	return env_wall_us(g->service->env) / 1000;
}

/* ---- places --------------------------------------------------------------------------------------------------- */

static struct place **bucket(struct gate *g, const char *nonce)
{
	return &g->place[route_hash(nonce, strlen(nonce)) % GATE_HASH];
}

struct place *place_find(struct gate *g, const char *nonce)
{
	struct place *p = *bucket(g, nonce);

	while (p && strcmp(p->nonce, nonce) != 0)
		p = p->hash_next;
	return p;
}

static void unqueue(struct place *p)
{
	struct gate *g = p->gate;

	if (p->next)
		p->next->prev = p->prev;
	else
		g->queue_last = p->prev;
	*p->prev = p->next;
	g->queued--;
	metric_set(g->queued_metric, g->queued);
}

/* By age: a place that comes from another gate may be older than the last ones here. */
static void enqueue(struct place *p)
{
	struct gate *g = p->gate;
	struct place **at = g->queue_last;

	while (at != &g->queue) {
		struct place *before = (struct place *)((char *)at - offsetof(struct place, next));
		if (before->since_ms <= p->since_ms)
			break;
		at = before->prev;
	}
	p->next = *at;
	p->prev = at;
	if (p->next)
		p->next->prev = &p->next;
	else
		g->queue_last = &p->next;
	*at = p;
	g->queued++;
	metric_set(g->queued_metric, g->queued);
}

void place_free(struct place *p)
{
	struct gate *g = p->gate;
	struct place **at = bucket(g, p->nonce);

	loop_timer_stop(g->worker->loop, &p->expiry);
	if (p->state == PLACE_QUEUED)
		unqueue(p);
	else {
		p->load->admitted--;
		g->admitted--;
	}
	if (p->visitor)
		p->visitor->place = NULL;
	while (*at != p)
		at = &(*at)->hash_next;
	*at = p->hash_next;
	g->places--;
	free(p);
}

static void on_expiry(struct timer *t, uint64_t now)
{
	(void)now;
	place_free((struct place *)((char *)t - offsetof(struct place, expiry)));
}

struct place *place_new(struct gate *g, const char *uid, bool guest, const char *origin, const char *nonce,
			uint64_t since_ms)
{
	struct place *p = g->places < GATE_PLACES_MAX ? calloc(1, sizeof(*p)) : NULL;
	uint8_t raw[8];

	if (!p)
		return NULL;
	env_random(g->service->env, raw, sizeof(raw));
	token_nonce(raw, p->nonce);
	if (nonce)
		snprintf(p->nonce, sizeof(p->nonce), "%s", nonce);
	snprintf(p->origin, sizeof(p->origin), "%s", origin ? origin : g->service->id);
	snprintf(p->uid, sizeof(p->uid), "%s", uid);
	p->gate = g;
	p->guest = guest;
	p->since_ms = since_ms ? since_ms : wall_ms(g);
	p->expiry.fire = on_expiry;
	struct place **at = bucket(g, p->nonce);
	p->hash_next = *at;
	*at = p;
	g->places++;
	enqueue(p);
	loop_timer(g->worker->loop, &p->expiry, GATE_PLACE_MS);
	return p;
}

void place_attach(struct place *p, struct visitor *v)
{
	if (p->visitor)
		p->visitor->place = NULL;
	p->visitor = v;
	if (v)
		v->place = p;
	if (p->state == PLACE_ADMITTED)
		return; /* its end is fixed */
	if (v)
		loop_timer_stop(p->gate->worker->loop, &p->expiry);
	else
		loop_timer(p->gate->worker->loop, &p->expiry, GATE_PLACE_MS);
}

unsigned place_position(const struct place *p)
{
	unsigned n = 1;

	if (p->state != PLACE_QUEUED)
		return 0;
	if (p->gate->queue_last == &p->next)
		return p->gate->queued;
	for (const struct place *q = p->gate->queue; q != p; q = q->next)
		n++;
	return n;
}

int place_ticket(const struct place *p, char out[TOKEN_MAX])
{
	char since[24];
	const char *fields[] = { p->uid, p->guest ? "guest" : "account", p->origin, p->nonce, since };

	snprintf(since, sizeof(since), "%llu", (unsigned long long)p->since_ms);
	/* nothing of it changes: the same place has the same ticket */
	return token_make(p->gate->service->token_key, "ticket", p->since_ms + GATE_TICKET_MS, fields, 5, out,
			  TOKEN_MAX);
}

/* ---- admissions ------------------------------------------------------------------------------------------------ */

/* At most admit_per_s, evenly: only a tenth of a second's worth (and one) is ever saved up. */
static bool allowed(struct gate *g)
{
	double saved_max = 1 + g->admit_per_s / 10.0;

	if (!g->admit_per_s)
		return true;
	g->allowance += (double)(now_ms(g) - g->allowance_ms) * g->admit_per_s / 1000.0;
	g->allowance_ms = now_ms(g);
	if (g->allowance > saved_max)
		g->allowance = saved_max;
	return g->allowance >= 1;
}

static int login_token(struct place *p)
{
	const struct gate *g = p->gate;
	const char *fields[] = {
		p->uid, p->guest ? "guest" : "account", p->load->instance, p->load->start, g->service->id, p->nonce
	};

	return token_make(g->service->token_key, "login", wall_ms(g) + GATE_ADMIT_MS, fields, 6, p->token, TOKEN_MAX);
}

static void admit(struct place *p, struct load *l)
{
	struct gate *g = p->gate;

	unqueue(p);
	p->state = PLACE_ADMITTED;
	p->load = l;
	l->admitted++;
	g->admitted++;
	g->admissions++;
	g->allowance -= 1;
	login_token(p);
	loop_timer(g->worker->loop, &p->expiry, GATE_ADMIT_MS);
	visitor_admitted(p);
}

unsigned queue_eta_s(const struct gate *g, unsigned position)
{
	double pace = g->admit_per_s && (g->pace > g->admit_per_s || g->pace <= 0) ? g->admit_per_s : g->pace;

	if (pace < 0.01)
		pace = 0.01; /* nobody has been let in of late: more than a guess it cannot be */
	double s = ceil(position / pace);
	return s < 86400 ? (unsigned)s : 86400;
}

static void tell_all(struct gate *g)
{
	unsigned position = 0;
	uint64_t now = now_ms(g);
	double seconds = (double)(now - g->told_ms) / 1000.0;

	/* a mean over some ten seconds */
	if (g->told_ms)
		g->pace += (g->admissions / seconds - g->pace) * (seconds < 10 ? seconds / 10 : 1);
	g->admissions = 0;
	g->told_ms = now;
	for (struct place *p = g->queue; p; p = p->next) {
		position++;
		if (p->visitor && p->position != position)
			visitor_told(p, position);
		p->position = position;
	}
}

bool queue_full(const struct gate *g)
{
	return g->queue || !load_room(g);
}

void queue_pump(struct gate *g)
{
	struct load *l;

	while (g->queue && load_room(g) && (l = load_least(g)) && allowed(g))
		admit(g->queue, l);
	if (now_ms(g) - g->told_ms >= TELL_MS)
		tell_all(g);
	if (g->queue && !timer_running(&g->pump))
		loop_timer(g->worker->loop, &g->pump, PUMP_MS);
}

void queue_entered(struct gate *g, const char *nonce)
{
	struct place *p = place_find(g, nonce);

	if (!p || p->state != PLACE_ADMITTED)
		return;
	p->load->sessions++; /* until its next word */
	g->sessions++;
	place_free(p);
}

static void on_pump(struct timer *t, uint64_t now)
{
	(void)now;
	queue_pump((struct gate *)((char *)t - offsetof(struct gate, pump)));
}

void queue_init(struct gate *g)
{
	g->queue_last = &g->queue;
	g->pump.fire = on_pump;
	g->allowance = 1;
	g->allowance_ms = now_ms(g);
}

void queue_stop(struct gate *g)
{
	loop_timer_stop(g->worker->loop, &g->pump);
	for (size_t i = 0; i < GATE_HASH; i++)
		while (g->place[i])
			place_free(g->place[i]);
}
