#include "dbwriter/copies.h"
#include "dbwriter/replay_private.h"
/*
 * A copy is read only when its host is lost: what has rotted in it until then would show too late. So it is read through
 * slowly, from its position in the database on, as it would be landed; and who keeps it is told of damage, to fetch it again.
 */

#define RECORDS        2000 /* read at a look */
#define EACH_MS        60000
#define AGAIN_MS       2000 /* while it is damaged */
#define ALARM_AGAIN_MS 60000

static void begin(struct stream *s, struct position from, unsigned most)
{
	follow_release(&s->scrub);
	follow_init(&s->scrub, s->replay->loop->env, s->folder, from);
	s->scrub.most = most;
}

static int read_on(struct stream *s)
{
	struct sqllog_record rec;
	int state = FOLLOW_RECORD;
	for (unsigned i = 0; i < RECORDS && state == FOLLOW_RECORD; i++)
		state = follow_next(&s->scrub, &rec);
	return state;
}

/* It has landed on meanwhile: what has stopped us may be of no concern any more, or gone. */
static int look_again(struct stream *s, int state)
{
	struct sqllog_record rec;
	if (state != FOLLOW_STOPPED || position_compare(s->scrub.taken, s->landed) >= 0)
		return state;
	begin(s, s->landed, 0);
	state = follow_next(&s->scrub, &rec);
	s->scrub.most = RECORDS;
	return state;
}

static void tell(struct stream *s, bool damaged, const char *why)
{
	const struct replay *r = s->replay;
	uint64_t now_ms = r->loop->now_ms;
	atomic_store_explicit(&s->counts.stopped, damaged, memory_order_relaxed);
	if (!damaged && s->told_ms)
		log_info(r->log, "dbwriter.copy_whole", "instance=%s", s->name);
	else if (damaged && (!s->told_ms || now_ms - s->told_ms >= ALARM_AGAIN_MS))
		log_error(r->log, "dbwriter.copy_damaged", "instance=%s why=%s next=%s", s->name, why,
			  "it is fetched again while its writer is there");
	else
		return;
	s->told_ms = damaged ? now_ms : 0;
}

void stream_scrub(struct stream *s, uint64_t now_ms)
{
	const struct replay *r = s->replay;
	struct position last;
	if (!r->o.standby_ms || !s->asked || s->known || now_ms < s->scrub_ms)
		return;
	if (!s->scrubs) /* behind what was found to be damaged, or from the beginning */
		begin(s,
		      s->counts.stopped && position_compare(s->scrub.taken, s->landed) > 0 ? s->scrub.taken : s->landed,
		      RECORDS);
	int state = look_again(s, read_on(s));
	s->scrubs = state == FOLLOW_RECORD || state == FOLLOW_PASSED;
	if (s->scrubs)
		return;
	bool damaged = state == FOLLOW_STOPPED, aside = copies_aside(r->loop->env, s->folder, &last);
	if (s->scrub.bad && r->o.on_damaged)
		r->o.on_damaged(r->o.on_damaged_arg, s->name, s->scrub.bad, s->landed);
	tell(s, damaged || aside, damaged ? s->scrub.why : "files of it were set aside (*.sql.damaged)");
	follow_release(&s->scrub);
	s->scrub_ms = now_ms + (s->counts.stopped ? AGAIN_MS : EACH_MS);
}
