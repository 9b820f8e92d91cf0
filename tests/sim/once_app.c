#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "dbwriter/dbwriter.h"
#include "rpc/service.h"
#include "tests/support/sim_main.h"
#include "tests/support/sim_schema.h"
/*
 * Once-calls from Lua to Lua through the whole stack: links, log, dbwriter, database. A caller counts up to CALLS by
 * once-calls without a key, four at a time, while the other side is killed and stopped, links are cut, the disk fails and the
 * database goes away; each number is to be there once, and the answers that were acknowledged do not stay.
 */
#define HOST  "10.0.0.1"
#define CALLS 60

static const char cluster_key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char config[] =
	"return { instances = {\n"
	"{ id = 'calls-1', service = 'calls', host = '10.0.0.1', rpc = 4001, http = 8001 },\n"
	"{ id = 'dbwriter-1', service = 'dbwriter', host = '10.0.0.1', rpc = 4600 },\n"
	"{ id = 'caller-1', service = 'caller', host = '10.0.0.2', rpc = 4002, http = 8002 } },\n"
	"calls = { threads = 2 }, paths = { messages = 'build/tests.desc' }, log = { level = 'error' } }\n";
static const char remote[] = "local Remote = {}\n"
			     "function Remote.once(args)\n"
			     "  db.key('box:' .. args.uid)\n"
			     "  db.exec('INSERT INTO effect (number, times) VALUES (?, 1) "
			     "ON DUPLICATE KEY UPDATE times = times + 1', args.number)\n"
			     "  return { number = 2 * args.number }\n"
			     "end\n"
			     "return Remote\n";
static const char caller[] =
	"state.next, state.right, state.wrong = 0, 0, ''\n"
	"local function count()\n"
	"  while state.next < 60 do\n"
	"    state.next = state.next + 1\n"
	"    local n, key = state.next, 'k' .. state.next % 5\n"
	"    repeat\n"
	"      local answer, err, why, effect = app.rpc.calls.boxRemote.once(key, { number = n, uid = key },\n"
	"        { timeout_ms = 300000 })\n"
	"      local right = answer and answer.number == 2 * n\n"
	"      if right then state.right = state.right + 1\n"
	"      elseif effect ~= 'none' then state.wrong = state.wrong .. ' ' .. n .. ': ' .. tostring(err) end\n"
	"      clock.sleep(right and 200 or 50)\n"
	"    until right or effect ~= 'none'\n"
	"  end\n"
	"end\n"
	"return {\n"
	"  init_service = function() for i = 1, 4 do app.task(count) end end,\n"
	"  http = function() return 200, state.right .. state.wrong end,\n"
	"}\n";

static int lua_init(struct service *s)
{
	return service_lua(s, "lua");
}

static const struct service_def calls_service = { .name = "calls", .sqllog = true, .init_service = lua_init };
static const struct service_def caller_service = { .name = "caller", .init_service = lua_init };

struct seat {
	const char *id, *host;
	const struct service_def *def;
};
static const struct seat seats[] = {
	{ "calls-1", HOST, &calls_service },
	{ "dbwriter-1", HOST, &dbwriter_service },
	{ "caller-1", "10.0.0.2", &caller_service },
};
#define SEATS (sizeof(seats) / sizeof(*seats))

static void seat_main(struct env *env, void *arg)
{
	const struct seat *seat = arg;
	struct service_options o = { .config_file = "deploy/cluster.lua", .instance = seat->id };
	struct service *s;
	char error[512];

	service_start(env, seat->def, &o, error, sizeof(error), &s); /* what fails is started again */
}

static void store(struct sim *w, const char *host, const char *name, const char *text)
{
	sim_file_store(w, host, name, text, strlen(text));
}

static void start(struct sim *w)
{
	sim_root(w, ".");
	sim_schema(w);
	sim_check(w, !sim_db_run(w, "CREATE TABLE effect (number BIGINT NOT NULL PRIMARY KEY, times INT NOT NULL)"),
		  "%s", sim_db_error(w));
	store(w, HOST, "lua/boxRemote.lua", remote);
	store(w, "10.0.0.2", "lua/init.lua", caller);
	for (size_t i = 0; i < SEATS; i++) {
		store(w, seats[i].host, "deploy/cluster.lua", config);
		store(w, seats[i].host, "var/keys/cluster.key", cluster_key);
		sim_process(w, seats[i].id, seats[i].host, seat_main, (void *)(uintptr_t)&seats[i]);
		if (seats[i].def != &caller_service) /* its calls would end with it */
			sim_supervise(sim_find(w, seats[i].id), 50, 500);
	}
}

static void trouble(struct sim *w)
{
	switch (sim_random(w, 8)) {
	case 0: sim_kill(sim_find(w, "calls-1")); break;
	case 1: sim_kill(sim_find(w, "dbwriter-1")); break;
	case 2: sim_pause(sim_find(w, "calls-1"), (uint32_t)sim_between(w, 100, 5000)); break;
	case 3: sim_link_reset(w, "calls-1", "caller-1"); break;
	case 4: sim_db_down(w, sim_chance(w, 500000)); break;
	case 5: sim_failpoint(w, "calls-1", "app.before_answer", 1 + (unsigned)sim_random(w, 4)); break;
	case 6: sim_crash_host(w, HOST); break;
	default: sim_link_stall(w, "calls-1", "caller-1", sim_chance(w, 300000)); break;
	}
}

/* How many calls had their right answer; what went wrong is a failure. */
static int right(struct sim *w)
{
	struct sim_http_answer a;
	int n = -1;

	if (sim_http(w, "caller-1", 8002, "GET", "/count", NULL, "", 0, 10000, &a) == 200) {
		n = atoi(a.body);
		sim_check(w, !strchr(a.body, ' '), "not once: %s", a.body);
	}
	sim_http_release(&a);
	return n;
}

static void every_number_is_counted_once(struct sim *w)
{
	char *text = NULL;

	for (unsigned i = 0; i < 10 && sim_run_ms(w, sim_between(w, 20, 1000)); i++)
		trouble(w);
	sim_calm(w);
	sim_heal(w);
	sim_db_down(w, false);
	for (int i = 0; i < 600 && !sim_failure(w) && right(w) < CALLS; i++)
		sim_run_ms(w, 500);
	sim_check(w, right(w) == CALLS, "only %d calls had their answer", right(w));
	for (int i = 0; i < 600 && !sim_failure(w) && sim_db_int(w, "SELECT COUNT(*) FROM effect", -1) < CALLS; i++)
		sim_run_ms(w, 100);
	sim_check(w, sim_db_int(w, "SELECT COUNT(*) FROM effect", -1) == CALLS, "not every number is there");
	sim_check(w, sim_db_int(w, "SELECT MAX(times) FROM effect", -1) == 1, "a number was counted twice");
	/* the rows of the answers forbid it too: a function that ran twice is found there */
	sim_check(w, sim_file_load(w, HOST, "var/sqllog/quarantine.sql", &text) < 0, "the database refused: %s", text);
	free(text);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "every_number_is_counted_once",
		  .prepare = start,
		  .run = every_number_is_counted_once,
		  .seeds = 200 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
