#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "deploy/loquat/reload.h"
#include "rpc/app.h"
#include "tests/support/changed.h"
#include "tests/support/sim_main.h"
/*
 * Reloads of messages and Lua by the supervisor's own code (deploy/loquat/reload.c), while somebody asks and processes die, stand
 * still or lose their connections in the middle: at the end all go by the new messages and the new Lua, or all by the old; on the
 * way nobody's new Lua runs before everybody knows its messages; and no request is refused for what it says.
 */
#define HOST   "10.0.0.1"
#define SEATS  4 /* the first CALLS run the Lua */
#define CALLS  3
#define ROUNDS 6
#define PORT   8001 /* of the first; the others' follow */
#define FACE   8000 /* of the supervisor */

static const char cluster_key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char config[] = "return { instances = {\n"
			     "{ id = 'calls-1', service = 'calls', host = '" HOST "', rpc = 4001, http = 8001 },\n"
			     "{ id = 'calls-2', service = 'calls', host = '" HOST "', rpc = 4002, http = 8002 },\n"
			     "{ id = 'calls-3', service = 'calls', host = '" HOST "', rpc = 4003, http = 8003 },\n"
			     "{ id = 'caller-1', service = 'caller', host = '" HOST "', rpc = 4004, http = 8004 },\n"
			     "}, calls = { threads = 2 },\n"
			     "paths = { messages = 'messages.desc' }, log = { level = 'error' } }\n";

static int lua_init(struct service *s)
{
	return service_lua(s, "lua");
}

static const struct service_def calls = { .name = "calls", .init_service = lua_init };
static const struct service_def caller = { .name = "caller" };

struct seat {
	char id[48];
	struct route_row row;
	struct sim_process *process;
	struct service *service; /* of its life `of`, in its memory */
	unsigned of, seen,
		life;    /* seen: ready, by the supervisor; life: so when the reload under way began; 0: it was not */
	char lua[2][16]; /* what its workers ran then */
};

enum kind { GOOD, RAISES, REFUSES, UNFIT, KINDS };

struct world {
	struct sim *w;
	struct seat seat[SEATS];
	unsigned version;     /* of the files that everybody runs */
	enum kind kind;       /* of the reload under way */
	char messages[2][16]; /* before, and by the new files */
	bool reloading, settling;
	bool cut; /* who refuses is to be cut off when the first one switches */
	unsigned troubles, asked, fine;
};

static struct world *world(void)
{
	return sim_user(sim_current());
}

/* ---- the files -------------------------------------------------------------------------------------------------------- */

static unsigned fields; /* that were added */
static bool is_unfit;

static void add_fields(pb_set *set)
{
	char name[16];

	for (unsigned i = 1; i <= fields; i++) {
		snprintf(name, sizeof name, "f%u", i);
		changed_add_field(set, "calls.Text", name, (int)(10 + i));
	}
	if (is_unfit)
		changed_field(set, "calls.Text", "words")->number = 9;
}

static void store(struct sim *w, const char *name, const char *text)
{
	sim_file_store(w, HOST, name, text, strlen(text));
}

/* Version n answers by its number, and asks others with the field of its own messages. */
static void write_files(struct world *x, unsigned n, enum kind kind)
{
	char text[1200];
	size_t size;

	fields = n;
	is_unfit = kind == UNFIT;
	char *bytes = changed_bytes(add_fields, &size);
	struct schema *s = changed_schema(NULL, add_fields);

	sim_file_store(x->w, HOST, "messages.desc", bytes, size);
	snprintf(x->messages[1], sizeof x->messages[1], "%s", schema_version(s));
	schema_free(s);
	free(bytes);
	snprintf(text, sizeof text,
		 "local Remote = {}\n"
		 "function Remote.put(args)\n"
		 "  if not args.words then return { text = '%u', f%u = args.f%u } end\n"
		 "  local got, err, why = app.rpc.calls.boxRemote.put(args.words[1], { f%u = 'new' })\n"
		 "  if not got then return nil, err, why end\n"
		 "  if got.text == '%u' and got.f%u ~= 'new' then error('a field is lost') end\n"
		 "  return { text = '%u' }\n"
		 "end\n"
		 "%s\n"
		 "return Remote\n",
		 n, n, n, n, n, n, n, kind == RAISES ? "error('at the top')" : "");
	store(x->w, "lua/boxRemote.lua", text);
	snprintf(text, sizeof text,
		 "return { on_reload = function()\n"
		 "  assert(%s or app.instance ~= 'calls-2' or app.worker ~= 1, 'not here') end }\n",
		 kind == REFUSES ? "false" : "true");
	store(x->w, "lua/init.lua", text);
}

/* ---- the instances ------------------------------------------------------------------------------------------------------ */

static void instance_main(struct env *env, void *arg)
{
	struct seat *seat = arg;
	struct service_options o = { .config_file = "deploy/cluster.lua", .instance = seat->id };
	const struct service_def *def = seat - world()->seat < CALLS ? &calls : &caller;
	struct service *s;
	char error[512] = "";

	if (service_start(env, def, &o, error, sizeof error, &s) < 0) {
		sim_trace(sim_current(), "%s: %s", seat->id, error);
		return;
	}
	seat->service = s;
	seat->of = sim_starts(seat->process);
	loop_join(s->control);
	seat->of = 0;
	service_free(s);
}

static bool is_ready(const struct seat *seat)
{
	return sim_alive(seat->process) && seat->of == sim_starts(seat->process) &&
	       atomic_load(&seat->service->state) == SERVICE_READY;
}

static const char *lua_of(const struct seat *seat, unsigned worker)
{
	struct app *a = seat->service->worker[worker]->app;

	return a ? luahost_version(app_host(a)) : "";
}

/* Who was there when the reload began, in the same life. */
static bool takes_part(const struct seat *seat)
{
	return seat->life && seat->life == sim_starts(seat->process) && is_ready(seat);
}

static bool goes_by(const struct seat *seat, const char *messages)
{
	for (unsigned i = 0; i < seat->service->workers; i++)
		if (strcmp(schema_version(seat->service->worker[i]->schema), messages) != 0)
			return false;
	return true;
}

static bool runs_new(const struct seat *seat)
{
	for (unsigned i = 0; i < seat->service->workers; i++)
		if (strcmp(lua_of(seat, i), seat->lua[i]) != 0)
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
		all &= goes_by(seat, x->messages[1]);
	}
	if (x->reloading)
		sim_check(x->w, !any || all, "new Lua runs, and not everybody knows its messages");
}

/* ---- the supervisor: its reload.c, beside eyes of our own ----------------------------------------------------------------- */

struct up {
	struct supervisor up;
	struct cluster c;
	struct instance instance[SEATS];
	unsigned life[SEATS];
	struct timer tick;
	unsigned ticks;
};

void face_json(struct env_http_request *r, int status, json_t *take)
{
	char *text = json_dumps(take, 0);

	env_http_reply(r, status, "application/json", NULL, text, strlen(text));
	free(text);
	json_decref(take);
}

void face_refuse(struct env_http_request *r, int err, const char *message)
{
	face_json(r, err_http(err), json_pack("{s:s}", "message", message));
}

void screen_say(struct supervisor *up, const char *fmt, ...)
{
	va_list args;
	char text[600];

	(void)up;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	sim_trace(sim_current(), "%s", text);
}

/* supervisor.reload_watch_s is 0: nobody looks at the figures. */
void collect(struct supervisor *up, void (*done)(void *arg), void *arg)
{
	(void)up;
	done(arg);
}

static void on_looked(void *arg, const struct env_http_answer *a)
{
	struct instance *i = arg;
	struct seat *seat = &world()->seat[i - i->up->instance];

	if (a->err == 0)
		i->child.state = a->status == 200 ? CHILD_READY : CHILD_STARTING;
	if (i->child.state != CHILD_READY)
		return;
	seat->seen = (unsigned)i->child.pid;
	reload_catch_up(i);
}

/* Deaths are told at once, as by SIGCHLD; who is alive is asked whether it is ready. */
static void on_tick(struct timer *t, uint64_t now_ms)
{
	struct up *u = (struct up *)((char *)t - offsetof(struct up, tick));

	(void)now_ms;

	for (unsigned i = 0; i < SEATS; i++) {
		const struct seat *seat = &world()->seat[i];
		struct instance *in = &u->instance[i];

		if (!sim_alive(seat->process)) {
			in->child.state = CHILD_BACKOFF;
		} else if (u->life[i] != sim_starts(seat->process)) {
			u->life[i] = sim_starts(seat->process);
			in->child.state = CHILD_STARTING;
			in->child.pid = (pid_t)u->life[i];
			in->passed_by = RELOAD_PASSED_NOT;
		}
		if (sim_alive(seat->process) && u->ticks % 50 == 0)
			env_http_call(u->up.loop->ev, HOST, seat->row.http_port, "GET", "/readyz", NULL, "", 0, 1000,
				      on_looked, in);
	}
	u->ticks++;
	loop_timer(u->up.loop, t, 1);
}

static void on_request(void *arg, struct env_http_request *r)
{
	struct up *u = arg;

	reload_begin(&u->up, env_http_query(r, "id"), r);
}

static void up_start(struct loop *loop, void *arg)
{
	struct up *u = arg;

	u->up.loop = loop;
	u->tick.fire = on_tick;
	loop_timer(loop, &u->tick, 1);
	if (env_http_listen(loop->ev, HOST, FACE, on_request, u, &u->up.http) < 0)
		env_abort(loop->env, "the supervisor has no port");
}

static void up_main(struct env *env, void *arg)
{
	static const char text[] = "return { supervisor = { reload_watch_s = 0 } }";
	static const struct config_row rows[] = {
		{ "supervisor.reload_watch_s", CONFIG_INT, NULL, false, 0, 10, "" },
		{ NULL, CONFIG_INT, NULL, false, 0, 0, NULL },
	};
	struct up *u = calloc(1, sizeof *u);
	char error[300];

	(void)arg;
	u->up.c = &u->c;
	u->up.instance = u->instance;
	u->up.instances = SEATS;
	memcpy(u->c.key, cluster_key, sizeof cluster_key);
	if (config_parse("supervisor", text, sizeof text - 1, rows, error, sizeof error, &u->c.config) < 0)
		env_abort(env, error);
	for (unsigned i = 0; i < SEATS; i++) {
		u->instance[i].up = &u->up;
		u->instance[i].row = &world()->seat[i].row;
		u->instance[i].child.state = CHILD_BACKOFF;
	}
	if (loop_start(env, "up", 0, up_start, NULL, u, &u->up.loop) < 0)
		env_abort(env, "no loop");
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
	if (env_http_call(p->loop->ev, HOST, PORT + CALLS, "POST", path, headers, body, strlen(body), 8000, on_answer,
			  k) < 0)
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

static bool all_ready(void *arg)
{
	const struct world *x = arg;

	for (unsigned i = 0; i < SEATS; i++)
		if (!is_ready(&x->seat[i]))
			return false;
	return true;
}

static void start(struct sim *w)
{
	struct world *x = calloc(1, sizeof *x);

	x->w = w;
	sim_user_set(w, x);
	sim_calm(w);
	sim_root(w, ".");
	store(w, "deploy/cluster.lua", config);
	store(w, "var/keys/cluster.key", cluster_key);
	x->version = 1;
	write_files(x, 1, GOOD);
	for (unsigned i = 0; i < SEATS; i++) {
		struct seat *seat = &x->seat[i];

		snprintf(seat->row.service, sizeof seat->row.service, "%s", i < CALLS ? "calls" : "caller");
		snprintf(seat->id, sizeof seat->id, "%s-%u", seat->row.service, i < CALLS ? i + 1 : 1);
		snprintf(seat->row.id, sizeof seat->row.id, "%s", seat->id);
		snprintf(seat->row.host, sizeof seat->row.host, "%s", HOST);
		seat->row.http_port = (uint16_t)(PORT + i);
		seat->process = sim_process(w, seat->id, HOST, instance_main, seat);
	}
	sim_process(w, "up", HOST, up_main, NULL);
	sim_check(w, sim_until(w, 10000, all_ready, x), "the instances do not get ready");
	sim_process(w, "player", HOST, player_main, NULL);
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

		seat->life = is_ready(seat) && seat->seen == sim_starts(seat->process) ? seat->seen : 0;
		for (unsigned k = 0; seat->life && k < seat->service->workers; k++)
			snprintf(seat->lua[k], sizeof seat->lua[k], "%s", lua_of(seat, k));
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
	sim_check(x->w, sim_until(x->w, 20000, all_ready, x), "somebody does not get ready again");
	sim_run_ms(x->w, 1000);
}

static void look_same(struct world *x)
{
	for (unsigned i = 0; i < SEATS && !sim_failure(x->w); i++) {
		const struct seat *seat = &x->seat[i];

		sim_check(x->w, goes_by(seat, x->messages[1]), "%s goes by other messages than all", seat->id);
		for (unsigned k = 0; i < CALLS && k < seat->service->workers; k++)
			sim_check(x->w, !strcmp(lua_of(seat, k), lua_of(&x->seat[0], 0)), "%s runs other Lua than all",
				  seat->id);
	}
}

static bool reload(struct world *x)
{
	struct sim_http_answer a;

	note_seats(x);
	x->reloading = true;
	sim_at(x->w, 0, on_look, x);
	int status = sim_http(x->w, "up", FACE, "POST", "/admin/reload?id=calls", NULL, "", 0, 120000, &a);

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
	write_files(x, n, x->kind);
	for (unsigned i = 0; i < troubles; i++)
		sim_at(x->w, sim_random(x->w, 15000), trouble, x);
	bool taken = reload(x);

	if (x->kind != GOOD)
		write_files(x, x->version, GOOD);
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
