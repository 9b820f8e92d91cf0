#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rpc/service.h"
#include "tests/support/sim_main.h"
/*
 * A service's Lua beside a disk that fails: what was not written did not happen, what may have been written is unknown
 * and its key is lost, and a commit in the middle of a task tells its script.
 */
#define HOST "10.0.0.1"
#define PORT 8001

static const char cluster_key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char config[] = "return { instances = {\n"
			     "{ id = 'calls-1', service = 'calls', host = '10.0.0.1', rpc = 4001, http = 8001 } },\n"
			     "paths = { messages = 'build/tests.desc' }, log = { level = 'error' } }\n";
static const char remote[] = "state.lost, state.sum = state.lost or {}, state.sum or 0\n"
			     "local Remote = {}\n"
			     "local function change(n)\n"
			     "  db.key('uid:a b,c%') db.key('role:1')\n"
			     "  db.exec('UPDATE role SET gold = gold + ? WHERE id = 1', n)\n"
			     "  db.set(state, 'sum', state.sum + n)\n"
			     "  cache.put('sum', state.sum + n)\n"
			     "end\n"
			     "function Remote.put(args) change(args.number) return {} end\n"
			     "function Remote.late(args)\n"
			     "  change(args.number)\n"
			     "  local ok, err = db.commit()\n"
			     "  return { text = err, flag = ok }\n"
			     "end\n"
			     "function Remote.get()\n"
			     "  return { number = state.sum, text = tostring(cache.get('sum')), words = state.lost }\n"
			     "end\n"
			     "return Remote\n";
static const char init[] = "return { on_lost = function(key) table.insert(state.lost, key) end }\n";

static int lua_init(struct service *s)
{
	return service_lua(s, "lua");
}

static const struct service_def def = { .name = "calls", .sqllog = true, .init_service = lua_init };

static void instance_main(struct env *env, void *arg)
{
	struct service_options o = { .config_file = "deploy/cluster.lua", .instance = "calls-1" };
	char error[512] = "";
	struct service *s;

	(void)arg;
	if (service_start(env, &def, &o, error, sizeof(error), &s) < 0) {
		sim_fail(sim_current(), "%s", error);
		return;
	}
	loop_join(s->control);
	service_free(s);
}

static void store(struct sim *w, const char *name, const char *text)
{
	sim_file_store(w, HOST, name, text, strlen(text));
}

static int call(struct sim *w, const char *method, const char *body, char *answer, size_t size)
{
	struct sim_http_answer a;
	char path[100], authorization[100];
	const char *const headers[] = { authorization, NULL };

	snprintf(path, sizeof(path), "/rpc/calls/boxRemote/%s?key=k", method);
	snprintf(authorization, sizeof(authorization), "Authorization: Bearer %s", cluster_key);
	int status = sim_http(w, "calls-1", PORT, "POST", path, headers, body, strlen(body), 10000, &a);
	snprintf(answer, size, "%s", a.body ? a.body : "");
	sim_http_release(&a);
	return status;
}

/* The call has this status, and these words in its answer. */
static void expect(struct sim *w, const char *method, const char *body, int status, const char *words)
{
	char answer[1000];
	int got = call(w, method, body, answer, sizeof(answer));

	sim_check(w, got == status && strstr(answer, words), "%s: expected %d %s, got %d %s", method, status, words,
		  got, answer);
}

static void start(struct sim *w)
{
	char answer[200];

	sim_calm(w);
	sim_root(w, ".");
	store(w, "deploy/cluster.lua", config);
	store(w, "var/keys/cluster.key", cluster_key);
	store(w, "lua/boxRemote.lua", remote);
	store(w, "lua/init.lua", init);
	sim_process(w, "calls-1", HOST, instance_main, NULL);
	for (int i = 0; i < 50 && call(w, "get", "{}", answer, sizeof(answer)) != 200; i++)
		sim_run_ms(w, 20);
	expect(w, "put", "{\"number\":1}", 200, "{}");
	expect(w, "get", "{}", 200, "\"number\":1,\"words\":[]}");
}

static void come_back(struct sim *w)
{
	char answer[200];

	sim_disk_full(w, HOST, false);
	for (int i = 0; i < 50 && call(w, "put", "{\"number\":100}", answer, sizeof(answer)) != 200; i++)
		sim_run_ms(w, 50);
	expect(w, "put", "{\"number\":0}", 200, "{}");
}

#define LOST "\"words\":[\"uid:a b,c%\",\"role:1\"]"

/* Each seed has faults of its own; a link that breaks would be another answer. */
static void only_the_disk_fails(struct sim *w)
{
	sim_chances(w)->reset_ppm = 0;
}

static void a_change_whose_record_may_not_be_on_the_disk_is_unknown_and_its_keys_are_lost(struct sim *w)
{
	only_the_disk_fails(w);
	sim_disk_full(w, HOST, true);
	expect(w, "put", "{\"number\":10}", 504, "\"error\":\"unknown\"");
	expect(w, "get", "{}", 200, LOST);
	come_back(w);
}

static void what_was_cached_beside_a_change_that_is_lost_is_lost_too(struct sim *w)
{
	only_the_disk_fails(w);
	expect(w, "put", "{\"number\":10}", 200, "{}");
	expect(w, "get", "{}", 200, "{\"text\":\"11\",\"number\":11,");
	sim_disk_full(w, HOST, true);
	expect(w, "put", "{\"number\":10}", 504, "unknown");
	expect(w, "get", "{}", 200, "{\"text\":\"nil\",\"number\":21,");
	come_back(w);
	expect(w, "get", "{}", 200, "\"text\":\"121\"");
}

static void a_failed_sync_is_no_better_than_a_failed_write(struct sim *w)
{
	only_the_disk_fails(w);
	sim_disk_fail(w, HOST, 0, 1);
	expect(w, "put", "{\"number\":10}", 504, "\"effect\":\"unknown\"");
	expect(w, "get", "{}", 200, LOST);
	come_back(w);
}

static void while_nothing_can_be_written_changes_are_refused_and_nothing_has_changed(struct sim *w)
{
	only_the_disk_fails(w);
	sim_disk_full(w, HOST, true);
	expect(w, "put", "{\"number\":10}", 504, "unknown");
	expect(w, "put", "{\"number\":1000}", 503, "\"error\":\"unavailable\"");
	expect(w, "put", "{\"number\":1000}", 503, "\"effect\":\"none\"");
	expect(w, "get", "{}", 200, "\"number\":11,");
	come_back(w);
	expect(w, "get", "{}", 200, "\"number\":111,");
}

static void a_commit_that_fails_tells_its_script_and_loses_the_keys(struct sim *w)
{
	only_the_disk_fails(w);
	sim_disk_full(w, HOST, true);
	expect(w, "late", "{\"number\":10}", 200, "{\"text\":\"unknown\"}");
	expect(w, "get", "{}", 200, LOST);
	expect(w, "late", "{\"number\":1000}", 200, "{\"text\":\"unavailable\"}");
	expect(w, "get", "{}", 200, "\"number\":11,");
	come_back(w);
}

int main(int argc, char **argv)
{
	static const struct sim_scenario list[] = {
		{ .name = "a_change_whose_record_may_not_be_on_the_disk_is_unknown_and_its_keys_are_lost",
		  .prepare = start,
		  .run = a_change_whose_record_may_not_be_on_the_disk_is_unknown_and_its_keys_are_lost,
		  .seeds = 10 },
		{ .name = "what_was_cached_beside_a_change_that_is_lost_is_lost_too",
		  .prepare = start,
		  .run = what_was_cached_beside_a_change_that_is_lost_is_lost_too,
		  .seeds = 10 },
		{ .name = "a_failed_sync_is_no_better_than_a_failed_write",
		  .prepare = start,
		  .run = a_failed_sync_is_no_better_than_a_failed_write,
		  .seeds = 10 },
		{ .name = "while_nothing_can_be_written_changes_are_refused_and_nothing_has_changed",
		  .prepare = start,
		  .run = while_nothing_can_be_written_changes_are_refused_and_nothing_has_changed,
		  .seeds = 10 },
		{ .name = "a_commit_that_fails_tells_its_script_and_loses_the_keys",
		  .prepare = start,
		  .run = a_commit_that_fails_tells_its_script_and_loses_the_keys,
		  .seeds = 10 },
		{ .name = NULL },
	};
	return sim_main(argc, argv, list);
}
