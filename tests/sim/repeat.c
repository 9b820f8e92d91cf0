#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/env_sim.h"
#include "tests/support/ping.h"
/*
 * The promise the simulation stands on: one seed, one course of events, to the last bit; whatever ran before
 * it in this program, whatever the arguments, the environment and the addresses the system gives out.
 *
 * The world under test has sockets, files, timers, kills, and Lua states whose tables are walked by pairs():
 * their order comes from hashes of strings (seeded from addresses and the time) and from addresses themselves.
 */
#define SEEDS 5

static const char script[] =
	"local t, names = {}, {}\n"
	"for i = 1, 200 do t['key' .. i * 7919] = i; t[{}] = i; t[function() return i end] = i end\n"
	"for _, f in pairs(math) do t[f] = 0 end\n"
	"t[io.stdout] = 1; t[coroutine.create(print)] = 2\n"
	"for k, v in pairs(t) do names[#names + 1] = type(k) .. v end\n"
	"return table.concat(names, ',') .. ' ' .. math.random(1 << 40) .. ' ' .. os.time() .. ' ' .. os.clock()\n";

static void write_out(struct env *env, const char *text)
{
	struct env_file *f;
	if (env_file_open(env, "out", ENV_WRITE | ENV_CREATE, &f) < 0)
		return;
	env_file_append(f, text, strlen(text));
	env_file_sync(f);
	env_file_close(f);
}

static void lua_main(struct env *env, void *arg)
{
	lua_State *L = luaL_newstate();
	(void)arg;
	luaL_openlibs(L);
	if (luaL_dostring(L, script) != LUA_OK)
		env_abort(env, lua_tostring(L, -1));
	for (int i = 0; i < 10; i++)
		write_out(env, lua_tostring(L, -1));
	lua_close(L);
}

static void server_main(struct env *env, void *arg)
{
	struct ping_server *s;
	(void)arg;
	ping_server_start(env, "0.0.0.0", 7000, &s);
}

static void client_main(struct env *env, void *arg)
{
	struct ping_client *c;
	ping_client_start(env, "10.0.0.1", 7000, 5, 3000, arg, &c);
}

static void play(struct sim *w, struct ping_counts *counts)
{
	struct sim_process *server = sim_process(w, "pong", "10.0.0.1", server_main, NULL);
	struct sim_process *client = sim_process(w, "ping", "10.0.0.2", client_main, counts);
	struct sim_process *lua = sim_process(w, "lua", "10.0.0.1", lua_main, NULL);
	sim_supervise(server, 1, 50);
	sim_supervise(lua, 1, 50);
	for (int i = 0; i < 10; i++) {
		sim_run_ms(w, sim_between(w, 1, 100));
		sim_kill(sim_chance(w, 500000) ? server : lua);
		if (sim_chance(w, 100000))
			sim_crash_host(w, "10.0.0.2");
		if (!sim_alive(client))
			sim_restart(client);
	}
	sim_run_ms(w, 500);
}

static uint64_t course(uint64_t seed)
{
	struct ping_counts counts = { 0 };
	struct sim *w = sim_new(seed);
	play(w, &counts);
	uint64_t hash = sim_hash(w);
	if (sim_failure(w)) {
		printf("not ok repeat: %s\n", sim_failure(w));
		exit(1);
	}
	sim_free(w);
	return hash;
}

/* A program of its own: only these seeds, with arguments and an environment of the given length. */
static uint64_t course_elsewhere(uint64_t seed, size_t clutter, bool randomize)
{
	char *noise = calloc(1, clutter + 3), number[24], out[32] = "";
	int ends[2], now = personality(0xffffffff);
	memset(noise, 'x', clutter + 2);
	noise[0] = 'N';
	noise[1] = '=';
	snprintf(number, sizeof(number), "%llu", (unsigned long long)seed);
	if (pipe(ends) < 0)
		exit(2);
	pid_t pid = fork();
	if (pid == 0) {
		char *argv[] = { noise, "--course", number, noise, NULL }, *env[] = { noise, NULL };
		dup2(ends[1], STDOUT_FILENO);
		if (now >= 0)
			personality(randomize ? (unsigned long)now & ~(unsigned long)ADDR_NO_RANDOMIZE
					      : (unsigned long)now | ADDR_NO_RANDOMIZE);
		execve("/proc/self/exe", argv, env);
		_exit(2);
	}
	close(ends[1]);
	if (read(ends[0], out, sizeof(out) - 1) < 0)
		out[0] = '\0';
	close(ends[0]);
	waitpid(pid, NULL, 0);
	free(noise);
	return strtoull(out, NULL, 16);
}

static unsigned failures, failed_names;

static void same(const char *what, uint64_t seed, uint64_t a, uint64_t b)
{
	if (a == b && a != 0)
		return;
	failures++;
	printf("# seed %llu: %s: %016llx, not %016llx\n", (unsigned long long)seed, what, (unsigned long long)b,
	       (unsigned long long)a);
}

static void verdict(const char *name)
{
	printf("%s %s\n", failures ? "not ok" : "ok", name);
	failed_names += failures > 0;
	failures = 0;
}

int main(int argc, char **argv)
{
	uint64_t alone[SEEDS];
	if (argc > 2 && strcmp(argv[1], "--course") == 0) {
		printf("%016llx\n", (unsigned long long)course(strtoull(argv[2], NULL, 10)));
		return 0;
	}
	for (uint64_t s = 0; s < SEEDS; s++)
		alone[s] = course_elsewhere(s, 0, false);
	for (uint64_t s = SEEDS; s-- > 0;)
		same("after other seeds", s, alone[s], course(s));
	for (uint64_t s = 0; s < SEEDS; s++)
		same("once more", s, alone[s], course(s));
	verdict("a_seed_takes_the_same_course_whatever_ran_before");
	for (uint64_t s = 0; s < SEEDS; s++)
		same("longer arguments and environment", s, alone[s], course_elsewhere(s, 777 + 1000 * s, false));
	verdict("a_seed_takes_the_same_course_with_other_arguments_and_environment");
	for (uint64_t s = 0; s < SEEDS; s++)
		same("randomised addresses", s, alone[s], course_elsewhere(s, s, true));
	verdict("a_seed_takes_the_same_course_under_address_randomisation");
	for (uint64_t s = 1; s < SEEDS; s++)
		if (alone[s] == alone[s - 1])
			failures++;
	verdict("another_seed_takes_another_course");
	return failed_names > 0;
}
