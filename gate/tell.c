#include <math.h>
#include <stdlib.h>
#include "gate/gate.h"

/*
 * Who waits is told its position when it has changed by a tenth, or when the time it was promised has moved by a tenth,
 * but not within TELL_LOOK_MS of the last time; and when it has changed at all, every STALE_MS. So a waiter costs as
 * many pushes as its position has tenths, not as many as there are admissions before it.
 */
#define STALE_MS     15000
#define LOOK_MAX_MS  5000
#define ETA_MAX_S    86400
#define FULL_SECONDS 3 /* so many are needed to know the pace of a full cluster */

void tell_init(struct gate *g)
{
	g->second_now = gate_now_ms(g) / 1000;
}

void tell_second(struct gate *g, unsigned admissions)
{
	uint64_t now = gate_now_ms(g) / 1000;

	while (g->second_now < now) {
		g->second_now++;
		if (g->seconds < GATE_SECONDS)
			g->seconds++;
		g->second[g->second_now % GATE_SECONDS].admissions = 0;
		g->second[g->second_now % GATE_SECONDS].full = line_count(&g->line) > 0;
	}
	g->second[now % GATE_SECONDS].admissions += admissions;
	if (load_room(g)) /* it is the rate that holds them up, not the places */
		g->second[now % GATE_SECONDS].full = false;
}

/* Admissions per second while the cluster was full: as many as left. < 0: it is not known yet. */
static double pace_when_full(const struct gate *g)
{
	unsigned seconds = 0, admissions = 0;

	for (uint64_t i = 1; i <= g->seconds && i < GATE_SECONDS; i++) { /* the running one is not whole */
		uint64_t at = (g->second_now - i) % GATE_SECONDS;
		seconds += g->second[at].full;
		admissions += g->second[at].full ? g->second[at].admissions : 0;
	}
	return seconds < FULL_SECONDS ? -1 : (double)admissions / seconds;
}

/* What the connectors' own rates leave of it. */
static double rate_of(const struct gate *g, double rate)
{
	double each = g->connector_admit_per_s * g->usable / (1.0 + peers_listed(g));

	return g->connector_admit_per_s && (rate <= 0 || each < rate) ? each : rate;
}

static unsigned eta_of(const struct gate *g, unsigned position)
{
	double room = g->share_room, rate = g->share_rate, s = 0;

	if (!g->keeper)
		peers_parts(g, NULL, line_count(&g->line), &room, &rate);
	rate = rate_of(g, rate);
	double fits = position < room ? position : room;
	double pace = pace_when_full(g);
	if (pace < 0 || (rate > 0 && pace > rate))
		pace = rate;
	if (pace < 0.01)
		pace = 0.01; /* nobody has left of late: more than a guess it cannot be */
	if (rate > 0)
		s = fits / rate;
	s = ceil(s + (position - fits) / pace);
	return s < ETA_MAX_S ? (unsigned)s : ETA_MAX_S;
}

void tell_note(struct place *p, unsigned position)
{
	p->position = position;
	p->eta_s = eta_of(p->gate, position);
	p->told_ms = gate_now_ms(p->gate);
}

static bool worth_telling(const struct place *p, unsigned position, unsigned eta_s)
{
	uint64_t since_ms = gate_now_ms(p->gate) - p->told_ms, since_s = since_ms / 1000;
	uint64_t promised = p->eta_s > since_s ? p->eta_s - since_s : 0;
	uint64_t off = promised > eta_s ? promised - eta_s : eta_s - promised;
	unsigned moved = position > p->position ? position - p->position : p->position - position;

	return moved * 10 >= p->position || (off > 2 && off * 10 > eta_s) || (moved && since_ms >= STALE_MS);
}

void tell_look(struct place *p)
{
	unsigned position = place_position(p), eta_s = eta_of(p->gate, position);
	uint64_t next_ms = eta_s * 1000ull / 20;

	if (!p->visitor->waits_prev && worth_telling(p, position, eta_s)) {
		visitor_told(p, position);
		if (!p->visitor)
			return; /* its connection broke under it: its end has a timer already */
	}
	if (next_ms < TELL_LOOK_MS)
		next_ms = TELL_LOOK_MS;
	loop_timer(p->gate->worker->loop, &p->timer, next_ms < LOOK_MAX_MS ? next_ms : LOOK_MAX_MS);
}
