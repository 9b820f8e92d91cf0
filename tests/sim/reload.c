#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/sim_reload.h"
/*
 * Reloads of messages and Lua by the supervisor's own code (deploy/loquat/reload.c), while somebody asks and processes die, stand
 * still or lose their connections in the middle: at the end all go by the new messages and the new Lua, or all by the old; on the
 * way nobody's new Lua runs before everybody knows its messages; and no request is refused for what it says.
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

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "all_reload_or_none", .prepare = start, .run = all_reload_or_none, .seeds = 40 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
