#include <assert.h>
#include <string.h>
#include "gate/gate.h"

#define PUMP_MS       50   /* between looks at a queue that stands */
#define UNDECIDED_MS  1000 /* the longest a queryEntry waits for its answer */
#define START_MS      1000 /* after a start the connectors' first words are waited for so long */
#define SETTLE_MS     500  /* without another ticket of before: they are all here */
#define SETTLE_MAX_MS 3000

/* ---- whether ---------------------------------------------------------------------------------------------------- */

/* How full the cluster is has to be known before anybody is let in. */
static bool starting(const struct gate *g)
{
	return !(load_known(g) && peers_met(g)) && gate_now_ms(g) - g->start_ms < START_MS;
}

static bool on_hold(const struct gate *g)
{
	return gate_now_ms(g) < g->hold_until_ms || starting(g);
}

void queue_settle(struct gate *g)
{
	uint64_t now = gate_now_ms(g), until = now + SETTLE_MS;

	if (!g->settle_ms || now - g->settle_ms > GATE_PLACE_MS)
		g->settle_ms = now;
	if (until > g->settle_ms + SETTLE_MAX_MS)
		until = g->settle_ms + SETTLE_MAX_MS;
	if (until > g->hold_until_ms)
		g->hold_until_ms = until;
}

/* Whether it may yet turn out that there is room for who has just come. */
static bool undecided(const struct gate *g)
{
	if (g->settle_ms && gate_now_ms(g) < g->hold_until_ms)
		return false; /* there are others before it */
	if (on_hold(g))
		return true;
	if (g->keeper)
		return g->allow_asking;
	return load_room(g) && !load_free(g);
}

bool queue_stands(const struct gate *g)
{
	return line_count(&g->line) > g->waiting || peers_waiting(g);
}

/* At most admit_per_s, evenly: only a tenth of a second's worth (and one) is ever saved up. */
static void allowance_grow(struct gate *g)
{
	double saved_max = 1 + g->admit_per_s / 10.0;
	double each = g->connector_admit_per_s / (1.0 + peers_listed(g)), each_max = 1 + each / 10;
	double seconds = (double)(gate_now_ms(g) - g->allowance_ms) / 1000.0;

	g->allowance_ms = gate_now_ms(g);
	g->allowance += seconds * g->admit_per_s;
	if (g->allowance > saved_max)
		g->allowance = saved_max;
	for (size_t i = 0; i < g->loads; i++) {
		g->load[i]->allowance += seconds * each;
		if (g->load[i]->allowance > each_max)
			g->load[i]->allowance = each_max;
	}
}

/* ---- admissions --------------------------------------------------------------------------------------------------- */

static bool admit_first(struct gate *g)
{
	struct place *p = place_first(g);
	struct load *l = p ? load_least(g) : NULL;

	if (!l)
		return false;
	place_admit(p, l);
	l->allowance -= 1;
	visitor_admitted(p);
	return true;
}

/* The keeper of the count: turn by turn between the gates, in proportion to who waits where. */
static unsigned admit_as_keeper(struct gate *g)
{
	unsigned n = 0;

	while (load_free(g) && (!g->admit_per_s || g->allowance >= 1)) {
		unsigned waiting = load_least(g) ? line_count(&g->line) : 0;
		struct peer *p = peers_turn(g, waiting);
		if (!p && !waiting)
			break;
		if (p)
			p->due++;
		else if (admit_first(g))
			n++;
		g->allowance -= 1;
	}
	return n;
}

static unsigned admit_by_grants(struct gate *g)
{
	unsigned n = 0;

	while (g->grants && admit_first(g)) {
		g->grants--;
		n++;
	}
	return n;
}

static void answer_waiting(struct gate *g)
{
	uint64_t now_ns = env_mono_ns(g->service->env);

	for (struct visitor *v = g->waits, *next; v; v = next) {
		next = v->waits_next;
		bool in = v->place && v->place->state == PLACE_ADMITTED;
		if (in || !undecided(g) || now_ns - v->waits_ns > UNDECIDED_MS * 1000000ull)
			visitor_wait_end(v);
	}
}

void queue_pump(struct gate *g)
{
	unsigned n = 0;

	allowance_grow(g);
	if (!on_hold(g))
		n = g->keeper ? admit_by_grants(g) : admit_as_keeper(g);
	if (!g->keeper && line_count(&g->line) + peers_waiting(g) && !load_free(g) && load_room(g))
		load_recall(g);
	tell_second(g, n);
	answer_waiting(g);
	if (line_count(&g->line) && !timer_running(&g->pump))
		loop_timer(g->worker->loop, &g->pump, PUMP_MS);
}

void queue_entered(struct gate *g, const char *nonce)
{
	struct place *p = place_find(g, nonce);

	if (!p || p->state != PLACE_ADMITTED)
		return;
	p->load->sessions++; /* until its next word */
	p->load->entered += p->load->asking;
	g->sessions++;
	g->entered++;
	place_free(p);
}

static void on_pump(struct timer *t, uint64_t now)
{
	struct gate *g = (struct gate *)((char *)t - offsetof(struct gate, pump));

	(void)now;
	peers_ask(g, false);
	queue_pump(g);
}

void queue_init(struct gate *g)
{
	g->pump.fire = on_pump;
	g->allowance = 1;
	g->allowance_ms = gate_now_ms(g);
}

void queue_stop(struct gate *g)
{
	loop_timer_stop(g->worker->loop, &g->pump);
	place_stop(g);
}
