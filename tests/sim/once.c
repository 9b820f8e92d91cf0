#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/once_world.h"
/*
 * Once-calls: both halves of rpc/once.h, as they ship, over a network that drops, doubles, delays and reorders messages,
 * while clients and the server die at any moment, the disk fails, the log loses what was not synced, and the replay lags.
 * What stands around them is a model: a log of records, a replay, a table of rows, and connections that end with either
 * side's process, as those of TCP do. So 100,000 seeds take less than a minute.
 *
 * In the end each operation that was answered has had its effect once, with the body that was answered; what was refused
 * has had none, what nobody learnt at most one; the same call got the same answer; and of sequences nothing is left in
 * the table when their clients are gone.
 */

/* ---- the server --------------------------------------------------------------------------------------------------------- */

static void task_end(struct world *x, struct task *t)
{
	(void)x;
	once_leave(&t->waiter);
	t->used = false;
}

static void answer(struct world *x, struct task *t, enum once_verdict verdict, int err, uint64_t text)
{
	t->m.verdict = verdict;
	t->m.err = err;
	t->m.answer = text;
	world_send(x, &t->m, AT_CLIENT);
	task_end(x, t);
}

static void on_told(struct once_waiter *w)
{
	struct task *t = (struct task *)w;

	world_at_server(t->x, ASK, t, 0);
}

static uint64_t text_number(struct span s)
{
	uint64_t v;

	assert(s.n == sizeof v);
	memcpy(&v, s.p, sizeof v);
	return v;
}

static void ask(struct world *x, struct task *t)
{
	const struct op *op = &x->op[t->m.op];
	char key[16], client[24];
	struct once_result r;
	struct once_call c = {
		.owner = span_of(world_owners[op->owner], strlen(world_owners[op->owner])),
		.method = span_of("shop.buy", 8),
		.key = span_of(key, op->business ? (size_t)snprintf(key, sizeof key, "k%u", t->m.op) : 0),
		.client = span_of(client, strlen(world_client_name(x, client, t->m.client, t->m.epoch))),
		.seq = t->m.seq,
		.first_incomplete = t->m.first,
		.attempt = x->plan.always_first ? 0 : t->m.attempt,
		.fingerprint = x->plan.no_fingerprint ? 7 : 7 + t->m.body,
	};
	enum once_verdict verdict = once_ask(x->once, &c, x->now / MS, &r);

	switch (verdict) {
	case ONCE_RUN:
		t->entry = r.entry;
		world_at_server(x, RUN_END, t, 0);
		return;
	case ONCE_DONE: answer(x, t, ONCE_DONE, 0, text_number(r.answer)); return;
	case ONCE_REFUSED: answer(x, t, ONCE_RUN, 1, 0); return;
	case ONCE_REUSED:
	case ONCE_FORGOTTEN: answer(x, t, verdict, 0, 0); return;
	case ONCE_LOAD: world_at_server(x, LOADED, r.owner, op->owner); break;
	case ONCE_READ: world_at_server(x, READ, r.entry, op->owner); break;
	case ONCE_WAIT: break;
	}
	t->waiter.fn = on_told;
	once_wait(r.waiters, &t->waiter);
}

static void serve(struct world *x, const struct message *m)
{
	unsigned i = 0;

	if (!x->alive || m->server != x->start)
		return;
	while (i < TASKS && x->task[i].used)
		i++;
	if (i == TASKS) /* busy: as if it had been lost */
		return;
	x->task[i] = (struct task){ .x = x, .used = true, .m = *m };
	ask(x, &x->task[i]);
}

static void put_deletes(struct world *x, const struct once_entry *e, struct record *r)
{
	struct once_forget f;

	while (r->deletes < 4 && once_forget(x->once, e, 1 + (unsigned)world_chance(x, 3), &f)) {
		snprintf(r->delete[r->deletes].client, 24, "%.*s", (int)f.client.n, f.client.p);
		r->delete[r->deletes++].below = f.below;
	}
}

static void record(struct world *x, struct task *t)
{
	const struct op *op = &x->op[t->m.op];
	struct record *r = world_append(x, op->owner);
	struct once_row row;

	once_row(t->entry, &row);
	r->op = t->m.op;
	r->body = t->m.body;
	r->effect = !x->plan.two_records;
	r->completion = true;
	r->row = (struct row){
		.owner = op->owner,
		.business = op->business,
		.op = t->m.op,
		.seq = op->business ? 0 : row.seq,
		.hash = row.hash,
		.fingerprint = row.fingerprint,
		.answer = t->answer = ++x->answers,
	};
	snprintf(r->row.client, sizeof r->row.client, "%.*s", (int)row.client.n, row.client.n ? row.client.p : "");
	put_deletes(x, t->entry, r);
	if (x->plan.two_records) {
		r = world_append(x, op->owner);
		r->op = t->m.op;
		r->body = t->m.body;
		r->effect = true;
	}
	t->lsn = x->lsn;
}

static void done(struct world *x, struct task *t)
{
	struct once_entry *e = t->entry;
	uint64_t text = t->answer;

	t->entry = NULL;
	once_done(x->once, e, false, span_of((const char *)&text, sizeof text));
	answer(x, t, ONCE_DONE, 0, text);
}

static void run_end(struct world *x, struct task *t)
{
	if (world_happens(x, x->refusals)) {
		once_refused(x->once, t->entry, ERR_DENIED, EFFECT_NONE, span_of("no", 2));
		answer(x, t, ONCE_RUN, 1, 0);
	} else if (world_happens(x, 20)) { /* cancelled */
		once_gone(x->once, t->entry);
		task_end(x, t);
	} else {
		record(x, t);
		if (x->plan.answers_early)
			done(x, t);
		else
			world_at_server(x, SYNCED, t, 0);
	}
}

/* A sync that fails tells so, and its record comes with the next that works, or never. */
static void synced(struct world *x, struct task *t)
{
	if (world_happens(x, x->disk)) {
		once_lost(x->once, t->entry);
		answer(x, t, ONCE_RUN, 2, 0);
		return;
	}
	if (t->lsn > x->durable)
		x->durable = t->lsn;
	done(x, t);
}

/* Who reads a key waits until the replay has passed its last change. */
static bool must_wait(struct world *x, unsigned owner)
{
	return !x->plan.reads_early && x->landed < x->last[owner];
}

static void load(struct world *x, struct once_owner *o, const struct row *rows, unsigned owner)
{
	for (unsigned i = 0; i < ROWS; i++) {
		const struct row *r = &rows[i];

		if (r->used && r->owner == owner && !x->plan.forgets_at_crash)
			once_load_row(x->once, o, r->hash, span_of(r->client, strlen(r->client)), r->seq, x->now / MS);
	}
	once_loaded(x->once, o, true);
}

/* The rows as they stood, on their way back from the database. */
struct snapshot {
	struct once_owner *owner;
	struct row row[ROWS];
};

static void loaded(struct world *x, const struct event *e)
{
	struct snapshot *s;

	if (world_happens(x, 100)) {
		once_loaded(x->once, e->p, false);
	} else if (must_wait(x, e->b)) {
		world_at_server(x, LOADED, e->p, e->b);
	} else {
		s = malloc(sizeof *s);
		s->owner = e->p;
		memcpy(s->row, x->row, sizeof s->row);
		world_at_server(x, FED, s, e->b);
	}
}

static void fed(struct world *x, const struct event *e)
{
	struct snapshot *s = e->p;

	if (x->alive && e->a == x->start)
		load(x, s->owner, s->row, e->b);
	free(s);
}

static const struct row *row_of(const struct world *x, const struct once_row *wanted, unsigned owner)
{
	for (unsigned i = 0; i < ROWS; i++) {
		const struct row *r = &x->row[i];
		char key[16];
		size_t n = (size_t)snprintf(key, sizeof key, "k%u", r->op);

		if (!r->used || r->owner != owner || r->business != (wanted->key.n != 0))
			continue;
		if (r->business ? n == wanted->key.n && !memcmp(key, wanted->key.p, n)
				: r->seq == wanted->seq && strlen(r->client) == wanted->client.n &&
					  !memcmp(r->client, wanted->client.p, wanted->client.n))
			return r;
	}
	return NULL;
}

static void was_read(struct world *x, const struct event *e)
{
	struct once_row wanted;

	once_row(e->p, &wanted);
	const struct row *r = row_of(x, &wanted, e->b);

	if (world_happens(x, 100))
		once_read_failed(x->once, e->p, false);
	else if (must_wait(x, e->b))
		world_at_server(x, READ, e->p, e->b);
	else if (r)
		once_read(x->once, e->p, r->fingerprint, false, span_of((const char *)&r->answer, sizeof r->answer));
	else
		once_read_failed(x->once, e->p, true);
}

static void server_start(struct world *x)
{
	x->alive = true;
	x->start++;
	x->once = once_server_new(&(struct once_options){
		.stored = true,
		.bytes_max = x->bytes_max,
		.lease_ms = x->plan.short_lease ? 30 : LEASE_MS,
	});
}

static void server_crash(struct world *x)
{
	if (!x->alive)
		return;
	x->alive = false;
	for (unsigned i = 0; i < TASKS; i++)
		if (x->task[i].used)
			task_end(x, &x->task[i]);
	once_server_free(x->once);
	x->once = NULL;
	world_log_dies(x);
	world_in_us(x, (50 + world_chance(x, 300)) * MS, START_SERVER);
}

static void tick(struct world *x)
{
	struct once_forget f;

	world_in_us(x, 200 * MS, TICK);
	if (!x->alive)
		return;
	once_tick(x->once, x->now / MS);
	while (x->lsn < RECORDS / 2 && once_forget(x->once, NULL, 1, &f)) {
		unsigned owner = 0;

		while (strlen(world_owners[owner]) != f.owner.n || memcmp(world_owners[owner], f.owner.p, f.owner.n))
			owner++;
		struct record *r = world_append(x, owner);

		snprintf(r->delete[0].client, 24, "%.*s", (int)f.client.n, f.client.p);
		r->delete[0].below = f.below;
		r->deletes = 1;
	}
}

/* ---- the clients -------------------------------------------------------------------------------------------------------- */

static void call_send(struct world *x, unsigned client, struct call *call)
{
	struct client *c = &x->client[client];
	struct message m = {
		.server = x->start,
		.client = client,
		.epoch = c->epoch,
		.call = call->number,
		.op = call->op,
		.body = call->body,
		.seq = call->seq,
		.first = x->plan.forgets_before_ack ? call->seq : once_client_first(&c->once),
	};
	struct event *e = world_in_us(x, (10 + world_chance(x, 120)) * MS, RETRY);

	e->a = client;
	e->b = (unsigned)(call - c->call);
	e->m.call = call->number;
	e->m.epoch = c->epoch;
	if (!x->alive)
		return;
	m.attempt = call->attempt++;
	call->server = x->start;
	world_send(x, &m, AT_SERVER);
}

static bool op_choose(struct world *x, unsigned *op)
{
	unsigned first = (unsigned)world_chance(x, x->ops);

	for (unsigned i = 0; i < x->ops; i++) {
		*op = (first + i) % x->ops;
		if (!x->op[*op].settled || (x->op[*op].business && world_happens(x, 50)))
			return true;
	}
	return false;
}

static void issue(struct world *x, unsigned client)
{
	struct client *c = &x->client[client];
	unsigned op, slot = 0;

	world_in_us(x, (5 + world_chance(x, 150)) * MS, ISSUE)->a = client;
	while (slot < CALLS && c->call[slot].used)
		slot++;
	if (slot == CALLS || !op_choose(x, &op))
		return;
	struct op *o = &x->op[op];
	struct call *call = &c->call[slot];

	*call = (struct call){ .used = true, .op = op, .body = o->body, .number = ++x->numbers };
	call->until = x->now + LIFE_MS * MS;
	call->seq = once_client_begin(&c->once);
	if (o->business && world_happens(x, 150))
		call->body = !o->body;
	call->repeats = o->answer && o->answered_body == call->body;
	o->settled = !o->business; /* who has no key cannot ask anew */
	call_send(x, client, call);
}

static void call_end(struct client *c, struct call *call)
{
	once_client_end(&c->once, call->seq);
	call->used = false;
}

static void retry(struct world *x, const struct event *e)
{
	struct client *c = &x->client[e->a];
	struct call *call = &c->call[e->b];

	if (!call->used || call->number != e->m.call || c->epoch != e->m.epoch)
		return;
	if (x->now >= call->until)
		call_end(c, call); /* unknown */
	else
		call_send(x, e->a, call);
}

static void is_done(struct world *x, struct op *op, const struct message *m)
{
	if (op->answer && op->answer != m->answer)
		sim_fail(x->w, "operation %u has two answers", m->op);
	if (op->answer && op->answered_body != m->body)
		sim_fail(x->w, "operation %u was answered to two bodies", m->op);
	op->answer = m->answer;
	op->answered_body = m->body;
	op->promised = op->settled = true;
}

static void told(struct world *x, const struct message *m)
{
	struct client *c = &x->client[m->client];
	struct op *op = &x->op[m->op];
	struct call *call = c->call;

	while (call < c->call + CALLS && (!call->used || call->number != m->call || call->server != m->server))
		call++;
	if (m->epoch != c->epoch || call == c->call + CALLS)
		return;
	call_end(c, call);
	switch (m->verdict) {
	case ONCE_DONE: is_done(x, op, m); return;
	case ONCE_RUN: op->refused |= m->err == 1 && !op->business; return;
	case ONCE_REUSED:
		if (!op->business || call->repeats)
			sim_fail(x->w, "operation %u was refused as another", m->op);
		op->settled |= m->body == op->body;
		return;
	default: sim_fail(x->w, "operation %u was forgotten under way", m->op);
	}
}

static void client_crash(struct world *x, unsigned client)
{
	struct client *c = &x->client[client];

	memset(c->call, 0, sizeof c->call);
	once_client_release(&c->once);
	c->epoch++;
}

/* ---- a run ------------------------------------------------------------------------------------------------------------------ */

static void happen(struct world *x, struct event *e)
{
	struct task *t = e->kind == FED ? NULL : e->p;

	if (e->kind >= ASK && e->kind <= READ && (!x->alive || e->a != x->start))
		return;
	switch (e->kind) {
	case AT_SERVER: serve(x, &e->m); return;
	case AT_CLIENT: told(x, &e->m); return;
	case ASK: ask(x, t); return;
	case RUN_END: run_end(x, t); return;
	case SYNCED: synced(x, t); return;
	case LOADED: loaded(x, e); return;
	case READ: was_read(x, e); return;
	case FED: fed(x, e); return;
	case REPLAY:
		world_replay(x, 1 + (unsigned)world_chance(x, 4));
		world_in_us(x, 1 + world_chance(x, (x->calm ? 20 : 200) * MS), REPLAY);
		return;
	case ISSUE: issue(x, e->a); return;
	case RETRY: retry(x, e); return;
	case CRASH_SERVER: server_crash(x); return;
	case CRASH_CLIENT: client_crash(x, e->a); return;
	case START_SERVER: server_start(x); return;
	case TICK: tick(x); return;
	case OVER: x->calm = true; return;
	}
}

static bool is_over(const struct world *x)
{
	for (unsigned i = 0; i < x->ops; i++)
		if (!x->op[i].settled)
			return false;
	for (unsigned i = 0; i < CLIENTS * CALLS; i++)
		if (x->client[i / CALLS].call[i % CALLS].used)
			return false;
	for (unsigned i = 0; i < TASKS; i++)
		if (x->task[i].used)
			return false;
	return x->calm && x->alive;
}

static void begin(struct world *x)
{
	x->ops = 6 + (unsigned)world_chance(x, OPS - 6);
	for (unsigned i = 0; i < x->ops; i++)
		x->op[i] = (struct op){ .business = world_chance(x, 2),
					.owner = (unsigned)world_chance(x, OWNERS),
					.body = (unsigned)world_chance(x, 2) };
	x->drops = (unsigned)world_chance(x, 300);
	x->doubles = (unsigned)world_chance(x, 300);
	x->late = (unsigned)world_chance(x, 200);
	x->disk = (unsigned)world_chance(x, 200);
	x->refusals = (unsigned)world_chance(x, 300);
	x->bytes_max = world_chance(x, 3) ? 1 << 20 : 600 + world_chance(x, 4000);
	uint64_t over = (500 + world_chance(x, 1500)) * MS;

	world_in_us(x, over, OVER);
	for (uint64_t n = world_chance(x, 4); n; n--)
		world_in_us(x, world_chance(x, over), CRASH_SERVER);
	for (uint64_t n = world_chance(x, 3); n; n--)
		world_in_us(x, world_chance(x, over), CRASH_CLIENT)->a = (unsigned)world_chance(x, CLIENTS);
	for (unsigned i = 0; i < CLIENTS; i++)
		world_in_us(x, world_chance(x, 100) * MS, ISSUE)->a = i;
	world_in_us(x, world_chance(x, 100) * MS, REPLAY);
	world_in_us(x, 200 * MS, TICK);
	server_start(x);
}

/* Clients are gone: of their sequences nothing is left when their leases are over. */
static void sweep(struct world *x)
{
	struct once_result r;
	struct once_forget f;

	world_replay(x, RECORDS);
	for (unsigned i = 0; i < OWNERS; i++)
		if (once_know(x->once, span_of(world_owners[i], strlen(world_owners[i])), x->now / MS, &r) == ONCE_LOAD)
			load(x, r.owner, x->row, i);
	once_tick(x->once, x->now / MS + 3 * LEASE_MS);
	while (once_forget(x->once, NULL, 1, &f))
		for (unsigned i = 0; i < ROWS; i++) {
			struct row *row = &x->row[i];

			if (row->used && !row->business && !strcmp(row->client, "") == !f.client.n &&
			    strlen(row->client) == f.client.n && !memcmp(row->client, f.client.p, f.client.n) &&
			    strlen(world_owners[row->owner]) == f.owner.n &&
			    !memcmp(world_owners[row->owner], f.owner.p, f.owner.n) && row->seq < f.below)
				row->used = false;
		}
	sim_check(x->w, once_figures(x->once)->running == 0, "something still runs");
	sim_check(x->w, !once_tick(x->once, x->now / MS + 6 * LEASE_MS), "a lease is left");
	for (unsigned i = 0; i < ROWS; i++)
		sim_check(x->w, !x->row[i].used || x->row[i].business, "sequence %llu of %s is still stored",
			  (unsigned long long)x->row[i].seq, x->row[i].client);
}

static void check_op(struct world *x, unsigned i)
{
	const struct op *op = &x->op[i];
	unsigned effects = op->effects[0] + op->effects[1];

	sim_check(x->w, effects <= 1, "operation %u took effect %u times", i, effects);
	sim_check(x->w, !op->promised || op->effects[op->answered_body] == 1,
		  "operation %u was answered and has no effect", i);
	sim_check(x->w, !op->refused || !effects, "operation %u was refused and took effect", i);
}

static void play(struct sim *w, struct plan plan)
{
	struct world *x = calloc(1, sizeof *x);

	x->event = malloc(EVENTS * sizeof *x->event);
	x->heap = malloc(2 * EVENTS * sizeof *x->heap);
	x->free = x->heap + EVENTS;
	x->w = w;
	x->plan = plan;
	x->random = sim_seed(w) * 0x9e3779b97f4a7c15u | 1;
	for (unsigned i = 0; i < 5; i++)
		world_chance(x, 2);
	begin(x);
	while (!sim_failure(w) && !is_over(x)) {
		struct event e = world_take(x);

		x->now = e.at;
		happen(x, &e);
		if (x->now > 60000 * (uint64_t)MS)
			sim_fail(w, "a minute later something is not settled");
	}
	if (!sim_failure(w)) {
		sweep(x);
		for (unsigned i = 0; i < x->ops; i++)
			check_op(x, i);
	}
	for (unsigned i = 0; i < TASKS; i++)
		once_leave(&x->task[i].waiter);
	for (unsigned i = 0; i < x->heap_n; i++)
		if (x->event[x->heap[i]].kind == FED)
			free(x->event[x->heap[i]].p);
	once_server_free(x->once);
	for (unsigned i = 0; i < CLIENTS; i++)
		once_client_release(&x->client[i].once);
	free(x->event);
	free(x->heap);
	free(x);
}

#define RUN(name, ...)                                 \
	static void name(struct sim *w)                \
	{                                              \
		play(w, (struct plan){ __VA_ARGS__ }); \
	}
RUN(each_call_takes_effect_once_and_gets_one_answer, .short_lease = false)
RUN(a_client_that_acknowledges_too_early, .forgets_before_ack = true)
RUN(an_answer_before_its_record_is_durable, .answers_early = true)
RUN(a_key_without_its_fingerprint, .no_fingerprint = true)
RUN(a_server_that_forgets_when_it_dies, .forgets_at_crash = true)
RUN(a_set_that_is_read_before_the_replay_has_passed, .reads_early = true)
RUN(a_lease_that_a_later_start_uses_again, .reuses_leases = true)
RUN(an_answer_and_its_effect_in_two_records, .two_records = true)
RUN(a_client_that_says_it_never_sent_before, .always_first = true)
RUN(a_row_deleted_too_many, .deletes_too_much = true)
RUN(a_lease_shorter_than_a_call, .short_lease = true)

#define PLANTED(fn)                                                    \
	{                                                              \
		.name = #fn, .run = fn, .seeds = 20000, .planted = #fn \
	}
int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "each_call_takes_effect_once_and_gets_one_answer",
		  .run = each_call_takes_effect_once_and_gets_one_answer,
		  .seeds = 100000 },
		PLANTED(a_client_that_acknowledges_too_early),
		PLANTED(an_answer_before_its_record_is_durable),
		PLANTED(a_key_without_its_fingerprint),
		PLANTED(a_server_that_forgets_when_it_dies),
		PLANTED(a_set_that_is_read_before_the_replay_has_passed),
		PLANTED(a_lease_that_a_later_start_uses_again),
		PLANTED(an_answer_and_its_effect_in_two_records),
		PLANTED(a_client_that_says_it_never_sent_before),
		PLANTED(a_row_deleted_too_many),
		PLANTED(a_lease_shorter_than_a_call),
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
