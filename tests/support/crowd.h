#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/stream.h"
/*
 * crowd: many players who come to gates within a short time, wait in the queue, enter where they are sent, stay a while and
 * leave; and what became of them, so that the order, the positions and the times they were told can be judged.
 *
 * Who loses its gate comes back with its ticket, to another one if there are several. Runs on any loop, real or simulated.
 *
 * Threads: the loop's; read it when it is done (crowd_done may be asked from outside).
 * Memory:  crowd_new allocates all there is; it outlives the loop.
 */
#define CROWD_GATES 2
struct crowd_options {
	const char *host;
	uint16_t gate[CROWD_GATES];
	unsigned gates, members;
	uint32_t arrive_ms; /* all have come by then, evenly */
	uint32_t stay_ms;   /* after enter, half of it less or more; then the player leaves */
	uint32_t back_ms;   /* longest pause before one comes back */
	bool enters;        /* false: the token is all it wants */
};
struct crowd;
struct crowd_member {
	struct crowd *crowd;
	struct stream stream;
	struct timer timer;
	enum { CROWD_AWAY, CROWD_AT_GATE, CROWD_AT_CONNECTOR, CROWD_DONE } state;
	bool streaming, in;
	unsigned gate, tells;
	uint64_t since_us;    /* by its ticket; 0: it never waited */
	uint64_t admitted_ms; /* by its token: wall clock of the gate */
	uint64_t asked_ms;    /* its last queryEntry: wall clock, too */
	unsigned admit_no;    /* from 1, as they were told */
	uint16_t port;
	char *ticket, *token;
};
struct crowd_tell { /* a position that was pushed */
	uint32_t member, ms, admitted, position, eta_s;
	uint64_t asked_ms, heard_ms; /* wall clock: it was made between these */
};
struct crowd {
	struct crowd_options o;
	struct loop *loop;
	struct crowd_member *member;
	struct crowd_tell *tell;
	uint32_t *admit_ms; /* by member */
	size_t tells, tells_max;
	uint64_t start_ms, tick_ms, stall_ms; /* stall: the longest the loop stood still, for want of a processor */
	struct timer tick;
	uint32_t lot;
	unsigned came, queued, admitted, in, in_most, entered, done;
	unsigned lost_gates, places_lost, refused; /* refused: tokens */
};
struct crowd *crowd_new(const struct crowd_options *o);
void crowd_free(struct crowd *c);
void crowd_start(struct crowd *c, struct loop *loop); /* on the loop */
bool crowd_done(const struct crowd *c);

struct crowd_judgement {
	unsigned judged; /* pushes that were looked at: of who was admitted by push later */
	double position_median,
		position_p99;       /* error, as part of the position; three are not counted: they were on their way */
	double eta_median, eta_p99; /* error of the eta, as part of what it took; a second is not counted */
	double tells_mean;          /* pushes per member */
	uint64_t inversion_ms;      /* how long at most somebody was let in before one who stood before it */
};
/*
 * Positions told until then against the gate's own clock, which no delay on the way spoils: no more stood before the player than
 * when it asked, no fewer than when it heard. How many are neither; judged: how many were looked at.
 */
unsigned crowd_false(const struct crowd *c, uint32_t until_ms, unsigned *judged);
/* from_ms: what was told earlier is not looked at. */
void crowd_judge(const struct crowd *c, uint32_t from_ms, struct crowd_judgement *out);
