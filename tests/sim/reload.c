#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/sim_reload.h"
/*
 * Reloads of messages and Lua by the supervisor's own code (deploy/loquat/reload.c), while somebody asks and processes die, stand
 * still or lose their connections in the middle: at the end all go by the new messages and the new Lua, or all by the old; on the
 * way nobody's new Lua runs before everybody knows its messages; and no request is refused for what it says. Of two
 * supervisors that reload at once one is refused, and never is the code of both switched.
 */
#define ROUNDS 6

static struct world *world(void)
{
	return sim_user(sim_current());
}

/* Who was there when the reload began, in the same life. */
static bool takes_part(const struct seat *seat)
{
	return seat->life && seat->life == sim_starts(seat->process) && sim_reload_ready(seat);
}

static bool runs_new(const struct seat *seat)
{
	for (unsigned i = 0; i < seat->service->workers; i++)
		if (strcmp(sim_reload_lua(seat, i), seat->lua[i]) != 0)
			return true;
	return false;
}

/* New Lua runs nowhere before everybody knows its messages. */
static void look(struct world *x)
{
	bool any = false, all = true;

	for (unsigned i = 0; i < SEATS; i++) {
		struct seat *seat = &x->seat[i];

		if (!takes_part(seat))
			continue;
		any |= i < CALLS && runs_new(seat);
		all &= sim_reload_goes_by(seat, x->messages[1]);
	}
	if (x->reloading)
		sim_check(x->w, !any || all, "new Lua runs, and not everybody knows its messages");
}

/* ---- who asks ------------------------------------------------------------------------------------------------------------- */

struct ask {
	struct world *x;
	unsigned version; /* that everybody ran when it was asked; 0: it was just changing */
};

static unsigned steady(const struct world *x)
{
	return x->reloading || x->settling ? 0 : x->version;
}

static void on_answer(void *arg, const struct env_http_answer *a)
{
	struct ask *k = arg;
	struct world *x = k->x;
	const char *text = a->err == 0 && a->status == 200 ? strstr(a->body, "\"text\":\"") : NULL;
	unsigned n = text ? (unsigned)strtoul(text + 8, NULL, 10) : 0;

	if (a->err == 0 && (a->status == 400 || a->status == 404 || a->status == 500))
		sim_fail(x->w, "a request is refused: %s", a->body);
	if (k->version && k->version == steady(x) && text)
		sim_check(x->w, n == k->version, "version %u answers, all run %u", n, k->version);
	x->fine += text != NULL;
	free(k);
}

struct player {
	struct loop *loop;
	struct timer tick;
};

static void on_ask(struct timer *t, uint64_t now_ms)
{
	struct player *p = (struct player *)((char *)t - offsetof(struct player, tick));
	struct world *x = world();
	struct ask *k = malloc(sizeof *k);
	char path[80], body[40] = "{}";
	const char *const headers[] = { "Authorization: Bearer "
					"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
					NULL };

	*k = (struct ask){ x, steady(x) };
	snprintf(path, sizeof path, "/rpc/calls/boxRemote/put?key=%u", (unsigned)(now_ms % 64));
	if (now_ms % 3)
		snprintf(body, sizeof body, "{\"words\":[\"%u\"]}", (unsigned)(now_ms / 3 % 64));
	x->asked++;
	if (env_http_call(p->loop->ev, RELOAD_HOST, RELOAD_PORT + CALLS, "POST", path, headers, body, strlen(body),
			  8000, on_answer, k) < 0)
		free(k);
	loop_timer(p->loop, t, 4);
}

static void player_start(struct loop *loop, void *arg)
{
	struct player *p = arg;

	p->loop = loop;
	p->tick.fire = on_ask;
	loop_timer(loop, &p->tick, 1);
}

static void player_main(struct env *env, void *arg)
{
	struct player *p = calloc(1, sizeof *p);
	struct loop *loop;

	(void)arg;
	if (loop_start(env, "player", 0, player_start, NULL, p, &loop) < 0)
		env_abort(env, "no loop");
}

/* ---- the course ------------------------------------------------------------------------------------------------------------ */

static void start(struct sim *w)
{
	struct world *x = calloc(1, sizeof *x);

	sim_reload_start(x, w);
	sim_reload_supervisor(x, "up", RELOAD_HOST);
	sim_process(w, "player", RELOAD_HOST, player_main, NULL);
	sim_run_ms(w, 300);
	sim_check(w, x->fine, "nobody is answered");
}

static void on_look(void *arg)
{
	struct world *x = arg;

	look(x);
	if (x->cut && takes_part(&x->seat[0]) && runs_new(&x->seat[0])) { /* in the middle of the switch */
		x->cut = false;
		x->troubles++;
		sim_link_stall(x->w, "up", x->seat[1].id, true);
	}
	if (x->reloading)
		sim_at(x->w, 100, on_look, x);
}

static void heal(void *arg)
{
	const struct seat *seat = arg;

	sim_link_stall(sim_current(), "up", seat->id, false);
	sim_link_refuse(sim_current(), "up", seat->id, false);
}

static void restart(void *arg)
{
	const struct seat *seat = arg;

	if (!sim_alive(seat->process))
		sim_restart(seat->process);
}

static void trouble(void *arg)
{
	struct world *x = arg;
	struct seat *seat = &x->seat[sim_random(x->w, SEATS)];

	if (!x->reloading)
		return;
	if (x->kind == REFUSES && sim_chance(x->w, 600000))
		seat = &x->seat[1]; /* who does */
	switch (sim_random(x->w, 4)) {
	case 0:
		if (x->kind == REFUSES) /* who refuses has to live for it */
			break;
		sim_kill(seat->process);
		if (x->kind == GOOD && sim_chance(x->w, 500000))
			sim_at(x->w, sim_random(x->w, 300) * 1000, restart, seat);
		break;
	case 1: sim_pause(seat->process, (uint32_t)sim_random(x->w, 4000)); break;
	case 2: /* no answer comes any more; nobody can tell what has become of the step */
		sim_link_stall(x->w, "up", seat->id, true);
		sim_at(x->w, sim_between(x->w, 1000, 30000) * 1000, heal, seat);
		break;
	default: /* a step finds nobody, who is there */
		sim_link_refuse(x->w, "up", seat->id, true);
		sim_at(x->w, sim_random(x->w, 2000) * 1000, heal, seat);
		break;
	}
	x->troubles++;
}

static void note_seats(struct world *x)
{
	for (unsigned i = 0; i < SEATS; i++) {
		struct seat *seat = &x->seat[i];

		seat->life = sim_reload_ready(seat) && seat->seen == sim_starts(seat->process) ? seat->seen : 0;
		for (unsigned k = 0; seat->life && k < seat->service->workers; k++)
			snprintf(seat->lua[k], sizeof seat->lua[k], "%s", sim_reload_lua(seat, k));
	}
}

/* Who died is started anew, by the files as they stand now; who stood still goes on; who was cut off is not any more. */
static void settle(struct world *x)
{
	for (unsigned i = 0; i < SEATS; i++)
		if (!sim_alive(x->seat[i].process))
			sim_restart(x->seat[i].process);
	sim_run_ms(x->w, 5000);
	for (unsigned i = 0; i < SEATS; i++)
		heal(&x->seat[i]);
	sim_check(x->w, sim_until(x->w, 20000, sim_reload_all_ready, x), "somebody does not get ready again");
	sim_run_ms(x->w, 1000);
}

static void look_same(struct world *x)
{
	for (unsigned i = 0; i < SEATS && !sim_failure(x->w); i++) {
		const struct seat *seat = &x->seat[i];

		sim_check(x->w, sim_reload_goes_by(seat, x->messages[1]), "%s goes by other messages than all",
			  seat->id);
		for (unsigned k = 0; i < CALLS && k < seat->service->workers; k++)
			sim_check(x->w, !strcmp(sim_reload_lua(seat, k), sim_reload_lua(&x->seat[0], 0)),
				  "%s runs other Lua than all", seat->id);
	}
}

static bool reload(struct world *x)
{
	struct sim_http_answer a;

	note_seats(x);
	x->reloading = true;
	sim_at(x->w, 0, on_look, x);
	int status = sim_http(x->w, "up", RELOAD_FACE, "POST", "/admin/reload?id=calls", NULL, "", 0, 120000, &a);

	x->reloading = false;
	sim_trace(x->w, "reload, kind %d, %u troubles: %d %s", (int)x->kind, x->troubles, status, a.body ? a.body : "");
	sim_check(x->w, status != 200 || x->kind == GOOD, "what must be refused is taken: %s", a.body ? a.body : "");
	sim_check(x->w, status == 200 || x->kind != GOOD || x->troubles, "what is good is refused: %s",
		  a.body ? a.body : "nobody answers");
	sim_http_release(&a);
	return status == 200;
}

/* What is good is tried again until it is taken; of what is not the files are put back, as they were. */
static void one_round(struct world *x)
{
	unsigned n = x->version + 1, troubles = (unsigned)sim_random(x->w, 3);

	x->settling = true;
	x->kind = sim_chance(x->w, 500000) ? GOOD : (enum kind)(1 + sim_random(x->w, KINDS - 1));
	x->troubles = 0;
	if (x->kind == GOOD &&
	    sim_chance(x->w, 300000)) { /* it reads the old files, and is not ready yet, or just so */
		sim_restart(x->seat[sim_random(x->w, SEATS)].process);
		sim_run_ms(x->w, sim_random(x->w, 120));
		x->troubles++;
	}
	x->cut = x->kind == REFUSES && sim_chance(x->w, 500000);
	sim_reload_files(x, n, x->kind);
	for (unsigned i = 0; i < troubles; i++)
		sim_at(x->w, sim_random(x->w, 15000), trouble, x);
	bool taken = reload(x);

	if (x->kind != GOOD)
		sim_reload_files(x, x->version, GOOD);
	settle(x);
	x->troubles = 0;
	if (x->kind == GOOD && !taken)
		reload(x);
	if (x->kind == GOOD)
		x->version = n;
	look_same(x);
	x->settling = false;
	sim_run_ms(x->w, 200);
}

static void all_reload_or_none(struct sim *w)
{
	struct world *x = sim_user(w);

	for (unsigned i = 0; i < ROUNDS && !sim_failure(w); i++)
		one_round(x);
}

/* ---- who was passed by ----------------------------------------------------------------------------------------------------- */

/* One comes up with the old files while all others are given new ones, and can be asked only when others yet, refused, lie there. */
static void who_was_passed_by_is_not_given_what_was_refused(struct sim *w)
{
	struct world *x = sim_user(w);
	struct seat *late = &x->seat[sim_chance(w, 500000) ? 0 : 2];
	char old[16], refused[16];

	x->settling = true;
	x->troubles = 1;
	x->kind = GOOD;
	sim_link_refuse(w, "up", late->id, true);
	sim_restart(late->process);
	sim_run_ms(w, 60);
	sim_check(w, sim_until(w, 10000, sim_reload_all_ready, x), "who was started anew does not get ready");
	snprintf(old, sizeof old, "%s", sim_reload_lua(late, 0));
	sim_reload_files(x, 2, GOOD);
	sim_check(w, reload(x), "what is good is refused");
	sim_reload_files(x, 3, REFUSES);
	x->kind = REFUSES;
	reload(x);
	snprintf(refused, sizeof refused, "%s", x->messages[1]);
	heal(late);
	sim_run_ms(w, 5000);
	sim_check(w, !strcmp(sim_reload_lua(late, 0), old), "%s runs what was refused", late->id);
	sim_check(w, !sim_reload_goes_by(late, refused), "%s goes by the refused messages", late->id);
	sim_reload_files(x, 2, GOOD);
	sim_run_ms(w, 40000);
	look_same(x);
}

/* ---- two operators --------------------------------------------------------------------------------------------------------- */

#define OTHER_HOST  "10.0.0.2"
#define GIVEN_UP_MS 95000 /* after which nothing is held for a supervisor that is not heard of */

struct two {
	struct world x;
	struct loop *loop; /* of the second one's process */
	struct timer tick;
	bool asks, answered;
	int status[2];
	char body[2][2000];
};

static struct two *two(void)
{
	return sim_user(sim_current());
}

static void note_answer(struct two *t, unsigned which, int status, const char *body)
{
	t->status[which] = status;
	snprintf(t->body[which], sizeof t->body[which], "%s", body ? body : "");
}

static void on_second(void *arg, const struct env_http_answer *a)
{
	struct two *t = arg;

	note_answer(t, 1, a->err < 0 ? a->err : a->status, a->err < 0 ? NULL : a->body);
	t->answered = true;
}

static void on_second_tick(struct timer *tick, uint64_t now_ms)
{
	struct two *t = two();

	(void)now_ms;
	if (t->asks && env_http_call(t->loop->ev, OTHER_HOST, RELOAD_FACE, "POST", "/admin/reload?id=calls", NULL, "",
				     0, 120000, on_second, t) < 0)
		env_abort(t->loop->env, "the second supervisor cannot be asked");
	t->asks = false;
	loop_timer(t->loop, tick, 1);
}

static void second_start(struct loop *loop, void *arg)
{
	struct two *t = arg;

	t->loop = loop;
	t->tick = (struct timer){ .fire = on_second_tick };
	loop_timer(loop, &t->tick, 1);
}

static void second_main(struct env *env, void *arg)
{
	struct loop *loop;

	if (loop_start(env, "second", 0, second_start, NULL, arg, &loop) < 0)
		env_abort(env, "no loop");
}

static void two_start(struct sim *w)
{
	struct two *t = calloc(1, sizeof *t);

	sim_reload_start(&t->x, w);
	sim_reload_supervisor(&t->x, "up", RELOAD_HOST);
	sim_reload_supervisor(&t->x, "up2", OTHER_HOST);
	sim_process(w, "second", OTHER_HOST, second_main, t);
	sim_run_ms(w, 300);
}

static void second_asks(void *arg)
{
	struct two *t = arg;

	sim_reload_files(&t->x, t->x.version + 2, GOOD);
	t->asks = true;
}

static void heal_second(void *arg)
{
	const struct seat *seat = arg;

	sim_link_stall(sim_current(), "up2", seat->id, false);
	heal(arg);
}

static void trouble_of_two(void *arg)
{
	struct two *t = arg;
	struct world *x = &t->x;
	struct seat *seat = &x->seat[sim_random(x->w, SEATS)];

	if (sim_chance(x->w, 300000)) {
		sim_pause(seat->process, (uint32_t)sim_random(x->w, 4000));
	} else {
		sim_link_stall(x->w, sim_chance(x->w, 500000) ? "up" : "up2", seat->id, true);
		sim_at(x->w, sim_between(x->w, 1000, 30000) * 1000, heal_second, seat);
	}
	x->troubles++;
}

static bool second_answered(void *arg)
{
	return ((const struct two *)arg)->answered;
}

static void first_reloads(struct two *t)
{
	struct sim_http_answer a;
	int status = sim_http(t->x.w, "up", RELOAD_FACE, "POST", "/admin/reload?id=calls", NULL, "", 0, 120000, &a);

	note_answer(t, 0, status, a.body);
	sim_http_release(&a);
}

/* What all run is what somebody was told, or what ran before; and who is refused is told why. */
static void check_two(struct two *t, const char *before)
{
	struct world *x = &t->x;
	const char *now = sim_reload_lua(&x->seat[0], 0), *messages = schema_version(x->seat[0].service->schema);
	bool told = false, changed = strstr(t->body[0], "files changed during") || strstr(t->body[0], "not the same");

	for (unsigned i = 0; i < SEATS; i++) {
		const struct seat *seat = &x->seat[i];

		sim_check(x->w, sim_reload_goes_by(seat, messages), "%s goes by other messages", seat->id);
		for (unsigned k = 0; i < CALLS && k < seat->service->workers; k++)
			sim_check(x->w, !strcmp(sim_reload_lua(seat, k), now), "%s runs other Lua", seat->id);
	}
	for (unsigned i = 0; i < 2; i++) {
		told |= t->status[i] == 200 && strstr(t->body[i], now);
		sim_check(x->w,
			  x->troubles || t->status[i] == 200 || (i == 0 && changed) ||
				  (t->status[i] == 429 && strstr(t->body[i], "another reload")),
			  "%s is told: %d %s", i ? "the second" : "the first", t->status[i], t->body[i]);
	}
	sim_check(x->w, t->status[0] == 200 || t->status[1] == 200 ? told : !strcmp(before, now),
		  "all run %s, which nobody was told: %s %s", now, t->body[0], t->body[1]);
	sim_check(x->w, x->troubles || changed || t->status[0] == 200 || t->status[1] == 200, "both are refused: %s %s",
		  t->body[0], t->body[1]);
}

static void round_of_two(struct two *t)
{
	struct world *x = &t->x;
	char before[16];

	snprintf(before, sizeof before, "%s", sim_reload_lua(&x->seat[0], 0));
	x->troubles = 0;
	t->answered = false;
	sim_reload_files(x, x->version + 1, GOOD);
	sim_at(x->w, sim_random(x->w, sim_chance(x->w, 500000) ? 300000 : 30000), second_asks, t);
	if (sim_chance(x->w, 500000))
		sim_at(x->w, sim_random(x->w, 100000), trouble_of_two, t);
	first_reloads(t);
	sim_check(x->w, sim_until(x->w, 120000, second_answered, t), "the second operator is not answered");
	sim_trace(x->w, "%u troubles; first: %d %s; second: %d %s", x->troubles, t->status[0], t->body[0], t->status[1],
		  t->body[1]);
	for (unsigned i = 0; i < SEATS; i++)
		heal_second(&x->seat[i]);
	sim_run_ms(x->w, 8000);
	check_two(t, before);
	sim_run_ms(x->w, GIVEN_UP_MS);
	first_reloads(t);
	sim_check(x->w, t->status[0] == 200, "what is good is refused: %s", t->body[0]);
	x->version += 2;
	sim_run_ms(x->w, 3000);
	check_two(t, sim_reload_lua(&x->seat[0], 0));
}

static void one_of_two_reloads_at_once_is_refused(struct sim *w)
{
	struct two *t = sim_user(w);

	for (unsigned i = 0; i < ROUNDS && !sim_failure(w); i++)
		round_of_two(t);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "all_reload_or_none", .prepare = start, .run = all_reload_or_none, .seeds = 40 },
		{ .name = "who_was_passed_by_is_not_given_what_was_refused",
		  .prepare = start,
		  .run = who_was_passed_by_is_not_given_what_was_refused,
		  .seeds = 20 },
		{ .name = "one_of_two_reloads_at_once_is_refused",
		  .prepare = two_start,
		  .run = one_of_two_reloads_at_once_is_refused,
		  .seeds = 40 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
