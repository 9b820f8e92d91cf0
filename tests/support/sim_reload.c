#include "tests/support/sim_reload.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/err.h"
#include "tests/support/changed.h"

const char sim_reload_key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char config[] =
	"return { instances = {\n"
	"{ id = 'calls-1', service = 'calls', host = '" RELOAD_HOST "', rpc = 4001, http = 8001 },\n"
	"{ id = 'calls-2', service = 'calls', host = '" RELOAD_HOST "', rpc = 4002, http = 8002 },\n"
	"{ id = 'calls-3', service = 'calls', host = '" RELOAD_HOST "', rpc = 4003, http = 8003 },\n"
	"{ id = 'caller-1', service = 'caller', host = '" RELOAD_HOST "', rpc = 4004, http = 8004 },\n"
	"}, calls = { threads = 2 },\n"
	"paths = { messages = 'messages.desc' }, log = { level = 'error' } }\n";

static int lua_init(struct service *s)
{
	return service_lua(s, "lua");
}

static const struct service_def calls = { .name = "calls", .init_service = lua_init };
static const struct service_def caller = { .name = "caller" };

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
	sim_file_store(w, RELOAD_HOST, name, text, strlen(text));
}

/* Version n answers by its number, and asks others with the field of its own messages. */
void sim_reload_files(struct world *x, unsigned n, enum kind kind)
{
	char text[1200];
	size_t size;

	fields = n;
	is_unfit = kind == UNFIT;
	char *bytes = changed_bytes(add_fields, &size);
	struct schema *s = changed_schema(NULL, add_fields);

	sim_file_store(x->w, RELOAD_HOST, "messages.desc", bytes, size);
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

bool sim_reload_ready(const struct seat *seat)
{
	return sim_alive(seat->process) && seat->of == sim_starts(seat->process) &&
	       atomic_load(&seat->service->state) == SERVICE_READY;
}

const char *sim_reload_lua(const struct seat *seat, unsigned worker)
{
	struct app *a = seat->service->worker[worker]->app;

	return a ? luahost_version(app_host(a)) : "";
}

bool sim_reload_goes_by(const struct seat *seat, const char *messages)
{
	for (unsigned i = 0; i < seat->service->workers; i++)
		if (strcmp(schema_version(seat->service->worker[i]->schema), messages) != 0)
			return false;
	return true;
}

bool sim_reload_all_ready(void *arg)
{
	const struct world *x = arg;

	for (unsigned i = 0; i < SEATS; i++)
		if (!sim_reload_ready(&x->seat[i]))
			return false;
	return true;
}

void sim_reload_start(struct world *x, struct sim *w)
{
	x->w = w;
	sim_user_set(w, x);
	sim_calm(w);
	sim_root(w, ".");
	store(w, "deploy/cluster.lua", config);
	store(w, "var/keys/cluster.key", sim_reload_key);
	x->version = 1;
	sim_reload_files(x, 1, GOOD);
	for (unsigned i = 0; i < SEATS; i++) {
		struct seat *seat = &x->seat[i];

		snprintf(seat->row.service, sizeof seat->row.service, "%s", i < CALLS ? "calls" : "caller");
		snprintf(seat->id, sizeof seat->id, "%s-%u", seat->row.service, i < CALLS ? i + 1 : 1);
		snprintf(seat->row.id, sizeof seat->row.id, "%s", seat->id);
		snprintf(seat->row.host, sizeof seat->row.host, "%s", RELOAD_HOST);
		seat->row.http_port = (uint16_t)(RELOAD_PORT + i);
		seat->process = sim_process(w, seat->id, RELOAD_HOST, instance_main, seat);
	}
	sim_check(w, sim_until(w, 10000, sim_reload_all_ready, x), "the instances do not get ready");
}

/* ---- the supervisor: its reload.c, beside eyes of our own ----------------------------------------------------------------- */

struct up {
	struct supervisor up;
	struct cluster c;
	struct instance instance[SEATS];
	const char *host;
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
			env_http_call(u->up.loop->ev, RELOAD_HOST, seat->row.http_port, "GET", "/readyz", NULL, "", 0,
				      1000, on_looked, in);
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
	if (env_http_listen(loop->ev, u->host, RELOAD_FACE, on_request, u, &u->up.http) < 0)
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

	u->host = arg;
	u->up.c = &u->c;
	u->up.instance = u->instance;
	u->up.instances = SEATS;
	memcpy(u->c.key, sim_reload_key, sizeof sim_reload_key);
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

void sim_reload_supervisor(struct world *x, const char *name, const char *host)
{
	sim_process(x->w, name, host, up_main, (void *)host);
}
